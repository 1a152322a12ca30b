// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"math"

	"npuemu/compiler/ir"
	"npuemu/core/isa"
	"npuemu/core/systolic"
)

func (l *lower) element() (*body, error) {
	x, y, err := l.kinds()
	if err != nil {
		return nil, err
	}
	op := elementOps[l.node.Attrs.Str("op", "")]
	wrap := l.node.Attrs.Int("wrap", 0) != 0
	shape := l.y().Shape
	ins := []operand{l.operand(l.x(), shape)}
	if !op.Unary() {
		ins = append(ins, l.operand(l.node.Inputs[1], shape))
	}
	ins[0].scalar = false // ELEMENT has one element for all as y alone
	if len(ins) == 2 && ins[1].scalar && l.x() == l.node.Inputs[1] {
		ins[1].scalar = false
	}
	return &body{in: ins, f: func(t tile) {
		var second *local
		if len(t.in) == 2 {
			second = &t.in[1]
		}
		l.vec(op, x, y, t.in[0], second, t.out, t.n, wrap)
	}}, nil
}

// sequence runs steps on every element of x: each is an ELEMENT from one type to the
// next, the last one into the result.
type stage struct {
	op   isa.ElementOp
	to   systolic.Type
	y    *operand
	wrap bool
}

func (l *lower) sequence(from systolic.Type, stages []stage) *body {
	op := &body{in: []operand{l.operand(l.x(), l.y().Shape)}, spadTemp: []int{4}}
	op.in[0].scalar = false
	if len(stages) == 1 {
		op.spadTemp = nil
	}
	at := make([]int, len(stages))
	for i, s := range stages {
		if s.y != nil {
			at[i] = len(op.in)
			op.in = append(op.in, *s.y)
		}
	}
	op.f = func(t tile) {
		x, kind := t.in[0], from
		for i, s := range stages {
			out := t.out
			if i < len(stages)-1 {
				out = t.spad[0]
			}
			var y *local
			if s.y != nil {
				y = &t.in[at[i]]
			}
			l.vec(s.op, kind, s.to, x, y, out, t.n, s.wrap)
			x, kind = out, s.to
		}
	}
	return op
}

func (l *lower) clip() (*body, error) {
	x, y, err := l.kinds()
	if err != nil {
		return nil, err
	}
	if c := l.node.Attrs.Floats("clip"); c != nil {
		lo, hi := l.scalarFloat(c[0]), l.scalarFloat(c[1])
		st := []stage{{op: isa.ElemMax, to: systolic.FP32, y: &lo}, {op: isa.ElemMin, to: y, y: &hi}}
		if x != systolic.FP32 {
			st = append([]stage{{op: isa.ElemMove, to: systolic.FP32}}, st...)
		}
		return l.sequence(x, st), nil
	}
	lo, hi := l.limits()
	a, b := l.scalar(x, lo), l.scalar(x, hi)
	return l.sequence(x, []stage{{op: isa.ElemMax, to: x, y: &a}, {op: isa.ElemMin, to: y, y: &b}}), nil
}

func (l *lower) table() (*body, error) {
	t := l.operand(l.node.Inputs[1], []int{256})
	shape := l.y().Shape
	at := l.local(isa.TableSize)
	l.load(at, t.at, isa.TableSize)
	x := l.operand(l.x(), shape)
	x.scalar = false
	return &body{in: []operand{x}, f: func(t tile) {
		dense(t.n, 1, func(first, m, n int) {
			l.b.Emit(isa.Table{X: t.in[0].at + uint32(first), Table: at, Out: t.out.at + uint32(first), M: uint32(m), N: uint16(n), XStride: uint16(n), OutStride: uint16(n)})
		})
	}}, nil
}

// choose is npu.select. ELEMENT's select takes the condition from where the result goes,
// in elements of the result's type; integers of the same size keep all bits.
func (l *lower) choose() (*body, error) {
	y := l.y()
	bits, shape := y.Type.Bits(), y.Shape
	if bits < 8 {
		return nil, l.node.Errorf("there is no selection of %v", y.Type)
	}
	kinds := map[int]systolic.Type{8: systolic.Int8, 16: systolic.Int16, 32: systolic.Int32, 64: systolic.Int32}
	kind := kinds[bits]
	ins := []operand{l.operand(l.x(), shape), l.operand(l.node.Inputs[1], shape), l.operand(l.node.Inputs[2], shape)}
	if bits == 64 { // pairs of 32 bits, with one condition
		for i := range ins {
			step := 4
			if i == 0 {
				step = 0
			}
			ins[i].strides = append(ins[i].strides, step)
		}
		ins[1].size, ins[2].size = 4, 4
	}
	for i := range ins {
		ins[i].scalar = false
	}
	return &body{in: ins, f: func(t tile) {
		l.vec(isa.ElemMove, systolic.Uint8, kind, t.in[0], nil, t.out, t.n, false)
		l.vec(isa.ElemSelect, kind, kind, t.in[1], &t.in[2], t.out, t.n, false)
	}}, nil
}

