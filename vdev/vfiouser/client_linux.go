// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
	"npuemu/internal/uds"
)

// Client is the client side of a connection. Methods are safe for concurrent
// use and wait for the server's reply; a refusal wraps the errno of the reply.
// One goroutine receives replies and serves the server's DMA messages.
type Client struct {
	sock *uds.Conn
	twin *uds.Conn // for the server's commands, or nil
	// agreed is what VERSION agreed on: what the server takes, and of the rest what
	// both sides know.
	agreed Offer
	// memory holds the ranges that the server reaches by messages.
	memory iova.Table
	done   chan struct{} // closed when the receiving goroutine has ended
	served chan struct{} // closed when that of the twin socket has, if there is one

	mu      sync.Mutex               // guards what follows
	calls   map[uint16]chan<- result // waiting for a reply, by message id
	nextID  uint16
	lastErr error // why the connection ended
}

// result is the outcome of a call. files are the receiver's.
type result struct {
	body []byte
	fds  []int
	err  error
}

// Dial connects to the server at path and negotiates.
func Dial(path string) (*Client, error) {
	nc, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("vfiouser: dial: %w", err)
	}
	return NewClient(nc)
}

// NewClient negotiates on nc, which it owns, with DefaultOffer.
func NewClient(nc *net.UnixConn) (*Client, error) {
	return NewClientWith(nc, DefaultOffer())
}

