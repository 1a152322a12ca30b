// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"

	"npuemu/internal/uds"
)

const (
	// inSize is how much one receive takes: hundreds of register accesses. A
	// larger message is read into a buffer of its own, without a copy.
	inSize = 64 << 10

	// maxBatch bounds the replies that are collected for one send. Linux queues up to
	// 32 KiB of a send in one piece (UNIX_SKB_FRAGS_SZ), so no header in it
	// ever arrives in two, which QEMU and libvfio-user do not survive.
	maxBatch = 32 << 10
)

// inbox cuts what the socket delivers into messages. It takes as much as there is
// with one system call, and then serves message after message from its buffer.
//
// Descriptors come with the last bytes of a receive ([uds.Conn.Read]). A client
// sends them with the message they belong to, or with a part of it, so they belong to
// the last message that begins in the buffer.
type inbox struct {
	sock       *uds.Conn
	buf        []byte      // inSize bytes
	start, end int         // buf[start:end] is not yet served
	large      []byte      // a message that does not fit buf
	rights     *uds.Rights // of the message at start, or the one being served
	later      uds.Rights  // of the message at laterAt
	laterAt    int
}

func newInbox(sock *uds.Conn, rights *uds.Rights) inbox {
	return inbox{sock: sock, buf: make([]byte, inSize), rights: rights, later: uds.Rights{Limit: rights.Limit}}
}

// close closes the descriptors that nobody took.
func (in *inbox) close() {
	in.rights.Close()
	in.later.Close()
}

// empty reports whether everything there was is served.
func (in *inbox) empty() bool { return in.start == in.end }

// has reports whether the next n bytes are there.
func (in *inbox) has(n int) bool { return in.end-in.start >= n }

// fill waits for more bytes. What is there is less than a message, and less than buf.
func (in *inbox) fill() error {
	// All messages before the one at start were served.
	in.later.MoveTo(in.rights)
	if in.empty() {
		in.start, in.end = 0, 0
	} else if in.start > 0 {
		in.end = copy(in.buf, in.buf[in.start:in.end])
		in.start = 0
	}
	n, err := in.sock.Read(in.buf[in.end:], &in.later)
	if err != nil {
		return cut(err, in.end > 0)
	}
	in.end += n
	if in.later.Len() > 0 {
		in.laterAt = in.lastMessage()
	}
	return nil
}

