// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"

	"npuemu/compiler/emit"
	"npuemu/compiler/ir"
)

// A chain is operations on single elements, or on rows of the last axis, that are computed tile by
// tile one behind the other, perhaps behind a product: what only they use stays in local memory. All
// results have the same shape.
type chain struct {
	*memory
	code
	shape   []int
	rowwise bool
	head    *ir.Tensor // of a product before them; nil if there is none
	links   []link
	ext     []operand    // what is loaded
	outs    []*ir.Tensor // what is stored
	slots   []int        // bytes an element of the slots of values that are not stored
	temps   []int        // of what operations need for themselves
	acc     []int        // the same in the accumulators
	stays   bool         // some of what is loaded or stored is in the scratchpad
}

// link is an operation of a chain: where its operands are, and where its result goes.
type link struct {
	*body
	in  []spot
	out spot
}

// spot is where a value of a chain is.
type spot struct {
	kind  spotKind
	index int
}

type spotKind uint8

const (
	inHead spotKind = iota // the product's result
	inExt                  // loaded
	inOut                  // to be stored
	inSlot
)

// errChain is why operations are not computed together.
type errChain struct{ product bool } // with the product before them

func (e *errChain) Error() string { return "plan: operations are not computed together" }

// group is nodes that are computed together: one, or a chain.
type group struct {
	id    int // attribute chain
	nodes []int
}

// groups are those of g. Of the chains in apart the products, or all nodes, are on their own.
func groups(g *ir.Graph, apart map[int]int) []group {
	var l []group
	for i, n := range g.Nodes {
		id := n.Attrs.Int("chain", 0)
		last := len(l) - 1
		alone := id == 0 || apart[id] > 1 || apart[id] == 1 && isProduct(n)
		if !alone && last >= 0 && l[last].id == id {
			l[last].nodes = append(l[last].nodes, i)
			continue
		}
		if alone {
			id = 0
		}
		l = append(l, group{id, []int{i}})
	}
	return l
}

// main is the node that stands for those of a group: the product, or the last one.
func (c group) main(g *ir.Graph) int {
	if isProduct(g.Nodes[c.nodes[0]]) {
		return c.nodes[0]
	}
	return c.nodes[len(c.nodes)-1]
}

func isProduct(n *ir.Node) bool { return n.Op == "npu.conv" || n.Op == "npu.gemm" }

// inner are the tensors that only the nodes of a group use.
func inner(g *ir.Graph, l []group) map[*ir.Tensor]bool {
	of := map[*ir.Node]int{}
	for i, c := range l {
		for _, n := range c.nodes {
			of[g.Nodes[n]] = i
		}
	}
	uses := g.Uses()
	in := map[*ir.Tensor]bool{}
	for i, c := range l {
		for _, n := range c.nodes {
			for _, t := range g.Nodes[n].Outputs {
				if t == nil || len(uses[t]) == 0 || slices.Contains(g.Outputs, t) {
					continue
				}
				in[t] = !slices.ContainsFunc(uses[t], func(u *ir.Node) bool { return of[u] != i })
			}
		}
	}
	return in
}

// together generates the nodes of a chain, of which the first may be a product.
func (m *memory) together(nodes []*ir.Node, target emit.Target) (*emit.List, error) {
	c := &chain{memory: m, code: code{b: emit.NewList(target), timer: m.timer}, shape: nodes[len(nodes)-1].Outputs[0].Shape}
	nodes = m.joined(nodes)
	var product *ir.Node
	if isProduct(nodes[0]) {
		product, nodes = nodes[0], nodes[1:]
		c.head = product.Outputs[0]
	}
	if err := c.plan(product, nodes); err != nil {
		return nil, err
	}
	if product != nil {
		l := &lower{code: c.code, memory: m, node: product, tail: c}
		if err := lowerings[product.Op](l); err != nil {
			return nil, &errChain{product: true}
		}
		return c.b, nil
	}
	op := tiled{shape: c.shape, in: c.ext, spadTemp: slices.Concat(c.slots, c.temps), accTemp: c.acc, rowwise: c.rowwise}
	for _, t := range c.outs {
		op.outs = append(op.outs, denseView(m.place(t), t.Shape, t.Type.Bits()/8))
	}
	if err := c.tiled(op, func(t tiles) { c.run(local{}, t) }); err != nil {
		return nil, &errChain{}
	}
	return c.b, nil
}

