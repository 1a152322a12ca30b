// SPDX-License-Identifier: Apache-2.0

package ir

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const lenet = `graph "two layers"
input %x: int8[1, 4, 4, 2]
const %w: int8[3, 3, 3, 2] = "` + w54 + `"
const %b: int32[3] = "AQAAAAIAAAADAAAA"
node "c1" npu.conv(%x, %w, %b) -> (%y: int8[1, 4, 4, 3] quant(floats[0.5, 0.25, 1e-07], [0, 0, 0], 3)) {dilations=[1, 1], groups=1, hi=127, lo=-128, pads=[1, 1, 1, 1], rounding="fp32", scales=floats[0.5], strides=[1, 1], zero_x=-3}
node "r" npu.reshape(%y) -> (%"a name": int8[48])
node "h" host.Odd(%"a name", _) -> (_, %z: float32[]) {alpha=float NaN, names=strings["a", "b\n"], none=[]}
output %z
`

const w54 = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

func TestRoundTrip(t *testing.T) {
	g, err := Parse(lenet)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Verify(); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := g.Print(&b, false); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(lenet, b.String()); diff != "" {
		t.Errorf("print of parse (-want +got):\n%s", diff)
	}
	if _, err := Parse(strings.ReplaceAll(lenet, "= \""+w54+"\"", "= elided 54 00000000")); err == nil || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("a constant that was left out: %v", err)
	}
}

