// SPDX-License-Identifier: Apache-2.0

package emit

import (
	"fmt"

	"npuemu/core/isa"
	"npuemu/timing"
)

// Target is the core that a program is for.
type Target struct {
	Rows, Cols        int    // of the array
	SpadSize, AccSize uint32 // bytes
	Minor             uint16 // newest minor version of the ISA
	Features          uint64 // groups of instructions that it has

	Timing timing.Params // by which tilings are chosen (§13.2), and nothing else; the zero value stands for timing.DefaultParams
}

// engines is the number of engines; engine e executes class e + 1.
const engines = 4

// A Range is part of a program: the instructions of one operator.
type Range struct {
	Tag         int // what Begin was given
	First, Last int // indexes in the text, Last is behind the end
}

// op is an instruction and the SYNCs around it.
type op struct {
	inst   isa.Instruction
	engine int
	number int32 // of its engine, from 1
	before []isa.Sync
	after  []isa.Sync
	wait   isa.Token
	signal isa.Token
	knows  clock // what has finished when this has, of each engine
}

// clock is the last instruction of each engine that is known to have finished, 0 for none.
type clock [engines]int32

func (c *clock) join(d clock) {
	for e, n := range d {
		c[e] = max(c[e], n)
	}
}

// base are the groups of instructions that every program names; of others it names those that it has.
const base = isa.FeatureGEMM | isa.FeatureFloat | isa.FeatureVector | isa.FeatureReduce

// Builder collects a program.
type Builder struct {
	target   Target
	bindings int
	ops      []op
	byEngine [engines][]int // indexes in ops
	now      [engines]clock // what an engine's next instruction knows
	pairs    [engines][engines]pair
	spad     tracker
	acc      tracker
	mem      map[uint8]*tracker // of the bindings that are written
	setup    isa.Setup
	accesses []isa.Access // of the instruction at work
	groups   uint64       // that instructions are of, beside base
	limits   isa.Limits
	marks    []mark
	counts   Counts
	err      error
}

// Counts are what a program's instructions do.
type Counts struct {
	Instructions       int // SYNC and HALT not included
	ByEngine           [engines]int
	MACs               uint64
	Loaded, Stored     uint64 // bytes
	VectorElements     uint64
	SpadUsed, AccUsed  uint32 // bytes
	Syncs, TokenSignal int
}

// Since returns what was counted since before; of local memory it is what is used in all.
func (c Counts) Since(before Counts) Counts {
	c.Instructions -= before.Instructions
	for e := range c.ByEngine {
		c.ByEngine[e] -= before.ByEngine[e]
	}
	c.MACs -= before.MACs
	c.Loaded -= before.Loaded
	c.Stored -= before.Stored
	c.VectorElements -= before.VectorElements
	c.Syncs -= before.Syncs
	c.TokenSignal -= before.TokenSignal
	return c
}

type mark struct{ tag, op int }

// pair is the traffic from one engine to another: wait n of the one is for signal n
// of the other.
type pair struct {
	waits []int32 // number of the waiting instruction
	from  []int32 // of the signalling one
}

// New returns a Builder of a program with so many bindings, of which those in written may
// be stored to. All others are only read.
func New(t Target, bindings int, written ...uint8) *Builder {
	b := &Builder{target: t, bindings: bindings, mem: map[uint8]*tracker{}}
	for _, w := range written {
		b.mem[w] = &tracker{}
	}
	d := isa.Descriptor{
		Rows: uint16(t.Rows), Cols: uint16(t.Cols), SpadSize: t.SpadSize, AccSize: t.AccSize,
		Bindings: uint16(bindings), Features: t.Features,
	}
	b.limits = d.Limits()
	b.setup = b.limits.Setup
	return b
}

// Begin says that the instructions that follow belong to tag.
func (b *Builder) Begin(tag int) { b.marks = append(b.marks, mark{tag, len(b.ops)}) }

// Len is how many instructions the program has so far, SYNCs included.
func (b *Builder) Len() int { return len(b.ops) + b.counts.Syncs }

// Counts returns what has been emitted so far.
func (b *Builder) Counts() Counts { return b.counts }

// setUp makes OPERANDS and WINDOW what they are given, unless they are so already. A nil
// window stays.
func (b *Builder) setUp(o isa.Operands, w *isa.Window) {
	if b.setup.Operands != o {
		b.Emit(o)
	}
	if w != nil && b.setup.Window != *w {
		b.Emit(*w)
	}
}

// prepare emits i, which only sets something up, unless that is so already.
func (b *Builder) prepare(i isa.Instruction) {
	s, w := b.setup, i.Encode()
	if s.Follow(&w); s != b.setup {
		b.Emit(i)
	}
}

