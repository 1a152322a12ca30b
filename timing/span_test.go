// SPDX-License-Identifier: Apache-2.0

package timing

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// observe runs p, and compares what Observe tells with the report, the text and the tokens (§13.10).
func observe(t *testing.T, p *isa.Program, c Config, onBus uint64) []Span {
	t.Helper()
	want, err := Program(context.Background(), p, c, onBus)
	if err != nil {
		t.Fatal(err)
	}
	var spans []Span
	got, err := Observe(context.Background(), p, c, onBus, func(s Span) error { spans = append(spans, s); return nil })
	if diff := gocmp.Diff(want, got); err != nil || diff != "" {
		t.Fatalf("%v, the report differs from that of Program (-want +got):\n%s", err, diff)
	}

	halt, _, _ := isa.Scan(p.Text, p.Features)
	var walkers [engines]isa.Walker
	for e := range walkers {
		walkers[e] = p.Walker(halt)
	}
	sum := Report{Stamps: want.Stamps, Instructions: 1} // HALT
	var until [engines][2]uint64
	var begun [engines]uint64
	for i, s := range spans {
		row := 0
		if s.Placing {
			row = 1
		}
		if s.Start > s.End || s.Start < until[s.Engine][row] || s.Stall && s.Start == s.End {
			t.Errorf("span %d begins before cycle %d: %+v", i, until[s.Engine][row], s)
		}
		until[s.Engine][row] = s.End
		g := &sum.Engines[s.Engine]
		if s.Stall {
			g.Stalls[s.Cause] += s.End - s.Start
			continue
		}
		if s.Start < begun[s.Engine] {
			t.Errorf("span %d begins before the instruction in front of it, at %d: %+v", i, begun[s.Engine], s)
		}
		if w := &walkers[s.Engine]; !s.Placing && s.Engine != matrix {
			if !w.Next(isa.Class(s.Engine+1)) || w.Index() != s.Index || *w.Word() != s.Word {
				t.Errorf("span %d is instruction %d, %v; the engine's next is %d, %v", i, s.Index, &s.Word, w.Index(), w.Word())
			}
			begun[s.Engine] = s.Start
		}
		if s.Done < s.End {
			t.Errorf("span %d is done before it ends: %+v", i, s)
		}
		if !s.Placing {
			g.Busy += s.End - s.Start
		}
		g.Instructions++
		g.Stalls[OnMemory] += s.Memory
		g.Stalls[OnScratchpad] += s.Scratchpad
		sum.Instructions++
		sum.MACs += s.MACs
		sum.DRAM += s.DRAM
		sum.Bus += s.Bus
		switch isa.Class(s.Engine + 1) {
		case isa.ClassLoad:
			sum.Loaded += s.Moved
		case isa.ClassStore:
			sum.Stored += s.Moved
		}
		sum.Cycles = max(sum.Cycles, s.Done)
	}
	// PRELOAD is told of when what the array did before it is: the matrix engine's are put into the order of their begin.
	var ordered []Span
	for _, s := range spans {
		if s.Engine == matrix && !s.Stall {
			ordered = append(ordered, s)
		}
	}
	slices.SortStableFunc(ordered, func(a, b Span) int { return cmp.Compare(a.Start, b.Start) })
	left := map[int]int{}
	for range ordered {
		if walkers[matrix].Next(isa.ClassMatrix) {
			left[walkers[matrix].Index()]++
		}
	}
	for _, s := range ordered {
		left[s.Index]--
	}
	for index, n := range left {
		if n != 0 {
			t.Errorf("instruction %d of the matrix engine is told of %d times too seldom", index, n)
		}
	}
	sum.Cycles = max(sum.Cycles, 1)
	if diff := gocmp.Diff(want, sum); diff != "" {
		t.Errorf("the report and the sums of spans (-report +spans):\n%s", diff)
	}
	tokens(t, spans)
	return spans
}

// tokens lets no instruction begin before what it waits for was signalled, and knows who signalled what a stall waited for.
func tokens(t *testing.T, spans []Span) {
	t.Helper()
	type event struct {
		at     uint64
		signal bool
		count  uint64
		span   Span
	}
	var events [16][]event
	for _, s := range spans {
		if s.Stall {
			continue
		}
		if n := uint64(s.Word[3] >> 4); n > 0 {
			events[s.Word[3]&15] = append(events[s.Word[3]&15], event{s.Done, true, n, s})
		}
		if n := uint64(s.Word[2] >> 4); n > 0 {
			events[s.Word[2]&15] = append(events[s.Word[2]&15], event{s.Start, false, n, s})
		}
	}
	for id, l := range events {
		slices.SortStableFunc(l, func(a, b event) int {
			if a.at != b.at {
				return cmp.Compare(a.at, b.at)
			}
			if a.signal == b.signal {
				return 0
			}
			if a.signal {
				return -1
			}
			return 1
		})
		have := uint64(0)
		for _, e := range l {
			if e.signal {
				have += e.count
				continue
			}
			if have < e.count {
				t.Errorf("at %d there are %d of token %d, and an instruction begins that waits for %d: %+v", e.at, have, id, e.count, e.span)
				return
			}
			have -= e.count
		}
	}
	for i, s := range spans {
		if !s.Stall || s.Cause > OnVector {
			continue
		}
		// What waited is the next instruction of the engine in the list that has this index.
		k := slices.IndexFunc(spans[i:], func(w Span) bool { return !w.Stall && w.Engine == s.Engine && w.Index == s.Index })
		if k < 0 {
			t.Fatalf("nothing waited: %+v", s)
		}
		id := spans[i+k].Word[2] & 15
		if !slices.ContainsFunc(events[id], func(e event) bool { return e.signal && e.at == s.End && Cause(e.span.Engine) == s.Cause }) {
			t.Errorf("the %v engine signals no token %d at %d, where a stall for it ends: %+v", s.Cause, id, s.End, s)
		}
	}
}

