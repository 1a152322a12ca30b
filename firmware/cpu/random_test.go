// SPDX-License-Identifier: Apache-2.0

package cpu

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A random program is memory with code and data. It leaves its registers behind its data; the first ECALL ends it.
const (
	randomPrograms = 200
	randomItems    = 120

	randomBase  = 0x8000_0000 // of the memory of QEMU's machine virt
	randomEntry = randomBase + 0x80
	randomSetup = randomBase + 0x7000 // what QEMU's machine runs besides
	randomData  = randomBase + 0x8000
	randomGP    = randomData + 0x80  // x3 throughout, so that offsets have both signs
	randomRegs  = randomData + 0x100 // x0 to x31 at the end
	randomEnd   = randomRegs + 0x80
)

// generator emits a program that terminates: branches go forward, except those
// of loops, which count in x4.
type generator struct {
	*rand.Rand
	code   []byte
	inLoop bool
}

func (g *generator) emit32(w uint32) { g.code = binary.LittleEndian.AppendUint32(g.code, w) }
func (g *generator) emit16(h uint32) { g.code = binary.LittleEndian.AppendUint16(g.code, uint16(h)) }

// dst is a register that may be written, src any register.
func (g *generator) dst() uint32 {
	for {
		if r := g.src(); r != 3 && r != 4 {
			return r
		}
	}
}
func (g *generator) src() uint32  { return g.Uint32N(32) }
func (g *generator) src3() uint32 { return g.Uint32N(8) } // x8 to x15 in compressed formats

// imm is a random n-bit signed immediate.
func (g *generator) imm(n uint) int32 { return sext(g.Uint32(), n) }

// set loads a value that is likely to be a corner case.
func (g *generator) set(rd uint32) {
	corner := []uint32{0, 1, 2, 31, 32, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0xffff_fffe}
	v := g.Uint32()
	if g.IntN(2) == 0 {
		v = corner[g.IntN(len(corner))]
	}
	g.emit32(lui(rd, v+0x800))
	g.emit32(addi(rd, rd, sext(v, 12)))
}

// offset is a random offset from x3 into the data, aligned to size.
func (g *generator) offset(size int32) int32 { return (g.Int32N(0x100/size))*size - 0x80 }

// block emits up to three items and returns them instead of appending.
func (g *generator) block() []byte {
	outer := g.code
	g.code = nil
	for range 1 + g.IntN(3) {
		g.item()
	}
	inner := g.code
	g.code = outer
	return inner
}

