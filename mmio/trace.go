// SPDX-License-Identifier: Apache-2.0

package mmio

import "fmt"

// Op is the direction of an access, seen from the host.
type Op uint8

const (
	OpRead Op = iota
	OpWrite
)

func (o Op) String() string {
	switch o {
	case OpRead:
		return "read"
	case OpWrite:
		return "write"
	}
	return fmt.Sprintf("Op(%d)", uint8(o))
}

// Rule is the access rule that an access broke.
type Rule uint8

const (
	// RuleNone marks an access that follows the rules.
	RuleNone Rule = iota
	// RuleWidth: not 4 bytes at a multiple of 4, nor 8 bytes at a multiple of 8.
	RuleWidth
	// RuleUnclaimed: no register and no range is at the offset.
	RuleUnclaimed
	// RuleReadOnly: a write to a register that has no writable bit and no hook.
	RuleReadOnly
)

func (r Rule) String() string {
	switch r {
	case RuleNone:
		return "ok"
	case RuleWidth:
		return "width or alignment: use 4 bytes at a multiple of 4, or 8 at a multiple of 8"
	case RuleUnclaimed:
		return "unclaimed offset: no register is here"
	case RuleReadOnly:
		return "read-only register: the write has no effect"
	}
	return fmt.Sprintf("Rule(%d)", uint8(r))
}

// Event is one register access, or one access that broke the width rule.
// An 8-byte access that follows the rules makes two events of 4 bytes.
type Event struct {
	Op    Op
	Off   uint64 // byte offset in the bank
	Size  int    // bytes
	Value uint64 // written by, or returned to, the host; the first 8 bytes if Size is larger
	Rule  Rule   // RuleNone if the access is allowed
}

func (e Event) String() string {
	s := fmt.Sprintf("%s%d %#x = %#x", e.Op, e.Size, e.Off, e.Value)
	if e.Rule != RuleNone {
		s += ": " + e.Rule.String()
	}
	return s
}

// Tracer receives every host access: a write before its masks and hook are
// applied, a read once its value is known. It runs under the bank's lock,
// must not block and must not call the bank.
type Tracer func(Event)

// Report sends the event of an access of p at off to t, which may be nil.
func (t Tracer) Report(op Op, off uint64, p []byte, rule Rule) {
	if t == nil {
		return
	}
	var v uint64
	for i, b := range p[:min(len(p), 8)] {
		v |= uint64(b) << (8 * i)
	}
	t(Event{Op: op, Off: off, Size: len(p), Value: v, Rule: rule})
}
