// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"testing"

	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
)

// TestTranslatedTimelines: two processes share a timeline that each has at another address (§4.17, §11); one that
// breaks the rules stops alone.
func TestTranslatedTimelines(t *testing.T) {
	h, kernel := ready(t)
	for _, q := range []int{2, 3, 4} {
		h.CreateQueue(q, kernel, q, 8)
		h.DestroyQueue(q)
	}
	a, b := newProcess(h, 2, false), newProcess(h, 3, false)
	shared, mem := h.Alloc(npureg.PageSize)
	const atA, atB, readOnly, nowhere = 0x1_0000_1000, 0x7_0000_3000, 0x7_0000_4000, 0x9_0000_0000
	a.Map(atA, npureg.PageSize, 0, shared, r|w)
	b.Map(atB, npureg.PageSize, 0, shared, r|w)
	b.Map(readOnly, npureg.PageSize, 0, shared, r)
	other := h.QueueStatus(3).Executed

	h.Submit(2, wait(2, atA+8, 40))
	if s := waiting(h, 2); s.Addr != atA+8 || s.Context != a.context {
		t.Errorf("log page 8: %+v", s)
	}
	do(h, 3, signal(2, atB+8, 39))
	do(h, 1, nop())
	if s := h.QueueStatus(2); s.Executed != 0 {
		t.Error("a WAIT completed before its value came")
	}
	do(h, 3, signal(2, atB+8, 40))
	if c := h.Wait(2); c.Status != npureg.StatusSuccess || c.Info != 40 || le.Uint64(mem[8:]) != 40 {
		t.Errorf("WAIT: %v", c)
	}
	// The kernel's own queue reaches the same timeline on the bus.
	h.Submit(2, wait(2, atA+8, 41))
	waiting(h, 2)
	do(h, 1, signal(0, shared+8, 41))
	if c := h.Wait(2); c.Status != npureg.StatusSuccess {
		t.Errorf("WAIT: %v", c)
	}
	// Another space is not for a process.
	for space := range uint8(2) {
		for _, op := range []byte{npureg.CmdWait, npureg.CmdSignal} {
			if c := h.Do(2, devtest.TimelineEntry(op, space, shared, 1)); c.Status != npureg.StatusInvalidField || c.Info != 4 {
				t.Errorf("opcode %d in space %d: %v", op, space, c)
			}
		}
	}
	// A WAIT reads; a SIGNAL writes.
	do(h, 3, wait(2, readOnly+8, 41))
	h.Submit(2, wait(2, atA+16, 1))
	waiting(h, 2)
	if c := h.Do(3, signal(2, readOnly+8, 99)); c.Status != npureg.StatusTranslationFault {
		t.Errorf("SIGNAL in a read-only page: %v", c)
	}
	if s := h.QueueStatus(3); s.State != npureg.QueueError || s.Executed <= other {
		t.Errorf("queue of the context that faulted: %+v", s)
	}
	do(h, 1, signal(0, shared+16, 1)) // the other process goes on
	if c := h.Wait(2); c.Status != npureg.StatusSuccess {
		t.Errorf("WAIT of the other process: %v", c)
	}
	if c := h.Do(2, wait(2, nowhere, 1)); c.Status != npureg.StatusTranslationFault {
		t.Errorf("WAIT where nothing is mapped: %v", c)
	}
	do(h, 1, nop())
}
