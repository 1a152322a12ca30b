// SPDX-License-Identifier: Apache-2.0

package cpu

import "testing"

// Breakpoints: before an instruction that ran and one that did not, without a trace in memory; Reset keeps them, Step
// passes them.
func TestBreakpoint(t *testing.T) {
	b := newBoard(t, []uint32{addi(5, 5, 1), addi(5, 5, 2), addi(5, 5, 4), jal(0, -12)}, nil)
	b.Run(4) // decoded
	b.SetReg(5, 0)
	memory := string(b.ram)
	for range 2 { // setting it twice is setting it once
		b.SetBreakpoint(testPC+4, true)
	}
	if n, st := b.Run(100); n != 1 || st != AtBreakpoint || b.PC() != testPC+4 || b.Reg(5) != 1 {
		t.Errorf("Run: %d steps, state %d, pc %#x, x5 %d; want 1 step to the breakpoint", n, st, b.PC(), b.Reg(5))
	}
	if n, st := b.Run(100); n != 0 || st != AtBreakpoint {
		t.Errorf("Run at a breakpoint: %d steps, state %d; want none", n, st)
	}
	if st := b.Step(); st != Running || b.PC() != testPC+8 || b.Reg(5) != 3 {
		t.Errorf("Step at a breakpoint: state %d, pc %#x, x5 %d", st, b.PC(), b.Reg(5))
	}
	if n, st := b.Run(100); n != 3 || st != AtBreakpoint || b.PC() != testPC+4 {
		t.Errorf("second round: %d steps, state %d, pc %#x", n, st, b.PC())
	}
	if string(b.ram) != memory {
		t.Error("a breakpoint changed memory")
	}
	b.Reset()
	if n, st := b.Run(100); n != 1 || st != AtBreakpoint {
		t.Errorf("after Reset: %d steps, state %d; want the breakpoint, not decoded yet", n, st)
	}
	b.SetBreakpoint(testPC+4, false)
	if n, st := b.Run(100); n != 100 || st != Running {
		t.Errorf("without breakpoint: %d steps, state %d", n, st)
	}
	b.SetBreakpoint(testPC+4, true)
	b.SetBreakpoint(testPC+9, true)
	b.ClearDebug()
	if n, st := b.Run(100); n != 100 || st != Running {
		t.Errorf("after ClearDebug: %d steps, state %d", n, st)
	}
	// Where nothing can be executed a breakpoint never hits, and does no harm.
	for _, addr := range []uint32{0, 0xffff_ffff, testROM, testRAM + 0x1ffe} {
		b.SetBreakpoint(addr, true)
		b.SetBreakpoint(addr, false)
	}
}

// A decode cache that forgets keeps the breakpoint, and breakpoints that come and go do not make it grow.
func TestBreakpointCache(t *testing.T) {
	b := newBoard(t, []uint32{fenceI, addi(5, 5, 1), jal(0, -8)}, nil)
	b.SetBreakpoint(testPC+4, true)
	for round := range 50 {
		if _, st := b.Run(100); st != AtBreakpoint || b.PC() != testPC+4 {
			t.Fatalf("round %d: state %d, pc %#x", round, st, b.PC())
		}
		for range 10 {
			b.SetBreakpoint(testPC+4, false)
			b.SetBreakpoint(testPC+4, true)
		}
		b.Step()
	}
	if n := len(b.regions[1].decoded); n > 3 {
		t.Errorf("%d decoded entries of 3 instructions", n)
	}
}

// A step is one instruction: no interrupt comes first, WFI ends at once, an exception enters its handler.
func TestStep(t *testing.T) {
	b := newBoard(t, []uint32{wfi, addi(5, 0, 7), ecall}, []uint32{nop})
	b.csr.mstatus, b.csr.mie = mstatusMIE, mieLines
	b.SetInterrupt(MTI, true)
	for i, want := range []uint32{testPC + 4, testPC + 8, testHandler, testHandler + 4} {
		if st := b.Step(); st != Running || b.PC() != want {
			t.Fatalf("step %d: state %d, pc %#x, want %#x", i, st, b.PC(), want)
		}
	}
	if v, _ := b.CSR(Mip); v != 1<<MTI {
		t.Errorf("mip %#x after the steps, want the line as it was", v)
	}
	if b.csr.mcause != causeECallM || b.Reg(5) != 7 {
		t.Errorf("mcause %d, x5 %d", b.csr.mcause, b.Reg(5))
	}
	b.SetPC(testPC)
	b.csr.mstatus, b.csr.mie = 0, 0
	if _, st := b.Run(10); st != Waiting {
		t.Fatalf("state %d, want Waiting", st)
	}
	if b.Step(); b.Reg(5) != 7 || b.PC() != testPC+8 {
		t.Errorf("a step out of a wait: pc %#x", b.PC())
	}
	b.csr.mtvec = testPC + 8 // the handler's first instruction traps
	if st := b.Step(); st != Lockup {
		t.Errorf("state %d, want Lockup", st)
	}
}

