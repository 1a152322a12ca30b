// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"npuemu/dma/iova"
	"npuemu/mmio/npureg"
)

// model is §4.12 to §4.18 written down as plainly as possible, without sets and without time: in a
// step every WAIT is looked at, as if enough time had passed.
type model struct {
	queues   [modelQueues + 1]modelQueue
	classes  [npureg.QueuePriorities]struct{ turn, left, passed int }
	timeline [4]uint64
}

type modelQueue struct {
	state     uint8 // npureg.QueueDisabled, QueueEnabled, QueueError
	suspended bool
	waiting   bool
	prio      int
	weight    int
	todo      []Entry
	owner     int
	room      int // of an owner: completions that fit
}

const (
	modelQueues  = 6
	modelEntries = 8
)

func (m *model) ready(q int) bool {
	x := &m.queues[q]
	return x.state == npureg.QueueEnabled && !x.suspended && len(x.todo) > 0 && m.queues[x.owner].room > 0
}

// step returns the queue whose command completes next, or 0.
func (m *model) step() int {
	var looked []int
	for {
		class := -1
		for p := len(m.classes) - 1; p >= 0; p-- {
			if len(m.candidates(p, looked)) == 0 {
				m.classes[p].passed = 0
			}
		}
		for p := len(m.classes) - 1; p >= 0; p-- {
			if len(m.candidates(p, looked)) == 0 {
				continue
			}
			if class < 0 {
				class = p
			} else if m.classes[p].passed >= 64 {
				class = p
				break
			}
		}
		if class < 0 {
			return 0
		}
		c, list := &m.classes[class], m.candidates(class, looked)
		if c.left == 0 || !slices.Contains(list, c.turn) {
			i := slices.IndexFunc(list, func(q int) bool { return q > c.turn })
			c.turn = list[max(i, 0)]
			c.left = max(m.queues[c.turn].weight, 1)
		}
		q := &m.queues[c.turn]
		e := q.todo[0]
		if e[0] == waitOp && m.timeline[e[1]] < uint64(e[8]) {
			q.waiting = true
			c.left = 0
			looked = append(looked, c.turn)
			continue
		}
		if e[0] == signalOp {
			m.timeline[e[1]] = max(m.timeline[e[1]], uint64(e[8]))
		}
		for p := range class {
			if len(m.candidates(p, looked)) > 0 {
				m.classes[p].passed++
			}
		}
		c.left--
		c.passed = 0
		q.waiting = false
		q.todo = q.todo[1:]
		m.queues[q.owner].room--
		return c.turn
	}
}

// candidates returns the ready queues of a class, but those that only wait.
func (m *model) candidates(p int, looked []int) (l []int) {
	for q := 1; q <= modelQueues; q++ {
		if m.queues[q].prio == p && m.ready(q) && !slices.Contains(looked, q) {
			l = append(l, q)
		}
	}
	return l
}

// stop puts a queue into the error state, and with an owner its guests.
func (m *model) stop(q int) {
	for i := range m.queues {
		if x := &m.queues[i]; x.state == npureg.QueueEnabled && (i == q || x.owner == q) {
			x.state = npureg.QueueError
		}
	}
}

func (m *model) guests(q int) (n int) {
	for i := range m.queues {
		if i != q && m.queues[i].state != npureg.QueueDisabled && m.queues[i].owner == q {
			n++
		}
	}
	return n
}

