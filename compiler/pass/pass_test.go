// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
)

// model makes the text of a model: a line is a statement of ir.Parse; of a node's outputs only the names are given, of
// a constant the values behind =, without quotes.
func model(t *testing.T, lines ...string) *ir.Graph {
	t.Helper()
	var text strings.Builder
	fmt.Fprintln(&text, `graph "test"`)
	for _, l := range lines {
		if name, values, ok := strings.Cut(l, " = "); ok && strings.HasPrefix(l, "const") {
			typ, _ := ir.ParseType(strings.TrimSpace(strings.Split(strings.Split(name, ":")[1], "[")[0]))
			var v []float32
			for _, w := range strings.Fields(values) {
				var f float32
				if _, err := fmt.Sscan(w, &f); err != nil {
					t.Fatal(err)
				}
				v = append(v, f)
			}
			c := (&builder{n: &ir.Node{}}).numbers(typ, []int{len(v)}, v...)
			fmt.Fprintf(&text, "%s = %q\n", name, base64.StdEncoding.EncodeToString(c.Data))
			continue
		}
		if head, tail, ok := strings.Cut(l, " -> "); ok {
			outs, attrs, _ := strings.Cut(tail, " {")
			var types []string
			for _, o := range strings.Fields(outs) {
				types = append(types, o+": invalid[]")
			}
			l = head + " -> (" + strings.Join(types, ", ") + ")"
			if attrs != "" {
				l += " {" + attrs
			}
		}
		fmt.Fprintln(&text, l)
	}
	g, err := ir.Parse(text.String())
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// operations are the operations of a graph, in order.
func operations(g *ir.Graph) string {
	var ops []string
	for _, n := range g.Nodes {
		ops = append(ops, strings.TrimPrefix(n.Op, "npu."))
	}
	return strings.Join(ops, " ")
}

// values are pseudo-random inputs of a graph.
func values(g *ir.Graph, seed uint64) [][]byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	var out [][]byte
	for _, t := range g.Inputs {
		n := t.Elements()
		if t.Type.Float() {
			v := make([]float32, n)
			for i := range v {
				v[i] = float32(rng.NormFloat64())
			}
			out = append(out, ref.PutFloats(t.Type, v, true))
			continue
		}
		b := make([]byte, t.Bytes())
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		out = append(out, b)
	}
	return out
}

