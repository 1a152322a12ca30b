// SPDX-License-Identifier: Apache-2.0

//go:build linux

package local_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
	"npuemu/vdev/local"
	"npuemu/vdev/vfiouser"
)

// fake is a device of two regions and two vectors that writes down what it is asked.
// Region 0 is 16 bytes of memory; region 1 is 8 bytes that can only be read.
type fake struct {
	mem     [16]byte
	vectors [2]*eventfd.FD
	bus     iova.Table
	log     []string
}

func (f *fake) note(format string, args ...any) { f.log = append(f.log, fmt.Sprintf(format, args...)) }

func (f *fake) Regions() []vfiouser.Region {
	r := make([]vfiouser.Region, vfiouser.NumRegions)
	r[0] = vfiouser.Region{Size: 16, Flags: vfiouser.RegionRead | vfiouser.RegionWrite}
	r[1] = vfiouser.Region{Size: 8, Flags: vfiouser.RegionRead}
	return r
}

func (f *fake) IRQs() []vfiouser.IRQ {
	q := make([]vfiouser.IRQ, vfiouser.NumIRQs)
	q[vfiouser.IRQMSIX] = vfiouser.IRQ{Count: 2, Flags: vfiouser.IRQEventfd | vfiouser.IRQMaskable}
	q[vfiouser.IRQErr] = vfiouser.IRQ{Count: 1, Flags: vfiouser.IRQEventfd}
	return q
}

func (f *fake) ReadRegion(_ int, off uint64, p []byte) error {
	copy(p, f.mem[off:])
	f.note("read")
	return nil
}

func (f *fake) WriteRegion(_ int, off uint64, p []byte) error {
	copy(f.mem[off:], p)
	f.note("write")
	return nil
}

func (f *fake) SetVector(index, vector int, fd *eventfd.FD) {
	f.note("vector %d %d %v", index, vector, fd != nil)
	if index != vfiouser.IRQMSIX {
		return
	}
	if old := f.vectors[vector]; old != nil {
		old.Close()
	}
	f.vectors[vector] = fd
}

func (f *fake) TriggerVector(int, int)                  {}
func (f *fake) MaskVector(index, vector int, mask bool) { f.note("mask %d %d %v", index, vector, mask) }

func (f *fake) MapDMA(addr iova.Addr, size uint64, prot iova.Prot, mem iova.Memory) error {
	return f.bus.Map(addr, size, prot, mem)
}
func (f *fake) UnmapDMA(addr iova.Addr, size uint64) error { return f.bus.Unmap(addr, size) }
func (f *fake) UnmapAllDMA()                               { f.note("unmap all"); f.bus.UnmapAll() }
func (f *fake) Reset() error                               { f.note("reset"); return nil }
func (f *fake) Detach()                                    { f.note("detach") }

