// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"testing"
	"time"

	"npuemu/dma/iova"
	"npuemu/firmware"
	"npuemu/mmio/npureg"
	"npuemu/queue"
	"npuemu/vdev/vfiouser"
)

// stuck is memory whose owner does not answer: an access tells that it is there,
// and waits until the test lets it go.
type stuck struct {
	reached chan struct{}
	release chan struct{}
}

func newStuck() *stuck { return &stuck{make(chan struct{}, 16), make(chan struct{})} }

func (s *stuck) ReadAt([]byte, uint64) error  { return s.access() }
func (s *stuck) WriteAt([]byte, uint64) error { return s.access() }
func (s *stuck) Close()                       {}

func (s *stuck) access() error {
	s.reached <- struct{}{}
	<-s.release
	return errors.New("not answered")
}

// running makes a device that runs until the test ends.
func running(t testing.TB, cfg Config) *Device {
	t.Helper()
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// power starts a device without a transport; its memory at 0x10000 is m.
func power(t testing.TB, m iova.Memory) *Device {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Memory.Size = 1 << 20
	d := running(t, cfg)
	if err := d.MapDMA(0x10000, 0x10000, iova.Read|iova.Write, m); err != nil {
		t.Fatal(err)
	}
	command(t, d, 6)
	return d
}

func command(t testing.TB, d *Device, v uint16) {
	t.Helper()
	if err := d.WriteRegion(vfiouser.RegionConfig, 4, binary.LittleEndian.AppendUint16(nil, v)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, d *Device, off uint64) uint32 {
	t.Helper()
	var p [4]byte
	if err := d.ReadRegion(vfiouser.RegionBAR0, off, p[:]); err != nil {
		t.Fatal(err)
	}
	return binary.LittleEndian.Uint32(p[:])
}

func write(t *testing.T, d *Device, off uint64, v uint32) {
	t.Helper()
	if err := d.WriteRegion(vfiouser.RegionBAR0, off, binary.LittleEndian.AppendUint32(nil, v)); err != nil {
		t.Fatal(err)
	}
}

// findingCounts returns the counts by ID.
func findingCounts(d *Device) map[string]uint64 {
	m := map[string]uint64{}
	for _, f := range d.Findings() {
		m[f.ID] = f.Count
	}
	return m
}

// boot starts the image at addr.
func boot(t *testing.T, d *Device, addr, size uint32) {
	t.Helper()
	write(t, d, npureg.ImageAddrLo, addr)
	write(t, d, npureg.ImageSize, size)
	write(t, d, npureg.BootControl, npureg.BootControlStart)
}

// fetchFrom makes the queue engine fetch an entry from addr.
func fetchFrom(d *Device, addr iova.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queues.EnableLocked(1, queue.Config{SQ: addr, CQ: addr, SQEntries: 4, CQEntries: 4})
	d.queues.RingSQLocked(1, 1)
}

// A reset of an idle device is over at once: no driver sees RESETTING, and no
// goroutine is left behind.
func TestResetOfAnIdleDevice(t *testing.T) {
	d := power(t, newStuck())
	before := runtime.NumGoroutine()
	for range 1000 {
		write(t, d, npureg.DeviceControl, npureg.DeviceControlReset)
		if s := read(t, d, npureg.DeviceStatus); s != 0 {
			t.Fatalf("DEVICE_STATUS %#x right after the reset of an idle device, want 0", s)
		}
	}
	if n := runtime.NumGoroutine(); n > before+2 { // Run's own two may start meanwhile
		t.Errorf("%d goroutines after 1000 resets, %d before", n, before)
	}
}

// While an access to the bus is not answered, resets do not wait for it, and are
// not over before it has ended, however many they are (§9.4).
func TestResetWaitsForTheBus(t *testing.T) {
	for _, tt := range []struct {
		name  string
		start func(t *testing.T, d *Device)
		n     int // accesses that get stuck
	}{
		{"mover", func(t *testing.T, d *Device) { boot(t, d, 0x10000, 4096) }, 1},
		{"queue", func(t *testing.T, d *Device) { fetchFrom(d, 0x10000) }, 1},
		{"both", func(t *testing.T, d *Device) { boot(t, d, 0x10000, 4096); fetchFrom(d, 0x10000) }, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newStuck()
			d := power(t, m)
			tt.start(t, d)
			for range tt.n {
				<-m.reached
			}
			write(t, d, npureg.DeviceControl, npureg.DeviceControlReset)
			for range 3 { // resets in a reset
				if err := d.Reset(); err != nil {
					t.Fatal(err)
				}
				command(t, d, 6)
			}
			if s := read(t, d, npureg.DeviceStatus); s != npureg.DeviceStatusResetting {
				t.Errorf("DEVICE_STATUS %#x, want RESETTING", s)
			}
			write(t, d, npureg.IRQEnable, npureg.IRQAll)
			write(t, d, npureg.DoorbellBase+npureg.DoorbellStride, 1)
			if id := read(t, d, npureg.ID); id != ^uint32(0) {
				t.Errorf("ID %#x, want all-ones", id)
			}
			if f := findingCounts(d); f["bar0-resetting"] != 3 || f["fault-QUEUE_DISABLED"] != 0 {
				t.Errorf("findings %v, want three of bar0-resetting", f)
			}
			close(m.release)
			for end := time.Now().Add(10 * time.Second); read(t, d, npureg.DeviceStatus) != 0; {
				if time.Now().After(end) {
					t.Fatal("the reset does not end")
				}
			}
			for _, r := range []struct {
				off  uint64
				want uint32
			}{{npureg.BootStatus, npureg.BootWaiting}, {npureg.IRQEnable, 0}, {npureg.FaultStatus, 0}, {npureg.IRQStatus, 0}} {
				if got := read(t, d, r.off); got != r.want {
					t.Errorf("register %#x is %#x after the reset, want %#x", r.off, got, r.want)
				}
			}
		})
	}
}

// Firmware may report any of 65536 fault codes; the operator's list does not
// grow with them.
func TestFaultCodesOfFirmware(t *testing.T) {
	d := power(t, newStuck())
	d.mu.Lock()
	for code := range 1 << 16 {
		host{d}.Fault(firmware.Fault{Code: npureg.Status(code), Source: npureg.FaultCP})
	}
	d.mu.Unlock()
	f := findingCounts(d)
	if want := len(npureg.Statuses()) + 1; len(f) != want || f["fault-UNKNOWN"] == 0 {
		t.Errorf("%d kinds of findings, want %d", len(f), want)
	}
}

// OVERFLOW stays until it is cleared, also over the next record (§9.3).
func TestFaultOverflowStays(t *testing.T) {
	d := power(t, newStuck())
	ring := func() { write(t, d, npureg.DoorbellBase+npureg.DoorbellStride, 1) }
	ring()
	ring()
	write(t, d, npureg.FaultStatus, npureg.FaultValid)
	ring()
	want := npureg.FaultValid | npureg.FaultOverflow | uint32(npureg.StatusQueueDisabled)<<16
	if got := read(t, d, npureg.FaultStatus); got != want {
		t.Errorf("FAULT_STATUS %#x, want %#x", got, want)
	}
}
