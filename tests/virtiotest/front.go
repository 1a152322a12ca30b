// SPDX-License-Identifier: Apache-2.0

// Package virtiotest is a scripted VMM and guest for tests of vhost-user devices: it
// speaks the front end's side of the protocol, has guest memory, and drives split
// and packed virtqueues. It shares no code with package vhostuser, so neither can hide the other's
// mistakes.
package virtiotest

import (
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"net"

	"golang.org/x/sys/unix"

	"npuemu/internal/eventfd"
	"npuemu/internal/uds"
	"npuemu/vdev/vhostuser"
)

var le = binary.LittleEndian

// Requests of the protocol.
const (
	GetFeatures         = 1
	SetFeatures         = 2
	SetOwner            = 3
	ResetOwner          = 4
	SetMemTable         = 5
	SetVringNum         = 8
	SetVringAddr        = 9
	SetVringBase        = 10
	GetVringBase        = 11
	SetVringKick        = 12
	SetVringCall        = 13
	SetVringErr         = 14
	GetProtocolFeatures = 15
	SetProtocolFeatures = 16
	GetQueueNum         = 17
	SetVringEnable      = 18
	SetBackendReqFD     = 21
	GetConfig           = 24
	SetConfig           = 25
	GetInflightFD       = 31
	SetInflightFD       = 32
	ResetDevice         = 34
	GetMaxMemSlots      = 36
	AddMemReg           = 37
	RemMemReg           = 38
	SetStatus           = 39
	GetStatus           = 40
	GetShmemConfig      = 44
)

// Flags of a message, and feature bits.
const (
	Version   = 1
	Reply     = 4
	NeedReply = 8

	Indirect   = 1 << 28
	EventIndex = 1 << 29
	Protocol   = 1 << 30
	Version1   = 1 << 32
	Packed     = 1 << 34

	// AllProtocol is every protocol feature that the server should offer: MQ, REPLY_ACK,
	// BACKEND_REQ, CONFIG, BACKEND_SEND_FD, INFLIGHT_SHMFD, RESET_DEVICE, CONFIGURE_MEM_SLOTS,
	// STATUS, SHMEM.
	AllProtocol = 1<<0 | 1<<3 | 1<<5 | 1<<9 | 1<<10 | 1<<12 | 1<<13 | 1<<15 | 1<<16 | 1<<22
)

// Guest memory: MemSize bytes at guest address MemBase, which the front end has at
// UserBase.
const (
	MemBase  = 0x1000_0000
	MemSize  = 8 << 20
	UserBase = 0x7f00_0000_0000
)

// Timeout bounds every wait.
const Timeout = 20 * time.Second

// Serve serves b on a socket until the test ends.
func Serve(t testing.TB, cfg vhostuser.Config, b vhostuser.Backend) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "npu") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	ln, err := uds.Listen(socket, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := vhostuser.NewServer(cfg, b).Serve(ctx, ln); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		os.RemoveAll(dir)
	})
	return socket
}

// Front is a VMM with a guest. Its methods fail the test when the transport fails.
type Front struct {
	T    testing.TB
	Mem  []byte   // guest memory
	File *os.File // behind it

	conn *net.UnixConn
	next uint64 // first byte of guest memory that Alloc has not handed out

	packed bool // negotiated
}

// Dial connects.
func Dial(t testing.TB, socket string) *Front {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	f := &Front{T: t, conn: conn, next: MemBase, File: Memfd(t, MemSize)}
	f.Mem = Mmap(t, f.File, MemSize)
	t.Cleanup(f.Close)
	return f
}

// Memfd returns a file in memory that is closed with the test.
func Memfd(t testing.TB, size int64) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "guest")
	t.Cleanup(func() { file.Close() })
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return file
}

// Mmap maps size bytes of a file until the test ends.
func Mmap(t testing.TB, file *os.File, size int) []byte {
	t.Helper()
	mem, err := unix.Mmap(int(file.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(mem) })
	return mem
}

// Close hangs up.
func (f *Front) Close() { f.conn.Close() }

// Raw sends bytes with descriptors.
func (f *Front) Raw(b []byte, fds ...int) {
	f.T.Helper()
	if _, _, err := f.conn.WriteMsgUnix(b, unix.UnixRights(fds...), nil); err != nil {
		f.T.Fatal(err)
	}
}

// Message returns a message.
func Message(request, flags uint32, body []byte) []byte {
	b := le.AppendUint32(nil, request)
	b = le.AppendUint32(b, flags)
	b = le.AppendUint32(b, uint32(len(body)))
	return append(b, body...)
}