// cut is err, or io.ErrUnexpectedEOF for an end inside a message.
func cut(err error, inside bool) error {
	if inside && errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// lastMessage returns where the last message in the buffer begins.
func (in *inbox) lastMessage() int {
	at := in.start
	for in.end-at >= headerSize {
		// One whose size is too small ends with its header.
		size := max(int64(decodeHeader(in.buf[at:]).size), headerSize)
		if size >= int64(in.end-at) {
			break
		}
		at += int(size)
	}
	return at
}

// claim takes the descriptors of the message at start over into rights.
func (in *inbox) claim() {
	if in.later.Len() > 0 && in.laterAt == in.start {
		in.later.MoveTo(in.rights)
	}
}

// take returns the next n bytes, which are there, until the next fill.
func (in *inbox) take(n int) []byte {
	p := in.buf[in.start : in.start+n : in.start+n]
	in.start += n
	return p
}

// takeLarge returns the next n bytes, more than buf holds, until the next call.
func (in *inbox) takeLarge(n int) ([]byte, error) {
	if len(in.large) < n {
		in.large = make([]byte, min(max(n, 2*len(in.large)), maxMessage))
	}
	p := in.large[:n]
	got := copy(p, in.buf[in.start:in.end])
	in.start, in.end = 0, 0
	for got < n {
		m, err := in.sock.Read(p[got:], in.rights)
		if err != nil {
			return nil, cut(err, true)
		}
		got += m
	}
	return p, nil
}

// skip drops the next n bytes and the descriptors that come with them.
func (in *inbox) skip(n int64) error {
	have := min(n, int64(in.end-in.start))
	in.start += int(have)
	for n -= have; n > 0; {
		m, err := in.sock.Read(in.buf[:min(n, inSize)], in.rights)
		if err != nil {
			return cut(err, true)
		}
		in.rights.Close()
		n -= int64(m)
	}
	return nil
}

// receive returns the next message. Before it waits for the client, it sends the
// replies that are collected. A *refusal means that the message is wrong and was
// read to its end, but for the body of one that is too large; any other error means
// that the connection is over. body is valid until the next receive.
func (c *conn) receive() (h header, body []byte, err error) {
	for !c.in.has(headerSize) {
		if err := c.more(); err != nil {
			return h, nil, err
		}
	}
	c.in.claim()
	h = decodeHeader(c.in.buf[c.in.start:])
	if h.size < headerSize || h.size > maxMessage {
		c.trace(Received, c.in.take(headerSize), nil, nil, c.rights.Len())
		return h, nil, refuse(unix.EINVAL, "%v has message size %d; sizes are %d to %d", h.command, h.size, headerSize, maxMessage)
	}
	n := int(h.size)
	var msg []byte
	if n > inSize {
		err := c.flush()
		if err == nil {
			msg, err = c.in.takeLarge(n)
		}
		if err != nil {
			return h, nil, err
		}
	} else {
		for !c.in.has(n) {
			if err := c.more(); err != nil {
				return h, nil, err
			}
			c.in.claim()
		}
		msg = c.in.take(n)
	}
	body = msg[headerSize:]
	c.trace(Received, msg[:headerSize], body, nil, c.rights.Len())
	switch {
	case c.rights.Lost() > 0:
		err = refuse(unix.EINVAL, "%v comes with %d descriptors, and %d could not be taken; send at most %d, within this process's limit", h.command, c.rights.Len(), c.rights.Lost(), maxFDs)
	case h.isReply():
	case h.flags&^flagNoReply != 0:
		err = refuse(unix.EINVAL, "%v has flags %#x; a command has type 0 and perhaps No_reply (%#x)", h.command, h.flags, flagNoReply)
	}
	return h, body, err
}

// more sends the collected replies and waits for more bytes.
func (c *conn) more() error {
	if err := c.flush(); err != nil {
		return err
	}
	return c.in.fill()
}

// maxRegister is the largest access that registers serves: what a processor does
// with one instruction.
const maxRegister = 8

// registers serves the register accesses at the front of the buffer as serve would, in a
// third of the time. It stops at the first message that is not whole, is something else or
// has a mistake, and at one that may have descriptors: those are for serve. So is everything
// when the client may signal eventfds: a signal comes before the accesses behind it.
func (c *conn) registers() error {
	const size = headerSize + accessSize
	if c.s.cfg.Trace != nil || c.watch != nil || c.in.later.Len() > 0 || c.rights.Len() > 0 {
		return nil
	}
	for {
		msg := c.in.buf[c.in.start:c.in.end]
		if len(msg) < size {
			return nil
		}
		h := decodeHeader(msg)
		a := access{order.Uint64(msg[headerSize:]), order.Uint32(msg[headerSize+8:]), order.Uint32(msg[headerSize+12:])}
		if h.flags&^flagNoReply != 0 || a.region >= NumRegions || a.count > maxRegister {
			return nil
		}
		r := &c.regions[a.region]
		if a.off > r.Size || uint64(a.count) > r.Size-a.off {
			return nil
		}
		read, flag, taken := h.command == cmdRegionRead, RegionRead, size
		if !read {
			if h.command != cmdRegionWrite {
				return nil
			}
			flag, taken = RegionWrite, size+int(a.count)
		}
		if r.Flags&flag == 0 || h.size != uint32(taken) || len(msg) < taken {
			return nil
		}
		if !read || len(c.batch) > maxBatch-size-maxRegister {
			if err := c.flush(); err != nil { // as settleReplies
				return err
			}
		}
		c.in.start += taken
		at := len(c.batch)
		reply := c.batch[at : at+size]
		if read {
			reply = c.batch[at : at+size+int(a.count)]
			if err := c.s.backend.ReadRegion(int(a.region), a.off, reply[size:]); err != nil {
				c.notRead(a, reply[size:], err)
			}
		} else if err := c.s.backend.WriteRegion(int(a.region), a.off, msg[size:taken]); err != nil {
			c.warnAccess(cmdRegionWrite, a, err)
		}
		if h.flags&flagNoReply != 0 {
			continue
		}
		copy(reply, msg[:size])
		header{id: h.id, command: h.command, size: uint32(len(reply)), flags: flagReply}.put(reply)
		c.batch = c.batch[:at+len(reply)]
	}
}
