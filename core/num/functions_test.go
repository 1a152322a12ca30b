// SPDX-License-Identifier: Apache-2.0

package num

import (
	"flag"
	"math"
	"runtime"
	"sync"
	"testing"
)

var exhaustive = flag.Bool("exhaustive", false, "measure errors over all 2³² operands; hours of processor time")

// functions have the largest error in units of the last place that §6.12 states,
// found by a run with -exhaustive, and an operand that has it.
var functions = []struct {
	name  string
	f     func(float32) float32
	judge func(float64) float64
	ulp   float64
	worst uint32
}{
	{"exp", Exp, math.Exp, 2, 0},
	{"log", Log, math.Log, 2, 0},
	{"tanh", Tanh, math.Tanh, 2, 0},
	{"sigmoid", Sigmoid, sigmoid, 3, 0},
	{"silu", SiLU, func(x float64) float64 { return times(x, sigmoid(x)) }, 4, 0},
	{"gelu-tanh", GELUTanh, geluTanh, 5, 0},
	{"gelu", GELU, func(x float64) float64 { return times(x, math.Erfc(-x/math.Sqrt2)/2) }, 5, 0},
	{"erf", Erf, math.Erf, 2, 0},
	{"rsqrt", Rsqrt, func(x float64) float64 { return 1 / math.Sqrt(x) }, 1.5, 0},
	{"hard-sigmoid", HardSigmoid, hardSigmoid, 1, 0},
	{"hard-swish", HardSwish, func(x float64) float64 { return times(x, hardSigmoid(x)) }, 2, 0},
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

func hardSigmoid(x float64) float64 { return min(max(x+3, 0), 6) / 6 }

// times is x·y with the limit where x is −∞ and y is 0.
func times(x, y float64) float64 {
	if y == 0 {
		return math.Copysign(0, x)
	}
	return x * y
}

func geluTanh(x float64) float64 {
	x = max(x, -1e6) // x³ is in range and the result 0 as before
	return times(x, sigmoid(2*math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
}

// ulps is how far got is from want, in units of the last place of an fp32 of want's size.
func ulps(got float32, want float64) float64 {
	switch {
	case math.IsNaN(want):
		if math.Float32bits(got) == NaN {
			return 0
		}
		return math.Inf(1)
	case float64(got) == want:
		return 0
	case math.Abs(want) >= 0x1.ffffffp127: // rounds to infinity
		if float32(want) == got {
			return 0
		}
	}
	if want == 0 {
		want = math.SmallestNonzeroFloat64
	}
	unit := max(math.Ilogb(want), -126) - 23
	return math.Abs(math.Ldexp(float64(got)-want, -unit))
}

// TestULP measures over a part of all operands, with -exhaustive over all, and
// always over those around the worst.
func TestULP(t *testing.T) {
	stride := uint64(16411)
	if *exhaustive {
		stride = 1
	}
	for _, tt := range functions {
		t.Run(tt.name, func(t *testing.T) {
			var mu sync.Mutex
			var worst float64
			var at uint32
			var wg sync.WaitGroup
			workers := uint64(runtime.GOMAXPROCS(0))
			for w := range workers {
				wg.Add(1)
				go func() {
					defer wg.Done()
					worst2, at2 := -1.0, uint32(0)
					for b := w * stride; b < 1<<32; b += workers * stride {
						x := math.Float32frombits(uint32(b))
						if e := ulps(tt.f(x), tt.judge(float64(x))); e > worst2 {
							worst2, at2 = e, uint32(b)
						}
					}
					mu.Lock()
					defer mu.Unlock()
					if worst2 > worst {
						worst, at = worst2, at2
					}
				}()
			}
			wg.Wait()
			t.Logf("%.4f ulp at %#08x (%x)", worst, at, math.Float32frombits(at))
			if worst > tt.ulp {
				t.Errorf("%.4f ulp at %#08x, stated %.4f", worst, at, tt.ulp)
			}
		})
	}
}
