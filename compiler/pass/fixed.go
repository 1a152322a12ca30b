// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"math"

	"npuemu/compiler/ir"
)

// fixed computes functions of fixed-point numbers, in the steps that TFLite's reference kernels take (those of gemmlowp's
// fixed-point library), of which each rounds. A number is an int32 element that holds width bits, 32 or 16: a sign, some
// integer bits, the rest a fraction. What depends on constants only is folded, so that a function of 8 bits is a table.
type fixed struct {
	*builder
	width int
}

// raw is a number of that many integer bits.
func (f fixed) raw(v float64, bits int) int {
	v32 := int64(math.Round(math.Ldexp(v, 31-bits)))
	if f.width == 16 {
		v32 = (v32 + 1<<15) >> 16
	}
	return int(min(v32, f.most()))
}

// most is the largest number.
func (f fixed) most() int64 { return 1<<(f.width-1) - 1 }

func (f fixed) with(op string, x *ir.Tensor, v int) *ir.Tensor {
	return f.op2(op, x, f.ints(ir.Int32, nil, v))
}

// mul is the product of the fractions; its integer bits are those of both together.
func (f fixed) mul(x, y *ir.Tensor) *ir.Tensor {
	if f.width == 16 {
		x = f.with("shl", x, 16)
	}
	return f.op2("mulhigh", x, y)
}

func (f fixed) mulBy(x *ir.Tensor, v float64, bits int) *ir.Tensor {
	return f.with("mulhigh", x, f.raw(v, bits)<<(32-f.width))
}

// double is 2·x, saturated.
func (f fixed) double(x *ir.Tensor) *ir.Tensor {
	if f.width == 16 {
		return f.with("min", f.op2("add", x, x), int(f.most()))
	}
	return f.op2("add_sat", x, x)
}

// exp is e^x of an x ≤ 0 with that many integer bits; the result has none. A table of powers takes the bits of −x
// from ¼ on, a polynomial what is left.
func (f fixed) exp(x *ir.Tensor, bits int) *ir.Tensor {
	frac := f.width - 1 - bits
	quarter := 1 << (frac - 2)
	rest := f.with("sub", f.with("and", x, quarter-1), quarter)
	y := f.expSmall(f.with("shl", rest, bits))
	powers := f.op2("sub", rest, x)
	zero := f.ints(ir.Int32, nil, 0)
	for e := -2; e < min(bits, 5); e++ {
		bit := f.with("and", powers, 1<<(frac+e))
		y = f.choose(f.op2("ne", bit, zero), f.mulBy(y, math.Exp(-math.Ldexp(1, e)), 0), y)
	}
	if bits > 5 {
		y = f.choose(f.with("lt", x, -1<<(frac+5)), zero, y)
	}
	return f.choose(f.op2("eq", x, zero), f.ints(ir.Int32, nil, int(f.most())), y)
}

// expSmall is e^x of −¼ ≤ x < 0 without integer bits, by the first terms of its series at −⅛.
func (f fixed) expSmall(x *ir.Tensor) *ir.Tensor {
	c := math.Exp(-0.125)
	x = f.with("add", x, 1<<(f.width-4))
	x2 := f.mul(x, x)
	x3, x4 := f.mul(x2, x), f.mul(x2, x2)
	y := f.op2("add", f.mulBy(f.op2("add", f.with("shr_round", x4, 2), x3), 1.0/3, 0), x2)
	y = f.mulBy(f.op2("add", x, f.with("shr_round", y, 1)), c, 0)
	return f.with("min", f.with("add_sat", y, f.raw(c, 0)), int(f.most()))
}

// inverse is 2 / (1 + x) of an x from 0 to 1 without integer bits, with two of them, by three steps of Newton's.
func (f fixed) inverse(x *ir.Tensor) *ir.Tensor {
	half := f.with("add", f.with("shr", x, 1), 1<<(f.width-2))
	y := f.with("add", f.mulBy(half, -32.0/17, 2), f.raw(48.0/17, 2))
	one := f.ints(ir.Int32, nil, 1<<(f.width-3))
	for range 3 {
		d := f.op2("sub", one, f.mul(half, y))
		y = f.op2("add", y, f.with("shl", f.mul(y, d), 2))
	}
	return y
}

// sides is f of |x| with the sign's due: y where x > 0, below where x < 0, and at 0 the number zero.
func (f fixed) sides(x, y, below *ir.Tensor, zero int) *ir.Tensor {
	z := f.ints(ir.Int32, nil, 0)
	return f.choose(f.op2("eq", x, z), f.ints(ir.Int32, nil, zero), f.choose(f.op2("lt", z, x), y, below))
}

// negAbs is −|x|.
func (f fixed) negAbs(x *ir.Tensor) *ir.Tensor { return f.op2("min", x, f.op1("neg", x)) }

// logistic is 1 / (1 + e^−x) of x with that many integer bits; the result has none.
func (f fixed) logistic(x *ir.Tensor, bits int) *ir.Tensor {
	y := f.double(f.inverse(f.exp(f.negAbs(x), bits)))
	return f.sides(x, y, f.op2("sub", f.ints(ir.Int32, nil, int(f.most())), y), 1<<(f.width-2))
}

// tanh is that of x with that many integer bits; the result has none.
func (f fixed) tanh(x *ir.Tensor, bits int) *ir.Tensor {
	y := f.with("sub", f.inverse(f.exp(f.negAbs(x), bits+1)), 1<<(f.width-3))
	y = f.double(f.double(y))
	return f.sides(x, y, f.op1("neg", y), 0)
}
