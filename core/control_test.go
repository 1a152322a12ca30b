// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/core"
	"npuemu/core/isa"
)

// Byte offsets of fields that terms change (§5.6).
const (
	fieldLocal   = 8  // FILL, LOAD, STORE
	fieldOffset  = 12 // LOAD, STORE, STAMP
	fieldK       = 4  // PRELOAD, MATMUL
	fieldN       = 6
	fieldWeights = 8
	fieldIfmap   = 8
	fieldAcc     = 12
)

func term(field, reg uint8, times int) isa.Term {
	return isa.Term{Field: field, Reg: reg, Times: int32(times)}
}

func with(terms ...isa.Term) isa.With {
	var w isa.With
	copy(w.Terms[:], terms)
	return w
}

// tileLoops is tiles as two loops: s0 goes over n, s1 over k, s2 and s3 are what
// is left of them for the last tiles, s4 says whether the tile is the first.
func tileLoops(m, n, k int) []isa.Instruction {
	rows, cols := newConfig.Rows, newConfig.Cols
	least := func(d, i uint8, left, most int) []isa.Instruction {
		return []isa.Instruction{
			isa.Scalar{Immediate: true, Op: isa.Sub, RD: d, RA: i, Imm: int32(left)}, // −(left − i)
			isa.Scalar{Immediate: true, Op: isa.Mul, RD: d, RA: d, Imm: -1},
			isa.Scalar{Immediate: true, Op: isa.Min, RD: d, RA: d, Imm: int32(most)},
		}
	}
	matmul := isa.Matmul{MX: uint16(m), MY: 1, StrideX: uint16(k), AccStride: uint16(4 * n)}
	accumulate := matmul
	accumulate.Accumulate = true
	terms := with(term(fieldK, 3, 1), term(fieldN, 2, 1), term(fieldIfmap, 1, 1), term(fieldAcc, 0, 4))
	first, later := terms, terms
	first.Condition, first.Reg = isa.IfZero, 1
	later.Condition, later.Reg = isa.IfNotZero, 1

	text := []isa.Instruction{isa.Loop{Reg: 0, Count: uint32((n + cols - 1) / cols), Step: int32(cols)}}
	text = append(text, least(2, 0, n, cols)...)
	text = append(text, isa.Loop{Reg: 1, Count: uint32((k + rows - 1) / rows), Step: int32(rows)})
	text = append(text, least(3, 1, k, rows)...)
	return append(
		text,
		with(term(fieldK, 3, 1), term(fieldN, 2, 1), term(fieldWeights, 1, n), term(fieldWeights, 0, 1)),
		isa.Preload{Weights: 2048, Stride: uint32(n)},
		first, matmul, later, accumulate,
		isa.End{}, isa.End{},
	)
}

// A product as two loops over tiles, with ragged edges, is one GEMM.
func TestTileLoops(t *testing.T) {
	rng := rand.New(rand.NewPCG(101, 102))
	for range 60 {
		m, n, k := 1+rng.IntN(12), 1+rng.IntN(60), 1+rng.IntN(70)
		in := randomBytes(rng, newConfig.SpadSize)
		run := func(product []isa.Instruction) []byte {
			out := make([]byte, newConfig.AccSize)
			text := append([]isa.Instruction{isa.Load{NX: uint32(len(in)), NY: 1, NZ: 1, Signal: tok(0, 1)}, isa.Sync{Engine: isa.ClassMatrix, Wait: tok(0, 1)}}, product...)
			text = append(text, isa.Sync{Engine: isa.ClassMatrix, Signal: tok(1, 1)},
				isa.Store{Binding: 1, Acc: true, NX: uint32(len(out)), NY: 1, NZ: 1, Wait: tok(1, 1)}, isa.Halt{})
			if _, err := runNew(t, [][]byte{in, out}, text...); err != nil {
				t.Fatal(err)
			}
			return out
		}
		one := run([]isa.Instruction{
			isa.Operands{AStride: uint32(k), BStride: uint32(n), AccStride: uint32(4 * n)},
			isa.Gemm{M: uint32(m), N: uint32(n), K: uint32(k), B: 2048},
		})
		if !bytes.Equal(one, run(tileLoops(m, n, k))) {
			t.Fatalf("%d × %d × %d: GEMM and the loops over tiles differ", m, n, k)
		}
	}
}

