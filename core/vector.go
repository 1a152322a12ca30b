// SPDX-License-Identifier: Apache-2.0

package core

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"npuemu/core/isa"
	"npuemu/core/num"
	"npuemu/core/systolic"
)

// element computes with each element of rows (§5.6.18): of each row all
// operands are read before the results are stored.
func (c *Core) element(i isa.Element) *Fault {
	if v := i.Check(c.limits); v != nil {
		return violation(0, v)
	}
	x, y, out := i.XRows(), i.YRows(), i.OutRows()
	if f := c.poisonedElements(i.XAcc, x); f != nil {
		return f
	}
	if !i.Op.Unary() {
		if f := c.poisonedElements(i.YAcc, y); f != nil {
			return f
		}
	}
	if i.Op == isa.ElemSelect {
		if f := c.poisonedElements(i.OutAcc, out); f != nil {
			return f
		}
	}
	n := int(i.N)
	c.x, c.y, c.z = slices.Grow(c.x[:0], n)[:n], slices.Grow(c.y[:0], n)[:n], slices.Grow(c.z[:0], n)[:n]
	for r := range int(i.M) {
		if c.stopped() {
			return nil // the program ends anyway
		}
		c.read(c.x, i.XAcc, i.Type, x, r)
		switch {
		case i.Op.Unary():
		case i.One:
			c.read(c.y[:1], i.YAcc, i.Type, y, 0)
			for k := range c.y {
				c.y[k] = c.y[0]
			}
		default:
			c.read(c.y, i.YAcc, i.Type, y, r)
		}
		if i.Op == isa.ElemSelect {
			c.read(c.z, i.OutAcc, i.OutType, out, r)
			if i.OutType.Float() {
				for k := range c.z {
					c.z[k] &^= 1 << 31 // −0 is 0
				}
			}
		}
		for k, a := range c.x {
			v := compute(i.Op, i.Type.Float(), a, c.y[k], c.z[k])
			c.z[k] = convert(v, i.Type.Float(), i.OutType, !i.NoSaturate)
		}
		c.write(c.z, i.OutAcc, i.OutType, out, r)
	}
	return nil
}

func (c *Core) poisonedElements(acc bool, r isa.Rows) *Fault {
	if acc {
		return nil
	}
	return c.poisonedRows(int(r.Base), int(r.Inner), int(r.InnerStride), int(r.Bytes))
}

// read puts row r into to, as int32 or as encodings of fp32.
func (c *Core) read(to []uint32, acc bool, t systolic.Type, rows isa.Rows, r int) {
	at := int(rows.Base) + r*int(rows.InnerStride)
	if acc {
		for k := range to {
			to[k] = uint32(c.acc[at/4+k])
		}
		return
	}
	row := c.spad[at:]
	for k := range to {
		if t.Float() {
			to[k] = math.Float32bits(t.Real(row, k))
		} else {
			to[k] = uint32(t.Integer(row, k))
		}
	}
}

// write stores the low bits of from as row r.
func (c *Core) write(from []uint32, acc bool, t systolic.Type, rows isa.Rows, r int) {
	at := int(rows.Base) + r*int(rows.InnerStride)
	if acc {
		for k, v := range from {
			c.acc[at/4+k] = int32(v)
		}
		return
	}
	row := c.spad[at:][:rows.Bytes]
	for k, v := range from {
		switch t.Bytes(1) {
		case 1:
			row[k] = byte(v)
		case 2:
			binary.LittleEndian.PutUint16(row[2*k:], uint16(v))
		default:
			binary.LittleEndian.PutUint32(row[4*k:], v)
		}
	}
	c.poison.Overwritten(uint64(at), rows.Bytes)
}

