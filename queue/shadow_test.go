// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"npuemu/dma/iova"
	"npuemu/mmio/npureg"
)

const lineAt = 0x7000_0040

// line is memory with a shadow line at offset 0, as the host has it.
type line struct {
	w      [2]atomic.Uint64
	hidden bool                    // not to be watched: reached by messages, as it were
	bad    atomic.Bool             // every access fails: the file was truncated
	gate   atomic.Pointer[gate]    // the device's accesses wait for it
	loads  atomic.Int64            // the device's
	stores atomic.Int64            // the device's
	jitter func()                  // between the device's accesses
	_      [4]struct{ _ [64]byte } // of its own cache line
}

type gate struct{ reached, open chan struct{} }

func newLine() *line {
	l := &line{}
	l.w[1].Store(npureg.RingSQTail | npureg.RingCQHead)
	return l
}

var errTruncated = errors.New("truncated")

func (l *line) access() error {
	if g := l.gate.Load(); g != nil {
		l.gate.Store(nil)
		close(g.reached)
		<-g.open
	}
	if l.jitter != nil {
		l.jitter()
	}
	if l.bad.Load() {
		return errTruncated
	}
	return nil
}

func (l *line) ReadAt(p []byte, off uint64) error {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], l.w[0].Load())
	binary.LittleEndian.PutUint64(b[8:], l.w[1].Load())
	copy(p, b[off:])
	return l.access()
}

func (l *line) WriteAt(p []byte, off uint64) error {
	if off != npureg.ShadowRing || len(p) != 4 {
		return errors.New("the device writes RING only")
	}
	return l.Store32(off, binary.LittleEndian.Uint32(p))
}

func (l *line) Close()                {}
func (l *line) Watchable(uint64) bool { return !l.hidden }
func (l *line) ring() uint32          { return uint32(l.w[1].Load()) }
func (l *line) half(shift uint, v uint32) {
	for {
		old := l.w[0].Load()
		if l.w[0].CompareAndSwap(old, old&^(0xffff_ffff<<shift)|uint64(v)<<shift) {
			return
		}
	}
}
func (l *line) tail(v uint32) { l.half(0, v) }
func (l *line) head(v uint32) { l.half(32, v) }

func (l *line) Load64(off uint64) (uint64, error) {
	l.loads.Add(1)
	err := l.access()
	return l.w[off/8].Load(), err
}

func (l *line) Store32(off uint64, v uint32) error {
	l.stores.Add(1)
	if off != npureg.ShadowRing {
		return errors.New("the device stores RING only")
	}
	if err := l.access(); err != nil {
		return err
	}
	l.w[1].Store(uint64(v))
	return nil
}

// shadowRig is a rig whose queue 1 has l as its shadow line.
func shadowRig(t *testing.T, l *line) *rig {
	t.Helper()
	r := newRig(t)
	must(t, r.lines.Map(lineAt, 64, iova.Read|iova.Write, l))
	r.locked(func() {
		r.e.EnableLocked(1, Config{SQ: sqBase, CQ: cqBase, SQEntries: nSQ, CQEntries: nCQ, Shadow: lineAt, Vector: 1})
	})
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatal("never: ", what)
		}
		runtime.Gosched()
	}
}

func (r *rig) next(what string) {
	r.t.Helper()
	select {
	case <-r.completed:
	case f := <-r.faults:
		r.t.Fatalf("%s: fault %+v", what, f)
	case <-time.After(10 * time.Second):
		r.t.Fatalf("%s: no completion", what)
	}
}

// nothing fails the test if the device accesses the line within a while.
func (l *line) nothing(t *testing.T, when string) {
	t.Helper()
	n := l.loads.Load() + l.stores.Load()
	time.Sleep(20 * time.Millisecond)
	if d := l.loads.Load() + l.stores.Load() - n; d != 0 {
		t.Errorf("%s: the device accessed the line %d times", when, d)
	}
}

