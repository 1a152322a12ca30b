// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"npuemu/compiler/ir"
	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// flip turns int8 into the uint8 that stand for the same numbers, in place (§6.5).
func (c *code) flip(at uint32, n int) {
	dense(n, 1, func(first, m, n int) {
		c.b.Emit(isa.Element{
			One: true, NoSaturate: true, Op: isa.ElemXor, Type: systolic.Uint8, OutType: systolic.Uint8, X: at + uint32(first), Y: c.high, Out: at + uint32(first),
			M: uint32(m), N: uint16(n), XStride: strideOf(m, n), OutStride: strideOf(m, n),
		})
	})
}

// needHigh loads the byte 0x80, which flip needs.
func (l *lower) needHigh() {
	l.high = l.local(1)
	l.b.Emit(isa.Fill{Value: 0x80, Local: l.high, NX: 1, NY: 1})
}

// finishing fills in what becomes of the accumulators of a product.
func (l *lower) finishing(p *product, channels int) error {
	a, y := l.node.Attrs, l.y()
	out, err := l.kind(y)
	if err != nil {
		return err
	}
	if bias := l.node.Input(2); bias != nil {
		at := l.place(bias)
		p.bias = &at
	}
	f := &p.finish
	f.out = out
	if p.a.Float() {
		if act := a.Str("act", ""); act != "" {
			f.steps = append(f.steps, step{op: elementOps[act]})
		}
		if c := a.Floats("clip"); c != nil {
			lo, hi := l.constant(floats(c[0])), l.constant(floats(c[1]))
			f.steps = append(f.steps, step{op: isa.ElemMax, y: &lo}, step{op: isa.ElemMin, y: &hi})
		}
		return nil
	}
	if a.Str("rounding", "") == "none" {
		return nil
	}
	if out != systolic.Int8 && out != systolic.Uint8 {
		return l.node.Errorf("an accumulator scaled to %v: REQUANT makes int8 and uint8 (§5.6.8)", y.Type).WithRemedy("requantize the int32 result")
	}
	*f = l.finishBytes(int64(a.Int("zero_y", 0)))
	var at Place
	at, f.rounding, f.perChannel = l.scales(a.Ints("multipliers"), a.Ints("shifts"), a.Floats("scales"))
	f.params = &at
	if f.perChannel && channels == 1 {
		f.perChannel = false
	}
	return nil
}

// weightZeros fills in the zero points of the weights.
func (l *lower) weightZeros(p *product, zeros []int) {
	same := true
	for _, z := range zeros {
		same = same && z == zeros[0]
	}
	switch {
	case len(zeros) > 0 && same:
		p.bZero = int16(zeros[0])
	case !same:
		at := l.constant(encodeAll(systolic.Int8, zeros))
		p.zeros = &at
	}
}

func (l *lower) conv() error {
	x, w, y, a := l.x(), l.node.Inputs[1], l.y(), l.node.Attrs
	strides, pads, dil := a.Ints("strides"), a.Ints("pads"), a.Ints("dilations")
	if dil == nil {
		dil = []int{1, 1}
	}
	p := &product{
		in: l.place(x), out: l.place(y), weights: l.place(w),
		n: x.Shape[0], h: x.Shape[1], w: x.Shape[2], cin: x.Shape[3], oh: y.Shape[1], ow: y.Shape[2], cout: y.Shape[3],
		kh: w.Shape[1], kw: w.Shape[2], sy: strides[0], sx: strides[1], dy: dil[0], dx: dil[1],
		groups: a.Int("groups", 1), top: pads[0], left: pads[1],
		a: deviceTypes[x.Type], b: deviceTypes[w.Type], aZero: int16(a.Int("zero_x", 0)), tail: l.tail,
	}
	for _, v := range []struct {
		name string
		n    int
		most int
	}{
		{"kernel", max(p.kh, p.kw), 255}, {"stride", max(p.sy, p.sx), 255}, {"dilation", max(p.dy, p.dx), 255}, {"groups", p.groups, 65535},
		{"padding", max(p.top, p.left), 65535}, {"image", max(p.h, p.w), 65535}, {"channels", max(p.cin, p.cout), 65535},
	} {
		if v.n > v.most {
			return l.node.Errorf("%s is %d; WINDOW and CONV hold up to %d (§5.6.10)", v.name, v.n, v.most)
		}
	}
	if p.b == systolic.Int4 && p.kh*p.kw*p.cin/p.groups%2 != 0 {
		return l.node.Errorf("a channel has an odd number of int4 weights, and its row begins in the middle of a byte").WithRemedy("use int8 weights")
	}
	if ir.Elements(y.Shape) == 0 {
		return nil
	}
	l.weightZeros(p, a.Ints("zeros_w"))
	if err := l.finishing(p, p.cout); err != nil {
		return err
	}
	return l.product(p)
}

// product emits p and gives its error the node.
func (l *lower) product(p *product) error {
	if err := p.emit(&l.code); err != nil {
		return l.node.Errorf("%v", err).WithRemedy("give the array more scratchpad or accumulators")
	}
	return nil
}

func (l *lower) gemm() error {
	x, w, y, a := l.x(), l.node.Inputs[1], l.y(), l.node.Attrs
	if a.Int("trans_a", 0) != 0 {
		return l.node.Errorf("the activations are transposed").WithRemedy("put a transpose before the node")
	}
	m, k, n := x.Shape[1], x.Shape[2], y.Shape[2]
	if ir.Elements(y.Shape) == 0 {
		return nil
	}
	if k == 0 {
		return l.node.Errorf("a sum of no products")
	}
	p := product{
		in: l.place(x), out: l.place(y), weights: l.place(w), n: 1, h: 1, w: m, cin: k, oh: 1, ow: m, cout: n,
		kh: 1, kw: 1, sy: 1, sx: 1, dy: 1, dx: 1, groups: 1, a: deviceTypes[x.Type], b: deviceTypes[w.Type],
		aZero: int16(a.Int("zero_a", 0)), flat: a.Int("trans_b", 0) == 0, tail: l.tail,
	}
	if cols := w.Shape[2]; p.b == systolic.Int4 && cols%2 != 0 {
		return l.node.Errorf("a row has an odd number of int4 weights, and the next begins in the middle of a byte").WithRemedy("use int8 weights")
	}
	l.weightZeros(&p, a.Ints("zeros_b"))
	if err := l.finishing(&p, n); err != nil {
		return err
	}
	// All batches are one product if they have the same weights.
	if w.Shape[0] == 1 {
		p.w *= x.Shape[0]
		p.ow = p.w
		return l.product(&p)
	}
	code := l.code
	for g := range w.Shape[0] {
		q := p
		q.first = g * m
		if x.Shape[0] > 1 {
			q.in = p.in.plus(g * m * k * size(p.a))
		}
		q.weights, q.out = p.weights.plus(g*int(p.b.Bytes(uint64(k*n)))), p.out.plus(g*m*n*size(p.finish.out))
		l.code = code
		if err := l.product(&q); err != nil {
			return err
		}
	}
	return nil
}
