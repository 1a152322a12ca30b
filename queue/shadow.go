// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"time"

	"npuemu/dma/iova"
	"npuemu/mmio/npureg"
)

// Patience is how long a line is watched after the last thing that happened in its
// queue, before RING asks for doorbells again. It adapts: a doorbell that comes
// soon after the line fell asleep doubles it, one that comes late halves it.
const (
	// minPatience is half of what a trapped doorbell costs a guest (17 to 24 µs
	// with QEMU's TCG): what a queue with rare commands may waste after each.
	minPatience = 10 * time.Microsecond
	// maxPatience covers a guest that submits from its completion interrupt, and
	// bounds what is burnt for a doorbell: a tenth of a processor at 500 a second.
	maxPatience = 200 * time.Microsecond
	// yieldInterval is how long Run spins before other goroutines may have its
	// processor: about what a trapped doorbell takes, so nobody waits longer for us
	// than for a guest.
	yieldInterval = 20 * time.Microsecond
)

var errBusOff = errors.New("queue: a doorbell for a shadow line while the device may not access the bus")

// shadow is the shadow line of a queue (§4.11). A line is awake while RING is 0: Run
// watches it, and software does not ring. It belongs to one life of the queue.
type shadow struct {
	index int
	addr  iova.Addr

	rung   bool // software rang: Run has to look; guarded by Engine.mu
	looked bool // Run accesses the line now; guarded by Engine.mu

	// The rest is Run's own.
	watch    *iova.Watch // nil: not in shared memory, and then never awake
	awake    bool
	asked    bool   // rung, when the look began
	idle     bool   // when the look began, nothing could be executed before software's next store
	full     bool   // … because there is no room for a completion
	seen     uint64 // SQ_TAIL and CQ_HEAD as last loaded
	before   uint64 // seen, until the news
	news     bool   // seen was not taken over yet
	err      error  // of the access that failed
	active   time.Time
	patience time.Duration
}

// BusLocked says whether the device may access the bus (§1.5); at first it may. While
// it may not, no line is watched; afterwards those that are awake are looked at at once.
func (e *Engine) BusLocked(on bool) {
	e.busOff.Store(!on)
	e.stopLook.Store(true)
	e.kick()
}

// ringShadowLocked is a doorbell of a queue with a line. Its value means nothing: the
// line may hold a newer one.
func (e *Engine) ringShadowLocked(s *shadow) {
	s.rung = true
	e.looks.put(s.index, true)
	e.stopLook.Store(true)
	e.kick()
}

// lookLocked takes over what software stored in the lines that are awake or for which it
// rang. It releases mu while it accesses memory; with wait it does not return
// before there is news, everything sleeps, or somebody kicks. It reports whether a line
// is awake. Only Run calls it.
func (e *Engine) lookLocked(ctx context.Context, wait bool) (awake bool) {
	select {
	case <-e.wake: // whatever it was about is looked at now
	default:
	}
	e.lines = e.lines[:0]
	for i := e.looks.next(0); i != 0; i = e.looks.next(i) {
		q := &e.queues[i]
		s := q.shadow
		if q.state != npureg.QueueEnabled || !s.rung && e.busOff.Load() {
			continue
		}
		s.asked, s.rung, s.looked = s.rung, false, true
		s.full = !q.cq.room()
		s.idle = !q.runnable()
		e.lines = append(e.lines, s)
	}
	if len(e.lines) == 0 {
		return false
	}
	e.until = e.nextDue
	e.look = flight{}
	e.current = &e.look
	e.stopLook.Store(false)
	e.mu.Unlock()
	e.watch(ctx, wait)
	e.mu.Lock()
	e.current = nil
	if e.look.stale {
		e.board.IdleLocked()
		return false
	}
	for _, s := range e.lines {
		s.looked = false
		e.takeOverLocked(s)
		e.looks.put(s.index, e.queues[s.index].state == npureg.QueueEnabled && (s.awake || s.rung))
		awake = awake || s.awake
	}
	return awake
}

