// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"math"
	"slices"

	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
)

// This file has the arithmetic of TFLite whose results have more than 8 bits, which REQUANT does not make (§5.6.8).

// column is a constant of int32, one element or one for each index of the last axis.
func (b *builder) column(v []int) *ir.Tensor {
	if len(v) == 1 {
		return b.ints(ir.Int32, nil, v[0])
	}
	return b.ints(ir.Int32, []int{len(v)}, v...)
}

// perColumn is op2 with those numbers, left out if all are 0, with which op changes nothing.
func (b *builder) perColumn(op string, x *ir.Tensor, v []int) *ir.Tensor {
	if !slices.ContainsFunc(v, func(i int) bool { return i != 0 }) {
		return x
	}
	return b.op2(op, x, b.column(v))
}

// scaleTwice is int32 scaled with two roundings (§6.9.2), by one factor or one for each index of the last axis.
func (b *builder) scaleTwice(x *ir.Tensor, factors ...float64) *ir.Tensor {
	n := len(factors)
	m, s := make([]int64, n), make([]int64, n)
	for i, f := range factors {
		m[i], s[i] = b.multiplier(f)
	}
	return b.scaleBy(x, m, s)
}

// scaleBy is scaleTwice by multipliers and shifts.
func (b *builder) scaleBy(x *ir.Tensor, multipliers, shifts []int64) *ir.Tensor {
	n := len(multipliers)
	m, left, right := make([]int, n), make([]int, n), make([]int, n)
	for i, s := range shifts {
		m[i], left[i], right[i] = int(multipliers[i]), max(31-int(s), 0), max(int(s)-31, 0)
	}
	x = b.op2("mulhigh", b.perColumn("shl", x, left), b.column(m))
	if !slices.ContainsFunc(right, func(i int) bool { return i != 0 }) {
		return x
	}
	// divpow2 of §6.9.2 is a rounding shift of the number, less 1 if it is below 0 and there is a shift at all.
	sign := b.op2("shr", x, b.ints(ir.Int32, nil, 31))
	if slices.Contains(right, 0) {
		mask := make([]int, n)
		for i, r := range right {
			mask[i] = -min(r, 1)
		}
		sign = b.op2("and", sign, b.column(mask))
	}
	return b.op2("shr_round", b.op2("add_sat", x, sign), b.column(right))
}

// divPow2 is divpow2 of §6.9.2 with one n ≥ 1.
func (b *builder) divPow2(x *ir.Tensor, n int) *ir.Tensor {
	sign := b.op2("shr", x, b.ints(ir.Int32, nil, 31))
	return b.op2("shr_round", b.op2("add_sat", x, sign), b.ints(ir.Int32, nil, n))
}

// scaleSum is a sum of products, int32, scaled as TFLite scales its sums of 64 bits: with one rounding, by a multiplier m of
// 15 bits, m / 2^s. x·m has up to 46 bits, of which the low half of x makes 16 that come after the point.
func (b *builder) scaleSum(x *ir.Tensor, factors ...float64) *ir.Tensor {
	n := len(factors)
	m, up, round, down, rest := make([]int, n), make([]int, n), make([]int, n), make([]int, n), make([]int, n)
	for i, f := range factors {
		q, s := b.multiplier(f)
		m[i] = int(min((q+1<<15)>>16, 1<<15-1))
		total := int(s) - 16
		if total < 1 {
			b.fail(fixScales, nil, "the scale %g is above 2¹⁴", f)
		}
		if total <= 16 {
			up[i], round[i], down[i] = 16-total, 1<<(total-1), total
		} else {
			down[i], rest[i] = 16, total-16
		}
	}
	high := b.op2("mul", b.op2("shr", x, b.ints(ir.Int32, nil, 16)), b.column(m))
	low := b.op2("mul", b.op2("and", x, b.ints(ir.Int32, nil, 1<<16-1)), b.column(m))
	low = b.op2("shr", b.perColumn("add", low, round), b.column(down))
	return b.perColumn("shr_round", b.op2("add", b.perColumn("shl", high, up), low), rest)
}

