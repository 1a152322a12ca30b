// SPDX-License-Identifier: Apache-2.0

package ref

// The rules of §5.7 that look at an instruction alone.

// field is a field of §5.6: byte offset and size.
type field struct {
	off, size int
	signed    bool
}

func f(off, size int) field { return field{off: off, size: size} }
func i(off, size int) field { return field{off, size, true} }

// layout is what §5.6 says of the bytes of an instruction.
type layout struct {
	group  uint64
	flags  byte
	fields []field // from byte 4 on
}

var transfer = []field{f(4, 1), f(5, 1), f(6, 2), f(8, 4), f(12, 4), f(16, 4), f(20, 4), f(24, 4), f(28, 2), f(30, 2)}

// rows are those of GATHER and SCATTER.
var rows = []field{f(4, 2), f(6, 2), f(8, 4), f(12, 4), f(16, 4), f(20, 4), f(24, 4), f(28, 4)}

var layouts = map[byte]layout{
	0x01: {},
	0x02: {controlGroup, 1, []field{f(4, 1), f(5, 1), f(8, 4), i(12, 4), i(16, 4)}},
	0x03: {controlGroup, 0, nil},
	0x04: {controlGroup, 1, []field{f(4, 1), f(5, 1), f(6, 1), f(7, 1), i(8, 4)}},
	0x05: {controlGroup, 0, []field{f(4, 24), f(28, 1), f(29, 1)}},
	0x1f: {}, 0x2f: {}, 0x3f: {}, 0x4f: {},
	0x10: {0, 1, transfer}, 0x20: {0, 1, transfer},
	0x21: {controlGroup, 0, []field{f(4, 1), f(5, 1), f(8, 4), f(12, 4)}},
	0x30: {0, 0, []field{f(4, 2), f(6, 2), f(8, 4), f(12, 4)}},
	0x31: {0, 1, []field{f(4, 2), f(6, 2), f(8, 4), f(12, 4), f(16, 2), f(18, 2), f(20, 2), f(22, 2), f(24, 4)}},
	0x32: {gemmGroup, 15, []field{f(4, 1), f(5, 1), i(6, 2), i(8, 2), f(12, 4), f(16, 4), f(20, 4), f(24, 4)}},
	0x33: {gemmGroup, 0, []field{f(4, 1), f(5, 1), f(6, 1), f(7, 1), f(8, 1), f(9, 1), f(10, 2), f(12, 2), f(14, 2)}},
	0x34: {gemmGroup, 1, []field{f(4, 4), f(8, 4), f(12, 4), f(16, 4), f(20, 4), f(24, 4)}},
	0x35: {gemmGroup, 1, []field{f(4, 2), f(6, 2), f(8, 2), f(10, 2), f(12, 2), f(14, 2), f(16, 4), f(20, 4), f(24, 4), f(28, 4)}},
	0x40: {0, 1, []field{f(4, 1), f(8, 4), f(12, 4), f(16, 4), f(20, 4)}},
	0x41: {0, 0, []field{f(4, 2), f(6, 2), f(8, 4), f(12, 4), f(16, 4)}},
	0x42: {0, 1, []field{f(4, 2), f(6, 2), f(8, 4), f(12, 4), f(16, 4), f(20, 2), f(22, 2), f(24, 2), f(26, 2), i(28, 1), i(29, 1), i(30, 1), f(31, 1)}},
	0x43: {vectorGroup, 31, []field{f(4, 1), f(5, 1), f(6, 1), f(8, 4), f(12, 4), f(16, 4), f(20, 4), f(24, 2), f(26, 2), f(28, 2), f(30, 2)}},
	0x44: {vectorGroup, 0, []field{f(8, 4), f(12, 4), f(16, 4), f(20, 4), f(24, 2), f(26, 2), f(28, 2)}},
	0x45: {reduceGroup, 13, []field{f(4, 1), f(5, 1), f(6, 1), f(8, 4), f(16, 4), f(20, 4), f(24, 2), f(26, 2), f(30, 2)}},
	0x36: {mxGroup, 0, []field{f(4, 1), f(5, 1), f(8, 4), f(12, 4), f(16, 4), f(20, 4)}},
	0x37: {sparseGroup, 1, []field{f(8, 4), f(12, 4)}},
	0x47: {poolGroup, 13, []field{f(4, 1), f(5, 1), i(6, 2), f(8, 2), f(10, 2), f(12, 2), f(14, 2), f(16, 4), f(20, 4), f(24, 2), f(26, 2), f(28, 2), f(30, 2)}},
	0x48: {poolGroup, 1, []field{f(4, 1), f(6, 2), f(8, 4), f(12, 4), f(16, 2), f(18, 2), f(20, 1), f(21, 1), f(22, 1), f(23, 1), f(24, 2), f(26, 2), f(28, 2), f(30, 2)}},
	0x49: {poolGroup, 3, []field{f(4, 1), f(6, 2), f(8, 4), f(12, 4), f(16, 4), f(20, 4), f(24, 4), f(28, 4)}},
	0x4a: {gatherGroup, 0, []field{f(4, 2), f(6, 2), f(8, 2), f(10, 2), f(12, 4), f(16, 4), f(20, 4), f(24, 4)}},
	0x4b: {gatherGroup, 0, []field{f(4, 2), f(8, 4), f(12, 4), f(16, 4), f(20, 4), f(24, 4), f(28, 4)}},
	0x4c: {gatherGroup, 1, rows}, 0x4d: {gatherGroup, 1, rows},
	0x4e: {quantGroup, 15, []field{f(4, 1), f(5, 1), f(6, 1), f(8, 4), f(12, 4), f(16, 4), f(20, 4), f(24, 2), f(26, 2), f(30, 2)}},
	0x50: {addqGroup, 0, []field{f(4, 1), f(5, 1), i(6, 2), i(8, 2), i(10, 2), i(12, 2), i(14, 2), f(16, 4), f(20, 4), f(24, 4), f(28, 1), f(29, 1), f(30, 1)}},
	0x51: {addqGroup, 16, []field{f(4, 1), f(5, 1), f(8, 4), f(12, 4), f(16, 4), f(20, 4), f(24, 2), f(26, 2), f(28, 2), f(30, 2)}},
	0x46: {reduceGroup, 13, []field{f(4, 1), f(5, 1), f(6, 1), f(8, 4), f(12, 4), f(16, 4), f(20, 4), f(24, 2), f(26, 2), f(30, 2)}},
}