// random is a program that waits for what is signalled before it in the text, if nobody else takes it.
func random(r *rand.Rand) *isa.Program {
	var text []isa.Instruction
	var have [16]uint8
	loop := 0
	for range r.IntN(60) + 1 {
		var wait, signal isa.Token
		id := uint8(r.IntN(16))
		if have[id] > 0 && loop == 0 && r.IntN(3) > 0 {
			wait = isa.Token{ID: id, Count: uint8(r.IntN(int(have[id]))) + 1}
			have[id] -= wait.Count
		}
		if id := uint8(r.IntN(16)); have[id] < 8 && r.IntN(2) == 0 {
			signal = isa.Token{ID: id, Count: uint8(r.IntN(2)) + 1}
			have[id] += signal.Count
		}
		n := uint32(r.IntN(4000) + 1)
		var i isa.Instruction
		switch r.IntN(10) {
		case 0, 1:
			i = isa.Load{Binding: uint8(r.IntN(2)), NX: n, NY: 1, NZ: 1, Wait: wait, Signal: signal}
		case 2:
			i = isa.Store(isa.Load{Binding: uint8(r.IntN(2)), NX: 32, NY: uint16(n/100) + 1, NZ: 1, StrideY: 64, LocalStride: 32, Wait: wait, Signal: signal})
		case 3, 4:
			i = isa.Preload{K: 8, N: 8, Stride: 8, Wait: wait, Signal: signal}
		case 5, 6:
			i = isa.Matmul{K: 8, N: 8, MX: uint16(n/20) + 1, MY: 1, StrideX: 8, AccStride: 32, Wait: wait, Signal: signal}
		case 7:
			i = isa.Fill{NX: 320, NY: n/100 + 1, Stride: 320, Wait: wait, Signal: signal}
		case 8:
			i = isa.Sync{Engine: isa.Class(r.IntN(engines) + 1), Wait: wait, Signal: signal}
		default:
			have[wait.ID] += wait.Count
			have[signal.ID] -= signal.Count
			if loop > 0 {
				i, loop = isa.End{}, loop-1
			} else {
				i, loop = isa.Loop{Count: uint32(r.IntN(4)), Step: 1}, loop+1
			}
		}
		text = append(text, i)
	}
	for ; loop > 0; loop-- {
		text = append(text, isa.End{})
	}
	return program(text...)
}

func TestSpans(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	ran, kinds := 0, map[Cause]int{}
	for range 1500 {
		c := config(8, 8)
		c.WeightBuffers, c.Dispatch = r.IntN(2)+1, r.IntN(20)
		c.Banks, c.BankWidth = 1, r.IntN(16)+1
		p := random(r)
		if _, err := Program(context.Background(), p, c, 2); err != nil {
			continue // the token was taken by another engine
		}
		ran++
		for _, s := range observe(t, p, c, 2) {
			if s.Stall {
				kinds[s.Cause]++
			}
			kinds[OnMemory] += int(s.Memory)
			kinds[OnScratchpad] += int(s.Scratchpad)
		}
		if t.Failed() {
			t.Fatalf("buffers %d, dispatch %d, bank width %d:\n%s", c.WeightBuffers, c.Dispatch, c.BankWidth, isa.Disassemble(p))
		}
	}
	for c := range Causes {
		if kinds[c] == 0 {
			t.Errorf("no stall of cause %v in %d programs", c, ran)
		}
	}
	if ran < 500 {
		t.Errorf("%d programs ran", ran)
	}
}

// TestSpan has the numbers of a program that is short enough to be counted by hand.
func TestSpan(t *testing.T) {
	c := plain(8, 8)
	c.DRAMLatency = 100
	spans := observe(t, program(
		isa.Load{NX: 3200, NY: 1, NZ: 1, Signal: tok(1)},
		isa.Operands{A: systolic.Int8, B: systolic.Int8, AStride: 8, BStride: 8, AccStride: 32},
		isa.Gemm{M: 20, N: 8, K: 8, Wait: tok(1), Signal: tok(2)},
		isa.Store{Binding: 1, NX: 32, NY: 1, NZ: 1, Wait: tok(2)}), c, 0)
	type short struct {
		engine     int
		stall      bool
		cause      Cause
		index      int
		start, end uint64
		done       uint64
	}
	var got []short
	for _, s := range spans {
		got = append(got, short{s.Engine, s.Stall, s.Cause, s.Index, s.Start, s.End, s.Done})
	}
	want := []short{
		{2, false, 0, 1, 0, 0, 0},           // OPERANDS takes no time
		{0, false, 0, 0, 0, 100, 200},       // the latency is a tail
		{2, true, OnLoad, 2, 0, 200, 0},     // GEMM waits for it
		{2, false, 0, 2, 200, 228, 242},     // 8 + 20, and the skew
		{1, true, OnMatrix, 3, 0, 242, 0},   //
		{1, false, 0, 3, 242, 242 + 2, 344}, // a burst
	}
	if !slices.Equal(got, want) {
		t.Errorf("spans\n%v, want\n%v", got, want)
	}
}

// An error of the observer ends the simulation, and is its error.
func TestObserveError(t *testing.T) {
	enough, n := errors.New("enough"), 0
	p := program(isa.Loop{Count: 1 << 10}, isa.Sync{Engine: isa.ClassLoad}, isa.End{})
	_, err := Observe(context.Background(), p, plain(8, 8), 0, func(Span) error { n++; return enough })
	if !errors.Is(err, enough) || n != 1 {
		t.Errorf("%v after %d calls", err, n)
	}
}
