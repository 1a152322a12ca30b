// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package gokvm

import (
	"encoding/binary"
	"testing"

	"npuemu/vdev/local"
)

// TestBARs places and closes the device's BARs through configuration space.
func TestBARs(t *testing.T) {
	d := card(t)
	c := local.Attach(d)
	defer c.Close()
	f, err := newFunction(c, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	changes := 0
	f.moved = func() { changes++ }
	write := func(off uint64, v uint32) { f.writeConfig(off, binary.LittleEndian.AppendUint32(nil, v)) }
	for _, tt := range []struct {
		name    string
		do      func()
		addr    uint64
		n       int
		bar     int // -1: nothing answers
		off     uint64
		changes int
	}{
		{"closed at reset", func() {}, 0, 4, -1, 0, 0},
		{"placed, still closed", func() { write(0x10, 0xd000_0000); write(0x18, 0); write(0x1c, 0x12); write(0x20, 0xd800_0000) }, 0xd000_0000, 4, -1, 0, 3},
		{"open", func() { write(0x04, 2) }, 0xd000_0000, 4, 0, 0, 1},
		{"end of BAR0", func() {}, 0xd00f_fffc, 4, 0, 0xf_fffc, 0},
		{"over the end of BAR0", func() {}, 0xd00f_fffc, 8, -1, 0, 0},
		{"before BAR0", func() {}, 0xcfff_ffff, 1, -1, 0, 0},
		{"BAR2 beyond 4 GiB", func() {}, 0x12_0000_1000, 8, 2, 0x1000, 0},
		{"BAR4", func() {}, 0xd800_2000, 4, 4, 0x2000, 0},
		{"a write elsewhere changes nothing", func() { write(0x0c, 0x10) }, 0xd800_2000, 4, 4, 0x2000, 0},
		{"D3hot", func() { write(0x44, 3) }, 0xd000_0000, 4, -1, 0, 1},
		{"D0", func() { write(0x44, 0) }, 0xd000_0000, 4, 0, 0, 1},
		{"sizing moves it", func() { write(0x10, 0xffff_ffff) }, 0xd000_0000, 4, -1, 0, 1},
		{"back", func() { write(0x10, 0xd000_0000) }, 0xd000_0000, 4, 0, 0, 1},
		{"function-level reset", func() { write(0x58, 1<<15) }, 0xd000_0000, 4, -1, 0, 1},
		{"top of the address space", func() { write(0x10, 0xfff0_0000); write(0x14, 0xffff_ffff); write(0x04, 2) }, 0xffff_ffff_ffff_fffc, 4, 0, 0xf_fffc, 3},
	} {
		changes = 0
		tt.do()
		bar, off, ok := f.find(tt.addr, tt.n)
		if !ok {
			bar = -1
		}
		if bar != tt.bar || off != tt.off || changes != tt.changes {
			t.Errorf("%s: BAR %d, offset %#x, %d changes; want %d, %#x, %d", tt.name, bar, off, changes, tt.bar, tt.off, tt.changes)
		}
	}
}

// TestMSI reads what the guest has set up of MSI, which the device's own messages and other
// shapes of the capability show.
func TestMSI(t *testing.T) {
	with := func(fields map[int]byte) *[256]byte {
		c := new([256]byte)
		c[0x34] = 0x40
		for off, v := range fields {
			c[off] = v
		}
		return c
	}
	for _, tt := range []struct {
		name string
		c    *[256]byte
		want msi
	}{
		{"no capability", new([256]byte), msi{}},
		{"another capability", with(map[int]byte{0x40: 0x01, 0x42: 1}), msi{}},
		{"off", with(map[int]byte{0x40: 0x05, 0x44: 1}), msi{}},
		{"32-bit", with(map[int]byte{0x40: 0x05, 0x42: 1, 0x46: 0xe0, 0x47: 0xfe, 0x48: 0x41}), msi{on: true, count: 1, lo: 0xfee0_0000, data: 0x41}},
		{"64-bit, 4 messages", with(map[int]byte{0x40: 0x05, 0x42: 0xa1, 0x47: 0xfe, 0x48: 1, 0x4c: 0x44, 0x4d: 2}), msi{on: true, count: 4, lo: 0xfe00_0000, hi: 1, data: 0x244}},
		{"behind another", with(map[int]byte{0x40: 0x01, 0x41: 0x50, 0x50: 0x05, 0x52: 1}), msi{on: true, count: 1}},
		{"more messages than there are", with(map[int]byte{0x40: 0x05, 0x42: 0x71}), msi{on: true, count: 32}},
		{"a chain that loops", with(map[int]byte{0x40: 0x01, 0x41: 0x40}), msi{}},
		{"at the end of the space", with(map[int]byte{0x34: 0xf8, 0xf8: 0x05, 0xfa: 1}), msi{}},
	} {
		if got := readMSI(tt.c); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}
