// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"npuemu/mmio/npureg"
	"npuemu/queue"
	"npuemu/tests/virtiotest"
	"npuemu/vdev/vhostuser"
)

// newParavirt is a guest with admin and event virtqueues, READY.
func newParavirt(t *testing.T, change func(*Config)) (*Device, *virtiotest.Front, *virtiotest.Queue, *virtiotest.Queue) {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Memory.Size = 1 << 20
	cfg.Queues.Count = 2
	change(&cfg)
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	v := NewParavirt(d)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { d.Run(ctx); done <- struct{}{} }()
	go func() { v.Run(ctx); done <- struct{}{} }()
	t.Cleanup(func() {
		cancel()
		<-done
		<-done
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	f := virtiotest.Dial(t, virtiotest.Serve(t, vhostuser.Config{}, v))
	f.Negotiate(virtiotest.Version1 | virtiotest.EventIndex)
	admin, event := f.Start(0, 16), f.Start(1, 256)
	admin.Request(append([]byte{npureg.AdminCreateContext}, make([]byte, 63)...), 32)
	return d, f, admin, event
}

// locked runs what only the device's own blocks do.
func (d *Device) locked(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

func TestParavirtEvents(t *testing.T) {
	d, f, _, q := newParavirt(t, func(*Config) {})
	le := binary.LittleEndian
	var bufs [][]byte
	post := func(size int) {
		addr, p := f.Alloc(size)
		bufs = append(bufs, p)
		q.Add(virtiotest.Desc{Addr: addr, Len: uint32(size), Flags: virtiotest.Write})
		q.Kick.Signal()
	}
	next := func() (event []byte, written uint32) {
		t.Helper()
		_, n, ok := q.Await(virtiotest.Timeout)
		if !ok {
			t.Fatal("no event")
		}
		event, bufs = bufs[0], bufs[1:]
		return event, n
	}
	fault := queue.Fault{Code: npureg.StatusWatchdog, Queue: 2, Source: npureg.FaultCP, Index: 5, Addr: 0x1234_5678_9abc}
	post(31)
	post(64)
	d.locked(func() { d.faultLocked(fault) })
	if _, n := next(); n != 0 {
		t.Errorf("a buffer of 31 bytes got %d", n)
	}
	e, n := next()
	if n != 32 || le.Uint16(e) != 1 || le.Uint16(e[2:]) != 0 || npureg.Status(le.Uint16(e[4:])) != npureg.StatusWatchdog ||
		le.Uint32(e[8:]) != 2|npureg.FaultCP<<8|5<<16 || le.Uint64(e[0x10:]) != uint64(fault.Addr) {
		t.Errorf("event of %d bytes: %x", n, e)
	}
	post(32)
	d.locked(func() { d.causeLocked(npureg.IRQFirmware) })
	if e, _ := next(); le.Uint16(e) != 2 {
		t.Errorf("event %x, want FIRMWARE", e)
	}

	// Nobody takes them: 64 wait, six are lost.
	for i := range 70 {
		d.locked(func() { d.faultLocked(fault) })
		for end := time.Now().Add(virtiotest.Timeout); ; time.Sleep(10 * time.Microsecond) {
			var taken bool
			d.locked(func() { taken = d.bar0.Value(npureg.FaultStatus)&npureg.FaultValid == 0 })
			if taken {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("fault record %d is not read", i)
			}
		}
	}
	for range 64 {
		post(32)
		if e, _ := next(); le.Uint16(e) != 1 || le.Uint16(e[2:]) != 0 {
			t.Fatalf("event %x", e)
		}
	}
	post(32)
	d.locked(func() { d.faultLocked(fault) })
	if e, _ := next(); le.Uint16(e[2:]) != 6 {
		t.Errorf("%d events lost, want 6", le.Uint16(e[2:]))
	}
}

func TestParavirtFirmwareDies(t *testing.T) {
	d, f, admin, _ := newParavirt(t, func(*Config) {})
	le := binary.LittleEndian
	d.locked(func() {
		host{d}.SetRegister(npureg.BootStatus, npureg.BootFailed|npureg.BootErrWatchdog<<8)
		d.causeLocked(npureg.IRQBoot)
	})
	for end := time.Now().Add(virtiotest.Timeout); ; time.Sleep(time.Millisecond) {
		got := le.Uint32(f.Config(VirtioConfigSize)[0x40:])
		if got == virtioFailed|npureg.BootErrWatchdog<<8 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("status %#x, want FAILED with WATCHDOG", got)
		}
	}
	a := admin.Request(append([]byte{npureg.AdminCreateContext}, make([]byte, 63)...), 32)
	if s := npureg.Status(le.Uint16(a[0x1e:]) >> 1); s != npureg.StatusFirmwareTrap {
		t.Errorf("status %v, want FIRMWARE_TRAP", s)
	}
	f.Do(virtiotest.ResetDevice, nil)
	admin = f.Start(0, 16)
	if a := admin.Request(append([]byte{npureg.AdminCreateContext}, make([]byte, 63)...), 32); le.Uint16(a[0x1e:]) != 0 {
		t.Errorf("after a reset: %x", a)
	}
}

// TestParavirtPlain: what a card has of PCI does not matter to virtio, and the window may be
// missing.
func TestParavirtPlain(t *testing.T) {
	_, f, admin, _ := newParavirt(t, func(c *Config) {
		c.PCI.MSIX, c.PCI.MSI, c.Memory.Window = false, false, false
	})
	if b := f.Ask(virtiotest.GetShmemConfig, nil); binary.LittleEndian.Uint32(b) != 0 {
		t.Errorf("GET_SHMEM_CONFIG %x, want no window", b)
	}
	a := admin.Request(append([]byte{npureg.AdminCreateContext}, make([]byte, 63)...), 32)
	if binary.LittleEndian.Uint16(a[0x1e:]) != 0 || binary.LittleEndian.Uint32(a) != 2 {
		t.Errorf("CREATE_CONTEXT: %x", a)
	}
}
