// SPDX-License-Identifier: Apache-2.0

package pci

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/mmio"
)

// counter is a Signaler that counts.
type counter struct{ n atomic.Int64 }

func (c *counter) Signal() { c.n.Add(1) }

// rig is a function that is bus master in D0 with MSI-X enabled.
type rig struct {
	t *testing.T
	f *Function
	*MSIX
	sig [MaxVectors]counter
}

func newRig(t *testing.T, owner TableOwner) *rig {
	f := newFunction(t, Hooks{})
	r := &rig{t: t, f: f, MSIX: f.MSIX()}
	r.SetTableOwner(owner)
	f.Write(offCommand, u16(commandBusMaster))
	r.control(0x8000)
	return r
}

func (r *rig) control(v uint16) { r.f.Write(offMSIX+2, u16(v)) }
func (r *rig) attach(i int)     { r.SetVector(i, &r.sig[i]) }
func (r *rig) unmask(i int)     { r.MSIX.Write(uint64(entryOff(i))+entryControl, u32(0)) }
func (r *rig) mask(i int)       { r.MSIX.Write(uint64(entryOff(i))+entryControl, u32(1)) }
func (r *rig) raise(i int, want Delivery) {
	r.t.Helper()
	if got := r.f.Raise(i); got != want {
		r.t.Errorf("Raise(%d) = %s, want %s", i, got, want)
	}
}

// want checks how often vector i was signalled, and the pending bits.
func (r *rig) want(what string, i int, signals int64, pending uint64) {
	r.t.Helper()
	if n := r.sig[i].n.Load(); n != signals {
		r.t.Errorf("%s: vector %d signalled %d times, want %d", what, i, n, signals)
	}
	p := make([]byte, 8)
	r.MSIX.Read(MSIXPBAOff, p)
	if got := binary.LittleEndian.Uint64(p); got != pending {
		r.t.Errorf("%s: pending bits = %#x, want %#x", what, got, pending)
	}
}

// TestHoldBack holds a message back in each possible way, raises twice, and
// ends the hold: one message follows.
func TestHoldBack(t *testing.T) {
	tests := []struct {
		name      string
		owner     TableOwner
		hold, end func(*rig)
	}{
		{"vector masked in the table", TableInFunction, func(r *rig) { r.mask(3) }, func(r *rig) { r.unmask(3) }},
		{"never unmasked", TableInFunction, func(r *rig) { r.f.Reset(ResetHot); r.f.Write(4, u16(4)); r.control(0x8000) }, func(r *rig) { r.unmask(3) }},
		{"8-byte unmask", TableInFunction, func(r *rig) { r.mask(3) }, func(r *rig) { r.MSIX.Write(3*16+8, u64(0x4321)) }},
		{"vector masked by the transport", TableInTransport, func(r *rig) { r.MaskVector(3, true) }, func(r *rig) { r.MaskVector(3, false) }},
		{"transport's mask ends with its table", TableInTransport, func(r *rig) { r.MaskVector(3, true) }, func(r *rig) { r.unmask(3); r.SetTableOwner(TableInFunction) }},
		{"function masked", TableInTransport, func(r *rig) { r.control(0xc000) }, func(r *rig) { r.control(0x8000) }},
		{"MSI-X off, table in function", TableInFunction, func(r *rig) { r.control(0) }, func(r *rig) { r.control(0x8000) }},
		{"MSI-X off, attached", TableInTransport, func(r *rig) { r.control(0) }, func(r *rig) { r.control(0x8000) }},
		{"MSI-X off, attached again", TableInTransport, func(r *rig) { r.control(0) }, func(r *rig) { r.attach(3) }},
		{"MSI-X off and function masked", TableInFunction, func(r *rig) { r.control(0x4000) }, func(r *rig) { r.control(0x8000) }},
		{"not a bus master", TableInTransport, func(r *rig) { r.f.Write(4, u16(0)) }, func(r *rig) { r.f.Write(4, u16(4)) }},
		{"D3hot", TableInFunction, func(r *rig) { r.f.Write(offPMCSR, u16(3)) }, func(r *rig) { r.f.Write(offPMCSR, u16(0)) }},
		{"detached, table in function", TableInFunction, func(r *rig) { r.SetVector(3, nil) }, func(r *rig) { r.attach(3) }},
		{"detached, table in transport", TableInTransport, func(r *rig) { r.SetVector(3, nil) }, func(r *rig) { r.attach(3) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, tt.owner)
			r.attach(3)
			if tt.owner == TableInFunction {
				r.unmask(3)
			}
			r.raise(3, Delivered)
			r.want("before", 3, 1, 0)
			tt.hold(r)
			r.raise(3, Pending)
			r.raise(3, Pending)
			r.want("held", 3, 1, 1<<3)
			tt.end(r)
			r.want("ended", 3, 2, 0)
			r.raise(3, Delivered)
			r.want("after", 3, 3, 0)
		})
	}
}

