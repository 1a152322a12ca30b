// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npuemu/dma/iova"
	"npuemu/firmware"
	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
)

// What a process of these tests has in its virtual memory. Nothing is at the same place as on the bus.
const (
	vaProgram = 0x7f00_1234_5000 // X
	vaTable   = 0x0010_0000_2000 // R
	vaSource  = 0x8000_0000_0000 // R
	vaDest    = 0xffff_ffff_c000 // W, up to the last address
	vaBoth    = 0x4000_0020_0000 // R, W, a large page in device memory
	vaSize    = 4 * npureg.PageSize

	r = npureg.EntryRead
	w = npureg.EntryWrite
	x = npureg.EntryExecute
)

// process is a translated context with a queue of its own.
type process struct {
	*devtest.Host
	*devtest.PageTable
	context uint32
	queue   int

	sourceAt       [4]uint64
	destAt         [4]uint64
	program, table []byte
	programAt      uint64
}

// newProcess makes a process whose pages lie scattered in guest memory, and the tables in one memory or the other.
func newProcess(h *devtest.Host, queue int, inDevice bool) *process {
	h.T.Helper()
	p := &process{Host: h, queue: queue}
	if inDevice {
		p.PageTable = h.NewDevicePageTable(0x40000 * uint64(queue))
	} else {
		p.PageTable = h.NewPageTable()
	}
	page := func(va uint64, bits uint64) (uint64, []byte) {
		at, b := h.Alloc(npureg.PageSize)
		p.Map(va, npureg.PageSize, 0, at, bits)
		return at, b
	}
	for _, i := range []int{2, 0, 3, 1} {
		p.sourceAt[i], _ = page(vaSource+uint64(i)*npureg.PageSize, r)
		p.destAt[i], _ = page(vaDest+uint64(i)*npureg.PageSize, w)
	}
	p.programAt, p.program = page(vaProgram, x)
	_, p.table = page(vaTable, r)
	p.Set(vaBoth, 2, devtest.Entry64(1, 0, r|w|npureg.EntryLeaf))
	p.context = h.CreateTranslated(p.PageTable)
	h.CreateQueue(queue, p.context, queue, 8)
	return p
}

// end takes the process away.
func (p *process) end() {
	p.T.Helper()
	p.DestroyQueue(p.queue)
	p.DestroyContext(p.context)
}

// reserve returns where guest memory is free for processes that come and go, with queues 2 to 4: a virtqueue keeps its memory.
func reserve(h *devtest.Host, context uint32) uint64 {
	h.T.Helper()
	for q := 2; q <= 4; q++ {
		h.CreateQueue(q, context, q, 8)
		h.DestroyQueue(q)
	}
	free, _ := h.Alloc(1)
	return free
}

// copy is COPY between virtual addresses.
func (p *process) copy(from, to uint64, n uint32) devtest.Entry {
	return copyEntry(2, 2, from, to, n, 1, 1)
}

// launch is LAUNCH of text with two bindings: 0 is read, 1 is written.
func (p *process) launch(t *testing.T, text string, from, to, size uint64) devtest.Entry {
	t.Helper()
	image := program(t, text)
	clear(p.program)
	copy(p.program, image)
	clear(p.table)
	for i, b := range []struct{ addr, flags uint64 }{{from, 1 | 2<<4}, {to, 2 | 2<<4}} {
		le.PutUint64(p.table[i*npureg.BindingSize:], b.addr)
		le.PutUint64(p.table[i*npureg.BindingSize+8:], size)
		le.PutUint32(p.table[i*npureg.BindingSize+16:], uint32(b.flags))
	}
	e := devtest.Entry{npureg.CmdLaunch}
	le.PutUint64(e[0x08:], vaProgram)
	le.PutUint64(e[0x10:], vaTable)
	le.PutUint32(e[0x18:], 2)
	e[0x1c] = 2 | 2<<4
	le.PutUint32(e[0x20:], uint32(len(image)))
	return e
}

const moveText = ".spad 8192\n.bindings 2\nload binding=0 local=0 nx=8192\nstore binding=1 local=0 nx=8192\nhalt\n"

// guest returns the bytes of a page of the process.
func (p *process) guest(at uint64) []byte { return p.Bytes(at, npureg.PageSize) }

