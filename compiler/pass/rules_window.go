// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"slices"

	"npuemu/compiler/ir"
)

// nhwc moves the channels of N, C, spatial… behind; nchw moves them back.
func (b *builder) nhwc(x *ir.Tensor) *ir.Tensor {
	perm := []int{0}
	for i := 2; i < len(x.Shape); i++ {
		perm = append(perm, i)
	}
	return b.transpose(x, append(perm, 1)...)
}

func (b *builder) nchw(x *ir.Tensor) *ir.Tensor {
	k := len(x.Shape)
	perm := []int{0, k - 1}
	for i := 1; i < k-1; i++ {
		perm = append(perm, i)
	}
	return b.transpose(x, perm...)
}

// spatial is the geometry of a window over any number of spatial axes.
type spatial struct {
	kernel, strides, dilations []int
	begin, end                 []int // pads
	out                        []int
}

// spatialOf reads the attributes of convolutions and pools. ceil rounds the output's size up, as
// pools may; the pads at the end then hold what the last window needs.
func (b *builder) spatialOf(n *ir.Node, in, kernel []int, ceil bool) spatial {
	k := len(in)
	w := spatial{kernel: kernel, strides: n.Attrs.Ints("strides"), dilations: n.Attrs.Ints("dilations")}
	def := func(what string, v []int) []int {
		if v == nil {
			v = slices.Repeat([]int{1}, k)
		}
		if len(v) != k || slices.Min(append([]int{1}, v...)) < 1 || slices.Max(append([]int{1}, v...)) > 1<<20 {
			b.fail(fixValue, nil, "%s %v for %d spatial axes; there is one for each, from 1 to 2²⁰", what, v, k)
		}
		return v
	}
	w.strides, w.dilations, w.kernel = def("strides", w.strides), def("dilations", w.dilations), def("kernel", w.kernel)
	pads := n.Attrs.Ints("pads")
	if pads == nil {
		pads = make([]int, 2*k)
	}
	if len(pads) != 2*k || slices.Min(append([]int{0}, pads...)) < 0 || slices.Max(append([]int{0}, pads...)) > 1<<20 {
		b.fail(fixValue, nil, "pads %v for %d spatial axes", pads, k)
	}
	w.begin, w.end = slices.Clone(pads[:k]), slices.Clone(pads[k:])
	w.out = make([]int, k)
	auto := n.Attrs.Str("auto_pad", "NOTSET")
	for i := range k {
		span := (w.kernel[i]-1)*w.dilations[i] + 1
		switch auto {
		case "NOTSET", "":
		case "VALID":
			w.begin[i], w.end[i] = 0, 0
		case "SAME_UPPER", "SAME_LOWER":
			total := max(0, ((in[i]+w.strides[i]-1)/w.strides[i]-1)*w.strides[i]+span-in[i])
			w.begin[i], w.end[i] = total/2, total-total/2
			if auto == "SAME_LOWER" {
				w.begin[i], w.end[i] = w.end[i], w.begin[i]
			}
		default:
			b.fail(fixValue, nil, "auto_pad %q", auto)
		}
		room := in[i] + w.begin[i] + w.end[i] - span
		if room < 0 {
			b.fail(fixShapes, nil, "the window of %d is larger than the padded axis of %d", span, in[i]+w.begin[i]+w.end[i])
		}
		w.out[i] = room/w.strides[i] + 1
		if ceil && room%w.strides[i] != 0 && w.out[i]*w.strides[i] < in[i]+w.begin[i] {
			w.end[i] += w.strides[i] - room%w.strides[i]
			w.out[i]++
		}
	}
	return w
}

// attrs2 are strides, dilations and pads of a window of two axes.
func (w spatial) attrs2() ir.Attrs {
	return ir.Attrs{
		"strides": ir.IntList(w.strides...), "dilations": ir.IntList(w.dilations...),
		"pads": ir.IntList(w.begin[0], w.begin[1], w.end[0], w.end[1]),
	}
}

// widen makes one spatial axis two.
func (w spatial) widen() spatial {
	one := func(v []int, first int) []int { return append([]int{first}, v...) }
	return spatial{one(w.kernel, 1), one(w.strides, 1), one(w.dilations, 1), one(w.begin, 0), one(w.end, 0), one(w.out, 1)}
}

// product is what convolutions have beside their window: types, zero points and requantization.
type product struct {
	typ   ir.Type // of the output
	attrs ir.Attrs
	bias  *ir.Tensor // constant of the accumulator's type, or nil
}

