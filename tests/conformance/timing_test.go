// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"npuemu/core/isa"
	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
	"npuemu/timing"
	"npuemu/vdev"
)

// timedRun is what a card shows of the same commands in one time mode.
type timedRun struct {
	cqes    []devtest.CQE
	values  []byte // results without stamps
	stamps  []uint64
	profile []byte
	now     uint64 // TIME after all
	clock   uint32 // TIME_CLOCK
	took    time.Duration
}

// stampText makes a product between two stamps.
const stampText = `.spad 256
.acc 256
.bindings 2
stamp    binding=1 offset=64 id=1
load     binding=0 local=0 nx=64 signal=0
operands a_stride=8 b_stride=8 acc_stride=8 wait=0
gemm     m=8 n=2 k=8 a=0 b=0 acc=0 signal=1
store    binding=1 local=0 nx=64 acc_mem wait=1
stamp    binding=1 offset=80 id=2
halt
`

// runTimed does the same on a card of mode and architecture: a NOP, a COPY of
// 64 KiB, a program with stamps, one that fails, a SIGNAL and a WAIT.
func runTimed(t *testing.T, mode vdev.TimeConfig, arch string) timedRun {
	t.Helper()
	cfg := config()
	cfg.Time = mode
	if arch != "" {
		cfg.Arch = arch
	}
	h := devtest.New(t, cfg)
	prepare(h)
	buf, in := h.Alloc(64 << 10)
	for i := range in {
		in[i] = byte(37*i + i>>8)
	}
	dst, out := h.Alloc(96)
	at, profile := h.Alloc(npureg.ProfileSize)
	launch := h.Launch(program11(t, stampText), devtest.Binding{Addr: 0, Size: 64, Read: true, Space: 1}, devtest.Binding{Addr: dst, Size: 96, Write: true})
	if arch == "" {
		launch[1] = npureg.LaunchProfile
		le.PutUint64(launch[0x28:], at)
	}
	toDevice := copyEntry(0, 1, buf, 0, 64<<10, 1, 1)
	var r timedRun
	began := time.Now()
	for _, e := range []devtest.Entry{nop(), toDevice, launch, h.Launch(unchecked(isa.Gemm{})), signal(0, buf, 1<<62), wait(0, buf, 1)} {
		c := h.Do(1, e)
		c.SQHead, c.ID = 0, 0
		r.cqes = append(r.cqes, c)
	}
	r.took = time.Since(began)
	if arch == "" && devtest.InUse() != devtest.VHostUser {
		lo := h.Read32(npureg.TimeLo)
		r.now, r.clock = uint64(h.Read32(npureg.TimeHi))<<32|uint64(lo), h.Read32(npureg.TimeClock)
	}
	r.stamps = []uint64{le.Uint64(out[64:]), le.Uint64(out[80:])}
	if id := [2]uint32{le.Uint32(out[72:]), le.Uint32(out[88:])}; id != [2]uint32{1, 2} {
		t.Errorf("marks %v", id)
	}
	inDevice, back := h.Alloc(64 << 10)
	if c := h.Do(1, copyEntry(1, 0, 0, inDevice, 64<<10, 1, 1)); c.Status != npureg.StatusSuccess {
		t.Fatal(c)
	}
	r.values = append(bytes.Clone(out[:64]), back...)
	r.profile = bytes.Clone(profile)
	return r
}

