// SPDX-License-Identifier: Apache-2.0

package isa

import "npuemu/core/systolic"

// ElementOp is an operation of Element (§5.6.18).
type ElementOp uint8

// The operations of §5.6.18: of all types, of integers, of floating point.
const (
	ElemMove   ElementOp = 0
	ElemNeg    ElementOp = 1
	ElemAbs    ElementOp = 2
	ElemReLU   ElementOp = 3
	ElemAdd    ElementOp = 4
	ElemSub    ElementOp = 5
	ElemMul    ElementOp = 6
	ElemMin    ElementOp = 7
	ElemMax    ElementOp = 8
	ElemEq     ElementOp = 9
	ElemNe     ElementOp = 10
	ElemLt     ElementOp = 11
	ElemLe     ElementOp = 12
	ElemSelect ElementOp = 13

	ElemAnd        ElementOp = 16
	ElemOr         ElementOp = 17
	ElemXor        ElementOp = 18
	ElemShl        ElementOp = 19
	ElemShr        ElementOp = 20
	ElemShrLogical ElementOp = 21
	ElemShrRound   ElementOp = 22
	ElemMulHigh    ElementOp = 23
	ElemAddSat     ElementOp = 24
	ElemSubSat     ElementOp = 25

	ElemDiv         ElementOp = 32
	ElemSqrt        ElementOp = 33
	ElemExp         ElementOp = 34
	ElemLog         ElementOp = 35
	ElemTanh        ElementOp = 36
	ElemSigmoid     ElementOp = 37
	ElemSiLU        ElementOp = 38
	ElemGELU        ElementOp = 39
	ElemGELUTanh    ElementOp = 40
	ElemErf         ElementOp = 41
	ElemReciprocal  ElementOp = 42
	ElemRsqrt       ElementOp = 43
	ElemHardSigmoid ElementOp = 44
	ElemHardSwish   ElementOp = 45
	ElemReLU6       ElementOp = 46
)

var elementOps = []choice{
	{"move", uint8(ElemMove)}, {"neg", uint8(ElemNeg)}, {"abs", uint8(ElemAbs)}, {"relu", uint8(ElemReLU)},
	{"add", uint8(ElemAdd)}, {"sub", uint8(ElemSub)}, {"mul", uint8(ElemMul)}, {"min", uint8(ElemMin)}, {"max", uint8(ElemMax)},
	{"eq", uint8(ElemEq)}, {"ne", uint8(ElemNe)}, {"lt", uint8(ElemLt)}, {"le", uint8(ElemLe)}, {"select", uint8(ElemSelect)},
	{"and", uint8(ElemAnd)}, {"or", uint8(ElemOr)}, {"xor", uint8(ElemXor)}, {"shl", uint8(ElemShl)}, {"shr", uint8(ElemShr)},
	{"shr_logical", uint8(ElemShrLogical)}, {"shr_round", uint8(ElemShrRound)}, {"mulhigh", uint8(ElemMulHigh)},
	{"add_sat", uint8(ElemAddSat)}, {"sub_sat", uint8(ElemSubSat)},
	{"div", uint8(ElemDiv)}, {"sqrt", uint8(ElemSqrt)}, {"exp", uint8(ElemExp)}, {"log", uint8(ElemLog)}, {"tanh", uint8(ElemTanh)},
	{"sigmoid", uint8(ElemSigmoid)}, {"silu", uint8(ElemSiLU)}, {"gelu", uint8(ElemGELU)}, {"gelu_tanh", uint8(ElemGELUTanh)},
	{"erf", uint8(ElemErf)}, {"reciprocal", uint8(ElemReciprocal)}, {"rsqrt", uint8(ElemRsqrt)},
	{"hardsigmoid", uint8(ElemHardSigmoid)}, {"hardswish", uint8(ElemHardSwish)}, {"relu6", uint8(ElemReLU6)},
}

// Unary reports whether o has one operand.
func (o ElementOp) Unary() bool { return o <= ElemReLU || o >= ElemSqrt && o <= ElemReLU6 }

// applies reports whether there is an o of integers, or of floating point.
func (o ElementOp) applies(float bool) bool {
	switch {
	case o <= ElemSelect:
		return true
	case o >= ElemAnd && o <= ElemSubSat:
		return !float
	}
	return o >= ElemDiv && o <= ElemReLU6 && float
}

