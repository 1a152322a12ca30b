// SPDX-License-Identifier: Apache-2.0

// Package conformance drives the whole device through its transport, as a
// driver would, and compares it with docs/spec.
package conformance

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npuemu/core/isa"
	"npuemu/firmware"
	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
	"npuemu/vdev"
	"npuemu/vdev/vfiouser"
)

var le = binary.LittleEndian

// config is the default card with 1 MiB of device memory.
func config() vdev.Config {
	c := vdev.DefaultConfig()
	c.Memory.Size = 1 << 20
	c.Queues.Count = 8
	return c
}

// ready is a host with firmware running, one context, and queue 1 with eight entries.
func ready(t *testing.T) (h *devtest.Host, context uint32) {
	t.Helper()
	h = devtest.New(t, config())
	return h, prepare(h)
}

func prepare(h *devtest.Host) uint32 {
	h.T.Helper()
	h.Bring(firmware.Image())
	c := h.CreateContext()
	h.CreateQueue(1, c, 1, 8)
	return c
}

func nop() devtest.Entry { return devtest.Entry{npureg.CmdNop} }

// program assembles text for the card of config.
func program(t *testing.T, text string) []byte {
	t.Helper()
	p, err := isa.Assemble("test", []byte(".isa 1.0\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	return p.Image()
}

func TestRegistersAtPowerOn(t *testing.T) {
	devtest.NeedsFunction(t, "registers")
	h := devtest.New(t, config())
	h.AwaitReset()
	for _, tt := range []struct {
		name string
		off  uint32
		want uint32
	}{
		{"ID", npureg.ID, 0x4555504e},
		{"ARCH_VERSION", npureg.ArchVersion, 0x00010006},
		{"FEATURES_LO", npureg.FeaturesLo, npureg.FeatureShadowDoorbells | npureg.FeatureMMU | npureg.FeatureQueueControl | npureg.FeatureTimelines | npureg.FeatureRAS | npureg.FeatureGEMM | npureg.FeatureFloat | npureg.FeatureControl | npureg.FeatureVector | npureg.FeatureReduce | npureg.FeaturePool | npureg.FeatureGather | npureg.FeatureQuant | npureg.FeatureSparse | npureg.FeatureMX | npureg.FeatureTiming | npureg.FeatureAddq | npureg.FeatureArguments | npureg.FeatureMismatch},
		{"ARRAY_DIM", npureg.ArrayDim, 32<<16 | 32},
		{"SPAD_SIZE", npureg.SpadSize, 1 << 20},
		{"ACC_SIZE", npureg.AccSize, 512 << 10},
		{"QUEUE_PARAM", npureg.QueueParam, 1024<<16 | 8},
		{"CONTEXT_PARAM", npureg.ContextParam, 64},
		{"DRAM_SIZE_LO", npureg.DRAMSizeLo, 1 << 20},
		{"DRAM_SIZE_HI", npureg.DRAMSizeHi, 0},
		{"ENGINE_PARAM", npureg.EngineParam, 0x101},
		{"DOORBELL_OFFSET", npureg.DoorbellOffset, 0x80000},
		{"DOORBELL_STRIDE", npureg.DoorbellParam, 0x1000},
		{"VECTOR_COUNT", npureg.VectorCount, 16},
		{"BOOT_STATUS", npureg.BootStatus, npureg.BootWaiting},
		{"FW_VERSION", npureg.FWVersion, 0},
		{"IRQ_STATUS", npureg.IRQStatus, 0},
		{"FAULT_STATUS", npureg.FaultStatus, 0},
		{"unclaimed", 0xffc, 0xffffffff},
		{"unclaimed, second page", 0x1000, 0xffffffff},
		{"doorbell", devtest.Doorbell(1), 0},
		{"doorbell of a queue that does not exist", devtest.Doorbell(9), 0xffffffff},
	} {
		if got := h.Read32(tt.off); got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, got, tt.want)
		}
	}
}

func TestBoot(t *testing.T) {
	devtest.NeedsFunction(t, "boot registers")
	good := firmware.Image()
	corrupt := func(off int) []byte {
		b := bytes.Clone(good)
		b[off] ^= 1
		return b
	}
	for _, tt := range []struct {
		name  string
		image []byte
		want  uint32
	}{
		{"good", good, npureg.BootReady},
		{"magic", corrupt(0), npureg.BootFailed | npureg.BootErrMagic<<8},
		{"header", corrupt(0x20), npureg.BootFailed | npureg.BootErrHeaderCRC<<8},
		{"payload", corrupt(len(good) - 1), npureg.BootFailed | npureg.BootErrPayloadCRC<<8},
		{"cut", good[:len(good)-4], npureg.BootFailed | npureg.BootErrSize<<8},
		{"empty", good[:0:0], npureg.BootFailed | npureg.BootErrSize<<8},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := devtest.New(t, config())
			addr := h.Put(append(bytes.Clone(tt.image), 0))
			if got := h.BootAt(addr, len(tt.image)); got != tt.want {
				t.Fatalf("BOOT_STATUS %#x, want %#x", got, tt.want)
			}
			if !h.Interrupted(0, devtest.Timeout) || h.Read32(npureg.IRQStatus)&npureg.IRQBoot == 0 {
				t.Error("no BOOT interrupt")
			}
			status := uint32(npureg.DeviceStatusFailed)
			if tt.want == npureg.BootReady {
				status = npureg.DeviceStatusReady
			}
			if got := h.Read32(npureg.DeviceStatus); got != status {
				t.Errorf("DEVICE_STATUS %#x, want %#x", got, status)
			}
			if tt.want == npureg.BootReady {
				return
			}
			// A good image boots afterwards, without a reset.
			prepare(h)
			if c := h.Do(1, nop()); c.Status != npureg.StatusSuccess {
				t.Errorf("NOP after a refused image: %v", c)
			}
		})
	}
}

