// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"npuemu/core"
	"npuemu/core/isa"
)

// Rows that touch on both sides are one call of Memory, and short ones of LOAD that touch in memory; others are not.
func TestRowsMerge(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   isa.Load
		want int
	}{
		{"dense", isa.Load{NX: 8, NY: 4, NZ: 2, StrideY: 8, StrideZ: 32, LocalStride: 8}, 1},
		{"gap between planes", isa.Load{NX: 8, NY: 4, NZ: 2, StrideY: 8, StrideZ: 40, LocalStride: 8}, 2},
		{"planes of one row", isa.Load{NX: 8, NY: 1, NZ: 4, StrideZ: 8, LocalStride: 8}, 1},
		{"planes of one row, gap in local memory", isa.Load{NX: 8, NY: 1, NZ: 4, StrideZ: 8, LocalStride: 9}, 1},
		{"gap in memory", isa.Load{NX: 8, NY: 4, NZ: 2, StrideY: 9, StrideZ: 36, LocalStride: 8}, 8},
		{"gap in local memory", isa.Load{NX: 8, NY: 4, NZ: 2, StrideY: 8, StrideZ: 32, LocalStride: 12}, 2},
		{"long rows with a gap in local memory", isa.Load{NX: 65, NY: 2, NZ: 1, StrideY: 65, LocalStride: 66}, 2},
		{"channels become the last dimension", isa.Load{NX: 1, NY: 3, NZ: 20, StrideY: 40, StrideZ: 1, LocalStride: 1}, 3},
		{"the same, with gaps", isa.Load{NX: 2, NY: 3, NZ: 20, StrideY: 40, StrideZ: 3, LocalStride: 2}, 60},
		{"the same row again", isa.Load{NX: 8, NY: 4, NZ: 2, LocalStride: 8}, 8},
	} {
		m := &memory{t: t, bufs: [][]byte{make([]byte, 256)}}
		if _, err := newCore(t, testConfig).Run(t.Context(), program(testConfig, 1, isa.Text(tt.in, isa.Halt{})).Image(), m.bind(), m); err != nil {
			t.Fatal(err)
		}
		if m.calls != tt.want {
			t.Errorf("%s: %d calls, want %d", tt.name, m.calls, tt.want)
		}
	}
}

// STORE and LOAD of rows, to the accumulators too, are the same whether the memory moves them at once or not, and so is what
// was stored before a row that fails.
func TestRowMemory(t *testing.T) {
	rng := rand.New(rand.NewPCG(53, 54))
	cfg := testConfig
	c := newCore(t, cfg)
	in := make([]byte, cfg.AccSize)
	for i := range in {
		in[i] = byte(rng.Uint32())
	}
	planes := 0
	for range 1000 {
		acc := rng.IntN(2) == 0
		unit := uint32(1 + 3*rng.IntN(2))
		if acc {
			unit = 4
		}
		s := isa.Store{Acc: acc, Binding: 1, NX: unit * uint32(1+rng.IntN(10)), NY: uint16(1 + rng.IntN(6)), NZ: uint16(1 + rng.IntN(6)), Wait: tok(0, 1), Signal: tok(1, 1)}
		s.LocalStride = uint16(s.NX + unit*uint32(rng.IntN(3)))
		s.StrideY, s.StrideZ = uint32(rng.IntN(100)), uint32(rng.IntN(300)) // rows may overlap
		back := isa.Load(s)
		back.Wait, back.Signal = tok(1, 1), tok(2, 1)
		bad := uint64(0)
		if rng.IntN(3) == 0 {
			bad = uint64(1 + rng.IntN(300))
		}
		text := isa.Text(isa.Load{Acc: acc, NX: uint32(len(in)), NY: 1, NZ: 1, Signal: tok(0, 1)}, s, back,
			isa.Store{Acc: acc, Binding: 2, NX: uint32(cfg.AccSize), NY: 1, NZ: 1, Wait: tok(2, 1)}, isa.Halt{})
		var results [2][]byte
		var errs [2]string
		var stats [2]core.Stats
		for k := range results {
			m := &memory{t: t, bufs: [][]byte{in, make([]byte, 4096), make([]byte, cfg.AccSize)}}
			m.fail = func(b core.Binding, off uint64) error {
				if b.Addr == 2<<32 && bad > 0 && off >= bad {
					return &core.MemoryError{Addr: b.Addr + off, Err: errors.New("bad")}
				}
				return nil
			}
			var mem core.Memory = m
			if k == 1 {
				mem = rowMemory{m}
			}
			var err error
			if stats[k], err = c.Run(t.Context(), program(cfg, 3, text).Image(), m.bind(), mem); err != nil {
				errs[k] = err.Error()
			}
			results[k] = append(m.bufs[1], m.bufs[2]...)
			planes += m.planes
		}
		if !bytes.Equal(results[0], results[1]) || errs[0] != errs[1] || stats[0] != stats[1] {
			t.Errorf("%+v: rows at once differ: %q and %q, %+v and %+v", s, errs[0], errs[1], stats[0], stats[1])
		}
	}
	if planes == 0 {
		t.Error("the memory was never asked for rows at once")
	}
}

