// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"npuemu/dma/iova"
	"npuemu/firmware/image"
	"npuemu/mmio"
	"npuemu/mmio/npureg"
)

// Geometry of the test board, and where things are on its bus.
const (
	testContexts = 3
	testQueues   = 5
	testEntries  = 1024
	testVectors  = 4

	busBase   = 0x1_0000_0000
	busSize   = 0x200000
	imageAddr = iova.Addr(busBase)
	asqAddr   = iova.Addr(busBase + 0x100000)
	acqAddr   = iova.Addr(busBase + 0x110000)
	bufAddr   = iova.Addr(busBase + 0x120000)
)

// board is everything around a Processor: the host's registers, the bus, the
// queues and a clock that stands still. Its fields belong to mu, the processor's
// lock.
type board struct {
	mu     sync.Mutex
	p      *Processor
	host   *mmio.Bank
	irqs   []uint32 // what Raise got
	faults []Fault
	idle   int // calls of MoverIdle

	now time.Duration
	log bytes.Buffer

	busMu  sync.Mutex // guards what follows
	mem    []byte     // at busBase
	broken func(addr iova.Addr, size int, write bool) bool
	moved  chan struct{} // closed by the first copy, when not nil, which then waits for release
	hold   chan struct{}

	mmu      fakeMMU
	queues   map[int]QueueConfig
	sched    map[int]QueueSchedule
	status   map[int]QueueStatus // of the enabled queues; State does not count
	overview QueueOverview
	aborts   [][3]uint32 // queue, sequence, result
	state    map[int]uint32
	busy     map[int]bool // a command is in flight
	counter  [npureg.CounterCount]uint64
}

func newBoard(t testing.TB, now func() time.Duration) *board { return newBoardWith(t, now, nil) }

// newBoardWith is newBoard with RAS.
func newBoardWith(t testing.TB, now func() time.Duration, ras RAS) *board {
	t.Helper()
	b := &board{
		host: mmio.New(npureg.HostBankSize, npureg.Host()), mem: make([]byte, busSize),
		queues: map[int]QueueConfig{}, sched: map[int]QueueSchedule{}, status: map[int]QueueStatus{}, state: map[int]uint32{}, busy: map[int]bool{},
	}
	b.mmu = fakeMMU{b: b, contexts: map[uint16]translation{}, faulted: map[uint16]bool{}}
	b.host.Set(npureg.QueueParam, testEntries<<16|testQueues)
	b.host.Set(npureg.ContextParam, testContexts)
	b.host.Set(npureg.VectorCount, testVectors)
	if ras != nil {
		b.host.Set(npureg.FeaturesLo, npureg.FeatureRAS)
	}
	if now == nil {
		now = func() time.Duration { return b.now }
	}
	b.p = New(Config{
		Lock: &b.mu, Mover: b, Host: b, Queues: b, MMU: &b.mmu, RAS: ras, Now: now,
		Counter: func(i int) uint64 { return b.counter[i] },
		Log:     slog.New(slog.NewTextHandler(&b.log, nil)),
	})
	b.mu.Lock()
	b.p.Reset()
	b.mu.Unlock()
	return b
}

func (b *board) Register(off uint32) uint32 { return b.host.Value(off) }

func (b *board) SetRegister(off, v uint32) { b.host.Set(off, v) }

func (b *board) Raise(causes uint32) { b.irqs = append(b.irqs, causes) }

func (b *board) Fault(f Fault) {
	b.faults = append(b.faults, f)
	b.irqs = append(b.irqs, npureg.IRQFault)
}

func (b *board) MoverIdle() { b.idle++ }

func (b *board) Configure(q int, c QueueConfig, s QueueSchedule) {
	b.queues[q], b.sched[q], b.state[q] = c, s, npureg.QueueEnabled
}

func (b *board) Control(q int, op uint32) {
	idle, busy := uint32(npureg.QueueDisabled), uint32(npureg.QueueDraining)
	switch op {
	case npureg.QueueControlSuspend:
		idle, busy = npureg.QueueSuspended, npureg.QueueSuspending
	case npureg.QueueControlResume:
		idle, busy = npureg.QueueEnabled, npureg.QueueEnabled
	}
	b.state[q] = idle
	if b.busy[q] {
		b.state[q] = busy
	}
}

