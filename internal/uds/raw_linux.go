// SPDX-License-Identifier: Apache-2.0

package uds

import (
	"fmt"
	"io"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// idleWait is how long Read keeps the scheduler's P when nothing comes. It is
// rounded up to the kernel's tick. The gaps between a guest's register accesses
// are far shorter; a P that does nothing is missed by nobody for so long.
const idleWait = time.Millisecond

// maxEmpty is how many signals in a row end the wait with the P. The runtime sends
// them to stop the goroutine, for a garbage collection for instance.
const maxEmpty = 3

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

// call makes the system call trap, recvmsg or sendmsg, for m: raw, without a word
// to the scheduler, or as other blocking calls are made.
func (m *message) call(trap uintptr, fd, flags int, raw bool) (int, syscall.Errno) {
	var n uintptr
	var errno syscall.Errno
	if raw {
		n, _, errno = syscall.RawSyscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(&m.hdr)), uintptr(flags), 0, 0, 0)
	} else {
		n, _, errno = syscall.Syscall(trap, uintptr(fd), uintptr(unsafe.Pointer(&m.hdr)), uintptr(flags))
	}
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// sendOnce makes one system call for Send: sendto where that will do, which is
// cheaper than sendmsg.
func (c *Conn) sendOnce(head, tail, oob []byte, flags int, raw bool) (int, syscall.Errno) {
	if len(tail) > 0 || len(oob) > 0 || !raw {
		c.out.set(head, tail, oob)
		return c.out.call(unix.SYS_SENDMSG, c.fd, flags, raw)
	}
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(c.fd),
		uintptr(unsafe.Pointer(unsafe.SliceData(head))), uintptr(len(head)), uintptr(flags), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// Read receives what has come, at most len(p) bytes, waiting for the first one as
// long as it takes, and adds the descriptors that came with these bytes to rights. Linux
// returns nothing beyond the bytes of the first send that carried descriptors
// (unix(7)), so they belong to the last bytes returned. Read returns io.EOF when
// the peer has closed.
//
// A client that waits for a register is answered without the scheduler's help: up
// to idleWait, Read waits in a raw system call, which keeps the P. The socket has a
// receive timeout, and so a signal ends that call even though handlers restart others
// (signal(7)): when the runtime wants to stop the goroutine, it does. A peer that is
// silent for idleWait, or maxEmpty signals without a byte, are waited for without the P.
// With a single P Read never keeps it; with more, whoever serves connections should
// have one more than there is work for.
func (c *Conn) Read(p []byte, rights *Rights) (int, error) {
	for empty := 0; ; {
		if !c.raw {
			if err := c.chooseWait(); err != nil {
				return 0, err
			}
		}
		c.in.set(p, nil, c.oob)
		n, errno := c.in.call(unix.SYS_RECVMSG, c.fd, unix.MSG_CMSG_CLOEXEC, c.raw)
		switch errno {
		case 0:
			rights.arrive(c.oob[:c.in.hdr.Controllen], int(c.in.hdr.Flags))
			if n == 0 {
				return 0, io.EOF
			}
			return n, nil
		case unix.EINTR:
			// Where this goroutine is to stop, it stops at the next call.
			if empty++; !c.raw || empty < maxEmpty {
				continue
			}
		case unix.EAGAIN:
		default:
			return 0, fmt.Errorf("uds: receive: %w", errno)
		}
		fds := [1]unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds[:], -1); err != nil && err != unix.EINTR {
			return 0, fmt.Errorf("uds: wait: %w", err)
		}
		empty, c.raw = 0, false // and choose again: there may be one P now
	}
}

// chooseWait decides how Read waits: raw, with a timeout, if there is more than one P.
func (c *Conn) chooseWait() error {
	c.raw = runtime.GOMAXPROCS(0) > 1
	if c.raw == c.timed {
		return nil
	}
	var tv unix.Timeval
	if c.raw {
		tv = unix.NsecToTimeval(int64(idleWait))
	}
	if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return fmt.Errorf("uds: set up socket: %w", err)
	}
	c.timed = c.raw
	return nil
}