// TestShadow follows a line through a life: rung, watched, asleep, and again.
func TestShadow(t *testing.T) {
	l := newLine()
	r := shadowRig(t, l)
	l.nothing(t, "before the first doorbell")
	l.tail(1)
	l.nothing(t, "stored, not rung")
	r.sq(1, 99) // the value means nothing
	r.next("rung")
	eventually(t, "asleep", func() bool { return l.ring() == npureg.RingSQTail })
	l.nothing(t, "asleep")

	r.hold = true
	l.tail(2)
	r.sq(1, 0)
	<-r.started
	<-r.started
	if l.ring() != 0 {
		t.Errorf("RING %d while a command runs, want 0", l.ring())
	}
	l.tail(3) // not rung
	r.release <- struct{}{}
	r.next("second")
	r.release <- struct{}{}
	r.next("stored while the device watched")
	r.hold = false

	// The completion ring is full: RING asks for CQ_HEAD too.
	l.tail(0)
	r.sq(1, 0)
	eventually(t, "asleep for want of room", func() bool { return l.ring() == npureg.RingSQTail|npureg.RingCQHead })
	l.head(3)
	r.cq(1, 77)
	r.next("room again")
	eventually(t, "asleep", func() bool { return l.ring() == npureg.RingSQTail })
	if n := r.shadows.Load(); n != 5 {
		t.Errorf("%d values taken, want 5", n)
	}
	r.sq(1, 0) // once too often
	eventually(t, "asleep again", func() bool { return l.stores.Load() >= 8 && l.ring() == npureg.RingSQTail })
	select {
	case f := <-r.faults:
		t.Errorf("fault %+v", f)
	default:
	}
}

// TestShadowMistakes: what ends a queue, and with which record.
func TestShadowMistakes(t *testing.T) {
	invalid := Fault{Code: npureg.StatusInvalidDoorbell, Queue: 1, Source: npureg.FaultDoorbell}
	bus := Fault{Code: npureg.StatusBusFault, Queue: 1, Source: npureg.FaultDoorbell, Addr: lineAt}
	with := func(f Fault, index uint16) Fault { f.Index = index; return f }
	// Each begins with SQ_TAIL 2 executed and CQ_HEAD 0, asleep, and then awake, while a third command runs.
	for _, tt := range []struct {
		name string
		do   func(r *rig, l *line)
		want Fault
	}{
		{"tail not below the entries", func(_ *rig, l *line) { l.tail(nSQ) }, with(invalid, nSQ)},
		{"tail far too large", func(_ *rig, l *line) { l.tail(1 << 31) }, with(invalid, 0xffff)},
		{"head past the tail", func(_ *rig, l *line) { l.head(3) }, with(invalid, 3)}, // of which 3 is the tail when the command is done
		{"head not below the entries", func(_ *rig, l *line) { l.head(nCQ) }, with(invalid, nCQ)},
		{"both", func(_ *rig, l *line) { l.w[0].Store(9<<32 | 8) }, with(invalid, 9)},
		{"unmapped", func(r *rig, _ *line) { must(r.t, r.lines.Unmap(lineAt, 64)) }, bus},
		{"truncated", func(_ *rig, l *line) { l.bad.Store(true) }, bus},
	} {
		for _, awake := range []bool{true, false} {
			name := tt.name + ", asleep"
			if awake {
				name = tt.name + ", awake"
			}
			if awake && tt.want.Index == 3 {
				continue
			}
			t.Run(name, func(t *testing.T) {
				l := newLine()
				r := shadowRig(t, l)
				l.tail(2)
				r.sq(1, 2)
				r.next("first")
				r.next("second")
				if awake {
					r.hold = true
					l.tail(3)
					r.sq(1, 0)
					<-r.started
					<-r.started
					<-r.started
					tt.do(r, l)
					r.release <- struct{}{}
				} else {
					eventually(t, "asleep", func() bool { return l.ring() != 0 })
					tt.do(r, l)
					r.sq(1, 0)
				}
				select {
				case f := <-r.faults:
					want := tt.want
					if f != want {
						t.Errorf("fault %+v, want %+v", f, want)
					}
				case <-time.After(10 * time.Second):
					t.Fatal("no fault")
				}
				<-r.events
				r.locked(func() {
					if s := r.e.StateLocked(1); s != npureg.QueueError {
						t.Errorf("state %d, want error", s)
					}
				})
				l.nothing(t, "in the error state")
				l.tail(1)
				r.sq(1, 1) // ignored
				l.nothing(t, "rung in the error state")
			})
		}
	}
}

