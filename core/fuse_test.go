// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"npuemu/core"
	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// chain is a BIAS, a product and a REQUANT of its result, most of them such that they are computed in one pass.
// Parameters lie in the last quarter of the scratchpad.
func chain(rng *rand.Rand, spad, acc int) []isa.Instruction {
	l := isa.Limits{SpadSize: uint32(spad), AccSize: uint32(acc), Features: isa.Features}
	for {
		list := anyProduct(rng, spad, acc)
		o := list[0].(isa.Operands)
		if o.A.Float() && rng.IntN(8) > 0 {
			continue
		}
		var m, n, to uint32
		switch i := list[2].(type) {
		case isa.Gemm:
			m, n, to = i.M, i.N, i.Acc
		case isa.Conv:
			m, n, to = uint32(i.OutH)*uint32(i.OutW), uint32(i.Cout), i.Acc
		}
		near := func(v uint32) uint32 { // most often v
			if rng.IntN(12) == 0 {
				return v + 1
			}
			return v
		}
		bias := isa.Bias{N: uint16(near(n)), M: near(m), AccStride: uint16(o.AccStride), Acc: to, Bias: 4 * uint32(rng.IntN(spad/4))}
		r := isa.Requant{
			N: uint16(near(n)), MX: uint16(near(m)), MY: 1, AccStride: uint16(o.AccStride), Acc: to, Out: uint32(rng.IntN(spad * 3 / 4)),
			Params: uint32(spad*3/4) + 8*uint32(rng.IntN(20)), PerChannel: rng.IntN(2) == 0, Rounding: isa.Rounding(rng.IntN(2)),
			OutStrideX: uint16(n) + uint16(rng.IntN(2)*rng.IntN(9)), ZeroPoint: int8(rng.Uint32()), Lo: -128, Hi: 100,
		}
		if m%2 == 0 && rng.IntN(2) == 0 {
			r.MX, r.MY = uint16(m/2), 2
			r.OutStrideY = r.MX*r.OutStrideX + uint16(rng.IntN(9))
		}
		if bias.Check(l) == nil && r.Check(l) == nil && r.Out+uint32(r.MY)*uint32(max(r.OutStrideY, r.OutStrideX*r.MX)) < uint32(spad*3/4) {
			return append(append(list[:2:2], bias), list[2], r)
		}
	}
}

// Instructions that are computed in one pass leave what they leave one by one.
func TestOnePass(t *testing.T) {
	for _, threads := range []int{1, 3} {
		t.Run(fmt.Sprint(threads), func(t *testing.T) {
			cfg := newConfig
			cfg.Threads = threads
			c := newCore(t, cfg)
			rng := rand.New(rand.NewPCG(61, 62))
			for round := range 80 {
				spad := randomBytes(rng, cfg.SpadSize)
				for at := cfg.SpadSize * 3 / 4; at < cfg.SpadSize; at += 8 {
					binary.LittleEndian.PutUint64(spad[at:], 0)
					binary.LittleEndian.PutUint32(spad[at:], 1<<30+rng.Uint32N(1<<30))
					spad[at+4] = byte(31 + rng.IntN(20))
				}
				acc := randomBytes(rng, cfg.AccSize)
				var results [2][][]byte
				list := chain(rng, cfg.SpadSize, cfg.AccSize)
				list = append(list, chain(rng, cfg.SpadSize, cfg.AccSize)...)
				for apart := range results {
					text := []isa.Instruction{
						isa.Load{NX: uint32(cfg.SpadSize), NY: 1, NZ: 1}, isa.Load{Binding: 1, NX: uint32(cfg.AccSize), NY: 1, NZ: 1, Acc: true},
					}
					for _, i := range list {
						if text = append(text, i); apart == 1 {
							text = append(text, isa.Stamp{Binding: 4}) // waits for all that is late
						}
					}
					text = append(text, isa.Store{Binding: 2, NX: uint32(cfg.SpadSize), NY: 1, NZ: 1}, isa.Sync{Engine: isa.ClassStore})
					if round%2 == 0 { // else nobody sees the accumulators
						text[len(text)-1] = isa.Store{Binding: 3, NX: uint32(cfg.AccSize), NY: 1, NZ: 1, Acc: true}
					}
					p := newProgram(5, isa.Text(text...))
					tokensBetween(p.Text)
					p.Text = append(p.Text, isa.Text(isa.Halt{})...)
					mem := &memory{t: t, bufs: [][]byte{spad, acc, make([]byte, cfg.SpadSize), make([]byte, cfg.AccSize), make([]byte, isa.StampSize)}}
					if _, err := c.Run(t.Context(), p.Image(), mem.bind(), mem); err != nil {
						t.Fatalf("%v\n%s", err, isa.Disassemble(p))
					}
					results[apart] = mem.bufs[2:4]
				}
				for i, what := range []string{"scratchpad", "accumulators"} {
					if !bytes.Equal(results[0][i], results[1][i]) {
						t.Fatalf("%s: differs between one pass and several:\n%+v", what, list)
					}
				}
			}
		})
	}
}

