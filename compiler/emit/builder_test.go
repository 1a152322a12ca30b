// SPDX-License-Identifier: Apache-2.0

package emit

import (
	"math/rand/v2"
	"strings"
	"testing"

	"npuemu/core/isa"
	"npuemu/core/systolic"
)

var target = Target{Rows: 8, Cols: 8, SpadSize: 4096, AccSize: 1024, Minor: isa.Minor, Features: isa.FeatureVector | isa.FeatureGEMM}

// access is a range of bytes of a memory that an instruction touches.
type access struct {
	memory string
	lo, hi uint64
	write  bool
}

// accesses says what the instructions of these tests touch, in other words than the Builder.
func accesses(i isa.Instruction) []access {
	move := func(l isa.Load, store bool) []access {
		local := "spad"
		if l.Acc {
			local = "acc"
		}
		return []access{{local, uint64(l.Local), uint64(l.Local) + uint64(l.NX), !store}, {string(rune('0' + l.Binding)), l.Offset, l.Offset + uint64(l.NX), store}}
	}
	switch i := i.(type) {
	case isa.Load:
		return move(i, false)
	case isa.Store:
		return move(isa.Load(i), true)
	case isa.Element:
		n := uint64(i.N)
		return []access{{"spad", uint64(i.X), uint64(i.X) + n, false}, {"spad", uint64(i.Out), uint64(i.Out) + n, true}}
	case isa.Gemm:
		return []access{{"spad", uint64(i.A), uint64(i.A + i.K), false}, {"spad", uint64(i.B), uint64(i.B + i.N*i.K), false}, {"acc", uint64(i.Acc), uint64(i.Acc + 4*i.N), true}}
	}
	return nil
}

// TestOrder checks programs of random instructions: whatever engine is how fast, two that touch the
// same byte, one of them writing, are ordered, and as they were emitted; nothing waits for ever and no
// counter passes 255.
func TestOrder(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		b := New(target, 3, 1)
		b.setUp(isa.Operands{TransposeB: true, AStride: 8, BStride: 8, AccStride: 32}, nil)
		var emitted []isa.Instruction
		for range 60 + 600*(seed%4/3) {
			var i isa.Instruction
			n := uint32(1 + r.IntN(64))
			at := func() uint32 { return uint32(r.IntN(1024)) }
			switch r.IntN(5) {
			case 0:
				i = isa.Load{Binding: uint8(r.IntN(2)), Offset: uint64(at()), Local: at(), NX: n, NY: 1, NZ: 1}
			case 1:
				i = isa.Store{Binding: 1, Offset: uint64(at()), Local: at(), NX: n, NY: 1, NZ: 1}
			case 2:
				i = isa.Store{Acc: true, Binding: 1, Offset: uint64(at()), Local: at() / 4 % 128 * 4, NX: n * 4, NY: 1, NZ: 1}
			case 3:
				i = isa.Element{Op: isa.ElemNeg, X: at(), Out: at(), M: 1, N: uint16(n)}
			case 4:
				i = isa.Gemm{M: 1, N: 8, K: 8, A: at(), B: at(), Acc: at() / 4 % 128 * 4}
			}
			emitted = append(emitted, i)
			b.Emit(i)
		}
		p, _, err := b.Program()
		if err != nil {
			t.Fatal(err)
		}
		checkOrder(t, p, emitted)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// checkOrder runs p with engines that are as far ahead as they can be, one after the other, and follows
// which instructions each knows to have finished.
func checkOrder(t *testing.T, p *isa.Program, emitted []isa.Instruction) {
	t.Helper()
	var text [4][]isa.Word
	order := map[int][]int{} // of each engine: indexes in emitted
	for i := 0; i+isa.Size <= len(p.Text); i += isa.Size {
		w := isa.Word(p.Text[i:])
		if c := isa.Opcode(w[0]).Class(); c != isa.ClassControl {
			text[c-1] = append(text[c-1], w)
		}
	}
	for i, inst := range emitted {
		w := inst.Encode()
		e := int(isa.Opcode(w[0]).Class()) - 1
		order[e] = append(order[e], i)
	}
	signals := map[byte][]map[int]bool{} // of each token: what a signal tells
	waited := map[byte]int{}
	outstanding := map[byte]int{}
	var at, next [4]int
	knows := [4]map[int]bool{{}, {}, {}, {}}
	for progress := true; progress; {
		progress = false
		for e := range text {
			for at[e] < len(text[e]) {
				w := text[e][at[e]]
				token := w[2] & 15
				if w[2]>>4 > 0 {
					if waited[token] >= len(signals[token]) {
						break
					}
					for k := range signals[token][waited[token]] {
						knows[e][k] = true
					}
					waited[token]++
					outstanding[token]--
				}
				o := isa.Opcode(w[0])
				if o&0xf != 0xf && o != isa.OpOperands {
					self := order[e][next[e]]
					next[e]++
					for k := range self {
						if !knows[e][k] && conflict(emitted[k], emitted[self]) {
							t.Errorf("instruction %d, %T, may start before %d, %T, has finished", self, emitted[self], k, emitted[k])
							return
						}
					}
					knows[e][self] = true
				}
				if w[3]>>4 > 0 {
					copied := map[int]bool{}
					for k := range knows[e] {
						copied[k] = true
					}
					signals[w[3]&15] = append(signals[w[3]&15], copied)
					if outstanding[w[3]&15]++; outstanding[w[3]&15] > 255 {
						t.Errorf("token %d passes 255", w[3]&15)
						return
					}
				}
				at[e]++
				progress = true
			}
		}
	}
	for e := range text {
		if at[e] < len(text[e]) {
			t.Errorf("engine %d stops at %d of %d", e+1, at[e], len(text[e]))
		}
	}
}

func conflict(a, b isa.Instruction) bool {
	for _, x := range accesses(a) {
		for _, y := range accesses(b) {
			if x.memory == y.memory && x.lo < y.hi && y.lo < x.hi && (x.write || y.write) {
				return true
			}
		}
	}
	return false
}

// An engine that signals to one that lags behind does not pass the counters.
func TestManySignals(t *testing.T) {
	b := New(target, 2, 1)
	for i := range 2000 {
		at := uint32(i % 16 * 64)
		b.Emit(isa.Load{Local: at, NX: 64, NY: 1, NZ: 1})
		b.Emit(isa.Store{Binding: 1, Offset: uint64(64 * i), Local: at, NX: 64, NY: 1, NZ: 1})
	}
	p, ranges, err := b.Program()
	if err != nil {
		t.Fatal(err)
	}
	if len(ranges) != 0 {
		t.Errorf("ranges %v without Begin", ranges)
	}
	if v, at := p.Check(); v != nil {
		t.Errorf("instruction %d: %v", at, v)
	}
}

// What breaks a rule of the instruction set is an error that cites it.
func TestBadInstructions(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		inst       isa.Instruction
	}{
		{"outside the scratchpad", "LOCAL_BOUNDS", isa.Load{Local: 4090, NX: 64, NY: 1, NZ: 1}},
		{"of a group that the core lacks", "ILLEGAL_INSTRUCTION", isa.Reduce{Type: systolic.Int8, OutType: systolic.Int8, M: 1, N: 1}},
		{"binding", "BINDING_INDEX", isa.Load{Binding: 9, NX: 64, NY: 1, NZ: 1}},
		{"store to what is only read", "New was not told of", isa.Store{Binding: 0, NX: 64, NY: 1, NZ: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := New(target, 2, 1)
			b.Emit(tt.inst)
			b.Emit(isa.Load{NX: 1, NY: 1, NZ: 1})
			if _, _, err := b.Program(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the error is %v, want one that says %s", err, tt.want)
			}
		})
	}
}

