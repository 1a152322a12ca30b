// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"

	"npuemu/compiler/ir"
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
	scalar bool       // one element for all: loaded once
	tensor *ir.Tensor // nil of a constant of the operation's own
}

// body is an operation on the elements of its output's shape: f computes a tile. spadTemp and accTemp
// are what f needs for itself, in bytes an element; it is given their addresses. Of rowwise operations
// a tile is rows of the last axis.
type body struct {
	in                []operand
	spadTemp, accTemp []int
	rowwise           bool
	f                 func(t tile)
}

// tile is what f is given: operands, result and memory for itself, and how many elements.
type tile struct {
	in        []local
	out       local
	spad, acc []local
	n         int
}

// alone generates an operation whose operands and result are in memory.
func (l *lower) alone(f func(*lower) (*body, error)) error {
	b, err := f(l)
	if err != nil {
		return err
	}
	op := tiled{shape: l.y().Shape, in: b.in, outs: []view{l.result()}, spadTemp: b.spadTemp, accTemp: b.accTemp, rowwise: b.rowwise}
	if l.y().Type.Bits() == 64 { // pairs of 32 bits
		op.shape = append(append([]int{}, op.shape...), 2)
		out := &op.outs[0]
		out.strides, out.size = append(out.strides, 4), 4
	}
	if err := l.tiled(op, func(t tiles) { b.f(tile{t.in, t.outs[0], t.spad, t.acc, t.n}) }); err != nil {
		return l.node.Errorf("%v", err).WithRemedy("give the array more scratchpad")
	}
	return nil
}

// tiled is operations on every element of shape: for each tile the operands are loaded, f
// computes, and the results are stored.
type tiled struct {
	shape             []int
	in                []operand
	outs              []view
	spadTemp, accTemp []int
	rowwise           bool
}

// tiles is tile with several results.
type tiles struct {
	in, outs, spad, acc []local
	n                   int
}

func (c *code) tiled(op tiled, f func(t tiles)) error {
	for _, n := range op.shape {
		if n == 0 {
			return nil
		}
	}
	row := 1
	if k := len(op.shape); op.rowwise && k > 0 {
		row = op.shape[k-1]
	}
	var views []*view
	for i := range op.in {
		o := &op.in[i]
		if o.at.stays() && (o.scalar || !o.is(op.shape)) {
			return errors.New("an operand that stays in the scratchpad is not as the result")
		}
		if !o.scalar {
			views = append(views, &o.view)
		}
	}
	for i := range op.outs {
		views = append(views, &op.outs[i])
	}
	shape := collapse(op.shape, views...)
	var t tiles
	once := 0
	for _, o := range op.outs {
		if !o.at.stays() {
			once += o.size
		}
	}
	for _, o := range op.in {
		if o.scalar {
			at := c.local(o.size)
			c.load(at, o.at, o.size)
			t.in = append(t.in, local{at: at, one: true})
			continue
		}
		t.in = append(t.in, local{})
		if !o.at.stays() {
			once += o.size
		}
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
	// Operands and results twice, memory of its own once; each with room to be aligned.
	buffers := 2*(len(op.in)+len(op.outs)) + len(op.spadTemp)
	limit := total
	if each := 2*once + tempBytes; each > 0 {
		limit = (int(target.SpadSize) - c.spad - buffers*align) / each
	}
	if accBytes > 0 {
		limit = min(limit, (int(target.AccSize)-c.acc-len(op.accTemp)*align)/accBytes)
	}
	limit = min(limit, max(mostTile/max(once, 1), row))
	if row > 1 {
		limit = limit / row * row
	} else if limit >= align {
		limit &^= align - 1
	}
	count := 2
	if limit < 1 {
		return fmt.Errorf("a row of %d elements, with what is computed of it, does not fit %d bytes of scratchpad and %d of accumulators", row, int(target.SpadSize)-c.spad, int(target.AccSize)-c.acc)
	}
	if total <= limit {
		limit, count = total, 1
	}
	in := make([]*slots, len(op.in))
	for i, o := range op.in {
		if !o.scalar {
			in[i] = c.room(o.at, count, limit*o.size)
		}
	}
	var outs []*slots
	for _, o := range op.outs {
		outs = append(outs, c.room(o.at, count, limit*o.size))
		t.outs = append(t.outs, local{})
	}
	for _, n := range op.spadTemp {
		t.spad = append(t.spad, local{at: c.local(n * limit)})
	}
	for _, n := range op.accTemp {
		t.acc = append(t.acc, local{at: c.accumulators(n * limit), acc: true})
	}
	boxes(shape, limit, func(b box) {
		for i, o := range op.in {
			switch {
			case o.at.stays():
				t.in[i].at = within(o.view, b)
			case !o.scalar:
				t.in[i].at = in[i].take()
				c.move(false, t.in[i].at, o.view, b)
			}
		}
		for i, o := range op.outs {
			if o.at.stays() {
				t.outs[i].at = within(o, b)
			} else {
				t.outs[i].at = outs[i].take()
			}
		}
		t.n = b.elements()
		f(t)
		for i, o := range op.outs {
			if !o.at.stays() {
				c.move(true, t.outs[i].at, o, b)
			}
		}
	})
	return nil
}
