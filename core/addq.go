// SPDX-License-Identifier: Apache-2.0

package core

import (
	"npuemu/core/isa"
	"npuemu/core/vec"
)

// scalesOf is SCALES (§5.6.32).
func (c *Core) scalesOf(i isa.Scales) *Fault {
	if v := i.Check(c.limits); v != nil {
		return violation(0, v)
	}
	c.limits.Setup.Scales = i
	return nil
}

// addq adds, subtracts or multiplies two quantized tensors (§5.6.33): of each row
// all operands are read before the results are stored.
func (c *unit) addq(i isa.Addq) *Fault {
	if v := i.Check(*c.limits); v != nil {
		return violation(0, v)
	}
	e := i.Element()
	if f := c.poisonedElements(false, e.XRows()); f != nil {
		return f
	}
	if f := c.poisonedElements(false, e.YRows()); f != nil {
		return f
	}
	c.pair.Set(c.limits.Setup.Scales.Pair(), vec.PairOp(i.Op), vec.Type(i.Type))
	n, m := int(i.N), int(i.M)
	x, out, y := newSpan(false, i.Type, e.XRows(), n), newSpan(false, i.Type, e.OutRows(), n), newSpan(false, i.Type, e.YRows(), n)
	if i.One {
		y.n = 1
	}
	m = joinRows(m, &x, &y, &out, i.One)
	for r := range m {
		if c.stopped() {
			return nil // the program ends anyway
		}
		c.addqRow(x.row(r), y.row(r), out.row(r))
		c.overwritten(out.row(r))
	}
	return nil
}

// addqRow is addq for one row.
func (c *unit) addqRow(x, y, out span) {
	one := c.oneBytes[:copy(c.oneBytes[:], c.bytes(y, 0, 1))]
	if !out.follows(&x) || y.n > 1 && !out.follows(&y) {
		c.staging = append(append(c.staging[:0], c.bytes(x, 0, x.n)...), c.bytes(y, 0, y.n)...)
		from := c.staging
		xs, ys := from[:x.size()], from[x.size():]
		if y.n == 1 {
			ys = one
		}
		c.pair.Row(c.bytes(out, 0, out.n), xs, ys)
		return
	}
	const most = 64 << 10
	for k := 0; k < out.n; k += most {
		if c.stopped() {
			return
		}
		n, ys := min(most, out.n-k), one
		if y.n > 1 {
			ys = c.bytes(y, k, n)
		}
		c.pair.Row(c.bytes(out, k, n), c.bytes(x, k, n), ys)
	}
}
