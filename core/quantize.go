// SPDX-License-Identifier: Apache-2.0

package core

import (
	"math"

	"npuemu/core/isa"
	"npuemu/core/num"
	"npuemu/core/systolic"
	"npuemu/core/vec"
)

// quantize converts each element, with a scale and a zero point or without
// (§5.6.29). It reads the parameters first.
func (c *unit) quantize(i isa.Quantize) *Fault {
	if v := i.Check(*c.limits); v != nil {
		return violation(0, v)
	}
	x, out, n := i.XRows(), i.OutRows(), int(i.N)
	if f := c.poisonedImage(i.XAcc, x); f != nil {
		return f
	}
	if f := c.poisonedRows(int(i.Params), min(1, i.ParamCount()), 0, i.ParamCount()*isa.ParamSize); f != nil {
		return f
	}
	c.quants = c.quants[:0]
	for k := range i.ParamCount() {
		at := int(i.Params) + k*isa.ParamSize
		p, ok := i.Param((*[isa.ParamSize]byte)(c.spad[at:]))
		if !ok {
			return &Fault{Status: StatusBadParam, Info: uint64(at)}
		}
		c.quants = append(c.quants, p)
	}
	row := room(&c.x, n)
	for r := range int(i.M) {
		if c.stopped() {
			return nil // the program ends anyway
		}
		from, to := int(x.Base)+r*int(x.InnerStride), int(out.Base)+r*int(out.InnerStride)
		if i.Type == systolic.Int4 {
			for k := range row {
				row[k] = uint32(systolic.Int4.Integer(c.spad[from:], k))
			}
		} else {
			c.elements(row, i.XAcc, i.Type, from)
		}
		c.convertRow(&i, row)
		if i.OutType == systolic.Int4 {
			c.placeInt4(row, !i.NoSaturate, to)
		} else {
			c.place(row, i.OutType.Float(), i.OutAcc, i.OutType, !i.NoSaturate, to)
		}
	}
	return nil
}

// convertRow makes row, of the kind of i.Type, what i's result is made of: of the
// kind of i.OutType, without the step to a narrower type.
func (c *unit) convertRow(i *isa.Quantize, row []uint32) {
	lo, hi := i.OutType.Range()
	for k, v := range row {
		var p isa.QuantizeParam
		if len(c.quants) > 0 {
			p = c.quants[k%len(c.quants)]
		}
		x := int32(v)
		switch i.Op {
		case isa.QuantizeReal:
			real := math.Float32frombits(v)
			if !i.Type.Float() {
				real = num.FromInt32(x)
			}
			x = num.Quantize(real, p.Scale, p.Zero, lo, hi)
		case isa.Dequantize:
			x = int32(math.Float32bits(num.Dequantize(x, p.Zero, p.Scale)))
		case isa.ConvertTrunc:
			x = num.TruncInt32(math.Float32frombits(v))
		case isa.RequantOne:
			x = num.Place(p.Integer.Multiply(x), p.Zero, lo, hi)
		case isa.RequantTwo:
			x = num.Place(int64(p.Integer.MultiplyTwice(x)), p.Zero, lo, hi)
		case isa.RequantScaled:
			x = num.Place(int64(num.MultiplyFloat(x, p.Scale)), p.Zero, lo, hi)
		}
		row[k] = uint32(x)
	}
	if i.Op == isa.ConvertNear {
		to := vec.Int32
		if i.OutType.Float() {
			to = vec.FP32
		}
		c.vec.Convert(row, i.Type.Float(), to)
	}
}

// placeInt4 stores row as int4 at byte at.
func (c *unit) placeInt4(row []uint32, saturate bool, at int) {
	to := c.spad[at:][:systolic.Int4.Bytes(uint64(len(row)))]
	clear(to)
	for k, v := range row {
		q := int8(v)
		if saturate {
			q = num.Sat4(int32(v))
		}
		to[k/2] |= byte(q) & 15 << (4 * (k % 2))
	}
	c.poison.Overwritten(uint64(at), uint64(len(to)))
}
