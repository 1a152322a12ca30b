// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vhostuser

import (
	"fmt"

	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
	"npuemu/internal/filemap"
)

// RingError is a rule of virtqueues that the driver broke. The queue has stopped, and
// runs again only after it was stopped and set up by the front end.
type RingError struct {
	Queue int
	Rule  string // what was found, and what the rule asks for
}

func (e *RingError) Error() string { return fmt.Sprintf("vhostuser: queue %d: %s", e.Queue, e.Rule) }

// What descriptors of split (VIRTIO 1.3 §2.7) and packed (§2.8) virtqueues have in common.
const (
	descSize  = 16
	descNext  = 1 // VIRTQ_DESC_F_NEXT
	descWrite = 2 // VIRTQ_DESC_F_WRITE
	descTable = 4 // VIRTQ_DESC_F_INDIRECT

	maxChain = 1 << 32 // bytes in the buffers of a chain (§2.7.5, §2.8.6)
)

// Request is a chain that a driver made available: bytes for the device, and room for
// its answer. It belongs to who took it, and ends with Complete.
type Request struct {
	In   []byte // the readable bytes, cut at the limit given to Take
	Size uint64 // of the readable bytes
	Room uint64 // bytes that can be answered

	f     *FrontEnd
	queue int
	life  uint32 // of the ring, when it was taken
	id    uint16 // the chain's name to the driver: its head, or its buffer id if packed
	slots uint16 // packed: descriptors that it has in the ring
	track uint16 // packed: its entry in the in-flight region, if there is one
	out   []segment
}

// segment is a buffer in guest memory.
type segment struct {
	addr iova.Addr
	size uint32
}

// place is where a ring goes on: an index that runs freely if it is split, an index into the
// ring and a wrap counter if it is packed.
type place struct {
	index uint16
	wrap  bool
}

// ring is one virtqueue. Guarded by FrontEnd.mu.
type ring struct {
	index             int
	size              uint16 // entries; 0 until SET_VRING_NUM
	desc, avail, used uint64 // the front end's virtual addresses, packed: of descriptors, driver and device area; valid if placed
	placed            bool
	base              uint32 // while it is stopped: where it goes on, as SET_VRING_BASE has it
	enabled           bool
	kick              int // descriptor, or -1
	call, err         *eventfd.FD

	started  bool   // has a kick descriptor, and was not stopped since
	running  bool   // started and enabled: chains may be taken
	broken   bool   // a RingError stopped it
	fault    error  // that Take has still to tell
	life     uint32 // counts starts, so that a late answer finds its ring gone
	packed   bool   // constant while it is started
	next     place  // of the next chain to take
	done     place  // of the next used entry
	inflight int    // chains
	slots    int    // packed: descriptors in flight
	track    *tracker
	again    []flying      // chains that an earlier connection left in flight, still to be taken
	drained  chan struct{} // closed when inflight becomes 0; nil when nobody waits
}

// flying is a chain that an in-flight region names.
type flying struct {
	entry uint16 // of the region
	slots uint16 // packed: descriptors that it has in the ring
}

// areas is where a ring lies: resolved for each use, under the lock, since guest memory
// comes and goes.
type areas struct {
	desc, avail, used span
}

// span is a part of guest memory within one mapped range.
type span struct {
	mem *filemap.Range
	off uint64
}

func (s span) read(off uint64, p []byte) error    { return s.mem.ReadAt(p, s.off+off) }
func (s span) load16(off uint64) (uint16, error)  { return s.mem.Load16(s.off + off) }
func (s span) store16(off uint64, v uint16) error { return s.mem.Store16(s.off+off, v) }
func (s span) load32(off uint64) (uint32, error)  { return s.mem.Load32(s.off + off) }
func (s span) store32(off uint64, v uint32) error { return s.mem.Store32(s.off+off, v) }
func (s span) write(off uint64, p []byte) error   { return s.mem.WriteAt(p, s.off+off) }
func (r *ring) fail(format string, args ...any) error {
	return &RingError{r.index, fmt.Sprintf(format, args...)}
}
func (f *FrontEnd) has(feature uint64) bool { return f.features&feature != 0 }

