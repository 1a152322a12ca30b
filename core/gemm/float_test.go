// SPDX-License-Identifier: Apache-2.0

package gemm

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// fma against arithmetic with as many bits as it takes.
func TestFMA(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	exact := func(a, b, c float32) float32 {
		p := new(big.Float).SetPrec(1000).SetFloat64(float64(a) * float64(b)) // exact
		p.Add(p, big.NewFloat(float64(c)))
		f, _ := p.Float32()
		return f
	}
	check := func(a, b, c float32) {
		got, want := fma(a, b, c), exact(a, b, c)
		if want == 0 { // big.Float has no rule for the sign of 0 that is IEEE's
			want = float32(float64(a)*float64(b) + float64(c))
			if got != 0 {
				want = 0
			}
		}
		if math.Float32bits(got) != math.Float32bits(want) && !(got == 0 && want == 0) {
			t.Fatalf("fma(%x, %x, %x) = %x, want %x", a, b, c, got, want)
		}
	}
	draw := func() float32 {
		for {
			f := math.Float32frombits(rng.Uint32())
			if rng.IntN(2) == 0 { // few bits: ties
				f = math.Float32frombits(rng.Uint32() & 0xfff0_0001)
			}
			if !math.IsNaN(float64(f)) && !math.IsInf(float64(f), 0) {
				return f
			}
		}
	}
	n := 500_000
	if testing.Short() {
		n = 50_000
	}
	for range n {
		a, b := draw(), draw()
		check(a, b, draw())
		// An addend near the product, and one near half a unit of its last place.
		p := float32(a * b)
		if !math.IsInf(float64(p), 0) {
			check(a, b, -p)
			check(a, b, p*float32(math.Ldexp(1, rng.IntN(60)-30)))
		}
	}
	for _, v := range [][4]float32{
		{1, 1 + 0x1p-23, 0x1p-24, 1 + 0x1p-22},                           // a tie, to even
		{1 + 0x1p-23, 1 + 0x1p-23, 0x1p-24, 1 + 0x1p-22 + 0x1p-23},       // just above a tie
		{math.MaxFloat32, 2, -math.MaxFloat32, math.MaxFloat32},          // the product alone would overflow
		{math.MaxFloat32, math.MaxFloat32, 1, float32(math.Inf(1))},      // it does
		{float32(math.Copysign(0, -1)), 1, 0, 0},                         // −0 + +0 = +0
		{0x1p-75, 0x1p-75, 0, 0x1p-149 * 0},                              // half a unit of the least: to even
		{0x1.8p-75, 0x1p-75, 0, 0x1p-149},                                // more than half
		{0x1p-75, 0x1p-75, 0x1p-149, 0x1p-148},                           // a tie between subnormals, to even
		{0x1.000002p-12, 0x1.000002p-13, 1, 1 + 0x1p-23*0 + 0},           // far below a unit
		{0x1.000002p-12, 0x1.000002p-12, 1 + 0x1p-23*3, 1 + 0x1p-23*4.0}, // above a tie by the last bit of the product
	} {
		if got := fma(v[0], v[1], v[2]); math.Float32bits(got) != math.Float32bits(v[3]) {
			t.Errorf("fma(%x, %x, %x) = %x, want %x", v[0], v[1], v[2], got, v[3])
		}
	}
}

// Every value of the narrow types, from their definition: ±2^(e−bias)·(1 + f/2^bits).
func TestWiden(t *testing.T) {
	type format struct {
		t         Type
		exp, frac int
		noInf     bool
	}
	for _, f := range []format{{t: Float16, exp: 5, frac: 10}, {t: BFloat16, exp: 8, frac: 7}, {t: E4M3, exp: 4, frac: 3, noInf: true}, {t: E5M2, exp: 5, frac: 2}} {
		bits := 1 + f.exp + f.frac
		bias := 1<<(f.exp-1) - 1
		top := 1<<f.exp - 1
		var src []byte
		var want []float64
		for v := range 1 << bits {
			e, m := v>>f.frac&top, v&(1<<f.frac-1)
			x := float64(m) / float64(int(1)<<f.frac)
			switch {
			case e == top && f.noInf && m == 1<<f.frac-1, e == top && !f.noInf && m != 0:
				x = math.NaN()
			case e == top && !f.noInf:
				x = math.Inf(1)
			case e == 0:
				x = math.Ldexp(x, 1-bias)
			default:
				x = math.Ldexp(1+x, e-bias)
			}
			if v>>(bits-1) != 0 {
				x = math.Copysign(x, -1)
			}
			src = append(src, []byte{byte(v), byte(v >> 8)}[:f.t.Size()]...)
			want = append(want, x)
		}
		for _, tier := range tiers() {
			for _, n := range []int{len(want), 1, 15, 16, 17} {
				from := len(want) - n
				g, dst := guard(n, float32(-77))
				tier.float.widen(dst, &src[from*f.t.Size()], f.t)
				if !g.intact() {
					t.Errorf("%s: type %d: wrote around %d elements", tier.name, f.t, n)
				}
				for i, got := range dst {
					if x := want[from+i]; math.Float32bits(got) != math.Float32bits(float32(x)) && !(got != got && x != x) {
						t.Fatalf("%s: type %d, %#x is %x, want %x", tier.name, f.t, from+i, got, x)
					}
				}
			}
		}
	}
}
