// SPDX-License-Identifier: Apache-2.0

package cpu

// TraceEvent is a step, or an interrupt that was taken.
type TraceEvent struct {
	Step uint64 // Steps before it
	PC   uint32

	// The instruction's bits as they are in memory; 0 if there is none: for an interrupt, and where it cannot be fetched.
	Bits uint32
	Size uint32 // bytes of it: 0, 2 or 4

	Rd    int // the register it wrote, or 0
	Value uint32

	Access bool // it is a load, store or atomic, at Addr
	Addr   uint32

	Trap        bool // it ended in a trap, or is an interrupt; PC is what mepc has then
	Cause, Tval uint32
}

// SetTrace makes the hart call fn after each step, and before the first one of an interrupt's handler; nil ends it. fn may do what
// a Bus call may. A traced hart is some 100 times slower; without trace it costs nothing.
func (c *Core) SetTrace(fn func(TraceEvent)) { c.trace = fn }

// traced is run and step for one step, or for less, as they are.
func (c *Core) traced() {
	e := TraceEvent{Step: c.steps, PC: c.pc}
	var in entry
	if i := (c.pc - c.code.Base) >> 1; i < uint32(len(c.code.code)) {
		if in = c.code.code[i]; in.op() != opNone && in.op() != opBreak {
			e.Size = in.size()
			low := c.code.Mem[c.pc-c.code.Base:]
			e.Bits = uint32(le.Uint16(low))
			if high := c.find(c.pc + 2); e.Size == 4 && high != nil {
				e.Bits |= uint32(le.Uint16(high.Mem[c.pc+2-high.Base:])) << 16
			}
		}
	}
	switch op := in.op(); {
	case op >= opLB && op <= opSW:
		e.Access, e.Addr = true, c.x[in.rs1()]+uint32(in.imm())
	case op >= opLR && op <= opAMOMAXU:
		e.Access, e.Addr = true, c.x[in.rs1()]
	}
	c.trapped = false
	if c.run(1) {
		c.step()
	}
	if c.steps == e.Step { // it was only decoded, or is at a breakpoint
		return
	}
	if e.Trap = c.trapped; e.Trap {
		e.Cause, e.Tval, e.Access = c.csr.mcause, c.csr.mtval, false
	} else if in.writesRd() {
		e.Rd = int(in.rd())
		e.Value = c.x[e.Rd]
	}
	c.trace(e)
}

// writesRd reports whether the instruction has a destination, other than x0.
func (e entry) writesRd() bool {
	switch op := e.op(); {
	case op >= opBEQ && op <= opBGEU, op >= opSB && op <= opFENCEI, op >= opECALL, op == opNone:
		return false
	}
	return e.rd() != sink
}
