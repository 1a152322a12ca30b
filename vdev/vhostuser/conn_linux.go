// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"fmt"
	"log/slog"
	"slices"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
	"npuemu/internal/filemap"
	"npuemu/internal/uds"
)

// conn is one connection. Its fields belong to the connection's goroutine; what others
// see is in FrontEnd.
type conn struct {
	s     *Server
	sock  *uds.Conn
	f     *FrontEnd
	kicks *kicks

	rights   uds.Rights // of the message being served
	head     [headerSize]byte
	body     [maxBody]byte
	protocol uint64 // protocol features accepted
	alive    bool   // a driver's life has begun
	running  int    // rings that run
	windows  bool   // the front end has room for shared memory, and it is not mapped
}

func newConn(s *Server, sock *uds.Conn) (*conn, error) {
	k, err := newKicks(s.backend.Kick)
	if err != nil {
		return nil, err
	}
	c := &conn{s: s, sock: sock, f: newFrontEnd(s), kicks: k, rights: uds.Rights{Limit: maxFDs}}
	c.f.back = newBackChannel(s)
	s.backend.Attach(c.f)
	return c, nil
}

// detach gives back all that the connection took.
func (c *conn) detach() {
	c.rights.Close()
	c.kicks.stop()
	c.f.mu.Lock()
	for i := range c.f.rings {
		c.dropLocked(&c.f.rings[i])
	}
	regions := c.f.regions
	c.f.regions = nil
	c.f.mu.Unlock()
	c.s.backend.Detach()
	for _, m := range regions {
		c.forget(m)
	}
	c.f.back.close()
	c.kicks.close()
}

// dropLocked takes everything away from a ring.
func (c *conn) dropLocked(r *ring) {
	c.stopLocked(r)
	for _, fd := range []**eventfd.FD{&r.call, &r.err} {
		if *fd != nil {
			(*fd).Close()
			*fd = nil
		}
	}
}

// stopLocked stops a ring. Requests in flight will find it gone.
func (c *conn) stopLocked(r *ring) {
	if r.running {
		c.running--
	}
	r.started, r.running, r.broken, r.inflight, r.fault = false, false, false, 0, nil
	if r.kick >= 0 {
		c.kicks.del(r.kick)
		unix.Close(r.kick)
		r.kick = -1
	}
}

// message is how a request is served. A body that is not of the given size, more
// descriptors than given, and a protocol feature that was not accepted are refused before
// serve runs.
type message struct {
	name     string
	size     int    // of the body; -1: serve checks it
	fds      int    // descriptors that may come
	protocol uint64 // feature that must have been accepted
	answer   bool   // serve returns the answer's body
	serve    func(c *conn, body []byte) (answer []byte, err error)
}

const anySize = -1

