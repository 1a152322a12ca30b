// SPDX-License-Identifier: Apache-2.0

package ref

import "math"

// Group POOL (§5.6.22 to §5.6.24, §6.15).

func (m *Machine) checkImage(w *word) {
	known := func(t byte, acc bool) bool {
		if acc {
			return t == 3 || t == 8
		}
		return t == 0 || t == 1 || t == 3 || t == 4 || floating(t)
	}
	t, to := w[4], w[5]
	bad(!known(t, w.has(1)), 4)
	bad(!known(to, w.has(4)), 5)
	bad(!inType(w.i16(6), t), 6)
	for off := 8; off < 16; off += 2 {
		bad(w.u16(off) == 0, off)
	}
	bad(w.u32(16)%width(t) != 0, 16)
	bad(w.u32(20)%width(to) != 0, 20)
	bad(w.u16(24)%width(t) != 0, 24)
	bad(w.u16(26)%width(to) != 0, 26)
}

// checkImages is what POOL and RESIZE have in common.
func (m *Machine) checkImages(w *word) {
	g := &m.image
	n := w.u16(6)
	side := func(h, width, line, pixel, bytes uint64, lineAt, pixelAt uint64) {
		fault(h > 1 && line < (width-1)*pixel+bytes, BadSetup, 64+lineAt)
		fault(width > 1 && pixel < bytes, BadSetup, 64+pixelAt)
	}
	in, out := span(g[4], n), span(g[5], n)
	side(g.u16(8), g.u16(10), g.u32(16), g.u16(24), in, 16, 24)
	side(g.u16(12), g.u16(14), g.u32(20), g.u16(26), out, 20, 26)
	local(m.memory(g.has(1)), w.u32(8), g.u16(8), g.u32(16), g.u16(10), g.u16(24), in)
	local(m.memory(g.has(4)), w.u32(12), g.u16(12), g.u32(20), g.u16(14), g.u16(26), out)
	if g.has(1) == g.has(4) {
		overlap([]extent{{w.u32(8), (g.u16(8)-1)*g.u32(16) + (g.u16(10)-1)*g.u16(24) + in}},
			extent{w.u32(12), (g.u16(12)-1)*g.u32(20) + (g.u16(14)-1)*g.u16(26) + out})
	}
}

// extent is bytes from the first to the last.
type extent struct{ at, size uint64 }

// overlap is OVERLAP.
func overlap(read []extent, stored extent) {
	first, both := uint64(math.MaxUint64), false
	for _, x := range read {
		if at := max(x.at, stored.at); at < x.at+x.size && at < stored.at+stored.size {
			first, both = min(first, at), true
		}
	}
	fault(both, Overlap, first)
}

func (m *Machine) checkPool(w *word) {
	g := &m.image
	pad, op := w.has(1), w[4]
	bad(pad && op != 2 && op != 3, 1)
	bad(op > 3, 4)
	bad(w.u16(6) == 0, 6)
	bad(w.u32(8)%width(g[4]) != 0, 8)
	bad(w.u32(12)%width(g[5]) != 0, 12)
	bad(w.u16(16) == 0, 16)
	bad(w.u16(18) == 0 || w.u16(16)*w.u16(18) > 1<<24, 18)
	for off := 20; off < 24; off++ {
		bad(w[off] == 0, off)
	}
	bad(!pad && w.u16(28) != 0, 28)
	bad(!pad && w.u16(30) != 0, 30)
	m.checkImages(w)
}

func (m *Machine) pool(w *word) {
	g := &m.image
	h, wd := int64(g.u16(8)), int64(g.u16(10))
	padded := func(v, size int64, before, behind uint64) bool { // it counts, but is not in the image
		return w.has(1) && v >= -int64(before) && v < size+int64(behind)
	}
	for oy := range g.u16(12) {
		for ox := range g.u16(14) {
			row := make([]uint32, w.u16(6))
			for c := range row {
				var window []value
				for ky := range w.u16(16) {
					y := int64(oy*w.u8(20)+ky*w.u8(22)) - int64(w.u16(24))
					if (y < 0 || y >= h) && !padded(y, h, w.u16(24), w.u16(28)) {
						continue
					}
					for kx := range w.u16(18) {
						x := int64(ox*w.u8(21)+kx*w.u8(23)) - int64(w.u16(26))
						switch {
						case y >= 0 && y < h && x >= 0 && x < wd:
							at := w.u32(8) + uint64(y)*g.u32(16) + uint64(x)*g.u16(24)
							window = append(window, read(m.memory(g.has(1)), at, g[4], uint64(c)))
						case (x >= 0 && x < wd) || padded(x, wd, w.u16(26), w.u16(30)):
							if w.has(1) {
								window = append(window, value{float: floating(g[4]), i: int32(g.i16(6))})
							}
						}
					}
				}
				row[c] = pooled(w[4], window, floating(g[4])).bits(g[5], !g.has(8))
			}
			store(m.memory(g.has(4)), w.u32(12)+oy*g.u32(20)+ox*g.u16(26), g[5], row)
		}
	}
}

