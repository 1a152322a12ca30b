// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"slices"

	"npuemu/compiler/ir"
)

// recurrent is RNN, GRU or LSTM: what a direction of it needs. Gates are in ONNX's order.
type recurrent struct {
	*builder
	n            *ir.Node
	gates        int
	steps, batch int
	size         int // of the state
	acts         []string
	w, wb        *ir.Tensor   // [input, gates · size], and the bias [gates · size], nil for none
	r            affine       // of the state
	candidate    *affine      // of the state that is reset, which has the last gate of r then; nil if r has all
	peepholes    []*ir.Tensor // [size] of gates i, o and f; nil for none
	forward      bool
	lengths      *ir.Tensor // int32 [batch, 1], of sequences that may be shorter than the steps; nil for none
	clip         float32    // of what the functions of gates get; 0 for none
	coupled      bool       // LSTM: the gate that forgets is what the one of the input leaves
}

// affine is a product with r [size, gates · size], and a bias [gates · size], nil for none.
type affine struct{ r, bias *ir.Tensor }

// gates are some of its gates.
func (a affine) gates(b *builder, first, count, size int) affine {
	a.r = b.part(a.r, 1, first*size, count*size)
	if a.bias != nil {
		a.bias = b.part(a.bias, 0, first*size, count*size)
	}
	return a
}

// defaultActs are the functions of the gates, of their candidates, and of LSTM's output.
var defaultActs = map[string][]string{"RNN": {"Tanh"}, "GRU": {"Sigmoid", "Tanh"}, "LSTM": {"Sigmoid", "Tanh", "Tanh"}}

// ruleRecurrent writes RNN, GRU or LSTM out. What all steps do with the input is one product.
func ruleRecurrent(op string, gates int) rule {
	return func(b *builder, n *ir.Node) []*ir.Tensor {
		x, w, r := n.Inputs[0], n.Inputs[1], n.Inputs[2]
		if !x.Type.Float() {
			b.fail(fixTypes, x, "%s is no floating-point type", x.Type)
		}
		layout := n.Attrs.Int("layout", 0) != 0
		if layout {
			x = b.transpose(x, 1, 0, 2)
		}
		dirs := map[string][]bool{"forward": {true}, "reverse": {false}, "bidirectional": {true, false}}[n.Attrs.Str("direction", "forward")]
		if dirs == nil || len(x.Shape) != 3 || len(w.Shape) != 3 || len(r.Shape) != 3 || w.Shape[0] != len(dirs) || r.Shape[0] != len(dirs) {
			b.fail(fixValue, w, "direction %q of x %v, w %v and r %v", n.Attrs.Str("direction", "forward"), x.Shape, w.Shape, r.Shape)
		}
		size := r.Shape[2]
		if w.Shape[1] != gates*size || r.Shape[1] != gates*size || w.Shape[2] != x.Shape[2] {
			b.fail(fixShapes, w, "w %v and r %v are not those of %d gates for x %v", w.Shape, r.Shape, gates, x.Shape)
		}
		if x.Shape[0] < 1 || x.Shape[0] > mostSteps {
			b.fail(makeSmaller, x, "%d steps are written out, one after the other, and %d is the most", x.Shape[0], mostSteps)
		}
		lengths := b.lengths(n, x)
		acts, ok := n.Attrs["activations"].([]string)
		if !ok {
			acts = slices.Concat(defaultActs[op], defaultActs[op])
		}
		each := len(defaultActs[op])
		if len(acts) < each*len(dirs) {
			b.fail(fixValue, nil, "%d activations for %d directions", len(acts), len(dirs))
		}
		var ys, hs, cs []*ir.Tensor
		for d, forward := range dirs {
			part := func(i int, shape ...int) *ir.Tensor {
				if t := n.Input(i); t != nil {
					return b.reshape(b.part(t, 0, d, 1), shape...)
				}
				return nil
			}
			state := func(i int) *ir.Tensor {
				if t := n.Input(i); t != nil && layout {
					return b.reshape(b.part(t, 1, d, 1), x.Shape[1], size)
				}
				if t := part(i, x.Shape[1], size); t != nil {
					return t
				}
				return b.expand(b.like(x, 0), []int{x.Shape[1], size})
			}
			c := &recurrent{
				builder: b, n: n, gates: gates, steps: x.Shape[0], batch: x.Shape[1], size: size, acts: acts[d*each : (d+1)*each],
				w: b.transpose(part(1, gates*size, x.Shape[2]), 1, 0), forward: forward,
				clip: n.Attrs.Float("clip", 0), coupled: n.Attrs.Int("input_forget", 0) != 0, lengths: lengths,
			}
			r, bias := b.transpose(part(2, gates*size, size), 1, 0), part(3, 2*gates*size)
			if bias != nil {
				c.wb, bias = b.part(bias, 0, 0, gates*size), b.part(bias, 0, gates*size, gates*size)
			}
			c.r = affine{r, bias}
			if op == "GRU" && n.Attrs.Int("linear_before_reset", 0) == 0 {
				last := c.r.gates(b, 2, 1, size)
				c.r, c.candidate = c.r.gates(b, 0, 2, size), &last
			}
			if op == "LSTM" {
				if t := part(7, 3*size); t != nil {
					c.peepholes = []*ir.Tensor{b.part(t, 0, 0, size), b.part(t, 0, size, size), b.part(t, 0, 2*size, size)}
				}
			}
			var cell *ir.Tensor
			if op == "LSTM" {
				cell = state(6)
			}
			y, h, cell := c.run(x, state(5), cell)
			ys, hs, cs = append(ys, y), append(hs, h), append(cs, cell)
		}
		// y is [steps, directions, batch, size], or with layout [batch, steps, directions, size].
		y, last := b.concat(1, ys...), b.concat(0, hs...)
		out := []*ir.Tensor{y, last}
		if op == "LSTM" {
			out = append(out, b.concat(0, cs...))
		}
		for i, t := range out {
			if layout && i == 0 {
				t = b.transpose(t, 2, 0, 1, 3)
			} else if layout {
				t = b.transpose(t, 1, 0, 2)
			}
			out[i] = b.reshapeCopy(t)
		}
		return out
	}
}

