// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"math/bits"
	"slices"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
)

// Parts of DEVICE_FEATURE and of the messages beside it, from the specification and
// linux/vfio.h.
const (
	featureIndex = 0xffff
	featureGet   = 1 << 16 // VFIO_DEVICE_FEATURE_GET
	featureSet   = 1 << 17 // VFIO_DEVICE_FEATURE_SET
	featureProbe = 1 << 18 // VFIO_DEVICE_FEATURE_PROBE

	featMigration = 1 // VFIO_DEVICE_FEATURE_MIGRATION
	featMigState  = 2 // VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE
	featLogStart  = 6 // VFIO_DEVICE_FEATURE_DMA_LOGGING_START
	featLogStop   = 7 // VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP
	featLogReport = 8 // VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT

	featureSize    = 8
	migStateSize   = 8
	migDataSize    = 8
	logControlSize = 16
	logRangeSize   = 16
	logReportSize  = 24
	bitmapSize     = 16 // of the bitmap's description in DMA_UNMAP

	// maxBitmap is our migration.max_bitmap_size: the pages of 1 TiB in one
	// report. The protocol's default is 256 MiB; we would have to hold that in
	// memory, and a report of a part costs one message more.
	maxBitmap = 32 << 20

	// maxStrictReply is the argsz that libvfio-user takes for a bitmap.
	maxStrictReply = 1 << 20
)

// featureOps returns what can be done with a feature: some of featureGet and featureSet.
func (c *conn) featureOps(index uint32) uint32 {
	switch {
	case index == featMigration && c.s.migration.dev != nil:
		return featureGet
	case index == featMigState && c.s.migration.dev != nil:
		return featureGet | featureSet
	case (index == featLogStart || index == featLogStop) && c.s.table != nil:
		return featureSet
	case index == featLogReport && c.s.table != nil:
		return featureGet
	}
	return 0
}

func (c *conn) feature(body []byte) error {
	if err := fixed(cmdFeature, body, featureSize); err != nil {
		return err
	}
	argsz, flags := order.Uint32(body), order.Uint32(body[4:])
	index, op := flags&featureIndex, flags&^featureIndex
	can := c.featureOps(index)
	switch {
	case can == 0:
		return refuse(unix.EINVAL, "DEVICE_FEATURE: the device does not have feature %d; probe first", index)
	case op&^(can|featureProbe) != 0:
		return refuse(unix.EINVAL, "DEVICE_FEATURE: flags %#x; feature %d takes %#x", flags, index, can|featureProbe)
	case op&featureProbe == 0 && bits.OnesCount32(op) != 1:
		return refuse(unix.EINVAL, "DEVICE_FEATURE: flags %#x; set GET (%#x) or SET (%#x), or PROBE (%#x)", flags, featureGet, featureSet, featureProbe)
	case op != featureGet && uint64(argsz) < uint64(len(body)):
		return refuse(unix.EINVAL, "DEVICE_FEATURE has argsz %d; its reply takes %d", argsz, len(body))
	}
	at := len(c.out)
	if op != featureGet {
		c.out = append(c.out, body...) // SET and PROBE are answered with the request
		if op&featureProbe != 0 {
			return nil
		}
	}
	data := body[featureSize:]
	switch {
	case index == featMigration:
		return c.getFeature(body, order.AppendUint64(nil, uint64(c.s.migration.flags)))
	case index == featMigState && op == featureGet:
		return c.getFeature(body, order.AppendUint32(order.AppendUint32(nil, uint32(c.s.migration.state)), noDataFD))
	case index == featMigState:
		if len(data) < migStateSize {
			return refuse(unix.EINVAL, "DEVICE_FEATURE: a migration state of %d bytes; it takes %d", len(data), migStateSize)
		}
		return c.s.migration.set(MigrationState(order.Uint32(data)))
	case index == featLogStart:
		return c.startLog(data, at)
	case index == featLogStop:
		c.s.table.StopLog()
		return nil
	}
	return c.reportLog(body)
}

// noDataFD is the data_fd of a state without a file, as all are here.
const noDataFD = ^uint32(0)

// getFeature answers a GET whose payload is body with data.
func (c *conn) getFeature(body, data []byte) error {
	need := uint32(featureSize + len(data))
	if argsz := order.Uint32(body); argsz < need {
		return refuse(unix.EINVAL, "DEVICE_FEATURE has argsz %d; its reply takes %d", argsz, need)
	}
	c.out = order.AppendUint32(c.out, need)
	c.out = append(c.out, body[4:featureSize]...)
	c.out = append(c.out, data...)
	return nil
}

