// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"math"
	"slices"

	"npuemu/compiler/ir"
)

// fourier is a matrix by which the last axis of x, elements of one number or two, is transformed to that of y.
type fourier struct {
	n, parts int // elements that x has of those of the period, and numbers of each
	period   int
	m, out   int // elements of y, and numbers of each
	inverse  bool
}

// matrix is [n · parts, m · out].
func (b *builder) fourier(typ ir.Type, f fourier) *ir.Tensor {
	rows, cols := f.n*f.parts, f.m*f.out
	v := make([]float32, b.made(rows, cols))
	for i := range f.n {
		for k := range f.m {
			s, c := math.Sincos(2 * math.Pi * float64(i*k%f.period) / float64(f.period))
			scale := 1.0
			if f.inverse {
				s, scale = -s, 1/float64(f.period)
				if f.out == 1 && i > 0 && 2*i != f.period { // and its mirror image
					scale *= 2
				}
			}
			// re + i·im times c − i·s
			part := [2][2]float64{{c, -s}, {s, c}}
			for p := range f.parts {
				for o := range f.out {
					v[(i*f.parts+p)*cols+k*f.out+o] = float32(scale * part[p][o])
				}
			}
		}
	}
	return b.floats(typ, []int{rows, cols}, v...)
}

// transform multiplies x [rows, n · parts] by the matrix of f.
func (b *builder) transform(x *ir.Tensor, f fourier) *ir.Tensor {
	return b.matmul(x, b.fourier(x.Type, f), product{typ: x.Type, attrs: ir.Attrs{"rounding": "none"}})
}

// ruleDFT is a product with a constant matrix.
func ruleDFT(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	rank := len(x.Shape)
	axis := n.Attrs.Int("axis", 1)
	if n.Attrs.Int("opset", 20) >= 20 {
		axis = -2
		if n.Input(2) != nil {
			axis = b.constInts(2)[0]
		}
	}
	axis = b.axis(axis, rank)
	parts := x.Shape[rank-1]
	if rank < 2 || axis == rank-1 || parts < 1 || parts > 2 || !x.Type.Float() {
		b.fail(fixShapes, x, "axis %d of %s%v, whose last one has the parts of a number", axis, x.Type, x.Shape)
	}
	back, half := n.Attrs.Int("inverse", 0) != 0, n.Attrs.Int("onesided", 0) != 0
	f := fourier{n: x.Shape[axis], parts: parts, period: x.Shape[axis], out: 2, inverse: back}
	if back && half {
		f.period = 2 * (f.n - 1)
	}
	if n.Input(1) != nil {
		f.period = b.constInts(1)[0]
	}
	f.m = f.period
	if f.period < 1 || f.period > 1<<16 {
		b.fail(makeSmaller, x, "a transform of %d elements", f.period)
	}
	f.n = min(f.n, f.period)
	switch {
	case half && back:
		f.n, f.out = min(f.n, f.period/2+1), 1
	case half:
		f.m = f.period/2 + 1
	}
	x = b.part(x, axis, 0, f.n)
	var perm []int
	for i := range rank - 1 {
		if i != axis {
			perm = append(perm, i)
		}
	}
	perm = append(perm, axis, rank-1)
	x = b.transpose(x, perm...)
	outer := slices.Clone(x.Shape[:rank-2])
	y := b.transform(b.reshape(x, b.elements(outer), f.n*parts), f)
	y = b.reshape(y, append(outer, f.m, f.out)...)
	return one(b.reshapeCopy(b.transpose(y, inverse(perm)...)))
}

// ruleSTFT transforms frames of a signal, which overlap.
func ruleSTFT(b *builder, n *ir.Node) []*ir.Tensor {
	x, window := n.Inputs[0], n.Input(2)
	step := b.constInts(1)[0]
	length := 0
	if window != nil {
		length = window.Elements()
	}
	if n.Input(3) != nil {
		length = b.constInts(3)[0]
	}
	if len(x.Shape) == 2 {
		x = b.reshape(x, x.Shape[0], x.Shape[1], 1)
	}
	if len(x.Shape) != 3 || x.Shape[2] < 1 || x.Shape[2] > 2 || step < 1 || length < 1 || length > x.Shape[1] || window != nil && window.Elements() != length {
		b.fail(fixShapes, x, "frames of %d, %d apart, of the signal %v", length, step, x.Shape)
	}
	batch, parts := x.Shape[0], x.Shape[2]
	frames := (x.Shape[1]-length)/step + 1
	at := make([]int, b.made(frames, length))
	for i := range at {
		at[i] = i/length*step + i%length
	}
	x = b.gather(x, b.ints(ir.Int32, []int{frames, length}, at...), 1) // [batch, frames, length, parts]
	if window != nil {
		x = b.op2("mul", x, b.reshape(b.cast(window, x.Type), length, 1))
	}
	f := fourier{n: length, parts: parts, period: length, m: length, out: 2}
	if n.Attrs.Int("onesided", 1) != 0 {
		f.m = length/2 + 1
	}
	y := b.transform(b.reshape(x, batch*frames, length*parts), f)
	return one(b.reshapeCopy(b.reshape(y, batch, frames, f.m, 2)))
}

