// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npuemu/firmware/cpu"
	"npuemu/mmio/npureg"
)

// sick is a RAS whose state the test decides.
type sick struct {
	next       uint32
	sensors    [npureg.SensorCount]uint64
	thresholds [npureg.ThrottleCritical]int32
	reset      uint32 // engines whose reset is not over
	slow       bool   // engine resets take a while
	ended      uint32
	resets     int
	crashes    []uint32
}

func (s *sick) ErrorNext() uint32                               { return s.next }
func (s *sick) ErrorWord(number uint32, i int) uint32           { return number<<8 | uint32(i) }
func (s *sick) Sensor(i int) uint64                             { return s.sensors[i%npureg.SensorCount] }
func (s *sick) Thresholds(milli [npureg.ThrottleCritical]int32) { s.thresholds = milli }
func (s *sick) EngineState() (resetting, ended uint32)          { return s.reset, s.ended }
func (s *sick) Queue(index int) [npureg.CrashQueue / 4]uint32 {
	return [4]uint32{uint32(index), 2, 3, 4}
}
func (s *sick) Crashed(code, _ uint32) { s.crashes = append(s.crashes, code) }
func (s *sick) ResetEngines(mask uint32) {
	s.resets++
	if s.slow {
		s.reset = mask
	}
}

func sickDriver(t testing.TB) (*driver, *sick) {
	t.Helper()
	s := new(sick)
	b := newBoardWith(t, nil, s)
	b.mu.Lock()
	t.Cleanup(b.mu.Unlock)
	return startDriver(t, b, 8, 8), s
}

var (
	goodThreshold = command(npureg.AdminSetThreshold, 0x08, uint32(2), 0x0c, uint32(90_000))
	goodReset     = command(npureg.AdminResetEngine, 0x08, uint32(npureg.EngineAll))
)

