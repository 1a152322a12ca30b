// SPDX-License-Identifier: Apache-2.0

package cpu

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	testROM     uint32 = 0x1000
	testBlock   uint32 = 0x4000_0000
	testHandler        = testRAM + 0x800
)

// board is memory and one block, whose calls it logs. The block is 16 bytes of
// registers at testBlock; everything after them is an access fault.
type board struct {
	*Core
	ram, rom []byte
	log      []string
	onStore  func()
}

func (b *board) Load(addr uint32, size int) (uint32, bool) {
	b.log = append(b.log, fmt.Sprintf("load%d %#x pc=%#x steps=%d", size, addr, b.PC(), b.Steps()))
	return 0xfedc_ba98, addr-testBlock < 16
}

func (b *board) Store(addr uint32, size int, v uint32) bool {
	b.log = append(b.log, fmt.Sprintf("store%d %#x=%#x", size, addr, v))
	if b.onStore != nil {
		b.onStore()
	}
	return addr-testBlock < 16
}

// newBoard returns a hart at testPC in RAM that holds code there and handler at
// testHandler, where mtvec points. x6 is testData, x7 the block, x8 the ROM.
func newBoard(tb testing.TB, code, handler []uint32) *board {
	tb.Helper()
	b := &board{ram: make([]byte, 0x2000), rom: make([]byte, 0x100)}
	for i, w := range code {
		binary.LittleEndian.PutUint32(b.ram[0x100+4*i:], w)
	}
	for i, w := range handler {
		binary.LittleEndian.PutUint32(b.ram[0x800+4*i:], w)
	}
	var err error
	b.Core, err = New(Config{
		Regions: []Region{
			{Base: testROM, Mem: b.rom, ReadOnly: true},
			{Base: testRAM, Mem: b.ram, Exec: true},
		},
		Bus: b, ResetPC: testPC,
	})
	if err != nil {
		tb.Fatal(err)
	}
	b.csr.mtvec = testHandler
	b.SetReg(6, testData)
	b.SetReg(7, testBlock)
	b.SetReg(8, testROM)
	return b
}

func (b *board) csrValue(tb testing.TB, n CSR) uint32 {
	tb.Helper()
	v, ok := b.CSR(n)
	if !ok {
		tb.Fatalf("no CSR %#x", n)
	}
	return v
}

func TestExceptions(t *testing.T) {
	tests := []struct {
		name                  string
		code                  uint32
		pc, cause, mepc, tval uint32 // pc: where code is put and runs
		log                   string
	}{
		{name: "ecall", code: ecall, pc: testPC, cause: 11, mepc: testPC},
		{name: "store to ROM", code: sw(5, 8, 4), pc: testPC, cause: 7, mepc: testPC, tval: testROM + 4},
		{name: "AMO to ROM", code: rType(0x2f, 5, 2, 8, 6, 0), pc: testPC, cause: 7, mepc: testPC, tval: testROM},
		{name: "SC without reservation to ROM", code: rType(0x2f, 5, 2, 8, 6, 0x0c), pc: testPC, cause: 7, mepc: testPC, tval: testROM},
		{name: "AMO to a block never reaches it", code: rType(0x2f, 5, 2, 7, 6, 0), pc: testPC, cause: 7, mepc: testPC, tval: testBlock},
		{name: "LR from a block never reaches it", code: rType(0x2f, 5, 2, 7, 0, 0x08), pc: testPC, cause: 5, mepc: testPC, tval: testBlock},
		{name: "block refuses a load", code: lw(5, 7, 16), pc: testPC, cause: 5, mepc: testPC, tval: testBlock + 16,
			log: "load4 0x40000010 pc=0x80000100 steps=0"},
		{name: "block refuses a store", code: sw(6, 7, 16), pc: testPC, cause: 7, mepc: testPC, tval: testBlock + 16,
			log: "store4 0x40000010=0x80001000"},
		{name: "misaligned load never reaches the block", code: lw(5, 7, 2), pc: testPC, cause: 4, mepc: testPC, tval: testBlock + 2},
		{name: "fetch of 4 bytes, the last 2 outside", code: nop, pc: testRAM + 0x1ffe, cause: 1, mepc: testRAM + 0x1ffe, tval: testRAM + 0x2000},
		{name: "fetch from nowhere", pc: 0x2000_0000, cause: 1, mepc: 0x2000_0000, tval: 0x2000_0000},
		{name: "fetch from a block", pc: testBlock, cause: 1, mepc: testBlock, tval: testBlock},
		{name: "fetch from memory without Exec", pc: testROM, cause: 1, mepc: testROM, tval: testROM},
		{name: "fetch at the top of the address space", pc: 0xffff_fffe, cause: 1, mepc: 0xffff_fffe, tval: 0xffff_fffe},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBoard(t, nil, nil)
			if off := tt.pc - testRAM; off < 0x2000 {
				code := binary.LittleEndian.AppendUint32(nil, tt.code)
				copy(b.ram[off:], code)
			}
			b.SetPC(tt.pc)
			b.SetReg(5, 0x1234)
			b.csr.mstatus = mstatusMIE
			n, st := b.Run(1)
			if n != 1 || st != Running || b.PC() != testHandler {
				t.Errorf("%d steps, state %d, pc %#x", n, st, b.PC())
			}
			got := []uint32{b.csrValue(t, Mcause), b.csrValue(t, Mepc), b.csrValue(t, Mtval), b.csrValue(t, Mstatus), b.Reg(5)}
			want := []uint32{tt.cause, tt.mepc, tt.tval, mstatusMPIE | mstatusMPP, 0x1234}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("mcause, mepc, mtval, mstatus, x5 (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.log, strings.Join(b.log, "; ")); diff != "" {
				t.Errorf("bus (-want +got):\n%s", diff)
			}
		})
	}
}