func (l *lower) cast() (*body, error) {
	x, y, err := l.kinds()
	if err != nil {
		return nil, err
	}
	wrap := l.node.Attrs.Int("saturate", 1) == 0
	if l.node.Attrs.Int("trunc", 0) == 0 || !x.Float() || y.Float() {
		return l.sequence(x, []stage{{op: isa.ElemMove, to: y, wrap: wrap}}), nil
	}
	// Toward zero: a is |x| rounded to nearest, less 1 if that is above |x|, with the sign of x. NaN
	// becomes 0 in the first conversion (§6.6).
	shape := l.y().Shape
	one, two, zero := l.scalarFloat(1), l.scalarFloat(-2), l.scalarFloat(0)
	in := l.operand(l.x(), shape)
	in.scalar = false
	const f, i = systolic.FP32, systolic.Int32
	return &body{in: []operand{in, one, two, zero}, spadTemp: []int{4, 4, 4}, f: func(t tile) {
		abs, near, sign := t.spad[0], t.spad[1], t.spad[2]
		step := func(op isa.ElementOp, from, to systolic.Type, x local, y *local, out local) {
			l.vec(op, from, to, x, y, out, t.n, false)
		}
		step(isa.ElemMove, x, f, t.in[0], nil, sign)
		step(isa.ElemAbs, f, f, sign, nil, abs)
		step(isa.ElemMove, f, i, abs, nil, near)
		step(isa.ElemMove, i, f, near, nil, near)
		step(isa.ElemLt, f, f, abs, &near, abs)
		step(isa.ElemSub, f, f, near, &abs, near)
		step(isa.ElemLt, f, f, sign, &t.in[3], sign)
		step(isa.ElemMul, f, f, sign, &t.in[2], sign)
		step(isa.ElemAdd, f, f, sign, &t.in[1], sign)
		step(isa.ElemMul, f, i, near, &sign, near)
		l.vec(isa.ElemMove, i, y, near, nil, t.out, t.n, wrap)
	}}, nil
}

func (l *lower) dequantize() (*body, error) {
	x, y, err := l.kinds()
	if err != nil {
		return nil, err
	}
	a := l.node.Attrs
	axis, shape := a.Int("axis", 0), l.x().Shape
	zero := l.perChannel(x, encodeAll(x, a.Ints("zeros")), shape, axis)
	scale := l.perChannel(systolic.FP32, floats(a.Floats("scales")...), shape, axis)
	return l.sequence(x, []stage{{op: isa.ElemSub, to: systolic.FP32, y: &zero}, {op: isa.ElemMul, to: y, y: &scale}}), nil
}

// clamped ends a sequence of int32: the zero point is added, and the sum clamped.
func (l *lower) clamped(st []stage, zero operand, y systolic.Type) []stage {
	lo, hi := l.limits()
	tlo, thi := l.y().Type.Range()
	st = append(st, stage{op: isa.ElemAddSat, to: systolic.Int32, y: &zero})
	if lo > tlo {
		v := l.scalar(systolic.Int32, lo)
		st = append(st, stage{op: isa.ElemMax, to: systolic.Int32, y: &v})
	}
	if hi < thi {
		v := l.scalar(systolic.Int32, hi)
		st = append(st, stage{op: isa.ElemMin, to: systolic.Int32, y: &v})
	}
	st[len(st)-1].to = y // saturates
	return st
}

func (l *lower) quantize() (*body, error) {
	x, y, err := l.kinds()
	if err != nil {
		return nil, err
	}
	a := l.node.Attrs
	axis, shape := a.Int("axis", 0), l.x().Shape
	zero := l.perChannel(systolic.Int32, encodeAll(systolic.Int32, a.Ints("zeros")), shape, axis)
	scale := l.perChannel(systolic.FP32, floats(a.Floats("scales")...), shape, axis)
	var st []stage
	if x != systolic.FP32 {
		st = append(st, stage{op: isa.ElemMove, to: systolic.FP32})
	}
	st = append(st, stage{op: isa.ElemDiv, to: systolic.Int32, y: &scale})
	return l.sequence(x, l.clamped(st, zero, y)), nil
}

