// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	. "npuemu/tests/virtiotest"
	"npuemu/vdev/vhostuser"
)

// works checks that the connection is served: a queue that was never used echoes.
func works(f *Front) {
	f.T.Helper()
	q := f.Start(1, 8)
	if got := q.Request([]byte("ping"), 16); string(got) != "ping" {
		f.T.Errorf("the echo of ping is %q", got)
	}
	q.Stop()
}

func cat(b ...[]byte) []byte { return bytes.Join(b, nil) }

// A bad row is what a front end or a driver does wrong, and what comes of it.
type bad struct {
	name string
	run  func(t *testing.T)
}

const closes = unix.Errno(1 << 12) // instead of an errno: the connection ends

// m is a message to a device with a running queue → errno, nothing has changed: the queue runs on and another can be
// started; or the connection ends, as it does in any case if no answer is wanted. Another front end is then served.
// fds memfds of 64 KiB come along; negative: a pipe.
func m(name string, request uint32, body []byte, fds int, want unix.Errno) bad {
	return bad{name, func(t *testing.T) {
		socket := Serve(t, vhostuser.Config{}, newEcho(t))
		f := Dial(t, socket)
		f.Negotiate(Version1)
		q := f.Start(0, 16)
		var pass []int
		for range fds {
			pass = append(pass, int(Memfd(t, 64<<10).Fd()))
		}
		if fds < 0 {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			defer w.Close()
			pass = []int{int(r.Fd())}
		}
		before := descriptors(t)
		if want == closes {
			f.Raw(Message(request, Version|NeedReply, body), pass...)
			if b, ok := f.Receive(request); ok {
				t.Fatalf("answer %x; the connection should close", b)
			}
		} else {
			if got := f.Try(request, body, pass...); got != want {
				t.Fatalf("%v, want %v", got, want)
			}
			f.Ask(GetFeatures, nil) // the descriptors of a message are closed with the next
			if n := descriptors(t); n > before {
				t.Errorf("%d descriptors, %d before", n, before)
			}
			if got := q.Request([]byte("still"), 16); string(got) != "still" {
				t.Errorf("the running queue echoes %q", got)
			}
			works(f)
			f.Raw(Message(request, Version, body), pass...)
			if b, ok := f.Receive(request); ok {
				t.Fatalf("answer %x without a wish for one", b)
			}
		}
		served(t, socket)
	}}
}

// stopped is m without a running queue.
func stopped(name string, request uint32, body []byte, fds int, want unix.Errno) bad {
	return bad{name, func(t *testing.T) {
		f := Dial(t, Serve(t, vhostuser.Config{}, newEcho(t)))
		f.Negotiate(Version1)
		fd := int(Memfd(t, 64<<10).Fd())
		if fds < 0 {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			defer w.Close()
			fd = int(r.Fd())
		}
		if got := f.Try(request, body, fd); got != want {
			t.Errorf("%v, want %v", got, want)
		}
		works(f)
	}}
}

// early is a message whose protocol feature was not accepted → errno, or the connection ends.
func early(name string, request uint32, want unix.Errno) bad {
	return bad{name + " without its protocol feature", func(t *testing.T) {
		socket := Serve(t, vhostuser.Config{}, newEcho(t))
		f := Dial(t, socket)
		f.Raw(Message(SetProtocolFeatures, Version, U64(1<<3))) // REPLY_ACK
		f.Raw(Message(request, Version|NeedReply, nil))
		switch b, ok := f.Receive(request); {
		case want == closes && ok:
			t.Errorf("answer %x; the connection should close", b)
		case want != closes && (!ok || !bytes.Equal(b, U64(uint64(want)))):
			t.Errorf("answer %x, %v; want %v", b, ok, want)
		}
		f.Close()
		served(t, socket)
	}}
}

// raw are bytes after which the stream cannot be followed → the connection ends, another is served.
func raw(name string, b []byte) bad {
	return bad{name, func(t *testing.T) {
		socket := Serve(t, vhostuser.Config{}, newEcho(t))
		f := Dial(t, socket)
		f.Raw(b)
		if _, ok := f.Receive(0); ok {
			t.Fatal("an answer; the connection should close")
		}
		served(t, socket)
	}}
}

