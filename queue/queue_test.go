// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npuemu/dma/iova"
	"npuemu/mmio/npureg"
)

const (
	sqBase = 0x1000
	cqBase = 0x8000
	nSQ    = 4
	nCQ    = 4
)

// rig is an engine on fake memory, with an executor that the test steers.
type rig struct {
	t  *testing.T
	mu sync.Mutex
	e  *Engine

	memMu sync.Mutex
	mem   map[iova.Addr][]byte // by first address of each write
	bad   map[iova.Addr]bool   // accesses to these addresses fail

	lines   iova.Table // of memory with shadow lines, at lineAt and above
	shadows atomic.Int64
	faulted atomic.Int64
	from    atomic.Pointer[Origin] // of the last command

	posted func() // called after the last half-word of a completion was written

	started chan uint16 // command ids, when they start
	release chan struct{}
	hold    bool

	completed chan uint16 // vectors
	faults    chan Fault
	events    chan struct{}
	idle      chan struct{}
	stop      func() // ends Run
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, mem: map[iova.Addr][]byte{}, bad: map[iova.Addr]bool{},
		started: make(chan uint16, 64), release: make(chan struct{}), completed: make(chan uint16, 64),
		faults: make(chan Fault, 64), events: make(chan struct{}, 64), idle: make(chan struct{}, 64)}
	r.e = New(&r.mu, 3, r, r, r)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.e.Run(ctx) }()
	r.stop = func() { cancel(); <-done }
	t.Cleanup(r.stop)
	return r
}

func (r *rig) Read(addr iova.Addr, p []byte) error {
	if addr >= lineAt {
		return r.lines.Read(addr, p)
	}
	r.memMu.Lock()
	defer r.memMu.Unlock()
	if r.bad[addr] {
		return errors.New("not mapped")
	}
	copy(p, r.mem[addr])
	return nil
}

func (r *rig) Write(addr iova.Addr, p []byte) error {
	if addr >= lineAt {
		return r.lines.Write(addr, p)
	}
	r.memMu.Lock()
	defer r.memMu.Unlock()
	if r.bad[addr] {
		return errors.New("not mapped")
	}
	r.mem[addr] = append([]byte(nil), p...)
	if r.posted != nil && len(p) == 2 {
		r.posted()
	}
	return nil
}

func (r *rig) Watch(addr iova.Addr) *iova.Watch { return r.lines.Watch(addr, npureg.ShadowSize) }

func (r *rig) Execute(ctx context.Context, from Origin, e *Entry) Completion {
	r.from.Store(&from)
	r.started <- e.ID()
	if r.hold {
		select {
		case <-ctx.Done():
		case <-r.release:
		}
	}
	return Completion{Result: uint32(e.ID()) * 3, Info: uint64(e.ID()) * 5, Faulted: e.ID() >= faulting}
}

func (r *rig) CompletedLocked(*Completion)   {}
func (r *rig) InterruptLocked(vector uint16) { r.completed <- vector }
func (r *rig) FaultLocked(f Fault)           { r.faults <- f }
func (r *rig) ContextFaultLocked()           { r.faulted.Add(1) }
func (r *rig) QueueEventLocked()             { r.events <- struct{}{} }
func (r *rig) CountLocked(counter int, n uint64) {
	if counter == npureg.CounterShadow {
		r.shadows.Add(int64(n))
	}
}
func (r *rig) IdleLocked() { r.idle <- struct{}{} }

func (r *rig) locked(f func()) { r.mu.Lock(); defer r.mu.Unlock(); f() }

func (r *rig) enable(index int) {
	off := iova.Addr(index) << 16
	r.locked(func() {
		r.e.EnableLocked(index, Config{SQ: sqBase + off, CQ: cqBase + off, SQEntries: nSQ, CQEntries: nCQ, Vector: uint16(index)})
	})
}

// put writes the entry with id into slot i of a queue's submission ring.
func (r *rig) put(index, i int, id uint16) {
	b := make([]byte, npureg.SQEntrySize)
	binary.LittleEndian.PutUint16(b[2:], id)
	_ = r.Write(iova.Addr(index)<<16+sqBase+iova.Addr(i)*npureg.SQEntrySize, b)
}

type cqe struct {
	Result          uint32
	Info            uint64
	Head, Queue, ID uint16
	Status          npureg.Status
	Phase           uint16
}

func (r *rig) cqe(index, i int) cqe {
	r.memMu.Lock()
	defer r.memMu.Unlock()
	at := iova.Addr(index)<<16 + cqBase + iova.Addr(i)*npureg.CQEntrySize
	b, last := r.mem[at], r.mem[at+0x1e]
	if b == nil || last == nil {
		return cqe{}
	}
	s := binary.LittleEndian.Uint16(last)
	return cqe{Result: binary.LittleEndian.Uint32(b), Info: binary.LittleEndian.Uint64(b[8:]), Head: binary.LittleEndian.Uint16(b[0x18:]),
		Queue: binary.LittleEndian.Uint16(b[0x1a:]), ID: binary.LittleEndian.Uint16(b[0x1c:]), Status: npureg.Status(s >> 1), Phase: s & 1}
}

