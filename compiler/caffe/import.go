// SPDX-License-Identifier: Apache-2.0

// Package caffe imports Caffe networks, a prototxt and its caffemodel, into the compiler's graph: layers of version 1
// ("layers", types as enumeration) and 2 ("layer", types as strings) become ONNX's operators, in fp32. Layers of the phase
// TRAIN, and Dropout, are left out; layers of data and of loss are refused, since a network that is to run has inputs instead
// (its "deploy" form).
package caffe

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"

	"npuemu/compiler/ir"
)

// Load imports the network of a prototxt file with the weights of a caffemodel file.
func Load(prototxt, caffemodel string) (*ir.Graph, error) {
	text, err := os.ReadFile(prototxt)
	if err != nil {
		return nil, err
	}
	weights, err := os.ReadFile(caffemodel)
	if err != nil {
		return nil, fmt.Errorf("%s: the weights are in the file of that name with the extension .caffemodel, unless another is given: %w", prototxt, err)
	}
	g, err := Import(text, weights)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", prototxt, err)
	}
	return g, nil
}

// Import imports a network from the contents of its files.
func Import(prototxt, caffemodel []byte) (*ir.Graph, error) {
	d := net()
	text, binary := dynamicpb.NewMessage(d), dynamicpb.NewMessage(d)
	if err := (prototext.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(prototxt, text); err != nil {
		return nil, badText(prototxt, err)
	}
	if err := proto.Unmarshal(caffemodel, binary); err != nil {
		return nil, badWeights(caffemodel, err)
	}
	m := message{text}
	im := &importer{g: &ir.Graph{Name: m.str("name")}, values: map[string]*ir.Tensor{}, blobs: map[string][]message{}, names: map[string]int{}, used: map[*ir.Tensor]bool{}}
	if im.g.Name == "" {
		im.g.Name = "net"
	}
	w := message{binary}
	for _, l := range append(w.messages("layers"), w.messages("layer")...) {
		im.blobs[l.str("name")] = l.messages("blobs")
	}
	if err := im.net(m); err != nil {
		err.Graph = im.g.Name
		return nil, err.OrRemedy("correct the prototxt, or use the one that belongs to the weights")
	}
	return im.g, nil
}

type importer struct {
	g      *ir.Graph
	values map[string]*ir.Tensor // the present value of each blob: layers may work in place
	blobs  map[string][]message  // weights by layer
	names  map[string]int
	order  []*ir.Tensor // tops of layers, in order
	used   map[*ir.Tensor]bool
}

func (im *importer) net(m message) *ir.Error {
	var shapes [][]int
	for _, s := range m.messages("input_shape") {
		shapes = append(shapes, s.ints("dim"))
	}
	dims := m.ints("input_dim")
	for ; len(dims) >= 4; dims = dims[4:] {
		shapes = append(shapes, dims[:4])
	}
	for i, name := range m.strs("input") {
		if i >= len(shapes) {
			return &ir.Error{Tensor: name, Rule: "the input has no shape", Remedy: "give it an input_shape or four input_dim"}
		}
		if err := im.input(name, shapes[i]); err != nil {
			return err
		}
	}
	for i, l := range append(m.messages("layers"), m.messages("layer")...) {
		if err := im.layer(l, i); err != nil {
			return err
		}
	}
	for _, t := range im.order {
		if !im.used[t] {
			im.g.Outputs = append(im.g.Outputs, t)
		}
	}
	if len(im.g.Outputs) == 0 {
		return &ir.Error{Rule: "the network has no output"}
	}
	return nil
}

func (im *importer) input(name string, shape []int) *ir.Error {
	t := &ir.Tensor{Name: name, Type: ir.Float32, Shape: shape}
	if t.Bytes() < 0 || len(shape) > 8 || im.values[name] != nil {
		return &ir.Error{Tensor: name, Rule: fmt.Sprintf("an input of shape %v is too large, or given twice", shape)}
	}
	im.values[name] = t
	im.g.Inputs = append(im.g.Inputs, t)
	return nil
}

// layer is one layer while it is imported.
type layer struct {
	*importer
	message
	node *ir.Node // for errors: the layer's name and type
	x    []*ir.Tensor
	made int
}

func (l *layer) fail(format string, args ...any) *ir.Error { return l.node.Errorf(format, args...) }

// unique is a name that nothing has yet.
func (im *importer) unique(name string) string {
	im.names[name]++
	if k := im.names[name]; k > 1 {
		return im.unique(fmt.Sprintf("%s#%d", name, k))
	}
	return name
}

// op adds an operator and returns its output.
func (l *layer) op(kind string, attrs ir.Attrs, in ...*ir.Tensor) *ir.Tensor {
	name := l.node.Name
	if l.made++; l.made > 1 {
		name = fmt.Sprintf("%s/%d", name, l.made)
	}
	t := &ir.Tensor{Name: l.unique(name + ":" + kind)}
	l.g.Nodes = append(l.g.Nodes, &ir.Node{Name: l.unique("node " + name)[5:], Op: kind, Inputs: in, Outputs: []*ir.Tensor{t}, Attrs: attrs})
	return t
}

// constant is a constant of the layer.
func (l *layer) constant(shape []int, v []float32) *ir.Tensor {
	data := make([]byte, 0, 4*len(v))
	for _, f := range v {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(f))
	}
	return &ir.Tensor{Name: l.unique(l.node.Name + "/const"), Type: ir.Float32, Shape: shape, Data: data}
}