// elementTypes are the types of ELEMENT.
var elementTypes = append([]choice{{"int32", uint8(systolic.Int32)}}, types...)

// Element computes with each element (§5.6.18).
type Element struct {
	XAcc, YAcc, OutAcc          bool // in the accumulators
	NoSaturate                  bool // narrow results wrap, or become infinite or NaN
	One                         bool // y is one element for all
	Op                          ElementOp
	Type, OutType               systolic.Type
	X, Y, Out                   uint32 // local byte addresses
	M                           uint32 // rows
	N                           uint16 // elements of a row
	XStride, YStride, OutStride uint16 // bytes
	Wait, Signal                Token
}

// Encode implements Instruction.
func (i Element) Encode() Word {
	flags := flagIf(i.XAcc, flagXAcc) | flagIf(i.YAcc, flagYAcc) | flagIf(i.OutAcc, flagOutAcc) |
		flagIf(i.NoSaturate, flagNoSaturate) | flagIf(i.One, flagOne)
	w := encoder(OpElement, flags, i.Wait, i.Signal)
	w[4], w[5], w[6] = byte(i.Op), byte(i.Type), byte(i.OutType)
	w.put32(8, i.X)
	w.put32(12, i.Y)
	w.put32(16, i.Out)
	w.put32(20, i.M)
	w.put16(24, i.N)
	w.put16(26, i.XStride)
	w.put16(28, i.YStride)
	w.put16(30, i.OutStride)
	return w
}

// DecodeElement reads an ELEMENT that passed CheckFormat.
func DecodeElement(w *Word) Element {
	i := Element{
		XAcc: w.flag(flagXAcc), YAcc: w.flag(flagYAcc), OutAcc: w.flag(flagOutAcc),
		NoSaturate: w.flag(flagNoSaturate), One: w.flag(flagOne),
		Op: ElementOp(w[4]), Type: systolic.Type(w[5]), OutType: systolic.Type(w[6]),
		X: w.uint32(8), Y: w.uint32(12), Out: w.uint32(16), M: w.uint32(20), N: w.uint16(24),
		XStride: w.uint16(26), YStride: w.uint16(28), OutStride: w.uint16(30),
	}
	i.Wait, i.Signal = w.tokens()
	return i
}

// XRows is where x lies.
func (i *Element) XRows() Rows { return i.rows(i.X, i.XStride, i.Type, i.N) }

// YRows is where y lies; a Unary operation has none.
func (i *Element) YRows() Rows {
	if i.One {
		return one(i.Y, i.Type.Bytes(1))
	}
	return i.rows(i.Y, i.YStride, i.Type, i.N)
}

// OutRows is where the results lie.
func (i *Element) OutRows() Rows { return i.rows(i.Out, i.OutStride, i.OutType, i.N) }

func (i *Element) rows(base uint32, stride uint16, t systolic.Type, n uint16) Rows {
	return Rows{Base: uint64(base), Outer: 1, Inner: uint64(i.M), InnerStride: uint64(stride), Bytes: t.Bytes(uint64(n))}
}

