// SPDX-License-Identifier: Apache-2.0

package virtiotest

import (
	"sync/atomic"
	"time"
	"unsafe"
)

// Bits of a packed ring's descriptors.
const (
	Available = 1 << 7
	UsedUp    = 1 << 15
)

// position is a place in a packed ring.
type position struct {
	index int
	wrap  bool
}

func (p position) plus(n, size int) position {
	if p.index += n; p.index >= size {
		return position{p.index - size, !p.wrap}
	}
	return p
}

// Flags are those of a descriptor that is available in the current turn.
func (p position) flags() uint16 {
	if p.wrap {
		return Available
	}
	return UsedUp
}

// Base is the position as SET_VRING_BASE has it, if nothing is in flight.
func (q *Queue) Base() uint32 {
	v := uint32(q.at.index)
	if q.at.wrap {
		v |= 0x8000
	}
	return v | v<<16
}

// PutPacked stores a descriptor of a packed ring, whose next field is its buffer id, flags last.
func (q *Queue) PutPacked(i int, d Desc) {
	PutDesc(q.Desc, i, Desc{Addr: d.Addr, Len: d.Len, Next: 0})
	w := (*uint32)(unsafe.Pointer(&q.Desc[16*i+12]))
	atomic.StoreUint32(w, uint32(d.Next)|uint32(d.Flags)<<16)
}

// Now returns the flags that make the next descriptor available.
func (q *Queue) Now() uint16 { return q.at.flags() }

func (q *Queue) addPacked(chain []Desc) uint16 {
	q.F.T.Helper()
	if len(chain) > q.slots || len(q.free) == 0 {
		q.F.T.Fatalf("virtiotest: queue %d is full", q.Index)
	}
	id := q.free[0]
	q.free = q.free[1:]
	for i := len(chain) - 1; i >= 0; i-- { // the first one last
		d, at := chain[i], q.at.plus(i, q.Size)
		d.Next = id
		d.Flags |= at.flags()
		if i+1 < len(chain) {
			d.Flags |= Next
		}
		q.PutPacked(at.index, d)
	}
	q.at = q.at.plus(len(chain), q.Size)
	q.slots -= len(chain)
	q.lengths[id] = len(chain)
	return id
}

func (q *Queue) awaitPacked(timeout time.Duration) (id uint16, written uint32, ok bool) {
	slot := q.Desc[16*q.back.index:]
	for end := time.Now().Add(timeout); ; time.Sleep(20 * time.Microsecond) {
		w := atomic.LoadUint32((*uint32)(unsafe.Pointer(&slot[12])))
		flags := uint16(w >> 16)
		if (flags&Available != 0) == q.back.wrap && (flags&UsedUp != 0) == q.back.wrap {
			id = uint16(w)
			break
		}
		if time.Now().After(end) {
			return 0, 0, false
		}
	}
	written = le.Uint32(slot[8:])
	n := q.lengths[id]
	if n == 0 {
		q.F.T.Errorf("virtiotest: queue %d: buffer %d is used and was not available", q.Index, id)
		return id, written, false
	}
	delete(q.lengths, id)
	q.free = append(q.free, id)
	q.slots += n
	q.back = q.back.plus(n, q.Size)
	if q.EventIndex { // notify of the next
		q.DriverEvent(2, q.back)
	}
	return id, written, true
}

// DriverEvent writes the driver's event suppression structure.
func (q *Queue) DriverEvent(flags uint16, at position) {
	v := uint32(at.index) | uint32(flags)<<16
	if at.wrap {
		v |= 0x8000
	}
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&q.Avail[0])), v)
}

// NotifyAt asks for a notification n used descriptors from now.
func (q *Queue) NotifyAt(n int) { q.DriverEvent(2, q.back.plus(n, q.Size)) }

// DeviceEvent reads the device's event suppression structure.
func (q *Queue) DeviceEvent() (flags uint16, index int, wrap bool) {
	v := atomic.LoadUint32((*uint32)(unsafe.Pointer(&q.Used[0])))
	return uint16(v >> 16), int(v & 0x7fff), v&0x8000 != 0
}
