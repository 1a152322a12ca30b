// SPDX-License-Identifier: Apache-2.0

package pci

import (
	"fmt"
	"math/bits"

	"npuemu/mmio"
)

// ConfigSpaceSize is the size of a PCI Express configuration space in bytes.
const ConfigSpaceSize = 4096

// MSI-X structures in BAR4 (§7.7.2): 16 bytes for each table entry, then the
// pending bits in a page of their own, so that a VMM can trap one page and map
// the other.
const (
	MSIXBAR       = 4
	MSIXTableOff  = 0x0000
	MSIXPBAOff    = 0x2000
	minMSIXBARLen = 0x4000 // the power of two that holds the pending bits
)

// MaxVectors is the largest number of vectors, as MSI has no more messages
// (§7.7.1.2). 32 entries of the MSI-X table end at 0x200, far below MSIXPBAOff.
const MaxVectors = 32

// minBARSize is a page: a VMM maps BARs by pages.
const minBARSize = 4096

// Sizes that a Resizable BAR Capability register can announce (§7.8.6.2).
const (
	minResizable = 1 << 20
	maxResizable = 1 << 47
)

// Offsets in configuration space.
const (
	offID        = 0x000
	offCommand   = 0x004 // and Status
	offClass     = 0x008
	offCacheLine = 0x00c
	offBAR0      = 0x010
	offSubsystem = 0x02c
	offCapPtr    = 0x034
	offIntLine   = 0x03c

	offPM    = 0x040
	offPMCSR = offPM + 0x04

	offPCIe     = 0x050
	offDevCap   = offPCIe + 0x04
	offDevCtl   = offPCIe + 0x08 // and Device Status
	offLinkCap  = offPCIe + 0x0c
	offLinkCtl  = offPCIe + 0x10 // and Link Status
	offDevCap2  = offPCIe + 0x24
	offDevCtl2  = offPCIe + 0x28
	offLinkCap2 = offPCIe + 0x2c
	offLinkCtl2 = offPCIe + 0x30

	offMSIX      = 0x090 // and Message Control
	offMSIXTable = offMSIX + 0x04
	offMSIXPBA   = offMSIX + 0x08

	offMSI        = 0x0a0 // and Message Control
	offMSIAddress = offMSI + 0x04
	offMSIData    = offMSI + 0x0c
	offMSIMask    = offMSI + 0x10
	offMSIPending = offMSI + 0x14

	offAER             = 0x100
	offUncorrStatus    = offAER + 0x04
	offUncorrMask      = offAER + 0x08
	offUncorrSeverity  = offAER + 0x0c
	offCorrStatus      = offAER + 0x10
	offCorrMask        = offAER + 0x14
	offAERControl      = offAER + 0x18
	offHeaderLog       = offAER + 0x1c // 4 registers
	offDeviceSerial    = 0x148
	offDeviceSerialLow = offDeviceSerial + 0x04
	offRebar           = 0x160
	offRebarCap        = offRebar + 0x04 // of the first BAR; 8 bytes for each
	offRebarCtl        = offRebar + 0x08
)

// Capability identifiers.
const (
	capPM       = 0x01
	capMSI      = 0x05
	capPCIe     = 0x10
	capMSIX     = 0x11
	extCapAER   = 0x0001
	extCapSerNo = 0x0003
	extCapARI   = 0x000e
	extCapSRIOV = 0x0010
	extCapRebar = 0x0015
)

