// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vfiouser

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
	"npuemu/internal/uds"
	"npuemu/internal/warnings"
)

const rw = iova.Read | iova.Write

func TestInfo(t *testing.T) {
	f := newFake(t)
	c := attach(t, Config{}, f)
	flags, regions, irqs, err := c.Info()
	if err != nil || flags != deviceReset|devicePCI || regions != NumRegions || irqs != NumIRQs {
		t.Errorf("Info = %#x, %d, %d, %v", flags, regions, irqs, err)
	}
	for i, want := range f.Regions() {
		got, err := c.RegionInfo(i)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Region{}, "File")); diff != "" {
			t.Errorf("region %d (-want +got):\n%s", i, diff)
		}
		if (got.File != nil) != (want.File != nil) {
			t.Errorf("region %d: file %v, want %v", i, got.File, want.File)
		}
		if got.File != nil {
			a, errA := got.File.Stat()
			b, errB := want.File.Stat()
			if errA != nil || errB != nil || !os.SameFile(a, b) {
				t.Errorf("region %d comes with another file", i)
			}
			got.File.Close()
		}
	}
	for i, want := range f.IRQs() {
		got, err := c.IRQInfo(i)
		if err != nil || got != want {
			t.Errorf("interrupt type %d = %+v, %v, want %+v", i, got, err, want)
		}
	}
}

