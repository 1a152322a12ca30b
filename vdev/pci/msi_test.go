// SPDX-License-Identifier: Apache-2.0

package pci

import (
	"encoding/binary"
	"testing"
)

// msiRig is a function that is bus master in D0 with 8 messages of MSI enabled.
type msiRig struct {
	t *testing.T
	f *Function
	*MSI
	sig [MaxVectors]counter
}

func newMSIRig(t *testing.T, owner TableOwner) *msiRig {
	f := newFunction(t, Hooks{})
	r := &msiRig{t: t, f: f, MSI: f.MSI()}
	f.MSIX().SetTableOwner(owner)
	f.Write(offCommand, u16(commandBusMaster))
	r.control(0x31)
	return r
}

func (r *msiRig) control(v uint16) { r.f.Write(offMSI+2, u16(v)) }
func (r *msiRig) mask(v uint32)    { r.f.Write(offMSIMask, u32(v)) }
func (r *msiRig) attach(i int)     { r.SetVector(i, &r.sig[i]) }

// want checks how often message i was signalled, and the pending bits.
func (r *msiRig) want(what string, i int, signals int64, pending uint32) {
	r.t.Helper()
	if n := r.sig[i].n.Load(); n != signals {
		r.t.Errorf("%s: message %d signalled %d times, want %d", what, i, n, signals)
	}
	p := make([]byte, 4)
	r.f.Read(offMSIPending, p)
	if got := binary.LittleEndian.Uint32(p); got != pending {
		r.t.Errorf("%s: pending bits = %#x, want %#x", what, got, pending)
	}
}

// TestMSIHoldBack holds message 3 back in each possible way, raises two of its
// vectors, and ends the hold: one message follows. shown says whether the pending
// bit is visible meanwhile.
func TestMSIHoldBack(t *testing.T) {
	tests := []struct {
		name      string
		owner     TableOwner
		hold, end func(*msiRig)
		shown     bool
	}{
		{"masked", TableInFunction, func(r *msiRig) { r.mask(8) }, func(r *msiRig) { r.mask(0) }, true},
		{"masked, the transport keeps a copy", TableInTransport, func(r *msiRig) { r.mask(8) }, func(r *msiRig) { r.mask(0xf7) }, true},
		{"unmasked bytewise", TableInFunction, func(r *msiRig) { r.mask(0x0808) }, func(r *msiRig) { r.f.Write(offMSIMask, []byte{0}) }, true},
		{"masked by the transport", TableInTransport, func(r *msiRig) { r.MaskVector(3, true) }, func(r *msiRig) { r.MaskVector(3, false) }, true},
		{"masked by a transport that went", TableInTransport, func(r *msiRig) { r.MaskVector(3, true) }, func(r *msiRig) { r.f.MSIX().SetTableOwner(TableInTransport) }, true},
		{"off", TableInFunction, func(r *msiRig) { r.control(0x30) }, func(r *msiRig) { r.control(0x31) }, false},
		{"off, attached", TableInTransport, func(r *msiRig) { r.control(0x30) }, func(r *msiRig) { r.control(0x31) }, false},
		{"not a bus master", TableInFunction, func(r *msiRig) { r.f.Write(4, u16(0)) }, func(r *msiRig) { r.f.Write(4, u16(4)) }, true},
		{"D3hot", TableInFunction, func(r *msiRig) { r.f.Write(offPMCSR, u16(3)) }, func(r *msiRig) { r.f.Write(offPMCSR, u16(0)) }, true},
		{"detached", TableInTransport, func(r *msiRig) { r.SetVector(3, nil) }, func(r *msiRig) { r.attach(3) }, true},
		{"MSI-X enabled too", TableInFunction, func(r *msiRig) { r.f.Write(offMSIX+2, u16(0x8000)) }, func(r *msiRig) { r.f.Write(offMSIX+2, u16(0)) }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newMSIRig(t, tt.owner)
			r.attach(3)
			if got := r.f.Raise(3); got != Delivered {
				t.Errorf("Raise = %s", got)
			}
			r.want("before", 3, 1, 0)
			tt.hold(r)
			for _, v := range []int{3, 11, 3} {
				if got := r.f.Raise(v); got != Pending {
					t.Errorf("Raise(%d) = %s", v, got)
				}
			}
			pending := uint32(0)
			if tt.shown {
				pending = 1 << 3
			}
			r.want("held", 3, 1, pending)
			tt.end(r)
			r.want("ended", 3, 2, 0)
			if got := r.f.Raise(27); got != Delivered {
				t.Errorf("Raise = %s", got)
			}
			r.want("after", 3, 3, 0)
		})
	}
}

// TestMSIMessages: vector v is message v modulo what the host allocated.
func TestMSIMessages(t *testing.T) {
	for _, tt := range []struct {
		control         uint16
		vector, message int
	}{
		{0x01, 0, 0},
		{0x01, 31, 0},
		{0x11, 5, 1},
		{0x21, 6, 2},
		{0x51, 31, 31},
		{0x61, 7, 0}, // discarded: still 1
	} {
		r := newMSIRig(t, TableInFunction)
		r.control(0)
		r.control(tt.control)
		for i := range r.Count() {
			r.attach(i)
		}
		r.f.Raise(tt.vector)
		r.want("raised", tt.message, 1, 0)
	}
	cfg := testConfig()
	cfg.Vectors = 12
	f, err := New(cfg, Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	if n := f.MSI().Count(); n != 16 {
		t.Errorf("%d messages for 12 vectors, want 16", n)
	}
	if d := f.Raise(12); d != Dropped {
		t.Errorf("vector 12 of 12: %s", d)
	}
}

// TestMSIAttachIsEnable: a VFIO client attaches eventfds and writes no register.
func TestMSIAttachIsEnable(t *testing.T) {
	r := newMSIRig(t, TableInTransport)
	r.control(0)
	r.f.Raise(2)
	r.attach(2)
	r.want("attached", 2, 1, 0)
	r.f.Reset(ResetHot)
	r.f.Write(offCommand, u16(commandBusMaster))
	r.f.Raise(2)
	r.want("attachments survive a reset", 2, 2, 0)
	r.SetVector(2, nil)
	if r.f.Interrupts() != ByINTx {
		t.Error("MSI is on without Enable and without an eventfd")
	}

	own := newMSIRig(t, TableInFunction)
	own.control(0)
	own.attach(1)
	own.f.Raise(1)
	own.want("this client has to write MSI Enable", 1, 0, 0)
}

// TestMSIReset: a reset clears what is pending and what the host wrote.
func TestMSIReset(t *testing.T) {
	r := newMSIRig(t, TableInFunction)
	r.mask(1)
	r.attach(0)
	r.f.Raise(0)
	r.f.Reset(ResetFLR)
	r.f.Write(offCommand, u16(commandBusMaster))
	r.control(1)
	r.want("after the reset", 0, 0, 0)
	r.f.Raise(0)
	r.want("unmasked", 0, 1, 0)
}
