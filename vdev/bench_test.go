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
	"npuemu/vdev/pci"
	"npuemu/vdev/vfiouser"
)

// stamped is an eventfd that adds up how long after start it could be read.
type stamped struct {
	*eventfd.FD
	start time.Time
	took  time.Duration
}

func (s *stamped) Signal() {
	s.FD.Signal()
	s.took += time.Since(s.start)
}

// clock is a Signaler that does nothing else.
type clock stamped

func (c *clock) Signal() { c.took += time.Since(c.start) }

// BenchmarkInterrupt measures the way from a completion entry in memory to an eventfd
// that can be read, in turns with a bare write to such an eventfd. What the clock costs is
// taken off both.
func BenchmarkInterrupt(b *testing.B) {
	d := power(b, iova.NewBytes(make([]byte, 0x10000)))
	peer, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK) // as QEMU passes them
	if err != nil {
		b.Fatal(err)
	}
	fd, err := eventfd.Adopt(peer)
	if err != nil {
		b.Fatal(err)
	}
	defer fd.Close()
	s := &stamped{FD: fd}
	d.fn.MSIX().SetVector(1, s)
	bare, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(bare)
	const turn = 1000
	one := uint64(1)
	none := &clock{}
	var idle pci.Signaler = none
	var written time.Duration
	n := 0
	for b.Loop() {
		for range turn {
			none.start = time.Now()
			idle.Signal()
		}
		for range turn {
			start := time.Now()
			if _, _, errno := syscall.RawSyscall(unix.SYS_WRITE, uintptr(bare), uintptr(unsafe.Pointer(&one)), 8); errno != 0 {
				b.Fatal(errno)
			}
			written += time.Since(start)
		}
		for range turn {
			s.start = time.Now()
			d.mu.Lock()
			board{d}.InterruptLocked(1)
			board{d}.CompletedLocked(&queue.Completion{})
			d.mu.Unlock()
		}
		n += turn
	}
	if got := fd.Wait(0); got != uint64(n) {
		b.Fatalf("the eventfd counts %d of %d completions", got, n)
	}
	written -= none.took
	posted := s.took - none.took
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
