// SPDX-License-Identifier: Apache-2.0

//go:build linux

package accel

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A Placement is where a buffer lives.
type Placement uint32

const (
	// DeviceMemory is the device's own. It is mapped write-combining: write it in order, and avoid reading it.
	DeviceMemory Placement = 1
	// SystemMemory is the host's, reached by DMA. It is mapped cached.
	SystemMemory Placement = 2
)

// A Buffer is memory that jobs can use.
type Buffer struct {
	d      *Device
	handle uint32
	size   uint64
	offset uint64   // to map at, or 0
	file   *os.File // of an imported one: its dma-buf, to map
	mem    []byte
}

// NewBuffer makes a buffer of at least size bytes, all 0. Errors: EINVAL, ENOSPC
// (device memory is full), ENOMEM.
func (d *Device) NewBuffer(p Placement, size int) (*Buffer, error) {
	c := boCreate{Size: uint64(size), Placement: p}
	if err := call(d, reqNPUBOCreate, &c); err != nil {
		return nil, fmt.Errorf("accel: make buffer of %d bytes: %w", size, err)
	}
	d.hold(c.Handle)
	return &Buffer{d: d, handle: c.Handle, size: c.Size, offset: c.MmapOffset}, nil
}

// name is the buffer in a command; 0 for none.
func (b *Buffer) name() uint32 {
	if b == nil {
		return 0
	}
	return b.handle
}

// virtual is the flag of a command that names memory so.
func (b *Buffer) virtual() uint32 {
	if b == nil {
		return commandVA
	}
	return 0
}

// Size returns the buffer's size: that asked for, rounded up to whole pages.
func (b *Buffer) Size() int { return int(b.size) }

// Map returns the buffer's memory, mapped until Close. Device memory may have no window
// to it: then the error is ENXIO, and copies from and to SystemMemory move its data.
func (b *Buffer) Map() ([]byte, error) {
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	if b.mem != nil {
		return b.mem, nil
	}
	fd := b.d.fd
	if b.file != nil {
		fd = int(b.file.Fd())
	} else if b.offset == 0 {
		return nil, fmt.Errorf("accel: map buffer: the host has no window to device memory, copy to system memory instead: %w", unix.ENXIO)
	}
	mem, err := unix.Mmap(fd, int64(b.offset), int(b.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("accel: map buffer of %d bytes: %w", b.size, err)
	}
	b.mem = mem
	return mem, nil
}

// Export returns a new dma-buf of the buffer, for Import, another driver or
// another process. It is the caller's to close.
func (b *Buffer) Export() (*os.File, error) {
	p := primeHandle{Handle: b.handle, Flags: unix.O_CLOEXEC | unix.O_RDWR}
	if err := call(b.d, reqHandleToFD, &p); err != nil {
		return nil, fmt.Errorf("accel: export buffer: %w", err)
	}
	return os.NewFile(uintptr(p.FD), "dma-buf"), nil
}

// Import makes a buffer of a dma-buf; the file stays the caller's. EINVAL: it is none,
// or not contiguous on the bus.
func (d *Device) Import(f *os.File) (*Buffer, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("accel: import buffer: %w", err)
	}
	b := &Buffer{d: d, file: os.NewFile(uintptr(fd), "dma-buf")}
	size, err := unix.Seek(fd, 0, 2)
	p := primeHandle{FD: int32(fd)}
	if err == nil {
		d.mu.Lock() // or Close of the same handle comes between
		if err = call(d, reqFDToHandle, &p); err == nil {
			d.handles[p.Handle]++
		}
		d.mu.Unlock()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("accel: import buffer: %w", err), b.file.Close())
	}
	b.handle, b.size = p.Handle, uint64(size)
	return b, nil
}

// Close unmaps the buffer and gives it back; jobs that use it keep its memory until they have ended.
func (b *Buffer) Close() error {
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	var errs []error
	if b.mem != nil {
		errs = append(errs, unix.Munmap(b.mem))
		b.mem = nil
	}
	if b.file != nil {
		errs = append(errs, b.file.Close())
		b.file = nil
	}
	if b.handle != 0 {
		if b.d.handles[b.handle]--; b.d.handles[b.handle] == 0 {
			delete(b.d.handles, b.handle)
			errs = append(errs, call(b.d, reqGEMClose, &gemClose{Handle: b.handle}))
		}
		b.handle = 0
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("accel: close buffer: %w", err)
	}
	return nil
}

func (d *Device) hold(handle uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.handles[handle]++
}
