// SPDX-License-Identifier: Apache-2.0

package gemm

// Depthwise is a convolution in which every channel has a window of its own.
type Depthwise struct {
	Window *Window // of Channels windows
	Image  []byte  // int8
	ZeroA  int32   // zero point of the image, and its padding

	// W has for each position of the window Channels weights less their zero points.
	W []int32

	C          []int32 // OutH·OutW rows of Channels
	CStride    int     // elements
	Accumulate bool
	Stop       func() bool // asked before each line of the result, and often enough in a long one
}

// stopEvery is about how many multiplications lie between two looks at Stop.
const stopEvery = 1 << 20

// Depthwise computes p modulo 2³², on the caller's thread. It panics as MulInt8 does.
func (e *Engine) Depthwise(p Depthwise) {
	w := p.Window
	w.check(len(p.Image), 1)
	n, positions := w.Channels, w.KernelH*w.KernelW
	check("weights", positions, n, n, len(p.W))
	check("C", w.OutH*w.OutW, n, p.CStride, len(p.C))
	if cap(e.pixels) < positions {
		e.pixels, e.windows = make([]*byte, positions), make([]*int32, positions)
	}
	pixels, windows := e.pixels[:positions], e.windows[:positions]
	each, until := max(1, stopEvery/(positions*n)), 0
lines:
	for oy := range w.OutH {
		for ox := range w.OutW {
			if until--; ox == 0 || until <= 0 {
				if p.Stop != nil && p.Stop() {
					break lines
				}
				until = each
			}
			row := p.C[(oy*w.OutW+ox)*p.CStride:][:n]
			if !p.Accumulate {
				clear(row)
			}
			inside := 0 // padding is the zero point, which adds nothing
			for ky := range w.KernelH {
				y := oy*w.StepY + ky*w.DilationY - w.PadTop
				if uint(y) >= uint(w.InH) {
					continue
				}
				for kx := range w.KernelW {
					if x := ox*w.StepX + kx*w.DilationX - w.PadLeft; uint(x) < uint(w.InW) {
						pixels[inside] = &p.Image[y*w.Line+x*w.Pixel+w.Offset]
						windows[inside] = &p.W[(ky*w.KernelW+kx)*n]
						inside++
					}
				}
			}
			if inside > 0 {
				e.tier.int8.channels(&row[0], &pixels[0], &windows[0], inside, n, p.ZeroA)
			}
		}
	}
	clear(pixels)
	clear(windows)
}
