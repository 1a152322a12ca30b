// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"fmt"

	"npuemu/dma"
	"npuemu/dma/iova"
	"npuemu/mmio/npureg"
	"npuemu/queue"
)

// translation is a context that has page tables (§11.1).
type translation struct {
	space   *dma.AddressSpace
	faulted bool // its queues have stopped, and no others start (§11.5)
}

// forgetContextsLocked takes the page tables of all contexts away. Queues keep theirs until they end.
func (d *Device) forgetContextsLocked() { clear(d.contexts) }

// contextFaultLocked records why the command that was just executed has stopped its context (§11.5).
func (d *Device) contextFaultLocked() {
	f := d.executor.refused
	r := f.Refusal
	d.count(npureg.CounterTranslationFaults, 1)
	if t := d.contexts[r.Context]; t != nil {
		t.faulted = true
	}
	d.faultLog.add(f, d.executor.status)
	d.recordLocked(queue.Fault{Code: d.executor.status, Queue: int(r.Queue), Source: npureg.FaultMMU, Index: r.Index, Addr: iova.Addr(r.Addr)}, [4]uint32{
		uint32(r.Context) | uint32(r.Engine)<<16 | uint32(r.Access)<<20 | uint32(r.Reason)<<24 | uint32(r.Level)<<28,
		uint32(r.ID) | uint32(r.Index)<<16, uint32(f.Addr), uint32(f.Addr >> 32),
	})
	d.findings.add("fault-"+d.executor.status.String(), "the page tables of a context allow what its commands do (§11.5)",
		fmt.Sprintf("context %d, %v, queue %d, index %d, command %#x, %v of virtual address %#x: %v",
			r.Context, r.Engine, r.Queue, r.Index, r.ID, r.Access, f.Addr, f.Err))
	d.causeLocked(npureg.IRQFault)
}

// faultLog is the last faults (§11.6).
type faultLog struct {
	total   uint32 // since the reset; stays at the largest number
	records [npureg.FaultLogRecords][npureg.FaultLogRecord]byte
}

func (l *faultLog) add(f *dma.Fault, status npureg.Status) {
	if l.total == ^uint32(0) {
		return
	}
	b := &l.records[l.total%npureg.FaultLogRecords]
	l.total++
	r := f.Refusal
	*b = [npureg.FaultLogRecord]byte{}
	le.PutUint32(b[0x00:], l.total)
	le.PutUint16(b[0x04:], uint16(status))
	b[0x06], b[0x07] = byte(r.Reason), byte(r.Access)
	le.PutUint16(b[0x08:], r.Context)
	le.PutUint16(b[0x0a:], r.Queue)
	le.PutUint16(b[0x0c:], r.Index)
	le.PutUint16(b[0x0e:], r.ID)
	b[0x10], b[0x11], b[0x12] = byte(r.Engine), r.Level, byte(r.Space)
	le.PutUint64(b[0x18:], f.Addr)
	le.PutUint64(b[0x20:], r.Entry)
	le.PutUint64(b[0x28:], r.Addr)
}

// page returns log page 3.
func (l *faultLog) page() []byte {
	n := min(l.total, npureg.FaultLogRecords)
	p := make([]byte, npureg.FaultLogHeader, npureg.FaultLogHeader+n*npureg.FaultLogRecord)
	le.PutUint32(p[0:], l.total)
	le.PutUint32(p[4:], n)
	le.PutUint32(p[8:], npureg.FaultLogRecord)
	for i := l.total - n; i != l.total; i++ {
		p = append(p, l.records[i%npureg.FaultLogRecords][:]...)
	}
	return p
}

// translator is the MMU as the control processor sees it (firmware.MMU).
type translator struct{ d *Device }

func (t translator) Translate(context uint16, space uint8, root uint64) {
	if t.d.cfg.features()&npureg.FeatureMMU != 0 && space <= uint8(dma.Device) && root%npureg.PageSize == 0 {
		t.d.contexts[context] = &translation{space: t.d.mem.MMU.Space(dma.Space(space), root)}
	}
}

func (t translator) Remove(context uint16) { delete(t.d.contexts, context) }

func (t translator) State(context uint16) uint32 {
	switch c := t.d.contexts[context]; {
	case c == nil:
		return 0
	case c.faulted:
		return npureg.MMUTranslated | npureg.MMUFaulted
	}
	return npureg.MMUTranslated
}

// Invalidate waits for an access that runs, of at most dma.Chunk bytes.
func (t translator) Invalidate(context uint16, va, size uint64) {
	t.d.mu.Lock()
	c := t.d.contexts[context]
	t.d.mu.Unlock()
	if c != nil {
		t.d.mem.MMU.Invalidate(c.space, va, size)
	}
}

func (t translator) InvalidateAll() { t.d.mem.MMU.InvalidateAll() }

func (t translator) Log() []byte { return t.d.faultLog.page() }
