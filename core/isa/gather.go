// SPDX-License-Identifier: Apache-2.0

package isa

// Dims is how many dimensions TRANSPOSE has.
const Dims = 4

// Shape says how many elements TRANSPOSE moves and where it stores them (§5.6.25).
type Shape struct {
	N            [Dims]uint16 // elements along each dimension, the outermost first
	OutStride    [Dims]uint32 // bytes between them where they are stored
	Wait, Signal Token
}

// Encode implements Instruction.
func (i Shape) Encode() Word {
	w := encoder(OpShape, 0, i.Wait, i.Signal)
	for d := range Dims {
		w.put16(4+2*d, i.N[d])
		w.put32(12+4*d, i.OutStride[d])
	}
	return w
}

// DecodeShape reads a SHAPE that passed CheckFormat.
func DecodeShape(w *Word) (i Shape) {
	for d := range Dims {
		i.N[d], i.OutStride[d] = w.uint16(4+2*d), w.uint32(12+4*d)
	}
	i.Wait, i.Signal = w.tokens()
	return i
}

// Check implements Instruction.
func (i Shape) Check(Limits) *Violation {
	var c checker
	for d, v := range i.N {
		c.atLeastOne(uint64(4+2*d), shapeFields[d], uint64(v))
	}
	return c.v
}

var shapeFields = [Dims]string{"n0", "n1", "n2", "n3"}

// Transpose copies elements to other places of the scratchpad (§5.6.26).
type Transpose struct {
	Size         uint16 // bytes of an element
	X, Out       uint32 // scratchpad addresses
	XStride      [Dims]uint32
	Wait, Signal Token
}

// Encode implements Instruction.
func (i Transpose) Encode() Word {
	w := encoder(OpTranspose, 0, i.Wait, i.Signal)
	w.put16(4, i.Size)
	w.put32(8, i.X)
	w.put32(12, i.Out)
	for d, v := range i.XStride {
		w.put32(16+4*d, v)
	}
	return w
}

// DecodeTranspose reads a TRANSPOSE that passed CheckFormat.
func DecodeTranspose(w *Word) Transpose {
	i := Transpose{Size: w.uint16(4), X: w.uint32(8), Out: w.uint32(12)}
	for d := range Dims {
		i.XStride[d] = w.uint32(16 + 4*d)
	}
	i.Wait, i.Signal = w.tokens()
	return i
}

// Grid is a set of elements of Bytes bytes in Dims dimensions.
type Grid struct {
	Base   uint64
	N      [Dims]uint16 // at least 1
	Stride [Dims]uint32
	Bytes  uint64 // at least 1
}

// end is the address behind the last byte of what dimensions from d on make of
// an element at base.
func (g Grid) end(base uint64, d int) uint64 {
	base += g.Bytes
	for ; d < Dims; d++ {
		base += uint64(g.N[d]-1) * uint64(g.Stride[d])
	}
	return base
}

// Outside is Rows.Outside for elements in the order of their indexes, the last
// one fastest.
func (g Grid) Outside(size uint64) (first uint64, outside bool) {
	if g.end(g.Base, 0) <= size {
		return 0, false
	}
	at := g.Base
	for d := range Dims {
		at += firstBeyond(g.end(at, d+1), uint64(g.Stride[d]), size) * uint64(g.Stride[d])
	}
	return max(at, size), true
}

// XGrid is what i reads with the given SHAPE.
func (i Transpose) XGrid(s *Shape) Grid {
	return Grid{Base: uint64(i.X), N: s.N, Stride: i.XStride, Bytes: uint64(i.Size)}
}

// OutGrid is what i stores.
func (i Transpose) OutGrid(s *Shape) Grid {
	return Grid{Base: uint64(i.Out), N: s.N, Stride: s.OutStride, Bytes: uint64(i.Size)}
}

// Check implements Instruction.
func (i Transpose) Check(l Limits) *Violation {
	var c checker
	c.atLeastOne(4, "size", uint64(i.Size))
	if c.v != nil {
		return c.v
	}
	x, out := i.XGrid(&l.Setup.Shape), i.OutGrid(&l.Setup.Shape)
	for _, g := range []struct {
		field string
		Grid
	}{{"x", x}, {"out", out}} {
		if first, outside := g.Outside(uint64(l.SpadSize)); outside && c.v == nil {
			c.fail(LocalBounds, first, g.field, "reaches address %#x; the program has %d bytes of scratchpad", first, l.SpadSize)
		}
	}
	c.apart("out", false, x.span(), false, out.span())
	return c.v
}

