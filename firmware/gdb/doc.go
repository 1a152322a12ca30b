// SPDX-License-Identifier: Apache-2.0

// Package gdb lets GDB debug the control processor: a stub of the GDB remote serial protocol (GDB's manual,
// "Remote Serial Protocol") over whatever connection is given to it. docs/debugging.md says what it offers.
//
// One client at a time is attached to a processor; another is turned away. The processor stops when a client attaches,
// and goes on, without breakpoints, when it detaches, kills or is lost. The client is trusted with the processor, as an operator is,
// but not to be correct: input is bounded, and a wrong packet gets an error or an empty reply.
//
// A session has two goroutines: one reads packets, the other answers them and tells of stops. firmware.Debugger does its own
// locking.
package gdb