// Every rule of §12 for commands, one command on a device with 3 error records and no crash dump.
func TestRASCommands(t *testing.T) {
	field := func(off uint64) completion { return completion{Status: npureg.StatusInvalidField, Info: off} }
	result := func(v uint32) completion { return completion{Result: v} }
	page := func(n uint32, fields ...any) [64]byte { return with(with(goodLog, 0x14, n), fields...) }
	minus := func(v int32) uint32 { return uint32(-v) }
	for _, tt := range []struct {
		name string
		e    [64]byte
		want completion
	}{
		{"threshold", goodThreshold, completion{}},
		{"threshold of level 0", with(goodThreshold, 0x08, uint32(0)), field(0x08)},
		{"threshold of level 4", with(goodThreshold, 0x08, uint32(4)), field(0x08)},
		{"threshold of level 2³¹", with(goodThreshold, 0x08, uint32(1<<31)), field(0x08)},
		{"threshold, like the level below", with(goodThreshold, 0x0c, uint32(85_000)), field(0x0c)},
		{"threshold, above the level below", with(goodThreshold, 0x0c, uint32(85_001)), completion{}},
		{"threshold, like the level above", with(goodThreshold, 0x0c, uint32(105_000)), field(0x0c)},
		{"threshold, below the level above", with(goodThreshold, 0x0c, uint32(104_999)), completion{}},
		{"threshold 1 of 0", with(goodThreshold, 0x08, uint32(1), 0x0c, uint32(0)), field(0x0c)},
		{"threshold 1 of 0.001 °C", with(goodThreshold, 0x08, uint32(1), 0x0c, uint32(1)), completion{}},
		{"threshold 1 of -1 °C", with(goodThreshold, 0x08, uint32(1), 0x0c, minus(1000)), field(0x0c)},
		{"critical threshold of 125 °C", with(goodThreshold, 0x08, uint32(3), 0x0c, uint32(125_000)), completion{}},
		{"critical threshold above that", with(goodThreshold, 0x08, uint32(3), 0x0c, uint32(125_001)), field(0x0c)},
		{"threshold, level and temperature wrong", with(goodThreshold, 0x08, uint32(9), 0x0c, uint32(0)), field(0x08)},
		{"threshold, temperature wrong and reserved", with(goodThreshold, 0x0c, uint32(0), 0x10, uint32(1)), field(0x0c)},

		{"engine reset", goodReset, completion{}},
		{"engine reset of none", with(goodReset, 0x08, uint32(0)), field(0x08)},
		{"engine reset of a third", with(goodReset, 0x08, uint32(4)), field(0x08)},
		{"engine reset of all bits", with(goodReset, 0x08, ^uint32(0)), field(0x08)},
		{"engine reset of none, and reserved", with(goodReset, 0x08, uint32(0), 0x0c, uint32(1)), field(0x08)},

		{"telemetry", page(4), result(8 * npureg.SensorCount)},
		{"telemetry, cut", page(4, 0x10, uint32(7)), result(7)},
		{"telemetry with a cursor", page(4, 0x18, uint32(1)), field(0x18)},
		{"errors", page(5), result(npureg.LogHeaderSize + 3*npureg.ErrorRecordSize)},
		{"errors, one record fits", page(5, 0x10, uint32(2*npureg.LogHeaderSize+npureg.ErrorRecordSize-1)), result(npureg.LogHeaderSize + npureg.ErrorRecordSize)},
		{"errors, from the last", page(5, 0x18, uint32(2)), result(npureg.LogHeaderSize + npureg.ErrorRecordSize)},
		{"errors, behind the last", page(5, 0x18, ^uint32(0)), result(npureg.LogHeaderSize)},
		{"errors, reserved", page(5, 0x1c, uint32(1)), field(0x1c)},
		{"errors, size 0", page(5, 0x10, uint32(0)), field(0x10)},
		{"errors, not mapped", page(5, 0x08, uint64(0x1000)), completion{Status: npureg.StatusBusFault, Info: 0x1000}},
		{"log", page(6, 0x18, ^uint32(0)), result(npureg.LogHeaderSize)},
		{"log, reserved", page(6, 0x3c, uint32(1)), field(0x1c)},
		{"dump", page(7), result(0)},
		{"dump, not mapped", page(7, 0x08, uint64(0x1000)), result(0)},
		{"dump, from 4", page(7, 0x18, uint32(4)), result(0)},
		{"dump, from 2", page(7, 0x18, uint32(2)), field(0x18)},
		{"dump, from 2 and reserved", page(7, 0x18, uint32(2), 0x1c, uint32(1)), field(0x18)},
		{"page 8", page(8), completion{Status: npureg.StatusInvalidLogPage}},
		{"page 8 with a cursor", page(8, 0x18, uint32(1)), field(0x18)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, s := sickDriver(t)
			s.next = 3
			before := s.thresholds
			if diff := cmp.Diff(tt.want, d.do(t, tt.e)); diff != "" {
				t.Errorf("completion (-want +got):\n%s", diff)
			}
			if tt.want.Status != 0 && (s.thresholds != before || s.resets != 0) {
				t.Error("a refused command had an effect")
			}
			if tt.want.Status == 0 && (tt.e[0] == npureg.AdminSetThreshold) == (s.thresholds == before) {
				t.Errorf("thresholds %v, before %v", s.thresholds, before)
			}
		})
	}
}

func TestRASReserved(t *testing.T) {
	for _, tt := range []struct {
		name  string
		e     [64]byte
		start int
	}{
		{"SET_THRESHOLD", goodThreshold, 0x10}, {"RESET_ENGINE", goodReset, 0x0c},
		{"telemetry", with(goodLog, 0x14, uint32(4)), 0x18}, {"errors", with(goodLog, 0x14, uint32(5)), 0x1c}, {"dump", with(goodLog, 0x14, uint32(7)), 0x1c},
	} {
		d, _ := sickDriver(t)
		for _, f := range [][2]int{{1, 2}, {4, 8}, {tt.start, 64}} {
			for off := f[0]; off < f[1]; off++ {
				want := completion{Status: npureg.StatusInvalidField, Info: uint64(f[0])}
				if diff := cmp.Diff(want, d.do(t, with(tt.e, off, uint8(0x80)))); diff != "" {
					t.Fatalf("%s: byte %#x (-want +got):\n%s", tt.name, off, diff)
				}
			}
		}
	}
}

