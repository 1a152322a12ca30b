// SPDX-License-Identifier: Apache-2.0

package num

import "math"

// The functions of §6.12, step by step as they stand there.

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
	toInt    = 0x1.8p+23 // adding it rounds to an integer
	ln2Hi    = 0x1.62e430p-01
	ln2Lo    = -0x1.05c610p-29
	sqrt2    = 0x1.6a09e6p+00
	geluC1Hi = 0x1.988454p+00 // 2·√(2/π)
	geluC1Lo = -0x1.857936p-25
	geluC3Hi = 0x1.2444f2p-04 // 2·√(2/π) · 0.044715
	geluC3Lo = 0x1.49b16ap-29
)

// horner is the polynomial of x with coefficients c, by fused multiply-adds.
func horner(c []float32, x float32) float32 {
	p := c[0]
	for _, k := range c[1:] {
		p = FMA32(p, x, k)
	}
	return p
}

// expParts is E of §6.12.1: e^(h + l) is p · 2^n. |l| is far below 1; no argument is NaN.
func expParts(h, l float32) (p float32, n int) {
	h = min(max(h, -128), 128)
	k := Sub32(FMA32(h, log2E, toInt), toInt)
	r := FMA32(k, -ln2Hi, h)
	r = FMA32(k, -ln2Lo, r)
	return horner(expTerms, Add32(r, l)), int(k)
}

// scale is y · 2^n with one rounding (§6.12.1).
func scale(y float32, n int) float32 {
	half := n >> 1 // toward −∞
	return Mul32(Mul32(y, exp2(half)), exp2(n-half))
}

// exp2 is 2^n for a normal result, −126 ≤ n ≤ 127.
func exp2(n int) float32 { return math.Float32frombits(uint32(n+127) << 23) }

func isNaN(x float32) bool { return x != x }

func abs(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }

// withSign is y ≥ 0 with the sign of x.
func withSign(y, x float32) float32 {
	return math.Float32frombits(math.Float32bits(y) | math.Float32bits(x)&(1<<31))
}

// Exp is e^x (§6.12.2).
func Exp(x float32) float32 {
	if isNaN(x) {
		return Canon(x)
	}
	return scale(expParts(x, 0))
}

// Log is the natural logarithm (§6.12.3).
func Log(x float32) float32 {
	switch {
	case isNaN(x) || x < 0:
		return math.Float32frombits(NaN)
	case x == 0:
		return float32(math.Inf(-1))
	case math.IsInf(float64(x), 1):
		return x
	}
	e := int32(0)
	if x < 0x1p-126 {
		x, e = Mul32(x, 0x1p23), -23
	}
	const sqrtHalf = 0x3f3504f3
	b := math.Float32bits(x) - sqrtHalf
	e += int32(b) >> 23
	f := Sub32(math.Float32frombits(b&0x7fffff+sqrtHalf), 1)
	k := FromInt32(e)
	y := Mul32(Mul32(horner(logTerms, f), Mul32(f, f)), f)
	y = FMA32(k, ln2Lo, y)
	y = FMA32(Mul32(f, -0.5), f, y)
	return FMA32(k, ln2Hi, Add32(f, y))
}

// Tanh is the hyperbolic tangent (§6.12.4).
func Tanh(x float32) float32 {
	if isNaN(x) {
		return Canon(x)
	}
	a := min(abs(x), 10)
	if a < 0.625 {
		z := Mul32(a, a)
		return withSign(FMA32(Mul32(horner(tanhTerms, z), z), a, a), x)
	}
	e := scale(expParts(Mul32(2, a), 0))
	return withSign(Sub32(1, Div32(2, Add32(e, 1))), x)
}

// logistic is x · 1 / (1 + e^−(h+l)) for h with the sign of x, its first
// factor being 1 where weigh is false (§6.12.5).
func logistic(y, h, l float32) float32 {
	if h < 0 {
		p, n := expParts(h, l)
		return scale(Div32(Mul32(y, p), Add32(1, scale(p, n))), n)
	}
	return Div32(y, Add32(1, scale(expParts(-h, -l))))
}

// Sigmoid is 1 / (1 + e^−x) (§6.12.5).
func Sigmoid(x float32) float32 {
	if isNaN(x) {
		return Canon(x)
	}
	return logistic(1, x, 0)
}

// SiLU is x / (1 + e^−x) (§6.12.5).
func SiLU(x float32) float32 {
	if isNaN(x) {
		return Canon(x)
	}
	return logistic(max(x, -128), x, 0)
}

// GELUTanh is x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))) (§6.12.6).
func GELUTanh(x float32) float32 {
	if isNaN(x) {
		return Canon(x)
	}
	c := min(max(x, -12), 12)
	s := Mul32(c, c)
	sl := FMA32(c, c, -s)
	p := Mul32(geluC3Hi, s)
	pl := FMA32(geluC3Hi, s, -p)
	v := Add32(geluC1Hi, p)
	t := Sub32(v, geluC1Hi)
	vl := Add32(Sub32(geluC1Hi, Sub32(v, t)), Sub32(p, t))
	vl = Add32(vl, FMA32(geluC3Hi, sl, pl))
	vl = Add32(vl, FMA32(geluC3Lo, s, geluC1Lo))
	h := Mul32(c, v)
	l := FMA32(c, vl, FMA32(c, v, -h))
	return logistic(max(x, -12), h, l)
}

// tail is T of §6.12.7: e^(h + l) · R(t) is p · 2^n; R(t) · e^(−t²/2) is the
// probability that a normal variable is above t.
func tail(t, h, l float32) (p float32, n int) {
	w := Div32(1, Add32(t, 4))
	u := FMA32(-8, w, 1)
	p, n = expParts(h, l)
	return Mul32(p, Mul32(w, horner(tailTerms, u))), n
}

// GELU is x · Φ(x), Φ being the normal distribution (§6.12.7).
func GELU(x float32) float32 {
	if isNaN(x) {
		return Canon(x)
	}
	t := min(abs(x), 14.5)
	s := Mul32(t, t)
	if t < 1 {
		return Mul32(x, FMA32(horner(normTerms, s), x, 0.5))
	}
	sl := FMA32(t, t, -s)
	p, n := tail(t, Mul32(s, -0.5), Mul32(sl, -0.5))
	if x < 0 {
		return scale(Mul32(-t, p), n)
	}
	return Mul32(x, Sub32(1, scale(p, n)))
}

// Erf is the error function (§6.12.8).
func Erf(x float32) float32 {
	if isNaN(x) {
		return Canon(x)
	}
	a := min(abs(x), 4)
	s := Mul32(a, a)
	if a < 1 {
		return withSign(FMA32(horner(erfTerms, s), a, a), x)
	}
	sl := FMA32(a, a, -s)
	p, n := tail(Mul32(sqrt2, a), -s, -sl)
	return withSign(FMA32(-2, scale(p, n), 1), x)
}

// Reciprocal is 1 / x (§6.12.9).
func Reciprocal(x float32) float32 { return Div32(1, x) }

// Rsqrt is 1 / √x (§6.12.9).
func Rsqrt(x float32) float32 { return Div32(1, Sqrt32(x)) }

// HardSigmoid is min(max(x + 3, 0), 6) / 6 (§6.12.10).
func HardSigmoid(x float32) float32 {
	return Div32(Min32(Max32(Add32(x, 3), 0), 6), 6)
}

// HardSwish is x · HardSigmoid(x) (§6.12.10).
func HardSwish(x float32) float32 { return Mul32(Max32(x, -3), HardSigmoid(x)) }
