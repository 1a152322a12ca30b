// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"npuemu/core/num"
	"npuemu/core/systolic"
)

// types are the element types of OPERANDS (§5.6.9).
var types = []choice{
	{"int8", uint8(systolic.Int8)}, {"int16", uint8(systolic.Int16)}, {"int4", uint8(systolic.Int4)},
	{"uint8", uint8(systolic.Uint8)},
	{"fp32", uint8(systolic.FP32)}, {"bf16", uint8(systolic.BF16)}, {"fp16", uint8(systolic.FP16)},
	{"e4m3", uint8(systolic.E4M3)}, {"e5m2", uint8(systolic.E5M2)},
}

// typeName returns the name of t in text, or its number if it has none.
func typeName(t systolic.Type) string { return nameOf(types, uint8(t)) }

// known reports whether t is a type of a core with the given features.
func known(t systolic.Type, features uint64) bool {
	return typeName(t)[0] > '9' && (!t.Float() || features&FeatureFloat != 0)
}

// Setup is what OPERANDS, WINDOW, BLOCKS and SPARSE leave in the matrix engine for the GEMM and
// CONV that follow (§5.6.9, §5.6.10, §5.6.30, §5.6.31), and IMAGE and SHAPE in the vector engine for
// POOL, RESIZE and TRANSPOSE (§5.6.22, §5.6.25).
type Setup struct {
	Operands Operands
	Window   Window
	Image    Image
	Shape    Shape
	Blocks   Blocks
	Sparse   Sparse
	Scales   Scales
}

// initialSetup is that of the start of a program.
var initialSetup = Setup{
	Window: Window{KernelH: 1, KernelW: 1, StepY: 1, StepX: 1, DilationY: 1, DilationX: 1, Groups: 1},
	Image:  Image{InH: 1, InW: 1, OutH: 1, OutW: 1},
	Shape:  Shape{N: [Dims]uint16{1, 1, 1, 1}},
	Scales: Scales{XShift: 1, YShift: 1, SShift: 1},
}

// Apply makes s what it is after i. i passed Check.
func (s *Setup) Apply(i Instruction) {
	switch i := i.(type) {
	case Operands:
		s.Operands = i
	case Window:
		s.Window = i
	case Image:
		s.Image = i
	case Shape:
		s.Shape = i
	case Blocks:
		s.Blocks = i
	case Sparse:
		s.Sparse = i
	case Scales:
		s.Scales = i
	}
}

// sets reports whether i changes a Setup.
func sets(i Instruction) bool {
	switch i.(type) {
	case Operands, Window, Image, Shape, Blocks, Sparse, Scales:
		return true
	}
	return false
}

// Operands says how GEMM and CONV read and write (§5.6.9).
type Operands struct {
	PerChannel                  bool // the weights' zero points are the table at BZeros
	TransposeA, TransposeB      bool
	OutputStationary            bool // of no effect on values
	A, B                        systolic.Type
	AZero, BZero                int16
	BZeros                      uint32 // scratchpad address
	AStride, BStride, AccStride uint32 // bytes between rows
	Wait, Signal                Token
}

// Encode implements Instruction.
func (i Operands) Encode() Word {
	flags := flagIf(i.PerChannel, flagPerChannel) | flagIf(i.TransposeA, flagTransposeA) |
		flagIf(i.TransposeB, flagTransposeB) | flagIf(i.OutputStationary, flagOutputStationary)
	w := encoder(OpOperands, flags, i.Wait, i.Signal)
	w[4], w[5] = byte(i.A), byte(i.B)
	w.put16(6, uint16(i.AZero))
	w.put16(8, uint16(i.BZero))
	w.put32(12, i.BZeros)
	w.put32(16, i.AStride)
	w.put32(20, i.BStride)
	w.put32(24, i.AccStride)
	return w
}