// TestTranslated copies and computes between pages that lie anywhere.
func TestTranslated(t *testing.T) {
	for _, inDevice := range []bool{false, true} {
		t.Run(map[bool]string{false: "tables on the bus", true: "tables in device memory"}[inDevice], func(t *testing.T) {
			h, _ := ready(t)
			p := newProcess(h, 2, inDevice)
			rng := rand.New(rand.NewPCG(1, 9))
			want := make([]byte, vaSize)
			for i := range want {
				want[i] = byte(rng.Uint32())
			}
			for i, at := range p.sourceAt {
				copy(p.guest(at), want[i*npureg.PageSize:])
			}
			check := func(what string, from, to int) {
				t.Helper()
				for i, at := range p.destAt {
					for j, b := range p.guest(at) {
						k := i*npureg.PageSize + j
						if k >= from && k < to && b != want[k] {
							t.Fatalf("%s: byte %#x is %#x, want %#x", what, k, b, want[k])
						}
					}
					clear(p.guest(at))
				}
			}
			if c := h.Do(2, p.copy(vaSource+5, vaDest+5, vaSize-5)); c.Status != 0 || c.Info != vaSize-5 {
				t.Fatalf("COPY: %v", c)
			}
			check("COPY", 5, vaSize)
			// By way of device memory, a large page of which only the first half is there.
			if c := h.Do(2, p.copy(vaSource, vaBoth+0x12345, vaSize)); c.Status != 0 {
				t.Fatalf("COPY to device memory: %v", c)
			}
			if c := h.Do(2, p.copy(vaBoth+0x12345, vaDest, vaSize)); c.Status != 0 {
				t.Fatalf("COPY from device memory: %v", c)
			}
			check("two COPYs", 0, vaSize)
			if c := h.Do(2, p.launch(t, moveText, vaSource+0x800, vaDest+0x800, 8192)); c.Status != 0 || c.Result != 3 {
				t.Fatalf("LAUNCH: %v", c)
			}
			check("LAUNCH", 0x800, 0x2800)

			before := h.Log(2, 8*npureg.CounterCount)
			hits, misses := le.Uint64(before[8*npureg.CounterTLBHits:]), le.Uint64(before[8*npureg.CounterTLBMisses:])
			if hits == 0 || misses < 11 { // 8 pages of data, one of device memory, program, table
				t.Errorf("%d TLB hits, %d misses", hits, misses)
			}
			h.Do(2, p.copy(vaSource, vaDest, 16))
			h.InvalidateTLB(p.context, vaDest, npureg.PageSize)
			h.Do(2, p.copy(vaSource, vaDest, 16))
			after := h.Log(2, 8*npureg.CounterCount)
			if d := le.Uint64(after[8*npureg.CounterTLBHits:]) - hits; d != 3 {
				t.Errorf("%d TLB hits of three accesses to known pages", d)
			}
			if d := le.Uint64(after[8*npureg.CounterTLBMisses:]) - misses; d != 1 {
				t.Errorf("%d TLB misses after one invalidation", d)
			}
			if n, _ := h.FaultLog(); n != 0 || le.Uint64(after[8*npureg.CounterTranslationFaults:]) != 0 || h.Faulted() {
				t.Errorf("%d faults", n)
			}
			p.end()
			if c := h.Do(1, nop()); c.Status != 0 {
				t.Errorf("the other context: %v", c)
			}
		})
	}
}

// fault is a command that faults its context, and what is told of it.
type fault struct {
	name   string
	e      func(t *testing.T, p *process) devtest.Entry
	status npureg.Status
	result uint32
	want   devtest.FaultRecord // but for Number, Status, Context, Queue, Index, ID
	anyAt  bool                // Addr and Entry are of a table that the test did not choose
}

const nowhere = 0xdead_b000 // not mapped on the bus, and outside device memory

