// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"npuemu/compiler/emit"
	"npuemu/compiler/ir"
	"npuemu/core/isa"
)

// Bindings of every program (§7.3): constants, the arena of activations, then the graph's
// inputs and outputs.
const (
	Constants = 0
	Arena     = 1
	FirstIO   = 2
)

// A Segment is a run of nodes on the device, one program, or one node on the host.
type Segment struct {
	Program *isa.Program // nil for a node of the host
	Ranges  []emit.Range // Tag is the number of a node; the number of nodes and more is the copy of an output
	Node    int          // of the host
}

// Node is what became of a node.
type Node struct {
	Host   string // why it is on the host; "" if the device executes it
	Counts emit.Counts
	Within int // node of whose instructions its own are a part, and are counted there; its own number if it is alone
}

// Plan is a graph made for a core.
type Plan struct {
	Graph     *ir.Graph
	Target    emit.Target
	Places    map[*ir.Tensor]Place // of all tensors that are in memory
	Inside    map[*ir.Tensor]bool  // those that are in local memory alone, within a chain
	Stays     map[*ir.Tensor]bool  // those that are in the scratchpad alone, from one operation to another
	Constants []byte               // content of that binding
	ArenaSize int                  // bytes
	Nodes     []Node               // as in the graph
	Segments  []Segment            // in order
}

// New plans g, which Verify accepts and whose nodes are of the device level or of the host.
// A node of the device level that the instruction set does not have goes to the host too, and
// says why. The error is an *ir.Error.
func New(g *ir.Graph, target emit.Target, mode Mode) (*Plan, error) {
	return Watched(g, target, mode, nil)
}

// Progress is told how far a work is, and what comes next. A plan may be made again, from the start, for other groups of nodes.
type Progress func(done, of int, what string)

// Watched is New, and tells progress, unless it is nil, of each group of nodes, and of each tensor that could stay in the scratchpad.
func Watched(g *ir.Graph, target emit.Target, mode Mode, progress Progress) (*Plan, error) {
	if progress == nil {
		progress = func(int, int, string) {}
	}
	return newPlan(g, target, mode, isa.MaxTextSize/isa.Size, progress)
}

// Mode is what a plan is for.
type Mode uint8

const (
	Compact Mode = iota // to run: memory of the arena is used again
	Keep                // no memory of the arena is used twice, so that every tensor that is stored is there in the end
	Apart               // Keep, and every node is computed by itself, so that all tensors are stored
)

// newPlan is New; programs have up to most instructions.
func newPlan(g *ir.Graph, target emit.Target, mode Mode, most int, progress Progress) (*Plan, error) {
	keep := mode != Compact
	if n := len(g.Inputs) + len(g.Outputs); n > isa.MaxBindings-FirstIO {
		return nil, &ir.Error{Graph: g.Name, Rule: fmt.Sprintf("%d inputs and outputs; a program has bindings for %d (§5.3)", n, isa.MaxBindings-FirstIO), Remedy: "concatenate some of them"}
	}
	sums, t := findSums(g, target), newTimer(g, target)
	// Where tensors are depends on which nodes are computed together, and whether they can be shows only when they are generated.
	apart := map[int]int{}
	if mode == Apart {
		for _, n := range g.Nodes {
			apart[n.Attrs.Int("chain", 0)] = 2
		}
	}
	for {
		all := groups(g, apart)
		m := newMemory(g, all, nil, keep)
		m.sums, m.timer, m.progress = sums, t, progress
		p, failed, err := attempt(m, all, target, most)
		if err != nil {
			return nil, err
		}
		if len(failed) == 0 {
			return stayed(p, m, all, most, keep)
		}
		for id, product := range failed {
			apart[id] = 2
			if product {
				apart[id] = 1
			}
		}
	}
}

// stayed is p with tensors that stay in the scratchpad, if there are some.
func stayed(p *Plan, m *memory, all []group, most int, keep bool) (*Plan, error) {
	s := chooseStays(p, m, all)
	if len(s) == 0 {
		return p, nil
	}
	again := newMemory(p.Graph, all, s, keep)
	again.sums, again.timer, again.progress = m.sums, m.timer, m.progress
	q, failed, err := attempt(again, all, p.Target, most)
	if len(failed) > 0 || errors.Is(err, errCut) {
		return p, nil
	}
	return q, err
}

// errCut is why tensors do not stay in the scratchpad: the program ends between those who need them.
var errCut = errors.New("plan: the program ends where a tensor is in the scratchpad")

