// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"fmt"

	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
	"npuemu/mmio/npureg"
	"npuemu/vdev/pci"
	"npuemu/vdev/vfiouser"
)

var (
	_ vfiouser.Backend   = (*Device)(nil)
	_ vfiouser.DMALogger = (*Device)(nil)
	_ vfiouser.Toucher   = (*Device)(nil)
)

// Regions describes the BARs and config space (§1.2). BAR2 is device memory,
// which the client maps if Config says so. A card without MSI-X has no BAR4.
func (d *Device) Regions() []vfiouser.Region {
	r := make([]vfiouser.Region, vfiouser.NumRegions)
	const rw = vfiouser.RegionRead | vfiouser.RegionWrite
	r[vfiouser.RegionBAR0] = vfiouser.Region{Size: npureg.BAR0Size, Flags: rw}
	window := vfiouser.Region{Size: uint64(len(d.dram.mem)), Flags: rw}
	if d.cfg.Memory.Window {
		window.Flags |= vfiouser.RegionMmap
		window.File = d.dram.file
	}
	r[vfiouser.RegionBAR0+2] = window
	if d.cfg.PCI.MSIX {
		r[vfiouser.RegionBAR0+4] = vfiouser.Region{Size: bar4Size, Flags: rw}
	}
	r[vfiouser.RegionConfig] = vfiouser.Region{Size: pci.ConfigSpaceSize, Flags: rw}
	return r
}

// IRQs describes the interrupts (§8): INTx except in a virtual function, which a client unmasks after each one,
// MSI and MSI-X if the card has them, and the type by which VFIO clients want to hear
// of fatal errors, which this device uses if Config says so.
func (d *Device) IRQs() []vfiouser.IRQ {
	q := make([]vfiouser.IRQ, vfiouser.NumIRQs)
	const flags = vfiouser.IRQEventfd | vfiouser.IRQMaskable
	if !d.virtual {
		q[vfiouser.IRQINTx] = vfiouser.IRQ{Count: 1, Flags: flags | vfiouser.IRQAutomasked}
	}
	if d.cfg.PCI.MSI {
		q[vfiouser.IRQMSI] = vfiouser.IRQ{Count: d.fn.MSI().Count(), Flags: flags}
	}
	if d.cfg.PCI.MSIX {
		q[vfiouser.IRQMSIX] = vfiouser.IRQ{Count: d.cfg.Queues.Vectors, Flags: flags}
	}
	q[vfiouser.IRQErr] = vfiouser.IRQ{Count: 1, Flags: vfiouser.IRQEventfd}
	return q
}

// ReadRegion serves a read of a BAR or of config space.
func (d *Device) ReadRegion(index int, off uint64, p []byte) error {
	if d.missing() {
		fillOnes(p)
		return nil
	}
	switch index {
	case vfiouser.RegionBAR0:
		d.readBAR0(off, p)
	case vfiouser.RegionBAR0 + 2:
		if !d.open(2, off, len(p), false) {
			fillOnes(p)
			break
		}
		copy(p, d.dram.mem[off:])
	case vfiouser.RegionBAR0 + 4:
		if !d.open(4, off, len(p), false) {
			fillOnes(p)
			break
		}
		d.fn.MSIX().Read(off, p)
	case vfiouser.RegionConfig:
		d.mu.Lock()
		defer d.mu.Unlock()
		d.fn.Read(off, p)
	default:
		return fmt.Errorf("vdev: read of region %d, which the function does not have (§1.2)", index)
	}
	return nil
}