func TestRegionAccess(t *testing.T) {
	f := newFake(t)
	c := attach(t, Config{}, f)
	want := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	got := make([]byte, 8)
	check := func(what string, index int, off uint64, want []byte) {
		t.Helper()
		if err := c.ReadRegion(index, off, got[:len(want)]); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if diff := cmp.Diff(want, got[:len(want)]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(c.WriteRegion(0, 0x100, want))
	check("a write", 0, 0x100, want)
	do(c.PostRegion(0, 0x108, want))
	check("a posted write", 0, 0x108, want)
	do(c.WriteMulti([]MultiWrite{{0, 0x200, want[:4]}, {0, 0x204, want[4:]}, {0, 0x200, []byte{9}}}))
	check("several writes in order", 0, 0x200, []byte{9, 2, 3, 4, 5, 6, 7, 8})
	do(c.WriteRegion(1, 0, want))
	check("a write to what is only read", 1, 0, make([]byte, 8))
	check("a read of what is only written", 3, 0, bytes.Repeat([]byte{0xff}, 8))
	do(c.WriteRegion(4, 0, want))
	check("a read that the device refuses", 4, 0, bytes.Repeat([]byte{0xff}, 8))

	// 1 MiB at once: libvfio-user fails from 256 KiB on.
	large := make([]byte, maxData)
	for i := range large {
		large[i] = byte(i >> 8)
	}
	do(c.WriteRegion(5, 0x1000, large))
	back := make([]byte, maxData)
	do(c.ReadRegion(5, 0x1000, back))
	if !bytes.Equal(large, back) {
		t.Error("1 MiB reads otherwise than it was written")
	}
}

func newEventfd(t testing.TB) *eventfd.FD {
	t.Helper()
	fd, err := eventfd.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fd.Close)
	return fd
}

func TestVectors(t *testing.T) {
	f := newFake(t)
	c := attach(t, Config{}, f)
	var fds []*eventfd.FD
	for range 16 {
		fds = append(fds, newEventfd(t))
	}
	if err := c.SetVectors(IRQMSIX, 3, fds...); err != nil {
		t.Fatal(err)
	}
	if f.raise(IRQMSIX, 2) || !f.raise(IRQMSIX, 7) || !f.raise(IRQMSIX, 18) || f.raise(IRQMSIX, 19) {
		t.Error("other vectors than 3 to 18 are attached")
	}
	if fds[4].Wait(time.Second) != 1 || fds[15].Wait(time.Second) != 1 || fds[0].Wait(0) != 0 {
		t.Error("the wrong eventfd fired")
	}
	// Replaced: only the new one fires.
	other := newEventfd(t)
	if err := c.SetVectors(IRQMSIX, 7, other); err != nil {
		t.Fatal(err)
	}
	f.raise(IRQMSIX, 7)
	if other.Wait(time.Second) != 1 || fds[4].Wait(0) != 0 {
		t.Error("the replaced eventfd fired")
	}
	if err := c.MaskVector(IRQMSIX, 7, true); err != nil {
		t.Fatal(err)
	}
	if err := c.MaskVector(IRQINTx, 0, false); err != nil {
		t.Fatal(err)
	}
	if err := c.ClearVectors(IRQMSIX); err != nil {
		t.Fatal(err)
	}
	if n := f.attached(); n != 0 {
		t.Errorf("%d vectors attached after ClearVectors", n)
	}
	if diff := cmp.Diff([]string{"mask 2/7 true", "mask 0/0 false"}, f.logged()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestReset(t *testing.T) {
	f := newFake(t)
	c := attach(t, Config{}, f)
	if err := c.MapDMA(0, 4096, rw, memfd(t, 4096), 0); err != nil {
		t.Fatal(err)
	}
	if err := c.SetVectors(IRQINTx, 0, newEventfd(t)); err != nil {
		t.Fatal(err)
	}
	if err := c.Reset(); err != nil {
		t.Fatal(err)
	}
	if f.table.Len() != 1 || f.attached() != 1 {
		t.Error("a reset took mappings or vectors away")
	}
}

func TestDMAByDescriptor(t *testing.T) {
	f := newFake(t)
	c := attach(t, Config{}, f)
	file := memfd(t, 64<<10)
	if _, err := file.WriteAt([]byte("hello"), 0x3000); err != nil {
		t.Fatal(err)
	}
	if err := c.MapDMA(0x10000, 0x2000, rw, file, 0x3000); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 5)
	if err := f.table.Read(0x10000, p); err != nil || string(p) != "hello" {
		t.Errorf("device reads %q, %v", p, err)
	}
	if err := f.table.Write(0x11ffb, []byte("world")); err != nil {
		t.Fatal(err)
	}
	if _, err := file.ReadAt(p, 0x4ffb); err != nil || string(p) != "world" {
		t.Errorf("client reads %q, %v", p, err)
	}
	if err := c.UnmapDMA(0, 1<<30); err != nil {
		t.Fatal(err)
	}
	if f.table.Len() != 0 || mappings(t) != 0 {
		t.Errorf("after unmap: %d ranges, %d mappings", f.table.Len(), mappings(t))
	}
}

// One mapping per file, however many ranges and descriptors; a second one when
// the file has grown; read-only descriptors are mapped read-only.
func TestOneMappingPerFile(t *testing.T) {
	f := newFake(t)
	c := attach(t, Config{}, f)
	const pages = 2000
	file := memfd(t, pages<<12)
	for i := range pages {
		// Backwards in the file, so that adjacent ranges are not adjacent there.
		if err := c.MapDMA(iova.Addr(i)<<12, 4096, rw, file, uint64(pages-1-i)<<12); err != nil {
			t.Fatal(err)
		}
	}
	if n := mappings(t); n != 1 {
		t.Errorf("%d mappings for %d pages of a file, want 1", n, pages)
	}
	if err := f.table.Write(0xffe, []byte("across")); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 2)
	if _, err := file.ReadAt(p, pages<<12-2); err != nil || string(p) != "ac" {
		t.Errorf("last page ends with %q, %v", p, err)
	}

	if err := file.Truncate((pages + 1) << 12); err != nil {
		t.Fatal(err)
	}
	if err := c.MapDMA(pages<<12, 4096, rw, file, pages<<12); err != nil {
		t.Fatal(err)
	}
	if err := c.MapDMA((pages+1)<<12, 4096, rw, file, 0); err != nil {
		t.Fatal(err)
	}
	if n := mappings(t); n != 2 {
		t.Errorf("%d mappings after the file grew, want 2", n)
	}
	if err := c.UnmapDMA(0, pages<<12); err != nil {
		t.Fatal(err)
	}
	if n := mappings(t); n != 1 {
		t.Errorf("%d mappings when the ranges of the old size are gone, want 1", n)
	}
	ro, err := os.Open("/proc/self/fd/" + strconv.Itoa(int(file.Fd())))
	if err != nil {
		t.Fatal(err)
	}
	defer ro.Close()
	if err := c.MapDMA(1<<40, 4096, iova.Read, ro, 0); err != nil {
		t.Fatal(err)
	}
	if err := c.MapDMA(1<<41, 4096, rw, ro, 0); !errors.Is(err, unix.EACCES) {
		t.Errorf("writable range of a read-only descriptor: %v, want EACCES", err)
	}
	if err := c.UnmapAllDMA(); err != nil {
		t.Fatal(err)
	}
	if n := mappings(t); n != 0 {
		t.Errorf("%d mappings left", n)
	}
}

func TestFileMappingsAreBounded(t *testing.T) {
	f := newFake(t)
	c := attach(t, Config{}, f)
	for i := range maxFileMappings + 1 {
		file := memfd(t, 4096)
		err := c.MapDMA(iova.Addr(i)<<12, 4096, rw, file, 0)
		file.Close()
		if i < maxFileMappings && err != nil || i == maxFileMappings && !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("file %d: %v", i, err)
		}
	}
	huge := memfd(t, maxDMABytes)
	if err := c.UnmapAllDMA(); err != nil {
		t.Fatal(err)
	}
	if err := c.MapDMA(0, 4096, rw, huge, 0); err != nil {
		t.Fatal(err)
	}
	if err := c.MapDMA(1<<45, 4096, rw, memfd(t, 4096), 0); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("more than %#x bytes of files: %v, want ENOSPC", uint64(maxDMABytes), err)
	}
}

