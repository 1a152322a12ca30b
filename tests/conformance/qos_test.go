// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/firmware"
	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
)

func wait(space uint8, addr, value uint64) devtest.Entry {
	return devtest.TimelineEntry(npureg.CmdWait, space, addr, value)
}

func signal(space uint8, addr, value uint64) devtest.Entry {
	return devtest.TimelineEntry(npureg.CmdSignal, space, addr, value)
}

// booted is a host with firmware running.
func booted(t *testing.T) *devtest.Host {
	t.Helper()
	h := devtest.New(t, config())
	h.Bring(firmware.Image())
	return h
}

// control executes MODIFY_QUEUE, SUSPEND_QUEUE or RESUME_QUEUE.
func control(h *devtest.Host, opcode byte, queue int, o devtest.QueueOptions) {
	h.T.Helper()
	if c := h.Admin(devtest.QueueEntry(opcode, queue, o)); c.Status != npureg.StatusSuccess {
		h.T.Fatalf("admin command %#x of queue %d: %v", opcode, queue, c)
	}
}

// waiting waits until a WAIT waits in a queue.
func waiting(h *devtest.Host, queue int) devtest.QueueStatus {
	h.T.Helper()
	for end := time.Now().Add(devtest.Timeout); ; {
		if s := h.QueueStatus(queue); s.Flags&npureg.QueueFlagWaiting != 0 {
			return s
		}
		if time.Now().After(end) {
			h.T.Fatalf("queue %d does not wait", queue)
		}
	}
}

