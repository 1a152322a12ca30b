// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npuemu/mmio/npureg"
)

// newDriver12 is newDriver on hardware of architecture 1.2, with context 1.
func newDriver12(t testing.TB) *driver {
	d := newDriver(t, 8, 8)
	d.host.Set(npureg.FeaturesLo, npureg.FeatureShadowDoorbells|npureg.FeatureQueueControl|npureg.FeatureTimelines)
	d.do(t, goodContext)
	return d
}

var (
	modifyQueue = command(npureg.AdminModifyQueue, 0x08, uint32(1), 0x24, uint8(3), 0x25, uint8(9), 0x30, uint32(250), 0x34, uint16(4), 0x36, uint16(50))
	sharedQueue = command(npureg.AdminCreateQueue, 0x08, uint64(0x10_0000_0040), 0x18, uint16(2), 0x1c, uint16(1024), 0x20, uint32(1), 0x26, uint16(1), 0x38, uint16(1))
	fullQueue   = with(goodQueue, 0x24, uint8(2), 0x25, uint8(200), 0x30, uint32(70_000), 0x34, uint16(300), 0x36, uint16(40_000))
)

func suspendQueue(n uint32) [64]byte { return command(npureg.AdminSuspendQueue, 0x08, n) }
func resumeQueue(n uint32) [64]byte  { return command(npureg.AdminResumeQueue, 0x08, n) }

