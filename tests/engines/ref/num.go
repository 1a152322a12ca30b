// SPDX-License-Identifier: Apache-2.0

package ref

import (
	"math"
	"strconv"
	"strings"
)

// Numbers of docs/spec/numerics.md. fp32 is Go's float32: each operation below is
// rounded once, because its result is converted. NaNs are made canonical where they
// are stored.

// fma is §6.7's: the product is exact in a float64, the sum is rounded to odd there,
// so the last rounding is the only one that counts.
func fma(a, b, c float32) float32 {
	p, x := float64(a)*float64(b), float64(c)
	s := p + x
	if math.IsNaN(s) || math.IsInf(s, 0) {
		return float32(s)
	}
	v := s - p
	lost := (p - (s - v)) + (x - v)
	if bits := math.Float64bits(s); lost != 0 && bits&1 == 0 {
		if (lost > 0) == (s > 0) {
			bits++
		} else {
			bits--
		}
		s = math.Float64frombits(bits)
	}
	return float32(s)
}

func nan32() float32 { return math.Float32frombits(0x7fc00000) }

func isNaN(x float32) bool { return x != x }

// smaller and larger are min and max of §6.7.
func smaller(x, y float32) float32 {
	switch {
	case isNaN(x) || isNaN(y):
		return nan32()
	case x == 0 && y == 0:
		return math.Float32frombits(math.Float32bits(x) | math.Float32bits(y))
	case x < y:
		return x
	}
	return y
}

func larger(x, y float32) float32 { return -smaller(-x, -y) }

// format is a floating-point type of §6.5.
type format struct {
	exponent, fraction, bias int
	infinite                 bool // it has infinities
}

var formats = map[byte]format{8: {8, 23, 127, true}, 9: {8, 7, 127, true}, 10: {5, 10, 15, true}, 11: {4, 3, 7, false}, 12: {5, 2, 15, true}}

// decode returns the value of bits in type t.
func decode(t byte, bits uint32) float32 {
	f := formats[t]
	e := int(bits>>f.fraction) & (1<<f.exponent - 1)
	m := float64(bits & (1<<f.fraction - 1))
	negative := bits>>(f.fraction+f.exponent)&1 != 0
	var x float64
	switch {
	case f.infinite && e == 1<<f.exponent-1 && m == 0:
		x = math.Inf(1)
	case f.infinite && e == 1<<f.exponent-1, !f.infinite && bits&0x7f == 0x7f:
		return nan32()
	case e == 0:
		x = math.Ldexp(m, 1-f.bias-f.fraction)
	default:
		x = math.Ldexp(1+math.Ldexp(m, -f.fraction), e-f.bias)
	}
	if negative {
		x = -x
	}
	return float32(x)
}

// encode is §6.6's step from fp32 to type t.
func encode(t byte, x float32, saturate bool) uint32 {
	f := formats[t]
	if t == 8 {
		if isNaN(x) {
			return 0x7fc00000
		}
		return math.Float32bits(x)
	}
	top := uint32(1<<f.exponent-1) << f.fraction // of infinity
	quiet := top | 1<<(f.fraction-1)
	if !f.infinite {
		quiet = 0x7f
	}
	if isNaN(x) {
		return quiet
	}
	sign := math.Float32bits(x) >> 31 << (f.fraction + f.exponent)
	largest := top - 1
	if !f.infinite {
		largest = 0x7e
	}
	a := math.Abs(float64(x))
	if !math.IsInf(a, 0) && a != 0 {
		_, e := math.Frexp(a)
		quantum := max(e-1, 1-f.bias) - f.fraction
		a = math.Ldexp(math.RoundToEven(math.Ldexp(a, -quantum)), quantum)
	}
	if a > float64(decode(t, largest)) {
		switch {
		case saturate && t >= 11:
			return sign | largest
		case !f.infinite:
			return quiet
		}
		return sign | top
	}
	if a == 0 {
		return sign
	}
	_, e := math.Frexp(a)
	if e-1 < 1-f.bias {
		return sign | uint32(math.Ldexp(a, f.bias-1+f.fraction))
	}
	return sign | uint32(e-1+f.bias)<<f.fraction | uint32(math.Ldexp(a, f.fraction-e+1))&(1<<f.fraction-1)
}