// overfull is a fake whose table is full.
type overfull struct{ *fake }

func (overfull) MapDMA(iova.Addr, uint64, iova.Prot, iova.Memory) error { return iova.ErrLimit }

func TestRangesAreBounded(t *testing.T) {
	c := attach(t, Config{}, overfull{newFake(t)})
	if err := c.MapDMA(1<<32, 4096, rw, memfd(t, 4096), 0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("one range too many: %v, want EINVAL", err)
	}
	if n := mappings(t); n != 0 {
		t.Errorf("the refused range's file is still mapped %d times", n)
	}
}

// A client that names the protocol's default may map more, as QEMU does behind an Intel IOMMU.
func TestMoreRangesThanTheDefault(t *testing.T) {
	a := newAble(t, 0)
	r := rawClient(t, Config{}, a)
	r.negotiate(`{"capabilities":{"max_dma_maps":65535}}`)
	mem := iova.NewBytes(make([]byte, 1))
	for i := range iova.Addr(65535) {
		if err := a.table.Map(i, 1, rw, mem); err != nil {
			t.Fatal(err)
		}
	}
	r.send(message(cmdDMAMap, 2, 0, dmaMapRequest(1<<32, 4096, rw, 0)), int(memfd(t, 4096).Fd()))
	if h, _ := r.mustRecv(); h.flags != flagReply {
		t.Errorf("range 65536: %+v", h)
	}
}

func TestDMAByMessage(t *testing.T) {
	f := newFake(t)
	c := attach(t, Config{}, f)
	guest := make([]byte, 3<<20)
	for i := range guest {
		guest[i] = byte(i * 31 >> 4)
	}
	if err := c.MapMemory(0x10000, 3<<20, rw, iova.NewBytes(bytes.Clone(guest))); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 3<<20-6)
	if err := f.table.Read(0x10003, got); err != nil { // three messages
		t.Fatal(err)
	}
	if !bytes.Equal(got, guest[3:len(guest)-3]) {
		t.Error("the device reads other bytes than the client has")
	}
	// Engines in parallel, and register accesses of the client between them.
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			p := bytes.Repeat([]byte{byte(g)}, 5000)
			q := make([]byte, len(p))
			for i := range 50 {
				at := iova.Addr(0x10000 + g<<16 + i)
				if err := errors.Join(f.table.Write(at, p), f.table.Read(at, q)); err != nil {
					t.Error(err)
				}
				if !bytes.Equal(p, q) {
					t.Error("written bytes read differently")
				}
			}
		}()
	}
	for range 200 {
		if err := c.ReadRegion(0, 0, got[:4]); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()

	// Fault reasons reach the engine.
	var fault *iova.Fault
	c.memory.UnmapAll()
	if err := f.table.Read(0x10000, got[:1]); !errors.As(err, &fault) || fault.Reason != iova.Failed || !errors.Is(err, unix.ENODEV) {
		t.Errorf("read of what the client refuses: %v", err)
	}
}

// messenger is a fake that is a Messenger.
type messenger struct {
	*fake
	bus chan iova.Memory
}

func (m messenger) UseMessages(mem iova.Memory) { m.bus <- mem }

