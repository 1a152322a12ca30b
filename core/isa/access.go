// SPDX-License-Identifier: Apache-2.0

package isa

import "npuemu/core/num"

// Space is a memory that engines share (§5.1, §5.2).
type Space uint8

// The spaces.
const (
	Scratchpad Space = iota
	Accumulators
	Memory // behind a binding
)

// Access is a set of bytes that an instruction reads or writes.
type Access struct {
	Space   Space
	Binding uint8 // of Memory
	Write   bool  // it writes them, and may read them too
	Rows    Rows  // addresses; of Memory offsets in the binding
}

// Accesses appends to list what w reads and writes, with the setup that it finds.
// w passed Check. What one engine alone knows, the array and the setup, is not among
// it. Of GATHER and SCATTER it is the whole table, of TRANSPOSE all from the first
// byte to the last (§5.5).
func Accesses(list []Access, w *Word, s *Setup) []Access {
	use := func(acc, write bool, r Rows) {
		space := Scratchpad
		if acc {
			space = Accumulators
		}
		list = append(list, Access{Space: space, Write: write, Rows: r})
	}
	switch Opcode(w[0]) {
	case OpLoad, OpStore:
		i := DecodeLoad(w)
		store := Opcode(w[0]) == OpStore
		lines := uint64(i.NY) * uint64(i.NZ)
		use(i.Acc, !store, Rows{Base: uint64(i.Local), Outer: 1, Inner: lines, InnerStride: uint64(i.LocalStride), Bytes: uint64(i.NX)})
		list = append(list, Access{Space: Memory, Binding: i.Binding, Write: store, Rows: i.Memory()})
	case OpStamp:
		i := DecodeStamp(w)
		list = append(list, Access{Space: Memory, Binding: i.Binding, Write: true, Rows: Rows{Base: i.Offset, Outer: 1, Inner: 1, Bytes: StampSize}})
	case OpPreload:
		i := DecodePreload(w)
		use(false, false, Rows{Base: uint64(i.Weights), Outer: 1, Inner: uint64(i.K), InnerStride: uint64(i.Stride), Bytes: uint64(i.N)})
	case OpMatmul:
		i := DecodeMatmul(w)
		use(false, false, Rows{
			Base: uint64(i.Ifmap), Outer: uint64(i.MY), OuterStride: uint64(i.StrideY),
			Inner: uint64(i.MX), InnerStride: uint64(i.StrideX), Bytes: uint64(i.K),
		})
		use(true, true, accRows(i.Acc, uint64(i.MX)*uint64(i.MY), i.AccStride, i.N))
	case OpGemm:
		i := DecodeGemm(w)
		use(false, false, i.ARows(s))
		if s.Blocks.A != num.NotMX {
			use(false, false, i.AScaleRows(s))
		}
		if s.Blocks.B != num.NotMX {
			use(false, false, i.BScaleRows(s))
		}
		list = product(list, s, i.BRows(s), i.Acc, uint64(i.M), uint64(i.N), uint64(i.K))
	case OpConv:
		i := DecodeConv(w)
		use(false, false, i.ARows(s))
		list = product(list, s, i.BRows(s), i.Acc, uint64(i.OutH)*uint64(i.OutW), uint64(i.Cout), i.depth(s))
	case OpFill:
		i := DecodeFill(w)
		use(i.Acc, true, Rows{Base: uint64(i.Local), Outer: 1, Inner: uint64(i.NY), InnerStride: uint64(i.Stride), Bytes: uint64(i.NX)})
	case OpBias:
		i := DecodeBias(w)
		use(false, false, one(i.Bias, 4*uint64(i.N)))
		use(true, true, accRows(i.Acc, uint64(i.M), i.AccStride, i.N))
	case OpRequant:
		i := DecodeRequant(w)
		use(true, false, accRows(i.Acc, uint64(i.MX)*uint64(i.MY), i.AccStride, i.N))
		use(false, false, one(i.Params, ParamSize*uint64(i.ParamCount())))
		use(false, true, Rows{
			Base: uint64(i.Out), Outer: uint64(i.MY), OuterStride: uint64(i.OutStrideY),
			Inner: uint64(i.MX), InnerStride: uint64(i.OutStrideX), Bytes: uint64(i.N),
		})
	case OpElement:
		i := DecodeElement(w)
		use(i.XAcc, false, i.XRows())
		if !i.Op.Unary() {
			use(i.YAcc, false, i.YRows())
		}
		use(i.OutAcc, true, i.OutRows())
	case OpTable:
		i := DecodeTable(w)
		rows := func(base uint32, stride uint16) Rows {
			return Rows{Base: uint64(base), Outer: 1, Inner: uint64(i.M), InnerStride: uint64(stride), Bytes: uint64(i.N)}
		}
		use(false, false, rows(i.X, i.XStride))
		use(false, false, one(i.Table, TableSize))
		use(false, true, rows(i.Out, i.OutStride))
	case OpReduce:
		i := DecodeReduce(w)
		use(i.XAcc, false, i.XRows())
		use(i.OutAcc, true, i.OutRows())
	case OpNorm:
		i := DecodeNorm(w)
		use(i.XAcc, false, i.XRows())
		if n := i.ParamCount(); n > 0 {
			use(false, false, one(i.Params, 4*uint64(n)))
		}
		use(i.OutAcc, true, i.OutRows())
	case OpPool, OpResize:
		i := DecodePool(w) // n, x and out are RESIZE's too
		use(s.Image.XAcc, false, s.Image.XRows(i.X, i.N))
		use(s.Image.OutAcc, true, s.Image.OutRows(i.Out, i.N))
	case OpTranspose:
		i := DecodeTranspose(w)
		use(false, false, i.XGrid(&s.Shape).span())
		use(false, true, i.OutGrid(&s.Shape).span())
	case OpGather:
		i := DecodeGather(w)
		use(false, false, i.table(i.X))
		use(false, false, one(i.Indices, 4*uint64(i.M)))
		use(false, true, i.list(i.Out))
	case OpScatter:
		i := DecodeGather(w)
		use(false, false, i.list(i.X))
		use(false, false, one(i.Indices, 4*uint64(i.M)))
		use(false, true, i.table(i.Out))
	case OpQuantize:
		i := DecodeQuantize(w)
		use(i.XAcc, false, i.XRows())
		if n := i.ParamCount(); n > 0 {
			use(false, false, one(i.Params, ParamSize*uint64(n)))
		}
		use(i.OutAcc, true, i.OutRows())
	case OpAddq:
		i := DecodeAddq(w).Element()
		use(false, false, i.XRows())
		use(false, false, i.YRows())
		use(false, true, i.OutRows())
	}
	return list
}

