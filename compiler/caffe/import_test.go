// SPDX-License-Identifier: Apache-2.0

package caffe

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"npuemu/compiler/ir"
	"npuemu/compiler/pass"
	"npuemu/compiler/ref"
)

// lenet is a network of LeNet's shape in the format of version 2, with a field that Caffe does not have.
const lenet = `
name: "lenet"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 1 dim: 28 dim: 28 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" convolution_param { num_output: 4 kernel_size: 5 stride: 1 unheard_of: 7 } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2" convolution_param { num_output: 6 kernel_size: 5 group: 2 } }
layer { name: "pool2" type: "Pooling" bottom: "conv2" top: "pool2" pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "ip1" type: "InnerProduct" bottom: "pool2" top: "ip1" inner_product_param { num_output: 20 } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "drop" type: "Dropout" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" inner_product_param { num_output: 10 } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" top: "accuracy" include { phase: TRAIN } }
layer { name: "prob" type: "Softmax" bottom: "ip2" top: "prob" }
`

// version1Of is a network in the format of version 1.
func version1Of(text string) string {
	text = strings.ReplaceAll(text, `layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 1 dim: 28 dim: 28 } } }`,
		`input: "data" input_dim: 2 input_dim: 1 input_dim: 28 input_dim: 28`)
	for v1, v2 := range version1 {
		text = strings.ReplaceAll(text, `type: "`+v2+`"`, "type: "+v1)
	}
	return strings.ReplaceAll(strings.ReplaceAll(text, `"Accuracy"`, "ACCURACY"), "layer {", "layers {")
}

// blobsOf are the weights of lenet's layers: counts, and whether they are doubles.
var blobsOf = map[string][]int{"conv1": {4 * 25, 4}, "conv2": {6 * 2 * 25, 6}, "ip1": {20 * 6 * 16, 20}, "ip2": {10 * 20, 10}}

// caffemodel is a file of pseudo-random weights, in the format of layer or layers, and the weights.
func caffemodel(t testing.TB, kind string) ([]byte, map[string][][]float32) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	m := dynamicpb.NewMessage(net())
	fields := m.Descriptor().Fields()
	layers := m.Mutable(fields.ByName(protoreflect.Name(kind))).List()
	weights := map[string][][]float32{}
	for _, name := range []string{"conv1", "conv2", "ip1", "ip2"} {
		l := layers.AppendMutable().Message()
		l.Set(l.Descriptor().Fields().ByName("name"), protoreflect.ValueOfString(name))
		blobs := l.Mutable(l.Descriptor().Fields().ByName("blobs")).List()
		for _, n := range blobsOf[name] {
			b := blobs.AppendMutable().Message()
			data := b.Mutable(b.Descriptor().Fields().ByName("data")).List()
			v := make([]float32, n)
			for i := range v {
				v[i] = float32(rng.NormFloat64()) * 0.2
				data.Append(protoreflect.ValueOfFloat32(v[i]))
			}
			weights[name] = append(weights[name], v)
		}
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b, weights
}

// plainLenet computes one image as Caffe does, in fp64.
func plainLenet(w map[string][][]float32, x []float64) []float64 {
	conv := func(x []float64, cin, size int, name string, cout, groups int) []float64 {
		out := size - 4
		y := make([]float64, cout*out*out)
		for c := range cout {
			for i := range out * out {
				sum := float64(w[name][1][c])
				for k := range cin / groups * 25 {
					ch := c/(cout/groups)*(cin/groups) + k/25
					sum += float64(w[name][0][c*cin/groups*25+k]) * x[ch*size*size+(i/out+k%25/5)*size+i%out+k%5]
				}
				y[c*out*out+i] = sum
			}
		}
		return y
	}
	pool := func(x []float64, ch, size, k, out int, avg bool) []float64 {
		y := make([]float64, ch*out*out)
		for i := range y {
			top, sum, n := math.Inf(-1), 0.0, 0.0
			for dy := range k {
				for dx := range k {
					py, px := i%(out*out)/out*2+dy, i%out*2+dx
					if py < size && px < size {
						v := x[i/(out*out)*size*size+py*size+px]
						top, sum, n = max(top, v), sum+v, n+1
					}
				}
			}
			if y[i] = top; avg {
				y[i] = sum / n
			}
		}
		return y
	}
	dense := func(x []float64, name string, n int) []float64 {
		y := make([]float64, n)
		for i := range y {
			y[i] = float64(w[name][1][i])
			for k, v := range x {
				y[i] += v * float64(w[name][0][i*len(x)+k])
			}
		}
		return y
	}
	x = pool(conv(x, 1, 28, "conv1", 4, 1), 4, 24, 2, 12, false)
	x = pool(conv(x, 4, 12, "conv2", 6, 2), 6, 8, 3, 4, true) // (8 − 3) / 2 is rounded up
	x = dense(x, "ip1", 20)
	for i := range x {
		x[i] = max(x[i], 0)
	}
	x = dense(x, "ip2", 10)
	sum, top := 0.0, x[0]
	for _, v := range x {
		top = max(top, v)
	}
	for i := range x {
		x[i] = math.Exp(x[i] - top)
		sum += x[i]
	}
	for i := range x {
		x[i] /= sum
	}
	return x
}

