// SPDX-License-Identifier: Apache-2.0

package pass

import "testing"

// Fuse puts what follows a product into it. Factors and summands in weights and bias round differently.
func TestFuse(t *testing.T) {
	testPass(t, Fuse, `input %x: float32[1, 2, 3]
const %w: float32[1, 3, 2] = "AACAPwAAAMAAAEBAAAAAPwAAoMAAAEBA"
const %k: float32[2] = "AABAPwAAAEA="
const %row: float32[2, 1] = "AABAPwAAAEA="
input %i: int8[1, 2, 3]
const %v: int8[1, 3, 2] = "AQL9BPsG"`, []change{
		{"a factor", []string{`node "g" npu.gemm(%x, %w) -> (%g: float32[1, 2, 2]) {rounding="none"}`, `node "e" npu.element(%g, %k) -> (%e: float32[1, 2, 2]) {op="mul"}`, `output %e`}, "gemm", 1e-05},
		{"a summand", []string{`node "g" npu.gemm(%x, %w) -> (%g: float32[1, 2, 2]) {rounding="none"}`, `node "e" npu.element(%k, %g) -> (%e: float32[1, 2, 2]) {op="add"}`, `output %e`}, "gemm", 1e-05},
		{"what is subtracted", []string{`node "g" npu.gemm(%x, %w) -> (%g: float32[1, 2, 2]) {rounding="none"}`, `node "e" npu.element(%g, %k) -> (%e: float32[1, 2, 2]) {op="sub"}`, `output %e`}, "gemm", 1e-05},
		{"what it is subtracted from", []string{`node "g" npu.gemm(%x, %w) -> (%g: float32[1, 2, 2]) {rounding="none"}`, `node "e" npu.element(%k, %g) -> (%e: float32[1, 2, 2]) {op="sub"}`, `output %e`}, "gemm element", 0},
		{"factor, summand, activation and clip", []string{`node "g" npu.gemm(%x, %w) -> (%g: float32[1, 2, 2]) {rounding="none"}`, `node "e" npu.element(%g, %k) -> (%e: float32[1, 2, 2]) {op="mul"}`, `node "f" npu.element(%e, %k) -> (%f: float32[1, 2, 2]) {op="add"}`, `node "r" npu.element(%f) -> (%r: float32[1, 2, 2]) {op="tanh"}`, `node "c" npu.clip(%r) -> (%c: float32[1, 2, 2]) {clip=floats[-0.5, 0.75]}`, `output %c`}, "gemm", 1e-05},
		{"a factor for each row", []string{`node "g" npu.gemm(%x, %w) -> (%g: float32[1, 2, 2]) {rounding="none"}`, `node "e" npu.element(%g, %row) -> (%e: float32[1, 2, 2]) {op="mul"}`, `output %e`}, "gemm element", 0},
		{"a factor behind an activation", []string{`node "g" npu.gemm(%x, %w) -> (%g: float32[1, 2, 2]) {rounding="none"}`, `node "r" npu.element(%g) -> (%r: float32[1, 2, 2]) {op="relu"}`, `node "e" npu.element(%r, %k) -> (%e: float32[1, 2, 2]) {op="mul"}`, `output %e`}, "gemm element", 0},
		{"a result that others need", []string{`node "g" npu.gemm(%x, %w) -> (%g: float32[1, 2, 2]) {rounding="none"}`, `node "e" npu.element(%g, %k) -> (%e: float32[1, 2, 2]) {op="mul"}`, `output %e`, `output %g`}, "gemm element", 0},
		{"a requantization", []string{`node "g" npu.gemm(%i, %v) -> (%g: int32[1, 2, 2]) {rounding="none"}`, `node "q" npu.requantize(%g) -> (%q: int8[1, 2, 2]) {rounding="fp32", scales=floats[0.05, 0.1], zero_y=4, lo=-128, hi=127}`, `output %q`}, "gemm", 0},
	})
}