// attempt is newPlan with these groups. failed are chains that cannot be computed together,
// and whether that is so with the product alone; there is no plan then.
func attempt(m *memory, all []group, target emit.Target, most int) (p *Plan, failed map[int]bool, err error) {
	g := m.graph
	p = &Plan{Graph: g, Target: target, Nodes: make([]Node, len(g.Nodes))}
	failed = map[int]bool{}
	var b *emit.Builder
	var last *ir.Node // the last one in b
	end := func() error {
		if b == nil {
			return nil
		}
		prog, ranges, err := b.Program()
		if err == nil && len(prog.Text)/isa.Size > most {
			err = fmt.Errorf("%d instructions; a program has up to %d (§5.3)", len(prog.Text)/isa.Size, most)
		}
		if err != nil {
			e := &ir.Error{Graph: g.Name, Rule: err.Error(), Remedy: "split it, or compile the model for a core with more scratchpad, which takes larger tiles"}
			if last != nil {
				e.Node, e.Op = last.Name, last.Op
			}
			return e
		}
		p.Segments = append(p.Segments, Segment{Program: prog, Ranges: ranges})
		b = nil
		return nil
	}
	add := func(group, tag int, l *emit.List) (emit.Counts, error) {
		// Each instruction may need SYNCs: with fewer the program is a little shorter than it could be.
		if b != nil && b.Len()+3*l.Len() > most {
			if m.stays.across(group) {
				return emit.Counts{}, errCut
			}
			if err := end(); err != nil {
				return emit.Counts{}, err
			}
		}
		if b == nil {
			b = emit.New(target, FirstIO+len(g.Inputs)+len(g.Outputs), written(g)...)
		}
		before := b.Counts()
		b.Begin(tag)
		b.Append(l)
		return b.Counts().Since(before), nil
	}
	for k, c := range all {
		main := c.main(g)
		m.progress(k, len(all), "plan "+g.Nodes[main].Name)
		for _, i := range c.nodes {
			p.Nodes[i].Within = main
		}
		room := target
		room.SpadSize = uint32(m.stays.floor(k, int(target.SpadSize)))
		list, err := m.list(c, room)
		var e *errChain
		switch {
		case err != nil && len(c.nodes) > 1:
			failed[c.id] = errors.As(err, &e) && e.product
			continue
		case err != nil && m.stays.across(k):
			return nil, nil, errCut
		case err != nil:
			p.Nodes[main].Host = reason(err)
			if err := end(); err != nil {
				return nil, nil, err
			}
			p.Segments = append(p.Segments, Segment{Node: main})
			continue
		}
		if len(failed) > 0 {
			continue
		}
		m.show(list, k)
		if p.Nodes[main].Counts, err = add(k, main, list); err != nil {
			return nil, nil, err
		}
		last = g.Nodes[main]
	}
	if len(failed) > 0 {
		return nil, failed, nil
	}
	for i, t := range g.Outputs {
		to := Place{Binding: uint8(FirstIO + len(g.Inputs) + i)}
		if from := m.place(t); from != to && t.Bytes() > 0 {
			c := code{b: emit.NewList(target)}
			n := []int{t.Bytes()}
			c.copyView(n, denseView(from, n, 1), denseView(to, n, 1))
			if _, err := add(len(all), len(g.Nodes)+i, c.b); err != nil {
				return nil, nil, err
			}
		}
	}
	if err := end(); err != nil {
		return nil, nil, err
	}
	p.Inside, p.Stays, p.Places, p.Constants, p.ArenaSize = m.inside, map[*ir.Tensor]bool{}, m.places, m.constants, m.arena
	for t, at := range p.Places {
		if shown, ok := m.shown[m.root(t)]; at.stays() && ok {
			p.Places[t] = shown
		} else if at.stays() {
			p.Stays[t] = true
			delete(p.Places, t)
		}
	}
	return p, nil, nil
}

// list returns the instructions of the nodes of c, with the scratchpad up to target's size.
func (m *memory) list(c group, target emit.Target) (*emit.List, error) {
	var nodes []*ir.Node
	for _, i := range c.nodes {
		nodes = append(nodes, m.graph.Nodes[i])
	}
	var l *emit.List
	var err error
	if len(nodes) == 1 {
		l, err = m.generate(nodes[0], target)
	} else {
		l, err = m.together(nodes, target)
	}
	if err != nil {
		return nil, err
	}
	if missing := l.Lacks(); missing != 0 {
		return nil, nodes[0].Errorf("the core has no %s (§5.3)", strings.ToUpper(strings.Join(isa.GroupNames(missing), ", "))).WithRemedy("compile for a core that has it")
	}
	return l, nil
}

// show stores the tensors of group i that stay in the scratchpad, if all tensors are to be seen in memory.
func (m *memory) show(l *emit.List, i int) {
	for _, v := range m.lives {
		if s := m.stays[v.root]; s != nil && s.first == i && m.shown != nil {
			to := m.shown[v.root]
			l.Emit(isa.Store{Binding: to.Binding, Offset: to.Offset, Local: uint32(s.at), NX: uint32(v.root.Bytes()), NY: 1, NZ: 1})
		}
	}
}

// reason is what keeps a node from the device; the node is named beside it.
func reason(err error) string {
	var e *ir.Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	return (&ir.Error{Tensor: e.Tensor, Rule: e.Rule, Remedy: e.Remedy}).Error()
}

// errHost is why a node is the host's by decision of the compiler's front: a rule that it breaks as a node of the device.
func errHost(n *ir.Node) error {
	d := *n
	d.Op = "npu." + strings.TrimPrefix(n.Op, "host.")
	if err := d.Check(); err != nil {
		return err
	}
	return n.Errorf("the model says so")
}