// scaled returns the stages that scale int32 by the node's rounding, if ELEMENT can.
func (l *lower) scaled(shape []int) ([]stage, error) {
	a := l.node.Attrs
	axis := max(len(shape)-1, 0)
	column := func(t systolic.Type, v []int) *operand {
		o := l.perChannel(t, encodeAll(t, v), shape, axis)
		return &o
	}
	const i = systolic.Int32
	switch a.Str("rounding", "") {
	case "none":
		return nil, nil
	case "fp32":
		o := l.perChannel(systolic.FP32, floats(a.Floats("scales")...), shape, axis)
		return []stage{{op: isa.ElemMove, to: systolic.FP32}, {op: isa.ElemMul, to: i, y: &o}}, nil
	case "two":
		m, s := a.Ints("multipliers"), a.Ints("shifts")
		left, right := make([]int, len(s)), make([]int, len(s))
		small := true
		for k := range s {
			left[k], right[k] = max(31-s[k], 0), max(s[k]-31, 0)
			small = small && s[k] <= 31
		}
		if !small {
			break
		}
		return []stage{{op: isa.ElemShl, to: i, y: column(i, left), wrap: true}, {op: isa.ElemMulHigh, to: i, y: column(i, m)}}, nil
	}
	return nil, l.node.Errorf("%s with rounding %q: only int8 and uint8 results are scaled so (§5.6.8)", l.y().Type, a.Str("rounding", ""))
}

// scales is the parameter table of REQUANT (§5.6.8) for the node's rounding.
func (l *lower) scales(multipliers, shifts []int, scales []float32) (at Place, rounding isa.Rounding, perChannel bool) {
	var b []byte
	switch l.node.Attrs.Str("rounding", "") {
	case "fp32":
		rounding = isa.FloatScale
		for _, s := range scales {
			b = append(append(b, floats(s)...), 0, 0, 0, 0)
		}
	default:
		if l.node.Attrs.Str("rounding", "") == "two" {
			rounding = isa.TwoRoundings
		}
		for i, m := range multipliers {
			b = append(append(b, encode(systolic.Int32, int64(m))...), byte(shifts[i]), 0, 0, 0)
		}
	}
	return l.constant(b), rounding, len(b) > isa.ParamSize
}

// bytes is the end of an operation: int32 in the accumulators become int8 or uint8 by REQUANT.
func (l *lower) bytes(f *finish, acc, out uint32, params uint32, m, n int) {
	rows(m, func(first, m int) {
		at := out + uint32(first*n)
		l.b.Emit(isa.Requant{
			PerChannel: f.perChannel, N: uint16(n), AccStride: uint16(4 * n), Acc: acc + uint32(4*first*n), Out: at, Params: params,
			MX: uint16(m), MY: 1, OutStrideX: uint16(n), ZeroPoint: f.zero, Lo: f.lo, Hi: f.hi, Rounding: f.rounding,
		})
	})
	if f.out == systolic.Uint8 {
		l.flip(out, m*n)
	}
}

// finishBytes fills in what REQUANT needs of a node whose result is int8 or uint8: of uint8
// it makes the int8 that stands for the same number (§6.5), of which flip makes the uint8.
func (l *lower) finishBytes(zero int64) finish {
	lo, hi := l.limits()
	f := finish{out: systolic.Int8}
	if l.y().Type == ir.Uint8 {
		f.out = systolic.Uint8
		zero, lo, hi = zero-128, lo-128, hi-128
		l.needHigh()
	}
	f.zero, f.lo, f.hi = int8(zero), int8(lo), int8(hi)
	return f
}

func (l *lower) requantize() (*body, error) {
	x, y, err := l.kinds()
	if err != nil {
		return nil, err
	}
	a, shape := l.node.Attrs, l.y().Shape
	zero := l.scalar(x, int64(a.Int("zero_x", 0)))
	if y != systolic.Int8 && y != systolic.Uint8 {
		st, err := l.scaled(shape)
		if err != nil {
			return nil, err
		}
		st = append([]stage{{op: isa.ElemSub, to: systolic.Int32, y: &zero, wrap: true}}, st...)
		return l.sequence(x, l.clamped(st, l.scalar(systolic.Int32, int64(a.Int("zero_y", 0))), y)), nil
	}
	f := l.finishBytes(int64(a.Int("zero_y", 0)))
	var at Place
	at, f.rounding, f.perChannel = l.scales(a.Ints("multipliers"), a.Ints("shifts"), a.Floats("scales"))
	in := l.operand(l.x(), shape)
	in.scalar = false
	if f.perChannel {
		return l.columns(f, at, in, zero)
	}
	params := l.local(isa.ParamSize)
	l.load(params, at, isa.ParamSize)
	return &body{in: []operand{in, zero}, accTemp: []int{4}, f: func(t tile) {
		l.vec(isa.ElemSub, x, systolic.Int32, t.in[0], &t.in[1], t.acc[0], t.n, true)
		dense(t.n, 4, func(first, m, n int) { l.bytes(&f, t.acc[0].at+uint32(4*first), t.out.at+uint32(first), params, m, n) })
	}}, nil
}