// DecodeOperands reads an OPERANDS that passed CheckFormat.
func DecodeOperands(w *Word) Operands {
	i := Operands{
		PerChannel:       w.flag(flagPerChannel),
		TransposeA:       w.flag(flagTransposeA),
		TransposeB:       w.flag(flagTransposeB),
		OutputStationary: w.flag(flagOutputStationary),
		A:                systolic.Type(w[4]),
		B:                systolic.Type(w[5]),
		AZero:            int16(w.uint16(6)),
		BZero:            int16(w.uint16(8)),
		BZeros:           w.uint32(12),
		AStride:          w.uint32(16),
		BStride:          w.uint32(20),
		AccStride:        w.uint32(24),
	}
	i.Wait, i.Signal = w.tokens()
	return i
}

// zeroRange returns the zero points that an operand of type t may have.
func zeroRange(t systolic.Type) (lo, hi int16) {
	switch {
	case t.Float():
		return 0, 0
	case t == systolic.Uint8:
		return 0, 255
	case t == systolic.Int16:
		return -1 << 15, 1<<15 - 1
	}
	return -128, 127
}

// Check implements Instruction.
func (i Operands) Check(l Limits) *Violation {
	var c checker
	if i.PerChannel && i.B.Float() {
		c.fail(BadOperand, 1, "per_channel", "is set; weights of %s have no zero points", typeName(i.B))
	}
	if t := i.A; c.v == nil && (!known(t, l.Features) || t == systolic.Int4) {
		c.fail(BadOperand, 4, "a_type", "is %s; activations are int8, uint8 or int16, or with feature float fp32, bf16, fp16, e4m3 or e5m2", typeName(t))
	}
	if t := i.B; c.v == nil && (!known(t, l.Features) || t == systolic.Int16 || t.Float() != i.A.Float()) {
		c.fail(BadOperand, 5, "b_type", "is %s with activations of %s; weights are int8, uint8 or int4, or any floating-point type if the activations are of one",
			typeName(t), typeName(i.A))
	}
	zero := func(off uint64, field string, v int16, t systolic.Type) {
		if lo, hi := zeroRange(t); c.v == nil && (v < lo || v > hi) {
			c.fail(BadOperand, off, field, "is %d; the zero point of %s is from %d to %d", v, typeName(t), lo, hi)
		}
	}
	zero(6, "a_zero", i.AZero, i.A)
	zero(8, "b_zero", i.BZero, i.B)
	if c.v == nil && i.PerChannel && i.BZero != 0 {
		c.fail(BadOperand, 8, "b_zero", "is %d; with per_channel the table holds the zero points and it must be 0", i.BZero)
	}
	if c.v == nil && !i.PerChannel && i.BZeros != 0 {
		c.fail(BadOperand, 12, "b_zeros", "is %#x; without per_channel there is no table and it must be 0", i.BZeros)
	}
	c.multiple(16, "a_stride", uint64(i.AStride), i.A.Bytes(1))
	c.multiple(20, "b_stride", uint64(i.BStride), i.B.Bytes(1))
	c.aligned(24, "acc_stride", uint64(i.AccStride))
	return c.v
}

// Window says how CONV walks its input (§5.6.10).
type Window struct {
	KernelH, KernelW     uint8
	StepY, StepX         uint8
	DilationY, DilationX uint8
	Groups               uint16
	PadTop, PadLeft      uint16
	Wait, Signal         Token
}

// Encode implements Instruction.
func (i Window) Encode() Word {
	w := encoder(OpWindow, 0, i.Wait, i.Signal)
	copy(w[4:], []byte{i.KernelH, i.KernelW, i.StepY, i.StepX, i.DilationY, i.DilationX})
	w.put16(10, i.Groups)
	w.put16(12, i.PadTop)
	w.put16(14, i.PadLeft)
	return w
}

// DecodeWindow reads a WINDOW that passed CheckFormat.
func DecodeWindow(w *Word) Window {
	i := Window{
		KernelH: w[4], KernelW: w[5], StepY: w[6], StepX: w[7], DilationY: w[8], DilationX: w[9],
		Groups: w.uint16(10), PadTop: w.uint16(12), PadLeft: w.uint16(14),
	}
	i.Wait, i.Signal = w.tokens()
	return i
}

