// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npuemu/firmware"
	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
)

// errorRecord is a record of the error log, without its time (§12.3).
type errorRecord struct {
	Number          uint32
	Kind, Unit      uint8
	Flags           uint16
	Addr            uint64
	Queue, ID       uint16
	Context, Detail uint16
}

// errorLog reads the error log from a record on.
func errorLog(h *devtest.Host, first uint32) (next, oldest uint32, records []errorRecord) {
	h.T.Helper()
	p := h.LogFrom(5, 4096, first)
	next, oldest = le.Uint32(p), le.Uint32(p[8:])
	if size := le.Uint32(p[12:]); size != npureg.ErrorRecordSize {
		h.T.Errorf("error log: records of %d bytes, want %d", size, npureg.ErrorRecordSize)
	}
	now, last := le.Uint64(p[16:]), uint64(0)
	n := int(le.Uint32(p[4:]))
	if len(p) != npureg.LogHeaderSize+n*npureg.ErrorRecordSize {
		h.T.Fatalf("error log: %d bytes with %d records", len(p), n)
	}
	for i := range n {
		b := p[npureg.LogHeaderSize+i*npureg.ErrorRecordSize:]
		if at := le.Uint64(b[8:]); at < last || at > now {
			h.T.Errorf("record %d: time %d after %d, read at %d", i, at, last, now)
		}
		last = le.Uint64(b[8:])
		records = append(records, errorRecord{
			Number: le.Uint32(b), Kind: b[4], Unit: b[5], Flags: le.Uint16(b[6:]), Addr: le.Uint64(b[0x10:]),
			Queue: le.Uint16(b[0x18:]), ID: le.Uint16(b[0x1a:]), Context: le.Uint16(b[0x1c:]), Detail: le.Uint16(b[0x1e:]),
		})
	}
	return next, oldest, records
}

// inject makes the card have a memory error.
func inject(h *devtest.Host, kind, memory string, addr uint64) {
	h.T.Helper()
	if err := h.Dev.InjectMemoryError(kind, memory, addr); err != nil {
		h.T.Fatal(err)
	}
}

func counter(h *devtest.Host, index int) uint64 {
	h.T.Helper()
	return le.Uint64(h.Log(2, 8*npureg.CounterCount)[8*index:])
}

// TestCorrectedError: a correctable error is corrected, counted and logged (§12.2).
func TestCorrectedError(t *testing.T) {
	h, _ := ready(t)
	h.WriteDRAM(0x1200, bytes.Repeat([]byte{0xa5}, 256))
	inject(h, "corrected", "dram", 0x1234)
	inject(h, "corrected", "scratchpad", 7)
	at, p := h.Alloc(256)
	if c := h.Do(1, copyEntry(1, 0, 0x1200, at, 256, 1, 1)); c.Status != npureg.StatusSuccess || bytes.Count(p, []byte{0xa5}) != 256 {
		t.Errorf("COPY of corrected memory: %v", c)
	}
	_, _, got := errorLog(h, 0)
	want := []errorRecord{
		{Number: 0, Kind: npureg.ErrorCorrected, Addr: 0x1234},
		{Number: 1, Kind: npureg.ErrorCorrected, Unit: npureg.UnitScratchpad, Addr: 7},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("error log (-want +got):\n%s", diff)
	}
	if n, u := counter(h, npureg.CounterECCCorrected), counter(h, npureg.CounterECCUncorrected); n != 2 || u != 0 {
		t.Errorf("counters %d corrected, %d uncorrected, want 2, 0", n, u)
	}
}

