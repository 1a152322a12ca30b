// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"math"

	"npuemu/compiler/ir"
	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// pooling is npu.pool: windows over lines and pixels, of each channel on its own.
type pooling struct {
	imaging
	kh, kw, sy, sx, dy, dx, top, left int
	x, y                              systolic.Type
	avg, countPad                     bool
	clamp                             []operand // lo and hi of integers, if they clamp
	scalars                           uint32    // of clamp, then of averages
	counts                            map[int]uint32
}

// run is a part of a line of results whose windows have the same elements inside: kernel
// positions [k0, k1).
type run struct{ first, count, k0, k1 int }

// runs returns those of n results.
func runs(n, kernel, step, dilation, pad, have int) []run {
	var l []run
	for o := range n {
		k0, k1 := kernel, 0
		for k := range kernel {
			if at := o*step + k*dilation - pad; at >= 0 && at < have {
				k0, k1 = min(k0, k), k+1
			}
		}
		if i := len(l) - 1; i >= 0 && l[i].k0 == k0 && l[i].k1 == k1 {
			l[i].count++
			continue
		}
		l = append(l, run{o, 1, k0, k1})
	}
	return l
}

func (l *lower) pool() error {
	x, y, err := l.kinds()
	if err != nil {
		return err
	}
	a, in, out := l.node.Attrs, l.x().Shape, l.y().Shape
	k, st, pads, dil := a.Ints("kernel"), a.Ints("strides"), a.Ints("pads"), a.Ints("dilations")
	if dil == nil {
		dil = []int{1, 1}
	}
	p := &pooling{
		imaging: imaging{lower: l, h: in[1], w: in[2], c: in[3], oh: out[1], ow: out[2]}, kh: k[0], kw: k[1], sy: st[0], sx: st[1], dy: dil[0], dx: dil[1],
		top: pads[0], left: pads[1], x: x, y: y, avg: a.Str("kind", "") == "avg", countPad: a.Int("count_pad", 0) != 0, counts: map[int]uint32{},
	}
	p.span = func(th int) int { return span(th, p.sy, p.dy, p.kh, p.h) }
	p.window = func(o, t int) (first, count, before int) { return window(o, t, p.sy, p.dy, p.kh, p.top, p.h) }
	if ir.Elements(out) == 0 {
		return nil
	}
	if err := p.check(); err != nil {
		return err
	}
	lines, pixels := runs(p.oh, p.kh, p.sy, p.dy, p.top, p.h), runs(p.ow, p.kw, p.sx, p.dx, p.left, p.w)
	for _, r := range append(append([]run{}, lines...), pixels...) {
		if r.k1 <= r.k0 {
			return l.node.Errorf("a window lies in the padding alone")
		}
	}
	if lo, hi := l.limits(); !x.Float() {
		if tlo, thi := l.y().Type.Range(); lo > tlo || hi < thi {
			p.clamp = []operand{l.scalar(y, lo), l.scalar(y, hi)}
		}
	}
	if p.whole() {
		return p.windows(in[0])
	}
	if most, ok := map[systolic.Type]int{systolic.Int8: 2048, systolic.Uint8: 2048, systolic.Int16: 32}[x]; p.avg && !x.Float() && (!ok || p.kh*p.kw > most) {
		return l.node.Errorf("an average of %d elements of %v: its rounding needs more than fp32 has", p.kh*p.kw, l.x().Type).WithRemedy("compile for architecture 1.4 or later, which has POOL")
	}
	return p.run(lines, pixels, in[0])
}

// whole reports whether POOL (§5.6.23) makes the windows.
func (p *pooling) whole() bool {
	return p.b.Target().Features&isa.FeaturePool != 0 && max(p.sy, p.sx, p.dy, p.dx) <= math.MaxUint8 && max(p.kh, p.kw) <= math.MaxUint16 && p.kh*p.kw <= 1<<24 &&
		max(p.top, p.left, p.oh, p.ow) <= math.MaxUint16
}

// windows cuts the image as run does, for POOL.
func (p *pooling) windows(images int) error {
	for i, o := range p.clamp {
		at := p.local(o.size)
		p.load(at, o.at, o.size)
		if i == 0 {
			p.scalars = at
		}
	}
	op := isa.PoolMax
	if p.avg {
		op = isa.PoolAverage
	}
	pad := func(t, step, dilation, kernel, before, have int) uint16 { // behind what is there
		if !p.countPad {
			return 0
		}
		return uint16(max(0, (t-1)*step+(kernel-1)*dilation+1-before-have))
	}
	return p.parts(0, images, len(p.clamp) > 0, func(o, t, first, count, before, n int, x, y uint32) {
		p.b.Prepare(p.image(t, count, n, p.x, p.y))
		p.b.Emit(isa.Pool{
			CountPad: p.avg && p.countPad, Op: op, N: uint16(n), X: x, Out: y, KernelH: uint16(p.kh), KernelW: uint16(p.kw), StepY: uint8(p.sy), StepX: uint8(p.sx),
			DilationY: uint8(p.dy), DilationX: uint8(p.dx), PadTop: uint16(before), PadLeft: uint16(p.left),
			PadBottom: pad(t, p.sy, p.dy, p.kh, before, count), PadRight: pad(p.ow, p.sx, p.dx, p.kw, p.left, p.w),
		})
		p.clamped(local{at: y}, t*p.ow*n)
	})
}