// toInt is §6.6's fp32 → int32.
func toInt(x float32) int32 {
	if isNaN(x) {
		return 0
	}
	return int32(min(max(math.RoundToEven(float64(x)), math.MinInt32), math.MaxInt32))
}

// narrow is §6.6's int32 → integer type t.
func narrow(t byte, x int32, saturate bool) uint32 {
	lo, hi := bounds(t)
	if saturate {
		x = int32(clamp(int64(x), lo, hi))
	}
	return uint32(x)
}

// value is an int32 or an fp32.
type value struct {
	float bool
	i     int32
	f     float32
}

// bits converts v to type t (§6.6).
func (v value) bits(t byte, saturate bool) uint32 {
	switch {
	case t >= 8 && v.float:
		return encode(t, v.f, saturate)
	case t >= 8:
		return encode(t, float32(v.i), saturate)
	case v.float:
		return narrow(t, toInt(v.f), saturate)
	}
	return narrow(t, v.i, saturate)
}

// Scaling (§6.3, §6.9). Everything fits in 64 bits but x·q + 2^(s−1), which does in
// 64 with a sign as well: |x·q| < 2⁶², 2^(s−1) ≤ 2⁶¹.

func onceRounded(x, q int32, s uint) int64 { return (int64(x)*int64(q) + 1<<(s-1)) >> s }

func mulHigh(a, b int32) int32 {
	return int32(min((int64(a)*int64(b)+1<<30)>>31, math.MaxInt32))
}

func divPow2(v int32, n uint) int32 {
	if n == 0 {
		return v
	}
	m := (max(int64(v), -int64(v)) + 1<<n/2) >> n
	if v < 0 {
		m = -m
	}
	return int32(m)
}

func twiceRounded(x, q int32, s uint) int32 {
	if s <= 31 {
		return mulHigh(int32(uint32(x)<<(31-s)), q)
	}
	return divPow2(mulHigh(x, q), s-31)
}

// tables are the coefficients of §6.12, by the heads of their columns.
type tables map[string][]float32

// readTables takes them from the page itself.
func readTables(page string) tables {
	t := tables{}
	var heads []string
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, "|") {
			heads = nil
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if cells[0] == "T" {
			heads = cells
			continue
		}
		for i := 1; i < min(len(heads), len(cells)); i++ {
			if v, err := strconv.ParseFloat(cells[i], 32); err == nil {
				t[heads[i]] = append(t[heads[i]], float32(v))
			}
		}
	}
	return t
}

const (
	log2E = 0x1.715476p+0
	ln2H  = 0x1.62e43p-1
	ln2L  = -0x1.05c61p-29
	c1H   = 0x1.988454p+0
	c1L   = -0x1.857936p-25
	c3H   = 0x1.2444f2p-4
	c3L   = 0x1.49b16ap-29
	sqrt2 = 0x1.6a09e6p+0
	magic = 0x1.8p+23
)

func (t tables) poly(name string, x float32) float32 {
	p := t[name][0]
	for _, c := range t[name][1:] {
		p = fma(p, x, c)
	}
	return p
}

func (t tables) e(h, l float32) (p, n float32) {
	h = smaller(larger(h, -128), 128)
	k := fma(h, log2E, magic) - magic
	r := fma(k, -ln2H, h)
	r = fma(k, -ln2L, r)
	r += l
	return t.poly("exp", r), k
}

func scale(y, n float32) float32 {
	half := math.Floor(float64(n) / 2)
	y = float32(y * float32(math.Ldexp(1, int(half))))
	return float32(y * float32(math.Ldexp(1, int(float64(n)-half))))
}

func (t tables) l(y, h, l float32) float32 {
	if h < 0 {
		p, n := t.e(h, l)
		return scale(float32(y*p)/float32(1+scale(p, n)), n)
	}
	return y / float32(1+scale(t.e(-h, -l)))
}