// plan says where each value is.
func (c *chain) plan(product *ir.Node, nodes []*ir.Node) error {
	at := map[*ir.Tensor]spot{}
	last := map[*ir.Tensor]int{} // the last node that uses it
	for k, n := range nodes {
		for _, t := range n.Inputs {
			last[t] = k
		}
	}
	if c.head != nil {
		at[c.head] = spot{kind: inHead}
		if !c.inside[c.head] || !slices.Equal(c.head.Shape, c.shape) {
			return &errChain{product: true}
		}
	}
	var free []int
	for k, n := range nodes {
		f, y := bodies[n.Op], n.Outputs[0]
		if f == nil || !slices.Equal(y.Shape, c.shape) || y.Type.Bits() > 32 {
			return &errChain{}
		}
		l := &lower{code: c.code, memory: c.memory, node: n}
		b, err := f(l)
		if err != nil {
			return &errChain{}
		}
		c.code = l.code
		c.rowwise = c.rowwise || b.rowwise
		k1 := link{body: b}
		for _, o := range b.in {
			s, known := at[o.tensor]
			if o.tensor == nil || !known {
				s = spot{inExt, c.load(o)}
			}
			k1.in = append(k1.in, s)
		}
		for i, n := range b.spadTemp {
			c.temps = atLeast(c.temps, i, n)
		}
		for i, n := range b.accTemp {
			c.acc = atLeast(c.acc, i, n)
		}
		bytes := y.Type.Bits() / 8
		switch {
		case !c.inside[y]:
			k1.out = spot{inOut, len(c.outs)}
			c.outs = append(c.outs, y)
		default:
			i := slices.IndexFunc(free, func(s int) bool { return c.slots[s] == bytes })
			if i < 0 && len(free) > 0 {
				i = 0
			}
			if i < 0 {
				k1.out = spot{inSlot, len(c.slots)}
				c.slots = append(c.slots, bytes)
			} else {
				k1.out = spot{inSlot, free[i]}
				c.slots[free[i]] = max(c.slots[free[i]], bytes)
				free = slices.Delete(free, i, i+1)
			}
		}
		at[y] = k1.out
		for i, t := range n.Inputs {
			if s, ok := at[t]; ok && s.kind == inSlot && last[t] == k && !slices.Contains(n.Inputs[:i], t) {
				free = append(free, s.index)
			}
		}
		c.links = append(c.links, k1)
	}
	if product != nil && len(c.links) == 0 {
		return &errChain{product: true}
	}
	return c.resident()
}

// atLeast makes entry i of l at least n.
func atLeast(l []int, i, n int) []int {
	if i == len(l) {
		return append(l, n)
	}
	l[i] = max(l[i], n)
	return l
}

// load is the index of what is loaded for an operand; each is loaded once.
func (c *chain) load(o operand) int {
	for i, e := range c.ext {
		if e.at == o.at && e.size == o.size && e.scalar == o.scalar && slices.Equal(e.strides, o.strides) {
			return i
		}
	}
	c.ext = append(c.ext, o)
	return len(c.ext) - 1
}

// run computes a tile; head is where the product's result is.
func (c *chain) run(head local, t tiles) {
	where := func(s spot) local {
		switch s.kind {
		case inHead:
			return head
		case inExt:
			return t.in[s.index]
		case inOut:
			return t.outs[s.index]
		}
		return t.spad[s.index]
	}
	for _, k := range c.links {
		one := tile{out: where(k.out), spad: t.spad[len(c.slots):], acc: t.acc, n: t.n}
		for _, s := range k.in {
			one.in = append(one.in, where(s))
		}
		k.f(one)
	}
}

// dense is the view of an operand, whose shape is the chain's, from row first on, as [n, h, w, channels], of
// which a product makes all or a part.
func (c *chain) dense(o operand, first, rows, channels int) (view, error) {
	full := strides(c.shape, o.size)
	k := len(c.shape)
	// The innermost axes that are dense; the others have to repeat them.
	elements, axis := 1, k
	for axis > 0 && (o.strides[axis-1] == full[axis-1] || c.shape[axis-1] == 1) {
		axis--
		elements *= c.shape[axis]
	}
	repeats := true
	for i := range axis {
		repeats = repeats && (o.strides[i] == 0 || c.shape[i] == 1)
	}
	off := 0
	switch {
	case !repeats || elements%channels != 0:
		return view{}, fmt.Errorf("an operand is not as the product's result")
	case elements == channels && rows > 1:
		return view{o.at, []int{0, o.size}, o.size}, nil
	default:
		if off = first * channels % elements; off+rows*channels > elements {
			return view{}, fmt.Errorf("an operand repeats within the product's result")
		}
	}
	return view{o.at.plus(off * o.size), []int{channels * o.size, o.size}, o.size}, nil
}

