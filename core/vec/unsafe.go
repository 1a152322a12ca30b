// SPDX-License-Identifier: Apache-2.0

package vec

import (
	"encoding/binary"
	"slices"
	"unsafe"
)

// line is the size of a cache line.
const line = 64

// aligned returns n quad words of room that begin with a cache line, and room,
// which it makes larger if need be.
func aligned(room []int64, n int) (grown, at []int64) {
	const more = line / 8
	if cap(room) < n+more {
		room = slices.Grow(room[:0], n+more)
	}
	room = room[:n+more]
	skip := int(-uintptr(unsafe.Pointer(&room[0])) % line / 8)
	return room, room[skip : skip+n]
}

// words returns the memory of p as words.
func words(p []int64) []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(p))), 2*len(p))
}

// Words returns the memory of accumulators as words.
func Words(acc []int32) []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(acc))), len(acc))
}

// Floats returns the memory of words as the numbers with those encodings.
func Floats(x []uint32) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(x))), len(x))
}

// littleEndian is whether words have the order of bytes that the scratchpad has.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// InPlace returns the memory of b, which is not empty, as words; ok is false if
// this processor cannot use them where they are.
func InPlace(b []byte) (w []uint32, ok bool) {
	p := unsafe.Pointer(unsafe.SliceData(b))
	if !littleEndian || uintptr(p)%4 != 0 {
		return nil, false
	}
	return unsafe.Slice((*uint32)(p), len(b)/4), true
}

// Raw returns the memory of accumulators as bytes, in the order of the
// scratchpad; ok is false if this processor's is another.
func Raw(acc []int32) (b []byte, ok bool) {
	if !littleEndian {
		return nil, false
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(acc))), 4*len(acc)), true
}
