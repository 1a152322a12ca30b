// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"math"
	"testing"

	"npuemu/compiler/ref"
)

// Attention in groups of heads, with a past, in causal order and with a mask of which one row allows nothing, beside plain loops.
func TestAttention(t *testing.T) {
	const heads, groups, rows, before, size, keys = 4, 2, 3, 2, 5, 5
	g := model(t, "input %q: float32[1, 3, 20]", "input %k: float32[1, 3, 10]", "input %v: float32[1, 3, 10]", "const %m: bool[3, 5] = 1 1 0 1 1 0 0 0 0 0 1 0 1 1 1",
		"input %pk: float32[1, 2, 2, 5]", "input %pv: float32[1, 2, 2, 5]",
		`node "a" Attention(%q, %k, %v, %m, %pk, %pv) -> %y %ok %ov {q_num_heads=4, kv_num_heads=2, is_causal=1, softcap=float 2}`, "output %y", "output %ok")
	g.Nodes[0].Inputs[3].Shape = []int{3, 5} // which model makes flat
	if err := Run(g, nil); err != nil {
		t.Fatal(err)
	}
	in := values(g, 7)
	out := run(t, g, in)
	v := make([][]float32, len(in))
	for i := range in {
		v[i] = ref.Floats(g.Inputs[i].Type, in[i], g.Inputs[i].Elements())
	}
	mask := [rows][keys]bool{{true, true, false, true, true}, {}, {true, false, true, true, true}}
	cached := func(now, past []float32, h, j, d int) float64 { // of [1, rows, groups·size] behind [1, groups, before, size]
		if j < before {
			return float64(past[(h*before+j)*size+d])
		}
		return float64(now[(j-before)*groups*size+h*size+d])
	}
	y, key := ref.Floats(g.Outputs[0].Type, out[0], rows*heads*size), ref.Floats(g.Outputs[1].Type, out[1], groups*keys*size)
	for h := range heads {
		kv := h / (heads / groups)
		for i := range rows {
			var e [keys]float64
			sum := 0.0
			for j := range keys {
				if !mask[i][j] || j > i+before {
					continue
				}
				s := 0.0
				for d := range size {
					s += float64(v[0][i*heads*size+h*size+d]) * cached(v[1], v[3], kv, j, d)
				}
				e[j] = math.Exp(2 * math.Tanh(s/math.Sqrt(size)/2))
				sum += e[j]
			}
			for d := range size {
				want := 0.0
				for j := range keys {
					if e[j] > 0 {
						want += e[j] / sum * cached(v[2], v[4], kv, j, d)
					}
				}
				if got := float64(y[i*heads*size+h*size+d]); math.Abs(got-want) > 1e-5 {
					t.Errorf("head %d, row %d, element %d is %g, not %g", h, i, d, got, want)
				}
			}
		}
	}
	for i, k := range key {
		if want := cached(v[1], v[3], i/(keys*size), i/size%keys, i%size); float64(k) != want {
			t.Errorf("key %d of the cache is %g, not %g", i, k, want)
		}
	}
}
