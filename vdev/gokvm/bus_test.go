// SPDX-License-Identifier: Apache-2.0

package gokvm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

// fakeFunction is 256 writable bytes. It fails the test for an access that
// function does not allow.
type fakeFunction struct {
	t      testing.TB
	config [256]byte
	reads  int
	writes int
}

func newFake(t testing.TB) *fakeFunction {
	f := &fakeFunction{t: t}
	for i := range f.config {
		f.config[i] = byte(i)
	}
	return f
}

func (f *fakeFunction) check(off uint64, n int) {
	f.t.Helper()
	if n != 1 && n != 2 && n != 4 || off%4+uint64(n) > 4 || off > 255 {
		f.t.Fatalf("configuration access of %d bytes at %#x", n, off)
	}
}

func (f *fakeFunction) readConfig(off uint64, p []byte) {
	f.check(off, len(p))
	f.reads++
	copy(p, f.config[off:])
}

func (f *fakeFunction) writeConfig(off uint64, p []byte) {
	f.check(off, len(p))
	f.writes++
	copy(f.config[off:], p)
}

func TestConfigRead(t *testing.T) {
	const ones = ^uint32(0)
	for _, tt := range []struct {
		name    string
		address uint32 // written to 0xcf8
		port    uint16
		n       int
		want    uint32 // of which n bytes count
		claimed bool
	}{
		{"doubleword", 0x8000_0810, 0xcfc, 4, 0x13121110, true},
		{"low word", 0x8000_0810, 0xcfc, 2, 0x1110, true},
		{"high word", 0x8000_0810, 0xcfe, 2, 0x1312, true},
		{"middle word", 0x8000_0810, 0xcfd, 2, 0x1211, true},
		{"byte 0", 0x8000_0810, 0xcfc, 1, 0x10, true},
		{"byte 3", 0x8000_0810, 0xcff, 1, 0x13, true},
		{"register 0x40", 0x8000_0840, 0xcfc, 4, 0x43424140, true},
		{"last register", 0x8000_08fc, 0xcfc, 4, 0xfffefdfc, true},
		{"host bridge, ids", 0x8000_0000, 0xcfc, 4, 0x10f11af4, true},
		{"host bridge, class", 0x8000_0008, 0xcfe, 2, 0x0600, true},
		{"host bridge, a register that is zero", 0x8000_00fc, 0xcfc, 4, 0, true},
		{"bits 1:0 of the address do not count", 0x8000_0813, 0xcfc, 1, 0x10, true},
		{"bits 30:24 do not count", 0xff00_0810, 0xcfc, 1, 0x10, true},
		{"no device", 0x8000_1000, 0xcfc, 4, ones, true},
		{"last device", 0x8000_f800, 0xcfc, 4, ones, true},
		{"no function 1", 0x8000_0910, 0xcfc, 4, ones, true},
		{"no function 7", 0x8000_0f10, 0xcfc, 2, ones, true},
		{"no bus 1", 0x8001_0810, 0xcfc, 4, ones, true},
		{"no bus 255", 0x80ff_0810, 0xcfc, 1, ones, true},
		{"enable bit 0", 0x0000_0810, 0xcfc, 4, 0, false},
		{"enable bit 0, others 1", 0x7f00_0810, 0xcfc, 4, 0, false},
		{"doubleword across the end", 0x8000_0810, 0xcfd, 4, 0, false},
		{"word across the end", 0x8000_0810, 0xcff, 2, 0, false},
		{"3 bytes", 0x8000_0810, 0xcfc, 3, 0, false},
		{"8 bytes", 0x8000_0810, 0xcfc, 8, 0, false},
		{"nothing", 0x8000_0810, 0xcfc, 0, 0, false},
		{"byte of the address", 0x8000_0810, 0xcf8, 1, 0, false},
		{"word of the address", 0x8000_0810, 0xcf8, 2, 0, false},
		{"inside the address", 0x8000_0810, 0xcfa, 4, 0, false},
		{"another port", 0x8000_0810, 0xd00, 4, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			b := hostBridge{devices: [32]function{0: bridgeFunction{}, 1: f}}
			b.out(portConfigAddress, binary.LittleEndian.AppendUint32(nil, tt.address))
			p := make([]byte, tt.n)
			claimed := b.in(tt.port, p)
			want := make([]byte, tt.n)
			copy(want, binary.LittleEndian.AppendUint32(nil, tt.want))
			if claimed != tt.claimed || !bytes.Equal(p, want) {
				t.Errorf("claimed %v, read % x; want %v, % x", claimed, p, tt.claimed, want)
			}
		})
	}
}

