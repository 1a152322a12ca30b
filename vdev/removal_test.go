// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"context"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"npuemu/internal/eventfd"
	"npuemu/mmio/npureg"
	"npuemu/vdev/vfiouser"
)

// Removal does not wait for a host that does not answer, and insertion is over when what was in flight has ended (§9.4).
func TestRemovalInFlight(t *testing.T) {
	m := newStuck()
	d := power(t, m)
	fetchFrom(d, 0x10000)
	<-m.reached
	start := time.Now()
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < resetWait || took > 5*time.Second {
		t.Errorf("Remove took %v, want %v", took, resetWait)
	}
	if id := read(t, d, npureg.ID); id != ^uint32(0) {
		t.Errorf("ID %#x of a card that is removed", id)
	}
	if err := d.Insert(); err != nil {
		t.Fatal(err)
	}
	command(t, d, 6)
	if s := read(t, d, npureg.DeviceStatus); s != npureg.DeviceStatusResetting {
		t.Errorf("DEVICE_STATUS %#x, want RESETTING: an access is in flight still", s)
	}
	close(m.release)
	for end := time.Now().Add(10 * time.Second); read(t, d, npureg.DeviceStatus) != 0; {
		if time.Now().After(end) {
			t.Fatal("the reset does not end")
		}
	}
}

// A removed card has no interrupts: none of its own, none that its client tests.
func TestRemovedIsSilent(t *testing.T) {
	d := power(t, newStuck())
	fds := map[int]*eventfd.FD{}
	for _, index := range []int{vfiouser.IRQINTx, vfiouser.IRQErr} {
		fd, err := eventfd.New()
		if err != nil {
			t.Fatal(err)
		}
		fds[index] = fd
		d.SetVector(index, 0, fd)
		defer d.SetVector(index, 0, nil)
	}
	heard := func(index int) bool {
		d.TriggerVector(index, 0)
		return fds[index].Wait(20*time.Millisecond) != 0
	}
	for index := range fds {
		if !heard(index) {
			t.Errorf("interrupt %d of a card that is there is not heard", index)
		}
	}
	write(t, d, npureg.IRQEnable, npureg.IRQAll)
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	for index := range fds {
		if heard(index) {
			t.Errorf("interrupt %d of a removed card is heard", index)
		}
	}
	raised := d.Counter(npureg.CounterInterrupts)
	d.mu.Lock()
	d.logErrorLocked(record{kind: npureg.ErrorThermal})
	d.mu.Unlock()
	if n := d.Counter(npureg.CounterInterrupts); n != raised || fds[vfiouser.IRQINTx].Wait(0) != 0 {
		t.Errorf("%d interrupts of a removed card", n-raised)
	}
}

// Virtual functions go with their physical function, and come back when it makes them anew.
func TestRemovalOfVFs(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Memory.Size = 4 << 20
	cfg.SRIOV.VFs = 2
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx) }()
	defer func() {
		cancel()
		<-done
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	enable := func() {
		for _, w := range []struct {
			off uint64
			v   uint16
		}{{0x198, 0}, {0x1a0, 2}, {0x198, 9}} { // NumVFs; VF Enable and VF MSE
			if err := d.WriteRegion(vfiouser.RegionConfig, w.off, binary.LittleEndian.AppendUint16(nil, w.v)); err != nil {
				t.Fatal(err)
			}
		}
	}
	vendor := func(f *Device) uint16 {
		p := make([]byte, 2)
		if err := f.ReadRegion(vfiouser.RegionConfig, 0, p); err != nil {
			t.Fatal(err)
		}
		return binary.LittleEndian.Uint16(p)
	}
	vf := d.Functions()[1]
	enable()
	if v := vendor(vf); v != VendorID {
		t.Fatalf("vendor %#x", v)
	}
	if err := vf.Remove(); err == nil || !strings.Contains(err.Error(), "remove function 0") {
		t.Errorf("a virtual function alone: %v", err)
	}
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	if p, v := vendor(d), vendor(vf); p != 0xffff || v != 0xffff {
		t.Errorf("vendors %#x, %#x after removal", p, v)
	}
	enable() // nobody listens
	if err := d.Insert(); err != nil {
		t.Fatal(err)
	}
	if p, v := vendor(d), vendor(vf); p != VendorID || v != 0xffff {
		t.Errorf("vendors %#x, %#x after insertion; virtual functions are gone", p, v)
	}
	enable()
	if v := vendor(vf); v != VendorID {
		t.Errorf("vendor %#x when it was made again", v)
	}
}

// The thermal model, by itself (§12.4).
func TestThermalModel(t *testing.T) {
	for _, tt := range []struct {
		name     string
		ambient  float64
		steps    int
		dt       time.Duration
		core     float64
		dma      float64
		min, max float64
	}{
		{"idle", 35, 10, time.Second, 0, 0, 45, 45},
		{"core busy, a time constant", 35, 20, time.Second, 1, 0, 45 + 30*0.632, 45 + 30*0.633},
		{"the same in one step", 35, 1, 20 * time.Second, 1, 0, 45 + 30*0.632, 45 + 30*0.633},
		{"all busy for ever", 35, 100, time.Minute, 1, 1, 79.999, 80.001}, // below the first threshold
		{"half busy for ever", 35, 100, time.Minute, 0.5, 0.5, 62.499, 62.501},
		{"surroundings cool down", 0, 100, time.Minute, 0, 0, 9.999, 10.001},
		{"no time", 100, 5, 0, 1, 1, 45, 45},
	} {
		var th thermal
		th.init()
		th.ambient = tt.ambient
		for range tt.steps {
			th.advance(tt.dt, [enginesCount]float64{tt.core, tt.dma})
		}
		if th.temperature < tt.min || th.temperature > tt.max {
			t.Errorf("%s: %v °C, want %v to %v", tt.name, th.temperature, tt.min, tt.max)
		}
	}
}

// Thresholds that firmware writes without sense do no harm: levels stay between 0 and critical.
func TestThresholdsOfFirmware(t *testing.T) {
	d := power(t, newStuck())
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, milli := range [][npureg.ThrottleCritical]int32{{-1 << 31, -1 << 31, -1 << 31}, {1<<31 - 1, 1<<31 - 1, 1<<31 - 1}, {90_000, 10_000, 20_000}, {10_000, 90_000, 20_000}, {10_000, 20_000, 30_000}} {
		health{d}.Thresholds(milli)
		if l := d.ras.thermal.level.Load(); l < 0 || l > npureg.ThrottleCritical {
			t.Errorf("%v: level %d", milli, l)
		}
	}
	if l := d.ras.thermal.level.Load(); l != npureg.ThrottleCritical {
		t.Errorf("level %d of a card that is above all thresholds", l)
	}
}