func (t tables) tail(x, h, l float32) (p, n float32) {
	w := 1 / float32(x+4)
	u := fma(-8, w, 1)
	p, n = t.e(h, l)
	return float32(p * float32(w*t.poly("tail", u))), n
}

func abs(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }

func sign(y, x float32) float32 {
	return math.Float32frombits(math.Float32bits(y)&^(1<<31) | math.Float32bits(x)&(1<<31))
}

// function is op 33 to 46 of ELEMENT (§5.6.18).
func (t tables) function(op byte, x float32) float32 {
	if isNaN(x) {
		return nan32()
	}
	switch op {
	case 33:
		return float32(math.Sqrt(float64(x)))
	case 34:
		return scale(t.e(x, 0))
	case 35:
		return t.log(x)
	case 36:
		a := smaller(abs(x), 10)
		var y float32
		if a < 0.625 {
			z := float32(a * a)
			y = fma(float32(t.poly("tanh", z)*z), a, a)
		} else {
			y = 1 - float32(2/float32(scale(t.e(float32(2*a), 0))+1))
		}
		return sign(y, x)
	case 37:
		return t.l(1, x, 0)
	case 38:
		return t.l(larger(x, -128), x, 0)
	case 39:
		return t.gelu(x)
	case 40:
		c := smaller(larger(x, -12), 12)
		s := float32(c * c)
		sl := fma(c, c, -s)
		p := float32(c3H * s)
		pl := fma(c3H, s, -p)
		v := float32(c1H + p)
		u := float32(v - c1H)
		vl := float32(float32(c1H-float32(v-u)) + float32(p-u))
		vl = float32(vl + fma(c3H, sl, pl))
		vl = float32(vl + fma(c3L, s, c1L))
		h := float32(c * v)
		l := fma(c, vl, fma(c, v, -h))
		return t.l(larger(x, -12), h, l)
	case 41:
		a := smaller(abs(x), 4)
		s := float32(a * a)
		sl := fma(a, a, -s)
		var y float32
		if a < 1 {
			y = fma(t.poly("erf", s), a, a)
		} else {
			y = fma(-2, scale(t.tail(float32(sqrt2*a), -s, -sl)), 1)
		}
		return sign(y, x)
	case 42:
		return 1 / x
	case 43:
		return 1 / float32(math.Sqrt(float64(x)))
	case 44:
		return hardSigmoid(x)
	case 45:
		return larger(x, -3) * hardSigmoid(x)
	}
	return smaller(larger(x, 0), 6)
}

func hardSigmoid(x float32) float32 { return smaller(larger(x+3, 0), 6) / 6 }

func (t tables) log(x float32) float32 {
	switch {
	case x == 0:
		return float32(math.Inf(-1))
	case x < 0:
		return nan32()
	case math.IsInf(float64(x), 1):
		return x
	}
	e0 := float64(0)
	if x < 0x1p-126 {
		x, e0 = x*0x1p23, -23
	}
	d := int32(math.Float32bits(x) - 0x3f3504f3)
	k := float32(e0 + math.Floor(float64(d)/(1<<23)))
	f := math.Float32frombits(uint32(d)%(1<<23)+0x3f3504f3) - 1
	y := float32(float32(t.poly("log", f)*float32(f*f)) * f)
	y = fma(k, ln2L, y)
	y = fma(float32(-0.5*f), f, y)
	return fma(k, ln2H, float32(f+y))
}

func (t tables) gelu(x float32) float32 {
	a := smaller(abs(x), 14.5)
	s := float32(a * a)
	sl := fma(a, a, -s)
	if a < 1 {
		return x * fma(t.poly("normal", s), x, 0.5)
	}
	p, n := t.tail(a, float32(-0.5*s), float32(-0.5*sl))
	if x < 0 {
		return scale(float32(-a*p), n)
	}
	return x * float32(1-scale(p, n))
}

// sum is §6.11's, of what step adds to each of 16 sums.
func sum(n int, step func(i int, s float32) float32) float32 {
	var s [16]float32
	for i := range n {
		s[i%16] = step(i, s[i%16])
	}
	for half := 8; half >= 1; half /= 2 {
		for j := range half {
			s[j] += s[j+half]
		}
	}
	return s[0]
}
