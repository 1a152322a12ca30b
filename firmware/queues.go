// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"time"

	"npuemu/dma/iova"
	"npuemu/mmio/npureg"
)

// Queues is the hardware behind CP_QUEUE_… (§4.8). index is 1 to
// QUEUE_PARAM.COUNT.
type Queues interface {
	// Configure enables an empty queue. The submission ring has at least 2 entries; everything
	// else is as firmware wrote it.
	Configure(index int, c QueueConfig, s QueueSchedule)
	// Control is npureg.QueueControlDisable, Suspend or Resume.
	Control(index int, op uint32)
	// Modify changes the service of a queue.
	Modify(index int, s QueueSchedule)
	// Abort ends the command with a number, if the queue is still at it; a WAIT with a result.
	Abort(index int, sequence, result uint32)
	// Status returns all zero for a disabled queue.
	Status(index int) QueueStatus
	Overview() QueueOverview
}

// QueueConfig is what firmware says of a user queue.
type QueueConfig struct {
	SQ, CQ               iova.Addr
	SQEntries, CQEntries uint16
	Context, Vector      uint16
	Shadow               iova.Addr // shadow line (§4.11), or 0
	Owner                uint8     // queue whose completion ring it shares (§4.15), or 0
}

// QueueSchedule is how a queue is served (§4.12, §4.14, §4.16).
type QueueSchedule struct {
	Priority, Weight            uint8
	Timeout                     uint32 // ms
	CoalesceCount, CoalesceTime uint16 // completions, µs
}

// QueueStatus is what hardware knows of a queue (§4.19).
type QueueStatus struct {
	State, Flags, Priority, Weight, Owner uint8
	SQHead, SQTail, CQHead, CQTail        uint16
	SQEntries, CQEntries                  uint16
	Context                               uint16
	Timeout                               uint32
	Executed                              uint64
	Errors, Timeouts                      uint32
	WaitAddr, Want, Found                 uint64
	Sequence                              uint32
	Age                                   time.Duration
}

// QueueOverview is CP_QUEUE_OVERDUE, CP_QUEUE_CURRENT and CP_QUEUE_LOAD.
type QueueOverview struct{ Overdue, Current, Runnable, Waiting int }

// words returns the layout of §4.19.
func (s QueueStatus) words(index int) [npureg.QueueStatusSize / 4]uint32 {
	return [...]uint32{
		uint32(index) | uint32(s.State)<<16 | uint32(s.Flags)<<24,
		uint32(s.Priority) | uint32(s.Weight)<<8 | uint32(s.Owner)<<16,
		uint32(s.SQHead) | uint32(s.SQTail)<<16,
		uint32(s.CQHead) | uint32(s.CQTail)<<16,
		uint32(s.Executed), uint32(s.Executed >> 32),
		s.Errors, s.Timeouts,
		uint32(s.Context), s.Timeout,
		uint32(s.WaitAddr), uint32(s.WaitAddr >> 32),
		uint32(s.Want), uint32(s.Want >> 32),
		uint32(s.Found), uint32(s.Found >> 32),
	}
}

// queueHooks attaches behaviour to CP_QUEUE_….
func (p *Processor) queueHooks() {
	b, queues := p.bank, p.cfg.Queues

	b.OnWrite(npureg.CPQueueControl, p.controlQueue)
	p.onRead(npureg.CPQueueState, func() uint32 {
		if q, ok := p.queue(); ok {
			return uint32(queues.Status(q).State)
		}
		return npureg.QueueDisabled
	})
	b.OnWrite(npureg.CPQueueStatusIndex, func(v uint32) {
		if v != 0 {
			return
		}
		p.queueStatus = [npureg.QueueStatusSize / 4]uint32{}
		if q, ok := p.queue(); ok {
			p.queueStatus = queues.Status(q).words(q)
		}
	})
	p.onRead(npureg.CPQueueStatus, func() uint32 { return p.queueStatus[b.Value(npureg.CPQueueStatusIndex)] })
	status := func() (s QueueStatus) {
		if q, ok := p.queue(); ok {
			s = queues.Status(q)
		}
		return s
	}
	p.onReadThen(npureg.CPQueueSequence, func() uint32 { return status().Sequence }, func() {
		age := uint64(status().Age / time.Microsecond)
		b.Set(npureg.CPQueueAgeLo, uint32(age))
		b.Set(npureg.CPQueueAgeHi, uint32(age>>32))
	})
	b.OnWrite(npureg.CPQueueAbort, func(v uint32) {
		if q, ok := p.queue(); ok {
			queues.Abort(q, v, b.Value(npureg.CPQueueResult))
		}
	})
	p.onRead(npureg.CPQueueOverdue, func() uint32 { return uint32(queues.Overview().Overdue) })
	p.onRead(npureg.CPQueueCurrent, func() uint32 { return uint32(queues.Overview().Current) })
	p.onRead(npureg.CPQueueLoad, func() uint32 {
		o := queues.Overview()
		return uint32(o.Runnable) | uint32(o.Waiting)<<8
	})
}

// queue returns CP_QUEUE_INDEX if it is a user queue of this device.
func (p *Processor) queue() (int, bool) {
	q := p.bank.Value(npureg.CPQueueIndex)
	return int(q), q >= 1 && q <= p.cfg.Host.Register(npureg.QueueParam)&0xffff
}

func (p *Processor) controlQueue(v uint32) {
	q, ok := p.queue()
	if !ok {
		return
	}
	b := p.bank
	place, coalesce := b.Value(npureg.CPQueueSchedule), b.Value(npureg.CPQueueCoalesce)
	s := QueueSchedule{
		Priority: uint8(place & 3), Weight: uint8(place >> 8), Timeout: b.Value(npureg.CPQueueTimeout),
		CoalesceCount: uint16(coalesce), CoalesceTime: uint16(coalesce >> 16),
	}
	switch v {
	case npureg.QueueControlEnable:
		entries, binding := b.Value(npureg.CPQueueEntries), b.Value(npureg.CPQueueBinding)
		c := QueueConfig{
			SQ: p.addr(npureg.CPQueueSQBaseLo), CQ: p.addr(npureg.CPQueueCQBaseLo),
			SQEntries: uint16(entries), CQEntries: uint16(entries >> 16),
			Context: uint16(binding), Vector: uint16(binding >> 16), Shadow: p.addr(npureg.CPQueueShadowLo),
		}
		if place>>16&1 != 0 {
			c.Owner = uint8(place >> 24)
		}
		if c.SQEntries >= 2 && (c.CQEntries >= 2 || c.Owner != 0) {
			p.cfg.Queues.Configure(q, c, s)
		}
	case npureg.QueueControlModify:
		p.cfg.Queues.Modify(q, s)
	case npureg.QueueControlDisable, npureg.QueueControlSuspend, npureg.QueueControlResume:
		p.cfg.Queues.Control(q, v)
	}
}
