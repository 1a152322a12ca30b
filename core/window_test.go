// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"npuemu/core"
	"npuemu/core/isa"
)

// placed is memory for several goroutines: a binding's buffer is its address's upper half, less one.
type placed struct {
	bufs   [][]byte
	apart  bool     // each binding is a place of its own
	bad    uint64   // offset in bad's binding that cannot be accessed; 0: none
	in     int      // that binding
	met    chan int // if not nil, accesses to bindings 0 and 1 wait for each other
	lonely chan error
}

func (m *placed) Place(b core.Binding) (uint64, bool) {
	if m.apart {
		return b.Addr, true
	}
	return 0, true
}

func (m *placed) access(b core.Binding, off uint64, n int) ([]byte, error) {
	k := int(b.Addr>>32) - 1
	if m.bad > 0 && k == m.in && off <= m.bad && m.bad < off+uint64(n) {
		return nil, &core.MemoryError{Addr: b.Addr + m.bad, Err: errors.New("bad")}
	}
	if m.met != nil && k < 2 {
		select {
		case m.met <- k:
		case other := <-m.met:
			if other == k {
				m.lonely <- fmt.Errorf("two accesses to binding %d", k)
			}
		case <-time.After(20 * time.Second):
			m.lonely <- fmt.Errorf("nobody accesses a binding while %d is", k)
		}
	}
	return m.bufs[k][off:][:n], nil
}

func (m *placed) Load(b core.Binding, off uint64, p []byte) error {
	from, err := m.access(b, off, len(p))
	copy(p, from)
	return err
}

func (m *placed) Store(b core.Binding, off uint64, p []byte) error {
	to, err := m.access(b, off, len(p))
	copy(to, p)
	return err
}

func (m *placed) bind() (list []core.Binding) {
	for k, b := range m.bufs {
		list = append(list, core.Binding{Addr: uint64(k+1) << 32, Size: uint64(len(b)), Read: true, Write: true})
	}
	return list
}

// tiled is a program of products whose operands and results come and go in two buffers each, as a compiler makes it. It
// fits cfg, with four bindings: activations, weights, parameters, results.
func tiled(cfg core.Config, tiles int) *isa.Program {
	const m, n, k = 64, 24, 96
	weights, params := uint32(0), uint32(n*k)
	in, out := params+256, params+256+2*m*k
	text := []isa.Instruction{
		isa.Load{Binding: 1, NX: n * k, NY: 1, NZ: 1}, isa.Load{Binding: 2, Local: params, NX: 8, NY: 1, NZ: 1, Signal: tok(1, 1)},
		isa.Operands{AStride: k, BStride: n, AccStride: 4 * n, Wait: tok(1, 1)},
	}
	for t := range tiles {
		buf := uint32(t % 2)
		load := isa.Load{Offset: uint64(t * m * k), Local: in + buf*m*k, NX: m * k, NY: 1, NZ: 1, Signal: tok(2, 1)}
		gemm := isa.Gemm{M: m, N: n, K: k, A: in + buf*m*k, B: weights, Acc: buf * 4 * m * n, Wait: tok(2, 1), Signal: tok(3, 1)}
		requant := isa.Requant{
			N: n, AccStride: 4 * n, Acc: buf * 4 * m * n, Out: out + buf*m*n, Params: params, MX: m, MY: 1, OutStrideX: n, Lo: -128, Hi: 127,
			Wait: tok(3, 1), Signal: tok(4, 1),
		}
		store := isa.Store{Binding: 3, Offset: uint64(t * m * n), Local: out + buf*m*n, NX: m * n, NY: 1, NZ: 1, Wait: tok(4, 1), Signal: tok(5, 1)}
		if t >= 2 {
			load.Wait = tok(5, 1) // a tile that has been stored leaves its buffers
		}
		text = append(text, load, gemm, requant, store)
	}
	p := program(cfg, 4, isa.Text(append(text, isa.Halt{})...))
	p.Minor, p.Features = isa.Minor, isa.Features
	return p
}

func tiledMemory(tiles int) *placed {
	rng := rand.New(rand.NewPCG(7, 11))
	return &placed{bufs: [][]byte{
		randomBytes(rng, tiles*64*96), randomBytes(rng, 24*96), {0, 0, 0, 0x40, 38, 0, 0, 0}, make([]byte, tiles*64*24),
	}}
}

// sideConfig has room for tiled.
func sideConfig(threads int) core.Config {
	cfg := newConfig
	cfg.SpadSize, cfg.AccSize, cfg.Threads = 1<<20, 1<<17, threads
	return cfg
}

