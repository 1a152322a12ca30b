// SPDX-License-Identifier: Apache-2.0

package gemm

import "unsafe"

// Weights are a right operand, K×N, packed for the engine that packed it: blocks
// of K, in them panels of columns, in them k-steps. Products only read them.
// The zero Weights is empty and ready to be packed.
type Weights struct {
	K, N   int
	line   int // what K was padded to whole k-steps by, or 0
	depth  int // K with this padding
	kernel *kernel
	buf    []byte
	sums   []int32 // of the columns, with int8; padded to whole panels
	comp   []int32 // −bias·sums
}

func (w *Weights) data() *byte { return aligned(w.buf) }

// blockSteps is the number of k-steps in a block but perhaps the last: blocks
// of nearly equal size.
func (w *Weights) blockSteps() int {
	steps := ceil(w.depth, w.kernel.elems)
	return ceil(steps, ceil(steps, stepsPerBlock))
}

// shape gives w room for k×n.
func (w *Weights) shape(kern *kernel, k, n int) {
	w.K, w.depth, w.line, w.N, w.kernel = k, k, 0, n, kern
	w.buf = grow(w.buf, kern.packedBytes(k, n))
}

func (k *kernel) packedBytes(rows, cols int) int {
	return ceil(rows, k.elems) * ceil(cols, k.nr) * k.nr * word
}

// PackedBytes returns how much memory packed weights of k×n take, of floats or of int8.
func (e *Engine) PackedBytes(float bool, k, n int) int {
	if float {
		return e.tier.float.packedBytes(k, n)
	}
	return e.tier.int8.packedBytes(k, n)
}

// How weights become int8 of a panel.
type packHow uint8

const (
	packRows     packHow = iota // rows of K×N
	packColumns                 // rows of N×K, by the tier's packColumns
	packElements                // the same, by none
	packHalves                  // rows of 4 bits
)

// packing is weights that are being packed, panel by panel, which share nothing.
type packing struct {
	w            *Weights // nil: nothing is
	how          packHow
	b            []byte
	stride       int
	line, padded int // of packColumns: elements of a column that follow each other, and what they are padded to
	parts        int
}

// Packing a byte takes as long as so many multiplications, and is divided among threads as they are, each of which has so
// many parts.
const (
	packCost       = 8
	packsPerThread = 2
)

// pack makes p.w the k×n weights that p tells of.
func (e *Engine) pack(p packing, k, n int) {
	kern, w := &e.tier.int8, p.w
	w.shape(kern, k, n)
	panels := ceil(n, kern.nr)
	if cols := panels * kern.nr; cap(w.sums) < cols {
		w.sums, w.comp = make([]int32, cols), make([]int32, cols)
	} else {
		w.sums, w.comp = w.sums[:cols], w.comp[:cols]
		clear(w.sums)
	}
	cost := packCost * float64(kern.packedBytes(k, n))
	t := max(1, int(min(float64(e.most()), cost/e.grain, float64(panels))))
	p.parts = t
	if t > 1 {
		p.parts = min(t*packsPerThread, panels)
	}
	e.packing = p
	e.rooms(t)
	e.workers.run(t, p.parts, cost >= 2*wakeable*e.grain)
	e.packing = packing{}
}

// room makes s large enough for a part.
func (p *packing) room(s *scratch) {
	if p.how == packElements || p.how == packHalves {
		s.block = growTo(s.block, stepsPerBlock*p.w.kernel.elems*p.w.kernel.nr)
	}
}

// part packs the i-th part of the panels.
func (p *packing) part(s *scratch, i int) {
	w := p.w
	kern := w.kernel
	panels := ceil(w.N, kern.nr)
	first, end := share(panels, i, p.parts)
	steps, size := ceil(w.depth, kern.elems), w.blockSteps()
	for step := 0; step < steps; step += size {
		now := min(size, steps-step)
		row := step * kern.elems
		rows := min(now*kern.elems, w.depth-row)
		for j := first; j < end; j++ {
			dst := add(w.data(), (step*panels+j*now)*kern.nr*word)
			p.panel(s, dst, row, j*kern.nr, rows, min(kern.nr, w.N-j*kern.nr), &w.sums[j*kern.nr])
		}
	}
	for c := first * kern.nr; c < end*kern.nr; c++ {
		w.comp[c] = -kern.bias * w.sums[c]
	}
	clear(s.rows[:])
}

