// SPDX-License-Identifier: Apache-2.0

package num

import (
	"math"
	"math/big"
	"testing"
)

// The rows of the first table of §6.9.6.
func TestRoundings(t *testing.T) {
	for _, tt := range []struct {
		x     int32
		s     Scale
		once  int64
		twice int32
	}{
		{5, Scale{1 << 30, 31}, 3, 3},
		{-5, Scale{1 << 30, 31}, -2, -2},
		{-10, Scale{1 << 30, 32}, -2, -3},
		{3, Scale{1 << 30, 32}, 1, 1},
		{1, Scale{1 << 30, 32}, 0, 1},
		{-3, Scale{1 << 30, 32}, -1, -1},
		{1_500_000_000, Scale{1 << 30, 29}, 3_000_000_000, 852_516_352},
	} {
		if got := tt.s.Multiply(tt.x); got != tt.once {
			t.Errorf("%d · %+v, once: %d, want %d", tt.x, tt.s, got, tt.once)
		}
		if got := tt.s.MultiplyTwice(tt.x); got != tt.twice {
			t.Errorf("%d · %+v, twice: %d, want %d", tt.x, tt.s, got, tt.twice)
		}
	}
}

// The rows of the second, and others.
func TestPlaced(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, tt := range []struct {
		name      string
		got, want int32
	}{
		{"5 · 0.5", Place(int64(MultiplyFloat(5, 0.5)), 0, -128, 127), 2},
		{"7 · 0.5", Place(int64(MultiplyFloat(7, 0.5)), 0, -128, 127), 4},
		{"16777217 · 2^-20 + 1", Place(int64(MultiplyFloat(16777217, 0x1p-20)), 1, -128, 127), 17},
		{"16777217 · 1", MultiplyFloat(16777217, 1), 16777216},
		{"a product too large", MultiplyFloat(math.MinInt32, 1e30), math.MinInt32},
		{"0.25 / 0.1", Quantize(0.25, 0.1, 0, -128, 127), 2},
		{"−∞ / 0.1 + 5", Quantize(-inf, 0.1, 5, -128, 127), -128},
		{"NaN", Quantize(nan, 0.1, 5, -128, 127), 5},
		{"a quotient too large", Quantize(1, 0x1p-149, 100, math.MinInt32, math.MaxInt32), math.MaxInt32},
		{"zero point beyond int32", Place(math.MaxInt32, 1, math.MinInt32, math.MaxInt32), math.MaxInt32},
		{"clamp", Place(9, 0, -8, 7), 7},
		{"average, tie", Average(-7, 2), -4},
		{"average", Average(7, 3), 2},
		{"average of extremes", Average(math.MinInt32, math.MaxInt32), -1},
		{"average, one", Average(math.MinInt32, 1), math.MinInt32},
		{"MulAcc", MulAcc(7, -128, -128, 127, 127), 7 + 255*255},
		{"MulAcc wraps", MulAcc(math.MaxInt32, 1, 1, 0, 0), math.MinInt32},
		{"mulhigh of the lowest", MulHigh(math.MinInt32, math.MinInt32), math.MaxInt32},
		{"divpow2, nothing", DivPow2(math.MinInt32, 0), math.MinInt32},
		{"divpow2 31", DivPow2(math.MinInt32, 31), -1},
		{"divpow2 tie", DivPow2(-3, 1), -2},
		{"saturating +", AddSat(math.MaxInt32, 1), math.MaxInt32},
		{"saturating + below", AddSat(math.MinInt32, -1), math.MinInt32},
		{"saturating −", SubSat(math.MinInt32, 1), math.MinInt32},
		{"saturating − above", SubSat(0, math.MinInt32), math.MaxInt32},
		{"shift left", ShiftLeft(-3, 31), math.MinInt32},
		{"shift left 32", ShiftLeft(-3, 32), 0},
		{"shift right", ShiftRight(-3, 1), -2},
		{"shift right 32", ShiftRight(-3, 32), -1},
		{"logical", ShiftRightLogical(-1, 31), 1},
		{"logical 32", ShiftRightLogical(-1, 32), 0},
		{"rounding", ShiftRightRound(-3, 1), -1},
		{"rounding, up", ShiftRightRound(3, 1), 2},
		{"rounding, none", ShiftRightRound(math.MinInt32, 0), math.MinInt32},
		{"rounding 31", ShiftRightRound(math.MaxInt32, 31), 1},
		{"rounding 32", ShiftRightRound(math.MinInt32, 32), 0},
		{"rounding 32, largest", ShiftRightRound(math.MaxInt32, 32), 0},
		{"rounding far", ShiftRightRound(math.MinInt32, math.MaxUint32), 0},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, tt.got, tt.want)
		}
	}
	if got := Dequantize(-128, 127, 0.5); got != -127.5 {
		t.Errorf("Dequantize: %g, want -127.5", got)
	}
	if got := Dequantize(math.MinInt32, 1, 1); got != 0x1p31 {
		t.Errorf("Dequantize does not wrap: %g", got)
	}
}

