// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"errors"
	"testing"

	"npuemu/core"
	"npuemu/core/isa"
	"npuemu/ecc"
)

// Every way to read a poisoned granule of the scratchpad, at 1024, ends the program; what does not read it does not notice (§12.2).
func TestScratchpadPoison(t *testing.T) {
	const bad = 1024
	scale := isa.Fill{Local: 512, Value: 0x10, NX: 5, NY: 1, Signal: tok(0, 1)} // a parameter that is in order
	for _, tt := range []struct {
		name  string
		text  []isa.Instruction
		fails bool
		instr uint32
	}{
		{"nothing", nil, false, 0},
		{"STORE", []isa.Instruction{isa.Store{Local: bad + 63, NX: 1, NY: 1, NZ: 1}}, true, 0},
		{"STORE, third row", []isa.Instruction{isa.Store{Local: bad - 128, NX: 8, NY: 3, NZ: 1, StrideY: 8, LocalStride: 64}}, true, 0},
		{"STORE beside it", []isa.Instruction{isa.Store{Local: bad - 64, NX: 64, NY: 2, NZ: 1, StrideY: 64, LocalStride: 128}}, false, 0},
		{"STORE of accumulators", []isa.Instruction{isa.Store{Acc: true, Local: bad, NX: 64, NY: 1, NZ: 1}}, false, 0},
		{"PRELOAD", []isa.Instruction{isa.Preload{K: 2, N: 8, Weights: bad - 64, Stride: 64}}, true, 0},
		{"PRELOAD beside it", []isa.Instruction{isa.Preload{K: 2, N: 8, Weights: bad - 64, Stride: 128}}, false, 0},
		{"MATMUL", []isa.Instruction{isa.Matmul{K: 8, N: 8, Ifmap: bad - 128, MX: 3, MY: 1, StrideX: 64, AccStride: 32}}, true, 0},
		{"MATMUL, second plane", []isa.Instruction{isa.Matmul{K: 8, N: 8, Ifmap: bad - 128, MX: 1, MY: 2, StrideY: 128, AccStride: 32}}, true, 0},
		{"MATMUL beside it", []isa.Instruction{isa.Matmul{K: 8, N: 8, Ifmap: bad - 64, MX: 2, MY: 1, StrideX: 128, AccStride: 32}}, false, 0},
		{"BIAS", []isa.Instruction{isa.Bias{N: 1, Bias: bad + 60, M: 1}}, true, 0},
		{"BIAS beside it", []isa.Instruction{isa.Bias{N: 16, Bias: bad + 64, M: 1}}, false, 0},
		{"REQUANT", []isa.Instruction{isa.Requant{N: 1, Params: bad, MX: 1, MY: 1, Lo: -128, Hi: 127}}, true, 0},
		{"REQUANT beside it", []isa.Instruction{scale, isa.Sync{Engine: isa.ClassLoad, Wait: tok(0, 1), Signal: tok(1, 1)}, isa.Requant{N: 1, Params: 512, Out: 256, MX: 1, MY: 1, Lo: -128, Hi: 127, Wait: tok(1, 1)}}, false, 0},
		{"FILL, then STORE", []isa.Instruction{isa.Fill{Local: bad, NX: 64, NY: 1, Signal: tok(0, 1)}, isa.Store{Local: bad, NX: 64, NY: 1, NZ: 1, Wait: tok(0, 1)}}, false, 0},
		{"FILL of a part, then STORE", []isa.Instruction{isa.Fill{Local: bad + 1, NX: 63, NY: 1, Signal: tok(0, 1)}, isa.Store{Local: bad + 8, NX: 8, NY: 1, NZ: 1, Wait: tok(0, 1)}}, true, 1},
		{"LOAD of rows, then STORE", []isa.Instruction{isa.Load{Local: bad, NX: 16, NY: 4, NZ: 1, StrideY: 20, LocalStride: 16, Signal: tok(0, 1)}, isa.Store{Local: bad, NX: 64, NY: 1, NZ: 1, Wait: tok(0, 1)}}, false, 0},
		{"LOAD of accumulators, then STORE", []isa.Instruction{isa.Load{Acc: true, Local: bad, NX: 64, NY: 1, NZ: 1, Signal: tok(0, 1)}, isa.Store{Local: bad, NX: 64, NY: 1, NZ: 1, Wait: tok(0, 1)}}, true, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCore(t, testConfig)
			if !c.Strike(bad + 5) {
				t.Fatal("no room")
			}
			m := &memory{t: t, bufs: [][]byte{make([]byte, 4096)}}
			image := program(testConfig, 1, isa.Text(append(tt.text, isa.Halt{})...)).Image()
			_, err := c.Run(t.Context(), image, m.bind(), m)
			var f *core.Fault
			switch errors.As(err, &f); {
			case !tt.fails && err != nil:
				t.Errorf("%v", err)
			case tt.fails && (f == nil || f.Status != core.StatusPoison || f.Info != bad || f.Instr != tt.instr):
				t.Errorf("%v, want POISON at %#x in instruction %d", err, bad, tt.instr)
			}
			if _, err := c.Run(t.Context(), program(testConfig, 1, isa.Text(isa.Store{Local: bad, NX: 64, NY: 1, NZ: 1}, isa.Halt{})).Image(), m.bind(), m); err != nil {
				t.Errorf("the next program: %v", err)
			}
		})
	}
}

// A granule that a program does not ask for is not cleared for it, and stays poisoned.
func TestPoisonBeyondTheProgram(t *testing.T) {
	c := newCore(t, testConfig)
	c.Strike(4096)
	m := &memory{t: t, bufs: [][]byte{make([]byte, 64)}}
	small, large := program(testConfig, 1, isa.Text(isa.Halt{})), program(testConfig, 1, isa.Text(isa.Store{Local: 4096, NX: 1, NY: 1, NZ: 1}, isa.Halt{}))
	small.SpadSize = 4096
	for _, p := range []*isa.Program{small, large} {
		if _, err := c.Run(t.Context(), p.Image(), m.bind(), m); err != nil {
			t.Error(err)
		}
	}
}

func TestStrikesAreBounded(t *testing.T) {
	c := newCore(t, testConfig)
	for i := range uint64(ecc.MaxPoisoned) {
		if !c.Strike(i * ecc.Granule) {
			t.Fatalf("no room for granule %d", i)
		}
	}
	if c.Strike(ecc.MaxPoisoned * ecc.Granule) {
		t.Error("one more than the limit")
	}
	if !c.Strike(3) {
		t.Error("a granule that waits already was refused")
	}
}
