// SPDX-License-Identifier: Apache-2.0

// Package hazard finds what tokens leave without an order (docs/spec/isa.md §5.5):
// accesses of two engines to the same byte, at least one of them writing, and
// tokens of which an engine gets one or another by chance.
//
// A Tracker is told of the instructions of a program in some order in which
// engines could finish them. Each engine has a vector clock: how far in each other
// engine everything comes before its next instruction. An instruction that signals
// ends an epoch of its engine and its tokens carry the clock; who takes a token
// comes behind it. An engine's accesses are kept until all other engines are
// behind them, so a program that orders its engines needs little memory.
//
// What it finds is real: another order of engines has another result. It finds
// all there is unless Undecided counts something.
package hazard

import (
	"slices"

	"npuemu/core/isa"
)

// engines is the number of engines; engine e has class e + 1.
const engines = 4

// clock says for each engine up to which epoch its instructions come before.
type clock [engines]uint64

// Kind is what is wrong.
type Kind uint8

// The kinds.
const (
	Data  Kind = iota // the same bytes, without an order
	Token             // which signal an instruction waits for is left to chance
)

// Report is what a Tracker finds.
type Report struct {
	Kind          Kind
	First, Second At
	// Of Data: what both access, and the first such byte.
	Space   isa.Space
	Binding uint8
	Addr    uint64
	// Of Token: the token; First and Second are the instructions that signal it, or
	// those that wait for it, and Waiting says which.
	Token   uint8
	Waiting bool
}

// At is an instruction that was executed. Of a Report's two, First is the one
// that the program passes first.
type At struct {
	Index  uint32 // in the text
	Number uint64 // how many instructions the program had passed
	Write  bool   // of Data: it writes
}

// entry is an access that not all engines are behind.
type entry struct {
	access isa.Access
	end    uint64 // behind its last byte
	epoch  uint64
	at     At
	slot   uint8 // which access of its instruction
}

// history is what one engine accessed, by epoch.
type history struct {
	entries []entry // by epoch; those with epoch 0 were replaced
	head    int     // the first that is there
	dropped int     // entries that came before entries[0]
	latest  index
}

// signal is what is left of one SIGNAL.
type signal struct {
	left   uint8
	took   uint8 // of the last instruction that waited
	engine uint8
	clock  clock // of its engine, with the epoch that it ends
	number uint64
	at     At
}

// piece is what an instruction that waited took of one signal.
type piece struct {
	epoch  uint64 // of the engine that waited
	source uint64 // number of the signal
	clock  clock  // of the signal
	n      uint8
	at     At
}

// taken is the last signal of an engine that somebody took from.
type taken struct {
	epoch uint64 // that the signal ended; 0: there is none
	at    At
	by    uint8 // engine that took
	when  uint64
}

type token struct {
	fifo    []signal
	head    int
	signals uint64
	waits   [engines][]piece // those that not all engines are behind, by epoch
	taken   [engines]taken
	mixed   bool // several engines signalled it
}

// Tracker follows one program. It is not safe for concurrent use.
type Tracker struct {
	// Entries bounds how many accesses of an engine are kept, Rows how many rows and planes are
	// compared for a pair of accesses.
	Entries, Rows int
	// Undecided counts accesses that were dropped, and pairs that were not compared
	// to the end, for these bounds.
	Undecided uint64

	clocks  [engines]clock
	done    [engines]bool
	past    [engines]history
	tokens  [16]token
	list    []isa.Access
	reports []Report
}

// Reset makes t ready for a program.
func (t *Tracker) Reset() {
	t.Undecided = 0
	for e := range engines {
		t.clocks[e] = clock{}
		t.clocks[e][e] = 1
		h := &t.past[e]
		h.clear()
		*h = history{entries: h.entries[:0], latest: h.latest}
		t.done[e] = false
	}
	for i := range t.tokens {
		k := &t.tokens[i]
		*k = token{fifo: k.fifo[:0], waits: k.waits}
		for e := range k.waits {
			k.waits[e] = k.waits[e][:0]
		}
	}
}