// play compares an engine with the model, step by step.
func play(t *testing.T, script []byte) {
	b := newBench(modelQueues)
	e := b.e
	var m model
	var rings [modelQueues + 1][modelEntries]Entry
	b.entries = func(q int, index uint16) Entry { return rings[q][index] }
	next := func() int {
		if len(script) == 0 {
			return 0
		}
		v := script[0]
		script = script[1:]
		return int(v)
	}
	step := func() int {
		for i := e.waits.next(0); i != 0; i = e.waits.next(i) {
			e.queues[i].due = true
			e.refreshLocked(i)
		}
		for {
			index := e.pickLocked()
			if index == 0 {
				return 0
			}
			n := len(b.done)
			ctx, cancel := context.WithCancelCause(t.Context())
			e.startLocked(index, cancel)
			b.mu.Unlock()
			e.run(ctx, &e.flight)
			b.mu.Lock()
			cancel(nil)
			if len(b.done) != n {
				return b.done[n]
			}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for n := 0; len(script) > 0; n++ {
		op, q := next(), 1+next()%modelQueues
		x := &m.queues[q]
		switch op % 12 {
		case 0, 1: // create
			s := Schedule{Priority: uint8(next() % 4), Weight: uint8(next() % 4)}
			owner, entries := next()%(2*modelQueues), 2+next()%12
			if owner > modelQueues || owner == q || m.queues[owner].state == npureg.QueueDisabled || m.queues[owner].owner != owner {
				owner = 0
			}
			if x.state != npureg.QueueDisabled {
				break
			}
			e.EnableLocked(q, Config{SQ: benchSQ(q), CQ: iova.Addr(q) << 48, SQEntries: modelEntries, CQEntries: uint16(entries), Owner: uint8(owner)})
			e.ModifyLocked(q, s)
			*x = modelQueue{state: npureg.QueueEnabled, prio: int(s.Priority), weight: int(s.Weight), owner: owner, room: entries - 1}
			if owner == 0 {
				x.owner = q
			}
		case 2, 3, 4: // submit
			st := e.StatusLocked(q)
			if x.state != npureg.QueueEnabled || len(x.todo) == modelEntries-1 {
				break
			}
			c := Entry{0: byte(next() % 3), 1: byte(next() % 4), 8: byte(next() % 8)}
			rings[q][st.SQTail] = c
			e.RingSQLocked(q, uint32(st.SQTail+1)%modelEntries)
			x.todo = append(x.todo, c)
		case 5: // consume
			if x.state != npureg.QueueEnabled || x.owner != q {
				break
			}
			st := e.StatusLocked(q)
			cq := e.queues[q].cq
			used := (int(st.CQTail) + int(cq.entries) - int(st.CQHead)) % int(cq.entries)
			k := min(next()%8, used)
			e.RingCQLocked(q, uint32((int(st.CQHead)+k)%int(cq.entries)))
			x.room += k
		case 6:
			e.SuspendLocked(q)
			x.suspended = x.state != npureg.QueueDisabled
		case 7:
			e.ResumeLocked(q)
			x.suspended = false
		case 8:
			s := Schedule{Priority: uint8(next() % 4), Weight: uint8(next() % 4)}
			e.ModifyLocked(q, s)
			if x.state != npureg.QueueDisabled {
				x.prio, x.weight = int(s.Priority), int(s.Weight)
			}
		case 9: // destroy; firmware sees to the order
			if m.guests(q) == 0 {
				e.DisableLocked(q)
				*x = modelQueue{}
			}
		case 10: // a doorbell that lies
			if x.state == npureg.QueueEnabled {
				if next()%2 == 0 {
					e.RingSQLocked(q, modelEntries+uint32(next()))
				} else {
					e.RingCQLocked(q, 0xffff)
				}
				m.stop(q)
			}
		case 11: // the host
			i := next() % 4
			v := uint64(next() % 8)
			b.timeline[i], m.timeline[i] = max(b.timeline[i], v), max(m.timeline[i], v)
		}
		for range next() % 8 {
			want := m.step()
			if got := step(); got != want {
				t.Fatalf("step %d: queue %d completes, want %d\n%+v", n, got, want, m)
			}
		}
		for i := 1; i <= modelQueues; i++ {
			st, x := e.StatusLocked(i), &m.queues[i]
			state := x.state
			if x.suspended && state == npureg.QueueEnabled {
				state = npureg.QueueSuspended
			}
			queued := int(st.SQTail+modelEntries-st.SQHead) % modelEntries
			if st.State != state || queued != len(x.todo) || (st.Flags&npureg.QueueFlagWaiting != 0) != x.waiting {
				t.Fatalf("after step %d queue %d is %+v, want state %d, %d queued, waiting %v", n, i, st, state, len(x.todo), x.waiting)
			}
		}
		b.done, b.status, b.irqs, b.faults = b.done[:0], b.status[:0], b.irqs[:0], b.faults[:0]
		for len(b.events) > 0 {
			<-b.events
		}
	}
	if b.timeline != m.timeline {
		t.Errorf("timelines %v, want %v", b.timeline, m.timeline)
	}
}

// FuzzSchedule plays a script of creations, doorbells, suspensions, timelines and mistakes to the engine and to
// the model.
func FuzzSchedule(f *testing.F) {
	f.Add([]byte{0, 0, 1, 2, 0, 6, 0, 2, 0, 1, 0, 3, 1, 11, 0, 0, 5, 1})
	f.Add([]byte{0, 0, 0, 0, 0, 2, 0, 0, 1, 3, 3, 1, 2, 0, 2, 0, 0, 0, 0, 2, 1, 0, 0, 0, 4})
	f.Fuzz(play)
}

// TestScheduleAgainstModel is FuzzSchedule with long scripts that are the same each time.
func TestScheduleAgainstModel(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 9))
		script := make([]byte, 6000)
		for i := range script {
			script[i] = byte(rng.UintN(256))
		}
		play(t, script)
	}
}

