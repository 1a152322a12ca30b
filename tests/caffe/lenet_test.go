// SPDX-License-Identifier: Apache-2.0

// Package caffe runs the trained LeNet of examples/lenet on a card in this process and compares it with the compiler's CPU reference,
// to the bit, and with OpenCV's dnn module.
package caffe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	cc "npuemu/compiler"
	"npuemu/compiler/ir"
	"npuemu/compiler/npy"
	"npuemu/compiler/ref"
	"npuemu/tests/compiler"
	"npuemu/vdev"
)

const lenet = "../../examples/lenet/"

// TestLeNet classifies ten digits, and one of them with the network in the format of version 1, of which the graph is the same.
func TestLeNet(t *testing.T) {
	card, err := compiler.NewCard(t.Context(), vdev.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := card.Close(); err != nil {
			t.Error(err)
		}
	})
	var opencv struct {
		Opencv        string
		Probabilities [][]float64
	}
	b, err := os.ReadFile("opencv.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &opencv); err != nil || len(opencv.Probabilities) != 10 {
		t.Fatalf("opencv.json has %d rows, %v", len(opencv.Probabilities), err)
	}
	text, weights := version1(t)
	var first string
	for _, tt := range []struct {
		name, text, weights string
		digits              int
	}{
		{"version 2", lenet + "lenet.prototxt", "", 10},
		{"version 1", text, weights, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, err := cc.Source{Path: tt.text, WeightsPath: tt.weights}.Load(nil)
			if err != nil {
				t.Fatal(err)
			}
			if first == "" {
				first = g.String()
			} else if g.String() != first {
				t.Error("the graph is another one than that of version 2")
			}
			for digit, judge := range opencv.Probabilities[:tt.digits] {
				b, err := os.ReadFile(fmt.Sprintf("%s%d.png", lenet, digit))
				if err != nil {
					t.Fatal(err)
				}
				x, err := npy.Image(b, ir.Float32, g.Inputs[0].Shape, nil, npy.ImageOptions{})
				if err != nil {
					t.Fatal(err)
				}
				want, err := ref.Run(g, [][]byte{x}, nil)
				if err != nil {
					t.Fatal(err)
				}
				got, hosts, err := card.Execute(t.Context(), g, [][]byte{x})
				if err != nil {
					t.Fatal(err)
				}
				if len(hosts) != 0 {
					t.Errorf("%s ran on the host: %s", hosts[0].Name, hosts[0].Host)
				}
				if len(got) != 1 || !bytes.Equal(got[0], want[0]) {
					t.Errorf("digit %d: the output is not the reference's", digit)
				}
				top := 0
				p := ref.Floats(ir.Float32, got[0], 10)
				for i, v := range p {
					if v > p[top] {
						top = i
					}
					if math.Abs(float64(v)-judge[i]) > 1e-5 {
						t.Errorf("digit %d: probability %d is %g, OpenCV %s has %g", digit, i, v, opencv.Opencv, judge[i])
					}
				}
				t.Logf("digit %d: %d, %.4f", digit, top, p[top])
				if top != digit {
					t.Errorf("digit %d was taken for %d", digit, top)
				}
			}
		})
	}
}

// version1 writes the network in the format of version 1, in which a layer has its type as a number and a blob four
// dimensions, and returns the files' names.
func version1(t *testing.T) (text, weights string) {
	t.Helper()
	types := []struct {
		v2, v1 string
		number uint64
	}{{"Convolution", "CONVOLUTION", 4}, {"InnerProduct", "INNER_PRODUCT", 14}, {"Pooling", "POOLING", 17}, {"ReLU", "RELU", 18}, {"Softmax", "SOFTMAX", 20}}
	read := func(name string) []byte {
		b, err := os.ReadFile(lenet + name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var lines []string
	input := false
	for _, l := range strings.Split(string(read("lenet.prototxt")), "\n") {
		switch {
		case strings.Contains(l, `"data"`) && strings.HasPrefix(l, "  name"):
			input = true // the layer that is the input
			lines = lines[:len(lines)-1]
			lines = append(lines, `input: "data" input_dim: 1 input_dim: 1 input_dim: 28 input_dim: 28`)
		case input:
			input = l != "}"
		case !strings.HasPrefix(l, "  param {"):
			lines = append(lines, l)
		}
	}
	s := strings.ReplaceAll(strings.Join(lines, "\n"), "layer {", "layers {")
	for _, k := range types {
		s = strings.ReplaceAll(s, `type: "`+k.v2+`"`, "type: "+k.v1)
	}
	var model []byte
	each(t, read("lenet.caffemodel"), func(n protowire.Number, layer []byte) {
		if n != 100 {
			return
		}
		var out []byte
		each(t, layer, func(n protowire.Number, b []byte) {
			switch n {
			case 1:
				out = protowire.AppendBytes(protowire.AppendTag(out, 4, protowire.BytesType), b)
			case 2:
				for _, k := range types {
					if k.v2 == string(b) {
						out = protowire.AppendVarint(protowire.AppendTag(out, 5, protowire.VarintType), k.number)
					}
				}
			case 7:
				out = protowire.AppendBytes(protowire.AppendTag(out, 6, protowire.BytesType), blob1(t, b))
			}
		})
		model = protowire.AppendBytes(protowire.AppendTag(model, 2, protowire.BytesType), out)
	})
	dir := t.TempDir()
	text, weights = filepath.Join(dir, "lenet.prototxt"), filepath.Join(dir, "weights.caffemodel")
	if err := os.WriteFile(text, []byte(s), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(weights, model, 0o644); err != nil {
		t.Fatal(err)
	}
	return text, weights
}

// blob1 is a blob with its shape as num, channels, height and width.
func blob1(t *testing.T, b []byte) []byte {
	var out []byte
	each(t, b, func(n protowire.Number, v []byte) {
		if n == 5 {
			out = protowire.AppendBytes(protowire.AppendTag(out, 5, protowire.BytesType), v)
			return
		}
		each(t, v, func(_ protowire.Number, dims []byte) {
			var d []uint64
			for len(dims) > 0 {
				v, k := protowire.ConsumeVarint(dims)
				if k < 0 {
					t.Fatal("a shape is cut")
				}
				d, dims = append(d, v), dims[k:]
			}
			for len(d) < 4 {
				d = append([]uint64{1}, d...)
			}
			for i, v := range d {
				out = protowire.AppendVarint(protowire.AppendTag(out, protowire.Number(1+i), protowire.VarintType), v)
			}
		})
	})
	return out
}

// each calls f for each field of a message, all of which are bytes.
func each(t *testing.T, b []byte, f func(n protowire.Number, v []byte)) {
	t.Helper()
	for len(b) > 0 {
		n, kind, k := protowire.ConsumeTag(b)
		if k < 0 || kind != protowire.BytesType {
			t.Fatalf("field %d of type %d", n, kind)
		}
		v, m := protowire.ConsumeBytes(b[k:])
		if m < 0 {
			t.Fatal("the file is cut")
		}
		f(n, v)
		b = b[k+m:]
	}
}
