// SPDX-License-Identifier: Apache-2.0

package core

import (
	"encoding/binary"
	"math"
	"slices"

	"npuemu/core/isa"
	"npuemu/core/num"
)

// reduce makes one element of each row (§5.6.20).
func (c *Core) reduce(i isa.Reduce) *Fault {
	if v := i.Check(c.limits); v != nil {
		return violation(0, v)
	}
	x, out := i.XRows(), i.OutRows()
	if f := c.poisonedElements(i.XAcc, x); f != nil {
		return f
	}
	c.x = slices.Grow(c.x[:0], int(i.N))[:i.N]
	for r := range int(i.M) {
		if c.stopped() {
			return nil // the program ends anyway
		}
		c.read(c.x, i.XAcc, i.Type, x, r)
		v := uint32(reduceInts(i.Op, c.x))
		float := i.Type.Float()
		if i.Op >= isa.ReduceArgMax {
			v, float = extreme(i.Op, float, c.x), false
		} else if float {
			c.floats(c.x)
			v = math.Float32bits(reduceFloats(i.Op, c.fp))
		}
		c.z = append(c.z[:0], convert(v, float, i.OutType, !i.NoSaturate))
		c.write(c.z, i.OutAcc, i.OutType, out, r)
	}
	return nil
}

// floats makes fp the numbers with the given encodings.
func (c *Core) floats(x []uint32) {
	c.fp = c.fp[:0]
	for _, v := range x {
		c.fp = append(c.fp, math.Float32frombits(v))
	}
}

func reduceInts(op isa.ReduceOp, x []uint32) int32 {
	v := int32(x[0])
	for _, w := range x[1:] {
		switch op {
		case isa.ReduceSum:
			v += int32(w)
		case isa.ReduceMax:
			v = max(v, int32(w))
		case isa.ReduceMin:
			v = min(v, int32(w))
		}
	}
	return v
}

func reduceFloats(op isa.ReduceOp, x []float32) float32 {
	switch op {
	case isa.ReduceMax:
		return num.Max(x)
	case isa.ReduceMin:
		return num.Min(x)
	case isa.ReduceMean:
		return num.Mean(x)
	}
	return num.Sum(x)
}

// norm normalizes each row (§5.6.21). It reads the parameters first.
func (c *Core) norm(i isa.Norm) *Fault {
	if v := i.Check(c.limits); v != nil {
		return violation(0, v)
	}
	x, out, n := i.XRows(), i.OutRows(), int(i.N)
	if f := c.poisonedElements(i.XAcc, x); f != nil {
		return f
	}
	count := i.ParamCount()
	if count > 0 {
		if f := c.poisonedRows(int(i.Params), 1, 0, 4*count); f != nil {
			return f
		}
	}
	c.params = c.params[:0]
	for k := range count {
		c.params = append(c.params, math.Float32frombits(binary.LittleEndian.Uint32(c.spad[int(i.Params)+4*k:])))
	}
	c.x, c.z = slices.Grow(c.x[:0], n)[:n], slices.Grow(c.z[:0], n)[:n]
	for r := range int(i.M) {
		if c.stopped() {
			return nil // the program ends anyway
		}
		c.read(c.x, i.XAcc, i.Type, x, r)
		c.floats(c.x)
		switch i.Op {
		case isa.LayerNorm:
			num.LayerNorm(c.fp, c.fp, c.params[1:1+n], c.params[1+n:], c.params[0])
		case isa.RMSNorm:
			num.RMSNorm(c.fp, c.fp, c.params[1:], c.params[0])
		default:
			num.Softmax(c.fp, c.fp)
		}
		for k, v := range c.fp {
			c.z[k] = convert(math.Float32bits(v), true, i.OutType, !i.NoSaturate)
		}
		c.write(c.z, i.OutAcc, i.OutType, out, r)
	}
	return nil
}
