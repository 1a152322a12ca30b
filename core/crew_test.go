// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"npuemu/core"
	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// crossed is a program that begins each tile's product before the REQUANT of the one before, and executes between between
// them. It has bindings for activations, weights, parameters, results, and sums; tile t's sums are in buffer t%2.
func crossed(tiles int, change func(r *isa.Requant), between func(t int) []isa.Instruction) *isa.Program {
	const m, n, k = 64, 24, 96
	cfg := sideConfig(1)
	params, in := uint32(n*k), uint32(n*k+256)
	text := []isa.Instruction{
		isa.Load{Binding: 1, NX: n * k, NY: 1, NZ: 1}, isa.Load{Binding: 2, Local: params, NX: uint32(8 * tiles), NY: 1, NZ: 1},
		isa.Operands{AStride: k, BStride: n, AccStride: 4 * n},
	}
	product := func(t int) {
		buf := uint32(t % 2)
		text = append(text, isa.Load{Offset: uint64(t * m * k), Local: in + buf*m*k, NX: m * k, NY: 1, NZ: 1},
			isa.Gemm{M: m, N: n, K: k, A: in + buf*m*k, Acc: buf * 4 * m * n})
	}
	product(0)
	for t := range tiles {
		if t+1 < tiles {
			product(t + 1)
		}
		text = append(text, between(t)...)
		r := isa.Requant{N: n, AccStride: 4 * n, Acc: uint32(t%2) * 4 * m * n, Out: in + (3+uint32(t%2))*m*k, Params: params + uint32(8*t), MX: m, MY: 1, OutStrideX: n, Lo: -128, Hi: 127}
		change(&r)
		text = append(text, r, isa.Store{Binding: 3, Offset: uint64(t * m * n), Local: r.Out, NX: m * n, NY: 1, NZ: 1})
	}
	p := program(cfg, 5, isa.Text(text...))
	tokensBetween(p.Text)
	p.Text = append(p.Text, isa.Text(isa.Halt{})...)
	p.Minor, p.Features = isa.Minor, isa.Features
	return p
}

// crossedMemory is memory for it, with random bytes and parameters that are valid.
func crossedMemory(rng *rand.Rand, tiles int) *placed {
	params := make([]byte, 8*tiles)
	for t := range tiles {
		copy(params[8*t:], []byte{0, byte(rng.Uint32()), 0, 0x40, byte(36 + rng.IntN(6)), 0, 0, 0})
	}
	return &placed{bufs: [][]byte{randomBytes(rng, tiles*64*96), randomBytes(rng, 24*96), params, make([]byte, tiles*64*24), make([]byte, tiles*64*96)}}
}

