// SPDX-License-Identifier: Apache-2.0

package ir

import (
	"encoding/binary"
	"math"
	"slices"
)

// In the checks below n has the inputs, the output and the attributes that its rule says.

func (n *Node) x() *Tensor { return n.Inputs[0] }
func (n *Node) y() *Tensor { return n.Outputs[0] }

func (n *Node) checkShape(want []int) *Error {
	if y := n.y(); !slices.Equal(y.Shape, want) {
		return n.at(y, "the shape is %v, not %v", y.Shape, want)
	}
	return nil
}

func checkSameShape(n *Node) *Error { return n.checkShape(n.x().Shape) }

// first is the first error of several checks.
func first(errs ...*Error) *Error {
	for _, e := range errs {
		if e != nil {
			return e
		}
	}
	return nil
}

// checkWindow checks a window over an image's H and W and gives the output's.
func (n *Node) checkWindow(x *Tensor, kh, kw int) (oh, ow int, e *Error) {
	strides, pads, dil := n.Attrs.Ints("strides"), n.Attrs.Ints("pads"), n.Attrs.Ints("dilations")
	if dil == nil {
		dil = []int{1, 1}
	}
	if slices.Min(strides) < 1 || slices.Min(dil) < 1 || slices.Min(pads) < 0 || kh < 1 || kw < 1 {
		return 0, 0, n.Errorf("strides, dilations and kernel are at least 1 and pads at least 0")
	}
	const most = 1 << 24 // keeps the sums below in range
	if slices.Max(strides) > most || slices.Max(dil) > most || slices.Max(pads) > most || kh > most || kw > most || x.Shape[1] > most || x.Shape[2] > most {
		return 0, 0, n.Errorf("a dimension of the window is above %d", most)
	}
	h := x.Shape[1] + pads[0] + pads[2] - (kh-1)*dil[0] - 1
	w := x.Shape[2] + pads[1] + pads[3] - (kw-1)*dil[1] - 1
	if h < 0 || w < 0 {
		return 0, 0, n.at(x, "the window is larger than the padded image %v", x.Shape)
	}
	return h/strides[0] + 1, w/strides[1] + 1, nil
}

func checkConv(n *Node) *Error {
	x, w, y := n.x(), n.Inputs[1], n.y()
	if len(x.Shape) != 4 || len(w.Shape) != 4 {
		return n.Errorf("x and w have 4 axes, not %d and %d", len(x.Shape), len(w.Shape))
	}
	if !w.Const() {
		return n.at(w, "the weights must be a constant")
	}
	groups := n.Attrs.Int("groups", 1)
	cout := w.Shape[0]
	if groups < 1 || cout%groups != 0 || x.Shape[3] != w.Shape[3]*groups {
		return n.Errorf("%d groups do not fit %d input channels and weights %v", groups, x.Shape[3], w.Shape)
	}
	oh, ow, e := n.checkWindow(x, w.Shape[1], w.Shape[2])
	if e != nil {
		return e
	}
	return first(n.checkShape([]int{x.Shape[0], oh, ow, cout}),
		n.checkProduct(x, w, cout), n.checkZero("zero_x", x), n.checkZeros("zeros_w", w, cout), n.checkResult(x.Type.Float(), y, cout))
}

func checkGemm(n *Node) *Error {
	a, b := n.x(), n.Inputs[1]
	if len(a.Shape) != 3 || len(b.Shape) != 3 {
		return n.Errorf("a and b have 3 axes, not %d and %d", len(a.Shape), len(b.Shape))
	}
	m, k := a.Shape[1], a.Shape[2]
	if n.Attrs.Int("trans_a", 0) != 0 {
		m, k = k, m
	}
	k2, cols := b.Shape[1], b.Shape[2]
	if n.Attrs.Int("trans_b", 0) != 0 {
		k2, cols = cols, k2
	}
	ga, gb := a.Shape[0], b.Shape[0]
	if k != k2 || ga != gb && ga != 1 && gb != 1 {
		return n.Errorf("a %v and b %v do not go together", a.Shape, b.Shape)
	}
	g := max(ga, gb)
	if ga == 0 || gb == 0 {
		g = 0
	}
	return first(n.checkShape([]int{g, m, cols}),
		n.checkProduct(a, b, cols), n.checkZero("zero_a", a), n.checkZeros("zeros_b", b, cols), n.checkResult(a.Type.Float(), n.y(), cols))
}

