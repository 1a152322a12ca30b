// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"

	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
)

// Rules is a model as its operators' rules alone make it: nothing is fused, nothing moves, and no product of floating point has become
// one of integers. What the passes made of the same model is compared with it.
type Rules struct {
	Graph *ir.Graph

	names    map[string]bool // of the tensors that the model's nodes make
	products ir.Type         // that the compiled graph has in place of fp32; here they stay that
}

// Rules reads the model as Load does, for its operators' rules alone. It is nil for a graph of the device level, which no pass has made
// anything else of.
func (s Source) Rules() (*Rules, error) {
	s.rules = true
	r := &Rules{names: map[string]bool{}, products: s.products()}
	g, err := s.Load(func(_ string, g *ir.Graph) {
		for _, n := range g.Nodes {
			for _, t := range n.Outputs {
				if t != nil {
					r.names[t.Name] = true
				}
			}
		}
	})
	if err != nil {
		return nil, err
	}
	if g.After == "" {
		return nil, nil
	}
	r.Graph = g
	return r, nil
}

// RulesReport is how far what the passes made of a model is from the rules of its operators.
type RulesReport struct {
	Compared   int         `json:"compared"`   // tensors that the model names and that both have
	Rounded    int         `json:"rounded"`    // of them: those in front of which something was rounded anew, which may differ
	Differ     int         `json:"differ"`     // of these: those that do, as far as they may
	Skipped    int         `json:"skipped"`    // tensors that both have, and of which no tolerance can be stated
	Nodes      int         `json:"nodes"`      // of the model as its rules make it
	Difference *Difference `json:"difference"` // nil: there is none
}

// Difference is the first tensor, in the order of the model, that the passes made something else of.
type Difference struct {
	Node      string  `json:"node"` // of the model
	Op        string  `json:"op"`
	Tensor    string  `json:"tensor"`
	Type      string  `json:"type"`
	Shape     []int   `json:"shape"`
	Index     []int   `json:"index"` // of the first element
	Want      string  `json:"want"`  // by the rules
	Got       string  `json:"got"`
	Elements  int     `json:"elements"` // that differ by more than Tolerance
	Tolerance float64 `json:"tolerance"`

	Rule string `json:"rule,omitempty"` // of an output that is of another type or shape, or not there
}

func (d *Difference) String() string {
	head := fmt.Sprintf("node %q (%s) of the model: tensor %q, %s%v: ", d.Node, d.Op, d.Tensor, d.Type, d.Shape)
	if d.Rule != "" {
		return head + d.Rule
	}
	return head + fmt.Sprintf("element %v is %s in the compiled graph, and %s by the rules of the operators alone; %d of %d elements are more than %g apart: the compiler is at fault",
		d.Index, d.Got, d.Want, d.Elements, ir.Elements(d.Shape), d.Tolerance)
}

// kept is what a graph that passes have made computes of the tensors that the rules have, too: those of the same name, type and shape.
type kept struct {
	tensors map[string]*ir.Tensor   // by name
	views   map[*ir.Tensor]*ir.Node // what makes those that no node makes any more
	needed  map[*ir.Tensor]bool     // to have tensors
	data    map[*ir.Tensor][]byte   // of those that are needed
}

// keep finds the tensors of g, whose inputs have this data.
func (r *Rules) keep(g *ir.Graph, inputs [][]byte) *kept {
	own := map[string]*ir.Tensor{}
	for _, n := range r.Graph.Nodes {
		for _, t := range n.Outputs {
			if t != nil && (r.names[t.Name] || slices.Contains(r.Graph.Outputs, t)) {
				own[t.Name] = t
			}
		}
	}
	k := &kept{tensors: map[string]*ir.Tensor{}, views: map[*ir.Tensor]*ir.Node{}, needed: map[*ir.Tensor]bool{}, data: map[*ir.Tensor][]byte{}}
	for i, t := range g.Inputs {
		k.data[t] = inputs[i]
	}
	add := func(t *ir.Tensor) bool {
		if t == nil || own[t.Name] == nil || !sameKind(own[t.Name], t) || k.tensors[t.Name] != nil {
			return false
		}
		k.tensors[t.Name] = t
		return true
	}
	for _, n := range g.Nodes {
		for _, t := range n.Outputs {
			if add(t) {
				k.needed[t] = true
			}
		}
	}
	for _, v := range g.Views {
		k.views[v.Outputs[0]] = v
	}
	for _, v := range g.Views {
		if t := v.Outputs[0]; add(t) {
			for k.views[t] != nil {
				t = k.views[t].Inputs[0]
			}
			k.needed[t] = true
		}
	}
	return k
}

func sameKind(a, b *ir.Tensor) bool { return a.Type == b.Type && slices.Equal(a.Shape, b.Shape) }

// see notes what a node computed.
func (k *kept) see(n *ir.Node, out [][]byte) {
	for i, t := range n.Outputs {
		if k.needed[t] {
			k.data[t] = out[i]
		}
	}
}

