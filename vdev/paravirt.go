// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"npuemu/core/isa"
	"npuemu/dma/iova"
	"npuemu/firmware"
	"npuemu/mmio/npureg"
	"npuemu/vdev/vhostuser"
)

// The paravirtual NPU (docs/spec/virtio-npu.md).
const (
	VirtioID         = 0x3f // §10.1
	VirtioIDInQEMU   = 21   // §10.1
	VirtioConfigSize = 0x48 // §10.3

	virtioMajor, virtioMinor = 1, 0

	// Virtqueues (§10.2); user queue q is virtqueue q + virtqUser.
	virtqAdmin = 0
	virtqEvent = 1
	virtqUser  = 1

	// Bits of the configuration space's status (§10.3).
	virtioReady      = 1 << 0
	virtioFailed     = 1 << 1
	virtioNeedsReset = 1 << 2

	// Events (§10.6).
	eventSize     = 32
	eventFault    = 1
	eventFirmware = 2

	// maxEvents is how many wait for a buffer of the driver: more than a driver
	// that works ever lets wait.
	maxEvents = 64

	// ringEntries is the size of a private ring: enough that the device never waits
	// for us, and little memory.
	ringEntries = 64

	// windowID names device memory among the shared memory regions (§10.7).
	windowID = 1

	// privateBase is where our own memory lies on the bus: above every guest address
	// (vhostuser refuses them from 2⁵² on).
	privateBase iova.Addr = 1 << 63
)

var le = binary.LittleEndian

var _ vhostuser.Backend = (*Paravirt)(nil)

// Paravirt is the second front door of a Device: the same card as a virtio device.
// It is a driver of the Device in the same process. It has rings and the firmware image in
// memory of its own on the bus, which commands of the guest cannot reach; it boots the
// firmware when the guest's driver is there, and passes requests of virtqueues on
// as entries of the device's queues (§10.5).
//
// A Device with a Paravirt has no other front end. Run must run, besides the
// Device's.
//
// Paravirt.mu guards all state and is held for a step: a few register accesses and
// entries. Lock order: Paravirt.mu, then vhostuser's and Device.mu.
type Paravirt struct {
	d      *Device
	bus    iova.Table    // our own memory on the bus
	mem    *iova.Bytes   // behind it, at privateBase
	image  int           // size of the firmware image, which lies at its start
	wake   chan struct{} // capacity 1
	kicked []atomic.Bool // by virtqueue: there may be something to take

	mu         sync.Mutex
	front      *vhostuser.FrontEnd
	state      paravirtState
	status     uint32 // of the configuration space
	generation uint32 // of the configuration space
	admin      *channel
	users      []*channel // by user queue; nil until CREATE_QUEUE
	events     [][eventSize]byte
	lost       uint16 // events since the last that was kept
}

type paravirtState uint8

// States of a Paravirt.
const (
	stateIdle   paravirtState = iota // no driver
	stateReset                       // waits until the device takes an image
	stateBoot                        // firmware is starting
	stateReady                       // requests are served
	stateFailed                      // firmware failed; user queues may still work
)

// channel is a queue of the device as its driver sees it. Guarded by Paravirt.mu.
type channel struct {
	queue, virtq int
	sq, cq       uint64 // offsets in private memory
	tail, head   int
	phase        uint16
	slots        [ringEntries]slot // by the command_id that the device sees
	inFlight     int
	ending       bool // DESTROY_QUEUE has been passed on
}

// slot is a request that the device works on.
type slot struct {
	req   *vhostuser.Request
	entry [npureg.SQEntrySize]byte // as the guest wrote it
}

// Layout of private memory: image, then the rings of queue 0, 1, …
const ringsSize = ringEntries * (npureg.SQEntrySize + npureg.CQEntrySize)

// NewParavirt makes d a virtio device.
func NewParavirt(d *Device) *Paravirt {
	image := firmware.Image()
	n := d.cfg.Queues.Count
	rings := (len(image) + 63) &^ 63
	b := make([]byte, rings+(n+1)*ringsSize)
	copy(b, image)
	v := &Paravirt{d: d, mem: iova.NewBytes(b), image: len(image), wake: make(chan struct{}, 1),
		kicked: make([]atomic.Bool, n+1+virtqUser), users: make([]*channel, n+1)}
	if err := v.bus.Map(privateBase, uint64(len(b)), iova.Read|iova.Write, v.mem); err != nil {
		panic("vdev: BUG: private memory: " + err.Error())
	}
	d.paravirt.Store(v)
	return v
}

