// SPDX-License-Identifier: Apache-2.0

package gokvm

import (
	"fmt"
	"io"
	"sync"
)

// Ports and interrupt of the serial port (COM1).
const (
	portUART = 0x3f8
	irqUART  = 4
)

// Registers of a 16550A, by port offset, and the bits that matter.
const (
	uartData     = 0 // divisor low if lcrDLAB
	uartIER      = 1 // divisor high if lcrDLAB
	uartIIR      = 2 // FCR when written
	uartLCR      = 3
	uartLSR      = 5
	uartMSR      = 6
	uartSize     = 8
	ierReceive   = 1 << 0
	ierTransmit  = 1 << 1
	iirNone      = 0x01
	iirTransmit  = 0x02
	iirReceive   = 0x04
	iirFIFOs     = 0xc0
	lcrDLAB      = 1 << 7
	lsrReady     = 1 << 0
	lsrEmpty     = 1<<5 | 1<<6
	msrConnected = 0xb0 // CD, DSR, CTS
)

// maxInput is how much input waits for a guest that does not read: a few screens
// of pasted text. More is lost, as on a line without flow control.
const maxInput = 64 << 10

// uart is a 16550A whose transmitter is always empty. What it sends goes to out;
// what receive is given can be read.
type uart struct {
	out  io.Writer
	line func(level bool) // drives the interrupt; called with mu held

	mu        sync.Mutex // guards all that follows
	regs      [uartSize]byte
	divisor   [2]byte
	fifos     bool
	transmit  bool // the transmit interrupt is pending
	input     []byte
	raised    bool
	unplugged bool
	err       error // the first of out
}

// receive adds bytes to what the guest can read, and reports whether there is a
// guest.
func (u *uart) receive(p []byte) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.unplugged {
		return false
	}
	u.input = append(u.input, p[:min(len(p), maxInput-len(u.input))]...)
	u.updateLocked()
	return true
}

// causeLocked returns the interrupt identification.
func (u *uart) causeLocked() byte {
	switch {
	case u.regs[uartIER]&ierReceive != 0 && len(u.input) > 0:
		return iirReceive
	case u.regs[uartIER]&ierTransmit != 0 && u.transmit:
		return iirTransmit
	}
	return iirNone
}

func (u *uart) updateLocked() {
	if on := u.causeLocked() != iirNone; on != u.raised {
		u.raised = on
		u.line(on)
	}
}

func (u *uart) read(off uint16) (v byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	defer u.updateLocked()
	switch {
	case off < 2 && u.regs[uartLCR]&lcrDLAB != 0:
		return u.divisor[off]
	case off == uartData:
		if len(u.input) == 0 {
			return 0
		}
		v, u.input = u.input[0], u.input[1:]
		return v
	case off == uartIIR:
		v = u.causeLocked()
		if v == iirTransmit {
			u.transmit = false
		}
		if u.fifos {
			v |= iirFIFOs
		}
		return v
	case off == uartLSR:
		if len(u.input) > 0 {
			return lsrEmpty | lsrReady
		}
		return lsrEmpty
	case off == uartMSR:
		return msrConnected
	}
	return u.regs[off]
}

func (u *uart) write(off uint16, v byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	defer u.updateLocked()
	switch {
	case off < 2 && u.regs[uartLCR]&lcrDLAB != 0:
		u.divisor[off] = v
	case off == uartData:
		if _, err := u.out.Write([]byte{v}); err != nil && u.err == nil {
			u.err = err
		}
		u.transmit = true
	case off == uartIER:
		u.transmit = u.transmit || v&^u.regs[off]&ierTransmit != 0 // enabling it with an empty transmitter raises it
		u.regs[off] = v & 0x0f
	case off == uartIIR:
		u.fifos = v&1 != 0
	case off == uartLSR || off == uartMSR: // read-only
	default:
		u.regs[off] = v
	}
}

// feed passes on what in gives until it ends. A Read that blocks may outlive the
// machine; after unplug it goes nowhere.
func (u *uart) feed(in io.Reader) {
	p := make([]byte, 256)
	for {
		n, err := in.Read(p)
		if !u.receive(p[:n]) || err != nil {
			return // the end of input is nothing that a serial line knows
		}
	}
}

// unplug ends the input: the machine is about to go.
func (u *uart) unplug() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.unplugged = true
}

// failure returns the first error of the console's writer.
func (u *uart) failure() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err != nil {
		return fmt.Errorf("gokvm: console: %w", u.err)
	}
	return nil
}