// TestTwoHolds: a message waits for the last of two holds.
func TestTwoHolds(t *testing.T) {
	r := newRig(t, TableInFunction)
	r.attach(0)
	r.control(0xc000)
	r.raise(0, Pending)
	r.control(0x8000)
	r.want("vector still masked", 0, 0, 1)
	r.unmask(0)
	r.want("both ended", 0, 1, 0)
}

// TestQEMUEnable is the order in which QEMU turns MSI-X on and grows the
// number of vectors: the enable bit, vector 0 without an eventfd, vector 0 with
// one, then detach all and attach again. The table is never written.
func TestQEMUEnable(t *testing.T) {
	f := newFunction(t, Hooks{})
	r := &rig{t: t, f: f, MSIX: f.MSIX()}
	r.SetTableOwner(TableInTransport)
	f.Write(offCommand, u16(commandBusMaster|commandMemory))
	r.raise(0, Pending)
	r.control(0xc000) // Linux masks the function while it fills the table
	r.SetVector(0, nil)
	r.raise(0, Pending)
	r.attach(0)
	r.want("function masked", 0, 0, 1)
	r.control(0x8000)
	r.want("unmasked", 0, 1, 0)

	r.SetVector(0, nil)
	r.raise(0, Pending)
	r.attach(0)
	r.attach(1)
	r.want("attached again", 0, 2, 0)
	r.raise(1, Delivered)

	r.control(0)
	r.raise(1, Pending) // still attached: QEMU detaches after the config write
	r.SetVector(0, nil)
	r.SetVector(1, nil)
	r.want("off", 1, 1, 1<<1)
}

// TestAttachIsEnable: a VFIO client attaches eventfds and never writes MSI-X
// Enable.
func TestAttachIsEnable(t *testing.T) {
	r := newRig(t, TableInTransport)
	r.control(0)
	r.raise(2, Pending)
	r.attach(2)
	r.want("attached", 2, 1, 0)
	r.f.Reset(ResetHot)
	r.raise(2, Pending)
	r.f.Reset(ResetHot)
	r.want("reset clears pending bits", 2, 1, 0)
	r.f.Write(offCommand, u16(commandBusMaster))
	r.want("attachments survive a reset", 2, 1, 0)
	r.raise(2, Delivered)
	r.attach(1)
	r.SetVector(2, nil)
	r.raise(1, Delivered) // one is left
	r.SetVector(1, nil)

	own := newRig(t, TableInFunction)
	own.control(0)
	own.unmask(1)
	own.attach(1)
	own.raise(1, Pending) // this client has to write MSI-X Enable
	own.want("off", 1, 0, 1<<1)
}

// TestNextTransport: what one transport masked and attached does not concern
// the next, which takes the same table over.
func TestNextTransport(t *testing.T) {
	r := newRig(t, TableInTransport)
	r.control(0)
	r.attach(0)
	r.MaskVector(1, true)
	r.SetTableOwner(TableInTransport)
	r.raise(0, Pending) // attached by the first one
	r.SetVector(0, nil)
	r.attach(1)
	r.raise(1, Delivered)
}

func TestNoSuchVector(t *testing.T) {
	r := newRig(t, TableInTransport)
	for _, i := range []int{-1, MaxVectors, 64, 1 << 40} {
		r.raise(i, Dropped)
	}
	r.want("nothing", 0, 0, 0)
}

