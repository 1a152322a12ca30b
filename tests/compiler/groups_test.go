// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"slices"
	"strings"
	"testing"

	"npuemu/compiler"
	"npuemu/compiler/ir"
	"npuemu/core/isa"
)

// A model names the instruction groups that it has, and the architecture they came with; on a core without one the
// operation is the host's, and says so.
func TestGroups(t *testing.T) {
	c := newCard(t)
	const lookup = "graph \"g\"\ninput %x: float32[30, 5]\ninput %i: int32[9]\nnode \"n\" npu.gather(%x, %i) -> (%z: float32[9, 5]) {axis=0}\noutput %z"
	const two = `rounding="two", left_shift=20, multipliers=[1073741824, 1073741824, 1073741824], shifts=[31, 31, 50]`
	const sum = "graph \"g\"\ninput %x: int8[9]\ninput %y: int8[9]\nnode \"n\" npu.qadd(%x, %y) -> (%z: int8[9]) {zeros=[1, 2, 3], lo=-128, hi=127, " + two + "}\noutput %z"
	for _, tt := range []struct {
		name, text, architecture, group, host string
		without                               uint64
	}{
		{"nothing new", verified, "1.3", "", "", 0},
		{"a lookup", lookup, "1.4", "gather", "", 0},
		{"a sum", sum, "1.5", "addq", "", 0},
		{"a sum on an older core", sum, "1.3", "", "", isa.FeatureAddq},
		{"a sum of ONNX Runtime's on an older core", strings.Replace(sum, two, `rounding="fp32", scales=floats[1, 1, 0]`, 1), "1.3", "", "the core has no ADDQ (§5.3)", isa.FeatureAddq},
		{"a lookup on an older core", lookup, "1.3", "", "the core has no GATHER (§5.3); compile for architecture 1.4 or later", isa.FeatureGather},
	} {
		g, err := ir.Parse(tt.text)
		if err != nil {
			t.Fatal(err)
		}
		target := c.target
		target.Features &^= tt.without
		m, err := compiler.Build(g, target)
		if err != nil {
			t.Fatal(err)
		}
		if m.Architecture != tt.architecture || tt.group != "" && !slices.Contains(m.Array.Groups, tt.group) || tt.group == "" && len(m.Array.Groups) != 4 {
			t.Errorf("%s: architecture %s, groups %v", tt.name, m.Architecture, m.Array.Groups)
		}
		if h := m.Nodes[0].Host; (h == "") != (tt.host == "") || !strings.Contains(h, tt.host) {
			t.Errorf("%s: on the host: %q, want %q", tt.name, h, tt.host)
		}
	}
}
