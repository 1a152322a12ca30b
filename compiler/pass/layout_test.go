// SPDX-License-Identifier: Apache-2.0

package pass

import "testing"

// Layout moves transposes behind what does not mind them, until they meet their inverse; the results are the same bits.
func TestLayout(t *testing.T) {
	testPass(t, Layout, `input %x: float32[1, 2, 3]
input %y: float32[1, 2, 3]
const %k: float32[2] = "AACAPwAAAEA="`, []change{
		{"a transpose and its inverse", []string{`node "t" npu.transpose(%x) -> (%t: float32[1, 3, 2]) {perm=[0, 2, 1]}`, `node "b" npu.transpose(%t) -> (%b: float32[1, 2, 3]) {perm=[0, 2, 1]}`, `output %b`}, "reshape", 0},
		{"an operation between", []string{`node "t" npu.transpose(%x) -> (%t: float32[1, 3, 2]) {perm=[0, 2, 1]}`, `node "e" npu.element(%t) -> (%e: float32[1, 3, 2]) {op="exp"}`, `node "b" npu.transpose(%e) -> (%b: float32[1, 2, 3]) {perm=[0, 2, 1]}`, `output %b`}, "element", 0},
		{"two operands", []string{`node "t" npu.transpose(%x) -> (%t: float32[1, 3, 2]) {perm=[0, 2, 1]}`, `node "u" npu.transpose(%y) -> (%u: float32[1, 3, 2]) {perm=[0, 2, 1]}`, `node "e" npu.element(%t, %u) -> (%e: float32[1, 3, 2]) {op="sub"}`, `node "b" npu.transpose(%e) -> (%b: float32[1, 2, 3]) {perm=[0, 2, 1]}`, `output %b`}, "element", 0},
		{"a constant of one axis turns", []string{`node "t" npu.transpose(%x) -> (%t: float32[1, 3, 2]) {perm=[0, 2, 1]}`, `node "e" npu.element(%t, %k) -> (%e: float32[1, 3, 2]) {op="mul"}`, `node "b" npu.transpose(%e) -> (%b: float32[1, 2, 3]) {perm=[0, 2, 1]}`, `output %b`}, "reshape element", 0},
		{"a slice", []string{`node "t" npu.transpose(%x) -> (%t: float32[1, 3, 2]) {perm=[0, 2, 1]}`, `node "s" npu.slice(%t) -> (%s: float32[1, 2, 2]) {starts=[0, 1, 0], steps=[1, 1, 1]}`, `node "b" npu.transpose(%s) -> (%b: float32[1, 2, 2]) {perm=[0, 2, 1]}`, `output %b`}, "slice", 0},
		{"a pad", []string{`node "t" npu.transpose(%x) -> (%t: float32[1, 3, 2]) {perm=[0, 2, 1]}`, `node "p" npu.pad(%t) -> (%p: float32[1, 4, 2]) {pads=[0, 1, 0, 0, 0, 0]}`, `node "b" npu.transpose(%p) -> (%b: float32[1, 2, 4]) {perm=[0, 2, 1]}`, `output %b`}, "pad", 0},
		{"a concatenation of another axis", []string{`node "t" npu.transpose(%x) -> (%t: float32[1, 3, 2]) {perm=[0, 2, 1]}`, `node "u" npu.transpose(%y) -> (%u: float32[1, 3, 2]) {perm=[0, 2, 1]}`, `node "c" npu.concat(%t, %u) -> (%c: float32[1, 6, 2]) {axis=1}`, `node "b" npu.transpose(%c) -> (%b: float32[1, 2, 6]) {perm=[0, 2, 1]}`, `output %b`}, "concat", 0},
		{"rows mind", []string{`node "t" npu.transpose(%x) -> (%t: float32[1, 3, 2]) {perm=[0, 2, 1]}`, `node "s" npu.softmax(%t) -> (%s: float32[1, 3, 2])`, `node "b" npu.transpose(%s) -> (%b: float32[1, 2, 3]) {perm=[0, 2, 1]}`, `output %b`}, "transpose softmax transpose", 0},
		{"axes of 1", []string{`node "t" npu.transpose(%x) -> (%t: float32[2, 1, 3]) {perm=[1, 0, 2]}`, `output %t`}, "reshape", 0},
		{"reshapes of reshapes", []string{`node "r" npu.reshape(%x) -> (%r: float32[6])`, `node "s" npu.reshape(%r) -> (%s: float32[3, 2])`, `output %s`}, "reshape", 0},
	})
}
