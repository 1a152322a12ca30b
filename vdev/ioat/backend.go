// SPDX-License-Identifier: Apache-2.0

package ioat

import (
	"fmt"

	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
	"npuemu/vdev/pci"
	"npuemu/vdev/vfiouser"
)

var (
	_ vfiouser.Backend   = (*Device)(nil)
	_ vfiouser.DMALogger = (*Device)(nil)
)

// Regions describes BAR0, the registers; BAR4, MSI-X; and config space.
func (d *Device) Regions() []vfiouser.Region {
	const rw = vfiouser.RegionRead | vfiouser.RegionWrite
	r := make([]vfiouser.Region, vfiouser.NumRegions)
	r[vfiouser.RegionBAR0] = vfiouser.Region{Size: BAR0Size, Flags: rw}
	r[vfiouser.RegionBAR0+4] = vfiouser.Region{Size: bar4Size, Flags: rw}
	r[vfiouser.RegionConfig] = vfiouser.Region{Size: pci.ConfigSpaceSize, Flags: rw}
	return r
}

// IRQs describes INTx, which a client unmasks after each one, and one vector of MSI and of MSI-X.
func (d *Device) IRQs() []vfiouser.IRQ {
	q := make([]vfiouser.IRQ, vfiouser.NumIRQs)
	const flags = vfiouser.IRQEventfd | vfiouser.IRQMaskable
	q[vfiouser.IRQINTx] = vfiouser.IRQ{Count: 1, Flags: flags | vfiouser.IRQAutomasked}
	q[vfiouser.IRQMSI] = vfiouser.IRQ{Count: 1, Flags: flags}
	q[vfiouser.IRQMSIX] = vfiouser.IRQ{Count: 1, Flags: flags}
	return q
}

// open reports whether the BARs answer. Otherwise an access is an unsupported request: AER shows it, and it leaves a finding.
func (d *Device) openLocked(bar int, off uint64, n int, write bool) bool {
	if d.fn.MemoryEnabled() {
		return true
	}
	d.findings.Add("bar-closed", "BARs are accessed in D0 and with Memory Space Enable set", fmt.Sprintf("BAR%d, power state %v", bar, d.fn.Power()))
	d.fn.LogUnsupported(bar, off, n, write)
	return false
}

// ReadRegion serves a read of a BAR or of config space.
func (d *Device) ReadRegion(index int, off uint64, p []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch index {
	case vfiouser.RegionConfig:
		d.fn.Read(off, p)
	case vfiouser.RegionBAR0, vfiouser.RegionBAR0 + 4:
		switch {
		case !d.openLocked(index, off, len(p), false):
			for i := range p {
				p[i] = 0xff
			}
		case index == vfiouser.RegionBAR0:
			d.bar0.Read(off, p)
			d.readSideEffectsLocked(off, len(p))
		default:
			d.fn.MSIX().Read(off, p)
		}
	default:
		return fmt.Errorf("ioat: read of region %d, which the function does not have", index)
	}
	return nil
}

// WriteRegion serves a write to a BAR or to config space.
func (d *Device) WriteRegion(index int, off uint64, p []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch index {
	case vfiouser.RegionConfig:
		d.fn.Write(off, p)
	case vfiouser.RegionBAR0, vfiouser.RegionBAR0 + 4:
		switch {
		case !d.openLocked(index, off, len(p), true):
		case index == vfiouser.RegionBAR0:
			d.bar0.Write(off, p)
		default:
			d.fn.MSIX().Write(off, p)
		}
	default:
		return fmt.Errorf("ioat: write to region %d, which the function does not have", index)
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
	d.irqs[irq{index, vector}] = fd
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
	if index == vfiouser.IRQINTx {
		d.fn.INTx().Trigger()
		return
	}
	d.fn.Raise(vector)
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

// UnmapAllDMA takes everything away.
func (d *Device) UnmapAllDMA() { d.mem.Bus.UnmapAll() }

// DMATable is where all of the device's DMA goes through, for a log of what it writes.
func (d *Device) DMATable() *iova.Table { return d.mem.Bus }

// Reset is a conventional reset.
func (d *Device) Reset() error {
	d.conventionalReset("conventional reset")
	return nil
}

// Detach is told that the client is gone, which is a conventional reset: nothing that it left may run on.
func (d *Device) Detach() {
	d.conventionalReset("client gone")
	d.fn.MSIX().SetTableOwner(pci.TableInTransport) // forgets what the client masked
}
