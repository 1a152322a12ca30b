// SPDX-License-Identifier: Apache-2.0

package core

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"

	"npuemu/core/hazard"
	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// MaxLocalSize bounds each local memory: 1 GiB keeps every offset in it, and
// every product of an in-bounds stride, within a 32-bit int.
const MaxLocalSize = 1 << 30

// Config is what a core discovers to software (§5.1).
type Config struct {
	Rows, Cols int // ARRAY_DIM: multiples of 8 from 8 to 256
	SpadSize   int // SPAD_SIZE, bytes
	AccSize    int // ACC_SIZE, bytes, a multiple of 4

	ISAMinor uint16 // newest minor version of the ISA that programs may have
	Features uint64 // groups of instructions, of isa.Features; 0 with ISAMinor 0

	// Threads is how many threads large products take, 0 for GOMAXPROCS. Results do not depend on it.
	Threads int
}

// MaxThreads bounds Config.Threads.
const MaxThreads = 64

// Validate reports what is wrong with c, or nil.
func (c Config) Validate() error {
	for _, n := range []int{c.Rows, c.Cols} {
		if err := systolic.CheckDim(n); err != nil {
			return fmt.Errorf("core: config: %w", err)
		}
	}
	if c.SpadSize <= 0 || c.SpadSize > MaxLocalSize {
		return fmt.Errorf("core: config: scratchpad of %d bytes; the size is from 1 to %d", c.SpadSize, MaxLocalSize)
	}
	if c.AccSize <= 0 || c.AccSize > MaxLocalSize || c.AccSize%4 != 0 {
		return fmt.Errorf("core: config: accumulators of %d bytes; the size is a multiple of 4 from 4 to %d", c.AccSize, MaxLocalSize)
	}
	if c.ISAMinor > isa.Minor || c.Features&^isa.FeaturesOf(c.ISAMinor) != 0 {
		return fmt.Errorf("core: config: ISA %d.%d with features %#x; there are %d.%d with %#x, and older ones with fewer",
			isa.Major, c.ISAMinor, c.Features, isa.Major, isa.Minor, uint64(isa.Features))
	}
	if c.Threads < 0 || c.Threads > MaxThreads {
		return fmt.Errorf("core: config: %d threads; there are 1 to %d, or 0 for as many as processors", c.Threads, MaxThreads)
	}
	return nil
}

// Binding is an entry of the table that comes with a launch (§5.2). Addr and
// Space are for Memory; the core only checks the others.
type Binding struct {
	Addr        uint64
	Size        uint64 // bytes
	Read, Write bool
	Space       uint8
}

// Memory moves one row of bytes between a binding and p. The core has checked
// that [off, off+len(p)) is inside b. Rows that follow each other without a
// gap on both sides come as one call; the others come one by one, in the order
// of §5.6.3. Memory must not keep p.
//
// An error stops the program with MEMORY_FAULT; it is a *MemoryError if the
// faulting address is not simply that of off.
type Memory interface {
	Load(b Binding, off uint64, p []byte) error
	Store(b Binding, off uint64, p []byte) error
}

// RowMemory is a Memory that moves many rows at once: size bytes each, stride bytes apart in b from off on, and step bytes apart
// in p. Both report false if that is not possible, or failed, after some rows perhaps: Load or Store of one row after the
// other then says which byte it is. Stores are in the order of the rows.
type RowMemory interface {
	Memory
	LoadRows(b Binding, off, stride uint64, p []byte, step, size, rows int) bool
	StoreRows(b Binding, off, stride uint64, p []byte, step, size, rows int) bool
}

// PlacedMemory is a Memory of which some can be accessed by several goroutines at once, in any order, without anybody but its bytes
// being able to tell.
type PlacedMemory interface {
	Memory
	// Place returns the number of a piece of such memory that has all of b. In one piece different addresses are different
	// bytes; different pieces may have bytes in common. It reports false if b is not of that kind.
	Place(b Binding) (number uint64, ok bool)
}

// MemoryError is an error of a Memory with the address that could not be
// accessed.
type MemoryError struct {
	Addr uint64
	Err  error
}

// Error implements error.
func (e *MemoryError) Error() string { return fmt.Sprintf("address %#x: %v", e.Addr, e.Err) }

// Unwrap returns Err.
func (e *MemoryError) Unwrap() error { return e.Err }

