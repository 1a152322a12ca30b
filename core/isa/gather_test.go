// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"math/rand/v2"
	"testing"
)

// The rules of SHAPE, TRANSPOSE, GATHER and SCATTER. A row changes what fits the limits exactly.
func TestCheckGather(t *testing.T) {
	// 2 × 3 × 4 × 5 elements of 3 bytes, dense, and the other way round.
	shape := Shape{N: [4]uint16{2, 3, 4, 5}, OutStride: [4]uint32{3, 6, 18, 72}}
	transpose := Transpose{Size: 3, Out: 4096 - 360, XStride: [4]uint32{180, 60, 15, 3}}
	gather := Gather{N: 6, Stride: 8, X: 0, Indices: 4096 - 20, Out: 4096 - 20 - 38, M: 5, Rows: 100, TableStride: 7}
	scatter := Scatter{N: 6, Stride: 8, X: 4096 - 38, Indices: 4096 - 40 - 20, Out: 0, M: 5, Rows: 100, TableStride: 7}
	with := func(f func(*Shape)) Shape { return edit(shape, f) }
	for _, tt := range []struct {
		name  string
		shape Shape
		in    Instruction
		rule  Rule // 0: no violation
		info  uint64
	}{
		{"SHAPE", shape, shape, 0, 0},
		{"SHAPE n0", shape, with(func(i *Shape) { i.N[0] = 0 }), BadOperand, 4},
		{"SHAPE n1", shape, with(func(i *Shape) { i.N[1] = 0 }), BadOperand, 6},
		{"SHAPE n2", shape, with(func(i *Shape) { i.N[2] = 0 }), BadOperand, 8},
		{"SHAPE n3", shape, with(func(i *Shape) { i.N[3] = 0 }), BadOperand, 10},

		{"TRANSPOSE", shape, transpose, 0, 0},
		{"TRANSPOSE of one element again", shape, edit(transpose, func(i *Transpose) { i.XStride = [4]uint32{} }), 0, 0},
		{"TRANSPOSE size", shape, edit(transpose, func(i *Transpose) { i.Size = 0 }), BadOperand, 4},
		{"TRANSPOSE x bounds", shape, edit(transpose, func(i *Transpose) { i.X = 4096 - 359 }), LocalBounds, 4096},
		{"TRANSPOSE x bounds at the last element", shape, edit(transpose, func(i *Transpose) { i.Out, i.XStride[0] = 0, 4096-177 }), LocalBounds, 4096},
		{"TRANSPOSE out bounds", shape, edit(transpose, func(i *Transpose) { i.Out++ }), LocalBounds, 4096},
		{"TRANSPOSE overlap", shape, edit(transpose, func(i *Transpose) { i.Out = 359 }), Overlap, 359},
		{"TRANSPOSE beside", shape, edit(transpose, func(i *Transpose) { i.Out = 360 }), 0, 0},
		{"TRANSPOSE everything", with(func(i *Shape) { i.N = [4]uint16{65535, 65535, 65535, 65535} }), edit(transpose, func(i *Transpose) {
			i.XStride = [4]uint32{1<<32 - 1, 1<<32 - 1, 1<<32 - 1, 1<<32 - 1}
		}), LocalBounds, 1<<32 - 1},

		{"GATHER", shape, gather, 0, 0},
		{"GATHER a row again", shape, edit(gather, func(i *Gather) { i.TableStride = 0 }), 0, 0},
		{"GATHER n", shape, edit(gather, func(i *Gather) { i.N = 0 }), BadOperand, 4},
		{"GATHER out_stride", shape, edit(gather, func(i *Gather) { i.Stride = 5 }), BadOperand, 6},
		{"GATHER indices", shape, edit(gather, func(i *Gather) { i.Indices -= 2 }), BadOperand, 12},
		{"GATHER m", shape, edit(gather, func(i *Gather) { i.M = 0 }), BadOperand, 20},
		{"GATHER rows", shape, edit(gather, func(i *Gather) { i.Rows = 0 }), BadOperand, 24},
		{"GATHER too many rows", shape, edit(gather, func(i *Gather) { i.Rows, i.TableStride = 1<<31+1, 0 }), BadOperand, 24},
		{"GATHER x bounds", shape, edit(gather, func(i *Gather) { i.X = 4096 - 698 }), LocalBounds, 4096},
		{"GATHER indices bounds", shape, edit(gather, func(i *Gather) { i.Indices += 4 }), LocalBounds, 4096},
		{"GATHER out bounds", shape, edit(gather, func(i *Gather) { i.Out = 4096 - 37 }), LocalBounds, 4096},
		{"GATHER into the table", shape, edit(gather, func(i *Gather) { i.Out = 698 }), Overlap, 698},
		{"GATHER beside the table", shape, edit(gather, func(i *Gather) { i.Out = 699 }), 0, 0},
		{"GATHER into the indices", shape, edit(gather, func(i *Gather) { i.Out++ }), Overlap, 4096 - 20},

		{"SCATTER", shape, scatter, 0, 0},
		{"SCATTER out_stride", shape, edit(scatter, func(i *Scatter) { i.TableStride = 5 }), BadOperand, 28},
		{"SCATTER a row again", shape, edit(scatter, func(i *Scatter) { i.Stride = 0 }), 0, 0},
		{"SCATTER x bounds", shape, edit(scatter, func(i *Scatter) { i.X++ }), LocalBounds, 4096},
		{"SCATTER indices bounds", shape, edit(scatter, func(i *Scatter) { i.Indices = 4096 - 16 }), LocalBounds, 4096},
		{"SCATTER out bounds", shape, edit(scatter, func(i *Scatter) { i.Out = 4096 - 698 }), LocalBounds, 4096},
		{"SCATTER into the rows", shape, edit(scatter, func(i *Scatter) { i.X = 698 }), Overlap, 698},
		{"SCATTER into the indices", shape, edit(scatter, func(i *Scatter) { i.Indices = 696 }), Overlap, 696},
		{"SCATTER into the indices, then the rows", shape, edit(scatter, func(i *Scatter) { i.X, i.Indices = 698, 696 }), Overlap, 696},
	} {
		l := testLimits
		l.Setup.Shape = tt.shape
		v := tt.in.Check(l)
		if tt.rule == 0 && v != nil || tt.rule != 0 && (v == nil || v.Rule != tt.rule || v.Info != tt.info) {
			t.Errorf("%s: Check = %+v, want %v with info %d", tt.name, v, tt.rule, tt.info)
		}
	}
}

// Outside of a Grid against looking at every element.
func TestGridOutside(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	outside := 0
	for range 20000 {
		var g Grid
		g.Base, g.Bytes = rng.Uint64N(30), 1+rng.Uint64N(5)
		for d := range Dims {
			g.N[d], g.Stride[d] = uint16(1+rng.IntN(4)), uint32(rng.IntN(12))
		}
		size := rng.Uint64N(120)
		want, bad := uint64(0), false
		for k := range int(g.N[0]) * int(g.N[1]) * int(g.N[2]) * int(g.N[3]) {
			at := g.Base
			for d := Dims - 1; d >= 0; d-- {
				at += uint64(k%int(g.N[d])) * uint64(g.Stride[d])
				k /= int(g.N[d])
			}
			if at+g.Bytes > size {
				want, bad = max(at, size), true
				break
			}
		}
		if bad {
			outside++
		}
		if got, is := g.Outside(size); is != bad || is && got != want {
			t.Fatalf("%+v of %d bytes: %d, %v; want %d, %v", g, size, got, is, want, bad)
		}
	}
	if outside < 1000 || outside > 19000 {
		t.Errorf("%d of 20000 are outside", outside)
	}
}