// The same calls give the same bytes, ranges cover what their tags emitted, and the counts add up.
func TestProgram(t *testing.T) {
	build := func() (*isa.Program, []Range, Counts) {
		b := New(target, 2, 1)
		b.Begin(7)
		b.Emit(isa.Load{NX: 64, NY: 1, NZ: 1})
		b.Emit(isa.Element{Op: isa.ElemNeg, X: 0, Out: 64, M: 1, N: 64})
		b.Begin(9)
		b.Emit(isa.Store{Binding: 1, Local: 64, NX: 64, NY: 1, NZ: 1})
		c := b.Counts()
		p, r, err := b.Program()
		if err != nil {
			t.Fatal(err)
		}
		return p, r, c
	}
	p, r, c := build()
	q, _, _ := build()
	if string(p.Image()) != string(q.Image()) {
		t.Error("two programs of the same calls differ")
	}
	if len(r) != 2 || r[0] != (Range{7, 0, 2}) || r[1] != (Range{9, 2, 3}) {
		t.Errorf("ranges %v", r)
	}
	if c.Loaded != 64 || c.Stored != 64 || c.VectorElements != 64 || c.ByEngine != [4]int{1, 1, 0, 1} || p.SpadSize != 128 {
		t.Errorf("counts %+v, scratchpad %d", c, p.SpadSize)
	}
}

// What is cut out of a list is not in its program, unless it is joined again.
func TestCut(t *testing.T) {
	load := func(at uint32) isa.Load { return isa.Load{Local: at, NX: 64, NY: 1, NZ: 1} }
	text := func(l *List) string {
		b := New(target, 2, 1)
		b.Append(l)
		p, _, err := b.Program()
		if err != nil {
			t.Fatal(err)
		}
		return string(p.Text)
	}
	l, want := NewList(target), NewList(target)
	l.Emit(load(0))
	n := l.Entries()
	l.Emit(load(64))
	l.Emit(load(128))
	first := l.Cut(n)
	l.Emit(load(192)) // must not show in what was cut
	second := l.Cut(n)
	l.Join(first)
	for _, at := range []uint32{0, 64, 128} {
		want.Emit(load(at))
	}
	if text(l) != text(want) || second.Entries() != 1 {
		t.Errorf("%d entries with the first part joined, the second part has %d", l.Entries(), second.Entries())
	}
}
