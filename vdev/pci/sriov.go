// SPDX-License-Identifier: Apache-2.0

package pci

import (
	"fmt"
	"math/bits"

	"npuemu/mmio"
)

// MaxVFs is the largest number of virtual functions: with the physical function at 0, at offset and
// stride 1, they are the device's other seven functions, which needs no ARI.
const MaxVFs = 7

// Registers of the SR-IOV extended capability (§9.3.3) that this package acts on, and its fields.
const (
	offARI         = 0x180
	offSRIOV       = 0x190
	offSRIOVCtl    = offSRIOV + 0x08 // and SR-IOV Status
	offSRIOVNumVFs = offSRIOV + 0x10
	offSRIOVPage   = offSRIOV + 0x20
	offSRIOVBAR0   = offSRIOV + 0x24

	offVFARI = 0x100 // a virtual function has no other extended capability

	sriovEnable    = 1 << 0
	sriovMemory    = 1 << 3 // VF MSE
	sriovHierarchy = 1 << 4
	sriovPages     = 0x553 // 4, 8, 64, 256 KiB, 1, 4 MiB: those that every device has (§9.3.3.12)
	sriovPageShift = 12
)

// sriovRegisters returns ARI and SR-IOV of a physical function.
func (c Config) sriovRegisters() []configRegister {
	rows := []configRegister{
		row("ARI_CAP", offARI, extCapARI|1<<16|offSRIOV<<20, 0, 0, "§7.8.7.1", "Alternative Routing-ID."),
		row("ARI", offARI+4, 0, 0, 0, "§7.8.7.2", "No next function, no function groups."),
		row("SRIOV_CAP", offSRIOV, extCapSRIOV|1<<16, 0, 0, "§9.3.3.1", "Single Root I/O Virtualization; the last capability."),
		row("SRIOV_CAPABILITIES", offSRIOV+0x04, 0, 0, 0, "§9.3.3.2", "No VF migration."),
		row("SRIOV_CTL_STATUS", offSRIOVCtl, 0, sriovEnable|sriovMemory|sriovHierarchy, 0,
			"§9.3.3.3", "VF Enable, VF MSE; ARI Capable Hierarchy without effect."),
		row("SRIOV_VFS", offSRIOV+0x0c, uint32(c.VFs)<<16|uint32(c.VFs), 0, 0, "§9.3.3.5", "InitialVFs and TotalVFs."),
		row("SRIOV_NUM_VFS", offSRIOVNumVFs, 0, 0xffff, 0, "§9.3.3.7", "NumVFs; depends on no other function."),
		row("SRIOV_OFFSET_STRIDE", offSRIOV+0x14, 1<<16|1, 0, 0, "§9.3.3.9", "First VF Offset and VF Stride."),
		row("SRIOV_DEVICE", offSRIOV+0x18, uint32(c.DeviceID)<<16, 0, 0, "§9.3.3.11", "VF Device ID."),
		row("SRIOV_PAGES", offSRIOV+0x1c, sriovPages, 0, 0, "§9.3.3.12", "Supported Page Sizes."),
		row("SRIOV_PAGE", offSRIOVPage, 1, sriovPages, 0, "§9.3.3.13", "System Page Size."),
	}
	for i, b := range c.BARs {
		if b.Size == 0 {
			continue
		}
		low := uint32(0x4) // 64-bit memory
		if b.Prefetchable {
			low |= 0x8
		}
		mask := ^(b.Size - 1)
		off := uint32(offSRIOVBAR0 + 4*i)
		rows = append(rows,
			row(fmt.Sprintf("VF_BAR%d", i), off, low, uint32(mask), 0, "§9.3.3.14", "Base address of all VFs' BAR, low half."),
			row(fmt.Sprintf("VF_BAR%d", i+1), off+4, 0, uint32(mask>>32), 0, "§9.3.3.14", "Base address, high half."))
	}
	return rows
}

// virtual turns the registers of a function into those of a virtual function as a VFIO client sees it:
// identity, BARs and Memory Space Enable are shown as those of any function, though on the bus they
// read all-ones and 0 (§9.3.4.1). There is no INTx, no control of the link, no AER; Device
// Control has only the reset, since all else is the physical function's.
func virtual(rows []configRegister) []configRegister {
	var vf []configRegister
	for _, r := range rows {
		switch {
		case r.Off >= offAER:
			continue
		case r.Off == offCommand:
			r.RW &^= commandINTxOff | commandParity | commandSERR
		case r.Off == offIntLine:
			r.Register.Reset, r.RW = 0, 0
		case r.Off == offDevCtl:
			r.Register.Reset, r.RW, r.flrKeep = 0, 0, 0
		case r.Off == offLinkCtl, r.Off == offLinkCtl2, r.Off == offDevCtl2:
			r.Register.Reset, r.RW, r.sticky, r.flrKeep = 0, 0, 0, 0
		}
		vf = append(vf, r)
	}
	return append(vf,
		row("ARI_CAP", offVFARI, extCapARI|1<<16, 0, 0, "§7.8.7.1", "Alternative Routing-ID; the last capability."),
		row("ARI", offVFARI+4, 0, 0, 0, "§7.8.7.2", "No next function, no function groups."))
}

// VFs returns how many virtual functions are there now, and whether their BARs answer.
func (f *Function) VFs() (n int, memory bool) {
	control := f.value[offSRIOVCtl/4]
	if f.row[offSRIOVCtl/4] == nil || control&sriovEnable == 0 {
		return 0, false
	}
	return int(f.value[offSRIOVNumVFs/4] & 0xffff), control&sriovMemory != 0
}

// sriovWrite returns which of the bits rw of an SR-IOV register a write of v reaches: the number of VFs and
// their page size are set while VF Enable is clear, to values that the function has.
func (f *Function) sriovWrite(r *mmio.Register, v, rw uint32) uint32 {
	var legal bool
	switch old := f.value[r.Off/4]; r.Off {
	case offSRIOVNumVFs:
		now := old&^rw | v&rw
		legal = now&0xffff <= uint32(f.maxVFs)
	case offSRIOVPage:
		now := old&^rw | v&rw
		legal = bits.OnesCount32(now) == 1
	default:
		return rw
	}
	if (f.value[r.Off/4]^v)&rw == 0 {
		return rw
	}
	switch {
	case f.value[offSRIOVCtl/4]&sriovEnable != 0:
		f.mistake("config-vf-enabled", "NumVFs and System Page Size are written while VF Enable is clear (§1.9)", r.Off, v)
		return 0
	case !legal:
		f.mistake("config-vf-value", "NumVFs is at most TotalVFs, System Page Size one of those supported (§1.9)", r.Off, v)
		return 0
	}
	return rw
}

// setVFBARMasks makes VF BARs at least as large as the system's pages.
func (f *Function) setVFBARMasks() {
	page := uint64(f.value[offSRIOVPage/4]) << sriovPageShift
	for i, b := range f.bars {
		if b.Size == 0 {
			continue
		}
		mask := ^(max(b.Size, page) - 1)
		low, high := f.row[offSRIOVBAR0/4+i], f.row[offSRIOVBAR0/4+i+1]
		low.RW, high.RW = uint32(mask), uint32(mask>>32)
		f.value[low.Off/4] = f.value[low.Off/4]&low.RW | low.Register.Reset
		f.value[high.Off/4] &= high.RW
	}
}
