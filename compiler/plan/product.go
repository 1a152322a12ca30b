// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"math"

	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// finish is what becomes of the accumulators of a product.
type finish struct {
	out systolic.Type // int8, uint8, int32 or a floating-point type

	// Of int8 and uint8 results (§5.6.8). zero, lo and hi are of int8.
	params       *Place // parameter tables; nil if the result is int32 or floating point
	perChannel   bool
	zero, lo, hi int8
	rounding     isa.Rounding

	steps []step // on fp32 accumulators
}

// product is a convolution or a matrix product; this a 1 × 1 convolution of one line.
// Activations are [n][h][w][cin], results [n][oh][ow][cout]; weights are
// [cout][kh][kw][cin / groups], or with flat weights, which only a 1 × 1 may have,
// [cin][cout].
type product struct {
	in, out, weights Place
	bias             *Place // cout int32 or fp32, with which the sums begin

	n, h, w, cin, oh, ow, cout int
	kh, kw, sy, sx, dy, dx     int
	groups, top, left          int
	a, b                       systolic.Type
	aZero, bZero               int16
	zeros                      *Place // of the weights, one byte for each channel
	flat                       bool
	finish                     finish
	tail                       *chain // what is computed of the results, which are not stored; nil for nothing
	first                      int    // of tail: which row the first result is
	rows, cols                 int    // of the array
}

// pointwise reports whether each result needs one pixel, so that all pixels are rows of
// one matrix.
func (p *product) pointwise() bool {
	return p.kh == 1 && p.kw == 1 && p.sy == 1 && p.sx == 1 && p.top == 0 && p.left == 0 && p.groups == 1 && p.h == p.oh && p.w == p.ow
}

// emit generates the product.
func (p *product) emit(c *code) error {
	if p.pointwise() {
		m := p.n * p.h * p.w
		k := factor(m)
		if k == 1 && m > math.MaxUint16 { // a row count of 16 bits: the last lines on their own
			rest := *p
			rest.n, rest.h, rest.w = 1, 1, m%64
			rest.in, rest.out = p.in.plus((m-rest.w)*int(p.a.Bytes(uint64(p.cin)))), p.out.plus((m-rest.w)*p.cout*size(p.finish.out))
			rest.oh, rest.ow = rest.h, rest.w
			rest.first += m - rest.w
			again := *c
			if err := rest.emit(&again); err != nil {
				return err
			}
			m -= rest.w
			k = m / 64
		}
		p.n, p.h, p.w = 1, k, m/k
		p.oh, p.ow = p.h, p.w
	}
	target := c.b.Target()
	p.rows, p.cols = target.Rows, target.Cols
	spad, acc := int(target.SpadSize)-c.spad, int(target.AccSize)-c.acc
	best, err := p.choose(spad, acc)
	if err != nil {
		return err
	}
	if p.tail != nil {
		// Smaller tiles can cost more than what they save, which is that the results are stored and loaded again.
		without := *p
		without.tail = nil
		u, err := without.choose(spad, acc)
		if apart := p.apart(best[0].tiles); err == nil && best[0].cost > u[0].cost+apart {
			return fmt.Errorf("tiles with what is behind them cost %.0f bytes, without them %.0f", best[0].cost, u[0].cost)
		}
	}
	return c.cheapest(len(best), func(i int, c *code) error {
		e := &productCode{product: p, tiling: best[i], code: c}
		return e.run()
	})
}

// apart is about what the operations behind the product cost if they are not computed with it: its result is loaded, too.
// They are cut into as many tiles; a little more, since what costs the same is better computed together.
func (p *product) apart(tiles int) float64 {
	n := p.n * p.oh * p.ow * p.cout
	moved, vector := float64(n*size(p.finish.out))+p.results(), float64(3*len(p.tail.links)*ceil(n, p.cols)*perCycle)
	return 1.05 * (max(moved, vector) + min(moved, vector)/float64(tiles))
}

// factor divides the rows of a matrix into lines, so that they can be cut by lines: the
// largest number of lines of at least 64 rows, of at most 65535.
func factor(m int) int {
	for w := 64; w <= 256 && w < m; w++ {
		if m%w == 0 {
			return m / w
		}
	}
	return 1
}