// TestPoison: whatever reads a poisoned granule of device memory ends with POISON, everything else goes on, and a granule that
// is overwritten is clean (§12.2).
func TestPoison(t *testing.T) {
	const bad = 0x4080 // the granule's address
	info := uint64(bad)
	load := ".spad 1024\n.bindings 1\nload binding=0 local=0 nx=64\nhalt\n"
	for _, tt := range []struct {
		name string
		do   func(h *devtest.Host) devtest.Entry
		want npureg.Status
		row  uint32 // result
	}{
		{"COPY from it", func(h *devtest.Host) devtest.Entry { at, _ := h.Alloc(64); return copyEntry(1, 0, bad, at, 64, 1, 1) }, npureg.StatusPoison, 0},
		{"COPY of its last byte", func(h *devtest.Host) devtest.Entry { return copyEntry(1, 1, bad+63, 0x8000, 1, 1, 1) }, npureg.StatusPoison, 0},
		{"COPY, third row", func(h *devtest.Host) devtest.Entry {
			return copyEntry(1, 1, bad-128, 0x8000, 64, 8, 1, 64, 0, 64, 0)
		}, npureg.StatusPoison, 2},
		{"COPY of the byte before", func(h *devtest.Host) devtest.Entry { return copyEntry(1, 1, bad-1, 0x8000, 1, 1, 1) }, npureg.StatusSuccess, 0},
		{"COPY of the byte after", func(h *devtest.Host) devtest.Entry { return copyEntry(1, 1, bad+64, 0x8000, 1, 1, 1) }, npureg.StatusSuccess, 0},
		{"COPY to a part of it", func(h *devtest.Host) devtest.Entry { return copyEntry(1, 1, 0, bad, 63, 1, 1) }, npureg.StatusSuccess, 0},
		{"LOAD", func(h *devtest.Host) devtest.Entry {
			return h.Launch(program(h.T.(*testing.T), load), devtest.Binding{Addr: bad + 1, Size: 64, Read: true, Space: 1})
		}, npureg.StatusPoison, 0},
		{"second LOAD", func(h *devtest.Host) devtest.Entry {
			return h.Launch(program(h.T.(*testing.T), ".spad 1024\n.bindings 2\nload binding=1 local=0 nx=64\nload binding=0 local=0 nx=64\nhalt\n"),
				devtest.Binding{Addr: bad, Size: 64, Read: true, Space: 1}, devtest.Binding{Addr: 0, Size: 64, Read: true, Space: 1})
		}, npureg.StatusPoison, 1},
		{"WAIT", func(h *devtest.Host) devtest.Entry { return timelineEntry(npureg.CmdWait, bad+8, 0) }, npureg.StatusPoison, 0},
		{"SIGNAL", func(h *devtest.Host) devtest.Entry { return timelineEntry(npureg.CmdSignal, bad+56, 1) }, npureg.StatusPoison, 0},
		{"SIGNAL beside it", func(h *devtest.Host) devtest.Entry { return timelineEntry(npureg.CmdSignal, bad+64, 1) }, npureg.StatusSuccess, 0},
		{"program", func(h *devtest.Host) devtest.Entry {
			p := program(h.T.(*testing.T), "halt\n")
			h.WriteDRAM(bad-64, p)
			e := h.Launch(p)
			le.PutUint64(e[0x08:], bad-64)
			e[0x1c] = 1
			return e
		}, npureg.StatusPoison, 0},
		{"binding table", func(h *devtest.Host) devtest.Entry {
			e := h.Launch(program(h.T.(*testing.T), load), devtest.Binding{Addr: 0, Size: 64, Read: true, Space: 1})
			le.PutUint64(e[0x10:], bad)
			e[0x1c] = 1 << 4
			return e
		}, npureg.StatusPoison, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, context := ready(t)
			inject(h, "uncorrected", "dram", bad+17)
			e := tt.do(h)
			id := h.Submit(1, e)
			c := h.Wait(1)
			want := devtest.CQE{Status: tt.want, Result: tt.row, Info: info}
			if tt.want == npureg.StatusSuccess {
				want.Result, want.Info = c.Result, c.Info
			}
			if c.Status != want.Status || c.Result != want.Result || c.Info != want.Info {
				t.Errorf("completion %v, want %v", c, want)
			}
			records := []errorRecord{{Number: 0, Kind: npureg.ErrorUncorrected, Addr: bad}}
			if tt.want == npureg.StatusPoison {
				r := errorRecord{Number: 1, Kind: npureg.ErrorPoison, Flags: npureg.ErrorCommand, Addr: bad, Queue: 1, ID: id, Context: uint16(context), Detail: uint16(npureg.StatusPoison)}
				if devtest.InUse() == devtest.VHostUser {
					r.ID = 0 // the device's own (§12.9), and the first that it gives
				}
				records = append(records, r)
			}
			_, _, got := errorLog(h, 0)
			if diff := cmp.Diff(records, got); diff != "" {
				t.Errorf("error log (-want +got):\n%s", diff)
			}
			if n := counter(h, npureg.CounterECCUncorrected); n != 1 {
				t.Errorf("%d uncorrected errors counted, want 1", n)
			}
			succeed(h)
			// Rows of 16 bytes that together overwrite it.
			if c := h.Do(1, copyEntry(1, 1, 0, bad, 16, 4, 1, 16, 0, 16, 0)); c.Status != npureg.StatusSuccess {
				t.Errorf("COPY over it: %v", c)
			}
			if c := h.Do(1, copyEntry(1, 1, bad, 0x8000, 64, 1, 1)); c.Status != npureg.StatusSuccess {
				t.Errorf("COPY from it when it was overwritten: %v", c)
			}
		})
	}
}

