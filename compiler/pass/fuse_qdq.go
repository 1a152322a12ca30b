// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"math"
	"slices"

	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
	"npuemu/core/num"
)

// FuseQDQ replaces Conv, Gemm and MatMul between DequantizeLinear and QuantizeLinear, with a Relu or Clip in
// front of the latter, by QLinearConv and QLinearMatMul: the product is then of integers, rounded
// as §6.9.3, as ONNX Runtime does. The clamp of the activation becomes the attributes lo and hi.
// What is not matched stays as it is, in floating point.
func FuseQDQ(g *ir.Graph) error {
	q := &qdq{uses: g.Uses(), producer: g.Producers(), outputs: g.Outputs}
	var nodes []*ir.Node
	replaced := map[*ir.Node][]*ir.Node{} // by the QuantizeLinear at the end
	for _, n := range g.Nodes {
		switch n.Op {
		case "Conv", "Gemm", "MatMul":
			if last, by := q.match(n); by != nil {
				replaced[last] = by
			}
		}
	}
	for _, n := range g.Nodes {
		if by := replaced[n]; by != nil {
			nodes = append(nodes, by...)
		} else {
			nodes = append(nodes, n)
		}
	}
	g.Nodes = nodes
	RemoveDead(g)
	uniqueNames(g) // products that share a bias or a zero point each have made one
	return nil
}

type qdq struct {
	uses     map[*ir.Tensor][]*ir.Node
	producer map[*ir.Tensor]*ir.Node
	outputs  []*ir.Tensor
}

// from is the DequantizeLinear that makes t, with constant scales and zero points of integers.
func (q *qdq) from(t *ir.Tensor) *ir.Node {
	d := q.producer[t]
	if d == nil || d.Op != "DequantizeLinear" || d.Inputs[0].Type.Float() || !d.Inputs[1].Const() || d.Inputs[1].Type != ir.Float32 {
		return nil
	}
	if z := d.Input(2); len(d.Inputs[1].Shape) > 1 || z != nil && !z.Const() {
		return nil
	}
	return d
}

// next is the only node that reads t, if t is no output of the graph.
func (q *qdq) next(t *ir.Tensor) *ir.Node {
	if u := q.uses[t]; len(u) == 1 && !slices.Contains(q.outputs, t) {
		return u[0]
	}
	return nil
}

