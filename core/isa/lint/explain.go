// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"strings"

	"npuemu/core/isa"
)

// Completion is how a card ended a program that failed (§5.7): status by name, and what the completion entry has.
type Completion struct {
	Status string
	Result uint32
	Info   uint64
}

// Explain says in words what a completion means for p, which was launched with o's bindings. It reports false if the
// status is none that says something of a program.
func Explain(p *isa.Program, o Options, c Completion) (Finding, bool) {
	l := &linter{p: p, o: o}
	f := Finding{Rule: c.Status, Section: "§5.7", At: l.place(int(c.Result))}
	word := &isa.Word{}
	if off := int(c.Result) * isa.Size; off < len(p.Text) {
		word = (*isa.Word)(p.Text[off:])
	}
	op := isa.Opcode(word[0])
	field := isa.FieldAt(op, c.Info)
	if field == "" {
		field = fmt.Sprintf("byte %d", c.Info)
	}
	switch c.Status {
	case "BAD_PROGRAM", "CONFIG_MISMATCH":
		f.Section = "§5.3"
		f.At, f.Message, f.Remedy = l.descriptorField(c)
		if groups := isa.GroupsOf(word); c.Info == isa.DescriptorFeatures && c.Result > 0 && groups != 0 { // FEATURES_LO.MISMATCH
			at := l.place(int(c.Result))
			f.Other = &at
			f.Message += fmt.Sprintf("; %v is the first that needs what it lacks, of %s", at, strings.Join(isa.GroupNames(groups), ", "))
		}
	case "ILLEGAL_INSTRUCTION":
		f.Message, f.Remedy = fmt.Sprintf("opcode %#02x is none that the program may have", c.Info), remedy(isa.IllegalInstruction)
	case "RESERVED_FIELD":
		f.Message, f.Remedy = fmt.Sprintf("byte %d (%s) has bits that are reserved", c.Info, field), "write 0 there; a token with count 0 is 0"
	case "BAD_CONTROL":
		f.Message, f.Remedy = "loops or WITH are not as they may stand", "give each LOOP its END, at most eight inside each other, and WITH an instruction of an engine"
	case "BUDGET":
		f.Message, f.Remedy = fmt.Sprintf("the program passes more than %d instructions", c.Info), remedy(isa.OverBudget)
	case "BAD_OPERAND":
		f.Message, f.Remedy = field+" has a value that may not stand there", remedy(isa.BadOperand)
	case "ARRAY_SHAPE":
		f.Message, f.Remedy = fmt.Sprintf("%s is more than the array's %d × %d", field, p.Rows, p.Cols), remedy(isa.ArrayShape)
	case "BAD_SETUP":
		f.Message, f.Remedy = setupField(c.Info)+" does not fit this instruction", remedy(isa.BadSetup)
	case "LOCAL_BOUNDS":
		f.Message, f.Remedy = fmt.Sprintf("reaches address %#x of local memory, which is outside of what the program has", c.Info), remedy(isa.LocalBounds)
	case "OVERLAP":
		f.Message, f.Remedy = fmt.Sprintf("stores its result where it reads, at address %#x", c.Info), remedy(isa.Overlap)
	case "BINDING_INDEX":
		f.Message, f.Remedy = fmt.Sprintf("binding is %d; the launch gives fewer", c.Info), "bind it, or use a binding that there is"
	case "BINDING_ACCESS":
		verb, way := "reads", "reading (--in)"
		if op != isa.OpLoad {
			verb, way = "writes", "writing (--out)"
		}
		f.Message, f.Remedy = fmt.Sprintf("%s binding %d, which does not permit it", verb, c.Info), "bind it for "+way+", or use another binding"
	case "BINDING_BOUNDS":
		b := int(word[4])
		f.Message = fmt.Sprintf("reaches byte %#x of binding %d, which is outside of it", c.Info, b)
		if b < len(o.Bindings) && o.Bindings[b].Size > 0 {
			f.Message = fmt.Sprintf("reaches byte %#x of binding %d, which has %d bytes", c.Info, b, o.Bindings[b].Size)
		}
		f.Remedy = "bind more memory, or make offset, counts or strides smaller, also in a loop's last iteration"
	case "POISON":
		f.Section = "§12.2"
		const unitShift, addr = 60, 1<<60 - 1
		where := fmt.Sprintf("memory %d", c.Info>>unitShift)
		if n := c.Info >> unitShift; n < 2 {
			where = [...]string{"device memory", "the scratchpad"}[n]
		}
		f.Message, f.Remedy = fmt.Sprintf("reads the poisoned granule %#x of %s", c.Info&addr, where), "overwrite the granule"
	case "BAD_INDEX":
		f.Message = fmt.Sprintf("index %d of the list (counted from 0) is %d, which is no row of the table", c.Info>>32, int32(c.Info))
		f.Remedy = "look at what was loaded as indices; rows is how many rows there are"
	case "BAD_SPARSITY":
		f.Message = fmt.Sprintf("the place at scratchpad address %#x is not above the one before it in its group", c.Info)
		f.Remedy = "look at what was loaded as indices of the sparse weights, and at index_stride"
	case "BAD_PARAM":
		f.Message = fmt.Sprintf("the entry of the parameter table at scratchpad address %#x has a multiplier, shift, scale or zero point that may not stand there, or reserved bytes that are not 0", c.Info)
		f.Remedy = "look at what was loaded there, and whether it was before this instruction"
	case "MEMORY_FAULT":
		f.Message, f.Remedy = fmt.Sprintf("address %#x cannot be accessed", c.Info), "keep the memory of bindings mapped while the program runs"
		for n, b := range o.Bindings {
			if b.Addr > 0 && c.Info >= b.Addr && c.Info-b.Addr < b.Size {
				f.Message = fmt.Sprintf("address %#x, byte %#x of binding %d, cannot be accessed", c.Info, c.Info-b.Addr, n)
			}
		}
	case "TRANSLATION_FAULT":
		f.Section = "§11.5"
		f.Message, f.Remedy = fmt.Sprintf("the context's page tables do not allow the access to virtual address %#x", c.Info), "map it, with the permission that the access needs"
	case "TOKEN_OVERFLOW":
		f.Message = fmt.Sprintf("signals token %d, whose counter would pass %d", c.Info, maxTokens)
		f.Remedy = "hold the engine back by a token from the one that waits, or signal once for several instructions"
	case "DEADLOCK":
		token := uint8(c.Info)
		f.Message = fmt.Sprintf("token counter %d never reaches %d, which this instruction waits for, and no other engine can go on", token, word[2]>>4)
		f.Remedy = "signal the token as often as it is waited for, from an instruction that can come before"
		l.halt = len(p.Text) / isa.Size
		if halt, v, _ := isa.Scan(p.Text, p.Features); v == nil && halt >= 0 {
			l.halt = halt
		}
		if from := l.mentions(3, token&15); len(from) == 0 {
			f.Message += "; nothing signals it"
		} else {
			at := l.place(from[0])
			f.Other = &at
			f.Message += fmt.Sprintf("; %v signals it", at)
		}
	case "NO_HALT":
		f.Section = "§5.6.1"
		f.Message, f.Remedy = "the text ends without HALT", "add a halt as the last instruction"
	default:
		return Finding{}, false
	}
	if detail := l.detail(c); detail != "" {
		f.Message = detail
	}
	return f, true
}

