// SPDX-License-Identifier: Apache-2.0

package mmio

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	regID     = 0x00
	regCtrl   = 0x04
	regStatus = 0x08
	regEnable = 0x0c
	regKey    = 0x10
	regMixed  = 0x14
	regNarrow = 0x30
	regAddrLo = 0x20
	regAddrHi = 0x24
	bankSize  = 0x4000
)

var testTable = []Register{
	{Name: "ID", Off: regID, Reset: 0x4e50_5501},
	{Name: "CTRL", Off: regCtrl, Reset: 0x0000_0100, RW: 0x0000_0f0f},
	{Name: "STATUS", Off: regStatus, Reset: 0x8000_000f, W1C: 0x0000_0007},
	{Name: "ENABLE", Off: regEnable, Reset: 0x0000_0001, W1S: 0x0000_00f0},
	{Name: "KEY", Off: regKey, Reset: 0x1234_5678, RW: 0xffff_ffff, WO: true},
	{Name: "MIXED", Off: regMixed, Reset: 0x00ff_0000, RW: 0x0000_00ff, W1C: 0x00ff_0000, W1S: 0xff00_0000},
	{Name: "NARROW", Off: regNarrow, Reset: 0x1122_3344, RW: 0x00ff_ff00, W1C: 0xff00_0000, W1S: 0x0000_00ff, Narrow: true},
	{Name: "ADDR_LO", Off: regAddrLo, RW: 0xffff_f000},
	{Name: "ADDR_HI", Off: regAddrHi, RW: 0xffff_ffff},
}

func u32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
func u64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

