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

// Sizes and bits of a split virtqueue (VIRTIO 1.3 §2.7).
const (
	descSize  = 16
	descNext  = 1 // VIRTQ_DESC_F_NEXT
	descWrite = 2 // VIRTQ_DESC_F_WRITE
	descTable = 4 // VIRTQ_DESC_F_INDIRECT

	noInterrupt = 1 // VIRTQ_AVAIL_F_NO_INTERRUPT
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
	head  uint16
	out   []segment
}

// segment is a buffer in guest memory.
type segment struct {
	addr iova.Addr
	size uint32
}

// ring is one virtqueue. Guarded by FrontEnd.mu.
type ring struct {
	index             int
	size              uint16 // entries; 0 until SET_VRING_NUM
	desc, avail, used uint64 // the front end's virtual addresses; valid if placed
	placed            bool
	enabled           bool
	kick              int // descriptor, or -1
	call, err         *eventfd.FD

	started  bool   // has a kick descriptor, and was not stopped since
	running  bool   // started and enabled: chains may be taken
	broken   bool   // a RingError stopped it
	fault    error  // that Take has still to tell
	life     uint32 // counts starts, so that a late answer finds its ring gone
	next     uint16 // next chain to take, free-running
	done     uint16 // used index, free-running
	inflight int
	drained  chan struct{} // closed when inflight becomes 0; nil when nobody waits
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
func (s span) write(off uint64, p []byte) error   { return s.mem.WriteAt(p, s.off+off) }
func (r *ring) fail(format string, args ...any) error {
	return &RingError{r.index, fmt.Sprintf(format, args...)}
}
func (r *ring) availSize() (fixed, withEvent uint64) { n := 4 + 2*uint64(r.size); return n, n + 2 }
func (r *ring) usedSize() (fixed, withEvent uint64)  { n := 4 + 8*uint64(r.size); return n, n + 2 }
func (f *FrontEnd) has(feature uint64) bool          { return f.features&feature != 0 }

// areasLocked resolves the ring's three areas.
func (f *FrontEnd) areasLocked(r *ring) (a areas, err error) {
	_, avail := r.availSize()
	_, used := r.usedSize()
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

func (f *FrontEnd) takeLocked(r *ring, limit int) (*Request, error) {
	a, err := f.areasLocked(r)
	if err != nil {
		return nil, err
	}
	index, err := a.avail.load16(2)
	if err != nil {
		return nil, err
	}
	if index == r.next && f.has(FeatureEventIndex) {
		// Ask for a kick at the next entry, then look once more: the driver may
		// have added it before it could see the request.
		event, _ := r.usedSize()
		if err := a.used.store16(event, r.next); err != nil {
			return nil, err
		}
		if index, err = a.avail.load16(2); err != nil {
			return nil, err
		}
	}
	switch n := index - r.next; {
	case n == 0:
		return nil, nil
	case n > r.size:
		return nil, r.fail("the available index moved from %d to %d; at most %d entries can be new", r.next, index, r.size)
	case r.inflight >= int(r.size):
		return nil, r.fail("%d chains are in flight and another is available; a queue of %d has no more", r.inflight, r.size)
	}
	head, err := a.avail.load16(4 + 2*uint64(r.next%r.size))
	if err != nil {
		return nil, err
	}
	req := &Request{f: f, queue: r.index, life: r.life, head: head}
	if err := f.walkLocked(r, a.desc, req, limit); err != nil {
		return nil, err
	}
	r.next++
	r.inflight++
	return req, nil
}

// walkLocked follows the chain from req.head. Every descriptor is read once.
func (f *FrontEnd) walkLocked(r *ring, table span, req *Request, limit int) error {
	entries, index, indirect := uint64(r.size), uint64(req.head), false
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
		switch {
		case flags&^(descNext|descWrite|descTable) != 0:
			return r.fail("descriptor %d has flags %#x; only bits 2:0 are defined", index, flags)
		case size == 0:
			return r.fail("descriptor %d has length 0; a buffer has at least a byte", index)
		case flags&descTable != 0:
			switch {
			case !f.has(FeatureIndirect):
				return r.fail("descriptor %d is indirect; INDIRECT_DESC was not accepted", index)
			case indirect:
				return r.fail("descriptor %d of an indirect table is indirect", index)
			case flags&descNext != 0:
				return r.fail("descriptor %d is indirect and has a next", index)
			case size%descSize != 0 || uint64(size) > descSize*uint64(r.size):
				return r.fail("an indirect table of %d bytes; use 16 for each of at most %d descriptors", size, r.size)
			}
			t, ok := f.guestLocked(addr, uint64(size))
			if !ok {
				return r.fail("the indirect table at %v is not in guest memory", addr)
			}
			table, entries, index, indirect = t, uint64(size)/descSize, 0, true
			n-- // the table stands for its chain
			continue
		case flags&descWrite != 0:
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
		if flags&descNext == 0 {
			return nil
		}
		index = uint64(next)
	}
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
	var elem [8]byte
	order.PutUint32(elem[:], uint32(req.head))
	order.PutUint32(elem[4:], written)
	if err := a.used.write(4+8*uint64(r.done%r.size), elem[:]); err != nil {
		return err
	}
	r.done++
	if err := a.used.store16(2, r.done); err != nil { // after the element
		return err
	}
	notify := false
	if f.has(FeatureEventIndex) {
		at, _ := r.availSize()
		event, err := a.avail.load16(at)
		if err != nil {
			return err
		}
		notify = event == r.done-1
	} else {
		flags, err := a.avail.load16(0)
		if err != nil {
			return err
		}
		notify = flags&noInterrupt == 0
	}
	if notify && r.call != nil {
		r.call.Signal()
	}
	return nil
}
