// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npuemu/dma/iova"
	"npuemu/mmio/npureg"
)

// bench is an engine whose memory is entries and timelines, and nothing else: what a test looks at is the
// order of things. Its commands: opcode 0 does nothing, waitOp waits until timeline[1] ≥ the
// byte at 8, signalOp stores it, hangOp lasts until it is told to stop.
type bench struct {
	mu       sync.Mutex
	e        *Engine
	entries  func(queue int, index uint16) Entry // nil: all do nothing
	timeline [4]uint64                           // guarded by mu, as Execute takes it
	looks    int                                 // executions, also of those that wait; guarded by mu

	done   []int        // queues, in the order of completions; guarded by mu
	status []Completion // guarded by mu
	irqs   []time.Time  // guarded by mu
	faults []Fault      // guarded by mu
	events chan struct{}
	counts [npureg.CounterCount]uint64 // guarded by mu
	last   int                         // queue of the last completion
	failAt iova.Addr                   // writes there fail; not 0
	during func()                      // called when a WAIT was looked at, while it is in flight
}

const (
	waitOp   = 1
	signalOp = 2
	hangOp   = 3

	benchEntries = 4096
)

// An SQ entry's address says whose it is.
func benchSQ(index int) iova.Addr { return iova.Addr(index) << 32 }

func newBench(count int) *bench {
	b := &bench{events: make(chan struct{}, 4096)}
	b.e = New(&b.mu, count, b, b, b)
	return b
}

func (b *bench) Read(addr iova.Addr, p []byte) error {
	if b.entries != nil {
		e := b.entries(int(addr>>32), uint16(addr%(1<<32)/npureg.SQEntrySize))
		copy(p, e[:])
	}
	return nil
}

func (b *bench) Write(addr iova.Addr, p []byte) error {
	if b.failAt != 0 && addr == b.failAt {
		return errTruncated
	}
	if len(p) != 2 {
		b.last = int(binary.LittleEndian.Uint16(p[0x1a:]))
	}
	return nil
}
func (b *bench) Watch(iova.Addr) *iova.Watch { return nil }

func (b *bench) Execute(ctx context.Context, _ Origin, e *Entry) Completion {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.looks++
	t, v := e[1], uint64(e[8])
	switch e[0] {
	case waitOp:
		if b.during != nil {
			defer b.during()
		}
		return Completion{Pending: b.timeline[t] < v, Addr: uint64(t) * 8, Want: v, Info: b.timeline[t]}
	case signalOp:
		b.timeline[t] = max(b.timeline[t], v)
		return Completion{Signalled: true, Addr: uint64(t) * 8}
	case hangOp:
		b.mu.Unlock()
		<-ctx.Done()
		b.mu.Lock()
	}
	return Completion{}
}

func (b *bench) CompletedLocked(c *Completion) {
	b.done = append(b.done, b.last)
	b.status = append(b.status, *c)
}
func (b *bench) InterruptLocked(uint16)            { b.irqs = append(b.irqs, time.Now()) }
func (b *bench) FaultLocked(f Fault)               { b.faults = append(b.faults, f) }
func (b *bench) ContextFaultLocked()               {}
func (b *bench) QueueEventLocked()                 { b.events <- struct{}{} }
func (b *bench) IdleLocked()                       {}
func (b *bench) CountLocked(counter int, n uint64) { b.counts[counter] += n }

// create enables a queue with a ring of its own and submits n commands.
func (b *bench) create(index int, s Schedule, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.e.EnableLocked(index, Config{SQ: benchSQ(index), CQ: iova.Addr(index) << 48, SQEntries: benchEntries, CQEntries: benchEntries, Vector: uint16(index)})
	b.e.ModifyLocked(index, s)
	if n > 0 {
		b.e.RingSQLocked(index, uint32(n))
	}
}

// share enables a queue in the completion ring of another.
func (b *bench) share(index, owner, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.e.EnableLocked(index, Config{SQ: benchSQ(index), SQEntries: benchEntries, Owner: uint8(owner)})
	if n > 0 {
		b.e.RingSQLocked(index, uint32(n))
	}
}

func (b *bench) locked(f func()) { b.mu.Lock(); defer b.mu.Unlock(); f() }

// run starts the engine; the function returned ends it.
func (b *bench) run(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); b.e.Run(ctx) }()
	return func() { cancel(); <-done }
}

// order runs until n commands have completed, and returns whose they were.
func (b *bench) order(t *testing.T, n int) []int {
	t.Helper()
	defer b.run(t)()
	var got []int
	eventually(t, "all commands", func() bool { b.locked(func() { got = slices.Clone(b.done) }); return len(got) >= n })
	return got
}

