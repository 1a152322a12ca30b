// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"slices"

	"npuemu/compiler/ir"
)

// channels is a vector of C numbers as a tensor that broadcasts over N, C, spatial….
func (b *builder) channels(t *ir.Tensor, rank int) *ir.Tensor {
	shape := slices.Repeat([]int{1}, rank-1)
	shape[0] = t.Elements()
	return b.reshape(t, shape...)
}

func ruleBatchNorm(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	if n.Attrs.Int("training_mode", 0) != 0 {
		b.fail(exportAgain, nil, "training mode is not supported")
	}
	if len(x.Shape) < 2 || len(n.Inputs) != 5 {
		b.fail(fixShapes, x, "x %v and %d inputs", x.Shape, len(n.Inputs))
	}
	var p [4]*ir.Tensor
	for i := range p {
		p[i] = b.cast(n.Inputs[1+i], x.Type)
	}
	inv := b.op1("rsqrt", b.scalar2("add", p[3], n.Attrs.Float("epsilon", 1e-5)))
	scale := b.op2("mul", p[0], inv)
	shift := b.op2("sub", p[1], b.op2("mul", p[2], scale))
	y := b.op2("mul", x, b.channels(scale, len(x.Shape)))
	return one(b.op2("add", y, b.channels(shift, len(x.Shape))))
}

// centered is x − mean and 1/√(variance + ε) over axes, and the mean.
func (b *builder) centered(x *ir.Tensor, axes []int, epsilon float32) (d, inv, mean *ir.Tensor) {
	mean = b.reduce("mean", x, axes)
	d = b.op2("sub", x, mean)
	v := b.reduce("mean", b.op2("mul", d, d), axes)
	return d, b.op1("rsqrt", b.scalar2("add", v, epsilon)), mean
}

func ruleLayerNorm(b *builder, n *ir.Node) []*ir.Tensor {
	x, scale, bias := n.Inputs[0], n.Inputs[1], n.Input(2)
	rank := len(x.Shape)
	axis := b.axis(n.Attrs.Int("axis", -1), rank)
	eps := n.Attrs.Float("epsilon", 1e-5)
	size := b.elements(x.Shape[axis:])
	flat := []int{b.elements(x.Shape[:axis]), size}
	if len(n.Outputs) == 1 && scale.Const() && scale.Elements() == size && (bias == nil || bias.Const() && bias.Elements() == size) {
		shift := b.floats(ir.Float32, []int{size}, make([]float32, b.made(size))...)
		if bias != nil {
			shift = b.reshape(b.seed(bias, ir.Float32), size)
		}
		y := b.emit("npu.layernorm", x.Type, flat, ir.Attrs{"epsilon": eps}, b.reshape(x, flat...), b.reshape(b.seed(scale, ir.Float32), size), shift)
		return one(b.reshape(y, x.Shape...))
	}
	axes := b.axes(nil, rank)[axis:]
	wide := b.cast(x, ir.Float32)
	d, inv, mean := b.centered(wide, axes, eps)
	y := b.op2("mul", b.cast(b.op2("mul", d, inv), x.Type), scale)
	if bias != nil {
		y = b.op2("add", y, bias)
	}
	return []*ir.Tensor{y, mean, inv}[:len(n.Outputs)]
}

func ruleRMSNorm(b *builder, n *ir.Node) []*ir.Tensor {
	x, scale := n.Inputs[0], n.Inputs[1]
	axis := b.axis(n.Attrs.Int("axis", -1), len(x.Shape))
	eps := n.Attrs.Float("epsilon", 1e-5)
	size := b.elements(x.Shape[axis:])
	if scale.Const() && scale.Elements() == size {
		flat := []int{b.elements(x.Shape[:axis]), size}
		y := b.emit("npu.rmsnorm", x.Type, flat, ir.Attrs{"epsilon": eps}, b.reshape(x, flat...), b.reshape(b.seed(scale, ir.Float32), size))
		return one(b.reshape(y, x.Shape...))
	}
	wide := b.cast(x, ir.Float32)
	q := b.reduce("mean", b.op2("mul", wide, wide), b.axes(nil, len(x.Shape))[axis:])
	y := b.op2("mul", wide, b.op1("rsqrt", b.scalar2("add", q, eps)))
	return one(b.op2("mul", b.cast(y, scale.Type), scale))
}

