// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"math"
	"strings"
	"testing"

	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
)

// What may be apart: nothing where nothing was rounded anew; a step of integers, and a part of the largest element in floating point, where
// something was; of what counts and compares nothing is said.
func TestTolerance(t *testing.T) {
	r := &Rules{products: ir.Float32}
	half := &Rules{products: ir.BFloat16}
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, tt := range []struct {
		name      string
		rules     *Rules
		typ       ir.Type
		want, got []float32
		differ    string // exactly, and within the tolerance
		skipped   bool
	}{
		{"equal", r, ir.Float32, []float32{1, nan, inf}, []float32{1, nan, inf}, "0 0", false},
		{"a little", r, ir.Float32, []float32{100, 1}, []float32{100, 1.001}, "1 0", false},
		{"more", r, ir.Float32, []float32{100, 1}, []float32{100, 1.002}, "1 1", false},
		{"products of bf16", half, ir.Float32, []float32{100, 1}, []float32{101, 2.5}, "2 0", false},
		{"fp16", r, ir.Float16, []float32{100, 1, 2}, []float32{100, 1.125, 2.5}, "2 1", false},
		{"infinity", r, ir.Float32, []float32{inf, 100}, []float32{100, inf}, "2 2", false},
		{"no number", r, ir.Float32, []float32{nan, 1}, []float32{1, nan}, "2 2", false},
		{"the sign of 0", r, ir.Float32, []float32{0}, []float32{float32(math.Copysign(0, -1))}, "1 0", false},
		{"a step", r, ir.Int8, []float32{5, -128, 7}, []float32{6, -127, 9}, "3 1", false},
		{"steps of products in bf16", half, ir.Int8, []float32{5, -128}, []float32{10, -122}, "2 1", false},
		{"int16", r, ir.Int16, []float32{500}, []float32{499}, "1 0", false},
		{"an index", r, ir.Int64, []float32{5}, []float32{6}, "1 ", true},
		{"a comparison", r, ir.Bool, []float32{0}, []float32{1}, "1 ", true},
	} {
		x := &ir.Tensor{Name: "x", Type: tt.typ, Shape: []int{len(tt.want)}}
		put := func(v []float32) []byte {
			if tt.typ.Float() {
				return ref.PutFloats(tt.typ, v, true)
			}
			var n []int64
			for _, f := range v {
				n = append(n, int64(f))
			}
			return ref.PutInts(tt.typ, n)
		}
		want, got := put(tt.want), put(tt.got)
		count := func(tolerance float64) int {
			if d := differ(x, want, got, tolerance); d != nil {
				if len(d.Index) != 1 || d.Want == d.Got || !strings.Contains(d.String(), "elements are more than") {
					t.Errorf("%s: %v", tt.name, d)
				}
				return d.Elements
			}
			return 0
		}
		exact := count(0)
		tolerance, stated := tt.rules.tolerance(x, want)
		said := strings.Fields(tt.differ + " ")
		if stated == tt.skipped || said[0] != string(rune('0'+exact)) || stated && said[1] != string(rune('0'+count(tolerance))) {
			t.Errorf("%s: %d differ, and with a tolerance of %g, %t, %d; want %q", tt.name, exact, tolerance, stated, count(tolerance), tt.differ)
		}
	}
}
