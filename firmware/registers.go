// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"encoding/binary"
	"log/slog"
	"time"

	"npuemu/dma/iova"
	"npuemu/mmio/npureg"
)

// consoleLine is the longest line of the console in bytes; longer ones are
// broken.
const consoleLine = 200

// bus is the address map of §3.6 without the memories.
type bus struct{ p *Processor }

func (b bus) Load(addr uint32, size int) (uint32, bool) {
	if size != 4 {
		return 0, false
	}
	if off := addr - npureg.CPRegBase; off < npureg.CPRegSize {
		var v [4]byte
		b.p.bank.Read(uint64(off), v[:])
		return binary.LittleEndian.Uint32(v[:]), true
	}
	if off := addr - npureg.CPHostBase; off < npureg.HostBankSize {
		return b.p.cfg.Host.Register(off), true
	}
	return 0, false
}

func (b bus) Store(addr uint32, size int, v uint32) bool {
	off := addr - npureg.CPRegBase
	if size != 4 || off >= npureg.CPRegSize {
		return false
	}
	b.p.bank.Write(uint64(off), binary.LittleEndian.AppendUint32(nil, v))
	return true
}

// hooks attaches behaviour to the registers of §2.2. They run within core.Run.
func (p *Processor) hooks() {
	b, host := p.bank, p.cfg.Host

	b.OnWrite(npureg.CPIRQEnable, func(uint32) { p.external() })
	b.OnWrite(npureg.CPIRQClear, func(v uint32) {
		b.ClearBits(npureg.CPIRQPending, v)
		p.external()
	})

	b.OnWrite(npureg.CPBootStatus, func(v uint32) { p.setBoot(v&0xff, v>>8&0xff) })
	b.OnWrite(npureg.CPFWVersion, func(v uint32) { host.SetRegister(npureg.FWVersion, v) })
	b.OnWrite(npureg.CPFWBuild, func(v uint32) { host.SetRegister(npureg.FWBuild, v) })
	b.OnWrite(npureg.CPFWErrorDetail, func(v uint32) { host.SetRegister(npureg.FWErrorDetail, v) })
	b.OnWrite(npureg.CPHostEvent, func(v uint32) {
		if v &= npureg.IRQAdmin | npureg.IRQFirmware; v != 0 {
			host.Raise(v)
		}
	})
	b.OnWrite(npureg.CPFaultCode, func(v uint32) {
		info := b.Value(npureg.CPFaultInfo)
		host.Fault(Fault{
			Code: npureg.Status(v), Queue: uint8(info), Source: uint8(info >> 8), Index: uint16(info >> 16),
			Addr: p.addr(npureg.CPFaultAddrLo),
		})
	})

	b.OnWrite(npureg.CPWatchdogPeriod, func(uint32) { p.kick() })
	b.OnWrite(npureg.CPWatchdogKick, func(uint32) { p.kick() })

	b.OnWrite(npureg.CPConsole, func(v uint32) { p.putc(byte(v)) })

	p.latched(npureg.CPTimeLo, npureg.CPTimeHi, func() uint64 { return p.micros(p.cfg.Now()) })
	for _, off := range []uint32{npureg.CPTimeCmpLo, npureg.CPTimeCmpHi} {
		b.OnWrite(off, func(uint32) { p.timer(p.cfg.Now()) })
	}

	b.OnWrite(npureg.CPMoverControl, p.startCopy)

	p.queueHooks()
	p.rasHooks()
	b.OnWrite(npureg.CPMMUControl, p.controlMMU)
	p.onRead(npureg.CPMMUStatus, func() uint32 {
		s := p.cfg.MMU.State(uint16(b.Value(npureg.CPMMUContext)))
		if p.invalidate != nil {
			s |= npureg.MMUBusy
		}
		return s
	})
	b.OnWrite(npureg.CPMMULog, func(uint32) { p.faults = p.cfg.MMU.Log() })
	p.onReadThen(npureg.CPMMULog, func() uint32 {
		if len(p.faults) == 0 {
			return 0
		}
		return binary.LittleEndian.Uint32(p.faults)
	}, func() { p.faults = p.faults[min(4, len(p.faults)):] })
	p.latched(npureg.CPCounterLo, npureg.CPCounterHi, func() uint64 {
		if i := b.Value(npureg.CPCounterIndex); i < npureg.CounterCount {
			return p.cfg.Counter(int(i))
		}
		return 0
	})
}

