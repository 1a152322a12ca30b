// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"slices"

	"npuemu/compiler/ir"
)

// matmul is numpy's matmul. p.typ is the type of the result.
func (b *builder) matmul(x, y *ir.Tensor, p product) *ir.Tensor {
	xs, ys := x.Shape, y.Shape
	if len(xs) == 0 || len(ys) == 0 {
		b.fail(fixShapes, nil, "a product of scalars")
	}
	if len(xs) == 1 {
		xs = []int{1, xs[0]}
	}
	if len(ys) == 1 {
		ys = []int{ys[0], 1}
	}
	xb, yb := xs[:len(xs)-2], ys[:len(ys)-2]
	m, k, cols := xs[len(xs)-2], xs[len(xs)-1], ys[len(ys)-1]
	batch, ok := ir.Broadcast(xb, yb)
	if !ok || ys[len(ys)-2] != k {
		b.fail(fixShapes, y, "%v and %v cannot be multiplied", x.Shape, y.Shape)
	}
	g := b.elements(batch)
	// Operands with the batch's shape stay; one without is shared; others are spread first.
	flat := func(t *ir.Tensor, dims []int, r, c int) *ir.Tensor {
		if b.elements(dims) == 1 {
			return b.reshape(t, 1, r, c)
		}
		if b.elements(dims) != g {
			full := append(slices.Clone(batch), r, c)
			t = b.expand(b.reshape(t, append(slices.Clone(dims), r, c)...), full)
		}
		return b.reshape(t, g, r, c)
	}
	fx := flat(x, xb, m, k)
	fy := flat(y, yb, k, cols)
	if fy.Shape[0] == 1 && fx.Shape[0] > 1 { // rows of all batches times one matrix
		fx = b.reshape(fx, 1, g*m, k)
	}
	attrs := ir.Attrs{}
	for k, v := range p.attrs {
		attrs[k] = v
	}
	in := []*ir.Tensor{fx, fy}
	if p.bias != nil {
		in = append(in, p.bias)
	}
	out := b.emit("npu.gemm", p.typ, []int{max(fx.Shape[0], fy.Shape[0]), fx.Shape[1], cols}, attrs, in...)
	shape := slices.Clone(batch)
	if len(x.Shape) > 1 {
		shape = append(shape, m)
	}
	if len(y.Shape) > 1 {
		shape = append(shape, cols)
	}
	return b.reshape(out, shape...)
}

func ruleMatMul(b *builder, n *ir.Node) []*ir.Tensor {
	x, y := n.Inputs[0], n.Inputs[1]
	return one(b.matmul(x, y, product{typ: x.Type, attrs: ir.Attrs{"rounding": "none"}}))
}

func ruleGemm(b *builder, n *ir.Node) []*ir.Tensor {
	x, y, c := n.Inputs[0], n.Inputs[1], n.Input(2)
	ta, tb := n.Attrs.Int("transA", 0) != 0, n.Attrs.Int("transB", 0) != 0
	alpha, beta := n.Attrs.Float("alpha", 1), n.Attrs.Float("beta", 1)
	if len(x.Shape) != 2 || len(y.Shape) != 2 {
		b.fail(fixShapes, y, "%v and %v are no matrices", x.Shape, y.Shape)
	}
	attrs := ir.Attrs{"rounding": "none"}
	if ta { // the device takes transposed weights only
		x = b.transpose(x, 1, 0)
	}
	m, cols, k, k2 := x.Shape[0], y.Shape[1], x.Shape[1], y.Shape[0]
	if tb {
		attrs["trans_b"] = int64(1)
		cols, k2 = k2, cols
	}
	if k != k2 {
		b.fail(fixShapes, y, "%v and %v cannot be multiplied", x.Shape, y.Shape)
	}
	in := []*ir.Tensor{b.reshape(x, append([]int{1}, x.Shape...)...), b.reshape(y, append([]int{1}, y.Shape...)...)}
	if c != nil && c.Const() && alpha == 1 && beta == 1 && c.Type.Float() && c.Elements() == cols && c.Shape[len(c.Shape)-1] == cols {
		in = append(in, b.reshape(b.seed(c, ir.Float32), cols))
		c = nil
	}
	out := b.reshape(b.emit("npu.gemm", x.Type, []int{1, m, cols}, attrs, in...), m, cols)
	if alpha != 1 {
		out = b.scalar2("mul", out, alpha)
	}
	if c != nil {
		if beta != 1 {
			c = b.scalar2("mul", c, beta)
		}
		out = b.op2("add", out, c)
	}
	return one(out)
}

