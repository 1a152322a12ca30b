// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"math"
	"slices"

	"npuemu/compiler/ir"
)

// attention is ONNX's Attention of q, k and v as [batch, heads, rows, size].
type attention struct {
	*builder
	typ        ir.Type // of scores: fp32 for narrower operands
	rows, keys int     // of queries, and of keys with those of the past
	past       int
	lengths    *ir.Tensor // int32[batch, 1, 1, 1]: keys that are there; nil for all
}

// ruleAttention writes Attention out. Rows in which everything is masked are 0.
func ruleAttention(b *builder, n *ir.Node) []*ir.Tensor {
	in := func(i int) *ir.Tensor { return n.Input(i) }
	q, k, v := in(0), in(1), in(2)
	flat := len(q.Shape) == 3
	a := &attention{builder: b, typ: q.Type}
	if q.Type.Float() && q.Type.Bits() < 32 {
		a.typ = ir.Float32
	}
	if flat {
		qh, kh := n.Attrs.Int("q_num_heads", 0), n.Attrs.Int("kv_num_heads", 0)
		if qh < 1 || kh < 1 {
			b.fail(fixValue, nil, "%d and %d heads of inputs with 3 axes", qh, kh)
		}
		q, k, v = a.heads(q, qh), a.heads(k, kh), a.heads(v, kh)
	}
	if len(q.Shape) != 4 || len(k.Shape) != 4 || len(v.Shape) != 4 {
		b.fail(fixShapes, v, "inputs %v, %v and %v have neither 3 nor 4 axes", q.Shape, k.Shape, v.Shape)
	}
	if p := in(4); p != nil {
		a.past = p.Shape[2]
		k, v = b.concat(2, p, k), b.concat(2, in(5), v)
	}
	key, value := k, v
	a.rows, a.keys = q.Shape[2], k.Shape[2]
	if t := in(6); t != nil {
		a.lengths = b.reshape(b.convert(t, ir.Int32, true), t.Elements(), 1, 1, 1)
	}
	if r := q.Shape[1] / max(1, k.Shape[1]); r > 1 {
		k, v = a.repeat(k, r), a.repeat(v, r)
	}
	s := b.matmul(q, b.transpose(k, 0, 1, 3, 2), product{typ: a.typ, attrs: ir.Attrs{"rounding": "none"}})
	s = b.scalar2("mul", s, n.Attrs.Float("scale", float32(1/math.Sqrt(float64(q.Shape[3])))))
	if c := n.Attrs.Float("softcap", 0); c > 0 {
		s = b.scalar2("mul", b.op1("tanh", b.scalar2("div", s, c)), c)
	}
	shown := s
	bias, open := a.bias(n, in(3))
	if bias != nil {
		s = b.op2("add", s, bias)
	}
	mode := n.Attrs.Int("qk_matmul_output_mode", 0)
	if mode == 2 {
		shown = s
	}
	if t, ok := elementTypes[n.Attrs.Int("softmax_precision", 0)]; ok {
		s = b.cast(s, t)
	}
	p := b.emit("npu.softmax", s.Type, s.Shape, nil, s)
	if bias != nil && !open {
		last := len(bias.Shape) - 1
		masked := b.scalar2("eq", b.reduce("max", bias, []int{last}), -inf)
		p = b.choose(masked, b.like(p, 0), p)
	}
	p = b.cast(p, a.typ)
	if mode == 3 {
		shown = p
	}
	y := b.matmul(p, v, product{typ: q.Type, attrs: ir.Attrs{"rounding": "none"}})
	if flat {
		y = b.transpose(y, 0, 2, 1, 3)
		y = b.reshape(y, y.Shape[0], y.Shape[1], y.Shape[2]*y.Shape[3])
	}
	return []*ir.Tensor{y, key, value, b.cast(shown, q.Type)}
}

// heads is [batch, rows, heads · size] as [batch, heads, rows, size].
func (a *attention) heads(x *ir.Tensor, heads int) *ir.Tensor {
	if len(x.Shape) != 3 || x.Shape[2]%heads != 0 {
		a.fail(fixShapes, x, "%v for %d heads", x.Shape, heads)
	}
	return a.transpose(a.reshape(x, x.Shape[0], x.Shape[1], heads, x.Shape[2]/heads), 0, 2, 1, 3)
}

// repeat has each head r times, one behind the other.
func (a *attention) repeat(x *ir.Tensor, r int) *ir.Tensor {
	s := x.Shape
	a.elements([]int{s[0], s[1], r, s[2], s[3]}) // which has a limit
	wide := a.expand(a.reshape(x, s[0], s[1], 1, s[2], s[3]), []int{s[0], s[1], r, s[2], s[3]})
	return a.reshape(wide, s[0], s[1]*r, s[2], s[3])
}

