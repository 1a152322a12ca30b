// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"fmt"

	"golang.org/x/sys/unix"

	"npuemu/internal/eventfd"
)

// ring returns the ring that a message names.
func (c *conn) ring(index uint32) (*ring, error) {
	if uint64(index) >= uint64(len(c.f.rings)) {
		return nil, refuse(unix.EINVAL, "queue %d; the device has %d", index, len(c.f.rings))
	}
	return &c.f.rings[index], nil
}

// stoppedRing is ring for a message that sets up what must not change under a queue. One that was
// disabled, as User-mode Linux leaves it, stops by that; so does any, for a front end that cannot disable it.
func (c *conn) stoppedRing(index uint32) (*ring, error) {
	r, err := c.ring(index)
	if err != nil {
		return nil, err
	}
	c.f.mu.Lock()
	started, busy := r.started, r.started && r.enabled && c.f.has(FeatureProtocol)
	c.f.mu.Unlock()
	switch {
	case busy:
		return nil, refuse(unix.EBUSY, "queue %d is started; stop it with GET_VRING_BASE", index)
	case started:
		c.enable(r, false)
		c.f.mu.Lock()
		defer c.f.mu.Unlock()
		c.stopLocked(r)
	}
	return r, nil
}

func (c *conn) setVringNum(b []byte) ([]byte, error) {
	r, err := c.stoppedRing(order.Uint32(b))
	if err != nil {
		return nil, err
	}
	n := order.Uint32(b[4:])
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	if n == 0 || n > maxRingSize || n&(n-1) != 0 && !c.f.has(FeaturePacked) {
		return nil, refuse(unix.EINVAL, "%d entries; use up to %d, and a power of two unless the queue is packed", n, maxRingSize)
	}
	r.size = uint16(n)
	return nil, nil
}

func (c *conn) setVringAddr(b []byte) ([]byte, error) {
	r, err := c.stoppedRing(order.Uint32(b))
	if err != nil {
		return nil, err
	}
	flags, desc, used, avail := order.Uint32(b[4:]), order.Uint64(b[8:]), order.Uint64(b[16:]), order.Uint64(b[24:])
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	align := uint64(2)
	if c.f.has(FeaturePacked) {
		align = packedEventSize
	}
	switch {
	case flags != 0:
		return nil, refuse(unix.EINVAL, "flags %#x; logging was not offered", flags)
	case desc%16 != 0 || used%4 != 0 || avail%align != 0:
		return nil, refuse(unix.EINVAL, "addresses %#x, %#x, %#x; descriptor table, used and available ring are aligned to 16, 4 and %d", desc, used, avail, align)
	case !c.f.has(FeatureVersion1):
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
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	if v > 0xffff && !c.f.has(FeaturePacked) {
		return nil, refuse(unix.EINVAL, "index %#x; a split queue's has 16 bits", v)
	}
	r.base = v
	return nil, nil
}

// getVringBase stops a queue, once what is in flight is complete.
func (c *conn) getVringBase(b []byte) ([]byte, error) {
	r, err := c.ring(order.Uint32(b))
	if err != nil {
		return nil, err
	}
	done := c.quiet(r)
	if !done {
		c.f.abandon(r, false)
	}
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	if t := r.track; t != nil && done && len(r.again) == 0 {
		if err := t.stopped(); err != nil {
			c.f.warn("in-flight region lost", err)
		}
	}
	c.stopLocked(r)
	return order.AppendUint32(order.AppendUint32(nil, uint32(r.index)), r.base), nil
}

// quiet takes nothing more from a queue, and returns when nothing is in flight. If that takes too long the
// device is reset, and quiet reports false: abandon follows.
func (c *conn) quiet(r *ring) bool {
	c.f.mu.Lock()
	if r.running {
		r.running = false
		c.running--
	}
	c.f.mu.Unlock()
	if c.f.drain(r, c.s.cfg.DrainTimeout) {
		return true
	}
	c.f.warn("virtqueue stopped with work in flight; the device is reset", fmt.Errorf("queue %d: commands run longer than %v", r.index, c.s.cfg.DrainTimeout))
	c.s.backend.Reset()
	c.alive = false
	return false
}

// abandon breaks all queues after the device had to be reset under them, since one did not stop: what they
// had in flight is never done. The one itself breaks if it goes on.
func (f *FrontEnd) abandon(slow *ring, goesOn bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.rings {
		if r := &f.rings[i]; (r != slow || goesOn) && r.started && !r.broken {
			r.rewind()
			r.base = r.position()
			r.life++
			r.fault = f.breakLocked(r, r.fail("the device was reset, since queue %d did not stop", slow.index))
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

func (c *conn) setVringEnable(b []byte) ([]byte, error) {
	r, err := c.ring(order.Uint32(b))
	if err != nil {
		return nil, err
	}
	v := order.Uint32(b[4:])
	if v > 1 {
		return nil, refuse(unix.EINVAL, "value %d; use 0 or 1", v)
	}
	c.enable(r, v == 1)
	return nil, nil
}

// enable enables a queue, or disables it: then nothing of it is in flight afterwards, for User-mode Linux
// frees its memory next.
func (c *conn) enable(r *ring, on bool) {
	if !on && !c.quiet(r) {
		c.f.abandon(r, true)
	}
	c.f.mu.Lock()
	r.enabled = on
	c.f.mu.Unlock()
	c.run(r)
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
		fresh = fresh && (!c.f.rings[i].started || c.f.rings[i].fresh())
	}
	if !c.alive && !fresh { // it began with another process, or before a reset
		c.f.status |= statusNeedsReset
	}
	if c.f.mapped && (!c.alive || first && fresh) { // in every life: QEMU 11.1 unmaps them when the guest resets the device
		c.f.held, c.f.window = true, true
	}
	c.f.mu.Unlock()
	c.f.mapWindows()
	if first && fresh && c.alive || c.s.unpark() {
		c.s.backend.Reset()
		c.alive = false
	}
	if !c.alive {
		c.s.backend.Start(!fresh)
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
		if e, err = eventfd.AdoptCall(fd); err != nil {
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
