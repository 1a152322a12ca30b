// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npuemu/dma/iova"
	"npuemu/firmware/cpu"
	"npuemu/mmio/npureg"
)

// hart accesses the registers as firmware does, without firmware.
type hart struct {
	*board
	t *testing.T
}

func newHart(t *testing.T) hart { return hart{lockedBoard(t), t} }

func (h hart) get(off uint32) uint32 {
	h.t.Helper()
	v, ok := bus{h.p}.Load(npureg.CPRegBase+off, 4)
	if !ok {
		h.t.Fatalf("load of register %#x is an access fault", off)
	}
	return v
}

func (h hart) set(off uint32, values ...uint32) {
	h.t.Helper()
	for i, v := range values {
		if !(bus{h.p}).Store(npureg.CPRegBase+off+4*uint32(i), 4, v) {
			h.t.Fatalf("store to register %#x is an access fault", off)
		}
	}
}

func (h hart) line(i cpu.Interrupt) bool {
	v, _ := h.p.core.CSR(cpu.Mip)
	return v>>i&1 != 0
}

// §3.6: what is an access fault and what is not.
func TestAddressMap(t *testing.T) {
	h := newHart(t)
	tests := []struct {
		addr        uint32
		size        int
		load, store bool
	}{
		{npureg.CPRegBase, 4, true, true},
		{npureg.CPRegBase, 2, false, false},
		{npureg.CPRegBase + 3, 1, false, false},
		{npureg.CPRegBase + 0xffc, 4, true, true}, // unclaimed
		{npureg.CPHostBase, 4, true, false},
		{npureg.CPHostBase, 1, false, false},
		{npureg.CPHostBase + npureg.HostBankSize, 4, false, false},
		{npureg.CPRegBase - 4, 4, false, false},
		{npureg.CPROMSize, 4, false, false},
		{npureg.CPSRAMBase + npureg.CPSRAMSize, 4, false, false},
		{0xfffffffc, 4, false, false},
	}
	for _, tt := range tests {
		_, load := bus{h.p}.Load(tt.addr, tt.size)
		store := bus{h.p}.Store(tt.addr, tt.size, 0)
		if load != tt.load || store != tt.store {
			t.Errorf("%d bytes at %#x: load %v, store %v; want %v, %v", tt.size, tt.addr, load, store, tt.load, tt.store)
		}
	}
	if v := h.get(0xffc); v != ^uint32(0) {
		t.Errorf("unclaimed register reads %#x", v)
	}
	if v, _ := (bus{h.p}).Load(npureg.CPHostBase+npureg.ID, 4); v != npureg.Magic {
		t.Errorf("host's ID reads %#x", v)
	}
}

// §3.10. The mover's copy itself runs with the firmware's tests.
func TestMoverRules(t *testing.T) {
	const ram, end = npureg.CPSRAMBase, npureg.CPSRAMBase + npureg.CPSRAMSize
	tests := []struct {
		name    string
		addr    iova.Addr
		local   uint32
		size    uint32
		control uint32
		want    uint32
	}{
		{"read", bufAddr, ram, 4, npureg.MoverRead, npureg.MoverIdle},
		{"write", bufAddr, end - 1, 1, npureg.MoverWrite, npureg.MoverIdle},
		{"all of SRAM", bufAddr, ram, npureg.CPSRAMSize, npureg.MoverRead, npureg.MoverIdle},
		{"size 0", bufAddr, ram, 0, npureg.MoverRead, npureg.MoverRange},
		{"larger than SRAM", bufAddr, ram, npureg.CPSRAMSize + 1, npureg.MoverRead, npureg.MoverRange},
		{"size 2^32-1", bufAddr, ram + 4, ^uint32(0), npureg.MoverRead, npureg.MoverRange},
		{"past the end", bufAddr, end - 3, 4, npureg.MoverWrite, npureg.MoverRange},
		{"at the end", bufAddr, end, 1, npureg.MoverWrite, npureg.MoverRange},
		{"before SRAM", bufAddr, ram - 1, 2, npureg.MoverRead, npureg.MoverRange},
		{"in ROM", bufAddr, 0, 4, npureg.MoverWrite, npureg.MoverRange},
		{"not mapped", 0x1000, ram, 4, npureg.MoverRead, npureg.MoverFault},
		{"past 2^64", ^iova.Addr(2), ram, 4, npureg.MoverWrite, npureg.MoverFault},
		{"control 0", 0x1000, ram, 4, 0, npureg.MoverIdle},
		{"control 3", 0x1000, ram, 4, 3, npureg.MoverIdle},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHart(t)
			h.set(npureg.CPMoverAddrLo, uint32(tt.addr&0xffff_ffff), uint32(tt.addr>>32), tt.local, tt.size, tt.control)
			if h.p.copy.control != 0 {
				if s := h.get(npureg.CPMoverStatus); s != npureg.MoverBusy {
					t.Errorf("status %d during the copy, want busy", s)
				}
				h.set(npureg.CPMoverSize, 0, tt.control) // ignored: busy
				h.p.doCopy()
			}
			if s := h.get(npureg.CPMoverStatus); s != tt.want {
				t.Errorf("status %d, want %d", s, tt.want)
			}
		})
	}
	h := newHart(t)
	copy(h.bus(bufAddr, 4), "abcd")
	h.set(npureg.CPMoverAddrLo, uint32(bufAddr&0xffff_ffff), uint32(bufAddr>>32), ram+1, 4, npureg.MoverRead)
	h.p.doCopy()
	h.set(npureg.CPMoverAddrLo, uint32((bufAddr+9)&0xffff_ffff), uint32(bufAddr>>32), ram+2, 3, npureg.MoverWrite)
	h.p.doCopy()
	if want := []byte("abcd\x00\x00\x00\x00\x00bcd\x00"); !bytes.Equal(want, h.bus(bufAddr, 13)) {
		t.Errorf("memory %q, want %q", h.bus(bufAddr, 13), want)
	}
}

