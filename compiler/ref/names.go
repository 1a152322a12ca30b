// SPDX-License-Identifier: Apache-2.0

package ref

import (
	"maps"
	"slices"
)

// WideOperations are the names of the operations that the host runs for types that the device lacks (Wide), and WideElements those of
// npu.element among them: of one operand, and of two.
func WideOperations() []string { return slices.Sorted(maps.Keys(wideOps)) }

// WideElements are the values of npu.element's op that the host runs, in integers or floating point, with so many operands.
func WideElements(operands int) []string {
	names := map[string]bool{}
	if operands == 1 {
		addKeys(names, wideUnary)
		addKeys(names, doubleUnary)
	} else {
		addKeys(names, wideBinary)
		addKeys(names, doubleBinary)
	}
	return slices.Sorted(maps.Keys(names))
}

func addKeys[V any](names map[string]bool, m map[string]V) {
	for k := range m {
		names[k] = true
	}
}
