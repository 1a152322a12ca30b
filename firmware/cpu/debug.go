// SPDX-License-Identifier: Apache-2.0

package cpu

// Watch is the kinds of access that a watchpoint stops at.
type Watch uint8

const (
	WatchWrite  Watch = 1
	WatchRead   Watch = 2
	WatchAccess       = WatchRead | WatchWrite
)

// watchpoint is addresses first to last, inclusive so that the last one of all fits.
type watchpoint struct {
	first, last uint32
	kind        Watch
}

// debug is what an external debugger asked for. Breakpoints cost nothing where none is: they are entries
// of the decode cache. Watchpoints keep run from its memory windows, so that every access is slow.
type debug struct {
	breaks  map[uint32]bool
	watches []watchpoint
	hit     Watched
	step    bool // no interrupt is taken
}

// Watched is an access that a watchpoint stopped after.
type Watched struct {
	Addr uint32 // the access's lowest byte that is watched
	Kind Watch  // the watchpoint's
}

// SetBreakpoint makes Run return AtBreakpoint before it executes an instruction at addr, or no longer.
// Bit 0 of addr is ignored. Memory is not changed by it, and Reset keeps it.
func (c *Core) SetBreakpoint(addr uint32, on bool) {
	addr &^= 1
	if on {
		if c.debug.breaks == nil {
			c.debug.breaks = map[uint32]bool{}
		}
		c.debug.breaks[addr] = true
	} else {
		delete(c.debug.breaks, addr)
	}
	r := c.find(addr)
	if r == nil || !r.Exec || r.code[(addr-r.Base)/2] == 0 {
		return // decode looks at breaks
	}
	e := instruction{op: opBreak}.pack()
	if !on {
		e, _ = c.fetch(r, addr) // it could be fetched when the entry was made
	}
	r.code[(addr-r.Base)/2] = e
}

// SetWatchpoint makes Run return AtWatchpoint after an instruction that accessed one of the size bytes at addr
// in a way of kind, or no longer. The hart's own loads, stores and atomics count, also on the Bus; fetches do not. While
// there is a watchpoint, loads and stores take several times as long. Reset keeps it.
func (c *Core) SetWatchpoint(addr, size uint32, kind Watch, on bool) {
	w := watchpoint{addr, addr + size - 1, kind}
	for i, o := range c.debug.watches {
		if o == w {
			c.debug.watches = append(c.debug.watches[:i], c.debug.watches[i+1:]...)
			break
		}
	}
	if on {
		c.debug.watches = append(c.debug.watches, w)
	}
	c.loads, c.stores = window{}, window{}
}

// ClearDebug removes all breakpoints and watchpoints.
func (c *Core) ClearDebug() {
	for addr := range c.debug.breaks {
		c.SetBreakpoint(addr, false)
	}
	c.debug.watches = nil
}

// Watched returns the access that made Run or Step return AtWatchpoint.
func (c *Core) Watched() Watched { return c.debug.hit }

// watched notes an access that was made, for the end of the instruction.
func (c *Core) watched(addr, size uint32, kind Watch) {
	for _, w := range c.debug.watches {
		if w.kind&kind != 0 && addr <= w.last && addr+size-1 >= w.first {
			c.debug.hit, c.stop = Watched{max(addr, w.first), w.kind}, AtWatchpoint
			return
		}
	}
}

// Step executes the instruction at pc, as an external debugger's single step does: a breakpoint there is ignored,
// WFI and a wait that is in progress end at once, and no interrupt is taken ("Debug Support", dcsr.stepie = 0). An exception
// enters the handler and is a step.
func (c *Core) Step() State {
	if c.debug.breaks[c.pc] {
		pc := c.pc
		c.SetBreakpoint(pc, false)
		defer c.SetBreakpoint(pc, true)
	}
	c.waiting, c.debug.step = false, true
	_, state := c.Run(1)
	c.waiting, c.debug.step = false, false
	if state == Waiting {
		state = Running
	}
	return state
}

// SetCSR gives a CSR a value, as an instruction that writes it would; a counter has it at once. False means
// that the hart has no such CSR, or that its number declares it read-only.
func (c *Core) SetCSR(n CSR, v uint32) bool {
	if _, ok := c.readCSR(n); !ok || !c.writeCSR(n, v) {
		return false
	}
	switch n {
	case Mcycle, Mcycleh:
		c.csr.cycleBase++ // the instruction that counterBase allows for is not there
	case Minstret, Minstreth:
		c.csr.instretBase++
	}
	return true
}
