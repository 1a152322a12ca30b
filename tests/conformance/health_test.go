// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"npuemu/firmware"
	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
	"npuemu/vdev"
	"npuemu/vdev/vfiouser"
)

// sensors reads log page 4 (§12.4).
func sensors(h *devtest.Host) (v [npureg.SensorCount]int64) {
	h.T.Helper()
	p := h.Log(4, 4096)
	if len(p) != 8*npureg.SensorCount {
		h.T.Fatalf("log page 4 has %d bytes, want %d", len(p), 8*npureg.SensorCount)
	}
	for i := range v {
		v[i] = int64(le.Uint64(p[8*i:]))
	}
	return v
}

// force makes the sensor show a temperature.
func force(h *devtest.Host, celsius float64) error { return h.Dev.SetThermal(nil, &celsius, false) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestTelemetry: the sensors of a card that works show what it did (§12.4).
func TestTelemetry(t *testing.T) {
	h, _ := ready(t)
	before := sensors(h)
	start := time.Now()
	var worked time.Duration
	for time.Since(start) < 300*time.Millisecond {
		began := time.Now()
		if c := h.Do(1, copyEntry(1, 1, 0, 1<<19, 1<<19, 20, 1)); c.Status != npureg.StatusSuccess {
			t.Fatal(c)
		}
		worked += time.Since(began)
	}
	after := sensors(h)
	wall := time.Since(start)
	diff := func(i int) int64 { return after[i] - before[i] }
	if d := time.Duration(diff(npureg.SensorUptime)) * time.Microsecond; d < 300*time.Millisecond || d > wall+time.Second {
		t.Errorf("card time grew by %v in %v", d, wall)
	}
	if d := time.Duration(diff(npureg.SensorDMABusy)) * time.Microsecond; d < worked/20 || d > worked {
		t.Errorf("the DMA channel says %v, its COPYs took %v from here", d, worked)
	}
	if d := diff(npureg.SensorCoreBusy); d != 0 {
		t.Errorf("the core says it worked for %d µs, but no program ran", d)
	}
	within(t, "the DMA channel is utilized", func() bool { // a busy machine may leave it idle for the time of a sample
		h.Do(1, copyEntry(1, 1, 0, 1<<19, 1<<19, 20, 1))
		u := sensors(h)[npureg.SensorDMAUtilization]
		return u >= 20 && u <= 1000
	})
	if u := after[npureg.SensorCoreUtilization]; u != 0 {
		t.Errorf("utilization of the core %d ‰", u)
	}
	if a, b := before[npureg.SensorTemperature], after[npureg.SensorTemperature]; a < 44_900 || a > 46_000 || b <= a || b > a+1000 {
		t.Errorf("temperature %d m°C, then %d", a, b)
	}
	want := map[int]int64{
		npureg.SensorAmbient: 35_000, npureg.SensorClock: 1_000_000, npureg.SensorMaxClock: 1_000_000, npureg.SensorThrottle: 0, npureg.SensorPower: 0,
		npureg.SensorThermal1: 85_000, npureg.SensorThermal2: 95_000, npureg.SensorThermalCritical: 105_000,
	}
	for i, w := range want {
		if after[i] != w {
			t.Errorf("sensor %d: %d, want %d", i, after[i], w)
		}
	}
	if p := h.Log(4, 9); len(p) != 9 {
		t.Errorf("log page 4 cut to 9 bytes has %d", len(p))
	}
	launch := h.Launch(program(t, ".spad 65536\n.bindings 1\nload binding=0 local=0 nx=65535\nhalt\n"), devtest.Binding{Addr: 0, Size: 1 << 16, Read: true, Space: 1})
	if c := h.Do(1, launch); c.Status != npureg.StatusSuccess {
		t.Fatal(c)
	}
	if d := sensors(h)[npureg.SensorCoreBusy]; d == 0 {
		t.Error("the core has not worked, but a program ran")
	}
}

// TestThrottle: hotter cards do the same work in more time (§12.5).
func TestThrottle(t *testing.T) {
	h, _ := ready(t)
	const n = 20
	work := func() time.Duration {
		start := time.Now()
		for range n {
			if c := h.Do(1, copyEntry(1, 1, 0, 1<<19, 1<<19, 20, 1)); c.Status != npureg.StatusSuccess {
				t.Fatal(c)
			}
		}
		succeed(h) // after the rest that the last one makes
		return time.Since(start)
	}
	for _, tt := range []struct {
		celsius float64
		level   int64
		clock   int64
		share   float64 // of the time in which the device works
	}{
		{84.999, 0, 1_000_000, 1}, {85, 1, 500_000, 0.5}, {82, 1, 500_000, 0.5}, {95, 2, 250_000, 0.25}, {92.5, 2, 250_000, 0.25}, {91.9, 1, 500_000, 0.5}, {81.9, 0, 1_000_000, 1},
	} {
		must(t, force(h, tt.celsius))
		before := sensors(h)
		if l, c := before[npureg.SensorThrottle], before[npureg.SensorClock]; l != tt.level || c != tt.clock || before[npureg.SensorTemperature] != int64(tt.celsius*1000) {
			t.Errorf("%v °C: level %d, clock %d kHz, temperature %d; want level %d, %d kHz", tt.celsius, l, c, before[npureg.SensorTemperature], tt.level, tt.clock)
		}
		took := work()
		busy := time.Duration(sensors(h)[npureg.SensorDMABusy]-before[npureg.SensorDMABusy]) * time.Microsecond
		if limit := time.Duration(float64(busy) / tt.share); took < limit*99/100 {
			t.Errorf("%v °C: worked %v of %v; at a duty of %v it takes at least %v", tt.celsius, busy, took, tt.share, limit)
		}
	}
	_, _, got := errorLog(h, 0)
	var levels []uint16
	for _, r := range got {
		if r.Kind == npureg.ErrorThermal && r.Unit == npureg.UnitThermal {
			levels = append(levels, r.Detail)
		}
	}
	if want := []uint16{1, 2, 1, 0}; len(got) != len(want) || !slices.Equal(levels, want) || got[1].Addr != 95_000 {
		t.Errorf("error log %+v, want levels %v", got, want)
	}
}

// TestCritical: at the critical level commands wait, the admin queue does not, and it ends by itself (§12.5).
func TestCritical(t *testing.T) {
	h, context := ready(t)
	h.CreateQueue(2, context, 2, 8)
	must(t, force(h, 105))
	h.Submit(1, nop())
	h.Submit(2, nop())
	time.Sleep(300 * time.Millisecond)
	if n := counter(h, npureg.CounterCommands); n != 0 {
		t.Errorf("%d commands completed at the critical level", n)
	}
	if s := sensors(h); s[npureg.SensorThrottle] != npureg.ThrottleCritical || s[npureg.SensorClock] != 0 {
		t.Errorf("level %d, clock %d", s[npureg.SensorThrottle], s[npureg.SensorClock])
	}
	h.DestroyQueue(2) // one of the two waits in flight, and both can be ended
	must(t, h.Dev.SetThermal(nil, nil, true))
	if c := h.Wait(1); c.Status != npureg.StatusSuccess {
		t.Errorf("NOP after it has cooled: %v", c)
	}
	succeed(h)
	hot := 130.0
	must(t, h.Dev.SetThermal(&hot, nil, false)) // the model follows its surroundings
	within(t, "the card warms up", func() bool { return sensors(h)[npureg.SensorTemperature] > 46_000 })
	if s := sensors(h); s[npureg.SensorTemperature] < 46_000 || s[npureg.SensorAmbient] != 130_000 {
		t.Errorf("temperature %d m°C, ambient %d", s[npureg.SensorTemperature], s[npureg.SensorAmbient])
	}
}

// TestCriticalTimeout: what ends a command ends one that waits for the card to cool (§12.5), and throttling leaves WAIT its other queues.
func TestCriticalTimeout(t *testing.T) {
	h, context := ready(t)
	h.CreateQueue(2, context, 2, 8)
	modify := devtest.Entry{npureg.AdminModifyQueue, 8: 2}
	le.PutUint32(modify[0x30:], 150)
	if c := h.Admin(modify); c.Status != npureg.StatusSuccess {
		t.Fatal(c)
	}
	must(t, force(h, 110))
	start := time.Now()
	if c := h.Do(2, nop()); c.Status != npureg.StatusTimeout || time.Since(start) < 150*time.Millisecond {
		t.Errorf("NOP that cannot start: %v after %v, want TIMEOUT after 150 ms", c, time.Since(start))
	}
	h.Submit(1, endless(1, 1, 0, 4096))
	time.Sleep(50 * time.Millisecond)
	if c := h.Admin(resetEngine(npureg.EngineAll)); c.Result != 0 {
		t.Errorf("RESET_ENGINE ends a command that has no engine yet: %v", c)
	}
	h.DestroyQueue(1)
	if s := sensors(h); s[npureg.SensorDMABusy] != 0 || s[npureg.SensorCoreBusy] != 0 {
		t.Errorf("engines worked at the critical level: %d, %d µs", s[npureg.SensorDMABusy], s[npureg.SensorCoreBusy])
	}

	must(t, force(h, 96))
	h.CreateQueue(3, context, 3, 8)
	if c := h.Admin(devtest.Entry{npureg.AdminResumeQueue, 8: 2}); c.Status != npureg.StatusSuccess {
		t.Fatal(c)
	}
	le.PutUint32(modify[0x30:], 0)
	if c := h.Admin(modify); c.Status != npureg.StatusSuccess {
		t.Fatal(c)
	}
	wait := h.Submit(3, timelineEntry(npureg.CmdWait, 0x100, 7))
	for range 5 {
		if c := h.Do(2, copyEntry(1, 1, 0x1000, 0x2000, 1<<19, 1, 1)); c.Status != npureg.StatusSuccess {
			t.Fatal(c)
		}
	}
	if c := h.Do(2, timelineEntry(npureg.CmdSignal, 0x100, 7)); c.Status != npureg.StatusSuccess {
		t.Error(c)
	}
	if c := h.Wait(3); c.ID != wait || c.Status != npureg.StatusSuccess || c.Info != 7 {
		t.Errorf("WAIT: %v", c)
	}
}

// TestThermalMistakes: what an operator cannot set.
func TestThermalMistakes(t *testing.T) {
	h, _ := ready(t)
	nan := 0.0
	nan /= nan
	for _, c := range []float64{-41, 151, nan} {
		if h.Dev.SetThermal(&c, nil, false) == nil || force(h, c) == nil {
			t.Errorf("a temperature of %v °C is taken", c)
		}
	}
}

// threshold returns SET_THRESHOLD.
func threshold(level uint32, milli int32) devtest.Entry {
	e := devtest.Entry{npureg.AdminSetThreshold}
	le.PutUint32(e[8:], level)
	le.PutUint32(e[12:], uint32(milli))
	return e
}

// TestSetThreshold: thresholds decide, and begin anew with the control processor (§12.5).
func TestSetThreshold(t *testing.T) {
	h, _ := ready(t)
	if c := h.Admin(threshold(1, 44_000)); c.Status != npureg.StatusSuccess { // below what a cold card has
		t.Fatal(c)
	}
	if s := sensors(h); s[npureg.SensorThermal1] != 44_000 || s[npureg.SensorThrottle] != 1 {
		t.Errorf("threshold %d, level %d", s[npureg.SensorThermal1], s[npureg.SensorThrottle])
	}
	succeed(h)
	if devtest.InUse() == devtest.VHostUser {
		return
	}
	h.Write32(npureg.DeviceControl, npureg.DeviceControlReset)
	h.AwaitReset()
	prepare(h)
	if s := sensors(h); s[npureg.SensorThermal1] != 85_000 || s[npureg.SensorThrottle] != 0 {
		t.Errorf("after a reset: threshold %d, level %d", s[npureg.SensorThermal1], s[npureg.SensorThrottle])
	}
}

func resetEngine(mask uint32) devtest.Entry {
	e := devtest.Entry{npureg.AdminResetEngine}
	le.PutUint32(e[8:], mask)
	return e
}

// TestEngineReset: RESET_ENGINE ends the command of its engine, and nothing else (§12.6).
func TestEngineReset(t *testing.T) {
	const loads = 400 // of 65535 rows: seconds
	long := ".spad 65536\n.bindings 1\n" + string(bytes.Repeat([]byte("load binding=0 local=0 nx=1 ny=65535 nz=1 stride_y=2 local_stride=1\n"), loads)) + "halt\n"
	for _, tt := range []struct {
		name   string
		launch bool
		mask   uint32
		hit    bool
	}{
		{"COPY, DMA channel", false, npureg.EngineDMA, true},
		{"COPY, both", false, npureg.EngineAll, true},
		{"COPY, core", false, npureg.EngineCore, false},
		{"LAUNCH, core", true, npureg.EngineCore, true},
		{"LAUNCH, DMA channel", true, npureg.EngineDMA, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, context := ready(t)
			h.CreateQueue(2, context, 2, 8)
			e := endless(1, 1, 0, 4096)
			if tt.launch {
				e = h.Launch(program(t, long), devtest.Binding{Addr: 0, Size: 1 << 18, Read: true, Space: 1})
			}
			id := h.Submit(1, e)
			next := h.Submit(1, nop())
			time.Sleep(20 * time.Millisecond)
			other := h.Submit(2, nop())
			c := h.Admin(resetEngine(tt.mask))
			want := uint32(0)
			if tt.hit {
				want = 1
			}
			if c.Status != npureg.StatusSuccess || c.Result != want {
				t.Errorf("RESET_ENGINE: %v, want result %d", c, want)
			}
			if n := counter(h, npureg.CounterEngineResets); n != 1 {
				t.Errorf("%d engine resets counted", n)
			}
			_, _, records := errorLog(h, 0)
			if len(records) != 1 || records[0].Kind != npureg.ErrorEngineReset || uint32(records[0].Detail) != tt.mask {
				t.Errorf("error log %+v", records)
			}
			if !tt.hit {
				if n := counter(h, npureg.CounterCommands); n != 0 {
					t.Errorf("%d commands completed: the reset met the wrong one", n)
				}
				h.DestroyQueue(1) // it goes on
				if c := h.Wait(2); c.ID != other || c.Status != npureg.StatusSuccess {
					t.Errorf("other queue: %v", c)
				}
				return
			}
			if n := counter(h, npureg.CounterCommands); n == 0 {
				t.Error("RESET_ENGINE completed before the command that it ended")
			}
			if c := h.Wait(1); c.ID != id || c.Status != npureg.StatusEngineReset {
				t.Errorf("the command: %v, want ENGINE_RESET", c)
			}
			if c := h.Wait(1); c.ID != next || c.Status != npureg.StatusSuccess {
				t.Errorf("the next command: %v", c)
			}
			if c := h.Wait(2); c.ID != other || c.Status != npureg.StatusSuccess {
				t.Errorf("other queue: %v", c)
			}
			if c := h.Do(1, copyEntry(1, 1, 0, 4096, 64, 1, 1)); c.Status != npureg.StatusSuccess {
				t.Errorf("COPY after it: %v", c)
			}
			if c := h.Admin(resetEngine(tt.mask)); c.Status != npureg.StatusSuccess || c.Result != 0 {
				t.Errorf("RESET_ENGINE of an idle engine: %v", c)
			}
		})
	}
}