// panel writes rows×cols weights from (row, col) on to dst, and adds their columns to sums.
func (p *packing) panel(s *scratch, dst *byte, row, col, rows, cols int, sums *int32) {
	kern, b, stride := p.w.kernel, p.b, p.stride
	switch p.how {
	case packRows:
		kern.packB(dst, add(&b[0], row*stride+col), stride, rows, cols, sums)
		return
	case packColumns:
		p.columns(s, dst, row, col, rows, cols, sums)
		return
	case packElements:
		for c := range cols {
			for r, v := range b[(col+c)*stride+row:][:rows] {
				s.block[r*kern.nr+c] = v
			}
		}
	case packHalves:
		for r := range rows {
			to := s.block[r*kern.nr:][:cols]
			from := b[(row+r)*stride+col/2:] // panels are an even number of columns
			for i := range to {
				to[i] = byte(int8(from[i/2]<<(4*(1-i%2))) >> 4)
			}
		}
	}
	kern.packB(dst, &s.block[0], kern.nr, rows, cols, sums)
}

// columns is panel of packColumns.
func (p *packing) columns(s *scratch, dst *byte, row, col, rows, cols int, sums *int32) {
	kern := p.w.kernel
	for half := 0; half < kern.nr; half += maxRows {
		exist := max(0, min(cols-half, maxRows))
		for c := range s.rows {
			s.rows[c] = &p.b[(col+min(half+c, cols-1))*p.stride]
		}
		to, sum := half*word, (*int32)(unsafe.Add(unsafe.Pointer(sums), half*word))
		for r := row; r < row+rows; {
			c := r % p.padded
			now := min(p.padded-c, row+rows-r)
			kern.packColumns(add(dst, to), &s.rows[0], r/p.padded*p.line+c, min(now, p.line-c), exist, sum)
			to += ceil(now, kern.elems) * kern.nr * word
			r += now
		}
	}
}

// PackInt8 makes w the k×n int8 weights in b, row-major, stride bytes apart. It
// reuses what memory w has. It panics if b is shorter than its shape.
func (e *Engine) PackInt8(w *Weights, b []byte, stride, k, n int) {
	check("weights", k, n, stride, len(b))
	e.pack(packing{w: w, how: packRows, b: b, stride: stride}, k, n)
}

// PackInt8Lines is PackInt8 of weights for a window whose rows lie in pieces of line elements (Window.Run), which are
// packed from there.
func (e *Engine) PackInt8Lines(w *Weights, b []byte, stride, k, n, line int) {
	elems := e.tier.int8.elems
	if line < leastRun || line%elems == 0 || k%line != 0 {
		e.PackInt8(w, b, stride, k, n)
		return
	}
	check("weights", k, n, stride, len(b))
	padded := ceil(line, elems) * elems
	e.lineWeights = growTo(e.lineWeights, k/line*padded*n)
	for i := range k / line {
		to := e.lineWeights[i*padded*n:][:padded*n]
		for r := range line {
			copy(to[r*n:][:n], b[(i*line+r)*stride:])
		}
		clear(to[line*n:])
	}
	e.PackInt8(w, e.lineWeights, n, k/line*padded, n)
	w.K, w.line = k, line
}

// PackInt8Transposed is PackInt8, or PackInt8Lines if line is not 0, of weights that are n rows of k.
func (e *Engine) PackInt8Transposed(w *Weights, b []byte, stride, k, n, line int) {
	check("weights", n, k, stride, len(b))
	kern := &e.tier.int8
	if kern.packColumns == nil {
		e.pack(packing{w: w, how: packElements, b: b, stride: stride}, k, n)
		return
	}
	if line < leastRun || line%kern.elems == 0 || k%line != 0 {
		e.pack(packing{w: w, how: packColumns, b: b, stride: stride, line: k, padded: k}, k, n)
		return
	}
	padded := ceil(line, kern.elems) * kern.elems
	e.pack(packing{w: w, how: packColumns, b: b, stride: stride, line: line, padded: padded}, k/line*padded, n)
	w.K, w.line = k, line
}

// PackInt4 is PackInt8 of 4-bit weights in two's complement: element i of a row
// is the low half of its byte i/2 if i is even, else the high half.
func (e *Engine) PackInt4(w *Weights, b []byte, stride, k, n int) {
	check("weights", k, ceil(n, 2), stride, len(b))
	e.pack(packing{w: w, how: packHalves, b: b, stride: stride}, k, n)
}