// RESET_ENGINE completes when hardware is done, and other commands meanwhile.
func TestEngineResetWaits(t *testing.T) {
	d, s := sickDriver(t)
	s.slow = true
	id := d.put(goodReset)
	d.ring(t)
	if c, ok := d.take(t); ok {
		t.Fatalf("completion %+v while the engine is reset", c)
	}
	if c := d.do(t, goodContext); c.Status != 0 {
		t.Errorf("CREATE_CONTEXT meanwhile: %+v", c)
	}
	if c := d.do(t, goodReset); c.Status != npureg.StatusBusy || s.resets != 1 {
		t.Errorf("RESET_ENGINE meanwhile: %+v, %d resets", c, s.resets)
	}
	s.reset, s.ended = 0, 1
	d.p.QueueEvent()
	d.settle(t)
	if c, ok := d.take(t); !ok || c.CommandID != id || c.Result != 1 || c.Status != 0 {
		t.Errorf("completion %+v, %v", c, ok)
	}

	// One whose queue goes away has no completion, and the next queue can have another.
	d.put(goodReset)
	d.ring(t)
	d.enable(t, 8, 8)
	s.reset = 0
	d.p.QueueEvent()
	d.settle(t)
	if c, ok := d.take(t); ok {
		t.Errorf("completion %+v in the next admin queue", c)
	}
	s.slow = false
	if c := d.do(t, goodReset); c.Status != 0 || s.resets != 3 {
		t.Errorf("RESET_ENGINE: %+v, %d resets", c, s.resets)
	}
}

// Pages 4 and 5 are what hardware says.
func TestRASPages(t *testing.T) {
	d, s := sickDriver(t)
	s.next = 70
	var want []byte
	p32, p64 := binary.LittleEndian.AppendUint32, binary.LittleEndian.AppendUint64
	for i := range s.sensors {
		s.sensors[i] = uint64(i+1)<<33 | uint64(0x80000000+i)
		want = p64(want, s.sensors[i])
	}
	d.do(t, with(goodLog, 0x14, uint32(4)))
	if diff := cmp.Diff(want, d.bus(bufAddr, len(want))); diff != "" {
		t.Errorf("page 4 (-want +got):\n%s", diff)
	}
	d.do(t, with(goodLog, 0x14, uint32(5), 0x18, uint32(68)))
	want = p64(p64(p32(p32(p32(p32(nil, 70), 2), 6), 32), s.sensors[npureg.SensorUptime]), 0)
	for _, n := range []uint32{68, 69} {
		for i := range uint32(8) {
			want = p32(want, n<<8|i)
		}
	}
	if diff := cmp.Diff(want, d.bus(bufAddr, len(want))); diff != "" {
		t.Errorf("page 5 (-want +got):\n%s", diff)
	}
}

// A change of the throttle level is logged, and announced when it is for the worse.
func TestThrottleIsLogged(t *testing.T) {
	d, s := sickDriver(t)
	for _, tt := range []struct {
		level     uint64
		announced bool
	}{{2, true}, {2, false}, {1, false}, {3, true}} {
		s.sensors[npureg.SensorThrottle] = tt.level
		d.irqs = nil
		d.now += time.Second
		d.settle(t)
		if got := len(d.irqs) == 1 && d.irqs[0] == npureg.IRQFirmware; got != tt.announced {
			t.Errorf("level %d: causes %v, want FIRMWARE: %v", tt.level, d.irqs, tt.announced)
		}
	}
	d.logged(t, "thermal: level 0x3, millidegrees 0x0")
}

