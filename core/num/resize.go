// SPDX-License-Identifier: Apache-2.0

package num

import "math"

// An Axis says which elements of a line element i of a resized line is made of (§6.15).
type Axis struct {
	Half, Center bool
	Mul, Div     float32 // above 0, or 0 to leave the step out
	First, Last  int     // the indexes that there are
}

// At is the coordinate of element i, in elements of the original (§6.15.1).
func (a Axis) At(i int) float32 {
	s := float32(i) // below 2²⁴
	if a.Half {
		s = Add32(s, 0.5)
	}
	if a.Mul != 0 {
		s = Mul32(s, a.Mul)
	}
	if a.Div != 0 {
		s = Div32(s, a.Div)
	}
	if a.Center {
		s = Sub32(s, 0.5)
	}
	return s
}

// clamp is the index that there is next to v, an integer or an infinity.
func (a Axis) clamp(v float64) int {
	return int(min(max(v, float64(a.First)), float64(a.Last)))
}

// Floor is the nearest element to i that is not behind it (§6.15.2).
func (a Axis) Floor(i int) int { return a.clamp(math.Floor(float64(a.At(i)))) }

// Ceil is the nearest element to i that is not before it (§6.15.2).
func (a Axis) Ceil(i int) int { return a.clamp(math.Ceil(float64(a.At(i)))) }

// RoundDown is the nearest element to i, of two the lower (§6.15.2).
func (a Axis) RoundDown(i int) int { return a.clamp(math.Ceil(float64(a.At(i)) - 0.5)) }

// RoundUp is the nearest element to i, of two the higher (§6.15.2).
func (a Axis) RoundUp(i int) int { return a.clamp(math.Floor(float64(a.At(i)) + 0.5)) }

// Between is the two neighbours of element i and how far it is from the first to
// the second, 0 to 1 where they differ (§6.15.3).
func (a Axis) Between(i int) (lo, hi int, f float32) {
	s := a.At(i)
	floor := math.Floor(float64(s))
	return a.clamp(floor), a.clamp(math.Ceil(float64(s))), Sub32(s, float32(floor))
}

// Lerp is the value at f between x and y: x where lo = hi (§6.15.3).
func Lerp(x, y, f float32) float32 { return FMA32(f, Sub32(y, x), x) }

// FixedAxis is an Axis of TFLite's integers: coordinates in units of 2⁻¹⁰ (§6.15.4).
type FixedAxis struct {
	Half, Center bool
	Step         int64 // 1 … 65535·2¹⁰
	First, Last  int
}

// Between is Axis.Between with f in units of 2⁻¹⁰.
func (a FixedAxis) Between(i int) (lo, hi int, f int64) {
	s := int64(i) * a.Step
	if a.Half {
		s += a.Step / 2
	}
	if a.Center {
		s -= 1 << 9
	}
	clamp := func(v int64) int { return int(min(max(v, int64(a.First)), int64(a.Last))) }
	return clamp(s >> 10), clamp((s + 1<<10 - 1) >> 10), s & (1<<10 - 1)
}

// Interpolate is the value at (fx, fy), both in units of 2⁻¹⁰, between a b in the
// upper line and c d in the lower one, to nearest with ties away from 0 (§6.15.4).
func Interpolate(a, b, c, d int32, fx, fy int64) int32 {
	const one = 1 << 10
	v := int64(a)*(one-fx)*(one-fy) + int64(b)*fx*(one-fy) + int64(c)*(one-fx)*fy + int64(d)*fx*fy
	if v < 0 {
		return int32(-((-v + 1<<19) >> 20))
	}
	return int32((v + 1<<19) >> 20)
}
