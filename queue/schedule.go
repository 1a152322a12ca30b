// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"math/bits"
	"time"

	"npuemu/mmio/npureg"
)

// starvation is how many commands of higher classes may start while a class has one ready
// (§4.12).
const starvation = 64

// set is a set of queues: whatever the scheduler asks of all queues is a few words.
type set [npureg.MaxQueues / 64]uint64

// put makes queue i a member, or not.
func (s *set) put(i int, in bool) {
	if in {
		s[i/64] |= 1 << (i % 64)
	} else {
		s[i/64] &^= 1 << (i % 64)
	}
}

func (s *set) has(i int) bool { return s[i/64]>>(i%64)&1 != 0 }
func (s *set) empty() bool    { return *s == set{} }

// next returns the first member behind i, or 0, which is no queue.
func (s *set) next(i int) int {
	i++
	for w := i / 64; w < len(s); w++ {
		b := s[w]
		if w == i/64 {
			b &= ^uint64(0) << (i % 64)
		}
		if b != 0 {
			return 64*w + bits.TrailingZeros64(b)
		}
	}
	return 0
}

// class is a priority (§4.12). Guarded by Engine.mu.
type class struct {
	ready  set // queues that can start a command
	turn   int // the queue whose turn it is, or was
	left   int // commands that it may still start in this turn
	passed int // commands of higher classes that started while one was ready here
}

// Schedule is what firmware says of a queue's service, at first or later (§4.12 to §4.16).
type Schedule struct {
	Priority, Weight            uint8  // Weight 0 means 1
	Timeout                     uint32 // of a command, ms; 0 for none
	CoalesceCount, CoalesceTime uint16 // completions an interrupt, µs; of a queue with a completion ring of its own
}

// ModifyLocked changes the service of a queue, from its next command on; a timeout holds
// for the one in progress too.
func (e *Engine) ModifyLocked(index int, s Schedule) {
	if e.StateLocked(index) == npureg.QueueDisabled {
		return
	}
	q := &e.queues[index]
	e.classes[q.sched.Priority].ready.put(index, false)
	s.Priority %= npureg.QueuePriorities
	q.sched, q.overdue = s, false
	if q.sequence != 0 && q.since.IsZero() {
		q.since = time.Now()
	}
	if q.cq.owner == index {
		e.flushLocked(q.cq)
		q.cq.count, q.cq.time = s.CoalesceCount, s.CoalesceTime
	}
	e.refreshLocked(index)
	if at, ok := e.deadlineLocked(index); ok {
		e.armLocked(at)
	}
	e.kick()
}

// SuspendLocked keeps a queue from starting commands. It is suspended when none of it is in flight.
func (e *Engine) SuspendLocked(index int) {
	if e.valid(index) {
		e.queues[index].suspended = true
		e.refreshLocked(index)
	}
}

// ResumeLocked lets a suspended queue go on; a WAIT in it begins anew.
func (e *Engine) ResumeLocked(index int) {
	if !e.valid(index) || !e.queues[index].suspended {
		return
	}
	q := &e.queues[index]
	q.suspended = false
	if q.waiting {
		e.beginLocked(index)
		q.due = true
	}
	e.refreshLocked(index)
	e.kick()
}

// runnable reports whether the queue could start a command, or look at the WAIT that it is at, now.
func (q *ring) runnable() bool {
	return q.state == npureg.QueueEnabled && !q.suspended && q.sqHead != q.sqTail && q.cq.room() && (!q.waiting || q.due)
}

// refreshLocked is called after every change of what a queue could do.
func (e *Engine) refreshLocked(index int) {
	q := &e.queues[index]
	e.classes[q.sched.Priority].ready.put(index, q.runnable())
	polled := q.waiting && !q.due && !q.suspended && q.state == npureg.QueueEnabled && q.cq.room()
	e.waits.put(index, polled)
	if polled && (e.nextDue.IsZero() || q.dueAt.Before(e.nextDue)) {
		e.nextDue = q.dueAt
	}
}

// pickLocked returns the queue that starts the next command (§4.12), or 0.
func (e *Engine) pickLocked() int {
	var best *class
	for p := len(e.classes) - 1; p >= 0; p-- {
		k := &e.classes[p]
		switch {
		case k.ready.empty():
			k.passed = 0
			continue
		case best == nil:
			best = k
			continue
		case k.passed < starvation:
			continue
		}
		best = k
		break
	}
	if best == nil {
		return 0
	}
	if best.left == 0 || !best.ready.has(best.turn) {
		if best.turn = best.ready.next(best.turn); best.turn == 0 {
			best.turn = best.ready.next(0)
		}
		best.left = int(max(e.queues[best.turn].sched.Weight, 1))
	}
	return best.turn
}

// chargeLocked counts a command of a queue that was started in class p. One that only waits
// is not counted, and gives up the turn.
func (e *Engine) chargeLocked(index, p int, waits bool) {
	k := &e.classes[p]
	if waits {
		if k.turn == index {
			k.left = 0
		}
		return
	}
	if k.turn == index && k.left > 0 {
		k.left--
	}
	k.passed = 0
	for i := range p {
		if c := &e.classes[i]; !c.ready.empty() {
			c.passed++
		}
	}
}
