// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"slices"

	"npuemu/compiler/ir"
)

// sampling is ONNX's GridSample: x as [N · spatial, C], looked up by places that a grid of coordinates from −1 to 1 names.
type sampling struct {
	*builder
	padding string
	align   bool
	rows    *ir.Tensor // x
	first   *ir.Tensor // int32, the first row of each image, with the grid's rank
	sizes   []int      // of the spatial axes
}

// tap is one neighbour along an axis: its index, which there is, whether it was there (nil: always), and its weight (nil: 1).
type tap struct{ at, inside, weight *ir.Tensor }

// reflect mirrors v at lo and hi as often as it takes.
func (s *sampling) reflect(v *ir.Tensor, lo, hi float32) *ir.Tensor {
	if hi <= lo {
		return s.scalar2("add", s.scalar2("mul", v, 0), lo)
	}
	period := 2 * (hi - lo)
	d := s.op1("abs", s.scalar2("sub", v, lo))
	d = s.op2("sub", d, s.scalar2("mul", s.floor(s.scalar2("div", d, period)), period))
	d = s.op2("min", d, s.op2("sub", s.like(d, period), d))
	return s.scalar2("add", d, lo)
}

// bounds are those of axis i at which padding begins.
func (s *sampling) bounds(i int) (lo, hi float32) {
	if s.align {
		return 0, float32(s.sizes[i] - 1)
	}
	return -0.5, float32(s.sizes[i]) - 0.5
}

// tap is the neighbour at v, whole numbers, of axis i.
func (s *sampling) tap(v *ir.Tensor, i int, weight *ir.Tensor) tap {
	last := float32(s.sizes[i] - 1)
	t := tap{weight: weight}
	switch s.padding {
	case "zeros":
		t.inside = s.op2("and", s.op2("le", s.like(v, 0), v), s.op2("le", v, s.like(v, last)))
	case "reflection":
		lo, hi := s.bounds(i)
		v = s.reflect(v, lo, hi)
	}
	t.at = s.cast(s.clip(v, 0, last), ir.Int32)
	return t
}

// taps are the neighbours of v along axis i.
func (s *sampling) taps(v *ir.Tensor, i int, mode string) []tap {
	if mode == "nearest" {
		v = s.round(v)
	}
	switch s.padding {
	case "border": // what is within half a pixel of the border stays, which matters to cubic alone
		lo, hi := s.bounds(i)
		inside := s.op2("and", s.op2("le", s.like(v, lo), v), s.op2("le", v, s.like(v, hi)))
		v = s.choose(inside, v, s.clip(v, 0, float32(s.sizes[i]-1)))
	case "reflection":
		lo, hi := s.bounds(i)
		v = s.reflect(v, lo, hi)
	}
	if mode == "nearest" {
		return []tap{s.tap(v, i, nil)}
	}
	whole := s.floor(v)
	f := s.op2("sub", v, whole)
	g := s.op2("sub", s.like(f, 1), f)
	if mode == "linear" {
		return []tap{s.tap(whole, i, g), s.tap(s.scalar2("add", whole, 1), i, f)}
	}
	const a = -0.75
	near := func(x *ir.Tensor) *ir.Tensor { // ((a + 2)x − (a + 3))x² + 1
		p := s.scalar2("sub", s.scalar2("mul", x, a+2), a+3)
		return s.scalar2("add", s.op2("mul", s.op2("mul", p, x), x), 1)
	}
	far := func(x *ir.Tensor) *ir.Tensor { // ((ax − 5a)x + 8a)x − 4a
		p := s.op2("mul", s.scalar2("sub", s.scalar2("mul", x, a), 5*a), x)
		return s.scalar2("sub", s.op2("mul", s.scalar2("add", p, 8*a), x), 4*a)
	}
	var out []tap
	for k, w := range []*ir.Tensor{far(s.scalar2("add", f, 1)), near(f), near(g), far(s.scalar2("add", g, 1))} {
		out = append(out, s.tap(s.scalar2("add", whole, float32(k-1)), i, w))
	}
	return out
}

// sum is what the neighbours of axes from i on add up to, by what was chosen of those before.
func (s *sampling) sum(all [][]tap, i int, so tap) *ir.Tensor {
	if i == len(all) {
		y := s.gather(s.rows, s.op2("add", s.first, so.at), 0)
		last := append(slices.Clone(so.at.Shape), 1)
		if so.weight != nil {
			y = s.op2("mul", y, s.reshape(s.cast(so.weight, y.Type), last...))
		}
		if so.inside != nil {
			y = s.choose(s.reshape(so.inside, last...), y, s.like(y, 0))
		}
		return y
	}
	stride := 1
	for _, d := range s.sizes[i+1:] {
		stride *= d
	}
	var total *ir.Tensor
	join := func(op string, a, b *ir.Tensor) *ir.Tensor {
		switch {
		case a == nil:
			return b
		case b == nil:
			return a
		}
		return s.op2(op, a, b)
	}
	for _, t := range all[i] {
		at := t.at
		if stride > 1 {
			at = s.op2("mul", at, s.ints(ir.Int32, nil, stride))
		}
		y := s.sum(all, i+1, tap{join("add", so.at, at), join("and", so.inside, t.inside), join("mul", so.weight, t.weight)})
		total = join("add", total, y)
	}
	return total
}

