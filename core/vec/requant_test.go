// SPDX-License-Identifier: Apache-2.0

package vec

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"npuemu/core/num"
)

// each runs f as a subtest for every tier of this machine.
func each(t *testing.T, f func(t *testing.T, tier *tier)) {
	for _, tier := range tiers() {
		t.Run(tier.name, func(t *testing.T) { f(t, tier) })
	}
}

var edgeInts = []int32{0, 1, -1, 2, -2, 5, -5, 127, 128, -128, -129, 255, 256, -257, 1 << 15, 1<<24 + 1, 1 << 30, -1 << 30, math.MaxInt32, math.MaxInt32 - 1, math.MinInt32, math.MinInt32 + 1}

func randomInt(rng *rand.Rand) int32 {
	if rng.IntN(4) == 0 {
		return edgeInts[rng.IntN(len(edgeInts))]
	}
	return int32(rng.Uint32()) >> rng.IntN(32)
}

func randomScale(rng *rand.Rand, rounding Rounding, least uint8) num.Scale {
	if rounding == FloatScale {
		for {
			if v := rng.Uint32() & 0x7fffffff; v != 0 && v < 0x7f800000 {
				if rng.IntN(3) > 0 { // an exponent at which results are not all alike
					v = v&0x7fffff | uint32(96+rng.IntN(40))<<23
				}
				return num.Scale{Multiplier: int32(v)}
			}
		}
	}
	q := int32(rng.Uint32() >> 1)
	switch rng.IntN(8) {
	case 0:
		q = [...]int32{0, 1, 2, 1 << 30, math.MaxInt32}[rng.IntN(5)]
	case 1, 2:
		q >>= rng.IntN(31)
	}
	return num.Scale{Multiplier: q, Shift: least + uint8(rng.IntN(num.MaxShift+1-int(least)))}
}

// All tiers against package num, for every length up to three blocks.
func TestRequant(t *testing.T) {
	each(t, func(t *testing.T, tier *tier) {
		rng := rand.New(rand.NewPCG(1, 2))
		r := &Requant{tier: tier}
		for n := 1; n <= 200; n++ {
			for round := range 24 {
				rounding, scales := Rounding(round%3), make([]num.Scale, n)
				if round%2 == 0 {
					scales = scales[:1]
				}
				least := uint8(1 + round/12*30)
				for i := range scales {
					scales[i] = randomScale(rng, rounding, least)
				}
				zero, lo, hi := int8(rng.Uint32()), int8(rng.Uint32()), int8(rng.Uint32())
				if round%4 == 0 {
					lo, hi = -128, 127
				}
				lo, hi = min(lo, hi), max(lo, hi)
				r.Set(rounding, scales, zero, lo, hi)
				x, out := make([]int32, n+1), make([]byte, n+1)
				for i := range x {
					x[i] = randomInt(rng)
					if i < n && rounding != FloatScale && rng.IntN(3) == 0 { // near a tie or a bound
						if s := scales[i%len(scales)]; s.Multiplier > 0 {
							want := float64(rng.IntN(300)-150) + 0.5*float64(rng.IntN(2))
							v := want * math.Ldexp(1, int(s.Shift)) / float64(s.Multiplier)
							if math.Abs(v) < 1<<31-2 {
								x[i] = int32(v) + int32(rng.IntN(3)-1)
							}
						}
					}
				}
				// Rows behind the first one are the same, from the same accumulators.
				out[n] = 99
				copies := make([]byte, 3*(n+5))
				r.Rows(copies, n+5, x, 0, 3, n, 0)
				c := 0
				if len(scales) > 1 && n > 16 {
					c = rng.IntN(n/16) * 16
				}
				r.Row(out[c:], x[c:n], c)
				first := copies[:n]
				for i := range 3 {
					row := copies[i*(n+5):][:n+5]
					if !bytes.Equal(row[:n], first) || !bytes.Equal(row[n:], make([]byte, 5)) {
						t.Fatalf("n %d: row %d differs, or what is behind it", n, i)
					}
				}
				for i := c; i < n; i++ {
					s := scales[i%len(scales)]
					var want int8
					switch rounding {
					case OneRounding:
						want = num.Requantize(x[i], s, zero, lo, hi)
					case TwoRoundings:
						want = int8(num.Place(int64(s.MultiplyTwice(x[i])), int32(zero), int32(lo), int32(hi)))
					default:
						v := num.MultiplyFloat(x[i], math.Float32frombits(uint32(s.Multiplier)))
						want = int8(num.Place(int64(v), int32(zero), int32(lo), int32(hi)))
					}
					if int8(out[i]) != want || out[i] != first[i] {
						t.Fatalf("n %d, rounding %d, x[%d] = %d, scale %+v, zero %d, clamp %d to %d: %d, want %d",
							n, rounding, i, x[i], s, zero, lo, hi, int8(out[i]), want)
					}
				}
				if out[n] != 99 {
					t.Fatalf("n %d: the byte behind the results was written", n)
				}
			}
		}
	})
}

func BenchmarkRequant(b *testing.B) {
	for _, tier := range tiers() {
		for name, rounding := range map[string]Rounding{"one": OneRounding, "two": TwoRoundings, "float": FloatScale} {
			b.Run(tier.name+"/"+name, func(b *testing.B) {
				rng := rand.New(rand.NewPCG(1, 2))
				r := &Requant{tier: tier}
				const channels = 256
				var scales [channels]num.Scale
				for i := range scales {
					scales[i] = randomScale(rng, rounding, 31)
				}
				r.Set(rounding, scales[:], 3, -128, 127)
				x, out := make([]int32, 64<<10), make([]byte, 64<<10)
				for i := range x {
					x[i] = randomInt(rng)
				}
				for b.Loop() {
					for at := 0; at < len(x); at += channels {
						r.Row(out[at:], x[at:at+channels], 0)
					}
				}
				b.ReportMetric(float64(len(x))*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gelem/s")
			})
		}
	}
}
