// SPDX-License-Identifier: Apache-2.0

// Package queue is the hardware of the user queues (docs/spec/queues.md): rings,
// doorbells, round-robin arbitration, fetch, and completions. It does not know
// what a command means: an Executor does that.
//
// Ownership: the lock given to New (the board's) guards all state. Methods with
// the suffix Locked are called with it held, from any goroutine. One goroutine,
// Run, takes a command under the lock, fetches and executes it and writes its
// completion without it, and takes it again to publish the result. Nothing is
// held across an access to memory. Between commands the same goroutine looks at shadow
// doorbells (shadow.go), and spins on them for a while before it sleeps.
//
// Left out of architecture 1.1: priorities, weights, interrupt coalescing and more
// than one command in flight on the device.
package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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
	Execute(ctx context.Context, context uint16, e *Entry) Completion
}

// Board is told what happens, with the lock held.
type Board interface {
	CompletedLocked(vector uint16, c Completion) // a completion is in memory
	FaultLocked(f Fault)
	QueueEventLocked() // a queue entered the error state or finished draining (§3.7)
	IdleLocked()       // what a reset found in flight has ended
	ShadowLocked()     // an SQ_TAIL or CQ_HEAD was taken from a shadow line
}

// errDestroyed cancels the command in flight when its queue is disabled.
var errDestroyed = errors.New("queue: disabled")

// Engine is the set of user queues of one device.
type Engine struct {
	mu    sync.Locker
	bus   Bus
	exec  Executor
	board Board

	queues  []ring // index 0 is unused; guarded by mu
	next    int    // where arbitration goes on; guarded by mu
	current *flight
	wake    chan struct{} // capacity 1: something may be runnable; sent to with mu held

	look     flight      // of lookLocked; guarded by mu
	lines    []*shadow   // that it looks at; Run's own
	stopLook atomic.Bool // it shall end soon; set with mu held
	busOff   atomic.Bool // §1.5; set with mu held
	spin     bool        // there is a processor to spin on; Run's own

	// These are Run's. They are here, rather than made for each command, because a
	// command allocates nothing.
	flight flight
	entry  Entry
	cqe    [npureg.CQEntrySize]byte
}

// ring is one queue. Guarded by Engine.mu.
type ring struct {
	state          uint8 // npureg.QueueDisabled …
	cfg            Config
	sqHead, sqTail uint16
	cqHead, cqTail uint16
	phase          uint16
	shadow         *shadow // nil without one; never changes while the queue is not disabled
}

// room reports whether there is room for a completion.
func (q *ring) room() bool { return (q.cqTail+1)%q.cfg.CQEntries != q.cqHead }

// flight is what Run does with memory: it executes a command, or looks at shadow lines, of no
// one queue. Guarded by Engine.mu.
type flight struct {
	queue  int
	stale  bool                    // a reset came: nothing of it is published
	cancel context.CancelCauseFunc // nil of a look
}

// New returns an engine with the user queues 1 to count, all disabled.
func New(mu sync.Locker, count int, bus Bus, exec Executor, board Board) *Engine {
	return &Engine{mu: mu, bus: bus, exec: exec, board: board,
		queues: make([]ring, count+1), next: 1, wake: make(chan struct{}, 1)}
}

// Executing returns the queue whose command runs. Only Executor.Execute may ask.
func (e *Engine) Executing() int { return e.flight.queue }

func (e *Engine) valid(index int) bool { return index >= 1 && index < len(e.queues) }

// StateLocked returns the state of a queue, CP_QUEUE_STATE. A queue that does not
// exist is disabled.
func (e *Engine) StateLocked(index int) uint8 {
	if !e.valid(index) {
		return npureg.QueueDisabled
	}
	return e.queues[index].state
}

// EnableLocked starts a queue with empty rings (§4.8). Firmware's mistakes
// (a queue that does not exist, is not disabled, or has rings too small) are ignored.
func (e *Engine) EnableLocked(index int, cfg Config) {
	if !e.valid(index) || e.queues[index].state != npureg.QueueDisabled || cfg.SQEntries < 2 || cfg.CQEntries < 2 {
		return
	}
	q := ring{state: npureg.QueueEnabled, cfg: cfg, phase: 1}
	if cfg.Shadow != 0 {
		q.shadow = &shadow{index: index, addr: cfg.Shadow, patience: minPatience}
	}
	e.queues[index] = q
}

// DisableLocked stops a queue. A command in flight is told to stop, and
// completes as ABORTED; until then the queue is draining.
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
			e.stopLook.Store(true)
			return
		}
	case f.queue == index:
		q.state = npureg.QueueDraining
		f.cancel(errDestroyed)
		return
	}
	q.state = npureg.QueueDisabled
	e.board.QueueEventLocked()
}

