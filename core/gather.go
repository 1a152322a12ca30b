// SPDX-License-Identifier: Apache-2.0

package core

import (
	"encoding/binary"
	"math"

	"npuemu/core/isa"
)

// shape is SHAPE (§5.6.25).
func (c *Core) shape(i isa.Shape) *Fault {
	if v := i.Check(c.limits); v != nil {
		return violation(0, v)
	}
	c.limits.Setup.Shape = i
	return nil
}

// indices reads the list of i and returns the rows of the table that it names in
// c.y. It looks at all before anything is moved.
func (c *unit) indices(i isa.Gather) *Fault {
	m := int(i.M)
	if f := c.poisonedRows(int(i.Indices), 1, 0, 4*m); f != nil {
		return f
	}
	rows := room(&c.y, m)
	for k := range rows {
		v := binary.LittleEndian.Uint32(c.spad[int(i.Indices)+4*k:])
		row := int64(int32(v))
		if row < 0 && i.FromEnd {
			row += int64(i.Rows)
		}
		if row < 0 || row >= int64(i.Rows) {
			return &Fault{Status: StatusBadIndex, Info: uint64(k)<<32 | uint64(v)}
		}
		rows[k] = uint32(row)
	}
	return nil
}

// gather copies rows of a table (§5.6.27).
func (c *unit) gather(i isa.Gather) *Fault {
	if v := i.Check(*c.limits); v != nil {
		return violation(0, v)
	}
	if f := c.indices(i); f != nil {
		return f
	}
	n, at := int(i.N), func(row uint32) int { return int(i.X) + int(row)*int(i.TableStride) }
	if c.poison.Some() {
		for _, row := range c.y {
			if f := c.poisoned(at(row), n); f != nil {
				return f
			}
		}
	}
	for k, row := range c.y {
		if c.stopped() {
			return nil // the program ends anyway
		}
		c.move(int(i.Out)+k*int(i.Stride), at(row), n)
	}
	return nil
}

// scatter copies rows to those of a table (§5.6.28).
func (c *unit) scatter(i isa.Scatter) *Fault {
	if v := i.Check(*c.limits); v != nil {
		return violation(0, v)
	}
	if f := c.indices(isa.Gather(i)); f != nil {
		return f
	}
	n := int(i.N)
	if f := c.poisonedRows(int(i.X), int(i.M), int(i.Stride), n); f != nil {
		return f
	}
	for k, row := range c.y {
		if c.stopped() {
			return nil // the program ends anyway
		}
		c.move(int(i.Out)+int(row)*int(i.TableStride), int(i.X)+k*int(i.Stride), n)
	}
	return nil
}

// move copies n bytes of the scratchpad.
func (c *unit) move(to, from, n int) {
	copy(c.spad[to:to+n], c.spad[from:from+n])
	c.poison.Overwritten(uint64(to), uint64(n))
}

// extreme returns the index of the first of x, int32 or encodings of fp32, that no
// other is above, or below; of the first NaN if there is one (§6.11).
func extreme(op isa.ReduceOp, float bool, x []uint32) uint32 {
	number := func(v uint32) float64 {
		if float {
			return float64(math.Float32frombits(v))
		}
		return float64(int32(v))
	}
	best, at := number(x[0]), 0
	for k, v := range x {
		n := number(v)
		if n != n {
			return uint32(k)
		}
		if op == isa.ReduceArgMax && n > best || op == isa.ReduceArgMin && n < best {
			best, at = n, k
		}
	}
	return uint32(at)
}
