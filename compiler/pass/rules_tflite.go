// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"math"
	"slices"

	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
)

// The rules of this file are TensorFlow Lite's operators. Quantized ones give the bits of its reference kernels with
// two roundings (§6.9.2), except where a rule says otherwise.

// multiplier is a real factor as q / 2^s, as TFLite's QuantizeMultiplier forms it.
func (b *builder) multiplier(real float64) (q, s int64) {
	if !(real >= 0) || math.IsInf(real, 0) {
		b.fail("the scale %g is below 0 or not finite", real)
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
		b.fail("the scale %g is above 2³⁰", real)
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
		b.fail("tensor %q is not quantized with one scale", t.Name)
	}
	s := t.Quant.Scales[0]
	if !(s > 0) || math.IsInf(float64(s), 0) {
		b.fail("tensor %q: the scale %g is not finite and above 0", t.Name, s)
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
		b.fail("activation %d of TensorFlow Lite is not supported", act)
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
		b.fail("activation %d of TensorFlow Lite is not supported", act)
		return nil
	}
}

// tflWindow is the geometry of a window of kernel h, w; padding 0 is SAME, 1 VALID.
func (b *builder) tflWindow(n *ir.Node, x *ir.Tensor, h, w int) spatial {
	if len(x.Shape) != 4 {
		b.fail("x %v is no image", x.Shape)
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
	if !quantizedType(x.Type) || x.Type == ir.Int16 || w.Quant == nil {
		b.fail("a product of %s and %s is not supported", x.Type, w.Type)
	}
	xs, xz := b.scaleOf(x)
	ys, yz := b.scaleOf(y)
	scales := w.Quant.Scales
	if len(scales) != 1 && (len(scales) != channels || w.Quant.Axis != axis) {
		b.fail("%d scales along axis %d of the weights", len(scales), w.Quant.Axis)
	}
	factors := make([]float64, len(scales))
	for i, s := range scales {
		factors[i] = xs * float64(s) / ys
	}
	attrs := b.multipliers(factors...)
	attrs[zeroX], attrs["zero_y"] = int64(xz), int64(yz)
	if len(w.Quant.Zeros) > 0 {
		attrs[zeroW] = slices.Clone(w.Quant.Zeros)
	}
	attrs["lo"], attrs["hi"] = b.activation(n, y)
	return attrs
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
			b.fail("weights %v", w.Shape)
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
		in := []*ir.Tensor{x, w}
		if n.Input(2) != nil {
			in = append(in, n.Inputs[2])
		}
		return b.finish(n, b.emit("npu.conv", x.Type, []int{x.Shape[0], g.out[0], g.out[1], w.Shape[0]}, attrs, in...))
	}
}

func tflFullyConnected(b *builder, n *ir.Node) []*ir.Tensor {
	x, w := n.Inputs[0], n.Inputs[1]
	if len(w.Shape) != 2 || w.Shape[1] == 0 || n.Attrs.Int("weights_format", 0) != 0 {
		b.fail("weights %v of format %d", w.Shape, n.Attrs.Int("weights_format", 0))
	}
	cols, k := w.Shape[0], w.Shape[1]
	rows := x.Elements() / k
	attrs := b.tflProduct(n, "zero_a", "zeros_b", 0, cols)
	attrs["trans_b"] = int64(1)
	in := []*ir.Tensor{b.reshape(x, 1, rows, k), b.reshape(w, 1, cols, k)}
	if n.Input(2) != nil {
		in = append(in, n.Inputs[2])
	}
	shape := []int{rows, cols}
	if n.Attrs.Int("keep_num_dims", 0) != 0 {
		shape = append(slices.Clone(x.Shape[:len(x.Shape)-1]), cols)
	}
	y := b.emit("npu.gemm", x.Type, []int{1, rows, cols}, attrs, in...)
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
			b.fail("the operands are %s and %s", x.Type, y.Type)
		}
		if !quantizedType(x.Type) {
			return b.finish(n, b.op2(op, x, y))
		}
		if x.Type == ir.Int16 {
			b.fail("%s of int16 is not supported", op)
		}
		xs, xz := b.scaleOf(x)
		ys, yz := b.scaleOf(y)
		os, oz := b.scaleOf(out)
		shape, ok := ir.Broadcast(x.Shape, y.Shape)
		if !ok {
			b.fail("shapes %v and %v cannot be broadcast", x.Shape, y.Shape)
		}
		var attrs ir.Attrs
		name := "npu.qmul"
		if op == "mul" {
			attrs = b.multipliers(xs * ys / os)
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

// tflRescale scales integers from the input's quantization to the output's and clamps them.
func (b *builder) tflRescale(n *ir.Node, x *ir.Tensor, factor float64, lo, hi int64) *ir.Tensor {
	y := n.Outputs[0]
	_, xz := b.scaleOf(x)
	_, yz := b.scaleOf(y)
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
		return one(b.tflRescale(n, x, b.ratio(x, y), lo, hi))
	}
}