// Bits that this package acts on.
const (
	commandMemory    = 1 << 1
	commandBusMaster = 1 << 2
	commandParity    = 1 << 6
	commandSERR      = 1 << 8
	commandINTxOff   = 1 << 10

	interruptPinA = 1 << 8

	statusINTx          = 1 << (16 + 3)
	statusCapList       = 1 << (16 + 4)
	statusSignaledAbort = 1 << (16 + 11)
	statusTargetAbort   = 1 << (16 + 12) // received
	statusMasterAbort   = 1 << (16 + 13) // received
	statusSERR          = 1 << (16 + 14)
	statusParity        = 1 << (16 + 15)
	statusErrors        = 0xf900 << 16 // those above, and master data parity

	pmcsrState       = 0x3
	pmcsrNoSoftReset = 1 << 3

	devCtlCorr       = 1 << 0 // report by messages: correctable errors, …
	devCtlNonFatal   = 1 << 1
	devCtlFatal      = 1 << 2
	devCtlUnsupp     = 1 << 3
	devCtlMaxPayload = 7 << 5
	devCtlFLR        = 1 << 15
	devStaCorr       = 1 << (16 + 0)
	devStaNonFatal   = 1 << (16 + 1)
	devStaFatal      = 1 << (16 + 2)
	devStaUnsupp     = 1 << (16 + 3)
	devStaPending    = 1 << (16 + 5)

	linkSpeed = 2       // 5 GT/s
	linkWidth = 16 << 4 // ×16
	linkCtl2  = 0xff9f  // what of Link Control 2 is stored

	msixMasked  = 1 << (16 + 14)
	msixEnabled = 1 << (16 + 15)

	msiEnabled       = 1 << (16 + 0)
	msiCapableShift  = 16 + 1 // Multiple Message Capable, log2
	msiMessages      = 7 << msiMessagesShift
	msiMessagesShift = 16 + 4 // Multiple Message Enable, log2
	msi64Bit         = 1 << (16 + 7)
	msiMaskable      = 1 << (16 + 8)

	rebarSize      = 0x3f << rebarSizeShift
	rebarSizeShift = 8 // log2 of the size in MiB

	aerFirstError = 0x1f
)

// Errors that the function can log; all others read as zero and ignore writes.
const (
	uncorrErrors = 1<<DataLinkProtocol | 1<<PoisonedTLP | 1<<FlowControl | 1<<CompletionTimeout |
		1<<CompleterAbort | 1<<UnexpectedCompletion | 1<<ReceiverOverflow | 1<<MalformedTLP |
		1<<UnsupportedRequest | 1<<UncorrectableInternal
	uncorrFatal = 1<<DataLinkProtocol | 1<<FlowControl | 1<<ReceiverOverflow | 1<<MalformedTLP |
		1<<UncorrectableInternal // default severity, §7.8.4.4
	corrErrors = 1<<ReceiverError | 1<<BadTLP | 1<<BadDLLP | 1<<ReplayRollover | 1<<ReplayTimeout |
		1<<AdvisoryNonFatal | 1<<CorrectedInternal
	corrMasked = 1<<AdvisoryNonFatal | 1<<CorrectedInternal // default mask, §7.8.4.6
)

// BAR is one 64-bit memory BAR.
type BAR struct {
	Size         uint64 // bytes, a power of two, at least 4096; 0 means that the BAR is absent
	Prefetchable bool
	Resizable    bool // the host may choose a smaller size, down to 1 MiB
}

// Config is the identity of a function.
type Config struct {
	VendorID, DeviceID             uint16
	SubsystemVendorID, SubsystemID uint16
	Revision                       uint8
	Class                          [3]uint8 // base class, sub-class, programming interface
	BARs                           [6]BAR   // 0, 2 and 4 only: a 64-bit BAR takes two registers
	Vectors                        int      // 1 to MaxVectors
	MSIX, MSI                      bool     // which capabilities there are; INTx always is
	Serial                         uint64   // IEEE EUI-64
	VFs                            int      // virtual functions of a physical function, with the same BARs
	Virtual                        bool     // this is a virtual function
	NoSerial                       bool     // there is no Device Serial Number capability, and Serial means nothing

	// Own are doublewords of the device's own, where no capability is; see Function.SetOwn.
	Own []mmio.Register
}

