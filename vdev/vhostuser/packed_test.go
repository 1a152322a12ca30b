// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	. "npuemu/tests/virtiotest"
	"npuemu/vdev/vhostuser"
)

// TestPackedSizes goes several times around packed rings of all sizes that matter, with chains that cross the end.
func TestPackedSizes(t *testing.T) {
	for _, size := range []int{1, 2, 3, 5, 8, 1000, 1024} {
		for _, feat := range []uint64{Version1 | Packed, features | Packed} {
			t.Run(fmt.Sprintf("%d, %#x", size, feat), func(t *testing.T) {
				f := Dial(t, Serve(t, vhostuser.Config{}, newEcho(t)))
				f.Negotiate(feat)
				q := f.NewQueue(0, size)
				q.EventIndex = feat&EventIndex != 0
				q.Setup(q.Fresh())
				q.Enable(true)
				in := f.Put([]byte("abcdef"))
				at, out := f.Alloc(64)
				for i := range 3*size + 20 {
					var chain []Desc
					room := Desc{Addr: at, Len: 64, Flags: Write}
					switch n := 1 + i%4; {
					case n > size || n == 1: // nothing to echo
						chain = []Desc{room}
					default:
						for k := range n - 1 {
							chain = append(chain, Desc{Addr: in + uint64(k), Len: 1})
						}
						chain = append(chain, room)
					}
					want := "abcdef"[:len(chain)-1]
					id := q.Add(chain...)
					q.Kick.Signal()
					if got, n, ok := q.Await(Timeout); !ok || got != id || int(n) != len(want) || string(out[:n]) != want {
						t.Fatalf("request %d: used %d of %d, %q of %q, %v", i, got, id, out[:n], want, ok)
					}
				}
				if base := q.Stop(); base != q.Base() {
					t.Errorf("stopped at %#x, want %#x", base, q.Base())
				}
			})
		}
	}
}

// TestPackedBase: where a packed ring goes on.
func TestPackedBase(t *testing.T) {
	for _, tt := range []struct {
		name string
		base uint32
		rule string // "": the ring works
	}{
		{"a new ring", 0x8000_8000, ""},
		{"a new ring of User-mode Linux", 0, ""},
		{"available index beyond the ring", 0x8000_8008, "such indices"},
		{"used index beyond the ring", 0x8008_8000, "such indices"},
		{"used after available", 0x8001_8000, "such indices"},
		{"more than a turn in flight", 0x8000_0001, "such indices"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEcho(t)
			f := Dial(t, Serve(t, vhostuser.Config{}, e))
			f.Negotiate(features | Packed)
			q := f.NewQueue(0, 8)
			q.Setup(tt.base)
			q.Enable(true)
			if tt.rule == "" {
				if got := q.Request([]byte("ping"), 4); string(got) != "ping" {
					t.Errorf("the echo is %q", got)
				}
				e.get(func() {
					if e.losts != 0 {
						t.Error("a new ring counts as another's")
					}
				})
				return
			}
			e.eventually(t, "the fault", func() bool { return len(e.faults) == 1 })
			if got := e.faults[0].Error(); !strings.Contains(got, tt.rule) {
				t.Errorf("%s, want %q", got, tt.rule)
			}
			works(f)
		})
	}
	t.Run("pauses", func(t *testing.T) {
		f := Dial(t, Serve(t, vhostuser.Config{}, newEcho(t)))
		f.Negotiate(features | Packed)
		q, other := f.Start(0, 5), f.Start(1, 5) // a life that goes on while one queue is paused
		for i := range 40 {
			q.Request([]byte("ping"), 4)
			if i%3 == 0 {
				q.Submit([]byte("late"), 4)
				q.Await(Timeout)
			}
			base := q.Stop()
			if base != q.Base() {
				t.Fatalf("pause %d: stopped at %#x, want %#x", i, base, q.Base())
			}
			q.Setup(base)
			q.Enable(true)
		}
		other.Request([]byte("ping"), 4)
	})
}

// TestPackedNotify: both sides' event suppression.
func TestPackedNotify(t *testing.T) {
	f := Dial(t, Serve(t, vhostuser.Config{}, newEcho(t)))
	f.Negotiate(Version1 | Packed)
	q := f.Start(0, 8)
	q.Request([]byte("x"), 1)
	if q.Call.Wait(Timeout) == 0 {
		t.Error("no notification")
	}
	for _, tt := range []struct {
		flags  byte
		notify bool
	}{{1, false}, {0, true}, {2, true}, {3, true}} { // DESC was not accepted and 3 is reserved: better one too many
		q.Avail[2] = tt.flags
		q.Request([]byte("x"), 1)
		q.Enable(true) // its answer follows the notification
		if got := q.Call.Wait(0) != 0; got != tt.notify {
			t.Errorf("flags %d: notified %v", tt.flags, got)
		}
	}
	if flags, _, _ := q.DeviceEvent(); flags != 0 {
		t.Errorf("device event flags %d, want ENABLE", flags)
	}

	f = Dial(t, Serve(t, vhostuser.Config{}, newEcho(t)))
	f.Negotiate(features | Packed)
	q = f.Start(0, 5)
	for round := range 12 { // a request has two descriptors, so the event crosses the end in every place
		q.NotifyAt(round%2 + 4)
		for i := range 3 {
			q.Request([]byte("x"), 1)
			q.Enable(true)
			if got := q.Call.Wait(0) != 0; got != (i == 2) {
				t.Errorf("round %d: notified %v after %d descriptors", round, got, 2*(i+1))
			}
		}
		// The device asks for a kick at the descriptor that comes next.
		base := q.Stop()
		if flags, index, wrap := q.DeviceEvent(); flags != 2 || index != int(base&0x7fff) || wrap != (base&0x8000 != 0) {
			t.Errorf("round %d: device event %d, %d, %v; the ring is at %#x", round, flags, index, wrap, base)
		}
		q.Setup(base)
		q.Enable(true)
	}
}