// TestShadowTailBack: a tail that moves back over what waits to be executed.
func TestShadowTailBack(t *testing.T) {
	l := newLine()
	r := shadowRig(t, l)
	r.hold = true
	l.tail(3)
	r.sq(1, 0)
	<-r.started
	l.tail(2)
	r.release <- struct{}{}
	take(t, r.completed, "completion of the command that ran") // the fault may be there, too
	if f := <-r.faults; f != (Fault{Code: npureg.StatusInvalidDoorbell, Queue: 1, Source: npureg.FaultDoorbell, Index: 2}) {
		t.Errorf("fault %+v", f)
	}
}

// TestShadowByMessages: a line that cannot be watched needs every doorbell.
func TestShadowByMessages(t *testing.T) {
	l := newLine()
	l.hidden = true
	r := shadowRig(t, l)
	for i := range uint32(10) {
		l.tail((i + 1) % nSQ)
		r.sq(1, 0)
		r.next("rung")
		l.head((i + 1) % nCQ)
		r.cq(1, 0)
	}
	if l.ring() != 3 || l.stores.Load() != 0 {
		t.Errorf("RING %d after %d stores, want 3, never stored", l.ring(), l.stores.Load())
	}
	l.nothing(t, "between doorbells")
}

// TestShadowMoves: the host maps other memory at the line's address.
func TestShadowMoves(t *testing.T) {
	for _, hidden := range []bool{false, true} {
		l := newLine()
		r := shadowRig(t, l)
		l.tail(1)
		r.sq(1, 0)
		r.next("first")
		eventually(t, "asleep", func() bool { return l.ring() != 0 })
		m := newLine()
		m.hidden = hidden
		m.w[0].Store(2)
		must(t, r.lines.Unmap(lineAt, 64))
		must(t, r.lines.Map(lineAt, 64, iova.Read|iova.Write, m))
		r.sq(1, 0)
		r.next("in the new memory")
		if want := uint32(npureg.RingSQTail); !hidden {
			eventually(t, "asleep", func() bool { return m.ring() == want })
		} else if m.ring() != 3 {
			t.Errorf("RING %d, want 3", m.ring())
		}
	}
}

// TestShadowBusOff: nothing is lost while the device may not access the bus (§1.5).
func TestShadowBusOff(t *testing.T) {
	l := newLine()
	r := shadowRig(t, l)
	r.hold = true
	l.tail(1)
	r.sq(1, 0)
	<-r.started
	r.locked(func() { r.e.BusLocked(false) })
	r.release <- struct{}{}
	<-r.completed // this memory is not gated; a real bus would fail
	l.nothing(t, "bus off")
	if l.ring() != 0 {
		t.Fatalf("RING %d, want 0: it cannot be written", l.ring())
	}
	l.tail(2) // not rung: RING is 0
	l.nothing(t, "bus off, stored")
	r.hold = false
	r.locked(func() { r.e.BusLocked(true) })
	r.next("the bus is back")

	r.locked(func() { r.e.BusLocked(false) })
	r.sq(1, 0)
	if f := <-r.faults; f.Code != npureg.StatusBusFault || f.Addr != lineAt {
		t.Errorf("rung without bus: %+v", f)
	}
}

