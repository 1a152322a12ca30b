// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/mmio/npureg"
)

// translation is what Translate got.
type translation struct {
	Space uint8
	Root  uint64
}

// invalidation is what Invalidate got; context 0 stands for InvalidateAll.
type invalidation struct {
	Context  uint16
	VA, Size uint64
}

// fakeMMU belongs to the board's mu but for invalidations.
type fakeMMU struct {
	b        *board
	contexts map[uint16]translation
	faulted  map[uint16]bool
	did      []invalidation
	log      []byte
}

func (m *fakeMMU) Translate(c uint16, space uint8, root uint64) {
	m.contexts[c] = translation{space, root}
}

func (m *fakeMMU) Remove(c uint16) { delete(m.contexts, c) }

func (m *fakeMMU) State(c uint16) (s uint32) {
	if _, ok := m.contexts[c]; ok {
		s = npureg.MMUTranslated
	}
	if m.faulted[c] {
		s |= npureg.MMUFaulted
	}
	return s
}

func (m *fakeMMU) Invalidate(c uint16, va, size uint64) {
	m.b.mu.Lock() // hangs if the processor holds it
	defer m.b.mu.Unlock()
	m.did = append(m.did, invalidation{c, va, size})
}

func (m *fakeMMU) InvalidateAll() { m.Invalidate(0, 0, 0) }

func (m *fakeMMU) Log() []byte { return m.log }

var (
	translatedContext = command(npureg.AdminCreateContext, 0x08, uint64(0x12_3456_7000), 0x10, uint32(1))
	goodInvalidate    = command(npureg.AdminInvalidateTLB, 0x08, uint64(0x7000), 0x10, uint64(0x2000), 0x18, uint32(1))
)

// TestTranslatedContexts is every rule of CREATE_CONTEXT and INVALIDATE_TLB on hardware that announces MMU (§4.6, §11.4).
func TestTranslatedContexts(t *testing.T) {
	field := func(off uint64) completion { return completion{Status: npureg.StatusInvalidField, Info: off} }
	created := completion{Result: 2}
	const limit = uint64(1 << 48)
	inv := func(addr, size uint64, context uint32) [64]byte {
		return command(npureg.AdminInvalidateTLB, 0x08, addr, 0x10, size, 0x18, context)
	}
	for _, tt := range []struct {
		name string
		e    [64]byte
		want completion
		got  *translation   // of context 2
		did  []invalidation // by the command
	}{
		{name: "not translated", e: goodContext, want: created},
		{name: "translated", e: translatedContext, want: created, got: &translation{0, 0x12_3456_7000}},
		{name: "root in device memory", e: with(translatedContext, 0x10, uint32(0x11)), want: created, got: &translation{1, 0x12_3456_7000}},
		{name: "root 0", e: command(npureg.AdminCreateContext, 0x10, uint32(1)), want: created, got: &translation{}},
		{name: "root in the last page", e: with(translatedContext, 0x08, ^uint64(4095)), want: created, got: &translation{0, ^uint64(4095)}},
		{name: "root not aligned", e: with(translatedContext, 0x08, uint64(0x12_3456_7800)), want: field(8)},
		{name: "root without TRANSLATED", e: with(translatedContext, 0x10, uint32(0)), want: field(8)},
		{name: "space without TRANSLATED", e: command(npureg.AdminCreateContext, 0x10, uint32(0x10)), want: field(0x10)},
		{name: "root in virtual memory", e: with(translatedContext, 0x10, uint32(0x21)), want: field(0x10)},
		{name: "root in space 15", e: with(translatedContext, 0x10, uint32(0xf1)), want: field(0x10)},
		{name: "flag 1", e: with(translatedContext, 0x10, uint32(3)), want: field(0x10)},
		{name: "flag 8", e: with(translatedContext, 0x10, uint32(0x101)), want: field(0x10)},
		{name: "flag 31", e: with(translatedContext, 0x10, uint32(1<<31|1)), want: field(0x10)},
		{name: "reserved behind the flags", e: with(translatedContext, 0x14, uint32(1)), want: field(0x14)},
		{name: "last byte", e: with(translatedContext, 0x3f, uint8(1)), want: field(0x14)},
		{name: "last byte, not translated", e: with(goodContext, 0x3f, uint8(1)), want: field(0x14)},
		{name: "flags byte", e: with(translatedContext, 1, uint8(1)), want: field(1)},

		{name: "a range", e: goodInvalidate, did: []invalidation{{1, 0x7000, 0x2000}}},
		{name: "all of a context", e: inv(0, 0, 1), did: []invalidation{{1, 0, 0}}},
		{name: "everything", e: inv(0, 0, 0), did: []invalidation{{}}},
		{name: "the last page", e: inv(limit-4096, 4096, 1), did: []invalidation{{1, limit - 4096, 4096}}},
		{name: "more than 2^32 pages become all", e: inv(0, limit, 1), did: []invalidation{{1, 0, 0}}},
		{name: "just fewer", e: inv(0x1000, 1<<44-4096, 1), did: []invalidation{{1, 0x1000, 1<<44 - 4096}}},
		{name: "address not aligned", e: inv(0x7100, 0x1000, 1), want: field(8)},
		{name: "address that is none", e: inv(limit, 0x1000, 1), want: field(8)},
		{name: "address without size", e: inv(0x1000, 0, 1), want: field(8)},
		{name: "address without context", e: inv(0x1000, 0x1000, 0), want: field(8)},
		{name: "size not aligned", e: inv(0x1000, 0x1100, 1), want: field(0x10)},
		{name: "size past the last address", e: inv(limit-4096, 8192, 1), want: field(0x10)},
		{name: "size that overflows", e: inv(0x1000, ^uint64(4095), 1), want: field(0x10)},
		{name: "size without context", e: inv(0, 0x1000, 0), want: field(0x10)},
		{name: "reserved", e: with(goodInvalidate, 0x1c, uint32(1)), want: field(0x1c)},
		{name: "last byte of it", e: with(goodInvalidate, 0x3f, uint8(1)), want: field(0x1c)},
		{name: "no such context", e: inv(0x1000, 0x1000, 2), want: completion{Status: npureg.StatusInvalidContext}},
		{name: "context beyond 16 bits", e: inv(0, 0, 1<<16|1), want: completion{Status: npureg.StatusInvalidContext}},
		{name: "queue of a context that faulted", e: with(goodQueue, 0x20, uint32(1)), want: completion{Status: npureg.StatusContextFaulted}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDriver(t, 8, 8)
			d.host.Set(npureg.FeaturesLo, npureg.FeatureMMU)
			d.do(t, translatedContext) // 1
			d.mmu.faulted[1] = true
			d.mmu.did = nil
			if diff := cmp.Diff(tt.want, d.do(t, tt.e)); diff != "" {
				t.Errorf("completion (-want +got):\n%s", diff)
			}
			want := map[uint16]translation{1: {0, 0x12_3456_7000}}
			if tt.got != nil {
				want[2] = *tt.got
			}
			if diff := cmp.Diff(want, d.mmu.contexts); diff != "" {
				t.Errorf("page tables (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.did, d.mmu.did); diff != "" {
				t.Errorf("invalidations (-want +got):\n%s", diff)
			}
			if len(d.mmu.did) == 0 && tt.want.Status != 0 && len(d.queues) != 0 {
				t.Error("a refused command made a queue")
			}
			if c := d.do(t, destroyContext(1)); c.Status != 0 || len(d.mmu.contexts) != len(want)-1 {
				t.Errorf("DESTROY_CONTEXT: %+v; %d contexts keep their tables", c, len(d.mmu.contexts))
			}
		})
	}
}

