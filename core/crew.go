// SPDX-License-Identifier: Apache-2.0

package core

import (
	"context"
	"math"
	"math/bits"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// What a course's tasks wait for is known before it begins. So those who work on it need nobody to issue them: who has
// finished a task tells those that waited for it, and takes one of them, or the oldest that waits for nothing. A task begins at most
// windowSize tasks after the oldest that has not finished, because a course knows of conflicts no further apart.

// crew is the units at work on a course.
type crew struct {
	course *course
	run    uint64                          // number of this run, in its upper half
	base   uint64                          // of the numbers of weights in this run
	left   [mostNoted]atomic.Int32         // of each task: how many it waits for, finished if it has finished
	ready  [mostNoted/64 + 1]atomic.Uint64 // a bit for each task that can begin and has not begun
	_      [64]byte                        // no line of the cache is another's
	low    atomic.Uint64                   // run, and the oldest task that has not finished, or how many there are
	_      [64]byte
	failed atomic.Uint64 // least number of a task that failed, or that was not done because the context has ended
	asleep atomic.Bool   // the sequencer waits for wake
	wake   chan struct{}

	mu     sync.Mutex
	fault  *Fault // of task failed
	before Stats  // of the program before it
	moved  Stats  // bytes, by it
}

// finished is what crew.left has of a task that has finished.
const finished = -1

// order is what follows from a course's tasks: after[first[i]:first[i+1]] are those that wait for task i, and for how many
// task i waits.
type order struct {
	first []uint32
	after []uint32
	waits []int32
	nanos int
}

// inOrder returns the order of k's tasks. A task does not wait by itself for one that another waits for which it waits for, but
// for the one that is windowSize before it.
func (k *course) inOrder() *order {
	n := len(k.tasks)
	o := &order{first: make([]uint32, n+1), waits: make([]int32, n)}
	// Bit n is for the n-th task before, 0 the task itself.
	all, direct := make([]uint32, n), make([]uint32, n)
	for i := range k.tasks {
		t, f := &k.tasks[i], &k.feet[i]
		all[i] = 1
		for n := 1; n < windowSize && n <= i; n++ {
			b := &k.tasks[i-n]
			if all[i]>>n&1 != 0 { // another waits for it
				continue
			}
			if t.kind == storeTask && b.fallible && b.last < t.number || conflict(&f.reach, &k.feet[i-n].reach, &f.footprint, &k.feet[i-n].footprint) {
				direct[i] |= 1 << n
				all[i] |= all[i-n] << n
			}
		}
		o.waits[i] = int32(bits.OnesCount32(direct[i]))
		for m := direct[i]; m != 0; m &= m - 1 {
			o.first[i-bits.TrailingZeros32(m)+1]++
		}
		if i >= windowSize {
			o.waits[i]++
		}
		o.nanos += t.nanos
	}
	for i := range k.tasks {
		o.first[i+1] += o.first[i]
	}
	o.after = make([]uint32, o.first[n])
	next := slices.Clone(o.first)
	for i := range k.tasks {
		for m := direct[i]; m != 0; m &= m - 1 {
			d := i - bits.TrailingZeros32(m)
			o.after[next[d]] = uint32(i)
			next[d]++
		}
	}
	return o
}

// begin makes the tasks of k, whose weights get numbers above base, ones that can begin.
func (w *crew) begin(k *course, base uint64) {
	w.course, w.base, w.fault = k, base, nil
	w.run += 1 << 32
	w.failed.Store(math.MaxUint64)
	for i, n := range k.order.waits {
		w.left[i].Store(n)
	}
	w.low.Store(w.run)
	for i := range min(len(k.tasks), windowSize) {
		if k.order.waits[i] == 0 {
			w.ready[0].Or(1 << i)
		}
	}
}

// take returns the oldest task that can begin, as one that has begun, or −1.
func (w *crew) take() int {
	for {
		low := uint32(w.low.Load())
		word := low / 64
		some := w.ready[word].Load() >> (low % 64) << (low % 64)
		if some == 0 {
			if low%64 <= 64-windowSize {
				return -1
			}
			word++
			if some = w.ready[word].Load(); some == 0 {
				return -1
			}
		}
		bit := some & -some
		if w.ready[word].And(^bit)&bit != 0 {
			return int(word*64) + bits.TrailingZeros64(bit)
		}
	}
}

// more reports whether there is a task that can begin.
func (w *crew) more() bool {
	low := uint32(w.low.Load())
	word := low / 64
	return w.ready[word].Load()>>(low%64) != 0 || low%64 > 64-windowSize && w.ready[word+1].Load() != 0
}

// waitsLess is told that a task that task i waits for has finished.
func (w *crew) waitsLess(i uint32) {
	if w.left[i].Add(-1) == 0 {
		w.ready[i/64].Or(1 << (i % 64))
	}
}

// finish is told that task i has finished. It returns one that waited for nothing else, which is the caller's, whose caches have
// what it takes, or −1.
func (w *crew) finish(i int) (next int) {
	next = -1
	o, run := w.course.order, w.run
	end := run + uint64(len(w.course.tasks))
	for _, a := range o.after[o.first[i]:o.first[i+1]] {
		if next >= 0 {
			w.waitsLess(a)
		} else if w.left[a].Add(-1) == 0 {
			next = int(a)
		}
	}
	w.left[i].Store(finished)
	// As soon as low is end the next run may begin.
	for low := w.low.Load(); low >= run && low < end && w.left[uint32(low)].Load() == finished; low = w.low.Load() {
		if w.low.CompareAndSwap(low, low+1) && low+windowSize < end {
			w.waitsLess(uint32(low) + windowSize)
		}
	}
	if w.asleep.Load() && w.asleep.CompareAndSwap(true, false) {
		w.wake <- struct{}{}
	}
	return next
}

// fails is told that what is task n of the program did, after it moved so many bytes: f, or nil if the context has ended.
func (w *crew) fails(n uint64, before Stats, f *Fault, moved Stats) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n < w.failed.Load() {
		w.failed.Store(n)
		w.fault, w.before, w.moved = f, before, moved
	}
}

