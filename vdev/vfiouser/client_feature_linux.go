// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
)

// Feature is an index of DEVICE_FEATURE.
type Feature uint32

// The features of the protocol.
const (
	FeatureMigration      Feature = featMigration
	FeatureMigrationState Feature = featMigState
	FeatureLogStart       Feature = featLogStart
	FeatureLogStop        Feature = featLogStop
	FeatureLogReport      Feature = featLogReport
)

// Probe returns nil if the device has a feature that can be read and set as asked.
func (c *Client) Probe(f Feature, get, set bool) error {
	flags := uint32(f) | featureProbe
	if get {
		flags |= featureGet
	}
	if set {
		flags |= featureSet
	}
	_, err := c.feature(flags, nil, 0)
	return err
}

// feature sends DEVICE_FEATURE and returns the data of the reply, at least size bytes.
func (c *Client) feature(flags uint32, data []byte, size int) ([]byte, error) {
	req := order.AppendUint32(nil, uint32(featureSize+max(size, len(data))))
	req = order.AppendUint32(req, flags)
	b, err := c.callFixed(cmdFeature, append(req, data...), featureSize+size)
	if err != nil {
		return nil, err
	}
	return b[featureSize:], nil
}

// MigrationFlags returns the migration states that the device knows.
func (c *Client) MigrationFlags() (MigrationFlags, error) {
	b, err := c.feature(featMigration|featureGet, nil, 8)
	if err != nil {
		return 0, err
	}
	return MigrationFlags(order.Uint64(b)), nil
}

// MigrationState returns the state of the device.
func (c *Client) MigrationState() (MigrationState, error) {
	b, err := c.feature(featMigState|featureGet, nil, migStateSize)
	if err != nil {
		return 0, err
	}
	return MigrationState(order.Uint32(b)), nil
}

// SetMigrationState takes the device to a state, over others if need be.
func (c *Client) SetMigrationState(s MigrationState) error {
	data := order.AppendUint32(order.AppendUint32(nil, uint32(s)), noDataFD)
	_, err := c.feature(featMigState|featureSet, data, migStateSize)
	return err
}

// ReadMigration reads the next bytes of the device's state. Fewer than len(p), which is
// at most 1 MiB, mean that there are no more for now.
func (c *Client) ReadMigration(p []byte) (int, error) {
	req := order.AppendUint32(nil, migDataSize+uint32(len(p)))
	b, err := c.callFixed(cmdMigDataRead, order.AppendUint32(req, uint32(len(p))), migDataSize)
	if err != nil {
		return 0, err
	}
	n := order.Uint32(b[4:])
	data := b[migDataSize:] // libvfio-user sends as much as was asked for; size says what counts
	if uint64(n) > uint64(len(data)) || uint64(n) > uint64(len(p)) {
		return 0, fmt.Errorf("vfiouser: reply to %v has size %d and %d bytes of data, asked for %d", cmdMigDataRead, n, len(data), len(p))
	}
	return copy(p, data[:n]), nil
}