// randomLoops is a program of nested loops around transfers and fills that
// mostly stay inside local memory and bindings of size bytes.
func randomLoops(rng *rand.Rand, size int) []isa.Instruction {
	var text []isa.Instruction
	var block func(depth int)
	block = func(depth int) {
		for range 1 + rng.IntN(3) {
			if depth < 4 && rng.IntN(2) == 0 {
				text = append(text, isa.Loop{Reg: uint8(depth), Count: 1 + rng.Uint32N(4), Start: int32(rng.IntN(3)), Step: int32(1 + rng.IntN(3))})
				block(depth + 1)
				text = append(text, isa.End{})
				continue
			}
			w := with(term(fieldLocal, uint8(rng.IntN(4)), rng.IntN(40)), term(fieldLocal, uint8(rng.IntN(4)), rng.IntN(40)))
			w.Condition, w.Reg = isa.Condition(rng.IntN(3)), 0
			if w.Condition != isa.Always {
				w.Reg = uint8(rng.IntN(4))
			}
			var in isa.Instruction = isa.Fill{Value: uint8(rng.Uint32()), Local: uint32(rng.IntN(4000)), NX: uint32(1 + rng.IntN(30)), NY: 1}
			if rng.IntN(2) == 0 {
				w.Terms[2] = term(fieldOffset, uint8(rng.IntN(4)), rng.IntN(60))
				l := isa.Load{Local: uint32(rng.IntN(4000)), Offset: uint64(rng.IntN(size / 2)), NX: uint32(1 + rng.IntN(30)), NY: 1, NZ: 1}
				in = l
				if rng.IntN(2) == 0 {
					l.Binding = 1
					in = isa.Store(l)
				}
			}
			text = append(text, w, in)
		}
	}
	block(0)
	return append(text, isa.Halt{})
}

// Loops do what their iterations do when they are written out.
func TestLoopsAreUnrolled(t *testing.T) {
	const size = 2048
	rng := rand.New(rand.NewPCG(111, 112))
	ended, longest := 0, 0
	for range 200 {
		loops := isa.Text(randomLoops(rng, size)...)
		halt, v, _ := isa.Scan(loops, isa.Features)
		if v != nil {
			t.Fatal(v)
		}
		var straight []byte
		var index []int
		for w := isa.NewWalker(loops, halt, [isa.Arguments]int32{}); w.Next(isa.ClassControl); {
			straight = append(straight, w.Word()[:]...)
			index = append(index, w.Index())
		}
		straight = append(straight, isa.Text(isa.Halt{})...)
		longest = max(longest, len(index))
		in := randomBytes(rng, size)
		run := func(text []byte) ([]byte, core.Stats, *core.Fault) {
			m := &memory{t: t, bufs: [][]byte{bytes.Clone(in), make([]byte, size)}}
			stats, err := newCore(t, newConfig).Run(t.Context(), newProgram(2, text).Image(), m.bind(), m)
			var f *core.Fault
			if err != nil && !errors.As(err, &f) {
				t.Fatal(err)
			}
			return m.bufs[1], stats, f
		}
		wantOut, wantStats, wantFault := run(straight)
		out, stats, fault := run(loops)
		if wantFault != nil {
			wantFault.Instr = uint32(index[wantFault.Instr])
		} else {
			ended++
		}
		if diff := cmp.Diff(wantFault, fault); diff != "" {
			t.Fatalf("fault (-straight +loops):\n%s", diff)
		}
		if diff := cmp.Diff(wantStats, stats); diff != "" || !bytes.Equal(wantOut, out) {
			t.Fatalf("memory equal: %t, stats (-straight +loops):\n%s", bytes.Equal(wantOut, out), diff)
		}
	}
	if ended < 100 || longest < 100 {
		t.Errorf("%d programs ended, the longest of %d instructions: too little to see mistakes", ended, longest)
	}
}

