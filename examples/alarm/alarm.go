// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package alarm is a small PCI function that uses everything package vfiouser
// has for a device: registers, memory that the client maps, an interrupt, DMA
// through mappings and by messages, a log of written pages, and migration. It
// has the shape of libvfio-user's sample server, so that libvfio-user's sample
// client can judge it (README.md).
//
// BAR0 is one register of 8 bytes, accessed as a whole. A write sets the alarm,
// in seconds since 1970, host byte order; 0 is none. A read gives the seconds
// since then. BAR1 is memory. When the alarm comes, the function raises INTx, and
// then writes 4 KiB to each of the first two ranges that the host mapped, and
// reads it back: to the second through its mapping, to the first by messages.
//
// It is no function for a VMM: its BARs have sizes that PCI does not know, and
// cannot be sized.
package alarm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
	"npuemu/vdev/vfiouser"
)

const (
	clockSize  = 8
	memorySize = 0x3000
	configSize = 256

	// StateSize is the size of the state that migrates: BAR1, then BAR0.
	StateSize = memorySize + clockSize

	pieces    = 4    // of DMA at an alarm, in each range and direction
	pieceSize = 1024 // bytes
)

// errBusy is what refuses to stop the device while it does the DMA of an alarm,
// which can take as long as the client takes to answer.
var errBusy = fmt.Errorf("alarm: DMA is under way: %w", unix.EBUSY)

// extent is a range that the host mapped; size 0 is a free place.
type extent struct {
	addr iova.Addr
	size uint64
}

// Device is the function. It implements vfiouser's Backend, Migrator, DMALogger
// and Messenger.
type Device struct {
	log    *slog.Logger
	table  iova.Table
	file   *os.File // BAR1
	memory []byte   // mapping of file, shared with the client
	config [configSize]byte

	mu     sync.Mutex // guards what follows; not held during DMA
	alarm  int64
	timer  *time.Timer // nil while no alarm can come
	epoch  uint        // what was armed or began in an earlier one does no more DMA
	busy   bool        // an alarm's DMA is under way
	idle   *sync.Cond  // busy became false
	bus    iova.Memory // by messages
	ranges []extent    // each in the first place that was free
	lines  [vfiouser.NumIRQs]*eventfd.FD
	state  vfiouser.MigrationState
	stream []byte // saving: what is still to be read; RESUMING: what came
}

