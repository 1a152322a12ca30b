// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npuemu/dma/iova"
	"npuemu/firmware/image"
	"npuemu/mmio/npureg"
)

func lockedBoard(t testing.TB) *board {
	b := newBoard(t, nil)
	b.mu.Lock()
	t.Cleanup(b.mu.Unlock)
	return b
}

func TestBoot(t *testing.T) {
	b := lockedBoard(t)
	if s := b.host.Value(npureg.BootStatus); s != npureg.BootWaiting {
		t.Fatalf("BOOT_STATUS %#x after reset, want WAITING", s)
	}
	b.load(Image())
	b.p.Start()
	if s := b.host.Value(npureg.BootStatus); s != npureg.BootLoading {
		t.Errorf("BOOT_STATUS %#x after START, want LOADING at once", s)
	}
	b.settle(t)
	got := []uint32{b.host.Value(npureg.BootStatus), b.host.Value(npureg.FWVersion), b.host.Value(npureg.FWBuild), b.host.Value(npureg.FWErrorDetail)}
	if diff := cmp.Diff([]uint32{npureg.BootReady, 0x00010002, 0x00030000, 0}, got); diff != "" {
		t.Errorf("BOOT_STATUS, FW_VERSION, FW_BUILD, FW_ERROR_DETAIL (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]uint32{npureg.IRQBoot}, b.irqs); diff != "" {
		t.Errorf("causes (-want +got):\n%s", diff)
	}
	b.logged(t, "npuemu firmware 0.3.0: ready, contexts 0x3, queues 0x5")
	b.p.Start()
	if s := b.host.Value(npureg.BootStatus); s != npureg.BootReady {
		t.Errorf("START in READY is not ignored: BOOT_STATUS %#x", s)
	}
	h, _, err := image.Parse(Image())
	if err != nil || h.Build != 0x00030000 || h.InterfaceMajor != 1 || h.InterfaceMinor != 2 || h.ArchMinor != 0 {
		t.Errorf("header %+v, %v: it must agree with FW_VERSION and FW_BUILD", h, err)
	}
}

// The ROM must come to the verdict of package image, whose tests name each rule.
func TestBootErrors(t *testing.T) {
	good := program(t, insnRegs, insnLI(npureg.BootReady), insnSW(npureg.CPBootStatus), insnWFI)
	p32 := binary.LittleEndian.PutUint32
	b := lockedBoard(t)
	seen := map[uint8]bool{}
	try := func(name string, img []byte) {
		t.Helper()
		b.irqs, b.faults = nil, nil
		status := b.start(t, img)
		_, _, err := image.Parse(img)
		var e *image.Error
		if !errors.As(err, &e) {
			// The ROM enters it; an entry in the middle may trap.
			if code := status >> 8; code != 0 && code != npureg.BootErrTrap {
				t.Errorf("%s: BOOT_STATUS %#x for an image that package image accepts", name, status)
			}
			b.p.Reset()
			return
		}
		seen[e.Code] = true
		if got := b.host.Value(npureg.FWErrorDetail); status != failed(uint32(e.Code)) || got != e.Detail {
			t.Errorf("%s: BOOT_STATUS %#x, detail %#x; want %#x, %#x (%v)", name, status, got, failed(uint32(e.Code)), e.Detail, err)
		}
		if diff := cmp.Diff([]uint32{npureg.IRQBoot}, b.irqs); diff != "" {
			t.Errorf("%s: causes (-want +got):\n%s", name, diff)
		}
		if len(b.faults) != 0 {
			t.Errorf("%s: fault records %v; a wrong image makes none (§9.2)", name, b.faults)
		}
	}
	for _, n := range []int{0, 1, 63, 64, 67, 68, 79, 81, 64 + 0x40000, 64 + 0x40001} {
		try("size", append(bytes.Clone(good), make([]byte, 0x41000)...)[:n])
	}
	values := []uint32{0, 1, 2, 3, 4, 8, 64, 0x10000, 0x10001, 0x20000, 0x0ffffffc, 0x10000000, 0x10000002, 0x10000004, 0x1000000e,
		0x10000010, 0x1003efec, 0x1003eff0, 0x1003eff4, 0x1003f000, 0x10040000, 0x40000000, 0x80000000, 0xfffffffc, 0xffffffff}
	for off := 0; off < len(good); off += 4 {
		for _, v := range values {
			img := bytes.Clone(good)
			p32(img[off:], v)
			if off == 0x10 && v >= 0x0ffffff0 && v <= 0x10040000 { // else the entry hides what the load address does
				p32(img[0x14:], v)
			}
			try("unsealed", img)
			if off < 0x3c {
				image.Seal(img)
				try("sealed", img)
			}
			if t.Failed() {
				t.Fatalf("with %#x at %#x", v, off)
			}
		}
	}
	for c := uint8(npureg.BootErrSize); c <= npureg.BootErrRange; c++ {
		if !seen[c] && c != npureg.BootErrFetch {
			t.Errorf("no row met boot error %d", c)
		}
	}
	if s := b.start(t, Image()); s != npureg.BootReady {
		t.Errorf("BOOT_STATUS %#x for a good image after all failures, want READY", s)
	}
}

func TestBootFetch(t *testing.T) {
	at := func(lo, hi iova.Addr) func(iova.Addr, int, bool) bool {
		return func(a iova.Addr, size int, _ bool) bool { return a < hi && a+iova.Addr(size) > lo }
	}
	img := program(t, append([]uint32{insnHang}, make([]uint32, 3000)...)...) // three pieces
	tests := []struct {
		name   string
		addr   iova.Addr
		broken func(iova.Addr, int, bool) bool
		detail uint32
	}{
		{name: "not mapped", addr: 0x1000, detail: 0},
		{name: "misaligned", addr: imageAddr + 32, detail: 0},
		{name: "header", addr: imageAddr, broken: at(imageAddr, imageAddr+1), detail: 0},
		{name: "first piece", addr: imageAddr, broken: at(imageAddr+64, imageAddr+68), detail: 64},
		{name: "second piece", addr: imageAddr, broken: at(imageAddr+8191, imageAddr+8192), detail: 4096},
		{name: "third piece", addr: imageAddr, broken: at(imageAddr+8192, imageAddr+8193), detail: 8192},
		{name: "past 2^64", addr: ^iova.Addr(63), detail: 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := lockedBoard(t)
			b.broken = tt.broken
			b.load(img)
			b.host.Set(npureg.ImageAddrLo, uint32(tt.addr&0xffff_ffff))
			b.host.Set(npureg.ImageAddrHi, uint32(tt.addr>>32))
			b.p.Start()
			b.settle(t)
			got := []uint32{b.host.Value(npureg.BootStatus), b.host.Value(npureg.FWErrorDetail)}
			if diff := cmp.Diff([]uint32{failed(npureg.BootErrFetch), tt.detail}, got); diff != "" {
				t.Errorf("BOOT_STATUS, detail (-want +got):\n%s", diff)
			}
		})
	}
}