func faults() []fault {
	cp := func(from, to uint64, n uint32) func(*testing.T, *process) devtest.Entry {
		return func(_ *testing.T, p *process) devtest.Entry { return p.copy(from, to, n) }
	}
	set := func(va uint64, level int, entry uint64, then func(*testing.T, *process) devtest.Entry) func(*testing.T, *process) devtest.Entry {
		return func(t *testing.T, p *process) devtest.Entry {
			p.Set(va, level, entry)
			return then(t, p)
		}
	}
	run := func(text string, from, to uint64) func(*testing.T, *process) devtest.Entry {
		return func(t *testing.T, p *process) devtest.Entry { return p.launch(t, text, from, to, 8192) }
	}
	const (
		tf    = npureg.StatusTranslationFault
		page1 = vaSource + npureg.PageSize
		leaf  = npureg.EntryLeaf
	)
	rec := func(engine, access, reason, level uint8, va uint64) devtest.FaultRecord {
		return devtest.FaultRecord{Engine: engine, Access: access, Reason: reason, Level: level, VA: va}
	}
	at := func(f devtest.FaultRecord, space uint8, addr uint64) devtest.FaultRecord {
		f.Space, f.Addr = space, addr
		return f
	}
	const (
		cmd, dma, ld, st                            = npureg.FaultByCommand, npureg.FaultByDMA, npureg.FaultByLoad, npureg.FaultByStore
		rd, wr, ex                                  = npureg.AccessRead, npureg.AccessWrite, npureg.AccessExecute
		absent, denied, bad, table, target, outside = npureg.ReasonNotPresent, npureg.ReasonPermission, npureg.ReasonReserved, npureg.ReasonTable, npureg.ReasonTarget, npureg.ReasonRange
	)
	return []fault{
		{"COPY from where nothing is", cp(0x1000, vaDest, 16), tf, 0, rec(dma, rd, absent, 3, 0x1000), true},
		{"COPY to where nothing is", cp(vaSource, 0x5555_5555_5555, 16), tf, 0, rec(dma, wr, absent, 4, 0x5555_5555_5555), true},
		{"COPY, both wrong: the source first", cp(0x1000, 0x2000, 16), tf, 0, rec(dma, rd, absent, 3, 0x1000), true},
		{"COPY whose second page is not there", set(page1, 1, 0, cp(vaSource+0xff0, vaDest, 32)), tf, 0, rec(dma, rd, absent, 1, page1), true},
		{"COPY whose third row is not there", set(page1, 1, 0, func(*testing.T, *process) devtest.Entry {
			return copyEntry(2, 2, vaSource, vaDest, 16, 4, 1, 0x800, 0, 16)
		}), tf, 2, rec(dma, rd, absent, 1, page1), true},
		{"COPY from a page without R", cp(vaDest, vaBoth, 16), tf, 0, rec(dma, rd, denied, 1, vaDest), true},
		{"COPY from a program", cp(vaProgram, vaBoth, 16), tf, 0, rec(dma, rd, denied, 1, vaProgram), true},
		{"COPY to a page without W", cp(vaBoth, vaSource, 16), tf, 0, rec(dma, wr, denied, 1, vaSource), true},
		{"COPY beyond the last address", cp(vaSource, 1<<48-8, 16), tf, 0, rec(dma, wr, outside, 0, 1<<48), false},
		{"COPY from a sign-extended address", cp(0xffff_8000_0000_0000, vaDest, 16), tf, 0, rec(dma, rd, outside, 0, 0xffff_8000_0000_0000), false},
		{"reserved bit", set(page1, 1, devtest.Entry64(0, 0, r|leaf|1<<9), cp(page1, vaDest, 16)), tf, 0, rec(dma, rd, bad, 1, page1), true},
		{"large page not aligned", set(vaBoth, 2, devtest.Entry64(1, 0x1000, r|leaf), cp(vaBoth, vaDest, 16)), tf, 0, rec(dma, rd, bad, 2, vaBoth), true},
		{"page in virtual memory", set(page1, 1, devtest.Entry64(2, 0, r|leaf), cp(page1, vaDest, 16)), tf, 0, rec(dma, rd, bad, 1, page1), true},
		{
			"table not on the bus", set(0x1000_0000, 2, devtest.Entry64(0, nowhere, 0), cp(0x1000_3000, vaDest, 16)), tf, 0,
			at(rec(dma, rd, table, 1, 0x1000_3000), 0, nowhere+8*3), false,
		},
		{
			"table outside device memory", set(0x1000_0000, 3, devtest.Entry64(1, nowhere, 0), cp(0x1000_3000, vaDest, 16)), tf, 0,
			at(rec(dma, rd, table, 2, 0x1000_3000), 1, nowhere+8*0x80), false,
		},
		{
			"page not on the bus", set(page1, 1, devtest.Entry64(0, nowhere, r|leaf), cp(page1+8, vaDest, 16)), npureg.StatusBusFault, 0,
			at(rec(dma, rd, target, 0, page1+8), 0, nowhere+8), false,
		},
		{
			"page outside device memory", cp(vaSource, vaBoth+0xffff8, 16), npureg.StatusDeviceFault, 0,
			at(rec(dma, wr, target, 0, vaBoth+0x100000), 1, 0x100000), false,
		},
		{"program without X", set(vaProgram, 1, devtest.Entry64(1, 0, r|w|leaf), run(moveText, vaSource, vaDest)), tf, 0, rec(cmd, ex, denied, 1, vaProgram), true},
		{"program not there", set(vaProgram, 1, 0, run(moveText, vaSource, vaDest)), tf, 0, rec(cmd, ex, absent, 1, vaProgram), true},
		{
			"program not on the bus", set(vaProgram, 1, devtest.Entry64(0, nowhere, x|leaf), run(moveText, vaSource, vaDest)), npureg.StatusBusFault, 0,
			at(rec(cmd, ex, target, 0, vaProgram), 0, nowhere), false,
		},
		{"text not there", func(t *testing.T, p *process) devtest.Entry {
			p.Map(vaProgram-npureg.PageSize, npureg.PageSize, 0, p.programAt, x)
			p.Set(vaProgram, 1, 0)
			e := p.launch(t, moveText, vaSource, vaDest, 8192)
			copy(p.program[npureg.PageSize-64:], p.program[:64]) // the descriptor ends the page
			le.PutUint64(e[8:], vaProgram-64)
			return e
		}, tf, 0, rec(cmd, ex, absent, 1, vaProgram), true},
		{"binding table without R", set(vaTable, 1, devtest.Entry64(1, 0, x|w|leaf), run(moveText, vaSource, vaDest)), tf, 0, rec(cmd, rd, denied, 1, vaTable), true},
		{"LOAD from where nothing is", run(moveText, 0x1000, vaDest), tf, 0, rec(ld, rd, absent, 3, 0x1000), true},
		{"LOAD whose second page is not there", set(page1, 1, 0, run(moveText, vaSource+0x10, vaDest)), tf, 0, rec(ld, rd, absent, 1, page1), true},
		{"LOAD without R", run(moveText, vaDest, vaBoth), tf, 0, rec(ld, rd, denied, 1, vaDest), true},
		{"LOAD from the last page", run(moveText, 1<<48-0x1000, vaDest), tf, 0, rec(ld, rd, denied, 1, 1<<48-0x1000), true},
		{"LOAD from no address", run(moveText, 1<<48, vaDest), tf, 0, rec(ld, rd, outside, 0, 1<<48), false},
		{
			"LOAD that the bus refuses", set(vaSource, 1, devtest.Entry64(0, nowhere, r|leaf), run(moveText, vaSource, vaDest)), npureg.StatusMemoryFault, 0,
			at(rec(ld, rd, target, 0, vaSource), 0, nowhere), false,
		},
		{"STORE without W", run(moveText, vaSource, vaSource), tf, 1, rec(st, wr, denied, 1, vaSource), true},
		{"STORE to where nothing is", run(moveText, vaSource, 0x1000), tf, 1, rec(st, wr, absent, 3, 0x1000), true},
		{
			"STORE that device memory refuses", run(moveText, vaSource, vaBoth+0x100000), npureg.StatusMemoryFault, 1,
			at(rec(st, wr, target, 0, vaBoth+0x100000), 1, 0x100000), false,
		},
	}
}