func TestParseErrors(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"statement", "grpah", "not a statement"},
		{"type", "input %x: int9[1]", "not a type"},
		{"twice", "input %x: int8[1]\ninput %x: int8[1]", "line 2: tensor \"x\" is defined twice"},
		{"undefined", `node "a" A(%x) -> ()`, "not defined above"},
		{"end", "input %x: int8[1] 7", "unexpected"},
		{"base64", `const %x: int8[1] = "!"`, "base64"},
		{"attribute twice", `node "a" A() -> () {b=1, b=2}`, "given twice"},
		{"number", "input %x: int8[z]", "not an integer"},
	} {
		if _, err := Parse(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestVerify breaks the graph above in one place each time.
func TestVerify(t *testing.T) {
	for _, tt := range []struct{ name, from, to, want string }{
		{"constant's size", w54, w54[:48], "the constant has 36 bytes"},
		{"output shape", "%y: int8[1, 4, 4, 3]", "%y: int8[1, 4, 5, 3]", `node "c1" (npu.conv): tensor "y": the shape is [1 4 5 3], not [1 4 4 3]`},
		{"attribute's type", "groups=1", `groups="1"`, "attribute groups is a string, not an integer"},
		{"unknown attribute", "groups=1", "groups=1, hello=2", "no attribute hello"},
		{"missing attribute", "groups=1, ", "", "attribute groups is missing"},
		{"groups", "groups=1", "groups=2", "2 groups do not fit"},
		{"rounding", `rounding="fp32"`, `rounding="up"`, `rounding is "up"`},
		{"scale", "scales=floats[0.5]", "scales=floats[0]", "finite and above 0"},
		{"scales", "scales=floats[0.5]", "scales=floats[0.5, 1]", "2 entries of scales for 3 channels"},
		{"clamp", "hi=127", "hi=128", "outside int8"},
		{"zero", "zero_x=-3", "zero_x=128", "zero_x is 128, outside int8"},
		{"pads", "pads=[1, 1, 1, 1]", "pads=[1, 1, 1]", "has 3 entries, not 4"},
		{"stride", "strides=[1, 1]", "strides=[0, 1]", "at least 1"},
		{"window", "dilations=[1, 1]", "dilations=[5, 5]", "larger than the padded image"},
		{"reshape", "int8[48]", "int8[47]", "changes the number of elements"},
		{"copy", `%"a name": int8[48]`, `%"a name": uint8[48]`, "int8 becomes uint8"},
		{"operation", "npu.reshape", "npu.shape", "no such operation"},
		{"node twice", `"r" npu`, `"c1" npu`, "two nodes have this name"},
		{"quant", "[0, 0, 0], 3", "[0, 0], 3", "2 zero points for 3 scales"},
		{"no output", "output %z", "", "no output"},
		{"too large", "int8[1, 4, 4, 2]", "int8[65536, 65536, 65536, 65536]", "more than"},
		{"negative", "int8[1, 4, 4, 2]", "int8[1, -4, 4, 2]", "below 0"},
		{"bias", "%b: int32[3]", "%b: float32[3]", "must be a constant int32[3]"},
	} {
		text := strings.Replace(lenet, tt.from, tt.to, 1)
		if text == lenet {
			t.Fatalf("%s: nothing to replace", tt.name)
		}
		g, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		var e *Error
		if err := g.Verify(); !errors.As(err, &e) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// What RESIZE cannot do is no operation.
func TestVerifyResize(t *testing.T) {
	for _, tt := range []struct{ name, types, attrs, want string }{
		{"as it is", "int8[1, 4, 4, 2] int8[1, 8, 3, 2]", `mode="floor", mul=floats[0.5, 1]`, ""},
		{"mode", "int8[1, 4, 4, 2] int8[1, 8, 3, 2]", `mode="cubic"`, `mode is "cubic"`},
		{"channels", "int8[1, 4, 4, 2] int8[1, 8, 3, 3]", `mode="floor"`, "images and channels stay"},
		{"no pixel", "int8[1, 4, 4, 2] int8[1, 8, 0, 2]", `mode="floor"`, "there is a line and a pixel"},
		{"axes", "int8[4, 4, 2] int8[8, 3, 2]", `mode="floor"`, "4 axes, not 3"},
		{"another type", "int8[1, 4, 4, 2] int16[1, 8, 3, 2]", `mode="floor"`, "int8 to int16"},
		{"type", "int64[1, 4, 4, 2] int64[1, 8, 3, 2]", `mode="floor"`, "int64 to int64"},
		{"factor", "int8[1, 4, 4, 2] int8[1, 8, 3, 2]", `mode="floor", mul=floats[-1, 1]`, "mul has a -1"},
		{"divisor", "int8[1, 4, 4, 2] int8[1, 8, 3, 2]", `mode="linear", div=floats[1, inf]`, "div has a +Inf"},
		{"steps of another mode", "int8[1, 4, 4, 2] int8[1, 8, 3, 2]", `mode="linear", steps=[1, 1]`, "steps are for mode fixed"},
		{"fixed of floating point", "float32[1, 4, 4, 2] float32[1, 8, 3, 2]", `mode="fixed", steps=[1, 1]`, "mode fixed is of integers"},
		{"no steps", "int8[1, 4, 4, 2] int8[1, 8, 3, 2]", `mode="fixed"`, "mode fixed is of integers"},
		{"step", "int8[1, 4, 4, 2] int8[1, 8, 3, 2]", `mode="fixed", steps=[0, 1]`, "steps from 1"},
	} {
		x, y, _ := strings.Cut(tt.types, "] ")
		g, err := Parse("input %x: " + x + "]\nnode \"n\" npu.resize(%x) -> (%y: " + y + ") {" + tt.attrs + "}\noutput %y")
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if err := g.Verify(); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// Only a bias can be left out.
func TestInputLeftOut(t *testing.T) {
	g, err := Parse("input %x: float32[4]\nnode \"n\" npu.element(%x, _) -> (%y: float32[4]) {op=\"relu\"}\noutput %y")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Verify(); err == nil || !strings.Contains(err.Error(), `node "n" (npu.element): input 1 is missing`) {
		t.Errorf("the error is %v", err)
	}
}

// TestOperations has a graph of every operation of the device level that the one above lacks.
func TestOperations(t *testing.T) {
	g, err := Parse(operations)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Verify(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{"npu.conv": true}
	for _, n := range g.Nodes {
		seen[n.Op] = true
	}
	for op := range ops {
		if !seen[op] {
			t.Errorf("%s is not here", op)
		}
	}
}

var operations = `graph "all"
input %q: int8[1, 4, 4, 2]
input %f: float32[1, 3, 4]
input %c: bool[3, 1]
const %b: float32[1, 4, 2] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
const %g: float32[2] = "AACAPwAAgD8="
const %i: int64[2] = "AAAAAAAAAAABAAAAAAAAAA=="
const %t: int8[256] = "` + t256 + `"
node "1" npu.gemm(%f, %b, %g) -> (%1: float32[1, 3, 2]) {rounding="none", act="tanh", clip=floats[0, 1]}
node "2" npu.layernorm(%1, %g, %g) -> (%2: float32[1, 3, 2]) {epsilon=float 1e-05}
node "3" npu.rmsnorm(%2, %g) -> (%3: float32[1, 3, 2]) {epsilon=float 1e-05}
node "4" npu.softmax(%3) -> (%4: float32[1, 3, 2])
node "5" npu.quantize(%4) -> (%5: uint8[1, 3, 2]) {scales=floats[1, 2, 3], zeros=[1, 2, 3], axis=1, lo=0, hi=255}
node "6" npu.dequantize(%5) -> (%6: float32[1, 3, 2]) {scales=floats[1], zeros=[0]}
node "7" npu.cast(%6) -> (%7: int32[1, 3, 2]) {trunc=1}
node "8" npu.element(%7, %7) -> (%8: int8[1, 3, 2]) {op="add"}
node "9" npu.clip(%8) -> (%9: int8[1, 3, 2]) {lo=0, hi=6}
node "10" npu.select(%c, %9, %8) -> (%10: int8[1, 3, 2])
node "11" npu.table(%10, %t) -> (%11: int8[1, 3, 2])
node "12" npu.qadd(%11, %10) -> (%12: int8[1, 3, 2]) {left_shift=20, multipliers=[1, 1, 1], shifts=[1, 1, 1], zeros=[0, 0, 0], rounding="two", lo=0, hi=1}
node "13" npu.qmul(%12, %10) -> (%13: int8[1, 3, 2]) {multipliers=[1], shifts=[1], zeros=[0, 0, 0], rounding="one", lo=0, hi=1}
node "14" npu.requantize(%13) -> (%14: uint8[1, 3, 2]) {multipliers=[1], shifts=[1], rounding="one", lo=0, hi=1}
node "15" npu.pool(%q) -> (%15: int8[1, 2, 2, 2]) {kind="avg", kernel=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0]}
node "16" npu.reduce(%15) -> (%16: int32[1, 2, 2, 1]) {kind="sum"}
node "17" npu.transpose(%15) -> (%17: int8[2, 2, 2, 1]) {perm=[3, 1, 2, 0]}
node "18" npu.reshape(%17) -> (%18: int8[4, 2])
node "19" npu.concat(%18, %18) -> (%19: int8[4, 4]) {axis=1}
node "20" npu.slice(%19) -> (%20: int8[2, 4]) {starts=[3, 3], steps=[-2, -1]}
node "21" npu.pad(%20) -> (%21: int8[3, 5]) {pads=[1, 0, 0, 1], zero=-3}
node "22" npu.gather(%21, %i) -> (%22: int8[3, 2]) {axis=1}
node "23" npu.expand(%22) -> (%23: int8[7, 3, 2])
node "24" npu.bitcast(%8) -> (%24: uint8[1, 3, 2])
node "25" npu.bitcast(%7) -> (%25: uint8[1, 3, 2, 4])
node "26" npu.bitcast(%25) -> (%26: float32[1, 3, 2])
node "27" npu.resize(%q) -> (%27: int8[1, 8, 3, 2]) {mode="linear", half=1, center=1, div=floats[2, 0.75]}
node "28" npu.resize(%27) -> (%28: int8[1, 4, 4, 2]) {mode="fixed", steps=[2048, 768]}
output %23
`

// t256 is 256 zero bytes.
var t256 = strings.Repeat("A", 342) + "=="

func FuzzParse(f *testing.F) {
	f.Add(lenet)
	f.Add(operations)
	f.Fuzz(func(t *testing.T, text string) {
		g, err := Parse(text)
		if err != nil || g.Verify() != nil {
			return
		}
		var a, b strings.Builder
		if err := g.Print(&a, false); err != nil {
			t.Fatal(err)
		}
		h, err := Parse(a.String())
		if err != nil {
			t.Fatalf("%v in\n%s", err, a.String())
		}
		if err := h.Print(&b, false); err != nil || a.String() != b.String() {
			t.Errorf("%v: printed, parsed and printed again:\n%s\n%s", err, a.String(), b.String())
		}
	})
}
