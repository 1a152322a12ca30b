// SPDX-License-Identifier: Apache-2.0

package core

import (
	"math"

	"npuemu/core/isa"
	"npuemu/core/vec"
)

// reduce makes one element of each row (§5.6.20).
func (c *Core) reduce(i isa.Reduce) *Fault {
	if v := i.Check(c.limits); v != nil {
		return violation(0, v)
	}
	if f := c.poisonedElements(i.XAcc, i.XRows()); f != nil {
		return f
	}
	x, out := newSpan(i.XAcc, i.Type, i.XRows(), int(i.N)), newSpan(i.OutAcc, i.OutType, i.OutRows(), 1)
	for r := range int(i.M) {
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

// norm normalizes each row (§5.6.21). It reads the parameters first.
func (c *Core) norm(i isa.Norm) *Fault {
	if v := i.Check(c.limits); v != nil {
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
	for r := range int(i.M) {
		if c.stopped() {
			return nil // the program ends anyway
		}
		from, to := x.row(r), out.row(r)
		z, there := c.in(to, 0, n)
		if there = there && to.follows(from); !there {
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
