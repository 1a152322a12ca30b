// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"npuemu/vdev/ioat"
)

// The devices that serve can be.
const (
	deviceNPU  = "npu"
	deviceIOAT = "ioat"
)

var devices = []string{deviceNPU, deviceIOAT}

// checkDevice reports the first flag that the device has no use for.
func (f *serveFlags) checkDevice() error {
	if !slices.Contains(devices, f.device) {
		return fmt.Errorf("--device %q: use npu or ioat", f.device)
	}
	if f.device == deviceNPU {
		return nil
	}
	switch {
	case len(f.configs) > 0:
		return errors.New("--config is for --device npu: the ioat device has nothing to configure; leave it out")
	case f.arch != "":
		return errors.New("--arch is for --device npu: the ioat device has one version; leave it out")
	case f.time != "":
		return errors.New("--time is for --device npu: the ioat device has no model time; leave it out")
	case f.control != "":
		return errors.New("--control is for --device npu: npuemu ctl does not know the ioat device; leave it out")
	case slices.ContainsFunc(f.transports, func(t string) bool { return t != "vfio-user" }):
		return errors.New("--transport vhost-user is for --device npu: the ioat device is a PCI function; use vfio-user")
	}
	return nil
}

// reportIOAT logs what the device did and what guests did wrong.
func reportIOAT(log *slog.Logger, d *ioat.Device) {
	s := d.Stats()
	log.Info("switched off", "descriptors", s.Descriptors, "bytes", s.Bytes, "errors", s.Errors, "interrupts", s.Interrupts)
	for _, f := range d.Findings() {
		log.Info("finding", "id", f.ID, "count", f.Count, "rule", f.Rule, "last", f.Last)
	}
}
