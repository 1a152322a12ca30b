// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"slices"

	"npuemu/compiler/ir"
	"npuemu/core/num"
)

// zeros are the zero points of an optional input, which must be a constant: count of them, 0 if it is left out.
func (b *builder) zeros(i, count int) []int {
	z := b.constInts(i)
	if z == nil {
		return make([]int, count)
	}
	if len(z) == 1 && count > 1 {
		return slices.Repeat(z, count)
	}
	if len(z) != count {
		b.fail(fixScales, nil, "%d zero points for %d scales", len(z), count)
	}
	return z
}

// perAxis broadcasts scale or zero point t to x: a scalar, one for each index of an axis, or blocks.
func (b *builder) perAxis(t, x *ir.Tensor, axis, block int) *ir.Tensor {
	switch {
	case t.Elements() == 1 && len(t.Shape) <= 1:
		return b.reshape(t)
	case len(t.Shape) == 1:
		shape := slices.Repeat([]int{1}, len(x.Shape))
		shape[axis] = t.Elements()
		return b.reshape(t, shape...)
	case block == 0 || len(t.Shape) != len(x.Shape):
		b.fail(fixScales, t, "a scale %v for %v", t.Shape, x.Shape)
	}
	blocks := t.Shape[axis]
	split := slices.Insert(slices.Clone(t.Shape), axis+1, 1)
	wide := slices.Insert(slices.Clone(t.Shape), axis+1, block)
	full := slices.Clone(t.Shape)
	full[axis] = blocks * block
	return b.part(b.reshape(b.expand(b.reshape(t, split...), wide), full...), axis, 0, x.Shape[axis])
}

func (b *builder) quantAxis(n *ir.Node, x, scale *ir.Tensor) int {
	if scale.Elements() == 1 && len(scale.Shape) <= 1 {
		return 0
	}
	return b.axis(n.Attrs.Int("axis", 1), len(x.Shape))
}

func ruleQuantize(b *builder, n *ir.Node) []*ir.Tensor {
	x, scale, zero := n.Inputs[0], n.Inputs[1], n.Input(2)
	typ := ir.Uint8
	if zero != nil {
		typ = zero.Type
	} else if t, ok := elementTypes[n.Attrs.Int("output_dtype", 0)]; ok {
		typ = t
	}
	axis, block := b.quantAxis(n, x, scale), n.Attrs.Int("block_size", 0)
	if typ.Float() {
		y := b.op2("div", x, b.perAxis(b.cast(scale, x.Type), x, axis, block))
		attrs := ir.Attrs{}
		if n.Attrs.Int("saturate", 1) == 0 {
			attrs["saturate"] = int64(0)
		}
		return one(b.emit("npu.cast", typ, x.Shape, attrs, y))
	}
	lo, hi := typ.Range()
	if scale.Const() && (zero == nil || zero.Const()) && len(scale.Shape) <= 1 && x.Type.Float() {
		scales := b.constFloats(1)
		return one(b.emit("npu.quantize", typ, x.Shape, ir.Attrs{
			"scales": scales, "zeros": ir.IntList(b.zeros(2, len(scales))...), "axis": int64(axis), "lo": lo, "hi": hi,
		}, x))
	}
	y := b.op2("div", b.cast(x, ir.Float32), b.cast(b.perAxis(scale, x, axis, block), ir.Float32))
	v := b.cast(y, ir.Int32)
	if zero != nil {
		v = b.op2("add_sat", v, b.cast(b.perAxis(zero, x, axis, block), ir.Int32))
	}
	return one(b.cast(v, typ))
}