// TestLeNet compiles the network in both formats: they are one graph, and give what plain loops give.
func TestLeNet(t *testing.T) {
	model, weights := caffemodel(t, "layer")
	old, _ := caffemodel(t, "layers")
	g, err := Import([]byte(lenet), model)
	if err != nil {
		t.Fatal(err)
	}
	v1, err := Import([]byte(version1Of(lenet)), old)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := g.String(), v1.String(); a != b {
		t.Errorf("version 2:\n%s\nversion 1:\n%s", a, b)
	}
	if err := pass.Run(g, nil); err != nil {
		t.Fatal(err)
	}
	if len(g.Outputs) != 1 || g.Outputs[0].Name != "prob" || len(pass.HostNodes(g)) != 0 {
		t.Errorf("outputs %v, %d nodes on the host", g.Outputs, len(pass.HostNodes(g)))
	}
	rng := rand.New(rand.NewPCG(3, 4))
	x := make([]float32, 2*784)
	var want []float64
	for i := range x {
		x[i] = rng.Float32()
	}
	for img := range 2 {
		v := make([]float64, 784)
		for i := range v {
			v[i] = float64(x[img*784+i])
		}
		want = append(want, plainLenet(weights, v)...)
	}
	out, err := ref.Run(g, [][]byte{ref.PutFloats(ir.Float32, x, false)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range ref.Floats(ir.Float32, out[0], 20) {
		if math.Abs(float64(v)-want[i]) > 1e-4*math.Abs(want[i])+1e-7 {
			t.Errorf("probability %d is %g, not %g", i, v, want[i])
		}
	}
}

func TestBadNetworks(t *testing.T) {
	model, _ := caffemodel(t, "layer")
	swap := func(from, to string) string {
		s := strings.Replace(lenet, from, to, 1)
		if s == lenet {
			t.Fatalf("nothing to replace: %s", from)
		}
		return s
	}
	for _, tt := range []struct {
		name, text string
		model      []byte
		want       string
	}{
		{"text", "layer {", model, "the prototxt is not valid"},
		{"weights", lenet, model[:len(model)-3], "the caffemodel is not valid"},
		{"no weights", lenet, nil, `node "conv1" (Convolution): the caffemodel has 0 blobs`},
		{"empty", "", nil, "no output"},
		{"layer", swap(`"Softmax"`, `"Odd"`), model, `node "prob" (Odd): tensor "prob": the layer is not supported; replace it`},
		{"training", swap(` include { phase: TRAIN }`, ""), model, "deploy.prototxt"},
		{"data layer", swap(`"Input" top`, `"Data" top`), model, "deploy.prototxt"},
		{"bottom", swap(`bottom: "conv1"`, `bottom: "nothing"`), model, `tensor "nothing": is read before anything defines it`},
		{"outputs", swap("num_output: 10", "num_output: 11"), model, "200 weights"},
		{"bias", swap("num_output: 20", "num_output: 40"), model, "blob 1 has 20 numbers, the layer needs 40"},
		{"kernel", swap("kernel_size: 5 stride: 1", "kernel_size: 0"), model, "kernel 0×0"},
		{"huge kernel", swap("kernel_size: 5 stride: 1", "kernel_size: 4000000000"), model, "kernel 4000000000"},
		{"groups", swap("group: 2", "group: 3"), model, "3 groups"},
		{"shape", swap("dim: 28 dim: 28", "dim: 1000000000000 dim: 28"), model, "too large"},
		{"pool", swap("pool: MAX", "pool: STOCHASTIC"), model, "pool method 2"},
	} {
		var e *ir.Error
		g, err := Import([]byte(tt.text), tt.model)
		if err == nil {
			err = pass.Run(g, nil)
		}
		if !errors.As(err, &e) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestLayers computes layers that lenet lacks.
func TestLayers(t *testing.T) {
	const x = `input: "x" input_shape { dim: 1 dim: 2 dim: 1 dim: 2 } `
	weights := `layer { name: "l" blobs { shape { dim: 2 } data: 2 data: 3 } blobs { data: 4 data: 9 } blobs { data: 1 } }`
	m := dynamicpb.NewMessage(net())
	if err := prototext.Unmarshal([]byte(weights), m); err != nil {
		t.Fatal(err)
	}
	blobs, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		layer string
		want  []float32
	}{
		{`type: "Scale" scale_param { bias_term: true }`, []float32{6, 8, 18, 21}},
		{`type: "BatchNorm" batch_norm_param { eps: 0 }`, []float32{-0.5, 0, 0, 1.0 / 3}},
		{`type: "Power" power_param { power: 2 scale: 2 shift: 1 }`, []float32{9, 25, 49, 81}},
		{`type: "ReLU" relu_param { negative_slope: 0.5 }`, []float32{1, 2, 3, 4}},
		{`type: "Concat" bottom: "x"`, []float32{1, 2, 3, 4, 1, 2, 3, 4}},
		{`type: "Eltwise" bottom: "x" eltwise_param { coeff: 1 coeff: -0.5 }`, []float32{0.5, 1, 1.5, 2}},
		{`type: "Eltwise" bottom: "x" eltwise_param { operation: PROD }`, []float32{1, 4, 9, 16}},
		{`type: "Reshape" reshape_param { shape { dim: 0 dim: -1 } }`, []float32{1, 2, 3, 4}},
		{`type: "Pooling" pooling_param { pool: AVE global_pooling: true }`, []float32{1.5, 3.5}},
		{`type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }`, []float32{3.0 / 9, 2.0 / 6, 7.0 / 9, 4.0 / 6}}, // the second window is cut at the padding
	} {
		g, err := Import([]byte(x+`layer { name: "l" bottom: "x" top: "y" `+tt.layer+` }`), blobs)
		if err != nil {
			t.Errorf("%s: %v", tt.layer, err)
			continue
		}
		if err := pass.Run(g, nil); err != nil {
			t.Errorf("%s: %v", tt.layer, err)
			continue
		}
		out, err := ref.Run(g, [][]byte{ref.PutFloats(ir.Float32, []float32{1, 2, 3, 4}, false)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := ref.Floats(ir.Float32, out[0], len(out[0])/4)
		if len(got) != len(tt.want) {
			t.Errorf("%s: %v, want %v", tt.layer, got, tt.want)
			continue
		}
		for i := range got {
			if math.Abs(float64(got[i]-tt.want[i])) > 1e-5 {
				t.Errorf("%s: %v, want %v", tt.layer, got, tt.want)
				break
			}
		}
	}
}

func FuzzImport(f *testing.F) {
	model, _ := caffemodel(f, "layer")
	f.Add([]byte(lenet), model)
	for _, l := range []string{
		`type: "Scale" scale_param { bias_term: true }`, `type: "BatchNorm" batch_norm_param { eps: 0 }`, `type: "Power" power_param { power: 2 scale: 2 shift: 1 }`,
		`type: "LRN" lrn_param { local_size: 3 }`, `type: "Eltwise" bottom: "x" eltwise_param { coeff: 1 coeff: -0.5 }`, `type: "Concat" bottom: "x" concat_param { axis: 2 }`,
		`type: "Reshape" reshape_param { shape { dim: 0 dim: -1 } }`, `type: "Convolution" convolution_param { num_output: 1 kernel_h: 1 kernel_w: 2 dilation: 2 pad: 3 bias_term: false }`,
		`type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }`, `type: "InnerProduct" inner_product_param { num_output: 1 transpose: true }`, `type: "ELU" elu_param { alpha: 2 }`,
	} {
		// Field 100, layer: 1 name "l", and 7 blobs, whose data, field 5, are four numbers and twice two.
		four, two := "\x3a\x12\x2a\x10\x00\x00\x80\x3f\x00\x00\x80\x3f\x00\x00\x80\x3f\x00\x00\x80\x3f", "\x3a\x0a\x2a\x08\x00\x00\x80\x3f\x00\x00\x80\x3f"
		layer := "\x0a\x01l" + two + two
		if strings.Contains(l, "num_output") {
			layer = "\x0a\x01l" + four + two
		}
		f.Add([]byte(`input: "x" input_shape { dim: 1 dim: 2 dim: 1 dim: 2 } layer { name: "l" bottom: "x" top: "y" `+l+` }`), append([]byte{0xa2, 0x06, byte(len(layer))}, layer...))
	}
	f.Add([]byte(version1Of(lenet)), []byte{})
	f.Fuzz(func(t *testing.T, text, model []byte) {
		g, err := Import(text, model)
		if err == nil {
			err = pass.Run(g, nil)
		}
		var e *ir.Error
		if err != nil && !errors.As(err, &e) {
			t.Errorf("%v is no error of the model", err)
		}
	})
}
