// SPDX-License-Identifier: Apache-2.0

package core

import (
	"math"
	"math/bits"
	"runtime"
	"sync/atomic"

	"npuemu/core/hazard"
	"npuemu/core/isa"
)

// A core with several units executes instructions side by side. The sequencer decides everything as with one unit: it takes
// instructions in the order of execution, checks them, counts them, moves tokens, and follows hazards as if they had
// finished. What they do to bytes it leaves to tasks, each of which begins when those before it have finished that access
// a byte that it accesses too, one of them writing. So bytes are those of the order of execution.
//
// Some tasks can fail: those that read a table with rules, or memory behind a binding. A task that writes such memory
// begins when all before it that can fail have finished; the first that did ends the program, and counters are what they
// were before it. What no task is made for waits until all have finished: what tells the time, keeps something in the
// array, or accesses memory that has no place (PlacedMemory), and all of a program that begins with poison.

// windowSize is how many tasks there are at most. Looking for conflicts with all of them takes about a microsecond.
const windowSize = 32

// ahead is how many tasks that have not finished the sequencer leaves behind before it works itself.
const ahead = 24

// mostAccesses is what BIAS, CONV and REQUANT as one task have.
const mostAccesses = 10

// What is worth what, in nanoseconds, roughly.
const (
	bytesPerNano   = 8
	packedPerNano  = 5 // bytes of weights
	macsPerNano    = 200
	groupedPerNano = 30 // multiply-accumulates of groups, depthwise most of the time
	sumsPerNano    = 6  // of a product: beginning and storing one
	vectorNanos    = 2000
	worthWaking    = 50_000 // a goroutine that sleeps
	worthSharing   = 15_000 // a product among all units; the others leave such to the sequencer's
)

// Pieces of LOAD and STORE that are tasks of their own.
const (
	pieceBytes = 128 << 10
	mostPieces = 8
)

// How many bytes of ELEMENT's wider operand, and of TRANSPOSE, are worth a task of their own: operations on bytes take a quarter of
// the time of those on words, and what a task costs is soon more.
const (
	elementBytes   = 64 << 10
	transposeBytes = 16 << 10
)

// taskKind says what a task does.
type taskKind uint8

const (
	wordTask taskKind = iota // an instruction
	loadTask                 // LOAD or a part of one
	storeTask
	lateTask
)

// task is what an instruction, or several, do to bytes. Who began it owns it until it is done, else the sequencer.
type task struct {
	number uint64 // of the program's tasks
	index  int    // of the instruction
	kind   taskKind
	word   isa.Word
	load   isa.Load
	late   late
	limits *isa.Limits
	nanos  int

	foot     *footprint // or nil: it follows from a course what waits for it
	fallible bool
	large    bool

	moved   Stats // bytes
	fault   *Fault
	before  Stats // of the program before the instruction
	hazards int   // that were noted before
}

// footprint is what a task accesses.
type footprint struct {
	limits   isa.Limits // of the task
	accesses [mostAccesses]isa.Access
	count    int
}

// withoutSums makes f that of a task whose sums are nowhere.
func (f *footprint) withoutSums() {
	all := f.count
	f.count = 0
	for _, a := range f.accesses[:all] {
		if a.Space != isa.Accumulators {
			f.accesses[f.count] = a
			f.count++
		}
	}
}

// reach is what the accesses of a task may conflict with, at a look: the same as accesses, those that write first.
type reach struct {
	list          [mostAccesses]span64
	writes, count int
}

// span64 is from the first byte of an access to its last.
type span64 struct {
	from, to uint64
	access   uint8 // number of it
	space    isa.Space
	place    uint8
}

