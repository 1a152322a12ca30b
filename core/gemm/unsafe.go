// SPDX-License-Identifier: Apache-2.0

package gemm

import "unsafe"

// All pointer arithmetic of the package begins here. Mul and Pack have checked
// the operands' sizes when it is used.

// alignment of packed operands: a cache line.
const alignment = 64

func add(p *byte, n int) *byte { return (*byte)(unsafe.Add(unsafe.Pointer(p), n)) }

// aligned returns the first aligned byte of b, which grow made.
func aligned(b []byte) *byte {
	return add(&b[0], int(-uintptr(unsafe.Pointer(&b[0]))%alignment))
}

func words(p *byte, n int) []uint32    { return unsafe.Slice((*uint32)(unsafe.Pointer(p)), n) }
func int32s(p *byte, n int) []int32    { return unsafe.Slice((*int32)(unsafe.Pointer(p)), n) }
func int64s(p *byte, n int) []int64    { return unsafe.Slice((*int64)(unsafe.Pointer(p)), n) }
func floats(p *byte, n int) []float32  { return unsafe.Slice((*float32)(unsafe.Pointer(p)), n) }
func pointers(p **byte, n int) []*byte { return unsafe.Slice(p, n) }

// Floats returns the memory of words as binary32.
func Floats(words []int32) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(words))), len(words))
}
