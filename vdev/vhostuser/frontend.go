// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vhostuser

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"npuemu/dma/iova"
	"npuemu/internal/filemap"
)

// FrontEnd is the connected VMM as a Backend sees it: guest memory and virtqueues.
// Its methods are safe for concurrent use, and do nothing once the connection has
// ended.
type FrontEnd struct {
	s    *Server
	back *backChannel // set before the first use; see there

	mu       sync.Mutex
	features uint64          // accepted by the driver
	status   uint8           // virtio device status
	rings    []ring          // length is fixed
	regions  []mapped        // guest memory
	region   *inflightRegion // nil if the front end gave none
	mapped   bool            // shared memory was asked for
	window   bool            // it is to be mapped when the next queue runs
	held     bool            // it is not mapped yet: nothing is taken meanwhile
	files    filemap.Set
}

// mapped is a region with its bytes; the device's own view of them is in its bus
// table.
type mapped struct {
	region
	mem *filemap.Range
}

func newFrontEnd(s *Server) *FrontEnd {
	f := &FrontEnd{s: s, rings: make([]ring, s.backend.Queues())}
	for i := range f.rings {
		f.rings[i] = ring{index: i, kick: -1}
	}
	return f
}

// ConfigChanged tells the driver to look at the configuration space again, if the
// front end listens for that.
func (f *FrontEnd) ConfigChanged() { f.back.configChanged() }

// mapWindows maps the device's shared memory, when the first queue of a driver's life runs. Not earlier: QEMU 11.1 crashes before
// the guest's first driver. A driver may rely on it from the first answer on, so nothing is taken until then.
func (f *FrontEnd) mapWindows() {
	f.mu.Lock()
	due := f.window
	f.window = false
	f.mu.Unlock()
	if !due {
		return
	}
	release := func() {
		f.mu.Lock()
		f.held = false
		f.mu.Unlock()
		for i := range f.rings {
			f.s.backend.Kick(i)
		}
	}
	if !f.back.mapWindows(release) {
		release()
	}
}

// userLocked returns size bytes at a user address, if one region holds them all.
func (f *FrontEnd) userLocked(addr, size uint64) (span, bool) {
	for i := range f.regions {
		m := &f.regions[i]
		if addr >= m.user && addr-m.user < m.size && size <= m.size-(addr-m.user) {
			return span{m.mem, addr - m.user}, true
		}
	}
	return span{}, false
}

// guestLocked returns size bytes at a guest address, if one region holds them all.
func (f *FrontEnd) guestLocked(addr iova.Addr, size uint64) (span, bool) {
	m, off := f.regionLocked(addr)
	if m == nil || size > m.size-off {
		return span{}, false
	}
	return span{m.mem, off}, true
}

func (f *FrontEnd) regionLocked(addr iova.Addr) (m *mapped, off uint64) {
	for i := range f.regions {
		if m := &f.regions[i]; addr >= m.guest && uint64(addr-m.guest) < m.size {
			return m, uint64(addr - m.guest)
		}
	}
	return nil, 0
}

// coversLocked reports whether size bytes are guest memory, across regions if they touch.
func (f *FrontEnd) coversLocked(addr iova.Addr, size uint64) bool {
	for {
		m, off := f.regionLocked(addr)
		if m == nil {
			return false
		}
		if size <= m.size-off {
			return true
		}
		size -= m.size - off
		addr += iova.Addr(m.size - off)
	}
}

// copyLocked reads or writes guest memory, across regions if they touch.
func (f *FrontEnd) copyLocked(addr iova.Addr, p []byte, write bool) error {
	for len(p) > 0 {
		m, off := f.regionLocked(addr)
		if m == nil {
			return fmt.Errorf("guest address %v is not in guest memory", addr)
		}
		n := len(p)
		if room := m.size - off; uint64(n) > room {
			n = int(room)
		}
		var err error
		if write {
			err = m.mem.WriteAt(p[:n], off)
		} else {
			err = m.mem.ReadAt(p[:n], off)
		}
		if err != nil {
			return fmt.Errorf("guest address %v: %w", addr, err)
		}
		p, addr = p[n:], addr+iova.Addr(n)
	}
	return nil
}

// warn logs what the peer did wrong, within the limits.
func (f *FrontEnd) warn(msg string, err error) { f.s.warn(msg, slog.Any("rule", err)) }

// drain waits until the requests in flight of a ring, from which nothing is taken any
// more, are complete. It reports false when that takes longer than timeout.
func (f *FrontEnd) drain(r *ring, timeout time.Duration) bool {
	f.mu.Lock()
	if r.inflight == 0 {
		f.mu.Unlock()
		return true
	}
	done := make(chan struct{})
	r.drained = done
	f.mu.Unlock()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r.drained = nil
	return r.inflight == 0
}
