// SPDX-License-Identifier: Apache-2.0

package ref

import (
	"encoding/binary"
	"math"
)

// What instructions do (§5.6), after their checks.

func (m *Machine) execute(w *word) {
	switch w[0] {
	case 0x10, 0x20:
		mem, data := m.memory(w.has(1)), m.bindings[w[4]].Data
		for z := range w.u16(28) {
			for y := range w.u16(6) {
				for x := range w.u32(16) {
					far := w.offset() + z*w.u32(24) + y*w.u32(20) + x
					near := w.u32(8) + (z*w.u16(6)+y)*w.u16(30) + x
					if w[0] == 0x10 {
						mem[near] = data[far]
					} else {
						data[far] = mem[near]
					}
				}
			}
		}
	case 0x21:
		at := m.bindings[w[4]].Data[w.offset():]
		binary.LittleEndian.PutUint64(at, m.finished)
		binary.LittleEndian.PutUint32(at[8:], uint32(w.u32(8)))
		binary.LittleEndian.PutUint32(at[12:], 0)
	case 0x30:
		clear(m.weights)
		for k := range w.u16(4) {
			for n := range w.u16(6) {
				m.weights[[2]int{int(k), int(n)}] = int8(m.spad[w.u32(8)+k*w.u32(12)+n])
			}
		}
	case 0x31:
		for y := range w.u16(18) {
			for x := range w.u16(16) {
				for n := range w.u16(6) {
					s := int32(0)
					for k := range w.u16(4) {
						s += int32(int8(m.spad[w.u32(8)+y*w.u32(24)+x*w.u16(20)+k])) * int32(m.weights[[2]int{int(k), int(n)}])
					}
					m.add(w.u32(12)+(y*w.u16(16)+x)*w.u16(22)+4*n, s, w.has(1))
				}
			}
		}
	case 0x32:
		m.operands = *w
	case 0x33:
		m.window = *w
	case 0x34:
		m.gemm(w)
	case 0x35:
		m.conv(w)
	case 0x36:
		m.blocks = *w
	case 0x37:
		m.sparse = *w
	case 0x40:
		mem := m.memory(w.has(1))
		for y := range w.u32(16) {
			for x := range w.u32(12) {
				mem[w.u32(8)+y*w.u32(20)+x] = w[4]
			}
		}
	case 0x41:
		for r := range w.u32(16) {
			copy(m.acc[w.u32(12)+r*w.u16(6):], m.spad[w.u32(8):][:4*w.u16(4)])
		}
	case 0x42:
		m.requant(w)
	case 0x43:
		m.element(w)
	case 0x44:
		table := [256]byte(m.spad[w.u32(12):])
		for r := range w.u32(20) {
			row := append([]byte(nil), m.spad[w.u32(8)+r*w.u16(26):][:w.u16(24)]...)
			for c, b := range row {
				m.spad[w.u32(16)+r*w.u16(28)+uint64(c)] = table[b]
			}
		}
	case 0x45:
		for r := range w.u32(20) {
			m.write(w, r, []value{m.reduce(w, m.row(w, r))})
		}
	case 0x46:
		m.norm(w)
	case 0x47:
		m.image = *w
	case 0x48:
		m.pool(w)
	case 0x49:
		m.resize(w)
	case 0x4a:
		m.moved = *w
	case 0x4b:
		m.transpose(w)
	case 0x4c, 0x4d:
		m.gather(w)
	case 0x4e:
		m.quantize(w)
	case 0x50:
		m.scales = *w
	case 0x51:
		m.addq(w)
	}
}

func (m *Machine) int32(acc uint64) int32 { return int32(binary.LittleEndian.Uint32(m.acc[acc:])) }

// add stores s, or adds it to what is there.
func (m *Machine) add(acc uint64, s int32, accumulate bool) {
	if accumulate {
		s += m.int32(acc)
	}
	binary.LittleEndian.PutUint32(m.acc[acc:], uint32(s))
}

