// SPDX-License-Identifier: Apache-2.0

package pci

// INTx is the emulated interrupt pin INTA (§6.1.2). It is asserted while the board
// holds its level high ([Function.SetLevel]), no messages are on, Interrupt Disable is clear and
// the function is in D0. It does not need to be a bus master.
//
// A Signaler cannot show a level. INTx is masked by signalling that it is asserted; when
// the host has unmasked it, it is signalled again if it is asserted still or again. That is
// what VFIO calls an automasked interrupt.
//
// All methods may be called from any goroutine.
type INTx struct {
	irq      *interrupts // irq.mu guards what follows
	level    bool        // the board has a cause
	off      bool        // Interrupt Disable is set, or not in D0
	masked   bool
	signaler Signaler
}

// Set attaches s, unmasked, or detaches what is there if s is nil. When Set returns,
// the former Signaler will not be called again and may be closed.
func (x *INTx) Set(s Signaler) {
	x.irq.mu.Lock()
	defer x.irq.mu.Unlock()
	x.signaler, x.masked = s, false
	x.updateLocked()
}

// Mask masks or unmasks.
func (x *INTx) Mask(masked bool) {
	x.irq.mu.Lock()
	defer x.irq.mu.Unlock()
	x.masked = masked
	x.updateLocked()
}

// Trigger signals once, as an assertion would.
func (x *INTx) Trigger() {
	x.irq.mu.Lock()
	defer x.irq.mu.Unlock()
	x.signalLocked()
}

// SetLevel tells whether the board has a cause for INTx. A reset of the function
// takes the level away.
func (f *Function) SetLevel(high bool) {
	x := &f.irq.intx
	x.irq.mu.Lock()
	defer x.irq.mu.Unlock()
	x.level = high
	x.updateLocked()
}

// pending is the Interrupt Status bit: Interrupt Disable does not matter (§7.5.1.1.4).
func (x *INTx) pending() bool {
	x.irq.mu.Lock()
	defer x.irq.mu.Unlock()
	return x.level && !x.irq.messagesLocked()
}

func (x *INTx) updateLocked() {
	if x.level && !x.off && !x.irq.messagesLocked() {
		x.signalLocked()
	}
}

func (x *INTx) signalLocked() {
	if x.signaler != nil && !x.masked {
		x.masked = true
		x.signaler.Signal()
	}
}
