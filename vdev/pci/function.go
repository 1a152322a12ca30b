// SPDX-License-Identifier: Apache-2.0

package pci

import (
	"encoding/binary"
	"fmt"
	"io"

	"npuemu/mmio"
)

// PowerState is a power management state (§5.3).
type PowerState uint8

const (
	D0    PowerState = 0
	D3Hot PowerState = 3
)

func (s PowerState) String() string {
	switch s {
	case D0:
		return "D0"
	case D3Hot:
		return "D3hot"
	}
	return fmt.Sprintf("PowerState(%d)", uint8(s))
}

// ResetKind says how much a reset resets.
type ResetKind uint8

const (
	// ResetFLR is a Function Level Reset (§6.6.2): all but sticky bits,
	// Max_Payload_Size and link control.
	ResetFLR ResetKind = iota
	// ResetHot is a conventional reset with power applied (§6.6.1): all but
	// sticky bits. A reset that a transport asks for is of this kind.
	ResetHot
	// ResetCold is a conventional reset by power: everything.
	ResetCold
)

func (k ResetKind) String() string {
	switch k {
	case ResetFLR:
		return "FLR"
	case ResetHot:
		return "hot reset"
	case ResetCold:
		return "cold reset"
	}
	return fmt.Sprintf("ResetKind(%d)", uint8(k))
}

// Hooks tell the board what the host did in configuration space. They run
// inside [Function.Write], when the register has its new value, and may call
// the Function. A nil hook is skipped. Reset runs none of them.
type Hooks struct {
	// FLR: the host set Initiate Function Level Reset. The Function has reset
	// itself; the board resets the rest.
	FLR func()
	// Power: the power state changed.
	Power func(PowerState)
	// Command: the Command register changed; see MemoryEnabled, BusMaster.
	Command func()
	// VFs: how many virtual functions are there, or whether their BARs answer, may
	// have changed; see Function.VFs.
	VFs func()
	// Error: the host wants this error message. No transport carries it.
	Error func(ErrorMessage)
	// Pending reports whether the function waits for completions of its own requests:
	// Transactions Pending. It is asked with the caller's lock held, and must not call the Function.
	Pending func() bool
	// Mistake: a write breaks rule, and a part of it was discarded or makes no sense. id
	// is short and stable.
	Mistake func(id, rule, evidence string)
}

// Function is the configuration space of one endpoint. The caller's Device.mu
// guards it.
type Function struct {
	hooks     Hooks
	registers []configRegister
	row       [ConfigSpaceSize / 4]*configRegister // nil: reads zero, ignores writes
	value     [ConfigSpaceSize / 4]uint32
	bars      [6]BAR // as built; BARSize is the size now
	maxVFs    int
	virtual   bool
	aerHeld   bool // First Error Pointer and header log show an error that is still recorded
	irq       *interrupts
}

// New returns a function after a cold reset, or the error of cfg.Validate.
func New(cfg Config, hooks Hooks) (*Function, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	f := &Function{hooks: hooks, registers: cfg.registers(), bars: cfg.BARs, maxVFs: cfg.VFs, virtual: cfg.Virtual, irq: newInterrupts(cfg, hooks.Mistake)}
	for i := range f.registers {
		r := &f.registers[i]
		f.row[r.Off/4] = r
	}
	f.Reset(ResetCold)
	return f, nil
}

// MSIX returns the function's MSI-X, which also serves BAR4.
func (f *Function) MSIX() *MSIX { return &f.irq.msix }

// MSI returns the function's MSI.
func (f *Function) MSI() *MSI { return &f.irq.msi }

// INTx returns the function's interrupt pin.
func (f *Function) INTx() *INTx { return &f.irq.intx }

// Registers returns the configuration space for documentation, in order of
// offsets.
func (f *Function) Registers() []mmio.Register {
	rs := make([]mmio.Register, len(f.registers))
	for i, r := range f.registers {
		rs[i] = r.Register
	}
	return rs
}

// Read serves a host read of len(p) bytes at byte offset off of configuration
// space, of any width and alignment. What is outside reads all-ones.
func (f *Function) Read(off uint64, p []byte) {
	for i := range p {
		p[i] = 0xff
	}
	if off >= ConfigSpaceSize {
		return
	}
	n := min(uint64(len(p)), ConfigSpaceSize-off)
	for i := range n {
		at := off + i
		p[i] = byte(f.read(uint32(at&^3)) >> (8 * (at % 4)))
	}
}

