// SPDX-License-Identifier: Apache-2.0

package isa

import "fmt"

// The info of BAD_CONTROL (§5.7).
const (
	controlEnd  = 1 // END without LOOP
	controlNest = 2 // too many loops inside each other
	controlHalt = 3 // HALT in a loop
	controlWith = 4 // WITH before an instruction that no engine executes
)

// Scan makes the checks of the sequencer that need no execution (§5.7): the
// format of all instructions up to HALT, the operands of those that it executes
// itself, and how loops are nested. It returns the index of HALT, or −1 if
// there is none, or the violation and the index of its instruction.
func Scan(text []byte, features uint64) (halt int, v *Violation, at int) {
	depth, withs := 0, 0
	for i := range len(text) / Size {
		w := (*Word)(text[i*Size:])
		if v := CheckFormat(w, features); v != nil {
			return 0, v, i
		}
		o := Opcode(w[0])
		if withs > 0 && o.Class() == ClassControl && o != OpWith {
			return 0, badControl(controlWith, "WITH stands before %s; it changes an instruction that an engine executes", rows[w[0]].op.name), i - 1
		}
		switch o {
		case OpHalt:
			if depth > 0 {
				return 0, badControl(controlHalt, "HALT in a loop; an END is missing"), i
			}
			return i, nil, 0
		case OpLoop:
			if depth++; depth > MaxNest {
				return 0, badControl(controlNest, "more than %d loops inside each other", MaxNest), i
			}
			if v := DecodeLoop(w).Check(Limits{}); v != nil {
				return 0, v, i
			}
		case OpEnd:
			if depth--; depth < 0 {
				return 0, badControl(controlEnd, "END without LOOP"), i
			}
		case OpScalar:
			if v := DecodeScalar(w).Check(Limits{}); v != nil {
				return 0, v, i
			}
		case OpWith:
			if v := DecodeWith(w).Check(Limits{}); v != nil {
				return 0, v, i
			}
			withs++
		default:
			for n := i - withs; n < i; n++ {
				if v := checkTerms((*Word)(text[n*Size:]), rows[w[0]].op); v != nil {
					return 0, v, n
				}
			}
			withs = 0
		}
	}
	return -1, nil, 0
}

func badControl(info uint64, format string, args ...any) *Violation {
	return &Violation{Rule: BadControl, Info: info, Detail: fmt.Sprintf(format, args...)}
}

// checkTerms checks that the terms of WITH w name fields of op.
func checkTerms(w *Word, op *operation) *Violation {
	var c checker
	for n, t := range DecodeWith(w).Terms {
		if t.Field != 0 && c.v == nil && op.target(t.Field) == nil {
			c.fail(BadOperand, uint64(termAt(n)), "field", "is %d; %s has no unsigned field of two bytes or more there", t.Field, op.name)
		}
	}
	return c.v
}

// Walker goes through a program as the sequencer does: through loops, past what
// conditions rule out, with fields as registers make them. It decides nothing
// by data, so every engine can have its own. The zero Walker is at the end of
// no program.
type Walker struct {
	text   []byte
	halt   int
	pc     int
	passed uint64
	budget uint64
	over   bool // the budget is used up
	withs  int  // WITHs before pc
	regs   [Registers]int32
	loops  [MaxNest]struct {
		body int // index of the first instruction
		left uint32
		reg  uint8
		step int32
	}
	depth int

	index  int
	number uint64
	word   Word
}

// NewWalker returns a Walker before the first instruction of text, which Scan
// accepts, with its HALT at index halt. The first registers begin with args.
func NewWalker(text []byte, halt int, args [Arguments]int32) Walker {
	w := Walker{text: text, halt: halt, budget: Budget}
	copy(w.regs[:], args[:])
	return w
}

// Next moves to the next instruction that the engine of the given class
// executes, of any engine if class is ClassControl. It returns false at HALT, or
// when the budget is used up (Over).
func (w *Walker) Next(class Class) bool {
	for w.pc < w.halt {
		if w.passed++; w.passed > w.budget {
			w.over = true
			return false
		}
		raw := (*Word)(w.text[w.pc*Size:])
		o := Opcode(raw[0])
		if c := o.Class(); c != ClassControl {
			withs := w.withs
			w.pc, w.withs = w.pc+1, 0
			if class != ClassControl && class != c || !w.load(raw, withs) {
				continue
			}
			w.index, w.number = w.pc-1, w.passed
			return true
		}
		w.pc++
		switch o {
		case OpLoop:
			if w.enter(DecodeLoop(raw)); w.over {
				return false
			}
		case OpEnd:
			l := &w.loops[w.depth-1]
			if l.left == 0 {
				w.depth--
				continue
			}
			l.left--
			w.regs[l.reg] += l.step
			w.pc = l.body
		case OpScalar:
			i := DecodeScalar(raw)
			y := i.Imm
			if !i.Immediate {
				y = w.regs[i.RB]
			}
			w.regs[i.RD] = i.Op.apply(w.regs[i.RA], y)
		case OpWith:
			w.withs++
		}
	}
	return false
}

