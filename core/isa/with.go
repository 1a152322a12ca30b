// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"fmt"
	"strconv"
	"strings"
)

// WITH in text: "with acc=s1*64 ifmap=s0 if=s3" (§5.8). A field's name is one of
// the instruction behind it, which the assembler has not read yet and the
// disassembler looks ahead for.

// namedTerm is a Term of text.
type namedTerm struct {
	field token
	Term
}

// pendingWith is a WITH whose fields are not known yet.
type pendingWith struct {
	terms []namedTerm
	with  With
	pos   position
	col   int
}

// with assembles the rest of a line that began with m.
func (a *assembler) with(m token) {
	p := pendingWith{pos: a.pos, col: m.col}
	for a.peek().kind != end {
		t := a.next()
		if t.kind != name || !a.expect('=', "write field=register*factor, if=register or ifnot=register") {
			if t.kind != name {
				a.fail(t.col, "found %q; with takes field=register*factor, if=register and ifnot=register", t.text)
			}
			return
		}
		reg, ok := a.register()
		if !ok {
			return
		}
		if t.text == "if" || t.text == "ifnot" {
			if p.with.Condition != Always {
				a.fail(t.col, "there is a condition already; write another with for the second")
				return
			}
			p.with.Condition, p.with.Reg = IfNotZero, reg
			if t.text == "ifnot" {
				p.with.Condition = IfZero
			}
			continue
		}
		times := int64(1)
		if a.accept('*') {
			if times, ok = a.factor(); !ok {
				return
			}
		}
		if len(p.terms) == withTerms {
			a.fail(t.col, "more than %d terms; write another with for the others", withTerms)
			return
		}
		p.terms = append(p.terms, namedTerm{t, Term{Reg: reg, Times: int32(times)}})
	}
	a.pending = append(a.pending, p)
}

// factor is an operand of a product that 32 bits hold.
func (a *assembler) factor() (int64, bool) {
	col := a.peek().col
	v, ok := a.unary(0)
	if ok && (v < -1<<31 || v >= 1<<31) {
		a.fail(col, "%d does not fit in 32 bits with a sign", v)
		return 0, false
	}
	return v, ok
}

// register reads s0 … s15.
func (a *assembler) register() (uint8, bool) {
	t := a.next()
	if number, ok := strings.CutPrefix(t.text, "s"); ok {
		if n, err := strconv.ParseUint(number, 10, 8); err == nil && n < Registers && strconv.FormatUint(n, 10) == number {
			return uint8(n), true
		}
	}
	a.fail(t.col, "found %q; registers are s0 to s%d", t.text, Registers-1)
	return 0, false
}

// resolve emits the WITHs that wait for an instruction; op is it.
func (a *assembler) resolve(op *operation) bool {
	pending := a.pending
	a.pending = nil
	pos := a.pos
	defer func() { a.pos = pos }()
	for _, p := range pending {
		a.pos = p.pos
		if op.opcode.Class() == ClassControl {
			a.fail(p.col, "with stands before %s; it changes an instruction that an engine executes (BAD_CONTROL, §5.7)", op.name)
			return false
		}
		for n, t := range p.terms {
			o := op.named(t.field.text)
			if o == nil || op.target(o.off) == nil {
				a.fail(t.field.col, "%s has no unsigned operand %s of two bytes or more%s", op.name, t.field.text, suggest(t.field.text, op.targets()))
				return false
			}
			t.Field = o.off
			p.with.Terms[n] = t.Term
		}
		w := p.with.Encode()
		a.append(&w, p.col)
	}
	return true
}

// named returns the operand of that name, or nil.
func (op *operation) named(s string) *operand {
	for i := range op.operands {
		if op.operands[i].name == s {
			return &op.operands[i]
		}
	}
	return nil
}

// targets returns the names that a term may have.
func (op *operation) targets() []string {
	var names []string
	for _, o := range op.operands {
		if op.target(o.off) != nil {
			names = append(names, o.name)
		}
	}
	return names
}

// text returns w as a line that names fields of op, which may be nil.
func (i With) text(op *operation) string {
	var b strings.Builder
	b.WriteString("with   ")
	for _, t := range i.Terms {
		if t.Field == 0 {
			break
		}
		var o *operand
		if op != nil {
			o = op.target(t.Field)
		}
		field := fmt.Sprintf("field%d", t.Field)
		if o != nil {
			field = o.name
		}
		fmt.Fprintf(&b, " %s=s%d", field, t.Reg)
		if t.Times != 1 {
			fmt.Fprintf(&b, "*%d", t.Times)
		}
	}
	switch i.Condition {
	case IfNotZero:
		fmt.Fprintf(&b, " if=s%d", i.Reg)
	case IfZero:
		fmt.Fprintf(&b, " ifnot=s%d", i.Reg)
	}
	return strings.TrimRight(b.String(), " ")
}

// behind returns the operation that the WITH at the start of text is for, or
// nil.
func behind(text []byte) *operation {
	for off := Size; off+Size <= len(text); off += Size {
		if op := rows[text[off]].op; op == nil || op.opcode != OpWith {
			return op
		}
	}
	return nil
}
