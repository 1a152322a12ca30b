// SPDX-License-Identifier: Apache-2.0

package core

import (
	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// operands is OPERANDS (§5.6.9).
func (c *Core) operands(i isa.Operands) *Fault {
	if v := i.Check(c.limits); v != nil {
		return violation(0, v)
	}
	c.limits.Setup.Operands = i
	return nil
}

// window is WINDOW (§5.6.10).
func (c *Core) window(i isa.Window) *Fault {
	if v := i.Check(c.limits); v != nil {
		return violation(0, v)
	}
	c.limits.Setup.Window = i
	return nil
}

// gemm is a product of any size (§5.6.11).
func (c *Core) gemm(i isa.Gemm) *Fault {
	if v := i.Check(c.limits); v != nil {
		return violation(0, v)
	}
	s := &c.limits.Setup
	p := i.Product(s)
	if stood(s) {
		c.catchUp()
		c.ready(c.word)
		return c.units[0].multiplyFor(&p, i.ARows(s), i.BRows(s), i.AScaleRows(s), i.BScaleRows(s), i.Acc)
	}
	return c.multiply(&p, i.ARows(s), i.BRows(s), i.Acc)
}

// conv is a convolution (§5.6.12).
func (c *Core) conv(i isa.Conv) *Fault {
	if v := i.Check(c.limits); v != nil {
		return violation(0, v)
	}
	s := &c.limits.Setup
	p := i.Product(s)
	if stood(s) {
		c.catchUp()
		c.ready(c.word)
		return c.units[0].multiplyFor(&p, i.ARows(s), i.BRows(s), isa.Rows{}, isa.Rows{}, i.Acc)
	}
	return c.multiply(&p, i.ARows(s), i.BRows(s), i.Acc)
}

// multiply checks, and computes later, p with activations in rows a of the scratchpad, weights in
// rows b and the result at acc. Whole commands come here as one product.
func (c *Core) multiply(p *systolic.Product, a, b isa.Rows, acc uint32) *Fault {
	o := &c.limits.Setup.Operands
	if c.poison.Some() {
		for y := range a.Outer {
			if f := c.units[0].poisonedRows(int(a.Base+y*a.OuterStride), int(a.Inner), int(a.InnerStride), int(a.Bytes)); f != nil {
				return f
			}
		}
	}
	if f := c.units[0].poisonedRows(int(b.Base), int(b.Inner), int(b.InnerStride), int(b.Bytes)); f != nil {
		return f
	}
	if o.PerChannel {
		if f := c.units[0].poisonedRows(int(o.BZeros), 1, 0, p.Cout); f != nil {
			return f
		}
		p.BZeros = c.spad[o.BZeros:][:p.Cout]
	}
	c.lateProduct(p, a, b, acc)
	c.stats.MACs += p.MACs()
	return nil
}
