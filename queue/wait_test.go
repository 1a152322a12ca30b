// SPDX-License-Identifier: Apache-2.0

//go:build go1.25

package queue

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"npuemu/dma/iova"
	"npuemu/mmio/npureg"
)

// waitFor and signal make entries of bench.
func waitFor(t byte, v byte) Entry { return Entry{0: waitOp, 1: t, 8: v} }
func signal(t byte, v byte) Entry  { return Entry{0: signalOp, 1: t, 8: v} }

// script gives queues entries, and submits them.
func (b *bench) script(queues map[int][]Entry, s Schedule) {
	b.entries = func(q int, index uint16) Entry { return queues[q][index] }
	for q := 1; q < npureg.MaxQueues; q++ {
		if l, ok := queues[q]; ok {
			b.create(q, s, len(l))
		}
	}
}

// TestWaitGivesWay: queue 1 waits for queue 2's signal and blocks nobody; all order is as
// the timeline wants it.
func TestWaitGivesWay(t *testing.T) {
	b := newBench(3)
	b.script(map[int][]Entry{
		1: {waitFor(0, 2), {}},
		2: {{}, signal(0, 1), waitFor(1, 1), signal(0, 2)},
		3: {{}, {}, {}, signal(1, 1)},
	}, Schedule{})
	got := b.order(t, 10)
	at := func(queue, nth int) int {
		for i, q := range got {
			if q == queue {
				if nth == 0 {
					return i
				}
				nth--
			}
		}
		t.Fatalf("queue %d is not in %v", queue, got)
		return 0
	}
	if !(at(3, 3) < at(2, 2) && at(2, 3) < at(1, 0)) {
		t.Errorf("order %v: a WAIT completed before its SIGNAL", got)
	}
	b.locked(func() {
		if s := b.e.StatusLocked(1); s.Executed != 2 || s.Errors != 0 || s.Flags != 0 || s.Sequence != 0 {
			t.Errorf("status %+v", s)
		}
	})
}

// TestWaitPolls: a value that the host stores is noticed after an eighth of the time waited, or
// 50 ms; an idle device with many old WAITs rarely wakes up (§4.17).
func TestWaitPolls(t *testing.T) {
	for _, waited := range []time.Duration{0, 100 * time.Microsecond, 10 * time.Millisecond, time.Second, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(1)
			b.script(map[int][]Entry{1: {waitFor(0, 7)}}, Schedule{})
			defer b.run(t)()
			time.Sleep(waited)
			synctest.Wait()
			var stored time.Time
			b.locked(func() { b.timeline[0] = 7; stored = time.Now() })
			limit := min(max((waited)/8, minPoll), maxPoll) * 5 / 4
			time.Sleep(limit)
			synctest.Wait()
			b.locked(func() {
				if len(b.irqs) != 1 {
					t.Fatalf("after waiting for %v: not noticed within %v", waited, limit)
				}
				t.Logf("after waiting for %v: noticed in %v", waited, b.irqs[0].Sub(stored))
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		const n = npureg.MaxQueues - 1
		b := newBench(n)
		queues := map[int][]Entry{}
		for q := 1; q <= n; q++ {
			queues[q] = []Entry{waitFor(0, 1)}
		}
		b.entries = func(q int, index uint16) Entry { return queues[q][index] }
		defer b.run(t)()
		rng := rand.New(rand.NewPCG(1, 1))
		for q := 1; q <= n; q++ { // they begin one after the other
			b.create(q, Schedule{Priority: uint8(q % 4)}, 1)
			time.Sleep(time.Duration(rng.IntN(5_000_000)))
		}
		time.Sleep(time.Second)
		wakes, last := 0, time.Time{}
		b.e.board = b
		start := 0
		b.locked(func() { start = b.looks })
		for range 10_000 { // a second in steps of 100 µs
			time.Sleep(100 * time.Microsecond)
			synctest.Wait()
			b.locked(func() {
				if b.looks != start {
					start = b.looks
					wakes++
					last = time.Now()
				}
			})
		}
		if wakes == 0 || wakes > 40 {
			t.Errorf("%d WAITs woke an idle device up %d times in a second, want at most 40", n, wakes)
		}
		t.Logf("%d WAITs: %d wake-ups in a second, the last at %v", n, wakes, last)
	})
}

// TestWaitRung: a doorbell of the queue has its WAIT looked at, and so has a SIGNAL, at once.
func TestWaitRung(t *testing.T) {
	for name, tell := range map[string]func(b *bench){
		"SQ_TAIL": func(b *bench) { b.timeline[0] = 1; b.e.RingSQLocked(1, 2) },
		"CQ_HEAD": func(b *bench) { b.timeline[0] = 1; b.e.RingCQLocked(1, 0) },
		"SIGNAL":  func(b *bench) { b.e.RingSQLocked(2, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(2)
				b.script(map[int][]Entry{1: {waitFor(0, 1), {}}}, Schedule{})
				b.create(2, Schedule{}, 0)
				b.entries = func(q int, index uint16) Entry {
					if q == 2 {
						return signal(0, 1)
					}
					return []Entry{waitFor(0, 1), {}}[index]
				}
				defer b.run(t)()
				time.Sleep(time.Minute)
				synctest.Wait()
				start := time.Now()
				b.locked(func() { tell(b) })
				synctest.Wait()
				b.locked(func() {
					if count(b.done, 1) != 2 || time.Since(start) != 0 {
						t.Errorf("completed %v after %v", b.done, time.Since(start))
					}
				})
			})
		})
	}
}