// TestTranslationFaults is every fault of §11.5 with all that is told of it. Each stops its context, and nothing else.
func TestTranslationFaults(t *testing.T) {
	h, context := ready(t)
	reserve(h, context)
	other := newProcess(h, 3, true)
	free, _ := h.Alloc(1)
	for n, tt := range faults() {
		t.Run(tt.name, func(t *testing.T) {
			h.T = t
			h.Rewind(free)
			p := newProcess(h, 2, n%2 == 1)
			h.CreateQueue(4, p.context, 4, 8)
			if c := h.Do(2, nop()); c.Status != 0 {
				t.Fatalf("NOP before it: %v", c)
			}
			var event []byte
			if devtest.InUse() == devtest.VHostUser {
				event = h.OfferEvent()
			}
			id := h.Submit(2, tt.e(t, p))
			c := h.Wait(2)
			if c.Status != tt.status || c.Result != tt.result || c.Info != tt.want.VA || c.ID != id {
				t.Errorf("%v; want %v result %d info %#x", c, tt.status, tt.result, tt.want.VA)
			}
			want := tt.want
			want.Number, want.Status, want.Context, want.Queue, want.Index, want.ID = uint32(n+1), tt.status, uint16(p.context), 2, 1, id
			total, log := h.FaultLog()
			if int(total) != n+1 || len(log) != n+1 {
				t.Fatalf("%d faults, %d records; want %d", total, len(log), n+1)
			}
			got := log[n]
			if tt.anyAt {
				if got.Addr%8 != 0 || got.Level == 0 {
					t.Errorf("record %+v names no entry", got)
				}
				want.Addr, want.Entry, want.Space = got.Addr, got.Entry, got.Space
			}
			if devtest.InUse() == devtest.VHostUser {
				got.ID, got.Index = want.ID, want.Index // of the ring behind the virtqueue
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("record (-want +got):\n%s", diff)
			}
			if event == nil {
				wantRegs(t, h, got)
			} else if h.AwaitEvent(); le.Uint16(event) != 1 || npureg.Status(le.Uint16(event[4:])) != got.Status || event[8] != 2 || event[9] != npureg.FaultMMU ||
				le.Uint32(event[0x0c:]) != contextReg(got) || le.Uint64(event[0x10:]) != got.Addr || le.Uint64(event[0x18:]) != got.VA {
				t.Errorf("event % x of record %+v", event, got)
			}

			// The context has stopped: its queues are deaf, and none can be added.
			if devtest.InUse() != devtest.VHostUser {
				h.Submit(4, nop())
				h.Submit(2, nop())
			}
			if c := h.Do(3, other.copy(vaSource, vaDest, vaSize)); c.Status != 0 {
				t.Errorf("another translated context: %v", c)
			}
			if c := h.Do(1, nop()); c.Status != 0 {
				t.Errorf("a context that is not translated: %v", c)
			}
			if devtest.InUse() != devtest.VHostUser {
				if h.Posted(2) || h.Posted(4) {
					t.Error("a command of a context that faulted completed")
				}
				if c := h.Admin(devtest.CreateQueueEntry(5, p.context, 0, free, free, 2, 2)); c.Status != npureg.StatusContextFaulted {
					t.Errorf("CREATE_QUEUE: %v", c)
				}
			} else if c := h.Admin(devtest.CreateQueueEntry(5, p.context, 0, 0, 0, 0, 0)); c.Status != npureg.StatusContextFaulted {
				t.Errorf("CREATE_QUEUE: %v", c)
			}
			h.InvalidateTLB(p.context, 0, 0)
			h.DestroyQueue(4)
			p.end()
		})
	}
	h.T = t
	if c := h.Do(1, nop()); c.Status != 0 {
		t.Errorf("NOP: %v", c)
	}
	found := map[string]string{}
	for _, f := range h.Dev.Findings() {
		found[f.ID] = f.Last
	}
	for id, want := range map[string]string{
		"fault-TRANSLATION_FAULT": "core store, queue 2, index 1, command",
		"fault-MEMORY_FAULT":      "write of virtual address 0x400000300000: target refused (§11.5): device address 0x100000",
		"fault-BUS_FAULT":         "execute of virtual address 0x7f0012345000: target refused (§11.5): bus address 0xdeadb000",
	} {
		if devtest.InUse() == devtest.VHostUser {
			continue // index and queue are the ring's behind the virtqueue
		}
		if !bytes.Contains([]byte(found[id]), []byte(want)) {
			t.Errorf("finding %s: %q has no %q", id, found[id], want)
		}
	}
}

// contextReg is FAULT_CONTEXT of a record.
func contextReg(f devtest.FaultRecord) uint32 {
	return uint32(f.Context) | uint32(f.Engine)<<16 | uint32(f.Access)<<20 | uint32(f.Reason)<<24 | uint32(f.Level)<<28
}