// compute returns x op y as an int32, or as the encoding of an fp32. condition
// is SELECT's.
func compute(op isa.ElementOp, float bool, x, y, condition uint32) uint32 {
	if op == isa.ElemSelect {
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

func computeInt(op isa.ElementOp, x, y int32) int32 {
	switch op {
	case isa.ElemMove:
		return x
	case isa.ElemNeg:
		return -x
	case isa.ElemAbs:
		return max(x, -x) // of −2³¹ it is −2³¹
	case isa.ElemReLU:
		return max(x, 0)
	case isa.ElemAdd:
		return x + y
	case isa.ElemSub:
		return x - y
	case isa.ElemMul:
		return x * y
	case isa.ElemMin:
		return min(x, y)
	case isa.ElemMax:
		return max(x, y)
	case isa.ElemEq:
		return truth(x == y)
	case isa.ElemNe:
		return truth(x != y)
	case isa.ElemLt:
		return truth(x < y)
	case isa.ElemLe:
		return truth(x <= y)
	case isa.ElemAnd:
		return x & y
	case isa.ElemOr:
		return x | y
	case isa.ElemXor:
		return x ^ y
	case isa.ElemShl:
		return num.ShiftLeft(x, uint32(y))
	case isa.ElemShr:
		return num.ShiftRight(x, uint32(y))
	case isa.ElemShrLogical:
		return num.ShiftRightLogical(x, uint32(y))
	case isa.ElemShrRound:
		return num.ShiftRightRound(x, uint32(y))
	case isa.ElemMulHigh:
		return num.MulHigh(x, y)
	case isa.ElemAddSat:
		return num.AddSat(x, y)
	case isa.ElemSubSat:
		return num.SubSat(x, y)
	}
	panic(fmt.Sprintf("core: BUG: integer operation %d passed Check", op))
}

func truth(v bool) int32 {
	if v {
		return 1
	}
	return 0
}

func computeFloat(op isa.ElementOp, x, y float32) float32 {
	switch op {
	case isa.ElemMove:
		return num.Canon(x)
	case isa.ElemNeg:
		return num.Canon(-x)
	case isa.ElemAbs:
		return num.Canon(math.Float32frombits(math.Float32bits(x) &^ (1 << 31)))
	case isa.ElemReLU:
		return num.Max32(x, 0)
	case isa.ElemAdd:
		return num.Add32(x, y)
	case isa.ElemSub:
		return num.Sub32(x, y)
	case isa.ElemMul:
		return num.Mul32(x, y)
	case isa.ElemMin:
		return num.Min32(x, y)
	case isa.ElemMax:
		return num.Max32(x, y)
	case isa.ElemEq:
		return float32(truth(x == y))
	case isa.ElemNe:
		return float32(truth(x != y))
	case isa.ElemLt:
		return float32(truth(x < y))
	case isa.ElemLe:
		return float32(truth(x <= y))
	case isa.ElemDiv:
		return num.Div32(x, y)
	case isa.ElemSqrt:
		return num.Sqrt32(x)
	case isa.ElemExp:
		return num.Exp(x)
	case isa.ElemLog:
		return num.Log(x)
	case isa.ElemTanh:
		return num.Tanh(x)
	case isa.ElemSigmoid:
		return num.Sigmoid(x)
	case isa.ElemSiLU:
		return num.SiLU(x)
	case isa.ElemGELU:
		return num.GELU(x)
	case isa.ElemGELUTanh:
		return num.GELUTanh(x)
	case isa.ElemErf:
		return num.Erf(x)
	case isa.ElemReciprocal:
		return num.Reciprocal(x)
	case isa.ElemRsqrt:
		return num.Rsqrt(x)
	case isa.ElemHardSigmoid:
		return num.HardSigmoid(x)
	case isa.ElemHardSwish:
		return num.HardSwish(x)
	case isa.ElemReLU6:
		return num.Min32(num.Max32(x, 0), 6)
	}
	panic(fmt.Sprintf("core: BUG: floating-point operation %d passed Check", op))
}

// convert turns v, an int32 or the encoding of an fp32, into the encoding of t
// (§6.6).
func convert(v uint32, float bool, t systolic.Type, saturate bool) uint32 {
	if t.Float() {
		x := math.Float32frombits(v)
		if !float {
			x = num.FromInt32(int32(v))
		}
		switch {
		case t == systolic.FP32:
			return math.Float32bits(num.Canon(x))
		case t == systolic.BF16:
			return uint32(num.ToBF16(x))
		case t == systolic.FP16:
			return uint32(num.ToFP16(x))
		case t == systolic.E4M3 && saturate:
			return uint32(num.ToE4M3Sat(x))
		case t == systolic.E4M3:
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
	case t == systolic.Int8 && saturate:
		r = int32(num.Sat8(r))
	case t == systolic.Uint8 && saturate:
		r = int32(num.SatU8(r))
	case t == systolic.Int16 && saturate:
		r = int32(num.Sat16(r))
	}
	return uint32(r)
}

// table replaces bytes (§5.6.19). It reads the table before it stores anything.
func (c *Core) table(i isa.Table) *Fault {
	if v := i.Check(c.limits); v != nil {
		return violation(0, v)
	}
	n := int(i.N)
	if f := c.poisonedRows(int(i.X), int(i.M), int(i.XStride), n); f != nil {
		return f
	}
	if f := c.poisonedRows(int(i.Table), 1, 0, isa.TableSize); f != nil {
		return f
	}
	table := [isa.TableSize]byte(c.spad[i.Table:])
	c.staging = slices.Grow(c.staging[:0], n)[:n]
	for r := range int(i.M) {
		if c.stopped() {
			return nil // the program ends anyway
		}
		copy(c.staging, c.spad[int(i.X)+r*int(i.XStride):])
		to := int(i.Out) + r*int(i.OutStride)
		for k, v := range c.staging {
			c.spad[to+k] = table[v]
		}
		c.poison.Overwritten(uint64(to), uint64(n))
	}
	return nil
}
