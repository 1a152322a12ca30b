// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
)

func to(typ ir.Type) func(*ir.Graph) error {
	return func(g *ir.Graph) error { return narrow(g, typ) }
}

// narrow rounds the operands of products of fp32, each once, and nothing else.
func TestNarrow(t *testing.T) {
	head := `input %x: float32[1, 2, 3]
const %w: float32[1, 3, 3] = "AACAPwAAAMAAAEBAAAAAPwAAoMAAAEBAAACAPwAAAMAAAEBA"
input %h: float16[1, 2, 3]
input %i: int8[1, 2, 3]
const %v: int8[1, 3, 2] = "AQL9BPsG"`
	product := `node "g" npu.gemm(%x, %w) -> (%g: float32[1, 2, 3]) {rounding="none", act="tanh"}`
	rows := []change{
		{"a product", []string{product, `output %g`}, "cast gemm", 0.02},
		{"an operand twice", []string{product, `node "s" npu.gemm(%x, %x) -> (%s: float32[1, 2, 2]) {rounding="none", trans_b=1}`, `output %g`, `output %s`}, "cast gemm gemm", 0.1},
		{"what follows", []string{product, `node "k" npu.gemm(%g, %w) -> (%k: float32[1, 2, 3]) {rounding="none"}`, `node "m" npu.softmax(%k) -> (%m: float32[1, 2, 3])`, `output %m`}, "cast gemm cast gemm softmax", 0.05},
		{"of another type", []string{`node "g" npu.gemm(%h, %w) -> (%g: float32[1, 2, 3]) {rounding="none"}`, `output %g`}, "gemm", 0},
		{"of integers", []string{`node "g" npu.gemm(%i, %v) -> (%g: int32[1, 2, 2]) {rounding="none"}`, `output %g`}, "gemm", 0},
	}
	for _, typ := range []ir.Type{ir.BFloat16, ir.Float16} {
		t.Run(typ.String(), func(t *testing.T) { testPass(t, to(typ), head, rows) })
	}
	for i := range rows {
		rows[i].want, rows[i].near = strings.ReplaceAll(rows[i].want, "cast ", ""), 0
	}
	t.Run("float32", func(t *testing.T) { testPass(t, to(ir.Float32), head, rows) })
}

// TestNarrowGolden: products of ONNX's operators in bf16 and fp16 are as near to what its evaluator says as these types allow, and not equal.
func TestNarrowGolden(t *testing.T) {
	for _, as := range []struct {
		typ  ir.Type
		near float64 // two or three units of the last place, by the terms of the longest sum
	}{{ir.BFloat16, 0.04}, {ir.Float16, 0.005}} {
		products, differ := 0, 0
		for _, c := range readGolden(t) {
			if c.family != "matrix" && c.family != "window" && c.family != "attention" {
				continue
			}
			g := model(t, c.lines...)
			if err := RunAs(g, as.typ, nil); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			before := products
			for _, n := range g.Nodes {
				if (n.Op == "npu.conv" || n.Op == "npu.gemm") && n.Inputs[0].Type.Float() {
					products++
					if n.Inputs[0].Type != as.typ || n.Inputs[1].Type != as.typ || n.Outputs[0].Type != ir.Float32 {
						t.Errorf("%s: %s is of %s and %s", c.name, n.Name, n.Inputs[0].Type, n.Inputs[1].Type)
					}
				}
			}
			if products == before {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s", as.typ, c.name), func(t *testing.T) {
				for i, data := range run(t, g, c.in) {
					w := c.want[i]
					w.near = as.near
					w.compare(t, g.Outputs[i], data)
					for k, got := range ref.Doubles(g.Outputs[i].Type, data, g.Outputs[i].Elements()) {
						if math.Abs(got-w.values[k]) > 1e-4 {
							differ++
							break
						}
					}
				}
			})
		}
		if products < 15 || differ < 10 {
			t.Errorf("%s: %d products, results of %d differ from fp32", as.typ, products, differ)
		}
	}
}
