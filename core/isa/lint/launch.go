// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"strings"

	"npuemu/core/isa"
)

// Options say what is known of the launch and of the card. The zero Options know nothing.
type Options struct {
	Bindings []Binding // by number; those beyond the list are not known
	Shares   []Share
	Card     *Card // nil: any that the program may be for
}

// Binding is what a launch gives a program (§7.3).
type Binding struct {
	Size        uint64 // bytes; 0: nothing is known of this binding
	Addr        uint64 // where it is; 0: not known, and no matter for proofs
	Read, Write bool
}

// Share says that binding A lies in the memory of binding B, which shares none itself: Offset bytes behind its begin.
type Share struct {
	A, B   uint8
	Offset uint64
}

// Card is what a core discovers to software (§5.1).
type Card struct {
	Rows, Cols        uint16
	SpadSize, AccSize uint32
	Minor             uint16 // newest minor of the ISA that programs may have
	Features          uint64 // groups of instructions
}

// base returns what makes accesses to bindings of one memory comparable, or nil.
func (o *Options) base() func(*isa.Access) {
	if len(o.Shares) == 0 {
		return nil
	}
	return func(a *isa.Access) {
		for _, s := range o.Shares {
			if s.A == a.Binding {
				a.Binding = s.B
				a.Rows.Base += s.Offset
				return
			}
		}
	}
}

// memory names the memory of a binding.
func (o *Options) memory(b uint8) string {
	name := fmt.Sprintf("binding %d", b)
	for _, s := range o.Shares {
		if s.B == b {
			name = fmt.Sprintf("memory of binding %d and %d,", b, s.A)
		}
	}
	return name
}

// memory proves that w's instruction, which passed Check, keeps to its binding: in each iteration, so a finding is of the first
// that does not.
func (l *linter) memory(w *isa.Walker, s *isa.Setup) {
	if len(l.o.Bindings) == 0 {
		return
	}
	switch isa.Opcode(w.Word()[0]) {
	case isa.OpLoad, isa.OpStore, isa.OpStamp:
	default:
		return
	}
	l.list = isa.Accesses(l.list[:0], w.Word(), s)
	for i := range l.list {
		a := &l.list[i]
		if a.Space != isa.Memory || int(a.Binding) >= len(l.o.Bindings) {
			continue
		}
		b := l.o.Bindings[a.Binding]
		if b.Size == 0 {
			continue
		}
		verb, granted, way := "reads", b.Read, "writing"
		if a.Write {
			verb, granted, way = "writes", b.Write, "reading"
		}
		if !granted {
			l.broken("BINDING_ACCESS", w, fmt.Sprintf("%s binding %d, which is bound for %s alone", verb, a.Binding, way),
				"bind it for both, or use another binding")
		} else if first, outside := a.Rows.Outside(b.Size); outside {
			l.broken("BINDING_BOUNDS", w, outsideText(a.Write, first, a.Binding, b.Size),
				"bind more memory, or make offset, counts or strides smaller, also in a loop's last iteration")
		}
	}
}

// broken reports that w's instruction breaks a rule of §5.7 that depends on the launch.
func (l *linter) broken(rule string, w *isa.Walker, message, remedy string) {
	if !l.first(key{rule, uint64(w.Index()), 0}) {
		return
	}
	l.add(Finding{Rule: rule, Section: "§5.7", At: l.place(w.Index()), Message: message + l.iteration(w), Remedy: remedy})
}

// iteration ends a message about w's instruction, if registers made of it what the text does not say.
func (l *linter) iteration(w *isa.Walker) string {
	text := w.Word().String()
	if text == l.place(w.Index()).Instruction {
		return ""
	}
	return fmt.Sprintf("; in this iteration it is %q", strings.Join(strings.Fields(text), " "))
}

// descriptor is the place of what a directive says.
func (l *linter) descriptor(directive, text string) Place {
	p := Place{Index: Descriptor, Instruction: directive + " " + text}
	p.File, p.Line, p.Column, _ = l.p.Debug.Directive(directive)
	return p
}

