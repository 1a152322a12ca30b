// SPDX-License-Identifier: Apache-2.0

package devtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"testing"
	"time"

	"npuemu/firmware"
	"npuemu/mmio/npureg"
	"npuemu/tests/virtiotest"
	"npuemu/vdev"
	"npuemu/vdev/vhostuser"
)

// virtio is a Host's driver of the paravirtual NPU (docs/spec/virtio-npu.md).
type virtio struct {
	front  *virtiotest.Front
	back   *virtiotest.BackEnd
	window []byte
	lines  map[int]*virtiotest.Queue // by vector: who raises it
	event  *virtiotest.Queue
}

// virtqueue is a queue as the virtio driver has it. A request's buffers are where its ring slot says.
type virtqueue struct {
	q       *virtiotest.Queue
	n, next int
	addr    uint64
	mem     []byte
	slots   map[uint16]int // by chain
}

const slotSize = npureg.SQEntrySize + npureg.CQEntrySize

// startVirtio serves a device made from cfg over vhost-user.
func startVirtio(t testing.TB, cfg vdev.Config) (d *vdev.Device, socket string) {
	t.Helper()
	d = Run(t, cfg)
	v := vdev.NewParavirt(d)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { v.Run(ctx); close(done) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return d, virtiotest.Serve(t, vhostuser.Config{Log: cfg.Log}, v)
}

// attachVirtio is Attach: a connection with guest memory and the window of device memory.
func (h *Host) attachVirtio() {
	h.T.Helper()
	f := virtiotest.Dial(h.T, h.Socket)
	f.Negotiate(virtiotest.Version1 | virtiotest.Indirect | virtiotest.EventIndex)
	h.virtio = &virtio{front: f, back: f.BackEnd(), lines: map[int]*virtiotest.Queue{}}
	f.Ask(virtiotest.GetShmemConfig, nil)
	h.mem = f.Mem
	h.MsgMem, h.Msg = nil, nil
}

// bring waits until the device has booted the firmware that it is shipped with.
func (v *virtio) bring(h *Host, image []byte) {
	h.T.Helper()
	if !bytes.Equal(image, firmware.Image()) {
		h.T.Skip("over vhost-user a driver loads no firmware (§10.4)")
	}
	h.admin.virt = v.queue(h, 0, 0, 16)
	v.event = v.front.Start(1, 16)
	_, file := v.back.ShmemMap(0)
	v.window = virtiotest.Mmap(h.T, file, int(h.cfg.Memory.Size))
	for end := time.Now().Add(Timeout); ; time.Sleep(time.Millisecond) {
		if s := binary.LittleEndian.Uint32(v.front.Config(vdev.VirtioConfigSize)[0x40:]); s == 1 {
			return
		} else if time.Now().After(end) {
			h.T.Fatalf("devtest: status %#x; the firmware does not become READY (§10.3)", s)
		}
	}
}

// queue starts a virtqueue for n-1 requests at once, which is what a ring of n entries holds.
func (v *virtio) queue(h *Host, index, vector, n int) *virtqueue {
	h.T.Helper()
	size := 2
	for size < 2*n {
		size *= 2
	}
	q := &virtqueue{q: v.front.Start(index, size), n: n, slots: map[uint16]int{}}
	q.q.EventIndex = true
	q.addr, q.mem = h.Alloc(n * slotSize)
	v.lines[vector] = q.q
	return q
}

func (q *virtqueue) submit(e Entry) {
	at := q.next * slotSize
	q.next = (q.next + 1) % q.n
	copy(q.mem[at:], e[:])
	addr := q.addr + uint64(at)
	head := q.q.Add(virtiotest.Desc{Addr: addr, Len: npureg.SQEntrySize},
		virtiotest.Desc{Addr: addr + npureg.SQEntrySize, Len: npureg.CQEntrySize, Flags: virtiotest.Write})
	q.slots[head] = at
	q.q.Kick.Signal()
}

func (q *virtqueue) wait(h *Host) []byte {
	h.T.Helper()
	head, n, ok := q.q.Await(Timeout)
	if !ok || n != npureg.CQEntrySize {
		h.T.Fatalf("devtest: no completion in virtqueue %d: %d bytes, %v", q.q.Index, n, ok)
	}
	return q.mem[q.slots[head]+npureg.SQEntrySize:][:npureg.CQEntrySize]
}
