// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npuemu/dma/iova"
	"npuemu/mmio/npureg"
)

// driver is the other side of the admin queue: a ready device with rings.
type driver struct {
	*board
	sqEntries, cqEntries uint32
	tail, head           uint32
	phase                uint16
	id                   uint16
}

// completion is a completion entry (§4.2), without phase.
type completion struct {
	Status    npureg.Status
	Result    uint32
	Info      uint64
	SQHead    uint16
	CommandID uint16
}

func newDriver(t testing.TB, sqEntries, cqEntries uint32) *driver {
	t.Helper()
	return startDriver(t, lockedBoard(t), sqEntries, cqEntries)
}

func startDriver(t testing.TB, b *board, sqEntries, cqEntries uint32) *driver {
	t.Helper()
	d := &driver{board: b}
	if s := d.start(t, Image()); s != npureg.BootReady {
		t.Fatalf("BOOT_STATUS %#x", s)
	}
	d.enable(t, sqEntries, cqEntries)
	d.irqs = nil
	return d
}

// setRings writes ASQ_BASE, ACQ_BASE and AQ_SIZE.
func (d *driver) setRings(asq, acq iova.Addr, size uint32) {
	d.host.Set(npureg.ASQBaseLo, uint32(asq&0xffff_ffff))
	d.host.Set(npureg.ASQBaseHi, uint32(asq>>32))
	d.host.Set(npureg.ACQBaseLo, uint32(acq&0xffff_ffff))
	d.host.Set(npureg.ACQBaseHi, uint32(acq>>32))
	d.host.Set(npureg.AQSize, size)
}

func (d *driver) control(t testing.TB, enable bool) {
	t.Helper()
	d.host.Set(npureg.AQControl, map[bool]uint32{true: npureg.AQControlEnable}[enable])
	d.p.AdminControl(enable)
}

// enable makes new rings, in the way of a driver that recovers: firmware may see
// the two writes to AQ_CONTROL at once.
func (d *driver) enable(t testing.TB, sqEntries, cqEntries uint32) {
	t.Helper()
	clear(d.bus(acqAddr, int(32*cqEntries)))
	d.setRings(asqAddr, acqAddr, cqEntries<<16|sqEntries)
	d.control(t, false)
	d.control(t, true)
	d.sqEntries, d.cqEntries, d.tail, d.head, d.phase = sqEntries, cqEntries, 0, 0, 1
	d.settle(t)
}

// put writes an entry without ringing; it sets the entry's command_id.
func (d *driver) put(e [64]byte) (id uint16) {
	d.id += 0x101
	binary.LittleEndian.PutUint16(e[2:], d.id)
	copy(d.bus(asqAddr+iova.Addr(64*d.tail), 64), e[:])
	d.tail = (d.tail + 1) % d.sqEntries
	return d.id
}

func (d *driver) ring(t testing.TB) {
	t.Helper()
	d.p.RingAdminTail(d.tail)
	d.settle(t)
}

// take consumes a completion, if there is one.
func (d *driver) take(t testing.TB) (c completion, ok bool) {
	t.Helper()
	b := d.bus(acqAddr+iova.Addr(32*d.head), 32)
	u16 := binary.LittleEndian.Uint16
	if u16(b[0x1e:])&1 != d.phase {
		return c, false
	}
	if binary.LittleEndian.Uint32(b[4:]) != 0 || binary.LittleEndian.Uint64(b[0x10:]) != 0 || u16(b[0x1a:]) != 0 {
		t.Errorf("reserved bytes or queue number of a completion are not 0: % x", b)
	}
	c = completion{
		Status: npureg.Status(u16(b[0x1e:]) >> 1), Result: binary.LittleEndian.Uint32(b), Info: binary.LittleEndian.Uint64(b[8:]),
		SQHead: u16(b[0x18:]), CommandID: u16(b[0x1c:]),
	}
	if d.head++; d.head == d.cqEntries {
		d.head, d.phase = 0, d.phase^1
	}
	return c, true
}

// do runs one command and returns its completion.
func (d *driver) do(t testing.TB, e [64]byte) completion {
	t.Helper()
	id := d.put(e)
	d.ring(t)
	c, ok := d.take(t)
	if !ok {
		t.Fatalf("no completion for % x", e)
	}
	if c.CommandID != id || uint32(c.SQHead) != d.tail {
		t.Errorf("completion %+v, want id %#x, sq_head %d", c, id, d.tail)
	}
	d.p.RingAdminHead(d.head)
	d.settle(t)
	c.CommandID, c.SQHead = 0, 0
	return c
}

