// SPDX-License-Identifier: Apache-2.0

//go:build linux

package uds

import (
	"fmt"
	"io"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// yieldEvery is how many calls of Read make one call of the scheduler. Without it, the
// runtime's monitor finds after 10 ms that the goroutine was not scheduled, takes its P while it
// waits, and then looks after it every 20 µs for a while: every hundredth register
// access would take twice as long.
const yieldEvery = 1024

// message is what recvmsg and sendmsg take. It lives in the Conn, so that a call
// allocates nothing.
type message struct {
	hdr unix.Msghdr
	iov [2]unix.Iovec
}

func (m *message) set(a, b, oob []byte) {
	m.hdr = unix.Msghdr{Iov: &m.iov[0]}
	m.iov[0] = unix.Iovec{Base: unsafe.SliceData(a)}
	m.iov[0].SetLen(len(a))
	m.hdr.SetIovlen(1)
	if len(b) > 0 {
		m.iov[1] = unix.Iovec{Base: unsafe.SliceData(b)}
		m.iov[1].SetLen(len(b))
		m.hdr.SetIovlen(2)
	}
	if len(oob) > 0 {
		m.hdr.Control = unsafe.SliceData(oob)
		m.hdr.SetControllen(len(oob))
	}
}

// Read receives what has come, at most len(p) bytes, waiting for the first one as
// long as it takes, and adds the descriptors that came with these bytes to rights. Linux
// returns nothing beyond the bytes of the first send that carried descriptors
// (unix(7)), so they belong to the last bytes returned. Read returns io.EOF when
// the peer has closed.
func (c *Conn) Read(p []byte, rights *Rights) (int, error) {
	if c.reads++; c.reads%yieldEvery == 0 {
		runtime.Gosched()
	}
	m := &c.in
	if m.hdr.Iov == nil {
		m.set(p, nil, c.oob)
	}
	for {
		m.iov[0].Base = unsafe.SliceData(p)
		m.iov[0].SetLen(len(p))
		m.hdr.SetControllen(len(c.oob))
		n, _, errno := syscall.Syscall(unix.SYS_RECVMSG, uintptr(c.fd), uintptr(unsafe.Pointer(&m.hdr)), unix.MSG_CMSG_CLOEXEC)
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0:
			return 0, fmt.Errorf("uds: receive: %w", errno)
		}
		if m.hdr.Controllen != 0 || m.hdr.Flags&unix.MSG_CTRUNC != 0 {
			rights.arrive(c.oob[:m.hdr.Controllen], int(m.hdr.Flags))
		}
		if n == 0 {
			return 0, io.EOF
		}
		return int(n), nil
	}
}

// sendNow sends as much of p as the peer's buffer takes. It does not wait, and so keeps
// the P.
func (c *Conn) sendNow(p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(c.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// sendAll sends head and tail with the descriptors in oob, waiting for the peer to take
// them.
func (c *Conn) sendAll(head, tail, oob []byte) error {
	for len(head)+len(tail) > 0 {
		if len(head) == 0 {
			head, tail = tail, nil
		}
		c.out.set(head, tail, oob)
		r, _, errno := syscall.Syscall(unix.SYS_SENDMSG, uintptr(c.fd), uintptr(unsafe.Pointer(&c.out.hdr)), unix.MSG_NOSIGNAL)
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0:
			return fmt.Errorf("uds: send: %w", errno)
		}
		oob = nil
		n := int(r)
		cut := min(n, len(head))
		head, tail = head[cut:], tail[n-cut:]
	}
	return nil
}
