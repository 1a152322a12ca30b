// SPDX-License-Identifier: Apache-2.0

package num

import (
	"flag"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var exhaustive = flag.Bool("exhaustive", false, "measure the functions' errors over all 2³² operands: 80 minutes of processor time")

// functions have the error that §6.12.11 states, in units of the last place, and an
// operand that comes within a hundredth of it.
var functions = []struct {
	name  string
	f     func(float32) float32
	judge func(float64) float64
	ulp   float64
	worst uint32
	at    [4]uint32 // results for +0, −0, +∞, −∞, as §6.12.11 has them
}{
	{"exp", Exp, math.Exp, 0.90, 0xc0bb2813, [4]uint32{one, one, inf, 0}},
	{"log", Log, math.Log, 0.75, 0x402dcb4c, [4]uint32{neg | inf, neg | inf, inf, NaN}},
	{"tanh", Tanh, math.Tanh, 1.37, 0x3f214812, [4]uint32{0, neg, one, neg | one}},
	{"sigmoid", Sigmoid, sigmoid, 2.41, 0xc085088d, [4]uint32{half, half, one, 0}},
	{"silu", SiLU, func(x float64) float64 { return times(x, sigmoid(x)) }, 3.35, 0xc0be0b6a, [4]uint32{0, neg, inf, neg}},
	{"gelu-tanh", GELUTanh, geluTanh, 3.20, 0xbfeb4085, [4]uint32{0, neg, inf, neg}},
	{"gelu", GELU, func(x float64) float64 { return times(x, math.Erfc(-x/math.Sqrt2)/2) }, 6.57, 0xbfa9f8f2, [4]uint32{0, neg, inf, neg}},
	{"erf", Erf, math.Erf, 1.50, 0x3f8204bd, [4]uint32{0, neg, one, neg | one}},
	{"reciprocal", Reciprocal, func(x float64) float64 { return 1 / x }, 0.50, 0x00fe01ff, [4]uint32{inf, neg | inf, 0, neg}},
	{"rsqrt", Rsqrt, func(x float64) float64 { return 1 / math.Sqrt(x) }, 1.50, 0x0080cab3, [4]uint32{inf, neg | inf, 0, NaN}},
	{"hard-sigmoid", HardSigmoid, hardSigmoid, 1.00, 0x3f80000a, [4]uint32{half, half, one, 0}},
	{"hard-swish", HardSwish, func(x float64) float64 { return times(x, hardSigmoid(x)) }, 1.88, 0x3faf8d3e, [4]uint32{0, neg, inf, neg}},
}

const (
	neg  = 1 << 31
	half = 0x3f000000
	one  = 0x3f800000
	inf  = 0x7f800000
)

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

// TestULP measures over a part of all operands, and with -exhaustive over all.
func TestULP(t *testing.T) {
	stride := uint64(32749)
	if *exhaustive {
		stride = 1
	}
	for _, tt := range functions {
		t.Run(tt.name, func(t *testing.T) {
			if e := errorAt(tt.f, tt.judge, tt.worst); e < tt.ulp-0.0101 {
				t.Errorf("%.4f ulp at %#08x, the worst operand; stated %.2f", e, tt.worst, tt.ulp)
			}
			workers := uint64(runtime.GOMAXPROCS(0))
			found := make(chan uint32)
			for w := range workers {
				go func() {
					worst, at := -1.0, uint32(0)
					for b := w * stride; b < 1<<32; b += workers * stride {
						if e := errorAt(tt.f, tt.judge, uint32(b)); e > worst {
							worst, at = e, uint32(b)
						}
					}
					found <- at
				}()
			}
			for range workers {
				at := <-found
				e := errorAt(tt.f, tt.judge, at)
				t.Logf("%.4f ulp at %#08x (%x)", e, at, math.Float32frombits(at))
				if e > tt.ulp {
					t.Errorf("%.4f ulp at %#08x, stated %.2f", e, at, tt.ulp)
				}
			}
		})
	}
}

func errorAt(f func(float32) float32, judge func(float64) float64, b uint32) float64 {
	x := math.Float32frombits(b)
	return ulps(f(x), judge(float64(x)))
}

// TestTrue compares functions, and what TestULP judges them by, with mpmath.
func TestTrue(t *testing.T) {
	text, err := os.ReadFile("testdata/true.txt")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for line := range strings.Lines(string(text)) {
		var name string
		var b uint32
		var want float64
		if _, err := fmt.Sscan(line, &name, &b, &want); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		x := math.Float32frombits(b)
		for _, tt := range functions {
			if tt.name != name {
				continue
			}
			seen[name]++
			if e := ulps(tt.f(x), want); e > tt.ulp {
				t.Errorf("%s(%x): %.4f ulp, stated %.2f", name, x, e, tt.ulp)
			}
			// In ulps of fp32: a margin of 1e-5 to what is stated.
			unit := math.Ldexp(1, max(math.Ilogb(want), -126)-23)
			if d := math.Abs(tt.judge(float64(x))-want) / unit; d > 1e-5 {
				t.Errorf("%s(%x): fp64 is %g ulp away", name, x, d)
			}
		}
	}
	for _, tt := range functions {
		if !strings.HasPrefix(tt.name, "hard") && seen[tt.name] < 48 {
			t.Errorf("true.txt has %d values of %s", seen[tt.name], tt.name)
		}
	}
}

func TestFunctionsSpecial(t *testing.T) {
	for _, tt := range functions {
		for i, b := range []uint32{0, neg, inf, neg | inf} {
			if got := math.Float32bits(tt.f(math.Float32frombits(b))); got != tt.at[i] {
				t.Errorf("%s of %#08x: %#08x, want %#08x", tt.name, b, got, tt.at[i])
			}
		}
		for _, b := range []uint32{NaN, 0x7f800001, 0xffffffff} {
			if got := math.Float32bits(tt.f(math.Float32frombits(b))); got != NaN {
				t.Errorf("%s of the NaN %#08x: %#08x, want the canonical one", tt.name, b, got)
			}
		}
	}
}

// TestCoefficients compares the tables of §6.12 with those here.
func TestCoefficients(t *testing.T) {
	page, err := os.ReadFile("../../docs/spec/numerics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "| T | exp |")
	section, _, _ = strings.Cut(section, "### §6.12.1")
	polynomials, constants, _ := strings.Cut(section, "| Constant |")
	columns := make([][]float32, 7)
	for line := range strings.Lines(polynomials) {
		for i, cell := range strings.Split(line, "|") {
			if v, err := strconv.ParseFloat(strings.TrimSpace(cell), 32); i >= 2 && err == nil {
				columns[i-2] = append(columns[i-2], float32(v))
			}
		}
	}
	for i, want := range [][]float32{expTerms, logTerms, tanhTerms, erfTerms, normTerms, tailTerms} {
		if !slices.Equal(columns[i], want) {
			t.Errorf("column %d: the page has %x, the code %x", i+1, columns[i], want)
		}
	}
	for name, values := range map[string][]float32{
		"LOG2E": {log2E}, "LN2H, LN2L": {ln2Hi, ln2Lo}, "SQRT2": {sqrt2}, "MAGIC": {toInt},
		"C1H, C1L": {geluC1Hi, geluC1Lo}, "C3H, C3L": {geluC3Hi, geluC3Lo},
	} {
		_, row, ok := strings.Cut(constants, "| "+name+" |")
		row, _, _ = strings.Cut(row, "|")
		var page []float32
		for _, s := range strings.Split(row, ",") {
			v, err := strconv.ParseFloat(strings.TrimSpace(s), 32)
			ok = ok && err == nil
			page = append(page, float32(v))
		}
		if !ok || !slices.Equal(page, values) {
			t.Errorf("%s: the page has %x, the code %x", name, page, values)
		}
	}
}

func FuzzFunctions(f *testing.F) {
	for _, tt := range functions {
		f.Add(tt.worst)
	}
	f.Fuzz(func(t *testing.T, b uint32) {
		for _, tt := range functions {
			if e := errorAt(tt.f, tt.judge, b); e > tt.ulp {
				t.Errorf("%s: %.4f ulp at %#08x, stated %.2f", tt.name, e, b, tt.ulp)
			}
		}
	})
}