// enter begins loop i, or passes it if it has no iterations. Its body is at pc.
func (w *Walker) enter(i Loop) {
	count := int64(i.Count)
	if i.ByRegister {
		count = int64(w.regs[i.CountReg])
	}
	if count > 0 {
		l := &w.loops[w.depth]
		l.body, l.left, l.reg, l.step = w.pc, uint32(count-1), i.Reg, i.Step
		w.regs[i.Reg] = i.Start
		w.depth++
		return
	}
	for depth := 1; depth > 0; w.pc++ {
		if w.passed++; w.passed > w.budget {
			w.over = true
			return
		}
		switch Opcode(w.text[w.pc*Size]) {
		case OpLoop:
			depth++
		case OpEnd:
			depth--
		}
	}
}

// load makes word what raw is behind so many WITHs; false if a condition rules
// it out.
func (w *Walker) load(raw *Word, withs int) bool {
	w.word = *raw
	for n := range withs {
		with := DecodeWith((*Word)(w.text[(w.pc-1-withs+n)*Size:]))
		if with.Condition == IfNotZero && w.regs[with.Reg] == 0 || with.Condition == IfZero && w.regs[with.Reg] != 0 {
			return false
		}
		for _, t := range with.Terms {
			if t.Field == 0 {
				break
			}
			o := rows[raw[0]].op.target(t.Field)
			o.put(&w.word, o.value(&w.word)+int64(w.regs[t.Reg])*int64(t.Times))
		}
	}
	return true
}

// Index returns the index of the instruction in the text.
func (w *Walker) Index() int { return w.index }

// Number returns how many instructions the program passed up to this one.
func (w *Walker) Number() uint64 { return w.number }

// Word returns the instruction as it is executed. It is valid until Next.
func (w *Walker) Word() *Word { return &w.word }

// WithinBudget returns the BUDGET violation of text, which Scan accepts with HALT
// at index halt, if the first registers begin with args, and the index of the instruction
// that the budget does not reach, or nil.
func WithinBudget(text []byte, halt int, args [Arguments]int32) (*Violation, int) {
	if n, known := length(text, halt); known && n <= Budget {
		return nil, 0
	}
	w := NewWalker(text, halt, args)
	for w.Next(ClassControl) {
		continue
	}
	return w.Over()
}

// length returns how many instructions the program passes, or some number above
// Budget, if no count is in a register.
func length(text []byte, halt int) (n uint64, known bool) {
	var outer [MaxNest]uint64
	times, depth := uint64(1), 0
	for i := range halt {
		n += times
		switch w := (*Word)(text[i*Size:]); Opcode(w[0]) {
		case OpLoop:
			l := DecodeLoop(w)
			if l.ByRegister {
				return 0, false
			}
			outer[depth] = times
			depth++
			if times *= uint64(l.Count); times > Budget {
				times = Budget + 1 // its END alone is too many
			}
		case OpEnd:
			depth--
			times = outer[depth]
		}
	}
	return n, true
}

// Over returns the BUDGET violation and the index of the instruction that the
// budget does not reach, or nil.
func (w *Walker) Over() (*Violation, int) {
	if !w.over {
		return nil, 0
	}
	return &Violation{Rule: OverBudget, Info: Budget, Detail: fmt.Sprintf("the program passes more than %d instructions", Budget)}, w.pc
}

// Check looks for what §5.7 refuses whatever memory holds: first what the
// sequencer refuses, then the instructions in the order in which the program
// passes them. It returns the first violation and
// the index of its instruction. Text without HALT is none. Of an open program it looks at what
// is so whatever the arguments are.
func (p *Program) Check() (*Violation, int) {
	halt, v, at := Scan(p.Text, p.Features)
	if v != nil || halt < 0 {
		return v, at
	}
	if p.Open() {
		return p.checkOpen(halt)
	}
	if v, at := WithinBudget(p.Text, halt, p.Registers()); v != nil {
		return v, at
	}
	l := p.Limits()
	w := p.Walker(halt)
	for w.Next(ClassControl) {
		i, v := Decode(w.Word())
		if v == nil {
			v = i.Check(l)
		}
		if v != nil {
			return v, w.Index()
		}
		l.Setup.Apply(i)
	}
	return nil, 0
}

// checkOpen is Check behind Scan for a program whose arguments are not known. It looks at instructions that are executed
// whatever they are, as they are in the text, when they come for the first time: not at those in a loop that a register
// counts, behind WITH, or behind a setup that may be another one.
func (p *Program) checkOpen(halt int) (*Violation, int) {
	if n, known := length(p.Text, halt); known && n > Budget {
		v, at := WithinBudget(p.Text, halt, p.Registers())
		return v, at
	}
	l := p.Limits()
	var unknown [ClassVector + 1]bool // setups
	byRegister, with := 0, false      // loops around, from the first that a register counts; WITH before the instruction
	for at := range halt {
		w := (*Word)(p.Text[at*Size:])
		switch o := Opcode(w[0]); o {
		case OpLoop:
			if byRegister > 0 || DecodeLoop(w).ByRegister {
				byRegister++
			}
		case OpEnd:
			byRegister = max(byRegister-1, 0)
		case OpScalar:
		case OpWith:
			with = true
		default:
			sure, setup := byRegister == 0 && !with, false
			with = false
			i, v := Decode(w)
			if v == nil {
				setup = sets(i)
			}
			if setup && !sure {
				unknown[o.Class()] = true
			}
			if v != nil || !sure || !setup && unknown[o.Class()] {
				continue
			}
			if v := i.Check(l); v != nil {
				return v, at
			}
			l.Setup.Apply(i)
		}
	}
	return nil, 0
}