// read returns the doubleword at off; interrupts and requests change without Device.mu.
func (f *Function) read(off uint32) uint32 {
	v := f.value[off/4]
	switch {
	case off == offDevCtl && f.hooks.Pending != nil && f.hooks.Pending():
		v |= devStaPending
	case off == offCommand && !f.virtual && f.irq.intx.pending():
		v |= statusINTx
	case off == offMSIPending && f.row[off/4] != nil:
		v = f.irq.msi.pending()
	}
	return v
}

// Write serves a host write of p at byte offset off, of any width and
// alignment: one write with byte enables to each doubleword that it touches,
// in ascending order. What is outside is ignored.
func (f *Function) Write(off uint64, p []byte) {
	for len(p) > 0 && off < ConfigSpaceSize {
		var v, enable [4]byte
		n := copy(v[off%4:], p)
		for i := range n {
			enable[off%4+uint64(i)] = 0xff
		}
		f.write(uint32(off&^3), binary.LittleEndian.Uint32(v[:]), binary.LittleEndian.Uint32(enable[:]))
		off, p = off+uint64(n), p[n:]
	}
}

// write applies v to the doubleword at off. Bits outside enable are zero in v.
func (f *Function) write(off, v, enable uint32) {
	r := f.row[off/4]
	if r == nil {
		return
	}
	old := f.value[off/4]
	rw := r.RW & enable
	bar, resizes := f.rebarAt(off)
	switch {
	case off == offPMCSR:
		// A write of an unsupported state is discarded (§7.5.2.2).
		if s := PowerState(v & pmcsrState); enable&pmcsrState != 0 && s != D0 && s != D3Hot {
			rw &^= pmcsrState
			f.mistake("config-power-state", "the function has the power states D0 and D3hot (§1.4)", off, v)
		}
	case off == offMSI:
		if n := v & msiMessages >> msiMessagesShift; n > old>>msiCapableShift&7 {
			rw &^= msiMessages
			f.mistake("config-msi-messages", "Multiple Message Enable is at most Multiple Message Capable (§1.4)", off, v)
		}
	case resizes && (old^v)&rw&rebarSize != 0:
		switch {
		case f.value[offCommand/4]&commandMemory != 0:
			rw &^= rebarSize
			f.mistake("config-bar-resize", "a BAR is resized while Memory Space Enable is clear (§1.4)", off, v)
		case v&rebarSize>>rebarSizeShift > rebarCode(f.bars[bar].Size):
			rw &^= rebarSize
			f.mistake("config-bar-resize", "a BAR gets a size that Resizable BAR Capability announces (§1.4)", off, v)
		}
	}
	if f.maxVFs != 0 {
		rw = f.sriovWrite(&r.Register, v, rw)
	}
	now := (old&^rw | v&rw) &^ (v & r.W1C)
	f.value[off/4] = now
	changed := old ^ now

	switch {
	case off == offCommand:
		if changed&0xffff != 0 {
			f.stateChanged()
			call(f.hooks.Command)
		}
	case off == offPMCSR:
		if changed&pmcsrState != 0 {
			f.stateChanged()
			if f.hooks.Power != nil {
				f.hooks.Power(f.Power())
			}
		}
	case off == offDevCtl:
		if v&devCtlFLR != 0 {
			f.Reset(ResetFLR)
			call(f.hooks.FLR)
		}
	case off == offUncorrStatus && !f.virtual:
		f.releaseLog()
	case off == offMSIX && changed != 0:
		f.irq.msix.setControl(now&msixEnabled != 0, now&msixMasked != 0)
		f.checkMessages(off, now)
	case (off == offMSI || off == offMSIMask) && changed != 0:
		control := f.value[offMSI/4]
		f.irq.msi.setControl(control&msiEnabled != 0, 1<<(control&msiMessages>>msiMessagesShift), f.value[offMSIMask/4])
		f.checkMessages(off, now)
	case resizes && changed != 0:
		f.setBARMask(bar)
	case off == offSRIOVPage && f.maxVFs != 0:
		f.setVFBARMasks()
	case off == offSRIOVCtl && changed != 0:
		call(f.hooks.VFs)
	}
}

// stateChanged tells interrupts of the Command register and the power state.
func (f *Function) stateChanged() {
	f.irq.setState(f.Power(), f.BusMaster(), f.value[offCommand/4]&commandINTxOff != 0)
}