// raw returns element n of type t of a row (§6.5).
func raw(mem []byte, row uint64, t byte, n uint64) uint32 {
	switch at := row + span(t, n); width(t) {
	case 4:
		return binary.LittleEndian.Uint32(mem[at:])
	case 2:
		return uint32(binary.LittleEndian.Uint16(mem[at:]))
	default:
		if t == 2 {
			return uint32(mem[row+n/2]>>(4*(n%2))) & 15
		}
		return uint32(mem[at])
	}
}

// read returns that element as an int32 or fp32.
func read(mem []byte, row uint64, t byte, n uint64) value {
	b := raw(mem, row, t, n)
	switch t {
	case 0:
		return value{i: int32(int8(b))}
	case 1:
		return value{i: int32(int16(b))}
	case 2:
		return value{i: int32(b<<28) >> 28}
	case 3, 4:
		return value{i: int32(b)}
	}
	return value{float: true, f: decode(t, b)}
}

// weight returns w[k][n] of the operand at b, less its zero point.
func (m *Machine) weight(b, k, n uint64) value {
	o := &m.operands
	if m.sparse.has(1) {
		there := false
		if k, there = m.place(k, n); !there {
			return value{} // its zero point less itself, or +0
		}
	}
	row, col := k, n
	if o.has(4) {
		row, col = n, k
	}
	if f := m.blocks[5]; f != 0 {
		return value{f: blockElement(m.spad, b+row*o.u32(20), m.blocks.u32(12)+row*m.blocks.u32(20), f, col)}
	}
	v := read(m.spad, b+row*o.u32(20), o[5], col)
	switch {
	case o.has(1) && o[5] == 4:
		v.i -= int32(m.spad[o.u32(12)+n])
	case o.has(1):
		v.i -= int32(int8(m.spad[o.u32(12)+n]))
	default:
		v.i -= int32(o.i16(8))
	}
	return v
}

// dot makes one result of depth products (§6.8).
func (m *Machine) dot(acc uint64, depth uint64, accumulate bool, a, b func(k uint64) value) {
	if !floating(m.operands[4]) {
		s := int64(0)
		for k := range depth {
			s += int64(a(k).i) * int64(b(k).i) // wraps modulo 2⁶⁴, so modulo 2³²
		}
		m.add(acc, int32(s), accumulate)
		return
	}
	s := float32(0)
	if accumulate {
		s = math.Float32frombits(uint32(m.int32(acc)))
	}
	for k := range depth {
		s = fma(a(k).f, b(k).f, s)
	}
	binary.LittleEndian.PutUint32(m.acc[acc:], encode(8, s, false))
}

func (m *Machine) gemm(w *word) {
	o := &m.operands
	for r := range w.u32(4) {
		for c := range w.u32(8) {
			m.dot(w.u32(24)+r*o.u32(24)+4*c, w.u32(12), w.has(1), func(k uint64) value {
				row, col := r, k
				if o.has(2) {
					row, col = k, r
				}
				if f := m.blocks[4]; f != 0 {
					return value{f: blockElement(m.spad, w.u32(16)+row*o.u32(16), m.blocks.u32(8)+row*m.blocks.u32(16), f, col)}
				}
				v := read(m.spad, w.u32(16)+row*o.u32(16), o[4], col)
				v.i -= int32(o.i16(6))
				return v
			}, func(k uint64) value { return m.weight(w.u32(20), k, c) })
		}
	}
}

func (m *Machine) conv(w *word) {
	o, win := &m.operands, &m.window
	groups := win.u16(10)
	cg, ng := w.u16(12)/groups, w.u16(14)/groups
	kw := win.u8(5)
	for oy := range w.u16(8) {
		for ox := range w.u16(10) {
			for n := range w.u16(14) {
				m.dot(w.u32(24)+(oy*w.u16(10)+ox)*o.u32(24)+4*n, win.u8(4)*kw*cg, w.has(1), func(k uint64) value {
					ky, kx, c := k/cg/kw, k/cg%kw, k%cg
					y := int64(oy*win.u8(6)+ky*win.u8(8)) - int64(win.u16(12))
					x := int64(ox*win.u8(7)+kx*win.u8(9)) - int64(win.u16(14))
					if y < 0 || y >= int64(w.u16(4)) || x < 0 || x >= int64(w.u16(6)) {
						return value{} // a_zero less a_zero, or +0
					}
					v := read(m.spad, w.u32(16)+uint64(y)*w.u32(28)+uint64(x)*o.u32(16), o[4], n/ng*cg+c)
					v.i -= int32(o.i16(6))
					return v
				}, func(k uint64) value { return m.weight(w.u32(20), k, n) })
			}
		}
	}
}