func (b *board) Modify(q int, s QueueSchedule) { b.sched[q] = s }

func (b *board) Abort(q int, sequence, result uint32) {
	b.aborts = append(b.aborts, [3]uint32{uint32(q), sequence, result})
	if b.overview.Overdue == q {
		b.overview.Overdue = 0
	}
}

func (b *board) Status(q int) QueueStatus {
	s := b.status[q]
	s.State = uint8(b.state[q])
	return s
}

func (b *board) Overview() QueueOverview { return b.overview }

// finish ends the command in flight of a queue.
func (b *board) finish(q int) {
	b.busy[q] = false
	if b.state[q] == npureg.QueueSuspending {
		b.state[q] = npureg.QueueSuspended
	} else {
		b.state[q] = npureg.QueueDisabled
	}
	b.p.QueueEvent()
}

func (b *board) Read(addr iova.Addr, p []byte) error {
	return b.access(addr, len(p), false, func(m []byte) { copy(p, m) })
}

func (b *board) Write(addr iova.Addr, p []byte) error {
	return b.access(addr, len(p), true, func(m []byte) { copy(m, p) })
}

func (b *board) access(addr iova.Addr, size int, write bool, do func([]byte)) error {
	b.mu.Lock()   // hangs if the processor holds it
	b.mu.Unlock() //nolint:staticcheck // empty on purpose
	b.busMu.Lock()
	moved, hold := b.moved, b.hold
	b.moved = nil
	b.busMu.Unlock()
	if moved != nil {
		close(moved)
		<-hold
	}
	b.busMu.Lock()
	defer b.busMu.Unlock()
	off := addr - busBase
	if b.broken != nil && b.broken(addr, size, write) || off > busSize || iova.Addr(size) > busSize-off {
		return errors.New("bus fault")
	}
	do(b.mem[off : off+iova.Addr(size)])
	return nil
}

// bus returns size bytes of bus memory.
func (b *board) bus(addr iova.Addr, size int) []byte {
	return b.mem[addr-busBase:][:size]
}

// settle runs the processor, with mu held, until it waits or halts.
func (b *board) settle(t testing.TB) {
	t.Helper()
	for range 100_000 {
		if b.p.step() {
			return
		}
	}
	t.Fatalf("the processor does not come to rest; pc %#x", b.p.core.PC())
}

// load puts an image on the bus and tells the registers.
func (b *board) load(img []byte) {
	copy(b.mem[imageAddr-busBase:], img)
	b.host.Set(npureg.ImageAddrLo, uint32(imageAddr&0xffff_ffff))
	b.host.Set(npureg.ImageAddrHi, uint32(imageAddr>>32))
	b.host.Set(npureg.ImageSize, uint32(len(img)))
}

// start boots img and returns BOOT_STATUS, with mu held.
func (b *board) start(t testing.TB, img []byte) uint32 {
	t.Helper()
	b.load(img)
	b.p.Start()
	b.settle(t)
	return b.host.Value(npureg.BootStatus)
}

func failed(code uint32) uint32 { return npureg.BootFailed | code<<8 }

// program makes an image of RV32 instructions.
func program(t testing.TB, insns ...uint32) []byte {
	t.Helper()
	var payload []byte
	for _, i := range insns {
		payload = binary.LittleEndian.AppendUint32(payload, i)
	}
	img, err := image.New(image.Header{
		LoadAddress: npureg.CPSRAMBase, Entry: npureg.CPSRAMBase, InterfaceMajor: npureg.FirmwareMajor, ArchMajor: npureg.ArchMajor,
	}, payload)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// Instructions for program. t0 is the base of the registers.
const (
	insnRegs    = 0x400002b7 // lui t0, 0x40000
	insnHang    = 0x0000006f // j .
	insnIllegal = 0x00000000
	insnWFI     = 0x10500073
)

// insnLI is addi t1, zero, v.
func insnLI(v uint32) uint32 { return v<<20 | 0x00000313 }

// insnSW is sw t1, off(t0).
func insnSW(off uint32) uint32 { return off>>5<<25 | 0x0062a023 | off&31<<7 }

func (b *board) logged(t *testing.T, want string) {
	t.Helper()
	if !strings.Contains(b.log.String(), want) {
		t.Errorf("log has no %q:\n%s", want, b.log.String())
	}
}
