// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vhostuser

import (
	"cmp"
	"slices"

	"npuemu/dma/iova"
	"npuemu/internal/filemap"
)

// The in-flight region (vhost-user.rst, "Inflight I/O tracking"): what a back end must not
// forget when it dies or loses its connection, in memory that the front end keeps. It has a part for each
// queue: a header, and an entry for each descriptor.
const (
	trackAlign   = 64 // of a queue's part; the protocol leaves it open
	trackVersion = 1  // of a part in use; 0 is one that says nothing

	// Header, split and packed.
	trackAtVersion = 8
	trackAtNum     = 10
	splitLastBatch = 12
	splitUsed      = 14
	splitHeader    = 16
	packedFree     = 12
	packedOldFree  = 14
	packedUsed     = 16 // then the old one
	packedWrap     = 20 // then the old one
	packedHeader   = 32

	// Entry, split: in flight u8, next of the batch u16, counter u64.
	splitNext    = 6
	splitCounter = 8
	splitEntry   = 16

	// Entry, packed: in flight u8, next u16, last u16, number u16, counter u64, and the descriptor.
	packedNext    = 2
	packedLast    = 4
	packedNum     = 6
	packedCounter = 8
	packedID      = 16
	packedEntry   = 32
)

// inflightRegion is the region that SET_INFLIGHT_FD gave.
type inflightRegion struct {
	mem      *filemap.Range
	size     uint64
	dev, ino uint64 // name its file
	queues   uint16
	entries  uint16 // of each queue
}

// trackSize is how long a queue's part with n entries is.
func trackSize(n uint16, packed bool) uint64 {
	size := splitHeader + splitEntry*uint64(n)
	if packed {
		size = packedHeader + packedEntry*uint64(n)
	}
	return (size + trackAlign - 1) &^ (trackAlign - 1)
}

// forget makes every part say nothing: no request of before will be answered. The region may be too small for all:
// the features can have changed since it came.
func (g *inflightRegion) forget(packed bool) error {
	size := trackSize(g.entries, packed)
	for i := range min(uint64(g.queues), g.size/size) {
		if err := g.mem.Store16(i*size+trackAtVersion, 0); err != nil {
			return err
		}
	}
	return nil
}

// tracker is the part of a ring that is live. What is read from it is not believed.
type tracker struct {
	r       *ring
	part    span
	n       uint16 // entries
	counter uint64 // of the next request
}

// trackLocked finds the part of a ring that has just begun, and takes over what it says: then the ring goes on
// where it tells, and what was in flight is taken again, oldest first.
func (f *FrontEnd) trackLocked(r *ring, a areas) error {
	g := f.region
	r.track = nil
	if r.index >= int(g.queues) {
		return nil
	}
	size := trackSize(g.entries, r.packed)
	if r.size > g.entries || uint64(r.index+1)*size > g.size {
		return r.fail("%d entries; the in-flight region has room for %d queues of %d in %#x bytes", r.size, g.queues, g.entries, g.size)
	}
	t := &tracker{r: r, part: span{g.mem, uint64(r.index) * size}, n: g.entries}
	version, err := t.part.load16(trackAtVersion)
	if err != nil {
		return err
	}
	switch {
	case version == 0 && r.packed:
		err = t.initPacked(size)
	case version == 0:
		err = t.initSplit(size)
	case version != trackVersion:
		err = r.fail("in-flight region of version %d; use %d", version, trackVersion)
	default:
		num, loadErr := t.part.load16(trackAtNum)
		if loadErr != nil {
			return loadErr
		}
		switch {
		case num != t.n:
			err = r.fail("in-flight region with %d entries; SET_INFLIGHT_FD says %d", num, t.n)
		case r.packed:
			err = t.resumePacked(a)
		default:
			err = t.resumeSplit()
		}
	}
	if err == nil {
		r.track = t
	}
	return err
}

// stopped tells that the ring has stopped with nothing in flight: base says all.
func (t *tracker) stopped() error { return t.part.store16(trackAtVersion, 0) }

// init writes an empty part's version at last.
func (t *tracker) init(part []byte) error {
	order.PutUint16(part[trackAtNum:], t.n)
	if err := t.part.write(0, part); err != nil {
		return err
	}
	return t.part.store16(trackAtVersion, trackVersion)
}

func (t *tracker) initSplit(size uint64) error {
	part := make([]byte, size)
	order.PutUint16(part[splitUsed:], t.r.done.index)
	return t.init(part)
}

func (t *tracker) initPacked(size uint64) error {
	part := make([]byte, size)
	for i := range int(t.n) {
		order.PutUint16(part[packedHeader+i*packedEntry+packedNext:], uint16(i+1))
	}
	for i := range 2 {
		order.PutUint16(part[packedUsed+2*i:], t.r.done.index)
		if t.r.done.wrap {
			part[packedWrap+i] = 1
		}
	}
	return t.init(part)
}

