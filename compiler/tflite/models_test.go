// SPDX-License-Identifier: Apache-2.0

package tflite_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"npuemu/compiler/pass"
	"npuemu/compiler/ref"
	importer "npuemu/compiler/tflite"
)

// TestModels: the models of testdata/models.py give the bits of LiteRT, without the host.
func TestModels(t *testing.T) {
	const dir = "testdata"
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		t.Run(e.Name(), func(t *testing.T) {
			d := filepath.Join(dir, e.Name())
			g, err := importer.Load(filepath.Join(d, "model.tflite"), importer.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := pass.Run(g, nil); err != nil {
				t.Fatal(err)
			}
			if h := pass.HostNodes(g); len(h) != 0 {
				t.Errorf("%d nodes on the host, the first is %s", len(h), h[0].Name)
			}
			var in [][]byte
			for i := range g.Inputs {
				b, err := os.ReadFile(filepath.Join(d, fmt.Sprintf("input_%d.bin", i)))
				if err != nil {
					t.Fatal(err)
				}
				in = append(in, b)
			}
			got, err := ref.Run(g, in, nil)
			if err != nil {
				t.Fatal(err)
			}
			for k := range got {
				want, err := os.ReadFile(filepath.Join(d, fmt.Sprintf("output_%d.bin", k)))
				if err != nil {
					t.Fatal(err)
				}
				if bytes.Equal(got[k], want) {
					continue
				}
				n := 0
				for i := range want {
					if i < len(got[k]) && got[k][i] != want[i] {
						n++
					}
				}
				t.Errorf("output %d: %d of %d bytes differ", k, n, len(want))
			}
		})
	}
}
