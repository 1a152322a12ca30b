// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	. "npuemu/tests/virtiotest"
	"npuemu/vdev/vhostuser"
)

const features = Version1 | Indirect | EventIndex

// eventually waits until ok holds, with the device's lock held.
func (e *echo) eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(Timeout); ; time.Sleep(100 * time.Microsecond) {
		var done bool
		e.get(func() { done = ok() })
		if done {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: does not come", what)
		}
	}
}

// TestUnmappedRings: rings that are not in guest memory, from the start or later.
func TestUnmappedRings(t *testing.T) {
	for _, tt := range []struct {
		name string
		want string
		do   func(f *Front, q *Queue)
	}{
		{"descriptor table", "descriptor table", func(f *Front, q *Queue) { q.DescAddr = 0x1000 }},
		{"available ring", "available ring", func(f *Front, q *Queue) { q.AvailAddr = MemBase + MemSize - 8 }},
		{"used ring", "used ring", func(f *Front, q *Queue) { q.UsedAddr = MemBase + MemSize - 8 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEcho(t)
			f := Dial(t, Serve(t, vhostuser.Config{}, e))
			f.Negotiate(features)
			q := f.NewQueue(0, 8)
			tt.do(f, q)
			q.Setup(0)
			q.Enable(true)
			e.eventually(t, "the fault", func() bool { return len(e.faults) > 0 })
			if got := e.faults[0].Error(); !strings.Contains(got, tt.want) {
				t.Errorf("%s, want %q", got, tt.want)
			}
			works(f)
		})
	}
	t.Run("later", func(t *testing.T) {
		e := newEcho(t)
		f := Dial(t, Serve(t, vhostuser.Config{}, e))
		f.Negotiate(features)
		q := f.Start(0, 8)
		q.Request([]byte("ping"), 4)
		f.Do(RemMemReg, Slot(MemBase, MemSize, UserBase, 0))
		q.Kick.Signal()
		e.eventually(t, "the fault", func() bool { return len(e.faults) > 0 })
		f.Do(AddMemReg, Slot(MemBase, MemSize, UserBase, 0), int(f.File.Fd()))
		works(f)
	})
	t.Run("truncated file", func(t *testing.T) {
		e := newEcho(t)
		f := Dial(t, Serve(t, vhostuser.Config{}, e))
		f.Negotiate(features)
		q := f.Start(0, 8)
		if err := f.File.Truncate(0); err != nil {
			t.Fatal(err)
		}
		q.Kick.Signal()
		e.eventually(t, "the fault", func() bool { return len(e.faults) > 0 })
		if err := f.File.Truncate(MemSize); err != nil {
			t.Fatal(err)
		}
		works(f)
	})
}

// TestRing drives a queue around its indices with direct and indirect chains, with and
// without event index.
func TestRing(t *testing.T) {
	for _, feat := range []uint64{Version1, Version1 | Indirect, features, Version1 | Packed, Version1 | Indirect | Packed, features | Packed} {
		t.Run(fmt.Sprintf("%#x", feat), func(t *testing.T) {
			e := newEcho(t)
			f := Dial(t, Serve(t, vhostuser.Config{}, e))
			f.Negotiate(feat)
			q := f.NewQueue(0, 4)
			q.EventIndex = feat&EventIndex != 0
			const begin = 0xff00 // the indices pass 2¹⁶
			q.Begin(begin)
			if q.Fresh() == 0 {
				q.Setup(begin)
			} else {
				q.Setup(q.Fresh())
			}
			q.Enable(true)
			rng := rand.New(rand.NewPCG(1, feat))
			addr, in := f.Alloc(8192)
			at, out := f.Alloc(8192)
			tableAt, tableMem := f.Alloc(64)
			for i := range 3000 {
				n := 1 + rng.IntN(48)
				for k := range n {
					in[k] = byte(i + k)
				}
				cut := rng.IntN(n)
				chain := []Desc{{Addr: addr, Len: uint32(n)}, {Addr: at, Len: 64, Flags: Write}}
				if cut > 0 {
					chain = []Desc{{Addr: addr, Len: uint32(cut)}, {Addr: addr + uint64(cut), Len: uint32(n - cut)},
						{Addr: at, Len: 7, Flags: Write}, {Addr: at + 7, Len: 57, Flags: Write}}
				}
				if feat&Indirect != 0 && rng.IntN(2) == 0 {
					for k, d := range chain {
						if k+1 < len(chain) {
							d.Flags |= Next
							d.Next = uint16(k + 1)
						}
						if feat&Packed != 0 {
							d.Flags, d.Next = 0xffff, d.Flags&Write // an id means nothing, nor does a link
						}
						PutDesc(tableMem, k, d)
					}
					chain = []Desc{{Addr: tableAt, Len: uint32(16 * len(chain)), Flags: Table}}
				}
				head := q.Add(chain...)
				q.Kick.Signal()
				if got, written, ok := q.Await(Timeout); !ok || got != head || int(written) != n || !bytes.Equal(in[:n], out[:n]) {
					t.Fatalf("request %d: used %d of %d, %d bytes, %v", i, got, head, written, ok)
				}
			}
			if e.faults != nil {
				t.Error(e.faults)
			}
		})
	}
}