func TestWatchpoint(t *testing.T) {
	for _, tt := range []struct {
		name string
		code uint32 // x6 is testData, x7 the block
		addr uint32 // watched, 4 bytes
		kind Watch
		want bool
		hit  uint32
	}{
		{"store", sw(0, 6, 0), testData, WatchWrite, true, testData},
		{"store beside it", sw(0, 6, 4), testData, WatchWrite, false, 0},
		{"store, reads are watched", sw(0, 6, 0), testData, WatchRead, false, 0},
		{"load", lw(5, 6, 0), testData, WatchRead, true, testData},
		{"load, writes are watched", lw(5, 6, 0), testData, WatchWrite, false, 0},
		{"load, both are", lw(5, 6, 0), testData, WatchAccess, true, testData},
		{"a byte of the word", sType(0, 6, 0, 3), testData, WatchWrite, true, testData + 3},
		{"word over the edge", sw(0, 6, 0), testData + 2, WatchWrite, true, testData + 2},
		{"misaligned store, which traps", sw(0, 6, 2), testData, WatchWrite, false, 0},
		{"store to the block", sw(0, 7, 0), testBlock, WatchWrite, true, testBlock},
		{"load of the block", lw(5, 7, 4), testBlock + 4, WatchRead, true, testBlock + 4},
		{"store that faults", sw(0, 7, 16), testBlock + 16, WatchWrite, false, 0},
		{"store to ROM, which faults", sw(0, 8, 0), testROM, WatchWrite, false, 0},
		{"amoadd.w", rType(0x2f, 5, 2, 6, 0, 0), testData, WatchWrite, true, testData},
		{"lr.w", rType(0x2f, 5, 2, 6, 0, 2<<2), testData, WatchRead, true, testData},
		{"sc.w that fails", rType(0x2f, 5, 2, 6, 0, 3<<2), testData, WatchWrite, false, 0},
		{"fetch", nop, testPC, WatchAccess, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBoard(t, []uint32{lw(0, 6, 8), sw(0, 6, 8), tt.code, jal(0, 0)}, []uint32{jal(0, 0)})
			b.Run(2) // the fast path knows the memory
			b.SetWatchpoint(tt.addr, 4, tt.kind, true)
			_, st := b.Run(10)
			if st == AtWatchpoint != tt.want {
				t.Fatalf("state %d, want a stop %v", st, tt.want)
			}
			if !tt.want {
				return
			}
			if w := b.Watched(); b.PC() != testPC+12 || w != (Watched{tt.hit, tt.kind}) {
				t.Errorf("pc %#x, %+v; want the stop after the access, at %#x", b.PC(), w, tt.hit)
			}
			b.SetPC(testPC + 8)
			if st := b.Step(); st != AtWatchpoint {
				t.Errorf("Step: state %d", st)
			}
			b.SetWatchpoint(tt.addr, 4, tt.kind, false)
			b.SetPC(testPC + 8)
			if _, st := b.Run(10); st != Running {
				t.Errorf("without watchpoint: state %d", st)
			}
		})
	}
}

// A debugger's write to a counter is there at once; an instruction's own increment is what counterBase allows for.
func TestSetCSR(t *testing.T) {
	b := newBoard(t, []uint32{nop, jal(0, 0)}, nil)
	b.Run(100)
	for _, n := range []CSR{Mscratch, Mepc, Mcycle, Mcycleh, Minstret, Minstreth} {
		if ok := b.SetCSR(n, 0x1234_5678); !ok {
			t.Errorf("CSR %#x cannot be written", n)
		}
		if v, _ := b.CSR(n); v != 0x1234_5678 {
			t.Errorf("CSR %#x is %#x", n, v)
		}
	}
	for _, n := range []CSR{Mhartid, Mvendorid, 0x180, 0xfff} {
		if b.SetCSR(n, 1) {
			t.Errorf("CSR %#x can be written", n)
		}
	}
}