// mulHighTFLite is §6.9.2's mulhigh in the other way to put it: add half with
// the sign of the product, less one below zero, and drop the fraction.
func mulHighTFLite(a, b int32) int32 {
	if a == b && a == math.MinInt32 {
		return math.MaxInt32
	}
	p, half := int64(a)*int64(b), int64(1<<30)
	if p < 0 {
		half = 1 - half
	}
	return int32((p + half) / (1 << 31))
}

// divPow2TFLite looks at what a shift drops.
func divPow2TFLite(x int32, n uint8) int32 {
	mask := int32(int64(1)<<n - 1)
	dropped, limit := x&mask, mask>>1
	if x < 0 {
		limit++
	}
	if x >>= n; dropped > limit {
		x++
	}
	return x
}

func FuzzMultiplyTwice(f *testing.F) {
	f.Add(int32(math.MinInt32), int32(math.MinInt32), uint8(31))
	f.Add(int32(-10), int32(1<<30), uint8(32))
	f.Add(int32(1), int32(1<<30), uint8(62))
	f.Fuzz(func(t *testing.T, a, b int32, n uint8) {
		if got, want := MulHigh(a, b), mulHighTFLite(a, b); got != want {
			t.Errorf("MulHigh(%d, %d) = %d, want %d", a, b, got, want)
		}
		if got, want := DivPow2(a, n%32), divPow2TFLite(a, n%32); got != want {
			t.Errorf("DivPow2(%d, %d) = %d, want %d", a, n%32, got, want)
		}
		s := Scale{b & math.MaxInt32, n%MaxShift + 1}
		left, right := max(31-int(s.Shift), 0), max(int(s.Shift)-31, 0)
		want := divPow2TFLite(mulHighTFLite(a*int32(1<<left), s.Multiplier), uint8(right))
		if got := s.MultiplyTwice(a); got != want {
			t.Errorf("%+v.MultiplyTwice(%d) = %d, want %d", s, a, got, want)
		}
		// The two roundings differ by one at most where nothing wraps or saturates.
		if once := s.Multiply(a); left == 0 && (once-int64(want) > 1 || int64(want)-once > 1) {
			t.Errorf("%d · %+v: once %d, twice %d", a, s, once, want)
		}
	})
}

// mulExact is x·y rounded to fp32 by unbounded arithmetic.
func mulExact(x, y float32) float32 {
	p := new(big.Float).SetPrec(200).SetFloat64(float64(x))
	z, _ := p.Mul(p, new(big.Float).SetFloat64(float64(y))).Float32()
	return z
}

func FuzzMultiplyFloat(f *testing.F) {
	f.Add(int32(16777217), uint32(0x3f800000))
	f.Add(int32(5), uint32(0x3f000000))
	f.Fuzz(func(t *testing.T, x int32, b uint32) {
		scale := abs(finite(b))
		p := mulExact(FromInt32(x), scale)
		// Twice the product tells what is left of a half.
		r := math.Floor(float64(p))
		if d := float64(p) - r; d > 0.5 || d == 0.5 && math.Mod(r, 2) != 0 {
			r++
		}
		want := int32(math.MinInt32)
		if r >= math.MaxInt32 {
			want = math.MaxInt32
		} else if r > math.MinInt32 {
			want = int32(r)
		}
		if got := MultiplyFloat(x, scale); got != want {
			t.Errorf("MultiplyFloat(%d, %x) = %d, want %d", x, scale, got, want)
		}
	})
}

func TestTable(t *testing.T) {
	in, out := Quant{0.05, 3}, Quant{1.0 / 256, -128}
	table := Table(Sigmoid, in, out)
	for i, got := range table {
		x := float64(in.Scale) * float64(int32(int8(i))-in.Zero)
		want := math.RoundToEven(sigmoid(x)*256) - 128
		if float64(got) != min(want, 127) {
			t.Errorf("entry %d: %d, want %g", i, got, want)
		}
	}
}