// value is the data of t, nil if there is none.
func (k *kept) value(t *ir.Tensor) ([]byte, error) {
	if t.Const() {
		return t.Data, nil
	}
	if b, ok := k.data[t]; ok || k.views[t] == nil {
		return b, nil
	}
	in, err := k.value(k.views[t].Inputs[0])
	if in == nil || err != nil {
		return nil, err
	}
	out, err := ref.Eval(k.views[t], [][]byte{in})
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// compare runs the rules on the inputs, and compares what they make with what is kept of g. Behind each tensor that is compared it
// goes on with that of g, so that each is compared by itself.
func (r *Rules) compare(ctx context.Context, g *ir.Graph, k *kept, inputs [][]byte, progress Progress) (v RulesReport, err error) {
	v.Nodes = len(r.Graph.Nodes)
	if d := r.outputs(g); d != nil {
		v.Difference = d
		return v, nil
	}
	rounded := map[*ir.Tensor]bool{} // what a product of floating point is part of, since the last tensor that was compared
	done := 0
	_, err = ref.Run(r.Graph, inputs, func(n *ir.Node, out [][]byte) error {
		anew := product(n) && n.Inputs[0].Type.Float()
		for _, t := range n.Inputs {
			anew = anew || rounded[t]
		}
		for i, t := range n.Outputs {
			if t == nil {
				continue
			}
			rounded[t] = anew
			u := k.tensors[t.Name]
			if u == nil {
				continue
			}
			got, err := k.value(u)
			if err != nil {
				return err
			}
			if got == nil {
				continue
			}
			tolerance, stated := 0.0, true
			if anew {
				tolerance, stated = r.tolerance(t, out[i])
			}
			if !stated {
				v.Skipped++
				continue
			}
			v.Compared++
			if anew {
				v.Rounded++
				if !bytes.Equal(out[i], got) {
					v.Differ++
				}
			}
			if d := differ(t, out[i], got, tolerance); d != nil && v.Difference == nil {
				d.Node, d.Op = n.Root().Name, n.Root().Op
				v.Difference = d
			}
			out[i], rounded[t] = got, false
		}
		done++
		progress(done, v.Nodes, n.Name)
		return context.Cause(ctx)
	})
	if err != nil {
		return v, fmt.Errorf("the rules of the operators: %w", err)
	}
	return v, nil
}

// product reports whether n is a sum of products.
func product(n *ir.Node) bool { return Operator(n.Op) == "conv" || Operator(n.Op) == "gemm" }

// outputs is the first output of g that is none of the rules'.
func (r *Rules) outputs(g *ir.Graph) *Difference {
	for i, t := range r.Graph.Outputs {
		d := &Difference{Tensor: t.Name, Type: t.Type.String(), Shape: t.Shape}
		switch {
		case i >= len(g.Outputs):
			d.Rule = "the compiled graph does not have this output"
		case !sameKind(g.Outputs[i], t) || g.Outputs[i].Name != t.Name:
			d.Rule = fmt.Sprintf("the compiled graph has %s in its place", g.Outputs[i])
		default:
			continue
		}
		for _, n := range r.Graph.Nodes {
			if slices.Contains(n.Outputs, t) {
				d.Node, d.Op = n.Root().Name, n.Root().Op
			}
		}
		return d
	}
	return nil
}

// tolerances are what a tensor of floating point may differ by behind a product whose rounding is another, as a part of its largest
// element: 2⁷ and more steps of fp32, four of the others.
var tolerances = map[ir.Type]float64{ir.Float64: 0x1p-16, ir.Float32: 0x1p-16, ir.Float16: 0x1p-9, ir.BFloat16: 0x1p-6}

// tolerance is by how much elements of t, whose data is b, may differ if something was rounded anew in front of it: a step of integers
// of up to 16 bits, a part of the largest element in floating point. Where products of fp32 became bf16 or fp16, integers may differ by that part
// of their range besides. Of other types, which count and compare, nothing can be said.
func (r *Rules) tolerance(t *ir.Tensor, b []byte) (float64, bool) {
	part, float := tolerances[t.Type]
	switch {
	case !float:
		step := 1.0
		if r.products != ir.Float32 {
			step += tolerances[r.products] * float64(uint64(1)<<min(t.Type.Bits(), 16))
		}
		return step, t.Type != ir.Bool && t.Type.Bits() <= 16
	case t.Type == ir.Float32:
		part = max(part, tolerances[r.products])
	}
	largest := 0x1p-100 // of zeros alone
	for _, x := range ref.Doubles(t.Type, b, t.Elements()) {
		if x = math.Abs(x); x > largest && !math.IsInf(x, 0) {
			largest = x
		}
	}
	return part * largest, true
}

// differ is the first element that is more than tolerance apart, nil if none is.
func differ(t *ir.Tensor, want, got []byte, tolerance float64) *Difference {
	if bytes.Equal(want, got) {
		return nil
	}
	d := &Difference{Tensor: t.Name, Type: t.Type.String(), Shape: t.Shape, Tolerance: tolerance}
	a, b := ref.Doubles(t.Type, want, t.Elements()), ref.Doubles(t.Type, got, t.Elements())
	size := max(t.Type.Bits()/8, 1)
	for i := range a {
		switch {
		case t.Type.Bits() < 8 && a[i] == b[i], t.Type.Bits() >= 8 && bytes.Equal(want[i*size:][:size], got[i*size:][:size]):
			continue
		case tolerance > 0 && (a[i] == b[i] || math.Abs(a[i]-b[i]) <= tolerance || math.IsNaN(a[i]) && math.IsNaN(b[i])):
			continue
		}
		if d.Elements++; d.Elements == 1 {
			d.Index, d.Want, d.Got = index(i, t.Shape), fmt.Sprint(a[i]), fmt.Sprint(b[i])
		}
	}
	if d.Elements == 0 {
		return nil
	}
	return d
}
