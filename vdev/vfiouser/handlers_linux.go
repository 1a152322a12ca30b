// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"errors"
	"log/slog"
	"math"
	"math/bits"
	"slices"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
)

// Bits and sizes of the payloads, from the specification and linux/vfio.h.
const (
	deviceReset = 1 << 0 // VFIO_DEVICE_FLAGS_RESET
	devicePCI   = 1 << 1 // VFIO_DEVICE_FLAGS_PCI

	infoSize       = 16
	regionInfoSize = 32
	irqInfoSize    = 16
	irqSetSize     = 20
	accessSize     = 16
	dmaMapSize     = 32
	dmaUnmapSize   = 24
	multiEntrySize = 24
	multiDataSize  = 8 // data bytes of a REGION_WRITE_MULTI entry

	capSparseMmap = 1 // VFIO_REGION_INFO_CAP_SPARSE_MMAP

	setDataNone      = 1 << 0 // VFIO_IRQ_SET_DATA_NONE
	setDataBool      = 1 << 1 // VFIO_IRQ_SET_DATA_BOOL
	setDataEventfd   = 1 << 2 // VFIO_IRQ_SET_DATA_EVENTFD
	setActionMask    = 1 << 3 // VFIO_IRQ_SET_ACTION_MASK
	setActionUnmask  = 1 << 4 // VFIO_IRQ_SET_ACTION_UNMASK
	setActionTrigger = 1 << 5 // VFIO_IRQ_SET_ACTION_TRIGGER
	setData          = setDataNone | setDataBool | setDataEventfd
	setAction        = setActionMask | setActionUnmask | setActionTrigger

	unmapDirty = 1 << 0 // report dirty pages
	unmapAll   = 1 << 1 // unmap everything
)

// handle obeys a command and appends the reply's payload to c.out. fd, if not 0,
// goes with the reply. Errors are refusals.
func (c *conn) handle(h header, body []byte) (fd int, err error) {
	switch h.command {
	case cmdDMAMap:
		err = c.dmaMap(body)
	case cmdDMAUnmap:
		err = c.dmaUnmap(body)
	case cmdGetInfo:
		err = c.info(body)
	case cmdGetRegionInfo:
		return c.regionInfo(body)
	case cmdGetIRQInfo:
		err = c.irqInfo(body)
	case cmdSetIRQs:
		err = c.setIRQs(body)
	case cmdRegionRead:
		err = c.regionRead(body)
	case cmdRegionWrite:
		err = c.regionWrite(body)
	case cmdWriteMulti:
		err = c.writeMulti(body)
	case cmdReset:
		if rerr := c.s.backend.Reset(); rerr != nil {
			err = refuse(errnoOf(rerr), "DEVICE_RESET: %v", rerr)
		}
	case cmdVersion:
		err = refuse(unix.EINVAL, "VERSION again; it is sent once, at the start")
	case cmdGetRegionIOFDs:
		err = c.regionIOFDs(body)
	case cmdFeature:
		err = refuse(unix.EINVAL, "DEVICE_FEATURE: the device has no features; do without migration and dirty page logging")
	case cmdMigDataRead, cmdMigDataWrite:
		err = refuse(unix.EINVAL, "%v: the device cannot migrate; probe DEVICE_FEATURE first", h.command)
	case cmdDirtyPages:
		err = refuse(unix.EINVAL, "DIRTY_PAGES was withdrawn from the protocol; use DEVICE_FEATURE")
	case cmdDMARead, cmdDMAWrite:
		err = refuse(unix.EINVAL, "%v goes from server to client", h.command)
	default:
		err = refuse(unix.EINVAL, "%v is not in the protocol", h.command)
	}
	return 0, err
}

// fixed checks the fixed part of a payload of size bytes that starts with argsz.
func fixed(cmd Command, body []byte, size int) error {
	if len(body) < size {
		return refuse(unix.EINVAL, "%v has %d bytes of payload; it needs %d", cmd, len(body), size)
	}
	if argsz := order.Uint32(body); argsz < uint32(size) {
		return refuse(unix.EINVAL, "%v has argsz %d; it needs %d", cmd, argsz, size)
	}
	return nil
}

