// SPDX-License-Identifier: Apache-2.0

package gokvm

import (
	"encoding/binary"
	"log/slog"

	"npuemu/vdev/local"
	"npuemu/vdev/vfiouser"
)

// deviceFunction is the device as a function of the bus. It follows what the guest
// writes to know where the BARs are, and where messages of MSI go.
type deviceFunction struct {
	dev      *local.Client
	log      *slog.Logger
	sizes    [6]uint64 // of the BARs; 0: none
	bars     [6]uint64 // where they are, while open
	open     bool      // the function answers memory requests
	msi      msi
	moved    func() // called when bars or open changed
	rerouted func() // called when msi changed
}

// msi is what the guest has set up of MSI.
type msi struct {
	on           bool
	count        int // messages that it has allocated, a power of two
	lo, hi, data uint32
}

// newFunction finds the BARs of dev, which is in the state after reset.
func newFunction(dev *local.Client, log *slog.Logger) (*deviceFunction, error) {
	f := &deviceFunction{dev: dev, log: log, moved: func() {}, rerouted: func() {}}
	for i := range f.sizes {
		r, err := dev.RegionInfo(vfiouser.RegionBAR0 + i)
		if err != nil {
			return nil, err
		}
		f.sizes[i] = r.Size
	}
	f.update()
	return f, nil
}

func (f *deviceFunction) readConfig(off uint64, p []byte) {
	if err := f.dev.ReadRegion(vfiouser.RegionConfig, off, p); err != nil {
		f.log.Debug("configuration read not done; it gives all ones", "off", off, "rule", err)
		fillOnes(p)
	}
}

func (f *deviceFunction) writeConfig(off uint64, p []byte) {
	if err := f.dev.WriteRegion(vfiouser.RegionConfig, off, p); err != nil {
		f.log.Debug("configuration write dropped", "off", off, "rule", err)
	}
	f.update()
}

// Offsets and bits of configuration space that decide whether BARs answer.
const (
	configCommand      = 0x04
	configBARs         = 0x10
	configCapabilities = 0x34
	commandMemory      = 1 << 1
	barIO              = 1 << 0
	bar64              = 2 << 1
	capabilityPM       = 0x01
	capabilityMSI      = 0x05
	msiEnable          = 1 << 0
	msi64              = 1 << 7
)

// update reads where the BARs are. A write may be a reset, so every one counts.
func (f *deviceFunction) update() {
	var c [256]byte
	f.readConfig(0, c[:])
	was, wasOpen := f.bars, f.open
	f.open = c[configCommand]&commandMemory != 0 && inD0(&c)
	f.bars = [6]uint64{}
	for i := 0; i < len(f.bars); i++ {
		v := uint64(binary.LittleEndian.Uint32(c[configBARs+4*i:]))
		if v&barIO != 0 {
			continue
		}
		at := i
		if v&bar64 != 0 && i+1 < len(f.bars) {
			i++
			v |= uint64(binary.LittleEndian.Uint32(c[configBARs+4*i:])) << 32
		}
		f.bars[at] = v &^ 0xf
	}
	if was != f.bars || wasOpen != f.open {
		f.moved()
	}
	if m := readMSI(&c); m != f.msi {
		f.msi = m
		f.rerouted()
	}
}

// capability returns where a capability is, or 0. A chain that loops ends.
func capability(c *[256]byte, id byte) int {
	at := int(c[configCapabilities]) &^ 3
	for range len(c) / 4 {
		if at < 0x40 || at > 0xf0 {
			break
		}
		if c[at] == id {
			return at
		}
		at = int(c[at+1]) &^ 3
	}
	return 0
}

// inD0 reports whether the power state is D0; a function without power management
// has no other.
func inD0(c *[256]byte) bool {
	at := capability(c, capabilityPM)
	return at == 0 || c[at+4]&3 == 0
}

// readMSI reads the capability of PCI Local Bus 3.0, §6.8.1; the zero value is MSI
// that is off.
func readMSI(c *[256]byte) msi {
	at := capability(c, capabilityMSI)
	if at == 0 || c[at+2]&msiEnable == 0 {
		return msi{}
	}
	le := binary.LittleEndian
	m := msi{on: true, count: 1 << min(c[at+2]>>4&7, 5), lo: le.Uint32(c[at+4:])}
	data := c[at+8:]
	if c[at+2]&msi64 != 0 {
		m.hi, data = le.Uint32(c[at+8:]), c[at+12:]
	}
	m.data = uint32(le.Uint16(data))
	return m
}

// find returns the BAR, and the offset in it, that holds [addr, addr+n).
func (f *deviceFunction) find(addr uint64, n int) (bar int, off uint64, ok bool) {
	if !f.open {
		return 0, 0, false
	}
	for i, size := range f.sizes {
		if size == 0 || addr < f.bars[i] {
			continue
		}
		if off := addr - f.bars[i]; off < size && uint64(n) <= size-off {
			return i, off, true
		}
	}
	return 0, 0, false
}
