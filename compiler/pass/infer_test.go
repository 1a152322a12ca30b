// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Infer gives types and shapes, computes what depends on shapes and constants, and leaves the (de)quantization of constants for FuseQDQ.
func TestInfer(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lines []string
		want  []string // nodes that are left, with their outputs
		outs  []string // outputs of the graph that are known
	}{
		{
			"types and shapes",
			[]string{"input %x: float32[2, 3]", "input %y: float32[4, 1, 3]", `node "a" Less(%x, %y) -> %a`, `node "t" Transpose(%a) -> %t`, "output %t"},
			[]string{"a %a: bool[4, 2, 3]", "t %t: bool[3, 2, 4]"},
			nil,
		},
		{
			"a shape that is computed",
			[]string{"input %x: float32[2, 3]", `node "s" Shape(%x) -> %s`, `node "r" ReduceProd(%s) -> %r {keepdims=0}`, `node "e" Neg(%x) -> %e`, "output %r", "output %e"},
			[]string{"e %e: float32[2, 3]"},
			[]string{"%r: int64[] 0600000000000000"},
		},
		{"constants", []string{"const %a: int8[3] = 1 2 3", "const %b: int8[] = 2", `node "m" Mul(%a, %b) -> %m`, "output %m"}, nil, []string{"%m: int8[3] 020406"}},
		{"a constant that FuseQDQ looks for", []string{"const %w: int8[2] = 1 2", "const %s: float32[] = 0.5", `node "d" DequantizeLinear(%w, %s) -> %d`, "output %d"}, []string{"d %d: float32[2]"}, nil},
		{"one of two outputs", []string{"input %x: float32[2]", `node "d" Dropout(%x) -> %y %mask`, "output %y", "output %mask"}, []string{"d %y: float32[2] %mask: bool[2]"}, []string{"%mask: bool[2] 0101"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := model(t, tt.lines...)
			if err := Infer(g); err != nil {
				t.Fatal(err)
			}
			var nodes, outs []string
			for _, n := range g.Nodes {
				s := []string{n.Name}
				for _, o := range n.Outputs {
					s = append(s, o.String())
				}
				nodes = append(nodes, strings.Join(s, " "))
			}
			for _, o := range g.Outputs {
				if o.Const() {
					outs = append(outs, o.String()+" "+hex.EncodeToString(o.Data))
				}
			}
			if diff := cmp.Diff(tt.want, nodes); diff != "" {
				t.Errorf("nodes (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.outs, outs); diff != "" {
				t.Errorf("outputs (-want +got):\n%s", diff)
			}
		})
	}
}