// generate returns the instructions of n, or why the device cannot execute it.
func (m *memory) generate(n *ir.Node, target emit.Target) (*emit.List, error) {
	l := &lower{code: code{b: emit.NewList(target), timer: m.timer}, memory: m, node: n}
	var err error
	switch f, g := lowerings[n.Op], bodies[n.Op]; {
	case f != nil:
		err = f(l)
	case g != nil:
		err = l.alone(g)
	case n.Host():
		err = errHost(n)
	default:
		err = n.Errorf("the back end does not know the operation")
	}
	if err != nil {
		return nil, err
	}
	return l.b, nil
}

// memory is where tensors are.
type memory struct {
	graph     *ir.Graph
	places    map[*ir.Tensor]Place
	inside    map[*ir.Tensor]bool // those that are in local memory alone, and have no place
	constants []byte
	known     map[string]uint64 // offsets of constants by content
	arena     int
	sums      map[*ir.Node]*sum // by their last node
	timer     *timer
	progress  Progress
	lives     []*live
	roots     map[*ir.Tensor]*ir.Tensor // of reshapes: the tensor that was there first
	stays     stays
	shown     map[*ir.Tensor]Place // of those that stay: where they are stored too, nil if they are not
}

// place returns where t is.
func (m *memory) place(t *ir.Tensor) Place {
	if p, ok := m.places[t]; ok || m.inside[t] {
		return p
	}
	if !t.Const() {
		panic("plan: BUG: tensor " + t.Name + " has no place")
	}
	p := m.constant(t.Data)
	m.places[t] = p
	return p
}

// constant returns where b is among the constants.
func (m *memory) constant(b []byte) Place {
	if at, ok := m.known[string(b)]; ok {
		return Place{Constants, at}
	}
	m.constants = append(m.constants, make([]byte, up(len(m.constants))-len(m.constants))...)
	at := uint64(len(m.constants))
	m.constants = append(m.constants, b...)
	m.known[string(b)] = at
	return Place{Constants, at}
}

// written are the bindings that programs store to.
func written(g *ir.Graph) []uint8 {
	w := []uint8{Arena}
	for i := range g.Outputs {
		w = append(w, uint8(FirstIO+len(g.Inputs)+i))
	}
	return w
}

// root is t, or the tensor that t is a reshape of.
func (m *memory) root(t *ir.Tensor) *ir.Tensor {
	if r, ok := m.roots[t]; ok {
		return r
	}
	return t
}

// newMemory gives every tensor of g a place: inputs and outputs have bindings of their own,
// what is between stays in the scratchpad or is in the arena for as long as it is needed.
func newMemory(g *ir.Graph, all []group, s stays, keep bool) *memory {
	// A reshape gives the same memory another shape, a bitcast another type.
	root := map[*ir.Tensor]*ir.Tensor{}
	m := &memory{graph: g, places: map[*ir.Tensor]Place{}, inside: inner(g, all), known: map[string]uint64{}, roots: root, stays: s}
	find := m.root
	for i, t := range g.Inputs {
		m.places[t] = Place{Binding: uint8(FirstIO + i)}
	}
	for _, n := range g.Nodes {
		if (n.Op == "npu.reshape" || n.Op == "npu.bitcast") && !n.Inputs[0].Const() {
			root[n.Outputs[0]] = find(n.Inputs[0])
		}
	}
	for i, t := range g.Outputs {
		r := find(t)
		if _, ok := m.places[r]; !ok && !r.Const() {
			m.places[r] = Place{Binding: uint8(FirstIO + len(g.Inputs) + i)}
		}
	}
	lives := map[*ir.Tensor]*live{}
	var order []*live
	for i, c := range all { // what is computed together needs all of its tensors at once
		for _, n := range c.nodes {
			for _, t := range g.Nodes[n].Inputs {
				if t != nil {
					if v := lives[find(t)]; v != nil {
						v.last = i
					}
				}
			}
			for _, t := range g.Nodes[n].Outputs {
				if t == nil || find(t) != t || m.inside[t] {
					continue
				}
				if _, ok := m.places[t]; !ok {
					v := &live{root: t, size: up(t.Bytes()), first: i, last: i}
					lives[t] = v
					order = append(order, v)
				}
			}
		}
	}
	for _, t := range g.Outputs {
		if v := lives[find(t)]; v != nil {
			v.last = len(g.Nodes)
		}
	}
	m.lives = order
	for _, v := range order {
		v.read = v.last
		if keep {
			v.last = len(g.Nodes)
		}
	}
	if keep {
		m.shown = map[*ir.Tensor]Place{}
	}
	stored := slices.DeleteFunc(slices.Clone(order), func(v *live) bool { return s[v.root] != nil && !keep })
	m.arena = allocate(stored)
	for _, v := range stored {
		m.places[v.root] = Place{Arena, uint64(v.at)}
	}
	for _, v := range order {
		if at := s[v.root]; at != nil {
			if keep {
				m.shown[v.root] = m.places[v.root]
			}
			m.places[v.root] = Place{Scratchpad, uint64(at.at)}
		}
	}
	for t, r := range root {
		if !r.Const() {
			m.places[t] = m.places[r]
		}
	}
	return m
}
