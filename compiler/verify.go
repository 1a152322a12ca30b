// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"npuemu/compiler/emit"
	"npuemu/compiler/ir"
	"npuemu/compiler/model"
	"npuemu/compiler/plan"
	"npuemu/compiler/ref"
	"npuemu/compiler/run"
	"npuemu/core/isa"
)

// Divergence is the first element, in the order of nodes and in each tensor, that a card computed otherwise than
// the CPU reference.
type Divergence struct {
	Node, Op, Tensor string
	Type             ir.Type
	Shape, Index     []int
	Want, Got        []byte    // of the element
	Differ, Of       int       // elements of the tensor
	Mode             plan.Mode // of the model that Program and Instruction are of
	Program          int       // −1: the node is on the host
	Instruction      int       // the STORE that wrote it, by its index in the program; −1 if none did
	Text             string    // that instruction
	Tile             [][2]int  // of each axis the first and the last index of what that instruction stored of the tensor
	With             []string  // nodes that are computed together with it, and whose results are not in memory
}

func (d *Divergence) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "node %q (%s): tensor %q, %s%v: element %v is % x, the reference has % x; %d of %d elements differ", d.Node, d.Op, d.Tensor, d.Type, d.Shape, d.Index, d.Got, d.Want, d.Differ, d.Of)
	switch {
	case d.Program < 0:
		b.WriteString("; the node is on the host")
	case d.Instruction < 0:
		fmt.Fprintf(&b, "; no instruction of program %d stores it", d.Program)
	default:
		fmt.Fprintf(&b, "; instruction %d of program %d%s stored its tile, ", d.Instruction, d.Program, modes[d.Mode])
		for i, r := range d.Tile {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, "%d:%d", r[0], r[1]+1)
		}
		fmt.Fprintf(&b, ": %s", d.Text)
	}
	if len(d.With) > 0 {
		fmt.Fprintf(&b, "; nodes whose results stay in local memory are computed with it: %s", strings.Join(d.With, ", "))
	}
	return b.String()
}

// modes say which model a program is of, if it is not Build's.
var modes = map[plan.Mode]string{plan.Keep: " of the model with memory for each tensor", plan.Apart: " of the model in which each node is computed by itself"}

// Verified is what Verify did.
type Verified struct {
	Divergence *Divergence // nil: all is equal, to the bit
	Report     run.Report  // of Build's model
	Hosts      []Host      // nodes that are not on the card, whose results the reference computes
	Tensors    int         // that nodes compute
	Within     int         // of them: those that Build's model has in local memory alone, and that were compared where each node is by itself
	Rules      RulesReport // of the graph beside the rules of the model's operators; zero without them
}

// Host is a node that the card does not execute.
type Host struct{ Name, Op, Reason string }

// Verify runs g on card, whose core is target, and in the reference, and compares what each node computes. Build's model is
// run for its outputs; a second one has memory of its own for each tensor; where there are chains, whose tensors stay
// in local memory, a third one computes each node by itself. A wrong output of Build's model alone is a fault in how memory is used again.
// What the reference makes of g is compared with rules, if they are not nil: they are of the model that g was made of. progress, if not nil,
// is told of planning, of instructions before each step on the card, and of nodes that were computed.
func Verify(ctx context.Context, card run.Card, g *ir.Graph, rules *Rules, target emit.Target, inputs [][]byte, progress Progress) (v Verified, err error) {
	if progress == nil {
		progress = func(int, int, string) {}
	}
	of := len(g.Nodes)
	var keep *kept
	if rules != nil {
		keep = rules.keep(g, inputs)
	}
	// What is run, with what is left of it for comparing.
	type ran struct {
		mode    plan.Mode
		m       *model.Model
		s       *run.Session
		outputs [][]byte
		report  run.Report
	}
	start := func(mode plan.Mode, m *model.Model) (r ran, err error) {
		instructions := 0
		for _, p := range m.Programs {
			instructions += len(p.Text) / isa.Size
		}
		at := 0
		r = ran{mode: mode, m: m}
		if r.s, err = run.Load(card, m); err != nil {
			return r, err
		}
		if r.outputs, r.report, err = r.s.Run(ctx, inputs, func(step int) {
			progress(at, instructions, "instructions on the card"+modes[mode])
			if p := m.Steps[step].Program; p >= 0 {
				at += len(m.Programs[p].Text) / isa.Size
			}
		}); err != nil {
			return r, errors.Join(err, r.s.Close())
		}
		return r, nil
	}
	m, err := build(g, target, plan.Compact, progress)
	if err != nil {
		return v, err
	}
	built, err := start(plan.Compact, m)
	if err != nil {
		return v, err
	}
	for i, b := range built.outputs {
		built.outputs[i] = bytes.Clone(b)
	}
	v.Report = built.report
	if err := built.s.Close(); err != nil {
		return v, err
	}
	for i := range m.Nodes {
		if n := &m.Nodes[i]; n.Host != "" {
			v.Hosts = append(v.Hosts, Host{n.Name, Operator(n.Op), n.Host})
		}
	}
	var all []ran
	defer func() {
		for _, r := range all {
			err = errors.Join(err, r.s.Close())
		}
	}()
	for _, mode := range []plan.Mode{plan.Apart, plan.Keep} {
		if mode == plan.Apart && !slices.ContainsFunc(m.Nodes, func(n model.Node) bool { return n.Within != "" }) {
			continue
		}
		m, err := build(g, target, mode, progress)
		if err != nil {
			return v, err
		}
		r, err := start(mode, m)
		if err != nil {
			return v, err
		}
		all = append(all, r)
	}
	at := 0
	results, err := ref.Run(g, inputs, func(n *ir.Node, out [][]byte) error {
		if keep != nil {
			keep.see(n, out)
		}
		for i, t := range n.Outputs {
			if t == nil {
				continue
			}
			v.Tensors++
			stored := false
			for _, r := range all {
				d := &r.m.Nodes[at]
				k := slices.IndexFunc(d.Outputs, func(o model.Tensor) bool { return o.Name == t.Name })
				if k < 0 { // it never was in memory
					continue
				}
				stored = stored || r.mode == plan.Keep
				if v.Divergence == nil {
					v.Divergence = compare(r.m, r.mode, d, t, &d.Outputs[k], out[i], r.s.Bytes(&d.Outputs[k]))
				}
			}
			if !stored {
				v.Within++
			}
		}
		at++
		progress(at, of, n.Name)
		return context.Cause(ctx) // a reference takes its time
	})
	if err != nil {
		return v, fmt.Errorf("reference: %w", err)
	}
	for i, t := range g.Outputs {
		if v.Divergence != nil {
			break
		}
		k := slices.IndexFunc(g.Nodes, func(n *ir.Node) bool { return slices.Contains(n.Outputs, t) })
		if k < 0 { // an input, or a constant
			continue
		}
		v.Divergence = compare(m, plan.Compact, &m.Nodes[k], t, &m.Outputs[i], results[i], built.outputs[i])
	}
	if rules != nil && v.Divergence == nil {
		v.Rules, err = rules.compare(ctx, g, keep, inputs, progress)
	}
	return v, err
}