// command makes an entry; fields are pairs of offset and value: uint16, uint32,
// uint64 or, at one byte, uint8.
func command(opcode byte, fields ...any) (e [64]byte) {
	e[0] = opcode
	for i := 0; i < len(fields); i += 2 {
		off := fields[i].(int)
		switch v := fields[i+1].(type) {
		case uint8:
			e[off] = v
		case uint16:
			binary.LittleEndian.PutUint16(e[off:], v)
		case uint32:
			binary.LittleEndian.PutUint32(e[off:], v)
		case uint64:
			binary.LittleEndian.PutUint64(e[off:], v)
		default:
			panic(fmt.Sprintf("field of type %T", v))
		}
	}
	return e
}

// with changes a command.
func with(e [64]byte, fields ...any) [64]byte {
	c := command(0, fields...)
	for i := 0; i < len(fields); i += 2 {
		off := fields[i].(int)
		n := binary.Size(fields[i+1])
		copy(e[off:], c[off:off+n])
	}
	return e
}

var (
	goodIdentify = command(npureg.AdminIdentify, 0x08, uint64(bufAddr), 0x10, uint32(256))
	goodLog      = command(npureg.AdminGetLogPage, 0x08, uint64(bufAddr), 0x10, uint32(4096), 0x14, uint32(1))
	goodContext  = command(npureg.AdminCreateContext)
	goodQueue    = command(npureg.AdminCreateQueue, 0x08, uint64(0x10_0000_0040), 0x10, uint64(0x20_0000_0080),
		0x18, uint16(2), 0x1a, uint16(3), 0x1c, uint16(1024), 0x1e, uint16(2), 0x20, uint32(1))
)

func destroyContext(n uint32) [64]byte { return command(npureg.AdminDestroyContext, 0x08, n) }
func destroyQueue(n uint32) [64]byte   { return command(npureg.AdminDestroyQueue, 0x08, n) }

