// SPDX-License-Identifier: Apache-2.0

package tflite_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"npuemu/compiler/ir"
	"npuemu/compiler/pass"
	"npuemu/compiler/tflite"
)

func file(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name, "model.tflite"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestImport(t *testing.T) {
	g, err := tflite.Import(file(t, "conv_stride_relu6"), tflite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	n := g.Nodes[0]
	if n.Op != "tfl.CONV_2D" || n.Attrs.Int("stride_w", 0) != 2 || n.Attrs.Int("activation", 0) != 3 || n.Attrs.Int("dilation_h", 0) != 1 || n.Attrs.Int("padding", -1) != 0 {
		t.Errorf("node %s %v", n.Op, n.Attrs)
	}
	w := n.Inputs[1]
	if !w.Const() || w.Type != ir.Int8 || w.Quant == nil || len(w.Quant.Scales) != 8 || w.Quant.Axis != 0 {
		t.Errorf("weights %s", w)
	}
	if err := pass.Run(g, nil); err != nil {
		t.Error(err)
	}
}

// TestBadFiles: whatever is cut or changed in a file, there is an error of ours or a graph, never a crash.
func TestBadFiles(t *testing.T) {
	whole := file(t, "depthwise_multiplier")
	var e *ir.Error
	for _, tt := range []struct {
		name string
		b    []byte
		want string
	}{
		{"empty", nil, "no identifier TFL3"},
		{"another format", []byte("PK\x03\x04 and more"), "no identifier TFL3"},
		{"header only", whole[:8], "outside the file"},
		{"cut", whole[:len(whole)/2], "outside the file"},
	} {
		if _, err := tflite.Import(tt.b, tflite.Options{}); !errors.As(err, &e) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	try := func(b []byte) {
		g, err := tflite.Import(b, tflite.Options{})
		if err == nil {
			err = pass.Run(g, nil)
		}
		if err != nil && !errors.As(err, &e) {
			t.Errorf("%v is no error of the model", err)
		}
	}
	for n := range whole {
		if n%7 == 0 {
			try(whole[:n:n])
		}
	}
	// A name that ends behind the file, in memory that is there, is not read.
	long := append(make([]byte, 0, len(whole)+1<<10), whole...)
	at := bytes.Index(long, []byte("\x02\x00\x00\x00t0"))
	binary.LittleEndian.PutUint32(long[at:], uint32(len(long)-at-4+100))
	if _, err := tflite.Import(long, tflite.Options{}); err == nil || !strings.Contains(err.Error(), "outside the file") {
		t.Errorf("a name that ends behind the file: %v", err)
	}
	// A long one is cut.
	long = append(long, bytes.Repeat([]byte("x"), 9000)...)
	binary.LittleEndian.PutUint32(long[at:], uint32(len(long)-at-4))
	if g, err := tflite.Import(long, tflite.Options{}); err != nil || len(g.Inputs[0].Name) != 4096 {
		t.Errorf("a long name: %v", err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for _, name := range []string{"depthwise_multiplier", "softmax", "svdf", "strided", "transposed", "conv16", "mean", "lstm"} {
		whole, count := file(t, name), 600
		if name == "lstm" { // hundreds of operations each time
			count = 20
		}
		for range count {
			b := append([]byte{}, whole...)
			for range 1 + rng.IntN(3) {
				b[rng.IntN(len(b))] = byte(rng.Uint32())
			}
			try(b)
		}
	}
}

func FuzzImport(f *testing.F) {
	f.Add(file(f, "net"))
	f.Add(file(f, "add"))
	f.Add(file(f, "pad"))
	f.Add(file(f, "svdf"))
	f.Add(file(f, "strided"))
	f.Add(file(f, "transposed"))
	f.Add(file(f, "softmax"))
	f.Add(file(f, "conv16"))
	f.Add(file(f, "mean"))
	f.Add(file(f, "lstm"))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := tflite.Import(b, tflite.Options{})
		if err != nil {
			return
		}
		var e *ir.Error
		if err := pass.Run(g, nil); err != nil && !errors.As(err, &e) {
			t.Errorf("%v is no error of the model", err)
		}
	})
}
