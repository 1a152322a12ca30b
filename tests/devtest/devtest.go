// SPDX-License-Identifier: Apache-2.0

// Package devtest is a scripted host for tests: it starts a device, attaches a
// client with guest memory over a real socket, vfio-user or vhost-user, in this process, or
// by the processor of a guest in the embedded VMM (the test flag -transport says which),
// and takes the first steps of a driver as docs/spec describes them. It uses the register
// table but nothing else of the device.
package devtest

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
	"npuemu/internal/uds"
	"npuemu/mmio/npureg"
	"npuemu/vdev"
	"npuemu/vdev/local"
	"npuemu/vdev/vfiouser"
)

// The transports of New.
const (
	VFIOUser  = "vfio-user"
	InProcess = "in-process"
	VHostUser = "vhost-user" // the same card as a virtio device
	GoKVM     = "gokvm"
)

// Transports are all of them.
func Transports() []string { return []string{VFIOUser, InProcess, VHostUser, GoKVM} }

var transport = flag.String("transport", VFIOUser, "how hosts reach their device: "+strings.Join(Transports(), ", "))

// InUse returns the transport that New uses.
func InUse() string { return *transport }

// NeedsFunction skips a test that drives the PCI function itself: a virtio device has no registers, doorbells, rings in
// guest memory, vectors that clients mask, or memory that is reached by messages (§10).
func NeedsFunction(t testing.TB, what string) {
	t.Helper()
	if InUse() == VHostUser {
		t.Skipf("%s: a virtio device has none (§10)", what)
	}
}

// NeedsBus skips a test that does what the machine around the processor does, such as
// unmapping memory, resetting the bus or answering DMA by messages, or that needs
// extended configuration space, which the embedded VMM has not. A guest cannot.
func NeedsBus(t testing.TB) {
	t.Helper()
	if *transport == GoKVM {
		t.Skip("not run: a guest's processor cannot do this")
	}
}

// Transport is what a Host needs of its client; vfiouser.Client and local.Client
// have it, and hands.Client as far as a guest can.
type Transport interface {
	ReadRegion(index int, off uint64, p []byte) error
	WriteRegion(index int, off uint64, p []byte) error
	MapDMA(addr iova.Addr, size uint64, prot iova.Prot, f *os.File, off uint64) error
	MapMemory(addr iova.Addr, size uint64, prot iova.Prot, mem iova.Memory) error
	UnmapDMA(addr iova.Addr, size uint64) error
	IRQInfo(index int) (vfiouser.IRQ, error)
	SetVectors(index, start int, fds ...*eventfd.FD) error
	MaskVector(index, vector int, masked bool) error
	Reset() error
	Close()
}

// Guest memory: MemSize bytes at MemBase, reached through a descriptor, and
// MsgSize bytes at MsgBase, reached by messages (NeedsBus).
const (
	MemBase = 0x1000_0000
	MemSize = 8 << 20
	MsgBase = 0x8000_0000
	MsgSize = 1 << 20
)

// Timeout bounds every wait.
const Timeout = 20 * time.Second

// Host is a machine with one NPU. Methods fail the test when the transport
// fails; what the device answers is for the caller to judge.
type Host struct {
	T      testing.TB
	Dev    *vdev.Device // nil if it is not in this process
	Socket string       // "" in-process
	Client Transport    // nil over vhost-user
	Msg    *iova.Bytes  // memory behind MsgBase
	MsgMem []byte       // its bytes; read them only when no DMA runs

	mem     []byte // guest memory
	next    uint64 // first byte of guest memory that Alloc has not handed out
	vectors []*eventfd.FD
	gone    []func() // what Attach took
	live    []func() // what the last Attach took

	virtio    *virtio // the driver over vhost-user, else nil
	cfg       vdev.Config
	transport string
	admin     ring
	queues    map[int]*ring
	nextID    uint16
}

