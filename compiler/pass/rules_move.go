// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"slices"

	"npuemu/compiler/ir"
)

func ruleReshape(b *builder, n *ir.Node) []*ir.Tensor {
	x, want := n.Inputs[0], b.constInts(1)
	allowZero := n.Attrs.Int("allowzero", 0) != 0
	shape := make([]int, len(want))
	known, open := 1, -1
	for i, d := range want {
		switch {
		case d == 0 && !allowZero:
			if i >= len(x.Shape) {
				b.fail(fixValue, x, "dimension %d of %v is copied from a shape %v", i, want, x.Shape)
			}
			d = x.Shape[i]
		case d == -1 && open < 0:
			open = i
			continue
		case d < 0:
			b.fail(fixValue, nil, "shape %v", want)
		}
		shape[i] = d
		known *= d
		if known < 0 || known > ir.MaxBytes {
			b.fail(makeSmaller, nil, "shape %v is too large", want)
		}
	}
	if open >= 0 {
		if known == 0 || x.Elements()%known != 0 {
			b.fail(fixShapes, x, "%v cannot become %v", x.Shape, want)
		}
		shape[open] = x.Elements() / known
	}
	if ir.Elements(shape) != x.Elements() {
		b.fail(fixShapes, x, "%v cannot become %v", x.Shape, want)
	}
	return one(b.emit("npu.reshape", x.Type, shape, nil, x))
}

func ruleFlatten(b *builder, n *ir.Node) []*ir.Tensor {
	x, a := n.Inputs[0], n.Attrs.Int("axis", 1)
	if a < 0 {
		a += len(x.Shape)
	}
	if a < 0 || a > len(x.Shape) {
		b.fail(fixValue, x, "axis %d of %v", a, x.Shape)
	}
	return one(b.emit("npu.reshape", x.Type, []int{b.elements(x.Shape[:a]), b.elements(x.Shape[a:])}, nil, x))
}

func ruleSqueeze(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	var axes []int
	if n.Input(1) != nil {
		axes = b.axes(append([]int{}, b.constInts(1)...), len(x.Shape))
	} else {
		for i, d := range x.Shape {
			if d == 1 {
				axes = append(axes, i)
			}
		}
	}
	shape := []int{}
	for i, d := range x.Shape {
		if !slices.Contains(axes, i) {
			shape = append(shape, d)
		} else if d != 1 {
			b.fail(fixValue, x, "axis %d of %v is not 1", i, x.Shape)
		}
	}
	return one(b.emit("npu.reshape", x.Type, shape, nil, x))
}

func ruleUnsqueeze(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	list := append([]int{}, b.constInts(1)...)
	rank := len(x.Shape) + len(list)
	axes := b.axes(list, rank)
	var shape []int
	k := 0
	for i := range rank {
		if slices.Contains(axes, i) {
			shape = append(shape, 1)
		} else {
			shape = append(shape, x.Shape[k])
			k++
		}
	}
	return one(b.emit("npu.reshape", x.Type, shape, nil, x))
}

func ruleTranspose(b *builder, n *ir.Node) []*ir.Tensor {
	x, perm := n.Inputs[0], n.Attrs.Ints("perm")
	if perm == nil {
		for i := range x.Shape {
			perm = append([]int{i}, perm...)
		}
	}
	shape := make([]int, len(x.Shape))
	if len(perm) != len(shape) {
		b.fail(fixValue, x, "perm %v for a shape %v", perm, x.Shape)
	}
	seen := make([]bool, len(perm))
	for i, p := range perm {
		if p < 0 || p >= len(perm) || seen[p] {
			b.fail(fixValue, nil, "perm %v is no permutation", perm)
		}
		seen[p] = true
		shape[i] = x.Shape[p]
	}
	return one(b.emit("npu.transpose", x.Type, shape, ir.Attrs{"perm": ir.IntList(perm...)}, x))
}

func ruleConcat(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	if len(n.Inputs) == 1 {
		return one(b.reshapeCopy(x))
	}
	return one(b.concat(b.axis(n.Attrs.Int("axis", 0), len(x.Shape)), n.Inputs...))
}

