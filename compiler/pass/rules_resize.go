// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"math"
	"slices"

	"npuemu/compiler/ir"
	"npuemu/core/num"
)

// resizing is ONNX's Resize: its attributes, and the axes that get another size.
type resizing struct {
	mode, nearest, coordinates string
	antialias, exclude         bool
	a, outside                 float64 // cubic_coeff_a, extrapolation_value
	axes                       []resized
}

// resized is an axis of n elements that become m.
type resized struct {
	axis, n, m  int
	scale       float64
	first, last float64 // of tf_crop_and_resize: the part that is taken, of 0 to 1
}

// width is the length that the scale gives, of which m is the whole part.
func (r *resized) width() float64 { return r.scale * float64(r.n) }

// at is where element i of the result is among those of the axis, as ONNX defines it.
func (z *resizing) at(r *resized, i int) float64 {
	v, n := float64(i), float64(r.n)
	switch z.coordinates {
	case "align_corners":
		if r.width() == 1 {
			return 0
		}
		return v * (n - 1) / (r.width() - 1)
	case "asymmetric":
		return v / r.scale
	case "tf_crop_and_resize":
		if r.width() == 1 {
			return (r.last-r.first)*(n-1)/2 + r.first*(n-1)
		}
		return v*(r.last-r.first)*(n-1)/(r.width()-1) + r.first*(n-1)
	case "pytorch_half_pixel":
		if r.width() <= 1 {
			return 0
		}
	case "half_pixel_symmetric":
		return n/2*(1-float64(r.m)/r.width()) + (v+0.5)/r.scale - 0.5
	}
	return (v+0.5)/r.scale - 0.5
}

// beyond reports whether an element of the result is outside the axis, where tf_crop_and_resize has a value of its own.
func (z *resizing) beyond(r *resized, s float64) bool {
	return z.coordinates == "tf_crop_and_resize" && (s < 0 || s > float64(r.n-1))
}

// index is the element that mode nearest takes at s.
func (z *resizing) index(r *resized, s float64) int {
	switch z.nearest {
	case "floor":
		s = math.Floor(s)
	case "ceil":
		s = math.Ceil(s)
	case "round_prefer_ceil":
		s = math.Floor(s + 0.5)
	default:
		s = math.Ceil(s - 0.5)
	}
	return int(min(max(s, 0), float64(r.n-1)))
}

// steps are those of RESIZE for an axis (§5.6.24), and whether it has them. They are of fp32: the nearest elements must be the same.
func (z *resizing) steps(r *resized) (a num.Axis, ok bool) {
	a.Last = r.n - 1
	switch z.coordinates {
	case "align_corners":
		if r.width() > 1 {
			a.Mul, a.Div = float32(r.n-1), float32(r.width()-1)
		}
	case "asymmetric":
		a.Div = float32(r.scale)
	case "half_pixel", "pytorch_half_pixel", "half_pixel_symmetric":
		if z.coordinates == "half_pixel_symmetric" && r.width() != float64(r.m) {
			return a, false
		}
		a.Half, a.Center = true, true
		if z.coordinates != "pytorch_half_pixel" || r.width() > 1 {
			a.Div = float32(r.scale)
		}
	default:
		return a, false
	}
	if z.mode == "linear" {
		return a, !z.antialias || r.scale >= 1
	}
	f := map[string]func(int) int{"floor": a.Floor, "ceil": a.Ceil, "round_prefer_ceil": a.RoundUp, "round_prefer_floor": a.RoundDown}[z.nearest]
	for i := range r.m {
		if f(i) != z.index(r, z.at(r, i)) {
			return a, false
		}
	}
	return a, true
}

// weights are what the elements around s count: of the first of them the index, and the weights.
func (z *resizing) weights(r *resized, s float64) (first int, w []float64) {
	p := math.Floor(s)
	f := s - p
	if f == 0 {
		f, p = 1, p-1
	}
	scale := 1.0
	if z.antialias {
		scale = min(r.scale, 1)
	}
	reach, kernel := 1.0, func(x float64) float64 { return max(0, 1-x) }
	if z.mode == "cubic" {
		reach, kernel = 2, func(x float64) float64 {
			switch {
			case x <= 1:
				return ((z.a+2)*x-(z.a+3))*x*x + 1
			case x < 2:
				return ((z.a*x-5*z.a)*x+8*z.a)*x - 4*z.a
			}
			return 0
		}
	}
	from := int(math.Floor(-reach/scale)) + 1
	first = int(p) + from
	sum := 0.0
	for k := from; k < 2-from; k++ {
		v := kernel(math.Abs(scale * (float64(k) - f)))
		if at := int(p) + k; z.exclude && (at < 0 || at >= r.n) {
			v = 0
		}
		w = append(w, v)
		sum += v
	}
	if sum == 0 {
		sum = 1 // all are outside
	}
	for k := range w {
		w[k] /= sum
	}
	return first, w
}

