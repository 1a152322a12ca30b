// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/firmware"
	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
	"npuemu/vdev"
	"npuemu/vdev/vfiouser"
)

// shadowed is a host with firmware running, one context, and queue 1 of eight entries
// with a shadow line.
func shadowed(t *testing.T, cfg vdev.Config) (h *devtest.Host, context uint32, l *devtest.Line) {
	t.Helper()
	h = devtest.New(t, cfg)
	h.Bring(firmware.Image())
	l = h.NewLine(64)
	context = h.CreateContext()
	h.CreateShadowQueue(1, context, 1, 8, l)
	return h, context, l
}

// within fails the test if ok does not come true.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(devtest.Timeout); !ok(); time.Sleep(20 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatal("never: ", what)
		}
	}
}

func asleep(t *testing.T, l *devtest.Line) {
	t.Helper()
	within(t, "RING asks for doorbells", func() bool { return l.Ring() == npureg.RingSQTail })
}

// succeed executes a NOP on queue 1.
func succeed(h *devtest.Host) {
	h.T.Helper()
	if c := h.Do(1, nop()); c.Status != npureg.StatusSuccess {
		h.T.Errorf("NOP: %v", c)
	}
}

func TestShadowDoorbells(t *testing.T) {
	devtest.NeedsFunction(t, "doorbells")
	h, _, l := shadowed(t, config())
	want := [16]uint32{npureg.ShadowRing / 4: npureg.RingSQTail | npureg.RingCQHead}
	if got := l.Words(); got != want {
		t.Errorf("line after CREATE_QUEUE: %x, want %x", got, want)
	}
	const n = 500 // wraps the rings often
	for range n {
		succeed(h)
	}
	asleep(t, l)
	if w := l.Words(); w[0] != n%8 || w[1] != n%8 || !slices.Equal(w[3:], want[3:]) {
		t.Errorf("line after %d commands: %x", n, w)
	}
	counters := h.Log(2, 8*npureg.CounterCount)
	rung, taken := le.Uint64(counters[8*npureg.CounterDoorbells:]), le.Uint64(counters[8*npureg.CounterShadow:])
	// An index may be overtaken by the next, and the admin queue rings for itself.
	if taken < n || taken > 2*n {
		t.Errorf("%d indices taken from the line for %d commands", taken, n)
	}
	t.Logf("%d commands, %d doorbells, %d indices from the line", n, rung, taken)
	if f := h.Dev.Findings(); len(f) != 0 {
		t.Errorf("findings %v", f)
	}
}

// TestShadowIdle: a device that has nothing to do uses no processor.
func TestShadowIdle(t *testing.T) {
	devtest.NeedsFunction(t, "doorbells")
	devtest.NeedsBus(t) // a guest's processor is never idle
	if testing.Short() {
		t.Skip("takes a second")
	}
	h, _, l := shadowed(t, config())
	succeed(h)
	asleep(t, l)
	used := func() time.Duration {
		var r unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
			t.Fatal(err)
		}
		return time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	start := used()
	time.Sleep(time.Second)
	if d := used() - start; d > 50*time.Millisecond {
		t.Errorf("host and device, idle: %v of processor time in a second", d)
	}
}

