// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"math"
	"math/bits"
	"slices"

	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
	"npuemu/core/num"
)

// This file has TFLite's functions of quantized numbers, in the fixed-point arithmetic of its reference kernels.

// tflTable is a function of 8 bits as a table: f gives y for what x less its zero point is.
func (b *builder) tflTable(n *ir.Node, f func(v int) int64) *ir.Tensor {
	x, y := n.Inputs[0], n.Outputs[0]
	if x.Type.Bits() != 8 || y.Type != x.Type {
		b.fail(replaceNode, y, "%s to %s is not supported", x.Type, y.Type)
	}
	_, zero := b.scaleOf(x)
	t := make([]int64, 256)
	for i := range t {
		t[i] = f(int(ref.Ints(x.Type, []byte{byte(i)}, 1)[0]) - zero)
	}
	return b.emit("npu.table", y.Type, x.Shape, nil, x, b.constant(y.Type, []int{256}, ref.PutInts(y.Type, t)))
}

// tflReal is a function of 8 bits: f of the real number in fp32, times the inverse of the output's scale, rounded with ties away from 0.
func tflReal(op string, f func(x float64) float64) rule {
	return func(b *builder, n *ir.Node) []*ir.Tensor {
		x, y := n.Inputs[0], n.Outputs[0]
		if x.Type.Float() {
			return one(b.op1(op, x))
		}
		xs, _ := b.scaleOf(x)
		ys, yz := b.scaleOf(y)
		inverse := 1 / float32(ys)
		lo, hi := y.Type.Range()
		return one(b.tflTable(n, func(v int) int64 {
			real := float32(f(float64(float32(xs) * float32(v))))
			return min(max(int64(min(math.Round(float64(real*inverse)), 1<<31))+int64(yz), lo), hi)
		}))
	}
}

// radius is the largest number that, scaled by 2^exp, has that many integer bits.
func (b *builder) radius(integer, exp int) int {
	return int(math.Floor(float64(int64(1<<integer-1)<<(31-integer)) / math.Ldexp(1, exp)))
}

// tflHardSwish has 16 bits: x with 7 more, times the scales' ratio, times a number from 0 to 1 that is x / 6 + ½ clamped.
func tflHardSwish(b *builder, n *ir.Node) []*ir.Tensor {
	x, y := n.Inputs[0], n.Outputs[0]
	if x.Type.Float() {
		return one(b.op1("hardswish", x))
	}
	xs, _ := b.scaleOf(x)
	ys, yz := b.scaleOf(y)
	fine := float32(xs) / 128
	down := func(real float64) (m int64, exp int) {
		q, s := b.multiplier(real)
		return min((q+1<<15)>>16, math.MaxInt16), int(31 - s)
	}
	outM, outExp := down(float64(fine / float32(ys)))
	inM, inExp := down(float64(fine / (float32(3) / 32768)))
	if outExp > 0 {
		b.fail(fixScales, nil, "the output's scale %g is too small for that of the input", ys)
	}
	// The upper half of a doubled product of 16 bits, rounded as §6.9.2's mulhigh, or toward 0.
	near := func(a, b int64) int64 { return min((a*b+1<<14)>>15, math.MaxInt16) }
	cut := func(a, b int64) int64 { return min(a*b/(1<<15), math.MaxInt16) }
	left := func(v int64, n int) int64 { return min(max(v<<n, math.MinInt16), math.MaxInt16) }
	right := func(v int64, n int) int64 { return int64(num.DivPow2(int32(v), uint8(n))) }
	lo, hi := y.Type.Range()
	return one(b.tflTable(n, func(v int) int64 {
		h := int64(int16(v << 7))
		r := h
		if inExp > 0 {
			r = left(r, inExp-1)
		}
		if r = near(r, inM); inExp > 0 {
			r = left(r, 1)
		} else if inExp < 0 {
			r = right(r, -inExp)
		}
		r = (r + 1<<15) >> 1
		p := cut(r, near(h, outM))
		return min(max(right(p, -outExp)+int64(yz), lo), hi)
	}))
}