func TestConfigWrite(t *testing.T) {
	for _, tt := range []struct {
		name    string
		address uint32
		port    uint16
		p       []byte
		at      int // where p shows up; -1: nowhere
	}{
		{"doubleword", 0x8000_0810, 0xcfc, []byte{0xa, 0xb, 0xc, 0xd}, 0x10},
		{"word", 0x8000_0810, 0xcfe, []byte{0xa, 0xb}, 0x12},
		{"byte", 0x8000_0810, 0xcff, []byte{0xa}, 0x13},
		{"host bridge", 0x8000_0010, 0xcfc, []byte{0xa, 0xb, 0xc, 0xd}, -1},
		{"enable bit 0", 0x0000_0810, 0xcfc, []byte{0xa, 0xb, 0xc, 0xd}, -1},
		{"other bus", 0x8001_0810, 0xcfc, []byte{0xa, 0xb, 0xc, 0xd}, -1},
		{"other function", 0x8000_0910, 0xcfc, []byte{0xa, 0xb, 0xc, 0xd}, -1},
		{"across the end", 0x8000_0810, 0xcfe, []byte{0xa, 0xb, 0xc, 0xd}, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			want := f.config
			if tt.at >= 0 {
				copy(want[tt.at:], tt.p)
			}
			b := hostBridge{devices: [32]function{0: bridgeFunction{}, 1: f}}
			b.out(portConfigAddress, binary.LittleEndian.AppendUint32(nil, tt.address))
			b.out(tt.port, tt.p)
			if f.config != want {
				t.Errorf("configuration space is\n% x, want\n% x", f.config, want)
			}
		})
	}
}

func TestConfigAddress(t *testing.T) {
	var b hostBridge
	p := make([]byte, 4)
	write := func(port uint16, v ...byte) { b.out(port, v) }
	for _, tt := range []struct {
		name string
		do   func()
		want uint32
	}{
		{"at power-on", func() {}, 0},
		{"reserved bits read zero", func() { write(0xcf8, 0xff, 0xff, 0xff, 0xff) }, 0x80ff_fffc},
		{"a byte is not for it", func() { write(0xcf8, 0) }, 0x80ff_fffc},
		{"nor one at 0xcf9, the reset port", func() { write(0xcf9, 6) }, 0x80ff_fffc},
		{"nor a word", func() { write(0xcfa, 0, 0) }, 0x80ff_fffc},
		{"a doubleword is", func() { write(0xcf8, 0x10, 8, 0, 0x80) }, 0x8000_0810},
	} {
		tt.do()
		if !b.in(portConfigAddress, p) || binary.LittleEndian.Uint32(p) != tt.want {
			t.Errorf("%s: % x, want %#x", tt.name, p, tt.want)
		}
	}
}

// FuzzConfigPorts makes port accesses of any kind: each five bytes of input are
// direction and size, port offset from 0xcf0, and data, of which more follow as
// the size asks. Whatever they are, the function sees only allowed accesses, and
// what the bridge does not claim stays untouched.
func FuzzConfigPorts(f *testing.F) {
	f.Add([]byte{0x84, 8, 0x10, 0x08, 0x00, 0x80, 0x04, 12})
	f.Add([]byte{0x84, 8, 0x40, 0x08, 0x00, 0x80, 0x04, 12, 0x82, 14, 1, 2, 0x01, 15})
	f.Add([]byte{0x84, 8, 0xff, 0xff, 0xff, 0xff, 0x04, 13, 0x08, 12, 0x03, 12, 0x00, 12})
	f.Fuzz(func(t *testing.T, in []byte) {
		dev := newFake(t)
		b := hostBridge{devices: [32]function{0: bridgeFunction{}, 1: dev}}
		for len(in) >= 2 {
			write, n, port := in[0]&0x80 != 0, int(in[0]&0xf), 0xcf0+uint16(in[1])
			in = in[2:]
			p := bytes.Repeat([]byte{0x5a}, n)
			before, reads, writes := dev.config, dev.reads, dev.writes
			if write {
				in = in[copy(p, in):]
				data := bytes.Clone(p)
				claimed := b.out(port, p)
				if !bytes.Equal(data, p) {
					t.Fatalf("a write changed its data")
				}
				if !claimed && (dev.config != before || dev.writes != writes) {
					t.Fatalf("write of %d bytes to %#x: not claimed, yet done", n, port)
				}
				continue
			}
			claimed := b.in(port, p)
			if dev.config != before || dev.writes != writes {
				t.Fatalf("read of %d bytes from %#x: wrote", n, port)
			}
			if !claimed && (dev.reads != reads || !bytes.Equal(p, bytes.Repeat([]byte{0x5a}, n))) {
				t.Fatalf("read of %d bytes from %#x: not claimed, yet answered % x", n, port, p)
			}
			if claimed && dev.reads == reads+1 {
				off := int(b.address&0xfc) + int(port) - portConfigData
				if b.address&^0xfc != 0x8000_0800 || !bytes.Equal(p, dev.config[off:off+n]) {
					t.Fatalf("address %#x, read of %d bytes from %#x: % x", b.address, n, port, p)
				}
			}
			if b.address&^uint32(configAddrBits) != 0 {
				t.Fatalf("CONFIG_ADDRESS %#x has reserved bits", b.address)
			}
		}
	})
}