// ruleWindow is a sum of cosines over a number of elements that is known.
func ruleWindow(c ...float64) rule {
	return func(b *builder, n *ir.Node) []*ir.Tensor {
		size := b.constInts(0)[0]
		typ, ok := elementTypes[n.Attrs.Int("output_datatype", 1)]
		if !ok || !typ.Float() {
			b.fail(fixTypes, nil, "a window of element type %d of ONNX", n.Attrs.Int("output_datatype", 1))
		}
		v := make([]float32, b.made(size))
		period := float64(size)
		if n.Attrs.Int("periodic", 1) == 0 {
			period = max(period-1, 1)
		}
		for i := range v {
			sum := 0.0
			for k, a := range c {
				sum += a * math.Cos(2*math.Pi*float64(k*i)/period)
			}
			v[i] = float32(sum)
		}
		return one(b.floats(typ, []int{size}, v...))
	}
}

// running combines each element of an axis with those before it, or behind: with the next one, then with the second, the fourth, ….
func (b *builder) running(op string, x *ir.Tensor, axis int, neutral float32, exclusive, reverse bool) *ir.Tensor {
	size, rank := x.Shape[axis], len(x.Shape)
	shifted := func(x *ir.Tensor, by int) *ir.Tensor {
		pads := make([]int, 2*rank)
		from := 0
		pads[axis] = by
		if reverse {
			pads[axis], pads[rank+axis], from = 0, by, by
		}
		return b.pad(b.part(x, axis, from, size-by), pads, int(neutral), neutral)
	}
	if exclusive && size > 0 {
		x = shifted(x, 1)
	}
	for by := 1; by < size; by *= 2 {
		x = b.op2(op, x, shifted(x, by))
	}
	return x
}

func ruleCumProd(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	axis := b.axis(b.constInts(1)[0], len(x.Shape))
	return one(b.reshapeCopy(b.running("mul", x, axis, 1, n.Attrs.Int("exclusive", 0) != 0, n.Attrs.Int("reverse", 0) != 0)))
}

// ruleCol2Im adds up the blocks that overlap: where they lie is known, so each pixel is a row of its images and channels.
func ruleCol2Im(b *builder, n *ir.Node) []*ir.Tensor {
	x, image, block := n.Inputs[0], b.constInts(1), b.constInts(2)
	rank := len(image)
	ints := func(name string, count, def int) []int {
		v := n.Attrs.Ints(name)
		if v == nil {
			v = slices.Repeat([]int{def}, count)
		}
		if len(v) != count || slices.Min(append(v, 1<<20)) < def || slices.Max(append(v, 0)) > 1<<20 {
			b.fail(fixValue, x, "%s %v", name, v)
		}
		return v
	}
	dilations, pads, strides := ints("dilations", rank, 1), ints("pads", 2*rank, 0), ints("strides", rank, 1)
	inBlock := b.made(block...)
	if len(block) != rank || rank < 1 || len(x.Shape) != 3 || inBlock < 1 || x.Shape[1]%inBlock != 0 || b.made(image...) < 1 {
		b.fail(fixShapes, x, "blocks %v of an image %v from %v", block, image, x.Shape)
	}
	count := make([]int, rank)
	for i := range count {
		if count[i] = (image[i]+pads[i]+pads[rank+i]-dilations[i]*(block[i]-1)-1)/strides[i] + 1; count[i] < 1 {
			b.fail(fixShapes, x, "a block %v does not fit the image %v", block, image)
		}
	}
	blocks := b.elements(count)
	if blocks != x.Shape[2] {
		b.fail(fixShapes, x, "%d blocks where the image has %d", x.Shape[2], blocks)
	}
	images, channels, pixels := x.Shape[0], x.Shape[1]/inBlock, b.elements(image)
	var at, from []int // places of pixels, and the rows of x that they get
	for e := range b.made(inBlock, blocks) {
		place, inside := 0, true
		p, q, f := e/blocks, e%blocks, 1
		for i := rank - 1; i >= 0; i-- {
			v := q%count[i]*strides[i] + p%block[i]*dilations[i] - pads[i]
			p, q = p/block[i], q/count[i]
			inside = inside && v >= 0 && v < image[i]
			place += v * f
			f *= image[i]
		}
		if inside {
			at, from = append(at, place), append(from, e)
		}
	}
	rows := b.reshape(b.transpose(b.reshape(x, images, channels, inBlock, blocks), 2, 3, 0, 1), inBlock*blocks, images*channels)
	if len(from) < inBlock*blocks {
		rows = b.gather(rows, b.ints(ir.Int32, []int{len(from)}, from...), 0)
	}
	zero := b.expand(b.like(x, 0), []int{pixels, images * channels})
	y := b.transpose(b.scatter(zero, rows, at, "add"), 1, 0)
	return one(b.reshapeCopy(b.reshape(y, append([]int{images, channels}, image...)...)))
}

func signalRules() map[string]rule {
	return map[string]rule{
		"DFT": ruleDFT, "STFT": ruleSTFT, "HannWindow": ruleWindow(0.5, -0.5), "HammingWindow": ruleWindow(25.0/46, -21.0/46),
		"BlackmanWindow": ruleWindow(0.42, -0.5, 0.08), "CumProd": ruleCumProd, "Col2Im": ruleCol2Im, "Einsum": ruleEinsum,
		"GridSample": ruleGridSample, "AffineGrid": ruleAffineGrid,
	}
}
