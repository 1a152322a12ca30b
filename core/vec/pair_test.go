// SPDX-License-Identifier: Apache-2.0

package vec

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"npuemu/core/num"
)

// randomPair is an arithmetic for elements from lo to hi, in round of many kinds.
func randomPair(rng *rand.Rand, round int, lo, hi int32) num.Pair {
	value := func() int32 { return lo + rng.Int32N(hi-lo+1) }
	a := num.Pair{XZero: value(), YZero: value(), Zero: value(), Lo: lo, Hi: hi}
	if rng.IntN(3) == 0 {
		a.Lo, a.Hi = value(), value()
		a.Lo, a.Hi = min(a.Lo, a.Hi), max(a.Lo, a.Hi)
	}
	multiplier := func() int32 { return 1<<30 | rng.Int32N(1<<30) }
	shift := func(least, most int) uint8 { return uint8(least + rng.IntN(most-least+1)) }
	switch round % 6 {
	case 0:
		a.Float, a.A, a.B, a.C = true, float32(math.Exp(rng.NormFloat64())), float32(math.Exp(rng.NormFloat64())), float32(rng.NormFloat64()*100)
		switch rng.IntN(8) {
		case 0:
			a.A, a.B, a.C = 0.5, 0.25, 0.25
		case 1:
			a.A, a.B, a.C = 1e28, 1e33, -math.MaxFloat32/5 // about as large as kernels take
		case 2:
			a.A, a.C = math.MaxFloat32, -math.MaxFloat32
		}
	case 1: // one rounding
		a.X, a.Y, a.Out = num.Scale{Multiplier: multiplier(), Shift: shift(32, 40)}, num.Scale{Multiplier: multiplier(), Shift: shift(32, 40)}, num.Scale{Multiplier: multiplier(), Shift: shift(32, 62)}
		a.Left = shift(0, 31)
	case 2: // anything
		s := func() num.Scale { return num.Scale{Multiplier: rng.Int32() >> rng.IntN(31), Shift: shift(1, 62)} }
		a.X, a.Y, a.Out, a.Left, a.Twice = s(), s(), s(), shift(0, 31), rng.IntN(4) > 0
	default: // as TFLite has it
		a.Twice, a.Left = true, 20
		if hi > 255 {
			a.Left = 15
		}
		a.X, a.Y = num.Scale{Multiplier: multiplier(), Shift: shift(31, 36)}, num.Scale{Multiplier: 1 << 30, Shift: 31}
		if rng.IntN(8) == 0 {
			a.X = num.Scale{Multiplier: multiplier(), Shift: shift(31, 62)}
		}
		if rng.IntN(2) == 0 {
			a.X, a.Y = a.Y, a.X
		}
		a.Out = num.Scale{Multiplier: multiplier(), Shift: shift(46, 54)}
	}
	return a
}

// All tiers against plain Go, for every length up to several blocks, with one y
// and with many, in place and not.
func TestPair(t *testing.T) {
	each(t, func(t *testing.T, tier *tier) {
		rng := rand.New(rand.NewPCG(21, 22))
		p, plain := NewPair(), NewPair()
		p.tier, plain.tier = tier, tiers()[len(tiers())-1]
		kernels := map[int]int{}
		swapped := 0
		for n := 1; n <= 140; n++ {
			for round := range 54 {
				typ := []Type{Int8, Uint8, Int16}[round/6%3]
				op := PairOp(round / 18)
				size, lo, hi := typ.Size(), int32(-128), int32(127)
				switch typ {
				case Uint8:
					lo, hi = 0, 255
				case Int16:
					lo, hi = -32768, 32767
				}
				a := randomPair(rng, round, lo, hi)
				p.Set(a, op, typ)
				plain.Set(a, op, typ)
				kernels[p.kernel]++
				if p.swapped() {
					swapped++
				}
				x, y := make([]byte, n*size), make([]byte, n*size)
				for i := range x {
					x[i], y[i] = byte(rng.Uint32()), byte(rng.Uint32())
				}
				if rng.IntN(4) == 0 {
					y = y[:size]
				}
				want, got := make([]byte, n*size), make([]byte, n*size+1)
				plain.Row(want, x, y)
				z := got[:n*size]
				from := x
				if rng.IntN(3) == 0 {
					copy(z, x)
					from = z
				}
				p.Row(z, from, y)
				if !bytes.Equal(z, want) || got[n*size] != 0 {
					i := 0
					for i < n*size && z[i] == want[i] {
						i++
					}
					t.Fatalf("kernel %d: %+v, op %d, type %d, %d elements, one y %t: byte %d differs\n% x, want\n% x", p.kernel, a, op, typ, n, len(y) == size, i, z, want)
				}
			}
		}
		want := 14
		if tier.name == "go" {
			want = 1
		}
		if len(kernels) != want || want > 1 && swapped == 0 {
			t.Errorf("kernels %v, want %d; %d times swapped", kernels, want, swapped)
		}
	})
}

// All pairs of bytes and many scales, as TFLite has them.
func TestPairHalf(t *testing.T) {
	var x, y [1 << 16]byte
	for i := range x {
		x[i], y[i] = byte(i>>8), byte(i)
	}
	fast(t, func(t *testing.T, u, _ *Unit) {
		rng := rand.New(rand.NewPCG(23, 24))
		p, plain := NewPair(), NewPair()
		p.tier, plain.tier = u.tier, tiers()[len(tiers())-1]
		var got, want [1 << 16]byte
		for range 20 {
			a := randomPair(rng, 3, -128, 127)
			a.Lo, a.Hi, a.X.Shift, a.Y.Shift = -128, 127, min(a.X.Shift, 48), min(a.Y.Shift, 48)
			p.Set(a, PairAdd, Int8)
			plain.Set(a, PairAdd, Int8)
			if p.kernel != pairHalf {
				t.Fatalf("%+v has kernel %d", a, p.kernel)
			}
			p.Row(got[:], x[:], y[:])
			plain.Row(want[:], x[:], y[:])
			if i := 0; got != want {
				for got[i] == want[i] {
					i++
				}
				t.Fatalf("%+v of %d and %d: %d, want %d", a, int8(x[i]), int8(y[i]), int8(got[i]), int8(want[i]))
			}
		}
	})
}

func BenchmarkPair(b *testing.B) {
	scale := num.Scale{Multiplier: 1503238553, Shift: 32}
	two := num.Pair{Twice: true, Left: 20, Lo: -128, Hi: 127, X: num.Scale{Multiplier: 1 << 30, Shift: 31}, Y: scale, Out: num.Scale{Multiplier: 1503238553, Shift: 50}}
	general := two
	general.X = scale
	one := general
	one.Twice = false
	for _, tier := range tiers() {
		for name, a := range map[string]num.Pair{"half": two, "two": general, "one": one, "float": {Float: true, A: 0.7, B: 0.6, C: 1, Lo: -128, Hi: 127}} {
			for typeName, typ := range map[string]Type{"int8": Int8, "int16": Int16} {
				b.Run(tier.name+"/"+name+"/"+typeName, func(b *testing.B) {
					p := NewPair()
					p.tier = tier
					p.Set(a, PairAdd, typ)
					x, y, z := make([]byte, 64<<10), make([]byte, 64<<10), make([]byte, 64<<10)
					for i := range x {
						x[i], y[i] = byte(i*7), byte(i*11)
					}
					for b.Loop() {
						p.Row(z, x, y)
					}
					b.ReportMetric(float64(len(x)/typ.Size())*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gelem/s")
				})
			}
		}
	}
}
