// SPDX-License-Identifier: Apache-2.0

package timing

import (
	"context"
	"fmt"

	"npuemu/core/isa"
)

// engines is the number of engines; engine e executes class e + 1.
const engines = 4

// Cause is why an engine that has work does not do it (§13.6).
type Cause uint8

// The causes.
const (
	OnLoad       Cause = iota // a token of the load engine
	OnStore                   // of the store engine
	OnMatrix                  // of the matrix engine
	OnVector                  // of the vector engine
	OnDispatch                // the sequencer has not come that far
	OnWeights                 // weights are not in the array yet
	OnMemory                  // other transfers have a part of the memory's width
	OnScratchpad              // other engines have a part of the scratchpad's width
	Causes
)

var causeNames = [...]string{"load", "store", "matrix", "vector", "dispatch", "weights", "memory", "scratchpad"}

// String returns the name as tables have it.
func (c Cause) String() string { return causeNames[c] }

// Engine is how an engine spent a program's cycles. Stalls of OnMemory and OnScratchpad are
// a part of Busy, which they make longer; what is in neither is when
// the engine had nothing to do.
type Engine struct {
	Instructions uint64
	Busy         uint64
	Stalls       [Causes]uint64
}

// Report is what the model says of a program.
type Report struct {
	Cycles       uint64 // from the first instruction to the end of the last
	Instructions uint64 // of engines, and HALT
	MACs         uint64
	Loaded       uint64 // bytes that LOAD moved
	Stored       uint64 // bytes that STORE and STAMP moved
	DRAM         uint64 // bytes of device memory, whole bursts
	Bus          uint64 // bytes of the bus
	Engines      [engines]Engine
	Stamps       []uint64 // the times of the STAMPs, in their order (§5.6.17)
}

// Add makes r that of its programs and then o's.
func (r *Report) Add(o *Report) {
	for _, at := range o.Stamps {
		r.Stamps = append(r.Stamps, r.Cycles+at)
	}
	r.Cycles += o.Cycles
	r.Instructions += o.Instructions
	r.MACs += o.MACs
	r.Loaded += o.Loaded
	r.Stored += o.Stored
	r.DRAM += o.DRAM
	r.Bus += o.Bus
	for e := range r.Engines {
		a, b := &r.Engines[e], &o.Engines[e]
		a.Instructions += b.Instructions
		a.Busy += b.Busy
		for c := range a.Stalls {
			a.Stalls[c] += b.Stalls[c]
		}
	}
}

// Utilization is the share of the array's multiply-accumulates that were used.
func (r *Report) Utilization(c Config) float64 {
	return utilization(r.MACs, r.Cycles, c)
}

// Program returns the cycles of a program on c, which is valid. onBus has a bit for each
// binding that is memory on the bus, and not of the device. A program that the
// core would refuse whatever memory holds, or that would wait for ever, is an
// error; so is the end of ctx, which is looked at now and then.
func Program(ctx context.Context, p *isa.Program, c Config, onBus uint64) (Report, error) {
	return Observe(ctx, p, c, onBus, nil)
}

// Observe is Program, and calls see, unless it is nil, with what engines did (§13.10), when it is over. The spans of an
// engine, those that are Placing apart, come in their order and do not overlap. An error of see ends the
// simulation.
func Observe(ctx context.Context, p *isa.Program, c Config, onBus uint64, see func(Span) error) (Report, error) {
	halt, v, at := isa.Scan(p.Text, p.Features)
	if v == nil && halt < 0 {
		return Report{}, fmt.Errorf("timing: the program has no HALT (NO_HALT, §5.7)")
	}
	if v == nil {
		v, at = isa.WithinBudget(p.Text, halt, p.Registers())
	}
	if v != nil {
		return Report{}, fmt.Errorf("timing: instruction %d: %w", at, v)
	}
	s := simulation{c: &c, onBus: onBus, limits: p.Limits(), see: see}
	for e := range s.heads {
		h := &s.heads[e]
		h.walker = p.Walker(halt)
		if err := s.next(e); err != nil {
			return Report{}, err
		}
	}
	if err := s.run(ctx); err != nil {
		return Report{}, err
	}
	s.report.Instructions++ // HALT
	return s.report, nil
}

// fixed is the position of the binary point in progress and rates.
const fixed = 16

// head is an engine's first instruction that has not started.
type head struct {
	walker  isa.Walker
	there   bool
	word    isa.Word
	cost    cost
	ready   uint64 // the sequencer passes it then
	waited  uint64 // cycles for its token so far
	blocked bool   // by that token
	last    uint64 // when the engine's last instruction is done
	pending []done // in order of time
}

// done is the end of an instruction: its signal.
type done struct{ at, signal uint64 }

// job is what a unit works on.
type job struct {
	active bool
	engine int
	left   uint64 // cycles with everything to itself, fixed-point
	tail   uint64
	signal uint64
	rates  [shared]uint64 // bytes in such a cycle, fixed-point
	alone  uint64         // speed with everything to itself: less than 1 if its accesses meet in few banks
	speed  uint64         // cycles of it in a cycle, fixed-point
	held   Cause          // what keeps speed below 1
	span   Span           // if somebody sees it
}