// productCode is a product with its buffers.
type productCode struct {
	*product
	tiling
	*code
	aBuf, wBuf, oBuf, accBuf *slots
	behind                   *tail
	steps                    []uint32
	left                     func() // emits what becomes of the sums of the tile before, nil for nothing
	bSize                    int    // of the weights of a buffer, the tables come behind
}

// block is some channels of the result, and the groups and channels of the input
// that they need.
type block struct{ key, group, groups, first, count int }

func (e *productCode) blocks() []block {
	var l []block
	ng := e.cout / e.product.groups
	for g := 0; g < e.product.groups; g += e.gt {
		gt := min(e.gt, e.product.groups-g)
		if gt > 1 {
			l = append(l, block{len(l), g, gt, g * ng, gt * ng})
			continue
		}
		for c := 0; c < ng; c += e.ct {
			l = append(l, block{len(l), g, 1, g*ng + c, min(e.ct, ng-c)})
		}
	}
	return l
}

// patch is a rectangle of the result and the input that it needs: lines [y, y+ih), pixels
// [x, x+iw), with so much padding above and to the left.
type patch struct{ key, n, oy, ox, th, tw, y, x, ih, iw, top, left int }

// window returns what t results from o on need: first, count, padding before it.
func window(o, t, step, dilation, kernel, pad, have int) (first, count, before int) {
	lo := o*step - pad
	hi := lo + (t-1)*step + (kernel-1)*dilation + 1
	first, last := max(lo, 0), min(hi, have)
	if first >= last { // nothing but padding: some input is named all the same
		first = min(first, have-1)
		return first, 1, first - lo
	}
	return first, last - first, first - lo
}

func (e *productCode) patches() []patch {
	var l []patch
	for n := range e.n {
		for oy := 0; oy < e.oh; oy += e.th {
			for ox := 0; ox < e.ow; ox += e.tw {
				p := patch{key: len(l), n: n, oy: oy, ox: ox, th: min(e.th, e.oh-oy), tw: min(e.tw, e.ow-ox)}
				p.y, p.ih, p.top = window(oy, p.th, e.sy, e.dy, e.kh, e.product.top, e.h)
				p.x, p.iw, p.left = window(ox, p.tw, e.sx, e.dx, e.kw, e.product.left, e.w)
				l = append(l, p)
			}
		}
	}
	return l
}

func (e *productCode) run() error {
	e.aBuf, e.wBuf = e.slots(e.na, e.aBytes), e.slots(e.nw, e.wBytes)
	if e.oBytes > 0 {
		e.oBuf = e.slots(e.no, e.oBytes)
	}
	e.accBuf = e.accSlots(e.nacc, e.accBytes)
	for _, s := range e.finish.steps {
		at := uint32(0)
		if s.y != nil {
			at = e.local(4 * e.ct)
		}
		e.steps = append(e.steps, at)
	}
	e.bSize = e.wBytes - e.tables(e.ct)
	if e.product.tail != nil {
		var err error
		if e.behind, err = e.product.tail.newTail(e.code, e.th*e.tw*e.ct, e.nt, e.product.first, e.n*e.oh*e.ow, e.cout); err != nil {
			return err
		}
	}
	blocks, patches := e.blocks(), e.patches()
	if e.weightsOuter {
		for _, b := range blocks {
			for _, p := range patches {
				e.tile(b, p)
			}
		}
	} else {
		for _, p := range patches {
			for _, b := range blocks {
				e.tile(b, p)
			}
		}
	}
	e.end()
	return nil
}

// tile computes the channels of b in the patch p. Where there is room for that, what becomes of them follows behind the products of the next
// tile: the vector engine, which executes in order, has the sums of that begin before it waits for the results of this one.
func (e *productCode) tile(b block, p patch) {
	if !e.ahead {
		e.end()
	}
	acc := e.accBuf.take()
	tables := e.sums(b, p, acc)
	e.end()
	e.left = func() { e.result(acc, tables, b, p) }
}

// end emits what is left of the tile before.
func (e *productCode) end() {
	if e.left != nil {
		e.left()
		e.left = nil
	}
}