// ring is a queue as the driver sees it.
type ring struct {
	index        int
	sq, cq       uint64
	nsq, ncq     int
	tail, head   int
	phase        uint16
	cqMem, sqMem []byte
	line         *Line      // nil without one
	virt         *virtqueue // over vhost-user, instead of all that
}

// Entry is a submission entry.
type Entry [npureg.SQEntrySize]byte

// CQE is a completion entry (§4.2).
type CQE struct {
	Result   uint32
	Info     uint64
	SQHead   uint16
	Queue    uint16
	ID       uint16
	Status   npureg.Status
	Reserved [2]uint64
}

// Start serves a device made from cfg on a socket; it ends with the test.
func Start(t testing.TB, cfg vdev.Config) (d *vdev.Device, socket string) {
	t.Helper()
	return StartServer(t, cfg, vfiouser.Config{Log: cfg.Log})
}

// StartServer is Start with a configuration of the server.
func StartServer(t testing.TB, cfg vdev.Config, scfg vfiouser.Config) (d *vdev.Device, socket string) {
	t.Helper()
	d = Run(t, cfg)
	return d, Serve(t, d, scfg)
}

// Serve serves a device that runs, such as a virtual function of one, on a socket; it ends with the test.
func Serve(t testing.TB, d *vdev.Device, scfg vfiouser.Config) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "npu") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "npu.sock")
	ln, err := uds.Listen(socket, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		_ = vfiouser.NewServer(scfg, d).Serve(ctx, ln) // ctx's error
		close(done)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		os.RemoveAll(dir)
	})
	return socket
}

