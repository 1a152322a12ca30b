// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"math"

	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// imaging is an operation on images of which a line of the result needs a few of the input's, and each channel is on its own.
type imaging struct {
	*lower
	h, w, c, oh, ow int
	span            func(th int) int                          // lines that th lines of a result need at most
	window          func(o, t int) (first, count, before int) // those that t lines from o on need, and how many of padding before them
}

// check refuses images that instructions cannot name.
func (p *imaging) check() error {
	if p.c*4 > math.MaxUint16&^3 || p.h > math.MaxUint16 || p.w > math.MaxUint16 {
		return p.node.Errorf("an image of %d × %d × %d; lines and pixels have 16 bits and channels up to 16383", p.h, p.w, p.c)
	}
	return nil
}

// image is IMAGE for t lines of results of n channels from count lines: of what stays in the scratchpad the pixels have all channels.
func (p *imaging) image(t, count, n int, x, y systolic.Type) isa.Image {
	in, out := n*size(x), n*size(y)
	if p.place(p.x()).stays() {
		in = p.c * size(x)
	}
	if p.place(p.y()).stays() {
		out = p.c * size(y)
	}
	return isa.Image{
		Type: x, OutType: y, InH: uint16(count), InW: uint16(p.w), OutH: uint16(t), OutW: uint16(p.ow),
		XPixel: uint16(in), XLine: uint32(p.w * in), OutPixel: uint16(out), OutLine: uint32(p.ow * out),
	}
}

// parts cuts images into channels and lines for which there is room: f gets the first line of the result and how many, the first
// line that they need, how many and the lines of padding before it, the channels, and where input and result are. accRow is the
// accumulators that a channel takes. dense says that f needs the elements of a result beside each other.
func (p *imaging) parts(accRow, images int, dense bool, f func(o, t, first, count, before, n int, x, y uint32)) error {
	target := p.b.Target()
	s, so := p.x().Type.Bits()/8, p.y().Type.Bits()/8
	room := int(target.SpadSize) - p.spad - 8*align
	src, dst := denseView(p.place(p.x()), p.x().Shape, s), denseView(p.place(p.y()), p.y().Shape, so)
	once := func(p Place, n int) int { // bytes of a buffer
		if p.stays() {
			return 0
		}
		return n
	}
	fits := func(c, th int) bool {
		ih := p.span(th)
		return once(src.at, 2*ih*p.w*c*s)+once(dst.at, 2*th*p.ow*c*so) <= room && accRow*c <= int(target.AccSize)
	}
	if dst.at.stays() && dense && !fits(p.c, 1) {
		return p.node.Errorf("it does not work on what stays in the scratchpad")
	}
	c := p.c
	for !fits(c, 1) {
		if c == 1 {
			return p.node.Errorf("a line of %d pixels does not fit the scratchpad of %d bytes", p.w, target.SpadSize).WithRemedy("give the array more scratchpad")
		}
		c = ceil(c, 2)
	}
	th := 1
	for th < p.oh && fits(c, th+1) {
		th++
	}
	ih := p.span(th)
	in, out := p.room(src.at, 2, ih*p.w*c*s), p.room(dst.at, 2, th*p.ow*c*so)
	for img := range images {
		for c0 := 0; c0 < p.c; c0 += c {
			n := min(c, p.c-c0)
			for o := 0; o < p.oh; o += th {
				t := min(th, p.oh-o)
				first, count, before := p.window(o, t)
				from, to := box{[]int{img, first, 0, c0}, []int{1, count, p.w, n}}, box{[]int{img, o, 0, c0}, []int{1, t, p.ow, n}}
				x, y := within(src, from), within(dst, to)
				if in != nil {
					x = in.take()
					p.move(false, x, src, from)
				}
				if out != nil {
					y = out.take()
				}
				f(o, t, first, count, before, n, x, y)
				if out != nil {
					p.move(true, y, dst, to)
				}
			}
		}
	}
	return nil
}
