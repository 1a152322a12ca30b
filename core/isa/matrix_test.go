// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"math"
	"testing"

	"npuemu/core/systolic"
)

// The rules of OPERANDS, WINDOW, GEMM and CONV. A row changes what fits the
// limits exactly.
func TestCheckMatrix(t *testing.T) {
	operands := Operands{A: systolic.Int8, B: systolic.Int8, AStride: 20, BStride: 12, AccStride: 44}
	window := Window{KernelH: 3, KernelW: 2, StepY: 1, StepX: 1, DilationY: 1, DilationX: 1, Groups: 2}
	with := func(f func(*Operands)) Setup { return Setup{Operands: edit(operands, f), Window: window} }
	plain := with(func(*Operands) {})
	int16s := with(func(o *Operands) { o.A, o.AStride = systolic.Int16, 36 })
	int4s := with(func(o *Operands) { o.B, o.BStride = systolic.Int4, 6 })
	floats := with(func(o *Operands) { o.A, o.B, o.AStride, o.BStride = systolic.FP32, systolic.FP32, 72, 44 })
	aT := with(func(o *Operands) { o.TransposeA, o.AStride = true, 5 })
	bT := with(func(o *Operands) { o.TransposeB, o.BStride = true, 18 })
	table := with(func(o *Operands) { o.PerChannel, o.BZeros = true, 4096-11 })

	// 5 × 11 × 18; the operands end where the memories do.
	gemm := Gemm{M: 5, N: 11, K: 18, A: 4096 - (4*20 + 18), B: 4096 - (17*12 + 11), Acc: 2048 - (4*44 + 44)}
	// 4 × 5 pixels of 4 channels, 3 × 2 × 2 × 10 weights, 2 × 3 pixels of 10.
	conv := Conv{
		InH: 4, InW: 5, OutH: 2, OutW: 3, Cin: 4, Cout: 10, Line: 100,
		A: 4096 - (3*100 + 4*20 + 4), B: 4096 - (11*12 + 10), Acc: 2048 - (5*44 + 40),
	}
	const max16, max32 = math.MaxUint16, math.MaxUint32
	tests := []struct {
		name  string
		setup Setup
		in    Instruction
		rule  Rule // 0: no violation
		info  uint64
	}{
		{"OPERANDS", plain, operands, 0, 0},
		{"OPERANDS a_type int4", plain, edit(operands, func(o *Operands) { o.A = systolic.Int4 }), BadOperand, 4},
		{"OPERANDS a_type unknown", plain, edit(operands, func(o *Operands) { o.A = 99 }), BadOperand, 4},
		{"OPERANDS b_type int16", plain, edit(operands, func(o *Operands) { o.B = systolic.Int16 }), BadOperand, 5},
		{"OPERANDS b_type unknown", plain, edit(operands, func(o *Operands) { o.B = 255 }), BadOperand, 5},
		{"OPERANDS a_zero of int8", plain, edit(operands, func(o *Operands) { o.AZero = -128 }), 0, 0},
		{"OPERANDS a_zero above int8", plain, edit(operands, func(o *Operands) { o.AZero = 128 }), BadOperand, 6},
		{"OPERANDS uint8", plain, edit(operands, func(o *Operands) { o.A, o.B, o.AZero, o.BZero = systolic.Uint8, systolic.Uint8, 255, 255 }), 0, 0},
		{"OPERANDS a_zero below uint8", plain, edit(operands, func(o *Operands) { o.A, o.AZero = systolic.Uint8, -1 }), BadOperand, 6},
		{"OPERANDS b_zero above uint8", plain, edit(operands, func(o *Operands) { o.B, o.BZero = systolic.Uint8, 256 }), BadOperand, 8},
		{"OPERANDS int32", plain, edit(operands, func(o *Operands) { o.A = systolic.Int32 }), BadOperand, 4},
		{"OPERANDS a_zero of int16", plain, edit(operands, func(o *Operands) { o.A, o.AZero = systolic.Int16, -32768 }), 0, 0},
		{"OPERANDS b_zero above int4", plain, edit(operands, func(o *Operands) { o.B, o.BZero = systolic.Int4, 200 }), BadOperand, 8},
		{"OPERANDS b_zero with a table", plain, edit(operands, func(o *Operands) { o.PerChannel, o.BZero = true, 1 }), BadOperand, 8},
		{"OPERANDS table without per_channel", plain, edit(operands, func(o *Operands) { o.BZeros = 64 }), BadOperand, 12},
		{"OPERANDS a_stride of int16", plain, edit(operands, func(o *Operands) { o.A, o.AStride = systolic.Int16, 21 }), BadOperand, 16},
		{"OPERANDS acc_stride", plain, edit(operands, func(o *Operands) { o.AccStride = 42 }), BadOperand, 24},
		{"OPERANDS a_type 3", plain, edit(operands, func(o *Operands) { o.A = 3 }), BadOperand, 4},
		{"OPERANDS floats", plain, edit(operands, func(o *Operands) { o.A, o.B = systolic.E5M2, systolic.BF16 }), 0, 0},
		{"OPERANDS float activations, integer weights", plain, edit(operands, func(o *Operands) { o.A = systolic.FP16 }), BadOperand, 5},
		{"OPERANDS integer activations, float weights", plain, edit(operands, func(o *Operands) { o.B = systolic.FP16 }), BadOperand, 5},
		{"OPERANDS a_zero of a float", plain, edit(operands, func(o *Operands) { o.A, o.B, o.AZero = systolic.E5M2, systolic.E5M2, 1 }), BadOperand, 6},
		{"OPERANDS b_zero of a float", plain, edit(operands, func(o *Operands) { o.A, o.B, o.BZero = systolic.E5M2, systolic.E5M2, 1 }), BadOperand, 8},
		{"OPERANDS table for floats", plain, edit(operands, func(o *Operands) { o.A, o.B, o.PerChannel = systolic.E5M2, systolic.E5M2, true }), BadOperand, 1},
		{"OPERANDS a_stride of fp32", plain, edit(operands, func(o *Operands) { o.A, o.B, o.AStride = systolic.FP32, systolic.E5M2, 22 }), BadOperand, 16},
		{"OPERANDS b_stride of bf16", plain, edit(operands, func(o *Operands) { o.A, o.B, o.BStride = systolic.FP32, systolic.BF16, 13 }), BadOperand, 20},
		{"OPERANDS two rules, lower offset", plain, edit(operands, func(o *Operands) { o.B, o.A = 99, 99 }), BadOperand, 4},

		{"WINDOW", plain, window, 0, 0},
		{"WINDOW kernel_h", plain, edit(window, func(w *Window) { w.KernelH = 0 }), BadOperand, 4},
		{"WINDOW kernel_w", plain, edit(window, func(w *Window) { w.KernelW = 0 }), BadOperand, 5},
		{"WINDOW step_y", plain, edit(window, func(w *Window) { w.StepY = 0 }), BadOperand, 6},
		{"WINDOW step_x", plain, edit(window, func(w *Window) { w.StepX = 0 }), BadOperand, 7},
		{"WINDOW dilation_y", plain, edit(window, func(w *Window) { w.DilationY = 0 }), BadOperand, 8},
		{"WINDOW dilation_x", plain, edit(window, func(w *Window) { w.DilationX = 0 }), BadOperand, 9},
		{"WINDOW groups", plain, edit(window, func(w *Window) { w.Groups = 0 }), BadOperand, 10},

		{"GEMM", plain, gemm, 0, 0},
		{"GEMM m 0", plain, edit(gemm, func(i *Gemm) { i.M = 0 }), BadOperand, 4},
		{"GEMM n 0", plain, edit(gemm, func(i *Gemm) { i.N = 0 }), BadOperand, 8},
		{"GEMM k 0", plain, edit(gemm, func(i *Gemm) { i.K = 0 }), BadOperand, 12},
		{"GEMM a odd with int16", int16s, edit(gemm, func(i *Gemm) { i.A = 1 }), BadOperand, 16},
		{"GEMM acc", plain, edit(gemm, func(i *Gemm) { i.Acc -= 2 }), BadOperand, 24},
		{"GEMM a_stride", with(func(o *Operands) { o.AStride = 17 }), gemm, BadSetup, 16},
		{"GEMM a_stride of one row", with(func(o *Operands) { o.AStride = 0 }), edit(gemm, func(i *Gemm) { i.M = 1 }), 0, 0},
		{"GEMM a_stride of int16", with(func(o *Operands) { o.A, o.AStride = systolic.Int16, 34 }), edit(gemm, func(i *Gemm) { i.A = 0 }), BadSetup, 16},
		{"GEMM b_stride", with(func(o *Operands) { o.BStride = 10 }), gemm, BadSetup, 20},
		{"GEMM b_stride of int4", with(func(o *Operands) { o.B, o.BStride = systolic.Int4, 5 }), gemm, BadSetup, 20},
		{"GEMM acc_stride", with(func(o *Operands) { o.AccStride = 40 }), gemm, BadSetup, 24},
		{"GEMM acc_stride of one row", with(func(o *Operands) { o.AccStride = 0 }), edit(gemm, func(i *Gemm) { i.M = 1 }), 0, 0},
		{"GEMM operand before setup", with(func(o *Operands) { o.AStride = 0 }), edit(gemm, func(i *Gemm) { i.Acc++ }), BadOperand, 24},
		{"GEMM setup before bounds", with(func(o *Operands) { o.BStride = 0 }), edit(gemm, func(i *Gemm) { i.A = max32 }), BadSetup, 20},
		{"GEMM a bounds", plain, edit(gemm, func(i *Gemm) { i.A++ }), LocalBounds, 4096},
		{"GEMM b bounds", plain, edit(gemm, func(i *Gemm) { i.B++ }), LocalBounds, 4096},
		{"GEMM acc bounds", plain, edit(gemm, func(i *Gemm) { i.Acc += 4 }), LocalBounds, 2048},
		{"GEMM int16", int16s, edit(gemm, func(i *Gemm) { i.A = 4096 - 5*36 }), 0, 0},
		{"GEMM int16 bounds", int16s, edit(gemm, func(i *Gemm) { i.A = 4098 - 5*36 }), LocalBounds, 4096},
		{"GEMM int4, odd row", int4s, edit(gemm, func(i *Gemm) { i.B = 4096 - 18*6 }), 0, 0},
		{"GEMM int4 bounds", int4s, edit(gemm, func(i *Gemm) { i.B = 4097 - 18*6 }), LocalBounds, 4096},
		{"GEMM transposed a", aT, edit(gemm, func(i *Gemm) { i.A = 4096 - 18*5 }), 0, 0},
		{"GEMM transposed a bounds", aT, edit(gemm, func(i *Gemm) { i.A = 4097 - 18*5 }), LocalBounds, 4096},
		{"GEMM transposed b", bT, edit(gemm, func(i *Gemm) { i.B = 4096 - 11*18 }), 0, 0},
		{"GEMM transposed b bounds", bT, edit(gemm, func(i *Gemm) { i.B = 4097 - 11*18 }), LocalBounds, 4096},
		{"GEMM table", table, gemm, 0, 0},
		{"GEMM table bounds", edit(table, func(s *Setup) { s.Operands.BZeros++ }), gemm, LocalBounds, 4096},
		{"GEMM everything", with(func(o *Operands) { o.AStride, o.BStride, o.AccStride = max32, max32, max32&^3 }),
			Gemm{M: max32, N: max32 / 4, K: max32}, LocalBounds, 4096},
		{"GEMM everything, int16", with(func(o *Operands) { o.A = systolic.Int16 }), Gemm{M: 1, N: max32, K: max32}, BadSetup, 20},
		{"GEMM widest row", with(func(o *Operands) { o.A = systolic.Int16 }), Gemm{M: 1, N: 1, K: max32}, LocalBounds, 4096},
		{"GEMM widest result", plain, Gemm{M: 1, N: max32, K: 1}, LocalBounds, 4096},

		{"GEMM fp32", floats, edit(gemm, func(i *Gemm) { i.A, i.B = 4096-5*72, 4096-18*44 }), 0, 0},
		{"GEMM fp32 bounds", floats, edit(gemm, func(i *Gemm) { i.A, i.B = 4100-5*72, 4096-18*44 }), LocalBounds, 4096},
		{"GEMM a odd with fp32", floats, edit(gemm, func(i *Gemm) { i.A = 2 }), BadOperand, 16},
		{"GEMM b odd with fp32", floats, edit(gemm, func(i *Gemm) { i.A, i.B = 0, 2 }), BadOperand, 20},

		{"CONV", plain, conv, 0, 0},
		{"CONV in_h", plain, edit(conv, func(i *Conv) { i.InH = 0 }), BadOperand, 4},
		{"CONV in_w", plain, edit(conv, func(i *Conv) { i.InW = 0 }), BadOperand, 6},
		{"CONV out_h", plain, edit(conv, func(i *Conv) { i.OutH = 0 }), BadOperand, 8},
		{"CONV out_w", plain, edit(conv, func(i *Conv) { i.OutW = 0 }), BadOperand, 10},
		{"CONV cin", plain, edit(conv, func(i *Conv) { i.Cin = 0 }), BadOperand, 12},
		{"CONV cout", plain, edit(conv, func(i *Conv) { i.Cout = 0 }), BadOperand, 14},
		{"CONV a odd with int16", int16s, edit(conv, func(i *Conv) { i.A = 1 }), BadOperand, 16},
		{"CONV acc", plain, edit(conv, func(i *Conv) { i.Acc++ }), BadOperand, 24},
		{"CONV line odd with int16", int16s, edit(conv, func(i *Conv) { i.Line = 1001 }), BadOperand, 28},
		{"CONV line short", plain, edit(conv, func(i *Conv) { i.Line = 83 }), BadOperand, 28},
		{"CONV line as long as its pixels", plain, edit(conv, func(i *Conv) { i.Line = 84 }), 0, 0},
		{"CONV one line", plain, edit(conv, func(i *Conv) { i.InH, i.Line = 1, 0 }), 0, 0},
		{"CONV transposed a", aT, edit(conv, func(i *Conv) { i.Line = 1000 }), BadSetup, 1},
		{"CONV a_stride", with(func(o *Operands) { o.AStride = 3 }), conv, BadSetup, 16},
		{"CONV groups and cin", plain, edit(conv, func(i *Conv) { i.Cin = 3 }), BadSetup, 32 + 10},
		{"CONV groups and cout", plain, edit(conv, func(i *Conv) { i.Cout = 9 }), BadSetup, 32 + 10},
		{"CONV b_stride", with(func(o *Operands) { o.BStride = 9 }), conv, BadSetup, 20},
		{"CONV acc_stride", with(func(o *Operands) { o.AccStride = 36 }), conv, BadSetup, 24},
		{"CONV a bounds", plain, edit(conv, func(i *Conv) { i.A++ }), LocalBounds, 4096},
		{"CONV b bounds", plain, edit(conv, func(i *Conv) { i.B++ }), LocalBounds, 4096},
		{"CONV acc bounds", plain, edit(conv, func(i *Conv) { i.Acc += 4 }), LocalBounds, 2048},
		{"CONV transposed b", bT, edit(conv, func(i *Conv) { i.B = 4096 - (9*18 + 12) }), 0, 0},
		{"CONV transposed b bounds", bT, edit(conv, func(i *Conv) { i.B = 4097 - (9*18 + 12) }), LocalBounds, 4096},
		{"CONV table", edit(table, func(s *Setup) { s.Operands.BZeros = 4096 - 10 }), conv, 0, 0},
		{"CONV table bounds", edit(table, func(s *Setup) { s.Operands.BZeros = 4097 - 10 }), conv, LocalBounds, 4096},
		{"CONV everything", Setup{
			Operands: Operands{AStride: max32, BStride: max32, AccStride: max32 &^ 3},
			Window:   Window{KernelH: 255, KernelW: 255, StepY: 255, StepX: 255, DilationY: 255, DilationX: 255, Groups: 1, PadTop: max16, PadLeft: max16},
		}, Conv{InH: 1, InW: max16, OutH: max16, OutW: max16, Cin: max16, Cout: max16}, LocalBounds, 4096},
	}
	// Without the feature there are no floating-point types.
	l := testLimits
	l.Features = FeatureGEMM
	if v := (Operands{A: systolic.FP32, B: systolic.FP32}).Check(l); v == nil || v.Rule != BadOperand || v.Info != 4 {
		t.Errorf("fp32 without FLOAT: %v", v)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := testLimits
			l.Setup = tt.setup
			v := tt.in.Check(l)
			switch {
			case tt.rule == 0 && v != nil:
				t.Errorf("Check = %v, want nil", v)
			case tt.rule != 0 && (v == nil || v.Rule != tt.rule || v.Info != tt.info):
				t.Errorf("Check = %+v, want %v with info %d", v, tt.rule, tt.info)
			}
		})
	}
}