// takeOverLocked publishes the result of a look.
func (e *Engine) takeOverLocked(s *shadow) {
	q := &e.queues[s.index]
	if q.state == npureg.QueueDraining { // destroyed meanwhile
		e.disabledLocked(s.index)
	}
	news := s.news
	s.news = false
	if q.state != npureg.QueueEnabled {
		s.awake = false
		return
	}
	if s.err != nil {
		s.awake = false
		e.failLocked(s.index, Fault{Code: npureg.StatusBusFault, Queue: s.index, Source: npureg.FaultDoorbell, Addr: s.addr})
		return
	}
	if !news {
		return
	}
	if e.busOff.Load() && s.awake {
		// It may have been stored after the bus went: it is looked at when the bus is back.
		s.seen = s.before
		return
	}
	was := uint32(q.cq.head)
	if q.cq.owner != s.index {
		was = 0 // it has none (§4.15)
	}
	if head := uint32(s.seen >> 32); head != was {
		e.board.CountLocked(npureg.CounterShadow, 1)
		e.headLocked(s.index, head)
	}
	if tail := uint32(s.seen); tail != uint32(q.sqTail) && q.state == npureg.QueueEnabled {
		e.board.CountLocked(npureg.CounterShadow, 1)
		e.tailLocked(s.index, tail)
	}
}

// watch looks at e.lines, once or, with wait, until there is a reason to stop.
func (e *Engine) watch(ctx context.Context, wait bool) {
	yielded := time.Now()
	for {
		now := time.Now()
		awake, stop := false, !wait
		for _, s := range e.lines {
			e.visit(s, now, wait)
			awake = awake || s.awake
			stop = stop || s.news || s.err != nil
		}
		if !e.until.IsZero() && now.After(e.until) { // a WAIT is to be looked at
			return
		}
		if stop || !awake || e.stopLook.Load() || len(e.wake) > 0 || ctx.Err() != nil {
			return
		}
		if now.Sub(yielded) >= yieldInterval {
			runtime.Gosched()
			yielded = now
		}
	}
}

// visit looks at one line: wakes it if software rang, and lets it sleep if it was quiet
// for long enough.
func (e *Engine) visit(s *shadow, now time.Time, wait bool) {
	if e.busOff.Load() {
		if s.asked {
			s.err = errBusOff
		}
		return
	}
	if s.asked {
		s.asked = false
		s.adapt(now)
		s.active = now
		if s.watch == nil {
			s.watch = e.bus.Watch(s.addr)
		}
		if s.watch != nil && !s.awake {
			e.setRing(s, 0)
		}
		e.load(s, now)
		return
	}
	if !s.awake {
		return
	}
	e.load(s, now)
	if s.news || s.err != nil {
		return
	}
	// On one processor nobody can store while we spin.
	quiet := now.Sub(s.active) >= s.patience || wait && !e.spin
	if s.watch != nil && !(s.idle && quiet) {
		return
	}
	// Ask for doorbells, and look again: a store whose maker loaded RING before it
	// changed is seen by that load (§4.11).
	ring := uint32(npureg.RingSQTail)
	if s.full || s.watch == nil {
		ring |= npureg.RingCQHead
	}
	e.setRing(s, ring)
	e.load(s, now)
	if s.news && s.watch != nil {
		e.setRing(s, 0)
	}
}

// adapt judges the patience by a doorbell.
func (s *shadow) adapt(now time.Time) {
	switch {
	case s.awake: // it was under way when the line woke up
	case now.Sub(s.active) < maxPatience:
		s.patience = min(2*s.patience, maxPatience)
	default:
		s.patience = max(s.patience/2, minPatience)
	}
}

// setRing stores RING; the line is awake afterwards if it is 0.
func (e *Engine) setRing(s *shadow, ring uint32) {
	s.awake = ring == 0
	if s.watch != nil && s.watch.Store32(npureg.ShadowRing, ring) != nil {
		s.watch = e.bus.Watch(s.addr) // it was unmapped; something else may be there now
		if s.watch != nil && s.watch.Store32(npureg.ShadowRing, ring) != nil {
			s.watch = nil
		}
	}
	if s.watch == nil {
		s.awake = false
		if err := e.bus.Write(s.addr+npureg.ShadowRing, binary.LittleEndian.AppendUint32(nil, npureg.RingSQTail|npureg.RingCQHead)); err != nil {
			s.err = err
		}
	}
}

// load takes note of SQ_TAIL and CQ_HEAD.
func (e *Engine) load(s *shadow, now time.Time) {
	var v uint64
	var err error
	if s.watch != nil {
		if v, err = s.watch.Load64(npureg.ShadowSQTail); err != nil {
			if s.watch = e.bus.Watch(s.addr); s.watch != nil {
				if v, err = s.watch.Load64(npureg.ShadowSQTail); err != nil {
					s.watch = nil
				}
			}
		}
	}
	if s.watch == nil {
		var b [8]byte
		if err := e.bus.Read(s.addr, b[:]); err != nil {
			s.err = err
			return
		}
		v = binary.LittleEndian.Uint64(b[:])
	}
	if v != s.seen {
		s.before, s.seen, s.news, s.active = s.seen, v, true, now
	}
}
