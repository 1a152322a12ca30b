// SPDX-License-Identifier: Apache-2.0

package ioat

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
	"npuemu/vdev/vfiouser"
)

// The guest's memory: descriptors, source, destination and CHANCMP are in memBase; nothing is mapped elsewhere, but for
// a page that may only be read, and one where accesses wait.
const (
	memBase  = 0x10000
	memSize  = 0x20000
	descAt   = memBase
	srcAt    = memBase + 0x8000
	dstAt    = memBase + 0x10000
	compAt   = memBase + 0x1f000
	readOnly = 0x80000
	slowAt   = 0x90000
	nowhere  = 0xdead0000
	timeout  = 10 * time.Second
)

// slow is memory whose accesses wait until it is let go.
type slow struct {
	*iova.Bytes
	entered chan struct{} // gets a value when an access begins
	release chan struct{} // closed to let all go
}

func (s *slow) wait() {
	select {
	case s.entered <- struct{}{}:
	default:
	}
	<-s.release
}
func (s *slow) ReadAt(p []byte, off uint64) error { s.wait(); return s.Bytes.ReadAt(p, off) }
func (s *slow) WriteAt(p []byte, off uint64) error {
	s.wait()
	return s.Bytes.WriteAt(p, off)
}

// host is a guest's driver, by calls.
type host struct {
	testing.TB
	d    *Device
	mem  *iova.Bytes
	slow *slow
	irq  *eventfd.FD
}

