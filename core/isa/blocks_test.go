// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/core/num"
	"npuemu/core/systolic"
)

// The rules of BLOCKS and SPARSE, and those that they change of GEMM and CONV. A row
// changes what fits the limits exactly.
func TestCheckBlocks(t *testing.T) {
	// 3 × 5 sums of 70 products: rows of 53 and 35 bytes, with 3 scales each.
	operands := Operands{A: systolic.E4M3, B: systolic.E4M3, TransposeB: true, AStride: 53, BStride: 35, AccStride: 20}
	blocks := Blocks{A: num.MXE2M3, B: num.MXE2M1, AScales: 4096 - 9, BScales: 4096 - 19, AScaleStride: 3, BScaleStride: 4}
	gemm := Gemm{M: 3, N: 5, K: 70, A: 4096 - 159, B: 4096 - 175, Acc: 2048 - 60}
	mx := Setup{Operands: operands, Blocks: blocks, Window: initialSetup.Window}
	// 3 × 5 sums of 8 products, 4 of which are there; indices of two groups.
	ints := Setup{
		Operands: Operands{AStride: 8, BStride: 5, AccStride: 20}, Window: initialSetup.Window,
		Sparse: Sparse{On: true, Indices: 4096 - 6, IndexStride: 3},
	}
	turned := edit(ints, func(s *Setup) {
		s.Operands.TransposeB, s.Operands.BStride, s.Sparse.IndexStride, s.Sparse.Indices = true, 4, 1, 4096-5
	})
	small := Gemm{M: 3, N: 5, K: 8, A: 4096 - 24, B: 4096 - 20, Acc: 2048 - 60}
	conv := Conv{InH: 1, InW: 3, OutH: 1, OutW: 3, Cin: 8, Cout: 5, A: 4096 - 24, B: 4096 - 20, Acc: 2048 - 60}
	for _, tt := range []struct {
		name  string
		setup Setup
		in    Instruction
		rule  Rule // 0: no violation
		info  uint64
	}{
		{"BLOCKS", mx, blocks, 0, 0},
		{"BLOCKS none", mx, Blocks{}, 0, 0},
		{"BLOCKS a_format", mx, edit(blocks, func(i *Blocks) { i.A = 7 }), BadOperand, 4},
		{"BLOCKS b_format", mx, edit(blocks, func(i *Blocks) { i.B = 255 }), BadOperand, 5},
		{"BLOCKS a_scales", mx, edit(blocks, func(i *Blocks) { i.A = 0 }), BadOperand, 8},
		{"BLOCKS b_scales", mx, edit(blocks, func(i *Blocks) { i.B = 0 }), BadOperand, 12},
		{"BLOCKS a_scale_stride", mx, edit(blocks, func(i *Blocks) { i.A, i.AScales = 0, 0 }), BadOperand, 16},
		{"BLOCKS b_scale_stride", mx, edit(blocks, func(i *Blocks) { i.B, i.BScales = 0, 0 }), BadOperand, 20},
		{"SPARSE", mx, ints.Sparse, 0, 0},
		{"SPARSE off", mx, Sparse{}, 0, 0},
		{"SPARSE indices", mx, Sparse{Indices: 1}, BadOperand, 8},
		{"SPARSE index_stride", mx, Sparse{IndexStride: 1}, BadOperand, 12},

		{"GEMM of blocks", mx, gemm, 0, 0},
		{"GEMM of blocks and fp32", edit(mx, func(s *Setup) {
			s.Operands.A, s.Operands.AStride = systolic.FP32, 280
			s.Blocks.A, s.Blocks.AScales, s.Blocks.AScaleStride = 0, 0, 0
		}), edit(gemm, func(i *Gemm) { i.A = 4096 - 840 }), 0, 0},
		{"a_type", edit(mx, func(s *Setup) { s.Operands.A = systolic.E5M2 }), gemm, BadSetup, 4},
		{"b_type", edit(mx, func(s *Setup) { s.Operands.B = systolic.E5M2 }), gemm, BadSetup, 5},
		{"integers", edit(mx, func(s *Setup) { s.Operands.A, s.Operands.B = 0, 0 }), gemm, BadSetup, 4},
		{"transpose_a", edit(mx, func(s *Setup) { s.Operands.TransposeA = true }), gemm, BadSetup, 1},
		{"transpose_b", edit(mx, func(s *Setup) { s.Operands.TransposeB = false }), gemm, BadSetup, 1},
		{"a_scale_stride", edit(mx, func(s *Setup) { s.Blocks.AScaleStride = 2 }), gemm, BadSetup, 96 + 16},
		{"b_scale_stride", edit(mx, func(s *Setup) { s.Blocks.BScaleStride = 2 }), gemm, BadSetup, 96 + 20},
		{"a_stride", edit(mx, func(s *Setup) { s.Operands.AStride = 52 }), gemm, BadSetup, 16},
		{"b_stride", edit(mx, func(s *Setup) { s.Operands.BStride = 34 }), gemm, BadSetup, 20},
		{"sparse blocks", edit(mx, func(s *Setup) { s.Sparse = ints.Sparse }), gemm, BadSetup, 128 + 1},
		{"blocks in a convolution", mx, conv, BadSetup, 96 + 4},
		{"blocks in a convolution before a_stride", edit(mx, func(s *Setup) { s.Operands.AStride = 0 }), conv, BadSetup, 96 + 4},
		{"SPARSE before transpose_a, a_stride, groups", edit(ints, func(s *Setup) {
			s.Operands.TransposeA, s.Operands.AStride, s.Window.Groups = true, 0, 3
		}), conv, BadSetup, 128 + 1},
		{"a bounds", mx, edit(gemm, func(i *Gemm) { i.A++ }), LocalBounds, 4096},
		{"a_scales bounds", edit(mx, func(s *Setup) { s.Blocks.AScales++ }), gemm, LocalBounds, 4096},
		{"b bounds", mx, edit(gemm, func(i *Gemm) { i.B++ }), LocalBounds, 4096},
		{"b_scales bounds", edit(mx, func(s *Setup) { s.Blocks.BScales++ }), gemm, LocalBounds, 4096},

		{"GEMM of sparse weights", ints, small, 0, 0},
		{"GEMM of transposed sparse weights", turned, small, 0, 0},
		{"CONV of sparse weights", ints, conv, 0, 0},
		{"k", ints, edit(small, func(i *Gemm) { i.K = 6 }), BadSetup, 128 + 1},
		{"depth", ints, edit(conv, func(i *Conv) { i.Cin = 7 }), BadSetup, 128 + 1},
		{"index_stride", edit(ints, func(s *Setup) { s.Sparse.IndexStride = 2 }), small, BadSetup, 128 + 12},
		{"index_stride of transposed weights", edit(turned, func(s *Setup) { s.Sparse.IndexStride = 0 }), small, BadSetup, 128 + 12},
		{"b_stride of transposed weights", edit(turned, func(s *Setup) { s.Operands.BStride = 3 }), small, BadSetup, 20},
		{"weights bounds", ints, edit(small, func(i *Gemm) { i.B++ }), LocalBounds, 4096},
		{"weights bounds of a convolution", ints, edit(conv, func(i *Conv) { i.B++ }), LocalBounds, 4096},
		{"indices bounds", edit(ints, func(s *Setup) { s.Sparse.Indices++ }), small, LocalBounds, 4096},
		{"indices bounds of transposed weights", edit(turned, func(s *Setup) { s.Sparse.Indices++ }), small, LocalBounds, 4096},
		{"indices bounds of a convolution", edit(ints, func(s *Setup) { s.Sparse.Indices++ }), conv, LocalBounds, 4096},
	} {
		l := testLimits
		l.Setup = tt.setup
		v := tt.in.Check(l)
		if tt.rule == 0 && v != nil || tt.rule != 0 && (v == nil || v.Rule != tt.rule || v.Info != tt.info) {
			t.Errorf("%s: Check = %+v, want %v with info %d", tt.name, v, tt.rule, tt.info)
		}
	}
}