// New makes the function. Close gives its memory back.
func New(log *slog.Logger) (*Device, error) {
	fd, err := unix.MemfdCreate("alarm", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("alarm: memory: %w", err)
	}
	d := &Device{log: log, file: os.NewFile(uintptr(fd), "alarm"), state: vfiouser.MigrationRunning}
	d.idle = sync.NewCond(&d.mu)
	err = d.file.Truncate(memorySize)
	if err == nil {
		_, err = unix.FcntlInt(d.file.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW)
	}
	if err == nil {
		d.memory, err = unix.Mmap(fd, 0, memorySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		d.file.Close()
		return nil, fmt.Errorf("alarm: memory: %w", err)
	}
	le := binary.LittleEndian
	le.PutUint16(d.config[0x00:], 0xdead) // vendor
	le.PutUint16(d.config[0x02:], 0xbeef) // device
	le.PutUint32(d.config[0x08:], 0x080300<<8)
	le.PutUint16(d.config[0x2c:], 0xcafe) // subsystem vendor
	le.PutUint16(d.config[0x2e:], 0xbabe) // subsystem
	d.config[0x3d] = 1                    // INTA
	return d, nil
}

// Close frees the memory. Nobody serves the function any more.
func (d *Device) Close() error {
	return errors.Join(unix.Munmap(d.memory), d.file.Close())
}

// Regions describes BAR0, BAR1 and config space. The middle page of BAR1 is
// reached by messages only.
func (d *Device) Regions() []vfiouser.Region {
	const rw = vfiouser.RegionRead | vfiouser.RegionWrite
	r := make([]vfiouser.Region, vfiouser.NumRegions)
	r[vfiouser.RegionBAR0] = vfiouser.Region{Size: clockSize, Flags: rw}
	r[vfiouser.RegionBAR0+1] = vfiouser.Region{
		Size: memorySize, Flags: rw | vfiouser.RegionMmap, File: d.file,
		Areas: []vfiouser.Area{{Off: 0, Size: 0x1000}, {Off: 0x2000, Size: 0x1000}},
	}
	r[vfiouser.RegionConfig] = vfiouser.Region{Size: configSize, Flags: rw}
	return r
}

// IRQs describes INTx, which tells of an event and is not masked, and the two that a
// host may expect: nothing but the host itself raises them.
func (d *Device) IRQs() []vfiouser.IRQ {
	irqs := make([]vfiouser.IRQ, vfiouser.NumIRQs)
	for _, i := range []int{vfiouser.IRQINTx, vfiouser.IRQErr, vfiouser.IRQReq} {
		irqs[i] = vfiouser.IRQ{Count: 1, Flags: vfiouser.IRQEventfd}
	}
	return irqs
}

// errAccess refuses a part of the clock.
var errAccess = errors.New("alarm: BAR0 is accessed as 8 bytes at 0")

// ReadRegion reads.
func (d *Device) ReadRegion(index int, off uint64, p []byte) error {
	switch index {
	case vfiouser.RegionBAR0:
		if len(p) != clockSize {
			return errAccess
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		binary.NativeEndian.PutUint64(p, uint64(time.Now().Unix()-d.alarm))
	case vfiouser.RegionBAR0 + 1:
		copy(p, d.memory[off:])
	case vfiouser.RegionConfig:
		copy(p, d.config[off:])
	}
	return nil
}

// WriteRegion writes. In config space the command register's enables and the
// interrupt line can be written.
func (d *Device) WriteRegion(index int, off uint64, p []byte) error {
	switch index {
	case vfiouser.RegionBAR0:
		if len(p) != clockSize {
			return errAccess
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.alarm = int64(binary.NativeEndian.Uint64(p))
		d.disarmLocked()
		if running(d.state) {
			d.armLocked()
		}
	case vfiouser.RegionBAR0 + 1:
		copy(d.memory[off:], p)
	case vfiouser.RegionConfig:
		writable := map[uint64]byte{0x04: 0x07, 0x05: 0x04, 0x3c: 0xff}
		for i, b := range p {
			at := off + uint64(i)
			d.config[at] = d.config[at]&^writable[at] | b&writable[at]
		}
	}
	return nil
}

// SetVector attaches or detaches an interrupt's eventfd.
func (d *Device) SetVector(index, _ int, fd *eventfd.FD) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if old := d.lines[index]; old != nil {
		old.Close()
	}
	d.lines[index] = fd
}

// TriggerVector raises an interrupt.
func (d *Device) TriggerVector(index, _ int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.raiseLocked(index)
}

func (d *Device) raiseLocked(index int) {
	if fd := d.lines[index]; fd != nil {
		fd.Signal()
	}
}

// MaskVector is never called: nothing is maskable.
func (d *Device) MaskVector(_, _ int, _ bool) {}

// MapDMA adds a range.
func (d *Device) MapDMA(addr iova.Addr, size uint64, prot iova.Prot, mem iova.Memory) error {
	if err := d.table.Map(addr, size, prot, mem); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.ranges {
		if d.ranges[i].size == 0 {
			d.ranges[i] = extent{addr, size}
			return nil
		}
	}
	d.ranges = append(d.ranges, extent{addr, size})
	return nil
}

// UnmapDMA removes the ranges inside [addr, addr+size).
func (d *Device) UnmapDMA(addr iova.Addr, size uint64) error {
	if err := d.table.Unmap(addr, size); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, r := range d.ranges {
		if r.addr >= addr && uint64(r.addr-addr) < size {
			d.ranges[i] = extent{}
		}
	}
	return nil
}

// UnmapAllDMA removes every range.
func (d *Device) UnmapAllDMA() {
	d.table.UnmapAll()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log.Debug("no range is mapped any more")
	d.ranges = nil
}

// DMATable is the table behind MapDMA.
func (d *Device) DMATable() *iova.Table { return &d.table }

// UseMessages takes the bus of a new client.
func (d *Device) UseMessages(bus iova.Memory) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bus = bus
}

// Reset clears the alarm and lets the function run. DMA under way ends with its
// present piece. Memory keeps its content.
func (d *Device) Reset() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.resetLocked()
	return nil
}