func (m *Machine) requant(w *word) {
	entries := uint64(1)
	if w.has(1) {
		entries = w.u16(4)
	}
	table := append([]byte(nil), m.spad[w.u32(16):][:8*entries]...)
	for e := range entries {
		p := table[8*e:][:8]
		q := binary.LittleEndian.Uint32(p)
		wrong := q > math.MaxInt32 || p[4] < 1 || p[4] > 62 || p[5]|p[6]|p[7] != 0
		if w[31] == 2 {
			s := math.Float32frombits(q)
			wrong = isNaN(s) || math.IsInf(float64(s), 0) || s <= 0 || p[4]|p[5]|p[6]|p[7] != 0
		}
		fault(wrong, BadParam, w.u32(16)+8*e)
	}
	for y := range w.u16(22) {
		for x := range w.u16(20) {
			for c := range w.u16(4) {
				p := table[8*(c%entries):]
				q, s := binary.LittleEndian.Uint32(p), uint(p[4])
				v := m.int32(w.u32(8) + (y*w.u16(20)+x)*w.u16(6) + 4*c)
				var r int64
				switch w[31] {
				case 0:
					r = onceRounded(v, int32(q), s)
				case 1:
					r = int64(twiceRounded(v, int32(q), s))
				default:
					r = int64(toInt(float32(v) * math.Float32frombits(q)))
				}
				r = min(max(r+int64(int8(w[28])), int64(int8(w[29]))), int64(int8(w[30])))
				m.spad[w.u32(12)+y*w.u16(26)+x*w.u16(24)+c] = byte(r)
			}
		}
	}
}

// row returns row r of x, of ELEMENT, REDUCE or NORM.
func (m *Machine) row(w *word, r uint64) []value {
	row := make([]value, w.u16(24))
	for c := range row {
		row[c] = read(m.memory(w.has(1)), w.u32(8)+r*w.u16(26), w[5], uint64(c))
	}
	return row
}

// write stores row r of results.
func (m *Machine) write(w *word, r uint64, row []value) {
	bits := make([]uint32, len(row))
	for c, v := range row {
		bits[c] = v.bits(w[6], !w.has(8))
	}
	store(m.memory(w.has(4)), w.u32(16)+r*w.u16(30), w[6], bits)
}

func (m *Machine) element(w *word) {
	for r := range w.u32(20) {
		row := m.row(w, r)
		out := make([]value, len(row))
		for c := range row {
			x, y := row[c], value{}
			if mem := m.memory(w.has(2)); w.has(16) {
				y = read(mem, w.u32(12), w[5], 0)
			} else if hasY(w[4]) {
				y = read(mem, w.u32(12)+r*w.u16(28), w[5], uint64(c))
			}
			if w[4] == 13 {
				z := read(m.memory(w.has(4)), w.u32(16)+r*w.u16(30), w[6], uint64(c))
				if out[c] = y; z.i != 0 || z.f != 0 {
					out[c] = x
				}
				continue
			}
			if out[c] = (value{i: integer(w[4], x.i, y.i)}); x.float {
				out[c] = value{float: true, f: m.real(w[4], x.f, y.f)}
			}
		}
		m.write(w, r, out)
	}
}