// TestOutOfOrder completes in every order; the driver gets each answer once.
func TestOutOfOrder(t *testing.T) {
	for _, feat := range []uint64{features, features | Packed} {
		e := newEcho(t)
		f := Dial(t, Serve(t, vhostuser.Config{}, e))
		f.Negotiate(feat)
		q := f.Start(slowQueue, 8)
		for _, order := range [][]int{{3, 2, 1, 0}, {1, 3, 0, 2}, {0, 1, 2, 3}, {2, 0, 3, 1}, {3, 0, 1, 2}} {
			answers, ids := map[uint16][]byte{}, []uint16{}
			for i := range 4 {
				id, a := q.Submit([]byte{byte('a' + i)}, 1)
				answers[id] = a
				ids = append(ids, id)
			}
			e.eventually(t, "the requests", func() bool { return len(e.kept) == 4 })
			e.get(func() {
				for _, i := range order {
					e.note(e.kept[i].Complete(e.kept[i].In))
				}
				e.kept = nil
			})
			for i := range 4 {
				id, n, ok := q.Await(Timeout)
				if !ok || n != 1 || id != ids[order[i]] || answers[id][0] != byte('a'+order[i]) {
					t.Fatalf("%#x, order %v: answer %d is of %d, %d bytes, %v", feat, order, i, id, n, ok)
				}
			}
		}
		if e.faults != nil {
			t.Error(e.faults)
		}
	}
}

// TestUnaligned: memory whose file offset makes ring words straddle is refused when the ring begins, not read in halves.
func TestUnaligned(t *testing.T) {
	for _, feat := range []uint64{features, features | Packed} {
		e := newEcho(t)
		f := Dial(t, Serve(t, vhostuser.Config{}, e))
		f.Hello(feat)
		f.Do(AddMemReg, Slot(MemBase, MemSize-4096, UserBase, 1), int(f.File.Fd()))
		q := f.NewQueue(0, 8)
		q.Setup(q.Fresh())
		q.Enable(true)
		e.eventually(t, "the fault", func() bool { return len(e.faults) == 1 })
		if !strings.Contains(e.faults[0].Error(), "not aligned") {
			t.Error(e.faults)
		}
	}
}

// TestTouchingRegions: a buffer may cross the end of a region into the next one, a ring may not.
func TestTouchingRegions(t *testing.T) {
	e := newEcho(t)
	f := Dial(t, Serve(t, vhostuser.Config{}, e))
	f.Hello(features)
	const half = MemSize / 2
	f.Do(AddMemReg, Slot(MemBase, half, UserBase, 0), int(f.File.Fd()))
	f.Do(AddMemReg, Slot(MemBase+half, half, UserBase+half, half), int(f.File.Fd()))
	q := f.Start(0, 8)
	copy(f.Bytes(MemBase+half-2, 4), "ping")
	q.Add(Desc{Addr: MemBase + half - 2, Len: 4}, Desc{Addr: MemBase + half - 66, Len: 64, Flags: Write}, Desc{Addr: MemBase + half - 1, Len: 3, Flags: Write})
	q.Kick.Signal()
	if _, n, ok := q.Await(Timeout); !ok || n != 4 || string(f.Bytes(MemBase+half-66, 4)) != "ping" {
		t.Errorf("%d bytes, %v, %q", n, ok, f.Bytes(MemBase+half-66, 4))
	}
	r := f.NewQueue(1, 8)
	r.DescAddr = MemBase + half - 64
	r.Setup(0)
	r.Enable(true)
	e.eventually(t, "the fault", func() bool { return len(e.faults) == 1 })
	if !strings.Contains(e.faults[0].Error(), "descriptor table") {
		t.Error(e.faults)
	}
}

// FuzzPacked fills a packed queue's areas, and its in-flight region, with any bytes. The device ends in a fault or serves
// what it finds, and another queue works.
func FuzzPacked(f *testing.F) {
	d := func(addr uint64, size uint32, id, flags uint16) []byte {
		b := binary.LittleEndian.AppendUint64(nil, addr)
		b = binary.LittleEndian.AppendUint32(b, size)
		return binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(b, id), flags)
	}
	f.Add(d(MemBase, 4, 1, Available), []byte{0, 0, 2, 0}, uint32(0x8000_8000), []byte(nil))
	f.Add(slices.Concat(d(MemBase, 4, 1, Available|Next), d(MemBase, 4, 1, Available|Write)), []byte{0, 0}, uint32(0), []byte(nil))
	f.Add(d(MemBase, 32, 1, Available|Table), []byte{3, 128, 2, 0}, uint32(0x8000_8000), slices.Concat(make([]byte, 8), []byte{1, 0, 8, 0, 1, 0, 1}))
	f.Fuzz(func(t *testing.T, desc, event []byte, base uint32, region []byte) {
		e := newEcho(t)
		c := Dial(t, Serve(t, vhostuser.Config{DrainTimeout: 1}, e))
		c.Negotiate(features | Packed)
		if len(region) > 0 {
			file := Memfd(t, 4096)
			if _, err := file.WriteAt(region[:min(len(region), 4096)], 0); err != nil {
				t.Fatal(err)
			}
			c.Do(SetInflightFD, Inflight(4096, 0, 1, 8), int(file.Fd()))
		}
		q := c.NewQueue(0, 8)
		copy(q.Desc, desc)
		copy(q.Avail, event)
		q.Setup(base)
		q.Enable(true)
		q.Kick.Signal()
		q.Stop() // so that nothing is written into the other queue
		works(c)
	})
}
