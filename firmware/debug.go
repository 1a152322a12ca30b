// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"encoding/binary"
	"fmt"
	"time"

	"npuemu/firmware/cpu"
	"npuemu/mmio/npureg"
)

// StopReason is why the processor stopped for a debugger.
type StopReason int

const (
	StopStep       StopReason = iota // the step that was asked for is done
	StopBreakpoint                   // pc is at a breakpoint
	StopWatchpoint                   // the instruction before pc made a watched access
	StopFailed                       // the state is FAILED (§3.2): the hart is halted until START or a reset
)

// Stop is an event for the debugger: the processor stopped by itself.
type Stop struct {
	Reason StopReason
	cpu.Watched
}

// debug is what a debugger does to the processor. The board's lock guards it.
type debug struct {
	attached bool
	stopped  bool
	stepping bool      // one instruction, then stopped again
	events   chan Stop // holds the one of the present stop

	frozen bool          // the model's time stands still
	since  time.Duration // when that began, of the host's clock
	lost   time.Duration // how long it stood still before that
}

// now is the model's time at now of the host's clock.
func (d *debug) now(now time.Duration) time.Duration {
	if d.frozen {
		now = d.since
	}
	return now - d.lost
}

func (d *debug) freeze(now time.Duration) {
	if !d.frozen {
		d.frozen, d.since = true, now
	}
}

func (d *debug) thaw(now time.Duration) {
	if d.frozen {
		d.frozen = false
		d.lost += now - d.since
	}
}

func (d *debug) stop(now time.Duration) {
	d.stopped, d.stepping = true, false
	d.freeze(now)
}

func (d *debug) resume(now time.Duration) {
	d.stopped = false
	d.thaw(now)
	select {
	case <-d.events: // of a stop that the debugger does not wait for any more
	default:
	}
}

// Debugger is an external debugger's road to the processor. Its methods take Config.Lock. While the processor is
// stopped the model's time stands still for it: CP_TIME, timer, boot timeout and watchdog. Everything else of the device goes
// on: registers of the host, user queues, a mover copy that was started.
//
// Memory is that of §3.6. Reading has no effect; a register that hardware computes when firmware reads it shows
// what it would return, and a latch what it holds. Writing to SRAM and to CP registers does what the hart's store does.
type Debugger struct{ p *Processor }

// Debugger returns the processor's. There is one debugger at a time: Attach says whether it is this one.
func (p *Processor) Debugger() *Debugger { return &Debugger{p} }

func (d *Debugger) lock() func() {
	d.p.cfg.Lock.Lock()
	return d.p.cfg.Lock.Unlock
}

// Attach stops the processor, unless another debugger is attached.
func (d *Debugger) Attach() error {
	defer d.lock()()
	p := d.p
	if p.debug.attached {
		return fmt.Errorf("firmware: debug: another debugger is attached; one at a time")
	}
	p.debug.attached = true
	p.debug.stop(p.clock())
	return nil
}

// Detach removes breakpoints and watchpoints and lets the processor go on.
func (d *Debugger) Detach() {
	defer d.lock()()
	d.p.core.ClearDebug()
	d.p.debug.attached = false
	d.p.debug.resume(d.p.clock())
	d.p.notify()
}

// Events tells of stops. A stop that Stop made is not among them.
func (d *Debugger) Events() <-chan Stop { return d.p.debug.events }

// Stop stops the processor before its next instruction.
func (d *Debugger) Stop() {
	defer d.lock()()
	d.p.debug.stop(d.p.clock())
	select {
	case <-d.p.debug.events:
	default:
	}
}

// Continue lets the processor run until the next event or Stop.
func (d *Debugger) Continue() { d.run(false) }

// Step lets the processor execute one instruction, without interrupts; the event says that it did, which takes as
// long as a mover copy that is in flight.
func (d *Debugger) Step() { d.run(true) }

func (d *Debugger) run(step bool) {
	defer d.lock()()
	d.p.debug.resume(d.p.clock())
	d.p.debug.stepping = step
	d.p.notify()
}

// event stops the processor and tells the debugger.
func (p *Processor) event(reason StopReason) {
	if !p.debug.attached || p.debug.stopped {
		return
	}
	p.debug.stop(p.clock())
	p.debug.events <- Stop{reason, p.core.Watched()} // resume has emptied it
}