// Receive returns the body of the next answer, or false if the connection was closed.
func (f *Front) Receive(request uint32) ([]byte, bool) {
	f.T.Helper()
	return receive(f.T, f.conn, request, Version|Reply)
}

func receive(t testing.TB, conn *net.UnixConn, request, flags uint32) ([]byte, bool) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(Timeout)); err != nil {
		t.Fatal(err)
	}
	var head [12]byte
	for n := 0; n < len(head); {
		m, err := conn.Read(head[n:])
		if err != nil {
			if os.IsTimeout(err) {
				t.Fatalf("no answer to %d", request)
			}
			return nil, false
		}
		n += m
	}
	if r, fl := le.Uint32(head[:]), le.Uint32(head[4:]); r != request || fl != flags {
		t.Fatalf("answer %d with flags %#x to %d", r, fl, request)
	}
	body := make([]byte, le.Uint32(head[8:]))
	for n := 0; n < len(body); {
		m, err := conn.Read(body[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += m
	}
	return body, true
}

// Ask sends a request that has an answer of its own, and returns it.
func (f *Front) Ask(request uint32, body []byte, fds ...int) []byte {
	f.T.Helper()
	f.Raw(Message(request, Version, body), fds...)
	answer, ok := f.Receive(request)
	if !ok {
		f.T.Fatalf("request %d closed the connection", request)
	}
	return answer
}

// Try sends a request and returns the errno that acknowledges it.
func (f *Front) Try(request uint32, body []byte, fds ...int) unix.Errno {
	f.T.Helper()
	f.Raw(Message(request, Version|NeedReply, body), fds...)
	answer, ok := f.Receive(request)
	if !ok || len(answer) != 8 {
		f.T.Fatalf("request %d: answer %x, %v", request, answer, ok)
	}
	return unix.Errno(le.Uint64(answer))
}

// Do sends a request that must succeed.
func (f *Front) Do(request uint32, body []byte, fds ...int) {
	f.T.Helper()
	if errno := f.Try(request, body, fds...); errno != 0 {
		f.T.Fatalf("request %d: %v", request, errno)
	}
}

// U64 and Pair encode bodies.
func U64(v uint64) []byte { return le.AppendUint64(nil, v) }

// Pair encodes two 32-bit numbers.
func Pair(a, b uint32) []byte { return le.AppendUint32(le.AppendUint32(nil, a), b) }

// Region encodes a region of memory.
func Region(guest, size, user, off uint64) []byte {
	var b []byte
	for _, v := range []uint64{guest, size, user, off} {
		b = le.AppendUint64(b, v)
	}
	return b
}

// Slot is the body of ADD_MEM_REG.
func Slot(guest, size, user, off uint64) []byte {
	return append(U64(0), Region(guest, size, user, off)...)
}

// Negotiate accepts the given features, and all protocol features, and adds guest memory.
func (f *Front) Negotiate(features uint64) {
	f.T.Helper()
	f.Hello(features)
	f.Do(AddMemReg, Slot(MemBase, MemSize, UserBase, 0), int(f.File.Fd()))
}

// Hello is Negotiate without memory.
func (f *Front) Hello(features uint64) {
	f.T.Helper()
	offered := le.Uint64(f.Ask(GetFeatures, nil))
	if missing := (features | Protocol) &^ offered; missing != 0 {
		f.T.Fatalf("features %#x are not offered", missing)
	}
	if got := le.Uint64(f.Ask(GetProtocolFeatures, nil)); got != AllProtocol {
		f.T.Fatalf("protocol features %#x, want %#x", got, uint64(AllProtocol))
	}
	f.Raw(Message(SetProtocolFeatures, Version, U64(AllProtocol)))
	f.Do(SetOwner, nil)
	f.Do(SetFeatures, U64(features|Protocol))
	f.packed = features&Packed != 0
}

// Alloc returns the guest address of size fresh zeroed bytes, aligned to a page, and
// the bytes.
func (f *Front) Alloc(size int) (uint64, []byte) {
	f.T.Helper()
	at := f.next
	f.next += (uint64(size) + 0xfff) &^ 0xfff
	if f.next > MemBase+MemSize {
		f.T.Fatal("virtiotest: guest memory is full")
	}
	p := f.Bytes(at, size)
	clear(p)
	return at, p
}

// Rewind makes Alloc hand out guest memory from addr on again.
func (f *Front) Rewind(addr uint64) { f.next = addr }

// Put returns the guest address of a copy of b.
func (f *Front) Put(b []byte) uint64 {
	f.T.Helper()
	at, p := f.Alloc(len(b))
	copy(p, b)
	return at
}

// Bytes returns guest memory.
func (f *Front) Bytes(addr uint64, size int) []byte { return f.Mem[addr-MemBase:][:size:size] }

// Config reads the configuration space.
func (f *Front) Config(size int) []byte {
	f.T.Helper()
	head := append(Pair(0, uint32(size)), 0, 0, 0, 0)
	return f.Ask(GetConfig, append(head, make([]byte, size)...))[12:]
}

// BackEnd is the channel of the device's own requests.
type BackEnd struct {
	t       testing.TB
	conn    *net.UnixConn
	changes int // configuration changes that came before what was waited for
}

// BackEnd opens the channel.
func (f *Front) BackEnd() *BackEnd {
	f.T.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		f.T.Fatal(err)
	}
	file := os.NewFile(uintptr(fds[0]), "back end")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		f.T.Fatal(err)
	}
	f.Do(SetBackendReqFD, nil, fds[1])
	unix.Close(fds[1])
	f.T.Cleanup(func() { _ = conn.Close() })
	return &BackEnd{t: f.T, conn: conn.(*net.UnixConn)}
}

