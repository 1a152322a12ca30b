// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"slices"

	"npuemu/compiler/ir"
)

// Layout removes transposes between N, C, H, W and N, H, W, C: it moves each behind the operations that do not
// mind, until it meets its inverse or an operation that does. A transpose that moves only axes of 1
// becomes a reshape; reshapes of reshapes become one.
func Layout(g *ir.Graph) error {
	rewrite(g, sink)
	return nil
}

func sink(r *rewriter, n *ir.Node) *ir.Tensor {
	if len(n.Inputs) == 0 || n.Inputs[0] == nil {
		return nil
	}
	x, y := n.Inputs[0], n.Outputs[0]
	t := r.from(x, "npu.transpose")
	var perm []int
	if t != nil {
		perm = t.Attrs.Ints("perm")
	}
	// behind emits n on the transpose's operand, and the transpose behind it.
	behind := func(change ir.Attrs, in ...*ir.Tensor) *ir.Tensor {
		inner := r.emit(n.Op, y.Type, permuted(y.Shape, inverse(perm)), copyAttrs(n.Attrs, change), in...)
		return r.emit("npu.transpose", y.Type, y.Shape, t.Attrs, inner)
	}
	switch n.Op {
	case "npu.reshape":
		if slices.Equal(x.Shape, y.Shape) {
			return x
		}
		if p := r.from(x, "npu.reshape"); p != nil {
			return r.emit("npu.reshape", y.Type, y.Shape, nil, p.Inputs[0])
		}
	case "npu.transpose":
		p := n.Attrs.Ints("perm")
		if slices.IsSorted(p) {
			return x
		}
		if t != nil {
			return r.emit("npu.transpose", y.Type, y.Shape, ir.Attrs{"perm": ir.IntList(permuted(perm, p)...)}, t.Inputs[0])
		}
		var order []int // of the axes that are not 1
		for _, a := range p {
			if x.Shape[a] != 1 {
				order = append(order, a)
			}
		}
		if slices.IsSorted(order) {
			return r.emit("npu.reshape", y.Type, y.Shape, nil, x)
		}
	case "npu.clip", "npu.cast":
		if t != nil {
			return behind(nil, t.Inputs[0])
		}
		return behindReshape(r, n)
	case "npu.table":
		if t != nil {
			return behind(nil, t.Inputs[0], n.Inputs[1])
		}
		return behindReshape(r, n)
	case "npu.requantize":
		if t != nil && len(n.Attrs.Floats("scales")) <= 1 && len(n.Attrs.Ints("multipliers")) <= 1 {
			return behind(nil, t.Inputs[0])
		}
	case "npu.quantize", "npu.dequantize":
		if t != nil && len(n.Attrs.Floats("scales")) == 1 {
			return behind(nil, t.Inputs[0])
		}
		if t == nil && len(n.Attrs.Floats("scales")) == 1 {
			return behindReshape(r, n)
		}
		if t != nil {
			return behind(ir.Attrs{"axis": int64(perm[n.Attrs.Int("axis", 0)])}, t.Inputs[0])
		}
	case "npu.slice":
		if t != nil {
			inv := inverse(perm)
			return behind(ir.Attrs{
				"starts": ir.IntList(permuted(n.Attrs.Ints("starts"), inv)...), "steps": ir.IntList(permuted(n.Attrs.Ints("steps"), inv)...),
			}, t.Inputs[0])
		}
	case "npu.pad":
		if t != nil {
			inv, pads := inverse(perm), n.Attrs.Ints("pads")
			k := len(inv)
			return behind(ir.Attrs{"pads": ir.IntList(slices.Concat(permuted(pads[:k], inv), permuted(pads[k:], inv))...)}, t.Inputs[0])
		}
	case "npu.gather":
		if t != nil && len(n.Inputs[1].Shape) == 1 {
			return behind(ir.Attrs{"axis": int64(perm[n.Attrs.Int("axis", 0)])}, t.Inputs[0])
		}
	case "npu.concat":
		if t == nil {
			return nil
		}
		var in []*ir.Tensor
		for _, s := range n.Inputs {
			p := r.from(s, "npu.transpose")
			if p == nil || !slices.Equal(p.Attrs.Ints("perm"), perm) {
				return nil
			}
			in = append(in, p.Inputs[0])
		}
		return behind(ir.Attrs{"axis": int64(perm[n.Attrs.Int("axis", 0)])}, in...)
	case "npu.softmax", "npu.layernorm", "npu.rmsnorm":
		return behindReshape(r, n)
	case "npu.element", "npu.select", "npu.qadd", "npu.qmul":
		if to := sinkBroadcast(r, n); to != nil {
			return to
		}
		return behindReshape(r, n)
	}
	return nil
}

