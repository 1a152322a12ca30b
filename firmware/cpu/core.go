// SPDX-License-Identifier: Apache-2.0

package cpu

import "fmt"

// Bus is the memory-mapped blocks: every address that no Region holds.
// Addresses are aligned to size, which is 1, 2 or 4 bytes; v is in the low size
// bytes. False raises an access fault in the firmware.
type Bus interface {
	Load(addr uint32, size int) (v uint32, ok bool)
	Store(addr uint32, size int, v uint32) (ok bool)
}

// Region is memory that the core accesses without asking the Bus. Base and
// len(Mem) are multiples of 4. The core keeps Mem; the board may write it
// between Run calls and then calls Invalidate.
type Region struct {
	Base     uint32
	Mem      []byte
	ReadOnly bool // stores and atomics are access faults
	Exec     bool // instructions can be fetched; costs 4 to 6 bytes of host memory per byte
}

// Config is what New needs. Regions must not overlap. A nil Bus makes every
// address outside the Regions an access fault.
type Config struct {
	Regions []Region
	Bus     Bus
	ResetPC uint32 // a multiple of 2
	HartID  uint32 // mhartid
}

// State says why Run returned.
type State int

const (
	// Running: the budget is used up, or Yield was called.
	Running State = iota
	// Waiting: WFI retired and no enabled interrupt is pending. Run returns at
	// once, with no step done, until SetInterrupt changes that.
	Waiting
	// Lockup: the trap handler's first instruction raised an exception, so mepc
	// and mcause of the first trap are lost. The hart can be run on; whether to
	// is the board's decision.
	Lockup
	// AtBreakpoint: pc is at a breakpoint, whose instruction was not executed.
	AtBreakpoint
	// AtWatchpoint: the last instruction made an access that is watched; see Watched.
	AtWatchpoint
)

// Interrupt is one of the hart's interrupt lines; its value is the bit in mip
// and mie, and the cause.
type Interrupt uint32

const (
	MSI Interrupt = 3  // machine software interrupt
	MTI Interrupt = 7  // machine timer interrupt
	MEI Interrupt = 11 // machine external interrupt
)

// sink takes the writes to x0. It is past the registers an instruction can
// name, so x0 always reads 0.
const sink = 32

// region is a Region with its decoded instructions.
type region struct {
	Region
	code    []entry  // one per halfword of Mem, as a jump can go to any; nil without Exec
	decoded []uint32 // indices of the filled entries, so that emptying costs no more than filling did
}

// window is the memory that the last load or store of its kind hit.
type window struct {
	base uint32
	mem  []byte
}

// Core is one hart. The zero value is not usable; see New.
type Core struct {
	x     [64]uint32 // x0 to x31, sink; 64 so that a masked index needs no bounds check
	pc    uint32
	steps uint64

	regions []region
	code    *region // where pc was last; never nil
	loads   window
	stores  window

	csr      csrs
	waiting  bool
	reserved bool // LR.W's reservation
	resAddr  uint32

	yield bool  // the Run in progress must return
	stop  State // and so it must if this is not Running
	debug debug

	trace   func(TraceEvent)
	trapped bool // the instruction in progress raised an exception; for trace

	bus     Bus
	resetPC uint32
	hartID  uint32
}

// New returns a hart in its reset state. It fails if a Region is misaligned,
// leaves the 32-bit address space or overlaps another, or if ResetPC is odd.
func New(cfg Config) (*Core, error) {
	if cfg.ResetPC&1 != 0 {
		return nil, fmt.Errorf("cpu: reset pc %#x is odd; instructions are aligned to 2 bytes", cfg.ResetPC)
	}
	c := &Core{bus: cfg.Bus, resetPC: cfg.ResetPC, hartID: cfg.HartID, code: &region{}}
	for i, r := range cfg.Regions {
		n := uint64(len(r.Mem))
		if r.Base&3 != 0 || n&3 != 0 || n >= 1<<32 || uint64(r.Base)+n > 1<<32 {
			return nil, fmt.Errorf("cpu: region %d: base %#x, %d bytes: use multiples of 4 and end within 4 GiB", i, r.Base, n)
		}
		for j, o := range cfg.Regions[:i] {
			if uint64(r.Base) < uint64(o.Base)+uint64(len(o.Mem)) && uint64(o.Base) < uint64(r.Base)+n {
				return nil, fmt.Errorf("cpu: region %d at %#x overlaps region %d at %#x; each address has one owner", i, r.Base, j, o.Base)
			}
		}
		reg := region{Region: r}
		if r.Exec {
			reg.code = make([]entry, n/2)
		}
		c.regions = append(c.regions, reg)
	}
	c.Reset()
	return c, nil
}