func TestMessenger(t *testing.T) {
	m := messenger{newFake(t), make(chan iova.Memory, 1)}
	c := attach(t, Config{}, m)
	if err := c.MapMemory(0x2000, 12, rw, iova.NewBytes([]byte("guest memory"))); err != nil {
		t.Fatal(err)
	}
	bus := <-m.bus
	got := make([]byte, 6)
	if err := bus.ReadAt(got, 0x2006); err != nil || string(got) != "memory" {
		t.Errorf("ReadAt = %q, %v", got, err)
	}
	if err := errors.Join(bus.WriteAt([]byte("host's"), 0x2000), bus.ReadAt(got, 0x2000)); err != nil || string(got) != "host's" {
		t.Errorf("after WriteAt: %q, %v", got, err)
	}
	if err := bus.ReadAt(got, 0x8000); !errors.Is(err, unix.ENODEV) {
		t.Errorf("ReadAt where nothing is mapped: %v, want the client's ENODEV", err)
	}
	c.Close()
	eventually(t, "messages fail", func() bool { return errors.Is(bus.ReadAt(got, 0x2000), errDetached) })
}

// raw is a client without manners: it sends what the test says.
type raw struct {
	t    testing.TB
	sock *uds.Conn
}

func rawClient(t testing.TB, cfg Config, b Backend) *raw {
	t.Helper()
	return rawClientOf(t, NewServer(cfg, b))
}

func rawClientOf(t testing.TB, s *Server) *raw {
	t.Helper()
	sock, err := uds.New(serveOn(t, s), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sock.Close)
	return &raw{t, sock}
}

// message builds a command of the right size.
func message(cmd Command, id uint16, flags uint32, body ...[]byte) []byte {
	all := bytes.Join(body, nil)
	msg := make([]byte, headerSize, headerSize+len(all))
	header{id: id, command: cmd, size: uint32(headerSize + len(all)), flags: flags}.put(msg)
	return append(msg, all...)
}

func (r *raw) send(msg []byte, fds ...int) {
	r.t.Helper()
	if err := r.sock.Send(msg, nil, fds...); err != nil {
		r.t.Fatal(err)
	}
}

// recv returns the next message of the server, and the number of descriptors
// that came with it.
func (r *raw) recv() (h header, body []byte, nfds int, err error) {
	watchdog := time.AfterFunc(5*time.Second, r.sock.Shutdown)
	defer watchdog.Stop()
	rights := uds.Rights{Limit: 64}
	defer rights.Close()
	head := make([]byte, headerSize)
	if err := r.sock.Recv(head, &rights); err != nil {
		return h, nil, 0, err
	}
	h = decodeHeader(head)
	body = make([]byte, h.size-headerSize)
	err = r.sock.Recv(body, &rights)
	return h, body, rights.Len(), err
}

