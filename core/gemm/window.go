// SPDX-License-Identifier: Apache-2.0

package gemm

// Window makes a left operand of an image, without a copy of it in memory: row
// r = y·OutW + x has, for each position of the window, from top left along the
// lines, Channels elements of the pixel under it. What lies outside of the
// image is padding. All are at least 1, paddings and Offset at least 0.
type Window struct {
	InH, InW             int // lines, pixels of a line
	Line, Pixel          int // bytes from a line to the next, and from a pixel
	Offset               int // bytes from the beginning of a pixel to the channels
	Channels             int
	OutH, OutW           int
	KernelH, KernelW     int
	StepY, StepX         int
	DilationY, DilationX int
	PadTop, PadLeft      int
}

// depth is the number of elements of a row.
func (w *Window) depth() int { return w.KernelH * w.KernelW * w.Channels }

// gather writes len(to) bytes of row r, from byte k on, to to.
func (w *Window) gather(to, image []byte, r, k, size int, pad byte) {
	channels := w.Channels * size
	position, c := k/channels, k%channels
	ky, kx := position/w.KernelW, position%w.KernelW
	oy, ox := r/w.OutW, r%w.OutW
	for len(to) > 0 {
		y := oy*w.StepY + ky*w.DilationY - w.PadTop
		x := ox*w.StepX + kx*w.DilationX - w.PadLeft
		n := min(channels-c, len(to))
		if uint(y) < uint(w.InH) && uint(x) < uint(w.InW) {
			copy(to[:n], image[y*w.Line+x*w.Pixel+w.Offset+c:][:n])
		} else {
			for i := range n {
				to[i] = pad
			}
		}
		to, c = to[n:], 0
		if kx++; kx == w.KernelW {
			kx = 0
			ky++
		}
	}
}

// check panics unless the image lies in n bytes and the window is one.
func (w *Window) check(n, size int) {
	for _, v := range [...]int{w.InH, w.InW, w.Channels, w.OutH, w.OutW, w.KernelH, w.KernelW, w.StepY, w.StepX, w.DilationY, w.DilationX, w.PadTop + 1, w.PadLeft + 1, w.Offset + 1} {
		if v < 1 {
			panic("gemm: BUG: a window with nothing in it")
		}
	}
	check("a line", w.InW, w.Offset+w.Channels*size, w.Pixel, n)
	check("image", w.InH, (w.InW-1)*w.Pixel+w.Offset+w.Channels*size, w.Line, n)
}
