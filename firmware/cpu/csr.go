// SPDX-License-Identifier: Apache-2.0

package cpu

// CSR is the number of a control and status register.
type CSR uint16

// The CSRs of this hart, by their names in the privileged specification,
// "CSR Listing". Mhpmcounter3 to 31, their high halves and Mhpmevent3 to 31 read
// 0 and ignore writes; so does Mstatush.
const (
	Mstatus        CSR = 0x300
	Misa           CSR = 0x301
	Mie            CSR = 0x304
	Mtvec          CSR = 0x305
	Mstatush       CSR = 0x310
	Mhpmevent3     CSR = 0x323
	Mhpmevent31    CSR = 0x33f
	Mscratch       CSR = 0x340
	Mepc           CSR = 0x341
	Mcause         CSR = 0x342
	Mtval          CSR = 0x343
	Mip            CSR = 0x344
	Mcycle         CSR = 0xb00
	Minstret       CSR = 0xb02
	Mhpmcounter3   CSR = 0xb03
	Mhpmcounter31  CSR = 0xb1f
	Mcycleh        CSR = 0xb80
	Minstreth      CSR = 0xb82
	Mhpmcounter3h  CSR = 0xb83
	Mhpmcounter31h CSR = 0xb9f
	Mvendorid      CSR = 0xf11
	Marchid        CSR = 0xf12
	Mimpid         CSR = 0xf13
	Mhartid        CSR = 0xf14
	Mconfigptr     CSR = 0xf15
)

const (
	mstatusMIE  = 1 << 3
	mstatusMPIE = 1 << 7
	mstatusMPP  = 3 << 11 // M, the only mode

	misaRV32IMAC = 1<<30 | 1<<('I'-'A') | 1<<('M'-'A') | 1<<('A'-'A') | 1<<('C'-'A')

	mieLines = 1<<MSI | 1<<MTI | 1<<MEI

	mcauseInterrupt = 1 << 31
	mtvecVectored   = 1
)

// Exception codes in mcause, "Machine Cause Register".
const (
	causeFetchAccess     = 1
	causeIllegal         = 2
	causeBreakpoint      = 3
	causeLoadMisaligned  = 4
	causeLoadAccess      = 5
	causeStoreMisaligned = 6 // also AMO and SC
	causeStoreAccess     = 7 // also AMO and SC
	causeECallM          = 11
)

// csrs is the state behind the CSRs.
type csrs struct {
	mstatus uint32 // MIE, MPIE
	mie     uint32
	mip     uint32 // the board's lines, never written by instructions
	mtvec   uint32

	mscratch, mepc, mcause, mtval uint32

	// What to add to Core.steps, modulo 2⁶⁴. An exception is a step but no
	// retired instruction, so it takes one from instretBase.
	cycleBase, instretBase uint64
}

// readCSR returns the value before the instruction at pc has any effect, or
// false if the hart has no such CSR.
func (c *Core) readCSR(n CSR) (uint32, bool) {
	s := &c.csr
	switch n {
	case Mstatus:
		return s.mstatus | mstatusMPP, true
	case Misa:
		return misaRV32IMAC, true
	case Mie:
		return s.mie, true
	case Mip:
		return s.mip, true
	case Mtvec:
		return s.mtvec, true
	case Mscratch:
		return s.mscratch, true
	case Mepc:
		return s.mepc, true
	case Mcause:
		return s.mcause, true
	case Mtval:
		return s.mtval, true
	case Mcycle:
		return uint32(c.steps + s.cycleBase), true
	case Mcycleh:
		return uint32((c.steps + s.cycleBase) >> 32), true
	case Minstret:
		return uint32(c.steps + s.instretBase), true
	case Minstreth:
		return uint32((c.steps + s.instretBase) >> 32), true
	case Mhartid:
		return c.hartID, true
	case Mstatush, Mvendorid, Marchid, Mimpid, Mconfigptr:
		return 0, true
	}
	ok := n >= Mhpmevent3 && n <= Mhpmevent31 || n >= Mhpmcounter3 && n <= Mhpmcounter31 ||
		n >= Mhpmcounter3h && n <= Mhpmcounter31h
	return 0, ok
}

