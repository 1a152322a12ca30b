// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"math"
	"slices"

	"npuemu/compiler/ir"
)

// Operators of models that carry a state from token to token beside Attention.

// ruleLinearAttention writes LinearAttention out, token by token, in fp32. Heads have a state [key size, value size] each.
func ruleLinearAttention(b *builder, n *ir.Node) []*ir.Tensor {
	q, k, v := n.Inputs[0], n.Inputs[1], n.Inputs[2]
	qh, h := n.Attrs.Int("q_num_heads", 0), n.Attrs.Int("kv_num_heads", 0)
	update := n.Attrs.Str("update_rule", "gated_delta")
	gated, delta := update == "gated" || update == "gated_delta", update == "delta" || update == "gated_delta"
	if !gated && !delta && update != "linear" {
		b.fail(fixValue, nil, "update_rule %q", update)
	}
	if h < 1 || qh < 1 || qh%h != 0 || len(q.Shape) != 3 || len(k.Shape) != 3 || len(v.Shape) != 3 || q.Shape[2]%qh != 0 || k.Shape[2]%h != 0 || v.Shape[2]%h != 0 || q.Shape[2]/qh != k.Shape[2]/h {
		b.fail(fixShapes, q, "%d and %d heads of %v, %v and %v", qh, h, q.Shape, k.Shape, v.Shape)
	}
	batch, steps, dk, dv := q.Shape[0], q.Shape[1], k.Shape[2]/h, v.Shape[2]/h
	if steps < 1 || steps > mostSteps || k.Shape[1] != steps || v.Shape[1] != steps {
		b.fail(makeSmaller, q, "%d tokens are written out, one after the other, and %d is the most", steps, mostSteps)
	}
	wide := func(t *ir.Tensor) *ir.Tensor { return b.cast(t, ir.Float32) }
	past := n.Input(3)
	typ := q.Type
	state := b.expand(b.floats(ir.Float32, nil, 0), []int{batch, h, dk, dv})
	if past != nil {
		typ, state = past.Type, wide(past)
	}
	scale := n.Attrs.Float("scale", 0)
	if scale == 0 {
		scale = float32(1 / math.Sqrt(float64(dk)))
	}
	q = b.scalar2("mul", wide(q), scale)
	k, v = wide(k), wide(v)
	var decay, beta *ir.Tensor
	if gated {
		decay = b.op1("exp", wide(n.Inputs[4]))
	}
	if delta {
		beta = wide(n.Inputs[5])
	}
	at := func(t *ir.Tensor, i int, shape ...int) *ir.Tensor { return b.reshape(b.part(t, 1, i, 1), shape...) }
	p := product{typ: ir.Float32, attrs: ir.Attrs{"rounding": "none"}}
	var out []*ir.Tensor
	for i := range steps {
		if gated {
			state = b.op2("mul", state, at(decay, i, batch, h, decay.Shape[2]/h, 1))
		}
		value := at(v, i, batch, h, 1, dv)
		if delta {
			value = b.op2("sub", value, b.matmul(at(k, i, batch, h, 1, dk), state, p))
			value = b.op2("mul", value, at(beta, i, batch, beta.Shape[2], 1, 1))
		}
		state = b.op2("add", state, b.op2("mul", at(k, i, batch, h, dk, 1), value))
		out = append(out, b.reshape(b.matmul(at(q, i, batch, h, qh/h, dk), state, p), batch, 1, qh*dv))
	}
	return []*ir.Tensor{b.reshapeCopy(b.cast(b.concat(1, out...), n.Inputs[0].Type)), b.reshapeCopy(b.cast(state, typ))}
}

// ruleCausalConv is a convolution of each channel by itself, that sees what was before, summed tap by tap in fp32.
func ruleCausalConv(b *builder, n *ir.Node) []*ir.Tensor {
	x, w, bias, past := n.Inputs[0], n.Inputs[1], n.Input(2), n.Input(3)
	if len(x.Shape) != 3 || len(w.Shape) != 3 || w.Shape[0] != x.Shape[1] || w.Shape[1] != 1 || w.Shape[2] < 1 || w.Shape[2] > mostSteps {
		b.fail(fixShapes, w, "weights %v for %v", w.Shape, x.Shape)
	}
	channels, length, taps := x.Shape[1], x.Shape[2], w.Shape[2]
	all := x
	if taps > 1 {
		if past == nil {
			past = b.expand(b.like(x, 0), []int{x.Shape[0], channels, taps - 1})
		}
		all = b.concat(2, past, x)
	}
	wide, weights := b.cast(all, ir.Float32), b.reshape(b.cast(w, ir.Float32), channels, taps)
	var y *ir.Tensor
	if bias != nil {
		y = b.reshape(b.cast(bias, ir.Float32), channels, 1)
	}
	for i := range taps {
		v := b.op2("mul", b.part(wide, 2, i, length), b.part(weights, 1, i, 1))
		if y == nil {
			y = v
		} else {
			y = b.op2("add", y, v)
		}
	}
	switch a := n.Attrs.Str("activation", "none"); a {
	case "none":
	case "silu", "swish":
		y = b.op1("silu", b.cast(b.cast(y, x.Type), ir.Float32)) // which rounds between, as ONNX says
	default:
		b.fail(fixValue, nil, "activation %q", a)
	}
	// part takes nothing of an axis from its begin.
	last := b.slice(all, []int{0, 0, length}, []int{x.Shape[0], channels, taps - 1}, []int{1, 1, 1})
	return []*ir.Tensor{b.reshapeCopy(b.cast(y, x.Type)), last}
}

// ruleSwiGLU is Swish of a gate times the value.
func ruleSwiGLU(b *builder, n *ir.Node) []*ir.Tensor {
	x, y := n.Inputs[0], n.Inputs[1]
	if !slices.Equal(x.Shape, y.Shape) || x.Type != y.Type {
		b.fail(fixShapes, y, "%s%v and %s%v", x.Type, x.Shape, y.Type, y.Shape)
	}
	g, alpha := b.cast(x, ir.Float32), n.Attrs.Float("alpha", 1)
	if alpha == 1 {
		g = b.op1("silu", g)
	} else {
		g = b.op2("mul", g, b.op1("sigmoid", b.scalar2("mul", g, alpha)))
	}
	return one(b.cast(b.op2("mul", g, b.cast(y, ir.Float32)), x.Type))
}

func stateRules() map[string]rule {
	return map[string]rule{"LinearAttention": ruleLinearAttention, "CausalConvWithState": ruleCausalConv, "SwiGLU": ruleSwiGLU}
}