// resubmit notes the entries in flight, which are a part's entries that begin with 1, by their counters.
func (t *tracker) resubmit(entries []byte, size, counter int) {
	of := func(i uint16) uint64 { return order.Uint64(entries[int(i)*size+counter:]) }
	for i := range t.n {
		if entries[int(i)*size] == 1 {
			t.r.again = append(t.r.again, flying{entry: i})
			t.counter = max(t.counter, of(i)+1)
		}
	}
	slices.SortFunc(t.r.again, func(a, b flying) int { return cmp.Compare(of(a.entry), of(b.entry)) })
}

func (t *tracker) resumeSplit() error {
	entries := make([]byte, splitEntry*int(t.n))
	if err := t.part.read(splitHeader, entries); err != nil {
		return err
	}
	batch, err := t.part.load16(splitUsed)
	if err != nil {
		return err
	}
	if batch = t.r.done.index - batch; batch != 0 { // died between two stores
		head, err := t.part.load16(splitLastBatch)
		if err != nil {
			return err
		}
		for ; batch > 0; batch-- {
			if head >= t.n {
				return t.r.fail("the last batch of the in-flight region names entry %d of %d", head, t.n)
			}
			e := entries[int(head)*splitEntry:]
			if e[0] == 0 {
				break
			}
			e[0] = 0
			if err := t.part.write(splitHeader+uint64(head)*splitEntry, e[:1]); err != nil {
				return err
			}
			head = order.Uint16(e[splitNext:])
		}
		if err := t.part.store16(splitUsed, t.r.done.index); err != nil {
			return err
		}
	}
	t.resubmit(entries, splitEntry, splitCounter)
	t.r.next.index = t.r.done.index + uint16(len(t.r.again))
	return nil
}

func (t *tracker) split(head uint16) uint64 { return splitHeader + uint64(head)*splitEntry }

// takeSplit notes that a chain is in flight.
func (t *tracker) takeSplit(head uint16) error {
	var b [8]byte
	order.PutUint64(b[:], t.counter)
	t.counter++
	if err := t.part.write(t.split(head)+splitCounter, b[:]); err != nil {
		return err
	}
	return t.part.write(t.split(head), []byte{1})
}

// useSplit precedes, usedSplit follows the change of the used index.
func (t *tracker) useSplit(head uint16) error {
	last, err := t.part.load16(splitLastBatch)
	if err != nil {
		return err
	}
	if err := t.part.store16(t.split(head)+splitNext, last); err != nil {
		return err
	}
	return t.part.store16(splitLastBatch, head)
}

func (t *tracker) usedSplit(head, index uint16) error {
	if err := t.part.write(t.split(head), []byte{0}); err != nil {
		return err
	}
	return t.part.store16(splitUsed, index)
}

func (t *tracker) packed(i uint16) uint64 { return packedHeader + uint64(i)*packedEntry }

// entry checks an index that was read from the region.
func (t *tracker) entry(i uint16) error {
	if i >= t.n {
		return t.r.fail("a list of the in-flight region names entry %d of %d", i, t.n)
	}
	return nil
}

func (t *tracker) resumePacked(a areas) error {
	head := make([]byte, packedHeader)
	if err := t.part.read(0, head); err != nil {
		return err
	}
	now := place{order.Uint16(head[packedUsed:]), head[packedWrap] != 0}
	old := place{order.Uint16(head[packedUsed+2:]), head[packedWrap+1] != 0}
	free := order.Uint16(head[packedOldFree:])
	if now.index >= t.r.size || old.index >= t.r.size {
		return t.r.fail("the in-flight region goes on at %d and %d; the ring has %d entries", now.index, old.index, t.r.size)
	}
	if now != old { // died between two stores: was the chain given back?
		flags, err := a.desc.load16(descSize*uint64(old.index) + 14)
		if err != nil {
			return err
		}
		if !old.available(flags) {
			old, free = now, order.Uint16(head[packedFree:])
		}
	}
	t.r.done = old
	if err := t.commit(free); err != nil {
		return err
	}
	entries := make([]byte, packedEntry*int(t.n))
	if err := t.part.read(packedHeader, entries); err != nil {
		return err
	}
	for i := 0; free < t.n && i < int(t.n); i++ {
		entries[int(free)*packedEntry] = 0
		if err := t.part.write(t.packed(free), []byte{0}); err != nil {
			return err
		}
		free = order.Uint16(entries[int(free)*packedEntry+packedNext:])
	}
	t.resubmit(entries, packedEntry, packedCounter)
	t.r.slots = 0
	for i := range t.r.again {
		again := &t.r.again[i]
		num := order.Uint16(entries[int(again.entry)*packedEntry+packedNum:])
		again.slots = num
		if t.r.slots += int(num); num == 0 || t.r.slots > int(t.r.size) {
			return t.r.fail("the in-flight region has chains with %d descriptors; the ring has %d", t.r.slots, t.r.size)
		}
	}
	t.r.next = t.r.done.plus(uint16(t.r.slots), t.r.size)
	return nil
}