// Run serves virtqueues until ctx is done.
func (v *Paravirt) Run(ctx context.Context) {
	poll := time.NewTicker(time.Millisecond) // nothing tells of the end of a reset
	defer poll.Stop()
	for {
		var tick <-chan time.Time
		if v.step() {
			tick = poll.C
		}
		select {
		case <-ctx.Done():
			return
		case <-v.wake:
		case <-tick:
		}
	}
}

// signal wakes Run: an interrupt of the device, whatever its vector, or work for it. It
// does not block, and any lock may be held.
func (v *Paravirt) signal() {
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// Features returns none: version 1.0 has no feature bits (§10.1).
func (v *Paravirt) Features() uint64 { return 0 }

// Queues returns the number of virtqueues.
func (v *Paravirt) Queues() int { return len(v.kicked) }

// SharedMemory returns device memory, if clients may map it (§10.7).
func (v *Paravirt) SharedMemory() []vhostuser.SharedMemory {
	if !v.d.cfg.Memory.Window {
		return nil
	}
	return []vhostuser.SharedMemory{{ID: windowID, Size: uint64(len(v.d.dram.mem)), File: v.d.dram.file}}
}

// ReadConfig fills p with the configuration space (§10.3).
func (v *Paravirt) ReadConfig(p []byte) {
	v.mu.Lock()
	status, generation := v.status, v.generation
	v.mu.Unlock()
	d := v.d
	d.mu.Lock()
	defer d.mu.Unlock()
	var b [VirtioConfigSize]byte
	le.PutUint32(b[0x00:], npureg.Magic)
	le.PutUint32(b[0x04:], virtioMajor<<16|virtioMinor)
	le.PutUint32(b[0x08:], isa.Major<<16|uint32(d.cfg.isaMinor()))
	for i, reg := range []uint32{npureg.ArchVersion, npureg.FWVersion, npureg.FWBuild, npureg.FeaturesLo, npureg.FeaturesHi, npureg.DRAMSizeLo,
		npureg.DRAMSizeHi, npureg.ArrayDim, npureg.SpadSize, npureg.AccSize, npureg.EngineParam, npureg.ContextParam} {
		le.PutUint32(b[0x0c+4*i:], d.bar0.Value(reg))
	}
	le.PutUint32(b[0x18:], d.bar0.Value(npureg.FeaturesLo)&^npureg.FeatureShadowDoorbells) // nothing traps here
	le.PutUint32(b[0x3c:], uint32(d.cfg.Queues.Count))
	le.PutUint32(b[0x40:], status|d.bar0.Value(npureg.BootStatus)&0xff00) // ERROR (§3.5)
	le.PutUint32(b[0x44:], generation)
	copy(p, b[:])
}

// WriteConfig leaves a finding: nothing there can be written (§10.3).
func (v *Paravirt) WriteConfig(off int, p []byte) {
	v.d.findings.add("virtio-config-read-only", "the configuration space is read-only (§10.3)", fmt.Sprintf("%d bytes at %d", len(p), off))
}

// MapDMA lets the device reach a range of guest memory.
func (v *Paravirt) MapDMA(addr iova.Addr, size uint64, prot iova.Prot, mem iova.Memory) error {
	return v.d.MapDMA(addr, size, prot, mem)
}

// UnmapDMA takes a range away.
func (v *Paravirt) UnmapDMA(addr iova.Addr, size uint64) error { return v.d.UnmapDMA(addr, size) }

// Attach takes note of the front end.
func (v *Paravirt) Attach(f *vhostuser.FrontEnd) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.front = f
}

// Detach is told that the front end is gone, which is a conventional reset unless it may come back
// (§10.4).
func (v *Paravirt) Detach(keep bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.front = nil
	if !keep {
		v.resetLocked()
		v.d.Detach()
	}
}

// Start is told that a driver is there, and boots the firmware (§10.4).
func (v *Paravirt) Start(lost bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.d.mu.Lock()
	v.d.fn.Write(4, []byte{0x6, 0}) // memory space and bus master
	v.d.mu.Unlock()
	v.state = stateReset
	if lost {
		v.d.findings.add("virtio-lost", "contexts and queues do not outlive the device's process (§10.4)", "virtqueues go on where they were")
		v.statusLocked(virtioNeedsReset)
	}
	v.signal()
}

