// SPDX-License-Identifier: Apache-2.0

package isa

import "fmt"

// Limits of the sequencer (§5.6.13).
const (
	Registers = 16
	Arguments = 4       // registers that LAUNCH gives values, s0 and those behind it
	MaxNest   = 8       // loops inside each other
	Budget    = 1 << 24 // instructions that a program may pass, those in loops each time
)

// Loop repeats what follows up to its End (§5.6.14).
type Loop struct {
	ByRegister  bool   // the count is that of register CountReg
	Reg         uint8  // register that holds Start + i·Step
	CountReg    uint8  // 0 without ByRegister
	Count       uint32 // 0 with ByRegister
	Start, Step int32
}

// Encode implements Instruction.
func (i Loop) Encode() Word {
	w := encoder(OpLoop, flagIf(i.ByRegister, flagByRegister), Token{}, Token{})
	w[4], w[5] = i.Reg, i.CountReg
	w.put32(8, i.Count)
	w.put32(12, uint32(i.Start))
	w.put32(16, uint32(i.Step))
	return w
}

// DecodeLoop reads a LOOP that passed CheckFormat.
func DecodeLoop(w *Word) Loop {
	return Loop{
		ByRegister: w.flag(flagByRegister), Reg: w[4], CountReg: w[5],
		Count: w.uint32(8), Start: int32(w.uint32(12)), Step: int32(w.uint32(16)),
	}
}

// Check implements Instruction.
func (i Loop) Check(Limits) *Violation {
	var c checker
	c.register(4, "reg", i.Reg)
	c.register(5, "count_reg", i.CountReg)
	switch {
	case c.v != nil:
	case !i.ByRegister && i.CountReg != 0:
		c.fail(BadOperand, 5, "count_reg", "is s%d; without by_register it must be 0", i.CountReg)
	case !i.ByRegister:
		c.atLeastOne(8, "count", uint64(i.Count))
	case i.Count != 0:
		c.fail(BadOperand, 8, "count", "is %d; with by_register it must be 0", i.Count)
	}
	return c.v
}

// End ends the body of a Loop (§5.6.14).
type End struct{}

// Encode implements Instruction.
func (End) Encode() Word { return Word{byte(OpEnd)} }

// Check implements Instruction; END has no operands.
func (End) Check(Limits) *Violation { return nil }

// Scalar computes with the sequencer's registers (§5.6.15).
type Scalar struct {
	Immediate  bool // the second operand is Imm, otherwise register RB
	Op         ScalarOp
	RD, RA, RB uint8
	Imm        int32
}

// ScalarOp is an operation of Scalar.
type ScalarOp uint8

// The operations of §5.6.15.
const (
	Move ScalarOp = iota
	Add
	Sub
	Mul
	Min
	Max
	And
	Or
	Xor
	ShiftLeft
	ShiftRight
	Equal
	NotEqual
	Less
	LessEqual
)

var scalarOps = []choice{
	{"move", uint8(Move)}, {"add", uint8(Add)}, {"sub", uint8(Sub)}, {"mul", uint8(Mul)},
	{"min", uint8(Min)}, {"max", uint8(Max)}, {"and", uint8(And)}, {"or", uint8(Or)},
	{"xor", uint8(Xor)}, {"shl", uint8(ShiftLeft)}, {"shr", uint8(ShiftRight)},
	{"eq", uint8(Equal)}, {"ne", uint8(NotEqual)}, {"lt", uint8(Less)}, {"le", uint8(LessEqual)},
}

// apply returns x op y (§5.6.15).
func (op ScalarOp) apply(x, y int32) int32 {
	truth := func(v bool) int32 {
		if v {
			return 1
		}
		return 0
	}
	switch op {
	case Move:
		return y
	case Add:
		return x + y
	case Sub:
		return x - y
	case Mul:
		return x * y
	case Min:
		return min(x, y)
	case Max:
		return max(x, y)
	case And:
		return x & y
	case Or:
		return x | y
	case Xor:
		return x ^ y
	case ShiftLeft:
		return x << (uint32(y) & 31)
	case ShiftRight:
		return x >> (uint32(y) & 31)
	case Equal:
		return truth(x == y)
	case NotEqual:
		return truth(x != y)
	case Less:
		return truth(x < y)
	case LessEqual:
		return truth(x <= y)
	}
	panic(fmt.Sprintf("isa: BUG: scalar operation %d", op))
}

// Encode implements Instruction.
func (i Scalar) Encode() Word {
	w := encoder(OpScalar, flagIf(i.Immediate, flagImmediate), Token{}, Token{})
	w[4], w[5], w[6], w[7] = byte(i.Op), i.RD, i.RA, i.RB
	w.put32(8, uint32(i.Imm))
	return w
}

// DecodeScalar reads a SCALAR that passed CheckFormat.
func DecodeScalar(w *Word) Scalar {
	return Scalar{
		Immediate: w.flag(flagImmediate), Op: ScalarOp(w[4]),
		RD: w[5], RA: w[6], RB: w[7], Imm: int32(w.uint32(8)),
	}
}