// What firmware writes into the registers of §12 is its own; none of it harms.
func TestRASRegisters(t *testing.T) {
	s := new(sick)
	b := newBoardWith(t, nil, s)
	b.mu.Lock()
	defer b.mu.Unlock()
	h := hart{b, t}
	s.next = 9
	if v := h.get(npureg.CPErrorNext); v != 9 {
		t.Errorf("CP_ERROR_NEXT %d", v)
	}
	h.set(npureg.CPErrorSelect, 7)
	for i := range uint32(10) {
		if v := h.get(npureg.CPErrorData); v != 7<<8|i {
			t.Errorf("word %d: %#x", i, v)
		}
	}
	h.set(npureg.CPErrorSelect, 8)
	if v := h.get(npureg.CPErrorData); v != 8<<8 {
		t.Errorf("first word of another record: %#x", v)
	}
	s.sensors[3] = 5<<32 | 6
	h.set(npureg.CPSensorIndex, 3)
	if lo, hi := h.get(npureg.CPSensorLo), h.get(npureg.CPSensorHi); lo != 6 || hi != 5 {
		t.Errorf("sensor %d, %d", lo, hi)
	}
	h.set(npureg.CPThermal2, ^uint32(0))
	if want := [3]int32{npureg.ThermalDefault1, -1, npureg.ThermalDefaultCritical}; s.thresholds != want {
		t.Errorf("thresholds %v, want %v", s.thresholds, want)
	}
	s.slow = true
	h.set(npureg.CPEngineReset, 0)
	if s.resets != 0 {
		t.Error("no engine was reset")
	}
	h.set(npureg.CPEngineReset, ^uint32(0))
	s.ended = 4
	if v, e := h.get(npureg.CPEngineReset), h.get(npureg.CPEngineEnded); v != npureg.EngineAll || e != 4 {
		t.Errorf("CP_ENGINE_RESET %#x, CP_ENGINE_ENDED %d", v, e)
	}
	b.p.Reset()
	if want := [3]int32{npureg.ThermalDefault1, npureg.ThermalDefault2, npureg.ThermalDefaultCritical}; s.thresholds != want {
		t.Errorf("thresholds after reset %v, want %v", s.thresholds, want)
	}

	// Without a RAS they are nothing.
	old := newHart(t)
	for off := uint32(npureg.CPErrorNext); off <= npureg.CPCrashData; off += 4 {
		old.set(off, ^uint32(0))
		old.get(off)
	}
}