// sums computes the sums of a tile in the accumulators, and returns where the tables of its channels are.
func (e *productCode) sums(b block, p patch, acc uint32) (tables uint32) {
	cg := e.cin / e.product.groups
	ktiles := ceil(cg, e.kt)
	for k := range ktiles {
		first := k * e.kt
		kt := min(e.kt, cg-first)
		cin := b.groups * cg
		if ktiles > 1 {
			cin = kt
		}
		w := e.wBuf.get(b.key*ktiles+k, func(at uint32) { e.loadWeights(at, b, first, kt) })
		var a uint32
		if from := e.inputAt(p, b.group*cg+first); from.stays() {
			a = uint32(from.Offset)
		} else {
			a = e.aBuf.get((p.key*e.product.groups+b.group)*ktiles+k, func(at uint32) { e.loadInput(at, p, from, cin) })
		}
		tables = w + uint32(e.bSize) // each part of the weights comes with them
		if k == 0 && e.bias != nil {
			e.code.b.Emit(isa.Bias{N: uint16(b.count), AccStride: uint16(4 * b.count), Bias: tables, Acc: acc, M: uint32(p.th * p.tw)})
		}
		e.multiply(a, w, acc, b, p, cin, kt, k > 0 || e.bias != nil)
	}
	return tables
}

// loadWeights loads the weights of b's channels, kt of the input's from first, and the
// tables behind them.
func (e *productCode) loadWeights(at uint32, b block, first, kt int) {
	cg := e.cin / e.product.groups
	unit := func(n int) int { return int(e.product.b.Bytes(uint64(n))) }
	switch {
	case e.flat:
		e.code.b.Emit(isa.Load{
			Binding: e.weights.Binding, Offset: e.weights.Offset + uint64(first*unit(e.cout)+unit(b.first)), Local: at,
			NX: uint32(unit(b.count)), NY: uint16(kt), NZ: 1, StrideY: uint32(unit(e.cout)), LocalStride: uint16(unit(b.count)),
		})
	case kt == cg:
		row := e.rowBytes(cg)
		e.load(at, e.weights.plus(b.first*row), b.count*row)
	default:
		e.code.b.Emit(isa.Load{
			Binding: e.weights.Binding, Offset: e.weights.Offset + uint64(b.first*e.rowBytes(cg)+unit(first)), Local: at,
			NX: uint32(unit(kt)), NY: uint16(e.kh * e.kw), StrideY: uint32(unit(cg)),
			NZ: uint16(b.count), StrideZ: uint32(e.rowBytes(cg)), LocalStride: uint16(unit(kt)),
		})
	}
	to := at + uint32(e.bSize)
	if e.bias != nil {
		e.load(to, e.bias.plus(4*b.first), 4*b.count)
		to += uint32(up(4 * e.ct))
	}
	if f := &e.finish; f.params != nil {
		if f.perChannel {
			e.load(to, f.params.plus(isa.ParamSize*b.first), isa.ParamSize*b.count)
			to += uint32(up(isa.ParamSize * e.ct))
		} else {
			e.load(to, *f.params, isa.ParamSize)
			to += uint32(up(isa.ParamSize))
		}
	}
	if e.zeros != nil {
		e.load(to, e.zeros.plus(b.first), b.count)
	}
}

// inputAt is where channel first of the patch's first pixel is.
func (e *productCode) inputAt(p patch, first int) Place {
	return e.in.plus((((p.n*e.h+p.y)*e.w+p.x)*e.cin + first) * size(e.a))
}

// loadInput loads cin channels of the patch's pixels, the first of which are at from, one pixel behind the other.
func (e *productCode) loadInput(at uint32, p patch, from Place, cin int) {
	s := size(e.a)
	pixel, line := e.cin*s, e.w*e.cin*s
	l := isa.Load{Binding: from.Binding, Offset: from.Offset, Local: at}
	switch {
	case cin == e.cin && p.iw == e.w: // whole lines
		e.load(at, from, p.ih*line)
		return
	case cin == e.cin && p.iw*pixel <= math.MaxUint16:
		l.NX, l.NY, l.NZ, l.StrideY, l.LocalStride = uint32(p.iw*pixel), uint16(p.ih), 1, uint32(line), uint16(p.iw*pixel)
	case cin == e.cin:
		for y := range p.ih {
			e.load(at+uint32(y*p.iw*pixel), from.plus(y*line), p.iw*pixel)
		}
		return
	default:
		l.NX, l.LocalStride = uint32(cin*s), uint16(cin*s)
		l.NY, l.StrideY = uint16(p.iw), uint32(pixel)
		l.NZ, l.StrideZ = uint16(p.ih), uint32(line)
	}
	e.code.b.Emit(l)
}

