// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"encoding/binary"

	"npuemu/core/num"
	"npuemu/core/systolic"
)

// QuantizeOp is an operation of Quantize (§5.6.29).
type QuantizeOp uint8

// The operations of §5.6.29.
const (
	QuantizeReal  QuantizeOp = 0 // §6.9.4
	Dequantize    QuantizeOp = 1 // §6.9.4
	ConvertNear   QuantizeOp = 2 // §6.6
	ConvertTrunc  QuantizeOp = 3 // §6.6, toward zero
	RequantOne    QuantizeOp = 4 // §6.9.1
	RequantTwo    QuantizeOp = 5 // §6.9.2
	RequantScaled QuantizeOp = 6 // §6.9.3
)

var quantizeOps = []choice{
	{"quantize", uint8(QuantizeReal)}, {"dequantize", uint8(Dequantize)}, {"convert", uint8(ConvertNear)}, {"truncate", uint8(ConvertTrunc)},
	{"one", uint8(RequantOne)}, {"two", uint8(RequantTwo)}, {"float", uint8(RequantScaled)},
}

// quantizeTypes are the types of QUANTIZE.
var quantizeTypes = append([]choice{{"int4", uint8(systolic.Int4)}}, elementTypes...)

// Quantize converts each element, with a scale and a zero point or without
// (§5.6.29).
type Quantize struct {
	XAcc, OutAcc, PerChannel, NoSaturate bool
	Op                                   QuantizeOp
	Type, OutType                        systolic.Type
	X, Params, Out                       uint32 // local byte addresses; Params in the scratchpad
	M                                    uint32 // rows
	N                                    uint16 // elements of a row
	XStride, OutStride                   uint16 // bytes
	Wait, Signal                         Token
}

// rowWise returns what QUANTIZE shares with a unary ELEMENT.
func (i Quantize) rowWise() Element {
	return Element{
		XAcc: i.XAcc, YAcc: i.PerChannel, OutAcc: i.OutAcc, NoSaturate: i.NoSaturate, Type: i.Type, OutType: i.OutType,
		X: i.X, Y: i.Params, Out: i.Out, M: i.M, N: i.N, XStride: i.XStride, OutStride: i.OutStride, Wait: i.Wait, Signal: i.Signal,
	}
}

// Encode implements Instruction.
func (i Quantize) Encode() Word {
	w := i.rowWise().Encode() // PER_CHANNEL is where ELEMENT has Y_ACC
	w[0], w[4] = byte(OpQuantize), byte(i.Op)
	return w
}

// DecodeQuantize reads a QUANTIZE that passed CheckFormat.
func DecodeQuantize(w *Word) Quantize {
	e := DecodeElement(w)
	return Quantize{
		XAcc: e.XAcc, OutAcc: e.OutAcc, PerChannel: e.YAcc, NoSaturate: e.NoSaturate, Op: QuantizeOp(w[4]), Type: e.Type, OutType: e.OutType,
		X: e.X, Params: e.Y, Out: e.Out, M: e.M, N: e.N, XStride: e.XStride, OutStride: e.OutStride, Wait: e.Wait, Signal: e.Signal,
	}
}

// XRows is where the operands lie.
func (i Quantize) XRows() Rows {
	e := i.rowWise()
	return e.XRows()
}

// OutRows is where the results lie.
func (i Quantize) OutRows() Rows {
	e := i.rowWise()
	return e.OutRows()
}

// ParamCount returns the number of entries of i's table.
func (i Quantize) ParamCount() int {
	switch {
	case i.Op == ConvertNear || i.Op == ConvertTrunc:
		return 0
	case i.PerChannel:
		return int(i.N)
	}
	return 1
}

// QuantizeParam is an entry of the table: what x is divided by or multiplied with,
// by operation, and the zero point.
type QuantizeParam struct {
	Scale   float32
	Integer num.Scale // of RequantOne and RequantTwo
	Zero    int32
}

// Param decodes an entry of i's table. It is not ok if §5.6.29 does not allow it
// (BAD_PARAM).
func (i *Quantize) Param(b *[ParamSize]byte) (p QuantizeParam, ok bool) {
	word := binary.LittleEndian.Uint32(b[:])
	real := word > 0 && word < 0x7f800000
	t := i.OutType
	switch i.Op {
	case QuantizeReal, Dequantize:
		p.Zero = int32(binary.LittleEndian.Uint32(b[4:]))
		ok = real
		if i.Op == Dequantize {
			t = i.Type
		}
	case RequantScaled:
		p.Zero = int32(int16(binary.LittleEndian.Uint16(b[6:])))
		ok = real && b[4]|b[5] == 0
	default:
		p.Zero = int32(int16(binary.LittleEndian.Uint16(b[6:])))
		p.Integer = num.Scale{Multiplier: int32(word), Shift: b[4]}
		ok = p.Integer.Valid() && b[5] == 0
	}
	p.Scale = num.FromBits(word)
	lo, hi := t.Range()
	return p, ok && p.Zero >= lo && p.Zero <= hi
}

// Check implements Instruction.
func (i Quantize) Check(l Limits) *Violation {
	var c checker
	without := i.Op == ConvertNear || i.Op == ConvertTrunc
	if i.PerChannel && without {
		c.fail(BadOperand, 1, "per_channel", "is set; %s has no parameters", nameOf(quantizeOps, uint8(i.Op)))
	} else if i.NoSaturate && !i.OutType.Float() && i.Op != ConvertNear && i.Op != ConvertTrunc {
		c.fail(BadOperand, 1, "no_saturate", "is set; quantized results are clamped")
	}
	if c.v == nil && i.Op > RequantScaled {
		c.fail(BadOperand, 4, "op", "is %d; operations are 0 to %d", i.Op, RequantScaled)
	}
	known := func(t systolic.Type, acc bool) bool {
		return nameOf(quantizeTypes, uint8(t))[0] > '9' && (!acc || t == systolic.Int32 || t == systolic.FP32)
	}
	integers := i.Op == Dequantize || i.Op >= RequantOne
	if c.v == nil && (!known(i.Type, i.XAcc) || integers && i.Type.Float() || i.Op == ConvertTrunc && !i.Type.Float()) {
		c.fail(BadOperand, 5, "type", "is %s, which %s does not take; in the accumulators there are int32 and fp32",
			nameOf(quantizeTypes, uint8(i.Type)), nameOf(quantizeOps, uint8(i.Op)))
	}
	if c.v == nil && (!known(i.OutType, i.OutAcc) || i.Op != ConvertNear && i.OutType.Float() != (i.Op == Dequantize)) {
		c.fail(BadOperand, 6, "out_type", "is %s, which %s does not make; in the accumulators there are int32 and fp32",
			nameOf(quantizeTypes, uint8(i.OutType)), nameOf(quantizeOps, uint8(i.Op)))
	}
	c.multiple(8, "x", uint64(i.X), i.Type.Bytes(1))
	if c.v == nil && without && i.Params != 0 {
		c.fail(BadOperand, 12, "params", "is %#x; %s has no parameters and it must be 0", i.Params, nameOf(quantizeOps, uint8(i.Op)))
	}
	c.aligned(12, "params", uint64(i.Params))
	e := i.rowWise()
	c.rowShape(e, i.OutType.Bytes(uint64(i.N)))
	if c.v != nil {
		return c.v
	}
	c.local("x", i.XAcc, i.XRows(), &l)
	if n := i.ParamCount(); n > 0 {
		c.local("params", false, one(i.Params, ParamSize*uint64(n)), &l)
	}
	c.local("out", i.OutAcc, i.OutRows(), &l)
	return c.v
}
