// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vfiouser

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// ioAble is a device with doorbells in BAR0: three that need no value or a certain one, two
// with shadows in one file.
func ioAble(t *testing.T) *able {
	a := newAble(t, 0)
	shadow := memfd(t, 4096)
	a.events = map[int][]IOEvent{
		0: {
			{Off: 0x100, Size: 4, Value: 7},
			{Off: 0x104, Size: 2, Value: 0x1234, Match: true},
			{Off: 0x104, Size: 2, Value: 0x5678, Match: true},
			{Off: 0x108, Value: 0xaabbccdd, PIO: true},
		},
		2: {
			{Off: 0x200, Size: 8, Shadow: shadow, ShadowOff: 64},
			{Off: 0x208, Size: 1, Shadow: shadow, ShadowOff: 3},
			{Off: 0x20c, Size: 4, Value: 9},
		},
	}
	return a
}

func closeIOFDs(all []IOEventFD) {
	for _, e := range all {
		e.FD.Close()
		if e.Shadow != nil {
			e.Shadow.Close()
		}
	}
}

// The client finds what the device described, and a signal is a write.
func TestIOEventfds(t *testing.T) {
	for _, strict := range []bool{false, true} {
		a := ioAble(t)
		c := attach(t, Config{Strict: strict}, a)
		for index, want := range a.events {
			all, err := c.RegionIOFDs(index)
			if err != nil {
				t.Fatal(err)
			}
			defer closeIOFDs(all)
			var got []IOEvent
			for _, e := range all {
				got = append(got, e.IOEvent)
			}
			if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(IOEvent{}, "Shadow")); diff != "" {
				t.Errorf("region %d (-want +got):\n%s", index, diff)
			}
		}
		read := func(index int, off uint64, n int) []byte {
			t.Helper()
			p := make([]byte, n)
			if err := c.ReadRegion(index, off, p); err != nil {
				t.Fatal(err)
			}
			return p
		}
		plain, err := c.RegionIOFDs(0)
		if err != nil {
			t.Fatal(err)
		}
		defer closeIOFDs(plain)
		shadowed, err := c.RegionIOFDs(2) // the same eventfds again, not new ones
		if err != nil {
			t.Fatal(err)
		}
		defer closeIOFDs(shadowed)
		write := func(e IOEventFD, v uint64) {
			t.Helper()
			if err := e.Write(v); err != nil {
				t.Fatal(err)
			}
		}
		// A read that is sent after the signal sees the write: no waiting here.
		for _, tt := range []struct {
			e     IOEventFD
			v     uint64
			index int
			off   uint64
			want  []byte
		}{
			{plain[0], 0, 0, 0x100, binary.NativeEndian.AppendUint32(nil, 7)},
			{plain[1], 0, 0, 0x104, binary.NativeEndian.AppendUint16(nil, 0x1234)},
			{plain[2], 0, 0, 0x104, binary.NativeEndian.AppendUint16(nil, 0x5678)},
			{plain[1], 0, 0, 0x104, binary.NativeEndian.AppendUint16(nil, 0x1234)},
			{plain[3], 0, 0, 0x108, binary.NativeEndian.AppendUint32(nil, 0xaabbccdd)},
			{shadowed[0], 0x1122334455667788, 2, 0x200, binary.NativeEndian.AppendUint64(nil, 0x1122334455667788)},
			{shadowed[0], 1, 2, 0x200, binary.NativeEndian.AppendUint64(nil, 1)},
			{shadowed[1], 0xee, 2, 0x208, []byte{0xee}},
			{shadowed[2], 0, 2, 0x20c, binary.NativeEndian.AppendUint32(nil, 9)},
		} {
			write(tt.e, tt.v)
			if got := read(tt.index, tt.off, len(tt.want)); !bytes.Equal(got, tt.want) {
				t.Errorf("strict %v, region %d at %#x: % x, want % x", strict, tt.index, tt.off, got, tt.want)
			}
		}
		// And without a message after it.
		if err := c.WriteRegion(0, 0x100, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		write(plain[0], 0)
		eventually(t, "the write", func() bool {
			a.fake.mu.Lock()
			defer a.fake.mu.Unlock()
			return order.Uint32(a.mem[0][0x100:]) == 7
		})
	}
}