// TestNotify: the driver's wishes for notifications are obeyed.
func TestNotify(t *testing.T) {
	le := binary.LittleEndian
	f := Dial(t, Serve(t, vhostuser.Config{}, newEcho(t)))
	f.Negotiate(Version1)
	q := f.Start(0, 8)
	q.Request([]byte("x"), 1)
	if q.Call.Wait(Timeout) == 0 {
		t.Error("no notification")
	}
	q.Avail[0] = 1 // NO_INTERRUPT
	q.Request([]byte("x"), 1)
	q.Stop() // the notification would have come before the answer to this
	if q.Call.Wait(0) != 0 {
		t.Error("a notification that nobody wanted")
	}

	f = Dial(t, Serve(t, vhostuser.Config{}, newEcho(t)))
	f.Negotiate(features)
	q = f.NewQueue(0, 8)
	le.PutUint16(q.Avail[4+16:], 2) // notify when the third is used
	q.Setup(0)
	q.Enable(true)
	for i := range 3 {
		q.Request([]byte("x"), 1)
		if i < 2 && q.Call.Wait(0) != 0 {
			t.Errorf("notified after %d", i+1)
		}
	}
	if q.Call.Wait(Timeout) == 0 {
		t.Error("no notification after the third")
	}
}

// TestStopStart: a queue that stops keeps its index, a driver's life goes on if an index
// does, and queues that begin at 0 begin another.
func TestStopStart(t *testing.T) {
	e := newEcho(t)
	f := Dial(t, Serve(t, vhostuser.Config{}, e))
	f.Negotiate(features)
	q := f.Start(0, 8)
	for range 3 {
		q.Request([]byte("ping"), 4)
	}
	q.Enable(false)
	q.Submit([]byte("late"), 4)
	if base := q.Stop(); base != 3 {
		t.Errorf("stopped at %d, want 3", base)
	}
	if q.UsedIndex() != 3 {
		t.Error("a disabled queue was served")
	}
	q.Setup(3)
	q.Enable(true)
	if _, n, ok := q.Await(Timeout); !ok || n != 4 {
		t.Error("what was added while the queue was stopped is not served")
	}
	e.get(func() {
		if e.starts != 1 || e.resets != 0 {
			t.Errorf("%d starts, %d resets; the life should go on", e.starts, e.resets)
		}
	})
	q.Stop()
	q = f.Start(0, 8)
	q.Request([]byte("ping"), 4)
	e.get(func() {
		if e.starts != 2 || e.resets != 1 {
			t.Errorf("%d starts, %d resets; another life should begin", e.starts, e.resets)
		}
	})
	f.Do(ResetDevice, nil)
	works(f)
	e.get(func() {
		if e.starts != 3 || e.resets != 2 {
			t.Errorf("%d starts, %d resets after RESET_DEVICE", e.starts, e.resets)
		}
	})
}

// TestDrain: GET_VRING_BASE waits for work in flight, for a while.
func TestDrain(t *testing.T) {
	e := newEcho(t)
	f := Dial(t, Serve(t, vhostuser.Config{DrainTimeout: 50 * time.Millisecond}, e))
	f.Negotiate(features)
	q := f.Start(slowQueue, 8)
	q.Submit([]byte("ping"), 4)
	e.eventually(t, "the request", func() bool { return len(e.kept) == 1 })
	go e.finish()
	if base := q.Stop(); base != 1 || q.UsedIndex() != 1 {
		t.Errorf("stopped at %d with %d used, want both 1", base, q.UsedIndex())
	}

	q = f.Start(slowQueue, 8)
	other := f.Start(0, 8)
	other.Request([]byte("ping"), 4)
	q.Submit([]byte("ping"), 4)
	e.eventually(t, "the request", func() bool { return len(e.kept) == 1 })
	var late *vhostuser.Request
	e.get(func() { late = e.kept[0] })
	if base := q.Stop(); base != 0 {
		t.Errorf("stopped at %d; what was not done is available again", base)
	}
	if status := binary.LittleEndian.Uint64(f.Ask(GetStatus, nil)); status&64 == 0 || other.Err.Wait(Timeout) == 0 {
		t.Errorf("status %#x; the other queue should know of the reset", status)
	}
	if base := other.Stop(); base != 1 {
		t.Errorf("the other queue stopped at %d, want 1", base)
	}
	if err := late.Complete([]byte("late")); err != nil || q.UsedIndex() != 0 {
		t.Errorf("a late answer: %v, used index %d", err, q.UsedIndex())
	}
	e.get(func() {
		if e.resets != 2 { // the new life, and the timeout
			t.Errorf("%d resets, want 2", e.resets)
		}
	})
	works(f)
}