func messageOf(r request) (message, bool) {
	switch r {
	case reqGetFeatures:
		return message{"GET_FEATURES", 0, 0, 0, true, (*conn).getFeatures}, true
	case reqSetFeatures:
		return message{"SET_FEATURES", 8, 0, 0, false, (*conn).setFeatures}, true
	case reqSetOwner:
		return message{"SET_OWNER", 0, 0, 0, false, func(*conn, []byte) ([]byte, error) { return nil, nil }}, true
	case reqResetOwner:
		return message{"RESET_OWNER", 0, 0, 0, false, (*conn).resetDevice}, true
	case reqSetMemTable:
		return message{"SET_MEM_TABLE", anySize, maxTableRegions, 0, false, (*conn).setMemTable}, true
	case reqSetVringNum:
		return message{"SET_VRING_NUM", 8, 0, 0, false, (*conn).setVringNum}, true
	case reqSetVringAddr:
		return message{"SET_VRING_ADDR", 40, 0, 0, false, (*conn).setVringAddr}, true
	case reqSetVringBase:
		return message{"SET_VRING_BASE", 8, 0, 0, false, (*conn).setVringBase}, true
	case reqGetVringBase:
		return message{"GET_VRING_BASE", 8, 0, 0, true, (*conn).getVringBase}, true
	case reqSetVringKick:
		return message{"SET_VRING_KICK", 8, 1, 0, false, (*conn).setVringKick}, true
	case reqSetVringCall:
		return message{"SET_VRING_CALL", 8, 1, 0, false, (*conn).setVringCall}, true
	case reqSetVringErr:
		return message{"SET_VRING_ERR", 8, 1, 0, false, (*conn).setVringErr}, true
	case reqGetProtocolFeatures:
		return message{"GET_PROTOCOL_FEATURES", 0, 0, 0, true, (*conn).getProtocolFeatures}, true
	case reqSetProtocolFeatures:
		return message{"SET_PROTOCOL_FEATURES", 8, 0, 0, false, (*conn).setProtocolFeatures}, true
	case reqGetQueueNum:
		return message{"GET_QUEUE_NUM", 0, 0, protoMQ, true, (*conn).getQueueNum}, true
	case reqSetVringEnable:
		return message{"SET_VRING_ENABLE", 8, 0, 0, false, (*conn).setVringEnable}, true
	case reqSetBackendReqFD:
		return message{"SET_BACKEND_REQ_FD", 0, 1, protoBackendReq, false, (*conn).setBackendReqFD}, true
	case reqGetConfig:
		return message{"GET_CONFIG", anySize, 0, protoConfig, true, (*conn).getConfig}, true
	case reqSetConfig:
		return message{"SET_CONFIG", anySize, 0, protoConfig, false, (*conn).setConfig}, true
	case reqResetDevice:
		return message{"RESET_DEVICE", 0, 0, protoResetDevice, false, (*conn).resetDevice}, true
	case reqGetMaxMemSlots:
		return message{"GET_MAX_MEM_SLOTS", 0, 0, protoMemSlots, true, (*conn).getMaxMemSlots}, true
	case reqAddMemReg:
		return message{"ADD_MEM_REG", 8 + regionSize, 1, protoMemSlots, false, (*conn).addMemReg}, true
	case reqRemMemReg: // some front ends pass the descriptor once more
		return message{"REM_MEM_REG", 8 + regionSize, 1, protoMemSlots, false, (*conn).remMemReg}, true
	case reqSetStatus:
		return message{"SET_STATUS", 8, 0, protoStatus, false, (*conn).setStatus}, true
	case reqGetStatus:
		return message{"GET_STATUS", 0, 0, protoStatus, true, (*conn).getStatus}, true
	case reqGetShmemConfig:
		return message{"GET_SHMEM_CONFIG", 0, 0, protoShmem, true, (*conn).getShmemConfig}, true
	}
	return message{name: fmt.Sprintf("request %d", r)}, false
}

// step serves one message. Its error ends the connection.
func (c *conn) step() error {
	c.rights.Close()
	if err := c.sock.Recv(c.head[:], &c.rights); err != nil {
		return err
	}
	h, err := parseHeader(c.head[:])
	if err != nil {
		return err
	}
	body := c.body[:h.size]
	if err := c.sock.Recv(body, &c.rights); err != nil {
		return err
	}
	m, known := messageOf(h.request)
	c.s.cfg.Log.Debug("message", "request", m.name, "bytes", h.size, "descriptors", c.rights.Len())
	var answer []byte
	switch {
	case !known:
		err = refuse(unix.EOPNOTSUPP, "it is not supported")
	case m.protocol&^c.protocol != 0:
		err = refuse(unix.EOPNOTSUPP, "it needs protocol feature %#x, which was not accepted", m.protocol)
	case m.size >= 0 && len(body) != m.size:
		err = refuse(unix.EINVAL, "a body of %d bytes; it has %d", len(body), m.size)
	case c.rights.Len() > m.fds:
		err = refuse(unix.EINVAL, "%d descriptors; pass %d at most", c.rights.Len(), m.fds)
	default:
		answer, err = m.serve(c, body)
	}
	switch wanted := h.flags&flagNeedReply != 0 && c.protocol&protoReplyAck != 0; {
	case err == nil && m.answer:
		return c.reply(h.request, answer)
	case h.request == reqGetConfig && m.protocol&^c.protocol == 0: // its own way to fail
		c.refused(m, err)
		return c.reply(h.request, nil)
	case err != nil && (m.answer || !wanted):
		return fmt.Errorf("vhostuser: %s: %w; closing, for the message has no other answer", m.name, err)
	case !wanted:
		return nil
	case err != nil:
		c.refused(m, err)
		return c.reply(h.request, order.AppendUint64(nil, uint64(errnoOf(err))))
	}
	return c.reply(h.request, order.AppendUint64(nil, 0))
}

