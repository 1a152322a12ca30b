// SPDX-License-Identifier: Apache-2.0

// Package timeline writes what the timing model saw of programs (docs/spec/timing.md §13.10) as JSON in the Trace Event
// Format, which Perfetto and chrome://tracing show: a row for each engine, for operators and for programs, and
// counters of what LOAD and STORE move.
//
// A time line is written while the model runs. What a Writer keeps grows with the operators of a program and its text, and not
// with the instructions that it executes.
package timeline

import (
	"bufio"
	"context"
	"io"
	"slices"
	"strings"

	"npuemu/core/isa"
	"npuemu/timing"
)

// DefaultLimit is for instructions that are shown one by one: files stay near 100 MB, which browsers open.
const DefaultLimit = 250_000

// blockSize is how many instructions of an engine are one slice behind the limit: the longest program (isa.Budget) then has 17
// thousand of them.
const blockSize = 1000

// Program is a program, and what is known of it.
type Program struct {
	Name      string
	Program   *isa.Program
	OnBus     uint64     // as timing.Program has it
	Operators []Operator // in the order of their instructions, which are none of two

	// Tensor returns the name of what the transfer at index in the text moves, if it has one. It may be nil.
	Tensor func(index int, binding uint8, offset uint64) string
}

// Operator is a part of a program, instructions [First, Last) of its text.
type Operator struct {
	Name, Op    string
	First, Last int
}

// Writer writes a time line.
type Writer struct {
	w      *bufio.Writer
	config timing.Config
	err    error // the first one
	line   []byte
	begun  bool // there is an event

	at     uint64 // cycle at which the next program begins
	limit  uint64
	shown  uint64 // instructions that have a slice of their own
	merged uint64 // the others
	rows   [rowCount]row
	lanes  []uint64 // of operators: cycle from which on each is free

	program *Program
	of      []int32 // the operator of each instruction, −1 for none
	seen    []work  // by operators
}

// The rows of a time line are threads of one process: programs, what engines do in the order of timing.Report, with
// the part of the matrix engine that places weights, and then lanes of operators.
const (
	rowProgram = iota + 1
	rowLoad
	rowStore
	rowMatrix
	rowWeights
	rowVector
	rowLane
	rowCount = rowLane
)

var rowNames = [rowCount]string{rowProgram: "programs", rowLoad: "load", rowStore: "store", rowMatrix: "matrix", rowWeights: "matrix: weights", rowVector: "vector"}

// engineRows has the row of each engine.
var engineRows = [...]int{rowLoad, rowStore, rowMatrix, rowVector}

// row is what is kept of one.
type row struct {
	block work   // behind the limit
	moved uint64 // what its counter is, in thousandths
	until uint64 // from this cycle on that is 0
}

// work is what instructions did together.
type work struct {
	there      bool
	from, to   uint64 // cycles of the time line
	operator   int32
	count      uint64 // instructions
	first      int    // index in the text
	last       int
	busy       [4]uint64 // of engines
	placing    uint64
	stalls     [timing.Causes]uint64
	macs       uint64
	moved, mem uint64
}

// New returns a Writer for programs on c that shows limit instructions one by one. Its errors are those of w, which Program
// and Close return.
func New(w io.Writer, title string, c timing.Config, limit uint64) *Writer {
	t := &Writer{w: bufio.NewWriterSize(w, 1<<16), config: c, limit: limit}
	t.raw(`{"traceEvents":[`)
	t.meta("process_name", 0, title+" (1 µs is 1 cycle)")
	for r := rowProgram; r < rowCount; r++ {
		t.meta("thread_name", r, rowNames[r])
	}
	return t
}

// Merged returns how many instructions have no slice of their own.
func (t *Writer) Merged() uint64 { return t.merged }

// Program runs the timing model over p, which begins when what is there has ended.
func (t *Writer) Program(ctx context.Context, p Program) (timing.Report, error) {
	if t.err != nil {
		return timing.Report{}, t.err
	}
	t.program, t.seen = &p, make([]work, len(p.Operators))
	t.of = slices.Repeat([]int32{-1}, len(p.Program.Text)/isa.Size)
	for i, o := range p.Operators {
		for k := o.First; k < o.Last; k++ {
			t.of[k] = int32(i)
		}
	}
	merged := t.merged
	r, err := timing.Observe(ctx, p.Program, t.config, p.OnBus, t.span)
	if err != nil {
		if t.err == nil {
			t.err = err
		}
		return r, err
	}
	for i := range t.rows {
		t.flush(i)
		t.fall(i)
	}
	t.operators()
	t.begin('X', rowProgram, t.at, p.Name)
	t.field(`,"dur":`, r.Cycles)
	t.text(`,"args":{"instructions":`)
	t.number(r.Instructions)
	if n := t.merged - merged; n > 0 {
		t.field(`,"merged_instructions":`, n)
	}
	t.field(`,"macs":`, r.MACs)
	t.field(`,"loaded":`, r.Loaded)
	t.field(`,"stored":`, r.Stored)
	t.field(`,"dram_bytes":`, r.DRAM)
	t.field(`,"bus_bytes":`, r.Bus)
	t.end("}}")
	t.at += r.Cycles
	return r, t.err
}

