// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"math"
	"slices"

	"npuemu/compiler/ir"
)

// The rules of this file are TensorFlow Lite's operators. Quantized ones give the bits of its reference kernels with
// two roundings (§6.9.2), but for FULLY_CONNECTED and the sums of int16 products, which it rounds once.

// multiplier is a real factor as q / 2^s, as TFLite's QuantizeMultiplier forms it.
func (b *builder) multiplier(real float64) (q, s int64) {
	if !(real >= 0) || math.IsInf(real, 0) {
		b.fail(fixScales, nil, "the scale %g is below 0 or not finite", real)
	}
	frac, exp := math.Frexp(real)
	q = int64(math.Round(frac * (1 << 31)))
	if q == 1<<31 {
		q, exp = q/2, exp+1
	}
	if exp < -31 {
		q, exp = 0, 0
	}
	if exp > 30 {
		b.fail(fixScales, nil, "the scale %g is above 2³⁰", real)
	}
	return q, int64(31 - exp)
}

// multipliers are the attributes of rounding twice by those factors.
func (b *builder) multipliers(factors ...float64) ir.Attrs {
	m, s := make([]int64, len(factors)), make([]int64, len(factors))
	for i, f := range factors {
		m[i], s[i] = b.multiplier(f)
	}
	return ir.Attrs{"rounding": "two", "multipliers": m, "shifts": s}
}

func quantizedType(t ir.Type) bool { return t == ir.Int8 || t == ir.Uint8 || t == ir.Int16 }

// scaleOf is the only scale and zero point of a quantized tensor.
func (b *builder) scaleOf(t *ir.Tensor) (scale float64, zero int) {
	if t.Quant == nil || len(t.Quant.Scales) != 1 {
		b.fail(fixScales, t, "it is not quantized with one scale")
	}
	s := t.Quant.Scales[0]
	if !(s > 0) || math.IsInf(float64(s), 0) {
		b.fail(fixScales, t, "the scale %g is not finite and above 0", s)
	}
	if len(t.Quant.Zeros) == 1 {
		zero = int(t.Quant.Zeros[0])
	}
	return float64(s), zero
}

// activation is the clamp of a fused activation on a quantized output, lo to hi.
func (b *builder) activation(n *ir.Node, y *ir.Tensor) (lo, hi int64) {
	lo, hi = y.Type.Range()
	scale, zero := b.scaleOf(y)
	at := func(f float32) int64 {
		return int64(zero) + int64(math.Round(float64(f/float32(scale))))
	}
	switch act := n.Attrs.Int("activation", 0); act {
	case 0:
	case 1:
		lo = max(lo, at(0))
	case 2:
		lo, hi = max(lo, at(-1)), min(hi, at(1))
	case 3:
		lo, hi = max(lo, at(0)), min(hi, at(6))
	default:
		b.fail(replaceNode, nil, "activation %d of TensorFlow Lite is not supported", act)
	}
	return lo, hi
}

// activated applies a fused activation in floating point.
func (b *builder) activated(n *ir.Node, x *ir.Tensor) *ir.Tensor {
	switch act := n.Attrs.Int("activation", 0); act {
	case 0:
		return x
	case 1:
		return b.op1("relu", x)
	case 2:
		return b.clip(x, -1, 1)
	case 3:
		return b.op1("relu6", x)
	case 4:
		return b.op1("tanh", x)
	default:
		b.fail(replaceNode, nil, "activation %d of TensorFlow Lite is not supported", act)
		return nil
	}
}

