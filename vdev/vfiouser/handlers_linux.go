// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"errors"
	"log/slog"
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
)

// handle obeys a command and appends the reply's payload to c.out. The descriptors fds
// go with the reply. Errors are refusals. What the client did by signalling eventfds
// before it sent the command comes first.
func (c *conn) handle(h header, body []byte) (fds []int, err error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	if c.watch != nil {
		c.watch.pending()
	}
	if err := c.stopped(h.command); err != nil {
		return nil, err
	}
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
		err = c.reset()
	case cmdVersion:
		err = refuse(unix.EINVAL, "VERSION again; it is sent once, at the start")
	case cmdGetRegionIOFDs:
		return c.regionIOFDs(body)
	case cmdFeature:
		err = c.feature(body)
	case cmdMigDataRead:
		err = c.migDataRead(body)
	case cmdMigDataWrite:
		err = c.migDataWrite(body)
	case cmdDirtyPages:
		err = refuse(unix.EINVAL, "DIRTY_PAGES was withdrawn from the protocol; use DEVICE_FEATURE")
	case cmdDMARead, cmdDMAWrite:
		err = refuse(unix.EINVAL, "%v goes from server to client", h.command)
	default:
		err = refuse(unix.EINVAL, "%v is not in the protocol", h.command)
	}
	return nil, err
}

// reset resets the function. Messages to memory that are under way, and those that come
// meanwhile, fail at once: the device must not wait for replies that this
// goroutine has to hand out, and when the reset is answered none of its DMA is left.
func (c *conn) reset() error {
	end := c.revoke(0, ^iova.Addr(0))
	defer end()
	if err := c.s.backend.Reset(); err != nil {
		return refuse(errnoOf(err), "DEVICE_RESET: %v", err)
	}
	c.s.migration.state = MigrationRunning
	return nil
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
func (c *conn) regionInfo(body []byte) (fds []int, err error) {
	if err := fixed(cmdGetRegionInfo, body, regionInfoSize); err != nil {
		return nil, err
	}
	argsz, index := order.Uint32(body), order.Uint32(body[8:])
	if index >= NumRegions {
		return nil, refuse(unix.EINVAL, "DEVICE_GET_REGION_INFO: region %d; the device has %d", index, NumRegions)
	}
	r := &c.regions[index]
	need, flags, capOff := uint32(regionInfoSize), r.Flags, uint32(0)
	mappable := r.Flags&RegionMmap != 0 && r.File != nil && c.peerFDs > 0
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
		fds = []int{int(r.File.Fd())}
	}
	return fds, nil
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
	if action != setActionTrigger {
		return c.setEvents(index, start, action, fds)
	}
	for i, fd := range fds {
		c.s.backend.SetVector(index, start+i, fd)
	}
	return nil
}

func (c *conn) actOnVector(index, vector int, action uint32) {
	if action == setActionTrigger {
		c.s.backend.TriggerVector(index, vector)
		return
	}
	c.s.backend.MaskVector(index, vector, action == setActionMask)
}

// clearIRQs detaches every eventfd of an interrupt type.
func (c *conn) clearIRQs(index int) {
	for v := range c.irqs[index].Count {
		c.s.backend.SetVector(index, v, nil)
	}
	c.dropEvents(index)
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