// sizeOf returns the size of the field that a WITH may change, or 0.
func sizeOf(opcode byte, off int) int {
	for _, x := range layouts[opcode].fields {
		if x.off == off && x.size >= 2 && !x.signed {
			return x.size
		}
	}
	return 0
}

// format is ILLEGAL_INSTRUCTION and RESERVED_FIELD.
func (m *Machine) format(w *word) {
	l, ok := layouts[w[0]]
	fault(!ok || l.group&^m.features != 0, IllegalInstruction, uint64(w[0]))
	var used word
	used[0], used[1] = 0xff, l.flags
	if w[0]>>4 != 0 {
		used[2], used[3] = 0xff, 0xff
	}
	for _, x := range l.fields {
		for b := range x.size {
			used[x.off+b] = 0xff
		}
	}
	if w[0] == 0x42 && m.features&vectorGroup == 0 {
		used[31] = 0
	}
	for b := range w {
		fault(w[b]&^used[b] != 0 || (b == 2 || b == 3) && w[b]>>4 == 0 && w[b] != 0, ReservedField, uint64(b))
	}
}

// scan makes the sequencer's checks and returns where HALT is.
func (m *Machine) scan(text []word, r *Result) int {
	depth, withs := 0, 0
	for n := range text {
		w := &text[n]
		r.Instr = uint32(n)
		m.format(w)
		if withs > 0 && w[0]>>4 == 0 && w[0] != 5 {
			r.Instr = uint32(n - 1)
			fault(true, BadControl, 4)
		}
		switch w[0] {
		case 1:
			fault(depth > 0, BadControl, 3)
			return n
		case 2:
			depth++
			fault(depth > 8, BadControl, 2)
			fault(w[4] > 15, BadOperand, 4)
			fault(w[5] > 15 || !w.has(1) && w[5] != 0, BadOperand, 5)
			fault(w.has(1) != (w.u32(8) == 0), BadOperand, 8)
		case 3:
			depth--
			fault(depth < 0, BadControl, 1)
		case 4:
			fault(w[4] > 14, BadOperand, 4)
			fault(w[5] > 15, BadOperand, 5)
			fault(w[6] > 15 || w[4] == 0 && w[6] != 0, BadOperand, 6)
			fault(w[7] > 15 || w.has(1) && w[7] != 0, BadOperand, 7)
			fault(!w.has(1) && w.u32(8) != 0, BadOperand, 8)
		case 5:
			withs++
			for t := range 4 {
				at := 4 + 6*t
				none := w[at] == 0
				fault(none && (w[at+1] != 0 || w.u32(at+2) != 0), BadOperand, uint64(at))
				fault(!none && t > 0 && w[at-6] == 0, BadOperand, uint64(at))
				fault(w[at+1] > 15, BadOperand, uint64(at+1))
			}
			fault(w[28] > 2, BadOperand, 28)
			fault(w[29] > 15 || w[28] == 0 && w[29] != 0, BadOperand, 29)
		default:
			for ; withs > 0; withs-- {
				x := &text[n-withs]
				for t := range 4 {
					if at := 4 + 6*t; x[at] != 0 && sizeOf(w[0], int(x[at])) == 0 {
						r.Instr = uint32(n - withs)
						fault(true, BadOperand, uint64(at))
					}
				}
			}
		}
	}
	r.Instr = uint32(len(text))
	fault(true, NoHalt, 0)
	return 0
}

