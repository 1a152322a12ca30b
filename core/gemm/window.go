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
	// A run is what lies in one piece: a pixel's channels, or a line of the window
	// if pixels follow each other without a gap.
	pixel, perLine := w.Channels*size, w.KernelW
	run := pixel
	if w.DilationX == 1 && w.Pixel == pixel {
		run, perLine = pixel*w.KernelW, 1
	}
	at, c := k/run, k%run
	ky, kx := at/perLine, at%perLine
	oy, ox := r/w.OutW, r%w.OutW
	for len(to) > 0 {
		y := oy*w.StepY + ky*w.DilationY - w.PadTop
		x := ox*w.StepX + kx*w.DilationX - w.PadLeft
		n := min(run-c, len(to))
		from, end := n, n // of the bytes that are in the image
		if uint(y) < uint(w.InH) {
			if run > pixel {
				from = min(max(-x*pixel-c, 0), n)
				end = max(min((w.InW-x)*pixel-c, n), from)
			} else if uint(x) < uint(w.InW) {
				from = 0
			}
		}
		fill(to[:from], pad)
		if from < end {
			copy(to[from:end], image[y*w.Line+x*w.Pixel+w.Offset+c+from:])
		}
		fill(to[end:n], pad)
		to, c = to[n:], 0
		if kx++; kx == perLine {
			kx = 0
			ky++
		}
	}
}

func fill(to []byte, v byte) {
	for i := range to {
		to[i] = v
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
