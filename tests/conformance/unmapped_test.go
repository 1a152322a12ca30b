// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
	"npuemu/vdev"
	"npuemu/vdev/vfiouser"
)

// Two pages that a test maps and unmaps.
const (
	extraBase = 0x4000_0000
	extraSize = 8192
)

// extra maps them.
func extra(h *devtest.Host, prot iova.Prot) {
	h.T.Helper()
	fd, err := unix.MemfdCreate("extra", unix.MFD_CLOEXEC)
	if err != nil {
		h.T.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "extra")
	defer f.Close()
	if err := f.Truncate(extraSize); err != nil {
		h.T.Fatal(err)
	}
	if err := h.Client.MapDMA(extraBase, extraSize, prot, f, 0); err != nil {
		h.T.Fatal(err)
	}
}

func unmap(h *devtest.Host, addr, size uint64) {
	h.T.Helper()
	if err := h.Client.UnmapDMA(iova.Addr(addr), size); err != nil {
		h.T.Fatal(err)
	}
}

// TestUnmapped: an access to the bus that no mapping permits leaves a finding that says who
// made it and what the host did with the address (§7.6).
func TestUnmapped(t *testing.T) {
	devtest.NeedsFunction(t, "mapping by region")
	devtest.NeedsBus(t)
	const who = `queue 1, context \d+, command \d+, opcode 0x02: `
	const extraRange = `\[0x40000000, 0x40001fff\]`
	const ago = `unmapped [\d.]+(µs|ms|s) ago, `
	for _, tt := range []struct {
		name     string
		do       func(h *devtest.Host) devtest.CQE
		want     string // finding
		evidence string // pattern
	}{
		{"read of what was never mapped", func(h *devtest.Host) devtest.CQE {
			return h.Do(1, copyEntry(0, 1, 0x6660_0000, 0, 16, 1, 1))
		}, "dma-unmapped", who + `read of 16 bytes at 0x66600000: was never mapped, or not among the last 8192 ranges that were unmapped$`},
		{"write beyond a buffer", func(h *devtest.Host) devtest.CQE {
			extra(h, iova.Read|iova.Write)
			return h.Do(1, copyEntry(1, 0, 0, extraBase+extraSize-16, 64, 1, 1))
		}, "dma-unmapped", who + `write of 48 bytes at 0x40002000: was never mapped.*; 1 bytes beyond the end of ` + extraRange + `$`},
		{"write to what is mapped for reading", func(h *devtest.Host) devtest.CQE {
			extra(h, iova.Read)
			return h.Do(1, copyEntry(1, 0, 0, extraBase+64, 64, 1, 1))
		}, "dma-direction", who + `write of 64 bytes at 0x40000040: ` + extraRange + ` is mapped for read$`},
		{"read of what is mapped for writing", func(h *devtest.Host) devtest.CQE {
			extra(h, iova.Write)
			return h.Do(1, copyEntry(0, 1, extraBase, 0, 64, 1, 1))
		}, "dma-direction", who + `read of 64 bytes at 0x40000000: ` + extraRange + ` is mapped for write$`},
		{"buffer that was unmapped three commands ago", func(h *devtest.Host) devtest.CQE {
			extra(h, iova.Read|iova.Write)
			if c := h.Do(1, copyEntry(0, 1, extraBase, 0, 64, 1, 1)); c.Status != npureg.StatusSuccess {
				h.T.Fatal(c.Status)
			}
			counted(h, 1)
			unmap(h, extraBase, extraSize)
			for range 3 {
				h.Do(1, nop())
			}
			return h.Do(1, copyEntry(0, 1, extraBase+4096, 0, 64, 1, 1))
		}, "dma-after-unmap", who + `read of 64 bytes at 0x40001000: ` + extraRange + `, read-write, was ` + ago + `3 commands ago$`},
		{"buffer that is unmapped while the command runs", func(h *devtest.Host) devtest.CQE {
			extra(h, iova.Read|iova.Write)
			h.Submit(1, endless(0, 1, extraBase, 0))
			running(h)
			unmap(h, extraBase, extraSize)
			return h.Wait(1)
		}, "dma-unmap-in-flight", who + `read of \d+ bytes at 0x40000000: ` + extraRange + `, read-write, was ` + ago + `0 commands ago, while the command ran$`},
		{"buffer behind messages that is unmapped while the command runs", func(h *devtest.Host) devtest.CQE {
			h.Submit(1, endless(0, 1, devtest.MsgBase, 0))
			running(h)
			unmap(h, devtest.MsgBase, devtest.MsgSize)
			return h.Wait(1)
		}, "dma-unmap-in-flight", who + `read of \d+ bytes at 0x80000000: \[0x80000000, 0x800fffff\], read-write, was ` + ago + `0 commands ago, while the command ran$`},
		{"binding of a program", func(h *devtest.Host) devtest.CQE {
			extra(h, iova.Read|iova.Write)
			unmap(h, extraBase, extraSize)
			return h.Do(1, h.Launch(program(h.T.(*testing.T), ".spad 64\n.bindings 1\nload binding=0 local=0 nx=8\nhalt\n"),
				devtest.Binding{Addr: extraBase, Size: 64, Read: true}))
		}, "dma-after-unmap", `queue 1, context \d+, command \d+, opcode 0x03: read of 8 bytes at 0x40000000: ` + extraRange + `, read-write, was ` + ago},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := devtest.New(t, config())
			prepare(h)
			c := tt.do(h)
			if c.Status != npureg.StatusBusFault && c.Status != npureg.StatusMemoryFault {
				t.Errorf("status %v, want a fault", c.Status)
			}
			blamed(t, h, tt.want, tt.evidence)
			if c := h.Do(1, nop()); c.Status != npureg.StatusSuccess {
				t.Errorf("next command: %v", c.Status)
			}
		})
	}

	t.Run("firmware image", func(t *testing.T) {
		h := devtest.New(t, config())
		if s := h.BootAt(0x6670_0000, 4096); s != npureg.BootFailed|npureg.BootErrFetch<<8 {
			t.Errorf("BOOT_STATUS %#x", s)
		}
		blamed(t, h, "dma-unmapped", `^control processor: read of \d+ bytes at 0x66700000: was never mapped`)
	})
	t.Run("buffer of an admin command", func(t *testing.T) {
		h := devtest.New(t, config())
		prepare(h)
		extra(h, iova.Read)
		e := devtest.Entry{npureg.AdminIdentify}
		le.PutUint64(e[8:], extraBase)
		le.PutUint32(e[0x10:], 256)
		if c := h.Admin(e); c.Status != npureg.StatusBusFault {
			t.Errorf("status %v", c.Status)
		}
		blamed(t, h, "dma-direction", `^control processor: write of 256 bytes at 0x40000000: `+extraRange+` is mapped for read$`)
	})

	// What has no completion has a fault record.
	t.Run("submission ring that was unmapped", func(t *testing.T) {
		h := devtest.New(t, config())
		context := prepare(h)
		extra(h, iova.Read|iova.Write)
		at, _ := h.Alloc(4096)
		if c := h.Admin(devtest.CreateQueueEntry(2, context, 1, extraBase, at, 8, 8)); c.Status != npureg.StatusSuccess {
			t.Fatal(c.Status)
		}
		unmap(h, extraBase, extraSize)
		h.Write32(devtest.Doorbell(2), 1)
		for end := time.Now().Add(devtest.Timeout); !h.Faulted(); {
			if time.Now().After(end) {
				t.Fatal("no fault record")
			}
		}
		blamed(t, h, "dma-after-unmap", `^queue 2, source 1, index 0: read of 64 bytes at 0x40000000: `+extraRange+`, read-write, was `+ago)
	})
}