// TestBAR4 writes in at off and reads len(want) bytes at off.
func TestBAR4(t *testing.T) {
	tests := []struct {
		name string
		off  uint64
		in   []byte
		want []byte
		rule mmio.Rule // of the write
	}{
		{name: "address drops its low bits", off: 0x10, in: u32(0xfee0_1003), want: u32(0xfee0_1000)},
		{name: "address as a quadword", off: 0x10, in: u64(0x1_fee0_1000), want: u64(0x1_fee0_1000)},
		{name: "data", off: 0x18, in: u32(0x4041), want: u32(0x4041)},
		{name: "control: mask only", off: 0x1c, in: u32(^uint32(0)), want: u32(1)},
		{name: "control: unmask", off: 0x1c, in: u32(0), want: u32(0)},
		{name: "data and control as a quadword", off: 0x1f8, in: u64(0x55), want: u64(0x55)},
		{name: "reset value", off: 0x1f8, want: u64(1 << 32)},
		{name: "2-byte write is ignored", off: 0x18, in: u16(1), want: u16(0xffff), rule: mmio.RuleWidth},
		{name: "16-byte entry read", off: 0x10, want: bytes.Repeat([]byte{0xff}, 16), rule: mmio.RuleNone},
		{name: "pending bits are read-only", off: 0x2000, in: u64(^uint64(0)), want: u64(1), rule: mmio.RuleReadOnly},
		{name: "pending bits, 4 bytes", off: 0x2000, want: u32(1)},
		{name: "after the last entry", off: 0x200, in: u32(0), want: u32(0xffff_ffff), rule: mmio.RuleUnclaimed},
		{name: "after the pending bits", off: 0x2008, in: u32(0), want: u32(0xffff_ffff), rule: mmio.RuleUnclaimed},
		{name: "end of the BAR", off: 0x4000, in: u32(0), want: u32(0xffff_ffff), rule: mmio.RuleUnclaimed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, TableInFunction)
			r.raise(0, Pending)
			rule := mmio.RuleNone
			r.Trace(func(e mmio.Event) {
				if e.Op == mmio.OpWrite {
					rule = max(rule, e.Rule)
				}
			})
			if tt.in != nil {
				r.MSIX.Write(tt.off, tt.in)
			}
			got := make([]byte, len(tt.want))
			r.MSIX.Read(tt.off, got)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("read after write (-want +got):\n%s", diff)
			}
			if rule != tt.rule {
				t.Errorf("rule of the write = %q, want %q", rule, tt.rule)
			}
		})
	}
}

// TestHammer raises from many goroutines while others mask, detach and read.
// Each raise that was not dropped reaches the Signaler at least as a pending
// bit, and a detached Signaler is not called.
func TestHammer(t *testing.T) {
	const raisers, rounds = 4, 2000
	r := newRig(t, TableInTransport)
	r.attach(0)
	r.attach(1)
	start := make(chan struct{})
	var wg sync.WaitGroup
	run := func(fn func()) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			<-start
			for range rounds {
				fn()
			}
		}()
	}
	var delivered, pended [2]atomic.Int64
	for i := range raisers {
		v := i % 2
		run(func() {
			switch r.f.Raise(v) {
			case Delivered:
				delivered[v].Add(1)
			case Pending:
				pended[v].Add(1)
			case Dropped:
				t.Error("dropped a vector that exists")
			}
		})
	}
	run(func() { r.MaskVector(0, true); r.MaskVector(0, false) })
	run(func() {
		r.SetVector(1, nil)
		n := r.sig[1].n.Load()
		runtime.Gosched()
		if r.sig[1].n.Load() != n {
			t.Error("a detached Signaler was called")
		}
		r.attach(1)
	})
	run(func() { r.MSIX.Read(MSIXPBAOff, make([]byte, 8)) })
	close(start)
	wg.Wait()
	for v := range 2 {
		n, d, p := r.sig[v].n.Load(), delivered[v].Load(), pended[v].Load()
		if n < d || n > d+p || p > 0 && n == d {
			t.Errorf("vector %d: %d signals for %d deliveries and %d pendings", v, n, d, p)
		}
		r.want("at the end", v, n, 0)
	}
}