// window is the tasks that have not been retired: numbers retired to issued, each in its place, modulo windowSize.
type window struct {
	tasks    [windowSize]task
	feet     [windowSize]footprint
	reaches  [windowSize]reach
	issued   uint64
	retired  uint64
	fallible uint32 // tasks that can fail
	backlog  int    // nanoseconds since somebody was woken

	fault   *Fault // of the first task that failed
	before  Stats  // of the program before that task's instruction, and the bytes that it moved
	hazards int    // that were noted before

	// waiting has a bit for each task that nobody has begun, and above them a count of all that were issued: a task that
	// was chosen by an older value is not the one that is there now.
	waiting  atomic.Uint64
	deps     [windowSize]atomic.Uint32 // tasks that a waiting one waits for
	busy     atomic.Uint32             // tasks that have not finished
	done     atomic.Uint32             // tasks that have finished, and left nothing to do but to be retired
	large    atomic.Uint32
	oldest   atomic.Uint32 // place of the oldest task
	failed   atomic.Uint64 // least number of a task that failed
	progress atomic.Uint32 // counts what finished
	asleep   atomic.Bool   // the sequencer waits for wake
	wake     chan struct{}
}

func (w *window) start() { w.wake = make(chan struct{}, 1) }

// begin decides whether the program, which is ready to run, has tasks.
func (c *Core) begin(mem Memory) {
	again := c.same != nil && !c.same.varied // one unit has a course too
	c.apart = (len(c.units) > 1 || again) && !c.poison.Some()
	if !c.apart {
		return
	}
	c.poison.apart = true
	placed, _ := mem.(PlacedMemory)
	c.places.reset(placed, len(c.bindings))
	w := &c.win
	w.issued, w.retired, w.fallible, w.backlog, w.fault = 0, 0, 0, 0, nil
	w.oldest.Store(0)
	w.failed.Store(math.MaxUint64)
}

// end waits for all tasks and returns the fault of the first that failed, or nil. That was the end of the program: what was
// counted since does not count.
func (c *Core) end() *Fault {
	c.settle()
	c.poison.apart = false
	w := &c.win
	if w.fault != nil {
		c.stats, c.hazards = w.before, c.hazards[:w.hazards]
	}
	return w.fault
}

// dispatch executes w, or makes it a task. Faults of tasks are in the window; else the fault has no index.
func (c *Core) dispatch(w *isa.Word) *Fault {
	switch isa.Opcode(w[0]) {
	case isa.OpOperands, isa.OpWindow, isa.OpBlocks, isa.OpSparse, isa.OpImage, isa.OpShape, isa.OpScales, isa.OpBias, isa.OpRequant,
		isa.OpSyncLoad, isa.OpSyncStore, isa.OpSyncMatrix, isa.OpSyncVector:
		return c.execute(w)
	case isa.OpGemm, isa.OpConv:
		if !stood(&c.limits.Setup) {
			return c.execute(w)
		}
	case isa.OpLoad:
		if c.issueTransfer(isa.DecodeLoad(w), loadTask) {
			return nil
		}
	case isa.OpStore:
		if c.issueTransfer(isa.Load(isa.DecodeStore(w)), storeTask) {
			return nil
		}
	default:
		if c.passes(w) {
			c.issueWord(w)
			return nil
		}
	}
	c.giveUpNoting() // it is more than tasks
	c.catchUp()
	if c.settle(); c.win.fault != nil {
		return nil
	}
	c.poison.apart = false // it is told what changes
	defer func() { c.poison.apart = true }()
	return c.execute(w)
}

// passes reports whether w is for a task of its own.
func (c *Core) passes(w *isa.Word) bool {
	switch isa.Opcode(w[0]) {
	case isa.OpFill, isa.OpElement, isa.OpTable, isa.OpReduce, isa.OpNorm, isa.OpPool, isa.OpResize, isa.OpTranspose, isa.OpGather, isa.OpScatter,
		isa.OpQuantize, isa.OpAddq:
		return c.valid(w)
	}
	return false
}