// writeCSR writes a CSR that readCSR knows, or returns false if its number
// declares it read-only.
func (c *Core) writeCSR(n CSR, v uint32) bool {
	s := &c.csr
	switch n {
	case Mstatus:
		s.mstatus = v & (mstatusMIE | mstatusMPIE)
	case Mie:
		s.mie = v & mieLines
	case Mtvec:
		s.mtvec = v &^ 2
	case Mscratch:
		s.mscratch = v
	case Mepc:
		s.mepc = v &^ 1
	case Mcause:
		s.mcause = v
	case Mtval:
		s.mtval = v
	case Mcycle, Mcycleh:
		s.cycleBase = c.counterBase(s.cycleBase, v, n == Mcycleh)
	case Minstret, Minstreth:
		s.instretBase = c.counterBase(s.instretBase, v, n == Minstreth)
	}
	return n>>10 != 3
}

// counterBase returns the base that makes half of a counter read v at the next
// instruction: a write replaces the writing instruction's own increment
// ("Zicsr", "CSR Access Ordering").
func (c *Core) counterBase(base uint64, v uint32, high bool) uint64 {
	count := c.steps + base
	if high {
		count = uint64(v)<<32 | count&0xffff_ffff
	} else {
		count = count>>32<<32 | uint64(v)
	}
	return count - (c.steps + 1)
}

// accessCSR executes a Zicsr instruction, up to retiring it. False means that it
// is illegal and did nothing.
func (c *Core) accessCSR(e entry) bool {
	n := CSR(uint32(e.imm()) >> 20)
	old, ok := c.readCSR(n)
	if !ok {
		return false
	}
	v := uint32(e.rs1())
	if e.op() < opCSRRWI {
		v = c.x[e.rs1()]
	}
	write := e.rs1() != 0 // x0 or 0: CSRRS and CSRRC only read
	switch e.op() {
	case opCSRRW, opCSRRWI:
		write = true
	case opCSRRS, opCSRRSI:
		v |= old
	case opCSRRC, opCSRRCI:
		v = old &^ v
	}
	if write && !c.writeCSR(n, v) {
		return false
	}
	c.x[e.rd()] = old
	return true
}

// exception takes the exception that the instruction at pc raised. It is a step.
func (c *Core) exception(cause, tval uint32) {
	c.steps++
	c.csr.instretBase--
	c.trapped = true
	from := c.pc
	c.trap(cause, tval)
	if c.pc == from {
		c.stop = Lockup
	}
}

// interrupt takes the pending and enabled interrupt of the highest priority
// ("Machine Interrupt Registers": external, software, timer).
func (c *Core) interrupt() {
	pending := c.csr.mip & c.csr.mie
	for _, line := range [...]Interrupt{MEI, MSI, MTI} {
		if pending>>line&1 != 0 {
			from := c.pc
			c.trap(mcauseInterrupt|uint32(line), 0)
			if c.trace != nil {
				c.trace(TraceEvent{Step: c.steps, PC: from, Trap: true, Cause: c.csr.mcause})
			}
			return
		}
	}
}

// trap enters the handler. pc must be where MRET is to return to.
func (c *Core) trap(cause, tval uint32) {
	s := &c.csr
	s.mepc, s.mcause, s.mtval = c.pc, cause, tval
	mpie := s.mstatus & mstatusMIE << 4
	s.mstatus = mpie
	c.pc = s.mtvec &^ 3
	if cause&mcauseInterrupt != 0 && s.mtvec&mtvecVectored != 0 {
		c.pc += 4 * (cause &^ mcauseInterrupt)
	}
}

// mret returns from a trap, up to retiring the instruction.
func (c *Core) mret() {
	c.csr.mstatus = c.csr.mstatus&mstatusMPIE>>4 | mstatusMPIE
}
