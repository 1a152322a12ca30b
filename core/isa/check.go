// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"encoding/binary"
	"fmt"

	"npuemu/core/num"
)

// Rule is a rule of §5.3 or §5.7 that can be checked without executing. Its
// value is the completion status of a program that breaks it (§9).
type Rule uint8

// The rules, in the order in which they are checked.
const (
	BadProgram         Rule = 0x40 // BAD_PROGRAM
	ConfigMismatch     Rule = 0x41 // CONFIG_MISMATCH
	IllegalInstruction Rule = 0x42 // ILLEGAL_INSTRUCTION
	ReservedField      Rule = 0x43 // RESERVED_FIELD
	BadOperand         Rule = 0x44 // BAD_OPERAND
	ArrayShape         Rule = 0x45 // ARRAY_SHAPE
	LocalBounds        Rule = 0x46 // LOCAL_BOUNDS
	BindingIndex       Rule = 0x47 // BINDING_INDEX
	BadSetup           Rule = 0x60 // BAD_SETUP, between ARRAY_SHAPE and LOCAL_BOUNDS
	BadControl         Rule = 0x61 // BAD_CONTROL, with RESERVED_FIELD
	OverBudget         Rule = 0x62 // BUDGET
	Overlap            Rule = 0x63 // OVERLAP, between LOCAL_BOUNDS and BINDING_INDEX
)

// String returns the name in the specification.
func (r Rule) String() string {
	switch r {
	case BadProgram:
		return "BAD_PROGRAM"
	case ConfigMismatch:
		return "CONFIG_MISMATCH"
	case IllegalInstruction:
		return "ILLEGAL_INSTRUCTION"
	case ReservedField:
		return "RESERVED_FIELD"
	case BadOperand:
		return "BAD_OPERAND"
	case ArrayShape:
		return "ARRAY_SHAPE"
	case LocalBounds:
		return "LOCAL_BOUNDS"
	case BindingIndex:
		return "BINDING_INDEX"
	case BadSetup:
		return "BAD_SETUP"
	case BadControl:
		return "BAD_CONTROL"
	case OverBudget:
		return "BUDGET"
	case Overlap:
		return "OVERLAP"
	}
	return fmt.Sprintf("Rule(%#02x)", uint8(r))
}

// Violation is a broken rule.
type Violation struct {
	Rule   Rule
	Info   uint64 // what the completion's info says, by rule (§5.3, §5.7)
	Field  string // the field's name in the specification; may be empty
	Detail string // what is wrong and what would be right
}

// Error implements error.
func (v *Violation) Error() string {
	return fmt.Sprintf("isa: %v: %s", v.Rule, v.Detail)
}

// Limits is what programs and instructions are checked against: those of a core
// for a descriptor, those of the descriptor and the launch for an instruction.
type Limits struct {
	Rows, Cols        uint16 // of the array
	SpadSize, AccSize uint32 // bytes
	Bindings          int
	Features          uint64 // groups of instructions, FeatureGEMM and so on
	Setup             Setup  // of the matrix engine, before the instruction
}

// CheckFormat makes the checks of the sequencer for a program that has the
// groups of instructions in features: ILLEGAL_INSTRUCTION and RESERVED_FIELD
// (§5.7). It returns nil if w passes.
func CheckFormat(w *Word, features uint64) *Violation {
	r := &rows[w[0]]
	if r.op == nil {
		return &Violation{
			Rule: IllegalInstruction, Info: uint64(w[0]),
			Detail: fmt.Sprintf("opcode %#02x is not in §5.6", w[0]),
		}
	}
	if r.op.feature&^features != 0 {
		return &Violation{
			Rule: IllegalInstruction, Info: uint64(w[0]),
			Detail: fmt.Sprintf("%s is of group %s, which the program's features do not name", r.op.name, featureName(r.op.feature)),
		}
	}
	for i, b := range w {
		bad := b &^ r.defined[i]
		if r.later != 0 && i == int(r.laterAt) && r.later&^features != 0 {
			bad = b
		}
		if (i == 2 || i == 3) && b>>4 == 0 {
			bad = b // a count of 0 must not name a token
		}
		if bad != 0 {
			return &Violation{
				Rule: ReservedField, Info: uint64(i),
				Detail: fmt.Sprintf("%s: byte %d is %#02x, bits %#02x must be 0", r.op.name, i, b, bad),
			}
		}
	}
	return nil
}