// axesOf are the axes of a reduction: an input since opset 18 (ReduceSum 13), an attribute before.
func (b *builder) axesOf(n *ir.Node) []int {
	rank := len(n.Inputs[0].Shape)
	list := n.Attrs.Ints("axes")
	if n.Input(1) != nil {
		list = append([]int{}, b.constInts(1)...)
	}
	if len(list) == 0 {
		if n.Attrs.Int("noop_with_empty_axes", 0) != 0 {
			return nil
		}
		list = nil
	}
	return b.axes(list, rank)
}

// reduced reduces the node's axes with a rule and drops them if keepdims is 0.
func reduced(f func(b *builder, x *ir.Tensor, axes []int) *ir.Tensor) rule {
	return func(b *builder, n *ir.Node) []*ir.Tensor {
		x := n.Inputs[0]
		axes := b.axesOf(n)
		y := f(b, x, axes)
		if n.Attrs.Int("keepdims", 1) == 0 {
			shape := []int{}
			for i, d := range y.Shape {
				if !slices.Contains(axes, i) {
					shape = append(shape, d)
				}
			}
			y = b.reshape(y, shape...)
		}
		if y == x {
			y = b.reshapeCopy(x)
		}
		return one(y)
	}
}

// fold is reduce; without axes it leaves x alone, and of no elements it is the neutral one.
func (b *builder) fold(kind string, x *ir.Tensor, axes []int) *ir.Tensor {
	if len(axes) == 0 {
		return x
	}
	shape, size := slices.Clone(x.Shape), 1
	for _, a := range axes {
		size *= shape[a]
		shape[a] = 1
	}
	if size == 0 {
		v := float32(0)
		if lo, hi := x.Type.Range(); x.Type.Float() && kind == "max" {
			v = -inf
		} else if x.Type.Float() && kind == "min" {
			v = inf
		} else if kind == "max" || kind == "min" {
			k := lo
			if kind == "min" {
				k = hi
			}
			return b.expand(b.ints(x.Type, nil, int(k)), shape)
		}
		return b.expand(b.like(x, v), shape)
	}
	y := b.reduce(kind, x, axes)
	if y.Type != x.Type {
		y = b.emit("npu.cast", x.Type, y.Shape, ir.Attrs{"saturate": int64(0)}, y)
	}
	return y
}

func (b *builder) logSumExp(x *ir.Tensor, axes []int) *ir.Tensor {
	if len(axes) == 0 {
		return x
	}
	m := b.fold("max", x, axes)
	finite := b.choose(b.scalar2("lt", b.op1("abs", m), inf), m, b.like(m, 0))
	s := b.fold("sum", b.op1("exp", b.op2("sub", x, finite)), axes)
	return b.op2("add", b.op1("log", s), finite)
}

// lastAxis moves an axis to the end, calls f and moves it back.
func (b *builder) lastAxis(x *ir.Tensor, axis int, f func(x *ir.Tensor) *ir.Tensor) *ir.Tensor {
	var perm []int
	for i := range x.Shape {
		if i != axis {
			perm = append(perm, i)
		}
	}
	perm = append(perm, axis)
	return b.lastAxisBack(f(b.transpose(x, perm...)), axis)
}

// lastAxisBack moves the last axis to where axis is.
func (b *builder) lastAxisBack(x *ir.Tensor, axis int) *ir.Tensor {
	var perm []int
	for i := range len(x.Shape) - 1 {
		perm = append(perm, i)
	}
	return b.transpose(x, slices.Insert(perm, axis, len(x.Shape)-1)...)
}

