// SPDX-License-Identifier: Apache-2.0

//go:build linux

package accel

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Usage is what a file uses of its device, as the kernel's drm-usage-stats tell.
type Usage struct {
	Busy   time.Duration          // in which jobs were the first of their queue on the device
	Memory map[string]MemoryUsage // by region: "device", "system"
	// Timeouts are jobs of the file that did not end in time (interface 1.2).
	Timeouts uint64
}

// MemoryUsage is memory of one region, in bytes.
type MemoryUsage struct{ Total, Shared, Resident, Active uint64 }

// Usage reads the file's usage from /proc.
func (d *Device) Usage() (Usage, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", d.fd))
	if err != nil {
		return Usage{}, fmt.Errorf("accel: usage: %w", err)
	}
	return parseUsage(string(text))
}

// parseUsage reads lines "drm-engine-npu: 12 ns" and "drm-total-device: 4 KiB", and passes over others.
func parseUsage(text string) (Usage, error) {
	u := Usage{Memory: map[string]MemoryUsage{}}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		if key == "npu-timeouts" {
			n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
			if err != nil {
				return Usage{}, unreadable(line)
			}
			u.Timeouts = n
			continue
		}
		key, ours := strings.CutPrefix(key, "drm-")
		kind, region, ok2 := strings.Cut(key, "-")
		if !ok || !ours || !ok2 || strings.HasPrefix(region, "capacity-") {
			continue
		}
		m := u.Memory[region]
		to, isMemory := map[string]*uint64{"total": &m.Total, "shared": &m.Shared, "resident": &m.Resident, "active": &m.Active}[kind]
		if !isMemory && key != "engine-"+driverName {
			continue
		}
		word, unit, _ := strings.Cut(strings.TrimSpace(value), " ")
		n, err := strconv.ParseUint(word, 10, 63)
		scale, known := map[string]uint64{"": 1, "ns": 1, "KiB": 1 << 10, "MiB": 1 << 20}[unit]
		if err != nil || !known {
			return Usage{}, unreadable(line)
		}
		if !isMemory {
			u.Busy = time.Duration(n)
			continue
		}
		*to = n * scale
		u.Memory[region] = m
	}
	return u, nil
}

func unreadable(line string) error {
	return fmt.Errorf("accel: usage: cannot read %q", strings.TrimSpace(line))
}