// commit makes the ring's place and the free list what the part says, now and as the old ones.
func (t *tracker) commit(free uint16) error {
	used := uint32(t.r.done.index)
	wrap := uint16(0)
	if t.r.done.wrap {
		wrap = 0x0101
	}
	if err := t.part.store32(packedFree, uint32(free)|uint32(free)<<16); err != nil {
		return err
	}
	if err := t.part.store16(packedWrap, wrap); err != nil {
		return err
	}
	return t.part.store32(packedUsed, used|used<<16)
}

// takePacked notes that a chain is in flight, and returns its entry.
func (t *tracker) takePacked(chain []packedDesc) (uint16, error) {
	head, err := t.part.load16(packedFree)
	if err != nil {
		return 0, err
	}
	last, next := head, head
	for _, d := range chain {
		if err := t.entry(next); err != nil {
			return 0, err
		}
		last = next
		var b [16]byte
		order.PutUint16(b[0:], d.id)
		order.PutUint16(b[2:], d.flags)
		order.PutUint32(b[4:], d.size)
		order.PutUint64(b[8:], uint64(d.addr))
		if err := t.part.write(t.packed(last)+packedID, b[:]); err != nil {
			return 0, err
		}
		if next, err = t.part.load16(t.packed(last) + packedNext); err != nil {
			return 0, err
		}
	}
	var b [12]byte
	order.PutUint16(b[0:], last)
	order.PutUint16(b[2:], uint16(len(chain)))
	order.PutUint64(b[4:], t.counter)
	t.counter++
	if err := t.part.write(t.packed(head)+packedLast, b[:]); err != nil {
		return 0, err
	}
	if err := t.part.write(t.packed(head), []byte{1}); err != nil {
		return 0, err
	}
	return head, t.part.store32(packedFree, uint32(next)|uint32(next)<<16)
}

// usePacked precedes, usedPacked follows the change of the descriptor's flags.
func (t *tracker) usePacked(head uint16, to place) error {
	last, err := t.part.load16(t.packed(head) + packedLast)
	if err == nil {
		err = t.entry(last)
	}
	if err != nil {
		return err
	}
	free, err := t.part.load16(packedFree)
	if err != nil {
		return err
	}
	if err := t.part.store16(t.packed(last)+packedNext, free); err != nil {
		return err
	}
	if err := t.part.store16(packedFree, head); err != nil {
		return err
	}
	wrap := []byte{0}
	if to.wrap {
		wrap[0] = 1
	}
	if err := t.part.write(packedWrap, wrap); err != nil {
		return err
	}
	return t.part.store16(packedUsed, to.index)
}

func (t *tracker) usedPacked(head uint16) error {
	if err := t.part.write(t.packed(head), []byte{0}); err != nil {
		return err
	}
	return t.commit(head)
}

// takeAgainLocked fills req with the oldest chain that was in flight when the ring began.
func (f *FrontEnd) takeAgainLocked(r *ring, a areas, req *Request, limit int) error {
	head, slots := r.again[0].entry, r.again[0].slots
	r.again = r.again[1:]
	if !r.packed {
		req.id = head
		return f.walkSplitLocked(r, a.desc, req, limit)
	}
	t := r.track
	req.track = head
	var b [packedEntry]byte
	if err := t.part.read(t.packed(head), b[:]); err != nil {
		return err
	}
	num := order.Uint16(b[packedNum:])
	if num != slots { // they are what r.slots counts
		return r.fail("the in-flight region has a chain with %d descriptors; it had %d when the queue began", num, slots)
	}
	for i, at := uint16(0), head; i < num; i++ {
		if err := t.entry(at); err != nil {
			return err
		}
		if err := t.part.read(t.packed(at), b[:]); err != nil {
			return err
		}
		d := packedDesc{size: order.Uint32(b[packedID+4:]), id: order.Uint16(b[packedID:]), flags: order.Uint16(b[packedID+2:])}
		d.addr = iova.Addr(order.Uint64(b[packedID+8:]))
		if (d.flags&descNext != 0) != (i < num-1) { // tables stand only at the end
			return r.fail("entry %d of the in-flight region: its chain of %d does not end where its descriptors say", at, num)
		}
		if err := f.addPackedLocked(r, req, uint64(at), d, limit); err != nil {
			return err
		}
		req.id = d.id
		at = order.Uint16(b[packedNext:])
	}
	req.slots = num
	return nil
}