// Check implements Instruction.
func (i Element) Check(l Limits) *Violation {
	var c checker
	known := func(t systolic.Type) bool { return t != systolic.Int4 && nameOf(elementTypes, uint8(t))[0] > '9' }
	wide := func(t systolic.Type) bool { return t == systolic.Int32 || t == systolic.FP32 }
	if i.Op.Unary() && (i.YAcc || i.One) {
		c.fail(BadOperand, 1, "op", "is %s, which has no y; flags of y must be 0", nameOf(elementOps, uint8(i.Op)))
	}
	switch {
	case c.v != nil:
	case !i.Op.applies(i.Type.Float()):
		c.fail(BadOperand, 4, "op", "is %s, which elements of %s do not have", nameOf(elementOps, uint8(i.Op)), nameOf(elementTypes, uint8(i.Type)))
	case !known(i.Type) || (i.XAcc || i.YAcc) && !wide(i.Type):
		c.fail(BadOperand, 5, "type", "is %s; there are int8, uint8, int16, int32, fp32, bf16, fp16, e4m3, e5m2, in the accumulators int32 and fp32",
			nameOf(elementTypes, uint8(i.Type)))
	case !known(i.OutType) || i.OutAcc && !wide(i.OutType):
		c.fail(BadOperand, 6, "out_type", "is %s; there are int8, uint8, int16, int32, fp32, bf16, fp16, e4m3, e5m2, in the accumulators int32 and fp32",
			nameOf(elementTypes, uint8(i.OutType)))
	}
	size, outSize := i.Type.Bytes(1), i.OutType.Bytes(1)
	c.multiple(8, "x", uint64(i.X), size)
	if i.Op.Unary() && i.Y != 0 && c.v == nil {
		c.fail(BadOperand, 12, "y", "is %#x; the operation has one operand and y must be 0", i.Y)
	}
	c.multiple(12, "y", uint64(i.Y), size)
	c.multiple(16, "out", uint64(i.Out), outSize)
	c.atLeastOne(20, "m", uint64(i.M))
	c.atLeastOne(24, "n", uint64(i.N))
	c.multiple(26, "x_stride", uint64(i.XStride), size)
	if (i.Op.Unary() || i.One) && i.YStride != 0 && c.v == nil {
		c.fail(BadOperand, 28, "y_stride", "is %d; y has no rows and it must be 0", i.YStride)
	}
	c.multiple(28, "y_stride", uint64(i.YStride), size)
	c.multiple(30, "out_stride", uint64(i.OutStride), outSize)
	c.stride(30, "out_stride", uint64(i.OutStride), i.M > 1, outSize*uint64(i.N), "a row's bytes")
	if c.v != nil {
		return c.v
	}
	c.local("x", i.XAcc, i.XRows(), &l)
	if !i.Op.Unary() {
		c.local("y", i.YAcc, i.YRows(), &l)
	}
	c.local("out", i.OutAcc, i.OutRows(), &l)
	return c.v
}

// Table replaces bytes by those of a table (§5.6.19).
type Table struct {
	X, Table, Out      uint32 // scratchpad addresses
	M                  uint32 // rows
	N                  uint16 // bytes of a row
	XStride, OutStride uint16 // bytes
	Wait, Signal       Token
}

// TableSize is the size of a table in bytes.
const TableSize = 256

// Encode implements Instruction.
func (i Table) Encode() Word {
	w := encoder(OpTable, 0, i.Wait, i.Signal)
	w.put32(8, i.X)
	w.put32(12, i.Table)
	w.put32(16, i.Out)
	w.put32(20, i.M)
	w.put16(24, i.N)
	w.put16(26, i.XStride)
	w.put16(28, i.OutStride)
	return w
}

// DecodeTable reads a TABLE that passed CheckFormat.
func DecodeTable(w *Word) Table {
	i := Table{
		X: w.uint32(8), Table: w.uint32(12), Out: w.uint32(16), M: w.uint32(20), N: w.uint16(24),
		XStride: w.uint16(26), OutStride: w.uint16(28),
	}
	i.Wait, i.Signal = w.tokens()
	return i
}

// Check implements Instruction.
func (i Table) Check(l Limits) *Violation {
	var c checker
	c.atLeastOne(20, "m", uint64(i.M))
	c.atLeastOne(24, "n", uint64(i.N))
	c.stride(28, "out_stride", uint64(i.OutStride), i.M > 1, uint64(i.N), "n")
	if c.v != nil {
		return c.v
	}
	rows := func(base uint32, stride uint16) Rows {
		return Rows{Base: uint64(base), Outer: 1, Inner: uint64(i.M), InnerStride: uint64(stride), Bytes: uint64(i.N)}
	}
	c.local("x", false, rows(i.X, i.XStride), &l)
	c.local("table", false, one(i.Table, TableSize), &l)
	c.local("out", false, rows(i.Out, i.OutStride), &l)
	return c.v
}

// ReduceOp is an operation of Reduce (§5.6.20).
type ReduceOp uint8

