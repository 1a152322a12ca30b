// SPDX-License-Identifier: Apache-2.0

package systolic

import (
	"fmt"

	"npuemu/core/gemm"
)

// Array is the array with its weights, and what computes whole products. It is
// not safe for concurrent use.
type Array struct {
	rows, cols int
	tile       []byte // rows × cols weights, dense
	k, n       int    // extent of the tile; everything else is zero

	engine  *gemm.Engine
	resting gemm.Weights // the array's, packed if packed
	packed  bool

	kept   [kept]keptWeights
	oldest int
	window gemm.Window
	told   func(row, rows, column, columns int, c []int32, stride int) // Options.Done of a group of columns from column on
	column int
	tell   func(row, rows, column, columns int, c []int32, stride int)
	zeros  []int32
	turned []byte // activations that were transposed
	narrow []byte // int8 weights of depthwise convolutions
	bytes  []byte // weights that were uint8, and their zero points
	plain  Workspace

	high, low []byte // of 16-bit activations
	upper     []int32

	sums []int32 // of a product whose sums nobody needs, where it has them in memory all the same
}

// New returns an array whose weights are zero, or an error if a dimension is
// not one that CheckDim accepts. It computes with so many threads, 0 for GOMAXPROCS; Close ends them.
func New(rows, cols, threads int) (*Array, error) {
	for _, n := range []int{rows, cols} {
		if err := CheckDim(n); err != nil {
			return nil, err
		}
	}
	a := &Array{rows: rows, cols: cols, tile: make([]byte, rows*cols), engine: gemm.New(threads)}
	a.tell = func(row, rows, column, columns int, c []int32, stride int) {
		a.told(row, rows, a.column+column, columns, c, stride)
	}
	return a, nil
}

// Close ends the array's goroutines. Nothing may be in progress.
func (a *Array) Close() { a.engine.Close() }

// Help gives the goroutines something to do besides products, as gemm.Engine.Help does.
func (a *Array) Help(f func(thread int) bool) { a.engine.Help(f) }

// Call wakes goroutines that sleep.
func (a *Array) Call() { a.engine.Call() }

// Alone says that products that follow are to be computed by the caller alone.
func (a *Array) Alone(yes bool) { a.engine.Alone(yes) }

// Share says that so many threads do parts of products that follow, those that call Join (gemm.Engine.Share).
func (a *Array) Share(threads int) { a.engine.Share(threads) }

// Join does parts of what of computes, and reports whether there were any. a computes nothing meanwhile.
func (a *Array) Join(of *Array) bool { return a.engine.Join(of.engine) }

// Reset makes all weights of the array zero.
func (a *Array) Reset() {
	for i := range a.k {
		clear(a.tile[i*a.cols:][:a.n])
	}
	a.k, a.n, a.packed = 0, 0, false
}

// Preload places k rows of n weights, stride bytes apart in w, at the origin
// and makes every other cell zero (§5.6.4). It panics if the tile does not fit
// the array or w is too short.
func (a *Array) Preload(w []byte, stride, k, n int) {
	if k > a.rows || n > a.cols {
		panic(fmt.Sprintf("systolic: BUG: tile %d×%d in an array %d×%d", k, n, a.rows, a.cols))
	}
	a.Reset()
	a.k, a.n = k, n
	for i := range k {
		copy(a.tile[i*a.cols:][:n], w[i*stride:][:n])
	}
}

// MatMul adds the product of the activations and the weights to acc, or stores
// it there when s does not accumulate (§6.2). It panics if s does not fit the
// array or a slice is shorter than its shape.
func (a *Array) MatMul(acc []int32, ifmap []byte, s Shape) {
	if s.K > a.rows || s.N > a.cols {
		panic(fmt.Sprintf("systolic: BUG: product with %d×%d weights in an array %d×%d", s.K, s.N, a.rows, a.cols))
	}
	if !a.packed || a.resting.K != s.K || a.resting.N != s.N {
		a.engine.PackInt8(&a.resting, a.tile, a.cols, s.K, s.N)
		a.packed = true
	}
	p := gemm.Int8{A: ifmap, AStride: s.StrideX, M: s.MX, C: acc, CStride: s.AccStride, Accumulate: s.Accumulate}
	if s.MY > 1 && s.StrideY == s.MX*s.StrideX {
		p.M *= s.MY
		s.MY = 1
	}
	for y := range s.MY {
		p.A, p.C = ifmap[y*s.StrideY:], acc[y*s.MX*s.AccStride:]
		a.engine.MulInt8(&a.resting, p)
	}
}

