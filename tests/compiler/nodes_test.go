// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
	"npuemu/tests/onnx"
)

var update = flag.Bool("update", false, "write docs/operators.md")

// wrong are the cases that are known to give another result.
var wrong = map[string]string{
	"test_attention_4d_causal_fp16_expanded": "one unit of fp16: its steps are each rounded to fp16, here and in numpy, where they are in another order",
	"test_dft_inverse":                       "ten elements are what an FFT in fp32 leaves of numbers up to 54: the first 1.9e-7, where numpy gives -7e-16 in fp64 and we 3e-15",
	"test_dft_inverse_opset19":               "the same",
}

// TestNodes runs ONNX's node cases on a card: it gives the bits of the reference, whatever the
// case expects; of what the case expects nothing differs but what wrong names; and no fewer cases pass with nothing on the host than
// docs/operators.md says. That page is what comes out, neither worse nor better; -update writes it.
func TestNodes(t *testing.T) {
	const page = "../../docs/operators.md"
	dir := os.Getenv("NPUEMU_ONNX_NODES")
	if dir == "" {
		missing := "NPUEMU_ONNX_NODES is not set; make operators and make test fetch the cases (tests/onnx/setup.sh) and set it"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
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
		switch _, known := wrong[r.Name]; {
		case r.Status == onnx.Wrong && !known:
			t.Errorf("%s is wrong: %s", r.Name, r.Detail)
		case r.Status != onnx.Wrong && known:
			t.Errorf("%s is %s, and is in the list of those that are wrong", r.Name, r.Status)
		case r.Status == onnx.Host:
			t.Logf("%s %s: %.200s", r.Status, r.Name, r.Detail)
		}
	}
	t.Log(fmt.Sprint(count))
	have, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(have), "| pass | ")
	least := 0
	if _, err := fmt.Sscan(rest, &least); err != nil || least == 0 {
		t.Fatalf("%s does not say how many cases pass: %v", page, err)
	}
	if count[onnx.Pass] < least {
		t.Errorf("%d cases pass on the card alone, and %s says %d; where that is meant, change its number first", count[onnx.Pass], page, least)
	}
	is := onnx.Page(results)
	if is == string(have) {
		return
	}
	if !*update {
		t.Fatalf("docs/operators.md is not what the cases give; make operators writes it:\n%s", lines("-", string(have), is)+lines("+", is, string(have)))
	}
	if t.Failed() {
		t.Fatal("docs/operators.md stays as it is")
	}
	if err := os.WriteFile(page, []byte(is), 0o644); err != nil {
		t.Fatal(err)
	}
}

// lines are those of a that b does not have, with mark before each.
func lines(mark, a, b string) string {
	var out strings.Builder
	other := strings.Split(b, "\n")
	for _, l := range strings.Split(a, "\n") {
		if !slices.Contains(other, l) {
			fmt.Fprintf(&out, "%s %s\n", mark, l)
		}
	}
	return out.String()
}