// Host notes an operator of the host between programs: it takes no cycles of the card.
func (t *Writer) Host(name, op, reason string) {
	t.begin('i', rowProgram, t.at, "host: "+name)
	t.text(`,"s":"t","args":{"operator":`)
	t.quote(op)
	t.text(`,"reason":`)
	t.quote(reason)
	t.end("}}")
}

// Close ends the time line. It returns the first error of all that was done.
func (t *Writer) Close() error {
	t.line = t.line[:0]
	t.text("\n" + `],"otherData":{"generator":"npuemu","specification":"docs/spec/timing.md §13.10","unit":"1 µs is 1 cycle","clock_mhz":`)
	t.number(uint64(t.config.Clock))
	t.field(`,"rows":`, uint64(t.config.Rows))
	t.field(`,"cols":`, uint64(t.config.Cols))
	t.field(`,"cycles":`, t.at)
	t.field(`,"shown_instructions":`, t.shown)
	t.field(`,"merged_instructions":`, t.merged)
	t.field(`,"limit":`, t.limit)
	t.text("}}\n")
	t.raw(string(t.line))
	if err := t.w.Flush(); t.err == nil {
		t.err = err
	}
	return t.err
}

// span is what timing.Observe calls.
func (t *Writer) span(s timing.Span) error {
	r, operator := engineRows[s.Engine], t.of[s.Index]
	if s.Placing {
		r = rowWeights
	}
	if operator >= 0 {
		w := &t.seen[operator]
		if w.add(&s); !s.Stall { // what came before is waited for while the operators before work
			w.cover(t.at+s.Start, t.at+s.Done, s.Index)
		}
	}
	switch {
	case t.shown >= t.limit:
		b := &t.rows[r].block
		if b.there && (b.count == blockSize || b.count > 0 && b.operator != operator) {
			t.flush(r)
		}
		b.operator = operator
		b.add(&s)
		b.cover(t.at+s.Start, t.at+s.End, s.Index) // and not to the end of tails, which overlap
		if !s.Stall {
			t.merged++
		}
	case s.Stall:
		t.begin('X', r, t.at+s.Start, "wait: "+s.Cause.String())
		t.field(`,"dur":`, s.End-s.Start)
		t.field(`,"cat":"stall","args":{"index":`, uint64(s.Index))
		t.end("}}")
	default:
		t.shown++
		t.instruction(r, &s, operator)
		t.rate(r, t.at+s.Start, t.at+s.End, s.DRAM+s.Bus)
	}
	return t.err
}

// instruction writes a slice of one.
func (t *Writer) instruction(r int, s *timing.Span, operator int32) {
	text := s.Word.String()
	name, _, _ := strings.Cut(text, " ")
	t.begin('X', r, t.at+s.Start, name)
	t.field(`,"dur":`, s.End-s.Start)
	t.field(`,"args":{"index":`, uint64(s.Index))
	t.text(`,"text":`)
	t.quote(text)
	t.field(`,"done":`, t.at+s.Done)
	if operator >= 0 {
		t.text(`,"operator":`)
		t.quote(t.program.Operators[operator].Name)
	}
	if tensor := t.tensor(s); tensor != "" {
		t.text(`,"tensor":`)
		t.quote(tensor)
	}
	for _, f := range []struct {
		key string
		n   uint64
	}{
		{`,"macs":`, s.MACs}, {`,"bytes":`, s.Moved}, {`,"dram_bytes":`, s.DRAM}, {`,"bus_bytes":`, s.Bus},
		{`,"memory_stall":`, s.Memory}, {`,"scratchpad_stall":`, s.Scratchpad},
	} {
		if f.n > 0 {
			t.field(f.key, f.n)
		}
	}
	t.end("}}")
}