func (d *Device) resetLocked() {
	d.disarmLocked()
	d.alarm = 0
	d.state = vfiouser.MigrationRunning
	d.stream = nil
}

// Detach is a Reset that waits for DMA under way, whose messages fail by now.
func (d *Device) Detach() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.resetLocked()
	for d.busy {
		d.idle.Wait()
	}
	d.bus = nil
}

// running reports whether alarms come in a state.
func running(s vfiouser.MigrationState) bool {
	return s == vfiouser.MigrationRunning || s == vfiouser.MigrationPreCopy
}

// armLocked starts the timer of an alarm that is set. One whose time has passed
// comes at once.
func (d *Device) armLocked() {
	if d.alarm == 0 {
		return
	}
	epoch := d.epoch
	d.timer = time.AfterFunc(time.Until(time.Unix(d.alarm, 0)), func() { d.ring(epoch) })
	d.log.Debug("alarm set", "at", d.alarm)
}

// disarmLocked stops the timer and the DMA of an alarm that came.
func (d *Device) disarmLocked() {
	d.epoch++
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

// ring is the alarm.
func (d *Device) ring(epoch uint) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if epoch != d.epoch {
		return
	}
	if d.busy {
		d.log.Warn("alarm without DMA: that of the one before is still under way")
		d.raiseLocked(vfiouser.IRQINTx)
		return
	}
	d.timer = nil
	d.busy = true
	d.raiseLocked(vfiouser.IRQINTx)
	if len(d.ranges) > 1 {
		r := d.ranges[1]
		d.dmaLocked(epoch, "mapping", r, func(p []byte, at iova.Addr) error { return d.table.Write(at, p) },
			func(p []byte, at iova.Addr) error { return d.table.Read(at, p) })
	}
	if bus := d.bus; len(d.ranges) > 0 && bus != nil {
		d.dmaLocked(epoch, "messages", d.ranges[0], func(p []byte, at iova.Addr) error { return bus.WriteAt(p, uint64(at)) },
			func(p []byte, at iova.Addr) error { return bus.ReadAt(p, uint64(at)) })
	}
	d.busy = false
	d.idle.Broadcast()
}

// dmaLocked writes to the beginning of a range, piece by piece, and reads it back,
// without the lock. It gives up when the epoch ends.
func (d *Device) dmaLocked(epoch uint, road string, r extent, write, read func(p []byte, at iova.Addr) error) {
	if r.size < pieces*pieceSize {
		return
	}
	piece := func(i int) []byte { return bytes.Repeat([]byte{'A' + byte(i)}, pieceSize) }
	back := make([]byte, pieceSize)
	for i := range 2 * pieces {
		if epoch != d.epoch {
			return
		}
		d.mu.Unlock()
		at := r.addr + iova.Addr(i%pieces*pieceSize)
		var err error
		if i < pieces {
			err = write(piece(i), at)
		} else if err = read(back, at); err == nil && !bytes.Equal(back, piece(i%pieces)) {
			err = errors.New("other bytes than were written")
		}
		d.mu.Lock()
		if err != nil {
			d.log.Warn("DMA failed", "by", road, "at", at, "err", err)
			return
		}
	}
	d.log.Debug("DMA done", "by", road, "at", r.addr)
}