// fwEntry is an entry of the firmware log (§12.7).
type fwEntry struct {
	number uint32
	level  uint8
	text   string
}

func fwLog(h *devtest.Host, first uint32) (next uint32, l []fwEntry) {
	h.T.Helper()
	p := h.LogFrom(6, 4096, first)
	return le.Uint32(p), fwEntries(p[npureg.LogHeaderSize:][:le.Uint32(p[4:])*npureg.FWLogEntrySize])
}

func fwEntries(p []byte) (l []fwEntry) {
	for ; len(p) > 0; p = p[npureg.FWLogEntrySize:] {
		if n := le.Uint32(p); n != 0 {
			l = append(l, fwEntry{n, p[4], string(p[0x10:][:p[5]])})
		}
	}
	return l
}

// TestFirmwareLog: what firmware says can be read, and what is urgent is announced (§12.7).
func TestFirmwareLog(t *testing.T) {
	h, _ := ready(t)
	next, l := fwLog(h, 0)
	if len(l) != 1 || l[0].number != 1 || l[0].level != 6 || !bytes.Contains([]byte(l[0].text), []byte("ready")) || next != 2 {
		t.Errorf("log after boot, next %d: %+v", next, l)
	}
	for range 8 {
		h.Admin(devtest.Entry{0x7f})
	}
	if c := h.Admin(resetEngine(1)); c.Status != npureg.StatusSuccess {
		t.Fatal(c)
	}
	next, l = fwLog(h, next)
	if len(l) != 9 || l[0].level != 6 || l[8].level != 4 || l[8].number != 10 || l[8].text != "engine reset: 0x1" || next != 11 {
		t.Errorf("log, next %d: %+v", next, l)
	}
	for range 60 {
		h.Admin(resetEngine(2))
	}
	p := h.LogFrom(6, 4096, 0)
	if next, n, oldest, size := le.Uint32(p), le.Uint32(p[4:]), le.Uint32(p[8:]), le.Uint32(p[12:]); next != 71 || n != 31 || oldest != 7 || size != npureg.FWLogEntrySize {
		t.Errorf("next %d, %d entries, oldest %d, of %d bytes; want 71, 31, 7, 128", next, n, oldest, size)
	}
	if l := fwEntries(p[npureg.LogHeaderSize:]); l[0].number != 7 || l[30].number != 37 {
		t.Errorf("log %+v", l)
	}
	if devtest.InUse() == devtest.VHostUser {
		return
	}
	if h.Read32(npureg.IRQStatus)&npureg.IRQFirmware == 0 {
		t.Error("no cause FIRMWARE for warnings")
	}
}