// next takes one turn of Run, as Run does.
func (b *bench) next(ctx context.Context, cancel context.CancelCauseFunc) {
	b.mu.Lock()
	index := b.e.pickLocked()
	if index == 0 {
		b.mu.Unlock()
		return
	}
	b.e.startLocked(index, cancel)
	b.mu.Unlock()
	b.e.run(ctx, &b.e.flight)
}

// TestTurnsAllocateNothing: commands with a timeout and held interrupts, and looks at a WAIT.
func TestTurnsAllocateNothing(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	for name, op := range map[string]byte{"NOP": 0, "WAIT": waitOp} {
		b := newBench(1)
		b.entries = func(int, uint16) Entry { return Entry{0: op, 8: 1} }
		b.create(1, Schedule{Timeout: 60_000, CoalesceCount: 5, CoalesceTime: 60_000}, benchEntries-1)
		b.done, b.status, b.irqs = make([]int, 0, 300), make([]Completion, 0, 300), nil
		n := testing.AllocsPerRun(200, func() {
			b.locked(func() {
				b.irqs = b.irqs[:0]
				if op == waitOp {
					b.e.queues[1].due = b.e.queues[1].waiting
					b.e.refreshLocked(1)
				}
			})
			looks := b.looks
			b.next(ctx, cancel)
			if b.looks != looks+1 {
				t.Fatal("nothing was executed")
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// BenchmarkTurn is a command that does nothing, from the choice to its completion, beside other queues: ready ones
// of all classes, or ones that wait.
func BenchmarkTurn(b *testing.B) {
	for _, n := range []int{1, 64, npureg.MaxQueues - 1} {
		for _, kind := range []string{"ready", "waiting"} {
			b.Run(fmt.Sprintf("%s-%d", kind, n), func(b *testing.B) {
				r := &idle{}
				e := New(&r.mu, npureg.MaxQueues-1, r, r, r)
				for q := 1; q <= n; q++ {
					e.EnableLocked(q, Config{SQ: benchSQ(q), SQEntries: 2, CQEntries: 65535})
					e.ModifyLocked(q, Schedule{Priority: uint8(q % 4), Weight: uint8(q % 3)})
					e.RingSQLocked(q, 1)
				}
				if kind == "waiting" {
					for q := 2; q <= n; q++ {
						e.queues[q].waiting = true
						e.refreshLocked(q)
					}
				}
				ctx, cancel := context.WithCancelCause(b.Context())
				defer cancel(nil)
				b.ReportAllocs()
				for b.Loop() {
					r.mu.Lock()
					index := e.pickLocked()
					e.startLocked(index, cancel)
					r.mu.Unlock()
					e.run(ctx, &e.flight)
					r.mu.Lock()
					e.RingCQLocked(index, uint32(e.queues[index].cq.tail))
					e.RingSQLocked(index, uint32(e.queues[index].sqTail+1)%2)
					r.mu.Unlock()
				}
			})
		}
	}
}

// idle is memory, executor and board that do nothing.
type idle struct{ mu sync.Mutex }

func (*idle) Read(iova.Addr, []byte) error                       { return nil }
func (*idle) Write(iova.Addr, []byte) error                      { return nil }
func (*idle) Watch(iova.Addr) *iova.Watch                        { return nil }
func (*idle) Execute(context.Context, Origin, *Entry) Completion { return Completion{} }
func (*idle) CompletedLocked(*Completion)                        {}
func (*idle) InterruptLocked(uint16)                             {}
func (*idle) FaultLocked(f Fault)                                { panic(f) }
func (*idle) ContextFaultLocked()                                {}
func (*idle) QueueEventLocked()                                  {}
func (*idle) IdleLocked()                                        {}
func (*idle) CountLocked(int, uint64)                            {}