func run(t *testing.T, g *ir.Graph, in [][]byte) [][]byte {
	t.Helper()
	out, err := ref.Run(g, in, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

var cases = []struct {
	name  string
	lines []string
	want  string  // operations behind all passes
	near  float64 // how far results may be from those without the later passes; 0: the same bits
}{
	{
		name: "a convolution's layout, batch normalization and activation",
		lines: []string{
			"input %x: float32[1, 2, 5, 5]", "const %w: float32[3, 2, 1, 1] = 1 2 3 4 5 6",
			"const %s: float32[3] = 2 0.5 1", "const %b: float32[3] = 1 -1 0", "const %m: float32[3] = 0.5 0 1", "const %v: float32[3] = 1 4 0.25",
			`node "c" Conv(%x, %w) -> %c`, `node "n" BatchNormalization(%c, %s, %b, %m, %v) -> %n`, `node "r" Relu(%n) -> %r`, "output %r",
		},
		want: "transpose conv transpose", near: 1e-5,
	},
	{
		name: "transposes meet behind a residual sum and a concatenation",
		lines: []string{
			"input %x: float32[1, 2, 4, 4]", "const %w: float32[2, 2, 1, 1] = 1 -2 3 4", "const %k: float32[1, 2, 1, 1] = 3 5",
			`node "a" Conv(%x, %w) -> %a`, `node "b" Conv(%a, %w) -> %b`, `node "s" Add(%b, %a) -> %s`, `node "t" Mul(%k, %s) -> %t`,
			`node "j" Concat(%t, %a) -> %j {axis=1}`, `node "p" MaxPool(%j) -> %p {kernel_shape=[2, 2], strides=[2, 2]}`, "output %p",
		},
		want: "transpose conv conv element element concat pool transpose",
	},
	{
		name: "a global average in front of a product",
		lines: []string{
			"input %x: float32[2, 3, 4, 4]", "const %w: float32[2, 3] = 1 2 3 4 5 6", "const %b: float32[2] = 1 2",
			`node "g" GlobalAveragePool(%x) -> %g`, `node "f" Flatten(%g) -> %f`, `node "d" Gemm(%f, %w, %b) -> %d {transB=1}`, `node "r" Sigmoid(%d) -> %r`, "output %r",
		},
		want: "transpose pool reshape gemm reshape",
	},
	{
		name: "a product of transposed activations",
		lines: []string{
			"input %x: float32[3, 2]", "input %y: float32[4, 3]", "const %c: float32[4] = 1 2 3 4",
			`node "g" Gemm(%x, %y, %c) -> %g {transA=1, transB=1, alpha=float 0.5}`, "output %g",
		},
		want: "transpose reshape reshape gemm element element reshape",
	},
	{
		name: "a quantized convolution",
		lines: []string{
			"input %x: float32[1, 1, 4, 4]", "const %xs: float32[] = 0.05", "const %xz: int8[] = 3", "const %w: int8[2, 1, 3, 3] = 1 2 3 4 5 6 7 8 9 -1 -2 -3 -4 -5 -6 -7 -8 -9",
			"const %ws: float32[2] = 0.01 0.02", "const %wz: int8[2] = 0 0", "const %b: int32[2] = 100 -100", "const %bs: float32[2] = 0.0005 0.001", "const %bz: int32[2] = 0 0",
			"const %ys: float32[] = 0.02", "const %yz: int8[] = -128",
			`node "q" QuantizeLinear(%x, %xs, %xz) -> %q`, `node "dq" DequantizeLinear(%q, %xs, %xz) -> %dq`, `node "dw" DequantizeLinear(%w, %ws, %wz) -> %dw {axis=0}`,
			`node "db" DequantizeLinear(%b, %bs, %bz) -> %db {axis=0}`, `node "c" Conv(%dq, %dw, %db) -> %c {pads=[1, 1, 1, 1]}`, `node "r" Relu(%c) -> %r`,
			`node "qy" QuantizeLinear(%r, %ys, %yz) -> %qy`, `node "dy" DequantizeLinear(%qy, %ys, %yz) -> %dy`,
			`node "p" MaxPool(%dy) -> %p {kernel_shape=[2, 2], strides=[2, 2]}`, `node "qp" QuantizeLinear(%p, %ys, %yz) -> %qp`, "output %qp",
		},
		want: "quantize reshape conv pool transpose",
	},
	{
		name: "a function of 8 bits",
		lines: []string{
			"input %x: uint8[7]", "const %xs: float32[] = 0.05", "const %xz: uint8[] = 128", "const %ys: float32[] = 0.004", "const %yz: uint8[] = 0", "const %two: float32[] = 2",
			`node "d" DequantizeLinear(%x, %xs, %xz) -> %d`, `node "s" Sigmoid(%d) -> %s`, `node "m" Mul(%s, %two) -> %m`, `node "q" QuantizeLinear(%m, %ys, %yz) -> %q`, "output %q",
		},
		want: "table",
	},
	{
		name: "shapes that are computed",
		lines: []string{
			"input %x: float32[2, 3, 4]", "const %i: int64[1] = 0", "const %m: int64[1] = -1",
			`node "s" Shape(%x) -> %s`, `node "g" Gather(%s, %i) -> %g`, `node "c" Concat(%g, %m) -> %c {axis=0}`, `node "r" Reshape(%x, %c) -> %r`, "output %r",
		},
		want: "reshape",
	},
	{
		name: "numbers that the device lacks",
		lines: []string{
			"input %x: float64[3]", "input %y: float64[3]", `node "a" Add(%x, %y) -> %a`, `node "t" Transpose(%a) -> %t`, "output %t",
		},
		want: "host.element",
	},
	{
		name: "integers that the device lacks, in halves",
		lines: []string{
			"input %x: int64[3]", "input %y: int64[3]", `node "a" BitwiseAnd(%x, %y) -> %a`, `node "t" Transpose(%a) -> %t`, "output %t",
		},
		want: "bitcast slice reshape bitcast slice reshape bitcast slice reshape bitcast slice reshape element element reshape reshape concat bitcast",
	},
	{
		name: "a product of ONNX Runtime",
		lines: []string{
			"input %x: int8[2, 3]", "const %xs: float32[] = 0.05", "const %xz: int8[] = 3", "const %w: int8[2, 3] = 1 -2 3 4 -5 6", "const %ws: float32[2] = 0.01 0.02", "const %wz: int8[2] = 0 0", "const %b: int32[2] = 100 -100",
			"const %ys: float32[] = 0.02", "const %yz: int8[] = -8",
			`node "q" com.microsoft.QGemm(%x, %xs, %xz, %w, %ws, %wz, %b, %ys, %yz) -> %q {transB=1}`, `node "f" com.microsoft.QGemm(%x, %xs, %xz, %w, %ws, %wz, %b) -> %f {transB=1}`, "output %q", "output %f",
		},
		want: "reshape gemm reshape reshape gemm cast element reshape",
	},
	{
		name: "products of two shapes meet", // whose reshapes could move for ever
		lines: []string{
			"input %x: float32[1, 2, 4, 3]", "input %y: float32[8, 3]", "input %v: float32[2, 3, 5]", "const %w: float32[3, 5] = 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15", "const %m: int64[4] = 1 2 4 5", "input %k: float32[4, 5]",
			"const %l: int64[3] = 2 4 3",
			`node "z" Reshape(%x, %l) -> %z`, `node "a" MatMul(%z, %v) -> %a`, `node "ar" Reshape(%a, %m) -> %ar`, `node "b" MatMul(%y, %w) -> %b`, `node "br" Reshape(%b, %m) -> %br`,
			`node "s" Add(%ar, %br) -> %s`, `node "t" Add(%s, %k) -> %t`, `node "o" Softmax(%t) -> %o {axis=-1}`, "output %o",
		},
		want: "reshape gemm reshape reshape gemm element reshape element softmax",
	},
	{
		name: "a gate for each channel",
		lines: []string{
			"input %x: float32[1, 2, 4, 4]", "const %w: float32[2, 2, 1, 1] = 1 -2 3 4", `node "a" Conv(%x, %w) -> %a`, `node "g" GlobalAveragePool(%a) -> %g`, `node "h" HardSigmoid(%g) -> %h`, `node "m" Mul(%a, %h) -> %m`,
			`node "b" Conv(%m, %w) -> %b`, "output %b",
		},
		want: "transpose conv pool reshape element element clip reshape element conv transpose",
	},
	{
		name: "an output that is an input",
		lines: []string{
			"input %x: float32[3]", `node "i" Identity(%x) -> %i`, "output %i",
		},
		want: "reshape",
	},
}

// TestPasses compiles each case, twice, and compares the results with those of its rules alone:
// FuseQDQ and all that follows Lower, but what takes constants and types away, have no part in these.
func TestPasses(t *testing.T) {
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			plain := model(t, tt.lines...)
			for _, p := range []func(*ir.Graph) error{Infer, Lower, Fold, Partition} {
				if err := p(plain); err != nil {
					t.Fatal(err)
				}
			}
			if err := plain.Verify(); err != nil {
				t.Fatal(err)
			}
			g, again := model(t, tt.lines...), model(t, tt.lines...)
			dumps := map[string]string{}
			if err := Run(g, func(name string, g *ir.Graph) { dumps[name] = g.String() }); err != nil {
				t.Fatal(err)
			}
			if err := Run(again, func(name string, g *ir.Graph) {
				if s := g.String(); s != dumps[name] {
					t.Errorf("%s is not deterministic:\n%s\n%s", name, dumps[name], s)
				}
			}); err != nil {
				t.Fatal(err)
			}
			if len(dumps) != len(Passes()) {
				t.Errorf("%d dumps of %d passes", len(dumps), len(Passes()))
			}
			if diff := cmp.Diff(tt.want, operations(g)); diff != "" {
				t.Errorf("operations (-want +got):\n%s\n%s", diff, g)
			}
			for i, o := range g.Outputs {
				if p := plain.Outputs[i]; o.Name != p.Name || o.Type != p.Type || !slices.Equal(o.Shape, p.Shape) {
					t.Errorf("output %d is %s, not %s", i, o, p)
				}
			}
			for seed := range uint64(3) {
				in := values(g, seed)
				want, got := run(t, plain, in), run(t, g, in)
				for i, o := range g.Outputs {
					if tt.near == 0 {
						if !bytes.Equal(want[i], got[i]) {
							t.Errorf("output %s is %x, without the later passes %x", o.Name, got[i], want[i])
						}
						continue
					}
					a, b := ref.Doubles(o.Type, want[i], o.Elements()), ref.Doubles(o.Type, got[i], o.Elements())
					for k := range a {
						if math.Abs(a[k]-b[k]) > tt.near*max(1, math.Abs(a[k])) {
							t.Errorf("output %s[%d] is %g, without the later passes %g", o.Name, k, b[k], a[k])
						}
					}
				}
			}
		})
	}
}

