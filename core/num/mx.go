// SPDX-License-Identifier: Apache-2.0

package num

import "math"

// MX is a format of the OCP microscaling formats specification 1.0 (§6.16): blocks
// of MXBlock elements, each block with a scale of type E8M0.
type MX uint8

// The formats.
const (
	NotMX  MX = 0
	MXE4M3 MX = 1 // MXFP8
	MXE5M2 MX = 2 // MXFP8
	MXE3M2 MX = 3 // MXFP6
	MXE2M3 MX = 4 // MXFP6
	MXE2M1 MX = 5 // MXFP4
	MXInt8 MX = 6 // MXINT8
)

// MXBlock is how many elements share a scale.
const MXBlock = 32

// Bits is the size of an element.
func (f MX) Bits() uint64 {
	switch f {
	case MXE3M2, MXE2M3:
		return 6
	case MXE2M1:
		return 4
	}
	return 8
}

// Bytes is the size of n elements that follow each other from a byte boundary.
func (f MX) Bytes(n uint64) uint64 { return (n*f.Bits() + 7) / 8 }

// Code is the encoding of element i of the row that begins with row: bits
// i·Bits … of the row's bytes as one little-endian number.
func (f MX) Code(row []byte, i int) uint8 {
	n := int(f.Bits())
	at := i * n
	v := uint16(row[at/8])
	if at%8+n > 8 {
		v |= uint16(row[at/8+1]) << 8
	}
	return uint8(v>>(at%8)) & uint8(1<<n-1)
}

// mxFloats are the types of elements without infinity and NaN.
var mxFloats = [...]struct {
	fraction uint
	bias     int
}{MXE3M2: {2, 3}, MXE2M3: {3, 1}, MXE2M1: {1, 1}}

// Element is the value of an element with the given encoding, exactly; the
// canonical NaN if it is one.
func (f MX) Element(code uint8) float32 {
	switch f {
	case MXE4M3:
		return E4M3(code).Float32()
	case MXE5M2:
		return E5M2(code).Float32()
	case MXInt8:
		return float32(int8(code)) / 64
	}
	t := mxFloats[f]
	sign := code >> (f.Bits() - 1)
	code &^= 1 << (f.Bits() - 1)
	e, m := int(code>>t.fraction), int(code)&(1<<t.fraction-1)
	if e > 0 {
		m |= 1 << t.fraction
	} else {
		e = 1
	}
	x := float32(math.Ldexp(float64(m), e-t.bias-int(t.fraction)))
	if sign != 0 {
		return -x
	}
	return x
}

// MXValue is scale · element, rounded to fp32 once, to nearest with ties to even;
// NaN if either is (§6.16.2).
func MXValue(scale uint8, element float32) float32 {
	if scale == 0xff {
		return math.Float32frombits(NaN)
	}
	// Few bits and exponents from −127 − 16 to 127 + 15: exact in fp64.
	return Canon(float32(math.Ldexp(float64(element), int(scale)-127)))
}