// newHost returns a device that runs, a bus master with its memory mapped and MSI-X on, after a channel reset.
func newHost(t testing.TB) *host {
	t.Helper()
	d, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{
		TB: t, d: d, mem: iova.NewBytes(make([]byte, memSize)),
		slow: &slow{Bytes: iova.NewBytes(make([]byte, 0x1000)), entered: make(chan struct{}, 1), release: make(chan struct{})},
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { d.Run(ctx); close(done) }()
	t.Cleanup(func() {
		h.letGo()
		cancel()
		<-done
		d.SetVector(vfiouser.IRQMSIX, 0, nil)
		d.UnmapAllDMA()
	})
	for _, m := range []struct {
		at   iova.Addr
		size uint64
		prot iova.Prot
		mem  iova.Memory
	}{
		{memBase, memSize, iova.Read | iova.Write, h.mem},
		{readOnly, 0x1000, iova.Read, iova.NewBytes(make([]byte, 0x1000))},
		{slowAt, 0x1000, iova.Read | iova.Write, h.slow},
	} {
		if err := d.MapDMA(m.at, m.size, m.prot, m.mem); err != nil {
			t.Fatal(err)
		}
	}
	if h.irq, err = eventfd.New(); err != nil {
		t.Fatal(err)
	}
	d.SetVector(vfiouser.IRQMSIX, 0, h.irq)
	h.begin()
	return h
}

// begin is what a driver does first.
func (h *host) begin() {
	h.config(0x04, []byte{0x06, 0x04}) // memory, bus master, no INTx
	h.write(regCommand, []byte{commandReset})
	h.write(offIntrCtrl, []byte{0x08})
}

func (h *host) letGo() {
	select {
	case <-h.slow.release:
	default:
		close(h.slow.release)
	}
}

func (h *host) write(off uint64, p []byte) {
	h.Helper()
	if err := h.d.WriteRegion(vfiouser.RegionBAR0, off, p); err != nil {
		h.Fatal(err)
	}
}

func (h *host) config(off uint64, p []byte) {
	h.Helper()
	if err := h.d.WriteRegion(vfiouser.RegionConfig, off, p); err != nil {
		h.Fatal(err)
	}
}

func (h *host) read(region int, off uint64, n int) uint64 {
	h.Helper()
	var p [8]byte
	if err := h.d.ReadRegion(region, off, p[:n]); err != nil {
		h.Fatal(err)
	}
	return binary.LittleEndian.Uint64(p[:])
}

func (h *host) reg(off uint64, n int) uint64 { h.Helper(); return h.read(vfiouser.RegionBAR0, off, n) }

func u16(v uint16) []byte { return binary.LittleEndian.AppendUint16(nil, v) }
func u32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
func u64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

func (h *host) poke(at uint64, p []byte) {
	h.Helper()
	if err := h.mem.WriteAt(p, at-memBase); err != nil {
		h.Fatal(err)
	}
}

func (h *host) peek(at uint64, n int) []byte {
	h.Helper()
	p := make([]byte, n)
	if err := h.mem.ReadAt(p, at-memBase); err != nil {
		h.Fatal(err)
	}
	return p
}

// desc is a descriptor.
type desc struct {
	size, control  uint32
	src, dst, next uint64
}

func (x desc) bytes() []byte {
	return slices.Concat(u32(x.size), u32(x.control), u64(x.src), u64(x.dst), u64(x.next), make([]byte, 32))
}

// start issues a chain.
func (h *host) start(at uint64, n uint16) {
	h.Helper()
	h.write(regChainLo, u64(at))
	h.write(regCommand+2, u16(n))
}

func (h *host) status() uint64 { h.Helper(); return h.reg(regStatusLo, 8) & statusMask }

// await waits for a state of the channel.
func (h *host) await(want uint64) {
	h.Helper()
	h.until(func() bool { return h.status() == want })
}

func (h *host) until(ok func() bool) {
	h.Helper()
	for end := time.Now().Add(timeout); !ok(); time.Sleep(50 * time.Microsecond) {
		if time.Now().After(end) {
			h.Fatalf("timeout: CHANSTS %#x, CHANERR %#x, CHANCMD %#x", h.reg(regStatusLo, 8), h.reg(regError, 4), h.reg(regCommand, 4))
		}
	}
}

// interrupts returns how often the vector was signalled since it was last asked.
func (h *host) interrupts() uint64 { return h.irq.Wait(0) }

func (h *host) finding(id string) uint64 {
	for _, f := range h.d.Findings() {
		if f.ID == id {
			return f.Count
		}
	}
	return 0
}

// copies does one good copy and fails the test if the channel cannot.
func (h *host) copies() {
	h.Helper()
	want := bytes.Repeat([]byte("good copy "), 100)
	h.poke(srcAt, want)
	h.poke(dstAt, make([]byte, len(want)))
	h.poke(descAt, desc{size: uint32(len(want)), src: srcAt, dst: dstAt}.bytes())
	h.start(descAt, 1)
	h.await(statusDone)
	if !bytes.Equal(h.peek(dstAt, len(want)), want) {
		h.Fatal("the destination does not hold the source")
	}
}

// recover is what a driver does after an error.
func (h *host) recover() {
	h.Helper()
	h.write(regError, u32(uint32(h.reg(regError, 4))))
	h.config(cfgError, u32(uint32(h.read(vfiouser.RegionConfig, cfgError, 4))))
	h.write(regCommand, []byte{commandReset})
	h.until(func() bool { return h.reg(regCommand, 1)&commandReset == 0 })
	if got := h.status(); got != statusHalted {
		h.Fatalf("state %d after a reset, not halted", got)
	}
	if e, m := h.reg(regError, 4), h.read(vfiouser.RegionConfig, cfgError, 4); e != 0 || m != 0 {
		h.Fatalf("CHANERR %#x, CHANERR_INT %#x after clearing", e, m)
	}
}

func TestReset(t *testing.T) {
	d, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{TB: t, d: d}
	h.config(0x04, []byte{0x06})
	for _, row := range []struct {
		name   string
		region int
		off    uint64
		n      int
		want   uint64
	}{
		{"ids", vfiouser.RegionConfig, 0, 4, DeviceID<<16 | VendorID},
		{"class", vfiouser.RegionConfig, 9, 3, 0x088000},
		{"AER is the last extended capability", vfiouser.RegionConfig, 0x100, 4, 0x00020001},
		{"DMAUNCERRSTS", vfiouser.RegionConfig, cfgUncorrectable, 4, 0},
		{"CHANERR_INT", vfiouser.RegionConfig, cfgError, 4, 0},
		{"CHANCNT", vfiouser.RegionBAR0, 0x00, 1, 1},
		{"XFERCAP", vfiouser.RegionBAR0, 0x01, 1, 12},
		{"INTRCTRL", vfiouser.RegionBAR0, 0x03, 1, 0},
		{"ATTNSTATUS", vfiouser.RegionBAR0, 0x04, 4, 0},
		{"VER", vfiouser.RegionBAR0, 0x08, 1, 0x33},
		{"INTRDELAY", vfiouser.RegionBAR0, 0x0c, 2, 0},
		{"DMA_CAP", vfiouser.RegionBAR0, 0x10, 4, 0},
		{"DCAOFFSET", vfiouser.RegionBAR0, 0x14, 2, 0},
		{"CHANCTRL", vfiouser.RegionBAR0, 0x80, 2, 0},
		{"DMA_COMP", vfiouser.RegionBAR0, 0x82, 2, 2},
		{"CHANCMD", vfiouser.RegionBAR0, 0x84, 1, 0},
		{"DMACOUNT", vfiouser.RegionBAR0, 0x86, 2, 0},
		{"CHANSTS: halted", vfiouser.RegionBAR0, 0x88, 8, statusHalted},
		{"CHANERR", vfiouser.RegionBAR0, 0xa8, 4, 0},
		{"no second channel", vfiouser.RegionBAR0, 0x100, 4, 0xffff_ffff},
		{"odd width", vfiouser.RegionBAR0, 0x81, 2, 0xffff},
	} {
		if got := h.read(row.region, row.off, row.n); got != row.want {
			t.Errorf("%s: %#x, want %#x", row.name, got, row.want)
		}
	}
}

func TestCopy(t *testing.T) {
	h := newHost(t)
	for _, size := range []uint32{1, 2, 63, 64, 4095, 4096} {
		want := bytes.Repeat([]byte{byte(size), 3, 7}, int(size))[:size]
		h.poke(srcAt, want)
		h.poke(dstAt, bytes.Repeat([]byte{0xee}, 4100))
		h.poke(descAt, desc{size: size, src: srcAt, dst: dstAt}.bytes())
		h.start(descAt, 1)
		h.await(statusDone)
		if got := h.peek(dstAt, int(size)+1); !bytes.Equal(got[:size], want) || got[size] != 0xee {
			t.Errorf("%d bytes: wrong bytes", size)
		}
	}
	if n := h.interrupts(); n != 0 {
		t.Errorf("%d interrupts that nobody asked for", n)
	}
	if s := h.d.Stats(); s.Descriptors != 6 || s.Errors != 0 {
		t.Errorf("stats %+v", s)
	}
}

// TestChain runs a ring of three, issued in steps, with CHAINADDR written by halves, as ioatdma does, and reads the status that
// it writes.
func TestChain(t *testing.T) {
	h := newHost(t)
	h.write(regCompLo, u32(compAt))
	h.write(regCompHi, u32(0))
	h.poke(srcAt, []byte("abc"))
	for i := range uint64(3) {
		h.poke(descAt+64*i, desc{size: 1, control: descCompletion, src: srcAt + i, dst: dstAt + i, next: descAt + 64*((i+1)%3)}.bytes())
	}
	h.poke(descAt+64, desc{control: descNull | descCompletion, next: descAt + 128}.bytes()) // moves nothing
	h.write(regChainHi, u32(0))
	h.write(regChainLo, u32(descAt))
	if got := h.reg(regDescLo, 8); got != descAt {
		t.Errorf("CDAR %#x, want CHAINADDR", got)
	}
	h.write(regCommand+2, u16(2))
	h.await(statusDone)
	if got := h.peek(dstAt, 3); !bytes.Equal(got, []byte{'a', 0, 0}) {
		t.Errorf("after two: %q", got)
	}
	h.write(regCommand+2, u16(2)) // no difference, nothing happens
	h.write(regCommand+2, u16(4)) // around the ring
	h.await(statusDone)
	if got := h.peek(dstAt, 3); !bytes.Equal(got, []byte{'a', 0, 'c'}) {
		t.Errorf("after four: %q", got)
	}
	if got := h.reg(regStatusLo, 8); got != descAt|statusDone {
		t.Errorf("CHANSTS %#x", got)
	}
	if got := binary.LittleEndian.Uint64(h.peek(compAt, 8)); got != descAt|statusDone {
		t.Errorf("CHANCMP %#x", got)
	}
	if got := h.reg(regDescLo, 8); got != descAt+64 {
		t.Errorf("CDAR %#x", got)
	}
	h.start(descAt, 1) // the count starts again with the chain
	h.await(statusDone)
	if got := h.d.Stats().Descriptors; got != 5 {
		t.Errorf("%d descriptors, want 5", got)
	}
}

// TestLoop issues as many of a descriptor that is its own successor as can be: the loop ends with the count.
func TestLoop(t *testing.T) {
	h := newHost(t)
	h.poke(descAt, desc{size: 8, src: srcAt, dst: dstAt, next: descAt}.bytes())
	h.start(descAt, 0xffff)
	h.await(statusDone)
	if got := h.d.Stats().Descriptors; got != 0xffff {
		t.Errorf("%d descriptors", got)
	}
	h.write(regCommand+2, u16(1)) // two more, modulo 2¹⁶
	h.await(statusDone)
	if got := h.d.Stats().Descriptors; got != 0x10001 {
		t.Errorf("%d descriptors", got)
	}
}

func TestInterrupts(t *testing.T) {
	h := newHost(t)
	one := desc{size: 1, control: descInterrupt, src: srcAt, dst: dstAt}
	h.poke(descAt, one.bytes())
	rearm := func() { h.write(regControl, u16(controlRearm)) }
	run := func() { h.start(descAt, 1); h.await(statusDone) }

	run()
	if n := h.interrupts(); n != 1 {
		t.Fatalf("%d interrupts, want 1", n)
	}
	if h.reg(regControl, 2)&controlRearm == 0 {
		t.Error("the channel's interrupt is not disarmed after one")
	}
	run()
	run()
	if n := h.interrupts(); n != 0 {
		t.Errorf("%d interrupts while disarmed", n)
	}
	rearm()
	if n := h.interrupts(); n != 1 {
		t.Errorf("%d interrupts for what came while disarmed, want 1", n)
	}
	rearm()
	if n := h.interrupts(); n != 0 {
		t.Errorf("%d interrupts after re-arming without a cause", n)
	}
	run()
	if n := h.interrupts(); n != 1 {
		t.Errorf("%d interrupts after re-arming, want 1", n)
	}

	// Errors interrupt if CHANCTRL asks for it and the error is not masked.
	for _, row := range []struct {
		name    string
		control uint16
		mask    uint32
		want    uint64
	}{
		{"not asked for", 0, 0, 0},
		{"asked for", controlErrIntr, 0, 1},
		{"masked", controlErrIntr, errReadData, 0},
	} {
		h.recover()
		h.write(regControl, u16(row.control))
		h.write(regErrMask, u32(row.mask))
		h.poke(descAt, desc{size: 1, control: descInterrupt, src: nowhere, dst: dstAt}.bytes())
		h.start(descAt, 1)
		h.await(statusHalted)
		if n := h.interrupts(); n != row.want {
			t.Errorf("error interrupt %s: %d, want %d", row.name, n, row.want)
		}
	}
}

// TestAttention is the device without a vector for its channel: INTx, or MSI, and the registers of the classic handler.
func TestAttention(t *testing.T) {
	for _, kind := range []int{vfiouser.IRQINTx, vfiouser.IRQMSI} {
		h := newHost(t)
		h.d.SetVector(vfiouser.IRQMSIX, 0, nil)
		fd, err := eventfd.New()
		if err != nil {
			t.Fatal(err)
		}
		h.irq = fd
		h.d.SetVector(kind, 0, fd)
		defer h.d.SetVector(kind, 0, nil)
		h.config(0x04, []byte{0x06, 0})
		h.write(offIntrCtrl, []byte{0x00})
		h.poke(descAt, desc{size: 1, control: descInterrupt, src: srcAt, dst: dstAt}.bytes())
		h.start(descAt, 1)
		h.await(statusDone)
		if n := h.interrupts(); n != 0 {
			t.Errorf("kind %d: %d interrupts with the master enable clear", kind, n)
		}
		h.write(offIntrCtrl, []byte{0x01})
		if n := h.interrupts(); n != 1 {
			t.Errorf("kind %d: %d interrupts when enabled, want 1", kind, n)
		}
		if got := h.reg(0x01, 1); got != 12 {
			t.Errorf("kind %d: XFERCAP %d", kind, got)
		}
		if got := h.reg(offIntrCtrl, 1); got != 0x07 {
			t.Errorf("kind %d: INTRCTRL %#x, want 0x07", kind, got)
		}
		if got := h.reg(offIntrCtrl, 1); got != 0x02 {
			t.Errorf("kind %d: INTRCTRL %#x when read again, want 0x02", kind, got)
		}
		if a, b := h.reg(regAttention, 4), h.reg(regAttention, 4); a != 1 || b != 0 {
			t.Errorf("kind %d: ATTNSTATUS %#x then %#x, want 1 then 0", kind, a, b)
		}
		h.write(offIntrCtrl, []byte{0x01})
		h.d.MaskVector(kind, 0, false)
		if n := h.interrupts(); n != 0 {
			t.Errorf("kind %d: %d interrupts without a cause", kind, n)
		}
		h.write(regControl, u16(controlRearm))
		h.start(descAt, 1)
		h.await(statusDone)
		if n := h.interrupts(); n != 1 {
			t.Errorf("kind %d: %d interrupts, want 1", kind, n)
		}
	}
}

func TestSuspend(t *testing.T) {
	h := newHost(t)
	h.copies()
	h.write(regCommand, []byte{commandSuspend})
	if got := h.status(); got != statusSuspended {
		t.Fatalf("state %d after suspending an idle channel", got)
	}
	h.copies() // a new chain ends it

	// With a descriptor in flight, that one ends first; the rest waits for a larger count.
	h.poke(descAt, desc{size: 1, src: slowAt, dst: dstAt, next: descAt + 64}.bytes())
	h.poke(descAt+64, desc{size: 1, src: srcAt, dst: dstAt + 1}.bytes())
	h.start(descAt, 2)
	<-h.slow.entered
	h.write(regCommand, []byte{commandSuspend})
	if got := h.status(); got != statusActive {
		t.Errorf("state %d with a descriptor in flight", got)
	}
	h.letGo()
	h.await(statusSuspended)
	if got := h.reg(regStatusLo, 8); got != descAt|statusSuspended {
		t.Errorf("CHANSTS %#x: the first descriptor, and no other, was completed", got)
	}
	h.write(regCommand+2, u16(3))
	h.await(statusHalted) // the third descriptor is at 0, where nothing is
	if got := h.reg(regStatusLo, 8); got != descAt+64|statusHalted {
		t.Errorf("CHANSTS %#x after resuming", got)
	}
	h.write(regCommand, []byte{commandSuspend})
	if got := h.status(); got != statusHalted {
		t.Errorf("state %d: a halted channel is not suspended", got)
	}
}

// TestResetInFlight resets in every way while a descriptor waits for memory.
func TestResetInFlight(t *testing.T) {
	for _, row := range []struct {
		name  string
		reset func(h *host)
	}{
		{"channel", func(h *host) { h.write(regCommand, []byte{commandReset}) }},
		{"function", func(h *host) { h.config(0x59, []byte{0x80}); h.begin() }},
		{"conventional", func(h *host) {
			if err := h.d.Reset(); err != nil {
				h.Fatal(err)
			}
			h.begin()
		}},
		{"client gone", func(h *host) { h.d.Detach(); h.begin() }},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := newHost(t)
			h.write(regCompLo, u64(compAt))
			h.poke(dstAt, []byte{0xee})
			h.poke(descAt, desc{size: 1, control: descInterrupt | descCompletion, src: slowAt, dst: dstAt, next: descAt}.bytes())
			h.start(descAt, 100)
			<-h.slow.entered
			row.reset(h)
			if h.reg(regCommand, 1)&commandReset == 0 {
				t.Error("CHANCMD.RESET reads 0 with a descriptor in flight")
			}
			if got := h.status(); got != statusHalted {
				t.Errorf("state %d, want halted", got)
			}
			// Pending transactions show in Device Status.
			if h.read(vfiouser.RegionConfig, 0x5a, 2)&(1<<5) == 0 {
				t.Error("no Transactions Pending")
			}
			h.letGo()
			h.until(func() bool { return h.reg(regCommand, 1)&commandReset == 0 })
			if got := h.peek(dstAt, 1)[0]; got != 0xee {
				t.Errorf("the destination was written after the reset: %#x", got)
			}
			if got := h.peek(compAt, 8); !bytes.Equal(got, make([]byte, 8)) {
				t.Errorf("CHANCMP was written after the reset: %x", got)
			}
			if n := h.interrupts(); n != 0 {
				t.Errorf("%d interrupts after the reset", n)
			}
			h.copies()
		})
	}
}