// A product and a later REQUANT become one task where nobody can tell: bytes, counts and faults are those of a core that has
// never seen the program.
func TestCourseJoins(t *testing.T) {
	const tiles, m, n, k = 30, 64, 24, 96
	const params, in = n * k, n*k + 256
	nothing, none := func(*isa.Requant) {}, func(int) []isa.Instruction { return nil }
	sums := func(t int) []isa.Instruction {
		return []isa.Instruction{isa.Store{Binding: 4, Offset: uint64(t * m * k), Acc: true, Local: uint32(t%2) * 4 * m * n, NX: 4 * m * n, NY: 1, NZ: 1}}
	}
	for _, tt := range []struct {
		name            string
		program         *isa.Program
		joined, passing int
	}{
		{"products alone", crossed(tiles, nothing, none), tiles, tiles},
		{"sums are stored", crossed(tiles, nothing, sums), tiles, 0},
		{"other sums are stored", crossed(tiles, nothing, func(t int) []isa.Instruction { return sums(t + 1)[:min(1, tiles-1-t)] }), tiles, 1},
		{"sums are changed", crossed(tiles, nothing, func(t int) []isa.Instruction {
			return []isa.Instruction{isa.Fill{Acc: true, Local: uint32(t%2)*4*m*n + 4, NX: 4, NY: 1}}
		}), 0, 0},
		{"parameters change", crossed(tiles, nothing, func(t int) []isa.Instruction {
			return []isa.Instruction{isa.Load{Binding: 2, Offset: uint64(8 * (tiles - 1 - t)), Local: params + uint32(8*t), NX: 8, NY: 1, NZ: 1}}
		}), 0, 0},
		{"results are operands of the next product", crossed(tiles, func(r *isa.Requant) { r.Out = in }, none), 0, 0},
		{"results of a part", crossed(tiles, func(r *isa.Requant) { r.MX-- }, none), 0, 0},
		{"somebody adds to the sums", crossed(tiles, nothing, func(t int) []isa.Instruction {
			return []isa.Instruction{isa.Gemm{M: 1, N: n, K: 8, Acc: uint32((t+1)%2) * 4 * m * n, Accumulate: true}}
		}), 1, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(8, 15))
			image := tt.program.Image()
			for _, threads := range []int{1, 2, 3, 7} {
				c := newCore(t, sideConfig(threads))
				for round := range 12 {
					got := crossedMemory(rng, tiles)
					if round > 4 { // something fails
						switch rng.IntN(3) {
						case 0:
							got.bufs[2][6+8*rng.IntN(tiles)] = 1 // a reserved byte
						case 1:
							got.in, got.bad = 0, 1+rng.Uint64N(uint64(len(got.bufs[0])-1))
						default:
							got.in, got.bad = 3, 1+rng.Uint64N(uint64(len(got.bufs[3])-1))
						}
					}
					want := *got
					want.bufs = append(got.bufs[:3:3], make([]byte, len(got.bufs[3])), make([]byte, len(got.bufs[4])))
					wantStats, wantErr := newCore(t, sideConfig(1)).Run(t.Context(), image, want.bind(), &want)
					gotStats, gotErr := c.Run(t.Context(), image, got.bind(), got)
					var wantFault, gotFault *core.Fault
					if errors.As(wantErr, &wantFault) != errors.As(gotErr, &gotFault) || wantFault != nil &&
						(wantFault.Status != gotFault.Status || wantFault.Instr != gotFault.Instr || wantFault.Info != gotFault.Info) {
						t.Fatalf("%d threads, round %d: %v, want %v", threads, round, gotErr, wantErr)
					}
					if gotStats != wantStats {
						t.Errorf("%d threads, round %d: %+v, want %+v", threads, round, gotStats, wantStats)
					}
					for b := range want.bufs {
						if !bytes.Equal(got.bufs[b], want.bufs[b]) {
							t.Errorf("%d threads, round %d: binding %d has other bytes", threads, round, b)
						}
					}
				}
				if joined, passing := c.Joined(); joined != tt.joined || passing != tt.passing {
					t.Errorf("%d threads: %d products joined, of %d sums are nowhere; want %d, %d", threads, joined, passing, tt.joined, tt.passing)
				}
			}
		})
	}
}

// Large instructions of the vector engine are tasks of parts of them, whose order is that of one thread where that matters: bytes
// are the same for any number of threads.
func TestParts(t *testing.T) {
	const half = 400 << 10
	shape := func(n0, n1, n2, n3 uint16, o0, o1, o2, o3 uint32) isa.Shape {
		return isa.Shape{N: [isa.Dims]uint16{n0, n1, n2, n3}, OutStride: [isa.Dims]uint32{o0, o1, o2, o3}}
	}
	turn := func(size uint16, x0, x1, x2, x3 uint32) isa.Transpose {
		return isa.Transpose{Size: size, Out: half, XStride: [isa.Dims]uint32{x0, x1, x2, x3}}
	}
	add := isa.Element{Op: isa.ElemAdd, Type: systolic.Int8, OutType: systolic.Int8, X: 1000, Y: 2000, Out: half, M: 25, N: 16000, XStride: 16000, YStride: 16000, OutStride: 16000}
	for _, tt := range []struct {
		name  string
		text  []isa.Instruction
		parts int
	}{
		{"channels last", []isa.Instruction{shape(1, 1, 3, 50176, 0, 0, 1, 3), turn(1, 0, 0, 50176, 1)}, 8},
		{"blocks", []isa.Instruction{shape(7, 31, 11, 40, 31*11*80, 80, 31*80, 1), turn(1, 31*11*40, 11*40, 40, 1)}, 4},
		{"a repeated row", []isa.Instruction{shape(1, 200, 3, 250, 0, 750, 250, 1), turn(1, 0, 250, 0, 1)}, 8},
		{"results on each other", []isa.Instruction{shape(1, 300, 2, 200, 0, 200, 100, 1), turn(1, 0, 3, 70000, 5)}, 1},
		{"rows", []isa.Instruction{add}, 5},
		{"rows on their operands", []isa.Instruction{edit(add, func(i *isa.Element) { i.Out = i.X })}, 5},
		{"rows on operands of those behind", []isa.Instruction{edit(add, func(i *isa.Element) { i.Out = i.X + 16000 })}, 5},
		{"rows on operands of those before", []isa.Instruction{edit(add, func(i *isa.Element) { i.Out, i.X = i.X, i.X+3*16000 })}, 5},
		{"few rows", []isa.Instruction{edit(add, func(i *isa.Element) { i.N = 1000 })}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := sideConfig(1)
			in := randomBytes(rand.New(rand.NewPCG(3, 14)), cfg.SpadSize)
			text := append([]isa.Instruction{isa.Load{NX: uint32(cfg.SpadSize), NY: 1, NZ: 1}}, tt.text...)
			p := program(cfg, 2, isa.Text(append(text, isa.Store{Binding: 1, NX: uint32(cfg.SpadSize), NY: 1, NZ: 1})...))
			tokensBetween(p.Text)
			p.Text = append(p.Text, isa.Text(isa.Halt{})...)
			p.Minor, p.Features = isa.Minor, isa.Features
			var want []byte
			for _, threads := range []int{1, 2, 3, 7} {
				c := newCore(t, sideConfig(threads))
				for range 4 { // the last ones are courses
					m := &placed{bufs: [][]byte{in, make([]byte, len(in))}}
					if _, err := c.Run(t.Context(), p.Image(), m.bind(), m); err != nil {
						t.Fatal(err)
					}
					if want == nil {
						want = m.bufs[1]
					}
					if !bytes.Equal(m.bufs[1], want) {
						t.Errorf("%d threads: other bytes", threads)
					}
				}
				if got, want := c.Tasks(), 2*8+tt.parts; threads > 1 && got != want {
					t.Errorf("%d threads: %d tasks, want %d", threads, got, want)
				}
			}
		})
	}
}

