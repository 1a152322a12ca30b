// SPDX-License-Identifier: Apache-2.0

package core

import (
	"math"
	"slices"

	"npuemu/core/isa"
	"npuemu/core/num"
	"npuemu/core/systolic"
	"npuemu/core/vec"
)

// image is IMAGE (§5.6.22).
func (c *Core) image(i isa.Image) *Fault {
	if v := i.Check(c.limits); v != nil {
		return violation(0, v)
	}
	c.limits.Setup.Image = i
	return nil
}

// elements puts elements of t at byte at into to, as int32 or as encodings of fp32.
func (c *unit) elements(to []uint32, acc bool, t systolic.Type, at int) {
	c.get(to, span{acc: acc, typ: vec.Type(t), at: at, n: len(to)}, 0)
}

// place converts from, int32 or encodings of fp32, and stores it at byte at as
// elements of t (§6.6). from is not what it was afterwards.
func (c *unit) place(from []uint32, float, acc bool, t systolic.Type, saturate bool, at int) {
	if float { // NaNs
		c.vec.Compute(vec.Move, true, false, from, from, nil)
	}
	to := span{acc: acc, typ: vec.Type(t), at: at, n: len(from)}
	c.vec.Convert(from, float, to.typ)
	c.put(from, to, 0, saturate)
	c.overwritten(to)
}

// poisonedImage is poisonedRows for all that r reads of a local memory.
func (c *unit) poisonedImage(acc bool, r isa.Rows) *Fault {
	if acc || !c.poison.Some() {
		return nil
	}
	for o := range r.Outer {
		if f := c.poisonedRows(int(r.Base+o*r.OuterStride), int(r.Inner), int(r.InnerStride), int(r.Bytes)); f != nil {
			return f
		}
	}
	return nil
}

// pooling is a POOL at work.
type pooling struct {
	isa.Pool
	isa.Image
	op          vec.Op
	row, result []uint32 // of one pixel
	sums        []uint32 // of fp32: num.Lanes for each channel
	native      []byte   // the pixel that is made, if its elements can be compared as they are
	padded      int      // pixels of padding that count
}

// pool makes a pixel of every window (§5.6.23).
func (c *unit) pool(i isa.Pool) *Fault {
	if v := i.Check(*c.limits); v != nil {
		return violation(0, v)
	}
	im, n := &c.limits.Setup.Image, int(i.N)
	if f := c.poisonedImage(im.XAcc, im.XRows(i.X, i.N)); f != nil {
		return f
	}
	p := pooling{Pool: i, Image: *im, row: room(&c.x, n), result: room(&c.z, n)}
	p.op = [...]vec.Op{isa.PoolMax: vec.Max, isa.PoolMin: vec.Min, isa.PoolSum: vec.Add, isa.PoolAverage: vec.Add}[i.Op]
	if im.Type.Float() && i.Op >= isa.PoolSum {
		p.sums = room(&c.y, num.Lanes*n)
	}
	native := i.Op <= isa.PoolMin && im.Type == im.OutType && !im.XAcc && !im.OutAcc && c.vec.Native(p.op, vec.Type(im.Type))
	size := int(im.OutType.Bytes(uint64(n)))
	dense := native && (im.InW == 1 || int(im.XPixel) == size)
	for oy := range int(im.OutH) {
		columns := dense && c.poolColumns(&p, oy, size)
		for ox := range int(im.OutW) {
			if c.stopped() {
				return nil // the program ends anyway
			}
			at := int(i.Out) + oy*int(im.OutLine) + ox*int(im.OutPixel)
			if native {
				p.native = c.spad[at:][:size:size]
			}
			if columns && c.poolRow(&p, ox) {
				c.poison.Overwritten(uint64(at), uint64(size))
				continue
			}
			p.start()
			count := c.walkWindow(&p, oy, ox)
			if native && count > 0 {
				c.poison.Overwritten(uint64(at), uint64(size))
				continue
			}
			c.finish(&p, count)
			c.place(p.result, im.Type.Float(), im.OutAcc, im.OutType, !im.NoSaturate, at)
		}
	}
	return nil
}