// tflWindow is the geometry of a window of kernel h, w; padding 0 is SAME, 1 VALID.
func (b *builder) tflWindow(n *ir.Node, x *ir.Tensor, h, w int) spatial {
	if len(x.Shape) != 4 {
		b.fail(fixShapes, x, "x %v is no image", x.Shape)
	}
	attrs := ir.Attrs{"strides": ir.IntList(n.Attrs.Int("stride_h", 1), n.Attrs.Int("stride_w", 1)), "auto_pad": "SAME_UPPER"}
	if n.Attrs.Has("dilation_h") {
		attrs["dilations"] = ir.IntList(n.Attrs.Int("dilation_h", 1), n.Attrs.Int("dilation_w", 1))
	}
	if n.Attrs.Int("padding", 0) == 1 {
		attrs["auto_pad"] = "VALID"
	}
	return b.spatialOf(&ir.Node{Name: n.Name, Op: n.Op, Attrs: attrs}, x.Shape[1:3], []int{h, w}, false)
}

// tflProduct are the attributes of a product with weights w of that many channels, along an axis of w.
func (b *builder) tflProduct(n *ir.Node, zeroX, zeroW string, axis, channels int) ir.Attrs {
	x, w, y := n.Inputs[0], n.Inputs[1], n.Outputs[0]
	if x.Type.Float() {
		return ir.Attrs{"rounding": "none"}
	}
	if !quantizedType(x.Type) || w.Quant == nil {
		b.fail(replaceNode, w, "a product of %s and %s is not supported", x.Type, w.Type)
	}
	_, xz := b.scaleOf(x)
	_, yz := b.scaleOf(y)
	factors := b.factors(n, x, w, axis, channels)
	attrs := ir.Attrs{"rounding": "none"}
	if x.Type != ir.Int16 {
		attrs = b.multipliers(factors...)
		attrs["zero_y"] = int64(yz)
		attrs["lo"], attrs["hi"] = b.activation(n, y)
	}
	attrs[zeroX] = int64(xz)
	if len(w.Quant.Zeros) > 0 {
		attrs[zeroW] = slices.Clone(w.Quant.Zeros)
	}
	return attrs
}

// factors are what the sums of a quantized product are scaled by: one, or one for each of the channels along an axis of w.
func (b *builder) factors(n *ir.Node, x, w *ir.Tensor, axis, channels int) []float64 {
	xs, _ := b.scaleOf(x)
	ys, _ := b.scaleOf(n.Outputs[0])
	scales := w.Quant.Scales
	if len(scales) != 1 && (len(scales) != channels || w.Quant.Axis != axis) {
		b.fail(fixScales, nil, "%d scales along axis %d of the weights", len(scales), w.Quant.Axis)
	}
	factors := make([]float64, len(scales))
	for i, s := range scales {
		factors[i] = xs * float64(s) / ys
	}
	if len(scales) == 1 && n.Op == "tfl.FULLY_CONNECTED" { // TFLite computes this product in fp32
		factors[0] = float64(float32(xs)*scales[0]) / ys
	}
	return factors
}

// tflSum makes the sums of a product with op, of x and w, which are n's first two inputs or made of them, and scales them.
func (b *builder) tflSum(n *ir.Node, op string, shape []int, attrs ir.Attrs, x, w *ir.Tensor, axis int) *ir.Tensor {
	from, weights, bias := n.Inputs[0], n.Inputs[1], n.Input(2)
	in := []*ir.Tensor{x, w}
	if seed := b.seed32(from, weights, bias, axis); seed != nil {
		in = append(in, seed)
	}
	if from.Type != ir.Int16 {
		return b.emit(op, from.Type, shape, attrs, in...)
	}
	factors := b.factors(n, from, weights, axis, shape[len(shape)-1])
	return b.wideProduct(n, b.emit(op, ir.Int32, shape, attrs, in...), factors, bias)
}

// finish applies a fused activation to a floating-point result; of integers the clamp was it.
func (b *builder) finish(n *ir.Node, y *ir.Tensor) []*ir.Tensor {
	if y.Type.Float() {
		y = b.activated(n, y)
	}
	return one(y)
}

