// SPDX-License-Identifier: Apache-2.0

package compiler_test

import (
	"bytes"
	"strings"
	"testing"

	"npuemu/compiler"
	"npuemu/compiler/emit"
	"npuemu/compiler/ir"
	"npuemu/compiler/pass"
	"npuemu/core/isa"
)

// TestDump: the text of a graph behind any pass compiles to the file that the model itself gives.
func TestDump(t *testing.T) {
	target := emit.Target{Rows: 32, Cols: 32, SpadSize: 256 << 10, AccSize: 128 << 10, Minor: isa.Minor, Features: isa.Features}
	file := func(g *ir.Graph) []byte {
		t.Helper()
		m, err := compiler.Build(g, target)
		if err != nil {
			t.Fatal(err)
		}
		b, err := m.Write()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, path := range []string{
		"../tests/models/testdata/digits.onnx", "../tests/models/testdata/keywords.onnx", "../examples/lenet/lenet.prototxt", "tflite/testdata/conv/model.tflite",
		"testdata/shared.npuir", "testdata/wide.npuir", "testdata/images.npuir",
	} {
		t.Run(path[strings.LastIndex(path, "/")+1:], func(t *testing.T) {
			var passes, texts []string
			g, err := compiler.Load(path, func(pass string, g *ir.Graph) {
				passes, texts = append(passes, pass), append(texts, printed(t, g))
			})
			if err != nil {
				t.Fatal(err)
			}
			if len(texts) != 1+len(pass.Passes()) {
				t.Fatalf("%d dumps: %s", len(texts), passes)
			}
			want := file(g)
			for i, text := range texts {
				g, err := compiler.Source{Data: []byte(text), Format: "npuir"}.Load(nil)
				if err != nil {
					t.Errorf("after %s: %v", passes[i], err)
					continue
				}
				if !bytes.Equal(file(g), want) {
					t.Errorf("after %s: the file is not that of the model", passes[i])
				}
			}
		})
	}
}

// TestDumpRefused: a text that says of itself what is not so is refused, and nothing goes wrong on the way.
func TestDumpRefused(t *testing.T) {
	const head = "graph \"g\"\ninput %x: int32[2]\n"
	for _, tt := range []struct{ name, text, want string }{
		{"no such pass", head + "after \"nonsense\"\noutput %x\n", `behind pass "nonsense"`},
		{"left out", head + "const %c: int32[32] = elided 128 00000000\n", "--dump-after=PASS=FILE.npuir writes all"},
		{"a constant of another size", head + "after \"lower\"\nconst %c: int32[4] = \"AAAA\"\nnode \"n\" npu.element(%c) -> (%y: int32[4]) {op=\"neg\"}\noutput %y\n", "do not fit together"},
		{"no output", head + "after \"lower\"\nconst %c: int32[1] = \"AAAAAA==\"\nnode \"n\" npu.element(%c) -> () {op=\"neg\"}\noutput %c\n", "do not fit together"},
		{"a shape that is none", head + "after \"layout\"\nnode \"n\" npu.reshape(%x) -> (%y: int32[3])\noutput %y\n", "changes the number of elements"},
		{"an operator behind lower", head + "after \"fuse\"\nnode \"n\" Nonsense(%x) -> (%y: int32[2])\noutput %y\n", "the operator is not supported"},
	} {
		if _, err := (compiler.Source{Data: []byte(tt.text), Format: "npuir"}).Load(nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// FuzzText: no text, wherever it says that it is, makes more than an error.
func FuzzText(f *testing.F) {
	for _, path := range []string{"testdata/shared.npuir", "testdata/wide.npuir"} {
		if _, err := compiler.Load(path, func(_ string, g *ir.Graph) { f.Add(printed(f, g)) }); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		g, err := compiler.Source{Data: []byte(text), Format: "npuir"}.Load(nil)
		if err == nil {
			err = g.Verify()
			if err != nil {
				t.Errorf("what is loaded does not verify: %v", err)
			}
		}
	})
}

// printed is the text of g with all constants.
func printed(t testing.TB, g *ir.Graph) string {
	t.Helper()
	var b strings.Builder
	if err := g.Print(&b, false); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
