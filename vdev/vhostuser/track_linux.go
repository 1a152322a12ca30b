// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// inflightSize is the body of GET_INFLIGHT_FD and SET_INFLIGHT_FD: size and offset of the region u64, queues
// and entries of each u16, and the padding that a C compiler adds.
const inflightSize = 20

// parseInflight decodes the body of both messages.
func (c *conn) parseInflight(b []byte) (size, off uint64, queues, entries uint16, err error) {
	if len(b) != inflightSize && len(b) != inflightSize+4 {
		return 0, 0, 0, 0, refuse(unix.EINVAL, "a body of %d bytes; it has %d", len(b), inflightSize)
	}
	size, off = order.Uint64(b), order.Uint64(b[8:])
	queues, entries = order.Uint16(b[16:]), order.Uint16(b[18:])
	if queues == 0 || int(queues) > len(c.f.rings) || entries == 0 || entries > maxRingSize {
		return 0, 0, 0, 0, refuse(unix.EINVAL, "%d queues of %d entries; the device has %d of at most %d", queues, entries, len(c.f.rings), maxRingSize)
	}
	return size, off, queues, entries, nil
}

// getInflightFD makes a region. The front end keeps it; we do not.
func (c *conn) getInflightFD(b []byte) ([]byte, error) {
	_, _, queues, entries, err := c.parseInflight(b)
	if err != nil {
		return nil, err
	}
	c.f.mu.Lock()
	packed := c.f.features == 0 || c.f.has(FeaturePacked) // not negotiated yet: the larger
	c.f.mu.Unlock()
	size := uint64(queues) * trackSize(entries, packed)
	fd, err := unix.MemfdCreate("vhost-user in-flight", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	if err = unix.Ftruncate(fd, int64(size)); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("a region of %d bytes: %w", size, err)
	}
	c.pass = []int{fd}
	answer := append([]byte(nil), b...)
	order.PutUint64(answer, size)
	order.PutUint64(answer[8:], 0)
	return answer, nil
}

// setInflightFD takes a region over. A driver whose connection was lost is known by it.
func (c *conn) setInflightFD(b []byte) ([]byte, error) {
	size, off, queues, entries, err := c.parseInflight(b)
	if err != nil {
		return nil, err
	}
	c.f.mu.Lock()
	packed, started := c.f.has(FeaturePacked), false
	for i := range c.f.rings {
		started = started || c.f.rings[i].started
	}
	c.f.mu.Unlock()
	switch need := uint64(queues) * trackSize(entries, packed); {
	case c.rights.Len() != 1 || c.rights.Lost() != 0:
		return nil, refuse(unix.EINVAL, "%d descriptors; pass the region's", c.rights.Len())
	case started:
		return nil, refuse(unix.EBUSY, "a queue is started; stop it with GET_VRING_BASE")
	case size < need:
		return nil, refuse(unix.EINVAL, "a region of %d bytes; %d queues of %d entries need %d", size, queues, entries, need)
	case off%8 != 0:
		return nil, refuse(unix.EINVAL, "a region at file offset %#x; align it to 8", off)
	}
	var st unix.Stat_t
	if err := unix.Fstat(c.rights.Fd(0), &st); err != nil {
		return nil, err
	}
	mem, err := c.f.files.Open(c.rights.Fd(0), off, size, true)
	if err != nil {
		return nil, err
	}
	if old := c.f.region; old != nil {
		old.mem.Close()
	}
	c.f.mu.Lock()
	c.f.region = &inflightRegion{mem: mem, size: size, dev: st.Dev, ino: st.Ino, queues: queues, entries: entries}
	c.f.mu.Unlock()
	if p := c.s.parked; p != nil && p.dev == st.Dev && p.ino == st.Ino {
		c.s.unpark()
		c.alive = true
	}
	return nil, nil
}