func ruleSplit(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	axis := b.axis(n.Attrs.Int("axis", 0), len(x.Shape))
	sizes := b.constInts(1)
	if sizes == nil {
		parts := len(n.Outputs)
		size := (x.Shape[axis] + parts - 1) / parts
		for left := x.Shape[axis]; len(sizes) < parts; left -= size {
			sizes = append(sizes, min(size, max(left, 0)))
		}
	}
	if len(sizes) != len(n.Outputs) {
		b.fail(fixValue, nil, "%d parts for %d outputs", len(sizes), len(n.Outputs))
	}
	var out []*ir.Tensor
	at := 0
	for _, s := range sizes {
		if s < 0 || s > x.Shape[axis]-at {
			b.fail(fixValue, x, "parts %v of axis %d of %v", sizes, axis, x.Shape)
		}
		starts, shape, step := make([]int, len(x.Shape)), slices.Clone(x.Shape), slices.Repeat([]int{1}, len(x.Shape))
		starts[axis], shape[axis] = at, s
		out = append(out, b.slice(x, starts, shape, step))
		at += s
	}
	if at != x.Shape[axis] {
		b.fail(fixValue, x, "parts %v of axis %d of %v", sizes, axis, x.Shape)
	}
	return out
}

func ruleSlice(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	from, to, axes, by := b.constInts(1), b.constInts(2), b.constInts(3), b.constInts(4)
	if axes == nil {
		for i := range from {
			axes = append(axes, i)
		}
	}
	if len(to) != len(from) || len(axes) != len(from) || by != nil && len(by) != len(from) {
		b.fail(fixValue, nil, "%d starts, %d ends, %d axes and %d steps", len(from), len(to), len(axes), len(by))
	}
	starts, shape, steps := make([]int, len(x.Shape)), slices.Clone(x.Shape), slices.Repeat([]int{1}, len(x.Shape))
	for i, a := range axes {
		a = b.axis(a, len(x.Shape))
		d, s, e, step := x.Shape[a], from[i], to[i], 1
		if by != nil {
			step = by[i]
		}
		if step == 0 {
			b.fail(fixValue, nil, "a step of 0 on axis %d", a)
		}
		if s < 0 {
			s += d
		}
		if e < 0 {
			e += d
		}
		var count int
		if step > 0 {
			s, e = min(max(s, 0), d), min(max(e, 0), d)
			step = min(step, max(d, 1))
			count = max(0, (e-s+step-1)/step)
		} else {
			s, e = min(max(s, 0), d-1), min(max(e, -1), d-1)
			step = max(step, -max(d, 1))
			count = max(0, (s-e-step-1)/-step)
		}
		if d == 0 {
			count = 0
		}
		starts[a], shape[a], steps[a] = s, count, step
	}
	return one(b.slice(x, starts, shape, steps))
}

func rulePad(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	rank := len(x.Shape)
	list := b.constInts(1)
	axes := append([]int{}, b.constInts(3)...)
	if n.Input(3) == nil {
		axes = b.axes(nil, rank)
	}
	if len(list) != 2*len(axes) {
		b.fail(fixValue, nil, "%d pads for %d axes", len(list), len(axes))
	}
	pads := make([]int, 2*rank)
	for i, a := range axes {
		a = b.axis(a, rank)
		pads[a], pads[rank+a] = list[i], list[len(axes)+i]
	}
	// A pad below 0 cuts.
	starts, shape, steps := make([]int, rank), slices.Clone(x.Shape), slices.Repeat([]int{1}, rank)
	cut := false
	for i := range rank {
		for _, k := range []int{i, rank + i} {
			if pads[k] < 0 {
				cut = true
				shape[i] += pads[k]
				if k == i {
					starts[i] = -pads[k]
				}
				pads[k] = 0
			}
		}
		if shape[i] < 0 || pads[i] > 1<<24 || pads[rank+i] > 1<<24 {
			b.fail(fixValue, x, "pads %v of %v", list, x.Shape)
		}
	}
	if cut {
		x = b.slice(x, starts, shape, steps)
	}
	mode := n.Attrs.Str("mode", "constant")
	if mode == "constant" {
		zero, value := 0, float32(0)
		if v := n.Input(2); v != nil {
			b.needConst(v)
			if x.Type.Float() {
				value = numbers(v)[0]
			} else {
				zero = b.constInts(2)[0]
			}
		}
		if slices.Max(append(pads, 0)) == 0 {
			return one(b.reshapeCopy(x))
		}
		return one(b.pad(x, pads, zero, value))
	}
	out := x
	for i := range rank {
		d := x.Shape[i]
		if pads[i] == 0 && pads[rank+i] == 0 {
			continue
		}
		if d == 0 {
			b.fail(fixValue, nil, "mode %s on axis %d without elements", mode, i)
		}
		var index []int
		for k := -pads[i]; k < d+pads[rank+i]; k++ {
			at := k
			switch mode {
			case "edge":
				at = min(max(k, 0), d-1)
			case "reflect":
				period := max(1, 2*(d-1))
				at = ((k % period) + period) % period
				if at >= d {
					at = period - at
				}
			case "wrap":
				at = ((k % d) + d) % d
			default:
				b.fail(fixValue, nil, "mode %q", mode)
			}
			index = append(index, at)
		}
		out = b.gather(out, b.ints(ir.Int32, []int{len(index)}, index...), i)
	}
	if out == n.Inputs[0] {
		out = b.reshapeCopy(out)
	}
	return one(out)
}