// check panics unless kern packed w and m rows of C, stride apart, lie in size elements.
func (w *Weights) check(kern *kernel, m, stride, size int) {
	if w.kernel != kern {
		panic("gemm: BUG: weights that another engine packed, or of another kind")
	}
	check("C", m, w.N, stride, size)
	if m > 1 && stride < w.N {
		panic("gemm: BUG: rows of C overlap")
	}
}

// checkA panics unless m rows of elements of so many bytes match w and lie in n.
func (w *Weights) checkA(m, size, stride, n int, window *Window) {
	if window == nil {
		if w.line != 0 {
			panic("gemm: BUG: weights packed for a window, and none")
		}
		check("A", m, w.K*size, stride, n)
		return
	}
	window.check(n, size)
	if m != window.OutH*window.OutW || w.K != window.depth() || w.line != 0 && w.line != window.Run(size) {
		panic("gemm: BUG: a window of another shape than the product")
	}
}

// PackFloat makes w the k×n weights of type t in b, row-major, stride bytes
// apart, widened to binary32. It panics if b is shorter than its shape.
func (e *Engine) PackFloat(w *Weights, t Type, b []byte, stride, k, n int) {
	size := t.Size()
	check("weights", k, n*size, stride, len(b))
	e.packFloat(w, k, n, func(to []float32, row, col, rows, cols int) {
		for r := range rows {
			e.tier.float.widen(to[r*e.tier.float.nr:][:cols], &b[(row+r)*stride+col*size], t)
		}
	})
}

// PackFloatTransposed is PackFloat of weights that are n rows of k.
func (e *Engine) PackFloatTransposed(w *Weights, t Type, b []byte, stride, k, n int) {
	size := t.Size()
	check("weights", n, k*size, stride, len(b))
	if len(e.column) < stepsPerBlock {
		e.column = make([]float32, stepsPerBlock)
	}
	e.packFloat(w, k, n, func(to []float32, row, col, rows, cols int) {
		for c := range cols {
			e.tier.float.widen(e.column[:rows], &b[(col+c)*stride+row*size], t)
			for r, v := range e.column[:rows] {
				to[r*e.tier.float.nr+c] = v
			}
		}
	})
}

// packFloat packs what fill writes: rows×cols weights from (row, col) on, rows
// as far apart as a panel is wide.
func (e *Engine) packFloat(w *Weights, k, n int, fill func(to []float32, row, col, rows, cols int)) {
	kern := &e.tier.float
	w.shape(kern, k, n)
	w.sums, w.comp = nil, nil
	size := w.blockSteps()
	dst := w.data()
	for row := 0; row < k; row += size {
		now := min(size, k-row)
		for col := 0; col < n; col += kern.nr {
			to := floats(dst, now*kern.nr)
			if n-col < kern.nr {
				clear(to)
			}
			fill(to, row, col, now, min(kern.nr, n-col))
			dst = add(dst, now*kern.nr*word)
		}
	}
}

// Int8 is the left operand and the result of a product with int8 weights.
type Int8 struct {
	A        []byte  // M rows of K int8
	Unsigned bool    // they are uint8
	AStride  int     // bytes
	M        int     // OutH·OutW with a window
	Window   *Window // nil; else A is its image, padded with ZeroA

	C          []int32 // M rows of N; nil if only Done wants them
	CStride    int     // elements
	Accumulate bool    // the sums begin with what is in C, else with 0

	ZeroA int32   // zero point of A
	ZeroB []int32 // of the weights: none, one for all columns, or N
	Seed  []int32 // none, or what the sums of each column begin with if p does not accumulate

	// Stop is asked before each block of the product, by all threads; nil never
	// stops. Once it is true MulInt8 returns early, and C is undefined.
	Stop func() bool

	// Done, if not nil, is told of each part of C when it is finished, by all threads: rows from row on of the columns
	// from column on, which is a multiple of 16, and given it as rows of c, stride elements apart. Nobody is told of a
	// product that was stopped before its end.
	Done func(row, rows, column, columns int, c []int32, stride int)
}