// valid reports whether w, which accesses local memory, breaks no rule that can be checked without a look there.
func (c *Core) valid(w *isa.Word) bool {
	var v *isa.Violation
	switch isa.Opcode(w[0]) {
	case isa.OpLoad:
		v = isa.DecodeLoad(w).Check(c.limits)
	case isa.OpStore:
		v = isa.DecodeStore(w).Check(c.limits)
	case isa.OpPreload:
		v = isa.DecodePreload(w).Check(c.limits)
	case isa.OpMatmul:
		v = isa.DecodeMatmul(w).Check(c.limits)
	case isa.OpFill:
		v = isa.DecodeFill(w).Check(c.limits)
	case isa.OpElement:
		v = isa.DecodeElement(w).Check(c.limits)
	case isa.OpTable:
		v = isa.DecodeTable(w).Check(c.limits)
	case isa.OpReduce:
		v = isa.DecodeReduce(w).Check(c.limits)
	case isa.OpNorm:
		v = isa.DecodeNorm(w).Check(c.limits)
	case isa.OpPool:
		v = isa.DecodePool(w).Check(c.limits)
	case isa.OpResize:
		v = isa.DecodeResize(w).Check(c.limits)
	case isa.OpTranspose:
		v = isa.DecodeTranspose(w).Check(c.limits)
	case isa.OpGather:
		v = isa.DecodeGather(w).Check(c.limits)
	case isa.OpScatter:
		v = isa.DecodeScatter(w).Check(c.limits)
	case isa.OpQuantize:
		v = isa.DecodeQuantize(w).Check(c.limits)
	case isa.OpAddq:
		v = isa.DecodeAddq(w).Check(c.limits)
	}
	return v == nil
}

// ready makes local memory what it has to be for w, which breaks no rule.
func (c *Core) ready(w *isa.Word) {
	if c.blankSpad.left == 0 && c.blankAcc.left == 0 {
		return
	}
	c.touched = isa.Accesses(c.touched[:0], w, &c.limits.Setup)
	for i := range c.touched {
		hazard.Normal(&c.touched[i].Rows)
	}
	c.touch(isa.Opcode(w[0]), c.touched)
}

// access appends what w, which breaks no rule, accesses to list, as the window compares it: memory by its place and address.
// Local memory is ready for w then.
func (c *Core) access(list []isa.Access, w *isa.Word) []isa.Access {
	first := len(list)
	list = isa.Accesses(list, w, &c.limits.Setup)
	for i := first; i < len(list); i++ {
		a := &list[i]
		if a.Space == isa.Memory {
			a.Rows.Base += c.bindings[a.Binding].Addr
			a.Binding, _ = c.places.of(a.Binding, c.bindings)
		}
		hazard.Normal(&a.Rows)
	}
	c.touch(isa.Opcode(w[0]), list[first:])
	return list
}

// issueWord makes tasks of w, which passes.
func (c *Core) issueWord(w *isa.Word) {
	if len(c.units) > 1 {
		switch isa.Opcode(w[0]) {
		case isa.OpElement:
			if c.issueRows(isa.DecodeElement(w)) {
				return
			}
		case isa.OpTranspose:
			if c.issueGrids(isa.DecodeTranspose(w)) {
				return
			}
		}
	}
	c.issuePart(w)
}

// issueRows makes tasks of some rows of i each, or reports false: it has too few. Rows are in order, as they are in one task.
func (c *Core) issueRows(i isa.Element) bool {
	m := uint64(i.M)
	pieces := min(m*uint64(i.N)*max(i.Type.Bytes(1), i.OutType.Bytes(1))/elementBytes, mostPieces, m)
	if pieces < 2 {
		return false
	}
	cut(m, pieces, 1, func(from, n uint64) {
		p := i
		p.M = uint32(n)
		p.X += uint32(from) * uint32(i.XStride)
		p.Y += uint32(from) * uint32(i.YStride)
		p.Out += uint32(from) * uint32(i.OutStride)
		w := p.Encode()
		c.issuePart(&w)
	})
	return true
}

