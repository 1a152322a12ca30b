// SPDX-License-Identifier: Apache-2.0

package ref

import (
	"encoding/binary"
	"math"
)

// Groups QUANT and ADDQ (§5.6.29, §5.6.32, §5.6.33).

// bounds are the smallest and largest value of an integer type (§6.5).
func bounds(t byte) (lo, hi int64) {
	switch t {
	case 0:
		return -128, 127
	case 1:
		return -32768, 32767
	case 2:
		return -8, 7
	case 4:
		return 0, 255
	}
	return math.MinInt32, math.MaxInt32
}

// inType reports whether v, a zero point or bound, may stand for a value of type t.
func inType(v int64, t byte) bool {
	if floating(t) {
		return v == 0
	}
	lo, hi := bounds(t)
	return v >= lo && v <= hi
}

// finite and aboveZero look at the encoding of an fp32.
func finite(bits uint64) bool    { return bits>>23&255 != 255 }
func aboveZero(bits uint64) bool { return bits > 0 && bits < 0x7f800000 }

func clamp(v, lo, hi int64) int64 { return min(max(v, lo), hi) }

func (m *Machine) checkScales(w *word) {
	float := w[4] == 2
	bad(w[4] > 2, 4)
	bad(w[5] > 31 || float && w[5] != 0, 5)
	bad(w.i16(12) > w.i16(14), 14)
	for _, off := range []int{16, 20} {
		bad(w.u32(off) > math.MaxInt32 || float && !finite(w.u32(off)), off)
	}
	bad(!float && w.u32(24) > math.MaxInt32 || float && !finite(w.u32(24)), 24)
	for off := 28; off < 31; off++ {
		bad(float && w[off] != 0 || !float && (w[off] < 1 || w[off] > 62), off)
	}
}

func (m *Machine) checkAddq(w *word) {
	t, one, n, rows := w[5], w.has(16), w.u16(24), w.u32(20)
	bad(w[4] > 2, 4)
	bad(t != 0 && t != 1 && t != 4, 5)
	for _, off := range []int{8, 12, 16} {
		bad(w.u32(off)%width(t) != 0, off)
	}
	bad(rows == 0, 20)
	bad(n == 0, 24)
	bad(w.u16(26)%width(t) != 0, 26)
	bad(w.u16(28)%width(t) != 0 || one && w.u16(28) != 0, 28)
	bad(w.u16(30)%width(t) != 0 || rows > 1 && w.u16(30) < span(t, n), 30)
	for off := 6; off < 16; off += 2 {
		fault(!inType(m.scales.i16(off), t), BadSetup, uint64(160+off))
	}
	local(m.spad, w.u32(8), 1, 0, rows, w.u16(26), span(t, n))
	if one {
		local(m.spad, w.u32(12), 1, 0, 1, 0, width(t))
	} else {
		local(m.spad, w.u32(12), 1, 0, rows, w.u16(28), span(t, n))
	}
	local(m.spad, w.u32(16), 1, 0, rows, w.u16(30), span(t, n))
}

// pair is §6.18, for x and y less their zero points.
func (m *Machine) pair(op byte, x, y int32) int64 {
	s := &m.scales
	if s[4] == 2 {
		a, b, c := math.Float32frombits(uint32(s.u32(16))), math.Float32frombits(uint32(s.u32(20))), math.Float32frombits(uint32(s.u32(24)))
		switch op {
		case 0:
			return int64(toInt(fma(float32(x), a, fma(float32(y), b, c))))
		case 1:
			return int64(toInt(fma(float32(x), a, fma(float32(y), -b, c))))
		}
		return int64(toInt(float32(float32(x*y)*a) + c))
	}
	round := func(v int32, q, shift int) int64 {
		if s[4] == 0 {
			return onceRounded(v, s.i32(q), uint(s[shift]))
		}
		return int64(twiceRounded(v, s.i32(q), uint(s[shift])))
	}
	t := x * y
	if op < 2 {
		a, b := int32(round(x<<s[5], 16, 28)), int32(round(y<<s[5], 20, 29))
		if t = a + b; op == 1 {
			t = a - b
		}
	}
	return round(t, 24, 30)
}

func (m *Machine) addq(w *word) {
	s, t := &m.scales, w[5]
	for r := range w.u32(20) {
		out := make([]uint32, w.u16(24))
		for c := range out {
			x := read(m.spad, w.u32(8)+r*w.u16(26), t, uint64(c)).i
			y := int32(0)
			if w.has(16) {
				y = read(m.spad, w.u32(12), t, 0).i
			} else {
				y = read(m.spad, w.u32(12)+r*w.u16(28), t, uint64(c)).i
			}
			v := m.pair(w[4], x-int32(s.i16(6)), y-int32(s.i16(8)))
			out[c] = uint32(clamp(v+s.i16(10), s.i16(12), s.i16(14)))
		}
		store(m.spad, w.u32(16)+r*w.u16(30), t, out)
	}
}

