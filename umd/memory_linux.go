// SPDX-License-Identifier: Apache-2.0

package umd

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// span is whole pages of the memory for buffers.
type span struct{ off, size uint64 }

// whole is size in whole pages; ok is false if there is no such number.
func whole(size uint64) (n uint64, ok bool) {
	n = max((size+page-1)&^(page-1), page)
	return n, size <= size+page-1
}

// Alloc returns size zeroed bytes at the start of a page, the first that are free.
func (d *Device) Alloc(size uint64) (Buffer, error) {
	if d.stopped != nil {
		return Buffer{}, d.stopped
	}
	n, ok := whole(size)
	left, most := uint64(0), uint64(0)
	for i, s := range d.free {
		if left, most = left+s.size, max(most, s.size); !ok || n > s.size {
			continue
		}
		if d.free[i] = (span{s.off + n, s.size - n}); s.size == n {
			d.free = slices.Delete(d.free, i, i+1)
		}
		return Buffer{Addr: base + s.off, Bytes: d.mem[s.off:][:size:size]}, nil
	}
	return Buffer{}, fmt.Errorf("umd: a buffer of %d bytes; %d of %d are left, %d in one piece (Config.Memory)", size, left, len(d.mem), most)
}

// Put returns a buffer with a copy of p.
func (d *Device) Put(p []byte) (Buffer, error) {
	b, err := d.Alloc(uint64(len(p)))
	copy(b.Bytes, p)
	return b, err
}

// Free takes back a buffer that Alloc or Put returned, and its memory; neither the card nor anybody else uses it any
// more. It panics if the buffer is none, or was taken back.
func (d *Device) Free(b Buffer) error {
	if d.fn == nil { // memory is gone with Close
		return nil
	}
	n, _ := whole(uint64(len(b.Bytes)))
	s := span{b.Addr - base, n}
	i, _ := slices.BinarySearchFunc(d.free, s.off, func(f span, off uint64) int {
		if f.off < off {
			return -1
		}
		return 1
	})
	if s.off > uint64(len(d.mem)) || n > uint64(len(d.mem))-s.off || i > 0 && d.free[i-1].off+d.free[i-1].size > s.off || i < len(d.free) && d.free[i].off < s.off+n {
		panic("umd: BUG: Free of a buffer that is none")
	}
	if err := unix.Madvise(d.mem[s.off:][:n], unix.MADV_REMOVE); err != nil { // zeroes, for both sides
		return fmt.Errorf("umd: give back %d bytes: %w", n, err)
	}
	if i < len(d.free) && s.off+n == d.free[i].off {
		s.size += d.free[i].size
		d.free = slices.Delete(d.free, i, i+1)
	}
	if i > 0 && d.free[i-1].off+d.free[i-1].size == s.off {
		d.free[i-1].size += s.size
		return nil
	}
	d.free = slices.Insert(d.free, i, s)
	return nil
}
