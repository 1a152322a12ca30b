// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"math"
	"slices"

	"npuemu/compiler/ir"
)

// Integers that the vector engine does not have are computed as int32: uint16 in one, uint32 as the same bits, those of 64 bits in
// two halves. What is a constant already stays, for Infer to compute.

// wide is op of x and y, which have such a type, in int32; nil if it is not made here.
func (b *builder) wide(op string, x, y *ir.Tensor) *ir.Tensor {
	if x.Type != y.Type || x.Const() && y.Const() {
		return nil
	}
	if _, ok := ir.Broadcast(x.Shape, y.Shape); !ok {
		return nil
	}
	known := func(ops ...string) bool { return slices.Contains(ops, op) }
	switch x.Type {
	case ir.Uint16:
		if !known("add", "sub", "mul", "min", "max", "eq", "ne", "lt", "le", "and", "or", "xor", "shl", "shr", "shr_logical") {
			return nil
		}
		r := b.op2(op, b.from16(x), b.from16(y))
		if r.Type == ir.Bool {
			return r
		}
		return b.to16(r)
	case ir.Uint32:
		if !known("add", "sub", "mul", "min", "max", "eq", "ne", "lt", "le", "and", "or", "xor", "shl", "shr", "shr_logical") {
			return nil
		}
		return b.bits32(op, x, y)
	case ir.Int64, ir.Uint64:
		return b.halves(op, x, y)
	}
	return nil
}

// from16 is a uint16 as int32, to16 the low 16 bits of one as uint16.
func (b *builder) from16(x *ir.Tensor) *ir.Tensor {
	signed := b.emit("npu.bitcast", ir.Int16, x.Shape, nil, x)
	return b.op2("and", b.emit("npu.cast", ir.Int32, x.Shape, nil, signed), b.ints(ir.Int32, nil, math.MaxUint16))
}

func (b *builder) to16(x *ir.Tensor) *ir.Tensor {
	low := b.emit("npu.cast", ir.Int16, x.Shape, ir.Attrs{"saturate": int64(0)}, x)
	return b.emit("npu.bitcast", ir.Uint16, x.Shape, nil, low)
}

// flipped is an int32 whose order is that of its bits without a sign.
func (b *builder) flipped(x *ir.Tensor) *ir.Tensor {
	return b.op2("xor", x, b.ints(ir.Int32, nil, math.MinInt32))
}

// below compares two int32 as numbers without a sign.
func (b *builder) below(x, y *ir.Tensor) *ir.Tensor { return b.op2("lt", b.flipped(x), b.flipped(y)) }

// bits32 is op of uint32.
func (b *builder) bits32(op string, x, y *ir.Tensor) *ir.Tensor {
	as := func(t *ir.Tensor) *ir.Tensor { return b.emit("npu.bitcast", ir.Int32, t.Shape, nil, t) }
	v, w := as(x), as(y)
	switch op {
	case "lt", "le":
		return b.op2(op, b.flipped(v), b.flipped(w))
	case "eq", "ne":
		return b.op2(op, v, w)
	case "min", "max":
		v = b.flipped(b.op2(op, b.flipped(v), b.flipped(w)))
	case "shr":
		v = b.op2("shr_logical", v, w)
	default:
		v = b.op2(op, v, w)
	}
	return b.emit("npu.bitcast", x.Type, v.Shape, nil, v)
}

// half is the low or the high half, 0 or 1, of 64-bit integers.
func (b *builder) half(x *ir.Tensor, i int) *ir.Tensor {
	both := b.emit("npu.bitcast", ir.Int32, append(slices.Clone(x.Shape), 2), nil, x)
	return b.reshape(b.part(both, len(x.Shape), i, 1), x.Shape...)
}

// joined puts halves together.
func (b *builder) joined(typ ir.Type, low, high *ir.Tensor) *ir.Tensor {
	shape := append(slices.Clone(low.Shape), 1)
	both := b.concat(len(low.Shape), b.reshape(low, shape...), b.reshape(high, shape...))
	return b.emit("npu.bitcast", typ, low.Shape, nil, both)
}

