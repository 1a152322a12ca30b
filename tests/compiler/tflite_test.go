// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"npuemu/compiler"
)

// TestTFLite runs the models of compiler/tflite on a card: what it computes are the bits of LiteRT, and nothing
// runs on the host.
func TestTFLite(t *testing.T) {
	files, err := filepath.Glob("../../compiler/tflite/testdata/*/model.tflite")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d models, %v", len(files), err)
	}
	c := newCard(t)
	for _, f := range files {
		dir := filepath.Dir(f)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			g, err := compiler.Load(f, nil)
			if err != nil {
				t.Fatal(err)
			}
			var in [][]byte
			for i := range g.Inputs {
				b, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("input_%d.bin", i)))
				if err != nil {
					t.Fatal(err)
				}
				in = append(in, b)
			}
			got, hosts, err := c.Execute(t.Context(), g, in)
			if err != nil {
				t.Fatal(err)
			}
			if len(hosts) != 0 {
				t.Errorf("%s ran on the host: %s", hosts[0].Name, hosts[0].Host)
			}
			for k := range got {
				want, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("output_%d.bin", k)))
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got[k], want) {
					t.Errorf("output %d is not LiteRT's", k)
				}
			}
		})
	}
}
