// SPDX-License-Identifier: Apache-2.0

// Package filemap maps the files behind a guest's memory, and survives a peer that
// truncates them: an access to a lost page becomes an error instead of SIGBUS.
//
// A file is mapped once, however many ranges lie in it, because an IOMMU with
// 4 KiB pages makes tens of thousands.
package filemap

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// MaxFiles bounds the kernel mappings of one Set. Linux gives a process
	// 65530, and the Go runtime dies without; QEMU needs one per memory backend.
	MaxFiles = 1024

	// MaxBytes bounds the sum of what a Set maps, far below the 128 TiB of
	// address space that this process shares with the runtime's heap.
	MaxBytes = 8 << 40
)

// Set holds the mappings of one peer's files. The zero value is empty and ready
// to use. Methods are safe for concurrent use.
type Set struct {
	mu    sync.Mutex       // guards all fields, and refs of the views
	byID  map[fileID]*view // the newest mapping of each file
	views int              // kernel mappings alive
	bytes uint64           // sum of their sizes
}

// fileID names a file independently of descriptors. A mapping keeps the inode
// alive, so the numbers cannot come to mean another file.
type fileID struct {
	dev, ino uint64
	writable bool
}

// view is one shared mapping of a file from its start. When the file has grown,
// ranges in the new part get a new view; the old one lives until its last range is
// gone.
type view struct {
	id   fileID
	data []byte
	refs int
}

// Range is a part of a mapped file. It is an iova.Memory. A naturally aligned
// access of 1, 2, 4 or 8 bytes is one load or store, so the peer never sees half a
// word; accesses of one goroutine become visible in order.
type Range struct {
	set  *Set
	view *view
	data []byte
}

// Open returns the size bytes at offset off of the file fd, which stays the
// caller's. An error wraps the unix.Errno that tells a peer about it, and its text
// is the rule and the remedy.
func (s *Set) Open(fd int, off, size uint64, write bool) (*Range, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("the descriptor cannot be used: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("the descriptor is not a file in memory; share guest memory as a memfd: %w", unix.EINVAL)
	}
	length := uint64(st.Size)
	if size == 0 || off > length || size > length-off {
		return nil, fmt.Errorf("%#x bytes at file offset %#x go beyond the file's %#x bytes; map what the file has: %w", size, off, length, unix.EINVAL)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return nil, fmt.Errorf("the descriptor cannot be used: %w", err)
	}
	id := fileID{dev: st.Dev, ino: st.Ino, writable: flags&unix.O_ACCMODE == unix.O_RDWR}
	if write && !id.writable {
		return nil, fmt.Errorf("a writable range on a descriptor that is not open for reading and writing: %w", unix.EACCES)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.byID[id]
	if v == nil || off+size > uint64(len(v.data)) {
		if v, err = s.mapLocked(fd, id, length); err != nil {
			return nil, err
		}
	}
	v.refs++
	return &Range{set: s, view: v, data: v.data[off : off+size : off+size]}, nil
}

func (s *Set) mapLocked(fd int, id fileID, length uint64) (*view, error) {
	if s.views >= MaxFiles {
		return nil, fmt.Errorf("more than %d files mapped; unmap some: %w", MaxFiles, unix.ENOSPC)
	}
	if length > MaxBytes-s.bytes {
		return nil, fmt.Errorf("a file of %#x bytes, with %#x mapped already, exceeds %#x; use smaller files: %w", length, s.bytes, uint64(MaxBytes), unix.ENOSPC)
	}
	prot := unix.PROT_READ
	if id.writable {
		prot |= unix.PROT_WRITE
	}
	data, err := unix.Mmap(fd, 0, int(length), prot, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("mmap of %#x bytes: %w", length, err)
	}
	v := &view{id: id, data: data}
	if s.byID == nil {
		s.byID = make(map[fileID]*view)
	}
	s.byID[id] = v
	s.views++
	s.bytes += length
	return v, nil
}

// Len returns the number of kernel mappings alive.
func (s *Set) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.views
}

// release drops one range's reference to a view.
func (s *Set) release(v *view) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v.refs--
	if v.refs > 0 {
		return
	}
	if s.byID[v.id] == v {
		delete(s.byID, v.id)
	}
	s.views--
	s.bytes -= uint64(len(v.data))
	if err := unix.Munmap(v.data); err != nil {
		panic("filemap: BUG: munmap of a mapping of ours: " + err.Error())
	}
}

// ReadAt fills p from offset off. Offset and length lie in the range.
func (r *Range) ReadAt(p []byte, off uint64) error {
	return guard(func() { copy(p, r.data[off:off+uint64(len(p))]) })
}

// WriteAt stores p at offset off. Offset and length lie in the range.
func (r *Range) WriteAt(p []byte, off uint64) error {
	return guard(func() { copy(r.data[off:off+uint64(len(p))], p) })
}

// ReadRows fills rows rows of size bytes, step bytes apart in p, from as many, stride bytes apart, of which the first is at off.
// They lie in p and in the range.
func (r *Range) ReadRows(p []byte, step, size, rows int, off, stride uint64) error {
	return guard(func() {
		for k := range rows {
			from := off + uint64(k)*stride
			copy(p[k*step:][:size], r.data[from:from+uint64(size)])
		}
	})
}

// WriteRows is ReadRows in the other direction; the rows are written one after the other.
func (r *Range) WriteRows(p []byte, step, size, rows int, off, stride uint64) error {
	return guard(func() {
		for k := range rows {
			to := off + uint64(k)*stride
			copy(r.data[to:to+uint64(size)], p[k*step:][:size])
		}
	})
}

// Same reports whether r and o are the same bytes of the same mapping.
func (r *Range) Same(o *Range) bool {
	return r.view == o.view && len(r.data) == len(o.data) && &r.data[0] == &o.data[0]
}

// Close gives the range back; the last one of a file unmaps it.
func (r *Range) Close() { r.set.release(r.view) }

// Copy copies src to dst, which has the same length, where one of them may be a
// peer's file.
func Copy(dst, src []byte) error {
	return guard(func() { copy(dst, src) })
}

var errAlignment = errors.New("filemap: a half-word or word at an address that is not aligned")

// guard runs access. A peer may truncate a file that is mapped here; touching the
// lost pages raises SIGBUS, which becomes an error.
func guard(access func()) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch fault := recover().(type) {
		case nil:
		case interface {
			runtime.Error
			Addr() uintptr
		}:
			err = fmt.Errorf("filemap: the file behind the range was truncated: %w", unix.EFAULT)
		default:
			panic(fault)
		}
	}()
	access()
	return nil
}