// checkProduct checks the types of §6.8 and the bias.
func (n *Node) checkProduct(x, w *Tensor, channels int) *Error {
	fx, fw := x.Type.Float() && x.Type != Float64, w.Type.Float() && w.Type != Float64
	ix := x.Type == Int8 || x.Type == Uint8 || x.Type == Int16
	iw := w.Type == Int8 || w.Type == Uint8 || w.Type == Int4
	if !(fx && fw || ix && iw) {
		return n.Errorf("products of %s and %s are none of §6.8", x.Type, w.Type)
	}
	bias := n.Input(2)
	if bias == nil {
		return nil
	}
	want := Int32
	if fx {
		want = Float32
	}
	if !bias.Const() || bias.Type != want || !slices.Equal(bias.Shape, []int{channels}) {
		return n.at(bias, "the bias must be a constant %s[%d]", want, channels)
	}
	return nil
}

func (n *Node) checkZero(name string, t *Tensor) *Error {
	z := int64(n.Attrs.Int(name, 0))
	if t.Type.Float() {
		if z != 0 {
			return n.Errorf("%s is %d, and %s has no zero point", name, z, t.Type)
		}
		return nil
	}
	if lo, hi := t.Type.Range(); z < lo || z > hi {
		return n.Errorf("%s is %d, outside %s", name, z, t.Type)
	}
	return nil
}

func (n *Node) checkZeros(name string, t *Tensor, channels int) *Error {
	zeros := n.Attrs.Ints(name)
	if zeros == nil {
		return nil
	}
	if len(zeros) != 1 && len(zeros) != channels {
		return n.Errorf("%d entries of %s for %d channels", len(zeros), name, channels)
	}
	typ := t.Type
	if typ == Int4 {
		typ = Int8 // §6.8.1
	}
	for _, z := range zeros {
		if typ.Float() && z != 0 {
			return n.Errorf("%s has a %d, and %s has no zero point", name, z, typ)
		}
		if !typ.Float() {
			if lo, hi := typ.Range(); int64(z) < lo || int64(z) > hi {
				return n.Errorf("%s has a %d, outside %s", name, z, typ)
			}
		}
	}
	return nil
}

// checkResult checks the requantization and what follows it.
func (n *Node) checkResult(float bool, y *Tensor, channels int) *Error {
	rounding := n.Attrs.Str("rounding", "")
	if float {
		if rounding != "none" || !y.Type.Float() || y.Type == Float64 {
			return n.at(y, "a floating-point accumulator gives a floating-point type, with rounding \"none\"")
		}
		return n.checkAct()
	}
	if n.Attrs.Has("act") || n.Attrs.Has("clip") {
		return n.Errorf("act and clip are for floating-point types")
	}
	if rounding == "none" {
		if y.Type != Int32 {
			return n.at(y, "an accumulator is int32, not %s", y.Type)
		}
		return nil
	}
	return first(n.checkRounding(channels), n.checkClamp(y))
}

// checkRounding checks scales, or multipliers and shifts.
func (n *Node) checkRounding(channels int) *Error {
	count := func(name string, k int) *Error {
		if k != 1 && k != channels {
			return n.Errorf("%d entries of %s for %d channels", k, name, channels)
		}
		return nil
	}
	switch r := n.Attrs.Str("rounding", ""); r {
	case "fp32":
		s := n.Attrs.Floats("scales")
		return first(count("scales", len(s)), n.checkScaleValues(s))
	case "one", "two":
		m, s := n.Attrs.Ints("multipliers"), n.Attrs.Ints("shifts")
		if len(m) != len(s) {
			return n.Errorf("%d multipliers and %d shifts", len(m), len(s))
		}
		return first(count("multipliers", len(m)), n.checkMultipliers(m, s))
	default:
		return n.Errorf("rounding is %q, not none, fp32, one or two", r)
	}
}

