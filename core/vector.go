// SPDX-License-Identifier: Apache-2.0

package core

import (
	"slices"

	"npuemu/core/isa"
	"npuemu/core/systolic"
	"npuemu/core/vec"
)

// chunk is how many elements go through the steps of the vector engine together:
// three rows of so many words stay in the L1 cache.
const chunk = 2048

// span is a row of elements in local memory.
type span struct {
	acc  bool
	typ  vec.Type
	at   int // its first byte
	step int // bytes from it to the next row
	n    int // elements
}

func newSpan(acc bool, t systolic.Type, rows isa.Rows, n int) span {
	return span{acc: acc, typ: vec.Type(t), at: int(rows.Base), step: int(rows.InnerStride), n: n}
}

func (s span) size() int { return s.n * s.typ.Size() }

// row is row r of those that begin with s.
func (s span) row(r int) span {
	s.at += r * s.step
	return s
}

// all is what m rows from s on have between their first and their last byte.
func (s span) all(m int) span {
	return span{acc: s.acc, typ: vec.Uint8, at: s.at, n: (m-1)*s.step + s.size()}
}

// apart reports whether s and t have no byte in common.
func (s *span) apart(t *span) bool {
	return s.acc != t.acc || s.at+s.size() <= t.at || t.at+t.size() <= s.at
}

// follows reports whether results may be stored in s, element by element, before
// the operands behind them are read from t.
func (s *span) follows(t *span) bool {
	return s.apart(t) || s.at <= t.at && s.typ.Size() <= t.typ.Size()
}

// in returns elements k to k + n as words where they are, if they are words there.
func (c *unit) in(s span, k, n int) ([]uint32, bool) {
	switch {
	case s.acc:
		return vec.Words(c.acc)[s.at/4+k:][:n:n], true
	case s.typ.Size() == 4:
		return vec.InPlace(c.spad[s.at+4*k:][: 4*n : 4*n])
	}
	return nil, false
}

// bytes returns elements k to k + n of the scratchpad.
func (c *unit) bytes(s span, k, n int) []byte {
	size := s.typ.Size()
	return c.spad[s.at+k*size:][: n*size : n*size]
}

// get makes words of elements k, k + 1, …, one for each of to.
func (c *unit) get(to []uint32, s span, k int) {
	if s.acc {
		copy(to, vec.Words(c.acc)[s.at/4+k:])
		return
	}
	c.vec.Load(to, c.bytes(s, k, len(to)), s.typ)
}

// words returns elements k to k + n as words: where they are, or in buf.
func (c *unit) words(s span, k, n int, buf *[]uint32, copied bool) []uint32 {
	if w, ok := c.in(s, k, n); ok && !copied {
		return w
	}
	w := room(buf, n)
	c.get(w, s, k)
	return w
}

// room returns n words of buf, which it makes larger if need be.
func room(buf *[]uint32, n int) []uint32 {
	*buf = slices.Grow((*buf)[:0], n)[:n]
	return *buf
}

// put stores words of the kind that s has as elements k, k + 1, ….
func (c *unit) put(from []uint32, s span, k int, saturate bool) {
	if s.acc {
		copy(vec.Words(c.acc)[s.at/4+k:], from)
		return
	}
	c.vec.Store(c.bytes(s, k, len(from)), from, s.typ, saturate)
}

// overwritten notes that s has new values.
func (c *unit) overwritten(s span) {
	if !s.acc {
		c.poison.Overwritten(uint64(s.at), uint64(s.size()))
	}
}

// element computes with each element of rows (§5.6.18): of each row all
// operands are read before the results are stored.
func (c *unit) element(i isa.Element) *Fault {
	if v := i.Check(*c.limits); v != nil {
		return violation(0, v)
	}
	xRows, outRows := i.XRows(), i.OutRows()
	if f := c.poisonedElements(i.XAcc, xRows); f != nil {
		return f
	}
	if !i.Op.Unary() {
		if f := c.poisonedElements(i.YAcc, i.YRows()); f != nil {
			return f
		}
	}
	if i.Op == isa.ElemSelect {
		if f := c.poisonedElements(i.OutAcc, outRows); f != nil {
			return f
		}
	}
	n, m := int(i.N), int(i.M)
	x, out := newSpan(i.XAcc, i.Type, xRows, n), newSpan(i.OutAcc, i.OutType, outRows, n)
	var y span // of no elements without y
	switch {
	case i.Op.Unary():
	case i.One:
		y = newSpan(i.YAcc, i.Type, i.YRows(), 1)
	default:
		y = newSpan(i.YAcc, i.Type, i.YRows(), n)
	}
	m = joinRows(m, &x, &y, &out, i.One || i.Op.Unary())
	for r := range m {
		if c.stopped() {
			return nil // the program ends anyway
		}
		to := out.row(r)
		c.elementRow(&i, x.row(r), y.row(r), to)
		c.overwritten(to)
	}
	return nil
}

