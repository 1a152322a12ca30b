// SPDX-License-Identifier: Apache-2.0

package gemm

import (
	"math"
	"testing"
)

// Every value of the narrow types, from their definition: ±2^(e−bias)·(1 + f/2^bits).
func TestWiden(t *testing.T) {
	type format struct {
		t         Type
		exp, frac int
		noInf     bool
	}
	for _, f := range []format{{t: Float16, exp: 5, frac: 10}, {t: BFloat16, exp: 8, frac: 7}, {t: E4M3, exp: 4, frac: 3, noInf: true}, {t: E5M2, exp: 5, frac: 2}} {
		bits := 1 + f.exp + f.frac
		bias := 1<<(f.exp-1) - 1
		top := 1<<f.exp - 1
		var src []byte
		var want []float64
		for v := range 1 << bits {
			e, m := v>>f.frac&top, v&(1<<f.frac-1)
			x := float64(m) / float64(int(1)<<f.frac)
			switch {
			case e == top && f.noInf && m == 1<<f.frac-1, e == top && !f.noInf && m != 0:
				x = math.NaN()
			case e == top && !f.noInf:
				x = math.Inf(1)
			case e == 0:
				x = math.Ldexp(x, 1-bias)
			default:
				x = math.Ldexp(1+x, e-bias)
			}
			if v>>(bits-1) != 0 {
				x = math.Copysign(x, -1)
			}
			src = append(src, []byte{byte(v), byte(v >> 8)}[:f.t.Size()]...)
			want = append(want, x)
		}
		for _, tier := range tiers() {
			for _, n := range []int{len(want), 1, 15, 16, 17} {
				from := len(want) - n
				g, dst := guard(n, float32(-77))
				tier.float.widen(dst, &src[from*f.t.Size()], f.t)
				if !g.intact() {
					t.Errorf("%s: type %d: wrote around %d elements", tier.name, f.t, n)
				}
				for i, got := range dst {
					if x := want[from+i]; math.Float32bits(got) != math.Float32bits(float32(x)) && !(got != got && x != x) {
						t.Fatalf("%s: type %d, %#x is %x, want %x", tier.name, f.t, from+i, got, x)
					}
				}
			}
		}
	}
}
