// SPDX-License-Identifier: Apache-2.0

package lint_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/core/isa"
	"npuemu/core/isa/lint"
)

// told is a line for each finding: rule, section, place, message.
func told(r lint.Report) string {
	var lines []string
	for _, f := range r.Findings {
		lines = append(lines, fmt.Sprintf("%s %s %s %d: %s", f.Rule, f.Section, f.At.At(), f.At.Index, f.Message))
	}
	return strings.Join(lines, "\n")
}

// reread is p as it comes from its file.
func reread(t *testing.T, p *isa.Program) *isa.Program {
	t.Helper()
	q, err := isa.ReadELF(bytes.NewReader(p.ELF()))
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// Bounds and access of bindings are proven for each iteration; a finding is of the first that is wrong.
func TestBindings(t *testing.T) {
	read, write := lint.Binding{Size: 1000, Read: true}, lint.Binding{Size: 1000, Write: true}
	both := lint.Binding{Size: 1000, Read: true, Write: true}
	const loop = "loop reg=s0 count=16\nwith offset=s0*64\n  load binding=0 offset=0 local=0 nx=%d\nend"
	for _, tt := range []struct {
		name     string
		in       string
		bindings []lint.Binding
		want     string
	}{
		{"all of it", "load binding=0 local=0 nx=1000", []lint.Binding{read}, ""},
		{"a byte more", "load binding=0 offset=1 local=0 nx=1000", []lint.Binding{read}, "BINDING_BOUNDS §5.7 t:6:1 0: reads byte 0x3e8 of binding 0, which has 1000 bytes"},
		{"rows", "load binding=0 local=0 nx=8 ny=4 stride_y=331 local_stride=8", []lint.Binding{read}, "BINDING_BOUNDS §5.7 t:6:1 0: reads byte 0x3e8 of binding 0, which has 1000 bytes"},
		{"last iteration", fmt.Sprintf(loop, 40), []lint.Binding{read}, ""},
		{"last iteration beyond", fmt.Sprintf(loop, 41), []lint.Binding{read},
			`BINDING_BOUNDS §5.7 t:8:3 2: reads byte 0x3e8 of binding 0, which has 1000 bytes; in this iteration it is "load binding=0 local=0 offset=0x3c0 nx=41"`},
		{"several iterations beyond are one", fmt.Sprintf(loop, 200), []lint.Binding{read},
			`BINDING_BOUNDS §5.7 t:8:3 2: reads byte 0x3e8 of binding 0, which has 1000 bytes; in this iteration it is "load binding=0 local=0 offset=0x340 nx=200"`},
		{"far", "load binding=0 offset=0xffffffffff local=0 nx=1", []lint.Binding{read}, "BINDING_BOUNDS §5.7 t:6:1 0: reads byte 0xffffffffff of binding 0, which has 1000 bytes"},
		{"store", "store binding=1 offset=990 local=0 nx=11", []lint.Binding{read, write}, "BINDING_BOUNDS §5.7 t:6:1 0: writes byte 0x3e8 of binding 1, which has 1000 bytes"},
		{"read of what is written", "load binding=0 local=0 nx=1", []lint.Binding{write}, "BINDING_ACCESS §5.7 t:6:1 0: reads binding 0, which is bound for writing alone"},
		{"write of what is read", "store binding=0 local=0 nx=1", []lint.Binding{read}, "BINDING_ACCESS §5.7 t:6:1 0: writes binding 0, which is bound for reading alone"},
		{"stamp", "stamp binding=0 offset=985 id=1", []lint.Binding{both}, "BINDING_BOUNDS §5.7 t:6:1 0: writes byte 0x3e8 of binding 0, which has 1000 bytes"},
		{"stamp where it may not", "stamp binding=0 id=1", []lint.Binding{read}, "BINDING_ACCESS §5.7 t:6:1 0: writes binding 0, which is bound for reading alone"},
		{"fewer bindings than it uses", "load binding=1 local=0 nx=1", []lint.Binding{read}, ""},
		{"one that is not known", "load binding=0 local=0 nx=2000\nstore binding=1 local=2000 nx=2000", []lint.Binding{{}, write},
			"BINDING_BOUNDS §5.7 t:7:1 1: writes byte 0x3e8 of binding 1, which has 1000 bytes"},
		{"nothing known", "load binding=0 local=0 nx=2000\nstore binding=1 local=2000 nx=2000", nil, ""},
		{"hazards besides", "load binding=0 local=0 nx=2000\nstore binding=1 local=0 nx=1", []lint.Binding{read, write},
			"BINDING_BOUNDS §5.7 t:6:1 0: reads byte 0x3e8 of binding 0, which has 1000 bytes\n" +
				"HAZARD §5.5 t:7:1 1: read after write: reads scratchpad address 0x0, which instruction 0 (load) of t:6 writes; no token orders the two"},
		{"left out by a condition", "with if=s1\nload binding=0 local=0 nx=2000", []lint.Binding{read}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := lint.CheckFor(assemble(t, "t", head+tt.in+"\nhalt\n"), lint.Options{Bindings: tt.bindings})
			if diff := cmp.Diff(tt.want, told(r)); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
			for _, f := range r.Findings {
				if f.Remedy == "" {
					t.Errorf("no remedy in %+v", f)
				}
			}
		})
	}
}