// The operations of §5.6.20.
const (
	ReduceSum  ReduceOp = 0
	ReduceMax  ReduceOp = 1
	ReduceMin  ReduceOp = 2
	ReduceMean ReduceOp = 3 // of floating point

	ReduceArgMax ReduceOp = 4 // with FeatureGather
	ReduceArgMin ReduceOp = 5
)

var reduceOps = []choice{
	{"sum", uint8(ReduceSum)}, {"max", uint8(ReduceMax)}, {"min", uint8(ReduceMin)}, {"mean", uint8(ReduceMean)},
	{"argmax", uint8(ReduceArgMax)}, {"argmin", uint8(ReduceArgMin)},
}

// Reduce makes one element of each row (§5.6.20).
type Reduce struct {
	XAcc, OutAcc, NoSaturate bool
	Op                       ReduceOp
	Type, OutType            systolic.Type
	X, Out                   uint32 // local byte addresses
	M                        uint32 // rows
	N                        uint16 // elements of a row
	XStride, OutStride       uint16 // bytes
	Wait, Signal             Token
}

// rowWise returns what REDUCE and NORM share with a unary ELEMENT.
func (i Reduce) rowWise() Element {
	return Element{
		XAcc: i.XAcc, OutAcc: i.OutAcc, NoSaturate: i.NoSaturate, Type: i.Type, OutType: i.OutType,
		X: i.X, Out: i.Out, M: i.M, N: i.N, XStride: i.XStride, OutStride: i.OutStride, Wait: i.Wait, Signal: i.Signal,
	}
}

// Encode implements Instruction.
func (i Reduce) Encode() Word {
	w := i.rowWise().Encode()
	w[0], w[4] = byte(OpReduce), byte(i.Op)
	return w
}

// DecodeReduce reads a REDUCE that passed CheckFormat.
func DecodeReduce(w *Word) Reduce {
	e := DecodeElement(w)
	return Reduce{
		XAcc: e.XAcc, OutAcc: e.OutAcc, NoSaturate: e.NoSaturate, Op: ReduceOp(w[4]), Type: e.Type, OutType: e.OutType,
		X: e.X, Out: e.Out, M: e.M, N: e.N, XStride: e.XStride, OutStride: e.OutStride, Wait: e.Wait, Signal: e.Signal,
	}
}

// XRows is where the operands lie.
func (i Reduce) XRows() Rows {
	e := i.rowWise()
	return e.XRows()
}

// OutRows is where the results lie.
func (i Reduce) OutRows() Rows {
	e := i.rowWise()
	e.N = 1
	return e.OutRows()
}

// Check implements Instruction.
func (i Reduce) Check(l Limits) *Violation {
	var c checker
	if i.Op > ReduceMean && l.Features&FeatureGather == 0 || i.Op > ReduceArgMin || i.Op == ReduceMean && !i.Type.Float() {
		c.fail(BadOperand, 4, "op", "is %s, which elements of %s do not have, or not without feature gather", nameOf(reduceOps, uint8(i.Op)), nameOf(elementTypes, uint8(i.Type)))
	}
	e := i.rowWise()
	c.rowTypes(e, false)
	c.rowShape(e, i.OutType.Bytes(1))
	if c.v == nil {
		c.local("x", i.XAcc, i.XRows(), &l)
		c.local("out", i.OutAcc, i.OutRows(), &l)
	}
	return c.v
}

// rowTypes checks the types of an operation on rows, which may be one of
// floating point alone.
func (c *checker) rowTypes(i Element, float bool) {
	for n, t := range []struct {
		systolic.Type
		acc bool
	}{{i.Type, i.XAcc}, {i.OutType, i.OutAcc}} {
		known := t.Type != systolic.Int4 && nameOf(elementTypes, uint8(t.Type))[0] > '9'
		if c.v == nil && (!known || float && !t.Float() || t.acc && t.Type != systolic.Int32 && t.Type != systolic.FP32) {
			c.fail(BadOperand, uint64(5+n), [...]string{"type", "out_type"}[n], "is %s; in the accumulators there are int32 and fp32, in the scratchpad all but int4, and NORM has floating-point types",
				nameOf(elementTypes, uint8(t.Type)))
		}
	}
}