func (n *Node) checkScaleValues(s []float32) *Error {
	for _, v := range s {
		if !(v > 0) || math.IsInf(float64(v), 0) {
			return n.Errorf("a scale is %g, not finite and above 0 (§6.9)", v)
		}
	}
	return nil
}

func (n *Node) checkMultipliers(m, s []int) *Error {
	for i := range m {
		if m[i] < 0 || m[i] > math.MaxInt32 || s[i] < 1 || s[i] > 62 {
			return n.Errorf("multiplier %d with shift %d is outside 0 … 2³¹ − 1 and 1 … 62 (§6.3)", m[i], s[i])
		}
	}
	return nil
}

// checkClamp checks lo and hi, which an integer output needs, and zero_y.
func (n *Node) checkClamp(y *Tensor) *Error {
	if !y.Type.Integer() || y.Type.Bits() > 32 || y.Type == Uint32 || y.Type == Uint16 {
		return n.at(y, "%s is not a type that §6.9 scales to", y.Type)
	}
	tlo, thi := y.Type.Range()
	lo, hi := int64(n.Attrs.Int("lo", int(tlo))), int64(n.Attrs.Int("hi", int(thi)))
	if lo > hi || lo < tlo || hi > thi {
		return n.Errorf("clamp %d … %d is empty or outside %s", lo, hi, y.Type)
	}
	if z := int64(n.Attrs.Int("zero_y", 0)); z < tlo || z > thi {
		return n.Errorf("zero_y is %d, outside %s", z, y.Type)
	}
	return nil
}

func (n *Node) checkAct() *Error {
	if act := n.Attrs.Str("act", ""); act != "" {
		if _, ok := Unary[act]; !ok {
			return n.Errorf("act is %q, which no ELEMENT of one operand is", act)
		}
	}
	return n.checkClipValues()
}

func (n *Node) checkClipValues() *Error {
	if c := n.Attrs.Floats("clip"); c != nil && !(c[0] <= c[1]) {
		return n.Errorf("clip %g … %g is empty", c[0], c[1])
	}
	return nil
}

func checkRequantize(n *Node) *Error {
	x, y := n.x(), n.y()
	if !x.Type.Integer() || x.Type.Bits() > 32 {
		return n.at(x, "%s cannot be requantized", x.Type)
	}
	channels := 1
	if k := len(x.Shape); k > 0 {
		channels = x.Shape[k-1]
	}
	return first(checkSameShape(n), n.checkZero("zero_x", x), n.checkRounding(channels), n.checkClamp(y))
}

func checkScales(n *Node) *Error {
	x, y := n.x(), n.y()
	f, i := x, y
	if n.Op == "npu.dequantize" {
		f, i = y, x
	}
	if !f.Type.Float() || f.Type == Float64 || !i.Type.Integer() || i.Type.Bits() > 32 {
		return n.Errorf("%s to %s is not what it does", x.Type, y.Type)
	}
	s, z := n.Attrs.Floats("scales"), n.Attrs.Ints("zeros")
	axis := n.Attrs.Int("axis", 0)
	if len(s) != len(z) || len(s) != 1 && (axis < 0 || axis >= len(x.Shape) || len(s) != x.Shape[axis]) {
		return n.Errorf("%d scales and %d zeros for axis %d of %v", len(s), len(z), axis, x.Shape)
	}
	lo, hi := i.Type.Range()
	for _, v := range z {
		if int64(v) < lo || int64(v) > hi {
			return n.Errorf("zero point %d is outside %s", v, i.Type)
		}
	}
	if n.Op == "npu.quantize" {
		if e := n.checkClamp(y); e != nil {
			return e
		}
	}
	return first(checkSameShape(n), n.checkScaleValues(s))
}

// Broadcast is the shape that numpy broadcasts the shapes to, and false if they do not go together.
func Broadcast(shapes ...[]int) ([]int, bool) {
	rank := 0
	for _, s := range shapes {
		rank = max(rank, len(s))
	}
	out := make([]int, rank)
	for i := range out {
		out[i] = 1
	}
	for _, s := range shapes {
		for i, d := range s {
			o := &out[rank-len(s)+i]
			if *o == 1 {
				*o = d
			} else if d != 1 && d != *o {
				return nil, false
			}
		}
	}
	return out, true
}