// TestTimeModes: the same commands have the same values in every time mode; model
// time is the same whenever there is one, and as the model says.
func TestTimeModes(t *testing.T) {
	fast := runTimed(t, vdev.TimeConfig{Mode: vdev.TimeFast, Factor: 1}, "")
	timed := runTimed(t, vdev.TimeConfig{Mode: vdev.TimeTimed, Factor: 1}, "")
	paced := runTimed(t, vdev.TimeConfig{Mode: vdev.TimePaced, Factor: 5000}, "")
	for i := range fast.cqes {
		f, m, p := fast.cqes[i], timed.cqes[i], paced.cqes[i]
		if f.Reserved != [2]uint64{} {
			t.Errorf("fast, command %d: time %v", i, f.Reserved)
		}
		if m != p {
			t.Errorf("command %d: timed %v %v, paced %v %v", i, m, m.Reserved, p, p.Reserved)
		}
		if m.Reserved[0] == 0 || m.Reserved[1] < m.Reserved[0] || i > 0 && m.Reserved[1] != timed.cqes[i-1].Reserved[1]+m.Reserved[0] {
			t.Errorf("command %d: %d cycles, done at %d", i, m.Reserved[0], m.Reserved[1])
		}
		m.Reserved = f.Reserved
		if f != m {
			t.Errorf("command %d: fast %v, timed %v", i, f, m)
		}
	}
	if !bytes.Equal(fast.values, timed.values) || !bytes.Equal(fast.values, paced.values) {
		t.Error("values differ")
	}
	last := timed.cqes[len(timed.cqes)-1].Reserved[1]
	if devtest.InUse() == devtest.VHostUser {
		t.Log("a virtio device has no registers: TIME and TIME_CLOCK are not compared")
	} else if fast.now != 0 || fast.clock != 0 || timed.now != last || timed.clock != 1000 || paced.now != last || paced.clock != 1000 {
		t.Errorf("TIME and TIME_CLOCK: fast %d %d, timed %d %d, paced %d %d; want 0 0, %d 1000 twice", fast.now, fast.clock, timed.now, timed.clock, paced.now, paced.clock, last)
	}
	if least := time.Duration(last) * 5000; paced.took < least {
		t.Errorf("paced: %v, want at least %v", paced.took, least)
	}
	c := timing.Config{Rows: 32, Cols: 32, Params: timing.DefaultParams()}
	if want := c.Overhead() + c.Copy(64<<10, 1, 1, timing.Side{Bus: true}, timing.Side{}); timed.cqes[1].Reserved[0] != want || timed.cqes[0].Reserved[0] != c.Overhead() || timed.cqes[3].Reserved[0] != c.Overhead() {
		t.Errorf("COPY takes %d cycles, NOP %d, a program that fails %d; want %d, and %d twice", timed.cqes[1].Reserved[0], timed.cqes[0].Reserved[0], timed.cqes[3].Reserved[0], want, c.Overhead())
	}

	p, err := isa.ParseImage(program11(t, stampText))
	if err != nil {
		t.Fatal(err)
	}
	model, err := timing.Program(context.Background(), p, c, 1<<1)
	if err != nil {
		t.Fatal(err)
	}
	want := c.Overhead() + model.Cycles + c.Fetch(uint64(len(p.Image())), true) + c.Fetch(2*npureg.BindingSize, true)
	if got := timed.cqes[2].Reserved[0]; got != want {
		t.Errorf("the program takes %d cycles, want %d", got, want)
	}
	// In fast mode a stamp counts instructions.
	if got := fmt.Sprint(fast.stamps, timed.stamps, paced.stamps); got != fmt.Sprint([]uint64{0, 5}, model.Stamps, model.Stamps) {
		t.Errorf("stamps %s, want [0 5], %v twice", got, model.Stamps)
	}
	for _, r := range []struct {
		name string
		timedRun
		flags         uint32
		start, cycles uint64
	}{
		{"fast", fast, 0, 0, 0},
		{"timed", timed, npureg.ProfileTimed, timed.cqes[1].Reserved[1], model.Cycles},
		{"paced", paced, npureg.ProfileTimed, timed.cqes[1].Reserved[1], model.Cycles},
	} {
		word := func(off int) uint64 { return le.Uint64(r.profile[off:]) }
		if le.Uint32(r.profile) != npureg.ProfileSize || le.Uint32(r.profile[4:]) != r.flags || word(0x08) != r.start || word(0x10) != r.cycles ||
			word(0x18) != 7 || word(0x20) != 128 || word(0x28) != 64 || word(0x30) != 64+2*isa.StampSize || word(0x48) != 0 {
			t.Errorf("%s: profile\n% x", r.name, r.profile[:0x50])
		}
		for e, n := range []uint64{1, 3, 2, 0} {
			at := 0x50 + 80*e
			busy := uint64(0)
			if r.flags != 0 {
				busy = model.Engines[e].Busy
			}
			if word(at) != n || word(at+8) != busy {
				t.Errorf("%s: engine %d: %d instructions, %d cycles busy; want %d, %d", r.name, e, word(at), word(at+8), n, busy)
			}
			for cause, stall := range model.Engines[e].Stalls {
				if got := word(at + 16 + 8*cause); r.flags != 0 && got != stall || r.flags == 0 && got != 0 {
					t.Errorf("%s: engine %d: %d cycles of stall %v, want %d", r.name, e, got, timing.Cause(cause), stall)
				}
			}
		}
	}
}

