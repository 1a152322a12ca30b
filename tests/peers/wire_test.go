// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Commands and flags of the protocol, as far as the table names them.
const (
	version      = 1
	dmaMap       = 2
	dmaUnmap     = 3
	getInfo      = 4
	regionInfo   = 5
	regionIOFDs  = 6
	irqInfo      = 7
	setIRQs      = 8
	regionRead   = 9
	regionWrite  = 10
	dmaRead      = 11
	deviceReset  = 13
	dirtyPages   = 14
	writeMulti   = 15
	feature      = 16
	migDataRead  = 17
	migDataWrite = 18

	flagReply   = 1 << 0
	flagNoReply = 1 << 4
	flagError   = 1 << 5

	featureGet   = 1 << 16
	featureSet   = 1 << 17
	featureProbe = 1 << 18
)

var order = binary.NativeEndian

func u16(vs ...uint16) (b []byte) {
	for _, v := range vs {
		b = order.AppendUint16(b, v)
	}
	return b
}

func u32(vs ...uint32) (b []byte) {
	for _, v := range vs {
		b = order.AppendUint32(b, v)
	}
	return b
}

func u64(vs ...uint64) (b []byte) {
	for _, v := range vs {
		b = order.AppendUint64(b, v)
	}
	return b
}

func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// raw is a message with every field of its header in the open; size 0 is the right
// one.
func raw(cmd uint16, size, flags uint32, body ...[]byte) []byte {
	b := cat(body...)
	if size == 0 {
		size = uint32(16 + len(b))
	}
	return cat(u16(7, cmd), u32(size, flags, 0), b)
}

func msg(cmd uint16, body ...[]byte) []byte { return raw(cmd, 0, 0, body...) }

// hello is VERSION with JSON text and its NUL.
func hello(text string) []byte { return msg(version, u16(0, 0), []byte(text), []byte{0}) }

// Payloads.
func region(argsz, index uint32) []byte { return cat(u32(argsz, 0, index, 0), u64(0, 0)) }
func irqs(argsz, flags, index, start, count uint32, data ...byte) []byte {
	return cat(u32(argsz, flags, index, start, count), data)
}
func access(off uint64, index, count uint32, data ...byte) []byte {
	return cat(u64(off), u32(index, count), data)
}
func mapping(argsz, flags uint32, off, addr, size uint64) []byte {
	return cat(u32(argsz, flags), u64(off, addr, size))
}
func unmapping(argsz, flags uint32, addr, size uint64) []byte {
	return cat(u32(argsz, flags), u64(addr, size))
}

// deviceState is DEVICE_FEATURE that sets a migration state.
func deviceState(s uint32) []byte { return msg(feature, u32(16, featureSet|2, s, 0xffffffff)) }

// startLog is DEVICE_FEATURE that starts to log pages of a size.
func startLog(page uint64) []byte {
	return msg(feature, u32(24, featureSet|6), u64(page), u32(0, 0))
}

// dirty is DEVICE_FEATURE that asks for the log of a range.
func dirty(argsz uint32, addr, size, page uint64) []byte {
	return msg(feature, u32(argsz, featureGet|8), u64(addr, size, page))
}

// server is a process that serves one client.
type server struct {
	cmd  *exec.Cmd
	sock int
	wait time.Duration // for a reply
	out  *output
}

// startServer runs program with a socket and connects.
func startServer(t *testing.T, wait time.Duration, program string, args ...string) *server {
	t.Helper()
	dir := socketDir(t)
	path := filepath.Join(dir, "sock")
	s := &server{cmd: exec.Command(program, append(args, path)...), wait: wait, out: new(output)}
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.sock = fd
	limit := unix.NsecToTimeval(wait.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err == nil {
			return s
		} else if time.Now().After(end) {
			s.stop()
			t.Fatalf("%s does not listen: %v\n%s", program, err, s.out)
		}
	}
}

// stop ends the server.
func (s *server) stop() {
	unix.Close(s.sock)
	_ = s.cmd.Process.Kill() // it may have ended already
	_ = s.cmd.Wait()         // killed
}

// send sends b, in pieces that end at the offsets of split, with descriptors on
// the first.
func (s *server) send(b []byte, split []int, fds []int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	at := 0
	for _, end := range append(split, len(b)) {
		if at > 0 {
			time.Sleep(20 * time.Millisecond) // the server reads what is there
		}
		for at < end {
			n, err := unix.SendmsgN(s.sock, b[at:end], rights, nil, unix.MSG_NOSIGNAL)
			if err != nil {
				return err
			}
			at, rights = at+n, nil
		}
	}
	return nil
}

var errSilent = errors.New("no reply")

