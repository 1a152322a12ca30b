// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"fmt"
	"slices"
	"strings"
)

// Disassemble returns p as assembler text in the form of §5.8. Assemble turns
// the text of a program that Assemble could have made into the same bytes. An
// instruction that CheckFormat refuses becomes a comment with its bytes.
func Disassemble(p *Program) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".isa %d.%d\n.array %d, %d\n.spad %d\n.acc %d\n.bindings %d\n",
		Major, p.Minor, p.Rows, p.Cols, p.SpadSize, p.AccSize, p.Bindings)
	var names []string
	for _, g := range groups {
		if p.Minor > 0 && p.Features&g.bit != 0 {
			names = append(names, g.name)
		}
	}
	if names != nil {
		fmt.Fprintf(&b, ".features %s\n", strings.Join(names, ", "))
	}
	if unknown := p.Features &^ Features; unknown != 0 || p.Minor == 0 && p.Features != 0 {
		fmt.Fprintf(&b, "; features %#x: text cannot ask for all of them\n", p.Features)
	}
	b.WriteByte('\n')
	labels := p.labels()
	for off := 0; off+Size <= len(p.Text); off += Size {
		w := (*Word)(p.Text[off:])
		for len(labels) > 0 && labels[0].Index <= off/Size {
			if labels[0].Index == off/Size {
				b.WriteString(labels[0].Name + ":\n")
			}
			labels = labels[1:]
		}
		line := w.String()
		if Opcode(w[0]) == OpWith && line[0] != ';' {
			line = DecodeWith(w).text(behind(p.Text[off:]))
		}
		b.WriteString(line)
		b.WriteByte('\n')
	}
	return b.String()
}

// labels returns those labels of p that text can have, in order.
func (p *Program) labels() []Label {
	if p.Debug == nil {
		return nil
	}
	seen := map[string]bool{}
	var list []Label
	for _, l := range p.Debug.Labels {
		if l.Name == "" || seen[l.Name] || !letter(l.Name[0]) || l.Name[0] == '.' || strings.ContainsFunc(l.Name, func(r rune) bool {
			return r > 0x7f || !letter(byte(r)) && !digit(byte(r))
		}) {
			continue
		}
		seen[l.Name] = true
		list = append(list, l)
	}
	slices.SortStableFunc(list, func(x, y Label) int { return x.Index - y.Index })
	return list
}

// String returns w as a line of assembler text (§5.8), without a newline; the
// fields of WITH, which take their names from another instruction, as field4.
func (w *Word) String() string {
	if v := CheckFormat(w, Features); v != nil {
		return fmt.Sprintf("; % x: %v: %s", w[:], v.Rule, v.Detail)
	}
	op := rows[w[0]].op
	if op.opcode == OpWith {
		return DecodeWith(w).text(nil)
	}
	var b strings.Builder
	b.WriteString(op.name)
	if len(op.operands) > 0 { // line up the operands of all but SYNC and HALT
		b.WriteString(strings.Repeat(" ", max(0, len("requant")-len(op.name))))
	}
	for i := range op.operands {
		o := &op.operands[i]
		switch v := o.value(w); {
		case !o.required && v == o.def:
		case o.form == named:
			fmt.Fprintf(&b, " %s=%s", o.name, nameOf(o.choices, uint8(v)))
		case o.form == scalar:
			fmt.Fprintf(&b, " %s=s%d", o.name, v)
		case o.form == address && v != 0:
			fmt.Fprintf(&b, " %s=%#x", o.name, v)
		default:
			fmt.Fprintf(&b, " %s=%d", o.name, v)
		}
	}
	for _, f := range op.flags {
		if w[1]&f.bit != 0 {
			b.WriteString(" " + f.name)
		}
	}
	wait, signal := w.tokens()
	for _, t := range []struct {
		name string
		Token
	}{{"wait", wait}, {"signal", signal}} {
		switch t.Count {
		case 0:
		case 1:
			fmt.Fprintf(&b, " %s=%d", t.name, t.ID)
		default:
			fmt.Fprintf(&b, " %s=%d:%d", t.name, t.ID, t.Count)
		}
	}
	return b.String()
}
