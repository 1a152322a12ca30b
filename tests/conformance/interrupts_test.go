// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"testing"
	"time"

	"npuemu/firmware"
	"npuemu/internal/eventfd"
	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
	"npuemu/vdev"
	"npuemu/vdev/vfiouser"
)

// attach gives interrupt type index n eventfds.
func attach(h *devtest.Host, index, n int) []*eventfd.FD {
	h.T.Helper()
	var fds []*eventfd.FD
	for range n {
		fd, err := eventfd.New()
		if err != nil {
			h.T.Fatal(err)
		}
		h.T.Cleanup(fd.Close)
		fds = append(fds, fd)
	}
	if err := h.Client.SetVectors(index, 0, fds...); err != nil {
		h.T.Fatal(err)
	}
	return fds
}

func unmask(h *devtest.Host) {
	h.T.Helper()
	if err := h.Client.MaskVector(vfiouser.IRQINTx, 0, false); err != nil {
		h.T.Fatal(err)
	}
}

// becomes waits until value is want, and returns it: an interrupt follows the
// completion that a host polls for.
func becomes[T comparable](value func() T, want T) T {
	for end := time.Now().Add(devtest.Timeout); ; time.Sleep(time.Millisecond) {
		if v := value(); v == want || time.Now().After(end) {
			return v
		}
	}
}

// fires reports whether fd is signalled.
func fires(fd *eventfd.FD, want bool) bool {
	timeout := 20 * time.Millisecond
	if want {
		timeout = devtest.Timeout
	}
	return fd.Wait(timeout) != 0
}

// TestINTx follows the line through admin and user completions as a VFIO client that
// shares it does (§8.4).
func TestINTx(t *testing.T) {
	devtest.NeedsBus(t) // a guest's handler of INTA clears causes; tests/hands has that
	cfg := config()
	cfg.PCI = vdev.PCIConfig{}
	h := devtest.New(t, cfg)
	line := attach(h, vfiouser.IRQINTx, 1)[0]
	status := func() bool {
		var p [2]byte
		if err := h.Client.ReadRegion(vfiouser.RegionConfig, 6, p[:]); err != nil {
			t.Fatal(err)
		}
		return p[0]&8 != 0
	}
	expect := func(what string, fire, high bool, causes uint32) {
		t.Helper()
		if got := fires(line, fire); got != fire {
			t.Errorf("%s: signalled %t, want %t", what, got, fire)
		}
		if got := becomes(status, high); got != high {
			t.Errorf("%s: Interrupt Status %t, want %t", what, got, high)
		}
		if got := becomes(func() uint32 { return h.Read32(npureg.IRQStatus) }, causes); got != causes {
			t.Errorf("%s: IRQ_STATUS %#x, want %#x", what, got, causes)
		}
	}
	clear := func(bits uint32) { h.Write32(npureg.IRQStatus, bits) }

	h.Bring(firmware.Image())
	expect("boot", true, true, npureg.IRQBoot)
	unmask(h)
	expect("unmasked while high", true, true, npureg.IRQBoot)
	clear(npureg.IRQBoot)
	unmask(h)
	expect("cleared", false, false, 0)

	context := h.CreateContext()
	expect("admin completion", true, true, npureg.IRQAdmin)
	clear(npureg.IRQAdmin)
	unmask(h)
	h.CreateQueue(1, context, 5, 8)
	expect("CREATE_QUEUE", true, true, npureg.IRQAdmin)
	clear(npureg.IRQAdmin)
	unmask(h)

	h.Do(1, nop())
	expect("completion of a queue with vector 5", true, true, npureg.IRQQueue)
	h.Do(1, nop())
	expect("another while masked", false, true, npureg.IRQQueue)
	clear(npureg.IRQQueue)
	h.Do(1, nop())
	expect("another after the bit was cleared", false, true, npureg.IRQQueue)
	unmask(h)
	expect("unmasked", true, true, npureg.IRQQueue)
	h.Write32(npureg.IRQEnable, npureg.IRQAll&^npureg.IRQQueue)
	unmask(h)
	expect("not enabled", false, false, npureg.IRQQueue)
	h.Write32(npureg.IRQEnable, npureg.IRQAll)
	expect("enabled", true, true, npureg.IRQQueue)
	h.SetCommand(0x402)
	unmask(h)
	expect("Interrupt Disable", false, true, npureg.IRQQueue)
	h.SetCommand(0x2)
	expect("enabled without Bus Master Enable", true, true, npureg.IRQQueue)
	h.SetCommand(0x6)
	h.Write32(npureg.DeviceControl, npureg.DeviceControlReset)
	h.AwaitReset()
	unmask(h)
	expect("soft reset", false, false, 0)
	if f := h.Dev.Findings(); len(f) != 0 {
		t.Errorf("findings %+v", f)
	}
}