// TestFirmwareTime: admin commands take no model time, and firmware no more of other commands than command_firmware says.
func TestFirmwareTime(t *testing.T) {
	for _, firmware := range []int{0, 1234} {
		cfg := config()
		cfg.Time.Mode, cfg.Timing.CommandFetch, cfg.Timing.CommandRetire, cfg.Timing.CommandFirmware = vdev.TimeTimed, 30, 4, firmware
		h := devtest.New(t, cfg)
		prepare(h) // creates a context and queues
		each := uint64(34 + firmware)
		for i := uint64(1); i <= 3; i++ {
			if c := h.Do(1, nop()); c.Status != npureg.StatusSuccess || c.Reserved != [2]uint64{each, i * each} {
				t.Errorf("command_firmware %d: NOP %d is %v at %v, want %d cycles each", firmware, i, c, c.Reserved, each)
			}
		}
	}
}

// TestTimeBefore14: a card that presents an older architecture shows no model time,
// whatever its mode.
func TestTimeBefore14(t *testing.T) {
	r := runTimed(t, vdev.TimeConfig{Mode: vdev.TimeTimed, Factor: 1}, "1.3")
	for i, c := range r.cqes {
		if c.Reserved != [2]uint64{} {
			t.Errorf("command %d: time %v", i, c.Reserved)
		}
	}
	if fmt.Sprint(r.stamps) != "[0 5]" {
		t.Errorf("stamps %v count no instructions", r.stamps)
	}
	devtest.NeedsFunction(t, "TIME and TIME_CLOCK")
	cfg := config()
	cfg.Arch, cfg.Time.Mode = "1.3", vdev.TimeTimed
	h := devtest.New(t, cfg)
	prepare(h)
	if v := h.Read32(npureg.FeaturesLo); v&npureg.FeatureTiming != 0 {
		t.Errorf("FEATURES_LO %#x", v)
	}
	for _, off := range []uint32{npureg.TimeLo, npureg.TimeHi, npureg.TimeClock} {
		if v := h.Read32(off); v != ^uint32(0) {
			t.Errorf("%#x reads %#x, want all-ones", off, v)
		}
	}
	e := h.Launch(program(t, "halt\n"))
	e[1] = npureg.LaunchProfile
	if c := h.Do(1, e); c.Status != npureg.StatusInvalidField || c.Info != 1 {
		t.Errorf("PROFILE: %v", c)
	}
}

// TestProfileMistakes: what is wrong with a profile record; the next command runs.
func TestProfileMistakes(t *testing.T) {
	h, _ := ready(t)
	at, _ := h.Alloc(npureg.ProfileSize)
	entry := func(change func(e *devtest.Entry)) devtest.Entry {
		e := h.Launch(program(t, "halt\n"))
		e[1] = npureg.LaunchProfile
		le.PutUint64(e[0x28:], at)
		change(&e)
		return e
	}
	if c := h.Do(1, entry(func(*devtest.Entry) {})); c.Status != npureg.StatusSuccess {
		t.Fatal(c)
	}
	for _, tt := range []mistake{
		{"flag", entry(func(e *devtest.Entry) { e[1] = 5 }), npureg.StatusInvalidField, 1, 0},
		{"address without flag", entry(func(e *devtest.Entry) { e[1] = 0; le.PutUint64(e[0x28:], 8) }), npureg.StatusInvalidField, 0x28, 0},
		{"space", entry(func(e *devtest.Entry) { e[0x24] = 2 }), npureg.StatusInvalidField, 0x24, 0},
		{"upper half of the space", entry(func(e *devtest.Entry) { e[0x24] = 0x10 }), npureg.StatusInvalidField, 0x24, 0},
		{"reserved", entry(func(e *devtest.Entry) { e[0x26] = 1 }), npureg.StatusInvalidField, 0x26, 0},
		{"reserved behind it", entry(func(e *devtest.Entry) { e[0x3f] = 1 }), npureg.StatusInvalidField, 0x3f, 0},
		{"not aligned", entry(func(e *devtest.Entry) { e[0x28] |= 4 }), npureg.StatusInvalidField, 0x28, 0},
		{"passes 2⁶⁴", entry(func(e *devtest.Entry) { le.PutUint64(e[0x28:], ^uint64(0)-7) }), npureg.StatusInvalidField, 0x28, 0},
		{"not mapped", entry(func(e *devtest.Entry) { le.PutUint64(e[0x28:], 0x6670_0000) }), npureg.StatusBusFault, 0x6670_0000, 0},
		{"outside device memory", entry(func(e *devtest.Entry) { e[0x24] = 1; le.PutUint64(e[0x28:], 1<<20) }), npureg.StatusDeviceFault, 1 << 20, 0},
	} {
		if c := h.Do(1, tt.e); c.Status != tt.want || c.Info != tt.info || c.Result != tt.res {
			t.Errorf("%s: %v; want %v result %d info %#x", tt.name, c, tt.want, tt.res, tt.info)
		}
		if c := h.Do(1, nop()); c.Status != npureg.StatusSuccess {
			t.Errorf("next command after %s: %v", tt.name, c)
		}
	}
}

