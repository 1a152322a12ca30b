// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"fmt"
	"strings"
	"testing"

	"npuemu/compiler/ir"
)

// Chains are numbered and stand together; order is that of what they need.
func TestChains(t *testing.T) {
	const gemm = `npu.gemm(%x, %w) -> (%p: float32[1, 4, 4]) {rounding="none"}`
	unary := func(name, from, to, more string) string {
		return fmt.Sprintf("node %q npu.element(%%%s) -> (%%%s: float32[1, 4, 4]) {op=\"exp\"%s}", name, from, to, more)
	}
	add := func(name, a, b, to string) string {
		return fmt.Sprintf("node %q npu.element(%%%s, %%%s) -> (%%%s: float32[1, 4, 4]) {op=\"add\"}", name, a, b, to)
	}
	for _, tt := range []struct {
		name, want string
		lines      []string
	}{
		{"one behind the other", "a1 b1 c1", []string{unary("a", "x", "a", ""), unary("b", "a", "b", ""), unary("c", "b", "c", ""), "output %c"}},
		{"two that meet", "a1 b1 c1", []string{unary("a", "x", "a", ""), unary("b", "w", "b", ""), add("c", "a", "b", "c"), "output %c"}},
		{"a value that others need later", "a1 b1 g", []string{unary("a", "x", "a", ""), unary("b", "a", "b", ""), `node "g" npu.gemm(%a, %b) -> (%p: float32[1, 4, 4]) {rounding="none"}`, "output %p"}},
		{"a value that is needed before the chain ends", "a g1 b1", []string{unary("a", "x", "a", ""), `node "g" npu.gemm(%a, %w) -> (%p: float32[1, 4, 4]) {rounding="none"}`, add("b", "a", "p", "b"), "output %b"}},
		{"a product before one", "g1 a1", []string{`node "g" ` + gemm, unary("a", "p", "a", ""), "output %a"}},
		{"a product whose result is an output", "g a", []string{`node "g" ` + gemm, unary("a", "p", "a", ""), "output %a", "output %p"}},
		{"the later of two products", "g h1 a1", []string{`node "g" ` + gemm, `node "h" npu.gemm(%w, %x) -> (%q: float32[1, 4, 4]) {rounding="none"}`, add("a", "p", "q", "a"), "output %a"}},
		{"a product moves to its chain", "h i g1 a1", []string{`node "g" ` + gemm, `node "h" npu.gemm(%w, %x) -> (%q: float32[1, 4, 4]) {rounding="none"}`, `node "i" npu.transpose(%q) -> (%r: float32[1, 4, 4]) {perm=[0, 2, 1]}`, add("a", "p", "r", "a"), "output %a"}},
		{"broadcast", "a b", []string{`node "a" npu.element(%s) -> (%a: float32[4]) {op="exp"}`, add("b", "a", "x", "b"), "output %b"}},
		{"rows", "a1 s1", []string{unary("a", "x", "a", ""), `node "s" npu.softmax(%a) -> (%b: float32[1, 4, 4]) {}`, "output %b"}},
		{"integers that nobody else needs", "q1 d1 a1 b2 c2 r2", []string{
			`node "q" npu.quantize(%x) -> (%q: int8[1, 4, 4]) {scales=floats[1], zeros=[0], lo=-128, hi=127}`, `node "d" npu.dequantize(%q) -> (%d: float32[1, 4, 4]) {scales=floats[1], zeros=[0]}`, unary("a", "d", "a", ""),
			`node "b" npu.quantize(%w) -> (%b: int8[1, 4, 4]) {scales=floats[1], zeros=[0], lo=-128, hi=127}`, `node "c" npu.dequantize(%b) -> (%c: float32[1, 4, 4]) {scales=floats[1], zeros=[0]}`, unary("r", "c", "r", ""), "output %a", "output %r",
		}},
		{"integers that others need too", "q d1 a1 b", []string{
			`node "q" npu.quantize(%x) -> (%q: int8[1, 4, 4]) {scales=floats[1], zeros=[0], lo=-128, hi=127}`, `node "d" npu.dequantize(%q) -> (%d: float32[1, 4, 4]) {scales=floats[1], zeros=[0]}`, unary("a", "d", "a", ""),
			`node "b" npu.reduce(%q) -> (%b: int8[1, 4, 1]) {kind="max"}`, "output %a", "output %b",
		}},
		{"the host is no part", "a h", []string{unary("a", "x", "a", ""), `node "h" host.odd(%a) -> (%b: float32[1, 4, 4]) {}`, "output %b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := "graph \"g\"\ninput %x: float32[1, 4, 4]\ninput %w: float32[1, 4, 4]\ninput %s: float32[4]\n" + strings.Join(tt.lines, "\n")
			g, err := ir.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			if err := Chains(g); err != nil {
				t.Fatal(err)
			}
			if err := g.Verify(); err != nil {
				t.Error(err)
			}
			var got []string
			for _, n := range g.Nodes {
				s := n.Name
				if c := n.Attrs.Int("chain", 0); c != 0 {
					s += fmt.Sprint(c)
				}
				got = append(got, s)
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("nodes and chains %v, want %s", got, tt.want)
			}
		})
	}
}

// Chains have bounds, so that tiles stay large.
func TestLongChains(t *testing.T) {
	var b strings.Builder
	b.WriteString("graph \"g\"\ninput %x0: int8[9]\n")
	for i := range 60 {
		fmt.Fprintf(&b, "node \"n%d\" npu.element(%%x%d) -> (%%x%d: int8[9]) {op=\"neg\"}\n", i, i, i+1)
	}
	for i := range 10 {
		fmt.Fprintf(&b, "input %%y%d: int8[9]\nnode \"m%d\" npu.element(%%x%d, %%y%d) -> (%%x%d: int8[9]) {op=\"add\"}\n", i, i, 60+i, i, 61+i)
	}
	b.WriteString("output %x70\n")
	g, err := ir.Parse(b.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := Chains(g); err != nil {
		t.Fatal(err)
	}
	nodes, operands := map[int]int{}, map[int]int{}
	for _, n := range g.Nodes {
		c := n.Attrs.Int("chain", 0)
		if nodes[c]++; strings.HasPrefix(n.Name, "m") {
			operands[c]++
		}
	}
	for c := range nodes {
		if c == 0 || nodes[c] > mostLinks || operands[c] >= mostOperands+1 {
			t.Errorf("chain %d has %d operations and %d operands of its own", c, nodes[c], operands[c])
		}
	}
}