// timelineEntry is WAIT or SIGNAL for a value in device memory.
func timelineEntry(op uint8, addr, value uint64) devtest.Entry {
	e := devtest.Entry{op, 4: 1}
	le.PutUint64(e[0x08:], addr)
	le.PutUint64(e[0x10:], value)
	return e
}

// TestPoisonTranslated: a process is told of its own address, the error log of the granule's, and its context goes on; but a page
// table that cannot be read is a fault (§12.2).
func TestPoisonTranslated(t *testing.T) {
	const va, at, tables = 0x7000_0000_0000, 0x4000, 0x20000
	h, _ := ready(t)
	p := h.NewDevicePageTable(tables)
	p.Map(va, 2*npureg.PageSize, 1, at, npureg.EntryRead|npureg.EntryWrite)
	context := h.CreateTranslated(p)
	h.CreateQueue(2, context, 2, 8)
	inject(h, "uncorrected", "dram", at+0x80)
	for _, tt := range []struct {
		name       string
		from, info uint64
		want       npureg.Status
	}{
		{"from before it", va, va + 0x80, npureg.StatusPoison},
		{"from within", va + 0x90, va + 0x90, npureg.StatusPoison},
		{"from behind it", va + 0xc0, 0x400, npureg.StatusSuccess},
	} {
		if c := h.Do(2, copyEntry(2, 2, tt.from, va+npureg.PageSize, 0x400, 1, 1)); c.Status != tt.want || c.Info != tt.info {
			t.Errorf("%s: %v, want %v, info %#x", tt.name, c, tt.want, tt.info)
		}
	}
	_, _, got := errorLog(h, 1)
	if len(got) != 2 || got[0].Addr != at+0x80 || got[1].Addr != at+0x80 || got[0].Context != uint16(context) || got[0].Queue != 2 {
		t.Errorf("error log %+v", got)
	}
	if n, _ := h.FaultLog(); n != 0 || h.Faulted() {
		t.Errorf("%d faults of the MMU: poison is none", n)
	}

	inject(h, "uncorrected", "dram", tables+va>>39*8) // the root's entry
	h.InvalidateTLB(context, 0, 0)
	if c := h.Do(2, copyEntry(2, 2, va+0x400, va+npureg.PageSize, 64, 1, 1)); c.Status != npureg.StatusTranslationFault || c.Info != va+0x400 {
		t.Errorf("with a page table that is poisoned: %v, want TRANSLATION_FAULT", c)
	}
	if _, l := h.FaultLog(); len(l) != 1 || l[0].Reason != npureg.ReasonTable {
		t.Errorf("fault log %+v, want reason TABLE", l)
	}
}

// TestScratchpadPoison: an uncorrectable error of the scratchpad meets the next program that reads the granule, and no other (§12.2).
func TestScratchpadPoison(t *testing.T) {
	h, _ := ready(t)
	store := h.Launch(program(t, ".spad 1024\n.bindings 1\nfill local=0 nx=64 ny=2 stride=64 value=1\nstore binding=0 local=128 nx=128\nhalt\n"),
		devtest.Binding{Addr: 0x4000, Size: 256, Write: true, Space: 1})
	inject(h, "uncorrected", "scratchpad", 200)
	c := h.Do(1, store)
	if want := uint64(npureg.UnitScratchpad)<<60 | 192; c.Status != npureg.StatusPoison || c.Result != 1 || c.Info != want {
		t.Errorf("STORE of poison: %v, want POISON, result 1, info %#x", c, want)
	}
	if c := h.Do(1, store); c.Status != npureg.StatusSuccess {
		t.Errorf("the program after it: %v", c)
	}
	inject(h, "uncorrected", "scratchpad", 0) // FILL overwrites it
	if c := h.Do(1, store); c.Status != npureg.StatusSuccess {
		t.Errorf("a program that overwrites the granule: %v", c)
	}
	_, _, got := errorLog(h, 1)
	if len(got) != 2 || got[0].Kind != npureg.ErrorPoison || got[0].Unit != npureg.UnitScratchpad || got[0].Addr != 192 || got[1].Kind != npureg.ErrorUncorrected {
		t.Errorf("error log %+v", got)
	}
}