func integer(op byte, x, y int32) int32 {
	n := uint(min(uint32(y), 64))
	saturate := func(v int64) int32 { return int32(min(max(v, math.MinInt32), math.MaxInt32)) }
	switch op {
	case 1:
		return -x
	case 2:
		if x < 0 {
			return -x
		}
	case 3:
		return max(x, 0)
	case 4:
		return x + y
	case 5:
		return x - y
	case 6:
		return x * y
	case 7:
		return min(x, y)
	case 8:
		return max(x, y)
	case 9:
		return truth(x == y)
	case 10:
		return truth(x != y)
	case 11:
		return truth(x < y)
	case 12:
		return truth(x <= y)
	case 16:
		return x & y
	case 17:
		return x | y
	case 18:
		return x ^ y
	case 19:
		return x << n
	case 20:
		return x >> n
	case 21:
		return int32(uint32(x) >> n)
	case 22: // floor(x / 2ⁿ + 1/2)
		if n == 0 {
			return x
		}
		if n > 40 {
			return 0
		}
		return int32((int64(x) + 1<<(n-1)) >> n)
	case 23:
		return mulHigh(x, y)
	case 24:
		return saturate(int64(x) + int64(y))
	case 25:
		return saturate(int64(x) - int64(y))
	}
	return x
}

func (m *Machine) real(op byte, x, y float32) float32 {
	logic := func(v bool) float32 { return float32(truth(v)) }
	switch op {
	case 0:
		return x
	case 1:
		return -x
	case 2:
		return abs(x)
	case 3:
		return larger(x, 0)
	case 4:
		return x + y
	case 5:
		return x - y
	case 6:
		return x * y
	case 7:
		return smaller(x, y)
	case 8:
		return larger(x, y)
	case 9:
		return logic(x == y)
	case 10:
		return logic(x != y)
	case 11:
		return logic(x < y)
	case 12:
		return logic(x <= y)
	case 32:
		return x / y
	}
	return m.tables.function(op, x)
}

func (m *Machine) reduce(w *word, row []value) value {
	if w[4] > 3 {
		return value{i: extreme(row, w[4] == 5)}
	}
	v := row[0]
	for _, x := range row[1:] {
		switch {
		case w[4] == 0 && !v.float:
			v.i += x.i
		case w[4] == 1 && !v.float:
			v.i = max(v.i, x.i)
		case w[4] == 2 && !v.float:
			v.i = min(v.i, x.i)
		case w[4] == 1:
			v.f = larger(v.f, x.f)
		case w[4] == 2:
			v.f = smaller(v.f, x.f)
		}
	}
	if v.float && (w[4] == 0 || w[4] == 3) {
		v.f = sum(len(row), func(i int, s float32) float32 { return s + row[i].f })
		if w[4] == 3 {
			v.f /= float32(len(row))
		}
	}
	return v
}

// extreme is argmax or argmin.
func extreme(row []value, smallest bool) int32 {
	at := 0
	for k, x := range row {
		if isNaN(x.f) {
			return int32(k)
		}
		better := x.i > row[at].i || x.f > row[at].f
		if smallest {
			better = x.i < row[at].i || x.f < row[at].f
		}
		if better {
			at = k
		}
	}
	return int32(at)
}

func (m *Machine) norm(w *word) {
	n := w.u16(24)
	count := uint64(0)
	if w[4] > 0 {
		count = 1 + n*uint64(3-w[4])
	}
	params := make([]float32, count)
	for k := range params {
		params[k] = read(m.spad, w.u32(12), 8, uint64(k)).f
	}
	for r := range w.u32(20) {
		row := m.row(w, r)
		squares := func(mean float32) float32 {
			return sum(len(row), func(i int, s float32) float32 {
				d := row[i].f - mean
				return fma(d, d, s)
			}) / float32(n)
		}
		switch w[4] {
		case 0:
			top := row[0].f
			for _, x := range row {
				top = larger(top, x.f)
			}
			for c := range row {
				row[c].f = m.tables.function(34, row[c].f-top)
			}
			r := 1 / sum(len(row), func(i int, s float32) float32 { return s + row[i].f })
			for c := range row {
				row[c].f *= r
			}
		case 1:
			mean := sum(len(row), func(i int, s float32) float32 { return s + row[i].f }) / float32(n)
			r := m.tables.function(43, squares(mean)+params[0])
			for c := range row {
				row[c].f = fma(float32(row[c].f-mean)*r, params[1+c], params[1+int(n)+c])
			}
		case 2:
			r := m.tables.function(43, squares(0)+params[0])
			for c := range row {
				row[c].f = float32(row[c].f*r) * params[1+c]
			}
		}
		m.write(w, r, row)
	}
}