// conv makes a convolution of x [N, C, spatial…] with w [M, C/groups, kernel…] and gives [N, M, spatial…].
func (b *builder) conv(n *ir.Node, x, w *ir.Tensor, p product) *ir.Tensor {
	if len(x.Shape) < 3 || len(w.Shape) != len(x.Shape) {
		b.fail(fixShapes, w, "x %v and w %v have no spatial axes in common", x.Shape, w.Shape)
	}
	g := b.spatialOf(n, x.Shape[2:], w.Shape[2:], false)
	if k := n.Attrs.Ints("kernel_shape"); k != nil && !slices.Equal(k, w.Shape[2:]) {
		b.fail(fixValue, w, "kernel_shape %v and w %v differ", k, w.Shape)
	}
	groups := n.Attrs.Int("group", 1)
	if groups < 1 || w.Shape[0]%groups != 0 || w.Shape[1]*groups != x.Shape[1] {
		b.fail(fixValue, w, "%d groups, %d channels, w %v", groups, x.Shape[1], w.Shape)
	}
	b.needLater(w)
	return b.convNHWC(x, w, g, groups, p)
}

func (b *builder) convNHWC(x, w *ir.Tensor, g spatial, groups int, p product) *ir.Tensor {
	cout := w.Shape[0]
	switch len(x.Shape) {
	case 3:
		x = b.reshape(x, x.Shape[0], x.Shape[1], 1, x.Shape[2])
		w = b.reshape(w, w.Shape[0], w.Shape[1], 1, w.Shape[2])
		y := b.convNHWC(x, w, g.widen(), groups, p)
		return b.reshape(y, y.Shape[0], y.Shape[1], y.Shape[3])
	case 4:
	case 5:
		return b.conv3(x, w, g, groups, p)
	default:
		b.fail(replaceNode, x, "%d spatial axes; 1 to 3 are supported", len(x.Shape)-2)
	}
	attrs := g.attrs2()
	attrs["groups"] = int64(groups)
	for k, v := range p.attrs {
		attrs[k] = v
	}
	in := []*ir.Tensor{b.nhwc(x), b.nhwc(w)}
	if p.bias != nil {
		in = append(in, p.bias)
	}
	y := b.emit("npu.conv", p.typ, []int{x.Shape[0], g.out[0], g.out[1], cout}, attrs, in...)
	return b.nchw(y)
}

// conv3 is a convolution of three spatial axes, of floating point: a sum of those of two.
func (b *builder) conv3(x, w *ir.Tensor, g spatial, groups int, p product) *ir.Tensor {
	if !p.typ.Float() {
		b.fail(replaceNode, nil, "a quantized convolution of 3 spatial axes is not supported")
	}
	rank := len(x.Shape)
	pads := make([]int, 2*rank)
	pads[2], pads[rank+2] = g.begin[0], g.end[0]
	x = b.pad(x, pads, 0, 0)
	flat := spatial{g.kernel[1:], g.strides[1:], g.dilations[1:], g.begin[1:], g.end[1:], g.out[1:]}
	var sum *ir.Tensor
	s := x.Shape
	for k := range g.kernel[0] {
		starts, sizes, step := make([]int, rank), slices.Clone(s), slices.Repeat([]int{1}, rank)
		starts[2], sizes[2], step[2] = k*g.dilations[0], g.out[0], g.strides[0]
		planes := b.transpose(b.slice(x, starts, sizes, step), 0, 2, 1, 3, 4)
		planes = b.reshape(planes, s[0]*g.out[0], s[1], s[3], s[4])
		wk := b.reshape(b.part(w, 2, k, 1), w.Shape[0], w.Shape[1], w.Shape[3], w.Shape[4])
		y := b.convNHWC(planes, wk, flat, groups, product{typ: p.typ, attrs: p.attrs})
		if sum == nil {
			sum = y
		} else {
			sum = b.op2("add", sum, y)
		}
	}
	if p.bias != nil {
		sum = b.op2("add", sum, b.reshape(b.cast(p.bias, p.typ), 1, w.Shape[0], 1, 1))
	}
	c := w.Shape[0]
	return b.transpose(b.reshape(sum, s[0], g.out[0], c, g.out[1], g.out[2]), 0, 2, 1, 3, 4)
}

// seed is a constant bias in the accumulator's type.
func (b *builder) seed(t *ir.Tensor, typ ir.Type) *ir.Tensor {
	if t == nil {
		return nil
	}
	b.needLater(t)
	return b.cast(t, typ)
}

func ruleConv(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	p := product{typ: x.Type, attrs: ir.Attrs{"rounding": "none"}, bias: b.seed(n.Input(2), ir.Float32)}
	return one(b.conv(n, x, n.Inputs[1], p))
}