func count(order []int, queue int) (n int) {
	for _, q := range order {
		if q == queue {
			n++
		}
	}
	return n
}

// TestWeights counts what queues of one class get while all have something to do (§4.12).
func TestWeights(t *testing.T) {
	for _, tt := range []struct {
		name    string
		weights []uint8
		round   []int // what one round looks like
	}{
		{"none: round-robin", []uint8{0, 0, 0}, []int{1, 2, 3}},
		{"1:2:4", []uint8{1, 2, 4}, []int{1, 2, 2, 3, 3, 3, 3}},
		{"0 is 1", []uint8{3, 0, 1}, []int{1, 1, 1, 2, 3}},
		{"largest", []uint8{255, 1}, append(slices.Repeat([]int{1}, 255), 2)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(len(tt.weights))
			const rounds = 8
			total := 0
			for i, w := range tt.weights {
				n := rounds * int(max(w, 1))
				b.create(1+i, Schedule{Weight: w, Priority: 2}, n)
				total += n
			}
			if diff := cmp.Diff(slices.Repeat(tt.round, rounds), b.order(t, total)); diff != "" {
				t.Errorf("order (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPriorities: classes are strict, but for the rule against starvation (§4.12).
func TestPriorities(t *testing.T) {
	t.Run("strict", func(t *testing.T) {
		b := newBench(4)
		for q := 1; q <= 4; q++ {
			b.create(q, Schedule{Priority: uint8(q - 1)}, 16)
		}
		want := slices.Concat(slices.Repeat([]int{4}, 16), slices.Repeat([]int{3}, 16), slices.Repeat([]int{2}, 16), slices.Repeat([]int{1}, 16))
		if diff := cmp.Diff(want, b.order(t, len(want))); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
	})
	t.Run("starvation", func(t *testing.T) {
		b := newBench(2)
		b.create(1, Schedule{Priority: 0}, 3)
		b.create(2, Schedule{Priority: 3}, 1000)
		want := slices.Concat(slices.Repeat(append(slices.Repeat([]int{2}, starvation), 1), 3), slices.Repeat([]int{2}, 1000-3*starvation))
		if diff := cmp.Diff(want, b.order(t, len(want))); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
	})
	t.Run("starvation is counted while one is ready", func(t *testing.T) {
		b := newBench(2)
		b.create(1, Schedule{}, 1)
		b.create(2, Schedule{Priority: 3}, 200)
		b.entries = func(q int, index uint16) Entry {
			b.mu.Lock()
			defer b.mu.Unlock()
			switch {
			case q == 2 && index == 40:
				b.e.SuspendLocked(1)
			case q == 2 && index == 41:
				b.e.ResumeLocked(1)
			}
			return Entry{}
		}
		if i := slices.Index(b.order(t, 201), 1); i != 41+starvation {
			t.Errorf("the low class came after %d commands, want %d", i, 41+starvation)
		}
	})
	t.Run("four loaded classes", func(t *testing.T) {
		b := newBench(4)
		for q := 1; q <= 4; q++ {
			b.create(q, Schedule{Priority: uint8(q - 1)}, 1000)
		}
		got := b.order(t, 1000)[:1000]
		for q := 1; q <= 3; q++ {
			last := -1
			for i, x := range got {
				if x == q {
					last = i
				}
				if i-last > 66 {
					t.Fatalf("class %d got nothing in commands %d to %d", q-1, last+1, i)
				}
			}
		}
		if n := count(got, 4); n < 950 {
			t.Errorf("the highest class got %d of 1000", n)
		}
	})
	t.Run("two high queues and a low one", func(t *testing.T) {
		b := newBench(3)
		b.create(1, Schedule{Priority: 1, Weight: 3}, 96)
		b.create(2, Schedule{Priority: 1}, 32)
		b.create(3, Schedule{}, 1)
		want := slices.Concat(slices.Repeat([]int{1, 1, 1, 2}, 16), []int{3}, slices.Repeat([]int{1, 1, 1, 2}, 16))
		if diff := cmp.Diff(want, b.order(t, len(want))); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
	})
	t.Run("a turn that is interrupted goes on", func(t *testing.T) {
		b := newBench(3)
		b.create(1, Schedule{Weight: 4}, 8)
		b.create(2, Schedule{}, 2)
		b.create(3, Schedule{Priority: 3}, 0)
		b.entries = func(q int, index uint16) Entry {
			if q == 1 && index == 1 { // a command of the high class comes while it executes
				b.mu.Lock()
				b.e.RingSQLocked(3, 1)
				b.mu.Unlock()
			}
			return Entry{}
		}
		if diff := cmp.Diff([]int{1, 1, 3, 1, 1, 2, 1, 1, 1, 1, 2}, b.order(t, 11)); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
	})
}

// TestAllQueues: 127 queues of all classes; everybody's commands complete, in order of classes.
func TestAllQueues(t *testing.T) {
	const n = npureg.MaxQueues - 1
	b := newBench(n)
	for q := 1; q <= n; q++ {
		b.create(q, Schedule{Priority: uint8(q % 4), Weight: uint8(q % 3)}, 20)
	}
	got := b.order(t, 20*n)
	for q := 1; q <= n; q++ {
		if c := count(got, q); c != 20 {
			t.Errorf("queue %d: %d commands, want 20", q, c)
		}
	}
}

// TestModify changes a queue's class while it waits for its turn.
func TestModify(t *testing.T) {
	b := newBench(2)
	b.create(1, Schedule{Priority: 1}, 4)
	b.create(2, Schedule{}, 4)
	b.entries = func(q int, index uint16) Entry {
		if q == 1 && index == 1 {
			b.mu.Lock()
			b.e.ModifyLocked(2, Schedule{Priority: 2, Weight: 9})
			if s := b.e.StatusLocked(2); s.Priority != 2 || s.Weight != 9 {
				t.Errorf("priority %d, weight %d", s.Priority, s.Weight)
			}
			b.e.ModifyLocked(99, Schedule{}) // of no queue: firmware's mistake
			b.mu.Unlock()
		}
		return Entry{}
	}
	if diff := cmp.Diff([]int{1, 1, 2, 2, 2, 2, 1, 1}, b.order(t, 8)); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

// TestSuspend: a suspended queue takes doorbells, loses nothing, and is suspended only when its command
// has ended.
func TestSuspend(t *testing.T) {
	r := newRig(t)
	r.hold = true
	r.enable(1)
	r.enable(2)
	for i := range 3 {
		r.put(1, i, uint16(10+i))
	}
	r.put(2, 0, 20)
	r.sq(1, 2)
	take(t, r.started, "start")
	suspended := func(want uint8) {
		t.Helper()
		if s := r.state(1); s != want {
			t.Fatalf("state %d, want %d", s, want)
		}
	}
	r.locked(func() { r.e.SuspendLocked(1) })
	suspended(npureg.QueueSuspending)
	r.sq(1, 3) // taken
	r.release <- struct{}{}
	take(t, r.events, "event")
	suspended(npureg.QueueSuspended)
	take(t, r.completed, "completion of the command that ran")
	r.cq(1, 1)
	r.sq(2, 1)
	if id := take(t, r.started, "start of another queue"); id != 20 {
		t.Fatalf("command %d started, want that of queue 2", id)
	}
	r.release <- struct{}{}
	quiet(t, r.started, "a command of a suspended queue started")
	r.locked(func() { r.e.ResumeLocked(1) })
	suspended(npureg.QueueEnabled)
	for _, want := range []uint16{11, 12} {
		if id := take(t, r.started, "start after resumption"); id != want {
			t.Errorf("command %d, want %d", id, want)
		}
		r.release <- struct{}{}
	}
	// A mistake is seen while it is suspended; the error stays when it is resumed.
	r.locked(func() { r.e.SuspendLocked(1) })
	r.sq(1, nSQ)
	take(t, r.faults, "fault")
	r.locked(func() { r.e.ResumeLocked(1) })
	suspended(npureg.QueueError)
	// Firmware's mistakes.
	r.locked(func() {
		r.e.SuspendLocked(0)
		r.e.ResumeLocked(99)
		r.e.SuspendLocked(99)
		r.e.AbortLocked(99, 1, 1)
		r.e.AbortLocked(2, 0, 1)
	})
}

// TestDisableSuspended: a suspended queue, and one that is about to be, can be destroyed.
func TestDisableSuspended(t *testing.T) {
	r := newRig(t)
	r.hold = true
	r.enable(1)
	r.put(1, 0, 1)
	r.sq(1, 1)
	take(t, r.started, "start")
	r.locked(func() { r.e.SuspendLocked(1); r.e.DisableLocked(1) })
	if s := r.state(1); s != npureg.QueueDraining {
		t.Errorf("state %d, want draining", s)
	}
	take(t, r.events, "event")
	if c := r.cqe(1, 0); c.Status != npureg.StatusAborted {
		t.Errorf("completion %+v, want ABORTED", c)
	}
	r.enable(1)
	if s := r.state(1); s != npureg.QueueEnabled {
		t.Errorf("state %d: the next life begins enabled", s)
	}
}