// width is the size of an element in bytes, of int4 1: only its alignment.
func width(t byte) uint64 {
	switch t {
	case 3, 8:
		return 4
	case 1, 9, 10:
		return 2
	}
	return 1
}

// span is the size of n elements that follow each other.
func span(t byte, n uint64) uint64 {
	if t == 2 {
		return (n + 1) / 2
	}
	return n * width(t)
}

func floating(t byte) bool { return t >= 8 && t <= 12 }

// bad is BAD_OPERAND.
func bad(broken bool, off int) { fault(broken, BadOperand, uint64(off)) }

// local is LOCAL_BOUNDS for count rows in each of planes planes.
func local(mem []byte, base, planes, planeStride, count, stride, n uint64) {
	if at, outside := outside(uint64(len(mem)), base, planes, planeStride, count, stride, n); outside {
		fault(true, LocalBounds, at)
	}
}

func outside(size, base, planes, planeStride, count, stride, n uint64) (uint64, bool) {
	if planeStride == 0 {
		planes = 1
	}
	if stride == 0 {
		count = 1
	}
	for p := range planes {
		start := base + p*planeStride
		// Rows go up, so the last says whether one is outside; which, is counted.
		if start+(count-1)*stride+n <= size {
			continue
		}
		for c := range count {
			if row := start + c*stride; row+n > size {
				return max(row, size), true
			}
		}
	}
	return 0, false
}

func (m *Machine) memory(acc bool) []byte {
	if acc {
		return m.acc
	}
	return m.spad
}

