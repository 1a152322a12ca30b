// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"

	"github.com/mmcloughlin/avo/operand"
)

// The functions of docs/spec/numerics.md §6.12, for all elements of a register.
// What they give for NaN is replaced afterwards.

// Polynomials, the coefficient of the highest power first.
var (
	expTerms  = []float32{0x1.6ac85ap-10, 0x1.123decp-07, 0x1.555858p-05, 0x1.55548cp-03, 0x1.fffffcp-02, 1, 1}
	logTerms  = []float32{0x1.101c92p-04, -0x1.db4444p-04, 0x1.e72628p-04, -0x1.fca5aep-04, 0x1.233e32p-03, -0x1.555922p-03, 0x1.99a43ep-03, -0x1.00000ap-02, 0x1.555548p-02}
	tanhTerms = []float32{-0x1.750cbap-08, 0x1.51f8ccp-06, -0x1.b835a4p-05, 0x1.1106f6p-03, -0x1.555532p-02}
	erfTerms  = []float32{0x1.4771eap-14, -0x1.a3515cp-11, 0x1.53f224p-08, -0x1.b7f71ap-06, 0x1.ce2ce6p-04, -0x1.81273ep-02, 0x1.06eba8p-03}
	normTerms = []float32{-0x1.11db34p-17, 0x1.e25b6ep-14, -0x1.376e02p-10, 0x1.46d554p-07, -0x1.105862p-04, 0x1.988454p-02}
	tailTerms = []float32{
		-0x1.7bc28ep-13, -0x1.8f1186p-12, -0x1.765834p-13, 0x1.0c26aap-11, 0x1.bcf118p-10, -0x1.da4756p-09,
		-0x1.f0245ap-08, 0x1.eef340p-05, -0x1.7dfd3ap-03, 0x1.8c6d66p-02, -0x1.373e3ep-01, 0x1.82b4bcp-01,
	}
)

// Constants; those of which one fp32 is not enough are a sum of two.
const (
	log2E    = 0x1.715476p+00
	magic    = 0x1.8p+23
	ln2Hi    = 0x1.62e430p-01
	ln2Lo    = -0x1.05c610p-29
	sqrt2    = 0x1.6a09e6p+00
	geluC1Hi = 0x1.988454p+00
	geluC1Lo = -0x1.857936p-25
	geluC3Hi = 0x1.2444f2p-04
	geluC3Lo = 0x1.49b16ap-29
)

// poly is the polynomial of x with the coefficients c.
func poly(c []float32, x vec) vec {
	p := all(num(c[0]))
	for _, k := range c[1:] {
		emit("VFMADD213PS", num(k), x, p)
	}
	return p
}

// parts is E (§6.12.1); n is what scaled takes: a number, or with AVX2 an integer.
// l may be nil for 0, and h is known not to be above 128 with below.
func parts(h vec, l *vec, below bool) (p, n vec) {
	h = upper(h, num(-128))
	if !below {
		h = lower(h, num(128))
	}
	t := fma(h, all(num(log2E)), num(magic))
	k := sub(t, num(magic))
	r := fmaTo(fmaTo(h, k, num(-ln2Hi)), k, num(-ln2Lo))
	if l != nil {
		r = add(r, *l)
	}
	p = poly(expTerms, r)
	if w.wide {
		return p, k
	}
	return p, op("VPSUBD", t, num(magic))
}

// scaled is scale(y, n): AVX-512 has an instruction that rounds once.
func scaled(y, n vec) vec {
	if w.wide {
		return op("VSCALEFPS", y, n)
	}
	half := shift("VPSRAD", n, 1)
	power := func(n vec) vec { return op("VPADDD", shift("VPSLLD", n, 23), num(1)) }
	return mul(mul(y, power(half)), power(op("VPSUBD", n, half)))
}

func exp(x vec) vec { return scaled(parts(x, nil, false)) }

func logarithm(x vec) vec {
	small := compare(less, x, num(0x1p-126))
	b := pick(small, mul(x, num(0x1p23)), x)
	d := op("VPSUBD", b, bits(0x3f3504f3))
	e := op("VPADDD", shift("VPSRAD", d, 23), where(small, false, bits(^uint32(23)+1)))
	f := sub(op("VPADDD", and(d, bits(0x7fffff)), bits(0x3f3504f3)), num(1))
	k := op1("VCVTDQ2PS", e)
	y := mul(mul(poly(logTerms, f), mul(f, f)), f)
	y = fmaTo(y, k, num(ln2Lo))
	y = fmaTo(y, mul(f, num(-0.5)), f)
	y = fmaTo(add(f, y), k, num(ln2Hi))
	y = pick(compare(equal, x, num(float32(math.Inf(1)))), x, y)
	y = pick(compare(equal, x, bits(0)), num(float32(math.Inf(-1))), y)
	return pick(compare(notMoreEqual, x, bits(0)), bits(nan), y)
}