// WriteRegion serves a write to a BAR or to config space.
func (d *Device) WriteRegion(index int, off uint64, p []byte) error {
	if d.missing() {
		return nil
	}
	switch index {
	case vfiouser.RegionBAR0:
		d.writeBAR0(off, p)
	case vfiouser.RegionBAR0 + 2:
		if d.open(2, off, len(p), true) {
			copy(d.dram.mem[off:], p)
		}
	case vfiouser.RegionBAR0 + 4:
		if d.open(4, off, len(p), true) {
			d.fn.MSIX().Write(off, p)
		}
	case vfiouser.RegionConfig:
		d.mu.Lock()
		defer d.mu.Unlock()
		d.fn.Write(off, p)
	default:
		return fmt.Errorf("vdev: write to region %d, which the function does not have (§1.2)", index)
	}
	return nil
}

// irq names an interrupt as VFIO does.
type irq struct{ index, vector int }

// SetVector attaches fd to an interrupt, or detaches what is there.
func (d *Device) SetVector(index, vector int, fd *eventfd.FD) {
	var s pci.Signaler
	if fd != nil {
		s = fd
	}
	d.mu.Lock()
	old := d.irqs[irq{index, vector}]
	delete(d.irqs, irq{index, vector})
	if fd != nil {
		d.irqs[irq{index, vector}] = fd
	}
	d.mu.Unlock()
	switch index {
	case vfiouser.IRQINTx:
		d.fn.INTx().Set(s)
	case vfiouser.IRQMSI:
		d.fn.MSI().SetVector(vector, s)
	case vfiouser.IRQMSIX:
		d.fn.MSIX().SetVector(vector, s)
	}
	if old != nil {
		old.Close()
	}
}

// TriggerVector raises an interrupt for the client, which tests it that way.
func (d *Device) TriggerVector(index, vector int) {
	if d.missing() {
		return
	}
	switch index {
	case vfiouser.IRQINTx:
		d.fn.INTx().Trigger()
	case vfiouser.IRQMSI, vfiouser.IRQMSIX:
		d.fn.Raise(vector)
	case vfiouser.IRQErr:
		d.mu.Lock()
		defer d.mu.Unlock()
		if fd := d.irqs[irq{index, vector}]; fd != nil {
			fd.Signal()
		}
	}
}

// MaskVector masks or unmasks an interrupt for the client.
func (d *Device) MaskVector(index, vector int, masked bool) {
	switch index {
	case vfiouser.IRQINTx:
		d.fn.INTx().Mask(masked)
	case vfiouser.IRQMSI:
		d.fn.MSI().MaskVector(vector, masked)
	case vfiouser.IRQMSIX:
		d.fn.MSIX().MaskVector(vector, masked)
	}
}

// MapDMA lets the device reach a range of the client's memory.
func (d *Device) MapDMA(addr iova.Addr, size uint64, prot iova.Prot, mem iova.Memory) error {
	return d.mem.Bus.Map(addr, size, prot, mem)
}

// UnmapDMA takes a range away. No access to it runs any more when it returns.
func (d *Device) UnmapDMA(addr iova.Addr, size uint64) error { return d.mem.Bus.Unmap(addr, size) }

// DMATable is where all of the device's DMA goes through, for a log of what it writes.
func (d *Device) DMATable() *iova.Table { return d.mem.Bus }

// UnmapAllDMA takes everything away.
func (d *Device) UnmapAllDMA() { d.mem.Bus.UnmapAll() }

// Reset is a conventional reset (§9.4). It returns when the reset is over, or after 100 ms
// if the host does not answer an access to the bus; DEVICE_STATUS then says so.
func (d *Device) Reset() error {
	d.conventionalReset("conventional reset")
	d.awaitReset()
	return nil
}

// Detach is told that the client is gone, which is a conventional reset: nothing
// that it left may run on, or write into the memory of the next client. Device memory
// is kept.
func (d *Device) Detach() {
	d.conventionalReset("client gone")
	d.awaitReset()
	d.toucher.Store(nil)
	d.fn.MSIX().SetTableOwner(pci.TableInTransport) // forgets what the client masked
}

func (d *Device) conventionalReset(why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hotResetLocked(why)
}

func (d *Device) hotResetLocked(why string) {
	d.fn.Reset(pci.ResetHot)
	d.resetLocked(why)
}