// TestAccess writes in at off of a bank after reset, then reads len(want) bytes
// at off. dev is the stored value of the register afterwards.
func TestAccess(t *testing.T) {
	tests := []struct {
		name string
		off  uint64
		in   []byte
		want []byte
		dev  uint32
		rule Rule // of the write
	}{
		{name: "reset value", off: regID, want: u32(0x4e50_5501), dev: 0x4e50_5501},
		{name: "read-only ignores writes", off: regID, in: u32(0), want: u32(0x4e50_5501), dev: 0x4e50_5501, rule: RuleReadOnly},
		{name: "writable bits store", off: regCtrl, in: u32(0x0000_0a05), want: u32(0x0a05), dev: 0x0a05},
		{name: "reserved bits do not stick", off: regCtrl, in: u32(0xffff_ffff), want: u32(0x0f0f), dev: 0x0f0f},
		{name: "zero stores zero", off: regCtrl, in: u32(0), want: u32(0), dev: 0},
		{name: "one clears", off: regStatus, in: u32(0x5), want: u32(0x8000_000a), dev: 0x8000_000a},
		{name: "zero does not clear", off: regStatus, in: u32(0), want: u32(0x8000_000f), dev: 0x8000_000f},
		{name: "one clears only W1C bits", off: regStatus, in: u32(0xffff_ffff), want: u32(0x8000_0008), dev: 0x8000_0008},
		{name: "one sets", off: regEnable, in: u32(0x30), want: u32(0x31), dev: 0x31},
		{name: "one sets only W1S bits", off: regEnable, in: u32(0xffff_ff00), want: u32(0x01), dev: 0x01},
		{name: "write-only reads zero", off: regKey, in: u32(0xcafe_f00d), want: u32(0), dev: 0xcafe_f00d},
		{name: "three kinds in one register", off: regMixed, in: u32(0x0101_00a5), want: u32(0x01fe_00a5), dev: 0x01fe_00a5},
		{name: "8 bytes write both halves", off: regAddrLo, in: u64(0x1122_3344_5566_7788), want: u64(0x1122_3344_5566_7000), dev: 0x5566_7000},
		{name: "8 bytes across a hole", off: 0x10, in: u64(1), want: u64(0x00ff_0000_0000_0000), dev: 1},
		{name: "1-byte write is ignored", off: regCtrl, in: []byte{0xff}, want: []byte{0xff}, dev: 0x100, rule: RuleWidth},
		{name: "2-byte write is ignored", off: regCtrl, in: []byte{0, 0}, want: []byte{0xff, 0xff}, dev: 0x100, rule: RuleWidth},
		{name: "3 bytes", off: regCtrl, in: make([]byte, 3), want: bytes.Repeat([]byte{0xff}, 3), dev: 0x100, rule: RuleWidth},
		{name: "16 bytes", off: regID, in: make([]byte, 16), want: bytes.Repeat([]byte{0xff}, 16), dev: 0x4e50_5501, rule: RuleWidth},
		{name: "a byte of a narrow register", off: regNarrow + 1, in: []byte{0xaa}, want: []byte{0xaa}, dev: 0x1122_aa44},
		{name: "a pair of bytes", off: regNarrow + 2, in: []byte{0xbb, 0x01}, want: []byte{0xbb, 0x10}, dev: 0x10bb_3344},
		{name: "a byte of W1S leaves the rest", off: regNarrow, in: []byte{0x08}, want: []byte{0x4c}, dev: 0x1122_334c},
		{name: "all of a narrow register", off: regNarrow, in: u32(0x10aa_bb01), want: u32(0x01aa_bb45), dev: 0x01aa_bb45},
		{name: "misaligned pair of bytes", off: regNarrow + 1, in: []byte{0, 0}, want: []byte{0xff, 0xff}, dev: 0x1122_3344, rule: RuleWidth},
		{name: "empty access to a narrow register", off: regNarrow, in: []byte{}, want: []byte{}, dev: 0x1122_3344, rule: RuleWidth},
		{name: "empty access", off: regID, in: []byte{}, want: []byte{}, dev: 0x4e50_5501, rule: RuleWidth},
		{name: "8 bytes at a multiple of 4", off: regCtrl, in: u64(0), want: u64(^uint64(0)), dev: 0x100, rule: RuleWidth},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := New(bankSize, testTable)
			rule := RuleNone
			b.Trace(func(e Event) {
				if e.Op == OpWrite {
					rule = max(rule, e.Rule)
				}
			})
			if tt.in != nil {
				b.Write(tt.off, tt.in)
			}
			got := make([]byte, len(tt.want))
			b.Read(tt.off, got)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("read after write (-want +got):\n%s", diff)
			}
			if dev := b.Value(uint32(tt.off &^ 3)); dev != tt.dev {
				t.Errorf("stored value = %#x, want %#x", dev, tt.dev)
			}
			if rule != tt.rule {
				t.Errorf("rule of the write = %q, want %q", rule, tt.rule)
			}
		})
	}
}

func TestUnclaimed(t *testing.T) {
	// The last rows would wrap around if offsets were added to sizes.
	for _, off := range []uint64{0x18, 0x28, bankSize - 4, bankSize, 1 << 32, 1<<32 + regCtrl, ^uint64(0) - 3} {
		b := New(bankSize, testTable)
		var rules []Rule
		b.Trace(func(e Event) { rules = append(rules, e.Rule) })
		b.Write(off, u32(0))
		got := make([]byte, 4)
		b.Read(off, got)
		if diff := cmp.Diff(u32(0xffff_ffff), got); diff != "" {
			t.Errorf("%#x: (-want +got):\n%s", off, diff)
		}
		if diff := cmp.Diff([]Rule{RuleUnclaimed, RuleUnclaimed}, rules); diff != "" {
			t.Errorf("%#x: rules (-want +got):\n%s", off, diff)
		}
		for _, r := range testTable {
			if v := b.Value(r.Off); v != r.Reset {
				t.Errorf("%#x: write changed %s to %#x", off, r.Name, v)
			}
		}
	}
}