// columns is requantize with a scale for each index of the last axis: rows at a time.
func (l *lower) columns(f finish, at Place, in, zero operand) (*body, error) {
	shape := l.y().Shape
	n := shape[len(shape)-1]
	if 4*n > 1<<16-4 {
		return nil, l.node.Errorf("%d channels; REQUANT has rows of up to 16383 (§5.6.8)", n)
	}
	params := l.local(isa.ParamSize * n)
	l.load(params, at, isa.ParamSize*n)
	return &body{in: []operand{in, zero}, accTemp: []int{4}, rowwise: true, f: func(t tile) {
		l.vec(isa.ElemSub, in.t, systolic.Int32, t.in[0], &t.in[1], t.acc[0], t.n, true)
		l.bytes(&f, t.acc[0].at, t.out.at, params, t.n/n, n)
	}}, nil
}

func (l *lower) qmul() (*body, error) {
	x, y, err := l.kinds()
	if err != nil {
		return nil, err
	}
	if l.paired(x, y) {
		return l.pair(isa.AddqMul), nil
	}
	if y != systolic.Int8 && y != systolic.Uint8 {
		return nil, l.node.Errorf("products of %v are not scaled (§5.6.8) without ADDQ", l.y().Type).WithRemedy("compile for architecture 1.5 or later")
	}
	a, shape := l.node.Attrs, l.y().Shape
	z := a.Ints("zeros")
	f := l.finishBytes(int64(z[2]))
	var at Place
	at, f.rounding, _ = l.scales(a.Ints("multipliers"), a.Ints("shifts"), nil)
	params := l.local(isa.ParamSize)
	l.load(params, at, isa.ParamSize)
	ins := []operand{l.operand(l.x(), shape), l.operand(l.node.Inputs[1], shape), l.scalar(x, int64(z[0])), l.scalar(x, int64(z[1]))}
	ins[0].scalar, ins[1].scalar = false, false
	return &body{in: ins, accTemp: []int{4, 4}, f: func(t tile) {
		l.vec(isa.ElemSub, x, systolic.Int32, t.in[0], &t.in[2], t.acc[0], t.n, true)
		l.vec(isa.ElemSub, x, systolic.Int32, t.in[1], &t.in[3], t.acc[1], t.n, true)
		l.vec(isa.ElemMul, systolic.Int32, systolic.Int32, t.acc[0], &t.acc[1], t.acc[0], t.n, true)
		dense(t.n, 4, func(first, m, n int) { l.bytes(&f, t.acc[0].at+uint32(4*first), t.out.at+uint32(first), params, m, n) })
	}}, nil
}

