// SPDX-License-Identifier: Apache-2.0

package ref

import "math"

// Groups MX and SPARSE (§5.6.30, §5.6.31, §6.16, §6.17).

func (m *Machine) checkBlocks(w *word) {
	bad(w[4] > 6, 4)
	bad(w[5] > 6, 5)
	for o := range 2 {
		bad(w[4+o] == 0 && w.u32(8+4*o) != 0, 8+4*o)
	}
	for o := range 2 {
		bad(w[4+o] == 0 && w.u32(16+4*o) != 0, 16+4*o)
	}
}

// mx is a format of §6.16.1: bits of an element, of its exponent and fraction, bias.
type mx struct{ bits, exponent, fraction, bias int }

var mxFormats = map[byte]mx{1: {bits: 8}, 2: {bits: 8}, 3: {6, 3, 2, 3}, 4: {6, 2, 3, 1}, 5: {4, 2, 1, 1}, 6: {bits: 8}}

// rowBytes is the size of a row of n elements, of type t if they have no format.
func rowBytes(f, t byte, n uint64) uint64 {
	if f == 0 {
		return span(t, n)
	}
	return (n*uint64(mxFormats[f].bits) + 7) / 8
}

// blockElement is element i of the row at row, with its scale.
func blockElement(mem []byte, row, scales uint64, f byte, i uint64) float32 {
	x := mxFormats[f]
	code := uint32(0)
	for b := range uint64(x.bits) {
		at := i*uint64(x.bits) + b
		code |= uint32(mem[row+at/8]>>(at%8)&1) << b
	}
	v := float64(0)
	switch f {
	case 1:
		v = float64(decode(11, code))
	case 2:
		v = float64(decode(12, code))
	case 6:
		v = float64(int8(code)) / 64
	default:
		e, frac := int(code>>x.fraction)&(1<<x.exponent-1), math.Ldexp(float64(code&(1<<x.fraction-1)), -x.fraction)
		if v = math.Ldexp(1+frac, e-x.bias); e == 0 {
			v = math.Ldexp(frac, 1-x.bias)
		}
		if code>>(x.bits-1) != 0 {
			v = -v
		}
	}
	s := mem[scales+i/32]
	if s == 255 || math.IsNaN(v) {
		return nan32()
	}
	return float32(math.Ldexp(v, int(s)-127))
}

// sparsity makes the checks of places: of one column after the other, all groups.
func (m *Machine) sparsity(groups, columns uint64) {
	for n := range columns {
		for g := range groups {
			p, at := m.pairOf(g, n)
			fault(p>>2 <= p&3, BadSparsity, at)
		}
	}
}

// pairOf returns the four bits of group g and column n, and where their byte is.
func (m *Machine) pairOf(g, n uint64) (p, at uint64) {
	row, col := g, n
	if m.operands.has(4) {
		row, col = n, g
	}
	at = m.sparse.u32(8) + row*m.sparse.u32(12) + col/2
	return uint64(m.spad[at] >> (4 * (col % 2)) & 15), at
}

// place returns which of the weights of column n that are there is product k.
func (m *Machine) place(k, n uint64) (uint64, bool) {
	p, _ := m.pairOf(k/4, n)
	switch k % 4 {
	case p & 3:
		return k / 4 * 2, true
	case p >> 2:
		return k/4*2 + 1, true
	}
	return 0, false
}