// row is the input and the axis of Softmax and its kin. Before opset 13 they had two axes, of those before the one that is named and of
// those from it on.
func (b *builder) row(n *ir.Node) (x *ir.Tensor, axis int) {
	x = n.Inputs[0]
	if n.Attrs.Int("opset", 13) >= 13 {
		return x, b.axis(n.Attrs.Int("axis", -1), len(x.Shape))
	}
	if axis = b.axis(n.Attrs.Int("axis", 1), len(x.Shape)); axis == len(x.Shape)-1 {
		return x, axis
	}
	return b.reshape(x, b.elements(x.Shape[:axis]), b.elements(x.Shape[axis:])), 1
}

func ruleSoftmax(b *builder, n *ir.Node) []*ir.Tensor {
	x, axis := b.row(n)
	y := b.lastAxis(x, axis, func(x *ir.Tensor) *ir.Tensor { return b.emit("npu.softmax", x.Type, x.Shape, nil, x) })
	return one(b.reshape(y, n.Inputs[0].Shape...))
}

func ruleLogSoftmax(b *builder, n *ir.Node) []*ir.Tensor {
	x, axis := b.row(n)
	return one(b.reshape(b.logSoftmax(x, axis), n.Inputs[0].Shape...))
}

func (b *builder) logSoftmax(x *ir.Tensor, axis int) *ir.Tensor {
	d := b.op2("sub", x, b.fold("max", x, []int{axis}))
	return b.op2("sub", d, b.op1("log", b.fold("sum", b.op1("exp", d), []int{axis})))
}

// index is the position of the maximum or minimum along the last axis, of [rows, size] int32.
func (b *builder) argument(kind string, x *ir.Tensor, last bool) *ir.Tensor {
	rank := len(x.Shape)
	size := x.Shape[rank-1]
	best := b.emit("npu.reduce", x.Type, append(slices.Clone(x.Shape[:rank-1]), 1), ir.Attrs{"kind": kind}, x)
	at := make([]int, b.made(size))
	for i := range at {
		at[i] = i
	}
	none, pick := size, "min"
	if last {
		none, pick = -1, "max"
	}
	where := b.choose(b.op2("eq", x, best), b.ints(ir.Int32, []int{size}, at...), b.ints(ir.Int32, nil, none))
	return b.emit("npu.reduce", ir.Int32, best.Shape, ir.Attrs{"kind": pick}, where)
}

func ruleArg(kind string) rule {
	return func(b *builder, n *ir.Node) []*ir.Tensor {
		x := n.Inputs[0]
		axis := b.axis(n.Attrs.Int("axis", 0), len(x.Shape))
		last := n.Attrs.Int("select_last_index", 0) != 0
		y := b.lastAxis(x, axis, func(x *ir.Tensor) *ir.Tensor { return b.argument(kind, x, last) })
		if n.Attrs.Int("keepdims", 1) == 0 {
			y = b.reshape(y, slices.Delete(slices.Clone(y.Shape), axis, axis+1)...)
		}
		return one(b.toInt64(y))
	}
}

func ruleHardmax(b *builder, n *ir.Node) []*ir.Tensor {
	x, axis := b.row(n)
	y := b.lastAxis(x, axis, func(x *ir.Tensor) *ir.Tensor {
		size := x.Shape[len(x.Shape)-1]
		at := make([]int, b.made(size))
		for i := range at {
			at[i] = i
		}
		return b.cast(b.op2("eq", b.argument("max", x, false), b.ints(ir.Int32, []int{size}, at...)), x.Type)
	})
	return one(b.reshape(y, n.Inputs[0].Shape...))
}

// ruleOneHot compares indices with all positions.
func ruleOneHot(b *builder, n *ir.Node) []*ir.Tensor {
	x, values := n.Inputs[0], n.Inputs[2]
	depth := b.constInts32(1)[0]
	b.made(depth)
	axis := b.axis(n.Attrs.Int("axis", -1), len(x.Shape)+1)
	index := b.convert(x, ir.Int32, true)
	if x.Type == ir.Int32 {
		index = x
	}
	wrapped := b.choose(b.scalar2("lt", index, 0), b.scalar2("add", index, float32(depth)), index)
	shape := slices.Insert(slices.Clone(x.Shape), axis, 1)
	at, positions := make([]int, depth), slices.Repeat([]int{1}, len(shape))
	for i := range at {
		at[i] = i
	}
	positions[axis] = depth
	hit := b.op2("eq", b.reshape(wrapped, shape...), b.ints(ir.Int32, positions, at...))
	return one(b.choose(hit, b.reshape(b.part(values, 0, 1, 1)), b.reshape(b.part(values, 0, 0, 1))))
}