func tflLeakyRelu(b *builder, n *ir.Node) []*ir.Tensor {
	x, y, alpha := n.Inputs[0], n.Outputs[0], n.Attrs.Float("alpha", 0)
	if x.Type.Float() {
		return one(b.negative(x, b.scalar2("mul", x, alpha)))
	}
	lo, hi := y.Type.Range()
	_, xz := b.scaleOf(x)
	r := b.ratio(x, y)
	below, above := b.tflRescale(n, x, r*float64(alpha), lo, hi), b.tflRescale(n, x, r, lo, hi)
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

// tflTable is a function of int8 as TFLite's optimized kernels tabulate it: f of the real number in fp32, divided by the output's
// scale as a product with its inverse, rounded with ties away from 0. (Its reference kernels of Logistic and Tanh are of fixed
// point and may differ by one.)
func tflTable(op string, f func(x float64) float64) rule {
	return func(b *builder, n *ir.Node) []*ir.Tensor {
		x, y := n.Inputs[0], n.Outputs[0]
		if x.Type.Float() {
			return one(b.op1(op, x))
		}
		if x.Type.Bits() != 8 || y.Type != x.Type {
			b.fail("%s to %s is not supported", x.Type, y.Type)
		}
		xs, xz := b.scaleOf(x)
		ys, yz := b.scaleOf(y)
		inverse := 1 / float32(ys)
		lo, hi := y.Type.Range()
		t := make([]int64, 256)
		for i := range t {
			v := ref.Ints(x.Type, []byte{byte(i)}, 1)[0]
			real := float32(f(float64(float32(xs) * float32(v-int64(xz)))))
			t[i] = min(max(int64(math.Round(float64(real*inverse)))+int64(yz), lo), hi)
		}
		return one(b.emit("npu.table", y.Type, x.Shape, nil, x, b.constant(y.Type, []int{256}, ref.PutInts(y.Type, t))))
	}
}

// tflFloat computes a quantized operator in floating point: its result may differ from TFLite's by one.
func tflFloat(f func(b *builder, n *ir.Node, x *ir.Tensor) *ir.Tensor) rule {
	return func(b *builder, n *ir.Node) []*ir.Tensor {
		x, y := n.Inputs[0], n.Outputs[0]
		if x.Type.Float() {
			return one(f(b, n, x))
		}
		v := f(b, n, b.tflDequantize(x))
		scale, zero := b.scaleOf(y)
		lo, hi := y.Type.Range()
		return one(b.emit("npu.quantize", y.Type, v.Shape, ir.Attrs{"scales": []float32{float32(scale)}, "zeros": ir.IntList(zero), "axis": int64(0), "lo": lo, "hi": hi}, v))
	}
}

func tflSoftmax(b *builder, n *ir.Node, x *ir.Tensor) *ir.Tensor {
	if beta := n.Attrs.Float("beta", 1); beta != 1 && beta != 0 {
		x = b.scalar2("mul", x, beta)
	}
	return b.emit("npu.softmax", x.Type, x.Shape, nil, x)
}

func tflMean(b *builder, n *ir.Node, x *ir.Tensor) *ir.Tensor {
	axes := b.axes(append([]int{}, b.constInts(1)...), len(x.Shape))
	y := b.reduce("mean", x, axes)
	if n.Attrs.Int("keep_dims", 0) == 0 {
		var shape []int
		for i, d := range x.Shape {
			if !slices.Contains(axes, i) {
				shape = append(shape, d)
			}
		}
		y = b.reshape(y, shape...)
	}
	return y
}

func tflConcat(b *builder, n *ir.Node) []*ir.Tensor {
	x, y := n.Inputs[0], n.Outputs[0]
	if quantizedType(x.Type) {
		for _, t := range n.Inputs {
			if b.ratio(t, y) != 1 {
				b.fail("operands of different scales are not supported")
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
		b.fail("paddings %v of %v", list, x.Shape)
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
		b.fail("begin %v and size %v of %v", begin, size, x.Shape)
	}
	sizes := slices.Clone(size)
	for i := range sizes {
		if sizes[i] == -1 {
			sizes[i] = x.Shape[i] - begin[i]
		}
		if begin[i] < 0 || sizes[i] < 0 || begin[i] > x.Shape[i]-sizes[i] {
			b.fail("begin %v and size %v of %v", begin, size, x.Shape)
		}
	}
	return one(b.slice(x, begin, sizes, slices.Repeat([]int{1}, len(sizes))))
}

func tfliteRules() map[string]rule {
	return map[string]rule{
		"tfl.CONV_2D": tflConv(false), "tfl.DEPTHWISE_CONV_2D": tflConv(true), "tfl.FULLY_CONNECTED": tflFullyConnected,
		"tfl.AVERAGE_POOL_2D": tflPool("avg"), "tfl.MAX_POOL_2D": tflPool("max"), "tfl.ADD": tflBinary("add"), "tfl.SUB": tflBinary("sub"),
		"tfl.MUL": tflBinary("mul"), "tfl.RELU": tflRelu(1), "tfl.RELU6": tflRelu(3), "tfl.LEAKY_RELU": tflLeakyRelu, "tfl.QUANTIZE": tflQuantize,
		"tfl.DEQUANTIZE": tflDequantize, "tfl.SOFTMAX": tflFloat(tflSoftmax), "tfl.MEAN": tflFloat(tflMean),
		"tfl.LOGISTIC": tflTable("sigmoid", func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }), "tfl.TANH": tflTable("tanh", math.Tanh),
		"tfl.HARD_SWISH":    tflFloat(func(b *builder, _ *ir.Node, x *ir.Tensor) *ir.Tensor { return b.op1("hardswish", x) }),
		"tfl.EXP":           tflTable("exp", math.Exp),
		"tfl.CONCATENATION": tflConcat, "tfl.RESHAPE": tflReshape, "tfl.SQUEEZE": tflReshape, "tfl.EXPAND_DIMS": tflReshape, "tfl.TRANSPOSE": tflTranspose,
		"tfl.PAD": tflPad, "tfl.PADV2": tflPad, "tfl.SLICE": tflSlice,
	}
}
