// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"errors"
	"log/slog"
	"sync"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
	"npuemu/internal/uds"
)

// conn is one client. The goroutine in ServeConn owns all fields but those that
// name mu; the buffers are valid until its next message.
type conn struct {
	s        *Server
	sock     *uds.Conn
	regions  []Region
	irqs     []IRQ
	peerData int // largest data of a message to the client, at most maxData
	files    files

	in  inbox
	out []byte // replies collected, then the payload of the one in the making

	// events are the eventfds that tell the client of MASK and UNMASK.
	events map[irqEvent]*eventfd.FD

	mu      sync.Mutex             // guards what follows
	pending map[uint16]*dmaRequest // by message id
	nextID  uint16
	gone    bool // the client has gone; no message will be answered
	// While revoking, messages to [revokeFirst, revokeLast] fail at once.
	revoking                bool
	revokeFirst, revokeLast iova.Addr
}

func newConn(s *Server, sock *uds.Conn) *conn {
	return &conn{
		s:       s,
		sock:    sock,
		in:      newInbox(sock),
		out:     make([]byte, 0, maxBatch),
		events:  make(map[irqEvent]*eventfd.FD),
		pending: make(map[uint16]*dmaRequest),
	}
}

// negotiate receives VERSION and answers it. After an error the connection is to
// be closed.
func (c *conn) negotiate() error {
	h, body, err := c.receive()
	if err == nil && (h.isReply() || h.command != cmdVersion || h.flags&flagNoReply != 0) {
		err = refuse(unix.EINVAL, "the first message is %v with flags %#x; start with VERSION, and wait for its reply", h.command, h.flags)
	}
	c.in.rights.Close() // VERSION has no use for descriptors
	var caps capabilities
	var minor uint16
	if err == nil {
		minor, caps, err = parseVersion(body)
	}
	if err != nil {
		c.in.close() // framing may be lost, and descriptors with what follows
		var wrong *refusal
		if errors.As(err, &wrong) {
			return errors.Join(err, c.replyError(h, 0, wrong), c.flush())
		}
		return err
	}
	c.peerData = maxData
	if n := caps.MaxDataXferSize; n != nil && *n < maxData {
		c.peerData = int(*n)
	}
	c.regions, c.irqs = c.s.backend.Regions(), c.s.backend.IRQs()
	if len(c.regions) != NumRegions || len(c.irqs) != NumIRQs {
		panic("vfiouser: BUG: the Backend does not have the regions and interrupt types of a PCI function")
	}

	fds, data := uint64(maxFDs), uint64(maxData)
	c.out = appendVersion(append(c.out, noHeader[:]...), min(minor, 0), capabilities{
		MaxMsgFDs:       &fds,
		MaxDataXferSize: &data,
		WriteMultiple:   caps.WriteMultiple, // only what was proposed may be in the reply
	})
	return c.reply(h, 0, 0)
}

// noHeader is room for the header of a reply.
var noHeader [headerSize]byte

// step waits for the client, serves the register accesses that came, and then one
// message if there is more. An error means that the connection is over.
func (c *conn) step() error {
	if c.in.start == c.in.end {
		if err := c.more(); err != nil {
			return err
		}
	}
	if c.registers(); c.in.start == c.in.end {
		return nil
	}
	h, body, err := c.receive()
	at := len(c.out)
	switch {
	case err != nil:
	case h.isReply():
		err = c.deliver(h, body)
	default:
		c.out = append(c.out, noHeader[:]...)
		var fd int
		if fd, err = c.handle(h, body); err == nil {
			err = c.reply(h, at, fd)
		}
	}
	if err != nil {
		err = c.refuse(h, at, err)
	}
	c.in.rights.Close()
	return err
}

// refuse answers h with the error err, if that is a *refusal; any other it returns.
func (c *conn) refuse(h header, at int, err error) error {
	var wrong *refusal
	if !errors.As(err, &wrong) {
		return err
	}
	if err := c.replyError(h, at, wrong); err != nil || h.size <= maxMessage {
		return err
	}
	if err := c.flush(); err != nil {
		return err
	}
	return c.in.skip(int64(h.size) - headerSize)
}

// reply completes the reply to h, which is c.out from at on, with room for the header.
func (c *conn) reply(h header, at, fd int) error {
	header{id: h.id, command: h.command, size: uint32(len(c.out) - at), flags: flagReply}.put(c.out[at:])
	return c.collect(h, at, fd)
}

// replyError puts the error reply to h, a header alone, in the place of c.out from at
// on, and logs the rule.
func (c *conn) replyError(h header, at int, wrong *refusal) error {
	c.s.warn("vfio-user message refused",
		slog.String("command", h.command.String()), slog.Int("id", int(h.id)),
		slog.String("errno", unix.ErrnoName(wrong.errno)), slog.String("rule", wrong.rule))
	c.out = append(c.out[:at], noHeader[:]...)
	header{
		id: h.id, command: h.command, size: headerSize,
		flags: flagReply | flagError, errno: uint32(wrong.errno),
	}.put(c.out[at:])
	return c.collect(h, at, 0)
}

// collect leaves the reply to h, c.out from at on, for the next flush, unless h wants
// none. A reply that does not fit a batch, or comes with the descriptor fd, which is
// then not 0, goes out at once and alone.
func (c *conn) collect(h header, at, fd int) error {
	msg := c.out[at:]
	if h.flags&flagNoReply != 0 {
		c.out = c.out[:at]
		return nil
	}
	nfds := 0
	if fd != 0 {
		nfds = 1
	}
	c.trace(Sent, msg[:headerSize], msg[headerSize:], nil, nfds)
	if nfds == 0 && len(c.out) <= maxBatch {
		return nil
	}
	c.out = c.out[:at]
	err := c.flush()
	switch {
	case err != nil:
		return err
	case nfds == 0:
		return c.sock.Send(msg, nil)
	}
	return c.sock.Send(msg, nil, fd)
}

// flush sends the collected replies.
func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	err := c.sock.Send(c.out, nil)
	c.out = c.out[:0]
	return err
}

// trace reports a message whose body is body and tail.
func (c *conn) trace(dir Direction, head, body, tail []byte, nfds int) {
	if c.s.cfg.Trace != nil {
		c.report(dir, head, body, tail, nfds)
	}
}

func (c *conn) report(dir Direction, head, body, tail []byte, nfds int) {
	if len(tail) > 0 {
		body = append(append([]byte(nil), body...), tail...)
	}
	c.s.cfg.Trace(dir, head, body, nfds)
}

// detach leaves the device as Backend.Detach describes.
func (c *conn) detach() {
	c.depart()
	c.s.backend.Detach()
	for index := range c.irqs {
		c.clearIRQs(index)
	}
	c.s.backend.UnmapAllDMA()
}
