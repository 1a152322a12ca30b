// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"npuemu/core"
	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// Packed weights are kept, but not over a change of the bytes that they are of, whoever writes them.
func TestWeightsThatChange(t *testing.T) {
	const b = 1024 // weights: 32 rows of 24
	gemm := isa.Gemm{M: 8, N: 24, K: 32, A: 0, B: b}
	image := isa.Image{InH: 2, InW: 8, OutH: 1, OutW: 4, XPixel: 4, XLine: 32, OutPixel: 4, OutLine: 16}
	pool := isa.Pool{N: 4, X: 2048, Out: b + 40, KernelH: 2, KernelW: 2, StepY: 2, StepX: 2, DilationY: 1, DilationX: 1}
	with := func(writer []isa.Instruction, after ...isa.Instruction) []isa.Instruction {
		return append(append([]isa.Instruction{gemm}, writer...), after...)
	}
	used := newCore(t, newConfig) // nothing is kept over a program's end either
	for _, writer := range [][]isa.Instruction{
		{isa.Load{Binding: 1, Local: b + 767, NX: 1, NY: 1, NZ: 1}},
		{isa.Load{Binding: 1, Local: b - 1, NX: 2, NY: 1, NZ: 1}},
		{isa.Fill{Local: b + 100, NX: 3, NY: 4, Stride: 24, Value: 0x55}},
		{isa.Requant{N: 8, AccStride: 96, MX: 4, MY: 2, Out: b + 30, OutStrideX: 9, OutStrideY: 50, Params: 4096, Lo: -128, Hi: 127}},
		{isa.Requant{N: 24, AccStride: 96, MX: 8, MY: 1, Out: b + 30, OutStrideX: 24, Params: 4096, Lo: -128, Hi: 127}},
		{isa.Element{Op: isa.ElemAdd, X: 2048, Y: 3072, Out: b + 500, N: 20, M: 2, XStride: 20, YStride: 20, OutStride: 20, OutType: systolic.Int8}},
		{isa.Table{X: 2048, Table: 3072, Out: b + 64, N: 20, M: 2, XStride: 20, OutStride: 20}},
		{image, pool},
		{image, edit(pool, func(i *isa.Pool) { i.Op = isa.PoolAverage })},
		{image, isa.Resize{N: 4, X: 2048, Out: b + 60}},
		{isa.Shape{N: [4]uint16{1, 1, 3, 8}, OutStride: [4]uint32{0, 0, 9, 1}}, isa.Transpose{Size: 1, X: 2048, Out: b + 100, XStride: [4]uint32{0, 0, 1, 3}}},
		{isa.Gather{N: 16, Stride: 16, X: 2048, Indices: 4112, Out: b + 200, M: 2, Rows: 8, TableStride: 16}},
		{isa.Scatter{N: 16, Stride: 16, X: 2048, Indices: 4112, Out: b + 200, M: 2, Rows: 4, TableStride: 16}},
		{isa.Quantize{Op: isa.ConvertNear, Type: systolic.Int8, OutType: systolic.Int8, X: 2048, Out: b + 10, M: 2, N: 20, XStride: 20, OutStride: 20}},
		{isa.Quantize{Op: isa.ConvertNear, Type: systolic.Int8, OutType: systolic.Int4, X: 2048, Out: b + 10, M: 2, N: 20, XStride: 20, OutStride: 10}},
		{isa.Reduce{Type: systolic.Int8, OutType: systolic.Int8, X: 2048, Out: b + 77, M: 8, N: 16, XStride: 16, OutStride: 1}},
		{isa.Norm{Op: isa.Softmax, Type: systolic.FP32, OutType: systolic.BF16, X: 2048, Out: b + 8, M: 1, N: 8}},
	} {
		t.Run(fmt.Sprintf("%T", writer[len(writer)-1]), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(9, 1))
			in := randomBytes(rng, newConfig.SpadSize)
			copy(in[4096:], []byte{0, 0, 0, 0x40, 40, 0, 0, 0})
			clear(in[4112:4120]) // indices
			run := func(c *core.Core, spad []byte, text ...isa.Instruction) []byte {
				text = append([]isa.Instruction{isa.Load{NX: uint32(newConfig.SpadSize), NY: 1, NZ: 1}, isa.Operands{AStride: 32, BStride: 24, AccStride: 96}}, text...)
				p := newProgram(3, isa.Text(text...))
				tokensBetween(p.Text)
				p.Text = append(p.Text, isa.Text(isa.Halt{})...)
				m := &memory{t: t, bufs: [][]byte{spad, {0x77, 0x66}, make([]byte, newConfig.SpadSize)}}
				if _, err := c.Run(t.Context(), p.Image(), m.bind(), m); err != nil {
					t.Fatal(err)
				}
				return m.bufs[2]
			}
			result := isa.Store{Binding: 2, Acc: true, NX: 8 * 96, NY: 1, NZ: 1}
			got := run(used, in, with(writer, gemm, result)...) // REQUANT is of the first
			changed := run(newCore(t, newConfig), in, with(writer, isa.Store{Binding: 2, NX: uint32(newConfig.SpadSize), NY: 1, NZ: 1})...)
			if bytes.Equal(in[b:b+768], changed[b:b+768]) {
				t.Fatal("the weights did not change")
			}
			if !bytes.Equal(got, run(newCore(t, newConfig), changed, gemm, result)) {
				t.Error("the product is not that of the weights after the change")
			}
		})
	}
}
