// SPDX-License-Identifier: Apache-2.0

package pci

import (
	"fmt"
	"math/bits"
	"sync"

	"npuemu/mmio"
)

// Signaler delivers the message of one vector, such as by writing an eventfd.
type Signaler interface {
	// Signal is called with the MSIX lock held. It must not block and must not
	// call the MSIX. It reports its own failures.
	Signal()
}

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

// Delivery is what became of a raised vector.
type Delivery uint8

const (
	// Dropped: there is no such vector.
	Dropped Delivery = iota
	// Pending: the pending bit is set; the message follows when what holds it
	// back ends.
	Pending
	// Delivered: the vector's Signaler was called.
	Delivered
)

func (d Delivery) String() string {
	switch d {
	case Dropped:
		return "dropped"
	case Pending:
		return "pending"
	case Delivered:
		return "delivered"
	}
	return fmt.Sprintf("Delivery(%d)", uint8(d))
}

// MSIX is the MSI-X side of a function (§6.1.4, §7.7.2): the table and the
// pending bits in BAR4, and the way from a raised vector to its [Signaler].
//
// A raised vector is delivered at once if MSI-X is on, neither the function
// nor the vector is masked, the function is a bus master in D0 (a message is a
// memory write), and a Signaler is attached. Otherwise its pending bit is set, and
// the message is sent when all of this holds. Being one bit, it stands for any
// number of raises. A reset of the function clears it.
//
// The PCI Express specification does not say what becomes of a vector raised
// while MSI-X is off, when the function may only use INTx, of which this one
// has none. docs/spec/interrupts.md §8.3 does: it pends like a masked one.
//
// MSI-X is on when MSI-X Enable is set. With TableInTransport it is also on from
// the time a Signaler is attached until the host clears MSI-X Enable: a VFIO
// client enables interrupts by attaching eventfds and need not write that bit.
//
// Between enabling MSI-X and giving us vector 0's eventfd, QEMU announces the
// vector without one. A vector raised in that window has no Signaler: it pends, and
// is delivered when SetVector attaches it.
//
// All methods may be called from any goroutine.
type MSIX struct {
	mu        sync.Mutex // guards all that follows; the length of signalers is fixed
	bank      *mmio.Bank // BAR4
	owner     TableOwner
	enabled   bool   // MSI-X Enable
	masked    bool   // Function Mask
	attached  bool   // with TableInTransport: on without MSI-X Enable
	ready     bool   // bus master in D0
	pending   uint64 // by vector
	peerMask  uint64 // by vector: masked by the transport
	signalers []Signaler
}

// Registers of one table entry (§7.7.2.5 to §7.7.2.8), 16 bytes in all.
const (
	entrySize    = 16
	entryControl = 12
	entryMask    = 1
)

func newMSIX(vectors int, barSize uint32) *MSIX {
	m := &MSIX{signalers: make([]Signaler, vectors)}
	var table []mmio.Register
	for i := range vectors {
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
	m.bank = mmio.New(barSize, table)
	for i := range vectors {
		m.bank.OnWrite(entryOff(i)+entryControl, func(uint32) { m.updateLocked() })
	}
	m.bank.OnRead(MSIXPBAOff, func() uint32 { return uint32(m.pending) })
	m.bank.OnRead(MSIXPBAOff+4, func() uint32 { return uint32(m.pending >> 32) })
	return m
}

func entryOff(vector int) uint32 { return MSIXTableOff + uint32(vector)*entrySize }

// Vectors returns the number of vectors.
func (m *MSIX) Vectors() int { return len(m.signalers) }

// Trace makes t receive every access to BAR4. t runs with the MSIX lock held.
func (m *MSIX) Trace(t mmio.Tracer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bank.Trace(t)
}

// Read serves a host read of BAR4, with the access rules of package mmio.
func (m *MSIX) Read(off uint64, p []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bank.Read(off, p)
}

// Write serves a host write of BAR4, with the access rules of package mmio.
func (m *MSIX) Write(off uint64, p []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bank.Write(off, p)
}

// Raise asks for the message of a vector, and says what became of it. The
// guest may have chosen the vector: one that does not exist is dropped.
func (m *MSIX) Raise(vector int) Delivery {
	m.mu.Lock()
	defer m.mu.Unlock()
	if vector < 0 || vector >= len(m.signalers) {
		return Dropped
	}
	if !m.deliverableLocked(vector) {
		m.pending |= 1 << vector
		return Pending
	}
	m.signalers[vector].Signal()
	return Delivered
}

// SetTableOwner says who keeps the table. A transport calls it before it
// attaches vectors; the masks of an earlier transport are forgotten.
func (m *MSIX) SetTableOwner(o TableOwner) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.owner, m.peerMask, m.attached = o, 0, false
	m.updateLocked()
}

// SetVector attaches s to a vector, or detaches it if s is nil. When SetVector
// returns, the former Signaler will not be called again and may be closed.
// It panics if there is no such vector.
func (m *MSIX) SetVector(vector int, s Signaler) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.signalers[vector] = s
	if s != nil && m.owner == TableInTransport {
		m.attached = true
	}
	m.updateLocked()
}

// MaskVector masks or unmasks a vector for the transport, which matters with
// TableInTransport. It panics if there is no such vector.
func (m *MSIX) MaskVector(vector int, masked bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_ = m.signalers[vector]
	m.peerMask &^= 1 << vector
	if masked {
		m.peerMask |= 1 << vector
	}
	m.updateLocked()
}

// setControl takes over Message Control.
func (m *MSIX) setControl(enabled, masked bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.enabled && !enabled {
		m.attached = false
	}
	m.enabled, m.masked = enabled, masked
	m.updateLocked()
}

// setReady takes over whether the function may send memory requests.
func (m *MSIX) setReady(ready bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ready = ready
	m.updateLocked()
}

// reset restores what a reset of the function resets; see Function.Reset.
func (m *MSIX) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bank.Reset()
	m.enabled, m.masked, m.ready, m.pending = false, false, false, 0
}

// updateLocked sends what became deliverable.
func (m *MSIX) updateLocked() {
	for rest := m.pending; rest != 0; rest &= rest - 1 {
		if i := bits.TrailingZeros64(rest); m.deliverableLocked(i) {
			m.pending &^= 1 << i
			m.signalers[i].Signal()
		}
	}
}

func (m *MSIX) deliverableLocked(vector int) bool {
	on := m.enabled || m.attached
	return on && m.ready && !m.masked && m.signalers[vector] != nil && !m.maskedLocked(vector)
}

func (m *MSIX) maskedLocked(vector int) bool {
	if m.owner == TableInTransport {
		return m.peerMask&(1<<vector) != 0
	}
	return m.bank.Value(entryOff(vector)+entryControl)&entryMask != 0
}
