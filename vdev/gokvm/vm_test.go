// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package gokvm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"npuemu/internal/eventfd"
	"npuemu/mmio/npureg"
	"npuemu/vdev"
	"npuemu/vdev/vfiouser"
)

// place puts the BARs of a machine at base (BAR0), base+16 MiB (BAR2) and
// base+32 MiB (BAR4), and opens them, by configuration mechanism #1.
func place(v *vm, base uint64) {
	for i, at := range []uint64{base, base + 16<<20, base + 32<<20} {
		config(v, uint32(0x10+8*i), uint32(at))
		config(v, uint32(0x14+8*i), uint32(at>>32))
	}
	config(v, 0x04, 6)
}

func config(v *vm, off, value uint32) {
	v.portOut(portConfigAddress, binary.LittleEndian.AppendUint32(nil, configEnable|npuSlot<<11|off))
	v.portOut(portConfigData, binary.LittleEndian.AppendUint32(nil, value))
}

func read32(v *vm, addr uint64) uint32 {
	p := make([]byte, 4)
	v.memoryRead(addr, p)
	return binary.LittleEndian.Uint32(p)
}

// TestPlaceDRAM moves BAR2 about; where it cannot be mapped, it is served access
// by access.
func TestPlaceDRAM(t *testing.T) {
	v := machine(t, card(t), nil)
	const id = npureg.Magic
	for _, tt := range []struct {
		name   string
		do     func()
		base   uint64
		mapped bool
		id     uint32 // read at base
	}{
		{"placed", func() { place(v, 0xd000_0000) }, 0xd000_0000, true, id},
		{"above 4 GiB", func() { place(v, 0x20_0000_0000) }, 0x20_0000_0000, true, id},
		{"the same again", func() { place(v, 0x20_0000_0000) }, 0x20_0000_0000, true, id},
		{"closed", func() { config(v, 0x04, 0) }, 0x20_0000_0000, false, ^uint32(0)},
		{"open", func() { config(v, 0x04, 2) }, 0x20_0000_0000, true, id},
		{"D3hot", func() { config(v, 0x44, 3) }, 0x20_0000_0000, false, ^uint32(0)},
		{"D0", func() { config(v, 0x44, 0) }, 0x20_0000_0000, true, id},
		{"over guest memory", func() { config(v, 0x1c, 0); config(v, 0x18, 0) }, 0x20_0000_0000, false, id},
		{"over the local APIC", func() { config(v, 0x18, 0xfee0_0000) }, 0x20_0000_0000, false, id},
		{"at the end of the address space", func() { config(v, 0x18, 0xfff0_0000); config(v, 0x1c, 0xffff_ffff) }, 0x20_0000_0000, false, id},
		{"back", func() { place(v, 0xd000_0000) }, 0xd000_0000, true, id},
		{"function-level reset", func() { config(v, 0x58, 1<<15) }, 0xd000_0000, false, ^uint32(0)},
	} {
		tt.do()
		if v.dramOpen != tt.mapped {
			t.Errorf("%s: mapped %v, want %v", tt.name, v.dramOpen, tt.mapped)
		}
		if got := read32(v, tt.base); got != tt.id {
			t.Errorf("%s: ID %#x, want %#x", tt.name, got, tt.id)
		}
	}
	place(v, 0xd000_0000)
	v.memoryWrite(0xd100_0010, []byte("by access"))
	if !bytes.Equal(v.dram[0x10:0x19], []byte("by access")) {
		t.Errorf("device memory is %q", v.dram[0x10:0x19])
	}
}

// TestRoutes follows the table in BAR4: what is written there is what is routed,
// and only that.
func TestRoutes(t *testing.T) {
	v := machine(t, card(t), nil)
	place(v, 0xd000_0000)
	table := uint64(0xd200_0000)
	write := func(off uint64, value uint32) { v.memoryWrite(table+off, binary.LittleEndian.AppendUint32(nil, value)) }
	write(0x10, 0xfee0_0000)
	write(0x18, 0x41)
	write(0x1c, 0)
	if got, want := fmt.Sprintf("% x", v.table[:0x30]), fmt.Sprintf("% x", append(append(make([]byte, 16), 0, 0, 0xe0, 0xfe, 0, 0, 0, 0, 0x41, 0, 0, 0, 0, 0, 0, 0), make([]byte, 16)...)); got != want {
		t.Errorf("routed\n%s, want\n%s", got, want)
	}
	write(0x2000, 0xffff_ffff) // pending bits: read-only, and not the table
	write(0x10, 0x1000_0000)   // not an interrupt: nothing is delivered, nothing fails
	v.memoryWrite(table+0x10, make([]byte, 3))
	if got := binary.LittleEndian.Uint32(v.table[0x10:]); got != 0x1000_0000 {
		t.Errorf("routed address %#x", got)
	}
}