func (n *Node) checkBroadcast(ts ...*Tensor) *Error {
	shapes := make([][]int, len(ts))
	for i, t := range ts {
		shapes[i] = t.Shape
	}
	s, ok := Broadcast(shapes...)
	if !ok {
		return n.Errorf("shapes %v cannot be broadcast", shapes)
	}
	return n.checkShape(s)
}

// Computes reports whether the vector engine computes with elements of the type.
func (t Type) Computes() bool {
	switch t {
	case Int8, Uint8, Bool, Int16, Int32, Float32, BFloat16, Float16, Float8E4M3, Float8E5M2:
		return true
	}
	return false
}

func checkElement(n *Node) *Error {
	x, op := n.x(), n.Attrs.Str("op", "")
	table, operands := Unary, 1
	if len(n.Inputs) == 2 {
		if n.Inputs[1] == nil {
			return n.Errorf("input 1 is missing")
		}
		table, operands = Binary, 2
	}
	kind, ok := table[op]
	if !ok {
		return n.Errorf("op is %q, which no ELEMENT of %d operands is", op, operands)
	}
	if kind == 1 && x.Type.Float() || kind == 2 && !x.Type.Float() {
		return n.at(x, "%s is not for %s", op, x.Type)
	}
	if y := n.y(); !x.Type.Computes() || !y.Type.Computes() {
		return n.Errorf("%s to %s: ELEMENT has no such type", x.Type, y.Type)
	}
	if operands == 1 {
		return checkSameShape(n)
	}
	if n.Inputs[1].Type != x.Type {
		return n.Errorf("the operands are %s and %s, not of one type", x.Type, n.Inputs[1].Type)
	}
	return n.checkBroadcast(n.Inputs...)
}

func checkClip(n *Node) *Error {
	x, y := n.x(), n.y()
	if x.Type != y.Type || !x.Type.Computes() {
		return n.Errorf("%s to %s is not what it does", x.Type, y.Type)
	}
	if x.Type.Float() != n.Attrs.Has("clip") {
		return n.Errorf("clip is for floating-point types, lo and hi are for integers")
	}
	if x.Type.Float() {
		return first(checkSameShape(n), n.checkClipValues())
	}
	return first(checkSameShape(n), n.checkClamp(y))
}

func checkSelect(n *Node) *Error {
	c, x, y := n.x(), n.Inputs[1], n.Inputs[2]
	if c.Type != Bool && c.Type != Uint8 {
		return n.at(c, "a condition is bool or uint8, not %s", c.Type)
	}
	if x.Type != y.Type || x.Type != n.y().Type {
		return n.Errorf("types %s, %s and %s are not one", x.Type, y.Type, n.y().Type)
	}
	return n.checkBroadcast(c, x, y)
}

func checkTable(n *Node) *Error {
	t := n.Inputs[1]
	if !t.Const() || len(t.Data) != 256 || t.Type != n.y().Type {
		return n.at(t, "the table must be a constant of 256 %s", n.y().Type)
	}
	if x := n.x().Type; (x != Int8 && x != Uint8) || (t.Type != Int8 && t.Type != Uint8) {
		return n.Errorf("a table is for int8 and uint8, not from %s to %s", x, t.Type)
	}
	return checkSameShape(n)
}