// TestCSRWrite writes all ones and then all zeros with CSRRW and reads back.
func TestCSRWrite(t *testing.T) {
	tests := []struct {
		name        string
		csr         CSR
		ones, zeros uint32
	}{
		{"mstatus keeps MIE and MPIE; MPP is M", Mstatus, 0x1888, 0x1800},
		{"mstatush is zero", Mstatush, 0, 0},
		{"misa is read-only", Misa, 0x4000_1105, 0x4000_1105},
		{"mie keeps the three lines", Mie, 0x888, 0},
		{"mip is the board's", Mip, 0, 0},
		{"mtvec drops reserved modes", Mtvec, 0xffff_fffd, 0},
		{"mscratch", Mscratch, 0xffff_ffff, 0},
		{"mepc has IALIGN 16", Mepc, 0xffff_fffe, 0},
		{"mcause", Mcause, 0xffff_ffff, 0},
		{"mtval", Mtval, 0xffff_ffff, 0},
		{"mhpmcounter3 is zero", Mhpmcounter3, 0, 0},
		{"mhpmcounter31h is zero", Mhpmcounter31h, 0, 0},
		{"mhpmevent3 is zero", Mhpmevent3, 0, 0},
		{"mcycleh", Mcycleh, 0xffff_ffff, 0},
		{"minstreth", Minstreth, 0xffff_ffff, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBoard(t, []uint32{
				addi(1, 0, -1), csrrw(0, tt.csr, 1), csrrs(2, tt.csr, 0), csrrw(0, tt.csr, 0), csrrs(3, tt.csr, 0),
			}, nil)
			b.Run(5)
			if got, want := []uint32{b.Reg(2), b.Reg(3), b.PC()}, []uint32{tt.ones, tt.zeros, testPC + 20}; !cmp.Equal(got, want) {
				t.Errorf("ones, zeros, pc = %#x, want %#x", got, want)
			}
		})
	}
}

