// SPDX-License-Identifier: Apache-2.0

package pass

import "testing"

// Fold computes what depends on constants only, and removes what nothing uses.
func TestFold(t *testing.T) {
	testPass(t, Fold, `input %x: float32[3]
const %c: float32[3] = "AACAPwAAAEAAAEBA"`, []change{
		{"constants", []string{`node "n" npu.element(%c) -> (%n: float32[3]) {op="neg"}`, `node "a" npu.element(%x, %n) -> (%a: float32[3]) {op="add"}`, `output %a`}, "element", 0},
		{"constants of constants", []string{`node "n" npu.element(%c) -> (%n: float32[3]) {op="neg"}`, `node "m" npu.element(%n, %c) -> (%m: float32[3]) {op="mul"}`, `node "a" npu.element(%x, %m) -> (%a: float32[3]) {op="add"}`, `output %a`}, "element", 0},
		{"an output", []string{`node "n" npu.element(%c) -> (%n: float32[3]) {op="neg"}`, `output %n`}, "", 0},
		{"nothing uses it", []string{`node "n" npu.element(%x) -> (%n: float32[3]) {op="neg"}`, `node "m" npu.element(%n) -> (%m: float32[3]) {op="exp"}`, `node "a" npu.element(%x) -> (%a: float32[3]) {op="abs"}`, `output %a`}, "element", 0},
		{"too large for what it is made of", []string{`node "e" npu.expand(%c) -> (%e: float32[6000000, 3])`, `node "p" npu.slice(%e) -> (%p: float32[1, 3]) {starts=[0, 0], steps=[1, 1]}`, `node "a" npu.element(%x, %p) -> (%a: float32[1, 3]) {op="add"}`, `output %a`}, "expand slice element", 0},
	})
}