// The dump of firmware that tells hardware nonsense has less in it.
func TestCrashDump(t *testing.T) {
	const ram = npureg.CPSRAMBase
	word := func(d []byte, off int) uint32 { return binary.LittleEndian.Uint32(d[off:]) }
	for _, tt := range []struct {
		name        string
		base, size  uint32 // log
		frame, sp   uint32
		logSize, x1 uint32
		stack       bool
	}{
		{"all in order", ram + 0x1000, 256, ram + 0x2000, ram + 0x3000, 256, 0x11111111, true},
		{"no log, no frame", 0, 0, 0, ram + 0x3000, 0, 7, true},
		{"log outside SRAM", 0x40000000, 256, 1, ram + 0x3000, 0, 7, true},
		{"log larger than it may be", ram, ^uint32(0), 0, ram + 0x3000, 8192, 7, true},
		{"log at the end of SRAM", ram + npureg.CPSRAMSize - 16, 256, 0, ram + 0x3000, 16, 7, true},
		{"frame at the end of SRAM", ram, 0, ram + npureg.CPSRAMSize - 64, ram + 0x3000, 0, 7, true},
		{"stack outside SRAM", ram, 0, 0, 0, 0, 7, false},
		{"stack at the end of SRAM", ram, 0, 0, ram + npureg.CPSRAMSize - 4, 0, 7, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := new(sick)
			b := newBoardWith(t, nil, s)
			b.mu.Lock()
			defer b.mu.Unlock()
			h := hart{b, t}
			for i := range b.p.sram {
				b.p.sram[i] = 0x11
			}
			binary.LittleEndian.PutUint32(b.p.sram[0x2008:], tt.sp) // x2 of the frame
			b.p.core.SetReg(1, 7)
			b.p.core.SetReg(2, tt.sp)
			h.set(npureg.CPLogBase, tt.base, tt.size, tt.frame)
			h.set(npureg.CPFWErrorDetail, 0xabc)
			h.set(npureg.CPBootStatus, failed(npureg.BootErrTrap))
			number, n := b.p.CrashDump()
			d := make([]byte, 0, n)
			for off := uint32(0); off < uint32(n); off += 4 {
				d = binary.LittleEndian.AppendUint32(d, b.p.CrashWord(off))
			}
			if want := npureg.CrashQueues + testQueues*npureg.CrashQueue + int(tt.logSize); number != 1 || n != want || int(word(d, 8)) != want {
				t.Fatalf("dump %d of %d bytes, want 1 of %d", number, n, want)
			}
			if v := word(d, npureg.CrashRegs+4); v != tt.x1 {
				t.Errorf("x1 %#x, want %#x", v, tt.x1)
			}
			if stack := d[npureg.CrashStack] == 0x11; stack != tt.stack {
				t.Errorf("stack there: %v, want %v", stack, tt.stack)
			}
			if v := word(d, npureg.CrashQueues+4*npureg.CrashQueue); v != testQueues {
				t.Errorf("last queue %d", v)
			}
			if v := b.p.CrashWord(uint32(n)); v != 0 {
				t.Errorf("behind the end %#x", v)
			}
			if v := b.p.CrashWord(^uint32(3)); v != 0 {
				t.Errorf("far behind the end %#x", v)
			}
			if len(s.crashes) != 1 || s.crashes[0] != npureg.BootErrTrap {
				t.Errorf("crashes %v", s.crashes)
			}
			h.set(npureg.CPCrashSelect, 0x14)
			if v, next := h.get(npureg.CPCrashData), h.get(npureg.CPCrashSelect); v != 0xabc || next != 0x18 {
				t.Errorf("CP_CRASH_DATA %#x, CP_CRASH_SELECT %#x", v, next)
			}
			b.p.Reset()
			if _, again := b.p.CrashDump(); again != n {
				t.Error("a reset loses the dump")
			}
			b.p.FreeCrashDump()
			if number, n := b.p.CrashDump(); number != 1 || n != 0 {
				t.Errorf("dump %d of %d bytes after it was freed", number, n)
			}
		})
	}
}

// Which failures leave a dump: those of firmware, not of its image.
func TestCrashDumpOf(t *testing.T) {
	for _, tt := range []struct {
		name string
		img  []byte
		wait time.Duration
		code uint32
		dump bool
	}{
		{"image that is none", make([]byte, 128), 0, npureg.BootErrMagic, false},
		{"exception before the vector is set", program(t, insnIllegal), 0, npureg.BootErrTrap, true},
		{"exception in the vector", program(t, 0x200002b7, 0x30529073, insnIllegal), 0, npureg.BootErrTrap, true},
		{"never ready", program(t, insnWFI, insnHang), time.Hour, npureg.BootErrTimeout, true},
		{"watchdog", program(t, insnRegs, insnLI(9), insnSW(npureg.CPWatchdogPeriod), insnWFI), time.Second, npureg.BootErrWatchdog, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBoardWith(t, nil, new(sick))
			b.mu.Lock()
			defer b.mu.Unlock()
			b.load(tt.img)
			b.p.Start()
			for range grace + 2 {
				b.p.step()
			}
			b.now += tt.wait
			for range grace + 2 {
				b.p.step()
			}
			if s := b.host.Value(npureg.BootStatus); s != failed(tt.code) {
				t.Fatalf("BOOT_STATUS %#x, want %#x", s, failed(tt.code))
			}
			if _, n := b.p.CrashDump(); (n != 0) != tt.dump {
				t.Errorf("dump of %d bytes, want one: %v", n, tt.dump)
			}
		})
	}
	b := lockedBoard(t)
	if s := b.start(t, program(t, insnIllegal)); s != failed(npureg.BootErrTrap) {
		t.Fatalf("BOOT_STATUS %#x", s)
	}
	if _, n := b.p.CrashDump(); n != 0 {
		t.Error("a processor without RAS has a dump")
	}
}