// Check implements Instruction.
func (i Window) Check(Limits) *Violation {
	var c checker
	for n, v := range []uint8{i.KernelH, i.KernelW, i.StepY, i.StepX, i.DilationY, i.DilationX} {
		c.atLeastOne(uint64(4+n), windowFields[n], uint64(v))
	}
	c.atLeastOne(10, "groups", uint64(i.Groups))
	return c.v
}

var windowFields = [...]string{"kernel_h", "kernel_w", "step_y", "step_x", "dilation_y", "dilation_x"}

// Gemm is a matrix product of any size (§5.6.11).
type Gemm struct {
	Accumulate   bool
	M, N, K      uint32
	A, B         uint32 // scratchpad addresses
	Acc          uint32 // accumulator byte address
	Wait, Signal Token
}

// Encode implements Instruction.
func (i Gemm) Encode() Word {
	w := encoder(OpGemm, flagIf(i.Accumulate, flagAccumulate), i.Wait, i.Signal)
	for n, v := range []uint32{i.M, i.N, i.K, i.A, i.B, i.Acc} {
		w.put32(4+4*n, v)
	}
	return w
}

// DecodeGemm reads a GEMM that passed CheckFormat.
func DecodeGemm(w *Word) Gemm {
	i := Gemm{
		Accumulate: w.flag(flagAccumulate),
		M:          w.uint32(4), N: w.uint32(8), K: w.uint32(12),
		A: w.uint32(16), B: w.uint32(20), Acc: w.uint32(24),
	}
	i.Wait, i.Signal = w.tokens()
	return i
}

// ARows returns the scratchpad rows of the activations.
func (i Gemm) ARows(s *Setup) Rows {
	r := operandRows(i.A, uint64(i.M), uint64(i.K), s.Operands.AStride, s.Operands.A, s.Operands.TransposeA)
	if f := s.Blocks.A; f != num.NotMX {
		r.Bytes = f.Bytes(uint64(i.K))
	}
	return r
}

// BRows returns the scratchpad rows of the weights.
func (i Gemm) BRows(s *Setup) Rows {
	r := operandRows(i.B, s.kept(uint64(i.K)), uint64(i.N), s.Operands.BStride, s.Operands.B, s.Operands.TransposeB)
	if f := s.Blocks.B; f != num.NotMX {
		r.Bytes = f.Bytes(uint64(i.K))
	}
	return r
}

// operandRows is a matrix of rows × cols elements, or of cols × rows in memory.
func operandRows(base uint32, rows, cols uint64, stride uint32, t systolic.Type, transposed bool) Rows {
	if transposed {
		rows, cols = cols, rows
	}
	return Rows{Base: uint64(base), Outer: 1, Inner: rows, InnerStride: uint64(stride), Bytes: t.Bytes(cols)}
}

// Check implements Instruction.
func (i Gemm) Check(l Limits) *Violation {
	var c checker
	s, o := &l.Setup, &l.Setup.Operands
	c.atLeastOne(4, "m", uint64(i.M))
	c.atLeastOne(8, "n", uint64(i.N))
	c.atLeastOne(12, "k", uint64(i.K))
	c.multiple(16, "a", uint64(i.A), o.A.Bytes(1))
	c.multiple(20, "b", uint64(i.B), o.B.Bytes(1))
	c.aligned(24, "acc", uint64(i.Acc))
	if c.v != nil {
		return c.v
	}
	i.blocks(&c, s)
	c.sparse(s, uint64(i.K), uint64(i.N))
	if c.v != nil {
		return c.v
	}
	a, b := i.ARows(s), i.BRows(s)
	c.setup(16, "a_stride", uint64(o.AStride), a.Inner > 1, a.Bytes)
	c.setup(20, "b_stride", uint64(o.BStride), b.Inner > 1, b.Bytes)
	c.setup(24, "acc_stride", uint64(o.AccStride), i.M > 1, 4*uint64(i.N))
	c.local("a", false, a, &l)
	if s.Blocks.A != num.NotMX {
		c.local("a_scales", false, i.AScaleRows(s), &l)
	}
	c.local("b", false, b, &l)
	if s.Blocks.B != num.NotMX {
		c.local("b_scales", false, i.BScaleRows(s), &l)
	}
	c.product(i.Acc, uint64(i.M), uint64(i.N), uint64(i.K), l)
	return c.v
}

