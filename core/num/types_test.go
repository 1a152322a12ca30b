// SPDX-License-Identifier: Apache-2.0

package num

import (
	"fmt"
	"math"
	"sort"
	"testing"
)

// The rows of the table of §6.6.
func TestConversions(t *testing.T) {
	inf := float32(math.Inf(1))
	nan := float32(math.NaN())
	for _, tt := range []struct {
		name string
		got  uint32
		want uint32
	}{
		{"bf16 tie to even, down", uint32(ToBF16(0x1.01p0)), 0x3f80},
		{"bf16 tie to even, up", uint32(ToBF16(0x1.03p0)), 0x3f82},
		{"bf16 overflow", uint32(ToBF16(math.MaxFloat32)), 0x7f80},
		{"bf16 smallest subnormal", uint32(ToBF16(-0x1p-133)), 0x8001},
		{"bf16 tie with zero", uint32(ToBF16(0x1p-134)), 0},
		{"bf16 NaN", uint32(ToBF16(-nan)), 0x7fc0},
		{"fp16 largest", uint32(ToFP16(65504)), 0x7bff},
		{"fp16 just below the tie", uint32(ToFP16(0x1.ffdffep15)), 0x7bff},
		{"fp16 tie overflows", uint32(ToFP16(65520)), 0x7c00},
		{"fp16 subnormal becomes normal", uint32(ToFP16(0x1.ffep-15)), 0x0400},
		{"fp16 -0", uint32(ToFP16(float32(math.Copysign(0, -1)))), 0x8000},
		{"fp16 of a subnormal", uint32(ToFP16(math.SmallestNonzeroFloat32)), 0},
		{"E4M3 448", uint32(ToE4M3(448)), 0x7e},
		{"E4M3 tie stays", uint32(ToE4M3(464)), 0x7e},
		{"E4M3 overflow", uint32(ToE4M3(0x1.d00002p8)), 0x7f},
		{"E4M3 overflow, saturating", uint32(ToE4M3Sat(0x1.d00002p8)), 0x7e},
		{"E4M3 negative overflow", uint32(ToE4M3(-1e9)), 0x7f},
		{"E4M3 -infinity", uint32(ToE4M3(-inf)), 0x7f},
		{"E4M3 -infinity, saturating", uint32(ToE4M3Sat(-inf)), 0xfe},
		{"E4M3 NaN, saturating", uint32(ToE4M3Sat(-nan)), 0x7f},
		{"E4M3 tie with zero", uint32(ToE4M3(0x1p-10)), 0},
		{"E5M2 57344", uint32(ToE5M2(57344)), 0x7b},
		{"E5M2 tie overflows", uint32(ToE5M2(61440)), 0x7c},
		{"E5M2 tie, saturating", uint32(ToE5M2Sat(61440)), 0x7b},
		{"E5M2 -infinity", uint32(ToE5M2(-inf)), 0xfc},
		{"E5M2 -infinity, saturating", uint32(ToE5M2Sat(-inf)), 0xfb},
		{"E5M2 NaN", uint32(ToE5M2(nan)), 0x7e},
		{"int32 tie to even", uint32(ToInt32(2.5)), 2},
		{"int32 saturates", uint32(ToInt32(0x1p31)), math.MaxInt32},
		{"int32 saturates below", uint32(ToInt32(-inf)), 1 << 31},
		{"int32 NaN", uint32(ToInt32(nan)), 0},
		{"int32 toward zero", uint32(TruncInt32(-2.9)), ^uint32(1)},
		{"int16 saturates", uint32(Sat16(40000)), 32767},
		{"int8 saturates", uint32(uint8(Sat8(-300))), 0x80},
		{"uint8 saturates", uint32(SatU8(256)), 0xff},
		{"uint8 saturates below", uint32(SatU8(-1)), 0},
		{"int4 saturates", uint32(uint8(Sat4(-9))), 0xf8},
		{"int4 packs", uint32(PackInt4(-8, 7)), 0x78},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, tt.got, tt.want)
		}
	}
}

func TestInt4RoundTrip(t *testing.T) {
	for i := range 256 {
		if got := PackInt4(UnpackInt4(byte(i))); got != byte(i) {
			t.Errorf("byte %#02x comes back as %#02x", i, got)
		}
	}
}

// narrowTypes are the conversions in a form that a test can go through. The
// model beside each is an encoding's value by the formula of §6.5, and NaN.
var narrowTypes = []struct {
	name   string
	count  int
	to     func(float32) uint32
	sat    func(float32) uint32 // nil where there is none
	from   func(uint32) float32
	expBit int
	frac   int
	bias   int
	inf    bool
}{
	{"bf16", 1 << 16, func(x float32) uint32 { return uint32(ToBF16(x)) }, nil, func(v uint32) float32 { return BF16(v).Float32() }, 8, 7, 127, true},
	{"fp16", 1 << 16, func(x float32) uint32 { return uint32(ToFP16(x)) }, nil, func(v uint32) float32 { return FP16(v).Float32() }, 5, 10, 15, true},
	{"e4m3", 1 << 8, func(x float32) uint32 { return uint32(ToE4M3(x)) }, func(x float32) uint32 { return uint32(ToE4M3Sat(x)) }, func(v uint32) float32 { return E4M3(v).Float32() }, 4, 3, 7, false},
	{"e5m2", 1 << 8, func(x float32) uint32 { return uint32(ToE5M2(x)) }, func(x float32) uint32 { return uint32(ToE5M2Sat(x)) }, func(v uint32) float32 { return E5M2(v).Float32() }, 5, 2, 15, true},
}

