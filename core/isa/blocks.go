// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"npuemu/core/num"
	"npuemu/core/systolic"
)

// Blocks says that the GEMM which follow read operands in blocks with a common
// scale (§5.6.30).
type Blocks struct {
	A, B                       num.MX // num.NotMX: the operand is what OPERANDS says
	AScales, BScales           uint32 // scratchpad addresses
	AScaleStride, BScaleStride uint32 // bytes between rows of scales
	Wait, Signal               Token
}

// mxFormats are the formats of §6.16.
var mxFormats = []choice{
	{"none", uint8(num.NotMX)}, {"mxfp8_e4m3", uint8(num.MXE4M3)}, {"mxfp8_e5m2", uint8(num.MXE5M2)}, {"mxfp6_e3m2", uint8(num.MXE3M2)},
	{"mxfp6_e2m3", uint8(num.MXE2M3)}, {"mxfp4_e2m1", uint8(num.MXE2M1)}, {"mxint8", uint8(num.MXInt8)},
}

// Encode implements Instruction.
func (i Blocks) Encode() Word {
	w := encoder(OpBlocks, 0, i.Wait, i.Signal)
	w[4], w[5] = byte(i.A), byte(i.B)
	for n, v := range []uint32{i.AScales, i.BScales, i.AScaleStride, i.BScaleStride} {
		w.put32(8+4*n, v)
	}
	return w
}

// DecodeBlocks reads a BLOCKS that passed CheckFormat.
func DecodeBlocks(w *Word) Blocks {
	i := Blocks{
		A: num.MX(w[4]), B: num.MX(w[5]), AScales: w.uint32(8), BScales: w.uint32(12), AScaleStride: w.uint32(16), BScaleStride: w.uint32(20),
	}
	i.Wait, i.Signal = w.tokens()
	return i
}

// Check implements Instruction.
func (i Blocks) Check(Limits) *Violation {
	var c checker
	for n, v := range []num.MX{i.A, i.B} {
		if c.v == nil && v > num.MXInt8 {
			c.fail(BadOperand, uint64(4+n), [...]string{"a_format", "b_format"}[n], "is %d; formats are 0 to %d", v, num.MXInt8)
		}
	}
	for n, v := range []struct {
		format  num.MX
		address uint32
	}{{i.A, i.AScales}, {i.B, i.BScales}} {
		if c.v == nil && v.format == num.NotMX && v.address != 0 {
			c.fail(BadOperand, uint64(8+4*n), [...]string{"a_scales", "b_scales"}[n], "is %#x; without a format there are no scales and it must be 0", v.address)
		}
	}
	for n, v := range []struct {
		format num.MX
		stride uint32
	}{{i.A, i.AScaleStride}, {i.B, i.BScaleStride}} {
		if c.v == nil && v.format == num.NotMX && v.stride != 0 {
			c.fail(BadOperand, uint64(16+4*n), [...]string{"a_scale_stride", "b_scale_stride"}[n], "is %d; without a format there are no scales and it must be 0", v.stride)
		}
	}
	return c.v
}

// Sparse says that of four weights in a row of the GEMM and CONV which follow two
// are there (§5.6.31).
type Sparse struct {
	On           bool
	Indices      uint32 // scratchpad address
	IndexStride  uint32 // bytes between rows of indices
	Wait, Signal Token
}

// Encode implements Instruction.
func (i Sparse) Encode() Word {
	w := encoder(OpSparse, flagIf(i.On, flagOn), i.Wait, i.Signal)
	w.put32(8, i.Indices)
	w.put32(12, i.IndexStride)
	return w
}

// DecodeSparse reads a SPARSE that passed CheckFormat.
func DecodeSparse(w *Word) Sparse {
	i := Sparse{On: w.flag(flagOn), Indices: w.uint32(8), IndexStride: w.uint32(12)}
	i.Wait, i.Signal = w.tokens()
	return i
}