// Reset is a reset of the virtio device: contexts, queues and firmware are gone,
// device memory is kept (§10.4).
func (v *Paravirt) Reset() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.resetLocked()
}

func (v *Paravirt) resetLocked() {
	v.d.conventionalReset("virtio reset")
	v.state, v.status, v.admin, v.events, v.lost = stateIdle, 0, nil, nil, 0
	v.generation++
	clear(v.users)
}

// Kick takes note that a virtqueue has something.
func (v *Paravirt) Kick(virtq int) {
	v.kicked[virtq].Store(true)
	v.signal()
}

// step does what there is to do. It reports whether it has to be called again
// although nobody will call signal.
func (v *Paravirt) step() (again bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.front == nil || v.state == stateIdle {
		return false
	}
	if v.state == stateReset {
		return !v.bootLocked()
	}
	v.causesLocked()
	if v.state == stateBoot {
		return false
	}
	if v.admin != nil {
		v.completeLocked(v.admin)
	}
	v.takeLocked(virtqAdmin, v.admin)
	for q, ch := range v.users {
		if q == 0 {
			continue
		}
		if ch != nil && ch.inFlight > 0 {
			v.completeLocked(ch)
		}
		v.takeLocked(q+virtqUser, ch)
	}
	if v.kicked[virtqEvent].Swap(false) || len(v.events) > 0 {
		v.deliverLocked()
	}
	return false
}

// bootLocked starts the firmware if the device is ready for it.
func (v *Paravirt) bootLocked() bool {
	if v.readLocked(npureg.DeviceStatus)&npureg.DeviceStatusResetting != 0 || v.readLocked(npureg.BootStatus)&0xff != npureg.BootWaiting {
		return false
	}
	v.state = stateBoot
	v.write64Locked(npureg.ImageAddrLo, uint64(privateBase))
	v.writeLocked(npureg.ImageSize, uint32(v.image))
	v.writeLocked(npureg.IRQEnable, npureg.IRQAll)
	v.writeLocked(npureg.BootControl, npureg.BootControlStart)
	return true
}

// causesLocked handles what vector 0 may stand for (§8.2).
func (v *Paravirt) causesLocked() {
	s := v.readLocked(npureg.IRQStatus)
	v.writeLocked(npureg.IRQStatus, s)
	if s&npureg.IRQFault != 0 {
		if st := v.readLocked(npureg.FaultStatus); st&npureg.FaultValid != 0 {
			var e [eventSize]byte
			le.PutUint16(e[0x00:], eventFault)
			le.PutUint16(e[0x04:], uint16(st>>16))
			le.PutUint32(e[0x08:], v.readLocked(npureg.FaultInfo))
			if v.d.claimed[npureg.FaultContext] {
				le.PutUint32(e[0x0c:], v.readLocked(npureg.FaultContext))
				le.PutUint32(e[0x18:], v.readLocked(npureg.FaultVALo))
				le.PutUint32(e[0x1c:], v.readLocked(npureg.FaultVAHi))
			}
			le.PutUint32(e[0x10:], v.readLocked(npureg.FaultAddrLo))
			le.PutUint32(e[0x14:], v.readLocked(npureg.FaultAddrHi))
			v.writeLocked(npureg.FaultStatus, npureg.FaultValid|npureg.FaultOverflow)
			v.eventLocked(e)
		}
	}
	if s&npureg.IRQFirmware != 0 {
		var e [eventSize]byte
		le.PutUint16(e[:], eventFirmware)
		v.eventLocked(e)
	}
	if s&npureg.IRQBoot == 0 {
		return
	}
	switch v.readLocked(npureg.BootStatus) & 0xff {
	case npureg.BootReady:
		v.state = stateReady
		v.admin = v.newChannel(0, virtqAdmin)
		v.clearRings(v.admin)
		v.write64Locked(npureg.ASQBaseLo, uint64(privateBase)+v.admin.sq)
		v.write64Locked(npureg.ACQBaseLo, uint64(privateBase)+v.admin.cq)
		v.writeLocked(npureg.AQSize, ringEntries|ringEntries<<16)
		v.writeLocked(npureg.AQControl, npureg.AQControlEnable)
		v.statusLocked(v.status&virtioNeedsReset | virtioReady)
	case npureg.BootFailed:
		v.state = stateFailed
		v.statusLocked(v.status&^virtioReady | virtioFailed)
		if v.admin != nil {
			v.abortLocked(v.admin, npureg.StatusFirmwareTrap)
			v.admin = nil
		}
	}
	for i := range v.kicked {
		v.kicked[i].Store(true) // they waited
	}
}

