// SPDX-License-Identifier: Apache-2.0

package emit

import (
	"math/rand/v2"
	"testing"
)

// TestTracker compares a tracker with one that keeps every byte's readers and last writers: it names the same instructions,
// whatever ranges were touched before, and its spans are in order and do not overlap.
func TestTracker(t *testing.T) {
	type who struct{ wrote, read clock }
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 3))
		var k tracker
		var plain [96]who
		for number := int32(1); number < 60; number++ {
			lo := uint64(r.IntN(len(plain)))
			hi := lo + 1 + uint64(r.IntN(len(plain)-int(lo)))
			write, engine := r.IntN(3) == 0, r.IntN(engines)
			var got, want clock
			k.touch(lo, hi, write, engine, number, &got)
			for i := lo; i < hi; i++ {
				b := &plain[i]
				want.join(b.wrote)
				if write {
					want.join(b.read)
					*b = who{}
					b.wrote[engine] = number
					continue
				}
				b.read[engine] = number
			}
			if got != want {
				t.Fatalf("seed %d: instruction %d, of [%d, %d), write %t, depends on %v, want %v", seed, number, lo, hi, write, got, want)
			}
			for i, s := range k.spans {
				if s.lo >= s.hi || i > 0 && k.spans[i-1].hi > s.lo {
					t.Fatalf("seed %d: spans %+v", seed, k.spans)
				}
			}
		}
	}
}
