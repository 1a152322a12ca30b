// SPDX-License-Identifier: Apache-2.0

package gemm

import "unsafe"

// Depthwise is a convolution in which every channel has a window of its own.
type Depthwise struct {
	Window   *Window // of Channels windows
	Image    []byte
	Unsigned bool  // the image is of uint8, else of int8
	ZeroA    int32 // zero point of the image, and its padding

	W       []byte // for each position of the window Channels int8
	WStride int    // bytes from a position to the next
	ZeroB   []int32
	Seed    []int32 // as with Int8

	C          []int32 // OutH·OutW rows of Channels; nil if only Done wants them
	CStride    int     // elements
	Accumulate bool
	Stop       func() bool                                                 // as with Int8; asked before each line of the result, and often enough in a long one
	Done       func(row, rows, column, columns int, c []int32, stride int) // as with Int8
}

// Bounds of what is interleaved at a time. Quads of a line are used at once, so they had better stay in the first level
// of the cache; a window that needs more than the second is computed channel by channel.
const (
	quadRows   = 4  // in a word
	quadBlock  = 32 // channels; lines are computed by so many
	lineBytes  = 40 << 10
	mostQuads  = 1 << 20
	mostTaps   = 16 << 20 // bytes of all weights
	leastQuads = 8        // channels
)

// depthwise is the convolution in progress by lines of quads.
type depthwise struct {
	p      Depthwise
	flip   uint32
	w      *byte // quads of the weights: for four lines of the window, for each tap
	comp   *byte // for each channel, what stands for padding everywhere, negative
	zeros  *byte // as many zeros
	pad    []byte
	pixel  int // bytes of a pixel's quads
	groups int // of four lines of the window
	pixels int // outputs at a time
	span   int // of the window in pixels
}

// Depthwise computes p modulo 2³². It panics as MulInt8 does.
func (e *Engine) Depthwise(p Depthwise) {
	w := p.Window
	w.check(len(p.Image), 1)
	n, positions := w.Channels, w.KernelH*w.KernelW
	check("weights", positions, n, p.WStride, len(p.W))
	if p.C != nil {
		check("C", w.OutH*w.OutW, n, p.CStride, len(p.C))
	} else if p.Accumulate || p.Done == nil {
		panic("gemm: BUG: a convolution without a place for it")
	}
	if len(p.ZeroB) > 1 && len(p.ZeroB) != n {
		panic("gemm: BUG: zero points do not match the channels")
	}
	if len(p.Seed) > 0 && (len(p.Seed) != n || p.Accumulate) {
		panic("gemm: BUG: seeds do not match the channels")
	}
	pixel := ceil(n, quadBlock) * quadBlock * word
	groups, span := ceil(w.KernelH, quadRows), (w.KernelW-1)*w.DilationX+1
	if e.tier.int8.quads == nil || n < leastQuads || len(p.ZeroB) > 0 || span*pixel > mostQuads || groups*w.KernelW*pixel > mostTaps {
		e.byChannels(p)
		return
	}
	d := &e.lines
	*d = depthwise{p: p, pixel: pixel, groups: groups, pixels: max(1, min(w.OutW, (lineBytes/pixel-span)/w.StepX+1)), flip: 0x80808080}
	if p.Unsigned {
		d.flip = 0
	}
	e.quadWeights(d)
	macs := float64(w.OutH*w.OutW) * float64(positions*n)
	t := max(1, min(e.most(), w.OutH, int(macs/e.grain*depthwiseCost)))
	d.span = span
	e.rooms(t)
	e.parts = t
	if t > 1 {
		e.parts = min(partsPerThread*t, w.OutH)
	}
	e.workers.run(t, e.parts, macs*depthwiseCost >= 2*wakeable*e.grain)
	*d = depthwise{}
}

// depthwiseCost is how many multiplications of a product take as long as one of a depthwise convolution.
const depthwiseCost = 4

// quadWeights makes the quads of the weights and what they give with padding.
func (e *Engine) quadWeights(d *depthwise) {
	w, n, k := d.p.Window, d.p.Window.Channels, &e.tier.int8
	taps := w.KernelW * d.pixel
	e.taps = grow(e.taps, d.groups*taps+4*d.pixel)
	d.w = aligned(e.taps)
	d.comp = add(d.w, d.groups*taps)
	d.zeros = add(d.comp, d.pixel)
	clear(unsafe.Slice(d.zeros, d.pixel))
	if len(e.pad) < n {
		e.pad = make([]byte, n)
	}
	d.pad = e.pad[:n]
	fill(d.pad, byte(d.p.ZeroA))
	rows, steps := e.scratch[0].rows[:quadRows], e.scratch[0].steps[:]
	for g := range d.groups {
		for i := range rows {
			rows[i], steps[i] = d.zeros, 0
			if ky := g*quadRows + i; ky < w.KernelH {
				rows[i], steps[i] = &d.p.W[ky*w.KernelW*d.p.WStride], d.p.WStride
			}
		}
		k.quads(add(d.w, g*taps), &rows[0], &steps[0], w.KernelW, n, 0)
	}
	padded := add(d.zeros, d.pixel)
	for i := range rows {
		rows[i], steps[i] = &d.pad[0], 0
	}
	k.quads(padded, &rows[0], &steps[0], 1, n, d.flip)
	k.line(d.comp, 0, padded, 0, 0, d.w, d.pixel, d.zeros, d.groups*w.KernelW, 1, d.pixel/word, 0)
	comp := int32s(d.comp, d.pixel/word)
	for i, v := range comp {
		comp[i] = -v
	}
	for i, v := range d.p.Seed {
		comp[i] += v
	}
}

