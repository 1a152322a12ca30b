// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"errors"
	"fmt"
	"math"
	"time"

	"npuemu/dma/iova"
	"npuemu/mmio/npureg"
	"npuemu/queue"
)

// touchFunc makes an access that no mapping permitted a message (vfiouser.Toucher).
type touchFunc func(addr iova.Addr, access iova.Prot, b byte) error

// UseTouch takes the way to show a new client accesses that it did not map.
func (d *Device) UseTouch(touch func(addr iova.Addr, access iova.Prot, b byte) error) {
	if d.cfg.PCI.Touch {
		d.toucher.Store((*touchFunc)(&touch))
	}
}

// touch is told by the bus table of an access that no mapping permitted, on the goroutine
// of the access and without a lock. It changes nothing for the access, which fails (§7.6).
func (d *Device) touch(f *iova.Fault, data []byte) {
	touch := d.toucher.Load()
	if touch == nil {
		return
	}
	var b byte
	if len(data) > 0 {
		b = data[0]
	}
	err := (*touch)(f.Addr, f.Access, b)
	d.log.Debug("access without a mapping, repeated as a message", "addr", f.Addr, "access", f.Access.String(), "answer", err)
}

// overrun is how far beyond the end of a mapping an address counts as an overrun of it.
const overrun = 64 << 10

// blame makes a finding of an access to the bus that failed: what the host did with the
// address (§7.6). who made it; began is iova.Table.Unmaps of when who was given the address.
func (d *Device) blame(f *iova.Fault, began uint64, who string) {
	first, last, prot, mapped := d.mem.Bus.Find(f.Addr)
	past, unmapped := d.mem.Bus.LastUnmapped(f.Addr)
	what := fmt.Sprintf("%s: %v of %d bytes at %v", who, f.Access, f.Size, f.Addr)
	was := func() string {
		s := fmt.Sprintf("[%v, %v], %v, was unmapped %v ago, %d commands ago", past.First, past.Last, past.Prot,
			time.Since(past.When).Round(time.Microsecond), d.counters[npureg.CounterCommands].Load()-past.Tick)
		if mapped {
			s += "; it is mapped again since"
		}
		return s
	}
	switch {
	case f.Reason == iova.NotPermitted:
		d.findings.add("dma-direction", "memory is mapped for the direction in which the device uses it (§7.6)",
			fmt.Sprintf("%s: [%v, %v] is mapped for %v", what, first, last, prot))
	case unmapped && past.Number > began:
		d.findings.add("dma-unmap-in-flight", "memory stays mapped until the command that uses it has completed (§7.6)",
			fmt.Sprintf("%s: %s, while the command ran", what, was()))
	case f.Reason == iova.Failed:
		// It was mapped, and stayed so: the host's memory failed.
	case unmapped:
		d.findings.add("dma-after-unmap", "memory is mapped before the device is told of it, and stays so until the device is done (§7.6)",
			fmt.Sprintf("%s: %s", what, was()))
	default:
		how := fmt.Sprintf("was never mapped, or not among the last %d ranges that were unmapped", iova.MaxPast)
		if mapped {
			how = fmt.Sprintf("[%v, %v] was mapped after that", first, last)
		} else if low, high, ok := d.mem.Bus.Below(f.Addr); ok && f.Addr-high <= overrun {
			how += fmt.Sprintf("; %d bytes beyond the end of [%v, %v]", f.Addr-high, low, high)
		}
		d.findings.add("dma-unmapped", "the device is told only addresses that are mapped (§7.6)", what+": "+how)
	}
}

// mover is the bus for the control processor: boot image, admin queue, and what admin
// commands name.
type mover struct{ bus }

func (m mover) Read(addr iova.Addr, p []byte) error { return m.blame(m.bus.Read(addr, p)) }

func (m mover) Write(addr iova.Addr, p []byte) error { return m.blame(m.bus.Write(addr, p)) }

// blame returns err, after Device.blame unless a reset found the access in flight.
func (m mover) blame(err error) error {
	var f *iova.Fault
	if m.d.paravirt.Load() != nil || !errors.As(err, &f) {
		return err
	}
	m.d.mu.Lock()
	stale := m.d.resets != 0
	m.d.mu.Unlock()
	if !stale {
		m.d.blame(f, math.MaxUint64, "control processor")
	}
	return err
}

// blameRing is blame for a fault record of a ring or line (§9.3).
func (d *Device) blameRing(f queue.Fault, who string) {
	if d.paravirt.Load() != nil || f.Queue == 0 {
		return // it is not the host that maps rings; the mover told of the admin queue's
	}
	b := iova.Fault{Addr: f.Addr, Size: npureg.SQEntrySize, Access: iova.Read, Reason: iova.Unmapped}
	if f.Source == npureg.FaultPost {
		b.Size, b.Access = npureg.CQEntrySize, iova.Write
	}
	if _, _, prot, mapped := d.mem.Bus.Find(f.Addr); mapped && prot&b.Access == 0 {
		b.Reason = iova.NotPermitted
	} else if mapped {
		return // it is again, or the host's memory failed
	}
	d.blame(&b, math.MaxUint64, who)
}