func (r *rig) sq(index int, v uint32) { r.locked(func() { r.e.RingSQLocked(index, v) }) }
func (r *rig) cq(index int, v uint32) { r.locked(func() { r.e.RingCQLocked(index, v) }) }

func (r *rig) state(index int) (s uint8) {
	r.locked(func() { s = r.e.StateLocked(index) })
	return s
}

func take[T any](t *testing.T, c chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

func quiet[T any](t *testing.T, c chan T, what string) {
	t.Helper()
	select {
	case v := <-c:
		t.Fatalf("%s: %v", what, v)
	case <-time.After(20 * time.Millisecond):
	}
}

func TestCompletionsWrapAndChangePhase(t *testing.T) {
	r := newRig(t)
	r.enable(1)
	for i := range 10 {
		id := uint16(100 + i)
		r.put(1, i%nSQ, id)
		r.sq(1, uint32((i+1)%nSQ))
		if v := take(t, r.completed, "completion"); v != 1 {
			t.Errorf("vector %d, want 1", v)
		}
		want := cqe{Result: uint32(id) * 3, Info: uint64(id) * 5, Head: uint16((i + 1) % nSQ), Queue: 1, ID: id, Phase: uint16(1 - i/nCQ%2)}
		if diff := cmp.Diff(want, r.cqe(1, i%nCQ)); diff != "" {
			t.Fatalf("completion %d (-want +got):\n%s", i, diff)
		}
		r.cq(1, uint32((i+1)%nCQ))
	}
}

func TestFullCompletionRingStops(t *testing.T) {
	r := newRig(t)
	r.enable(1)
	// Three commands fill a ring of four; a fourth must wait for CQ_HEAD.
	for i := range 3 {
		r.put(1, i, uint16(i))
	}
	r.sq(1, 3)
	for range 3 {
		take(t, r.completed, "completion")
	}
	r.put(1, 3, 3)
	r.sq(1, 0)
	<-r.started
	<-r.started
	<-r.started
	quiet(t, r.started, "a command started without room for its completion")
	r.cq(1, 1)
	take(t, r.completed, "completion after CQ_HEAD moved")
}

// TestHeadMayMoveBeforeTheInterrupt answers a completion as soon as it is in
// memory, as a polling driver does.
func TestHeadMayMoveBeforeTheInterrupt(t *testing.T) {
	r := newRig(t)
	r.posted = func() { r.cq(1, 1) }
	r.enable(1)
	r.put(1, 0, 1)
	r.sq(1, 1)
	take(t, r.completed, "completion")
	if s := r.state(1); s != npureg.QueueEnabled {
		t.Errorf("state %d, want enabled", s)
	}
}

func TestRoundRobin(t *testing.T) {
	r := newRig(t)
	r.hold = true
	for q := 1; q <= 3; q++ {
		r.enable(q)
		for i := range 2 {
			r.put(q, i, uint16(q*10+i))
		}
	}
	r.put(1, 2, 12)
	r.sq(1, 3)
	var got []uint16
	got = append(got, take(t, r.started, "start"))
	r.sq(2, 2)
	r.sq(3, 2)
	for range 6 {
		r.release <- struct{}{}
		got = append(got, take(t, r.started, "start"))
	}
	close(r.release)
	if diff := cmp.Diff([]uint16{10, 20, 30, 11, 21, 31, 12}, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestDoorbellMistakes(t *testing.T) {
	tests := []struct {
		name  string
		ring  func(r *rig)
		want  Fault
		state uint8
	}{
		{"tail outside the ring", func(r *rig) { r.sq(1, nSQ) },
			Fault{Code: npureg.StatusInvalidDoorbell, Queue: 1, Index: nSQ}, npureg.QueueError},
		{"tail that does not fit 16 bits", func(r *rig) { r.sq(1, 0xdeadbeef) },
			Fault{Code: npureg.StatusInvalidDoorbell, Queue: 1, Index: 0xffff}, npureg.QueueError},
		{"tail that moves back", func(r *rig) {
			r.hold = true // of queue 3: queue 1 waits for its turn
			r.enable(3)
			r.sq(3, 1)
			take(r.t, r.started, "start")
			r.sq(1, 2)
			r.sq(1, 2) // the same again says nothing new
			r.sq(1, 1)
			close(r.release)
		}, Fault{Code: npureg.StatusInvalidDoorbell, Queue: 1, Index: 1}, npureg.QueueError},
		{"head outside the ring", func(r *rig) { r.cq(1, nCQ) },
			Fault{Code: npureg.StatusInvalidDoorbell, Queue: 1, Index: nCQ}, npureg.QueueError},
		{"head past the tail", func(r *rig) { r.cq(1, 1) },
			Fault{Code: npureg.StatusInvalidDoorbell, Queue: 1, Index: 1}, npureg.QueueError},
		{"queue that is disabled", func(r *rig) { r.sq(2, 1) },
			Fault{Code: npureg.StatusQueueDisabled, Queue: 2, Index: 1}, npureg.QueueEnabled},
		{"queue that does not exist", func(r *rig) { r.sq(99, 1) },
			Fault{Code: npureg.StatusQueueDisabled, Queue: 99, Index: 1}, npureg.QueueEnabled},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.enable(1)
			tt.ring(r)
			if diff := cmp.Diff(tt.want, take(t, r.faults, "fault")); diff != "" {
				t.Errorf("fault (-want +got):\n%s", diff)
			}
			if s := r.state(1); s != tt.state {
				t.Errorf("queue 1 in state %d, want %d", s, tt.state)
			}
			// Another queue works, and the one in error comes back.
			r.locked(func() { r.e.DisableLocked(1) })
			r.enable(1)
			r.put(1, 0, 7)
			r.sq(1, 1)
			take(t, r.completed, "completion after the mistake")
		})
	}
}

func TestRingFaults(t *testing.T) {
	tests := []struct {
		name string
		bad  iova.Addr
		want Fault
	}{
		{"submission ring not mapped", 1<<16 + sqBase, Fault{Code: npureg.StatusBusFault, Queue: 1, Source: npureg.FaultFetch, Addr: 1<<16 + sqBase}},
		{"completion ring not mapped", 1<<16 + cqBase, Fault{Code: npureg.StatusBusFault, Queue: 1, Source: npureg.FaultPost, Addr: 1<<16 + cqBase}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.bad[tt.bad] = true
			r.enable(1)
			r.enable(2)
			r.put(1, 0, 1)
			r.put(2, 0, 2)
			r.sq(1, 1)
			if diff := cmp.Diff(tt.want, take(t, r.faults, "fault")); diff != "" {
				t.Errorf("fault (-want +got):\n%s", diff)
			}
			take(t, r.events, "event for firmware")
			if s := r.state(1); s != npureg.QueueError {
				t.Errorf("state %d, want error", s)
			}
			r.sq(2, 1)
			if v := take(t, r.completed, "completion of the other queue"); v != 2 {
				t.Errorf("vector %d, want 2", v)
			}
		})
	}
}