// ruleResize is RESIZE where that has the coordinates; otherwise the nearest elements are gathered, and others are products with a
// constant matrix for each axis, in fp32.
func ruleResize(b *builder, n *ir.Node) []*ir.Tensor {
	x, z := n.Inputs[0], b.resizing(n)
	for len(z.axes) > 0 {
		last := &z.axes[len(z.axes)-1]
		a, ok := z.steps(last)
		if ok = ok && z.mode != "cubic" && x.Type.Computes(); !ok {
			break
		}
		// Two axes beside each other are an image.
		pair := []num.Axis{a}
		if k := len(z.axes) - 2; k >= 0 && z.axes[k].axis == last.axis-1 {
			if above, ok := z.steps(&z.axes[k]); ok {
				pair, last = []num.Axis{above, a}, &z.axes[k]
			}
		}
		x = b.resizeAxes(x, last.axis, z.axes[len(z.axes)-len(pair):], pair, z)
		z.axes = z.axes[:len(z.axes)-len(pair)]
	}
	if z.mode == "nearest" {
		for i := range z.axes {
			x = b.gatherNearest(x, &z.axes[i], z)
		}
	} else if len(z.axes) > 0 {
		typ := x.Type
		if typ != ir.Float64 {
			x = b.cast(x, ir.Float32)
		}
		for i := range z.axes {
			x = b.interpolate(x, &z.axes[i], z)
		}
		x = b.cast(x, typ)
	}
	return one(b.reshapeCopy(x))
}

// resizing reads the node.
func (b *builder) resizing(n *ir.Node) *resizing {
	x, at := n.Inputs[0], n.Attrs
	rank := len(x.Shape)
	z := &resizing{
		mode: at.Str("mode", "nearest"), nearest: at.Str("nearest_mode", "round_prefer_floor"), coordinates: at.Str("coordinate_transformation_mode", "half_pixel"),
		antialias: at.Int("antialias", 0) != 0, exclude: at.Int("exclude_outside", 0) != 0, a: float64(at.Float("cubic_coeff_a", -0.75)),
		outside: float64(at.Float("extrapolation_value", 0)),
	}
	for _, a := range []struct {
		name, value string
		known       []string
	}{
		{"mode", z.mode, []string{"nearest", "linear", "cubic"}},
		{"nearest_mode", z.nearest, []string{"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"}},
		{"coordinate_transformation_mode", z.coordinates, []string{"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize"}},
	} {
		if !slices.Contains(a.known, a.value) {
			b.fail(replaceNode, nil, "%s %q is not supported; %q are", a.name, a.value, a.known)
		}
	}
	if z.mode == "nearest" && (z.antialias || z.exclude) {
		b.fail(fixValue, nil, "antialias and exclude_outside are not for mode nearest")
	}
	axes := at.Ints("axes")
	if axes == nil {
		axes = b.axes(nil, rank)
	}
	roi, scales, sizes := b.constFloats(1), b.constFloats(2), b.constInts(3)
	if (len(scales) > 0) == (len(sizes) > 0) || max(len(scales), len(sizes)) != len(axes) {
		b.fail(fixValue, x, "%d scales and %d sizes for %d axes; it has one of them for each", len(scales), len(sizes), len(axes))
	}
	crop := z.coordinates == "tf_crop_and_resize"
	if crop && len(roi) != 2*len(axes) {
		b.fail(fixValue, x, "%d numbers of roi for %d axes", len(roi), len(axes))
	}
	all := make([]resized, len(axes))
	for i, a := range axes {
		r := &all[i]
		r.axis = b.axis(a, rank)
		if r.n, r.last = x.Shape[r.axis], 1; r.n < 1 || r.n > 1<<24 {
			b.fail(makeSmaller, x, "axis %d of %v", r.axis, x.Shape)
		}
		if crop {
			r.first, r.last = float64(roi[i]), float64(roi[len(axes)+i])
		}
		if sizes != nil {
			if r.m = sizes[i]; r.m > 0 {
				r.scale = float64(r.m) / float64(r.n)
			}
			continue
		}
		r.scale = float64(scales[i])
		r.m = int(min(max(float32(r.n)*scales[i], 0), 1<<30)) // NaN gives 0
	}
	if policy := at.Str("keep_aspect_ratio_policy", "stretch"); policy != "stretch" && sizes != nil {
		pick := map[string]func(a, b float64) float64{"not_larger": math.Min, "not_smaller": math.Max}[policy]
		if pick == nil {
			b.fail(fixValue, nil, "keep_aspect_ratio_policy %q", policy)
		}
		s := all[0].scale
		for _, r := range all {
			s = pick(s, r.scale)
		}
		for i := range all {
			all[i].scale, all[i].m = s, int(s*float64(all[i].n)+0.5)
		}
	}
	shape := slices.Clone(x.Shape)
	for _, r := range all {
		if r.m < 1 || r.m > 1<<24 {
			b.fail(fixValue, x, "axis %d of %v becomes %d", r.axis, x.Shape, r.m)
		}
		if shape[r.axis] = r.m; r.m != r.n || r.scale != 1 || r.first != 0 || r.last != 1 {
			z.axes = append(z.axes, r)
		}
	}
	b.elements(shape)
	slices.SortFunc(z.axes, func(a, b resized) int { return a.axis - b.axis })
	return z
}