// Done says that engine e has no more instructions: nothing has to be kept for it.
func (t *Tracker) Done(e int) { t.done[e] = true }

// Step follows instruction w, which is ready and passed Check, and whose setup is
// s. base, if it is not nil, turns an access to memory into addresses that are
// comparable among bindings. The reports are valid until the next Step.
func (t *Tracker) Step(w *isa.Word, s *isa.Setup, index uint32, number uint64, base func(*isa.Access)) []Report {
	e := int(isa.Opcode(w[0]).Class()) - 1
	at := At{Index: index, Number: number}
	t.reports = t.reports[:0]
	if n := w[2] >> 4; n > 0 {
		t.wait(e, &t.tokens[w[2]&15], w[2]&15, n, at)
	}
	t.list = isa.Accesses(t.list[:0], w, s)
	for slot := range t.list {
		a := &t.list[slot]
		if a.Space == isa.Memory && base != nil {
			base(a)
		}
		normal(&a.Rows)
		at.Write = a.Write
		t.access(e, a, at, uint8(slot))
	}
	at.Write = false
	if n := w[3] >> 4; n > 0 {
		t.signal(e, &t.tokens[w[3]&15], w[3]&15, n, at)
	}
	return t.reports
}

// report notes a pair, in the order of the program.
func (t *Tracker) report(r Report) {
	if r.Second.Number < r.First.Number {
		r.First, r.Second = r.Second, r.First
	}
	t.reports = append(t.reports, r)
}

func (t *Tracker) access(e int, a *isa.Access, at At, slot uint8) {
	last := end(&a.Rows)
	for o := range engines {
		if o == e {
			continue
		}
		h := &t.past[o]
		before := t.clocks[e][o]
		for n := len(h.entries) - 1; n >= h.head; n-- {
			p := &h.entries[n]
			if p.epoch <= before {
				if p.epoch == 0 {
					continue
				}
				break
			}
			if !a.Write && !p.access.Write || a.Space != p.access.Space || a.Rows.Base >= p.end || p.access.Rows.Base >= last || a.Binding != p.access.Binding {
				continue
			}
			addr, common, known := overlap(&p.access.Rows, &a.Rows, t.Rows)
			if !known {
				t.Undecided++
			}
			if common {
				t.report(Report{Kind: Data, First: p.at, Second: at, Space: a.Space, Binding: a.Binding, Addr: addr})
			}
		}
	}
	t.remember(e, a, at, slot, last)
}

// nearby is how many accesses back are looked at for one that can be joined.
const nearby = 16

// remember keeps an access of engine e.
func (t *Tracker) remember(e int, a *isa.Access, at At, slot uint8, last uint64) {
	h := &t.past[e]
	epoch := t.clocks[e][e]
	for n := len(h.entries) - 1; n >= max(h.head, len(h.entries)-nearby); n-- {
		p := &h.entries[n]
		if p.epoch == 0 {
			continue
		}
		if p.epoch != epoch {
			break
		}
		if p.access == *a { // what is behind the one is behind the other
			p.at, p.slot = at, slot
			return
		}
		if p.at.Index == at.Index && p.slot == slot && p.access.Space == a.Space && p.access.Binding == a.Binding && p.access.Write == a.Write {
			rows := p.access.Rows
			if join(&rows, &a.Rows) {
				if rows != p.access.Rows {
					h.forget(&p.access)
					p.access.Rows, p.end = rows, end(&rows)
					h.place(n)
				}
				return
			}
		}
	}
	known := ^uint64(0) // epochs that all others are behind
	for o := range engines {
		if o != e && !t.done[o] {
			known = min(known, t.clocks[o][e])
		}
	}
	for h.head < len(h.entries) && h.entries[h.head].epoch <= known {
		h.pop()
	}
	if epoch <= known { // nobody is left
		return
	}
	if len(h.entries)-h.head >= t.Entries {
		h.squeeze()
		if len(h.entries) >= t.Entries { // an eighth at once: a squeeze takes its time
			for range t.Entries/8 + 1 {
				h.pop()
				t.Undecided++
			}
		}
	}
	if h.head > len(h.entries)/2 {
		h.dropped += h.head
		h.entries = h.entries[:copy(h.entries, h.entries[h.head:])]
		h.head = 0
	}
	h.entries = slices.Grow(h.entries, 1)[:len(h.entries)+1]
	p := &h.entries[len(h.entries)-1]
	p.access, p.end, p.epoch, p.at, p.slot = *a, last, epoch, at, slot
	h.place(len(h.entries) - 1) // what is behind this access is behind an earlier one of the same rows too
}