// TestWaitRungDuringLook: a doorbell that comes while the device looks is not forgotten.
func TestWaitRungDuringLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(1)
		b.script(map[int][]Entry{1: {waitFor(0, 1)}}, Schedule{})
		defer b.run(t)()
		time.Sleep(time.Second)
		synctest.Wait()
		var rung time.Time
		b.locked(func() {
			b.during = func() { // the value is stored when the device has just loaded it
				if rung.IsZero() {
					rung = time.Now()
					b.timeline[0] = 1
					b.e.RingSQLocked(1, 1)
				}
			}
		})
		time.Sleep(time.Second)
		synctest.Wait()
		b.locked(func() {
			if len(b.irqs) != 1 || !b.irqs[0].Equal(rung) {
				t.Errorf("interrupts %v, want one at %v", b.irqs, rung)
			}
		})
	})
}

// firmware ends what is overdue, as the real one does.
func (b *bench) firmware(t *testing.T, result uint32) (stop func()) {
	end := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-end:
				return
			case <-b.events:
			}
			b.locked(func() {
				for {
					o := b.e.OverviewLocked()
					if o.Overdue == 0 {
						return
					}
					s := b.e.StatusLocked(o.Overdue)
					if d := time.Duration(s.Timeout) * time.Millisecond; s.Age < d {
						t.Errorf("queue %d is overdue after %v of %v", o.Overdue, s.Age, d)
					}
					b.e.AbortLocked(o.Overdue, s.Sequence+1, 99) // of no command
					b.e.AbortLocked(o.Overdue, s.Sequence, result)
				}
			})
		}
	}()
	return func() { close(end); <-done }
}

// TestTimeouts: a command and a WAIT that take too long end, their queue is suspended, and another goes on.
func TestTimeouts(t *testing.T) {
	for _, tt := range []struct {
		name  string
		entry Entry
		want  Completion
	}{
		{"command", Entry{hangOp}, Completion{Status: npureg.StatusTimeout, Info: 5000}},
		{"WAIT", waitFor(1, 9), Completion{Status: npureg.StatusWaitTimeout, Result: 3, Info: 4, Addr: 8, Want: 9}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(2)
				b.timeline[1] = 4
				b.script(map[int][]Entry{1: {tt.entry, {}}}, Schedule{Timeout: 5})
				b.create(2, Schedule{}, 0)
				b.entries = func(q int, index uint16) Entry {
					if q == 1 && index == 0 {
						return tt.entry
					}
					return Entry{}
				}
				defer b.run(t)()
				defer b.firmware(t, 3)()
				start := time.Now()
				time.Sleep(5*time.Millisecond - 1)
				synctest.Wait()
				b.locked(func() {
					if len(b.done) != 0 {
						t.Fatalf("ended early: %v", b.done)
					}
				})
				time.Sleep(time.Second)
				synctest.Wait()
				b.locked(func() {
					if diff := cmp.Diff([]Completion{tt.want}, b.status); diff != "" {
						t.Errorf("completions (-want +got):\n%s", diff)
					}
					if late := b.irqs[0].Sub(start); late != 5*time.Millisecond {
						t.Errorf("ended after %v, want 5ms", late)
					}
					if s := b.e.StatusLocked(1); s.State != npureg.QueueSuspended || s.Timeouts != 1 || s.Errors != 1 || s.Executed != 1 {
						t.Errorf("status %+v", s)
					}
					if b.counts[npureg.CounterQueueTimeouts] != 1 {
						t.Error("not counted")
					}
					if !b.e.alarmAt.IsZero() {
						t.Error("a timer runs though nothing is in progress")
					}
					b.e.RingSQLocked(2, 1)
				})
				synctest.Wait()
				b.locked(func() {
					if diff := cmp.Diff([]int{1, 2}, b.done); diff != "" {
						t.Errorf("order (-want +got):\n%s", diff)
					}
					b.e.ResumeLocked(1)
				})
				synctest.Wait()
				b.locked(func() {
					if diff := cmp.Diff([]int{1, 2, 1}, b.done); diff != "" {
						t.Errorf("order after resumption (-want +got):\n%s", diff)
					}
				})
			})
		})
	}
}