// Products whose sums nobody needs, and which fast kernels do not compute, have these in memory of their own: they have the same
// accumulators, and are computed side by side.
func TestSumsApart(t *testing.T) {
	const tiles, m, n, k = 24, 48, 24, 64
	for _, tt := range []struct {
		name     string
		operands isa.Operands
	}{
		{"int16", isa.Operands{A: systolic.Int16, AStride: 2 * k, BStride: n, AccStride: 4 * n}},
		{"int4 transposed", isa.Operands{B: systolic.Int4, TransposeB: true, AStride: k, BStride: k / 2, AccStride: 4 * n}},
		{"int16 by int4 transposed", isa.Operands{B: systolic.Int4, TransposeB: true, A: systolic.Int16, AStride: 2 * k, BStride: k / 2, AccStride: 4 * n}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rows := m * tt.operands.AStride
			const params, in = n * k, n*k + 256
			out := in + tiles*rows
			text := []isa.Instruction{
				isa.Load{Binding: 1, NX: n * k, NY: 1, NZ: 1}, isa.Load{Binding: 2, Local: params, NX: 8, NY: 1, NZ: 1},
				isa.Load{Binding: 0, Local: in, NX: tiles * rows, NY: 1, NZ: 1}, tt.operands,
			}
			for i := range uint32(tiles) {
				text = append(text,
					isa.Gemm{M: m, N: n, K: k, A: in + i*rows},
					isa.Requant{N: n, AccStride: 4 * n, Out: out + i*m*n, Params: params, MX: m, MY: 1, OutStrideX: n, Lo: -128, Hi: 127},
				)
			}
			text = append(text, isa.Store{Binding: 3, Local: out, NX: tiles * m * n, NY: 1, NZ: 1})
			p := program(sideConfig(1), 4, isa.Text(text...))
			tokensBetween(p.Text)
			p.Text = append(p.Text, isa.Text(isa.Halt{})...)
			p.Minor, p.Features = isa.Minor, isa.Features
			image := p.Image()
			rng := rand.New(rand.NewPCG(4, 16))
			memory := &placed{bufs: [][]byte{randomBytes(rng, int(tiles*rows)), randomBytes(rng, n*k), {0, 0, 0, 0x40, 40, 0, 0, 0}, make([]byte, tiles*m*n)}}
			var want []byte
			for _, threads := range []int{1, 2, 3, 7} {
				c := newCore(t, sideConfig(threads))
				for round := range 8 {
					clear(memory.bufs[3])
					if _, err := c.Run(t.Context(), image, memory.bind(), memory); err != nil {
						t.Fatal(err)
					}
					if want == nil {
						want = bytes.Clone(memory.bufs[3])
					}
					if !bytes.Equal(memory.bufs[3], want) {
						t.Errorf("%d threads, round %d: other results", threads, round)
					}
				}
			}
		})
	}
}