// TestErrorLog: the log keeps the last 64 records, and says how many there were (§12.3).
func TestErrorLog(t *testing.T) {
	h, _ := ready(t)
	for i := range uint64(70) {
		inject(h, "corrected", "dram", i)
	}
	for _, tt := range []struct {
		name          string
		size          int
		first         uint32
		records, from uint32
	}{
		{"all", 4096, 0, 64, 6},
		{"from one that is gone", 4096, 3, 64, 6},
		{"from one that is there", 4096, 67, 3, 67},
		{"from the next", 4096, 70, 0, 0},
		{"from far behind", 4096, 0xffff_ffff, 0, 0},
		{"as many as fit", npureg.LogHeaderSize + 3*npureg.ErrorRecordSize - 1, 20, 2, 20},
		{"no room for a record", npureg.LogHeaderSize, 20, 0, 0},
		{"no room for the header", 5, 20, 0, 0},
	} {
		p := h.LogFrom(5, tt.size, tt.first)
		if want := min(tt.size, npureg.LogHeaderSize+int(tt.records)*npureg.ErrorRecordSize); len(p) != want {
			t.Errorf("%s: %d bytes, want %d", tt.name, len(p), want)
		}
		if len(p) < npureg.LogHeaderSize {
			continue
		}
		if next, n, oldest := le.Uint32(p), le.Uint32(p[4:]), le.Uint32(p[8:]); next != 70 || n != tt.records || oldest != 6 {
			t.Errorf("%s: next %d, %d records, oldest %d; want 70, %d, 6", tt.name, next, n, oldest, tt.records)
		}
		for i := range tt.records {
			r := p[npureg.LogHeaderSize+i*npureg.ErrorRecordSize:]
			if number, addr := le.Uint32(r), le.Uint64(r[0x10:]); number != tt.from+i || addr != uint64(tt.from+i) {
				t.Errorf("%s: record %d has number %d, address %d", tt.name, i, number, addr)
			}
		}
	}
}

// TestErrorCause: a record raises ERROR, and a reset of the device keeps the log (§12.3).
func TestErrorCause(t *testing.T) {
	devtest.NeedsFunction(t, "causes")
	h, _ := ready(t)
	for h.Interrupted(0, 10*time.Millisecond) { // those of boot and admin queue
	}
	h.Write32(npureg.IRQStatus, npureg.IRQAll)
	inject(h, "corrected", "dram", 0)
	if !h.Interrupted(0, devtest.Timeout) || h.Read32(npureg.IRQStatus) != npureg.IRQError {
		t.Errorf("IRQ_STATUS %#x, want ERROR alone, and an interrupt", h.Read32(npureg.IRQStatus))
	}
	h.Write32(npureg.IRQStatus, npureg.IRQError)
	if s := h.Read32(npureg.IRQStatus); s != 0 {
		t.Errorf("IRQ_STATUS %#x after it was cleared", s)
	}
	inject(h, "uncorrected", "dram", 0x80)
	h.Write32(npureg.DeviceControl, npureg.DeviceControlReset)
	h.AwaitReset()
	if s := h.Read32(npureg.IRQStatus); s != 0 {
		t.Errorf("IRQ_STATUS %#x after reset", s)
	}
	prepare(h)
	if _, _, got := errorLog(h, 0); len(got) != 2 {
		t.Errorf("error log %+v, want the records of before the reset", got)
	}
	if n := counter(h, npureg.CounterECCCorrected); n != 0 {
		t.Errorf("%d errors counted after the reset, want 0", n)
	}
	if c := h.Do(1, copyEntry(1, 1, 0x80, 0, 1, 1, 1)); c.Status != npureg.StatusPoison {
		t.Errorf("COPY of what was poisoned before the reset: %v, want POISON", c)
	}
}

// TestErrorsInAER: memory errors are internal errors of the function (§1.6, §12.2).
func TestErrorsInAER(t *testing.T) {
	devtest.NeedsFunction(t, "config space")
	devtest.NeedsBus(t)
	h, _ := ready(t)
	inject(h, "corrected", "dram", 0)
	inject(h, "uncorrected", "dram", 0)
	if s := h.Dev.Status(); s.Correctable != 1<<14 || s.Uncorrectable != 1<<22 {
		t.Errorf("AER status %#x, %#x, want corrected internal and uncorrectable internal", s.Correctable, s.Uncorrectable)
	}
}

