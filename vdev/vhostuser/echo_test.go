// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"errors"
	"os"
	"sync"
	"testing"

	"npuemu/dma/iova"
	"npuemu/tests/virtiotest"
	"npuemu/vdev/vhostuser"
)

// echo is a device with three queues that answers every request with its own
// bytes. Queue 2 keeps requests until finish.
type echo struct {
	bus    iova.Table
	window *os.File
	wake   chan struct{}

	mu       sync.Mutex
	front    *vhostuser.FrontEnd
	kept     []*vhostuser.Request
	faults   []error
	starts   int
	resets   int
	detaches int
	keeps    int    // of them
	losts    int    // of starts
	written  []byte // by WriteConfig
}

const (
	echoQueues = 3
	slowQueue  = 2
	echoLimit  = 1 << 16
)

func newEcho(t testing.TB) *echo {
	e := &echo{wake: make(chan struct{}, 1), window: virtiotest.Memfd(t, 1<<20)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range e.wake {
			e.serve()
		}
	}()
	t.Cleanup(func() {
		close(e.wake)
		<-done
	})
	return e
}

func (e *echo) serve() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for q := 0; q < echoQueues && e.front != nil; q++ {
		for {
			req, err := e.front.Take(q, echoLimit)
			e.note(err)
			if req == nil {
				break
			}
			if q == slowQueue {
				e.kept = append(e.kept, req)
				continue
			}
			e.note(req.Complete(req.In))
		}
	}
}

func (e *echo) note(err error) {
	var r *vhostuser.RingError
	if err != nil && !errors.As(err, &r) {
		panic(err)
	}
	if err != nil {
		e.faults = append(e.faults, err)
	}
}

// finish answers what queue 2 kept.
func (e *echo) finish() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.kept {
		e.note(r.Complete(r.In))
	}
	e.kept = nil
}

func (e *echo) get(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
}

func (e *echo) Features() uint64 { return 1 << 3 }
func (e *echo) Queues() int      { return echoQueues }
func (e *echo) SharedMemory() []vhostuser.SharedMemory {
	return []vhostuser.SharedMemory{{ID: 1, Size: 1 << 20, File: e.window}}
}
func (e *echo) ReadConfig(p []byte) { copy(p, "configuration") }
func (e *echo) WriteConfig(off int, p []byte) {
	e.get(func() { e.written = append([]byte{byte(off)}, p...) })
}
func (e *echo) MapDMA(addr iova.Addr, size uint64, prot iova.Prot, mem iova.Memory) error {
	return e.bus.Map(addr, size, prot, mem)
}
func (e *echo) UnmapDMA(addr iova.Addr, size uint64) error { return e.bus.Unmap(addr, size) }
func (e *echo) Attach(f *vhostuser.FrontEnd)               { e.get(func() { e.front = f }) }
func (e *echo) Detach(keep bool) {
	e.get(func() {
		e.front, e.kept = nil, nil
		e.detaches++
		if keep {
			e.keeps++
		}
	})
}
func (e *echo) Start(lost bool) {
	e.get(func() {
		e.starts++
		if lost {
			e.losts++
		}
	})
}
func (e *echo) Reset() { e.get(func() { e.kept = nil; e.resets++ }) }
func (e *echo) Kick(int) {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}