func ruleDequantize(b *builder, n *ir.Node) []*ir.Tensor {
	x, scale, zero := n.Inputs[0], n.Inputs[1], n.Input(2)
	typ := scale.Type
	if t, ok := elementTypes[n.Attrs.Int("output_dtype", 0)]; ok {
		typ = t
	}
	axis, block := b.quantAxis(n, x, scale), n.Attrs.Int("block_size", 0)
	if !x.Type.Float() && scale.Const() && (zero == nil || zero.Const()) && len(scale.Shape) <= 1 {
		scales := b.constFloats(1)
		return one(b.emit("npu.dequantize", typ, x.Shape, ir.Attrs{
			"scales": scales, "zeros": ir.IntList(b.zeros(2, len(scales))...), "axis": int64(axis),
		}, x))
	}
	v := b.cast(x, ir.Float32)
	if !x.Type.Float() && zero != nil {
		v = b.cast(b.op2("sub", b.cast(x, ir.Int32), b.cast(b.perAxis(zero, x, axis, block), ir.Int32)), ir.Float32)
	}
	return one(b.cast(b.op2("mul", v, b.cast(b.perAxis(scale, x, axis, block), ir.Float32)), typ))
}

// clamp is the range of a quantized result: the attributes lo and hi that QDQ fusion left, or the type's.
func clamp(n *ir.Node, typ ir.Type) (lo, hi int64) {
	lo, hi = typ.Range()
	return int64(n.Attrs.Int("lo", int(lo))), int64(n.Attrs.Int("hi", int(hi)))
}

// requantized are the attributes of an accumulator of scales a·w[i] that becomes typ with scale y (§6.9.3).
func (b *builder) requantized(n *ir.Node, typ ir.Type, a float32, w []float32, y float32, zero int) ir.Attrs {
	scales := make([]float32, len(w))
	for i := range w {
		scales[i] = num.Div32(num.Mul32(a, w[i]), y)
		if !(scales[i] > 0) || scales[i] > 3e38 {
			b.fail(fixScales, nil, "the scale %g·%g/%g is not finite and above 0 (§6.9)", a, w[i], y)
		}
	}
	lo, hi := clamp(n, typ)
	return ir.Attrs{"rounding": "fp32", "scales": scales, "zero_y": int64(zero), "lo": lo, "hi": hi}
}

// scale1 is the only entry of a constant scale.
func (b *builder) scale1(i int) float32 {
	s := b.constFloats(i)
	if len(s) != 1 {
		b.fail(fixScales, nil, "input %d has %d scales, not 1", i, len(s))
	}
	return s[0]
}

func ruleQLinearConv(b *builder, n *ir.Node) []*ir.Tensor {
	x, w := n.Inputs[0], n.Inputs[3]
	typ := n.Inputs[7].Type
	ws := b.constFloats(4)
	attrs := b.requantized(n, typ, b.scale1(1), ws, b.scale1(6), b.zeros(7, 1)[0])
	attrs["zero_x"] = int64(b.zeros(2, 1)[0])
	attrs["zeros_w"] = ir.IntList(b.zeros(5, len(ws))...)
	var bias *ir.Tensor
	if t := n.Input(8); t != nil {
		b.needLater(t)
		bias = t
	}
	return one(b.conv(n, x, w, product{typ: typ, attrs: attrs, bias: bias}))
}

func ruleConvInteger(b *builder, n *ir.Node) []*ir.Tensor {
	x, w := n.Inputs[0], n.Inputs[1]
	attrs := ir.Attrs{"rounding": "none", "zero_x": int64(b.zeros(2, 1)[0])}
	if z := n.Input(3); z != nil {
		attrs["zeros_w"] = ir.IntList(b.constInts(3)...)
	}
	return one(b.conv(n, x, w, product{typ: ir.Int32, attrs: attrs}))
}

// zeroPoints are those of the activations and weights of a product, which must be constants.
func (b *builder) zeroPoints(attrs ir.Attrs, a, w int) {
	za := b.zeros(a, max(1, len(b.constInts(a))))
	if len(za) != 1 && slices.Min(za) != slices.Max(za) {
		b.fail(replaceNode, nil, "a zero point for each row is not supported")
	}
	attrs["zero_a"] = int64(za[0])
	attrs["zeros_b"] = ir.IntList(b.zeros(w, max(1, len(b.constInts(w))))...)
}

func ruleMatMulInteger(b *builder, n *ir.Node) []*ir.Tensor {
	attrs := ir.Attrs{"rounding": "none"}
	b.zeroPoints(attrs, 2, 3)
	return one(b.matmul(n.Inputs[0], n.Inputs[1], product{typ: ir.Int32, attrs: attrs}))
}