func ruleGather(b *builder, n *ir.Node) []*ir.Tensor {
	x, at := n.Inputs[0], n.Inputs[1]
	axis := b.axis(n.Attrs.Int("axis", 0), len(x.Shape))
	if at.Const() {
		for _, i := range b.constInts(1) {
			if d := x.Shape[axis]; i < -d || i >= d {
				b.fail(fixValue, at, "index %d of axis %d of %v, which has %d elements", i, axis, x.Shape, d)
			}
		}
	}
	return one(b.gather(x, at, axis))
}

// ruleGatherND is a gather of the tensor with the indexed axes made one.
func ruleGatherND(b *builder, n *ir.Node) []*ir.Tensor {
	x, at := n.Inputs[0], n.Inputs[1]
	batch := n.Attrs.Int("batch_dims", 0)
	depth := at.Shape[len(at.Shape)-1]
	if batch < 0 || batch+depth > len(x.Shape) || batch >= len(at.Shape) {
		b.fail(fixShapes, x, "indices %v with %d batch axes for %v", at.Shape, batch, x.Shape)
	}
	if !at.Const() {
		return one(b.takeND(x, at, batch, depth))
	}
	index := b.constInts(1)
	batches := b.elements(x.Shape[:batch])
	inner := b.elements(x.Shape[batch : batch+depth])
	rows := b.elements(at.Shape[:len(at.Shape)-1])
	flat := make([]int, rows)
	for r := range rows {
		k := 0
		for j, v := range index[r*depth : (r+1)*depth] {
			d := x.Shape[batch+j]
			if v < 0 {
				v += d
			}
			if v < 0 || v >= d {
				b.fail(fixValue, at, "index %d of axis %d of %v, which has %d elements", index[r*depth+j], batch+j, x.Shape, d)
			}
			k = k*d + v
		}
		flat[r] = r/max(1, rows/max(1, batches))*inner + k
	}
	rest := x.Shape[batch+depth:]
	whole := b.reshape(x, append([]int{batches * inner}, rest...)...)
	return one(b.gather(whole, b.ints(ir.Int32, at.Shape[:len(at.Shape)-1], flat...), 0))
}

func ruleExpand(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	shape, ok := ir.Broadcast(x.Shape, b.constInts(1))
	if !ok {
		b.fail(fixShapes, x, "%v cannot be broadcast to %v", x.Shape, b.constInts(1))
	}
	b.elements(shape)
	return one(b.emit("npu.expand", x.Type, shape, nil, x))
}

func ruleTile(b *builder, n *ir.Node) []*ir.Tensor {
	x, by := n.Inputs[0], b.constInts(1)
	if len(by) != len(x.Shape) {
		b.fail(fixShapes, x, "%d repeats for %v", len(by), x.Shape)
	}
	var split, wide, shape []int
	for i, d := range x.Shape {
		if by[i] < 0 || by[i] > ir.MaxBytes {
			b.fail(fixValue, nil, "repeats %v", by)
		}
		split, wide, shape = append(split, 1, d), append(wide, by[i], d), append(shape, by[i]*d)
	}
	b.elements(wide)
	return one(b.emit("npu.reshape", x.Type, shape, nil, b.expand(b.reshape(x, split...), wide)))
}

func ruleDepthToSpace(b *builder, n *ir.Node) []*ir.Tensor {
	x, k := n.Inputs[0], n.Attrs.Int("blocksize", 1)
	s := x.Shape
	if k < 1 || s[1]%(k*k) != 0 {
		b.fail(fixValue, nil, "blocksize %d of %v", k, s)
	}
	c := s[1] / (k * k)
	var y *ir.Tensor
	if n.Attrs.Str("mode", "DCR") == "DCR" {
		y = b.transpose(b.reshape(x, s[0], k, k, c, s[2], s[3]), 0, 3, 4, 1, 5, 2)
	} else {
		y = b.transpose(b.reshape(x, s[0], c, k, k, s[2], s[3]), 0, 1, 4, 2, 5, 3)
	}
	return one(b.emit("npu.reshape", x.Type, []int{s[0], c, s[2] * k, s[3] * k}, nil, y))
}

