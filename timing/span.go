// SPDX-License-Identifier: Apache-2.0

package timing

import "npuemu/core/isa"

// Span is what an engine did from one cycle of a program to another (§13.10): an instruction, or a stall before one.
type Span struct {
	Engine  int    // as in Report.Engines
	Placing bool   // PRELOAD, in a part of the matrix engine of its own: these cycles are not Busy
	Stall   bool   // the engine waited
	Cause   Cause  // for what
	Index   int    // in the text, of the instruction, or of the one that waited
	Start   uint64 // cycle
	End     uint64 // cycle, not a part of it; Start, if it takes no time

	// Of an instruction:
	Word       isa.Word // as it was executed, with what registers made of it
	Done       uint64   // cycle at the end of its tail, when it signals
	Memory     uint64   // cycles lost to other transfers: its part of stalls OnMemory
	Scratchpad uint64   // likewise of OnScratchpad; neither is counted of a PRELOAD
	MACs       uint64
	Moved      uint64 // bytes that LOAD, STORE or STAMP moved
	DRAM       uint64 // bytes of device memory, whole bursts
	Bus        uint64 // bytes of the bus
	Local      uint64 // bytes of the scratchpad
}

// lose adds cycles to those that were lost for this cause.
func (p *Span) lose(c Cause, cycles uint64) {
	switch c {
	case OnMemory:
		p.Memory += cycles
	case OnScratchpad:
		p.Scratchpad += cycles
	}
}

// saw tells of p.
func (s *simulation) saw(p Span) {
	if s.seeErr == nil {
		s.seeErr = s.see(p)
	}
}

// span is the head of engine e, which starts now.
func (s *simulation) span(e int) (p Span) {
	if s.see != nil {
		h := &s.heads[e]
		k := &h.cost
		p = Span{
			Engine: e, Placing: k.unit == unitWeights, Index: h.walker.Index(), Start: s.now, End: s.now, Word: h.word,
			MACs: k.macs, Moved: k.moved, DRAM: k.dram, Bus: k.bus, Local: k.spad,
		}
	}
	return p
}

// stall counts cycles from now on in which engine e waits, but for a token.
func (s *simulation) stall(e int, c Cause, cycles uint64) {
	s.report.Engines[e].Stalls[c] += cycles
	if s.see == nil || cycles == 0 {
		return
	}
	index := s.jobs[unitWeights].span.Index // there is no other stall without a head
	if s.heads[e].there {
		index = s.heads[e].walker.Index()
	}
	w := &s.stalls[e]
	if w.Stall && w.Cause == c && w.Index == index && w.End == s.now {
		w.End += cycles
		return
	}
	if w.Stall {
		s.saw(*w)
	}
	*w = Span{Engine: e, Stall: true, Cause: c, Index: index, Start: s.now, End: s.now + cycles}
}

// sawStalls tells of the stalls before the head of engine e, which starts now, and waited for a signal of c last.
func (s *simulation) sawStalls(e int, c Cause) {
	if s.see == nil {
		return
	}
	w, h := &s.stalls[e], &s.heads[e]
	if w.Stall {
		s.saw(*w)
		w.Stall = false
	}
	if h.there && h.waited > 0 {
		s.saw(Span{Engine: e, Stall: true, Cause: c, Index: h.walker.Index(), Start: s.now - h.waited, End: s.now})
	}
}