// Every rule of §4.12 to §4.16 and §4.19, one command on a device with context 1, queue 1 that owns a ring, and
// queue 5 that uses it.
func TestQueueCommands(t *testing.T) {
	field := func(off uint64) completion { return completion{Status: npureg.StatusInvalidField, Info: off} }
	status := func(s npureg.Status) completion { return completion{Status: s} }
	ok := completion{}
	log8 := with(goodLog, 0x14, uint32(8))
	for _, tt := range []struct {
		name string
		e    [64]byte
		want completion
	}{
		{"create with everything", fullQueue, ok},
		{"priority 4", with(fullQueue, 0x24, uint8(4)), field(0x24)},
		{"priority 255", with(fullQueue, 0x24, uint8(255)), field(0x24)},
		{"weight 255", with(fullQueue, 0x25, uint8(255)), ok},
		{"flag 1", with(fullQueue, 0x26, uint16(2)), field(0x26)},
		{"flag 15", with(fullQueue, 0x26, uint16(1<<15)), field(0x26)},
		{"flag 15 of a shared one", with(sharedQueue, 0x26, uint16(1<<15|1)), field(0x26)},
		{"line not aligned", with(fullQueue, 0x28, uint64(bufAddr+8)), field(0x28)},
		{"largest timeout", with(fullQueue, 0x30, ^uint32(0)), ok},
		{"count without time", with(fullQueue, 0x36, uint16(0)), ok},
		{"time without count", with(fullQueue, 0x34, uint16(0)), ok},
		{"owner without the flag", with(fullQueue, 0x38, uint16(1)), field(0x38)},
		{"reserved 0x3a", with(fullQueue, 0x3a, uint16(1)), field(0x3a)},
		{"reserved 0x3f", with(fullQueue, 0x3f, uint8(1)), field(0x3a)},
		{"wrong ring and wrong priority", with(fullQueue, 0x24, uint8(4), 0x10, uint64(8)), field(0x10)},
		{"wrong priority and no context", with(fullQueue, 0x24, uint8(4), 0x20, uint32(9)), field(0x24)},

		{"shared", sharedQueue, ok},
		{"shared, other context", with(sharedQueue, 0x20, uint32(2)), status(npureg.StatusInvalidContext)},
		{"shared, with a ring", with(sharedQueue, 0x10, uint64(0x40)), field(0x10)},
		{"shared, with a vector", with(sharedQueue, 0x1a, uint16(1)), field(0x1a)},
		{"shared, with entries", with(sharedQueue, 0x1e, uint16(16)), field(0x1e)},
		{"shared, with a count", with(sharedQueue, 0x34, uint16(1)), field(0x34)},
		{"shared, with a time", with(sharedQueue, 0x36, uint16(1)), field(0x36)},
		{"shared, owner 0", with(sharedQueue, 0x38, uint16(0)), field(0x38)},
		{"shared, owner beyond the limit", with(sharedQueue, 0x38, uint16(testQueues+1)), field(0x38)},
		{"shared, owner 65535", with(sharedQueue, 0x38, uint16(65535)), field(0x38)},
		{"shared, owner itself", with(sharedQueue, 0x38, uint16(2)), field(0x38)},
		{"shared, owner is not there", with(sharedQueue, 0x38, uint16(3)), status(npureg.StatusInvalidQueue)},
		{"shared, owner has no ring", with(sharedQueue, 0x38, uint16(5)), status(npureg.StatusInvalidQueue)},
		{"shared, number in use", with(sharedQueue, 0x18, uint16(5)), status(npureg.StatusQueueExists)},
		{"destroy an owner", destroyQueue(1), status(npureg.StatusBusy)},
		{"destroy a sharer", destroyQueue(5), ok},

		{"modify", modifyQueue, ok},
		{"modify, all 0", command(npureg.AdminModifyQueue, 0x08, uint32(1)), ok},
		{"modify a sharer", command(npureg.AdminModifyQueue, 0x08, uint32(5), 0x24, uint8(1)), ok},
		{"modify a sharer's count", with(modifyQueue, 0x08, uint32(5)), field(0x34)},
		{"modify a sharer's time", with(modifyQueue, 0x08, uint32(5), 0x34, uint16(0)), field(0x36)},
		{"modify, priority 4", with(modifyQueue, 0x24, uint8(4)), field(0x24)},
		{"modify, flags", with(modifyQueue, 0x26, uint16(1)), field(0x26)},
		{"modify, line", with(modifyQueue, 0x2c, uint32(1)), field(0x26)},
		{"modify, owner", with(modifyQueue, 0x38, uint16(1)), field(0x38)},
		{"modify, end", with(modifyQueue, 0x3f, uint8(1)), field(0x38)},
		{"modify, context", with(modifyQueue, 0x20, uint32(1)), field(0x0c)},
		{"modify, no such queue", with(modifyQueue, 0x08, uint32(2)), status(npureg.StatusInvalidQueue)},
		{"modify queue 0", with(modifyQueue, 0x08, uint32(0)), status(npureg.StatusInvalidQueue)},
		{"modify queue 2^31", with(modifyQueue, 0x08, uint32(1<<31|1)), status(npureg.StatusInvalidQueue)},
		{"modify queue 129", with(modifyQueue, 0x08, uint32(129)), status(npureg.StatusInvalidQueue)},

		{"suspend", suspendQueue(1), ok},
		{"suspend, no such queue", suspendQueue(2), status(npureg.StatusInvalidQueue)},
		{"suspend queue 0", suspendQueue(0), status(npureg.StatusInvalidQueue)},
		{"suspend queue 2^32-1", suspendQueue(^uint32(0)), status(npureg.StatusInvalidQueue)},
		{"suspend, reserved", with(suspendQueue(1), 0x0c, uint32(1)), field(0x0c)},
		{"suspend, flags", with(suspendQueue(1), 1, uint8(1)), field(1)},
		{"resume what is not suspended", resumeQueue(1), ok},
		{"resume, no such queue", resumeQueue(3), status(npureg.StatusInvalidQueue)},
		{"resume queue 128", resumeQueue(128), status(npureg.StatusInvalidQueue)},
		{"resume, reserved", with(resumeQueue(1), 0x3f, uint8(1)), field(0x0c)},

		{"log page 8", log8, completion{Result: 64 * testQueues}},
		{"log page 8, cut", with(log8, 0x10, uint32(65)), completion{Result: 65}},
		{"log page 8, from the last", with(log8, 0x18, uint32(testQueues)), completion{Result: 64}},
		{"log page 8, beyond", with(log8, 0x18, uint32(testQueues+1)), field(0x18)},
		{"log page 8, far beyond", with(log8, 0x18, ^uint32(0), 0x1c, uint32(1)), field(0x18)},
		{"log page 8, reserved", with(log8, 0x1c, uint32(1)), field(0x1c)},
		{"log page 8, end reserved", with(log8, 0x3f, uint8(1)), field(0x1c)},
		{"log page 8, not mapped", with(log8, 0x08, uint64(64)), completion{Status: npureg.StatusBusFault, Info: 64}},
		{"log page 1 with a first queue", with(goodLog, 0x18, uint32(1)), field(0x18)},
		{"log page 9", with(goodLog, 0x14, uint32(9)), status(npureg.StatusInvalidLogPage)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDriver12(t)
			for _, e := range [][64]byte{with(goodQueue, 0x18, uint16(1)), with(sharedQueue, 0x18, uint16(5))} {
				if c := d.do(t, e); c.Status != 0 {
					t.Fatalf("CREATE_QUEUE: %+v", c)
				}
			}
			sched := d.sched[1]
			if diff := cmp.Diff(tt.want, d.do(t, tt.e)); diff != "" {
				t.Errorf("completion (-want +got):\n%s", diff)
			}
			if tt.want.Status != 0 && (len(d.queues) != 2 || d.state[1] != npureg.QueueEnabled || d.sched[1] != sched) {
				t.Error("a refused command changed a queue")
			}
			if len(d.faults) != 0 {
				t.Errorf("fault records %v", d.faults)
			}
		})
	}
}

