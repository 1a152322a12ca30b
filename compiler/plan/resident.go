// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"slices"

	"npuemu/compiler/emit"
	"npuemu/compiler/ir"
)

// A stay is a tensor that does not go to memory between the operation that makes it and those that read it, because it fits the
// scratchpad beside what they need for themselves. It has the upper end of the scratchpad, where operations have what is below for themselves.
type stay struct {
	size        int // bytes, whole granules
	first, last int // groups
	at          int // address
}

// stays are those of a plan, by the tensor that others are reshapes of.
type stays map[*ir.Tensor]*stay

// floor is where the tensors that stay during group i begin, or size.
func (s stays) floor(i, size int) int {
	for _, v := range s {
		if v.first <= i && i <= v.last {
			size = min(size, v.at)
		}
	}
	return size
}

// across reports whether something is in the scratchpad between group i and the one before.
func (s stays) across(i int) bool {
	for _, v := range s {
		if v.first < i && i <= v.last {
			return true
		}
	}
	return false
}

// place gives v the highest address that is free while it lives, and reports whether there is one.
func (s stays) place(v *stay, size int) bool {
	var others []*stay
	for _, o := range s {
		if o.last >= v.first && o.first <= v.last {
			others = append(others, o)
		}
	}
	slices.SortFunc(others, func(a, b *stay) int { return b.at - a.at })
	top := size &^ (align - 1)
	for _, o := range others { // one that begins below others may end above them: those need not be there at the same time
		if o.at+o.size > top-v.size {
			top = min(top, o.at)
		}
	}
	v.at = top - v.size
	return v.at >= 0
}

// longestStay is the most groups for which a tensor stays: the costs of all of them are looked at again for each tensor, and recurrent
// operators that are written out have thousands.
const longestStay = 256

// chooseStays decides which tensors stay in the scratchpad: one after the other, those first that take the least of it for the least
// time, each if the operations from the one that makes it to the last one that reads it then cost less. Groups, none of which may
// fail, are those of p; programs end at those of p.Segments.
func chooseStays(p *Plan, m *memory, all []group) stays {
	s := &staying{memory: m, all: all, target: p.Target, chosen: stays{}, costs: make([]float64, len(all))}
	// A program's end is the end of what stays.
	program := make([]int, len(all))
	of := map[int]int{}
	for i, g := range p.Segments {
		for _, r := range g.Ranges {
			of[r.Tag] = i
		}
	}
	for i, c := range all {
		main := c.main(p.Graph)
		program[i] = -1 - i // the host's, or a group without instructions
		if at, ok := of[main]; ok {
			program[i] = at
		}
	}
	for i := range all {
		s.costs[i] = -1
	}
	lives := slices.Clone(m.lives)
	slices.SortStableFunc(lives, func(a, b *live) int {
		return cmp.Compare(a.size*(a.read-a.first+1), b.size*(b.read-b.first+1))
	})
	for i, v := range lives {
		m.progress(i, len(lives), "scratchpad for "+v.root.Name)
		if v.read >= len(all) || v.read == v.first || v.read-v.first > longestStay || program[v.first] < 0 || program[v.first] != program[v.read] {
			continue
		}
		s.try(v)
	}
	return s.chosen
}

// staying is the choice under way.
type staying struct {
	*memory
	all    []group
	target emit.Target
	chosen stays
	costs  []float64 // of groups as they are, below 0 if that is not known
}

// try lets v stay if that is better.
func (s *staying) try(v *live) {
	n := &stay{size: v.size, first: v.first, last: v.read}
	if !s.chosen.place(n, int(s.target.SpadSize)) {
		return
	}
	floor := s.chosen.floor
	old, before, after := map[*ir.Tensor]Place{}, 0.0, 0.0
	var groups []int // that change
	for i := v.first; i <= v.read; i++ {
		if !s.reads(i, v.root) && floor(i, int(s.target.SpadSize)) <= n.at {
			continue
		}
		if s.costs[i] < 0 {
			s.costs[i] = s.cost(i, floor(i, int(s.target.SpadSize)))
		}
		if s.costs[i] < 0 {
			return
		}
		groups = append(groups, i)
		before += s.costs[i]
	}
	for t := range s.places {
		if s.root(t) == v.root {
			old[t] = s.places[t]
			s.places[t] = Place{Scratchpad, uint64(n.at)}
		}
	}
	costs := make([]float64, len(groups))
	for k, i := range groups {
		costs[k] = s.cost(i, min(n.at, floor(i, int(s.target.SpadSize))))
		if after += costs[k]; costs[k] < 0 || after >= before {
			for t, p := range old {
				s.places[t] = p
			}
			return
		}
	}
	s.chosen[v.root] = n
	for k, i := range groups {
		s.costs[i] = costs[k]
	}
}

// reads reports whether group i reads or makes t, or a reshape of it.
func (s *staying) reads(i int, t *ir.Tensor) bool {
	is := func(u *ir.Tensor) bool { return u != nil && s.root(u) == t }
	for _, n := range s.all[i].nodes {
		if n := s.graph.Nodes[n]; slices.ContainsFunc(n.Inputs, is) || slices.ContainsFunc(n.Outputs, is) {
			return true
		}
	}
	return false
}

// cost is that of group i with the scratchpad up to floor, in cycles of the timing model (§13), or below 0 if that is no program.
func (s *staying) cost(i, floor int) float64 {
	target := s.target
	target.SpadSize = uint32(floor)
	l, err := s.list(s.all[i], target)
	if err != nil {
		return -1
	}
	return s.timer.cost(l)
}