// room makes s large enough for a part.
func (d *depthwise) room(s *scratch) {
	s.a = grow(s.a, ((d.pixels-1)*d.p.Window.StepX+d.span)*d.pixel)
	if d.p.C == nil {
		s.c = growTo(s.c, d.pixels*d.p.Window.Channels)
	}
}

// run computes part i with the memory of s.
func (d *depthwise) run(e *Engine, s *scratch, i int) {
	w := d.p.Window
	from, to := share(w.OutH, i, e.parts)
	for oy := from; oy < to; oy++ {
		for ox := 0; ox < w.OutW; ox += d.pixels {
			if d.p.Stop != nil && d.p.Stop() {
				return
			}
			d.segment(&e.tier.int8, s, oy, ox, min(d.pixels, w.OutW-ox))
		}
	}
	clear(s.rows[:])
}

// segment computes pixels of line oy from pixel ox on.
func (d *depthwise) segment(k *kernel, s *scratch, oy, ox, pixels int) {
	w := d.p.Window
	// The columns that the segment needs, and those of them that are in the image.
	first := ox*w.StepX - w.PadLeft
	end := first + (pixels-1)*w.StepX + (w.KernelW-1)*w.DilationX + 1
	left := min(max(first, 0), end)
	right := max(min(end, w.InW), left)
	q := aligned(s.a)
	load := 0
	if d.p.Accumulate {
		load = 1
	}
	comp := d.comp
	c, stride := s.c, w.Channels
	if d.p.C != nil {
		c, stride = d.p.C[(oy*w.OutW+ox)*d.p.CStride:], d.p.CStride
	}
	for g := range d.groups {
		for i := range quadRows {
			s.rows[i], s.steps[i] = &d.pad[0], 0
			ky := g*quadRows + i
			y := oy*w.StepY + ky*w.DilationY - w.PadTop
			if ky < w.KernelH && uint(y) < uint(w.InH) && left < right {
				s.rows[i], s.steps[i] = &d.p.Image[y*w.Line+left*w.Pixel+w.Offset], w.Pixel
			}
		}
		if left < right {
			k.quads(add(q, (left-first)*d.pixel), &s.rows[0], &s.steps[0], right-left, w.Channels, d.flip)
		}
		for i := range quadRows {
			s.rows[i], s.steps[i] = &d.pad[0], 0
		}
		if first < left {
			k.quads(q, &s.rows[0], &s.steps[0], left-first, w.Channels, d.flip)
		}
		if right < end {
			k.quads(add(q, (right-first)*d.pixel), &s.rows[0], &s.steps[0], end-right, w.Channels, d.flip)
		}
		k.line((*byte)(unsafe.Pointer(&c[0])), stride*word, q, w.StepX*d.pixel, w.DilationX*d.pixel,
			add(d.w, g*w.KernelW*d.pixel), d.pixel, comp, w.KernelW, pixels, w.Channels, load)
		load, comp = 1, d.zeros
	}
	if d.p.Done != nil {
		d.p.Done(oy*w.OutW+ox, pixels, 0, w.Channels, c, stride)
	}
}

// stopEvery is about how many multiplications lie between two looks at Stop.
const stopEvery = 1 << 20

// byChannels computes p position by position, on the caller's thread.
func (e *Engine) byChannels(p Depthwise) {
	w := p.Window
	n, positions := w.Channels, w.KernelH*w.KernelW
	if cap(e.pixels) < positions {
		e.pixels, e.windows = make([]*byte, positions), make([]*int32, positions)
	}
	if cap(e.wide) < positions*n {
		e.wide = make([]int32, positions*n)
	}
	wide := e.wide[:positions*n]
	for k := range positions {
		to := wide[k*n:][:n]
		for c, v := range p.W[k*p.WStride:][:n] {
			to[c] = int32(int8(v))
		}
		for c := range to {
			switch len(p.ZeroB) {
			case 0:
			case 1:
				to[c] -= p.ZeroB[0]
			default:
				to[c] -= p.ZeroB[c]
			}
		}
	}
	flip, zero := uint32(0), p.ZeroA
	if p.Unsigned {
		flip, zero = 0x80808080, p.ZeroA-128
	}
	e.row = growTo(e.row, n)
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
			row := e.row[:]
			if p.C != nil {
				row = p.C[(oy*w.OutW+ox)*p.CStride:][:n]
			}
			if !p.Accumulate {
				clear(row)
				copy(row, p.Seed)
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
						windows[inside] = &wide[(ky*w.KernelW+kx)*n]
						inside++
					}
				}
			}
			if inside > 0 {
				e.tier.int8.channels(&row[0], &pixels[0], &windows[0], inside, n, zero, flip)
			}
			if p.Done != nil {
				p.Done(oy*w.OutW+ox, 1, 0, n, row, n)
			}
		}
	}
	clear(pixels)
	clear(windows)
}
