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

var _ vfiouser.Backend = (*Device)(nil)

// Regions describes the BARs and config space (§1.2). BAR2 is device memory,
// which the client maps.
func (d *Device) Regions() []vfiouser.Region {
	r := make([]vfiouser.Region, vfiouser.NumRegions)
	const rw = vfiouser.RegionRead | vfiouser.RegionWrite
	r[vfiouser.RegionBAR0] = vfiouser.Region{Size: npureg.BAR0Size, Flags: rw}
	r[vfiouser.RegionBAR0+2] = vfiouser.Region{Size: uint64(len(d.dram.mem)), Flags: rw | vfiouser.RegionMmap, File: d.dram.file}
	r[vfiouser.RegionBAR0+4] = vfiouser.Region{Size: bar4Size, Flags: rw}
	r[vfiouser.RegionConfig] = vfiouser.Region{Size: pci.ConfigSpaceSize, Flags: rw}
	return r
}

// IRQs describes the interrupts: MSI-X only (§8.1), and the type by which VFIO
// clients want to hear of fatal errors, which this device never uses.
func (d *Device) IRQs() []vfiouser.IRQ {
	q := make([]vfiouser.IRQ, vfiouser.NumIRQs)
	q[vfiouser.IRQMSIX] = vfiouser.IRQ{Count: d.cfg.Queues.Vectors, Flags: vfiouser.IRQEventfd | vfiouser.IRQMaskable}
	q[vfiouser.IRQErr] = vfiouser.IRQ{Count: 1, Flags: vfiouser.IRQEventfd}
	return q
}

// ReadRegion serves a read of a BAR or of config space.
func (d *Device) ReadRegion(index int, off uint64, p []byte) error {
	switch index {
	case vfiouser.RegionBAR0:
		d.readBAR0(off, p)
	case vfiouser.RegionBAR0 + 2:
		if !d.open(2) {
			fillOnes(p)
			break
		}
		copy(p, d.dram.mem[off:])
	case vfiouser.RegionBAR0 + 4:
		if !d.open(4) {
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
	switch index {
	case vfiouser.RegionBAR0:
		d.writeBAR0(off, p)
	case vfiouser.RegionBAR0 + 2:
		if d.open(2) {
			copy(d.dram.mem[off:], p)
		}
	case vfiouser.RegionBAR0 + 4:
		if d.open(4) {
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

// SetVector attaches fd to an MSI-X vector, or detaches what is there.
func (d *Device) SetVector(index, vector int, fd *eventfd.FD) {
	if index != vfiouser.IRQMSIX {
		// The error interrupt stops a QEMU guest for good; nothing raises it.
		if fd != nil {
			fd.Close()
		}
		return
	}
	var s pci.Signaler
	if fd != nil {
		s = fd
	}
	d.mu.Lock()
	old := d.vectors[vector]
	d.vectors[vector] = fd
	d.mu.Unlock()
	d.fn.MSIX().SetVector(vector, s)
	if old != nil {
		old.Close()
	}
}

// TriggerVector raises a vector for the client, which tests its interrupts that way.
func (d *Device) TriggerVector(index, vector int) {
	if index == vfiouser.IRQMSIX {
		d.fn.MSIX().Raise(vector)
	}
}

// MaskVector masks or unmasks a vector for the client.
func (d *Device) MaskVector(index, vector int, masked bool) {
	if index == vfiouser.IRQMSIX {
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

// Reset is a conventional reset (§9.4).
func (d *Device) Reset() error {
	d.conventionalReset("conventional reset")
	return nil
}

// Detach is told that the client is gone, which is a conventional reset: nothing
// that it left may run on, or write into the memory of the next client. Device memory
// is kept.
func (d *Device) Detach() {
	d.conventionalReset("client gone")
	d.fn.MSIX().SetTableOwner(pci.TableInTransport) // forgets what the client masked
}

func (d *Device) conventionalReset(why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fn.Reset(pci.ResetHot)
	d.resetLocked(why)
}