// match gives the QuantizeLinear behind n and what takes the place of both.
func (q *qdq) match(n *ir.Node) (*ir.Node, []*ir.Node) {
	x, w := q.from(n.Inputs[0]), q.from(n.Inputs[1])
	if x == nil || w == nil || x.Inputs[1].Elements() != 1 {
		return nil, nil
	}
	xt, wt := x.Inputs[0].Type, w.Inputs[0].Type
	if xt != ir.Int8 && xt != ir.Uint8 && xt != ir.Int16 || wt != ir.Int8 && wt != ir.Uint8 {
		return nil, nil
	}
	attrs := ir.Attrs{}
	end := q.next(n.Outputs[0])
	lo, hi := float32(math.Inf(-1)), float32(math.Inf(1))
	if end != nil && (end.Op == "Relu" || end.Op == "Clip") {
		if end.Op == "Relu" {
			lo = 0
		}
		for i, v := range []*float32{&lo, &hi} {
			t := end.Input(1 + i)
			if t == nil {
				continue
			}
			if !t.Const() || t.Elements() != 1 {
				return nil, nil
			}
			*v = numbers(t)[0]
		}
		end = q.next(end.Outputs[0])
	}
	if end == nil || end.Op != "QuantizeLinear" || !end.Inputs[1].Const() || end.Inputs[1].Elements() != 1 || end.Input(2) == nil || !end.Inputs[2].Const() {
		return nil, nil
	}
	zero, scale := end.Inputs[2], numbers(end.Inputs[1])[0]
	yt := zero.Type
	if yt != ir.Int8 && yt != ir.Uint8 && yt != ir.Int16 || zero.Elements() != 1 {
		return nil, nil
	}
	tlo, thi := yt.Range()
	z := int32(ref.Ints(yt, zero.Data, 1)[0])
	attrs["lo"] = int64(num.Quantize(lo, scale, z, int32(tlo), int32(thi)))
	attrs["hi"] = int64(num.Quantize(hi, scale, z, int32(tlo), int32(thi)))
	in := []*ir.Tensor{x.Inputs[0], x.Inputs[1], zeroOf(x), w.Inputs[0], w.Inputs[1], zeroOf(w), end.Inputs[1], zero}
	fused := &ir.Node{Name: n.Name, Op: "QLinearMatMul", Inputs: in, Outputs: end.Outputs, Attrs: attrs, Origin: n}
	axis, channels := w.Attrs.Int("axis", 1), len(w.Inputs[0].Shape)-1
	var before []*ir.Node
	switch n.Op {
	case "Conv":
		fused.Op, channels = "QLinearConv", 0
		for k, v := range n.Attrs {
			attrs[k] = v
		}
		if !w.Inputs[0].Const() {
			return nil, nil
		}
	case "Gemm":
		if n.Attrs.Float("alpha", 1) != 1 || n.Attrs.Float("beta", 1) != 1 || n.Attrs.Int("transA", 0) != 0 {
			return nil, nil
		}
		if n.Attrs.Int("transB", 0) != 0 {
			channels = 0
			src := w.Inputs[0]
			t := &ir.Tensor{Name: src.Name + "/transposed", Type: src.Type, Shape: []int{src.Shape[1], src.Shape[0]}}
			before = []*ir.Node{{Name: n.Name + "/transpose", Op: "Transpose", Inputs: []*ir.Tensor{src}, Outputs: []*ir.Tensor{t}}}
			in[3] = t
		}
	}
	if axis < 0 {
		axis += len(w.Inputs[0].Shape)
	}
	if w.Inputs[1].Elements() != 1 && axis != channels {
		return nil, nil
	}
	if bias := n.Input(2); bias != nil {
		t := q.bias(bias, numbers(x.Inputs[1])[0], numbers(w.Inputs[1]))
		if t == nil {
			return nil, nil
		}
		fused.Inputs = append(fused.Inputs, t)
	}
	return end, append(before, fused)
}

// zeroOf is the zero point of a DequantizeLinear, of the operand's type.
func zeroOf(d *ir.Node) *ir.Tensor {
	if z := d.Input(2); z != nil {
		return z
	}
	return &ir.Tensor{Name: d.Name + "/zero", Type: d.Inputs[0].Type, Data: make([]byte, d.Inputs[0].Type.Bytes(1))}
}

// bias is a bias as int32 with scale x·w: that of a DequantizeLinear with this scale, or a constant that is
// quantized here.
func (q *qdq) bias(t *ir.Tensor, x float32, w []float32) *ir.Tensor {
	if d := q.from(t); d != nil {
		src, s := d.Inputs[0], numbers(d.Inputs[1])
		if src.Type != ir.Int32 || !src.Const() || len(src.Shape) != 1 || len(s) != len(w) {
			return nil
		}
		for i := range s {
			if want := num.Mul32(x, w[i]); math.Abs(float64(s[i]-want)) > 1e-5*float64(want) {
				return nil
			}
		}
		if z := d.Input(2); z != nil && slices.Max(ref.Ints(z.Type, z.Data, z.Elements())) != 0 {
			return nil
		}
		return src
	}
	if !t.Const() || len(t.Shape) != 1 || !t.Type.Float() {
		return nil
	}
	v := numbers(t)
	ints := make([]int64, len(v))
	for i := range v {
		s := w[0]
		if len(w) > 1 {
			s = w[i]
		}
		ints[i] = int64(num.Quantize(v[i], num.Mul32(x, s), 0, math.MinInt32, math.MaxInt32))
	}
	return &ir.Tensor{Name: t.Name + "/quantized", Type: ir.Int32, Shape: t.Shape, Data: ref.PutInts(ir.Int32, ints)}
}