// execute runs the hart for a slice, or for a debugger's step.
func (p *Processor) execute() (state cpu.State) {
	if p.trace.w != nil { // what tracing costs is not the hart's time
		p.debug.freeze(p.clock())
		p.debug.since = min(p.debug.since+tracedTime, p.clock())
		defer func() {
			p.trace.flush(p)
			if state == cpu.Waiting && !p.debug.stopped {
				p.debug.thaw(p.clock())
			}
		}()
	}
	if p.debug.stepping {
		state = p.core.Step()
	} else {
		_, state = p.core.Run(p.trace.slice())
	}
	switch state {
	case cpu.AtBreakpoint:
		p.event(StopBreakpoint)
	case cpu.AtWatchpoint:
		p.event(StopWatchpoint)
	}
	return state
}

// runROM runs the ROM from reset to WAITING, through breakpoints: the host that resets must find WAITING.
func (p *Processor) runROM() {
	for left := romBudget; left > 0; left-- {
		n, state := p.core.Run(left)
		left -= n
		switch state {
		case cpu.AtBreakpoint:
			p.core.Step()
		case cpu.AtWatchpoint:
		default:
			return
		}
	}
}

// Reg returns x0 to x31, or pc for 32.
func (d *Debugger) Reg(i int) uint32 {
	defer d.lock()()
	if i == 32 {
		return d.p.core.PC()
	}
	return d.p.core.Reg(i)
}

// SetReg writes x0 to x31, or pc for 32.
func (d *Debugger) SetReg(i int, v uint32) {
	defer d.lock()()
	if i == 32 {
		d.p.core.SetPC(v)
	} else {
		d.p.core.SetReg(i, v)
	}
}

// CSR returns a CSR, or false if the hart does not have it.
func (d *Debugger) CSR(n uint16) (uint32, bool) {
	defer d.lock()()
	return d.p.core.CSR(cpu.CSR(n))
}

// SetCSR writes a CSR, or returns false if the hart does not have it or its number is that of a read-only one.
func (d *Debugger) SetCSR(n uint16, v uint32) bool {
	defer d.lock()()
	return d.p.core.SetCSR(cpu.CSR(n), v)
}

// SetBreakpoint is cpu.Core's.
func (d *Debugger) SetBreakpoint(addr uint32, on bool) {
	defer d.lock()()
	d.p.core.SetBreakpoint(addr, on)
}

// SetWatchpoint is cpu.Core's.
func (d *Debugger) SetWatchpoint(addr, size uint32, kind cpu.Watch, on bool) {
	defer d.lock()()
	d.p.core.SetWatchpoint(addr, size, kind, on)
}

// Read fills b with memory from addr on, and returns how many bytes there were before the first that is no memory.
func (d *Debugger) Read(addr uint32, b []byte) int {
	defer d.lock()()
	for n := range b {
		v, ok := d.p.peek(addr + uint32(n))
		if !ok || addr+uint32(n) < addr {
			return n
		}
		b[n] = v
	}
	return len(b)
}

// peek returns a byte of the address map (§3.6).
func (p *Processor) peek(addr uint32) (byte, bool) {
	shift := addr & 3 * 8
	switch {
	case addr-npureg.CPROMBase < npureg.CPROMSize:
		return p.rom[addr-npureg.CPROMBase], true
	case addr-npureg.CPSRAMBase < npureg.CPSRAMSize:
		return p.sram[addr-npureg.CPSRAMBase], true
	case addr-npureg.CPRegBase < npureg.CPRegSize:
		off := (addr - npureg.CPRegBase) &^ 3
		if read := p.pure[off]; read != nil {
			return byte(read() >> shift), true
		}
		if v, ok := p.bank.Peek(off); ok {
			return byte(v >> shift), true
		}
		return 0xff, true
	case addr-npureg.CPHostBase < npureg.HostBankSize:
		return byte(p.cfg.Host.Register((addr-npureg.CPHostBase)&^3) >> shift), true
	}
	return 0, false
}

// Write writes b to addr: into SRAM, or, if it is one aligned word, to a CP register.
func (d *Debugger) Write(addr uint32, b []byte) error {
	defer d.lock()()
	p, n := d.p, uint64(len(b))
	switch off := addr - npureg.CPSRAMBase; {
	case uint64(off)+n <= npureg.CPSRAMSize:
		copy(p.sram[off:], b)
		p.core.Invalidate()
	case addr-npureg.CPRegBase < npureg.CPRegSize && addr&3 == 0 && n == 4:
		bus{p}.Store(addr, 4, binary.LittleEndian.Uint32(b))
		p.notify() // Run does a copy that this has started
	default:
		return fmt.Errorf("firmware: debug: %d bytes at %#x cannot be written: use SRAM, or an aligned word of the CP registers (§3.6)", n, addr)
	}
	return nil
}
