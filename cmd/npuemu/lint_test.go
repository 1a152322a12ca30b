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
	note := file(t, "n.npuasm", ".isa 1.1\n.features gemm\n.spad 2048\n.acc 4\noperands a_type=int16 a_stride=2 b_stride=1 acc_stride=4\ngemm m=1 n=1 k=512 a=0 b=1024 acc=0\nhalt\n")
	out, _, err = npuemu(t.Context(), "lint", note)
	if err != nil || !strings.Contains(out, "n.npuasm:6: note: instruction 1: gemm ") || !strings.Contains(out, "(SUM_RANGE, §6.8.1)") || !strings.Contains(out, "no findings in 2 instructions") {
		t.Errorf("a note: %v\n%s", err, out)
	}
	out, _, _ = npuemu(t.Context(), "lint", "--json", bad)
	var r lint.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Findings) != 1 || r.Findings[0].Other == nil || r.Findings[0].Other.Line != 4 {
		t.Errorf("%v\n%s", err, out)
	}
}

// What a card of a configuration would refuse, with the first instruction that needs what it lacks.
func TestLintForCard(t *testing.T) {
	p := file(t, "p.npuasm", ".isa 1.1\n.features gemm, float\n.spad 64\n.acc 64\nsync.vector\noperands a_type=bf16 b_type=bf16 a_stride=2 b_stride=2 acc_stride=4\ngemm m=1 n=1 k=1 a=0 b=2 acc=0\nhalt\n")
	without := file(t, "card.toml", "[core]\nwithout = [\"mx\", \"float\"]\n")
	whole := file(t, "whole.toml", "[core]\nwithout = [\"mx\"]\n")
	for _, args := range [][]string{{"lint", p}, {"lint", p, "--config", whole}, {"asm", "-o", "-", p, "--config", whole}, {"lint", p, "--arch", "1.3"}} {
		if out, _, err := npuemu(t.Context(), args...); err != nil {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
	out, _, err := npuemu(t.Context(), "lint", p, "--config", without)
	if err == nil || !strings.Contains(out, "p.npuasm:6: instruction 1: operands a_type=bf16") || !strings.Contains(out, "it lacks float (CONFIG_MISMATCH, §5.3)") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, _, err := npuemu(t.Context(), "asm", "-o", "-", p, "--config", without); err == nil || !strings.Contains(err.Error(), "p.npuasm:6: the card refuses the program at instruction 1, operands a_type=bf16") {
		t.Errorf("asm: %v", err)
	}
	if _, _, err := npuemu(t.Context(), "lint", p, "--arch", "1.2"); err == nil {
		t.Error("lint takes a program of ISA 1.1 for architecture 1.2")
	}
	if out, _, err := npuemu(t.Context(), "info", "--config", without); err != nil || !strings.Contains(out, "gemm, control, vector, reduce, pool, sparse, gather, quant, addq") {
		t.Errorf("info: %v\n%s", err, out)
	}
}