// crashDump reads the dump by registers (§12.8).
func crashDump(h *devtest.Host) []byte {
	h.T.Helper()
	var p []byte
	h.Write32(npureg.CrashSelect, 0)
	for range h.Read32(npureg.CrashSize) / 4 {
		p = le.AppendUint32(p, h.Read32(npureg.CrashData))
	}
	return p
}

// TestCrashDump: firmware that died can be looked at without firmware, and with the next (§12.8).
func TestCrashDump(t *testing.T) {
	devtest.NeedsFunction(t, "registers")
	for _, tt := range []struct {
		how   string
		code  uint32
		fault npureg.Status
		pc    uint32
	}{
		{"trap", npureg.BootErrTrap, npureg.StatusFirmwareTrap, 0xdead0000},
		{"hang", npureg.BootErrWatchdog, npureg.StatusWatchdog, 0},
	} {
		t.Run(tt.how, func(t *testing.T) {
			h, context := ready(t)
			succeed(h)
			if s := h.Read32(npureg.CrashStatus); s != 0 || h.Read32(npureg.CrashSize) != 0 || h.Read32(npureg.CrashData) != 0 {
				t.Errorf("CRASH_STATUS %#x before a crash", s)
			}
			must(t, h.Dev.CrashFirmware(tt.how))
			within(t, "BOOT_STATUS is FAILED", func() bool { return h.Read32(npureg.BootStatus) == npureg.BootFailed|tt.code<<8 })
			if err := h.Dev.CrashFirmware(tt.how); err == nil {
				t.Error("firmware that is dead crashes again")
			}
			if s := h.Read32(npureg.FaultStatus); npureg.Status(s>>16) != tt.fault {
				t.Errorf("FAULT_STATUS %#x, want %v", s, tt.fault)
			}
			if s := h.Read32(npureg.CrashStatus); s != npureg.CrashValid|1<<16 {
				t.Errorf("CRASH_STATUS %#x", s)
			}
			succeed(h) // user queues go on
			d := crashDump(h)
			w := func(off int) uint32 { return le.Uint32(d[off:]) }
			logAt, logSize := w(0x30), w(0x34)
			for _, f := range []struct {
				name string
				off  int
				want uint32
			}{
				{"magic", 0, npureg.CrashMagic}, {"version", 4, 1}, {"size", 8, uint32(len(d))}, {"number", 12, 1},
				{"BOOT_STATUS", 0x10, npureg.BootFailed | tt.code<<8}, {"FW_ERROR_DETAIL", 0x14, h.Read32(npureg.FWErrorDetail)},
				{"FW_VERSION", 0x18, npureg.FirmwareMajor<<16 | npureg.FirmwareMinor}, {"FW_BUILD", 0x1c, h.Read32(npureg.FWBuild)},
				{"ARCH_VERSION", 0x28, h.Read32(npureg.ArchVersion)}, {"queues", 0x2c, 8}, {"log", 0x30, npureg.CrashQueues + 8*16}, {"log size", 0x34, 64 * 128},
				{"queue 1: state, context", 0x200, npureg.QueueEnabled | context<<16}, {"queue 1: SQ", 0x204, 1 | 1<<16}, {"queue 1: sizes", 0x20c, 8 | 8<<16},
				{"queue 2", 0x210, 0},
			} {
				if got := w(f.off); got != f.want {
					t.Errorf("%s: %#x, want %#x", f.name, got, f.want)
				}
			}
			if mcause, mepc := w(0x5c), w(0x58); tt.how == "trap" && (mcause != 1 || mepc != tt.pc || w(0x60) != tt.pc) {
				t.Errorf("mcause %d, mepc %#x, mtval %#x", mcause, mepc, w(0x60))
			}
			sp := w(npureg.CrashRegs + 8)
			if sp < npureg.CPSRAMBase || sp >= npureg.CPSRAMBase+npureg.CPSRAMSize || bytes.Count(d[npureg.CrashStack:npureg.CrashQueues], []byte{0}) == 256 {
				t.Errorf("sp %#x, or no stack", sp)
			}
			lines := fwEntries(d[logAt:][:logSize])
			if len(lines) == 0 || tt.how == "trap" && lines[len(lines)-1] != (fwEntry{lines[len(lines)-1].number, 3, "trap: cause 0x1 at 0xdead0000, value 0xdead0000"}) {
				t.Errorf("log lines %+v", lines)
			}

			h.StartAdmin(16) // a driver that recovers
			h.Write32(npureg.AQControl, 0)
			if s := h.Boot(firmware.Image()); s != npureg.BootReady {
				t.Fatalf("BOOT_STATUS %#x", s)
			}
			h.StartAdmin(16)
			if p := append(h.LogFrom(7, 4096, 0), h.LogFrom(7, 4096, 4096)...); !bytes.Equal(p, d[:min(len(d), 8192)]) {
				t.Errorf("log page 7 has %d bytes, which are not those of the registers", len(p))
			}
			if p := h.LogFrom(7, 4096, uint32(len(d))); len(p) != 0 {
				t.Errorf("%d bytes behind the end", len(p))
			}
			if _, _, r := errorLog(h, 0); len(r) != 1 || r[0].Kind != npureg.ErrorFirmware || uint32(r[0].Detail) != tt.code {
				t.Errorf("error log %+v", r)
			}
			if devtest.InUse() == devtest.GoKVM {
				h.Write32(npureg.DeviceControl, npureg.DeviceControlReset)
			} else {
				must(t, h.Client.Reset())
			}
			h.SetCommand(6)
			h.AwaitReset()
			if !bytes.Equal(crashDump(h), d) {
				t.Error("the dump does not survive a reset")
			}
			h.Write32(npureg.CrashStatus, npureg.CrashValid)
			if s := h.Read32(npureg.CrashStatus); s != 1<<16 || h.Read32(npureg.CrashSize) != 0 {
				t.Errorf("CRASH_STATUS %#x after it was cleared", s)
			}
		})
	}
}

