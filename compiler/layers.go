// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"context"
	"fmt"

	"npuemu/compiler/model"
	"npuemu/timing"
)

// Layer is an operator of a model as the timing model sees it in its program, with the others around it (§13.11).
type Layer struct {
	Name, Op string
	Host     string // why it is on the host, which has no cycles; empty on the device
	timing.PartReport
}

// Layers estimates m's programs one after the other, with parameters p, and returns the operators in the order in which they run.
// onBus has a bit for each binding that is memory on the bus. Operators that others contain, or that need no instruction, are
// not among them.
func Layers(ctx context.Context, m *model.Model, p timing.Params, onBus uint64) (sum timing.Report, list []Layer, err error) {
	c := config(m, p)
	if err := c.Validate(); err != nil {
		return sum, nil, err
	}
	done := nodes{m: m}
	for _, s := range m.Steps {
		if s.Host >= 0 {
			if n := done.host(m.Hosts[s.Host].Nodes[0].Name); n != nil {
				list = append(list, Layer{Name: n.Name, Op: Operator(n.Op), Host: n.Host})
			}
			continue
		}
		operators, _ := done.program(s.Program)
		parts := make([]timing.Part, len(operators))
		for i, o := range operators {
			parts[i] = timing.Part{First: o.First, Last: o.Last}
		}
		r, reports, err := timing.Parts(ctx, m.Programs[s.Program], c, onBus, parts)
		if err != nil {
			return sum, nil, fmt.Errorf("compiler: program %d: %w", s.Program, err)
		}
		sum.Add(&r)
		for i, o := range operators {
			list = append(list, Layer{o.Name, o.Op, "", reports[i]})
		}
		if rest := reports[len(operators)]; rest.Instructions > 0 {
			list = append(list, Layer{fmt.Sprintf("program %d", s.Program), "other", "", rest})
		}
	}
	return sum, list, nil
}
