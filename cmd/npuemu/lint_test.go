// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"strings"
	"testing"

	"npuemu/core/isa/lint"
)

func TestLint(t *testing.T) {
	good := "../../examples/digits/digits.npuasm"
	if out, _, err := npuemu(t.Context(), "lint", good); err != nil || !strings.Contains(out, "no findings in ") {
		t.Errorf("%v\n%s", err, out)
	}
	bad := file(t, "p.npuasm", ".isa 1.0\n.spad 64\n.bindings 2\nload binding=0 local=0 nx=64\nstore binding=1 local=0 nx=64\nhalt\n")
	if _, _, err := npuemu(t.Context(), "asm", bad); err != nil {
		t.Fatal(err)
	}
	out, _, err := npuemu(t.Context(), "lint", strings.TrimSuffix(bad, "asm"))
	if err == nil || !strings.HasSuffix(err.Error(), "1 findings") {
		t.Errorf("error %v, want one finding", err)
	}
	for _, want := range []string{"p.npuasm:5: instruction 1: store ", "p.npuasm:4 writes", "(HAZARD, §5.5)", "remedy: signal a token at instruction 0"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	out, _, _ = npuemu(t.Context(), "lint", "--json", bad)
	var r lint.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Findings) != 1 || r.Findings[0].Other == nil || r.Findings[0].Other.Line != 4 {
		t.Errorf("%v\n%s", err, out)
	}
}