// leastColumns is how many columns a group must have to be worth a packed product.
const leastColumns = 8

// mostPacked is how many bytes packed weights may have: a column is packed like thirty-two, so a guest could make a
// few columns many times as large as the scratchpad that they come from.
const mostPacked = 256 << 20

// Options are what Do knows of a product besides its operands. The zero value is one that nobody waits for.
type Options struct {
	Stop func() bool // as with Product.Do, but any thread asks

	// Done, if not nil, is told of each part of the result when it is finished, by any thread: rows from row on of the
	// columns from column on, which is a multiple of 16 in a group of columns, as rows of c, stride elements apart. Nobody
	// is told of a product that was stopped before its end.
	Done func(row, rows, column, columns int, c []int32, stride int)

	// Passing says that nobody but Done needs the result: acc is neither read nor written, since others may use it meanwhile.
	// p does not accumulate then.
	Passing bool

	// Seed, if not nil, is what the sums of each column begin with. p is one of integers that does not accumulate.
	Seed []int32

	// Weights is a number that only these weights have; packed ones are kept by it. 0: they do not come again.
	Weights uint64
}

// Do computes p as p.Do does, to the same bits, near the processor's speed.
func (a *Array) Do(p *Product, acc []int32, in, w []byte, o Options) {
	if p.A.Type == Int16 {
		a.halves(p, acc, in, w, o)
		return
	}
	var signed Product
	if p.B.Type == Uint8 {
		signed = *p
		w, p = a.signed(&signed, w), &signed
		o.Weights = 0
	}
	n := p.Cout / p.Groups
	if !p.A.Type.Float() && !p.A.Transposed && n == 1 && p.Groups == p.Cin {
		a.depthwise(p, acc, in, w, o)
		return
	}
	odd := p.B.Type == Int4 && (p.B.Transposed || n%2 != 0)
	if p.Groups > 1 && (n < leastColumns || odd) || p.B.Type == Int4 && p.B.Transposed || a.engine.PackedBytes(p.A.Type.Float(), p.depth(), n) > mostPacked {
		if o.Passing {
			acc = a.own(p)
		}
		if o.Seed != nil {
			signed = *p
			p = &signed
			p.Accumulate = true
			for r := range p.OutH * p.OutW {
				copy(acc[r*p.AccStride:], o.Seed)
			}
		}
		p.Do(&a.plain, acc, in, w, o.Stop)
		if o.Done != nil && !(o.Stop != nil && o.Stop()) {
			o.Done(0, p.OutH*p.OutW, 0, p.Cout, acc, p.AccStride)
		}
		return
	}
	stride := p.A.Stride
	if p.A.Transposed {
		in, stride = a.turn(p, in), int(p.A.Type.Bytes(uint64(p.Cin)))
	}
	for g := range p.Groups {
		if o.Stop != nil && o.Stop() {
			return
		}
		a.group(p, acc[g*n:], in, stride, g, n, a.weightsOf(p, w, stride, g, n, o.Weights), o)
	}
}

// halves is Do of 16-bit activations: a = 256·high + low, with a signed high byte and an unsigned low one, and so has
// their zero point.
func (a *Array) halves(p *Product, acc []int32, in, w []byte, o Options) {
	lines, pixels, row := p.InH, p.InW, p.Cin
	if p.A.Transposed {
		pixels, row = row, pixels
	}
	n := ((lines-1)*p.Line+(pixels-1)*p.A.Stride)/2 + row
	a.high, a.low = grown(a.high, n), grown(a.low, n)
	for i := range n {
		a.low[i], a.high[i] = in[2*i], in[2*i+1]
	}
	if o.Passing {
		acc = a.own(p)
	}
	m := p.OutH * p.OutW
	a.upper = grown(a.upper, m*p.Cout)
	half := *p
	half.A.Type, half.A.Zero, half.A.Stride, half.Line = Int8, p.A.Zero>>8, p.A.Stride/2, p.Line/2
	half.Accumulate, half.AccStride = false, p.Cout
	a.Do(&half, a.upper, a.high, w, Options{Stop: o.Stop, Weights: o.Weights})
	for r := range m {
		if o.Stop != nil && o.Stop() {
			return
		}
		from, to := a.upper[r*p.Cout:][:p.Cout], acc[r*p.AccStride:][:p.Cout]
		switch {
		case o.Seed != nil:
			copy(to, o.Seed)
		case !p.Accumulate:
			clear(to)
		}
		for i, v := range from {
			to[i] += v << 8
		}
	}
	half.A.Type, half.A.Zero, half.Accumulate, half.AccStride = Uint8, p.A.Zero&0xff, true, p.AccStride
	o.Seed, o.Passing = nil, false
	a.Do(&half, acc, a.low, w, o)
}

