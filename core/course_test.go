// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"npuemu/core"
	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// varied is tiled with an instruction that is for no task before its end.
func varied(cfg core.Config, tiles int) *isa.Program {
	p := tiled(cfg, tiles)
	p.Text = append(p.Text[:len(p.Text)-isa.Size], isa.Text(isa.Preload{K: 8, N: 8, Stride: 8}, isa.Halt{})...)
	return p
}

// A program that comes again does with new bytes, weights among them, what it does on a core that has never seen it: also
// when its memory lies elsewhere in the meantime, and when others run between.
func TestCourse(t *testing.T) {
	const tiles = 9
	rng := rand.New(rand.NewPCG(5, 9))
	for _, threads := range []int{1, 2, 3} {
		c := newCore(t, sideConfig(threads))
		images := [][]byte{tiled(sideConfig(1), tiles).Image(), varied(sideConfig(1), tiles).Image(), tiled(sideConfig(1), tiles-1).Image()}
		for round := range 24 {
			image := images[rng.IntN(len(images))]
			got := tiledMemory(tiles)
			for _, b := range got.bufs[:2] {
				copy(b, randomBytes(rng, len(b)))
			}
			want := &placed{bufs: append(got.bufs[:3:3], make([]byte, len(got.bufs[3])))}
			got.apart = rng.IntN(3) == 0
			wantStats, err := newCore(t, sideConfig(1)).Run(t.Context(), image, want.bind(), want)
			if err != nil {
				t.Fatal(err)
			}
			gotStats, err := c.Run(t.Context(), image, got.bind(), got)
			if err != nil || gotStats != wantStats {
				t.Errorf("%d threads, round %d: %v, %+v, want %+v", threads, round, err, gotStats, wantStats)
			}
			if !bytes.Equal(got.bufs[3], want.bufs[3]) {
				t.Errorf("%d threads, round %d: another result", threads, round)
			}
		}
		if n := c.Courses(); n != 2 {
			t.Errorf("%d threads: %d courses, want those of the two programs that are tasks alone", threads, n)
		}
	}
}

// Local memory is zero at the start of a program that comes again too.
func TestCourseClears(t *testing.T) {
	const n = 20_000
	fill := isa.Fill{Local: 9000, NX: 5000, NY: 1, Value: 0x55}
	inPlace := isa.Element{Op: isa.ElemAdd, One: true, Type: systolic.Int8, OutType: systolic.Int8, X: 15000, Y: 14100, Out: 15000, M: 1, N: 2000} // of zeros
	behind := isa.Element{Op: isa.ElemAdd, One: true, Type: systolic.Int8, OutType: systolic.Int8, X: 17000, Y: 14100, Out: 18001, M: 1, N: 1000, Signal: tok(0, 1)}
	store := isa.Store{NX: n, NY: 1, NZ: 1, Wait: tok(0, 1), Signal: tok(1, 1)}
	sums := isa.Store{Acc: true, NX: 4000, NY: 1, NZ: 1, Offset: n, Wait: tok(1, 1), Signal: tok(2, 1)}
	spoil := isa.Fill{NX: n, NY: 1, Value: 0x77, Wait: tok(2, 1)}
	spoilSums := isa.Fill{Acc: true, NX: 4000, NY: 1, Value: 0x77}
	for _, threads := range []int{1, 2} {
		cfg := sideConfig(threads)
		p := program(cfg, 1, isa.Text(fill, inPlace, behind, store, sums, spoil, spoilSums, isa.Halt{}))
		p.Minor, p.Features = isa.Minor, isa.Features
		image, c := p.Image(), newCore(t, cfg)
		for round := range 4 {
			m := &placed{bufs: [][]byte{make([]byte, n+4000)}}
			if _, err := c.Run(t.Context(), image, m.bind(), m); err != nil {
				t.Fatal(err)
			}
			want := make([]byte, n+4000)
			copy(want[9000:], bytes.Repeat([]byte{0x55}, 5000))
			if !bytes.Equal(m.bufs[0], want) {
				t.Errorf("%d threads, round %d: what nobody wrote is not zero", threads, round)
			}
		}
		if n := c.Courses(); n != 1 {
			t.Errorf("%d threads: %d courses", threads, n)
		}
	}
}

// A course ends where its context does.
func TestCourseEnds(t *testing.T) {
	for _, threads := range []int{1, 2} {
		c, image, m := newCore(t, sideConfig(threads)), tiled(sideConfig(1), 9).Image(), tiledMemory(9)
		for range 3 {
			if _, err := c.Run(t.Context(), image, m.bind(), m); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if stats, err := c.Run(ctx, image, m.bind(), m); !errors.Is(err, context.Canceled) || stats != (core.Stats{}) {
			t.Errorf("%d threads: %v, %+v", threads, err, stats)
		}
		if _, err := c.Run(t.Context(), image, m.bind(), m); err != nil {
			t.Error(err)
		}
	}
}

// A program that is poisoned is no course, and one again when it is not.
func TestCoursePoison(t *testing.T) {
	for _, threads := range []int{1, 2} {
		c, image := newCore(t, sideConfig(threads)), tiled(sideConfig(1), 9).Image()
		for round := range 6 {
			if round == 4 && !c.Strike(0) { // the weights, which are replaced
				t.Fatal("no room for poison")
			}
			if round == 5 && !c.Strike(24*96+128) { // behind the parameters
				t.Fatal("no room for poison")
			}
			m := tiledMemory(9)
			if _, err := c.Run(t.Context(), image, m.bind(), m); err != nil {
				t.Errorf("%d threads, round %d: %v", threads, round, err)
			}
		}
	}
}

func BenchmarkCourse(b *testing.B) {
	const tiles = 200
	for _, threads := range []int{1, 2} {
		b.Run(fmt.Sprint(threads), func(b *testing.B) {
			c, m := newCore(b, sideConfig(threads)), tiledMemory(tiles)
			image, bindings := tiled(sideConfig(threads), tiles).Image(), m.bind()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Run(b.Context(), image, bindings, m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