// Engines go round loops at their own pace, held together by tokens: a store
// waits for the load of its iteration, a load for the store before it.
func TestTokensInLoops(t *testing.T) {
	const n = 20
	in, out := make([]byte, 8*n), make([]byte, 8*n)
	for i := range in {
		in[i] = byte(i * 7)
	}
	stats, err := runNew(
		t, [][]byte{in, out},
		isa.Sync{Engine: isa.ClassStore, Signal: tok(1, 1)},
		isa.Loop{Reg: 0, Count: n, Step: 1},
		with(term(fieldOffset, 0, 8)),
		isa.Load{NX: 8, NY: 1, NZ: 1, Wait: tok(1, 1), Signal: tok(0, 1)},
		isa.End{},
		isa.Loop{Reg: 0, Count: n, Step: 1},
		with(term(fieldOffset, 0, 8)),
		isa.Store{Binding: 1, NX: 8, NY: 1, NZ: 1, Wait: tok(0, 1), Signal: tok(1, 1)},
		isa.End{},
		isa.Halt{},
	)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(in, out) {
		t.Error("the stores and loads of two loops did not take turns")
	}
	if want := (core.Stats{Instructions: 2*n + 2, ByClass: [5]uint64{1, n, n + 1}, BytesLoaded: 8 * n, BytesStored: 8 * n}); stats != want {
		t.Errorf("%+v, want %+v", stats, want)
	}
}

func TestControlErrors(t *testing.T) {
	sync := isa.Sync{Engine: isa.ClassLoad}
	store := isa.Store{Binding: 1, NX: 1, NY: 1, NZ: 1}
	stamp := isa.Stamp{Binding: 1}
	for _, tt := range []struct {
		name   string
		edit   func(p *isa.Program)
		text   []isa.Instruction
		status core.Status // 0: no fault
		instr  uint32
		info   uint64
		stored bool // by a STORE that is instruction 0
	}{
		{"no error", nil, []isa.Instruction{store, isa.Loop{Count: 2}, sync, isa.End{}}, 0, 0, 0, true},
		{"feature not named", func(p *isa.Program) { p.Features = isa.FeatureGEMM }, []isa.Instruction{store, isa.Loop{Count: 2}, isa.End{}}, core.StatusIllegalInstruction, 1, 2, false},
		{"ISA 1.0", func(p *isa.Program) { p.Minor, p.Features = 0, 0 }, []isa.Instruction{store, isa.Scalar{}}, core.StatusIllegalInstruction, 1, 4, false},
		{"END without LOOP", nil, []isa.Instruction{store, isa.End{}}, core.StatusBadControl, 1, 1, false},
		{"HALT in a loop", nil, []isa.Instruction{store, isa.Loop{Count: 1}}, core.StatusBadControl, 2, 3, false},
		{"WITH before HALT", nil, []isa.Instruction{store, isa.With{}}, core.StatusBadControl, 1, 4, false},
		{"LOOP operand", nil, []isa.Instruction{store, isa.Loop{}, isa.End{}}, core.StatusBadOperand, 1, 8, false},
		{"WITH of no field", nil, []isa.Instruction{store, with(term(9, 0, 0)), isa.Fill{NX: 1, NY: 1}}, core.StatusBadOperand, 1, 4, false},
		{"budget", nil, []isa.Instruction{store, isa.Loop{Count: isa.Budget}, isa.End{}}, core.StatusBudget, 2, isa.Budget, false},
		{
			"the third iteration leaves the binding", nil,
			[]isa.Instruction{store, isa.Loop{Reg: 1, Count: 4, Step: 1}, with(term(fieldOffset, 1, 32)), isa.Load{NX: 1, NY: 1, NZ: 1}, isa.End{}},
			core.StatusBindingBounds, 3, 64, true,
		},
		{
			"an address that wraps", nil,
			[]isa.Instruction{store, isa.Loop{Reg: 1, Count: 1, Start: -1}, with(term(fieldLocal, 1, 1)), isa.Fill{NX: 1, NY: 1}, isa.End{}},
			core.StatusLocalBounds, 3, 0xffffffff, true,
		},
		{
			"an offset that wraps", nil,
			[]isa.Instruction{store, isa.Loop{Reg: 1, Count: 1, Start: -1}, with(term(fieldOffset, 1, 1)), isa.Load{NX: 1, NY: 1, NZ: 1}, isa.End{}},
			core.StatusBindingBounds, 3, 1<<40 - 1, true,
		},
		{
			"deadlock in a loop", nil,
			[]isa.Instruction{store, isa.Sync{Engine: isa.ClassLoad, Signal: tok(3, 2)}, isa.Loop{Count: 3}, isa.Sync{Engine: isa.ClassMatrix, Wait: tok(3, 1)}, isa.End{}},
			core.StatusDeadlock, 3, 3, true,
		},
		{
			"a signal that a condition ruled out", nil,
			[]isa.Instruction{
				store, isa.With{Condition: isa.IfNotZero}, isa.Sync{Engine: isa.ClassLoad, Signal: tok(3, 1)},
				isa.Sync{Engine: isa.ClassMatrix, Wait: tok(3, 1)},
			},
			core.StatusDeadlock, 3, 3, true,
		},
		{"token overflow", nil, []isa.Instruction{store, isa.Loop{Count: 18}, isa.Sync{Engine: isa.ClassLoad, Signal: tok(3, 15)}, isa.End{}}, core.StatusTokenOverflow, 2, 3, true},
		{"stamp", nil, []isa.Instruction{store, stamp}, 0, 0, 0, true},
		{"stamp, binding index", nil, []isa.Instruction{store, isa.Stamp{Binding: 2}}, core.StatusBindingIndex, 1, 2, true},
		{"stamp, read-only", nil, []isa.Instruction{store, isa.Stamp{}}, core.StatusBindingAccess, 1, 0, true},
		{"stamp, bounds", nil, []isa.Instruction{store, isa.Stamp{Binding: 1, Offset: 49}}, core.StatusBindingBounds, 1, 64, true},
		{"stamp, memory", nil, []isa.Instruction{store, isa.Stamp{Binding: 1, Offset: 48}}, core.StatusMemoryFault, 1, 2<<32 + 48, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := &memory{t: t, bufs: [][]byte{make([]byte, 64), bytes.Repeat([]byte{1}, 64)}}
			m.fail = func(_ core.Binding, off uint64) error {
				if off == 48 {
					return errors.New("not mapped")
				}
				return nil
			}
			bindings := m.bind()
			bindings[0].Write = false
			p := newProgram(2, isa.Text(append(tt.text, isa.Halt{})...))
			if tt.edit != nil {
				tt.edit(p)
			}
			_, err := newCore(t, newConfig).Run(t.Context(), p.Image(), bindings, m)
			var f *core.Fault
			if tt.status == 0 && err != nil || tt.status != 0 && (!errors.As(err, &f) || f.Status != tt.status || f.Instr != tt.instr || f.Info != tt.info) {
				t.Errorf("Run: %v, want %v of instruction %d with info %#x", err, tt.status, tt.instr, tt.info)
			}
			if stored := m.bufs[1][0] == 0; stored != tt.stored && tt.status != 0 {
				t.Errorf("an earlier STORE took place: %t, want %t", stored, tt.stored)
			}
		})
	}
	for s, name := range map[core.Status]string{0x61: "BAD_CONTROL", 0x62: "BUDGET"} {
		if s.String() != name {
			t.Errorf("status %#x is %v, want %s", uint8(s), s, name)
		}
	}
}

