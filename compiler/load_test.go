// SPDX-License-Identifier: Apache-2.0

package compiler_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"npuemu/compiler"
	"npuemu/compiler/ir"
)

const text = "graph \"g\"\ninput %x: int32[2]\nnode \"n\" npu.element(%x) -> (%y: int32[2]) {op=\"neg\"}\noutput %y\n"

// A model in memory is the one in its file, and needs neither a name nor an extension.
func TestSource(t *testing.T) {
	path := filepath.Join(t.TempDir(), "g.npuir")
	other := filepath.Join(filepath.Dir(path), "g.txt")
	for _, name := range []string{path, other} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []compiler.Source{
		{Path: path},
		{Path: other, Format: "npuir"},
		{Data: []byte(text), Format: "npuir"},
		{Data: []byte(text), Path: "not/there.NPUIR"},
	} {
		passes := 0
		g, err := s.Load(func(string, *ir.Graph) { passes++ })
		if err != nil || len(g.Nodes) != 1 || passes != 1 {
			t.Errorf("%+v: %v, %d passes", s, err, passes)
		}
	}
}

// Products of a model are made of the type that is asked for, with all passes and behind those that do not know of it.
func TestSourceFloat(t *testing.T) {
	const matmul = "graph \"g\"\ninput %x: float32[2, 3]\ninput %w: float32[3, 2]\nnode \"m\" MatMul(%x, %w) -> (%y: invalid[])\noutput %y\n"
	fused := ""
	for float, want := range map[string]ir.Type{"": ir.Float32, "fp32": ir.Float32, "bf16": ir.BFloat16, "fp16": ir.Float16} {
		check := func(text string) {
			g, err := compiler.Source{Data: []byte(text), Format: "npuir", Float: float}.Load(func(pass string, g *ir.Graph) {
				if pass == "fuse" {
					fused = g.String()
				}
			})
			if err != nil {
				t.Fatalf("%s: %v", float, err)
			}
			i := slices.IndexFunc(g.Nodes, func(n *ir.Node) bool { return n.Op == "npu.gemm" })
			if i < 0 || g.Nodes[i].Inputs[0].Type != want || g.Nodes[i].Inputs[1].Type != want || g.Outputs[0].Type != ir.Float32 {
				t.Errorf("%q: want a product of %s:\n%s", float, want, g)
			}
		}
		check(matmul)
		check(fused)
	}
}

func TestSourceErrors(t *testing.T) {
	caffe := filepath.Join(t.TempDir(), "net.prototxt")
	if err := os.WriteFile(caffe, []byte("name: 'x'"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		source compiler.Source
		want   string
	}{
		{compiler.Source{Path: "model.pt"}, "model.pt: the extension says of no model what it is"},
		{compiler.Source{Path: "model.npu"}, "give the file that it was made of"},
		{compiler.Source{Data: []byte(text), Format: "pt"}, `format "pt" of a model: there are caffe, npuir, onnx, tflite`},
		{compiler.Source{Data: []byte(text), Path: "x.npuir", Dims: map[string]int{"n": 1}}, "a model of format npuir has its own"},
		{compiler.Source{Data: []byte(text), Format: "caffe"}, "two files"},
		{compiler.Source{Data: []byte(text), Format: "npuir", Float: "fp64"}, `products of "fp64": there are bf16, fp16, fp32`},
		{compiler.Source{Data: []byte(text), Format: "npuir", Float: "fp16"}, "it is of the device level, whose products are of the types that it says; write casts and products of fp16 into it"},
		{compiler.Source{Data: []byte(`after "chains"` + "\n" + text), Format: "npuir", Float: "bf16"}, `it is behind pass "chains", and products become bfloat16 in "narrow"`},
		{compiler.Source{Path: caffe}, "the weights are in the file of that name with the extension .caffemodel"},
		{compiler.Source{Path: caffe, WeightsPath: "/no/such.bin"}, "/no/such.bin"},
		{compiler.Source{Path: "/no/such.onnx"}, "/no/such.onnx"},
		{compiler.Source{Path: "some/name.onnx", Data: []byte{1}}, "some/name.onnx: "},
	} {
		if _, err := tt.source.Load(nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.source, err, tt.want)
		}
	}
}
