// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"encoding/binary"
	"runtime"
	"testing"
	"time"

	"npuemu/core/isa"
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
	launch := h.Launch(program(t, ".spad 1024\n.acc 1024\n.bindings 2\nload binding=0 local=0 nx=64 signal=0\nstore binding=1 local=0 nx=64 wait=0\nhalt\n"),
		devtest.Binding{Addr: buf, Size: 64, Read: true}, devtest.Binding{Addr: 4096, Size: 64, Write: true, Space: 1})
	layer, err := isa.Assemble("layer", []byte(layerText))
	if err != nil {
		t.Fatal(err)
	}
	product := h.Launch(layer.Image(), devtest.Binding{Addr: buf, Size: 64 << 10, Read: true}, devtest.Binding{Addr: 65536, Size: 16 << 10, Write: true, Space: 1})

	// The same in virtual memory.
	pt := h.NewPageTable()
	pt.Map(0, 64<<10, 0, buf, npureg.EntryRead|npureg.EntryWrite)
	pt.Map(1<<40, 64<<10, 1, 0, npureg.EntryRead|npureg.EntryWrite)
	virtual := launch
	virtual[0x1c] = 2 | 2<<4
	code, table := le.Uint64(launch[0x08:]), le.Uint64(launch[0x10:])
	pt.Map(code, 4096, 0, code, npureg.EntryExecute)
	pt.Map(table, 4096, 0, h.Put(virtualTable(0, 1<<40)), npureg.EntryRead)
	both := func(from, to uint64) devtest.Entry {
		e := copyEntry(2|2<<4, 64<<10)
		le.PutUint64(e[0x08:], from)
		le.PutUint64(e[0x10:], to)
		return e
	}

	do := [3]func(e *devtest.Entry){1: doer(t, h, 1, h.CreateContext()), 2: doer(t, h, 2, h.CreateTranslated(pt))}
	for _, tt := range []struct {
		name  string
		queue int
		e     devtest.Entry
	}{
		{"NOP", 1, devtest.Entry{npureg.CmdNop}},
		{"COPY to the device", 1, copyEntry(1<<4, 64<<10)},
		{"COPY from the device", 1, copyEntry(1, 64<<10)},
		{"LAUNCH", 1, launch},
		{"LAUNCH of a layer", 1, product},
		{"SIGNAL", 1, signal(0, buf+4096, 5)},
		{"WAIT", 1, wait(0, buf+4096, 5)},
		{"COPY to the device, translated", 2, both(0, 1<<40)},
		{"COPY from the device, translated", 2, both(1<<40, 0)},
		{"LAUNCH, translated", 2, virtual},
		{"SIGNAL, translated", 2, signal(2, 4096, 6)},
		{"WAIT, translated", 2, wait(2, 4096, 6)},
	} {
		if n := testing.AllocsPerRun(200, func() { do[tt.queue](&tt.e) }); n != 0 {
			t.Errorf("%s: %v allocations", tt.name, n)
		}
	}
}

// layerText is a product with bias and REQUANT: operands come from host memory, the result goes to device memory.
const layerText = `.isa 1.1
.features gemm
.spad 65536
.acc 65536
.bindings 2
load     binding=0 local=0 nx=32768 signal=0
fill     local=65528 nx=4 value=64
fill     local=65532 nx=1 value=40
bias     n=128 m=128 acc_stride=512 bias=0 acc=0 wait=0 signal=1
operands a_stride=128 b_stride=128 acc_stride=512 wait=1
gemm     m=128 n=128 k=128 a=0 b=16384 acc=0 accumulate signal=2
requant  n=128 acc_stride=512 acc=0 out=32768 params=65528 mx=128 my=1 out_stride_x=128 wait=2 signal=3
store    binding=1 local=32768 nx=16384 wait=3
halt
`

// virtualTable is a binding table of 64 bytes to read and 64 to write.
func virtualTable(from, to uint64) []byte {
	b := make([]byte, 2*npureg.BindingSize)
	for i, addr := range []uint64{from, to} {
		binary.LittleEndian.PutUint64(b[i*npureg.BindingSize:], addr)
		binary.LittleEndian.PutUint64(b[i*npureg.BindingSize+8:], 64)
		binary.LittleEndian.PutUint32(b[i*npureg.BindingSize+16:], 1<<i|2<<4)
	}
	return b
}

// doer creates a queue and returns what executes a command on it by the device's own methods.
func doer(t *testing.T, h *devtest.Host, queue int, context uint32) func(e *devtest.Entry) {
	t.Helper()
	le := binary.LittleEndian
	const n = 8
	sqAt, sq := h.Alloc(n * npureg.SQEntrySize)
	cqAt, cq := h.Alloc(n * npureg.CQEntrySize)
	create := devtest.CreateQueueEntry(queue, context, queue, sqAt, cqAt, n, n)
	create[0x24], create[0x25], create[0x30+2], create[0x34], create[0x36] = 2, 3, 1, 3, 100 // class, weight, timeout, coalescing
	if c := h.Admin(create); c.Status != npureg.StatusSuccess {
		t.Fatal(c)
	}
	tail, head, phase := 0, 0, uint16(1)
	var p [4]byte
	ring := func(off uint32, v int) {
		le.PutUint32(p[:], uint32(v))
		if err := h.Dev.WriteRegion(vfiouser.RegionBAR0, uint64(devtest.Doorbell(queue)+off), p[:]); err != nil {
			t.Fatal(err)
		}
	}
	return func(e *devtest.Entry) {
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
}