// TestTimeoutRules: what the clock of a command is, and is not.
func TestTimeoutRules(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(b *bench) // after 6 of 10 ms
		want time.Duration  // after the start; 0 for never
	}{
		{"nothing", func(*bench) {}, 10 * time.Millisecond},
		{"longer", func(b *bench) { b.e.ModifyLocked(1, Schedule{Timeout: 20}) }, 20 * time.Millisecond},
		{"shorter than what has passed", func(b *bench) { b.e.ModifyLocked(1, Schedule{Timeout: 2}) }, 6 * time.Millisecond},
		{"none", func(b *bench) { b.e.ModifyLocked(1, Schedule{}) }, 0},
		{"suspended", func(b *bench) { b.e.SuspendLocked(1) }, 0},
		{"suspended and resumed: anew", func(b *bench) { b.e.SuspendLocked(1); b.e.ResumeLocked(1) }, 16 * time.Millisecond},
		{"a doorbell is none", func(b *bench) { b.e.RingSQLocked(1, 1) }, 10 * time.Millisecond},
		{"in the error state", func(b *bench) { b.e.RingSQLocked(1, 0xffff) }, 0},
		{"destroyed", func(b *bench) { b.e.DisableLocked(1) }, 0},
		{"reset", func(b *bench) { b.e.ResetLocked() }, 0},
		{"the value comes", func(b *bench) { b.timeline[0] = 1 }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(1)
				b.script(map[int][]Entry{1: {waitFor(0, 1)}}, Schedule{Timeout: 10})
				defer b.run(t)()
				defer b.firmware(t, 1)()
				start := time.Now()
				time.Sleep(6 * time.Millisecond)
				synctest.Wait()
				b.locked(func() { tt.do(b) })
				time.Sleep(time.Second)
				synctest.Wait()
				b.locked(func() {
					i := slices.IndexFunc(b.status, func(c Completion) bool { return c.Status == npureg.StatusWaitTimeout })
					switch {
					case tt.want == 0 && b.e.queues[1].aborted:
						t.Error("firmware was told that it is overdue")
					case tt.want == 0 && i >= 0:
						t.Errorf("WAIT_TIMEOUT after %v", b.irqs[i].Sub(start))
					case tt.want != 0 && i < 0:
						t.Error("no WAIT_TIMEOUT")
					case tt.want != 0 && b.irqs[i].Sub(start) != tt.want:
						t.Errorf("WAIT_TIMEOUT after %v, want %v", b.irqs[i].Sub(start), tt.want)
					}
				})
			})
		})
	}
}

// TestLastLook: a value that came is not a timeout, even if nobody had looked.
func TestLastLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(1)
		b.script(map[int][]Entry{1: {waitFor(0, 1)}}, Schedule{Timeout: 1000})
		defer b.run(t)()
		time.Sleep(time.Second - time.Microsecond) // the last look was a while ago
		synctest.Wait()
		b.locked(func() { b.timeline[0] = 1 })
		defer b.firmware(t, 1)()
		time.Sleep(time.Second)
		synctest.Wait()
		b.locked(func() {
			if len(b.status) != 1 || b.status[0].Status != npureg.StatusSuccess {
				t.Errorf("completions %+v", b.status)
			}
		})
	})
}