// check makes the checks that come after the wait, but for BAD_PARAM.
func (m *Machine) check(w *word) {
	switch w[0] {
	case 0x10, 0x20:
		acc := w.has(1)
		lines := w.u16(6) * w.u16(28)
		bad(w.u16(6) == 0, 6)
		bad(acc && w.u32(8)%4 != 0, 8)
		bad(w.u32(16) == 0 || acc && w.u32(16)%4 != 0, 16)
		bad(w.u16(28) == 0, 28)
		bad(acc && w.u16(30)%4 != 0 || lines > 1 && w.u16(30) < w.u32(16), 30)
		local(m.memory(acc), w.u32(8), 1, 0, lines, w.u16(30), w.u32(16))
		m.binding(w, w[0] == 0x20, w.u16(28), w.u32(24), w.u16(6), w.u32(20), w.u32(16))
	case 0x21:
		m.binding(w, true, 1, 0, 1, 0, 16)
	case 0x30:
		bad(w.u16(4) == 0, 4)
		bad(w.u16(6) == 0, 6)
		bad(w.u16(4) > 1 && w.u32(12) < w.u16(6), 12)
		m.shape(w)
		local(m.spad, w.u32(8), 1, 0, w.u16(4), w.u32(12), w.u16(6))
	case 0x31:
		rows := w.u16(16) * w.u16(18)
		bad(w.u16(4) == 0, 4)
		bad(w.u16(6) == 0, 6)
		bad(w.u32(12)%4 != 0, 12)
		bad(w.u16(16) == 0, 16)
		bad(w.u16(18) == 0, 18)
		bad(w.u16(22)%4 != 0 || rows > 1 && w.u16(22) < 4*w.u16(6), 22)
		m.shape(w)
		local(m.spad, w.u32(8), w.u16(18), w.u32(24), w.u16(16), w.u16(20), w.u16(4))
		local(m.acc, w.u32(12), 1, 0, rows, w.u16(22), 4*w.u16(6))
	case 0x32:
		m.checkOperands(w)
	case 0x33:
		for o := 4; o < 10; o++ {
			bad(w[o] == 0, o)
		}
		bad(w.u16(10) == 0, 10)
	case 0x34, 0x35:
		m.checkProduct(w)
	case 0x36:
		m.checkBlocks(w)
	case 0x37:
		bad(!w.has(1) && w.u32(8) != 0, 8)
		bad(!w.has(1) && w.u32(12) != 0, 12)
	case 0x47:
		m.checkImage(w)
	case 0x48:
		m.checkPool(w)
	case 0x49:
		m.checkResize(w)
	case 0x4a:
		for off := 4; off < 12; off += 2 {
			bad(w.u16(off) == 0, off)
		}
	case 0x4b:
		m.checkTranspose(w)
	case 0x4c, 0x4d:
		m.checkGather(w)
	case 0x4e:
		m.checkQuantize(w)
	case 0x50:
		m.checkScales(w)
	case 0x51:
		m.checkAddq(w)
	case 0x40:
		acc := w.has(1)
		bad(acc && w.u32(8)%4 != 0, 8)
		bad(w.u32(12) == 0 || acc && w.u32(12)%4 != 0, 12)
		bad(w.u32(16) == 0, 16)
		bad(acc && w.u32(20)%4 != 0 || w.u32(16) > 1 && w.u32(20) < w.u32(12), 20)
		local(m.memory(acc), w.u32(8), 1, 0, w.u32(16), w.u32(20), w.u32(12))
	case 0x41:
		bad(w.u16(4) == 0, 4)
		bad(w.u16(6)%4 != 0 || w.u32(16) > 1 && w.u16(6) < 4*w.u16(4), 6)
		bad(w.u32(8)%4 != 0, 8)
		bad(w.u32(12)%4 != 0, 12)
		bad(w.u32(16) == 0, 16)
		local(m.spad, w.u32(8), 1, 0, 1, 0, 4*w.u16(4))
		local(m.acc, w.u32(12), 1, 0, w.u32(16), w.u16(6), 4*w.u16(4))
	case 0x42:
		rows, n := w.u16(20)*w.u16(22), w.u16(4)
		bad(n == 0, 4)
		bad(w.u16(6)%4 != 0 || rows > 1 && w.u16(6) < 4*n, 6)
		bad(w.u32(8)%4 != 0, 8)
		bad(w.u32(16)%4 != 0, 16)
		bad(w.u16(20) == 0, 20)
		bad(w.u16(22) == 0, 22)
		bad(w.u16(20) > 1 && w.u16(24) < n, 24)
		bad(w.u16(22) > 1 && w.u16(26) < (w.u16(20)-1)*w.u16(24)+n, 26)
		bad(int8(w[29]) > int8(w[30]), 30)
		bad(w[31] > 2, 31)
		local(m.acc, w.u32(8), 1, 0, rows, w.u16(6), 4*n)
		local(m.spad, w.u32(12), w.u16(22), w.u16(26), w.u16(20), w.u16(24), n)
		entries := uint64(1)
		if w.has(1) {
			entries = n
		}
		local(m.spad, w.u32(16), 1, 0, 1, 0, 8*entries)
	case 0x43, 0x45, 0x46:
		m.checkVector(w)
	case 0x44:
		bad(w.u32(20) == 0, 20)
		bad(w.u16(24) == 0, 24)
		bad(w.u32(20) > 1 && w.u16(28) < w.u16(24), 28)
		local(m.spad, w.u32(8), 1, 0, w.u32(20), w.u16(26), w.u16(24))
		local(m.spad, w.u32(12), 1, 0, 1, 0, 256)
		local(m.spad, w.u32(16), 1, 0, w.u32(20), w.u16(28), w.u16(24))
	}
}