func (c *conn) info(body []byte) error {
	if err := fixed(cmdGetInfo, body, infoSize); err != nil {
		return err
	}
	for _, v := range []uint32{infoSize, deviceReset | devicePCI, NumRegions, NumIRQs} {
		c.out = order.AppendUint32(c.out, v)
	}
	return nil
}

// regionInfo describes a region. The capability, and the descriptor with it, go
// out only when the client has room for them; argsz says how much it takes.
// Without them the flag for capabilities stays clear: QEMU takes a capability
// offset outside the reply for an error.
func (c *conn) regionInfo(body []byte) (fd int, err error) {
	if err := fixed(cmdGetRegionInfo, body, regionInfoSize); err != nil {
		return 0, err
	}
	argsz, index := order.Uint32(body), order.Uint32(body[8:])
	if index >= NumRegions {
		return 0, refuse(unix.EINVAL, "DEVICE_GET_REGION_INFO: region %d; the device has %d", index, NumRegions)
	}
	r := &c.regions[index]
	need, flags, capOff := uint32(regionInfoSize), r.Flags, uint32(0)
	mappable := r.Flags&RegionMmap != 0 && r.File != nil
	if !mappable {
		flags &^= RegionMmap
	}
	sparse := mappable && len(r.Areas) > 0
	if sparse {
		need += 16 + 16*uint32(len(r.Areas))
	}
	fits := argsz >= need
	if sparse && fits {
		flags |= regionCaps
		capOff = regionInfoSize
	}
	for _, v := range []uint32{need, uint32(flags), index, capOff} {
		c.out = order.AppendUint32(c.out, v)
	}
	c.out = order.AppendUint64(c.out, r.Size)
	c.out = order.AppendUint64(c.out, 0) // offset in the file
	if sparse && fits {
		c.out = order.AppendUint16(c.out, capSparseMmap)
		c.out = order.AppendUint16(c.out, 1) // capability version
		c.out = order.AppendUint32(c.out, 0) // no next capability
		c.out = order.AppendUint32(c.out, uint32(len(r.Areas)))
		c.out = order.AppendUint32(c.out, 0) // reserved
		for _, a := range r.Areas {
			c.out = order.AppendUint64(c.out, a.Off)
			c.out = order.AppendUint64(c.out, a.Size)
		}
	}
	if mappable && fits {
		fd = int(r.File.Fd())
	}
	return fd, nil
}

func (c *conn) regionIOFDs(body []byte) error {
	if err := fixed(cmdGetRegionIOFDs, body, 16); err != nil {
		return err
	}
	argsz, flags := order.Uint32(body), order.Uint32(body[4:])
	index, count := order.Uint32(body[8:]), order.Uint32(body[12:])
	if argsz > maxData || flags != 0 || count != 0 || index >= NumRegions || c.regions[index].Size == 0 {
		return refuse(unix.EINVAL, "DEVICE_GET_REGION_IO_FDS: argsz %d, flags %#x, region %d, count %d; name a region, with flags and count 0", argsz, flags, index, count)
	}
	return refuse(unix.ENOTSUP, "DEVICE_GET_REGION_IO_FDS: the device has none; use REGION_WRITE")
}

func (c *conn) irqInfo(body []byte) error {
	if err := fixed(cmdGetIRQInfo, body, irqInfoSize); err != nil {
		return err
	}
	index := order.Uint32(body[8:])
	if index >= NumIRQs {
		return refuse(unix.EINVAL, "DEVICE_GET_IRQ_INFO: interrupt type %d; the device has %d", index, NumIRQs)
	}
	irq := c.irqs[index]
	for _, v := range []uint32{irqInfoSize, uint32(irq.Flags), index, uint32(irq.Count)} {
		c.out = order.AppendUint32(c.out, v)
	}
	return nil
}

// irqEvent names the eventfd that tells of a vector's masking or unmasking.
type irqEvent struct {
	index, vector int
	action        uint32 // setActionMask or setActionUnmask
}

