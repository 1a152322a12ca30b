// SPDX-License-Identifier: Apache-2.0

package core

import (
	"context"
	"fmt"

	"npuemu/core/isa"
	"npuemu/core/num"
	"npuemu/core/systolic"
	"npuemu/ecc"
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
}

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
	if c.ISAMinor > isa.Minor || c.Features&^isa.Features != 0 || c.ISAMinor == 0 && c.Features != 0 {
		return fmt.Errorf("core: config: ISA %d.%d with features %#x; there are %d.%d with %#x, and %d.0 with none",
			isa.Major, c.ISAMinor, c.Features, isa.Major, isa.Minor, uint64(isa.Features), isa.Major)
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
	Instructions uint64    // all, with HALT
	ByClass      [5]uint64 // the same, by isa.Class
	MACs         uint64    // multiply-accumulates: mx·my·k·n of MATMUL, m·n·k of GEMM, and CONV as one
	BytesLoaded  uint64    // memory → local memory
	BytesStored  uint64    // local memory → memory
}

// Core is a compute core. It is not safe for concurrent use.
type Core struct {
	cfg   Config
	spad  []byte
	acc   []int32
	array *systolic.Array

	stopped func() bool // whether Run's context has ended; made once, because a closure is memory

	// Of the running program.
	limits   isa.Limits
	text     []byte
	bindings []Binding
	mem      Memory
	ctx      context.Context // for stopped
	tokens   [16]uint8
	stats    Stats

	poison  ecc.Poison // of the scratchpad; Run's own
	strikes strikes    // that wait for the next program

	staging []byte      // a row on its way between memory and the accumulators
	scales  []num.Scale // REQUANT's parameter table
}

// New returns an idle core, or the error of cfg.Validate.
func New(cfg Config) (*Core, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	array, err := systolic.New(cfg.Rows, cfg.Cols)
	if err != nil {
		return nil, err
	}
	c := &Core{cfg: cfg, spad: make([]byte, cfg.SpadSize), acc: make([]int32, cfg.AccSize/4), array: array}
	c.stopped = func() bool { return c.ctx.Err() != nil }
	return c, nil
}

// CheckDescriptor makes all checks of §5.3 but that of text_crc32, for a launch
// with so many bindings. It returns the size of the text in bytes, so that the
// board knows how much more to fetch; the error is a *Fault.
func (c *Core) CheckDescriptor(desc *[isa.DescriptorSize]byte, bindings int) (textSize uint32, err error) {
	d, v := c.describe(desc, bindings)
	if v != nil {
		return 0, violation(0, v)
	}
	return d.TextSize, nil
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
	return d, v
}

// Run executes the program in image, a descriptor and its text, and returns
// when it has ended. The error is a *Fault, or that of ctx, which is looked at
// before every instruction. The core keeps nothing of the arguments.
func (c *Core) Run(ctx context.Context, image []byte, bindings []Binding, mem Memory) (Stats, error) {
	if len(image) < isa.DescriptorSize {
		return Stats{}, &Fault{Status: StatusBadProgram}
	}
	d, v := c.describe((*[isa.DescriptorSize]byte)(image), len(bindings))
	if v == nil {
		v = d.CheckText(image[isa.DescriptorSize:])
	}
	if v != nil {
		return Stats{}, violation(0, v)
	}
	c.reset(d)
	c.limits.Bindings = len(bindings)
	c.text, c.bindings, c.mem, c.ctx = image[isa.DescriptorSize:], bindings, mem, ctx
	defer func() { c.text, c.bindings, c.mem, c.ctx = nil, nil, nil, nil }()
	err := c.sequence(ctx)
	return c.stats, err
}

// reset makes everything zero that a program with descriptor d can see (§5.1).
func (c *Core) reset(d isa.Descriptor) {
	clear(c.spad[:d.SpadSize])
	c.poison.Overwritten(0, uint64(d.SpadSize))
	c.strikes.land(&c.poison)
	clear(c.acc[:d.AccSize/4])
	c.array.Reset()
	c.tokens = [16]uint8{}
	c.stats = Stats{}
	c.limits = d.Limits()
}

// word returns instruction i.
func (c *Core) word(i int) *isa.Word { return (*isa.Word)(c.text[i*isa.Size:]) }

// fetch checks the format of all instructions up to HALT and returns its index.
func (c *Core) fetch() (halt int, err error) {
	n := len(c.text) / isa.Size
	for i := range n {
		w := c.word(i)
		if v := isa.CheckFormat(w, c.limits.Features); v != nil {
			return 0, violation(i, v)
		}
		if isa.Opcode(w[0]) == isa.OpHalt {
			return i, nil
		}
	}
	return 0, &Fault{Status: StatusNoHalt, Instr: uint32(n)}
}

// sequence runs the program. Each engine has a position: its first instruction
// that has not finished. The lowest position that need not wait goes next.
func (c *Core) sequence(ctx context.Context) error {
	halt, err := c.fetch()
	if err != nil {
		return err
	}
	const engines = 4
	var at [engines]int
	for e := range at {
		at[e] = c.find(e, 0, halt)
	}
	for {
		next, blocked := halt, halt
		engine := 0
		for e, i := range at {
			switch {
			case i >= halt:
			case !c.ready(i):
				blocked = min(blocked, i)
			case i < next:
				next, engine = i, e
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if next == halt {
			if blocked != halt {
				return &Fault{Status: StatusDeadlock, Instr: uint32(blocked), Info: uint64(c.word(blocked)[2] & 15)}
			}
			c.retire(isa.ClassControl)
			return nil
		}
		if err := c.step(next); err != nil {
			if ctx.Err() != nil { // a Memory that gave up for the same reason
				return ctx.Err()
			}
			return err
		}
		at[engine] = c.find(engine, next+1, halt)
	}
}

// find returns the first instruction of engine e from i on, or halt.
func (c *Core) find(e, i, halt int) int {
	for i < halt && int(isa.Opcode(c.text[i*isa.Size]).Class())-1 != e {
		i++
	}
	return i
}

// ready reports whether instruction i need not wait (§5.5).
func (c *Core) ready(i int) bool {
	wait := c.word(i)[2]
	return c.tokens[wait&15] >= wait>>4
}

// retire counts a finished instruction.
func (c *Core) retire(class isa.Class) {
	c.stats.Instructions++
	c.stats.ByClass[class]++
}

// step executes instruction i, which is ready, between its wait and its signal.
func (c *Core) step(i int) error {
	w := c.word(i)
	c.tokens[w[2]&15] -= w[2] >> 4
	if f := c.execute(w); f != nil {
		f.Instr = uint32(i)
		return f
	}
	c.retire(isa.Opcode(w[0]).Class())
	token, count := w[3]&15, w[3]>>4
	if int(c.tokens[token])+int(count) > 255 {
		return &Fault{Status: StatusTokenOverflow, Instr: uint32(i), Info: uint64(token)}
	}
	c.tokens[token] += count
	return nil
}