// compare compares the data of t, which node d computes at place.
func compare(m *model.Model, mode plan.Mode, d *model.Node, t *ir.Tensor, place *model.Tensor, want, got []byte) *Divergence {
	if bytes.Equal(want, got) {
		return nil
	}
	size := max(t.Type.Bits()/8, 1)
	v := &Divergence{Node: d.Name, Op: d.Op, Tensor: t.Name, Type: t.Type, Shape: t.Shape, Of: len(want) / size, Mode: mode, Program: d.Program, Instruction: -1}
	for i := 0; i < len(want); i += size {
		if bytes.Equal(want[i:i+size], got[i:i+size]) {
			continue
		}
		if v.Differ++; v.Differ > 1 {
			continue
		}
		v.Want, v.Got, v.Index = want[i:i+size], bytes.Clone(got[i:i+size]), index(i/size, t.Shape)
		if d.Program >= 0 {
			v.Instruction, v.Text, v.Tile = writer(m.Programs[d.Program], d.First, d.Last, place, t, uint64(i))
			for _, n := range m.Nodes {
				if n.Program == d.Program && n.First == d.First && n.Last == d.Last && n.First < n.Last && len(n.Outputs) == 0 {
					v.With = append(v.With, n.Name)
				}
			}
		}
	}
	return v
}

// index is element n of a tensor by its axes.
func index(n int, shape []int) []int {
	at := make([]int, len(shape))
	for i := len(shape) - 1; i >= 0; i-- {
		at[i] = n % shape[i]
		n /= shape[i]
	}
	return at
}

// writer returns the last of the instructions [first, last) of p that stores byte off of t, which is at place, and the
// indexes of what it stores of t.
func writer(p *isa.Program, first, last int, place *model.Tensor, t *ir.Tensor, off uint64) (at int, text string, tile [][2]int) {
	off += place.Offset
	for i := last - 1; i >= first; i-- {
		inst, v := isa.Decode((*isa.Word)(p.Text[i*isa.Size:]))
		st, ok := inst.(isa.Store)
		if v != nil || !ok || int(st.Binding) != place.Binding {
			continue
		}
		if r := isa.Load(st).Memory(); covers(r, off) {
			one := &isa.Program{Descriptor: p.Descriptor, Text: p.Text[i*isa.Size:][:isa.Size]}
			lines := strings.Split(strings.TrimSpace(isa.Disassemble(one)), "\n")
			return i, strings.TrimSpace(lines[len(lines)-1]), box(r, place.Offset, t)
		}
	}
	return -1, "", nil
}

// box is, of each axis of t, the first and the last index of its elements in rows; t begins at byte base.
func box(rows isa.Rows, base uint64, t *ir.Tensor) [][2]int {
	tile := make([][2]int, len(t.Shape))
	for i := range tile {
		tile[i] = [2]int{t.Shape[i], -1}
	}
	element := func(off uint64) int {
		size := max(t.Type.Bits()/8, 1)
		return min(int(off-min(off, base)), t.Bytes()-1) / size
	}
	for o := range rows.Outer {
		for i := range rows.Inner {
			from := rows.Base + o*rows.OuterStride + i*rows.InnerStride
			lo, hi := index(element(from), t.Shape), index(element(from+rows.Bytes-1), t.Shape)
			whole := false // behind the first axis in which a row goes on, it has all of them
			for a := range tile {
				first, last := lo[a], hi[a]
				if whole {
					first, last = 0, t.Shape[a]-1
				}
				tile[a] = [2]int{min(tile[a][0], first), max(tile[a][1], last)}
				whole = whole || first != last
			}
		}
	}
	return tile
}

// covers reports whether byte off is in one of the rows.
func covers(r isa.Rows, off uint64) bool {
	for o := range r.Outer {
		base := r.Base + o*r.OuterStride
		if off < base {
			continue
		}
		i := uint64(0)
		if r.InnerStride > 0 {
			i = min((off-base)/r.InnerStride, r.Inner-1)
		}
		if at := base + i*r.InnerStride; off >= at && off < at+r.Bytes {
			return true
		}
	}
	return false
}
