// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"errors"
	"fmt"
)

// Functions returns the device and its virtual functions, which are devices of their own: each has
// its client, findings and counters.
func (d *Device) Functions() []*Device { return append([]*Device{d}, d.vfs...) }

// addVFs makes the virtual functions. They have the configuration of d, a part of the memory of the same size,
// and exist when the host says so (§1.9).
func (d *Device) addVFs() error {
	for i := range d.cfg.SRIOV.VFs {
		cfg := d.cfg
		cfg.SRIOV = SRIOVConfig{}
		cfg.Log = cfg.Log.With("vf", i)
		vf, err := newDevice(cfg, true)
		if err != nil {
			return fmt.Errorf("virtual function %d: %w", i, err)
		}
		d.vfs = append(d.vfs, vf)
	}
	return nil
}

// vfsChangedLocked makes virtual functions come and go as config space of d says. The lock of d is held.
func (d *Device) vfsChangedLocked() {
	n, memory := d.fn.VFs()
	for i, vf := range d.vfs {
		vf.exist(i < n, memory)
	}
}

// exist makes a virtual function appear, as after a reset, or vanish, which stops what it does.
func (d *Device) exist(yes, memory bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = !memory
	if d.absent == !yes {
		return
	}
	d.absent = !yes
	d.gone.Store(d.absent)
	d.hotResetLocked("VF Enable")
}

// Admit reports whether a client finds the device: not if it is a virtual function that does not exist now.
// One that vanishes under its client answers all-ones.
func (d *Device) Admit() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.removed {
		return errors.New("the card is removed: the operator inserts it (npuemu ctl insert)")
	}
	if d.absent {
		return errors.New("this virtual function does not exist: the physical function's driver sets NumVFs and VF Enable first (§1.9)")
	}
	return nil
}

// missing reports whether nothing answers an access: the card is removed (§9.4), or d is a virtual function that
// does not exist now. The latter leaves a finding.
func (d *Device) missing() bool {
	if !d.gone.Load() {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.absent {
		d.findings.add("vf-absent", "a virtual function is accessed while VF Enable is set and NumVFs counts it (§1.9)", "no function answers")
	}
	return d.absent || d.removed
}