// statusLocked changes the configuration space's status, and says so.
func (v *Paravirt) statusLocked(s uint32) {
	v.status = s
	v.generation++
	v.front.ConfigChanged()
}

func (v *Paravirt) newChannel(queue, virtq int) *channel {
	sq := uint64((v.image+63)&^63 + queue*ringsSize)
	return &channel{queue: queue, virtq: virtq, sq: sq, cq: sq + ringEntries*npureg.SQEntrySize, phase: 1}
}

// clearRings zeroes the rings of a queue of the device that has not been used yet.
func (v *Paravirt) clearRings(ch *channel) { v.storePrivate(ch.sq, make([]byte, ringsSize)) }

// storePrivate and loadPrivate access private memory, which cannot fail.
func (v *Paravirt) storePrivate(off uint64, p []byte) {
	if err := v.mem.WriteAt(p, off); err != nil {
		panic("vdev: BUG: private memory: " + err.Error())
	}
}

func (v *Paravirt) loadPrivate(off uint64, p []byte) {
	if err := v.mem.ReadAt(p, off); err != nil {
		panic("vdev: BUG: private memory: " + err.Error())
	}
}

// takeLocked passes requests of a virtqueue on to the device. ch is nil if there is no
// queue for them.
func (v *Paravirt) takeLocked(virtq int, ch *channel) {
	full := func() bool { return ch != nil && ch.inFlight == ringEntries-1 }
	if full() || !v.kicked[virtq].Swap(false) {
		return
	}
	rung := false
	for n := 0; ; n++ {
		if full() {
			v.kicked[virtq].Store(true) // goes on when something has completed
			break
		}
		if n == ringEntries { // a guest can add them as fast as they are answered
			v.Kick(virtq)
			break
		}
		req, err := v.front.Take(virtq, npureg.SQEntrySize)
		if err != nil {
			v.brokenLocked(err)
			break
		}
		if req == nil {
			break
		}
		rung = v.requestLocked(virtq, ch, req) || rung
	}
	if rung {
		v.writeLocked(npureg.DoorbellBase+uint32(ch.queue)*npureg.DoorbellStride+npureg.DoorbellSQTail, uint32(ch.tail))
	}
}

// requestLocked checks a request (§10.5) and puts it into the device's queue, or
// answers it at once.
func (v *Paravirt) requestLocked(virtq int, ch *channel, req *vhostuser.Request) (queued bool) {
	var s slot
	s.req = req
	copy(s.entry[:], req.In)
	number := 0
	if virtq != virtqAdmin {
		number = virtq - virtqUser
	}
	refuse := func(status npureg.Status, info uint64) bool {
		v.d.findings.add("command-"+status.String(), "§9.1 "+status.String(), fmt.Sprintf("virtqueue %d, info %#x", virtq, info))
		v.answerLocked(&s, number, status, info)
		return false
	}
	switch {
	case req.Room < npureg.CQEntrySize:
		v.d.findings.add("virtio-no-room", "a request has at least 32 writable bytes (§10.5)", fmt.Sprintf("virtqueue %d, %d bytes", virtq, req.Room))
		if err := req.Complete(nil); err != nil {
			v.brokenLocked(err)
		}
		return false
	case req.Size != npureg.SQEntrySize:
		return refuse(npureg.StatusInvalidField, min(req.Size, npureg.SQEntrySize))
	case ch == nil && virtq == virtqAdmin:
		return refuse(npureg.StatusFirmwareTrap, 0)
	case ch == nil:
		return refuse(npureg.StatusQueueDisabled, 0)
	}
	e := s.entry
	if virtq == virtqAdmin {
		if status, info := v.adminEntry(&e); status != npureg.StatusSuccess {
			return refuse(status, info)
		}
	}
	if virtq == virtqAdmin {
		if ending := v.destroyedBy(e[:]); ending != nil {
			ending.ending = true
		}
	}
	id := 0
	for ch.slots[id].req != nil {
		id++
	}
	ch.slots[id] = s
	ch.inFlight++
	le.PutUint16(e[2:], uint16(id))
	v.storePrivate(ch.sq+uint64(ch.tail)*npureg.SQEntrySize, e[:])
	ch.tail = (ch.tail + 1) % ringEntries
	return true
}