// ruleConvTranspose spreads the input by the strides and convolves with the turned kernel.
func ruleConvTranspose(b *builder, n *ir.Node) []*ir.Tensor {
	x, w := n.Inputs[0], n.Inputs[1]
	rank := len(x.Shape)
	k := rank - 2
	b.needLater(w)
	groups := n.Attrs.Int("group", 1)
	kernel := w.Shape[2:]
	strides, dil, extra := n.Attrs.Ints("strides"), n.Attrs.Ints("dilations"), n.Attrs.Ints("output_padding")
	pads, want := n.Attrs.Ints("pads"), n.Attrs.Ints("output_shape")
	ones := slices.Repeat([]int{1}, k)
	if strides == nil {
		strides = ones
	}
	if dil == nil {
		dil = ones
	}
	if extra == nil {
		extra = make([]int, k)
	}
	if pads == nil {
		pads = make([]int, 2*k)
	}
	g := spatial{kernel: kernel, strides: ones, dilations: dil, begin: make([]int, k), end: make([]int, k), out: make([]int, k)}
	cut := make([]int, k) // of the front, where the pad is above the kernel's reach
	for i := range k {
		full := (x.Shape[2+i]-1)*strides[i] + (kernel[i]-1)*dil[i] + 1 + extra[i]
		begin, end := pads[i], pads[k+i]
		auto := n.Attrs.Str("auto_pad", "NOTSET")
		size := -1
		if want != nil {
			size = want[len(want)-k+i]
		} else if auto == "SAME_UPPER" || auto == "SAME_LOWER" {
			size = x.Shape[2+i] * strides[i]
		}
		if size >= 0 {
			total := max(0, full-size)
			if begin, end = total/2, total-total/2; auto == "SAME_LOWER" || want != nil && auto != "SAME_UPPER" {
				begin, end = end, begin
			}
			if size > full {
				extra[i] += size - full
			}
			full = max(full, size)
		}
		reach := (kernel[i] - 1) * dil[i]
		g.begin[i], g.end[i] = reach-begin, reach-end+extra[i]
		if g.begin[i] < 0 {
			cut[i], g.begin[i] = -g.begin[i], 0
		}
		g.out[i] = full - begin - end
	}
	y := x
	for i := range k {
		y = b.spread(y, 2+i, strides[i], 0)
	}
	for i := range k {
		if cut[i] > 0 {
			y = b.part(y, 2+i, cut[i], y.Shape[2+i]-cut[i])
		}
		if g.end[i] < 0 {
			y = b.part(y, 2+i, 0, y.Shape[2+i]+g.end[i])
			g.end[i] = 0
		}
	}
	// w is [C, M/groups, …]: it becomes [M, C/groups, …], turned around in space.
	c, m := w.Shape[0], w.Shape[1]
	starts, step := make([]int, rank), slices.Repeat([]int{1}, rank)
	for i := range k {
		starts[2+i], step[2+i] = kernel[i]-1, -1
	}
	turned := b.reshape(b.slice(w, starts, w.Shape, step), append([]int{groups, c / groups, m}, kernel...)...)
	perm := []int{0, 2, 1}
	for i := range k {
		perm = append(perm, 3+i)
	}
	turned = b.reshape(b.transpose(turned, perm...), append([]int{groups * m, c / groups}, kernel...)...)
	return one(b.convNHWC(y, turned, g, groups, product{typ: x.Type, attrs: ir.Attrs{"rounding": "none"}, bias: b.seed(n.Input(2), ir.Float32)}))
}

// spread puts stride − 1 elements of value zero between those of an axis.
func (b *builder) spread(x *ir.Tensor, axis, stride, zero int) *ir.Tensor {
	if stride == 1 {
		return x
	}
	s := x.Shape
	y := b.reshape(x, b.elements(s[:axis+1]), 1, b.elements(s[axis+1:]))
	y = b.pad(y, []int{0, 0, 0, 0, stride - 1, 0}, zero, 0)
	shape := slices.Clone(s)
	shape[axis] *= stride
	return b.part(b.reshape(y, shape...), axis, 0, (s[axis]-1)*stride+1)
}

