// SPDX-License-Identifier: Apache-2.0

// Package lint proves of a program what can be known before it runs: that no rule
// of docs/spec/isa.md §5.7 is broken whatever memory holds, that each wait gets its
// tokens, that no counter overflows and no token is left over, and that tokens
// order all accesses of different engines to the same bytes (§5.5).
//
// A program's instructions, their order and their fields follow from its text
// alone (§5.6.13), so it is gone through as the sequencer does, each iteration of
// each loop. Bindings with different indexes are taken for different memory, and
// what depends on data (parameter tables, §5.6.8) or on the launch (access and size
// of bindings) is not looked at.
package lint

import (
	"fmt"
	"slices"

	"npuemu/core/hazard"
	"npuemu/core/isa"
)

// Finding is one mistake in a program.
type Finding struct {
	Rule    string `json:"rule"`            // status of §5.7, or HAZARD, TOKEN_RACE, TOKEN_UNUSED (§5.5)
	Section string `json:"section"`         // of docs/spec/isa.md
	At      Place  `json:"at"`              // the instruction
	Other   *Place `json:"other,omitempty"` // the other one, of a rule about two
	Message string `json:"message"`
	Remedy  string `json:"remedy"`
}

// Place is an instruction of a program.
type Place struct {
	Index       int    `json:"instruction"` // in the text
	Instruction string `json:"text"`        // as §5.8 writes it
	File        string `json:"file,omitempty"`
	Line        int    `json:"line,omitempty"`
}

// String names p in a message.
func (p Place) String() string {
	s := fmt.Sprintf("instruction %d (%s)", p.Index, p.mnemonic())
	if p.File != "" {
		s += fmt.Sprintf(" of %s:%d", p.File, p.Line)
	}
	return s
}

func (p Place) mnemonic() string {
	for i, c := range p.Instruction {
		if c == ' ' {
			return p.Instruction[:i]
		}
	}
	return p.Instruction
}

// Report is what Check found.
type Report struct {
	Findings []Finding `json:"findings"`
	// Notes are no mistakes: sums of integers that can wrap, SUM_RANGE (§6.8.1).
	Notes  []Finding `json:"notes"`
	Passed uint64    `json:"passed"` // instructions that engines executed in the proof
	// Undecided is not 0 if accesses were too many to compare all of them: then
	// there may be hazards that are not among the findings.
	Undecided uint64 `json:"undecided"`
}

// maxFindings is how many mistakes Check reports: a few screenfuls.
const maxFindings = 100

// Bounds of the proof (hazard.Tracker): beyond them accesses are undecided.
const (
	maxEntries = 1 << 14
	maxRows    = 1 << 22
)

// names of engines, by number.
var names = [...]string{"load", "store", "matrix", "vector"}

// linter checks one program.
type linter struct {
	p      *isa.Program
	halt   int
	report Report
	seen   map[key]bool

	sums  map[uint32]interval // what can be in the accumulators from an address on
	noted map[int]bool        // instructions with a note
}

// Check looks for all mistakes of p. It does not change p.
func Check(p *isa.Program) Report {
	l := &linter{p: p, seen: map[key]bool{}, sums: map[uint32]interval{}, noted: map[int]bool{}, report: Report{Findings: []Finding{}, Notes: []Finding{}}}
	if l.rules() {
		l.order()
		l.counters()
	}
	return l.report
}

// Refused is the finding that a core refuses p for v, at instruction index.
func Refused(p *isa.Program, v *isa.Violation, index int) Finding {
	return Finding{
		Rule: v.Rule.String(), Section: "§5.3", At: (&linter{p: p}).place(index), Message: v.Detail,
		Remedy: "write the program for this card's configuration, or run it on another",
	}
}

// key tells apart what is reported once.
type key struct {
	rule string
	a, b uint64
}

// first reports whether k comes for the first time, and there is room for a finding.
func (l *linter) first(k key) bool {
	if l.seen[k] || len(l.report.Findings) == maxFindings {
		return false
	}
	l.seen[k] = true
	return true
}

func (l *linter) add(f Finding) { l.report.Findings = append(l.report.Findings, f) }

// place describes instruction index.
func (l *linter) place(index int) Place {
	p := Place{Index: index, Instruction: "end of text"}
	if off := index * isa.Size; off < len(l.p.Text) {
		p.Instruction = (*isa.Word)(l.p.Text[off:]).String()
	}
	p.File, p.Line, _ = l.p.Debug.At(index)
	return p
}