// change is what one pass does to a graph of the device level: the operations behind it, and how far results may be from those before; 0: the same bits.
type change struct {
	name  string
	lines []string // behind the head that rows have in common
	want  string
	near  float64
}

// testPass runs one pass alone.
func testPass(t *testing.T, p func(*ir.Graph) error, head string, rows []change) {
	t.Helper()
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			text := "graph \"test\"\n" + head + "\n" + strings.Join(tt.lines, "\n")
			plain, err := ir.Parse(text)
			if err == nil {
				err = plain.Verify()
			}
			if err != nil {
				t.Fatal(err)
			}
			g, err := ir.Parse(text)
			if err == nil {
				err = p(g)
			}
			if err == nil {
				err = g.Verify()
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, operations(g)); diff != "" {
				t.Errorf("operations (-want +got):\n%s\n%s", diff, g)
			}
			in := values(plain, 1)
			want, got := run(t, plain, in), run(t, g, in)
			for i, o := range g.Outputs {
				w := wanted{typ: plain.Outputs[i].Type, shape: fmt.Sprint(plain.Outputs[i].Shape), near: tt.near, values: ref.Doubles(o.Type, want[i], o.Elements())}
				w.compare(t, o, got[i])
			}
		})
	}
}

// recurrentModel is a model with an LSTM, or another of its kind.
func recurrentModel(node string) []string {
	return []string{"input %x: float32[3, 1, 2]", "input %w: float32[1, 16, 2]", "input %r: float32[1, 16, 4]", "const %l: int32[1] = 2", `node "n" ` + node, "output %y"}
}