// TestShadowSetup: what CREATE_QUEUE says of a line.
func TestShadowSetup(t *testing.T) {
	devtest.NeedsFunction(t, "doorbells")
	const readOnly, unmapped = 0x4000_0000, 0x5000_0000
	for _, tt := range []struct {
		name string
		arch string
		bus  bool // needs what a guest's processor cannot do
		off  int  // of a byte to set, besides the line's address
		line func(h *devtest.Host) uint64
		want npureg.Status
		info uint64
	}{
		{name: "no line", line: func(*devtest.Host) uint64 { return 0 }},
		{name: "good", line: func(h *devtest.Host) uint64 { return h.NewLine(0x40).Addr }},
		{name: "reached by messages", bus: true, line: func(*devtest.Host) uint64 { return devtest.MsgBase + 64 }},
		{name: "not aligned", line: func(h *devtest.Host) uint64 { return h.NewLine(0x20).Addr }, want: npureg.StatusInvalidField, info: 0x28},
		{name: "reserved bytes before it", arch: "1.1", off: 0x24, line: func(h *devtest.Host) uint64 { return h.NewLine(0).Addr }, want: npureg.StatusInvalidField, info: 0x24},
		{name: "reserved bytes behind it", arch: "1.1", off: 0x3f, line: func(h *devtest.Host) uint64 { return h.NewLine(0).Addr }, want: npureg.StatusInvalidField, info: 0x30},
		{name: "architecture 1.2, reserved bytes behind it", off: 0x3f, line: func(h *devtest.Host) uint64 { return h.NewLine(0).Addr }, want: npureg.StatusInvalidField, info: 0x3a},
		{name: "not mapped", line: func(*devtest.Host) uint64 { return unmapped }, want: npureg.StatusBusFault, info: unmapped},
		{name: "last of 2^64, not mapped", line: func(*devtest.Host) uint64 { return ^uint64(63) }, want: npureg.StatusBusFault, info: ^uint64(63)},
		{name: "read-only memory", bus: true, line: func(h *devtest.Host) uint64 {
			mustDo(h, h.Client.MapDMA(readOnly, 4096, iova.Read, memfd(h.T, 4096), 0))
			return readOnly
		}, want: npureg.StatusBusFault, info: readOnly},
		{name: "architecture 1.0", arch: "1.0", line: func(h *devtest.Host) uint64 { return h.NewLine(0).Addr }, want: npureg.StatusInvalidField, info: 0x24},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.bus {
				devtest.NeedsBus(t)
			}
			cfg := config()
			if tt.arch != "" {
				cfg.Arch = tt.arch
			}
			h := devtest.New(t, cfg)
			h.Bring(firmware.Image())
			c := h.CreateContext()
			rings, _ := h.Alloc(4096)
			e := devtest.ShadowQueueEntry(devtest.CreateQueueEntry(2, c, 1, rings, rings+2048, 8, 8), tt.line(h))
			if tt.off != 0 {
				e[tt.off] = 1
			}
			if got := h.Admin(e); got.Status != tt.want || got.Info != tt.info {
				t.Errorf("CREATE_QUEUE: %v, want %v info %#x", got, tt.want, tt.info)
			}
			h.CreateQueue(1, c, 1, 8)
			succeed(h)
		})
	}
}

func memfd(t testing.TB, size int64) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("line", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "line")
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestArchitecture10: a card that presents 1.0 is one.
func TestArchitecture10(t *testing.T) {
	devtest.NeedsFunction(t, "registers")
	cfg := config()
	cfg.Arch = "1.0"
	h := devtest.New(t, cfg)
	prepare(h)
	var id [12]byte
	if err := h.Client.ReadRegion(vfiouser.RegionConfig, 0, id[:]); err != nil {
		t.Fatal(err)
	}
	if a, f := h.Read32(npureg.ArchVersion), h.Read32(npureg.FeaturesLo); a != 0x10000 || f != 0 || id[8] != 0x10 {
		t.Errorf("ARCH_VERSION %#x, FEATURES_LO %#x, revision %#x; want 0x10000, 0, 0x10", a, f, id[8])
	}
	for range 20 {
		succeed(h)
	}
}

// TestShadowByMessages: in memory without a descriptor the device can see nothing by itself.
func TestShadowByMessages(t *testing.T) {
	devtest.NeedsFunction(t, "doorbells")
	devtest.NeedsBus(t)
	h := devtest.New(t, config())
	h.Bring(firmware.Image())
	c := h.CreateContext()
	// The host's methods get a line that the device does not see, and its RING is 0: they do not ring.
	h.CreateShadowQueue(1, c, 1, 8, devtest.LineAt(devtest.MsgBase+0x80, make([]byte, 64)))
	for i := range 20 {
		tail := le.AppendUint32(nil, uint32(i+1)%8)
		h.Submit(1, nop())
		if err := h.Msg.WriteAt(tail, 0x80); err != nil {
			t.Fatal(err)
		}
		h.Write32(devtest.Doorbell(1), 0)
		if c := h.Wait(1); c.Status != npureg.StatusSuccess {
			t.Fatalf("NOP: %v", c)
		}
		if err := h.Msg.WriteAt(tail, 0x84); err != nil {
			t.Fatal(err)
		}
		h.Write32(devtest.Doorbell(1)+npureg.DoorbellCQHead, 0)
		var ring [4]byte
		if err := h.Msg.ReadAt(ring[:], 0x88); err != nil {
			t.Fatal(err)
		}
		if le.Uint32(ring[:]) != 3 {
			t.Fatalf("RING %d, want 3", le.Uint32(ring[:]))
		}
	}
}