// TestDisable: a disabled queue has nothing in flight and can be set up again; one that does not come to that in time needs a
// reset of the device, and so do the others.
func TestDisable(t *testing.T) {
	for _, feat := range []uint64{features, features | Packed} {
		e := newEcho(t)
		f := Dial(t, Serve(t, vhostuser.Config{DrainTimeout: 50 * time.Millisecond}, e))
		f.Negotiate(feat)
		q := f.Start(slowQueue, 8)
		q.Submit([]byte("ping"), 4)
		e.takes(t, "ping")
		go e.finish()
		q.Enable(false)
		if _, n, ok := q.Await(0); !ok || n != 4 {
			t.Errorf("%#x: disabled with a request in flight", feat)
		}
		q = f.Start(slowQueue, 8) // without GET_VRING_BASE, as virtio_uml does it
		q.Submit([]byte("pong"), 4)
		e.takes(t, "pong")
		q.Enable(false)
		if status := binary.LittleEndian.Uint64(f.Ask(GetStatus, nil)); status&64 == 0 || q.Err.Wait(Timeout) == 0 {
			t.Errorf("%#x: status %#x; the driver should know of the reset", feat, status)
		}
		e.finish()
		if _, _, ok := q.Await(time.Millisecond); ok {
			t.Errorf("%#x: an answer from before the reset", feat)
		}
		q = f.Start(slowQueue, 8)
		q.Submit([]byte("pong"), 4)
		e.takes(t, "pong")
		e.finish()
		if _, _, ok := q.Await(Timeout); !ok {
			t.Errorf("%#x: not served after it was set up again", feat)
		}
		works(f)
	}
}

// TestNoProtocolFeatures: queues run as soon as they are kicked, and setting one up again stops it, since it cannot be disabled.
func TestNoProtocolFeatures(t *testing.T) {
	f := Dial(t, Serve(t, vhostuser.Config{}, newEcho(t)))
	f.Negotiate(features)
	f.Do(SetFeatures, U64(features)) // as virtio_uml does when a driver declines something
	for range 3 {
		q := f.NewQueue(0, 8)
		q.EventIndex = true
		q.Setup(0)
		for range 5 {
			if got := q.Request([]byte("ping"), 4); string(got) != "ping" {
				t.Errorf("the echo is %q", got)
			}
		}
	}
}

// TestTooManyInFlight: a driver that offers a chain more than it has descriptors.
func TestTooManyInFlight(t *testing.T) {
	e := newEcho(t)
	f := Dial(t, Serve(t, vhostuser.Config{}, e))
	f.Negotiate(features)
	q := f.Start(slowQueue, 2)
	q.Put(0, Desc{Addr: f.Put([]byte("x")), Len: 1})
	for range 3 {
		q.Offer(0)
		q.Kick.Signal()
		time.Sleep(time.Millisecond)
	}
	e.eventually(t, "the fault", func() bool { return len(e.faults) == 1 })
	e.finish()
	q.Stop() // does not wait for what a broken queue had
	works(f)
}

