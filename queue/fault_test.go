// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/mmio/npureg"
)

// faulting is the first command_id of the commands that fault their context.
const faulting = 1000

// enableOf is enable for a queue of a context.
func (r *rig) enableOf(index int, context uint16) {
	r.enable(index)
	r.locked(func() { r.e.queues[index].cfg.Context = context })
}

// TestFaultStopsTheContext: the command that faults completes, all queues of its context stop, and others go on (§11.5).
func TestFaultStopsTheContext(t *testing.T) {
	r := newRig(t)
	r.hold = true
	r.enableOf(1, 7)
	r.enableOf(2, 8)
	r.enableOf(3, 7)
	r.put(1, 0, 5)
	r.put(1, 1, faulting)
	r.put(1, 2, 6)
	r.put(2, 0, 20)
	r.put(3, 0, 30)
	r.sq(1, 1)
	take(t, r.started, "start")
	r.sq(1, 3)
	r.release <- struct{}{}
	take(t, r.completed, "completion")
	take(t, r.started, "start of the command that faults")
	if diff := cmp.Diff(Origin{Context: 7, Queue: 1, Index: 1}, *r.from.Load()); diff != "" {
		t.Errorf("origin (-want +got):\n%s", diff)
	}
	r.sq(2, 1)
	r.sq(3, 1)
	r.posted = func() {
		if s := r.state(1); s != npureg.QueueError || r.faulted.Load() != 1 {
			t.Errorf("completion posted in state %d with %d faults: software must find the record", s, r.faulted.Load())
		}
		r.posted = nil
	}
	close(r.release)
	if v := take(t, r.completed, "completion of the command that faults"); v != 1 {
		t.Errorf("vector %d", v)
	}
	if v := take(t, r.completed, "completion of the other context"); v != 2 {
		t.Errorf("vector %d", v)
	}
	take(t, r.events, "event")
	if c := r.cqe(1, 1); c.ID != faulting || c.Head != 2 {
		t.Errorf("completion %+v", c)
	}
	for q, want := range map[int]uint8{1: npureg.QueueError, 2: npureg.QueueEnabled, 3: npureg.QueueError} {
		if s := r.state(q); s != want {
			t.Errorf("queue %d in state %d, want %d", q, s, want)
		}
	}
	if id := take(t, r.started, "start"); id != 20 {
		t.Errorf("command %d started", id)
	}
	r.sq(1, 0) // ignored
	r.sq(3, 1)
	quiet(t, r.started, "a command of a stopped context started")

	r.locked(func() { r.e.DisableLocked(1) })
	r.enableOf(1, 7)
	r.put(1, 0, 9)
	r.sq(1, 1)
	take(t, r.completed, "completion of the queue that was made again")
}

// TestFaultOfADestroyedQueue: a command that was told to stop before it faulted is ABORTED, and its context goes on.
func TestFaultOfADestroyedQueue(t *testing.T) {
	r := newRig(t)
	r.hold = true
	r.enableOf(1, 7)
	r.enableOf(2, 7)
	r.put(1, 0, faulting)
	r.sq(1, 1)
	take(t, r.started, "start")
	r.locked(func() { r.e.DisableLocked(1) })
	take(t, r.completed, "completion")
	take(t, r.events, "event")
	if c := r.cqe(1, 0); c.Status != npureg.StatusAborted {
		t.Errorf("completion %+v", c)
	}
	if s := r.state(2); s != npureg.QueueEnabled || r.faulted.Load() != 0 {
		t.Errorf("the context's other queue is in state %d, %d faults", s, r.faulted.Load())
	}
}