func TestBootFetchFaults(t *testing.T) {
	devtest.NeedsFunction(t, "boot registers")
	h := devtest.New(t, config())
	if got, want := h.BootAt(0xdead_0000, 4096), uint32(npureg.BootFailed|npureg.BootErrFetch<<8); got != want {
		t.Errorf("image that is not mapped: BOOT_STATUS %#x, want %#x", got, want)
	}
	h.SetCommand(0x2) // no bus master
	if got, want := h.Boot(firmware.Image()), uint32(npureg.BootFailed|npureg.BootErrFetch<<8); got != want {
		t.Errorf("without bus mastering: BOOT_STATUS %#x, want %#x", got, want)
	}
	h.SetCommand(0x6)
	prepare(h)
}

// TestBootByMessages boots from memory that has no descriptor: every byte
// crosses the socket.
func TestBootByMessages(t *testing.T) {
	devtest.NeedsFunction(t, "boot registers")
	devtest.NeedsBus(t)
	h := devtest.New(t, config())
	img := firmware.Image()
	if err := h.Msg.WriteAt(img, 0); err != nil {
		t.Fatal(err)
	}
	if got := h.BootAt(devtest.MsgBase, len(img)); got != npureg.BootReady {
		t.Errorf("BOOT_STATUS %#x, want READY", got)
	}
}

func TestIdentifyAndLogPages(t *testing.T) {
	h, _ := ready(t)
	at, p := h.Alloc(256)
	e := devtest.Entry{npureg.AdminIdentify}
	le.PutUint64(e[8:], at)
	le.PutUint32(e[0x10:], 256)
	if c := h.Admin(e); c.Status != npureg.StatusSuccess {
		t.Fatalf("IDENTIFY: %v", c)
	}
	for _, tt := range []struct {
		name string
		off  int
		want uint32
	}{
		{"size", 0, 256}, {"interface", 4, 0x00010002}, {"build", 8, h.Build()}, {"arch", 12, 0x00010006},
		{"contexts", 16, 64}, {"queues", 20, 8}, {"entries", 24, 1024},
	} {
		if got := le.Uint32(p[tt.off:]); got != tt.want {
			t.Errorf("IDENTIFY %s: %#x, want %#x", tt.name, got, tt.want)
		}
	}
	for range 3 {
		h.Do(1, nop())
	}
	h.Do(1, devtest.Entry{0xee})
	counters := h.Log(2, 8*npureg.CounterCount)
	if got := le.Uint64(counters[8*npureg.CounterCommands:]); got != 4 {
		t.Errorf("commands %d, want 4", got)
	}
	if got := le.Uint64(counters[8*npureg.CounterErrors:]); got != 1 {
		t.Errorf("errors %d, want 1", got)
	}
	if got := le.Uint64(counters[8*npureg.CounterAdmin:]); got != 3 { // IDENTIFY, CREATE_CONTEXT, CREATE_QUEUE
		t.Errorf("admin commands %d, want 3", got)
	}
	if status := h.Log(1, 32); len(status) != 32 || le.Uint32(status[0x10:]) != 1 || le.Uint32(status[0x14:]) != 1 {
		t.Errorf("status page % x: want one context and one queue", status)
	}
}

func TestInterruptFollowsCompletion(t *testing.T) {
	h, _ := ready(t)
	for range 20 { // wraps the rings twice
		if c := h.Do(1, nop()); c.Status != npureg.StatusSuccess || c.Reserved != [2]uint64{} {
			t.Fatalf("NOP: %v, reserved %x", c, c.Reserved)
		}
		if !h.Interrupted(1, devtest.Timeout) {
			t.Fatal("no interrupt on vector 1")
		}
	}
}

