// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/firmware"
	"npuemu/internal/eventfd"
	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
	"npuemu/vdev"
	"npuemu/vdev/vfiouser"
)

// overSocket returns the host's client of vfio-user, or skips the test: it is about
// messages that the in-process transport does not have.
func overSocket(t *testing.T, h *devtest.Host) *vfiouser.Client {
	t.Helper()
	c, ok := h.Client.(*vfiouser.Client)
	if !ok {
		t.Skip("this transport has no messages")
	}
	return c
}

// What commands write is in the log of written pages, in mapped memory and in memory
// reached by messages; what they read is not.
func TestLogOfWrittenPages(t *testing.T) {
	h, _ := ready(t)
	c := overSocket(t, h)
	buf, _ := h.Alloc(16 * 4096)
	buf = (buf + 4095) &^ 4095
	h.WriteDRAM(0, bytes.Repeat([]byte{0xa5}, 8192))
	if _, err := c.StartLog(4096); err != nil {
		t.Fatal(err)
	}
	for _, e := range []devtest.Entry{
		copyEntry(1, 0, 0, buf+4096+100, 8, 1, 1),                 // one page
		copyEntry(1, 0, 0, buf+3*4096-4, 8, 1, 1),                 // across two
		copyEntry(1, 0, 0, devtest.MsgBase+5*4096, 4096, 1, 1),    // by a message
		copyEntry(0, 1, buf+6*4096, 4096, 4096, 1, 1, 4096, 4096), // reads
	} {
		if got := h.Do(1, e); got.Status != npureg.StatusSuccess {
			t.Fatalf("COPY: %v", got)
		}
	}
	pages := func(addr, n uint64) (set []uint64) {
		t.Helper()
		words, err := c.ReportDirty(iova.Addr(addr), n*4096, 4096)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if words[i/64]>>(i%64)&1 != 0 {
				set = append(set, i)
			}
		}
		return set
	}
	if got := pages(buf, 8); !slices.Equal(got, []uint64{1, 2, 3}) {
		t.Errorf("mapped memory: pages %v, want 1 to 3", got)
	}
	if got := pages(devtest.MsgBase, devtest.MsgSize/4096); !slices.Equal(got, []uint64{5}) {
		t.Errorf("memory by messages: pages %v, want 5", got)
	}
	if got := pages(buf, 8); got != nil {
		t.Errorf("again: pages %v, want none", got)
	}
	if got := h.Do(1, copyEntry(1, 0, 0, buf, 8, 1, 1)); got.Status != npureg.StatusSuccess {
		t.Fatalf("COPY: %v", got)
	}
	words, err := c.UnmapDirty(devtest.MemBase, devtest.MemSize, 4096)
	if first := (buf - devtest.MemBase) / 4096; err != nil || words[first/64]>>(first%64)&1 != 1 {
		t.Errorf("the unmap does not tell of the last write: %v", err)
	}
	// The card cannot be migrated, and says so.
	if err := c.Probe(vfiouser.FeatureMigration, true, false); !errors.Is(err, unix.EINVAL) {
		t.Errorf("probe of migration: %v, want EINVAL", err)
	}
}

// INTx acknowledged by an eventfd, as KVM does: each signal unmasks, and the line fires
// again for as long as a cause is set (§8.4).
func TestINTxByEventfd(t *testing.T) {
	cfg := config()
	cfg.PCI = vdev.PCIConfig{}
	h := devtest.New(t, cfg)
	c := overSocket(t, h)
	line := attach(h, vfiouser.IRQINTx, 1)[0]
	ack, err := eventfd.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ack.Close()
	if err := c.SetIRQs(vfiouser.IRQSet{Index: vfiouser.IRQINTx, Count: 1, Action: vfiouser.IRQUnmask, FDs: []*eventfd.FD{ack}}); err != nil {
		t.Fatal(err)
	}
	h.Bring(firmware.Image())
	for i := range 3 {
		if !fires(line, true) {
			t.Fatalf("round %d: no interrupt while IRQ_STATUS is %#x", i, h.Read32(npureg.IRQStatus))
		}
		if fires(line, false) {
			t.Fatalf("round %d: another one before the acknowledgement", i)
		}
		ack.Signal()
	}
	if !fires(line, true) {
		t.Fatal("no interrupt while the line is high")
	}
	h.Write32(npureg.IRQStatus, npureg.IRQAll)
	ack.Signal()
	if fires(line, false) {
		t.Error("an interrupt with the line low")
	}
	h.CreateContext()
	if !fires(line, true) {
		t.Error("the next cause does not fire: the signal did not unmask")
	}
}

// A client may trigger ERR itself; the card never does.
func TestTriggerOfERR(t *testing.T) {
	h, _ := ready(t)
	c := overSocket(t, h)
	fd := attach(h, vfiouser.IRQErr, 1)[0]
	if err := c.SetIRQs(vfiouser.IRQSet{Index: vfiouser.IRQErr, Count: 1, Action: vfiouser.IRQTrigger}); err != nil {
		t.Fatal(err)
	}
	if !fires(fd, true) {
		t.Error("the eventfd was not signalled")
	}
}