func (c *conn) setIRQs(body []byte) error {
	if err := fixed(cmdSetIRQs, body, irqSetSize); err != nil {
		return err
	}
	flags, index := order.Uint32(body[4:]), order.Uint32(body[8:])
	start, count := order.Uint32(body[12:]), order.Uint32(body[16:])
	bools, nfds := body[irqSetSize:], c.rights.Len()
	data, action := flags&setData, flags&setAction
	if flags&^(setData|setAction) != 0 || bits.OnesCount32(data) != 1 || bits.OnesCount32(action) != 1 {
		return refuse(unix.EINVAL, "DEVICE_SET_IRQS: flags %#x; set one DATA bit and one ACTION bit", flags)
	}
	if index >= NumIRQs {
		return refuse(unix.EINVAL, "DEVICE_SET_IRQS: interrupt type %d; the device has %d", index, NumIRQs)
	}
	if data != setDataEventfd && nfds != 0 {
		return refuse(unix.EINVAL, "DEVICE_SET_IRQS: %d descriptors without DATA_EVENTFD; send none", nfds)
	}
	if count == 0 {
		if start != 0 || data != setDataNone || action != setActionTrigger {
			return refuse(unix.EINVAL, "DEVICE_SET_IRQS: count 0 with start %d and flags %#x; to disable a type use start 0, DATA_NONE and ACTION_TRIGGER", start, flags)
		}
		c.clearIRQs(int(index))
		return nil
	}
	irq := c.irqs[index]
	switch {
	case uint64(start)+uint64(count) > uint64(irq.Count):
		return refuse(unix.EINVAL, "DEVICE_SET_IRQS: vectors %d+%d of type %d; it has %d", start, count, index, irq.Count)
	case action != setActionTrigger && irq.Flags&IRQMaskable == 0:
		return refuse(unix.EINVAL, "DEVICE_SET_IRQS: type %d cannot be masked; see its flags", index)
	case data == setDataEventfd && irq.Flags&IRQEventfd == 0:
		return refuse(unix.EINVAL, "DEVICE_SET_IRQS: type %d has no eventfd; see its flags", index)
	case data == setDataBool && uint64(len(bools)) != uint64(count):
		return refuse(unix.EINVAL, "DEVICE_SET_IRQS: %d booleans for %d vectors; send one byte each", len(bools), count)
	case data == setDataEventfd && nfds != 0 && uint64(nfds) != uint64(count):
		return refuse(unix.EINVAL, "DEVICE_SET_IRQS: %d descriptors for %d vectors; send one each, or none to detach", nfds, count)
	}
	if data == setDataEventfd {
		return c.setEventfds(int(index), int(start), int(count), action)
	}
	for i := range int(count) {
		if data == setDataNone || bools[i] != 0 {
			c.actOnVector(int(index), int(start)+i, action)
		}
	}
	return nil
}

// setEventfds attaches the received descriptors to vectors, or nothing if none
// came. QEMU sends none when MSI-X is switched on, before it knows the vectors.
func (c *conn) setEventfds(index, start, count int, action uint32) error {
	fds := make([]*eventfd.FD, count)
	for i := range c.rights.Len() {
		fd, err := eventfd.Adopt(c.rights.Take(i))
		if err != nil {
			for _, fd := range fds[:i] {
				fd.Close()
			}
			return refuse(unix.EINVAL, "DEVICE_SET_IRQS: descriptor %d: %v", i, err)
		}
		fds[i] = fd
	}
	for i, fd := range fds {
		if action == setActionTrigger {
			c.s.backend.SetVector(index, start+i, fd)
		} else {
			c.setEvent(irqEvent{index, start + i, action}, fd)
		}
	}
	return nil
}

func (c *conn) actOnVector(index, vector int, action uint32) {
	if action == setActionTrigger {
		c.s.backend.TriggerVector(index, vector)
		return
	}
	c.s.backend.MaskVector(index, vector, action == setActionMask)
	if fd := c.events[irqEvent{index, vector, action}]; fd != nil {
		fd.Signal()
	}
}

// setEvent keeps fd for e and closes what was there; nil removes.
func (c *conn) setEvent(e irqEvent, fd *eventfd.FD) {
	if old := c.events[e]; old != nil {
		old.Close()
	}
	delete(c.events, e)
	if fd != nil {
		c.events[e] = fd
	}
}

