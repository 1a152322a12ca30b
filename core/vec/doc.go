// SPDX-License-Identifier: Apache-2.0

// Package vec is the arithmetic of the vector engine on rows of elements: what
// package num defines for one, with the registers of AVX-512 or AVX2, or in plain
// Go. All tiers give the bits that docs/spec/numerics.md asks for, whatever the
// length of a row. The assembly is written by package gen, a module of its own.
//
// Types and operations have the numbers of docs/spec/isa.md, §5.6.8 and §5.6.18 to
// §5.6.21. Rows in the scratchpad are bytes, little endian; accumulators and rows
// between two steps are words, which hold an int32 or the encoding of an fp32.
package vec