// TestDeadlock: two queues that wait for each other, and what firmware learns.
func TestDeadlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(3)
		b.script(map[int][]Entry{
			1: {waitFor(0, 1), signal(1, 1)},
			2: {waitFor(1, 1), signal(0, 1)},
		}, Schedule{Timeout: 3})
		defer b.run(t)()
		time.Sleep(time.Millisecond)
		synctest.Wait()
		b.locked(func() {
			if o := b.e.OverviewLocked(); o != (Overview{Waiting: 2}) {
				t.Errorf("before: %+v", o)
			}
		})
		time.Sleep(3 * time.Millisecond)
		synctest.Wait()
		b.locked(func() {
			if o := b.e.OverviewLocked(); o != (Overview{Waiting: 2, Overdue: 1}) {
				t.Errorf("overdue: %+v", o)
			}
			b.e.AbortLocked(1, b.e.StatusLocked(1).Sequence, 2)
		})
		synctest.Wait()
		b.locked(func() { // its SIGNAL must not run: the queue is suspended, and counts as waiting
			if o := b.e.OverviewLocked(); o != (Overview{Waiting: 2, Overdue: 2}) {
				t.Errorf("after one: %+v", o)
			}
			want := Status{State: npureg.QueueSuspended, Flags: npureg.QueueFlagTimedOut, Weight: 1, Owner: 1, SQHead: 1, SQTail: 2, CQTail: 1,
				SQEntries: benchEntries, CQEntries: benchEntries,
				Timeout: 3, Executed: 1, Errors: 1, Timeouts: 1, Want: 1}
			if diff := cmp.Diff(want, b.e.StatusLocked(1)); diff != "" {
				t.Errorf("status of queue 1 (-want +got):\n%s", diff)
			}
			b.e.ResumeLocked(1) // software decides that it goes on
		})
		synctest.Wait()
		b.locked(func() {
			if diff := cmp.Diff([]int{1, 1, 2, 2}, b.done); diff != "" {
				t.Errorf("order (-want +got):\n%s", diff)
			}
		})
	})
}

// TestCoalescing: nothing waits longer than the time, and no timer runs when nothing is held (§4.16).
func TestCoalescing(t *testing.T) {
	const us = time.Microsecond
	bad := Entry{hangOp}
	for _, tt := range []struct {
		name    string
		s       Schedule
		entries int // of the completion ring
		at      []time.Duration
		failing int             // command that fails (by a timeout of 1 ms), counted from 1
		do      func(b *bench)  // after 150 µs
		want    []time.Duration // interrupts
		counted uint64
	}{
		{name: "off", at: []time.Duration{0, 0, 10 * us}, want: []time.Duration{0, 0, 10 * us}},
		{name: "count without time", s: Schedule{CoalesceCount: 4}, at: []time.Duration{0, 0}, want: []time.Duration{0, 0}},
		{name: "time without count", s: Schedule{CoalesceTime: 100}, at: []time.Duration{0, 0}, want: []time.Duration{0, 0}},
		{name: "count 1", s: Schedule{CoalesceCount: 1, CoalesceTime: 100}, at: []time.Duration{0, 0}, want: []time.Duration{0, 0}},
		{name: "count", s: Schedule{CoalesceCount: 3, CoalesceTime: 100}, at: []time.Duration{0, 10 * us, 20 * us, 30 * us, 40 * us, 50 * us},
			want: []time.Duration{20 * us, 50 * us}, counted: 4},
		{name: "time", s: Schedule{CoalesceCount: 3, CoalesceTime: 100}, at: []time.Duration{0, 90 * us, 110 * us},
			want: []time.Duration{100 * us, 210 * us}, counted: 1},
		{name: "one alone", s: Schedule{CoalesceCount: 65535, CoalesceTime: 65535}, at: []time.Duration{5 * us}, want: []time.Duration{65540 * us}},
		{name: "first of the next", s: Schedule{CoalesceCount: 2, CoalesceTime: 100}, at: []time.Duration{0, 40 * us, 60 * us}, want: []time.Duration{40 * us, 160 * us}, counted: 1},
		{name: "ring full", s: Schedule{CoalesceCount: 9, CoalesceTime: 1000}, entries: 4, at: []time.Duration{0, 0, 20 * us}, want: []time.Duration{20 * us}, counted: 2},
		{name: "error", s: Schedule{CoalesceCount: 9, CoalesceTime: 60000, Timeout: 1}, at: []time.Duration{0, 10 * us}, failing: 2, want: []time.Duration{1010 * us}, counted: 1},
		{name: "modified", s: Schedule{CoalesceCount: 9, CoalesceTime: 60000}, at: []time.Duration{0, 10 * us, 200 * us, 210 * us},
			do: func(b *bench) { b.e.ModifyLocked(1, Schedule{CoalesceCount: 2, CoalesceTime: 60000}) }, want: []time.Duration{150 * us, 210 * us}, counted: 2},
		{name: "destroyed", s: Schedule{CoalesceCount: 9, CoalesceTime: 60000}, at: []time.Duration{0, 10 * us},
			do: func(b *bench) { b.e.DisableLocked(1) }, want: []time.Duration{150 * us}, counted: 1},
		{name: "suspended", s: Schedule{CoalesceCount: 9, CoalesceTime: 500}, at: []time.Duration{0, 10 * us},
			do: func(b *bench) { b.e.SuspendLocked(1) }, want: []time.Duration{500 * us}, counted: 1},
		{name: "reset", s: Schedule{CoalesceCount: 9, CoalesceTime: 500}, at: []time.Duration{0, 10 * us}, do: func(b *bench) { b.e.ResetLocked() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(1)
				if tt.entries == 0 {
					tt.entries = benchEntries
				}
				b.locked(func() {
					b.e.EnableLocked(1, Config{SQ: benchSQ(1), SQEntries: benchEntries, CQEntries: uint16(tt.entries)})
					b.e.ModifyLocked(1, tt.s)
				})
				b.entries = func(_ int, index uint16) Entry {
					if int(index)+1 == tt.failing {
						return bad
					}
					return Entry{}
				}
				defer b.run(t)()
				defer b.firmware(t, 0)()
				start := time.Now()
				at := func(d time.Duration, f func()) {
					time.AfterFunc(d, func() { b.locked(f) })
				}
				for i, d := range tt.at {
					at(d+time.Duration(i), func() { b.e.RingSQLocked(1, uint32(i+1)) })
				}
				if tt.do != nil {
					at(150*us, func() { tt.do(b) })
				}
				time.Sleep(time.Second)
				synctest.Wait()
				b.locked(func() {
					var got []time.Duration
					for _, x := range b.irqs {
						got = append(got, x.Sub(start).Truncate(us))
					}
					if diff := cmp.Diff(tt.want, got); diff != "" {
						t.Errorf("interrupts (-want +got):\n%s", diff)
					}
					if n := b.counts[npureg.CounterCoalesced]; n != tt.counted {
						t.Errorf("%d coalesced, want %d", n, tt.counted)
					}
					if !b.e.alarmAt.IsZero() {
						t.Error("a timer runs though nothing is held")
					}
				})
			})
		})
	}
}

