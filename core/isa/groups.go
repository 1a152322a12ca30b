// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"strings"

	"npuemu/core/systolic"
)

// GroupNames returns the names of the groups in features, by bit; those of all groups for Features.
func GroupNames(features uint64) []string {
	var names []string
	for _, g := range groups {
		if features&g.bit != 0 {
			names = append(names, g.name)
		}
	}
	return names
}

// Group returns the bit of the group of that name, or 0.
func Group(name string) uint64 {
	for _, g := range groups {
		if g.name == name {
			return g.bit
		}
	}
	return 0
}

// GroupsOf returns the groups that w needs (§5.3): that of its operation, and those of what its operands say. w need not be valid.
func GroupsOf(w *Word) uint64 {
	r := &rows[w[0]]
	if r.op == nil {
		return 0
	}
	g := r.op.feature
	if r.later != 0 && w[r.laterAt] != 0 {
		g |= r.later
	}
	switch r.op.opcode {
	case OpOperands:
		if systolic.Type(w[4]).Float() || systolic.Type(w[5]).Float() {
			g |= FeatureFloat
		}
	case OpReduce:
		if op := ReduceOp(w[4]); op == ReduceArgMax || op == ReduceArgMin {
			g |= FeatureGather
		}
	}
	return g
}

// Lacking returns the first instruction of text, up to HALT, that needs a group which is not in features, and those groups.
// missing is 0 if there is none.
func Lacking(text []byte, features uint64) (index int, missing uint64) {
	for i := range len(text) / Size {
		w := (*Word)(text[i*Size:])
		if missing = GroupsOf(w) &^ features; missing != 0 {
			return i, missing
		}
		if Opcode(w[0]) == OpHalt {
			break
		}
	}
	return 0, 0
}

// Refused returns why a core of ISA 1.minor with limits l refuses p (§5.3), or nil, and of what it lacks the first instruction
// that needs it. l.Bindings is what a launch gives; p's own number if it is below 0.
func (p *Program) Refused(minor uint16, l Limits) (v *Violation, at int) {
	if l.Bindings < 0 {
		l.Bindings = int(p.Bindings)
	}
	if p.Minor > minor {
		v = badDescriptor(BadProgram, descMinor, "isa_minor", "is %d; %d.%d is the newest that the core has", p.Minor, Major, minor)
	} else if v = p.Descriptor.Check(l); v == nil {
		return nil, 0
	}
	if at, missing := Lacking(p.Text, l.Features&FeaturesOf(p.Minor)); missing != 0 {
		v.Detail += "; it lacks " + strings.Join(GroupNames(missing), ", ")
		return v, at
	}
	return v, 0
}