// areasLocked resolves the ring's three areas.
func (f *FrontEnd) areasLocked(r *ring) (a areas, err error) {
	avail, used := uint64(packedEventSize), uint64(packedEventSize)
	if !r.packed {
		avail, used = r.availSize()+2, r.usedSize()+2 // with the event index
	}
	for _, x := range []struct {
		name string
		addr uint64
		size uint64
		to   *span
	}{
		{"descriptor table", r.desc, descSize * uint64(r.size), &a.desc},
		{"available ring", r.avail, avail, &a.avail},
		{"used ring", r.used, used, &a.used},
	} {
		var ok bool
		if *x.to, ok = f.userLocked(x.addr, x.size); !ok {
			return a, r.fail("its %s at user address %#x is not in guest memory", x.name, x.addr)
		}
	}
	return a, nil
}

// startLocked makes a ring live. One that is not as it should be breaks; Take tells.
func (f *FrontEnd) startLocked(r *ring) {
	r.started, r.packed = true, f.has(FeaturePacked)
	r.life++
	r.inflight, r.slots, r.again = 0, 0, nil
	r.next = place{wrap: r.packed}
	r.done = r.next
	if err := f.beginLocked(r); err != nil {
		r.fault = f.breakLocked(r, err)
	}
}

func (f *FrontEnd) beginLocked(r *ring) error {
	a, err := f.areasLocked(r)
	if err != nil {
		return err
	}
	if r.packed {
		err = r.beginPacked(a)
	} else {
		err = r.beginSplit(a)
	}
	if err != nil {
		return err
	}
	if f.region != nil {
		return f.trackLocked(r, a)
	}
	return nil
}

// rewind makes what is in flight available again: nobody will answer it.
func (r *ring) rewind() {
	lost := r.inflight + len(r.again)
	switch {
	case !r.packed:
		r.next.index -= uint16(lost)
	case lost > 0:
		r.next = r.done
	}
	r.inflight, r.slots, r.again = 0, 0, nil
}

// position is where a ring is, as GET_VRING_BASE has it.
func (r *ring) position() uint32 {
	if r.packed {
		return r.next.packed() | r.done.packed()<<16
	}
	return uint32(r.next.index)
}

// fresh reports whether a ring that is started is where a new driver begins.
func (r *ring) fresh() bool {
	start := place{wrap: r.packed}
	return r.next == start && (!r.packed || r.done == start)
}

// Take returns the next chain of a virtqueue with up to limit of its readable
// bytes, or nil if there is none: Kick follows when there is one again. The error is a
// *RingError, once.
func (f *FrontEnd) Take(queue, limit int) (*Request, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &f.rings[queue]
	if fault := r.fault; fault != nil {
		r.fault = nil
		return nil, fault
	}
	if !r.running || r.broken || f.held {
		return nil, nil
	}
	req, err := f.takeLocked(r, limit)
	if err != nil {
		return nil, f.breakLocked(r, err)
	}
	return req, nil
}

// breakLocked stops a ring for good, and returns why.
func (f *FrontEnd) breakLocked(r *ring, err error) error {
	if _, ok := err.(*RingError); !ok { //nolint:errorlint // ours are never wrapped
		err = r.fail("guest memory failed: %v", err)
	}
	r.broken = true
	f.status |= statusNeedsReset
	if r.err != nil {
		r.err.Signal()
	}
	f.warn("virtqueue stopped", err)
	return err
}

func (f *FrontEnd) takeLocked(r *ring, limit int) (req *Request, err error) {
	a, err := f.areasLocked(r)
	if err != nil {
		return nil, err
	}
	req = &Request{f: f, queue: r.index, life: r.life}
	switch {
	case len(r.again) > 0:
		err = f.takeAgainLocked(r, a, req, limit)
	case r.packed:
		req, err = f.takePackedLocked(r, a, req, limit)
	default:
		req, err = f.takeSplitLocked(r, a, req, limit)
	}
	if err != nil || req == nil {
		return nil, err
	}
	r.inflight++
	return req, nil
}