// pool makes a pool of x [N, C, spatial…]. Windows of more than two axes are taken apart: a maximum of maxima,
// an average of averages, since the count of a window's elements is the product of the axes' counts.
func (b *builder) pool(kind string, x *ir.Tensor, g spatial) *ir.Tensor {
	switch len(x.Shape) {
	case 3:
		y := b.pool(kind, b.reshape(x, x.Shape[0], x.Shape[1], 1, x.Shape[2]), g.widen())
		return b.reshape(y, y.Shape[0], y.Shape[1], y.Shape[3])
	case 4:
		attrs := g.attrs2()
		attrs["kind"], attrs["kernel"] = kind, ir.IntList(g.kernel...)
		y := b.emit("npu.pool", x.Type, []int{x.Shape[0], g.out[0], g.out[1], x.Shape[1]}, attrs, b.nhwc(x))
		return b.nchw(y)
	case 5:
	default:
		b.fail(replaceNode, x, "%d spatial axes; 1 to 3 are supported", len(x.Shape)-2)
	}
	s := x.Shape
	flat := spatial{g.kernel[1:], g.strides[1:], g.dilations[1:], g.begin[1:], g.end[1:], g.out[1:]}
	y := b.pool(kind, b.reshape(x, s[0], s[1]*s[2], s[3], s[4]), flat)
	deep := spatial{[]int{g.kernel[0], 1}, []int{g.strides[0], 1}, []int{g.dilations[0], 1}, []int{g.begin[0], 0}, []int{g.end[0], 0}, []int{g.out[0], g.out[1] * g.out[2]}}
	y = b.pool(kind, b.reshape(y, s[0], s[1], s[2], g.out[1]*g.out[2]), deep)
	return b.reshape(y, s[0], s[1], g.out[0], g.out[1], g.out[2])
}

func ruleMaxPool(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	if len(n.Outputs) > 1 {
		b.fail(replaceNode, nil, "the output of indices is not supported")
	}
	g := b.spatialOf(n, x.Shape[2:], n.Attrs.Ints("kernel_shape"), n.Attrs.Int("ceil_mode", 0) != 0)
	return one(b.pool("max", x, g))
}

func ruleAveragePool(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	g := b.spatialOf(n, x.Shape[2:], n.Attrs.Ints("kernel_shape"), n.Attrs.Int("ceil_mode", 0) != 0)
	if n.Attrs.Int("count_include_pad", 0) != 0 {
		x, g = b.explicit(n, x, g)
	}
	return one(b.pool("avg", x, g))
}

// explicit pads x with zeros, which then count. What rounding up added at the end does not.
func (b *builder) explicit(n *ir.Node, x *ir.Tensor, g spatial) (*ir.Tensor, spatial) {
	k := len(g.begin)
	end := slices.Clone(g.end)
	if p := n.Attrs.Ints("pads"); p != nil && n.Attrs.Str("auto_pad", "NOTSET") == "NOTSET" {
		copy(end, p[k:])
	} else if n.Attrs.Str("auto_pad", "NOTSET") == "NOTSET" {
		clear(end)
	}
	pads := slices.Concat([]int{0, 0}, g.begin, []int{0, 0}, end)
	y := b.pad(x, pads, 0, 0)
	rest := make([]int, k)
	for i := range rest {
		rest[i] = g.end[i] - end[i]
	}
	g.begin, g.end = make([]int, k), rest
	return y, g
}

// ruleLpPool is (Σ |x|ᵖ)^(1/p): an average times the window's size.
func ruleLpPool(b *builder, n *ir.Node) []*ir.Tensor {
	x, p := n.Inputs[0], n.Attrs.Int("p", 2)
	g := b.spatialOf(n, x.Shape[2:], n.Attrs.Ints("kernel_shape"), n.Attrs.Int("ceil_mode", 0) != 0)
	size := b.elements(g.kernel)
	v := b.op1("abs", x)
	switch p {
	case 1:
	case 2:
		v = b.op2("mul", v, v)
	default:
		v = b.power(v, b.like(v, float32(p)))
	}
	w := v
	pads := slices.Concat([]int{0, 0}, g.begin, []int{0, 0}, g.end)
	w = b.pad(w, pads, 0, 0)
	g.begin, g.end = make([]int, len(g.begin)), make([]int, len(g.end))
	w = b.scalar2("mul", b.pool("avg", w, g), float32(size))
	switch p {
	case 1:
	case 2:
		w = b.op1("sqrt", w)
	default:
		w = b.power(w, b.like(w, 1/float32(p)))
	}
	return one(w)
}

func ruleGlobalPool(kind string) rule {
	return func(b *builder, n *ir.Node) []*ir.Tensor {
		x := n.Inputs[0]
		k := len(x.Shape) - 2
		if k < 1 {
			b.fail(fixShapes, x, "x %v has no spatial axes", x.Shape)
		}
		ones, none := slices.Repeat([]int{1}, k), make([]int, k)
		return one(b.pool(kind, x, spatial{x.Shape[2:], ones, ones, none, none, ones}))
	}
}

func windowRules() map[string]rule {
	return map[string]rule{
		"Conv": ruleConv, "ConvTranspose": ruleConvTranspose, "MaxPool": ruleMaxPool, "AveragePool": ruleAveragePool, "LpPool": ruleLpPool,
		"GlobalAveragePool": ruleGlobalPool("avg"), "GlobalMaxPool": ruleGlobalPool("max"),
	}
}