// Every rule of §4.5 to §4.7, one command on a device with context 1 and queue 1.
func TestAdminCommands(t *testing.T) {
	field := func(off uint64) completion { return completion{Status: npureg.StatusInvalidField, Info: off} }
	status := func(s npureg.Status) completion { return completion{Status: s} }
	ok := completion{}
	result := func(v uint32) completion { return completion{Result: v} }
	tests := []struct {
		name string
		e    [64]byte
		want completion
	}{
		{"opcode 0", command(0), status(npureg.StatusInvalidOpcode)},
		{"opcode 3", command(3), status(npureg.StatusInvalidOpcode)},
		{"opcode ff with flags", command(0xff, 1, uint8(1)), status(npureg.StatusInvalidOpcode)},

		{"identify", goodIdentify, ok},
		{"identify, odd buffer", with(goodIdentify, 0x08, uint64(bufAddr+3)), ok},
		{"identify, flags", with(goodIdentify, 1, uint8(0x80)), field(1)},
		{"identify, 255 bytes", with(goodIdentify, 0x10, uint32(255)), field(0x10)},
		{"identify, 512 bytes", with(goodIdentify, 0x10, uint32(512)), field(0x10)},
		{"identify, not mapped", with(goodIdentify, 0x08, uint64(0x1000)), completion{Status: npureg.StatusBusFault, Info: 0x1000}},
		{"identify, past 2^64", with(goodIdentify, 0x08, ^uint64(0)), completion{Status: npureg.StatusBusFault, Info: ^uint64(0)}},
		{"identify, end not mapped", with(goodIdentify, 0x08, uint64(busBase+busSize-255)), completion{Status: npureg.StatusBusFault, Info: busBase + busSize - 255}},
		{"first wrong field counts", with(goodIdentify, 1, uint8(1), 0x04, uint32(1), 0x10, uint32(0)), field(1)},
		{"second wrong field counts", with(goodIdentify, 0x04, uint32(1), 0x10, uint32(0), 0x14, uint32(9)), field(4)},

		{"log page 1", goodLog, result(32)},
		{"log page 1, cut", with(goodLog, 0x10, uint32(1)), result(1)},
		{"log page 2", with(goodLog, 0x14, uint32(2)), result(8 * npureg.CounterCount)},
		{"log page 2, cut", with(goodLog, 0x14, uint32(2), 0x10, uint32(95)), result(95)},
		{"log page 0", with(goodLog, 0x14, uint32(0)), status(npureg.StatusInvalidLogPage)},
		{"log page 3", with(goodLog, 0x14, uint32(3)), status(npureg.StatusInvalidLogPage)},
		{"log page 1<<31", with(goodLog, 0x14, uint32(1<<31|1)), status(npureg.StatusInvalidLogPage)},
		{"log, size 0", with(goodLog, 0x10, uint32(0)), field(0x10)},
		{"log, size 4097", with(goodLog, 0x10, uint32(4097)), field(0x10)},
		{"log, not mapped", with(goodLog, 0x08, uint64(0)), completion{Status: npureg.StatusBusFault}},
		{"log, wrong page and reserved", with(goodLog, 0x14, uint32(7), 0x3c, uint32(1)), field(0x18)},

		{"create context", goodContext, result(2)},
		{"create context, translated without the feature", command(npureg.AdminCreateContext, 0x10, uint32(1)), field(8)},
		{"invalidate TLB without the feature", command(npureg.AdminInvalidateTLB), status(npureg.StatusInvalidOpcode)},

		{"destroy context 0", destroyContext(0), status(npureg.StatusInvalidContext)},
		{"destroy context 1 with a queue", destroyContext(1), status(npureg.StatusBusy)},
		{"destroy context 2, which is not there", destroyContext(2), status(npureg.StatusInvalidContext)},
		{"destroy context beyond the limit", destroyContext(testContexts + 1), status(npureg.StatusInvalidContext)},
		{"destroy context 2^32-1", destroyContext(^uint32(0)), status(npureg.StatusInvalidContext)},
		{"destroy context 1<<16|1", destroyContext(1<<16 | 1), status(npureg.StatusInvalidContext)},

		{"create queue", goodQueue, ok},
		{"create queue, number 0", with(goodQueue, 0x18, uint16(0)), field(0x18)},
		{"create queue, number at the limit", with(goodQueue, 0x18, uint16(testQueues)), ok},
		{"create queue, number beyond the limit", with(goodQueue, 0x18, uint16(testQueues+1)), field(0x18)},
		{"create queue, number 257", with(goodQueue, 0x18, uint16(257)), field(0x18)},
		{"create queue that exists", with(goodQueue, 0x18, uint16(1)), status(npureg.StatusQueueExists)},
		{"create queue, SQ misaligned", with(goodQueue, 0x08, uint64(0x1020)), field(0x08)},
		{"create queue, CQ misaligned", with(goodQueue, 0x10, uint64(0x1020)), field(0x10)},
		{"create queue, SQ past 2^64", with(goodQueue, 0x08, ^uint64(0xffff)+64), field(0x08)},
		{"create queue, SQ up to 2^64", with(goodQueue, 0x08, ^uint64(0xffff)), ok},
		{"create queue, CQ past 2^64", with(goodQueue, 0x10, ^uint64(63), 0x1e, uint16(3)), field(0x10)},
		{"create queue, CQ up to 2^64", with(goodQueue, 0x10, ^uint64(63)), ok},
		{"create queue, vector beyond the limit", with(goodQueue, 0x1a, uint16(testVectors)), field(0x1a)},
		{"create queue, vector 0", with(goodQueue, 0x1a, uint16(0)), ok},
		{"create queue, 1 SQ entry", with(goodQueue, 0x1c, uint16(1)), field(0x1c)},
		{"create queue, 0 SQ entries", with(goodQueue, 0x1c, uint16(0)), field(0x1c)},
		{"create queue, SQ too large", with(goodQueue, 0x1c, uint16(testEntries+1)), field(0x1c)},
		{"create queue, 1 CQ entry", with(goodQueue, 0x1e, uint16(1)), field(0x1e)},
		{"create queue, CQ too large", with(goodQueue, 0x1e, uint16(testEntries+1)), field(0x1e)},
		{"create queue, context 0", with(goodQueue, 0x20, uint32(0)), status(npureg.StatusInvalidContext)},
		{"create queue, context 2", with(goodQueue, 0x20, uint32(2)), status(npureg.StatusInvalidContext)},
		{"create queue, context 1<<16|1", with(goodQueue, 0x20, uint32(1<<16|1)), status(npureg.StatusInvalidContext)},
		{"create queue, no context and reserved", with(goodQueue, 0x20, uint32(0), 0x3c, uint32(1)), field(0x24)},

		{"create queue, shadow line without the feature", with(goodQueue, 0x28, uint64(bufAddr)), field(0x24)},

		{"destroy queue", destroyQueue(1), ok},
		{"destroy queue 0", destroyQueue(0), status(npureg.StatusInvalidQueue)},
		{"destroy queue that is not there", destroyQueue(2), status(npureg.StatusInvalidQueue)},
		{"destroy queue beyond the limit", destroyQueue(testQueues + 1), status(npureg.StatusInvalidQueue)},
		{"destroy queue 257", destroyQueue(257), status(npureg.StatusInvalidQueue)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDriver(t, 8, 8)
			if c := d.do(t, goodContext); c.Result != 1 {
				t.Fatalf("CREATE_CONTEXT: %+v", c)
			}
			if c := d.do(t, with(goodQueue, 0x18, uint16(1))); c.Status != 0 {
				t.Fatalf("CREATE_QUEUE: %+v", c)
			}
			queues := len(d.queues)
			if diff := cmp.Diff(tt.want, d.do(t, tt.e)); diff != "" {
				t.Errorf("completion (-want +got):\n%s", diff)
			}
			if tt.want.Status != 0 {
				if len(d.queues) != queues || d.state[1] != npureg.QueueEnabled {
					t.Error("a refused command changed a queue")
				}
				d.logged(t, fmt.Sprintf("admin: refused opcode %#x id 0x303: status %#x, info ", tt.e[0], uint16(tt.want.Status)))
			}
			if len(d.faults) != 0 {
				t.Errorf("fault records %v; a wrong command makes none (§9.2)", d.faults)
			}
			if c := d.do(t, goodIdentify); c.Status != 0 {
				t.Errorf("IDENTIFY after it: %+v", c)
			}
		})
	}
}

