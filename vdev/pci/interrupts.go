// SPDX-License-Identifier: Apache-2.0

package pci

import (
	"fmt"
	"math/bits"
	"sync"
)

// Signaler delivers the message of one vector, or tells that INTx is asserted, such
// as by writing an eventfd.
type Signaler interface {
	// Signal is called with the interrupts' lock held. It must not block and must
	// not call the function. It reports its own failures.
	Signal()
}

// Delivery is what became of a raised vector.
type Delivery uint8

const (
	// Dropped: there is no such vector.
	Dropped Delivery = iota
	// Pending: the pending bit is set; the message follows when what holds it
	// back ends.
	Pending
	// Delivered: a Signaler was called.
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

// interrupts is how the function asks for service (§6.1): by messages of MSI-X if
// that is on, otherwise by messages of MSI if that is on, otherwise by INTx. The
// specification forbids software to turn both kinds of messages on.
//
// A raised vector is sent at once if its message can be: the function is a bus
// master in D0 (a message is a memory write), nothing masks it, and a Signaler is
// attached. Otherwise it pends, and the message follows when all of this holds. Being
// one bit, it stands for any number of raises. A reset of the function clears it.
//
// The specification does not say what becomes of a vector raised while messages are
// off. docs/spec/interrupts.md §8.3 does: it pends like a masked one.
type interrupts struct {
	mu      sync.Mutex                      // guards all that follows
	vectors int                             // never changes
	mistake func(id, rule, evidence string) // Hooks.Mistake; called with mu held; never changes
	owner   TableOwner
	ready   bool   // bus master in D0
	pending uint64 // by vector: raised and not sent
	msix    MSIX
	msi     MSI
	intx    INTx
}

// messages is what MSI and MSI-X have in common. irq.mu guards it.
//
// A kind of messages is on when its Enable bit is set. With TableInTransport it is
// also on from the time a Signaler is attached until the host clears that bit or
// the last Signaler is detached: a VFIO client enables interrupts by attaching eventfds and
// need not write the bit.
type messages struct {
	irq       *interrupts
	enabled   bool
	attached  bool
	peerMask  uint64 // by message: masked by the transport
	signalers []Signaler
}

func (m *messages) onLocked() bool { return m.enabled || m.attached }

func (m *messages) setEnabledLocked(enabled bool) {
	if m.enabled && !enabled {
		m.attached = false
	}
	m.enabled = enabled
}

// SetVector attaches s to a message, or detaches it if s is nil. When SetVector
// returns, the former Signaler will not be called again and may be closed.
// It panics if there is no such message.
func (m *messages) SetVector(message int, s Signaler) {
	m.irq.mu.Lock()
	defer m.irq.mu.Unlock()
	m.signalers[message] = s
	switch {
	case s == nil:
		left := false
		for _, s := range m.signalers {
			left = left || s != nil
		}
		m.attached = m.attached && left
	case m.irq.owner == TableInTransport:
		m.attached = true
	}
	m.irq.updateLocked()
}

// MaskVector masks or unmasks a message for the transport. It panics if there is
// no such message.
func (m *messages) MaskVector(message int, masked bool) {
	m.irq.mu.Lock()
	defer m.irq.mu.Unlock()
	_ = m.signalers[message]
	m.peerMask &^= 1 << message
	if masked {
		m.peerMask |= 1 << message
	}
	m.irq.updateLocked()
}

// Raise asks for the message of a vector, and says what became of it. The
// guest may have chosen the vector: one that does not exist is dropped. Any
// goroutine may call Raise.
func (f *Function) Raise(vector int) Delivery { return f.irq.raise(vector) }

// Interrupts is what a function asks for service with.
type Interrupts uint8

const (
	ByINTx Interrupts = iota
	ByMSI
	ByMSIX
)

func (i Interrupts) String() string { return [...]string{"INTx", "MSI", "MSI-X"}[i] }

// Interrupts returns what the function uses now. Any goroutine may call it.
func (f *Function) Interrupts() Interrupts {
	f.irq.mu.Lock()
	defer f.irq.mu.Unlock()
	switch {
	case f.irq.msix.onLocked():
		return ByMSIX
	case f.irq.msi.onLocked():
		return ByMSI
	}
	return ByINTx
}

func (q *interrupts) raise(vector int) Delivery {
	q.mu.Lock()
	defer q.mu.Unlock()
	if vector < 0 || vector >= q.vectors {
		return Dropped
	}
	if s := q.signalerLocked(vector); s != nil {
		s.Signal()
		return Delivered
	}
	q.pending |= 1 << vector
	return Pending
}

func (q *interrupts) messagesLocked() bool { return q.msix.onLocked() || q.msi.onLocked() }

// signalerLocked returns what can send the message of a vector now, or nil.
func (q *interrupts) signalerLocked(vector int) Signaler {
	switch {
	case !q.ready:
	case q.msix.onLocked():
		return q.msix.signalerLocked(vector)
	case q.msi.onLocked():
		return q.msi.signalerLocked(vector)
	}
	return nil
}

// updateLocked sends what became deliverable.
func (q *interrupts) updateLocked() {
	for rest := q.pending; rest != 0; rest &= rest - 1 {
		v := bits.TrailingZeros64(rest)
		s := q.signalerLocked(v)
		if s == nil {
			continue
		}
		sent := uint64(1) << v
		if !q.msix.onLocked() {
			sent = q.msi.sharersLocked(v)
		}
		q.pending &^= sent
		rest = rest&^sent | 1<<v
		s.Signal()
	}
	q.intx.updateLocked()
}

// setState takes over what configuration space says of the whole function.
func (q *interrupts) setState(s PowerState, busMaster, intxDisabled bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ready = busMaster
	q.intx.off = intxDisabled || s != D0
	q.updateLocked()
}

// reset restores what a reset of the function resets; see Function.Reset.
func (q *interrupts) reset() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ready, q.pending = false, 0
	q.msix.resetLocked()
	q.msi.resetLocked()
	q.intx.off, q.intx.level = false, false
}