// TestQueueControlReserved: without the feature the fields are reserved and the opcodes unknown.
func TestQueueControlReserved(t *testing.T) {
	for _, tt := range []struct {
		name string
		e    [64]byte
		want completion
	}{
		{"MODIFY_QUEUE", modifyQueue, completion{Status: npureg.StatusInvalidOpcode}},
		{"SUSPEND_QUEUE", suspendQueue(1), completion{Status: npureg.StatusInvalidOpcode}},
		{"RESUME_QUEUE", resumeQueue(1), completion{Status: npureg.StatusInvalidOpcode}},
		{"log page 8", with(goodLog, 0x14, uint32(8)), completion{Status: npureg.StatusInvalidLogPage}},
		{"log page 8 with a first queue", with(goodLog, 0x14, uint32(8), 0x18, uint32(1)), completion{Status: npureg.StatusInvalidField, Info: 0x18}},
		{"priority", with(goodQueue, 0x24, uint8(1)), completion{Status: npureg.StatusInvalidField, Info: 0x24}},
		{"weight", with(goodQueue, 0x25, uint8(1)), completion{Status: npureg.StatusInvalidField, Info: 0x24}},
		{"flags", with(goodQueue, 0x26, uint16(1)), completion{Status: npureg.StatusInvalidField, Info: 0x24}},
		{"timeout", with(goodQueue, 0x30, uint32(1)), completion{Status: npureg.StatusInvalidField, Info: 0x30}},
		{"coalescing", with(goodQueue, 0x34, uint16(1)), completion{Status: npureg.StatusInvalidField, Info: 0x30}},
		{"shared", sharedQueue, completion{Status: npureg.StatusInvalidField, Info: 0x1e}}, // no entries
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDriver(t, 8, 8)
			d.host.Set(npureg.FeaturesLo, npureg.FeatureShadowDoorbells)
			d.do(t, goodContext)
			if diff := cmp.Diff(tt.want, d.do(t, tt.e)); diff != "" {
				t.Errorf("completion (-want +got):\n%s", diff)
			}
		})
	}
}

