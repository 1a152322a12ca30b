// SPDX-License-Identifier: Apache-2.0

package virtiotest

import (
	"testing"
	"time"

	"npuemu/mmio/npureg"
	"npuemu/vdev"
)

// TestReconnect: contexts, queues and what is in flight survive a lost connection; another process has only what is in
// flight, and says that the driver has to reset it (§10.4).
func TestReconnect(t *testing.T) { overRings(t, reconnect) }

func reconnect(t *testing.T, features uint64) {
	d, socket := power(t)
	n := &npu{Front: Dial(t, socket), dev: d, socket: socket}
	n.Negotiate(features)
	size, region := n.InflightRegion(6, 64)
	inflight := Inflight(size, 0, 6, 64)
	n.Do(SetInflightFD, inflight, int(region.Fd()))
	n.admin, n.event = n.Start(0, 16), n.Start(1, 16)
	q := n.user()
	again := func(socket string) {
		t.Helper()
		old := n.Front
		old.Close()
		n.Front = Dial(t, socket)
		n.Adopt(old)
		n.Negotiate(features)
		n.Do(SetInflightFD, inflight, int(region.Fd()))
		for _, q := range []*Queue{n.admin, n.event, q} {
			q.F = n.Front
			base := uint32(q.UsedIndex())
			if features&Packed != 0 {
				base = q.Fresh()
			}
			q.Setup(base)
			q.Enable(true)
		}
	}
	status := func() uint32 { return le.Uint32(n.Config(vdev.VirtioConfigSize)[0x40:]) }
	src := n.Put(make([]byte, 4096))
	slow := copyEntry(busToDevice, src, 0, 4096)
	le.PutUint16(slow[0x1c:], 0x20) // 128 KiB in rows over each other
	for round := range 5 {
		for range 10 {
			q.Submit(slow[:], 32)
		}
		time.Sleep(time.Duration(round) * time.Millisecond)
		again(socket)
		for i := range 10 {
			if _, written, ok := q.Await(Timeout); !ok || written != 32 {
				t.Fatalf("round %d: answer %d is lost, %d bytes", round, i, written)
			}
		}
		n.must(q, entry{npureg.CmdNop})
		if s := status(); s != 1 {
			t.Errorf("round %d: status %#x, want READY", round, s)
		}
	}
	if c := n.must(n.admin, entry{npureg.AdminCreateContext}); c.Result != 2 {
		t.Errorf("context %d, want 2: the first is still there", c.Result)
	}
	if got := d.Counter(npureg.CounterCopies); got != 50 {
		t.Errorf("%d copies were done, want 50: nothing is done twice", got)
	}

	other, elsewhere := power(t)
	n.dev = other
	again(elsewhere)
	if c := n.do(q, entry{npureg.CmdNop}); c.Status != npureg.StatusQueueDisabled {
		t.Errorf("another process: %+v, want QUEUE_DISABLED", c)
	}
	if s := status(); s != 1|4 {
		t.Errorf("another process: status %#x, want READY and NEEDS_RESET", s)
	}
	if s := le.Uint64(n.Ask(GetStatus, nil)); s&64 == 0 {
		t.Errorf("another process: device status %#x, want NEEDS_RESET", s)
	}
	n.finding("virtio-lost")
	n.Do(SetStatus, U64(0))
	n.admin, n.event = n.Start(0, 16), n.Start(1, 16)
	n.must(n.user(), entry{npureg.CmdNop})
	if s := status(); s != 1 {
		t.Errorf("after a reset: status %#x, want READY", s)
	}
}
