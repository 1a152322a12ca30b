// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"fmt"
	"time"

	"npuemu/firmware"
	"npuemu/mmio/npureg"
	"npuemu/queue"
	"npuemu/vdev/pci"
)

// queues is the user queues, as firmware programs them.
type queues struct{ d *Device }

func (q queues) Configure(index int, c firmware.QueueConfig, s firmware.QueueSchedule) {
	if !q.has(npureg.FeatureShadowDoorbells) {
		c.Shadow = 0
	}
	if !q.has(npureg.FeatureQueueControl) {
		c.Owner, s = 0, firmware.QueueSchedule{}
	}
	if q.d.queues.StateLocked(index) != npureg.QueueDisabled {
		return
	}
	t := q.d.contexts[c.Context]
	if t == nil {
		t = &translation{}
	}
	q.d.spaces[index].Store(t.space)
	q.d.queues.EnableLocked(index, queue.Config(c))
	q.d.queues.ModifyLocked(index, queue.Schedule(s))
	if t.faulted {
		q.d.queues.StopContextLocked(c.Context)
	}
}

func (q queues) Control(index int, op uint32) {
	switch {
	case op == npureg.QueueControlDisable:
		q.d.queues.DisableLocked(index)
	case !q.has(npureg.FeatureQueueControl):
	case op == npureg.QueueControlSuspend:
		q.d.queues.SuspendLocked(index)
	case op == npureg.QueueControlResume:
		q.d.queues.ResumeLocked(index)
	}
}

func (q queues) Modify(index int, s firmware.QueueSchedule) {
	if q.has(npureg.FeatureQueueControl) {
		q.d.queues.ModifyLocked(index, queue.Schedule(s))
	}
}

func (q queues) Abort(index int, sequence, result uint32) {
	if q.has(npureg.FeatureQueueControl) {
		q.d.queues.AbortLocked(index, sequence, result)
	}
}

func (q queues) Status(index int) firmware.QueueStatus {
	return firmware.QueueStatus(q.d.queues.StatusLocked(index))
}

func (q queues) Overview() firmware.QueueOverview {
	return firmware.QueueOverview(q.d.queues.OverviewLocked())
}

func (q queues) has(feature uint32) bool { return q.d.cfg.features()&feature != 0 }

// board is what the queue engine tells.
type board struct{ d *Device }

func (b board) InterruptLocked(vector uint16) {
	b.d.raiseLocked(int(vector))
	if b.d.fn.Interrupts() == pci.ByINTx {
		b.d.bar0.SetBits(npureg.IRQStatus, npureg.IRQQueue)
		b.d.levelLocked()
	}
}

func (b board) CompletedLocked(c *queue.Completion) {
	b.d.engineOverLocked()
	b.d.sampleLocked(time.Duration(b.d.executor.engines.ended.Load()))
	b.d.count(npureg.CounterCommands, 1)
	if c.Status == npureg.StatusSuccess {
		return
	}
	b.d.count(npureg.CounterErrors, 1)
	evidence := fmt.Sprintf("result %d, info %#x", c.Result, c.Info)
	if c.Status == npureg.StatusWaitTimeout {
		evidence = fmt.Sprintf("address %#x, wanted %d, found %d", c.Addr, c.Want, c.Info)
		switch { // §4.14
		case c.Result == 1:
			evidence += ", which is the host's to store"
		case c.Result > 1:
			evidence += fmt.Sprintf(", a deadlock of %d queues", c.Result)
		}
	}
	b.d.findings.add("command-"+c.Status.String(), "§9.1 "+c.Status.String(), evidence)
}

func (b board) FaultLocked(f queue.Fault) {
	b.d.engineOverLocked()
	b.d.faultLocked(f)
}

func (b board) ContextFaultLocked()               { b.d.contextFaultLocked() }
func (b board) QueueEventLocked()                 { b.d.fw.QueueEvent() }
func (b board) IdleLocked()                       { b.d.resetPartLocked() }
func (b board) CountLocked(counter int, n uint64) { b.d.count(counter, n) }