// Check implements Instruction.
func (i Sparse) Check(Limits) *Violation {
	var c checker
	if !i.On && i.Indices != 0 {
		c.fail(BadOperand, 8, "indices", "is %#x; weights are dense and it must be 0", i.Indices)
	}
	if c.v == nil && !i.On && i.IndexStride != 0 {
		c.fail(BadOperand, 12, "index_stride", "is %d; weights are dense and it must be 0", i.IndexStride)
	}
	return c.v
}

// Offsets of the fields of BLOCKS and SPARSE in the info of BAD_SETUP.
const (
	setupBlocks = 3 * Size
	setupSparse = 4 * Size
)

// kept returns how many of depth weights in a sum are in the scratchpad.
func (s *Setup) kept(depth uint64) uint64 {
	if s.Sparse.On {
		return depth / 2
	}
	return depth
}

// AScaleRows returns where the scales of the activations' m rows lie; only with a
// format.
func (i Gemm) AScaleRows(s *Setup) Rows {
	return scaleRows(s.Blocks.AScales, s.Blocks.AScaleStride, uint64(i.M), uint64(i.K))
}

// BScaleRows is AScaleRows of the weights.
func (i Gemm) BScaleRows(s *Setup) Rows {
	return scaleRows(s.Blocks.BScales, s.Blocks.BScaleStride, uint64(i.N), uint64(i.K))
}

func scaleRows(base, stride uint32, rows, k uint64) Rows {
	return Rows{Base: uint64(base), Outer: 1, Inner: rows, InnerStride: uint64(stride), Bytes: (k + num.MXBlock - 1) / num.MXBlock}
}

// IndexRows returns where the indices of the weights lie, depth of which are in a
// sum of n columns; only if they are sparse.
func (s *Setup) IndexRows(depth, n uint64) Rows {
	groups := depth / sparseGroup
	r := Rows{Base: uint64(s.Sparse.Indices), Outer: 1, Inner: groups, InnerStride: uint64(s.Sparse.IndexStride), Bytes: (n + 1) / 2}
	if s.Operands.TransposeB {
		r.Inner, r.Bytes = n, (groups+1)/2
	}
	return r
}

// sparseGroup is how many weights share two places.
const sparseGroup = 4

// blocks checks what BLOCKS asks of the GEMM.
func (i Gemm) blocks(c *checker, s *Setup) {
	b, o := &s.Blocks, &s.Operands
	octet := func(off uint64, field string, f num.MX, t systolic.Type) {
		if c.v == nil && f != num.NotMX && t != systolic.E4M3 {
			c.fail(BadSetup, off, field, "is %s in OPERANDS; where BLOCKS has a format it must be e4m3", typeName(t))
		}
	}
	octet(4, "a_type", b.A, o.A)
	octet(5, "b_type", b.B, o.B)
	if c.v == nil && (b.A != num.NotMX && o.TransposeA || b.B != num.NotMX && !o.TransposeB) {
		c.fail(BadSetup, 1, "transpose", "of OPERANDS is not what blocks need: they lie along k, so transpose_a must be clear and transpose_b set")
	}
	if c.v == nil && b.B != num.NotMX && s.Sparse.On {
		c.fail(BadSetup, setupSparse+1, "on", "is set by SPARSE; weights in blocks cannot be sparse")
	}
	if c.v != nil {
		return
	}
	if b.A != num.NotMX {
		r := i.AScaleRows(s)
		c.setup(setupBlocks+16, "a_scale_stride", r.InnerStride, r.Inner > 1, r.Bytes)
	}
	if b.B != num.NotMX {
		r := i.BScaleRows(s)
		c.setup(setupBlocks+20, "b_scale_stride", r.InnerStride, r.Inner > 1, r.Bytes)
	}
}

// sparse checks what SPARSE asks of a product of n columns with so many weights in
// a sum.
func (c *checker) sparse(s *Setup, depth, n uint64) {
	if !s.Sparse.On || c.v != nil {
		return
	}
	if depth%sparseGroup != 0 {
		c.fail(BadSetup, setupSparse+1, "on", "is set by SPARSE; sums have %d products, which must be a multiple of %d", depth, sparseGroup)
		return
	}
	r := s.IndexRows(depth, n)
	c.setup(setupSparse+12, "index_stride", r.InnerStride, r.Inner > 1, r.Bytes)
}
