// SPDX-License-Identifier: Apache-2.0

package num

import "math"

// BF16 is the encoding of a bf16: 1 sign, 8 exponent and 7 fraction bits (§6.5).
type BF16 uint16

// FP16 is the encoding of an IEEE 754 binary16 (§6.5).
type FP16 uint16

// E4M3 is the encoding of an OCP fp8 of 4 exponent and 3 fraction bits: it has no
// infinity, and one NaN for each sign (§6.5).
type E4M3 uint8

// E5M2 is the encoding of an OCP fp8 of 5 exponent and 2 fraction bits (§6.5).
type E5M2 uint8

// NaN is the encoding of the only fp32 NaN that an operation of §6 produces.
const NaN = 0x7fc00000

// format is how a floating-point type lays out its bits (§6.5).
type format struct {
	bits, fraction uint32 // of the whole, and of the fraction
	bias           int32
	max            uint32 // encoding of the largest finite value
	inf            uint32 // of infinity; nan where there is none
	nan            uint32 // of the canonical NaN
}

var (
	bf16 = format{bits: 16, fraction: 7, bias: 127, max: 0x7f7f, inf: 0x7f80, nan: 0x7fc0}
	fp16 = format{bits: 16, fraction: 10, bias: 15, max: 0x7bff, inf: 0x7c00, nan: 0x7e00}
	e4m3 = format{bits: 8, fraction: 3, bias: 7, max: 0x7e, inf: 0x7f, nan: 0x7f}
	e5m2 = format{bits: 8, fraction: 2, bias: 15, max: 0x7b, inf: 0x7c, nan: 0x7e}
)

// Float32 is the exact value of v, the canonical NaN if v is one (§6.6).
func (v BF16) Float32() float32 { return bf16.widen(uint32(v)) }

// Float32 is the exact value of v, the canonical NaN if v is one (§6.6).
func (v FP16) Float32() float32 { return fp16.widen(uint32(v)) }

// Float32 is the exact value of v, the canonical NaN if v is one (§6.6).
func (v E4M3) Float32() float32 { return e4m3.widen(uint32(v)) }

// Float32 is the exact value of v, the canonical NaN if v is one (§6.6).
func (v E5M2) Float32() float32 { return e5m2.widen(uint32(v)) }

// ToBF16 rounds x to nearest, ties to even; what is too large becomes an infinity (§6.6).
func ToBF16(x float32) BF16 { return BF16(bf16.narrow(x, false)) }

// ToFP16 rounds x to nearest, ties to even; what is too large becomes an infinity (§6.6).
func ToFP16(x float32) FP16 { return FP16(fp16.narrow(x, false)) }

// ToE4M3 rounds x to nearest, ties to even; what is too large becomes NaN (§6.6, non-saturating).
func ToE4M3(x float32) E4M3 { return E4M3(e4m3.narrow(x, false)) }

// ToE4M3Sat is ToE4M3, except that what is too large becomes ±448 (§6.6, saturating).
func ToE4M3Sat(x float32) E4M3 { return E4M3(e4m3.narrow(x, true)) }

// ToE5M2 rounds x to nearest, ties to even; what is too large becomes an infinity (§6.6, non-saturating).
func ToE5M2(x float32) E5M2 { return E5M2(e5m2.narrow(x, false)) }

// ToE5M2Sat is ToE5M2, except that what is too large becomes ±57344 (§6.6, saturating).
func ToE5M2Sat(x float32) E5M2 { return E5M2(e5m2.narrow(x, true)) }