func tflConv(depthwise bool) rule {
	return func(b *builder, n *ir.Node) []*ir.Tensor {
		x, w := n.Inputs[0], n.Inputs[1]
		if len(w.Shape) != 4 {
			b.fail(fixShapes, w, "weights %v", w.Shape)
		}
		b.needLater(w)
		groups, axis := 1, 0
		g := b.tflWindow(n, x, w.Shape[1], w.Shape[2])
		if depthwise {
			groups, axis = x.Shape[3], 3
		} else if w.Shape[3] > 0 && x.Shape[3]%w.Shape[3] == 0 {
			groups = x.Shape[3] / w.Shape[3]
		}
		attrs := b.tflProduct(n, "zero_x", "zeros_w", axis, w.Shape[axis])
		if depthwise {
			w = b.transpose(w, 3, 1, 2, 0)
		}
		for k, v := range g.attrs2() {
			attrs[k] = v
		}
		attrs["groups"] = int64(groups)
		return b.finish(n, b.tflSum(n, "npu.conv", []int{x.Shape[0], g.out[0], g.out[1], w.Shape[0]}, attrs, x, w, axis))
	}
}

// tflTransposeConv spreads x by the strides and convolves it with the turned kernel. The shape of the output is that which
// the model states, whether or not the input that has it is a constant.
func tflTransposeConv(b *builder, n *ir.Node) []*ir.Tensor {
	x, w, y := n.Inputs[2], n.Inputs[1], n.Outputs[0]
	if len(x.Shape) != 4 || len(w.Shape) != 4 || len(y.Shape) != 4 || y.Shape[0] != x.Shape[0] || y.Shape[3] != w.Shape[0] {
		b.fail(fixShapes, y, "x %v and weights %v do not make %v", x.Shape, w.Shape, y.Shape)
	}
	b.needLater(w)
	m := &ir.Node{Name: n.Name, Op: n.Op, Inputs: []*ir.Tensor{x, w}, Outputs: n.Outputs, Attrs: n.Attrs}
	if n.Input(3) != nil {
		m.Inputs = append(m.Inputs, n.Inputs[3])
	}
	attrs := b.tflProduct(m, "zero_x", "zeros_w", 0, w.Shape[0])
	zero := attrs.Int("zero_x", 0)
	starts, steps, pads := make([]int, 4), []int{1, 1, 1, 1}, make([]int, 8)
	spread := x
	for i, stride := range []int{n.Attrs.Int("stride_h", 1), n.Attrs.Int("stride_w", 1)} {
		a, k, size := 1+i, w.Shape[1+i], y.Shape[1+i]
		if stride < 1 || stride > 1<<16 || k < 1 || size < 1 || x.Shape[a] < 1 {
			b.fail(fixValue, x, "stride %d, kernel %v, x %v", stride, w.Shape, x.Shape)
		}
		spread = b.spread(spread, a, stride, zero)
		pad := 0
		if n.Attrs.Int("padding", 0) == 0 {
			pad = max((size-1)/stride*stride+k-size, 0) / 2
		}
		starts[a], steps[a] = k-1, -1
		pads[a], pads[4+a] = k-1-pad, size+pad-spread.Shape[a]
		if pads[a] < 0 {
			b.fail(fixValue, w, "kernel %v does not reach over the stride %d", w.Shape, stride)
		}
		if cut := -pads[4+a]; cut > 0 {
			if cut >= spread.Shape[a] {
				b.fail(fixShapes, x, "output %v is too small for x %v", y.Shape, x.Shape)
			}
			spread, pads[4+a] = b.part(spread, a, 0, spread.Shape[a]-cut), 0
		}
	}
	attrs["strides"], attrs["pads"], attrs["groups"] = ir.IntList(1, 1), ir.IntList(0, 0, 0, 0), int64(1)
	spread = b.pad(spread, pads, zero, 0)
	turned := b.slice(w, starts, w.Shape, steps)
	return b.finish(n, b.tflSum(m, "npu.conv", y.Shape, attrs, spread, turned, 0))
}

