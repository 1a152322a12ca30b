// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"encoding/binary"
	"testing"
	"time"

	"npuemu/mmio/npureg"
)

// ready returns a board whose firmware is READY, and a debugger. Methods of the debugger take mu; step, called with mu
// held, is the processor's loop.
func ready(t *testing.T) (*board, *Debugger) {
	t.Helper()
	b := newBoard(t, nil)
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.start(t, Image()); s != npureg.BootReady {
		t.Fatalf("BOOT_STATUS %#x", s)
	}
	return b, b.p.Debugger()
}

func (b *board) run(t *testing.T) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle(t)
}

func (b *board) bootStatus() uint32 { return b.host.Value(npureg.BootStatus) }

func word(t *testing.T, d *Debugger, addr uint32) uint32 {
	t.Helper()
	var p [4]byte
	if n := d.Read(addr, p[:]); n != 4 {
		t.Fatalf("Read(%#x): %d bytes", addr, n)
	}
	return binary.LittleEndian.Uint32(p[:])
}

// event returns the stop that the loop reported.
func event(t *testing.T, d *Debugger) Stop {
	t.Helper()
	select {
	case s := <-d.Events():
		return s
	default:
		t.Fatal("no event")
		return Stop{}
	}
}

// A stopped processor is not late: CP_TIME, watchdog and boot timeout stand still, however long it takes.
func TestDebugTime(t *testing.T) {
	b, d := ready(t)
	if err := d.Attach(); err != nil {
		t.Fatal(err)
	}
	if err := b.p.Debugger().Attach(); err == nil {
		t.Error("two debuggers are attached")
	}
	before := word(t, d, npureg.CPRegBase+npureg.CPTimeLo)
	b.now += time.Hour
	b.run(t)
	if after := word(t, d, npureg.CPRegBase+npureg.CPTimeLo); after != before {
		t.Errorf("CP_TIME went from %d to %d while the processor was stopped", before, after)
	}
	if d, on := b.p.next(b.p.cfg.Now()); on {
		t.Errorf("a stopped processor wants to be woken in %v", d)
	}
	d.Detach()
	for range 10 { // ticks in time
		b.run(t)
		b.now += 500 * time.Millisecond
	}
	if b.bootStatus() != npureg.BootReady {
		t.Errorf("BOOT_STATUS %#x after an hour in the debugger", b.bootStatus())
	}
	if err := d.Attach(); err != nil {
		t.Errorf("attach after detach: %v", err)
	}
	d.Continue()
	b.now += 3 * time.Second // without a debugger that stops it, it is late
	b.mu.Lock()
	b.p.core.SetPC(npureg.CPSRAMBase + 0x8000)
	copy(b.p.sram[0x8000:], "\x6f\x00\x00\x00") // j .
	b.p.core.Invalidate()
	b.settle(t)
	b.mu.Unlock()
	if b.bootStatus() != failed(npureg.BootErrWatchdog) {
		t.Fatalf("BOOT_STATUS %#x, want WATCHDOG", b.bootStatus())
	}
	if s := event(t, d); s.Reason != StopFailed {
		t.Errorf("stop %+v, want StopFailed", s)
	}
	pc := d.Reg(32)
	d.Step()
	b.run(t)
	if s := event(t, d); s.Reason != StopFailed || d.Reg(32) != pc {
		t.Errorf("a step of a halted processor: %+v, pc %#x", s, d.Reg(32))
	}
	// START in FAILED works under the debugger.
	d.Continue()
	b.mu.Lock()
	if s := b.start(t, Image()); s != npureg.BootReady {
		t.Errorf("BOOT_STATUS %#x", s)
	}
	b.mu.Unlock()
}

// Boot with the processor stopped: nothing happens, and then it does.
func TestDebugBoot(t *testing.T) {
	b := newBoard(t, nil)
	d := b.p.Debugger()
	if err := d.Attach(); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	b.load(Image())
	b.p.Start()
	b.mu.Unlock()
	for range 5 {
		b.now += time.Minute
		b.run(t)
	}
	if b.bootStatus() != npureg.BootLoading {
		t.Errorf("BOOT_STATUS %#x, want LOADING", b.bootStatus())
	}
	// Before the image is loaded: a breakpoint is not in memory.
	d.SetBreakpoint(npureg.CPSRAMBase, true)
	d.Continue()
	b.run(t)
	if s := event(t, d); s.Reason != StopBreakpoint || d.Reg(32) != npureg.CPSRAMBase || b.bootStatus() != npureg.BootStarting {
		t.Fatalf("stop %+v at %#x, BOOT_STATUS %#x; want the image's entry", s, d.Reg(32), b.bootStatus())
	}
	for i := range 20 {
		d.Step()
		b.run(t)
		if s := event(t, d); s.Reason != StopStep {
			t.Fatalf("step %d: %+v", i, s)
		}
	}
	// A reset works through a breakpoint in the ROM, and the processor stays stopped after it.
	d.SetBreakpoint(npureg.CPROMBase, true)
	b.mu.Lock()
	b.p.Reset()
	b.mu.Unlock()
	if b.bootStatus() != npureg.BootWaiting {
		t.Errorf("BOOT_STATUS %#x after reset, want WAITING", b.bootStatus())
	}
	d.Detach()
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.start(t, Image()); s != npureg.BootReady {
		t.Errorf("BOOT_STATUS %#x after detach", s)
	}
}