// Check implements Instruction.
func (i Scalar) Check(Limits) *Violation {
	var c checker
	if i.Op > LessEqual {
		c.fail(BadOperand, 4, "op", "is %d; operations are 0 to %d", i.Op, LessEqual)
	}
	c.register(5, "rd", i.RD)
	c.register(6, "ra", i.RA)
	c.register(7, "rb", i.RB)
	switch {
	case c.v != nil:
	case i.Op == Move && i.RA != 0:
		c.fail(BadOperand, 6, "ra", "is s%d; move has no first operand and it must be 0", i.RA)
	case i.Immediate && i.RB != 0:
		c.fail(BadOperand, 7, "rb", "is s%d; with immediate it must be 0", i.RB)
	case !i.Immediate && i.Imm != 0:
		c.fail(BadOperand, 8, "imm", "is %d; without immediate it must be 0", i.Imm)
	}
	return c.v
}

// Term adds Times · register Reg to the field at byte offset Field of an
// instruction (§5.6.16). The zero Term is none.
type Term struct {
	Field, Reg uint8
	Times      int32
}

// Condition says when an instruction is executed (§5.6.16).
type Condition uint8

// The conditions of WITH.
const (
	Always Condition = iota
	IfNotZero
	IfZero
)

// Terms of one With.
const withTerms = 4

// With changes the instruction behind it (§5.6.16).
type With struct {
	Terms     [withTerms]Term
	Condition Condition
	Reg       uint8 // of Condition
}

// termAt is the byte offset of term n.
func termAt(n int) int { return 4 + 6*n }

// Encode implements Instruction.
func (i With) Encode() Word {
	w := Word{byte(OpWith)}
	for n, t := range i.Terms {
		at := termAt(n)
		w[at], w[at+1] = t.Field, t.Reg
		w.put32(at+2, uint32(t.Times))
	}
	w[28], w[29] = byte(i.Condition), i.Reg
	return w
}

// DecodeWith reads a WITH that passed CheckFormat.
func DecodeWith(w *Word) With {
	i := With{Condition: Condition(w[28]), Reg: w[29]}
	for n := range i.Terms {
		at := termAt(n)
		i.Terms[n] = Term{Field: w[at], Reg: w[at+1], Times: int32(w.uint32(at + 2))}
	}
	return i
}

// Check implements Instruction. That the fields are those of the instruction
// behind i is for Scan to see.
func (i With) Check(Limits) *Violation {
	var c checker
	for n, t := range i.Terms {
		at := uint64(termAt(n))
		switch {
		case c.v != nil:
		case t.Field == 0 && t != Term{}:
			c.fail(BadOperand, at, "field", "is 0, but its register and factor are not; a term that is not there is all 0")
		case t.Field != 0 && n > 0 && i.Terms[n-1].Field == 0:
			c.fail(BadOperand, at, "field", "is %d behind a term that is not there; terms come first", t.Field)
		}
		c.register(at+1, "reg", t.Reg)
	}
	if c.v == nil && i.Condition > IfZero {
		c.fail(BadOperand, 28, "condition", "is %d; conditions are 0 to %d", i.Condition, IfZero)
	}
	c.register(29, "condition_reg", i.Reg)
	if c.v == nil && i.Condition == Always && i.Reg != 0 {
		c.fail(BadOperand, 29, "condition_reg", "is s%d; without a condition it must be 0", i.Reg)
	}
	return c.v
}

// target returns the operand of op that a Term may change at byte offset field,
// or nil: an unsigned one of two bytes or more.
func (op *operation) target(field uint8) *operand {
	for i := range op.operands {
		if o := &op.operands[i]; o.off == field && o.size >= 2 && (o.form == count || o.form == address) {
			return o
		}
	}
	return nil
}

// register checks the number of a register.
func (c *checker) register(off uint64, field string, r uint8) {
	if c.v == nil && r >= Registers {
		c.fail(BadOperand, off, field, "is %d; registers are 0 to %d", r, Registers-1)
	}
}

// Stamp stores a mark and the time (§5.6.17).
type Stamp struct {
	Binding      uint8
	Offset       uint64 // bytes in the binding, below 2^40
	ID           uint32
	Wait, Signal Token
}

// StampSize is how many bytes a Stamp stores.
const StampSize = 16

// Encode implements Instruction.
func (i Stamp) Encode() Word {
	if i.Offset >= MaxOffset {
		panic(fmt.Sprintf("isa: offset %#x does not fit in 40 bits", i.Offset))
	}
	w := encoder(OpStamp, 0, i.Wait, i.Signal)
	w[4], w[5] = i.Binding, byte(i.Offset>>32)
	w.put32(8, i.ID)
	w.put32(12, uint32(i.Offset))
	return w
}

// DecodeStamp reads a STAMP that passed CheckFormat.
func DecodeStamp(w *Word) Stamp {
	i := Stamp{Binding: w[4], Offset: uint64(w[5])<<32 | uint64(w.uint32(12)), ID: w.uint32(8)}
	i.Wait, i.Signal = w.tokens()
	return i
}

// Check implements Instruction.
func (i Stamp) Check(l Limits) *Violation {
	var c checker
	c.binding(i.Binding, l)
	return c.v
}

// binding checks the index of a binding.
func (c *checker) binding(b uint8, l Limits) {
	if c.v == nil && int(b) >= l.Bindings {
		c.fail(BindingIndex, uint64(b), "binding", "is %d; there are %d bindings, counted from 0", b, l.Bindings)
	}
}