// clearIRQs detaches every eventfd of an interrupt type.
func (c *conn) clearIRQs(index int) {
	for v := range c.irqs[index].Count {
		c.s.backend.SetVector(index, v, nil)
	}
	for e := range c.events {
		if e.index == index {
			c.setEvent(e, nil)
		}
	}
}

var (
	errUnreadable = errors.New("the region cannot be read")
	errUnwritable = errors.New("the region cannot be written")
)

// access is the fixed part of REGION_READ, REGION_WRITE and of an entry of
// REGION_WRITE_MULTI.
type access struct {
	off           uint64
	region, count uint32
}

// decodeAccess reads and checks the first accessSize bytes of b.
func (c *conn) decodeAccess(cmd Command, b []byte, limit uint32) (access, error) {
	if len(b) < accessSize {
		return access{}, refuse(unix.EINVAL, "%v has %d bytes of payload; it needs %d", cmd, len(b), accessSize)
	}
	a := access{order.Uint64(b), order.Uint32(b[8:]), order.Uint32(b[12:])}
	if a.count > limit {
		return a, refuse(unix.EINVAL, "%v of %d bytes; move at most %d at once", cmd, a.count, limit)
	}
	if a.region >= NumRegions {
		return a, refuse(unix.EINVAL, "%v: region %d; the device has %d", cmd, a.region, NumRegions)
	}
	if size := c.regions[a.region].Size; a.off > size || uint64(a.count) > size-a.off {
		return a, refuse(unix.EINVAL, "%v: %d bytes at %#x of region %d go beyond its %#x bytes", cmd, a.count, a.off, a.region, size)
	}
	return a, nil
}

func (c *conn) regionRead(body []byte) error {
	a, err := c.decodeAccess(cmdRegionRead, body, maxData)
	if err != nil {
		return err
	}
	c.out = append(c.out, body[:accessSize]...)
	n := len(c.out)
	c.out = slices.Grow(c.out, int(a.count))[:n+int(a.count)]
	p := c.out[n:]
	err = errUnreadable
	if c.regions[a.region].Flags&RegionRead != 0 {
		err = c.s.backend.ReadRegion(int(a.region), a.off, p)
	}
	if err != nil {
		c.notRead(a, p, err)
	}
	return nil
}

// notRead makes p what a read gives that the device refused.
func (c *conn) notRead(a access, p []byte, err error) {
	for i := range p {
		p[i] = 0xff
	}
	c.warnAccess(cmdRegionRead, a, err)
}

func (c *conn) regionWrite(body []byte) error {
	a, err := c.decodeAccess(cmdRegionWrite, body, maxData)
	if err != nil {
		return err
	}
	p := body[accessSize:]
	if uint64(len(p)) != uint64(a.count) {
		return refuse(unix.EINVAL, "REGION_WRITE has %d bytes of data and a count of %d", len(p), a.count)
	}
	c.write(cmdRegionWrite, a, p)
	c.out = append(c.out, body[:accessSize]...)
	return nil
}

// writeMulti does all writes of the message in order, or none if one is wrong.
func (c *conn) writeMulti(body []byte) error {
	if len(body) < 8 {
		return refuse(unix.EINVAL, "REGION_WRITE_MULTI has %d bytes of payload; the number of writes needs 8", len(body))
	}
	count, entries := order.Uint64(body), body[8:]
	if len(entries)%multiEntrySize != 0 || count != uint64(len(entries)/multiEntrySize) {
		return refuse(unix.EINVAL, "REGION_WRITE_MULTI: %d writes in %d bytes; each takes %d", count, len(entries), multiEntrySize)
	}
	for e := entries; len(e) > 0; e = e[multiEntrySize:] {
		if _, err := c.decodeAccess(cmdWriteMulti, e, multiDataSize); err != nil {
			return err
		}
	}
	for e := entries; len(e) > 0; e = e[multiEntrySize:] {
		a := access{order.Uint64(e), order.Uint32(e[8:]), order.Uint32(e[12:])}
		c.write(cmdWriteMulti, a, e[accessSize:accessSize+a.count])
	}
	c.out = append(c.out, body[:8]...)
	return nil
}

func (c *conn) write(cmd Command, a access, p []byte) {
	err := errUnwritable
	if c.regions[a.region].Flags&RegionWrite != 0 {
		err = c.s.backend.WriteRegion(int(a.region), a.off, p)
	}
	if err != nil {
		c.warnAccess(cmd, a, err)
	}
}

