// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"context"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"npuemu/dma/iova"
	"npuemu/mmio/npureg"
	"npuemu/vdev/vfiouser"
)

// Registers of the SR-IOV capability (§1.9).
const (
	cfgSRIOVCtl = 0x198
	cfgNumVFs   = 0x1a0
)

// powerPF starts a card of three virtual functions without a transport.
func powerPF(t *testing.T) *Device {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Memory.Size = 8 << 20
	cfg.SRIOV.VFs = 3
	d := running(t, cfg)
	return d
}

// vendors returns the vendor id of every function, which is 0xffff where none is.
func vendors(t *testing.T, d *Device) []uint16 {
	t.Helper()
	var v []uint16
	for _, f := range d.Functions() {
		v = append(v, config16(t, f, 0))
	}
	return v
}

// TestVFsComeAndGo: a virtual function answers while the physical one says that it exists, and begins as after a
// reset each time.
func TestVFsComeAndGo(t *testing.T) {
	const none = 0xffff
	d := powerPF(t)
	if n := len(d.Functions()); n != 4 {
		t.Fatalf("%d functions", n)
	}
	check := func(what string, want ...uint16) {
		t.Helper()
		if got := vendors(t, d); !slices.Equal(got, want) {
			t.Errorf("%s: vendors %#x, want %#x", what, got, want)
		}
	}
	vf := d.Functions()[1]
	check("at first", VendorID, none, none, none)
	command(t, vf, 6) // into the void
	setConfig16(t, d, cfgNumVFs, 2)
	check("number without VF Enable", VendorID, none, none, none)
	setConfig16(t, d, cfgSRIOVCtl, 1)
	check("enabled", VendorID, VendorID, VendorID, none)
	if c := config16(t, vf, 4); c != 0 {
		t.Errorf("Command %#x of a new function: a write from before it was there arrived", c)
	}
	command(t, vf, 6)
	if id := read(t, vf, npureg.ID); id != ^uint32(0) {
		t.Errorf("ID %#x with VF MSE clear", id)
	}
	setConfig16(t, d, cfgSRIOVCtl, 9)
	write(t, vf, npureg.IRQEnable, npureg.IRQFault)
	if id, e := read(t, vf, npureg.ID), read(t, vf, npureg.IRQEnable); id == ^uint32(0) || e != npureg.IRQFault {
		t.Errorf("ID %#x, IRQ_ENABLE %#x of a function that is there", id, e)
	}
	command(t, d, 6)
	if e := read(t, d, npureg.IRQEnable); e != 0 {
		t.Errorf("IRQ_ENABLE %#x of the physical function: the registers are shared", e)
	}

	// A reset of a virtual function is its own matter; one of the physical function's block is too.
	other := d.Functions()[2]
	command(t, other, 2)
	setConfig16(t, vf, cfgDevCtl, 1<<15)
	if v, o := config16(t, vf, 4), config16(t, other, 4); v != 0 || o != 2 {
		t.Errorf("Command %#x after its FLR and %#x of the neighbour, want 0 and 2", v, o)
	}
	write(t, d, npureg.DeviceControl, npureg.DeviceControlReset)
	check("soft reset", VendorID, VendorID, VendorID, none)

	for _, r := range []struct {
		name string
		do   func()
	}{
		{"VF Enable cleared", func() { setConfig16(t, d, cfgSRIOVCtl, 0) }},
		{"FLR of the physical function", func() { setConfig16(t, d, cfgDevCtl, 1<<15) }},
		{"conventional reset", func() { _ = d.Reset() }},
		{"its client is gone", d.Detach},
	} {
		setConfig16(t, d, cfgSRIOVCtl, 0)
		setConfig16(t, d, cfgNumVFs, 3)
		setConfig16(t, d, cfgSRIOVCtl, 9)
		check("before "+r.name, VendorID, VendorID, VendorID, VendorID)
		command(t, vf, 6)
		write(t, vf, npureg.IRQEnable, 1)
		r.do()
		check(r.name, VendorID, none, none, none)
		setConfig16(t, d, cfgNumVFs, 3)
		setConfig16(t, d, cfgSRIOVCtl, 9)
		command(t, vf, 6)
		if e := read(t, vf, npureg.IRQEnable); e != 0 {
			t.Errorf("%s: IRQ_ENABLE %#x when the function is back, want 0", r.name, e)
		}
		setConfig16(t, d, cfgSRIOVCtl, 0)
	}
	if f := findingCounts(vf); f["vf-absent"] == 0 || f["vf-memory"] != 1 {
		t.Errorf("findings %v, want vf-absent and one vf-memory", f)
	}
}

