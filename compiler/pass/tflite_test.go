// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"errors"
	"math"
	"strings"
	"testing"

	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
)

func quantized(name string, typ ir.Type, scale float32, zero int64, shape ...int) *ir.Tensor {
	return &ir.Tensor{Name: name, Type: typ, Shape: shape, Quant: &ir.Quant{Scales: []float32{scale}, Zeros: []int64{zero}}}
}

// full is t as a constant, each byte of which is b.
func full(t *ir.Tensor, b byte) *ir.Tensor {
	t.Data = make([]byte, t.Bytes())
	for i := range t.Data {
		t.Data[i] = b
	}
	return t
}

// TestTFLiteRefused: what the rules of TensorFlow Lite do not do is refused with its reason.
func TestTFLiteRefused(t *testing.T) {
	svdf := func(change func(n *ir.Node)) *ir.Node {
		n := &ir.Node{Op: "tfl.SVDF", Attrs: ir.Attrs{"rank": int64(1), "activation": int64(1)}, Inputs: []*ir.Tensor{
			quantized("x", ir.Int8, 0.1, 3, 1, 4), full(quantized("w", ir.Int8, 0.1, 0, 2, 4), 1), full(quantized("t", ir.Int16, 0.1, 0, 2, 3), 1), nil, quantized("s", ir.Int16, 0.1, 0, 1, 6),
		}, Outputs: []*ir.Tensor{quantized("y", ir.Int8, 0.1, 0, 1, 2), quantized("s:next", ir.Int16, 0.1, 0, 1, 6)}}
		change(n)
		return n
	}
	conv := func(w byte) *ir.Node {
		return &ir.Node{Op: "tfl.CONV_2D", Attrs: ir.Attrs{"stride_w": int64(1), "stride_h": int64(1)}, Inputs: []*ir.Tensor{
			quantized("x", ir.Int16, 0.1, 0, 1, 3, 3, 64), full(quantized("w", ir.Int8, 0.1, 0, 1, 3, 3, 64), w),
		}, Outputs: []*ir.Tensor{quantized("y", ir.Int16, 0.1, 0, 1, 3, 3, 1)}}
	}
	lists := func(v ...int64) []*ir.Tensor {
		var out []*ir.Tensor
		for _, i := range v {
			out = append(out, &ir.Tensor{Name: "list", Type: ir.Int32, Shape: []int{1}, Data: ref.PutInts(ir.Int32, []int64{i})})
		}
		return out
	}
	slice := func(attrs ir.Attrs, v ...int64) *ir.Node {
		return &ir.Node{Op: "tfl.STRIDED_SLICE", Attrs: attrs, Inputs: append([]*ir.Tensor{{Name: "x", Type: ir.Int8, Shape: []int{5}}}, lists(v...)...), Outputs: []*ir.Tensor{{Name: "y", Type: ir.Int8, Shape: []int{1}}}}
	}
	unary := func(op string, x, y *ir.Tensor, attrs ir.Attrs) *ir.Node {
		return &ir.Node{Op: op, Attrs: attrs, Inputs: []*ir.Tensor{x}, Outputs: []*ir.Tensor{y}}
	}
	lstm := func(steps int) *ir.Node {
		n := &ir.Node{Op: "tfl.UNIDIRECTIONAL_SEQUENCE_LSTM", Attrs: ir.Attrs{"activation": int64(4), "inner_scales": []float32{1, 1, 1, 1, 0.1}, "inner_zeros": make([]int64, 5)}}
		n.Inputs = make([]*ir.Tensor, 20)
		n.Inputs[0], n.Inputs[18], n.Inputs[19] = quantized("x", ir.Int8, 0.1, 0, 1, steps, 1), quantized("h", ir.Int8, 0.1, 0, 1, 1), quantized("c", ir.Int16, 1.0/4096, 0, 1, 1)
		for i := range 4 {
			n.Inputs[1+i], n.Inputs[5+i] = full(quantized("w", ir.Int8, 0.1, 0, 1, 1), 1), full(quantized("r", ir.Int8, 0.1, 0, 1, 1), 1)
			n.Inputs[12+i] = full(quantized("b", ir.Int32, 0.1, 0, 1), 1)
		}
		n.Outputs = []*ir.Tensor{quantized("y", ir.Int8, 0.1, 0, 1, steps, 1), quantized("h:next", ir.Int8, 0.1, 0, 1, 1), quantized("c:next", ir.Int16, 1.0/4096, 0, 1, 1)}
		return n
	}
	resize := func(op string, typ ir.Type, h, w int64) *ir.Node {
		size := &ir.Tensor{Name: "size", Type: ir.Int32, Shape: []int{2}, Data: ref.PutInts(ir.Int32, []int64{h, w})}
		return &ir.Node{Op: op, Inputs: []*ir.Tensor{{Name: "x", Type: typ, Shape: []int{1, 2, 3, 1}}, size}, Outputs: []*ir.Tensor{{Name: "y"}}}
	}
	a, b := quantized("a", ir.Int16, 0.1, 0, 4), quantized("b", ir.Int16, 0.1, 0, 4)
	for _, tt := range []struct {
		name string
		n    *ir.Node
		want string // nothing: it is not refused
	}{
		{"svdf", svdf(func(*ir.Node) {}), ""},
		{"svdf, an empty list of zero points", svdf(func(n *ir.Node) { n.Inputs[1].Quant.Zeros = []int64{} }), ""},
		{"svdf of bytes", svdf(func(n *ir.Node) { n.Inputs[4].Type = ir.Int8 }), "with a state and weights of time of int16"},
		{"svdf, weights with a zero point", svdf(func(n *ir.Node) { n.Inputs[1].Quant.Zeros = []int64{-2} }), `tensor "w": it is int8 with zero point -2`},
		{"svdf, rank", svdf(func(n *ir.Node) { n.Attrs["rank"] = int64(0) }), "rank 0"},
		{"sums of int16", conv(1), ""},
		{"sums of int16 that are too large", conv(0x7f), "the sums of output 0 may reach 2397044736"},
		{"powers of two", &ir.Node{Op: "tfl.ADD", Inputs: []*ir.Tensor{a, b}, Outputs: []*ir.Tensor{quantized("y", ir.Int16, 0.1, 0, 4)}}, "pot_scale_int16"},
		{"slice", slice(nil, 4, 0, -2), ""},
		{"slice, ellipsis", slice(ir.Attrs{"ellipsis_mask": int64(1)}, 0, 1, 1), "ellipsis"},
		{"slice, stride 0", slice(nil, 0, 1, 0), "stride 0 of axis 0"},
		{"slice, index beyond", slice(ir.Attrs{"shrink_axis_mask": int64(1)}, 5, 6, 1), "index 5 of axis 0, which has 5"},
		{"softmax of int16", unary("tfl.SOFTMAX", quantized("x", ir.Int16, 0.1, 0, 4), quantized("y", ir.Int16, 0.1, 0, 4), nil), "int16[4] to int16 is not supported"},
		{"softmax, scale", unary("tfl.SOFTMAX", quantized("x", ir.Int8, 1e-20, 0, 4), quantized("y", ir.Int8, 1.0/256, -128, 4), ir.Attrs{"beta": float32(1)}), "below 2⁻²⁶"},
		{"lstm", &ir.Node{Op: "tfl.UNIDIRECTIONAL_SEQUENCE_LSTM", Inputs: []*ir.Tensor{{Name: "x", Type: ir.Float32, Shape: []int{1, 2, 3}}}, Outputs: []*ir.Tensor{{Name: "y", Type: ir.Float32, Shape: []int{1, 2, 3}}}}, "of LSTM only that of int8"},
		{"lstm, steps", lstm(100000), "100000 steps are written out, one after the other, and 512 is the most"},
		{"resize of uint8", resize("tfl.RESIZE_BILINEAR", ir.Uint8, 4, 5), "bilinear of uint8, which is not float32, int8 or int16"},
		{"resize of int64", resize("tfl.RESIZE_NEAREST_NEIGHBOR", ir.Int64, 4, 5), "int64 is no type of RESIZE"},
		{"resize to nothing", resize("tfl.RESIZE_BILINEAR", ir.Int8, 4, 0), "[1 2 3 1] to [4 0] pixels"},
		{"resize by too much", resize("tfl.RESIZE_BILINEAR", ir.Int8, 4, 50000), "a step is less than 2⁻¹¹"},
		{"slope", unary("tfl.LEAKY_RELU", a, quantized("y", ir.Int16, 0.1, 0, 4), ir.Attrs{"alpha": float32(-1)}), "alpha -1"},
	} {
		g := &ir.Graph{Name: "g", Outputs: tt.n.Outputs, Nodes: []*ir.Node{tt.n}}
		tt.n.Name = "n"
		if tt.n.Attrs == nil {
			tt.n.Attrs = ir.Attrs{}
		}
		for _, x := range tt.n.Inputs {
			if x != nil && !x.Const() {
				g.Inputs = append(g.Inputs, x)
			}
		}
		err := Run(g, nil)
		var e *ir.Error
		if tt.want == "" && err != nil || tt.want != "" && (!errors.As(err, &e) || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestFixed compares the functions of fixed-point numbers with real ones; their bits are those of LiteRT in the models that
// have them (compiler/tflite, tests/tflite).
func TestFixed(t *testing.T) {
	for _, width := range []int{16, 32} {
		const bits, count = 3, 1 << 12
		one := float64(int64(1) << (width - 1 - bits))
		var in []int
		for i := range count {
			in = append(in, (i-count/2)<<(width-12))
		}
		b := &builder{n: &ir.Node{Name: "n"}}
		f := fixed{b, width}
		x := b.ints(ir.Int32, []int{count}, in...)
		g := &ir.Graph{Outputs: []*ir.Tensor{f.logistic(x, bits), f.tanh(x, bits), f.exp(f.negAbs(x), bits)}}
		g.Nodes = b.nodes
		out, err := ref.Run(g, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		most := math.Ldexp(12, 1-width) // of 16 bits: roundings of one unit each
		if width == 32 {
			most = 1e-6 // of the polynomial
		}
		for k, real := range []func(v float64) float64{
			func(v float64) float64 { return 1 / (1 + math.Exp(-v)) }, math.Tanh, func(v float64) float64 { return math.Exp(-math.Abs(v)) },
		} {
			worst := 0.0
			for i, v := range ref.Ints(ir.Int32, out[k], count) {
				worst = max(worst, math.Abs(float64(v)/math.Ldexp(1, width-1)-real(float64(in[i])/one)))
			}
			if worst > most {
				t.Errorf("function %d of %d bits is %g off, more than %g", k, width, worst, most)
			}
		}
	}
}
