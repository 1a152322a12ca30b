// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
)

// maxFileMappings bounds the kernel mappings of one connection. Linux gives a
// process 65530, and the Go runtime dies without; QEMU needs one per memory
// backend.
const maxFileMappings = 1024

// files holds the mappings of the files behind DMA ranges: one per file, however
// many ranges lie in it, because an IOMMU with 4 KiB pages makes tens of
// thousands.
type files struct {
	mu    sync.Mutex           // guards all fields, and refs of the mappings
	byID  map[fileID]*fileView // the newest mapping of each file
	views int                  // kernel mappings alive
	bytes uint64               // sum of their sizes
}

// fileID names a file independently of descriptors. A mapping keeps the inode
// alive, so the numbers cannot come to mean another file.
type fileID struct {
	dev, ino uint64
	writable bool
}

// fileView is one shared mapping of a file from its start. When the file has
// grown, ranges in the new part get a new view; the old one lives until its last
// range is gone.
type fileView struct {
	id   fileID
	data []byte
	refs int
}

// open returns the size bytes at offset off of the file fd, which stays the
// caller's.
func (f *files) open(fd int, off, size uint64, prot iova.Prot) (iova.Memory, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, refuse(unix.EINVAL, "DMA_MAP: the descriptor cannot be used: %v", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, refuse(unix.EINVAL, "DMA_MAP: the descriptor is not a file in memory; share guest memory as a memfd, or map without a descriptor")
	}
	length := uint64(st.Size)
	if off > length || size > length-off {
		return nil, refuse(unix.EINVAL, "DMA_MAP: %#x bytes at file offset %#x go beyond the file's %#x bytes; map what the file has", size, off, length)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return nil, refuse(unix.EINVAL, "DMA_MAP: the descriptor cannot be used: %v", err)
	}
	id := fileID{dev: st.Dev, ino: st.Ino, writable: flags&unix.O_ACCMODE == unix.O_RDWR}
	if prot&iova.Write != 0 && !id.writable {
		return nil, refuse(unix.EACCES, "DMA_MAP: a writable range on a descriptor that is not open for reading and writing")
	}

	f.mu.Lock()
	defer f.mu.Unlock()
	view := f.byID[id]
	if view == nil || off+size > uint64(len(view.data)) {
		if view, err = f.mapLocked(fd, id, length); err != nil {
			return nil, err
		}
	}
	view.refs++
	return &fileMemory{files: f, view: view, data: view.data[off : off+size : off+size]}, nil
}

func (f *files) mapLocked(fd int, id fileID, length uint64) (*fileView, error) {
	if f.views >= maxFileMappings {
		return nil, refuse(unix.ENOSPC, "DMA_MAP: more than %d files mapped; unmap some", maxFileMappings)
	}
	if length > maxDMABytes-f.bytes {
		return nil, refuse(unix.ENOSPC, "DMA_MAP: a file of %#x bytes, with %#x mapped already, exceeds %#x; use smaller files", length, f.bytes, uint64(maxDMABytes))
	}
	prot := unix.PROT_READ
	if id.writable {
		prot |= unix.PROT_WRITE
	}
	data, err := unix.Mmap(fd, 0, int(length), prot, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return nil, refuse(errnoOf(err), "DMA_MAP: mmap of %#x bytes: %v", length, err)
	}
	view := &fileView{id: id, data: data}
	if f.byID == nil {
		f.byID = make(map[fileID]*fileView)
	}
	f.byID[id] = view
	f.views++
	f.bytes += length
	return view, nil
}

// release drops one range's reference to a view.
func (f *files) release(view *fileView) {
	f.mu.Lock()
	defer f.mu.Unlock()
	view.refs--
	if view.refs > 0 {
		return
	}
	if f.byID[view.id] == view {
		delete(f.byID, view.id)
	}
	f.views--
	f.bytes -= uint64(len(view.data))
	if err := unix.Munmap(view.data); err != nil {
		panic("vfiouser: BUG: munmap of a mapping of ours: " + err.Error())
	}
}

// fileMemory is a DMA range in a file. A naturally aligned access of 1, 2, 4 or 8
// bytes is one load or store, so the peer never sees half a word; accesses made
// one after the other through an iova.Table become visible in that order.
type fileMemory struct {
	files *files
	view  *fileView
	data  []byte
}

func (m *fileMemory) ReadAt(p []byte, off uint64) error {
	return copyGuarded(p, m.data[off:off+uint64(len(p))])
}

func (m *fileMemory) WriteAt(p []byte, off uint64) error {
	return copyGuarded(m.data[off:off+uint64(len(p))], p)
}

// Close gives the range back; the last one of a file unmaps it.
func (m *fileMemory) Close() { m.files.release(m.view) }

// copyGuarded copies src to dst, which has the same length. A peer may truncate
// a file that is mapped here; touching the lost pages raises SIGBUS, which
// becomes an error.
func copyGuarded(dst, src []byte) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch fault := recover().(type) {
		case nil:
		case interface {
			runtime.Error
			Addr() uintptr
		}:
			err = fmt.Errorf("vfiouser: the file behind the range was truncated: %w", unix.EFAULT)
		default:
			panic(fault)
		}
	}()
	copy(dst, src)
	return nil
}