// halves is op of 64-bit integers.
func (b *builder) halves(op string, x, y *ir.Tensor) *ir.Tensor {
	switch op {
	case "min", "max":
		less := b.halves("lt", x, y)
		if op == "max" {
			x, y = y, x
		}
		return b.choose(less, x, y)
	case "le":
		return b.not(b.halves("lt", y, x))
	case "add", "sub", "mul", "eq", "ne", "lt", "and", "or", "xor":
	default:
		return nil
	}
	xl, xh, yl, yh := b.half(x, 0), b.half(x, 1), b.half(y, 0), b.half(y, 1)
	switch op {
	case "eq":
		return b.op2("and", b.op2("eq", xl, yl), b.op2("eq", xh, yh))
	case "ne":
		return b.op2("or", b.op2("ne", xl, yl), b.op2("ne", xh, yh))
	case "lt":
		high := b.op2("lt", xh, yh)
		if x.Type == ir.Uint64 {
			high = b.below(xh, yh)
		}
		return b.op2("or", high, b.op2("and", b.op2("eq", xh, yh), b.below(xl, yl)))
	case "add":
		low := b.op2("add", xl, yl)
		return b.joined(x.Type, low, b.op2("add", b.op2("add", xh, yh), b.cast(b.below(low, xl), ir.Int32)))
	case "sub":
		return b.joined(x.Type, b.op2("sub", xl, yl), b.op2("sub", b.op2("sub", xh, yh), b.cast(b.below(xl, yl), ir.Int32)))
	case "mul":
		cross := b.op2("add", b.op2("mul", xl, yh), b.op2("mul", xh, yl))
		return b.joined(x.Type, b.op2("mul", xl, yl), b.op2("add", b.upper(xl, yl), cross))
	}
	return b.joined(x.Type, b.op2(op, xl, yl), b.op2(op, xh, yh))
}

// upper are the upper 32 bits of the product of two int32 as numbers without a sign, from those of 16 bits.
func (b *builder) upper(x, y *ir.Tensor) *ir.Tensor {
	mask, by := b.ints(ir.Int32, nil, math.MaxUint16), b.ints(ir.Int32, nil, 16)
	low := func(t *ir.Tensor) *ir.Tensor { return b.op2("and", t, mask) }
	high := func(t *ir.Tensor) *ir.Tensor { return b.op2("shr_logical", t, by) }
	add := func(t *ir.Tensor, more ...*ir.Tensor) *ir.Tensor {
		for _, m := range more {
			t = b.op2("add", t, m)
		}
		return t
	}
	ll, lh := b.op2("mul", low(x), low(y)), b.op2("mul", low(x), high(y))
	hl, hh := b.op2("mul", high(x), low(y)), b.op2("mul", high(x), high(y))
	middle := add(high(ll), low(lh), low(hl))
	return add(hh, high(lh), high(hl), high(middle))
}

// wide1 is op1 of a type that wide computes; nil if it is not made here.
func (b *builder) wide1(op string, x *ir.Tensor) *ir.Tensor {
	if x.Const() || x.Type != ir.Int64 && x.Type != ir.Uint64 {
		return nil
	}
	zero := b.ints(x.Type, nil, 0)
	switch op {
	case "neg":
		return b.halves("sub", zero, x)
	case "abs":
		if x.Type == ir.Int64 {
			return b.choose(b.halves("lt", x, zero), b.halves("sub", zero, x), x)
		}
	case "relu":
		if x.Type == ir.Int64 {
			return b.halves("max", x, zero)
		}
	}
	return nil
}

// rounded is an int64 as fp32, rounded once: as one int32 where it is one; otherwise of the smallest shift with which it is one,
// whose lowest bit says that there was something behind it, scaled back.
func (b *builder) rounded(x *ir.Tensor) *ir.Tensor {
	low, high := b.half(x, 0), b.half(x, 1)
	number := func(v int) *ir.Tensor { return b.ints(ir.Int32, nil, v) }
	sign := b.op2("shr", high, number(31))
	shifted := func(v, dropped *ir.Tensor, by int) *ir.Tensor {
		v = b.op2("or", v, b.cast(b.op2("ne", dropped, number(0)), ir.Int32))
		return b.scalar2("mul", b.cast(v, ir.Float32), float32(int64(1)<<by))
	}
	y := shifted(high, low, 32)
	for by := 30; by > 0; by -= 6 {
		v := b.op2("or", b.op2("shl", high, number(32-by)), b.op2("shr_logical", low, number(by)))
		fits := b.op2("eq", b.op2("shr", high, number(by-1)), sign)
		y = b.choose(fits, shifted(v, b.op2("shl", low, number(32-by)), by), y)
	}
	return b.choose(b.op2("eq", high, b.op2("shr", low, number(31))), b.cast(low, ir.Float32), y)
}
