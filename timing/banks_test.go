// SPDX-License-Identifier: Apache-2.0

package timing

import (
	"testing"

	"npuemu/core/isa"
)

// TestReach counts the banks of each byte, where operands are aligned to banks: there the closed form is exact.
func TestReach(t *testing.T) {
	for _, width := range []int{4, 32} {
		for _, banks := range []int{1, 2, 3, 4, 8} {
			c := config(32, 32)
			c.Banks, c.BankWidth = banks, width
			for _, bytes := range []uint64{1, 4, 5, 31, 32, 33, 96, 1000} {
				for stride := uint64(0); stride < 300*uint64(width)/4; stride += uint64(width) {
					for _, outer := range []uint64{1, 9} {
						r := isa.Rows{Outer: outer, Inner: 9, InnerStride: stride, OuterStride: stride / 2 / uint64(width) * uint64(width), Bytes: bytes}
						seen := map[uint64]bool{}
						for y := range r.Outer {
							for x := range r.Inner {
								for at := y*r.OuterStride + x*r.InnerStride; at < y*r.OuterStride+x*r.InnerStride+bytes; at++ {
									seen[at/uint64(width)%uint64(banks)] = true
								}
								if len(seen) == banks {
									break
								}
							}
						}
						if got := c.reach(r); got != uint64(len(seen)) {
							t.Fatalf("%d banks of %d bytes: %+v reaches %d, want %d", banks, width, r, got, len(seen))
						}
					}
				}
			}
			if got := c.reach(isa.Rows{Outer: 1, Inner: 1, Bytes: 1}); got != uint64(banks) {
				t.Errorf("a row alone reaches %d of %d banks", got, banks)
			}
			if got := c.reach(isa.Rows{Outer: 1, Inner: 2, InnerStride: 1, Bytes: 1}); got != uint64(banks) {
				t.Errorf("bytes that follow each other reach %d of %d banks", got, banks)
			}
		}
	}
}

// TestBanks has TABLE read and write 100 rows of 8 bytes, a row in a cycle, in banks of 8 bytes.
func TestBanks(t *testing.T) {
	table := func(x, out uint16) isa.Table {
		return isa.Table{X: 0, Out: 1 << 16, Table: 1 << 18, M: 100, N: 8, XStride: x, OutStride: out}
	}
	load := isa.Load{NX: 3200, NY: 1, NZ: 1, Local: 1 << 17}
	for _, tt := range []struct {
		name   string
		banks  int
		text   []isa.Instruction
		vector uint64 // busy; where it is slower, with one cycle for the rounding of its speed
		lost   uint64
	}{
		{"spread", 4, []isa.Instruction{table(8, 8)}, 100, 0},
		{"a gap that spreads", 4, []isa.Instruction{table(24, 40)}, 100, 0},
		{"two of four banks", 4, []isa.Instruction{table(16, 16)}, 109, 9}, // 1600 bytes as 3200, and 256 of the table: 3456 by 32
		{"one operand in one bank", 4, []isa.Instruction{table(32, 8)}, 134, 34},
		{"both in one bank", 4, []isa.Instruction{table(32, 64)}, 209, 109},
		{"another number of banks", 5, []isa.Instruction{table(32, 64)}, 100, 0},
		{"one bank is fast enough", 8, []isa.Instruction{isa.Fill{NX: 8, NY: 100, Stride: 64}}, 100, 0},
		// A LOAD of 32 bytes in a cycle has its part of 64 still, and TABLE is no slower for it.
		{"others have what is left", 8, []isa.Instruction{load, table(64, 64)}, 205, 105},
		{"others first", 2, []isa.Instruction{isa.Fill{NX: 8, NY: 100, Stride: 16}}, 100, 0},
	} {
		c := plain(8, 8)
		c.Banks, c.BankWidth = tt.banks, 8
		r := run(t, program(tt.text...), c)
		v := r.Engines[isa.ClassVector-1]
		if v.Busy != tt.vector || v.Stalls[OnScratchpad] != tt.lost {
			t.Errorf("%s: busy for %d cycles, %d of them lost; want %d, %d", tt.name, v.Busy, v.Stalls[OnScratchpad], tt.vector, tt.lost)
		}
		if l := r.Engines[isa.ClassLoad-1]; l.Busy > 100 || l.Stalls[OnScratchpad] > 0 {
			t.Errorf("%s: LOAD is busy for %d cycles", tt.name, l.Busy)
		}
	}
}

// TestBanksOfProducts: a vector is in as many banks as it is wide, so strides do not hold up an array that takes one in each
// cycle; a scratchpad of fewer bytes in a cycle than a vector has does.
func TestBanksOfProducts(t *testing.T) {
	for _, tt := range []struct {
		banks, width int
		stride       uint32
		cycles       uint64
	}{
		{4, 8, 8, 1008},
		{4, 8, 32, 1008},
		{4, 4, 16, 1008},
		{4, 2, 16, 1008},
		{1, 8, 32, 1008},
		{2, 2, 8, 2016}, // 8000 bytes of activations and 64 of weights by 4
		{2, 2, 32, 2016},
	} {
		c := plain(8, 8)
		c.Banks, c.BankWidth = tt.banks, tt.width
		text := program(isa.Operands{AStride: tt.stride, BStride: 8, AccStride: 32}, isa.Gemm{M: 1000, N: 8, K: 8, B: 1 << 19})
		if got := run(t, text, c).Cycles - 14; got != tt.cycles {
			t.Errorf("%d banks of %d bytes, rows %d apart: %d cycles, want %d", tt.banks, tt.width, tt.stride, got, tt.cycles)
		}
	}
}
