// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"math/rand/v2"
	"testing"

	"npuemu/compiler/ir"
)

// TestPlaceStays: whatever stays in the scratchpad already, another one gets the highest place that is free while it lives, or none
// if there is none.
func TestPlaceStays(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const granules, groups = 24, 12
	placed, refused := 0, 0
	for range 3000 {
		chosen := stays{}
		var used [groups][granules]bool
		for range 20 {
			v := &stay{size: (1 + r.IntN(8)) * align, first: r.IntN(groups)}
			v.last = v.first + r.IntN(groups-v.first)
			n, want := v.size/align, -1
			for at := granules - n; at >= 0 && want < 0; at-- {
				want = at
				for g := v.first; g <= v.last; g++ {
					for k := range n {
						if used[g][at+k] {
							want = -1
						}
					}
				}
			}
			ok := chosen.place(v, granules*align)
			switch {
			case ok != (want >= 0):
				t.Fatalf("%d granules from group %d to %d: placed is %v, a free place is at %d", n, v.first, v.last, ok, want)
			case !ok:
				refused++
				continue
			case v.at != want*align:
				t.Fatalf("%d granules from group %d to %d are at %d, not at %d", n, v.first, v.last, v.at/align, want)
			}
			placed++
			for g := v.first; g <= v.last; g++ {
				for k := range n {
					used[g][want+k] = true
				}
			}
			chosen[&ir.Tensor{}] = v
		}
	}
	if placed < 10000 || refused < 1000 {
		t.Errorf("%d placed, %d refused: the test looks at too few", placed, refused)
	}
}