// Rows is a set of Outer × Inner rows of Bytes bytes: row (o, i) starts at
// Base + o·OuterStride + i·InnerStride.
//
// All uses fit: no instruction has a last byte at or above 2⁶⁴.
type Rows struct {
	Base                     uint64
	Outer, Inner             uint64 // at least 1
	OuterStride, InnerStride uint64
	Bytes                    uint64 // at least 1
}

// Outside reports whether a byte of r is at or above size, and the address of
// the first such byte in the order of the rows.
func (r Rows) Outside(size uint64) (first uint64, outside bool) {
	plane := r.Base + (r.Inner-1)*r.InnerStride + r.Bytes // end of plane 0
	if plane+(r.Outer-1)*r.OuterStride <= size {
		return 0, false
	}
	o := firstBeyond(plane, r.OuterStride, size)
	start := r.Base + o*r.OuterStride
	start += firstBeyond(start+r.Bytes, r.InnerStride, size) * r.InnerStride
	return max(start, size), true
}

// firstBeyond returns the smallest i with end + i·stride > size. There is one.
func firstBeyond(end, stride, size uint64) uint64 {
	if end > size {
		return 0
	}
	return (size-end)/stride + 1
}

// checker keeps the first violation. Its methods do nothing after that, so a
// list of calls is a list of checks in order.
type checker struct{ v *Violation }

func (c *checker) fail(r Rule, info uint64, field, format string, args ...any) {
	c.v = &Violation{Rule: r, Info: info, Field: field, Detail: field + " " + fmt.Sprintf(format, args...)}
}

func (c *checker) atLeastOne(off uint64, field string, v uint64) {
	if c.v == nil && v == 0 {
		c.fail(BadOperand, off, field, "is 0; it must be at least 1")
	}
}

func (c *checker) aligned(off uint64, field string, v uint64) {
	if c.v == nil && v%4 != 0 {
		c.fail(BadOperand, off, field, "is %d; it must be a multiple of 4", v)
	}
}

// stride checks a distance between rows that is used only if there are several.
func (c *checker) stride(off uint64, field string, v uint64, several bool, least uint64, what string) {
	if c.v == nil && several && v < least {
		c.fail(BadOperand, off, field, "is %d, rows would overlap; it must be at least %s = %d", v, what, least)
	}
}

func (c *checker) shape(k, n uint16, l Limits) {
	if c.v == nil && k > l.Rows {
		c.fail(ArrayShape, 4, "k", "is %d; the array has %d rows", k, l.Rows)
	}
	if c.v == nil && n > l.Cols {
		c.fail(ArrayShape, 6, "n", "is %d; the array has %d columns", n, l.Cols)
	}
}

func (c *checker) local(field string, acc bool, r Rows, l *Limits) {
	if c.v != nil {
		return
	}
	name, size := "scratchpad", l.SpadSize
	if acc {
		name, size = "accumulators", l.AccSize
	}
	if first, outside := r.Outside(uint64(size)); outside {
		c.fail(LocalBounds, first, field, "reaches address %#x; the program has %d bytes of %s", first, size, name)
	}
}

// one is a single row.
func one(base uint32, bytes uint64) Rows {
	return Rows{Base: uint64(base), Outer: 1, Inner: 1, Bytes: bytes}
}

// Check implements Instruction; HALT has no operands.
func (Halt) Check(Limits) *Violation { return nil }

// Check implements Instruction; SYNC has no operands.
func (Sync) Check(Limits) *Violation { return nil }

