// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sort"

	"npuemu/compiler/model"
	"npuemu/timing"
	"npuemu/timing/timeline"
)

// TimeLine is what a time line (§13.10) is to be.
type TimeLine struct {
	OnBus    uint64                // a bit for each binding that is memory on the bus; 0, as Estimate has it, for device memory
	Limit    uint64                // instructions that are shown one by one
	Progress func(done, total int) // called before each step; may be nil
}

// Write writes the time line of m's steps, one after the other, by the timing model with parameters p. It returns the cycles of
// all programs, and how many instructions are not shown one by one.
func (l TimeLine) Write(ctx context.Context, w io.Writer, m *model.Model, p timing.Params) (cycles, merged uint64, err error) {
	c := config(m, p)
	if err := c.Validate(); err != nil {
		return 0, 0, err
	}
	t := timeline.New(w, m.Name, c, l.Limit)
	done := nodes{m: m}
	for i, s := range m.Steps {
		if l.Progress != nil {
			l.Progress(i, len(m.Steps))
		}
		if s.Host >= 0 {
			if n := done.host(m.Hosts[s.Host].Nodes[0].Name); n != nil {
				t.Host(n.Name, Operator(n.Op), n.Host)
			}
			continue
		}
		p := timeline.Program{Name: fmt.Sprintf("program %d", s.Program), Program: m.Programs[s.Program], OnBus: l.OnBus}
		p.Operators, p.Tensor = done.program(s.Program)
		r, err := t.Program(ctx, p)
		if err != nil {
			return 0, 0, fmt.Errorf("compiler: program %d: %w", s.Program, err)
		}
		cycles += r.Cycles
	}
	return cycles, t.Merged(), t.Close()
}

// nodes are those of a model in the order in which they run, as far as its steps have come.
type nodes struct {
	m     *model.Model
	order []*model.Node
}

// host adds the host's node of that name, and returns it.
func (d *nodes) host(name string) *model.Node {
	for i := range d.m.Nodes {
		if n := &d.m.Nodes[i]; n.Host != "" && n.Name == name {
			d.order = append(d.order, n)
			return n
		}
	}
	return nil
}

// program adds the nodes of a program, and returns them as operators of a time line, and what names the tensors that its
// instructions move.
func (d *nodes) program(program int) (operators []timeline.Operator, tensor func(index int, binding uint8, offset uint64) string) {
	before := len(d.order)
	for i := range d.m.Nodes {
		if n := &d.m.Nodes[i]; n.Program == program && n.Host == "" {
			d.order = append(d.order, n)
		}
	}
	own := d.order[before:]
	slices.SortStableFunc(own, func(a, b *model.Node) int { return a.First - b.First })
	for _, n := range own {
		if n.First < n.Last && n.Within == "" {
			operators = append(operators, timeline.Operator{Name: n.Name, Op: Operator(n.Op), First: n.First, Last: n.Last})
		}
	}
	return operators, func(index int, binding uint8, offset uint64) string {
		if binding == 0 {
			return d.m.Bindings[0].Name
		}
		for _, l := range [][]model.Tensor{d.m.Inputs, d.m.Outputs} {
			if name := within(l, binding, offset); name != "" {
				return name
			}
		}
		// Memory of the arena has what was put there last: by this node, or one before it.
		last := before + sort.Search(len(own), func(i int) bool { return own[i].First > index })
		for i := last - 1; i >= 0; i-- {
			if name := within(d.order[i].Outputs, binding, offset); name != "" {
				return name
			}
		}
		return ""
	}
}

// within is the name of the tensor that has a byte at offset in a binding, if there is one.
func within(l []model.Tensor, binding uint8, offset uint64) string {
	for i := range l {
		if t := &l[i]; t.Binding == int(binding) && offset >= t.Offset && offset-t.Offset < uint64(t.Bytes()) {
			return t.Name
		}
	}
	return ""
}