func TestCSRSetClear(t *testing.T) {
	b := newBoard(t, []uint32{
		addi(1, 0, 0x5a), csrrw(2, Mscratch, 1),
		csrrsi(3, Mscratch, 5), csrrci(4, Mscratch, 0x12),
		addi(1, 0, 0x600), csrrs(5, Mscratch, 1), iType(0x73, 9, 3, 1, int32(Mscratch)),
		iType(0x73, 10, 5, 21, int32(Mscratch)), csrrs(11, Mscratch, 0),
		csrrs(12, Mhartid, 0), csrrw(1, Mscratch, 1), // the old value comes from before the write, even when rd is rs1
	}, nil)
	b.Run(11)
	got := []uint32{b.Reg(2), b.Reg(3), b.Reg(4), b.Reg(5), b.Reg(9), b.Reg(10), b.Reg(11), b.Reg(12), b.Reg(1), b.csrValue(t, Mscratch)}
	want := []uint32{0, 0x5a, 0x5f, 0x4d, 0x64d, 0x4d, 21, 0, 21, 0x600}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUnknownCSRs(t *testing.T) {
	b := newBoard(t, nil, nil)
	known := 0
	for n := CSR(0); n < 0x1000; n++ {
		if _, ok := b.CSR(n); ok {
			known++
		}
	}
	// mstatus, misa, mie, mtvec, mstatush, mscratch, mepc, mcause, mtval, mip; two
	// counters in halves; five that identify; 29 monitors with two halves and an event.
	if want := 10 + 2*2 + 5 + 29*3; known != want {
		t.Errorf("%d CSRs are readable, want %d", known, want)
	}
}

func TestCounters(t *testing.T) {
	b := newBoard(t, []uint32{
		nop, ecall,
		csrrs(1, Mcycle, 0), csrrs(2, Minstret, 0), // 1 retired, 1 trapped, 5 of the handler
		addi(3, 0, -1),
		csrrw(0, Mcycle, 3), csrrs(4, Mcycle, 0), csrrs(5, Mcycle, 0), csrrs(9, Mcycleh, 0),
		csrrw(0, Minstreth, 3), csrrw(0, Minstret, 3), csrrs(10, Minstret, 0), csrrs(11, Minstret, 0), csrrs(12, Minstreth, 0),
	}, []uint32{
		csrrs(20, Mepc, 0), addi(20, 20, 4), csrrw(0, Mepc, 20), nop, mret,
	})
	n, _ := b.Run(2 + 5 + 12)
	got := []uint32{b.Reg(1), b.Reg(2), b.Reg(4), b.Reg(5), b.Reg(9), b.Reg(10), b.Reg(11), b.Reg(12)}
	want := []uint32{7, 7, 0xffff_ffff, 0, 1, 0xffff_ffff, 0, 0}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if b.Steps() != uint64(n) {
		t.Errorf("Steps %d after Run did %d", b.Steps(), n)
	}
	b.Reset()
	if v := b.csrValue(t, Mcycle); v != 0 || b.Steps() != uint64(n) {
		t.Errorf("after Reset mcycle %d, Steps %d, want 0, %d", v, b.Steps(), n)
	}
}

func TestInterrupts(t *testing.T) {
	const all = 1<<MSI | 1<<MTI | 1<<MEI
	tests := []struct {
		name              string
		mip, mie, mstatus uint32
		mtvec             uint32
		cause, pc         uint32 // cause 0: not taken
	}{
		{name: "none pending", mie: all, mstatus: mstatusMIE, mtvec: testHandler},
		{name: "MIE clear", mip: all, mie: all, mtvec: testHandler},
		{name: "not enabled", mip: 1 << MTI, mie: 1<<MSI | 1<<MEI, mstatus: mstatusMIE, mtvec: testHandler},
		{name: "external before software and timer", mip: all, mie: all, mstatus: mstatusMIE, mtvec: testHandler, cause: 0x8000_000b, pc: testHandler},
		{name: "software before timer", mip: 1<<MSI | 1<<MTI, mie: all, mstatus: mstatusMIE, mtvec: testHandler, cause: 0x8000_0003, pc: testHandler},
		{name: "timer", mip: all, mie: 1 << MTI, mstatus: mstatusMIE, mtvec: testHandler, cause: 0x8000_0007, pc: testHandler},
		{name: "vectored", mip: 1 << MTI, mie: all, mstatus: mstatusMIE, mtvec: testHandler | 1, cause: 0x8000_0007, pc: testHandler + 28},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBoard(t, []uint32{nop}, []uint32{nop, nop, nop, nop, nop, nop, nop, nop})
			b.csr.mie, b.csr.mstatus, b.csr.mtvec = tt.mie, tt.mstatus, tt.mtvec
			for _, line := range []Interrupt{MSI, MTI, MEI} {
				b.SetInterrupt(line, tt.mip>>line&1 != 0)
			}
			n, _ := b.Run(1)
			want := []uint32{1, 0, 0, testPC + 4, tt.mstatus | mstatusMPP, tt.mip}
			if tt.cause != 0 {
				want = []uint32{1, tt.cause, testPC, tt.pc + 4, mstatusMPIE | mstatusMPP, tt.mip}
			}
			got := []uint32{uint32(n), b.csrValue(t, Mcause), b.csrValue(t, Mepc), b.PC(), b.csrValue(t, Mstatus), b.csrValue(t, Mip)}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("steps, mcause, mepc, pc, mstatus, mip (-want +got):\n%s", diff)
			}
		})
	}
}