// outView is that of a result.
func (c *chain) outView(t *ir.Tensor, first, channels int) view {
	s := t.Type.Bits() / 8
	return view{c.place(t).plus(first * channels * s), []int{channels * s, s}, s}
}

// resident notes whether some of what the chain loads and stores is in the scratchpad, where it is as it is in memory:
// nothing else can be made of it than what follows each other there.
func (c *chain) resident() error {
	for _, o := range c.ext {
		if o.at.stays() {
			if o.scalar || !o.is(c.shape) {
				return &errChain{}
			}
			c.stays = true
		}
	}
	for _, t := range c.outs {
		c.stays = c.stays || c.place(t).stays()
	}
	return nil
}

// perElement is how many bytes are loaded and stored for an element behind a product.
func (c *chain) perElement() int {
	n := 0
	for _, o := range c.ext {
		if !o.scalar && !o.at.stays() {
			n += o.size
		}
	}
	for _, t := range c.outs {
		if !c.place(t).stays() {
			n += t.Type.Bits() / 8
		}
	}
	return n
}

// spans is the local memory that a chain needs for a tile of n elements behind a product, count times
// what is loaded and stored.
func (c *chain) spans(n, count int) (spad, acc int) {
	for _, o := range c.ext {
		switch {
		case o.scalar:
			spad += align
		case !o.at.stays():
			spad += count * up(n*o.size)
		}
	}
	for _, t := range c.outs {
		if !c.place(t).stays() {
			spad += count * up(n*t.Type.Bits()/8)
		}
	}
	for _, b := range slices.Concat(c.slots, c.temps) {
		spad += up(n * b)
	}
	for _, b := range c.acc {
		acc += up(n * b)
	}
	return spad, acc
}

// tail is a chain behind a product of [n, h, w, channels], with its local memory.
type tail struct {
	*chain
	c       *code // that emits
	in      []*slots
	outs    []*slots
	inViews []view
	views   []view
	t       tiles
}

// newTail hands out local memory for tiles of up to n elements. rows are those of the product, from first on.
func (c *chain) newTail(to *code, n, count, first, rows, channels int) (*tail, error) {
	e := &tail{chain: c, c: to}
	for _, o := range c.ext {
		if o.scalar {
			at := to.local(o.size)
			to.load(at, o.at, o.size)
			e.in, e.inViews, e.t.in = append(e.in, nil), append(e.inViews, view{}), append(e.t.in, local{at: at, one: true})
			continue
		}
		v, err := c.dense(o, first, rows, channels)
		if err != nil {
			return nil, err
		}
		e.in, e.inViews, e.t.in = append(e.in, to.room(v.at, count, n*o.size)), append(e.inViews, v), append(e.t.in, local{})
	}
	for _, t := range c.outs {
		v := c.outView(t, first, channels)
		e.outs, e.views, e.t.outs = append(e.outs, to.room(v.at, count, n*t.Type.Bits()/8)), append(e.views, v), append(e.t.outs, local{})
	}
	for _, b := range slices.Concat(c.slots, c.temps) {
		e.t.spad = append(e.t.spad, local{at: to.local(n * b)})
	}
	for _, b := range c.acc {
		e.t.acc = append(e.t.acc, local{at: to.accumulators(n * b), acc: true})
	}
	return e, nil
}

// tile computes what is behind the result at head: a box of [h, w, channels], where a line of the
// result has width pixels.
func (e *tail) tile(head local, b box, width int) {
	lines := func(v view) view {
		return view{v.at, []int{width * v.strides[0], v.strides[0], v.strides[1]}, v.size}
	}
	for i, s := range e.in {
		if v := e.inViews[i]; s != nil {
			e.t.in[i].at = s.take()
			e.c.move(false, e.t.in[i].at, lines(v), b)
		} else if v.at.stays() {
			e.t.in[i].at = within(lines(v), b)
		}
	}
	for i, s := range e.outs {
		if s != nil {
			e.t.outs[i].at = s.take()
		} else {
			e.t.outs[i].at = within(lines(e.views[i]), b)
		}
	}
	e.t.n = b.elements()
	e.run(head, e.t)
	for i, v := range e.views {
		if e.outs[i] != nil {
			e.c.move(true, e.t.outs[i].at, lines(v), b)
		}
	}
}
