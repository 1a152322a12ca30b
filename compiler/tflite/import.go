// SPDX-License-Identifier: Apache-2.0

// Package tflite imports TensorFlow Lite (LiteRT) models, schema version 3, into the compiler's graph: nodes are
// "tfl." and the name of the builtin operator, tensors carry their quantization, images are N, H, W, C. What the
// operators compute is in package pass.
//
// A file is not trusted: sizes that it states are checked against its length, and what the flatbuffers runtime finds
// outside the file becomes an error. The first subgraph is imported; custom operators, resources, sparse
// tensors and strings are refused by name.
//
// A variable, which keeps its value from one run to the next, is an input of the graph and an output: the input, of the
// variable's name, has the value before the run (all zero the first time), and the output, of that name and ":next", the
// value behind it. They come after the model's own, in the order in which operators use them.
package tflite

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"

	flatbuffers "github.com/google/flatbuffers/go"

	"npuemu/compiler/ir"
)

// table is a flatbuffers table; fields are numbered as in the schema.
type table struct{ flatbuffers.Table }

func (t table) slot(field int) flatbuffers.UOffsetT {
	return flatbuffers.UOffsetT(t.Offset(flatbuffers.VOffsetT(4 + 2*field)))
}

func (t table) i32(field int, def int32) int32 {
	if o := t.slot(field); o != 0 {
		return t.GetInt32(t.Pos + o)
	}
	return def
}

func (t table) u8(field int) int {
	if o := t.slot(field); o != 0 {
		return int(t.GetByte(t.Pos + o))
	}
	return 0
}

func (t table) f32(field int, def float32) float32 {
	if o := t.slot(field); o != 0 {
		return t.GetFloat32(t.Pos + o)
	}
	return def
}

// longestName is how much of a name is kept: it comes back in errors, tables and files.
const longestName = 4096

func (t table) str(field int) string {
	if o := t.slot(field); o != 0 {
		b := t.ByteVector(t.Pos + o)
		return string(b[:min(len(b), longestName)])
	}
	return ""
}

// table is a field that is a table, and false if it is not there.
func (t table) table(field int) (table, bool) {
	o := t.slot(field)
	if o == 0 {
		return table{}, false
	}
	return table{flatbuffers.Table{Bytes: t.Bytes, Pos: t.Indirect(t.Pos + o)}}, true
}

// vector is the place and length of a vector of elements of size bytes.
func (t table) vector(field, size int) (at flatbuffers.UOffsetT, n int) {
	o := t.slot(field)
	if o == 0 {
		return 0, 0
	}
	n, at = t.VectorLen(o), t.Vector(o)
	if n < 0 || int(at) > len(t.Bytes) || n > (len(t.Bytes)-int(at))/size {
		panic(cut{})
	}
	return at, n
}

// cut is what vector panics with when the file ends too soon.
type cut struct{}

func (t table) tables(field int) []table {
	at, n := t.vector(field, 4)
	out := make([]table, n)
	for i := range out {
		out[i] = table{flatbuffers.Table{Bytes: t.Bytes, Pos: t.Indirect(at + flatbuffers.UOffsetT(4*i))}}
	}
	return out
}

func (t table) ints(field int) []int {
	at, n := t.vector(field, 4)
	out := make([]int, n)
	for i := range out {
		out[i] = int(t.GetInt32(at + flatbuffers.UOffsetT(4*i)))
	}
	return out
}

func (t table) longs(field int) []int64 {
	at, n := t.vector(field, 8)
	out := make([]int64, n)
	for i := range out {
		out[i] = t.GetInt64(at + flatbuffers.UOffsetT(8*i))
	}
	return out
}

func (t table) floats(field int) []float32 {
	at, n := t.vector(field, 4)
	out := make([]float32, n)
	for i := range out {
		out[i] = t.GetFloat32(at + flatbuffers.UOffsetT(4*i))
	}
	return out
}

func (t table) data(field int) []byte {
	at, n := t.vector(field, 1)
	return t.Bytes[at : int(at)+n : int(at)+n]
}