// pop forgets the oldest entry.
func (h *history) pop() {
	if p := &h.entries[h.head]; p.epoch > 0 {
		h.forget(&p.access)
	}
	h.head++
}

// squeeze takes out entries that were replaced.
func (h *history) squeeze() {
	clear(h.latest.slots)
	h.latest.used = 0
	kept := h.entries[:0]
	for _, p := range h.entries[h.head:] {
		if p.epoch > 0 {
			kept = append(kept, p)
		}
	}
	h.entries, h.head, h.dropped = kept, 0, 0
	for n := range kept {
		h.place(n)
	}
}

// wait takes n tokens for engine e.
func (t *Tracker) wait(e int, k *token, id, n uint8, at At) {
	c := &t.clocks[e]
	arrived := *c // what comes before it, whatever it takes
	first, last := k.head, k.head
	for left := n; left > 0; {
		s := &k.fifo[k.head]
		take := min(left, s.left)
		left -= take
		s.left -= take
		s.took = take
		for o := range engines {
			c[o] = max(c[o], s.clock[o])
		}
		k.taken[s.engine] = taken{epoch: s.clock[s.engine], at: s.at, by: uint8(e), when: c[e]}
		if last = k.head; s.left == 0 {
			k.head++
		}
	}
	t.compete(k, id, attempt{at: at, engine: e, n: int(n), arrived: arrived, first: first, last: last})
	t.took(e, k, first, last, at)
	if k.mixed {
		t.mixed(k, id, first, last)
	}
	if k.head > len(k.fifo)/2 {
		k.fifo = k.fifo[:copy(k.fifo, k.fifo[k.head:])]
		k.head = 0
	}
}

// maxPieces bounds how many waits of an engine for one token are kept.
const maxPieces = 64

// took notes what engine e took of the signals from first to last.
func (t *Tracker) took(e int, k *token, first, last int, at At) {
	known := ^uint64(0)
	for o := range engines {
		if o != e && !t.done[o] {
			known = min(known, t.clocks[o][e])
		}
	}
	w := k.waits[e]
	old := 0
	for old < len(w) && w[old].epoch <= known {
		old++
	}
	if room := maxPieces - (last - first + 1); len(w)-old > room {
		t.Undecided += uint64(len(w) - old - room)
		old = len(w) - room
	}
	w = w[:copy(w, w[old:])]
	for i := first; i <= last; i++ {
		s := &k.fifo[i]
		w = append(w, piece{epoch: t.clocks[e][e], source: s.number, clock: s.clock, n: s.took, at: at})
	}
	k.waits[e] = w
}

// attempt is an instruction that waits, or waited, for n tokens.
type attempt struct {
	at          At
	engine      int
	n           int
	arrived     clock // what comes before it, whatever it takes
	first, last int   // signals that it took from; with first above last none
}