// ResetLocked disables all queues and tells a command in flight to stop. It
// reports whether there is one; Board.IdleLocked is called when it has ended. Until
// then nothing new starts.
func (e *Engine) ResetLocked() (busy bool) {
	clear(e.queues)
	e.next = 1
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
		e.failLocked(index, Fault{Code: npureg.StatusInvalidDoorbell, Queue: index, Source: npureg.FaultDoorbell, Index: uint16(min(v, 0xffff))})
		return
	}
	q.sqTail = uint16(v)
	e.kick()
}

// headLocked moves the CQ_HEAD of an enabled queue.
func (e *Engine) headLocked(index int, v uint32) {
	q := &e.queues[index]
	n := uint32(q.cfg.CQEntries)
	used := (uint32(q.cqTail) + n - uint32(q.cqHead)) % n
	if v >= n || (v+n-uint32(q.cqHead))%n > used {
		e.failLocked(index, Fault{Code: npureg.StatusInvalidDoorbell, Queue: index, Source: npureg.FaultDoorbell, Index: uint16(min(v, 0xffff))})
		return
	}
	q.cqHead = uint16(v)
	e.kick()
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
}

// failLocked puts a queue into the error state.
func (e *Engine) failLocked(index int, f Fault) {
	q := &e.queues[index]
	if q.state == npureg.QueueEnabled {
		q.state = npureg.QueueError
	}
	e.board.FaultLocked(f)
	e.board.QueueEventLocked()
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
	for {
		e.mu.Lock()
		awake := e.lookLocked(ctx, false)
		index := e.pickLocked()
		for index == 0 && awake && ctx.Err() == nil {
			awake = e.lookLocked(ctx, true)
			index = e.pickLocked()
		}
		if index == 0 {
			e.mu.Unlock()
			select {
			case <-ctx.Done():
				return
			case <-e.wake:
			}
			continue
		}
		q := e.queues[index]
		if cmd.Err() != nil {
			cmd, cancel = context.WithCancelCause(ctx)
		}
		e.flight = flight{queue: index, cancel: cancel}
		e.current = &e.flight
		e.mu.Unlock()

		e.run(cmd, &e.flight, q)
		if q.shadow != nil {
			q.shadow.active = time.Now()
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// pickLocked returns the next queue that has work and room for a completion, or 0.
func (e *Engine) pickLocked() int {
	n := len(e.queues) - 1
	for i := range n {
		index := (e.next-1+i)%n + 1
		q := &e.queues[index]
		if q.state == npureg.QueueEnabled && q.sqHead != q.sqTail && q.room() {
			e.next = index%n + 1
			return index
		}
	}
	return 0
}

// run executes the entry at q's head. q is a copy: Enable, Disable and Reset may
// change the queue meanwhile.
func (e *Engine) run(ctx context.Context, f *flight, q ring) {
	at := q.cfg.SQ + iova.Addr(q.sqHead)*npureg.SQEntrySize
	if err := e.bus.Read(at, e.entry[:]); err != nil {
		e.end(f, func() {
			e.failLocked(f.queue, Fault{Code: npureg.StatusBusFault, Queue: f.queue, Source: npureg.FaultFetch, Index: q.sqHead, Addr: at})
		})
		return
	}
	head := (q.sqHead + 1) % q.cfg.SQEntries
	c := e.exec.Execute(ctx, q.cfg.Context, &e.entry)

	// The indices move before the entry is written: software may answer it with
	// CQ_HEAD at once.
	e.mu.Lock()
	aborted := errors.Is(context.Cause(ctx), errDestroyed)
	stale := f.stale || ctx.Err() != nil && !aborted // a reset, or Run ends
	if !stale {
		live := &e.queues[f.queue]
		live.sqHead = head
		if live.cqTail++; live.cqTail == live.cfg.CQEntries {
			live.cqTail = 0
			live.phase ^= 1
		}
	}
	e.mu.Unlock()
	if stale {
		e.end(f, nil)
		return
	}
	if aborted {
		c = Completion{Status: npureg.StatusAborted}
	}
	at = q.cfg.CQ + iova.Addr(q.cqTail)*npureg.CQEntrySize
	if err := e.post(at, f.queue, head, q.phase, e.entry.ID(), c); err != nil {
		e.end(f, func() {
			e.failLocked(f.queue, Fault{Code: npureg.StatusBusFault, Queue: f.queue, Source: npureg.FaultPost, Index: q.cqTail, Addr: at})
		})
		return
	}
	e.end(f, func() { e.board.CompletedLocked(q.cfg.Vector, c) })
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
	if q := &e.queues[f.queue]; q.state == npureg.QueueDraining {
		q.state = npureg.QueueDisabled
		e.board.QueueEventLocked()
	}
}

// post writes a completion entry, the half-word with the phase last (§7.5).
func (e *Engine) post(at iova.Addr, index int, head, phase, id uint16, c Completion) error {
	b := &e.cqe
	*b = [npureg.CQEntrySize]byte{}
	binary.LittleEndian.PutUint32(b[0x00:], c.Result)
	binary.LittleEndian.PutUint64(b[0x08:], c.Info)
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