// An exception in vectored mode goes to the base.
func TestVectoredException(t *testing.T) {
	b := newBoard(t, []uint32{ecall}, nil)
	b.csr.mtvec |= mtvecVectored
	b.Run(1)
	if b.PC() != testHandler {
		t.Errorf("pc %#x, want %#x", b.PC(), testHandler)
	}
}

// Each instruction that can enable an interrupt lets it in before the next one.
func TestInterruptTiming(t *testing.T) {
	tests := []struct {
		name string
		code []uint32
		run  int // steps up to and with the instruction that enables
	}{
		{"csrrsi mstatus", []uint32{csrrsi(0, Mstatus, 8), nop}, 1},
		{"csrrw mie", []uint32{csrrsi(0, Mstatus, 8), addi(1, 0, 0x80), csrrw(0, Mie, 1), nop}, 3},
		{"mret", []uint32{addi(1, 0, 0x80), csrrw(0, Mstatus, 1), csrrw(0, Mepc, 5), mret}, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBoard(t, tt.code, []uint32{nop, nop, nop})
			if tt.run != 3 {
				b.csr.mie = 1 << MTI
			}
			mepc := testPC + 4*uint32(tt.run)
			if tt.code[len(tt.code)-1] == mret {
				mepc = testPC + 0x40
				b.SetReg(5, mepc|1)
			}
			b.SetInterrupt(MTI, true)
			b.Run(tt.run + 1) // one of the handler
			if b.PC() != testHandler+4 || b.csr.mepc != mepc {
				t.Errorf("pc %#x, mepc %#x, want %#x, %#x", b.PC(), b.csr.mepc, testHandler+4, mepc)
			}
		})
	}
}

func TestMRET(t *testing.T) {
	b := newBoard(t, []uint32{mret}, nil)
	b.csr.mepc = testPC + 0x20
	for _, mpie := range []uint32{0, mstatusMPIE} {
		b.csr.mstatus = mpie
		b.SetPC(testPC)
		b.Run(1)
		if want := mpie>>4 | mstatusMPIE | mstatusMPP; b.PC() != testPC+0x20 || b.csrValue(t, Mstatus) != want {
			t.Errorf("MPIE %#x: pc %#x, mstatus %#x, want %#x", mpie, b.PC(), b.csrValue(t, Mstatus), want)
		}
	}
}

func TestWFI(t *testing.T) {
	b := newBoard(t, []uint32{wfi, nop, wfi, nop}, []uint32{nop})
	b.csr.mie = 1 << MEI
	check := func(what string, budget, steps int, st State, pc uint32) {
		t.Helper()
		if n, got := b.Run(budget); n != steps || got != st || b.PC() != pc {
			t.Errorf("%s: Run(%d) = %d, %d at %#x, want %d, %d at %#x", what, budget, n, got, b.PC(), steps, st, pc)
		}
	}
	check("nothing pending", 10, 1, Waiting, testPC+4)
	check("still nothing", 10, 0, Waiting, testPC+4)
	b.SetInterrupt(MTI, true)
	check("a line that is not enabled", 10, 0, Waiting, testPC+4)
	b.SetInterrupt(MEI, true)
	check("MIE clear: goes on", 1, 1, Running, testPC+8)
	check("pending already: no wait", 2, 2, Running, testPC+16)
	b.SetPC(testPC)
	b.SetInterrupt(MEI, false)
	check("again", 10, 1, Waiting, testPC+4)
	b.csr.mstatus = mstatusMIE
	b.SetInterrupt(MEI, true)
	check("MIE set: the handler", 1, 1, Running, testHandler+4)
	if b.csr.mepc != testPC+4 {
		t.Errorf("mepc %#x, want the instruction after WFI, %#x", b.csr.mepc, testPC+4)
	}
	b.SetInterrupt(MEI, false)
	b.SetPC(testPC)
	check("once more", 10, 1, Waiting, testPC+4)
	b.SetPC(testPC + 12)
	check("SetPC ends the wait", 1, 1, Running, testPC+16)
}

func TestLockup(t *testing.T) {
	b := newBoard(t, []uint32{nop, ecall}, []uint32{ebreak, nop})
	for _, want := range []int{3, 1} {
		if n, st := b.Run(100); n != want || st != Lockup || b.PC() != testHandler || b.csr.mcause != causeBreakpoint {
			t.Errorf("Run = %d, %d at %#x, mcause %d, want %d, Lockup", n, st, b.PC(), b.csr.mcause, want)
		}
	}
	binary.LittleEndian.PutUint32(b.ram[0x800:], wfi) // the board repairs the handler
	b.Invalidate()
	if n, st := b.Run(100); n != 1 || st != Waiting {
		t.Errorf("after the repair Run = %d, %d, want 1, Waiting", n, st)
	}
}