func (m *Machine) shape(w *word) {
	fault(w.u16(4) > uint64(m.cfg.Rows), ArrayShape, 4)
	fault(w.u16(6) > uint64(m.cfg.Cols), ArrayShape, 6)
}

// binding makes the checks of an access to memory.
func (m *Machine) binding(w *word, write bool, planes, planeStride, count, stride, n uint64) {
	b := int(w[4])
	fault(b >= len(m.bindings), BindingIndex, uint64(b))
	fault(write && !m.bindings[b].Write || !write && !m.bindings[b].Read, BindingAccess, uint64(b))
	if at, out := outside(uint64(len(m.bindings[b].Data)), w.offset(), planes, planeStride, count, stride, n); out {
		fault(true, BindingBounds, at)
	}
}

func (m *Machine) checkOperands(w *word) {
	a, b := w[4], w[5]
	channels := w.has(1)
	bad(channels && floating(b), 1)
	float := m.features&floatGroup != 0
	integer := func(t byte, others ...byte) bool {
		for _, o := range others {
			if t == o {
				return true
			}
		}
		return false
	}
	bad(!integer(a, 0, 1, 4) && !(floating(a) && float), 4)
	if floating(a) {
		bad(!floating(b), 5)
	} else {
		bad(!integer(b, 0, 2, 4), 5)
	}
	bad(!inType(w.i16(6), a), 6)
	zero := b
	if b == 2 { // of int4: of int8
		zero = 0
	}
	bad(!inType(w.i16(8), zero) || channels && w.i16(8) != 0, 8)
	bad(!channels && w.u32(12) != 0, 12)
	bad(w.u32(16)%width(a) != 0, 16)
	bad(w.u32(20)%width(b) != 0, 20)
	bad(w.u32(24)%4 != 0, 24)
}

// checkProduct is for GEMM and CONV.
func (m *Machine) checkProduct(w *word) {
	o, win := &m.operands, &m.window
	ta, tb := o[4], o[5]
	setup := func(broken bool, info uint64) { fault(broken, BadSetup, info) }
	var brows, bcols, results uint64
	if w[0] == 0x34 {
		for at := 4; at < 16; at += 4 {
			bad(w.u32(at) == 0, at)
		}
	} else {
		for at := 4; at < 16; at += 2 {
			bad(w.u16(at) == 0, at)
		}
	}
	bad(w.u32(16)%width(ta) != 0, 16)
	bad(w.u32(20)%width(tb) != 0, 20)
	bad(w.u32(24)%4 != 0, 24)
	fa, fb, sparse := m.blocks[4], m.blocks[5], m.sparse.has(1)
	gemm := w[0] == 0x34
	g := win.u16(10)
	n, depth := w.u32(8), w.u32(12)
	rows, cols := w.u32(4), depth
	results = rows
	switch {
	case !gemm:
		n, depth = w.u16(14), win.u8(4)*win.u8(5)*(w.u16(12)/g)
		rows, cols = w.u16(6), w.u16(12) // of each line
		results = w.u16(8) * w.u16(10)
		bad(w.u32(28)%width(ta) != 0 || w.u16(4) > 1 && w.u32(28) < (w.u16(6)-1)*o.u32(16)+span(ta, cols), 28)
	case o.has(2):
		rows, cols = cols, rows
	}
	scales := (depth + 31) / 32
	setup(!gemm && fa|fb != 0, 96+4)
	setup(fa != 0 && ta != 11, 4)
	setup(fb != 0 && tb != 11, 5)
	setup(fa != 0 && o.has(2) || fb != 0 && !o.has(4), 1)
	setup(fb != 0 && sparse, 128+1)
	setup(fa != 0 && w.u32(4) > 1 && m.blocks.u32(16) < scales, 96+16)
	setup(fb != 0 && n > 1 && m.blocks.u32(20) < scales, 96+20)
	kept := depth
	irows, icols := depth/4, n
	if o.has(4) {
		irows, icols = icols, irows
	}
	if sparse {
		setup(depth%4 != 0, 128+1)
		setup(irows > 1 && m.sparse.u32(12) < span(2, icols), 128+12)
		kept /= 2
	}
	setup(!gemm && o.has(2), 1)
	setup(rows > 1 && o.u32(16) < rowBytes(fa, ta, cols), 16)
	setup(!gemm && (w.u16(12)%g != 0 || w.u16(14)%g != 0), 32+10)
	brows, bcols = kept, n
	if o.has(4) {
		brows, bcols = bcols, brows
	}
	setup(brows > 1 && o.u32(20) < rowBytes(fb, tb, bcols), 20)
	setup(results > 1 && o.u32(24) < 4*n, 24)
	if gemm {
		local(m.spad, w.u32(16), 1, 0, rows, o.u32(16), rowBytes(fa, ta, cols))
	} else {
		local(m.spad, w.u32(16), w.u16(4), w.u32(28), rows, o.u32(16), span(ta, cols))
	}
	if fa != 0 {
		local(m.spad, m.blocks.u32(8), 1, 0, rows, m.blocks.u32(16), scales)
	}
	local(m.spad, w.u32(20), 1, 0, brows, o.u32(20), rowBytes(fb, tb, bcols))
	if fb != 0 {
		local(m.spad, m.blocks.u32(12), 1, 0, brows, m.blocks.u32(20), scales)
	}
	if sparse {
		local(m.spad, m.sparse.u32(8), 1, 0, irows, m.sparse.u32(12), span(2, icols))
	}
	if o.has(1) {
		local(m.spad, o.u32(12), 1, 0, 1, 0, n)
	}
	local(m.acc, w.u32(24), 1, 0, results, o.u32(24), 4*n)
	if sparse {
		m.sparsity(depth/4, n)
	}
}