// signed makes p, whose weights are uint8, the same product of int8, and returns its weights: all less 128.
func (a *Array) signed(p *Product, w []byte) []byte {
	rows, n := p.depth(), p.Cout
	if p.B.Transposed {
		rows, n = n, rows
	}
	a.bytes = grown(a.bytes, rows*n+len(p.BZeros))
	for r := range rows {
		to := a.bytes[r*n:][:n]
		for i, v := range w[r*p.B.Stride:][:n] {
			to[i] = v ^ 0x80
		}
	}
	p.B.Type, p.B.Stride = Int8, n
	if p.BZeros == nil {
		p.B.Zero -= 128
		return a.bytes
	}
	zeros := a.bytes[rows*n:]
	for i, z := range p.BZeros {
		zeros[i] = z ^ 0x80
	}
	p.BZeros = zeros
	return a.bytes[:rows*n]
}

// own is memory of a's own for the sums of p, as p has them.
func (a *Array) own(p *Product) []int32 {
	a.sums = grown(a.sums, (p.OutH*p.OutW-1)*p.AccStride+p.Cout)
	return a.sums
}

// grown returns s, or what replaces it, with n elements.
func grown[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// depthwise is a convolution of as many groups as channels.
func (a *Array) depthwise(p *Product, acc []int32, in, w []byte, o Options) {
	stride := p.B.Stride
	if p.B.Type != Int8 || p.B.Transposed {
		positions := p.KernelH * p.KernelW
		a.narrow = grown(a.narrow, positions*p.Cout)
		if p.B.Type == Int8 {
			for c := range p.Cout {
				to := a.narrow[c:]
				for k, v := range w[c*stride:][:positions] {
					to[k*p.Cout] = v
				}
			}
		} else {
			for k := range positions {
				for c := range p.Cout {
					row, i := k, c
					if p.B.Transposed {
						row, i = c, k
					}
					a.narrow[k*p.Cout+c] = byte(p.B.Type.Integer(w[row*stride:], i))
				}
			}
		}
		w, stride = a.narrow, p.Cout
	}
	if o.Passing {
		acc = nil
	}
	a.window = p.window(p.A.Stride, 0, p.Cin)
	a.engine.Depthwise(gemm.Depthwise{
		Window: &a.window, Image: in, Unsigned: p.A.Type == Uint8, ZeroA: p.A.Zero, W: w, WStride: stride, ZeroB: a.zeroPoints(p, 0, p.Cout),
		C: acc, CStride: p.AccStride, Accumulate: p.Accumulate, Stop: o.Stop, Done: o.Done, Seed: o.Seed,
	})
}

// turn makes rows of transposed activations.
func (a *Array) turn(p *Product, in []byte) []byte {
	size := int(p.A.Type.Bytes(1))
	if need := p.InW * p.Cin * size; cap(a.turned) < need {
		a.turned = make([]byte, need)
	}
	to := a.turned[:p.InW*p.Cin*size]
	for k := range p.Cin {
		row := in[k*p.A.Stride:][:p.InW*size]
		for m := range p.InW {
			copy(to[(m*p.Cin+k)*size:][:size], row[m*size:][:size])
		}
	}
	return to
}

// pack packs the n columns of group g, for pixels stride bytes apart.
func (a *Array) pack(to *gemm.Weights, p *Product, w []byte, stride, g, n int) {
	depth, t := p.depth(), p.B.Type
	first := w[t.Bytes(uint64(g*n)):]
	if p.B.Transposed {
		first = w[g*n*p.B.Stride:]
	}
	switch {
	case t == Int4:
		a.engine.PackInt4(to, first, p.B.Stride, depth, n)
	case t == Int8 && p.B.Transposed:
		a.engine.PackInt8Transposed(to, first, p.B.Stride, depth, n, p.line(stride))
	case t == Int8 && !p.rows(stride):
		a.engine.PackInt8Lines(to, first, p.B.Stride, depth, n, p.line(stride))
	case t == Int8:
		a.engine.PackInt8(to, first, p.B.Stride, depth, n)
	case p.B.Transposed:
		a.engine.PackFloatTransposed(to, floatType(t), first, p.B.Stride, depth, n)
	default:
		a.engine.PackFloat(to, floatType(t), first, p.B.Stride, depth, n)
	}
}

// group multiplies the n columns of group g, packed in w.
func (a *Array) group(p *Product, acc []int32, in []byte, stride, g, n int, w *gemm.Weights, o Options) {
	channels := p.Cin / p.Groups
	offset := int(p.A.Type.Bytes(uint64(g * channels)))
	m, window := p.OutH*p.OutW, (*gemm.Window)(nil)
	if p.rows(stride) {
		in, stride = in[offset:], p.StepX*stride
	} else {
		a.window = p.window(stride, offset, channels)
		window = &a.window
	}
	if p.A.Type.Float() {
		a.engine.MulFloat(w, gemm.Float{
			Type: floatType(p.A.Type), A: in, AStride: stride, M: m, Window: window,
			C: gemm.Floats(acc), CStride: p.AccStride, Accumulate: p.Accumulate, Stop: o.Stop,
		})
		return
	}
	if o.Done != nil && g > 0 {
		a.told, a.column, o.Done = o.Done, g*n, a.tell
	}
	if o.Seed != nil {
		o.Seed = o.Seed[g*n:][:n]
	}
	if o.Passing {
		acc = nil
	}
	a.engine.MulInt8(w, gemm.Int8{
		A: in, Unsigned: p.A.Type == Uint8, AStride: stride, M: m, Window: window, C: acc, CStride: p.AccStride, Accumulate: p.Accumulate,
		ZeroA: p.A.Zero, ZeroB: a.zeroPoints(p, g, n), Stop: o.Stop, Done: o.Done, Seed: o.Seed,
	})
}

// line is gemm.Window.Run of p's window, or 0 if it has none.
func (p *Product) line(stride int) int {
	if p.rows(stride) {
		return 0
	}
	window := p.window(stride, 0, p.Cin/p.Groups)
	return window.Run(int(p.A.Type.Bytes(1)))
}

// window is what p does to its image: channels of each pixel, offset bytes from its beginning.
func (p *Product) window(stride, offset, channels int) gemm.Window {
	return gemm.Window{
		InH: p.InH, InW: p.InW, Line: p.Line, Pixel: stride, Offset: offset, Channels: channels, OutH: p.OutH, OutW: p.OutW,
		KernelH: p.KernelH, KernelW: p.KernelW, StepY: p.StepY, StepX: p.StepX,
		DilationY: p.DilationY, DilationX: p.DilationX, PadTop: p.PadTop, PadLeft: p.PadLeft,
	}
}

// rows reports whether the rows of the result come from places equally far
// apart: in products, and with a window of one over lines that follow each other.
func (p *Product) rows(stride int) bool {
	if p.KernelH != 1 || p.KernelW != 1 || p.PadTop != 0 || p.PadLeft != 0 || (p.OutW-1)*p.StepX >= p.InW || (p.OutH-1)*p.StepY >= p.InH {
		return false
	}
	return p.OutH == 1 || p.StepY*p.Line == p.OutW*p.StepX*stride
}

// zeroPoints returns those of the n columns of group g.
func (a *Array) zeroPoints(p *Product, g, n int) []int32 {
	a.zeros = a.zeros[:0]
	switch {
	case p.BZeros != nil:
		for _, z := range p.BZeros[g*n:][:n] {
			a.zeros = append(a.zeros, int32(int8(z)))
		}
	case p.B.Zero != 0:
		a.zeros = append(a.zeros, p.B.Zero)
	}
	return a.zeros
}

// floatType is t as package gemm calls it.
func floatType(t Type) gemm.Type {
	switch t {
	case FP32:
		return gemm.Float32
	case BF16:
		return gemm.BFloat16
	case FP16:
		return gemm.Float16
	case E4M3:
		return gemm.E4M3
	case E5M2:
		return gemm.E5M2
	}
	panic(fmt.Sprintf("systolic: BUG: %d is no type of floats", t))
}
