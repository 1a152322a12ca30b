// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"

	"npuemu/firmware/cpu"
	"npuemu/mmio/npureg"
)

// rasHooks attaches behaviour to the registers of §12. Without a RAS they do nothing.
func (p *Processor) rasHooks() {
	r := p.cfg.RAS
	if r == nil {
		return
	}
	b := p.bank
	p.onRead(npureg.CPErrorNext, r.ErrorNext)
	b.OnWrite(npureg.CPErrorSelect, func(uint32) { p.errorWord = 0 })
	p.onReadThen(npureg.CPErrorData, func() uint32 { return r.ErrorWord(b.Value(npureg.CPErrorSelect), p.errorWord) }, func() { p.errorWord++ })
	p.latched(npureg.CPSensorLo, npureg.CPSensorHi, func() uint64 { return r.Sensor(int(b.Value(npureg.CPSensorIndex))) })
	for _, off := range []uint32{npureg.CPThermal1, npureg.CPThermal2, npureg.CPThermalCritical} {
		b.OnWrite(off, func(uint32) { p.thresholds() })
	}
	b.OnWrite(npureg.CPEngineReset, func(v uint32) {
		if v &= npureg.EngineAll; v != 0 {
			r.ResetEngines(v)
		}
	})
	p.onRead(npureg.CPEngineReset, func() uint32 {
		resetting, _ := r.EngineState()
		return resetting
	})
	p.onRead(npureg.CPEngineEnded, func() uint32 {
		_, ended := r.EngineState()
		return ended
	})
	p.onReadThen(npureg.CPCrashData, func() uint32 { return p.CrashWord(b.Value(npureg.CPCrashSelect)) },
		func() { b.Set(npureg.CPCrashSelect, b.Value(npureg.CPCrashSelect)+4) })
}

// rasReset is what a reset of the hart does besides the registers.
func (p *Processor) rasReset() {
	p.errorWord = 0
	if p.cfg.RAS != nil {
		p.thresholds()
	}
}

func (p *Processor) thresholds() {
	p.cfg.RAS.Thresholds([npureg.ThrottleCritical]int32{
		int32(p.bank.Value(npureg.CPThermal1)), int32(p.bank.Value(npureg.CPThermal2)), int32(p.bank.Value(npureg.CPThermalCritical)),
	})
}

// crash is the dump of the last crash (§12.8). It survives every reset.
type crash struct {
	number uint16
	dump   []byte
}

// CrashDump returns the number of the last crash dump, and its size, which is 0 if there is none or it was freed.
func (p *Processor) CrashDump() (number uint16, size int) { return p.crash.number, len(p.crash.dump) }

// CrashWord returns four bytes of the dump at an offset that is a multiple of 4, 0 beyond its end.
func (p *Processor) CrashWord(off uint32) uint32 {
	if uint64(off)+4 > uint64(len(p.crash.dump)) {
		return 0
	}
	return binary.LittleEndian.Uint32(p.crash.dump[off:])
}

// FreeCrashDump forgets the dump.
func (p *Processor) FreeCrashDump() { p.crash.dump = nil }

// crashCSRs are the registers of the dump behind the program counter, in its order.
var crashCSRs = []cpu.CSR{cpu.Mstatus, cpu.Mie, cpu.Mip, cpu.Mtvec, cpu.Mscratch, cpu.Mepc, cpu.Mcause, cpu.Mtval}

const (
	maxCrashLog = npureg.FWLogEntrySize * npureg.FWLogEntries
	crashStack  = npureg.CrashQueues - npureg.CrashStack // bytes of it
)

// dump keeps what there is to know of a processor that just halted with one of the errors of §12.8.
func (p *Processor) dump(code uint32) {
	if p.cfg.RAS == nil || code != npureg.BootErrTimeout && code != npureg.BootErrTrap && code != npureg.BootErrWatchdog {
		return
	}
	le := binary.LittleEndian
	host := p.cfg.Host.Register
	queues := int(host(npureg.QueueParam) & 0xffff)
	log := p.memory(p.bank.Value(npureg.CPLogBase), min(p.bank.Value(npureg.CPLogSize), maxCrashLog))
	logAt := npureg.CrashQueues + queues*npureg.CrashQueue
	d := make([]byte, logAt+len(log))
	p.crash.number = max(1, p.crash.number+1)
	now := p.micros(p.cfg.Now())
	for i, v := range []uint32{
		npureg.CrashMagic, npureg.CrashVersion, uint32(len(d)), uint32(p.crash.number),
		host(npureg.BootStatus), host(npureg.FWErrorDetail), host(npureg.FWVersion), host(npureg.FWBuild),
		uint32(now), uint32(now >> 32), host(npureg.ArchVersion), uint32(queues), uint32(logAt), uint32(len(log)),
	} {
		le.PutUint32(d[4*i:], v)
	}
	le.PutUint32(d[npureg.CrashCSRs:], p.core.PC())
	for i, n := range crashCSRs {
		v, _ := p.core.CSR(n)
		le.PutUint32(d[npureg.CrashCSRs+4+4*i:], v)
	}
	regs := d[npureg.CrashRegs:npureg.CrashStack]
	for i := range 32 {
		le.PutUint32(regs[4*i:], p.core.Reg(i))
	}
	if frame := p.memory(p.bank.Value(npureg.CPTrapFrame), 128); code == npureg.BootErrTrap && len(frame) == 128 {
		copy(regs[4:], frame[4:])
	}
	copy(d[npureg.CrashStack:npureg.CrashQueues], p.memory(le.Uint32(regs[4*2:]), crashStack))
	for q := range queues {
		for i, w := range p.cfg.RAS.Queue(q + 1) {
			le.PutUint32(d[npureg.CrashQueues+q*npureg.CrashQueue+4*i:], w)
		}
	}
	copy(d[logAt:], log)
	p.crash.dump = d
	p.cfg.RAS.Crashed(code, host(npureg.FWErrorDetail))
}

// memory returns up to n bytes of SRAM at addr, none if it is not in SRAM or 0.
func (p *Processor) memory(addr, n uint32) []byte {
	off := addr - npureg.CPSRAMBase
	if off >= npureg.CPSRAMSize {
		return nil
	}
	return p.sram[off:min(off+n, npureg.CPSRAMSize)]
}

// errNotReady is why an operator cannot crash firmware.
var errNotReady = errors.New("firmware is not READY: there is nothing to crash")

// trapPC is where CrashHart makes the hart jump: no memory is there.
const trapPC = 0xdead_0000

// CrashHart makes firmware jump to an address without memory, an exception that it does not handle (§3.8).
func (p *Processor) CrashHart() error {
	if p.state != npureg.BootReady {
		return fmt.Errorf("firmware: %w (BOOT_STATUS.STATE is %d)", errNotReady, p.state)
	}
	p.log(slog.LevelInfo, "the operator crashes the firmware")
	p.core.SetPC(trapPC)
	p.notify()
	return nil
}

// HangHart stops the hart's clock until its next reset: the watchdog fires (§3.8).
func (p *Processor) HangHart() error {
	if p.state != npureg.BootReady {
		return fmt.Errorf("firmware: %w (BOOT_STATUS.STATE is %d)", errNotReady, p.state)
	}
	p.log(slog.LevelInfo, "the operator hangs the firmware")
	p.hung = true
	p.notify()
	return nil
}
