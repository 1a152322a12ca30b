// SPDX-License-Identifier: Apache-2.0

package ioat

import (
	"bytes"
	"encoding/binary"
	"testing"

	"npuemu/vdev/vfiouser"
)

// TestBad is what a guest can do wrong with a descriptor or a register, and what it sees (docs/ioat.md). Each ends
// halted with an error, leaves a finding and the destination alone, and the channel works again after a reset.
func TestBad(t *testing.T) {
	const good = 16
	for _, row := range []struct {
		name    string
		at      uint64 // CHAINADDR; 0 is descAt
		desc    desc   // at descAt; the chain goes on to a null descriptor at descAt+64, where size is 0
		comp    uint64 // CHANCMP
		issue   uint16 // 1 if 0
		before  func(h *host)
		want    uint32
		finding string
		moved   bool // the copy itself was done
	}{
		{name: "operation", desc: desc{size: good, control: 0x87 << 24, src: srcAt, dst: dstAt}, want: errControl, finding: "ioat-control"},
		{name: "reserved control bit", desc: desc{size: good, control: 1 << 11, src: srcAt, dst: dstAt}, want: errControl, finding: "ioat-control"},
		{name: "highest reserved control bit", desc: desc{size: good, control: 1 << 23, src: srcAt, dst: dstAt}, want: errControl, finding: "ioat-control"},
		{name: "no bytes", desc: desc{src: srcAt, dst: dstAt}, want: errLength, finding: "ioat-length"},
		{name: "more bytes than XFERCAP", desc: desc{size: MaxTransfer + 1, src: srcAt, dst: dstAt}, want: errLength, finding: "ioat-length"},
		{name: "4 GiB less 1", desc: desc{size: 0xffff_ffff, src: srcAt, dst: dstAt}, want: errLength, finding: "ioat-length"},
		{name: "source not mapped", desc: desc{size: good, src: nowhere, dst: dstAt}, want: errReadData, finding: "ioat-source"},
		{name: "source ends where nothing is mapped", desc: desc{size: good, src: memBase + memSize - 8, dst: dstAt}, want: errReadData, finding: "ioat-source"},
		{name: "source beyond the address space", desc: desc{size: good, src: ^uint64(7), dst: dstAt}, want: errReadData, finding: "ioat-source"},
		{name: "destination not mapped", desc: desc{size: good, src: srcAt, dst: nowhere}, want: errWriteData, finding: "ioat-destination"},
		{name: "destination read-only", desc: desc{size: good, src: srcAt, dst: readOnly}, want: errWriteData, finding: "ioat-destination"},
		{name: "both not mapped", desc: desc{size: good, src: nowhere, dst: nowhere}, want: errReadData, finding: "ioat-source"},
		{name: "chain misaligned", at: descAt + 32, want: errChainAddr, finding: "ioat-chain-address"},
		{name: "chain not mapped", at: nowhere, want: errChainAddr, finding: "ioat-chain-address"},
		{name: "chain at the end of the address space", at: ^uint64(63), want: errChainAddr, finding: "ioat-chain-address"},
		{name: "next misaligned", desc: desc{control: descNull, next: descAt + 65}, issue: 2, want: errNextAlign, finding: "ioat-next-alignment"},
		{name: "next not mapped", desc: desc{control: descNull, next: nowhere &^ 63}, issue: 2, want: errNextAddr, finding: "ioat-next-address"},
		{name: "next is 0", desc: desc{control: descNull}, issue: 2, want: errNextAddr, finding: "ioat-next-address"},
		{name: "next has an error", desc: desc{control: descNull, next: descAt + 64}, issue: 2, want: errLength, finding: "ioat-length"},
		{name: "completion misaligned", desc: desc{size: good, control: descCompletion, src: srcAt, dst: dstAt}, comp: compAt + 4, want: errCompletion, finding: "ioat-completion-address", moved: true},
		{name: "completion not mapped", desc: desc{size: good, control: descCompletion, src: srcAt, dst: dstAt}, comp: nowhere, want: errCompletion, finding: "ioat-completion-address", moved: true},
		{
			name: "no bus master", desc: desc{size: good, src: srcAt, dst: dstAt}, before: func(h *host) { h.config(0x04, []byte{0x02}) },
			want: errChainAddr, finding: "ioat-bus-master",
		},
		{
			name: "unmapped since", desc: desc{size: good, src: srcAt, dst: dstAt}, before: func(h *host) {
				if err := h.d.UnmapDMA(memBase, memSize); err != nil {
					h.Fatal(err)
				}
			}, want: errChainAddr, finding: "ioat-chain-address",
		},
		{name: "error status where CHANCMP cannot be written", desc: desc{size: good, src: nowhere, dst: dstAt}, comp: nowhere, before: func(h *host) {
			h.write(regControl, u16(controlErrWrite))
		}, want: errReadData, finding: "ioat-source"},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := newHost(t)
			h.poke(srcAt, bytes.Repeat([]byte{0x11}, good))
			h.poke(dstAt, bytes.Repeat([]byte{0xee}, good))
			h.poke(descAt, row.desc.bytes())
			h.poke(descAt+64, make([]byte, 64))
			h.write(regCompLo, u64(row.comp))
			if row.before != nil {
				row.before(h)
			}
			h.start(max(row.at, descAt), max(row.issue, 1))
			h.await(statusHalted)
			if got := uint32(h.reg(regError, 4)); got != row.want {
				t.Errorf("CHANERR %#x, want %#x", got, row.want)
			}
			if got := uint32(h.read(vfiouser.RegionConfig, cfgError, 4)); got != row.want {
				t.Errorf("CHANERR_INT %#x, want %#x", got, row.want)
			}
			if h.finding(row.finding) == 0 {
				t.Errorf("no finding %s in %+v", row.finding, h.d.Findings())
			}
			if n := h.interrupts(); n != 0 {
				t.Errorf("%d interrupts", n)
			}
			want := byte(0xee)
			if row.moved {
				want = 0x11
			}
			if got := h.peek(dstAt, good); !bytes.Equal(got, bytes.Repeat([]byte{want}, good)) {
				t.Errorf("destination %x", got)
			}
			if got := h.d.Stats().Errors; got != 1 {
				t.Errorf("%d errors counted", got)
			}

			// Halted it stays until the error is cleared and there is a chain.
			h.write(regCommand+2, u16(7))
			if h.status() != statusHalted || h.finding("ioat-start-error") != 1 {
				t.Error("the channel starts with CHANERR set")
			}
			h.write(regError, u32(errorBits))
			h.write(regCommand+2, u16(7))
			if h.status() != statusHalted || h.finding("ioat-start-chain") != 1 {
				t.Error("the channel goes on after an error without a new chain")
			}
			h.recover()
			h.write(regCompLo, u64(0))
			h.config(0x04, []byte{0x06, 0x04})
			if h.d.DMATable().Len() != 3 {
				if err := h.d.MapDMA(memBase, memSize, 3, h.mem); err != nil {
					t.Fatal(err)
				}
			}
			h.copies()
		})
	}
}

