// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"encoding/binary"
	"fmt"
	"math/big"
)

// model is a second implementation of §5.6 and §6, for tests only: byte at a
// time, straight from the tables, sharing no code with core or isa. It checks
// no rule but that of the parameter table.
type model struct {
	spad, acc []byte
	weights   map[[2]int]int8
	mem       [][]byte // by binding

	operands, window [32]byte // the last OPERANDS and WINDOW
}

func (m *model) i32(b []byte, at int) int32 { return int32(binary.LittleEndian.Uint32(b[at:])) }

func (m *model) setAcc(at int, v int32) { binary.LittleEndian.PutUint32(m.acc[at:], uint32(v)) }

// exec executes one instruction. badParam is the address of a bad entry or −1.
func (m *model) exec(b []byte) (badParam int) {
	u16 := func(o int) int { return int(binary.LittleEndian.Uint16(b[o:])) }
	u32 := func(o int) int { return int(binary.LittleEndian.Uint32(b[o:])) }
	flag := b[1]&1 != 0
	local := m.spad
	if flag {
		local = m.acc
	}
	switch b[0] {
	case 0x10, 0x20:
		mem := m.mem[b[4]]
		off := int(b[5])<<32 + u32(12)
		for z := range u16(28) {
			for y := range u16(6) {
				for x := range u32(16) {
					outer := off + z*u32(24) + y*u32(20) + x
					inner := u32(8) + (z*u16(6)+y)*u16(30) + x
					if b[0] == 0x10 {
						local[inner] = mem[outer]
					} else {
						mem[outer] = local[inner]
					}
				}
			}
		}
	case 0x30:
		m.weights = map[[2]int]int8{}
		for k := range u16(4) {
			for n := range u16(6) {
				m.weights[[2]int{k, n}] = int8(m.spad[u32(8)+k*u32(12)+n])
			}
		}
	case 0x31:
		for y := range u16(18) {
			for x := range u16(16) {
				for n := range u16(6) {
					at := u32(12) + (y*u16(16)+x)*u16(22) + 4*n
					var sum int64
					if flag {
						sum = int64(m.i32(m.acc, at))
					}
					for k := range u16(4) {
						a := int8(m.spad[u32(8)+y*u32(24)+x*u16(20)+k])
						sum += int64(a) * int64(m.weights[[2]int{k, n}])
					}
					m.setAcc(at, int32(sum))
				}
			}
		}
	case 0x40:
		for y := range u32(16) {
			for x := range u32(12) {
				local[u32(8)+y*u32(20)+x] = b[4]
			}
		}
	case 0x41:
		for r := range u32(16) {
			for c := range u16(4) {
				m.setAcc(u32(12)+r*u16(6)+4*c, m.i32(m.spad, u32(8)+4*c))
			}
		}
	case 0x42:
		entries := 1
		if flag {
			entries = u16(4)
		}
		table := append([]byte(nil), m.spad[u32(16):u32(16)+8*entries]...)
		for e := range entries {
			p := table[8*e : 8*e+8]
			if m.i32(p, 0) < 0 || p[4] < 1 || p[4] > 62 || p[5] != 0 || p[6] != 0 || p[7] != 0 {
				return u32(16) + 8*e
			}
		}
		for y := range u16(22) {
			for x := range u16(20) {
				for c := range u16(4) {
					p := table[8*(c%entries):]
					v := m.i32(m.acc, u32(8)+(y*u16(20)+x)*u16(6)+4*c)
					m.spad[u32(12)+y*u16(26)+x*u16(24)+c] = byte(requantize(v, m.i32(p, 0), p[4], int8(b[28]), int8(b[29]), int8(b[30])))
				}
			}
		}
	case 0x32:
		m.operands = [32]byte(b)
	case 0x33:
		m.window = [32]byte(b)
	case 0x34:
		m.gemm(u32(4), u32(8), u32(12), u32(16), u32(20), u32(24), flag)
	case 0x35:
		m.conv(b, flag)
	case 0x1f, 0x2f, 0x3f, 0x4f:
	default:
		panic(fmt.Sprintf("model: opcode %#x", b[0]))
	}
	return -1
}

// element is element i of the row at address row, of type t (§6.5).
func (m *model) element(t byte, row, i int) int64 {
	switch t {
	case 0:
		return int64(int8(m.spad[row+i]))
	case 1:
		return int64(int16(uint16(m.spad[row+2*i]) | uint16(m.spad[row+2*i+1])<<8))
	case 4:
		return int64(m.spad[row+i])
	case 2:
		v := int64(m.spad[row+i/2])
		if i%2 == 1 {
			v /= 16
		}
		if v %= 16; v >= 8 {
			v -= 16
		}
		return v
	}
	panic(fmt.Sprintf("model: type %d", t))
}