// clamped clamps n results.
func (p *pooling) clamped(out local, n int) {
	for i, op := range []isa.ElementOp{isa.ElemMax, isa.ElemMin}[:len(p.clamp)] {
		p.vec(op, p.y, p.y, out, &local{at: p.scalars + uint32(i*align), one: true}, out, n, false)
	}
}

// run cuts the image into channels, and into as many lines as there is room for.
func (p *pooling) run(lines, pixels []run, images int) error {
	if p.place(p.lower.x()).stays() || p.place(p.lower.y()).stays() {
		return p.node.Errorf("it does not work on what stays in the scratchpad")
	}
	for i, o := range p.clamp {
		at := p.local(o.size)
		p.load(at, o.at, o.size)
		if i == 0 {
			p.scalars = at
		}
	}
	p.averages(lines, pixels)
	accRow := 0 // bytes of accumulators for each channel
	if p.avg {
		accRow = 4 * p.ow * (min(16, p.kh*p.kw) + 2)
	}
	so := size(p.y)
	return p.parts(accRow, images, len(p.clamp) > 0, func(o, t, first, _, _, n int, x, y uint32) {
		for line := range t {
			p.line(lineOf(lines, o+line), pixels, o+line, x, first, y+uint32(line*p.ow*n*so), 0, n)
		}
	})
}

func lineOf(l []run, o int) run {
	for _, r := range l {
		if o < r.first+r.count {
			return r
		}
	}
	panic("plan: BUG: a line is in no run")
}

// averages loads what averages are divided by: of integers n, 2n and (2n − 1) / 4n, of
// floating point fp32(n).
func (p *pooling) averages(lines, pixels []run) {
	if !p.avg {
		return
	}
	for _, a := range lines {
		for _, b := range pixels {
			n := p.count(a, b)
			if _, ok := p.counts[n]; ok {
				continue
			}
			v := floats(float32(n), 0)
			if !p.x.Float() {
				v = append(encode(systolic.Int32, int64(n)), floats(float32(2*n), float32(2*n-1)/float32(4*n))...)
				v = append(v, encode(systolic.Int32, 0)...)
				v = append(v, encode(systolic.Int32, -2)...)
				v = append(v, encode(systolic.Int32, 1)...)
			}
			at := p.local(len(v))
			p.load(at, p.constant(v), len(v))
			p.counts[n] = at
		}
	}
}

// count is how many elements an average is of.
func (p *pooling) count(a, b run) int {
	if p.countPad {
		return p.kh * p.kw
	}
	return (a.k1 - a.k0) * (b.k1 - b.k0)
}

// line makes one line of results from the input lines at x, of which the first is number first.
func (p *pooling) line(l run, pixels []run, o int, x uint32, first int, y, acc uint32, c int) {
	s, so := size(p.x), size(p.y)
	for _, px := range pixels {
		out := local{at: y + uint32(px.first*c*so)}
		index, n := 0, px.count*c
		for ky := l.k0; ky < l.k1; ky++ {
			for kx := px.k0; kx < px.k1; kx++ {
				at := x + uint32(((o*p.sy+ky*p.dy-p.top-first)*p.w+px.first*p.sx+kx*p.dx-p.left)*c*s)
				if p.avg && p.countPad {
					index = ky*p.kw + kx
				}
				if p.avg {
					p.add(at, acc, px.count, c, index, p.firstOf(index, l, px))
				} else {
					p.rows(isa.ElemMax, p.x, at, &out, out, px.count, c, index == 0)
				}
				index++
			}
		}
		switch {
		case !p.avg:
		case p.x.Float():
			p.mean(acc, out, n, p.counts[p.count(l, px)], l, px)
		default:
			p.average(acc, out, n, p.counts[p.count(l, px)])
		}
		p.clamped(out, n)
	}
}

