// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"errors"
	"log/slog"
	"sync"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/internal/uds"
	"npuemu/internal/warnings"
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

	in     inbox
	rights uds.Rights // descriptors received with the message
	out    []byte     // reply in the making: header, then payload
	batch  []byte     // replies to be sent; at most maxBatch bytes

	// turn is held while the Backend is called: by the connection's goroutine for a
	// message, by the watch's for a signal. watch is nil until there is something to
	// watch.
	turn     sync.Mutex
	watch    *watch
	events   map[irqEvent]watched
	ioEvents [NumRegions]*ioEvents

	touches warnings.Limiter // accesses that Toucher makes messages

	mu      sync.Mutex             // guards what follows
	pending map[uint16]*dmaRequest // by message id
	nextID  uint16
	gone    bool // the client has gone; no message will be answered
	serves  bool // the client answers DMA messages, as far as is known
	// While revoking, messages to [revokeFirst, revokeLast] fail at once.
	revoking                bool
	revokeFirst, revokeLast iova.Addr
}

func newConn(s *Server, sock *uds.Conn) *conn {
	c := &conn{
		s:       s,
		sock:    sock,
		cmds:    sock,
		rights:  uds.Rights{Limit: maxFDs},
		out:     make([]byte, headerSize, 4096),
		batch:   make([]byte, 0, maxBatch),
		events:  make(map[irqEvent]watched),
		pending: make(map[uint16]*dmaRequest),
	}
	c.in = newInbox(sock, &c.rights)
	return c
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
		c.in.close() // framing may be lost, and descriptors with what follows
		var wrong *refusal
		if errors.As(err, &wrong) {
			return errors.Join(err, c.replyError(h, wrong), c.flush())
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

// run serves the client until the connection is over, and returns why: what it says with
// one receive is answered with one send.
func (c *conn) run() error {
	for {
		if c.in.empty() {
			if err := c.more(); err != nil {
				return err
			}
		}
		if err := c.registers(); err != nil {
			return err
		}
		if c.in.empty() {
			continue
		}
		err := c.serve()
		c.rights.Close()
		if err != nil {
			return err
		}
	}
}

// serve receives one message and serves it.
func (c *conn) serve() error {
	h, body, err := c.receive()
	if err == nil {
		if h.isReply() {
			if err = c.deliver(h, body); err == nil {
				return nil
			}
		} else {
			if err := c.settleReplies(h.command); err != nil {
				return err
			}
			if cap(c.out) > 2*maxMessage { // a bitmap of written pages was in it
				c.out = make([]byte, headerSize, 4096)
			}
			c.out = c.out[:headerSize]
			var fds []int
			if fds, err = c.handle(h, body); err == nil {
				return c.reply(h, c.out, fds...)
			}
		}
	}
	var wrong *refusal
	if !errors.As(err, &wrong) {
		return err
	}
	if err := c.replyError(h, wrong); err != nil || h.size <= maxMessage {
		return err
	}
	if err := c.flush(); err != nil {
		return err
	}
	return c.in.skip(int64(h.size) - headerSize)
}

// reply sends msg, whose first headerSize bytes are free, as the reply to h,
// unless h wants none: now, or with the next flush.
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

// send leaves msg for the next flush. If it does not fit, or has descriptors, it goes
// out at once, behind what is collected.
func (c *conn) send(msg []byte, fds []int) error {
	c.trace(Sent, msg[:headerSize], msg[headerSize:], nil, len(fds))
	if len(fds) == 0 && len(msg) <= maxBatch-len(c.batch) {
		c.batch = append(c.batch, msg...)
		return nil
	}
	if err := c.flush(); err != nil {
		return err
	}
	return c.sock.Send(msg, nil, fds...)
}

// flush sends the collected replies.
func (c *conn) flush() error {
	if len(c.batch) == 0 {
		return nil
	}
	err := c.sock.Send(c.batch, nil)
	c.batch = c.batch[:0]
	return err
}

// settleReplies sends the collected replies before a command that may wait for what the
// client does when it has them: an unmap or a reset that waits for DMA messages. Only
// reading a register never waits.
func (c *conn) settleReplies(next Command) error {
	if next == cmdRegionRead {
		return nil
	}
	return c.flush()
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
		c.s.table.Forget()
	}
}
