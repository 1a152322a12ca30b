// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"encoding/binary"
	"runtime"
	"testing"
	"time"

	"npuemu/firmware"
	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
	"npuemu/vdev/vfiouser"
)

// TestCommandsAllocateNothing counts what the device allocates for commands once it has
// seen a few, in all its goroutines: doorbell, fetch, execution, completion, interrupt.
func TestCommandsAllocateNothing(t *testing.T) {
	devtest.NeedsFunction(t, "rings in guest memory")
	devtest.NeedsBus(t) // who watches the guest allocates
	h := devtest.New(t, config())
	h.Bring(firmware.Image())
	ctx := h.CreateContext()
	const n = 8
	sqAt, sq := h.Alloc(n * npureg.SQEntrySize)
	cqAt, cq := h.Alloc(n * npureg.CQEntrySize)
	create := devtest.CreateQueueEntry(1, ctx, 1, sqAt, cqAt, n, n)
	create[0x24], create[0x25], create[0x30+2], create[0x34], create[0x36] = 2, 3, 1, 3, 100 // class, weight, timeout, coalescing
	if c := h.Admin(create); c.Status != npureg.StatusSuccess {
		t.Fatal(c)
	}
	buf, _ := h.Alloc(64 << 10)
	le := binary.LittleEndian
	copyEntry := func(spaces byte, nx uint32) devtest.Entry {
		e := devtest.Entry{npureg.CmdCopy}
		e[4] = spaces
		le.PutUint64(e[0x08:], 0)
		le.PutUint64(e[0x10:], 0)
		if spaces&15 == 0 {
			le.PutUint64(e[0x08:], buf)
		}
		if spaces>>4 == 0 {
			le.PutUint64(e[0x10:], buf)
		}
		le.PutUint32(e[0x18:], nx)
		le.PutUint16(e[0x1c:], 1)
		le.PutUint16(e[0x1e:], 1)
		return e
	}
	launch := h.Launch(program(t, ".spad 1024\n.acc 1024\n.bindings 2\nload binding=0 local=0 nx=64\nstore binding=1 local=0 nx=64\nhalt\n"),
		devtest.Binding{Addr: buf, Size: 64, Read: true}, devtest.Binding{Addr: 4096, Size: 64, Write: true, Space: 1})

	tail, head, phase := 0, 0, uint16(1)
	var p [4]byte
	ring := func(off uint32, v int) {
		le.PutUint32(p[:], uint32(v))
		if err := h.Dev.WriteRegion(vfiouser.RegionBAR0, uint64(devtest.Doorbell(1)+off), p[:]); err != nil {
			t.Fatal(err)
		}
	}
	do := func(e *devtest.Entry) {
		copy(sq[tail*npureg.SQEntrySize:], e[:])
		tail = (tail + 1) % n
		ring(npureg.DoorbellSQTail, tail)
		done := cq[head*npureg.CQEntrySize:][:npureg.CQEntrySize]
		for end := time.Now().Add(devtest.Timeout); le.Uint16(done[0x1e:])&1 != phase; runtime.Gosched() {
			if time.Now().After(end) {
				t.Fatal("no completion")
			}
		}
		if s := npureg.Status(le.Uint16(done[0x1e:]) >> 1); s != npureg.StatusSuccess {
			t.Fatal(s)
		}
		if head++; head == n {
			head, phase = 0, phase^1
		}
		ring(npureg.DoorbellCQHead, head)
	}
	for _, tt := range []struct {
		name string
		e    devtest.Entry
	}{
		{"NOP", devtest.Entry{npureg.CmdNop}},
		{"COPY to the device", copyEntry(1<<4, 64<<10)},
		{"COPY from the device", copyEntry(1, 64<<10)},
		{"LAUNCH", launch},
		{"SIGNAL", signal(0, buf+4096, 5)},
		{"WAIT", wait(0, buf+4096, 5)},
	} {
		if n := testing.AllocsPerRun(200, func() { do(&tt.e) }); n != 0 {
			t.Errorf("%s: %v allocations", tt.name, n)
		}
	}
}
