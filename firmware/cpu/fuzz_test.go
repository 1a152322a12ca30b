// SPDX-License-Identifier: Apache-2.0

package cpu

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// FuzzRun executes arbitrary bytes as a program with a handler of its own, once
// in one slice and once step by step. Neither may panic, and after each step the
// hart keeps what the specification promises of it. Both runs must end alike.
func FuzzRun(f *testing.F) {
	seed := func(words ...uint32) {
		var b []byte
		for _, w := range words {
			b = binary.LittleEndian.AppendUint32(b, w)
		}
		f.Add(b, uint8(0))
	}
	seed(ecall, ebreak, mret, wfi, fenceI)
	seed(csrrsi(0, Mstatus, 8), csrrw(1, Mie, 6), wfi, jal(0, -8))
	seed(addi(2, 0, 1), sw(2, 6, 0), lw(3, 7, 4), sw(3, 6, -2048), jal(0, -16))
	seed(rType(0x2f, 5, 2, 6, 0, 0x08), rType(0x2f, 5, 2, 6, 7, 0x0c), rType(0x2f, 5, 2, 7, 6, 0))
	f.Add(randomProgram(1, 3)[randomEntry-randomBase:][:0x400], uint8(0xff))

	f.Fuzz(func(t *testing.T, code []byte, lines uint8) {
		const budget = 3000
		start := func() *board {
			b := newBoard(t, nil, nil)
			copy(b.ram[0x100:], code)
			b.SetInterrupt(MSI, lines&1 != 0)
			b.SetInterrupt(MTI, lines&2 != 0)
			b.SetInterrupt(MEI, lines&4 != 0)
			return b
		}
		whole := start()
		total := 0
		for total < budget {
			n, st := whole.Run(budget - total)
			if total += n; st == Waiting {
				break
			}
		}

		b := start()
		done := 0
		for done < budget {
			from, before := b.PC(), b.Steps()
			n, st := b.Run(1)
			if n < 0 || n > 1 || b.Steps()-before != uint64(n) {
				t.Fatalf("Run(1) at %#x did %d steps, Steps moved by %d", from, n, b.Steps()-before)
			}
			if b.PC()&1 != 0 || b.csr.mepc&1 != 0 {
				t.Fatalf("after %#x: pc %#x, mepc %#x: odd", from, b.PC(), b.csr.mepc)
			}
			if b.Reg(0) != 0 {
				t.Fatalf("after %#x: x0 = %#x", from, b.Reg(0))
			}
			if b.csr.mstatus&^(mstatusMIE|mstatusMPIE) != 0 || b.csr.mie&^mieLines != 0 || b.csr.mtvec&2 != 0 {
				t.Fatalf("after %#x: CSRs %+v", from, b.csr)
			}
			if n == 0 && st != Waiting {
				t.Fatalf("at %#x: no step in state %d", from, st)
			}
			if done += n; st == Waiting {
				break
			}
		}
		if done != total || b.PC() != whole.PC() || b.x != whole.x || b.csr != whole.csr || !bytes.Equal(b.ram, whole.ram) {
			t.Fatalf("sliced: %d steps, pc %#x, %+v; whole: %d, %#x, %+v", done, b.PC(), b.csr, total, whole.PC(), whole.csr)
		}
		if !bytes.Equal(b.rom, make([]byte, len(b.rom))) {
			t.Fatal("the ROM was written")
		}
	})
}