// wantRegs compares the fault record with a record of the log, and clears it.
func wantRegs(t *testing.T, h *devtest.Host, f devtest.FaultRecord) {
	t.Helper()
	for _, reg := range []struct {
		name string
		off  uint32
		want uint32
	}{
		{"FAULT_STATUS", npureg.FaultStatus, npureg.FaultValid | uint32(f.Status)<<16},
		{"FAULT_INFO", npureg.FaultInfo, uint32(f.Queue) | npureg.FaultMMU<<8 | uint32(f.Index)<<16},
		{"FAULT_ADDR_LO", npureg.FaultAddrLo, uint32(f.Addr)},
		{"FAULT_ADDR_HI", npureg.FaultAddrHi, uint32(f.Addr >> 32)},
		{"FAULT_CONTEXT", npureg.FaultContext, contextReg(f)},
		{"FAULT_COMMAND", npureg.FaultCommand, uint32(f.ID) | uint32(f.Index)<<16},
		{"FAULT_VA_LO", npureg.FaultVALo, uint32(f.VA)},
		{"FAULT_VA_HI", npureg.FaultVAHi, uint32(f.VA >> 32)},
	} {
		if got := h.Read32(reg.off); got != reg.want {
			t.Errorf("%s: %#x, want %#x", reg.name, got, reg.want)
		}
	}
	if h.Read32(npureg.IRQStatus)&npureg.IRQFault == 0 {
		t.Error("no cause FAULT")
	}
	h.Write32(npureg.FaultStatus, npureg.FaultValid|npureg.FaultOverflow)
	h.Write32(npureg.IRQStatus, npureg.IRQFault)
}

// TestTranslatedMistakes: what is wrong with a command by itself faults nothing.
func TestTranslatedMistakes(t *testing.T) {
	h, context := ready(t)
	p := newProcess(h, 2, false)
	launch := func(change func(e *devtest.Entry)) devtest.Entry {
		e := p.launch(t, moveText, vaSource, vaDest, 8192)
		change(&e)
		return e
	}
	for _, tt := range []struct {
		name  string
		queue int
		e     func() devtest.Entry
		want  npureg.Status
		info  uint64
	}{
		{"COPY from the bus", 2, func() devtest.Entry { return copyEntry(0, 2, p.sourceAt[0], vaDest, 16, 1, 1) }, npureg.StatusInvalidField, 4},
		{"COPY to the bus", 2, func() devtest.Entry { return copyEntry(2, 0, vaSource, p.destAt[0], 16, 1, 1) }, npureg.StatusInvalidField, 4},
		{"COPY to device memory", 2, func() devtest.Entry { return copyEntry(2, 1, vaSource, 0, 16, 1, 1) }, npureg.StatusInvalidField, 4},
		{"COPY from space 3", 2, func() devtest.Entry { return copyEntry(3, 2, vaSource, vaDest, 16, 1, 1) }, npureg.StatusInvalidField, 4},
		{"COPY past 2^64", 2, func() devtest.Entry { return copyEntry(2, 2, ^uint64(0), vaDest, 2, 1, 1) }, npureg.StatusInvalidField, 8},
		{"LAUNCH on the bus", 2, func() devtest.Entry { return launch(func(e *devtest.Entry) { e[0x1c] = 2 << 4 }) }, npureg.StatusInvalidField, 0x1c},
		{"LAUNCH with a table on the bus", 2, func() devtest.Entry { return launch(func(e *devtest.Entry) { e[0x1c] = 2 }) }, npureg.StatusInvalidField, 0x1c},
		{"LAUNCH without bindings, their space", 2, func() devtest.Entry {
			return launch(func(e *devtest.Entry) {
				e[0x1c] = 2
				le.PutUint64(e[0x10:], 0)
				e[0x18] = 0
			})
		}, npureg.StatusInvalidField, 0x1c},
		{"binding on the bus", 2, func() devtest.Entry {
			return launch(func(*devtest.Entry) { le.PutUint32(p.table[0x10:], 1) })
		}, npureg.StatusInvalidBinding, 0},
		{"binding in device memory", 2, func() devtest.Entry {
			return launch(func(*devtest.Entry) { le.PutUint32(p.table[0x30:], 2|1<<4) })
		}, npureg.StatusInvalidBinding, 1},
		{"binding past 2^64", 2, func() devtest.Entry {
			return launch(func(*devtest.Entry) { le.PutUint64(p.table, ^uint64(0)) })
		}, npureg.StatusInvalidBinding, 0},
		{"not translated: COPY from virtual memory", 1, func() devtest.Entry { return copyEntry(2, 0, vaSource, p.destAt[0], 16, 1, 1) }, npureg.StatusInvalidField, 4},
		{"not translated: COPY to virtual memory", 1, func() devtest.Entry { return copyEntry(0, 2, p.sourceAt[0], vaDest, 16, 1, 1) }, npureg.StatusInvalidField, 4},
		{"not translated: LAUNCH in virtual memory", 1, func() devtest.Entry { return launch(func(*devtest.Entry) {}) }, npureg.StatusInvalidField, 0x1c},
		{"not translated: binding in virtual memory", 1, func() devtest.Entry {
			return h.Launch(program(t, ".bindings 1\nhalt\n"), devtest.Binding{Addr: vaSource, Size: 16, Read: true, Space: 2})
		}, npureg.StatusInvalidBinding, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h.T = t
			if c := h.Do(tt.queue, tt.e()); c.Status != tt.want || c.Info != tt.info {
				t.Errorf("%v; want %v info %#x", c, tt.want, tt.info)
			}
			if c := h.Do(2, p.copy(vaSource, vaDest, vaSize)); c.Status != 0 {
				t.Errorf("next command: %v", c)
			}
		})
	}
	h.T = t
	if n, _ := h.FaultLog(); n != 0 || h.Faulted() {
		t.Errorf("%d faults", n)
	}
	// The rules of CREATE_CONTEXT and INVALIDATE_TLB are firmware's (firmware/mmu_test.go); here, that they arrive.
	for _, tt := range []struct {
		name string
		e    devtest.Entry
		want npureg.Status
		info uint64
	}{
		{"root not aligned", devtest.CreateTranslatedEntry(0, 0x800), npureg.StatusInvalidField, 8},
		{"root in virtual memory", devtest.CreateTranslatedEntry(2, 0x1000), npureg.StatusInvalidField, 0x10},
		{"invalidation past the last address", devtest.Entry{npureg.AdminInvalidateTLB, 0x15: 0xff, 0x16: 0xff, 0x18: byte(p.context)}, npureg.StatusInvalidField, 0x10},
		{"invalidation of no context", devtest.Entry{npureg.AdminInvalidateTLB, 0x18: 60}, npureg.StatusInvalidContext, 0},
		{"invalidation of a context that is not translated", devtest.Entry{npureg.AdminInvalidateTLB, 0x18: byte(context)}, 0, 0},
		{"invalidation of everything", devtest.Entry{npureg.AdminInvalidateTLB}, 0, 0},
		{"DESTROY_CONTEXT with a queue", devtest.Entry{npureg.AdminDestroyContext, 8: byte(p.context)}, npureg.StatusBusy, 0},
	} {
		if c := h.Admin(tt.e); c.Status != tt.want || c.Info != tt.info {
			t.Errorf("%s: %v; want %v info %#x", tt.name, c, tt.want, tt.info)
		}
	}
}

