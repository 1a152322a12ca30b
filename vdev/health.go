// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"npuemu/ecc"
	"npuemu/mmio/npureg"
	"npuemu/vdev/pci"
)

// The operator's side of docs/spec/ras.md: errors that are made to happen, and the sensor.

// Health is what an operator is told of RAS.
type Health struct {
	Temperature     float64   `json:"temperature"` // °C, as the sensor shows it
	Ambient         float64   `json:"ambient"`
	Thresholds      []float64 `json:"thresholds"` // of levels 1, 2 and the critical one
	Throttle        int       `json:"throttle"`   // level
	CoreUtilization float64   `json:"core_utilization"`
	DMAUtilization  float64   `json:"dma_utilization"` // shares of the time between the last two samples
	Corrected       uint64    `json:"ecc_corrected"`   // since New
	Uncorrected     uint64    `json:"ecc_uncorrected"`
	Poisoned        int       `json:"poisoned"` // granules of device memory
	Records         uint32    `json:"error_records"`
	CrashDump       uint16    `json:"crash_dump"` // number of the last one, 0 for none
}

// healthLocked returns nil without RAS.
func (d *Device) healthLocked() *Health {
	if !d.ras.on {
		return nil
	}
	t := &d.ras.thermal
	number, _ := d.fw.CrashDump()
	return &Health{
		Temperature: t.shown(), Ambient: t.ambient, Thresholds: slices.Clone(t.thresholds[:]), Throttle: int(t.level.Load()),
		CoreUtilization: t.used[engineCore], DMAUtilization: t.used[engineDMA],
		Corrected: d.counters[npureg.CounterECCCorrected].Load(), Uncorrected: d.counters[npureg.CounterECCUncorrected].Load(),
		Poisoned: d.mem.Poison.Count(), Records: d.ras.next, CrashDump: number,
	}
}

// hasRAS returns why the card does not have what an operator wants of it, or nil.
func (d *Device) hasRAS() error {
	if !d.ras.on {
		return fmt.Errorf("vdev: architecture %s has no RAS (§12): serve the card with --arch 1.2", d.cfg.Arch)
	}
	return nil
}

// MemoryErrors lists what InjectMemoryError takes.
func MemoryErrors() []string { return []string{"corrected", "uncorrected"} }

// Memories lists the memories that InjectMemoryError knows.
func Memories() []string { return []string{"dram", "scratchpad"} }

// InjectMemoryError makes the card have a memory error at addr, a byte of one of Memories (§12.2).
func (d *Device) InjectMemoryError(kind, memory string, addr uint64) error {
	if err := d.hasRAS(); err != nil {
		return err
	}
	if !slices.Contains(MemoryErrors(), kind) {
		return fmt.Errorf("vdev: memory error %q: use one of %s", kind, strings.Join(MemoryErrors(), ", "))
	}
	var size uint64
	var unit uint8
	switch memory {
	case "dram":
		unit, size = npureg.UnitDRAM, uint64(d.cfg.Memory.Size)
	case "scratchpad":
		unit, size = npureg.UnitScratchpad, uint64(d.cfg.Array.Scratchpad)
	default:
		return fmt.Errorf("vdev: memory %q: use one of %s", memory, strings.Join(Memories(), ", "))
	}
	if addr >= size {
		return fmt.Errorf("vdev: address %#x: %s has %#x bytes", addr, memory, size)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.removed {
		return errRemoved
	}
	r := record{kind: npureg.ErrorCorrected, unit: unit, addr: addr}
	counter, bit := npureg.CounterECCCorrected, uint8(pci.CorrectedInternal)
	if kind == "uncorrected" {
		r.kind, r.addr = npureg.ErrorUncorrected, addr&^(ecc.Granule-1)
		counter, bit = npureg.CounterECCUncorrected, uint8(pci.UncorrectableInternal)
		mark := d.mem.Poison.Mark
		if unit == npureg.UnitScratchpad {
			mark = d.executor.core.Strike
		}
		if !mark(addr) {
			return fmt.Errorf("vdev: %s has %d poisoned granules, which is the limit: have some overwritten first", memory, ecc.MaxPoisoned)
		}
	}
	d.count(counter, 1)
	d.fn.Inject(pci.ErrorKind{Correctable: kind == "corrected", Bit: bit}, [4]uint32{})
	d.logErrorLocked(r)
	return nil
}

// SetThermal sets the temperature around the card, and what the sensor shows, in °C (§12.4); nil leaves one as it is, and model
// makes the sensor show the model's temperature again. It sets all or nothing.
func (d *Device) SetThermal(ambient, shown *float64, model bool) error {
	if err := d.hasRAS(); err != nil {
		return err
	}
	for _, c := range []*float64{ambient, shown} {
		if c != nil && !(*c >= minTemperature && *c <= maxTemperature) {
			return fmt.Errorf("vdev: temperature %v °C: use %d to %d", *c, minTemperature, maxTemperature)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	t := &d.ras.thermal
	if ambient != nil {
		t.ambient = *ambient
	}
	if shown != nil || model {
		t.forced = shown
	}
	d.throttleLocked()
	return nil
}

// FirmwareCrashes lists what CrashFirmware takes.
func FirmwareCrashes() []string { return []string{"trap", "hang"} }

// CrashFirmware makes the control processor take an exception that firmware does not handle, or stop until the watchdog fires (§3.8).
func (d *Device) CrashFirmware(how string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch how {
	case "trap":
		return d.fw.CrashHart()
	case "hang":
		return d.fw.HangHart()
	}
	return fmt.Errorf("vdev: firmware crash %q: use one of %s", how, strings.Join(FirmwareCrashes(), ", "))
}

var errRemoved = errors.New("vdev: the card is removed: insert it first")

// Remove takes the card away under its client, as if it was pulled out (§9.4): nothing answers any more. What was in flight has
// ended when it returns, as far as that takes no more than 100 ms.
func (d *Device) Remove() error {
	err := d.remove()
	if err == nil {
		d.awaitReset()
	}
	return err
}

func (d *Device) remove() error {
	switch {
	case d.virtual:
		return errors.New("vdev: a virtual function is not removed alone: remove function 0")
	case d.paravirt.Load() != nil:
		return errors.New("vdev: a virtio device is not removed from behind: unplug it in the monitor")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.removed {
		return errors.New("vdev: the card is removed already")
	}
	d.hotResetLocked("surprise removal")
	d.removed = true
	d.gone.Store(true)
	return nil
}

// Insert brings a removed card back, as after a conventional reset.
func (d *Device) Insert() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.removed {
		return errors.New("vdev: the card is not removed")
	}
	d.removed = false
	d.gone.Store(false)
	d.hotResetLocked("insertion")
	return nil
}
