// SPDX-License-Identifier: Apache-2.0

package pci

import (
	"fmt"

	"npuemu/mmio"
)

// TableOwner says whose MSI-X table decides which vectors are masked.
type TableOwner uint8

const (
	// TableInFunction: the client programs the table through BAR4, so the mask
	// bits in it are obeyed. All are set after reset (§7.7.2.8).
	TableInFunction TableOwner = iota
	// TableInTransport: the transport's peer keeps the table and shows it to the
	// guest itself, as QEMU and Cloud Hypervisor do. Table writes never arrive,
	// and the mask bits in BAR4 say nothing: a vector is masked only while the
	// transport masks it with MaskVector.
	TableInTransport
)

// MSIX is the MSI-X side of a function (§6.1.4, §7.7.2): the table and the
// pending bits in BAR4. It is there, but not in configuration space, in a function
// without the capability.
//
// Between enabling MSI-X and giving us vector 0's eventfd, QEMU announces the
// vector without one. A vector raised in that window has no Signaler: it pends, and
// is delivered when SetVector attaches it.
//
// All methods may be called from any goroutine.
type MSIX struct {
	messages            // irq.mu guards all of it
	bank     *mmio.Bank // BAR4
	masked   bool       // Function Mask
}

// Registers of one table entry (§7.7.2.5 to §7.7.2.8), 16 bytes in all.
const (
	entrySize    = 16
	entryControl = 12
	entryMask    = 1
)

func newInterrupts(c Config, mistake func(id, rule, evidence string)) *interrupts {
	q := &interrupts{vectors: c.Vectors, mistake: mistake}
	q.intx.irq = q
	q.msi.messages = messages{irq: q, signalers: make([]Signaler, 1<<c.msiCapable())}
	q.msix.messages = messages{irq: q, signalers: make([]Signaler, c.Vectors)}
	q.msix.newBank(uint32(max(c.BARs[MSIXBAR].Size, minMSIXBARLen)))
	return q
}

func (m *MSIX) newBank(size uint32) {
	var table []mmio.Register
	for i := range m.signalers {
		off := entryOff(i)
		name := func(s string) string { return fmt.Sprintf("MSIX%d_%s", i, s) }
		table = append(table,
			mmio.Register{Name: name("ADDR_LO"), Off: off, RW: 0xffff_fffc},
			mmio.Register{Name: name("ADDR_HI"), Off: off + 4, RW: 0xffff_ffff},
			mmio.Register{Name: name("DATA"), Off: off + 8, RW: 0xffff_ffff},
			mmio.Register{Name: name("CONTROL"), Off: off + entryControl, RW: entryMask, Reset: entryMask})
	}
	table = append(table,
		mmio.Register{Name: "PBA_LO", Off: MSIXPBAOff},
		mmio.Register{Name: "PBA_HI", Off: MSIXPBAOff + 4})
	m.bank = mmio.New(size, table)
	for i := range m.signalers {
		for off := entryOff(i); off < entryOff(i)+entryControl; off += 4 {
			m.bank.OnWrite(off, func(v uint32) { m.entryWrittenLocked(i, off, v) })
		}
		m.bank.OnWrite(entryOff(i)+entryControl, func(uint32) { m.irq.updateLocked() })
	}
	m.bank.OnRead(MSIXPBAOff, func() uint32 { return uint32(m.irq.pending) })
	m.bank.OnRead(MSIXPBAOff+4, func() uint32 { return uint32(m.irq.pending >> 32) })
}

// entryWrittenLocked finds that the host changes an entry which may be in use: what a message
// then carries is undefined (§7.7.2.6).
func (m *MSIX) entryWrittenLocked(vector int, off, v uint32) {
	if m.irq.mistake != nil && m.enabled && !m.maskedLocked(vector) {
		m.irq.mistake("msix-entry-in-use", "an entry of the MSI-X table is masked while address or data change (§8.3)", fmt.Sprintf("%#x = %#x", off, v))
	}
}

func entryOff(vector int) uint32 { return MSIXTableOff + uint32(vector)*entrySize }

// Trace makes t receive every access to BAR4. t runs with the interrupts' lock held.
func (m *MSIX) Trace(t mmio.Tracer) {
	m.irq.mu.Lock()
	defer m.irq.mu.Unlock()
	m.bank.Trace(t)
}

// Read serves a host read of BAR4, with the access rules of package mmio.
func (m *MSIX) Read(off uint64, p []byte) {
	m.irq.mu.Lock()
	defer m.irq.mu.Unlock()
	m.bank.Read(off, p)
}

// Write serves a host write of BAR4, with the access rules of package mmio.
func (m *MSIX) Write(off uint64, p []byte) {
	m.irq.mu.Lock()
	defer m.irq.mu.Unlock()
	m.bank.Write(off, p)
}

// SetTableOwner says who keeps the table. A transport calls it before it
// attaches interrupts of any kind; what an earlier transport masked is forgotten.
func (m *MSIX) SetTableOwner(o TableOwner) {
	q := m.irq
	q.mu.Lock()
	defer q.mu.Unlock()
	q.owner = o
	for _, m := range []*messages{&q.msix.messages, &q.msi.messages} {
		m.peerMask, m.attached = 0, false
	}
	q.intx.masked = false
	q.updateLocked()
}

// setControl takes over Message Control.
func (m *MSIX) setControl(enabled, masked bool) {
	m.irq.mu.Lock()
	defer m.irq.mu.Unlock()
	m.setEnabledLocked(enabled)
	m.masked = masked
	m.irq.updateLocked()
}

func (m *MSIX) resetLocked() {
	m.bank.Reset()
	m.enabled, m.masked = false, false
}

func (m *MSIX) signalerLocked(vector int) Signaler {
	if m.maskedLocked(vector) {
		return nil
	}
	return m.signalers[vector]
}

func (m *MSIX) maskedLocked(vector int) bool {
	if m.irq.owner == TableInTransport {
		return m.masked || m.peerMask&(1<<vector) != 0
	}
	return m.masked || m.bank.Value(entryOff(vector)+entryControl)&entryMask != 0
}
