// SPDX-License-Identifier: Apache-2.0

// Package queue is the hardware of the user queues (docs/spec/queues.md): rings,
// doorbells, the schedule (schedule.go), fetch, completions (completions.go), and what
// waits or takes too long (wait.go). It does not know what a command means: an Executor does that.
//
// Ownership: the lock given to New (the board's) guards all state. Methods with
// the suffix Locked are called with it held, from any goroutine. One goroutine,
// Run, takes a command under the lock, fetches and executes it and writes its
// completion without it, and takes it again to publish the result. Nothing is
// held across an access to memory. Between commands the same goroutine looks at shadow
// doorbells (shadow.go), and spins on them for a while before it sleeps. A timer's goroutine,
// alarmed, raises interrupts that were held and tells of commands that are overdue.
//
// Left out: more than one command in flight on the device.
package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"npuemu/dma/iova"
	"npuemu/mmio/npureg"
)

// Config is what firmware programs into a queue (§4.8).
type Config struct {
	SQ, CQ               iova.Addr // first entries of the rings
	SQEntries, CQEntries uint16
	Context, Vector      uint16
	Shadow               iova.Addr // shadow line (§4.11), or 0
	Owner                uint8     // queue whose completion ring and vector it uses (§4.15), or 0
}

// An Entry is a submission entry (§4.2).
type Entry [npureg.SQEntrySize]byte

// ID returns the entry's command_id.
func (e *Entry) ID() uint16 { return binary.LittleEndian.Uint16(e[2:]) }

// A Completion is what the device reports of a command (§4.2).
type Completion struct {
	Status npureg.Status
	Result uint32
	Info   uint64

	Cycles uint32 // model time that the command took, and when it ended (§13.8.3)
	Time   uint64

	Faulted bool // the command's context faulted: all its queues stop (§11.5)

	// Pending says that the command is a WAIT (§4.17) for the value Want at Addr, which is Info so
	// far: it has not completed, and will be executed again.
	Pending bool
	Want    uint64
	// Signalled says that a SIGNAL (§4.18) stored its value at Addr.
	Signalled bool
	Addr      uint64
}

// An Origin is where a command comes from.
type Origin struct {
	Context uint16
	Queue   int
	Index   uint16 // ring entry
}

// A Fault is a failure that has no completion to be reported in (§9.3).
type Fault struct {
	Code   npureg.Status
	Queue  int
	Source uint8     // npureg.FaultDoorbell, FaultFetch, FaultPost
	Index  uint16    // ring entry, or the doorbell value
	Addr   iova.Addr // 0 for doorbells
}

// Bus is the memory that rings lie in. Its methods are called without the lock.
type Bus interface {
	Read(addr iova.Addr, p []byte) error
	Write(addr iova.Addr, p []byte) error
	// Watch returns the shadow line at addr, or nil if it is not in shared memory.
	Watch(addr iova.Addr) *iova.Watch
}

// Executor runs commands. Execute is called without the lock, from one
// goroutine; when ctx is done it returns soon, and its result is not used.
type Executor interface {
	Execute(ctx context.Context, from Origin, e *Entry) Completion
}

// Board is told what happens, with the lock held.
type Board interface {
	CompletedLocked(c *Completion) // a completion is in memory
	InterruptLocked(vector uint16)
	FaultLocked(f Fault)
	ContextFaultLocked()               // the command just executed faulted its context; its queues have stopped
	QueueEventLocked()                 // a queue entered the error state, finished draining or suspending, or its command is overdue (§3.7)
	IdleLocked()                       // what a reset found in flight has ended
	CountLocked(counter int, n uint64) // npureg.Counter…, of what only the engine sees
}

// What cancels the command in flight: its queue is disabled, or firmware says that it takes too long.
var (
	errDestroyed = errors.New("queue: disabled")
	errTimeout   = errors.New("queue: timeout")
)

