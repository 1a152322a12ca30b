// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vhostuser

import "npuemu/dma/iova"

const noInterrupt = 1 // VIRTQ_AVAIL_F_NO_INTERRUPT

// Bytes of the rings without the event index at their ends.
func (r *ring) availSize() uint64 { return 4 + 2*uint64(r.size) }
func (r *ring) usedSize() uint64  { return 4 + 8*uint64(r.size) }

// beginSplit finds where a split ring goes on. The used index is the driver's memory's.
func (r *ring) beginSplit(a areas) (err error) {
	if r.size&(r.size-1) != 0 {
		return r.fail("%d entries; a split queue has a power of two", r.size)
	}
	r.next = place{index: uint16(r.base)}
	r.done.index, err = a.used.load16(2)
	return err
}

// takeSplitLocked fills req with the next chain, or returns nil if there is none.
func (f *FrontEnd) takeSplitLocked(r *ring, a areas, req *Request, limit int) (*Request, error) {
	index, err := a.avail.load16(2)
	if err != nil {
		return nil, err
	}
	next := r.next.index
	if index == next && f.has(FeatureEventIndex) {
		// Ask for a kick at the next entry, then look once more: the driver may
		// have added it before it could see the request.
		if err := a.used.store16(r.usedSize(), next); err != nil {
			return nil, err
		}
		if index, err = a.avail.load16(2); err != nil {
			return nil, err
		}
	}
	switch n := index - next; {
	case n == 0:
		return nil, nil
	case n > r.size:
		return nil, r.fail("the available index moved from %d to %d; at most %d entries can be new", next, index, r.size)
	case r.inflight >= int(r.size):
		return nil, r.fail("%d chains are in flight and another is available; a queue of %d has no more", r.inflight, r.size)
	}
	if req.id, err = a.avail.load16(4 + 2*uint64(next%r.size)); err != nil {
		return nil, err
	}
	if err := f.walkSplitLocked(r, a.desc, req, limit); err != nil {
		return nil, err
	}
	if r.track != nil {
		if err := r.track.takeSplit(req.id); err != nil {
			return nil, err
		}
	}
	r.next.index++
	return req, nil
}

// walkSplitLocked follows the chain from req.id. Every descriptor is read once.
func (f *FrontEnd) walkSplitLocked(r *ring, table span, req *Request, limit int) error {
	entries, index, indirect := uint64(r.size), uint64(req.id), false
	for n := 0; ; n++ {
		if index >= entries {
			return r.fail("descriptor %d is named; the table has %d", index, entries)
		}
		if n == int(r.size) {
			return r.fail("a chain with more than %d descriptors, or a loop", r.size)
		}
		var b [descSize]byte
		if err := table.read(index*descSize, b[:]); err != nil {
			return err
		}
		addr, size := iova.Addr(order.Uint64(b[:])), order.Uint32(b[8:])
		flags, next := order.Uint16(b[12:]), order.Uint16(b[14:])
		if flags&^(descNext|descWrite|descTable) != 0 {
			return r.fail("descriptor %d has flags %#x; only bits 2:0 are defined", index, flags)
		}
		if flags&descTable != 0 {
			if indirect {
				return r.fail("descriptor %d of an indirect table is indirect", index)
			}
			t, err := f.tableLocked(r, index, addr, size, flags)
			if err != nil {
				return err
			}
			table, entries, index, indirect = t, uint64(size)/descSize, 0, true
			n-- // the table stands for its chain
			continue
		}
		if err := f.addLocked(r, req, index, addr, size, flags&descWrite != 0, limit); err != nil {
			return err
		}
		if flags&descNext == 0 {
			return nil
		}
		index = uint64(next)
	}
}

// useSplitLocked puts a chain into the used ring, and tells whether the driver wants to know.
func (f *FrontEnd) useSplitLocked(r *ring, a areas, head uint16, written uint32) (notify bool, err error) {
	if r.track != nil {
		if err := r.track.useSplit(head); err != nil {
			return false, err
		}
	}
	var elem [8]byte
	order.PutUint32(elem[:], uint32(head))
	order.PutUint32(elem[4:], written)
	if err := a.used.write(4+8*uint64(r.done.index%r.size), elem[:]); err != nil {
		return false, err
	}
	r.done.index++
	if err := a.used.store16(2, r.done.index); err != nil { // after the element
		return false, err
	}
	if r.track != nil {
		if err := r.track.usedSplit(head, r.done.index); err != nil {
			return false, err
		}
	}
	if f.has(FeatureEventIndex) {
		event, err := a.avail.load16(r.availSize())
		return event == r.done.index-1, err
	}
	flags, err := a.avail.load16(0)
	return flags&noInterrupt == 0, err
}