// Stats counts what a program did, up to its end or its fault. Instructions
// count when they have finished, bytes when they have moved.
type Stats struct {
	Instructions uint64    // of engines, each time in a loop, and HALT
	ByClass      [5]uint64 // the same, by isa.Class
	MACs         uint64    // multiply-accumulates: mx·my·k·n of MATMUL, m·n·k of GEMM, and CONV as one
	BytesLoaded  uint64    // memory → local memory
	BytesStored  uint64    // local memory → memory
}

// Core is a compute core. It is not safe for concurrent use, and has an end: Close.
type Core struct {
	cfg   Config
	spad  []byte
	acc   []int32
	units []*unit // one for each thread

	args  *[isa.Arguments]int32 // of the next program; nil for a launch without
	start [isa.Arguments]int32  // what its registers begin with
	times []uint64              // of the next program's STAMPs; nil for counts of instructions

	stopped func() bool // whether Run's context has ended; made once, because a closure is memory

	// Of the running program.
	limits   isa.Limits
	text     []byte
	walkers  [engines]isa.Walker
	more     [engines]bool // whether a walker is at an instruction
	bindings []Binding
	ctx      context.Context // for stopped
	tokens   [16]uint8
	stats    Stats

	executed atomic.Uint64 // see Executed
	earlier  uint64        // of it, those of earlier programs

	blankSpad, blankAcc blank
	clearSpad, clearAcc func(from, to int) // bytes; made once
	touched             []isa.Access

	poison  guard   // of the scratchpad; Run's own
	strikes strikes // that wait for the next program
	late    late

	// Of a program whose instructions may be executed side by side (window).
	apart    bool
	win      window
	crew     crew
	places   places
	word     *isa.Word    // that is executed
	index    int          // of it
	accesses []isa.Access // of what is late

	known       known
	same        *knownProgram // that is the running one, or nil
	noted       *course       // of it, that is being taken down, or nil
	firstNumber uint64        // of its weights
	tracker     hazard.Tracker
	hazards     []Hazard
	unused      []Unused
	base        func(*isa.Access) // bus; made once
}

// New returns an idle core, or the error of cfg.Validate.
func New(cfg Config) (*Core, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	threads := cfg.Threads
	if threads == 0 {
		threads = min(runtime.GOMAXPROCS(0), MaxThreads)
	}
	c := &Core{cfg: cfg, spad: make([]byte, cfg.SpadSize), acc: make([]int32, cfg.AccSize/4)}
	c.stopped = func() bool { return c.ctx.Err() != nil }
	c.clearSpad = func(from, to int) { c.clear(false, from, to) }
	c.clearAcc = func(from, to int) { c.clear(true, from, to) }
	c.tracker.Entries, c.tracker.Rows, c.base = maxAccesses, maxRows, c.bus
	for n := range threads {
		of := 1
		if n == 0 {
			of = threads
		}
		u, err := c.newUnit(of)
		if err != nil {
			return nil, err
		}
		c.units = append(c.units, u)
	}
	c.win.start()
	c.crew.wake = make(chan struct{}, 1)
	c.units[0].array.Help(c.help)
	return c, nil
}

// Close ends the core's goroutines, which begin with the first work for several. No program may be running.
func (c *Core) Close() { c.units[0].array.Close() }

// SetTimes gives the next program the times that its STAMPs store, in their
// order (§13.8.3); nil makes them numbers of instructions. The core keeps t until then.
func (c *Core) SetTimes(t []uint64) { c.times = t }

// SetArguments gives the next program the arguments of its launch (§4.9); nil is a launch without. The core keeps a until then.
func (c *Core) SetArguments(a *[isa.Arguments]int32) { c.args = a }

// CheckDescriptor makes all checks of §5.3 but that of text_crc32, for a launch
// with so many bindings and the arguments set. It returns the size of the text in bytes, so that the
// board knows how much more to fetch; the error is a *Fault. There is a size besides the error if the text says which
// instruction needs what the core lacks: Run's error has it.
func (c *Core) CheckDescriptor(desc *[isa.DescriptorSize]byte, bindings int) (textSize uint32, err error) {
	d, v := c.describe(desc, bindings)
	switch {
	case v == nil:
		return d.TextSize, nil
	case c.locates(v):
		return d.TextSize, violation(0, v)
	}
	return 0, violation(0, v)
}

// locatingMinor is the ISA of the first architecture with FEATURES_LO.MISMATCH (§2.1).
const locatingMinor = 4