// copyEntry is COPY of nx bytes (§4.10).
func copyEntry(srcSpace, dstSpace uint8, src, dst uint64, nx uint32, ny, nz uint16, strides ...uint64) devtest.Entry {
	e := devtest.Entry{npureg.CmdCopy}
	e[4] = srcSpace | dstSpace<<4
	le.PutUint64(e[0x08:], src)
	le.PutUint64(e[0x10:], dst)
	le.PutUint32(e[0x18:], nx)
	le.PutUint16(e[0x1c:], ny)
	le.PutUint16(e[0x1e:], nz)
	for i, s := range strides {
		le.PutUint64(e[0x20+8*i:], s)
	}
	return e
}

func TestCopy(t *testing.T) {
	h, _ := ready(t)
	const n = 3 << 16 // more than one chunk
	src, s := h.Alloc(n)
	dst, d := h.Alloc(n)
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range s {
		s[i] = byte(rng.Uint32())
	}
	if c := h.Do(1, copyEntry(0, 1, src, 0x100, n, 1, 1)); c.Status != 0 || c.Info != n {
		t.Fatalf("guest → device: %v", c)
	}
	if c := h.Do(1, copyEntry(1, 0, 0x100, dst, n, 1, 1)); c.Status != 0 || c.Info != n {
		t.Fatalf("device → guest: %v", c)
	}
	if !bytes.Equal(s, d) {
		t.Error("bytes changed on the way")
	}
	// A 3-D gather: 2 planes of 3 rows of 5 bytes, packed.
	if c := h.Do(1, copyEntry(0, 0, src, dst, 5, 3, 2, 100, 1000, 5, 15)); c.Status != 0 || c.Info != 30 {
		t.Fatalf("3-D: %v", c)
	}
	var want []byte
	for z := range 2 {
		for y := range 3 {
			want = append(want, s[z*1000+y*100:][:5]...)
		}
	}
	if !bytes.Equal(want, d[:30]) {
		t.Errorf("3-D: got % x, want % x", d[:30], want)
	}
	if h.MsgMem == nil {
		return // vhost-user knows no memory without a descriptor
	}
	devtest.NeedsBus(t)
	// The same through memory that is only reached by messages.
	if c := h.Do(1, copyEntry(0, 0, src, devtest.MsgBase+8, n, 1, 1)); c.Status != 0 {
		t.Fatalf("guest → messages: %v", c)
	}
	if !bytes.Equal(h.MsgMem[8:8+n], s) {
		t.Error("bytes changed on the way through messages")
	}
}

// mistake is a command that a user gets wrong, and what it completes with.
type mistake struct {
	name string
	e    devtest.Entry
	want npureg.Status
	info uint64
	res  uint32
}

// runMistakes runs each, and behind it a program of ISA 1.0, which must go well.
func runMistakes(t *testing.T, h *devtest.Host, rows []mistake) {
	t.Helper()
	for _, tt := range rows {
		if c := h.Do(1, tt.e); c.Status != tt.want || c.Info != tt.info || c.Result != tt.res {
			t.Errorf("%s: %v; want %v result %d info %#x", tt.name, c, tt.want, tt.res, tt.info)
		}
		if c := h.Do(1, h.Launch(program(t, "halt\n"))); c.Status != npureg.StatusSuccess {
			t.Errorf("ISA 1.0 after %s: %v", tt.name, c)
		}
	}
}