// TestMSI: a card without MSI-X sends the vectors of queues as messages of MSI, and
// completions are no cause.
func TestMSI(t *testing.T) {
	cfg := config()
	cfg.PCI.MSIX = false
	h := devtest.New(t, cfg)
	line := attach(h, vfiouser.IRQINTx, 1)[0]
	messages := attach(h, vfiouser.IRQMSI, 16)
	const mask = 0x10
	at := uint64(capability(h, 0x05))
	config := func(off uint64, v uint32) {
		t.Helper()
		if err := h.Client.WriteRegion(vfiouser.RegionConfig, at+off, le.AppendUint32(nil, v)); err != nil {
			t.Fatal(err)
		}
	}
	pending := func() uint32 {
		var p [4]byte
		if err := h.Client.ReadRegion(vfiouser.RegionConfig, at+0x14, p[:]); err != nil {
			t.Fatal(err)
		}
		return le.Uint32(p[:])
	}
	h.Bring(firmware.Image())
	h.CreateQueue(1, h.CreateContext(), 5, 8)
	if !fires(messages[0], true) {
		t.Error("no message of the admin queue")
	}
	h.Do(1, nop())
	if !fires(messages[5], true) || fires(line, false) {
		t.Error("a completion is message 5 and not INTx")
	}
	if s := h.Read32(npureg.IRQStatus); s&npureg.IRQQueue != 0 {
		t.Errorf("IRQ_STATUS %#x after a completion with MSI", s)
	}
	config(0, 1<<16|2<<20) // 4 messages
	config(mask, 1<<1)
	h.Do(1, nop())
	if becomes(pending, 1<<1) != 1<<1 || fires(messages[1], false) {
		t.Errorf("masked: pending bits %#x, want 2 and no message", pending())
	}
	config(mask, 0)
	if !fires(messages[1], true) || pending() != 0 {
		t.Errorf("unmasked: pending bits %#x, want 0 and message 1, which is 5 modulo 4", pending())
	}
	devtest.NeedsBus(t) // masks by the transport
	if err := h.Client.MaskVector(vfiouser.IRQMSI, 1, true); err != nil {
		t.Fatal(err)
	}
	h.Do(1, nop())
	if becomes(pending, 1<<1) != 1<<1 || fires(messages[1], false) {
		t.Errorf("masked by the client: pending bits %#x, want 2 and no message", pending())
	}
	if f := h.Dev.Findings(); len(f) != 0 {
		t.Errorf("findings %+v", f)
	}
}

// TestProfiles: what a client is told of cards that offer less (§1.4).
func TestProfiles(t *testing.T) {
	type shape struct {
		INTx, MSI, MSIX int
		BAR4            uint64
		Window          bool
	}
	for _, tt := range []struct {
		name   string
		change func(*vdev.Config)
		want   shape
	}{
		{"default", func(*vdev.Config) {}, shape{1, 16, 16, 0x4000, true}},
		{"12 vectors", func(c *vdev.Config) { c.Queues.Vectors = 12 }, shape{1, 16, 12, 0x4000, true}},
		{"MSI", func(c *vdev.Config) { c.PCI.MSIX = false }, shape{1, 16, 0, 0, true}},
		{"MSI-X", func(c *vdev.Config) { c.PCI.MSI = false }, shape{1, 0, 16, 0x4000, true}},
		{"INTx", func(c *vdev.Config) { c.PCI = vdev.PCIConfig{} }, shape{1, 0, 0, 0, true}},
		{"no window", func(c *vdev.Config) { c.Memory.Window = false }, shape{1, 16, 16, 0x4000, false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config()
			tt.change(&cfg)
			d, err := vdev.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			q, r := d.IRQs(), d.Regions()
			window := r[2].Flags&vfiouser.RegionMmap != 0 && r[2].File != nil
			if got := (shape{q[0].Count, q[1].Count, q[2].Count, r[4].Size, window}); got != tt.want {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
			if r[2].Size != 1<<20 {
				t.Errorf("BAR2 has %#x bytes", r[2].Size)
			}
		})
	}
}
