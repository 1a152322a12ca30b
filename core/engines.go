// SPDX-License-Identifier: Apache-2.0

package core

import (
	"bytes"
	"encoding/binary"
	"slices"

	"npuemu/core/isa"
	"npuemu/core/num"
	"npuemu/core/systolic"
	"npuemu/core/vec"
)

// Every engine makes all checks of §5.7 before it changes anything. After them
// all addresses are inside local memory, so int holds them (MaxLocalSize); a
// stride that is too large for int belongs to an instruction with one row and
// is only ever multiplied by 0.

// execute runs one instruction that passed CheckFormat: what the sequencer does itself, or else its unit. The fault has no
// index.
func (c *Core) execute(w *isa.Word) *Fault {
	switch isa.Opcode(w[0]) {
	case isa.OpStamp:
		return c.stamp(isa.DecodeStamp(w))
	case isa.OpOperands:
		return c.operands(isa.DecodeOperands(w))
	case isa.OpWindow:
		return c.window(isa.DecodeWindow(w))
	case isa.OpGemm:
		return c.gemm(isa.DecodeGemm(w))
	case isa.OpConv:
		return c.conv(isa.DecodeConv(w))
	case isa.OpBlocks:
		return c.blocks(isa.DecodeBlocks(w))
	case isa.OpSparse:
		return c.sparse(isa.DecodeSparse(w))
	case isa.OpBias:
		return c.bias(isa.DecodeBias(w))
	case isa.OpRequant:
		return c.requant(isa.DecodeRequant(w))
	case isa.OpImage:
		return c.image(isa.DecodeImage(w))
	case isa.OpShape:
		return c.shape(isa.DecodeShape(w))
	case isa.OpScales:
		return c.scalesOf(isa.DecodeScales(w))
	case isa.OpSyncLoad, isa.OpSyncStore, isa.OpSyncMatrix, isa.OpSyncVector:
		return nil
	}
	if (c.blankSpad.left > 0 || c.blankAcc.left > 0) && c.valid(w) {
		c.ready(w)
	}
	return c.units[0].execute(w)
}

// stamp stores a mark and the time (§5.6.17), which is how many instructions
// have finished unless SetTimes gave another.
func (c *Core) stamp(i isa.Stamp) *Fault {
	if v := i.Check(c.limits); v != nil {
		return violation(0, v)
	}
	b := c.bindings[i.Binding]
	if !b.Write {
		return &Fault{Status: StatusBindingAccess, Info: uint64(i.Binding)}
	}
	m := isa.Rows{Base: i.Offset, Outer: 1, Inner: 1, Bytes: isa.StampSize}
	if first, outside := m.Outside(b.Size); outside {
		return &Fault{Status: StatusBindingBounds, Info: first}
	}
	now := c.stats.Instructions
	if len(c.times) > 0 {
		now, c.times = c.times[0], c.times[1:]
	}
	u := c.units[0]
	u.staging = slices.Grow(u.staging[:0], isa.StampSize)[:isa.StampSize]
	record := u.staging
	binary.LittleEndian.PutUint64(record, now)
	binary.LittleEndian.PutUint32(record[8:], i.ID)
	binary.LittleEndian.PutUint32(record[12:], 0)
	if err := u.mem.Store(b, i.Offset, record); err != nil {
		return memoryFault(b, i.Offset, err)
	}
	c.stats.BytesStored += isa.StampSize
	return nil
}

// preload places a tile in the array (§5.6.4).
func (c *unit) preload(i isa.Preload) *Fault {
	if v := i.Check(*c.limits); v != nil {
		return violation(0, v)
	}
	if f := c.poisonedRows(int(i.Weights), int(i.K), int(i.Stride), int(i.N)); f != nil {
		return f
	}
	c.array.Preload(c.spad[i.Weights:], int(i.Stride), int(i.K), int(i.N))
	return nil
}

// matmul streams activations through the array (§5.6.5).
func (c *unit) matmul(i isa.Matmul) *Fault {
	if v := i.Check(*c.limits); v != nil {
		return violation(0, v)
	}
	if c.poison.Some() {
		for y := range int(i.MY) {
			if f := c.poisonedRows(int(i.Ifmap)+y*int(i.StrideY), int(i.MX), int(i.StrideX), int(i.K)); f != nil {
				return f
			}
		}
	}
	c.array.MatMul(c.acc[i.Acc/4:], c.spad[i.Ifmap:], systolic.Shape{
		K: int(i.K), N: int(i.N), MX: int(i.MX), MY: int(i.MY),
		StrideX: int(i.StrideX), StrideY: int(i.StrideY), AccStride: int(i.AccStride / 4),
		Accumulate: i.Accumulate,
	})
	c.stats.MACs += uint64(i.MX) * uint64(i.MY) * uint64(i.K) * uint64(i.N)
	return nil
}