// card compares the program with the card, as the card does before it runs (§5.3): but all of it, and with the instructions
// that need what is missing.
func (l *linter) card() {
	c := l.o.Card
	if c == nil {
		return
	}
	add := func(rule string, at Place, remedy, format string, args ...any) {
		l.add(Finding{Rule: rule, Section: "§5.3", At: at, Message: fmt.Sprintf(format, args...), Remedy: remedy})
	}
	p := l.p
	if p.Minor > c.Minor {
		add("BAD_PROGRAM", l.descriptor(".isa", fmt.Sprintf("%d.%d", isa.Major, p.Minor)), "write the older version, if all instructions are of it, or use a card of a later architecture",
			"the program is of ISA %d.%d; the newest that the card has is %d.%d", isa.Major, p.Minor, isa.Major, c.Minor)
	}
	if p.Rows != c.Rows || p.Cols != c.Cols {
		add("CONFIG_MISMATCH", l.descriptor(".array", fmt.Sprintf("%d, %d", p.Rows, p.Cols)), fmt.Sprintf("make the program for .array %d, %d, or use a card with that array", c.Rows, c.Cols),
			"the program is for an array of %d × %d; the card's has %d × %d", p.Rows, p.Cols, c.Rows, c.Cols)
	}
	for _, g := range isa.Groups() {
		if g.Bit&p.Features&^c.Features == 0 {
			continue
		}
		what := fmt.Sprintf("group %s (ISA %d.%d), which the card lacks", g.Name, isa.Major, g.Since)
		if index, why := l.needs(g.Bit); index < 0 {
			add("CONFIG_MISMATCH", l.descriptor(".features", g.Name), "take it out of .features", "the program names %s, and no instruction needs it", what)
		} else {
			add("CONFIG_MISMATCH", l.place(index), "compute it with instructions that the card has, or use a card that has the group", "%s %s", why, what)
		}
	}
}

// needs returns the first instruction that is one only with a group, and what of it, or −1.
func (l *linter) needs(group uint64) (index int, why string) {
	limits := l.p.Limits()
	without := limits
	without.Features &^= group
	for i := range len(l.p.Text) / isa.Size {
		w := (*isa.Word)(l.p.Text[i*isa.Size:])
		if isa.CheckFormat(w, limits.Features) != nil {
			continue
		}
		if v := isa.CheckFormat(w, without.Features); v != nil {
			if v.Rule == isa.ReservedField {
				return i, isa.FieldAt(isa.Opcode(w[0]), v.Info) + " needs"
			}
			return i, "it is of"
		}
		if isa.Opcode(w[0]) == isa.OpHalt {
			break
		}
		if in, v := isa.Decode(w); v == nil && in.Check(limits) == nil {
			if v := in.Check(without); v != nil {
				return i, v.Field + " needs"
			}
		}
	}
	return -1, ""
}

// small notes the first instruction that needs more local memory than the card has, which is less than the program asks for.
// Perhaps none does (oversized).
func (l *linter) small(w *isa.Walker, i isa.Instruction, limits isa.Limits) {
	c := l.o.Card
	for _, m := range []struct {
		name      string
		own, have uint32
		limit     *uint32
	}{{"scratchpad", l.p.SpadSize, c.SpadSize, &limits.SpadSize}, {"accumulators", l.p.AccSize, c.AccSize, &limits.AccSize}} {
		if m.own <= m.have || l.seen[key{rule: m.name}] {
			continue
		}
		*m.limit = m.have
		if v := i.Check(limits); v != nil && l.first(key{rule: m.name}) {
			l.add(Finding{
				Rule: "CONFIG_MISMATCH", Section: "§5.3", At: l.place(w.Index()),
				Message: fmt.Sprintf("%s reaches address %#x of the %s; the card has %d bytes, and the program asks for %d", v.Field, v.Info, m.name, m.have, m.own),
				Remedy:  "cut tiles to what the card has, or use a card with more",
			})
		}
		*m.limit = m.own
	}
}

// oversized reports local memory that the program asks for, the card lacks, and no instruction needs.
func (l *linter) oversized() {
	c := l.o.Card
	if c == nil {
		return
	}
	for _, m := range []struct {
		name, directive string
		own, have       uint32
	}{{"scratchpad", ".spad", l.p.SpadSize, c.SpadSize}, {"accumulators", ".acc", l.p.AccSize, c.AccSize}} {
		if m.own > m.have && l.first(key{rule: m.name}) {
			l.add(Finding{
				Rule: "CONFIG_MISMATCH", Section: "§5.3", At: l.descriptor(m.directive, fmt.Sprint(m.own)),
				Message: fmt.Sprintf("the program asks for %d bytes of %s; the card has %d", m.own, m.name, m.have),
				Remedy:  "lower " + m.directive + " if less is enough, cut tiles to what the card has, or use a card with more",
			})
		}
	}
}