func tflFullyConnected(b *builder, n *ir.Node) []*ir.Tensor {
	x, w := n.Inputs[0], n.Inputs[1]
	if len(w.Shape) != 2 || w.Shape[1] == 0 || n.Attrs.Int("weights_format", 0) != 0 {
		b.fail(fixShapes, w, "weights %v of format %d", w.Shape, n.Attrs.Int("weights_format", 0))
	}
	cols, k := w.Shape[0], w.Shape[1]
	rows := x.Elements() / k
	attrs := b.tflProduct(n, "zero_a", "zeros_b", 0, cols)
	attrs["trans_b"] = int64(1)
	if attrs["rounding"] == "two" {
		attrs["rounding"] = "one" // LiteRT rounds what this operator makes once
	}
	shape := []int{rows, cols}
	if n.Attrs.Int("keep_num_dims", 0) != 0 {
		shape = append(slices.Clone(x.Shape[:len(x.Shape)-1]), cols)
	}
	y := b.tflSum(n, "npu.gemm", []int{1, rows, cols}, attrs, b.reshape(x, 1, rows, k), b.reshape(w, 1, cols, k), 0)
	return b.finish(n, b.reshape(y, shape...))
}

func tflPool(kind string) rule {
	return func(b *builder, n *ir.Node) []*ir.Tensor {
		x, y := n.Inputs[0], n.Outputs[0]
		h, w := n.Attrs.Int("filter_h", 1), n.Attrs.Int("filter_w", 1)
		g := b.tflWindow(n, x, h, w)
		attrs := g.attrs2()
		attrs["kind"], attrs["kernel"] = kind, ir.IntList(h, w)
		if !x.Type.Float() {
			attrs["lo"], attrs["hi"] = b.activation(n, y)
		}
		return b.finish(n, b.emit("npu.pool", x.Type, []int{x.Shape[0], g.out[0], g.out[1], x.Shape[3]}, attrs, x))
	}
}

func tflBinary(op string) rule {
	return func(b *builder, n *ir.Node) []*ir.Tensor {
		x, y, out := n.Inputs[0], n.Inputs[1], n.Outputs[0]
		if x.Type != y.Type {
			b.fail(fixTypes, y, "the operands are %s and %s", x.Type, y.Type)
		}
		if !quantizedType(x.Type) {
			return b.finish(n, b.op2(op, x, y))
		}
		if x.Type == ir.Int16 {
			return one(b.wideBinary(n, op))
		}
		xs, xz := b.scaleOf(x)
		ys, yz := b.scaleOf(y)
		os, oz := b.scaleOf(out)
		shape, ok := ir.Broadcast(x.Shape, y.Shape)
		if !ok {
			b.fail(fixShapes, y, "shapes %v and %v cannot be broadcast", x.Shape, y.Shape)
		}
		var attrs ir.Attrs
		name := "npu.qmul"
		if op == "mul" {
			attrs = b.multipliers(mulScale(xs, ys, os))
		} else {
			const left = 20
			twice := 2 * max(xs, ys)
			attrs = b.multipliers(xs/twice, ys/twice, twice/((1<<left)*os))
			attrs["left_shift"] = int64(left)
			name = "npu.qadd"
			if op == "sub" {
				attrs["sub"] = int64(1)
			}
		}
		attrs["zeros"] = ir.IntList(xz, yz, oz)
		attrs["lo"], attrs["hi"] = b.activation(n, out)
		return one(b.emit(name, x.Type, shape, attrs, x, y))
	}
}

// mulScale is the factor of MUL, which TFLite computes in fp32.
func mulScale(x, y, out float64) float64 { return float64(float32(x) * float32(y) / float32(out)) }