func TestEvents(t *testing.T) {
	b := New(bankSize, testTable)
	b.OnWriteRange(0x1000, 0x1000, 2, 8, func(int, uint32) {})
	var got []string
	b.Trace(func(e Event) { got = append(got, e.String()) })
	p := make([]byte, 8)
	b.Write(regCtrl, u32(0x305))
	b.Read(regCtrl, p[:4])
	b.Read(0x18, p)
	b.Write(regID, u32(7))
	b.Write(0x2008, u32(9))
	b.Read(0x2008, p[:4])
	b.Write(0x1001, []byte{1, 2})
	b.Write(regAddrLo, u64(0x2_0000_1000))
	want := []string{
		"write4 0x4 = 0x305",
		"read4 0x4 = 0x305",
		"read4 0x18 = 0xffffffff: " + RuleUnclaimed.String(),
		"read4 0x1c = 0xffffffff: " + RuleUnclaimed.String(),
		"write4 0x0 = 0x7: " + RuleReadOnly.String(),
		"write4 0x2008 = 0x9",
		"read4 0x2008 = 0x0",
		"write2 0x1001 = 0x201: " + RuleWidth.String(),
		"write4 0x20 = 0x1000",
		"write4 0x24 = 0x2",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestHooks(t *testing.T) {
	b := New(bankSize, testTable)
	var calls []string
	b.OnWrite(regCtrl, func(v uint32) {
		if v != 0xffff_ffff || b.Value(regCtrl) != 0x0f0f {
			t.Errorf("hook got %#x with %#x stored, want the raw value and the masked one", v, b.Value(regCtrl))
		}
		b.SetBits(regStatus, 0x70)
		b.ClearBits(regStatus, 0x0f)
		calls = append(calls, "ctrl")
	})
	b.Write(regCtrl, u32(0xffff_ffff))
	b.Write(regCtrl, []byte{0, 0}) // ignored, so no hook
	if diff := cmp.Diff([]string{"ctrl"}, calls); diff != "" {
		t.Errorf("write hooks (-want +got):\n%s", diff)
	}
	if v := b.Value(regStatus); v != 0x8000_0070 {
		t.Errorf("STATUS = %#x, want 0x80000070", v)
	}

	b.OnRead(regID, func() uint32 { return 0x55 })
	p := make([]byte, 8)
	b.Read(regID, p)
	if diff := cmp.Diff(u64(0x0f0f_0000_0055), p); diff != "" {
		t.Errorf("8-byte read over a hook (-want +got):\n%s", diff)
	}
	if v := b.Value(regID); v != 0x4e50_5501 {
		t.Errorf("stored ID = %#x, a read hook must not change it", v)
	}
	// A hook makes a register without writable bits worth writing.
	b.OnWrite(regID, func(uint32) {})
	b.Trace(func(e Event) {
		if e.Rule != RuleNone {
			t.Errorf("%s: a register with a write hook is not read-only", e)
		}
	})
	b.Write(regID, u32(1))
}

func TestHalvesLowFirst(t *testing.T) {
	b := New(bankSize, testTable)
	var got []uint32
	b.OnWrite(regAddrLo, func(v uint32) { got = append(got, v, b.Value(regAddrHi)) })
	b.OnWrite(regAddrHi, func(v uint32) { got = append(got, v) })
	b.Write(regAddrLo, u64(0x0000_0007_0000_3000))
	if diff := cmp.Diff([]uint32{0x3000, 0, 7}, got); diff != "" {
		t.Errorf("low value, high register then, high value (-want +got):\n%s", diff)
	}
}

func TestWriteRange(t *testing.T) {
	b := New(bankSize, testTable)
	type ring struct {
		Kind  string
		Index int
		V     uint32
	}
	var got []ring
	b.OnWriteRange(0x1000, 0x1000, 3, 0, func(i int, v uint32) { got = append(got, ring{"sq", i, v}) })
	b.OnWriteRange(0x1000, 0x1000, 3, 4, func(i int, v uint32) { got = append(got, ring{"cq", i, v}) })
	for _, off := range []uint64{0x1000, 0x2004, 0x3000} {
		b.Write(off, u32(uint32(off)))
	}
	b.Write(0x3000, u64(0x2_0000_0001)) // both doorbells of one page
	b.Write(0x1008, u32(1))             // unclaimed
	b.Write(0x0000, u32(1))             // before the range
	b.Write(0x4000, u32(1))             // after the bank
	want := []ring{{"sq", 0, 0x1000}, {"cq", 1, 0x2004}, {"sq", 2, 0x3000}, {"sq", 2, 1}, {"cq", 2, 2}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("doorbells (-want +got):\n%s", diff)
	}
	p := bytes.Repeat([]byte{0xaa}, 8)
	b.Read(0x2000, p)
	if diff := cmp.Diff(u64(0), p); diff != "" {
		t.Errorf("doorbells read (-want +got):\n%s", diff)
	}
}

func TestReset(t *testing.T) {
	b := New(bankSize, testTable)
	n := 0
	b.OnWrite(regCtrl, func(uint32) { n++ })
	for _, r := range testTable {
		b.Set(r.Off, 0xdead_beef)
	}
	b.Reset()
	for _, r := range testTable {
		if v := b.Value(r.Off); v != r.Reset {
			t.Errorf("%s = %#x after reset, want %#x", r.Name, v, r.Reset)
		}
	}
	if n != 0 {
		t.Errorf("Set and Reset ran the write hook %d times", n)
	}
	b.Write(regCtrl, u32(0))
	if n != 1 {
		t.Error("Reset dropped the write hook")
	}
}

func TestBugs(t *testing.T) {
	nop := func(int, uint32) {}
	one := func(r Register) func() { return func() { New(0x10, []Register{r}) } }
	tests := []struct {
		name string
		do   func()
		want string
	}{
		{"misaligned", one(Register{Name: "A", Off: 2}), "A at 0x2 is not 4-byte aligned"},
		{"outside", one(Register{Name: "A", Off: 0x10}), "outside"},
		{"far outside", one(Register{Name: "A", Off: 0xffff_fffc}), "outside"},
		{"overlap", func() { New(0x10, []Register{{Name: "A", Off: 4}, {Name: "B", Off: 4}}) }, "B at 0x4 overlaps A"},
		{"RW and W1C", one(Register{RW: 1, W1C: 3}), "two of"},
		{"RW and W1S", one(Register{RW: 1, W1S: 1}), "two of"},
		{"W1C and W1S", one(Register{W1C: 8, W1S: 8}), "two of"},
		{"field too wide", one(Register{Fields: []Field{{Shift: 31, Width: 2}}}), "do not fit"},
		{"field empty", one(Register{Fields: []Field{{Shift: 1}}}), "do not fit"},
		{"field overflow", one(Register{Fields: []Field{{Shift: 255, Width: 2}}}), "do not fit"},
		{"fields overlap", one(Register{Fields: []Field{{Width: 2}, {Shift: 1, Width: 1}}}), "overlaps another field"},
		{"odd bank", func() { New(6, nil) }, "not a multiple of 4"},
		{"hook nowhere", func() { New(0x10, nil).OnWrite(4, nil) }, "no register at 0x4"},
		{"value misaligned", func() { New(bankSize, testTable).Value(regCtrl + 1) }, "no register at 0x5"},
		{"two write hooks", func() {
			b := New(bankSize, testTable)
			b.OnWrite(0, func(uint32) {})
			b.OnWrite(0, func(uint32) {})
		}, "ID has a write hook"},
		{"read hook on write-only", func() { New(bankSize, testTable).OnRead(regKey, func() uint32 { return 0 }) }, "KEY is write-only"},
		{"range over register", func() { New(bankSize, testTable).OnWriteRange(0, 0x1000, 1, 4, nop) }, "overlaps CTRL"},
		{"range over range", func() {
			b := New(bankSize, nil)
			b.OnWriteRange(0x1000, 0x1000, 2, 0, nop)
			b.OnWriteRange(0x2000, 4, 1, 0, nop)
		}, "overlaps the range at 0x1000"},
		{"range outside", func() { New(bankSize, nil).OnWriteRange(0x1000, 0x1000, 4, 0, nop) }, "outside"},
		{"range huge", func() { New(bankSize, nil).OnWriteRange(0xffff_fffc, 0x8000_0000, 1<<31-1, 0x10, nop) }, "outside"},
		{"range stride zero", func() { New(bankSize, nil).OnWriteRange(0, 0, 4, 0, nop) }, "misaligned or empty"},
		{"range misaligned", func() { New(bankSize, nil).OnWriteRange(0, 6, 4, 0, nop) }, "misaligned or empty"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			defer func() {
				s, _ := recover().(string)
				if !strings.HasPrefix(s, "mmio: BUG: ") || !strings.Contains(s, tt.want) {
					t.Errorf("panic %q, want mmio: BUG: …%s…", s, tt.want)
				}
			}()
			tt.do()
		})
	}
}

// FuzzAccess plays a sequence of accesses against a bank and against a model
// that decides bit by bit. Each access is 12 bytes of input:
// length and direction, offset, value.
func FuzzAccess(f *testing.F) {
	f.Add([]byte("\x84\x00\x04\x00\xff\xff\xff\xff\x00\x00\x00\x00\x04\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x88\x00\x20\x00\xff\xff\xff\xff\xff\xff\xff\xff\x08\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x82\x00\x08\x00\xff\xff\xff\xff\xff\xff\xff\xff\x88\x10\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		b := New(bankSize, testTable)
		var rung []uint32
		b.OnWriteRange(0x1000, 0x1000, 2, 4, func(i int, v uint32) { rung = append(rung, uint32(i), v) })
		model := map[uint64]uint32{}
		rows := map[uint64]Register{}
		for _, r := range testTable {
			model[uint64(r.Off)], rows[uint64(r.Off)] = r.Reset, r
		}
		var wantRung []uint32
		for ; len(in) >= 12; in = in[12:] {
			n := int(in[0] & 0x0f)
			off := uint64(in[1])<<8 | uint64(in[2])
			if in[3]&0x80 != 0 {
				off |= 0xffff_ffff_ffff_0000
			}
			p := make([]byte, n)
			copy(p, in[4:12])
			legal := n == 4 && off%4 == 0 || n == 8 && off%8 == 0
			if in[0]&0x80 != 0 {
				b.Write(off, p)
				for i := 0; legal && i < n; i += 4 {
					at, v := off+uint64(i), binary.LittleEndian.Uint32(p[i:])
					if at == 0x1004 || at == 0x2004 {
						wantRung = append(wantRung, uint32(at>>12)-1, v)
					}
					if r, ok := rows[at]; ok {
						m := model[at]
						for bit := uint32(1); bit != 0; bit <<= 1 {
							switch {
							case r.RW&bit != 0:
								m = m&^bit | v&bit
							case r.W1C&v&bit != 0:
								m &^= bit
							case r.W1S&v&bit != 0:
								m |= bit
							}
						}
						model[at] = m
					}
				}
				continue
			}
			b.Read(off, p)
			want := bytes.Repeat([]byte{0xff}, n)
			for i := 0; legal && i < n; i += 4 {
				at := off + uint64(i)
				if r, ok := rows[at]; ok {
					v := model[at]
					if r.WO {
						v = 0
					}
					binary.LittleEndian.PutUint32(want[i:], v)
				} else if at == 0x1004 || at == 0x2004 {
					clear(want[i : i+4])
				}
			}
			if !bytes.Equal(want, p) {
				t.Fatalf("read of %d bytes at %#x = %x, want %x", n, off, p, want)
			}
		}
		if diff := cmp.Diff(wantRung, rung); diff != "" {
			t.Errorf("doorbells (-want +got):\n%s", diff)
		}
	})
}

func BenchmarkDoorbell(b *testing.B) {
	bank := New(1<<20, testTable)
	bank.OnWriteRange(0x10000, 0x1000, 128, 0, func(int, uint32) {})
	p := u32(1)
	for b.Loop() {
		bank.Write(0x10000+77*0x1000, p)
	}
}
