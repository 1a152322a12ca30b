// SPDX-License-Identifier: Apache-2.0

package num

import (
	"math"
	"math/big"
	"testing"
)

// The first six rows are the table of §6.3.
var requantizeRows = []struct {
	name         string
	x, q         int32
	s            uint8
	zero, lo, hi int8
	want         int8
}{
	{"2.5 rounds up", 5, 1, 1, 0, -128, 127, 3},
	{"-2.5 rounds up", -5, 1, 1, 0, -128, 127, -2},
	{"-1.5 rounds up", -6, 1, 2, 0, -128, 127, -1},
	{"saturates", 1000, 1 << 30, 30, 0, -128, 127, 127},
	{"largest magnitudes", math.MinInt32, math.MaxInt32, 62, 0, -128, 127, -1},
	{"ReLU", -7, 1, 1, 0, 0, 127, 0},
	{"saturates below", -1000, 1 << 30, 30, 0, -128, 127, -128},
	{"zero point after rounding", 5, 1, 1, 10, -128, 127, 13},
	{"clamp after zero point", 100, 1, 1, 100, -128, 120, 120},
	{"far below, lowest zero point", math.MinInt32, math.MaxInt32, 1, -128, -128, 127, -128},
	{"far above, highest zero point", math.MaxInt32, math.MaxInt32, 1, 127, -128, 127, 127},
	{"multiplier zero", math.MaxInt32, 0, 31, 7, -128, 127, 7},
	{"just under a tie", 1<<30 - 1, 1, 31, 0, -128, 127, 0},
	{"tie", 1 << 30, 1, 31, 0, -128, 127, 1},
}

func TestRequantize(t *testing.T) {
	for _, tt := range requantizeRows {
		t.Run(tt.name, func(t *testing.T) {
			got := Requantize(tt.x, Scale{tt.q, tt.s}, tt.zero, tt.lo, tt.hi)
			if got != tt.want {
				t.Errorf("Requantize(%d · %d / 2^%d) = %d, want %d", tt.x, tt.q, tt.s, got, tt.want)
			}
		})
	}
}

// exact computes §6.3 in unbounded integers: Div of math/big rounds toward −∞
// for a positive divisor, which is the floor that the specification names.
func exact(x, q int32, s uint8, zero, lo, hi int8) int8 {
	p := new(big.Int).Mul(big.NewInt(int64(x)), big.NewInt(int64(q)))
	p.Add(p, new(big.Int).Lsh(big.NewInt(1), uint(s-1)))
	r := p.Div(p, new(big.Int).Lsh(big.NewInt(1), uint(s)))
	r.Add(r, big.NewInt(int64(zero)))
	if r.Cmp(big.NewInt(int64(lo))) < 0 {
		return lo
	}
	if r.Cmp(big.NewInt(int64(hi))) > 0 {
		return hi
	}
	return int8(r.Int64())
}

func FuzzRequantize(f *testing.F) {
	for _, r := range requantizeRows {
		f.Add(r.x, r.q, r.s, r.zero, r.lo, r.hi)
	}
	f.Fuzz(func(t *testing.T, x, q int32, s uint8, zero, lo, hi int8) {
		scale := Scale{Multiplier: q & math.MaxInt32, Shift: s%MaxShift + 1}
		if !scale.Valid() {
			t.Fatalf("%+v is not valid", scale)
		}
		lo, hi = min(lo, hi), max(lo, hi)
		got := Requantize(x, scale, zero, lo, hi)
		want := exact(x, scale.Multiplier, scale.Shift, zero, lo, hi)
		if got != want {
			t.Errorf("Requantize(%d, %+v, %d, %d, %d) = %d, want %d", x, scale, zero, lo, hi, got, want)
		}
	})
}

func TestScaleValid(t *testing.T) {
	for _, tt := range []struct {
		s    Scale
		want bool
	}{
		{Scale{0, 1}, true},
		{Scale{math.MaxInt32, MaxShift}, true},
		{Scale{-1, 1}, false},
		{Scale{1, 0}, false},
		{Scale{1, MaxShift + 1}, false},
	} {
		if got := tt.s.Valid(); got != tt.want {
			t.Errorf("%+v.Valid() = %t, want %t", tt.s, got, tt.want)
		}
	}
}