// MulInt8 computes, modulo 2³²,
//
//	C[m][n] ← seed + Σₖ (A[m][k] − ZeroA)·(w[k][n] − ZeroB[n])
//
// (docs/spec/numerics.md §6.2). C must not overlap A. It panics if w was not
// packed as integers by an engine of this tier or a slice is shorter than its shape.
func (e *Engine) MulInt8(w *Weights, p Int8) {
	k := &e.tier.int8
	if p.C == nil && (p.Accumulate || p.Done == nil) {
		panic("gemm: BUG: a product without a place for it")
	}
	if p.C != nil {
		w.check(k, p.M, p.CStride, len(p.C))
	} else {
		w.check(k, 1, w.N, w.N)
	}
	w.checkA(p.M, 1, p.AStride, len(p.A), p.Window)
	if len(p.ZeroB) > 1 && len(p.ZeroB) != w.N {
		panic("gemm: BUG: zero points do not match the columns")
	}
	e.job = job{
		k: k, w: w, m: p.M, stop: p.Stop,
		src: source{base: &p.A[0], stride: p.AStride, typ: typeInt8, conv: p.Window, pixels: p.A, pad: byte(p.ZeroA)},
		c:   (*byte)(unsafe.Pointer(unsafe.SliceData(p.C))), ldc: p.CStride * word, load: p.Accumulate, comp: &w.comp[0], done: p.Done,
	}
	if p.Unsigned {
		e.job.flip = 0x80808080
	}
	if p.Window != nil {
		e.job.src.conv, e.job.src.pixels = e.padded(p.Window, p.A, byte(p.ZeroA))
	}
	if len(p.Seed) > 0 && (len(p.Seed) != w.N || p.Accumulate) {
		panic("gemm: BUG: seeds do not match the columns")
	}
	if len(p.Seed) > 0 || p.Unsigned || p.ZeroA != 0 || len(p.ZeroB) > 0 {
		e.compensate(w, p)
	}
	e.run()
}

// compensate sets what zero points and seeds need. Packed activations are a' = a + bias, where bias is less by 128 for uint8,
// also in the padding of K to whole k-steps, where a and w are 0; so
//
//	Σ (a−za)·(w−zw) = Σ a'·w − (bias+za)·Σw − zw·Σa' + zw·(bias·K' + K·za)
//
// with K' the padded K. The first correction and the last are the same for all
// rows, and the one between is taken off the finished sums.
func (e *Engine) compensate(w *Weights, p Int8) {
	k := w.kernel
	cols, bias := len(w.sums), k.bias
	if p.Unsigned {
		bias -= 128
	}
	if len(e.comp) < cols {
		e.comp, e.zeroB = make([]int32, cols), make([]int32, cols)
	}
	comp, off := e.comp[:cols], bias+p.ZeroA
	for n, s := range w.sums {
		comp[n] = -off * s
	}
	for n, v := range p.Seed {
		comp[n] += v
	}
	if len(p.ZeroB) > 0 {
		each := int32(ceil(w.depth, k.elems)*k.elems-w.K)*bias + int32(w.K)*off
		for n := range comp {
			zero := int32(0)
			switch {
			case len(p.ZeroB) == 1:
				zero = p.ZeroB[0]
			case n < len(p.ZeroB):
				zero = p.ZeroB[n]
			}
			e.zeroB[n] = zero
			comp[n] += zero * each
		}
	}
	e.job.comp = &e.comp[0]
	if len(p.ZeroB) > 0 {
		e.job.zeroB = &e.zeroB[0]
	}
}

// Float is the left operand and the result of a product with float weights.
type Float struct {
	Type    Type
	A       []byte // M rows of K of Type
	AStride int    // bytes
	M       int
	Window  *Window // nil; else A is its image, padded with +0

	C          []float32 // M rows of N
	CStride    int       // elements
	Accumulate bool
	Stop       func() bool // as with Int8
}

// MulFloat computes each C[m][n] as a chain of fused multiply-adds,
//
//	c ← fma(A[m][k], w[k][n], c)    for k = 0, 1, … K−1
//
// that begins with what is in C if p accumulates and with +0 if not; operands
// are widened to binary32 first, which is exact. A NaN is stored as 0x7fc00000.
// Subnormals count. C must not overlap A. It panics as MulInt8 does.
func (e *Engine) MulFloat(w *Weights, p Float) {
	k := &e.tier.float
	w.check(k, p.M, p.CStride, len(p.C))
	w.checkA(p.M, p.Type.Size(), p.AStride, len(p.A), p.Window)
	e.job = job{
		k: k, w: w, m: p.M, stop: p.Stop,
		src: source{base: &p.A[0], stride: p.AStride, typ: p.Type, conv: p.Window, pixels: p.A},
		c:   (*byte)(unsafe.Pointer(&p.C[0])), ldc: p.CStride * word, load: p.Accumulate,
	}
	e.run()
}