// Check implements Instruction.
func (i Load) Check(l Limits) *Violation {
	var c checker
	nx, step := uint64(i.NX), uint64(i.LocalStride)
	c.atLeastOne(6, "ny", uint64(i.NY))
	if i.Acc {
		c.aligned(8, "local", uint64(i.Local))
	}
	c.atLeastOne(16, "nx", nx)
	if i.Acc {
		c.aligned(16, "nx", nx)
	}
	c.atLeastOne(28, "nz", uint64(i.NZ))
	if i.Acc {
		c.aligned(30, "local_stride", step)
	}
	lines := uint64(i.NY) * uint64(i.NZ)
	c.stride(30, "local_stride", step, lines > 1, nx, "nx")
	c.local("local", i.Acc, Rows{Base: uint64(i.Local), Outer: 1, Inner: lines, InnerStride: step, Bytes: nx}, &l)
	c.binding(i.Binding, l)
	return c.v
}

// Memory returns the rows that i accesses, as offsets in its binding.
func (i Load) Memory() Rows {
	return Rows{
		Base:  i.Offset,
		Outer: uint64(i.NZ), OuterStride: uint64(i.StrideZ),
		Inner: uint64(i.NY), InnerStride: uint64(i.StrideY),
		Bytes: uint64(i.NX),
	}
}

// Check implements Instruction.
func (i Store) Check(l Limits) *Violation { return Load(i).Check(l) }

// Check implements Instruction.
func (i Preload) Check(l Limits) *Violation {
	var c checker
	c.atLeastOne(4, "k", uint64(i.K))
	c.atLeastOne(6, "n", uint64(i.N))
	c.stride(12, "stride", uint64(i.Stride), i.K > 1, uint64(i.N), "n")
	c.shape(i.K, i.N, l)
	c.local("weights", false, Rows{
		Base: uint64(i.Weights), Outer: 1, Inner: uint64(i.K), InnerStride: uint64(i.Stride), Bytes: uint64(i.N),
	}, &l)
	return c.v
}

// Check implements Instruction.
func (i Matmul) Check(l Limits) *Violation {
	var c checker
	c.atLeastOne(4, "k", uint64(i.K))
	c.atLeastOne(6, "n", uint64(i.N))
	c.aligned(12, "acc", uint64(i.Acc))
	c.atLeastOne(16, "mx", uint64(i.MX))
	c.atLeastOne(18, "my", uint64(i.MY))
	m := uint64(i.MX) * uint64(i.MY)
	c.aligned(22, "acc_stride", uint64(i.AccStride))
	c.stride(22, "acc_stride", uint64(i.AccStride), m > 1, 4*uint64(i.N), "4·n")
	c.shape(i.K, i.N, l)
	c.local("ifmap", false, Rows{
		Base:  uint64(i.Ifmap),
		Outer: uint64(i.MY), OuterStride: uint64(i.StrideY),
		Inner: uint64(i.MX), InnerStride: uint64(i.StrideX),
		Bytes: uint64(i.K),
	}, &l)
	c.local("acc", true, accRows(i.Acc, m, i.AccStride, i.N), &l)
	return c.v
}

func accRows(base uint32, m uint64, stride, n uint16) Rows {
	return Rows{Base: uint64(base), Outer: 1, Inner: m, InnerStride: uint64(stride), Bytes: 4 * uint64(n)}
}

// Check implements Instruction.
func (i Fill) Check(l Limits) *Violation {
	var c checker
	if i.Acc {
		c.aligned(8, "local", uint64(i.Local))
	}
	c.atLeastOne(12, "nx", uint64(i.NX))
	if i.Acc {
		c.aligned(12, "nx", uint64(i.NX))
	}
	c.atLeastOne(16, "ny", uint64(i.NY))
	if i.Acc {
		c.aligned(20, "stride", uint64(i.Stride))
	}
	c.stride(20, "stride", uint64(i.Stride), i.NY > 1, uint64(i.NX), "nx")
	c.local("local", i.Acc, Rows{
		Base: uint64(i.Local), Outer: 1, Inner: uint64(i.NY), InnerStride: uint64(i.Stride), Bytes: uint64(i.NX),
	}, &l)
	return c.v
}