// locates reports whether the completion of v has the instruction that needs what the core lacks (§5.3).
func (c *Core) locates(v *isa.Violation) bool {
	return c.cfg.ISAMinor >= locatingMinor && v.Rule == isa.ConfigMismatch && v.Info == isa.DescriptorFeatures
}

func (c *Core) describe(desc *[isa.DescriptorSize]byte, bindings int) (isa.Descriptor, *isa.Violation) {
	d, v := isa.ParseDescriptor(desc, c.cfg.ISAMinor)
	if v == nil {
		v = d.Check(isa.Limits{
			Rows: uint16(c.cfg.Rows), Cols: uint16(c.cfg.Cols),
			SpadSize: uint32(c.cfg.SpadSize), AccSize: uint32(c.cfg.AccSize),
			Bindings: bindings, Features: c.cfg.Features,
		})
	}
	if v == nil && c.args != nil {
		v = d.CheckArguments()
	}
	return d, v
}

// Run executes the program in image, a descriptor and its text, and returns
// when it has ended. The error is a *Fault, or that of ctx, which is looked at
// before every instruction. The core keeps nothing of the arguments.
func (c *Core) Run(ctx context.Context, image []byte, bindings []Binding, mem Memory) (Stats, error) {
	defer func() { c.args = nil }()
	c.hazards, c.unused, c.start = c.hazards[:0], c.unused[:0], [isa.Arguments]int32{}
	if c.args != nil {
		c.start = *c.args
	}
	if len(image) < isa.DescriptorSize {
		return Stats{}, &Fault{Status: StatusBadProgram}
	}
	d, v := c.describe((*[isa.DescriptorSize]byte)(image), len(bindings))
	c.same = c.known.find(image, bindings, c.start)
	if v == nil && c.same == nil {
		v = d.CheckText(image[isa.DescriptorSize:])
	}
	if v != nil {
		at := 0
		if c.locates(v) {
			at, _ = isa.Lacking(image[isa.DescriptorSize:], c.cfg.Features&isa.FeaturesOf(d.Minor))
		}
		return Stats{}, violation(at, v)
	}
	c.reset(d)
	c.limits.Bindings = len(bindings)
	c.text, c.bindings, c.ctx = image[isa.DescriptorSize:], bindings, ctx
	rows, _ := mem.(RowMemory)
	for _, u := range c.units {
		u.bindings, u.mem, u.rowMem = bindings, mem, rows
	}
	c.begin(mem)
	halt, err := c.fetch()
	switch {
	case err != nil:
	case c.same != nil && c.follows(c.same.course):
		err = c.follow(ctx, c.same.course)
	default:
		if c.apart && c.same != nil && !c.same.varied {
			c.startNoting()
		}
		err = c.sequence(ctx, halt)
	}
	if c.apart {
		if f := c.end(); f != nil { // an earlier instruction's
			err = f
		}
		if ctx.Err() != nil { // a Memory that gave up for the same reason
			err = ctx.Err()
		}
	}
	switch {
	case err != nil:
	case c.same == nil:
		c.leftOver()
	default:
		c.unused = append(c.unused, c.same.unused...)
	}
	switch {
	case err == nil && c.same == nil && len(c.hazards) == 0:
		c.known.keep(image, bindings, c.start, halt, c.unused)
	case err == nil && c.noted != nil:
		c.endNoting()
	}
	c.noted = nil
	c.tell(true)
	for _, u := range c.units {
		u.bindings, u.mem, u.rowMem = nil, nil, nil
	}
	c.text, c.bindings, c.ctx, c.word = nil, nil, nil, nil
	c.walkers = [engines]isa.Walker{}
	c.times = nil
	return c.stats, err
}

// reset makes everything zero that a program with descriptor d can see (§5.1).
func (c *Core) reset(d isa.Descriptor) {
	c.blankSpad.all(int(d.SpadSize))
	c.blankAcc.all(int(d.AccSize))
	c.poison.apart = false
	c.poison.Overwritten(0, uint64(d.SpadSize))
	c.strikes.land(&c.poison.Poison)
	c.units[0].array.Reset()
	c.tokens = [16]uint8{}
	c.late = late{}
	c.stats = Stats{}
	c.earlier = c.executed.Load()
	c.limits = d.Limits()
	c.tracker.Reset()
}

// engines is the number of engines; engine e executes class e + 1.
const engines = 4

