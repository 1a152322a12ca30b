// SPDX-License-Identifier: Apache-2.0

package timing

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// TestParts has parts whose cycles can be counted by hand.
func TestParts(t *testing.T) {
	var none isa.Token
	load := func(nx uint32, signal isa.Token) isa.Load {
		return isa.Load{NX: nx, NY: 1, NZ: 1, Signal: signal}
	}
	store := isa.Store{Binding: 1, NX: 320, NY: 1, NZ: 1, Wait: tok(2)}
	gemm := isa.Gemm{M: 200, N: 8, K: 8, Wait: tok(1), Signal: tok(2)}
	fill := func(ny uint32) isa.Fill { return isa.Fill{NX: 32, NY: ny, Stride: 32, Local: 4096} }
	operands := isa.Operands{A: systolic.Int8, B: systolic.Int8, AStride: 8, BStride: 8, AccStride: 32}
	type want struct {
		cycles        uint64
		share         float64
		macs          uint64
		read, written uint64
		bound         Bound
	}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		text   []isa.Instruction
		parts  []Part
		want   []want // the rest, too
	}{
		{
			"one after the other", nil, []isa.Instruction{load(3200, tok(1)), operands, gemm, store}, []Part{{0, 1}, {1, 3}},
			// The product fills the array in 8 cycles, streams 200 vectors, and is done 14 later.
			[]want{{100, 100, 0, 3200, 0, ByMemory}, {222, 222, 12800, 0, 0, ByArray}, {10, 10, 0, 0, 320, ByMemory}},
		},
		{
			"side by side", nil, []isa.Instruction{load(3200, none), fill(32)}, []Part{{0, 1}, {1, 2}},
			// FILL takes a cycle for each row, 8 lanes of 4 bytes, and 8 more until it is done.
			[]want{{100, 80, 0, 3200, 0, ByMemory}, {40, 20, 0, 0, 0, ByVector}, {}},
		},
		{
			"not without a gap", nil, []isa.Instruction{load(3200, tok(1)), operands, gemm, store}, []Part{{0, 1}, {3, 4}},
			[]want{{100, 100, 0, 3200, 0, ByMemory}, {10, 10, 0, 0, 320, ByMemory}, {222, 222, 12800, 0, 0, ByArray}},
		},
		{
			"latency", func(c *Config) { c.DRAMLatency = 100 }, []isa.Instruction{load(320, none)}, []Part{{0, 1}},
			[]want{{110, 110, 0, 320, 0, ByLatency}, {}},
		},
		{
			"weights", nil, []isa.Instruction{
				isa.Preload{K: 8, N: 8, Stride: 8}, isa.Matmul{K: 8, N: 8, MX: 1, MY: 1, StrideX: 8, AccStride: 32},
				isa.Preload{K: 8, N: 8, Stride: 8}, isa.Matmul{K: 8, N: 8, MX: 1, MY: 1, StrideX: 8, AccStride: 32},
				isa.Preload{K: 8, N: 8, Stride: 8}, isa.Matmul{K: 8, N: 8, MX: 1, MY: 1, StrideX: 8, AccStride: 32},
			}, []Part{{0, 6}},
			// Places 8 cycles three times, works for one cycle meanwhile and at the end; the last vector is through 14 later.
			[]want{{39, 39, 192, 0, 0, ByWeights}, {}},
		},
		{
			"scratchpad", func(c *Config) { c.Banks, c.BankWidth = 1, 4 }, []isa.Instruction{load(3200, none)}, []Part{{0, 1}},
			[]want{{800, 800, 0, 3200, 0, ByScratchpad}, {}},
		},
		{
			"dispatch", func(c *Config) { c.Dispatch = 50 }, []isa.Instruction{fill(1), fill(1), fill(1)}, []Part{{0, 3}},
			[]want{{27, 27, 0, 0, 0, ByDispatch}, {}},
		},
	} {
		c := plain(8, 8)
		if tt.change != nil {
			tt.change(&c)
		}
		_, parts, err := Parts(context.Background(), program(tt.text...), c, 0, tt.parts)
		if err != nil || len(parts) != len(tt.want) {
			t.Fatalf("%s: %d parts, %v", tt.name, len(parts), err)
		}
		for i, w := range tt.want {
			p := parts[i]
			if got := (want{p.Cycles, p.Share, p.MACs, p.Read, p.Written, p.Bound}); got != w {
				t.Errorf("%s: part %d is %+v, want %+v", tt.name, i, got, w)
			}
		}
	}
}

// TestPartsAddUp cuts programs at random: what parts move and multiply is what the program does, and their shares
// are its cycles but for those in which nothing works.
func TestPartsAddUp(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 100 {
		var text []isa.Instruction
		for range r.IntN(40) + 1 {
			switch r.IntN(4) {
			case 0:
				text = append(text, isa.Load{NX: uint32(r.IntN(5000)) + 1, NY: 1, NZ: 1})
			case 1:
				text = append(text, isa.Store{Binding: 1, NX: uint32(r.IntN(5000)) + 1, NY: 1, NZ: 1})
			case 2:
				text = append(text, isa.Operands{AStride: 8, BStride: 8, AccStride: 32}, isa.Gemm{M: uint32(r.IntN(300)) + 1, N: 8, K: 8})
			case 3:
				text = append(text, isa.Fill{NX: 32, NY: uint32(r.IntN(300)) + 1, Stride: 32})
			}
		}
		var parts []Part
		for at := 0; at < len(text); {
			end := min(at+1+r.IntN(6), len(text))
			parts = append(parts, Part{at, end})
			at = end
		}
		c := config(8, 8)
		p := program(text...)
		plain, err := Program(context.Background(), p, c, 0)
		if err != nil {
			t.Fatal(err)
		}
		report, list, err := Parts(context.Background(), p, c, 0, parts)
		if err != nil || report.Cycles != plain.Cycles {
			t.Fatalf("%d cycles, want %d, %v", report.Cycles, plain.Cycles, err)
		}
		var macs, bytes, instructions uint64
		var share float64
		for i := range list {
			p := &list[i]
			macs, bytes, instructions, share = macs+p.MACs, bytes+p.Read+p.Written, instructions+p.Instructions, share+p.Share
			if p.Share > float64(p.Cycles)+1e-6 || p.Cycles > report.Cycles || p.Utilization(c) > 1 {
				t.Fatalf("part %d of %d cycles: %+v", i, report.Cycles, *p)
			}
		}
		idle := float64(report.Cycles) - share // dispatch alone: a cycle for each instruction at most
		if macs != report.MACs || bytes != report.DRAM+report.Bus || instructions+1 != report.Instructions || idle < -1e-6 || idle > float64(len(text)) {
			t.Fatalf("parts have %d multiply-accumulates, %d bytes, %d instructions, %.1f cycles: %+v", macs, bytes, instructions, share, report)
		}
	}
}

func TestIntervals(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 200 {
		var l intervals
		var there [200]bool
		for range r.IntN(50) {
			from := r.IntN(190)
			to := from + r.IntN(10)
			l.add(uint64(from), uint64(to))
			for i := from; i < to; i++ {
				there[i] = true
			}
		}
		want := uint64(0)
		for _, b := range there {
			if b {
				want++
			}
		}
		last := uint64(math.MaxUint64)
		for _, x := range l {
			if x.from >= x.to || last != math.MaxUint64 && x.from <= last {
				t.Fatalf("%v: out of order, or touching", l)
			}
			last = x.to
		}
		if l.sum() != want {
			t.Fatalf("%v: %d cycles, want %d", l, l.sum(), want)
		}
	}
}