// TestSchedules: what hardware is told.
func TestSchedules(t *testing.T) {
	d := newDriver12(t)
	d.do(t, with(fullQueue, 0x18, uint16(1), 0x26, uint16(0)))
	d.do(t, sharedQueue)
	if diff := cmp.Diff(map[int]QueueSchedule{
		1: {Priority: 2, Weight: 200, Timeout: 70_000, CoalesceCount: 300, CoalesceTime: 40_000}, 2: {},
	}, d.sched); diff != "" {
		t.Errorf("schedules (-want +got):\n%s", diff)
	}
	if o := d.queues[2].Owner; o != 1 {
		t.Errorf("owner %d, want 1", o)
	}
	d.do(t, modifyQueue)
	if diff := cmp.Diff(QueueSchedule{Priority: 3, Weight: 9, Timeout: 250, CoalesceCount: 4, CoalesceTime: 50}, d.sched[1]); diff != "" {
		t.Errorf("schedule (-want +got):\n%s", diff)
	}
}

// TestSuspend: SUSPEND_QUEUE waits for the command in flight; others go on meanwhile.
func TestSuspend(t *testing.T) {
	begin := func(t *testing.T) (d *driver, slow uint16) {
		d = newDriver12(t)
		d.do(t, goodQueue)
		d.busy[2] = true
		slow = d.put(suspendQueue(2))
		d.ring(t)
		if c, ok := d.take(t); ok {
			t.Fatalf("SUSPEND_QUEUE completed while a command was in flight: %+v", c)
		}
		return d, slow
	}
	want := func(t *testing.T, d *driver, id uint16, s npureg.Status) {
		t.Helper()
		if c, ok := d.take(t); !ok || c.CommandID != id || c.Status != s {
			t.Errorf("completion %+v, %v; want %v of id %#x", c, ok, s, id)
		}
		d.p.RingAdminHead(d.head)
	}
	t.Run("ends", func(t *testing.T) {
		d, slow := begin(t)
		for name, row := range map[string]struct {
			e    [64]byte
			want npureg.Status
		}{
			"SUSPEND again": {suspendQueue(2), npureg.StatusBusy},
			"RESUME":        {resumeQueue(2), npureg.StatusBusy},
			"MODIFY":        {with(modifyQueue, 0x08, uint32(2)), npureg.StatusSuccess},
			"IDENTIFY":      {goodIdentify, npureg.StatusSuccess},
		} {
			if c := d.do(t, row.e); c.Status != row.want {
				t.Errorf("%s: %+v, want %v", name, c, row.want)
			}
		}
		d.p.QueueEvent() // of another queue
		d.settle(t)
		d.finish(2)
		d.settle(t)
		want(t, d, slow, npureg.StatusSuccess)
		if c := d.do(t, resumeQueue(2)); c.Status != 0 || d.state[2] != npureg.QueueEnabled {
			t.Errorf("RESUME_QUEUE: %+v, state %d", c, d.state[2])
		}
	})
	t.Run("in the error state", func(t *testing.T) {
		d, slow := begin(t)
		d.state[2] = npureg.QueueError
		d.p.QueueEvent()
		d.settle(t)
		want(t, d, slow, npureg.StatusSuccess)
	})
	t.Run("destroyed meanwhile", func(t *testing.T) {
		d, slow := begin(t)
		destroy := d.put(destroyQueue(2))
		d.ring(t)
		want(t, d, slow, npureg.StatusAborted)
		d.finish(2)
		d.settle(t)
		want(t, d, destroy, npureg.StatusSuccess)
		if c := d.do(t, goodQueue); c.Status != 0 {
			t.Errorf("CREATE_QUEUE: %+v", c)
		}
	})
	t.Run("admin queue restarts", func(t *testing.T) {
		d, _ := begin(t)
		d.enable(t, 8, 8)
		d.finish(2)
		d.settle(t)
		if c, ok := d.take(t); ok {
			t.Errorf("completion for a command of the ring before: %+v", c)
		}
		if c := d.do(t, suspendQueue(2)); c.Status != 0 {
			t.Errorf("SUSPEND_QUEUE: %+v", c)
		}
	})
}