// The real firmware's registers at an exception are in the dump, not those of its handler.
func TestCrashRegisters(t *testing.T) {
	d, _ := sickDriver(t)
	want := []uint32{0}
	for i := 1; i < 32; i++ {
		v := uint32(0x01010101 * i)
		if i == 2 {
			v = npureg.CPSRAMBase + 0x30000
		}
		d.p.core.SetReg(i, v)
		want = append(want, v)
	}
	if err := d.p.CrashHart(); err != nil {
		t.Fatal(err)
	}
	d.settle(t)
	var got []uint32
	for i := range uint32(32) {
		got = append(got, d.p.CrashWord(npureg.CrashRegs+4*i))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("x0 to x31 (-want +got):\n%s", diff)
	}
	if v, _ := d.p.core.CSR(cpu.Mepc); v != trapPC {
		t.Errorf("mepc %#x", v)
	}
}

// A hart that an operator stopped does nothing until the watchdog fires, and boots again.
func TestHang(t *testing.T) {
	d, _ := sickDriver(t)
	if err := d.p.HangHart(); err != nil {
		t.Fatal(err)
	}
	d.put(goodContext)
	d.ring(t)
	if c, ok := d.take(t); ok {
		t.Errorf("completion %+v of firmware that hangs", c)
	}
	d.now += 3 * time.Second
	d.settle(t)
	if s := d.host.Value(npureg.BootStatus); s != failed(npureg.BootErrWatchdog) {
		t.Fatalf("BOOT_STATUS %#x", s)
	}
	for _, err := range []error{d.p.CrashHart(), d.p.HangHart()} {
		if err == nil || !strings.Contains(err.Error(), "there is nothing to crash") {
			t.Errorf("dead firmware: %v", err)
		}
	}
	if s := d.start(t, Image()); s != npureg.BootReady {
		t.Fatalf("BOOT_STATUS %#x after a restart", s)
	}
	d.enable(t, 8, 8)
	if c := d.do(t, goodContext); c.Status != 0 {
		t.Errorf("CREATE_CONTEXT: %+v", c)
	}
}

// A line that is longer than an entry is cut, and the log's numbers go on over its wrap.
func TestFirmwareLogEntries(t *testing.T) {
	d, _ := sickDriver(t)
	d.now += 5 * time.Second
	d.settle(t)
	for range 3 {
		d.do(t, command(0xff))
	}
	d.do(t, with(goodLog, 0x14, uint32(6), 0x18, uint32(3)))
	b := d.bus(bufAddr, npureg.LogHeaderSize+2*npureg.FWLogEntrySize)
	u32 := binary.LittleEndian.Uint32
	if u32(b) != 5 || u32(b[4:]) != 2 || u32(b[8:]) != 1 || binary.LittleEndian.Uint64(b[16:]) != 5_000_000 {
		t.Errorf("head % x", b[:npureg.LogHeaderSize])
	}
	e := b[npureg.LogHeaderSize:]
	if text := string(e[0x10:][:e[5]]); u32(e) != 3 || e[4] != 6 || !strings.HasPrefix(text, "admin: refused opcode 0xff") || binary.LittleEndian.Uint64(e[8:]) != 5_000_000 {
		t.Errorf("entry %d, level %d: %q", u32(e), e[4], text)
	}
}