// Validate reports the first rule that c breaks.
func (c Config) Validate() error {
	if c.VendorID == 0xffff {
		return fmt.Errorf("pci: config: vendor ID 0xffff means that no function is present (§7.5.1.1.1): set the vendor's")
	}
	for i, b := range c.BARs {
		switch {
		case b == BAR{}:
		case i%2 != 0:
			return fmt.Errorf("pci: config: BAR%d is the upper half of 64-bit BAR%d: use BAR 0, 2 or 4", i, i-1)
		case b.Size < minBARSize || bits.OnesCount64(b.Size) != 1:
			return fmt.Errorf("pci: config: BAR%d: size %#x is not a power of two of at least %d: round it up", i, b.Size, minBARSize)
		case b.Resizable && (b.Size < minResizable || b.Size > maxResizable):
			return fmt.Errorf("pci: config: BAR%d: a resizable BAR has 1 MiB to 128 TiB (§7.8.6.2), not %#x: make it fixed", i, b.Size)
		}
	}
	if c.MSIX && c.BARs[MSIXBAR].Size < minMSIXBARLen {
		return fmt.Errorf("pci: config: BAR%d: size %#x does not hold the MSI-X structures: use at least %#x",
			MSIXBAR, c.BARs[MSIXBAR].Size, minMSIXBARLen)
	}
	// mmio banks are addressed by 32 bits.
	if c.MSIX && c.BARs[MSIXBAR].Size > 1<<31 {
		return fmt.Errorf("pci: config: BAR%d: size %#x exceeds 2 GiB: use %#x", MSIXBAR, c.BARs[MSIXBAR].Size, minMSIXBARLen)
	}
	if c.VFs < 0 || c.VFs > MaxVFs || c.VFs > 0 && c.Virtual {
		return fmt.Errorf("pci: config: %d virtual functions: use 0 to %d, and none in a virtual function", c.VFs, MaxVFs)
	}
	if c.Vectors < 1 || c.Vectors > MaxVectors {
		return fmt.Errorf("pci: config: %d vectors: use 1 to %d", c.Vectors, MaxVectors)
	}
	taken := map[uint32]string{}
	for _, r := range c.registers() {
		if r.Off%4 != 0 || r.Off >= ConfigSpaceSize || taken[r.Off] != "" {
			return fmt.Errorf("pci: config: register %s at %#x is misaligned, outside, or where %q is: move it", r.Name, r.Off, taken[r.Off])
		}
		taken[r.Off] = r.Name
	}
	return nil
}

// msiCapable returns log2 of the number of messages that MSI asks for: that of the
// vectors, rounded up.
func (c Config) msiCapable() int { return bits.Len(uint(c.Vectors - 1)) }

// rebarCode returns the BAR Size field for a size of at least 1 MiB.
func rebarCode(size uint64) uint32 { return uint32(bits.TrailingZeros64(size / minResizable)) }

// configRegister is a doubleword of configuration space. Sticky bits survive
// Hot reset and FLR (RWS, RW1CS, ROS in the specification); flrKeep bits
// survive only FLR (§6.6.2 lists them).
type configRegister struct {
	mmio.Register
	sticky, flrKeep uint32
}