// tflRescale scales integers from the input's quantization to the output's and clamps them.
func (b *builder) tflRescale(n *ir.Node, x *ir.Tensor, factor float64, lo, hi int64) *ir.Tensor {
	y := n.Outputs[0]
	_, xz := b.scaleOf(x)
	_, yz := b.scaleOf(y)
	if y.Type.Bits() > 8 {
		return b.place(b.scaleTwice(b.minus(x, xz), factor), y.Type, yz, lo, hi)
	}
	attrs := b.multipliers(factor)
	attrs["zero_x"], attrs["zero_y"], attrs["lo"], attrs["hi"] = int64(xz), int64(yz), lo, hi
	return b.emit("npu.requantize", y.Type, x.Shape, attrs, x)
}

func (b *builder) ratio(x, y *ir.Tensor) float64 {
	xs, _ := b.scaleOf(x)
	ys, _ := b.scaleOf(y)
	return xs / ys
}

func tflRelu(act int64) rule {
	return func(b *builder, n *ir.Node) []*ir.Tensor {
		x, y := n.Inputs[0], n.Outputs[0]
		m := &ir.Node{Name: n.Name, Op: n.Op, Attrs: ir.Attrs{"activation": act}}
		if x.Type.Float() {
			return one(b.activated(m, x))
		}
		lo, hi := b.activation(m, y)
		xs, _ := b.scaleOf(x)
		ys, _ := b.scaleOf(y)
		return one(b.tflRescale(n, x, float64(float32(xs)/float32(ys)), lo, hi)) // which TFLite computes in fp32
	}
}

func tflLeakyRelu(b *builder, n *ir.Node) []*ir.Tensor {
	x, y, alpha := n.Inputs[0], n.Outputs[0], n.Attrs.Float("alpha", 0)
	if x.Type.Float() {
		return one(b.negative(x, b.scalar2("mul", x, alpha)))
	}
	if alpha < 0 {
		b.fail(replaceNode, nil, "alpha %g of a quantized tensor is below 0", alpha)
	}
	lo, hi := y.Type.Range()
	_, xz := b.scaleOf(x)
	xs, _ := b.scaleOf(x)
	ys, _ := b.scaleOf(y)
	// TFLite computes these in fp32.
	r, slope := float64(float32(xs)/float32(ys)), float64(float32(xs)*alpha/float32(ys))
	below, above := b.tflRescale(n, x, slope, lo, hi), b.tflRescale(n, x, r, lo, hi)
	return one(b.choose(b.op2("lt", x, b.ints(x.Type, nil, xz)), below, above))
}

// tflQuantize rounds ties away from 0, as std::round does.
func tflQuantize(b *builder, n *ir.Node) []*ir.Tensor {
	x, y := n.Inputs[0], n.Outputs[0]
	if !x.Type.Float() {
		lo, hi := y.Type.Range()
		return one(b.tflRescale(n, x, b.ratio(x, y), lo, hi))
	}
	scale, zero := b.scaleOf(y)
	return one(b.tflRound(b.scalar2("div", x, float32(scale)), y.Type, zero))
}

// tflRound is x to the nearest integer, ties away from 0, plus zero, saturated. What is left of x behind its whole part is exact.
func (b *builder) tflRound(x *ir.Tensor, typ ir.Type, zero int) *ir.Tensor {
	trunc := func(v *ir.Tensor) *ir.Tensor {
		return b.emit("npu.cast", ir.Int32, v.Shape, ir.Attrs{"trunc": int64(1)}, v)
	}
	whole := trunc(x)
	rest := b.op2("sub", x, b.cast(whole, x.Type))
	v := b.op2("add_sat", whole, trunc(b.op2("add", rest, rest)))
	return b.cast(b.op2("add_sat", v, b.ints(ir.Int32, nil, zero)), typ)
}

func (b *builder) tflDequantize(x *ir.Tensor) *ir.Tensor {
	scale, zero := b.scaleOf(x)
	return b.emit("npu.dequantize", ir.Float32, x.Shape, ir.Attrs{"scales": []float32{float32(scale)}, "zeros": ir.IntList(zero), "axis": int64(0)}, x)
}

func tflDequantize(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	if x.Type.Float() {
		return one(b.cast(x, n.Outputs[0].Type))
	}
	return one(b.tflDequantize(x))
}

