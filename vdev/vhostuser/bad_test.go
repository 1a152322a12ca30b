// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	. "npuemu/tests/virtiotest"
	"npuemu/vdev/vhostuser"
)

// works checks that the connection is served: a queue that was never used echoes.
func works(f *Front) {
	f.T.Helper()
	q := f.Start(1, 16)
	if got := q.Request([]byte("ping"), 16); string(got) != "ping" {
		f.T.Errorf("the echo of ping is %q", got)
	}
	q.Stop()
}

func cat(b ...[]byte) []byte { return bytes.Join(b, nil) }

// TestBadMessages: raw message → errno, or close → the connection, or the next one, works.
func TestBadMessages(t *testing.T) {
	const closes = unix.Errno(1 << 12)
	addr := func(q int, flags uint32, desc, used, avail uint64) []byte {
		b := Pair(uint32(q), flags)
		return cat(b, U64(desc), U64(used), U64(avail), U64(0))
	}
	config := func(off, size uint32, n int) []byte { return cat(Pair(off, size), make([]byte, 4+n)) }
	table := func(n uint32, regions ...[]byte) []byte { return cat(Pair(n, 0), cat(regions...)) }
	const u = UserBase
	for _, tt := range []struct {
		name    string
		request uint32
		body    []byte
		fds     int // memfds of 64 KiB that come along; negative: a pipe
		want    unix.Errno
	}{
		{"unknown request", 99, nil, 0, unix.EOPNOTSUPP},
		{"request 0", 0, nil, 0, unix.EOPNOTSUPP},
		{"logging", 6, U64(0), 0, unix.EOPNOTSUPP},
		{"in-flight tracking", 31, nil, 0, unix.EOPNOTSUPP},
		{"postcopy", 28, nil, 0, unix.EOPNOTSUPP},
		{"device IOTLB", 22, make([]byte, 32), 0, unix.EOPNOTSUPP},
		{"in-band kick", 35, Pair(0, 0), 0, unix.EOPNOTSUPP},

		{"features that were not offered", SetFeatures, U64(1 << 50), 0, unix.EINVAL},
		{"features, packed", SetFeatures, U64(1<<34 | Version1), 0, unix.EINVAL},
		{"features, short", SetFeatures, make([]byte, 4), 0, unix.EINVAL},
		{"features, long", SetFeatures, make([]byte, 9), 0, unix.EINVAL},
		{"features with a descriptor", SetFeatures, U64(Version1), 1, unix.EINVAL},
		{"protocol features that were not offered", SetProtocolFeatures, U64(1 << 14), 0, unix.EINVAL},
		{"GET_FEATURES with a body", GetFeatures, U64(0), 0, closes},
		{"SET_OWNER with a body", SetOwner, U64(0), 0, unix.EINVAL},

		{"table: empty body", SetMemTable, nil, 0, unix.EINVAL},
		{"table: count without regions", SetMemTable, table(1), 1, unix.EINVAL},
		{"table: nine regions", SetMemTable, table(9, make([]byte, 9*32)), 9, unix.EINVAL},
		{"table: count 2³²−1", SetMemTable, table(1<<32 - 1), 0, unix.EINVAL},
		{"table: no descriptor", SetMemTable, table(1, Region(0, 4096, u, 0)), 0, unix.EINVAL},
		{"table: too many descriptors", SetMemTable, table(1, Region(0, 4096, u, 0)), 2, unix.EINVAL},
		{"table: padding", SetMemTable, cat(Pair(1, 1), Region(0, 4096, u, 0)), 1, unix.EINVAL},
		{"table: overlap", SetMemTable, table(2, Region(0, 8192, u, 0), Region(4096, 8192, u+8192, 0)), 2, unix.EEXIST},
		{"table: user addresses overlap", SetMemTable, table(2, Region(0, 8192, u, 0), Region(1<<20, 8192, u+4096, 0)), 2, unix.EEXIST},

		{"slot: short", AddMemReg, make([]byte, 39), 1, unix.EINVAL},
		{"slot: padding", AddMemReg, cat(U64(1), Region(0, 4096, u+1<<30, 0)), 1, unix.EINVAL},
		{"slot: no descriptor", AddMemReg, Slot(0, 4096, u+1<<30, 0), 0, unix.EINVAL},
		{"slot: two descriptors", AddMemReg, Slot(0, 4096, u+1<<30, 0), 2, unix.EINVAL},
		{"slot: not a file", AddMemReg, Slot(0, 4096, u+1<<30, 0), -1, unix.EINVAL},
		{"slot: size 0", AddMemReg, Slot(0, 0, u+1<<30, 0), 1, unix.EINVAL},
		{"slot: beyond the file", AddMemReg, Slot(0, 1<<20, u+1<<30, 0), 1, unix.EINVAL},
		{"slot: offset beyond the file", AddMemReg, Slot(0, 4096, u+1<<30, 1<<63), 1, unix.EINVAL},
		{"slot: guest addresses beyond 2⁵²", AddMemReg, Slot(1<<52-4095, 4096, u+1<<30, 0), 1, unix.EINVAL},
		{"slot: guest addresses pass 2⁶⁴", AddMemReg, Slot(1<<64-1, 4096, u+1<<30, 0), 1, unix.EINVAL},
		{"slot: user addresses pass 2⁶⁴", AddMemReg, Slot(0, 4096, 1<<64-1, 0), 1, unix.EINVAL},
		{"slot: over guest memory", AddMemReg, Slot(MemBase+4096, 4096, u+1<<30, 0), 1, unix.EEXIST},
		{"slot: over its user addresses", AddMemReg, Slot(0, 4096, u+4096, 0), 1, unix.EEXIST},
		{"remove: what is not there", RemMemReg, Slot(0, 4096, u+1<<30, 0), 0, unix.ENOENT},
		{"remove: a part", RemMemReg, Slot(MemBase, 4096, u, 0), 0, unix.ENOENT},
		{"remove: size 0", RemMemReg, Slot(MemBase, 0, u, 0), 0, unix.EINVAL},

		{"size of a queue that is not there", SetVringNum, Pair(echoQueues, 16), 0, unix.EINVAL},
		{"size of queue 2³²−1", SetVringNum, Pair(1<<32-1, 16), 0, unix.EINVAL},
		{"size 0", SetVringNum, Pair(1, 0), 0, unix.EINVAL},
		{"size 12", SetVringNum, Pair(1, 12), 0, unix.EINVAL},
		{"size 2048", SetVringNum, Pair(1, 2048), 0, unix.EINVAL},
		{"size 2¹⁶", SetVringNum, Pair(1, 1<<16), 0, unix.EINVAL},
		{"size, queue started", SetVringNum, Pair(0, 16), 0, unix.EBUSY},
		{"index, queue started", SetVringBase, Pair(0, 0), 0, unix.EBUSY},
		{"index beyond 16 bits", SetVringBase, Pair(1, 1<<16), 0, unix.EINVAL},
		{"address, queue started", SetVringAddr, addr(0, 0, u, u, u), 0, unix.EBUSY},
		{"address of a queue that is not there", SetVringAddr, addr(echoQueues, 0, u, u, u), 0, unix.EINVAL},
		{"address with logging", SetVringAddr, addr(1, 1, u, u, u), 0, unix.EINVAL},
		{"descriptor table not aligned", SetVringAddr, addr(1, 0, u+8, u, u), 0, unix.EINVAL},
		{"used ring not aligned", SetVringAddr, addr(1, 0, u, u+2, u), 0, unix.EINVAL},
		{"available ring not aligned", SetVringAddr, addr(1, 0, u, u, u+1), 0, unix.EINVAL},
		{"address, short", SetVringAddr, addr(1, 0, u, u, u)[:32], 0, unix.EINVAL},
		{"stop of a queue that is not there", GetVringBase, Pair(echoQueues, 0), 0, closes},
		{"kick without a descriptor", SetVringKick, U64(1), 0, unix.EINVAL},
		{"kick by polling", SetVringKick, U64(1 | 1<<8), 0, unix.EOPNOTSUPP},
		{"kick with two descriptors", SetVringKick, U64(1), 2, unix.EINVAL},
		{"kick that is a file", SetVringKick, U64(1), 1, unix.EINVAL},
		{"kick that is a pipe", SetVringKick, U64(1), -1, unix.EINVAL},
		{"kick of a queue that is not there", SetVringKick, U64(echoQueues), 1, unix.EINVAL},
		{"kick with reserved bits", SetVringKick, U64(1 | 1<<9), 1, unix.EINVAL},
		{"call that is a file", SetVringCall, U64(1), 1, unix.EINVAL},
		{"call with a descriptor and the bit for none", SetVringCall, U64(1 | 1<<8), 1, unix.EINVAL},
		{"error descriptor of a queue that is not there", SetVringErr, U64(200), 1, unix.EINVAL},
		{"enable a queue that is not there", SetVringEnable, Pair(echoQueues, 1), 0, unix.EINVAL},
		{"enable with 2", SetVringEnable, Pair(1, 2), 0, unix.EINVAL},
		{"GET_QUEUE_NUM with a body", GetQueueNum, U64(0), 0, closes},

		{"back-end channel without a descriptor", SetBackendReqFD, nil, 0, unix.EINVAL},
		{"back-end channel that is a file", SetBackendReqFD, nil, 1, unix.EINVAL},
		{"back-end channel that is a pipe", SetBackendReqFD, nil, -1, unix.EINVAL},
		{"status of 9 bits", SetStatus, U64(0x100), 0, unix.EINVAL},
		{"SET_CONFIG beyond the space", SetConfig, config(255, 2, 2), 0, unix.EINVAL},
		{"SET_CONFIG with too few bytes", SetConfig, config(0, 8, 4), 0, unix.EINVAL},
		{"SET_CONFIG, short", SetConfig, Pair(0, 0), 0, unix.EINVAL},
		{"SET_CONFIG whose sum overflows", SetConfig, config(1<<32-1, 2, 2), 0, unix.EINVAL},
		{"RESET_DEVICE with a body", ResetDevice, U64(0), 0, unix.EINVAL},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEcho(t)
			socket := Serve(t, vhostuser.Config{}, e)
			f := Dial(t, socket)
			f.Negotiate(Version1)
			q := f.Start(0, 16)
			var fds []int
			for range tt.fds {
				fds = append(fds, int(Memfd(t, 64<<10).Fd()))
			}
			if tt.fds < 0 {
				r, w, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				defer w.Close()
				fds = []int{int(r.Fd())}
			}
			if tt.want == closes {
				f.Raw(Message(tt.request, Version|NeedReply, tt.body), fds...)
				if b, ok := f.Receive(tt.request); ok {
					t.Fatalf("answer %x; the connection should close", b)
				}
			} else {
				if got := f.Try(tt.request, tt.body, fds...); got != tt.want {
					t.Fatalf("%v, want %v", got, tt.want)
				}
				if got := q.Request([]byte("still"), 16); string(got) != "still" {
					t.Errorf("the running queue echoes %q", got)
				}
				works(f)

				// Without a wish for an answer the same message closes the connection.
				f.Raw(Message(tt.request, Version, tt.body), fds...)
				if b, ok := f.Receive(tt.request); ok {
					t.Fatalf("answer %x without a wish for one", b)
				}
			}
			g := Dial(t, socket)
			g.Negotiate(Version1)
			works(g)
		})
	}
}

