// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"npuemu/compiler/caffe"
	"npuemu/compiler/ir"
	"npuemu/compiler/onnx"
	"npuemu/compiler/pass"
	"npuemu/compiler/tflite"
)

// Passes are the names that Dump is told, in their order, of a model that goes through all of them.
func Passes() []string {
	l := []string{"import"}
	for _, p := range pass.Passes() {
		l = append(l, p.Name)
	}
	return l
}

// Dump is told of the graph after each pass; "import" is the first.
type Dump func(pass string, g *ir.Graph)

// Source is a model: a file, or its content, and what the file leaves open.
type Source struct {
	Path   string // of the file; names it in errors, and external data of ONNX is in its directory
	Format string // onnx, tflite, npuir or caffe; empty: the extension of Path says it
	Data   []byte // the file's content; nil: that of Path

	WeightsPath string // of a Caffe network; empty: Path with the extension .caffemodel
	Weights     []byte // their content; nil: that of WeightsPath

	Dims   map[string]int   // symbolic dimensions of ONNX, by their names
	Shapes map[string][]int // shapes of inputs of ONNX and TensorFlow Lite, by their names

	Float string // what products of fp32 are made of, one of Floats; empty: fp32

	rules bool // Rules reads it
}

// floats are what products of fp32 can be made of.
var floats = map[string]ir.Type{"fp32": ir.Float32, "bf16": ir.BFloat16, "fp16": ir.Float16}

// Floats are the names of what products of fp32 can be made of (docs/compiler.md).
func Floats() []string { return slices.Sorted(maps.Keys(floats)) }

// products is the type that Float names.
func (s *Source) products() ir.Type {
	if s.Float == "" {
		return ir.Float32
	}
	return floats[s.Float]
}

// formats read a model file and make its nodes those of the device level or of the host.
var formats = map[string]func(s *Source, dump Dump) (*ir.Graph, error){
	"caffe": fromCaffe, "npuir": fromText, "onnx": fromONNX, "tflite": fromTFLite,
}

// extensions are those of model files, and their formats.
var extensions = map[string]string{".npuir": "npuir", ".onnx": "onnx", ".prototxt": "caffe", ".tflite": "tflite"}

// fromONNX reads an ONNX model.
func fromONNX(s *Source, dump Dump) (*ir.Graph, error) {
	o := onnx.Options{Dims: s.Dims, Shapes: s.Shapes}
	if s.Path != "" {
		o.Dir = filepath.Dir(s.Path)
	}
	g, err := onnx.Import(s.Data, o)
	if err != nil {
		return nil, err
	}
	return s.lowered(g, dump)
}

// fromTFLite reads a TensorFlow Lite model.
func fromTFLite(s *Source, dump Dump) (*ir.Graph, error) {
	g, err := tflite.Import(s.Data, tflite.Options{Shapes: s.Shapes})
	if err != nil {
		return nil, err
	}
	return s.lowered(g, dump)
}

// fromCaffe reads a Caffe network.
func fromCaffe(s *Source, dump Dump) (*ir.Graph, error) {
	if s.Weights == nil {
		if s.WeightsPath == "" && s.Path == "" {
			return nil, errors.New("a Caffe network is two files: give the weights too, the .caffemodel")
		}
		if s.WeightsPath == "" {
			s.WeightsPath = strings.TrimSuffix(s.Path, filepath.Ext(s.Path)) + ".caffemodel"
		}
		var err error
		if s.Weights, err = os.ReadFile(s.WeightsPath); err != nil {
			return nil, fmt.Errorf("the weights are in the file of that name with the extension .caffemodel: %w", err)
		}
	}
	g, err := caffe.Import(s.Data, s.Weights)
	if err != nil {
		return nil, err
	}
	return s.lowered(g, dump)
}

