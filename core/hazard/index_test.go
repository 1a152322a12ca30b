// SPDX-License-Identifier: Apache-2.0

package hazard

import (
	"math/rand/v2"
	"testing"

	"npuemu/core/isa"
)

// The table finds what a map would: accesses that come, come again, and go, in any order, and as many as make it grow.
func TestIndex(t *testing.T) {
	rng := rand.New(rand.NewPCG(61, 62))
	var h history
	for round := range 40 {
		want := map[isa.Access]int{}
		number := func() isa.Access {
			return isa.Access{Space: isa.Space(rng.IntN(2)), Write: rng.IntN(2) == 0, Rows: isa.Rows{Base: uint64(rng.IntN(1 + 20*round)), Bytes: 64}}
		}
		for range 1000 {
			a := number()
			if rng.IntN(3) > 0 {
				h.entries = append(h.entries, entry{access: a, epoch: 1})
				h.place(len(h.entries) - 1)
				want[a] = h.dropped + len(h.entries) - 1
			} else if n, ok := want[a]; ok {
				h.forget(&a)
				h.entries[n-h.dropped].epoch = 0
				delete(want, a)
			}
			for rng.IntN(3) == 0 && h.head < len(h.entries) {
				if p := &h.entries[h.head]; p.epoch > 0 {
					delete(want, p.access)
				}
				h.pop()
			}
			if h.head > 100 {
				h.entries = h.entries[:copy(h.entries, h.entries[h.head:])]
				h.dropped, h.head = h.dropped+h.head, 0
			}
			for range 3 {
				a := number()
				slot, there := h.find(&a)
				n, ok := want[a]
				if there != ok || there && int(h.latest.slots[slot]-1) != n {
					t.Fatalf("%+v: found %t in slot %d, want %t, entry %d", a, there, slot, ok, n)
				}
			}
		}
		live := 0
		for _, p := range h.entries[h.head:] {
			if p.epoch > 0 {
				live++
			}
		}
		if h.latest.used != len(want) || live != len(want) {
			t.Fatalf("%d in the table and %d live, want %d", h.latest.used, live, len(want))
		}
		if round%2 == 0 {
			h.squeeze()
		}
		h.clear()
		for slot, n := range h.latest.slots {
			if n != 0 {
				t.Fatalf("slot %d has entry %d after clear", slot, n)
			}
		}
		h = history{latest: h.latest}
	}
}
