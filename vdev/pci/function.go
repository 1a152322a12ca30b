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
	// MSIX: MSI-X Enable or Function Mask changed.
	MSIX func(enabled, masked bool)
}

// Function is the configuration space of one endpoint. The caller's Device.mu
// guards it.
type Function struct {
	hooks     Hooks
	registers []configRegister
	row       [ConfigSpaceSize / 4]*configRegister // nil: reads zero, ignores writes
	value     [ConfigSpaceSize / 4]uint32
	msix      *MSIX
}

// New returns a function after a cold reset, or the error of cfg.Validate.
func New(cfg Config, hooks Hooks) (*Function, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	f := &Function{hooks: hooks, registers: cfg.registers()}
	for i := range f.registers {
		r := &f.registers[i]
		f.row[r.Off/4] = r
	}
	f.msix = newMSIX(cfg.MSIXVectors, uint32(cfg.BARs[MSIXBAR].Size))
	f.Reset(ResetCold)
	return f, nil
}

// MSIX returns the function's interrupts, which also serve BAR4.
func (f *Function) MSIX() *MSIX { return f.msix }

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
		p[i] = byte(f.value[at/4] >> (8 * (at % 4)))
	}
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
	if off == offPMCSR {
		// A write of an unsupported state is discarded (§7.5.2.2).
		if s := PowerState(v & pmcsrState); s != D0 && s != D3Hot {
			rw &^= pmcsrState
		}
	}
	now := (old&^rw | v&rw) &^ (v & r.W1C)
	f.value[off/4] = now
	changed := old ^ now

	switch off {
	case offCommand:
		if changed&0xffff != 0 {
			f.msix.setReady(f.BusMaster())
			call(f.hooks.Command)
		}
	case offPMCSR:
		if changed&pmcsrState != 0 {
			f.msix.setReady(f.BusMaster())
			if f.hooks.Power != nil {
				f.hooks.Power(f.Power())
			}
		}
	case offDevCtl:
		if v&devCtlFLR != 0 {
			f.Reset(ResetFLR)
			call(f.hooks.FLR)
		}
	case offMSIX:
		if changed != 0 {
			enabled, masked := now&msixEnabled != 0, now&msixMasked != 0
			f.msix.setControl(enabled, masked)
			if f.hooks.MSIX != nil {
				f.hooks.MSIX(enabled, masked)
			}
		}
	}
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

// Reset resets configuration space and MSI-X as kind requires. Attached
// signalers, their masks and the table's owner belong to the transport and
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
	f.msix.reset()
}

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