// TestInjectionMistakes: what an operator cannot have.
func TestInjectionMistakes(t *testing.T) {
	h, _ := ready(t)
	for _, tt := range []struct {
		name         string
		kind, memory string
		addr         uint64
		want         string
	}{
		{"kind", "soft", "dram", 0, `memory error "soft": use one of corrected, uncorrected`},
		{"memory", "corrected", "flash", 0, `memory "flash": use one of dram, scratchpad`},
		{"beyond device memory", "corrected", "dram", 1 << 20, "address 0x100000: dram has 0x100000 bytes"},
		{"beyond the scratchpad", "uncorrected", "scratchpad", 1 << 20, "address 0x100000: scratchpad has 0x100000 bytes"},
		{"far beyond", "uncorrected", "dram", ^uint64(0), "address 0xffffffffffffffff: dram"},
	} {
		if err := h.Dev.InjectMemoryError(tt.kind, tt.memory, tt.addr); err == nil || !bytes.Contains([]byte(err.Error()), []byte(tt.want)) {
			t.Errorf("%s: %v, want an error that says %q", tt.name, err, tt.want)
		}
	}
	for i := range uint64(1024) {
		inject(h, "uncorrected", "dram", i*64)
		inject(h, "uncorrected", "scratchpad", i*64)
	}
	for _, memory := range []string{"dram", "scratchpad"} {
		if err := h.Dev.InjectMemoryError("uncorrected", memory, 1024*64); err == nil {
			t.Errorf("%s takes more than 1024 poisoned granules", memory)
		}
	}
	if next, _, _ := errorLog(h, 0); next != 2048 {
		t.Errorf("%d records, want 2048: those that were refused leave none", next)
	}
}

// TestNoRAS: older architectures have none of it.
func TestNoRAS(t *testing.T) {
	for _, arch := range []string{"1.1", "1.0"} {
		t.Run(arch, func(t *testing.T) {
			cfg := config()
			cfg.Arch = arch
			h := devtest.New(t, cfg)
			h.Bring(firmware.Image())
			h.CreateQueue(1, h.CreateContext(), 1, 8)
			succeed(h)
			if err := h.Dev.InjectMemoryError("corrected", "dram", 0); err == nil {
				t.Error("the card takes a memory error")
			}
			at, _ := h.Alloc(4096)
			for page := range byte(4) {
				e := devtest.Entry{npureg.AdminGetLogPage, 0x14: page + 4}
				le.PutUint64(e[8:], at)
				le.PutUint32(e[0x10:], 4096)
				if c := h.Admin(e); c.Status != npureg.StatusInvalidLogPage {
					t.Errorf("log page %d: %v, want INVALID_LOG_PAGE", page+4, c)
				}
				e[0x18] = 1
				if c := h.Admin(e); c.Status != npureg.StatusInvalidField || c.Info != 0x18 {
					t.Errorf("log page %d with a cursor: %v, want INVALID_FIELD 0x18", page+4, c)
				}
			}
			for _, op := range []byte{npureg.AdminResetEngine, npureg.AdminSetThreshold} {
				if c := h.Admin(devtest.Entry{op, 8: 1}); c.Status != npureg.StatusInvalidOpcode {
					t.Errorf("opcode %#x: %v, want INVALID_OPCODE", op, c)
				}
			}
			if devtest.InUse() == devtest.VHostUser {
				return
			}
			for _, r := range []struct {
				name      string
				off, want uint32
			}{
				{"FEATURES_LO.RAS", npureg.FeaturesLo, h.Read32(npureg.FeaturesLo) &^ npureg.FeatureRAS},
				{"CRASH_STATUS", npureg.CrashStatus, ^uint32(0)}, {"CRASH_SIZE", npureg.CrashSize, ^uint32(0)},
				{"CRASH_SELECT", npureg.CrashSelect, ^uint32(0)}, {"CRASH_DATA", npureg.CrashData, ^uint32(0)},
			} {
				if got := h.Read32(r.off); got != r.want {
					t.Errorf("%s: %#x, want %#x", r.name, got, r.want)
				}
			}
			h.Write32(npureg.IRQEnable, ^uint32(0))
			if got := h.Read32(npureg.IRQEnable); got != npureg.IRQAll&^npureg.IRQError {
				t.Errorf("IRQ_ENABLE keeps %#x", got)
			}
		})
	}
}
