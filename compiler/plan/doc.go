// SPDX-License-Identifier: Apache-2.0

// Package plan makes programs of a graph of the device level (package ir): New gives every tensor a
// place in memory, cuts each operation into tiles that fit the scratchpad and the accumulators of a core, and
// emits one program for each run of nodes that the device executes. What each operation becomes is a method
// of lower, in the table lowerings; results are those of package ref, to the bit.
//
// A node that the instruction set does not have goes to the host, and the plan says why. Everything else is decided by
// the graph and the target alone: the same ones give the same bytes.
package plan
