// SPDX-License-Identifier: Apache-2.0

package ir

import (
	"fmt"
	"math"
	"slices"
)

// Type is the type of a tensor's elements.
type Type uint8

const (
	Invalid    Type = iota
	Int4            // two in a byte, the first in bits 3:0 (§6.5)
	Uint4           // likewise
	Int8            //
	Uint8           //
	Int16           //
	Uint16          // at model level only, as are all 64-bit types
	Int32           //
	Uint32          //
	Int64           //
	Uint64          //
	Bool            // a byte, 0 or 1
	Float16         //
	BFloat16        //
	Float8E4M3      // OCP E4M3, without infinities
	Float8E5M2      //
	Float32         //
	Float64         //
)

// types holds for each Type its name, the bits of an element and what kind of number it is.
var types = [...]struct {
	name          string
	bits          int
	float, signed bool
}{
	Invalid:    {"invalid", 0, false, false},
	Int4:       {"int4", 4, false, true},
	Uint4:      {"uint4", 4, false, false},
	Int8:       {"int8", 8, false, true},
	Uint8:      {"uint8", 8, false, false},
	Int16:      {"int16", 16, false, true},
	Uint16:     {"uint16", 16, false, false},
	Int32:      {"int32", 32, false, true},
	Uint32:     {"uint32", 32, false, false},
	Int64:      {"int64", 64, false, true},
	Uint64:     {"uint64", 64, false, false},
	Bool:       {"bool", 8, false, false},
	Float16:    {"float16", 16, true, true},
	BFloat16:   {"bfloat16", 16, true, true},
	Float8E4M3: {"float8e4m3", 8, true, true},
	Float8E5M2: {"float8e5m2", 8, true, true},
	Float32:    {"float32", 32, true, true},
	Float64:    {"float64", 64, true, true},
}

// String is the type's name in the text form.
func (t Type) String() string {
	if int(t) >= len(types) {
		return fmt.Sprintf("type(%d)", uint8(t))
	}
	return types[t].name
}

// Valid reports whether t is one of the types above other than Invalid.
func (t Type) Valid() bool { return t != Invalid && int(t) < len(types) }

// Bits is how many bits an element has.
func (t Type) Bits() int { return types[t].bits }

// Float reports whether t is a floating-point type.
func (t Type) Float() bool { return types[t].float }

// Integer reports whether t is an integer type; Bool is none.
func (t Type) Integer() bool { return t.Valid() && !types[t].float && t != Bool }

// Signed reports whether t has numbers below 0.
func (t Type) Signed() bool { return types[t].signed }

// Range is the smallest and the largest number of an integer type; of Uint64 the largest
// that an int64 can hold.
func (t Type) Range() (lo, hi int64) {
	bits := t.Bits()
	if t == Bool {
		return 0, 1
	}
	if t.Signed() {
		return math.MinInt64 >> (64 - bits), math.MaxInt64 >> (64 - bits)
	}
	return 0, math.MaxInt64 >> (63 - min(bits, 63))
}

// Bytes is how many bytes n elements have, or −1 if that is more than MaxBytes.
func (t Type) Bytes(n int) int {
	if n < 0 || n > MaxBytes {
		return -1
	}
	size := (int64(n)*int64(t.Bits()) + 7) / 8
	if size > MaxBytes {
		return -1
	}
	return int(size)
}

// MaxBytes is the size of the largest tensor: what a binding's 40-bit offset reaches would be
// more, but no tensor of a model that this card can hold has 4 GiB.
const MaxBytes = 1<<32 - 1

// ParseType is the type of that name, which may be Invalid: tensors of a model have it until pass.Infer.
func ParseType(name string) (Type, bool) {
	i := slices.IndexFunc(types[:], func(t struct {
		name          string
		bits          int
		float, signed bool
	}) bool {
		return t.name == name
	})
	if i < 0 {
		return Invalid, false
	}
	return Type(i), true
}

// Elements is the product of a shape's dimensions, 1 of a scalar's; −1 if a dimension is
// below 0 or the product above MaxBytes.
func Elements(shape []int) int {
	n := int64(1)
	zero := false
	for _, d := range shape {
		if d < 0 || d > MaxBytes {
			return -1
		}
		if d == 0 {
			zero = true
			continue
		}
		n *= int64(d)
		if n > MaxBytes {
			return -1
		}
	}
	if zero {
		return 0
	}
	return int(n)
}
