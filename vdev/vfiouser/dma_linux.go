// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
)

// maxPending bounds the DMA messages of a connection that wait for a reply,
// those included whose sender gave up: their ids stay taken until the reply.
const maxPending = 1024

var (
	errDetached = errors.New("vfiouser: the client is gone")
	errRevoked  = errors.New("vfiouser: the range was unmapped while the message was under way")
)

// messageMemory is a DMA range without a descriptor: every access is a message.
type messageMemory struct {
	c    *conn
	base iova.Addr
}

func (m *messageMemory) ReadAt(p []byte, off uint64) error {
	return m.access(cmdDMARead, p, off)
}

func (m *messageMemory) WriteAt(p []byte, off uint64) error {
	return m.access(cmdDMAWrite, p, off)
}

// Close does nothing: there is nothing but the connection behind the range.
func (m *messageMemory) Close() {}

func (m *messageMemory) access(cmd Command, p []byte, off uint64) error {
	if m.c.peerData == 0 {
		return errors.New("vfiouser: the client takes no DMA messages: its max_data_xfer_size is 0")
	}
	for len(p) > 0 {
		n := min(len(p), m.c.peerData)
		if err := m.c.dma(cmd, m.base+iova.Addr(off), p[:n], m.c.s.cfg.DMATimeout); err != nil {
			return err
		}
		p = p[n:]
		off += uint64(n)
	}
	return nil
}

// dmaRequest is a DMA message that waits for its reply. Who removes live from
// it, under conn.mu, decides the outcome: the reply, a revocation or the timeout.
type dmaRequest struct {
	command Command
	addr    iova.Addr
	p       []byte
	live    bool // guarded by conn.mu
	done    chan struct{}
	err     error // read after done is closed
}

// dma sends one DMA_READ or DMA_WRITE and waits for the reply.
func (c *conn) dma(cmd Command, addr iova.Addr, p []byte, wait time.Duration) error {
	r := &dmaRequest{command: cmd, addr: addr, p: p, live: true, done: make(chan struct{})}
	id, err := c.enlist(r)
	if err != nil {
		return err
	}
	h := header{id: id, command: cmd, size: headerSize + 16}
	var data []byte
	if cmd == cmdDMAWrite {
		data = p
		h.size += uint32(len(p))
	}
	msg := make([]byte, headerSize, headerSize+16)
	h.put(msg)
	msg = order.AppendUint64(msg, uint64(addr))
	msg = order.AppendUint64(msg, uint64(len(p)))
	c.trace(Sent, msg[:headerSize], msg[headerSize:], data, 0)
	if err := c.cmds.Send(msg, data); err != nil {
		c.sock.Shutdown()
		c.settle(r, err)
	}
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	select {
	case <-r.done:
	case <-timeout.C:
		c.settle(r, fmt.Errorf("vfiouser: no reply to %v of %d bytes at %v within %v: %w", cmd, len(p), addr, wait, os.ErrDeadlineExceeded))
		<-r.done
	}
	return r.err
}

// enlist gives r an id. The id stays taken until its reply comes.
func (c *conn) enlist(r *dmaRequest) (uint16, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.gone:
		return 0, errDetached
	case c.revoking && r.addr <= c.revokeLast && r.addr+iova.Addr(len(r.p)-1) >= c.revokeFirst:
		return 0, errRevoked
	case len(c.pending) >= maxPending:
		return 0, fmt.Errorf("vfiouser: %d DMA messages without a reply", maxPending)
	}
	for {
		c.nextID++
		if _, taken := c.pending[c.nextID]; !taken {
			c.pending[c.nextID] = r
			return c.nextID, nil
		}
	}
}

// settle ends r with err, unless something else ended it already.
func (c *conn) settle(r *dmaRequest, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settleLocked(r, err)
}

func (c *conn) settleLocked(r *dmaRequest, err error) {
	if r.live {
		r.live = false
		r.err = err
		close(r.done)
	}
}

// revoke fails the messages under way to [first, last], now and until the
// returned function is called. The connection's goroutine unmaps in between: it
// could wait for ever for an access whose reply only it can hand out.
func (c *conn) revoke(first, last iova.Addr) (end func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revoking, c.revokeFirst, c.revokeLast = true, first, last
	for _, r := range c.pending {
		if r.addr <= last && r.addr+iova.Addr(len(r.p)-1) >= first {
			c.settleLocked(r, errRevoked)
		}
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.revoking = false
	}
}

// depart fails every message, now and later.
func (c *conn) depart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	for _, r := range c.pending {
		c.settleLocked(r, errDetached)
	}
	clear(c.pending)
}

// deliver hands a reply to the request that waits for it. A reply that nobody
// asked for is refused; one that came too late is dropped.
func (c *conn) deliver(h header, body []byte) error {
	c.mu.Lock()
	r := c.pending[h.id]
	if r == nil || r.command != h.command {
		c.mu.Unlock()
		return refuse(unix.EINVAL, "reply to %v, id %d, that nobody asked for; send commands with type 0", h.command, h.id)
	}
	delete(c.pending, h.id)
	live := r.live
	r.live = false // the copy below is ours now
	c.mu.Unlock()
	if !live {
		return nil
	}
	r.err = r.complete(h, body)
	close(r.done)
	return nil
}

// complete checks a reply and takes its data. Both replies carry address u64,
// count u64; QEMU before 11.0 had a 32-bit count, and its data elsewhere.
func (r *dmaRequest) complete(h header, body []byte) error {
	if h.flags&flagError != 0 {
		if h.errno == 0 {
			return fmt.Errorf("vfiouser: the client refused %v at %v", r.command, r.addr)
		}
		return fmt.Errorf("vfiouser: the client refused %v at %v: %w", r.command, r.addr, unix.Errno(h.errno))
	}
	want := 16
	if r.command == cmdDMARead {
		want += len(r.p)
	}
	if len(body) != want {
		return fmt.Errorf("vfiouser: reply to %v of %d bytes has %d bytes, want %d", r.command, len(r.p), len(body), want)
	}
	addr, count := order.Uint64(body), order.Uint64(body[8:])
	if addr != uint64(r.addr) || count != uint64(len(r.p)) {
		return fmt.Errorf("vfiouser: reply to %v of %d bytes at %v names %d bytes at %#x", r.command, len(r.p), r.addr, count, addr)
	}
	if r.command == cmdDMARead {
		return copyGuarded(r.p, body[16:])
	}
	return nil
}
