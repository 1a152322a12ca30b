// SPDX-License-Identifier: Apache-2.0

// Package core is the compute core: local memories, a sequencer and four
// engines that are ordered by tokens (docs/spec/isa.md §5, numerics.md §6,
// ISA 1.4).
//
// The core knows no addresses and no queues. The board gives Run a program
// image, a table of bindings and a Memory that moves bytes; Run returns what
// the completion says. A Core has no lock: one caller at a time, and no
// register access waits for Run.
//
// The model is functional. The sequencer first checks the format of the whole
// program up to HALT, then the ready instruction with the lowest index is
// executed until none is left. With several threads those that share no byte are
// executed side by side, with the same results. Programs that order their accesses
// by tokens (§5.5) cannot see that order; for all others it makes results repeatable.
package core