// TestMemorySlots: memory comes and goes while a queue works in other memory.
func TestMemorySlots(t *testing.T) {
	e := newEcho(t)
	f := Dial(t, Serve(t, vhostuser.Config{}, e))
	f.Negotiate(features)
	q := f.Start(0, 8)
	extra := Memfd(t, 1<<20)
	mem := Mmap(t, extra, 1<<20)
	copy(mem[4096:], "slot")
	const at, user = 0x8000_0000, UserBase + 1<<40
	for i := range 200 {
		f.Do(AddMemReg, Slot(at, 8192, user, 4096), int(extra.Fd()))
		out, answer := f.Alloc(4)
		q.Add(Desc{Addr: at, Len: 4}, Desc{Addr: out, Len: 4, Flags: Write})
		q.Kick.Signal()
		if _, n, ok := q.Await(Timeout); !ok || string(answer[:n]) != "slot" {
			t.Fatalf("round %d: %q, %v", i, answer, ok)
		}
		f.Do(RemMemReg, Slot(at, 8192, user, 0))
	}
	if n := e.bus.Len(); n != 1 {
		t.Errorf("%d ranges on the bus, want guest memory", n)
	}
	for i := range 200 { // the whole table, with a request under way
		out, answer := f.Alloc(4)
		q.Add(Desc{Addr: f.Put([]byte("ping")), Len: 4}, Desc{Addr: out, Len: 4, Flags: Write})
		q.Kick.Signal()
		other := uint64(i%2) * 4096
		f.Do(SetMemTable, cat(Pair(2, 0), Region(MemBase, MemSize, UserBase, 0), Region(at, 8192, user, other)), int(f.File.Fd()), int(extra.Fd()))
		if _, n, ok := q.Await(Timeout); !ok || string(answer[:n]) != "ping" {
			t.Fatalf("table %d: %q, %v, %v", i, answer, ok, e.faults)
		}
	}
	if n := e.bus.Len(); n != 2 {
		t.Errorf("%d ranges on the bus, want 2", n)
	}
	f.Do(RemMemReg, Slot(at, 8192, user, 0))
	for i := range uint64(511) { // with guest memory 512
		f.Do(AddMemReg, Slot(at+i*4096, 4096, user+i*4096, 0), int(extra.Fd()))
	}
	if errno := f.Try(AddMemReg, Slot(at-4096, 4096, user-4096, 0), int(extra.Fd())); errno == 0 {
		t.Error("a 513th region")
	}
	f.Do(SetMemTable, cat(Pair(1, 0), Region(MemBase, MemSize, UserBase, 0)), int(f.File.Fd()))
	if n := e.bus.Len(); n != 1 {
		t.Errorf("%d ranges on the bus after SET_MEM_TABLE", n)
	}
	if got := q.Request([]byte("ping"), 4); string(got) != "ping" {
		t.Errorf("the echo is %q", got)
	}
}

// TestBackEndChannel: the window is mapped before anything is served, config changes are told.
func TestBackEndChannel(t *testing.T) {
	e := newEcho(t)
	f := Dial(t, Serve(t, vhostuser.Config{}, e))
	f.Negotiate(features)
	b := f.BackEnd()
	le := binary.LittleEndian
	shm := f.Ask(GetShmemConfig, nil)
	if len(shm) != 72 || le.Uint32(shm) != 1 || le.Uint64(shm[16:]) != 1<<20 {
		t.Fatalf("GET_SHMEM_CONFIG: %x", shm)
	}
	q := f.Start(0, 8)
	q.Submit([]byte("ping"), 4)
	if _, _, ok := q.Await(20 * time.Millisecond); ok {
		t.Error("an answer before the window is there")
	}
	body, file := b.ShmemMap(0)
	if body[0] != 1 || le.Uint64(body[8:]) != 0 || le.Uint64(body[16:]) != 0 || le.Uint64(body[24:]) != 1<<20 || le.Uint64(body[32:]) != 3 {
		t.Errorf("SHMEM_MAP %x", body)
	}
	if _, _, ok := q.Await(Timeout); !ok {
		t.Error("no answer after the window is there")
	}
	var one [1]byte
	if _, err := e.window.WriteAt([]byte{7}, 5); err != nil {
		t.Fatal(err)
	}
	if _, err := file.ReadAt(one[:], 5); err != nil || one[0] != 7 {
		t.Errorf("the window has %d, %v", one, err)
	}
	e.get(func() { e.front.ConfigChanged() })
	b.ConfigChanged()
	if errno := f.Try(SetBackendReqFD, nil, int(Memfd(t, 1).Fd())); errno == 0 {
		t.Error("a second channel")
	}
	q.Stop()
	q = f.Start(0, 8) // another life, for which it is mapped again
	q.Submit([]byte("ping"), 4)
	b.ShmemMap(0)
	if _, _, ok := q.Await(Timeout); !ok {
		t.Error("no answer in another life")
	}
	f.Do(SetConfig, cat(Pair(2, 3), make([]byte, 4), []byte("abc")))
	e.get(func() {
		if string(e.written) != "\x02abc" {
			t.Errorf("written %q", e.written)
		}
	})
}

