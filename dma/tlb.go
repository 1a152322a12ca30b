// SPDX-License-Identifier: Apache-2.0

package dma

// The TLB (§11.4) caches leaves by page size, in sets of tlbWays. Numbers of sets are powers of two.
const (
	tlbWays  = 4
	tlbSmall = 64 // sets for pages of 4 KiB: 1 MiB in 256 entries
	tlbLarge = 16 // for pages of 2 MiB: 128 MiB in 64
	tlbHuge  = 4  // for pages of 1 GiB: 16 GiB in 16
)

// leaf is a cached leaf entry.
type leaf struct {
	tag   uint64 // of the address space; 0 is no entry
	page  uint64 // virtual address without the offset in the page
	addr  uint64 // where the page is
	mask  uint64 // size of the page - 1
	bits  uint64 // the entry's permissions (npureg.EntryRead …)
	space Space
}

// tlb is a set-associative cache; the entry filled longest ago gives way.
type tlb struct {
	small [tlbSmall * tlbWays]leaf
	large [tlbLarge * tlbWays]leaf
	huge  [tlbHuge * tlbWays]leaf
	next  [tlbSmall + tlbLarge + tlbHuge]uint8 // way of a set to fill next
}

// pick returns the set of a page among entries, and its number.
func pick(entries []leaf, tag, page uint64, shift uint) (set []leaf, index int) {
	index = int((page>>shift ^ tag) & uint64(len(entries)/tlbWays-1))
	return entries[index*tlbWays:][:tlbWays], index
}

// find returns the entry that translates va, or nil. It is the caller's until the next fill.
func (t *tlb) find(tag, va uint64) *leaf {
	if e := find(t.small[:], tag, va, levelShift(1)); e != nil {
		return e
	}
	if e := find(t.large[:], tag, va, levelShift(2)); e != nil {
		return e
	}
	return find(t.huge[:], tag, va, levelShift(3))
}

func find(entries []leaf, tag, va uint64, shift uint) *leaf {
	page := va >> shift << shift
	set, _ := pick(entries, tag, page, shift)
	for i := range set {
		if set[i].page == page && set[i].tag == tag {
			return &set[i]
		}
	}
	return nil
}

// fill keeps a leaf of a level, and returns its place.
func (t *tlb) fill(e leaf, level int) *leaf {
	entries, first := t.small[:], 0
	switch level {
	case 2:
		entries, first = t.large[:], tlbSmall
	case 3:
		entries, first = t.huge[:], tlbSmall+tlbLarge
	}
	set, index := pick(entries, e.tag, e.page, levelShift(level))
	next := &t.next[first+index]
	at := &set[*next]
	*next = (*next + 1) % tlbWays
	*at = e
	return at
}

// drop forgets the entries that keep says not to keep.
func (t *tlb) drop(gone func(e *leaf) bool) {
	for _, entries := range [][]leaf{t.small[:], t.large[:], t.huge[:]} {
		for i := range entries {
			if entries[i].tag != 0 && gone(&entries[i]) {
				entries[i] = leaf{}
			}
		}
	}
}