// config is GET_CONFIG, which has its own way to fail → an answer without bytes; the next one is good.
func getConfig(name string, body []byte) bad {
	return bad{name, func(t *testing.T) {
		f := Dial(t, Serve(t, vhostuser.Config{}, newEcho(t)))
		f.Negotiate(Version1)
		if b := f.Ask(GetConfig, body); len(b) != 0 {
			t.Errorf("%x, want nothing", b)
		}
		if got := string(f.Config(13)); got != "configuration" {
			t.Errorf("the configuration space is %q", got)
		}
		works(f)
	}}
}

const ringSize = 8

// split and packed are what a driver writes into its virtqueue → a rule that the device names. The queue stops with nothing
// used, its error eventfd and the device status tell, other queues go on, and a reset heals.
func split(name string, do func(q *Queue), rule string) bad {
	return bad{name, func(t *testing.T) { breaks(t, features, do, rule) }}
}

func packed(name string, do func(q *Queue), rule string) bad {
	return bad{"packed: " + name, func(t *testing.T) { breaks(t, features|Packed, do, rule) }}
}

func breaks(t *testing.T, features uint64, do func(q *Queue), rule string) {
	le := binary.LittleEndian
	e := newEcho(t)
	f := Dial(t, Serve(t, vhostuser.Config{}, e))
	f.Negotiate(features)
	f.Do(SetStatus, U64(15))
	q := f.NewQueue(0, ringSize)
	base := q.Fresh()
	q.Setup(base)
	q.Enable(true)
	do(q)
	before := bytes.Clone(q.Desc)
	q.Kick.Signal()
	e.eventually(t, "the fault", func() bool { return len(e.faults) > 0 })
	e.get(func() {
		if got := e.faults[0].Error(); len(e.faults) != 1 || !strings.Contains(got, rule) || !strings.Contains(got, "queue 0") {
			t.Errorf("%q, want one fault with %q", e.faults, rule)
		}
	})
	if q.Err.Wait(Timeout) == 0 {
		t.Error("the error eventfd is not written")
	}
	if got := le.Uint64(f.Ask(GetStatus, nil)); got != 15|64 {
		t.Errorf("status %#x, want NEEDS_RESET", got)
	}
	if features&Packed == 0 && q.UsedIndex() != 0 || !bytes.Equal(before, q.Desc) {
		t.Error("something was used")
	}
	works(f)
	f.Do(SetStatus, U64(0))
	if got := le.Uint64(f.Ask(GetStatus, nil)); got != 0 {
		t.Errorf("status %#x after reset", got)
	}
	works(f)
}

// descriptors counts those of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	l, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(l)
}

// served checks that another front end is served.
func served(t *testing.T, socket string) {
	t.Helper()
	g := Dial(t, socket)
	g.Negotiate(Version1)
	works(g)
}