// TestFirmwareTimeouts: what firmware does with a command that hardware calls overdue.
func TestFirmwareTimeouts(t *testing.T) {
	const wait = npureg.QueueFlagWaiting
	for _, tt := range []struct {
		name   string
		flags  uint8
		age    time.Duration
		result uint32
		logged []string
		none   bool
	}{
		{name: "command", flags: npureg.QueueFlagInFlight, age: 20 * time.Millisecond, logged: []string{"timeout: queue 0x2"}},
		{name: "not old enough", flags: npureg.QueueFlagInFlight, age: 19999 * time.Microsecond, none: true},
		{name: "older than 2^32 µs", flags: npureg.QueueFlagInFlight, age: (1<<32 + 1) * time.Microsecond},
		{name: "WAIT", flags: wait, age: time.Second, result: 1}, // TestDeadlocks has all others
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDriver12(t)
			d.place(t, 2, stand{entries: [][64]byte{waitFor(8, 99)}})
			d.status[2] = QueueStatus{Flags: tt.flags, Sequence: 77, Age: tt.age, WaitAddr: 8, Want: 99, SQTail: 1}
			d.overview.Overdue = 2
			d.p.QueueEvent()
			d.settle(t)
			want := [][3]uint32{{2, 77, tt.result}}
			if tt.none {
				want = nil
			}
			if diff := cmp.Diff(want, d.aborts); diff != "" {
				t.Errorf("aborted (-want +got):\n%s", diff)
			}
			if len(d.faults) != 0 {
				t.Errorf("fault records %v", d.faults)
			}
			for _, l := range tt.logged {
				d.logged(t, l)
			}
			if strings.Contains(d.log.String(), "deadlock") {
				t.Errorf("console:\n%s", d.log.String())
			}
			d.overview.Overdue = 0
			if c := d.do(t, goodIdentify); c.Status != 0 {
				t.Errorf("IDENTIFY after it: %+v", c)
			}
		})
	}
}

// TestQueueLog compares log page 8 with §4.19.
func TestQueueLog(t *testing.T) {
	d := newDriver12(t)
	d.do(t, with(goodQueue, 0x18, uint16(3)))
	d.status = map[int]QueueStatus{3: {Flags: 5, Priority: 2, Weight: 7, Owner: 1, SQHead: 0x1001, SQTail: 0x1002, CQHead: 0x1003, CQTail: 0x1004,
		Context: 0x105, Timeout: 0x10000006, Executed: 0x2000000000000007, Errors: 0x10000008, Timeouts: 0x10000009,
		WaitAddr: 0x200000000000000a, Want: 0x200000000000000b, Found: 0x200000000000000c}}
	d.do(t, with(goodLog, 0x14, uint32(8), 0x18, uint32(3)))
	le := binary.LittleEndian
	want := []byte{3, 0, npureg.QueueEnabled, 5, 2, 7, 1, 0}
	for _, v := range []uint16{0x1001, 0x1002, 0x1003, 0x1004} {
		want = le.AppendUint16(want, v)
	}
	want = le.AppendUint64(want, 0x2000000000000007)
	for _, v := range []uint32{0x10000008, 0x10000009, 0x105, 0x10000006} {
		want = le.AppendUint32(want, v)
	}
	for _, v := range []uint64{0x200000000000000a, 0x200000000000000b, 0x200000000000000c} {
		want = le.AppendUint64(want, v)
	}
	if diff := cmp.Diff(want, d.bus(bufAddr, 64)); diff != "" {
		t.Errorf("queue 3 (-want +got):\n%s", diff)
	}
	if b := d.bus(bufAddr+64, 64); b[0] != 4 || b[2] != npureg.QueueDisabled {
		t.Errorf("queue 4: % x", b[:8])
	}
}