// TestSharedRing: several queues in one completion ring (§4.15).
func TestSharedRing(t *testing.T) {
	state := func(b *bench, want ...uint8) {
		t.Helper()
		b.locked(func() {
			for i, w := range want {
				if s := b.e.StateLocked(i + 1); s != w {
					t.Errorf("queue %d in state %d, want %d", i+1, s, w)
				}
			}
		})
	}
	const enabled, failed = npureg.QueueEnabled, npureg.QueueError
	begin := func(t *testing.T, n int) (*bench, func()) {
		b := newBench(4)
		b.locked(func() {
			b.e.EnableLocked(1, Config{SQ: benchSQ(1), CQ: 1 << 48, SQEntries: 8, CQEntries: 4, Vector: 7})
			b.e.RingSQLocked(1, uint32(n))
		})
		b.share(2, 1, n)
		b.share(3, 1, n)
		b.create(4, Schedule{}, 0)
		return b, b.run(t)
	}
	t.Run("room for all", func(t *testing.T) {
		b, stop := begin(t, 3)
		defer stop()
		for i := uint32(1); i <= 3; i++ {
			eventually(t, "a full ring", func() (full bool) { b.locked(func() { full = len(b.done) == int(3*i) }); return full })
			time.Sleep(2 * time.Millisecond)
			b.locked(func() {
				if len(b.done) != int(3*i) {
					t.Fatalf("%d completions in a ring for 3", len(b.done))
				}
				b.e.RingCQLocked(1, 3*i%4)
			})
		}
		b.locked(func() {
			if diff := cmp.Diff([]int{1, 2, 3, 1, 2, 3, 1, 2, 3}, b.done); diff != "" {
				t.Errorf("order (-want +got):\n%s", diff)
			}
			if s := b.e.StatusLocked(3); s.Owner != 1 || s.CQHead != 1 || s.CQTail != 1 || s.SQHead != 3 {
				t.Errorf("status %+v", s)
			}
		})
	})
	t.Run("CQ_HEAD of another", func(t *testing.T) {
		b, stop := begin(t, 0)
		defer stop()
		b.locked(func() { b.e.RingCQLocked(2, 0) })
		state(b, enabled, failed, enabled, enabled)
		if diff := cmp.Diff([]Fault{{Code: npureg.StatusInvalidDoorbell, Queue: 2}}, b.faults); diff != "" {
			t.Errorf("faults (-want +got):\n%s", diff)
		}
	})
	t.Run("SQ_TAIL of another", func(t *testing.T) {
		b, stop := begin(t, 0)
		defer stop()
		b.locked(func() { b.e.RingSQLocked(3, 0xffff) })
		state(b, enabled, enabled, failed, enabled)
	})
	t.Run("CQ_HEAD of the owner", func(t *testing.T) {
		b, stop := begin(t, 0)
		defer stop()
		b.locked(func() { b.e.RingCQLocked(1, 1) })
		state(b, failed, failed, failed, enabled)
	})
	t.Run("SQ_TAIL of the owner", func(t *testing.T) {
		b, stop := begin(t, 0)
		defer stop()
		b.locked(func() { b.e.RingSQLocked(1, 8) })
		state(b, failed, failed, failed, enabled)
	})
	t.Run("not to be written", func(t *testing.T) {
		b := newBench(4)
		b.failAt = 1 << 48
		b.create(1, Schedule{}, 0)
		b.share(2, 1, 1)
		b.share(3, 1, 0)
		b.create(4, Schedule{}, 1)
		b.order(t, 1)
		eventually(t, "the fault", func() (f bool) { b.locked(func() { f = len(b.faults) != 0 }); return f })
		state(b, failed, failed, failed, enabled)
		if f := b.faults[0]; f.Queue != 2 || f.Source != npureg.FaultPost || f.Addr != 1<<48 {
			t.Errorf("fault %+v", f)
		}
	})
	t.Run("interrupts", func(t *testing.T) {
		b, stop := begin(t, 0)
		defer stop()
		b.locked(func() { b.e.ModifyLocked(1, Schedule{CoalesceCount: 3, CoalesceTime: 65535}) })
		for q := 1; q <= 3; q++ {
			b.locked(func() { b.e.RingSQLocked(q, 1) })
		}
		eventually(t, "the interrupt", func() (f bool) { b.locked(func() { f = len(b.irqs) == 1 && len(b.done) == 3 }); return f })
	})
	t.Run("firmware's mistakes", func(t *testing.T) {
		b, stop := begin(t, 0)
		defer stop()
		b.locked(func() { b.e.DisableLocked(4) })
		for _, owner := range []uint8{2, 4, 99} { // shares itself, disabled, does not exist
			b.locked(func() { b.e.EnableLocked(4, Config{SQEntries: 8, Owner: owner}) })
			state(b, enabled, enabled, enabled, npureg.QueueDisabled)
		}
	})
	t.Run("owner taken away", func(t *testing.T) {
		b, stop := begin(t, 0)
		defer stop()
		b.locked(func() {
			b.e.ModifyLocked(1, Schedule{CoalesceCount: 3, CoalesceTime: 1000})
			b.e.DisableLocked(1)
			b.e.RingSQLocked(2, 1)
		})
		eventually(t, "an interrupt at once", func() (f bool) { b.locked(func() { f = len(b.irqs) == 1 }); return f })
		b.create(1, Schedule{CoalesceCount: 3, CoalesceTime: 20_000}, 1) // with another ring
		eventually(t, "the owner's", func() (f bool) { b.locked(func() { f = len(b.done) == 2 }); return f })
		b.locked(func() { b.e.RingSQLocked(3, 1) })
		eventually(t, "the old ring's, and what the new one holds", func() (f bool) { b.locked(func() { f = len(b.irqs) == 3 }); return f })
	})
	t.Run("one destroyed, created again", func(t *testing.T) {
		b, stop := begin(t, 1)
		defer stop()
		eventually(t, "all", func() (f bool) { b.locked(func() { f = len(b.done) == 3 }); return f })
		b.locked(func() { b.e.DisableLocked(2); b.e.RingCQLocked(1, 3) })
		b.share(2, 1, 1)
		eventually(t, "the fourth", func() (f bool) { b.locked(func() { f = len(b.done) == 4 }); return f })
	})
}

