// SPDX-License-Identifier: Apache-2.0

package num

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// fmaExact is a·b + c of finite operands by unbounded arithmetic.
func fmaExact(a, b, c float32) float32 {
	const prec = 1200 // from 2^256 down to 2^−298, and more
	p := new(big.Float).SetPrec(prec).SetFloat64(float64(a))
	p.Mul(p, new(big.Float).SetPrec(prec).SetFloat64(float64(b)))
	s := new(big.Float).SetPrec(prec).Add(p, new(big.Float).SetPrec(prec).SetFloat64(float64(c)))
	if s.Sign() == 0 {
		// big.Float follows IEEE 754 in the sign of a sum that is 0.
		if s.Signbit() {
			return float32(math.Copysign(0, -1))
		}
		return 0
	}
	y, _ := s.Float32()
	return y
}

// operands are those of which every combination is tried.
var operands = func() []float32 {
	var list []float32
	for _, b := range []uint32{
		0, 1, 2, 0x007fffff, 0x00800000, 0x00800001, 0x0c000000, 0x20000001, 0x33800000, 0x33800001, 0x34000000,
		0x3effffff, 0x3f000000, 0x3f7fffff, 0x3f800000, 0x3f800001, 0x3f800003, 0x3fffffff, 0x40400000, 0x4b000001,
		0x4b7fffff, 0x5f000001, 0x7e800000, 0x7f000001, 0x7f7ffffe, 0x7f7fffff,
	} {
		list = append(list, math.Float32frombits(b), math.Float32frombits(b|1<<31))
	}
	return list
}()

func checkFMA(t *testing.T, a, b, c float32) {
	t.Helper()
	got, want := math.Float32bits(FMA32(a, b, c)), math.Float32bits(fmaExact(a, b, c))
	if got != want {
		t.Fatalf("%x · %x + %x = %#x, want %#x", a, b, c, got, want)
	}
}

func TestFMA32(t *testing.T) {
	for _, a := range operands {
		for _, b := range operands {
			for _, c := range operands {
				checkFMA(t, a, b, c)
			}
			// Sums that nearly cancel, and sums one part of which is far below the other's last bit.
			p := float32(a * b)
			for _, c := range []float32{-p, math.Nextafter32(-p, 0), p * 0x1p24, p * 0x1p25, -p * 0x1p25, p * 0x1p-24} {
				if !math.IsInf(float64(c), 0) {
					checkFMA(t, a, b, c)
				}
			}
		}
	}
	rng := rand.New(rand.NewPCG(6, 7))
	for range 50_000 {
		a, b := finite(rng.Uint32()), finite(rng.Uint32())
		c := finite(rng.Uint32())
		if rng.IntN(2) == 0 { // of the size of the product, so that digits meet
			p := float64(a) * float64(b) * math.Ldexp(1+rng.Float64(), rng.IntN(60)-30)
			if c = float32(p); math.IsInf(float64(c), 0) {
				continue
			}
		}
		checkFMA(t, a, b, c)
	}
}

// finite is the fp32 with encoding b, or another one where that is no number.
func finite(b uint32) float32 {
	if b&0x7f800000 == 0x7f800000 {
		b ^= 0x40000000
	}
	return math.Float32frombits(b)
}

// A product that rounds to fp32 first, or a sum that rounds to fp64 first, gives
// another result here.
func TestFMA32Once(t *testing.T) {
	for _, tt := range []struct {
		name          string
		a, b, c, want float32
	}{
		{"product not rounded", 0x1.000002p0, 0x1.000002p0, -0x1.000004p0, 0x1p-46},
		{"sum not rounded to fp64", 0x1.000002p0, 0x1.fffffep0, 0x1p60, 0x1p60},
		{"double rounding up", 0x1p-60, 0x1p-60, 0x1.000001p0 - 0x1p-24, 1},
		{"a tie that is none, above", 0x1p-40, 0x1p-40, 0x1.000002p0, 0x1.000002p0},
		{"a tie of fp32 and a little more", 0x1.000002p-12, 0x1p-12, 1, 0x1.000002p0},
		{"a tie of fp32 and very little more", 0x1.8p-12, 0x1.555556p-13, 1, 0x1.000002p0},
		{"subnormal result", 0x1p-100, 0x1p-49, 0, 0x1p-149},
		{"half the smallest", 0x1p-100, 0x1p-50, 0, 0},
		{"half the smallest, and a little more", 0x1.000002p-100, 0x1p-50, 0, 0x1p-149},
		{"largest product", math.MaxFloat32, math.MaxFloat32, -math.MaxFloat32, float32(math.Inf(1))},
	} {
		if got := FMA32(tt.a, tt.b, tt.c); got != tt.want {
			t.Errorf("%s: %x, want %x", tt.name, got, tt.want)
		}
		checkFMA(t, tt.a, tt.b, tt.c)
	}
}

func TestSpecial(t *testing.T) {
	inf, zero, nz := float32(math.Inf(1)), float32(0), float32(math.Copysign(0, -1))
	signalling := math.Float32frombits(0xffa00001)
	const infBits, nzBits = 0x7f800000, 1 << 31
	for _, tt := range []struct {
		name string
		got  float32
		want uint32
	}{
		{"0·∞", FMA32(0, inf, 1), NaN},
		{"∞ − ∞", FMA32(inf, 1, -inf), NaN},
		{"∞ + 1", FMA32(inf, 1, 1), infBits},
		{"1 + −∞", FMA32(1, 1, -inf), infBits | 1<<31},
		{"NaN is canonical", FMA32(signalling, 1, 1), NaN},
		{"NaN accumulator", FMA32(0, 1, signalling), NaN},
		{"−0 + 0", FMA32(nz, 1, 0), 0},
		{"−0 − 0", FMA32(nz, 1, nz), nzBits},
		{"x − x", FMA32(3, 5, -15), 0},
		{"add NaN", Add32(signalling, 1), NaN},
		{"∞ − ∞ by sub", Sub32(inf, inf), NaN},
		{"0·∞ by mul", Mul32(zero, inf), NaN},
		{"0/0", Div32(zero, zero), NaN},
		{"1/−0", Div32(1, nz), infBits | 1<<31},
		{"√−1", Sqrt32(-1), NaN},
		{"√−0", Sqrt32(nz), nzBits},
		{"subnormals stay", Add32(0x1p-149, 0x1p-149), 2},
		{"min NaN", Min32(1, signalling), NaN},
		{"max NaN", Max32(signalling, 1), NaN},
		{"min zeros", Min32(zero, nz), nzBits},
		{"min zeros, swapped", Min32(nz, zero), nzBits},
		{"max zeros", Max32(nz, zero), 0},
		{"max ∞", Max32(inf, 1), infBits},
		{"canonical", Canon(signalling), NaN},
		{"canonical −0", Canon(nz), nzBits},
	} {
		if got := math.Float32bits(tt.got); got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, got, tt.want)
		}
	}
}

func FuzzFMA32(f *testing.F) {
	f.Add(uint32(0x3f800001), uint32(0x3f800001), uint32(0xbf800002))
	f.Add(uint32(1), uint32(0x7f7fffff), uint32(0x007fffff))
	f.Fuzz(func(t *testing.T, a, b, c uint32) {
		checkFMA(t, finite(a), finite(b), finite(c))
	})
}