// Each reserved byte of each command, and that no other byte is taken for one.
func TestAdminReserved(t *testing.T) {
	type field struct{ start, end int }
	common := []field{{1, 2}, {4, 8}}
	tests := []struct {
		name     string
		e        [64]byte
		reserved []field
	}{
		{"IDENTIFY", goodIdentify, []field{{0x14, 64}}},
		{"GET_LOG_PAGE", goodLog, []field{{0x18, 64}}},
		{"CREATE_CONTEXT", goodContext, []field{{0x08, 64}}},
		{"DESTROY_CONTEXT", destroyContext(1), []field{{0x0c, 64}}},
		{"CREATE_QUEUE", goodQueue, []field{{0x24, 64}}},
		{"DESTROY_QUEUE", destroyQueue(1), []field{{0x0c, 64}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDriver(t, 8, 8)
			for _, f := range append(common, tt.reserved...) {
				for off := f.start; off < f.end; off++ {
					for _, v := range []uint8{1, 0x80} {
						want := completion{Status: npureg.StatusInvalidField, Info: uint64(f.start)}
						if diff := cmp.Diff(want, d.do(t, with(tt.e, off, v))); diff != "" {
							t.Fatalf("byte %#x = %#x (-want +got):\n%s", off, v, diff)
						}
					}
				}
			}
		})
	}
}

// TestShadowLines creates queues with a shadow line (§4.11) on hardware that announces them.
func TestShadowLines(t *testing.T) {
	field := func(off uint64) completion { return completion{Status: npureg.StatusInvalidField, Info: off} }
	const nowhere = 1 << 40
	for _, tt := range []struct {
		name string
		e    [64]byte
		want completion
	}{
		{"none", goodQueue, completion{}},
		{"good", with(goodQueue, 0x28, uint64(bufAddr)), completion{}},
		{"not aligned", with(goodQueue, 0x28, uint64(bufAddr+32)), field(0x28)},
		{"not aligned above 4 GiB", with(goodQueue, 0x28, uint64(1<<32|8)), field(0x28)},
		{"reserved before it", with(goodQueue, 0x24, uint32(1), 0x28, uint64(bufAddr)), field(0x24)},
		{"reserved behind it", with(goodQueue, 0x28, uint64(bufAddr), 0x30, uint32(1)), field(0x30)},
		{"reserved far behind it", with(goodQueue, 0x3c, uint32(1)), field(0x30)},
		{"no context", with(goodQueue, 0x20, uint32(9), 0x28, uint64(nowhere)), completion{Status: npureg.StatusInvalidContext}},
		{"not mapped", with(goodQueue, 0x28, uint64(nowhere)), completion{Status: npureg.StatusBusFault, Info: nowhere}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDriver(t, 8, 8)
			d.host.Set(npureg.FeaturesLo, npureg.FeatureShadowDoorbells)
			d.do(t, goodContext)
			line := d.bus(bufAddr, 128)
			for i := range line {
				line[i] = 0xee
			}
			if diff := cmp.Diff(tt.want, d.do(t, tt.e)); diff != "" {
				t.Errorf("completion (-want +got):\n%s", diff)
			}
			if tt.want.Status != 0 {
				if len(d.queues) != 0 {
					t.Error("a refused command made a queue")
				}
				return
			}
			shadow := iova.Addr(binary.LittleEndian.Uint64(tt.e[0x28:]))
			if got := d.queues[2].Shadow; got != shadow {
				t.Errorf("hardware was told of a line at %v, want %v", got, shadow)
			}
			want := bytes.Repeat([]byte{0xee}, 128)
			if shadow != 0 {
				clear(want[:64])
				want[npureg.ShadowRing] = npureg.RingSQTail | npureg.RingCQHead
			}
			if diff := cmp.Diff(want, line); diff != "" {
				t.Errorf("line (-want +got):\n%s", diff)
			}
		})
	}
}

func TestIdentify(t *testing.T) {
	d := newDriver(t, 8, 8)
	for i := range d.bus(bufAddr, 257) {
		d.bus(bufAddr, 257)[i] = 0xee
	}
	d.do(t, goodIdentify)
	want := make([]byte, 257)
	for i, v := range []uint32{256, npureg.FirmwareMajor<<16 | npureg.FirmwareMinor, 0x00030000, npureg.ArchMajor<<16 | npureg.ArchMinor, testContexts, testQueues, testEntries} {
		binary.LittleEndian.PutUint32(want[4*i:], v)
	}
	copy(want[0x20:], "npuemu firmware 0.3.0")
	want[256] = 0xee
	if diff := cmp.Diff(want, d.bus(bufAddr, 257)); diff != "" {
		t.Errorf("buffer (-want +got):\n%s", diff)
	}
}