// What becomes of an image that the ROM enters.
func TestBootDies(t *testing.T) {
	const ram = npureg.CPSRAMBase
	fault := func(code npureg.Status) []Fault { return []Fault{{Code: code, Source: npureg.FaultCP}} }
	tests := []struct {
		name    string
		insns   []uint32
		timeout uint32        // BOOT_TIMEOUT
		after   time.Duration // since START
		status  uint32
		detail  uint32
		faults  []Fault
		irqs    []uint32
	}{
		{name: "hangs, just before the timeout", insns: []uint32{insnHang}, timeout: 2000, after: 1999 * time.Millisecond, status: npureg.BootStarting},
		{name: "hangs", insns: []uint32{insnHang}, timeout: 2000, after: 2000 * time.Millisecond,
			status: failed(npureg.BootErrTimeout), detail: ram, irqs: []uint32{npureg.IRQBoot}},
		{name: "timeout 0 is 65536 ms", insns: []uint32{insnWFI, insnHang}, after: 65535 * time.Millisecond, status: npureg.BootStarting},
		{name: "waits for 65536 ms", insns: []uint32{insnWFI, insnHang}, after: 65536 * time.Millisecond,
			status: failed(npureg.BootErrTimeout), detail: ram + 4, irqs: []uint32{npureg.IRQBoot}},
		{name: "ready in time", insns: []uint32{insnRegs, insnLI(npureg.BootReady), insnSW(npureg.CPBootStatus), insnHang}, timeout: 1,
			after: time.Hour, status: npureg.BootReady, irqs: []uint32{npureg.IRQBoot}},
		{name: "trap in the ROM's vector", insns: []uint32{insnHang &^ 0xff, insnIllegal}, timeout: 9, status: failed(npureg.BootErrTrap),
			detail: ram, faults: fault(npureg.StatusFirmwareTrap), irqs: []uint32{npureg.IRQFault, npureg.IRQBoot}},
		{name: "trap in a trap handler that cannot run", insns: []uint32{0x200002b7 /* lui t0, 0x20000 */, 0x30529073 /* csrw mtvec, t0 */, insnIllegal},
			timeout: 9, status: failed(npureg.BootErrTrap), detail: 0x20000000,
			faults: fault(npureg.StatusFirmwareTrap), irqs: []uint32{npureg.IRQFault, npureg.IRQBoot}},
		{name: "byte access to a register", insns: []uint32{insnRegs, 0x00028303 /* lb t1, (t0) */}, timeout: 9, status: failed(npureg.BootErrTrap),
			detail: ram + 4, faults: fault(npureg.StatusFirmwareTrap), irqs: []uint32{npureg.IRQFault, npureg.IRQBoot}},
		{name: "write to the host's page", insns: []uint32{0x400012b7 /* lui t0, 0x40001 */, insnSW(0)}, timeout: 9, status: failed(npureg.BootErrTrap),
			detail: ram + 4, faults: fault(npureg.StatusFirmwareTrap), irqs: []uint32{npureg.IRQFault, npureg.IRQBoot}},
		{name: "watchdog", insns: []uint32{insnRegs, insnLI(10), insnSW(npureg.CPWatchdogPeriod), insnLI(npureg.BootReady), insnSW(npureg.CPBootStatus), insnHang},
			timeout: 9, after: 10 * time.Millisecond, status: failed(npureg.BootErrWatchdog), detail: ram + 20,
			faults: fault(npureg.StatusWatchdog), irqs: []uint32{npureg.IRQBoot, npureg.IRQFault, npureg.IRQBoot}},
		{name: "watchdog's period has not passed", insns: []uint32{insnRegs, insnLI(10), insnSW(npureg.CPWatchdogPeriod), insnLI(npureg.BootReady), insnSW(npureg.CPBootStatus), insnHang},
			timeout: 9, after: 9 * time.Millisecond, status: npureg.BootReady, irqs: []uint32{npureg.IRQBoot}},
		{name: "watchdog off", insns: []uint32{insnRegs, insnLI(10), insnSW(npureg.CPWatchdogPeriod), insnLI(0), insnSW(npureg.CPWatchdogPeriod),
			insnLI(npureg.BootReady), insnSW(npureg.CPBootStatus), insnHang},
			timeout: 9, after: time.Hour, status: npureg.BootReady, irqs: []uint32{npureg.IRQBoot}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := lockedBoard(t)
			b.host.Set(npureg.BootTimeout, tt.timeout)
			b.load(program(t, tt.insns...))
			b.p.Start()
			for range 100 { // a hanging program has no rest
				b.p.step()
			}
			b.now += tt.after
			for range grace + 1 {
				b.p.step()
			}
			got := []uint32{b.host.Value(npureg.BootStatus), b.host.Value(npureg.FWErrorDetail)}
			if diff := cmp.Diff([]uint32{tt.status, tt.detail}, got); diff != "" {
				t.Errorf("BOOT_STATUS, detail (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.faults, b.faults); diff != "" {
				t.Errorf("fault records (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.irqs, b.irqs); diff != "" {
				t.Errorf("causes (-want +got):\n%s", diff)
			}
			if tt.status&0xff != npureg.BootFailed {
				return
			}
			steps := b.p.core.Steps()
			b.now += time.Hour
			b.settle(t)
			if b.p.core.Steps() != steps {
				t.Error("the processor is not halted in FAILED")
			}
			b.host.Set(npureg.BootTimeout, 2000)
			if s := b.start(t, Image()); s != npureg.BootReady || b.host.Value(npureg.FWErrorDetail) != 0 {
				t.Errorf("BOOT_STATUS %#x, detail %#x for a good image after it, want READY, 0", s, b.host.Value(npureg.FWErrorDetail))
			}
		})
	}
}

// The real firmware's own trap handler: its stack pointer leads nowhere.
func TestFirmwareTrap(t *testing.T) {
	b := lockedBoard(t)
	b.start(t, Image())
	b.p.core.SetReg(2, 3)
	b.p.core.SetPC(npureg.CPSRAMBase + 0x20000) // never written, so 0
	b.settle(t)
	if s, pc := b.host.Value(npureg.BootStatus), b.host.Value(npureg.FWErrorDetail); s != failed(npureg.BootErrTrap) || pc != 0x10020000 {
		t.Errorf("BOOT_STATUS %#x, detail %#x; want FAILED/TRAP at 0x10020000", s, pc)
	}
	b.logged(t, "trap: cause 0x2 at 0x10020000, value 0x0")
}

// New firmware stops the user queues that an earlier one left (§4.8).
func TestFirmwareStopsOldQueues(t *testing.T) {
	b := lockedBoard(t)
	b.state = map[int]uint32{1: npureg.QueueEnabled, 2: npureg.QueueError, 5: npureg.QueueEnabled}
	b.busy[5] = true
	b.start(t, Image())
	if diff := cmp.Diff(map[int]uint32{1: npureg.QueueDisabled, 2: npureg.QueueDisabled, 5: npureg.QueueDraining}, b.state); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
}
