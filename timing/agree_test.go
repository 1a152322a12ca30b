// SPDX-License-Identifier: Apache-2.0

package timing

import (
	"context"
	"math/rand/v2"
	"testing"

	"npuemu/core/isa"
)

// lower makes the program that §13.5.1 describes of a product that is cut as x
// is: tile by tile, all in two halves of local memory.
func lower(x *cut) *isa.Program {
	l, t := x.l, &x.t
	a, w, o := uint32(t.lines*t.channels), uint32(t.channels*t.filters), uint32(t.lines*t.filters)
	half := a + w + o
	half = (half + 15) &^ 15
	var text []isa.Instruction
	token := func(id uint8, wait bool) isa.Token {
		if !wait {
			return isa.Token{}
		}
		return isa.Token{ID: id, Count: 1}
	}
	const loaded, used, summed, read, scaled, stored = 1, 2, 3, 4, 5, 6
	tile, sums := 0, 0
	for li := uint64(0); li < l.InH; li += t.lines {
		for fi := uint64(0); fi < l.Filters; fi += t.filters {
			m, n := min(t.lines, l.InH-li), min(t.filters, l.Filters-fi)
			for ch := uint64(0); ch < l.Channels; ch += t.channels {
				k := min(t.channels, l.Channels-ch)
				base := uint32(tile%2) * half
				first, last := ch == 0, ch+k == l.Channels
				acc := uint32(sums%2) * 4 * o
				text = append(text,
					isa.Load{Offset: li*l.Channels + ch, Local: base, NX: uint32(k), NY: uint16(m), NZ: 1, StrideY: uint32(l.Channels), LocalStride: uint16(k), Wait: token(used, tile >= 2)},
					isa.Load{Offset: 1 << 24, Local: base + a, NX: uint32(k * n), NY: 1, NZ: 1, Signal: token(loaded, true)},
					isa.Operands{AStride: uint32(k), BStride: uint32(n), AccStride: uint32(4 * n), Wait: token(loaded, true)})
				if first && sums >= 2 {
					text = append(text, isa.Sync{Engine: isa.ClassMatrix, Wait: token(read, true)})
				}
				text = append(text,
					isa.Gemm{Accumulate: !first, M: uint32(m), N: uint32(n), K: uint32(k), A: base, B: base + a, Acc: acc, Signal: token(used, true)})
				if last {
					text = append(text,
						isa.Sync{Engine: isa.ClassMatrix, Signal: token(summed, true)},
						isa.Sync{Engine: isa.ClassVector, Wait: token(stored, sums >= 2)},
						isa.Requant{N: uint16(n), AccStride: uint16(4 * n), Acc: acc, Out: uint32(sums%2)*half + a + w, MX: uint16(m), MY: 1, OutStrideX: uint16(n), Hi: 1, Wait: token(summed, true), Signal: token(scaled, true)},
						isa.Sync{Engine: isa.ClassVector, Signal: token(read, true)},
						isa.Store{Binding: 1, Offset: li*l.Filters + fi, Local: uint32(sums%2)*half + a + w, NX: uint32(n), NY: uint16(m), NZ: 1, StrideY: uint32(l.Filters), LocalStride: uint16(n), Wait: token(scaled, true), Signal: token(stored, true)})
					sums++
				}
				tile++
			}
		}
	}
	p := program(text...)
	p.Rows, p.Cols, p.SpadSize, p.AccSize = 32, 32, 256<<10, 128<<10
	return p
}

// TestModelsAgree compares the two models: classes of tiles, and the event model over the
// program that loads both operands of each tile anew.
func TestModelsAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	c := config(32, 32)
	worst := [2]float64{1, 1}
	for range 60 {
		l := Layer{InH: uint64(r.IntN(1000) + 32), InW: 1, KernelH: 1, KernelW: 1, Channels: uint64(r.IntN(12)+1) * 64, Filters: uint64(r.IntN(8)+1) * 64, StepY: 1, StepX: 1, Groups: 1}
		x := cut{l: &l, c: &c, t: tiling{lines: uint64(r.IntN(4)+1) * 32, filters: uint64(r.IntN(2)+1) * 64, channels: 64}}
		if !x.fits() || l.Channels == 64 {
			continue
		}
		e := x.total()
		p, err := Program(context.Background(), lower(&x), c, 0)
		if err != nil {
			t.Fatal(err)
		}
		if p.MACs != l.MACs() {
			t.Fatalf("%+v: the program has %d multiply-accumulates, the layer %d", l, p.MACs, l.MACs())
		}
		ratio := float64(e.Cycles) / float64(p.Cycles)
		worst[0], worst[1] = min(worst[0], ratio), max(worst[1], ratio)
		if ratio < 0.93 || ratio > 1.17 {
			t.Errorf("%d×%d×%d in %+v: %d cycles by classes, %d by events (%s)", l.InH, l.Channels, l.Filters, x.t, e.Cycles, p.Cycles, e.Bound)
		}
	}
	t.Logf("classes / events: %.3f to %.3f", worst[0], worst[1])
}
