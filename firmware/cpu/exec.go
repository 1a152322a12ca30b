// SPDX-License-Identifier: Apache-2.0

package cpu

import "encoding/binary"

var le = binary.LittleEndian

// run executes instructions from pc until limit have retired, and then returns
// false, or until one needs step, and then returns true with pc at it. It is the
// hot loop: one indexed entry, one jump table, registers by masked index, and
// loads and stores only where the last slow one hit. Nothing in it can trap.
func (c *Core) run(limit int) bool {
	x, loads, stores := &c.x, &c.loads, &c.stores
	code, base := c.code.code, c.code.Base
	i := (c.pc - base) >> 1 // pc, as an index into code
	left := limit
loop:
	for ; left > 0 && uint(i) < uint(len(code)); left-- {
		e := code[i]
		switch e.op() {
		case opNone: // named so that the jump table starts at 0
			break loop
		case opLI:
			x[e.rd()] = uint32(e.imm())
		case opADDI:
			x[e.rd()] = x[e.rs1()] + uint32(e.imm())
		case opSLTI:
			x[e.rd()] = b2u(int32(x[e.rs1()]) < e.imm())
		case opSLTIU:
			x[e.rd()] = b2u(x[e.rs1()] < uint32(e.imm()))
		case opXORI:
			x[e.rd()] = x[e.rs1()] ^ uint32(e.imm())
		case opORI:
			x[e.rd()] = x[e.rs1()] | uint32(e.imm())
		case opANDI:
			x[e.rd()] = x[e.rs1()] & uint32(e.imm())
		case opSLLI:
			x[e.rd()] = x[e.rs1()] << (e.imm() & 31)
		case opSRLI:
			x[e.rd()] = x[e.rs1()] >> (e.imm() & 31)
		case opSRAI:
			x[e.rd()] = uint32(int32(x[e.rs1()]) >> (e.imm() & 31))
		case opADD:
			x[e.rd()] = x[e.rs1()] + x[e.rs2()]
		case opSUB:
			x[e.rd()] = x[e.rs1()] - x[e.rs2()]
		case opSLL:
			x[e.rd()] = x[e.rs1()] << (x[e.rs2()] & 31)
		case opSLT:
			x[e.rd()] = b2u(int32(x[e.rs1()]) < int32(x[e.rs2()]))
		case opSLTU:
			x[e.rd()] = b2u(x[e.rs1()] < x[e.rs2()])
		case opXOR:
			x[e.rd()] = x[e.rs1()] ^ x[e.rs2()]
		case opSRL:
			x[e.rd()] = x[e.rs1()] >> (x[e.rs2()] & 31)
		case opSRA:
			x[e.rd()] = uint32(int32(x[e.rs1()]) >> (x[e.rs2()] & 31))
		case opOR:
			x[e.rd()] = x[e.rs1()] | x[e.rs2()]
		case opAND:
			x[e.rd()] = x[e.rs1()] & x[e.rs2()]

		case opMUL:
			x[e.rd()] = x[e.rs1()] * x[e.rs2()]
		case opMULH:
			x[e.rd()] = uint32(int64(int32(x[e.rs1()])) * int64(int32(x[e.rs2()])) >> 32)
		case opMULHSU:
			x[e.rd()] = uint32(int64(int32(x[e.rs1()])) * int64(x[e.rs2()]) >> 32)
		case opMULHU:
			x[e.rd()] = uint32(uint64(x[e.rs1()]) * uint64(x[e.rs2()]) >> 32)
		case opDIV: // Go defines -2³¹ / -1 as RISC-V does: the dividend, remainder 0
			q := int32(-1)
			if d := int32(x[e.rs2()]); d != 0 {
				q = int32(x[e.rs1()]) / d
			}
			x[e.rd()] = uint32(q)
		case opDIVU:
			q := ^uint32(0)
			if d := x[e.rs2()]; d != 0 {
				q = x[e.rs1()] / d
			}
			x[e.rd()] = q
		case opREM:
			r := int32(x[e.rs1()])
			if d := int32(x[e.rs2()]); d != 0 {
				r %= d
			}
			x[e.rd()] = uint32(r)
		case opREMU:
			r := x[e.rs1()]
			if d := x[e.rs2()]; d != 0 {
				r %= d
			}
			x[e.rd()] = r

		case opJAL:
			x[e.rd()] = base + i<<1 + e.size()
			i += uint32(e.imm() >> 1)
			continue
		case opJALR:
			target := x[e.rs1()] + uint32(e.imm()) // before rd is written: it may be rs1
			x[e.rd()] = base + i<<1 + e.size()
			i = (target - base) >> 1 // drops the target's bit 0, as JALR must
			continue
		case opBEQ:
			if x[e.rs1()] == x[e.rs2()] {
				i += uint32(e.imm() >> 1)
				continue
			}
		case opBNE:
			if x[e.rs1()] != x[e.rs2()] {
				i += uint32(e.imm() >> 1)
				continue
			}
		case opBLT:
			if int32(x[e.rs1()]) < int32(x[e.rs2()]) {
				i += uint32(e.imm() >> 1)
				continue
			}
		case opBGE:
			if int32(x[e.rs1()]) >= int32(x[e.rs2()]) {
				i += uint32(e.imm() >> 1)
				continue
			}
		case opBLTU:
			if x[e.rs1()] < x[e.rs2()] {
				i += uint32(e.imm() >> 1)
				continue
			}
		case opBGEU:
			if x[e.rs1()] >= x[e.rs2()] {
				i += uint32(e.imm() >> 1)
				continue
			}

		// An aligned offset below the length of a Region is also in it with its
		// last byte, as the length is a multiple of 4.
		case opLB:
			off := x[e.rs1()] + uint32(e.imm()) - loads.base
			if uint(off) >= uint(len(loads.mem)) {
				break loop
			}
			x[e.rd()] = uint32(int8(loads.mem[off]))
		case opLBU:
			off := x[e.rs1()] + uint32(e.imm()) - loads.base
			if uint(off) >= uint(len(loads.mem)) {
				break loop
			}
			x[e.rd()] = uint32(loads.mem[off])
		case opLH:
			off := x[e.rs1()] + uint32(e.imm()) - loads.base
			if uint(off) >= uint(len(loads.mem)) || off&1 != 0 {
				break loop
			}
			x[e.rd()] = uint32(int16(le.Uint16(loads.mem[off:])))
		case opLHU:
			off := x[e.rs1()] + uint32(e.imm()) - loads.base
			if uint(off) >= uint(len(loads.mem)) || off&1 != 0 {
				break loop
			}
			x[e.rd()] = uint32(le.Uint16(loads.mem[off:]))
		case opLW:
			off := x[e.rs1()] + uint32(e.imm()) - loads.base
			if uint(off) >= uint(len(loads.mem)) || off&3 != 0 {
				break loop
			}
			x[e.rd()] = le.Uint32(loads.mem[off:])
		case opSB:
			off := x[e.rs1()] + uint32(e.imm()) - stores.base
			if uint(off) >= uint(len(stores.mem)) {
				break loop
			}
			stores.mem[off] = byte(x[e.rs2()])
		case opSH:
			off := x[e.rs1()] + uint32(e.imm()) - stores.base
			if uint(off) >= uint(len(stores.mem)) || off&1 != 0 {
				break loop
			}
			le.PutUint16(stores.mem[off:], uint16(x[e.rs2()]))
		case opSW:
			off := x[e.rs1()] + uint32(e.imm()) - stores.base
			if uint(off) >= uint(len(stores.mem)) || off&3 != 0 {
				break loop
			}
			le.PutUint32(stores.mem[off:], x[e.rs2()])
		case opFENCE:
		default:
			break loop
		}
		if e.size() == 2 {
			i++
		} else {
			i += 2
		}
	}
	c.pc = base + i<<1
	c.steps += uint64(limit - left)
	return left > 0
}

