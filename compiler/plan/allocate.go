// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"slices"

	"npuemu/compiler/ir"
)

// live is memory of the arena, and the groups of nodes from the first to the last that need it.
type live struct {
	root        *ir.Tensor
	size        int
	first, last int
	read        int // the last group that reads it, or more for an output
	at          int
}

// allocate gives the largest first the lowest address that is free while it lives, and returns how
// much memory that needs.
func allocate(order []*live) (total int) {
	bySize := slices.Clone(order)
	slices.SortStableFunc(bySize, func(a, b *live) int { return b.size - a.size })
	var placed []*live // by address
	for _, v := range bySize {
		at := 0
		for _, o := range placed {
			if o.last < v.first || o.first > v.last {
				continue
			}
			if at+v.size <= o.at {
				break
			}
			at = max(at, o.at+o.size)
		}
		v.at = at
		total = max(total, at+v.size)
		i, _ := slices.BinarySearchFunc(placed, v, func(a, b *live) int { return a.at - b.at })
		placed = slices.Insert(placed, i, v)
	}
	return total
}
