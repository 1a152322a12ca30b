// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"slices"

	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
)

// Integers keeps quantized tensors integers where nothing computes: it moves dequantizations behind copies and
// maxima, drops those that a quantization undoes, and makes tables of functions of one int8
// or uint8 between a dequantization and a quantization. The results are the same bits.
func Integers(g *ir.Graph) error {
	rewrite(g, integer)
	return nil
}

// onlyScale reports whether d is a dequantization to fp32 with one scale.
func onlyScale(d *ir.Node) bool {
	return d != nil && len(d.Attrs.Floats("scales")) == 1 && d.Outputs[0].Type == ir.Float32
}

func integer(r *rewriter, n *ir.Node) *ir.Tensor {
	if len(n.Inputs) == 0 {
		return nil
	}
	y := n.Outputs[0]
	if n.Op == "npu.quantize" && len(n.Attrs.Floats("scales")) == 1 {
		return quantizeBack(r, n)
	}
	d := r.from(n.Inputs[0], "npu.dequantize")
	if !onlyScale(d) {
		return nil
	}
	attrs, in := n.Attrs, []*ir.Tensor{d.Inputs[0]}
	switch n.Op {
	case "npu.transpose", "npu.reshape", "npu.slice", "npu.expand":
	case "npu.gather":
		in = append(in, n.Inputs[1])
	case "npu.pool":
		if n.Attrs.Str("kind", "") != "max" || emptyWindows(n) {
			return nil
		}
	case "npu.resize":
		if n.Attrs.Str("mode", "") == "linear" {
			return nil
		}
	case "npu.pad":
		if n.Attrs.Float("value", 0) != 0 {
			return nil
		}
		attrs = copyAttrs(attrs, ir.Attrs{"zero": int64(d.Attrs.Ints("zeros")[0])})
		delete(attrs, "value")
	case "npu.concat":
		for _, x := range n.Inputs[1:] {
			e := r.from(x, "npu.dequantize")
			if !onlyScale(e) || e.Inputs[0].Type != d.Inputs[0].Type || e.Attrs.Floats("scales")[0] != d.Attrs.Floats("scales")[0] || e.Attrs.Ints("zeros")[0] != d.Attrs.Ints("zeros")[0] {
				return nil
			}
			in = append(in, e.Inputs[0])
		}
	default:
		return nil
	}
	t := r.emit(n.Op, d.Inputs[0].Type, y.Shape, attrs, in...)
	return r.emit("npu.dequantize", y.Type, y.Shape, d.Attrs, t)
}

// emptyWindows reports whether a pool's window may lie in the padding alone, where a maximum is −∞.
func emptyWindows(n *ir.Node) bool {
	k, p, d := n.Attrs.Ints("kernel"), n.Attrs.Ints("pads"), n.Attrs.Ints("dilations")
	if d == nil {
		d = []int{1, 1}
	}
	return p[0] > (k[0]-1)*d[0] || p[2] > (k[0]-1)*d[0] || p[1] > (k[1]-1)*d[1] || p[3] > (k[1]-1)*d[1]
}

// quantizeBack replaces a quantization of what a dequantization and functions of one element make.
func quantizeBack(r *rewriter, n *ir.Node) *ir.Tensor {
	y := n.Outputs[0]
	var chain []*ir.Node // backwards
	t := n.Inputs[0]
	d := r.from(t, "npu.dequantize")
	for d == nil {
		m := r.producer[t]
		if m == nil || r.uses[t] != 1 || !pointwise(m) {
			return nil
		}
		chain = append(chain, m)
		t = variable(m)
		d = r.from(t, "npu.dequantize")
	}
	if !onlyScale(d) || !slices.Equal(d.Inputs[0].Shape, y.Shape) {
		return nil
	}
	x := d.Inputs[0]
	lo, hi := y.Type.Range()
	l, h := int64(n.Attrs.Int("lo", int(lo))), int64(n.Attrs.Int("hi", int(hi)))
	if len(chain) == 0 && x.Type == y.Type && x.Type.Bits() <= 16 && d.Attrs.Floats("scales")[0] == n.Attrs.Floats("scales")[0] && d.Attrs.Ints("zeros")[0] == n.Attrs.Ints("zeros")[0] {
		if l == lo && h == hi {
			return x
		}
		return r.emit("npu.clip", y.Type, y.Shape, ir.Attrs{"lo": l, "hi": h}, x)
	}
	eight := func(t ir.Type) bool { return t == ir.Int8 || t == ir.Uint8 }
	if !eight(x.Type) || !eight(y.Type) {
		return nil
	}
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	shape := []int{256}
	run := func(m *ir.Node, from *ir.Tensor, data []byte) []byte {
		c := *m
		c.Inputs = slices.Clone(m.Inputs)
		in := make([][]byte, len(m.Inputs))
		for i, s := range m.Inputs {
			if s == from {
				c.Inputs[i] = &ir.Tensor{Name: "x", Type: s.Type, Shape: shape}
				in[i] = data
			} else {
				flat := *s
				flat.Shape = nil // one element
				c.Inputs[i] = &flat
				in[i] = s.Data
			}
		}
		o := *m.Outputs[0]
		o.Shape = shape
		c.Outputs = []*ir.Tensor{&o}
		out, err := ref.Eval(&c, in)
		if err != nil {
			return nil
		}
		return out[0]
	}
	data := run(d, x, all)
	for _, m := range slices.Backward(chain) {
		if data == nil {
			return nil
		}
		data = run(m, variable(m), data)
	}
	if data == nil {
		return nil
	}
	table := run(n, n.Inputs[0], data)
	if table == nil {
		return nil
	}
	r.names++
	c := &ir.Tensor{Name: n.Name + ":table", Type: y.Type, Shape: shape, Data: table}
	return r.emit("npu.table", y.Type, y.Shape, nil, x, c)
}

// variable is the operand of a pointwise node that is no constant.
func variable(n *ir.Node) *ir.Tensor {
	if n.Inputs[0].Const() {
		return n.Inputs[1]
	}
	return n.Inputs[0]
}

// pointwise reports whether each element of a node's output depends on one of its operand's, all in the same way.
func pointwise(n *ir.Node) bool {
	switch n.Op {
	case "npu.clip":
		return true
	case "npu.element":
		if len(n.Inputs) == 1 {
			return true
		}
		x, y := n.Inputs[0], n.Inputs[1]
		v := variable(n)
		return x.Const() != y.Const() && (x.Const() && x.Elements() == 1 || y.Const() && y.Elements() == 1) && slices.Equal(v.Shape, n.Outputs[0].Shape)
	}
	return false
}