// FuzzInterrupts plays a sequence of events, two bytes each, and checks after each of
// them that no message is both pending and deliverable, that signals are never
// more than raises, and that nothing is sent for a vector that holds back.
func FuzzInterrupts(f *testing.F) {
	f.Add([]byte{0, 1, 1, 3, 2, 0, 3, 0, 4, 0, 5, 0})
	f.Add([]byte{5, 1, 8, 1, 9, 1, 0, 0, 10, 8, 0, 0, 10, 0, 11, 1, 11, 5, 8, 0, 11, 0, 11, 2})
	f.Add([]byte{6, 1, 1, 2, 2, 1, 0, 1, 1, 3, 3, 1, 7, 1, 4, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		fn := newFunction(t, Hooks{})
		m := fn.MSIX()
		var sig, msi [4]counter
		var intx counter
		var raised [4]int64
		for ; len(in) >= 2; in = in[2:] {
			v, on := int(in[1]>>1&3), in[1]&1 != 0
			var before [4]int64
			for i := range sig {
				before[i] = sig[i].n.Load()
			}
			switch in[0] % 12 {
			case 0:
				if fn.Raise(v) != Dropped {
					raised[v]++
				}
			case 1:
				fn.Write(offMSIX+3, []byte{in[1] << 6}) // enable, function mask
			case 2:
				if m.SetVector(v, nil); on {
					m.SetVector(v, &sig[v])
				}
			case 3:
				m.Write(uint64(entryOff(v))+entryControl, u32(uint32(in[1]&1)))
			case 4:
				m.MaskVector(v, on)
			case 5:
				fn.Write(offCommand, []byte{in[1] << 2})
			case 6:
				m.SetTableOwner(TableOwner(in[1] & 1))
			case 7:
				if on {
					fn.Reset(ResetKind(v % 3))
				} else {
					fn.Write(offPMCSR, []byte{byte(v)})
				}
			case 8:
				fn.Write(offMSI+2, []byte{in[1] & 0x71})
			case 9:
				if fn.MSI().SetVector(v, nil); on {
					fn.MSI().SetVector(v, &msi[v])
				}
			case 10:
				if on {
					fn.MSI().MaskVector(v, in[1]>>3&1 != 0)
				} else {
					fn.Write(offMSIMask, []byte{in[1] >> 3})
				}
			case 11:
				switch v {
				case 0:
					fn.SetLevel(on)
				case 1:
					fn.INTx().Mask(on)
				case 2:
					if fn.INTx().Set(nil); on {
						fn.INTx().Set(&intx)
					}
				case 3:
					fn.Write(offCommand+1, []byte{in[1] << 2})
				}
			}
			if x := fn.INTx(); x.level && !x.off && !x.masked && x.signaler != nil && fn.Interrupts() == ByINTx {
				t.Fatal("INTx is asserted, and neither masked nor signalled")
			}
			var messages, raises int64
			for i := range sig {
				messages += sig[i].n.Load() + msi[i].n.Load()
				raises += raised[i]
			}
			if messages > raises {
				t.Fatalf("%d messages for %d raises", messages, raises)
			}
			for i := range sig {
				n := sig[i].n.Load()
				if fn.irq.pending&(1<<i) != 0 && fn.irq.signalerLocked(i) != nil {
					t.Fatalf("vector %d is pending and deliverable", i)
				}
				if n > raised[i] {
					t.Fatalf("vector %d: %d signals for %d raises", i, n, raised[i])
				}
				if n != before[i] && fn.irq.signalerLocked(i) == nil {
					t.Fatalf("vector %d was signalled while it holds back", i)
				}
			}
		}
	})
}

func BenchmarkRaise(b *testing.B) {
	f := newFunction(b, Hooks{})
	f.MSIX().SetTableOwner(TableInTransport)
	f.Write(offCommand, u16(commandBusMaster))
	f.MSIX().SetVector(0, &counter{})
	for b.Loop() {
		f.Raise(0)
	}
}

// TestEntryInUse: an entry is masked while address or data change (§7.7.2.6); a host that does not
// care is found out.
func TestEntryInUse(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(*rig)
		want int // findings
	}{
		{"masked", func(r *rig) { r.MSIX.Write(0x10, u64(0xfee0_0000)); r.MSIX.Write(0x18, u32(1)) }, 0},
		{"function masked", func(r *rig) { r.unmask(1); r.control(0xc000); r.MSIX.Write(0x10, u32(0xfee0_0000)) }, 0},
		{"MSI-X off", func(r *rig) { r.unmask(1); r.control(0); r.MSIX.Write(0x10, u32(0xfee0_0000)) }, 0},
		{"another entry", func(r *rig) { r.unmask(1); r.MSIX.Write(0x20, u32(0xfee0_0000)) }, 0},
		{"data and unmask in one", func(r *rig) { r.MSIX.Write(0x18, u64(1)) }, 0},
		{"address low", func(r *rig) { r.unmask(1); r.MSIX.Write(0x10, u32(0xfee0_0000)) }, 1},
		{"address high", func(r *rig) { r.unmask(1); r.MSIX.Write(0x14, u32(1)) }, 1},
		{"data", func(r *rig) { r.unmask(1); r.MSIX.Write(0x18, u32(1)) }, 1},
		{"mask bit", func(r *rig) { r.unmask(1); r.mask(1); r.unmask(1) }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := 0
			f := newFunction(t, Hooks{Mistake: func(id, _, _ string) {
				if id == "msix-entry-in-use" {
					got++
				}
			}})
			r := &rig{t: t, f: f, MSIX: f.MSIX()}
			r.SetTableOwner(TableInFunction)
			r.control(0x8000)
			tt.do(r)
			if got != tt.want {
				t.Errorf("%d findings, want %d", got, tt.want)
			}
		})
	}
}