func ruleSpaceToDepth(b *builder, n *ir.Node) []*ir.Tensor {
	x, k := n.Inputs[0], n.Attrs.Int("blocksize", 1)
	s := x.Shape
	if k < 1 || s[2]%k != 0 || s[3]%k != 0 {
		b.fail(fixValue, nil, "blocksize %d of %v", k, s)
	}
	y := b.transpose(b.reshape(x, s[0], s[1], s[2]/k, k, s[3]/k, k), 0, 3, 5, 1, 2, 4)
	if n.Attrs.Str("mode", "DCR") == "CRD" {
		y = b.transpose(b.reshape(x, s[0], s[1], s[2]/k, k, s[3]/k, k), 0, 1, 3, 5, 2, 4)
	}
	return one(b.emit("npu.reshape", x.Type, []int{s[0], s[1] * k * k, s[2] / k, s[3] / k}, nil, y))
}

func ruleShape(b *builder, n *ir.Node) []*ir.Tensor {
	s := n.Inputs[0].Shape
	clamp := func(v int) int {
		if v < 0 {
			v += len(s)
		}
		return min(max(v, 0), len(s))
	}
	from, to := clamp(n.Attrs.Int("start", 0)), clamp(n.Attrs.Int("end", len(s)))
	s = s[from:max(from, to)]
	return one(b.ints(ir.Int64, []int{len(s)}, s...))
}

func ruleConstantOfShape(b *builder, n *ir.Node) []*ir.Tensor {
	shape := b.constInts(0)
	b.elements(shape)
	value := n.Input(1)
	if value == nil {
		value = b.floats(ir.Float32, []int{1}, 0)
	}
	return one(b.emit("npu.expand", value.Type, shape, nil, b.reshape(value)))
}

func ruleRange(b *builder, n *ir.Node) []*ir.Tensor {
	for _, t := range n.Inputs {
		b.needConst(t)
	}
	typ := n.Inputs[0].Type
	count := func(from, to, by float64) int {
		if by == 0 {
			b.fail(fixValue, nil, "a step of 0")
		}
		c := (to - from) / by
		if !(c < 1<<24) {
			b.fail(makeSmaller, nil, "more than 2²⁴ elements")
		}
		k := int(max(c, 0))
		if float64(k) < c {
			k++
		}
		return k
	}
	if typ.Float() {
		from, to, by := b.constFloats(0)[0], b.constFloats(1)[0], b.constFloats(2)[0]
		v := make([]float32, count(float64(from), float64(to), float64(by)))
		for i := range v {
			v[i] = from + float32(i)*by
		}
		return one(b.floats(typ, []int{len(v)}, v...))
	}
	from, to, by := b.constInts(0)[0], b.constInts(1)[0], b.constInts(2)[0]
	v := make([]int, count(float64(from), float64(to), float64(by)))
	for i := range v {
		v[i] = from + i*by
	}
	return one(b.ints(typ, []int{len(v)}, v...))
}

// ruleTrilu multiplies nothing: what is outside the triangle is replaced by 0.
func ruleTrilu(b *builder, n *ir.Node) []*ir.Tensor {
	x, k := n.Inputs[0], 0
	if n.Input(1) != nil {
		k = b.constInts(1)[0]
	}
	rank := len(x.Shape)
	h, w := x.Shape[rank-2], x.Shape[rank-1]
	upper := n.Attrs.Int("upper", 1) != 0
	keep := make([]int, b.made(h, w))
	for i := range keep {
		if d := i%w - i/w; upper && d >= k || !upper && d <= k {
			keep[i] = 1
		}
	}
	return one(b.choose(b.ints(ir.Bool, []int{h, w}, keep...), x, b.like(x, 0)))
}

func ruleEyeLike(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	typ := x.Type
	if n.Attrs.Has("dtype") {
		typ = elementTypes[n.Attrs.Int("dtype", 0)]
	}
	k := n.Attrs.Int("k", 0)
	v := make([]float32, b.made(x.Shape...))
	for i := range v {
		if i%x.Shape[1]-i/x.Shape[1] == k {
			v[i] = 1
		}
	}
	return one(b.numbers(typ, x.Shape, v...))
}

// numbers is a constant of any type.
func (b *builder) numbers(typ ir.Type, shape []int, v ...float32) *ir.Tensor {
	if typ.Float() {
		return b.floats(typ, shape, v...)
	}
	i := make([]int, len(v))
	for k, x := range v {
		i[k] = int(x)
	}
	return b.ints(typ, shape, i...)
}