func TestLogPages(t *testing.T) {
	d := newDriver(t, 8, 8)
	d.do(t, goodContext)
	d.do(t, goodContext)
	d.do(t, goodQueue)
	d.do(t, command(0xff))
	d.now += 4_500_000_000 * time.Microsecond // past 2³², and past the watchdog: firmware gets its chance to kick
	d.settle(t)
	d.do(t, goodLog)
	var want []byte
	p32, p64 := binary.LittleEndian.AppendUint32, binary.LittleEndian.AppendUint64
	want = p64(p32(p32(want, 1<<16|2), 0x00030000), 4_500_000_000)
	want = p64(p32(p32(want, 2), 1), 4)
	if diff := cmp.Diff(want, d.bus(bufAddr, 32)); diff != "" {
		t.Errorf("page 1 (-want +got):\n%s", diff)
	}

	want = nil
	for i := range d.counter {
		d.counter[i] = uint64(i+1)<<32 | uint64(0x80000000+i)
		want = p64(want, d.counter[i])
	}
	d.do(t, with(goodLog, 0x14, uint32(2)))
	if diff := cmp.Diff(want, d.bus(bufAddr, len(want))); diff != "" {
		t.Errorf("page 2 (-want +got):\n%s", diff)
	}
}

func TestContexts(t *testing.T) {
	d := newDriver(t, 8, 8)
	for i := range uint32(testContexts) {
		if c := d.do(t, goodContext); c.Status != 0 || c.Result != i+1 {
			t.Errorf("CREATE_CONTEXT %d: %+v", i, c)
		}
	}
	if c := d.do(t, goodContext); c.Status != npureg.StatusNoResource {
		t.Errorf("CREATE_CONTEXT: %+v, want NO_RESOURCE", c)
	}
	if c := d.do(t, destroyContext(2)); c.Status != 0 {
		t.Errorf("DESTROY_CONTEXT: %+v", c)
	}
	if c := d.do(t, destroyContext(2)); c.Status != npureg.StatusInvalidContext {
		t.Errorf("second DESTROY_CONTEXT: %+v", c)
	}
	if c := d.do(t, goodContext); c.Result != 2 {
		t.Errorf("CREATE_CONTEXT: %+v, want context 2", c)
	}
}

func TestQueues(t *testing.T) {
	d := newDriver(t, 8, 8)
	d.do(t, goodContext)
	d.do(t, goodQueue)
	want := map[int]QueueConfig{2: {SQ: 0x10_0000_0040, CQ: 0x20_0000_0080, SQEntries: 1024, CQEntries: 2, Context: 1, Vector: 3}}
	if diff := cmp.Diff(want, d.queues); diff != "" {
		t.Errorf("hardware's queues (-want +got):\n%s", diff)
	}

	// A queue that drains: its DESTROY_QUEUE completes late, others go on.
	d.busy[2] = true
	slow := d.put(destroyQueue(2))
	d.ring(t)
	if c, ok := d.take(t); ok {
		t.Fatalf("DESTROY_QUEUE completed while a command was in flight: %+v", c)
	}
	for name, row := range map[string]struct {
		e    [64]byte
		want npureg.Status
	}{
		"IDENTIFY":            {goodIdentify, npureg.StatusSuccess},
		"CREATE_QUEUE":        {goodQueue, npureg.StatusQueueExists},
		"second DESTROY":      {destroyQueue(2), npureg.StatusBusy},
		"DESTROY_CONTEXT":     {destroyContext(1), npureg.StatusBusy},
		"DESTROY other queue": {destroyQueue(3), npureg.StatusInvalidQueue},
	} {
		if c := d.do(t, row.e); c.Status != row.want {
			t.Errorf("%s while queue 2 drains: %+v, want %v", name, c, row.want)
		}
	}
	d.finish(2)
	d.settle(t)
	if c, ok := d.take(t); !ok || c.CommandID != slow || c.Status != 0 {
		t.Errorf("DESTROY_QUEUE: %+v, %v; want success of id %#x", c, ok, slow)
	}
	d.p.RingAdminHead(d.head)
	if c := d.do(t, destroyContext(1)); c.Status != 0 {
		t.Errorf("DESTROY_CONTEXT: %+v", c)
	}

	// A queue in the error state.
	d.do(t, goodContext)
	d.do(t, goodQueue)
	d.state[2] = npureg.QueueError
	d.p.QueueEvent()
	d.settle(t)
	if c := d.do(t, destroyQueue(2)); c.Status != 0 || d.state[2] != npureg.QueueDisabled {
		t.Errorf("DESTROY_QUEUE of a queue in error: %+v, state %d", c, d.state[2])
	}
	if c := d.do(t, goodQueue); c.Status != 0 {
		t.Errorf("CREATE_QUEUE: %+v", c)
	}

	// The admin queue restarts while a queue drains: its completion is dropped.
	d.busy[2] = true
	d.put(destroyQueue(2))
	d.ring(t)
	d.enable(t, 8, 8)
	d.finish(2)
	d.settle(t)
	if c, ok := d.take(t); ok {
		t.Errorf("completion for a command of the ring before: %+v", c)
	}
	if c := d.do(t, goodQueue); c.Status != 0 {
		t.Errorf("CREATE_QUEUE: %+v", c)
	}
}