// recvFDs is recv that keeps the descriptors, which are the caller's.
func (r *raw) recvFDs() (h header, body []byte, fds []int) {
	r.t.Helper()
	rights := uds.Rights{Limit: 64}
	defer rights.Close()
	head := make([]byte, headerSize)
	err := r.sock.Recv(head, &rights)
	if err == nil {
		h = decodeHeader(head)
		body = make([]byte, h.size-headerSize)
		err = r.sock.Recv(body, &rights)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range rights.Len() {
		fds = append(fds, rights.Take(i))
	}
	return h, body, fds
}

// socketFrom and socketOf make a socket that the end of the test closes.
func socketFrom(t testing.TB, nc *net.UnixConn) *uds.Conn {
	t.Helper()
	sock, err := uds.New(nc, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sock.Close)
	return sock
}

func socketOf(t testing.TB, fd int) *uds.Conn {
	t.Helper()
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	nc, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return socketFrom(t, nc.(*net.UnixConn))
}

// newBytes returns memory of n bytes.
func newBytes(n int) *iova.Bytes { return iova.NewBytes(make([]byte, n)) }

func (r *raw) mustRecv() (header, []byte) {
	r.t.Helper()
	h, body, _, err := r.recv()
	if err != nil {
		r.t.Fatal(err)
	}
	return h, body
}

func (r *raw) negotiate(caps string) (reply []byte) {
	r.t.Helper()
	r.send(message(cmdVersion, 1, 0, []byte{0, 0, 0, 0}, []byte(caps), []byte{0}))
	h, body := r.mustRecv()
	if h.flags != flagReply {
		r.t.Fatalf("VERSION refused: %+v", h)
	}
	return body
}

// The messages to a client are no larger than it takes, and what it answers is
// checked before it is believed.
func TestDMAReplies(t *testing.T) {
	f := newFake(t)
	r := rawClient(t, Config{DMATimeout: 300 * time.Millisecond}, f)
	r.negotiate(`{"capabilities":{"max_data_xfer_size":64}}`)
	r.send(message(cmdDMAMap, 2, 0, dmaMapRequest(0x1000, 0x1000, rw, 0)))
	r.mustRecv()
	p := make([]byte, 100)
	result := make(chan error, 1)
	read := func() { go func() { result <- f.table.Read(0x1000, p) }() }
	addrCount := func(addr, count uint64) []byte {
		return order.AppendUint64(order.AppendUint64(nil, addr), count)
	}
	reply := func(h header, flags, errno uint32, body ...[]byte) {
		msg := message(h.command, h.id, flagReply|flags, body...)
		order.PutUint32(msg[12:], errno)
		r.send(msg)
	}

	read()
	h, body := r.mustRecv()
	if want := addrCount(0x1000, 64); h.command != cmdDMARead || h.flags != 0 || !bytes.Equal(body, want) {
		t.Fatalf("first message %+v %x, want 64 bytes at 0x1000", h, body)
	}
	reply(h, 0, 0, body, bytes.Repeat([]byte{1}, 64))
	h, body = r.mustRecv()
	if want := addrCount(0x1040, 36); !bytes.Equal(body, want) {
		t.Fatalf("second message %x, want 36 bytes at 0x1040", body)
	}
	reply(h, 0, 0, body, bytes.Repeat([]byte{2}, 36))
	if err := <-result; err != nil || p[63] != 1 || p[64] != 2 || p[99] != 2 {
		t.Fatalf("read: %v, %x", err, p)
	}

	for _, tt := range []struct {
		name  string
		reply func(h header, body []byte)
		want  string
	}{
		{"error with errno", func(h header, _ []byte) { reply(h, flagError, uint32(unix.EPERM)) }, "operation not permitted"},
		{"error without errno", func(h header, _ []byte) { reply(h, flagError, 0) }, "refused"},
		{"too short", func(h header, b []byte) { reply(h, 0, 0, b, make([]byte, 63)) }, "79 bytes, want 80"},
		{"too long", func(h header, b []byte) { reply(h, 0, 0, b, make([]byte, 65)) }, "81 bytes, want 80"},
		{"empty", func(h header, _ []byte) { reply(h, 0, 0) }, "0 bytes, want 80"},
		{"other address", func(h header, _ []byte) { reply(h, 0, 0, addrCount(0, 64), make([]byte, 64)) }, "names 64 bytes at 0x0"},
		{"other count", func(h header, _ []byte) { reply(h, 0, 0, addrCount(0x1000, 63), make([]byte, 64)) }, "names 63 bytes"},
		{"32-bit count of old QEMU", func(h header, _ []byte) { reply(h, 0, 0, addrCount(0x1000, 64)[:12], make([]byte, 64)) }, "76 bytes"},
		{"none", func(header, []byte) {}, "no reply"},
	} {
		read()
		h, body := r.mustRecv()
		tt.reply(h, body)
		var fault *iova.Fault
		if err := <-result; !errors.As(err, &fault) || fault.Reason != iova.Failed || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if tt.name == "none" {
			// A late reply is dropped without a word; the next answer is to the
			// next command. One that nobody waits for is refused.
			reply(h, 0, 0, body, make([]byte, 64))
			r.send(message(cmdReset, 77, 0))
			if h, _ := r.mustRecv(); h.id != 77 {
				t.Errorf("answer to the late reply: %+v", h)
			}
			reply(h, 0, 0, body, make([]byte, 64))
			if h, _ := r.mustRecv(); h.flags != flagReply|flagError || h.errno != uint32(unix.EINVAL) {
				t.Errorf("answer to a reply that nobody waits for: %+v", h)
			}
		}
	}
}

// A range may be unmapped while a message to it is under way. The reader of the
// connection does the unmapping, so nobody would hand out the reply.
func TestUnmapDuringMessage(t *testing.T) {
	f := newFake(t)
	r := rawClient(t, Config{DMATimeout: time.Minute}, f)
	r.negotiate("")
	for _, all := range []bool{false, true} {
		r.send(message(cmdDMAMap, 2, 0, dmaMapRequest(0x1000, 0x1000, rw, 0)))
		r.mustRecv()
		result := make(chan error, 1)
		go func() { result <- f.table.Write(0x1000, []byte("x")) }()
		pending, body := r.mustRecv()
		unmap := order.AppendUint64(order.AppendUint64(order.AppendUint32(order.AppendUint32(nil, 24), 0), 0x1000), 0x1000)
		if all {
			unmap = order.AppendUint64(order.AppendUint64(order.AppendUint32(order.AppendUint32(nil, 24), unmapAll), 0), 0)
		}
		r.send(message(cmdDMAUnmap, 3, 0, unmap))
		if h, _ := r.mustRecv(); h.id != 3 || h.flags != flagReply {
			t.Fatalf("unmap: %+v", h)
		}
		if err := <-result; !errors.Is(err, errRevoked) {
			t.Errorf("access under way: %v, want %v", err, errRevoked)
		}
		r.send(message(cmdDMAWrite, pending.id, flagReply, body[:16])) // late, dropped
	}
	if n := f.table.Len(); n != 0 {
		t.Errorf("%d ranges left", n)
	}
}

// A client that goes away fails the accesses that wait for it.
func TestHangUpDuringMessage(t *testing.T) {
	f := newFake(t)
	r := rawClient(t, Config{DMATimeout: time.Minute}, f)
	r.negotiate("")
	r.send(message(cmdDMAMap, 2, 0, dmaMapRequest(0x1000, 0x1000, rw, 0)))
	r.mustRecv()
	result := make(chan error, 1)
	go func() { result <- f.table.Read(0x1000, make([]byte, 1)) }()
	r.mustRecv()
	r.sock.Close()
	if err := <-result; !errors.Is(err, errDetached) {
		t.Errorf("access under way: %v, want %v", err, errDetached)
	}
	eventually(t, "ranges dropped", func() bool { return f.table.Len() == 0 })
}

// A client may truncate its memory while the device copies: a DMA error, not a
// crash. The device keeps serving.
func TestTruncateWhileCopying(t *testing.T) {
	f := newFake(t)
	c := attach(t, Config{}, f)
	const size = 4 << 20
	file := memfd(t, size)
	if err := c.MapDMA(0, size, rw, file, 0); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var failed [2]atomic.Int32
	var wg sync.WaitGroup
	for g := range 2 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			p := make([]byte, size)
			for !stop.Load() {
				var err error
				if g == 0 {
					err = f.table.Read(0, p)
				} else {
					err = f.table.Write(0, p)
				}
				var fault *iova.Fault
				if err == nil {
					continue
				}
				failed[g].Add(1)
				if !errors.As(err, &fault) || fault.Reason != iova.Failed || !errors.Is(err, unix.EFAULT) {
					t.Errorf("copy of truncated memory: %v", err)
					return
				}
			}
		}()
	}
	defer wg.Wait()
	defer stop.Store(true)
	eventually(t, "faults in both directions", func() bool {
		err := file.Truncate(4096)
		time.Sleep(time.Millisecond) // copies run into the hole
		if err := errors.Join(err, file.Truncate(size)); err != nil {
			t.Fatal(err)
		}
		return failed[0].Load() > 3 && failed[1].Load() > 3
	})
	stop.Store(true)
	wg.Wait()
	if err := f.table.Write(0, []byte("still there")); err != nil {
		t.Error(err)
	}
	if err := c.ReadRegion(0, 0, make([]byte, 4)); err != nil {
		t.Error(err)
	}
}