// Engine is the set of user queues of one device.
type Engine struct {
	mu    sync.Locker
	bus   Bus
	exec  Executor
	board Board

	queues   []ring                        // index 0 is unused; guarded by mu
	classes  [npureg.QueuePriorities]class // guarded by mu
	sequence uint32                        // of the last command that started; guarded by mu
	current  *flight
	wake     chan struct{} // capacity 1: something may be runnable; sent to with mu held

	waits   set       // queues whose WAIT is looked at when its time comes; guarded by mu
	nextDue time.Time // not after the first of these times; guarded by mu
	parked  []Entry   // by queue: the WAIT that it is at; guarded by mu

	held    set         // owners of completion rings that hold completions back; guarded by mu
	alarm   *time.Timer // runs alarmed
	alarmAt time.Time   // when it does, zero if it does not; guarded by mu
	over    bool        // Run has ended; guarded by mu

	look     flight      // of lookLocked; guarded by mu
	looks    set         // queues whose line is awake, or rung; guarded by mu
	lines    []*shadow   // that it looks at; Run's own
	until    time.Time   // lookLocked does not spin for longer, if it is not zero; Run's own
	stopLook atomic.Bool // it shall end soon; set with mu held
	busOff   atomic.Bool // §1.5; set with mu held
	spin     bool        // there is a processor to spin on; Run's own

	// These are Run's. They are here, rather than made for each command, because a
	// command allocates nothing.
	flight     flight
	entry      Entry
	completion Completion
	cqe        [npureg.CQEntrySize]byte
}

// ring is one queue. Guarded by Engine.mu.
type ring struct {
	state          uint8 // npureg.QueueDisabled, Enabled, Draining, Error
	suspended      bool  // if it is enabled; suspending while a command of it is in flight
	cfg            Config
	sched          Schedule
	sqHead, sqTail uint16
	cq             *completions // nil only if the queue is disabled
	shadow         *shadow      // nil without one; never changes while the queue is not disabled

	// The command that executes or waits.
	sequence uint32    // its number; 0 for none
	since    time.Time // it started; zero if nobody wants to know
	overdue  bool      // firmware was told
	aborted  bool      // firmware wants it to end …
	result   uint32    // … with this result if it waits

	// WAIT: the entry is in Engine.parked, and the head does not move.
	waiting               bool
	due                   bool // it is to be looked at
	again                 bool // a doorbell came during the look
	dueAt                 time.Time
	interval              time.Duration
	waitAddr, want, found uint64
	timedOut              bool // the last to wait completed as WAIT_TIMEOUT

	executed         uint64
	errors, timeouts uint32
}

// flight is what Run does with memory: it executes a command, or looks at shadow lines, of no
// one queue. Guarded by Engine.mu.
type flight struct {
	queue  int
	stale  bool                    // a reset came: nothing of it is published
	cancel context.CancelCauseFunc // nil of a look

	// Of a command: what it needs of its queue, which Enable, Disable and Reset may change meanwhile.
	class     int // that it was started in
	context   uint16
	waited    bool      // it is a WAIT that waits already; the entry was fetched
	sq        iova.Addr // first entry of its ring
	index, to uint16    // of its entry, and of the next
	cq        *completions
	shadow    *shadow
}

// New returns an engine with the user queues 1 to count, at most npureg.MaxQueues − 1, all disabled.
func New(mu sync.Locker, count int, bus Bus, exec Executor, board Board) *Engine {
	e := &Engine{mu: mu, bus: bus, exec: exec, board: board,
		queues: make([]ring, count+1), parked: make([]Entry, count+1), wake: make(chan struct{}, 1)}
	e.alarm = time.AfterFunc(time.Hour, e.alarmed)
	e.alarm.Stop()
	return e
}

func (e *Engine) valid(index int) bool { return index >= 1 && index < len(e.queues) }

// StateLocked returns the state of a queue, CP_QUEUE_STATE. A queue that does not
// exist is disabled.
func (e *Engine) StateLocked(index int) uint8 {
	if !e.valid(index) {
		return npureg.QueueDisabled
	}
	q := &e.queues[index]
	switch {
	case q.state != npureg.QueueEnabled || !q.suspended:
		return q.state
	case e.inFlightLocked(index):
		return npureg.QueueSuspending
	}
	return npureg.QueueSuspended
}

// EnableLocked starts a queue with empty rings (§4.8) and the schedule of architecture 1.1. Firmware's
// mistakes (a queue that does not exist, is not disabled, or has rings too small; an owner that is
// disabled or uses another's ring) are ignored.
func (e *Engine) EnableLocked(index int, cfg Config) {
	if !e.valid(index) || e.queues[index].state != npureg.QueueDisabled || cfg.SQEntries < 2 {
		return
	}
	q := ring{state: npureg.QueueEnabled, cfg: cfg}
	switch owner := int(cfg.Owner); {
	case owner != 0:
		if s := e.StateLocked(owner); owner == index || s == npureg.QueueDisabled || s == npureg.QueueDraining || e.queues[owner].cq.owner != owner {
			return
		}
		q.cq = e.queues[owner].cq
	case cfg.CQEntries < 2:
		return
	default:
		q.cq = &completions{owner: index, base: cfg.CQ, entries: cfg.CQEntries, phase: 1, vector: cfg.Vector}
	}
	q.cq.users.put(index, true)
	if cfg.Shadow != 0 {
		q.shadow = &shadow{index: index, addr: cfg.Shadow, patience: minPatience}
	}
	e.queues[index] = q
	e.looks.put(index, false)
	e.refreshLocked(index)
}

