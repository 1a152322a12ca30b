// SPDX-License-Identifier: Apache-2.0

package num

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

// normClasses are the classes of operands of §6.14.4. row makes n of them; the error of an element is in units of the last
// place of the exact result, or, where it is absolute, in units of 2⁻²³. largest are the errors that §6.14.4 states, for rows
// of normLengths.
var normClasses = []struct {
	name     string
	norm     string
	absolute bool
	row      func(rng *rand.Rand, x []float32)
	largest  [4]float64
}{
	{"softmax, ±1", "softmax", false, uniform(0, 1), [4]float64{4.07, 3.59, 4.67, 5.49}},
	{"softmax, ±10", "softmax", false, uniform(0, 10), [4]float64{18.59, 18.89, 22.29, 72.99}},
	{"softmax, ±50", "softmax", false, uniform(0, 50), [4]float64{66.23, 66.77, 66.66, 76.20}},
	{"layer, mean 0", "layer", true, uniform(0, 1), [4]float64{3.52, 3.03, 3.41, 3.62}},
	{"layer, mean 10", "layer", true, uniform(10, 1), [4]float64{25.31, 22.54, 28.96, 47.26}},
	{"layer, mean 1000", "layer", true, uniform(1000, 1), [4]float64{1419.39, 1472.24, 1925.56, 5705.64}},
	{"RMS", "rms", false, uniform(0, 1), [4]float64{2.74, 2.87, 2.69, 4.00}},
}

var normLengths = [4]struct{ n, rows int }{{16, 8000}, {256, 1000}, {4096, 60}, {65535, 4}}

func uniform(mean, width float64) func(rng *rand.Rand, x []float32) {
	return func(rng *rand.Rand, x []float32) {
		for i := range x {
			x[i] = float32(mean + width*(2*rng.Float64()-1))
		}
	}
}

const normEpsilon = 1e-5

// exactNorm is §6.14 in fp64, and for each element how far §6.14.4 says that the result is from it at most.
func exactNorm(norm string, x, gain, bias []float32) (y, bound []float64) {
	n := float64(len(x))
	y, bound = make([]float64, len(x)), make([]float64, len(x))
	steps := math.Ceil(n / 16)
	eps := float64(float32(normEpsilon))
	var top, sum, size, squares float64
	top = math.Inf(-1)
	for _, v := range x {
		top = max(top, float64(v))
		sum += float64(v)
		size += math.Abs(float64(v))
	}
	switch norm {
	case "softmax":
		sum = 0
		for i, v := range x {
			y[i] = math.Exp(float64(v) - top)
			sum += y[i]
		}
		for i, v := range x {
			y[i] /= sum
			bound[i] = (top - float64(v) + math.Log(n) + steps + 9) * y[i]
		}
	case "layer":
		mean := sum / n
		for _, v := range x {
			squares += (float64(v) - mean) * (float64(v) - mean)
		}
		s := math.Sqrt(squares/n + eps)
		for i, v := range x {
			z := (float64(v) - mean) / s
			y[i] = z*float64(gain[i]) + float64(bias[i])
			bound[i] = ((steps+4)*size/n/s+(steps/2+10)*math.Abs(z))*math.Abs(float64(gain[i])) + math.Abs(y[i])
		}
	case "rms":
		for _, v := range x {
			squares += float64(v) * float64(v)
		}
		s := math.Sqrt(squares/n + eps)
		for i, v := range x {
			y[i] = float64(v) / s * float64(gain[i])
			bound[i] = (steps/2 + 9) * math.Abs(y[i])
		}
	}
	for i := range bound {
		bound[i] = bound[i]*0x1p-24 + 0x1p-148
	}
	return y, bound
}

func norm(kind string, x, gain, bias []float32) []float32 {
	y := make([]float32, len(x))
	switch kind {
	case "softmax":
		Softmax(y, x)
	case "layer":
		LayerNorm(y, x, gain, bias, normEpsilon)
	case "rms":
		RMSNorm(y, x, gain, normEpsilon)
	}
	return y
}