func TestBus(t *testing.T) {
	b := newBoard(t, []uint32{
		nop,
		iType(0x03, 1, 0, 7, 3), iType(0x03, 2, 4, 7, 3), iType(0x03, 3, 1, 7, 2), iType(0x03, 4, 5, 7, 2), lw(5, 7, 4),
		addi(9, 0, -2), sType(0, 7, 9, 1), sType(1, 7, 9, 2), sw(9, 7, 12), nop, nop,
	}, []uint32{nop})
	b.csr.mie, b.csr.mstatus = 1<<MEI, mstatusMIE
	b.Run(9)
	b.onStore = func() {
		b.SetInterrupt(MEI, true)
		b.Yield()
	}
	if n, st := b.Run(100); n != 1 || st != Running || b.PC() != testPC+40 {
		t.Errorf("Yield: Run = %d, %d at %#x, want 1, Running at %#x", n, st, b.PC(), testPC+40)
	}
	if n, _ := b.Run(1); n != 1 || b.PC() != testHandler+4 || b.csr.mepc != testPC+40 {
		t.Errorf("interrupt of a Bus call: %d steps, pc %#x, mepc %#x", n, b.PC(), b.csr.mepc)
	}
	want := []string{
		"load1 0x40000003 pc=0x80000104 steps=1", "load1 0x40000003 pc=0x80000108 steps=2",
		"load2 0x40000002 pc=0x8000010c steps=3", "load2 0x40000002 pc=0x80000110 steps=4",
		"load4 0x40000004 pc=0x80000114 steps=5",
		"store1 0x40000001=0xfe", "store2 0x40000002=0xfffe", "store4 0x4000000c=0xfffffffe",
	}
	if diff := cmp.Diff(want, b.log); diff != "" {
		t.Errorf("bus (-want +got):\n%s", diff)
	}
	regs := []uint32{b.Reg(1), b.Reg(2), b.Reg(3), b.Reg(4), b.Reg(5)}
	if diff := cmp.Diff([]uint32{0xffff_ff98, 0x98, 0xffff_ba98, 0xba98, 0xfedc_ba98}, regs); diff != "" {
		t.Errorf("loaded values (-want +got):\n%s", diff)
	}
}

func TestLoadReserved(t *testing.T) {
	const (
		lr  = 0x1003_22af // lr.w x5, (x6)
		lr4 = 0x1004_a2af // lr.w x5, (x9), and x9 is testData+4
	)
	scTo := func(rd, rs1 uint32) uint32 { return rType(0x2f, rd, 2, rs1, 1, 0x0c) }
	tests := []struct {
		name string
		code []uint32
		fail uint32
	}{
		{"pair", []uint32{lr, scTo(11, 6)}, 0},
		{"no reservation", []uint32{nop, scTo(11, 6)}, 1},
		{"other address", []uint32{lr4, scTo(11, 6)}, 1},
		{"the last LR counts", []uint32{lr, lr4, scTo(11, 6)}, 1},
		{"an SC ends it", []uint32{lr, scTo(10, 6), scTo(11, 6)}, 1},
		{"a failed SC ends it", []uint32{lr, scTo(10, 9), scTo(11, 6)}, 1},
		{"own store keeps it", []uint32{lr, sw(0, 6, 0), scTo(11, 6)}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBoard(t, tt.code, nil)
			b.SetReg(1, 77)
			b.SetReg(9, testData+4)
			b.SetReg(11, 9)
			b.Run(len(tt.code) - 1)
			binary.LittleEndian.PutUint32(b.ram[0x1000:], 5)
			b.Run(1)
			want := uint32(77)
			if tt.fail != 0 {
				want = 5
			}
			if got := binary.LittleEndian.Uint32(b.ram[0x1000:]); b.Reg(11) != tt.fail || got != want {
				t.Errorf("SC gave %d, memory %d, want %d, %d", b.Reg(11), got, tt.fail, want)
			}
		})
	}
	t.Run("the board's write ends it", func(t *testing.T) {
		b := newBoard(t, []uint32{lr, scTo(11, 6)}, nil)
		b.Run(1)
		b.Invalidate()
		if b.Run(1); b.Reg(11) != 1 {
			t.Errorf("SC gave %d after Invalidate, want 1", b.Reg(11))
		}
	})
}

