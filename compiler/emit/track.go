// SPDX-License-Identifier: Apache-2.0

package emit

import (
	"fmt"
	"slices"

	"npuemu/core/isa"
)

// span is [lo, hi) of a memory, and who touched it last.
type span struct {
	lo, hi      uint64
	wrote, read clock
}

// tracker knows of a memory which instruction touched which bytes last. Its spans are
// in order and do not overlap; bytes without one were not touched.
type tracker struct{ spans []span }

// cut makes at a border of spans and returns the index of the first one at or above it.
func (t *tracker) cut(at uint64) int {
	i, _ := slices.BinarySearchFunc(t.spans, at, func(s span, at uint64) int {
		if s.hi <= at {
			return -1
		}
		return 1
	})
	if i < len(t.spans) && t.spans[i].lo < at {
		left := t.spans[i]
		left.hi = at
		t.spans[i].lo = at
		t.spans = slices.Insert(t.spans, i, left)
		i++
	}
	return i
}

// touch notes that instruction number of engine accesses [lo, hi), and adds what it
// depends on to need.
func (t *tracker) touch(lo, hi uint64, write bool, engine int, number int32, need *clock) {
	first := t.cut(lo)
	last := t.cut(hi)
	if write {
		for _, s := range t.spans[first:last] {
			need.join(s.wrote)
			need.join(s.read)
		}
		s := span{lo: lo, hi: hi}
		s.wrote[engine] = number
		t.spans = slices.Replace(t.spans, first, last, s)
		return
	}
	at := lo
	for i := first; i < len(t.spans) && t.spans[i].lo < hi; i++ {
		if s := &t.spans[i]; s.lo > at {
			gap := span{lo: at, hi: s.lo}
			gap.read[engine] = number
			t.spans = slices.Insert(t.spans, i, gap)
			at = gap.hi
			continue
		}
		s := &t.spans[i]
		need.join(s.wrote)
		s.read[engine] = max(s.read[engine], number)
		at = s.hi
	}
	if at < hi {
		gap := span{lo: at, hi: hi}
		gap.read[engine] = number
		i := t.cut(at)
		t.spans = slices.Insert(t.spans, i, gap)
	}
}

// bounds returns the range from r's first byte to its last.
func bounds(r isa.Rows) (lo, hi uint64) {
	return r.Base, r.Base + (r.Outer-1)*r.OuterStride + (r.Inner-1)*r.InnerStride + r.Bytes
}