// Emit adds i, whose tokens are the Builder's. The first instruction that breaks a rule
// of §5.7 makes the error of Program.
func (b *Builder) Emit(i isa.Instruction) {
	if b.err != nil {
		return
	}
	w := i.Encode()
	if v := isa.CheckFormat(&w, b.target.Features); v != nil {
		b.err = fmt.Errorf("emit: instruction %d: %w", len(b.ops), v)
		return
	}
	b.groups |= isa.GroupsOf(&w)
	b.limits.Setup = b.setup
	if v := i.Check(b.limits); v != nil {
		b.err = fmt.Errorf("emit: instruction %d, %T: %w", len(b.ops), i, v)
		return
	}
	engine := int(isa.Opcode(w[0]).Class()) - 1
	o := op{inst: i, engine: engine, number: int32(len(b.byEngine[engine]) + 1)}
	b.setup.Follow(&w)
	need := b.touch(&w, engine, o.number)
	b.brake(engine, &need)
	for p := range need {
		if p != engine && need[p] > b.now[engine][p] {
			b.await(&o, p, need[p])
		}
	}
	b.now[engine][engine] = o.number
	o.knows = b.now[engine]
	b.byEngine[engine] = append(b.byEngine[engine], len(b.ops))
	b.ops = append(b.ops, o)
	b.count(i, engine)
}

// window is how many signals of a pair may be on their way: half of what a token
// counter holds (§5.5), since a signal may be asked for after the instruction was emitted.
const window = 128

// brake makes an engine that has signalled much wait for the one that it signalled to.
func (b *Builder) brake(engine int, need *clock) {
	for c := range b.pairs[engine] {
		waits := b.pairs[engine][c].waits
		if n := len(waits); n >= window {
			need[c] = max(need[c], waits[n-window])
		}
	}
}

// await makes o, not yet emitted, wait for instruction number n of engine p.
func (b *Builder) await(o *op, p int, n int32) {
	token := isa.Token{ID: uint8(p*engines + o.engine), Count: 1}
	from := &b.ops[b.byEngine[p][n-1]]
	if from.signal.Count == 0 {
		from.signal = token
	} else {
		from.after = append(from.after, isa.Sync{Engine: isa.Class(p + 1), Signal: token})
		b.counts.Syncs++
	}
	if o.wait.Count == 0 {
		o.wait = token
	} else {
		o.before = append(o.before, isa.Sync{Engine: isa.Class(o.engine + 1), Wait: token})
		b.counts.Syncs++
	}
	b.counts.TokenSignal++
	link := &b.pairs[p][o.engine]
	link.waits, link.from = append(link.waits, o.number), append(link.from, n)
	b.now[o.engine].join(from.knows)
}

// overflow checks what brake is to ensure: no counter passes 255, whatever engine is how fast.
func (b *Builder) overflow() error {
	for p := range b.pairs {
		for c := range b.pairs[p] {
			link, done := &b.pairs[p][c], 0
			for sent, n := range link.from {
				knows := b.ops[b.byEngine[p][n-1]].knows[c]
				for done < len(link.waits) && link.waits[done] <= knows {
					done++
				}
				if sent+1-done > 255 {
					return fmt.Errorf("emit: BUG: engine %d signals %d times to engine %d before that waits", p+1, sent+1-done, c+1)
				}
			}
		}
	}
	return nil
}

// Program returns the program with HALT at its end, and the ranges of its tags. The
// Builder is not used after it.
func (b *Builder) Program() (*isa.Program, []Range, error) {
	if b.err != nil {
		return nil, nil, b.err
	}
	if err := b.overflow(); err != nil {
		return nil, nil, err
	}
	var text []byte
	var ranges []Range
	put := func(i isa.Instruction) {
		w := i.Encode()
		text = append(text, w[:]...)
	}
	next := 0
	for n := range b.ops {
		for ; next < len(b.marks) && b.marks[next].op == n; next++ {
			at := len(text) / isa.Size
			if len(ranges) > 0 {
				ranges[len(ranges)-1].Last = at
			}
			ranges = append(ranges, Range{Tag: b.marks[next].tag, First: at})
		}
		o := &b.ops[n]
		for _, s := range o.before {
			put(s)
		}
		w := o.inst.Encode()
		w[2], w[3] = o.wait.Count<<4|o.wait.ID, o.signal.Count<<4|o.signal.ID
		text = append(text, w[:]...)
		for _, s := range o.after {
			put(s)
		}
	}
	if len(ranges) > 0 {
		ranges[len(ranges)-1].Last = len(text) / isa.Size
	}
	put(isa.Halt{})
	if len(text) > isa.MaxTextSize {
		return nil, nil, fmt.Errorf("emit: the program has %d instructions; the most is %d (§5.3)", len(text)/isa.Size, isa.MaxTextSize/isa.Size)
	}
	groups := b.target.Features&base | b.groups
	minor := uint16(1)
	for _, l := range later {
		if groups&l.groups != 0 {
			minor = l.minor
		}
	}
	return &isa.Program{
		Descriptor: isa.Descriptor{
			Minor: min(minor, b.target.Minor), Rows: uint16(b.target.Rows), Cols: uint16(b.target.Cols),
			SpadSize: b.counts.SpadUsed, AccSize: b.counts.AccUsed, Bindings: uint16(b.bindings), Features: groups,
		},
		Text: text,
	}, ranges, nil
}

// later are the groups that came after ISA 1.1 (§5.3), by the minor version.
var later = []struct {
	minor  uint16
	groups uint64
}{{2, isa.FeaturePool | isa.FeatureSparse | isa.FeatureMX | isa.FeatureGather | isa.FeatureQuant}, {3, isa.FeatureAddq}}
