// SPDX-License-Identifier: Apache-2.0

package pass

import "testing"

// Integers keeps quantized tensors integers where nothing computes, and makes tables of functions of 8 bits; the results are the same bits.
func TestIntegers(t *testing.T) {
	testPass(t, Integers, `input %x: int8[1, 2, 4, 4]
const %two: float32[] = "AAAAQA=="
node "d" npu.dequantize(%x) -> (%d: float32[1, 2, 4, 4]) {scales=floats[0.5], zeros=[3]}`, []change{
		{"nothing between", []string{`node "q" npu.quantize(%d) -> (%q: int8[1, 2, 4, 4]) {scales=floats[0.5], zeros=[3], lo=-128, hi=127}`, `output %q`}, "reshape", 0},
		{"a clamp", []string{`node "q" npu.quantize(%d) -> (%q: int8[1, 2, 4, 4]) {scales=floats[0.5], zeros=[3], lo=-5, hi=9}`, `output %q`}, "clip", 0},
		{"other scales", []string{`node "q" npu.quantize(%d) -> (%q: int8[1, 2, 4, 4]) {scales=floats[0.25], zeros=[3], lo=-128, hi=127}`, `output %q`}, "table", 0},
		{"functions", []string{`node "e" npu.element(%d) -> (%e: float32[1, 2, 4, 4]) {op="tanh"}`, `node "m" npu.element(%two, %e) -> (%m: float32[1, 2, 4, 4]) {op="mul"}`, `node "q" npu.quantize(%m) -> (%q: int8[1, 2, 4, 4]) {scales=floats[0.5], zeros=[3], lo=-128, hi=127}`, `output %q`}, "table", 0},
		{"a copy", []string{`node "t" npu.transpose(%d) -> (%t: float32[1, 4, 4, 2]) {perm=[0, 2, 3, 1]}`, `node "q" npu.quantize(%t) -> (%q: int8[1, 4, 4, 2]) {scales=floats[0.5], zeros=[3], lo=-128, hi=127}`, `output %q`}, "transpose", 0},
		{"a pad of 0", []string{`node "p" npu.pad(%d) -> (%p: float32[1, 2, 4, 5]) {pads=[0, 0, 0, 0, 0, 0, 0, 1]}`, `node "q" npu.quantize(%p) -> (%q: int8[1, 2, 4, 5]) {scales=floats[0.5], zeros=[3], lo=-128, hi=127}`, `output %q`}, "pad", 0},
		{"a pad of another value", []string{`node "p" npu.pad(%d) -> (%p: float32[1, 2, 4, 5]) {pads=[0, 0, 0, 0, 0, 0, 0, 1], value=float 1}`, `node "q" npu.quantize(%p) -> (%q: int8[1, 2, 4, 5]) {scales=floats[0.5], zeros=[3], lo=-128, hi=127}`, `output %q`}, "dequantize pad quantize", 0},
		{"a maximum", []string{`node "p" npu.pool(%d) -> (%p: float32[1, 1, 3, 4]) {kind="max", kernel=[2, 2], strides=[1, 1], pads=[0, 0, 0, 0]}`, `node "q" npu.quantize(%p) -> (%q: int8[1, 1, 3, 4]) {scales=floats[0.5], zeros=[3], lo=-128, hi=127}`, `output %q`}, "pool", 0},
		{"an average", []string{`node "p" npu.pool(%d) -> (%p: float32[1, 1, 3, 4]) {kind="avg", kernel=[2, 2], strides=[1, 1], pads=[0, 0, 0, 0]}`, `node "q" npu.quantize(%p) -> (%q: int8[1, 1, 3, 4]) {scales=floats[0.5], zeros=[3], lo=-128, hi=127}`, `output %q`}, "dequantize pool quantize", 0},
		{"the nearest pixels", []string{`node "r" npu.resize(%d) -> (%r: float32[1, 3, 9, 4]) {mode="floor", div=floats[1.5, 2.25]}`, `node "q" npu.quantize(%r) -> (%q: int8[1, 3, 9, 4]) {scales=floats[0.5], zeros=[3], lo=-128, hi=127}`, `output %q`}, "resize", 0},
		{"between pixels", []string{`node "r" npu.resize(%d) -> (%r: float32[1, 3, 9, 4]) {mode="linear", div=floats[1.5, 2.25]}`, `node "q" npu.quantize(%r) -> (%q: int8[1, 3, 9, 4]) {scales=floats[0.5], zeros=[3], lo=-128, hi=127}`, `output %q`}, "dequantize resize quantize", 0},
		{"what others need as numbers", []string{`node "e" npu.element(%d) -> (%e: float32[1, 2, 4, 4]) {op="exp"}`, `node "q" npu.quantize(%e) -> (%q: int8[1, 2, 4, 4]) {scales=floats[0.5], zeros=[3], lo=-128, hi=127}`, `output %q`, `output %e`}, "dequantize element quantize", 0},
	})
}