func tflConcat(b *builder, n *ir.Node) []*ir.Tensor {
	x, y := n.Inputs[0], n.Outputs[0]
	if quantizedType(x.Type) {
		for _, t := range n.Inputs {
			if b.ratio(t, y) != 1 {
				b.fail(replaceNode, nil, "operands of different scales are not supported")
			}
		}
	}
	return b.finish(n, b.concat(b.axis(n.Attrs.Int("axis", 0), len(x.Shape)), n.Inputs...))
}

// tflReshape makes the shape that the model says the output has.
func tflReshape(b *builder, n *ir.Node) []*ir.Tensor {
	x, y := n.Inputs[0], n.Outputs[0]
	return one(b.emit("npu.reshape", x.Type, y.Shape, nil, x))
}

func tflTranspose(b *builder, n *ir.Node) []*ir.Tensor {
	x, perm := n.Inputs[0], b.constInts(1)
	return ruleTranspose(b, &ir.Node{Name: n.Name, Op: n.Op, Inputs: []*ir.Tensor{x}, Attrs: ir.Attrs{"perm": ir.IntList(perm...)}})
}

func tflPad(b *builder, n *ir.Node) []*ir.Tensor {
	x, list := n.Inputs[0], b.constInts(1)
	k := len(x.Shape)
	if len(list) != 2*k || slices.Min(append([]int{0}, list...)) < 0 || slices.Max(append([]int{0}, list...)) > 1<<24 {
		b.fail(fixValue, x, "paddings %v of %v", list, x.Shape)
	}
	pads := make([]int, 2*k)
	for i := range k {
		pads[i], pads[k+i] = list[2*i], list[2*i+1]
	}
	zero, value := 0, float32(0)
	if quantizedType(x.Type) {
		_, zero = b.scaleOf(n.Outputs[0])
	}
	if n.Input(2) != nil {
		if x.Type.Float() {
			value = b.constFloats(2)[0]
		} else {
			zero = b.constInts(2)[0]
		}
	}
	y := b.pad(x, pads, zero, value)
	if y == x {
		y = b.reshapeCopy(x)
	}
	return one(y)
}

func tflSlice(b *builder, n *ir.Node) []*ir.Tensor {
	x, begin, size := n.Inputs[0], b.constInts(1), b.constInts(2)
	if len(begin) != len(x.Shape) || len(size) != len(x.Shape) {
		b.fail(fixValue, x, "begin %v and size %v of %v", begin, size, x.Shape)
	}
	sizes := slices.Clone(size)
	for i := range sizes {
		if sizes[i] == -1 {
			sizes[i] = x.Shape[i] - begin[i]
		}
		if begin[i] < 0 || sizes[i] < 0 || begin[i] > x.Shape[i]-sizes[i] {
			b.fail(fixValue, x, "begin %v and size %v of %v", begin, size, x.Shape)
		}
	}
	return one(b.slice(x, begin, sizes, slices.Repeat([]int{1}, len(sizes))))
}