// Bytes, counts and hazards are those of one thread, also when memory fails in the middle, whatever it is that does, and
// afterwards.
func TestSideBySideFails(t *testing.T) {
	const tiles = 14
	program := tiled(sideConfig(1), tiles)
	program.Text[isa.Size*40+3] = 0 // a LOAD that nobody waits for: a hazard, and tokens are missing
	images := [][]byte{tiled(sideConfig(1), tiles).Image(), program.Image()}
	rng := rand.New(rand.NewPCG(3, 4))
	type row struct {
		in  int
		bad uint64
	}
	rows := []row{{}, {}, {}, {0, 1}, {1, 1}, {2, 4}, {3, 1}} // the first three make a course of it
	for range 10 {
		rows = append(rows, row{0, 1 + rng.Uint64N(tiles*64*96-1)}, row{3, 1 + rng.Uint64N(tiles*64*24-1)})
	}
	for _, threads := range []int{1, 2, 3, 7} {
		c := newCore(t, sideConfig(threads))
		for _, r := range rows {
			for n, image := range images {
				want, got := tiledMemory(tiles), tiledMemory(tiles)
				want.in, want.bad, got.in, got.bad, got.apart = r.in, r.bad, r.in, r.bad, rng.IntN(2) == 0
				if r.in == 2 && r.bad == 4 { // a parameter that breaks a rule instead
					want.bufs[2][4], got.bufs[2][4], want.bad, got.bad = 0, 0, 0, 0
				}
				one := newCore(t, sideConfig(1))
				wantStats, wantErr := one.Run(t.Context(), image, want.bind(), want)
				gotStats, gotErr := c.Run(t.Context(), image, got.bind(), got)
				if fmt.Sprint(gotErr) != fmt.Sprint(wantErr) || gotStats != wantStats {
					t.Errorf("%d threads, %+v, program %d: %v, %+v, want %v, %+v", threads, r, n, gotErr, gotStats, wantErr, wantStats)
				}
				if fmt.Sprint(c.Hazards()) != fmt.Sprint(one.Hazards()) {
					t.Errorf("%d threads, %+v, program %d: hazards %v, want %v", threads, r, n, c.Hazards(), one.Hazards())
				}
				if !bytes.Equal(got.bufs[3], want.bufs[3]) {
					t.Errorf("%d threads, %+v, program %d: another result", threads, r, n)
				}
			}
		}
	}
}

// Instructions that share no byte are really executed at once.
func TestSideBySide(t *testing.T) {
	c := newCore(t, sideConfig(2))
	const n = 255 << 10 // one task each, and together worth waking somebody
	p := program(sideConfig(2), 2, isa.Text(isa.Load{NX: n, NY: 1, NZ: 1}, isa.Load{Binding: 1, Local: n, NX: n, NY: 1, NZ: 1}, isa.Halt{}))
	m := &placed{bufs: [][]byte{make([]byte, n), make([]byte, n)}, met: make(chan int), lonely: make(chan error, 2)}
	if _, err := c.Run(t.Context(), p.Image(), m.bind(), m); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-m.lonely:
		t.Error(err)
	default:
	}
}

// A program with tasks allocates nothing once every unit has seen what it needs.
func TestSideBySideNoAllocation(t *testing.T) {
	const tiles = 40
	c, m := newCore(t, sideConfig(2)), tiledMemory(tiles)
	image, bindings := tiled(sideConfig(2), tiles).Image(), m.bind()
	run := func() {
		if _, err := c.Run(t.Context(), image, bindings, m); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		run()
	}
	if n := allocsPerRun(20, run); n != 0 {
		t.Errorf("%v allocations in a program", n)
	}
}

// What is known of a program is not taken for what another one is, or the same one elsewhere.
func TestProgramsThatComeAgain(t *testing.T) {
	for _, threads := range []int{1, 2} {
		cfg := newConfig
		cfg.Threads = threads
		c := newCore(t, cfg)
		text := func(l ...isa.Instruction) []byte { return newProgram(2, isa.Text(l...)).Image() }
		load, store := isa.Load{NX: 64, NY: 1, NZ: 1, Signal: tok(0, 1)}, isa.Store{Binding: 1, NX: 64, NY: 1, NZ: 1, Wait: tok(0, 1)}
		clean := text(load, store, isa.Halt{})
		racy := text(load, store, isa.Fill{NX: 8, NY: 1, Value: 1}, isa.Halt{})
		other := text(load, isa.Store{Binding: 1, Local: 64, NX: 64, NY: 1, NZ: 1, Wait: tok(0, 1)}, isa.Halt{})
		spoiled := bytes.Clone(clean) // the checksum is not that of the text
		spoiled[isa.DescriptorSize+8]++
		two := text(isa.Store{Binding: 1, NX: 8, NY: 1, NZ: 1}, isa.Load{Local: 64, NX: 8, NY: 1, NZ: 1}, isa.Halt{})
		for round := range 3 {
			for _, row := range []struct {
				name    string
				image   []byte
				same    bool // one memory behind both bindings
				hazards bool
				err     bool
			}{
				{"clean", clean, false, false, false},
				{"racy", racy, false, true, false},
				{"other", other, false, false, false},
				{"spoiled", spoiled, false, false, true},
				{"no HALT", text(load, store), false, false, true},
				{"two", two, false, false, false},
				{"two at one place", two, true, true, false},
				{"two again", two, false, false, false},
			} {
				m := &placed{bufs: [][]byte{bytes.Repeat([]byte{7}, 64), make([]byte, 64)}}
				bindings := m.bind()
				if row.same {
					bindings[1].Addr = bindings[0].Addr
				}
				_, err := c.Run(t.Context(), row.image, bindings, m)
				if (err != nil) != row.err || (len(c.Hazards()) > 0) != row.hazards {
					t.Errorf("%d threads, round %d, %s: error %v, hazards %v", threads, round, row.name, err, c.Hazards())
				}
				if row.name == "clean" && !bytes.Equal(m.bufs[1], m.bufs[0]) {
					t.Errorf("%d threads, round %d: %x was stored", threads, round, m.bufs[1])
				}
			}
		}
	}
}