// TestErrorStatus reads what an error writes to CHANCMP: the last good descriptor, halted.
func TestErrorStatus(t *testing.T) {
	h := newHost(t)
	h.write(regCompLo, u64(compAt))
	h.write(regControl, u16(controlErrWrite|controlErrIntr|controlRearm))
	h.poke(descAt, desc{size: 1, src: srcAt, dst: dstAt, next: descAt + 64}.bytes())
	h.poke(descAt+64, desc{size: 1, src: nowhere, dst: dstAt}.bytes())
	h.start(descAt, 2)
	h.await(statusHalted)
	if got := binary.LittleEndian.Uint64(h.peek(compAt, 8)); got != descAt|statusHalted {
		t.Errorf("CHANCMP %#x", got)
	}
	if n := h.interrupts(); n != 1 {
		t.Errorf("%d interrupts, want 1", n)
	}
}

// TestMistakes are wrong uses of registers that stop nothing.
func TestMistakes(t *testing.T) {
	h := newHost(t)
	h.write(regCommand+2, u16(1))
	if h.status() != statusHalted || h.finding("ioat-start-chain") != 1 || h.reg(regCommand+2, 2) != 0 {
		t.Error("DMACOUNT without CHAINADDR starts something, or sticks")
	}
	h.write(regCommand, []byte{0x10})
	if h.finding("ioat-command") != 1 {
		t.Error("no finding for an unknown command")
	}
	h.poke(descAt, desc{size: 1, src: slowAt, dst: dstAt}.bytes())
	h.start(descAt, 1)
	<-h.slow.entered
	h.write(regChainLo, u64(nowhere))
	if h.finding("ioat-chain-live") == 0 {
		t.Error("no finding for a chain that changes under the channel")
	}
	h.letGo()
	h.await(statusDone)
	if got := h.reg(regStatusLo, 8); got != descAt|statusDone {
		t.Errorf("CHANSTS %#x", got)
	}
}

// FuzzDriver lets a guest write registers, config space and descriptors at random. Nothing may hang or panic, and the channel
// must work after the reset that a driver does.
func FuzzDriver(f *testing.F) {
	f.Add([]byte{0, 0x90, 8, 0x00, 0x00, 0x01, 0, 0, 0, 0, 0, 0, 0x86, 2, 0xff, 0xff})
	f.Add([]byte{2, 0, 64, 16, 0, 0, 0, 8, 0, 0, 0, 0, 0x90, 4, 0, 0, 1, 0, 0, 0x84, 1, 0x20})
	f.Add([]byte{1, 4, 2, 4, 0, 0, 0x84, 4, 0x24, 0, 9, 0, 1, 0x58, 2, 0, 0x80})
	f.Add([]byte{3, 0x59, 4, 0, 0x03, 1, 1, 4, 0x04, 4})
	f.Fuzz(func(t *testing.T, in []byte) {
		h := newHost(t)
		h.letGo()
		for len(in) >= 3 && len(in) < 1<<12 {
			kind, off, n := in[0]%5, uint64(in[1]), int(in[2]%65)
			in = in[3:]
			n = min(n, len(in))
			p := in[:n]
			in = in[n:]
			switch kind {
			case 0:
				h.write(off, p)
			case 1:
				h.config(off*2, p)
			case 2:
				h.poke(descAt+off*8, p)
			case 3:
				q := make([]byte, n)
				if err := h.d.ReadRegion(vfiouser.RegionBAR0, off, q); err != nil {
					t.Fatal(err)
				}
			case 4:
				if err := h.d.Reset(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := h.d.Reset(); err != nil {
			t.Fatal(err)
		}
		h.begin()
		h.recover()
		h.copies()
	})
}