func (g *generator) item() {
	switch g.IntN(16) {
	case 0:
		g.set(g.dst())
	case 1: // OP-IMM
		f := g.Uint32N(8)
		imm := g.imm(12)
		if f == 1 || f == 5 {
			imm = imm & 31
			if f == 5 && g.IntN(2) == 0 {
				imm |= 0x400
			}
		}
		g.emit32(iType(0x13, g.dst(), f, g.src(), imm))
	case 2, 3: // OP
		f, alt := g.Uint32N(8), uint32(0)
		if (f == 0 || f == 5) && g.IntN(2) == 0 {
			alt = 0x20
		}
		g.emit32(rType(0x33, g.dst(), f, g.src(), g.src(), alt))
	case 4, 5: // M
		g.emit32(rType(0x33, g.dst(), g.Uint32N(8), g.src(), g.src(), 1))
	case 6: // AUIPC, LUI
		g.emit32(0x17 | g.Uint32N(2)<<5 | g.dst()<<7 | g.Uint32()&^0xfff)
	case 7: // loads
		f := []uint32{0, 1, 2, 4, 5}[g.IntN(5)]
		g.emit32(iType(0x03, g.dst(), f, 3, g.offset(1<<(f&3))))
	case 8: // stores
		f := g.Uint32N(3)
		g.emit32(sType(f, 3, g.src(), g.offset(1<<f)))
	case 9: // atomics
		addr := g.dst()
		if addr == 0 {
			addr = 1
		}
		g.emit32(addi(addr, 3, g.offset(4)))
		amo := func(funct5, rd, rs2 uint32) { g.emit32(rType(0x2f, rd, 2, addr, rs2, funct5<<2|g.Uint32N(4))) }
		switch f := []uint32{0x00, 0x01, 0x04, 0x08, 0x0c, 0x10, 0x14, 0x18, 0x1c, 0x02, 0x03}[g.IntN(11)]; f {
		case 0x02: // LR, SC, and an SC that must fail
			rd := g.dst()
			for rd == addr {
				rd = g.dst()
			}
			amo(0x02, rd, 0)
			for rd = g.dst(); rd == addr; {
				rd = g.dst()
			}
			amo(0x03, rd, g.src())
			amo(0x03, g.dst(), g.src())
		default:
			amo(f, g.dst(), g.src())
		}
	case 10: // compressed arithmetic
		g.compressed()
	case 11: // compressed loads and stores, x3 copied to a base
		base := g.src3()
		off := uint32(g.offset(4) + 0x80)
		g.emit32(addi(8+base, 3, -0x80))
		op := 0x4000 | g.Uint32N(2)<<15
		g.emit16(op | off>>3&7<<10 | base<<7 | off>>2&1<<6 | off>>6&1<<5 | g.src3()<<2)
	case 12: // stack pointer forms
		off := uint32(g.offset(4) + 0x80)
		g.emit32(addi(2, 3, -0x80))
		if g.IntN(2) == 0 {
			rd := g.dst()
			if rd == 0 {
				rd = 2
			}
			g.emit16(0x4002 | off>>5&1<<12 | rd<<7 | off>>2&7<<4 | off>>6&3<<2)
		} else {
			g.emit16(0xc002 | off>>2&15<<9 | off>>6&3<<7 | g.src()<<2)
		}
	case 13: // branches over a block
		b := g.block()
		g.emit32(bType([]uint32{0, 1, 4, 5, 6, 7}[g.IntN(6)], g.src(), g.src(), int32(4+len(b))))
		g.code = append(g.code, b...)
	case 14: // jumps over a block
		g.jump(g.block())
	case 15: // a loop
		if g.inLoop {
			return
		}
		g.inLoop = true
		b := g.block()
		g.inLoop = false
		g.emit32(addi(4, 0, 1+g.Int32N(9)))
		g.code = append(g.code, b...)
		g.emit32(addi(4, 4, -1))
		g.emit32(bType(1, 4, 0, -int32(len(b)+4)))
	}
}

func (g *generator) jump(b []byte) {
	n := uint32(len(b)) + 2
	cj := n>>11&1<<12 | n>>4&1<<11 | n>>8&3<<9 | n>>10&1<<8 | n>>6&1<<7 | n>>7&1<<6 | n>>1&7<<3 | n>>5&1<<2
	cb := n>>8&1<<12 | n>>3&3<<10 | n>>6&3<<5 | n>>1&3<<3 | n>>5&1<<2
	target := g.dst()
	if target == 0 {
		target = 1
	}
	switch k := g.IntN(6); {
	case k == 0 && n < 0x800: // C.J
		g.emit16(0xa001 | cj)
	case k == 1 && n < 0x800: // C.JAL
		g.emit16(0x2001 | cj)
	case k == 2 && n < 0x100: // C.BEQZ, C.BNEZ
		g.emit16(0xc001 | g.Uint32N(2)<<13 | g.src3()<<7 | cb)
	case k == 3 && n < 0x700: // JALR, with an odd target
		g.emit32(0x17 | target<<7)
		g.emit32(iType(0x67, g.dst(), 0, target, int32(len(b)+8)|g.Int32N(2)))
	case k == 4 && n < 0x700: // C.JR, C.JALR
		g.emit32(0x17 | target<<7)
		g.emit32(addi(target, target, int32(len(b)+10)))
		g.emit16(0x8002 | g.Uint32N(2)<<12 | target<<7)
	default:
		g.emit32(jal(g.dst(), int32(len(b)+4)))
	}
	g.code = append(g.code, b...)
}

