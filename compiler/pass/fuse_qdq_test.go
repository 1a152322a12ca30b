// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/compiler/ir"
)

// FuseQDQ makes one product of integers of what is between dequantization and quantization, and leaves what is not quite that. Its values are
// TestGolden's.
func TestFuseQDQ(t *testing.T) {
	head := []string{
		"input %x: int8[2, 2]", "const %s: float32[] = 0.5", "const %two: float32[2] = 0.5 0.25", "const %z: int8[] = 3", "const %w: int8[2, 2] = 1 2 3 4", "const %b: float32[2] = 1 2",
		`node "dx" DequantizeLinear(%x, %s, %z) -> %dx`, `node "dw" DequantizeLinear(%w, %s) -> %dw`,
	}
	for _, tt := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"a product", []string{`node "p" MatMul(%dx, %dw) -> %p`, `node "q" QuantizeLinear(%p, %s, %z) -> %q`, "output %q"}, "QLinearMatMul"},
		{"transposed weights", []string{`node "p" Gemm(%dx, %dw, %b) -> %p {transB=1}`, `node "q" QuantizeLinear(%p, %s, %z) -> %q`, "output %q"}, "Transpose QLinearMatMul"},
		{"an activation", []string{`node "p" MatMul(%dx, %dw) -> %p`, `node "r" Relu(%p) -> %r`, `node "q" QuantizeLinear(%r, %s, %z) -> %q`, "output %q"}, "QLinearMatMul"},
		{"a result that others need", []string{`node "p" MatMul(%dx, %dw) -> %p`, `node "q" QuantizeLinear(%p, %s, %z) -> %q`, "output %q", "output %p"}, "DequantizeLinear DequantizeLinear MatMul QuantizeLinear"},
		{"a factor", []string{`node "p" Gemm(%dx, %dw) -> %p {alpha=float 2}`, `node "q" QuantizeLinear(%p, %s, %z) -> %q`, "output %q"}, "DequantizeLinear DequantizeLinear Gemm QuantizeLinear"},
		{"another operator between", []string{`node "p" MatMul(%dx, %dw) -> %p`, `node "t" Tanh(%p) -> %t`, `node "q" QuantizeLinear(%t, %s, %z) -> %q`, "output %q"}, "DequantizeLinear DequantizeLinear MatMul Tanh QuantizeLinear"},
		{"scales of the other axis", []string{`node "dv" DequantizeLinear(%w, %two) -> %dv {axis=0}`, `node "p" MatMul(%dx, %dv) -> %p`, `node "q" QuantizeLinear(%p, %s, %z) -> %q`, "output %q"}, "DequantizeLinear DequantizeLinear MatMul QuantizeLinear"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := model(t, slices.Concat(head, tt.lines)...)
			RemoveDead(g)
			for _, p := range []func(*ir.Graph) error{Infer, FuseQDQ} {
				if err := p(g); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(tt.want, operations(g)); diff != "" {
				t.Errorf("operators (-want +got):\n%s", diff)
			}
		})
	}
}