// DisableLocked stops a queue. A command in flight is told to stop, and
// completes as ABORTED; until then the queue is draining. A WAIT that waits is dropped.
func (e *Engine) DisableLocked(index int) {
	if !e.valid(index) || e.queues[index].state == npureg.QueueDisabled {
		return
	}
	q := &e.queues[index]
	f := e.current
	switch {
	case f == nil || f.stale:
	case f == &e.look:
		if q.shadow != nil && q.shadow.looked {
			q.state = npureg.QueueDraining
			e.refreshLocked(index)
			e.stopLook.Store(true)
			return
		}
	case f.queue == index:
		q.state = npureg.QueueDraining
		e.refreshLocked(index)
		f.cancel(errDestroyed)
		return
	}
	e.disabledLocked(index)
}

// disabledLocked is the end of a queue.
func (e *Engine) disabledLocked(index int) {
	q := &e.queues[index]
	q.state = npureg.QueueDisabled
	q.cq.users.put(index, false)
	if q.cq.owner == index {
		e.flushLocked(q.cq)
	}
	e.refreshLocked(index)
	e.looks.put(index, false)
	*q = ring{}
	e.board.QueueEventLocked()
}

// ResetLocked disables all queues and tells a command in flight to stop. It
// reports whether there is one; Board.IdleLocked is called when it has ended. Until
// then nothing new starts.
func (e *Engine) ResetLocked() (busy bool) {
	clear(e.queues)
	clear(e.classes[:])
	e.waits, e.held, e.looks, e.nextDue = set{}, set{}, set{}, time.Time{}
	if e.current == nil {
		return false
	}
	e.current.stale = true
	if e.current == &e.look {
		e.stopLook.Store(true)
	} else {
		e.current.cancel(context.Canceled)
	}
	return true
}

// RingSQLocked is a write of v to the SQ_TAIL doorbell of a user queue (§4.3).
func (e *Engine) RingSQLocked(index int, v uint32) { e.ringLocked(index, v, e.tailLocked) }

// RingCQLocked is a write of v to the CQ_HEAD doorbell of a user queue (§4.3).
func (e *Engine) RingCQLocked(index int, v uint32) { e.ringLocked(index, v, e.headLocked) }

// tailLocked moves the SQ_TAIL of an enabled queue.
func (e *Engine) tailLocked(index int, v uint32) {
	q := &e.queues[index]
	n := uint32(q.cfg.SQEntries)
	queued := (uint32(q.sqTail) + n - uint32(q.sqHead)) % n
	if v >= n || (v+n-uint32(q.sqHead))%n < queued { // the tail only moves forward, up to the head
		e.failLocked(index, badDoorbell(index, v))
		return
	}
	q.sqTail = uint16(v)
	e.refreshLocked(index)
	e.kick()
}

// headLocked moves the CQ_HEAD of an enabled queue, which has to have a completion ring of its own.
func (e *Engine) headLocked(index int, v uint32) {
	cq := e.queues[index].cq
	n := uint32(cq.entries)
	used := (uint32(cq.tail) + n - uint32(cq.head)) % n
	if cq.owner != index || v >= n || (v+n-uint32(cq.head))%n > used {
		e.failLocked(index, badDoorbell(index, v))
		return
	}
	full := !cq.room()
	cq.head = uint16(v)
	if full {
		e.roomLocked(cq)
	}
	e.kick()
}

func badDoorbell(index int, v uint32) Fault {
	return Fault{Code: npureg.StatusInvalidDoorbell, Queue: index, Source: npureg.FaultDoorbell, Index: uint16(min(v, 0xffff))}
}

// ringLocked is a write to a doorbell, which move obeys. Without an enabled queue the
// write is ignored; one to a disabled queue leaves a fault record (§9.2).
func (e *Engine) ringLocked(index int, v uint32, move func(index int, v uint32)) {
	if e.StateLocked(index) == npureg.QueueDisabled {
		e.board.FaultLocked(Fault{Code: npureg.StatusQueueDisabled, Queue: index, Source: npureg.FaultDoorbell, Index: uint16(min(v, 0xffff))})
		return
	}
	switch q := &e.queues[index]; {
	case q.state != npureg.QueueEnabled:
	case q.shadow != nil:
		e.ringShadowLocked(q.shadow)
	default:
		move(index, v)
	}
	e.rungLocked(index)
}