func (c *conn) refused(m message, err error) {
	c.s.warn("vhost-user message refused", slog.String("message", m.name), slog.Any("rule", err))
}

func (c *conn) reply(r request, body []byte) error {
	h := header{request: r, flags: flagVersion | flagReply, size: uint32(len(body))}
	msg := make([]byte, headerSize, headerSize+len(body))
	h.put(msg)
	return c.sock.Send(append(msg, body...), nil)
}

func u64(v uint64) ([]byte, error) { return order.AppendUint64(nil, v), nil }

func (c *conn) getFeatures([]byte) ([]byte, error) {
	return u64(c.s.backend.Features()&deviceFeatures | ringFeatures)
}

func (c *conn) setFeatures(b []byte) ([]byte, error) {
	v, offered := order.Uint64(b), c.s.backend.Features()&deviceFeatures|ringFeatures
	if v&^offered != 0 {
		return nil, refuse(unix.EINVAL, "features %#x were not offered", v&^offered)
	}
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	if c.running > 0 && v != c.f.features {
		return nil, refuse(unix.EBUSY, "features do not change while a queue runs")
	}
	c.f.features = v
	return nil, nil
}

// offered are the protocol features of this server.
func (c *conn) offered() uint64 {
	if c.s.cfg.NoMemSlots {
		return protoOffered &^ protoMemSlots
	}
	return protoOffered
}

func (c *conn) getProtocolFeatures([]byte) ([]byte, error) { return u64(c.offered()) }

func (c *conn) setProtocolFeatures(b []byte) ([]byte, error) {
	v := order.Uint64(b)
	if v&^c.offered() != 0 {
		return nil, refuse(unix.EINVAL, "protocol features %#x were not offered", v&^c.offered())
	}
	c.protocol = v
	return nil, nil
}

func (c *conn) getQueueNum([]byte) ([]byte, error)    { return u64(uint64(len(c.f.rings))) }
func (c *conn) getMaxMemSlots([]byte) ([]byte, error) { return u64(maxSlots) }

// Guest memory.

func (c *conn) setMemTable(b []byte) ([]byte, error) {
	if len(b) < 8 {
		return nil, refuse(unix.EINVAL, "a body of %d bytes; it has at least 8", len(b))
	}
	n := int(order.Uint32(b))
	if n > maxTableRegions || len(b) != 8+n*regionSize || order.Uint32(b[4:]) != 0 {
		return nil, refuse(unix.EINVAL, "%d regions in %d bytes; it has 8 bytes and 32 for each of at most %d, and its padding is 0", n, len(b), maxTableRegions)
	}
	if c.rights.Len() != n || c.rights.Lost() != 0 {
		return nil, refuse(unix.EINVAL, "%d descriptors for %d regions", c.rights.Len(), n)
	}
	regions := make([]region, n)
	for i := range regions {
		var err error
		if regions[i], err = parseRegion(b[8+i*regionSize:][:regionSize]); err != nil {
			return nil, err
		}
	}
	// The table replaces what is there at once for queues; a region that stays the same stays
	// mapped for DMA that is in flight.
	var fresh []mapped
	undo := func(err error) ([]byte, error) {
		for _, m := range fresh {
			m.mem.Close()
		}
		return nil, err
	}
	for i, r := range regions {
		mem, err := c.f.openRegion(fresh, r, c.rights.Fd(i))
		if err != nil {
			return undo(err)
		}
		fresh = append(fresh, mapped{r, mem})
	}
	old := c.f.regions // only this goroutine changes them
	in := func(m mapped, list []mapped) bool {
		return slices.ContainsFunc(list, func(o mapped) bool { return o.region == m.region && o.mem.Same(m.mem) })
	}
	for _, m := range old {
		if !in(m, fresh) {
			c.unmap(m)
		}
	}
	for i, m := range fresh {
		if !in(m, old) {
			if err := c.mapRegion(m.region, c.rights.Fd(i)); err != nil {
				// It has passed every check: the process lacks something. The old memory is
				// half gone, so the connection must not go on.
				for _, m := range fresh[:i] {
					if !in(m, old) {
						c.unmap(m)
					}
				}
				c.sock.Shutdown()
				return undo(err)
			}
		}
	}
	c.f.mu.Lock()
	c.f.regions = fresh
	c.f.mu.Unlock()
	for _, m := range old {
		m.mem.Close()
	}
	return nil, nil
}