// commandMistakes are wrong commands; good is LAUNCH of a program that only halts.
func commandMistakes(t *testing.T, h *devtest.Host, good devtest.Entry) []mistake {
	t.Helper()
	launch := func(change func(e *devtest.Entry)) devtest.Entry {
		e := good
		change(&e)
		return e
	}
	buf, _ := h.Alloc(4096)
	bind := func(b devtest.Binding) devtest.Entry { return h.Launch(program(t, ".bindings 1\nhalt\n"), b) }
	table := func(off int, v byte) devtest.Entry { // one good binding, but for a byte
		b := make([]byte, npureg.BindingSize)
		le.PutUint64(b, buf)
		b[8], b[0x10], b[off] = 1, 1, v
		e := bind(devtest.Binding{Addr: buf, Size: 1})
		le.PutUint64(e[0x10:], h.Put(b))
		return e
	}
	return []mistake{
		{"opcode 0", devtest.Entry{}, npureg.StatusInvalidOpcode, 0, 0},
		{"opcode of the admin queue", devtest.Entry{npureg.AdminCreateContext}, npureg.StatusInvalidOpcode, npureg.AdminCreateContext, 0},
		{"NOP with flags", devtest.Entry{npureg.CmdNop, 1}, npureg.StatusInvalidField, 1, 0},
		{"NOP with a reserved byte", devtest.Entry{npureg.CmdNop, 63: 1}, npureg.StatusInvalidField, 63, 0},
		{"COPY of nothing", copyEntry(0, 1, buf, 0, 0, 1, 1), npureg.StatusInvalidField, 0x18, 0},
		{"COPY of no rows", copyEntry(0, 1, buf, 0, 1, 0, 1), npureg.StatusInvalidField, 0x1c, 0},
		{"COPY of no planes", copyEntry(0, 1, buf, 0, 1, 1, 0), npureg.StatusInvalidField, 0x1e, 0},
		{"COPY from a space that is not there", copyEntry(2, 1, buf, 0, 1, 1, 1), npureg.StatusInvalidField, 4, 0},
		{"COPY to a space that is not there", copyEntry(0, 15, buf, 0, 1, 1, 1), npureg.StatusInvalidField, 4, 0},
		{"COPY past 2^64", copyEntry(0, 1, ^uint64(0), 0, 2, 1, 1), npureg.StatusInvalidField, 8, 0},
		{"COPY whose strides pass 2^64", copyEntry(0, 1, 0, 0, 1, 3, 1, 1<<63), npureg.StatusInvalidField, 8, 0},
		{"COPY to where strides pass 2^64", copyEntry(0, 1, buf, 8, 1, 1, 3, 0, 0, 0, 1<<63), npureg.StatusInvalidField, 0x10, 0},
		{"COPY from an address that is not mapped", copyEntry(0, 1, 0x6660_0000, 0, 16, 1, 1), npureg.StatusBusFault, 0x6660_0000, 0},
		{"COPY whose third row leaves device memory", copyEntry(0, 1, buf, 1<<20-32, 16, 4, 1, 0, 0, 16), npureg.StatusDeviceFault, 1 << 20, 2},
		{"COPY out of device memory", copyEntry(1, 0, 1<<40, buf, 1, 1, 1), npureg.StatusDeviceFault, 1 << 40, 0},
		{"LAUNCH, program not aligned", launch(func(e *devtest.Entry) { e[8] |= 32 }), npureg.StatusInvalidField, 8, 0},
		{"LAUNCH, program past 2^64", launch(func(e *devtest.Entry) { le.PutUint64(e[8:], ^uint64(63)) }), npureg.StatusInvalidField, 8, 0},
		{"LAUNCH, table past 2^64", launch(func(e *devtest.Entry) { le.PutUint64(e[0x10:], ^uint64(31)); e[0x18] = 2 }), npureg.StatusInvalidField, 0x10, 0},
		{"LAUNCH, table without count", launch(func(e *devtest.Entry) { e[0x11] = 1 }), npureg.StatusInvalidField, 0x10, 0},
		{"LAUNCH, table not aligned", launch(func(e *devtest.Entry) { e[0x10], e[0x18] = 16, 1 }), npureg.StatusInvalidField, 0x10, 0},
		{"LAUNCH, too many bindings", launch(func(e *devtest.Entry) { e[0x18] = 65 }), npureg.StatusInvalidField, 0x18, 0},
		{"LAUNCH, space", launch(func(e *devtest.Entry) { e[0x1c] = 3 }), npureg.StatusInvalidField, 0x1c, 0},
		{"LAUNCH, reserved byte of spaces", launch(func(e *devtest.Entry) { e[0x1d] = 1 }), npureg.StatusInvalidField, 0x1d, 0},
		{"LAUNCH, no size", launch(func(e *devtest.Entry) { le.PutUint32(e[0x20:], 0) }), npureg.StatusInvalidField, 0x20, 0},
		{"LAUNCH, huge size", launch(func(e *devtest.Entry) { le.PutUint32(e[0x20:], 1<<31) }), npureg.StatusInvalidField, 0x20, 0},
		{"LAUNCH, reserved tail", launch(func(e *devtest.Entry) { e[63] = 1 }), npureg.StatusInvalidField, 63, 0},
		{"LAUNCH, program not mapped", launch(func(e *devtest.Entry) { le.PutUint64(e[8:], 0x6670_0000) }), npureg.StatusBusFault, 0x6670_0000, 0},
		{"LAUNCH, table not mapped", launch(func(e *devtest.Entry) { le.PutUint64(e[0x10:], 0x6680_0000); e[0x18] = 1 }), npureg.StatusBusFault, 0x6680_0000, 0},
		{"binding of size 0", bind(devtest.Binding{Addr: buf, Read: true}), npureg.StatusInvalidBinding, 0, 0},
		{"binding past 2^64", bind(devtest.Binding{Addr: ^uint64(0), Size: 2}), npureg.StatusInvalidBinding, 0, 0},
		{"binding with a reserved flag", table(0x10, 5), npureg.StatusInvalidBinding, 0, 0},
		{"binding with a high reserved flag", table(0x13, 0x80), npureg.StatusInvalidBinding, 0, 0},
		{"binding with a reserved byte", table(0x14, 1), npureg.StatusInvalidBinding, 0, 0},
		{"binding whose last byte is not 0", table(0x1f, 0x80), npureg.StatusInvalidBinding, 0, 0},
		{"binding in no space", bind(devtest.Binding{Addr: buf, Size: 1, Space: 7}), npureg.StatusInvalidBinding, 0, 0},
		{"not a program", h.Launch(make([]byte, 128)), npureg.StatusBadProgram, 0, 0},
		{"size that is not the program's", launch(func(e *devtest.Entry) { e[0x20] += 32 }), npureg.StatusBadProgram, 0x10, 0},
		{"program for another array", h.Launch(program(t, ".array 16, 16\nhalt\n")), npureg.StatusConfigMismatch, 0x18, 0},
		{"more bindings than given", h.Launch(program(t, ".bindings 2\nhalt\n"), devtest.Binding{Addr: buf, Size: 1}), npureg.StatusBadProgram, 0x24, 0},
		{"store to a read-only binding", h.Launch(program(t, ".spad 64\n.bindings 1\nfill local=0 nx=1\nstore binding=0 local=0 nx=1\nhalt\n"),
			devtest.Binding{Addr: buf, Size: 1, Read: true}), npureg.StatusBindingAccess, 0, 1},
		{"load outside a binding", h.Launch(program(t, ".spad 64\n.bindings 1\nload binding=0 offset=60 local=0 nx=8\nhalt\n"),
			devtest.Binding{Addr: buf, Size: 64, Read: true}), npureg.StatusBindingBounds, 64, 0},
		{"binding that is not mapped", h.Launch(program(t, ".spad 64\n.bindings 1\nload binding=0 local=0 nx=8\nhalt\n"),
			devtest.Binding{Addr: 0x6690_0000, Size: 64, Read: true}), npureg.StatusMemoryFault, 0x6690_0000, 0},
		{"deadlock", h.Launch(program(t, "sync.load wait=3\nhalt\n")), npureg.StatusDeadlock, 3, 0},
	}
}

