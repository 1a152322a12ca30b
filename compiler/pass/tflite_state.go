// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"math"
	"slices"

	"npuemu/compiler/ir"
)

// This file has TFLite's operators with variables: their value behind the run is an output, after the operator's own.

// symmetric is the scale of a tensor that has that type, one scale and the zero point 0.
func (b *builder) symmetric(t *ir.Tensor, typ ir.Type) float64 {
	scale, zero := b.scaleOf(t)
	if t.Type != typ || zero != 0 {
		b.fail(fixScales, t, "it is %s with zero point %d, not %s with 0", t.Type, zero, typ)
	}
	return scale
}

// sum8 is the product of rows of x, int8, with weights [columns, k], and a bias, as int32.
func (b *builder) sum8(x, w, bias *ir.Tensor) *ir.Tensor {
	_, zero := b.scaleOf(x)
	b.symmetric(w, ir.Int8)
	if x.Type != ir.Int8 || len(w.Shape) != 2 {
		b.fail(fixShapes, x, "weights %s%v for x %s%v", w.Type, w.Shape, x.Type, x.Shape)
	}
	k := w.Shape[1]
	rows := b.elements(x.Shape) / max(k, 1)
	return b.product8(b.reshape(x, 1, rows, k), w, bias, zero)
}

// product8 is the product of a [1, rows, k] less its zero point with weights [columns, k], and a bias, as int32 [rows, columns].
func (b *builder) product8(a, w, bias *ir.Tensor, zero int) *ir.Tensor {
	rows, cols := a.Shape[1], w.Shape[0]
	in := []*ir.Tensor{a, b.reshape(w, 1, cols, w.Shape[1])}
	if bias != nil {
		in = append(in, bias)
	}
	y := b.emit("npu.gemm", ir.Int32, []int{1, rows, cols}, ir.Attrs{"rounding": "none", "trans_b": int64(1), "zero_a": int64(zero)}, in...)
	return b.reshape(y, rows, cols)
}

// tflSVDF keeps the last numbers of each filter, the newest last: the variable is [batch, filters · memory].
func tflSVDF(b *builder, n *ir.Node) []*ir.Tensor {
	x, w, wt, bias, state, y := n.Inputs[0], n.Inputs[1], n.Inputs[2], n.Inputs[3], n.Inputs[4], n.Outputs[0]
	rank := n.Attrs.Int("rank", 1)
	if x.Type != ir.Int8 || state.Type != ir.Int16 || wt.Type != ir.Int16 || y.Type != ir.Int8 || n.Attrs.Int("activation", 0) != 1 {
		b.fail(replaceNode, wt, "of SVDF only that of int8 with a state and weights of time of int16, and ReLU, is supported, not %s, %s and %s", x.Type, state.Type, wt.Type)
	}
	filters, memory, batch := w.Shape[0], wt.Shape[1], x.Shape[0]
	if rank < 1 || filters%rank != 0 || wt.Shape[0] != filters || memory < 1 || state.Elements() != batch*filters*memory {
		b.fail(fixValue, state, "rank %d, weights %v and %v, state %v", rank, w.Shape, wt.Shape, state.Shape)
	}
	xs, _ := b.scaleOf(x)
	ws, _ := b.scaleOf(w)
	ts, ss := b.symmetric(wt, ir.Int16), b.symmetric(state, ir.Int16)
	ys, yz := b.scaleOf(y)
	newest := b.place(b.scaleTwice(b.sum8(x, w, nil), xs*ws/ss), ir.Int16, 0, math.MinInt16, math.MaxInt16)
	next := b.reshape(newest, batch, filters, 1)
	if memory > 1 {
		next = b.concat(2, b.part(b.reshape(state, batch, filters, memory), 2, 1, memory-1), next)
	}
	products := b.emit("npu.element", ir.Int32, next.Shape, ir.Attrs{"op": "mul"}, next, b.reshape(wt, 1, filters, memory))
	sums := b.reduce("sum", products, []int{2})
	if rank > 1 {
		sums = b.reduce("sum", b.reshape(sums, batch, filters/rank, rank), []int{2})
	}
	sums = b.reshape(sums, batch, filters/rank)
	if bias != nil {
		sums = b.op2("add", sums, bias)
	}
	attrs := b.multipliers(ss * ts / ys)
	attrs["zero_y"] = int64(yz)
	attrs["lo"], attrs["hi"] = y.Type.Range()
	return []*ir.Tensor{b.emit("npu.requantize", y.Type, sums.Shape, attrs, sums), b.reshape(next, state.Shape...)}
}

// mostSteps bounds the steps of recurrent operators, which are written out; of LSTM of TensorFlow Lite each is some 280 operations: a
// small file must not become gigabytes.
const mostSteps = 512

