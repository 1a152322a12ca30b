// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"testing"

	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
	"npuemu/vdev/vfiouser"
)

// TestFindings: a mistake that hardware only ignores leaves a finding, and a
// driver that makes none leaves nothing.
func TestFindings(t *testing.T) {
	devtest.NeedsFunction(t, "registers")
	region := func(bar int, off uint64, p []byte) func(h *devtest.Host) {
		return func(h *devtest.Host) {
			if err := h.Client.WriteRegion(vfiouser.RegionBAR0+bar, off, p); err != nil {
				h.T.Fatal(err)
			}
		}
	}
	closed := func(bar int) func(h *devtest.Host) {
		return func(h *devtest.Host) {
			h.SetCommand(4) // Memory Space Enable is clear
			region(bar, 0x10, []byte{1, 2, 3, 4})(h)
			var p [4]byte
			if err := h.Client.ReadRegion(vfiouser.RegionBAR0+bar, 0x10, p[:]); err != nil {
				h.T.Fatal(err)
			}
			if p != [4]byte{0xff, 0xff, 0xff, 0xff} {
				h.T.Errorf("closed BAR%d reads % x, want all-ones", bar, p)
			}
			devtest.NeedsBus(h.T)
			// Uncorrectable status and header of the write, correctable status of the read.
			aer := make([]byte, 0x2c)
			if err := h.Client.ReadRegion(vfiouser.RegionConfig, 0x100, aer); err != nil {
				h.T.Fatal(err)
			}
			if u, c, kind, addr := le.Uint32(aer[4:]), le.Uint32(aer[0x10:]), le.Uint32(aer[0x1c:]), le.Uint32(aer[0x24:]); u != 1<<20 || c != 1<<13 || kind != 0x4000_0001 || addr != 0x10 {
				h.T.Errorf("AER shows errors %#x, %#x, header %#x … %#x", u, c, kind, addr)
			}
			h.SetCommand(6)
			if err := h.Client.ReadRegion(vfiouser.RegionBAR0+bar, 0x10, p[:]); err != nil {
				h.T.Fatal(err)
			}
			if p == [4]byte{1, 2, 3, 4} {
				h.T.Errorf("a write to closed BAR%d took effect", bar)
			}
		}
	}
	register := func(off, v uint32) func(h *devtest.Host) {
		return func(h *devtest.Host) { h.Write32(off, v) }
	}
	for _, tt := range []struct {
		name string
		do   func(h *devtest.Host)
		want string // the only finding, if any
	}{
		{"no mistake", func(h *devtest.Host) {
			h.Do(1, nop())
			h.DestroyQueue(1)
			for _, r := range resets {
				if r.name == "conventional reset" && devtest.InUse() == devtest.GoKVM {
					break
				}
				r.do(h)
				h.AwaitReset()
				prepare(h)
			}
		}, ""},
		{"BAR0 while Memory Space Enable is clear", closed(0), "bar-closed"},
		{"BAR2 while Memory Space Enable is clear", closed(2), "bar-closed"},
		{"BAR4 while Memory Space Enable is clear", closed(4), "bar-closed"},
		{"BAR2 beyond the size that was chosen", func(h *devtest.Host) {
			devtest.NeedsBus(h.T)
			h.SetCommand(4)
			if err := h.Client.WriteRegion(vfiouser.RegionConfig, 0x169, []byte{0}); err != nil {
				h.T.Fatal(err)
			}
			h.SetCommand(6)
			region(2, 1<<20-4, []byte{1, 2, 3, 4})(h)
			if err := h.Client.WriteRegion(vfiouser.RegionBAR0+2, 1<<20-2, []byte{5, 6, 7, 8}); err != nil {
				h.T.Fatal(err)
			}
			var p [4]byte
			if err := h.Client.ReadRegion(vfiouser.RegionBAR0+2, 1<<20-4, p[:]); err != nil {
				h.T.Fatal(err)
			}
			if p != [4]byte{1, 2, 3, 4} {
				h.T.Errorf("the end of BAR2 reads % x", p)
			}
			if err := h.Client.ReadRegion(vfiouser.RegionBAR0+2, 1<<20, p[:]); err != nil {
				h.T.Fatal(err)
			}
			if p != [4]byte{0xff, 0xff, 0xff, 0xff} {
				h.T.Errorf("beyond BAR2 is % x, want all-ones", p)
			}
			if s := h.Dev.Status(); s.Uncorrectable != 1<<20 || s.Correctable != 1<<13 {
				h.T.Errorf("AER status %#x, %#x, want Unsupported Request of the write, Advisory Non-Fatal of the read", s.Uncorrectable, s.Correctable)
			}
		}, "bar-beyond"},
		{"BAR2 resized while it is decoded", func(h *devtest.Host) {
			devtest.NeedsBus(h.T)
			if err := h.Client.WriteRegion(vfiouser.RegionConfig, 0x169, []byte{0}); err != nil {
				h.T.Fatal(err)
			}
		}, "config-bar-resize"},
		{"power state that is not there", func(h *devtest.Host) {
			if err := h.Client.WriteRegion(vfiouser.RegionConfig, uint64(capability(h, 0x01))+4, []byte{1}); err != nil {
				h.T.Fatal(err)
			}
		}, "config-power-state"},
		{"2-byte write to BAR0", region(0, npureg.IRQEnable, []byte{1, 0}), "bar0-width"},
		{"2-byte write to a doorbell", region(0, uint64(devtest.Doorbell(1)), []byte{1, 0}), "bar0-width"},
		{"offset without a register", register(0xff8, 0), "bar0-unclaimed"},
		{"write to a read-only register", register(npureg.ID, 0), "bar0-read-only"},
		{"2-byte write to BAR4", region(4, 0xc, []byte{1, 0}), "bar4-width"},
		{"write to the pending bits", region(4, 0x2000, []byte{1, 0, 0, 0}), "bar4-read-only"},
		{"START while firmware runs", register(npureg.BootControl, npureg.BootControlStart), "start-ignored"},
		{"admin ring moved while it is in use", register(npureg.ASQBaseLo, 0x1000), "admin-live"},
		{"admin ring resized while it is in use", register(npureg.AQSize, 4<<16|4), "admin-live"},
		{"admin ring that is not aligned", func(h *devtest.Host) {
			h.Write32(npureg.AQControl, 0)
			h.Write32(npureg.ACQBaseLo, 0x1020)
		}, "admin-alignment"},
		{"admin queue enabled before firmware is READY", func(h *devtest.Host) {
			resets[0].do(h)
			h.AwaitReset()
			h.Write32(npureg.AQControl, npureg.AQControlEnable)
		}, "admin-early"},
		{"submission tail that moves back", func(h *devtest.Host) {
			h.Submit(1, endless(1, 1, 0, 4096))
			h.Submit(1, nop())
			h.Write32(devtest.Doorbell(1), 1)
		}, "fault-INVALID_DOORBELL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config()
			cfg.Memory.Size = 2 << 20 // a BAR of 1 MiB could not be resized
			h := devtest.New(t, cfg)
			prepare(h)
			tt.do(h)
			got := h.Dev.Findings()
			switch {
			case tt.want == "" && len(got) != 0:
				t.Errorf("findings %+v, want none", got)
			case tt.want != "" && (len(got) != 1 || got[0].ID != tt.want):
				t.Errorf("findings %+v, want %s alone", got, tt.want)
			}
		})
	}
}
