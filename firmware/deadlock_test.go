// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npuemu/dma/iova"
	"npuemu/mmio/npureg"
)

// A stand is where a queue of TestDeadlocks stands: at the first of its entries.
type stand struct {
	entries [][64]byte
	waits   bool   // the first entry is a WAIT, and waits
	expired bool   // it was a WAIT that ended by its timeout; the queue is suspended
	state   uint32 // npureg.QueueEnabled if 0
	head    uint16 // index of the first entry
	size    uint16 // of the ring; 16 if 0
	context uint32 // 1 if 0
}

func timeline(op byte, space uint8, addr, value uint64) [64]byte {
	return command(op, 0x04, space, 0x08, addr, 0x10, value)
}
func waitFor(addr, value uint64) [64]byte  { return timeline(npureg.CmdWait, 0, addr, value) }
func signalOf(addr, value uint64) [64]byte { return timeline(npureg.CmdSignal, 0, addr, value) }

// ringOf is where the ring of a queue lies.
func ringOf(q int) uint64 { return busBase + 0x130000 + uint64(q)*0x10000 }

// place makes queue q and puts it there.
func (d *driver) place(t *testing.T, q int, s stand) {
	t.Helper()
	size, context := max(s.size, 16), max(s.context, 1)
	if size > 16 {
		size = testEntries
	}
	c := d.do(t, with(goodQueue, 0x08, ringOf(q), 0x18, uint16(q), 0x1c, size, 0x20, context, 0x30, uint32(20)))
	if c.Status != 0 {
		t.Fatalf("queue %d: %+v", q, c)
	}
	for i, e := range s.entries {
		copy(d.bus(iova.Addr(ringOf(q)+64*uint64((int(s.head)+i)%int(size))), 64), e[:])
	}
	st := QueueStatus{SQHead: s.head, SQTail: uint16((int(s.head) + len(s.entries)) % int(size))}
	if s.waits || s.expired {
		st.Flags, st.Sequence, st.Age = npureg.QueueFlagWaiting, uint32(70+q), time.Second
		st.WaitAddr, st.Want = binary.LittleEndian.Uint64(s.entries[0][8:]), binary.LittleEndian.Uint64(s.entries[0][16:])
	}
	d.status[q] = st
	if s.state != 0 {
		d.state[q] = s.state
	}
}

// expire lets the WAIT of a queue reach its timeout, and returns the result that firmware ends it with.
func (d *driver) expire(t *testing.T, q int) uint32 {
	t.Helper()
	before := len(d.aborts)
	d.overview.Overdue = q
	d.p.QueueEvent()
	d.settle(t)
	if len(d.aborts) != before+1 || d.aborts[before][0] != uint32(q) || d.aborts[before][1] != d.status[q].Sequence {
		t.Fatalf("aborted %v", d.aborts[before:])
	}
	return d.aborts[before][2]
}