// compete reports an instruction that took tokens for which b could have been
// there: other engines held up before such instructions, one engine before any of
// them or several before their first, would have left b enough.
func (t *Tracker) compete(k *token, id uint8, b attempt) {
	var earliest clock
	held := 0
	for o, w := range k.waits {
		if o == b.engine {
			continue
		}
		last := uint64(0)
		for i := range w {
			if w[i].epoch <= b.arrived[o] || w[i].epoch == last {
				continue
			}
			if last = w[i].epoch; earliest[o] == 0 {
				earliest[o] = last
				held++
			}
			var hold clock
			hold[o] = last
			if t.competes(k, id, &b, &hold) {
				return
			}
		}
	}
	if held < 2 || t.competes(k, id, &b, &earliest) {
		return
	}
	for o := range engines {
		if hold := earliest; held > 2 && hold[o] > 0 {
			hold[o] = 0
			if t.competes(k, id, &b, &hold) {
				return
			}
		}
	}
}

// competes reports the instructions that took what b could have had if each
// engine were held up before its epoch in hold; those with 0 are not.
func (t *Tracker) competes(k *token, id uint8, b *attempt, hold *clock) bool {
	free := func(c *clock) bool { // it comes behind none of them
		for o := range engines {
			if hold[o] > 0 && c[o] >= hold[o] {
				return false
			}
		}
		return true
	}
	units, same := 0, b.first == b.last
	var lost *piece
	for o, w := range k.waits {
		for i := range w {
			if p := &w[i]; hold[o] > 0 && p.epoch >= hold[o] && free(&p.clock) {
				units += int(p.n)
				same = same && p.source == k.fifo[b.first].number
				if lost == nil {
					lost = p
				}
			}
		}
	}
	if lost == nil || same {
		return false
	}
	for i := b.first; i < len(k.fifo); i++ {
		if s := &k.fifo[i]; free(&s.clock) {
			units += int(s.left)
			if i <= b.last {
				units += int(s.took)
			}
		}
	}
	if units < b.n {
		return false
	}
	t.report(Report{Kind: Token, First: lost.at, Second: b.at, Token: id, Waiting: true})
	return true
}

// Blocked follows instruction w, which waits for ever: another engine may have
// taken its tokens. The reports are valid until the next Step.
func (t *Tracker) Blocked(w *isa.Word, index uint32, number uint64) []Report {
	e := int(isa.Opcode(w[0]).Class()) - 1
	t.reports = t.reports[:0]
	id := w[2] & 15
	k := &t.tokens[id]
	t.compete(k, id, attempt{
		at: At{Index: index, Number: number}, engine: e, n: int(w[2] >> 4), arrived: t.clocks[e], first: k.head, last: k.head - 1,
	})
	return t.reports
}

// mixed reports a signal that nobody took yet and that could have come before one
// of those from first to last, which were taken.
func (t *Tracker) mixed(k *token, id uint8, first, last int) {
	for n := k.head; n < len(k.fifo); n++ {
		s := &k.fifo[n]
		for m := first; m <= last; m++ {
			if p := &k.fifo[m]; p.engine != s.engine && s.clock[p.engine] < p.clock[p.engine] {
				t.report(Report{Kind: Token, First: p.at, Second: s.at, Token: id})
				return
			}
		}
	}
}

// signal adds n tokens of engine e and ends its epoch.
func (t *Tracker) signal(e int, k *token, id, n uint8, at At) {
	c := &t.clocks[e]
	k.signals++
	for o := range engines {
		p := &k.taken[o]
		if o != e && p.epoch > c[o] && int(p.by) != e && c[p.by] < p.when {
			t.report(Report{Kind: Token, First: p.at, Second: at, Token: id})
			break
		}
	}
	if len(k.fifo) > k.head && int(k.fifo[len(k.fifo)-1].engine) != e {
		k.mixed = true
	}
	k.fifo = append(k.fifo, signal{left: n, engine: uint8(e), clock: *c, number: k.signals, at: at})
	c[e]++
}

// Left returns how many tokens of a number nobody has taken, and who signalled the
// first of them.
func (t *Tracker) Left(id uint8) (n int, from At) {
	k := &t.tokens[id]
	for i := len(k.fifo) - 1; i >= k.head; i-- {
		n += int(k.fifo[i].left)
		from = k.fifo[i].at
	}
	return n, from
}
