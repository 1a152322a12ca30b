// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"math"

	"npuemu/compiler/ir"
	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// lookup is npu.gather with indexes that the device computes or that are many: GATHER (§5.6.27) from a table in the
// scratchpad. A table that does not fit is gathered in parts: an index of another part takes the row
// that the parts before gave, which stands behind the part as more rows of it. An index of no row of the whole table
// is a BAD_INDEX: GATHER finds it, of a table in parts one that copies nothing that anybody reads.
type lookup struct {
	*lower
	rows, cols int // of a part of the table: rows, and bytes of each
	m          int // indexes of a tile
	table      uint32
	last, now  uint32 // rows of results: of the parts before, which follow the table, and with this part
	index      uint32 // int32, and three more lists for what is on its way
	own        uint32 // 0, 1, …
	scalar     map[int32]local
}

// mostLookups bounds the instructions of an operation that looks up rows.
const mostLookups = 1 << 16

func (l *lower) lookUp(size int) error {
	if l.b.Target().Features&isa.FeatureGather == 0 {
		return l.node.Errorf("the indexes are computed, or take more than %d copies, and the core has no GATHER (§5.3)", mostIndexes).WithRemedy("compile for architecture 1.4 or later")
	}
	x, index := l.x(), l.node.Inputs[1]
	axis := l.node.Attrs.Int("axis", 0)
	dim, inner, outer, count := x.Shape[axis], ir.Elements(x.Shape[axis+1:])*size, ir.Elements(x.Shape[:axis]), index.Elements()
	if ir.Elements(l.y().Shape) == 0 {
		return nil
	}
	if dim > math.MaxInt32 {
		return l.node.Errorf("%d rows; indexes are int32 (§5.6.27)", dim)
	}
	room := int(l.b.Target().SpadSize) - l.code.spad - 32*align
	g := &lookup{lower: l, cols: min(inner, 4096, max(room/8, 1)), scalar: map[int32]local{}}
	for g.m = min(count, 4096); g.m > 1 && g.m*(2*g.cols+20) > room/2; g.m = ceil(g.m, 2) {
	}
	g.rows = min(dim, (room-g.m*(2*g.cols+20))/g.cols, math.MaxUint16)
	if g.rows < 1 {
		return l.node.Errorf("a row of %d bytes does not fit %d bytes of scratchpad", g.cols, room)
	}
	if n := outer * ceil(count, g.m) * ceil(inner, g.cols) * ceil(dim, g.rows) * 12; n > mostLookups {
		return l.node.Errorf("looking up %d rows in each of %d tables of %d takes %d instructions, more than %d", count, outer, dim, n, mostLookups).WithRemedy("gather along the first axis")
	}
	g.lists()
	in, from, to := l.place(x), l.place(index), l.place(l.y())
	for first := 0; first < count; first += g.m {
		m := min(g.m, count-first)
		g.indexes(from, index.Type.Bits()/8, first, m, dim)
		for o := range outer {
			for col := 0; col < inner; col += g.cols {
				n := min(g.cols, inner-col)
				g.gather(in.plus(o*dim*inner+col), inner, n, m, dim)
				out := to.plus((o*count+first)*inner + col)
				l.moveRows(true, g.now, out, n, []int{m}, []int{inner})
			}
		}
	}
	return nil
}

// lists hands out local memory.
func (g *lookup) lists() {
	g.table = g.local(g.rows * g.cols)
	g.last = g.local(g.m * g.cols)
	g.now = g.local(g.m * g.cols)
	g.index = g.local(4 * up(4*g.m))
	g.own = g.local(4 * g.m)
	own := make([]int, g.m)
	for i := range own {
		own[i] = i
	}
	g.load(g.own, g.constant(encodeAll(systolic.Int32, own)), 4*g.m)
}

// list is one of the lists beside the indexes.
func (g *lookup) list(i int) local { return local{at: g.index + uint32(i*up(4*g.m))} }