func TestUserCommandMistakes(t *testing.T) {
	h, _ := ready(t)
	good := h.Launch(program(t, "halt\n"))
	for _, tt := range commandMistakes(t, h, good) {
		t.Run(tt.name, func(t *testing.T) {
			h.T = t
			c := h.Do(1, tt.e)
			if c.Status != tt.want || c.Info != tt.info || c.Result != tt.res {
				t.Errorf("%v; want %v result %d info %#x", c, tt.want, tt.res, tt.info)
			}
			if c := h.Do(1, good); c.Status != npureg.StatusSuccess {
				t.Errorf("next command: %v", c)
			}
		})
	}
	if h.Faulted() {
		t.Error("command errors left a fault record")
	}
}

// TestDigits runs the demo's program through rings, DMA and interrupts, for
// every held-out image.
func TestDigits(t *testing.T) {
	h, _ := ready(t)
	read := func(name string) []byte {
		b, err := os.ReadFile("../../examples/digits/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	p, err := isa.Assemble("digits.npuasm", read("digits.npuasm"))
	if err != nil {
		t.Fatal(err)
	}
	const header, imageSize, record = 64, 64, 3904
	weights, images, golden := read("weights.bin")[header:], read("images.bin"), read("golden.bin")[header:]
	n := len(golden) / record
	h.WriteDRAM(0, weights)
	in := h.Put(images[header : header+n*imageSize])
	out, got := h.Alloc(n * record)
	free := out + uint64(n*record+0xfff)&^0xfff
	for i := range got {
		got[i] = 0xa5
	}
	for i := range n {
		c := h.Do(1, h.Launch(p.Image(),
			devtest.Binding{Addr: 0, Size: uint64(len(weights)), Read: true, Space: 1},
			devtest.Binding{Addr: in + uint64(i)*imageSize, Size: imageSize, Read: true},
			devtest.Binding{Addr: out + uint64(i)*record, Size: record, Write: true}))
		if c.Status != npureg.StatusSuccess {
			t.Fatalf("image %d: %v", i, c)
		}
		if !bytes.Equal(got[i*record:(i+1)*record], golden[i*record:(i+1)*record]) {
			t.Fatalf("image %d differs from the golden record", i)
		}
		h.Rewind(free) // guest memory of the test is small
	}
	if want := uint64(n) * 25600; h.Dev.Counter(npureg.CounterMACs) != want {
		t.Errorf("%d MACs counted, want %d", h.Dev.Counter(npureg.CounterMACs), want)
	}
}

func TestRingMistakes(t *testing.T) {
	devtest.NeedsFunction(t, "rings in guest memory")
	for _, tt := range []struct {
		name   string
		sq, cq uint64
		ring   uint32
		code   npureg.Status
		source uint32
		index  uint32
		addr   uint64
	}{
		{"submission ring not mapped", 0xbad0_0000, 0, 1, npureg.StatusBusFault, npureg.FaultFetch, 0, 0xbad0_0000},
		{"submission ring at the end of the world", 0xffff_ffff_ffff_f000, 0, 1, npureg.StatusBusFault, npureg.FaultFetch, 0, 0xffff_ffff_ffff_f000},
		{"completion ring not mapped", 0, 0xbad0_0000, 1, npureg.StatusBusFault, npureg.FaultPost, 0, 0xbad0_0000},
		{"tail outside the ring", 0, 0, 4, npureg.StatusInvalidDoorbell, npureg.FaultDoorbell, 4, 0},
		{"tail of nonsense", 0, 0, 0xcafebabe, npureg.StatusInvalidDoorbell, npureg.FaultDoorbell, 0xffff, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, context := ready(t)
			sq, _ := h.Alloc(4 * npureg.SQEntrySize)
			cq, _ := h.Alloc(4 * npureg.CQEntrySize)
			if tt.sq == 0 {
				tt.sq = sq
			}
			if tt.cq == 0 {
				tt.cq = cq
			}
			if c := h.Admin(devtest.CreateQueueEntry(2, context, 2, tt.sq, tt.cq, 4, 4)); c.Status != npureg.StatusSuccess {
				t.Fatalf("CREATE_QUEUE: %v", c)
			}
			h.Write32(devtest.Doorbell(2)+npureg.DoorbellSQTail, tt.ring)
			for end := time.Now().Add(devtest.Timeout); h.Read32(npureg.FaultStatus)&npureg.FaultValid == 0; {
				if time.Now().After(end) {
					t.Fatal("no fault record")
				}
			}
			if !h.Interrupted(0, devtest.Timeout) || h.Read32(npureg.IRQStatus)&npureg.IRQFault == 0 {
				t.Error("no FAULT interrupt")
			}
			if got, want := h.Read32(npureg.FaultStatus)>>16, uint32(tt.code); got != want {
				t.Errorf("code %#x, want %v", got, tt.code)
			}
			if got, want := h.Read32(npureg.FaultInfo), 2|tt.source<<8|tt.index<<16; got != want {
				t.Errorf("FAULT_INFO %#x, want %#x", got, want)
			}
			if got := uint64(h.Read32(npureg.FaultAddrLo)) | uint64(h.Read32(npureg.FaultAddrHi))<<32; got != tt.addr {
				t.Errorf("FAULT_ADDR %#x, want %#x", got, tt.addr)
			}
			h.Write32(npureg.FaultStatus, npureg.FaultValid|npureg.FaultOverflow)
			if got := h.Read32(npureg.FaultStatus) & (npureg.FaultValid | npureg.FaultOverflow); got != 0 {
				t.Errorf("record not cleared: %#x", got)
			}
			// The other queue goes on, and this one comes back.
			if c := h.Do(1, nop()); c.Status != npureg.StatusSuccess {
				t.Errorf("other queue: %v", c)
			}
			h.DestroyQueue(2)
			h.CreateQueue(2, context, 2, 4)
			if c := h.Do(2, nop()); c.Status != npureg.StatusSuccess {
				t.Errorf("queue after it was made again: %v", c)
			}
		})
	}
}

func TestDoorbellOfADisabledQueue(t *testing.T) {
	devtest.NeedsFunction(t, "doorbells")
	h, _ := ready(t)
	h.Write32(devtest.Doorbell(5), 1)
	if got, want := h.Read32(npureg.FaultStatus), uint32(npureg.StatusQueueDisabled)<<16|npureg.FaultValid; got != want {
		t.Errorf("FAULT_STATUS %#x, want %#x", got, want)
	}
	h.Write32(devtest.Doorbell(6), 1)
	if h.Read32(npureg.FaultStatus)&npureg.FaultOverflow == 0 {
		t.Error("second fault did not set OVERFLOW")
	}
	if got := h.Read32(npureg.FaultInfo) & 0xff; got != 5 {
		t.Errorf("record names queue %d, want the first, 5", got)
	}
}

func TestAdminDoorbellMistakes(t *testing.T) {
	devtest.NeedsFunction(t, "doorbells")
	for _, tt := range []struct {
		name  string
		off   uint32
		v     uint32
		boot  bool
		code  npureg.Status
		index uint32
	}{
		{"before READY", npureg.DoorbellSQTail, 1, false, npureg.StatusQueueDisabled, 1},
		{"before READY, of nonsense", npureg.DoorbellSQTail, 0x1_0002, false, npureg.StatusQueueDisabled, 0xffff},
		{"tail outside the ring", npureg.DoorbellSQTail, 16, true, npureg.StatusInvalidDoorbell, 16},
		{"tail of nonsense", npureg.DoorbellSQTail, 0x1_0002, true, npureg.StatusInvalidDoorbell, 0xffff},
		{"head past the tail", npureg.DoorbellCQHead, 9, true, npureg.StatusInvalidDoorbell, 9},
		{"head of nonsense", npureg.DoorbellCQHead, 0xffff_0002, true, npureg.StatusInvalidDoorbell, 0xffff},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := devtest.New(t, config())
			if tt.boot {
				prepare(h)
			}
			h.Write32(devtest.Doorbell(0)+tt.off, tt.v)
			for end := time.Now().Add(devtest.Timeout); h.Read32(npureg.FaultStatus)&npureg.FaultValid == 0; {
				if time.Now().After(end) {
					t.Fatal("no fault record")
				}
			}
			if got, want := h.Read32(npureg.FaultStatus)>>16, uint32(tt.code); got != want {
				t.Errorf("code %#x, want %v", got, tt.code)
			}
			if got, want := h.Read32(npureg.FaultInfo), tt.index<<16; got != want {
				t.Errorf("FAULT_INFO %#x, want %#x", got, want)
			}
			if !tt.boot {
				return
			}
			if c := h.Do(1, nop()); c.Status != npureg.StatusSuccess {
				t.Errorf("user queue: %v", c)
			}
			h.StartAdmin(16)
			h.CreateContext()
		})
	}
}