// TestTimelines: a WAIT is released by a SIGNAL of another queue and context, in bus and device memory, by
// COPY and by the host; other queues go on meanwhile (§4.17, §4.18).
func TestTimelines(t *testing.T) {
	h := booted(t)
	one, two := h.CreateContext(), h.CreateContext()
	for q, c := range map[int]uint32{1: one, 2: two} {
		h.CreateQueue(q, c, q, 8)
	}
	bus, mem := h.Alloc(4096)
	const dram = 0x8000
	for _, tt := range []struct {
		name  string
		space uint8
		addr  uint64
		value uint64
		store func()
	}{
		{"SIGNAL, bus", 0, bus, 1, func() { do(h, 2, signal(0, bus, 1)) }},
		{"SIGNAL of more", 0, bus, 5, func() { do(h, 2, signal(0, bus, 9)) }},
		{"SIGNAL, device memory", 1, dram, 1 << 40, func() { do(h, 2, signal(1, dram, 1<<40)) }},
		{"SIGNAL, largest value", 1, dram, ^uint64(0), func() { do(h, 2, signal(1, dram, ^uint64(0))) }},
		{"COPY", 0, bus + 8, 77, func() {
			le.PutUint64(mem[16:], 77)
			do(h, 2, copyEntry(0, 0, bus+16, bus+8, 8, 1, 1))
		}},
		{"host, bus", 0, bus + 24, 3, func() { le.PutUint64(mem[24:], 3) }},
		{"host, device memory", 1, dram + 8, 3, func() { h.WriteDRAM(dram+8, le.AppendUint64(nil, 3)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h.T = t
			id := h.Submit(1, wait(tt.space, tt.addr, tt.value))
			s := waiting(h, 1)
			if s.Addr != tt.addr || s.Want != tt.value || s.Found >= tt.value || s.State != npureg.QueueEnabled {
				t.Errorf("log page 8: %+v", s)
			}
			for range 10 {
				do(h, 2, nop())
			}
			if n := h.QueueStatus(1); n.Executed != s.Executed {
				t.Fatal("the WAIT completed before its value came")
			}
			tt.store()
			if c := h.Wait(1); c.Status != npureg.StatusSuccess || c.ID != id || c.Info < tt.value || c.Result != 0 {
				t.Errorf("WAIT: %+v", c)
			}
			if c := h.Do(1, wait(tt.space, tt.addr, tt.value)); c.Status != npureg.StatusSuccess || c.Info < tt.value {
				t.Errorf("WAIT for what is there: %v", c)
			}
		})
	}
	h.T = t
	// Not larger: not stored.
	for i, v := range []uint64{9, 8, 0} {
		if c := h.Do(2, signal(0, bus, v)); c.Status != npureg.StatusSuccess || c.Result != 1 || c.Info != 9 {
			t.Errorf("SIGNAL %d of a timeline at 9: %v", i, c)
		}
	}
	if c := h.Do(2, signal(0, bus, 10)); c.Result != 0 || c.Info != 9 || le.Uint64(mem) != 10 {
		t.Errorf("SIGNAL of 10: %v, memory %d", c, le.Uint64(mem))
	}
	if w, s := h.Dev.Counter(npureg.CounterWaits), h.Dev.Counter(npureg.CounterSignals); w != 14 || s != 8 {
		t.Errorf("%d WAITs and %d SIGNALs counted, want 14 and 8", w, s)
	}
	if f := h.Dev.Findings(); len(f) != 0 {
		t.Errorf("findings %v", f)
	}
}

// do executes a command that has to succeed.
func do(h *devtest.Host, queue int, e devtest.Entry) {
	h.T.Helper()
	if c := h.Do(queue, e); c.Status != npureg.StatusSuccess {
		h.T.Fatalf("command %#x in queue %d: %v", e[0], queue, c)
	}
}

// TestTimelineMistakes: each wrong field of WAIT and SIGNAL, and memory that is not there.
func TestTimelineMistakes(t *testing.T) {
	h, context := ready(t)
	h.CreateQueue(2, context, 2, 8)
	buf, mem := h.Alloc(4096)
	const unmapped = 0x5000_0000
	set := func(e devtest.Entry, off int, v byte) devtest.Entry { e[off] = v; return e }
	good := func(op byte) devtest.Entry { return devtest.TimelineEntry(op, 0, buf, 0) }
	for _, op := range []byte{npureg.CmdWait, npureg.CmdSignal} {
		at := func(space uint8, addr uint64) devtest.Entry { return devtest.TimelineEntry(op, space, addr, 1) }
		for _, tt := range []struct {
			name string
			e    devtest.Entry
			want npureg.Status
			info uint64
		}{
			{"flags", set(good(op), 1, 1), npureg.StatusInvalidField, 1},
			{"space 2", set(good(op), 4, 2), npureg.StatusInvalidField, 4},
			{"space 15", set(good(op), 4, 15), npureg.StatusInvalidField, 4},
			{"second space", set(good(op), 4, 0x10), npureg.StatusInvalidField, 4},
			{"reserved 5", set(good(op), 5, 0x80), npureg.StatusInvalidField, 5},
			{"reserved 7", set(good(op), 7, 1), npureg.StatusInvalidField, 7},
			{"address + 4", at(0, buf+4), npureg.StatusInvalidField, 8},
			{"address + 1", at(1, 1), npureg.StatusInvalidField, 8},
			{"reserved 0x18", set(good(op), 0x18, 1), npureg.StatusInvalidField, 0x18},
			{"reserved 0x3f", set(good(op), 0x3f, 1), npureg.StatusInvalidField, 0x3f},
			{"reserved before space", set(set(good(op), 4, 2), 6, 1), npureg.StatusInvalidField, 6},
			{"bus, not mapped", at(0, unmapped), npureg.StatusBusFault, unmapped},
			{"bus, end", at(0, ^uint64(7)), npureg.StatusBusFault, ^uint64(7)},
			{"device, beyond", at(1, 1<<20), npureg.StatusDeviceFault, 1 << 20},
			{"device, end", at(1, ^uint64(7)), npureg.StatusDeviceFault, ^uint64(7)},
		} {
			if c := h.Do(1, tt.e); c.Status != tt.want || c.Info != tt.info || c.Result != 0 {
				t.Errorf("opcode %d, %s: %v, want %v info %#x", op, tt.name, c, tt.want, tt.info)
			}
		}
		do(h, 2, signal(1, 1<<20-8, 1))
		do(h, 1, at(1, 1<<20-8)) // the last of device memory
	}
	if !slices.Equal(mem[:64], make([]byte, 64)) {
		t.Error("a refused SIGNAL stored something")
	}
}

// TestTimelineUnmapped: memory that goes away, or cannot be written, is an error of the command that needs it.
func TestTimelineUnmapped(t *testing.T) {
	devtest.NeedsFunction(t, "mappings that come and go")
	devtest.NeedsBus(t)
	const at = 0x4000_0000
	h, context := ready(t)
	h.CreateQueue(2, context, 2, 8)
	f := memfd(t, 8192)
	mustDo(h, h.Client.MapDMA(at, 4096, iova.Read|iova.Write, f, 0))
	mustDo(h, h.Client.MapDMA(at+4096, 4096, iova.Read, f, 4096))
	if c := h.Do(1, signal(0, at+4096, 1)); c.Status != npureg.StatusBusFault || c.Info != at+4096 {
		t.Errorf("SIGNAL in read-only memory: %v", c)
	}
	h.Submit(1, wait(0, at, 1))
	h.Submit(1, nop())
	waiting(h, 1)
	mustDo(h, h.Client.UnmapDMA(at, 4096))
	if c := h.Wait(1); c.Status != npureg.StatusBusFault || c.Info != at {
		t.Errorf("WAIT whose memory went: %v", c)
	}
	if c := h.Wait(1); c.Status != npureg.StatusSuccess {
		t.Errorf("what is behind it: %v", c)
	}
	// By messages, too.
	h.Submit(1, wait(0, devtest.MsgBase+8, 5))
	waiting(h, 1)
	do(h, 2, signal(0, devtest.MsgBase+8, 5))
	if c := h.Wait(1); c.Status != npureg.StatusSuccess || c.Info != 5 {
		t.Errorf("WAIT by messages: %v", c)
	}
}

// TestQueueTimeout: firmware ends a command that takes too long; the queue is suspended, another is not (§4.14).
func TestQueueTimeout(t *testing.T) {
	h := booted(t)
	c := h.CreateContext()
	h.CreateQueueWith(1, c, 1, 8, devtest.QueueOptions{Timeout: 30})
	h.CreateQueue(2, c, 2, 8)
	bus, _ := h.Alloc(4096)
	for i, tt := range []struct {
		name string
		e    devtest.Entry
		want npureg.Status
		min  uint64 // of info
	}{
		{"COPY", endless(1, 1, 0, 4096), npureg.StatusTimeout, 30_000},
		{"WAIT", wait(0, bus, 1), npureg.StatusWaitTimeout, 0},
	} {
		start := time.Now()
		h.Submit(1, tt.e)
		h.Submit(1, nop())
		got := h.Wait(1)
		if took := time.Since(start); got.Status != tt.want || got.Info < tt.min || took < 30*time.Millisecond {
			t.Errorf("%s: %v after %v, want %v", tt.name, got, took, tt.want)
		} else {
			t.Logf("%s: %v after %v of 30ms", tt.name, got, took)
		}
		if tt.want == npureg.StatusWaitTimeout && got.Result != 1 {
			t.Errorf("WAIT of a device with nothing else to do: result %d, want 1", got.Result)
		}
		for range 5 {
			do(h, 2, nop())
		}
		s := h.QueueStatus(1)
		if s.State != npureg.QueueSuspended || s.Timeouts != uint32(i+1) || s.Errors != s.Timeouts || s.Executed != uint64(2*i+1) || s.Timeout != 30 {
			t.Errorf("%s: log page 8: %+v", tt.name, s)
		}
		control(h, npureg.AdminResumeQueue, 1, devtest.QueueOptions{})
		if got := h.Wait(1); got.Status != npureg.StatusSuccess {
			t.Errorf("%s: what was behind it: %v", tt.name, got)
		}
	}
	if h.Faulted() {
		t.Error("a timeout left a fault record though there was no deadlock")
	}
	if n := h.Dev.Counter(npureg.CounterQueueTimeouts); n != 2 {
		t.Errorf("%d timeouts counted, want 2", n)
	}
	// A longer timeout holds for the command in progress.
	h.Submit(1, wait(0, bus, 1))
	waiting(h, 1)
	control(h, npureg.AdminModifyQueue, 1, devtest.QueueOptions{Timeout: 60_000})
	time.Sleep(60 * time.Millisecond)
	do(h, 2, signal(0, bus, 1))
	if got := h.Wait(1); got.Status != npureg.StatusSuccess {
		t.Errorf("WAIT with a longer timeout: %v", got)
	}
}

// TestDeadlockReported: two queues that wait for each other are ended, told of by completions, fault record and log
// page 8, while a third works all the time, and is not held up (§4.14).
func TestDeadlockReported(t *testing.T) {
	h := booted(t)
	c := h.CreateContext()
	for q := 1; q <= 2; q++ {
		h.CreateQueueWith(q, c, q, 8, devtest.QueueOptions{Timeout: 40})
	}
	h.CreateQueue(3, c, 3, 8)
	h.CreateQueue(4, c, 3, 64)
	long := longCopy(h, 4, 10*time.Millisecond)
	before := h.QueueStatus(4).Executed
	for range 60 {
		h.Submit(4, long)
	}
	bus, mem := h.Alloc(4096)
	le.PutUint64(mem[8:], 3)
	h.Submit(1, wait(0, bus, 7))
	h.Submit(1, signal(0, bus+8, 9))
	h.Submit(2, wait(0, bus+8, 9))
	h.Submit(2, signal(0, bus, 7))
	do(h, 3, nop())
	for q, want := range []uint64{1: 0, 3} {
		if q == 0 {
			continue
		}
		if got := h.Wait(q); got.Status != npureg.StatusWaitTimeout || got.Result != 2 || got.Info != want {
			t.Errorf("queue %d: %v, want WAIT_TIMEOUT result 2 info %d", q, got, want)
		}
		if s := h.QueueStatus(q); s.Flags != npureg.QueueFlagTimedOut || s.State != npureg.QueueSuspended || s.Addr != bus+8*uint64(q-1) || s.Found != want {
			t.Errorf("queue %d: log page 8: %+v", q, s)
		}
	}
	if s := h.QueueStatus(4); s.SQHead == s.SQTail || s.Executed == before {
		t.Errorf("the queue that works has head %d, tail %d, and executed %d", s.SQHead, s.SQTail, s.Executed)
	}
	h.DestroyQueue(4)
	if !h.Faulted() {
		t.Error("no fault record")
	}
	if devtest.InUse() != devtest.VHostUser {
		s, info, addr := h.Read32(npureg.FaultStatus), h.Read32(npureg.FaultInfo), h.Read32(npureg.FaultAddrLo)
		first, other := info&0xff, info>>16
		if s>>16 != uint32(npureg.StatusWaitTimeout) || info>>8&0xff != npureg.FaultCP || first+other != 3 || uint64(addr) != bus+8*uint64(first-1) {
			t.Errorf("fault record: status %#x, info %#x, address %#x", s, info, addr)
		}
	}
	ids := map[string]bool{}
	for _, f := range h.Dev.Findings() {
		ids[f.ID] = true
		t.Log(f.ID, f.Count, f.Last)
	}
	delete(ids, "command-ABORTED") // of queue 4
	if diff := cmp.Diff(map[string]bool{"command-WAIT_TIMEOUT": true, "fault-WAIT_TIMEOUT": true}, ids); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	// Resolved by hand: one goes on, and with it the other.
	do(h, 3, nop())
	control(h, npureg.AdminResumeQueue, 1, devtest.QueueOptions{})
	control(h, npureg.AdminResumeQueue, 2, devtest.QueueOptions{})
	for q := 1; q <= 2; q++ {
		if got := h.Wait(q); got.Status != npureg.StatusSuccess {
			t.Errorf("SIGNAL of queue %d: %v", q, got)
		}
	}
}

// longCopy is a COPY within the first MiB of device memory that takes the device at least d, whatever it runs on: queue q
// tries.
func longCopy(h *devtest.Host, q int, d time.Duration) devtest.Entry {
	for planes := uint16(1); ; planes *= 2 {
		e := copyEntry(1, 1, 0, 1<<19, 1<<16, 16, planes)
		start := time.Now()
		do(h, q, e)
		if time.Since(start) >= d || planes >= 1<<15 {
			return e
		}
	}
}

// TestDeadlockOrHost: what the results of WAITs that time out at the same time tell apart (§4.14). Queue q waits for the
// timeline at 8·q.
func TestDeadlockOrHost(t *testing.T) {
	for _, tt := range []struct {
		name    string
		signals map[int][]uint64 // timelines that the queue signals behind its WAIT
		runs    []int            // of queue 4, which does not wait but is suspended
		want    map[int]uint32   // results
	}{
		{"host", map[int][]uint64{}, nil, map[int]uint32{1: 1, 2: 1, 3: 1}},
		{"host, and a SIGNAL that nobody waits for", map[int][]uint64{1: {9}, 2: {9}}, nil, map[int]uint32{1: 1, 2: 1, 3: 1}},
		{"one behind the other", map[int][]uint64{1: {2}, 2: {3}}, nil, map[int]uint32{1: 1, 2: 0, 3: 0}},
		{"circle of three", map[int][]uint64{1: {2}, 2: {3}, 3: {1}}, nil, map[int]uint32{1: 3, 2: 3, 3: 3}},
		{"two, and one for the host", map[int][]uint64{1: {2}, 2: {1}}, nil, map[int]uint32{1: 2, 2: 2, 3: 1}},
		{"two, and one for them", map[int][]uint64{1: {2}, 2: {1, 3}}, nil, map[int]uint32{1: 2, 2: 2, 3: 3}},
		{"circle that a fourth could open", map[int][]uint64{1: {2}, 2: {3}, 3: {1}}, []int{3}, map[int]uint32{1: 0, 2: 0, 3: 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := booted(t)
			c := h.CreateContext()
			bus, _ := h.Alloc(4096)
			deadlock := false
			h.CreateQueue(4, c, 3, 8)
			control(h, npureg.AdminSuspendQueue, 4, devtest.QueueOptions{})
			for _, s := range tt.runs {
				h.Submit(4, signal(0, bus+8*uint64(s), 1))
			}
			for q := 1; q <= 3; q++ {
				h.CreateQueueWith(q, c, q, 8, devtest.QueueOptions{})
				h.Submit(q, wait(0, bus+8*uint64(q), 1))
				for _, s := range tt.signals[q] {
					h.Submit(q, signal(0, bus+8*s, 1))
				}
				waiting(h, q)
				deadlock = deadlock || tt.want[q] > 1
			}
			for q := 1; q <= 3; q++ {
				control(h, npureg.AdminModifyQueue, q, devtest.QueueOptions{Timeout: 1})
			}
			got := map[int]uint32{}
			for q := 1; q <= 3; q++ {
				c := h.Wait(q)
				if c.Status != npureg.StatusWaitTimeout {
					t.Errorf("queue %d: %v", q, c)
				}
				got[q] = c.Result
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("results (-want +got):\n%s", diff)
			}
			if h.Faulted() != deadlock {
				t.Errorf("fault record: %v, want %v", !deadlock, deadlock)
			}
		})
	}
}

// TestSuspendQueue: SUSPEND_QUEUE waits for the command in flight, the queue then takes doorbells and loses nothing.
func TestSuspendQueue(t *testing.T) {
	h, context := ready(t)
	h.CreateQueue(2, context, 2, 8)
	h.Submit(1, endless(1, 1, 0, 4096))
	time.Sleep(5 * time.Millisecond)
	id := h.SubmitAdmin(devtest.QueueEntry(npureg.AdminSuspendQueue, 1, devtest.QueueOptions{}))
	if s := h.QueueStatus(1); s.State != npureg.QueueSuspending || s.Flags != npureg.QueueFlagInFlight {
		t.Errorf("log page 8: %+v", s)
	}
	for op, want := range map[byte]npureg.Status{npureg.AdminSuspendQueue: npureg.StatusBusy, npureg.AdminResumeQueue: npureg.StatusBusy} {
		if c := h.Admin(devtest.QueueEntry(op, 1, devtest.QueueOptions{})); c.Status != want {
			t.Errorf("opcode %#x while SUSPEND_QUEUE waits: %v", op, c)
		}
	}
	control(h, npureg.AdminModifyQueue, 1, devtest.QueueOptions{Timeout: 1}) // ends it
	if c := h.WaitAdmin(); c.ID != id || c.Status != npureg.StatusSuccess {
		t.Errorf("SUSPEND_QUEUE: %+v", c)
	}
	if c := h.Wait(1); c.Status != npureg.StatusTimeout {
		t.Errorf("the command in flight: %v", c)
	}
	control(h, npureg.AdminModifyQueue, 1, devtest.QueueOptions{})
	control(h, npureg.AdminSuspendQueue, 1, devtest.QueueOptions{}) // again
	for range 5 {
		h.Submit(1, nop())
	}
	for range 5 {
		do(h, 2, nop())
	}
	if s := h.QueueStatus(1); s.State != npureg.QueueSuspended || s.Executed != 1 || s.SQHead == s.SQTail {
		t.Errorf("log page 8: %+v", s)
	}
	control(h, npureg.AdminResumeQueue, 1, devtest.QueueOptions{})
	for range 5 {
		if c := h.Wait(1); c.Status != npureg.StatusSuccess {
			t.Errorf("NOP: %v", c)
		}
	}
	// Destroyed while SUSPEND_QUEUE waits.
	h.Submit(1, endless(1, 1, 0, 4096))
	time.Sleep(5 * time.Millisecond)
	id = h.SubmitAdmin(devtest.QueueEntry(npureg.AdminSuspendQueue, 1, devtest.QueueOptions{}))
	destroy := h.SubmitAdmin(devtest.QueueEntry(npureg.AdminDestroyQueue, 1, devtest.QueueOptions{}))
	got := map[uint16]npureg.Status{}
	for range 2 {
		c := h.WaitAdmin()
		got[c.ID] = c.Status
	}
	if diff := cmp.Diff(map[uint16]npureg.Status{id: npureg.StatusAborted, destroy: npureg.StatusSuccess}, got); diff != "" {
		t.Errorf("SUSPEND_QUEUE and DESTROY_QUEUE (-want +got):\n%s", diff)
	}
	do(h, 2, nop())
}

// TestDestroyWaiting: a queue in which a WAIT waits can be destroyed, and so can a suspended one.
func TestDestroyWaiting(t *testing.T) {
	h, context := ready(t)
	bus, _ := h.Alloc(4096)
	h.CreateQueue(2, context, 2, 8)
	h.Submit(2, wait(0, bus, 1))
	waiting(h, 2)
	h.DestroyQueue(2)
	do(h, 1, signal(0, bus, 1))
	h.CreateQueue(3, context, 2, 8)
	control(h, npureg.AdminSuspendQueue, 3, devtest.QueueOptions{})
	h.Submit(3, nop())
	h.DestroyQueue(3)
	do(h, 1, nop())
}

// TestSharedCompletions: three queues with weights 1:2:4 of two contexts in the completion ring of a fourth, which shows the order
// of everything (§4.12, §4.15).
func TestSharedCompletions(t *testing.T) {
	devtest.NeedsFunction(t, "completion rings")
	h := booted(t)
	one, two := h.CreateContext(), h.CreateContext()
	const rounds = 20
	h.CreateQueueWith(8, two, 2, 1024, devtest.QueueOptions{})
	weights := map[int]int{1: 1, 2: 2, 3: 4}
	bus, _ := h.Alloc(4096)
	for q, w := range weights {
		h.CreateSharedQueue(q, one, 256, 8, devtest.QueueOptions{Weight: uint8(w)})
		h.Submit(q, wait(0, bus, 1))
		for range rounds*w - 1 {
			h.Submit(q, nop())
		}
		waiting(h, q)
	}
	h.Submit(8, signal(0, bus, 1))
	want := []uint16{8}
	for range rounds {
		want = append(want, 1, 2, 2, 3, 3, 3, 3)
	}
	var got []uint16
	heads := map[uint16]uint16{}
	for range want {
		c := h.Wait(8)
		if c.Status != npureg.StatusSuccess {
			t.Fatalf("command of queue %d: %v", c.Queue, c)
		}
		heads[c.Queue]++
		if c.SQHead != heads[c.Queue] {
			t.Errorf("queue %d: sq_head %d, want %d", c.Queue, c.SQHead, heads[c.Queue])
		}
		got = append(got, c.Queue)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if !h.Interrupted(2, devtest.Timeout) {
		t.Error("no interrupt")
	}
	if s := h.QueueStatus(2); s.Owner != 8 || s.Weight != 2 || s.Context != one {
		t.Errorf("log page 8: %+v", s)
	}
	if c := h.Admin(devtest.QueueEntry(npureg.AdminDestroyQueue, 8, devtest.QueueOptions{})); c.Status != npureg.StatusBusy {
		t.Errorf("DESTROY_QUEUE of the owner: %v", c)
	}
	// A queue that speaks of the ring stops; the others go on.
	h.Write32(devtest.Doorbell(2)+npureg.DoorbellCQHead, 1)
	for q, want := range map[int]uint8{1: npureg.QueueEnabled, 2: npureg.QueueError, 3: npureg.QueueEnabled, 8: npureg.QueueEnabled} {
		if s := h.QueueStatus(q); s.State != want {
			t.Errorf("queue %d in state %d, want %d", q, s.State, want)
		}
	}
	if s := h.Read32(npureg.FaultStatus); s>>16 != uint32(npureg.StatusInvalidDoorbell) || h.Read32(npureg.FaultInfo) != 1<<16|2 {
		t.Errorf("FAULT_STATUS %#x, FAULT_INFO %#x", s, h.Read32(npureg.FaultInfo))
	}
	h.Submit(1, nop())
	if c := h.Wait(8); c.Queue != 1 || c.Status != npureg.StatusSuccess {
		t.Errorf("another queue of the ring: %+v", c)
	}
	for q := range weights {
		h.DestroyQueue(q)
	}
	h.DestroyQueue(8)
	if len(h.Dev.Findings()) != 1 {
		t.Errorf("findings %v", h.Dev.Findings())
	}
}

// TestSharedShadow: owner and another queue have shadow lines; the ring is small, so that it is full most of the time.
func TestSharedShadow(t *testing.T) {
	devtest.NeedsFunction(t, "doorbells")
	h := booted(t)
	c := h.CreateContext()
	l := h.NewLine(0)
	h.CreateShadowQueue(1, c, 1, 4, l)
	const n = 64
	line := h.NewLine(0x40)
	sq, mem := h.Alloc(n * npureg.SQEntrySize)
	e := devtest.ShadowQueueEntry(devtest.SharedQueueEntry(2, c, sq, n, 1), line.Addr)
	if got := h.Admin(e); got.Status != npureg.StatusSuccess {
		t.Fatal(got)
	}
	for i := range n {
		mem[i*npureg.SQEntrySize] = npureg.CmdNop
	}
	tail := uint32(0)
	for range 300 {
		tail = (tail + 5) % n
		line.Store(npureg.ShadowSQTail, tail)
		if line.Ring()&npureg.RingSQTail != 0 {
			h.Write32(devtest.Doorbell(2), 0)
		}
		for range 5 {
			if got := h.Wait(1); got.Status != npureg.StatusSuccess || got.Queue != 2 {
				t.Fatalf("completion %+v", got)
			}
		}
	}
	line.Store(npureg.ShadowCQHead, 1)
	h.Write32(devtest.Doorbell(2), 0)
	for end := time.Now().Add(devtest.Timeout); h.QueueStatus(2).State != npureg.QueueError; {
		if time.Now().After(end) {
			t.Fatal("a CQ_HEAD in the line of a queue without a ring is no error")
		}
	}
	do(h, 1, nop())
}

// TestCoalescedInterrupts: eight completions or 50 ms make an interrupt (§4.16).
func TestCoalescedInterrupts(t *testing.T) {
	devtest.NeedsFunction(t, "vectors")
	h := booted(t)
	c := h.CreateContext()
	const delay = 50 * time.Millisecond
	h.CreateQueueWith(1, c, 1, 64, devtest.QueueOptions{Count: 8, Time: uint16(delay / time.Microsecond)})
	start := time.Now()
	for range 8 {
		h.Submit(1, nop())
	}
	if !h.Interrupted(1, devtest.Timeout) {
		t.Fatal("no interrupt for 8")
	}
	full := time.Since(start)
	start = time.Now()
	for range 3 {
		h.Submit(1, nop())
	}
	if !h.Interrupted(1, devtest.Timeout) {
		t.Fatal("no interrupt for 3")
	}
	if late := time.Since(start); late < delay {
		t.Errorf("interrupt for 3 of 8 after %v, want at least %v", late, delay)
	} else {
		t.Logf("8 of 8 after %v, 3 of 8 after %v of %v", full, late, delay)
	}
	if h.Interrupted(1, 2*delay) {
		t.Error("one more interrupt")
	}
	h.Submit(1, devtest.Entry{0xee})
	if !h.Interrupted(1, delay/2) {
		t.Error("an error has to wait")
	}
	counters := h.Log(2, 8*npureg.CounterCount)
	if n := le.Uint64(counters[8*npureg.CounterCoalesced:]); n != 7+2 {
		t.Errorf("%d coalesced, want 9", n)
	}
}

// TestArchitecture11: older architectures have none of it (D2).
func TestArchitecture11(t *testing.T) {
	for _, arch := range []string{"1.1", "1.0"} {
		t.Run(arch, func(t *testing.T) {
			cfg := config()
			cfg.Arch = arch
			h := devtest.New(t, cfg)
			c := prepare(h)
			for _, op := range []byte{npureg.CmdWait, npureg.CmdSignal} {
				if c := h.Do(1, devtest.TimelineEntry(op, 1, 0, 0)); c.Status != npureg.StatusInvalidOpcode || c.Info != uint64(op) {
					t.Errorf("user command %#x: %v", op, c)
				}
			}
			for _, op := range []byte{npureg.AdminModifyQueue, npureg.AdminSuspendQueue, npureg.AdminResumeQueue} {
				if c := h.Admin(devtest.QueueEntry(op, 1, devtest.QueueOptions{})); c.Status != npureg.StatusInvalidOpcode {
					t.Errorf("admin command %#x: %v", op, c)
				}
			}
			if c := h.Admin(devtest.Entry{npureg.AdminGetLogPage, 0x10: 64, 0x14: npureg.LogQueues}); c.Status != npureg.StatusInvalidLogPage {
				t.Errorf("log page 8: %v", c)
			}
			e := devtest.CreateQueueEntry(2, c, 0, 0, 0, 0, 0)
			if devtest.InUse() != devtest.VHostUser {
				at, _ := h.Alloc(4096)
				e = devtest.CreateQueueEntry(2, c, 1, at, at+2048, 8, 8)
			}
			for off, want := range map[int]uint64{0x24: 0x24, 0x25: 0x24, 0x26: 0x24, 0x30: 0x30, 0x34: 0x30, 0x38: 0x30} {
				e := e
				e[off] = 1
				if arch == "1.0" || devtest.InUse() == devtest.VHostUser {
					want = 0x24
				}
				if got := h.Admin(e); got.Status != npureg.StatusInvalidField || got.Info != want {
					t.Errorf("CREATE_QUEUE with byte %#x: %v, want INVALID_FIELD %#x", off, got, want)
				}
			}
			do(h, 1, nop())
		})
	}
}

// TestVirtioQueueOptions: what a virtio driver may say of a queue, and what is its transport's (§10.5).
func TestVirtioQueueOptions(t *testing.T) {
	if devtest.InUse() != devtest.VHostUser {
		t.Skip("for vhost-user")
	}
	h := booted(t)
	c := h.CreateContext()
	h.CreateQueueWith(1, c, 1, 8, devtest.QueueOptions{Priority: 3, Weight: 9, Timeout: 60_000})
	if s := h.QueueStatus(1); s.Priority != 3 || s.Weight != 9 || s.Timeout != 60_000 || s.Owner != 1 {
		t.Errorf("log page 8: %+v", s)
	}
	for off, want := range map[int]uint64{0x26: 0x26, 0x28: 0x26, 0x2f: 0x26, 0x34: 0x34, 0x36: 0x34, 0x38: 0x34, 0x3f: 0x34} {
		e := devtest.CreateQueueEntry(2, c, 0, 0, 0, 0, 0)
		e[off] = 1
		if got := h.Admin(e); got.Status != npureg.StatusInvalidField || got.Info != want {
			t.Errorf("CREATE_QUEUE with byte %#x: %v, want INVALID_FIELD %#x", off, got, want)
		}
	}
	for off, want := range map[int]uint64{0x34: 0x34, 0x37: 0x34, 0x26: 0x26, 0x38: 0x38} {
		e := devtest.QueueEntry(npureg.AdminModifyQueue, 1, devtest.QueueOptions{})
		e[off] = 1
		if got := h.Admin(e); got.Status != npureg.StatusInvalidField || got.Info != want {
			t.Errorf("MODIFY_QUEUE with byte %#x: %v, want INVALID_FIELD %#x", off, got, want)
		}
	}
	do(h, 1, nop())
}

// TestWaitingIsIdle: queues that wait use next to no processor time.
func TestWaitingIsIdle(t *testing.T) {
	devtest.NeedsBus(t) // a guest's processor is never idle
	if testing.Short() {
		t.Skip("takes a second")
	}
	cfg := config()
	cfg.Queues.Count = 64
	h := devtest.New(t, cfg)
	h.Bring(firmware.Image())
	c := h.CreateContext()
	bus, _ := h.Alloc(4096)
	used := func() time.Duration {
		var r unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
			t.Fatal(err)
		}
		return time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	q := 0
	for _, n := range []int{0, 1, 60} {
		for q < n {
			q++
			h.CreateQueueWith(q, c, 1, 4, devtest.QueueOptions{Timeout: 600_000})
			h.Submit(q, wait(0, bus, 1))
			waiting(h, q)
		}
		time.Sleep(500 * time.Millisecond) // 50 ms is an eighth of 400
		start := used()
		time.Sleep(time.Second)
		d := used() - start
		t.Logf("%d queues that wait: %v of processor time in a second", n, d)
		if d > 50*time.Millisecond {
			t.Errorf("%d queues that wait: %v of processor time in a second", n, d)
		}
	}
}

// TestAllUserQueues: the default card has 64 user queues, each with its own doorbell page, and all of them work at once.
func TestAllUserQueues(t *testing.T) {
	cfg := config()
	cfg.Queues.Count = 64
	h := devtest.New(t, cfg)
	h.Bring(firmware.Image())
	c := h.CreateContext()
	for q := 1; q <= 60; q++ { // a virtio machine of the tests has so many virtqueues
		h.CreateQueueWith(q, c, 1, 4, devtest.QueueOptions{Priority: uint8(q % 4), Weight: uint8(q)})
	}
	for range 3 {
		for q := 1; q <= 60; q++ {
			h.Submit(q, nop())
		}
		for q := 1; q <= 60; q++ {
			if c := h.Wait(q); c.Status != npureg.StatusSuccess || int(c.Queue) != q {
				t.Fatalf("queue %d: %+v", q, c)
			}
		}
	}
	page := h.Log(npureg.LogQueues, 4096)
	if len(page) != 64*npureg.QueueStatusSize {
		t.Fatalf("log page 8 has %d bytes", len(page))
	}
	for q := 1; q <= 60; q++ {
		b := page[(q-1)*npureg.QueueStatusSize:]
		if n := binary.LittleEndian.Uint64(b[0x10:]); int(b[0]) != q || b[2] != npureg.QueueEnabled || b[4] != byte(q%4) || b[5] != byte(q) || n != 3 {
			t.Errorf("queue %d: % x", q, b[:0x20])
		}
	}
	if f := h.Dev.Findings(); len(f) != 0 {
		t.Error(fmt.Sprint(f))
	}
}