// TestRemoval: a card that is removed answers nothing and does nothing; insertion is a conventional reset (§9.4).
func TestRemoval(t *testing.T) {
	devtest.NeedsFunction(t, "removal")
	devtest.NeedsBus(t)
	h, _ := ready(t)
	h.WriteDRAM(0x8000, []byte("kept"))
	src, from := h.Alloc(8192)
	for i := range from {
		from[i] = 1
	}
	h.Submit(1, endless(0, 0, src, src+4096))
	time.Sleep(5 * time.Millisecond)
	if err := h.Dev.Insert(); err == nil {
		t.Error("a card that is there was inserted")
	}
	must(t, h.Dev.Remove())
	if err := h.Dev.Remove(); err == nil {
		t.Error("a card that is gone was removed")
	}
	clear(from[4096:])
	ones := bytes.Repeat([]byte{0xff}, 8)
	all := func(when string) {
		t.Helper()
		for _, r := range []struct {
			region int
			off    uint64
			n      int
		}{
			{vfiouser.RegionConfig, 0, 4}, {vfiouser.RegionConfig, 0x104, 4}, {vfiouser.RegionConfig, 6, 1}, {vfiouser.RegionBAR0, npureg.ID, 4}, {vfiouser.RegionBAR0, npureg.DeviceStatus, 4},
			{vfiouser.RegionBAR0, 0, 8}, {vfiouser.RegionBAR0 + 2, 0x8000, 8}, {vfiouser.RegionBAR0 + 4, 0, 8},
		} {
			p := make([]byte, r.n)
			must(t, h.Client.ReadRegion(r.region, r.off, p))
			if !bytes.Equal(p, ones[:r.n]) {
				t.Errorf("%s: region %d at %#x reads % x", when, r.region, r.off, p)
			}
			must(t, h.Client.WriteRegion(r.region, r.off, make([]byte, r.n)))
		}
	}
	all("removed")
	h.SetCommand(6)
	all("with its command register written")
	must(t, h.Client.Reset())
	all("reset")
	time.Sleep(20 * time.Millisecond)
	if bytes.Count(from[4096:], []byte{0}) != 4096 {
		t.Error("a removed card writes to memory")
	}
	if err := h.Dev.InjectMemoryError("corrected", "dram", 0); err == nil {
		t.Error("a removed card has a memory error")
	}
	if _, err := h.Dev.InjectError("bad-tlp", nil); err == nil {
		t.Error("a removed card has an error of its link")
	}
	if f := h.Dev.Findings(); len(f) != 0 {
		t.Errorf("findings %v: it is the operator's doing", f)
	}
	if !h.Dev.Status().Removed {
		t.Error("status does not tell")
	}

	must(t, h.Dev.Insert())
	p := make([]byte, 4)
	must(t, h.Client.ReadRegion(vfiouser.RegionConfig, 0, p))
	if le.Uint32(p) != vdev.DeviceID<<16|vdev.VendorID {
		t.Errorf("vendor and device % x after insertion", p)
	}
	must(t, h.Client.ReadRegion(vfiouser.RegionConfig, 4, p))
	if le.Uint16(p) != 0 {
		t.Errorf("command %#x after insertion", le.Uint16(p))
	}
	h.SetCommand(6)
	prepare(h)
	succeed(h)
	if !h.Interrupted(1, devtest.Timeout) {
		t.Error("no interrupt after insertion")
	}
	at, q := h.Alloc(4)
	if c := h.Do(1, copyEntry(1, 0, 0x8000, at, 4, 1, 1)); c.Status != 0 || string(q) != "kept" {
		t.Errorf("device memory %q: %v", q, c)
	}
}