// ruleGroupNorm normalizes groups of channels; with as many groups as channels it is InstanceNormalization.
func ruleGroupNorm(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	if len(x.Shape) < 3 || len(n.Inputs) != 3 {
		b.fail(fixShapes, x, "x %v and %d inputs", x.Shape, len(n.Inputs))
	}
	c := x.Shape[1]
	groups := c
	if n.Op == "GroupNormalization" {
		groups = n.Attrs.Int("num_groups", 1)
	}
	if groups < 1 || c%groups != 0 {
		b.fail(fixValue, nil, "%d groups of %d channels", groups, c)
	}
	flat := b.reshape(x, x.Shape[0], groups, b.elements(x.Shape[1:])/groups)
	d, inv, _ := b.centered(flat, []int{2}, n.Attrs.Float("epsilon", 1e-5))
	y := b.reshape(b.op2("mul", d, inv), x.Shape...)
	wide := func(t *ir.Tensor) *ir.Tensor {
		if t.Elements() != c { // opset 18 had one for each group
			k := t.Elements()
			t = b.reshape(b.expand(b.reshape(t, k, 1), []int{k, c / k}), c)
		}
		return b.channels(t, len(x.Shape))
	}
	return one(b.op2("add", b.op2("mul", y, wide(n.Inputs[1])), wide(n.Inputs[2])))
}

func ruleMeanVariance(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	axes := n.Attrs.Ints("axes")
	if axes == nil {
		axes = []int{0, 2, 3}
	}
	mean := b.reduce("mean", x, b.axes(axes, len(x.Shape)))
	d := b.op2("sub", x, mean)
	s := b.op1("sqrt", b.reduce("mean", b.op2("mul", d, d), b.axes(axes, len(x.Shape))))
	return one(b.op2("div", d, b.scalar2("add", s, 1e-9)))
}

func ruleLpNorm(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	axes := []int{b.axis(n.Attrs.Int("axis", -1), len(x.Shape))}
	var s *ir.Tensor
	if n.Attrs.Int("p", 2) == 1 {
		s = b.fold("sum", b.op1("abs", x), axes)
	} else {
		s = b.op1("sqrt", b.fold("sum", b.op2("mul", x, x), axes))
	}
	return one(b.choose(b.scalar2("eq", s, 0), b.like(x, 0), b.op2("div", x, s)))
}

// ruleLRN averages squares over neighbouring channels.
func ruleLRN(b *builder, n *ir.Node) []*ir.Tensor {
	x, size := n.Inputs[0], n.Attrs.Int("size", 1)
	s := x.Shape
	if size < 1 || size > 1<<16 || len(s) < 2 {
		b.fail(fixValue, nil, "size %d of %v", size, s)
	}
	before := (size - 1) / 2
	sq := b.reshape(b.op2("mul", x, x), s[0], 1, s[1], b.elements(s[2:]))
	sq = b.pad(sq, []int{0, 0, before, 0, 0, 0, size - 1 - before, 0}, 0, 0)
	avg := b.pool("avg", sq, spatial{[]int{size, 1}, []int{1, 1}, []int{1, 1}, []int{0, 0}, []int{0, 0}, []int{s[1], sq.Shape[3]}})
	v := b.scalar2("add", b.scalar2("mul", b.reshape(avg, s...), n.Attrs.Float("alpha", 1e-4)), n.Attrs.Float("bias", 1))
	return one(b.op2("div", x, b.op1("exp", b.scalar2("mul", b.op1("log", v), n.Attrs.Float("beta", 0.75)))))
}

func normRules() map[string]rule {
	return map[string]rule{
		"BatchNormalization": ruleBatchNorm, "LayerNormalization": ruleLayerNorm, "RMSNormalization": ruleRMSNorm,
		"GroupNormalization": ruleGroupNorm, "InstanceNormalization": ruleGroupNorm, "MeanVarianceNormalization": ruleMeanVariance,
		"LpNormalization": ruleLpNorm, "LRN": ruleLRN,
	}
}
