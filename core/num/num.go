// SPDX-License-Identifier: Apache-2.0

// Package num is the arithmetic of the compute core, exactly as
// docs/spec/numerics.md (§6, up to architecture 1.5) defines it: a plain
// reference, each function a definition of that page, for faster code to be
// compared with. It gives the same bits on every processor and with every
// setting of the compiler.
package num

// MaxShift is the largest shift of a Scale. The product of §6.3 needs 63 bits,
// so a larger shift could only ever give 0 or −1.
const MaxShift = 62

// Scale is the real factor Multiplier / 2^Shift of §6.3.
type Scale struct {
	Multiplier int32 // at least 0
	Shift      uint8 // 1 … MaxShift
}

// Valid reports whether s is a scale that §6.3 allows.
func (s Scale) Valid() bool {
	return s.Multiplier >= 0 && s.Shift >= 1 && s.Shift <= MaxShift
}

// Requantize turns accumulator x into an int8: x times s, rounded once to
// nearest with ties toward +∞, plus the zero point, clamped to [lo, hi] (§6.3).
// s must be Valid and lo at most hi.
func Requantize(x int32, s Scale, zero, lo, hi int8) int8 {
	return Clamp(s.Multiply(x)+int64(zero), lo, hi)
}

// Multiply is x times s, rounded once to nearest with ties toward +∞: r of §6.3,
// and TFLite's rounding of one step (§6.9.1).
func (s Scale) Multiply(x int32) int64 {
	// |x·q| ≤ 2³¹·(2³¹−1) and the rounding term is at most 2⁶¹: no overflow.
	p := int64(x) * int64(s.Multiplier)
	return (p + 1<<(s.Shift-1)) >> s.Shift
}

// Clamp saturates v to [lo, hi]; lo must be at most hi.
func Clamp(v int64, lo, hi int8) int8 {
	return int8(min(max(v, int64(lo)), int64(hi)))
}
