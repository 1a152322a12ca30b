// SPDX-License-Identifier: Apache-2.0

// Package firmware models the control processor of docs/spec/boot.md (§3): the
// hart with boot ROM and SRAM, its registers (§2.2), timer, watchdog, mover and
// console, and the boot registers that the host sees. What the processor does is
// decided by the ROM and the firmware, both built from src/.
//
// Ownership. The board's lock (Config.Lock) guards everything here. Run executes
// the hart in slices of a few thousand instructions with the lock held, and
// releases it between slices, while the hart waits, and during a mover copy or an invalidation. All
// other methods are called with the lock held, from any goroutine, and only
// record and wake Run. Calls to Host, Queues, MMU and Counter are made with the lock held, but for invalidations; of the methods here they may call QueueEvent
// only. Calls to Mover are made without the lock.
//
// Time is the host's, read through Config.Now; it drives CP_TIME, the timer
// interrupt, the boot timeout and the watchdog, each checked between slices. Left
// out: software interrupts, and a hart that runs while the mover copies or the MMU invalidates. An external debugger
// (Debugger) is not part of the model; it stops hart and time.
package firmware

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"npuemu/dma/iova"
	"npuemu/firmware/cpu"
	"npuemu/mmio"
	"npuemu/mmio/npureg"
)

//go:embed npu_rom.bin
var rom string

//go:embed npu_fw.bin
var fw string

// Image returns a copy of the firmware image (§3.3) that a driver loads.
func Image() []byte { return []byte(fw) }

const (
	// slice bounds how long the lock is held: some 100 µs.
	slice = 10_000
	// romBudget is enough for the ROM to get from reset to WAITING, a few dozen
	// instructions.
	romBudget = 1000
	// grace is the slices that a hart gets after a deadline: some milliseconds, and
	// enough mover copies (each ends a slice) for firmware to get to its kick.
	grace = 50
)

// Mover accesses the bus. An error is a bus fault, and may come after a part was
// moved. Read fills p and Write sends it; p belongs to the caller again when they
// return.
type Mover interface {
	Read(addr iova.Addr, p []byte) error
	Write(addr iova.Addr, p []byte) error
}

// Host is the part of the device that the driver sees.
type Host interface {
	// Register returns what a driver would read at off in the first page of BAR0,
	// without side effects.
	Register(off uint32) uint32
	// SetRegister changes BOOT_STATUS, FW_VERSION, FW_BUILD or FW_ERROR_DETAIL.
	// DEVICE_STATUS.READY and FAILED follow from BOOT_STATUS.
	SetRegister(off, v uint32)
	// Raise sets causes of IRQ_STATUS (npureg.IRQ…), §8.2.
	Raise(causes uint32)
	// Fault writes a fault record and raises FAULT (§9.3).
	Fault(f Fault)
	// MoverIdle says that the mover copy which Reset found in flight has ended.
	MoverIdle()
}

// MMU is the hardware behind CP_MMU_… (§11.7). Invalidate and InvalidateAll are called without the
// lock, and return when no access runs with an old translation.
type MMU interface {
	// Translate makes the addresses of a context virtual, by the table at root in a space.
	// It ignores what hardware does not have.
	Translate(context uint16, space uint8, root uint64)
	Remove(context uint16)
	// State returns npureg.MMUTranslated and MMUFaulted of a context.
	State(context uint16) uint32
	Invalidate(context uint16, va, size uint64) // no size: all of the context
	InvalidateAll()
	// Log returns the fault log (§11.6), a multiple of 4 bytes.
	Log() []byte
}

// RAS is the hardware behind CP_ERROR_…, CP_SENSOR_…, CP_THERMAL_… and CP_ENGINE_… (§12).
type RAS interface {
	// ErrorNext returns the number of the error log's next record, ErrorWord the word i of a
	// record, 0 if it is not there (any more).
	ErrorNext() uint32
	ErrorWord(number uint32, i int) uint32
	// Sensor returns npureg.Sensor….
	Sensor(index int) uint64
	// Thresholds sets the thresholds in m°C (§12.5).
	Thresholds(milli [npureg.ThrottleCritical]int32)
	// ResetEngines resets npureg.Engine…; Processor.QueueEvent is called when that takes a while and is over. EngineState
	// returns those whose reset is not over, and how many commands the last one ended.
	ResetEngines(mask uint32)
	EngineState() (resetting, ended uint32)
	// Queue returns a queue as the crash dump has it (§12.8).
	Queue(index int) [npureg.CrashQueue / 4]uint32
	// Crashed is told that there is a crash dump. code is npureg.BootErr….
	Crashed(code, pc uint32)
}