// rungLocked has a WAIT looked at, because software says that something happened.
func (e *Engine) rungLocked(index int) {
	if q := &e.queues[index]; q.waiting {
		q.again = e.inFlightLocked(index)
		q.due = !q.again
		e.refreshLocked(index)
		e.kick()
	}
}

// failLocked puts a queue into the error state, and with an owner all that use its completion ring.
func (e *Engine) failLocked(index int, f Fault) {
	if cq := e.queues[index].cq; cq.owner == index {
		e.failRingLocked(cq, f)
		return
	}
	e.stopLocked(index)
	e.board.FaultLocked(f)
	e.board.QueueEventLocked()
}

// failRingLocked puts all queues of a completion ring into the error state.
func (e *Engine) failRingLocked(cq *completions, f Fault) {
	for i := cq.users.next(0); i != 0; i = cq.users.next(i) {
		e.stopLocked(i)
	}
	e.board.FaultLocked(f)
	e.board.QueueEventLocked()
}

// StopContextLocked puts the enabled queues of a context into the error state (§11.5).
func (e *Engine) StopContextLocked(context uint16) {
	for i := range e.queues {
		if e.queues[i].cfg.Context == context {
			e.stopLocked(i)
		}
	}
	e.board.QueueEventLocked()
}

func (e *Engine) stopLocked(index int) {
	if q := &e.queues[index]; q.state == npureg.QueueEnabled {
		q.state = npureg.QueueError
		e.looks.put(index, false)
		e.refreshLocked(index)
	}
}

