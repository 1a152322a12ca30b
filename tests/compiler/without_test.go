// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"

	"npuemu/compiler"
	"npuemu/compiler/ir"
	"npuemu/compiler/run"
	"npuemu/vdev"
)

// What a card lacks by its configuration its host computes, to the same bits and by name; everything else is on the card. A
// model made for a whole card does not run on such a one, and says why before it does.
func TestWithout(t *testing.T) {
	const text = `graph "mixed"
input %a: int8[1, 4, 16]
input %b: int8[1, 16, 8]
input %c: float32[1, 4, 16]
input %d: float32[1, 16, 8]
node "integers" npu.gemm(%a, %b) -> (%i: int32[1, 4, 8]) {rounding="none"}
node "floats" npu.gemm(%c, %d) -> (%f: float32[1, 4, 8]) {rounding="none"}
node "softmax" npu.softmax(%f) -> (%s: float32[1, 4, 8]) {}
node "sum" npu.element(%i, %i) -> (%j: int32[1, 4, 8]) {op="add"}
output %s
output %j
`
	inputs := [][]byte{make([]byte, 64), make([]byte, 128), make([]byte, 256), make([]byte, 512)}
	for i := range inputs {
		for k := range inputs[i] {
			inputs[i][k] = byte(37*k + 11*i)
		}
	}
	for _, f := range inputs[2:] {
		for k := 0; k < len(f); k += 4 {
			v := math.Float32bits(float32(k%97)/16 - 3)
			f[k], f[k+1], f[k+2], f[k+3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
		}
	}
	parse := func() *ir.Graph {
		g, err := ir.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	whole := newCard(t)
	want, hosts, err := whole.Execute(t.Context(), parse(), inputs)
	if err != nil || len(hosts) > 0 {
		t.Fatalf("%v; on the host: %v", err, hosts)
	}
	all, err := compiler.Build(parse(), whole.target)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		without []string
		hosts   []string // names of nodes
		reason  string
	}{
		{[]string{"float"}, []string{"floats"}, "the core has no FLOAT (§5.3)"},
		{[]string{"reduce"}, []string{"softmax"}, "the core has no REDUCE (§5.3)"},
		{[]string{"vector"}, []string{"sum"}, "the core has no VECTOR (§5.3)"},
		{[]string{"gemm", "float"}, []string{"integers", "floats"}, "the core has no GEMM"},
		{[]string{"mx", "sparse", "quant", "control", "addq", "gather", "pool"}, nil, ""},
	} {
		t.Run(strings.Join(tt.without, "+"), func(t *testing.T) {
			cfg := vdev.DefaultConfig()
			cfg.Core.Without = tt.without
			c, err := NewCard(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}()
			got, hosts, err := c.Execute(t.Context(), parse(), inputs)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, n := range hosts {
				names = append(names, n.Name)
				if !strings.Contains(n.Host, tt.reason) {
					t.Errorf("%s is on the host: %q, want %q", n.Name, n.Host, tt.reason)
				}
			}
			if !slices.Equal(names, tt.hosts) {
				t.Errorf("on the host %q, want %q", names, tt.hosts)
			}
			for i := range want {
				if !bytes.Equal(got[i], want[i]) {
					t.Errorf("output %d differs: % x, want % x", i, got[i], want[i])
				}
			}
			_, err = run.Load(c, all)
			if tt.hosts == nil && err != nil || tt.hosts != nil && (err == nil || !strings.Contains(err.Error(), "lacks group") || !strings.Contains(err.Error(), tt.without[0])) {
				t.Errorf("a model for a whole card: %v", err)
			}
		})
	}
}
