// SPDX-License-Identifier: Apache-2.0

package devtest

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"

	"npuemu/mmio/npureg"
)

// A Line is a shadow line (§4.11) as a driver has it. The device is another process, or
// behaves like one: all accesses are atomic.
type Line struct {
	Addr uint64
	w    *[npureg.ShadowSize / 4]uint32
}

// NewLine returns the line at offset off of fresh guest memory of a page.
func (h *Host) NewLine(off int) *Line {
	h.T.Helper()
	at, p := h.Alloc(0x1000)
	return LineAt(at+uint64(off), p[off:])
}

// LineAt returns the line that the device finds at addr, and the driver in p, which is
// aligned to 4 bytes.
func LineAt(addr uint64, p []byte) *Line {
	return &Line{Addr: addr, w: (*[npureg.ShadowSize / 4]uint32)(unsafe.Pointer(&p[:npureg.ShadowSize][0]))}
}

// Store stores SQ_TAIL or CQ_HEAD (npureg.Shadow…). It is a full barrier.
func (l *Line) Store(off int, v uint32) { atomic.StoreUint32(&l.w[off/4], v) }

// Ring loads RING.
func (l *Line) Ring() uint32 { return atomic.LoadUint32(&l.w[npureg.ShadowRing/4]) }

// Words loads the whole line.
func (l *Line) Words() (w [npureg.ShadowSize / 4]uint32) {
	for i := range w {
		w[i] = atomic.LoadUint32(&l.w[i])
	}
	return w
}

// Fill stores v in every word of the line.
func (l *Line) Fill(v uint32) {
	for i := range l.w {
		atomic.StoreUint32(&l.w[i], v)
	}
}

// ShadowQueueEntry returns e, a CREATE_QUEUE, with a shadow line at addr.
func ShadowQueueEntry(e Entry, addr uint64) Entry {
	binary.LittleEndian.PutUint64(e[0x28:], addr)
	return e
}

// CreateShadowQueue creates user queue index with n entries a ring and a shadow line, which
// Submit, Wait and Do then use.
func (h *Host) CreateShadowQueue(index int, context uint32, vector, n int, l *Line) {
	h.T.Helper()
	r := h.newRing(index, n, n)
	r.line = l
	e := ShadowQueueEntry(CreateQueueEntry(index, context, vector, r.sq, r.cq, n, n), l.Addr)
	if c := h.Admin(e); c.Status != npureg.StatusSuccess {
		h.T.Fatalf("devtest: CREATE_QUEUE %d with a shadow line: %v, info %#x", index, c.Status, c.Info)
	}
	h.queues[index] = &r
}

// doorbell tells the device of an index; off is npureg.DoorbellSQTail or DoorbellCQHead.
func (h *Host) doorbell(r *ring, off, v uint32) {
	h.T.Helper()
	if r.line != nil {
		where, bit := npureg.ShadowSQTail, uint32(npureg.RingSQTail)
		if off == npureg.DoorbellCQHead {
			where, bit = npureg.ShadowCQHead, npureg.RingCQHead
		}
		r.line.Store(where, v)
		if r.line.Ring()&bit == 0 {
			return
		}
	}
	h.Write32(Doorbell(r.index)+off, v)
}

// Completed reports whether Wait would return at once. It loads the phase with the
// word that holds it.
func (h *Host) Completed(queue int) bool {
	r := h.queues[queue]
	word := (*uint32)(unsafe.Pointer(&r.cqMem[r.head*npureg.CQEntrySize+0x1c:][:4][0]))
	return uint16(atomic.LoadUint32(word)>>16)&1 == r.phase
}