// TestDeadlocks: what firmware says a WAIT of queue 2 waited for (§4.14).
func TestDeadlocks(t *testing.T) {
	nop := command(npureg.CmdNop)
	busy := stand{entries: [][64]byte{nop, nop, nop}}
	on := func(e ...[64]byte) stand { return stand{entries: e, waits: true} }
	with2 := func(s stand, f func(*stand)) stand { f(&s); return s }
	distinct := func(n int) (e [][64]byte) {
		for i := range n {
			e = append(e, signalOf(uint64(i)*8+0x1000, 1))
		}
		return e
	}
	for _, tt := range []struct {
		name   string
		queues map[int]stand
		broken func(d *driver, addr iova.Addr) bool
		want   uint32
		others []int // in the deadlock beside queue 2, in the order of the console
	}{
		{name: "alone", queues: map[int]stand{2: on(waitFor(8, 1))}, want: 1},
		{name: "one that works beside it", queues: map[int]stand{2: on(waitFor(8, 1)), 3: busy}, want: 1},
		{name: "one that waits for the host beside it", queues: map[int]stand{2: on(waitFor(8, 1), signalOf(16, 1)), 3: on(waitFor(24, 1), signalOf(32, 1))}, want: 1},
		{name: "the same value of the host", queues: map[int]stand{2: on(waitFor(8, 1)), 3: on(waitFor(8, 1))}, want: 1},
		{name: "SIGNAL behind it", queues: map[int]stand{2: on(waitFor(8, 1), signalOf(8, 1))}, want: 1},
		{name: "SIGNAL of a queue that works", queues: map[int]stand{2: on(waitFor(8, 1)), 3: {entries: [][64]byte{nop, signalOf(8, 1)}}}},
		{name: "SIGNAL of a queue that waits for the host", queues: map[int]stand{2: on(waitFor(8, 1)), 3: on(waitFor(16, 1), signalOf(8, 1))}},
		{name: "SIGNAL of a suspended queue", queues: map[int]stand{2: on(waitFor(8, 1)), 3: {entries: [][64]byte{signalOf(8, 1)}, state: npureg.QueueSuspended}}},
		{name: "SIGNAL of a queue that is suspending", queues: map[int]stand{2: on(waitFor(8, 1)), 3: {entries: [][64]byte{signalOf(8, 1)}, state: npureg.QueueSuspending}}},
		{name: "SIGNAL of a queue in the error state", queues: map[int]stand{2: on(waitFor(8, 1)), 3: {entries: [][64]byte{signalOf(8, 1)}, state: npureg.QueueError}}, want: 1},
		{name: "SIGNAL of a smaller value", queues: map[int]stand{2: on(waitFor(8, 2)), 3: on(waitFor(16, 1), signalOf(8, 1))}, want: 1},

		{name: "two", queues: map[int]stand{2: on(waitFor(8, 1), signalOf(16, 1)), 3: on(waitFor(16, 1), signalOf(8, 1))}, want: 2, others: []int{3}},
		{name: "two, others work", queues: map[int]stand{1: busy, 2: on(waitFor(8, 1), signalOf(16, 1)), 3: on(waitFor(16, 1), signalOf(8, 1)), 4: busy, 5: {entries: [][64]byte{signalOf(24, 1)}}}, want: 2, others: []int{3}},
		{name: "two, one waits for the host", queues: map[int]stand{1: on(waitFor(32, 9)), 2: on(waitFor(8, 1), signalOf(16, 1)), 3: on(waitFor(16, 1), signalOf(8, 1))}, want: 2, others: []int{3}},
		{name: "two, behind other commands", queues: map[int]stand{2: on(waitFor(8, 1), nop, nop, signalOf(16, 1)), 3: on(waitFor(16, 1), nop, signalOf(40, 9), signalOf(8, 1), nop)}, want: 2, others: []int{3}},
		{name: "two, larger values", queues: map[int]stand{2: on(waitFor(8, 1<<40), signalOf(16, 1<<63)), 3: on(waitFor(16, 1), signalOf(8, 1<<40+1))}, want: 2, others: []int{3}},
		{name: "two, a smaller value before", queues: map[int]stand{2: on(waitFor(8, 5), signalOf(16, 1)), 3: on(waitFor(16, 1), signalOf(8, 4), signalOf(8, 5), signalOf(8, 3))}, want: 2, others: []int{3}},
		{name: "two, and its own", queues: map[int]stand{2: on(waitFor(8, 1), signalOf(16, 1), signalOf(8, 1)), 3: on(waitFor(16, 1), signalOf(8, 1))}, want: 2, others: []int{3}},
		{name: "two, but a third could", queues: map[int]stand{2: on(waitFor(8, 1), signalOf(16, 1)), 3: on(waitFor(16, 1), signalOf(8, 1)), 4: {entries: [][64]byte{nop, signalOf(16, 1)}}}},
		{name: "two, but a third that waits for the host could", queues: map[int]stand{2: on(waitFor(8, 1), signalOf(16, 1)), 3: on(waitFor(16, 1), signalOf(8, 1)), 4: on(waitFor(48, 1), signalOf(16, 1))}},
		{name: "two, rings that wrap", queues: map[int]stand{
			2: with2(on(waitFor(8, 1), nop, nop, signalOf(16, 1)), func(s *stand) { s.head = 14 }),
			3: with2(on(waitFor(16, 1), signalOf(8, 1)), func(s *stand) { s.head = 15 }),
		}, want: 2, others: []int{3}},
		{name: "two, rings of more than one fetch", queues: map[int]stand{
			2: with2(on(append([][64]byte{waitFor(8, 1), signalOf(16, 1)}, make([][64]byte, 1000)...)...), func(s *stand) { s.size, s.head = testEntries, 500 }),
			3: with2(on(append(append([][64]byte{waitFor(16, 1)}, make([][64]byte, 1000)...), signalOf(8, 1))...), func(s *stand) { s.size, s.head = testEntries, 1023 }),
		}, want: 2, others: []int{3}},
		{name: "in space 1", queues: map[int]stand{
			2: on(timeline(npureg.CmdWait, 1, 8, 1), timeline(npureg.CmdSignal, 0, 8, 1)), 3: on(timeline(npureg.CmdWait, 0, 8, 1), timeline(npureg.CmdSignal, 1, 8, 1)),
		}, want: 2, others: []int{3}},
		{name: "another space", queues: map[int]stand{
			2: on(waitFor(8, 1), signalOf(16, 1)), 3: on(waitFor(16, 1), timeline(npureg.CmdSignal, 1, 8, 1)),
		}, want: 1},
		{name: "space 2, one context", queues: map[int]stand{
			2: on(timeline(npureg.CmdWait, 2, 8, 1), timeline(npureg.CmdSignal, 2, 16, 1)), 3: on(timeline(npureg.CmdWait, 2, 16, 1), timeline(npureg.CmdSignal, 2, 8, 1)),
		}, want: 2, others: []int{3}},
		{name: "space 2, two contexts", queues: map[int]stand{
			2: on(timeline(npureg.CmdWait, 2, 8, 1), timeline(npureg.CmdSignal, 2, 16, 1)),
			3: with2(on(timeline(npureg.CmdWait, 2, 16, 1), timeline(npureg.CmdSignal, 2, 8, 1)), func(s *stand) { s.context = 2 }),
		}, want: 1},
		{name: "space 0, two contexts", queues: map[int]stand{
			2: on(waitFor(8, 1), signalOf(16, 1)), 3: with2(on(waitFor(16, 1), signalOf(8, 1)), func(s *stand) { s.context = 2 }),
		}, want: 2, others: []int{3}},

		{name: "three in a circle", queues: map[int]stand{
			1: on(waitFor(8, 1), signalOf(16, 1)), 2: on(waitFor(16, 1), signalOf(24, 1)), 3: on(waitFor(24, 1), signalOf(8, 1)), 4: busy,
		}, want: 3, others: []int{1, 3}},
		{name: "three, two of which could", queues: map[int]stand{
			1: on(waitFor(8, 1), signalOf(16, 1)), 2: on(waitFor(16, 1), signalOf(8, 1), signalOf(24, 1)), 5: on(waitFor(24, 1), signalOf(16, 1)),
		}, want: 3, others: []int{1, 5}},
		{name: "it waits for two that wait for each other", queues: map[int]stand{
			2: on(waitFor(8, 1)), 3: on(waitFor(16, 1), signalOf(24, 1), signalOf(8, 1)), 4: on(waitFor(24, 1), signalOf(16, 1)),
		}, want: 3, others: []int{3, 4}},
		{name: "two, another waits for them", queues: map[int]stand{
			2: on(waitFor(8, 1), signalOf(16, 1), signalOf(24, 1)), 3: on(waitFor(16, 1), signalOf(8, 1)), 4: on(waitFor(24, 1)),
		}, want: 2, others: []int{3}},

		{
			name: "a ring that cannot be read", queues: map[int]stand{2: on(waitFor(8, 1), signalOf(16, 1)), 3: on(waitFor(16, 1), signalOf(8, 1)), 4: busy},
			broken: func(_ *driver, addr iova.Addr) bool { return uint64(addr) == ringOf(4) },
		},
		{
			name: "one that goes on meanwhile", queues: map[int]stand{2: on(waitFor(8, 1), signalOf(16, 1)), 3: on(waitFor(16, 1), signalOf(8, 1)), 4: busy},
			broken: func(d *driver, addr iova.Addr) bool {
				if uint64(addr) == ringOf(4) {
					d.status[3] = QueueStatus{SQHead: 1, SQTail: 2}
				}
				return false
			},
		},
		{
			name: "one that waits anew meanwhile", queues: map[int]stand{2: on(waitFor(8, 1), signalOf(16, 1)), 3: on(waitFor(16, 1), signalOf(8, 1), waitFor(8, 9)), 4: busy},
			broken: func(d *driver, addr iova.Addr) bool {
				if uint64(addr) == ringOf(4) {
					d.status[3] = QueueStatus{Flags: npureg.QueueFlagWaiting, SQHead: 2, SQTail: 3}
				}
				return false
			},
			want: 1,
		},
		{name: "1024 timelines", queues: map[int]stand{
			1: {entries: distinct(1022), size: testEntries}, 2: on(waitFor(8, 1), signalOf(16, 1)), 3: on(waitFor(16, 1), signalOf(8, 1)),
		}, want: 2, others: []int{3}},
		{name: "1025 timelines", queues: map[int]stand{
			1: {entries: distinct(1023), size: testEntries}, 2: on(waitFor(8, 1), signalOf(16, 1)), 3: on(waitFor(16, 1), signalOf(8, 1)),
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDriver12(t)
			d.do(t, goodContext)
			for q, s := range tt.queues {
				d.place(t, q, s)
			}
			if tt.broken != nil {
				d.broken = func(addr iova.Addr, _ int, _ bool) bool { return tt.broken(d, addr) }
			}
			if got := d.expire(t, 2); got != tt.want {
				t.Errorf("result %d, want %d", got, tt.want)
			}
			var faults []Fault
			var lines []string
			for i, q := range append([]int{2}, tt.others...) {
				if len(tt.others) == 0 {
					break
				}
				if i == 0 {
					faults = []Fault{{Code: npureg.StatusWaitTimeout, Queue: 2, Source: npureg.FaultCP, Index: uint16(tt.others[0]), Addr: iova.Addr(d.status[2].WaitAddr)}}
				}
				lines = append(lines, fmt.Sprintf("deadlock: queue %#x waits at %#x ", q, d.status[q].WaitAddr))
			}
			if diff := cmp.Diff(faults, d.faults); diff != "" {
				t.Errorf("fault records (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(lines, regexp.MustCompile(`deadlock: queue \S+ waits at \S+ `).FindAllString(d.log.String(), -1)); diff != "" {
				t.Errorf("console (-want +got):\n%s", diff)
			}
			d.broken = nil
			if c := d.do(t, goodIdentify); c.Status != 0 {
				t.Errorf("IDENTIFY after it: %+v", c)
			}
		})
	}
}

// TestDeadlockEnded: a queue that its timeout suspended still counts, until software resumes it.
func TestDeadlockEnded(t *testing.T) {
	begin := func(t *testing.T) *driver {
		d := newDriver12(t)
		d.place(t, 2, stand{entries: [][64]byte{timeline(npureg.CmdWait, 1, 8, 0x63), signalOf(1<<40|16, 7)}, waits: true})
		d.place(t, 3, stand{entries: [][64]byte{waitFor(1<<40|16, 7), timeline(npureg.CmdSignal, 1, 8, 0x63)}, waits: true})
		if got := d.expire(t, 2); got != 2 {
			t.Fatalf("first: result %d", got)
		}
		d.state[2] = npureg.QueueSuspended
		d.status[2] = QueueStatus{Flags: npureg.QueueFlagTimedOut, SQHead: 1, SQTail: 2, WaitAddr: 8, Want: 0x63, Found: 1<<40 | 2}
		copy(d.bus(iova.Addr(ringOf(2)), 64), make([]byte, 64)) // software's again
		return d
	}
	t.Run("second", func(t *testing.T) {
		d := begin(t)
		if got := d.expire(t, 3); got != 2 {
			t.Errorf("result %d, want 2", got)
		}
		if diff := cmp.Diff([]Fault{
			{Code: npureg.StatusWaitTimeout, Queue: 2, Source: npureg.FaultCP, Index: 3, Addr: 8},
			{Code: npureg.StatusWaitTimeout, Queue: 3, Source: npureg.FaultCP, Index: 2, Addr: 1<<40 | 16},
		}, d.faults); diff != "" {
			t.Errorf("fault records (-want +got):\n%s", diff)
		}
		d.logged(t, "deadlock: queue 0x3 waits at 0x100:0x10 for 0x7, found 0x0")
		d.logged(t, "deadlock: queue 0x2 waits at 0x8 for 0x63, found 0x100:0x2")
	})
	t.Run("while the first is being ended", func(t *testing.T) {
		d := begin(t)
		ended := d.status[2]
		d.state[2] = npureg.QueueEnabled
		d.status[2] = QueueStatus{Flags: npureg.QueueFlagInFlight, SQHead: 1, SQTail: 2, WaitAddr: 8, Want: 0x63, Sequence: 72}
		d.overview.Overdue = 3
		d.p.QueueEvent()
		id := d.put(goodIdentify)
		d.p.RingAdminTail(d.tail)
		for range 20 {
			d.p.step()
		}
		if len(d.aborts) != 1 {
			t.Errorf("aborted %v before it was known whether queue 2 goes on", d.aborts)
		}
		if c, ok := d.take(t); !ok || c.CommandID != id || c.Status != 0 {
			t.Errorf("IDENTIFY meanwhile: %+v, %v", c, ok)
		}
		d.state[2], d.status[2] = npureg.QueueSuspended, ended
		if got := d.expire(t, 3); got != 2 {
			t.Errorf("result %d, want 2", got)
		}
	})
	t.Run("its value came in the end", func(t *testing.T) {
		d := begin(t)
		d.state[2] = npureg.QueueEnabled
		d.status[2] = QueueStatus{Flags: npureg.QueueFlagInFlight, SQHead: 1, SQTail: 2, WaitAddr: 8, Want: 0x63, Sequence: 90}
		if got := d.expire(t, 3); got != 0 {
			t.Errorf("result %d, want 0: queue 2 executes its SIGNAL", got)
		}
	})
	t.Run("resumed", func(t *testing.T) {
		d := begin(t)
		d.do(t, resumeQueue(2))
		if got := d.expire(t, 3); got != 0 {
			t.Errorf("result %d, want 0: queue 2 goes on", got)
		}
	})
	t.Run("resumed and suspended by software", func(t *testing.T) {
		d := begin(t)
		d.do(t, resumeQueue(2))
		d.do(t, suspendQueue(2))
		if got := d.expire(t, 3); got != 0 {
			t.Errorf("result %d, want 0: queue 2 waits for software", got)
		}
	})
}