func ruleQLinearMatMul(b *builder, n *ir.Node) []*ir.Tensor {
	typ := n.Inputs[7].Type
	attrs := b.requantized(n, typ, b.scale1(1), b.constFloats(4), b.scale1(6), b.zeros(7, 1)[0])
	b.zeroPoints(attrs, 2, 5)
	var bias *ir.Tensor
	if t := n.Input(8); t != nil { // QDQ fusion puts it there
		b.needLater(t)
		bias = b.reshape(t, t.Elements())
	}
	return one(b.matmul(n.Inputs[0], n.Inputs[3], product{typ: typ, attrs: attrs, bias: bias}))
}

// ruleQGemm is com.microsoft's QGemm: of integers, with a bias of int32; without a scale of the result it is fp32.
func ruleQGemm(b *builder, n *ir.Node) []*ir.Tensor {
	x, w := n.Inputs[0], n.Inputs[3]
	if len(x.Shape) != 2 || len(w.Shape) != 2 {
		b.fail(fixShapes, w, "%v and %v are no matrices", x.Shape, w.Shape)
	}
	if n.Attrs.Int("transA", 0) != 0 {
		x = b.transpose(x, 1, 0)
	}
	if n.Attrs.Int("transB", 0) != 0 {
		w = b.transpose(w, 1, 0)
	}
	a, ws := num.Mul32(n.Attrs.Float("alpha", 1), b.scale1(1)), b.constFloats(4)
	var bias *ir.Tensor
	if t := n.Input(6); t != nil {
		b.needLater(t)
		bias = b.reshape(b.expand(t, []int{1, w.Shape[1]}), w.Shape[1])
	}
	if n.Input(7) == nil {
		attrs := ir.Attrs{"rounding": "none"}
		b.zeroPoints(attrs, 2, 5)
		acc := b.matmul(x, w, product{typ: ir.Int32, attrs: attrs, bias: bias})
		for i := range ws {
			ws[i] = num.Mul32(a, ws[i])
		}
		return one(b.op2("mul", b.cast(acc, ir.Float32), b.floats(ir.Float32, []int{len(ws)}, ws...)))
	}
	typ, zero := x.Type, 0
	if z := n.Input(8); z != nil {
		typ, zero = z.Type, b.zeros(8, 1)[0]
	}
	attrs := b.requantized(n, typ, a, ws, b.scale1(7), zero)
	b.zeroPoints(attrs, 2, 5)
	return one(b.matmul(x, w, product{typ: typ, attrs: attrs, bias: bias}))
}

func ruleDynamicQuantize(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	flat := b.reshape(x, x.Elements())
	zero := b.floats(ir.Float32, nil, 0)
	top := b.op2("max", b.reshape(b.reduce("max", flat, []int{0})), zero)
	low := b.op2("min", b.reshape(b.reduce("min", flat, []int{0})), zero)
	scale := b.scalar2("div", b.op2("sub", top, low), 255)
	z := b.clip(b.op2("div", b.op2("sub", zero, low), scale), 0, 255)
	zi := b.cast(z, ir.Int32)
	q := b.op2("add_sat", b.cast(b.op2("div", x, scale), ir.Int32), zi)
	return []*ir.Tensor{b.cast(q, ir.Uint8), scale, b.cast(zi, ir.Uint8)}
}

// dequantized is x of a constant scale and zero point; quantized is its inverse.
func (b *builder) dequantized(x *ir.Tensor, scale, zero int) *ir.Tensor {
	return b.emit("npu.dequantize", ir.Float32, x.Shape, ir.Attrs{
		"scales": []float32{b.scale1(scale)}, "zeros": ir.IntList(b.zeros(zero, 1)...), "axis": int64(0),
	}, x)
}

