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
	for _, want := range []string{"p.npuasm:5:1: instruction 1: store ", "p.npuasm:4 writes", "(HAZARD, §5.5)", "remedy: signal a token at instruction 0"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	note := file(t, "n.npuasm", ".isa 1.1\n.features gemm\n.spad 2048\n.acc 4\noperands a_type=int16 a_stride=2 b_stride=1 acc_stride=4\ngemm m=1 n=1 k=512 a=0 b=1024 acc=0\nhalt\n")
	out, _, err = npuemu(t.Context(), "lint", note)
	if err != nil || !strings.Contains(out, "n.npuasm:6:1: note: instruction 1: gemm ") || !strings.Contains(out, "(SUM_RANGE, §6.8.1)") || !strings.Contains(out, "no findings in 2 instructions") {
		t.Errorf("a note: %v\n%s", err, out)
	}
	out, _, _ = npuemu(t.Context(), "lint", "--json", bad)
	var r lint.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Findings) != 1 || r.Findings[0].Other == nil || r.Findings[0].Other.Line != 4 {
		t.Errorf("%v\n%s", err, out)
	}
	if r.Findings[0].At.Column != 1 || r.Bindings != 0 || r.Card {
		t.Errorf("%+v", r)
	}
}

// TestLintLaunch: what is known of the launch and the card is proven too.
func TestLintLaunch(t *testing.T) {
	prog := file(t, "p.npuasm", ".isa 1.1\n.features control\n.spad 4096\n.bindings 2\n"+
		"loop reg=s0 count=4\nwith offset=s0*100\n  load binding=0 offset=0 local=0 nx=64\nend\nsync.load signal=0\nstore binding=1 local=0 nx=64 wait=0\nhalt\n")
	data := file(t, "data", strings.Repeat("x", 363))
	small := file(t, "small.toml", "[array]\nscratchpad = 2048\n")
	for _, tt := range []struct {
		name string
		args []string
		want string // in the output, or in the error if it begins with !
	}{
		{"nothing known", nil, "no findings in 6 instructions\n"},
		{"sizes", []string{"--in", "0=364", "--out", "1=0x40"}, "no findings in 6 instructions, with 2 of 2 bindings\n"},
		{"one", []string{"--out", "1=64"}, "no findings in 6 instructions, with 1 of 2 bindings\n"},
		{"a file", []string{"--in", "0=" + data}, "p.npuasm:7:3: instruction 2: load    binding=0 local=0 nx=64: reads byte 0x16b of binding 0, which has 363 bytes; " +
			`in this iteration it is "load binding=0 local=0 offset=0x12c nx=64" (BINDING_BOUNDS, §5.7)` + "\n\tremedy: bind more memory"},
		{"a part of a file", []string{"--in", "0=" + data + ":100:263"}, "of binding 0, which has 263 bytes"},
		{"more of a file than there is", []string{"--in", "0=" + data + ":100:264"}, "!has 363 bytes; 264 at 100 are not there"},
		{"out", []string{"--out", "1=/nowhere/file:63"}, "writes byte 0x3f of binding 1, which has 63 bytes"},
		{"access", []string{"--in", "1=64"}, "(BINDING_ACCESS, §5.7)"},
		{"both", []string{"--in", "1=64", "--out", "1=64"}, "no findings"},
		{"both of different sizes", []string{"--in", "1=64", "--out", "1=65"}, "!--in has 64 bytes for this binding"},
		{"twice", []string{"--in", "1=64", "--in", "1=64"}, "!the binding is given twice"},
		{"no such binding", []string{"--in", "2=64"}, `!--in "2=64": the program has 2 bindings, counted from 0`},
		{"no number", []string{"--in", "x=64"}, "!begin with the binding, 0 to 63, and ="},
		{"no size", []string{"--out", "1=file"}, "!give a size, or a file and its size"},
		{"size 0", []string{"--out", "1=0"}, "!a binding has at least one byte"},
		{"no file", []string{"--in", "0=/nowhere"}, "!no such file"},
		{"no regular file", []string{"--in", "0=/dev/null"}, "!/dev/null is no regular file; give a size"},
		{"alias", []string{"--alias", "1=0"}, "no findings"},
		{"alias of itself", []string{"--alias", "1=1"}, "!name two bindings of the program's 2"},
		{"alias of an alias", []string{"--alias", "1=0", "--alias", "0=1"}, "!relative to one that has no --alias"},
		{"alias offset", []string{"--alias", "1=0+x"}, "!as 2=0 or 2=0+4096"},
		{"architecture", []string{"--arch", "1.2"}, "p.npuasm:1:1: descriptor: .isa 1.1: the program is of ISA 1.1; the newest that the card has is 1.0 (BAD_PROGRAM, §5.3)"},
		{"groups of the architecture", []string{"--arch", "1.2"}, "p.npuasm:5:1: instruction 0: loop    reg=s0 count=4: it is of group control (ISA 1.1), which the card lacks (CONFIG_MISMATCH, §5.3)"},
		{"configuration", []string{"--config", small}, "p.npuasm:3:1: descriptor: .spad 4096: the program asks for 4096 bytes of scratchpad; the card has 2048 (CONFIG_MISMATCH, §5.3)"},
		{"good configuration", []string{"--arch", "1.5"}, "no findings in 6 instructions, on this card\n"},
		{"bad configuration", []string{"--arch", "9"}, "!arch"},
	} {
		out, _, err := npuemu(t.Context(), append([]string{"lint", prog}, tt.args...)...)
		if want, bad := strings.CutPrefix(tt.want, "!"); bad && (err == nil || !strings.Contains(err.Error(), want)) || !bad && !strings.Contains(out, want) {
			t.Errorf("%s: %v\n%s, want %q", tt.name, err, out, tt.want)
		} else if (err == nil) != strings.Contains(out, "no findings") {
			t.Errorf("%s: error %v with\n%s", tt.name, err, out)
		}
	}
	unordered := file(t, "u.npuasm", ".isa 1.0\n.spad 4096\n.bindings 2\nstore binding=0 local=0 nx=64\nload binding=1 local=64 nx=64\nhalt\n")
	if out, _, err := npuemu(t.Context(), "lint", unordered, "--alias", "1=0+63"); err == nil || !strings.Contains(out, "reads memory of binding 0 and 1, address 0x3f") {
		t.Errorf("alias: %v\n%s", err, out)
	}
	if out, _, err := npuemu(t.Context(), "lint", unordered, "--alias", "1=0+64"); err != nil {
		t.Errorf("alias without a byte in common: %v\n%s", err, out)
	}
}