// tflLSTM is written out, step by step. Gates are int16 with 3 integer bits; what a gate lets through, and tanh of the cell,
// have none. Their order here is input, forget, output, and the cell's own, which is the one without a logistic.
func tflLSTM(b *builder, n *ir.Node) []*ir.Tensor {
	const inputWeights, stateWeights, biases, hidden, cells = 1, 5, 12, 18, 19
	x, y := n.Inputs[0], n.Outputs[0]
	h, c := n.Input(hidden), n.Input(cells)
	order := []int{0, 1, 3, 2} // of the operator's inputs: input, forget, cell, output
	for _, i := range []int{9, 10, 11, 16, 17, 20, 21, 22, 23} {
		if n.Input(i) != nil {
			b.fail(replaceNode, nil, "peepholes, projections and layer normalization are not supported")
		}
	}
	if x.Type != ir.Int8 || h == nil || c == nil || h.Type != ir.Int8 || c.Type != ir.Int16 || n.Input(inputWeights) == nil || n.Input(stateWeights) == nil || n.Attrs.Int("activation", 0) != 4 {
		b.fail(replaceNode, x, "of LSTM only that of int8 with four gates, tanh and a cell of int16 is supported, not %s", x.Type)
	}
	inner, zeros := n.Attrs.Floats("inner_scales"), n.Attrs.Ints("inner_zeros")
	if len(inner) != 5 || !(inner[4] > 0) || len(x.Shape) != 3 {
		b.fail(fixScales, x, "the operator states the quantization of %d inner tensors, not of 5, or x %v has not 3 axes", len(inner), x.Shape)
	}
	xs, xz := b.scaleOf(x)
	hs, hz := b.scaleOf(h)
	cs := b.symmetric(c, ir.Int16)
	frac, exp := math.Frexp(cs)
	cellBits := 15 + exp - 1
	if frac != 0.5 || cellBits < 0 || cellBits > 6 {
		b.fail(fixScales, nil, "the cell's scale %g is not a power of two from 2⁻¹⁵ to 2⁻⁹", cs)
	}
	if n.Attrs.Int("time_major", 0) == 0 {
		x = b.transpose(x, 1, 0, 2)
	}
	steps, batch, k := x.Shape[0], x.Shape[1], x.Shape[2]
	if steps > mostSteps {
		b.fail(makeSmaller, nil, "%d steps are written out, one after the other, and %d is the most", steps, mostSteps)
	}
	units := h.Elements() / max(batch, 1)
	var wx, wh, bias []*ir.Tensor
	var fx, fh []float64
	for _, g := range order {
		w, r := n.Inputs[inputWeights+g], n.Inputs[stateWeights+g]
		ws, rs := b.symmetric(w, ir.Int8), b.symmetric(r, ir.Int8)
		if !slices.Equal(w.Shape, []int{units, k}) || !slices.Equal(r.Shape, []int{units, units}) || n.Inputs[biases+g] == nil {
			b.fail(fixShapes, r, "weights %v and %v of gate %d for %d inputs and %d units", w.Shape, r.Shape, g, k, units)
		}
		wx, wh, bias = append(wx, w), append(wh, r), append(bias, n.Inputs[biases+g])
		// TFLite computes these in fp32.
		fx = append(fx, slices.Repeat([]float64{float64(float32(ws) * float32(xs) * 4096)}, units)...)
		fh = append(fh, slices.Repeat([]float64{float64(float32(rs) * float32(hs) * 4096)}, units)...)
	}
	clamp := func(v *ir.Tensor) *ir.Tensor {
		return b.op2("min", b.op2("max", v, b.ints(ir.Int32, nil, math.MinInt16)), b.ints(ir.Int32, nil, math.MaxInt16))
	}
	f := fixed{b, 16}
	// The inputs' part of all steps at once.
	fromX := clamp(b.scaleTwice(b.product8(b.reshape(x, 1, steps*batch, k), b.concat(0, wx...), b.concat(0, bias...), xz), fx...))
	weights := b.concat(0, wh...)
	state, cell := b.reshape(h, 1, batch, units), b.reshape(b.cast(c, ir.Int32), batch, units)
	limit := int(min(n.Attrs.Float("cell_clip", 0)/float32(cs), math.MaxInt16))
	outScale := float64(float32(math.Ldexp(1, -15) / float64(inner[4]) * math.Ldexp(1, -15)))
	var rows []*ir.Tensor
	for t := range steps {
		gates := b.scaleTwice(b.product8(state, weights, nil, hz), fh...)
		gates = clamp(b.op2("add", b.part(fromX, 0, t*batch, batch), gates))
		open := f.logistic(b.part(gates, 1, 0, 3*units), 3)
		fresh := f.tanh(b.part(gates, 1, 3*units, units), 3)
		kept := b.divPow2(b.op2("mul", b.part(open, 1, units, units), cell), 15)
		added := b.divPow2(b.op2("mul", b.part(open, 1, 0, units), fresh), 15+cellBits)
		if cell = clamp(b.op2("add", kept, added)); limit > 0 {
			cell = b.op2("min", b.op2("max", cell, b.ints(ir.Int32, nil, -limit)), b.ints(ir.Int32, nil, limit))
		}
		out := b.op2("mul", b.part(open, 1, 2*units, units), f.tanh(cell, cellBits))
		attrs := b.multipliers(outScale)
		attrs["zero_y"] = int64(zeros[4])
		attrs["lo"], attrs["hi"] = y.Type.Range()
		state = b.reshape(b.emit("npu.requantize", ir.Int8, out.Shape, attrs, out), 1, batch, units)
		rows = append(rows, state)
	}
	all := b.concat(0, rows...)
	if n.Attrs.Int("time_major", 0) == 0 {
		all = b.transpose(all, 1, 0, 2)
	}
	return []*ir.Tensor{b.reshape(all, y.Shape...), b.reshape(state, h.Shape...), b.reshape(b.cast(cell, ir.Int16), c.Shape...)}
}