// behindReshape moves the reshape of a product's result, or of what is computed of one, behind an operation of single elements or of
// rows, so that Fuse and Chains see both. Other operands are reshaped instead: those of all elements, those of one, and
// those that repeat along axes which the reshape leaves alone.
func behindReshape(r *rewriter, n *ir.Node) *ir.Tensor {
	y := n.Outputs[0]
	var p *ir.Node
	for _, x := range n.Inputs {
		if m := r.from(x, "npu.reshape"); m != nil && len(m.Inputs[0].Shape) > 0 && len(y.Shape) > 0 && r.uses[x] == 1 && slices.Equal(x.Shape, y.Shape) {
			if q := r.producer[m.Inputs[0]]; q != nil && (q.Op == "npu.gemm" || q.Op == "npu.conv" || elementwise(q)) {
				p = m
			}
		}
	}
	if p == nil {
		return nil
	}
	inner := p.Inputs[0]
	tail := sameTail(inner.Shape, y.Shape)
	if len(tail) == 0 && rowwise(n) {
		return nil
	}
	for _, x := range n.Inputs {
		// One of two shapes that products have: the lesser one, or the reshape would move for ever.
		q := r.producer[x]
		if x != p.Outputs[0] && x.Elements() == y.Elements() && q != nil && q.Op != "npu.reshape" && lesser(y.Shape, inner.Shape) {
			return nil
		}
	}
	var in []*ir.Tensor
	for i, x := range n.Inputs {
		own := x.Shape
		for len(own) > len(tail) && own[0] == 1 {
			own = own[1:]
		}
		switch {
		case x == p.Outputs[0]:
			in = append(in, inner)
		case i > 0 && (n.Op == "npu.table" || rowwise(n)) || x.Elements() == 1 && len(x.Shape) <= len(inner.Shape):
			in = append(in, x)
		case x.Elements() == y.Elements():
			in = append(in, r.emit("npu.reshape", x.Type, inner.Shape, nil, x))
		case len(own) <= len(tail):
			in = append(in, r.emit("npu.reshape", x.Type, own, nil, x))
		default:
			return nil
		}
	}
	out := r.emit(n.Op, y.Type, inner.Shape, n.Attrs, in...)
	return r.emit("npu.reshape", y.Type, y.Shape, nil, out)
}

// lesser reports whether a has fewer axes than b, or as many and the first one that differs is shorter.
func lesser(a, b []int) bool {
	if len(a) != len(b) {
		return len(a) < len(b)
	}
	return slices.Compare(a, b) < 0
}

// sameTail are the last axes that two shapes have in common.
func sameTail(a, b []int) []int {
	k := 0
	for k < len(a) && k < len(b) && a[len(a)-1-k] == b[len(b)-1-k] {
		k++
	}
	return a[len(a)-k:]
}

// rowwise reports whether n computes rows of the last axis.
func rowwise(n *ir.Node) bool {
	return n.Op == "npu.softmax" || n.Op == "npu.layernorm" || n.Op == "npu.rmsnorm"
}

// sinkBroadcast moves the transposes of all operands behind n: they are the same, or the operand is a
// constant or has one axis, which is turned around instead.
func sinkBroadcast(r *rewriter, n *ir.Node) *ir.Tensor {
	y := n.Outputs[0]
	rank := len(y.Shape)
	var t *ir.Node
	var others []*ir.Tensor
	for _, x := range n.Inputs {
		if p := r.from(x, "npu.transpose"); p != nil && len(x.Shape) == rank {
			if t != nil && !slices.Equal(t.Attrs.Ints("perm"), p.Attrs.Ints("perm")) {
				return nil
			}
			t = p
		} else if x.Elements() != 1 && !x.Const() {
			others = append(others, x)
		}
	}
	if t == nil || slices.ContainsFunc(others, func(x *ir.Tensor) bool { return !oneAxis(x.Shape) }) {
		return nil
	}
	inv := inverse(t.Attrs.Ints("perm"))
	var in []*ir.Tensor
	for _, x := range n.Inputs {
		switch p := r.from(x, "npu.transpose"); {
		case p != nil && len(x.Shape) == rank:
			in = append(in, p.Inputs[0])
		case x.Elements() == 1:
			in = append(in, x)
		default:
			wide := append(slices.Repeat([]int{1}, rank-len(x.Shape)), x.Shape...)
			c := r.emit("npu.reshape", x.Type, wide, nil, x)
			in = append(in, r.emit("npu.transpose", x.Type, permuted(wide, inv), ir.Attrs{"perm": ir.IntList(inv...)}, c))
		}
	}
	inner := r.emit(n.Op, y.Type, permuted(y.Shape, inv), n.Attrs, in...)
	return r.emit("npu.transpose", y.Type, y.Shape, t.Attrs, inner)
}

// oneAxis reports whether all axes but one are 1, so that a transpose moves nothing.
func oneAxis(shape []int) bool {
	more := 0
	for _, d := range shape {
		if d != 1 {
			more++
		}
	}
	return more <= 1
}