// joinRows makes one row of m, if there are no gaps and no results where a later
// row has its operands, and returns how many rows there are then. fixed says that
// y is the same for all rows, or nothing.
func joinRows(m int, x, y, out *span, fixed bool) int {
	gapless := func(s *span) bool { return m == 1 || s.step == s.size() }
	if !gapless(x) || !gapless(out) || !fixed && !gapless(y) {
		return m
	}
	was := y.n
	x.n, out.n = x.n*m, out.n*m
	if !fixed {
		y.n *= m
	}
	if out.follows(x) && (fixed && out.apart(y) || !fixed && out.follows(y)) {
		return 1
	}
	x.n, y.n, out.n = x.n/m, was, out.n/m
	return m
}

// elementRow is element for one row.
func (c *unit) elementRow(i *isa.Element, x, y, out span) {
	op, float := vec.Op(i.Op), x.typ.Float()
	ahead := !out.follows(&x) || y.n > 1 && !out.follows(&y)
	if c.elementBytes(i, x, y, out, ahead) {
		return
	}
	// y has one element for all, but it is only as long as a row of one.
	if y.n == 1 {
		c.get(c.one[:], y, 0)
	}
	step := chunk
	if ahead {
		step = out.n
	}
	for k := 0; k < out.n; k += step {
		if k%(16*chunk) == 0 && c.stopped() {
			return
		}
		n := min(step, out.n-k)
		z, there := c.in(out, k, n)
		if there = there && !ahead; !there {
			z = room(&c.z, n)
		}
		switch {
		case op == vec.Move && x.typ != vec.FP32:
			c.get(z, x, k)
		default:
			if op == vec.Select && !there {
				c.get(z, out, k)
			}
			xs, ys := c.words(x, k, n, &c.x, ahead), c.one[:]
			if y.n > 1 {
				ys = c.words(y, k, n, &c.y, ahead)
			}
			c.vec.Compute(op, float, out.typ.Float(), z, xs, ys)
			if op == vec.Select && float {
				c.vec.Compute(vec.Move, true, false, z, z, nil)
			}
		}
		c.vec.Convert(z, float, out.typ)
		if !there {
			c.put(z, out, k, !i.NoSaturate)
		}
	}
}

// elementBytes is elementRow where the bytes need not become words; ok tells
// whether it did anything.
func (c *unit) elementBytes(i *isa.Element, x, y, out span, ahead bool) (ok bool) {
	op, t := vec.Op(i.Op), x.typ
	if x.acc || y.acc || out.acc || t != out.typ || t.Float() || t == vec.Int32 {
		return false
	}
	switch {
	case op == vec.Move || op == vec.ReLU && t == vec.Uint8:
		copy(c.bytes(out, 0, out.n), c.bytes(x, 0, x.n))
		return true
	case ahead || !c.vec.Native(op, t) || i.NoSaturate && (op == vec.Add || op == vec.Sub):
		return false
	}
	ys := c.oneBytes[:copy(c.oneBytes[:], c.bytes(y, 0, min(1, y.n)))]
	const most = 64 << 10
	for k := 0; k < out.n; k += most {
		if c.stopped() {
			return true
		}
		n := min(most, out.n-k)
		if y.n > 1 {
			ys = c.bytes(y, k, n)
		}
		c.vec.Bytes(op, t, c.bytes(out, k, n), c.bytes(x, k, n), ys)
	}
	return true
}

func (c *unit) poisonedElements(acc bool, r isa.Rows) *Fault {
	if acc {
		return nil
	}
	return c.poisonedRows(int(r.Base), int(r.Inner), int(r.InnerStride), int(r.Bytes))
}

// table replaces bytes (§5.6.19). It reads the table before it stores anything.
func (c *unit) table(i isa.Table) *Fault {
	if v := i.Check(*c.limits); v != nil {
		return violation(0, v)
	}
	n, m := int(i.N), int(i.M)
	if f := c.poisonedRows(int(i.X), m, int(i.XStride), n); f != nil {
		return f
	}
	if f := c.poisonedRows(int(i.Table), 1, 0, isa.TableSize); f != nil {
		return f
	}
	c.bytes256 = [isa.TableSize]byte(c.spad[i.Table:])
	x := span{typ: vec.Uint8, at: int(i.X), step: int(i.XStride), n: n}
	out := span{typ: vec.Uint8, at: int(i.Out), step: int(i.OutStride), n: n}
	m = joinRows(m, &x, &span{}, &out, true)
	for r := range m {
		if c.stopped() {
			return nil // the program ends anyway
		}
		at, to := x.row(r), out.row(r)
		from := c.bytes(at, 0, x.n)
		if !to.follows(&at) {
			c.staging = append(c.staging[:0], from...)
			from = c.staging
		}
		c.vec.Lookup(c.bytes(to, 0, to.n), from, &c.bytes256)
		c.overwritten(to)
	}
	return nil
}
