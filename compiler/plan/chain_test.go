// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"npuemu/compiler/ir"
	"npuemu/compiler/plan"
)

// What is computed together is what each operation by itself computes, to the bit, on a large core and on one in which few things fit;
// inside are the tensors that have no memory on the large one.
func TestChains(t *testing.T) {
	const conv = `strides=[1, 1], pads=[1, 1, 1, 1], groups=1, rounding="two", multipliers=[1518500250], shifts=[40], lo=-128, hi=127, zero_x=3, zero_y=-2, chain=1`
	for _, tt := range []struct{ name, inside, text string }{
		{"hard swish in parts", "a b c", `input %x: float32[40, 333]; const %three: float32[] = "AABAQA=="; const %sixth: float32[1] = "q6oqPg=="
			node "a" npu.element(%x, %three) -> (%a: float32[40, 333]) {op="add", chain=1}
			node "b" npu.clip(%a) -> (%b: float32[40, 333]) {clip=floats[0, 6], chain=1}
			node "c" npu.element(%b, %sixth) -> (%c: float32[40, 333]) {op="mul", chain=1}
			node "d" npu.element(%x, %c) -> (%d: float32[40, 333]) {op="mul", chain=1}
			output %d`},
		{"a value that others need", "b", `input %x: float32[7, 100]; input %y: float32[7, 100]
			node "a" npu.element(%x, %y) -> (%a: float32[7, 100]) {op="add", chain=4}
			node "b" npu.element(%a) -> (%b: float32[7, 100]) {op="erf", chain=4}
			node "c" npu.element(%b, %a) -> (%c: float32[7, 100]) {op="mul", chain=4}
			node "d" npu.softmax(%c) -> (%d: float32[7, 100]) {}
			node "e" npu.element(%a, %d) -> (%e: float32[7, 100]) {op="sub"}
			output %e; output %c`},
		{"rows", "a b c", `input %x: float16[60, 77]; input %y: float16[77]; const %g: float32[77] = random; const %beta: float32[77] = random
			node "a" npu.element(%x, %y) -> (%a: float16[60, 77]) {op="add", chain=1}
			node "b" npu.layernorm(%a, %g, %beta) -> (%b: float32[60, 77]) {epsilon=float 1e-5, chain=1}
			node "c" npu.softmax(%b) -> (%c: float32[60, 77]) {chain=1}
			node "d" npu.quantize(%c) -> (%d: uint8[60, 77]) {scales=floats[0.01], zeros=[0], lo=0, hi=255, chain=1}
			output %d`},
		{"a sum of quantized tensors", "b c d", `input %x: uint8[3, 50, 20]; input %y: int8[50, 20]
			node "a" npu.dequantize(%x) -> (%a: float32[3, 50, 20]) {scales=floats[0.02], zeros=[100], chain=2}
			node "y" npu.dequantize(%y) -> (%y1: float32[50, 20]) {scales=floats[0.03], zeros=[-3]}
			node "b" npu.element(%a, %y1) -> (%b: float32[3, 50, 20]) {op="add", chain=3}
			node "c" npu.element(%b) -> (%c: float32[3, 50, 20]) {op="relu", chain=3}
			node "d" npu.quantize(%c) -> (%d: uint8[3, 50, 20]) {scales=floats[0.05], zeros=[7], lo=0, hi=255, chain=3}
			const %t: uint8[256] = random
			node "e" npu.table(%d, %t) -> (%e: uint8[3, 50, 20]) {chain=3}
			output %e`},
		{"integers", "a b", `input %x: int8[90, 70]; input %y: int8[1, 70]
			node "a" npu.qadd(%x, %y) -> (%a: int8[90, 70]) {rounding="two", left_shift=20, zeros=[3, -5, 7], multipliers=[1073741824, 1518500250, 1200000000], shifts=[31, 32, 49], lo=-128, hi=127, chain=9}
			node "b" npu.qmul(%a, %x) -> (%b: int8[90, 70]) {rounding="two", zeros=[3, -5, 7], multipliers=[1073741824], shifts=[37], lo=-128, hi=127, chain=9}
			node "c" npu.requantize(%b) -> (%c: uint8[90, 70]) {rounding="fp32", scales=floats[` + list(70, func(i int) any { return 0.5 + float64(i) }) + `], zero_y=128, lo=3, hi=250, chain=9}
			output %c`},
		{"convolution and a residual sum", "c a b d", `input %x: int8[2, 9, 11, 16]; const %w: int8[24, 3, 3, 16] = random; const %bias: int32[24] = random; input %r: int8[2, 9, 11, 24]
			node "c" npu.conv(%x, %w, %bias) -> (%c: int8[2, 9, 11, 24]) {` + conv + `}
			node "a" npu.dequantize(%c) -> (%a: float32[2, 9, 11, 24]) {scales=floats[0.02], zeros=[1], chain=1}
			node "b" npu.dequantize(%r) -> (%b: float32[2, 9, 11, 24]) {scales=floats[0.05], zeros=[-3], chain=1}
			node "d" npu.element(%a, %b) -> (%d: float32[2, 9, 11, 24]) {op="add", chain=1}
			node "e" npu.quantize(%d) -> (%e: int8[2, 9, 11, 24]) {scales=floats[0.05], zeros=[7], lo=-128, hi=127, chain=1}
			output %e`},
		{"convolution to uint8 and a table", "c", `input %x: uint8[1, 9, 9, 12]; const %w: uint8[18, 3, 3, 12] = random; const %t: int8[256] = random
			node "c" npu.conv(%x, %w) -> (%c: uint8[1, 9, 9, 18]) {strides=[1, 1], pads=[1, 1, 1, 1], groups=1, rounding="fp32", zero_y=130, lo=0, hi=255, scales=floats[0.0004], zero_x=100, chain=1}
			node "t" npu.table(%c, %t) -> (%y: int8[1, 9, 9, 18]) {chain=1}
			output %y`},
		{"depthwise", "c", `input %x: int8[1, 30, 30, 40]; const %w: int8[40, 3, 3, 1] = random; input %r: int32[40]
			node "c" npu.conv(%x, %w) -> (%c: int32[1, 30, 30, 40]) {strides=[1, 1], pads=[1, 1, 1, 1], groups=40, rounding="none", chain=1}
			node "t" npu.element(%c, %r) -> (%y: int32[1, 30, 30, 40]) {op="sub", chain=1}
			output %y`},
		{"product in the accumulators", "c a", `input %x: float32[1, 67, 300]; input %w: float32[1, 300, 40]; input %r: float32[1, 67, 40]; const %g: float32[40] = random
			node "c" npu.gemm(%x, %w) -> (%c: float32[1, 67, 40]) {rounding="none", act="gelu", chain=1}
			node "a" npu.element(%r, %c) -> (%a: float32[1, 67, 40]) {op="sub", chain=1}
			node "n" npu.rmsnorm(%a, %g) -> (%y: bfloat16[1, 67, 40]) {epsilon=float 1e-6, chain=1}
			output %y`},
		{"batches, a mask and rows", "c a b", `input %x: float32[4, 19, 17]; input %w: float32[4, 19, 17]; input %m: float32[19, 19]
			node "c" npu.gemm(%x, %w) -> (%c: float32[4, 19, 19]) {rounding="none", trans_b=1, chain=1}
			const %s: float32[] = "AACAPg=="
			node "a" npu.element(%c, %s) -> (%a: float32[4, 19, 19]) {op="mul", chain=1}
			node "b" npu.element(%a, %m) -> (%b: float32[4, 19, 19]) {op="add", chain=1}
			node "s" npu.softmax(%b) -> (%y: float32[4, 19, 19]) {chain=1}
			output %y`},
		{"a prime of rows", "g", `input %a: int8[1, 65539, 3]; input %b: int8[1, 5, 3]; input %r: int8[1, 65539, 5]
			node "g" npu.gemm(%a, %b) -> (%g: int8[1, 65539, 5]) {rounding="one", multipliers=[1518500250], shifts=[38], lo=-100, hi=100, trans_b=1, chain=1}
			node "m" npu.element(%g, %r) -> (%y: int8[1, 65539, 5]) {op="max", chain=1}
			output %y`},
		// What cannot be computed together is not.
		{"a product's result that others need", "", `input %x: float32[1, 6, 30]; input %w: float32[1, 30, 4]
			node "c" npu.gemm(%x, %w) -> (%c: float32[1, 6, 4]) {rounding="none", chain=1}
			node "a" npu.element(%c) -> (%a: float32[1, 6, 4]) {op="exp", chain=1}
			output %a; output %c`},
		{"a mask that is none of the product's rows", "a", `input %x: float32[1, 6, 30]; input %w: float32[1, 30, 4]; input %m: float32[6, 1]
			node "c" npu.gemm(%x, %w) -> (%c: float32[1, 6, 4]) {rounding="none", chain=1}
			node "a" npu.element(%c, %m) -> (%a: float32[1, 6, 4]) {op="add", chain=1}
			node "b" npu.element(%a) -> (%b: float32[1, 6, 4]) {op="exp", chain=1}
			output %b`},
		{"shapes that differ", "", `input %x: float32[6, 1]; input %m: float32[6, 7]
			node "a" npu.element(%x) -> (%a: float32[6, 1]) {op="exp", chain=1}
			node "b" npu.element(%a, %m) -> (%b: float32[6, 7]) {op="add", chain=1}
			output %b`},
		{"64 bits", "", `input %c: bool[9]; input %x: int64[9]; input %y: int64[9]
			node "a" npu.select(%c, %x, %y) -> (%a: int64[9]) {chain=1}
			node "b" npu.select(%c, %y, %a) -> (%b: int64[9]) {chain=1}
			output %b`},
		{"what is no operation on elements", "", `input %x: float32[6, 7]
			node "a" npu.element(%x) -> (%a: float32[6, 7]) {op="exp", chain=1}
			node "b" npu.transpose(%a) -> (%b: float32[7, 6]) {perm=[1, 0], chain=1}
			node "c" npu.transpose(%b) -> (%c: float32[6, 7]) {perm=[1, 0], chain=1}
			output %c`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.ReplaceAll(tt.text, "; ", "\n")
			check(t, text)
			g, err := ir.Parse(fill(t, rand.New(rand.NewPCG(1, 2)), text))
			if err != nil {
				t.Fatal(err)
			}
			p, err := plan.New(g, targets["default"], plan.Compact)
			if err != nil {
				t.Fatal(err)
			}
			var inside []string
			for _, n := range g.Nodes {
				if p.Inside[n.Outputs[0]] {
					inside = append(inside, n.Name)
				}
			}
			want := strings.Fields(tt.inside)
			if strings.Join(inside, " ") != strings.Join(want, " ") {
				t.Errorf("in local memory alone are %v, want %v", inside, want)
			}
		})
	}
}