// Ring wrap and phase, for rings of different sizes.
func TestRingWrap(t *testing.T) {
	for _, size := range [][2]uint32{{2, 2}, {2, 5}, {7, 3}, {256, 256}, {3, 256}} {
		d := newDriver(t, size[0], size[1])
		for n := range 600 {
			if c := d.do(t, destroyContext(77)); c.Status != npureg.StatusInvalidContext {
				t.Fatalf("rings %v, command %d: %+v", size, n, c)
			}
		}
		if len(d.irqs) != 600 {
			t.Errorf("rings %v: %d causes for 600 completions", size, len(d.irqs))
		}
	}
}

// The device stops before an unconsumed completion (§4.3), and a batch is served
// from one doorbell.
func TestCompletionRingFull(t *testing.T) {
	d := newDriver(t, 16, 4)
	for range 10 {
		d.put(goodIdentify)
	}
	d.ring(t)
	got := 0
	for rounds := 0; got < 10 && rounds < 20; rounds++ {
		n := 0
		for {
			if _, ok := d.take(t); !ok {
				break
			}
			n++
		}
		if n > 3 {
			t.Fatalf("%d completions in a ring of 4", n)
		}
		got += n
		d.p.RingAdminHead(d.head)
		d.settle(t)
	}
	if got != 10 || len(d.faults) != 0 {
		t.Errorf("%d completions, fault records %v; want 10 and none", got, d.faults)
	}
}