// Check implements Instruction.
func (i Bias) Check(l Limits) *Violation {
	var c checker
	c.atLeastOne(4, "n", uint64(i.N))
	c.aligned(6, "acc_stride", uint64(i.AccStride))
	c.stride(6, "acc_stride", uint64(i.AccStride), i.M > 1, 4*uint64(i.N), "4·n")
	c.aligned(8, "bias", uint64(i.Bias))
	c.aligned(12, "acc", uint64(i.Acc))
	c.atLeastOne(16, "m", uint64(i.M))
	c.local("bias", false, one(i.Bias, 4*uint64(i.N)), &l)
	c.local("acc", true, accRows(i.Acc, uint64(i.M), i.AccStride, i.N), &l)
	return c.v
}

// Check implements Instruction.
func (i Requant) Check(l Limits) *Violation {
	var c checker
	n, mx := uint64(i.N), uint64(i.MX)
	m := mx * uint64(i.MY)
	c.atLeastOne(4, "n", n)
	c.aligned(6, "acc_stride", uint64(i.AccStride))
	c.stride(6, "acc_stride", uint64(i.AccStride), m > 1, 4*n, "4·n")
	c.aligned(8, "acc", uint64(i.Acc))
	c.aligned(16, "params", uint64(i.Params))
	c.atLeastOne(20, "mx", mx)
	c.atLeastOne(22, "my", uint64(i.MY))
	c.stride(24, "out_stride_x", uint64(i.OutStrideX), mx > 1, n, "n")
	if c.v == nil { // mx is at least 1 now
		c.stride(26, "out_stride_y", uint64(i.OutStrideY), i.MY > 1, (mx-1)*uint64(i.OutStrideX)+n, "(mx − 1)·out_stride_x + n")
	}
	if c.v == nil && i.Lo > i.Hi {
		c.fail(BadOperand, 30, "hi", "is %d; it must be at least lo = %d", i.Hi, i.Lo)
	}
	if c.v == nil && i.Rounding > FloatScale {
		c.fail(BadOperand, 31, "rounding", "is %d; roundings are 0 to %d", i.Rounding, FloatScale)
	}
	c.local("acc", true, accRows(i.Acc, m, i.AccStride, i.N), &l)
	c.local("out", false, Rows{
		Base:  uint64(i.Out),
		Outer: uint64(i.MY), OuterStride: uint64(i.OutStrideY),
		Inner: mx, InnerStride: uint64(i.OutStrideX),
		Bytes: n,
	}, &l)
	c.local("params", false, one(i.Params, ParamSize*uint64(i.ParamCount())), &l)
	return c.v
}

// ParamCount returns the number of entries of i's parameter table.
func (i Requant) ParamCount() int {
	if i.PerChannel {
		return int(i.N)
	}
	return 1
}

// FloatParam is Param for FloatScale: the multiplier is the encoding of a finite
// fp32 above 0, the shift 0.
func FloatParam(b *[ParamSize]byte) (s num.Scale, ok bool) {
	v := binary.LittleEndian.Uint32(b[:])
	return num.Scale{Multiplier: int32(v)}, v > 0 && v < 0x7f800000 && b[4]|b[5]|b[6]|b[7] == 0
}

// Param decodes an entry of a parameter table (§5.6.8). It is not ok if the
// scale is not valid or a reserved byte is not 0 (BAD_PARAM).
func Param(b *[ParamSize]byte) (s num.Scale, ok bool) {
	s = num.Scale{Multiplier: int32(uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24), Shift: b[4]}
	return s, s.Valid() && b[5]|b[6]|b[7] == 0
}