func (l *lower) qadd() (*body, error) {
	x, y, err := l.kinds()
	if err != nil {
		return nil, err
	}
	a, shape := l.node.Attrs, l.y().Shape
	if l.paired(x, y) {
		if a.Int("sub", 0) != 0 {
			return l.pair(isa.AddqSub), nil
		}
		return l.pair(isa.AddqAdd), nil
	}
	if a.Str("rounding", "") == "fp32" {
		return nil, l.node.Errorf("the core has no ADDQ (§5.3), and nothing else adds so").WithRemedy("compile for architecture 1.5 or later")
	}
	z, mul, shift := a.Ints("zeros"), a.Ints("multipliers"), a.Ints("shifts")
	if y != systolic.Int8 && y != systolic.Uint8 {
		return nil, l.node.Errorf("sums of %v are not scaled (§5.6.8) without ADDQ", l.y().Type).WithRemedy("compile for architecture 1.5 or later")
	}
	if a.Str("rounding", "") == "one" && (shift[0] != 31 || shift[1] != 31) {
		return nil, l.node.Errorf("operands of a sum are scaled with two roundings (§6.9.2) only, without ADDQ").WithRemedy("compile for architecture 1.5 or later")
	}
	f := l.finishBytes(int64(z[2]))
	var at Place
	at, f.rounding, _ = l.scales(mul[2:], shift[2:], nil)
	params := l.local(isa.ParamSize)
	l.load(params, at, isa.ParamSize)
	const i = systolic.Int32
	ins := []operand{l.operand(l.x(), shape), l.operand(l.node.Inputs[1], shape)}
	ins[0].scalar, ins[1].scalar = false, false
	type arm struct{ zero, left, mul, right, sign int }
	var arms [2]arm
	add := func(o operand) int { ins = append(ins, o); return len(ins) - 1 }
	for k := range arms {
		r := &arms[k]
		r.zero = add(l.scalar(x, int64(z[k])))
		r.left = add(l.scalar(i, int64(a.Int("left_shift", 0)+max(31-shift[k], 0))))
		r.mul = add(l.scalar(i, int64(mul[k])))
		if shift[k] > 31 {
			r.right = add(l.scalar(i, int64(shift[k]-31)))
			r.sign = add(l.scalar(i, 31))
		}
	}
	op := isa.ElemAdd
	if a.Int("sub", 0) != 0 {
		op = isa.ElemSub
	}
	return &body{in: ins, accTemp: []int{4, 4, 4}, f: func(t tile) {
		step := func(op isa.ElementOp, x local, y *local, out local) { l.vec(op, i, i, x, y, out, t.n, true) }
		for k, r := range arms {
			v, s := t.acc[k], t.acc[2]
			l.vec(isa.ElemSub, x, i, t.in[k], &t.in[r.zero], v, t.n, true)
			step(isa.ElemShl, v, &t.in[r.left], v)
			step(isa.ElemMulHigh, v, &t.in[r.mul], v)
			if r.right > 0 {
				// divpow2 of §6.9.2 is a rounding shift of the number less 1 if it is below 0.
				step(isa.ElemShr, v, &t.in[r.sign], s)
				step(isa.ElemAddSat, v, &s, v)
				step(isa.ElemShrRound, v, &t.in[r.right], v)
			}
		}
		step(op, t.acc[0], &t.acc[1], t.acc[0])
		dense(t.n, 4, func(first, m, n int) { l.bytes(&f, t.acc[0].at+uint32(4*first), t.out.at+uint32(first), params, m, n) })
	}}, nil
}

// paired reports whether ADDQ (§5.6.33) computes the node.
func (l *lower) paired(x, y systolic.Type) bool {
	if l.b.Target().Features&isa.FeatureAddq == 0 || x != y || l.node.Inputs[1].Type != l.x().Type || l.x().Type != l.y().Type {
		return false
	}
	return x == systolic.Int8 || x == systolic.Uint8 || x == systolic.Int16
}

// pair is a sum, difference or product of two quantized tensors by ADDQ.
func (l *lower) pair(op isa.AddqOp) *body {
	a, shape := l.node.Attrs, l.y().Shape
	lo, hi := l.limits()
	z := a.Ints("zeros")
	s := isa.Scales{Left: uint8(a.Int("left_shift", 0)), XZero: int16(z[0]), YZero: int16(z[1]), Zero: int16(z[2]), Lo: int16(lo), Hi: int16(hi), XShift: 1, YShift: 1}
	m, shift := a.Ints("multipliers"), a.Ints("shifts")
	switch a.Str("rounding", "") {
	case "fp32":
		f := a.Floats("scales")
		s.Rounding, s.XShift, s.YShift = isa.FloatScale, 0, 0
		s.XScale, s.YScale, s.Scale = math.Float32bits(f[0]), math.Float32bits(f[1]), math.Float32bits(f[2])
	case "two":
		s.Rounding = isa.TwoRoundings
		fallthrough
	default:
		last := len(m) - 1
		s.Scale, s.SShift = uint32(m[last]), uint8(shift[last])
		if op != isa.AddqMul {
			s.XScale, s.YScale, s.XShift, s.YShift = uint32(m[0]), uint32(m[1]), uint8(shift[0]), uint8(shift[1])
		}
	}
	ins := []operand{l.operand(l.x(), shape), l.operand(l.node.Inputs[1], shape)}
	ins[0].scalar = false
	if l.x() == l.node.Inputs[1] {
		ins[1].scalar = false
	}
	t := ins[0].t
	return &body{in: ins, f: func(v tile) {
		l.b.Prepare(s)
		b := size(t)
		dense(v.n, b, func(first, m, n int) {
			q := isa.Addq{
				One: v.in[1].one, Op: op, Type: t, X: v.in[0].at + uint32(first*b), Y: v.in[1].at, Out: v.out.at + uint32(first*b),
				M: uint32(m), N: uint16(n), XStride: uint16(n * b), OutStride: uint16(n * b),
			}
			if !q.One {
				q.Y, q.YStride = q.Y+uint32(first*b), uint16(n*b)
			}
			l.b.Emit(q)
		})
	}}
}
