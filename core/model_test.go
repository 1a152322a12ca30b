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
	case 0x1f, 0x2f, 0x3f, 0x4f:
	default:
		panic(fmt.Sprintf("model: opcode %#x", b[0]))
	}
	return -1
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
