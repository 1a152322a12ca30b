// SPDX-License-Identifier: Apache-2.0

package pci

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/mmio"
)

func testConfig() Config {
	return Config{
		VendorID: 0x1af4, DeviceID: 0x10f0, SubsystemVendorID: 0x1af4, SubsystemID: 0x0001,
		Revision: 0x10, Class: [3]uint8{0x12, 0x00, 0x00},
		BARs: [6]BAR{
			0: {Size: 1 << 20},
			2: {Size: 64 << 20, Prefetchable: true, Resizable: true},
			4: {Size: 16 << 10},
		},
		Vectors: 32, MSIX: true, MSI: true,
		Serial: 0x0123_4567_89ab_cdef,
	}
}

func newFunction(t testing.TB, hooks Hooks) *Function {
	t.Helper()
	f, err := New(testConfig(), hooks)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func u16(v uint16) []byte { return binary.LittleEndian.AppendUint16(nil, v) }
func u32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
func u64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

// TestConfigAccess writes in at off after a cold reset and reads len(want)
// bytes at off.
func TestConfigAccess(t *testing.T) {
	tests := []struct {
		name string
		off  uint64
		in   []byte
		want []byte
	}{
		{name: "vendor and device", off: 0x00, in: u32(0), want: u32(0x10f0_1af4)},
		{name: "status has a capability list", off: 0x06, want: u16(0x0010)},
		{name: "command: implemented bits stick", off: 0x04, in: u16(0xffff), want: u16(0x0546)},
		{name: "command: high byte alone", off: 0x05, in: []byte{0xff}, want: []byte{0x05}},
		{name: "command: high byte leaves the low one", off: 0x04, in: u16(0x0006), want: u16(0x0006)},
		{name: "status: reserved and read-only bits", off: 0x06, in: u16(0xffff), want: u16(0x0010)},
		{name: "class and revision", off: 0x08, in: u32(0), want: u32(0x1200_0010)},
		{name: "header type 0, one function", off: 0x0e, in: []byte{0xff}, want: []byte{0}},
		{name: "latency timer is hardwired", off: 0x0d, in: []byte{0xff}, want: []byte{0}},
		{name: "BAR0 sizes to 1 MiB", off: 0x10, in: u64(^uint64(0)), want: u64(0xffff_ffff_fff0_0004)},
		{name: "BAR0 takes an address", off: 0x10, in: u64(0x12_3450_0000), want: u64(0x12_3450_0004)},
		{name: "BAR0 drops address bits inside", off: 0x10, in: u32(0xfe0f_ffff), want: u32(0xfe00_0004)},
		{name: "BAR0 bytewise", off: 0x12, in: []byte{0xff}, want: []byte{0xf0}},
		{name: "BAR2 sizes to 64 MiB, prefetchable", off: 0x18, in: u64(^uint64(0)), want: u64(0xffff_ffff_fc00_000c)},
		{name: "BAR4 sizes to 16 KiB", off: 0x20, in: u64(^uint64(0)), want: u64(0xffff_ffff_ffff_c004)},
		{name: "no Cardbus CIS", off: 0x28, in: u32(^uint32(0)), want: u32(0)},
		{name: "subsystem", off: 0x2c, in: u32(0), want: u32(0x0001_1af4)},
		{name: "no expansion ROM", off: 0x30, in: u32(^uint32(0)), want: u32(0)},
		{name: "interrupt line stores, pin INTA", off: 0x3c, in: u32(^uint32(0)), want: u32(0x1ff)},
		{name: "PM control: state only", off: 0x44, in: u32(^uint32(0)), want: u32(0x0000_000b)},
		{name: "PM control: D1 is discarded", off: 0x44, in: u16(1), want: u16(0x0008)},
		{name: "PM control: D2 is discarded", off: 0x44, in: u16(2), want: u16(0x0008)},
		{name: "device capabilities: FLR", off: 0x54, in: u32(0), want: u32(0x1000_8021)},
		{name: "device control default", off: 0x58, want: u32(0x0000_2910)},
		{name: "device control: FLR bit reads zero", off: 0x58, in: u16(0xffff), want: u16(0x2910 | devCtlMaxPayload)},
		{name: "device control without FLR", off: 0x58, in: u16(0x7fff), want: u16(0x79ff)},
		{name: "link status", off: 0x60, in: u32(^uint32(0)), want: u32(0x1102_00cb)},
		{name: "link capabilities: 5 GT/s, ×16", off: 0x5c, in: u32(^uint32(0)), want: u32(0x0040_0102)},
		{name: "link capabilities 2: up to the same speed", off: 0x7c, in: u32(0), want: u32(0x6)},
		{name: "link control 2: target speed", off: 0x80, want: u32(0x2)},
		{name: "link control 2: what is stored", off: 0x80, in: u32(^uint32(0)), want: u32(0xff9f)},
		{name: "MSI-X control", off: 0x92, in: u16(0xffff), want: u16(0xc01f)},
		{name: "MSI-X table in BAR4", off: 0x94, in: u64(0), want: u64(0x0000_2004_0000_0004)},
		{name: "MSI control: five bits of messages, 64-bit, maskable", off: 0xa0, want: u32(0x018a_0005)},
		{name: "MSI control: enable and messages stick", off: 0xa2, in: u16(0xff5f), want: u16(0x01db)},
		{name: "MSI control: too many messages are discarded, the rest is not", off: 0xa2, in: u16(0x0061), want: u16(0x018b)},
		{name: "MSI control: high byte alone", off: 0xa3, in: []byte{0xff}, want: []byte{0x01}},
		{name: "MSI address drops its low bits", off: 0xa4, in: u64(^uint64(0)), want: u64(0xffff_ffff_ffff_fffc)},
		{name: "MSI data is 16 bits", off: 0xac, in: u32(^uint32(0)), want: u32(0xffff)},
		{name: "MSI mask and pending bits", off: 0xb0, in: u64(^uint64(0)), want: u64(0xffff_ffff)},
		{name: "resizable BAR: 1 to 64 MiB", off: 0x164, in: u32(0), want: u32(0x7f0)},
		{name: "resizable BAR: BAR2, one, 64 MiB", off: 0x168, want: u32(0x622)},
		{name: "resizable BAR: size 4 MiB", off: 0x168, in: u32(0xffff_c2ff), want: u32(0x222)},
		{name: "resizable BAR: 128 MiB is discarded", off: 0x169, in: []byte{7}, want: []byte{6}},
		{name: "AER masks", off: 0x108, in: u32(^uint32(0)), want: u32(0x0057_f010)},
		{name: "AER status: nothing to clear", off: 0x104, in: u32(^uint32(0)), want: u32(0)},
		{name: "AER correctable mask default", off: 0x114, want: u32(0x0000_6000)},
		{name: "serial number", off: 0x14c, in: u64(0), want: u64(0x0123_4567_89ab_cdef)},
		{name: "hole", off: 0xc0, in: u32(^uint32(0)), want: u32(0)},
		{name: "unaligned, across doublewords", off: 0x0f, in: []byte{0xff, 0xff, 0xff, 0xff}, want: []byte{0, 4, 0, 0xf0}},
		{name: "last byte", off: 0xfff, in: []byte{1}, want: []byte{0}},
		{name: "across the end", off: 0xffe, in: u32(0), want: u32(0xffff_0000)},
		{name: "past the end", off: 0x1000, in: u32(0), want: u32(0xffff_ffff)},
		{name: "far past the end", off: 1<<63 + 4, in: u32(0x6), want: u32(0xffff_ffff)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFunction(t, Hooks{})
			f.Write(tt.off, tt.in)
			got := make([]byte, len(tt.want))
			f.Read(tt.off, got)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("read after write (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRegisters checks what makes the table a legal configuration space.
func TestRegisters(t *testing.T) {
	cfg := testConfig()
	names := map[string]bool{}
	next := uint32(0)
	for _, r := range cfg.registers() {
		if r.Off < next || r.Off%4 != 0 {
			t.Errorf("%s at %#x overlaps, is misaligned or out of order", r.Name, r.Off)
		}
		next = r.Off + 4
		if names[r.Name] || r.Name == "" || r.Spec == "" || r.Doc == "" {
			t.Errorf("register at %#x: name %q is empty or taken, or it is undocumented", r.Off, r.Name)
		}
		names[r.Name] = true
		if r.RW&r.W1C != 0 {
			t.Errorf("%s: bits %#x are RW and W1C", r.Name, r.RW&r.W1C)
		}
		if r.sticky&r.flrKeep != 0 {
			t.Errorf("%s: bits %#x are sticky and kept by FLR", r.Name, r.sticky&r.flrKeep)
		}
	}
	if got, want := len(newFunction(t, Hooks{}).Registers()), len(cfg.registers()); got != want {
		t.Errorf("Registers has %d rows, want %d", got, want)
	}
}

// capabilities walks both lists as an operating system does.
func capabilities(t *testing.T, f *Function) []string {
	var got []string
	b := make([]byte, 4)
	for at := f.value[0x34/4] & 0xff; at != 0; at = uint32(b[1]) {
		f.Read(uint64(at), b)
		got = append(got, fmt.Sprintf("%#x: %#x", at, b[0]))
		if len(got) > 48 {
			t.Fatal("the capability list is a loop")
		}
	}
	for at := uint32(0x100); at != 0; {
		f.Read(uint64(at), b)
		h := binary.LittleEndian.Uint32(b)
		got = append(got, fmt.Sprintf("%#x: %#04x v%d", at, h&0xffff, h>>16&0xf))
		if len(got) > 48 {
			t.Fatal("the extended capability list is a loop")
		}
		at = h >> 20
	}
	return got
}

func TestCapabilityLists(t *testing.T) {
	const serial, rebar = "0x148: 0x0003 v1", "0x160: 0x0015 v1"
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   []string
	}{
		{"all", func(*Config) {}, []string{"0x40: 0x1", "0x50: 0x10", "0x90: 0x11", "0xa0: 0x5", "0x100: 0x0001 v2", serial, rebar}},
		{"MSI", func(c *Config) { c.MSIX = false }, []string{"0x40: 0x1", "0x50: 0x10", "0xa0: 0x5", "0x100: 0x0001 v2", serial, rebar}},
		{"MSI-X", func(c *Config) { c.MSI = false }, []string{"0x40: 0x1", "0x50: 0x10", "0x90: 0x11", "0x100: 0x0001 v2", serial, rebar}},
		{"INTx", func(c *Config) { c.MSI, c.MSIX = false, false }, []string{"0x40: 0x1", "0x50: 0x10", "0x100: 0x0001 v2", serial, rebar}},
		{"no serial number", func(c *Config) { c.NoSerial = true }, []string{"0x40: 0x1", "0x50: 0x10", "0x90: 0x11", "0xa0: 0x5", "0x100: 0x0001 v2", rebar}},
		{"fixed BARs, no serial number", func(c *Config) { c.BARs[2].Resizable, c.NoSerial = false, true }, []string{"0x40: 0x1", "0x50: 0x10", "0x90: 0x11", "0xa0: 0x5", "0x100: 0x0001 v2"}},
		{"fixed BARs", func(c *Config) { c.BARs[2].Resizable = false }, []string{"0x40: 0x1", "0x50: 0x10", "0x90: 0x11", "0xa0: 0x5", "0x100: 0x0001 v2", serial}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := testConfig()
			tt.change(&cfg)
			f, err := New(cfg, Hooks{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, capabilities(t, f)); diff != "" {
				t.Errorf("capabilities (-want +got):\n%s", diff)
			}
		})
	}
}

// The device's own registers have masks of their own, and a reset takes what the device set.
func TestOwnRegisters(t *testing.T) {
	cfg := testConfig()
	cfg.Own = []mmio.Register{{Name: "ERR", Off: 0x200, W1C: 0xff}, {Name: "MASK", Off: 0x204, RW: 0x0f, Reset: 1}}
	f, err := New(cfg, Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	read := func() []byte { p := make([]byte, 8); f.Read(0x200, p); return p }
	f.SetOwn(0x200, 0x105)
	f.Write(0x200, u64(0xffff_ffff_0000_0001))
	if diff := cmp.Diff(u64(0x0000_000f_0000_0104), read()); diff != "" {
		t.Errorf("after a write (-want +got):\n%s", diff)
	}
	f.Reset(ResetFLR)
	if diff := cmp.Diff(u64(0x0000_0001_0000_0000), read()); diff != "" {
		t.Errorf("after a reset (-want +got):\n%s", diff)
	}
}

func TestHooks(t *testing.T) {
	var got []string
	var f *Function
	log := func(format string, args ...any) { got = append(got, fmt.Sprintf(format, args...)) }
	f = newFunction(t, Hooks{
		FLR:     func() { log("FLR, command %#x", f.value[offCommand/4]&0xffff) },
		Power:   func(s PowerState) { log("%s memory=%t master=%t", s, f.MemoryEnabled(), f.BusMaster()) },
		Command: func() { log("command memory=%t master=%t", f.MemoryEnabled(), f.BusMaster()) },
		Mistake: func(id, _, evidence string) { log("%s %s", id, evidence) },
	})
	f.Write(0x04, u16(0x0002))
	f.Write(0x04, u16(0x0002)) // no change
	f.Write(0x04, u16(0x0006))
	f.Write(0x06, u16(0xffff)) // Status is not Command
	f.Write(0x44, u16(2))
	f.Write(0x45, []byte{2}) // not the state
	f.Write(0x44, u16(3))
	f.Write(0x44, u16(0))
	f.Write(0xa2, u16(0x0061))
	f.Write(0x92, u16(0x8000))
	f.Write(0xa2, u16(0x0000))
	f.Write(0xa2, u16(0x0001))
	f.Write(0x168, u32(0x622)) // the size that it has
	f.Write(0x169, []byte{5})
	f.Write(0x58, u16(0x2910))
	f.Write(0x59, []byte{0xa9}) // Initiate FLR by a byte write
	want := []string{
		"command memory=true master=false",
		"command memory=true master=true",
		"config-power-state 0x44 = 0x2",
		"D3hot memory=false master=false",
		"D0 memory=true master=true",
		"config-msi-messages 0xa0 = 0x610000",
		"config-msi-and-msix 0x90 = 0x801fa011",
		"config-msi-and-msix 0xa0 = 0x18b0005",
		"config-bar-resize 0x168 = 0x500",
		"FLR, command 0x0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("hooks (-want +got):\n%s", diff)
	}
}

// TestReset sets every writable bit and every error, and looks at what is left
// after each kind of reset.
func TestReset(t *testing.T) {
	// Sticky: link target speed, AER. After FLR also payload size, link control.
	sticky := map[uint32]uint32{
		offLinkCtl2:       0x0000_ff9f,
		offUncorrStatus:   1 << UnsupportedRequest,
		offUncorrMask:     0x0057_f010,
		offUncorrSeverity: 0x0057_f010,
		offCorrStatus:     1 << BadTLP,
		offCorrMask:       0x0000_71c1,
		offAERControl:     uint32(UnsupportedRequest),
		offHeaderLog:      0x11, offHeaderLog + 4: 0x22, offHeaderLog + 8: 0x33, offHeaderLog + 12: 0x44,
	}
	flr := map[uint32]uint32{offDevCtl: 0x2910 | devCtlMaxPayload, offLinkCtl: 0x1102_00cb}
	tests := []struct {
		kind ResetKind
		kept []map[uint32]uint32
	}{
		{ResetFLR, []map[uint32]uint32{sticky, flr}},
		{ResetHot, []map[uint32]uint32{sticky}},
		{ResetCold, nil},
	}
	for _, tt := range tests {
		t.Run(tt.kind.String(), func(t *testing.T) {
			f := newFunction(t, Hooks{})
			f.LogUncorrectable(UnsupportedRequest, [4]uint32{0x11, 0x22, 0x33, 0x44}, false)
			f.LogCorrectable(BadTLP)
			for i := range f.registers {
				r := &f.registers[i]
				v := r.RW
				if r.Off == offDevCtl {
					v &^= devCtlFLR
				}
				f.Write(uint64(r.Off), u32(v))
			}
			f.irq.msix.Write(entryControl, u32(0))
			f.irq.msix.Write(0, u32(0xfee0_0000))
			if f.Power() != D3Hot {
				t.Fatal("the function should be in D3hot before the reset")
			}

			f.Reset(tt.kind)

			want := map[uint32]uint32{}
			for _, r := range f.registers {
				want[r.Off] = r.Register.Reset
			}
			for _, kept := range tt.kept {
				for off, v := range kept {
					want[off] = v
				}
			}
			got := map[uint32]uint32{}
			for _, r := range f.registers {
				got[r.Off] = f.value[r.Off/4]
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("registers by offset (-want +got):\n%s", diff)
			}
			entry := make([]byte, 8)
			f.irq.msix.Read(8, entry)
			if diff := cmp.Diff(u64(1<<32), entry); diff != "" {
				t.Errorf("table entry is not masked (-want +got):\n%s", diff)
			}
			f.irq.msix.Read(0, entry)
			if diff := cmp.Diff(u64(0), entry); diff != "" {
				t.Errorf("message address (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAER(t *testing.T) {
	f := newFunction(t, Hooks{})
	f.Write(0x04, u16(commandSERR))
	type state struct{ Device, Uncorr, Corr, First, Header, PCI uint32 }
	get := func() state {
		return state{
			f.value[offDevCtl/4] >> 16, f.value[offUncorrStatus/4], f.value[offCorrStatus/4],
			f.value[offAERControl/4], f.value[offHeaderLog/4], f.value[offCommand/4] >> 16,
		}
	}
	steps := []struct {
		name string
		do   func()
		want state
	}{
		{
			"correctable", func() { f.LogCorrectable(ReplayTimeout) },
			state{Device: 1, Corr: 0x1000, PCI: 0x0010},
		},
		{
			"masked: status but no log", func() { f.LogUncorrectable(UncorrectableInternal, [4]uint32{9}, false) },
			state{Device: 5, Uncorr: 0x40_0000, Corr: 0x1000, PCI: 0x0010},
		},
		{
			"first error is logged", func() { f.LogUncorrectable(UnsupportedRequest, [4]uint32{7}, false) },
			state{Device: 0xf, Uncorr: 0x50_0000, Corr: 0x1000, First: 20, Header: 7, PCI: 0x4010},
		},
		{
			"the next one is not", func() { f.LogUncorrectable(MalformedTLP, [4]uint32{8}, false) },
			state{Device: 0xf, Uncorr: 0x54_0000, Corr: 0x1000, First: 20, Header: 7, PCI: 0x4010},
		},
		{
			"zero does not clear", func() { f.Write(0x104, u32(0)) },
			state{Device: 0xf, Uncorr: 0x54_0000, Corr: 0x1000, First: 20, Header: 7, PCI: 0x4010},
		},
		{
			"one clears", func() { f.Write(0x104, u32(1<<UnsupportedRequest)); f.Write(0x110, u32(^uint32(0))) },
			state{Device: 0xf, Uncorr: 0x44_0000, First: 20, Header: 7, PCI: 0x4010},
		},
		{
			"byte write clears its byte", func() { f.Write(0x5a, []byte{0x0b}); f.Write(0x07, []byte{0x40}) },
			state{Device: 0x4, Uncorr: 0x44_0000, First: 20, Header: 7, PCI: 0x0010},
		},
		{
			"the log is free again", func() { f.LogUncorrectable(CompletionTimeout, [4]uint32{6}, false) },
			state{Device: 0x6, Uncorr: 0x44_4000, First: 14, Header: 6, PCI: 0x4010},
		},
		{
			"a masked error does not hold the log", func() {
				f.Write(0x104, u32(^uint32(0)))
				f.Write(0x108, u32(1<<CompletionTimeout))
				f.LogUncorrectable(CompletionTimeout, [4]uint32{5}, false)
				f.LogUncorrectable(PoisonedTLP, [4]uint32{4}, false)
			},
			state{Device: 0x6, Uncorr: 0x5000, First: 12, Header: 4, PCI: 0x4010},
		},
		{
			"an error that is masked later keeps the log", func() {
				f.Write(0x108, u32(1<<PoisonedTLP))
				f.LogUncorrectable(MalformedTLP, [4]uint32{3}, false)
			},
			state{Device: 0x6, Uncorr: 0x4_5000, First: 12, Header: 4, PCI: 0x4010},
		},
		{
			"over a reset", func() {
				f.Reset(ResetHot)
				f.Write(0x04, u16(commandSERR))
				f.LogUncorrectable(UnsupportedRequest, [4]uint32{2}, false)
			},
			state{Device: 0xa, Uncorr: 0x14_5000, First: 12, Header: 4, PCI: 0x4010},
		},
		{
			"until its status is cleared", func() {
				f.Write(0x104, u32(1<<PoisonedTLP))
				f.LogUncorrectable(ReceiverOverflow, [4]uint32{}, false)
			},
			state{Device: 0xe, Uncorr: 0x16_4000, First: 17, PCI: 0x4010},
		},
	}
	for _, s := range steps {
		s.do()
		if diff := cmp.Diff(s.want, get()); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", s.name, diff)
		}
	}
}

// TestUnsupported: a host's access that the function does not answer, as AER shows
// it. Header is the log.
func TestUnsupported(t *testing.T) {
	const ur = 1 << UnsupportedRequest
	unmask := func(f *Function) { f.Write(offCorrMask, u32(0)) }
	type state struct {
		Device, Uncorr, Corr uint32
		Header               [4]uint32
	}
	tests := []struct {
		name   string
		before func(*Function)
		bar    int
		off    uint64
		n      int
		write  bool
		want   state
	}{
		{"4-byte write", nil, 0, 0x10, 4, true, state{0xa, ur, 0, [4]uint32{0x4000_0001, 0x0f, 0xfe00_0010}}},
		{"8-byte write", nil, 0, 0x18, 8, true, state{0xa, ur, 0, [4]uint32{0x4000_0002, 0xff, 0xfe00_0018}}},
		{"byte write", nil, 0, 0x13, 1, true, state{0xa, ur, 0, [4]uint32{0x4000_0001, 0x08, 0xfe00_0010}}},
		{"unaligned write", nil, 0, 0x12, 4, true, state{0xa, ur, 0, [4]uint32{0x4000_0002, 0x3c, 0xfe00_0010}}},
		{"above 4 GiB", nil, 2, 0x40, 4, true, state{0xa, ur, 0, [4]uint32{0x6000_0001, 0x0f, 0x12, 0x3400_0040}}},
		{"long: its first packet", nil, 2, 0x64, 4096, true, state{0xa, ur, 0, [4]uint32{0x6000_0007, 0xff, 0x12, 0x3400_0064}}},
		{"nothing", nil, 0, 0x10, 0, true, state{}},
		{"write, fatal", func(f *Function) { f.Write(offUncorrSeverity, u32(ur)) }, 0, 0x10, 4, true, state{0xc, ur, 0, [4]uint32{0x4000_0001, 0x0f, 0xfe00_0010}}},
		{"write, masked", func(f *Function) { f.Write(offUncorrMask, u32(ur)) }, 0, 0x10, 4, true, state{0xa, ur, 0, [4]uint32{}}},
		{"read is advisory", nil, 0, 0x10, 4, false, state{0x9, 0, 1 << AdvisoryNonFatal, [4]uint32{}}},
		{"read, advisory errors unmasked", unmask, 2, 0x40, 8, false, state{0x9, ur, 1 << AdvisoryNonFatal, [4]uint32{0x2000_0002, 0xff, 0x12, 0x3400_0040}}},
		{"read, fatal", func(f *Function) { f.Write(offUncorrSeverity, u32(ur)) }, 0, 0x10, 4, false, state{0xc, ur, 0, [4]uint32{0x0000_0001, 0x0f, 0xfe00_0010}}},
		{"read, both masks", func(f *Function) { unmask(f); f.Write(offUncorrMask, u32(ur)) }, 0, 0x10, 4, false, state{0x9, ur, 1 << AdvisoryNonFatal, [4]uint32{}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFunction(t, Hooks{})
			f.Write(0x10, u64(0xfe00_0000))
			f.Write(0x18, u64(0x12_3400_0000))
			if tt.before != nil {
				tt.before(f)
			}
			f.LogUnsupported(tt.bar, tt.off, tt.n, tt.write)
			got := state{f.value[offDevCtl/4] >> 16, f.value[offUncorrStatus/4], f.value[offCorrStatus/4], [4]uint32(f.value[offHeaderLog/4:])}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestResize chooses sizes of BAR2 and sizes the BAR as an operating system does.
func TestResize(t *testing.T) {
	f := newFunction(t, Hooks{})
	check := func(what string, size uint64) {
		t.Helper()
		f.Write(0x18, u64(^uint64(0)))
		got := make([]byte, 8)
		f.Read(0x18, got)
		if diff := cmp.Diff(u64(^(size-1)|0xc), got); diff != "" {
			t.Errorf("%s: BAR2 (-want +got):\n%s", what, diff)
		}
		if n := f.BARSize(2); n != size {
			t.Errorf("%s: BARSize %#x, want %#x", what, n, size)
		}
	}
	check("at first", 64<<20)
	f.Write(0x169, []byte{0})
	check("smallest", 1<<20)
	f.Write(0x169, []byte{7})
	check("larger than it is", 1<<20)
	f.Write(0x18, u64(0x12_3450_0000))
	f.Write(0x169, []byte{3})
	got := make([]byte, 8)
	f.Read(0x18, got)
	if diff := cmp.Diff(u64(0x12_3400_000c|0x50_0000&^0x7f_ffff), got); diff != "" {
		t.Errorf("address after growing (-want +got):\n%s", diff)
	}
	f.Write(offCommand, u16(commandMemory))
	f.Write(0x169, []byte{4})
	check("while memory decoding is on", 8<<20)
	f.Write(offDevCtl, u16(devCtlFLR))
	check("after FLR", 64<<20)
	if n := f.BARSize(0); n != 1<<20 {
		t.Errorf("BAR0 has %#x bytes", n)
	}
}

func TestValidate(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Config)
		want   string // "" for a valid configuration
	}{
		{"as is", func(*Config) {}, ""},
		{"only BAR4", func(c *Config) { c.BARs[0], c.BARs[2] = BAR{}, BAR{} }, ""},
		{"large window", func(c *Config) { c.BARs[2].Size = 1 << 40 }, ""},
		{"vendor", func(c *Config) { c.VendorID = 0xffff }, "vendor ID"},
		{"odd BAR", func(c *Config) { c.BARs[1].Size = 4096 }, "BAR1 is the upper half of 64-bit BAR0"},
		{"not a power of two", func(c *Config) { c.BARs[2].Size = 3 << 20 }, "BAR2: size 0x300000"},
		{"below a page", func(c *Config) { c.BARs[0].Size = 2048 }, "at least 4096"},
		{"no size", func(c *Config) { c.BARs[0] = BAR{Prefetchable: true} }, "BAR0: size 0x0"},
		{"no room for MSI-X", func(c *Config) { c.BARs[4].Size = 8192 }, "BAR4: size 0x2000"},
		{"no BAR4 without MSI-X", func(c *Config) { c.MSIX, c.BARs[4] = false, BAR{} }, ""},
		{"resizable below 1 MiB", func(c *Config) { c.BARs[0].Resizable, c.BARs[0].Size = true, 1<<19 }, "BAR0: a resizable BAR has 1 MiB to 128 TiB"},
		{"resizable above 128 TiB", func(c *Config) { c.BARs[2].Size = 1 << 48 }, "BAR2: a resizable BAR"},
		{"all resizable", func(c *Config) { c.BARs[0].Resizable = true; c.BARs[2].Size = 1 << 47 }, ""},
		{"BAR4 too large", func(c *Config) { c.BARs[4].Size = 1 << 32 }, "exceeds 2 GiB"},
		{"no vectors", func(c *Config) { c.Vectors = 0 }, "0 vectors"},
		{"own registers", func(c *Config) { c.Own, c.NoSerial = []mmio.Register{{Off: 0x148}, {Off: 0xffc}}, true }, ""},
		{"own register on a capability", func(c *Config) { c.Own = []mmio.Register{{Name: "X", Off: 0x148}} }, `register X at 0x148 is misaligned, outside, or where "SERIAL_CAP" is`},
		{"own register misaligned", func(c *Config) { c.Own = []mmio.Register{{Name: "X", Off: 0x201}} }, "register X at 0x201"},
		{"own register outside", func(c *Config) { c.Own = []mmio.Register{{Name: "X", Off: 0x1000}} }, "register X at 0x1000"},
		{"too many vectors", func(c *Config) { c.Vectors = 33 }, "33 vectors"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := testConfig()
			tt.change(&cfg)
			_, err := New(cfg, Hooks{})
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("New: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("New: %v, want …%s…", err, tt.want)
			}
		})
	}
}

// FuzzConfig plays a sequence of accesses against a function and against a
// model that works byte by byte, until a function level reset. Each access is 12
// bytes of input: direction and length, offset, 8 bytes of value.
func FuzzConfig(f *testing.F) {
	f.Add([]byte("\x82\x00\x04\x00\x06\x00\x00\x00\x00\x00\x00\x00\x82\x00\x58\x00\x00\x80\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x88\x00\x10\x00\xff\xff\xff\xff\xff\xff\xff\xff\x08\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x81\x00\x44\x00\x03\x00\x00\x00\x00\x00\x00\x00\x84\x00\x90\x00\x00\x00\x00\xc0\x00\x00\x00\x00"))
	f.Add([]byte("\x81\x01\x69\x00\x02\x00\x00\x00\x00\x00\x00\x00\x84\x00\x18\x00\xff\xff\xff\xff\x00\x00\x00\x00\x04\x00\x18\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x88\x0f\xfd\x00\xff\xff\xff\xff\xff\xff\xff\xff\x88\xff\xff\x80\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var flr int
		fn := newFunction(t, Hooks{FLR: func() { flr++ }})
		rows := map[uint64]configRegister{}
		var model [ConfigSpaceSize]byte
		for _, r := range fn.registers {
			rows[uint64(r.Off)] = r
			binary.LittleEndian.PutUint32(model[r.Off:], r.Register.Reset)
		}
		wantFLR := 0
		for ; len(in) >= 12; in = in[12:] {
			n, off := int(in[0]&0xf), uint64(in[1])<<8|uint64(in[2])
			if in[3]&0x80 != 0 {
				off |= 0xffff_ffff_ffff_0000
			}
			p := make([]byte, n)
			copy(p, in[4:12])
			if in[0]&0x80 == 0 {
				fn.Read(off, p)
				want := bytes.Repeat([]byte{0xff}, n)
				if off < ConfigSpaceSize {
					copy(want, model[off:])
				}
				if !bytes.Equal(want, p) {
					t.Fatalf("read of %d bytes at %#x = %x, want %x", n, off, p, want)
				}
				continue
			}
			fn.Write(off, p)
			for i, b := range p {
				at := off + uint64(i)
				if at < off || at >= ConfigSpaceSize {
					break
				}
				r := rows[at&^3]
				shift := 8 * (at % 4)
				rw, w1c := byte(r.RW>>shift), byte(r.W1C>>shift)
				switch {
				case at == offPMCSR && bits.OnesCount8(b&3) == 1:
					rw = 0
				case at == offMSI+2 && b>>4&7 > 5:
					rw = 1
				case at == offRebarCtl+1 && (b&0x3f > 6 || model[4]&2 != 0):
					rw = 0
				case at == offRebarCtl+1:
					// BAR2's bits from 1 MiB on are address bits down to its size.
					r := rows[offBAR0+8]
					r.RW = ^uint32(0) << (20 + b&0x3f)
					rows[offBAR0+8] = r
					v := binary.LittleEndian.Uint32(model[offBAR0+8:])
					binary.LittleEndian.PutUint32(model[offBAR0+8:], v&r.RW|v&0xf)
				}
				model[at] = (model[at]&^rw | b&rw) &^ (b & w1c)
				if at == offDevCtl+1 && b&0x80 != 0 {
					wantFLR++
				}
			}
			if flr != wantFLR {
				t.Fatalf("%d function level resets, want %d", flr, wantFLR)
			}
			if flr > 0 {
				return // TestReset has the rest
			}
		}
		if fn.BusMaster() != (model[4]&4 != 0 && model[offPMCSR]&3 == 0) {
			t.Errorf("BusMaster = %t with command %#x, PMCSR %#x", fn.BusMaster(), model[4], model[offPMCSR])
		}
	})
}
