// SPDX-License-Identifier: Apache-2.0

package hazard

import (
	"math/rand/v2"
	"testing"

	"npuemu/core/isa"
)

// bytesOf returns which bytes r has, below 4096.
func bytesOf(r isa.Rows) (set [4096]bool) {
	for o := range r.Outer {
		for i := range r.Inner {
			for b := range r.Bytes {
				set[r.Base+o*r.OuterStride+i*r.InnerStride+b] = true
			}
		}
	}
	return set
}

func randomRows(rng *rand.Rand) isa.Rows {
	small := func(n int) uint64 { return uint64(rng.IntN(n)) }
	return isa.Rows{
		Base: small(200), Outer: 1 + small(4)*small(2), Inner: 1 + small(6), Bytes: 1 + small(12),
		InnerStride: small(24), OuterStride: small(90),
	}
}

// Against sets of bytes: forms, overlaps, and what is joined.
func TestRows(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	common, joined := 0, 0
	for range 40000 {
		a, b := randomRows(rng), randomRows(rng)
		if rng.IntN(2) == 0 { // often related, as accesses of loops are
			b = a
			b.Base += uint64(rng.IntN(40))
			if rng.IntN(2) == 0 {
				b.Inner = 1 + uint64(rng.IntN(3))
			}
			if rng.IntN(2) == 0 {
				b.Outer = 1
			}
		}
		inA, inB := bytesOf(a), bytesOf(b)
		na, nb := a, b
		normal(&na)
		normal(&nb)
		if bytesOf(na) != inA {
			t.Fatalf("%+v is not %+v", na, a)
		}
		want := false
		for i := range inA {
			want = want || inA[i] && inB[i]
		}
		at, got, known := overlap(&na, &nb, 1000)
		if got != want || !known || got && !(inA[at] && inB[at]) {
			t.Fatalf("overlap(%+v, %+v) = %d, %v, %v, want %v", na, nb, at, got, known, want)
		}
		if got {
			common++
		}
		if both := na; join(&both, &nb) {
			joined++
			for i := range inA {
				inA[i] = inA[i] || inB[i]
			}
			if bytesOf(both) != inA {
				t.Fatalf("%+v and %+v are not %+v", na, nb, both)
			}
		}
	}
	if common < 500 || joined < 200 {
		t.Errorf("%d overlaps, %d joins, want more of each", common, joined)
	}
}

// A comparison that is too long says so.
func TestRowsLimit(t *testing.T) {
	a := isa.Rows{Outer: 1, Inner: 100, InnerStride: 4, Bytes: 1}
	b := isa.Rows{Base: 1, Outer: 1, Inner: 200, InnerStride: 2, Bytes: 1}
	if _, common, known := overlap(&a, &b, 50); common || known {
		t.Errorf("overlap = %v, known %v, want neither", common, known)
	}
	if _, common, known := overlap(&a, &b, 100); common || !known {
		t.Errorf("overlap = %v, known %v, want none", common, known)
	}
	// A row in the gaps of planes that lie in each other.
	a = isa.Rows{Base: 20001, Outer: 1, Inner: 1, Bytes: 1}
	b = isa.Rows{Outer: 1 << 16, OuterStride: 2, Inner: 2, InnerStride: 1 << 20, Bytes: 1}
	if _, common, known := overlap(&a, &b, 10000); common || known {
		t.Errorf("overlap = %v, known %v, want neither", common, known)
	}
	if _, common, known := overlap(&a, &b, 10001); common || !known {
		t.Errorf("overlap = %v, known %v, want none", common, known)
	}
}