// touch notes what i accesses and returns what that depends on.
func (b *Builder) touch(i isa.Instruction, engine int, number int32) (need clock) {
	local := func(acc, write bool, r isa.Rows) {
		lo, hi := bounds(r)
		t := &b.spad
		if acc {
			t = &b.acc
			b.counts.AccUsed = max(b.counts.AccUsed, uint32(hi+3)&^3)
		} else {
			b.counts.SpadUsed = max(b.counts.SpadUsed, uint32(hi))
		}
		t.touch(lo, hi, write, engine, number, &need)
	}
	one := func(acc, write bool, at uint32, bytes uint64) {
		local(acc, write, isa.Rows{Base: uint64(at), Outer: 1, Inner: 1, Bytes: bytes})
	}
	move := func(l isa.Load, store bool) {
		local(l.Acc, !store, isa.Rows{
			Base: uint64(l.Local), Outer: 1, Inner: uint64(l.NY) * uint64(l.NZ), InnerStride: uint64(l.LocalStride), Bytes: uint64(l.NX),
		})
		if t := b.mem[l.Binding]; t != nil {
			lo, hi := bounds(l.Memory())
			t.touch(lo, hi, store, engine, number, &need)
		} else if store {
			b.err = fmt.Errorf("emit: BUG: store to binding %d, which New was not told of", l.Binding)
		}
	}
	acc := func(at uint32, m, n uint64, stride uint32) isa.Rows {
		return isa.Rows{Base: uint64(at), Outer: 1, Inner: m, InnerStride: uint64(stride), Bytes: 4 * n}
	}
	zeros := func(n uint64) {
		if o := &b.setup.Operands; o.PerChannel {
			one(false, false, o.BZeros, n)
		}
	}
	switch i := i.(type) {
	case isa.Load:
		move(i, false)
	case isa.Store:
		move(isa.Load(i), true)
	case isa.Gemm:
		local(false, false, i.ARows(&b.setup))
		local(false, false, i.BRows(&b.setup))
		zeros(uint64(i.N))
		local(true, true, acc(i.Acc, uint64(i.M), uint64(i.N), b.setup.Operands.AccStride))
	case isa.Conv:
		local(false, false, i.ARows(&b.setup))
		local(false, false, i.BRows(&b.setup))
		zeros(uint64(i.Cout))
		local(true, true, acc(i.Acc, uint64(i.OutH)*uint64(i.OutW), uint64(i.Cout), b.setup.Operands.AccStride))
	case isa.Operands, isa.Window:
	case isa.Fill:
		local(i.Acc, true, isa.Rows{Base: uint64(i.Local), Outer: 1, Inner: uint64(i.NY), InnerStride: uint64(i.Stride), Bytes: uint64(i.NX)})
	case isa.Bias:
		one(false, false, i.Bias, 4*uint64(i.N))
		local(true, true, acc(i.Acc, uint64(i.M), uint64(i.N), uint32(i.AccStride)))
	case isa.Requant:
		local(true, false, acc(i.Acc, uint64(i.MX)*uint64(i.MY), uint64(i.N), uint32(i.AccStride)))
		one(false, false, i.Params, isa.ParamSize*uint64(i.ParamCount()))
		local(false, true, isa.Rows{
			Base: uint64(i.Out), Outer: uint64(i.MY), OuterStride: uint64(i.OutStrideY), Inner: uint64(i.MX), InnerStride: uint64(i.OutStrideX), Bytes: uint64(i.N),
		})
	case isa.Element:
		local(i.XAcc, false, i.XRows())
		if !i.Op.Unary() {
			local(i.YAcc, false, i.YRows())
		}
		local(i.OutAcc, true, i.OutRows())
	case isa.Table:
		rows := func(at uint32, stride uint16) isa.Rows {
			return isa.Rows{Base: uint64(at), Outer: 1, Inner: uint64(i.M), InnerStride: uint64(stride), Bytes: uint64(i.N)}
		}
		local(false, false, rows(i.X, i.XStride))
		one(false, false, i.Table, isa.TableSize)
		local(false, true, rows(i.Out, i.OutStride))
	case isa.Reduce:
		local(i.XAcc, false, i.XRows())
		local(i.OutAcc, true, i.OutRows())
	case isa.Norm:
		local(i.XAcc, false, i.XRows())
		if n := i.ParamCount(); n > 0 {
			one(false, false, i.Params, 4*uint64(n))
		}
		local(i.OutAcc, true, i.OutRows())
	default:
		b.err = fmt.Errorf("emit: BUG: instruction %T is not known", i)
	}
	return need
}

// count adds i to the counts.
func (b *Builder) count(i isa.Instruction, engine int) {
	c := &b.counts
	c.Instructions++
	c.ByEngine[engine]++
	switch i := i.(type) {
	case isa.Load:
		c.Loaded += uint64(i.NX) * uint64(i.NY) * uint64(i.NZ)
	case isa.Store:
		c.Stored += uint64(i.NX) * uint64(i.NY) * uint64(i.NZ)
	case isa.Gemm:
		c.MACs += uint64(i.M) * uint64(i.N) * uint64(i.K)
	case isa.Conv:
		w := &b.setup.Window
		c.MACs += uint64(i.OutH) * uint64(i.OutW) * uint64(i.Cout) * uint64(w.KernelH) * uint64(w.KernelW) * uint64(i.Cin/w.Groups)
	case isa.Requant:
		c.VectorElements += uint64(i.MX) * uint64(i.MY) * uint64(i.N)
	case isa.Element:
		c.VectorElements += uint64(i.M) * uint64(i.N)
	case isa.Table:
		c.VectorElements += uint64(i.M) * uint64(i.N)
	case isa.Reduce:
		c.VectorElements += uint64(i.M) * uint64(i.N)
	case isa.Norm:
		c.VectorElements += uint64(i.M) * uint64(i.N)
	}
}
