// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"errors"
	"io"
	"log/slog"
	"sync"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/internal/uds"
)

// conn is one client. The goroutine in ServeConn owns all fields but those that
// name mu; the buffers are valid until its next message.
type conn struct {
	s       *Server
	sock    *uds.Conn
	regions []Region
	irqs    []IRQ
	files   files

	// What VERSION agreed on.
	peerFDs   int    // descriptors that a message to the client may have
	peerData  int    // largest data of a message to the client, at most maxData
	maxMaps   uint64 // ranges that the client may have mapped
	pageMask  uint64 // bits that are 0 in addresses and sizes of ranges
	maxBitmap uint64 // bytes of a bitmap of written pages
	twin      *twin  // nil if there is none

	// cmds is where our commands go: sock, or the twin socket.
	cmds *uds.Conn

	head   [headerSize]byte // header received
	in     []byte           // body received
	rights uds.Rights       // descriptors received with the message
	out    []byte           // reply: header, then payload

	// turn is held while the Backend is called: by the connection's goroutine for a
	// message, by the watch's for a signal. watch is nil until there is something to
	// watch.
	turn     sync.Mutex
	watch    *watch
	events   map[irqEvent]watched
	ioEvents [NumRegions]*ioEvents

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
		cmds:    sock,
		in:      make([]byte, 4096),
		out:     make([]byte, headerSize, 4096),
		rights:  uds.Rights{Limit: maxFDs},
		events:  make(map[irqEvent]watched),
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
	c.rights.Close() // VERSION has no use for descriptors
	var caps capabilities
	var minor uint16
	if err == nil {
		minor, caps, err = parseVersion(body)
	}
	if err != nil {
		var wrong *refusal
		if errors.As(err, &wrong) {
			return errors.Join(err, c.replyError(h, wrong))
		}
		return err
	}
	c.regions, c.irqs = c.s.backend.Regions(), c.s.backend.IRQs()
	if len(c.regions) != NumRegions || len(c.irqs) != NumIRQs {
		panic("vfiouser: BUG: the Backend does not have the regions and interrupt types of a PCI function")
	}

	reply := c.agree(caps)
	var fds []int
	if t := caps.TwinSocket; t != nil && t.Supported && c.peerFDs > 0 {
		far, err := c.openTwin()
		if err != nil {
			return err
		}
		defer far.Close()
		fds = []int{int(far.Fd())}
		reply.TwinSocket = &twinCapability{Supported: true, FDIndex: new(uint64)}
	}
	c.out = appendVersion(c.out[:headerSize], min(minor, 0), reply)
	err = c.reply(h, c.out, fds...)
	if err != nil && c.twin != nil {
		c.twin.close()
	}
	return err
}

// step serves one message. An error means that the connection is over.
func (c *conn) step() error {
	defer c.rights.Close()
	h, body, err := c.receive()
	var fds []int
	if err == nil {
		if h.isReply() {
			err = c.deliver(h, body)
			if err == nil {
				return nil
			}
		} else {
			c.out = c.out[:headerSize]
			fds, err = c.handle(h, body)
		}
	}
	if err == nil {
		return c.reply(h, c.out, fds...)
	}
	var wrong *refusal
	if !errors.As(err, &wrong) {
		return err
	}
	if err := c.replyError(h, wrong); err != nil {
		return err
	}
	if h.size > maxMessage {
		return c.skip(h.size - headerSize)
	}
	return nil
}

// receive reads one message. A *refusal means that the message is wrong and was
// read to its end, but for the body of one that is too large; any other error
// means that the connection is over.
func (c *conn) receive() (h header, body []byte, err error) {
	if err := c.sock.Recv(c.head[:], &c.rights); err != nil {
		return h, nil, err
	}
	h = decodeHeader(c.head[:])
	if h.size < headerSize || h.size > maxMessage {
		c.trace(Received, c.head[:], nil, nil, c.rights.Len())
		return h, nil, refuse(unix.EINVAL, "%v has message size %d; sizes are %d to %d", h.command, h.size, headerSize, maxMessage)
	}
	n := int(h.size - headerSize)
	if n > len(c.in) {
		c.in = make([]byte, max(n, min(2*len(c.in), maxMessage-headerSize)))
	}
	body = c.in[:n]
	if err := c.sock.Recv(body, &c.rights); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return h, nil, err
	}
	c.trace(Received, c.head[:], body, nil, c.rights.Len())
	switch {
	case c.rights.Lost() > 0:
		err = refuse(unix.EINVAL, "%v comes with %d descriptors, and %d could not be taken; send at most %d, within this process's limit", h.command, c.rights.Len(), c.rights.Lost(), maxFDs)
	case h.isReply():
	case h.flags&^flagNoReply != 0:
		err = refuse(unix.EINVAL, "%v has flags %#x; a command has type 0 and perhaps No_reply (%#x)", h.command, h.flags, flagNoReply)
	}
	return h, body, err
}

// skip reads and drops n bytes of a message that was refused.
func (c *conn) skip(n uint32) error {
	for n > 0 {
		part := c.in[:min(uint64(n), uint64(len(c.in)))]
		if err := c.sock.Recv(part, &c.rights); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		c.rights.Close()
		n -= uint32(len(part))
	}
	return nil
}

// reply sends msg, whose first headerSize bytes are free, as the reply to h,
// unless h wants none.
func (c *conn) reply(h header, msg []byte, fds ...int) error {
	if h.flags&flagNoReply != 0 {
		return nil
	}
	header{id: h.id, command: h.command, size: uint32(len(msg)), flags: flagReply}.put(msg)
	return c.send(msg, fds)
}

// replyError sends the error reply, a header alone, and logs the rule.
func (c *conn) replyError(h header, wrong *refusal) error {
	c.warnRefused(h, wrong)
	if h.flags&flagNoReply != 0 {
		return nil
	}
	c.out = c.out[:headerSize]
	header{
		id: h.id, command: h.command, size: headerSize,
		flags: flagReply | flagError, errno: uint32(wrong.errno),
	}.put(c.out)
	return c.send(c.out, nil)
}

func (c *conn) warnRefused(h header, wrong *refusal) {
	c.s.warn("vfio-user message refused",
		slog.String("command", h.command.String()), slog.Int("id", int(h.id)),
		slog.String("errno", unix.ErrnoName(wrong.errno)), slog.String("rule", wrong.rule))
}

func (c *conn) send(msg []byte, fds []int) error {
	c.trace(Sent, msg[:headerSize], msg[headerSize:], nil, len(fds))
	return c.sock.Send(msg, nil, fds...)
}

// trace reports a message whose body is body and tail.
func (c *conn) trace(dir Direction, head, body, tail []byte, nfds int) {
	if c.s.cfg.Trace == nil {
		return
	}
	if len(tail) > 0 {
		body = append(append([]byte(nil), body...), tail...)
	}
	c.s.cfg.Trace(dir, head, body, nfds)
}

// detach leaves the device as Backend.Detach describes.
func (c *conn) detach() {
	c.depart()
	if c.twin != nil {
		c.twin.close()
	}
	if c.watch != nil {
		c.watch.close()
	}
	c.s.backend.Detach()
	c.s.migration.state = MigrationRunning
	for index := range c.irqs {
		c.clearIRQs(index)
	}
	c.closeIOEvents()
	c.s.backend.UnmapAllDMA()
	if c.s.table != nil {
		c.s.table.StopLog()
	}
}