// setups are what the info of BAD_SETUP counts from, each 32 above the one before (§5.7).
var setups = [...]struct {
	name string
	op   isa.Opcode
}{{"OPERANDS", isa.OpOperands}, {"WINDOW", isa.OpWindow}, {"IMAGE", isa.OpImage}, {"BLOCKS", isa.OpBlocks}, {"SPARSE", isa.OpSparse}, {"SCALES", isa.OpScales}}

func setupField(info uint64) string {
	n, off := info/32, info%32
	if n >= uint64(len(setups)) {
		return fmt.Sprintf("the setup (info %d)", info)
	}
	field := isa.FieldAt(setups[n].op, off)
	if field == "" {
		field = fmt.Sprintf("byte %d", off)
	}
	return field + " of " + setups[n].name
}

// descriptorFields are the fields of §5.3 that a card refuses.
var descriptorFields = map[uint64]struct{ name, directive, remedy string }{
	0x00: {"magic", "", "give a program: an ELF file or an image"},
	0x04: {"isa_major", ".isa", "assemble the program anew"},
	0x06: {"isa_minor", ".isa", "use a card of a later architecture, or write the program for its ISA"},
	0x08: {"descriptor_size", "", "assemble the program anew"},
	0x0c: {"text_offset", "", "assemble the program anew"},
	0x10: {"text_size", "", "launch all of the program and nothing else"},
	0x14: {"text_crc32", "", "the text was changed: assemble the program anew"},
	0x18: {"array_rows", ".array", "make the program for the card's array, or use a card with this one"},
	0x1a: {"array_cols", ".array", "make the program for the card's array, or use a card with this one"},
	0x1c: {"spad_size", ".spad", "cut tiles to what the card has, or use a card with more"},
	0x20: {"acc_size", ".acc", "cut tiles to what the card has, or use a card with more"},
	0x24: {"binding_count", ".bindings", "give the launch all bindings"},
	0x26: {"reserved", "", "write 0 there"},
	0x28: {"features", ".features", "leave out the groups that the card lacks, or use a card that has them"},
	0x30: {"reserved", "", "write 0 there"},
}