// TestFaultLogPage reads log page 3 as hardware has it, cut and whole.
func TestFaultLogPage(t *testing.T) {
	for _, n := range []int{0, 1, 3, npureg.FaultLogRecords} {
		d := newDriver(t, 8, 8)
		d.host.Set(npureg.FeaturesLo, npureg.FeatureMMU)
		size := npureg.FaultLogHeader + n*npureg.FaultLogRecord
		d.mmu.log = make([]byte, size)
		for i := range d.mmu.log {
			d.mmu.log[i] = byte(i*7 + i>>8)
		}
		d.mmu.log[4], d.mmu.log[5], d.mmu.log[6], d.mmu.log[7] = byte(n), 0, 0, 0
		for _, room := range []int{4096, size, 20, 1} {
			buf := d.bus(bufAddr, 4096)
			for i := range buf {
				buf[i] = 0xee
			}
			want := append(bytes.Clone(d.mmu.log[:min(size, room)]), bytes.Repeat([]byte{0xee}, 4096-min(size, room))...)
			if c := d.do(t, with(goodLog, 0x14, uint32(3), 0x10, uint32(room))); c.Status != 0 || int(c.Result) != min(size, room) {
				t.Errorf("%d records, %d bytes: %+v", n, room, c)
			}
			if !bytes.Equal(want, buf) {
				t.Errorf("%d records, %d bytes: the page differs", n, room)
			}
		}
	}
}

// TestResetDuringInvalidation: an invalidation that a reset overtakes says nothing to the next firmware.
func TestResetDuringInvalidation(t *testing.T) {
	h := newHart(t)
	h.set(npureg.CPMMUControl, npureg.MMUInvalidateAll)
	h.set(npureg.CPMMUControl, npureg.MMURemove) // ignored: one operation at a time
	if s := h.get(npureg.CPMMUStatus); s&npureg.MMUBusy == 0 {
		t.Fatalf("CP_MMU_STATUS %#x, want BUSY", s)
	}
	if h.p.Reset() {
		t.Error("an invalidation keeps a reset busy")
	}
	if s := h.get(npureg.CPMMUStatus); s != 0 {
		t.Errorf("CP_MMU_STATUS %#x after a reset", s)
	}
	if s := h.start(t, Image()); s != npureg.BootReady {
		t.Errorf("BOOT_STATUS %#x", s)
	}
	if len(h.mmu.did) != 0 {
		t.Errorf("invalidations %v of before the reset", h.mmu.did)
	}
}