// TestHostileContext: what a context computes does not depend on another one that faults all the time.
func TestHostileContext(t *testing.T) {
	h, context := ready(t)
	reserve(h, context)
	good := newProcess(h, 2, false)
	results := func(disturb func(i int)) (lines []string) {
		rng := rand.New(rand.NewPCG(4, 4))
		for i := range 40 {
			for _, at := range good.sourceAt {
				for j := range good.guest(at) {
					good.guest(at)[j] = byte(rng.Uint32())
				}
			}
			for _, at := range good.destAt {
				clear(good.guest(at))
			}
			e := good.copy(vaSource, vaDest, vaSize)
			if i%2 == 1 {
				e = good.launch(t, moveText, vaSource+64, vaDest+64, 8192)
			}
			h.Submit(2, e)
			if disturb != nil {
				disturb(i)
			}
			c := h.Wait(2)
			line := fmt.Sprintf("%v %d %#x", c.Status, c.Result, c.Info)
			for _, at := range good.destAt {
				line += fmt.Sprintf(" %x", bytes.Clone(good.guest(at)[:256]))
			}
			lines = append(lines, line)
		}
		return lines
	}
	alone := results(nil)
	free, _ := h.Alloc(1)
	all := faults()
	disturbed := results(func(i int) {
		h.Rewind(free)
		bad := newProcess(h, 3, i%2 == 0)
		h.Submit(3, all[i%len(all)].e(t, bad))
		if c := h.Wait(3); c.Status != all[i%len(all)].status {
			t.Errorf("%s: %v", all[i%len(all)].name, c)
		}
		bad.end()
	})
	if diff := cmp.Diff(alone, disturbed); diff != "" {
		t.Errorf("results (-alone +disturbed):\n%s", diff)
	}
	if total, log := h.FaultLog(); total != 40 || len(log) != 40 {
		t.Errorf("%d faults, %d records", total, len(log))
	}
}

// TestFaultLogWraps keeps the last 64 faults.
func TestFaultLogWraps(t *testing.T) {
	h, context := ready(t)
	free := reserve(h, context)
	for i := range 70 {
		h.Rewind(free)
		p := newProcess(h, 2, false)
		if c := h.Do(2, p.copy(uint64(i)<<12, vaDest, 1)); c.Status != npureg.StatusTranslationFault {
			t.Fatal(c)
		}
		p.end()
	}
	h.Rewind(free)
	total, log := h.FaultLog()
	if total != 70 || len(log) != npureg.FaultLogRecords {
		t.Fatalf("%d faults, %d records", total, len(log))
	}
	for i, f := range log {
		if f.Number != uint32(i+7) || f.VA != uint64(i+6)<<12 {
			t.Errorf("record %d: %+v", i, f)
		}
	}
}

// TestTranslationEndsWithReset: after a reset no context, translation or fault of before is left, and the same context
// number means other tables.
func TestTranslationEndsWithReset(t *testing.T) {
	devtest.NeedsFunction(t, "registers")
	h, _ := ready(t)
	p := newProcess(h, 2, true)
	if c := h.Do(2, p.copy(vaSource, vaDest, 16)); c.Status != 0 {
		t.Fatal(c)
	}
	if c := h.Do(2, p.copy(0, vaDest, 16)); c.Status != npureg.StatusTranslationFault {
		t.Fatal(c)
	}
	h.Write32(npureg.DeviceControl, npureg.DeviceControlReset)
	h.AwaitReset()
	for off := uint32(npureg.FaultStatus); off <= npureg.FaultVAHi; off += 4 {
		if got := h.Read32(off); got != 0 {
			t.Errorf("register %#x after the reset: %#x", off, got)
		}
	}
	h.Bring(firmware.Image())
	if n, log := h.FaultLog(); n != 0 || len(log) != 0 {
		t.Errorf("%d faults after the reset", n)
	}
	q := newProcess(h, 2, false)
	if q.context != 1 {
		t.Fatalf("context %d", q.context)
	}
	copy(q.guest(q.sourceAt[0]), "after")
	if c := h.Do(2, q.copy(vaSource, vaDest, 16)); c.Status != 0 || string(q.guest(q.destAt[0])[:5]) != "after" {
		t.Errorf("after the reset: %v, %q", c, q.guest(q.destAt[0])[:5])
	}
	q.end()
	// Nor does a context that was destroyed leave anything to the next with its number.
	n := newProcess(h, 2, true)
	copy(n.guest(n.sourceAt[0]), "later")
	if c := h.Do(2, n.copy(vaSource, vaDest, 16)); c.Status != 0 || n.context != 1 || string(n.guest(n.destAt[0])[:5]) != "later" {
		t.Errorf("after DESTROY_CONTEXT: %v, context %d, %q", c, n.context, n.guest(n.destAt[0])[:5])
	}
}

