// SPDX-License-Identifier: Apache-2.0

package core

import (
	"fmt"

	"npuemu/core/isa"
)

// Status is the completion status of a program that failed (§5.7, §9).
type Status uint8

// The statuses, in the order in which §5.7 makes the checks. Those with a
// static rule share its number with package isa.
const (
	StatusBadProgram         = Status(isa.BadProgram)         // BAD_PROGRAM
	StatusConfigMismatch     = Status(isa.ConfigMismatch)     // CONFIG_MISMATCH
	StatusIllegalInstruction = Status(isa.IllegalInstruction) // ILLEGAL_INSTRUCTION
	StatusReservedField      = Status(isa.ReservedField)      // RESERVED_FIELD
	StatusBadOperand         = Status(isa.BadOperand)         // BAD_OPERAND
	StatusArrayShape         = Status(isa.ArrayShape)         // ARRAY_SHAPE
	StatusLocalBounds        = Status(isa.LocalBounds)        // LOCAL_BOUNDS
	StatusBindingIndex       = Status(isa.BindingIndex)       // BINDING_INDEX
	StatusBindingAccess      = Status(0x48)                   // BINDING_ACCESS
	StatusBindingBounds      = Status(0x49)                   // BINDING_BOUNDS
	StatusBadParam           = Status(0x4a)                   // BAD_PARAM
	StatusMemoryFault        = Status(0x4b)                   // MEMORY_FAULT
	StatusTokenOverflow      = Status(0x4c)                   // TOKEN_OVERFLOW
	StatusDeadlock           = Status(0x4d)                   // DEADLOCK
	StatusNoHalt             = Status(0x4e)                   // NO_HALT
	StatusPoison             = Status(0x15)                   // POISON (§12.2)
	StatusBadSetup           = Status(isa.BadSetup)           // BAD_SETUP
	StatusBadControl         = Status(isa.BadControl)         // BAD_CONTROL
	StatusBudget             = Status(isa.OverBudget)         // BUDGET
	StatusOverlap            = Status(isa.Overlap)            // OVERLAP
	StatusBadIndex           = Status(0x64)                   // BAD_INDEX
)

// String returns the name in the specification.
func (s Status) String() string {
	switch s {
	case StatusBindingAccess:
		return "BINDING_ACCESS"
	case StatusBindingBounds:
		return "BINDING_BOUNDS"
	case StatusBadParam:
		return "BAD_PARAM"
	case StatusMemoryFault:
		return "MEMORY_FAULT"
	case StatusTokenOverflow:
		return "TOKEN_OVERFLOW"
	case StatusDeadlock:
		return "DEADLOCK"
	case StatusNoHalt:
		return "NO_HALT"
	case StatusBadIndex:
		return "BAD_INDEX"
	case StatusPoison:
		return "POISON"
	}
	if s >= StatusBadProgram && s <= StatusBindingIndex || s >= StatusBadSetup && s <= StatusOverlap {
		return isa.Rule(s).String()
	}
	return fmt.Sprintf("Status(%#02x)", uint8(s))
}

// Fault is a program error (§5.7): what the completion entry reports.
type Fault struct {
	Status Status
	Instr  uint32 // index of the instruction; 0 for a descriptor
	Info   uint64 // meaning by Status
	Err    error  // detail for people: a *isa.Violation, or Memory's error; may be nil
}

// Error implements error.
func (f *Fault) Error() string {
	s := fmt.Sprintf("core: %v: instruction %d, info %#x", f.Status, f.Instr, f.Info)
	if f.Err != nil {
		s += ": " + f.Err.Error()
	}
	return s
}

// Unwrap returns Err.
func (f *Fault) Unwrap() error { return f.Err }

func violation(instr int, v *isa.Violation) *Fault {
	return &Fault{Status: Status(v.Rule), Instr: uint32(instr), Info: v.Info, Err: v}
}