// onRead makes value what a read of off returns, the debugger's too.
func (p *Processor) onRead(off uint32, value func() uint32) { p.onReadThen(off, value, func() {}) }

// onReadThen is onRead of a register whose reading does something, but not if the debugger reads it.
func (p *Processor) onReadThen(off uint32, value func() uint32, then func()) {
	p.pure[off] = value
	p.bank.OnRead(off, func() uint32 {
		v := value()
		then()
		return v
	})
}

// latched makes a read of lo return the low half of value, and of hi the high
// half of the same.
func (p *Processor) latched(lo, hi uint32, value func() uint64) {
	p.pure[lo] = func() uint32 { return uint32(value()) }
	p.bank.OnRead(lo, func() uint32 {
		v := value()
		p.bank.Set(hi, uint32(v>>32))
		return uint32(v)
	})
}

// addr returns the 64-bit value of two registers.
func (p *Processor) addr(lo uint32) iova.Addr {
	return iova.Addr(p.bank.Value(lo+4))<<32 | iova.Addr(p.bank.Value(lo))
}

// kick restarts the watchdog's period (§3.8).
func (p *Processor) kick() {
	ms := p.bank.Value(npureg.CPWatchdogPeriod)
	p.watchdog = deadline{ms != 0, p.cfg.Now() + time.Duration(ms)*time.Millisecond}
}

// startCopy is a write to CP_MOVER_CONTROL (§3.10). Run does the copy.
func (p *Processor) startCopy(control uint32) {
	if p.copy.control != 0 || control != npureg.MoverRead && control != npureg.MoverWrite {
		return
	}
	local, size := p.bank.Value(npureg.CPMoverLocal)-npureg.CPSRAMBase, p.bank.Value(npureg.CPMoverSize)
	if size == 0 || local > npureg.CPSRAMSize || size > npureg.CPSRAMSize-local {
		p.bank.Set(npureg.CPMoverStatus, npureg.MoverRange)
		return
	}
	addr := p.addr(npureg.CPMoverAddrLo)
	if uint64(addr)+uint64(size-1) < uint64(addr) { // §7.2
		p.bank.Set(npureg.CPMoverStatus, npureg.MoverFault)
		return
	}
	p.copy = move{control, addr, p.sram[local : local+size]}
	p.bank.Set(npureg.CPMoverStatus, npureg.MoverBusy)
	p.core.Yield()
}

// controlMMU is a write to CP_MMU_CONTROL (§11.7). Run does invalidations.
func (p *Processor) controlMMU(v uint32) {
	context, addr := uint16(p.bank.Value(npureg.CPMMUContext)), uint64(p.addr(npureg.CPMMUAddrLo))
	size := uint64(p.bank.Value(npureg.CPMMUPages)) * npureg.PageSize
	if p.invalidate != nil {
		return
	}
	switch v & 15 {
	case npureg.MMUTranslate:
		p.cfg.MMU.Translate(context, uint8(v>>4), addr)
	case npureg.MMURemove:
		p.cfg.MMU.Remove(context)
	case npureg.MMUInvalidate:
		p.invalidate = func() { p.cfg.MMU.Invalidate(context, addr, size) }
		p.core.Yield()
	case npureg.MMUInvalidateAll:
		p.invalidate = p.cfg.MMU.InvalidateAll
		p.core.Yield()
	}
}

// putc assembles lines of the console (§3.9).
func (p *Processor) putc(c byte) {
	if c != '\n' {
		p.console = append(p.console, c)
		if len(p.console) < consoleLine {
			return
		}
	}
	p.log(slog.LevelInfo, "firmware console", slog.String("line", string(p.console)))
	p.console = p.console[:0]
}
