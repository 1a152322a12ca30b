// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"npuemu/internal/uds"
)

// twin is the second socket of a connection: commands of the server and their replies
// go over it, so that neither side's own traffic holds them up.
type twin struct {
	sock *uds.Conn
	done chan struct{} // closed when the reader has ended
}

// openTwin makes the socket pair. The caller sends far to the client and closes it.
func (c *conn) openTwin() (far *os.File, err error) {
	a, b, err := uds.Pair()
	if err != nil {
		return nil, err
	}
	defer b.Close()
	sock, err := uds.New(a, sendTimeout)
	if err != nil {
		return nil, err
	}
	if far, err = fileOf(b); err != nil {
		sock.Close()
		return nil, err
	}
	c.twin = &twin{sock: sock, done: make(chan struct{})}
	c.cmds = sock
	c.setServes(true)
	go c.twin.serve(c)
	return far, nil
}

func fileOf(nc *net.UnixConn) (*os.File, error) {
	f, err := nc.File()
	if err != nil {
		return nil, fmt.Errorf("vfiouser: twin socket: %w", err)
	}
	return f, nil
}

// serve hands out the replies to our commands. When the client closes this socket, or
// loses step on it, the whole connection ends.
func (t *twin) serve(c *conn) {
	defer close(t.done)
	defer c.sock.Shutdown()
	buf := make([]byte, headerSize, 4096)
	for {
		h, err := t.serveOne(c, &buf)
		var wrong *refusal
		switch {
		case err == nil:
			continue
		case !errors.As(err, &wrong):
			return
		}
		c.warnRefused(h, wrong)
		if h.isReply() || h.flags&flagNoReply != 0 {
			continue // nobody waits
		}
		msg := make([]byte, headerSize)
		header{
			id: h.id, command: h.command, size: headerSize,
			flags: flagReply | flagError, errno: uint32(wrong.errno),
		}.put(msg)
		c.trace(Sent, msg, nil, nil, 0)
		if t.sock.Send(msg, nil) != nil {
			return
		}
	}
}

// serveOne reads a message into *buf. A refusal leaves the stream in step.
func (t *twin) serveOne(c *conn, buf *[]byte) (h header, err error) {
	rights := uds.Rights{}
	defer rights.Close()
	if err := t.sock.Recv((*buf)[:headerSize], &rights); err != nil {
		return h, err
	}
	h = decodeHeader(*buf)
	if h.size < headerSize || h.size > maxMessage {
		return h, fmt.Errorf("vfiouser: %v of %d bytes on the twin socket", h.command, h.size)
	}
	if n := int(h.size); n > cap(*buf) {
		*buf = append(make([]byte, 0, n), *buf...)
	}
	msg := (*buf)[:h.size]
	if err := t.sock.Recv(msg[headerSize:], &rights); err != nil {
		return h, err
	}
	c.trace(Received, msg[:headerSize], msg[headerSize:], nil, rights.Len())
	if !h.isReply() {
		return h, refuse(unix.EINVAL, "%v on the twin socket, which is for the replies to the server's commands; send it on the other one", h.command)
	}
	return h, c.deliver(h, msg[headerSize:])
}

// close ends the reader. It does not wait for the main socket.
func (t *twin) close() {
	t.sock.Shutdown()
	<-t.done
	t.sock.Close()
}
