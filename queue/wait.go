// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"time"

	"npuemu/mmio/npureg"
)

// A WAIT is looked at again after an eighth of the time that it has waited, within these
// bounds (§4.17): 12 % of latency for values that the host stores, and an idle device that
// wakes up twenty times a second, each for some 60 µs of processor time.
const (
	minPoll = 50 * time.Microsecond
	maxPoll = 50 * time.Millisecond

	pageSize = 4096 // the smallest that anybody translates
)

// inFlightLocked reports whether a command of the queue executes now.
func (e *Engine) inFlightLocked(index int) bool {
	f := e.current
	return f != nil && f != &e.look && !f.stale && f.queue == index
}

// beginLocked starts the clock of a command.
func (e *Engine) beginLocked(index int) {
	q := &e.queues[index]
	q.since, q.overdue, q.aborted = time.Now(), false, false
	if at, ok := e.deadlineLocked(index); ok {
		e.armLocked(at)
	}
}

// deadlineLocked returns when the queue's command is overdue (§4.14), if it ever is.
func (e *Engine) deadlineLocked(index int) (at time.Time, ok bool) {
	q := &e.queues[index]
	if q.sched.Timeout == 0 || q.sequence == 0 || !q.waiting && !e.inFlightLocked(index) || q.waiting && (q.suspended || q.state != npureg.QueueEnabled) {
		return at, false
	}
	return q.since.Add(time.Duration(q.sched.Timeout) * time.Millisecond), true
}

// armLocked makes alarm run at a time, or before.
func (e *Engine) armLocked(at time.Time) {
	if e.over || !e.alarmAt.IsZero() && !at.Before(e.alarmAt) {
		return
	}
	e.alarmAt = at
	e.alarm.Reset(time.Until(at))
}

// alarmed is the alarm: it raises interrupts whose time has come, and tells firmware of commands that
// are overdue.
func (e *Engine) alarmed() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over {
		return
	}
	e.alarmAt = time.Time{}
	now := time.Now()
	for i := e.held.next(0); i != 0; i = e.held.next(i) {
		cq := e.queues[i].cq
		if at := cq.since.Add(time.Duration(cq.time) * time.Microsecond); now.Before(at) {
			e.armLocked(at)
		} else {
			e.flushLocked(cq)
		}
	}
	overdue := false
	for i := 1; i < len(e.queues); i++ {
		at, ok := e.deadlineLocked(i)
		switch q := &e.queues[i]; {
		case !ok || q.overdue:
		case now.Before(at):
			e.armLocked(at)
		default:
			q.overdue, overdue = true, true
		}
	}
	if overdue {
		e.board.QueueEventLocked()
	}
}

// AbortLocked ends the command with a number, as StatusLocked told it: as TIMEOUT if it
// executes, as WAIT_TIMEOUT with a result if it waits and a last look does not find its
// value. The queue is suspended then (§4.14).
func (e *Engine) AbortLocked(index int, sequence, result uint32) {
	if !e.valid(index) {
		return
	}
	q := &e.queues[index]
	if q.sequence == 0 || q.sequence != sequence || q.aborted {
		return
	}
	q.aborted, q.result = true, result
	switch {
	case q.waiting:
		q.due = true
		e.refreshLocked(index)
		e.kick()
	case e.inFlightLocked(index):
		e.current.cancel(errTimeout)
	}
}

// parkLocked lets a queue wait at the entry that was just executed.
func (e *Engine) parkLocked(index int, c *Completion) {
	q := &e.queues[index]
	if !q.waiting {
		q.waiting, q.timedOut = true, false
		e.parked[index] = e.entry
	}
	now := time.Now()
	if q.since.IsZero() {
		q.since = now
	}
	q.waitAddr, q.want, q.found = c.Addr, c.Want, c.Info
	q.interval = min(max(now.Sub(q.since)/8, minPoll), maxPoll)
	q.due, q.dueAt = false, now.Add(q.interval)
	if q.again {
		q.due, q.again = true, false
	}
	e.refreshLocked(index)
}

