// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"slices"

	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
	"npuemu/core/num"
)

// Fuse puts what follows a floating-point product into it: a factor for each channel into its weights, a summand
// into its bias, an activation and a clip behind it; and a requantization into an integer product.
// Factors and summands in weights round differently from those behind the product.
func Fuse(g *ir.Graph) error {
	rewrite(g, fuse)
	return nil
}

func fuse(r *rewriter, n *ir.Node) *ir.Tensor {
	var p *ir.Node
	other := -1 // the constant operand
	for i, x := range n.Inputs {
		m := r.producer[x]
		if m != nil && (m.Op == "npu.conv" || m.Op == "npu.gemm") && m.Attrs.Str("rounding", "") == "none" && r.uses[x] == 1 {
			p, other = m, 1-i
			break
		}
	}
	if p == nil || n.Attrs.Int("wrap", 0) != 0 {
		return nil
	}
	y := n.Outputs[0]
	again := func(change ir.Attrs, in ...*ir.Tensor) *ir.Tensor {
		return r.emit(p.Op, y.Type, y.Shape, copyAttrs(p.Attrs, change), in...)
	}
	float := p.Inputs[0].Type.Float()
	acted, clipped := p.Attrs.Has("act"), p.Attrs.Has("clip")
	switch n.Op {
	case "npu.requantize":
		if !float && n.Attrs.Int("zero_x", 0) == 0 {
			return again(n.Attrs, p.Inputs...)
		}
	case "npu.clip":
		if float && !clipped {
			return again(ir.Attrs{"clip": n.Attrs["clip"]}, p.Inputs...)
		}
	case "npu.element":
		op := n.Attrs.Str("op", "")
		if len(n.Inputs) == 1 {
			if float && !acted && !clipped && y.Type == p.Outputs[0].Type && y.Type == ir.Float32 {
				return again(ir.Attrs{"act": op}, p.Inputs...)
			}
			return nil
		}
		c := n.Inputs[other]
		if !float || acted || clipped || y.Type != ir.Float32 || !c.Const() || !slices.Equal(y.Shape, p.Outputs[0].Shape) {
			return nil
		}
		v := perChannel(c, y.Shape)
		if v == nil {
			return nil
		}
		bias := make([]float32, len(v))
		if t := p.Input(2); t != nil {
			bias = numbers(t)
		}
		switch {
		case op == "add" || op == "sub" && other == 1:
			for i := range v {
				if op == "sub" {
					v[i] = -v[i]
				}
				bias[i] = num.Add32(bias[i], v[i])
			}
			return again(nil, p.Inputs[0], p.Inputs[1], r.constant(ir.Float32, []int{len(v)}, bias))
		case op == "mul":
			w := scaledWeights(p, v)
			if w == nil {
				return nil
			}
			in := []*ir.Tensor{p.Inputs[0], r.constant(w.Type, w.Shape, numbers(w))}
			if p.Input(2) != nil {
				for i := range v {
					bias[i] = num.Mul32(bias[i], v[i])
				}
				in = append(in, r.constant(ir.Float32, []int{len(v)}, bias))
			}
			return again(nil, in...)
		}
	}
	return nil
}

func (r *rewriter) constant(typ ir.Type, shape []int, v []float32) *ir.Tensor {
	r.names++
	return &ir.Tensor{Name: r.n.Name + ":const", Type: typ, Shape: slices.Clone(shape), Data: ref.PutFloats(typ, v, false)}
}

// perChannel is a constant as one number for each channel of shape, nil if it differs within a channel.
func perChannel(c *ir.Tensor, shape []int) []float32 {
	channels := shape[len(shape)-1]
	if len(c.Shape) > len(shape) || c.Elements() != 1 && (c.Elements() != channels || c.Shape[len(c.Shape)-1] != channels) {
		return nil
	}
	v := slices.Clone(numbers(c))
	if len(v) == 1 {
		v = slices.Repeat(v, channels)
	}
	return v
}

// scaledWeights are a product's fp32 weights times a number for each channel, nil if they are no constant.
func scaledWeights(p *ir.Node, v []float32) *ir.Tensor {
	w := p.Inputs[1]
	if !w.Const() || w.Type != ir.Float32 {
		return nil
	}
	out := slices.Clone(numbers(w))
	stride, channels := w.Elements()/max(1, len(v)), len(v) // conv: a run for each channel
	if p.Op == "npu.gemm" {
		stride = 1
		if p.Attrs.Int("trans_b", 0) != 0 {
			stride = w.Shape[2]
		}
	}
	for i := range out {
		out[i] = num.Mul32(out[i], v[i/stride%channels])
	}
	return &ir.Tensor{Type: w.Type, Shape: w.Shape, Data: ref.PutFloats(w.Type, out, false)}
}