// TestBad is the table of what peers do wrong.
func TestBad(t *testing.T) {
	addr := func(q int, flags uint32, desc, used, avail uint64) []byte {
		b := Pair(uint32(q), flags)
		return cat(b, U64(desc), U64(used), U64(avail), U64(0))
	}
	config := func(off, size uint32, n int) []byte { return cat(Pair(off, size), make([]byte, 4+n)) }
	table := func(n uint32, regions ...[]byte) []byte { return cat(Pair(n, 0), cat(regions...)) }
	buf := func(q *Queue) Desc { return Desc{Addr: q.F.Put(make([]byte, 64)), Len: 64} }
	with := func(d Desc, flags, next uint16) Desc { d.Flags, d.Next = flags, next; return d }
	offer := func(q *Queue, descs ...Desc) {
		for i, d := range descs {
			q.Put(i, d)
		}
		q.Offer(0)
	}
	list := func(q *Queue, descs ...Desc) Desc {
		b := make([]byte, 16*len(descs))
		for i, d := range descs {
			PutDesc(b, i, d)
		}
		return Desc{Addr: q.F.Put(b), Len: uint32(len(b)), Flags: Table}
	}
	// table16 is list for a packed ring, whose flags are where a split one has next.
	table16 := func(q *Queue, descs ...Desc) Desc {
		for i := range descs {
			descs[i].Flags, descs[i].Next = 0xabcd, descs[i].Flags // a buffer id means nothing there
		}
		return list(q, descs...)
	}
	// put writes descriptors of a packed ring that are available, with the flags that they have besides.
	put := func(q *Queue, descs ...Desc) {
		for i := len(descs) - 1; i >= 0; i-- {
			d := descs[i]
			d.Flags |= Available
			q.PutPacked(i, d)
		}
	}
	// large is a gigabyte of guest memory that nothing was written to.
	large := func(q *Queue) Desc {
		const at = 1 << 40
		q.F.Do(AddMemReg, Slot(at, 1<<30, UserBase+at, 0), int(Memfd(q.F.T, 1<<30).Fd()))
		return Desc{Addr: at, Len: 1 << 30}
	}
	const u = UserBase
	rows := []bad{
		m("unknown request", 99, nil, 0, unix.EOPNOTSUPP),
		m("request 0", 0, nil, 0, unix.EOPNOTSUPP),
		m("logging", 6, U64(0), 0, unix.EOPNOTSUPP),
		m("postcopy", 28, nil, 0, unix.EOPNOTSUPP),
		m("device IOTLB", 22, make([]byte, 32), 0, unix.EOPNOTSUPP),
		m("in-band kick", 35, Pair(0, 0), 0, unix.EOPNOTSUPP),

		m("features that were not offered", SetFeatures, U64(1<<50), 0, unix.EINVAL),
		m("features, another ring under running queues", SetFeatures, U64(Packed|Version1), 0, unix.EBUSY),
		m("features, short", SetFeatures, make([]byte, 4), 0, unix.EINVAL),
		m("features, long", SetFeatures, make([]byte, 9), 0, unix.EINVAL),
		m("features with a descriptor", SetFeatures, U64(Version1), 1, unix.EINVAL),
		m("protocol features that were not offered", SetProtocolFeatures, U64(1<<14), 0, unix.EINVAL),
		m("GET_FEATURES with a body", GetFeatures, U64(0), 0, closes),
		m("SET_OWNER with a body", SetOwner, U64(0), 0, unix.EINVAL),

		m("table: empty body", SetMemTable, nil, 0, unix.EINVAL),
		m("table: count without regions", SetMemTable, table(1), 1, unix.EINVAL),
		m("table: nine regions", SetMemTable, table(9, make([]byte, 9*32)), 9, unix.EINVAL),
		m("table: count 2³²−1", SetMemTable, table(1<<32-1), 0, unix.EINVAL),
		m("table: no descriptor", SetMemTable, table(1, Region(0, 4096, u, 0)), 0, unix.EINVAL),
		m("table: too many descriptors", SetMemTable, table(1, Region(0, 4096, u, 0)), 2, unix.EINVAL),
		m("table: padding", SetMemTable, cat(Pair(1, 1), Region(0, 4096, u, 0)), 1, unix.EINVAL),
		m("table: overlap", SetMemTable, table(2, Region(0, 8192, u, 0), Region(4096, 8192, u+8192, 0)), 2, unix.EEXIST),
		m("table: user addresses overlap", SetMemTable, table(2, Region(0, 8192, u, 0), Region(1<<20, 8192, u+4096, 0)), 2, unix.EEXIST),

		m("slot: short", AddMemReg, make([]byte, 39), 1, unix.EINVAL),
		m("slot: padding", AddMemReg, cat(U64(1), Region(0, 4096, u+1<<30, 0)), 1, unix.EINVAL),
		m("slot: no descriptor", AddMemReg, Slot(0, 4096, u+1<<30, 0), 0, unix.EINVAL),
		m("slot: two descriptors", AddMemReg, Slot(0, 4096, u+1<<30, 0), 2, unix.EINVAL),
		m("slot: not a file", AddMemReg, Slot(0, 4096, u+1<<30, 0), -1, unix.EINVAL),
		m("slot: size 0", AddMemReg, Slot(0, 0, u+1<<30, 0), 1, unix.EINVAL),
		m("slot: beyond the file", AddMemReg, Slot(0, 1<<20, u+1<<30, 0), 1, unix.EINVAL),
		m("slot: offset beyond the file", AddMemReg, Slot(0, 4096, u+1<<30, 1<<63), 1, unix.EINVAL),
		m("slot: guest addresses beyond 2⁵²", AddMemReg, Slot(1<<52-4095, 4096, u+1<<30, 0), 1, unix.EINVAL),
		m("slot: guest addresses pass 2⁶⁴", AddMemReg, Slot(1<<64-1, 4096, u+1<<30, 0), 1, unix.EINVAL),
		m("slot: user addresses pass 2⁶⁴", AddMemReg, Slot(0, 4096, 1<<64-1, 0), 1, unix.EINVAL),
		m("slot: over guest memory", AddMemReg, Slot(MemBase+4096, 4096, u+1<<30, 0), 1, unix.EEXIST),
		m("slot: over its user addresses", AddMemReg, Slot(0, 4096, u+4096, 0), 1, unix.EEXIST),
		m("remove: what is not there", RemMemReg, Slot(0, 4096, u+1<<30, 0), 0, unix.ENOENT),
		m("remove: a part", RemMemReg, Slot(MemBase, 4096, u, 0), 0, unix.ENOENT),
		m("remove: size 0", RemMemReg, Slot(MemBase, 0, u, 0), 0, unix.EINVAL),

		m("size of a queue that is not there", SetVringNum, Pair(echoQueues, 16), 0, unix.EINVAL),
		m("size of queue 2³²−1", SetVringNum, Pair(1<<32-1, 16), 0, unix.EINVAL),
		m("size 0", SetVringNum, Pair(1, 0), 0, unix.EINVAL),
		m("size 12", SetVringNum, Pair(1, 12), 0, unix.EINVAL),
		m("size 2048", SetVringNum, Pair(1, 2048), 0, unix.EINVAL),
		m("size 2¹⁶", SetVringNum, Pair(1, 1<<16), 0, unix.EINVAL),
		m("size, queue started", SetVringNum, Pair(0, 16), 0, unix.EBUSY),
		m("index, queue started", SetVringBase, Pair(0, 0), 0, unix.EBUSY),
		m("index beyond 16 bits", SetVringBase, Pair(1, 1<<16), 0, unix.EINVAL),
		m("address, queue started", SetVringAddr, addr(0, 0, u, u, u), 0, unix.EBUSY),
		m("address of a queue that is not there", SetVringAddr, addr(echoQueues, 0, u, u, u), 0, unix.EINVAL),
		m("address with logging", SetVringAddr, addr(1, 1, u, u, u), 0, unix.EINVAL),
		m("descriptor table not aligned", SetVringAddr, addr(1, 0, u+8, u, u), 0, unix.EINVAL),
		m("used ring not aligned", SetVringAddr, addr(1, 0, u, u+2, u), 0, unix.EINVAL),
		m("available ring not aligned", SetVringAddr, addr(1, 0, u, u, u+1), 0, unix.EINVAL),
		m("address, short", SetVringAddr, addr(1, 0, u, u, u)[:32], 0, unix.EINVAL),
		m("stop of a queue that is not there", GetVringBase, Pair(echoQueues, 0), 0, closes),
		m("kick without a descriptor", SetVringKick, U64(1), 0, unix.EINVAL),
		m("kick by polling", SetVringKick, U64(1|1<<8), 0, unix.EOPNOTSUPP),
		m("kick with two descriptors", SetVringKick, U64(1), 2, unix.EINVAL),
		m("kick that is a file", SetVringKick, U64(1), 1, unix.EINVAL),
		m("kick that is a pipe", SetVringKick, U64(1), -1, unix.EINVAL),
		m("kick of a queue that is not there", SetVringKick, U64(echoQueues), 1, unix.EINVAL),
		m("kick with reserved bits", SetVringKick, U64(1|1<<9), 1, unix.EINVAL),
		m("call that is a file", SetVringCall, U64(1), 1, unix.EINVAL),
		m("call with a descriptor and the bit for none", SetVringCall, U64(1|1<<8), 1, unix.EINVAL),
		m("error descriptor of a queue that is not there", SetVringErr, U64(200), 1, unix.EINVAL),
		m("enable a queue that is not there", SetVringEnable, Pair(echoQueues, 1), 0, unix.EINVAL),
		m("enable with 2", SetVringEnable, Pair(1, 2), 0, unix.EINVAL),
		m("GET_QUEUE_NUM with a body", GetQueueNum, U64(0), 0, closes),

		m("back-end channel without a descriptor", SetBackendReqFD, nil, 0, unix.EINVAL),
		m("back-end channel that is a file", SetBackendReqFD, nil, 1, unix.EINVAL),
		m("back-end channel that is a pipe", SetBackendReqFD, nil, -1, unix.EINVAL),
		m("status of 9 bits", SetStatus, U64(0x100), 0, unix.EINVAL),
		m("SET_CONFIG beyond the space", SetConfig, config(255, 2, 2), 0, unix.EINVAL),
		m("SET_CONFIG with too few bytes", SetConfig, config(0, 8, 4), 0, unix.EINVAL),
		m("SET_CONFIG, short", SetConfig, Pair(0, 0), 0, unix.EINVAL),
		m("SET_CONFIG whose sum overflows", SetConfig, config(1<<32-1, 2, 2), 0, unix.EINVAL),
		m("RESET_DEVICE with a body", ResetDevice, U64(0), 0, unix.EINVAL),

		m("GET_INFLIGHT_FD, short", GetInflightFD, make([]byte, 19), 0, closes),
		m("GET_INFLIGHT_FD, long", GetInflightFD, make([]byte, 25), 0, closes),
		m("GET_INFLIGHT_FD for no queue", GetInflightFD, Inflight(0, 0, 0, 8), 0, closes),
		m("GET_INFLIGHT_FD for more queues than there are", GetInflightFD, Inflight(0, 0, echoQueues+1, 8), 0, closes),
		m("GET_INFLIGHT_FD for queues of no entries", GetInflightFD, Inflight(0, 0, 1, 0), 0, closes),
		m("GET_INFLIGHT_FD for queues of 65535 entries", GetInflightFD, Inflight(0, 0, 1, 65535), 0, closes),
		m("GET_INFLIGHT_FD with a descriptor", GetInflightFD, Inflight(0, 0, 1, 8), 1, closes),
		m("SET_INFLIGHT_FD, short", SetInflightFD, make([]byte, 12), 1, unix.EINVAL),
		m("SET_INFLIGHT_FD without a descriptor", SetInflightFD, Inflight(4096, 0, 1, 8), 0, unix.EINVAL),
		m("SET_INFLIGHT_FD with two descriptors", SetInflightFD, Inflight(4096, 0, 1, 8), 2, unix.EINVAL),
		m("SET_INFLIGHT_FD, queue started", SetInflightFD, Inflight(4096, 0, 1, 8), 1, unix.EBUSY),
		m("SET_INFLIGHT_FD for more queues than there are", SetInflightFD, Inflight(4096, 0, 200, 8), 1, unix.EINVAL),
		m("SET_INFLIGHT_FD for queues of 2048 entries", SetInflightFD, Inflight(65536, 0, 1, 2048), 1, unix.EINVAL),
		stopped("region that is too small", SetInflightFD, Inflight(64, 0, 1, 8), 1, unix.EINVAL),
		stopped("region beyond its file", SetInflightFD, Inflight(1<<20, 0, 1, 8), 1, unix.EINVAL),
		stopped("region at an offset beyond its file", SetInflightFD, Inflight(4096, 1<<62, 1, 8), 1, unix.EINVAL),
		stopped("region at an odd offset", SetInflightFD, Inflight(4096, 4, 1, 8), 1, unix.EINVAL),
		stopped("region of 2⁶⁴−1 bytes", SetInflightFD, Inflight(1<<64-1, 0, 1, 8), 1, unix.EINVAL),
		stopped("region that is a pipe", SetInflightFD, Inflight(4096, 0, 1, 8), -1, unix.EINVAL),

		getConfig("GET_CONFIG, short", Pair(0, 1)),
		getConfig("GET_CONFIG of 257 bytes", cat(Pair(0, 257), make([]byte, 4+257))),
		getConfig("GET_CONFIG beyond the space", cat(Pair(256, 1), make([]byte, 5))),
		getConfig("GET_CONFIG, body and length differ", cat(Pair(0, 8), make([]byte, 4+7))),

		raw("version 0", Message(GetFeatures, 0, nil)),
		raw("version 2", Message(GetFeatures, 2, nil)),
		raw("an answer", Message(GetFeatures, Version|Reply, nil)),
		raw("reserved flags", Message(GetFeatures, Version|1<<4, nil)),
		raw("body of 513 bytes", Message(SetMemTable, Version, make([]byte, 513))),
		raw("body of 2³²−1 bytes", cat(Message(SetFeatures, Version, nil)[:8], Pair(1<<32-1, 0))),
		raw("noise", bytes.Repeat([]byte{0xff}, 64)),

		early("GET_QUEUE_NUM", GetQueueNum, closes),
		early("GET_CONFIG", GetConfig, closes),
		early("GET_MAX_MEM_SLOTS", GetMaxMemSlots, closes),
		early("GET_STATUS", GetStatus, closes),
		early("GET_SHMEM_CONFIG", GetShmemConfig, closes),
		early("GET_INFLIGHT_FD", GetInflightFD, closes),
		early("SET_INFLIGHT_FD", SetInflightFD, unix.EOPNOTSUPP),
		early("SET_BACKEND_REQ_FD", SetBackendReqFD, unix.EOPNOTSUPP),
		early("SET_CONFIG", SetConfig, unix.EOPNOTSUPP),
		early("RESET_DEVICE", ResetDevice, unix.EOPNOTSUPP),
		early("ADD_MEM_REG", AddMemReg, unix.EOPNOTSUPP),
		early("REM_MEM_REG", RemMemReg, unix.EOPNOTSUPP),
		early("SET_STATUS", SetStatus, unix.EOPNOTSUPP),

		split("head outside the table", func(q *Queue) { q.Offer(ringSize) }, "descriptor 8 is named"),
		split("head 0xffff", func(q *Queue) { q.Offer(0xffff) }, "descriptor 65535 is named"),
		split("next outside the table", func(q *Queue) { offer(q, with(buf(q), Next, ringSize)) }, "descriptor 8 is named"),
		split("a loop of one", func(q *Queue) { offer(q, with(buf(q), Next, 0)) }, "a loop"),
		split("a loop of two", func(q *Queue) { offer(q, with(buf(q), Next, 1), with(buf(q), Next, 0)) }, "a loop"),
		split("length 0", func(q *Queue) { d := buf(q); d.Len = 0; offer(q, d) }, "length 0"),
		split("readable after writable", func(q *Queue) { offer(q, with(buf(q), Next|Write, 1), buf(q)) }, "readable and follows a writable"),
		split("reserved flags", func(q *Queue) { offer(q, with(buf(q), 1<<7, 0)) }, "flags 0x80"),
		split("buffer that is not mapped", func(q *Queue) { offer(q, Desc{Addr: 0x1000, Len: 4}) }, "not in guest memory"),
		split("buffer that ends outside", func(q *Queue) { offer(q, Desc{Addr: MemBase + MemSize - 4, Len: 8}) }, "not in guest memory"),
		split("buffer that passes 2⁶⁴", func(q *Queue) { offer(q, Desc{Addr: 1<<64 - 4, Len: 8}) }, "not in guest memory"),
		split("room that is not mapped", func(q *Queue) { offer(q, with(buf(q), Next, 1), Desc{Addr: 0x1000, Len: 64, Flags: Write}) }, "a writable buffer"),
		split("index jumps", func(q *Queue) { q.SetAvail(ringSize + 1) }, "moved from 0 to 9"),
		split("index goes back", func(q *Queue) { q.SetAvail(0xffff) }, "moved from 0 to 65535"),
		split("indirect table not mapped", func(q *Queue) { offer(q, Desc{Addr: 0x1000, Len: 16, Flags: Table}) }, "indirect table at 0x1000"),
		split("indirect table of 0 bytes", func(q *Queue) { offer(q, Desc{Addr: MemBase, Flags: Table}) }, "length 0"),
		split("indirect table of 24 bytes", func(q *Queue) { offer(q, Desc{Addr: MemBase, Len: 24, Flags: Table}) }, "table of 24 bytes"),
		split("indirect table too long", func(q *Queue) { offer(q, Desc{Addr: MemBase, Len: 16 * (ringSize + 1), Flags: Table}) }, "table of 144 bytes"),
		split("indirect within indirect", func(q *Queue) { offer(q, list(q, list(q, buf(q)))) }, "of an indirect table is indirect"),
		split("indirect with next", func(q *Queue) { offer(q, with(list(q, buf(q)), Table|Next, 1), buf(q)) }, "indirect and has a next"),
		split("loop in an indirect table", func(q *Queue) { offer(q, list(q, with(buf(q), Next, 0))) }, "a loop"),
		split("next outside the indirect table", func(q *Queue) { offer(q, list(q, with(buf(q), Next, 1))) }, "descriptor 1 is named"),
		split("direct and indirect are too many", func(q *Queue) {
			offer(q, with(buf(q), Next, 1), list(q, with(buf(q), Next, 1), with(buf(q), Next, 2), with(buf(q), Next, 3), with(buf(q), Next, 4),
				with(buf(q), Next, 5), with(buf(q), Next, 6), with(buf(q), Next, 7), buf(q)))
		}, "more than 8 descriptors"),
		split("all flags", func(q *Queue) { offer(q, with(buf(q), 0xffff, 0)) }, "flags 0xffff"),
		split("buffer of 4 GiB", func(q *Queue) { offer(q, Desc{Addr: MemBase, Len: 1<<32 - 1}) }, "not in guest memory"),
		split("chain of nine", func(q *Queue) {
			var c []Desc
			for i := range ringSize {
				c = append(c, with(buf(q), Next, uint16(i+1)%ringSize))
			}
			offer(q, c...)
		}, "more than 8 descriptors, or a loop"),
		split("chain of more than 2³² bytes", func(q *Queue) {
			d := large(q)
			offer(q, with(d, Next, 1), with(d, Next, 2), with(d, Next, 3), with(d, Next|Write, 4), with(buf(q), Write, 0))
		}, "more than 2³² bytes"),
		split("indirect table that passes 2⁶⁴", func(q *Queue) { offer(q, Desc{Addr: 1<<64 - 16, Len: 32, Flags: Table}) }, "not in guest memory"),
		split("indirect table across the end of a region", func(q *Queue) {
			offer(q, Desc{Addr: MemBase + MemSize - 16, Len: 32, Flags: Table})
		}, "not in guest memory"),
		split("length 0 in an indirect table", func(q *Queue) { offer(q, list(q, Desc{Addr: MemBase})) }, "length 0"),
		split("readable after writable in an indirect table", func(q *Queue) {
			offer(q, list(q, with(buf(q), Next|Write, 1), buf(q)))
		}, "readable and follows a writable"),
		split("readable after writable, across the table's start", func(q *Queue) {
			offer(q, with(buf(q), Next|Write, 1), list(q, buf(q)))
		}, "readable and follows a writable"),
		split("reserved flags in an indirect table", func(q *Queue) { offer(q, list(q, with(buf(q), 1<<3, 0))) }, "flags 0x8"),

		packed("length 0", func(q *Queue) { put(q, Desc{Addr: MemBase}) }, "length 0"),
		packed("reserved flags", func(q *Queue) { put(q, with(buf(q), 1<<3, 0)) }, "flags 0x88"),
		packed("all other reserved flags", func(q *Queue) { put(q, with(buf(q), 0x7f78, 0)) }, "flags 0x7ff8"),
		packed("readable after writable", func(q *Queue) { put(q, with(buf(q), Next|Write, 0), buf(q)) }, "readable and follows a writable"),
		packed("buffer that is not mapped", func(q *Queue) { put(q, Desc{Addr: 0x1000, Len: 4}) }, "not in guest memory"),
		packed("buffer that ends outside", func(q *Queue) { put(q, Desc{Addr: MemBase + MemSize - 4, Len: 8}) }, "not in guest memory"),
		packed("buffer that passes 2⁶⁴", func(q *Queue) { put(q, Desc{Addr: 1<<64 - 4, Len: 8}) }, "not in guest memory"),
		packed("a chain without end", func(q *Queue) {
			var c []Desc
			for range ringSize {
				c = append(c, with(buf(q), Next, 0))
			}
			put(q, c...)
		}, "more than 8 descriptors"),
		packed("chain of more than 2³² bytes", func(q *Queue) {
			d := large(q)
			put(q, with(d, Next, 0), with(d, Next, 0), with(d, Next|Write, 0), with(d, Next|Write, 0), with(buf(q), Write, 0))
		}, "more than 2³² bytes"),
		packed("indirect table not mapped", func(q *Queue) { put(q, Desc{Addr: 0x1000, Len: 16, Flags: Table}) }, "indirect table at 0x1000"),
		packed("indirect table of 0 bytes", func(q *Queue) { put(q, Desc{Addr: MemBase, Flags: Table}) }, "length 0"),
		packed("indirect table of 24 bytes", func(q *Queue) { put(q, Desc{Addr: MemBase, Len: 24, Flags: Table}) }, "table of 24 bytes"),
		packed("indirect table too long", func(q *Queue) { put(q, Desc{Addr: MemBase, Len: 16 * (ringSize + 1), Flags: Table}) }, "table of 144 bytes"),
		packed("indirect with next", func(q *Queue) { put(q, with(table16(q, buf(q)), Table|Next, 0), buf(q)) }, "indirect and has a next"),
		packed("length 0 in an indirect table", func(q *Queue) { put(q, table16(q, Desc{Addr: MemBase})) }, "length 0"),
		packed("readable after writable in an indirect table", func(q *Queue) { put(q, table16(q, with(buf(q), Write, 0), buf(q))) }, "readable and follows a writable"),
		packed("buffer of an indirect table that is not mapped", func(q *Queue) { put(q, table16(q, Desc{Addr: 0x1000, Len: 4})) }, "not in guest memory"),
	}
	for _, tt := range rows {
		t.Run(tt.name, tt.run)
	}
	if len(rows) < 160 {
		t.Errorf("only %d rows", len(rows))
	}
}

// TestPieces: messages that come in pieces, or not whole.
func TestPieces(t *testing.T) {
	t.Run("cut in the middle", func(t *testing.T) {
		e := newEcho(t)
		socket := Serve(t, vhostuser.Config{}, e)
		for n := 1; n < 20; n += 3 {
			f := Dial(t, socket)
			f.Raw(Message(SetFeatures, Version, U64(0))[:n])
			f.Close()
		}
		f := Dial(t, socket)
		f.Negotiate(Version1)
		works(f)
	})
	t.Run("one byte at a time", func(t *testing.T) {
		f := Dial(t, Serve(t, vhostuser.Config{}, newEcho(t)))
		for _, b := range Message(GetFeatures, Version, nil) {
			f.Raw([]byte{b})
		}
		if b, ok := f.Receive(GetFeatures); !ok || len(b) != 8 {
			t.Errorf("answer %x, %v", b, ok)
		}
	})
}