// startLog starts the log of written pages. The reply, at offset at of c.out, tells the
// page size.
func (c *conn) startLog(data []byte, at int) error {
	if len(data) < logControlSize {
		return refuse(unix.EINVAL, "DEVICE_FEATURE: the control of a log of %d bytes; it takes %d", len(data), logControlSize)
	}
	pageSize, n, reserved := order.Uint64(data), order.Uint32(data[8:]), order.Uint32(data[12:])
	data = data[logControlSize:]
	switch {
	case reserved != 0:
		return refuse(unix.EINVAL, "DEVICE_FEATURE: the reserved field of a log is %#x; leave it 0", reserved)
	case n > iova.MaxLogRanges:
		return refuse(unix.E2BIG, "DEVICE_FEATURE: a log of %d ranges; give at most %d, or none for everything", n, iova.MaxLogRanges)
	case uint64(n)*logRangeSize > uint64(len(data)):
		return refuse(unix.EINVAL, "DEVICE_FEATURE: a log of %d ranges in %d bytes; each takes %d", n, len(data), logRangeSize)
	}
	var ranges []iova.Range
	for r := data[:n*logRangeSize]; len(r) > 0; r = r[logRangeSize:] {
		ranges = append(ranges, iova.Range{Addr: iova.Addr(order.Uint64(r)), Size: order.Uint64(r[8:])})
	}
	pageSize, err := c.s.table.StartLog(pageSize, ranges)
	if err != nil {
		return refuse(unix.EINVAL, "DEVICE_FEATURE: %v", err)
	}
	order.PutUint64(c.out[at+featureSize:], pageSize)
	return nil
}

func (c *conn) reportLog(body []byte) error {
	if len(body) < featureSize+logReportSize {
		return refuse(unix.EINVAL, "DEVICE_FEATURE: the report of a log has %d bytes of payload; it needs %d", len(body), featureSize+logReportSize)
	}
	body = body[:featureSize+logReportSize]
	argsz, data := order.Uint32(body), body[featureSize:]
	addr, size, pageSize := iova.Addr(order.Uint64(data)), order.Uint64(data[8:]), order.Uint64(data[16:])
	n, err := c.bitmap(cmdFeature, addr, size, pageSize)
	if err != nil {
		return err
	}
	need := uint64(len(body)) + n
	if uint64(argsz) < need {
		return refuse(unix.EINVAL, "DEVICE_FEATURE has argsz %d; its reply takes %d", argsz, need)
	}
	if c.s.cfg.Strict {
		if err := c.exactly(addr, size, unix.ENOTSUP); err != nil {
			return err
		}
	}
	c.out = order.AppendUint32(c.out, uint32(need))
	c.out = append(c.out, body[4:]...)
	return c.appendDirty(cmdFeature, addr, size, pageSize, n)
}

// bitmap returns the bytes of a bitmap for a range, if there is a log to make it from and
// the client takes that many.
func (c *conn) bitmap(cmd Command, addr iova.Addr, size, pageSize uint64) (uint64, error) {
	switch {
	case c.s.table == nil || !c.s.table.Logging():
		return 0, refuse(unix.EINVAL, "%v: written pages are not logged; start that first, or do without the bitmap", cmd)
	case size == 0 || size-1 > uint64(^addr):
		return 0, refuse(unix.EINVAL, "%v: %#x bytes at %v are not an address range", cmd, size, addr)
	case bits.OnesCount64(pageSize) != 1:
		return 0, refuse(unix.EINVAL, "%v: a bitmap of pages of %d bytes; give a power of two", cmd, pageSize)
	}
	n := iova.BitmapSize(size, pageSize)
	if n > c.maxBitmap {
		return 0, refuse(unix.EINVAL, "%v: a bitmap of %d bytes; ask for parts of at most %d", cmd, n, c.maxBitmap)
	}
	return n, nil
}

// appendDirty appends a bitmap of n bytes to the reply.
func (c *conn) appendDirty(cmd Command, addr iova.Addr, size, pageSize, n uint64) error {
	at := len(c.out)
	c.out = slices.Grow(c.out, int(n))[:at+int(n)]
	clear(c.out[at:])
	if err := c.s.table.ReportDirty(addr, size, pageSize, c.out[at:]); err != nil {
		return refuse(unix.EINVAL, "%v: %v", cmd, err)
	}
	return nil
}

// exactly refuses a range that is not one mapping from end to end: with ENOENT if
// nothing is mapped where it starts, with inexact if something else is.
func (c *conn) exactly(addr iova.Addr, size uint64, inexact unix.Errno) error {
	first, last, _, ok := c.s.table.Find(addr)
	switch {
	case !ok:
		return refuse(unix.ENOENT, "nothing is mapped at %v; name a mapping", addr)
	case first != addr || uint64(last-first) != size-1:
		return refuse(inexact, "%#x bytes at %v are not the mapping [%v, %v]; name a whole one", size, addr, first, last)
	}
	return nil
}