// rowShape checks addresses, counts and strides; a row of results has so many
// bytes.
func (c *checker) rowShape(i Element, rowBytes uint64) {
	size, outSize := i.Type.Bytes(1), i.OutType.Bytes(1)
	c.multiple(8, "x", uint64(i.X), size)
	c.multiple(16, "out", uint64(i.Out), outSize)
	c.atLeastOne(20, "m", uint64(i.M))
	c.atLeastOne(24, "n", uint64(i.N))
	c.multiple(26, "x_stride", uint64(i.XStride), size)
	c.multiple(30, "out_stride", uint64(i.OutStride), outSize)
	c.stride(30, "out_stride", uint64(i.OutStride), i.M > 1, rowBytes, "a row's bytes")
}

// NormOp is an operation of Norm (§5.6.21).
type NormOp uint8

// The operations of §5.6.21.
const (
	Softmax   NormOp = 0
	LayerNorm NormOp = 1
	RMSNorm   NormOp = 2
)

var normOps = []choice{{"softmax", uint8(Softmax)}, {"layer", uint8(LayerNorm)}, {"rms", uint8(RMSNorm)}}

// Norm normalizes each row (§5.6.21).
type Norm struct {
	XAcc, OutAcc, NoSaturate bool
	Op                       NormOp
	Type, OutType            systolic.Type
	X, Out                   uint32 // local byte addresses
	Params                   uint32 // scratchpad address; 0 with Softmax
	M                        uint32 // rows
	N                        uint16 // elements of a row
	XStride, OutStride       uint16 // bytes
	Wait, Signal             Token
}

func (i Norm) rowWise() Element {
	return Element{
		XAcc: i.XAcc, OutAcc: i.OutAcc, NoSaturate: i.NoSaturate, Type: i.Type, OutType: i.OutType,
		X: i.X, Y: i.Params, Out: i.Out, M: i.M, N: i.N, XStride: i.XStride, OutStride: i.OutStride, Wait: i.Wait, Signal: i.Signal,
	}
}

// Encode implements Instruction.
func (i Norm) Encode() Word {
	w := i.rowWise().Encode()
	w[0], w[4] = byte(OpNorm), byte(i.Op)
	return w
}

// DecodeNorm reads a NORM that passed CheckFormat.
func DecodeNorm(w *Word) Norm {
	e := DecodeElement(w)
	return Norm{
		XAcc: e.XAcc, OutAcc: e.OutAcc, NoSaturate: e.NoSaturate, Op: NormOp(w[4]), Type: e.Type, OutType: e.OutType,
		X: e.X, Params: e.Y, Out: e.Out, M: e.M, N: e.N, XStride: e.XStride, OutStride: e.OutStride, Wait: e.Wait, Signal: e.Signal,
	}
}

// XRows is where the operands lie.
func (i Norm) XRows() Rows {
	e := i.rowWise()
	return e.XRows()
}

// OutRows is where the results lie.
func (i Norm) OutRows() Rows {
	e := i.rowWise()
	return e.OutRows()
}

// ParamCount returns how many fp32 the parameters are.
func (i Norm) ParamCount() int {
	switch i.Op {
	case LayerNorm:
		return 1 + 2*int(i.N)
	case RMSNorm:
		return 1 + int(i.N)
	}
	return 0
}

// Check implements Instruction.
func (i Norm) Check(l Limits) *Violation {
	var c checker
	if i.Op > RMSNorm {
		c.fail(BadOperand, 4, "op", "is %d; operations are 0 to %d", i.Op, RMSNorm)
	}
	e := i.rowWise()
	c.rowTypes(e, true)
	c.multiple(8, "x", uint64(i.X), i.Type.Bytes(1))
	if c.v == nil && i.Op == Softmax && i.Params != 0 {
		c.fail(BadOperand, 12, "params", "is %#x; softmax has no parameters and it must be 0", i.Params)
	}
	c.aligned(12, "params", uint64(i.Params))
	c.rowShape(e, i.OutType.Bytes(uint64(i.N)))
	if c.v != nil {
		return c.v
	}
	c.local("x", i.XAcc, i.XRows(), &l)
	if i.Op != Softmax {
		c.local("params", false, one(i.Params, 4*uint64(i.ParamCount())), &l)
	}
	c.local("out", i.OutAcc, i.OutRows(), &l)
	return c.v
}