// TestUnmappedUnderATranslation: what the host takes away on the bus is refused, though the TLB has the page.
func TestUnmappedUnderATranslation(t *testing.T) {
	devtest.NeedsFunction(t, "memory that is reached by messages")
	devtest.NeedsBus(t)
	h, _ := ready(t)
	p := newProcess(h, 2, false)
	p.Set(vaSource, 1, devtest.Entry64(0, devtest.MsgBase, r|npureg.EntryLeaf))
	if err := h.Msg.WriteAt([]byte("by messages"), 0); err != nil {
		t.Fatal(err)
	}
	if c := h.Do(2, p.copy(vaSource, vaDest, 16)); c.Status != 0 || string(p.guest(p.destAt[0])[:11]) != "by messages" {
		t.Fatalf("%v, %q", c, p.guest(p.destAt[0])[:11])
	}
	if err := h.Client.UnmapDMA(devtest.MsgBase, devtest.MsgSize); err != nil {
		t.Fatal(err)
	}
	if c := h.Do(2, p.copy(vaSource+4, vaDest, 16)); c.Status != npureg.StatusBusFault || c.Info != vaSource+4 {
		t.Errorf("%v", c)
	}
	if _, log := h.FaultLog(); len(log) != 1 || log[0].Addr != devtest.MsgBase+4 || log[0].Reason != npureg.ReasonTarget {
		t.Errorf("log %+v", log)
	}
	p.end()

	// A context whose tables and pages all lie in device memory.
	p = newProcess(h, 2, true)
	p.Set(0, 1, devtest.Entry64(1, 0x80000, r|w|npureg.EntryLeaf))
	p.Set(0x1000, 1, devtest.Entry64(1, 0x81000, r|w|npureg.EntryLeaf))
	if c := h.Do(2, p.copy(0, 0x1000, 16)); c.Status != 0 {
		t.Errorf("%v", c)
	}
}

// TestWithoutMMU: older cards have none of it.
func TestWithoutMMU(t *testing.T) {
	for _, arch := range []string{"1.1", "1.0"} {
		t.Run(arch, func(t *testing.T) {
			cfg := config()
			cfg.Arch = arch
			h := devtest.New(t, cfg)
			prepare(h)
			for _, tt := range []struct {
				name string
				e    devtest.Entry
				want npureg.Status
				info uint64
			}{
				{"CREATE_CONTEXT with a root", devtest.CreateTranslatedEntry(0, 0x1000), npureg.StatusInvalidField, 8},
				{"CREATE_CONTEXT with flags", devtest.CreateTranslatedEntry(0, 0), npureg.StatusInvalidField, 8},
				{"INVALIDATE_TLB", devtest.Entry{npureg.AdminInvalidateTLB}, npureg.StatusInvalidOpcode, 0},
				{"log page 3", devtest.Entry{npureg.AdminGetLogPage, 0x10: 16, 0x14: 3}, npureg.StatusInvalidLogPage, 0},
			} {
				if c := h.Admin(tt.e); c.Status != tt.want || c.Info != tt.info {
					t.Errorf("%s: %v; want %v info %#x", tt.name, c, tt.want, tt.info)
				}
			}
			if c := h.Do(1, copyEntry(2, 2, 0, 0, 1, 1, 1)); c.Status != npureg.StatusInvalidField || c.Info != 4 {
				t.Errorf("COPY in virtual memory: %v", c)
			}
			if devtest.InUse() == devtest.VHostUser {
				return
			}
			if f := h.Read32(npureg.FeaturesLo); f&npureg.FeatureMMU != 0 {
				t.Errorf("FEATURES_LO %#x", f)
			}
			for off := uint32(npureg.FaultContext); off <= npureg.FaultVAHi; off += 4 {
				if got := h.Read32(off); got != 0xffffffff {
					t.Errorf("register %#x: %#x", off, got)
				}
			}
			// A fault record is what it was.
			h.Write32(devtest.Doorbell(2), 1)
			if got := h.Read32(npureg.FaultStatus); got != npureg.FaultValid|uint32(npureg.StatusQueueDisabled)<<16 {
				t.Errorf("FAULT_STATUS %#x", got)
			}
		})
	}
}