// The reply, byte by byte: entries of 40 bytes as the specification has them, of 48 where
// there is a shadow; the descriptors they name; what fits and what does not.
func TestIOFDsLayout(t *testing.T) {
	entry := func(off, size uint64, fd, kind, flags, pad uint32, rest ...uint64) []byte {
		return cat(u64(off, size), u32(fd, kind, flags, pad), u64(rest...))
	}
	for _, tt := range []struct {
		name   string
		offer  string
		strict bool
		argsz  uint32
		index  uint32
		want   []byte
		fds    int
	}{
		{"plain", `"max_msg_fds":8`, false, 16 + 4*40, 0, cat(
			u32(16+4*40, 0, 0, 4),
			entry(0x100, 4, 0, 0, 0, 0, 7),
			entry(0x104, 2, 1, 0, 1, 0, 0x1234),
			entry(0x104, 2, 2, 0, 1, 0, 0x5678),
			entry(0x108, 0, 3, 0, 2, 0, 0xaabbccdd),
		), 4},
		{"a byte too small", `"max_msg_fds":8`, false, 16 + 4*40 - 1, 0, u32(16+4*40, 0, 0, 4), 0},
		{"the least argsz", `"max_msg_fds":8`, false, 16, 0, u32(16+4*40, 0, 0, 4), 0},
		{"shadows", `"max_msg_fds":8`, false, 4096, 2, cat(
			u32(16+3*48, 0, 2, 3),
			entry(0x200, 8, 0, 2, 0, 1, 64, 0),
			entry(0x208, 1, 2, 2, 0, 1, 3, 0),
			entry(0x20c, 4, 3, 0, 0, 0, 9, 9),
		), 4},
		{"as libvfio-user", `"max_msg_fds":2`, true, 4096, 0, cat(
			u32(16+2*48, 0, 0, 2),
			entry(0x100, 4, 0, 0, 0, 0, 7, 7),
			entry(0x104, 2, 1, 0, 1, 0, 0x1234, 0x1234),
		), 2},
		{"as many as the client takes", `"max_msg_fds":2`, false, 4096, 0, cat(
			u32(16+2*40, 0, 0, 2),
			entry(0x100, 4, 0, 0, 0, 0, 7),
			entry(0x104, 2, 1, 0, 1, 0, 0x1234),
		), 2},
		{"a client that says nothing takes one", ``, false, 4096, 0, cat(u32(16+40, 0, 0, 1), entry(0x100, 4, 0, 0, 0, 0, 7)), 1},
		{"a client that takes none", `"max_msg_fds":0`, false, 4096, 0, u32(16, 0, 0, 0), 0},
		{"one is not enough for a shadow", ``, false, 4096, 2, u32(16, 0, 2, 0), 0},
		{"a region without", `"max_msg_fds":8`, false, 4096, 1, u32(16, 0, 1, 0), 0},
	} {
		r := rawClient(t, Config{Strict: tt.strict}, ioAble(t))
		r.negotiate(`{"capabilities":{` + tt.offer + `}}`)
		r.send(message(cmdGetRegionIOFDs, 2, 0, u32(tt.argsz, 0, tt.index, 0)))
		h, body, nfds, err := r.recv()
		if err != nil || h.flags != flagReply || nfds != tt.fds {
			t.Errorf("%s: %+v with %d descriptors, want %d; %v", tt.name, h, nfds, tt.fds, err)
		}
		if diff := cmp.Diff(tt.want, body); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// A storm of signals and messages: in the end all is written, and a client that goes
// leaves no descriptor and no goroutine of the watch.
func TestIOEventfdStorm(t *testing.T) {
	a := ioAble(t)
	before := openFiles(t, "[eventpoll]")
	s := NewServer(Config{}, a)
	c, done := dialServer(t, s)
	all, err := c.RegionIOFDs(0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIOFDs(all)
	if n := openFiles(t, "[eventpoll]"); n != before+1 {
		t.Errorf("%d epoll descriptors, want one more than %d", n, before)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for range 20000 {
			_ = all[0].Write(0) // without a shadow it cannot fail
		}
	}()
	p := make([]byte, 4)
	for range 500 {
		if err := c.WriteRegion(0, 0x40, p); err != nil {
			t.Fatal(err)
		}
	}
	<-stopped
	if err := c.ReadRegion(0, 0x100, p); err != nil || order.Uint32(p) != 7 {
		t.Errorf("% x, %v", p, err)
	}
	c.Close()
	<-done
	if n := openFiles(t, "[eventpoll]"); n != before {
		t.Errorf("%d epoll descriptors left, want %d", n, before)
	}
	_ = all[0].Write(0) // to nobody
}

// More signals than one look takes: all of them come before the read.
func TestManySignals(t *testing.T) {
	a := newAble(t, 0)
	events := make([]IOEvent, MaxIOEvents)
	for i := range events {
		events[i] = IOEvent{Off: uint64(4 * i), Size: 4, Value: uint64(i + 1)}
	}
	a.events = map[int][]IOEvent{0: events}
	c := attach(t, Config{}, a)
	all, err := c.RegionIOFDs(0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIOFDs(all)
	if len(all) != MaxIOEvents {
		t.Fatalf("%d eventfds, want %d", len(all), MaxIOEvents)
	}
	p := make([]byte, 4*MaxIOEvents)
	for round := range 20 {
		if err := c.WriteRegion(0, 0, make([]byte, len(p))); err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			_ = e.Write(0) // without a shadow it cannot fail
		}
		if err := c.ReadRegion(0, 0, p); err != nil {
			t.Fatal(err)
		}
		for i := range all {
			if got := order.Uint32(p[4*i:]); got != uint32(i+1) {
				t.Fatalf("round %d: register %d is %d after its signal, want %d", round, i, got, i+1)
			}
		}
	}
}

// A shadow that its owner made too small: the write is not done, and the server lives.
func TestShadowTruncated(t *testing.T) {
	a := ioAble(t)
	c := attach(t, Config{}, a)
	all, err := c.RegionIOFDs(2)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIOFDs(all)
	if err := all[0].Shadow.Truncate(10); err != nil { // the client has it writable
		t.Fatal(err)
	}
	all[0].FD.Signal()
	p := make([]byte, 8)
	if err := c.ReadRegion(2, 0x200, p); err != nil || order.Uint64(p) != 0 {
		t.Errorf("% x, %v", p, err)
	}
	if err := all[1].Write(5); err != nil {
		t.Fatal(err)
	}
	if err := c.ReadRegion(2, 0x208, p[:1]); err != nil || p[0] != 5 {
		t.Errorf("% x, %v", p[:1], err)
	}
}

// What a server may answer that a client does not believe.
func TestParseIOFDs(t *testing.T) {
	entry := cat(u64(0x100, 4), u32(0, 0, 0, 0), u64(7))
	long := cat(u64(0x100, 4), u32(0, 2, 0, 1), u64(64, 0))
	for _, tt := range []struct {
		name string
		body []byte
		nfds int
		ok   bool
	}{
		{"one", cat(u32(56, 0, 0, 1), entry), 1, true},
		{"none", u32(16, 0, 0, 0), 0, true},
		{"one of 64 bytes", cat(u32(80, 0, 0, 1), entry, make([]byte, 24)), 1, true},
		{"a shadow", cat(u32(64, 0, 0, 1), long), 2, true},
		{"short", u32(16, 0, 0), 1, false},
		{"argsz 15", cat(u32(15, 0, 0, 1), entry), 1, false},
		{"entries of 39 bytes", cat(u32(55, 0, 0, 1), entry), 1, false},
		{"more than there is", cat(u32(96, 0, 0, 2), entry), 1, false},
		{"2^32 of them", cat(u32(^uint32(0), 0, 0, ^uint32(0)), entry), 1, false},
		{"a descriptor that did not come", cat(u32(56, 0, 0, 1), entry), 0, false},
		{"a shadow that did not come", cat(u32(64, 0, 0, 1), long), 1, false},
		{"a shadow in 40 bytes", cat(u32(56, 0, 0, 1), u64(0, 4), u32(0, 2, 0, 0), u64(0)), 1, false},
		{"an ioregionfd", cat(u32(56, 0, 0, 1), u64(0, 4), u32(0, 1, 0, 0), u64(0)), 1, false},
		{"9 bytes", cat(u32(56, 0, 0, 1), u64(0, 9), u32(0, 0, 0, 0), u64(0)), 1, false},
	} {
		if _, err := parseIOFDs(tt.body, tt.nfds); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// A Backend that describes what it does not have is a mistake of ours.
func TestIOEventBugs(t *testing.T) {
	for _, ev := range []IOEvent{
		{Off: 0x1000, Size: 1}, {Off: 0xffd, Size: 4}, {Off: ^uint64(0), Size: 8}, {Size: 3}, {Size: -1}, {Shadow: memfd(t, 64)},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v was accepted", ev)
				}
			}()
			checkIOEvents([]IOEvent{ev}, 0x1000)
		}()
	}
}