// Fault is a fault record (§9.3).
type Fault struct {
	Code          npureg.Status
	Queue, Source uint8 // Source is npureg.Fault…
	Index         uint16
	Addr          iova.Addr
}

// Config is what New needs. Everything but RAS and Now is required.
type Config struct {
	Lock    sync.Locker
	Mover   Mover
	Host    Host
	Queues  Queues
	MMU     MMU
	RAS     RAS                    // nil without FEATURES_LO.RAS
	Counter func(index int) uint64 // npureg.Counter…
	Log     *slog.Logger
	Now     func() time.Duration // monotonic; nil is the time since New
}

// Processor is the control processor.
type Processor struct {
	cfg  Config
	core *cpu.Core
	rom  []byte
	sram []byte
	bank *mmio.Bank
	wake chan struct{} // holds a token when Run has to look again

	halted         bool
	resetAt        time.Duration
	state          uint32 // npureg.Boot…
	boot, watchdog deadline
	late           int // slices since a deadline passed
	aqEnabled      bool

	invalidate func() // an invalidation that was started and has not ended, or nil
	faults     []byte // what reads of CP_MMU_LOG return

	copy       move
	moving     bool   // Run accesses the bus for a copy
	stale      bool   // and Reset found it there
	generation uint64 // of the hart's reset; a copy of an earlier one has no effect
	staging    []byte // Run's, without the lock

	errorWord int // of the selected record of the error log
	crash     crash
	hung      bool // by HangHart

	console []byte
	logs    limiter

	queueStatus [npureg.QueueStatusSize / 4]uint32 // latched for CP_QUEUE_STATUS
	trace       trace
	debug       debug
	clock       func() time.Duration     // that of the host; cfg.Now leaves out what a debugger took
	pure        map[uint32]func() uint32 // what reading a CP register returns, without the read's effects
}

// deadline is a point of Config.Now.
type deadline struct {
	on bool
	at time.Duration
}

func (d deadline) passed(now time.Duration) bool { return d.on && now >= d.at }

// move is a copy of the mover that was started and has not ended.
type move struct {
	control uint32 // npureg.Mover…, 0 for none
	addr    iova.Addr
	sram    []byte
}

// New returns a processor that is held in reset: Reset starts the ROM.
func New(cfg Config) *Processor {
	if cfg.Now == nil {
		start := time.Now()
		cfg.Now = func() time.Duration { return time.Since(start) }
	}
	p := &Processor{
		cfg:     cfg,
		clock:   cfg.Now,
		debug:   debug{events: make(chan Stop, 1)},
		pure:    map[uint32]func() uint32{},
		rom:     make([]byte, npureg.CPROMSize),
		sram:    make([]byte, npureg.CPSRAMSize),
		staging: make([]byte, npureg.CPSRAMSize),
		bank:    mmio.New(npureg.CPRegSize, npureg.CP()),
		wake:    make(chan struct{}, 1),
		halted:  true,
	}
	p.cfg.Now = func() time.Duration { return p.debug.now(p.clock()) }
	if copy(p.rom, rom) < len(rom) {
		panic(fmt.Sprintf("firmware: BUG: boot ROM of %d bytes in %d", len(rom), len(p.rom)))
	}
	core, err := cpu.New(cpu.Config{
		Regions: []cpu.Region{
			{Base: npureg.CPROMBase, Mem: p.rom, ReadOnly: true, Exec: true},
			{Base: npureg.CPSRAMBase, Mem: p.sram, Exec: true},
		},
		Bus:     bus{p},
		ResetPC: npureg.CPROMBase,
	})
	if err != nil {
		panic("firmware: BUG: " + err.Error())
	}
	p.core = core
	p.hooks()
	return p
}

