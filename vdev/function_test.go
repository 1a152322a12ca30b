// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
	"npuemu/mmio/npureg"
	"npuemu/vdev/pci"
	"npuemu/vdev/vfiouser"
)

// Offsets in config space that these tests use (§1.4).
const (
	cfgPMCSR  = 0x44
	cfgDevCtl = 0x58
	cfgDevSta = 0x5a
	cfgUncorr = 0x104
	cfgHeader = 0x11c
)

func config16(t *testing.T, d *Device, off uint64) uint16 {
	t.Helper()
	var p [2]byte
	if err := d.ReadRegion(vfiouser.RegionConfig, off, p[:]); err != nil {
		t.Fatal(err)
	}
	return binary.LittleEndian.Uint16(p[:])
}

func setConfig16(t *testing.T, d *Device, off uint64, v uint16) {
	t.Helper()
	if err := d.WriteRegion(vfiouser.RegionConfig, off, binary.LittleEndian.AppendUint16(nil, v)); err != nil {
		t.Fatal(err)
	}
}

// TestFLRInFlight is what a host sees of a function-level reset while a read of the bus is not
// answered (§9.4): Transactions Pending, config space at once as after the reset, BAR0 closed and
// then all-ones but for DEVICE_STATUS, and the end when the answer comes.
func TestFLRInFlight(t *testing.T) {
	const pending = 1 << 5
	m := newStuck()
	d := power(t, m)
	if s := config16(t, d, cfgDevSta); s&pending != 0 {
		t.Errorf("Device Status %#x of an idle function", s)
	}
	fetchFrom(d, 0x10000)
	<-m.reached
	if s := config16(t, d, cfgDevSta); s&pending == 0 {
		t.Errorf("Device Status %#x while a read is in flight, want Transactions Pending", s)
	}
	setConfig16(t, d, cfgPMCSR, 3)
	setConfig16(t, d, cfgDevCtl, 1<<15)
	if v, c, p := config16(t, d, 0), config16(t, d, 4), config16(t, d, cfgPMCSR); v != VendorID || c != 0 || p != 8 {
		t.Errorf("vendor %#x, command %#x, PMCSR %#x during the reset, want %#x, 0, 0x8", v, c, p, VendorID)
	}
	if id := read(t, d, npureg.DeviceStatus); id != ^uint32(0) {
		t.Errorf("DEVICE_STATUS %#x with Memory Space Enable clear", id)
	}
	command(t, d, 6)
	if s, id := read(t, d, npureg.DeviceStatus), read(t, d, npureg.ID); s != npureg.DeviceStatusResetting || id != ^uint32(0) {
		t.Errorf("DEVICE_STATUS %#x, ID %#x during the reset, want RESETTING and all-ones", s, id)
	}
	if s := config16(t, d, cfgDevSta); s&pending == 0 {
		t.Errorf("Device Status %#x during the reset: the read is still in flight", s)
	}
	start := time.Now()
	close(m.release)
	for read(t, d, npureg.DeviceStatus) != 0 {
		if time.Since(start) > 10*time.Second {
			t.Fatal("the reset does not end")
		}
	}
	// §9.4 says 100 ms after the answer; a busy machine is slower.
	if took := time.Since(start); took > time.Second {
		t.Errorf("the reset ended %v after the last answer", took)
	}
	if s := config16(t, d, cfgDevSta); s&pending != 0 {
		t.Errorf("Device Status %#x after the reset", s)
	}
}

// failing is memory whose reads fail.
type failing struct{ err error }

func (f failing) ReadAt([]byte, uint64) error  { return f.err }
func (f failing) WriteAt([]byte, uint64) error { return f.err }
func (f failing) Close()                       {}

