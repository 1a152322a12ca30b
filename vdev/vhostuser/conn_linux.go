// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

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
	pass     []int      // descriptors that its answer carries
	head     [headerSize]byte
	body     [maxBody]byte
	protocol uint64 // protocol features accepted
	alive    bool   // a driver's life has begun
	running  int    // rings that run
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

// detach gives back all that the connection took. A front end that keeps an in-flight region may
// come back: then what is in flight is finished, and the driver's life goes on. So does the one that an earlier
// connection left, if this one began none.
func (c *conn) detach() {
	c.rights.Close()
	c.kicks.stop()
	mine := c.alive && c.f.region != nil && c.finish()
	c.f.mu.Lock()
	for i := range c.f.rings {
		c.dropLocked(&c.f.rings[i])
	}
	regions, region := c.f.regions, c.f.region
	c.f.regions, c.f.region = nil, nil
	c.f.mu.Unlock()
	c.s.backend.Detach(mine || c.s.parked != nil)
	for _, m := range regions {
		c.forget(m)
	}
	switch {
	case mine:
		c.s.park(region)
	case region != nil:
		region.mem.Close()
	}
	c.f.back.close()
	c.kicks.close()
}

// finish stops all rings, and reports whether what was in flight was completed in time.
func (c *conn) finish() bool {
	c.f.mu.Lock()
	for i := range c.f.rings {
		c.f.rings[i].running = false
	}
	c.f.mu.Unlock()
	for i, end := 0, time.Now().Add(c.s.cfg.DrainTimeout); i < len(c.f.rings); i++ {
		if !c.f.drain(&c.f.rings[i], max(0, time.Until(end))) {
			c.f.warn("front end lost with work in flight; the device is reset", fmt.Errorf("queue %d: commands run longer than %v", i, c.s.cfg.DrainTimeout))
			return false
		}
	}
	return true
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
	if r.started && !r.broken {
		r.rewind()
		r.base = r.position()
	}
	r.started, r.running, r.broken, r.inflight, r.fault, r.track = false, false, false, 0, nil, nil
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
		return message{"RESET_OWNER", 0, 0, 0, false, (*conn).resetOwner}, true
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
	case reqGetInflightFD:
		return message{"GET_INFLIGHT_FD", anySize, 0, protoInflight, true, (*conn).getInflightFD}, true
	case reqSetInflightFD:
		return message{"SET_INFLIGHT_FD", anySize, 1, protoInflight, false, (*conn).setInflightFD}, true
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
	c.pass = nil
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
	err := c.sock.Send(append(msg, body...), nil, c.pass...)
	for _, fd := range c.pass {
		unix.Close(fd)
	}
	return err
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
	if n > maxTableRegions || len(b) < 8+n*regionSize || order.Uint32(b[4:]) != 0 { // User-mode Linux sends two regions, and counts one
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

// Device.

// resetDevice is RESET_DEVICE and a device status of 0: queues are as at power-on, except that
// they keep their descriptors for calls.
func (c *conn) resetDevice([]byte) ([]byte, error) {
	c.f.mu.Lock()
	packed := c.f.has(FeaturePacked)
	for i := range c.f.rings {
		r := &c.f.rings[i]
		c.stopLocked(r)
		r.enabled, r.placed, r.size, r.base = false, false, 0, 0
	}
	c.f.status = 0
	c.f.mu.Unlock()
	c.s.unpark()
	c.s.backend.Reset()
	c.alive = false
	if g := c.f.region; g != nil {
		if err := g.forget(packed); err != nil {
			c.f.warn("in-flight region lost", err)
		}
	}
	return nil, nil
}

// resetOwner disables all rings, which is what is left of RESET_OWNER's meanings.
func (c *conn) resetOwner([]byte) ([]byte, error) {
	for i := range c.f.rings {
		c.enable(&c.f.rings[i], false)
	}
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
	if len(windows) > 0 && c.protocol&protoBackendReq != 0 && c.protocol&protoBackendSendFD != 0 {
		c.f.mu.Lock()
		defer c.f.mu.Unlock()
		if !c.f.mapped {
			c.f.mapped, c.f.held, c.f.window = true, true, true
		}
	}
	return b[:], nil
}