// The parts of the card that units share.
const (
	sharedDRAM = iota
	sharedBus
	sharedSpad
	shared
)

// simulation is a program on its way through the core.
type simulation struct {
	c        *Config
	onBus    uint64
	limits   isa.Limits // with the setup of the matrix engine
	now      uint64
	heads    [engines]head
	jobs     [units]job
	tokens   [16]uint64
	signaler [16]Cause // whose signal changed the token last
	held     []job     // PRELOADs that are done before the array is with what comes before them
	placed   bool      // PRELOAD's weights wait for their first MATMUL
	report   Report

	see    func(Span) error
	seeErr error
	stalls [engines]Span // that last; Stall is set if there is one
}

// next makes the engine's next instruction its head.
func (s *simulation) next(e int) error {
	h := &s.heads[e]
	h.waited, h.blocked = 0, false
	if h.there = h.walker.Next(isa.Class(e + 1)); !h.there {
		return nil
	}
	h.word = *h.walker.Word()
	i, v := isa.Decode(&h.word)
	if v == nil {
		v = i.Check(s.limits)
	}
	if v != nil {
		return fmt.Errorf("timing: instruction %d: %w", h.walker.Index(), v)
	}
	// OPERANDS and WINDOW are of the engine that comes by here in order.
	s.limits.Setup.Apply(i)
	h.cost = s.c.engine(i, &s.limits.Setup, s.onBus)
	s.c.spread(&h.word, &s.limits.Setup, &h.cost)
	h.ready = (h.walker.Number() - 1) * uint64(s.c.Dispatch)
	return nil
}

// run goes from event to event: instructions start, units become free, signals
// arrive.
func (s *simulation) run(ctx context.Context) error {
	for n := 0; ; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if s.seeErr != nil {
			return s.seeErr
		}
		started, err := s.start()
		if err != nil {
			return err
		}
		if started { // others may start now
			continue
		}
		s.share()
		at, more := s.event()
		if !more {
			return s.finish()
		}
		s.advance(at)
	}
}

// start starts, in the order of engines, what can start now.
func (s *simulation) start() (bool, error) {
	started := false
	for e := range s.heads {
		h := &s.heads[e]
		if !h.there || s.now < h.ready || !s.free(e) {
			continue
		}
		token, count := h.word[2]&15, uint64(h.word[2]>>4)
		if s.tokens[token] < count {
			h.blocked = true
			continue
		}
		s.tokens[token] -= count
		s.report.Engines[e].Stalls[s.signaler[token]] += h.waited
		s.sawStalls(e, s.signaler[token])
		s.begin(e)
		started = true
		if err := s.next(e); err != nil {
			return false, err
		}
	}
	return started, nil
}

// free reports whether the units that the head of engine e needs are.
func (s *simulation) free(e int) bool {
	switch k := s.heads[e].cost; {
	case k.busy == 0: // its engine executes in order
		return !s.works(e)
	case k.unit == unitWeights: // a second tile waits until the first is used
		return !s.jobs[unitWeights].active && (s.c.WeightBuffers > 1 && !s.placed || !s.jobs[unitArray].active && s.drained())
	case k.unit == unitArray:
		return !s.jobs[unitArray].active && !s.jobs[unitWeights].active
	default:
		return !s.jobs[k.unit].active
	}
}

// works reports whether a unit of engine e is active.
func (s *simulation) works(e int) bool {
	return s.jobs[unitOf[e]].active || e == matrix && s.jobs[unitWeights].active
}

// matrix is the index of the matrix engine.
const matrix = int(isa.ClassMatrix) - 1

// unitOf is what an engine works with; the matrix engine has unitWeights as well.
var unitOf = [engines]unit{unitLoad, unitStore, unitArray, unitVector}

// drained reports whether the last results have left the array: only then can
// an array with one tile of weights take the next.
func (s *simulation) drained() bool {
	return s.c.WeightBuffers > 1 || s.now >= s.heads[matrix].last
}

// begin starts the head of engine e.
func (s *simulation) begin(e int) {
	h := &s.heads[e]
	k, r := &h.cost, &s.report
	r.Instructions++
	r.Engines[e].Instructions++
	r.MACs += k.macs
	r.DRAM += k.dram
	r.Bus += k.bus
	if isa.Opcode(h.word[0]) == isa.OpStamp {
		r.Stamps = append(r.Stamps, s.now)
	}
	switch isa.Class(e + 1) {
	case isa.ClassLoad:
		r.Loaded += k.moved
	case isa.ClassStore:
		r.Stored += k.moved
	}
	switch k.unit {
	case unitWeights:
		s.placed = true
	case unitArray:
		s.placed = false
	}
	if k.busy == 0 { // OPERANDS, WINDOW, SYNC
		s.leave(&job{engine: e, signal: uint64(h.word[3]), span: s.span(e)})
		return
	}
	j := &s.jobs[k.unit]
	*j = job{active: true, engine: e, left: min(k.busy, 1<<47) << fixed, alone: s.c.alone(k), tail: k.tail, signal: uint64(h.word[3]), span: s.span(e)}
	for part, bytes := range [shared]uint64{k.dram, k.bus, k.spad} {
		j.rates[part] = bytes / k.busy << fixed
		j.rates[part] += bytes % k.busy << fixed / k.busy
	}
}

