// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"context"

	"npuemu/compiler/emit"
	"npuemu/compiler/ir"
	"npuemu/core/isa"
	"npuemu/timing"
)

// timer says what instructions cost by the timing model (§13), with the target's parameters.
type timer struct {
	config   timing.Config
	target   emit.Target
	bindings int
	written  []uint8
}

// newTimer returns a timer of programs for g on target.
func newTimer(g *ir.Graph, target emit.Target) *timer {
	t := &timer{target: target, bindings: FirstIO + len(g.Inputs) + len(g.Outputs), written: written(g)}
	if target.Timing == (timing.Params{}) {
		target.Timing = timing.DefaultParams()
	}
	t.config = timing.Config{Rows: target.Rows, Cols: target.Cols, Scratchpad: int64(target.SpadSize), Accumulators: int64(target.AccSize), Params: target.Timing}
	return t
}

// What a byte of LOAD and STORE and an instruction cost beside the cycles that they take: a little, so that of two ways
// that take about equally long the one is taken that asks less of memory and of the sequencer.
const (
	costOfByte        = 1.0 / 128
	costOfInstruction = 24
)

// cost is that of a program of l, in cycles, or below 0 if that is no program.
func (t *timer) cost(l *emit.List) float64 {
	b := emit.New(t.target, t.bindings, t.written...)
	b.Append(l)
	counts := b.Counts()
	prog, _, err := b.Program()
	if err != nil {
		return -1
	}
	r, err := timing.Program(context.Background(), prog, t.config, 0)
	if err != nil {
		return -1
	}
	return float64(r.Cycles) + costOfByte*float64(counts.Loaded+counts.Stored) + costOfInstruction*float64(len(prog.Text)/isa.Size)
}

// cheapest generates the same in n ways, and takes the one of least cost; the first of equals.
func (c *code) cheapest(n int, f func(i int, c *code) error) error {
	if n == 1 {
		return f(0, c)
	}
	var best code
	var list *emit.List
	least, before := -1.0, c.b.Entries()
	for i := range n {
		way := *c
		if err := f(i, &way); err != nil {
			return err
		}
		l := c.b.Cut(before) // operations behind a product emit to this list
		if cost := c.timer.cost(l); i == 0 || cost >= 0 && (cost < least || least < 0) {
			best, list, least = way, l, cost
		}
	}
	*c = best
	c.b.Join(list)
	return nil
}
