// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"npuemu/compiler/ir"
	"npuemu/compiler/npy"
	"npuemu/compiler/ref"
)

// runImage runs the model with an image and returns its output, which has type t.
func runImage(t *testing.T, typ ir.Type, args ...string) []byte {
	t.Helper()
	y := filepath.Join(t.TempDir(), "y.npy")
	if _, _, err := npuemu(t.Context(), append([]string{"run", "--output", y}, args...)...); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(y)
	if err != nil {
		t.Fatal(err)
	}
	_, elements, err := npy.Read(b, typ)
	if err != nil {
		t.Fatal(err)
	}
	return elements
}

const (
	lenetText    = "../../examples/lenet/lenet.prototxt"
	lenetWeights = "../../examples/lenet/lenet.caffemodel"
)

// Ten pictures are ten digits.
func TestDigits(t *testing.T) {
	for digit := range 10 {
		p := ref.Floats(ir.Float32, runImage(t, ir.Float32, lenetText, lenetWeights, "--input", fmt.Sprintf("../../examples/lenet/%d.png", digit)), 10)
		best := 0
		for i := range p {
			if p[i] > p[best] {
				best = i
			}
		}
		if best != digit {
			t.Errorf("%d.png is taken for %d: %v", digit, best, p)
		}
	}
	// One that is twice as large is the same digit.
	f, err := os.Open("../../examples/lenet/7.png")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	small, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	large := image.NewGray(image.Rect(0, 0, 56, 56))
	for y := range 56 {
		for x := range 56 {
			large.Set(x, y, small.At(x/2, y/2))
		}
	}
	name := writePNG(t, large)
	if p := ref.Floats(ir.Float32, runImage(t, ir.Float32, lenetText, lenetWeights, "--resize", "--input", name), 10); p[7] < 0.9 {
		t.Errorf("a large 7 has the probabilities %v", p)
	}
	_, _, err = npuemu(t.Context(), "run", lenetText, lenetWeights, "--input", name)
	if err == nil || !strings.Contains(err.Error(), `tensor "data": npy: the image has 56 × 56 pixels, the tensor 28 × 28: scale the image, or give --resize`) {
		t.Errorf("a large 7 without --resize: %v", err)
	}
}

func writePNG(t *testing.T, img image.Image) string {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return file(t, "image.png", b.String())
}

// What a model gets of an image follows from its input's type, scale and zero point, compiled or not, and verify gets the same.
func TestImages(t *testing.T) {
	img := image.NewRGBA(image.Rect(0, 0, 2, 1))
	img.Set(0, 0, color.RGBA{0, 51, 102, 255})
	img.Set(1, 0, color.RGBA{153, 204, 255, 255})
	name := writePNG(t, img)
	for _, tt := range []struct {
		name, input string
		typ         ir.Type
		args        []string
		want        []byte
	}{
		{"int8, 0 to 1", "int8[1, 1, 2, 3] quant(floats[0.003921569], [-128], 0)", ir.Int8, nil, []byte{0x80, 0xb3, 0xe6, 25, 76, 127}},
		{"int8, -1 to 1", "int8[1, 1, 2, 3] quant(floats[0.0078125], [0], 0)", ir.Int8, []string{"--mean", "0.5", "--std", "0.5"}, []byte{0x80, 0xb3, 0xe6, 26, 77, 127}},
		{"int8 without a scale", "int8[1, 1, 2, 3]", ir.Int8, nil, []byte{0x80, 0xb3, 0xe6, 25, 76, 127}},
		{"fp16, channels first", "float16[1, 3, 1, 2]", ir.Float16, []string{"--mean=0,0.2,0.4", "--std=1,2,3"}, ref.PutFloats(ir.Float16, []float32{0, 0.6, 0, 0.3, 0, 0.2}, true)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			model := file(t, "m.npuir", fmt.Sprintf("graph \"m\"\ninput %%x: %s\nnode \"n\" npu.reshape(%%x) -> (%%y: %s[6])\noutput %%y\n", tt.input, tt.typ))
			compiled := filepath.Join(t.TempDir(), "m.npu")
			if _, _, err := npuemu(t.Context(), "compile", model, "-o", compiled); err != nil {
				t.Fatal(err)
			}
			for _, m := range []string{model, compiled} {
				if got := runImage(t, tt.typ, append(tt.args, m, "--input", name)...); !bytes.Equal(got, tt.want) {
					t.Errorf("%s: % x, want % x", m, got, tt.want)
				}
			}
			if _, _, err := npuemu(t.Context(), append([]string{"verify", model, "--input", name}, tt.args...)...); err != nil {
				t.Error(err)
			}
		})
	}
}

// What a model cannot have of an image is said before anything runs.
func TestBadImages(t *testing.T) {
	model := file(t, "m.npuir", "graph \"m\"\ninput %x: float32[1, 28, 28, 1]\nnode \"n\" npu.reshape(%x) -> (%y: float32[784])\noutput %y\n")
	seven := "../../examples/lenet/7.png"
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"no image", []string{"--input", "x.npy", "--resize"}, "--mean, --std and --resize are for images: give one with --input, a .png or .jpg"},
		{"no input", []string{"--mean", "0.5"}, "are for images"},
		{"a letter", []string{"--input", seven, "--mean", "a"}, "--mean"},
		{"two numbers", []string{"--input", seven, "--mean", "1,2"}, "2 numbers of --mean"},
		{"three numbers for grey", []string{"--input", seven, "--std", "1,2,3"}, `tensor "x": npy: 3 numbers of --std for a tensor of 1 channel: give one`},
		{"not above 0", []string{"--input", seven, "--std", "0"}, "of std above 0"},
		{"cut", []string{"--input", file(t, "cut.png", "\x89PNG\r\n\x1a\n")}, "PNG and JPEG are read"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, command := range []string{"run", "verify"} {
				if _, _, err := npuemu(t.Context(), append([]string{command, model}, tt.args...)...); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%s: %v, want %q", command, err, tt.want)
				}
			}
		})
	}
}