func (c *conn) addMemReg(b []byte) ([]byte, error) {
	r, err := parseRegion(b[8:])
	if err != nil {
		return nil, err
	}
	switch {
	case order.Uint64(b) != 0:
		return nil, refuse(unix.EINVAL, "padding is not 0")
	case c.rights.Len() != 1 || c.rights.Lost() != 0:
		return nil, refuse(unix.EINVAL, "%d descriptors; pass the region's", c.rights.Len())
	case len(c.f.regions) >= maxSlots:
		return nil, refuse(unix.ENOSPC, "%d regions are mapped; remove one", maxSlots)
	}
	return nil, c.add(r, c.rights.Fd(0))
}

func (c *conn) remMemReg(b []byte) ([]byte, error) {
	r, err := parseRegion(b[8:])
	if err != nil {
		return nil, err
	}
	c.f.mu.Lock()
	for i, m := range c.f.regions { // the file offset is not part of a region's name
		if m.guest == r.guest && m.size == r.size && m.user == r.user {
			c.f.regions = append(c.f.regions[:i:i], c.f.regions[i+1:]...)
			c.f.mu.Unlock()
			c.forget(m)
			return nil, nil
		}
	}
	c.f.mu.Unlock()
	return nil, refuse(unix.ENOENT, "no region of %#x bytes at guest address %v and user address %#x", r.size, r.guest, r.user)
}

// add maps a region from fd, for rings and for the device.
func (c *conn) add(r region, fd int) error {
	mem, err := c.f.openRegion(c.f.regions, r, fd)
	if err != nil {
		return err
	}
	if err := c.mapRegion(r, fd); err != nil {
		mem.Close()
		return err
	}
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	c.f.regions = append(c.f.regions, mapped{r, mem})
	return nil
}

// openRegion maps a region from fd for rings, if it overlaps none of others.
func (f *FrontEnd) openRegion(others []mapped, r region, fd int) (*filemap.Range, error) {
	for _, m := range others {
		if r.user <= m.user+(m.size-1) && m.user <= r.user+(r.size-1) {
			return nil, refuse(unix.EEXIST, "user addresses %#x and %#x overlap", r.user, m.user)
		}
		if r.guest <= m.guest+iova.Addr(m.size-1) && m.guest <= r.guest+iova.Addr(r.size-1) {
			return nil, refuse(unix.EEXIST, "guest addresses %v and %v overlap", r.guest, m.guest)
		}
	}
	return f.files.Open(fd, r.off, r.size, true)
}

// mapRegion maps a region from fd for the device.
func (c *conn) mapRegion(r region, fd int) error {
	mem, err := c.f.files.Open(fd, r.off, r.size, true)
	if err != nil {
		return err
	}
	if err := c.s.backend.MapDMA(r.guest, r.size, iova.Read|iova.Write, mem); err != nil {
		mem.Close()
		return err
	}
	return nil
}

// unmap takes a region away from the device.
func (c *conn) unmap(m mapped) {
	if err := c.s.backend.UnmapDMA(m.guest, m.size); err != nil {
		panic("vhostuser: BUG: unmap of a mapping of ours: " + err.Error())
	}
}

// forget unmaps a region that no ring can find any more.
func (c *conn) forget(m mapped) {
	c.unmap(m)
	m.mem.Close()
}

// Queues.