// Attach, map, take vectors, and go without a goodbye: nothing stays behind, and
// the device's state does.
func TestCyclesLeakNothing(t *testing.T) {
	f := newFake(t)
	file := memfd(t, 1<<20)
	path := filepath.Join(t.TempDir(), "s")
	ln, err := uds.Listen(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- NewServer(Config{}, f).Serve(ctx, ln) }()
	fds, sockets := descriptors(t), openFiles(t, "socket:")
	maps, routines := mappings(t), runtime.NumGoroutine()
	const cycles = 200
	for i := range cycles {
		c, err := Dial(path)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := c.WriteRegion(0, 0, []byte("kept")); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(
			c.MapDMA(0, 1<<20, rw, file, 0),
			c.MapMemory(1<<20, 4096, rw, iova.NewBytes(make([]byte, 4096))),
			c.SetVectors(IRQMSIX, 0, newEventfd(t), newEventfd(t)),
			c.SetVectors(IRQINTx, 0, newEventfd(t)),
		); err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 4)
		if err := c.ReadRegion(0, 0, p); err != nil || string(p) != "kept" {
			t.Fatalf("device state: %q, %v", p, err)
		}
		if i%2 == 0 {
			// In the middle of a message.
			if err := c.sock.Send(message(cmdReset, 0, 0)[:7], nil); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
	}
	const own = 3 * cycles // eventfds that newEventfd keeps until the test ends
	eventually(t, "resources returned", func() bool {
		return descriptors(t)-own <= fds && openFiles(t, "socket:") <= sockets && mappings(t) <= maps && runtime.NumGoroutine() <= routines
	})
	if f.table.Len() != 0 || f.attached() != 0 {
		t.Errorf("%d ranges and %d vectors left", f.table.Len(), f.attached())
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestSecondClientIsTurnedAway(t *testing.T) {
	f := newFake(t)
	path := filepath.Join(t.TempDir(), "s")
	ln, err := uds.Listen(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- NewServer(Config{}, f).Serve(ctx, ln) }()
	first, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(path); err == nil {
		t.Error("two clients at once")
	}
	if _, err := uds.Listen(path, nil); err == nil || !strings.Contains(err.Error(), "live") {
		t.Errorf("a second server on a live socket: %v", err)
	}
	if err := first.ReadRegion(0, 0, make([]byte, 4)); err != nil {
		t.Errorf("the first client was disturbed: %v", err)
	}
	first.Close()
	next, err := Dial(path)
	if err != nil {
		t.Fatalf("after the first has gone: %v", err)
	}
	// The context ends a connection that is idle, at once.
	begin := time.Now()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if d := time.Since(begin); d > time.Second {
		t.Errorf("shutdown took %v", d)
	}
	if err := next.Reset(); err == nil {
		t.Error("a call after the server has gone succeeded")
	}
	next.Close()
}

// A client that never reads must not keep the server when its context ends.
func TestShutdownWhileSending(t *testing.T) {
	f := newFake(t)
	near, far, err := uds.Pair()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- NewServer(Config{}, f).ServeConn(ctx, near) }()
	sock, err := uds.New(far, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	r := &raw{t, sock}
	r.negotiate("")
	r.send(message(cmdRegionRead, 2, 0, appendAccess(nil, 5, 0, maxData)))
	time.Sleep(50 * time.Millisecond) // the reply does not fit the socket's buffer
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("ServeConn = %v, want %v", err, context.Canceled)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the server is stuck")
	}
}

func TestTrace(t *testing.T) {
	var mu sync.Mutex
	var got []string
	cfg := Config{Trace: func(dir Direction, head, body []byte, nfds int) {
		mu.Lock()
		defer mu.Unlock()
		h := decodeHeader(head)
		got = append(got, dir.String()+" "+h.command.String()+" "+strconv.Itoa(len(body))+" bytes "+strconv.Itoa(nfds)+" fds")
	}}
	f := newFake(t)
	c := attach(t, cfg, f)
	if err := errors.Join(
		c.MapMemory(0, 4096, rw, iova.NewBytes(make([]byte, 4096))),
		c.SetVectors(IRQMSIX, 0, newEventfd(t), newEventfd(t)),
		f.table.Write(0, []byte("abc")),
	); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	want := []string{
		"received DMA_MAP 32 bytes 0 fds", "sent DMA_MAP 0 bytes 0 fds",
		"received DEVICE_SET_IRQS 20 bytes 2 fds", "sent DEVICE_SET_IRQS 0 bytes 0 fds",
		"sent DMA_WRITE 19 bytes 0 fds", "received DMA_WRITE 16 bytes 0 fds",
	}
	if len(got) < 2 {
		t.Fatalf("trace: %q", got)
	}
	if diff := cmp.Diff(want, got[2:]); diff != "" { // after VERSION
		t.Errorf("trace (-want +got):\n%s", diff)
	}
}

// A server that runs out of descriptors serves the client when there are some.
func TestServeWithoutDescriptors(t *testing.T) {
	f := newFake(t)
	path := filepath.Join(t.TempDir(), "npu.sock")
	ln, err := uds.Listen(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- NewServer(Config{}, f).Serve(ctx, ln) }()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	far := os.NewFile(uintptr(fd), "client")
	defer far.Close()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 3
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	time.Sleep(20 * time.Millisecond)
	if err := errors.Join(err, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)); err != nil {
		t.Fatal(err)
	}
	nc, err := net.FileConn(far)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewClient(nc.(*net.UnixConn))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestWarningsAreLimited(t *testing.T) {
	var out bytes.Buffer
	f := newFake(t)
	near, far, err := uds.Pair()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	cfg := Config{Log: slog.New(slog.NewTextHandler(&out, nil))}
	go func() { done <- NewServer(cfg, f).ServeConn(context.Background(), near) }()
	c, err := NewClient(far)
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if err := c.ReadRegion(8, 0, make([]byte, 4)); !errors.Is(err, unix.EINVAL) {
			t.Fatal(err)
		}
	}
	c.Close()
	if err := <-done; err != nil && !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if n := strings.Count(out.String(), "level=WARN"); n < warnings.Burst || n > warnings.Burst+30 {
		t.Errorf("%d warnings for 1000 bad messages", n)
	}
	if !strings.Contains(out.String(), "go beyond its 0x0 bytes") {
		t.Errorf("the log does not name the rule:\n%s", out.String())
	}
}