func TestDisableAbortsTheCommandInFlight(t *testing.T) {
	r := newRig(t)
	r.hold = true
	r.enable(1)
	r.put(1, 0, 1)
	r.put(1, 1, 2)
	r.sq(1, 2)
	take(t, r.started, "start")
	r.locked(func() {
		r.e.DisableLocked(1)
		if s := r.e.StateLocked(1); s != npureg.QueueDraining {
			t.Errorf("state %d, want draining", s)
		}
		r.e.RingSQLocked(1, 0xffff) // ignored, like any doorbell while it drains
		r.e.RingCQLocked(1, 0xffff)
	})
	take(t, r.events, "event when drained")
	quiet(t, r.faults, "a fault record for a queue that drains")
	if got := r.cqe(1, 0); got.Status != npureg.StatusAborted || got.ID != 1 {
		t.Errorf("completion %+v, want ABORTED of command 1", got)
	}
	if s := r.state(1); s != npureg.QueueDisabled {
		t.Errorf("state %d, want disabled", s)
	}
	quiet(t, r.started, "a command of a disabled queue started")
}

// TestEndOfRunPublishesNothing switches the device off while a command runs.
func TestEndOfRunPublishesNothing(t *testing.T) {
	r := newRig(t)
	r.hold = true
	r.enable(1)
	r.put(1, 0, 7)
	r.sq(1, 1)
	take(t, r.started, "start")
	r.stop()
	if c := r.cqe(1, 0); c != (cqe{}) || len(r.completed) != 0 {
		t.Errorf("completion %+v of a command that did not complete", c)
	}
}

func TestResetPublishesNothing(t *testing.T) {
	r := newRig(t)
	r.hold = true
	r.enable(1)
	r.put(1, 0, 1)
	r.sq(1, 1)
	take(t, r.started, "start")
	r.locked(func() {
		if !r.e.ResetLocked() {
			t.Error("reset found nothing in flight")
		}
	})
	take(t, r.idle, "idle")
	quiet(t, r.completed, "completion after reset")
	if got := r.cqe(1, 0); got != (cqe{}) {
		t.Errorf("completion %+v was written after reset", got)
	}
	r.locked(func() {
		if r.e.ResetLocked() {
			t.Error("second reset found something in flight")
		}
	})
}

func TestFirmwareMistakesAreIgnored(t *testing.T) {
	r := newRig(t)
	r.locked(func() {
		r.e.EnableLocked(0, Config{SQEntries: 4, CQEntries: 4})
		r.e.EnableLocked(9, Config{SQEntries: 4, CQEntries: 4})
		r.e.EnableLocked(1, Config{SQEntries: 1, CQEntries: 4})
		r.e.DisableLocked(0)
		r.e.DisableLocked(9)
		r.e.DisableLocked(1)
		for i := range 10 {
			if s := r.e.StateLocked(i); s != npureg.QueueDisabled {
				t.Errorf("queue %d in state %d", i, s)
			}
		}
	})
}