// lengths are those of the sequences, nil if all have all steps. Attributes that are not supported are refused.
func (b *builder) lengths(n *ir.Node, x *ir.Tensor) *ir.Tensor {
	for _, a := range []string{"activation_alpha", "activation_beta"} {
		if n.Attrs.Has(a) {
			b.fail(replaceNode, nil, "attribute %s is not supported", a)
		}
	}
	if c := n.Attrs.Float("clip", 0); c < 0 || c != c {
		b.fail(fixValue, nil, "clip is %g", c)
	}
	t := n.Input(4)
	if t == nil {
		return nil
	}
	if t.Elements() != x.Shape[1] {
		b.fail(fixShapes, t, "%v lengths of %d sequences", t.Shape, x.Shape[1])
	}
	if t.Const() {
		all := true
		for _, l := range b.constInts(4) {
			if l < 0 || l > x.Shape[0] {
				b.fail(fixValue, t, "a sequence of %d of %d steps", l, x.Shape[0])
			}
			all = all && l == x.Shape[0]
		}
		if all {
			return nil
		}
	}
	return b.reshape(b.index32(t), x.Shape[1], 1)
}

// run is a direction: the states behind all steps, and the last one, each with an axis for the direction, and LSTM's cell.
func (c *recurrent) run(x, h, cell *ir.Tensor) (y, last, lastCell *ir.Tensor) {
	all := c.product(c.reshape(x, c.steps*c.batch, x.Shape[2]), c.w)
	if c.wb != nil {
		all = c.op2("add", all, c.wb)
	}
	all = c.reshape(all, c.steps, c.batch, c.gates*c.size)
	states := make([]*ir.Tensor, c.steps)
	for i := range states {
		if !c.forward {
			i = c.steps - 1 - i
		}
		in := c.reshape(c.part(all, 0, i, 1), c.batch, c.gates*c.size)
		before, cellBefore := h, cell
		switch c.n.Op {
		case "RNN":
			h = c.act(0, c.op2("add", in, c.of(c.r, h)))
		case "GRU":
			h = c.gru(in, h)
		default:
			h, cell = c.lstm(in, h, cell)
		}
		shown := h
		if c.lengths != nil { // behind a sequence's end the output is 0, and the state stays; from the end it begins there
			on := c.op2("lt", c.ints(ir.Int32, nil, i), c.lengths)
			shown, h = c.choose(on, h, c.like(h, 0)), c.choose(on, h, before)
			if cell != nil {
				cell = c.choose(on, cell, cellBefore)
			}
		}
		states[i] = c.reshape(shown, 1, 1, c.batch, c.size)
	}
	last = c.reshape(h, 1, c.batch, c.size)
	if cell != nil {
		lastCell = c.reshape(cell, 1, c.batch, c.size)
	}
	return c.concat(0, states...), last, lastCell
}