func TestRegisterMistakes(t *testing.T) {
	devtest.NeedsFunction(t, "registers")
	h, _ := ready(t)
	c := h.Client
	for _, n := range []int{1, 2, 3, 5, 16} {
		if n > 2 && devtest.InUse() == devtest.GoKVM {
			break // a processor has no such accesses
		}
		p := bytes.Repeat([]byte{0}, n)
		if err := c.ReadRegion(vfiouser.RegionBAR0, 0, p); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p, bytes.Repeat([]byte{0xff}, n)) {
			t.Errorf("%d-byte read: % x, want all-ones", n, p)
		}
	}
	var p [8]byte
	if err := c.ReadRegion(vfiouser.RegionBAR0, 0, p[:]); err != nil {
		t.Fatal(err)
	}
	if le.Uint64(p[:]) != 0x0001_0006_4555_504e {
		t.Errorf("8-byte read of ID and ARCH_VERSION: %#x", le.Uint64(p[:]))
	}
	if err := c.WriteRegion(vfiouser.RegionBAR0, npureg.IRQEnable+1, []byte{0xff, 0xff}); err != nil {
		t.Fatal(err)
	}
	h.Write32(npureg.ID, 0)
	if got := h.Read32(npureg.ID); got != npureg.Magic {
		t.Errorf("ID is writable: %#x", got)
	}
	ids := map[string]bool{}
	for _, f := range h.Dev.Findings() {
		ids[f.ID] = true
	}
	if !ids["bar0-width"] || !ids["bar0-read-only"] {
		t.Errorf("findings %v: want bar0-width and bar0-read-only", ids)
	}
}