// descriptorField explains a refused descriptor.
func (l *linter) descriptorField(c Completion) (at Place, message, remedy string) {
	d := descriptorFields[c.Info]
	if d.name == "" {
		return l.descriptor("byte", fmt.Sprint(c.Info)), "the card refuses the descriptor", "assemble the program anew"
	}
	p := l.p
	value := map[uint64]string{
		0x06: fmt.Sprintf("%d.%d", isa.Major, p.Minor), 0x10: fmt.Sprint(len(p.Text)), 0x18: fmt.Sprint(p.Rows), 0x1a: fmt.Sprint(p.Cols),
		0x1c: fmt.Sprint(p.SpadSize), 0x20: fmt.Sprint(p.AccSize), 0x24: fmt.Sprint(p.Bindings), 0x28: l.groups(),
	}[c.Info]
	at = Place{Index: Descriptor, Instruction: d.name}
	at.File, at.Line, at.Column, _ = p.Debug.Directive(d.directive)
	message = "the card refuses " + d.name
	if value != "" {
		message += ", which is " + value
	}
	return at, message, d.remedy
}

// groups are the names of the program's.
func (l *linter) groups() string {
	s := ""
	for _, g := range isa.Groups() {
		if l.p.Features&g.Bit != 0 {
			s += ", " + g.Name
		}
	}
	if s == "" {
		return "none"
	}
	return s[2:]
}

// detail looks for the rule that c is about and returns what its check says, or "".
func (l *linter) detail(c Completion) string {
	same := func(v *isa.Violation, at int) bool {
		return v != nil && v.Rule.String() == c.Status && v.Info == c.Info && at == int(c.Result)
	}
	halt, v, at := isa.Scan(l.p.Text, l.p.Features)
	switch {
	case same(v, at):
		return v.Detail
	case v != nil || halt < 0 || int(c.Result) >= halt:
		return ""
	}
	switch c.Status {
	case "BAD_OPERAND", "ARRAY_SHAPE", "BAD_SETUP", "LOCAL_BOUNDS", "OVERLAP", "BINDING_INDEX", "BINDING_BOUNDS":
	default:
		return ""
	}
	limits := l.p.Limits()
	for w := l.p.Walker(halt); w.Next(isa.ClassControl); {
		if w.Index() != int(c.Result) {
			limits.Setup.Follow(w.Word())
			continue
		}
		i, v := isa.Decode(w.Word())
		if v == nil {
			v = i.Check(limits)
		}
		if same(v, w.Index()) {
			return v.Detail + l.iteration(&w)
		}
		if v != nil {
			return ""
		}
		if c.Status == "BINDING_BOUNDS" {
			if message := l.beyond(&w, c.Info); message != "" {
				return message
			}
		}
		limits.Setup.Follow(w.Word())
	}
	return ""
}

// beyond says how w's instruction reaches a byte outside of its binding, if it does.
func (l *linter) beyond(w *isa.Walker, first uint64) string {
	l.list = isa.Accesses(l.list[:0], w.Word(), &isa.Setup{})
	for _, a := range l.list {
		if a.Space != isa.Memory || int(a.Binding) >= len(l.o.Bindings) {
			continue
		}
		b := l.o.Bindings[a.Binding]
		if at, outside := a.Rows.Outside(b.Size); outside && at == first {
			return outsideText(a.Write, at, a.Binding, b.Size) + l.iteration(w)
		}
	}
	return ""
}

func outsideText(write bool, at uint64, binding uint8, size uint64) string {
	verb := "reads"
	if write {
		verb = "writes"
	}
	return fmt.Sprintf("%s byte %#x of binding %d, which has %d bytes", verb, at, binding, size)
}
