// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"npuemu/compiler/model"
)

// Run says what came out, whether it goes to a file or not.
func TestOutputs(t *testing.T) {
	_, file, x := doubledFiles(t)
	out, _, err := npuemu(t.Context(), "run", file, "--input", x)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"y: int8[2, 3] 2 4 6 120 127 -128; largest 127 at [1, 1]", "z: int64[2, 3] 1 2 3 60 70 -128; largest 70 at [1, 1]"} {
		if !strings.Contains(out, want) {
			t.Errorf("run says\n%s\nand not %q", out, want)
		}
	}
	out, _, err = npuemu(t.Context(), "run", file, "--input", x, "--json")
	if err != nil {
		t.Fatal(err)
	}
	var s modelSummary
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	if len(s.Outputs) != 2 || s.Outputs[1].Largest.Value != 70 || len(s.Outputs[0].Values) != 6 {
		t.Errorf("JSON has %+v", s.Outputs)
	}
}

func TestSummarize(t *testing.T) {
	floats := func(v ...float32) (b []byte) {
		for _, x := range v {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
		}
		return b
	}
	for _, tt := range []struct {
		name, typ string
		shape     []int
		data      []byte
		want      string
	}{
		{"scalar", "float32", []int{}, floats(-2.5), "t: float32[] -2.5"},
		{"nothing", "float32", []int{0, 3}, nil, "t: float32[0, 3]"},
		{"first of equal ones", "uint8", []int{2, 2}, []byte{1, 200, 200, 0}, "t: uint8[2, 2] 1 200 200 0; largest 200 at [0, 1]"},
		{"a NaN", "float32", []int{2}, floats(1, float32(math.NaN())), "t: float32[2], of which not all are finite numbers"},
		{"many", "int8", []int{17}, []byte{16: 3}, "t: int8[17]; largest 3 at [16]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := summarize(&model.Tensor{Name: "t", Type: tt.typ, Shape: tt.shape}, tt.data, "").String(); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}
