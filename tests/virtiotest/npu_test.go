// SPDX-License-Identifier: Apache-2.0

package virtiotest

import (
	"bytes"
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"npuemu/core/isa"
	"npuemu/mmio/npureg"
	"npuemu/vdev"
	"npuemu/vdev/vhostuser"
)

// npu is a guest with the paravirtual NPU (docs/spec/virtio-npu.md).
type npu struct {
	*Front
	dev    *vdev.Device
	socket string
	back   *BackEnd
	window []byte // device memory
	admin  *Queue
	event  *Queue
}

const allFeatures = Version1 | Indirect | EventIndex

func config() vdev.Config {
	c := vdev.DefaultConfig()
	c.Memory.Size = 1 << 20
	c.Queues.Count = 4
	return c
}

// power starts a card. It ends with the test.
func power(t testing.TB) (d *vdev.Device, socket string) {
	t.Helper()
	d, err := vdev.New(config())
	if err != nil {
		t.Fatal(err)
	}
	v := vdev.NewParavirt(d)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Add(2)
	go func() { defer wg.Done(); d.Run(ctx) }()
	go func() { defer wg.Done(); v.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, Serve(t, vhostuser.Config{DrainTimeout: 200 * time.Millisecond}, v)
}

// attach connects a guest and starts the admin and the event queue.
func attach(t testing.TB, d *vdev.Device, socket string, features uint64) *npu {
	t.Helper()
	n := &npu{Front: Dial(t, socket), dev: d, socket: socket}
	n.Negotiate(features)
	n.back = n.BackEnd()
	n.Ask(GetShmemConfig, nil)
	n.admin, n.event = n.Start(0, 16), n.Start(1, 16)
	n.admin.Kick.Signal()
	_, file := n.back.ShmemMap(0)
	n.window = Mmap(t, file, 1<<20)
	return n
}

func newNPU(t testing.TB) *npu {
	t.Helper()
	return newNPUWith(t, allFeatures)
}

func newNPUWith(t testing.TB, features uint64) *npu {
	t.Helper()
	d, socket := power(t)
	return attach(t, d, socket, features)
}

// overRings runs a test with split and with packed virtqueues.
func overRings(t *testing.T, test func(t *testing.T, features uint64)) {
	for name, features := range map[string]uint64{"split": allFeatures, "packed": allFeatures | Packed, "packed, plain": Version1 | Packed} {
		t.Run(name, func(t *testing.T) { test(t, features) })
	}
}

// completion is an answer (§10.5).
type completion struct {
	Status npureg.Status
	Result uint32
	Info   uint64
}

type entry [npureg.SQEntrySize]byte

// do makes a request and checks what is the same in every answer.
func (n *npu) do(q *Queue, e entry) completion {
	n.T.Helper()
	le.PutUint16(e[2:], uint16(0x4000+q.Index))
	b := q.Request(e[:], 40)
	if len(b) != npureg.CQEntrySize {
		n.T.Fatalf("an answer of %d bytes", len(b))
	}
	user := max(0, q.Index-1)
	if id, queue := le.Uint16(b[0x1c:]), le.Uint16(b[0x1a:]); id != uint16(0x4000+q.Index) || int(queue) != user || le.Uint16(b[0x18:]) != 0 || b[0x1e]&1 != 0 {
		n.T.Fatalf("answer %x: command %#x, queue %d", b, id, queue)
	}
	return completion{npureg.Status(le.Uint16(b[0x1e:]) >> 1), le.Uint32(b), le.Uint64(b[8:])}
}

func (n *npu) must(q *Queue, e entry) completion {
	n.T.Helper()
	c := n.do(q, e)
	if c.Status != npureg.StatusSuccess {
		n.T.Fatalf("opcode %d: %+v", e[0], c)
	}
	return c
}

func createQueue(queue uint16, context uint32) entry {
	e := entry{npureg.AdminCreateQueue}
	le.PutUint16(e[0x18:], queue)
	le.PutUint32(e[0x20:], context)
	return e
}

func destroyQueue(queue uint32) entry {
	e := entry{npureg.AdminDestroyQueue}
	le.PutUint32(e[8:], queue)
	return e
}

// user creates a context and user queue 1, and returns its virtqueue.
func (n *npu) user() *Queue {
	n.T.Helper()
	c := n.must(n.admin, entry{npureg.AdminCreateContext})
	n.must(n.admin, createQueue(1, c.Result))
	return n.Start(2, 64)
}

func copyEntry(spaces byte, src, dst uint64, size uint32) entry {
	e := entry{npureg.CmdCopy}
	e[4] = spaces
	le.PutUint64(e[0x08:], src)
	le.PutUint64(e[0x10:], dst)
	le.PutUint32(e[0x18:], size)
	e[0x1c], e[0x1e] = 1, 1
	return e
}

const (
	busToDevice = 1 << 4
	deviceToBus = 1
)

func TestConfigurationSpace(t *testing.T) {
	n := newNPU(t)
	n.must(n.admin, entry{npureg.AdminCreateContext})
	c := n.Config(vdev.VirtioConfigSize)
	for _, tt := range []struct {
		name string
		off  int
		want uint32
	}{
		{"magic", 0x00, 0x4555504e}, {"interface", 0x04, 0x10000}, {"ISA", 0x08, 0x10004}, {"architecture", 0x0c, 0x10006},
		{"firmware", 0x10, 0x10002}, {"features", 0x18, npureg.FeatureMMU | npureg.FeatureQueueControl | npureg.FeatureTimelines | npureg.FeatureRAS | npureg.FeatureGEMM | npureg.FeatureFloat | npureg.FeatureControl | npureg.FeatureVector | npureg.FeatureReduce | npureg.FeaturePool | npureg.FeatureGather | npureg.FeatureQuant | npureg.FeatureSparse | npureg.FeatureMX | npureg.FeatureTiming | npureg.FeatureAddq | npureg.FeatureArguments | npureg.FeatureMismatch}, {"features", 0x1c, 0}, {"memory", 0x20, 1 << 20}, {"memory", 0x24, 0},
		{"array", 0x28, 32<<16 | 32}, {"scratchpad", 0x2c, 1 << 20}, {"accumulators", 0x30, 512 << 10}, {"engines", 0x34, 0x101},
		{"contexts", 0x38, 64}, {"queues", 0x3c, 4}, {"status", 0x40, 1},
	} {
		if got := le.Uint32(c[tt.off:]); got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, got, tt.want)
		}
	}
	if got := n.Config(256); !bytes.Equal(got[:len(c)], c) || !bytes.Equal(got[len(c):], make([]byte, 256-len(c))) {
		t.Errorf("the whole space: %x", got)
	}
	n.back.ConfigChanged() // READY
	if got := le.Uint64(n.Ask(GetQueueNum, nil)); got != 6 {
		t.Errorf("%d virtqueues, want 6", got)
	}
	n.Do(SetConfig, append(append(Pair(0, 4), 0, 0, 0, 0), 1, 2, 3, 4))
	if got := n.Config(4); !bytes.Equal(got, c[:4]) {
		t.Error("the configuration space was written")
	}
	n.finding("virtio-config-read-only")
}