// fromText reads a graph as ir prints it. One with operators of a model goes through all passes; one that a pass has made, through those
// behind it. One of the device level, of which no pass is named, is compiled as it stands.
func fromText(s *Source, dump Dump) (*ir.Graph, error) {
	g, err := ir.Parse(string(s.Data))
	if err != nil {
		return nil, err
	}
	switch {
	case slices.ContainsFunc(g.Nodes, func(n *ir.Node) bool { return !n.Device() && !n.Host() }):
		g.After = "" // types and shapes are whatever the text says: infer has them from the operators
	case g.After != "":
		again, err := ir.Parse(string(s.Data))
		if err == nil {
			err = pass.Check(again)
		}
		if err != nil {
			return nil, err
		}
	default:
		if err := g.Verify(); err != nil {
			return nil, err
		}
		if s.products() != ir.Float32 {
			return nil, &ir.Error{Graph: g.Name, Rule: "it is of the device level, whose products are of the types that it says", Remedy: "write casts and products of " + s.Float + " into it"}
		}
		dump("import", g)
		return g, nil
	}
	return s.lowered(g, dump)
}

// lowered runs the passes on a graph of the model level.
func (s *Source) lowered(g *ir.Graph, dump Dump) (*ir.Graph, error) {
	dump("import", g)
	if s.rules {
		return g, pass.Rules(g)
	}
	if err := pass.RunAs(g, s.products(), dump); err != nil {
		return nil, err
	}
	return g, nil
}

// Extensions are those of model files.
func Extensions() []string { return slices.Sorted(maps.Keys(extensions)) }

// IsModel reports whether a file's name is that of a model.
func IsModel(path string) bool { return extensions[strings.ToLower(filepath.Ext(path))] != "" }

// Load reads the model in a file; dump may be nil. What is wrong with it is an *ir.Error.
func Load(path string, dump Dump) (*ir.Graph, error) { return Source{Path: path}.Load(dump) }

// Load reads the model; dump may be nil. What is wrong with it is an *ir.Error. The graph may share memory with Data and
// Weights.
func (s Source) Load(dump Dump) (*ir.Graph, error) {
	if s.Format == "" {
		s.Format = extensions[strings.ToLower(filepath.Ext(s.Path))]
	}
	read := formats[s.Format]
	switch {
	case read != nil:
	case s.Format != "":
		return nil, fmt.Errorf("format %q of a model: there are %s", s.Format, strings.Join(slices.Sorted(maps.Keys(formats)), ", "))
	case strings.EqualFold(filepath.Ext(s.Path), ".npu"):
		return nil, fmt.Errorf("%s: a compiled model, perhaps, which run executes: give the file that it was made of; there are %s", s.Path, strings.Join(Extensions(), ", "))
	default:
		return nil, fmt.Errorf("%s: the extension says of no model what it is; there are %s", s.Path, strings.Join(Extensions(), ", "))
	}
	if len(s.Dims) > 0 && s.Format != "onnx" || len(s.Shapes) > 0 && s.Format != "onnx" && s.Format != "tflite" {
		return nil, fmt.Errorf("dimensions are for ONNX, and shapes for ONNX and TensorFlow Lite: a model of format %s has its own", s.Format)
	}
	if _, ok := floats[s.Float]; !ok && s.Float != "" {
		return nil, fmt.Errorf("products of %q: there are %s", s.Float, strings.Join(Floats(), ", "))
	}
	if s.WeightsPath != "" && s.Format != "caffe" {
		return nil, fmt.Errorf("%s: a file of weights, %s, belongs to a .prototxt only", s.Path, s.WeightsPath)
	}
	if dump == nil {
		dump = func(string, *ir.Graph) {}
	}
	if s.Data == nil {
		var err error
		if s.Data, err = os.ReadFile(s.Path); err != nil {
			return nil, err
		}
	}
	g, err := read(&s, dump)
	if err != nil && s.Path != "" {
		return nil, fmt.Errorf("%s: %w", s.Path, err)
	}
	return g, err
}