// rules makes the checks of §5.7 that need no tokens. It reports whether the
// program can run.
func (l *linter) rules() bool {
	violation := func(v *isa.Violation, at int) {
		if l.first(key{v.Rule.String(), uint64(at), 0}) {
			l.add(Finding{Rule: v.Rule.String(), Section: "§5.7", At: l.place(at), Message: v.Detail, Remedy: remedy(v.Rule)})
		}
	}
	halt, v, at := isa.Scan(l.p.Text, l.p.Features)
	if v == nil && halt >= 0 {
		v, at = isa.WithinBudget(l.p.Text, halt)
	}
	switch {
	case v != nil:
		violation(v, at)
		return false
	case halt < 0:
		l.add(Finding{Rule: "NO_HALT", Section: "§5.6.1", At: l.place(len(l.p.Text) / isa.Size), Message: "the text ends without HALT", Remedy: "add a halt as the last instruction"})
		return false
	}
	l.halt = halt
	limits := l.p.Limits()
	for w := isa.NewWalker(l.p.Text, halt); w.Next(isa.ClassControl); {
		i, v := isa.Decode(w.Word())
		if v == nil {
			v = i.Check(limits)
		}
		if v != nil {
			violation(v, w.Index())
			continue
		}
		limits.Setup.Apply(i)
		l.sum(i, &limits.Setup, w.Index())
	}
	return len(l.report.Findings) == 0
}

// remedy says what helps against breaking r.
func remedy(r isa.Rule) string {
	switch r {
	case isa.LocalBounds:
		return "make .spad or .acc larger, or the addresses, counts or strides smaller, also in a loop's last iteration"
	case isa.BindingIndex:
		return "raise .bindings, or use a binding that there is"
	case isa.BadSetup:
		return "give the OPERANDS or WINDOW before it the strides and groups that this instruction needs"
	case isa.OverBudget:
		return "split the program"
	case isa.IllegalInstruction:
		return "name the group of instructions in .features"
	case isa.ArrayShape:
		return "cut the tile to the array's rows and columns"
	}
	return "give the field a value that the rule allows"
}

// engine is one engine's way through the program.
type engine struct {
	isa.Walker
	more bool
}

// machine executes tokens, and nothing else.
type machine struct {
	engines [4]engine
	tokens  [16]int
}

func (l *linter) machine() *machine {
	m := &machine{}
	for e := range m.engines {
		m.engines[e].Walker = isa.NewWalker(l.p.Text, l.halt)
		m.next(e)
	}
	return m
}

func (m *machine) next(e int) { m.engines[e].more = m.engines[e].Next(isa.Class(e + 1)) }

// ready reports whether engine e has an instruction that need not wait.
func (m *machine) ready(e int) bool {
	if !m.engines[e].more {
		return false
	}
	w := m.engines[e].Word()
	return m.tokens[w[2]&15] >= int(w[2]>>4)
}

// step moves the tokens of engine e's instruction and goes to its next.
func (m *machine) step(e int) {
	w := m.engines[e].Word()
	m.tokens[w[2]&15] -= int(w[2] >> 4)
	m.tokens[w[3]&15] += int(w[3] >> 4)
	m.next(e)
}

// order goes through the program in the device's order with vector clocks: what
// no token orders, which waits are never satisfied, what is left over.
func (l *linter) order() {
	t := hazard.Tracker{Entries: maxEntries, Rows: maxRows}
	t.Reset()
	setup := l.p.Limits().Setup
	m := l.machine()
	for {
		next := -1
		for e := range m.engines {
			if !m.engines[e].more {
				t.Done(e)
			}
			if m.ready(e) && (next < 0 || m.engines[e].Number() < m.engines[next].Number()) {
				next = e
			}
		}
		if next < 0 {
			break
		}
		w := &m.engines[next].Walker
		for _, r := range t.Step(w.Word(), &setup, uint32(w.Index()), w.Number(), nil) {
			if r.Kind == hazard.Data {
				l.hazard(r)
			} else {
				l.race(r)
			}
		}
		setup.Follow(w.Word())
		l.report.Passed++
		m.step(next)
	}
	l.report.Undecided = t.Undecided
	for e := range m.engines {
		if w := &m.engines[e]; w.more {
			for _, r := range t.Blocked(w.Word(), uint32(w.Index()), w.Number()) {
				l.race(r)
			}
		}
	}
	l.blocked(m)
	if slices.ContainsFunc(m.engines[:], func(e engine) bool { return e.more }) {
		return // what is left over follows from that
	}
	for id := range uint8(16) {
		n, from := t.Left(id)
		if n == 0 {
			continue
		}
		f := Finding{
			Rule: "TOKEN_UNUSED", Section: "§5.5", At: l.place(int(from.Index)),
			Message: fmt.Sprintf("%d of token %d that it signals nobody waits for", n, id),
			Remedy:  "remove the signal, lower its count, or wait for it where the order is needed",
		}
		if waits := l.mentions(2, id); len(waits) > 0 {
			p := l.place(waits[len(waits)-1])
			f.Other = &p
			f.Message += fmt.Sprintf("; the last that waits for token %d in the text is %v", id, p)
		}
		l.add(f)
	}
}

