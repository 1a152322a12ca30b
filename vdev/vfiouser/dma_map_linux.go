// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"errors"
	"math"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
)

// Bits and sizes of DMA_MAP and DMA_UNMAP.
const (
	dmaMapSize   = 32
	dmaUnmapSize = 24

	// VFIO_USER_F_DMA_REGION_MMAP and _FILE_IO of libvfio-user: how it would have
	// the descriptor used. We map it in any case.
	mapHints = 3 << 2

	unmapDirty = 1 << 0 // report dirty pages: VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP
	unmapAll   = 1 << 1 // unmap everything: VFIO_DMA_UNMAP_FLAG_ALL
)

func (c *conn) dmaMap(body []byte) error {
	if err := fixed(cmdDMAMap, body, dmaMapSize); err != nil {
		return err
	}
	flags, off := order.Uint32(body[4:]), order.Uint64(body[8:])
	addr, size := iova.Addr(order.Uint64(body[16:])), order.Uint64(body[24:])
	prot := iova.Prot(flags & 3) // the protocol's bits are the package's
	nfds := c.rights.Len()
	switch {
	case flags&^(3|mapHints) != 0 || prot == 0:
		return refuse(unix.EINVAL, "DMA_MAP: flags %#x; set readable (1), writeable (2) or both", flags)
	case size == 0 || size-1 > math.MaxUint64-uint64(addr):
		return refuse(unix.EINVAL, "DMA_MAP: %#x bytes at %v are not an address range", size, addr)
	case size > maxDMABytes:
		return refuse(unix.ENOSPC, "DMA_MAP: %#x bytes; map at most %#x at once", size, uint64(maxDMABytes))
	case nfds > 1 || nfds == 0 && flags&mapHints != 0:
		return refuse(unix.EINVAL, "DMA_MAP: %d descriptors with flags %#x; send one or none, and one with bits 2 and 3", nfds, flags)
	case (uint64(addr)|size)&c.pageMask != 0 || nfds == 1 && off&c.pageMask != 0:
		return refuse(unix.EINVAL, "DMA_MAP: %#x bytes at %v from offset %#x; in VERSION the smallest of pgsizes was %#x: use multiples of it", size, addr, off, c.pageMask+1)
	case c.s.table != nil && uint64(c.s.table.Len()) >= c.maxMaps:
		return refuse(unix.EINVAL, "DMA_MAP: %d ranges are mapped, as many as max_dma_maps in VERSION; unmap some", c.maxMaps)
	}
	var mem iova.Memory = &messageMemory{c: c, base: addr}
	if nfds == 1 {
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
	if nfds == 0 && c.peerData > 0 {
		c.setServes(true)
	}
	return nil
}

// dmaUnmap succeeds where nothing is mapped: with a virtual IOMMU, QEMU sweeps
// the address space in large pieces. A bitmap of written pages is made when the last
// access has ended, so it has them all.
func (c *conn) dmaUnmap(body []byte) error {
	if err := fixed(cmdDMAUnmap, body, dmaUnmapSize); err != nil {
		return err
	}
	argsz, flags := order.Uint32(body), order.Uint32(body[4:])
	addr, size := iova.Addr(order.Uint64(body[8:])), order.Uint64(body[16:])
	var pageSize, n uint64 // of the bitmap
	switch {
	case flags == unmapAll:
		if addr != 0 || size != 0 {
			return refuse(unix.EINVAL, "DMA_UNMAP of everything: address %v, size %#x; both are 0", addr, size)
		}
		end := c.revoke(0, ^iova.Addr(0))
		c.s.backend.UnmapAllDMA()
		end()
		c.out = append(c.out, body[:dmaUnmapSize]...)
		return nil
	case flags != 0 && flags != unmapDirty:
		return refuse(unix.EINVAL, "DMA_UNMAP: flags %#x; set none, dirty bitmap (%#x) or unmap-all (%#x)", flags, unmapDirty, unmapAll)
	case size == 0 || size-1 > math.MaxUint64-uint64(addr):
		return refuse(unix.EINVAL, "DMA_UNMAP: %#x bytes at %v are not an address range", size, addr)
	case flags == unmapDirty:
		if len(body) < dmaUnmapSize+bitmapSize {
			return refuse(unix.EINVAL, "DMA_UNMAP with a dirty bitmap has %d bytes of payload; it needs %d", len(body), dmaUnmapSize+bitmapSize)
		}
		pageSize, n = order.Uint64(body[dmaUnmapSize:]), order.Uint64(body[dmaUnmapSize+8:])
		need, err := c.bitmap(cmdDMAUnmap, addr, size, pageSize)
		switch {
		case err != nil:
			return err
		case n < need || n > c.maxBitmap || n%8 != 0:
			return refuse(unix.EINVAL, "DMA_UNMAP: a bitmap of %d bytes; the range takes %d, and at most %d can be had, in words of 8", n, need, c.maxBitmap)
		case uint64(argsz) < dmaUnmapSize+bitmapSize+n:
			return refuse(unix.EINVAL, "DMA_UNMAP has argsz %d; its reply takes %d", argsz, dmaUnmapSize+bitmapSize+n)
		}
	}
	if c.s.cfg.Strict {
		if argsz > maxStrictReply {
			return refuse(unix.EINVAL, "DMA_UNMAP has argsz %d; strictly, at most %d", argsz, maxStrictReply)
		}
		if err := c.exactly(addr, size, unix.ENOENT); err != nil {
			return err
		}
	}
	end := c.revoke(addr, addr+iova.Addr(size-1))
	err := c.s.backend.UnmapDMA(addr, size)
	end()
	if err != nil {
		return refuse(dmaErrno(err, unix.EINVAL), "DMA_UNMAP: %v", err)
	}
	c.out = append(c.out, body[:dmaUnmapSize]...)
	if flags == unmapDirty {
		c.out = append(c.out, body[dmaUnmapSize:dmaUnmapSize+bitmapSize]...)
		return c.appendDirty(cmdDMAUnmap, addr, size, pageSize, n)
	}
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