// blob is blob i of the layer's weights, with count elements.
func (l *layer) blob(i, count int) ([]float32, *ir.Error) {
	blobs := l.blobs[l.node.Name]
	if i >= len(blobs) {
		return nil, l.fail("the caffemodel has %d blobs of this layer, blob %d is needed", len(blobs), i).WithRemedy("do prototxt and caffemodel belong together?")
	}
	f, d := blobs[i].list("data"), blobs[i].list("double_data")
	if count >= 0 && len(f)+len(d) != count {
		return nil, l.fail("blob %d has %d numbers, the layer needs %d", i, len(f)+len(d), count).WithRemedy("do prototxt and caffemodel belong together?")
	}
	out := make([]float32, 0, len(f)+len(d))
	for _, v := range append(f, d...) {
		out = append(out, float32(v.Float()))
	}
	return out, nil
}

// channels are the channels of the layer's input: the count of numbers in a blob, for layers whose input's shape is
// not known before inference.
func (l *layer) whole(i int) ([]float32, *ir.Error) { return l.blob(i, -1) }

func (im *importer) layer(m message, i int) *ir.Error {
	kind := m.str("type")
	if f, ok := m.field("type"); ok && f.Enum() != nil {
		kind = "?"
		if v := f.Enum().Values().ByNumber(m.Get(f).Enum()); v != nil {
			kind = version1[string(v.Name())]
			if kind == "" {
				kind = string(v.Name())
			}
		}
	}
	name := m.str("name")
	if name == "" {
		name = fmt.Sprintf("layer%d", i)
	}
	l := &layer{importer: im, message: m, node: &ir.Node{Name: name, Op: kind}}
	if !runs(m) {
		return nil
	}
	tops := m.strs("top")
	if kind == "Input" {
		shapes := m.sub("input_param").messages("shape")
		for k, t := range tops {
			if len(shapes) == 0 {
				return l.fail("the layer has no shape")
			}
			if err := im.input(t, shapes[min(k, len(shapes)-1)].ints("dim")); err != nil {
				return err
			}
		}
		return nil
	}
	for _, b := range m.strs("bottom") {
		t := im.values[b]
		if t == nil {
			e := l.fail("is read before anything defines it").WithRemedy("a network that is to run begins with inputs: use its deploy.prototxt")
			e.Tensor = b
			return e
		}
		im.used[t] = true
		l.x = append(l.x, t)
	}
	f := layers[kind]
	if f == nil {
		e := l.fail("the layer is not supported").WithRemedy("replace it by others (docs/compiler.md), or cut the network before it")
		e.Tensor = strings.Join(tops[:min(len(tops), 1)], "")
		if strings.HasSuffix(kind, "Data") || strings.Contains(kind, "Loss") || strings.HasSuffix(kind, "DATA") || strings.Contains(kind, "LOSS") || strings.EqualFold(kind, "Accuracy") {
			e.Remedy = "it belongs to training: use the network's deploy.prototxt"
		}
		return e
	}
	if len(l.x) == 0 || len(tops) == 0 {
		return l.fail("%d bottoms and %d tops", len(l.x), len(tops))
	}
	out, err := f(l)
	if err != nil {
		return err
	}
	for _, t := range tops {
		im.values[t] = out
	}
	if !slices.Contains(im.g.Inputs, out) && !slices.Contains(im.order, out) {
		out.Name = im.unique(tops[0])
		im.order = append(im.order, out)
	}
	return nil
}

// runs reports whether a layer belongs to the phase TEST.
func runs(m message) bool {
	const test = 1
	if f, ok := m.field("phase"); ok && m.Get(f).Enum() != test {
		return false
	}
	include := m.messages("include")
	for _, r := range m.messages("exclude") {
		if r.int("phase", -1) == test {
			return false
		}
	}
	return len(include) == 0 || slices.ContainsFunc(include, func(r message) bool { return r.int("phase", test) == test })
}