// TestPorts: what nobody claims reads all-ones, and what resets resets.
func TestPorts(t *testing.T) {
	v := machine(t, card(t), nil)
	for _, port := range []uint16{0x60, 0x64, 0x80, 0xcf9, 0xcfc, 0x2f8, 0xffff} {
		p := make([]byte, 1)
		if v.portIn(port, p); p[0] != 0xff {
			t.Errorf("port %#x reads %#x", port, p[0])
		}
	}
	for _, tt := range []struct {
		port  uint16
		p     []byte
		reset bool
	}{
		{0x64, []byte{0xff}, false},
		{0x64, []byte{0xfe}, true},
		{0x64, []byte{0xfe, 0}, false},
		{0x60, []byte{0xfe}, false},
		{0xcf9, []byte{2}, false},
		{0xcf9, []byte{6}, true},
		{0xcf9, []byte{0xe}, true},
		{0xcf9, []byte{6, 0}, false},
	} {
		v.reset = false
		if v.portOut(tt.port, tt.p); v.reset != tt.reset {
			t.Errorf("port %#x ← % x: reset %v", tt.port, tt.p, v.reset)
		}
	}
}

// start runs code at the address of the payload.
func start(ctx context.Context, t *testing.T, v *vm, code ...byte) error {
	t.Helper()
	copy(v.mem[payloadAt:], code)
	if err := v.setup64(payloadAt, 0); err != nil {
		t.Fatal(err)
	}
	return v.boot(ctx, Config{})
}

// TestEnds: how a guest can end, by what it does.
func TestEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		code []byte
		want error
	}{
		{"reset", []byte{0xb0, 0xfe, 0xe6, 0x64, 0xf4}, nil}, // mov al, 0xfe; out 0x64, al; hlt
		{"triple fault", []byte{0x0f, 0x0b}, ErrTripleFault}, // ud2, and no IDT
		{"time is up: halted", []byte{0xfa, 0xf4}, context.DeadlineExceeded},
		{"time is up: busy", []byte{0xeb, 0xfe}, context.DeadlineExceeded},
		{"time is up: reading nothing", []byte{0xec, 0xeb, 0xfd}, context.DeadlineExceeded}, // in al, dx; jmp
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			begin := time.Now()
			err := start(ctx, t, machine(t, card(t), new(bytes.Buffer)), tt.code...)
			if errors.Is(err, ErrEmulation) {
				t.Skip("not run: ", err)
			}
			if !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// TestConsole: a string instruction, the input, and a writer that fails.
func TestConsole(t *testing.T) {
	var out bytes.Buffer
	v := machine(t, card(t), &out)
	copy(v.mem[0x200000:], "rep")
	v.uart.receive([]byte("!"))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	err := start(ctx, t, v,
		0xbe, 0, 0, 0x20, 0, // mov esi, 0x200000
		0xb9, 3, 0, 0, 0, // mov ecx, 3
		0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xf3, 0x6e, // rep outsb
		0xec, 0xee, // in al, dx; out dx, al
		0xb0, 0xfe, 0xe6, 0x64, 0xf4)
	if err != nil || out.String() != "rep!" {
		t.Errorf("%q, %v", out.String(), err)
	}

	v = machine(t, card(t), nil)
	v.uart.out = failingWriter{}
	err = start(ctx, t, v, 0x66, 0xba, 0xf8, 0x03, 0xee, 0xb0, 0xfe, 0xe6, 0x64, 0xf4)
	if !errors.Is(err, errFull) {
		t.Errorf("%v, want %v", err, errFull)
	}
}

var errFull = errors.New("full")

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errFull }

func TestConfigRefusals(t *testing.T) {
	for _, memory := range []int64{-1, 1, minMemory - hugePage, minMemory + pageSize, memoryEnd + hugePage, 1 << 62} {
		if _, err := newVM(card(t), Config{Memory: memory}); err == nil {
			t.Errorf("memory of %d bytes accepted", memory)
		}
	}
	machine(t, card(t), nil) // skips without KVM
	short, err := os.CreateTemp(t.TempDir(), "memory")
	if err != nil {
		t.Fatal(err)
	}
	defer short.Close()
	if _, err := newVM(card(t), Config{Memory: minMemory, MemoryFile: short}); err == nil || !strings.Contains(err.Error(), "a file as long as guest memory") {
		t.Errorf("a memory file that is too short: %v", err)
	}
	if _, err := newVM(manyVectors{card(t)}, Config{Memory: minMemory}); err == nil {
		t.Error("a device with too many vectors accepted")
	}
}

// manyVectors is a device with more vectors than the machine routes.
type manyVectors struct{ *vdev.Device }

func (d manyVectors) IRQs() []vfiouser.IRQ {
	q := d.Device.IRQs()
	q[vfiouser.IRQMSIX].Count = maxVectors + 1
	return q
}

// SetVector does not pass on what the real device does not have.
func (d manyVectors) SetVector(index, vector int, fd *eventfd.FD) {
	if fd != nil {
		fd.Close()
	}
}