// TestNarrow goes through every encoding of each type: its value is what §6.5
// says, it comes back, and between each two neighbours the tie, the fp32 values
// beside it and those beside the neighbours round as to the nearest of a list.
func TestNarrow(t *testing.T) {
	for _, tt := range narrowTypes {
		t.Run(tt.name, func(t *testing.T) {
			var finite []float64 // the values ≥ 0, ascending: value i has encoding i
			for v := range tt.count / 2 {
				e, m := v>>tt.frac, v&(1<<tt.frac-1)
				want := math.Ldexp(float64(m)+math.Ldexp(1, tt.frac), e-tt.bias-tt.frac)
				if e == 0 {
					want = math.Ldexp(float64(m), 1-tt.bias-tt.frac)
				}
				if e == 1<<tt.expBit-1 && (tt.inf || m == 1<<tt.frac-1) {
					want = math.NaN()
					if tt.inf && m == 0 {
						want = math.Inf(1)
					}
				} else {
					finite = append(finite, want)
				}
				for _, sign := range []uint32{0, uint32(tt.count / 2)} {
					got := tt.from(uint32(v) | sign)
					if math.IsNaN(want) {
						if math.Float32bits(got) != NaN {
							t.Fatalf("%#x is %#x, want the canonical NaN", v, math.Float32bits(got))
						}
						continue
					}
					signed := want
					if sign != 0 {
						signed = -want
					}
					if math.Float64bits(float64(got)) != math.Float64bits(signed) {
						t.Fatalf("%#x is %g, want %g", uint32(v)|sign, got, signed)
					}
					if back := tt.to(got); back != uint32(v)|sign {
						t.Fatalf("%#x comes back as %#x", uint32(v)|sign, back)
					}
				}
			}
			top := len(finite) - 1
			unit := finite[top] - finite[top-1]
			over := finite[top] + unit/2 // what rounds as far as this, or farther, is too large
			overflow, topOdd := tt.to(float32(math.Inf(1))), top&1 == 1
			check := func(x float64) {
				f := float32(x)
				want := uint32(nearest(finite, float64(f)))
				satWant := want
				if float64(f) > over || float64(f) == over && topOdd {
					want, satWant = overflow, uint32(top)
				}
				if got := tt.to(f); got != want {
					t.Fatalf("%x rounds to %#x, want %#x", f, got, want)
				}
				if tt.sat != nil {
					if got := tt.sat(f); got != satWant {
						t.Fatalf("%x rounds, saturating, to %#x, want %#x", f, got, satWant)
					}
				}
			}
			around := func(x float64) {
				f := float32(x)
				check(x)
				check(float64(math.Nextafter32(f, 0)))
				check(float64(math.Nextafter32(f, float32(math.Inf(1)))))
			}
			for i := range top {
				around(finite[i])
				around((finite[i] + finite[i+1]) / 2)
			}
			around(finite[top])
			if float64(float32(over)) == over {
				around(over)
			}
			check(math.MaxFloat32)
		})
	}
}

// nearest is the index of the value of list that is nearest to x, of two the even one.
func nearest(list []float64, x float64) int {
	i := sort.SearchFloat64s(list, x)
	if i == len(list) {
		return i - 1
	}
	if i == 0 || list[i] == x {
		return i
	}
	below, above := x-list[i-1], list[i]-x // exact: fp64 has 29 bits more
	if below < above || below == above && (i-1)&1 == 0 {
		return i - 1
	}
	return i
}

func FuzzNarrow(f *testing.F) {
	f.Add(uint32(0x477ff000))
	f.Add(uint32(0x33800000))
	f.Fuzz(func(t *testing.T, b uint32) {
		x := math.Float32frombits(b)
		for _, tt := range narrowTypes {
			v := tt.to(x)
			y := tt.from(v)
			if x != x {
				if math.Float32bits(y) != NaN {
					t.Errorf("%s: NaN %#x becomes %x", tt.name, b, y)
				}
				continue
			}
			// Rounding again changes nothing, the sign stays, and no finite neighbour is nearer.
			if again := tt.to(y); again != v {
				t.Errorf("%s: %x is %#x, and that %#x", tt.name, x, v, again)
			}
			if y == y && math.Signbit(float64(x)) != math.Signbit(float64(y)) {
				t.Errorf("%s: %x becomes %x", tt.name, x, y)
			}
			d := math.Abs(float64(x) - float64(y))
			for _, n := range []uint32{v - 1, v + 1} {
				if z := tt.from(n & uint32(tt.count-1)); y-y == 0 && math.Abs(float64(x)-float64(z)) < d {
					t.Errorf("%s: %x becomes %x, %x is nearer", tt.name, x, y, z)
				}
			}
		}
	})
}

func ExampleToE4M3() {
	x := float32(500)
	fmt.Println(ToE4M3(x).Float32(), ToE4M3Sat(x).Float32())
	// Output: NaN 448
}