// issueGrids makes tasks of parts of i, whose results follow each other, or reports false: it is too small, or the order of its
// elements matters.
func (c *Core) issueGrids(i isa.Transpose) bool {
	s := &c.limits.Setup.Shape
	whole := *s
	var room [isa.Dims]axis
	axes, along, elements := room[:0], 0, uint64(1)
	for d, n := range s.N {
		if n == 1 {
			continue
		}
		axes = append(axes, axis{n: int(n), x: int(i.XStride[d]), out: int(s.OutStride[d])})
		elements *= uint64(n)
		if s.N[along] == 1 || s.OutStride[d] > s.OutStride[along] {
			along = d
		}
	}
	g := grid{axes: axes, size: int(i.Size)}
	n := uint64(s.N[along])
	pieces := min(elements*uint64(i.Size)/transposeBytes, mostPieces, n)
	if pieces < 2 || !g.apart() {
		return false
	}
	cut(n, pieces, 1, func(from, n uint64) {
		p := i
		s.N[along] = uint16(n)
		p.X += uint32(from) * i.XStride[along]
		p.Out += uint32(from) * whole.OutStride[along]
		w := p.Encode()
		c.issuePart(&w)
		*s = whole
	})
	return true
}

// issuePart makes a task of w, which passes.
func (c *Core) issuePart(w *isa.Word) {
	t := c.room()
	t.kind, t.word, t.nanos = wordTask, *w, vectorNanos
	switch isa.Opcode(w[0]) {
	case isa.OpRequant, isa.OpQuantize, isa.OpGather, isa.OpScatter:
		t.fallible = true
	}
	t.foot.count = len(c.access(t.foot.accesses[:0], w))
	c.publish(t)
}

// issueLate makes a task of what is late, whose accesses are noted.
func (c *Core) issueLate() {
	t := c.room()
	l := &c.late
	t.kind, t.late, t.nanos, t.fallible = lateTask, *l, vectorNanos, l.fused
	list := append(t.foot.accesses[:0], c.accesses...)
	if l.fused {
		list = c.access(list, c.word)
	}
	t.foot.count = len(list)
	if l.fused && l.passing {
		t.foot.withoutSums()
	}
	if l.product {
		rate := uint64(macsPerNano)
		if l.p.Groups > 1 {
			rate = groupedPerNano
		}
		sums := uint64(l.p.OutH) * uint64(l.p.OutW) * uint64(l.p.Cout)
		t.nanos += int(min(l.p.MACs()/rate+sums/sumsPerNano+l.b.Bytes*l.b.Inner/packedPerNano, math.MaxInt32))
	}
	t.large = t.nanos >= worthSharing
	c.publish(t)
}

// issueTransfer makes tasks of LOAD or STORE i, or reports false: it breaks a rule, or its binding has no place.
func (c *Core) issueTransfer(i isa.Load, kind taskKind) bool {
	if i.Check(c.limits) != nil {
		return false
	}
	b := c.bindings[i.Binding]
	if kind == storeTask && !b.Write || kind == loadTask && !b.Read {
		return false
	}
	m := i.Memory()
	if _, outside := m.Outside(b.Size); outside {
		return false
	}
	if _, placed := c.places.of(i.Binding, c.bindings); !placed {
		return false
	}
	size := m.Bytes * m.Inner * m.Outer
	pieces := min(size/pieceBytes, mostPieces)
	if pieces < 2 {
		c.issuePiece(i, kind)
		return true
	}
	switch {
	case i.NZ > 1:
		cut(uint64(i.NZ), pieces, 1, func(from, n uint64) {
			p := i
			p.NZ = uint16(n)
			p.Offset += from * uint64(i.StrideZ)
			p.Local += uint32(from * uint64(i.NY) * uint64(i.LocalStride))
			c.issuePiece(p, kind)
		})
	case i.NY > 1:
		cut(uint64(i.NY), pieces, 1, func(from, n uint64) {
			p := i
			p.NY = uint16(n)
			p.Offset += from * uint64(i.StrideY)
			p.Local += uint32(from * uint64(i.LocalStride))
			c.issuePiece(p, kind)
		})
	default:
		cut(uint64(i.NX), pieces, 4096, func(from, n uint64) {
			p := i
			p.NX = uint32(n)
			p.Offset += from
			p.Local += uint32(from)
			c.issuePiece(p, kind)
		})
	}
	return true
}