func b2u(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// step does what run left to it: it finds the Region of pc, decodes, or executes
// one instruction with its traps. The first two are no step of model time; run
// goes on after them.
func (c *Core) step() {
	i := (c.pc - c.code.Base) >> 1
	if i >= uint32(len(c.code.code)) {
		r := c.find(c.pc)
		if r == nil || !r.Exec {
			c.exception(causeFetchAccess, c.pc)
			return
		}
		c.code = r
		return
	}
	e := c.code.code[i]
	next := c.pc + e.size()

	switch e.op() {
	case opNone:
		c.decode(i)
		return
	case opLB, opLH, opLW, opLBU, opLHU:
		if !c.load(e) {
			return
		}
	case opSB, opSH, opSW:
		if !c.store(e) {
			return
		}
	case opLR, opSC, opAMOSWAP, opAMOADD, opAMOXOR, opAMOAND, opAMOOR, opAMOMIN, opAMOMAX, opAMOMINU, opAMOMAXU:
		if !c.atomic(e) {
			return
		}
	case opCSRRW, opCSRRS, opCSRRC, opCSRRWI, opCSRRSI, opCSRRCI:
		if !c.accessCSR(e) {
			c.exception(causeIllegal, uint32(e.imm()))
			return
		}
	case opFENCEI:
		c.fenceI()
	case opMRET:
		c.mret()
		next = c.csr.mepc
	case opWFI:
		c.waiting = true
	case opECALL:
		c.exception(causeECallM, 0)
		return
	case opEBREAK:
		c.exception(causeBreakpoint, c.pc)
		return
	case opIllegal:
		c.exception(causeIllegal, uint32(e.imm()))
		return
	case opBreak:
		c.stop = AtBreakpoint
		return
	default:
		panic("cpu: BUG: run left an instruction that needs no step")
	}
	c.pc = next
	c.steps++
}

// decode fills entry i of the code Region, which is the one for pc, or takes the
// access fault of an instruction that is not wholly in executable memory.
func (c *Core) decode(i uint32) {
	e, ok := c.fetch(c.code, c.pc)
	if !ok {
		c.exception(causeFetchAccess, c.pc+2)
		return
	}
	if c.debug.breaks[c.pc] {
		e = instruction{op: opBreak}.pack()
	}
	c.code.code[i] = e
	c.code.decoded = append(c.code.decoded, i)
}

// fetch returns the instruction at pc, which is in r, or false if its second half is not in executable memory.
func (c *Core) fetch(r *region, pc uint32) (entry, bool) {
	low := le.Uint16(r.Mem[pc-r.Base:])
	if low&3 != 3 {
		return decode16(low).pack(), true
	}
	high := c.find(pc + 2)
	if high == nil || !high.Exec {
		return 0, false
	}
	w := uint32(le.Uint16(high.Mem[pc+2-high.Base:]))<<16 | uint32(low)
	return decode32(w, pc).pack(), true
}

// load executes a load instruction, up to retiring it, and points run at the
// Region. False means that it trapped; then rd is as it was.
func (c *Core) load(e entry) bool {
	addr := c.x[e.rs1()] + uint32(e.imm())
	size := uint32(1)
	switch e.op() {
	case opLH, opLHU:
		size = 2
	case opLW:
		size = 4
	}
	if addr&(size-1) != 0 {
		c.exception(causeLoadMisaligned, addr)
		return false
	}
	var v uint32
	if r := c.find(addr); r != nil {
		if len(c.debug.watches) == 0 {
			c.loads = window{r.Base, r.Mem}
		}
		switch off := addr - r.Base; size {
		case 1:
			v = uint32(r.Mem[off])
		case 2:
			v = uint32(le.Uint16(r.Mem[off:]))
		case 4:
			v = le.Uint32(r.Mem[off:])
		}
	} else {
		ok := false
		if c.bus != nil {
			v, ok = c.bus.Load(addr, int(size))
		}
		if !ok {
			c.exception(causeLoadAccess, addr)
			return false
		}
	}
	c.watched(addr, size, WatchRead)
	switch e.op() {
	case opLB:
		v = uint32(int8(v))
	case opLH:
		v = uint32(int16(v))
	case opLBU:
		v &= 0xff
	case opLHU:
		v &= 0xffff
	}
	c.x[e.rd()] = v
	return true
}

// store executes a store instruction, up to retiring it, and points run at the
// Region. False means that it trapped and wrote nothing.
func (c *Core) store(e entry) bool {
	addr, v := c.x[e.rs1()]+uint32(e.imm()), c.x[e.rs2()]
	size := uint32(4)
	switch e.op() {
	case opSB:
		size, v = 1, v&0xff
	case opSH:
		size, v = 2, v&0xffff
	}
	if addr&(size-1) != 0 {
		c.exception(causeStoreMisaligned, addr)
		return false
	}
	r := c.find(addr)
	if r == nil && c.bus != nil && c.bus.Store(addr, int(size), v) {
		c.watched(addr, size, WatchWrite)
		return true
	}
	if r == nil || r.ReadOnly {
		c.exception(causeStoreAccess, addr)
		return false
	}
	if len(c.debug.watches) == 0 {
		c.stores = window{r.Base, r.Mem}
	}
	c.watched(addr, size, WatchWrite)
	switch off := addr - r.Base; size {
	case 1:
		r.Mem[off] = byte(v)
	case 2:
		le.PutUint16(r.Mem[off:], uint16(v))
	case 4:
		le.PutUint32(r.Mem[off:], v)
	}
	return true
}

// atomic executes LR.W, SC.W or an AMO, up to retiring it. False means that it
// trapped and changed nothing. An SC that may not write memory traps even if it
// would fail.
func (c *Core) atomic(e entry) bool {
	addr, src := c.x[e.rs1()], c.x[e.rs2()]
	misaligned, access := uint32(causeStoreMisaligned), uint32(causeStoreAccess)
	if e.op() == opLR {
		misaligned, access = causeLoadMisaligned, causeLoadAccess
	}
	if addr&3 != 0 {
		c.exception(misaligned, addr)
		return false
	}
	r := c.find(addr)
	if r == nil || r.ReadOnly && e.op() != opLR {
		c.exception(access, addr)
		return false
	}
	mem := r.Mem[addr-r.Base:]
	old := le.Uint32(mem)
	var v uint32
	switch e.op() {
	case opLR:
		c.reserved, c.resAddr = true, addr
		c.x[e.rd()] = old
		c.watched(addr, 4, WatchRead)
		return true
	case opSC:
		held := c.reserved && c.resAddr == addr
		c.reserved = false
		if held {
			le.PutUint32(mem, src)
			c.watched(addr, 4, WatchWrite)
		}
		c.x[e.rd()] = b2u(!held)
		return true
	case opAMOSWAP:
		v = src
	case opAMOADD:
		v = old + src
	case opAMOXOR:
		v = old ^ src
	case opAMOAND:
		v = old & src
	case opAMOOR:
		v = old | src
	case opAMOMIN:
		v = uint32(min(int32(old), int32(src)))
	case opAMOMAX:
		v = uint32(max(int32(old), int32(src)))
	case opAMOMINU:
		v = min(old, src)
	case opAMOMAXU:
		v = max(old, src)
	}
	le.PutUint32(mem, v)
	c.watched(addr, 4, WatchAccess)
	c.x[e.rd()] = old
	return true
}
