// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"slices"
	"time"

	"npuemu/mmio"
	"npuemu/mmio/npureg"
	"npuemu/queue"
	"npuemu/vdev/pci"
)

// ras is what the card knows of its own health (docs/spec/ras.md). It survives every reset. Guarded by Device.mu.
type ras struct {
	on      bool // FEATURES_LO.RAS
	log     [npureg.ErrorLogRecords]record
	next    uint32 // number of the next record
	thermal thermal
	engines uint32 // whose reset is not over
}

// record is a record of the error log (§12.3).
type record struct {
	kind, unit uint8
	flags      uint16
	time       uint64 // µs of the card's time
	addr       uint64
	queue, id  uint16
	context    uint16
	detail     uint16
}

// word returns four bytes of the record as firmware and host see it.
func (r *record) word(number uint32, i int) uint32 {
	switch i {
	case 0:
		return number
	case 1:
		return uint32(r.kind) | uint32(r.unit)<<8 | uint32(r.flags)<<16
	case 2:
		return uint32(r.time)
	case 3:
		return uint32(r.time >> 32)
	case 4:
		return uint32(r.addr)
	case 5:
		return uint32(r.addr >> 32)
	case 6:
		return uint32(r.queue) | uint32(r.id)<<16
	case 7:
		return uint32(r.context) | uint32(r.detail)<<16
	}
	return 0
}

// hostRegisters returns the host's registers as the architecture version has them (§2.1).
func (c Config) hostRegisters() []mmio.Register {
	table := npureg.Host()
	if c.features()&npureg.FeatureMMU == 0 {
		table = slices.DeleteFunc(table, func(r mmio.Register) bool { return r.Off >= npureg.FaultContext && r.Off <= npureg.FaultVAHi })
	}
	if c.features()&npureg.FeatureTiming == 0 {
		table = slices.DeleteFunc(table, func(r mmio.Register) bool { return r.Off >= npureg.TimeLo && r.Off <= npureg.TimeClock })
	}
	if c.features()&npureg.FeatureRAS == 0 {
		table = slices.DeleteFunc(table, func(r mmio.Register) bool { return r.Off >= npureg.CrashStatus && r.Off <= npureg.CrashData })
		for i := range table {
			switch table[i].Off {
			case npureg.IRQStatus:
				table[i].W1C &^= npureg.IRQError
			case npureg.IRQEnable:
				table[i].RW &^= npureg.IRQError
			}
		}
	}
	return table
}

// rasHooks connects the registers of §12.8.
func (d *Device) rasHooks() {
	if !d.ras.on {
		return
	}
	d.bar0.OnWrite(npureg.CrashStatus, func(v uint32) {
		if v&npureg.CrashValid != 0 {
			d.fw.FreeCrashDump()
			d.crashLocked()
		}
	})
	d.bar0.OnRead(npureg.CrashData, func() uint32 {
		at := d.bar0.Value(npureg.CrashSelect)
		d.bar0.Set(npureg.CrashSelect, at+4)
		return d.fw.CrashWord(at)
	})
}

// crashLocked makes the registers tell of the crash dump.
func (d *Device) crashLocked() {
	if !d.ras.on {
		return
	}
	number, size := d.fw.CrashDump()
	status := uint32(number) << 16
	if size != 0 {
		status |= npureg.CrashValid
	}
	d.bar0.Set(npureg.CrashStatus, status)
	d.bar0.Set(npureg.CrashSize, uint32(size))
}

// logErrorLocked writes r into the error log and raises ERROR (§12.3).
func (d *Device) logErrorLocked(r record) {
	if !d.ras.on {
		return
	}
	r.time = d.uptime()
	d.ras.log[d.ras.next%npureg.ErrorLogRecords] = r
	d.ras.next++
	d.causeLocked(npureg.IRQError)
}

// uptime is the card's time: microseconds since New.
func (d *Device) uptime() uint64 { return uint64(time.Since(d.executor.engines.start).Microseconds()) }

