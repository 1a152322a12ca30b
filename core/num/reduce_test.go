// SPDX-License-Identifier: Apache-2.0

package num

import (
	"math"
	"slices"
	"testing"
)

// A sum has the order of §6.11 and no other: these numbers show which.
func TestSumOrder(t *testing.T) {
	for _, tt := range []struct {
		name string
		at   map[int]float32
		n    int
		want float32
	}{
		{"empty", nil, 0, 0},
		{"0 and 16 share a lane and cancel before 8 joins", map[int]float32{0: 0x1p30, 8: 1, 16: -0x1p30}, 17, 1},
		{"0 and 8 meet before 4 joins", map[int]float32{0: 0x1p30, 4: 1, 8: -0x1p30}, 16, 1},
		{"0 and 4 meet behind 8", map[int]float32{0: 0x1p30, 8: 1, 4: -0x1p30}, 16, 0},
		{"0 and 1 meet last", map[int]float32{0: 0x1p30, 1: -0x1p30, 14: 1}, 16, 0},
		{"2 meets 0 behind 4", map[int]float32{0: 0x1p30, 4: -0x1p30, 2: 1}, 16, 1},
		{"ascending in a lane", map[int]float32{3: 1, 19: 0x1p30, 35: -0x1p30}, 36, 0},
	} {
		x := make([]float32, tt.n)
		for i, v := range tt.at {
			x[i] = v
		}
		if got := Sum(x); got != tt.want {
			t.Errorf("%s: %g, want %g", tt.name, got, tt.want)
		}
	}
}

// §6.11: zeros behind the last element change nothing, not even signs.
func TestSumPadding(t *testing.T) {
	nz := float32(math.Copysign(0, -1))
	for n := range 40 {
		x := noise(n, n)
		if n > 0 {
			x[n-1] = nz
		}
		padded := append(slices.Clone(x), make([]float32, (16-n%16)%16)...)
		a, b := math.Float32bits(Sum(x)), math.Float32bits(Sum(padded))
		if a != b {
			t.Errorf("%d elements: %#x, padded %#x", n, a, b)
		}
	}
	if got := math.Float32bits(Sum([]float32{nz, nz})); got != 0 {
		t.Errorf("the sum of two −0 is %#x, want +0", got)
	}
}

func TestMaxMin(t *testing.T) {
	nan, inf, nz := float32(math.NaN()), float32(math.Inf(1)), float32(math.Copysign(0, -1))
	for _, tt := range []struct {
		name     string
		x        []float32
		max, min uint32
	}{
		{"empty", nil, 0xff800000, 0x7f800000},
		{"zeros", []float32{0, nz, 0}, 0, 1 << 31},
		{"NaN last", []float32{1, -inf, -nan}, NaN, NaN},
		{"NaN first", []float32{nan, inf}, NaN, NaN},
		{"numbers", []float32{2, -3, 1}, math.Float32bits(2), math.Float32bits(-3)},
	} {
		if got := math.Float32bits(Max(tt.x)); got != tt.max {
			t.Errorf("%s: Max %#x, want %#x", tt.name, got, tt.max)
		}
		if got := math.Float32bits(Min(tt.x)); got != tt.min {
			t.Errorf("%s: Min %#x, want %#x", tt.name, got, tt.min)
		}
	}
	if got := Mean([]float32{1, 2, 6}); got != 3 {
		t.Errorf("Mean: %g, want 3", got)
	}
}

// Against the same in fp64: the result of §6.14 is a few units of the last place from it.
func TestNorms(t *testing.T) {
	for _, n := range []int{1, 3, 16, 50, 1024} {
		x, gain, bias := noise(n, n), noise(n+1, n), noise(n+2, n)
		var top, sum, square float64 = math.Inf(-1), 0, 0
		for _, v := range x {
			top = max(top, float64(v))
			sum += float64(v)
			square += float64(v) * float64(v)
		}
		mean := sum / float64(n)
		var total, variance float64
		for _, v := range x {
			total += math.Exp(float64(v) - top)
			variance += (float64(v) - mean) * (float64(v) - mean) / float64(n)
		}
		soft, layer, rms := make([]float32, n), make([]float32, n), make([]float32, n)
		Softmax(soft, x)
		LayerNorm(layer, x, gain, bias, 1e-3)
		RMSNorm(rms, x, gain, 1e-3)
		for i, v := range x {
			g, b := float64(gain[i]), float64(bias[i])
			check := func(what string, got float32, want, size float64) {
				if math.Abs(float64(got)-want) > 16*0x1p-24*size {
					t.Errorf("%s of %d, element %d: %g, want %g", what, n, i, got, want)
				}
			}
			s := math.Exp(float64(v)-top) / total
			check("softmax", soft[i], s, s)
			unit := 1 / math.Sqrt(variance+1e-3)
			l := (float64(v) - mean) * unit * g
			check("layer norm", layer[i], l+b, math.Abs(l)+math.Abs(b)+math.Abs(mean*unit*g))
			r := float64(v) / math.Sqrt(square/float64(n)+1e-3) * g
			check("RMS norm", rms[i], r, math.Abs(r))
		}
	}
}

func TestSoftmaxSpecial(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, tt := range []struct {
		name string
		x    []float32
		want []uint32
	}{
		{"NaN", []float32{1, -inf + inf}, []uint32{NaN, NaN}},
		{"−∞ is 0", []float32{-inf, 5}, []uint32{0, 0x3f800000}},
		{"nothing but −∞", []float32{-inf, -inf}, []uint32{NaN, NaN}},
		{"+∞", []float32{inf, 1}, []uint32{NaN, NaN}},
		{"far below", []float32{0, -200}, []uint32{0x3f800000, 0}},
		{"a half each", []float32{7, 7}, []uint32{0x3f000000, 0x3f000000}},
	} {
		y := make([]float32, len(tt.x))
		Softmax(y, tt.x)
		for i, want := range tt.want {
			if got := math.Float32bits(y[i]); got != want {
				t.Errorf("%s, element %d: %#x, want %#x", tt.name, i, got, want)
			}
		}
	}
}