// leave notes that the instruction of j has left its unit and is done after its tail, but not before the one
// before it.
func (s *simulation) leave(j *job) {
	h := &s.heads[j.engine]
	h.last = max(h.last, s.now+j.tail)
	if j.signal>>4 != 0 {
		h.pending = append(h.pending, done{h.last, j.signal})
	}
	if s.see != nil {
		j.span.Done = h.last
		s.saw(j.span)
	}
}

// share gives each unit its part of what they share: if together they want
// more than there is, all get less in proportion.
func (s *simulation) share() {
	widths := [shared]uint64{sharedDRAM: uint64(s.c.DRAMWidth), sharedBus: uint64(s.c.BusWidth), sharedSpad: s.c.ports()}
	causes := [shared]Cause{sharedDRAM: OnMemory, sharedBus: OnMemory, sharedSpad: OnScratchpad}
	var wanted [shared]uint64
	for u := range s.jobs {
		if j := &s.jobs[u]; j.active {
			j.speed, j.held = j.alone, OnScratchpad
			for part, rate := range j.rates {
				wanted[part] += mul(rate, j.alone)
			}
		}
	}
	for part, want := range wanted {
		if want > widths[part]<<fixed {
			speed := max(widths[part]<<(2*fixed)/want, 1)
			for u := range s.jobs {
				j := &s.jobs[u]
				if less := max(mul(j.alone, speed), 1); j.active && j.rates[part] != 0 && less < j.speed {
					j.speed, j.held = less, causes[part]
				}
			}
		}
	}
}

// mul multiplies a fixed-point number by another one, which is 1 at most.
func mul(a, b uint64) uint64 {
	if b == 1<<fixed {
		return a
	}
	return a>>fixed*b + a&(1<<fixed-1)*b>>fixed
}

// event returns when something happens next.
func (s *simulation) event() (at uint64, more bool) {
	at = ^uint64(0)
	for u := range s.jobs {
		if j := &s.jobs[u]; j.active {
			at = min(at, s.now+ceilDiv(j.left, j.speed))
		}
	}
	for e := range s.heads {
		h := &s.heads[e]
		if len(h.pending) > 0 {
			at = min(at, h.pending[0].at)
		}
		if h.there && h.ready > s.now {
			at = min(at, h.ready)
		}
		if h.there && h.last > s.now && h.cost.unit == unitWeights {
			at = min(at, h.last) // it may wait for the array to run empty
		}
	}
	return at, at != ^uint64(0)
}

// advance goes on to time at: counts, moves jobs on, and lets signals arrive.
func (s *simulation) advance(at uint64) {
	passed := at - s.now
	if passed > 0 {
		s.account(passed)
	}
	s.now = at
	for u := range s.jobs {
		j := &s.jobs[u]
		if !j.active {
			continue
		}
		if step := passed * j.speed; step < j.left {
			j.left -= step
			continue
		}
		j.active, j.span.End = false, at
		if unit(u) == unitWeights && s.jobs[unitArray].active {
			s.held = append(s.held, *j) // of a later instruction than the array's
			continue
		}
		s.leave(j)
		if unit(u) == unitArray {
			for i := range s.held {
				s.leave(&s.held[i])
			}
			s.held = s.held[:0]
		}
	}
	for e := range s.heads {
		h := &s.heads[e]
		for len(h.pending) > 0 && h.pending[0].at <= at {
			signal := h.pending[0].signal
			s.tokens[signal&15] += signal >> 4
			s.signaler[signal&15] = Cause(e)
			h.pending = h.pending[1:]
		}
	}
}

// account says where the engines' next cycles go.
func (s *simulation) account(cycles uint64) {
	for e := range s.heads {
		h, r := &s.heads[e], &s.report.Engines[e]
		if j := &s.jobs[unitOf[e]]; j.active {
			lost := cycles - cycles*j.speed>>fixed
			r.Busy += cycles
			r.Stalls[j.held] += lost
			j.span.lose(j.held, lost)
			continue
		}
		switch {
		case s.jobs[unitWeights].active && e == matrix:
			s.stall(e, OnWeights, cycles)
		case !h.there:
		case s.now < h.ready:
			s.stall(e, OnDispatch, cycles)
		case h.blocked:
			h.waited += cycles
		case e == matrix:
			s.stall(e, OnWeights, cycles) // the array runs empty first
		}
	}
}

// finish makes the last counts.
func (s *simulation) finish() error {
	for e := range s.heads {
		h := &s.heads[e]
		if h.there {
			return fmt.Errorf("timing: instruction %d waits for token %d for ever (DEADLOCK, §5.7)", h.walker.Index(), h.word[2]&15)
		}
		s.report.Cycles = max(s.report.Cycles, h.last)
		s.sawStalls(e, 0)
	}
	s.report.Cycles = max(s.report.Cycles, s.now, 1)
	return s.seeErr
}
