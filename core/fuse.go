// SPDX-License-Identifier: Apache-2.0

package core

import (
	"encoding/binary"
	"slices"

	"npuemu/core/isa"
	"npuemu/core/systolic"
	"npuemu/core/vec"
	"npuemu/ecc"
)

// late is what instructions that have finished still have to do: a BIAS, then an integer product. They wait for the
// instruction that comes next in the order of execution. If that is the product that a BIAS was for, or the REQUANT of
// all of the product, they are computed in one pass, else first (Core.catchUp). So nobody can see that they were late: no
// instruction that reads or writes local memory comes between, and a program's end makes local memory invisible.
type late struct {
	bias bool
	rows isa.Bias
	row  []int32 // that rows become

	product bool
	p       systolic.Product
	a, b    isa.Rows // operands in the scratchpad
	acc     int      // first accumulator
	seeded  bool     // the columns' sums begin with row

	requant isa.Requant // in progress
	done    func(row, rows, column, columns int)
}

// later reports whether an instruction of opcode o leaves it to itself what late has to do.
func later(o isa.Opcode) bool {
	switch o {
	case isa.OpBias, isa.OpGemm, isa.OpConv, isa.OpRequant, isa.OpOperands, isa.OpWindow, isa.OpSyncLoad, isa.OpSyncStore, isa.OpSyncMatrix, isa.OpSyncVector:
		return true
	}
	return false
}

// catchUp does what is late.
func (c *Core) catchUp() {
	l := &c.late
	if l.bias {
		l.bias = false
		for r := range int(l.rows.M) {
			copy(c.acc[int(l.rows.Acc/4)+r*int(l.rows.AccStride/4):], l.row)
		}
	}
	if l.product {
		c.product(nil)
	}
}

// lateBias takes note of a BIAS that passed its checks.
func (c *Core) lateBias(i isa.Bias) {
	l := &c.late
	l.row = slices.Grow(l.row[:0], int(i.N))[:i.N]
	for j := range l.row {
		l.row[j] = int32(binary.LittleEndian.Uint32(c.spad[int(i.Bias)+4*j:]))
	}
	l.rows, l.bias = i, true
}

// lateProduct takes note of a product that passed its checks, with what is late before it.
func (c *Core) lateProduct(p *systolic.Product, a, b isa.Rows, acc uint32) {
	l := &c.late
	if l.product {
		c.product(nil)
	}
	m := p.OutH * p.OutW
	l.seeded = l.bias && p.Accumulate && !p.A.Type.Float() && l.rows.Acc == acc && int(l.rows.M) == m && int(l.rows.N) == p.Cout &&
		(m == 1 || int(l.rows.AccStride/4) == p.AccStride)
	if l.seeded {
		l.bias, p.Accumulate = false, false
	}
	c.catchUp()
	l.p, l.a, l.b, l.acc, l.product = *p, a, b, int(acc/4), true
}

// product computes the late product, and tells done of its parts.
func (c *Core) product(done func(row, rows, column, columns int)) {
	l := &c.late
	l.product = false
	o := systolic.Options{Stop: c.stopped, Done: done, Weights: l.b.Base}
	if l.seeded {
		o.Seed = l.row
	}
	c.array.Do(&l.p, c.acc[l.acc:], c.spad[l.a.Base:], c.spad[l.b.Base:], o)
}

// requantized computes the late product and i, which passed its checks, in one pass, or reports that it cannot.
func (c *Core) requantized(i *isa.Requant) bool {
	l := &c.late
	p := &l.p
	m, n := int(i.MX)*int(i.MY), int(i.N)
	if !l.product || p.A.Type.Float() || int(i.Acc/4) != l.acc || n != p.Cout || m != p.OutH*p.OutW || m > 1 && int(i.AccStride/4) != p.AccStride {
		return false
	}
	if columns := p.Cout / p.Groups; p.Groups > 1 && columns > 1 && columns%vec.Group != 0 {
		return false
	}
	// Results must not replace what the product still has to read.
	out := extent{uint64(i.Out), uint64(i.Out) + uint64(i.MY-1)*uint64(i.OutStrideY) + uint64(i.MX-1)*uint64(i.OutStrideX) + uint64(n)}
	zeros := extent{}
	if p.BZeros != nil {
		base := uint64(c.limits.Setup.Operands.BZeros)
		zeros = extent{base, base + uint64(n)}
	}
	if out.meets(extentOf(l.a)) || out.meets(extentOf(l.b)) || out.meets(zeros) {
		return false
	}
	l.requant = *i
	c.product(l.done)
	c.poison.Overwritten(out.from, out.to-out.from)
	return true
}

// requantizedPart is what a product tells of its parts, from several threads.
func (c *Core) requantizedPart(row, rows, column, columns int) {
	i, step := &c.late.requant, c.late.p.AccStride
	channel := column
	if !i.PerChannel {
		channel = 0
		if n := int(i.N); columns == n && step == n && int(i.OutStrideX) == n && int(i.MX) > row%int(i.MX)+rows-1 { // one row
			rows, columns = 1, rows*columns
		}
	}
	for r := row; r < row+rows; r++ {
		to := int(i.Out) + r/int(i.MX)*int(i.OutStrideY) + r%int(i.MX)*int(i.OutStrideX) + column
		c.requants.Row(c.spad[to:to+columns], c.acc[c.late.acc+r*step+column:][:columns], channel)
	}
}

// extent is the scratchpad from from on, before to.
type extent struct{ from, to uint64 }

func extentOf(r isa.Rows) extent {
	return extent{r.Base, r.Base + (r.Outer-1)*r.OuterStride + (r.Inner-1)*r.InnerStride + r.Bytes}
}

func (s extent) meets(t extent) bool { return s.from < t.to && t.from < s.to }

// guard knows what a scratchpad needs to be told when it is written to: poison, and packed weights that become stale.
type guard struct {
	ecc.Poison
	array *systolic.Array
}

// Overwritten is told that n bytes at addr have new values.
func (g *guard) Overwritten(addr, n uint64) {
	g.Poison.Overwritten(addr, n)
	g.array.Changed(addr, n)
}