// finding checks that the device has one.
func (n *npu) finding(id string) {
	n.T.Helper()
	for _, f := range n.dev.Findings() {
		if f.ID == id {
			return
		}
	}
	n.T.Errorf("no finding %q in %+v", id, n.dev.Findings())
}

func TestAdmin(t *testing.T) {
	n := newNPU(t)
	at, p := n.Alloc(4096)
	identify := entry{npureg.AdminIdentify}
	le.PutUint64(identify[8:], at)
	le.PutUint32(identify[0x10:], 256)
	n.must(n.admin, identify)
	if le.Uint32(p) != 256 || le.Uint32(p[20:]) != 4 {
		t.Errorf("IDENTIFY: % x", p[:32])
	}
	private := identify
	le.PutUint64(private[8:], 1<<63)
	below := identify
	le.PutUint64(below[8:], 1<<63-255)
	unmapped := identify
	le.PutUint64(unmapped[8:], 0x1000)
	withAddress := createQueue(1, 1)
	withAddress[0x10] = 64
	withLine := createQueue(1, 1)
	withLine[0x29] = 0x10
	withEntries := createQueue(1, 1)
	withEntries[0x1c] = 64
	for _, tt := range []struct {
		name string
		e    entry
		want completion
	}{
		{"context 1", entry{npureg.AdminCreateContext}, completion{Result: 1}},
		{"context 2", entry{npureg.AdminCreateContext}, completion{Result: 2}},
		{"buffer in the device's own memory", private, completion{npureg.StatusBusFault, 0, 1 << 63}},
		{"buffer that reaches into it", below, completion{npureg.StatusBusFault, 0, 1<<63 - 255}},
		{"buffer that is not mapped", unmapped, completion{npureg.StatusBusFault, 0, 0x1000}},
		{"opcode", entry{0x77}, completion{Status: npureg.StatusInvalidOpcode}},
		{"queue with a ring", withAddress, completion{npureg.StatusInvalidField, 0, 0x08}},
		{"queue with entries", withEntries, completion{npureg.StatusInvalidField, 0, 0x1a}},
		{"queue with a shadow line", withLine, completion{npureg.StatusInvalidField, 0, 0x26}},
		{"queue 0", createQueue(0, 1), completion{npureg.StatusInvalidField, 0, 0x18}},
		{"queue 5", createQueue(5, 1), completion{npureg.StatusInvalidField, 0, 0x18}},
		{"queue 65535", createQueue(65535, 1), completion{npureg.StatusInvalidField, 0, 0x18}},
		{"queue of no context", createQueue(1, 9), completion{Status: npureg.StatusInvalidContext}},
		{"queue 1", createQueue(1, 1), completion{}},
		{"queue 1 again", createQueue(1, 1), completion{Status: npureg.StatusQueueExists}},
		{"context in use", func() entry { e := entry{npureg.AdminDestroyContext}; e[8] = 1; return e }(), completion{Status: npureg.StatusBusy}},
		{"destroy queue 2", destroyQueue(2), completion{Status: npureg.StatusInvalidQueue}},
		{"destroy queue 1", destroyQueue(1), completion{}},
		{"queue 1 once more", createQueue(1, 2), completion{}},
	} {
		got := n.do(n.admin, tt.e)
		if tt.want.Info == 0 {
			got.Info = 0 // firmware's detail is §4's business
		}
		if got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func TestCommands(t *testing.T) { overRings(t, overCommands) }

func overCommands(t *testing.T, features uint64) {
	n := newNPUWith(t, features)
	q := n.Start(2, 64)
	if c := n.do(q, entry{npureg.CmdNop}); c.Status != npureg.StatusQueueDisabled {
		t.Errorf("before CREATE_QUEUE: %+v", c)
	}
	c := n.must(n.admin, entry{npureg.AdminCreateContext})
	n.must(n.admin, createQueue(1, c.Result))
	for range 300 { // several times around the private rings
		n.must(q, entry{npureg.CmdNop})
	}
	text := []byte("from the guest to device memory, and back")
	src := n.Put(text)
	n.must(q, copyEntry(busToDevice, src, 4096, uint32(len(text))))
	if got := n.window[4096:][:len(text)]; !bytes.Equal(got, text) {
		t.Errorf("device memory has %q", got)
	}
	copy(n.window[8192:], "written through the window")
	at, p := n.Alloc(26)
	if c := n.must(q, copyEntry(deviceToBus, 8192, at, 26)); c.Info != 26 || string(p) != "written through the window" {
		t.Errorf("%+v, %q", c, p)
	}
	if c := n.do(q, entry{0xee}); c.Status != npureg.StatusInvalidOpcode {
		t.Errorf("opcode 0xee: %+v", c)
	}
	for _, addr := range []uint64{0x1000, 1 << 63, 1<<63 + 4096} { // guests do not reach the device's own memory
		if c := n.do(q, copyEntry(busToDevice, addr, 0, 64)); c.Status != npureg.StatusBusFault || c.Info != addr {
			t.Errorf("copy from %#x: %+v", addr, c)
		}
		if c := n.do(q, copyEntry(deviceToBus, 0, addr, 64)); c.Status != npureg.StatusBusFault || c.Info != addr {
			t.Errorf("copy to %#x: %+v", addr, c)
		}
	}
	n.must(n.admin, destroyQueue(1))
	if c := n.do(q, entry{npureg.CmdNop}); c.Status != npureg.StatusQueueDisabled {
		t.Errorf("after DESTROY_QUEUE: %+v", c)
	}
	n.must(n.admin, createQueue(1, c.Result))
	n.must(q, entry{npureg.CmdNop})
}

// TestMany keeps more in flight than the private rings hold, in two queues.
func TestMany(t *testing.T) { overRings(t, overMany) }

func overMany(t *testing.T, features uint64) {
	n := newNPUWith(t, features)
	c := n.must(n.admin, entry{npureg.AdminCreateContext})
	var queues []*Queue
	for i := range 2 {
		n.must(n.admin, createQueue(uint16(i+1), c.Result))
		queues = append(queues, n.Start(i+2, 256))
	}
	answers := map[*Queue][][]byte{}
	for range 120 {
		for _, q := range queues {
			e := entry{npureg.CmdNop}
			le.PutUint16(e[2:], uint16(len(answers[q])))
			_, a := q.Submit(e[:], 32)
			answers[q] = append(answers[q], a)
		}
	}
	for i, q := range queues {
		for range 120 {
			if _, written, ok := q.Await(Timeout); !ok || written != 32 {
				t.Fatalf("queue %d: %d bytes, %v", i, written, ok)
			}
		}
		for id, a := range answers[q] {
			if int(le.Uint16(a[0x1c:])) != id || le.Uint16(a[0x1e:]) != 0 {
				t.Errorf("queue %d, answer %d: %x", i, id, a)
			}
		}
	}
}

func TestBadRequests(t *testing.T) {
	n := newNPU(t)
	q := n.user()
	for _, tt := range []struct {
		name string
		size int
		info uint64
	}{{"short", 63, 63}, {"one byte", 1, 1}, {"long", 65, 64}, {"a page", 4096, 64}} {
		for _, q := range []*Queue{q, n.admin} {
			b := make([]byte, tt.size)
			b[0] = 1
			a := q.Request(b, 32)
			if len(a) != 32 || npureg.Status(le.Uint16(a[0x1e:])>>1) != npureg.StatusInvalidField || le.Uint64(a[8:]) != tt.info {
				t.Errorf("%s: %x", tt.name, a)
			}
		}
	}
	for _, room := range []int{1, 31} {
		if a := q.Request(make([]byte, 64), room); len(a) != 0 {
			t.Errorf("room %d: %x", room, a)
		}
	}
	n.finding("virtio-no-room")
	n.must(q, entry{npureg.CmdNop})
}

// TestDigits runs the digits network on real data: every byte is as the golden file has it.
func TestDigits(t *testing.T) { overRings(t, overDigits) }

func overDigits(t *testing.T, features uint64) {
	read := func(name string) []byte {
		t.Helper()
		b, err := os.ReadFile("../../examples/digits/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	const header, imageSize, weightsSize, recordSize, count = 64, 64, 4120, 3904, 40
	p, err := isa.Assemble("digits.npuasm", read("digits.npuasm"))
	if err != nil {
		t.Fatal(err)
	}
	n := newNPUWith(t, features)
	q := n.user()
	image := p.Image()
	program := n.Put(image)
	copy(n.window, read("weights.bin")[header:][:weightsSize]) // weights are in device memory
	images, golden := n.Put(read("images.bin")[header:][:count*imageSize]), read("golden.bin")[header:]
	record, got := n.Alloc(recordSize)
	for i := range count {
		var table []byte
		for _, b := range []struct {
			addr, size uint64
			flags      uint32
		}{{0, weightsSize, 1 | 1<<4}, {images + uint64(i*imageSize), imageSize, 1}, {record, recordSize, 2}} {
			table = append(table, U64(b.addr)...)
			table = append(table, U64(b.size)...)
			table = append(table, append(Pair(b.flags, 0), make([]byte, 8)...)...)
		}
		e := entry{npureg.CmdLaunch}
		le.PutUint64(e[0x08:], program)
		le.PutUint64(e[0x10:], n.Put(table))
		le.PutUint32(e[0x18:], 3)
		le.PutUint32(e[0x20:], uint32(len(image)))
		if c := n.must(q, e); c.Info != 25600 {
			t.Fatalf("image %d: %d MACs, want 25600", i, c.Info)
		}
		if !bytes.Equal(got, golden[i*recordSize:][:recordSize]) {
			t.Fatalf("image %d differs from the golden data", i)
		}
	}
	if got := n.dev.Counter(npureg.CounterPrograms); got != count {
		t.Errorf("the device counted %d programs, want %d", got, count)
	}
}

// TestLives: resets end a driver's life. Contexts are gone, device memory is not.
func TestLives(t *testing.T) { overRings(t, overLives) }

func overLives(t *testing.T, features uint64) {
	n := newNPUWith(t, features)
	q := n.user()
	n.must(q, entry{npureg.CmdNop})
	n.window[100] = 42
	for name, reset := range map[string]func(){
		"status 0":      func() { n.Do(SetStatus, U64(0)) },
		"RESET_DEVICE":  func() { n.Do(ResetDevice, nil) },
		"queues from 0": func() { q.Stop(); n.admin.Stop(); n.event.Stop() },
	} {
		reset()
		n.admin, n.event = n.Start(0, 16), n.Start(1, 16)
		n.back.ShmemMap(0)
		q = n.Start(2, 64)
		if c := n.do(q, entry{npureg.CmdNop}); c.Status != npureg.StatusQueueDisabled {
			t.Errorf("%s: the queue is still there: %+v", name, c)
		}
		if c := n.must(n.admin, entry{npureg.AdminCreateContext}); c.Result != 1 {
			t.Errorf("%s: context %d, want 1", name, c.Result)
		}
		n.must(n.admin, createQueue(1, 1))
		n.must(q, entry{npureg.CmdNop})
		if n.window[100] != 42 {
			t.Errorf("%s: device memory is lost", name)
		}
	}

	// A pause: all queues stop, and go on where they were.
	var bases []uint32
	queues := []*Queue{n.admin, n.event, q}
	for _, q := range queues {
		q.Enable(false)
	}
	for _, q := range queues {
		bases = append(bases, q.Stop())
	}
	for i, q := range queues {
		q.Setup(bases[i])
	}
	for _, q := range queues {
		q.Enable(true)
	}
	n.must(q, entry{npureg.CmdNop})

	// Another machine.
	n.Close()
	m := attach(t, n.dev, n.socket, features)
	m.must(m.user(), entry{npureg.CmdNop})
}

// TestBrokenQueue: the driver breaks a virtqueue of the NPU; status and interrupt tell, a
// reset heals.
func TestBrokenQueue(t *testing.T) { overRings(t, overBrokenQueue) }

func overBrokenQueue(t *testing.T, features uint64) {
	n := newNPUWith(t, features)
	q := n.user()
	n.back.ConfigChanged() // READY
	before := le.Uint32(n.Config(vdev.VirtioConfigSize)[0x44:])
	if features&Packed != 0 {
		q.PutPacked(int(q.Base()&0x7fff), Desc{Addr: MemBase, Flags: q.Now()})
	} else {
		q.Offer(9999 % 64)
	}
	q.Kick.Signal()
	n.back.ConfigChanged()
	c := n.Config(vdev.VirtioConfigSize)
	if got := le.Uint32(c[0x40:]); got != 1|4 {
		t.Errorf("status %#x, want READY and NEEDS_RESET", got)
	}
	if got := le.Uint32(c[0x44:]); got == before {
		t.Error("the generation did not change")
	}
	n.finding("virtqueue")
	n.must(n.admin, entry{npureg.AdminCreateContext}) // others go on
	n.Do(SetStatus, U64(0))
	if got := le.Uint32(n.Config(vdev.VirtioConfigSize)[0x40:]); got != 0 {
		t.Errorf("status %#x after reset", got)
	}
	n.admin = n.Start(0, 16)
	n.back.ShmemMap(0)
	n.must(n.user(), entry{npureg.CmdNop})
}

// TestDestroyBusy: what a destroyed queue had not done is answered as ABORTED, and only once.
func TestDestroyBusy(t *testing.T) { overRings(t, overDestroyBusy) }

func overDestroyBusy(t *testing.T, features uint64) {
	n := newNPUWith(t, features)
	q := n.user()
	src, dst := n.Put(make([]byte, 4096)), uint64(0)
	slow := copyEntry(busToDevice, src, dst, 4096)
	le.PutUint16(slow[0x1c:], 0x4000) // 64 MiB in rows over each other
	var answers [][]byte
	for range 20 {
		_, a := q.Submit(slow[:], 32)
		answers = append(answers, a)
	}
	n.must(n.admin, destroyQueue(1))
	aborted := 0
	for i := range answers {
		if _, _, ok := q.Await(Timeout); !ok {
			t.Fatalf("answer %d does not come", i)
		}
	}
	for _, a := range answers {
		switch s := npureg.Status(le.Uint16(a[0x1e:]) >> 1); s {
		case npureg.StatusAborted:
			aborted++
		case npureg.StatusSuccess, npureg.StatusQueueDisabled: // taken after the queue was gone
		default:
			t.Errorf("status %v", s)
		}
	}
	if aborted == 0 {
		t.Error("nothing was aborted")
	}
	n.must(n.admin, createQueue(1, 1))
	n.must(q, entry{npureg.CmdNop})
}

// TestVanish: front ends go away with commands in flight and without a word.
func TestVanish(t *testing.T) {
	d, socket := power(t)
	for i := range 30 {
		n := attach(t, d, socket, allFeatures)
		q := n.user()
		src := n.Put(make([]byte, 4096))
		slow := copyEntry(busToDevice, src, 0, 4096)
		le.PutUint16(slow[0x1c:], 0x4000)
		for range 1 + i%5 {
			q.Submit(slow[:], 32)
		}
		n.Close()
	}
	n := attach(t, d, socket, allFeatures)
	n.must(n.user(), entry{npureg.CmdNop})
}

// TestSlots: guest memory comes and goes under a running copy, which ends well or as a bus
// fault in that memory.
func TestSlots(t *testing.T) {
	n := newNPU(t)
	q := n.user()
	extra := Memfd(t, 64<<10)
	const at, user = 0x8000_0000, UserBase + 1<<40
	e := copyEntry(busToDevice, at, 0, 64<<10)
	le.PutUint16(e[0x1c:], 8) // rows over each other
	faults := 0
	for i := range 100 {
		n.Do(AddMemReg, Slot(at, 64<<10, user, 0), int(extra.Fd()))
		_, a := q.Submit(e[:], 32)
		time.Sleep(time.Duration(i) * 10 * time.Microsecond)
		n.Do(RemMemReg, Slot(at, 64<<10, user, 0))
		if _, _, ok := q.Await(Timeout); !ok {
			t.Fatalf("round %d: no answer", i)
		}
		switch status, info := npureg.Status(le.Uint16(a[0x1e:])>>1), le.Uint64(a[8:]); {
		case status == npureg.StatusSuccess:
		case status == npureg.StatusBusFault && info >= at && info < at+64<<10:
			faults++
		default:
			t.Fatalf("round %d: %v, info %#x", i, status, info)
		}
	}
	t.Logf("%d of 100 faulted", faults)
	n.must(q, entry{npureg.CmdNop})
}

// TestSlowStop: a command that runs longer than a stopping queue waits is ended by a reset.
func TestSlowStop(t *testing.T) {
	n := newNPU(t)
	q := n.user()
	src := n.Put(make([]byte, 4096))
	slow := copyEntry(busToDevice, src, 0, 4096)
	le.PutUint16(slow[0x1c:], 0xffff)
	le.PutUint16(slow[0x1e:], 0xffff)
	q.Submit(slow[:], 32)
	start := time.Now()
	if base := q.Stop(); base != 0 {
		t.Errorf("stopped at %d; the command was not done", base)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
	for _, q := range []*Queue{n.admin, n.event} {
		q.Stop()
	}
	n.admin = n.Start(0, 16)
	n.back.ShmemMap(0)
	n.must(n.user(), entry{npureg.CmdNop})
}

// TestRandomRequests: requests whose every byte is random do no harm.
func TestRandomRequests(t *testing.T) {
	n := newNPU(t)
	q := n.user()
	at := n.next
	for i := range 2000 {
		var e entry
		for k := range e {
			e[k] = byte(i * (k + 7) >> (i % 5))
		}
		e[0] = byte(i % 5)
		if i%2 == 0 {
			clear(e[1:8])
			clear(e[0x24:])
		}
		n.next = at
		n.do(q, e)
	}
	for i := range 500 {
		e := entry{byte(i % 0x24)}
		if e[0] == npureg.AdminDestroyContext || e[0] == npureg.AdminDestroyQueue {
			continue
		}
		le.PutUint64(e[8:], uint64(i)<<53)
		le.PutUint32(e[0x10:], uint32(i))
		le.PutUint32(e[0x14:], uint32(i%4))
		n.next = at
		n.do(n.admin, e)
	}
	n.must(q, entry{npureg.CmdNop})
	for _, f := range n.dev.Findings() {
		if strings.HasPrefix(f.ID, "fault-") || strings.HasPrefix(f.ID, "bar0-") {
			t.Errorf("finding %+v: the guest reached the device's own queues", f)
		}
	}
}
