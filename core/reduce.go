// SPDX-License-Identifier: Apache-2.0

package core

import (
	"math"

	"npuemu/core/isa"
	"npuemu/core/systolic"
	"npuemu/core/vec"
)

// reduce makes one element of each row (§5.6.20).
func (c *unit) reduce(i isa.Reduce) *Fault {
	if v := i.Check(*c.limits); v != nil {
		return violation(0, v)
	}
	if f := c.poisonedElements(i.XAcc, i.XRows()); f != nil {
		return f
	}
	x, out := newSpan(i.XAcc, i.Type, i.XRows(), int(i.N)), newSpan(i.OutAcc, i.OutType, i.OutRows(), 1)
	for r := c.sumFours(&i, x, out); r < int(i.M); r++ {
		if c.stopped() {
			return nil // the program ends anyway
		}
		from, float := c.words(x.row(r), 0, x.n, &c.x, false), i.Type.Float()
		z, to := room(&c.z, 1), out.row(r)
		if i.Op >= isa.ReduceArgMax {
			z[0], float = extreme(i.Op, float, from), false
		} else {
			z[0] = c.vec.Reduce(vec.Reduction(i.Op), float, from)
		}
		c.vec.Convert(z, float, to.typ)
		c.put(z, to, 0, !i.NoSaturate)
		c.overwritten(to)
	}
	return nil
}

// sumFours is reduce for as many rows as it takes several of at once, whose number
// it returns: sums of rows of fp32 with results where none of them is.
func (c *unit) sumFours(i *isa.Reduce, x, out span) int {
	m := int(i.M) - int(i.M)%vec.Rows
	from, to := x.all(m), out.all(m)
	if i.Op != isa.ReduceSum || m == 0 || i.Type != systolic.FP32 || !from.apart(&to) {
		return 0
	}
	for r := 0; r < m; r += vec.Rows {
		from, there := c.in(x.row(r), 0, (vec.Rows-1)*x.step/4+x.n)
		if !there || c.stopped() {
			return r
		}
		c.vec.Sums(&c.sums, from, x.step/4, x.n)
		for k := range c.sums {
			z := c.sums[k : k+1]
			c.vec.Convert(z, true, out.typ)
			c.put(z, out.row(r+k), 0, !i.NoSaturate)
			c.overwritten(out.row(r + k))
		}
	}
	return m
}

// norm normalizes each row (§5.6.21). It reads the parameters first.
func (c *unit) norm(i isa.Norm) *Fault {
	if v := i.Check(*c.limits); v != nil {
		return violation(0, v)
	}
	n := int(i.N)
	if f := c.poisonedElements(i.XAcc, i.XRows()); f != nil {
		return f
	}
	count := i.ParamCount()
	params := room(&c.params, count)
	epsilon := float32(0)
	if count > 0 {
		if f := c.poisonedRows(int(i.Params), 1, 0, 4*count); f != nil {
			return f
		}
		c.vec.Load(params, c.spad[i.Params:], vec.FP32)
		epsilon = math.Float32frombits(params[0])
	}
	x, out := newSpan(i.XAcc, i.Type, i.XRows(), n), newSpan(i.OutAcc, i.OutType, i.OutRows(), n)
	for r := c.normFours(&i, x, out, params, epsilon); r < int(i.M); r++ {
		if c.stopped() {
			return nil // the program ends anyway
		}
		from, to := x.row(r), out.row(r)
		z, there := c.in(to, 0, n)
		if there = there && to.follows(&from); !there {
			z = room(&c.z, n)
		}
		xs := c.words(from, 0, n, &c.x, false)
		switch i.Op {
		case isa.LayerNorm:
			c.vec.LayerNorm(z, xs, params[1:1+n], params[1+n:], epsilon)
		case isa.RMSNorm:
			c.vec.RMSNorm(z, xs, params[1:], epsilon)
		default:
			c.vec.Softmax(z, xs)
		}
		if !there {
			c.put(z, to, 0, !i.NoSaturate)
		}
		c.overwritten(to)
	}
	return nil
}

// normFours is norm for as many rows as it takes several of at once, whose number
// it returns: rows of fp32 with results where no row is, or where their own was.
func (c *unit) normFours(i *isa.Norm, x, out span, params []uint32, epsilon float32) int {
	n, m := x.n, int(i.M)-int(i.M)%vec.Rows
	if i.Op == isa.Softmax || m == 0 || i.Type != systolic.FP32 || i.OutType != systolic.FP32 {
		return 0
	}
	from, to := x.all(m), out.all(m)
	if !from.apart(&to) && (x.at != out.at || x.step != out.step || x.step < x.size()) {
		return 0
	}
	for r := 0; r < m; r += vec.Rows {
		if c.stopped() {
			return r
		}
		from, fromWords := c.in(x.row(r), 0, (vec.Rows-1)*x.step/4+n)
		to, toWords := c.in(out.row(r), 0, (vec.Rows-1)*out.step/4+n)
		if !fromWords || !toWords {
			return r
		}
		if i.Op == isa.LayerNorm {
			c.vec.LayerNorms(to, from, out.step/4, x.step/4, n, params[1:1+n], params[1+n:], epsilon)
		} else {
			c.vec.RMSNorms(to, from, out.step/4, x.step/4, n, params[1:], epsilon)
		}
		for k := range vec.Rows {
			c.overwritten(out.row(r + k))
		}
	}
	return m
}