// poolColumns makes a line of the lines that the windows of line oy of the result have, whose pixels of so many bytes follow each
// other: what is compared as it is may be compared in any order, and lines are long. It reports false if there are none.
func (c *unit) poolColumns(p *pooling, oy, size int) bool {
	c.staging = slices.Grow(c.staging[:0], int(p.InW)*size)[:int(p.InW)*size]
	count := 0
	for ky := range int(p.KernelH) {
		y := oy*int(p.StepY) + ky*int(p.DilationY) - int(p.PadTop)
		if p.outside(y, int(p.InH), 0) {
			continue
		}
		line := c.spad[int(p.X)+y*int(p.XLine):][:len(c.staging)]
		if count++; count == 1 {
			copy(c.staging, line)
		} else {
			c.vec.Bytes(p.op, vec.Type(p.Type), c.staging, c.staging, line)
		}
	}
	return count > 0
}

// poolRow makes pixel ox of the line that poolColumns made. It reports false if its window has none.
func (c *unit) poolRow(p *pooling, ox int) bool {
	count := 0
	for kx := range int(p.KernelW) {
		x := ox*int(p.StepX) + kx*int(p.DilationX) - int(p.PadLeft)
		if p.outside(x, int(p.InW), 0) {
			continue
		}
		pixel := c.staging[x*len(p.native):][:len(p.native)]
		if count++; count == 1 {
			copy(p.native, pixel)
		} else {
			c.vec.Bytes(p.op, vec.Type(p.Type), p.native, p.native, pixel)
		}
	}
	return count > 0
}

// start makes the results those of a window without elements.
func (p *pooling) start() {
	var v uint32
	switch {
	case p.Op == isa.PoolMax && p.Type.Float():
		v = math.Float32bits(float32(math.Inf(-1)))
	case p.Op == isa.PoolMin && p.Type.Float():
		v = math.Float32bits(float32(math.Inf(1)))
	case p.Op == isa.PoolMax:
		v = 1 << 31
	case p.Op == isa.PoolMin:
		v = 1<<31 - 1
	}
	for k := range p.result {
		p.result[k] = v
	}
	clear(p.sums)
	p.padded = 0
}

// walkWindow takes the elements of the window at (oy, ox) in their order and
// returns how many pixels count.
func (c *unit) walkWindow(p *pooling, oy, ox int) (count int) {
	inH, inW := int(p.InH), int(p.InW)
	for ky := range int(p.KernelH) {
		y := oy*int(p.StepY) + ky*int(p.DilationY) - int(p.PadTop)
		if p.outside(y, inH, int(p.PadBottom)) {
			continue
		}
		if c.stopped() {
			return count
		}
		for kx := range int(p.KernelW) {
			x := ox*int(p.StepX) + kx*int(p.DilationX) - int(p.PadLeft)
			switch {
			case p.outside(x, inW, int(p.PadRight)):
				continue
			case y >= 0 && y < inH && x >= 0 && x < inW:
				c.take(p, int(p.X)+y*int(p.XLine)+x*int(p.XPixel), count)
			default:
				p.padded++
			}
			count++
		}
	}
	return count
}

// outside reports whether line or pixel v of n does not count, with so much
// padding behind them.
func (p *pooling) outside(v, n, behind int) bool {
	if p.CountPad {
		return v >= n+behind // none is before the padding
	}
	return v < 0 || v >= n
}

// take takes the pixel at byte at as the one with the given number.
func (c *unit) take(p *pooling, at, number int) {
	if p.native != nil {
		row := c.spad[at:][:len(p.native)]
		if number == 0 {
			copy(p.native, row)
		} else {
			c.vec.Bytes(p.op, vec.Type(p.Type), p.native, p.native, row)
		}
		return
	}
	to := p.result
	if p.sums != nil {
		to = p.sums[number%num.Lanes*len(to):][:len(to)]
	}
	c.elements(p.row, p.XAcc, p.Type, at)
	c.vec.Compute(p.op, p.Type.Float(), false, to, to, p.row)
}

// finish makes the results of a window of so many pixels.
func (c *unit) finish(p *pooling, count int) {
	n := len(p.result)
	if p.padded > 0 && !p.Type.Float() { // +0 changes no sum of fp32
		zeros := uint32(p.padded) * uint32(int32(p.Zero))
		for k := range p.result {
			p.result[k] += zeros
		}
	}
	switch {
	case p.sums != nil:
		for width := num.Lanes / 2; width > 0; width /= 2 { // §6.11
			c.vec.Compute(vec.Add, true, false, p.sums[:width*n], p.sums[:width*n], p.sums[width*n:][:width*n])
		}
		copy(p.result, p.sums)
		if p.Op == isa.PoolAverage {
			c.one[0] = math.Float32bits(num.FromInt32(int32(count)))
			c.vec.Compute(vec.Div, true, false, p.result, p.result, c.one[:])
		}
	case p.Op == isa.PoolAverage && count > 0:
		for k, v := range p.result {
			p.result[k] = uint32(num.Average(int32(v), int32(count)))
		}
	}
}

