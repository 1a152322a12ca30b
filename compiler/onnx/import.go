// SPDX-License-Identifier: Apache-2.0

// Package onnx imports ONNX models into the compiler's graph. What it makes has ONNX's operators
// with their inputs and attributes (package ir, model level); the types and shapes of what nodes
// produce are not known yet, which pass.Infer mends. Opsets MinOpset to MaxOpset of the default domain
// are taken, and of the domain com.microsoft the quantized operators and others that ONNX Runtime's tools
// write. Graphs of If, Loop and Scan become bodies of their nodes, which pass.Infer writes out, and functions of the model their nodes
// wherever they are called. Sequences, strings, sparse and complex tensors are refused by name.
//
// A file is not trusted: what it says of sizes is checked against what is there before memory is
// taken, and external data is read only below the model's directory.
package onnx

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"npuemu/compiler/ir"
)

// The opsets of the default domain that are taken. From 13 on, what the operators take as inputs and as
// attributes is what the passes know; nodes of models before that are brought to it. Before 7, operands were broadcast in another way.
const (
	MinOpset = 7
	MaxOpset = 28
)

// maxRank bounds the shapes that a file can ask for; no operator needs more axes.
const maxRank = 32

// maxDepth bounds how deep graphs are in each other.
const maxDepth = 16

// Options say what a file leaves open.
type Options struct {
	Dims   map[string]int    // symbolic dimensions, by their names
	Shapes map[string][]int  // shapes of inputs, by their names
	Freeze map[string][]byte // inputs that are constants of that little-endian data
	Dir    string            // external data is below it; empty: there is none
}