// place adds a zero point to int32 and clamps to lo, hi of the type, up to 32 bits.
func (b *builder) place(x *ir.Tensor, typ ir.Type, zero int, lo, hi int64) *ir.Tensor {
	if zero != 0 {
		x = b.op2("add_sat", x, b.ints(ir.Int32, nil, zero))
	}
	least, most := typ.Range()
	if lo > least {
		x = b.op2("max", x, b.ints(ir.Int32, nil, int(lo)))
	}
	if hi < most {
		x = b.op2("min", x, b.ints(ir.Int32, nil, int(hi)))
	}
	return b.cast(x, typ)
}

// minus is x less a zero point, as int32.
func (b *builder) minus(x *ir.Tensor, zero int) *ir.Tensor {
	if zero == 0 {
		return b.cast(x, ir.Int32)
	}
	return b.emit("npu.element", ir.Int32, x.Shape, ir.Attrs{"op": "sub"}, x, b.ints(x.Type, nil, zero))
}

// wideProduct makes int16 of the int32 that a product of int16 gave.
func (b *builder) wideProduct(n *ir.Node, acc *ir.Tensor, factors []float64, bias *ir.Tensor) *ir.Tensor {
	y := n.Outputs[0]
	lo, hi := b.activation(n, y)
	_, zero := b.scaleOf(y)
	if bias != nil && bias.Type == ir.Int32 { // TFLite's sum has 32 bits then
		acc = b.scaleTwice(acc, factors...)
	} else {
		acc = b.scaleSum(acc, factors...)
	}
	return b.place(acc, ir.Int16, zero, lo, hi)
}

// seed32 is the bias of a product of x, as int32. The sum with it stays within 32 bits, or the model is refused: TFLite's sums
// of int16 have 64. The outputs are the indexes of an axis of the weights w.
func (b *builder) seed32(x, w, bias *ir.Tensor, axis int) *ir.Tensor {
	var seeds []int64
	if bias != nil && !bias.Type.Float() {
		b.needConst(bias)
		seeds = ref.Ints(bias.Type, bias.Data, bias.Elements())
	}
	if x.Type == ir.Int16 {
		b.needConst(w)
		channels, inner := w.Shape[axis], b.elements(w.Shape[axis+1:])
		sums := make([]int64, channels)
		for c := range min(channels, len(seeds)) {
			sums[c] = max(seeds[c], -seeds[c])
		}
		for i, v := range ref.Ints(w.Type, w.Data, w.Elements()) {
			sums[i/inner%channels] += max(v, -v) << 15
		}
		for c, v := range sums {
			if v < 0 || v > math.MaxInt32 {
				b.fail(fixScales, nil, "the sums of output %d may reach %d, and those of int16 have 32 bits (§6.8.1)", c, v)
			}
		}
	}
	if bias == nil || bias.Type == ir.Int32 || bias.Type.Float() {
		return bias
	}
	for i, v := range seeds {
		if v != int64(int32(v)) {
			b.fail(fixScales, nil, "bias %d is %d, more than 32 bits", i, v)
		}
	}
	return b.constant(ir.Int32, bias.Shape, ref.PutInts(ir.Int32, seeds))
}

// wideBinary is a sum or difference of int16, of which the operands are scaled first, or a product.
func (b *builder) wideBinary(n *ir.Node, op string) *ir.Tensor {
	x, y, out := n.Inputs[0], n.Inputs[1], n.Outputs[0]
	xs, xz := b.scaleOf(x)
	ys, yz := b.scaleOf(y)
	os, oz := b.scaleOf(out)
	lo, hi := b.activation(n, out)
	var v *ir.Tensor
	if op == "mul" {
		v = b.scaleTwice(b.op2("mul", b.minus(x, xz), b.minus(y, yz)), mulScale(xs, ys, os))
	} else {
		if n.Attrs.Int("pot_scale_int16", 1) != 0 {
			b.fail(replaceNode, nil, "sums of int16 whose scales are powers of two (pot_scale_int16) are not supported")
		}
		const left = 15
		twice := 2 * max(xs, ys)
		arm := func(t *ir.Tensor, zero int, scale float64) *ir.Tensor {
			return b.scaleTwice(b.op2("shl", b.minus(t, zero), b.ints(ir.Int32, nil, left)), scale/twice)
		}
		v = b.scaleTwice(b.op2(op, arm(x, xz, xs), arm(y, yz, ys)), twice/((1<<left)*os))
	}
	return b.place(v, out.Type, oz, lo, hi)
}