// WriteMigration writes the next bytes of a device's state.
func (c *Client) WriteMigration(p []byte) error {
	for len(p) > 0 {
		n := min(uint64(len(p)), c.agreed.MaxDataXferSize)
		if n == 0 {
			return fmt.Errorf("vfiouser: the server takes no data: its max_data_xfer_size is 0")
		}
		req := order.AppendUint32(nil, migDataSize+uint32(n))
		req = order.AppendUint32(req, uint32(n))
		if _, err := c.call(cmdMigDataWrite, append(req, p[:n]...), nil); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// StartLog has the pages logged that the device writes, in ranges or, without any,
// everywhere. It returns the page size that the server chose.
func (c *Client) StartLog(pageSize uint64, ranges ...iova.Range) (uint64, error) {
	data := order.AppendUint64(nil, pageSize)
	data = order.AppendUint32(data, uint32(len(ranges)))
	data = order.AppendUint32(data, 0)
	for _, r := range ranges {
		data = order.AppendUint64(data, uint64(r.Addr))
		data = order.AppendUint64(data, r.Size)
	}
	b, err := c.feature(featLogStart|featureSet, data, logControlSize)
	if err != nil {
		return 0, err
	}
	return order.Uint64(b), nil
}

// StopLog ends the log.
func (c *Client) StopLog() error {
	_, err := c.feature(featLogStop|featureSet, nil, 0)
	return err
}

// ReportDirty returns one bit for each page of [addr, addr+size), set if the device wrote
// to it since the last report.
func (c *Client) ReportDirty(addr iova.Addr, size, pageSize uint64) ([]uint64, error) {
	n, err := c.bitmapSize(size, pageSize)
	if err != nil {
		return nil, err
	}
	data := order.AppendUint64(nil, uint64(addr))
	data = order.AppendUint64(data, size)
	data = order.AppendUint64(data, pageSize)
	b, err := c.feature(featLogReport|featureGet, data, logReportSize+n)
	if err != nil {
		return nil, err
	}
	return words(b[logReportSize : logReportSize+n]), nil
}

// UnmapDirty is UnmapDMA and returns what ReportDirty would, with every write that
// there was.
func (c *Client) UnmapDirty(addr iova.Addr, size, pageSize uint64) ([]uint64, error) {
	n, err := c.bitmapSize(size, pageSize)
	if err != nil {
		return nil, err
	}
	req := unmapRequest(unmapDirty, addr, size)
	req = order.AppendUint64(req, pageSize)
	req = order.AppendUint64(req, uint64(n))
	order.PutUint32(req, uint32(len(req)+n))
	b, err := c.callFixed(cmdDMAUnmap, req, len(req)+n)
	if err != nil {
		return nil, err
	}
	return words(b[len(req) : len(req)+n]), c.memory.Unmap(addr, size)
}

// bitmapSize returns the bytes of a bitmap, if they can be asked for.
func (c *Client) bitmapSize(size, pageSize uint64) (int, error) {
	if pageSize == 0 {
		return 0, fmt.Errorf("vfiouser: a bitmap of pages of 0 bytes; give a power of two")
	}
	n := iova.BitmapSize(size, pageSize)
	if n > maxBitmap {
		return 0, fmt.Errorf("vfiouser: a bitmap of %d bytes; ask for parts of at most %d", n, maxBitmap)
	}
	return int(n), nil
}

// words takes a bitmap apart.
func words(b []byte) []uint64 {
	w := make([]uint64, len(b)/8)
	for i := range w {
		w[i] = order.Uint64(b[8*i:])
	}
	return w
}

// IRQAction is what IRQSet does to vectors.
type IRQAction uint32

// The actions.
const (
	IRQMask    IRQAction = setActionMask
	IRQUnmask  IRQAction = setActionUnmask
	IRQTrigger IRQAction = setActionTrigger
)

// IRQSet is a DEVICE_SET_IRQS. With Bools the action is for the vectors whose byte is
// not 0; with FDs it comes to pass by eventfd, which the device signals for IRQTrigger
// and the client for the others; with Detach what was attached so is taken away. Otherwise
// it is for all Count vectors, or, with Count 0, disables the type.
type IRQSet struct {
	Index, Start, Count int
	Action              IRQAction
	Bools               []byte
	FDs                 []*eventfd.FD // stay the caller's
	Detach              bool
}

// SetIRQs sends s.
func (c *Client) SetIRQs(s IRQSet) error {
	data := uint32(setDataNone)
	switch {
	case s.Bools != nil:
		data = setDataBool
	case s.FDs != nil || s.Detach:
		data = setDataEventfd
	}
	if n := len(s.FDs); uint64(n) > c.agreed.MaxMsgFDs {
		return fmt.Errorf("vfiouser: %d eventfds in one message; the server takes %d", n, c.agreed.MaxMsgFDs)
	}
	var raw []int
	for _, f := range s.FDs {
		raw = append(raw, f.Fd())
	}
	req := order.AppendUint32(nil, uint32(irqSetSize+len(s.Bools)))
	for _, v := range []uint32{data | uint32(s.Action), uint32(s.Index), uint32(s.Start), uint32(s.Count)} {
		req = order.AppendUint32(req, v)
	}
	_, err := c.call(cmdSetIRQs, append(req, s.Bools...), raw)
	return err
}

// IOEventFD is a part of a region that can be written by signalling FD, as IOEvent
// describes it. FD and Shadow are the caller's; several of one region may share them.
type IOEventFD struct {
	IOEvent
	FD *eventfd.FD
}

// Write writes v as KVM would: the value to the shadow, if there is one, and a signal.
func (e IOEventFD) Write(v uint64) error {
	if e.Shadow != nil {
		if _, err := e.Shadow.WriteAt(hostBytes(v, e.Size), int64(e.ShadowOff)); err != nil {
			return fmt.Errorf("vfiouser: write the shadow: %w", err)
		}
	}
	e.FD.Signal()
	return nil
}

// RegionIOFDs returns the parts of a region that can be written by eventfd.
func (c *Client) RegionIOFDs(index int) ([]IOEventFD, error) {
	req := order.AppendUint32(nil, ioFDsSize+MaxIOEvents*ioFDShadowEntry)
	for _, v := range []uint32{0, uint32(index), 0} {
		req = order.AppendUint32(req, v)
	}
	r := c.do(cmdGetRegionIOFDs, req, nil, 0)
	if r.err != nil {
		return nil, r.err
	}
	defer func() {
		for _, fd := range r.fds {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
	}()
	entries, err := parseIOFDs(r.body, len(r.fds))
	if err != nil {
		return nil, err
	}
	events := make(map[uint32]*eventfd.FD)
	shadows := make(map[uint32]*os.File)
	fail := func(err error) ([]IOEventFD, error) {
		for _, fd := range events {
			fd.Close()
		}
		for _, f := range shadows {
			f.Close()
		}
		return nil, err
	}
	all := make([]IOEventFD, len(entries))
	for i, e := range entries {
		if events[e.fd] == nil {
			raw := r.fds[e.fd]
			if raw < 0 {
				return fail(fmt.Errorf("vfiouser: descriptor %d of the region is eventfd and shadow", e.fd))
			}
			r.fds[e.fd] = -1
			fd, err := eventfd.Adopt(raw)
			if err != nil {
				return fail(err)
			}
			events[e.fd] = fd
		}
		all[i] = IOEventFD{e.IOEvent, events[e.fd]}
		if !e.shadowed {
			continue
		}
		if shadows[e.shadow] == nil {
			raw := r.fds[e.shadow]
			if raw < 0 {
				return fail(fmt.Errorf("vfiouser: descriptor %d of the region is eventfd and shadow", e.shadow))
			}
			r.fds[e.shadow] = -1
			shadows[e.shadow] = os.NewFile(uintptr(raw), fmt.Sprintf("vfio-user region %d shadow", index))
		}
		all[i].Shadow = shadows[e.shadow]
	}
	return all, nil
}

// ioFD is an entry of a reply to DEVICE_GET_REGION_IO_FDS.
type ioFD struct {
	IOEvent
	fd, shadow uint32 // indexes of descriptors
	shadowed   bool
}

// parseIOFDs reads a reply that came with nfds descriptors.
func parseIOFDs(b []byte, nfds int) ([]ioFD, error) {
	if len(b) < ioFDsSize {
		return nil, fmt.Errorf("vfiouser: region I/O descriptors of %d bytes are cut short", len(b))
	}
	argsz, count := order.Uint32(b), order.Uint32(b[12:])
	b = b[ioFDsSize:]
	if count == 0 {
		return nil, nil
	}
	stride := (uint64(argsz) - ioFDsSize) / uint64(count)
	if argsz < ioFDsSize || stride < ioFDEntry || stride > 1024 || uint64(count)*stride > uint64(len(b)) {
		return nil, fmt.Errorf("vfiouser: %d region I/O descriptors with argsz %d in %d bytes", count, argsz, len(b))
	}
	entries := make([]ioFD, count)
	for i := range entries {
		e := b[uint64(i)*stride:]
		flags, kind := order.Uint32(e[24:]), order.Uint32(e[20:])
		size := order.Uint64(e[8:])
		entry := ioFD{
			IOEvent: IOEvent{
				Off: order.Uint64(e), Size: int(size), Value: order.Uint64(e[32:]),
				Match: flags&ioFlagMatch != 0, PIO: flags&ioFlagPIO != 0,
			},
			fd: order.Uint32(e[16:]),
		}
		known := kind == ioFDEvent || kind == ioFDShadow && stride >= ioFDShadowEntry
		if !known || size > 8 || uint64(entry.fd) >= uint64(nfds) {
			return nil, fmt.Errorf("vfiouser: region I/O descriptor of type %d for %d bytes, number %d of %d", kind, size, entry.fd, nfds)
		}
		if stride >= ioFDShadowEntry { // where libvfio-user has it
			entry.Value = order.Uint64(e[40:])
		}
		if kind == ioFDShadow {
			entry.shadow, entry.shadowed, entry.ShadowOff = order.Uint32(e[28:]), true, order.Uint64(e[32:])
			if uint64(entry.shadow) >= uint64(nfds) || entry.ShadowOff > 1<<62 {
				return nil, fmt.Errorf("vfiouser: a shadow at %#x of descriptor %d of %d", entry.ShadowOff, entry.shadow, nfds)
			}
		}
		entries[i] = entry
	}
	return entries, nil
}