// TestInvalidateUnderLoad moves and removes a page under commands that write to it all the time: once INVALIDATE_TLB
// has completed, nothing is written to the old place, and the command in flight goes on by the new tables (§11.4).
func TestInvalidateUnderLoad(t *testing.T) {
	h, context := ready(t)
	free := reserve(h, context)
	rounds := 30
	if testing.Short() {
		rounds = 15
	}
	inFlight := 0
	for life := range 2 {
		h.Rewind(free)
		p := newProcess(h, 2, life == 1)
		for _, at := range p.sourceAt {
			for i := range p.guest(at) {
				p.guest(at)[i] = 0xc3
			}
		}
		var places [2]uint64
		var pages [2][]byte
		for i := range places {
			places[i], pages[i] = h.Alloc(npureg.PageSize)
		}
		const va = 0x1000
		p.Map(va, npureg.PageSize, 0, places[0], w)
		// 400 times a page to the same page.
		busy := copyEntry(2, 2, vaSource, va, npureg.PageSize, 400, 1)
		outstanding := 0
		fill := func() {
			for ; outstanding < 6; outstanding++ {
				h.Submit(2, busy)
			}
		}
		reap := func() {
			t.Helper()
			if c := h.Wait(2); c.Status != 0 || c.Info != 400*npureg.PageSize {
				t.Fatalf("COPY: %v", c)
			}
			outstanding--
		}
		fill()
		for i := 1; i <= rounds; i++ {
			fill()
			reap() // the next has begun
			old, now := (i-1)%2, i%2
			clear(pages[now])
			commands := h.Dev.Counter(npureg.CounterCommands)
			p.Map(va, npureg.PageSize, 0, places[now], w)
			switch i % 3 {
			case 0:
				h.InvalidateTLB(p.context, va, npureg.PageSize)
			case 1:
				h.InvalidateTLB(p.context, 0, 0)
			case 2:
				h.InvalidateTLB(0, 0, 0)
			}
			clear(pages[old])
			if h.Dev.Counter(npureg.CounterCommands) == commands {
				inFlight++ // one and the same command before and after
			}
			fill()
			for outstanding > 0 {
				reap()
			}
			if at := bytes.IndexByte(pages[old], 0xc3); at >= 0 {
				t.Fatalf("round %d: byte %#x of the old page was written after INVALIDATE_TLB had completed", i, at)
			}
			if bytes.IndexByte(pages[now], 0xc3) < 0 {
				t.Fatalf("round %d: nothing arrived at the new page", i)
			}
		}
		// Taken away under a command in flight: it faults where it was, the page is not written any more, and what waited
		// does not run.
		fill()
		p.Set(va, 1, 0)
		h.InvalidateTLB(p.context, va, npureg.PageSize)
		clear(pages[rounds%2])
		h.Submit(2, busy) // if all of them have ended
		c := h.Wait(2)
		for ; c.Status == 0; c = h.Wait(2) { // it had ended before
		}
		if c.Status != npureg.StatusTranslationFault || c.Info != va || c.Result >= 400 {
			t.Errorf("the command in flight: %v", c)
		}
		if c := h.Do(1, nop()); c.Status != 0 {
			t.Errorf("NOP: %v", c)
		}
		if bytes.IndexByte(pages[rounds%2], 0xc3) >= 0 {
			t.Error("written after the page was taken away")
		}
		p.end()
	}
	if inFlight == 0 {
		t.Error("no invalidation met a command in flight")
	}
}

// TestTranslationHammer invalidates and resets while translated commands move bytes by messages, and takes that memory away
// meanwhile. Nothing hangs, and everything works afterwards.
func TestTranslationHammer(t *testing.T) {
	devtest.NeedsFunction(t, "memory that is reached by messages")
	devtest.NeedsBus(t)
	h, context := ready(t)
	base := reserve(h, context)
	free := base
	client, msg := h.Client, h.Msg
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			select {
			case <-stop:
				return
			default:
			}
			time.Sleep(3 * time.Millisecond)
			if err := client.UnmapDMA(devtest.MsgBase, devtest.MsgSize); err != nil {
				t.Error(err)
			}
			if err := client.MapMemory(devtest.MsgBase, devtest.MsgSize, iova.Read|iova.Write, msg); err != nil {
				t.Error(err)
			}
		}
	}()
	for life := range 20 {
		h.Rewind(free)
		p := newProcess(h, 2, life%2 == 0)
		p.Map(0, vaSize, 0, devtest.MsgBase, r|w)
		for i := range 5 {
			e := copyEntry(2, 2, vaSource, 0, npureg.PageSize, 4, 50, npureg.PageSize, 0, npureg.PageSize)
			if i%2 == 1 {
				e = copyEntry(2, 2, 0, vaDest, npureg.PageSize, 4, 50, npureg.PageSize, 0, npureg.PageSize)
			}
			h.Submit(2, e)
		}
		for i := range uint32(1 + life%4) {
			h.InvalidateTLB(i%2*p.context, 0, 0)
		}
		if life%3 == 0 {
			p.end()
			continue
		}
		h.Write32(npureg.DeviceControl, npureg.DeviceControlReset)
		h.AwaitReset()
		h.Rewind(base)
		prepare(h)
		free, _ = h.Alloc(1) // behind the new rings
	}
	close(stop)
	wg.Wait()
	if n := h.Dev.Counter(npureg.CounterTLBMisses); n == 0 {
		t.Error("nothing was translated")
	}
	h.Rewind(free)
	p := newProcess(h, 2, false)
	p.Map(0, vaSize, 0, devtest.MsgBase, r|w)
	if c := h.Do(2, p.copy(vaSource, 0, vaSize)); c.Status != 0 {
		t.Errorf("COPY afterwards: %v", c)
	}
}