// span is all from the first to the last byte of g.
func (g Grid) span() Rows {
	return Rows{Base: g.Base, Outer: 1, Inner: 1, Bytes: g.end(g.Base, 0) - g.Base}
}

// Gather copies the rows of a table that a list of indices names (§5.6.27).
type Gather struct {
	FromEnd      bool   // indices below 0 count from the end
	N            uint16 // bytes of a row
	Stride       uint16 // bytes between rows that follow the list
	X, Out       uint32 // scratchpad addresses
	Indices      uint32 // scratchpad address of M int32
	M            uint32
	Rows         uint32 // of the table
	TableStride  uint32 // bytes between rows of the table
	Wait, Signal Token
}

// Scatter copies rows to those of a table that a list of indices names
// (§5.6.28). Its fields are Gather's: the table is where the result lies.
type Scatter Gather

// Encode implements Instruction.
func (i Gather) Encode() Word { return i.encode(OpGather) }

// Encode implements Instruction.
func (i Scatter) Encode() Word { return Gather(i).encode(OpScatter) }

func (i Gather) encode(o Opcode) Word {
	w := encoder(o, flagIf(i.FromEnd, flagFromEnd), i.Wait, i.Signal)
	w.put16(4, i.N)
	w.put16(6, i.Stride)
	for n, v := range []uint32{i.X, i.Indices, i.Out, i.M, i.Rows, i.TableStride} {
		w.put32(8+4*n, v)
	}
	return w
}

// DecodeGather reads a GATHER that passed CheckFormat.
func DecodeGather(w *Word) Gather {
	i := Gather{
		FromEnd: w.flag(flagFromEnd), N: w.uint16(4), Stride: w.uint16(6), X: w.uint32(8), Indices: w.uint32(12), Out: w.uint32(16),
		M: w.uint32(20), Rows: w.uint32(24), TableStride: w.uint32(28),
	}
	i.Wait, i.Signal = w.tokens()
	return i
}

// DecodeScatter reads a SCATTER that passed CheckFormat.
func DecodeScatter(w *Word) Scatter { return Scatter(DecodeGather(w)) }

// list is the rows that follow the list, at base.
func (i Gather) list(base uint32) Rows {
	return Rows{Base: uint64(base), Outer: 1, Inner: uint64(i.M), InnerStride: uint64(i.Stride), Bytes: uint64(i.N)}
}

// table is the table, at base.
func (i Gather) table(base uint32) Rows {
	return Rows{Base: uint64(base), Outer: 1, Inner: uint64(i.Rows), InnerStride: uint64(i.TableStride), Bytes: uint64(i.N)}
}

// Check implements Instruction.
func (i Gather) Check(l Limits) *Violation {
	return i.check(l, i.table(i.X), i.list(i.Out), 6, "out_stride", uint64(i.Stride), i.M > 1)
}

// Check implements Instruction.
func (i Scatter) Check(l Limits) *Violation {
	g := Gather(i)
	return g.check(l, g.list(i.X), g.table(i.Out), 28, "out_stride", uint64(i.TableStride), i.Rows > 1)
}

func (i Gather) check(l Limits, x, out Rows, strideOff uint64, field string, stride uint64, several bool) *Violation {
	var c checker
	c.atLeastOne(4, "n", uint64(i.N))
	if strideOff == 6 {
		c.stride(6, field, stride, several, uint64(i.N), "n")
	}
	c.aligned(12, "indices", uint64(i.Indices))
	c.atLeastOne(20, "m", uint64(i.M))
	c.atLeastOne(24, "rows", uint64(i.Rows))
	if c.v == nil && i.Rows > MaxRows {
		c.fail(BadOperand, 24, "rows", "is %d; a table has at most %d", i.Rows, MaxRows)
	}
	if strideOff == 28 {
		c.stride(28, field, stride, several, uint64(i.N), "n")
	}
	if c.v != nil {
		return c.v
	}
	indices := one(i.Indices, 4*uint64(i.M))
	c.local("x", false, x, &l)
	c.local("indices", false, indices, &l)
	c.local("out", false, out, &l)
	first, second := x, indices // the lower one shares the first address with out, if both do
	if second.Base < first.Base {
		first, second = second, first
	}
	c.apart("out", false, first, false, out)
	c.apart("out", false, second, false, out)
	return c.v
}

// MaxRows is how many rows the table of GATHER and SCATTER may have: indices are int32.
const MaxRows = 1 << 31