// ring returns the ring that a message names.
func (c *conn) ring(index uint32) (*ring, error) {
	if uint64(index) >= uint64(len(c.f.rings)) {
		return nil, refuse(unix.EINVAL, "queue %d; the device has %d", index, len(c.f.rings))
	}
	return &c.f.rings[index], nil
}

// stoppedRing is ring for a message that sets up what must not change under a queue.
func (c *conn) stoppedRing(index uint32) (*ring, error) {
	r, err := c.ring(index)
	if err != nil {
		return nil, err
	}
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	if r.started {
		return nil, refuse(unix.EBUSY, "queue %d is started; stop it with GET_VRING_BASE", index)
	}
	return r, nil
}

func (c *conn) setVringNum(b []byte) ([]byte, error) {
	r, err := c.stoppedRing(order.Uint32(b))
	if err != nil {
		return nil, err
	}
	n := order.Uint32(b[4:])
	if n == 0 || n > maxRingSize || n&(n-1) != 0 {
		return nil, refuse(unix.EINVAL, "%d entries; use a power of two up to %d", n, maxRingSize)
	}
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	r.size = uint16(n)
	return nil, nil
}

func (c *conn) setVringAddr(b []byte) ([]byte, error) {
	r, err := c.stoppedRing(order.Uint32(b))
	if err != nil {
		return nil, err
	}
	flags, desc, used, avail := order.Uint32(b[4:]), order.Uint64(b[8:]), order.Uint64(b[16:]), order.Uint64(b[24:])
	switch {
	case flags != 0:
		return nil, refuse(unix.EINVAL, "flags %#x; logging was not offered", flags)
	case desc%16 != 0 || used%4 != 0 || avail%2 != 0:
		return nil, refuse(unix.EINVAL, "addresses %#x, %#x, %#x; descriptor table, used and available ring are aligned to 16, 4 and 2", desc, used, avail)
	}
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	if !c.f.has(FeatureVersion1) {
		return nil, refuse(unix.EINVAL, "the driver did not accept VERSION_1")
	}
	r.desc, r.used, r.avail, r.placed = desc, used, avail, true
	return nil, nil
}

func (c *conn) setVringBase(b []byte) ([]byte, error) {
	r, err := c.stoppedRing(order.Uint32(b))
	if err != nil {
		return nil, err
	}
	v := order.Uint32(b[4:])
	if v > 0xffff {
		return nil, refuse(unix.EINVAL, "index %#x; a split queue's has 16 bits", v)
	}
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	r.next = uint16(v)
	return nil, nil
}

// getVringBase stops a queue, once what is in flight is complete.
func (c *conn) getVringBase(b []byte) ([]byte, error) {
	r, err := c.ring(order.Uint32(b))
	if err != nil {
		return nil, err
	}
	c.f.mu.Lock()
	if r.running {
		r.running = false
		c.running--
	}
	c.f.mu.Unlock()
	if !c.f.drain(r, c.s.cfg.DrainTimeout) {
		c.f.warn("virtqueue stopped with work in flight; the device is reset", fmt.Errorf("queue %d: commands run longer than %v", r.index, c.s.cfg.DrainTimeout))
		c.s.backend.Reset()
		c.alive = false
		c.f.abandon(r)
	}
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	r.next -= uint16(r.inflight) // what was not done is available again
	r.drained = nil
	c.stopLocked(r)
	return order.AppendUint32(order.AppendUint32(nil, uint32(r.index)), uint32(r.next)), nil
}

// abandon breaks all queues but one after the device had to be reset under them: what they
// had in flight is never done.
func (f *FrontEnd) abandon(but *ring) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.rings {
		if r := &f.rings[i]; r != but && r.started && !r.broken {
			r.next -= uint16(r.inflight)
			r.inflight = 0
			r.life++
			r.fault = f.breakLocked(r, r.fail("the device was reset, since queue %d did not stop", but.index))
		}
	}
}

