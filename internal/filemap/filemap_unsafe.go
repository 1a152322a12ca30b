// SPDX-License-Identifier: Apache-2.0

//go:build linux

package filemap

import (
	"sync/atomic"
	"unsafe"
)

// Go has no 16-bit atomics: a half-word is loaded with the aligned 32-bit word that
// contains it, and stored by compare-and-swap of that word. The word's other
// half may lie outside the range, but not outside its page, and keeps its value. Both
// are as ordered as sync/atomic.

// Load16 loads the half-word at off, which lies in the range, at an even address.
// The value is in the byte order of the machine, which is little-endian.
func (r *Range) Load16(off uint64) (v uint16, err error) {
	word, shift, ok := wordOf(&r.data[off])
	if !ok {
		return 0, errAlignment
	}
	err = guard(func() { v = uint16(atomic.LoadUint32(word) >> shift) })
	return v, err
}

// Store16 stores a half-word, as Load16 loads it. The range is writable.
func (r *Range) Store16(off uint64, v uint16) error {
	word, shift, ok := wordOf(&r.data[off])
	if !ok {
		return errAlignment
	}
	return guard(func() {
		for {
			old := atomic.LoadUint32(word)
			if atomic.CompareAndSwapUint32(word, old, old&^(0xffff<<shift)|uint32(v)<<shift) {
				return
			}
		}
	})
}

// Load32 and Store32 load and store the word at off, which lies in the range, at an
// address that is a multiple of 4, in the byte order of the machine.
func (r *Range) Load32(off uint64) (v uint32, err error) {
	word, shift, _ := wordOf(&r.data[off])
	if shift != 0 || uint64(len(r.data))-off < 4 {
		return 0, errAlignment
	}
	err = guard(func() { v = atomic.LoadUint32(word) })
	return v, err
}

// Store32 stores a word. The range is writable.
func (r *Range) Store32(off uint64, v uint32) error {
	word, shift, _ := wordOf(&r.data[off])
	if shift != 0 || uint64(len(r.data))-off < 4 {
		return errAlignment
	}
	return guard(func() { atomic.StoreUint32(word, v) })
}

func wordOf(p *byte) (word *uint32, shift uint, ok bool) {
	low := uintptr(unsafe.Pointer(p)) & 3
	return (*uint32)(unsafe.Add(unsafe.Pointer(p), -int(low))), uint(low) * 8, low&1 == 0
}

// Watchable reports whether the word at off is aligned in memory.
func (r *Range) Watchable(off uint64) bool {
	return uintptr(unsafe.Pointer(&r.data[off]))&7 == 0
}

// Load64 loads the word at off, which lies in the range and is Watchable.
func (r *Range) Load64(off uint64) (v uint64, err error) {
	word := (*uint64)(unsafe.Pointer(&r.data[off : off+8][0]))
	err = guard(func() { v = atomic.LoadUint64(word) })
	return v, err
}
