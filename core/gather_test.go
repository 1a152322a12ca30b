// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"npuemu/core"
	"npuemu/core/isa"
)

// runText executes text on a scratchpad with the given contents and returns what is
// in it then.
func runText(t *testing.T, spad []byte, text ...isa.Instruction) []byte {
	t.Helper()
	out := make([]byte, newConfig.SpadSize)
	raw := isa.Text(append(append([]isa.Instruction{isa.Load{NX: uint32(len(spad)), NY: 1, NZ: 1}}, text...),
		isa.Store{Binding: 1, NX: uint32(len(out)), NY: 1, NZ: 1})...)
	tokensBetween(raw)
	m := &memory{t: t, bufs: [][]byte{spad, out}}
	if _, err := newCore(t, newConfig).Run(t.Context(), newProgram(2, append(raw, isa.Text(isa.Halt{})...)).Image(), m.bind(), m); err != nil {
		t.Fatal(err)
	}
	return out
}

// Random GATHERs and SCATTERs.
func TestGatherScatter(t *testing.T) {
	rng := rand.New(rand.NewPCG(191, 192))
	for round := range 400 {
		i := isa.Gather{
			FromEnd: rng.IntN(2) == 0, N: uint16(1 + rng.IntN(20)), X: rng.Uint32N(100), Indices: 1024, Out: 2048 + rng.Uint32N(100),
			M: 1 + rng.Uint32N(40), Rows: 1 + rng.Uint32N(20),
		}
		i.Stride, i.TableStride = i.N+uint16(rng.IntN(4)), uint32(i.N)+rng.Uint32N(4)
		spad := randomBytes(rng, newConfig.SpadSize)
		want := bytes.Clone(spad)
		for k := range int(i.M) {
			row := int32(rng.IntN(int(i.Rows)))
			v := row
			if i.FromEnd && rng.IntN(2) == 0 {
				v -= int32(i.Rows)
			}
			binary.LittleEndian.PutUint32(spad[1024+4*k:], uint32(v))
			binary.LittleEndian.PutUint32(want[1024+4*k:], uint32(v))
			table, list := int(row)*int(i.TableStride), k*int(i.Stride)
			if round%2 == 0 {
				copy(want[int(i.Out)+list:][:i.N], spad[int(i.X)+table:])
			} else {
				copy(want[int(i.Out)+table:][:i.N], spad[int(i.X)+list:])
			}
		}
		var in isa.Instruction = i
		if round%2 == 1 {
			in = isa.Scatter(i)
		}
		if !bytes.Equal(runText(t, spad, in), want) {
			w := in.Encode()
			t.Fatalf("scratchpad differs after %v", &w)
		}
	}
}

func TestGatherErrors(t *testing.T) {
	shape := isa.Shape{N: [4]uint16{1, 1, 4, 4}, OutStride: [4]uint32{0, 0, 64, 256}}
	transpose := isa.Transpose{Size: 64, Out: 4096, XStride: [4]uint32{0, 0, 512, 64}}
	gather := isa.Gather{N: 64, Stride: 64, X: 0, Indices: 2048, Out: 4096, M: 4, Rows: 4, TableStride: 128}
	scatter := isa.Scatter(gather)
	// index is a FILL that makes index k four bytes of v.
	index := func(k int, v uint8) isa.Instruction {
		return isa.Fill{Local: uint32(2048 + 4*k), NX: 4, NY: 1, Value: v}
	}
	one := func(k int) isa.Instruction { // the number 4
		return isa.Fill{Local: uint32(2048 + 4*k), NX: 1, NY: 1, Value: 4}
	}
	fromEnd := edit(gather, func(i *isa.Gather) { i.FromEnd = true })
	runFaultRows(t, []faultRow{
		{"no error", isa.Features, 0, []isa.Instruction{shape, transpose, gather, scatter}, 0, 0, 0},
		{"feature not named", isa.FeatureReduce, 0, []isa.Instruction{shape}, core.StatusIllegalInstruction, 0, 0x4a},
		{"feature not named, transpose", isa.FeatureReduce, 0, []isa.Instruction{transpose}, core.StatusIllegalInstruction, 0, 0x4b},
		{"feature not named, gather", isa.FeatureReduce, 0, []isa.Instruction{gather}, core.StatusIllegalInstruction, 0, 0x4c},
		{"feature not named, scatter", isa.FeatureReduce, 0, []isa.Instruction{scatter}, core.StatusIllegalInstruction, 0, 0x4d},
		{"shape", isa.Features, 0, []isa.Instruction{isa.Shape{}}, core.StatusBadOperand, 0, 4},
		{"size", isa.Features, 0, []isa.Instruction{isa.Transpose{}}, core.StatusBadOperand, 0, 4},
		{"rows", isa.Features, 0, []isa.Instruction{isa.Gather{N: 1, M: 1}}, core.StatusBadOperand, 0, 24},
		{"bounds", isa.Features, 0, []isa.Instruction{shape, edit(transpose, func(i *isa.Transpose) { i.Out = 8192 })}, core.StatusLocalBounds, 1, 8192},
		{"overlap", isa.Features, 0, []isa.Instruction{shape, edit(transpose, func(i *isa.Transpose) { i.Out = 100 })}, core.StatusOverlap, 1, 100},
		{"the shape at the start is one element", isa.Features, 0, []isa.Instruction{edit(transpose, func(i *isa.Transpose) { i.Out = 64 })}, 0, 0, 0},
		{"index above", isa.Features, 0, []isa.Instruction{one(2), gather}, core.StatusBadIndex, 1, 2<<32 | 4},
		{"index above, scatter", isa.Features, 0, []isa.Instruction{one(3), scatter}, core.StatusBadIndex, 1, 3<<32 | 4},
		{"index below", isa.Features, 0, []isa.Instruction{index(1, 0xff), gather}, core.StatusBadIndex, 1, 1<<32 | 0xffffffff},
		{"index from the end", isa.Features, 0, []isa.Instruction{index(1, 0xff), fromEnd}, 0, 0, 0},
		{"index below the end", isa.Features, 0, []isa.Instruction{index(1, 0xfe), edit(fromEnd, func(i *isa.Gather) { i.Rows, i.TableStride = 2, 0 })}, core.StatusBadIndex, 1, 1<<32 | 0xfefefefe},
		{"poisoned element", isa.Features, 1536 + 192, []isa.Instruction{shape, transpose}, core.StatusPoison, 1, 1536 + 192},
		{"poison beside elements", isa.Features, 256, []isa.Instruction{shape, transpose}, 0, 0, 0},
		{"poisoned index", isa.Features, 2048, []isa.Instruction{gather}, core.StatusPoison, 0, 2048},
		{"poison in a row", isa.Features, 128, []isa.Instruction{isa.Fill{Local: 2048, NX: 64, NY: 1}, isa.Fill{Local: 2052, NX: 1, NY: 1, Value: 1}, gather}, core.StatusPoison, 2, 128},
		{"poison in a row that no index names", isa.Features, 128, []isa.Instruction{gather}, 0, 0, 0},
		{"poisoned row, scatter", isa.Features, 192, []isa.Instruction{scatter}, core.StatusPoison, 0, 192},
		{"poisoned result", isa.Features, 4096, []isa.Instruction{shape, transpose, gather, scatter}, 0, 0, 0},
	})
	image := newProgram(0, isa.Text(shape, transpose, gather, scatter, isa.Halt{})).Image()
	c := newCore(t, newConfig)
	if n := allocsPerRun(10, func() {
		if _, err := c.Run(t.Context(), image, nil, nil); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations in a run, want 0", n)
	}
}