// Options say what a file leaves open.
type Options struct {
	Shapes map[string][]int // shapes of inputs, by their names
}

// Load imports a file.
func Load(path string, o Options) (*ir.Graph, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	g, err := Import(b, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return g, nil
}

// Import imports a model. The constants of the graph share memory with b.
func Import(b []byte, o Options) (g *ir.Graph, err error) {
	if len(b) < 8 || string(b[4:8]) != "TFL3" {
		return nil, &ir.Error{Rule: "the file has no identifier TFL3", Remedy: "is it a TensorFlow Lite model of schema version 3?"}
	}
	if len(b) > math.MaxInt32 {
		return nil, &ir.Error{Rule: fmt.Sprintf("the file has %d bytes, more than a flatbuffer may", len(b)), Remedy: "make the model smaller: quantize it, or cut it in two"}
	}
	b = b[:len(b):len(b)] // the flatbuffers runtime reads up to a slice's capacity
	defer func() {
		switch p := recover().(type) {
		case nil:
		case cut, runtime.Error:
			g, err = nil, &ir.Error{Rule: "an offset or length points outside the file", Remedy: "the file is damaged or cut: fetch or convert it again"}
		default:
			panic(p)
		}
	}()
	m := table{flatbuffers.Table{Bytes: b, Pos: flatbuffers.GetUOffsetT(b)}}
	if v := m.i32(0, 0); v != 3 {
		return nil, &ir.Error{Rule: fmt.Sprintf("schema version %d is not 3", v), Remedy: convertAgain}
	}
	graphs := m.tables(2)
	if len(graphs) == 0 {
		return nil, &ir.Error{Rule: "the file has no subgraph", Remedy: convertAgain}
	}
	im := &importer{codes: m.tables(1), buffers: m.tables(4), o: o, g: &ir.Graph{Name: graphs[0].str(4)}, names: map[string]bool{}, variables: map[*ir.Tensor]bool{}}
	if im.g.Name == "" {
		im.g.Name = "main"
	}
	if err := im.graph(graphs[0]); err != nil {
		err.Graph = im.g.Name
		return nil, err.OrRemedy(convertAgain)
	}
	return im.g, nil
}

// convertAgain is what to do about a file that no converter should write.
const convertAgain = "the file is damaged, or its converter is at fault: convert the model again"

type importer struct {
	codes, buffers []table
	o              Options
	g              *ir.Graph
	tensors        []*ir.Tensor
	names          map[string]bool
	variables      map[*ir.Tensor]bool // none of which has been read
}

var types = map[int]ir.Type{
	0: ir.Float32, 1: ir.Float16, 2: ir.Int32, 3: ir.Uint8, 4: ir.Int64, 6: ir.Bool, 7: ir.Int16, 9: ir.Int8, 10: ir.Float64,
	12: ir.Uint64, 15: ir.Uint32, 16: ir.Uint16, 17: ir.Int4, 18: ir.BFloat16,
}

// unique is a name that no other tensor or node of its kind has.
func (im *importer) unique(name, kind string) string {
	base := name
	for k := 2; im.names[kind+name]; k++ {
		name = fmt.Sprintf("%s#%d", base, k)
	}
	im.names[kind+name] = true
	return name
}

func (im *importer) graph(g table) *ir.Error {
	for i, f := range g.tables(0) {
		t, err := im.tensor(f, i)
		if err != nil {
			return err
		}
		im.tensors = append(im.tensors, t)
	}
	defined := map[*ir.Tensor]bool{}
	at := func(i int) *ir.Tensor {
		if i < 0 || i >= len(im.tensors) {
			return nil
		}
		return im.tensors[i]
	}
	for _, i := range g.ints(1) {
		t := at(i)
		if t == nil || defined[t] || t.Const() {
			return &ir.Error{Rule: fmt.Sprintf("input %d is no tensor, a constant, or given twice", i)}
		}
		if s, ok := im.o.Shapes[t.Name]; ok {
			t.Shape = s
		}
		defined[t] = true
		im.g.Inputs = append(im.g.Inputs, t)
	}
	var state []*ir.Tensor // what variables have become
	for i, f := range g.tables(3) {
		n, op, err := im.node(f, i)
		if err != nil {
			return err
		}
		var next []*ir.Tensor
		for place, k := range f.ints(1) {
			t := at(k)
			if im.variables[t] && slices.Contains(op.variables, place) {
				// The operator reads the variable and gives its next value.
				delete(im.variables, t)
				defined[t] = true
				im.g.Inputs = append(im.g.Inputs, t)
				c := *t
				c.Name = im.unique(t.Name+":next", "t")
				next = append(next, &c)
			}
			if t == nil && k != -1 {
				return n.Errorf("input %d is no tensor", k)
			}
			if t != nil && !t.Const() && !defined[t] {
				e := n.Errorf("is read before anything defines it").WithRemedy("the file is damaged, or two operators share a variable")
				e.Tensor = t.Name
				return e
			}
			n.Inputs = append(n.Inputs, t)
		}
		for len(n.Inputs) > 0 && n.Inputs[len(n.Inputs)-1] == nil {
			n.Inputs = n.Inputs[:len(n.Inputs)-1]
		}
		for _, k := range f.ints(2) {
			t := at(k)
			if t == nil || t.Const() || defined[t] {
				return n.Errorf("output %d is no tensor, a constant, or defined twice", k)
			}
			defined[t] = true
			n.Outputs = append(n.Outputs, t)
		}
		if len(n.Outputs) == 0 {
			return n.Errorf("the operator has no output")
		}
		n.Outputs, state = append(n.Outputs, next...), append(state, next...)
		for _, k := range f.ints(8) { // tensors that the kernel has within, of which the quantization matters
			t, scale, zero := at(k), float32(1), int64(0)
			if t != nil && t.Quant != nil {
				scale = t.Quant.Scales[0]
				if len(t.Quant.Zeros) > 0 {
					zero = t.Quant.Zeros[0]
				}
			}
			n.Attrs["inner_scales"] = append(n.Attrs.Floats("inner_scales"), scale)
			n.Attrs["inner_zeros"] = append(ir.IntList(n.Attrs.Ints("inner_zeros")...), zero)
		}
		im.g.Nodes = append(im.g.Nodes, n)
	}
	for _, i := range g.ints(2) {
		t := at(i)
		if t == nil || !t.Const() && !defined[t] {
			return &ir.Error{Rule: fmt.Sprintf("output %d is no tensor, or nothing defines it", i)}
		}
		im.g.Outputs = append(im.g.Outputs, t)
	}
	if len(im.g.Outputs) == 0 {
		return &ir.Error{Rule: "the graph has no output"}
	}
	im.g.Outputs = append(im.g.Outputs, state...)
	return nil
}

func (im *importer) tensor(f table, i int) (*ir.Tensor, *ir.Error) {
	name := f.str(3)
	if name == "" {
		name = fmt.Sprintf("tensor%d", i)
	}
	t := &ir.Tensor{Name: im.unique(name, "t"), Shape: f.ints(0)}
	bad := func(format string, args ...any) (*ir.Tensor, *ir.Error) {
		return nil, &ir.Error{Tensor: t.Name, Rule: fmt.Sprintf(format, args...)}
	}
	var ok bool
	if t.Type, ok = types[f.u8(1)]; !ok {
		return bad("element type %d of TensorFlow Lite is not supported", f.u8(1))
	}
	if _, sparse := f.table(6); sparse {
		return bad("sparse tensors are not supported")
	}
	if t.Bytes() < 0 {
		return bad("shape %v has a dimension below 0 or is too large", t.Shape)
	}
	if q, ok := f.table(4); ok {
		if s := q.floats(2); len(s) > 0 {
			t.Quant = &ir.Quant{Scales: s, Zeros: q.longs(3), Axis: int(q.i32(6, 0))}
			if len(s) == 1 || len(t.Shape) == 1 { // a bias may state the axis of its weights
				t.Quant.Axis = 0
			}
			if len(t.Quant.Zeros) == 1 && len(s) > 1 {
				for range s[1:] {
					t.Quant.Zeros = append(t.Quant.Zeros, t.Quant.Zeros[0])
				}
			}
			if len(t.Quant.Zeros) != 0 && len(t.Quant.Zeros) != len(s) || t.Quant.Axis < 0 || len(s) > 1 && (t.Quant.Axis >= len(t.Shape) || t.Shape[t.Quant.Axis] != len(s)) {
				return bad("%d scales and %d zero points of axis %d do not fit %v", len(s), len(t.Quant.Zeros), t.Quant.Axis, t.Shape)
			}
			if t.Type.Integer() && t.Type != ir.Uint64 {
				for _, z := range t.Quant.Zeros {
					if lo, hi := t.Type.Range(); z < lo || z > hi {
						_, err := bad("zero point %d is outside %s, %d to %d", z, t.Type, lo, hi)
						return nil, err.WithRemedy("quantize the model again: a zero point is a value of its tensor's type")
					}
				}
			}
		}
	}
	buffer := int(f.i32(2, 0))
	if buffer < 0 || buffer >= len(im.buffers) {
		if buffer == 0 {
			if f.u8(5) != 0 {
				im.variables[t] = true
			}
			return t, nil
		}
		return bad("buffer %d of %d", buffer, len(im.buffers))
	}
	data := im.buffers[buffer].data(0)
	if len(data) == 0 {
		if f.u8(5) != 0 {
			im.variables[t] = true
		}
		return t, nil
	}
	if len(data) != t.Bytes() {
		return bad("%d bytes of data, %s%v needs %d", len(data), t.Type, t.Shape, t.Bytes())
	}
	t.Data = data
	return t, nil
}

// node makes an operator with its options as attributes, without inputs and outputs.
func (im *importer) node(f table, i int) (*ir.Node, operator, *ir.Error) {
	k := int(f.i32(0, 0))
	if k < 0 || k >= len(im.codes) {
		return nil, operator{}, &ir.Error{Node: fmt.Sprintf("operator %d", i), Rule: fmt.Sprintf("its code is %d of %d", k, len(im.codes))}
	}
	code := max(int(im.codes[k].i32(3, 0)), int(int8(im.codes[k].u8(0))))
	op, ok := operators[code]
	if !ok {
		e := &ir.Error{Node: fmt.Sprintf("operator %d", i), Rule: fmt.Sprintf("builtin operator %d is not supported", code), Remedy: "replace it, or cut the model before it"}
		if code == custom {
			e.Rule = fmt.Sprintf("the custom operator %q is not supported", im.codes[k].str(1))
		}
		if out := f.ints(2); len(out) > 0 && out[0] >= 0 && out[0] < len(im.tensors) {
			e.Tensor = im.tensors[out[0]].Name
		}
		return nil, op, e
	}
	n := &ir.Node{Name: im.unique(fmt.Sprintf("%s_%d", op.name, i), "n"), Op: "tfl." + op.name, Attrs: ir.Attrs{}}
	o, _ := f.table(4)
	if o.Bytes == nil {
		o = table{flatbuffers.Table{Bytes: make([]byte, 8), Pos: 4}} // a table without fields
		o.Bytes[0], o.Bytes[4] = 4, 4
	}
	for field, name := range op.options {
		switch kind, name := name[0], name[1:]; kind {
		case 'i':
			n.Attrs[name] = int64(o.i32(field, op.def(name)))
		case 'b':
			n.Attrs[name] = int64(o.u8(field))
		case 'f':
			n.Attrs[name] = o.f32(field, 0)
		case 'l':
			n.Attrs[name] = ir.IntList(o.ints(field)...)
		case 'n':
			n.Attrs[name] = int64(1)
			if o.slot(field) != 0 {
				n.Attrs[name] = int64(o.u8(field))
			}
		}
	}
	return n, op, nil
}
