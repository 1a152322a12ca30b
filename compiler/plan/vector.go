// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// A local is dense elements in the scratchpad or in the accumulators, or one element
// for all.
type local struct {
	at  uint32
	acc bool
	one bool
}

// vec is an ELEMENT over n dense elements; y is nil for an operation of one operand.
func (c *code) vec(op isa.ElementOp, t, to systolic.Type, x local, y *local, out local, n int, wrap bool) {
	s, so := size(t), size(to)
	dense(n, max(s, so), func(first, m, n int) {
		e := isa.Element{
			XAcc: x.acc, OutAcc: out.acc, NoSaturate: wrap, Op: op, Type: t, OutType: to,
			X: x.at + uint32(first*s), Out: out.at + uint32(first*so), M: uint32(m), N: uint16(n),
			XStride: uint16(n * s), OutStride: uint16(n * so),
		}
		if x.one {
			panic("plan: BUG: x is one element")
		}
		if y != nil {
			e.Y, e.YAcc, e.One = y.at, y.acc, y.one
			if !y.one {
				e.Y += uint32(first * s)
				e.YStride = uint16(n * s)
			}
		}
		c.b.Emit(e)
	})
}

// An operand of a tiled operation: what is loaded for each tile.
type operand struct {
	view
	t      systolic.Type
	scalar bool // one element for all: loaded once
}

// tiled is an operation on every element of shape: for each tile the operands are loaded,
// f computes, and the result is stored. spadTemp and accTemp are what f needs for itself, in
// bytes an element; it is given their addresses.
type tiled struct {
	shape             []int
	in                []operand
	out               view
	spadTemp, accTemp []int
}

// tile is what f is given: operands, result and memory for itself, and how many elements.
type tile struct {
	in        []local
	out       local
	spad, acc []local
	n         int
}

func (c *code) tiled(op tiled, f func(t tile)) {
	for _, n := range op.shape {
		if n == 0 {
			return
		}
	}
	var views []*view
	for i := range op.in {
		if o := &op.in[i]; !o.scalar {
			views = append(views, &o.view)
		}
	}
	views = append(views, &op.out)
	shape := collapse(op.shape, views...)
	var t tile
	per, once := op.out.size, op.out.size
	for _, o := range op.in {
		if o.scalar {
			at := c.local(o.size)
			c.load(at, o.at, o.size)
			t.in = append(t.in, local{at: at, one: true})
			continue
		}
		t.in = append(t.in, local{})
		per += o.size
		once += o.size
	}
	tempBytes, accBytes := 0, 0
	for _, n := range op.spadTemp {
		tempBytes += n
	}
	for _, n := range op.accTemp {
		accBytes += n
	}
	total := box{count: shape}.elements()
	target := c.b.Target()
	// Operands and result twice, memory of its own once; each with room to be aligned.
	buffers := 2*(len(op.in)+1) + len(op.spadTemp)
	limit := (int(target.SpadSize) - c.spad - buffers*align) / (2*once + tempBytes)
	if accBytes > 0 {
		limit = min(limit, (int(target.AccSize)-c.acc-len(op.accTemp)*align)/accBytes)
	}
	limit = min(max(limit&^(align-1), 1), mostTile/per)
	count := 2
	if total <= limit {
		limit, count = total, 1
	}
	in := make([]*slots, len(op.in))
	for i, o := range op.in {
		if !o.scalar {
			in[i] = c.slots(count, limit*o.size)
		}
	}
	out := c.slots(count, limit*op.out.size)
	for _, n := range op.spadTemp {
		t.spad = append(t.spad, local{at: c.local(n * limit)})
	}
	for _, n := range op.accTemp {
		t.acc = append(t.acc, local{at: c.accumulators(n * limit), acc: true})
	}
	boxes(shape, limit, func(b box) {
		for i, o := range op.in {
			if !o.scalar {
				t.in[i].at = in[i].take()
				c.move(false, t.in[i].at, o.view, b)
			}
		}
		t.out, t.n = local{at: out.take()}, b.elements()
		f(t)
		c.move(true, t.out.at, op.out, b)
	})
}