// TestFenceI runs an instruction, stores another over it, and runs it again.
func TestFenceI(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fence uint32
		want  uint32
	}{
		{"without FENCE.I the old one runs", nop, 1 + 1},
		{"with FENCE.I the new one runs", fenceI, 1 + 100},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBoard(t, []uint32{
				addi(1, 1, 1),      // replaced by what x2 holds
				bType(1, 3, 0, 20), // the second time: leave
				addi(3, 0, 1), sw(2, 4, 0), tt.fence, jal(0, -20),
			}, nil)
			b.SetReg(2, addi(1, 1, 100))
			b.SetReg(4, testPC)
			b.Run(8)
			if b.Reg(1) != tt.want || b.PC() != testPC+24 {
				t.Errorf("x1 = %d at %#x, want %d at %#x", b.Reg(1), b.PC(), tt.want, testPC+24)
			}
		})
	}
}

// A 4-byte instruction may lie across two adjacent Regions, and 2-byte alignment
// is enough.
func TestFetchAcrossRegions(t *testing.T) {
	low, high := make([]byte, 16), make([]byte, 16)
	binary.LittleEndian.PutUint16(low[14:], uint16(addi(1, 0, 42)&0xffff))
	binary.LittleEndian.PutUint16(high, uint16(addi(1, 0, 42)>>16))
	c, err := New(Config{
		Regions: []Region{{Base: 0x110, Mem: high, Exec: true}, {Base: 0x100, Mem: low, Exec: true, ReadOnly: true}},
		ResetPC: 0x10e,
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Run(1); c.Reg(1) != 42 || c.PC() != 0x112 {
		t.Errorf("x1 = %d, pc %#x", c.Reg(1), c.PC())
	}

	c, err = New(Config{
		Regions: []Region{{Base: 0x110, Mem: high}, {Base: 0x100, Mem: low, Exec: true}},
		ResetPC: 0x10e,
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Run(1); c.csr.mcause != causeFetchAccess || c.csr.mtval != 0x110 || c.csr.mepc != 0x10e {
		t.Errorf("second half without Exec: mcause %d, mtval %#x, mepc %#x, want 1, 0x110, 0x10e", c.csr.mcause, c.csr.mtval, c.csr.mepc)
	}
}

func TestReset(t *testing.T) {
	b := newBoard(t, []uint32{wfi}, nil)
	b.csr.mie, b.csr.mstatus = 1<<MEI, mstatusMIE|mstatusMPIE
	b.SetInterrupt(MTI, true)
	b.Run(1)
	binary.LittleEndian.PutUint32(b.ram[0x100:], addi(1, 0, 3)) // Reset forgets the decoded WFI
	b.Reset()
	for i := range 32 {
		if b.Reg(i) != 0 {
			t.Errorf("x%d = %#x after Reset", i, b.Reg(i))
		}
	}
	want := csrs{mip: 1 << MTI, cycleBase: -b.Steps(), instretBase: -b.Steps()}
	if b.csr != want || b.PC() != testPC {
		t.Errorf("CSRs %+v, pc %#x", b.csr, b.PC())
	}
	if n, st := b.Run(1); n != 1 || st != Running || b.Reg(1) != 3 {
		t.Errorf("Run after Reset = %d, %d, x1 %d", n, st, b.Reg(1))
	}
}

func TestNewRejects(t *testing.T) {
	mem := make([]byte, 64)
	for _, tt := range []struct {
		name, want string
		cfg        Config
	}{
		{"odd reset pc", "is odd", Config{ResetPC: 1}},
		{"misaligned base", "multiples of 4", Config{Regions: []Region{{Base: 2, Mem: mem}}}},
		{"misaligned length", "multiples of 4", Config{Regions: []Region{{Mem: mem[:63]}}}},
		{"beyond 4 GiB", "within 4 GiB", Config{Regions: []Region{{Base: 0xffff_ffc4, Mem: mem}}}},
		{"overlap", "overlaps region 0", Config{Regions: []Region{{Base: 0x100, Mem: mem}, {Base: 0x13c, Mem: mem}}}},
	} {
		if _, err := New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: New gave %v, want an error with %q", tt.name, err, tt.want)
		}
	}
	if _, err := New(Config{Regions: []Region{{Base: 0xffff_ffc0, Mem: mem}, {Base: 0xffff_ff80, Mem: mem}}}); err != nil {
		t.Errorf("adjacent regions up to 4 GiB: %v", err)
	}
}