// blamed expects exactly one finding of the bus, once, with this evidence.
func blamed(t *testing.T, h *devtest.Host, id, evidence string) {
	t.Helper()
	var got []vdev.Finding
	for _, f := range h.Dev.Findings() {
		if len(f.ID) > 4 && f.ID[:4] == "dma-" {
			got = append(got, f)
		}
	}
	if len(got) != 1 || got[0].ID != id || got[0].Count != 1 || !regexp.MustCompile(evidence).MatchString(got[0].Last) {
		t.Errorf("findings %+v, want %s with %s", got, id, evidence)
	}
}

// counted waits until the device has counted n commands: it does so after the completion.
func counted(h *devtest.Host, n uint64) {
	h.T.Helper()
	for end := time.Now().Add(devtest.Timeout); h.Dev.Counter(npureg.CounterCommands) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			h.T.Fatal("the device does not count a command")
		}
	}
}

// running waits until the device has fetched what was submitted, and begun.
func running(h *devtest.Host) {
	h.T.Helper()
	time.Sleep(20 * time.Millisecond)
}

// bus records the server's DMA messages.
type bus struct {
	mu  sync.Mutex
	got []string // guarded by mu
}

func (b *bus) trace(dir vfiouser.Direction, head, body []byte, _ int) {
	const dmaRead, dmaWrite = 11, 12
	if cmd := le.Uint16(head[2:]); dir == vfiouser.Sent && (cmd == dmaRead || cmd == dmaWrite) {
		b.mu.Lock()
		defer b.mu.Unlock()
		verb := map[uint16]string{dmaRead: "read", dmaWrite: "write"}[cmd]
		b.got = append(b.got, fmt.Sprintf("%s %d at %#x [% x]", verb, le.Uint64(body[8:]), le.Uint64(body), body[16:]))
	}
}