// TestBadFraming: bytes after which the stream cannot be followed.
func TestBadFraming(t *testing.T) {
	for _, tt := range []struct {
		name string
		raw  []byte
	}{
		{"version 0", Message(GetFeatures, 0, nil)},
		{"version 2", Message(GetFeatures, 2, nil)},
		{"an answer", Message(GetFeatures, Version|Reply, nil)},
		{"reserved flags", Message(GetFeatures, Version|1<<4, nil)},
		{"body of 513 bytes", Message(SetMemTable, Version, make([]byte, 513))},
		{"body of 2³²−1 bytes", cat(Message(SetFeatures, Version, nil)[:8], Pair(1<<32-1, 0))},
		{"noise", bytes.Repeat([]byte{0xff}, 64)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEcho(t)
			socket := Serve(t, vhostuser.Config{}, e)
			f := Dial(t, socket)
			f.Raw(tt.raw)
			if _, ok := f.Receive(0); ok {
				t.Fatal("an answer; the connection should close")
			}
			g := Dial(t, socket)
			g.Negotiate(Version1)
			works(g)
		})
	}
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

// TestNotNegotiated: a message needs its protocol feature.
func TestNotNegotiated(t *testing.T) {
	for _, request := range []uint32{GetQueueNum, SetBackendReqFD, GetConfig, SetConfig, ResetDevice, GetMaxMemSlots, AddMemReg, RemMemReg,
		SetStatus, GetStatus, GetShmemConfig} {
		f := Dial(t, Serve(t, vhostuser.Config{}, newEcho(t)))
		f.Raw(Message(SetProtocolFeatures, Version, U64(1<<3))) // REPLY_ACK
		f.Raw(Message(request, Version|NeedReply, nil))
		switch b, ok := f.Receive(request); request {
		case GetQueueNum, GetConfig, GetMaxMemSlots, GetStatus, GetShmemConfig:
			if ok {
				t.Errorf("request %d: answer %x; the connection should close", request, b)
			}
		default:
			if !ok || !bytes.Equal(b, U64(uint64(unix.EOPNOTSUPP))) {
				t.Errorf("request %d: answer %x, %v; want EOPNOTSUPP", request, b, ok)
			}
		}
	}
}

// TestBadConfig: GET_CONFIG has its own way to fail, an answer without bytes.
func TestBadConfig(t *testing.T) {
	f := Dial(t, Serve(t, vhostuser.Config{}, newEcho(t)))
	f.Negotiate(Version1)
	for name, body := range map[string][]byte{
		"short": Pair(0, 1), "beyond": cat(Pair(0, 257), make([]byte, 4+257)), "offset": cat(Pair(256, 1), make([]byte, 5)),
		"length": cat(Pair(0, 8), make([]byte, 4+7)),
	} {
		if b := f.Ask(GetConfig, body); len(b) != 0 {
			t.Errorf("%s: %x, want nothing", name, b)
		}
	}
	if got := string(f.Config(13)); got != "configuration" {
		t.Errorf("the configuration space is %q", got)
	}
}