// Reset is every reset of §9.4 that resets registers, and power-on. The ROM has
// run when it returns: BOOT_STATUS is WAITING. The board resets the host's other
// registers itself, before.
//
// busy says that a mover copy is in flight. It has no effect on the processor any
// more, but may still write memory until Host.MoverIdle is called, once for any
// number of resets (§9.4).
func (p *Processor) Reset() (busy bool) {
	p.aqEnabled = false
	p.resetHart()
	p.setBoot(npureg.BootOff, npureg.BootErrNone)
	p.runROM()
	p.trace.flush(p)
	if p.state != npureg.BootWaiting {
		panic(fmt.Sprintf("firmware: BUG: boot ROM is in state %d after reset", p.state))
	}
	p.notify()
	p.stale = p.moving
	return p.moving
}

func (p *Processor) resetHart() {
	p.halted, p.hung = false, false
	p.generation++
	p.copy = move{}
	p.invalidate, p.faults = nil, nil
	p.resetAt = p.cfg.Now()
	p.boot, p.watchdog, p.late = deadline{}, deadline{}, 0
	p.console = p.console[:0]
	p.bank.Reset()
	p.rasReset()
	clear(p.sram)
	p.core.Reset()
	p.trace.note("reset")
	p.external()
	p.timer(p.resetAt)
	for _, off := range []uint32{npureg.FWVersion, npureg.FWBuild, npureg.FWErrorDetail} {
		p.cfg.Host.SetRegister(off, 0)
	}
}

// Start is a write of 1 to BOOT_CONTROL.START (§3.2).
func (p *Processor) Start() {
	switch p.state {
	case npureg.BootWaiting:
	case npureg.BootFailed:
		p.resetHart()
	default:
		return
	}
	ms := p.cfg.Host.Register(npureg.BootTimeout) & 0xffff
	if ms == 0 {
		ms = 0x10000
	}
	p.boot = deadline{true, p.cfg.Now() + time.Duration(ms)*time.Millisecond}
	p.setBoot(npureg.BootLoading, npureg.BootErrNone)
	p.interrupt(npureg.CPIRQBoot)
}

// AdminControl is a write to AQ_CONTROL; enable is ENABLE after it (§4.4).
func (p *Processor) AdminControl(enable bool) {
	if enable == p.aqEnabled {
		return
	}
	p.aqEnabled = enable
	if enable {
		p.bank.Set(npureg.CPAQEpoch, p.bank.Value(npureg.CPAQEpoch)+1)
		p.bank.Set(npureg.CPASQTail, 0)
		p.bank.Set(npureg.CPACQHead, 0)
	}
	p.interrupt(npureg.CPIRQAdmin)
}

// RingAdminTail is a write to SQ_TAIL of queue 0 (§4.3).
func (p *Processor) RingAdminTail(v uint32) { p.ring(npureg.CPASQTail, v) }

// RingAdminHead is a write to CQ_HEAD of queue 0 (§4.3).
func (p *Processor) RingAdminHead(v uint32) { p.ring(npureg.CPACQHead, v) }

func (p *Processor) ring(off, v uint32) {
	v = min(v, 0xffff) // FAULT_INFO.INDEX has no more bits (§9.3), and no ring so many entries
	if p.state != npureg.BootReady || !p.aqEnabled || p.bank.Value(npureg.CPAQEpoch) == 0 {
		p.cfg.Host.Fault(Fault{Code: npureg.StatusQueueDisabled, Source: npureg.FaultDoorbell, Index: uint16(v)})
		return
	}
	p.bank.Set(off, v)
	p.interrupt(npureg.CPIRQAdmin)
}

// QueueEvent says that a user queue entered the error state or finished draining
// (§4.8).
func (p *Processor) QueueEvent() { p.interrupt(npureg.CPIRQQueue) }

// interrupt makes bits of CP_IRQ_PENDING 1 and wakes Run.
func (p *Processor) interrupt(bits uint32) {
	p.bank.SetBits(npureg.CPIRQPending, bits)
	p.external()
	p.notify()
}

func (p *Processor) notify() {
	select {
	case p.wake <- struct{}{}:
	default: // a token is there already
	}
}

// external drives the machine external interrupt (§3.7).
func (p *Processor) external() {
	p.core.SetInterrupt(cpu.MEI, p.bank.Value(npureg.CPIRQPending)&p.bank.Value(npureg.CPIRQEnable) != 0)
}