// compressed emits one of the arithmetic forms, HINTs among them.
func (g *generator) compressed() {
	nonzero := func() uint32 { return 1 + g.Uint32N(31) }
	split := func(imm uint32) uint32 { return imm>>5&1<<12 | imm&31<<2 }
	switch g.IntN(9) {
	case 0: // C.ADDI4SPN
		g.emit16((1+g.Uint32N(255))<<5 | g.src3()<<2)
	case 1: // C.ADDI
		g.emit16(0x0001 | g.dst()<<7 | split(g.Uint32()))
	case 2: // C.LI
		g.emit16(0x4001 | g.dst()<<7 | split(g.Uint32()))
	case 3: // C.ADDI16SP, C.LUI
		g.emit16(0x6001 | g.dst()<<7 | split(nonzero()|g.Uint32N(2)<<5))
	case 4: // C.SRLI, C.SRAI
		g.emit16(0x8001 | g.Uint32N(2)<<10 | g.src3()<<7 | split(g.Uint32N(32)))
	case 5: // C.ANDI
		g.emit16(0x8801 | g.src3()<<7 | split(g.Uint32()))
	case 6: // C.SUB, C.XOR, C.OR, C.AND
		g.emit16(0x8c01 | g.Uint32N(4)<<5 | g.src3()<<7 | g.src3()<<2)
	case 7: // C.SLLI
		g.emit16(0x0002 | g.dst()<<7 | split(g.Uint32N(32)))
	case 8: // C.MV, C.ADD
		g.emit16(0x8002 | g.Uint32N(2)<<12 | g.dst()<<7 | nonzero()<<2)
	}
}

// randomProgram returns program n of a series: memory from randomBase to randomEnd.
func randomProgram(series, n uint64) []byte {
	g := &generator{Rand: rand.New(rand.NewPCG(series, n))}
	for r := range uint32(32) {
		if r != 3 {
			g.set(r)
		}
	}
	g.emit32(lui(3, randomGP+0x800))
	g.emit32(addi(3, 3, sext(randomGP, 12)))
	for range randomItems {
		g.item()
	}
	for r := range uint32(32) {
		g.emit32(sw(r, 3, randomRegs-randomGP+4*int32(r)))
	}
	g.emit32(ecall)

	f := make([]byte, randomEnd-randomBase)
	if len(g.code) > randomSetup-randomEntry {
		panic("random program does not fit; use fewer items")
	}
	copy(f[randomEntry-randomBase:], g.code)
	for i := randomData - randomBase; i < randomRegs-randomBase; i++ {
		f[i] = byte(g.Uint32())
	}
	return f
}

// describe renders what a program left from randomData to randomEnd.
func describe(n int, program, left []byte) string {
	var b strings.Builder
	fmt.Fprintf(&b, "program %d, crc %08x; data crc %08x; x0 to x31:", n,
		crc32.ChecksumIEEE(program), crc32.ChecksumIEEE(left[:randomRegs-randomData]))
	for i := range 32 {
		sep := " "
		if i%8 == 0 {
			sep = "\n"
		}
		fmt.Fprintf(&b, "%s%08x", sep, binary.LittleEndian.Uint32(left[randomRegs-randomData+4*i:]))
	}
	return b.String() + "\n"
}

// execute returns what a program leaves from randomData to randomEnd here.
func execute(t *testing.T, program []byte) []byte {
	t.Helper()
	mem := make([]byte, 0x10000)
	copy(mem, program)
	c, err := New(Config{
		Regions: []Region{
			{Base: randomBase, Mem: mem, Exec: true},
			{Base: programHandler, Mem: binary.LittleEndian.AppendUint32(nil, wfi), Exec: true},
		},
		ResetPC: randomEntry,
	})
	if err != nil {
		t.Fatal(err)
	}
	c.csr.mtvec = programHandler
	if _, st := c.Run(1_000_000); st != Waiting || c.csr.mcause != causeECallM {
		t.Fatalf("state %d, mcause %d at %#x, want ECALL", st, c.csr.mcause, c.csr.mepc)
	}
	return mem[randomData-randomBase : randomEnd-randomBase]
}

// TestRandomAgainstQEMU compares random programs with what QEMU made of them once. The program's crc in the golden
// file tells a changed generator from a wrong result.
func TestRandomAgainstQEMU(t *testing.T) {
	golden := filepath.Join("testdata", "random.golden")
	text, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.SplitAfter(string(text), "\n")
	for n := range randomPrograms {
		program := randomProgram(1, uint64(n))
		var expect string
		if len(want) > 5*n+4 {
			expect = strings.Join(want[5*n:5*n+5], "")
		}
		if diff := cmp.Diff(expect, describe(n, program, execute(t, program))); diff != "" {
			t.Errorf("program %d (-QEMU +here):\n%s", n, diff)
		}
	}
}