// store writes a row of elements of type t, the low bits of each.
func store(mem []byte, row uint64, t byte, bits []uint32) {
	for c, v := range bits {
		if t == 2 {
			if v &= 15; c%2 == 0 {
				mem[row+uint64(c)/2] = byte(v)
			} else {
				mem[row+uint64(c)/2] |= byte(v << 4)
			}
			continue
		}
		for b := range width(t) {
			mem[row+span(t, uint64(c))+b] = byte(v >> (8 * b))
		}
	}
}

func (m *Machine) checkQuantize(w *word) {
	op, t, to := w[4], w[5], w[6]
	xAcc, channels, outAcc, wrap := w.has(1), w.has(2), w.has(4), w.has(8)
	table := op != 2 && op != 3
	n, rows := w.u16(24), w.u32(20)
	bad(channels && !table || wrap && table && !floating(to), 1)
	bad(op > 6, 4)
	known := func(t byte, acc bool) bool {
		if acc {
			return t == 3 || t == 8
		}
		return t <= 4 || floating(t)
	}
	bad(!known(t, xAcc) || (op == 1 || op >= 4) && floating(t) || op == 3 && !floating(t), 5)
	bad(!known(to, outAcc) || op == 1 && !floating(to) || op != 1 && op != 2 && floating(to), 6)
	bad(w.u32(8)%width(t) != 0, 8)
	bad(table && w.u32(12)%4 != 0 || !table && w.u32(12) != 0, 12)
	bad(w.u32(16)%width(to) != 0, 16)
	bad(rows == 0, 20)
	bad(n == 0, 24)
	bad(w.u16(26)%width(t) != 0, 26)
	bad(w.u16(30)%width(to) != 0 || rows > 1 && w.u16(30) < span(to, n), 30)
	local(m.memory(xAcc), w.u32(8), 1, 0, rows, w.u16(26), span(t, n))
	if table {
		local(m.spad, w.u32(12), 1, 0, 1, 0, 8*m.entries(w))
	}
	local(m.memory(outAcc), w.u32(16), 1, 0, rows, w.u16(30), span(to, n))
}

// entries is how many the parameter table of a QUANTIZE has.
func (m *Machine) entries(w *word) uint64 {
	switch {
	case w[4] == 2 || w[4] == 3:
		return 0
	case w.has(2):
		return w.u16(24)
	}
	return 1
}

// entry is one of a parameter table.
type entry struct {
	scale float32
	q     int32
	shift uint
	zero  int64
}

// parameters reads the table of a QUANTIZE.
func (m *Machine) parameters(w *word) (table []entry) {
	zeroType := w[6]
	if w[4] == 1 {
		zeroType = w[5]
	}
	for e := range m.entries(w) {
		p := m.spad[w.u32(12)+8*e:][:8]
		first, second := binary.LittleEndian.Uint32(p), binary.LittleEndian.Uint32(p[4:])
		x := entry{scale: math.Float32frombits(first), q: int32(first), shift: uint(p[4]), zero: int64(int16(second >> 16))}
		wrong := !aboveZero(uint64(first))
		switch w[4] {
		case 0, 1:
			x.zero = int64(int32(second))
		case 4, 5:
			wrong = x.q < 0 || x.shift < 1 || x.shift > 62 || p[5] != 0
		case 6:
			wrong = wrong || p[4]|p[5] != 0
		}
		fault(wrong || !inType(x.zero, zeroType), BadParam, w.u32(12)+8*e)
		table = append(table, x)
	}
	return table
}

func (m *Machine) quantize(w *word) {
	t, to := w[5], w[6]
	table := m.parameters(w)
	lo, hi := bounds(to)
	for r := range w.u32(20) {
		out := make([]uint32, w.u16(24))
		for c := range out {
			x := read(m.memory(w.has(1)), w.u32(8)+r*w.u16(26), t, uint64(c))
			real := x.f
			if !x.float {
				real = float32(x.i)
			}
			var p entry
			if len(table) > 0 {
				p = table[c%len(table)]
			}
			placed := func(v int64) uint32 { return uint32(clamp(v+p.zero, lo, hi)) }
			switch w[4] {
			case 0:
				out[c] = placed(int64(toInt(real / p.scale)))
			case 1:
				y := value{float: true, f: float32(int32(int64(x.i)-p.zero)) * p.scale}
				out[c] = y.bits(to, !w.has(8))
			case 2:
				out[c] = x.bits(to, !w.has(8))
			case 3:
				if !isNaN(x.f) {
					x.f = float32(math.Trunc(float64(x.f)))
				}
				out[c] = narrow(to, toInt(x.f), !w.has(8))
			case 4:
				out[c] = placed(onceRounded(x.i, p.q, p.shift))
			case 5:
				out[c] = placed(int64(twiceRounded(x.i, p.q, p.shift)))
			case 6:
				out[c] = placed(int64(toInt(real * p.scale)))
			}
		}
		store(m.memory(w.has(4)), w.u32(16)+r*w.u16(30), to, out)
	}
}