func ruleGridSample(b *builder, n *ir.Node) []*ir.Tensor {
	x, grid := n.Inputs[0], n.Inputs[1]
	rank := len(x.Shape) - 2
	if rank < 1 || len(grid.Shape) != rank+2 || grid.Shape[rank+1] != rank || grid.Shape[0] != x.Shape[0] || !x.Type.Float() {
		b.fail(fixShapes, grid, "grid %v for x %s%v", grid.Shape, x.Type, x.Shape)
	}
	mode := n.Attrs.Str("mode", "linear")
	if short, ok := map[string]string{"bilinear": "linear", "bicubic": "cubic"}[mode]; ok { // as they were called before opset 20
		mode = short
	}
	s := &sampling{builder: b, padding: n.Attrs.Str("padding_mode", "zeros"), align: n.Attrs.Int("align_corners", 0) != 0, sizes: x.Shape[2:]}
	if !slices.Contains([]string{"nearest", "linear", "cubic"}, mode) || !slices.Contains([]string{"zeros", "border", "reflection"}, s.padding) || rank > 3 {
		b.fail(replaceNode, x, "mode %q with padding %q of %d axes is not supported", mode, s.padding, rank)
	}
	images, channels, pixels := x.Shape[0], x.Shape[1], b.elements(s.sizes)
	if pixels == 0 || images*pixels >= 1<<31 || slices.Max(s.sizes) > 1<<24 {
		b.fail(makeSmaller, x, "%v has no pixel, or more than int32 counts", x.Shape)
	}
	s.rows = b.reshape(b.transpose(b.reshape(x, images, channels, pixels), 0, 2, 1), images*pixels, channels)
	shape := slices.Clone(grid.Shape[:rank+1])
	own := slices.Repeat([]int{1}, rank+1)
	own[0] = images
	begin := make([]int, images)
	for i := range begin {
		begin[i] = i * pixels
	}
	s.first = b.ints(ir.Int32, own, begin...)
	var all [][]tap
	for i, d := range s.sizes { // the grid has its coordinates the other way round
		v := b.cast(b.reshape(b.part(grid, rank+1, rank-1-i, 1), shape...), ir.Float32)
		v = b.scalar2("add", v, 1)
		if s.align {
			v = b.scalar2("mul", v, float32(d-1)/2)
		} else {
			v = b.scalar2("mul", b.scalar2("sub", b.scalar2("mul", v, float32(d)), 1), 0.5)
		}
		all = append(all, s.taps(v, i, mode))
	}
	if x.Type.Bits() < 32 {
		s.rows = b.cast(s.rows, ir.Float32)
	}
	y := b.cast(s.sum(all, 0, tap{}), x.Type)
	perm := []int{0, rank + 1}
	for i := range rank {
		perm = append(perm, i+1)
	}
	return one(b.reshapeCopy(b.transpose(y, perm...)))
}

// ruleAffineGrid multiplies the coordinates of all pixels, which are known, by matrices.
func ruleAffineGrid(b *builder, n *ir.Node) []*ir.Tensor {
	theta, size := n.Inputs[0], b.constInts(1)
	rank := len(size) - 2
	if rank < 1 || slices.Min(size) < 1 || !slices.Equal(theta.Shape, []int{size[0], rank, rank + 1}) {
		b.fail(fixShapes, theta, "theta %v for the size %v", theta.Shape, size)
	}
	pixels := b.elements(size[2:])
	b.made(rank+1, pixels)
	v := make([]float32, (rank+1)*pixels) // x, y, …, 1
	for p := range pixels {
		rest := p
		for i := rank - 1; i >= 0; i-- {
			d := size[2+i]
			k := float32(rest % d)
			rest /= d
			c := (2*k+1)/float32(d) - 1
			if n.Attrs.Int("align_corners", 0) != 0 {
				if c = -1; d > 1 {
					c = 2*k/float32(d-1) - 1
				}
			}
			v[(rank-1-i)*pixels+p] = c
		}
		v[rank*pixels+p] = 1
	}
	at := b.transpose(b.floats(theta.Type, []int{rank + 1, pixels}, v...), 1, 0)
	y := b.matmul(b.reshape(at, 1, pixels, rank+1), b.transpose(theta, 0, 2, 1), product{typ: theta.Type, attrs: ir.Attrs{"rounding": "none"}})
	return one(b.reshapeCopy(b.reshape(y, slices.Concat(size[:1], size[2:], []int{rank})...)))
}
