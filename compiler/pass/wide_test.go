// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
)

// TestWide: integers that the vector engine lacks are computed by it all the same, with all their bits: pairs of numbers at the ends of
// their ranges and of their halves, and random ones, beside Go's.
func TestWide(t *testing.T) {
	type op struct {
		signed   func(x, y int64) int64
		unsigned func(x, y uint64) uint64 // where that is another result
		node     string
		types    []ir.Type
	}
	small := []ir.Type{ir.Uint16, ir.Uint32}
	all := append([]ir.Type{ir.Int64, ir.Uint64}, small...)
	truth := func(b bool) int64 {
		if b {
			return 1
		}
		return 0
	}
	for _, tt := range []op{
		{func(x, y int64) int64 { return x + y }, nil, "Add", all},
		{func(x, y int64) int64 { return x - y }, nil, "Sub", all},
		{func(x, y int64) int64 { return x * y }, nil, "Mul", all},
		{func(x, y int64) int64 { return x & y }, nil, "BitwiseAnd", all},
		{func(x, y int64) int64 { return x | y }, nil, "BitwiseOr", all},
		{func(x, y int64) int64 { return x ^ y }, nil, "BitwiseXor", all},
		{func(x, y int64) int64 { return min(x, y) }, func(x, y uint64) uint64 { return min(x, y) }, "Min", all},
		{func(x, y int64) int64 { return max(x, y) }, func(x, y uint64) uint64 { return max(x, y) }, "Max", all},
		{func(x, y int64) int64 { return truth(x == y) }, nil, "Equal", all},
		{func(x, y int64) int64 { return truth(x < y) }, func(x, y uint64) uint64 { return uint64(truth(x < y)) }, "Less", all},
		{func(x, y int64) int64 { return truth(x <= y) }, func(x, y uint64) uint64 { return uint64(truth(x <= y)) }, "LessOrEqual", all},
		{func(x, y int64) int64 { return truth(x > y) }, func(x, y uint64) uint64 { return uint64(truth(x > y)) }, "Greater", all},
		{func(x, y int64) int64 { return x << (y & 15) }, nil, `BitShift LEFT`, small},
		{nil, func(x, y uint64) uint64 { return x >> (y & 15) }, `BitShift RIGHT`, small},
		{nil, func(x, y uint64) uint64 { return x / max(y, 1) }, "Div", []ir.Type{ir.Uint16}},
		{nil, func(x, y uint64) uint64 { return x % max(y, 1) }, "Mod", []ir.Type{ir.Uint16}},
	} {
		for _, typ := range tt.types {
			t.Run(fmt.Sprintf("%s of %s", tt.node, typ), func(t *testing.T) {
				name, direction := tt.node, ""
				fmt.Sscan(tt.node, &name, &direction) //nolint:errcheck // the second is there or not
				r := rand.New(rand.NewPCG(1, uint64(typ)))
				ends := []int64{0, 1, -1, 2, -2, math.MinInt64, math.MaxInt64, 1 << 31, 1<<31 - 1, -1 << 31, -1<<31 - 1, 1 << 32, 1<<32 - 1, 1 << 16, 1<<16 - 1, 1 << 15}
				var x, y []int64
				for _, a := range ends {
					for _, b := range ends {
						x, y = append(x, a), append(y, b)
					}
				}
				for range 3000 {
					a, b := int64(r.Uint64()), int64(r.Uint64())
					x, y = append(x, a, a, a>>33), append(y, b, a^int64(r.Uint64N(4))<<31, b>>(r.Uint64N(63)))
				}
				if direction != "" || name == "Div" || name == "Mod" {
					for i := range y {
						switch {
						case direction != "":
							y[i] &= 15
						case uint16(y[i]) == 0:
							y[i] = 1
						}
					}
				}
				attrs := ""
				if direction != "" {
					attrs = fmt.Sprintf(` {direction="%s"}`, direction)
				}
				g := model(t, fmt.Sprintf("input %%x: %s[%d]", typ, len(x)), fmt.Sprintf("input %%y: %s[%d]", typ, len(y)), fmt.Sprintf(`node "n" %s(%%x, %%y) -> %%z%s`, name, attrs), "output %z")
				if err := Run(g, nil); err != nil {
					t.Fatal(err)
				}
				if h := HostNodes(g); len(h) > 0 {
					t.Fatalf("%s is on the host", h[0].Op)
				}
				in := [][]byte{ref.PutInts(typ, x), ref.PutInts(typ, y)}
				z := g.Outputs[0]
				got := ref.Ints(z.Type, run(t, g, in)[0], len(x))
				x, y = ref.Ints(typ, in[0], len(x)), ref.Ints(typ, in[1], len(y)) // as the type has them
				want := make([]int64, len(x))
				for i := range want {
					if tt.unsigned != nil && (!typ.Signed() || tt.signed == nil) {
						want[i] = int64(tt.unsigned(uint64(x[i]), uint64(y[i])))
					} else {
						want[i] = tt.signed(x[i], y[i])
					}
				}
				want = ref.Ints(z.Type, ref.PutInts(z.Type, want), len(want))
				for i := range want {
					if got[i] != want[i] {
						t.Fatalf("%d and %d give %d, not %d", x[i], y[i], got[i], want[i])
					}
				}
			})
		}
	}
}

// TestWideCast: int64 becomes fp32 with one rounding.
func TestWideCast(t *testing.T) {
	var x []int64
	r := rand.New(rand.NewPCG(1, 2))
	for bits := range 63 {
		for d := int64(-3); d <= 3; d++ {
			x = append(x, int64(1)<<bits+d, -(int64(1)<<bits)+d, int64(3)<<max(bits-1, 0)+d, math.MinInt64+1<<bits+d)
		}
		for range 40 { // next to ties of 24 bits
			tie := (int64(r.Uint64N(1<<23))|1<<23)<<1 | 1
			v := int64(uint64(tie) << max(bits-25, 0))
			x = append(x, v, v+1, v-1, -v, -v+1, -v-1, int64(r.Uint64())>>bits)
		}
	}
	for _, typ := range []ir.Type{ir.Float32, ir.Float16} {
		g := model(t, fmt.Sprintf("input %%x: int64[%d]", len(x)), fmt.Sprintf(`node "n" Cast(%%x) -> %%y {to=%d}`, map[ir.Type]int{ir.Float32: 1, ir.Float16: 10}[typ]), "output %y")
		if err := Run(g, nil); err != nil || len(HostNodes(g)) > 0 {
			t.Fatalf("%v, or on the host", err)
		}
		got := ref.Floats(typ, run(t, g, [][]byte{ref.PutInts(ir.Int64, x)})[0], len(x))
		f := make([]float32, len(x))
		for i, v := range x {
			f[i] = float32(v)
		}
		want := ref.Floats(typ, ref.PutFloats(typ, f, false), len(f))
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%d is %g as %s, not %g", x[i], got[i], typ, want[i])
			}
		}
	}
}
