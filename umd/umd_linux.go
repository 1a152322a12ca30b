// SPDX-License-Identifier: Apache-2.0

package umd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/core/isa"
	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
	"npuemu/mmio/npureg"
	"npuemu/vdev/vfiouser"
)

// Function is the PCI function of a card as a VFIO client has it; vfiouser.Client and
// local.Client are ones.
type Function interface {
	ReadRegion(index int, off uint64, p []byte) error
	WriteRegion(index int, off uint64, p []byte) error
	MapDMA(addr iova.Addr, size uint64, prot iova.Prot, f *os.File, off uint64) error
	IRQInfo(index int) (vfiouser.IRQ, error)
	SetVectors(index, start int, fds ...*eventfd.FD) error
	Reset() error
	Close()
}

// Config is what Open is told. The zero value will do, but for Firmware.
type Config struct {
	Firmware []byte // image (§3.3)
	Memory   uint64 // bytes of memory for buffers; 0 means DefaultMemory

	// BootTime bounds reset and boot; 0 means 10 s, more than the device's own limit for firmware.
	BootTime time.Duration
}

const (
	// DefaultMemory is address space, not memory: pages that are never written cost
	// nothing.
	DefaultMemory = 1 << 30

	// base is the bus address of our memory: any will do for a function without an
	// IOMMU, and 0 is a good address to keep unmapped.
	base = 1 << 32

	// entries is the size of both rings of both queues. Commands run one at a time.
	entries = 16

	// queueIndex is the user queue that commands go to.
	queueIndex = 1

	page = 4096

	// recordAt is the place of profile records in Device.table: binding tables end there.
	recordAt = isa.MaxBindings * npureg.BindingSize

	// bootTime is the default of Config.BootTime.
	bootTime = 10 * time.Second

	// A wait looks at memory spins times, but no longer than spinTime, since on one processor a card in this
	// process computes for ten milliseconds between two looks. Then it sleeps for nap at a time: an interrupt
	// ends a nap, and no interrupt is needed.
	spins    = 2000
	spinTime = time.Millisecond
	nap      = 5 * time.Millisecond
)

var le = binary.LittleEndian

// Device is a card with its firmware running.
type Device struct {
	fn      Function
	mem     []byte // at base
	free    []span // of mem, by offset, none adjacent: what Alloc may hand out
	wake    []*eventfd.FD
	admin   ring
	user    ring
	table   Buffer // a page for what one command reads or answers; profile records are behind recordAt
	timing  bool   // FEATURES_LO.TIMING
	nextID  uint16
	stopped error // why nothing works any more
}

// ring is a queue (§4.1) with one command in flight at most.
type ring struct {
	index      int
	vector     int
	sq, cq     Buffer
	tail, head int
	phase      uint16
}

// Buffer is memory that the device reaches at Addr.
type Buffer struct {
	Addr  uint64
	Bytes []byte
}

// StatusError is the completion of a command that failed.
type StatusError struct {
	Command string
	Status  npureg.Status
	Result  uint32 // per command; instruction index for LAUNCH (§5.7)
	Info    uint64 // detail of the status (§9.1)
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s completed with %v (§9.1): result %d, info %#x", e.Command, e.Status, e.Result, e.Info)
}

// Open takes over the card behind fn: it resets it, lets it reach memory, boots the
// firmware and creates a queue. fn is the Device's from then on, also when Open fails.
// The error is ctx's if ctx ended.
func Open(ctx context.Context, fn Function, cfg Config) (*Device, error) {
	d := &Device{fn: fn}
	if err := d.open(ctx, cfg); err != nil {
		d.Close()
		return nil, fmt.Errorf("umd: %w", err)
	}
	return d, nil
}

// Close detaches from the card. Closing twice is allowed.
func (d *Device) Close() {
	if d.fn == nil {
		return
	}
	d.fn.Close() // ends the device's accesses to memory
	d.fn = nil
	d.stopped = errors.New("umd: the device is closed")
	for _, e := range d.wake {
		e.Close()
	}
	if d.mem != nil {
		if err := unix.Munmap(d.mem); err != nil {
			panic("umd: BUG: munmap of our own memory: " + err.Error())
		}
	}
}