// metPoison records that a command met a poisoned granule of a unit (§12.2).
func (d *Device) metPoison(from queue.Origin, e *queue.Entry, unit uint8, granule uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.logErrorLocked(record{
		kind: npureg.ErrorPoison, unit: unit, flags: npureg.ErrorCommand, addr: granule,
		queue: uint16(from.Queue), id: e.ID(), context: from.Context, detail: uint16(npureg.StatusPoison),
	})
}

// poisonUnitShift is where info of POISON has the unit (§12.2).
const poisonUnitShift = 60

// health is the RAS block as the control processor sees it (firmware.RAS).
type health struct{ d *Device }

func (h health) ErrorNext() uint32 { return h.d.ras.next }

func (h health) ErrorWord(number uint32, i int) uint32 {
	if age := h.d.ras.next - number; age == 0 || age > npureg.ErrorLogRecords || age > h.d.ras.next {
		return 0
	}
	return h.d.ras.log[number%npureg.ErrorLogRecords].word(number, i)
}

func (h health) Sensor(index int) uint64 {
	d := h.d
	now := time.Since(d.executor.engines.start)
	d.sampleLocked(now)
	t := &d.ras.thermal
	busy := d.executor.engines.worked(now)
	level := t.level.Load()
	switch index {
	case npureg.SensorUptime:
		return uint64(now.Microseconds())
	case npureg.SensorTemperature:
		return uint64(milli(t.shown()))
	case npureg.SensorAmbient:
		return uint64(milli(t.ambient))
	case npureg.SensorClock:
		if d.fn.Power() != pci.D0 {
			return 0
		}
		return uint64(nominalClock * duty[level] / 100)
	case npureg.SensorMaxClock:
		return nominalClock
	case npureg.SensorCoreUtilization:
		return uint64(t.used[engineCore] * 1000)
	case npureg.SensorDMAUtilization:
		return uint64(t.used[engineDMA] * 1000)
	case npureg.SensorCoreBusy:
		return uint64(busy[engineCore].Microseconds())
	case npureg.SensorDMABusy:
		return uint64(busy[engineDMA].Microseconds())
	case npureg.SensorThrottle:
		return uint64(level)
	case npureg.SensorPower:
		return uint64(d.fn.Power())
	case npureg.SensorThermal1, npureg.SensorThermal2, npureg.SensorThermalCritical:
		return uint64(milli(t.thresholds[index-npureg.SensorThermal1]))
	}
	return 0
}

func (h health) Thresholds(milli [npureg.ThrottleCritical]int32) {
	h.d.ras.thermal.setThresholds(milli)
	h.d.throttleLocked()
}

// ResetEngines is RESET_ENGINE (§12.6).
func (h health) ResetEngines(mask uint32) {
	d := h.d
	if d.executor.engines.reset(mask) {
		d.ras.engines = mask
	}
	d.count(npureg.CounterEngineResets, 1)
	unit := uint8(npureg.UnitCore)
	if mask&npureg.EngineCore == 0 {
		unit = npureg.UnitDMA
	}
	d.logErrorLocked(record{kind: npureg.ErrorEngineReset, unit: unit, detail: uint16(mask)})
}

func (h health) EngineState() (resetting, ended uint32) {
	return h.d.ras.engines, h.d.executor.engines.stopped()
}

// engineOverLocked ends an engine reset when the command that it stopped is out of flight.
func (d *Device) engineOverLocked() {
	if d.ras.engines != 0 && d.queues.FlightLocked() == 0 {
		d.ras.engines = 0
		d.fw.QueueEvent()
	}
}

func (h health) Queue(index int) [npureg.CrashQueue / 4]uint32 {
	q := h.d.queues.StatusLocked(index)
	pair := func(lo, hi uint16) uint32 { return uint32(lo) | uint32(hi)<<16 }
	return [...]uint32{pair(uint16(q.State), q.Context), pair(q.SQHead, q.SQTail), pair(q.CQHead, q.CQTail), pair(q.SQEntries, q.CQEntries)}
}

func (h health) Crashed(code, pc uint32) {
	h.d.logErrorLocked(record{kind: npureg.ErrorFirmware, unit: npureg.UnitCP, addr: uint64(pc), detail: uint16(code)})
	h.d.crashLocked()
}