// memfile is a file of size bytes in memory.
func memfile(t *testing.T, size int64) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "test")
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestRefusals: what vfiouser.Server refuses never reaches the device.
func TestRefusals(t *testing.T) {
	f := new(fake)
	c := local.Attach(f)
	file := memfile(t, 4096)
	readOnly, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	fd, err := eventfd.New()
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	const rw = iova.Read | iova.Write
	if err := c.MapDMA(0x1000, 4096, rw, file, 0); err != nil {
		t.Fatal(err)
	}
	region := func(i int) error { _, err := c.RegionInfo(i); return err }
	irq := func(i int) error { _, err := c.IRQInfo(i); return err }
	for _, tt := range []struct {
		name string
		err  error
	}{
		{"read past the end", c.ReadRegion(0, 13, make([]byte, 4))},
		{"read far past the end", c.ReadRegion(0, ^uint64(0), make([]byte, 4))},
		{"read of a region that is not there", c.ReadRegion(2, 0, make([]byte, 1))},
		{"read of a region beyond all", c.ReadRegion(vfiouser.NumRegions, 0, nil)},
		{"read of region -1", c.ReadRegion(-1, 0, nil)},
		{"write past the end", c.WriteRegion(0, 16, make([]byte, 1))},
		{"write to what is only read", c.WriteRegion(1, 0, make([]byte, 1))},
		{"description of region 9", region(vfiouser.NumRegions)},
		{"description of interrupt type 5", irq(vfiouser.NumIRQs)},
		{"vector 2", c.SetVectors(vfiouser.IRQMSIX, 2, fd)},
		{"vector -1", c.SetVectors(vfiouser.IRQMSIX, -1, fd)},
		{"vectors 1 and 2", c.SetVectors(vfiouser.IRQMSIX, 1, fd, fd)},
		{"vector of a type that is not there", c.SetVectors(vfiouser.IRQINTx, 0, fd)},
		{"vector of type 7", c.SetVectors(7, 0, fd)},
		{"mask of vector 2", c.MaskVector(vfiouser.IRQMSIX, 2, true)},
		{"mask of a type that cannot", c.MaskVector(vfiouser.IRQErr, 0, true)},
		{"map of nothing", c.MapDMA(0x10000, 0, rw, file, 0)},
		{"map past the end of the file", c.MapDMA(0x10000, 4097, rw, file, 0)},
		{"map far past the end of the file", c.MapDMA(0x10000, 4096, rw, file, 1<<63)},
		{"map without protection", c.MapDMA(0x10000, 4096, 0, file, 0)},
		{"map with a strange protection", c.MapMemory(0x10000, 4096, 4, iova.NewBytes(make([]byte, 4096)))},
		{"map over a mapping", c.MapDMA(0x1800, 4096, rw, file, 0)},
		{"map past 2^64", c.MapDMA(^iova.Addr(0), 4096, rw, file, 0)},
		{"writable map of what is only read", c.MapDMA(0x10000, 4096, rw, readOnly, 0)},
		{"unmap of a part", c.UnmapDMA(0x1000, 1)},
		{"unmap of nothing", c.UnmapDMA(0x1000, 0)},
	} {
		if tt.err == nil {
			t.Errorf("%s: done", tt.name)
		} else if s := tt.err.Error(); !strings.Contains(s, ":") {
			t.Errorf("%s: %q does not say who and what", tt.name, s)
		}
	}
	if f.log != nil {
		t.Errorf("the device was asked to %q", f.log)
	}
	if n := f.bus.Len(); n != 1 {
		t.Errorf("%d mappings, want the first", n)
	}
	c.Close()
}

// TestSharing: both sides see one memory, and each other's interrupts.
func TestSharing(t *testing.T) {
	f := new(fake)
	c := local.Attach(f)
	file := memfile(t, 8192)
	host, err := unix.Mmap(int(file.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(host) }()
	if err := c.MapDMA(0x1000, 4096, iova.Read|iova.Write, file, 4096); err != nil {
		t.Fatal(err)
	}
	copy(host[4096+10:], "to the device")
	p := make([]byte, 13)
	if err := f.bus.Read(0x1000+10, p); err != nil || string(p) != "to the device" {
		t.Errorf("device reads %q, %v", p, err)
	}
	if err := f.bus.Write(0x2000-4, []byte("host")); err != nil || !bytes.HasSuffix(host, []byte("host")) {
		t.Errorf("host reads % x, %v", host[8188:], err)
	}

	fd, err := eventfd.New()
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	if err := c.SetVectors(vfiouser.IRQMSIX, 1, fd); err != nil {
		t.Fatal(err)
	}
	f.vectors[1].Signal()
	if fd.Wait(time.Second) != 1 {
		t.Error("no interrupt")
	}

	if err := c.WriteRegion(0, 4, []byte{1, 2}); err != nil {
		t.Error(err)
	}
	if err := c.ReadRegion(0, 4, p[:2]); err != nil || !bytes.Equal(p[:2], []byte{1, 2}) {
		t.Errorf("read % x, %v", p[:2], err)
	}
	if err := errors.Join(c.MaskVector(vfiouser.IRQMSIX, 1, true), c.Reset(), c.UnmapDMA(0x1000, 4096)); err != nil {
		t.Error(err)
	}
	c.Close()
	c.Close()
	want := []string{"vector 2 1 true", "write", "read", "mask 2 1 true", "reset", "detach", "vector 2 0 false", "vector 2 1 false", "vector 3 0 false", "unmap all"}
	if got := fmt.Sprint(f.log); got != fmt.Sprint(want) {
		t.Errorf("the device was asked to\n%v, want\n%v", got, want)
	}
	for name, err := range map[string]error{"read": c.ReadRegion(0, 0, p[:1]), "map": c.MapDMA(0, 4096, iova.Read, file, 0), "reset": c.Reset(), "vector": c.SetVectors(vfiouser.IRQMSIX, 0, fd)} {
		if !errors.Is(err, local.ErrClosed) {
			t.Errorf("%s after Close: %v, want ErrClosed", name, err)
		}
	}
}
