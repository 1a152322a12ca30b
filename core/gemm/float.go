// SPDX-License-Identifier: Apache-2.0

package gemm

import (
	"encoding/binary"
	"math"
	"unsafe"

	"npuemu/core/num"
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
			dst[i] = num.BF16(binary.LittleEndian.Uint16(from[2*i:])).Float32()
		}
	case Float16:
		for i := range dst {
			dst[i] = num.FP16(binary.LittleEndian.Uint16(from[2*i:])).Float32()
		}
	case E4M3:
		for i := range dst {
			dst[i] = num.E4M3(from[i]).Float32()
		}
	case E5M2:
		for i := range dst {
			dst[i] = num.E5M2(from[i]).Float32()
		}
	}
}