// Each step of firmware is an event, with mover copies among them.
func TestDebugStepMover(t *testing.T) {
	b, d := ready(t)
	if err := d.Attach(); err != nil {
		t.Fatal(err)
	}
	copy(b.bus(bufAddr, 4), "\x11\x22\x33\x44")
	for _, w := range []struct{ off, v uint32 }{
		{npureg.CPMoverAddrLo, uint32(bufAddr & 0xffff_ffff)},
		{npureg.CPMoverAddrHi, uint32(bufAddr >> 32)},
		{npureg.CPMoverLocal, npureg.CPSRAMBase + 0x9000},
		{npureg.CPMoverSize, 4},
		{npureg.CPMoverControl, npureg.MoverRead},
	} {
		if err := d.Write(npureg.CPRegBase+w.off, binary.LittleEndian.AppendUint32(nil, w.v)); err != nil {
			t.Fatal(err)
		}
	}
	b.run(t) // the mover is hardware: it works though the processor is stopped
	if v := word(t, d, npureg.CPSRAMBase+0x9000); v != 0x44332211 {
		t.Errorf("the mover moved %#x", v)
	}
	if v := word(t, d, npureg.CPRegBase+npureg.CPMoverStatus); v != npureg.MoverIdle {
		t.Errorf("CP_MOVER_STATUS %d", v)
	}
}

func TestDebugMemory(t *testing.T) {
	b, d := ready(t)
	if err := d.Attach(); err != nil {
		t.Fatal(err)
	}
	// Reading has no effect: a latch keeps what firmware read.
	b.mu.Lock()
	b.counter[npureg.CounterCommands] = 5<<32 | 6
	b.p.bank.Set(npureg.CPCounterIndex, npureg.CounterCommands)
	b.p.bank.Set(npureg.CPCounterHi, 77)
	b.mu.Unlock()
	lo, hi := word(t, d, npureg.CPRegBase+npureg.CPCounterLo), word(t, d, npureg.CPRegBase+npureg.CPCounterHi)
	if lo != 6 || hi != 77 {
		t.Errorf("CP_COUNTER reads %d, %d; want 6 and the latched 77", lo, hi)
	}
	if v := word(t, d, npureg.CPHostBase+npureg.ID); v != npureg.Magic {
		t.Errorf("ID %#x", v)
	}
	if v := word(t, d, npureg.CPRegBase+0xff0); v != 0xffff_ffff {
		t.Errorf("an unclaimed register reads %#x", v)
	}
	if got := d.Read(npureg.CPROMBase, make([]byte, 4)); got != 4 {
		t.Errorf("ROM: %d bytes", got)
	}
	for _, tt := range []struct {
		name string
		addr uint32
		size int
		read int
		ok   bool // to write
	}{
		{"SRAM", npureg.CPSRAMBase + 1, 7, 7, true},
		{"end of SRAM", npureg.CPSRAMBase + npureg.CPSRAMSize - 2, 4, 2, false},
		{"ROM", npureg.CPROMBase, 4, 4, false},
		{"beyond the ROM", npureg.CPROMBase + npureg.CPROMSize, 4, 0, false},
		{"host's page", npureg.CPHostBase, 4, 4, false},
		{"register, half of it", npureg.CPRegBase + npureg.CPTimeCmpLo, 2, 2, false},
		{"register, not aligned", npureg.CPRegBase + npureg.CPTimeCmpLo + 1, 4, 4, false},
		{"two registers", npureg.CPRegBase + npureg.CPTimeCmpLo, 8, 8, false},
		{"register", npureg.CPRegBase + npureg.CPTimeCmpLo, 4, 4, true},
		{"nothing", 0x8000_0000, 4, 0, false},
		{"the last byte", 0xffff_ffff, 4, 0, false},
	} {
		p := make([]byte, tt.size)
		if n := d.Read(tt.addr, p); n != tt.read {
			t.Errorf("%s: %d bytes can be read, want %d", tt.name, n, tt.read)
		}
		if err := d.Write(tt.addr, p); err == nil != tt.ok {
			t.Errorf("%s: write: %v", tt.name, err)
		}
	}
	// A write to a register is a store: here, to the console.
	for _, c := range "hello\n" {
		if err := d.Write(npureg.CPRegBase+npureg.CPConsole, []byte{byte(c), 0, 0, 0}); err != nil {
			t.Fatal(err)
		}
	}
	b.logged(t, "line=hello")
	d.SetReg(5, 123)
	d.SetReg(32, npureg.CPSRAMBase+0x10)
	if d.Reg(5) != 123 || d.Reg(32) != npureg.CPSRAMBase+0x10 {
		t.Errorf("x5 %d, pc %#x", d.Reg(5), d.Reg(32))
	}
}
