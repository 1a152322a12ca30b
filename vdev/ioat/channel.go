// SPDX-License-Identifier: Apache-2.0

package ioat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"npuemu/dma"
)

// channel is the copy engine's state besides its registers. The state that CHANSTS shows is here, too.
type channel struct {
	status  uint32 // statusActive …
	chained bool   // CHAINADDR was written since the channel was reset or halted
	first   bool   // next is CHAINADDR's
	next    uint64 // descriptor that comes next
	last    uint64 // descriptor that was completed last; 0 if none was
	issued  uint16 // DMACOUNT
	done    uint16 // descriptors completed since CHAINADDR was written
	suspend bool   // to be suspended when the descriptor in flight ends
	busy    bool   // a descriptor is in flight: Run works without the lock
	wants   bool   // an interrupt waits for the guest to re-arm

	epoch atomic.Uint64 // of resets; a descriptor of an earlier one does nothing more. Written with Device.mu held.
}

func (c *channel) runnable() bool {
	return c.status == statusActive && c.done != c.issued
}

// reset begins a new epoch, halted. A descriptor in flight stays busy.
func (c *channel) reset() {
	c.status, c.chained, c.first, c.next, c.last, c.issued, c.done = statusHalted, false, false, 0, 0, 0, 0
	c.suspend, c.wants = false, false
	c.epoch.Add(1)
}

// showLocked writes the channel's state to CHANSTS and CDAR.
func (d *Device) showLocked() {
	c := &d.channel
	d.bar0.Set(regStatusLo, uint32(c.last)|c.status)
	d.bar0.Set(regStatusHi, uint32(c.last>>32))
	d.bar0.Set(regDescLo, uint32(c.next))
	d.bar0.Set(regDescHi, uint32(c.next>>32))
}

// chainLocked is called when half of CHAINADDR was written: a new chain, nothing of it issued.
func (d *Device) chainLocked() {
	c := &d.channel
	if c.status == statusActive {
		d.findings.Add("ioat-chain-live", "CHAINADDR is written while the channel is not active (docs/ioat.md)", fmt.Sprintf("%d of %d descriptors done", c.done, c.issued))
		return
	}
	c.next = uint64(d.bar0.Value(regChainLo)) | uint64(d.bar0.Value(regChainHi))<<32
	c.chained, c.first = true, true
	c.issued, c.done, c.last = 0, 0, 0
	d.bar0.ClearBits(regCommand, 0xffff<<16)
	d.showLocked()
}

// controlLocked is called when CHANCTRL was written: v may re-arm the interrupt.
func (d *Device) controlLocked(v uint32) {
	if v&controlRearm != 0 && d.channel.wants {
		d.interruptLocked()
	}
}

// commandLocked is called when CHANCMD or DMACOUNT was written, or both.
func (d *Device) commandLocked(v uint32) {
	c := &d.channel
	if v&0xff&^commandBits != 0 {
		d.findings.Add("ioat-command", "CHANCMD has the commands reset (0x20) and suspend (0x04) (docs/ioat.md)", fmt.Sprintf("%#x", v&0xff))
	}
	switch {
	case v&commandReset != 0:
		d.resetChannelLocked()
		return
	case v&commandSuspend == 0:
	case c.busy && c.status == statusActive:
		c.suspend = true
	case c.status != statusHalted:
		c.status = statusSuspended
		d.showLocked()
	}
	if n := uint16(v >> 16); n != c.issued {
		d.startLocked(n)
	}
}

// resetChannelLocked resets the channel's registers but CHANERR and its mask, which say why it was reset.
func (d *Device) resetChannelLocked() {
	c := &d.channel
	c.reset()
	for _, off := range []uint32{regCommand, regChainLo, regChainHi, regCompLo, regCompHi} {
		d.bar0.Set(off, 0)
	}
	d.bar0.Set(regControl, compatibleVersion)
	d.bar0.Set(regAttention, 0)
	d.attentionLocked()
	if c.busy {
		d.bar0.SetBits(regCommand, commandReset)
	}
	d.showLocked()
}

// startLocked takes over a DMACOUNT that differs from the one before.
func (d *Device) startLocked(n uint16) {
	c := &d.channel
	var id, rule string
	switch {
	case d.bar0.Value(regError) != 0:
		id, rule = "ioat-start-error", "CHANERR is cleared before DMACOUNT starts the channel (docs/ioat.md)"
	case !c.chained:
		id, rule = "ioat-start-chain", "CHAINADDR is written before DMACOUNT starts a halted channel (docs/ioat.md)"
	default:
		if !d.fn.BusMaster() {
			d.findings.Add("ioat-bus-master", "Bus Master Enable is set before DMACOUNT starts the channel (docs/ioat.md)", fmt.Sprintf("DMACOUNT %d", n))
		}
		c.issued, c.suspend = n, false
		c.status = statusActive
		d.showLocked()
		d.wake.Signal()
		return
	}
	d.findings.Add(id, rule, fmt.Sprintf("DMACOUNT %d, CHANERR %#x", n, d.bar0.Value(regError)))
	d.bar0.Set(regCommand, d.bar0.Value(regCommand)&0xffff|uint32(c.issued)<<16)
}

// job is what a descriptor is executed with: a copy of the registers that concern it.
type job struct {
	epoch      uint64
	addr       uint64 // of the descriptor
	first      bool
	final      bool   // nothing more is issued
	completion uint64 // CHANCMP
	last       uint64 // descriptor completed before
	errWrite   bool   // CHANCTRL
}

