// SPDX-License-Identifier: Apache-2.0

// Package emit builds programs for the compute core (docs/spec/isa.md §5): a
// Builder takes instructions in the order in which a plain machine would execute
// them, and orders the four engines by tokens (§5.5), so that no instruction starts
// before what it depends on has finished. Who calls it decides where things lie and
// which tiles there are; nobody writes a token by hand.
//
// Two instructions depend on each other if both touch a byte of the scratchpad, of the
// accumulators or of a binding that is written, and one of them writes it. Operands are
// taken as the range from their first byte to their last one.
//
// A Builder is not safe for concurrent use, and gives the same program for the same
// calls.
package emit
