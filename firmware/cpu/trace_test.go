// SPDX-License-Identifier: Apache-2.0

package cpu

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The disassembly of each instruction of the table is the text that its assembler made it from, in one spelling: registers by their
// other names, targets absolute, and no compressed or pseudo-instructions.
func TestDisassemble(t *testing.T) {
	reg := regexp.MustCompile(`\bx(\d+)\b`)
	dot := regexp.MustCompile(`\.([+-])(0x[0-9a-f]+|\d+)`)
	checked := 0
	for _, tt := range instructions {
		if strings.Contains(tt.want, "trap=2") || tt.asm == "fence.tso" { // the hart has no names for what it does not have
			continue
		}
		if strings.HasPrefix(tt.asm, "c.") || strings.HasPrefix(tt.asm, ".") || strings.Contains(tt.asm, ".aq") || strings.Contains(tt.asm, ".rl") {
			continue
		}
		want := reg.ReplaceAllStringFunc(tt.asm, func(s string) string {
			n, _ := strconv.Atoi(s[1:])
			return RegisterName(n)
		})
		want = dot.ReplaceAllStringFunc(want, func(s string) string {
			n, _ := strconv.ParseInt(s[2:], 0, 64)
			if s[1] == '-' {
				n = -n
			}
			return fmt.Sprintf("%#x", testPC+uint32(n))
		})
		want = strings.ReplaceAll(want, ", ", ",")
		got := Disassemble(testPC, tt.code)
		if hex := regexp.MustCompile(`^(lui|auipc) \w+,(\d+)$`).FindStringSubmatch(want); hex != nil {
			n, _ := strconv.Atoi(hex[2])
			want = strings.Replace(want, ","+hex[2], fmt.Sprintf(",%#x", n), 1)
		}
		if got != want {
			t.Errorf("%08x is %q, want %q", tt.code, got, want)
		}
		checked++
	}
	if checked < 50 {
		t.Errorf("%d instructions checked", checked)
	}
	for code, want := range map[uint32]string{
		0x4501: "addi a0,zero,0", 0x6505: "lui a0,0x1", 0x1141: "addi sp,sp,-16", 0xc606: "sw ra,12(sp)", 0x8082: "jalr zero,0(ra)",
		0xa001: "jal zero,0x80000100", 0x9002: "ebreak", 0: "illegal", 0x7c0022f3: "csrrs t0,0x7c0,zero",
	} {
		if got := Disassemble(testPC, code); got != want {
			t.Errorf("%x is %q, want %q", code, got, want)
		}
	}
}

// Every step of a run with loads, atomics, traps, an interrupt and a breakpoint, and that tracing changes nothing.
func TestTrace(t *testing.T) {
	code := []uint32{lui(5, 0x12345000), addi(0, 5, 1), sw(5, 6, 4), lw(9, 6, 4), rType(0x2f, 9, 2, 6, 5, 0), ecall, sw(0, 8, 0), wfi}
	handler := []uint32{csrrs(10, Mepc, 0), addi(10, 10, 4), csrrw(0, Mepc, 10), mret}
	b, plain := newBoard(t, code, handler), newBoard(t, code, handler)
	var got strings.Builder
	b.SetTrace(func(e TraceEvent) {
		fmt.Fprintf(&got, "%d %x %d %s", e.Step, e.PC, e.Size, Disassemble(e.PC, e.Bits))
		if e.Rd != 0 {
			fmt.Fprintf(&got, " %s=%x", RegisterName(e.Rd), e.Value)
		}
		if e.Access {
			fmt.Fprintf(&got, " [%x]", e.Addr)
		}
		if e.Trap {
			fmt.Fprintf(&got, " trap %x %x", e.Cause, e.Tval)
		}
		got.WriteByte('\n')
	})
	b.SetBreakpoint(testPC+4, true)
	if _, st := b.Run(1000); st != AtBreakpoint {
		t.Errorf("state %d", st)
	}
	b.ClearDebug()
	for _, c := range []*board{b, plain} {
		if _, st := c.Run(1000); st != Waiting {
			t.Errorf("state %d", st)
		}
		c.csr.mie, c.csr.mstatus = mieLines, mstatusMIE
		c.SetInterrupt(MTI, true)
		c.Run(1)
	}
	want := `0 80000100 4 lui t0,0x12345 t0=12345000
1 80000104 4 addi zero,t0,1
2 80000108 4 sw t0,4(t1) [80001004]
3 8000010c 4 lw s1,4(t1) s1=12345000 [80001004]
4 80000110 4 amoadd.w s1,t0,(t1) s1=0 [80001000]
5 80000114 4 ecall trap b 0
6 80000800 4 csrrs a0,mepc,zero a0=80000114
7 80000804 4 addi a0,a0,4 a0=80000118
8 80000808 4 csrrw zero,mepc,a0
9 8000080c 4 mret
10 80000118 4 sw zero,0(s0) trap 7 1000
11 80000800 4 csrrs a0,mepc,zero a0=80000118
12 80000804 4 addi a0,a0,4 a0=8000011c
13 80000808 4 csrrw zero,mepc,a0
14 8000080c 4 mret
15 8000011c 4 wfi
16 80000120 0 illegal trap 80000007 0
16 80000800 4 csrrs a0,mepc,zero a0=80000120
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("trace (-want +got):\n%s", diff)
	}
	if b.x != plain.x || b.pc != plain.pc || b.steps != plain.steps || string(b.ram) != string(plain.ram) {
		t.Error("the traced run ended elsewhere")
	}
	b.SetTrace(nil)
	b.Run(1)
	if got.String() != want {
		t.Error("a trace after its end")
	}
}
