// SPDX-License-Identifier: Apache-2.0

package ioat

import "npuemu/mmio"

// Identity of the PCI function: the engine of the first Xeon Scalable processors, whose driver every distribution has.
const (
	VendorID = 0x8086
	DeviceID = 0x2021
)

// Sizes.
const (
	BAR0Size       = 16 << 10
	bar4Size       = 16 << 10
	descriptorSize = 64
	maxTransferLog = 12 // of one descriptor: 4 KiB
	MaxTransfer    = 1 << maxTransferLog
)

// Registers of the device, byte offsets in BAR0. Several narrow registers share a doubleword.
const (
	regDevice    = 0x00 // CHANCNT, XFERCAP, GENCTRL, INTRCTRL: 8 bits each
	regAttention = 0x04 // ATTNSTATUS, a bit for each channel; reading clears
	regVersion   = 0x08 // VER, 8 bits, and PERPORTOFFSET, 16 bits at 0x0a
	regDelay     = 0x0c // INTRDELAY and DEVICE_STATUS, 16 bits each
	regCaps      = 0x10 // DMA_CAP
	regDCAOffset = 0x14 // DCAOFFSET

	offIntrCtrl = 0x03
)

// Registers of channel 0.
const (
	chanBase    = 0x80
	regControl  = chanBase + 0x00 // CHANCTRL and DMA_COMP, 16 bits each
	regCommand  = chanBase + 0x04 // CHANCMD, 8 bits, and DMACOUNT, 16 bits at 0x06
	regStatusLo = chanBase + 0x08 // CHANSTS
	regStatusHi = chanBase + 0x0c
	regChainLo  = chanBase + 0x10 // CHAINADDR
	regChainHi  = chanBase + 0x14
	regCompLo   = chanBase + 0x18 // CHANCMP
	regCompHi   = chanBase + 0x1c
	regDescLo   = chanBase + 0x20 // CDAR
	regDescHi   = chanBase + 0x24
	regError    = chanBase + 0x28 // CHANERR
	regErrMask  = chanBase + 0x2c // CHANERR_MASK
	regDCACtrl  = chanBase + 0x30 // DCACTRL
)

// Registers of config space beside the capabilities.
const (
	cfgUncorrectable = 0x148 // DMAUNCERRSTS
	cfgError         = 0x180 // CHANERR_INT
	cfgErrorMask     = 0x184 // CHANERRMASK_INT
)

// Bits.
const (
	version = 0x33 // 3.3

	intrMaster  = 1 << 24 // INTRCTRL: interrupts of the device; a read of INTRCTRL clears it
	intrStatus  = 1 << 25 // a channel wants attention
	intrPending = 1 << 26 // both of the above
	intrMSIX    = 1 << 27 // each channel has a vector of its own

	controlRearm      = 1 << 0 // reads 1: an interrupt was sent; writing 1 allows the next
	controlErrWrite   = 1 << 2 // an error writes CHANSTS to CHANCMP
	controlErrIntr    = 1 << 4 // an error interrupts
	controlStored     = 0xf33c
	compatibleVersion = 2 << 16

	commandReset   = 1 << 5
	commandSuspend = 1 << 2
	commandBits    = commandReset | commandSuspend

	statusMask      = 0x7
	statusActive    = 0
	statusDone      = 1
	statusSuspended = 2
	statusHalted    = 3

	// CHANERR.
	errNextAddr   = 1 << 2  // the next descriptor cannot be read
	errNextAlign  = 1 << 3  // the next descriptor is not aligned to 64 bytes
	errChainAddr  = 1 << 4  // the first descriptor is not aligned, or cannot be read
	errReadData   = 1 << 8  // the source cannot be read
	errWriteData  = 1 << 9  // the destination cannot be written
	errControl    = 1 << 10 // operation, or reserved control bits
	errLength     = 1 << 11 // 0, or more than XFERCAP says
	errCompletion = 1 << 12 // CHANCMP is not aligned to 8 bytes, or cannot be written
	errorBits     = 0x7ffff

	// Control word of a descriptor.
	descInterrupt  = 1 << 0
	descCompletion = 1 << 3
	descNull       = 1 << 5
	descReserved   = 0x00fff800
	descOperation  = 0xff000000 // only 0, copy
)

// registers is BAR0. What is not here reads all-ones.
func registers() []mmio.Register {
	return []mmio.Register{
		{Name: "DEVICE", Off: regDevice, Reset: 1 | maxTransferLog<<8, RW: intrMaster | intrMSIX | 1<<16, Narrow: true},
		{Name: "ATTNSTATUS", Off: regAttention},
		{Name: "VERSION", Off: regVersion, Reset: version, Narrow: true},
		{Name: "DELAY", Off: regDelay, Narrow: true},
		{Name: "DMA_CAP", Off: regCaps},
		{Name: "DCAOFFSET", Off: regDCAOffset, Narrow: true},
		{Name: "CHANCTRL", Off: regControl, Reset: compatibleVersion, RW: controlStored, W1C: controlRearm, Narrow: true},
		{Name: "CHANCMD", Off: regCommand, RW: 0xffff << 16, Narrow: true},
		{Name: "CHANSTS_LO", Off: regStatusLo, Reset: statusHalted},
		{Name: "CHANSTS_HI", Off: regStatusHi},
		{Name: "CHAINADDR_LO", Off: regChainLo, RW: 0xffff_ffff},
		{Name: "CHAINADDR_HI", Off: regChainHi, RW: 0xffff_ffff},
		{Name: "CHANCMP_LO", Off: regCompLo, RW: 0xffff_ffff},
		{Name: "CHANCMP_HI", Off: regCompHi, RW: 0xffff_ffff},
		{Name: "CDAR_LO", Off: regDescLo},
		{Name: "CDAR_HI", Off: regDescHi},
		{Name: "CHANERR", Off: regError, W1C: errorBits},
		{Name: "CHANERR_MASK", Off: regErrMask, RW: errorBits},
		{Name: "DCACTRL", Off: regDCACtrl, RW: 0x1ffff},
	}
}

// configRegisters are the engine's own registers in config space.
func configRegisters() []mmio.Register {
	return []mmio.Register{
		{Name: "DMAUNCERRSTS", Off: cfgUncorrectable, W1C: 0xffff_ffff},
		{Name: "CHANERR_INT", Off: cfgError, W1C: errorBits},
		{Name: "CHANERRMASK_INT", Off: cfgErrorMask, RW: errorBits},
	}
}
