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

// touch notes what w accesses and returns what that depends on.
func (b *Builder) touch(w *isa.Word, engine int, number int32) (need clock) {
	b.accesses = isa.Accesses(b.accesses[:0], w, &b.setup)
	for _, a := range b.accesses {
		lo, hi := bounds(a.Rows)
		switch a.Space {
		case isa.Scratchpad:
			b.counts.SpadUsed = max(b.counts.SpadUsed, uint32(hi))
			b.spad.touch(lo, hi, a.Write, engine, number, &need)
		case isa.Accumulators:
			b.counts.AccUsed = max(b.counts.AccUsed, uint32(hi+3)&^3)
			b.acc.touch(lo, hi, a.Write, engine, number, &need)
		case isa.Memory:
			if t := b.mem[a.Binding]; t != nil {
				t.touch(lo, hi, a.Write, engine, number, &need)
			} else if a.Write {
				b.err = fmt.Errorf("emit: BUG: store to binding %d, which New was not told of", a.Binding)
			}
		}
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
	case isa.Addq:
		c.VectorElements += uint64(i.M) * uint64(i.N)
	case isa.Pool:
		c.VectorElements += uint64(b.setup.Image.OutH) * uint64(b.setup.Image.OutW) * uint64(i.N)
	case isa.Transpose:
		n := &b.setup.Shape.N
		c.VectorElements += uint64(n[0]) * uint64(n[1]) * uint64(n[2]) * uint64(n[3])
	case isa.Gather:
		c.VectorElements += uint64(i.M) * uint64(i.N)
	}
}
