// SPDX-License-Identifier: Apache-2.0

package gemm

import (
	"syscall"
	"testing"
	"unsafe"
)

// pageEnd returns n bytes behind which memory cannot be accessed.
func pageEnd(t *testing.T, n int) ([]byte, func()) {
	t.Helper()
	const page = 4096
	size := ceil(n, page) * page
	m, err := syscall.Mmap(-1, 0, size+page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mprotect(m[size:], syscall.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	return m[size-n : size : size], func() {
		if err := syscall.Munmap(m); err != nil {
			t.Error(err)
		}
	}
}

// Operands end where memory that may be read ends: no tier reads beyond them.
func TestReadsNothingBeyond(t *testing.T) {
	const m, n, k = 15, 33, 67
	each(t, func(t *testing.T, e *Engine) {
		a, freeA := pageEnd(t, m*k)
		defer freeA()
		b, freeB := pageEnd(t, k*n)
		defer freeB()
		cBytes, freeC := pageEnd(t, m*n*4)
		defer freeC()
		c := unsafe.Slice((*int32)(unsafe.Pointer(&cBytes[0])), m*n)
		var w Weights
		e.PackInt8(&w, b, n, k, n)
		e.MulInt8(&w, Int8{A: a, AStride: k, M: m, C: c, CStride: n, Accumulate: true, ZeroB: []int32{1}})
	})
}