// Reset puts the hart into its reset state: pc at ResetPC, registers and CSRs
// zero, interrupts disabled. Memory, the interrupt lines and Steps keep their
// values, as they are not the hart's.
func (c *Core) Reset() {
	c.Invalidate()
	c.x = [64]uint32{}
	c.pc = c.resetPC
	c.csr = csrs{mip: c.csr.mip, cycleBase: -c.steps, instretBase: -c.steps}
	c.waiting = false
}

// Run executes up to budget instructions and returns the steps done: retired
// instructions plus exceptions. It returns before the budget is used when the
// hart waits, locks up or stops for a debugger, or when a Bus call called Yield. An interrupt is taken
// before the first instruction after it became pending and enabled, and is not a
// step.
func (c *Core) Run(budget int) (steps int, state State) {
	c.yield, c.stop = false, Running
	for steps < budget && !c.yield {
		if c.csr.mip&c.csr.mie != 0 {
			c.waiting = false
			if c.csr.mstatus&mstatusMIE != 0 && !c.debug.step {
				c.interrupt()
			}
		}
		if c.waiting {
			return steps, Waiting
		}
		start := c.steps
		if c.trace != nil {
			c.traced()
		} else if c.run(budget - steps) {
			c.step()
		}
		steps += int(c.steps - start)
		if c.stop != Running {
			return steps, c.stop
		}
	}
	return steps, Running
}

// Yield makes the Run in progress return after the current instruction. It is
// for a Bus call that moves the board's next event, such as a timer compare,
// closer than the end of the budget.
func (c *Core) Yield() { c.yield = true }

// SetInterrupt drives an interrupt line. The line is a level: mip shows it until
// the board lowers it.
func (c *Core) SetInterrupt(line Interrupt, level bool) {
	c.csr.mip &^= 1 << line
	if level {
		c.csr.mip |= 1 << line
	}
}

// Invalidate forgets decoded instructions and LR's reservation. The board calls
// it after it wrote a Region's memory.
func (c *Core) Invalidate() {
	c.fenceI()
	c.reserved = false
}

// Steps returns the steps since New: model time. It never goes back. During a
// Bus call it is the number of steps before the instruction that made the call.
func (c *Core) Steps() uint64 { return c.steps }

// Reg returns register x0 to x31; i is taken modulo 32.
func (c *Core) Reg(i int) uint32 { return c.x[i&31] }

// SetReg writes register x1 to x31; i is taken modulo 32. x0 stays 0.
func (c *Core) SetReg(i int, v uint32) {
	if i&31 != 0 {
		c.x[i&31] = v
	}
}

// PC returns the address of the next instruction; during a Bus call, of the
// instruction that made the call.
func (c *Core) PC() uint32 { return c.pc }

// SetPC moves the hart to pc, ending a wait. Bit 0 is ignored.
func (c *Core) SetPC(pc uint32) {
	c.pc = pc &^ 1
	c.waiting = false
}

// CSR returns a CSR's value, or false where reading it would be an illegal
// instruction.
func (c *Core) CSR(n CSR) (uint32, bool) { return c.readCSR(n) }

// find returns the Region that holds addr, or nil.
func (c *Core) find(addr uint32) *region {
	for i := range c.regions {
		if r := &c.regions[i]; addr-r.Base < uint32(len(r.Mem)) {
			return r
		}
	}
	return nil
}

func (c *Core) fenceI() {
	for i := range c.regions {
		r := &c.regions[i]
		for _, j := range r.decoded {
			r.code[j] = 0
		}
		r.decoded = r.decoded[:0]
	}
}
