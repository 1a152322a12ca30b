// SPDX-License-Identifier: Apache-2.0

package compiler_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"npuemu/compiler"
	"npuemu/compiler/emit"
	"npuemu/compiler/ir"
	"npuemu/compiler/model"
	"npuemu/core/isa"
)

// FuzzBuild: whatever a model file has, the whole way to a compiled model ends in one that can be read again, or in an error of the
// model. Large models are left out: they take long, as they should.
func FuzzBuild(f *testing.F) {
	f.Add([]byte(text), false)
	for _, pattern := range []string{"testdata/*.npuir", "tflite/testdata/*/model.tflite"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			f.Fatal(pattern, err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			if len(b) < 1<<14 {
				f.Add(b, filepath.Ext(name) == ".tflite")
			}
		}
	}
	target := emit.Target{Rows: 8, Cols: 16, SpadSize: 12 << 10, AccSize: 4 << 10, Minor: isa.Minor, Features: isa.Features}
	f.Fuzz(func(t *testing.T, b []byte, lite bool) {
		s := compiler.Source{Data: b, Format: "npuir"}
		if lite {
			s.Format = "tflite"
		}
		const most = 1 << 16 // bytes of a tensor, nodes
		g, err := s.Load(nil)
		if err != nil || len(g.Nodes) > most>>8 {
			return
		}
		for _, n := range g.Nodes {
			for _, o := range append(n.Outputs, n.Inputs...) {
				if o != nil && o.Bytes() > most {
					return
				}
			}
		}
		m, err := compiler.Build(g, target)
		if err != nil {
			var e *ir.Error
			if !errors.As(err, &e) {
				t.Errorf("%v is no error of the model", err)
			}
			return
		}
		whole, err := m.Write()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := model.Read(bytes.NewReader(whole), int64(len(whole))); err != nil {
			t.Errorf("the compiled model cannot be read: %v", err)
		}
	})
}