// hasY reports whether op of ELEMENT has a y.
func hasY(op byte) bool { return !(op <= 3 || op >= 33 && op <= 46) }

// checkVector is for ELEMENT, REDUCE and NORM.
func (m *Machine) checkVector(w *word) {
	op, t, to := w[4], w[5], w[6]
	element, norm := w[0] == 0x43, w[0] == 0x46
	xAcc, yAcc, outAcc, one := w.has(1), w.has(2), w.has(4), w.has(16)
	float := floating(t)
	y := element && hasY(op)
	if element {
		bad(!y && (yAcc || one), 1)
		bad(!(op <= 13 || op >= 16 && op <= 25 && !float || op >= 32 && op <= 46 && float), 4)
	} else {
		last := byte(3)
		if m.features&gatherGroup != 0 {
			last = 5
		}
		bad(norm && op > 2 || !norm && (op > last || op == 3 && !float), 4)
	}
	known := func(t byte, acc bool) bool {
		switch {
		case acc:
			return t == 8 || t == 3 && !norm
		case norm:
			return floating(t)
		}
		return t == 0 || t == 1 || t == 3 || t == 4 || floating(t)
	}
	bad(!known(t, xAcc || yAcc), 5)
	bad(!known(to, outAcc), 6)
	n, rows := w.u16(24), w.u32(20)
	bad(w.u32(8)%width(t) != 0, 8)
	switch {
	case y:
		bad(w.u32(12)%width(t) != 0, 12)
	case norm && op != 0:
		bad(w.u32(12)%4 != 0, 12)
	default:
		bad(w.u32(12) != 0, 12)
	}
	bad(w.u32(16)%width(to) != 0, 16)
	bad(rows == 0, 20)
	bad(n == 0, 24)
	bad(w.u16(26)%width(t) != 0, 26)
	if element {
		bad(w.u16(28)%width(t) != 0 || (one || !y) && w.u16(28) != 0, 28)
	}
	results := span(to, n)
	if w[0] == 0x45 {
		results = width(to)
	}
	bad(w.u16(30)%width(to) != 0 || rows > 1 && w.u16(30) < results, 30)
	local(m.memory(xAcc), w.u32(8), 1, 0, rows, w.u16(26), span(t, n))
	switch {
	case one:
		local(m.memory(yAcc), w.u32(12), 1, 0, 1, 0, width(t))
	case y:
		local(m.memory(yAcc), w.u32(12), 1, 0, rows, w.u16(28), span(t, n))
	case norm && op > 0:
		local(m.spad, w.u32(12), 1, 0, 1, 0, 4*(1+n*uint64(3-op)))
	}
	local(m.memory(outAcc), w.u32(16), 1, 0, rows, w.u16(30), results)
}
