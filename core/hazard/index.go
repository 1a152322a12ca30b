// SPDX-License-Identifier: Apache-2.0

package hazard

import "npuemu/core/isa"

// index finds the entry of an access among those of a history: a hash table of numbers of entries, with linear probing.
// Entries that were replaced are not in it. There are a power of two slots, half of them free. A map
// would do, and takes three times as long.
type index struct {
	slots []uint32 // number of an entry, counted from 1 for the first of the program (which passes 2²⁴ instructions at most, §5.6.13); 0: free
	used  int
}

// leastSlots is how many slots a table begins with.
const leastSlots = 64

// spread is the slot at which a is looked for first.
func (x *index) spread(a *isa.Access) int {
	h := uint64(a.Space)<<16 | uint64(a.Binding)<<8
	if a.Write {
		h |= 1
	}
	h = (h ^ a.Rows.Base) * 0x9e3779b97f4a7c15
	h = (h ^ a.Rows.Bytes ^ a.Rows.Inner<<24 ^ a.Rows.InnerStride<<40) * 0x9e3779b97f4a7c15
	return int(h>>32) & (len(x.slots) - 1)
}

// find returns the slot of access a, or the free one where it would be, and whether it is there.
func (h *history) find(a *isa.Access) (slot int, there bool) {
	x := &h.latest
	if len(x.slots) == 0 {
		x.slots = make([]uint32, leastSlots)
	}
	for slot = x.spread(a); ; slot = (slot + 1) & (len(x.slots) - 1) {
		n := x.slots[slot]
		if n == 0 {
			return slot, false
		}
		if h.entries[int(n-1)-h.dropped].access == *a {
			return slot, true
		}
	}
}

// place puts entry n of h.entries into the table, in place of another with the same access, which it makes one that was
// replaced.
func (h *history) place(n int) {
	x := &h.latest
	slot, there := h.find(&h.entries[n].access)
	if there {
		h.entries[int(x.slots[slot]-1)-h.dropped].epoch = 0
	} else {
		x.used++
	}
	x.slots[slot] = uint32(h.dropped + n + 1)
	if 2*x.used > len(x.slots) {
		old := x.slots
		x.slots = make([]uint32, 2*len(old))
		for _, n := range old {
			if n > 0 {
				slot, _ := h.find(&h.entries[int(n-1)-h.dropped].access)
				x.slots[slot] = n
			}
		}
	}
}

// forget takes access a out of the table, if it is there.
func (h *history) forget(a *isa.Access) {
	x := &h.latest
	slot, there := h.find(a)
	if !there {
		return
	}
	x.used--
	// What comes behind moves up, unless it is where it begins to be looked for, or behind that.
	mask := len(x.slots) - 1
	for at := slot; ; {
		at = (at + 1) & mask
		n := x.slots[at]
		if n == 0 {
			break
		}
		if from := x.spread(&h.entries[int(n-1)-h.dropped].access); (at-from)&mask >= (at-slot)&mask {
			x.slots[slot] = n
			slot = at
		}
	}
	x.slots[slot] = 0
}

// clear makes the table empty.
func (h *history) clear() {
	x := &h.latest
	if 16*x.used < len(x.slots) {
		for n := h.head; x.used > 0; n++ {
			if h.entries[n].epoch > 0 {
				h.forget(&h.entries[n].access)
			}
		}
		return
	}
	clear(x.slots)
	x.used = 0
}