func (c *recurrent) product(x, w *ir.Tensor) *ir.Tensor {
	return c.matmul(x, w, product{typ: x.Type, attrs: ir.Attrs{"rounding": "none"}})
}

// of is what gates get of the state.
func (c *recurrent) of(a affine, h *ir.Tensor) *ir.Tensor {
	y := c.product(h, a.r)
	if a.bias != nil {
		y = c.op2("add", y, a.bias)
	}
	return y
}

// gate is the part of gate i in what all gates get.
func (c *recurrent) gate(t *ir.Tensor, i int) *ir.Tensor {
	return c.part(t, len(t.Shape)-1, i*c.size, c.size)
}

// act is function i.
func (c *recurrent) act(i int, x *ir.Tensor) *ir.Tensor {
	if c.clip > 0 && i < 2 { // LSTM's cell is not, as ONNX Runtime has it
		x = c.builder.clip(x, -c.clip, c.clip)
	}
	switch c.acts[i] {
	case "Sigmoid":
		return c.op1("sigmoid", x)
	case "Tanh":
		return c.op1("tanh", x)
	case "Relu":
		return c.op1("relu", x)
	case "HardSigmoid":
		return c.builder.clip(c.scalar2("add", c.scalar2("mul", x, 0.2), 0.5), 0, 1)
	case "Softsign":
		return c.op2("div", x, c.scalar2("add", c.op1("abs", x), 1))
	}
	c.fail(replaceNode, nil, "activation %q is not supported; Sigmoid, Tanh, Relu, HardSigmoid and Softsign are", c.acts[i])
	return nil
}

// gru has the gates z, r and h.
func (c *recurrent) gru(in, h *ir.Tensor) *ir.Tensor {
	state := c.of(c.r, h)
	z := c.act(0, c.op2("add", c.gate(in, 0), c.gate(state, 0)))
	r := c.act(0, c.op2("add", c.gate(in, 1), c.gate(state, 1)))
	var of *ir.Tensor
	if c.candidate != nil {
		of = c.of(*c.candidate, c.op2("mul", r, h))
	} else {
		of = c.op2("mul", r, c.gate(state, 2))
	}
	next := c.act(1, c.op2("add", c.gate(in, 2), of))
	return c.op2("add", next, c.op2("mul", z, c.op2("sub", h, next)))
}

// lstm has the gates i, o, f and c.
func (c *recurrent) lstm(in, h, cell *ir.Tensor) (_, _ *ir.Tensor) {
	sum := c.op2("add", in, c.of(c.r, h))
	gate := func(i int, cell *ir.Tensor) *ir.Tensor {
		t := c.gate(sum, i)
		if c.peepholes != nil {
			t = c.op2("add", t, c.op2("mul", c.peepholes[i], cell))
		}
		return c.act(0, t)
	}
	input := gate(0, cell)
	var forget *ir.Tensor
	if c.coupled {
		forget = c.op2("sub", c.like(input, 1), input)
	} else {
		forget = gate(2, cell)
	}
	next := c.op2("add", c.op2("mul", forget, cell), c.op2("mul", input, c.act(1, c.gate(sum, 3))))
	return c.op2("mul", gate(1, next), c.act(2, next)), next
}

func recurrentRules() map[string]rule {
	return map[string]rule{"RNN": ruleRecurrent("RNN", 1), "GRU": ruleRecurrent("GRU", 3), "LSTM": ruleRecurrent("LSTM", 4)}
}