// TestShadowLoadUnderWay: a load that began before the bus went sees what software stored
// since then, and could not ring for.
func TestShadowLoadUnderWay(t *testing.T) {
	l := newLine()
	r := shadowRig(t, l)
	r.hold = true
	l.tail(1)
	r.sq(1, 0)
	<-r.started // and so the line is awake
	g := &gate{reached: make(chan struct{}), open: make(chan struct{})}
	l.gate.Store(g)
	r.release <- struct{}{}
	<-r.completed
	<-g.reached
	r.locked(func() { r.e.BusLocked(false) })
	l.tail(2)
	close(g.open)
	select {
	case <-r.started:
		t.Error("a command was fetched while the bus was off")
	case <-time.After(20 * time.Millisecond):
	}
	l.nothing(t, "bus off")
	if l.ring() != 0 {
		t.Errorf("RING %d, want 0", l.ring())
	}
	r.hold = false
	r.locked(func() { r.e.BusLocked(true) })
	r.next("the bus is back")
}

// TestShadowEnds: the line is not accessed any more when a queue is disabled, or when a
// reset is over.
func TestShadowEnds(t *testing.T) {
	begin := func(t *testing.T) (*rig, *line, *gate) {
		l := newLine()
		r := shadowRig(t, l)
		g := &gate{reached: make(chan struct{}), open: make(chan struct{})}
		l.gate.Store(g)
		l.tail(1)
		r.sq(1, 0)
		<-g.reached
		return r, l, g
	}
	t.Run("disabled during a look", func(t *testing.T) {
		r, l, g := begin(t)
		r.locked(func() {
			r.e.DisableLocked(1)
			if s := r.e.StateLocked(1); s != npureg.QueueDraining {
				t.Errorf("state %d, want draining", s)
			}
		})
		close(g.open)
		<-r.events
		r.locked(func() {
			if s := r.e.StateLocked(1); s != npureg.QueueDisabled {
				t.Errorf("state %d, want disabled", s)
			}
		})
		l.nothing(t, "disabled")
	})
	t.Run("another queue disabled during a look", func(t *testing.T) {
		r, _, g := begin(t)
		r.enable(2)
		r.locked(func() {
			r.e.DisableLocked(2)
			if s := r.e.StateLocked(2); s != npureg.QueueDisabled {
				t.Errorf("state %d, want disabled", s)
			}
		})
		close(g.open)
		r.next("first")
	})
	t.Run("asleep", func(t *testing.T) {
		l := newLine()
		r := shadowRig(t, l)
		r.locked(func() {
			r.e.DisableLocked(1)
			if s := r.e.StateLocked(1); s != npureg.QueueDisabled {
				t.Errorf("state %d, want disabled", s)
			}
		})
	})
	t.Run("reset during a look", func(t *testing.T) {
		r, l, g := begin(t)
		r.locked(func() {
			if !r.e.ResetLocked() {
				t.Error("a reset during a look is over at once")
			}
		})
		close(g.open)
		<-r.idle
		l.nothing(t, "reset")
		// The same memory serves the next life of the queue.
		l.w[0].Store(0)
		l.w[1].Store(3)
		r.locked(func() {
			r.e.EnableLocked(1, Config{SQ: sqBase, CQ: cqBase, SQEntries: nSQ, CQEntries: nCQ, Shadow: lineAt, Vector: 1})
		})
		l.tail(1)
		r.sq(1, 0)
		r.next("after the reset")
	})
}

// counting is memory, executor and board of the hammer: commands do nothing, and are counted when their
// completion is in memory.
type counting struct {
	lines  iova.Table
	posted atomic.Uint64
	fault  atomic.Pointer[Fault]
}

func (c *counting) Read(iova.Addr, []byte) error { return nil }
func (c *counting) Write(_ iova.Addr, p []byte) error {
	if len(p) == 2 {
		c.posted.Add(1)
	}
	return nil
}
func (c *counting) Watch(addr iova.Addr) *iova.Watch { return c.lines.Watch(addr, npureg.ShadowSize) }
func (c *counting) Execute(context.Context, Origin, *Entry) Completion {
	return Completion{}
}
func (c *counting) CompletedLocked(*Completion) {}
func (c *counting) InterruptLocked(uint16)      {}
func (c *counting) FaultLocked(f Fault)         { c.fault.Store(&f) }
func (c *counting) ContextFaultLocked()         {}
func (c *counting) QueueEventLocked()           {}
func (c *counting) IdleLocked()                 {}
func (c *counting) CountLocked(int, uint64)     {}