// fill stores one byte value (§5.6.6).
func (c *unit) fill(i isa.Fill) *Fault {
	if v := i.Check(*c.limits); v != nil {
		return violation(0, v)
	}
	local, nx, stride := int(i.Local), int(i.NX), int(i.Stride)
	for y := range int(i.NY) {
		from := local + y*stride
		if i.Acc {
			repeat(c.acc[from/4:(from+nx)/4], int32(uint32(i.Value)*0x01010101))
			continue
		}
		repeat(c.spad[from:from+nx], i.Value)
		c.poison.Overwritten(uint64(from), uint64(nx))
	}
	return nil
}

// repeat makes all of row, which is not empty, v.
func repeat[T any](row []T, v T) {
	row[0] = v
	for n := 1; n < len(row); n *= 2 {
		copy(row[n:], row[:n])
	}
}

// bias copies a row of int32 to rows of accumulators (§5.6.7), later.
func (c *Core) bias(i isa.Bias) *Fault {
	if v := i.Check(c.limits); v != nil {
		return violation(0, v)
	}
	if f := c.units[0].poisonedRows(int(i.Bias), 1, 0, 4*int(i.N)); f != nil {
		return f
	}
	c.lateBias(i)
	return nil
}

// setRequant makes c.requants that of i. Tiles of one layer have the same table, which is then not read again.
func (c *unit) setRequant(i *isa.Requant) *Fault {
	table, fold := c.spad[i.Params:][:i.ParamCount()*isa.ParamSize], folds(i)
	same := isa.Requant{Rounding: i.Rounding, ZeroPoint: i.ZeroPoint, Lo: i.Lo, Hi: i.Hi}
	if fold == c.folded && same == c.lastRequant && bytes.Equal(table, c.lastTable) {
		return nil
	}
	c.scales, c.lastTable = c.scales[:0], c.lastTable[:0]
	for p := range i.ParamCount() {
		var s num.Scale
		ok, entry := false, (*[isa.ParamSize]byte)(table[p*isa.ParamSize:])
		if i.Rounding == isa.FloatScale {
			s, ok = isa.FloatParam(entry)
		} else {
			s, ok = isa.Param(entry)
		}
		if !ok {
			return &Fault{Status: StatusBadParam, Info: uint64(int(i.Params) + p*isa.ParamSize)}
		}
		c.scales = append(c.scales, s)
	}
	for each := c.scales; len(c.scales) < fold*len(each); {
		c.scales = append(c.scales, each...)
	}
	c.requants.Set(vec.Rounding(i.Rounding), c.scales, i.ZeroPoint, i.Lo, i.Hi)
	c.folded, c.lastRequant, c.lastTable = fold, same, append(c.lastTable, table...)
	return nil
}

// requant turns accumulators into int8 (§5.6.8), together with the product that made them if that is late.
func (c *Core) requant(i isa.Requant) *Fault {
	if v := i.Check(c.limits); v != nil {
		return violation(0, v)
	}
	if f := c.units[0].poisonedRows(int(i.Params), 1, 0, i.ParamCount()*isa.ParamSize); f != nil {
		return f
	}
	if c.fuses(&i) {
		if !c.apart {
			c.ready(c.word)
		}
		l := &c.late
		l.fused, l.requant, l.passing = true, i, !l.p.Accumulate && c.passing()
		return c.compute()
	}
	c.catchUp()
	if c.apart {
		c.issueWord(c.word)
		return nil
	}
	c.ready(c.word)
	return c.units[0].requant(i)
}

// requant turns accumulators into int8. It reads the whole parameter table before it stores the first result.
func (c *unit) requant(i isa.Requant) *Fault {
	if f := c.setRequant(&i); f != nil {
		return f
	}
	n, mx, my := int(i.N), int(i.MX), int(i.MY)
	acc, step, stride := c.acc[i.Acc/4:], int(i.AccStride/4), int(i.OutStrideX)
	for y := range my {
		if c.stopped() {
			return nil // the program ends anyway
		}
		to := int(i.Out) + y*int(i.OutStrideY)
		c.requantRows(&i, c.spad[to:], acc[y*mx*step:], step, mx, n, 0)
		if !c.poison.Some() { // what lies between the rows is told to have changed too, which is no harm
			c.poison.Overwritten(uint64(to), uint64((mx-1)*stride+n))
			continue
		}
		for x := range mx {
			c.poison.Overwritten(uint64(to+x*stride), uint64(n))
		}
	}
	return nil
}
