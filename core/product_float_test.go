// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"npuemu/core/isa"
	"npuemu/core/systolic"
)

func words(v ...uint32) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, x)
	}
	return b
}

func floats(v ...float32) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

// What §6.8.2 says of the chain, row by row: a 1 × k by k × 1 product, or a 1 × 1
// convolution of one pixel outside the input.
func TestFloatChain(t *testing.T) {
	inf := float32(math.Inf(1))
	negZero := math.Float32frombits(1 << 31)
	for _, tt := range []struct {
		name   string
		ta, tb systolic.Type
		k      int
		a, b   []byte
		seed   uint32
		pad    bool
		want   uint32
	}{
		{"ascending k", systolic.FP32, systolic.FP32, 3, floats(1<<24, 1, 1), floats(1, 1, 1), 0, false, math.Float32bits(1 << 24)},
		{"the other order", systolic.FP32, systolic.FP32, 3, floats(1, 1, 1<<24), floats(1, 1, 1), 0, false, math.Float32bits(1<<24 + 2)},
		{"from the seed", systolic.FP32, systolic.FP32, 2, floats(1, 1), floats(1, 1), math.Float32bits(1 << 24), false, math.Float32bits(1 << 24)},
		{"one rounding a step", systolic.FP32, systolic.FP32, 1, words(0x3f800800), words(0x3f800800), math.Float32bits(-1), false, 0x3a000400},
		{"subnormals are kept", systolic.FP32, systolic.FP32, 1, words(0x00000001), floats(1), 0x00000001, false, 0x00000002},
		{"NaN is the canonical one", systolic.FP32, systolic.FP32, 1, words(0xffc12345), floats(1), 0, false, 0x7fc00000},
		{"a NaN in the accumulator", systolic.FP32, systolic.FP32, 1, floats(1), floats(1), 0xff800001, false, 0x7fc00000},
		{"infinity times 0", systolic.FP32, systolic.FP32, 1, floats(inf), floats(0), 0, false, 0x7fc00000},
		{"infinities of two signs", systolic.FP32, systolic.FP32, 2, floats(inf, inf), floats(1, -1), 0, false, 0x7fc00000},
		{"overflow", systolic.FP32, systolic.FP32, 1, words(0x7f7fffff), floats(2), 0, false, 0x7f800000},
		{"-0 stays -0", systolic.FP32, systolic.FP32, 1, floats(negZero), floats(1), 1 << 31, false, 1 << 31},
		{"bf16", systolic.BF16, systolic.BF16, 2, words(0x40003f80), words(0x3f803fc0), 0, false, math.Float32bits(3.5)},
		{"fp16 with E4M3", systolic.FP16, systolic.E4M3, 2, words(0x00017bff), words(0x0000017e), 0, false, math.Float32bits(65504*448 + 0x1p-33)},
		{"E4M3 has one NaN and no infinity", systolic.E4M3, systolic.E5M2, 1, words(0x7f), words(0x3c), 0, false, 0x7fc00000},
		{"E5M2 infinity", systolic.E5M2, systolic.E5M2, 1, words(0x7c), words(0xbc), 0, false, 0xff800000},
		{"padding is +0", systolic.FP32, systolic.FP32, 1, floats(5), floats(3), math.Float32bits(2), true, math.Float32bits(2)},
		{"padding with an infinite weight", systolic.FP32, systolic.FP32, 1, floats(5), floats(inf), 0, true, 0x7fc00000},
		{"padding after -0", systolic.FP32, systolic.FP32, 1, floats(5), floats(1), 1 << 31, true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := make([]byte, 256)
			copy(in, tt.a)
			copy(in[64:], tt.b)
			binary.LittleEndian.PutUint32(in[128:], tt.seed)
			out := make([]byte, 4)
			window := isa.Window{KernelH: 1, KernelW: 1, StepY: 1, StepX: 1, DilationY: 1, DilationX: 1, Groups: 1}
			var product isa.Instruction = isa.Gemm{M: 1, N: 1, K: uint32(tt.k), B: 64, Accumulate: true, Signal: tok(1, 1)}
			if tt.pad {
				window.PadLeft = 1
				product = isa.Conv{InH: 1, InW: 1, OutH: 1, OutW: 1, Cin: uint16(tt.k), Cout: 1, B: 64, Accumulate: true, Signal: tok(1, 1)}
			}
			_, err := runNew(
				t, [][]byte{in, out},
				isa.Load{NX: 256, NY: 1, NZ: 1},
				isa.Load{Offset: 128, NX: 4, NY: 1, NZ: 1, Acc: true, Signal: tok(0, 1)},
				isa.Operands{A: tt.ta, B: tt.tb, BStride: uint32(tt.tb.Bytes(1)), Wait: tok(0, 1)},
				window, product,
				isa.Store{Binding: 1, Acc: true, NX: 4, NY: 1, NZ: 1, Wait: tok(1, 1)},
				isa.Halt{},
			)
			if err != nil {
				t.Fatal(err)
			}
			if got := binary.LittleEndian.Uint32(out); got != tt.want {
				t.Errorf("%#08x, want %#08x", got, tt.want)
			}
		})
	}
}

// Splitting k over accumulating instructions in ascending order changes no bit,
// nor does the dataflow: k is longer than what the engine takes at a time.
func TestFloatSplit(t *testing.T) {
	const k, n = 700, 40
	cfg := newConfig
	cfg.SpadSize = 256 << 10
	rng := rand.New(rand.NewPCG(81, 82))
	in := make([]byte, 4*(k+k*n))
	for i := 0; i < len(in); i += 4 {
		binary.LittleEndian.PutUint32(in[i:], math.Float32bits(float32(rng.NormFloat64())))
	}
	with := func(o isa.Operands, split ...int) []byte {
		out := make([]byte, 4*n)
		text := []isa.Instruction{isa.Load{NX: uint32(len(in)), NY: 1, NZ: 1, Signal: tok(0, 1)}, o}
		for at := 0; at < k; split = split[1:] {
			text = append(text, isa.Gemm{
				M: 1, N: n, K: uint32(split[0]), A: uint32(4 * at), B: uint32(4*k + 4*at*n), Accumulate: at > 0,
			})
			at += split[0]
		}
		text = append(text, isa.Sync{Engine: isa.ClassMatrix, Signal: tok(1, 1)},
			isa.Store{Binding: 1, Acc: true, NX: 4 * n, NY: 1, NZ: 1, Wait: tok(1, 1)}, isa.Halt{})
		p := program(cfg, 2, isa.Text(text...))
		p.Minor, p.Features = isa.Minor, isa.Features
		m := &memory{t: t, bufs: [][]byte{in, out}}
		if _, err := newCore(t, cfg).Run(t.Context(), p.Image(), m.bind(), m); err != nil {
			t.Fatal(err)
		}
		return out
	}
	o := isa.Operands{A: systolic.FP32, B: systolic.FP32, BStride: 4 * n, Wait: tok(0, 1)}
	one := with(o, k)
	if !bytes.Equal(one, with(o, 1, 2, 300, 397)) {
		t.Error("a split k gives other bits")
	}
	o.OutputStationary = true
	if !bytes.Equal(one, with(o, k)) {
		t.Error("the dataflow changes bits")
	}
}
