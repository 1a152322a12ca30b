// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"npuemu/compiler/emit"
	"npuemu/compiler/ir"
)

// NewShort is New with programs of up to most instructions.
func NewShort(g *ir.Graph, target emit.Target, mode Mode, most int) (*Plan, error) {
	return newPlan(g, target, mode, most, func(int, int, string) {})
}
