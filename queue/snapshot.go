// SPDX-License-Identifier: Apache-2.0

package queue

// Snapshot is a queue at one moment, for whoever looks for what went wrong (§12.8).
type Snapshot struct {
	State                          uint8 // npureg.Queue…
	Context                        uint16
	SQHead, SQTail, CQHead, CQTail uint16
	SQEntries, CQEntries           uint16
}

// SnapshotLocked returns what a queue is doing; one that does not exist is disabled.
func (e *Engine) SnapshotLocked(index int) Snapshot {
	if !e.valid(index) {
		return Snapshot{}
	}
	q := &e.queues[index]
	s := Snapshot{State: e.StateLocked(index), Context: q.cfg.Context, SQHead: q.sqHead, SQTail: q.sqTail, SQEntries: q.cfg.SQEntries}
	if cq := q.cq; cq != nil {
		s.CQHead, s.CQTail, s.CQEntries = cq.head, cq.tail, cq.entries
	}
	return s
}

// FlightLocked returns the queue whose command is in flight, from its fetch until its completion is
// in memory, or 0.
func (e *Engine) FlightLocked() int {
	if e.current == nil || e.current == &e.look {
		return 0
	}
	return e.current.queue
}