func checkQuantized(n *Node) *Error {
	m, s := n.Attrs.Ints("multipliers"), n.Attrs.Ints("shifts")
	switch r := n.Attrs.Str("rounding", ""); {
	case r == "fp32" && n.Op == "npu.qadd":
		if e := n.checkPair(); e != nil {
			return e
		}
	case r != "one" && r != "two":
		return n.Errorf("rounding is %q, not one or two", r)
	case len(m) == 0 || len(m) != len(s) || n.Attrs.Has("scales"):
		return n.Errorf("%d multipliers and %d shifts, with rounding %q", len(m), len(s), r)
	}
	if ls := n.Attrs.Int("left_shift", 0); ls < 0 || ls > 31 {
		return n.Errorf("left_shift is %d, not 0 … 31", ls)
	}
	z := n.Attrs.Ints("zeros")
	for i, t := range []*Tensor{n.x(), n.Inputs[1], n.y()} {
		if !t.Type.Integer() || t.Type.Bits() > 32 || !t.Type.Computes() {
			return n.at(t, "%s is no quantized type", t.Type)
		}
		if lo, hi := t.Type.Range(); int64(z[i]) < lo || int64(z[i]) > hi {
			return n.at(t, "zero point %d is outside %s", z[i], t.Type)
		}
	}
	return first(n.checkMultipliers(m, s), n.checkClamp(n.y()), n.checkBroadcast(n.Inputs...))
}

// checkPair checks the fp32 form of a sum.
func (n *Node) checkPair() *Error {
	f, typ := n.Attrs.Floats("scales"), n.x().Type
	if len(f) != 3 || n.Attrs.Has("multipliers") || n.Attrs.Has("shifts") || n.Attrs.Has("left_shift") {
		return n.Errorf("a sum with rounding fp32 has 3 scales, and no multipliers, shifts and left_shift")
	}
	for i, v := range f {
		if v != v || math.IsInf(float64(v), 0) || i < 2 && math.Signbit(float64(v)) {
			return n.Errorf("scales are %g: they are finite, and factors not below 0 (§5.6.32)", f)
		}
	}
	if (typ != Int8 && typ != Uint8 && typ != Int16) || n.Inputs[1].Type != typ || n.y().Type != typ {
		return n.Errorf("%s and %s to %s: a sum with rounding fp32 is of one type of int8, uint8, int16", typ, n.Inputs[1].Type, n.y().Type)
	}
	return nil
}

func checkPool(n *Node) *Error {
	x, y := n.x(), n.y()
	if len(x.Shape) != 4 {
		return n.at(x, "an image has 4 axes, not %d", len(x.Shape))
	}
	if k := n.Attrs.Str("kind", ""); k != "max" && k != "avg" {
		return n.Errorf("kind is %q, not max or avg", k)
	}
	if x.Type != y.Type || !x.Type.Computes() {
		return n.Errorf("%s to %s is not what it does", x.Type, y.Type)
	}
	k := n.Attrs.Ints("kernel")
	oh, ow, e := n.checkWindow(x, k[0], k[1])
	if e != nil {
		return e
	}
	if !x.Type.Float() && x.Type != Bool {
		if e := n.checkClamp(y); e != nil {
			return e
		}
	}
	return n.checkShape([]int{x.Shape[0], oh, ow, x.Shape[3]})
}

func checkResize(n *Node) *Error {
	x, y := n.x(), n.y()
	if len(x.Shape) != 4 || len(y.Shape) != 4 {
		return n.Errorf("an image has 4 axes, not %d and %d", len(x.Shape), len(y.Shape))
	}
	if x.Shape[0] != y.Shape[0] || x.Shape[3] != y.Shape[3] || min(x.Shape[1], x.Shape[2], y.Shape[1], y.Shape[2]) < 1 {
		return n.Errorf("%v cannot become %v: images and channels stay, and there is a line and a pixel of each", x.Shape, y.Shape)
	}
	if x.Type != y.Type || !x.Type.Computes() {
		return n.Errorf("%s to %s is not what it does", x.Type, y.Type)
	}
	switch mode := n.Attrs.Str("mode", ""); mode {
	case "floor", "ceil", "round_down", "round_up", "linear":
		for _, name := range []string{"mul", "div"} {
			for _, v := range n.Attrs.Floats(name) {
				if !(v >= 0) || math.IsInf(float64(v), 0) || math.Signbit(float64(v)) {
					return n.Errorf("%s has a %g, which is no finite number above 0, nor 0 for none (§5.6.24)", name, v)
				}
			}
		}
		if n.Attrs.Has("steps") {
			return n.Errorf("steps are for mode fixed")
		}
	case "fixed":
		s := n.Attrs.Ints("steps")
		if x.Type.Float() || s == nil || min(s[0], s[1]) < 1 || max(s[0], s[1]) > 65535<<10 || n.Attrs.Has("mul") || n.Attrs.Has("div") {
			return n.Errorf("mode fixed is of integers, with steps from 1 to 65535·2¹⁰ and without mul and div (§5.6.24)")
		}
	default:
		return n.Errorf("mode is %q, none of §5.6.24", mode)
	}
	return nil
}

