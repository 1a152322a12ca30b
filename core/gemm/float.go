// SPDX-License-Identifier: Apache-2.0

package gemm

import (
	"encoding/binary"
	"math"
	"unsafe"
)

// Type is the type of a float operand.
type Type uint8

// Types of operands.
const (
	Float32  Type = iota
	BFloat16      // binary32 without its low 16 bits
	Float16       // binary16
	E4M3          // OCP 8-bit, 4 bits of exponent: no infinities, S.1111.111 is NaN
	E5M2          // OCP 8-bit, 5 bits of exponent: the upper half of a binary16
	typeInt8
)

// Size is the size of an element in bytes.
func (t Type) Size() int {
	switch t {
	case Float32:
		return 4
	case BFloat16, Float16:
		return 2
	case E4M3, E5M2, typeInt8:
		return 1
	}
	panic("gemm: BUG: unknown type")
}

// wide reports whether operands of the type are widened before they are packed.
func (t Type) wide() bool { return t != Float32 && t != typeInt8 }

// widenGo writes len(dst) elements at src as binary32, in plain Go.
func widenGo(dst []float32, src *byte, t Type) {
	from := unsafe.Slice(src, len(dst)*t.Size())
	switch t {
	case Float32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(from[4*i:]))
		}
	case BFloat16:
		for i := range dst {
			dst[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(from[2*i:])) << 16)
		}
	case Float16:
		for i := range dst {
			dst[i] = half(binary.LittleEndian.Uint16(from[2*i:]))
		}
	case E4M3:
		for i := range dst {
			dst[i] = e4m3(from[i])
		}
	case E5M2:
		for i := range dst {
			dst[i] = half(uint16(from[i]) << 8)
		}
	}
}

// half widens a binary16.
func half(h uint16) float32 {
	sign, exp, frac := uint32(h>>15)<<31, uint32(h>>10&31), uint32(h&0x3ff)
	switch exp {
	case 31:
		return math.Float32frombits(sign | 0xff<<23 | frac<<13)
	case 0:
		return small(sign, frac, 1.0/(1<<24))
	}
	return math.Float32frombits(sign | (exp+127-15)<<23 | frac<<13)
}

// e4m3 widens an E4M3.
func e4m3(b byte) float32 {
	sign, exp, frac := uint32(b>>7)<<31, uint32(b>>3&15), uint32(b&7)
	switch {
	case exp == 15 && frac == 7:
		return math.Float32frombits(sign | 0x7fc00000)
	case exp == 0:
		return small(sign, frac, 1.0/(1<<9))
	}
	return math.Float32frombits(sign | (exp+127-7)<<23 | frac<<20)
}

// small is a subnormal: frac units with a sign.
func small(sign, frac uint32, unit float32) float32 {
	return math.Float32frombits(sign | math.Float32bits(float32(frac)*unit))
}

// fma is a·b + c, rounded once.
func fma(a, b, c float32) float32 {
	p := float64(a) * float64(b) // exact: 48 bits
	s := p + float64(c)
	r := float32(s)
	// Two roundings differ from one only if the first made a tie of the second,
	// which is looked for at any place that the second may round at.
	if math.Float64bits(s)&0x0fff_ffff != 0 && math.Abs(s) > 0x1p-126 || math.IsInf(s, 0) || s != s {
		return r
	}
	// What p + c lost, exactly (Knuth's two-sum), makes s odd.
	t := s - p
	lost := (p - (s - t)) + (float64(c) - t)
	if bits := math.Float64bits(s); lost != 0 && bits&1 == 0 {
		// s lies above the sum if lost points to 0, and below if away from it.
		if (lost > 0) == (s > 0) {
			bits++
		} else {
			bits--
		}
		r = float32(math.Float64frombits(bits))
	}
	return r
}