// TestErrors has models that are refused, and what the error must say.
func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"operator", []string{"input %x: float32[1]", `node "n" Unique(%x) -> %y`, "output %y"}, `node "n" (Unique): tensor "x": the operator is not supported; replace it`},
		{"shapes", []string{"input %x: float32[2]", "input %z: float32[3]", `node "n" Add(%x, %z) -> %y`, "output %y"}, `cannot be broadcast`},
		{"types", []string{"input %x: float32[2]", "input %z: int32[2]", `node "n" Add(%x, %z) -> %y`, "output %y"}, "the operands are float32 and int32"},
		{"scatter outside", []string{"input %x: float32[3, 2]", "input %u: float32[1, 2]", "const %i: int64[1, 1] = 3", `node "n" ScatterND(%x, %i, %u) -> %y`, "output %y"}, "index 3 of axis 0 of [3 2]"},
		{"scatter of too little", []string{"input %x: float32[3, 2]", "input %u: float32[1, 1]", "const %i: int64[1, 1] = 1", `node "n" ScatterND(%x, %i, %u) -> %y`, "output %y"}, `tensor "u": updates [1 1] for indices [1 1] of [3 2]`},
		{"scatter of another type", []string{"input %x: float32[3, 2]", "input %u: int32[1, 2]", "const %i: int64[1, 1] = 1", `node "n" ScatterND(%x, %i, %u) -> %y`, "output %y"}, "updates are int32, not float32"},
		{"scatter of another kind", []string{"input %x: float32[3]", "input %u: float32[1]", "const %i: int64[1] = 1", `node "n" ScatterElements(%x, %i, %u) -> %y {reduction="mean"}`, "output %y"}, `reduction "mean" is not supported`},
		{"scatter by what is computed", []string{"input %x: float32[3]", "input %u: float32[1]", "input %i: int64[1]", `node "n" ScatterElements(%x, %i, %u) -> %y`, "output %y"}, `tensor "i": must be a constant`},
		{"scatter to one place", []string{"input %x: float32[3]", "input %u: float32[65]", "const %i: int64[65] =" + strings.Repeat(" 1", 65), `node "n" ScatterElements(%x, %i, %u) -> %y {reduction="add"}`, "output %y"}, "combined with more than 64 updates"},
		{"rotary without heads", []string{"input %x: float32[1, 2, 8]", "input %c: float32[1, 2, 4]", `node "n" RotaryEmbedding(%x, %c, %c) -> %y`, "output %y"}, "0 heads of [1 2 8]"},
		{"rotary of other angles", []string{"input %x: float32[1, 2, 2, 8]", "input %c: float32[1, 2, 3]", `node "n" RotaryEmbedding(%x, %c, %c) -> %y`, "output %y"}, "[1 2 3] for pairs of 8 elements and 2 positions"},
		{"recurrent, direction", recurrentModel(`LSTM(%x, %w, %r) -> %y {direction="bidirectional"}`), `direction "bidirectional" of x [3 1 2]`},
		{"recurrent, gates", recurrentModel(`GRU(%x, %w, %r) -> %y`), "w [1 16 2] and r [1 16 4] are not those of 3 gates"},
		{"recurrent, lengths", append([]string{"const %k: int32[1] = 4"}, recurrentModel(`LSTM(%x, %w, %r, _, %k) -> %y`)...), `tensor "k": a sequence of 4 of 3 steps`},
		{"recurrent, too many lengths", append([]string{"input %k: int32[2]"}, recurrentModel(`LSTM(%x, %w, %r, _, %k) -> %y`)...), `tensor "k": [2] lengths of 1 sequences`},
		{"recurrent, clip", recurrentModel(`LSTM(%x, %w, %r) -> %y {clip=float -1}`), "clip is -1"},
		{"recurrent, alpha", recurrentModel(`LSTM(%x, %w, %r) -> %y {activation_alpha=floats[1]}`), "attribute activation_alpha is not supported"},
		{"recurrent, activation", recurrentModel(`LSTM(%x, %w, %r) -> %y {activations=strings["Sigmoid", "Affine", "Tanh"]}`), `activation "Affine" is not supported; Sigmoid, Tanh, Relu, HardSigmoid and Softsign are`},
		{"recurrent, activations", recurrentModel(`LSTM(%x, %w, %r) -> %y {activations=strings["Sigmoid"]}`), "1 activations for 1 directions"},
		{"recurrent, steps", append([]string{"input %z: float32[513, 1, 2]"}, recurrentModel(`LSTM(%z, %w, %r) -> %y`)...), "513 steps are written out"},
		{"resize without sizes", []string{"input %x: float32[1, 2]", `node "n" Resize(%x) -> %y`, "output %y"}, `node "n" (Resize): tensor "x": 0 scales and 0 sizes for 2 axes`},
		{"resize to nothing", []string{"input %x: float32[1, 2]", "const %s: float32[2] = 1 0.4", `node "n" Resize(%x, _, %s) -> %y`, "output %y"}, "axis 1 of [1 2] becomes 0"},
		{"resize of another mode", []string{"input %x: float32[1, 2]", "const %s: float32[2] = 1 2", `node "n" Resize(%x, _, %s) -> %y {mode="bicubic"}`, "output %y"}, `mode "bicubic" is not supported`},
		{"resize without roi", []string{"input %x: float32[1, 2]", "const %s: float32[2] = 1 2", `node "n" Resize(%x, _, %s) -> %y {coordinate_transformation_mode="tf_crop_and_resize"}`, "output %y"}, "0 numbers of roi for 2 axes"},
		{"nearest with weights", []string{"input %x: float32[1, 2]", "const %s: float32[2] = 1 2", `node "n" Resize(%x, _, %s) -> %y {antialias=1}`, "output %y"}, "antialias and exclude_outside are not for mode nearest"},
		{"no constant", []string{"input %x: float32[2]", "input %s: int64[1]", `node "n" Reshape(%x, %s) -> %y`, "output %y"}, `node "n" (Reshape): tensor "s": must be a constant`},
		{"missing input", []string{"input %x: float32[2]", `node "n" MatMul(%x) -> %y`, "output %y"}, "its inputs and attributes do not fit the operator: 1 inputs, float32[2]"},
		{"reshape", []string{"input %x: float32[2]", "const %s: int64[1] = 3", `node "n" Reshape(%x, %s) -> %y`, "output %y"}, "[2] cannot become [3]"},
		{"huge", []string{"input %x: float32[1]", "const %s: int64[3] = 65536 65536 65536", `node "n" Expand(%x, %s) -> %y`, "output %y"}, "too large"},
		{"attribute of another kind", []string{"input %x: float32[2]", `node "n" Softmax(%x) -> %y {axis="last"}`, "output %y"}, "an attribute is of another kind than the operator's"},
		{"no permutation", []string{"input %x: float32[2, 2]", `node "n" Transpose(%x) -> %y {perm=[0, 0]}`, "output %y"}, "perm [0 0] is no permutation"},
		{"topk, too many", []string{"input %x: float32[2, 3]", "const %k: int64[1] = 4", `node "n" TopK(%x, %k) -> %y %z`, "output %y"}, `tensor "x": the 4 first of 3`},
		{"topk, computed", []string{"input %x: float32[2, 3]", "input %k: int64[1]", `node "n" TopK(%x, %k) -> %y %z`, "output %y"}, `tensor "k": must be a constant`},
		{"topk of many", []string{"input %x: float32[1000]", "const %k: int64[1] = 513", `node "n" TopK(%x, %k) -> %y %z`, "output %y"}, "513 elements are picked one after the other"},
		{"nonzero", []string{"input %x: float32[2]", `node "n" NonZero(%x) -> %y`, "output %y"}, `tensor "x": must be a constant`},
		{"compress", []string{"input %x: float32[2]", "const %c: bool[3] = 1 0 1", `node "n" Compress(%x, %c) -> %y`, "output %y"}, `tensor "c": 3 conditions for axis 0 of [2]`},
		{"targets", []string{"input %x: float32[2, 5]", "input %t: int64[3]", `node "n" NegativeLogLikelihoodLoss(%x, %t) -> %y`, "output %y"}, `tensor "t": targets [3] for [2 5]`},
		{"elements, other axes", []string{"input %x: float32[2, 5]", "input %t: int64[3, 5]", `node "n" GatherElements(%x, %t) -> %y {axis=1}`, "output %y"}, `tensor "t": indices [3 5] for [2 5]`},
		{"cache", []string{"input %x: float32[2, 3, 4]", "input %u: float32[2, 4, 4]", `node "n" TensorScatter(%x, %u) -> %y`, "output %y"}, `tensor "u": an update of [2 4 4] for [2 3 4]`},
		{"einsum, terms", []string{"input %x: float32[2]", `node "n" Einsum(%x) -> %y {equation="i,i"}`, "output %y"}, `equation "i,i" has 2 terms for 1 inputs`},
		{"einsum, axes", []string{"input %x: float32[2]", `node "n" Einsum(%x) -> %y {equation="ij"}`, "output %y"}, `the term "ij" for 1 axes`},
		{"einsum, sizes", []string{"input %x: float32[2]", "input %z: float32[3]", `node "n" Einsum(%x, %z) -> %y {equation="i,i"}`, "output %y"}, `tensor "z": equation "i,i": an axis of [3] is 3, and 2 elsewhere`},
		{"einsum, output", []string{"input %x: float32[2]", `node "n" Einsum(%x) -> %y {equation="i->j"}`, "output %y"}, "gives an axis that no term has"},
		{"sample", []string{"input %x: float32[1, 1, 2, 2]", "input %g: float32[1, 3, 3, 2]", `node "n" GridSample(%x, %g) -> %y {mode="area"}`, "output %y"}, `mode "area" with padding "zeros"`},
		{"sample, axes", []string{"input %x: float32[1, 1, 2, 2]", "input %g: float32[1, 3, 3, 3]", `node "n" GridSample(%x, %g) -> %y`, "output %y"}, `tensor "g": grid [1 3 3 3]`},
		{"transform", []string{"input %x: float32[2, 3, 3]", `node "n" DFT(%x) -> %y`, "output %y"}, "whose last one has the parts of a number"},
		{"blocks", []string{"input %x: float32[1, 4, 5]", "const %i: int64[2] = 3 3", "const %b: int64[2] = 2 2", `node "n" Col2Im(%x, %i, %b) -> %y`, "output %y"}, "5 blocks where the image has 4"},
		{"linear attention", []string{"input %q: float32[1, 2, 4]", `node "n" LinearAttention(%q, %q, %q) -> %y %s {update_rule="odd", q_num_heads=1, kv_num_heads=1}`, "output %y"}, `update_rule "odd"`},
		{"index", []string{"input %x: float32[2]", "const %i: int64[2] = 0 2", `node "n" Gather(%x, %i) -> %y`, "output %y"}, "tensor \"i\": index 2 of axis 0 of [2], which has 2 elements"},
		{"depth", []string{"input %x: int32[2]", "const %d: int64[] = 1099511627776", "const %v: float32[2] = 0 1", `node "n" OneHot(%x, %d, %v) -> %y`, "output %y"}, "constant of shape [1099511627776]"},
		{"huge triangle", []string{"input %x: float32[100000]", "const %a: int64[] = 0", `node "n" CumSum(%x, %a) -> %y`, "output %y"}, "constant of shape [100000 100000], and up to 2²⁴ elements"},
		{"huge mask", []string{"input %x: uint8[60000, 60000]", `node "n" Trilu(%x) -> %y`, "output %y"}, "constant of shape [60000 60000]"},
		{"huge diagonal", []string{"input %x: uint8[60000, 60000]", `node "n" EyeLike(%x) -> %y`, "output %y"}, "constant of shape [60000 60000]"},
		{"huge argument", []string{"input %x: uint8[1, 4000000000]", `node "n" ArgMax(%x) -> %y {axis=1}`, "output %y"}, "constant of shape [4000000000]"},
		{"huge range", []string{"const %a: int64[] = 0", "const %b: int64[] = 1e15", "const %c: int64[] = 1", `node "n" Range(%a, %b, %c) -> %y`, "output %y"}, "more than 2²⁴"},
		{"axis", []string{"input %x: float32[2]", `node "n" Softmax(%x) -> %y {axis=1}`, "output %y"}, "axis 1 of 1"},
		{"groups", []string{"input %x: float32[1, 3, 4, 4]", "const %w: float32[2, 2, 1, 1] = 1 2 3 4", `node "n" Conv(%x, %w) -> %y`, "output %y"}, "1 groups, 3 channels"},
		{"window", []string{"input %x: float32[1, 1, 2, 2]", `node "n" MaxPool(%x) -> %y {kernel_shape=[3, 3]}`, "output %y"}, "larger than the padded axis"},
		{"stride", []string{"input %x: float32[1, 1, 2, 2]", `node "n" MaxPool(%x) -> %y {kernel_shape=[1, 1], strides=[0, 1]}`, "output %y"}, "strides [0 1] for 2 spatial axes"},
		{"outputs", []string{"input %x: float32[1, 1, 2, 2]", `node "n" MaxPool(%x) -> %y %i {kernel_shape=[1, 1]}`, "output %y"}, "indices is not supported"},
		{"scale", []string{"input %x: float32[2]", "const %s: float32[] = 0", `node "n" QuantizeLinear(%x, %s) -> %y`, "output %y"}, "finite and above 0"},
	} {
		var e *ir.Error
		err := Run(model(t, tt.lines...), nil)
		if !errors.As(err, &e) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
			continue
		}
		if e.Graph != "test" || e.Node != "n" || e.Op == "" || e.Remedy == "" || e.Tensor == "" && tt.name != "operator" {
			t.Errorf("%s: %+v does not name all of graph, node, operator, tensor and remedy", tt.name, *e)
		}
	}
}