// helpCourse does tasks of the course, or parts of one that another thread is at. It reports false if there are none.
func (c *Core) helpCourse(thread int) bool {
	u := c.units[thread]
	i := c.crew.take()
	for next := i; next >= 0; {
		c.performNoted(u, next)
		next = c.crew.finish(next)
	}
	if i >= 0 {
		return true
	}
	for n, other := range c.units {
		if n != thread && u.array.Join(other.array) {
			return true
		}
	}
	return false
}

// performNoted does task i of the course with u.
func (c *Core) performNoted(u *unit, i int) {
	w := &c.crew
	n := &w.course.tasks[i]
	if n.number >= w.failed.Load() {
		return
	}
	if c.stopped() {
		w.fails(n.number, n.before, nil, Stats{})
		return
	}
	before := u.moved
	u.limits, u.stats = n.limits, &u.moved
	var f *Fault
	switch n.kind {
	case loadTask:
		f = u.transfer(n.load, false)
	case storeTask:
		f = u.transfer(n.load, true)
	case lateTask:
		u.numbers = w.base
		u.array.Alone(w.more()) // others have something else to do
		f = u.compute(&n.late)
		u.numbers = 0
	default:
		f = u.execute(&n.word)
	}
	if f != nil {
		f.Instr = uint32(n.index)
		w.fails(n.last, n.before, f, Stats{BytesLoaded: u.moved.BytesLoaded - before.BytesLoaded, BytesStored: u.moved.BytesStored - before.BytesStored})
	}
}

// follow runs the program as k says, whose weights get new numbers.
func (c *Core) follow(ctx context.Context, k *course) error {
	b, w := &c.poison.book, &c.crew
	numbers := b.last
	b.last += k.weights
	for i := range k.blanks { // nobody comes to them before
		c.clear(k.blanks[i].acc, k.blanks[i].from, k.blanks[i].to)
	}
	for _, u := range c.units {
		u.moved = Stats{}
	}
	if len(c.units) == 1 {
		c.followAlone(k, numbers)
	} else {
		c.followTogether(k, numbers)
	}
	c.stats = k.stats
	c.stats.BytesLoaded, c.stats.BytesStored = 0, 0
	for _, u := range c.units {
		c.stats.BytesLoaded += u.moved.BytesLoaded
		c.stats.BytesStored += u.moved.BytesStored
	}
	if end := w.failed.Load(); end != math.MaxUint64 { // tasks behind it may have moved bytes
		c.stats = w.before
		c.stats.BytesLoaded, c.stats.BytesStored = w.moved.BytesLoaded, w.moved.BytesStored
		for i := range k.tasks {
			if k.tasks[i].number < end {
				k.tasks[i].count(&c.stats)
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if w.fault != nil {
		return w.fault
	}
	return nil
}

// count adds to s the bytes that t moves.
func (t *task) count(s *Stats) {
	switch m := t.load.Memory(); t.kind {
	case loadTask:
		s.BytesLoaded += m.Bytes * m.Inner * m.Outer
	case storeTask:
		s.BytesStored += m.Bytes * m.Inner * m.Outer
	}
}

// followAlone does the tasks of k in their order.
func (c *Core) followAlone(k *course, numbers uint64) {
	w, u := &c.crew, c.units[0]
	w.course, w.base, w.fault = k, numbers, nil
	w.failed.Store(math.MaxUint64)
	for i := range k.tasks { // to the end: what failed may be a REQUANT behind tasks that follow
		c.performNoted(u, i)
	}
}

// callEvery is after how many of its tasks the sequencer calls those that sleep, if there is something to do.
const callEvery = 16

// followTogether does the tasks of k with all units.
func (c *Core) followTogether(k *course, numbers uint64) {
	w := &c.crew
	for _, u := range c.units {
		u.array.Share(len(c.units))
	}
	w.begin(k, numbers)
	if k.order.nanos >= worthWaking {
		c.units[0].array.Call()
	}
	for n := 1; !w.over(); n++ {
		if !c.helpCourse(0) {
			c.await()
		} else if n%callEvery == 0 && w.more() {
			c.units[0].array.Call()
		}
	}
	for _, u := range c.units {
		u.array.Alone(false)
		u.array.Share(0)
	}
}

// over reports whether all tasks have finished.
func (w *crew) over() bool { return w.low.Load()-w.run == uint64(len(w.course.tasks)) }

// await does a task, or a part of one, as soon as there is one, or returns when all have finished, or somebody has finished one.
func (c *Core) await() {
	w := &c.crew
	for range workTurns {
		for range workSpins {
			if w.over() || c.helpCourse(0) {
				return
			}
		}
		runtime.Gosched()
	}
	w.asleep.Store(true)
	if (w.more() || w.over()) && w.asleep.CompareAndSwap(true, false) {
		return
	}
	<-w.wake
}