// one is a number for all.
func (g *lookup) one(v int) *local {
	s, ok := g.scalar[int32(v)]
	if !ok {
		s = local{at: g.local(4), one: true}
		g.load(s.at, g.constant(encode(systolic.Int32, int64(v))), 4)
		g.scalar[int32(v)] = s
	}
	return &s
}

func (g *lookup) step(op isa.ElementOp, x local, y *local, out local, m int) {
	g.vec(op, systolic.Int32, systolic.Int32, x, y, out, m, true)
}

// indexes loads m indexes, as int32. Of a table in parts they are looked at, and none counts from the end any more.
func (g *lookup) indexes(from Place, size, first, m, dim int) {
	index, a, b := g.list(0), g.list(1), g.list(2)
	if size == 4 {
		g.load(index.at, from.plus(4*first), 4*m)
	} else {
		// An int64 that is no int32 becomes the nearest one, which is of no row either.
		g.moveRows(false, index.at, from.plus(8*first), 4, []int{m}, []int{8})
		g.moveRows(false, a.at, from.plus(8*first+4), 4, []int{m}, []int{8})
		g.step(isa.ElemShr, index, g.one(31), b, m)
		g.step(isa.ElemEq, a, &b, b, m)
		g.step(isa.ElemShr, a, g.one(31), a, m)
		g.step(isa.ElemXor, a, g.one(math.MaxInt32), a, m)
		g.step(isa.ElemSelect, index, &a, b, m)
		g.step(isa.ElemMove, b, nil, index, m)
	}
	if dim <= g.rows {
		return
	}
	// Rows of a byte each, all at one place: m bytes that are there are copied, and all indexes looked at.
	g.b.Emit(isa.Gather{FromEnd: true, N: 1, Stride: 1, X: g.own, Indices: index.at, Out: g.now, M: uint32(m), Rows: uint32(dim)})
	g.step(isa.ElemLt, index, g.one(0), a, m)
	g.step(isa.ElemMul, a, g.one(dim), a, m)
	g.step(isa.ElemAdd, index, &a, index, m)
}

// gather makes m rows of n bytes of the table at from, whose rows are so many bytes apart.
func (g *lookup) gather(from Place, stride, n, m, dim int) {
	t := isa.Gather{N: uint16(n), Stride: uint16(n), Out: g.now, M: uint32(m), TableStride: uint32(n)}
	if dim <= g.rows {
		g.moveRows(false, g.table, from, n, []int{dim}, []int{stride})
		t.FromEnd, t.X, t.Indices, t.Rows = true, g.table, g.index, uint32(dim)
		g.b.Emit(t)
		return
	}
	at, below, inside := g.list(1), g.list(2), g.list(3)
	own := local{at: g.own}
	g.step(isa.ElemMove, g.list(0), nil, at, m)
	for first := 0; first < dim; first += g.rows {
		rows := min(g.rows, dim-first)
		table := g.last - uint32(rows*n)
		g.moveRows(false, table, from.plus(first*stride), n, []int{rows}, []int{stride})
		if first > 0 {
			g.step(isa.ElemSub, at, g.one(g.rows), at, m)
		}
		g.step(isa.ElemLt, at, g.one(0), below, m)
		g.step(isa.ElemLt, at, g.one(rows), inside, m)
		g.step(isa.ElemSub, inside, &below, inside, m) // what is below 0 is below rows, too
		g.step(isa.ElemAdd, own, g.one(rows), below, m)
		g.step(isa.ElemSelect, at, &below, inside, m)
		t.X, t.Indices, t.Rows = table, inside.at, uint32(rows+m)
		g.b.Emit(t)
		if first+g.rows < dim {
			g.vec(isa.ElemMove, systolic.Uint8, systolic.Uint8, local{at: g.now}, nil, local{at: g.last}, m*n, false)
		}
	}
}