// adminEntry makes the device's entry of an admin request (§10.5): rings are ours, and
// buffers are the guest's.
func (v *Paravirt) adminEntry(e *[npureg.SQEntrySize]byte) (npureg.Status, uint64) {
	switch e[0] {
	case npureg.AdminIdentify, npureg.AdminGetLogPage:
		addr, size := le.Uint64(e[0x08:]), uint64(le.Uint32(e[0x10:]))
		if addr >= uint64(privateBase) || size > uint64(privateBase)-addr {
			return npureg.StatusBusFault, addr
		}
	case npureg.AdminCreateQueue:
		reserved := [][2]int{{0x08, 0x18}, {0x1a, 0x20}, {0x26, 0x30}, {0x34, npureg.SQEntrySize}}
		if v.d.cfg.features()&npureg.FeatureQueueControl == 0 {
			reserved = [][2]int{{0x08, 0x18}, {0x1a, 0x20}, {0x24, npureg.SQEntrySize}}
		}
		if off, ok := firstSet(e, reserved...); ok {
			return npureg.StatusInvalidField, off
		}
		// The ring of a queue that does not exist is not used: firmware refuses it.
		ch := v.newChannel(min(int(le.Uint16(e[0x18:])), len(v.users)-1), 0)
		le.PutUint64(e[0x08:], uint64(privateBase)+ch.sq)
		le.PutUint64(e[0x10:], uint64(privateBase)+ch.cq)
		le.PutUint16(e[0x1c:], ringEntries)
		le.PutUint16(e[0x1e:], ringEntries)
	case npureg.AdminModifyQueue:
		if off, ok := firstSet(e, [2]int{0x34, 0x38}); ok && v.d.cfg.features()&npureg.FeatureQueueControl != 0 {
			return npureg.StatusInvalidField, off
		}
	}
	return npureg.StatusSuccess, 0
}

// firstSet returns where the first of the half-open ranges of e begins that is not all 0.
func firstSet(e *[npureg.SQEntrySize]byte, ranges ...[2]int) (off uint64, ok bool) {
	for _, r := range ranges {
		for _, b := range e[r[0]:r[1]] {
			if b != 0 {
				return uint64(r[0]), true
			}
		}
	}
	return 0, false
}

// completeLocked passes the device's completions of a queue on, and tells the device so
// unless the queue may be disabled by now: its doorbell would be a fault (§4.6).
func (v *Paravirt) completeLocked(ch *channel) {
	head := ch.head
	v.consumeLocked(ch)
	if ch.head != head && !ch.ending {
		v.writeLocked(npureg.DoorbellBase+uint32(ch.queue)*npureg.DoorbellStride+npureg.DoorbellCQHead, uint32(ch.head))
	}
}

func (v *Paravirt) consumeLocked(ch *channel) {
	for {
		var c [npureg.CQEntrySize]byte
		at := ch.cq + uint64(ch.head)*npureg.CQEntrySize
		v.loadPrivate(at+0x1e, c[0x1e:])
		if le.Uint16(c[0x1e:])&1 != ch.phase {
			break
		}
		v.loadPrivate(at, c[:])
		if ch.head++; ch.head == ringEntries {
			ch.head = 0
			ch.phase ^= 1
		}
		id := int(le.Uint16(c[0x1c:]))
		if id >= ringEntries || ch.slots[id].req == nil {
			v.d.log.Error("completion of no command; the firmware is wrong", "queue", ch.queue, "id", id)
			continue
		}
		s := ch.slots[id]
		ch.slots[id] = slot{}
		ch.inFlight--
		status := npureg.Status(le.Uint16(c[0x1e:]) >> 1)
		if ch.queue == 0 {
			v.adminDoneLocked(&s, status)
		}
		le.PutUint16(c[0x18:], 0)
		copy(c[0x1c:0x1e], s.entry[2:4])
		le.PutUint16(c[0x1e:], uint16(status)<<1)
		if err := s.req.Complete(c[:]); err != nil {
			v.brokenLocked(err)
		}
	}
}

