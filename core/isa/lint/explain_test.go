// SPDX-License-Identifier: Apache-2.0

package lint_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/core"
	"npuemu/core/isa"
	"npuemu/core/isa/lint"
)

// zeros is memory that holds nothing, and fails from an address on.
type zeros struct{ fails uint64 }

func (z zeros) Load(b core.Binding, off uint64, p []byte) error {
	if z.fails > 0 && b.Addr+off >= z.fails {
		return errors.New("not there")
	}
	clear(p)
	return nil
}

func (z zeros) Store(b core.Binding, off uint64, p []byte) error { return z.Load(b, off, p) }

// TestExplain: what the core says of each program error, in words.
func TestExplain(t *testing.T) {
	const begin = ".isa 1.3\n.features gemm, control, vector, sparse, gather\n.spad 4096\n.acc 4096\n.bindings 2\n" // then line 6
	word := func(i int, change func(w *isa.Word)) func(*isa.Program) {
		return func(p *isa.Program) { change((*isa.Word)(p.Text[i*isa.Size:])) }
	}
	descriptor := func(change func(d *isa.Descriptor)) func(*isa.Program) {
		return func(p *isa.Program) { change(&p.Descriptor) }
	}
	count := func(i int, n uint32) func(*isa.Program) {
		return word(i, func(w *isa.Word) { binary.LittleEndian.PutUint32(w[8:], n) })
	}
	told := map[string]bool{}
	for _, tt := range []struct {
		name string
		text string
		edit func(p *isa.Program)
		want string
	}{
		{"ISA", "halt", descriptor(func(d *isa.Descriptor) { d.Minor = 9 }), "BAD_PROGRAM §5.3 t:1:1 -1 isa_minor: the card refuses isa_minor, which is 1.9"},
		{"bindings", "halt", descriptor(func(d *isa.Descriptor) { d.Bindings = 3 }), "BAD_PROGRAM §5.3 t:5:1 -1 binding_count: the card refuses binding_count, which is 3"},
		{"array", "halt", descriptor(func(d *isa.Descriptor) { d.Cols = 8 }), "CONFIG_MISMATCH §5.3  -1 array_cols: the card refuses array_cols, which is 8"},
		{"scratchpad", "halt", descriptor(func(d *isa.Descriptor) { d.SpadSize = 1 << 24 }), "CONFIG_MISMATCH §5.3 t:3:1 -1 spad_size: the card refuses spad_size, which is 16777216"},
		{"groups", "halt", descriptor(func(d *isa.Descriptor) { d.Features |= isa.FeatureMX }),
			"CONFIG_MISMATCH §5.3 t:2:1 -1 features: the card refuses features, which is gemm, control, vector, sparse, mx, gather"},
		{"opcode", "fill local=0 nx=1\nfill local=0 nx=1\nhalt", word(1, func(w *isa.Word) { w[0] = 0x77 }), "ILLEGAL_INSTRUCTION §5.7 t:7:1 1 ; 77 00: opcode 0x77 is not in §5.6"},
		{"group", "halt", func(p *isa.Program) { p.Text = isa.Text(isa.Pool{N: 1}, isa.Halt{}) },
			"ILLEGAL_INSTRUCTION §5.7 t:6:1 0 pool: pool is of group pool, which the program's features do not name"},
		{"reserved", "fill local=0 nx=1\nhalt", word(0, func(w *isa.Word) { w[30] = 3 }), "RESERVED_FIELD §5.7 t:6:1 0 ; 40 00: fill: byte 30 is 0x03, bits 0x03 must be 0"},
		{"control", "fill local=0 nx=1\nhalt", func(p *isa.Program) { p.Text = isa.Text(isa.End{}, isa.Halt{}) }, "BAD_CONTROL §5.7 t:6:1 0 end: END without LOOP"},
		{"budget", "loop reg=s0 count=1\nend\nhalt", count(0, 1<<24), "BUDGET §5.7 t:7:1 1 end: the program passes more than 16777216 instructions"},
		{"operand", "halt\n", func(p *isa.Program) { p.Text = isa.Text(isa.Fill{NX: 1, NY: 2}, isa.Halt{}) },
			"BAD_OPERAND §5.7 t:6:1 0 fill: stride is 0, rows would overlap; it must be at least nx = 1"},
		{"operand in an iteration", " loop reg=s0 count=3 step=-1\nwith ny=s0*1\n  fill local=0 nx=1 ny=3 stride=1\nend\nhalt", count(0, 4),
			`BAD_OPERAND §5.7 t:8:3 2 fill: ny is 0; it must be at least 1; in this iteration it is "fill local=0 nx=1 ny=0 stride=1"`},
		{"shape", "halt\n", func(p *isa.Program) { p.Text = isa.Text(isa.Preload{K: 33, N: 1, Stride: 1}, isa.Halt{}) }, "ARRAY_SHAPE §5.7 t:6:1 0 preload: k is 33; the array has 32 rows"},
		{"setup", "halt\n", func(p *isa.Program) { p.Text = isa.Text(isa.Operands{}, isa.Gemm{M: 2, N: 1, K: 3}, isa.Halt{}) },
			"BAD_SETUP §5.7  1 gemm: a_stride is 0 in OPERANDS, rows would overlap; this instruction needs at least 3"},
		{"local memory", "loop reg=s0 count=4\nwith local=s0*1000\nfill local=0 nx=100\nend\nhalt", count(0, 5),
			`LOCAL_BOUNDS §5.7 t:8:1 2 fill: local reaches address 0x1000; the program has 4096 bytes of scratchpad; in this iteration it is "fill local=0xfa0 nx=100"`},
		{"overlap", "halt\n", func(p *isa.Program) {
			p.Text = isa.Text(isa.Shape{N: [4]uint16{1, 1, 2, 2}, OutStride: [4]uint32{4, 4, 2, 1}}, isa.Transpose{Size: 1, Out: 2, XStride: [4]uint32{4, 4, 1, 2}}, isa.Halt{})
		}, "OVERLAP §5.7  1 transpose: out "},
		{"binding", "halt\n", func(p *isa.Program) { p.Text = isa.Text(isa.Load{Binding: 2, NX: 1, NY: 1, NZ: 1}, isa.Halt{}) },
			"BINDING_INDEX §5.7 t:6:1 0 load: binding is 2; there are 2 bindings, counted from 0"},
		{"access", "store binding=0 local=0 nx=1\nhalt", nil, "BINDING_ACCESS §5.7 t:6:1 0 store: writes binding 0, which does not permit it"},
		{"access of a load", "load binding=1 local=0 nx=1\nhalt", nil, "BINDING_ACCESS §5.7 t:6:1 0 load: reads binding 1, which does not permit it"},
		{"bounds", "loop reg=s0 count=5\nwith offset=s0*250\nload binding=0 local=0 nx=1\nend\nhalt", nil,
			`BINDING_BOUNDS §5.7 t:8:1 2 load: reads byte 0x3e8 of binding 0, which has 1000 bytes; in this iteration it is "load binding=0 local=0 offset=0x3e8 nx=1"`},
		{"poison", "preload k=1 n=8 weights=0x208\nhalt", nil, "POISON §12.2 t:6:1 0 preload: reads the poisoned granule 0x200 of the scratchpad"},
		{"index", "fill local=68 nx=4 value=-1\nshape\ngather n=1 x=0 indices=64 out=128 m=2 rows=3 x_stride=1 out_stride=1\nhalt", nil,
			"BAD_INDEX §5.7 t:8:1 2 gather: index 1 of the list (counted from 0) is -1, which is no row of the table"},
		{"sparsity", "operands a_stride=4 b_stride=1 acc_stride=4\nsparse on indices=1024 index_stride=1\ngemm m=1 n=1 k=4 a=0 b=64 acc=0\nhalt", nil,
			"BAD_SPARSITY §5.7 t:8:1 2 gemm: the place at scratchpad address 0x400 is not above the one before it in its group"},
		{"parameter", "requant n=1 acc=0 out=0 params=64\nhalt", nil,
			"BAD_PARAM §5.7 t:6:1 0 requant: the entry of the parameter table at scratchpad address 0x40 has a multiplier, shift, scale or zero point that may not stand there, or reserved bytes that are not 0"},
		{"memory", "load binding=0 local=0 offset=600 nx=1\nhalt", nil, "MEMORY_FAULT §5.7 t:6:1 0 load: address 0x1258, byte 0x258 of binding 0, cannot be accessed"},
		{"overflow", "loop reg=s0 count=300\nsync.load signal=3\nend\nhalt", nil, "TOKEN_OVERFLOW §5.7 t:7:1 1 sync.load: signals token 3, whose counter would pass 255"},
		{"deadlock", "sync.store wait=3\n  sync.matrix signal=7 wait=4:2\nhalt", nil,
			"DEADLOCK §5.7 t:6:1 0 sync.store: token counter 3 never reaches 1, which this instruction waits for, and no other engine can go on; nothing signals it"},
		{"deadlock in a circle", "sync.store wait=3:2 signal=4\n  sync.matrix signal=3 wait=4\nhalt", nil,
			"DEADLOCK §5.7 t:6:1 0 sync.store: token counter 3 never reaches 2, which this instruction waits for, and no other engine can go on; instruction 1 (sync.matrix) of t:7 signals it"},
		{"no HALT", "fill local=0 nx=1\nhalt", func(p *isa.Program) { p.Text = p.Text[:isa.Size] }, "NO_HALT §5.6.1 t:7:1 1 end: the text ends without HALT"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := assemble(t, "t", begin+tt.text+"\n")
			if tt.edit != nil {
				tt.edit(p)
			}
			c, err := core.New(core.Config{Rows: 32, Cols: 32, SpadSize: 1 << 20, AccSize: 1 << 20, ISAMinor: isa.Minor, Features: isa.Features &^ isa.FeatureMX})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if tt.name == "poison" {
				c.Strike(0x200)
			}
			mem := zeros{}
			if tt.name == "memory" {
				mem.fails = 0x1258
			}
			bindings := []core.Binding{{Addr: 0x1000, Size: 1000, Read: true}, {Addr: 0x2000, Size: 1000, Write: true}}
			_, err = c.Run(t.Context(), p.Image(), bindings, mem)
			var f *core.Fault
			if !errors.As(err, &f) {
				t.Fatalf("the program ends with %v", err)
			}
			told[f.Status.String()] = true
			if f.Status == core.StatusPoison { // as the card has it (§12.2)
				f.Info |= 1 << 60
			}
			o := lint.Options{Bindings: []lint.Binding{{Addr: 0x1000, Size: 1000, Read: true}, {Addr: 0x2000, Size: 1000, Write: true}}}
			e, ok := lint.Explain(p, o, lint.Completion{Status: f.Status.String(), Result: f.Instr, Info: f.Info})
			mnemonic, _, _ := strings.Cut(e.At.Instruction, " ")
			if mnemonic == ";" {
				mnemonic = e.At.Instruction[:7]
			}
			got := fmt.Sprintf("%s %s %s %d %s: %s", e.Rule, e.Section, e.At.At(), e.At.Index, mnemonic, e.Message)
			if !ok || e.Remedy == "" || tt.name == "overlap" && !strings.HasPrefix(got, tt.want) || tt.name != "overlap" && got != tt.want {
				t.Errorf("remedy %q (-want +got):\n%s", e.Remedy, cmp.Diff(tt.want, got))
			}
			// With less known it still says what it is, and without any of the program's text.
			for _, q := range []*isa.Program{p, {Descriptor: p.Descriptor}} {
				if e, ok := lint.Explain(q, lint.Options{}, lint.Completion{Status: f.Status.String(), Result: f.Instr, Info: f.Info}); !ok || e.Message == "" || e.Remedy == "" {
					t.Errorf("with less: %+v", e)
				}
			}
		})
	}
	if _, ok := lint.Explain(assemble(t, "t", begin+"halt\n"), lint.Options{}, lint.Completion{Status: "TIMEOUT"}); ok {
		t.Error("TIMEOUT says nothing of a program")
	}
	if e, ok := lint.Explain(assemble(t, "t", begin+"halt\n"), lint.Options{}, lint.Completion{Status: "TRANSLATION_FAULT", Info: 0x7000}); !ok || !strings.Contains(e.Message, "0x7000") || e.Section != "§11.5" {
		t.Errorf("%+v", e)
	}
	page, err := os.ReadFile("../../../docs/spec/isa.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## §5.7 ")
	section, _, _ = strings.Cut(section, "\n## ")
	rows := regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllStringSubmatch(section, -1)
	if len(rows) < 20 {
		t.Errorf("§5.7 has %d rows", len(rows))
	}
	for _, m := range rows {
		if !told[m[1]] {
			t.Errorf("§5.7 has %s, which no program here ends with", m[1])
		}
	}
}

// What a completion says of a program that is not the one is no reason to fail.
func FuzzExplain(f *testing.F) {
	f.Add([]byte{0x40}, "DEADLOCK", uint32(1), uint64(77))
	f.Add(isa.Text(isa.Fill{NX: 1}), "BAD_SETUP", uint32(0), uint64(1<<63))
	f.Add(isa.Text(isa.Loop{Count: 3}, isa.End{}, isa.Halt{}), "BINDING_BOUNDS", uint32(1<<31), uint64(0))
	f.Fuzz(func(t *testing.T, text []byte, status string, result uint32, info uint64) {
		text = text[:len(text)/isa.Size*isa.Size]
		p := &isa.Program{Descriptor: isa.Descriptor{Minor: 3, Rows: 8, Cols: 8, Features: isa.Features, Bindings: 1}, Text: text}
		if e, ok := lint.Explain(p, lint.Options{Bindings: []lint.Binding{{Size: 8}}}, lint.Completion{Status: status, Result: result, Info: info}); ok && (e.Message == "" || e.Remedy == "") {
			t.Errorf("%+v", e)
		}
	})
}