// weight is w[k][n] of the operand at b, less its zero point (§6.8.1).
func (m *model) weight(b, k, n int) int64 {
	o := m.operands[:]
	stride := int(binary.LittleEndian.Uint32(o[20:]))
	zero := int64(int16(binary.LittleEndian.Uint16(o[8:])))
	if o[1]&1 != 0 {
		at := int(binary.LittleEndian.Uint32(o[12:])) + n
		zero = int64(int8(m.spad[at]))
		if o[5] == 4 {
			zero = int64(m.spad[at])
		}
	}
	if o[1]&4 != 0 {
		return m.element(o[5], b+n*stride, k) - zero
	}
	return m.element(o[5], b+k*stride, n) - zero
}

// add adds sum to the accumulator of row r and column c, or stores it.
func (m *model) add(acc, r, c int, sum int64, accumulate bool) {
	at := acc + r*int(binary.LittleEndian.Uint32(m.operands[24:])) + 4*c
	if accumulate {
		sum += int64(m.i32(m.acc, at))
	}
	m.setAcc(at, int32(sum))
}

// gemm is §5.6.11.
func (m *model) gemm(rows, cols, depth, a, b, acc int, accumulate bool) {
	o := m.operands[:]
	stride := int(binary.LittleEndian.Uint32(o[16:]))
	zero := int64(int16(binary.LittleEndian.Uint16(o[6:])))
	for r := range rows {
		for c := range cols {
			if o[4] >= 8 {
				m.chain(acc, r, c, depth, accumulate, func(k int) float64 {
					if o[1]&2 != 0 {
						return m.floating(o[4], a+k*stride, r)
					}
					return m.floating(o[4], a+r*stride, k)
				}, func(k int) float64 { return m.floatWeight(b, k, c) })
				continue
			}
			var sum int64
			for k := range depth {
				v := int64(0)
				if o[1]&2 != 0 {
					v = m.element(o[4], a+k*stride, r)
				} else {
					v = m.element(o[4], a+r*stride, k)
				}
				sum += (v - zero) * m.weight(b, k, c)
			}
			m.add(acc, r, c, sum, accumulate)
		}
	}
}

// conv is §5.6.12.
func (m *model) conv(i []byte, accumulate bool) {
	u16 := func(b []byte, o int) int { return int(binary.LittleEndian.Uint16(b[o:])) }
	u32 := func(b []byte, o int) int { return int(binary.LittleEndian.Uint32(b[o:])) }
	o, w := m.operands[:], m.window[:]
	zero := int64(int16(u16(o, 6)))
	groups := u16(w, 10)
	cin, cout := u16(i, 12)/groups, u16(i, 14)/groups
	for oy := range u16(i, 8) {
		for ox := range u16(i, 10) {
			for n := range cout * groups {
				if o[4] >= 8 {
					m.chain(u32(i, 24), oy*u16(i, 10)+ox, n, int(w[4])*int(w[5])*cin, accumulate, func(k int) float64 {
						y := oy*int(w[6]) + k/cin/int(w[5])*int(w[8]) - u16(w, 12)
						x := ox*int(w[7]) + k/cin%int(w[5])*int(w[9]) - u16(w, 14)
						if y < 0 || y >= u16(i, 4) || x < 0 || x >= u16(i, 6) {
							return 0
						}
						return m.floating(o[4], u32(i, 16)+y*u32(i, 28)+x*u32(o, 16), n/cout*cin+k%cin)
					}, func(k int) float64 { return m.floatWeight(u32(i, 20), k, n) })
					continue
				}
				var sum int64
				for ky := range int(w[4]) {
					for kx := range int(w[5]) {
						for c := range cin {
							y := oy*int(w[6]) + ky*int(w[8]) - u16(w, 12)
							x := ox*int(w[7]) + kx*int(w[9]) - u16(w, 14)
							v := zero
							if y >= 0 && y < u16(i, 4) && x >= 0 && x < u16(i, 6) {
								v = m.element(o[4], u32(i, 16)+y*u32(i, 28)+x*u32(o, 16), n/cout*cin+c)
							}
							sum += (v - zero) * m.weight(u32(i, 20), (ky*int(w[5])+kx)*cin+c, n)
						}
					}
				}
				m.add(u32(i, 24), oy*u16(i, 10)+ox, n, sum, accumulate)
			}
		}
	}
}

// requantize is §6.3 in unbounded integers.
func requantize(x, q int32, s uint8, zero, lo, hi int8) int8 {
	p := new(big.Int).Mul(big.NewInt(int64(x)), big.NewInt(int64(q)))
	p.Add(p, new(big.Int).Lsh(big.NewInt(1), uint(s-1)))
	p.Rsh(p, uint(s)) // an arithmetic shift, as of two's complement
	p.Add(p, big.NewInt(int64(zero)))
	if !p.IsInt64() || p.Int64() < int64(lo) || p.Int64() > int64(hi) {
		if p.Sign() < 0 || p.IsInt64() && p.Int64() < int64(lo) {
			return lo
		}
		return hi
	}
	return int8(p.Int64())
}
