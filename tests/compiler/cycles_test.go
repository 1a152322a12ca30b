// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"encoding/binary"
	"testing"

	"npuemu/compiler"
	"npuemu/compiler/ir"
	"npuemu/compiler/run"
	"npuemu/timing"
	"npuemu/vdev"
)

// TestCycles: a run tells what the card counted of each program, or why it counted nothing. On a bus as wide as device memory, and as
// near, programs take what the compiler estimates.
func TestCycles(t *testing.T) {
	for _, tt := range []struct {
		mode, arch, untimed string
	}{
		{vdev.TimeTimed, "", ""},
		{vdev.TimeFast, "", run.FastMode},
		{vdev.TimeTimed, "1.3", run.NoTiming},
	} {
		cfg := vdev.DefaultConfig()
		cfg.Time.Mode = tt.mode
		cfg.Timing.BusWidth, cfg.Timing.BusLatency, cfg.Timing.Burst = cfg.Timing.DRAMWidth, cfg.Timing.DRAMLatency, 1
		if tt.arch != "" {
			cfg.Arch = tt.arch
		}
		card, err := NewCard(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		g, err := ir.Parse(verified)
		if err != nil {
			t.Fatal(err)
		}
		m, err := compiler.Build(g, card.Target())
		if err != nil {
			t.Fatal(err)
		}
		if err := compiler.Estimate(t.Context(), m, cfg.Timing); err != nil {
			t.Fatal(err)
		}
		s, err := run.Load(card, m)
		if err != nil {
			t.Fatal(err)
		}
		x := binary.LittleEndian.AppendUint32(make([]byte, 28), 7)
		var began uint64
		for i := range 2 {
			_, r, err := s.Run(t.Context(), [][]byte{x}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if r.Untimed != tt.untimed || len(r.Launches) != 1 {
				t.Fatalf("%+v: untimed %q, launches %+v", tt, r.Untimed, r.Launches)
			}
			l := r.Launches[0]
			if r.Counters.Cycles != l.Cycles || (l.Profile == nil) != (tt.arch != "") || (l.Cycles == 0) != (tt.untimed != "") {
				t.Errorf("%+v: counters %+v, launch %+v", tt, r.Counters, l)
			}
			p := l.Profile
			if p == nil {
				continue
			}
			if p.Timed != (tt.mode == vdev.TimeTimed) || p.Instructions != r.Counters.Instructions || p.MACs != r.Counters.MACs || p.Loaded != r.Counters.BytesRead || p.Stored != r.Counters.BytesWritten {
				t.Errorf("%+v: counters %+v, profile %+v", tt, r.Counters, p)
			}
			if !p.Timed {
				continue
			}
			c := timing.Config{Params: cfg.Timing}
			fetch := c.Fetch(uint64(len(m.Programs[0].Image())), true) + c.Fetch(uint64(32*len(m.Bindings)), true)
			if p.Cycles != m.Steps[0].Cycles || l.Cycles != p.Cycles+fetch+c.Overhead() || i > 0 && p.Began != began {
				t.Errorf("%d cycles of a program, estimated were %d; %d of the command, %d of which are fetching it; it began at %d, want %d", p.Cycles, m.Steps[0].Cycles, l.Cycles, fetch, p.Began, began)
			}
			began = p.Began + l.Cycles
		}
		if err := card.Close(); err != nil {
			t.Error(err)
		}
	}
}