// constInts32 is constInts of a constant that may be of floating point.
func (b *builder) constInts32(i int) []int {
	var out []int
	for _, v := range b.constFloats(i) {
		out = append(out, int(v))
	}
	return out
}

// ruleCumSum is a product with a triangle of ones, of integers sums of neighbours, which are exact.
func ruleCumSum(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	axis := b.axis(b.constInts(1)[0], len(x.Shape))
	size := x.Shape[axis]
	exclusive, reverse := n.Attrs.Int("exclusive", 0) != 0, n.Attrs.Int("reverse", 0) != 0
	if x.Type.Integer() {
		return one(b.reshapeCopy(b.running("add", x, axis, 0, exclusive, reverse)))
	}
	ones := make([]float32, b.made(size, size))
	for i := range ones {
		from, to := i/size, i%size
		if reverse {
			from, to = to, from
		}
		if from < to || from == to && !exclusive {
			ones[i] = 1
		}
	}
	return one(b.lastAxis(x, axis, func(x *ir.Tensor) *ir.Tensor {
		return b.matmul(x, b.numbers(x.Type, []int{size, size}, ones...), product{typ: x.Type, attrs: ir.Attrs{"rounding": "none"}})
	}))
}

func matrixRules() map[string]rule {
	fold := func(kind string) rule {
		return reduced(func(b *builder, x *ir.Tensor, axes []int) *ir.Tensor { return b.fold(kind, x, axes) })
	}
	return map[string]rule{
		"MatMul": ruleMatMul, "Gemm": ruleGemm, "Softmax": ruleSoftmax, "LogSoftmax": ruleLogSoftmax, "ArgMax": ruleArg("max"), "ArgMin": ruleArg("min"),
		"Hardmax": ruleHardmax, "OneHot": ruleOneHot, "CumSum": ruleCumSum,
		"ReduceSum": fold("sum"), "ReduceMax": fold("max"), "ReduceMin": fold("min"),
		"ReduceMean": reduced(func(b *builder, x *ir.Tensor, axes []int) *ir.Tensor {
			if len(axes) == 0 {
				return x
			}
			return b.reduce("mean", x, axes)
		}),
		"ReduceL1": reduced(func(b *builder, x *ir.Tensor, axes []int) *ir.Tensor { return b.fold("sum", b.op1("abs", x), axes) }),
		"ReduceL2": reduced(func(b *builder, x *ir.Tensor, axes []int) *ir.Tensor {
			return b.op1("sqrt", b.fold("sum", b.op2("mul", x, x), axes))
		}),
		"ReduceSumSquare": reduced(func(b *builder, x *ir.Tensor, axes []int) *ir.Tensor { return b.fold("sum", b.op2("mul", x, x), axes) }),
		"ReduceLogSum":    reduced(func(b *builder, x *ir.Tensor, axes []int) *ir.Tensor { return b.op1("log", b.fold("sum", x, axes)) }),
		"ReduceLogSumExp": reduced(func(b *builder, x *ir.Tensor, axes []int) *ir.Tensor { return b.logSumExp(x, axes) }),
		"ReduceProd": reduced(func(b *builder, x *ir.Tensor, axes []int) *ir.Tensor {
			for _, a := range axes {
				size := x.Shape[a]
				if size > 1024 {
					b.fail(makeSmaller, nil, "a product of %d elements", size)
				}
				if size == 0 {
					shape := slices.Clone(x.Shape)
					shape[a] = 1
					x = b.expand(b.like(x, 1), shape)
					continue
				}
				y := b.part(x, a, 0, 1)
				for i := 1; i < size; i++ {
					y = b.op2("mul", y, b.part(x, a, i, 1))
				}
				x = y
			}
			return x
		}),
	}
}