// layer is a convolution with bias and REQUANT, and its weights again for another image.
func layer(cfg *core.Config) *isa.Program {
	*cfg = newConfig
	cfg.SpadSize, cfg.AccSize = 1<<20, 1<<20
	conv := isa.Conv{InH: 28, InW: 28, OutH: 28, OutW: 28, Cin: 64, Cout: 96, A: 0, B: 300000, Line: 28 * 64}
	bias := isa.Bias{N: 96, M: 784, AccStride: 384, Bias: 400000}
	requant := isa.Requant{N: 96, MX: 28, MY: 28, AccStride: 384, Out: 500000, OutStrideX: 96, OutStrideY: 28 * 96, Params: 410000, PerChannel: true, Lo: -128, Hi: 127}
	conv.Accumulate = true
	depthwise := isa.Conv{InH: 28, InW: 28, OutH: 28, OutW: 28, Cin: 96, Cout: 96, A: 500000, B: 360000, Line: 28 * 96}
	after := requant
	after.Out = 700000
	p := program(*cfg, 2, isa.Text(
		isa.Load{NX: 1 << 20, NY: 1, NZ: 1},
		isa.Operands{AStride: 64, BStride: 96, AccStride: 384},
		isa.Window{KernelH: 3, KernelW: 3, StepY: 1, StepX: 1, DilationY: 1, DilationX: 1, Groups: 1, PadTop: 1, PadLeft: 1},
		bias, conv, requant,
		isa.Load{NX: 28 * 28 * 64, Offset: 1 << 16, NY: 1, NZ: 1}, // the image alone
		bias, conv, requant,
		isa.Operands{AStride: 96, BStride: 96, AccStride: 384, A: systolic.Uint8, B: systolic.Uint8, BZero: 128},
		isa.Window{KernelH: 3, KernelW: 3, StepY: 1, StepX: 1, DilationY: 1, DilationX: 1, Groups: 96, PadTop: 1, PadLeft: 1},
		bias, depthwise, after,
		isa.Operands{AStride: 64, BStride: 96, AccStride: 384, A: systolic.Int16},
		isa.Gemm{M: 28, N: 96, K: 32, B: 300000},
		isa.Store{Binding: 1, Local: 500000, NX: 400000, NY: 1, NZ: 1},
	))
	tokensBetween(p.Text)
	p.Text = append(p.Text, isa.Text(isa.Halt{})...)
	p.Minor, p.Features = cfg.ISAMinor, cfg.Features
	return p
}

// A layer gives the same with any number of threads, on a used core too, and allocates nothing once the core has seen it.
func TestLayer(t *testing.T) {
	var cfg core.Config
	image := layer(&cfg).Image()
	in := randomBytes(rand.New(rand.NewPCG(3, 4)), cfg.SpadSize)
	for at := 410000; at < 410000+8*96; at += 8 {
		binary.LittleEndian.PutUint64(in[at:], 1<<30|44<<32)
	}
	var want []byte
	for _, cfg.Threads = range []int{1, 2, 3, 7} {
		c := newCore(t, cfg)
		m := &memory{t: t, bufs: [][]byte{in, make([]byte, 400000)}}
		bindings := m.bind()
		run := func() {
			if _, err := c.Run(t.Context(), image, bindings, m); err != nil {
				t.Fatal(err)
			}
		}
		run()
		if want == nil {
			want = bytes.Clone(m.bufs[1])
		}
		if !bytes.Equal(m.bufs[1], want) {
			t.Errorf("%d threads: results differ from those of one", cfg.Threads)
		}
		if n := allocsPerRun(5, run); n != 0 {
			t.Errorf("%d threads: %v allocations in a run, want 0", cfg.Threads, n)
		}
		if !bytes.Equal(m.bufs[1], want) {
			t.Errorf("%d threads: results of a used core differ", cfg.Threads)
		}
	}
}