// TestSharedRingAsleep: the owner's line asks for no doorbell for CQ_HEAD, and another queue fills the
// ring. The device must not miss that software makes room.
func TestSharedRingAsleep(t *testing.T) {
	l := newLine()
	r := shadowRig(t, l)
	l.tail(1)
	r.sq(1, 0)
	r.next("owner's")
	l.head(1)
	eventually(t, "asleep", func() bool { return l.ring() == npureg.RingSQTail })
	r.locked(func() { r.e.EnableLocked(2, Config{SQ: 2<<16 + sqBase, SQEntries: 8, Owner: 1}) })
	r.sq(2, 4)
	for range 3 {
		r.next("until the ring is full")
	}
	eventually(t, "RING asks for CQ_HEAD", func() bool { return l.ring()&npureg.RingCQHead != 0 || l.ring() == 0 })
	l.head(3)
	if l.ring()&npureg.RingCQHead != 0 {
		r.cq(1, 0)
	}
	r.next("the fourth")
	// A queue that has no ring may not speak of one in its line either.
	must(t, r.lines.Map(lineAt+0x1000, 64, iova.Read|iova.Write, newLine()))
}

// TestQueueHammer does everything at once: no invariant but that the engine goes on, and that what is
// submitted to a queue that nobody harms completes.
func TestQueueHammer(t *testing.T) {
	const n = 8 // queues; the last is left alone
	b := newBench(n)
	b.entries = func(q int, index uint16) Entry {
		if q == n {
			return Entry{}
		}
		switch index % 5 {
		case 1:
			return waitFor(byte(q%4), byte(index))
		case 3:
			return signal(byte((q+1)%4), byte(index))
		}
		return Entry{}
	}
	b.create(n, Schedule{Timeout: 60_000, CoalesceCount: 3, CoalesceTime: 50}, 0)
	stop := b.run(t)
	defer stop()
	end := time.Now().Add(700 * time.Millisecond)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rng := rand.New(rand.NewPCG(uint64(w), 3))
			for time.Now().Before(end) {
				q := 1 + rng.IntN(n-1)
				s := Schedule{Priority: uint8(rng.IntN(4)), Weight: uint8(rng.IntN(5)), Timeout: uint32(rng.IntN(3)),
					CoalesceCount: uint16(rng.IntN(4)), CoalesceTime: uint16(rng.IntN(200))}
				b.locked(func() {
					b.timeline[rng.IntN(4)] = uint64(rng.IntN(100))
					switch rng.IntN(12) {
					case 0:
						b.e.DisableLocked(q)
					case 1:
						b.e.EnableLocked(q, Config{SQ: benchSQ(q), SQEntries: 16, CQEntries: uint16(2 + rng.IntN(10)), Owner: uint8(rng.IntN(n))})
					case 2:
						b.e.EnableLocked(q, Config{SQ: benchSQ(q), SQEntries: 16, CQEntries: 16})
					case 3:
						b.e.ModifyLocked(q, s)
					case 4:
						b.e.SuspendLocked(q)
					case 5, 6:
						b.e.ResumeLocked(q)
					case 7:
						st := b.e.StatusLocked(q)
						b.e.AbortLocked(q, st.Sequence, 1)
					case 8:
						b.e.RingCQLocked(q, uint32(b.e.StatusLocked(q).CQTail))
					case 9:
						b.e.OverviewLocked()
					default:
						if st := b.e.StatusLocked(q); st.State != 0 {
							b.e.RingSQLocked(q, uint32(st.SQTail+1)%16)
						}
					}
				})
				for {
					select {
					case <-b.events:
						continue
					default:
					}
					break
				}
			}
		}()
	}
	total := uint32(0)
	for time.Now().Before(end) {
		total++
		b.locked(func() {
			b.e.RingSQLocked(n, total%benchEntries)
			b.e.RingCQLocked(n, uint32(b.e.StatusLocked(n).CQTail))
		})
		time.Sleep(200 * time.Microsecond)
	}
	wg.Wait()
	eventually(t, "every command of the queue that nobody harms", func() (ok bool) {
		b.locked(func() { ok = b.e.StatusLocked(n).Executed == uint64(total) })
		return ok
	})
	b.locked(func() {
		if b.e.ResetLocked() {
			t.Log("reset found something in flight")
		}
	})
}