// checkMessages finds that the host turned both kinds of messages on.
func (f *Function) checkMessages(off, v uint32) {
	if f.value[offMSI/4]&msiEnabled != 0 && f.value[offMSIX/4]&msixEnabled != 0 {
		f.mistake("config-msi-and-msix", "MSI and MSI-X are not enabled together; MSI-X is used (§8.1)", off, v)
	}
}

func (f *Function) mistake(id, rule string, off, v uint32) {
	if f.hooks.Mistake != nil {
		f.hooks.Mistake(id, rule, fmt.Sprintf("%#x = %#x", off, v))
	}
}

// rebarAt returns the BAR whose Resizable BAR Control is at off.
func (f *Function) rebarAt(off uint32) (bar int, ok bool) {
	at := uint32(offRebarCtl)
	for i, b := range f.bars {
		if !b.Resizable {
			continue
		}
		if off == at {
			return i, true
		}
		at += 8
	}
	return 0, false
}

// BARSize returns how many bytes a BAR has now: with a resizable BAR, what the host
// chose.
func (f *Function) BARSize(bar int) uint64 {
	b := f.bars[bar]
	if !b.Resizable {
		return b.Size
	}
	at := uint32(offRebarCtl)
	for _, lower := range f.bars[:bar] {
		if lower.Resizable {
			at += 8
		}
	}
	return minResizable << (f.value[at/4] & rebarSize >> rebarSizeShift)
}

// setBARMask makes the address bits of a resizable BAR those of its size; what the
// register held stays as far as it is an address still.
func (f *Function) setBARMask(bar int) {
	mask := ^(f.BARSize(bar) - 1)
	low, high := f.row[offBAR0/4+bar], f.row[offBAR0/4+bar+1]
	low.RW, high.RW = uint32(mask), uint32(mask>>32)
	f.value[low.Off/4] = f.value[low.Off/4]&low.RW | low.Register.Reset
	f.value[high.Off/4] &= high.RW
}

func call(hook func()) {
	if hook != nil {
		hook()
	}
}

// Power returns the power state.
func (f *Function) Power() PowerState { return PowerState(f.value[offPMCSR/4] & pmcsrState) }

// MemoryEnabled reports whether the function answers memory requests: Memory
// Space Enable is set and the power state is D0. Otherwise an access to a BAR
// is an unsupported request: it reads all-ones and ignores writes.
func (f *Function) MemoryEnabled() bool { return f.commandInD0(commandMemory) }

// BusMaster reports whether the function may send memory requests, which
// include interrupts: Bus Master Enable is set and the power state is D0.
func (f *Function) BusMaster() bool { return f.commandInD0(commandBusMaster) }

func (f *Function) commandInD0(bit uint32) bool {
	return f.value[offCommand/4]&bit != 0 && f.Power() == D0
}

// Reset resets configuration space and interrupts as kind requires. Attached
// signalers, the transport's masks and the table's owner belong to the transport and
// stay. Reset runs no hook.
func (f *Function) Reset(kind ResetKind) {
	for i := range f.registers {
		r := &f.registers[i]
		var keep uint32
		switch kind {
		case ResetFLR:
			keep = r.sticky | r.flrKeep
		case ResetHot:
			keep = r.sticky
		}
		v := &f.value[r.Off/4]
		*v = *v&keep | r.Register.Reset&^keep
	}
	for i, b := range f.bars {
		if b.Resizable {
			f.setBARMask(i)
		}
	}
	if f.maxVFs != 0 {
		f.setVFBARMasks()
	}
	f.releaseLog()
	f.irq.reset()
}

// SetOwn sets bits of a register of Config.Own, as the device does; no mask applies.
func (f *Function) SetOwn(off, bits uint32) { f.value[off/4] |= bits }

// WriteDump writes the configuration space as text that `lspci -F` reads, at
// address 00:00.0.
func (f *Function) WriteDump(w io.Writer) error {
	text := []byte("00:00.0 npuemu\n")
	var line [16]byte
	for off := uint64(0); off < ConfigSpaceSize; off += 16 {
		f.Read(off, line[:])
		text = fmt.Appendf(text, "%02x: % x\n", off, line)
	}
	if _, err := w.Write(text); err != nil {
		return fmt.Errorf("pci: dump: %w", err)
	}
	return nil
}
