// SPDX-License-Identifier: Apache-2.0

// Package uds moves bytes and descriptors over a UNIX stream socket with
// blocking system calls: the runtime's poller would add two context switches to
// every register access. A Conn has one reader; senders and closers may be many.
package uds

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxRightsPerCall is SCM_MAX_FD of Linux: more descriptors than that never
// come with one recvmsg, so a buffer of that size never loses any.
const maxRightsPerCall = 253

// ErrClosed is returned by Send after Close.
var ErrClosed = errors.New("uds: connection closed")

// Conn is a connected UNIX stream socket.
type Conn struct {
	fd int

	in    message // reader's
	oob   []byte  // reader's; for what maxRightsPerCall descriptors take
	reads uint    // reader's: calls of Read

	send sync.Mutex // serializes senders, so that messages stay whole
	out  message    // guarded by send
	// state guards closed, so that Shutdown and HungUp never touch a reused
	// descriptor; it changes under both locks. Lock order: send, state.
	state  sync.Mutex
	closed bool
}

// New takes over the socket of nc, which is closed in any case. A Send that the
// peer does not take for sendTimeout fails.
func New(nc *net.UnixConn, sendTimeout time.Duration) (*Conn, error) {
	fd, err := dup(nc)
	nc.Close()
	if err != nil {
		return nil, fmt.Errorf("uds: take over socket: %w", err)
	}
	tv := unix.NsecToTimeval(int64(sendTimeout))
	err = unix.SetNonblock(fd, false)
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("uds: set up socket: %w", err)
	}
	return &Conn{fd: fd, oob: make([]byte, unix.CmsgSpace(4*maxRightsPerCall))}, nil
}

func dup(nc *net.UnixConn) (fd int, err error) {
	raw, err := nc.SyscallConn()
	if err != nil {
		return -1, err
	}
	cerr := raw.Control(func(s uintptr) {
		fd, err = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0)
	})
	return fd, errors.Join(err, cerr)
}

// Pair returns two connected sockets.
func Pair() (a, b *net.UnixConn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("uds: socketpair: %w", err)
	}
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		nc, ferr := net.FileConn(f)
		f.Close()
		if ferr != nil {
			err = ferr
			continue
		}
		conns[i] = nc.(*net.UnixConn)
	}
	if err != nil {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
		return nil, nil, fmt.Errorf("uds: socketpair: %w", err)
	}
	return conns[0], conns[1], nil
}

// Recv fills p, waiting as long as it takes, and adds the descriptors that come
// with these bytes to rights. It never takes a byte beyond p, so descriptors
// that come with the next message stay with it. It returns io.EOF when the peer
// closed before the first byte, io.ErrUnexpectedEOF when it closed later.
func (c *Conn) Recv(p []byte, rights *Rights) error {
	for got := 0; got < len(p); {
		n, oobn, flags, _, err := unix.Recvmsg(c.fd, p[got:], c.oob, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("uds: receive: %w", err)
		}
		rights.arrive(c.oob[:oobn], flags)
		if n == 0 {
			if got == 0 {
				return io.EOF
			}
			return io.ErrUnexpectedEOF
		}
		got += n
	}
	return nil
}

// Send sends head and tail as one message with the descriptors fds, which stay
// the caller's. After an error the stream is out of step: shut it down.
//
// One system call is the rule: some peers need a header, or a whole reply, in one
// piece. Messages larger than the socket's buffer take more.
func (c *Conn) Send(head, tail []byte, fds ...int) error {
	c.send.Lock()
	defer c.send.Unlock()
	if c.closed {
		return ErrClosed
	}
	if len(tail) > 0 || len(fds) > 0 {
		var oob []byte
		if len(fds) > 0 {
			oob = unix.UnixRights(fds...)
		}
		return c.sendAll(head, tail, oob)
	}
	n, errno := c.sendNow(head)
	if n == len(head) {
		return nil
	}
	if errno != 0 && errno != unix.EAGAIN && errno != unix.EINTR {
		return fmt.Errorf("uds: send: %w", errno)
	}
	return c.sendAll(head[n:], nil, nil)
}

// Shutdown makes the reader and every sender return, now and later.
func (c *Conn) Shutdown() {
	c.state.Lock()
	defer c.state.Unlock()
	if !c.closed {
		// It fails only on a socket that is not connected any more.
		_ = unix.Shutdown(c.fd, unix.SHUT_RDWR)
	}
}

// HungUp reports whether the peer closed its end.
func (c *Conn) HungUp() bool {
	c.state.Lock()
	defer c.state.Unlock()
	if c.closed {
		return true
	}
	p := []unix.PollFd{{Fd: int32(c.fd)}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}

// Close closes the socket. The reader must have returned for good.
func (c *Conn) Close() {
	c.Shutdown() // a blocked sender returns and releases send
	c.send.Lock()
	defer c.send.Unlock()
	c.state.Lock()
	defer c.state.Unlock()
	if !c.closed {
		c.closed = true
		unix.Close(c.fd)
	}
}

// Rights are the descriptors received with one message. The zero value is
// empty. Whoever receives must Take or Close them all.
type Rights struct {
	Limit int // descriptors kept; the rest is closed on arrival and counted
	fds   []int
	lost  int
}

// Len returns how many descriptors came, including those over the limit.
func (r *Rights) Len() int { return len(r.fds) + r.lost }

// Lost returns how many of them were closed on arrival.
func (r *Rights) Lost() int { return r.lost }

// Fd returns descriptor i, which stays r's.
func (r *Rights) Fd(i int) int { return r.fds[i] }

// Take passes descriptor i on to the caller, who owns it from then on.
func (r *Rights) Take(i int) int {
	fd := r.fds[i]
	r.fds[i] = -1
	return fd
}

// Close closes what was not taken, and empties r for the next message.
func (r *Rights) Close() {
	if r.Len() > 0 {
		r.close()
	}
}

func (r *Rights) close() {
	for _, fd := range r.fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	r.fds = r.fds[:0]
	r.lost = 0
}

// MoveTo adds what is in r to to, and empties r.
func (r *Rights) MoveTo(to *Rights) {
	if r.Len() == 0 {
		return
	}
	for _, fd := range r.fds {
		to.add(fd)
	}
	to.lost += r.lost
	r.fds, r.lost = r.fds[:0], 0
}

// arrive adds what recvmsg returned: control messages and flags.
func (r *Rights) arrive(oob []byte, flags int) {
	if len(oob) > 0 {
		r.take(oob)
	}
	if flags&unix.MSG_CTRUNC != 0 { // this process ran out of descriptors
		r.lost++
	}
}

// add keeps fd, within the limit.
func (r *Rights) add(fd int) {
	if len(r.fds) < r.Limit {
		r.fds = append(r.fds, fd)
		return
	}
	unix.Close(fd)
	r.lost++
}

func (r *Rights) take(oob []byte) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		r.lost++
		return
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue // credentials and the like carry no descriptor
		}
		for _, fd := range fds {
			r.add(fd)
		}
	}
}
