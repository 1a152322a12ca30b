// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"fmt"
	"log/slog"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"npuemu/internal/eventfd"
)

// Parts of DEVICE_GET_REGION_IO_FDS, from the specification, linux/kvm.h and, for the
// shadow, libvfio-user.
const (
	ioFDsSize = 16

	// The entries of a reply are equally far apart: 40 bytes, or 48 if one of
	// them has a shadow, which does not fit into 40. The reader finds the
	// distance by division: (argsz - 16) / count.
	ioFDEntry       = 40
	ioFDShadowEntry = 48

	ioFDEvent  = 0 // VFIO_USER_IO_FD_TYPE_IOEVENTFD
	ioFDShadow = 2 // VFIO_USER_IO_FD_TYPE_IOEVENTFD_SHADOW, libvfio-user's

	ioFlagMatch = 1 << 0 // KVM_IOEVENTFD_FLAG_DATAMATCH
	ioFlagPIO   = 1 << 1 // KVM_IOEVENTFD_FLAG_PIO
)

// ioEvents are the eventfds of one region, made when the client asks for them.
type ioEvents struct {
	events []IOEvent
	fds    []watched // one for each
}

// regionIOFDs describes the parts of a region that the client may write by eventfd.
// Where the client's limit of descriptors is too small for all, it gets the first ones:
// the rest is written by messages, as everything may be.
func (c *conn) regionIOFDs(body []byte) ([]int, error) {
	if err := fixed(cmdGetRegionIOFDs, body, ioFDsSize); err != nil {
		return nil, err
	}
	argsz, flags := order.Uint32(body), order.Uint32(body[4:])
	index, count := order.Uint32(body[8:]), order.Uint32(body[12:])
	if argsz > maxData || flags != 0 || count != 0 || index >= NumRegions || c.regions[index].Size == 0 {
		return nil, refuse(unix.EINVAL, "DEVICE_GET_REGION_IO_FDS: argsz %d, flags %#x, region %d, count %d; name a region, with flags and count 0, and at most %d bytes", argsz, flags, index, count, maxData)
	}
	io, err := c.ioEventsOf(int(index))
	if err != nil {
		return nil, refuse(errnoOf(err), "DEVICE_GET_REGION_IO_FDS: %v", err)
	}

	var fds []int
	var fdOf []uint32 // by entry: the indexes in fds of eventfd and shadow
	stride := ioFDEntry
	for i, ev := range io.events {
		more := []int{io.fds[i].fd.Fd()}
		if ev.Shadow != nil {
			more = append(more, int(ev.Shadow.Fd()))
		}
		all := slices.Clone(fds)
		at := [2]uint32{}
		for j, fd := range more {
			k := slices.Index(all, fd)
			if k < 0 {
				k = len(all)
				all = append(all, fd)
			}
			at[j] = uint32(k)
		}
		if len(all) > c.peerFDs {
			break
		}
		fds = all
		fdOf = append(fdOf, at[:]...)
		if ev.Shadow != nil || c.s.cfg.Strict {
			stride = ioFDShadowEntry
		}
	}
	events := io.events[:len(fdOf)/2]
	need := uint32(ioFDsSize + stride*len(events))
	for _, v := range []uint32{need, 0, index, uint32(len(events))} {
		c.out = order.AppendUint32(c.out, v)
	}
	if argsz < need {
		return nil, nil // argsz tells how much room it takes
	}
	for i, ev := range events {
		c.out = appendIOEvent(c.out, ev, stride, fdOf[2*i], fdOf[2*i+1])
	}
	return fds, nil
}