// TestVFMemory: every function has its own part of the memory, and shows its size.
func TestVFMemory(t *testing.T) {
	d := powerPF(t)
	setConfig16(t, d, cfgNumVFs, 3)
	setConfig16(t, d, cfgSRIOVCtl, 9)
	for i, f := range d.Functions() {
		command(t, f, 6)
		if got := read(t, f, npureg.DRAMSizeLo); got != 2<<20 {
			t.Errorf("function %d: DRAM_SIZE %#x", i, got)
		}
		if r := f.Regions()[2]; r.Size != 2<<20 || r.File == nil {
			t.Errorf("function %d: region %+v", i, r)
		}
		if err := f.WriteRegion(vfiouser.RegionBAR0+2, 0x100, []byte{byte(i) + 1}); err != nil {
			t.Fatal(err)
		}
		if n := f.IRQs()[vfiouser.IRQINTx].Count; (n == 1) != (i == 0) {
			t.Errorf("function %d has %d INTx", i, n)
		}
	}
	for i, f := range d.Functions() {
		p := []byte{0}
		if err := f.ReadRegion(vfiouser.RegionBAR0+2, 0x100, p); err != nil || p[0] != byte(i)+1 {
			t.Errorf("function %d reads %d, %v", i, p[0], err)
		}
	}
}

// TestVFVanishesInFlight: a virtual function that vanishes while it reads the bus is reset when the read ends.
func TestVFVanishesInFlight(t *testing.T) {
	d := powerPF(t)
	setConfig16(t, d, cfgNumVFs, 1)
	setConfig16(t, d, cfgSRIOVCtl, 9)
	vf := d.Functions()[1]
	m := newStuck()
	if err := vf.MapDMA(0x10000, 0x10000, iova.Read|iova.Write, m); err != nil {
		t.Fatal(err)
	}
	command(t, vf, 6)
	fetchFrom(vf, 0x10000)
	<-m.reached
	setConfig16(t, d, cfgSRIOVCtl, 0)
	setConfig16(t, d, cfgSRIOVCtl, 9)
	command(t, vf, 6)
	if s := read(t, vf, npureg.DeviceStatus); s != npureg.DeviceStatusResetting {
		t.Errorf("DEVICE_STATUS %#x, want RESETTING", s)
	}
	close(m.release)
	for end := time.Now().Add(10 * time.Second); read(t, vf, npureg.DeviceStatus) != 0; {
		if time.Now().After(end) {
			t.Fatal("the reset does not end")
		}
	}
}

// TestVFHammer turns virtual functions on and off while their clients use them.
func TestVFHammer(t *testing.T) {
	d := powerPF(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	done := make(chan struct{})
	for i, f := range d.Functions()[1:] {
		go func() {
			defer func() { done <- struct{}{} }()
			p := make([]byte, 4)
			for ctx.Err() == nil {
				_ = f.WriteRegion(vfiouser.RegionConfig, 4, []byte{6, 0})
				_ = f.WriteRegion(vfiouser.RegionBAR0, npureg.DeviceControl, binary.LittleEndian.AppendUint32(nil, npureg.DeviceControlReset))
				_ = f.ReadRegion(vfiouser.RegionBAR0, npureg.ID, p)
				if i == 0 {
					_ = f.Reset()
				}
			}
		}()
	}
	for n := uint16(0); ctx.Err() == nil; n = (n + 1) % 4 {
		setConfig16(t, d, cfgSRIOVCtl, 0)
		setConfig16(t, d, cfgNumVFs, n)
		setConfig16(t, d, cfgSRIOVCtl, 9)
		d.Status()
	}
	for range d.vfs {
		<-done
	}
}