func (c *conn) warnAccess(cmd Command, a access, err error) {
	c.s.warn("vfio-user access not done; reads give all ones, writes are dropped",
		slog.String("command", cmd.String()), slog.Int("region", int(a.region)),
		slog.Uint64("off", a.off), slog.Int("count", int(a.count)), slog.Any("rule", err))
}

func (c *conn) dmaMap(body []byte) error {
	if err := fixed(cmdDMAMap, body, dmaMapSize); err != nil {
		return err
	}
	flags, off := order.Uint32(body[4:]), order.Uint64(body[8:])
	addr, size := iova.Addr(order.Uint64(body[16:])), order.Uint64(body[24:])
	prot := iova.Prot(flags & 3) // the protocol's bits are the package's
	switch {
	case flags&^3 != 0 || prot == 0:
		return refuse(unix.EINVAL, "DMA_MAP: flags %#x; set readable (1), writeable (2) or both", flags)
	case size == 0 || size-1 > math.MaxUint64-uint64(addr):
		return refuse(unix.EINVAL, "DMA_MAP: %#x bytes at %v are not an address range", size, addr)
	case size > maxDMABytes:
		return refuse(unix.ENOSPC, "DMA_MAP: %#x bytes; map at most %#x at once", size, uint64(maxDMABytes))
	case c.rights.Len() > 1:
		return refuse(unix.EINVAL, "DMA_MAP: %d descriptors; send one or none", c.rights.Len())
	}
	var mem iova.Memory = &messageMemory{c: c, base: addr}
	if c.rights.Len() == 1 {
		fd := c.rights.Take(0)
		var err error
		mem, err = c.files.open(fd, off, size, prot)
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	if err := c.s.backend.MapDMA(addr, size, prot, mem); err != nil {
		mem.Close()
		return refuse(dmaErrno(err, unix.EEXIST), "DMA_MAP: %v", err)
	}
	return nil
}

// dmaUnmap succeeds where nothing is mapped: with a virtual IOMMU, QEMU sweeps
// the address space in large pieces.
func (c *conn) dmaUnmap(body []byte) error {
	if err := fixed(cmdDMAUnmap, body, dmaUnmapSize); err != nil {
		return err
	}
	flags := order.Uint32(body[4:])
	addr, size := iova.Addr(order.Uint64(body[8:])), order.Uint64(body[16:])
	switch {
	case flags&^(unmapDirty|unmapAll) != 0:
		return refuse(unix.EINVAL, "DMA_UNMAP: flags %#x; set none, or unmap-all (%#x)", flags, unmapAll)
	case flags&unmapDirty != 0:
		return refuse(unix.EINVAL, "DMA_UNMAP: dirty pages are not logged; do without the bitmap")
	case flags&unmapAll != 0:
		if addr != 0 || size != 0 {
			return refuse(unix.EINVAL, "DMA_UNMAP of everything: address %v, size %#x; both are 0", addr, size)
		}
		end := c.revoke(0, ^iova.Addr(0))
		c.s.backend.UnmapAllDMA()
		end()
	case size == 0 || size-1 > math.MaxUint64-uint64(addr):
		return refuse(unix.EINVAL, "DMA_UNMAP: %#x bytes at %v are not an address range", size, addr)
	default:
		end := c.revoke(addr, addr+iova.Addr(size-1))
		err := c.s.backend.UnmapDMA(addr, size)
		end()
		if err != nil {
			return refuse(dmaErrno(err, unix.EINVAL), "DMA_UNMAP: %v", err)
		}
	}
	c.out = append(c.out, body[:dmaUnmapSize]...)
	return nil
}

// dmaErrno is errnoOf for what iova.Table refuses; overlap is the errno for
// ErrOverlap.
func dmaErrno(err error, overlap unix.Errno) unix.Errno {
	switch {
	case errors.Is(err, iova.ErrOverlap):
		return overlap
	case errors.Is(err, iova.ErrLimit), errors.Is(err, iova.ErrRange):
		return unix.EINVAL
	}
	return errnoOf(err)
}
