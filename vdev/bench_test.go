// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"encoding/binary"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
	"npuemu/mmio/npureg"
	"npuemu/queue"
	"npuemu/vdev/vfiouser"
)

// BenchmarkInterrupt measures the way from a completion entry in memory to an eventfd
// that can be read, in turns with a bare write to such an eventfd.
func BenchmarkInterrupt(b *testing.B) {
	d := power(b, iova.NewBytes(make([]byte, 0x10000)))
	fd, err := eventfd.New()
	if err != nil {
		b.Fatal(err)
	}
	d.SetVector(vfiouser.IRQMSIX, 1, fd) // the device's from now on
	bare, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(bare)
	const turn = 1000
	one := uint64(1)
	var written, posted time.Duration
	n := 0
	for b.Loop() {
		start := time.Now()
		for range turn {
			if _, _, errno := syscall.RawSyscall(unix.SYS_WRITE, uintptr(bare), uintptr(unsafe.Pointer(&one)), 8); errno != 0 {
				b.Fatal(errno)
			}
		}
		middle := time.Now()
		for range turn {
			d.mu.Lock()
			board{d}.CompletedLocked(1, queue.Completion{})
			d.mu.Unlock()
		}
		written += middle.Sub(start)
		posted += time.Since(middle)
		n += turn
	}
	if got := fd.Wait(0); got != uint64(n) {
		b.Fatalf("the eventfd counts %d of %d completions", got, n)
	}
	b.ReportMetric(0, "ns/op") // of a turn, which nobody wants to know
	b.ReportMetric(float64(written.Nanoseconds())/float64(n), "bare-ns")
	b.ReportMetric(float64(posted.Nanoseconds())/float64(n), "completion-ns")
	b.ReportMetric(float64(posted)/float64(written), "ratio")
}

// TestRegistersAllocateNothing counts what a register access of a client allocates in the device.
func TestRegistersAllocateNothing(t *testing.T) {
	d := power(t, iova.NewBytes(make([]byte, 0x10000)))
	p := make([]byte, 4)
	for name, access := range map[string]func() error{
		"register read":     func() error { return d.ReadRegion(vfiouser.RegionBAR0, 0, p) },
		"register write":    func() error { return d.WriteRegion(vfiouser.RegionBAR0, npureg.ImageAddrLo, p) },
		"configuration":     func() error { return d.ReadRegion(vfiouser.RegionConfig, 0, p) },
		"device memory":     func() error { return d.WriteRegion(vfiouser.RegionBAR0+2, 64, p) },
		"interrupt vectors": func() error { return d.ReadRegion(vfiouser.RegionBAR0+4, 0, p) },
	} {
		binary.LittleEndian.PutUint32(p, 0)
		if n := testing.AllocsPerRun(1000, func() {
			if err := access(); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
