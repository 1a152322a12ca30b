// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"testing"

	"npuemu/core/systolic"
)

// The rules of ELEMENT, TABLE, REDUCE and NORM. A row changes what fits the limits exactly.
func TestCheckVector(t *testing.T) {
	// 3 rows of 5.
	ints := Element{
		Op: ElemAdd, Type: systolic.Int32, OutType: systolic.Int16, M: 3, N: 5,
		X: 4096 - (2*24 + 20), Y: 4096 - (2*28 + 20), Out: 4096 - (2*12 + 10), XStride: 24, YStride: 28, OutStride: 12,
	}
	acc := edit(ints, func(i *Element) {
		i.XAcc, i.YAcc, i.OutAcc, i.Type, i.OutType = true, true, true, systolic.FP32, systolic.FP32
		i.X, i.Y, i.Out, i.OutStride = 2048-(2*24+20), 2048-(2*28+20), 2048-(2*20+20), 20
	})
	neg := edit(ints, func(i *Element) { i.Op, i.Y, i.YStride = ElemNeg, 0, 0 })
	table := Table{M: 3, N: 5, X: 4096 - (2*7 + 5), Table: 4096 - 256, Out: 4096 - (2*5 + 5), XStride: 7, OutStride: 5}
	reduce := Reduce{Op: ReduceSum, Type: systolic.Int32, OutType: systolic.Int16, M: 3, N: 5, X: 4096 - (2*24 + 20), Out: 4096 - (2*6 + 2), XStride: 24, OutStride: 6}
	norm := Norm{
		Op: LayerNorm, Type: systolic.FP32, OutType: systolic.BF16, M: 3, N: 5,
		X: 4096 - (2*24 + 20), Params: 4096 - 4*11, Out: 4096 - (2*12 + 10), XStride: 24, OutStride: 12,
	}
	for _, tt := range []struct {
		name string
		in   Instruction
		rule Rule // 0: no violation
		info uint64
	}{
		{"ELEMENT", ints, 0, 0},
		{"ELEMENT in the accumulators", acc, 0, 0},
		{"ELEMENT of one operand", neg, 0, 0},
		{"ELEMENT one y", edit(ints, func(i *Element) { i.One, i.Y, i.YStride = true, 4092, 0 }), 0, 0},
		{"ELEMENT rows of x again", edit(ints, func(i *Element) { i.XStride = 0 }), 0, 0},
		{"ELEMENT y in the accumulators of one operand", edit(neg, func(i *Element) { i.YAcc = true }), BadOperand, 1},
		{"ELEMENT one of one operand", edit(neg, func(i *Element) { i.One = true }), BadOperand, 1},
		{"ELEMENT op unknown", edit(ints, func(i *Element) { i.Op = 14 }), BadOperand, 4},
		{"ELEMENT op past the last", edit(ints, func(i *Element) { i.Op, i.Y, i.YStride = 47, 0, 0 }), BadOperand, 4},
		{"ELEMENT op of floats", edit(ints, func(i *Element) { i.Op = ElemDiv }), BadOperand, 4},
		{"ELEMENT op of integers", edit(acc, func(i *Element) { i.Op = ElemShl }), BadOperand, 4},
		{"ELEMENT type int4", edit(ints, func(i *Element) { i.Type = systolic.Int4 }), BadOperand, 5},
		{"ELEMENT type unknown", edit(ints, func(i *Element) { i.Type = 7 }), BadOperand, 5},
		{"ELEMENT x narrow in the accumulators", edit(acc, func(i *Element) { i.Type = systolic.BF16 }), BadOperand, 5},
		{"ELEMENT out_type int4", edit(ints, func(i *Element) { i.OutType = systolic.Int4 }), BadOperand, 6},
		{"ELEMENT out narrow in the accumulators", edit(acc, func(i *Element) { i.OutType = systolic.Int8 }), BadOperand, 6},
		{"ELEMENT x alignment", edit(ints, func(i *Element) { i.X -= 2 }), BadOperand, 8},
		{"ELEMENT y alignment", edit(ints, func(i *Element) { i.Y -= 2 }), BadOperand, 12},
		{"ELEMENT y of one operand", edit(neg, func(i *Element) { i.Y = 4 }), BadOperand, 12},
		{"ELEMENT out alignment", edit(ints, func(i *Element) { i.Out-- }), BadOperand, 16},
		{"ELEMENT m", edit(ints, func(i *Element) { i.M = 0 }), BadOperand, 20},
		{"ELEMENT n", edit(ints, func(i *Element) { i.N = 0 }), BadOperand, 24},
		{"ELEMENT x_stride", edit(ints, func(i *Element) { i.XStride = 22 }), BadOperand, 26},
		{"ELEMENT y_stride", edit(ints, func(i *Element) { i.YStride = 30 }), BadOperand, 28},
		{"ELEMENT y_stride of one y", edit(ints, func(i *Element) { i.One = true }), BadOperand, 28},
		{"ELEMENT out_stride odd", edit(ints, func(i *Element) { i.OutStride = 13 }), BadOperand, 30},
		{"ELEMENT out_stride short", edit(ints, func(i *Element) { i.OutStride = 8 }), BadOperand, 30},
		{"ELEMENT x bounds", edit(ints, func(i *Element) { i.X += 4 }), LocalBounds, 4096},
		{"ELEMENT y bounds", edit(ints, func(i *Element) { i.Y += 4 }), LocalBounds, 4096},
		{"ELEMENT out bounds", edit(ints, func(i *Element) { i.Out += 2 }), LocalBounds, 4096},
		{"ELEMENT one y bounds", edit(ints, func(i *Element) { i.One, i.Y, i.YStride = true, 4096, 0 }), LocalBounds, 4096},
		{"ELEMENT x accumulator bounds", edit(acc, func(i *Element) { i.X += 4 }), LocalBounds, 2048},
		{"ELEMENT y accumulator bounds", edit(acc, func(i *Element) { i.Y += 4 }), LocalBounds, 2048},
		{"ELEMENT out accumulator bounds", edit(acc, func(i *Element) { i.Out += 4 }), LocalBounds, 2048},
		{"ELEMENT everything", Element{Op: ElemAdd, Type: systolic.Int8, OutType: systolic.Int8, M: 1<<32 - 1, N: 65535, XStride: 65535, OutStride: 65535}, LocalBounds, 4096},

		{"REDUCE", reduce, 0, 0},
		{"REDUCE op", edit(reduce, func(i *Reduce) { i.Op = 6 }), BadOperand, 4},
		{"REDUCE argmax", edit(reduce, func(i *Reduce) { i.Op = ReduceArgMax }), 0, 0},
		{"REDUCE mean of integers", edit(reduce, func(i *Reduce) { i.Op = ReduceMean }), BadOperand, 4},
		{"REDUCE type", edit(reduce, func(i *Reduce) { i.Type = systolic.Int4 }), BadOperand, 5},
		{"REDUCE narrow in the accumulators", edit(reduce, func(i *Reduce) { i.XAcc, i.Type = true, systolic.Int8 }), BadOperand, 5},
		{"REDUCE out_type", edit(reduce, func(i *Reduce) { i.OutType = 7 }), BadOperand, 6},
		{"REDUCE narrow into the accumulators", edit(reduce, func(i *Reduce) { i.OutAcc = true }), BadOperand, 6},
		{"REDUCE x alignment", edit(reduce, func(i *Reduce) { i.X -= 2 }), BadOperand, 8},
		{"REDUCE out alignment", edit(reduce, func(i *Reduce) { i.Out-- }), BadOperand, 16},
		{"REDUCE m", edit(reduce, func(i *Reduce) { i.M = 0 }), BadOperand, 20},
		{"REDUCE n", edit(reduce, func(i *Reduce) { i.N = 0 }), BadOperand, 24},
		{"REDUCE x_stride", edit(reduce, func(i *Reduce) { i.XStride = 22 }), BadOperand, 26},
		{"REDUCE out_stride odd", edit(reduce, func(i *Reduce) { i.OutStride = 3 }), BadOperand, 30},
		{"REDUCE out_stride short", edit(reduce, func(i *Reduce) { i.OutStride = 0 }), BadOperand, 30},
		{"REDUCE x bounds", edit(reduce, func(i *Reduce) { i.X += 4 }), LocalBounds, 4096},
		{"REDUCE out bounds", edit(reduce, func(i *Reduce) { i.Out += 2 }), LocalBounds, 4096},

		{"NORM", norm, 0, 0},
		{"NORM softmax", edit(norm, func(i *Norm) { i.Op, i.Params = Softmax, 0 }), 0, 0},
		{"NORM rms", edit(norm, func(i *Norm) { i.Op, i.Params = RMSNorm, 4096-4*6 }), 0, 0},
		{"NORM op", edit(norm, func(i *Norm) { i.Op = 3 }), BadOperand, 4},
		{"NORM type", edit(norm, func(i *Norm) { i.Type = systolic.Int32 }), BadOperand, 5},
		{"NORM out_type", edit(norm, func(i *Norm) { i.OutType = systolic.Int8 }), BadOperand, 6},
		{"NORM narrow into the accumulators", edit(norm, func(i *Norm) { i.OutAcc = true }), BadOperand, 6},
		{"NORM x alignment", edit(norm, func(i *Norm) { i.X -= 2 }), BadOperand, 8},
		{"NORM params of softmax", edit(norm, func(i *Norm) { i.Op = Softmax }), BadOperand, 12},
		{"NORM params alignment", edit(norm, func(i *Norm) { i.Params -= 2 }), BadOperand, 12},
		{"NORM m", edit(norm, func(i *Norm) { i.M = 0 }), BadOperand, 20},
		{"NORM n", edit(norm, func(i *Norm) { i.N = 0 }), BadOperand, 24},
		{"NORM out_stride short", edit(norm, func(i *Norm) { i.OutStride = 8 }), BadOperand, 30},
		{"NORM x bounds", edit(norm, func(i *Norm) { i.X += 4 }), LocalBounds, 4096},
		{"NORM params bounds", edit(norm, func(i *Norm) { i.Params += 4 }), LocalBounds, 4096},
		{"NORM params of rms bounds", edit(norm, func(i *Norm) { i.Op, i.Params = RMSNorm, 4096-4*5 }), LocalBounds, 4096},
		{"NORM out bounds", edit(norm, func(i *Norm) { i.Out += 2 }), LocalBounds, 4096},

		{"TABLE", table, 0, 0},
		{"TABLE m", edit(table, func(i *Table) { i.M = 0 }), BadOperand, 20},
		{"TABLE n", edit(table, func(i *Table) { i.N = 0 }), BadOperand, 24},
		{"TABLE out_stride", edit(table, func(i *Table) { i.OutStride = 4 }), BadOperand, 28},
		{"TABLE x bounds", edit(table, func(i *Table) { i.X++ }), LocalBounds, 4096},
		{"TABLE table bounds", edit(table, func(i *Table) { i.Table++ }), LocalBounds, 4096},
		{"TABLE out bounds", edit(table, func(i *Table) { i.Out++ }), LocalBounds, 4096},
	} {
		v := tt.in.Check(testLimits)
		if tt.rule == 0 && v != nil || tt.rule != 0 && (v == nil || v.Rule != tt.rule || v.Info != tt.info) {
			t.Errorf("%s: Check = %+v, want %v with info %d", tt.name, v, tt.rule, tt.info)
		}
	}
}
