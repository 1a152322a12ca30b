// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/compiler/ir"
)

// Partition gives the host what the device has no types for and leaves the rest alone; what neither has is an error with the model's names.
func TestPartition(t *testing.T) {
	for _, tt := range []struct{ name, node, op, err string }{
		{"a type of the device", `node "n" npu.element(%x) -> (%y: float32[2]) {op="exp"}`, "npu.element", ""},
		{"one that it lacks", `node "n" npu.element(%w) -> (%y: float64[2]) {op="exp"}`, "host.element", ""},
		{"the host's already", `node "n" host.odd(%x) -> (%y: float32[2])`, "host.odd", ""},
		{"nobody's", `node "n" npu.softmax(%i) -> (%y: int32[2])`, "", `test: node "model" (Softmax): tensor "i": npu.softmax, of which it is made: int32 is no type of NORM`},
		{"softmax of a type that it lacks", `node "n" npu.softmax(%w) -> (%y: float64[2])`, "host.softmax", ""},
		{"the model's", `node "n" Softmax(%x) -> (%y: float32[2])`, "", `test: node "n" (Softmax): the operator was not lowered`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, err := ir.Parse("graph \"test\"\ninput %x: float32[2]\ninput %w: float64[2]\ninput %i: int32[2]\n" + tt.node + "\noutput %y\n")
			if err != nil {
				t.Fatal(err)
			}
			g.Nodes[0].Origin = &ir.Node{Name: "model", Op: "Softmax", Inputs: g.Nodes[0].Inputs}
			err = Partition(g)
			var e *ir.Error
			if errors.As(err, &e) {
				e.Graph, e.Remedy = g.Name, ""
				if diff := cmp.Diff(tt.err, e.Error()); diff != "" {
					t.Errorf("error (-want +got):\n%s", diff)
				}
				return
			}
			if err != nil || tt.err != "" || g.Nodes[0].Op != tt.op {
				t.Errorf("%v, %s, want %q, %s", err, g.Nodes[0].Op, tt.err, tt.op)
			}
		})
	}
}