// fetch makes the sequencer's checks of all instructions up to HALT, the length
// of loops among them, and returns HALT's index.
func (c *Core) fetch() (halt int, err error) {
	if c.same != nil {
		return c.same.halt, nil
	}
	halt, v, at := isa.Scan(c.text, c.limits.Features)
	if v == nil && halt < 0 {
		return 0, &Fault{Status: StatusNoHalt, Instr: uint32(len(c.text) / isa.Size)}
	}
	if v == nil && c.limits.Features&isa.FeatureControl != 0 {
		v, at = isa.WithinBudget(c.text, halt, c.start)
	}
	if v != nil {
		return 0, violation(at, v)
	}
	return halt, nil
}

// sequence runs the program, whose HALT has that index. Each engine has a walker at its first instruction
// that has not finished. The one that the program passes first of those that
// need not wait goes next.
func (c *Core) sequence(ctx context.Context, halt int) error {
	for e := range c.walkers {
		c.walkers[e] = isa.NewWalker(c.text, halt, c.start)
		if c.more[e] = c.walkers[e].Next(isa.Class(e + 1)); !c.more[e] {
			c.tracker.Done(e)
		}
	}
	for {
		engine, blocked := c.choose(&c.walkers, &c.more, &c.tokens)
		if err := ctx.Err(); err != nil {
			return err
		}
		if engine < 0 {
			if blocked != nil {
				return &Fault{Status: StatusDeadlock, Instr: uint32(blocked.Index()), Info: uint64(blocked.Word()[2] & 15)}
			}
			c.catchUp()
			if err := ctx.Err(); err != nil {
				return err
			}
			c.finished(isa.ClassControl)
			return nil
		}
		next := &c.walkers[engine]
		if err := c.step(next); err != nil {
			if ctx.Err() != nil { // a Memory that gave up for the same reason
				return ctx.Err()
			}
			return err
		}
		if c.more[engine] = next.Next(isa.Class(engine + 1)); !c.more[engine] {
			c.tracker.Done(engine)
		}
	}
}

// choose returns the engine that goes next, or −1, and the first that has to wait for a token then.
func (c *Core) choose(walkers *[engines]isa.Walker, more *[engines]bool, tokens *[16]uint8) (engine int, blocked *isa.Walker) {
	engine = -1
	for e := range walkers {
		w := &walkers[e]
		switch {
		case !more[e]:
		case !ready(w.Word(), tokens):
			if blocked == nil || w.Number() < blocked.Number() {
				blocked = w
			}
		case engine < 0 || w.Number() < walkers[engine].Number():
			engine = e
		}
	}
	return engine, blocked
}

// ready reports whether w need not wait (§5.5).
func ready(w *isa.Word, tokens *[16]uint8) bool { return tokens[w[2]&15] >= w[2]>>4 }

// finished counts an instruction.
func (c *Core) finished(class isa.Class) {
	c.stats.Instructions++
	c.stats.ByClass[class]++
	c.tell(false)
}

// Executed is how many instructions the core has begun so far, of all programs, to within tellEach of those of the program that runs;
// a program that follows what it did before counts when it ends. Any goroutine may ask.
func (c *Core) Executed() uint64 { return c.executed.Load() }

// tellEach is how many instructions go by before Executed sees them: it costs as much as a short one.
const tellEach = 32

// tell makes Executed see the running program's instructions, now and then or at once.
func (c *Core) tell(now bool) {
	if now || c.stats.Instructions%tellEach == 0 {
		c.executed.Store(c.earlier + c.stats.Instructions)
	}
}

// step executes at's instruction, which is ready, between its wait and its signal.
func (c *Core) step(at *isa.Walker) error {
	w, i := at.Word(), at.Index()
	c.tokens[w[2]&15] -= w[2] >> 4
	if !later(isa.Opcode(w[0])) {
		c.catchUp()
		if err := c.ctx.Err(); err != nil {
			return err
		}
	}
	c.word, c.index = w, i
	var f *Fault
	if c.apart {
		if f = c.dispatch(w); c.win.fault != nil {
			return c.win.fault
		}
	} else {
		f = c.execute(w)
	}
	if f != nil {
		f.Instr = uint32(i)
		return f
	}
	if c.same == nil {
		c.track(w, at)
	}
	c.finished(isa.Opcode(w[0]).Class())
	token, count := w[3]&15, w[3]>>4
	if int(c.tokens[token])+int(count) > 255 {
		return &Fault{Status: StatusTokenOverflow, Instr: uint32(i), Info: uint64(token)}
	}
	c.tokens[token] += count
	return nil
}