// TestResetThenStart starts new work while a descriptor from before a reset is still in flight.
func TestResetThenStart(t *testing.T) {
	h := newHost(t)
	h.poke(descAt+0x1000, desc{size: 1, src: slowAt, dst: dstAt}.bytes())
	h.start(descAt+0x1000, 1)
	<-h.slow.entered
	h.write(regCommand, []byte{commandReset})
	h.poke(srcAt, []byte{0x55})
	h.poke(descAt, desc{size: 1, src: srcAt, dst: dstAt}.bytes())
	h.start(descAt, 1)
	if got := h.status(); got != statusActive {
		t.Errorf("state %d", got)
	}
	h.letGo()
	h.await(statusDone)
	if got := h.peek(dstAt, 1)[0]; got != 0x55 {
		t.Errorf("the destination holds %#x", got)
	}
}

func TestRefusedRegions(t *testing.T) {
	h := newHost(t)
	if err := h.d.ReadRegion(vfiouser.RegionROM, 0, make([]byte, 4)); err == nil {
		t.Error("a read of the ROM does not fail")
	}
	if err := h.d.WriteRegion(vfiouser.RegionBAR0+2, 0, make([]byte, 4)); err == nil {
		t.Error("a write to BAR2 does not fail")
	}
	h.write(0x3000, u32(1))
	h.write(regStatusLo, u32(1))
	h.write(regChainLo, []byte{1})
	for _, id := range []string{"bar0-unclaimed", "bar0-read-only", "bar0-width"} {
		if h.finding(id) != 1 {
			t.Errorf("finding %s: %d", id, h.finding(id))
		}
	}
	h.config(0x04, []byte{0x04}) // memory off
	if got := h.reg(0, 4); got != 0xffff_ffff {
		t.Errorf("a closed BAR reads %#x", got)
	}
	h.write(regCommand, []byte{commandReset})
	if h.finding("bar-closed") != 2 {
		t.Errorf("finding bar-closed: %d", h.finding("bar-closed"))
	}
	var none *eventfd.FD
	h.d.SetVector(vfiouser.IRQMSIX, 0, none)
	h.d.TriggerVector(vfiouser.IRQMSIX, 0) // pends
	h.d.TriggerVector(vfiouser.IRQINTx, 0)
	h.d.MaskVector(vfiouser.IRQMSIX, 0, true)
	if err := h.d.MapDMA(memBase, 1, iova.Read, h.mem); !errors.Is(err, iova.ErrOverlap) {
		t.Errorf("a second mapping: %v", err)
	}
}