// tflStridedSlice takes begin, end and strides, with masks of axes whose begin or end is that of the axis, or that go.
func tflStridedSlice(b *builder, n *ir.Node) []*ir.Tensor {
	x, begin, end, step := n.Inputs[0], b.constInts(1), b.constInts(2), b.constInts(3)
	k := len(x.Shape)
	if n.Attrs.Int("ellipsis_mask", 0) != 0 || n.Attrs.Int("new_axis_mask", 0) != 0 {
		b.fail(replaceNode, nil, "masks of an ellipsis and of new axes are not supported")
	}
	if len(begin) > k || len(end) != len(begin) || len(step) != len(begin) {
		b.fail(fixValue, x, "begin %v, end %v and strides %v of %v", begin, end, step, x.Shape)
	}
	starts, sizes, steps := make([]int, k), slices.Clone(x.Shape), slices.Repeat([]int{1}, k)
	var shape []int
	for i, d := range x.Shape {
		if i < len(begin) {
			has := func(mask string) bool { return n.Attrs.Int(mask, 0)>>i&1 != 0 }
			first, last, by := begin[i], end[i], step[i]
			if by == 0 || by == math.MinInt32 {
				b.fail(fixValue, nil, "stride %d of axis %d", by, i)
			}
			low, high := 0, d // what first and last are clamped to
			if by < 0 {
				low, high = -1, d-1
			}
			at := func(v int) int {
				if v < 0 {
					v += d
				}
				return min(max(v, low), high)
			}
			first, last = at(first), at(last)
			if has("begin_mask") {
				first = low
				if by < 0 {
					first = high
				}
			}
			if has("end_mask") {
				last = high
				if by < 0 {
					last = low
				}
			}
			if has("shrink_axis_mask") {
				if by < 0 || first >= d {
					b.fail(fixValue, nil, "index %d of axis %d, which has %d", begin[i], i, d)
				}
				last, by = first+1, 1
			}
			count := 0
			if by > 0 && last > first {
				count = (last - first + by - 1) / by
			} else if by < 0 && first > last {
				count = (first - last - by - 1) / -by
			}
			starts[i], sizes[i], steps[i] = first, count, by
			if has("shrink_axis_mask") {
				continue
			}
		}
		shape = append(shape, sizes[i])
	}
	return one(b.reshapeCopy(b.reshape(b.slice(x, starts, sizes, steps), shape...)))
}

func tfliteRules() map[string]rule {
	return map[string]rule{
		"tfl.CONV_2D": tflConv(false), "tfl.DEPTHWISE_CONV_2D": tflConv(true), "tfl.FULLY_CONNECTED": tflFullyConnected,
		"tfl.AVERAGE_POOL_2D": tflPool("avg"), "tfl.MAX_POOL_2D": tflPool("max"), "tfl.ADD": tflBinary("add"), "tfl.SUB": tflBinary("sub"),
		"tfl.MUL": tflBinary("mul"), "tfl.RELU": tflRelu(1), "tfl.RELU6": tflRelu(3), "tfl.LEAKY_RELU": tflLeakyRelu, "tfl.QUANTIZE": tflQuantize,
		"tfl.DEQUANTIZE": tflDequantize, "tfl.SOFTMAX": tflSoftmax, "tfl.MEAN": tflMean,
		"tfl.LOGISTIC": tflReal("sigmoid", func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }), "tfl.TANH": tflReal("tanh", math.Tanh),
		"tfl.HARD_SWISH": tflHardSwish, "tfl.EXP": tflReal("exp", math.Exp), "tfl.TRANSPOSE_CONV": tflTransposeConv, "tfl.STRIDED_SLICE": tflStridedSlice,
		"tfl.SPLIT": tflSplit(false), "tfl.UNPACK": tflSplit(true), "tfl.PACK": tflPack, "tfl.DEPTH_TO_SPACE": tflBlocks(true), "tfl.SPACE_TO_DEPTH": tflBlocks(false),
		"tfl.RESIZE_NEAREST_NEIGHBOR": tflResize(false), "tfl.RESIZE_BILINEAR": tflResize(true), "tfl.MAXIMUM": tflExtreme("max"), "tfl.MINIMUM": tflExtreme("min"), "tfl.RELU_N1_TO_1": tflRelu(2),
		"tfl.SVDF": tflSVDF, "tfl.UNIDIRECTIONAL_SEQUENCE_LSTM": tflLSTM,
		"tfl.CONCATENATION": tflConcat, "tfl.RESHAPE": tflReshape, "tfl.SQUEEZE": tflReshape, "tfl.EXPAND_DIMS": tflReshape, "tfl.TRANSPOSE": tflTranspose,
		"tfl.PAD": tflPad, "tfl.PADV2": tflPad, "tfl.SLICE": tflSlice,
	}
}