// read fills p.
func (s *server) read(p []byte) error {
	for len(p) > 0 {
		poll := []unix.PollFd{{Fd: int32(s.sock), Events: unix.POLLIN}}
		if n, err := unix.Poll(poll, int(s.wait.Milliseconds())); errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil {
			return err
		} else if n == 0 {
			return errSilent
		}
		n, err := unix.Read(s.sock, p)
		if err != nil {
			return err
		}
		if n == 0 {
			return io.EOF
		}
		p = p[n:]
	}
	return nil
}

// receive returns the next message; descriptors that come with it are lost.
func (s *server) receive() (id uint16, flags, errno uint32, body []byte, err error) {
	var h [16]byte
	if err := s.read(h[:]); err != nil {
		return 0, 0, 0, nil, err
	}
	size := order.Uint32(h[4:])
	if size < 16 || size > 4<<20 {
		return 0, 0, 0, nil, fmt.Errorf("message of %d bytes", size)
	}
	body = make([]byte, size-16)
	err = s.read(body)
	return order.Uint16(h[:]), order.Uint32(h[8:]), order.Uint32(h[12:]), body, err
}

// errnoName is the outcome of a reply: "ok" or the errno's name.
func errnoName(flags, errno uint32) string {
	switch {
	case flags&0xf != flagReply:
		return "not a reply"
	case flags&flagError == 0:
		return "ok"
	case errno == 0:
		return "errno 0"
	}
	return unix.ErrnoName(unix.Errno(errno))
}

// descriptors counts what the server has open.
func (s *server) descriptors() int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
	if err != nil {
		return 0 // it has ended
	}
	return len(entries)
}

// kinds of descriptors that go with a message
const (
	eventfds = iota
	files    // memfds of 64 KiB
)

func descriptors(t *testing.T, n, kind int) (fds []int) {
	t.Helper()
	for range n {
		var fd int
		var err error
		if kind == eventfds {
			fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		} else if fd, err = unix.MemfdCreate("peer", unix.MFD_CLOEXEC); err == nil {
			err = unix.Ftruncate(fd, 64<<10)
		}
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	return fds
}

// probeID is the id of the message that asks whether the server is in step.
const probeID = 0xabcd

// outcome does what a row says and tells what came of it: the errno of the reply,
// whether the connection ended, whether the server is still in step with its client,
// and whether it kept descriptors of a message that it refused.
func (s *server) outcome(t *testing.T, r row) (string, error) {
	t.Helper()
	if !r.first {
		if err := s.send(hello(`{"capabilities":{"max_msg_fds":32,"max_data_xfer_size":1048576}}`), nil, nil); err != nil {
			return "", fmt.Errorf("VERSION: %w", err)
		}
		if _, flags, errno, _, err := s.receive(); err != nil || errnoName(flags, errno) != "ok" {
			return "", fmt.Errorf("VERSION: %w, %s", err, errnoName(flags, errno))
		}
	}
	for i, m := range r.setup {
		var fds []int
		if order.Uint16(m[2:]) == dmaMap {
			fds = descriptors(t, 1, files)
		}
		err := s.send(m, nil, fds)
		closeAll(fds)
		if err != nil {
			return "", fmt.Errorf("set-up message %d: %w", i, err)
		}
		if _, flags, errno, _, err := s.receive(); err != nil || errnoName(flags, errno) != "ok" {
			return "", fmt.Errorf("set-up message %d: %w, %s", i, err, errnoName(flags, errno))
		}
	}
	open := s.descriptors()
	fds := descriptors(t, r.fds, r.kind)
	err := s.send(r.msg, r.split, fds)
	closeAll(fds)
	if errors.Is(err, unix.EAGAIN) {
		return "out of step", nil // it answers what it takes for messages, and reads no more until we read
	}
	if err != nil {
		return "closed", nil //nolint:nilerr // the peer hung up while we were sending: that is the outcome
	}
	what := "none"
	if order.Uint32(r.msg[8:])&flagNoReply == 0 {
		_, flags, errno, _, err := s.receive()
		switch {
		case errors.Is(err, errSilent):
			what = "silent"
		case err != nil:
			return "closed", nil //nolint:nilerr // as above
		default:
			what = errnoName(flags, errno)
		}
	}
	if s.send(cat(u16(probeID, getInfo), u32(32, 0, 0), u32(16, 0, 0, 0)), nil, nil) != nil {
		return what + ", closed", nil
	}
	id, flags, errno, _, err := s.receive()
	switch {
	case err == nil && id == probeID:
		if next := errnoName(flags, errno); next != "ok" {
			what += ", then " + next
		}
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return what + ", closed", nil
	default:
		return what + ", out of step", nil
	}
	if what != "ok" && s.descriptors() > open {
		what += ", keeps descriptors"
	}
	return what, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
