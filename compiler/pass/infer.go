// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"slices"

	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
)

// foldLimit bounds the bytes of a constant that folding makes: the graph of a small file must not become gigabytes.
const foldLimit = 64 << 20

// Infer gives every tensor of a model's graph its type and shape, and replaces what is known now
// by constants: shapes, and what is computed of constants only. (De)quantization of constants
// stays, since FuseQDQ looks for it. Control flow is written out (control.go).
func Infer(g *ir.Graph) error {
	in := &inference{rs: rules(), known: map[*ir.Tensor]*ir.Tensor{}, later: map[*ir.Tensor]bool{}}
	if err := in.run(g.Nodes); err != nil {
		return err
	}
	g.Nodes = in.nodes
	replace(g.Outputs, in.known)
	return nil
}

// inference is what Infer knows.
type inference struct {
	rs    map[string]rule
	nodes []*ir.Node // that are left
	known map[*ir.Tensor]*ir.Tensor
	later map[*ir.Tensor]bool

	// What control flow was written out as: nodes, what was copied for it, and bytes of constants since.
	made, copied, folded int
}

func (in *inference) run(nodes []*ir.Node) error {
	for _, n := range nodes {
		if err := in.node(n); err != nil {
			return err
		}
	}
	return nil
}

func (in *inference) node(n *ir.Node) error {
	replace(n.Inputs, in.known)
	if n.Device() || n.Host() {
		in.nodes = append(in.nodes, n)
		return nil
	}
	if f := control(n.Op); f != nil {
		return f(in, n)
	}
	b, out, err := apply(in.rs, n, in.later)
	if err != nil {
		return err
	}
	data, err := evaluate(n, b, out)
	if err != nil {
		return err
	}
	whole, soon := true, constantLater(n.Inputs, in.later)
	for i, t := range n.Outputs {
		if t == nil {
			continue
		}
		t.Type, t.Shape = out[i].Type, slices.Clone(out[i].Shape)
		if d := data[out[i]]; d != nil {
			if in.made > 0 {
				in.folded += len(d)
			}
			if in.folded > mostFolded {
				return n.Errorf("constants that control flow makes take more than %d bytes", mostFolded).WithRemedy(string(makeSmaller))
			}
			in.known[t] = &ir.Tensor{Name: t.Name, Type: t.Type, Shape: t.Shape, Data: d}
		} else {
			whole = false
			in.later[t] = soon
		}
	}
	if !whole {
		in.nodes = append(in.nodes, n)
	}
	return nil
}

// constantLater reports whether all of a node's inputs are constants, or will be.
func constantLater(in []*ir.Tensor, later map[*ir.Tensor]bool) bool {
	return !slices.ContainsFunc(in, func(t *ir.Tensor) bool { return t != nil && !t.Const() && !later[t] })
}

func replace(ts []*ir.Tensor, by map[*ir.Tensor]*ir.Tensor) {
	for i, t := range ts {
		if r := by[t]; r != nil {
			ts[i] = r
		}
	}
}

// evaluate computes the outputs of a rule that depend on constants only, if they are small.
func evaluate(n *ir.Node, b *builder, out []*ir.Tensor) (map[*ir.Tensor][]byte, error) {
	data := map[*ir.Tensor][]byte{}
	for _, t := range out {
		if t.Const() {
			data[t] = t.Data
		}
	}
	if n.Op == "QuantizeLinear" || n.Op == "DequantizeLinear" || len(data) == len(out) {
		return data, nil
	}
	value := func(t *ir.Tensor) []byte {
		if t.Const() {
			return t.Data
		}
		return data[t]
	}
	for _, m := range b.nodes {
		size := m.Outputs[0].Bytes()
		in, ok := make([][]byte, len(m.Inputs)), size >= 0 && size <= foldLimit
		for i, t := range m.Inputs {
			in[i] = value(t)
			ok = ok && in[i] != nil
		}
		if !ok {
			continue
		}
		if err := m.Check(); err != nil && !ref.Wide(m) {
			return nil, m.InModel(err)
		}
		v, err := ref.Eval(m, in)
		if err != nil {
			return nil, m.InModel(err)
		}
		data[m.Outputs[0]] = v[0]
	}
	return data, nil
}