// What BLOCKS and SPARSE add is among what a product touches.
func TestBlockAccesses(t *testing.T) {
	mx := Setup{
		Operands: Operands{A: systolic.E4M3, B: systolic.E4M3, TransposeB: true, AStride: 64, BStride: 64, AccStride: 8},
		Blocks:   Blocks{A: num.MXE4M3, B: num.MXE2M1, AScales: 0x100, BScales: 0x200, AScaleStride: 2, BScaleStride: 2},
	}
	sparse := Setup{Operands: Operands{AStride: 64, BStride: 2, AccStride: 8}, Sparse: Sparse{On: true, Indices: 0x100, IndexStride: 1}}
	for _, tt := range []struct {
		name  string
		setup Setup
		want  []uint64 // first addresses of what is read
	}{
		{"blocks", mx, []uint64{0, 0x100, 0x200, 0x1000}},
		{"sparse", sparse, []uint64{0, 0x1000, 0x100}},
	} {
		var s Setup
		for _, i := range []Instruction{tt.setup.Operands, tt.setup.Blocks, tt.setup.Sparse} {
			w := i.Encode()
			s.Follow(&w)
		}
		w := Gemm{M: 2, N: 2, K: 64, B: 0x1000}.Encode()
		var got []uint64
		for _, a := range Accesses(nil, &w, &s) {
			if !a.Write {
				got = append(got, a.Rows.Base)
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: reads (-want +got):\n%s", tt.name, diff)
		}
	}
}
