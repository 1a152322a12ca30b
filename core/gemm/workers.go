// SPDX-License-Identifier: Apache-2.0

package gemm

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// A goroutine looks so often whether it is needed, some tens of microseconds, before it lets others run. A worker does that so
// often before it sleeps, because waking it takes some hundred microseconds (it is put in line behind whoever wakes it, and
// another thread has to come and take it), and the next product of a program is seldom further away; who waits for the last
// part, which somebody works on, less often.
const (
	spins     = 20_000
	idleTurns = 20
	lastTurns = 4
)

// What a worker is told, and what it says.
const (
	idle uint32 = iota
	called
	parked // sleeps until something is sent
	leaving
)

// workers are goroutines that help with the parts of a product. There are none before the first product of several. Who
// calls them does parts too, and all that nobody has begun with: it does not wait for one that sleeps.
type workers struct {
	most   int                   // how many there are then
	part   func(thread, i int)   // does a part; thread 0 is the caller
	help   func(thread int) bool // or nil: does something else, if there is something
	open   bool                  // parts are for whoever takes them (Engine.Join), and nobody is called
	spins  int
	each   []worker
	claims atomic.Uint64 // of the run: parts, threads that it has memory for, and how many parts were taken
	left   atomic.Int32  // parts that are not finished, and one while the caller is awake
	ended  chan struct{} // the last part was, and the caller sleeps
	ending sync.WaitGroup
}

type worker struct {
	state atomic.Uint32
	wake  chan struct{}
	_     [64]byte // no line of the cache is another's
}

// start makes n workers.
func (w *workers) start(n int) {
	w.each = make([]worker, n)
	w.ready(n + 1)
	for i := range w.each {
		w.each[i].wake = make(chan struct{}, 1)
		w.ending.Add(1)
		go w.work(i)
	}
}

// ready prepares for runs of so many threads. None is under way.
func (w *workers) ready(threads int) {
	if w.ended == nil {
		w.ended = make(chan struct{}, 1)
	}
	if w.spins = 0; threads <= runtime.GOMAXPROCS(0) { // else they would take the processor from those that work
		w.spins = spins
	}
}

// run does parts 0 to n−1 with at most so many threads and returns when all are finished. wake says that it is worth waking
// those that sleep.
func (w *workers) run(threads, n int, wake bool) {
	if n == 1 || threads == 1 {
		for i := range n {
			w.part(0, i)
		}
		return
	}
	if w.each == nil && !w.open {
		w.start(w.most)
	}
	w.left.Store(int32(n + 1))
	w.claims.Store(uint64(n)<<partsShift | uint64(min(threads, 1<<(partsShift-threadsShift)-1))<<threadsShift)
	for i := range min(threads, n) - 1 {
		if w.open {
			break
		}
		if wake {
			w.tell(i, called)
		} else {
			w.each[i].state.CompareAndSwap(idle, called)
		}
	}
	mine := w.claim(0) + 1
	w.await(lastTurns, func() bool { return w.left.Load() <= mine })
	if w.left.Add(-mine) > 0 {
		<-w.ended
	}
}

// await returns when done reports true, or after some time.
func (w *workers) await(turns int, done func() bool) {
	for range turns {
		for range w.spins {
			if done() {
				return
			}
		}
		runtime.Gosched()
	}
}

// Fields of workers.claims; parts that were taken are below.
const (
	threadsShift = 20 // fewer parts than that, because there are fewer threads than 4096
	partsShift   = 32
)

// claim does parts until all are taken, and returns how many it did: none if the run has no memory for this thread, which
// comes late from another one then.
func (w *workers) claim(thread int) (done int32) {
	for {
		i := w.take(thread)
		if i < 0 {
			return done
		}
		w.part(thread, i)
		done++
	}
}

// take returns a part that nobody has taken, or −1.
func (w *workers) take(thread int) int {
	for {
		c := w.claims.Load()
		taken := c & (1<<threadsShift - 1)
		if taken >= c>>partsShift || uint64(thread) >= c>>threadsShift&(1<<(partsShift-threadsShift)-1) {
			return -1
		}
		if w.claims.CompareAndSwap(c, c+1) {
			return int(taken)
		}
	}
}

// call wakes the goroutines that sleep: there is something to help with.
func (w *workers) call() {
	if w.each == nil {
		w.start(w.most)
	}
	for i := range w.each {
		if w.each[i].state.Load() == parked {
			w.tell(i, called)
		}
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
	helped := false
	something := func() bool {
		helped = w.help != nil && w.help(i+1)
		return helped || one.state.Load() != idle
	}
	for {
		if w.await(idleTurns, something); helped {
			helped = false
			continue
		}
		if one.state.CompareAndSwap(idle, parked) {
			<-one.wake
		}
		// It may come late: to a product that is finished, or to the next.
		if !one.state.CompareAndSwap(called, idle) {
			return // leaving
		}
		if done := w.claim(i + 1); done > 0 && w.left.Add(-done) == 0 {
			w.ended <- struct{}{}
			runtime.Gosched() // the caller is next in line here
		}
	}
}
