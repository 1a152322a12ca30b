// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"npuemu/compiler/emit"
	"npuemu/compiler/ir"
	"npuemu/compiler/model"
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
	Want, Got        []byte   // of the element
	Differ, Of       int      // elements of the tensor
	Program          int      // −1: the node is on the host
	Instruction      int      // the STORE that wrote it, by its index in the program; −1 if none did
	Text             string   // that instruction
	With             []string // nodes that are computed together with it, and whose results are not in memory
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
		fmt.Fprintf(&b, "; instruction %d of program %d stored its tile: %s", d.Instruction, d.Program, d.Text)
	}
	if len(d.With) > 0 {
		fmt.Fprintf(&b, "; nodes whose results stay in local memory are computed with it: %s", strings.Join(d.With, ", "))
	}
	return b.String()
}

// Verify runs g on card, whose core is target, and in the reference, and compares what each node computes. nil
// means that all is equal, to the bit. The program differs from Build's in that no memory is used twice.
func Verify(ctx context.Context, card run.Card, g *ir.Graph, target emit.Target, inputs [][]byte, progress func(done, of int, what string)) (*Divergence, run.Report, error) {
	m, err := build(g, target, true)
	if err != nil {
		return nil, run.Report{}, err
	}
	return verify(ctx, card, g, m, inputs, progress)
}

func verify(ctx context.Context, card run.Card, g *ir.Graph, m *model.Model, inputs [][]byte, progress func(done, of int, what string)) (found *Divergence, report run.Report, err error) {
	s, err := run.Load(card, m)
	if err != nil {
		return nil, run.Report{}, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if _, report, err = s.Run(ctx, inputs, nil); err != nil {
		return nil, report, err
	}
	at := 0
	_, err = ref.Run(g, inputs, func(n *ir.Node, out [][]byte) error {
		d := &m.Nodes[at]
		at++
		if progress != nil {
			progress(at, len(g.Nodes), n.Name)
		}
		k := 0
		for i, t := range n.Outputs {
			if t == nil || k == len(d.Outputs) || d.Outputs[k].Name != t.Name { // it never was in memory
				continue
			}
			if found == nil {
				found = compare(m, d, t, &d.Outputs[k], out[i], s.Bytes(&d.Outputs[k]))
			}
			k++
		}
		return context.Cause(ctx) // a reference takes its time
	})
	if err != nil {
		return nil, report, fmt.Errorf("reference: %w", err)
	}
	return found, report, nil
}

// compare compares the data of t, which node d computes at place.
func compare(m *model.Model, d *model.Node, t *ir.Tensor, place *model.Tensor, want, got []byte) *Divergence {
	if bytes.Equal(want, got) {
		return nil
	}
	size := max(t.Type.Bits()/8, 1)
	v := &Divergence{Node: d.Name, Op: d.Op, Tensor: t.Name, Type: t.Type, Shape: t.Shape, Of: len(want) / size, Program: d.Program, Instruction: -1}
	for i := 0; i < len(want); i += size {
		if bytes.Equal(want[i:i+size], got[i:i+size]) {
			continue
		}
		if v.Differ++; v.Differ > 1 {
			continue
		}
		v.Want, v.Got, v.Index = want[i:i+size], bytes.Clone(got[i:i+size]), index(i/size, t.Shape)
		if d.Program >= 0 {
			v.Instruction, v.Text = writer(m.Programs[d.Program], d.First, d.Last, place, uint64(i))
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

// writer returns the last of the instructions [first, last) of p that stores byte off of t.
func writer(p *isa.Program, first, last int, t *model.Tensor, off uint64) (at int, text string) {
	off += t.Offset
	for i := last - 1; i >= first; i-- {
		inst, v := isa.Decode((*isa.Word)(p.Text[i*isa.Size:]))
		st, ok := inst.(isa.Store)
		if v != nil || !ok || int(st.Binding) != t.Binding {
			continue
		}
		if r := isa.Load(st).Memory(); covers(r, off) {
			one := &isa.Program{Descriptor: p.Descriptor, Text: p.Text[i*isa.Size:][:isa.Size]}
			lines := strings.Split(strings.TrimSpace(isa.Disassemble(one)), "\n")
			return i, strings.TrimSpace(lines[len(lines)-1])
		}
	}
	return -1, ""
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
