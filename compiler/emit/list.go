// SPDX-License-Identifier: Apache-2.0

package emit

import (
	"slices"

	"npuemu/core/isa"
)

// A List is instructions that a Builder has not been given yet: those of an operator that may
// turn out to have no program.
type List struct {
	target Target
	items  []item
}

// item is an instruction, or what the matrix engine has to be set up for.
type item struct {
	inst     isa.Instruction
	operands *isa.Operands
	window   *isa.Window
	setup    isa.Instruction
}

// NewList returns an empty List for target.
func NewList(target Target) *List { return &List{target: target} }

// Target returns what NewList was given.
func (l *List) Target() Target { return l.target }

// Len is how many instructions there are at most, without SYNCs.
func (l *List) Len() int {
	n := len(l.items)
	for _, i := range l.items {
		if i.window != nil {
			n++
		}
	}
	return n
}

// Lacks returns the groups of instructions (§5.3) that l needs and the target does not have.
func (l *List) Lacks() uint64 {
	var groups uint64
	need := func(i isa.Instruction) {
		w := i.Encode()
		groups |= isa.GroupsOf(&w)
	}
	for _, i := range l.items {
		switch {
		case i.operands != nil:
			need(*i.operands)
			if i.window != nil {
				need(*i.window)
			}
		case i.setup != nil:
			need(i.setup)
		default:
			need(i.inst)
		}
	}
	return groups &^ l.target.Features
}

// Emit adds i.
func (l *List) Emit(i isa.Instruction) { l.items = append(l.items, item{inst: i}) }

// Setup makes OPERANDS and WINDOW what they are given; a nil window stays.
func (l *List) Setup(o isa.Operands, w *isa.Window) {
	l.items = append(l.items, item{operands: &o, window: w})
}

// Prepare makes what i sets up, of the vector engine, as i says.
func (l *List) Prepare(i isa.Instruction) { l.items = append(l.items, item{setup: i}) }

// Cut takes everything behind the first n entries out of l, and returns it.
func (l *List) Cut(n int) *List {
	m := &List{l.target, slices.Clone(l.items[n:])}
	l.items = l.items[:n]
	return m
}

// Entries is how many entries there are: instructions, and what has to be set up before one.
func (l *List) Entries() int { return len(l.items) }

// Join adds the instructions of m.
func (l *List) Join(m *List) { l.items = append(l.items, m.items...) }

// Append adds the instructions of l.
func (b *Builder) Append(l *List) {
	for _, i := range l.items {
		if i.operands != nil {
			b.setUp(*i.operands, i.window)
			continue
		}
		if i.setup != nil {
			b.prepare(i.setup)
			continue
		}
		b.Emit(i.inst)
	}
}
