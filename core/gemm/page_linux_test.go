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

		// An image of 5×6 pixels, as a convolution without padding, and channel by channel.
		const channels = 21
		image, freeImage := pageEnd(t, 5*6*channels)
		defer freeImage()
		window := Window{
			InH: 5, InW: 6, Line: 6 * channels, Pixel: channels, Channels: channels, OutH: 3, OutW: 5, KernelH: 3, KernelW: 2, StepY: 1, StepX: 1, DilationY: 1, DilationX: 1,
		}
		e.PackInt8Lines(&w, make([]byte, window.depth()*n), n, window.depth(), n, window.Run(1))
		e.MulInt8(&w, Int8{A: image, M: 15, Window: &window, C: c, CStride: n})
		windows, freeW := pageEnd(t, 6*channels)
		defer freeW()
		e.Depthwise(Depthwise{Window: &window, Image: image, W: windows, WStride: channels, C: c[len(c)-15*channels:], CStride: channels})
	})
}