// TestShadowMistakes: the line lies, or is gone; the queue stops with a record, and comes back.
func TestShadowMistakes(t *testing.T) {
	devtest.NeedsFunction(t, "doorbells")
	const lineBase = 0x4000_0000
	type ctx struct {
		h    *devtest.Host
		l    *devtest.Line
		file *os.File
	}
	for _, tt := range []struct {
		name  string
		do    func(c ctx)
		code  npureg.Status
		index uint32
		lost  bool // the line cannot be accessed any more
		own   bool // it lies in a file of its own
	}{
		{name: "tail not below the entries", do: func(c ctx) { c.l.Store(npureg.ShadowSQTail, 8) }, code: npureg.StatusInvalidDoorbell, index: 8},
		{name: "tail -1", do: func(c ctx) { c.l.Store(npureg.ShadowSQTail, ^uint32(0)) }, code: npureg.StatusInvalidDoorbell, index: 0xffff},
		{name: "head past the tail", do: func(c ctx) { c.l.Store(npureg.ShadowCQHead, 5) }, code: npureg.StatusInvalidDoorbell, index: 5},
		{name: "head not below the entries", do: func(c ctx) { c.l.Store(npureg.ShadowCQHead, 1000) }, code: npureg.StatusInvalidDoorbell, index: 1000},
		{name: "unmapped", do: func(c ctx) { mustDo(c.h, c.h.Client.UnmapDMA(lineBase, 4096)) }, code: npureg.StatusBusFault, lost: true, own: true},
		{name: "truncated", do: func(c ctx) { mustDo(c.h, c.file.Truncate(0)) }, code: npureg.StatusBusFault, lost: true, own: true},
		{name: "no bus master", do: func(c ctx) { c.h.SetCommand(2) }, code: npureg.StatusBusFault, lost: true},
	} {
		for _, awake := range []bool{false, true} {
			name := tt.name + ", asleep"
			if awake {
				name = tt.name + ", awake"
			}
			t.Run(name, func(t *testing.T) {
				if tt.own {
					devtest.NeedsBus(t)
				}
				h := devtest.New(t, config())
				h.Bring(firmware.Image())
				c := ctx{h: h, l: h.NewLine(0x40)}
				if tt.own {
					c.file = memfd(t, 4096)
					mem, err := unix.Mmap(int(c.file.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
					mustDo(h, err)
					defer func() { _ = unix.Munmap(mem) }()
					mustDo(h, h.Client.MapDMA(lineBase, 4096, iova.Read|iova.Write, c.file, 0))
					c.l = devtest.LineAt(lineBase, mem)
				}
				context := h.CreateContext()
				h.CreateShadowQueue(1, context, 1, 8, c.l)
				if awake {
					// A command in flight keeps the line awake, and what happens next unseen until it ends.
					h.Submit(1, endless(1, 1, 0, 4096))
					within(t, "awake", func() bool { return c.l.Ring() == 0 })
					tt.do(c)
					// It ends when its queue does: destroy another way to it.
					e := devtest.Entry{npureg.AdminDestroyQueue}
					le.PutUint32(e[8:], 1)
					if tt.name == "no bus master" {
						h.SetCommand(6)
					}
					if got := h.Admin(e); got.Status != npureg.StatusSuccess {
						t.Fatalf("DESTROY_QUEUE of a queue whose line is bad: %v", got)
					}
				} else {
					succeed(h)
					asleep(t, c.l)
					tt.do(c)
					h.Write32(devtest.Doorbell(1), 1)
					within(t, "fault record", func() bool { return h.Read32(npureg.FaultStatus)&npureg.FaultValid != 0 })
					s, info, addr := h.Read32(npureg.FaultStatus), h.Read32(npureg.FaultInfo), h.Read32(npureg.FaultAddrLo)
					wantAddr := uint32(0)
					if tt.lost {
						wantAddr = uint32(c.l.Addr)
					}
					if npureg.Status(s>>16) != tt.code || info != tt.index<<16|npureg.FaultDoorbell<<8|1 || addr != wantAddr {
						t.Errorf("FAULT_STATUS %#x, FAULT_INFO %#x, FAULT_ADDR %#x; want %v, index %d, address %#x", s, info, addr, tt.code, tt.index, wantAddr)
					}
					if !slices.ContainsFunc(h.Dev.Findings(), func(f vdev.Finding) bool {
						return f.ID == "fault-"+tt.code.String() && strings.Contains(f.Last, "queue 1")
					}) {
						t.Errorf("findings %v", h.Dev.Findings())
					}
					if tt.name == "no bus master" {
						h.SetCommand(6)
					}
					h.DestroyQueue(1)
				}
				h.CreateShadowQueue(1, context, 1, 8, h.NewLine(0))
				for range 10 {
					succeed(h)
				}
			})
		}
	}
}

func mustDo(h *devtest.Host, err error) {
	h.T.Helper()
	if err != nil {
		h.T.Fatal(err)
	}
}

// TestShadowEnds: when the device was told to leave a line alone, it does.
func TestShadowEnds(t *testing.T) {
	devtest.NeedsFunction(t, "doorbells")
	const marker = 0x5a5a_0000
	type row struct {
		name string
		do   func(h *devtest.Host)
	}
	underWay := func() { time.Sleep(20 * time.Millisecond) } // a store that is, arrives
	rows := []row{
		{"DESTROY_QUEUE", func(h *devtest.Host) { h.DestroyQueue(1) }},
		{"D3hot", func(h *devtest.Host) { power(h, 3); underWay() }},
		{"no bus master", func(h *devtest.Host) { h.SetCommand(2); underWay() }},
	}
	for _, r := range resets {
		rows = append(rows, row{r.name, func(h *devtest.Host) { r.do(h); soon(h) }})
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			h, _, l := shadowed(t, config())
			for range 20 { // leaves the line awake, or about to sleep
				succeed(h)
			}
			r.do(h)
			l.Fill(marker)
			time.Sleep(5 * time.Millisecond)
			for i, w := range l.Words() {
				if w != marker {
					t.Errorf("the device stored %#x at offset %#x", w, 4*i)
				}
			}
			if s := h.Read32(npureg.FaultStatus); s&npureg.FaultValid != 0 && s != ^uint32(0) {
				t.Errorf("fault record %#x", s)
			}
		})
	}
}

