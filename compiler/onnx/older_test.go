// SPDX-License-Identifier: Apache-2.0

package onnx

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"npuemu/compiler/ir"
	"npuemu/compiler/pass"
	"npuemu/compiler/ref"
)

// TestOlder: models of opsets before 13 (testdata/older.py) give what ONNX Runtime computes.
func TestOlder(t *testing.T) {
	models, err := filepath.Glob("testdata/older/*/model.onnx")
	if err != nil || len(models) == 0 {
		t.Fatalf("no models: %v", err)
	}
	for _, path := range models {
		dir := filepath.Dir(path)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			read := func(name string) []byte {
				b, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
			g, err := Load(path, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := pass.Run(g, nil); err != nil {
				t.Fatal(err)
			}
			if h := pass.HostNodes(g); len(h) != 0 {
				t.Errorf("%d nodes on the host, the first is %s", len(h), h[0].Name)
			}
			out, err := ref.Run(g, [][]byte{read("input_0.bin")}, nil)
			if err != nil {
				t.Fatal(err)
			}
			b := read("output_0.bin")
			if len(out[0]) != len(b) {
				t.Fatalf("%d bytes, want %d", len(out[0]), len(b))
			}
			want, got := ref.Floats(ir.Float32, b, len(b)/4), ref.Floats(ir.Float32, out[0], len(b)/4)
			for i := range want {
				if d := math.Abs(float64(got[i] - want[i])); !(d <= 2e-6*max(1, math.Abs(float64(want[i])))) {
					t.Errorf("[%d] is %g, want %g", i, got[i], want[i])
				}
			}
		})
	}
}

// What older forms do not have is refused by name.
func TestOlderErrors(t *testing.T) {
	in, out := part(11, valueInfo("x", 1, 1, 1)), part(12, valueInfo("z", 1))
	for _, tt := range []struct {
		name  string
		opset uint64
		node  msg
		want  string
	}{
		{"upsample without scales", 9, testNode("Upsample", []string{"x"}, []string{"z"}), "(Upsample): 1 inputs, not 2"},
		{"upsample with two inputs", 8, testNode("Upsample", []string{"x", "x"}, []string{"z"}), "(Upsample): 2 inputs, not 1"},
		{"resize without scales", 10, testNode("Resize", []string{"x"}, []string{"z"}), "(Resize): 1 inputs, not 2"},
		{"statistics of each element", 7, testNode("BatchNormalization", []string{"x", "x", "x", "x", "x"}, []string{"z"}, msg{}.str(1, "spatial").num(20, 2).num(3, 0)), "spatial is 0"},
	} {
		if _, err := Import(testModel(tt.opset, in, part(1, tt.node), out), Options{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}