// dueLocked makes the WAITs runnable whose time to be looked at has come. One that is to be looked at
// soon is taken along, so that many of them wake the device up no more often than two.
func (e *Engine) dueLocked() {
	if e.waits.empty() {
		e.nextDue = time.Time{}
		return
	}
	now := time.Now()
	if now.Before(e.nextDue) {
		return
	}
	e.nextDue = time.Time{}
	for i := e.waits.next(0); i != 0; i = e.waits.next(i) {
		q := &e.queues[i]
		q.due = now.Add(q.interval / 2).After(q.dueAt)
		e.refreshLocked(i)
	}
}

// signalledLocked makes the WAITs runnable that could wait for the value at addr. Spaces and
// translations keep the offset in a page, so that is compared.
func (e *Engine) signalledLocked(addr uint64) {
	for i := e.waits.next(0); i != 0; i = e.waits.next(i) {
		if q := &e.queues[i]; q.waitAddr%pageSize == addr%pageSize {
			q.due = true
			e.refreshLocked(i)
		}
	}
}

// A Status is what the hardware knows of a queue (§4.19).
type Status struct {
	State, Flags, Priority, Weight, Owner uint8
	SQHead, SQTail, CQHead, CQTail        uint16
	SQEntries, CQEntries                  uint16
	Context                               uint16
	Timeout                               uint32
	Executed                              uint64
	Errors, Timeouts                      uint32
	WaitAddr, Want, Found                 uint64        // of the WAIT that waits or was the last to wait
	Sequence                              uint32        // of the command in progress, 0 for none
	Age                                   time.Duration // of a command with a timeout
}

// StatusLocked returns the status of a queue.
func (e *Engine) StatusLocked(index int) Status {
	if !e.valid(index) || e.queues[index].state == npureg.QueueDisabled {
		return Status{}
	}
	q := &e.queues[index]
	s := Status{
		State: e.StateLocked(index), Priority: q.sched.Priority, Weight: max(q.sched.Weight, 1), Owner: uint8(q.cq.owner),
		SQHead: q.sqHead, SQTail: q.sqTail, CQHead: q.cq.head, CQTail: q.cq.tail, SQEntries: q.cfg.SQEntries, CQEntries: q.cq.entries, Context: q.cfg.Context, Timeout: q.sched.Timeout,
		Executed: q.executed, Errors: q.errors, Timeouts: q.timeouts, WaitAddr: q.waitAddr, Want: q.want, Found: q.found,
	}
	if q.waiting {
		s.Flags |= npureg.QueueFlagWaiting
	}
	if e.inFlightLocked(index) {
		s.Flags |= npureg.QueueFlagInFlight
	}
	if q.timedOut {
		s.Flags |= npureg.QueueFlagTimedOut
	}
	if q.sequence != 0 {
		s.Sequence = q.sequence
		if !q.since.IsZero() {
			s.Age = time.Since(q.since)
		}
	}
	return s
}

// FlightLocked returns the queue whose command is in flight, from its fetch until its completion is
// in memory, or 0.
func (e *Engine) FlightLocked() int {
	if e.current == nil || e.current == &e.look {
		return 0
	}
	return e.current.queue
}

// An Overview is what firmware asks of all queues at once (§4.14).
type Overview struct {
	Overdue  int // lowest queue whose command is overdue and was not aborted, or 0
	Current  int // queue of the command that executes, or 0
	Runnable int // queues with a command that executes or could
	Waiting  int // queues in which a WAIT waits, or that one suspended by its timeout
}

// OverviewLocked returns what the queues do.
func (e *Engine) OverviewLocked() (o Overview) {
	for i := 1; i < len(e.queues); i++ {
		q := &e.queues[i]
		switch {
		case q.state != npureg.QueueEnabled:
		case q.waiting, q.timedOut && q.suspended:
			o.Waiting++
		case e.inFlightLocked(i), q.runnable():
			o.Runnable++
		}
		if q.overdue && !q.aborted && o.Overdue == 0 {
			if _, ok := e.deadlineLocked(i); ok {
				o.Overdue = i
			}
		}
		if e.inFlightLocked(i) {
			o.Current = i
		}
	}
	return o
}