// vringFD decodes SET_VRING_KICK, _CALL and _ERR: a queue, and its descriptor
// or -1.
func (c *conn) vringFD(b []byte) (*ring, int, error) {
	v := order.Uint64(b)
	r, err := c.ring(uint32(v & 0xff))
	if err != nil {
		return nil, -1, err
	}
	none := v&(1<<8) != 0
	switch {
	case v>>9 != 0:
		return nil, -1, refuse(unix.EINVAL, "payload %#x; bits 63:9 are reserved", v)
	case none != (c.rights.Len() == 0) || c.rights.Lost() != 0:
		return nil, -1, refuse(unix.EINVAL, "%d descriptors, and bit 8 of the payload says %v to there being none", c.rights.Len(), none)
	case none:
		return r, -1, nil
	}
	return r, c.rights.Take(0), nil
}

func (c *conn) setVringKick(b []byte) ([]byte, error) {
	r, fd, err := c.vringFD(b)
	if err != nil {
		return nil, err
	}
	if fd < 0 {
		return nil, refuse(unix.EOPNOTSUPP, "queue %d without a kick descriptor; polling is not supported", r.index)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != 0 { // an anonymous inode has no type
		unix.Close(fd)
		return nil, refuse(unix.EINVAL, "queue %d: the kick descriptor is not an eventfd", r.index)
	}
	c.f.mu.Lock()
	size, placed := r.size, r.placed
	c.f.mu.Unlock()
	if size == 0 || !placed {
		unix.Close(fd)
		return nil, refuse(unix.EINVAL, "queue %d is started before SET_VRING_NUM and SET_VRING_ADDR", r.index)
	}
	if err := c.kicks.add(r.index, fd); err != nil {
		unix.Close(fd)
		return nil, refuse(unix.EINVAL, "queue %d: the kick descriptor cannot be waited for: %v", r.index, err)
	}
	c.f.mu.Lock()
	if r.kick >= 0 {
		c.kicks.del(r.kick)
		unix.Close(r.kick)
	}
	r.kick = fd
	if !r.started {
		c.f.startLocked(r)
	}
	if c.f.features&FeatureProtocol == 0 { // then queues need not be enabled
		r.enabled = true
	}
	c.f.mu.Unlock()
	c.run(r)
	return nil, nil
}

// startLocked makes a ring live. One that is not where it should be breaks; Take
// tells.
func (f *FrontEnd) startLocked(r *ring) {
	r.started = true
	r.life++
	a, err := f.areasLocked(r)
	if err == nil {
		r.done, err = a.used.load16(2)
	}
	if err != nil {
		r.fault = f.breakLocked(r, err)
	}
}

func (c *conn) setVringEnable(b []byte) ([]byte, error) {
	r, err := c.ring(order.Uint32(b))
	if err != nil {
		return nil, err
	}
	v := order.Uint32(b[4:])
	if v > 1 {
		return nil, refuse(unix.EINVAL, "value %d; use 0 or 1", v)
	}
	c.f.mu.Lock()
	r.enabled = v == 1
	if !r.enabled && r.running {
		r.running = false
		c.running--
	}
	c.f.mu.Unlock()
	c.run(r)
	return nil, nil
}

// run lets chains be taken from a ring that is started and enabled. The first that
// runs begins a driver's life, unless one goes on: then a started queue goes on where it
// had stopped. QEMU tells of a reset in no other way.
func (c *conn) run(r *ring) {
	c.f.mu.Lock()
	if r.running || !r.started || !r.enabled {
		c.f.mu.Unlock()
		return
	}
	first, fresh := c.running == 0, true
	for i := range c.f.rings {
		fresh = fresh && (!c.f.rings[i].started || c.f.rings[i].next == 0)
	}
	c.f.mu.Unlock()
	if first && fresh && c.alive {
		c.s.backend.Reset()
		c.alive = false
	}
	if !c.alive {
		if c.windows { // in every life: QEMU 11.1 unmaps them when the guest resets the device
			c.f.mapWindows()
		}
		c.s.backend.Start()
		c.alive = true
	}
	c.f.mu.Lock()
	r.running = true
	c.running++
	c.f.mu.Unlock()
	c.s.backend.Kick(r.index)
}

// vringEvent is SET_VRING_CALL and SET_VRING_ERR.
func (c *conn) vringEvent(b []byte, which func(*ring) **eventfd.FD) ([]byte, error) {
	r, fd, err := c.vringFD(b)
	if err != nil {
		return nil, err
	}
	var e *eventfd.FD
	if fd >= 0 {
		if e, err = eventfd.Adopt(fd); err != nil {
			return nil, refuse(unix.EINVAL, "queue %d: %v", r.index, err)
		}
	}
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	at := which(r)
	if *at != nil {
		(*at).Close()
	}
	*at = e
	return nil, nil
}

func (c *conn) setVringCall(b []byte) ([]byte, error) {
	return c.vringEvent(b, func(r *ring) **eventfd.FD { return &r.call })
}

func (c *conn) setVringErr(b []byte) ([]byte, error) {
	return c.vringEvent(b, func(r *ring) **eventfd.FD { return &r.err })
}

// Device.

// resetDevice is RESET_DEVICE, RESET_OWNER and a device status of 0: queues are as
// at power-on, except that they keep their descriptors for calls.
func (c *conn) resetDevice([]byte) ([]byte, error) {
	c.f.mu.Lock()
	for i := range c.f.rings {
		r := &c.f.rings[i]
		c.stopLocked(r)
		r.enabled, r.placed, r.size, r.next = false, false, 0, 0
	}
	c.f.status = 0
	c.f.mu.Unlock()
	c.s.backend.Reset()
	c.alive = false
	return nil, nil
}

func (c *conn) setStatus(b []byte) ([]byte, error) {
	v := order.Uint64(b)
	if v > 0xff {
		return nil, refuse(unix.EINVAL, "status %#x; it has 8 bits", v)
	}
	if v == 0 {
		return c.resetDevice(nil)
	}
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	if !c.f.has(FeatureVersion1) {
		v &^= statusFeaturesOK // which tells the driver that its choice will not do
	}
	c.f.status = uint8(v) | c.f.status&statusNeedsReset
	return nil, nil
}

func (c *conn) getStatus([]byte) ([]byte, error) {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	return u64(uint64(c.f.status))
}

// configRange decodes the head of GET_CONFIG and SET_CONFIG.
func configRange(b []byte) (off, size int, err error) {
	if len(b) < 12 {
		return 0, 0, refuse(unix.EINVAL, "a body of %d bytes; it has at least 12", len(b))
	}
	o, n := order.Uint32(b), order.Uint32(b[4:])
	if o > MaxConfig || n > MaxConfig-o || len(b) != 12+int(n) {
		return 0, 0, refuse(unix.EINVAL, "%d bytes at %d of the configuration space in a body of %d; the space has %d", n, o, len(b), MaxConfig)
	}
	return int(o), int(n), nil
}

func (c *conn) getConfig(b []byte) ([]byte, error) {
	off, size, err := configRange(b)
	if err != nil {
		return nil, err
	}
	var space [MaxConfig]byte
	c.s.backend.ReadConfig(space[:])
	return append(append([]byte(nil), b[:12]...), space[off:off+size]...), nil
}

func (c *conn) setConfig(b []byte) ([]byte, error) {
	off, _, err := configRange(b)
	if err != nil {
		return nil, err
	}
	c.s.backend.WriteConfig(off, b[12:])
	return nil, nil
}

func (c *conn) setBackendReqFD([]byte) ([]byte, error) {
	if c.rights.Len() != 1 || c.rights.Lost() != 0 {
		return nil, refuse(unix.EINVAL, "%d descriptors; pass the socket", c.rights.Len())
	}
	return nil, c.f.back.adopt(c.rights.Take(0), c.protocol)
}

func (c *conn) getShmemConfig([]byte) ([]byte, error) {
	var b [8 + 8*shmemRegions]byte
	windows := c.s.backend.SharedMemory()
	order.PutUint32(b[:], uint32(len(windows)))
	for _, m := range windows {
		order.PutUint64(b[8+8*int(m.ID):], m.Size)
	}
	c.windows = c.protocol&protoBackendReq != 0 && c.protocol&protoBackendSendFD != 0
	return b[:], nil
}