// multiply is the GEMM or CONV of a tile.
func (e *productCode) multiply(a, w, acc uint32, b block, p patch, cin, kt int, accumulate bool) {
	pixel, line := cin*size(e.a), p.iw*cin*size(e.a)
	if e.in.stays() {
		pixel, line = e.cin*size(e.a), e.w*e.cin*size(e.a)
	}
	o := isa.Operands{
		TransposeB: !e.flat, A: e.a, B: e.product.b, AZero: e.aZero, BZero: e.bZero,
		AStride: uint32(pixel), BStride: uint32(e.rowBytes(kt)), AccStride: uint32(4 * b.count),
	}
	if e.flat {
		o.BStride = uint32(e.product.b.Bytes(uint64(b.count)))
	}
	if e.zeros != nil {
		o.PerChannel = true
		o.BZeros = w + uint32(e.wBytes-up(e.ct))
	}
	if e.pointwise() {
		e.code.b.Setup(o, nil)
		e.code.b.Emit(isa.Gemm{Accumulate: accumulate, M: uint32(p.th * p.tw), N: uint32(b.count), K: uint32(kt), A: a, B: w, Acc: acc})
		return
	}
	e.code.b.Setup(o, &isa.Window{
		KernelH: uint8(e.kh), KernelW: uint8(e.kw), StepY: uint8(e.sy), StepX: uint8(e.sx), DilationY: uint8(e.dy), DilationX: uint8(e.dx),
		Groups: uint16(b.groups), PadTop: uint16(p.top), PadLeft: uint16(p.left),
	})
	e.code.b.Emit(isa.Conv{
		Accumulate: accumulate, InH: uint16(p.ih), InW: uint16(p.iw), OutH: uint16(p.th), OutW: uint16(p.tw),
		Cin: uint16(cin), Cout: uint16(b.count), A: a, B: w, Acc: acc, Line: uint32(line),
	})
}

// result turns the accumulators of a tile into results and stores them.
func (e *productCode) result(acc, tables uint32, b block, p patch) {
	f := &e.finish
	m, n := p.th*p.tw, b.count
	if f.params != nil {
		if e.bias != nil {
			tables += uint32(up(4 * e.ct))
		}
		if e.staysApart(b, p) {
			e.requantApart(acc, tables, b, p)
			return
		}
		out := e.resultAt(b, p)
		e.requant(acc, out, tables, m, n)
		e.store(false, out, size(f.out), b, p)
		return
	}
	for i, s := range f.steps {
		at := e.steps[i]
		if s.y != nil {
			if s.cols {
				e.load(at, s.y.plus(4*b.first), 4*n)
			} else {
				e.load(at, *s.y, 4)
			}
		}
		if s.cols {
			e.code.b.Emit(isa.Element{
				XAcc: true, OutAcc: true, Op: s.op, Type: systolic.FP32, OutType: systolic.FP32, X: acc, Y: at, Out: acc,
				M: uint32(m), N: uint16(n), XStride: uint16(4 * n), OutStride: uint16(4 * n),
			})
			continue
		}
		dense(m*n, 4, func(first, m, n int) {
			l := isa.Element{
				XAcc: true, OutAcc: true, One: s.y != nil, Op: s.op, Type: systolic.FP32, OutType: systolic.FP32,
				X: acc + uint32(4*first), Out: acc + uint32(4*first), M: uint32(m), N: uint16(n), XStride: uint16(4 * n), OutStride: uint16(4 * n),
			}
			if s.y != nil {
				l.Y = at
			}
			e.code.b.Emit(l)
		})
	}
	if f.out == systolic.Int32 || f.out == systolic.FP32 {
		e.store(true, acc, 4, b, p)
		return
	}
	out, s := e.resultAt(b, p), size(f.out)
	from := systolic.FP32
	if !e.a.Float() {
		from = systolic.Int32
	}
	dense(m*n, 4, func(first, m, n int) {
		e.code.b.Emit(isa.Element{
			XAcc: true, Op: isa.ElemMove, Type: from, OutType: f.out, X: acc + uint32(4*first), Out: out + uint32(s*first),
			M: uint32(m), N: uint16(n), XStride: uint16(4 * n), OutStride: uint16(s * n),
		})
	})
	e.store(false, out, s, b, p)
}