func (b *builder) quantized(n *ir.Node, x *ir.Tensor, typ ir.Type, scale, zero int) *ir.Tensor {
	lo, hi := clamp(n, typ)
	return b.emit("npu.quantize", typ, x.Shape, ir.Attrs{
		"scales": []float32{b.scale1(scale)}, "zeros": ir.IntList(b.zeros(zero, 1)...), "axis": int64(0), "lo": lo, "hi": hi,
	}, x)
}

// ruleQLinearAdd is com.microsoft's QLinearAdd in the arithmetic of ONNX Runtime (§6.18): quotients of scales, and a term that
// has all zero points.
func ruleQLinearAdd(b *builder, n *ir.Node) []*ir.Tensor {
	x, y := n.Inputs[0], n.Inputs[3]
	sy := b.scale1(6)
	f, g := num.Div32(b.scale1(1), sy), num.Div32(b.scale1(4), sy)
	zero := func(i int) float32 { return float32(b.zeros(i, 1)[0]) }
	c := num.Sub32(zero(7), num.FMA32(f, zero(2), num.Mul32(g, zero(5))))
	shape, ok := ir.Broadcast(x.Shape, y.Shape)
	if !ok {
		b.fail(fixShapes, y, "shapes %v and %v cannot be broadcast", x.Shape, y.Shape)
	}
	lo, hi := clamp(n, x.Type)
	return one(b.emit("npu.qadd", x.Type, shape, ir.Attrs{
		"rounding": "fp32", "scales": []float32{f, g, c}, "zeros": ir.IntList(0, 0, 0), "lo": lo, "hi": hi,
	}, x, y))
}

// ruleQLinearBinary is com.microsoft's QLinearMul, which computes in fp32.
func ruleQLinearBinary(op string) rule {
	return func(b *builder, n *ir.Node) []*ir.Tensor {
		x, y := b.dequantized(n.Inputs[0], 1, 2), b.dequantized(n.Inputs[3], 4, 5)
		return one(b.quantized(n, b.op2(op, x, y), n.Inputs[0].Type, 6, 7))
	}
}

// ruleQLinearUnary is an activation between scales: x, its scale and zero point, those of the result.
func ruleQLinearUnary(f func(b *builder, n *ir.Node, x *ir.Tensor) *ir.Tensor) rule {
	return func(b *builder, n *ir.Node) []*ir.Tensor {
		return one(b.quantized(n, f(b, n, b.dequantized(n.Inputs[0], 1, 2)), n.Inputs[0].Type, 3, 4))
	}
}

func quantRules() map[string]rule {
	return map[string]rule{
		"QuantizeLinear": ruleQuantize, "DequantizeLinear": ruleDequantize, "QLinearConv": ruleQLinearConv, "ConvInteger": ruleConvInteger,
		"MatMulInteger": ruleMatMulInteger, "QLinearMatMul": ruleQLinearMatMul, "DynamicQuantizeLinear": ruleDynamicQuantize,
		"com.microsoft.QLinearAdd": ruleQLinearAdd, "com.microsoft.QLinearMul": ruleQLinearBinary("mul"),
		"com.microsoft.QLinearSigmoid": ruleQLinearUnary(func(b *builder, _ *ir.Node, x *ir.Tensor) *ir.Tensor { return b.op1("sigmoid", x) }),
		"com.microsoft.QLinearLeakyRelu": ruleQLinearUnary(func(b *builder, n *ir.Node, x *ir.Tensor) *ir.Tensor {
			return b.negative(x, b.scalar2("mul", x, n.Attrs.Float("alpha", 0.01)))
		}),
		"com.microsoft.QLinearGlobalAveragePool": ruleQLinearUnary(func(b *builder, n *ir.Node, x *ir.Tensor) *ir.Tensor {
			if n.Attrs.Int("channels_last", 0) != 0 {
				b.fail(replaceNode, nil, "channels_last is not supported")
			}
			k := len(x.Shape) - 2
			ones, none := slices.Repeat([]int{1}, k), make([]int, k)
			return b.pool("avg", x, spatial{x.Shape[2:], ones, ones, none, none, ones})
		}),
		"com.microsoft.QGemm":    ruleQGemm,
		"com.microsoft.FastGelu": unary("gelu_tanh"),
	}
}