func (d *Device) open(ctx context.Context, cfg Config) error {
	if cfg.Memory == 0 {
		cfg.Memory = DefaultMemory
	}
	if err := d.share(cfg.Memory); err != nil {
		return err
	}
	if cfg.BootTime == 0 {
		cfg.BootTime = bootTime
	}
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.BootTime, fmt.Errorf("the card is not ready within %v (§3.2, §9.4)", cfg.BootTime))
	defer cancel()
	if err := d.fn.Reset(); err != nil {
		return fmt.Errorf("reset: %w", err)
	}
	// Memory space and bus master (§1.2); a function reset cleared them.
	if err := d.fn.WriteRegion(vfiouser.RegionConfig, 4, []byte{0x6, 0}); err != nil {
		return fmt.Errorf("PCI command register: %w", err)
	}
	if err := d.poll(ctx, -1, func() (bool, error) {
		s, err := d.Register(npureg.DeviceStatus)
		return s&npureg.DeviceStatusResetting == 0, err
	}); err != nil {
		return err
	}
	id, err := d.Register(npureg.ID)
	if err != nil {
		return err
	}
	if id != npureg.Magic {
		return fmt.Errorf("ID register reads %#x, not %#x (§2.1): this is no NPU", id, npureg.Magic)
	}
	arch, err := d.Register(npureg.ArchVersion)
	if err != nil {
		return err
	}
	if arch>>16 != npureg.ArchMajor {
		return fmt.Errorf("the card has architecture %d.%d; this driver is for %d (§2.1)", arch>>16, arch&0xffff, npureg.ArchMajor)
	}
	features, err := d.Register(npureg.FeaturesLo)
	if err != nil {
		return err
	}
	d.timing = features&npureg.FeatureTiming != 0
	if err := d.vectors(); err != nil {
		return err
	}
	if err := d.boot(ctx, cfg.Firmware); err != nil {
		return err
	}
	return d.queues(ctx)
}

// share gives the device memory of size bytes at base.
func (d *Device) share(size uint64) error {
	fd, err := unix.MemfdCreate("npu-buffers", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("memory for buffers: %w", err)
	}
	f := os.NewFile(uintptr(fd), "npu-buffers")
	defer f.Close()
	if err := f.Truncate(int64(size)); err != nil {
		return fmt.Errorf("memory for buffers: %w", err)
	}
	if d.mem, err = unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE); err != nil {
		return fmt.Errorf("memory for buffers: %w", err)
	}
	if err := d.fn.MapDMA(base, size, iova.Read|iova.Write, f, 0); err != nil {
		return fmt.Errorf("map buffers: %w", err)
	}
	d.free = []span{{0, size &^ (page - 1)}}
	return nil
}

// vectors attaches an eventfd to each of the first two vectors of MSI-X, or of MSI. A
// card with neither is polled.
func (d *Device) vectors() error {
	for _, index := range []int{vfiouser.IRQMSIX, vfiouser.IRQMSI} {
		irq, err := d.fn.IRQInfo(index)
		if err != nil {
			return fmt.Errorf("interrupts: %w", err)
		}
		if irq.Count == 0 {
			continue
		}
		for range min(irq.Count, 2) {
			e, err := eventfd.New()
			if err != nil {
				return err
			}
			d.wake = append(d.wake, e)
		}
		if err := d.fn.SetVectors(index, 0, d.wake...); err != nil {
			return fmt.Errorf("interrupts: %w", err)
		}
		return nil
	}
	return nil
}

func (d *Device) boot(ctx context.Context, image []byte) error {
	b, err := d.Put(image)
	if err != nil {
		return fmt.Errorf("firmware image: %w", err)
	}
	for _, w := range []struct{ reg, v uint32 }{
		{npureg.ImageAddrLo, uint32(b.Addr)},
		{npureg.ImageAddrLo + 4, uint32(b.Addr >> 32)},
		{npureg.ImageSize, uint32(len(image))},
		{npureg.IRQEnable, npureg.IRQAll},
		{npureg.BootControl, npureg.BootControlStart},
	} {
		if err := d.setRegister(w.reg, w.v); err != nil {
			return err
		}
	}
	var s uint32
	if err := d.poll(ctx, 0, func() (bool, error) {
		s, err = d.Register(npureg.BootStatus)
		return s&0xff == npureg.BootReady || s&0xff == npureg.BootFailed, err
	}); err != nil {
		return err
	}
	if s&0xff == npureg.BootFailed {
		detail, err := d.Register(npureg.FWErrorDetail)
		return errors.Join(fmt.Errorf("firmware does not boot: error %d, detail %#x (§3.5)", s>>8&0xff, detail), err)
	}
	v, err := d.Register(npureg.FWVersion)
	if err == nil && v>>16 != npureg.FirmwareMajor {
		err = fmt.Errorf("firmware has interface %d.%d; this driver is for %d (§3.3)", v>>16, v&0xffff, npureg.FirmwareMajor)
	}
	return err
}

// queues sets up the admin queue (§4.4), a context and a user queue (§4.6).
func (d *Device) queues(ctx context.Context) error {
	var err error
	if d.table, err = d.Alloc(page); err != nil {
		return err
	}
	if err := d.newRing(&d.admin, 0, 0); err != nil {
		return err
	}
	for _, w := range []struct{ reg, v uint32 }{
		{npureg.ASQBaseLo, uint32(d.admin.sq.Addr)},
		{npureg.ASQBaseLo + 4, uint32(d.admin.sq.Addr >> 32)},
		{npureg.ACQBaseLo, uint32(d.admin.cq.Addr)},
		{npureg.ACQBaseLo + 4, uint32(d.admin.cq.Addr >> 32)},
		{npureg.AQSize, entries | entries<<16},
		{npureg.AQControl, npureg.AQControlEnable},
	} {
		if err := d.setRegister(w.reg, w.v); err != nil {
			return err
		}
	}
	var e [npureg.SQEntrySize]byte
	e[0] = npureg.AdminCreateContext
	c, err := d.do(ctx, &d.admin, "CREATE_CONTEXT", e)
	if err != nil {
		return err
	}
	if err := d.newRing(&d.user, queueIndex, max(0, len(d.wake)-1)); err != nil {
		return err
	}
	e = [npureg.SQEntrySize]byte{npureg.AdminCreateQueue}
	le.PutUint64(e[0x08:], d.user.sq.Addr)
	le.PutUint64(e[0x10:], d.user.cq.Addr)
	le.PutUint16(e[0x18:], queueIndex)
	le.PutUint16(e[0x1a:], uint16(d.user.vector))
	le.PutUint16(e[0x1c:], entries)
	le.PutUint16(e[0x1e:], entries)
	le.PutUint32(e[0x20:], c.Result)
	_, err = d.do(ctx, &d.admin, "CREATE_QUEUE", e)
	return err
}

