// SPDX-License-Identifier: Apache-2.0

// Package cpu is the control processor's core: one RISC-V hart, RV32IMAC with
// Zicsr and Zifencei, machine mode only. It follows the unprivileged
// specification 20191213 and the privileged specification 1.12 (20211203);
// section names in comments are theirs.
//
// The core owns registers, CSRs, traps and interrupts. The board owns the
// memory, which it hands over as Regions, the memory-mapped blocks, which it
// answers for as a Bus, the three interrupt lines, and time. One step, an
// instruction that retired or one that trapped, is one unit of model time, so
// the same memory, Bus answers and line changes give the same run, step by step.
//
// A Core starts no goroutine and takes no lock: its caller serialises every
// call. During a Bus call the board may call SetInterrupt, Yield, Invalidate and
// the methods that only read, and nothing else.
//
// Where the specifications leave a choice, this hart does the following.
//   - A misaligned load, store or atomic traps, before any access fault.
//   - Atomics work in Regions only; on the Bus they are access faults. A
//     reservation covers one aligned word; the hart's own stores and its traps
//     keep it, SC and Invalidate end it.
//   - mtval holds the address for fetch, load, store and breakpoint exceptions,
//     the instruction's bits for an illegal instruction, else 0. A faulting
//     second half of an instruction is reported at its own address.
//   - Instructions are decoded once. A store that changes an instruction which
//     already ran is seen after FENCE.I, Invalidate or Reset, not before.
//   - MPP is always M; MPRV and TW are 0; misa is read-only; mtvec keeps modes
//     direct and vectored, and clears bit 1 of any other mode.
//   - mcycle counts steps and stops during WFI; minstret counts retired
//     instructions. The other machine counters and events read 0.
//
// Left out: user and supervisor mode, PMP, the unprivileged counters (Zicntr),
// mcountinhibit, debug triggers. Their CSRs raise illegal instruction.
package cpu
