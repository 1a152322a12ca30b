// SPDX-License-Identifier: Apache-2.0

package core

import (
	"encoding/binary"
	"math"
	"slices"

	"npuemu/core/isa"
	"npuemu/core/num"
	"npuemu/core/systolic"
)

// image is IMAGE (§5.6.22).
func (c *Core) image(i isa.Image) *Fault {
	if v := i.Check(c.limits); v != nil {
		return violation(0, v)
	}
	c.limits.Setup.Image = i
	return nil
}

// elements puts the elements of t at byte at into to, as int32 or as encodings of
// fp32.
func (c *Core) elements(to []uint32, acc bool, t systolic.Type, at int) {
	if acc {
		for k, v := range c.acc[at/4:][:len(to)] {
			to[k] = uint32(v)
		}
		return
	}
	row := c.spad[at:]
	switch {
	case t == systolic.Int8:
		for k, v := range row[:len(to)] {
			to[k] = uint32(int32(int8(v)))
		}
	case t.Float():
		for k := range to {
			to[k] = math.Float32bits(t.Real(row, k))
		}
	default:
		for k := range to {
			to[k] = uint32(t.Integer(row, k))
		}
	}
}

// place converts from, int32 or encodings of fp32, and stores it at byte at as
// elements of t (§6.6).
func (c *Core) place(from []uint32, float bool, acc bool, t systolic.Type, saturate bool, at int) {
	if acc {
		for k, v := range from {
			c.acc[at/4+k] = int32(convert(v, float, t, saturate))
		}
		return
	}
	size := int(t.Bytes(1))
	row := c.spad[at:][:size*len(from)]
	for k, v := range from {
		v = convert(v, float, t, saturate)
		switch size {
		case 1:
			row[k] = byte(v)
		case 2:
			binary.LittleEndian.PutUint16(row[2*k:], uint16(v))
		default:
			binary.LittleEndian.PutUint32(row[4*k:], v)
		}
	}
	c.poison.Overwritten(uint64(at), uint64(len(row)))
}

// poisonedImage is poisonedRows for all that r reads of a local memory.
func (c *Core) poisonedImage(acc bool, r isa.Rows) *Fault {
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
	row, result []uint32  // of one pixel
	sums        []float32 // num.Lanes for each channel
}

// pool makes a pixel of every window (§5.6.23).
func (c *Core) pool(i isa.Pool) *Fault {
	if v := i.Check(c.limits); v != nil {
		return violation(0, v)
	}
	im, n := &c.limits.Setup.Image, int(i.N)
	if f := c.poisonedImage(im.XAcc, im.XRows(i.X, i.N)); f != nil {
		return f
	}
	c.x, c.z = slices.Grow(c.x[:0], n)[:n], slices.Grow(c.z[:0], n)[:n]
	p := pooling{Pool: i, Image: *im, row: c.x, result: c.z}
	if im.Type.Float() && i.Op >= isa.PoolSum {
		c.fp = slices.Grow(c.fp[:0], num.Lanes*n)[:num.Lanes*n]
		p.sums = c.fp
	}
	for oy := range int(im.OutH) {
		for ox := range int(im.OutW) {
			if c.stopped() {
				return nil // the program ends anyway
			}
			p.start()
			count := c.walkWindow(&p, oy, ox)
			p.finish(count)
			at := int(i.Out) + oy*int(im.OutLine) + ox*int(im.OutPixel)
			c.place(p.result, im.Type.Float(), im.OutAcc, im.OutType, !im.NoSaturate, at)
		}
	}
	return nil
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
}

// walkWindow takes the elements of the window at (oy, ox) in their order and
// returns how many pixels count.
func (c *Core) walkWindow(p *pooling, oy, ox int) (count int) {
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
				c.elements(p.row, p.XAcc, p.Type, int(p.X)+y*int(p.XLine)+x*int(p.XPixel))
				p.add(count)
			case !p.Type.Float(): // +0 changes no sum of fp32
				for k := range p.result {
					p.result[k] += uint32(int32(p.Zero))
				}
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

// add takes p.row as the pixel with the given number.
func (p *pooling) add(number int) {
	to := p.result
	switch {
	case p.sums != nil:
		lane := p.sums[number%num.Lanes*len(to):][:len(to)]
		for k, v := range p.row {
			lane[k] = num.Add32(lane[k], math.Float32frombits(v))
		}
	case p.Type.Float() && p.Op == isa.PoolMax:
		for k, v := range p.row {
			to[k] = math.Float32bits(num.Max32(math.Float32frombits(to[k]), math.Float32frombits(v)))
		}
	case p.Type.Float():
		for k, v := range p.row {
			to[k] = math.Float32bits(num.Min32(math.Float32frombits(to[k]), math.Float32frombits(v)))
		}
	case p.Op == isa.PoolMax:
		for k, v := range p.row {
			to[k] = uint32(max(int32(to[k]), int32(v)))
		}
	case p.Op == isa.PoolMin:
		for k, v := range p.row {
			to[k] = uint32(min(int32(to[k]), int32(v)))
		}
	default:
		for k, v := range p.row {
			to[k] += v
		}
	}
}

// finish makes the results of a window of so many pixels.
func (p *pooling) finish(count int) {
	n := len(p.result)
	if p.sums != nil {
		for width := num.Lanes / 2; width > 0; width /= 2 { // §6.11
			for k := range width * n {
				p.sums[k] = num.Add32(p.sums[k], p.sums[width*n+k])
			}
		}
		for k, v := range p.sums[:n] {
			if p.Op == isa.PoolAverage {
				v = num.Div32(v, num.FromInt32(int32(count)))
			}
			p.result[k] = math.Float32bits(v)
		}
		return
	}
	if p.Op == isa.PoolAverage && count > 0 {
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
func (c *Core) resize(i isa.Resize) *Fault {
	if v := i.Check(c.limits); v != nil {
		return violation(0, v)
	}
	im, n := &c.limits.Setup.Image, int(i.N)
	if f := c.poisonedImage(im.XAcc, im.XRows(i.X, i.N)); f != nil {
		return f
	}
	c.x, c.z = slices.Grow(c.x[:0], 4*n)[:4*n], slices.Grow(c.z[:0], n)[:n]
	for oy := range int(im.OutH) {
		y := along(&i, oy+int(im.OutTop), int(im.XTop), int(im.InH), i.MulY, i.DivY)
		for ox := range int(im.OutW) {
			if c.stopped() {
				return nil // the program ends anyway
			}
			x := along(&i, ox, 0, int(im.InW), i.MulX, i.DivX)
			for k, at := range [4][2]int{{y.lo, x.lo}, {y.lo, x.hi}, {y.hi, x.lo}, {y.hi, x.hi}} {
				if k == 0 || i.Mode >= isa.ResizeLinear {
					c.elements(c.x[k*n:][:n], im.XAcc, im.Type, int(i.X)+(at[0]-int(im.XTop))*int(im.XLine)+at[1]*int(im.XPixel))
				}
			}
			float := im.Type.Float() || i.Mode == isa.ResizeLinear
			interpolate(c.z, c.x, i.Mode, im.Type, y, x)
			c.place(c.z, float, im.OutAcc, im.OutType, !im.NoSaturate, int(i.Out)+oy*int(im.OutLine)+ox*int(im.OutPixel))
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