// resets are the ways to reset the registers (§9.4).
var resets = []struct {
	name string
	do   func(h *devtest.Host)
}{
	{"soft reset", func(h *devtest.Host) { h.Write32(npureg.DeviceControl, npureg.DeviceControlReset) }},
	{"function-level reset", func(h *devtest.Host) { flr(h); h.SetCommand(6) }},
	{"conventional reset", func(h *devtest.Host) {
		devtest.NeedsBus(h.T)
		if err := h.Client.Reset(); err != nil {
			h.T.Fatal(err)
		}
		h.SetCommand(6)
	}},
}

// capability returns the offset of a capability in config space.
func capability(h *devtest.Host, id byte) int {
	h.T.Helper()
	cfg := make([]byte, 256)
	if err := h.Client.ReadRegion(vfiouser.RegionConfig, 0, cfg); err != nil {
		h.T.Fatal(err)
	}
	at := int(cfg[0x34])
	for at != 0 && cfg[at] != id {
		at = int(cfg[at+1])
	}
	if at == 0 {
		h.T.Fatalf("no capability %#x", id)
	}
	return at
}

// flr sets Initiate Function Level Reset in the PCI Express capability.
func flr(h *devtest.Host) {
	h.T.Helper()
	at := uint64(capability(h, 0x10))
	var p [6]byte // Device Capabilities, Device Control
	if err := h.Client.ReadRegion(vfiouser.RegionConfig, at+4, p[:]); err != nil {
		h.T.Fatal(err)
	}
	if le.Uint32(p[:])&(1<<28) == 0 {
		h.T.Fatal("no function-level reset")
	}
	if err := h.Client.WriteRegion(vfiouser.RegionConfig, at+8, le.AppendUint16(nil, le.Uint16(p[4:])|1<<15)); err != nil {
		h.T.Fatal(err)
	}
}

func TestResets(t *testing.T) {
	devtest.NeedsFunction(t, "resets by register, function and bus")
	for _, r := range resets {
		t.Run(r.name, func(t *testing.T) {
			h, _ := ready(t)
			h.WriteDRAM(0x1000, []byte("kept"))
			h.Do(1, nop())
			for range 3 {
				r.do(h)
				h.AwaitReset()
				if got := h.Read32(npureg.BootStatus); got != npureg.BootWaiting {
					t.Fatalf("BOOT_STATUS %#x, want WAITING", got)
				}
				for _, off := range []uint32{npureg.IRQEnable, npureg.ASQBaseLo, npureg.AQControl, npureg.FWVersion, npureg.ImageSize} {
					if got := h.Read32(off); got != 0 {
						t.Errorf("register %#x is %#x after reset", off, got)
					}
				}
				prepare(h)
				if c := h.Do(1, nop()); c.Status != npureg.StatusSuccess {
					t.Fatalf("NOP after reset: %v", c)
				}
				if got := le.Uint64(h.Log(2, 8*npureg.CounterCount)[8*npureg.CounterCommands:]); got != 1 {
					t.Errorf("commands %d after reset and one NOP", got)
				}
				at, p := h.Alloc(4)
				if c := h.Do(1, copyEntry(1, 0, 0x1000, at, 4, 1, 1)); c.Status != 0 || string(p) != "kept" {
					t.Errorf("device memory %q after reset, want %q (%v)", p, "kept", c)
				}
			}
		})
	}
}

