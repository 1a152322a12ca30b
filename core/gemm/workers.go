// SPDX-License-Identifier: Apache-2.0

package gemm

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// spins is how often a goroutine looks whether it is needed before it sleeps:
// for some tens of microseconds, which is what waking it takes.
const spins = 200_000

// What a worker is told, and what it says.
const (
	idle uint32 = iota
	called
	parked // sleeps until something is sent
	leaving
)

// workers are goroutines that wait for the parts of a product. There are none before the first product of several.
type workers struct {
	most   int         // how many there are then
	part   func(i int) // what a worker does
	spins  int
	each   []worker
	left   atomic.Int32  // parts that are not finished
	ended  chan struct{} // the last part was, and the caller sleeps
	ending sync.WaitGroup
}

type worker struct {
	state atomic.Uint32
	wake  chan struct{}
	_     [64]byte // no line of the cache is another's
}

// start makes n workers: for parts 1 to n.
func (w *workers) start(n int) {
	w.each, w.ended, w.spins = make([]worker, n), make(chan struct{}, 1), 0
	if n < runtime.GOMAXPROCS(0) { // else they would take the processor from those that work
		w.spins = spins
	}
	for i := range w.each {
		w.each[i].wake = make(chan struct{}, 1)
		w.ending.Add(1)
		go w.work(i)
	}
}

// run does parts 0 to n−1 and returns when all are finished; 0 is the caller's.
func (w *workers) run(n int) {
	if n == 1 {
		w.part(0)
		return
	}
	if w.each == nil {
		w.start(w.most)
	}
	w.left.Store(int32(n))
	for i := range n - 1 {
		w.tell(i, called)
	}
	w.part(0)
	for i := 0; i < w.spins && w.left.Load() > 1; i++ {
	}
	if w.left.Add(-1) > 0 {
		<-w.ended
	}
}

// stop ends the goroutines. What is run afterwards begins with new ones.
func (w *workers) stop() {
	for i := range w.each {
		w.tell(i, leaving)
	}
	w.ending.Wait()
	w.each = nil
}

func (w *workers) tell(i int, what uint32) {
	if one := &w.each[i]; one.state.Swap(what) == parked {
		one.wake <- struct{}{}
	}
}

func (w *workers) work(i int) {
	defer w.ending.Done()
	one := &w.each[i]
	for {
		for n := 0; n < w.spins && one.state.Load() == idle; n++ {
		}
		if one.state.CompareAndSwap(idle, parked) {
			<-one.wake
		}
		if one.state.Load() == leaving {
			return
		}
		w.part(i + 1)
		one.state.Store(idle) // before the caller can call again
		if w.left.Add(-1) == 0 {
			w.ended <- struct{}{}
		}
	}
}
