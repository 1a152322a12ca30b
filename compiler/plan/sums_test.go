// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"npuemu/compiler/ir"
	"npuemu/compiler/plan"
	"npuemu/compiler/ref"
	"npuemu/core/isa"
)

// disassemble is the programs of p as text, with a space between words.
func disassemble(p *plan.Plan) string {
	var b strings.Builder
	for _, s := range p.Segments {
		if s.Program != nil {
			b.WriteString(strings.Join(strings.Fields(isa.Disassemble(s.Program)), " "))
		}
	}
	return b.String()
}

// The sum of two dequantized tensors, quantized, is one ADDQ where that gives the same bits for every pair of
// bytes, and as it stands where it does not.
func TestSums(t *testing.T) {
	const (
		typical = "0.0273 0.0191 0.0311"
		ties    = "0.1 0.1 0.2" // every other pair is a tie, which falls as the roundings before it have it
	)
	for _, tt := range []struct{ name, kind, op, act, scales, want string }{
		{"sum", "int8", "add", "", typical, "addq op=add"},
		{"sum and ReLU", "int8", "add", `{op="relu"}`, typical, "addq op=add"},
		{"sum and clip", "uint8", "add", `{clip=floats[0, 3]}`, typical, "addq op=add"},
		{"difference", "uint8", "sub", "", typical, "addq op=sub"},
		{"product", "int8", "mul", "", "0.0273 0.0191 0.0011", "addq op=mul"},
		{"nearly all are clamped", "int8", "add", "", "1 1 7.888609052210118e-31", "addq op=add"},
		{"ties", "int8", "add", "", ties, "element op=div"},
		{"ties that all fall to one side", "int8", "add", "", "0.5 0.5 1", "addq op=add"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := strings.Fields(tt.scales)
			last, act := "c", ""
			if tt.act != "" {
				op := "element"
				if strings.Contains(tt.act, "clip") {
					op = "clip"
				}
				last, act = "d", fmt.Sprintf("node \"d\" npu.%s(%%c) -> (%%d: float32[256, 256]) %s\n", op, strings.Replace(tt.act, "}", ", chain=1}", 1))
			}
			zero, lo, hi := -9, -128, 127
			if tt.kind == "uint8" {
				zero, lo, hi = 119, 0, 255
			}
			text := fmt.Sprintf(`input %%x: %s[256, 256]
				input %%y: %s[256, 256]
				node "a" npu.dequantize(%%x) -> (%%a: float32[256, 256]) {scales=floats[%s], zeros=[%d], chain=1}
				node "b" npu.dequantize(%%y) -> (%%b: float32[256, 256]) {scales=floats[%s], zeros=[5], chain=1}
				node "c" npu.element(%%a, %%b) -> (%%c: float32[256, 256]) {op=%q, chain=1}
				%snode "e" npu.quantize(%%%s) -> (%%e: %s[256, 256]) {scales=floats[%s], zeros=[3], lo=%d, hi=%d, chain=1}
				output %%e`, tt.kind, tt.kind, s[0], zero, s[1], tt.op, act, last, tt.kind, s[2], lo, hi)
			g, err := ir.Parse(text)
			if err == nil {
				err = g.Verify()
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			x, y := make([]byte, 1<<16), make([]byte, 1<<16)
			for i := range x {
				x[i], y[i] = byte(i>>8), byte(i)
			}
			want, err := ref.Run(g, [][]byte{x, y}, nil)
			if err != nil {
				t.Fatal(err)
			}
			for name, target := range targets {
				p, err := plan.New(g, target, plan.Compact)
				if err != nil {
					t.Fatal(err)
				}
				if got := execute(t, p, [][]byte{x, y}); !bytes.Equal(want[0], got[0]) {
					t.Errorf("%s: result differs%s", name, diff(g.Outputs[0], want[0], got[0]))
				}
				has := tt.want
				if name == "older" {
					has = "element op=div" // it lacks ADDQ
				}
				if text := disassemble(p); !strings.Contains(text, has) {
					t.Errorf("%s: there is no %q in the program", name, has)
				}
			}
		})
	}
}

// A sum of which something is needed elsewhere is no single instruction.
func TestSumsThatOthersNeed(t *testing.T) {
	const text = `input %x: int8[9, 70]
		input %y: int8[9, 70]
		node "a" npu.dequantize(%x) -> (%a: float32[9, 70]) {scales=floats[0.0273], zeros=[5], chain=1}
		node "b" npu.dequantize(%y) -> (%b: float32[9, 70]) {scales=floats[0.0191], zeros=[5], chain=1}
		node "c" npu.element(%a, %b) -> (%c: float32[9, 70]) {op="add", chain=1}
		node "e" npu.quantize(%c) -> (%e: int8[9, 70]) {scales=floats[0.0311], zeros=[3], lo=-128, hi=127, chain=1}
		output %e
		output `
	for _, also := range []string{"%c", "%a"} {
		check(t, text+also)
		g, err := ir.Parse(text + also)
		if err != nil {
			t.Fatal(err)
		}
		p, err := plan.New(g, targets["default"], plan.Compact)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(disassemble(p), "addq") {
			t.Errorf("%s is an output, and there is an ADDQ", also)
		}
	}
}
