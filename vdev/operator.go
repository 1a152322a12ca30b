// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"npuemu/firmware"
	"npuemu/vdev/pci"
)

// Status is what an operator is told of a device, at one moment.
type Status struct {
	Arch         string   `json:"arch"`
	PowerState   string   `json:"power_state"`
	MemorySpace  bool     `json:"memory_space"` // the BARs answer (§1.2)
	BusMaster    bool     `json:"bus_master"`
	Interrupts   string   `json:"interrupts"` // INTx, MSI or MSI-X
	Removed      bool     `json:"removed"`    // by the operator (§9.4)
	Resetting    bool     `json:"resetting"`
	BusReads     bool     `json:"bus_reads"` // Transactions Pending
	DeviceStatus uint16   `json:"device_status"`
	Messages     Messages `json:"error_messages"`

	// AER's registers (§1.6).
	Uncorrectable uint32    `json:"uncorrectable_status"`
	Correctable   uint32    `json:"correctable_status"`
	FirstError    uint8     `json:"first_error"`
	Header        [4]uint32 `json:"header_log"`

	Health   *Health   `json:"health,omitempty"` // of a card with RAS (§12)
	Findings []Finding `json:"findings"`
}

// Messages counts the error messages that the host wanted, since New.
type Messages struct {
	Correctable uint64 `json:"err_cor"`
	NonFatal    uint64 `json:"err_nonfatal"`
	Fatal       uint64 `json:"err_fatal"`
}

// Status returns what the device is doing.
func (d *Device) Status() Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.fn.Errors()
	return Status{
		Arch: d.cfg.Arch, PowerState: d.fn.Power().String(), MemorySpace: d.fn.MemoryEnabled(), BusMaster: d.fn.BusMaster(),
		Interrupts: d.fn.Interrupts().String(), Removed: d.removed, Resetting: d.resets != 0, BusReads: d.mem.Reading(),
		DeviceStatus: e.Device, Uncorrectable: e.Uncorrectable, Correctable: e.Correctable, FirstError: e.FirstError, Header: e.Header,
		Messages: Messages{d.messages[pci.ErrCor], d.messages[pci.ErrNonFatal], d.messages[pci.ErrFatal]},
		Health:   d.healthLocked(), Findings: d.findings.list(),
	}
}

// Debugger returns an external debugger's road to the control processor.
func (d *Device) Debugger() *firmware.Debugger { return d.fw.Debugger() }

// TraceControlProcessor writes a line for each instruction of the control processor to w (docs/debugging.md), with whole lines in
// each Write. It is called before Run.
func (d *Device) TraceControlProcessor(w io.Writer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fw.SetTrace(w)
}

// ErrorKinds lists what InjectError takes.
func ErrorKinds() []string {
	var l []string
	for _, k := range pci.ErrorKinds() {
		l = append(l, k.Name)
	}
	return l
}

// InjectError makes the function have an error of the link or of its own (§1.6). header is the
// packet that it is about, at most four doublewords, for those kinds that are about one. It returns
// the message that the host wanted for it.
func (d *Device) InjectError(kind string, header []uint32) (pci.ErrorMessage, error) {
	all := pci.ErrorKinds()
	i := slices.IndexFunc(all, func(k pci.ErrorKind) bool { return k.Name == kind })
	switch {
	case i < 0:
		return 0, fmt.Errorf("vdev: inject: there is no error %q: use one of %s", kind, strings.Join(ErrorKinds(), ", "))
	case len(header) != 0 && !all[i].Packet:
		return 0, fmt.Errorf("vdev: inject: %s is about no packet: leave the header out", kind)
	case len(header) > 4:
		return 0, fmt.Errorf("vdev: inject: a header of %d doublewords: use 1 to 4 doublewords", len(header))
	}
	var h [4]uint32
	copy(h[:], header)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.removed {
		return 0, errRemoved
	}
	return d.fn.Inject(all[i], h), nil
}