// cut tells f of at most so many parts of n, which begin at multiples of unit.
func cut(n, parts, unit uint64, f func(from, n uint64)) {
	each := (n + parts - 1) / parts
	each = (each + unit - 1) / unit * unit
	for from := uint64(0); from < n; from += each {
		f(from, min(each, n-from))
	}
}

// issuePiece makes a task of i, which breaks no rule.
func (c *Core) issuePiece(i isa.Load, kind taskKind) {
	t := c.room()
	t.kind, t.load, t.fallible = kind, i, true
	m, write := i.Memory(), kind == storeTask
	t.nanos = int(m.Bytes * m.Inner * m.Outer / bytesPerNano)
	local := isa.Access{Write: !write, Rows: isa.Rows{
		Base: uint64(i.Local), Outer: 1, Inner: m.Inner * m.Outer, InnerStride: uint64(i.LocalStride), Bytes: m.Bytes,
	}}
	if i.Acc {
		local.Space = isa.Accumulators
	}
	memory := isa.Access{Space: isa.Memory, Write: write, Rows: m}
	memory.Rows.Base += c.bindings[i.Binding].Addr
	memory.Binding, _ = c.places.of(i.Binding, c.bindings)
	hazard.Normal(&local.Rows)
	hazard.Normal(&memory.Rows)
	f := t.foot
	f.accesses[0], f.accesses[1], f.count = local, memory, 2
	c.touch(isa.Opcode(c.word[0]), f.accesses[:1])
	c.publish(t)
}

// makeRoom works until there is room for another task, and as long as a product could begin that only the sequencer shares
// with others.
func (c *Core) makeRoom() {
	w := &c.win
	most := uint64(ahead)
	if len(c.units) == 1 {
		most = 1
	}
	for c.retire(); w.issued-w.retired >= most || w.ready(w.large.Load()); c.retire() {
		c.work()
	}
}

// room returns the place of the next task, which is empty.
func (c *Core) room() *task {
	c.makeRoom()
	w := &c.win
	s := w.issued % windowSize
	t, f := &w.tasks[s], &w.feet[s]
	f.limits = c.limits
	*t = task{number: w.issued, index: c.index, limits: &f.limits, foot: f, before: c.stats, hazards: len(c.hazards)}
	return t
}

// publish makes t, which has the next task's place and is complete, one that units can begin.
func (c *Core) publish(t *task) {
	w := &c.win
	s := w.issued % windowSize
	r := &w.reaches[s]
	r.of(t.foot)
	for _, e := range r.list[:r.writes] {
		if e.space == isa.Scratchpad {
			c.poison.book.changed(extent{e.from, e.to})
		}
	}
	deps, others := uint32(0), w.busy.Load()
	for m := others; m != 0; m &= m - 1 {
		if o := bits.TrailingZeros32(m); conflict(r, &w.reaches[o], t.foot, &w.feet[o]) {
			deps |= 1 << o
		}
	}
	if t.kind == storeTask {
		deps |= others & w.fallible
	}
	if w.fallible &^= 1 << s; t.fallible {
		w.fallible |= 1 << s
	}
	if c.noted != nil {
		c.takeDown(t)
	}
	c.issue(t, deps)
}

