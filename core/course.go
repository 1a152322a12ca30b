// SPDX-License-Identifier: Apache-2.0

package core

import (
	"context"
	"math/bits"
	"slices"

	"npuemu/core/isa"
)

// A program that comes again has the same tasks in the same order, waiting for the same others, as long as its bindings have
// the same places: nothing in it depends on data. The second run of it takes them down, if all that it does is tasks, and
// those that follow issue what was taken down, without a look at an instruction.

// mostNoted bounds the tasks of a course: each takes 744 bytes, and its limits, if they are other than those before, 300.
const mostNoted = 4096

// course is what a program did.
type course struct {
	tasks    []notedTask
	limits   []*isa.Limits // that tasks have
	blanks   []blanked
	places   []place  // of its bindings
	numbered []uint64 // and their numbers
	weights  uint64   // how many numbers they got
	stats    Stats    // at its end
}

// notedTask is a task with the bits of those that it waits for, bit windowSize − n for the n-th before it.
type notedTask struct {
	task
	deps   uint32
	blanks int // how many are cleared up to it
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

// takeDown notes t, which waits for the tasks at places deps.
func (c *Core) takeDown(t *task, deps uint32) {
	k := c.noted
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
	n := notedTask{task: *t, deps: bits.RotateLeft32(deps, -int(t.number%windowSize)), blanks: len(k.blanks)}
	n.limits, n.foot = limits, nil
	if n.late.weights > 0 {
		n.late.weights -= c.firstNumber
	}
	k.tasks = append(k.tasks, n)
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
	c.same.course, c.noted = k, nil
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

// follow runs the program as k says, whose weights get new numbers.
func (c *Core) follow(ctx context.Context, k *course) error {
	w, b, blanks := &c.win, &c.poison.book, k.blanks
	numbers := b.last
	b.last += k.weights
	for i := range k.tasks {
		n := &k.tasks[i]
		c.makeRoom()
		if err := ctx.Err(); err != nil {
			return err
		}
		if w.fault != nil {
			return w.fault
		}
		for ; len(blanks) > len(k.blanks)-n.blanks; blanks = blanks[1:] {
			c.clear(blanks[0].acc, blanks[0].from, blanks[0].to)
		}
		c.stats = n.before.withBytes(&c.stats)
		c.tell(i%tellEach == 0)
		t := &w.tasks[w.issued%windowSize]
		*t = n.task
		if t.late.weights > 0 {
			t.late.weights += numbers
		}
		c.issue(t, bits.RotateLeft32(n.deps, int(w.issued%windowSize)))
	}
	c.settle()
	if err := ctx.Err(); err != nil {
		return err
	}
	c.stats = k.stats.withBytes(&c.stats)
	return nil
}

// withBytes returns s with as many bytes moved as of.
func (s Stats) withBytes(of *Stats) Stats {
	s.BytesLoaded, s.BytesStored = of.BytesLoaded, of.BytesStored
	return s
}