// What stops the admin queue (§9.2), and that clearing and setting ENABLE brings
// it back.
func TestAdminErrors(t *testing.T) {
	touches := func(lo iova.Addr, n int, w bool) func(iova.Addr, int, bool) bool {
		return func(a iova.Addr, size int, write bool) bool {
			return write == w && a < lo+iova.Addr(n) && a+iova.Addr(size) > lo
		}
	}
	size := func(sq, cq uint32) uint32 { return cq<<16 | sq }
	tests := []struct {
		name string
		do   func(t *testing.T, d *driver)
		want Fault
	}{
		{"tail is the number of entries", func(t *testing.T, d *driver) { d.p.RingAdminTail(8) },
			Fault{Code: npureg.StatusInvalidDoorbell, Source: npureg.FaultDoorbell, Index: 8}},
		{"tail 2^31", func(t *testing.T, d *driver) { d.p.RingAdminTail(1<<31 | 5) },
			Fault{Code: npureg.StatusInvalidDoorbell, Source: npureg.FaultDoorbell, Index: 0xffff}},
		{"tail back", func(t *testing.T, d *driver) {
			for range 5 { // three fill the completion ring
				d.put([64]byte{0xff})
			}
			d.ring(t)
			d.p.RingAdminTail(d.tail - 1)
		}, Fault{Code: npureg.StatusInvalidDoorbell, Source: npureg.FaultDoorbell, Index: 5}},
		{"head is the number of entries", func(t *testing.T, d *driver) { d.p.RingAdminHead(4) },
			Fault{Code: npureg.StatusInvalidDoorbell, Source: npureg.FaultDoorbell, Index: 4}},
		{"head past the tail", func(t *testing.T, d *driver) { d.p.RingAdminHead(3) },
			Fault{Code: npureg.StatusInvalidDoorbell, Source: npureg.FaultDoorbell, Index: 3}},
		{"head back", func(t *testing.T, d *driver) { d.p.RingAdminHead(0) },
			Fault{Code: npureg.StatusInvalidDoorbell, Source: npureg.FaultDoorbell, Index: 0}},
		{"entry cannot be read", func(t *testing.T, d *driver) {
			d.broken = touches(asqAddr+64, 1, false)
			d.put(goodIdentify)
			d.ring(t)
		}, Fault{Code: npureg.StatusBusFault, Source: npureg.FaultFetch, Index: 1, Addr: asqAddr + 64}},
		{"completion cannot be written", func(t *testing.T, d *driver) {
			d.broken = touches(acqAddr+32, 1, true)
			d.put(goodIdentify)
			d.ring(t)
		}, Fault{Code: npureg.StatusBusFault, Source: npureg.FaultPost, Index: 1, Addr: acqAddr + 32}},
		{"completion's end cannot be written", func(t *testing.T, d *driver) {
			d.broken = touches(acqAddr+63, 1, true)
			d.put(goodIdentify)
			d.ring(t)
		}, Fault{Code: npureg.StatusBusFault, Source: npureg.FaultPost, Index: 1, Addr: acqAddr + 32}},
		{"SQ of 1", func(t *testing.T, d *driver) { d.restart(t, asqAddr, acqAddr, size(1, 8)) },
			Fault{Code: npureg.StatusInvalidField, Source: npureg.FaultCP, Index: npureg.AQSize}},
		{"SQ of 257", func(t *testing.T, d *driver) { d.restart(t, asqAddr, acqAddr, size(257, 8)) },
			Fault{Code: npureg.StatusInvalidField, Source: npureg.FaultCP, Index: npureg.AQSize}},
		{"CQ of 0", func(t *testing.T, d *driver) { d.restart(t, asqAddr, acqAddr, size(8, 0)) },
			Fault{Code: npureg.StatusInvalidField, Source: npureg.FaultCP, Index: npureg.AQSize}},
		{"CQ of 65535", func(t *testing.T, d *driver) { d.restart(t, asqAddr, acqAddr, size(8, 65535)) },
			Fault{Code: npureg.StatusInvalidField, Source: npureg.FaultCP, Index: npureg.AQSize}},
		{"SQ past 2^64", func(t *testing.T, d *driver) { d.restart(t, ^iova.Addr(127), acqAddr, size(3, 8)) },
			Fault{Code: npureg.StatusInvalidField, Source: npureg.FaultCP, Index: npureg.ASQBaseLo, Addr: ^iova.Addr(127)}},
		{"CQ past 2^64", func(t *testing.T, d *driver) { d.restart(t, asqAddr, ^iova.Addr(63), size(8, 3)) },
			Fault{Code: npureg.StatusInvalidField, Source: npureg.FaultCP, Index: npureg.ACQBaseLo, Addr: ^iova.Addr(63)}},
		{"doorbell while disabled", func(t *testing.T, d *driver) {
			d.control(t, false)
			d.p.RingAdminTail(3)
		}, Fault{Code: npureg.StatusQueueDisabled, Source: npureg.FaultDoorbell, Index: 3}},
		{"CQ_HEAD while disabled", func(t *testing.T, d *driver) {
			d.control(t, false)
			d.p.RingAdminHead(0x12345)
		}, Fault{Code: npureg.StatusQueueDisabled, Source: npureg.FaultDoorbell, Index: 0xffff}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDriver(t, 8, 4)
			d.do(t, goodContext) // head and tails are at 1
			tt.do(t, d)
			d.settle(t)
			if diff := cmp.Diff([]Fault{tt.want}, d.faults); diff != "" {
				t.Errorf("fault records (-want +got):\n%s", diff)
			}
			// Stopped: nothing is served, and nothing more is reported.
			posted := bytes.Clone(d.bus(acqAddr, 128))
			d.broken = nil
			if tt.want.Code != npureg.StatusQueueDisabled {
				d.p.RingAdminHead(1)
				d.p.RingAdminTail(2)
				d.settle(t)
			}
			if !bytes.Equal(posted, d.bus(acqAddr, 128)) || len(d.faults) != 1 {
				t.Errorf("the queue is not stopped: %v", d.faults)
			}
			if s := d.host.Value(npureg.BootStatus); s != npureg.BootReady {
				t.Errorf("BOOT_STATUS %#x", s)
			}
			d.enable(t, 4, 8)
			if c := d.do(t, destroyContext(1)); c.Status != 0 {
				t.Errorf("DESTROY_CONTEXT on the new rings: %+v", c)
			}
		})
	}
}

// restart gives the queue other rings.
func (d *driver) restart(t testing.TB, asq, acq iova.Addr, size uint32) {
	d.control(t, false)
	d.setRings(asq, acq, size)
	d.control(t, true)
}

func TestDoorbellWithoutFirmware(t *testing.T) {
	d := &driver{board: lockedBoard(t)}
	want := []Fault{{Code: npureg.StatusQueueDisabled, Source: npureg.FaultDoorbell, Index: 1}}
	d.p.RingAdminTail(1)
	if diff := cmp.Diff(want, d.faults); diff != "" {
		t.Errorf("before START (-want +got):\n%s", diff)
	}
	// ENABLE before READY is early, but not lost.
	d.setRings(asqAddr, acqAddr, 8<<16|8)
	d.control(t, true)
	d.start(t, Image())
	d.sqEntries, d.cqEntries, d.phase = 8, 8, 1
	d.faults = nil
	if c := d.do(t, goodIdentify); c.Status != 0 {
		t.Errorf("IDENTIFY: %+v", c)
	}
	// After a restart of firmware ENABLE must be set anew.
	d.p.die(npureg.BootErrWatchdog, 0)
	d.faults = nil
	d.p.RingAdminTail(1)
	d.start(t, Image())
	d.p.RingAdminTail(1)
	d.settle(t)
	if diff := cmp.Diff(append(want, want...), d.faults); diff != "" {
		t.Errorf("firmware dead, then restarted (-want +got):\n%s", diff)
	}
	d.enable(t, 8, 8)
	if c := d.do(t, goodIdentify); c.Status != 0 {
		t.Errorf("IDENTIFY: %+v", c)
	}
}

