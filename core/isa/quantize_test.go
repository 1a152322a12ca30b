// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"testing"

	"npuemu/core/systolic"
)

// The rules of QUANTIZE. A row changes what fits the limits exactly.
func TestCheckQuantize(t *testing.T) {
	// 3 rows of 5 fp32 become int4.
	quantize := Quantize{
		PerChannel: true, Op: QuantizeReal, Type: systolic.FP32, OutType: systolic.Int4, X: 4096 - 68, Params: 4096 - 40, Out: 4096 - 13,
		M: 3, N: 5, XStride: 24, OutStride: 5,
	}
	dequantize := edit(quantize, func(i *Quantize) {
		i.Op, i.Type, i.OutType, i.OutStride, i.Out = Dequantize, systolic.Uint8, systolic.BF16, 10, 0
	})
	convert := edit(quantize, func(i *Quantize) { i.Op, i.PerChannel, i.Params = ConvertNear, false, 0 })
	requant := edit(quantize, func(i *Quantize) { i.Op, i.XAcc, i.X, i.Type = RequantOne, true, 2048-68, systolic.Int32 })
	for _, tt := range []struct {
		name string
		in   Quantize
		rule Rule // 0: no violation
		info uint64
	}{
		{"quantize", quantize, 0, 0},
		{"dequantize", dequantize, 0, 0},
		{"convert", convert, 0, 0},
		{"convert, wrapping", edit(convert, func(i *Quantize) { i.NoSaturate = true }), 0, 0},
		{"truncate", edit(convert, func(i *Quantize) { i.Op = ConvertTrunc }), 0, 0},
		{"requantize", requant, 0, 0},
		{"one entry", edit(quantize, func(i *Quantize) { i.PerChannel, i.Params = false, 4096-8 }), 0, 0},
		{"integers are quantized, too", edit(quantize, func(i *Quantize) { i.Type = systolic.Int32 }), 0, 0},
		{"channels of a conversion", edit(convert, func(i *Quantize) { i.PerChannel = true }), BadOperand, 1},
		{"wrapping", edit(quantize, func(i *Quantize) { i.NoSaturate = true }), BadOperand, 1},
		{"op", edit(quantize, func(i *Quantize) { i.Op = 7 }), BadOperand, 4},
		{"type", edit(quantize, func(i *Quantize) { i.Type = 7 }), BadOperand, 5},
		{"narrow in the accumulators", edit(quantize, func(i *Quantize) { i.XAcc, i.Type = true, systolic.BF16 }), BadOperand, 5},
		{"dequantize floats", edit(dequantize, func(i *Quantize) { i.Type = systolic.FP32 }), BadOperand, 5},
		{"truncate integers", edit(convert, func(i *Quantize) { i.Op, i.Type = ConvertTrunc, systolic.Int32 }), BadOperand, 5},
		{"requantize floats", edit(requant, func(i *Quantize) { i.Type = systolic.FP32 }), BadOperand, 5},
		{"out_type", edit(quantize, func(i *Quantize) { i.OutType = 13 }), BadOperand, 6},
		{"quantize to floats", edit(quantize, func(i *Quantize) { i.OutType = systolic.E4M3 }), BadOperand, 6},
		{"dequantize to integers", edit(dequantize, func(i *Quantize) { i.OutType = systolic.Int16 }), BadOperand, 6},
		{"int4 into the accumulators", edit(quantize, func(i *Quantize) { i.OutAcc = true }), BadOperand, 6},
		{"x alignment", edit(quantize, func(i *Quantize) { i.X -= 2 }), BadOperand, 8},
		{"params alignment", edit(quantize, func(i *Quantize) { i.Params -= 2 }), BadOperand, 12},
		{"params of a conversion", edit(convert, func(i *Quantize) { i.Params = 4 }), BadOperand, 12},
		{"out alignment", edit(dequantize, func(i *Quantize) { i.Out++ }), BadOperand, 16},
		{"m", edit(quantize, func(i *Quantize) { i.M = 0 }), BadOperand, 20},
		{"n", edit(quantize, func(i *Quantize) { i.N = 0 }), BadOperand, 24},
		{"x_stride", edit(quantize, func(i *Quantize) { i.XStride = 22 }), BadOperand, 26},
		{"out_stride", edit(quantize, func(i *Quantize) { i.OutStride = 2 }), BadOperand, 30},
		{"x bounds", edit(quantize, func(i *Quantize) { i.X += 4 }), LocalBounds, 4096},
		{"params bounds", edit(quantize, func(i *Quantize) { i.Params += 4 }), LocalBounds, 4096},
		{"out bounds", edit(quantize, func(i *Quantize) { i.Out++ }), LocalBounds, 4096},
		{"accumulator bounds", edit(requant, func(i *Quantize) { i.X += 4 }), LocalBounds, 2048},
	} {
		v := tt.in.Check(testLimits)
		if tt.rule == 0 && v != nil || tt.rule != 0 && (v == nil || v.Rule != tt.rule || v.Info != tt.info) {
			t.Errorf("%s: Check = %+v, want %v with info %d", tt.name, v, tt.rule, tt.info)
		}
	}
}
