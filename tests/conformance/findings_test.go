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
				r.do(h)
				h.AwaitReset()
				prepare(h)
			}
		}, ""},
		{"BAR0 while Memory Space Enable is clear", closed(0), "bar-closed"},
		{"BAR2 while Memory Space Enable is clear", closed(2), "bar-closed"},
		{"BAR4 while Memory Space Enable is clear", closed(4), "bar-closed"},
		{"2-byte write to BAR0", region(0, npureg.IRQEnable, []byte{1, 0}), "bar0-width"},
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
			h, _ := ready(t)
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
