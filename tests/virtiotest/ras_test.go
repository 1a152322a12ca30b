// SPDX-License-Identifier: Apache-2.0

package virtiotest

import (
	"testing"
	"time"

	"npuemu/mmio/npureg"
)

// logPage reads a log page of 4096 bytes at most.
func (n *npu) logPage(page byte) []byte {
	n.T.Helper()
	at, p := n.Alloc(4096)
	e := entry{npureg.AdminGetLogPage, 0x14: page}
	le.PutUint64(e[0x08:], at)
	le.PutUint32(e[0x10:], 4096)
	return p[:n.must(n.admin, e).Result]
}

// TestHealth: what §12.9 says of the virtio device: a warning of firmware is an event; firmware that died is looked at in the next life.
func TestHealth(t *testing.T) { overRings(t, overHealth) }

func overHealth(t *testing.T, features uint64) {
	n := newNPUWith(t, features)
	at, event := n.Alloc(32)
	n.event.Add(Desc{Addr: at, Len: 32, Flags: Write})
	n.event.Kick.Signal()
	n.must(n.admin, entry{npureg.AdminResetEngine, 8: npureg.EngineCore})
	if _, size, ok := n.event.Await(5 * time.Second); !ok || size != 32 || le.Uint16(event) != 2 {
		t.Errorf("no event for a warning of firmware: %d bytes, % x", size, event)
	}
	if err := n.dev.CrashFirmware("trap"); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); le.Uint32(n.Config(0x48)[0x40:])&3 != 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("status %#x, want FAILED", le.Uint32(n.Config(0x48)[0x40:]))
		}
	}
	if c := n.do(n.admin, entry{npureg.AdminCreateContext}); c.Status != npureg.StatusFirmwareTrap {
		t.Errorf("admin request of dead firmware: %+v", c)
	}
	n.Do(SetStatus, U64(0))
	n.admin, n.event = n.Start(0, 16), n.Start(1, 16)
	n.back.ShmemMap(0)
	dump := n.logPage(7)
	if len(dump) < npureg.CrashQueues || le.Uint32(dump) != npureg.CrashMagic || le.Uint32(dump[0x5c:]) != 1 || le.Uint32(dump[0x58:]) != 0xdead0000 {
		t.Errorf("crash dump of %d bytes: % x", len(dump), dump[:min(len(dump), 0x60)])
	}
	log := n.logPage(5)
	if records := le.Uint32(log[4:]); records != 2 || log[0x24] != npureg.ErrorEngineReset || log[0x44] != npureg.ErrorFirmware {
		t.Errorf("error log %x", log)
	}
	if err := n.dev.Remove(); err == nil {
		t.Error("a virtio device was removed from behind")
	}
}