// tensor is what an instruction loads or stores.
func (t *Writer) tensor(s *timing.Span) string {
	if s.Moved == 0 || t.program.Tensor == nil {
		return ""
	}
	i, v := isa.Decode(&s.Word)
	if v != nil {
		return ""
	}
	switch i := i.(type) {
	case isa.Load:
		return t.program.Tensor(s.Index, i.Binding, i.Offset)
	case isa.Store:
		return t.program.Tensor(s.Index, i.Binding, i.Offset)
	}
	return ""
}

// rate sets the counter of a row to what moves from one cycle to another, if something does.
func (t *Writer) rate(r int, from, to, bytes uint64) {
	if bytes == 0 || from == to {
		return
	}
	if t.rows[r].until < from {
		t.fall(r)
	}
	if n := bytes * 1000 / (to - from); n != t.rows[r].moved {
		t.counter(r, from, n)
		t.rows[r].moved = n
	}
	t.rows[r].until = to
}

// fall lets the counter of a row be 0 where what it counted has ended.
func (t *Writer) fall(r int) {
	if t.rows[r].moved > 0 {
		t.counter(r, t.rows[r].until, 0)
		t.rows[r].moved = 0
	}
}

// cover makes w last from one cycle to another at least, with an instruction of that index.
func (w *work) cover(from, to uint64, index int) {
	if !w.there {
		w.there, w.from, w.first = true, from, index
	}
	w.from, w.to, w.last = min(w.from, from), max(w.to, to), index
}

// add counts s.
func (w *work) add(s *timing.Span) {
	if s.Stall {
		w.stalls[s.Cause] += s.End - s.Start
		return
	}
	w.count++
	if s.Placing {
		w.placing += s.End - s.Start
	} else {
		w.busy[s.Engine] += s.End - s.Start
	}
	w.stalls[timing.OnMemory] += s.Memory
	w.stalls[timing.OnScratchpad] += s.Scratchpad
	w.macs += s.MACs
	w.moved += s.Moved
	w.mem += s.DRAM + s.Bus
}

// flush writes the block of a row.
func (t *Writer) flush(r int) {
	b := &t.rows[r].block
	if !b.there {
		return
	}
	t.line = append(appendNumber(t.line[:0], b.count), " instructions"...)
	t.begin('X', r, b.from, string(t.line))
	t.field(`,"dur":`, b.to-b.from)
	t.field(`,"cat":"merged","args":{"first_index":`, uint64(b.first))
	t.field(`,"last_index":`, uint64(b.last))
	if b.operator >= 0 {
		t.text(`,"operator":`)
		t.quote(t.program.Operators[b.operator].Name)
	}
	t.sums(b)
	t.end("}}")
	t.rate(r, b.from, b.to, b.mem)
	*b = work{}
}

// sums writes what is in w as members of args.
func (t *Writer) sums(w *work) {
	t.field(`,"instructions":`, w.count)
	for e, n := range w.busy {
		if n > 0 {
			t.field(`,"busy_`+rowNames[engineRows[e]]+`":`, n)
		}
	}
	if w.placing > 0 {
		t.field(`,"busy_weights":`, w.placing)
	}
	for c, n := range w.stalls {
		if n > 0 {
			t.field(`,"stall_`+timing.Cause(c).String()+`":`, n)
		}
	}
	if w.macs > 0 {
		t.field(`,"macs":`, w.macs)
	}
	if w.moved > 0 {
		t.field(`,"bytes":`, w.moved)
		t.field(`,"memory_bytes":`, w.mem)
	}
}

// operators writes those of the program, each from its first cycle to its last, in as many lanes as overlap.
func (t *Writer) operators() {
	var order []int
	for i := range t.seen {
		if t.seen[i].there {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch x, y := t.seen[a].from, t.seen[b].from; {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	for _, i := range order {
		w, o := &t.seen[i], &t.program.Operators[i]
		lane := slices.IndexFunc(t.lanes, func(free uint64) bool { return free <= w.from })
		if lane < 0 {
			lane = len(t.lanes)
			t.lanes = append(t.lanes, 0)
			t.line = appendNumber(append(t.line[:0], "operators, lane "...), uint64(lane+1))
			t.meta("thread_name", rowLane+lane, string(t.line))
		}
		t.lanes[lane] = w.to
		t.begin('X', rowLane+lane, w.from, o.Name)
		t.field(`,"dur":`, w.to-w.from)
		t.text(`,"cat":"operator","args":{"operator":`)
		t.quote(o.Op)
		t.sums(w)
		t.end("}}")
	}
}