// outAt is where the first result of a tile goes.
func (e *productCode) outAt(b block, p patch) Place {
	return e.out.plus((((p.n*e.oh+p.oy)*e.ow+p.ox)*e.cout + b.first) * size(e.finish.out))
}

// resultAt is where the results of a tile are made: a buffer, or where they stay.
func (e *productCode) resultAt(b block, p patch) uint32 {
	if e.behind == nil && e.out.stays() {
		return uint32(e.outAt(b, p).Offset)
	}
	return e.oBuf.take()
}

// staysApart reports whether the results of a tile stay in the scratchpad, but not one behind the other.
func (e *productCode) staysApart(b block, p patch) bool {
	return e.behind == nil && e.out.stays() && (b.count < e.cout || p.tw < e.ow && p.th > 1)
}

// requantApart makes the bytes of a tile where they stay.
func (e *productCode) requantApart(acc, params uint32, b block, p patch) {
	f := &e.finish
	lines, line := 1, e.ow*e.cout // a REQUANT makes so many
	if p.tw < e.ow && line <= math.MaxUint16 {
		lines = p.th
	}
	pixels := p.tw
	if p.tw == e.ow && p.th*p.tw <= math.MaxUint16 {
		pixels = p.th * p.tw
	}
	out := uint32(e.outAt(b, p).Offset)
	for y := 0; y < p.th*p.tw/pixels; y += lines {
		r := isa.Requant{
			PerChannel: f.perChannel, N: uint16(b.count), AccStride: uint16(4 * b.count), Acc: acc + uint32(4*y*p.tw*b.count), Out: out + uint32(y*line), Params: params,
			MX: uint16(pixels), MY: uint16(lines), OutStrideX: uint16(e.cout), ZeroPoint: f.zero, Lo: f.lo, Hi: f.hi, Rounding: f.rounding,
		}
		if lines > 1 {
			r.OutStrideY = uint16(line)
		}
		e.code.b.Emit(r)
	}
}

// requant makes bytes of m × n accumulators.
func (e *productCode) requant(acc, out, params uint32, m, n int) {
	f := &e.finish
	rows(m, func(first, m int) {
		e.code.b.Emit(isa.Requant{
			PerChannel: f.perChannel, N: uint16(n), AccStride: uint16(4 * n), Acc: acc + uint32(4*first*n), Out: out + uint32(first*n), Params: params,
			MX: uint16(m), MY: 1, OutStrideX: uint16(n), ZeroPoint: f.zero, Lo: f.lo, Hi: f.hi, Rounding: f.rounding,
		})
	})
	if f.out == systolic.Uint8 {
		e.flip(out, m*n)
	}
}

// rows cuts m rows into parts that 16 bits can count.
func rows(m int, f func(first, m int)) {
	for first := 0; first < m; first += math.MaxUint16 {
		f(first, min(m-first, math.MaxUint16))
	}
}

// store stores the results of a tile, n channels of s bytes for each of the patch's
// pixels, or what is computed of them.
func (e *productCode) store(acc bool, at uint32, s int, b block, p patch) {
	if e.behind != nil {
		e.behind.tile(local{at: at, acc: acc}, box{[]int{p.n*e.oh + p.oy, p.ox, b.first}, []int{p.th, p.tw, b.count}}, e.ow)
		return
	}
	to := e.outAt(b, p)
	if to.stays() && !acc {
		return
	}
	pixel, line := e.cout*s, e.ow*e.cout*s
	st := isa.Store{Acc: acc, Binding: to.Binding, Offset: to.Offset, Local: at, NY: 1, NZ: 1}
	row := p.tw * b.count * s
	switch {
	case b.count == e.cout && p.tw == e.ow:
		st.NX = uint32(p.th * row)
	case b.count == e.cout && row <= math.MaxUint16:
		st.NX, st.NY, st.StrideY, st.LocalStride = uint32(row), uint16(p.th), uint32(line), uint16(row)
	default:
		st.NX, st.LocalStride = uint32(b.count*s), uint16(b.count*s)
		st.NY, st.StrideY = uint16(p.tw), uint32(pixel)
		st.NZ, st.StrideZ = uint16(p.th), uint32(line)
	}
	e.code.b.Emit(st)
}