func ruleIdentity(b *builder, n *ir.Node) []*ir.Tensor { return one(b.reshapeCopy(n.Inputs[0])) }

// ruleDropout is the identity, as it is outside training.
func ruleDropout(b *builder, n *ir.Node) []*ir.Tensor {
	if t := n.Input(2); t != nil && (!t.Const() || t.Data[0] != 0) {
		if r := n.Input(1); r == nil || !r.Const() || numbers(r)[0] != 0 {
			b.fail(exportAgain, nil, "training mode is not supported")
		}
	}
	x := n.Inputs[0]
	out := one(b.reshapeCopy(x))
	if len(n.Outputs) > 1 {
		out = append(out, b.expand(b.ints(ir.Bool, nil, 1), x.Shape))
	}
	return out
}

func ruleReverseSequence(b *builder, n *ir.Node) []*ir.Tensor {
	x, lens := n.Inputs[0], b.constInts(1)
	t, batch := n.Attrs.Int("time_axis", 0), n.Attrs.Int("batch_axis", 1)
	if t+batch != 1 || t*batch != 0 || len(x.Shape) < 2 || len(lens) != x.Shape[batch] {
		b.fail(fixValue, x, "time axis %d, batch axis %d, %d lengths of %v", t, batch, len(lens), x.Shape)
	}
	flat := make([]int, b.made(x.Shape[0], x.Shape[1]))
	for i := range flat {
		at := []int{i / x.Shape[1], i % x.Shape[1]}
		if l := lens[at[batch]]; at[t] < l {
			at[t] = l - 1 - at[t]
		}
		flat[i] = at[0]*x.Shape[1] + at[1]
	}
	rest := x.Shape[2:]
	y := b.gather(b.reshape(x, append([]int{len(flat)}, rest...)...), b.ints(ir.Int32, []int{len(flat)}, flat...), 0)
	return one(b.emit("npu.reshape", x.Type, x.Shape, nil, y))
}

func ruleBitCast(b *builder, n *ir.Node) []*ir.Tensor {
	typ, ok := castTo(n)
	if !ok || typ.Bits() != n.Inputs[0].Type.Bits() {
		b.fail(fixTypes, n.Inputs[0], "from %s to element type %d", n.Inputs[0].Type, n.Attrs.Int("to", 0))
	}
	return one(b.emit("npu.bitcast", typ, n.Inputs[0].Shape, nil, n.Inputs[0]))
}

// ruleCenterCropPad cuts and pads both sides of each axis alike.
func ruleCenterCropPad(b *builder, n *ir.Node) []*ir.Tensor {
	x, want := n.Inputs[0], b.constInts(1)
	rank := len(x.Shape)
	axes := n.Attrs.Ints("axes")
	if axes == nil {
		axes = b.axes(nil, rank)
	}
	pads := make([]int, 2*rank)
	for i, a := range axes {
		a = b.axis(a, rank)
		d := x.Shape[a]
		switch {
		case want[i] < d:
			x = b.part(x, a, (d-want[i])/2, want[i])
		case want[i] > d:
			pads[a] = (want[i] - d) / 2
			pads[rank+a] = want[i] - d - pads[a]
		}
	}
	x = b.pad(x, pads, 0, 0)
	if x == n.Inputs[0] {
		x = b.reshapeCopy(x)
	}
	return one(x)
}

func moveRules() map[string]rule {
	return map[string]rule{
		"Reshape": ruleReshape, "Flatten": ruleFlatten, "Squeeze": ruleSqueeze, "Unsqueeze": ruleUnsqueeze, "Transpose": ruleTranspose,
		"Concat": ruleConcat, "Split": ruleSplit, "Slice": ruleSlice, "Pad": rulePad, "Gather": ruleGather,
		"GatherND": ruleGatherND, "Expand": ruleExpand, "Tile": ruleTile, "DepthToSpace": ruleDepthToSpace, "SpaceToDepth": ruleSpaceToDepth,
		"Shape": ruleShape, "ConstantOfShape": ruleConstantOfShape, "Range": ruleRange, "Resize": ruleResize, "Trilu": ruleTrilu, "EyeLike": ruleEyeLike,
		"Identity": ruleIdentity, "Dropout": ruleDropout, "ReverseSequence": ruleReverseSequence, "BitCast": ruleBitCast,
		"CenterCropPad": ruleCenterCropPad,
		"Size":          func(b *builder, n *ir.Node) []*ir.Tensor { return one(b.ints(ir.Int64, nil, n.Inputs[0].Elements())) },
	}
}