// bias is what is added to the scores: 0, or −∞ where a mask, the order or the window of keys, or their number is against it. open
// says that no row is masked as a whole. nil is no bias.
func (a *attention) bias(n *ir.Node, mask *ir.Tensor) (bias *ir.Tensor, open bool) {
	open = true
	add := func(t *ir.Tensor) {
		if bias == nil {
			bias = t
		} else {
			bias = a.op2("add", bias, t)
		}
	}
	against := func(allowed *ir.Tensor) {
		add(a.choose(allowed, a.floats(a.typ, nil, 0), a.floats(a.typ, nil, -inf)))
	}
	if mask != nil {
		open = false
		if less := a.keys - mask.Shape[len(mask.Shape)-1]; less > 0 {
			pads := make([]int, 2*len(mask.Shape))
			pads[len(pads)-1] = less
			mask = a.pad(mask, pads, 0, -inf)
		}
		if mask.Type == ir.Bool {
			against(mask)
		} else {
			add(a.cast(mask, a.typ))
		}
	}
	left, right := n.Attrs.Int("left_window_size", -1), n.Attrs.Int("right_window_size", -1)
	if n.Attrs.Int("is_causal", 0) != 0 {
		open = open && a.lengths == nil
		against(a.near("le", 0))
	}
	if left >= 0 {
		open = false
		against(a.near("ge", -left))
	}
	if right >= 0 {
		open = false
		against(a.near("le", right))
	}
	if a.lengths != nil {
		open = false
		at := make([]int, a.made(a.keys))
		for i := range at {
			at[i] = i
		}
		against(a.op2("lt", a.ints(ir.Int32, []int{1, 1, 1, a.keys}, at...), a.lengths))
	}
	return bias, open
}

// near compares the distance of a key from a query, key − query − offset, with d: the offset is the keys of the past, or with
// lengths those before the last rows of them.
func (a *attention) near(op string, d int) *ir.Tensor {
	v := make([]int, a.made(a.rows, a.keys))
	for i := range v {
		v[i] = i%a.keys - i/a.keys - d
		if a.lengths == nil || a.past > 0 {
			v[i] -= a.past
		} else {
			v[i] += a.rows
		}
	}
	distance, offset := a.ints(ir.Int32, []int{a.rows, a.keys}, v...), a.ints(ir.Int32, nil, 0)
	if a.lengths != nil && a.past == 0 {
		offset = a.lengths
	}
	if op == "ge" {
		return a.op2("le", offset, distance)
	}
	return a.op2("le", distance, offset)
}

// ruleRotary turns pairs of a head's elements by the angles of their position: of x [batch, heads, rows, size] or, with 3 axes,
// [batch, rows, heads · size].
func ruleRotary(b *builder, n *ir.Node) []*ir.Tensor {
	x, cos, sin := n.Inputs[0], n.Inputs[1], n.Inputs[2]
	s, rows := x.Shape, 2
	if len(s) == 3 {
		heads := n.Attrs.Int("num_heads", 0)
		if heads < 1 || s[2]%heads != 0 {
			b.fail(fixValue, x, "%d heads of %v", heads, s)
		}
		s, rows = []int{s[0], s[1], heads, s[2] / heads}, 1
	}
	if len(s) != 4 {
		b.fail(fixShapes, x, "%v has neither 3 nor 4 axes", s)
	}
	size := n.Attrs.Int("rotary_embedding_dim", 0)
	if size == 0 {
		size = s[3]
	}
	if size < 0 || size%2 != 0 || size > s[3] {
		b.fail(fixValue, x, "%d elements of %d are turned in pairs", size, s[3])
	}
	angle := []int{s[0], 1, 1, size / 2} // as x, one for all heads
	angle[rows] = s[rows]
	if at := n.Input(3); at != nil {
		cos, sin = b.gather(cos, at, 0), b.gather(sin, at, 0)
	}
	for _, t := range []*ir.Tensor{cos, sin} {
		if t.Elements() != s[0]*s[rows]*size/2 || t.Shape[len(t.Shape)-1] != size/2 {
			b.fail(fixShapes, t, "%v for pairs of %d elements and %d positions", t.Shape, size, s[0]*s[rows])
		}
	}
	cos, sin = b.reshape(cos, angle...), b.reshape(sin, angle...)
	y := b.reshape(x, s...)
	turned := b.part(y, 3, 0, size)
	pairs := []int{s[0], s[1], s[2], 2, size / 2} // halves, or neighbours
	axis := 3
	if n.Attrs.Int("interleaved", 0) != 0 {
		pairs[3], pairs[4], axis = size/2, 2, 4
	}
	turned = b.reshape(turned, pairs...)
	half := []int{s[0], s[1], s[2], size / 2}
	p, q := b.reshape(b.part(turned, axis, 0, 1), half...), b.reshape(b.part(turned, axis, 1, 1), half...)
	pair := slices.Insert(slices.Clone(half), axis, 1)
	first := b.reshape(b.op2("sub", b.op2("mul", cos, p), b.op2("mul", sin, q)), pair...)
	second := b.reshape(b.op2("add", b.op2("mul", sin, p), b.op2("mul", cos, q)), pair...)
	out := b.reshape(b.concat(axis, first, second), s[0], s[1], s[2], size)
	if size < s[3] {
		out = b.concat(3, out, b.part(y, 3, size, s[3]-size))
	}
	return one(b.reshapeCopy(b.reshape(out, x.Shape...)))
}

func attentionRules() map[string]rule {
	return map[string]rule{"Attention": ruleAttention, "RotaryEmbedding": ruleRotary}
}
