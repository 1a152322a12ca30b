// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"encoding/binary"
	"fmt"
	"time"

	"npuemu/dma/iova"
	"npuemu/mmio/npureg"
)

// completions is a completion ring: of one queue, its owner, or of several (§4.15). Guarded by
// Engine.mu.
type completions struct {
	owner      int
	users      set // the owner among them
	base       iova.Addr
	entries    uint16
	head, tail uint16
	phase      uint16
	vector     uint16

	// Coalescing (§4.16).
	count, time uint16    // completions an interrupt; µs. Off if either is 0
	held        int       // completions that no interrupt told of
	since       time.Time // the first of them
}

// room reports whether there is room for a completion.
func (q *completions) room() bool { return (q.tail+1)%q.entries != q.head }

func (q *completions) advance() {
	if q.tail++; q.tail == q.entries {
		q.tail = 0
		q.phase ^= 1
	}
}

// roomLocked is called when a ring became full, or is no more.
func (e *Engine) roomLocked(cq *completions) {
	for i := cq.users.next(0); i != 0; i = cq.users.next(i) {
		e.refreshLocked(i)
	}
}

// ownedLocked reports whether the owner of a ring is there. Firmware may have taken it away under the queues that
// share its ring, and may have enabled it again with another.
func (e *Engine) ownedLocked(cq *completions) bool { return e.queues[cq.owner].cq == cq }

// completedLocked tells of a completion in memory by an interrupt, now or later. An urgent
// one is not held.
func (e *Engine) completedLocked(cq *completions, urgent bool) {
	cq.held++
	if cq.time != 0 && cq.held < int(cq.count) && !urgent && cq.room() && e.ownedLocked(cq) {
		if cq.held == 1 {
			cq.since = time.Now()
			e.held.put(cq.owner, true)
			e.armLocked(cq.since.Add(time.Duration(cq.time) * time.Microsecond))
		}
		return
	}
	e.flushLocked(cq)
}

// flushLocked raises the interrupt for all completions that are held.
func (e *Engine) flushLocked(cq *completions) {
	if e.ownedLocked(cq) {
		e.held.put(cq.owner, false)
	}
	if cq.held == 0 {
		return
	}
	e.board.InterruptLocked(cq.vector)
	if cq.held > 1 {
		e.board.CountLocked(npureg.CounterCoalesced, uint64(cq.held-1))
	}
	cq.held = 0
}

// post writes a completion entry, the half-word with the phase last (§7.5).
func (e *Engine) post(at iova.Addr, index int, head, phase, id uint16, c *Completion) error {
	b := &e.cqe
	*b = [npureg.CQEntrySize]byte{}
	binary.LittleEndian.PutUint32(b[0x00:], c.Result)
	binary.LittleEndian.PutUint32(b[0x04:], c.Cycles)
	binary.LittleEndian.PutUint64(b[0x08:], c.Info)
	binary.LittleEndian.PutUint64(b[0x10:], c.Time)
	binary.LittleEndian.PutUint16(b[0x18:], head)
	binary.LittleEndian.PutUint16(b[0x1a:], uint16(index))
	binary.LittleEndian.PutUint16(b[0x1c:], id)
	binary.LittleEndian.PutUint16(b[0x1e:], uint16(c.Status)<<1|phase)
	if err := e.bus.Write(at, b[:0x1e]); err != nil {
		return fmt.Errorf("queue: post completion: %w", err)
	}
	if err := e.bus.Write(at+0x1e, b[0x1e:]); err != nil {
		return fmt.Errorf("queue: post completion: %w", err)
	}
	return nil
}