// Product returns the product that i is in a core with setup s; i passed Check.
func (i Gemm) Product(s *Setup) systolic.Product {
	p := s.product(i.Accumulate)
	p.InH, p.OutH, p.InW, p.OutW = 1, 1, int(i.M), int(i.M)
	p.Cin, p.Cout, p.Groups = int(i.K), int(i.N), 1
	p.KernelH, p.KernelW, p.StepY, p.StepX, p.DilationY, p.DilationX = 1, 1, 1, 1, 1, 1
	return p
}

// product returns what OPERANDS says of every product.
func (s *Setup) product(accumulate bool) systolic.Product {
	o := &s.Operands
	return systolic.Product{
		A:          systolic.Operand{Type: o.A, Zero: int32(o.AZero), Stride: int(o.AStride), Transposed: o.TransposeA},
		B:          systolic.Operand{Type: o.B, Zero: int32(o.BZero), Stride: int(o.BStride), Transposed: o.TransposeB},
		AccStride:  int(o.AccStride / 4),
		Accumulate: accumulate,
	}
}

// Conv is a convolution (§5.6.12).
type Conv struct {
	Accumulate           bool
	InH, InW, OutH, OutW uint16
	Cin, Cout            uint16
	A, B                 uint32 // scratchpad addresses
	Acc                  uint32 // accumulator byte address
	Line                 uint32 // bytes between lines of the input
	Wait, Signal         Token
}

// Encode implements Instruction.
func (i Conv) Encode() Word {
	w := encoder(OpConv, flagIf(i.Accumulate, flagAccumulate), i.Wait, i.Signal)
	for n, v := range []uint16{i.InH, i.InW, i.OutH, i.OutW, i.Cin, i.Cout} {
		w.put16(4+2*n, v)
	}
	for n, v := range []uint32{i.A, i.B, i.Acc, i.Line} {
		w.put32(16+4*n, v)
	}
	return w
}

// DecodeConv reads a CONV that passed CheckFormat.
func DecodeConv(w *Word) Conv {
	i := Conv{
		Accumulate: w.flag(flagAccumulate),
		InH:        w.uint16(4), InW: w.uint16(6), OutH: w.uint16(8), OutW: w.uint16(10),
		Cin: w.uint16(12), Cout: w.uint16(14),
		A: w.uint32(16), B: w.uint32(20), Acc: w.uint32(24), Line: w.uint32(28),
	}
	i.Wait, i.Signal = w.tokens()
	return i
}

// ARows returns the scratchpad rows of the input: a row is a pixel.
func (i Conv) ARows(s *Setup) Rows {
	return Rows{
		Base:  uint64(i.A),
		Outer: uint64(i.InH), OuterStride: uint64(i.Line),
		Inner: uint64(i.InW), InnerStride: uint64(s.Operands.AStride),
		Bytes: s.Operands.A.Bytes(uint64(i.Cin)),
	}
}

// BRows returns the scratchpad rows of the weights.
func (i Conv) BRows(s *Setup) Rows {
	return operandRows(i.B, s.kept(i.depth(s)), uint64(i.Cout), s.Operands.BStride, s.Operands.B, s.Operands.TransposeB)
}

// depth is how many products a sum has: at most 255·255·65535, which is less than 2³².
func (i Conv) depth(s *Setup) uint64 {
	w := &s.Window
	return uint64(w.KernelH) * uint64(w.KernelW) * uint64(i.Cin/w.Groups)
}

// Offset of WINDOW's fields in the info of BAD_SETUP.
const setupWindow = Size