// TestResetInFlight resets while a long copy runs: nothing completes, nothing is
// written afterwards, and the device is usable.
func TestResetInFlight(t *testing.T) {
	devtest.NeedsFunction(t, "resets by register, function and bus")
	for _, r := range resets {
		t.Run(r.name, func(t *testing.T) {
			h, _ := ready(t)
			src, _ := h.Alloc(4096)
			dst, d := h.Alloc(4096)
			h.Submit(1, copyEntry(0, 0, src, dst, 4096, 65535, 65535)) // 16 TiB, hours
			time.Sleep(5 * time.Millisecond)
			r.do(h)
			start := time.Now()
			h.AwaitReset()
			if took := time.Since(start); took > time.Second {
				t.Errorf("the reset took %v (§9.4 promises 100 ms; a busy machine is slower)", took)
			}
			for i := range d {
				d[i] = 0x5a
			}
			time.Sleep(5 * time.Millisecond)
			if !bytes.Equal(d, bytes.Repeat([]byte{0x5a}, len(d))) {
				t.Error("memory was written after the reset")
			}
			prepare(h)
			if c := h.Do(1, nop()); c.Status != npureg.StatusSuccess {
				t.Errorf("NOP after reset: %v", c)
			}
		})
	}
}

func TestDestroyQueueInFlight(t *testing.T) {
	h, context := ready(t)
	src, _ := h.Alloc(4096)
	h.CreateQueue(2, context, 2, 4)
	id := h.Submit(2, copyEntry(0, 0, src, src, 4096, 65535, 65535))
	time.Sleep(5 * time.Millisecond)
	e := devtest.Entry{npureg.AdminDestroyQueue, 8: 2}
	if c := h.Admin(e); c.Status != npureg.StatusSuccess {
		t.Fatalf("DESTROY_QUEUE: %v", c)
	}
	if c := h.Wait(2); c.ID != id || c.Status != npureg.StatusAborted {
		t.Errorf("command in flight: %v, want ABORTED", c)
	}
}

func TestPowerStateClosesTheDevice(t *testing.T) {
	devtest.NeedsFunction(t, "power states")
	h, _ := ready(t)
	h.SetCommand(0)
	if got := h.Read32(npureg.ID); got != ^uint32(0) {
		t.Errorf("ID %#x with memory space disabled, want all-ones", got)
	}
	h.Write32(npureg.DeviceControl, npureg.DeviceControlReset)
	h.SetCommand(6)
	if got := h.Read32(npureg.BootStatus); got != npureg.BootReady {
		t.Errorf("a write to a closed BAR took effect: BOOT_STATUS %#x", got)
	}
	if c := h.Do(1, nop()); c.Status != npureg.StatusSuccess {
		t.Errorf("NOP after the BARs were opened again: %v", c)
	}
}

// TestKilledClient counts what is left of clients that die in the middle of
// their work, and shows that the next one is served.
func TestKilledClient(t *testing.T) {
	devtest.NeedsFunction(t, "config space")
	cfg := config()
	h := devtest.New(t, cfg)
	prepare(h)
	round := func() {
		src, _ := h.Alloc(4096)
		h.Submit(1, copyEntry(0, 0, src, src+1, 4000, 65535, 65535))
		time.Sleep(time.Millisecond)
		h.Client.Close() // as a kill: the socket closes, nothing is undone
		h.Attach()
		flr(h)
		h.SetCommand(6)
		prepare(h)
		if c := h.Do(1, nop()); c.Status != npureg.StatusSuccess {
			t.Fatalf("next client: %v", c)
		}
	}
	round()
	h.Release()
	before := resources(t)
	for range 20 {
		round()
		h.Release()
	}
	if diff := cmp.Diff(before, resources(t)); diff != "" {
		t.Errorf("20 killed clients later (-before +after):\n%s", diff)
	}
}

// resources counts the descriptors and memfd mappings of this process.
func resources(t *testing.T) map[string]int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return map[string]int{"descriptors": len(fds), "memfd mappings": strings.Count(string(maps), "/memfd:")}
}

// TestTwoDevices runs two devices in one process, side by side.
func TestTwoDevices(t *testing.T) {
	for i := range 2 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			h, _ := ready(t)
			for range 50 {
				if c := h.Do(1, nop()); c.Status != npureg.StatusSuccess {
					t.Fatal(c)
				}
			}
		})
	}
}
