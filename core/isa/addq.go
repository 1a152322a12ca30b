// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"npuemu/core/num"
	"npuemu/core/systolic"
)

// Scales says how ADDQ scales its operands and its results (§5.6.32). With
// FloatScale the three scales are encodings of fp32.
type Scales struct {
	Rounding               Rounding
	Left                   uint8 // bits by which operands are shifted first
	XZero, YZero, Zero     int16
	Lo, Hi                 int16
	XScale, YScale, Scale  uint32 // multipliers; Scale is a term with FloatScale
	XShift, YShift, SShift uint8
	Wait, Signal           Token
}

// Encode implements Instruction.
func (i Scales) Encode() Word {
	w := encoder(OpScales, 0, i.Wait, i.Signal)
	w[4], w[5] = byte(i.Rounding), i.Left
	for n, v := range []int16{i.XZero, i.YZero, i.Zero, i.Lo, i.Hi} {
		w.put16(6+2*n, uint16(v))
	}
	w.put32(16, i.XScale)
	w.put32(20, i.YScale)
	w.put32(24, i.Scale)
	w[28], w[29], w[30] = i.XShift, i.YShift, i.SShift
	return w
}

// DecodeScales reads a SCALES that passed CheckFormat.
func DecodeScales(w *Word) Scales {
	i := Scales{
		Rounding: Rounding(w[4]), Left: w[5],
		XZero: int16(w.uint16(6)), YZero: int16(w.uint16(8)), Zero: int16(w.uint16(10)), Lo: int16(w.uint16(12)), Hi: int16(w.uint16(14)),
		XScale: w.uint32(16), YScale: w.uint32(20), Scale: w.uint32(24), XShift: w[28], YShift: w[29], SShift: w[30],
	}
	i.Wait, i.Signal = w.tokens()
	return i
}

// Check implements Instruction.
func (i Scales) Check(Limits) *Violation {
	var c checker
	real := i.Rounding == FloatScale
	if i.Rounding > FloatScale {
		c.fail(BadOperand, 4, "rounding", "is %d; roundings are 0 to %d", i.Rounding, FloatScale)
	}
	if c.v == nil && (i.Left > num.MaxLeft || real && i.Left != 0) {
		c.fail(BadOperand, 5, "left", "is %d; it is 0 to %d, and 0 with rounding float", i.Left, num.MaxLeft)
	}
	if c.v == nil && i.Lo > i.Hi {
		c.fail(BadOperand, 14, "hi", "is %d; it must be at least lo = %d", i.Hi, i.Lo)
	}
	for n, v := range []uint32{i.XScale, i.YScale, i.Scale} {
		off, field := uint64(16+4*n), scaleFields[n]
		switch {
		case c.v != nil:
		case !real && v > 1<<31-1:
			c.fail(BadOperand, off, field, "is %#x; a multiplier is 0 to %#x", v, 1<<31-1)
		case real && n < 2 && v >= 0x7f800000:
			c.fail(BadOperand, off, field, "is %#x; it must encode an fp32 that is finite, +0 or above", v)
		case real && v&0x7f800000 == 0x7f800000:
			c.fail(BadOperand, off, field, "is %#x; it must encode an fp32 that is finite", v)
		}
	}
	for n, v := range []uint8{i.XShift, i.YShift, i.SShift} {
		off, field := uint64(28+n), shiftFields[n]
		switch {
		case c.v != nil:
		case real && v != 0:
			c.fail(BadOperand, off, field, "is %d; with rounding float it must be 0", v)
		case !real && (v == 0 || v > num.MaxShift):
			c.fail(BadOperand, off, field, "is %d; shifts are 1 to %d", v, num.MaxShift)
		}
	}
	return c.v
}

var (
	scaleFields = [...]string{"x_scale", "y_scale", "scale"}
	shiftFields = [...]string{"x_shift", "y_shift", "shift"}
)

