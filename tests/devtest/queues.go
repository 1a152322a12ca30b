// SPDX-License-Identifier: Apache-2.0

package devtest

import (
	"encoding/binary"

	"npuemu/mmio/npureg"
)

// QueueOptions are what CREATE_QUEUE and MODIFY_QUEUE say besides rings (§4.12 to §4.16).
type QueueOptions struct {
	Priority, Weight uint8
	Timeout          uint32 // ms
	Count, Time      uint16 // coalescing, µs
}

func (o QueueOptions) put(e *Entry) {
	le := binary.LittleEndian
	e[0x24], e[0x25] = o.Priority, o.Weight
	le.PutUint32(e[0x30:], o.Timeout)
	le.PutUint16(e[0x34:], o.Count)
	le.PutUint16(e[0x36:], o.Time)
}

// CreateQueueWith is CreateQueue with options.
func (h *Host) CreateQueueWith(index int, context uint32, vector, n int, o QueueOptions) {
	h.T.Helper()
	r := &ring{index: index}
	e := CreateQueueEntry(index, context, 0, 0, 0, 0, 0)
	if h.virtio == nil {
		*r = h.newRing(index, n, n)
		e = CreateQueueEntry(index, context, vector, r.sq, r.cq, n, n)
	}
	o.put(&e)
	if c := h.Admin(e); c.Status != npureg.StatusSuccess {
		h.T.Fatalf("devtest: CREATE_QUEUE %d: %v, info %#x", index, c.Status, c.Info)
	}
	if v := h.virtio; v != nil {
		r.virt = v.queue(h, index+1, vector, n)
	}
	h.queues[index] = r
}

// CreateSharedQueue creates a queue that posts into the completion ring of owner (§4.15). Wait and Do are
// for the owner.
func (h *Host) CreateSharedQueue(index int, context uint32, n, owner int, o QueueOptions) {
	h.T.Helper()
	r := h.newRing(index, n, 2)
	e := SharedQueueEntry(index, context, r.sq, n, owner)
	o.put(&e)
	if c := h.Admin(e); c.Status != npureg.StatusSuccess {
		h.T.Fatalf("devtest: CREATE_QUEUE %d: %v, info %#x", index, c.Status, c.Info)
	}
	h.queues[index] = &r
}

// SharedQueueEntry returns CREATE_QUEUE with SHARED_CQ.
func SharedQueueEntry(index int, context uint32, sq uint64, n, owner int) Entry {
	e := CreateQueueEntry(index, context, 0, sq, 0, n, 0)
	binary.LittleEndian.PutUint16(e[0x26:], npureg.QueueSharedCQ)
	binary.LittleEndian.PutUint16(e[0x38:], uint16(owner))
	return e
}

// QueueEntry returns MODIFY_QUEUE, SUSPEND_QUEUE, RESUME_QUEUE or DESTROY_QUEUE.
func QueueEntry(opcode byte, index int, o QueueOptions) Entry {
	e := Entry{opcode}
	binary.LittleEndian.PutUint32(e[8:], uint32(index))
	o.put(&e)
	return e
}

// TimelineEntry returns WAIT or SIGNAL (§4.17, §4.18).
func TimelineEntry(opcode byte, space uint8, addr, value uint64) Entry {
	e := Entry{opcode, 4: space}
	binary.LittleEndian.PutUint64(e[0x08:], addr)
	binary.LittleEndian.PutUint64(e[0x10:], value)
	return e
}

// SubmitAdmin starts an admin command that may take long, and returns its command_id.
func (h *Host) SubmitAdmin(e Entry) uint16 {
	h.T.Helper()
	return h.submit(&h.admin, e)
}

// WaitAdmin returns the next completion of the admin queue.
func (h *Host) WaitAdmin() CQE {
	h.T.Helper()
	return h.wait(&h.admin)
}

// QueueStatus is an entry of log page 8 (§4.19).
type QueueStatus struct {
	Queue                          uint16
	State, Flags, Priority, Weight uint8
	Owner                          uint16
	SQHead, SQTail, CQHead, CQTail uint16
	Executed                       uint64
	Errors, Timeouts               uint32
	Context, Timeout               uint32
	Addr, Want, Found              uint64
}

// QueueStatus reads log page 8 for one queue.
func (h *Host) QueueStatus(index int) (s QueueStatus) {
	h.T.Helper()
	at, p := h.Alloc(npureg.QueueStatusSize)
	e := Entry{npureg.AdminGetLogPage}
	le := binary.LittleEndian
	le.PutUint64(e[8:], at)
	le.PutUint32(e[0x10:], npureg.QueueStatusSize)
	le.PutUint32(e[0x14:], npureg.LogQueues)
	le.PutUint32(e[0x18:], uint32(index))
	if c := h.Admin(e); c.Status != npureg.StatusSuccess || c.Result != npureg.QueueStatusSize {
		h.T.Fatalf("devtest: GET_LOG_PAGE 8 of queue %d: %v", index, c)
	}
	if _, err := binary.Decode(p, le, &s); err != nil {
		h.T.Fatal(err)
	}
	h.Rewind(at)
	return s
}