// outcome is what became of a descriptor.
type outcome struct {
	control, size uint32
	next          uint64
	err           uint32 // CHANERR
	why           error  // of err
}

// stepLocked executes one descriptor, without the lock, and shows the outcome.
func (d *Device) stepLocked() {
	c := &d.channel
	j := job{
		epoch: c.epoch.Load(), addr: c.next, first: c.first, final: c.issued-c.done == 1, last: c.last,
		completion: uint64(d.bar0.Value(regCompLo)) | uint64(d.bar0.Value(regCompHi))<<32,
		errWrite:   d.bar0.Value(regControl)&controlErrWrite != 0,
	}
	c.busy = true
	d.mu.Unlock()
	o := d.execute(j)
	d.mu.Lock()
	c.busy = false
	if d.over != nil {
		close(d.over)
		d.over = nil
	}
	if c.epoch.Load() != j.epoch {
		d.bar0.ClearBits(regCommand, commandReset)
		return
	}
	if o.err != 0 {
		d.haltLocked(j, o)
		return
	}
	d.stats.descriptors.Add(1)
	d.stats.bytes.Add(uint64(o.size))
	c.done++
	c.last, c.next, c.first = j.addr, o.next, false
	switch {
	case c.suspend:
		c.status = statusSuspended
	case c.done == c.issued:
		c.status = statusDone
	}
	c.suspend = false
	d.showLocked()
	if o.control&descInterrupt != 0 {
		d.interruptLocked()
	}
}

// haltLocked stops the channel for an error.
func (d *Device) haltLocked(j job, o outcome) {
	c := &d.channel
	d.stats.errors.Add(1)
	d.findings.Add("ioat-"+errorNames[o.err], "a descriptor follows docs/ioat.md, and its addresses are mapped",
		fmt.Sprintf("descriptor %#x: CHANERR %#x: %v", j.addr, o.err, o.why))
	d.bar0.SetBits(regError, o.err)
	d.fn.SetOwn(cfgError, o.err)
	c.status, c.chained, c.suspend = statusHalted, false, false
	d.showLocked()
	if d.bar0.Value(regControl)&controlErrIntr != 0 && o.err&^d.bar0.Value(regErrMask) != 0 {
		d.interruptLocked()
	}
}

// errorNames are the findings of CHANERR.
var errorNames = map[uint32]string{
	errNextAddr: "next-address", errNextAlign: "next-alignment", errChainAddr: "chain-address", errReadData: "source",
	errWriteData: "destination", errControl: "control", errLength: "length", errCompletion: "completion-address",
}

var (
	errReset     = errors.New("the channel was reset")
	errAlignment = errors.New("misaligned")
)

// bus does one access to the bus, unless the channel was reset since the job began.
func (d *Device) bus(j job, write bool, addr uint64, p []byte) error {
	switch {
	case d.channel.epoch.Load() != j.epoch:
		return errReset
	case write:
		return d.mem.Write(dma.Bus, addr, p)
	default:
		return d.mem.Read(dma.Bus, addr, p)
	}
}

// execute runs one descriptor. It is called without the lock.
func (d *Device) execute(j job) outcome {
	o := d.copy(j)
	switch {
	case o.err == 0 && o.control&descCompletion != 0:
		status := j.addr | statusActive
		if j.final {
			status = j.addr | statusDone
		}
		if err := d.complete(j, status); err != nil {
			o.err, o.why = errCompletion, err
		}
	case o.err != 0 && j.errWrite:
		// CHANERR says more than a second error would.
		if err := d.complete(j, j.last|statusHalted); err != nil {
			o.why = fmt.Errorf("%w; and CHANCMP: %w", o.why, err)
		}
	}
	return o
}

// complete writes a status to CHANCMP.
func (d *Device) complete(j job, status uint64) error {
	if j.completion%8 != 0 {
		return fmt.Errorf("CHANCMP %#x: %w", j.completion, errAlignment)
	}
	return d.bus(j, true, j.completion, binary.LittleEndian.AppendUint64(nil, status))
}

// copy fetches a descriptor, checks it, and moves its bytes.
func (d *Device) copy(j job) (o outcome) {
	fail := func(bit uint32, why error) outcome {
		o.err, o.why = bit, why
		return o
	}
	if j.addr%descriptorSize != 0 {
		if j.first {
			return fail(errChainAddr, errAlignment)
		}
		return fail(errNextAlign, errAlignment)
	}
	var desc [descriptorSize]byte
	if err := d.bus(j, false, j.addr, desc[:]); err != nil {
		if j.first {
			return fail(errChainAddr, err)
		}
		return fail(errNextAddr, err)
	}
	le := binary.LittleEndian
	size := le.Uint32(desc[0:])
	o.control = le.Uint32(desc[4:])
	src, dst := le.Uint64(desc[8:]), le.Uint64(desc[16:])
	o.next = le.Uint64(desc[24:])
	switch {
	case o.control&descOperation != 0:
		return fail(errControl, fmt.Errorf("operation %#x", o.control>>24))
	case o.control&descReserved != 0:
		return fail(errControl, fmt.Errorf("reserved bits of control %#x", o.control))
	case o.control&descNull != 0:
		return o
	case size == 0 || size > MaxTransfer:
		return fail(errLength, fmt.Errorf("%d bytes, not 1 to %d", size, MaxTransfer))
	}
	var buf [MaxTransfer]byte
	if err := d.bus(j, false, src, buf[:size]); err != nil {
		return fail(errReadData, err)
	}
	if err := d.bus(j, true, dst, buf[:size]); err != nil {
		return fail(errWriteData, err)
	}
	o.size = size
	return o
}
