// SPDX-License-Identifier: Apache-2.0

// Package ioat is a second, small device made of the parts of the first: a PCI function with one copy engine that has
// the published register interface of Intel's I/OAT (version 3.3). Linux has a driver for it, ioatdma, and the
// kernel's selftests of VFIO have another, so stock tests judge config space, BARs, interrupts, DMA, resets and the transport.
// docs/ioat.md lists the registers, what a guest sees for each mistake, and what is left out.
//
// Ownership: Device.mu guards the register bank, the PCI function and the channel. It is held for one register access or
// one step of the channel's bookkeeping, never while descriptors are fetched, bytes are copied or completions are written. One
// goroutine, Run, processes descriptors; the connection's records and replies. A descriptor moves at most MaxTransfer
// bytes, and how many there are is DMACOUNT's, 16 bits: a chain that ends nowhere ends there.
//
// A reset stops the channel at once. A descriptor in flight does no further access, and what it did has no effect on the
// registers; CHANCMD.RESET reads 1 until it has ended. Only Reset and Detach wait for that, up to 100 ms.
// Lock order: the connection's, Device.mu, that of pci's interrupts; the findings' lock is a leaf.
package ioat

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"npuemu/dma"
	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
	"npuemu/internal/findings"
	"npuemu/mmio"
	"npuemu/vdev/pci"
)

// Stats counts from New on, over all resets and clients.
type Stats struct {
	Descriptors, Bytes, Errors, Interrupts uint64
}

// Device is one I/OAT function with one channel. Create it with New, start it with Run.
type Device struct {
	log      *slog.Logger
	findings *findings.List
	mem      dma.Memory
	stats    struct{ descriptors, bytes, errors, interrupts atomic.Uint64 }

	mu      sync.Mutex
	wake    *sync.Cond    // the channel may have work, or Run ends; guarded by mu
	fn      *pci.Function // guarded by mu
	bar0    *mmio.Bank    // guarded by mu
	channel channel       // guarded by mu, but for its epoch
	level   bool          // the device asks for attention by INTx or MSI; guarded by mu
	stopped bool          // guarded by mu
	over    chan struct{} // closed when no descriptor is in flight, if somebody waits; guarded by mu
	irqs    map[irq]*eventfd.FD
}

// New builds a device, powered on. log may be nil.
func New(log *slog.Logger) (*Device, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d := &Device{log: log, findings: findings.New(log), irqs: map[irq]*eventfd.FD{}}
	d.wake = sync.NewCond(&d.mu)
	d.mem.Bus = new(iova.Table)
	cfg := pci.Config{
		VendorID: VendorID, DeviceID: DeviceID, SubsystemVendorID: VendorID,
		Revision: 4, Class: [3]uint8{0x08, 0x80, 0x00}, // other system peripheral
		Vectors: 1, MSIX: true, MSI: true, NoSerial: true, Own: configRegisters(),
	}
	cfg.BARs[0] = pci.BAR{Size: BAR0Size}
	cfg.BARs[4] = pci.BAR{Size: bar4Size}
	var err error
	d.fn, err = pci.New(cfg, pci.Hooks{
		FLR:     func() { d.resetLocked("function-level reset") },
		Power:   func(pci.PowerState) { d.masterLocked() },
		Command: d.masterLocked,
		Pending: d.mem.Reading,
		Mistake: d.findings.Add,
	})
	if err != nil {
		return nil, fmt.Errorf("ioat: %w", err)
	}
	d.fn.MSIX().SetTableOwner(pci.TableInTransport)
	d.fn.MSIX().Trace(d.trace("bar4"))
	d.bar0 = mmio.New(BAR0Size, registers())
	d.channel.reset()
	d.bar0.Trace(d.trace("bar0"))
	d.bar0.OnRead(regDevice, d.deviceLocked)
	d.bar0.OnWrite(regDevice, func(uint32) { d.attentionLocked() })
	d.bar0.OnWrite(regControl, d.controlLocked)
	d.bar0.OnWrite(regCommand, d.commandLocked)
	d.bar0.OnWrite(regChainLo, func(uint32) { d.chainLocked() })
	d.bar0.OnWrite(regChainHi, func(uint32) { d.chainLocked() })
	return d, nil
}

// Findings returns what guests did wrong so far.
func (d *Device) Findings() []findings.Finding { return d.findings.All() }