func (f *format) widen(v uint32) float32 {
	sign := v >> (f.bits - 1)
	v &^= 1 << (f.bits - 1)
	switch {
	case v == f.inf && f.inf != f.nan:
		return math.Float32frombits(sign<<31 | 0x7f800000)
	case v > f.max:
		return math.Float32frombits(NaN)
	}
	e, m := int32(v>>f.fraction), v&(1<<f.fraction-1)
	if e > 0 {
		m |= 1 << f.fraction
	} else {
		e = 1
	}
	// At most 8 bits of bf16 or 11 of fp16 and an exponent that fp32 has: exact.
	x := float32(math.Ldexp(float64(m), int(e-f.bias-int32(f.fraction))))
	return math.Float32frombits(sign<<31 | math.Float32bits(x))
}

func (f *format) narrow(x float32, saturate bool) uint32 {
	b := math.Float32bits(x)
	sign := b >> 31 << (f.bits - 1)
	b &= 0x7fffffff
	if b > 0x7f800000 {
		return f.nan
	}
	// |x| is m · 2^(e−23). q is the exponent of the unit that the result counts in.
	e, m := int32(b>>23)-127, b&0x7fffff
	if e > -127 {
		m |= 0x800000
	} else {
		e = -126
	}
	emin := 1 - f.bias
	q := max(e, emin) - int32(f.fraction)
	r := shiftEven(m, uint32(q-(e-23)))
	// The leading 1 of a normal r adds 1 to the exponent field, and so does a carry of the rounding.
	v := r + uint32(max(e-emin, 0))<<f.fraction
	switch {
	case v <= f.max:
		return sign | v
	case saturate:
		return sign | f.max
	case f.inf == f.nan:
		return f.nan
	}
	return sign | f.inf
}

// shiftEven is m / 2^n rounded to nearest, ties to even; m has at most 24 bits.
func shiftEven(m, n uint32) uint32 {
	if n == 0 {
		return m
	}
	n = min(n, 30) // 2^24 / 2^30 rounds to 0 as every smaller value does
	half := uint32(1) << (n - 1)
	r, rest := m>>n, m&(1<<n-1)
	if rest > half || rest == half && r&1 == 1 {
		r++
	}
	return r
}

// UnpackInt4 gives the two int4 of a byte: the first, of bits 3:0, and the
// second, of bits 7:4 (§6.5).
func UnpackInt4(b byte) (first, second int8) {
	return int8(b<<4) >> 4, int8(b) >> 4
}

// PackInt4 is the inverse of UnpackInt4. Of each argument it takes the low four bits.
func PackInt4(first, second int8) byte {
	return byte(first)&15 | byte(second)<<4
}

// FromBits is the fp32 with encoding b, the canonical NaN if it is one.
func FromBits(b uint32) float32 { return Canon(math.Float32frombits(b)) }

// FromInt32 is v rounded to nearest, ties to even; exact where |v| ≤ 2²⁴ (§6.6).
func FromInt32(v int32) float32 { return float32(v) }

// ToInt32 rounds x to the nearest integer, ties to even, and saturates; NaN becomes 0 (§6.6).
func ToInt32(x float32) int32 { return saturate32(math.RoundToEven(float64(x))) }

// TruncInt32 rounds x toward zero and saturates; NaN becomes 0 (§6.6).
func TruncInt32(x float32) int32 { return saturate32(math.Trunc(float64(x))) }

func saturate32(x float64) int32 {
	switch {
	case x != x:
		return 0
	case x >= math.MaxInt32:
		return math.MaxInt32
	case x <= math.MinInt32:
		return math.MinInt32
	}
	return int32(x)
}

// Sat16 saturates v to int16 (§6.6).
func Sat16(v int32) int16 { return int16(min(max(v, math.MinInt16), math.MaxInt16)) }

// Sat8 saturates v to int8 (§6.6).
func Sat8(v int32) int8 { return int8(min(max(v, math.MinInt8), math.MaxInt8)) }

// SatU8 saturates v to uint8 (§6.6).
func SatU8(v int32) uint8 { return uint8(min(max(v, 0), math.MaxUint8)) }

// Sat4 saturates v to int4, −8 … 7 (§6.6).
func Sat4(v int32) int8 { return int8(min(max(v, -8), 7)) }