func checkReduce(n *Node) *Error {
	x := n.x()
	k := len(x.Shape)
	if k == 0 || x.Shape[k-1] == 0 {
		return n.at(x, "shape %v has no last axis to reduce", x.Shape)
	}
	kind := n.Attrs.Str("kind", "")
	if !slices.Contains([]string{"sum", "max", "min", "mean"}, kind) || kind == "mean" && !x.Type.Float() {
		return n.Errorf("kind %q is none for %s", kind, x.Type)
	}
	if !x.Type.Computes() || !n.y().Type.Computes() || x.Type.Float() != n.y().Type.Float() {
		return n.Errorf("%s to %s is not what it does", x.Type, n.y().Type)
	}
	return n.checkShape(append(slices.Clone(x.Shape[:k-1]), 1))
}

func checkNorm(n *Node) *Error {
	x := n.x()
	k := len(x.Shape)
	if k == 0 || x.Shape[k-1] == 0 {
		return n.at(x, "shape %v has no last axis", x.Shape)
	}
	for _, t := range []*Tensor{x, n.y()} {
		if !t.Type.Float() || t.Type == Float64 {
			return n.at(t, "%s is no type of NORM", t.Type)
		}
	}
	for _, p := range n.Inputs[1:] {
		if !p.Const() || p.Type != Float32 || !slices.Equal(p.Shape, x.Shape[k-1:]) {
			return n.at(p, "must be a constant float32[%d]", x.Shape[k-1])
		}
	}
	return checkSameShape(n)
}

// checkCopy checks that x and y have one type.
func (n *Node) checkCopy() *Error {
	if n.x().Type != n.y().Type {
		return n.Errorf("%s becomes %s", n.x().Type, n.y().Type)
	}
	return nil
}

func checkTranspose(n *Node) *Error {
	x, perm := n.x(), n.Attrs.Ints("perm")
	want := make([]int, len(x.Shape))
	seen := make([]bool, len(x.Shape))
	if len(perm) != len(want) {
		return n.Errorf("perm %v for a shape %v", perm, x.Shape)
	}
	for i, p := range perm {
		if p < 0 || p >= len(want) || seen[p] {
			return n.Errorf("perm %v is no permutation", perm)
		}
		seen[p] = true
		want[i] = x.Shape[p]
	}
	return first(n.checkCopy(), n.checkShape(want))
}

func checkReshape(n *Node) *Error {
	if n.x().Elements() != n.y().Elements() {
		return n.Errorf("%v to %v changes the number of elements", n.x().Shape, n.y().Shape)
	}
	return n.checkCopy()
}

func checkBitcast(n *Node) *Error {
	x, y := n.x(), n.y()
	wide, narrow := x, y
	if x.Type.Bits() < y.Type.Bits() {
		wide, narrow = y, x
	}
	want := slices.Clone(wide.Shape)
	if r := wide.Type.Bits() / max(8, narrow.Type.Bits()); r > 1 {
		want = append(want, r)
	}
	if narrow.Type.Bits() < 8 || !slices.Equal(narrow.Shape, want) {
		return n.Errorf("%s%v to %s%v is not what it does", x.Type, x.Shape, y.Type, y.Shape)
	}
	return nil
}

// axisOf is the attribute axis, checked against a rank.
func (n *Node) axisOf(rank int) (int, *Error) {
	a := n.Attrs.Int("axis", 0)
	if a < 0 || a >= rank {
		return 0, n.Errorf("axis %d of %d", a, rank)
	}
	return a, nil
}