// TestNormErrors measures the errors that §6.14.4 states, and finds each.
func TestNormErrors(t *testing.T) {
	one, zero := make([]float32, 65535), make([]float32, 65535)
	for i := range one {
		one[i] = 1
	}
	page, err := os.ReadFile("../../docs/spec/numerics.md")
	if err != nil {
		t.Fatal(err)
	}
	for c, class := range normClasses {
		t.Run(class.name, func(t *testing.T) {
			t.Parallel()
			row := "| " + class.name + " |"
			for l, length := range normLengths {
				rng := rand.New(rand.NewPCG(uint64(c), uint64(l)))
				worst := 0.0
				for range length.rows {
					x := make([]float32, length.n)
					class.row(rng, x)
					exact, bound := exactNorm(class.norm, x, one, zero)
					for i, y := range norm(class.norm, x, one[:length.n], zero[:length.n]) {
						d := math.Abs(float64(y) - exact[i])
						if d > bound[i] {
							t.Fatalf("element %d of %d is %g, exact is %g: more than %g away", i, length.n, y, exact[i], bound[i])
						}
						if class.absolute {
							worst = max(worst, d*0x1p23)
						} else {
							worst = max(worst, ulps(y, exact[i]))
						}
					}
				}
				t.Logf("%d elements: %.3f", length.n, worst)
				if stated := class.largest[l]; worst > stated || worst < stated-0.011 {
					t.Errorf("rows of %d: %.3f, stated %.2f", length.n, worst, stated)
				}
				row += fmt.Sprintf(" %.2f |", class.largest[l])
			}
			if !strings.Contains(string(page), row) {
				t.Errorf("§6.14.4 has no row %s", row)
			}
		})
	}
}

// TestNormBounds is for what no class has: rows whose sums drift, one element that stands out, large and tiny operands, gains.
func TestNormBounds(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	wide := func(x []float32) {
		for i := range x {
			x[i] = float32(math.Ldexp(rng.Float64()-0.5, rng.IntN(40)-20))
		}
	}
	fills := map[string]func(x []float32){
		"equal": func(x []float32) { v := float32(rng.NormFloat64()); fill(x, v) },
		"drift": func(x []float32) { fill(x, -2.3025851); x[0] = 0 },
		"one":   func(x []float32) { uniform(0, 1)(rng, x); x[rng.IntN(len(x))] = 80 },
		"wide":  wide,
		"steps": func(x []float32) {
			uniform(0, 3)(rng, x)
			for i := range x {
				x[i] = float32(math.Round(float64(x[i])))
			}
		},
		"offset": uniformOf(rng, -5000, 0.25),
	}
	for name, f := range fills {
		for _, kind := range []string{"softmax", "layer", "rms"} {
			for _, n := range []int{1, 2, 15, 17, 100, 1000, 65535} {
				for range max(1, min(50, 20000/n)) {
					x, gain, bias := make([]float32, n), make([]float32, n), make([]float32, n)
					f(x)
					uniform(0, 4)(rng, gain)
					uniform(0, 2)(rng, bias)
					exact, bound := exactNorm(kind, x, gain, bias)
					for i, y := range norm(kind, x, gain, bias) {
						if d := math.Abs(float64(y) - exact[i]); !(d <= bound[i]) {
							t.Fatalf("%s of %s, element %d of %d is %g, exact is %g: %g away, more than %g", kind, name, i, n, y, exact[i], d, bound[i])
						}
					}
				}
			}
		}
	}
}

func fill(x []float32, v float32) {
	for i := range x {
		x[i] = v
	}
}

func uniformOf(rng *rand.Rand, mean, width float64) func(x []float32) {
	return func(x []float32) { uniform(mean, width)(rng, x) }
}
