// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vhostuser

import "npuemu/dma/iova"

// Bits and fields of a packed virtqueue (VIRTIO 1.3 §2.8).
const (
	descAvail = 1 << 7  // VIRTQ_DESC_F_AVAIL
	descUsed  = 1 << 15 // VIRTQ_DESC_F_USED

	// An event suppression structure: where, and what of it is meant.
	packedEventSize = 4
	eventEnable     = 0 // RING_EVENT_FLAGS_ENABLE
	eventDisable    = 1 // RING_EVENT_FLAGS_DISABLE
	eventDesc       = 2 // RING_EVENT_FLAGS_DESC

	wrapBit = 1 << 15 // beside an index, in events and in SET_VRING_BASE

	// freshPacked is SET_VRING_BASE of a new queue: both indices 0, both wrap counters 1.
	freshPacked = wrapBit<<16 | wrapBit
)

// packed returns the place as events and SET_VRING_BASE have it.
func (p place) packed() uint32 {
	if p.wrap {
		return uint32(p.index) | wrapBit
	}
	return uint32(p.index)
}

func unpack(v uint16) place { return place{v &^ wrapBit, v&wrapBit != 0} }

// plus returns the place n descriptors on, in a ring of size; n is at most size.
func (p place) plus(n, size uint16) place {
	if uint32(p.index)+uint32(n) >= uint32(size) {
		return place{uint16(uint32(p.index) + uint32(n) - uint32(size)), !p.wrap}
	}
	return place{p.index + n, p.wrap}
}

// distance returns how many descriptors q is after p, modulo two turns.
func (p place) distance(q place, size uint16) int {
	n := int(q.index) - int(p.index)
	if p.wrap != q.wrap {
		n += int(size)
	}
	return n
}

// available tells from a descriptor's flags whether the driver made it available in the turn
// of p.
func (p place) available(flags uint16) bool {
	return (flags&descAvail != 0) == p.wrap && (flags&descUsed != 0) != p.wrap
}

// beginPacked finds where a packed ring goes on. Linux's virtio_uml gives a new one base 0,
// as if it were split; no ring in its second turn has descriptors that are all zero, so
// such a ring is new.
func (r *ring) beginPacked(a areas) error {
	if r.base == 0 {
		table := make([]byte, descSize*int(r.size))
		if err := a.desc.read(0, table); err != nil {
			return err
		}
		r.base = freshPacked
		for _, b := range table {
			if b != 0 {
				r.base = 0
				break
			}
		}
	}
	r.next, r.done = unpack(uint16(r.base)), unpack(uint16(r.base>>16))
	n := r.done.distance(r.next, r.size)
	if r.next.index >= r.size || r.done.index >= r.size || n < 0 || n > int(r.size) {
		return r.fail("it starts with base %#x; a ring of %d has no such indices", r.base, r.size)
	}
	r.slots = n // in flight since before, or taken again
	return a.used.store32(0, eventEnable)
}

// takePackedLocked fills req with the next chain, or returns nil if there is none.
func (f *FrontEnd) takePackedLocked(r *ring, a areas, req *Request, limit int) (*Request, error) {
	at := descSize * uint64(r.next.index)
	flags, err := a.desc.load16(at + 14)
	if err != nil {
		return nil, err
	}
	if !r.next.available(flags) && f.has(FeatureEventIndex) {
		// Ask for a kick at the next descriptor, then look once more: the driver may
		// have added it before it could see the request.
		if err := a.used.store32(0, r.next.packed()|eventDesc<<16); err != nil {
			return nil, err
		}
		if flags, err = a.desc.load16(at + 14); err != nil {
			return nil, err
		}
	}
	if !r.next.available(flags) {
		return nil, nil
	}
	chain, err := f.walkPackedLocked(r, a.desc, req, limit)
	if err != nil {
		return nil, err
	}
	if r.track != nil {
		if req.track, err = r.track.takePacked(chain); err != nil {
			return nil, err
		}
	}
	r.next = r.next.plus(req.slots, r.size)
	r.slots += int(req.slots)
	return req, nil
}

