// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"slices"

	"npuemu/compiler/ir"
)

// Chains numbers operations that are to be computed together, tile by tile (attribute chain): operations on single elements, and on
// rows of the last axis, that read each other's results of one shape, and the product before them. They come to stand
// behind each other. No result changes.
func Chains(g *ir.Graph) error {
	c := &chains{
		g: g, index: map[*ir.Node]int{}, of: map[*ir.Node]*chain{}, producer: g.Producers(), uses: g.Uses(), outputs: map[*ir.Tensor]bool{},
	}
	for i, n := range g.Nodes {
		c.index[n] = i
	}
	for _, t := range g.Outputs {
		c.outputs[t] = true
	}
	for _, n := range g.Nodes {
		if elementwise(n) {
			c.join(n)
		}
	}
	for _, n := range g.Nodes {
		if l := c.of[n]; l != nil && l.last() == n {
			c.behind(l)
		}
	}
	c.write()
	return nil
}

const (
	mostLinks    = 24 // operations of a chain
	mostOperands = 6  // tensors that it loads
)

type chain struct{ nodes []*ir.Node } // in order

func (l *chain) last() *ir.Node { return l.nodes[len(l.nodes)-1] }

type chains struct {
	g        *ir.Graph
	index    map[*ir.Node]int
	of       map[*ir.Node]*chain
	producer map[*ir.Tensor]*ir.Node
	uses     map[*ir.Tensor][]*ir.Node
	outputs  map[*ir.Tensor]bool
}

// elementwise reports whether each element, or row of the last axis, of a node's output depends on the same ones of its operands.
func elementwise(n *ir.Node) bool {
	switch n.Op {
	case "npu.element", "npu.cast", "npu.clip", "npu.table", "npu.quantize", "npu.dequantize", "npu.requantize", "npu.qadd", "npu.qmul", "npu.select",
		"npu.softmax", "npu.layernorm", "npu.rmsnorm":
	default:
		return false
	}
	return n.Outputs[0].Type.Computes() && n.Outputs[0].Elements() > 0
}

// join makes n part of the chains that it reads from, as far as that is possible.
func (c *chains) join(n *ir.Node) {
	own := &chain{[]*ir.Node{n}}
	c.of[n] = own
	for _, t := range n.Inputs {
		p := c.producer[t]
		if n.Op == "npu.dequantize" && len(c.uses[t]) > 1 {
			continue // the integers are stored for the others: who needs them as numbers loads a quarter of the bytes
		}
		if p == nil || c.of[p] == nil || c.of[p] == c.of[n] || !slices.Equal(t.Shape, n.Outputs[0].Shape) {
			continue
		}
		both := &chain{slices.Concat(c.of[p].nodes, c.of[n].nodes)}
		slices.SortFunc(both.nodes, func(a, b *ir.Node) int { return c.index[a] - c.index[b] })
		if !c.allowed(both) {
			continue
		}
		for _, m := range both.nodes {
			c.of[m] = both
		}
	}
}

// allowed reports whether the nodes can be computed when the last one is: nobody else needs them before, and there are not too many.
func (c *chains) allowed(l *chain) bool {
	if len(l.nodes) > mostLinks {
		return false
	}
	at := c.index[l.last()]
	loaded := map[*ir.Tensor]bool{}
	for _, n := range l.nodes {
		for _, u := range c.uses[n.Outputs[0]] {
			if !slices.Contains(l.nodes, u) && c.index[u] < at {
				return false
			}
		}
		for _, t := range n.Inputs {
			if p := c.producer[t]; !t.Const() && t.Elements() > 1 && (p == nil || !slices.Contains(l.nodes, p)) {
				loaded[t] = true
			}
		}
	}
	return len(loaded) <= mostOperands
}

// behind puts a product before a chain that alone reads its result: the last of several.
func (c *chains) behind(l *chain) {
	var product *ir.Node
	for _, n := range l.nodes {
		for _, t := range n.Inputs {
			p := c.producer[t]
			if p == nil || p.Op != "npu.conv" && p.Op != "npu.gemm" || c.outputs[t] || !slices.Equal(t.Shape, n.Outputs[0].Shape) ||
				slices.ContainsFunc(c.uses[t], func(u *ir.Node) bool { return c.of[u] != l }) {
				continue
			}
			if product == nil || c.index[p] > c.index[product] {
				product = p
			}
		}
	}
	if product != nil {
		l.nodes = append([]*ir.Node{product}, l.nodes...)
	}
}

// write numbers the chains and moves their nodes to where their last one stands.
func (c *chains) write() {
	moved := map[*ir.Node]bool{}
	for _, l := range c.of {
		for _, n := range l.nodes {
			moved[n] = len(l.nodes) > 1 && n != l.last()
		}
	}
	var nodes []*ir.Node
	number := int64(0)
	for _, n := range c.g.Nodes {
		l := c.of[n]
		switch {
		case moved[n]:
		case l == nil || len(l.nodes) == 1:
			nodes = append(nodes, n)
		default:
			number++
			for _, m := range l.nodes {
				m.Attrs = copyAttrs(m.Attrs, ir.Attrs{"chain": number})
				nodes = append(nodes, m)
			}
		}
	}
	c.g.Nodes = nodes
}
