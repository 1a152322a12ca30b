// SPDX-License-Identifier: Apache-2.0

package vec

import (
	"encoding/binary"
	"fmt"
	"math"

	"npuemu/core/num"
)

// plain is the tier in plain Go, by package num.
func plain() *tier { return &tier{name: "go", kernels: &kernels{}} }

// load returns element i of the row that begins with row, as an int32 or as the encoding of an fp32.
func load(row []byte, t Type, i int) uint32 {
	switch t {
	case Int8:
		return uint32(int8(row[i]))
	case Uint8:
		return uint32(row[i])
	case Int16:
		return uint32(int16(binary.LittleEndian.Uint16(row[2*i:])))
	case BF16:
		return math.Float32bits(num.BF16(binary.LittleEndian.Uint16(row[2*i:])).Float32())
	case FP16:
		return math.Float32bits(num.FP16(binary.LittleEndian.Uint16(row[2*i:])).Float32())
	case E4M3:
		return math.Float32bits(num.E4M3(row[i]).Float32())
	case E5M2:
		return math.Float32bits(num.E5M2(row[i]).Float32())
	}
	return binary.LittleEndian.Uint32(row[4*i:])
}

// store stores the low bits of v as element i.
func store(row []byte, t Type, i int, v uint32) {
	switch t.Size() {
	case 1:
		row[i] = byte(v)
	case 2:
		binary.LittleEndian.PutUint16(row[2*i:], uint16(v))
	default:
		binary.LittleEndian.PutUint32(row[4*i:], v)
	}
}

// compute returns x op y as an int32, or as the encoding of an fp32. condition
// is SELECT's.
func compute(op Op, float bool, x, y, condition uint32) uint32 {
	if op == Select {
		if condition != 0 {
			return x
		}
		return y
	}
	if float {
		return math.Float32bits(computeFloat(op, math.Float32frombits(x), math.Float32frombits(y)))
	}
	return uint32(computeInt(op, int32(x), int32(y)))
}

func computeInt(op Op, x, y int32) int32 {
	switch op {
	case Move:
		return x
	case Neg:
		return -x
	case Abs:
		return max(x, -x) // of −2³¹ it is −2³¹
	case ReLU:
		return max(x, 0)
	case Add:
		return x + y
	case Sub:
		return x - y
	case Mul:
		return x * y
	case Min:
		return min(x, y)
	case Max:
		return max(x, y)
	case Eq:
		return truth(x == y)
	case Ne:
		return truth(x != y)
	case Lt:
		return truth(x < y)
	case Le:
		return truth(x <= y)
	case And:
		return x & y
	case Or:
		return x | y
	case Xor:
		return x ^ y
	case Shl:
		return num.ShiftLeft(x, uint32(y))
	case Shr:
		return num.ShiftRight(x, uint32(y))
	case ShrLogical:
		return num.ShiftRightLogical(x, uint32(y))
	case ShrRound:
		return num.ShiftRightRound(x, uint32(y))
	case MulHigh:
		return num.MulHigh(x, y)
	case AddSat:
		return num.AddSat(x, y)
	case SubSat:
		return num.SubSat(x, y)
	}
	panic(fmt.Sprintf("vec: BUG: integer operation %d", op))
}

func truth(v bool) int32 {
	if v {
		return 1
	}
	return 0
}

func computeFloat(op Op, x, y float32) float32 {
	switch op {
	case Move:
		return num.Canon(x)
	case Neg:
		return num.Canon(-x)
	case Abs:
		return num.Canon(math.Float32frombits(math.Float32bits(x) &^ (1 << 31)))
	case ReLU:
		return num.Max32(x, 0)
	case Add:
		return num.Add32(x, y)
	case Sub:
		return num.Sub32(x, y)
	case Mul:
		return num.Mul32(x, y)
	case Min:
		return num.Min32(x, y)
	case Max:
		return num.Max32(x, y)
	case Eq:
		return float32(truth(x == y))
	case Ne:
		return float32(truth(x != y))
	case Lt:
		return float32(truth(x < y))
	case Le:
		return float32(truth(x <= y))
	case Div:
		return num.Div32(x, y)
	case Sqrt:
		return num.Sqrt32(x)
	case Exp:
		return num.Exp(x)
	case Log:
		return num.Log(x)
	case Tanh:
		return num.Tanh(x)
	case Sigmoid:
		return num.Sigmoid(x)
	case SiLU:
		return num.SiLU(x)
	case GELU:
		return num.GELU(x)
	case GELUTanh:
		return num.GELUTanh(x)
	case Erf:
		return num.Erf(x)
	case Reciprocal:
		return num.Reciprocal(x)
	case Rsqrt:
		return num.Rsqrt(x)
	case HardSigmoid:
		return num.HardSigmoid(x)
	case HardSwish:
		return num.HardSwish(x)
	case ReLU6:
		return num.Min32(num.Max32(x, 0), 6)
	}
	panic(fmt.Sprintf("vec: BUG: floating-point operation %d", op))
}

// Convert turns v, an int32 or the encoding of an fp32, into the encoding of t
// (§6.6).
func Convert(v uint32, float bool, t Type, saturate bool) uint32 {
	if t.Float() {
		x := math.Float32frombits(v)
		if !float {
			x = num.FromInt32(int32(v))
		}
		switch {
		case t == FP32:
			return math.Float32bits(num.Canon(x))
		case t == BF16:
			return uint32(num.ToBF16(x))
		case t == FP16:
			return uint32(num.ToFP16(x))
		case t == E4M3 && saturate:
			return uint32(num.ToE4M3Sat(x))
		case t == E4M3:
			return uint32(num.ToE4M3(x))
		case saturate:
			return uint32(num.ToE5M2Sat(x))
		}
		return uint32(num.ToE5M2(x))
	}
	r := int32(v)
	if float {
		r = num.ToInt32(math.Float32frombits(v))
	}
	switch {
	case t == Int8 && saturate:
		r = int32(num.Sat8(r))
	case t == Uint8 && saturate:
		r = int32(num.SatU8(r))
	case t == Int16 && saturate:
		r = int32(num.Sat16(r))
	}
	return uint32(r)
}