// TestShadowHammer stores indices at random moments, above all while the line falls asleep, and rings only
// when RING says so: no doorbell may be lost. It is a test of the order of accesses in visit and in
// §4.11; a device that does not look again after it stored RING fails it.
func TestShadowHammer(t *testing.T) {
	for _, procs := range []int{1, 2, 4} {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
		hammer(t, 3_000, rand.New(rand.NewPCG(4, uint64(procs))))
	}
}

func hammer(t *testing.T, n uint64, rng *rand.Rand) {
	const nsq, ncq = 8, 4
	var mu sync.Mutex
	c := &counting{}
	e := New(&mu, 1, c, c, c)
	l := newLine()
	device := rand.New(rand.NewPCG(5, 6)) // Run's own
	l.jitter = func() {
		switch device.IntN(8) {
		case 0:
			runtime.Gosched()
		case 1:
			for range device.IntN(300) {
				l.w[1].Load()
			}
		}
	}
	must(t, c.lines.Map(lineAt, 64, iova.Read|iova.Write, l))
	e.EnableLocked(1, Config{SQEntries: nsq, CQEntries: ncq, Shadow: lineAt})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); e.Run(ctx) }()
	defer func() { cancel(); <-done }()

	rings, late := 0, 0
	ring := func(bit uint32, ring func(int, uint32)) {
		if l.ring()&bit == 0 {
			return
		}
		rings++
		if rng.IntN(4) == 0 {
			late++
			runtime.Gosched()
		}
		mu.Lock()
		defer mu.Unlock()
		ring(1, rng.Uint32())
	}
	var submitted, consumed uint64
	consume := func() {
		if p := c.posted.Load(); p != consumed {
			consumed = p
			l.head(uint32(consumed % ncq))
			ring(npureg.RingCQHead, e.RingCQLocked)
		}
	}
	for submitted < n {
		for end := time.Now().Add(10 * time.Second); submitted-c.posted.Load() >= nsq-1; consume() {
			if time.Now().After(end) {
				t.Fatalf("a doorbell was lost: %d submitted, %d done, %d consumed, RING %d, line %#x", submitted, c.posted.Load(), consumed, l.ring(), l.w[0].Load())
			}
			runtime.Gosched()
		}
		submitted++
		l.tail(uint32(submitted % nsq))
		ring(npureg.RingSQTail, e.RingSQLocked)
		// Now and then wait until the device has nothing to do, and store while it is about to sleep.
		if rng.IntN(3) != 0 {
			continue
		}
		for end := time.Now().Add(10 * time.Second); c.posted.Load() != submitted; consume() {
			if time.Now().After(end) {
				t.Fatalf("a doorbell was lost: %d submitted, %d done, %d consumed, RING %d, line %#x", submitted, c.posted.Load(), consumed, l.ring(), l.w[0].Load())
			}
			runtime.Gosched()
		}
		// Patience is between the two, wherever it is now.
		pause := minPatience/2 + time.Duration(rng.Int64N(int64(maxPatience*5/4)))
		for end := time.Now().Add(pause); time.Now().Before(end) && (l.ring() == 0 || rng.IntN(8) != 0); {
			runtime.Gosched()
		}
	}
	if f := c.fault.Load(); f != nil {
		t.Errorf("fault %+v", f)
	}
	t.Logf("GOMAXPROCS %d: %d commands, %d doorbells, %d of them late, %d loads, %d stores of RING", runtime.GOMAXPROCS(0), n, rings, late, l.loads.Load(), l.stores.Load())
}