// packedDesc is a descriptor of a packed ring.
type packedDesc struct {
	addr  iova.Addr
	size  uint32
	id    uint16
	flags uint16
}

func parsePacked(b []byte) packedDesc {
	return packedDesc{iova.Addr(order.Uint64(b)), order.Uint32(b[8:]), order.Uint16(b[12:]), order.Uint16(b[14:])}
}

// walkPackedLocked reads the chain from r.next on, and returns it. Every descriptor is read once.
func (f *FrontEnd) walkPackedLocked(r *ring, ring span, req *Request, limit int) (chain []packedDesc, err error) {
	for at := r.next; ; at = at.plus(1, r.size) {
		if len(chain) == int(r.size)-r.slots {
			return nil, r.fail("a chain and what is in flight have more than %d descriptors", r.size)
		}
		var b [descSize]byte
		if err := ring.read(uint64(at.index)*descSize, b[:]); err != nil {
			return nil, err
		}
		d := parsePacked(b[:])
		chain = append(chain, d)
		if err := f.addPackedLocked(r, req, uint64(at.index), d, limit); err != nil {
			return nil, err
		}
		if d.flags&descNext == 0 {
			req.id, req.slots = d.id, uint16(len(chain))
			return chain, nil
		}
	}
}

// addPackedLocked adds what a descriptor names to a request: a buffer, or those of a table, in
// which only WRITE means anything.
func (f *FrontEnd) addPackedLocked(r *ring, req *Request, index uint64, d packedDesc, limit int) error {
	if d.flags&^(descNext|descWrite|descTable|descAvail|descUsed) != 0 {
		return r.fail("descriptor %d has flags %#x; only bits 15, 7 and 2:0 are defined", index, d.flags)
	}
	if d.flags&descTable == 0 {
		return f.addLocked(r, req, index, d.addr, d.size, d.flags&descWrite != 0, limit)
	}
	table, err := f.tableLocked(r, index, d.addr, d.size, d.flags)
	if err != nil {
		return err
	}
	for i := range uint64(d.size) / descSize {
		var b [descSize]byte
		if err := table.read(i*descSize, b[:]); err != nil {
			return err
		}
		t := parsePacked(b[:])
		if err := f.addLocked(r, req, i, t.addr, t.size, t.flags&descWrite != 0, limit); err != nil {
			return err
		}
	}
	return nil
}

// usePackedLocked gives a chain back, and tells whether the driver wants to know.
func (f *FrontEnd) usePackedLocked(r *ring, a areas, req *Request, written uint32) (notify bool, err error) {
	from := r.done
	to := from.plus(req.slots, r.size)
	if r.track != nil {
		if err := r.track.usePacked(req.track, to); err != nil {
			return false, err
		}
	}
	flags := uint16(0)
	if from.wrap {
		flags = descAvail | descUsed
	}
	if written > 0 {
		flags |= descWrite
	}
	at := descSize * uint64(from.index)
	if err := a.desc.store32(at+8, written); err != nil {
		return false, err
	}
	if err := a.desc.store32(at+12, uint32(req.id)|uint32(flags)<<16); err != nil { // after the length
		return false, err
	}
	r.done = to
	r.slots -= int(req.slots)
	if r.track != nil {
		if err := r.track.usedPacked(req.track); err != nil {
			return false, err
		}
	}
	event, err := a.avail.load32(0)
	if err != nil {
		return false, err
	}
	switch flags := event >> 16; {
	case flags == eventDisable:
		return false, nil
	case flags == eventDesc && f.has(FeatureEventIndex):
		n := from.distance(unpack(uint16(event)), r.size)
		return n >= 0 && n < int(req.slots), nil
	}
	return true, nil
}
