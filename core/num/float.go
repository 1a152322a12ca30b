// SPDX-License-Identifier: Apache-2.0

package num

import "math"

// Every product and quotient below that an addition could follow is converted
// explicitly: the Go language lets a compiler fuse x·y + z, and on some
// processors it does, but never across a conversion.

// Canon is x, or the canonical NaN if x is one (§6.7).
func Canon(x float32) float32 {
	if x != x {
		return math.Float32frombits(NaN)
	}
	return x
}

// FMA32 is a·b + c with one rounding, to nearest with ties to even (§6.7).
func FMA32(a, b, c float32) float32 {
	p := float64(float64(a) * float64(b)) // 48 bits at most: exact
	z := float64(c)
	// s + e is p + z exactly (Knuth's two-sum).
	s := p + z
	t := s - p
	e := (p - (s - t)) + (z - t)
	if e != 0 && e-e == 0 { // e is NaN where an operand is infinite: then s is right
		// Round to odd: a sum that is not exact gets an odd last bit, so that it is no
		// tie of the narrower type, and the rounding below is as if of the exact sum.
		u := math.Float64bits(s)
		if u&1 == 0 {
			if (e > 0) == (s > 0) {
				u++
			} else {
				u--
			}
		}
		s = math.Float64frombits(u)
	}
	return Canon(float32(s))
}

// Add32 is x + y (§6.7).
func Add32(x, y float32) float32 { return Canon(float32(x + y)) }

// Sub32 is x − y (§6.7).
func Sub32(x, y float32) float32 { return Canon(float32(x - y)) }

// Mul32 is x·y (§6.7).
func Mul32(x, y float32) float32 { return Canon(float32(x * y)) }

// Div32 is x / y (§6.7).
func Div32(x, y float32) float32 { return Canon(float32(x / y)) }

// Sqrt32 is the square root of x (§6.7). The double rounding is harmless: fp64
// has more than 2·24 + 2 bits.
func Sqrt32(x float32) float32 { return Canon(float32(math.Sqrt(float64(x)))) }

// Min32 is the smaller of x and y, −0 being smaller than +0, and NaN if either is (§6.7).
func Min32(x, y float32) float32 { return Canon(min(x, y)) }

// Max32 is the larger of x and y, +0 being larger than −0, and NaN if either is (§6.7).
func Max32(x, y float32) float32 { return Canon(max(x, y)) }