// TestOperatorHammer has an operator at the card's health from several sides while it works; under -race this looks at the locks.
func TestOperatorHammer(t *testing.T) {
	h, _ := ready(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, do := range []func(i int) error{
		func(i int) error { return h.Dev.InjectMemoryError("corrected", "dram", uint64(i%4096)) },
		func(i int) error { return h.Dev.InjectMemoryError("uncorrected", "scratchpad", uint64(i%512)) },
		func(i int) error { return force(h, []float64{20, 86, 96, 110}[i%4]) },
		func(int) error {
			if s := h.Dev.Status(); s.Health == nil {
				return errors.New("no health")
			}
			return nil
		},
	} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				if err := do(i); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	launch := h.Launch(program(t, ".spad 1024\n.bindings 1\nstore binding=0 local=0 nx=512\nhalt\n"), devtest.Binding{Addr: 0x4000, Size: 512, Write: true, Space: 1})
	met := map[npureg.Status]int{}
	const n = 20
	for i := range n {
		met[h.Do(1, copyEntry(1, 1, 0, 1<<19, 4096, 4, 1)).Status]++
		met[h.Do(1, launch).Status]++
		if c := h.Admin(resetEngine(uint32(1 + i%3))); c.Status != npureg.StatusSuccess {
			t.Errorf("RESET_ENGINE: %v", c)
		}
		h.Submit(1, endless(1, 1, 0, 4096))
		for ended := uint32(0); ended == 0; { // it may wait for the card to cool
			ended = h.Admin(resetEngine(npureg.EngineDMA)).Result
		}
		met[h.Wait(1).Status]++
		if next, oldest, l := errorLog(h, 0); len(l) != int(next-oldest) || next > 64 && len(l) != 64 {
			t.Errorf("error log of %d records, %d to %d", len(l), oldest, next)
		}
	}
	close(stop)
	wg.Wait()
	must(t, h.Dev.SetThermal(nil, nil, true))
	succeed(h)
	if met[npureg.StatusEngineReset] != n || met[npureg.StatusSuccess]+met[npureg.StatusPoison] != 2*n {
		t.Errorf("completions %v", met)
	}
	t.Log(met)
}