// TestShadowOverPowerStates: RING may be 0 when the bus goes away; nothing is lost.
func TestShadowOverPowerStates(t *testing.T) {
	devtest.NeedsFunction(t, "doorbells")
	for _, r := range []struct {
		name    string
		off, on func(h *devtest.Host)
	}{
		{"D3hot", func(h *devtest.Host) { power(h, 3) }, func(h *devtest.Host) { power(h, 0) }},
		{"bus master", func(h *devtest.Host) { h.SetCommand(2) }, func(h *devtest.Host) { h.SetCommand(6) }},
	} {
		t.Run(r.name, func(t *testing.T) {
			h, _, l := shadowed(t, config())
			caught, tries := 0, 0
			for end := time.Now().Add(3 * time.Second); tries < 200 && caught < 20 && time.Now().Before(end); tries++ {
				succeed(h)
				r.off(h)
				if l.Ring() == 0 {
					// The device looks when the bus is back: no doorbell.
					caught++
					h.Submit(1, nop())
					r.on(h)
					if c := h.Wait(1); c.Status != npureg.StatusSuccess {
						t.Fatalf("NOP stored while the bus was off: %v", c)
					}
					continue
				}
				r.on(h)
			}
			t.Logf("%d times of %d the line was awake", caught, tries)
			succeed(h)
		})
	}
}

// TestShadowUnmapReturns: unmapping a line that the device watches does not wait for it to sleep,
// and the memory is the host's again.
func TestShadowUnmapReturns(t *testing.T) {
	devtest.NeedsFunction(t, "doorbells")
	devtest.NeedsBus(t)
	h, _, l := shadowed(t, config())
	h.Submit(1, endless(1, 1, 0, 4096))
	within(t, "awake", func() bool { return l.Ring() == 0 })
	start := time.Now()
	mustDo(h, h.Client.UnmapDMA(devtest.MemBase, devtest.MemSize))
	if d := time.Since(start); d > time.Second {
		t.Errorf("unmap took %v", d)
	}
	l.Fill(7)
	mustDo(h, h.Client.Reset())
	time.Sleep(5 * time.Millisecond)
	for i, w := range l.Words() {
		if w != 7 {
			t.Errorf("the device stored %#x at offset %#x", w, 4*i)
		}
	}
}

// TestShadowHammer: several queues, random pauses around the time that lines sleep; nothing is lost
// through memory that is really shared.
func TestShadowHammer(t *testing.T) {
	devtest.NeedsFunction(t, "doorbells")
	cfg := config()
	h := devtest.New(t, cfg)
	h.Bring(firmware.Image())
	c := h.CreateContext()
	at, page := h.Alloc(4096)
	const queues = 4
	for q := 1; q <= queues; q++ {
		l := h.NewLine(0xfc0)
		if q > 2 { // two in one page, two in pages of their own
			l = devtest.LineAt(at+uint64(q)*64, page[q*64:])
		}
		h.CreateShadowQueue(q, c, q, 8, l)
	}
	rng := rand.New(rand.NewPCG(7, 8))
	n := 2000
	if testing.Short() {
		n = 400
	}
	for end := time.Now().Add(5 * time.Second); n > 0 && time.Now().Before(end); n-- {
		var sent [queues + 1]int
		for q := 1; q <= queues; q++ {
			for range rng.IntN(4) {
				h.Submit(q, nop())
				sent[q]++
			}
		}
		for q := 1; q <= queues; q++ {
			for range sent[q] {
				if c := h.Wait(q); c.Status != npureg.StatusSuccess {
					t.Fatalf("queue %d: %v", q, c)
				}
			}
		}
		for end := time.Now().Add(time.Duration(rng.IntN(300)) * time.Microsecond); time.Now().Before(end); {
			continue
		}
	}
	if s := h.Read32(npureg.FaultStatus); s != 0 {
		t.Errorf("fault record %#x", s)
	}
	t.Logf("%d doorbells, %d indices from lines", h.Dev.Counter(npureg.CounterDoorbells), h.Dev.Counter(npureg.CounterShadow))
}