// adminDoneLocked follows what an admin command changed, before the guest hears of it.
func (v *Paravirt) adminDoneLocked(s *slot, status npureg.Status) {
	switch {
	case status != npureg.StatusSuccess:
		if ch := v.destroyedBy(s.entry[:]); ch != nil {
			ch.ending = false // its doorbell is rung with the next completion
		}
	case s.entry[0] == npureg.AdminCreateQueue:
		q := int(le.Uint16(s.entry[0x18:]))
		v.users[q] = v.newChannel(q, q+virtqUser)
		v.clearRings(v.users[q]) // the device uses them from the first doorbell on
		v.kicked[q+virtqUser].Store(true)
	case s.entry[0] == npureg.AdminDestroyQueue:
		if ch := v.destroyedBy(s.entry[:]); ch != nil {
			v.users[ch.queue] = nil
			v.completeLocked(ch) // the device posted them before this one
			v.abortLocked(ch, npureg.StatusAborted)
		}
	}
}

// destroyedBy returns the queue that an entry of DESTROY_QUEUE names, or nil.
func (v *Paravirt) destroyedBy(e []byte) *channel {
	if e[0] != npureg.AdminDestroyQueue {
		return nil
	}
	if q := le.Uint32(e[0x08:]); uint64(q) < uint64(len(v.users)) {
		return v.users[q]
	}
	return nil
}

// abortLocked answers every request that the device will not answer any more.
func (v *Paravirt) abortLocked(ch *channel, status npureg.Status) {
	for i := range ch.slots {
		if s := &ch.slots[i]; s.req != nil {
			v.answerLocked(s, ch.queue, status, 0)
			*s = slot{}
		}
	}
	ch.inFlight = 0
}

// answerLocked completes a request without the device.
func (v *Paravirt) answerLocked(s *slot, queue int, status npureg.Status, info uint64) {
	var c [npureg.CQEntrySize]byte
	le.PutUint64(c[0x08:], info)
	le.PutUint16(c[0x1a:], uint16(queue))
	copy(c[0x1c:0x1e], s.entry[2:4])
	le.PutUint16(c[0x1e:], uint16(status)<<1)
	if err := s.req.Complete(c[:]); err != nil {
		v.brokenLocked(err)
	}
}

// eventLocked keeps an event for the driver.
func (v *Paravirt) eventLocked(e [eventSize]byte) {
	if len(v.events) == maxEvents {
		v.lost = max(v.lost, v.lost+1) // stays at the largest number
		return
	}
	le.PutUint16(e[2:], v.lost)
	v.lost = 0
	v.events = append(v.events, e)
}

// deliverLocked puts events into the driver's buffers.
func (v *Paravirt) deliverLocked() {
	for n := 0; len(v.events) > 0; n++ {
		if n == maxEvents { // a guest can add buffers that are too small without end
			v.Kick(virtqEvent)
			return
		}
		req, err := v.front.Take(virtqEvent, 0)
		if err != nil {
			v.brokenLocked(err)
		}
		if req == nil {
			return
		}
		e := v.events[0][:]
		if req.Room < eventSize {
			v.d.findings.add("virtio-no-room", "an event buffer has at least 32 writable bytes (§10.6)", fmt.Sprintf("%d bytes", req.Room))
			e = nil
		} else {
			v.events = v.events[1:]
		}
		if err := req.Complete(e); err != nil {
			v.brokenLocked(err)
		}
	}
}

// brokenLocked tells of a virtqueue that stopped (§10.8).
func (v *Paravirt) brokenLocked(err error) {
	var r *vhostuser.RingError
	if !errors.As(err, &r) {
		panic("vdev: BUG: a virtqueue failed with " + err.Error())
	}
	v.d.findings.add("virtqueue", "a driver keeps to the rules of virtqueues (§10.8)", r.Error())
	v.statusLocked(v.status | virtioNeedsReset)
}

func (v *Paravirt) readLocked(off uint32) uint32 {
	var p [4]byte
	v.d.readBAR0(uint64(off), p[:])
	return le.Uint32(p[:])
}

func (v *Paravirt) writeLocked(off, value uint32) {
	v.d.writeBAR0(uint64(off), le.AppendUint32(nil, value))
}

func (v *Paravirt) write64Locked(off uint32, value uint64) {
	v.d.writeBAR0(uint64(off), le.AppendUint64(nil, value))
}
