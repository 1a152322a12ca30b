// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"slices"

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
	replaceAll(g, known)
	RemoveDead(g)
	return nil
}

// replaceAll puts what is known in the place of outputs, and of what views are of.
func replaceAll(g *ir.Graph, known map[*ir.Tensor]*ir.Tensor) {
	replace(g.Outputs, known)
	for _, v := range g.Views {
		replace(v.Inputs, known)
	}
}

// RemoveDead removes nodes of which nothing reads an output. Transposes and reshapes of what is still there become views.
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
		} else if n.Op == "npu.transpose" || n.Op == "npu.reshape" {
			g.Views = append(g.Views, n)
		}
	}
	g.Nodes = nodes
	views := map[*ir.Tensor]bool{}
	for _, v := range g.Views {
		views[v.Outputs[0]] = true
	}
	for _, t := range g.Inputs {
		used[t] = true
	}
	for again := true; again; { // without those of what is gone
		again = false
		g.Views = slices.DeleteFunc(g.Views, func(v *ir.Node) bool {
			if x := v.Inputs[0]; used[x] || views[x] {
				return false
			}
			delete(views, v.Outputs[0])
			again = true
			return true
		})
	}
}