// Run makes a device that runs until the test ends.
func Run(t testing.TB, cfg vdev.Config) *vdev.Device {
	t.Helper()
	d, err := vdev.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { d.Run(ctx); close(done) }()
	t.Cleanup(func() {
		cancel()
		<-done
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// On returns a host for the device that somebody serves on socket, not attached yet.
func On(t testing.TB, socket string) *Host {
	h := &Host{T: t, Socket: socket, queues: map[int]*ring{}}
	t.Cleanup(h.Detach)
	return h
}

// New starts a device and attaches a host to it.
func New(t testing.TB, cfg vdev.Config) *Host {
	t.Helper()
	return NewOver(t, *transport, cfg)
}

// NewOver is New over a given transport.
func NewOver(t testing.TB, transport string, cfg vdev.Config) *Host {
	t.Helper()
	h := On(t, "")
	h.cfg, h.transport = cfg, transport
	switch transport {
	case VFIOUser:
		h.Dev, h.Socket = Start(t, cfg)
	case InProcess, GoKVM:
		h.Dev = Run(t, cfg)
	case VHostUser:
		h.Dev, h.Socket = startVirtio(t, cfg)
		h.attachVirtio()
		return h
	default:
		t.Fatalf("devtest: -transport %q: use one of %q", transport, Transports())
	}
	h.Attach()
	return h
}

// Dial attaches a host to the device that another process serves on socket. Its Dev is nil.
func Dial(t testing.TB, socket string) *Host {
	t.Helper()
	h := &Host{T: t, Socket: socket, queues: map[int]*ring{}}
	t.Cleanup(func() {
		h.gone = append(h.gone, h.live...)
		h.Release()
	})
	h.Attach()
	return h
}

// Attach connects, maps guest memory, attaches an eventfd to every vector, and
// opens the BARs. It is what a machine does before a driver probes.
func (h *Host) Attach() {
	t := h.T
	t.Helper()
	h.gone = append(h.gone, h.live...)
	h.live = nil
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "guest")
	h.later(func() { f.Close() }) // a guest that boots still maps it
	// A guest's memory begins at 0, and what a test uses is a part of it.
	var at int64
	if h.transport == GoKVM {
		at = MemBase
	}
	if err := f.Truncate(at + MemSize); err != nil {
		t.Fatal(err)
	}
	if h.mem, err = unix.Mmap(fd, at, MemSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		t.Fatal(err)
	}
	mem := h.mem
	h.later(func() { _ = unix.Munmap(mem) })
	h.next = MemBase
	h.MsgMem = make([]byte, MsgSize)
	h.Msg = iova.NewBytes(h.MsgMem)

	switch h.transport {
	case InProcess:
		h.Client = local.Attach(h.Dev)
	case GoKVM:
		h.Client = bootGuest(t, h.Dev, f)
	default:
		c, err := vfiouser.Dial(h.Socket)
		h.must(err)
		h.Client = c
	}
	c := h.Client
	h.later(c.Close)
	if h.transport != GoKVM {
		h.must(c.MapDMA(MemBase, MemSize, iova.Read|iova.Write, f, 0))
		h.must(c.MapMemory(MsgBase, MsgSize, iova.Read|iova.Write, h.Msg))
	}
	h.SetCommand(0x6) // memory space, bus master
	irq, err := c.IRQInfo(vfiouser.IRQMSIX)
	h.must(err)
	h.vectors = nil
	for i := range irq.Count {
		v, err := eventfd.New()
		h.must(err)
		h.must(c.SetVectors(vfiouser.IRQMSIX, i, v))
		h.vectors = append(h.vectors, v)
		h.later(v.Close)
	}
}

func (h *Host) later(f func()) { h.live = append(h.live, f) }

func (h *Host) must(err error) {
	h.T.Helper()
	if err != nil {
		h.T.Fatal(err)
	}
}

// SetCommand writes the PCI command register.
func (h *Host) SetCommand(v uint16) {
	h.T.Helper()
	h.must(h.Client.WriteRegion(vfiouser.RegionConfig, 4, binary.LittleEndian.AppendUint16(nil, v)))
}

// Read32 and Write32 access BAR0.
func (h *Host) Read32(off uint32) uint32 {
	h.T.Helper()
	var p [4]byte
	h.must(h.Client.ReadRegion(vfiouser.RegionBAR0, uint64(off), p[:]))
	return binary.LittleEndian.Uint32(p[:])
}

// Write32 writes a register.
func (h *Host) Write32(off, v uint32) {
	h.T.Helper()
	h.must(h.Client.WriteRegion(vfiouser.RegionBAR0, uint64(off), binary.LittleEndian.AppendUint32(nil, v)))
}

// Write64 writes a pair of registers.
func (h *Host) Write64(off uint32, v uint64) {
	h.T.Helper()
	h.must(h.Client.WriteRegion(vfiouser.RegionBAR0, uint64(off), binary.LittleEndian.AppendUint64(nil, v)))
}

// WriteDRAM stores p in device memory through BAR2.
func (h *Host) WriteDRAM(off uint64, p []byte) {
	h.T.Helper()
	if h.virtio != nil {
		copy(h.virtio.window[off:], p)
		return
	}
	h.must(h.Client.WriteRegion(vfiouser.RegionBAR0+2, off, p))
}

// Alloc returns the bus address of size fresh zeroed bytes of guest memory,
// aligned to a page, and the bytes.
func (h *Host) Alloc(size int) (uint64, []byte) {
	h.T.Helper()
	if h.virtio != nil {
		return h.virtio.front.Alloc(size)
	}
	n := (uint64(size) + 0xfff) &^ 0xfff
	at := h.next
	if at+n > MemBase+MemSize {
		h.T.Fatalf("devtest: guest memory is full")
	}
	h.next += n
	p := h.mem[at-MemBase:][:size:size]
	clear(p)
	return at, p
}

// Rewind makes Alloc hand out guest memory from addr on again.
func (h *Host) Rewind(addr uint64) {
	if h.virtio != nil {
		h.virtio.front.Rewind(addr)
	}
	h.next = addr
}

// Release gives back what Attach took for the clients that are gone, so that a
// test can count what the device holds.
func (h *Host) Release() {
	for i := range h.gone {
		h.gone[len(h.gone)-1-i]() // client first, then what it used
	}
	h.gone = nil
}

// Detach ends the client, whatever is under way, and gives back what Attach took.
func (h *Host) Detach() {
	h.gone = append(h.gone, h.live...)
	h.live = nil
	h.Release()
}

// Put returns the bus address of a copy of b in guest memory.
func (h *Host) Put(b []byte) uint64 {
	h.T.Helper()
	at, p := h.Alloc(len(b))
	copy(p, b)
	return at
}

// AwaitReset polls until no reset is in progress.
func (h *Host) AwaitReset() {
	h.T.Helper()
	for end := time.Now().Add(Timeout); h.Read32(npureg.DeviceStatus)&npureg.DeviceStatusResetting != 0; {
		if time.Now().After(end) {
			h.T.Fatal("devtest: the reset does not end (§9.4)")
		}
	}
}

// Boot starts a firmware image and returns BOOT_STATUS once it is READY or FAILED.
func (h *Host) Boot(image []byte) uint32 {
	h.T.Helper()
	return h.BootAt(h.Put(image), len(image))
}

// BootAt is Boot with an image that is already somewhere.
func (h *Host) BootAt(addr uint64, size int) uint32 {
	h.T.Helper()
	h.AwaitReset()
	h.Write64(npureg.ImageAddrLo, addr)
	h.Write32(npureg.ImageSize, uint32(size))
	h.Write32(npureg.IRQEnable, npureg.IRQAll)
	h.Write32(npureg.BootControl, npureg.BootControlStart)
	for end := time.Now().Add(Timeout); ; {
		s := h.Read32(npureg.BootStatus)
		if st := s & 0xff; st == npureg.BootReady || st == npureg.BootFailed {
			return s
		}
		if time.Now().After(end) {
			h.T.Fatalf("devtest: boot does not end: BOOT_STATUS %#x", s)
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// StartAdmin sets up the admin queue with n entries a ring.
func (h *Host) StartAdmin(n int) {
	h.T.Helper()
	h.admin = h.newRing(0, n, n)
	h.Write32(npureg.AQControl, 0)
	h.Write64(npureg.ASQBaseLo, h.admin.sq)
	h.Write64(npureg.ACQBaseLo, h.admin.cq)
	h.Write32(npureg.AQSize, uint32(n)|uint32(n)<<16)
	h.Write32(npureg.AQControl, npureg.AQControlEnable)
}

func (h *Host) newRing(index, nsq, ncq int) ring {
	h.T.Helper()
	r := ring{index: index, nsq: nsq, ncq: ncq, phase: 1}
	r.sq, r.sqMem = h.Alloc(nsq * npureg.SQEntrySize)
	r.cq, r.cqMem = h.Alloc(ncq * npureg.CQEntrySize)
	return r
}

// Bring boots firmware and starts the admin queue, or fails the test.
func (h *Host) Bring(image []byte) {
	h.T.Helper()
	if h.virtio != nil {
		h.virtio.bring(h, image)
		return
	}
	if s := h.Boot(image); s != npureg.BootReady {
		h.T.Fatalf("devtest: firmware did not boot: BOOT_STATUS %#x, detail %#x", s, h.Read32(npureg.FWErrorDetail))
	}
	h.StartAdmin(16)
}

// Admin executes one admin command and returns its completion.
func (h *Host) Admin(e Entry) CQE {
	h.T.Helper()
	return h.call(&h.admin, e)
}

// CreateContext creates a context and returns its number.
func (h *Host) CreateContext() uint32 {
	h.T.Helper()
	c := h.Admin(Entry{npureg.AdminCreateContext})
	if c.Status != npureg.StatusSuccess {
		h.T.Fatalf("devtest: CREATE_CONTEXT: %v", c.Status)
	}
	return c.Result
}

// CreateQueueEntry returns CREATE_QUEUE for rings at sq and cq.
func CreateQueueEntry(index int, context uint32, vector int, sq, cq uint64, nsq, ncq int) Entry {
	e := Entry{npureg.AdminCreateQueue}
	le := binary.LittleEndian
	le.PutUint64(e[0x08:], sq)
	le.PutUint64(e[0x10:], cq)
	le.PutUint16(e[0x18:], uint16(index))
	le.PutUint16(e[0x1a:], uint16(vector))
	le.PutUint16(e[0x1c:], uint16(nsq))
	le.PutUint16(e[0x1e:], uint16(ncq))
	le.PutUint32(e[0x20:], context)
	return e
}

// CreateQueue creates user queue index with n entries a ring.
func (h *Host) CreateQueue(index int, context uint32, vector, n int) {
	h.T.Helper()
	if v := h.virtio; v != nil {
		if c := h.Admin(CreateQueueEntry(index, context, 0, 0, 0, 0, 0)); c.Status != npureg.StatusSuccess {
			h.T.Fatalf("devtest: CREATE_QUEUE %d: %v, info %#x", index, c.Status, c.Info)
		}
		h.queues[index] = &ring{index: index, virt: v.queue(h, index+1, vector, n)}
		return
	}
	r := h.newRing(index, n, n)
	if c := h.Admin(CreateQueueEntry(index, context, vector, r.sq, r.cq, n, n)); c.Status != npureg.StatusSuccess {
		h.T.Fatalf("devtest: CREATE_QUEUE %d: %v, info %#x", index, c.Status, c.Info)
	}
	h.queues[index] = &r
}

// DestroyQueue destroys a user queue.
func (h *Host) DestroyQueue(index int) {
	h.T.Helper()
	e := Entry{npureg.AdminDestroyQueue}
	binary.LittleEndian.PutUint32(e[8:], uint32(index))
	if c := h.Admin(e); c.Status != npureg.StatusSuccess {
		h.T.Fatalf("devtest: DESTROY_QUEUE %d: %v", index, c.Status)
	}
	delete(h.queues, index)
}

// Submit puts an entry into a user queue and rings its doorbell. It returns the
// command_id.
func (h *Host) Submit(queue int, e Entry) uint16 {
	h.T.Helper()
	return h.submit(h.queues[queue], e)
}

// Wait returns the next completion of a user queue.
func (h *Host) Wait(queue int) CQE {
	h.T.Helper()
	return h.wait(h.queues[queue])
}

// Do submits an entry and waits for its completion.
func (h *Host) Do(queue int, e Entry) CQE {
	h.T.Helper()
	return h.call(h.queues[queue], e)
}

func (h *Host) call(r *ring, e Entry) CQE {
	h.T.Helper()
	id := h.submit(r, e)
	c := h.wait(r)
	if c.ID != id || int(c.Queue) != r.index {
		h.T.Fatalf("devtest: completion %+v for command %d of queue %d", c, id, r.index)
	}
	return c
}

func (h *Host) submit(r *ring, e Entry) uint16 {
	h.T.Helper()
	h.nextID++
	binary.LittleEndian.PutUint16(e[2:], h.nextID)
	if r.virt != nil {
		r.virt.submit(e)
		return h.nextID
	}
	copy(r.sqMem[r.tail*npureg.SQEntrySize:], e[:])
	r.tail = (r.tail + 1) % r.nsq
	h.doorbell(r, npureg.DoorbellSQTail, uint32(r.tail))
	return h.nextID
}

func (h *Host) wait(r *ring) CQE {
	h.T.Helper()
	if r.virt != nil {
		return parseCQE(r.virt.wait(h))
	}
	b := r.cqMem[r.head*npureg.CQEntrySize:][:npureg.CQEntrySize]
	end := time.Now().Add(Timeout)
	for binary.LittleEndian.Uint16(b[0x1e:])&1 != r.phase {
		if time.Now().After(end) {
			h.T.Fatalf("devtest: no completion in queue %d: BOOT_STATUS %#x, FAULT_STATUS %#x, FAULT_INFO %#x", r.index,
				h.Read32(npureg.BootStatus), h.Read32(npureg.FaultStatus), h.Read32(npureg.FaultInfo))
		}
		time.Sleep(20 * time.Microsecond)
	}
	c := parseCQE(b)
	if r.head++; r.head == r.ncq {
		r.head = 0
		r.phase ^= 1
	}
	h.doorbell(r, npureg.DoorbellCQHead, uint32(r.head))
	return c
}

func parseCQE(b []byte) CQE {
	le := binary.LittleEndian
	return CQE{Result: le.Uint32(b), Info: le.Uint64(b[8:]), SQHead: le.Uint16(b[0x18:]), Queue: le.Uint16(b[0x1a:]), ID: le.Uint16(b[0x1c:]),
		Status: npureg.Status(le.Uint16(b[0x1e:]) >> 1), Reserved: [2]uint64{uint64(le.Uint32(b[4:])), le.Uint64(b[0x10:])}}
}

// Interrupted reports whether a vector is raised within the timeout, and takes it.
func (h *Host) Interrupted(vector int, timeout time.Duration) bool {
	if h.virtio != nil {
		return h.virtio.lines[vector].Call.Wait(timeout) != 0
	}
	return h.vectors[vector].Wait(timeout) != 0
}

// Build returns the firmware's build number.
func (h *Host) Build() uint32 {
	h.T.Helper()
	if h.virtio != nil {
		return binary.LittleEndian.Uint32(h.virtio.front.Config(vdev.VirtioConfigSize)[0x14:])
	}
	return h.Read32(npureg.FWBuild)
}

// Faulted reports whether a command left a fault record.
func (h *Host) Faulted() bool {
	h.T.Helper()
	if h.virtio != nil {
		return h.Dev.Counter(npureg.CounterFaults) != 0
	}
	return h.Read32(npureg.FaultStatus) != 0
}

// Doorbell returns the BAR0 offset of a queue's doorbell page (§4.3).
func Doorbell(queue int) uint32 {
	return npureg.DoorbellBase + uint32(queue)*npureg.DoorbellStride
}

// Log reads a log page into a buffer of size bytes (§4.7).
func (h *Host) Log(page uint32, size int) []byte {
	h.T.Helper()
	at, p := h.Alloc(size)
	e := Entry{npureg.AdminGetLogPage}
	le := binary.LittleEndian
	le.PutUint64(e[8:], at)
	le.PutUint32(e[0x10:], uint32(size))
	le.PutUint32(e[0x14:], page)
	c := h.Admin(e)
	if c.Status != npureg.StatusSuccess {
		h.T.Fatalf("devtest: GET_LOG_PAGE %d: %v", page, c.Status)
	}
	return p[:c.Result]
}

// A Binding is an entry of a binding table (§7.3).
type Binding struct {
	Addr, Size  uint64
	Read, Write bool
	Space       uint8
}

// Launch returns LAUNCH of an image in guest memory with a table of bindings.
func (h *Host) Launch(image []byte, bindings ...Binding) Entry {
	h.T.Helper()
	le := binary.LittleEndian
	var table []byte
	for _, b := range bindings {
		var r [npureg.BindingSize]byte
		le.PutUint64(r[0:], b.Addr)
		le.PutUint64(r[8:], b.Size)
		f := uint32(b.Space) << 4
		if b.Read {
			f |= 1
		}
		if b.Write {
			f |= 2
		}
		le.PutUint32(r[0x10:], f)
		table = append(table, r[:]...)
	}
	e := Entry{npureg.CmdLaunch}
	le.PutUint64(e[0x08:], h.Put(image))
	if len(table) != 0 {
		le.PutUint64(e[0x10:], h.Put(table))
	}
	le.PutUint32(e[0x18:], uint32(len(bindings)))
	le.PutUint32(e[0x20:], uint32(len(image)))
	return e
}

func (c CQE) String() string {
	return fmt.Sprintf("%v result %d info %#x", c.Status, c.Result, c.Info)
}