// TestFailedReads: how a read of the bus failed shows in config space as PCI has it (§1.6).
func TestFailedReads(t *testing.T) {
	for _, tt := range []struct {
		name   string
		addr   iova.Addr
		err    error
		status uint16 // of the errors in Status
		uncorr uint16 // low half of the uncorrectable status
	}{
		{"nobody there", 0x9000_0000, nil, 1 << 13, 0},
		{"the host fails", 0x10000, errors.New("truncated"), 1 << 12, 0},
		{"the host does not answer", 0x10000, os.ErrDeadlineExceeded, 0, 1 << pci.CompletionTimeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := power(t, failing{tt.err})
			fetchFrom(d, tt.addr)
			for end := time.Now().Add(10 * time.Second); read(t, d, npureg.FaultStatus)&npureg.FaultValid == 0; {
				if time.Now().After(end) {
					t.Fatal("no fault record")
				}
			}
			if s, u := config16(t, d, 6)&0xf900, config16(t, d, cfgUncorr); s != tt.status || u != tt.uncorr {
				t.Errorf("Status %#x, uncorrectable %#x, want %#x, %#x", s, u, tt.status, tt.uncorr)
			}
		})
	}
	d := power(t, newStuck())
	command(t, d, 2) // no access is made
	fetchFrom(d, 0x10000)
	for end := time.Now().Add(10 * time.Second); read(t, d, npureg.FaultStatus)&npureg.FaultValid == 0; {
		if time.Now().After(end) {
			t.Fatal("no fault record")
		}
	}
	if s := config16(t, d, 6) & 0xf900; s != 0 {
		t.Errorf("Status %#x after an access that was not made", s)
	}
}

// TestErrorInterrupt: a fatal error that the host wants to hear of is VFIO's error interrupt, if the
// operator says so.
func TestErrorInterrupt(t *testing.T) {
	for _, tt := range []struct {
		name    string
		on      bool
		kind    string
		control uint16
		want    bool
	}{
		{"off", false, "malformed-tlp", 4, false},
		{"fatal", true, "malformed-tlp", 4, true},
		{"fatal, not enabled by the host", true, "malformed-tlp", 0, false},
		{"non-fatal", true, "poisoned-tlp", 6, false},
		{"correctable", true, "bad-tlp", 7, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.Memory.Size = 1 << 20
			cfg.PCI.ErrorInterrupt = tt.on
			d, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			fd, err := eventfd.New()
			if err != nil {
				t.Fatal(err)
			}
			d.SetVector(vfiouser.IRQErr, 0, fd)
			setConfig16(t, d, cfgDevCtl, tt.control)
			if _, err := d.InjectError(tt.kind, nil); err != nil {
				t.Fatal(err)
			}
			if got := fd.Wait(0) != 0; got != tt.want {
				t.Errorf("signalled %t, want %t", got, tt.want)
			}
			d.TriggerVector(vfiouser.IRQErr, 0)
			if fd.Wait(0) == 0 {
				t.Error("the client's own trigger did not signal")
			}
			d.SetVector(vfiouser.IRQErr, 0, nil)
			d.TriggerVector(vfiouser.IRQErr, 0) // nobody hears it
		})
	}
}

func TestInjectError(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Memory.Size = 1 << 20
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, tt := range []struct {
		kind   string
		header []uint32
		want   string // of the error
	}{
		{"unsupported-request", []uint32{0x4000_0001, 0xf, 0xfe00_0010}, ""},
		{"bad-tlp", nil, ""},
		{"advisory-non-fatal", nil, "use one of data-link-protocol, "},
		{"", nil, "use one of"},
		{"bad-tlp", []uint32{1}, "no packet"},
		{"receiver-overflow", []uint32{1}, "no packet"},
		{"poisoned-tlp", []uint32{1, 2, 3, 4, 5}, "1 to 4 doublewords"},
	} {
		_, err := d.InjectError(tt.kind, tt.header)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s, header %v: %v, want an error that says %q", tt.kind, tt.header, err, tt.want)
		}
	}
	s := d.Status()
	if s.PowerState != "D0" || s.Uncorrectable != 1<<20 || s.Correctable != 1<<6 || s.FirstError != 20 || s.Header != [4]uint32{0x4000_0001, 0xf, 0xfe00_0010} {
		t.Errorf("status %+v", s)
	}
	if v := config16(t, d, cfgHeader+8); v != 0x0010 {
		t.Errorf("header log %#x", v)
	}
}
