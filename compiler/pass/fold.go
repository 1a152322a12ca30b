// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
)

// Fold replaces nodes of the device level that read only constants by their results, unless those are much
// larger than what they are made of, and removes nodes that nothing uses.
func Fold(g *ir.Graph) error {
	known := map[*ir.Tensor]*ir.Tensor{}
	nodes := g.Nodes[:0:0]
	for _, n := range g.Nodes {
		replace(n.Inputs, known)
		in, ok, size := make([][]byte, len(n.Inputs)), true, 0
		for i, t := range n.Inputs {
			ok = ok && t.Const()
			if ok {
				in[i] = t.Data
				size += len(t.Data)
			}
		}
		if !ok || n.Outputs[0].Bytes() < 0 || n.Outputs[0].Bytes() > max(foldLimit, 16*size) || n.Check() != nil && !ref.Wide(n) {
			nodes = append(nodes, n)
			continue
		}
		out, err := ref.Eval(n, in)
		if err != nil {
			return n.InModel(err)
		}
		t := n.Outputs[0]
		known[t] = &ir.Tensor{Name: t.Name, Type: t.Type, Shape: t.Shape, Quant: t.Quant, Data: append([]byte{}, out[0]...)}
	}
	g.Nodes = nodes
	replace(g.Outputs, known)
	RemoveDead(g)
	return nil
}

// RemoveDead removes nodes of which nothing reads an output.
func RemoveDead(g *ir.Graph) {
	used := map[*ir.Tensor]bool{}
	for _, t := range g.Outputs {
		used[t] = true
	}
	keep := make([]bool, len(g.Nodes))
	for i := len(g.Nodes) - 1; i >= 0; i-- {
		for _, t := range g.Nodes[i].Outputs {
			keep[i] = keep[i] || used[t]
		}
		if keep[i] {
			for _, t := range g.Nodes[i].Inputs {
				used[t] = true
			}
		}
	}
	nodes := g.Nodes[:0:0]
	for i, n := range g.Nodes {
		if keep[i] {
			nodes = append(nodes, n)
		}
	}
	g.Nodes = nodes
}