func BenchmarkRegionRead(b *testing.B) {
	c := attach(b, Config{}, newFake(b))
	p := make([]byte, 4)
	b.ReportAllocs()
	for b.Loop() {
		if err := c.ReadRegion(0, 0, p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPostedWrite(b *testing.B) {
	c := attach(b, Config{}, newFake(b))
	p := make([]byte, 4)
	for b.Loop() {
		if err := c.PostRegion(0, 0, p); err != nil {
			b.Fatal(err)
		}
	}
}

// TestTurnedAway: who may not attach is told so in answer to its first message; who says
// nothing, or says nonsense, or is one too many, is closed.
func TestTurnedAway(t *testing.T) {
	gone := errors.New("gone")
	s := NewServer(Config{Admit: func() error { return gone }}, newFake(t))
	refused := func() (*uds.Conn, chan error) {
		t.Helper()
		near, far, err := uds.Pair()
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- s.ServeConn(t.Context(), far) }()
		c, err := uds.New(near, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c, served
	}
	version := message(cmdVersion, 1, 0, make([]byte, 4))
	long := message(cmdVersion, 1, 0)
	order.PutUint32(long[4:], maxRefused+1)
	for _, tt := range []struct {
		name   string
		send   []byte
		answer bool
	}{
		{"VERSION", version, true},
		{"VERSION in pieces", version, true},
		{"another command", message(cmdReset, 1, 0), true},
		{"a reply", message(cmdVersion, 1, flagReply), false},
		{"a posted command", message(cmdVersion, 1, flagNoReply), false},
		{"too long", long, false},
		{"half a header", version[:8], false},
		{"nothing", nil, false},
	} {
		c, served := refused()
		for len(tt.send) > 0 {
			n := len(tt.send)
			if tt.name == "VERSION in pieces" {
				n = 1
			}
			if err := c.Send(tt.send[:n], nil); err != nil {
				t.Fatal(err)
			}
			tt.send = tt.send[n:]
		}
		var b [headerSize]byte
		err := c.Recv(b[:], new(uds.Rights))
		if h := decodeHeader(b[:]); tt.answer != (err == nil) || tt.answer && (h.flags != flagReply|flagError || unix.Errno(h.errno) != unix.ENODEV) {
			t.Errorf("%s: %+v, %v; want an answer: %t", tt.name, h, err, tt.answer)
		}
		if err := <-served; !errors.Is(err, gone) {
			t.Errorf("%s: ServeConn: %v", tt.name, err)
		}
	}
	for range maxRefusing {
		refused() // and says nothing
	}
	eventually(t, "places taken", func() bool { return s.refusing.Load() == maxRefusing })
	c, _ := refused()
	if err := c.Send(version, nil); err == nil {
		if err := c.Recv(make([]byte, headerSize), new(uds.Rights)); err == nil {
			t.Error("one too many is answered")
		}
	}
}