// TestOneAtATime: a second front end is turned away, and the device is free after the first.
func TestOneAtATime(t *testing.T) {
	socket := Serve(t, vhostuser.Config{}, newEcho(t))
	f := Dial(t, socket)
	f.Negotiate(features)
	g := Dial(t, socket)
	if _, ok := g.Receive(0); ok {
		t.Error("a second front end is served")
	}
	works(f)
	f.Close()
	h := Dial(t, socket)
	h.Negotiate(features)
	works(h)
}

// TestDisconnect: front ends vanish with work in flight, and nothing of them stays.
func TestDisconnect(t *testing.T) {
	e := newEcho(t)
	socket := Serve(t, vhostuser.Config{}, e)
	descriptors := func() int {
		l, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(l)
	}
	rounds := 50
	var before int
	for i := range rounds {
		t.Run("", func(t *testing.T) {
			f := Dial(t, socket)
			f.Negotiate(features)
			f.BackEnd()
			q, busy := f.Start(0, 8), f.Start(slowQueue, 8)
			q.Submit([]byte("ping"), 4)
			busy.Submit([]byte("ping"), 4)
			e.eventually(t, "the request", func() bool { return len(e.kept) == 1 })
			f.Close()
			e.eventually(t, "the end", func() bool { return e.detaches == i+1 })
		})
		// The server's connection ends a little after Detach.
		for end := time.Now().Add(Timeout); i > 0 && descriptors() > before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("round %d: %d descriptors, %d before", i, descriptors(), before)
			}
		}
		if i == 0 {
			time.Sleep(50 * time.Millisecond)
			before = descriptors()
		}
	}
	if n := e.bus.Len(); n != 0 {
		t.Errorf("%d ranges on the bus", n)
	}
}

// FuzzMessages sends any bytes; the next front end is served.
func FuzzMessages(f *testing.F) {
	f.Add(Message(SetMemTable, Version|NeedReply, cat(Pair(1, 0), Region(0, 4096, 0, 0))))
	f.Add(cat(Message(SetProtocolFeatures, Version, U64(AllProtocol)), Message(SetVringNum, Version, Pair(0, 16)), Message(GetVringBase, Version, Pair(0, 0))))
	f.Add(cat(Message(SetFeatures, Version, U64(features|Protocol)), Message(SetVringAddr, Version, make([]byte, 40)), Message(SetVringEnable, Version, Pair(0, 1))))
	e := newEcho(f)
	socket := Serve(f, vhostuser.Config{DrainTimeout: time.Millisecond}, e)
	f.Fuzz(func(t *testing.T, b []byte) {
		c := Dial(t, socket)
		c.Raw(b)
		c.Close()
		g := Dial(t, socket)
		g.Negotiate(features)
		works(g)
		g.Close()
	})
}

// FuzzRing fills a queue's areas, and its in-flight region, with any bytes. The device ends in a fault or serves what
// it finds, and another queue works.
func FuzzRing(f *testing.F) {
	f.Add([]byte{0, 0, 0, 16, 0, 0, 0, 0, 4, 0, 0, 0, 1, 0, 1, 0}, []byte{0, 0, 1, 0, 0, 0}, uint16(0), []byte(nil))
	f.Add([]byte{0, 0, 0, 16, 0, 0, 0, 0, 32, 0, 0, 0, 4, 0, 0, 0}, []byte{0, 0, 8, 0, 0, 0}, uint16(0), []byte(nil))
	f.Add([]byte{0, 0, 0, 16, 0, 0, 0, 0, 4, 0, 0, 0}, []byte{0, 0, 1, 0, 0, 0}, uint16(0), []byte{8: 1, 10: 8, 16: 1, 32: 1})
	f.Fuzz(func(t *testing.T, desc, avail []byte, base uint16, region []byte) {
		e := newEcho(t)
		c := Dial(t, Serve(t, vhostuser.Config{DrainTimeout: 1}, e))
		c.Negotiate(features)
		if len(region) > 0 {
			file := Memfd(t, 4096)
			if _, err := file.WriteAt(region[:min(len(region), 4096)], 0); err != nil {
				t.Fatal(err)
			}
			c.Do(SetInflightFD, Inflight(4096, 0, 1, 8), int(file.Fd()))
		}
		q := c.NewQueue(0, 8)
		copy(q.Desc, desc)
		copy(q.Avail, avail)
		q.Setup(uint32(base))
		q.Enable(true)
		q.Kick.Signal()
		q.Stop() // so that nothing is written into the other queue
		works(c)
	})
}