func (b *bus) take() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer func() { b.got = nil }()
	return slices.Clone(b.got)
}

// TestTouch: such an access is repeated as one message of one byte, so that the host's IOMMU
// hears of it. The outcome is the same, whatever the host answers, and is logged once (§1.6).
func TestTouch(t *testing.T) {
	devtest.NeedsFunction(t, "DMA by messages")
	devtest.NeedsBus(t)
	if devtest.InUse() != devtest.VFIOUser {
		t.Skip("messages are vfio-user's")
	}
	for _, touch := range []bool{true, false} {
		t.Run(fmt.Sprintf("touch = %v", touch), func(t *testing.T) {
			cfg := config()
			cfg.PCI.Touch = touch
			var b bus
			d, socket := devtest.StartServer(t, cfg, vfiouser.Config{Trace: b.trace})
			h := devtest.On(t, socket)
			h.Dev = d
			h.Attach()
			prepare(h)
			extra(h, iova.Read)
			h.WriteDRAM(0x100, []byte{0xa1, 0xa2, 0xa3, 0xa4})
			for _, tt := range []struct {
				name  string
				e     devtest.Entry
				info  uint64
				want  string
				abort bool
			}{
				{"write to nothing", copyEntry(1, 0, 0x100, 0x6660_0123, 64, 1, 1), 0x6660_0123, "write 1 at 0x66600123 [a1]", false},
				{"write to what is mapped for reading", copyEntry(1, 0, 0x102, extraBase+8, 64, 1, 1), extraBase + 8, "write 1 at 0x40000008 [a3]", false},
				{"write beyond the end", copyEntry(1, 0, 0x102, devtest.MemBase+devtest.MemSize-1, 64, 1, 1), devtest.MemBase + devtest.MemSize, "write 1 at 0x10800000 [a4]", false},
				{"read of nothing", copyEntry(0, 1, 0x6660_0123, 0, 64, 2, 1), 0x6660_0123, "read 1 at 0x66600123 []", true},
			} {
				b.take()
				c := h.Do(1, tt.e)
				if c.Status != npureg.StatusBusFault || c.Info != tt.info {
					t.Errorf("%s: %v, info %#x", tt.name, c.Status, c.Info)
				}
				want := []string{tt.want}
				if !touch {
					want = nil
				}
				if got := b.take(); !slices.Equal(got, want) {
					t.Errorf("%s: messages %q, want %q", tt.name, got, want)
				}
				var status [2]byte
				if err := h.Client.ReadRegion(vfiouser.RegionConfig, 6, status[:]); err != nil {
					t.Fatal(err)
				}
				if abort := le.Uint16(status[:])&(1<<13) != 0; abort != tt.abort {
					t.Errorf("%s: Received Master Abort is %v", tt.name, abort)
				}
			}
			// Nothing else is logged: the touch is not another access.
			aer := make([]byte, 0x2c)
			if err := h.Client.ReadRegion(vfiouser.RegionConfig, 0x100, aer); err != nil {
				t.Fatal(err)
			}
			if u, c := le.Uint32(aer[4:]), le.Uint32(aer[0x10:]); u != 0 || c != 0 {
				t.Errorf("AER shows errors %#x, %#x", u, c)
			}

			// Rings and firmware are no exception.
			b.take()
			h.Write32(npureg.DeviceControl, npureg.DeviceControlReset)
			if s := h.BootAt(0x6670_0000, 4096); s != npureg.BootFailed|npureg.BootErrFetch<<8 {
				t.Errorf("BOOT_STATUS %#x", s)
			}
			want := []string{"read 1 at 0x66700000 []"}
			if !touch {
				want = nil
			}
			if got := b.take(); !slices.Equal(got, want) {
				t.Errorf("firmware that is not mapped: messages %q, want %q", got, want)
			}

			// Without bus mastering the device makes no access at all (§1.5).
			h.SetCommand(2)
			h.Write32(npureg.BootControl, npureg.BootControlStart)
			for h.Read32(npureg.BootStatus)&0xff != npureg.BootFailed {
			}
			if got := b.take(); len(got) != 0 {
				t.Errorf("without bus mastering: messages %q", got)
			}
		})
	}
}
