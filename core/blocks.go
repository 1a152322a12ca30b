// SPDX-License-Identifier: Apache-2.0

package core

import (
	"encoding/binary"
	"math"
	"slices"

	"npuemu/core/isa"
	"npuemu/core/num"
	"npuemu/core/systolic"
)

// Products with operands that BLOCKS or SPARSE describe (§5.6.30, §5.6.31) are those
// of the operands that they stand for, which are made here: fp32 of blocks, dense
// weights of sparse ones.

// blocks is BLOCKS (§5.6.30).
func (c *Core) blocks(i isa.Blocks) *Fault {
	if v := i.Check(c.limits); v != nil {
		return violation(0, v)
	}
	c.limits.Setup.Blocks = i
	return nil
}

// sparse is SPARSE (§5.6.31).
func (c *Core) sparse(i isa.Sparse) *Fault {
	if v := i.Check(c.limits); v != nil {
		return violation(0, v)
	}
	c.limits.Setup.Sparse = i
	return nil
}

// stood reports whether operands stand for others.
func stood(s *isa.Setup) bool {
	return s.Sparse.On || s.Blocks.A != num.NotMX || s.Blocks.B != num.NotMX
}

// multiplyFor is multiply for operands that stand for others: a and b are the rows
// that are in the scratchpad, scales those of blocks.
func (c *unit) multiplyFor(p *systolic.Product, a, b, aScales, bScales isa.Rows, acc uint32) *Fault {
	s := &c.limits.Setup
	depth := p.KernelH * p.KernelW * (p.Cin / p.Groups)
	var list [6]isa.Rows
	rows := append(list[:0], a)
	if s.Blocks.A != num.NotMX {
		rows = append(rows, aScales)
	}
	rows = append(rows, b)
	if s.Blocks.B != num.NotMX {
		rows = append(rows, bScales)
	}
	indices := s.IndexRows(uint64(depth), uint64(p.Cout))
	if s.Sparse.On {
		rows = append(rows, indices)
	}
	if s.Operands.PerChannel {
		rows = append(rows, isa.Rows{Base: uint64(s.Operands.BZeros), Outer: 1, Inner: 1, Bytes: uint64(p.Cout)})
		p.BZeros = c.spad[s.Operands.BZeros:][:p.Cout]
	}
	for _, r := range rows {
		if f := c.poisonedImage(false, r); f != nil {
			return f
		}
	}
	in, w := c.spad[a.Base:], c.spad[b.Base:]
	if s.Blocks.A != num.NotMX {
		c.wideA = c.unblock(c.wideA, s.Blocks.A, a, aScales, p.Cin)
		in, p.A.Type, p.A.Stride = c.wideA, systolic.FP32, 4*p.Cin
	}
	if s.Blocks.B != num.NotMX {
		c.wideB = c.unblock(c.wideB, s.Blocks.B, b, bScales, p.Cin)
		w, p.B.Type, p.B.Stride = c.wideB, systolic.FP32, 4*p.Cin
	}
	if s.Sparse.On {
		if f := c.densify(p, b, indices, depth); f != nil {
			return f
		}
		w = c.wideB
	}
	c.array.Do(p, c.acc[acc/4:], in, w, systolic.Options{Stop: c.stopped})
	c.stats.MACs += p.MACs()
	return nil
}

// unblock makes dense rows of n fp32 of the rows of blocks x, in to's memory.
func (c *unit) unblock(to []byte, f num.MX, x, scales isa.Rows, n int) []byte {
	size := int(x.Inner) * 4 * n
	to = slices.Grow(to[:0], size)[:size]
	var value [256]float32 // of elements
	for code := range 1 << f.Bits() {
		value[code] = f.Element(uint8(code))
	}
	for r := range int(x.Inner) {
		if c.stopped() {
			return to // the program ends anyway
		}
		row, scale := c.spad[int(x.Base)+r*int(x.InnerStride):], c.spad[int(scales.Base)+r*int(scales.InnerStride):]
		for k := range n {
			v := num.MXValue(scale[k/num.MXBlock], value[f.Code(row, k)])
			binary.LittleEndian.PutUint32(to[4*(r*n+k):], math.Float32bits(v))
		}
	}
	return to
}

// densify makes wideB the weights that the sparse rows w stand for, depth of them in
// each sum, and p their product. int4 becomes int8: its zero points need that.
func (c *unit) densify(p *systolic.Product, w, indices isa.Rows, depth int) *Fault {
	t, columns := p.B.Type, p.Cout
	to := t
	if t == systolic.Int4 {
		to = systolic.Int8
	}
	inner := columns // elements of a dense row
	if p.B.Transposed {
		inner = depth
	}
	stride := int(to.Bytes(uint64(inner)))
	size := stride * columns * depth / inner
	dense := slices.Grow(c.wideB[:0], size)[:size]
	c.wideB = dense
	// at returns where weight k of column n is in rows of the given stride.
	at := func(rows []byte, stride, k, n int) ([]byte, int) {
		if p.B.Transposed {
			return rows[n*stride:], k
		}
		return rows[k*stride:], n
	}
	sparse := c.spad[w.Base:]
	for n := range columns {
		zero := uint32(p.B.Zero)
		if p.BZeros != nil {
			zero = uint32(p.BZeros[n])
		}
		for g := range depth / 4 {
			if g%4096 == 0 && c.stopped() {
				return nil // the program ends anyway
			}
			row, i := int(indices.Base), g
			if p.B.Transposed {
				row += n * int(indices.InnerStride)
			} else {
				row, i = row+g*int(indices.InnerStride), n
			}
			pair := c.spad[row+i/2] >> (4 * (i % 2)) & 15
			first, second := int(pair&3), int(pair>>2)
			if first >= second {
				return &Fault{Status: StatusBadSparsity, Info: uint64(row + i/2)}
			}
			for k := range 4 {
				v := zero
				if k == first || k == second {
					kept := 2 * g
					if k == second {
						kept++
					}
					from, e := at(sparse, p.B.Stride, kept, n)
					v = bitsOf(from, t, e)
				}
				row, e := at(dense, stride, 4*g+k, n)
				setBits(row, to, e, v)
			}
		}
	}
	p.B.Type, p.B.Stride = to, stride
	return nil
}

// bitsOf is the encoding of element i of a row, of int4 as an int8.
func bitsOf(row []byte, t systolic.Type, i int) uint32 {
	switch {
	case t == systolic.Int4:
		return uint32(t.Integer(row, i))
	case t.Bytes(1) == 1:
		return uint32(row[i])
	case t.Bytes(1) == 2:
		return uint32(binary.LittleEndian.Uint16(row[2*i:]))
	}
	return binary.LittleEndian.Uint32(row[4*i:])
}

// setBits makes v's low bits element i of a row.
func setBits(row []byte, t systolic.Type, i int, v uint32) {
	switch t.Bytes(1) {
	case 1:
		row[i] = byte(v)
	case 2:
		binary.LittleEndian.PutUint16(row[2*i:], uint16(v))
	default:
		binary.LittleEndian.PutUint32(row[4*i:], v)
	}
}
