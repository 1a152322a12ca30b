// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"fmt"
	"slices"
)

// A line that is refused is not in the program, so what builds on it looks wrong too. The assembler remembers what it
// refused, and is silent about mistakes that may follow from that.

// doubts says what was refused and did not come again since.
type doubts struct {
	isa, features, array, local, bindings bool
	halt                                  bool
	setup                                 map[Opcode]bool // OPERANDS, WINDOW and so on
	names                                 map[string]bool // that were to be defined
	hushed                                int             // mistakes that were not reported
}

// refuse notes that an instruction was refused.
func (d *doubts) refuse(o Opcode) {
	if o == OpHalt {
		d.halt = true
	}
	if setsUp(o) {
		if d.setup == nil {
			d.setup = map[Opcode]bool{}
		}
		d.setup[o] = true
	}
}

// setsUp reports whether o says what later instructions do.
func setsUp(o Opcode) bool {
	switch o {
	case OpOperands, OpWindow, OpImage, OpShape, OpBlocks, OpSparse, OpScales:
		return true
	}
	return false
}

// reads are the setups that an instruction depends on.
func (i Gemm) reads() []Opcode      { return []Opcode{OpOperands, OpBlocks, OpSparse} }
func (i Conv) reads() []Opcode      { return []Opcode{OpOperands, OpWindow, OpBlocks, OpSparse} }
func (i Pool) reads() []Opcode      { return []Opcode{OpImage} }
func (i Resize) reads() []Opcode    { return []Opcode{OpImage} }
func (i Transpose) reads() []Opcode { return []Opcode{OpShape} }
func (i Addq) reads() []Opcode      { return []Opcode{OpScales} }

// explain reports whether v, of i with limits l, may follow from what was refused.
func (d *doubts) explain(v *Violation, i Instruction, l Limits) bool {
	switch {
	case v.Rule == ArrayShape && d.array, v.Rule == LocalBounds && d.local, v.Rule == BindingIndex && d.bindings,
		v.Rule == BadOperand && d.features: // of a type
		return true
	}
	r, ok := i.(interface{ reads() []Opcode })
	if !ok {
		return false
	}
	for _, o := range r.reads() {
		if !d.setup[o] {
			continue
		}
		if v.Rule != BadOperand {
			return true
		}
		l.Setup = initialSetup // a field that is wrong with any setup is wrong
		other := i.Check(l)
		return other == nil || *other != *v
	}
	return false
}

// mistakes counts them, those that are not reported too.
func (a *assembler) mistakes() int { return len(a.errs) + a.doubts.hushed }

// doubtSetup notes the end of an instruction's line; there were so many mistakes before.
func (a *assembler) doubtSetup(o Opcode, mistakes int) {
	if a.mistakes() > mistakes {
		a.doubts.refuse(o)
	} else {
		delete(a.doubts.setup, o)
	}
}

// doubtDirective is the same of a directive.
func (a *assembler) doubtDirective(t token, mistakes int) {
	if a.mistakes() == mistakes {
		return
	}
	text := t.text
	if near := nearest(text, directives); near != "" {
		text = near
	}
	d := &a.doubts
	switch text {
	case ".equ", ".alloc", ".alloc_acc":
		if i := slices.Index(a.toks, t) + 1; i < len(a.toks) {
			if d.names == nil {
				d.names = map[string]bool{}
			}
			d.names[a.toks[i].text] = true
		}
	}
	switch text {
	case ".isa":
		d.isa, d.features = true, true
	case ".features":
		d.features = true
	case ".array":
		d.array = true
	case ".spad", ".acc", ".alloc", ".alloc_acc":
		d.local = true
	case ".bindings":
		d.bindings = true
	}
}

// since is the minor of the oldest ISA that has a group (§5.3).
func since(group uint64) uint16 {
	for minor := range uint16(Minor) {
		if FeaturesOf(minor)&group != 0 {
			return minor
		}
	}
	return Minor
}

// name says how a program names a group that it lacks.
func (a *assembler) name(group uint64) string {
	g, least := featureName(group), since(group)
	switch line := a.seen[".features"]; {
	case a.prog.Minor < least && line > 0:
		return fmt.Sprintf("write .isa %d.%d, and %s among the .features in line %d", Major, least, g, line)
	case line > 0:
		return fmt.Sprintf("write %s among the .features in line %d", g, line)
	}
	return fmt.Sprintf("write .features %s behind .isa %d.%d", g, Major, max(least, a.prog.Minor))
}
