// SPDX-License-Identifier: Apache-2.0

package vec

import (
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