// Follow makes s what it is after w, which passed Check.
func (s *Setup) Follow(w *Word) {
	switch Opcode(w[0]) {
	case OpOperands:
		s.Operands = DecodeOperands(w)
	case OpWindow:
		s.Window = DecodeWindow(w)
	case OpImage:
		s.Image = DecodeImage(w)
	case OpShape:
		s.Shape = DecodeShape(w)
	case OpBlocks:
		s.Blocks = DecodeBlocks(w)
	case OpSparse:
		s.Sparse = DecodeSparse(w)
	case OpScales:
		s.Scales = DecodeScales(w)
	}
}

// product appends weights, indices, zero points and result of a GEMM or CONV.
func product(list []Access, s *Setup, b Rows, acc uint32, m, n, depth uint64) []Access {
	o := &s.Operands
	list = append(list, Access{Rows: b})
	if s.Sparse.On {
		list = append(list, Access{Rows: s.IndexRows(depth, n)})
	}
	if o.PerChannel {
		list = append(list, Access{Rows: one(o.BZeros, n)})
	}
	return append(list, Access{Space: Accumulators, Write: true, Rows: Rows{
		Base: uint64(acc), Outer: 1, Inner: m, InnerStride: uint64(o.AccStride), Bytes: 4 * n,
	}})
}
