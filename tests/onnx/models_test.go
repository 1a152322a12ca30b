// SPDX-License-Identifier: Apache-2.0

package onnx

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"npuemu/compiler/ir"
	importer "npuemu/compiler/onnx"
	"npuemu/compiler/pass"
)

// TestModels compiles the models of models.py in NPUEMU_ONNX_MODELS; none may need the host, and of the
// quantized ones all products must be of integers.
func TestModels(t *testing.T) {
	dir := os.Getenv("NPUEMU_ONNX_MODELS")
	if dir == "" {
		t.Skip("NPUEMU_ONNX_MODELS is not set; make models sets it")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Run(e.Name(), func(t *testing.T) {
			g, err := importer.Load(filepath.Join(dir, e.Name(), "model.onnx"), importer.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := pass.Run(g, nil); err != nil {
				t.Fatal(err)
			}
			if h := pass.HostNodes(g); len(h) != 0 {
				t.Errorf("%d nodes on the host, the first is %s", len(h), h[0].Name)
			}
			count := map[string]int{}
			for _, n := range g.Nodes {
				count[n.Op]++
				if (n.Op == "npu.conv" || n.Op == "npu.gemm") && slices.Contains([]string{"cnn_qdq", "cnn_qdq_u8", "resnet50_qdq"}, e.Name()) && n.Inputs[0].Type == ir.Float32 {
					t.Errorf("%s is a product of floating point", n.Name)
				}
			}
			t.Logf("%v", count)
			if os.Getenv("NPUEMU_SHORT") == "" {
				if r := Run(filepath.Join(dir, e.Name()), Reference); r.Status != Pass {
					t.Errorf("%s: %s", r.Status, r.Detail)
				}
			}
		})
	}
}