// Refused commands are logged, but not as many as a guest likes.
func TestRefusalsLogged(t *testing.T) {
	d := newDriver(t, 8, 8)
	for range 100 {
		d.do(t, command(0xee))
	}
	if n := strings.Count(d.log.String(), "refused opcode"); n != 8 {
		t.Errorf("%d lines for 100 refused commands, want 8", n)
	}
	d.now += 600 * time.Millisecond
	d.settle(t)
	d.logged(t, "admin: refused more commands, not logged: 0x5c")
	d.do(t, command(0xee))
	if n := strings.Count(d.log.String(), "refused opcode"); n != 9 {
		t.Errorf("%d lines after a tick, want 9", n)
	}
}

// Any bytes as commands: each is completed, or pending because its queue drains or is to be suspended,
// and the device serves on.
func FuzzAdmin(f *testing.F) {
	for _, e := range [][64]byte{goodIdentify, goodLog, goodContext, goodQueue, destroyContext(1), destroyQueue(2), command(0x55), modifyQueue, sharedQueue, fullQueue,
		suspendQueue(2), resumeQueue(2), translatedContext, goodInvalidate, with(goodLog, 0x14, uint32(3)),
		goodThreshold, goodReset, with(goodLog, 0x14, uint32(4)), with(goodLog, 0x14, uint32(5), 0x18, uint32(1)), with(goodLog, 0x14, uint32(6)), with(goodLog, 0x14, uint32(7), 0x18, uint32(4))} {
		f.Add(e[:], uint8(0))
		f.Add(e[:], uint8(1))
	}
	var all []byte
	for _, e := range [][64]byte{goodContext, goodQueue, destroyQueue(2), goodQueue, destroyContext(1)} {
		all = append(all, e[:]...)
	}
	f.Add(all, uint8(0xff))
	all = all[:0]
	for _, e := range [][64]byte{goodContext, with(goodQueue, 0x18, uint16(1)), sharedQueue, suspendQueue(2), suspendQueue(1), destroyQueue(2), destroyQueue(1)} {
		all = append(all, e[:]...)
	}
	f.Add(all, uint8(0x4))
	f.Fuzz(func(t *testing.T, in []byte, busy uint8) {
		board := newBoardWith(t, nil, new(sick))
		board.mu.Lock()
		defer board.mu.Unlock()
		d := startDriver(t, board, 16, 16)
		if busy&1 != 0 {
			d.host.Set(npureg.FeaturesLo, npureg.FeatureMMU|npureg.FeatureQueueControl)
		}
		for q := 1; q <= testQueues; q++ {
			d.busy[q] = busy>>q&1 != 0
		}
		d.host.Set(npureg.FeaturesLo, npureg.FeatureShadowDoorbells|npureg.FeatureQueueControl|npureg.FeatureRAS)
		pending := map[uint16]bool{}
		for ; len(in) >= 64; in = in[64:] {
			e := [64]byte(in)
			if a := iova.Addr(binary.LittleEndian.Uint64(e[8:])); a > asqAddr-4096 && a < acqAddr+512 {
				continue // the guest writes over its own rings
			}
			id := d.put(e)
			pending[id] = true
			d.ring(t)
			for {
				c, ok := d.take(t)
				if !ok {
					break
				}
				if !pending[c.CommandID] {
					t.Fatalf("% x: %+v, which nobody waits for", e, c)
				}
				delete(pending, c.CommandID)
				if c.Status == npureg.StatusInvalidField && c.Info >= 64 {
					t.Fatalf("% x: info %#x is no offset in an entry", e, c.Info)
				}
			}
			if pending[id] && e[0] != npureg.AdminDestroyQueue && e[0] != npureg.AdminSuspendQueue {
				t.Fatalf("% x: not completed", e)
			}
			d.p.RingAdminHead(d.head)
		}
		for q := 1; q <= testQueues; q++ {
			if d.state[q] == npureg.QueueDraining || d.state[q] == npureg.QueueSuspending {
				d.finish(q)
			}
		}
		d.settle(t)
		for {
			c, ok := d.take(t)
			if !ok {
				break
			}
			delete(pending, c.CommandID)
		}
		d.p.RingAdminHead(d.head)
		if c := d.do(t, goodIdentify); c.Status != 0 || len(d.faults) != 0 || len(pending) != 0 {
			t.Errorf("IDENTIFY %+v, fault records %v, %d commands lost", c, d.faults, len(pending))
		}
	})
}