// addLocked adds a buffer to a request.
func (f *FrontEnd) addLocked(r *ring, req *Request, index uint64, addr iova.Addr, size uint32, write bool, limit int) error {
	switch {
	case size == 0:
		return r.fail("descriptor %d has length 0; a buffer has at least a byte", index)
	case req.Size+req.Room+uint64(size) > maxChain:
		return r.fail("a chain of more than 2³² bytes")
	case !f.coversLocked(addr, uint64(size)) && write:
		return r.fail("a writable buffer: %d bytes at %v are not in guest memory", size, addr)
	case !f.coversLocked(addr, uint64(size)):
		return r.fail("a readable buffer: %d bytes at %v are not in guest memory", size, addr)
	case write:
		req.out = append(req.out, segment{addr, size})
		req.Room += uint64(size)
	case len(req.out) > 0:
		return r.fail("descriptor %d is readable and follows a writable one", index)
	default:
		req.Size += uint64(size)
		if want := min(limit-len(req.In), int(size)); want > 0 {
			at := len(req.In)
			req.In = append(req.In, make([]byte, want)...)
			if err := f.copyLocked(addr, req.In[at:], false); err != nil {
				return r.fail("a readable buffer: %v", err)
			}
		}
	}
	return nil
}

// tableLocked resolves an indirect table, which descriptor index names.
func (f *FrontEnd) tableLocked(r *ring, index uint64, addr iova.Addr, size uint32, flags uint16) (span, error) {
	switch {
	case !f.has(FeatureIndirect):
		return span{}, r.fail("descriptor %d is indirect; INDIRECT_DESC was not accepted", index)
	case flags&descNext != 0:
		return span{}, r.fail("descriptor %d is indirect and has a next", index)
	case size == 0:
		return span{}, r.fail("descriptor %d has length 0; a buffer has at least a byte", index)
	case size%descSize != 0 || uint64(size) > descSize*uint64(r.size):
		return span{}, r.fail("an indirect table of %d bytes; use 16 for each of at most %d descriptors", size, r.size)
	}
	t, ok := f.guestLocked(addr, uint64(size))
	if !ok {
		return span{}, r.fail("the indirect table at %v is not in guest memory", addr)
	}
	return t, nil
}

// Complete answers a request with out, of which as much is written as there is room
// for, and notifies the driver if it wants it. A request whose ring was stopped
// meanwhile is dropped. The error is a *RingError, once.
func (req *Request) Complete(out []byte) error {
	f := req.f
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &f.rings[req.queue]
	if r.life != req.life || !r.started {
		return nil
	}
	defer func() {
		if r.inflight--; r.inflight == 0 && r.drained != nil {
			close(r.drained)
			r.drained = nil
		}
	}()
	if r.broken {
		return nil
	}
	if err := f.completeLocked(r, req, out); err != nil {
		return f.breakLocked(r, err)
	}
	return nil
}

func (f *FrontEnd) completeLocked(r *ring, req *Request, out []byte) error {
	a, err := f.areasLocked(r)
	if err != nil {
		return err
	}
	written := uint32(0)
	for _, s := range req.out {
		n := min(len(out), int(s.size))
		if n == 0 {
			break
		}
		if err := f.copyLocked(s.addr, out[:n], true); err != nil {
			return r.fail("a writable buffer: %v", err)
		}
		out = out[n:]
		written += uint32(n)
	}
	var notify bool
	if r.packed {
		notify, err = f.usePackedLocked(r, a, req, written)
	} else {
		notify, err = f.useSplitLocked(r, a, req.id, written)
	}
	if err == nil && notify && r.call != nil {
		r.call.Signal()
	}
	return err
}