// registers returns the configuration space of c, in order of offsets. What
// is not listed reads zero and ignores writes (§7.5.1).
func (c Config) registers() []configRegister {
	class := uint32(c.Class[0])<<24 | uint32(c.Class[1])<<16 | uint32(c.Class[2])<<8
	rows := []configRegister{
		row("ID", offID, uint32(c.DeviceID)<<16|uint32(c.VendorID), 0, 0,
			"§7.5.1.1.1", "Vendor ID and Device ID."),
		row("COMMAND_STATUS", offCommand, statusCapList,
			commandMemory|commandBusMaster|commandParity|commandSERR|commandINTxOff, statusErrors,
			"§7.5.1.1.3", "Command and Status."),
		row("CLASS_REVISION", offClass, class|uint32(c.Revision), 0, 0,
			"§7.5.1.1.6", "Class Code and Revision ID."),
		row("CACHE_LINE", offCacheLine, 0, 0xff, 0,
			"§7.5.1.1.7", "Cache Line Size, without effect; header type 0."),
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
		off := uint32(offBAR0 + 4*i)
		rows = append(rows,
			row(fmt.Sprintf("BAR%d", i), off, low, uint32(mask), 0,
				"§7.5.1.2.1", fmt.Sprintf("Base address, low half; %#x bytes.", b.Size)),
			row(fmt.Sprintf("BAR%d", i+1), off+4, 0, uint32(mask>>32), 0,
				"§7.5.1.2.1", "Base address, high half."))
	}
	// The list goes PM, PCI Express, MSI-X, MSI.
	var afterPCIe, afterMSIX uint32
	if c.MSI {
		afterPCIe, afterMSIX = offMSI, offMSI
	}
	if c.MSIX {
		afterPCIe = offMSIX
	}
	rows = append(rows,
		row("SUBSYSTEM", offSubsystem, uint32(c.SubsystemID)<<16|uint32(c.SubsystemVendorID), 0, 0,
			"§7.5.1.2.3", "Subsystem Vendor ID and Subsystem ID."),
		row("CAP_PTR", offCapPtr, offPM, 0, 0, "§7.5.1.1.11", "Capabilities Pointer."),
		row("INTERRUPT", offIntLine, interruptPinA, 0xff, 0, "§7.5.1.1.12", "Interrupt Line, without effect; pin INTA."),

		// Version 3, no D1, D2, PME.
		row("PM_CAP", offPM, capPM|offPCIe<<8|3<<16, 0, 0, "§7.5.2.1", "Power Management Capabilities."),
		row("PM_CSR", offPMCSR, pmcsrNoSoftReset, pmcsrState, 0,
			"§7.5.2.2", "Power Management Control/Status; D3hot to D0 keeps all state."),

		// Capability version 2, endpoint.
		row("PCIE_CAP", offPCIe, capPCIe|afterPCIe<<8|2<<16, 0, 0, "§7.5.3.2", "PCI Express Capabilities."),
		// Max_Payload_Size 256, extended tags, role-based errors, FLR.
		row("DEV_CAP", offDevCap, 1|1<<5|1<<15|1<<28, 0, 0, "§7.5.3.3", "Device Capabilities."),
		// Relaxed ordering, extended tags and no-snoop enabled, 512-byte read
		// requests. Bits 9 and 10 (phantom functions, aux power) do not exist.
		row("DEV_CTL_STATUS", offDevCtl, 1<<4|1<<8|1<<11|2<<12, 0x79ff, 0xf<<16,
			"§7.5.3.4", "Device Control and Device Status; bit 15 resets the function and reads zero.").
			keep(devCtlMaxPayload),
		// 5 GT/s ×16, no ASPM (optionality compliant). A faster link would need the
		// capabilities of equalization and margining, which only hardware can mean.
		row("LINK_CAP", offLinkCap, linkSpeed|linkWidth|1<<22, 0, 0, "§7.5.3.6", "Link Capabilities."),
		// ASPM, read completion boundary, common clock, extended synch; the
		// status shows the link trained to its best, with the slot's clock.
		row("LINK_CTL_STATUS", offLinkCtl, (linkSpeed|linkWidth|1<<12)<<16, 0xcb, 0,
			"§7.5.3.7", "Link Control and Link Status.").keep(0xcb),
		row("DEV_CAP2", offDevCap2, 1<<4, 0, 0, "§7.5.3.15", "Device Capabilities 2: Completion Timeout Disable."),
		row("DEV_CTL2", offDevCtl2, 0, 1<<4, 0, "§7.5.3.16", "Device Control 2."),
		row("LINK_CAP2", offLinkCap2, 3<<1, 0, 0, "§7.5.3.18", "Link Capabilities 2: 2.5 and 5 GT/s."),
		// Target speed, compliance, margins and preset are stored; there is no
		// selectable de-emphasis and no autonomous change of speed.
		row("LINK_CTL2_STATUS2", offLinkCtl2, linkSpeed, linkCtl2, 0,
			"§7.5.3.19", "Link Control 2 and Link Status 2.").stick(linkCtl2))
	if c.MSIX {
		rows = append(rows,
			row("MSIX_CAP", offMSIX, capMSIX|afterMSIX<<8|uint32(c.Vectors-1)<<16, msixMasked|msixEnabled, 0,
				"§7.7.2.2", "MSI-X Message Control."),
			row("MSIX_TABLE", offMSIXTable, MSIXTableOff|MSIXBAR, 0, 0, "§7.7.2.3", "Table offset and BAR."),
			row("MSIX_PBA", offMSIXPBA, MSIXPBAOff|MSIXBAR, 0, 0, "§7.7.2.4", "Pending bit array offset and BAR."))
	}
	if c.MSI {
		capable := c.msiCapable()
		rows = append(rows,
			row("MSI_CAP", offMSI, capMSI|uint32(capable)<<msiCapableShift|msi64Bit|msiMaskable, msiEnabled|msiMessages, 0,
				"§7.7.1.2", "MSI Message Control."),
			row("MSI_ADDR_LO", offMSIAddress, 0, 0xffff_fffc, 0, "§7.7.1.3", "Message address, low half."),
			row("MSI_ADDR_HI", offMSIAddress+4, 0, 0xffff_ffff, 0, "§7.7.1.4", "Message address, high half."),
			row("MSI_DATA", offMSIData, 0, 0xffff, 0, "§7.7.1.5", "Message data of message 0."),
			row("MSI_MASK", offMSIMask, 0, uint32(uint64(1)<<(1<<capable)-1), 0, "§7.7.1.7", "Mask bits, by message."),
			row("MSI_PENDING", offMSIPending, 0, 0, 0, "§7.7.1.8", "Pending bits, by message."))
	}
	// The extended list goes AER, serial number, Resizable BAR, ARI, SR-IOV.
	var afterSerial, afterRebar uint32
	if c.VFs != 0 {
		afterSerial, afterRebar = offARI, offARI
	}
	if c.resizable() != 0 {
		afterSerial = offRebar
	}
	afterAER := uint32(offDeviceSerial)
	if c.NoSerial {
		afterAER = afterSerial
	}
	rows = append(rows,
		row("AER_CAP", offAER, extCapAER|2<<16|afterAER<<20, 0, 0, "§7.8.4.1", "Advanced Error Reporting."),
		row("AER_UNCORR_STATUS", offUncorrStatus, 0, 0, uncorrErrors,
			"§7.8.4.2", "Uncorrectable Error Status.").stick(uncorrErrors),
		row("AER_UNCORR_MASK", offUncorrMask, 1<<UncorrectableInternal, uncorrErrors, 0,
			"§7.8.4.3", "Uncorrectable Error Mask.").stick(uncorrErrors),
		row("AER_UNCORR_SEVERITY", offUncorrSeverity, uncorrFatal, uncorrErrors, 0,
			"§7.8.4.4", "Uncorrectable Error Severity; one is fatal.").stick(uncorrErrors),
		row("AER_CORR_STATUS", offCorrStatus, 0, 0, corrErrors,
			"§7.8.4.5", "Correctable Error Status.").stick(corrErrors),
		row("AER_CORR_MASK", offCorrMask, corrMasked, corrErrors, 0,
			"§7.8.4.6", "Correctable Error Mask.").stick(corrErrors),
		row("AER_CONTROL", offAERControl, 0, 0, 0,
			"§7.8.4.7", "First Error Pointer; no ECRC, one header.").stick(aerFirstError))
	for i := range uint32(4) {
		rows = append(rows, row(fmt.Sprintf("AER_HEADER_LOG%d", i), offHeaderLog+4*i, 0, 0, 0,
			"§7.8.4.8", "Header of the packet of the first error.").stick(^uint32(0)))
	}
	if !c.NoSerial {
		rows = append(rows,
			row("SERIAL_CAP", offDeviceSerial, extCapSerNo|1<<16|afterSerial<<20, 0, 0, "§7.9.3.1", "Device Serial Number."),
			row("SERIAL_LO", offDeviceSerialLow, uint32(c.Serial), 0, 0, "§7.9.3.2", "Serial number, low half."),
			row("SERIAL_HI", offDeviceSerialLow+4, uint32(c.Serial>>32), 0, 0, "§7.9.3.2", "Serial number, high half."))
	}
	if c.resizable() != 0 {
		rows = append(rows, row("REBAR_CAP", offRebar, extCapRebar|1<<16|afterRebar<<20, 0, 0, "§7.8.6.1", "Resizable BAR."))
	}
	entry := uint32(0)
	for i, b := range c.BARs {
		if !b.Resizable {
			continue
		}
		code := rebarCode(b.Size)
		ctl := uint32(i) | code<<rebarSizeShift
		if entry == 0 {
			ctl |= uint32(c.resizable()) << 5
		}
		rows = append(rows,
			row(fmt.Sprintf("REBAR%d_CAP", i), offRebarCap+8*entry, uint32(uint64(2)<<code-1)<<4, 0, 0,
				"§7.8.6.2", "Sizes from 1 MiB (bit 4) to all of it."),
			row(fmt.Sprintf("REBAR%d_CTL", i), offRebarCtl+8*entry, ctl, rebarSize, 0,
				"§7.8.6.3", "Resizable BAR Control: BAR, number of BARs, size."))
		entry++
	}
	if c.VFs != 0 {
		rows = append(rows, c.sriovRegisters()...)
	}
	for _, r := range c.Own {
		rows = append(rows, configRegister{Register: r})
	}
	if c.Virtual {
		rows = virtual(rows)
	}
	return rows
}

// resizable returns the number of resizable BARs.
func (c Config) resizable() int {
	n := 0
	for _, b := range c.BARs {
		if b.Resizable {
			n++
		}
	}
	return n
}

func row(name string, off, reset, rw, w1c uint32, spec, doc string) configRegister {
	return configRegister{Register: mmio.Register{
		Name: name, Off: off, Reset: reset, RW: rw, W1C: w1c, Spec: spec, Doc: doc,
	}}
}

func (r configRegister) stick(bits uint32) configRegister { r.sticky = bits; return r }
func (r configRegister) keep(bits uint32) configRegister  { r.flrKeep = bits; return r }