// TestPacedEnds: what ends a command ends one that waits for wall time, too.
func TestPacedEnds(t *testing.T) {
	devtest.NeedsFunction(t, "a soft reset")
	cfg := config()
	cfg.Time = vdev.TimeConfig{Mode: vdev.TimePaced, Factor: 1e6} // a cycle is a millisecond
	h := devtest.New(t, cfg)
	prepare(h)
	began := time.Now()
	h.Submit(1, nop()) // 300 ms
	h.Write32(npureg.DeviceControl, npureg.DeviceControlReset)
	for h.Read32(npureg.DeviceStatus)&npureg.DeviceStatusResetting != 0 {
		if time.Since(began) > 10*time.Second {
			t.Fatal("the reset is not over")
		}
		time.Sleep(time.Millisecond)
	}
	if v := h.Read32(npureg.TimeLo); v != 0 {
		t.Errorf("TIME is %d after a reset", v)
	}
}

// TestTimeTranslated: what a context's page tables lead to takes the cycles that it takes without them (§13.8.2), and
// finding out leaves the TLB and its counters alone.
func TestTimeTranslated(t *testing.T) {
	const behind = ".spad 8192\n.bindings 2\nload binding=0 local=0 nx=8192\nstore binding=1 offset=4096 local=0 nx=8192\nhalt\n"
	tlb := map[string][2]uint64{}
	for _, mode := range []string{vdev.TimeFast, vdev.TimeTimed} {
		cfg := config()
		cfg.Time.Mode = mode
		h := devtest.New(t, cfg)
		prepare(h)
		p := newProcess(h, 2, false)
		bus, _ := h.Alloc(vaSize)
		launch := func(text string, from, to devtest.Binding) devtest.Entry {
			from.Size, from.Read, to.Size, to.Write = 12288, true, 12288, true
			return h.Launch(program(t, text), from, to)
		}
		onBus, inDevice := devtest.Binding{Addr: bus}, devtest.Binding{Addr: 0x80000, Space: 1}
		for _, tt := range []struct {
			name       string
			plain      devtest.Entry
			translated func() devtest.Entry
		}{
			{"COPY on the bus", copyEntry(0, 0, bus, bus, 8192, 1, 1), func() devtest.Entry { return p.copy(vaSource, vaDest, 8192) }},
			{"COPY to device memory", copyEntry(0, 1, bus, 0x80008, 8192, 1, 1), func() devtest.Entry { return p.copy(vaSource, vaBoth+8, 8192) }},
			{"COPY from device memory", copyEntry(1, 0, 0x80010, bus, 100, 1, 1), func() devtest.Entry { return p.copy(vaBoth+16, vaDest, 100) }},
			{"LAUNCH on the bus", launch(moveText, onBus, onBus), func() devtest.Entry { return p.launch(t, moveText, vaSource, vaDest, 12288) }},
			{"LAUNCH to device memory", launch(moveText, onBus, inDevice), func() devtest.Entry { return p.launch(t, moveText, vaSource, vaBoth, 12288) }},
			{"LAUNCH from device memory", launch(moveText, inDevice, onBus), func() devtest.Entry { return p.launch(t, moveText, vaBoth, vaDest, 12288) }},
			{"LAUNCH of a binding whose first page is mapped nowhere", launch(behind, onBus, inDevice), func() devtest.Entry { return p.launch(t, behind, vaSource, vaDest-4096, 12288) }},
		} {
			want, got := h.Do(1, tt.plain), h.Do(2, tt.translated())
			if want.Status != npureg.StatusSuccess || got.Status != npureg.StatusSuccess || got.Reserved[0] != want.Reserved[0] || (got.Reserved[0] != 0) != (mode == vdev.TimeTimed) {
				t.Errorf("%s, %s: %v and %d cycles; without page tables %v, %d", mode, tt.name, got, got.Reserved[0], want, want.Reserved[0])
			}
		}
		log := h.Log(2, 8*npureg.CounterCount)
		tlb[mode] = [2]uint64{le.Uint64(log[8*npureg.CounterTLBHits:]), le.Uint64(log[8*npureg.CounterTLBMisses:])}
	}
	if tlb[vdev.TimeFast] != tlb[vdev.TimeTimed] {
		t.Errorf("hits and misses of the TLB in fast mode %v, in timed %v", tlb[vdev.TimeFast], tlb[vdev.TimeTimed])
	}
}