// Pair returns the arithmetic that i describes; i passed Check.
func (i *Scales) Pair() num.Pair {
	p := num.Pair{
		Left: i.Left, XZero: int32(i.XZero), YZero: int32(i.YZero), Zero: int32(i.Zero), Lo: int32(i.Lo), Hi: int32(i.Hi),
		X: num.Scale{Multiplier: int32(i.XScale), Shift: i.XShift}, Y: num.Scale{Multiplier: int32(i.YScale), Shift: i.YShift},
		Out: num.Scale{Multiplier: int32(i.Scale), Shift: i.SShift}, Twice: i.Rounding == TwoRoundings,
	}
	if i.Rounding == FloatScale {
		p.Float, p.A, p.B, p.C = true, num.FromBits(i.XScale), num.FromBits(i.YScale), num.FromBits(i.Scale)
	}
	return p
}

// AddqOp is an operation of ADDQ (§5.6.33).
type AddqOp uint8

// The operations of §5.6.33.
const (
	AddqAdd AddqOp = 0
	AddqSub AddqOp = 1
	AddqMul AddqOp = 2
)

var addqOps = []choice{{"add", uint8(AddqAdd)}, {"sub", uint8(AddqSub)}, {"mul", uint8(AddqMul)}}

var addqTypes = []choice{{"int8", uint8(systolic.Int8)}, {"uint8", uint8(systolic.Uint8)}, {"int16", uint8(systolic.Int16)}}

// Addq adds, subtracts or multiplies two quantized tensors (§5.6.33). Type is
// that of operands and results.
type Addq struct {
	One                         bool // y is one element for all
	Op                          AddqOp
	Type                        systolic.Type
	X, Y, Out                   uint32 // scratchpad addresses
	M                           uint32 // rows
	N                           uint16 // elements of a row
	XStride, YStride, OutStride uint16 // bytes
	Wait, Signal                Token
}

// Element returns the ELEMENT add whose operands and results lie where those of i do.
func (i Addq) Element() Element {
	return Element{
		One: i.One, Op: ElemAdd, Type: i.Type, OutType: i.Type, X: i.X, Y: i.Y, Out: i.Out, M: i.M, N: i.N,
		XStride: i.XStride, YStride: i.YStride, OutStride: i.OutStride, Wait: i.Wait, Signal: i.Signal,
	}
}

// Encode implements Instruction.
func (i Addq) Encode() Word {
	w := i.Element().Encode()
	w[0], w[4], w[6] = byte(OpAddq), byte(i.Op), 0
	return w
}

// DecodeAddq reads an ADDQ that passed CheckFormat.
func DecodeAddq(w *Word) Addq {
	e := DecodeElement(w)
	return Addq{
		One: e.One, Op: AddqOp(e.Op), Type: e.Type, X: e.X, Y: e.Y, Out: e.Out, M: e.M, N: e.N,
		XStride: e.XStride, YStride: e.YStride, OutStride: e.OutStride, Wait: e.Wait, Signal: e.Signal,
	}
}

// Offset of SCALES' fields in the info of BAD_SETUP.
const setupScales = 5 * Size

// Check implements Instruction.
func (i Addq) Check(l Limits) *Violation {
	var c checker
	if i.Op > AddqMul {
		c.fail(BadOperand, 4, "op", "is %d; operations are 0 to %d", i.Op, AddqMul)
	}
	if c.v == nil && nameOf(addqTypes, uint8(i.Type))[0] <= '9' {
		c.fail(BadOperand, 5, "type", "is %s; there are int8, uint8, int16", nameOf(elementTypes, uint8(i.Type)))
	}
	if c.v != nil {
		return c.v
	}
	e := i.Element()
	v := e.Check(l)
	if v != nil && v.Rule == BadOperand {
		return v
	}
	lo, hi := i.Type.Range()
	s := &l.Setup.Scales
	for n, z := range []int16{s.XZero, s.YZero, s.Zero, s.Lo, s.Hi} {
		if c.v == nil && (int32(z) < lo || int32(z) > hi) {
			c.fail(BadSetup, uint64(setupScales+6+2*n), zeroFields[n], "of SCALES is %d; %s is from %d to %d", z, nameOf(addqTypes, uint8(i.Type)), lo, hi)
		}
	}
	if c.v != nil {
		return c.v
	}
	return v
}

var zeroFields = [...]string{"x_zero", "y_zero", "zero_point", "lo", "hi"}
