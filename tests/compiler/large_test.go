// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"math/rand/v2"
	"testing"

	"npuemu/compiler"
	"npuemu/compiler/ir"
	"npuemu/compiler/pass"
	"npuemu/compiler/ref"
)

// TestLarge: operators that become many operations, of tensors that are tiled and stay in the scratchpad, which those of ONNX's cases are too
// small for: every tensor is the reference's to the bit, as built and with each node by itself.
func TestLarge(t *testing.T) {
	c := newCard(t)
	for _, tt := range []struct{ name, text string }{
		{"sample", `input %x: float32[1, 3, 90, 70]
			input %g: float32[1, 2, 40, 2]
			node "n" GridSample(%x, %g) -> (%y: invalid[]) {opset=20, mode="linear"}
			output %y`},
		{"sample, cubic", `input %x: float16[1, 3, 9, 70]
			input %g: float16[1, 30, 4, 2]
			node "n" GridSample(%x, %g) -> (%y: invalid[]) {opset=20, mode="cubic", padding_mode="reflection"}
			output %y`},
		{"topk", `input %x: float32[3, 5000]
			const %k: int64[1] = "BQAAAAAAAAA="
			node "n" TopK(%x, %k) -> (%y: invalid[], %z: invalid[]) {opset=17}
			output %y
			output %z`},
		{"elements", `input %x: float32[70, 300]
			input %s: uint8[70, 90]
			node "c" Cast(%s) -> (%i: invalid[]) {opset=17, to=7}
			node "n" GatherElements(%x, %i) -> (%y: invalid[]) {opset=17, axis=1}
			output %y`},
		{"cache", `input %p: float32[4, 3, 300, 16]
			input %u: float32[4, 3, 3, 16]
			input %s: uint8[4]
			node "c" Cast(%s) -> (%i: invalid[]) {opset=17, to=7}
			node "n" TensorScatter(%p, %u, %i) -> (%y: invalid[]) {opset=24}
			output %y`},
		{"int64", `input %x: int64[300, 70]
			input %y: int64[70]
			node "n" Mul(%x, %y) -> (%z: invalid[]) {opset=17}
			node "m" Less(%z, %x) -> (%l: invalid[]) {opset=17}
			node "c" Cast(%z) -> (%f: invalid[]) {opset=17, to=1}
			output %l
			output %f`},
		{"einsum", `input %x: float32[2, 60, 4, 32]
			input %y: float32[2, 50, 4, 32]
			node "n" Einsum(%x, %y) -> (%z: invalid[]) {opset=17, equation="bqhd,bkhd->bhqk"}
			output %z`},
		{"linear attention", `input %q: float32[1, 6, 128]
			node "n" LinearAttention(%q, %q, %q) -> (%y: invalid[], %s: invalid[]) {opset=27, update_rule="linear", q_num_heads=4, kv_num_heads=4}
			output %y
			output %s`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, err := ir.Parse("graph \"g\"\n" + tt.text)
			if err == nil {
				err = pass.Run(g, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			if h := pass.HostNodes(g); len(h) > 0 {
				t.Errorf("%s is on the host", h[0].Op)
			}
			r := rand.New(rand.NewPCG(1, 2))
			var in [][]byte
			for _, x := range g.Inputs {
				f, v := make([]float32, x.Elements()), make([]int64, x.Elements())
				for i := range f {
					f[i], v[i] = float32(r.NormFloat64()), int64(r.Uint64())
				}
				if x.Type.Float() {
					in = append(in, ref.PutFloats(x.Type, f, false))
				} else {
					in = append(in, ref.PutInts(x.Type, v))
				}
			}
			v, err := compiler.Verify(t.Context(), c, g, nil, c.target, in, nil)
			if err != nil || v.Divergence != nil || len(v.Hosts) > 0 {
				t.Errorf("%v, %v, on the host: %v", err, v.Divergence, v.Hosts)
			}
		})
	}
}