// Check implements Instruction.
func (i Conv) Check(l Limits) *Violation {
	var c checker
	s, o := &l.Setup, &l.Setup.Operands
	for n, v := range []uint16{i.InH, i.InW, i.OutH, i.OutW, i.Cin, i.Cout} {
		c.atLeastOne(uint64(4+2*n), convFields[n], uint64(v))
	}
	c.multiple(16, "a", uint64(i.A), o.A.Bytes(1))
	c.multiple(20, "b", uint64(i.B), o.B.Bytes(1))
	c.aligned(24, "acc", uint64(i.Acc))
	c.multiple(28, "line", uint64(i.Line), o.A.Bytes(1))
	if c.v != nil {
		return c.v
	}
	a := i.ARows(s)
	c.stride(28, "line", uint64(i.Line), i.InH > 1, (a.Inner-1)*a.InnerStride+a.Bytes, "(in_w − 1)·a_stride + a pixel's bytes")
	if c.v == nil && (s.Blocks.A != num.NotMX || s.Blocks.B != num.NotMX) {
		c.fail(BadSetup, setupBlocks+4, "a_format", "or b_format is set by BLOCKS; a convolution has no operands in blocks")
	}
	c.sparse(s, i.depth(s), uint64(i.Cout))
	if c.v == nil && o.TransposeA {
		c.fail(BadSetup, 1, "transpose_a", "is set by OPERANDS; a convolution's input cannot be transposed")
	}
	c.setup(16, "a_stride", uint64(o.AStride), i.InW > 1, a.Bytes)
	if g := s.Window.Groups; c.v == nil && (i.Cin%g != 0 || i.Cout%g != 0) {
		c.fail(BadSetup, setupWindow+10, "groups", "is %d in WINDOW; it must divide cin = %d and cout = %d", g, i.Cin, i.Cout)
	}
	if c.v != nil {
		return c.v
	}
	b, m := i.BRows(s), uint64(i.OutH)*uint64(i.OutW)
	c.setup(20, "b_stride", uint64(o.BStride), b.Inner > 1, b.Bytes)
	c.setup(24, "acc_stride", uint64(o.AccStride), m > 1, 4*uint64(i.Cout))
	c.local("a", false, a, &l)
	c.local("b", false, b, &l)
	c.product(i.Acc, m, uint64(i.Cout), i.depth(s), l)
	return c.v
}

var convFields = [...]string{"in_h", "in_w", "out_h", "out_w", "cin", "cout"}

// Product returns the product that i is in a core with setup s; i passed Check.
func (i Conv) Product(s *Setup) systolic.Product {
	p, w := s.product(i.Accumulate), &s.Window
	p.InH, p.InW, p.OutH, p.OutW = int(i.InH), int(i.InW), int(i.OutH), int(i.OutW)
	p.Cin, p.Cout, p.Groups, p.Line = int(i.Cin), int(i.Cout), int(w.Groups), int(i.Line)
	p.KernelH, p.KernelW, p.StepY, p.StepX = int(w.KernelH), int(w.KernelW), int(w.StepY), int(w.StepX)
	p.DilationY, p.DilationX, p.PadTop, p.PadLeft = int(w.DilationY), int(w.DilationX), int(w.PadTop), int(w.PadLeft)
	return p
}

// multiple is aligned for elements of size bytes, a power of two.
func (c *checker) multiple(off uint64, field string, v, size uint64) {
	if c.v == nil && v&(size-1) != 0 {
		c.fail(BadOperand, off, field, "is %d; it must be a multiple of the element's %d bytes", v, size)
	}
}

// setup checks a stride that OPERANDS gave against the instruction's shape. off
// is that of the field in OPERANDS.
func (c *checker) setup(off uint64, field string, v uint64, several bool, least uint64) {
	if c.v == nil && several && v < least {
		c.fail(BadSetup, off, field, "is %d in OPERANDS, rows would overlap; this instruction needs at least %d", v, least)
	}
}

// product checks the bounds of indices, zero points and result.
func (c *checker) product(acc uint32, m, n, depth uint64, l Limits) {
	o := &l.Setup.Operands
	if l.Setup.Sparse.On {
		c.local("indices", false, l.Setup.IndexRows(depth, n), &l)
	}
	if o.PerChannel {
		c.local("b_zeros", false, one(o.BZeros, n), &l)
	}
	c.local("acc", true, Rows{Base: uint64(acc), Outer: 1, Inner: m, InnerStride: uint64(o.AccStride), Bytes: 4 * n}, &l)
}