// LOAD of short rows, however they lie in memory and in the scratchpad, is what plain loops make of it; and where memory fails
// the fault is that of the first row that could not be read, with so many bytes counted.
func TestShortRows(t *testing.T) {
	rng := rand.New(rand.NewPCG(51, 52))
	cfg := testConfig
	c := newCore(t, cfg)
	in, out := make([]byte, 4096), make([]byte, cfg.SpadSize)
	for i := range in {
		in[i] = byte(rng.Uint32())
	}
	m := &memory{t: t, bufs: [][]byte{in, out}}
	bindings := m.bind()
	store := isa.Store{Binding: 1, NX: uint32(cfg.SpadSize), NY: 1, NZ: 1, Wait: tok(0, 1)}
	for range 3000 {
		l := isa.Load{NX: uint32(1 + rng.IntN(5)), NY: uint16(1 + rng.IntN(12)), NZ: uint16(1 + rng.IntN(12)), Signal: tok(0, 1)}
		l.LocalStride = uint16(int(l.NX) + rng.IntN(4))
		l.StrideY, l.StrideZ = uint32(rng.IntN(20)), uint32(rng.IntN(20))
		switch rng.IntN(4) {
		case 0:
			l.StrideZ = l.NX
		case 1:
			l.StrideY = l.NX
		case 2:
			l.StrideY, l.StrideZ = l.NX, l.NX*uint32(l.NY)
		}
		bad := uint64(1 << 40)
		if rng.IntN(4) == 0 {
			bad = uint64(1 + rng.IntN(40))
		}
		want := make([]byte, cfg.SpadSize)
		at, loaded, failed := 0, uint64(0), false
	rows:
		for z := range int(l.NZ) {
			for y := range int(l.NY) {
				off := z*int(l.StrideZ) + y*int(l.StrideY)
				if failed = uint64(off) <= bad && bad < uint64(off)+uint64(l.NX); failed {
					break rows
				}
				copy(want[at:], in[off:][:l.NX])
				at += int(l.LocalStride)
				loaded += uint64(l.NX)
			}
		}
		m.failsAt = bad
		var mem core.Memory = m
		if rng.IntN(2) == 0 {
			mem = rowMemory{m}
		}
		stats, err := c.Run(t.Context(), program(cfg, 2, isa.Text(l, store, isa.Halt{})).Image(), bindings, mem)
		var fault *core.Fault
		switch {
		case failed && (!errors.As(err, &fault) || fault.Status != core.StatusMemoryFault || fault.Info != bindings[0].Addr+bad):
			t.Errorf("%+v with byte %d bad: %v", l, bad, err)
		case failed && stats.BytesLoaded > loaded:
			t.Errorf("%+v with byte %d bad: %d bytes loaded, want at most %d", l, bad, stats.BytesLoaded, loaded)
		case !failed && err != nil:
			t.Errorf("%+v: %v", l, err)
		case !failed && (!bytes.Equal(out, want) || stats.BytesLoaded != loaded):
			t.Errorf("%+v: differs from plain loops, or loaded %d bytes instead of %d", l, stats.BytesLoaded, loaded)
		}
	}
}