// pooled makes one element of those of a window.
func pooled(op byte, window []value, float bool) value {
	v := value{float: float}
	inf := float32(math.Inf(1))
	switch op {
	case 0:
		v.i, v.f = math.MinInt32, -inf
		for _, x := range window {
			v.i, v.f = max(v.i, x.i), larger(v.f, x.f)
		}
	case 1:
		v.i, v.f = math.MaxInt32, inf
		for _, x := range window {
			v.i, v.f = min(v.i, x.i), smaller(v.f, x.f)
		}
	default:
		for _, x := range window {
			v.i += x.i
		}
		v.f = sum(len(window), func(i int, s float32) float32 { return s + window[i].f })
		if op == 2 {
			break
		}
		n := int64(len(window))
		if v.f /= float32(n); n == 0 { // 0 / 0 is NaN
			break
		}
		a := max(int64(v.i), -int64(v.i))
		if a = (2*a + n) / (2 * n); v.i < 0 {
			a = -a
		}
		v.i = int32(a)
	}
	return v
}

func (m *Machine) checkResize(w *word) {
	g := &m.image
	fixed := w[4] == 5
	bad(w[4] > 5 || fixed && floating(g[4]), 4)
	bad(w.u16(6) == 0, 6)
	bad(w.u32(8)%width(g[4]) != 0, 8)
	bad(w.u32(12)%width(g[5]) != 0, 12)
	for off := 16; off < 32; off += 4 {
		v, mul := w.u32(off), off%8 == 0
		switch {
		case fixed && mul:
			bad(v < 1 || v > 65535<<10, off)
		case fixed:
			bad(v != 0, off)
		default:
			bad(v != 0 && !aboveZero(v), off)
		}
	}
	m.checkImages(w)
}

// point is where an element of a resized line lies in the original one: between two
// indexes that there are.
type point struct {
	lo, hi, near int64
	f            float32 // of the way to hi
	part         int64   // the same in 2⁻¹⁰, of mode 5
}

func (w *word) point(i int64, mul, div uint64, first, count int64) (p point) {
	next := func(v float64) int64 { return int64(min(max(v, float64(first)), float64(first+count-1))) }
	if w[4] == 5 {
		c := i * int64(mul)
		if w.has(1) {
			c += int64(mul) / 2
		}
		if w.has(2) {
			c -= 512
		}
		p.part = c & 1023
		p.lo, p.hi = next(float64(c>>10)), next(float64((c+1023)>>10))
		return p
	}
	s := float32(i)
	if w.has(1) {
		s += 0.5
	}
	if mul != 0 {
		s *= math.Float32frombits(uint32(mul))
	}
	if div != 0 {
		s /= math.Float32frombits(uint32(div))
	}
	if w.has(2) {
		s -= 0.5
	}
	v := float64(s)
	p.lo, p.hi, p.f = next(math.Floor(v)), next(math.Ceil(v)), s-float32(math.Floor(v))
	switch w[4] {
	case 0:
		p.near = p.lo
	case 1:
		p.near = p.hi
	case 2:
		p.near = next(math.Ceil(v - 0.5))
	case 3:
		p.near = next(math.Floor(v + 0.5))
	}
	return p
}

func (m *Machine) resize(w *word) {
	g := &m.image
	top := int64(g.u16(28))
	lerp := func(a, b float32, lo, hi int64, f float32) float32 {
		if lo == hi {
			return a
		}
		return fma(f, b-a, a)
	}
	for oy := range g.u16(12) {
		py := w.point(int64(g.u16(30)+oy), w.u32(16), w.u32(20), top, int64(g.u16(8)))
		for ox := range g.u16(14) {
			px := w.point(int64(ox), w.u32(24), w.u32(28), 0, int64(g.u16(10)))
			row := make([]uint32, w.u16(6))
			for c := range row {
				at := func(y, x int64) value {
					return read(m.memory(g.has(1)), w.u32(8)+uint64(y-top)*g.u32(16)+uint64(x)*g.u16(24), g[4], uint64(c))
				}
				real := func(y, x int64) float32 {
					if v := at(y, x); v.float {
						return v.f
					} else {
						return float32(v.i)
					}
				}
				var v value
				switch w[4] {
				case 4:
					upper := lerp(real(py.lo, px.lo), real(py.lo, px.hi), px.lo, px.hi, px.f)
					lower := lerp(real(py.hi, px.lo), real(py.hi, px.hi), px.lo, px.hi, px.f)
					v = value{float: true, f: lerp(upper, lower, py.lo, py.hi, py.f)}
				case 5:
					fx, fy := px.part, py.part
					gx, gy := 1024-fx, 1024-fy
					s := int64(at(py.lo, px.lo).i)*gx*gy + int64(at(py.lo, px.hi).i)*fx*gy + int64(at(py.hi, px.lo).i)*gx*fy + int64(at(py.hi, px.hi).i)*fx*fy
					a := (max(s, -s) + 1<<19) >> 20
					if s < 0 {
						a = -a
					}
					v.i = int32(a)
				default:
					v = at(py.near, px.near)
				}
				row[c] = v.bits(g[5], !g.has(8))
			}
			store(m.memory(g.has(4)), w.u32(12)+oy*g.u32(20)+ox*g.u16(26), g[5], row)
		}
	}
}