// appendIOEvent appends one entry. In 48 bytes libvfio-user has the value to match after the
// offset in the shadow. Without a shadow that offset is free, and the value is there too:
// readers of the specification look for it there.
func appendIOEvent(b []byte, ev IOEvent, stride int, fd, shadow uint32) []byte {
	kind, flags := uint32(ioFDEvent), uint32(0)
	if ev.Match {
		flags |= ioFlagMatch
	}
	if ev.PIO {
		flags |= ioFlagPIO
	}
	first := ev.Value
	if ev.Shadow != nil {
		kind, first = ioFDShadow, ev.ShadowOff
	}
	b = order.AppendUint64(b, ev.Off)
	b = order.AppendUint64(b, uint64(ev.Size))
	for _, v := range []uint32{fd, kind, flags, shadow} {
		b = order.AppendUint32(b, v)
	}
	b = order.AppendUint64(b, first)
	if stride == ioFDShadowEntry {
		b = order.AppendUint64(b, ev.Value)
	}
	return b
}

// ioEventsOf returns the eventfds of a region, which it makes the first time.
func (c *conn) ioEventsOf(index int) (*ioEvents, error) {
	if io := c.ioEvents[index]; io != nil {
		return io, nil
	}
	io := new(ioEvents)
	if dev, ok := c.s.backend.(IOEventer); ok {
		io.events = dev.IOEvents(index)
	}
	checkIOEvents(io.events, c.regions[index].Size)
	for _, ev := range io.events {
		fd, err := eventfd.New()
		if err == nil {
			var w watched
			if w, err = c.observe(fd, func() { c.ioSignal(index, ev) }); err == nil {
				io.fds = append(io.fds, w)
				continue
			}
			fd.Close()
		}
		for _, w := range io.fds {
			c.ignore(w)
		}
		return nil, err
	}
	c.ioEvents[index] = io
	return io, nil
}

func checkIOEvents(events []IOEvent, size uint64) {
	if len(events) > MaxIOEvents {
		panic("vfiouser: BUG: a region with too many eventfds")
	}
	for _, ev := range events {
		n := max(ev.Size, 1)
		known := ev.Size == 0 && ev.Shadow == nil || ev.Size == 1 || ev.Size == 2 || ev.Size == 4 || ev.Size == 8
		if !known || ev.Off > size || uint64(n) > size-ev.Off {
			panic("vfiouser: BUG: an eventfd for a part that its region does not have")
		}
	}
}

// ioSignal does the write that an eventfd stands for.
func (c *conn) ioSignal(index int, ev IOEvent) {
	value, err := ev.Value, error(nil)
	if ev.Shadow != nil {
		value, err = shadowValue(ev.Shadow, ev.ShadowOff, ev.Size)
	}
	n := ev.Size
	if n == 0 {
		n = int(min(4, c.regions[index].Size-ev.Off))
	}
	if err == nil {
		c.write(cmdGetRegionIOFDs, access{ev.Off, uint32(index), uint32(n)}, hostBytes(value, n))
		return
	}
	c.s.warn("vfio-user write by eventfd not done", slog.Int("region", index), slog.Uint64("off", ev.Off), slog.Any("rule", err))
}

// hostBytes returns the n bytes of an integer of that size, in host order.
func hostBytes(v uint64, n int) []byte {
	switch n {
	case 1:
		return []byte{byte(v)}
	case 2:
		return order.AppendUint16(nil, uint16(v))
	case 8:
		return order.AppendUint64(nil, v)
	}
	return order.AppendUint32(nil, uint32(v))[:n]
}

// shadowValue reads what the client left in the file.
func shadowValue(f *os.File, off uint64, n int) (uint64, error) {
	b := make([]byte, n)
	if _, err := f.ReadAt(b, int64(off)); err != nil {
		return 0, fmt.Errorf("read the shadow: %w", err)
	}
	switch n {
	case 1:
		return uint64(b[0]), nil
	case 2:
		return uint64(order.Uint16(b)), nil
	case 4:
		return uint64(order.Uint32(b)), nil
	}
	return order.Uint64(b), nil
}

// closeIOEvents ends the writes by signals.
func (c *conn) closeIOEvents() {
	for _, io := range c.ioEvents {
		if io != nil {
			for _, w := range io.fds {
				c.ignore(w)
			}
		}
	}
	c.ioEvents = [NumRegions]*ioEvents{}
}