// withSign is y ≥ 0 with the sign of x.
func withSign(y, x vec) vec { return or(y, and(x, bits(sign))) }

func tanh(x vec) vec {
	a := lower(absolute(x), num(10))
	z := mul(a, a)
	small := fma(mul(poly(tanhTerms, z), z), a, a)
	e := exp(add(a, a))
	y := sub(all(num(1)), div(all(num(2)), add(e, num(1))))
	return withSign(pick(compare(less, a, num(0.625)), small, y), x)
}

// logistic is L (§6.12.5). E is the same function of −|h| and, with the sign of
// h turned likewise, of l on both ways.
func logistic(y, h vec, l *vec) vec {
	minus := or(h, bits(sign))
	if l != nil {
		turned := xor(*l, andNot(h, bits(sign)))
		l = &turned
	}
	p, n := parts(minus, l, true)
	below := compare(less, h, bits(0))
	q := div(pick(below, mul(y, p), y), add(scaled(p, n), num(1)))
	return pick(below, scaled(q, n), q)
}

func sigmoid(x vec) vec { return logistic(all(num(1)), x, nil) }
func silu(x vec) vec    { return logistic(upper(x, num(-128)), x, nil) }

func geluTanh(x vec) vec {
	c := lower(upper(x, num(-12)), num(12))
	s := mul(c, c)
	sl := fms(c, c, s)
	c3 := all(num(geluC3Hi))
	p := mul(c3, s)
	pl := fms(c3, s, p)
	c1 := all(num(geluC1Hi))
	v := add(c1, p)
	t := sub(v, c1)
	vl := add(sub(c1, sub(v, t)), sub(p, t))
	vl = add(vl, fma(c3, sl, pl))
	vl = add(vl, fma(all(num(geluC3Lo)), s, num(geluC1Lo)))
	h := mul(c, v)
	l := fma(c, vl, fms(c, v, h))
	return logistic(upper(x, num(-12)), h, &l)
}

// normalTail is T (§6.12.7).
func normalTail(t, h, l vec) (p, n vec) {
	q := div(all(num(1)), add(t, num(4)))
	u := fma(all(num(-8)), q, num(1))
	r := mul(q, poly(tailTerms, u))
	p, n = parts(h, &l, true)
	return mul(p, r), n
}

func gelu(x vec) vec {
	t := lower(absolute(x), num(14.5))
	s := mul(t, t)
	sl := fms(t, t, s)
	p, n := normalTail(t, mul(s, num(-0.5)), mul(sl, num(-0.5)))
	below := compare(less, x, bits(0))
	q := scaled(pick(below, mul(negate(t), p), p), n)
	y := pick(below, q, mul(x, sub(all(num(1)), q)))
	small := mul(x, fma(poly(normTerms, s), x, num(0.5)))
	return pick(compare(less, t, num(1)), small, y)
}

func erf(x vec) vec {
	a := lower(absolute(x), num(4))
	s := mul(a, a)
	sl := fms(a, a, s)
	p, n := normalTail(mul(a, num(sqrt2)), negate(s), negate(sl))
	y := fma(all(num(-2)), scaled(p, n), num(1))
	small := fma(poly(erfTerms, s), a, a)
	return withSign(pick(compare(less, a, num(1)), small, y), x)
}

func reciprocal(x vec) vec { return div(all(num(1)), x) }
func rsqrt(x vec) vec      { return canon(reciprocal(op1("VSQRTPS", x))) }

func hardSigmoid(x vec) vec {
	return div(lower(upper(add(x, num(3)), bits(0)), num(6)), all(num(6)))
}

func hardSwish(x vec) vec { return mul(upper(x, num(-3)), hardSigmoid(x)) }

// minMax is min or max of any numbers (§6.7): both orders of operands give the
// same unless one is NaN, or both are 0, of which join makes the right one.
func minMax(f string, join func(a, b operand.Op) vec) func(x, y vec) vec {
	return func(x, y vec) vec {
		return pick(compare(unordered, x, y), bits(nan), join(op(f, x, y), op(f, y, x)))
	}
}

// toInt is the conversion to int32: what is too large becomes −2³¹ at first.
func toInt(x vec) vec {
	v := op1("VCVTPS2DQ", x)
	v = pick(compare(notMoreEqual, x, num(1<<31)), v, all(bits(math.MaxInt32)))
	return pick(compare(unordered, x, x), bits(0), v)
}