// timer drives the machine timer interrupt (§3.7).
func (p *Processor) timer(now time.Duration) {
	p.core.SetInterrupt(cpu.MTI, p.micros(now) >= p.compare())
}

// micros is CP_TIME.
func (p *Processor) micros(now time.Duration) uint64 {
	return uint64((now - p.resetAt) / time.Microsecond)
}

func (p *Processor) compare() uint64 {
	return uint64(p.bank.Value(npureg.CPTimeCmpHi))<<32 | uint64(p.bank.Value(npureg.CPTimeCmpLo))
}

// setBoot changes BOOT_STATUS and does what §3.2 attaches to the state.
func (p *Processor) setBoot(state, code uint32) {
	p.state = state
	p.cfg.Host.SetRegister(npureg.BootStatus, state|code<<8)
	switch state {
	case npureg.BootReady:
		p.boot = deadline{}
		p.log(slog.LevelInfo, "firmware is ready", slog.String("interface", version(p.cfg.Host.Register(npureg.FWVersion))))
		p.cfg.Host.Raise(npureg.IRQBoot)
	case npureg.BootFailed:
		p.halted = true
		p.boot, p.watchdog = deadline{}, deadline{}
		p.core.Yield()
		p.dump(code)
		p.log(slog.LevelWarn, "firmware failed: BOOT_STATUS is FAILED (§3.5)", slog.Uint64("error", uint64(code)),
			slog.String("detail", fmt.Sprintf("%#x", p.cfg.Host.Register(npureg.FWErrorDetail))))
		if s, ok := map[uint32]npureg.Status{
			npureg.BootErrTrap: npureg.StatusFirmwareTrap, npureg.BootErrWatchdog: npureg.StatusWatchdog,
		}[code]; ok {
			p.cfg.Host.Fault(Fault{Code: s, Source: npureg.FaultCP})
		}
		p.cfg.Host.Raise(npureg.IRQBoot)
		p.event(StopFailed)
	}
}

// die is setBoot for what hardware detects.
func (p *Processor) die(code, pc uint32) {
	p.cfg.Host.SetRegister(npureg.FWErrorDetail, pc)
	p.setBoot(npureg.BootFailed, code)
}

// Run executes the processor until ctx ends. It is called once.
func (p *Processor) Run(ctx context.Context) {
	p.cfg.Lock.Lock()
	defer p.cfg.Lock.Unlock()
	for ctx.Err() == nil {
		if p.step() {
			p.sleep(ctx)
			continue
		}
		p.cfg.Lock.Unlock()
		runtime.Gosched() // lets a connection that waits for the lock have it
		p.cfg.Lock.Lock()
	}
}

// step looks at the clock, runs one slice and does the copy that it started.
// idle says that only an event or next can give the hart something to do.
func (p *Processor) step() (idle bool) {
	if p.copy.control != 0 { // a debugger started it
		p.doCopy()
	}
	if p.debug.stepping && p.halted {
		p.event(StopFailed)
	}
	if p.debug.stopped || p.halted {
		return true
	}
	now := p.cfg.Now()
	p.timer(now)
	if p.hung {
		p.deadlines(now, true)
		return true
	}
	state := p.execute()
	if state == cpu.Lockup { // §3.8
		pc, _ := p.core.CSR(cpu.Mepc)
		p.bank.Set(npureg.CPTrapFrame, 0) // what it saved, if anything, is not of this exception
		p.die(npureg.BootErrTrap, pc)
	}
	if p.copy.control != 0 {
		p.doCopy()
	}
	if p.invalidate != nil {
		p.doInvalidate()
	}
	if p.debug.stepping {
		p.event(StopStep)
		return false
	}
	p.deadlines(now, state == cpu.Waiting)
	return state == cpu.Waiting
}

// deadlines ends a hart that is late: at once if it waits, else when it got
// grace slices in which it could have been in time. It may only seem late because
// this process did not run.
func (p *Processor) deadlines(now time.Duration, waiting bool) {
	if !p.boot.passed(now) && !p.watchdog.passed(now) {
		p.late = 0
		return
	}
	p.late++
	switch {
	case p.late < grace && !waiting:
	case p.boot.passed(now):
		p.die(npureg.BootErrTimeout, p.core.PC())
	default:
		p.die(npureg.BootErrWatchdog, p.core.PC())
	}
}

