// SPDX-License-Identifier: Apache-2.0

package core

import (
	"math"
	"slices"

	"npuemu/core/isa"
)

// A program that comes again has the same tasks in the same order, waiting for the same others, as long as its arguments are the same and its bindings have
// the same places: nothing in it depends on data. The second run of it takes them down, if all that it does is tasks, and
// those that follow do what was taken down (crew), without a look at an instruction.

// mostNoted bounds the tasks of a course: each takes 800 bytes, and its limits, if they are other than those before, 300.
const mostNoted = 8192

// course is what a program did.
type course struct {
	tasks    []notedTask
	order    *order
	limits   []*isa.Limits // that tasks have
	feet     []foot        // of tasks, while it is being taken down
	blanks   []blanked
	places   []place  // of its bindings
	numbered []uint64 // and their numbers
	weights  uint64   // how many numbers they got
	stats    Stats    // at its end
}

// notedTask is a task of a course. Its number is its place in the order of execution; the REQUANT that it has taken over
// (course.join) is task last, by which it fails, or itself.
type notedTask struct {
	task
	last uint64
}

// foot is what a task accesses.
type foot struct {
	footprint
	reach
}

// blanked is a part of local memory that was cleared, in bytes.
type blanked struct {
	acc      bool
	from, to int
}

// startNoting begins to take down the program that runs.
func (c *Core) startNoting() { c.noted, c.firstNumber = new(course), c.poison.book.last }

// giveUpNoting is told that the program that runs is not to be taken down, now or when it comes again.
func (c *Core) giveUpNoting() {
	if c.noted != nil {
		c.noted, c.same.varied = nil, true
	}
}

// takeDown notes t, which is complete.
func (c *Core) takeDown(t *task) {
	k, w := c.noted, &c.win
	if len(k.tasks) == mostNoted {
		c.giveUpNoting()
		return
	}
	limits := t.limits
	if n := len(k.limits); n > 0 && *k.limits[n-1] == *limits {
		limits = k.limits[n-1]
	} else {
		own := *limits
		limits = &own
		k.limits = append(k.limits, limits)
	}
	n := notedTask{task: *t, last: t.number}
	n.limits, n.foot = limits, nil
	if n.late.weights > 0 {
		n.late.weights -= c.firstNumber
	}
	s := t.number % windowSize
	k.tasks, k.feet = append(k.tasks, n), append(k.feet, foot{w.feet[s], w.reaches[s]})
}

// endNoting keeps what was taken down of a program that ran to its end.
func (c *Core) endNoting() {
	k := c.noted
	k.stats, k.weights = c.stats, c.poison.book.last-c.firstNumber
	k.places = slices.Clone(c.places.found)
	for _, p := range k.places {
		number := uint64(0)
		if p.placed != 0 {
			number = c.places.list[p.index]
		}
		k.numbered = append(k.numbered, number)
	}
	k.join()
	k.order = k.inOrder()
	k.feet = nil
	c.same.course, c.noted = k, nil
}

// join makes a product and the REQUANT of all of it one task, at the product's place, if nothing between them has a byte in
// common with the REQUANT: a compiler begins the next tile's product before it, since engines have an order.
func (k *course) join() {
	gone := make([]bool, len(k.tasks))
	for i := range k.tasks {
		r := &k.tasks[i]
		if r.kind != wordTask || isa.Opcode(r.word[0]) != isa.OpRequant {
			continue
		}
		requant := isa.DecodeRequant(&r.word)
		for j := i - 1; j >= 0 && i-j < windowSize; j-- {
			p := &k.tasks[j]
			if gone[j] || !conflict(&k.feet[i].reach, &k.feet[j].reach, &k.feet[i].footprint, &k.feet[j].footprint) {
				continue
			}
			l := &p.late
			if p.kind != lateTask || l.fused || !l.fits(&requant) {
				break
			}
			l.passing = !l.p.Accumulate && k.passing(j, i, gone)
			l.fused, l.requant = true, requant
			p.last, p.index, p.before, p.fallible = r.last, r.index, r.before, true
			p.nanos += r.nanos
			f := &k.feet[j]
			for _, a := range k.feet[i].accesses[:k.feet[i].footprint.count] {
				f.accesses[f.footprint.count] = a
				f.footprint.count++
			}
			if l.passing {
				f.withoutSums()
			}
			f.reach.of(&f.footprint)
			gone[i] = true
			break
		}
	}
	left := 0
	for i := range k.tasks {
		if !gone[i] {
			k.tasks[left], k.feet[left] = k.tasks[i], k.feet[i]
			left++
		}
	}
	clear(k.tasks[left:])
	k.tasks, k.feet = k.tasks[:left], k.feet[:left]
}

// mostAwaited is how many tasks passing looks at.
const mostAwaited = 1024

// passing reports whether nobody but REQUANT i needs the accumulators of product j, all of which are written to: they are
// replaced, or the program ends, before another task reads one of them.
func (k *course) passing(j, i int, gone []bool) bool {
	left := span64{from: math.MaxUint64} // of the sums, which is not known to be replaced
	for _, a := range k.feet[j].list[:k.feet[j].reach.count] {
		if a.space == isa.Accumulators {
			left.from, left.to = min(left.from, a.from), max(left.to, a.to)
		}
	}
	for q := j + 1; q < len(k.tasks); q++ {
		if q-j > mostAwaited {
			return false
		}
		if q == i || gone[q] {
			continue
		}
		t, f := &k.tasks[q], &k.feet[q]
		replaces := t.kind == loadTask || t.kind == wordTask && isa.Opcode(t.word[0]) == isa.OpFill
		if t.kind == lateTask {
			// What is both, a BIAS and another product, is one after the other.
			replaces = !(t.late.product && (t.late.bias || t.late.p.Accumulate))
		}
		for _, a := range f.list[:f.reach.count] {
			if a.space != isa.Accumulators || a.from >= left.to || left.from >= a.to {
				continue
			}
			switch rows := &f.accesses[a.access]; {
			case !rows.Write:
				if t.kind != lateTask || !replaces { // else its REQUANT's, which reads what the product wrote
					return false
				}
			case t.kind == lateTask && !replaces:
				return false
			case !replaces || rows.Rows.Inner > 1 || rows.Rows.Outer > 1:
			case a.from <= left.from:
				left.from = min(a.to, left.to)
			case a.to >= left.to:
				left.to = a.from
			}
		}
		if left.from == left.to {
			return true
		}
	}
	return true
}

// follows reports whether the program that is ready to run can take k's course: its bindings lie as they did.
func (c *Core) follows(k *course) bool {
	if k == nil || !c.apart {
		return false
	}
	for b, p := range k.places {
		if p.known == 0 {
			continue
		}
		if index, placed := c.places.of(uint8(b), c.bindings); !placed || c.places.list[index] != k.numbered[b] {
			return false
		}
	}
	return true
}
