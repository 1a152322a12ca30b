// SPDX-License-Identifier: Apache-2.0

package ref

import (
	"encoding/binary"
	"math"

	"npuemu/compiler/ir"
	"npuemu/core/num"
)

var le = binary.LittleEndian

// Ints are the elements of a tensor of an integer type or of Bool.
func Ints(t ir.Type, data []byte, n int) []int64 {
	out := make([]int64, n)
	for i := range out {
		switch t {
		case ir.Int4:
			out[i] = int64(int8(data[i/2]>>(i%2*4)<<4) >> 4)
		case ir.Uint4:
			out[i] = int64(data[i/2] >> (i % 2 * 4) & 15)
		case ir.Int8:
			out[i] = int64(int8(data[i]))
		case ir.Uint8, ir.Bool:
			out[i] = int64(data[i])
		case ir.Int16:
			out[i] = int64(int16(le.Uint16(data[2*i:])))
		case ir.Uint16:
			out[i] = int64(le.Uint16(data[2*i:]))
		case ir.Int32:
			out[i] = int64(int32(le.Uint32(data[4*i:])))
		case ir.Uint32:
			out[i] = int64(le.Uint32(data[4*i:]))
		default:
			out[i] = int64(le.Uint64(data[8*i:]))
		}
	}
	return out
}

// PutInts is the data of a tensor of an integer type or of Bool; of each value the low bits count.
func PutInts(t ir.Type, v []int64) []byte {
	out := make([]byte, t.Bytes(len(v)))
	for i, x := range v {
		switch t.Bits() {
		case 4:
			out[i/2] |= byte(x&15) << (i % 2 * 4)
		case 8:
			out[i] = byte(x)
		case 16:
			le.PutUint16(out[2*i:], uint16(x))
		case 32:
			le.PutUint32(out[4*i:], uint32(x))
		default:
			le.PutUint64(out[8*i:], uint64(x))
		}
	}
	return out
}

// Floats are the elements of a tensor of a floating-point type, exact except those of Float64.
func Floats(t ir.Type, data []byte, n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		switch t {
		case ir.Float32:
			out[i] = math.Float32frombits(le.Uint32(data[4*i:]))
		case ir.Float16:
			out[i] = num.FP16(le.Uint16(data[2*i:])).Float32()
		case ir.BFloat16:
			out[i] = num.BF16(le.Uint16(data[2*i:])).Float32()
		case ir.Float8E4M3:
			out[i] = num.E4M3(data[i]).Float32()
		case ir.Float8E5M2:
			out[i] = num.E5M2(data[i]).Float32()
		default:
			out[i] = float32(math.Float64frombits(le.Uint64(data[8*i:])))
		}
	}
	return out
}

// PutFloats is the data of a tensor of a floating-point type (§6.6).
func PutFloats(t ir.Type, v []float32, saturate bool) []byte {
	out := make([]byte, t.Bytes(len(v)))
	for i, x := range v {
		switch t {
		case ir.Float32:
			le.PutUint32(out[4*i:], math.Float32bits(num.Canon(x)))
		case ir.Float16:
			le.PutUint16(out[2*i:], uint16(num.ToFP16(x)))
		case ir.BFloat16:
			le.PutUint16(out[2*i:], uint16(num.ToBF16(x)))
		case ir.Float8E4M3:
			if saturate {
				out[i] = byte(num.ToE4M3Sat(x))
			} else {
				out[i] = byte(num.ToE4M3(x))
			}
		case ir.Float8E5M2:
			if saturate {
				out[i] = byte(num.ToE5M2Sat(x))
			} else {
				out[i] = byte(num.ToE5M2(x))
			}
		default:
			le.PutUint64(out[8*i:], math.Float64bits(float64(x)))
		}
	}
	return out
}

// putResult converts results of type int32 or fp32 to the type of y (§6.6); one of i and f is nil.
func putResult(t ir.Type, i []int64, f []float32, saturate bool) []byte {
	if t.Float() {
		if f == nil {
			f = make([]float32, len(i))
			for k, v := range i {
				f[k] = num.FromInt32(int32(v))
			}
		}
		return PutFloats(t, f, saturate)
	}
	if i == nil {
		i = make([]int64, len(f))
		for k, v := range f {
			i[k] = int64(num.ToInt32(v))
		}
	}
	if saturate {
		lo, hi := t.Range()
		if t == ir.Bool {
			hi = 255 // a uint8
		}
		for k, v := range i {
			i[k] = min(max(v, lo), hi)
		}
	}
	return PutInts(t, i)
}