// STAMP stores how many instructions have finished, and its mark (§5.6.17).
func TestStamp(t *testing.T) {
	out := bytes.Repeat([]byte{0xee}, 64)
	stats, err := runNew(
		t, [][]byte{out},
		isa.Stamp{ID: 7},
		isa.Loop{Reg: 2, Count: 2, Start: 1, Step: 1},
		isa.Fill{NX: 1, NY: 1, Wait: tok(1, 1), Signal: tok(0, 1)},
		isa.Sync{Engine: isa.ClassStore, Signal: tok(1, 1)},
		with(term(fieldOffset, 2, 16), term(8, 2, 100)),
		isa.Stamp{Wait: tok(0, 1)},
		isa.End{},
		isa.Halt{},
	)
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	for _, r := range [][2]uint32{{0, 7}, {3, 100}, {6, 200}} {
		want = binary.LittleEndian.AppendUint64(want, uint64(r[0]))
		want = append(want, words(r[1], 0)...)
	}
	want = append(want, bytes.Repeat([]byte{0xee}, 16)...)
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	if stats.BytesStored != 48 || stats.Instructions != 8 {
		t.Errorf("%+v, want 48 bytes stored and 8 instructions", stats)
	}
}

func TestLoopNoAllocation(t *testing.T) {
	image := newProgram(0, isa.Text(append(tileLoops(8, 40, 50), isa.Halt{})...)).Image()
	c := newCore(t, newConfig)
	if n := allocsPerRun(10, func() {
		if _, err := c.Run(t.Context(), image, nil, nil); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations in a run, want 0", n)
	}
}