// Stats returns what the device did so far.
func (d *Device) Stats() Stats {
	return Stats{d.stats.descriptors.Load(), d.stats.bytes.Load(), d.stats.errors.Load(), d.stats.interrupts.Load()}
}

// WriteConfigDump writes the config space in the form that lspci -F reads.
func (d *Device) WriteConfigDump(w io.Writer) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fn.WriteDump(w)
}

// Run processes descriptors until ctx is done.
func (d *Device) Run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.stopped = true
		d.wake.Signal()
	})
	defer stop()
	d.mu.Lock()
	defer d.mu.Unlock()
	for !d.stopped {
		if d.channel.runnable() {
			d.stepLocked()
		} else {
			d.wake.Wait()
		}
	}
}

// trace makes findings of the accesses to a BAR that break its rules.
func (d *Device) trace(bar string) mmio.Tracer {
	return func(e mmio.Event) {
		if e.Rule != mmio.RuleNone {
			d.findings.Add(bar+"-"+[...]string{mmio.RuleWidth: "width", mmio.RuleUnclaimed: "unclaimed", mmio.RuleReadOnly: "read-only"}[e.Rule],
				e.Rule.String(), e.String())
		}
	}
}

// masterLocked tells the engine whether it may access the bus.
func (d *Device) masterLocked() { d.mem.SetBusMaster(d.fn.BusMaster()) }

// resetLocked resets all but config space. It does not wait for a descriptor in flight.
func (d *Device) resetLocked(why string) {
	d.log.Debug("reset", "kind", why)
	d.masterLocked()
	busy := d.channel.busy
	d.bar0.Reset()
	d.channel.reset()
	if busy {
		d.bar0.SetBits(regCommand, commandReset)
	}
	d.level = false
	d.fn.SetLevel(false)
}

// resetWait is how long a reset waits for a descriptor in flight; a transport has failed such accesses before.
const resetWait = 100 * time.Millisecond

// conventionalReset resets everything, and waits.
func (d *Device) conventionalReset(why string) {
	d.mu.Lock()
	d.fn.Reset(pci.ResetHot)
	d.resetLocked(why)
	if !d.channel.busy {
		d.mu.Unlock()
		return
	}
	if d.over == nil {
		d.over = make(chan struct{})
	}
	over := d.over
	d.mu.Unlock()
	select {
	case <-over:
	case <-time.After(resetWait):
	}
}

// deviceLocked is what the first doubleword reads: INTRCTRL has two bits that follow others.
func (d *Device) deviceLocked() uint32 {
	v := d.bar0.Value(regDevice)
	if d.bar0.Value(regAttention) != 0 {
		v |= intrStatus
		if v&intrMaster != 0 {
			v |= intrPending
		}
	}
	return v
}

// readSideEffectsLocked does what a read of n bytes at off of BAR0 does besides: reading INTRCTRL clears its master
// enable, and reading ATTNSTATUS clears it.
func (d *Device) readSideEffectsLocked(off uint64, n int) {
	end := off + uint64(n)
	if off <= offIntrCtrl && end > offIntrCtrl {
		d.bar0.ClearBits(regDevice, intrMaster)
	}
	if off < regAttention+4 && end > regAttention {
		d.bar0.Set(regAttention, 0)
	}
	d.attentionLocked()
}

// attentionLocked makes INTx, and the one message of MSI, follow ATTNSTATUS while channels have no vectors of their own.
func (d *Device) attentionLocked() {
	v := d.bar0.Value(regDevice)
	level := v&intrMaster != 0 && v&intrMSIX == 0 && d.bar0.Value(regAttention) != 0
	rises := level && !d.level
	d.level = level
	d.fn.SetLevel(level)
	if rises {
		d.stats.interrupts.Add(1)
		if d.fn.Interrupts() != pci.ByINTx {
			d.fn.Raise(0)
		}
	}
}

// interruptLocked is the channel's interrupt. After one, the next waits until the guest re-arms.
func (d *Device) interruptLocked() {
	c := &d.channel
	if d.bar0.Value(regControl)&controlRearm != 0 {
		c.wants = true
		return
	}
	c.wants = false
	d.bar0.SetBits(regControl, controlRearm)
	if d.bar0.Value(regDevice)&intrMSIX != 0 {
		d.stats.interrupts.Add(1)
		d.fn.Raise(0)
		return
	}
	d.bar0.SetBits(regAttention, 1)
	d.attentionLocked()
}
