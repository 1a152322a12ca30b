// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"npuemu/compiler"
	"npuemu/compiler/ir"
)

// verify says how the graph compares with the rules of the model's operators, in words and in JSON; without --rules, and of a graph that no
// pass has made, it does not.
func TestVerifyRules(t *testing.T) {
	const net, device = "../../compiler/tflite/testdata/net/model.tflite", doubled
	for _, tt := range []struct {
		args     []string
		compared int
	}{
		{[]string{net}, 15},
		{[]string{net, "--rules=false"}, 0},
		{[]string{file(t, "device.npuir", device)}, 0},
	} {
		out, _, err := npuemu(t.Context(), append([]string{"verify"}, tt.args...)...)
		if err != nil || strings.Contains(out, "by the rules of the model's operators alone: 15 tensors of the model are compared with those of the compiled graph; 15 are equal, to the bit\n") != (tt.compared > 0) {
			t.Errorf("%q: %v, %s", tt.args, err, out)
		}
		out, _, err = npuemu(t.Context(), append([]string{"verify", "--json"}, tt.args...)...)
		var s verifiedSummary
		if err := errors.Join(err, json.Unmarshal([]byte(out), &s)); err != nil {
			t.Fatalf("%q: %v\n%s", tt.args, err, out)
		}
		if !s.Equal || s.Divergence != nil || s.Nodes == 0 || s.Counters.Programs == 0 || (s.Rules != nil) != (tt.compared > 0) || s.Rules != nil && s.Rules.Compared != tt.compared {
			t.Errorf("%q: %+v", tt.args, s)
		}
	}
}

// What differs is in the JSON, and the command fails.
func TestPrintVerified(t *testing.T) {
	g := &ir.Graph{Name: "g", Nodes: []*ir.Node{{}}}
	for _, v := range []compiler.Verified{
		{Divergence: &compiler.Divergence{Node: "n", Want: []byte{1, 2}, Got: []byte{3, 4}, Tile: [][2]int{{0, 1}}}},
		{Rules: compiler.RulesReport{Compared: 1, Difference: &compiler.Difference{Node: "n", Want: "+Inf", Got: "NaN"}}},
	} {
		var b bytes.Buffer
		if err := printVerified(&b, g, v, true); !errors.Is(err, errDiverges) {
			t.Errorf("the error is %v", err)
		}
		var s verifiedSummary
		if err := json.Unmarshal(b.Bytes(), &s); err != nil {
			t.Fatal(err)
		}
		if s.Equal || (s.Divergence == nil) == (s.Rules.Difference == nil) {
			t.Errorf("%s", b.String())
		}
		if d := s.Divergence; d != nil && (d.Want != "0102" || d.Got != "0304" || d.Node != "n") {
			t.Errorf("%+v", d)
		}
	}
}
