// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"slices"
	"testing"

	"npuemu/compiler/emit"
)

// TestSlots: buffers are taken in turn, on boundaries and apart from each other; what is there is not filled again, and what was
// overwritten is.
func TestSlots(t *testing.T) {
	c := &code{b: emit.NewList(small)}
	before := c.local(1)
	s := c.slots(2, 100)
	if behind := c.local(1); before != 0 || s.at[0] != align || s.at[1] != 3*align || behind != 5*align {
		t.Errorf("buffers of 100 bytes at %d, behind %d and before %d", s.at, before, behind)
	}
	if acc := c.accSlots(2, 4); acc.at[0] != 0 || acc.at[1] != align || c.spad != 6*align || c.acc != 2*align {
		t.Errorf("accumulators at %d, %d bytes of scratchpad, %d of accumulators", acc.at, c.spad, c.acc)
	}
	var filled []int
	get := func(key int) uint32 { return s.get(key, func(at uint32) { filled = append(filled, key) }) }
	first, second := get(1), get(2)
	if first == second || get(1) != first || get(2) != second {
		t.Errorf("the buffers are at %d and %d", first, second)
	}
	if at := get(3); at != first {
		t.Errorf("the third is at %d, want the place of the oldest, %d", at, first)
	}
	get(2)                           // still there
	get(1)                           // is not
	if at := s.take(); at != first { // whatever is there is gone
		t.Errorf("taken is %d, want %d", at, first)
	}
	get(3)
	if want := []int{1, 2, 3, 1, 3}; !slices.Equal(filled, want) {
		t.Errorf("filled are %v, want %v", filled, want)
	}
	if s := c.room(Place{Binding: Scratchpad}, 2, 100); s != nil {
		t.Error("what stays in the scratchpad has buffers")
	}
}

// TestDense: rows that an instruction can name hold each element once.
func TestDense(t *testing.T) {
	for _, size := range []int{1, 2, 4} {
		for _, count := range []int{1, 15, 16, 65535 / size, 65536 / size, 200_000, 1_234_567} {
			next := 0
			dense(count, size, func(first, m, n int) {
				if first != next || n*size > 65535 || m < 1 || n < 1 || m > 1 && n%16 != 0 {
					t.Errorf("%d elements of %d bytes: %d rows of %d from %d, want from %d", count, size, m, n, first, next)
				}
				next += m * n
			})
			if next != count {
				t.Errorf("%d of %d elements of %d bytes", next, count, size)
			}
		}
	}
}