func (d *Device) newRing(r *ring, index, vector int) (err error) {
	*r = ring{index: index, vector: vector, phase: 1}
	if r.sq, err = d.Alloc(entries * npureg.SQEntrySize); err != nil {
		return err
	}
	r.cq, err = d.Alloc(entries * npureg.CQEntrySize)
	return err
}

// Register reads a register of BAR0 (§2.1).
func (d *Device) Register(off uint32) (uint32, error) {
	if d.stopped != nil {
		return 0, d.stopped
	}
	var p [4]byte
	if err := d.fn.ReadRegion(vfiouser.RegionBAR0, uint64(off), p[:]); err != nil {
		return 0, fmt.Errorf("read register %#x: %w", off, err)
	}
	return le.Uint32(p[:]), nil
}

func (d *Device) setRegister(off, v uint32) error {
	if err := d.fn.WriteRegion(vfiouser.RegionBAR0, uint64(off), le.AppendUint32(nil, v)); err != nil {
		return fmt.Errorf("write register %#x: %w", off, err)
	}
	return nil
}

// completion is what a completion entry says (§4.2).
type completion struct {
	Result uint32
	Cycles uint32 // §13.8.3
	Info   uint64
}

// do executes a command and returns its completion, or a *StatusError. If ctx ends
// first, or the queue stops, the card is reset: it must not write to memory that the
// caller thinks is its own again.
func (d *Device) do(ctx context.Context, r *ring, name string, e [npureg.SQEntrySize]byte) (completion, error) {
	if d.stopped != nil {
		return completion{}, d.stopped
	}
	d.nextID++
	le.PutUint16(e[2:], d.nextID)
	copy(r.sq.Bytes[r.tail*npureg.SQEntrySize:], e[:])
	r.tail = (r.tail + 1) % entries
	doorbell := npureg.DoorbellBase + uint32(r.index)*npureg.DoorbellStride
	err := d.setRegister(doorbell+npureg.DoorbellSQTail, uint32(r.tail))
	entry := r.cq.Bytes[r.head*npureg.CQEntrySize:][:npureg.CQEntrySize]
	var w uint32
	if err == nil {
		err = d.poll(ctx, r.vector, func() (bool, error) {
			w = statusWord(entry)
			return uint16(w>>16)&1 == r.phase, nil
		})
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
		d.stopped = fmt.Errorf("umd: the card was reset: %w", err)
		return completion{}, errors.Join(err, d.fn.Reset())
	}
	c := completion{Result: le.Uint32(entry), Cycles: le.Uint32(entry[4:]), Info: le.Uint64(entry[8:])}
	if r.head++; r.head == entries {
		r.head, r.phase = 0, r.phase^1
	}
	if err := d.setRegister(doorbell+npureg.DoorbellCQHead, uint32(r.head)); err != nil {
		return c, err
	}
	if s := npureg.Status(w >> 17); s != npureg.StatusSuccess {
		return c, &StatusError{Command: name, Status: s, Result: c.Result, Info: c.Info}
	}
	return c, nil
}

// poll calls done until it says so. Between calls it waits for a vector, or with -1
// for a while. It fails when ctx ends or a fault is recorded (§9.3).
func (d *Device) poll(ctx context.Context, vector int, done func() (bool, error)) error {
	began := time.Now()
	for n := 0; ; n++ {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if n < spins && vector >= 0 && time.Since(began) < spinTime {
			runtime.Gosched()
			continue
		}
		if vector >= 0 && vector < len(d.wake) {
			d.wake[vector].Wait(nap)
		} else {
			time.Sleep(time.Millisecond)
		}
		if err := d.fault(); err != nil {
			return err
		}
	}
}

// fault returns the fault record as an error, if there is one.
func (d *Device) fault() error {
	var r [4]uint32
	for i := range r {
		var err error
		if r[i], err = d.Register(npureg.FaultStatus + 4*uint32(i)); err != nil {
			return err
		}
	}
	if r[0] == ^uint32(0) || r[0]&npureg.FaultValid == 0 { // all-ones: a reset is in progress
		return nil
	}
	return fmt.Errorf("the card reports a fault: %v, info %#x, address %#x (§9.3)", npureg.Status(r[0]>>16), r[1], uint64(r[3])<<32|uint64(r[2]))
}