// of makes r what f may conflict with.
func (r *reach) of(f *footprint) {
	r.writes, r.count = 0, f.count
	reads := f.count
	for k := range f.count {
		a := &f.accesses[k]
		e := span64{a.Rows.Base, hazard.End(&a.Rows), uint8(k), a.Space, a.Binding}
		if !a.Write {
			reads--
			r.list[reads] = e
			continue
		}
		r.list[r.writes] = e
		r.writes++
	}
}

// issue makes t, which has the next task's place, one that units can begin when those at places deps have finished.
func (c *Core) issue(t *task, deps uint32) {
	w := &c.win
	s := w.issued % windowSize
	bit := uint32(1) << s
	if w.large.Load()&bit != 0 != t.large {
		w.large.Store(w.large.Load() ^ bit)
	}
	w.issued++
	w.busy.Or(bit)
	w.deps[s].Store(deps)
	for v := w.waiting.Load(); !w.waiting.CompareAndSwap(v, (v+1<<windowSize)|uint64(bit)); {
		v = w.waiting.Load()
	}
	w.deps[s].And(w.busy.Load()) // what has finished may not have seen that t waits for it
	if w.backlog += t.nanos; w.backlog >= worthWaking && len(c.units) > 1 {
		w.backlog = 0
		c.units[0].array.Call()
	}
}

// conflict reports whether a task with footprint f and its reach r has to wait for one with footprint g and its reach of.
func conflict(r, of *reach, f, g *footprint) bool {
	for i := range r.count {
		a := &r.list[i]
		others := of.list[:of.count]
		if i >= r.writes {
			others = of.list[:of.writes]
		}
		for k := range others {
			b := &others[k]
			if a.space != b.space {
				continue
			}
			if a.space == isa.Memory && a.place != b.place { // they may be the same bytes by other addresses
				return true
			}
			if a.from < b.to && b.from < a.to && hazard.Meet(&f.accesses[a.access].Rows, &g.accesses[b.access].Rows, maxRows) {
				return true
			}
		}
	}
	return false
}

// ready reports whether one of some tasks can begin.
func (w *window) ready(some uint32) bool {
	for r := uint32(w.waiting.Load()) & some; r != 0; r &= r - 1 {
		if w.deps[bits.TrailingZeros32(r)].Load() == 0 {
			return true
		}
	}
	return false
}

// take returns the oldest task that can begin, as one that has begun, or −1.
func (w *window) take(unit int) int {
	for {
		v := w.waiting.Load()
		ready := uint32(v)
		if ready == 0 {
			return -1
		}
		if unit > 0 {
			ready &^= w.large.Load()
		}
		from := int(w.oldest.Load())
		changed := false
		for r := bits.RotateLeft32(ready, -from); r != 0 && !changed; r &= r - 1 {
			s := (bits.TrailingZeros32(r) + from) % windowSize
			if w.deps[s].Load() != 0 {
				continue
			}
			if w.waiting.CompareAndSwap(v, v&^(1<<s)) {
				return s
			}
			changed = true
		}
		if !changed {
			return -1
		}
	}
}

// help does a task, as what the goroutine of a thread does when it has nothing else to do.
func (c *Core) help(thread int) bool {
	if c.helpCourse(thread) {
		return true
	}
	s := c.win.take(thread)
	if s < 0 {
		return false
	}
	c.perform(c.units[thread], s)
	return true
}

