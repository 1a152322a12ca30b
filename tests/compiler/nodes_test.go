// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"testing"

	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
	"npuemu/tests/onnx"
)

var update = flag.Bool("update", false, "write docs/operators.md")

// TestNodes runs ONNX's node cases on a card: it gives the bits of the reference, whatever the
// case expects, and at least leastNodes give what the case expects with nothing on the host. docs/operators.md is
// what comes out; -update writes it.
func TestNodes(t *testing.T) {
	const leastNodes = 800
	dir := os.Getenv("NPUEMU_ONNX_NODES")
	if dir == "" {
		t.Skip("NPUEMU_ONNX_NODES is not set; make operators makes the cases and sets it")
	}
	c := newCard(t)
	exec := func(g *ir.Graph, in [][]byte) ([][]byte, []string, error) {
		out, hosts, err := c.Execute(t.Context(), g, in)
		if err != nil {
			t.Errorf("%v\n%s", err, g)
			return nil, nil, err
		}
		var names []string
		for _, h := range hosts {
			if h.Op[:4] == "npu." {
				names = append(names, h.Op+": "+h.Host)
			}
		}
		want, err := ref.Run(g, in, nil)
		if err != nil {
			return nil, nil, err
		}
		for i := range want {
			if !bytes.Equal(want[i], out[i]) {
				t.Errorf("output %d is not that of the reference\n%s", i, g)
			}
		}
		return out, names, nil
	}
	results, err := onnx.RunAll(dir, exec)
	if err != nil {
		t.Fatal(err)
	}
	count := map[onnx.Status]int{}
	for _, r := range results {
		count[r.Status]++
		if r.Status == onnx.Wrong || r.Status == onnx.Host {
			t.Logf("%s %s: %.200s", r.Status, r.Name, r.Detail)
		}
	}
	t.Log(fmt.Sprint(count))
	if count[onnx.Pass] < leastNodes {
		t.Errorf("%d cases pass on the card alone, want %d", count[onnx.Pass], leastNodes)
	}
	const page = "../../docs/operators.md"
	if *update {
		if err := os.WriteFile(page, []byte(onnx.Page(results)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != onnx.Page(results) {
		t.Error("docs/operators.md is not what the cases give; make operators writes it")
	}
}
