// SPDX-License-Identifier: Apache-2.0

package num

import "math"

// MulAcc is one step of an integer product: acc + (a − za)·(w − zw), modulo 2³² (§6.8.1).
func MulAcc(acc, a, w, za, zw int32) int32 { return acc + (a-za)*(w-zw) }

// MultiplyTwice is x times s, rounded twice as TFLite does: a doubling high
// multiply, then a division by a power of two (§6.9.2).
func (s Scale) MultiplyTwice(x int32) int32 {
	if s.Shift <= 31 {
		return MulHigh(x<<(31-s.Shift), s.Multiplier)
	}
	return DivPow2(MulHigh(x, s.Multiplier), s.Shift-31)
}

// MulHigh is a·b / 2³¹ rounded to nearest with ties toward +∞, and saturated:
// only −2³¹ · −2³¹ is too large (§6.9.2).
func MulHigh(a, b int32) int32 {
	return int32(min((int64(a)*int64(b)+1<<30)>>31, math.MaxInt32))
}

// DivPow2 is x / 2^n rounded to nearest with ties away from 0, 0 ≤ n ≤ 31 (§6.9.2).
func DivPow2(x int32, n uint8) int32 {
	half := int64(1) << n >> 1
	if x < 0 {
		return int32(-((-int64(x) + half) >> n))
	}
	return int32((int64(x) + half) >> n)
}

// MultiplyFloat is x times scale in fp32, rounded to an integer with ties to even (§6.9.3).
func MultiplyFloat(x int32, scale float32) int32 {
	return ToInt32(Mul32(FromInt32(x), scale))
}

// Place adds the zero point to a scaled value and clamps it to [lo, hi] (§6.9).
func Place(r int64, zero, lo, hi int32) int32 {
	return int32(min(max(r+int64(zero), int64(lo)), int64(hi)))
}

// Quantize is ONNX's QuantizeLinear: x / scale rounded to an integer, plus the
// zero point, clamped to [lo, hi] (§6.9.4).
func Quantize(x, scale float32, zero, lo, hi int32) int32 {
	return Place(int64(ToInt32(Div32(x, scale))), zero, lo, hi)
}

// Dequantize is ONNX's DequantizeLinear: (q − zero) · scale (§6.9.4).
func Dequantize(q, zero int32, scale float32) float32 {
	return Mul32(FromInt32(q-zero), scale)
}

// Average is sum / n rounded to nearest with ties away from 0; n is at least 1 (§6.9.5).
func Average(sum, n int32) int32 {
	s, d := int64(sum), int64(n)
	if s < 0 {
		return int32(-((-2*s + d) / (2 * d)))
	}
	return int32((2*s + d) / (2 * d))
}

// AddSat is x + y saturated to int32 (§6.10).
func AddSat(x, y int32) int32 { return saturate64(int64(x) + int64(y)) }

// SubSat is x − y saturated to int32 (§6.10).
func SubSat(x, y int32) int32 { return saturate64(int64(x) - int64(y)) }

func saturate64(v int64) int32 { return int32(min(max(v, math.MinInt32), math.MaxInt32)) }

// ShiftLeft is x·2^n modulo 2³², 0 if n ≥ 32 (§6.10).
func ShiftLeft(x int32, n uint32) int32 { return x << n }

// ShiftRight is floor(x / 2^n), which for n ≥ 32 is the sign (§6.10).
func ShiftRight(x int32, n uint32) int32 { return x >> n }

// ShiftRightLogical shifts zeros in from above (§6.10).
func ShiftRightLogical(x int32, n uint32) int32 { return int32(uint32(x) >> n) }

// ShiftRightRound is x / 2^n rounded to nearest with ties toward +∞ (§6.10).
func ShiftRightRound(x int32, n uint32) int32 {
	n = min(n, 33) // from there on the result is 0
	return int32((int64(x) + int64(1)<<n>>1) >> n)
}

// Quant says which real values the integers of a tensor stand for: (q − Zero)·Scale.
type Quant struct {
	Scale float32 // finite, above 0
	Zero  int32
}

// Table is the table of an int8 activation function that quantizes f of the
// dequantized operand. Entry i is for the operand with encoding i (§6.13).
func Table(f func(float32) float32, in, out Quant) (t [256]int8) {
	for i := range t {
		x := Dequantize(int32(int8(i)), in.Zero, in.Scale)
		t[i] = int8(Quantize(f(x), out.Scale, out.Zero, math.MinInt8, math.MaxInt8))
	}
	return t
}