// TestErrorFields: an error has the model's names, also where the rule that is broken is one of an operation that the node became.
func TestErrorFields(t *testing.T) {
	x := "input %x: float32[1, 2, 3]"
	for _, tt := range []struct {
		name  string
		lines []string
		want  ir.Error
	}{
		{
			"operands",
			[]string{"input %x: float32[2]", "input %z: float32[3]", `node "n" Add(%x, %z) -> %y`, "output %y"},
			ir.Error{Op: "Add", Tensor: "z", Rule: `shapes [2] of "x" and [3] cannot be broadcast`, Remedy: string(fixShapes)},
		},
		{
			"parameters",
			[]string{x, "const %s: float32[3] = 1 2 3", "const %b: float32[2] = 1 2", `node "n" BatchNormalization(%x, %s, %b, %b, %b) -> %y`, "output %y"},
			ir.Error{Op: "BatchNormalization", Tensor: "b", Rule: `shapes [3] of "s" and [2] cannot be broadcast`, Remedy: string(fixShapes)},
		},
		{
			"types",
			[]string{"input %x: float32[2]", "input %z: int32[2]", `node "n" Mul(%x, %z) -> %y`, "output %y"},
			ir.Error{Op: "Mul", Tensor: "z", Rule: "the operands are float32 and int32", Remedy: string(fixTypes)},
		},
		{
			"attribute",
			[]string{x, `node "n" Transpose(%x) -> %y {perm=[0, 0, 1]}`, "output %y"},
			ir.Error{Op: "Transpose", Tensor: "x", Rule: "perm [0 0 1] is no permutation", Remedy: string(fixValue)},
		},
		{
			"a step of the operator",
			[]string{"input %x: int32[2]", `node "n" Softplus(%x) -> %y`, "output %y"},
			ir.Error{Op: "Softplus", Tensor: "x", Rule: "npu.element, of which it is made: exp is not for int32"},
		},
		{
			"a type without an operation",
			[]string{"input %x: int32[2, 3]", `node "n" Softmax(%x) -> %y`, "output %y"},
			ir.Error{Op: "Softmax", Tensor: "x", Rule: "npu.softmax, of which it is made: int32 is no type of NORM"},
		},
		{
			"behind a fusion",
			[]string{
				"input %x: int8[2, 2]", "const %s: float32[] = 0.1", "const %z: int8[] = 0", "const %w: int8[2, 3] = 1 2 3 4 5 6", "const %t: float32[] = 1e-45",
				`node "dx" DequantizeLinear(%x, %s, %z) -> %dx`, `node "dw" DequantizeLinear(%w, %t, %z) -> %dw`, `node "n" MatMul(%dx, %dw) -> %m`, `node "q" QuantizeLinear(%m, %s, %z) -> %y`, "output %y",
			},
			ir.Error{Op: "MatMul", Tensor: "x", Rule: "the scale 0.1·1e-45/0.1 is not finite and above 0 (§6.9)", Remedy: string(fixScales)},
		},
		{
			"window",
			[]string{"input %x: float32[1, 1, 2, 2]", `node "n" MaxPool(%x) -> %y {kernel_shape=[3, 3]}`, "output %y"},
			ir.Error{Op: "MaxPool", Tensor: "x", Rule: "the window of 3 is larger than the padded axis of 2", Remedy: string(fixShapes)},
		},
		{
			"size",
			[]string{"input %x: uint8[60000, 60000]", `node "n" Trilu(%x) -> %y`, "output %y"},
			ir.Error{Op: "Trilu", Tensor: "x", Rule: "it takes a constant of shape [60000 60000], and up to 2²⁴ elements are made", Remedy: string(makeSmaller)},
		},
	} {
		tt.want.Graph, tt.want.Node = "test", "n"
		if tt.want.Remedy == "" {
			tt.want.Remedy = "cast the node's inputs to a type that the card computes this with (float32 mostly), or replace the node"
		}
		var e *ir.Error
		if err := Run(model(t, tt.lines...), nil); !errors.As(err, &e) {
			t.Errorf("%s: the error is %v", tt.name, err)
		} else if diff := cmp.Diff(tt.want, *e); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// A constant that grows beyond all sizes is refused, not computed.
func TestHugeConstant(t *testing.T) {
	g := model(t, "input %q: float32[1, 1, 1099511]", "const %k: float32[1, 1, 1] = 1", "const %v: float32[1, 1, 1] = 1", `node "a" Attention(%q, %k, %v) -> %y {q_num_heads=1099511, kv_num_heads=1}`, "output %y")
	for _, c := range g.Nodes[0].Inputs[1:] {
		c.Shape = []int{1, 1, 1}
	}
	k := g.Nodes[0].Inputs[1]
	k.Shape, k.Data = []int{1, 40000, 1}, make([]byte, 160000)
	if err := Run(g, nil); err == nil || !strings.Contains(err.Error(), "is too large") {
		t.Errorf("the error is %v", err)
	}
}

// TestHostNames: what the host runs is named, and nothing else goes there.
func TestHostNames(t *testing.T) {
	g := model(t, "input %x: float64[2]", "input %y: float32[2]", `node "wide" Exp(%x) -> %a`, `node "narrow" Exp(%y) -> %b`, "output %a", "output %b")
	if err := Run(g, nil); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, n := range HostNodes(g) {
		names = append(names, n.Name+" "+n.Op)
	}
	if diff := cmp.Diff([]string{"wide host.element"}, names); diff != "" {
		t.Errorf("host (-want +got):\n%s", diff)
	}
}
