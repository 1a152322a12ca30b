// SPDX-License-Identifier: Apache-2.0

package ecc

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestPoison(t *testing.T) {
	type span struct{ addr, n uint64 }
	for _, tt := range []struct {
		name   string
		mark   []uint64
		writes []span
		read   span
		want   uint64
		found  bool
	}{
		{name: "clean", read: span{0, 1 << 20}},
		{name: "its first byte", mark: []uint64{130}, read: span{128, 1}, want: 128, found: true},
		{name: "its last byte", mark: []uint64{128}, read: span{191, 1}, want: 128, found: true},
		{name: "the byte before", mark: []uint64{128}, read: span{64, 64}},
		{name: "the byte after", mark: []uint64{128}, read: span{192, 64}},
		{name: "nothing read", mark: []uint64{128}, read: span{150, 0}},
		{name: "first of two", mark: []uint64{640, 128}, read: span{0, 1024}, want: 128, found: true},
		{name: "second of two", mark: []uint64{640, 128}, read: span{192, 1024}, want: 640, found: true},
		{name: "overwritten", mark: []uint64{128}, writes: []span{{128, 64}}, read: span{0, 1024}},
		{name: "overwritten and more", mark: []uint64{128}, writes: []span{{0, 4096}}, read: span{0, 1024}},
		{name: "but for its first byte", mark: []uint64{128}, writes: []span{{129, 200}}, read: span{0, 1024}, want: 128, found: true},
		{name: "but for its last byte", mark: []uint64{128}, writes: []span{{0, 191}}, read: span{0, 1024}, want: 128, found: true},
		{name: "a byte that was overwritten", mark: []uint64{128}, writes: []span{{128, 63}}, read: span{128, 1}, want: 128, found: true},
		{name: "in two parts", mark: []uint64{128}, writes: []span{{100, 60}, {160, 32}}, read: span{0, 1024}},
		{name: "in parts that overlap", mark: []uint64{128}, writes: []span{{140, 60}, {128, 40}}, read: span{0, 1024}},
		{name: "nothing written", mark: []uint64{128}, writes: []span{{128, 0}}, read: span{128, 64}, want: 128, found: true},
		{name: "hit again", mark: []uint64{128, 128}, writes: []span{{128, 32}}, read: span{128, 1}, want: 128, found: true},
		{name: "end of the address space", mark: []uint64{math.MaxUint64}, read: span{math.MaxUint64, 1}, want: math.MaxUint64 - 63, found: true},
		{name: "overwritten there", mark: []uint64{math.MaxUint64}, writes: []span{{math.MaxUint64 - 63, 64}}, read: span{math.MaxUint64, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var p Poison
			for _, a := range tt.mark {
				if !p.Mark(a) {
					t.Fatal("no room")
				}
			}
			for _, w := range tt.writes {
				p.Overwritten(w.addr, w.n)
			}
			if got, found := p.Find(tt.read.addr, tt.read.n); got != tt.want || found != tt.found {
				t.Errorf("Find(%#x, %d) = %#x, %v, want %#x, %v", tt.read.addr, tt.read.n, got, found, tt.want, tt.found)
			}
			if p.Some() != (p.Count() != 0) {
				t.Errorf("Some %v with %d granules", p.Some(), p.Count())
			}
		})
	}
}

// TestPoisonAgainstModel compares random marks and writes with a model that has a bit for each byte.
func TestPoisonAgainstModel(t *testing.T) {
	const size = 512
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		var p Poison
		var bad [size]bool // not overwritten since the granule was marked
		marked := map[uint64]bool{}
		for range 60 {
			addr := rng.Uint64N(size)
			n := 1 + rng.Uint64N(size-addr)
			if rng.IntN(3) == 0 {
				p.Mark(addr)
				g := addr / Granule
				marked[g] = true
				for i := range uint64(Granule) {
					bad[g*Granule+i] = true
				}
			} else {
				p.Overwritten(addr, n)
				for i := range n {
					bad[addr+i] = false
				}
				for g := range marked {
					clean := true
					for i := range uint64(Granule) {
						clean = clean && !bad[g*Granule+i]
					}
					if clean {
						delete(marked, g)
					}
				}
			}
			addr = rng.Uint64N(size)
			n = 1 + rng.Uint64N(size-addr)
			want, found := uint64(0), false
			for g := addr / Granule; g <= (addr+n-1)/Granule && !found; g++ {
				want, found = g*Granule, marked[g]
			}
			if !found {
				want = 0
			}
			if got, ok := p.Find(addr, n); ok != found || got != want {
				t.Fatalf("Find(%d, %d) = %d, %v, want %d, %v", addr, n, got, ok, want, found)
			}
		}
	}
}

func TestPoisonIsBounded(t *testing.T) {
	var p Poison
	for i := range uint64(MaxPoisoned) {
		if !p.Mark(i * Granule) {
			t.Fatalf("no room for granule %d", i)
		}
	}
	if p.Mark(MaxPoisoned * Granule) {
		t.Error("one more than the limit")
	}
	if !p.Mark(5) {
		t.Error("a granule that is poisoned already was refused")
	}
	p.Overwritten(0, Granule)
	if !p.Mark(MaxPoisoned * Granule) {
		t.Error("no room after one was overwritten")
	}
}
