// SPDX-License-Identifier: Apache-2.0

package pci

import "testing"

// TestINTx is one story: what each step does to the number of signals and to the
// Interrupt Status bit.
func TestINTx(t *testing.T) {
	f := newFunction(t, Hooks{})
	x := f.INTx()
	var sig, msg counter
	f.MSIX().SetTableOwner(TableInTransport)
	status := func() bool {
		p := make([]byte, 2)
		f.Read(6, p)
		return p[0]&8 != 0
	}
	for _, s := range []struct {
		name    string
		do      func()
		signals int64
		status  bool
	}{
		{"high, nobody attached", func() { f.SetLevel(true) }, 0, true},
		{"attached", func() { x.Set(&sig) }, 1, true},
		{"automasked", func() { f.SetLevel(true) }, 1, true},
		{"unmasked while high", func() { x.Mask(false) }, 2, true},
		{"low", func() { f.SetLevel(false) }, 2, false},
		{"unmasked while low", func() { x.Mask(false) }, 2, false},
		{"high again", func() { f.SetLevel(true) }, 3, true},
		{"low and high while masked", func() { f.SetLevel(false); f.SetLevel(true) }, 3, true},
		{"unmasked", func() { x.Mask(false) }, 4, true},
		{"low; masked by the host", func() { f.SetLevel(false); x.Mask(false); x.Mask(true) }, 4, false},
		{"high while masked", func() { f.SetLevel(true) }, 4, true},
		{"Interrupt Disable, unmasked", func() { f.Write(4, u16(commandINTxOff)); x.Mask(false) }, 4, true},
		{"Interrupt Disable off", func() { f.Write(4, u16(0)) }, 5, true},
		{"D3hot, unmasked", func() { f.Write(offPMCSR, u16(3)); x.Mask(false) }, 5, true},
		{"D0", func() { f.Write(offPMCSR, u16(0)) }, 6, true},
		{"MSI on, unmasked", func() { f.Write(offMSI+2, u16(1)); x.Mask(false) }, 6, false},
		{"MSI off", func() { f.Write(offMSI+2, u16(0)) }, 7, true},
		{"MSI-X on, unmasked", func() { f.Write(offMSIX+2, u16(0x8000)); x.Mask(false) }, 7, false},
		{"MSI-X off", func() { f.Write(offMSIX+2, u16(0)) }, 8, true},
		{"MSI-X on by an eventfd, unmasked", func() { f.MSIX().SetVector(0, &msg); x.Mask(false) }, 8, false},
		{"its eventfd taken away", func() { f.MSIX().SetVector(0, nil) }, 9, true},
		{"function reset", func() { x.Mask(false); f.Reset(ResetFLR) }, 10, false},
		{"unmasked after it", func() { x.Mask(false) }, 10, false},
		{"triggered by the host", func() { x.Trigger() }, 11, false},
		{"detached", func() { x.Set(nil); f.SetLevel(true); x.Trigger() }, 11, true},
		{"next client", func() { x.Set(&sig) }, 12, true},
		{"next transport", func() { f.MSIX().SetTableOwner(TableInTransport) }, 13, true},
	} {
		s.do()
		if n := sig.n.Load(); n != s.signals || status() != s.status {
			t.Fatalf("%s: %d signals, Interrupt Status %t; want %d, %t", s.name, n, status(), s.signals, s.status)
		}
	}
}