// §3.7
func TestInterruptsAndTime(t *testing.T) {
	h := newHart(t)
	h.now += 1<<32*time.Microsecond + 7500*time.Nanosecond
	if lo, hi := h.get(npureg.CPTimeLo), h.get(npureg.CPTimeHi); lo != 7 || hi != 1 {
		t.Errorf("time %#x %#x, want 7, 1", lo, hi)
	}
	h.now += 1 << 33 * time.Microsecond
	if hi := h.get(npureg.CPTimeHi); hi != 1 {
		t.Errorf("CP_TIME_HI %d is not latched", hi)
	}
	if h.line(cpu.MTI) {
		t.Error("timer interrupt after reset")
	}
	h.set(npureg.CPTimeCmpLo, 7, 3)
	if !h.line(cpu.MTI) {
		t.Error("no timer interrupt at time = compare")
	}
	h.set(npureg.CPTimeCmpLo, 8)
	if h.line(cpu.MTI) {
		t.Error("timer interrupt before the compare")
	}

	h.p.QueueEvent()
	if h.line(cpu.MEI) || h.get(npureg.CPIRQPending) != npureg.CPIRQQueue {
		t.Error("an event that is not enabled: want it pending, and no interrupt")
	}
	h.set(npureg.CPIRQEnable, npureg.CPIRQAll)
	if !h.line(cpu.MEI) {
		t.Error("no interrupt when a pending event is enabled")
	}
	h.set(npureg.CPIRQClear, npureg.CPIRQAdmin)
	if !h.line(cpu.MEI) {
		t.Error("clearing another bit lowers the line")
	}
	h.set(npureg.CPIRQClear, npureg.CPIRQQueue)
	if h.line(cpu.MEI) || h.get(npureg.CPIRQPending) != 0 {
		t.Error("clearing the bit does not lower the line")
	}
}

// Firmware may be wrong: numbers that no queue and no counter has.
func TestWildFirmware(t *testing.T) {
	h := newHart(t)
	for _, q := range []uint32{0, testQueues + 1, 255} {
		h.set(npureg.CPQueueIndex, q)
		h.set(npureg.CPQueueEntries, 4<<16|4, 0, npureg.QueueControlEnable)
		h.set(npureg.CPQueueControl, npureg.QueueControlDisable)
		if s := h.get(npureg.CPQueueState); s != npureg.QueueDisabled {
			t.Errorf("queue %d: state %d", q, s)
		}
	}
	h.set(npureg.CPQueueIndex, 1)
	for _, entries := range []uint32{0, 1<<16 | 4, 4<<16 | 1} {
		h.set(npureg.CPQueueEntries, entries, 0, npureg.QueueControlEnable)
	}
	if len(h.queues) != 0 || len(h.state) != 0 {
		t.Errorf("queues %v, states %v reached hardware", h.queues, h.state)
	}
	for i := range h.counter {
		h.counter[i] = ^uint64(0)
	}
	h.set(npureg.CPCounterIndex, npureg.CounterCount)
	if lo, hi := h.get(npureg.CPCounterLo), h.get(npureg.CPCounterHi); lo != 0 || hi != 0 {
		t.Errorf("counter that does not exist: %#x %#x", hi, lo)
	}
	h.set(npureg.CPHostEvent, 0)
	h.set(npureg.CPHostEvent, npureg.IRQBoot|npureg.IRQFault)
	h.set(npureg.CPHostEvent, npureg.IRQAll)
	if diff := cmp.Diff([]uint32{npureg.IRQAdmin | npureg.IRQFirmware}, h.irqs); diff != "" {
		t.Errorf("causes (-want +got):\n%s", diff)
	}
	h.set(npureg.CPFaultAddrLo, 0x11111110, 0x22, 0x12340203, 0x00ff0010)
	if diff := cmp.Diff([]Fault{{Code: 0x10, Queue: 3, Source: 2, Index: 0x1234, Addr: 0x2211111110}}, h.faults); diff != "" {
		t.Errorf("fault records (-want +got):\n%s", diff)
	}
}

// §3.9: lines are broken when they are too long, and limited in number.
func TestConsole(t *testing.T) {
	h := newHart(t)
	puts := func(s string) {
		for _, c := range []byte(s) {
			h.set(npureg.CPConsole, uint32(c))
		}
	}
	puts("a \"line\"\x1b\n" + strings.Repeat("x", consoleLine+1) + "\n")
	h.logged(t, `line="a \"line\"\x1b"`)
	h.logged(t, "line="+strings.Repeat("x", consoleLine)+"\n")
	h.logged(t, "line=x\n")
	h.log.Reset()
	puts(strings.Repeat("y\n", 1000))
	if n := strings.Count(h.log.String(), "line=y"); n != logsPerSecond-3 {
		t.Errorf("%d lines in a second, want %d", n, logsPerSecond-3)
	}
	h.now += time.Second
	puts("later\n")
	h.logged(t, "line=later dropped=953")
}