// neighbors are the two elements of a line that another is made of, and how far
// it is from the first to the second.
type neighbors struct {
	lo, hi int
	f      float32
	fixed  int64 // f in units of 2⁻¹⁰, of ResizeFixed
}

// along returns the neighbors of element index of a resized line; the original
// has count elements, the first of them with index first (§6.15).
func along(i *isa.Resize, index, first, count int, mul, div uint32) (s neighbors) {
	last := first + count - 1
	if i.Mode == isa.ResizeFixed {
		a := num.FixedAxis{Half: i.Half, Center: i.Center, Step: int64(mul), First: first, Last: last}
		s.lo, s.hi, s.fixed = a.Between(index)
		return s
	}
	a := num.Axis{Half: i.Half, Center: i.Center, Mul: math.Float32frombits(mul), Div: math.Float32frombits(div), First: first, Last: last}
	switch i.Mode {
	case isa.ResizeFloor:
		s.lo = a.Floor(index)
	case isa.ResizeCeil:
		s.lo = a.Ceil(index)
	case isa.ResizeRoundDown:
		s.lo = a.RoundDown(index)
	case isa.ResizeRoundUp:
		s.lo = a.RoundUp(index)
	default:
		s.lo, s.hi, s.f = a.Between(index)
		return s
	}
	s.hi = s.lo
	return s
}

// resize makes an image of another size (§5.6.24).
func (c *unit) resize(i isa.Resize) *Fault {
	if v := i.Check(*c.limits); v != nil {
		return violation(0, v)
	}
	im, n := &c.limits.Setup.Image, int(i.N)
	if f := c.poisonedImage(im.XAcc, im.XRows(i.X, i.N)); f != nil {
		return f
	}
	four, z := room(&c.x, 4*n), room(&c.z, n)
	for oy := range int(im.OutH) {
		y := along(&i, oy+int(im.OutTop), int(im.XTop), int(im.InH), i.MulY, i.DivY)
		for ox := range int(im.OutW) {
			if c.stopped() {
				return nil // the program ends anyway
			}
			x := along(&i, ox, 0, int(im.InW), i.MulX, i.DivX)
			for k, at := range [4][2]int{{y.lo, x.lo}, {y.lo, x.hi}, {y.hi, x.lo}, {y.hi, x.hi}} {
				if k == 0 || i.Mode >= isa.ResizeLinear {
					c.elements(four[k*n:][:n], im.XAcc, im.Type, int(i.X)+(at[0]-int(im.XTop))*int(im.XLine)+at[1]*int(im.XPixel))
				}
			}
			float := im.Type.Float() || i.Mode == isa.ResizeLinear
			interpolate(z, four, i.Mode, im.Type, y, x)
			c.place(z, float, im.OutAcc, im.OutType, !im.NoSaturate, int(i.Out)+oy*int(im.OutLine)+ox*int(im.OutPixel))
		}
	}
	return nil
}

// interpolate makes a pixel of four, which follow each other in from: upper left,
// upper right, lower left, lower right.
func interpolate(to, from []uint32, mode isa.ResizeMode, t systolic.Type, y, x neighbors) {
	n := len(to)
	switch mode {
	case isa.ResizeFixed:
		for k := range to {
			v := num.Interpolate(int32(from[k]), int32(from[n+k]), int32(from[2*n+k]), int32(from[3*n+k]), x.fixed, y.fixed)
			to[k] = uint32(v)
		}
	case isa.ResizeLinear:
		real := func(k int) float32 {
			if t.Float() {
				return math.Float32frombits(from[k])
			}
			return num.FromInt32(int32(from[k]))
		}
		for k := range to {
			upper, lower := real(k), real(2*n+k)
			if x.lo != x.hi {
				upper, lower = num.Lerp(upper, real(n+k), x.f), num.Lerp(lower, real(3*n+k), x.f)
			}
			if y.lo != y.hi {
				upper = num.Lerp(upper, lower, y.f)
			}
			to[k] = math.Float32bits(upper)
		}
	default:
		copy(to, from)
	}
}
