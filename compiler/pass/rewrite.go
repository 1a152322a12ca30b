// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"fmt"
	"slices"

	"npuemu/compiler/ir"
)

// rewriter replaces nodes of the device level until no rule applies.
type rewriter struct {
	g        *ir.Graph
	producer map[*ir.Tensor]*ir.Node
	uses     map[*ir.Tensor]int // nodes that read it, and outputs of the graph that it is
	fresh    []*ir.Node         // what the rule at work has made, in order
	n        *ir.Node           // the node at work
	names    int
}

// rewrite tries f on each node, in order, until none changes. f gives what takes the place of the node's output,
// made by the rewriter's methods or there before, or nil.
func rewrite(g *ir.Graph, f func(r *rewriter, n *ir.Node) *ir.Tensor) {
	r := &rewriter{g: g}
	for changed := true; changed; {
		changed = false
		r.producer, r.uses = g.Producers(), map[*ir.Tensor]int{}
		for t, nodes := range g.Uses() {
			r.uses[t] = len(nodes)
		}
		for _, t := range g.Outputs {
			r.uses[t]++
		}
		known := map[*ir.Tensor]*ir.Tensor{}
		nodes := g.Nodes[:0:0]
		for _, n := range g.Nodes {
			replace(n.Inputs, known)
			r.fresh, r.n = nil, n
			out := n.Outputs[0]
			to := f(r, n)
			if to == nil || to == out {
				nodes = append(nodes, n)
				continue
			}
			changed = true
			made := slices.ContainsFunc(r.fresh, func(m *ir.Node) bool { return m.Outputs[0] == to })
			if !made && slices.Contains(g.Outputs, out) && (to.Const() || r.producer[to] == nil || slices.Contains(g.Outputs, to)) {
				// The output needs a tensor of its own name.
				changed = n.Op != "npu.reshape" || n.Inputs[0] != to
				to = r.emit("npu.reshape", to.Type, out.Shape, nil, to)
				made = true
			}
			if made || slices.Contains(g.Outputs, out) {
				to.Name = out.Name
			}
			for _, m := range r.fresh {
				r.producer[m.Outputs[0]] = m
				for _, t := range m.Inputs {
					r.uses[t]++
				}
			}
			r.uses[to] += r.uses[out]
			nodes = append(nodes, r.fresh...)
			known[out] = to
			replace(g.Outputs, known)
		}
		g.Nodes = nodes
		replaceAll(g, known)
		RemoveDead(g)
	}
	uniqueNames(g)
}

// emit makes a node whose name comes from the node at work.
func (r *rewriter) emit(op string, typ ir.Type, shape []int, attrs ir.Attrs, in ...*ir.Tensor) *ir.Tensor {
	r.names++
	name := r.n.Name
	if len(r.fresh) > 0 {
		name = fmt.Sprintf("%s/%d", r.n.Name, len(r.fresh))
	}
	t := &ir.Tensor{Name: fmt.Sprintf("%s:%s", name, op[4:]), Type: typ, Shape: slices.Clone(shape)}
	r.fresh = append(r.fresh, &ir.Node{Name: name, Op: op, Inputs: in, Outputs: []*ir.Tensor{t}, Attrs: attrs, Origin: r.n.Origin})
	return t
}

// from is the node that makes t if it is that operation.
func (r *rewriter) from(t *ir.Tensor, op string) *ir.Node {
	if p := r.producer[t]; p != nil && p.Op == op {
		return p
	}
	return nil
}

// copyAttrs is a copy with some changed.
func copyAttrs(a ir.Attrs, change ir.Attrs) ir.Attrs {
	out := ir.Attrs{}
	for k, v := range a {
		out[k] = v
	}
	for k, v := range change {
		out[k] = v
	}
	return out
}

// permuted is list in the order of perm: entry i is list[perm[i]].
func permuted(list, perm []int) []int {
	out := make([]int, len(perm))
	for i, p := range perm {
		out[i] = list[p]
	}
	return out
}

func inverse(perm []int) []int {
	out := make([]int, len(perm))
	for i, p := range perm {
		out[p] = i
	}
	return out
}