// perform does task s with u.
func (c *Core) perform(u *unit, s int) {
	w := &c.win
	t := &w.tasks[s]
	if t.number < w.failed.Load() {
		u.limits, u.stats = t.limits, &t.moved
		switch t.kind {
		case loadTask:
			t.fault = u.transfer(t.load, false)
		case storeTask:
			t.fault = u.transfer(t.load, true)
		case lateTask:
			// A small product is not shared while there is something else to do.
			u.array.Alone(!t.large && w.ready(math.MaxUint32))
			t.fault = u.compute(&t.late)
			u.array.Alone(false)
		default:
			t.fault = u.execute(&t.word)
		}
		if t.fault != nil {
			t.fault.Instr = uint32(t.index)
			for n := w.failed.Load(); t.number < n && !w.failed.CompareAndSwap(n, t.number); {
				n = w.failed.Load()
			}
		}
	}
	bit := uint32(1) << s
	w.busy.And(^bit)
	for m := uint32(w.waiting.Load()); m != 0; m &= m - 1 {
		w.deps[bits.TrailingZeros32(m)].And(^bit)
	}
	w.done.Or(bit)
	w.progress.Add(1)
	if w.asleep.CompareAndSwap(true, false) {
		w.wake <- struct{}{}
	}
}

// How long the sequencer looks for something to do before it lets others run, and before it sleeps.
const (
	workSpins = 5_000
	workTurns = 20
)

// work does a task, or waits until one has finished.
func (c *Core) work() {
	w := &c.win
	for range workTurns {
		for range workSpins {
			seen := w.progress.Load()
			if s := w.take(0); s >= 0 {
				c.perform(c.units[0], s)
				return
			}
			if w.done.Load()>>(w.retired%windowSize)&1 != 0 {
				return
			}
			for range 16 {
				if w.progress.Load() != seen {
					break
				}
			}
		}
		runtime.Gosched()
	}
	seen := w.progress.Load()
	w.asleep.Store(true)
	if w.progress.Load() != seen || w.done.Load()>>(w.retired%windowSize)&1 != 0 || uint32(w.waiting.Load()) != 0 {
		if w.asleep.CompareAndSwap(true, false) {
			return
		}
	}
	<-w.wake
}

// retire takes the oldest tasks out of the window, if they are done.
func (c *Core) retire() {
	w := &c.win
	for w.retired < w.issued {
		s := w.retired % windowSize
		if w.done.Load()>>s&1 == 0 {
			break
		}
		w.done.And(^(uint32(1) << s))
		w.retired++
		w.oldest.Store(uint32(w.retired % windowSize))
		if w.fault != nil {
			continue
		}
		t := &w.tasks[s]
		c.stats.BytesLoaded += t.moved.BytesLoaded
		c.stats.BytesStored += t.moved.BytesStored
		if t.fault != nil {
			w.fault, w.before, w.hazards = t.fault, t.before, t.hazards
			w.before.BytesLoaded, w.before.BytesStored = c.stats.BytesLoaded, c.stats.BytesStored
		}
	}
}

// settle waits until all tasks have finished. The sequencer's unit is its own again.
func (c *Core) settle() {
	w := &c.win
	for c.retire(); w.retired < w.issued; c.retire() {
		c.work()
	}
	u := c.units[0]
	u.limits, u.stats = &c.limits, &c.stats
}

// places are where the bindings of the running program lie.
type places struct {
	mem   PlacedMemory // or nil
	found []place      // by binding
	list  []uint64     // the numbers of all
}

type place struct{ known, placed, index uint8 }

func (p *places) reset(mem PlacedMemory, bindings int) {
	p.mem, p.list = mem, p.list[:0]
	if cap(p.found) < bindings {
		p.found = make([]place, bindings)
	}
	p.found = p.found[:bindings]
	clear(p.found)
}

// of returns which place binding b has, or false if it has none.
func (p *places) of(b uint8, bindings []Binding) (uint8, bool) {
	f := &p.found[b]
	if f.known == 0 {
		f.known = 1
		if p.mem != nil {
			if number, ok := p.mem.Place(bindings[b]); ok {
				f.index, f.placed = p.index(number), 1
			}
		}
	}
	return f.index, f.placed != 0
}

// index returns that of a place in the list.
func (p *places) index(number uint64) uint8 {
	for i, n := range p.list {
		if n == number {
			return uint8(i)
		}
	}
	p.list = append(p.list, number)
	return uint8(len(p.list) - 1)
}