// hazard reports two accesses.
func (l *linter) hazard(r hazard.Report) {
	if !l.first(key{"HAZARD", uint64(r.First.Index)<<32 | uint64(r.Second.Index), uint64(r.Space)}) {
		return
	}
	kind, first, second := "write after read", "reads", "writes"
	switch {
	case r.First.Write && r.Second.Write:
		kind, first = "write after write", "writes"
	case r.First.Write:
		kind, first, second = "read after write", "writes", "reads"
	}
	where := [...]string{"scratchpad", "accumulators", fmt.Sprintf("binding %d", r.Binding)}[r.Space]
	other := l.place(int(r.First.Index))
	at := l.place(int(r.Second.Index))
	l.add(Finding{
		Rule: "HAZARD", Section: "§5.5", At: at, Other: &other,
		Message: fmt.Sprintf("%s: %s %s address %#x, which %v %s; no token orders the two", kind, second, where, r.Addr, other, first),
		Remedy: fmt.Sprintf("signal a token at instruction %d, or behind it on the %s engine, and wait for it at instruction %d, or before it on the %s engine",
			other.Index, l.engineOf(other.Index), at.Index, l.engineOf(at.Index)),
	})
}

// race reports a token of which one instruction or another gets its part by chance.
func (l *linter) race(r hazard.Report) {
	if !l.first(key{"TOKEN_RACE", uint64(min(r.First.Index, r.Second.Index))<<32 | uint64(max(r.First.Index, r.Second.Index)), uint64(r.Token)}) {
		return
	}
	other, at := l.place(int(r.First.Index)), l.place(int(r.Second.Index))
	message := fmt.Sprintf("token %d is also signalled by %v; which of the two a wait for it sees first, only their time decides", r.Token, other)
	if r.Waiting {
		message = fmt.Sprintf("%v also waits for token %d; which of the two gets the earlier signal, only their time decides", other, r.Token)
	}
	l.add(Finding{
		Rule: "TOKEN_RACE", Section: "§5.5", At: at, Other: &other, Message: message, Remedy: "give each pair of engines a token of its own",
	})
}

// executes is the number of the engine that executes instruction index.
func (l *linter) executes(index int) int {
	return int(isa.Opcode(l.p.Text[index*isa.Size]).Class()) - 1
}

func (l *linter) engineOf(index int) string { return names[l.executes(index)] }

// mentions returns the instructions of the text whose byte off, 2 wait or 3
// signal, names token id.
func (l *linter) mentions(off int, id uint8) []int {
	var list []int
	for i := range l.halt {
		w := (*isa.Word)(l.p.Text[i*isa.Size:])
		if isa.Opcode(w[0]).Class() != isa.ClassControl && w[off]>>4 > 0 && w[off]&15 == id {
			list = append(list, i)
		}
	}
	return list
}

// blocked reports the engines that wait when none can go on.
func (l *linter) blocked(m *machine) {
	for e := range m.engines {
		w := &m.engines[e]
		if !w.more {
			continue
		}
		id, n := w.Word()[2]&15, int(w.Word()[2]>>4)
		f := Finding{
			Rule: "DEADLOCK", Section: "§5.5", At: l.place(w.Index()),
			Message: fmt.Sprintf("waits for %d of token %d for ever, of which there are %d", n, id, m.tokens[id]),
			Remedy:  "signal the token as often as it is waited for, from an instruction that can come before",
		}
		if from := l.mentions(3, id); len(from) == 0 {
			f.Message += "; nothing signals it"
		} else {
			p := l.place(from[0])
			f.Other = &p
			f.Message += fmt.Sprintf("; %v signals it", p)
			if o := l.executes(from[0]); m.engines[o].more {
				f.Message += fmt.Sprintf(", and the %s engine waits at instruction %d", names[o], m.engines[o].Index())
			}
		}
		l.add(f)
	}
}

// maxTokens is the most that a counter holds (§5.5).
const maxTokens = 255

// counters looks for counters that overflow. A counter is highest when whoever waits
// for it has been the slowest of all engines, so the program is gone through once
// for each engine, which goes on only when no other can.
func (l *linter) counters() {
	for last := range names {
		m := l.machine()
		for {
			next := -1
			for e := range m.engines {
				if m.ready(e) && (next < 0 || next == last) {
					next = e
				}
			}
			if next < 0 {
				break
			}
			w := &m.engines[next]
			index, id := w.Index(), w.Word()[3]&15
			if m.step(next); m.tokens[id] > maxTokens {
				l.overflow(index, id, last)
				break
			}
		}
	}
}

// overflow reports that instruction index signals token id too often if engine
// last is slow.
func (l *linter) overflow(index int, id uint8, last int) {
	if !l.first(key{"TOKEN_OVERFLOW", uint64(index), uint64(id)}) {
		return
	}
	f := Finding{
		Rule: "TOKEN_OVERFLOW", Section: "§5.5", At: l.place(index),
		Message: fmt.Sprintf("signals token %d more than %d times ahead of who waits for it", id, maxTokens),
		Remedy:  "hold the engine back by a token from the one that waits, or signal once for several instructions",
	}
	for _, i := range l.mentions(2, id) {
		if f.Other == nil || l.executes(i) == last {
			p := l.place(i)
			f.Other = &p
		}
	}
	if f.Other != nil {
		f.Message += fmt.Sprintf(", %v", *f.Other)
	}
	l.add(f)
}