// resizeAxes is RESIZE of one axis, or of two that follow each other, the first of which is axis.
func (b *builder) resizeAxes(x *ir.Tensor, axis int, sizes []resized, steps []num.Axis, z *resizing) *ir.Tensor {
	mode := z.mode
	if mode == "nearest" {
		mode = map[string]string{"floor": "floor", "ceil": "ceil", "round_prefer_ceil": "round_up", "round_prefer_floor": "round_down"}[z.nearest]
	}
	attrs := ir.Attrs{"mode": mode}
	if steps[0].Half {
		attrs["half"], attrs["center"] = int64(1), int64(1)
	}
	shape, s := slices.Clone(x.Shape), x.Shape
	h, w, oh, ow := s[axis], 1, sizes[0].m, 1
	shape[axis] = oh
	mul, div := []float32{steps[0].Mul, 0}, []float32{steps[0].Div, 0}
	if len(steps) == 2 {
		w, ow, mul[1], div[1] = s[axis+1], sizes[1].m, steps[1].Mul, steps[1].Div
		shape[axis+1] = ow
	}
	attrs["mul"], attrs["div"] = mul, div
	before, behind := b.elements(s[:axis]), b.elements(s[axis+len(steps):])
	if behind > 1 {
		return b.reshape(b.resizeImage(b.reshape(x, before, h, w, behind), oh, ow, attrs), shape...)
	}
	images := 1 // the other axes before the image are channels
	if axis > 1 {
		images = s[0]
	}
	y := b.resizeImage(b.nhwc(b.reshape(x, images, before/images, h, w)), oh, ow, attrs)
	return b.reshape(b.nchw(y), shape...)
}

// resizeImage is RESIZE of [N, H, W, C].
func (b *builder) resizeImage(x *ir.Tensor, h, w int, attrs ir.Attrs) *ir.Tensor {
	return b.emit("npu.resize", x.Type, []int{x.Shape[0], h, w, x.Shape[3]}, attrs, x)
}

// gatherNearest gathers the nearest elements of an axis.
func (b *builder) gatherNearest(x *ir.Tensor, r *resized, z *resizing) *ir.Tensor {
	b.made(r.m)
	index, inside := make([]int, r.m), make([]int, r.m)
	for i := range index {
		s := z.at(r, i)
		if index[i] = z.index(r, s); !z.beyond(r, s) {
			inside[i] = 1
		}
	}
	y := b.gather(x, b.ints(ir.Int32, []int{r.m}, index...), r.axis)
	if slices.Contains(inside, 0) {
		shape := slices.Repeat([]int{1}, len(x.Shape))
		shape[r.axis] = r.m
		y = b.choose(b.ints(ir.Bool, shape, inside...), y, b.like(y, float32(z.outside)))
	}
	return y
}

// interpolate multiplies an axis by the matrix of its weights.
func (b *builder) interpolate(x *ir.Tensor, r *resized, z *resizing) *ir.Tensor {
	m, beyond := make([]float32, b.made(r.m, r.n)), make([]float32, r.m)
	some := false
	for i := range r.m {
		s := z.at(r, i)
		if z.beyond(r, s) {
			beyond[i], some = float32(z.outside), true
			continue
		}
		first, w := z.weights(r, s)
		for k, v := range w {
			m[i*r.n+min(max(first+k, 0), r.n-1)] += float32(v)
		}
	}
	shape := slices.Clone(x.Shape)
	shape[r.axis] = r.m
	before, behind := b.elements(x.Shape[:r.axis]), b.elements(x.Shape[r.axis+1:])
	weights := b.floats(x.Type, []int{1, r.m, r.n}, m...)
	var y *ir.Tensor
	if behind > 1 {
		y = b.emit("npu.gemm", x.Type, []int{before, r.m, behind}, ir.Attrs{"rounding": "none"}, weights, b.reshape(x, before, r.n, behind))
	} else {
		y = b.emit("npu.gemm", x.Type, []int{1, before, r.m}, ir.Attrs{"rounding": "none", "trans_b": int64(1)}, b.reshape(x, 1, before, r.n), weights)
	}
	y = b.reshape(y, shape...)
	if some {
		own := slices.Repeat([]int{1}, len(shape))
		own[r.axis] = r.m
		y = b.op2("add", y, b.floats(y.Type, own, beyond...))
	}
	return y
}