// rows is op of count pixels of c channels, a step apart, and of y; the first time it is a move.
func (p *pooling) rows(op isa.ElementOp, to systolic.Type, x uint32, y *local, out local, count, c int, first bool) {
	s, so := size(p.x), size(to)
	step := p.sx * c * s
	m := count
	if step > math.MaxUint16 {
		m = 1
	}
	for i := 0; i < count; i += m {
		e := isa.Element{
			OutAcc: out.acc, Op: op, Type: p.x, OutType: to, X: x + uint32(i*step), Out: out.at + uint32(i*c*so), M: uint32(m), N: uint16(c),
			XStride: strideOf(m, step), OutStride: strideOf(m, c*so),
		}
		if first {
			e.Op = isa.ElemMove
		} else {
			e.Y, e.YAcc, e.YStride = y.at+uint32(i*c*s), y.acc, strideOf(m, c*s)
		}
		p.b.Emit(e)
	}
}

// partial is partial sum j of a run of results; the last two are for what is on its way.
func (p *pooling) partial(acc uint32, j, c int) local {
	return local{at: acc + uint32(4*j*p.ow*c), acc: true}
}

// firstOf reports whether no element before index goes to the partial sum of index.
func (p *pooling) firstOf(index int, l, px run) bool {
	if !p.x.Float() {
		return index == 0 || p.countPad && index == l.k0*p.kw+px.k0
	}
	for i := index - 16; i >= 0; i -= 16 {
		if p.inside(i, l, px) {
			return false
		}
	}
	return true
}

// inside reports whether an element of a window is not padding.
func (p *pooling) inside(i int, l, px run) bool {
	if !p.countPad {
		return true
	}
	ky, kx := i/p.kw, i%p.kw
	return ky >= l.k0 && ky < l.k1 && kx >= px.k0 && kx < px.k1
}

// add adds an element of every window to the sums: of integers there is one, of floating
// point there are the 16 of §6.11.
func (p *pooling) add(x, acc uint32, count, c, index int, first bool) {
	sum, wide := p.partial(acc, 0, c), systolic.Int32
	if p.x.Float() {
		sum, wide = p.partial(acc, index%16, c), systolic.FP32
	}
	if first {
		p.rows(isa.ElemMove, wide, x, nil, sum, count, c, true)
		return
	}
	next := p.partial(acc, min(16, p.kh*p.kw), c)
	p.rows(isa.ElemMove, wide, x, nil, next, count, c, true)
	p.vec(isa.ElemAdd, wide, wide, sum, &next, sum, count*c, true)
}

// mean ends an average of floating point: §6.11 and a division.
func (p *pooling) mean(acc uint32, out local, n int, at uint32, l, px run) {
	const f = systolic.FP32
	c := n / px.count
	var have [16]bool
	for i := range p.kh * p.kw {
		if p.countPad && p.inside(i, l, px) || !p.countPad && i < (l.k1-l.k0)*(px.k1-px.k0) {
			have[i%16] = true
		}
	}
	for half := 8; half > 0; half /= 2 {
		for j := range half {
			a, b := p.partial(acc, j, c), p.partial(acc, j+half, c)
			switch {
			case have[j] && have[j+half]:
				p.vec(isa.ElemAdd, f, f, a, &b, a, n, true)
			case have[j+half]:
				p.vec(isa.ElemMove, f, f, b, nil, a, n, true)
				have[j] = true
			}
		}
	}
	sum := p.partial(acc, 0, c)
	p.vec(isa.ElemAdd, f, f, sum, &local{at: at + 4, one: true}, sum, n, true) // −0 becomes +0, as beside a sum without terms
	p.vec(isa.ElemDiv, f, p.y, sum, &local{at: at, one: true}, out, n, false)
}

// average ends an average of integers, §6.9.5, with sum x of n: a = 2·|x| + n is below 2²⁴,
// and a / 2n less (2n − 1) / 4n is nearer to floor(a / 2n) than to any other integer, by more than
// the error of the two operations: pool bounds n for that.
func (p *pooling) average(acc uint32, out local, n int, at uint32) {
	const i, f = systolic.Int32, systolic.FP32
	sum := local{at: acc, acc: true}
	a := local{at: acc + uint32(4*n), acc: true}
	scalar := func(k int) *local { return &local{at: at + uint32(4*k), one: true} }
	p.vec(isa.ElemAbs, i, i, sum, nil, a, n, true)
	p.vec(isa.ElemAdd, i, i, a, &a, a, n, true)
	p.vec(isa.ElemAdd, i, f, a, scalar(0), a, n, true)
	p.vec(isa.ElemDiv, f, f, a, scalar(1), a, n, true)
	p.vec(isa.ElemSub, f, i, a, scalar(2), a, n, true)
	p.vec(isa.ElemLt, i, i, sum, scalar(3), sum, n, true)
	p.vec(isa.ElemMul, i, i, sum, scalar(4), sum, n, true)
	p.vec(isa.ElemAdd, i, i, sum, scalar(5), sum, n, true)
	p.vec(isa.ElemMul, i, p.y, a, &sum, out, n, false)
}
