// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"testing"

	"npuemu/core"
	"npuemu/core/isa"
)

// Executed counts the instructions of all programs, and goes on while one runs, the first time and when it is known.
func TestExecuted(t *testing.T) {
	c := newCore(t, newConfig)
	var text []isa.Instruction
	for range 200 {
		text = append(text, isa.Fill{NX: 1, NY: 1}, isa.Store{Binding: 1, NX: 1, NY: 1, NZ: 1})
	}
	p := newProgram(2, isa.Text(text...))
	tokensBetween(p.Text)
	p.Text = append(p.Text, isa.Text(isa.Halt{})...)
	total := uint64(0)
	for run := range 3 {
		m := &watched{memory: memory{t: t, bufs: [][]byte{make([]byte, 8), make([]byte, 8)}}, c: c}
		stats, err := c.Run(t.Context(), p.Image(), m.bind(), m)
		if err != nil {
			t.Fatal(err)
		}
		if m.most <= total+stats.Instructions/2 || m.most > total+stats.Instructions {
			t.Errorf("run %d: within the program %d instructions are seen, after %d of programs before, of %d", run, m.most, total, stats.Instructions)
		}
		if total += stats.Instructions; c.Executed() != total {
			t.Errorf("run %d: %d instructions, want %d", run, c.Executed(), total)
		}
	}
}

// watched is a memory that looks at how far the core is.
type watched struct {
	memory
	c    *core.Core
	most uint64
}

func (m *watched) Store(b core.Binding, off uint64, p []byte) error {
	m.most = max(m.most, m.c.Executed())
	return m.memory.Store(b, off, p)
}