func (e *Engine) kick() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Run executes commands until ctx is done. It is called once.
func (e *Engine) Run(ctx context.Context) {
	e.spin = runtime.GOMAXPROCS(0) > 1 && runtime.NumCPU() > 1
	// A command gets the context of the one before unless that one was cancelled.
	cmd, cancel := context.WithCancelCause(ctx)
	defer func() { cancel(nil) }()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.over = true
		e.alarm.Stop()
	}()
	poll := time.NewTimer(time.Hour)
	defer poll.Stop()
	for {
		e.mu.Lock()
		awake := e.lookLocked(ctx, false)
		e.dueLocked()
		index := e.pickLocked()
		for index == 0 && awake && ctx.Err() == nil {
			awake = e.lookLocked(ctx, true)
			e.dueLocked()
			index = e.pickLocked()
		}
		if index == 0 {
			var due <-chan time.Time
			if !e.nextDue.IsZero() {
				poll.Reset(time.Until(e.nextDue))
				due = poll.C
			}
			e.mu.Unlock()
			select {
			case <-ctx.Done():
				return
			case <-e.wake:
			case <-due:
			}
			continue
		}
		if cmd.Err() != nil {
			cmd, cancel = context.WithCancelCause(ctx)
		}
		e.startLocked(index, cancel)
		e.mu.Unlock()

		if e.run(cmd, &e.flight) && e.flight.shadow != nil {
			e.flight.shadow.active = time.Now()
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// startLocked takes a command of a queue, or the WAIT that it is at, into flight.
func (e *Engine) startLocked(index int, cancel context.CancelCauseFunc) {
	q := &e.queues[index]
	e.flight = flight{
		queue: index, cancel: cancel, class: int(q.sched.Priority), context: q.cfg.Context, waited: q.waiting,
		sq: q.cfg.SQ, index: q.sqHead, to: (q.sqHead + 1) % q.cfg.SQEntries, cq: q.cq, shadow: q.shadow,
	}
	e.current = &e.flight
	if q.waiting {
		q.due, q.again = false, false
		e.entry = e.parked[index]
		return
	}
	if e.sequence++; e.sequence == 0 {
		e.sequence = 1
	}
	q.sequence, q.overdue, q.aborted, q.since = e.sequence, false, false, time.Time{}
	if q.sched.Timeout != 0 {
		e.beginLocked(index)
	}
}

// run executes the command in flight. It reports whether it did not just wait.
func (e *Engine) run(ctx context.Context, f *flight) bool {
	if at := f.sq + iova.Addr(f.index)*npureg.SQEntrySize; !f.waited {
		if err := e.bus.Read(at, e.entry[:]); err != nil {
			e.end(f, func() {
				e.failLocked(f.queue, Fault{Code: npureg.StatusBusFault, Queue: f.queue, Source: npureg.FaultFetch, Index: f.index, Addr: at})
			})
			return true
		}
	}
	c := &e.completion
	*c = e.exec.Execute(ctx, Origin{Context: f.context, Queue: f.queue, Index: f.index}, &e.entry)

	// The indices move before the entry is written: software may answer it with
	// CQ_HEAD at once.
	e.mu.Lock()
	verdict := e.judgeLocked(f, context.Cause(ctx), c)
	tail, phase := f.cq.tail, f.cq.phase
	if verdict == completes {
		q := &e.queues[f.queue]
		q.sqHead, q.waiting = f.to, false
		f.cq.advance()
		if !f.cq.room() {
			e.fullLocked(f.cq)
		}
		if c.Faulted { // before the entry is written: who reads it finds the record
			e.StopContextLocked(q.cfg.Context)
			e.board.ContextFaultLocked()
		}
	}
	e.mu.Unlock()
	if verdict != completes {
		e.end(f, nil)
		return verdict != waits
	}
	at := f.cq.base + iova.Addr(tail)*npureg.CQEntrySize
	if err := e.post(at, f.queue, f.to, phase, e.entry.ID(), c); err != nil {
		e.end(f, func() {
			e.failRingLocked(f.cq, Fault{Code: npureg.StatusBusFault, Queue: f.queue, Source: npureg.FaultPost, Index: tail, Addr: at})
		})
		return true
	}
	e.end(f, func() { e.publishLocked(f, c) })
	return true
}

// A verdict is what becomes of a command that was executed.
type verdict uint8

const (
	completes verdict = iota
	waits             // it is a WAIT, and will be looked at again
	vanishes          // a reset came, Run ends, or the queue is disabled and it only waited
)

// judgeLocked decides what becomes of a command that gave c, and writes c anew if that is not what is
// reported. cause is that of its context.
func (e *Engine) judgeLocked(f *flight, cause error, c *Completion) verdict {
	destroyed, timeout := errors.Is(cause, errDestroyed), errors.Is(cause, errTimeout)
	if f.stale || cause != nil && !destroyed && !timeout {
		return vanishes
	}
	q := &e.queues[f.queue]
	switch {
	case q.state == npureg.QueueDraining && (f.waited || c.Pending):
		return vanishes
	case destroyed:
		*c = Completion{Status: npureg.StatusAborted}
	case timeout:
		*c = Completion{Status: npureg.StatusTimeout, Info: uint64(time.Since(q.since).Microseconds())}
	case c.Pending && q.aborted:
		q.found = c.Info
		*c = Completion{Status: npureg.StatusWaitTimeout, Result: q.result, Info: c.Info, Addr: c.Addr, Want: c.Want}
	case c.Pending:
		e.chargeLocked(f.queue, f.class, true)
		e.parkLocked(f.queue, c)
		return waits
	}
	e.chargeLocked(f.queue, f.class, false)
	return completes
}

// fullLocked is called when there is no room in a completion ring any more. The line of its
// owner may sleep with a RING that asks for no doorbell for CQ_HEAD; it is looked at, and sleeps
// with another.
func (e *Engine) fullLocked(cq *completions) {
	e.roomLocked(cq)
	if s := e.queues[cq.owner].shadow; s != nil {
		s.awake = true
		e.looks.put(cq.owner, true)
	}
}

// publishLocked tells of a completion that is in memory.
func (e *Engine) publishLocked(f *flight, c *Completion) {
	q := &e.queues[f.queue]
	q.executed++
	if c.Status != npureg.StatusSuccess {
		q.errors++
	}
	if c.Status == npureg.StatusTimeout || c.Status == npureg.StatusWaitTimeout {
		q.timeouts++
		q.suspended = true // software has a look before anything else of the queue happens
		q.timedOut = c.Status == npureg.StatusWaitTimeout
		e.board.CountLocked(npureg.CounterQueueTimeouts, 1)
	}
	if c.Signalled {
		e.signalledLocked(c.Addr)
	}
	e.completedLocked(f.cq, c.Status != npureg.StatusSuccess)
	e.board.CompletedLocked(c)
}

// end takes the command out of flight. publish, if not nil, is called with the lock
// held unless a reset came.
func (e *Engine) end(f *flight, publish func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.current = nil
	if f.stale {
		e.board.IdleLocked()
		return
	}
	if publish != nil {
		publish()
	}
	q := &e.queues[f.queue]
	if !q.waiting {
		q.sequence = 0
	}
	switch {
	case q.state == npureg.QueueDraining:
		e.disabledLocked(f.queue)
		return
	case q.suspended:
		e.board.QueueEventLocked()
	}
	e.refreshLocked(f.queue)
}
