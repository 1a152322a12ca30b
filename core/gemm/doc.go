// SPDX-License-Identifier: Apache-2.0

// Package gemm multiplies matrices near the speed of the processor: int8 by
// int8 into int32 modulo 2³² (docs/spec/numerics.md §6.2), and floats of 8, 16
// and 32 bits into binary32 by chains of fused multiply-adds in the order of K.
//
// The right operand is packed once (Weights), the left one block by block on the
// way (a block stays in the second level of the cache), and a micro-kernel
// computes a tile of C in registers. There are three tiers: AVX-512 with VNNI,
// AVX2 with FMA, and plain Go. New takes the best one that processor and
// operating system have. All give the same bits, for every number of threads
// and every size of a block: sums modulo 2³² do not depend on their order, and
// a chain that is cut at the end of a block goes on from what was stored.
//
// The assembly is generated (gen, a module of its own; make generate-gemm).
// None of its functions runs for more than a few microseconds, so the Go
// scheduler is not kept waiting.
//
// An Engine is for one caller at a time; it hands parts of a product to
// goroutines of its own and waits for them. Operands belong to the caller, and
// nothing outside of C's rows is written. Once an engine and a Weights have
// seen a size, products and packing of that size allocate nothing.
package gemm