// ConfigChanged waits for CONFIG_CHANGE_MSG.
func (b *BackEnd) ConfigChanged() {
	b.t.Helper()
	if b.changes > 0 {
		b.changes--
		return
	}
	if _, ok := receive(b.t, b.conn, 2, Version); !ok {
		b.t.Fatal("the back-end channel is closed")
	}
}

// ShmemMap waits for SHMEM_MAP, answers it with status, and returns its body and
// descriptor. It skips CONFIG_CHANGE_MSG.
func (b *BackEnd) ShmemMap(status uint64) ([]byte, *os.File) {
	b.t.Helper()
	p, oob := make([]byte, 12+40), make([]byte, unix.CmsgSpace(4))
	if err := b.conn.SetReadDeadline(time.Now().Add(Timeout)); err != nil {
		b.t.Fatal(err)
	}
	n, oobn, _, _, err := b.conn.ReadMsgUnix(p[:12], oob)
	for ; err == nil && n == 12 && le.Uint32(p) == 2; b.changes++ {
		n, oobn, _, _, err = b.conn.ReadMsgUnix(p[:12], oob)
	}
	if err == nil && n == 12 {
		n, err = io.ReadFull(b.conn, p[12:])
		n += 12
	}
	if err != nil || n != len(p) || le.Uint32(p) != 9 || le.Uint32(p[4:]) != Version|NeedReply || le.Uint32(p[8:]) != 40 {
		b.t.Fatalf("%d bytes %x, %v; want SHMEM_MAP", n, p[:n], err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 {
		b.t.Fatalf("SHMEM_MAP without a descriptor: %v", err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.conn.Write(Message(9, Version|Reply, U64(status))); err != nil {
		b.t.Fatal(err)
	}
	file := os.NewFile(uintptr(fds[0]), "window")
	b.t.Cleanup(func() { file.Close() })
	return p[12:], file
}

// Inflight is the body of GET_INFLIGHT_FD and SET_INFLIGHT_FD.
func Inflight(size, off uint64, queues, entries uint16) []byte {
	b := append(U64(size), U64(off)...)
	return append(le.AppendUint16(le.AppendUint16(b, queues), entries), 0, 0, 0, 0)
}

// InflightRegion asks for a region and takes its size and file.
func (f *Front) InflightRegion(queues, entries uint16) (uint64, *os.File) {
	f.T.Helper()
	f.Raw(Message(GetInflightFD, Version, Inflight(0, 0, queues, entries)))
	p, oob := make([]byte, 12+24), make([]byte, unix.CmsgSpace(4))
	if err := f.conn.SetReadDeadline(time.Now().Add(Timeout)); err != nil {
		f.T.Fatal(err)
	}
	n, oobn, _, _, err := f.conn.ReadMsgUnix(p, oob)
	if err != nil || n != len(p) || le.Uint32(p) != GetInflightFD {
		f.T.Fatalf("answer %x to GET_INFLIGHT_FD, %v", p[:n], err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 {
		f.T.Fatalf("GET_INFLIGHT_FD without a descriptor: %v", err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		f.T.Fatal(err)
	}
	file := os.NewFile(uintptr(fds[0]), "in-flight")
	f.T.Cleanup(func() { file.Close() })
	return le.Uint64(p[12:]), file
}

// Adopt makes f's guest that of an earlier connection: its memory and what is in it.
func (f *Front) Adopt(old *Front) { f.Mem, f.File, f.next = old.Mem, old.File, old.next }

// NewEventfd returns an eventfd that is closed with the test.
func NewEventfd(t testing.TB) *eventfd.FD {
	t.Helper()
	e, err := eventfd.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}