// tflSoftmax is, of 8 bits, that of the reference kernel: exponentials without integer bits of how far x is below its row's largest,
// times the inverse of their sum, which has 12 integer bits and is shifted up until it has none.
func tflSoftmax(b *builder, n *ir.Node) []*ir.Tensor {
	const in, sums = 5, 12
	x, y := n.Inputs[0], n.Outputs[0]
	beta := n.Attrs.Float("beta", 1)
	if x.Type.Float() {
		if beta != 1 && beta != 0 {
			x = b.scalar2("mul", x, beta)
		}
		return one(b.emit("npu.softmax", x.Type, x.Shape, nil, x))
	}
	if x.Type.Bits() != 8 || !quantizedType(y.Type) || len(x.Shape) == 0 {
		b.fail(replaceNode, y, "%s%v to %s is not supported", x.Type, x.Shape, y.Type)
	}
	xs, _ := b.scaleOf(x)
	real := min(float64(beta)*xs*(1<<(31-in)), 1<<31-1)
	_, exp := math.Frexp(real)
	if exp < 1 {
		b.fail(fixScales, nil, "the scale %g of the input is below 2⁻²⁶", xs)
	}
	d := x.Shape[len(x.Shape)-1]
	rows := b.elements(x.Shape) / max(d, 1)
	x = b.reshape(x, rows, d)
	largest := b.emit("npu.reduce", x.Type, []int{rows, 1}, ir.Attrs{"kind": "max"}, x)
	below := b.emit("npu.element", ir.Uint8, x.Shape, ir.Attrs{"op": "sub"}, largest, x)
	// The exponentials of all 256 distances, as four tables of bytes.
	i32 := func(v int) *ir.Tensor { return b.ints(ir.Int32, nil, v) }
	distances := make([]int, 256)
	for i := range distances {
		distances[i] = -i
	}
	f := fixed{b, 32}
	all := b.ints(ir.Int32, []int{256}, distances...)
	table := f.exp(b.scaleTwice(all, real), in)
	table = b.choose(b.op2("lt", all, i32(-b.radius(in, exp))), i32(0), table)
	planes := b.emit("npu.bitcast", ir.Uint8, []int{256, 4}, nil, table)
	var parts []*ir.Tensor
	for i := range 4 {
		t := b.emit("npu.table", ir.Uint8, x.Shape, nil, below, b.reshape(b.part(planes, 1, i, 1), 256))
		parts = append(parts, b.reshape(t, rows, d, 1))
	}
	exps := b.emit("npu.bitcast", ir.Int32, x.Shape, nil, b.concat(2, parts...))
	sum := b.emit("npu.reduce", ir.Int32, []int{rows, 1}, ir.Attrs{"kind": "sum"}, b.op2("shr_round", exps, i32(sums)))
	// How often the sum can be doubled: the bits above its highest one, but for the sign.
	headroom := i32(0)
	for _, k := range []int{16, 8, 4, 2, 1} {
		room := b.op2("lt", sum, i32(1<<(31-k)))
		sum = b.choose(room, b.op2("shl", sum, i32(k)), sum)
		headroom = b.op2("add", headroom, b.choose(room, i32(k), i32(0)))
	}
	scale := f.double(f.inverse(b.op2("shl", b.op2("sub", sum, i32(1<<30)), i32(1))))
	shift := b.op2("sub", i32(sums-1+31-y.Type.Bits()), headroom)
	v := b.op2("shr_round", b.op2("mulhigh", scale, exps), shift)
	lo, hi := y.Type.Range()
	v = b.place(b.op2("add", v, i32(int(lo))), y.Type, 0, lo, hi)
	return one(b.reshape(v, y.Shape...))
}

// tflMean scales the sum by a multiplier in which the count is divided out.
func tflMean(b *builder, n *ir.Node) []*ir.Tensor {
	x, y := n.Inputs[0], n.Outputs[0]
	axes := b.axes(append([]int{}, b.constInts(1)...), len(x.Shape))
	shape, count := slices.Clone(x.Shape), 1
	for _, a := range axes {
		count *= x.Shape[a]
		shape[a] = 1
	}
	var mean *ir.Tensor
	if x.Type.Float() {
		mean = b.reduce("mean", x, axes)
	} else {
		if !quantizedType(x.Type) || x.Type.Bits() > 8 && y.Type != x.Type || count == 0 {
			b.fail(replaceNode, y, "the mean of %s%v as %s is not supported", x.Type, x.Shape, y.Type)
		}
		_, xz := b.scaleOf(x)
		_, yz := b.scaleOf(y)
		q, s := b.multiplier(b.ratio(x, y))
		up := min(bits.Len(uint(count))-1, 31+31-int(s))
		if up < 0 {
			b.fail(fixScales, nil, "the scales of input and output are too far apart")
		}
		q, s = q<<up/int64(count), s+int64(up)
		sum := b.reduce("sum", x, axes)
		lo, hi := y.Type.Range()
		if y.Type.Bits() == 8 {
			mean = b.emit("npu.requantize", y.Type, shape, ir.Attrs{
				"rounding": "two", "multipliers": []int64{q}, "shifts": []int64{s}, "zero_x": int64(xz * count), "zero_y": int64(yz), "lo": lo, "hi": hi,
			}, sum)
		} else {
			mean = b.place(b.scaleBy(b.minus(sum, xz*count), []int64{q}, []int64{s}), y.Type, yz, lo, hi)
		}
	}
	if n.Attrs.Int("keep_dims", 0) != 0 {
		return one(mean)
	}
	shape = nil
	for i, d := range x.Shape {
		if !slices.Contains(axes, i) {
			shape = append(shape, d)
		}
	}
	return one(b.reshape(mean, shape...))
}