// Two bindings that are the same memory are told of only if they are said to be.
func TestShares(t *testing.T) {
	p := assemble(t, "t", head+"store binding=0 offset=100 local=0 nx=64\nload binding=1 local=1024 nx=64\nhalt\n")
	for _, tt := range []struct {
		shares []lint.Share
		want   string
	}{
		{nil, ""},
		{[]lint.Share{{A: 1, B: 0}}, ""},
		{[]lint.Share{{A: 1, B: 0, Offset: 36}}, ""},
		{[]lint.Share{{A: 1, B: 0, Offset: 37}},
			"HAZARD §5.5 t:7:1 1: read after write: reads memory of binding 0 and 1, address 0x64, which instruction 0 (store) of t:6 writes; no token orders the two"},
		{[]lint.Share{{A: 1, B: 0, Offset: 163}},
			"HAZARD §5.5 t:7:1 1: read after write: reads memory of binding 0 and 1, address 0xa3, which instruction 0 (store) of t:6 writes; no token orders the two"},
		{[]lint.Share{{A: 1, B: 0, Offset: 164}}, ""},
	} {
		if diff := cmp.Diff(tt.want, told(lint.CheckFor(p, lint.Options{Shares: tt.shares}))); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", tt.shares, diff)
		}
	}
}

// What a card lacks is told with the first instruction that needs it.
func TestCard(t *testing.T) {
	const wide = ".isa 1.3\n.features gemm, float, vector, addq\n.array 32, 32\n  .spad 65536\n.acc 4096\n"
	good := lint.Card{Rows: 32, Cols: 32, SpadSize: 1 << 20, AccSize: 1 << 20, Minor: 3, Features: isa.Features}
	card := func(change func(*lint.Card)) lint.Card {
		c := good
		change(&c)
		return c
	}
	const operands = "operands a_type=bf16 b_type=bf16 a_stride=2 b_stride=2 acc_stride=4\n"
	for _, tt := range []struct {
		name string
		in   string
		card lint.Card
		want string
	}{
		{"all there", operands, good, ""},
		{"ISA", "", card(func(c *lint.Card) { c.Minor = 2 }), "BAD_PROGRAM §5.3 t:1:1 -1: the program is of ISA 1.3; the newest that the card has is 1.2"},
		{"array", "", card(func(c *lint.Card) { c.Cols = 16 }), "CONFIG_MISMATCH §5.3 t:3:1 -1: the program is for an array of 32 × 32; the card's has 32 × 16"},
		{"group", "fill local=0 nx=1\n window\n" + operands, card(func(c *lint.Card) { c.Features &^= isa.FeatureGEMM }),
			"CONFIG_MISMATCH §5.3 t:7:2 1: it is of group gemm (ISA 1.1), which the card lacks"},
		{"type", "operands a_stride=1\n" + operands, card(func(c *lint.Card) { c.Features &^= isa.FeatureFloat }),
			"CONFIG_MISMATCH §5.3 t:7:1 1: a_type needs group float (ISA 1.1), which the card lacks"},
		{"rounding", "requant n=1 acc=0 out=0 params=64 rounding=two\n", card(func(c *lint.Card) { c.Features &^= isa.FeatureVector }),
			"CONFIG_MISMATCH §5.3 t:6:1 0: rounding needs group vector (ISA 1.1), which the card lacks"},
		{"group that nothing needs", operands, card(func(c *lint.Card) { c.Features &^= isa.FeatureAddq }),
			"CONFIG_MISMATCH §5.3 t:2:1 -1: the program names group addq (ISA 1.3), which the card lacks, and no instruction needs it"},
		{"scratchpad", "fill local=0 nx=32768\nfill local=32768 nx=1\nfill local=40000 nx=1\n", card(func(c *lint.Card) { c.SpadSize = 32768 }),
			"CONFIG_MISMATCH §5.3 t:7:1 1: local reaches address 0x8000 of the scratchpad; the card has 32768 bytes, and the program asks for 65536"},
		{"scratchpad that nothing needs", "fill local=0 nx=32768\n", card(func(c *lint.Card) { c.SpadSize = 32768 }),
			"CONFIG_MISMATCH §5.3 t:4:3 -1: the program asks for 65536 bytes of scratchpad; the card has 32768"},
		{"accumulators", "fill local=2048 nx=4 acc_mem\n", card(func(c *lint.Card) { c.AccSize = 2048 }),
			"CONFIG_MISMATCH §5.3 t:6:1 0: local reaches address 0x800 of the accumulators; the card has 2048 bytes, and the program asks for 4096"},
		{"all at once, and a hazard", "element op=move type=int8 out_type=int8 x=0 out=0 n=64\npreload k=1 n=8 weights=0\n", lint.Card{Rows: 8, Cols: 8, SpadSize: 8, AccSize: 8},
			"BAD_PROGRAM §5.3 t:1:1 -1: the program is of ISA 1.3; the newest that the card has is 1.0\n" +
				"CONFIG_MISMATCH §5.3 t:3:1 -1: the program is for an array of 32 × 32; the card's has 8 × 8\n" +
				"CONFIG_MISMATCH §5.3 t:2:1 -1: the program names group gemm (ISA 1.1), which the card lacks, and no instruction needs it\n" +
				"CONFIG_MISMATCH §5.3 t:2:1 -1: the program names group float (ISA 1.1), which the card lacks, and no instruction needs it\n" +
				"CONFIG_MISMATCH §5.3 t:6:1 0: it is of group vector (ISA 1.1), which the card lacks\n" +
				"CONFIG_MISMATCH §5.3 t:2:1 -1: the program names group addq (ISA 1.3), which the card lacks, and no instruction needs it\n" +
				"CONFIG_MISMATCH §5.3 t:6:1 0: x reaches address 0x8 of the scratchpad; the card has 8 bytes, and the program asks for 65536\n" +
				"CONFIG_MISMATCH §5.3 t:5:1 -1: the program asks for 4096 bytes of accumulators; the card has 8\n" +
				"HAZARD §5.5 t:7:1 1: read after write: reads scratchpad address 0x0, which instruction 0 (element) of t:6 writes; no token orders the two"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := assemble(t, "t", wide+tt.in+"halt\n")
			r := lint.CheckFor(p, lint.Options{Card: &tt.card})
			if diff := cmp.Diff(tt.want, told(r)); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
			// A program in a file says the same: it has the places too.
			if diff := cmp.Diff(told(r), told(lint.CheckFor(reread(t, p), lint.Options{Card: &tt.card}))); diff != "" {
				t.Errorf("findings of the ELF file (-text +file):\n%s", diff)
			}
		})
	}
}
