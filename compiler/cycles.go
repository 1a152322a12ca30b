// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"context"
	"fmt"

	"npuemu/compiler/model"
	"npuemu/core/isa"
	"npuemu/timing"
)

// Estimate fills in the cycles of m's programs, and of each node by itself and what bounds it, by the timing model (§13) with
// parameters p. Nodes overlap in a program, which therefore takes less than its nodes together.
func Estimate(ctx context.Context, m *model.Model, p timing.Params) error {
	return EstimateWatched(ctx, m, p, func(int, int, string) {})
}

// EstimateWatched is Estimate, and tells progress of each node.
func EstimateWatched(ctx context.Context, m *model.Model, p timing.Params, progress Progress) error {
	c := config(m, p)
	if err := c.Validate(); err != nil {
		return err
	}
	for i := range m.Steps {
		s := &m.Steps[i]
		if s.Program < 0 {
			continue
		}
		prog := m.Programs[s.Program]
		progress(i, len(m.Steps), fmt.Sprintf("cycles of program %d", s.Program))
		r, err := timing.Program(ctx, prog, c, 0)
		if err != nil {
			return fmt.Errorf("compiler: program %d: %w", s.Program, err)
		}
		s.Cycles = r.Cycles
		tokens := match(prog.Text)
		for k := range m.Nodes {
			n := &m.Nodes[k]
			progress(k, len(m.Nodes), "cycles of "+n.Name)
			if n.Program != s.Program || n.First == n.Last || n.Within != "" {
				continue
			}
			alone := &isa.Program{Descriptor: prog.Descriptor, Text: tokens.part(prog.Text, n.First, n.Last)}
			r, parts, err := timing.Parts(ctx, alone, c, 0, []timing.Part{{Last: len(alone.Text) / isa.Size}})
			if err != nil {
				return fmt.Errorf("compiler: node %q: %w", n.Name, err)
			}
			n.Cycles, n.Moved, n.Bound = r.Cycles, parts[0].Read+parts[0].Written, parts[0].Bound.String()
		}
	}
	return nil
}

// config is the card that m is for, with parameters p.
func config(m *model.Model, p timing.Params) timing.Config {
	return timing.Config{Rows: m.Array.Rows, Cols: m.Array.Cols, Scratchpad: int64(m.Array.Scratchpad), Accumulators: int64(m.Array.Accumulators), Params: p}
}

// tokens says for each instruction of a text which other one signals what it waits for, and which
// waits for what it signals; −1 for none. Each token has one engine that signals and one that waits
// (package emit), a count of 1 each time, so the first signal is for the first wait.
type tokens struct{ signaller, waiter []int }

func match(text []byte) tokens {
	n := len(text) / isa.Size
	t := tokens{make([]int, n), make([]int, n)}
	var signals, waits [16][]int
	for i := range n {
		t.signaller[i], t.waiter[i] = -1, -1
		w := text[i*isa.Size:]
		if w[2]>>4 > 0 {
			waits[w[2]&15] = append(waits[w[2]&15], i)
		}
		if w[3]>>4 > 0 {
			signals[w[3]&15] = append(signals[w[3]&15], i)
		}
	}
	for k := range signals {
		for j := range min(len(signals[k]), len(waits[k])) {
			s, w := signals[k][j], waits[k][j]
			t.signaller[w], t.waiter[s] = s, w
		}
	}
	return t
}

// part is instructions [first, last) as a text of their own: what they wait for and signal beyond
// it is left out, and the setup that they find is made again.
func (t tokens) part(text []byte, first, last int) []byte {
	var out []byte
	for _, o := range []isa.Opcode{isa.OpOperands, isa.OpWindow, isa.OpBlocks, isa.OpSparse, isa.OpImage, isa.OpShape, isa.OpScales} {
		for i := first - 1; i >= 0; i-- {
			if isa.Opcode(text[i*isa.Size]) == o {
				out = append(out, text[i*isa.Size:][:isa.Size]...)
				out[len(out)-isa.Size+2], out[len(out)-isa.Size+3] = 0, 0
				break
			}
		}
	}
	inside := func(i int) bool { return i >= first && i < last }
	for i := first; i < last; i++ {
		at := len(out)
		out = append(out, text[i*isa.Size:][:isa.Size]...)
		if !inside(t.signaller[i]) {
			out[at+2] = 0
		}
		if !inside(t.waiter[i]) {
			out[at+3] = 0
		}
	}
	return append(out, isa.Text(isa.Halt{})...)
}