func checkConcat(n *Node) *Error {
	want := slices.Clone(n.x().Shape)
	axis, e := n.axisOf(len(want))
	if e != nil {
		return e
	}
	for i, t := range n.Inputs {
		if t == nil {
			return n.Errorf("input %d is missing", i)
		}
		if t.Type != n.y().Type {
			return n.at(t, "%s becomes %s", t.Type, n.y().Type)
		}
		if i == 0 {
			continue
		}
		if len(t.Shape) != len(want) {
			return n.at(t, "shape %v beside %v", t.Shape, n.x().Shape)
		}
		for j, d := range t.Shape {
			if j == axis {
				want[j] += d
			} else if d != want[j] {
				return n.at(t, "shape %v beside %v", t.Shape, n.x().Shape)
			}
		}
	}
	return n.checkShape(want)
}

func checkSlice(n *Node) *Error {
	x, y := n.x(), n.y()
	starts, steps := n.Attrs.Ints("starts"), n.Attrs.Ints("steps")
	if len(starts) != len(x.Shape) || len(steps) != len(x.Shape) || len(y.Shape) != len(x.Shape) {
		return n.Errorf("%d starts and %d steps from %v to %v", len(starts), len(steps), x.Shape, y.Shape)
	}
	for i, d := range y.Shape {
		if d == 0 {
			continue
		}
		if starts[i] < 0 || starts[i] >= x.Shape[i] || steps[i] == 0 || steps[i] < -MaxBytes || steps[i] > MaxBytes {
			return n.Errorf("axis %d: start %d, step %d of %d", i, starts[i], steps[i], x.Shape[i])
		}
		if last := starts[i] + (d-1)*steps[i]; d > x.Shape[i] || last < 0 || last >= x.Shape[i] {
			return n.Errorf("axis %d: %d elements from %d by %d leave %d", i, d, starts[i], steps[i], x.Shape[i])
		}
	}
	return n.checkCopy()
}

func checkPad(n *Node) *Error {
	x, pads := n.x(), n.Attrs.Ints("pads")
	k := len(x.Shape)
	if len(pads) != 2*k {
		return n.Errorf("%d pads for %d axes", len(pads), k)
	}
	want := make([]int, k)
	for i, d := range x.Shape {
		if pads[i] < 0 || pads[k+i] < 0 || pads[i] > MaxBytes || pads[k+i] > MaxBytes {
			return n.Errorf("pads %v: one is below 0 or too large", pads)
		}
		want[i] = pads[i] + d + pads[k+i]
	}
	if x.Type.Float() && n.Attrs.Has("zero") || !x.Type.Float() && n.Attrs.Has("value") {
		return n.Errorf("zero is for integers, value for floating-point types")
	}
	return first(n.checkCopy(), n.checkShape(want))
}

func checkGather(n *Node) *Error {
	x, i := n.x(), n.Inputs[1]
	axis, e := n.axisOf(len(x.Shape))
	if e != nil {
		return e
	}
	if i.Type != Int32 && i.Type != Int64 {
		return n.at(i, "an index is int32 or int64, not %s", i.Type)
	}
	if x.Shape[axis] == 0 && n.y().Elements() != 0 {
		return n.at(x, "axis %d has no element to gather", axis)
	}
	if i.Const() {
		if k, ok := Outside(i, i.Data, x.Shape[axis]); ok {
			return n.at(i, "index %d of axis %d of %v, which has %d elements", k, axis, x.Shape, x.Shape[axis])
		}
	}
	return first(n.checkCopy(), n.checkShape(slices.Concat(x.Shape[:axis], i.Shape, x.Shape[axis+1:])))
}

// Outside finds the first index in data, of t, int32 or int64, that none of so many elements has, also counted from the end.
func Outside(t *Tensor, data []byte, elements int) (index int64, ok bool) {
	for i := range t.Elements() {
		if t.Type == Int32 {
			index = int64(int32(binary.LittleEndian.Uint32(data[4*i:])))
		} else {
			index = int64(binary.LittleEndian.Uint64(data[8*i:]))
		}
		if index < -int64(elements) || index >= int64(elements) {
			return index, true
		}
	}
	return 0, false
}

func checkExpand(n *Node) *Error {
	return first(n.checkCopy(), n.checkBroadcast(n.x(), n.y()))
}
