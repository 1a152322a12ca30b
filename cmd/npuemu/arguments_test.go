// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// A program with arguments is proven for those that are given, and otherwise looked at as far as they do not matter.
func TestLintArguments(t *testing.T) {
	p := file(t, "p.npuasm", `.isa 1.4
.features control, arguments
.spad 64
.bindings 1
loop    reg=s4 by_register count_reg=s1
with    offset=s4*8 local=s4*8
load    binding=0 local=0 nx=8
end
halt
`)
	for _, tt := range []struct {
		args []string
		want string // of the error
		out  string
	}{
		{nil, "not proven: the program has arguments", ""},
		{[]string{"--arg", "s1=8"}, "", "no findings in 8 instructions"},
		{[]string{"--arg", "s0=7"}, "", "no findings in 0 instructions"},
		{[]string{"--arg", "s0=7", "--arg", "s1=0x9"}, "1 findings", ": instruction 2: load "},
		{[]string{"--arg", "s1=2147483647"}, "1 findings", "(BUDGET, §5.7)"},
		{[]string{"--arg", "s4=1"}, `--arg "s4=1": registers that a launch gives values are s0 to s3`, ""},
		{[]string{"--arg", "s1=4294967296"}, "-2147483648 to 2147483647", ""},
		{[]string{"--arg", "s1"}, "as in s0=16", ""},
		{[]string{"--arg", "s1=1", "--arg", "s1=1"}, "given twice", ""},
	} {
		out, _, err := npuemu(t.Context(), append([]string{"lint", p}, tt.args...)...)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) || !strings.Contains(out, tt.out) {
			t.Errorf("%v: %v, want %q\n%s, want %q", tt.args, err, tt.want, out, tt.out)
		}
	}
	plain := file(t, "plain.npuasm", ".isa 1.0\nhalt\n")
	if _, _, err := npuemu(t.Context(), "lint", plain, "--arg", "s0=1"); err == nil || !strings.Contains(err.Error(), "the program takes no arguments: it does not name the group arguments in .features") {
		t.Errorf("arguments of a program without: %v", err)
	}
}

// What a card of a configuration would refuse, with the first instruction that needs what it lacks.
func TestAsmForCard(t *testing.T) {
	p := file(t, "p.npuasm", ".isa 1.1\n.features gemm, float\n.spad 64\n.acc 64\nsync.vector\noperands a_type=bf16 b_type=bf16 a_stride=2 b_stride=2 acc_stride=4\ngemm m=1 n=1 k=1 a=0 b=2 acc=0\nhalt\n")
	without := file(t, "card.toml", "[core]\nwithout = [\"mx\", \"float\"]\n")
	whole := file(t, "whole.toml", "[core]\nwithout = [\"mx\"]\n")
	for _, args := range [][]string{{"asm", "-o", "-", p}, {"asm", "-o", "-", p, "--config", whole}, {"asm", "-o", "-", p, "--arch", "1.3"}} {
		if out, _, err := npuemu(t.Context(), args...); err != nil {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
	if _, _, err := npuemu(t.Context(), "asm", "-o", "-", p, "--config", without); err == nil || !strings.Contains(err.Error(), "p.npuasm:6: the card refuses the program at instruction 1, operands a_type=bf16") || !strings.Contains(err.Error(), "it lacks float") {
		t.Errorf("asm: %v", err)
	}
	if _, _, err := npuemu(t.Context(), "asm", "-o", "-", p, "--arch", "1.2"); err == nil {
		t.Error("asm takes a program of ISA 1.1 for architecture 1.2")
	}
	if out, _, err := npuemu(t.Context(), "info", "--config", without); err != nil || !strings.Contains(out, "gemm, control, vector, reduce, pool, sparse, gather, quant, addq, arguments") {
		t.Errorf("info: %v\n%s", err, out)
	}
}

// A program that copies as many rows as its argument says, and what it takes by the timing model.
func TestRunArguments(t *testing.T) {
	p := file(t, "p.npuasm", `.isa 1.4
.features control, arguments
.spad 64
.bindings 2
loop    reg=s4 by_register count_reg=s1
with    offset=s4*8 local=s4*8
load    binding=0 local=0 nx=8
with    if=s4
sync.load
end
sync.load signal=0
store   binding=1 local=0 nx=64 wait=0
halt
`)
	in := file(t, "in.bin", strings.Repeat("12345678", 8))
	run := func(args ...string) (string, error) {
		out, _, err := npuemu(t.Context(), append([]string{"run", p, "--in", "0=" + in, "--out", "1=-:64"}, args...)...)
		return out, err
	}
	for _, tt := range []struct {
		rows int
		args []string
	}{{0, nil}, {3, []string{"--arg", "s1=3"}}, {8, []string{"--arg", "s1=8", "--arg", "s3=-1", "--repeat", "3"}}, {0, []string{"--arg", "s0=3"}}} {
		if out, err := run(tt.args...); err != nil || out != strings.Repeat("12345678", tt.rows)+strings.Repeat("\x00", 64-8*tt.rows) {
			t.Errorf("%v: %q, %v", tt.args, out, err)
		}
	}
	if _, err := run("--arg", "s1=9"); err == nil || !strings.Contains(err.Error(), "LOCAL_BOUNDS") {
		t.Errorf("nine rows: %v", err)
	}
	if _, err := run("--arch", "1.5"); err == nil || !strings.Contains(err.Error(), "BAD_PROGRAM") {
		t.Errorf("a card that has ISA 1.3: %v", err)
	}
	if _, err := run("--arch", "1.5", "--arg", "s1=1"); err == nil || !strings.Contains(err.Error(), "the card takes none") {
		t.Errorf("arguments for a card that takes none: %v", err)
	}
	cycles := func(args ...string) (r []estimateJSON) {
		out, _, err := npuemu(t.Context(), append([]string{"estimate", p, "--format", "json"}, args...)...)
		if err != nil || json.Unmarshal([]byte(out), &r) != nil {
			t.Fatalf("%q, %v", out, err)
		}
		return r
	}
	if none, two, eight := cycles(), cycles("--arg", "s1=2"), cycles("--arg", "s1=8"); none[0].Cycles >= two[0].Cycles || two[0].Cycles >= eight[0].Cycles {
		t.Errorf("%d cycles for no row, %d for two, %d for eight", none[0].Cycles, two[0].Cycles, eight[0].Cycles)
	}
}
