// SPDX-License-Identifier: Apache-2.0

package ref

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/compiler/ir"
)

// eval runs a graph of one node on integers, or on fp32 numbers, as the inputs' types say.
func eval(t *testing.T, text string, in ...[]float32) []float64 {
	t.Helper()
	g, err := ir.Parse("graph \"t\"\n" + text)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, "host.") {
		if err := g.Verify(); err != nil {
			t.Fatal(err)
		}
	}
	var data [][]byte
	for i, x := range g.Inputs {
		if x.Type.Float() {
			f := make([]float64, len(in[i]))
			for k, v := range in[i] {
				f[k] = float64(v)
			}
			data = append(data, putDoubles(x.Type, f, false))
			continue
		}
		v := make([]int64, len(in[i]))
		for k, f := range in[i] {
			v[k] = int64(f)
		}
		data = append(data, PutInts(x.Type, v))
	}
	nodes := 0
	out, err := Run(g, data, func(*ir.Node, [][]byte) error { nodes++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if nodes != len(g.Nodes) {
		t.Errorf("%d nodes were observed, not %d", nodes, len(g.Nodes))
	}
	y := g.Outputs[0]
	return Doubles(y.Type, out[0], y.Elements())
}

// TestEval has results that were computed by hand, or are examples of docs/spec/numerics.md.
func TestEval(t *testing.T) {
	f := func(v ...float32) []float32 { return v }
	for _, tt := range []struct {
		name string
		text string
		in   [][]float32
		want []float64
	}{
		{"requantize by fp32, §6.9.6", "input %x: int32[3]\nnode \"n\" npu.requantize(%x) -> (%y: int8[3]) {rounding=\"fp32\", scales=floats[0.5], lo=-128, hi=127}\noutput %y",
			[][]float32{f(5, 7, -3)}, []float64{2, 4, -2}},
		{"one rounding, §6.9.6", "input %x: int32[2]\nnode \"n\" npu.requantize(%x) -> (%y: int8[2]) {rounding=\"one\", multipliers=[1073741824], shifts=[32], lo=-128, hi=127}\noutput %y",
			[][]float32{f(1, -3)}, []float64{0, -1}},
		{"two roundings, §6.9.6", "input %x: int32[2]\nnode \"n\" npu.requantize(%x) -> (%y: int8[2]) {rounding=\"two\", multipliers=[1073741824], shifts=[32], lo=-128, hi=127}\noutput %y",
			[][]float32{f(1, -10)}, []float64{1, -3}},
		{"quantize, ties to even", "input %x: float32[4]\nnode \"n\" npu.quantize(%x) -> (%y: int8[4]) {scales=floats[1], zeros=[1], lo=-128, hi=127}\noutput %y",
			[][]float32{f(0.5, 1.5, -300, 300)}, []float64{1, 3, -128, 127}},
		{"average, ties away from 0, §6.9.5", "input %x: int8[1, 1, 2, 1]\nnode \"n\" npu.pool(%x) -> (%y: int8[1, 1, 1, 1]) {kind=\"avg\", kernel=[1, 2], strides=[1, 1], pads=[0, 0, 0, 0]}\noutput %y",
			[][]float32{f(-3, -4)}, []float64{-4}},
		{"padding does not count", "input %x: float32[1, 1, 2, 1]\nnode \"n\" npu.pool(%x) -> (%y: float32[1, 1, 3, 1]) {kind=\"avg\", kernel=[1, 2], strides=[1, 1], pads=[0, 1, 0, 1]}\noutput %y",
			[][]float32{f(2, 4)}, []float64{2, 3, 4}},
		{"padding counts", "input %x: float32[1, 1, 2, 1]\nnode \"n\" npu.pool(%x) -> (%y: float32[1, 1, 3, 1]) {kind=\"avg\", count_pad=1, kernel=[1, 2], strides=[1, 1], pads=[0, 1, 0, 1]}\noutput %y",
			[][]float32{f(2, 4)}, []float64{1, 3, 2}},
		{"the nearest, half pixels, ties down, §6.15.2", "input %x: int8[1, 1, 4, 1]\nnode \"n\" npu.resize(%x) -> (%y: int8[1, 2, 3, 1]) {mode=\"round_down\", half=1, center=1, div=floats[2, 0.75]}\noutput %y",
			[][]float32{f(1, 2, 3, 4)}, []float64{1, 2, 4, 1, 2, 4}}, // at 0.17, 1.5, 2.83
		{"between, §6.15.3", "input %x: float32[1, 2, 2, 1]\nnode \"n\" npu.resize(%x) -> (%y: float32[1, 3, 3, 1]) {mode=\"linear\", mul=floats[1, 1], div=floats[2, 2]}\noutput %y",
			[][]float32{f(1, 2, 3, 4)}, []float64{1, 1.5, 2, 2, 2.5, 3, 3, 3.5, 4}},
		{"between integers, ties away from 0, §6.15.4", "input %x: int8[1, 1, 2, 1]\nnode \"n\" npu.resize(%x) -> (%y: int8[1, 1, 3, 1]) {mode=\"fixed\", steps=[1024, 512]}\noutput %y",
			[][]float32{f(-1, -2)}, []float64{-1, -2, -2}},
		{"a convolution in two groups, with padding of the zero point", "input %x: int8[1, 1, 2, 2]\nconst %w: int8[2, 1, 2, 1] = \"AQIDBA==\"\nconst %b: int32[2] = \"CgAAABQAAAA=\"\n" +
			"node \"n\" npu.conv(%x, %w, %b) -> (%y: int32[1, 1, 3, 2]) {rounding=\"none\", groups=2, strides=[1, 1], pads=[0, 1, 0, 1], zero_x=1, zeros_w=[0, 1]}\noutput %y",
			[][]float32{f(2, 3, 4, 5)}, []float64{12, 26, 17, 36, 13, 28}}, // (2−1)·2+10, (3−1)·3+20, 1·1+3·2+10, 2·2+4·3+20, 3·1+10, 4·2+20
		{"transposed operands", "input %a: float32[1, 2, 1]\ninput %b: float32[1, 3, 2]\nnode \"n\" npu.gemm(%a, %b) -> (%y: float32[1, 1, 3]) {rounding=\"none\", trans_a=1, trans_b=1, clip=floats[0, 16]}\noutput %y",
			[][]float32{f(1, 2), f(1, 2, 3, 4, 5, 6)}, []float64{5, 11, 16}},
		{"gather from the end", "input %x: int8[3, 2]\nconst %i: int32[2] = \"/////wAAAAA=\"\nnode \"n\" npu.gather(%x, %i) -> (%y: int8[2, 2]) {axis=0}\noutput %y",
			[][]float32{f(1, 2, 3, 4, 5, 6)}, []float64{5, 6, 1, 2}},
		{"slice backwards", "input %x: int4[5]\nnode \"n\" npu.slice(%x) -> (%y: int4[3]) {starts=[4], steps=[-2]}\noutput %y", [][]float32{f(1, 2, 3, 4, -5)}, []float64{-5, 3, 1}},
		{"sum of TFLite", "input %a: int8[1]\ninput %b: int8[1]\nnode \"n\" npu.qadd(%a, %b) -> (%y: int8[1]) {left_shift=20, multipliers=[1073741824, 1073741824, 1073741824], " +
			"shifts=[31, 31, 50], zeros=[1, 0, -2], rounding=\"two\", lo=-128, hi=127}\noutput %y", [][]float32{f(11), f(4)}, []float64{5}}, // (10 + 4)/2 − 2
		{"fp64 on the host", "input %x: float64[2]\nnode \"n\" host.element(%x) -> (%y: float64[2]) {op=\"sqrt\"}\noutput %y", [][]float32{f(2, 4)}, []float64{1.4142135623730951, 2}},
		{"int64 on the host", "input %x: int64[2]\nnode \"n\" host.element(%x, %x) -> (%y: int64[2]) {op=\"mul\"}\noutput %y", [][]float32{f(1<<31, -3)}, []float64{1 << 62, 9}},
	} {
		if diff := cmp.Diff(tt.want, eval(t, tt.text, tt.in...)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestRunErrors(t *testing.T) {
	g, err := ir.Parse("graph \"t\"\ninput %x: int8[2]\nnode \"n\" host.Odd(%x) -> (%y: int8[2])\noutput %y")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		in   [][]byte
		want string
	}{
		{"no input", nil, "0 inputs for the 1"},
		{"short input", [][]byte{{1}}, `tensor "x": the input has 1 bytes`},
		{"operation", [][]byte{{1, 2}}, `node "n" (host.Odd): neither the device nor the host runs it`},
	} {
		if _, err := Run(g, tt.in, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// A file can hold any node of the host; one that does not follow its operation is an error, whatever its inputs.
func TestCheck(t *testing.T) {
	const want = "go with the output"
	for _, tt := range []struct{ name, text, want string }{
		{"operation", "%a: int64[4]\nnode \"n\" host.element(%a) -> (%b: int64[4]) {op=\"nope\"}", "neither the device nor the host"},
		{"operator of a model", "%a: float32[4]\nnode \"n\" Relu(%a) -> (%b: float32[4])", "neither the device nor the host"},
		{"no input", "%a: int64[4]\nnode \"n\" host.element() -> (%b: int64[4]) {op=\"add\"}", "0 inputs, not 1 to 2"},
		{"input left out", "%a: int64[4]\nnode \"n\" host.element(%a, _) -> (%b: int64[4]) {op=\"add\"}", "neither the device nor the host"},
		{"two outputs", "%a: int64[4]\nnode \"n\" host.element(%a, %a) -> (%b: int64[4], %c: int64[4]) {op=\"add\"}", "has one output"},
		{"output left out", "%a: int64[4]\nnode \"n\" host.element(%a, %a) -> (_) {op=\"add\"}", "has one output"},
		{"attribute's kind", "%a: int64[4]\nnode \"n\" host.element(%a, %a) -> (%b: int64[4]) {op=3}", "attribute op is an integer"},
		{"element's shape", "%a: int64[4]\nnode \"n\" host.element(%a, %a) -> (%b: int64[5]) {op=\"add\"}", want},
		{"cast's shape", "%a: int64[4]\nnode \"n\" host.cast(%a) -> (%b: int32[8])", want},
		{"reduction's shape", "%a: int64[4]\nnode \"n\" host.reduce(%a) -> (%b: int64[4]) {kind=\"sum\"}", want},
		{"reduction's type", "%a: float64[4]\nnode \"n\" host.reduce(%a) -> (%b: int64[1]) {kind=\"sum\"}", want},
		{"product's axes", "%a: int64[4]\nnode \"n\" host.gemm(%a, %a) -> (%b: int64[4]) {rounding=\"none\"}", "3 axes, not 1 and 1"},
		{"product's sum", "%a: int64[1, 2, 3]\nnode \"n\" host.gemm(%a, %a) -> (%b: int64[1, 2, 3]) {rounding=\"none\"}", want},
		{"product's type", "%a: float64[1, 2, 2]\nnode \"n\" host.gemm(%a, %a) -> (%b: int32[1, 2, 2]) {rounding=\"none\"}", want},
		{"clip of nothing", "%a: float64[4]\nnode \"n\" host.clip(%a) -> (%b: float64[4])", want},
		{"clip to another type", "%a: float64[4]\nnode \"n\" host.clip(%a) -> (%b: float32[4]) {clip=floats[0, 1]}", want},
		{"a product", "%a: float64[1, 2, 3]\nnode \"n\" host.gemm(%a, %a) -> (%b: float64[1, 2, 2]) {rounding=\"none\", trans_b=1}", ""},
		{"a reduction", "%a: int64[2, 4]\nnode \"n\" host.reduce(%a) -> (%b: int64[2, 1]) {kind=\"max\"}", ""},
		{"a clip", "%a: float64[4]\nnode \"n\" host.clip(%a) -> (%b: float64[4]) {clip=floats[0, 1]}", ""},
	} {
		g, err := ir.Parse("input " + tt.text + "\noutput %a")
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if err := g.Verify(); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		_, err = Run(g, [][]byte{make([]byte, g.Inputs[0].Bytes())}, nil)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// Remainders are exact, also of infinite divisors and of quotients that no float holds; with mod they have the divisor's sign.
func TestRemainders(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	for _, tt := range []struct{ x, y, mod, fmod float64 }{
		{7, 3, 1, 1},
		{-7, 3, 2, -1},
		{7, -3, -2, 1},
		{7, 0.1, math.Mod(7, 0.1), math.Mod(7, 0.1)},
		{1e300, 3, math.Mod(1e300, 3), math.Mod(1e300, 3)},
		{-3, inf, inf, -3},
		{3, inf, 3, 3},
		{1, -inf, -inf, 1},
		{inf, 2, nan, nan},
		{1, 0, nan, nan},
		{math.Copysign(0, -1), 2, 0, math.Copysign(0, -1)},
	} {
		for op, want := range map[string]float64{"mod": tt.mod, "fmod": tt.fmod} {
			g, err := ir.Parse("graph \"g\"\ninput %x: float64[1]\ninput %y: float64[1]\nnode \"n\" host.element(%x, %y) -> (%z: float64[1]) {op=\"" + op + "\"}\noutput %z")
			if err != nil {
				t.Fatal(err)
			}
			put := func(v float64) []byte { return binary.LittleEndian.AppendUint64(nil, math.Float64bits(v)) }
			out, err := Run(g, [][]byte{put(tt.x), put(tt.y)}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := math.Float64frombits(binary.LittleEndian.Uint64(out[0])); math.Float64bits(got) != math.Float64bits(want) && !(got != got && want != want) {
				t.Errorf("%s(%g, %g) is %g, not %g", op, tt.x, tt.y, got, want)
			}
		}
	}
}