// NewClientWith negotiates on nc, which it owns.
func NewClientWith(nc *net.UnixConn, offer Offer) (*Client, error) {
	sock, err := uds.New(nc, sendTimeout)
	if err != nil {
		return nil, err
	}
	c := &Client{sock: sock, done: make(chan struct{}), calls: make(map[uint16]chan<- result)}
	go c.receive()
	r := c.do(cmdVersion, appendVersion(nil, 0, offer.capabilities()), nil, 0)
	err = r.err
	if err == nil {
		err = c.agree(offer, r)
	}
	for _, fd := range r.fds {
		unix.Close(fd)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends the connection; calls under way fail. It returns when no DMA
// message is being served any more.
func (c *Client) Close() {
	c.sock.Shutdown()
	<-c.done
	if c.twin != nil {
		c.twin.Shutdown()
		<-c.served
		c.twin.Close()
	}
	c.sock.Close()
	c.memory.UnmapAll()
}

// Info returns the device's flags and its numbers of regions and interrupt types.
func (c *Client) Info() (flags uint32, regions, irqs int, err error) {
	req := make([]byte, infoSize)
	order.PutUint32(req, infoSize)
	b, err := c.callFixed(cmdGetInfo, req, infoSize)
	if err != nil {
		return 0, 0, 0, err
	}
	return order.Uint32(b[4:]), int(order.Uint32(b[8:])), int(order.Uint32(b[12:])), nil
}

// RegionInfo describes a region. Its File, if there is one, is the caller's.
func (c *Client) RegionInfo(index int) (Region, error) {
	const argsz = 4096 // room for 252 areas
	req := make([]byte, regionInfoSize)
	order.PutUint32(req, argsz)
	order.PutUint32(req[8:], uint32(index))
	r := c.do(cmdGetRegionInfo, req, nil, 0)
	if r.err != nil {
		return Region{}, r.err
	}
	var file *os.File
	for i, fd := range r.fds {
		if i == 0 {
			file = os.NewFile(uintptr(fd), fmt.Sprintf("vfio-user region %d", index))
			continue
		}
		unix.Close(fd)
	}
	reg, err := parseRegion(r.body)
	if err != nil {
		if file != nil {
			file.Close()
		}
		return Region{}, err
	}
	reg.File = file
	return reg, nil
}

func parseRegion(b []byte) (Region, error) {
	short := fmt.Errorf("vfiouser: region info of %d bytes is cut short", len(b))
	if len(b) < regionInfoSize {
		return Region{}, short
	}
	r := Region{Size: order.Uint64(b[16:]), Flags: RegionFlags(order.Uint32(b[4:]))}
	if r.Flags&regionCaps == 0 {
		return r, nil
	}
	r.Flags &^= regionCaps
	off := order.Uint32(b[12:])
	if uint64(off)+16 > uint64(len(b)) {
		return Region{}, short
	}
	b = b[off:]
	if id := order.Uint16(b); id != capSparseMmap {
		return Region{}, fmt.Errorf("vfiouser: region capability %d is unknown", id)
	}
	n, areas := order.Uint32(b[8:]), b[16:]
	if uint64(n)*16 > uint64(len(areas)) {
		return Region{}, short
	}
	for i := range n {
		a := areas[16*i:]
		r.Areas = append(r.Areas, Area{Off: order.Uint64(a), Size: order.Uint64(a[8:])})
	}
	return r, nil
}

// IRQInfo describes an interrupt type.
func (c *Client) IRQInfo(index int) (IRQ, error) {
	req := make([]byte, irqInfoSize)
	order.PutUint32(req, irqInfoSize)
	order.PutUint32(req[8:], uint32(index))
	b, err := c.callFixed(cmdGetIRQInfo, req, irqInfoSize)
	if err != nil {
		return IRQ{}, err
	}
	return IRQ{Count: int(order.Uint32(b[12:])), Flags: IRQFlags(order.Uint32(b[4:]))}, nil
}

// appendAccess appends the fixed part of a region access.
func appendAccess(b []byte, index int, off uint64, n int) []byte {
	b = order.AppendUint64(b, off)
	b = order.AppendUint32(b, uint32(index))
	return order.AppendUint32(b, uint32(n))
}

// ReadRegion fills p, at most 1 MiB, from a region.
func (c *Client) ReadRegion(index int, off uint64, p []byte) error {
	b, err := c.callFixed(cmdRegionRead, appendAccess(nil, index, off, len(p)), accessSize+len(p))
	if err != nil {
		return err
	}
	copy(p, b[accessSize:])
	return nil
}

// WriteRegion writes p, at most 1 MiB, to a region and waits until it was done.
func (c *Client) WriteRegion(index int, off uint64, p []byte) error {
	_, err := c.call(cmdRegionWrite, append(appendAccess(nil, index, off, len(p)), p...), nil)
	return err
}

// PostRegion writes p to a region without waiting, as QEMU does for memory BARs.
// What comes after it on this connection is done after it.
func (c *Client) PostRegion(index int, off uint64, p []byte) error {
	return c.do(cmdRegionWrite, append(appendAccess(nil, index, off, len(p)), p...), nil, flagNoReply).err
}

// MultiWrite is one write of WriteMulti, of at most 8 bytes.
type MultiWrite struct {
	Index int
	Off   uint64
	Data  []byte
}

// WriteMulti does several writes in one message, if the server has agreed to that.
func (c *Client) WriteMulti(writes []MultiWrite) error {
	if !c.agreed.WriteMultiple {
		return errors.New("vfiouser: the server does not take several writes in a message; use WriteRegion")
	}
	req := order.AppendUint64(nil, uint64(len(writes)))
	for _, w := range writes {
		if len(w.Data) > multiDataSize {
			return fmt.Errorf("vfiouser: a write of %d bytes; WriteMulti takes at most %d", len(w.Data), multiDataSize)
		}
		req = appendAccess(req, w.Index, w.Off, len(w.Data))
		var data [multiDataSize]byte
		copy(data[:], w.Data)
		req = append(req, data[:]...)
	}
	_, err := c.callFixed(cmdWriteMulti, req, 8)
	return err
}

func dmaMapRequest(addr iova.Addr, size uint64, prot iova.Prot, off uint64) []byte {
	req := order.AppendUint32(nil, dmaMapSize)
	req = order.AppendUint32(req, uint32(prot))
	req = order.AppendUint64(req, off)
	req = order.AppendUint64(req, uint64(addr))
	return order.AppendUint64(req, size)
}

// MapDMA lets the device reach size bytes of f from offset off at addr. f stays
// the caller's.
func (c *Client) MapDMA(addr iova.Addr, size uint64, prot iova.Prot, f *os.File, off uint64) error {
	_, err := c.call(cmdDMAMap, dmaMapRequest(addr, size, prot, off), []int{int(f.Fd())})
	return err
}

// MapMemory lets the device reach mem at addr by messages, which the client
// serves. The client closes mem when it is unmapped or when Map fails.
func (c *Client) MapMemory(addr iova.Addr, size uint64, prot iova.Prot, mem iova.Memory) error {
	if err := c.memory.Map(addr, size, prot, mem); err != nil {
		mem.Close()
		return err
	}
	_, err := c.call(cmdDMAMap, dmaMapRequest(addr, size, prot, 0), nil)
	if err != nil {
		err = errors.Join(err, c.memory.Unmap(addr, size))
	}
	return err
}

// UnmapDMA takes back every range inside [addr, addr+size).
func (c *Client) UnmapDMA(addr iova.Addr, size uint64) error {
	if err := c.unmap(0, addr, size); err != nil {
		return err
	}
	return c.memory.Unmap(addr, size)
}

// UnmapAllDMA takes back every range.
func (c *Client) UnmapAllDMA() error {
	if err := c.unmap(unmapAll, 0, 0); err != nil {
		return err
	}
	c.memory.UnmapAll()
	return nil
}

func (c *Client) unmap(flags uint32, addr iova.Addr, size uint64) error {
	_, err := c.call(cmdDMAUnmap, unmapRequest(flags, addr, size), nil)
	return err
}

func unmapRequest(flags uint32, addr iova.Addr, size uint64) []byte {
	req := order.AppendUint32(nil, dmaUnmapSize)
	req = order.AppendUint32(req, flags)
	req = order.AppendUint64(req, uint64(addr))
	return order.AppendUint64(req, size)
}

// SetVectors attaches an eventfd to each vector from start on, with as many messages as
// the server's limit of descriptors takes. The eventfds stay the caller's.
func (c *Client) SetVectors(index, start int, fds ...*eventfd.FD) error {
	for len(fds) > 0 {
		n := min(len(fds), max(1, int(c.agreed.MaxMsgFDs)))
		if err := c.SetIRQs(IRQSet{Index: index, Start: start, Count: n, Action: IRQTrigger, FDs: fds[:n]}); err != nil {
			return err
		}
		start, fds = start+n, fds[n:]
	}
	return nil
}

// ClearVectors detaches every eventfd of an interrupt type.
func (c *Client) ClearVectors(index int) error {
	return c.SetIRQs(IRQSet{Index: index, Action: IRQTrigger})
}

// MaskVector masks or unmasks a vector.
func (c *Client) MaskVector(index, vector int, masked bool) error {
	action := IRQUnmask
	if masked {
		action = IRQMask
	}
	return c.SetIRQs(IRQSet{Index: index, Start: vector, Count: 1, Action: action})
}

// Reset resets the function.
func (c *Client) Reset() error {
	_, err := c.call(cmdReset, nil, nil)
	return err
}

// call sends a command and returns the payload of the reply.
func (c *Client) call(cmd Command, body []byte, fds []int) ([]byte, error) {
	r := c.do(cmd, body, fds, 0)
	for _, fd := range r.fds {
		unix.Close(fd)
	}
	return r.body, r.err
}

// callFixed is call for a reply of at least size bytes.
func (c *Client) callFixed(cmd Command, body []byte, size int) ([]byte, error) {
	b, err := c.call(cmd, body, nil)
	if err == nil && len(b) < size {
		err = fmt.Errorf("vfiouser: reply to %v has %d bytes, want %d", cmd, len(b), size)
	}
	return b, err
}

func (c *Client) do(cmd Command, body []byte, fds []int, flags uint32) result {
	h := header{command: cmd, size: uint32(headerSize + len(body)), flags: flags}
	done := make(chan result, 1)
	c.mu.Lock()
	if c.lastErr != nil {
		c.mu.Unlock()
		return result{err: c.lastErr}
	}
	for taken := true; taken; _, taken = c.calls[c.nextID] {
		c.nextID++ // 65536 calls at once are not expected to happen
	}
	h.id = c.nextID
	if flags&flagNoReply == 0 {
		c.calls[h.id] = done
	} else {
		done <- result{}
	}
	c.mu.Unlock()
	msg := make([]byte, headerSize, h.size)
	h.put(msg)
	if err := c.sock.Send(append(msg, body...), nil, fds...); err != nil {
		c.sock.Shutdown() // receive ends, and answers every call
		if flags&flagNoReply != 0 {
			return result{err: err}
		}
	}
	return <-done
}

// receive hands out replies and serves DMA messages until the connection ends.
func (c *Client) receive() {
	defer close(c.done)
	var err error
	for err == nil {
		err = c.receiveOne(c.sock)
	}
	c.sock.Shutdown()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastErr = fmt.Errorf("vfiouser: connection ended: %w", err)
	for id, done := range c.calls {
		done <- result{err: c.lastErr}
		delete(c.calls, id)
	}
}

func (c *Client) receiveOne(sock *uds.Conn) error {
	var head [headerSize]byte
	rights := uds.Rights{Limit: maxReplyFDs}
	defer rights.Close()
	if err := sock.Recv(head[:], &rights); err != nil {
		return err
	}
	h := decodeHeader(head[:])
	if h.size < headerSize || h.size > maxReply {
		return fmt.Errorf("%v of %d bytes from the server", h.command, h.size)
	}
	body := make([]byte, h.size-headerSize)
	if err := sock.Recv(body, &rights); err != nil {
		return err
	}
	if !h.isReply() {
		return c.serveDMA(sock, h, body)
	}
	c.mu.Lock()
	done := c.calls[h.id]
	delete(c.calls, h.id)
	c.mu.Unlock()
	if done == nil {
		return nil // the reply to a call that nobody made: harmless
	}
	r := result{body: body}
	if h.flags&flagError != 0 {
		r.err = fmt.Errorf("vfiouser: %v refused: %w", h.command, unix.Errno(h.errno))
	}
	for i := range rights.Len() - rights.Lost() {
		r.fds = append(r.fds, rights.Take(i))
	}
	done <- r
	return nil
}

// serveDMA answers a command of the server, with QEMU's errnos.
func (c *Client) serveDMA(sock *uds.Conn, h header, body []byte) error {
	out, errno := c.dma(h.command, body)
	reply := header{id: h.id, command: h.command, size: headerSize, flags: flagReply}
	if errno != 0 {
		reply.flags |= flagError
		reply.errno = uint32(errno)
		out = nil
	}
	reply.size += uint32(len(out))
	msg := make([]byte, headerSize, reply.size)
	reply.put(msg)
	return sock.Send(append(msg, out...), nil)
}

func (c *Client) dma(cmd Command, body []byte) (reply []byte, errno unix.Errno) {
	if cmd != cmdDMARead && cmd != cmdDMAWrite {
		return nil, unix.ENOSYS
	}
	if len(body) < 16 {
		return nil, unix.EINVAL
	}
	addr, count, data := iova.Addr(order.Uint64(body)), order.Uint64(body[8:]), body[16:]
	if count > maxData {
		return nil, unix.E2BIG
	}
	var err error
	if cmd == cmdDMARead {
		reply = make([]byte, 16+count)
		err = c.memory.Read(addr, reply[16:])
	} else {
		if uint64(len(data)) != count {
			return nil, unix.EINVAL
		}
		reply = make([]byte, 16)
		err = c.memory.Write(addr, data)
	}
	copy(reply, body[:16])
	var fault *iova.Fault
	switch {
	case err == nil:
		return reply, 0
	case errors.As(err, &fault) && fault.Reason == iova.Unmapped:
		return nil, unix.ENODEV
	case errors.As(err, &fault) && fault.Reason == iova.NotPermitted:
		return nil, unix.EPERM
	}
	return nil, unix.EFAULT
}