// next returns how long the hart can sleep, if not for ever.
func (p *Processor) next(now time.Duration) (time.Duration, bool) {
	if p.debug.stopped {
		return 0, false
	}
	d, on := time.Duration(0), false
	until := func(e time.Duration) {
		if !on || e < d {
			d, on = e, true
		}
	}
	if p.boot.on {
		until(p.boot.at - now)
	}
	if p.watchdog.on {
		until(p.watchdog.at - now)
	}
	// A compare that is further away than a day is looked at again by then.
	if t, c := p.micros(now), p.compare(); !p.halted && c > t {
		until(p.resetAt + time.Duration(min(c, t+uint64(24*time.Hour/time.Microsecond)))*time.Microsecond - now)
	}
	return d, on
}

func (p *Processor) sleep(ctx context.Context) {
	var expired <-chan time.Time
	if d, on := p.next(p.cfg.Now()); on {
		t := time.NewTimer(d)
		defer t.Stop()
		expired = t.C
	}
	p.cfg.Lock.Unlock()
	defer p.cfg.Lock.Lock()
	select {
	case <-ctx.Done():
	case <-p.wake:
	case <-expired:
	}
}

// doCopy does the copy that the hart started, with the lock released for the
// access to the bus. The hart does not run meanwhile.
func (p *Processor) doCopy() {
	m, generation := p.copy, p.generation
	buf := p.staging[:len(m.sram)]
	if m.control == npureg.MoverWrite {
		copy(buf, m.sram)
	}
	p.moving = true
	p.cfg.Lock.Unlock()
	var err error
	if m.control == npureg.MoverWrite {
		err = p.cfg.Mover.Write(m.addr, buf)
	} else {
		err = p.cfg.Mover.Read(m.addr, buf)
	}
	p.cfg.Lock.Lock()
	p.moving = false
	if p.stale {
		p.stale = false
		p.cfg.Host.MoverIdle()
	}
	if generation != p.generation {
		return
	}
	p.copy = move{}
	if err != nil {
		p.log(slog.LevelDebug, "mover: bus fault", slog.Any("addr", m.addr), slog.Any("err", err))
		p.bank.Set(npureg.CPMoverStatus, npureg.MoverFault)
		return
	}
	if m.control == npureg.MoverRead {
		copy(m.sram, buf)
		p.core.Invalidate()
	}
	p.bank.Set(npureg.CPMoverStatus, npureg.MoverIdle)
}

// doInvalidate does the invalidation that the hart started, with the lock released: it may have to wait for
// an access to the bus. The hart does not run meanwhile.
func (p *Processor) doInvalidate() {
	do, generation := p.invalidate, p.generation
	p.cfg.Lock.Unlock()
	do()
	p.cfg.Lock.Lock()
	if generation == p.generation {
		p.invalidate = nil
	}
}

// log writes what a guest can cause, and so as much as it likes.
func (p *Processor) log(level slog.Level, msg string, attrs ...slog.Attr) {
	if !p.cfg.Log.Enabled(context.Background(), level) {
		return
	}
	ok, dropped := p.logs.allow(p.cfg.Now())
	if !ok {
		return
	}
	if dropped > 0 {
		attrs = append(attrs, slog.Int("dropped", dropped))
	}
	p.cfg.Log.LogAttrs(context.Background(), level, msg, attrs...)
}

// limiter lets logsPerSecond lines through in each second.
type limiter struct {
	second  time.Duration
	n       int
	dropped int
}

const logsPerSecond = 50

// allow says whether a line may be written, and how many before it were not.
func (l *limiter) allow(now time.Duration) (ok bool, dropped int) {
	if s := now / time.Second; s != l.second {
		l.second, l.n = s, 0
	}
	if l.n >= logsPerSecond {
		l.dropped++
		return false, 0
	}
	l.n++
	dropped, l.dropped = l.dropped, 0
	return true, dropped
}

// version prints a version register.
func version(v uint32) string { return fmt.Sprintf("%d.%d", v>>16, v&0xffff) }