// Load imports a file; external data is in its directory.
func Load(path string, o Options) (*ir.Graph, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if o.Dir == "" {
		o.Dir = filepath.Dir(path)
	}
	g, err := Import(b, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return g, nil
}

// Import imports a model. The constants of the graph may share memory with b.
func Import(b []byte, o Options) (*ir.Graph, error) {
	m, err := parseModel(b)
	if err != nil {
		if _, inside := parseGraph(m.graph); inside != nil { // says more
			err = inside
		}
		return nil, notValid(err)
	}
	if m.graph == nil {
		return nil, &ir.Error{Rule: "the file has no graph", Remedy: "is it an ONNX model?"}
	}
	opset, err := version(m.opsets, 0)
	if err != nil {
		return nil, err
	}
	f, err := parseGraph(m.graph)
	if err != nil {
		return nil, notValid(err)
	}
	if f.sparse {
		return nil, &ir.Error{Graph: f.name, Rule: "sparse tensors are not supported", Remedy: "make the initializers dense"}
	}
	im := &importer{o: o, g: &ir.Graph{Name: f.name}, values: map[string]*ir.Tensor{}, names: map[string]bool{}, opset: opset, functions: map[string]*function{}, made: new(int)}
	for i := range m.functions {
		fn := &m.functions[i]
		im.functions[called(fn.domain, fn.name, fn.overload)] = fn
	}
	if err := im.graph(f); err != nil {
		if e, ok := err.(*ir.Error); ok { //nolint:errorlint // it is ours, unwrapped
			e.Graph = f.name
			_ = e.OrRemedy("correct the model where it is made, or export it again")
		}
		return nil, err
	}
	return im.g, nil
}

// version is the opset of the default domain, or def if there is none and that is not 0.
func version(opsets map[string]int64, def int) (int, error) {
	v, ok := opsets[""]
	if !ok {
		v, ok = opsets["ai.onnx"]
	}
	if !ok && def != 0 {
		return def, nil
	}
	if v < MinOpset || v > MaxOpset {
		return 0, &ir.Error{Rule: fmt.Sprintf("opset %d is not %d to %d", v, MinOpset, MaxOpset), Remedy: "convert the model with onnx.version_converter"}
	}
	return int(v), nil
}

// notValid is an error of the file's form.
func notValid(err error) error {
	e := &ir.Error{Rule: fmt.Sprintf("not a valid ONNX file: %v", err), Remedy: "the file is cut, damaged or no ONNX model: fetch or export it again"}
	if p := (*place)(nil); errors.As(err, &p) {
		e.Graph, e.Node, e.Op, e.Tensor = p.graph, p.node, p.op, p.tensor
	}
	return e
}

type importer struct {
	o      Options
	g      *ir.Graph
	values map[string]*ir.Tensor
	names  map[string]bool // of nodes
	opset  int
	outer  *importer // of the graph around this one; nil for the model's
	depth  int       // of graphs around it, and of functions

	functions map[string]*function // of the model, by what calls them
	made      *int                 // nodes of all
	prefix    string               // before the names of what a function makes
	call      *call                // of the function that it is in; nil for none
	omitted   map[string]bool      // inputs of the function that the call leaves out
}

// value is the tensor of that name, of this graph or of those around it; nil for none.
func (im *importer) value(name string) *ir.Tensor {
	for ; im != nil; im = im.outer {
		if t := im.values[name]; t != nil {
			return t
		}
	}
	return nil
}

// leftOut reports whether it is an input that the call of a function leaves out.
func (im *importer) leftOut(name string) bool {
	return im != nil && (im.omitted[name] || im.outer.leftOut(name))
}

func (im *importer) graph(f graph) error {
	for i := range f.initializers {
		t, err := im.constant(&f.initializers[i])
		if err != nil {
			return err
		}
		if err := im.define(t); err != nil {
			return err
		}
	}
	if im.outer == nil {
		if err := im.options(f.inputs); err != nil {
			return err
		}
	}
	for _, v := range f.inputs {
		if im.outer != nil { // what the node gives it, whatever the file says
			t := &ir.Tensor{Name: v.name}
			if err := im.define(t); err != nil {
				return err
			}
			im.g.Inputs = append(im.g.Inputs, t)
			continue
		}
		if im.values[v.name] != nil {
			continue // an initializer's default, which is what this compiler takes
		}
		t, err := im.input(v)
		if err != nil {
			return err
		}
		if err := im.define(t); err != nil {
			return err
		}
		if t.Data == nil {
			im.g.Inputs = append(im.g.Inputs, t)
		}
	}
	for i := range f.nodes {
		if err := im.node(&f.nodes[i], i); err != nil {
			return err
		}
	}
	for _, v := range f.outputs {
		t := im.value(v.name)
		if t == nil {
			return &ir.Error{Tensor: v.name, Rule: "is an output of the graph, and nothing defines it", Remedy: "the file is damaged or cut"}
		}
		im.g.Outputs = append(im.g.Outputs, t)
	}
	if len(im.g.Outputs) == 0 {
		return &ir.Error{Rule: "the graph has no output"}
	}
	return nil
}

// options refuses sizes for what the file does not have: they would have no effect.
func (im *importer) options(inputs []value) error {
	symbols, names := map[string]bool{}, map[string]bool{}
	for _, v := range inputs {
		names[v.name] = true
		for _, p := range v.params {
			symbols[p] = p != ""
		}
	}
	for _, d := range slices.Sorted(maps.Keys(im.o.Dims)) {
		if !symbols[d] {
			delete(symbols, "")
			return &ir.Error{Rule: fmt.Sprintf("a size is given for a dimension %q, which no input has", d), Remedy: fmt.Sprintf("symbolic dimensions of the inputs are %q", slices.Sorted(maps.Keys(symbols)))}
		}
	}
	for _, s := range slices.Sorted(maps.Keys(im.o.Shapes)) {
		if !names[s] {
			return &ir.Error{Rule: fmt.Sprintf("a shape is given for an input %q, which the model does not have", s), Remedy: fmt.Sprintf("inputs are %q", slices.Sorted(maps.Keys(names)))}
		}
	}
	return nil
}

func (im *importer) define(t *ir.Tensor) error {
	if t.Name == "" {
		return &ir.Error{Rule: "a tensor has no name"}
	}
	if im.values[t.Name] != nil {
		return &ir.Error{Tensor: t.Name, Rule: "is defined twice", Remedy: "the file is damaged: ONNX gives each tensor one name"}
	}
	im.values[t.Name] = t
	return nil
}

// elementTypes are the codes of TensorProto.DataType.
var elementTypes = map[int64]ir.Type{
	1: ir.Float32, 2: ir.Uint8, 3: ir.Int8, 4: ir.Uint16, 5: ir.Int16, 6: ir.Int32, 7: ir.Int64, 9: ir.Bool, 10: ir.Float16,
	11: ir.Float64, 12: ir.Uint32, 13: ir.Uint64, 16: ir.BFloat16, 17: ir.Float8E4M3, 19: ir.Float8E5M2, 21: ir.Uint4, 22: ir.Int4,
}

// TypeOf is the type with that code of TensorProto.DataType.
func TypeOf(code int64) (ir.Type, bool) { t, ok := elementTypes[code]; return t, ok }

func typeOf(name string, kind int64) (ir.Type, error) {
	t, ok := TypeOf(kind)
	if !ok {
		return 0, &ir.Error{Tensor: name, Rule: fmt.Sprintf("element type %d of ONNX is not supported", kind), Remedy: "strings, complex numbers, FNUZ and 2-bit types have no counterpart on the device"}
	}
	return t, nil
}

// input makes an input of the graph: its shape is that of the options, or the file's.
func (im *importer) input(v value) (*ir.Tensor, error) {
	if v.kind == 0 {
		return nil, &ir.Error{Tensor: v.name, Rule: "an input that is no tensor is not supported"}
	}
	typ, err := typeOf(v.name, v.kind)
	if err != nil {
		return nil, err
	}
	t := &ir.Tensor{Name: v.name, Type: typ}
	if s, ok := im.o.Shapes[v.name]; ok {
		t.Shape = slices.Clone(s)
	} else {
		if !v.shaped {
			return nil, &ir.Error{Tensor: v.name, Rule: "the input has no shape", Remedy: fmt.Sprintf("give it one: --shape %s=SIZE,…, or shapes in Python and C", v.name)}
		}
		for i, d := range v.dims {
			given, known := im.o.Dims[v.params[i]]
			switch {
			case d >= 0 && v.params[i] == "":
			case known && v.params[i] != "":
				d = int64(given)
			case i == 0:
				d = 1 // the batch
			default:
				return nil, &ir.Error{Tensor: v.name, Rule: fmt.Sprintf("dimension %d (%q) of the input is not known", i, v.params[i]), Remedy: cmp.Or(symbolic(v.params[i]), fmt.Sprintf("give the input a shape: --shape %s=SIZE,…, or shapes in Python and C", v.name))}
			}
			if d > ir.MaxBytes {
				d = -1
			}
			t.Shape = append(t.Shape, int(d))
		}
	}
	if len(t.Shape) > maxRank || t.Bytes() < 0 {
		return nil, &ir.Error{Tensor: v.name, Rule: fmt.Sprintf("shape %v is too large", t.Shape)}
	}
	if data, ok := im.o.Freeze[v.name]; ok {
		if len(data) != t.Bytes() {
			return nil, &ir.Error{Tensor: v.name, Rule: fmt.Sprintf("a constant of %d bytes is given for %s%v", len(data), t.Type, t.Shape)}
		}
		t.Data = data
	}
	return t, nil
}

// symbolic is how a dimension of that name gets a size; empty if it has no name.
func symbolic(name string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf("give it a size: --dim %s=SIZE, or dims in Python and C", name)
}

// constant makes a constant from a tensor of the file.
func (im *importer) constant(f *tensor) (*ir.Tensor, error) {
	bad := func(format string, args ...any) error {
		return &ir.Error{Tensor: f.name, Rule: fmt.Sprintf(format, args...), Remedy: "the file is damaged or cut"}
	}
	if f.kind == 8 || f.strings > 0 {
		return nil, &ir.Error{Tensor: f.name, Rule: "strings are not supported", Remedy: "move what works on text out of the model"}
	}
	typ, err := typeOf(f.name, f.kind)
	if err != nil {
		return nil, err
	}
	t := &ir.Tensor{Name: f.name, Type: typ}
	if len(f.dims) > maxRank {
		return nil, bad("%d axes", len(f.dims))
	}
	for _, d := range f.dims {
		if d < 0 || d > ir.MaxBytes {
			return nil, bad("dimension %d", d)
		}
		t.Shape = append(t.Shape, int(d))
	}
	size, count := t.Bytes(), t.Elements()
	if size < 0 {
		return nil, bad("shape %v is too large", t.Shape)
	}
	switch {
	case f.external != nil:
		if t.Data, err = im.external(f, size); err != nil {
			return nil, err
		}
	case f.hasRaw:
		if len(f.raw) != size {
			return nil, bad("%d bytes of data, %s%v needs %d", len(f.raw), typ, t.Shape, size)
		}
		t.Data = f.raw
	default:
		words := count
		if typ.Bits() == 4 {
			words = (count + 1) / 2 // int32_data holds a byte of two elements
		}
		if len(f.words) != words {
			return nil, bad("%d numbers of data, %s%v needs %d", len(f.words), typ, t.Shape, words)
		}
		t.Data = make([]byte, size)
		bytes := max(1, typ.Bits()/8)
		for i, w := range f.words {
			for j := range bytes {
				t.Data[i*bytes+j] = byte(w >> (8 * j))
			}
		}
	}
	if t.Data == nil {
		t.Data = []byte{}
	}
	return t, nil
}

// external reads a tensor's data from a file below the directory of the options.
func (im *importer) external(f *tensor, size int) ([]byte, error) {
	bad := func(format string, args ...any) error {
		return &ir.Error{Tensor: f.name, Rule: "external data: " + fmt.Sprintf(format, args...), Remedy: "the file must be beside the model, where onnx.save put it"}
	}
	if im.o.Dir == "" {
		return nil, bad("the model was not read from a directory")
	}
	root, err := os.OpenRoot(im.o.Dir)
	if err != nil {
		return nil, bad("%v", err)
	}
	defer root.Close() //nolint:errcheck // opened for reading
	file, err := root.Open(f.external["location"])
	if err != nil {
		return nil, bad("%v", err)
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return nil, bad("%v", err)
	}
	if !st.Mode().IsRegular() {
		return nil, bad("%s is no regular file", f.external["location"])
	}
	number := func(key string, def int64) (int64, error) {
		s, ok := f.external[key]
		if !ok {
			return def, nil
		}
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil || v < 0 {
			return 0, bad("%s is %q", key, s)
		}
		return v, nil
	}
	offset, err := number("offset", 0)
	if err != nil {
		return nil, err
	}
	length, err := number("length", int64(size))
	if err != nil {
		return nil, err
	}
	if length != int64(size) {
		return nil, bad("%d bytes, the tensor needs %d", length, size)
	}
	if offset > st.Size() || length > st.Size()-offset {
		return nil, bad("%d bytes at %d of a file of %d", length, offset, st.Size())
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(file, offset, length), data); err != nil {
		return nil, bad("%v", err)
	}
	return data, nil
}

// operators of the domain com.microsoft that are those of ONNX, for more types.
var microsoft = map[string]bool{"QuantizeLinear": true, "DequantizeLinear": true, "DynamicQuantizeLinear": true, "Gelu": true}

func (im *importer) node(f *node, i int) error {
	n := &ir.Node{Name: im.prefix + f.name, Op: f.op}
	if f.name == "" {
		n.Name = fmt.Sprintf("%s%s_%d", im.prefix, f.op, i)
	}
	if *im.made++; *im.made > mostNodes {
		return n.Errorf("with its functions the model has more than %d nodes", mostNodes).WithRemedy("simplify the model (onnxsim)")
	}
	f = im.call.attributes(f)
	for k := 2; im.names[n.Name]; k++ {
		n.Name = fmt.Sprintf("%s#%d", strings.TrimSuffix(n.Name, fmt.Sprintf("#%d", k-1)), k)
	}
	im.names[n.Name] = true
	if fn := im.functions[called(f.domain, f.op, f.overload)]; fn != nil {
		return im.inline(n, f, fn)
	}
	switch f.domain {
	case "", "ai.onnx":
	case "com.microsoft":
		if !microsoft[f.op] {
			n.Op = "com.microsoft." + f.op
		}
	default:
		n.Op = f.domain + "." + f.op
		e := n.Errorf("operators of the domain %q are not supported", f.domain).WithRemedy("replace the node, or cut the model before it")
		e.Tensor = strings.Join(f.outputs[:min(len(f.outputs), 1)], "")
		return e
	}
	if err := im.inputs(n, f); err != nil {
		return err
	}
	for len(n.Inputs) > 0 && n.Inputs[len(n.Inputs)-1] == nil {
		n.Inputs = n.Inputs[:len(n.Inputs)-1]
	}
	if err := im.attributes(n, f); err != nil {
		return err
	}
	if f.op == "Constant" {
		return im.constantNode(n, f)
	}
	for _, name := range f.outputs {
		if name == "" {
			n.Outputs = append(n.Outputs, nil)
			continue
		}
		t := &ir.Tensor{Name: name}
		if err := im.define(t); err != nil {
			return err
		}
		t.Name = im.prefix + name
		n.Outputs = append(n.Outputs, t)
	}
	if len(n.Outputs) == 0 {
		return n.Errorf("the node has no output")
	}
	if v := f.tensorAttr("value"); v != nil && f.op == "ConstantOfShape" {
		v.name = n.Name + "/value"
		t, err := im.constant(v)
		if err != nil {
			return err
		}
		n.Inputs = append(n.Inputs, t) // an input like the others from here on
	}
	if im.opset < 13 && (f.domain == "" || f.domain == "ai.onnx") {
		if err := im.older(n); err != nil {
			return err
		}
	}
	im.g.Nodes = append(im.g.Nodes, n)
	return nil
}

// inputs gives n its own.
func (im *importer) inputs(n *ir.Node, f *node) error {
	for _, name := range f.inputs {
		t := im.value(name)
		if name == "" || t == nil && im.leftOut(name) {
			n.Inputs = append(n.Inputs, nil)
			continue
		}
		if t == nil {
			e := n.Errorf("is read before anything defines it").WithRemedy("the file is damaged or cut, or its nodes are not sorted")
			e.Tensor = name
			return e
		}
		n.Inputs = append(n.Inputs, t)
	}
	return nil
}

func (f *node) tensorAttr(name string) *tensor {
	for _, a := range f.attrs {
		if a.name == name {
			return a.t
		}
	}
	return nil
}

// attributes takes those that are numbers, strings and lists of them.
func (im *importer) attributes(n *ir.Node, f *node) error {
	n.Attrs = ir.Attrs{"opset": int64(im.opset)}
	for _, a := range f.attrs {
		if a.ref != "" {
			return n.Errorf("attribute %s refers to one of a function, in which it is not", a.name).WithRemedy("the file is damaged, or its exporter wrong")
		}
		switch a.kind {
		case 1:
			n.Attrs[a.name] = a.f
		case 2:
			n.Attrs[a.name] = a.i
		case 3:
			n.Attrs[a.name] = a.s
		case 6:
			n.Attrs[a.name] = slices.Concat([]float32{}, a.floats)
		case 7:
			n.Attrs[a.name] = slices.Concat([]int64{}, a.ints)
		case 8:
			n.Attrs[a.name] = slices.Concat([]string{}, a.strings)
		case 4:
			if f.op != "Constant" && f.op != "ConstantOfShape" {
				return n.Errorf("attribute %s is a tensor, which only Constant and ConstantOfShape have", a.name)
			}
		case 5:
			if !controls[n.Op] {
				return n.Errorf("attribute %s is a graph, which only If, Loop and Scan have", a.name).WithRemedy("export the model without it")
			}
			body, err := im.body(n, a)
			if err != nil {
				return err
			}
			if n.Bodies == nil {
				n.Bodies = map[string]*ir.Graph{}
			}
			n.Bodies[a.name] = body
		default:
			return n.Errorf("attribute %s is of kind %d, which is not supported", a.name, a.kind)
		}
	}
	return nil
}

// controls are the operators that have graphs.
var controls = map[string]bool{"If": true, "Loop": true, "Scan": true}

// body imports a graph of n, which is an attribute.
func (im *importer) body(n *ir.Node, a attribute) (*ir.Graph, error) {
	if im.depth == maxDepth {
		return nil, n.Errorf("attribute %s is a graph in %d others", a.name, maxDepth).WithRemedy("simplify the model (onnxsim)")
	}
	f, err := parseGraph(a.g)
	if err != nil {
		return nil, notValid(err)
	}
	if f.sparse {
		return nil, n.Errorf("attribute %s has sparse tensors, which are not supported", a.name).WithRemedy("make the initializers dense")
	}
	in := &importer{o: Options{Dir: im.o.Dir}, g: &ir.Graph{Name: f.name}, values: map[string]*ir.Tensor{}, names: im.names, opset: im.opset, outer: im, depth: im.depth + 1, functions: im.functions, made: im.made, prefix: im.prefix, call: im.call}
	if err := in.graph(f); err != nil {
		if e, ok := err.(*ir.Error); ok && e.Node == "" { //nolint:errorlint // it is ours, unwrapped
			e.Node, e.Op, e.Rule = n.Name, n.Op, fmt.Sprintf("attribute %s: %s", a.name, e.Rule)
		}
		return nil, err
	}
	return in.g, nil
}

// constantNode makes a constant of a Constant node.
func (im *importer) constantNode(n *ir.Node, f *node) error {
	if len(f.outputs) != 1 {
		return n.Errorf("%d outputs, not 1", len(f.outputs))
	}
	v := tensor{name: f.outputs[0]}
	for _, a := range f.attrs {
		switch a.name {
		case "value":
			if a.t == nil {
				return n.Errorf("attribute value is no tensor")
			}
			v = *a.t
			v.name = f.outputs[0]
		case "value_float":
			v.kind, v.words = 1, []uint64{uint64(math.Float32bits(a.f))}
		case "value_int":
			v.kind, v.words = 7, []uint64{uint64(a.i)}
		case "value_floats":
			v.kind, v.dims = 1, []int64{int64(len(a.floats))}
			for _, x := range a.floats {
				v.words = append(v.words, uint64(math.Float32bits(x)))
			}
		case "value_ints":
			v.kind, v.dims = 7, []int64{int64(len(a.ints))}
			for _, x := range a.ints {
				v.words = append(v.words, uint64(x))
			}
		}
	}
	if v.kind == 0 {
		return n.Errorf("the constant has none of %s", "value, value_float, value_floats, value_int, value_ints")
	}
	t, err := im.constant(&v)
	if err != nil {
		return err
	}
	return im.define(t)
}

// InputNames are the names of a model's inputs that no initializer has, in order.
func InputNames(b []byte) ([]string, error) {
	m, err := parseModel(b)
	if err != nil {
		return nil, err
	}
	g, err := parseGraph(m.graph)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, v := range g.inputs {
		if !slices.ContainsFunc(g.initializers, func(t tensor) bool { return t.name == v.name }) {
			names = append(names, v.name)
		}
	}
	return names, nil
}

// Tensor reads a TensorProto, the form in which ONNX's tests keep their data.
func Tensor(b []byte) (*ir.Tensor, error) {
	t, err := parseTensor(b)
	if err != nil {
		return nil, err
	}
	return (&importer{}).constant(&t)
}

// Operators are the operators of a model's nodes, sorted, whether they are supported or not.
func Operators(b []byte) ([]string, error) {
	m, err := parseModel(b)
	if err != nil {
		return nil, err
	}
	g, err := parseGraph(m.graph)
	if err != nil {
		return nil, err
	}
	var ops []string
	for _, n := range g.nodes {
		op := n.op
		if n.domain != "" && n.domain != "ai.onnx" {
			op = n.domain + "." + op
		}
		ops = append(ops, op)
	}
	slices.Sort(ops)
	return slices.Compact(ops), nil
}