func TestUART(t *testing.T) {
	var out bytes.Buffer
	var line string // what was done to the interrupt line
	u := &uart{out: &out, line: func(level bool) { line += fmt.Sprint(level, " ") }}
	for _, tt := range []struct {
		name  string
		do    func() byte
		want  byte
		line  string
		wrote string
	}{
		{"transmitter is empty", func() byte { return u.read(uartLSR) }, lsrEmpty, "", ""},
		{"no interrupt, no FIFOs", func() byte { return u.read(uartIIR) }, iirNone, "", ""},
		{"FIFOs on", func() byte { u.write(uartIIR, 1); return u.read(uartIIR) }, iirNone | iirFIFOs, "", ""},
		{"divisor", func() byte {
			u.write(uartLCR, lcrDLAB|3)
			u.write(0, 0x12)
			u.write(1, 0x34)
			return u.read(0) ^ u.read(1)
		}, 0x12 ^ 0x34, "", ""},
		{"LCR", func() byte { u.write(uartLCR, 3); return u.read(uartLCR) }, 3, "", ""},
		{"IER keeps four bits", func() byte { u.write(uartIER, 0xf0); return u.read(uartIER) }, 0, "", ""},
		{"LSR cannot be written", func() byte { u.write(uartLSR, 0); return u.read(uartLSR) }, lsrEmpty, "", ""},
		{"send", func() byte { u.write(uartData, 'a'); return u.read(uartLSR) }, lsrEmpty, "", "a"},
		{"transmit interrupt", func() byte { u.write(uartIER, ierTransmit); return 0 }, 0, "true ", ""},
		{"is identified, and taken by that", func() byte { return u.read(uartIIR) }, iirTransmit | iirFIFOs, "false ", ""},
		{"comes again after a byte", func() byte { u.write(uartData, 'b'); return 0 }, 0, "true ", "b"},
		{"goes away when disabled", func() byte { u.write(uartIER, ierReceive); return 0 }, 0, "false ", ""},
		{"nothing received", func() byte { return u.read(uartData) }, 0, "", ""},
		{"receive interrupt", func() byte { u.receive([]byte("xy")); return u.read(uartIIR) }, iirReceive | iirFIFOs, "true ", ""},
		{"data ready", func() byte { return u.read(uartLSR) }, lsrEmpty | lsrReady, "", ""},
		{"first byte", func() byte { return u.read(uartData) }, 'x', "", ""},
		{"second byte ends the interrupt", func() byte { return u.read(uartData) }, 'y', "false ", ""},
		{"scratch", func() byte { u.write(7, 0xa5); return u.read(7) }, 0xa5, "", ""},
	} {
		out.Reset()
		line = ""
		if got := tt.do(); got != tt.want || line != tt.line || out.String() != tt.wrote {
			t.Errorf("%s: %#x, line %q, sent %q; want %#x, %q, %q", tt.name, got, line, out.String(), tt.want, tt.line, tt.wrote)
		}
	}
}

// TestInput: what the reader gives reaches the guest; after unplug nothing does.
func TestInput(t *testing.T) {
	u := &uart{line: func(bool) {}}
	u.feed(strings.NewReader("ab"))
	if a, b := u.read(uartData), u.read(uartData); a != 'a' || b != 'b' {
		t.Errorf("read %q %q", a, b)
	}
	u.feed(strings.NewReader(strings.Repeat("x", 3*maxInput)))
	if len(u.input) != maxInput {
		t.Errorf("%d bytes wait, want %d", len(u.input), maxInput)
	}
	u.input = nil
	u.line = func(bool) { t.Error("the interrupt line was used after unplug") }
	u.regs[uartIER] = ierReceive
	u.unplug()
	u.feed(strings.NewReader("c"))
	if u.read(uartLSR)&lsrReady != 0 {
		t.Error("input after unplug")
	}
}
