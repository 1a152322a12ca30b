// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"fmt"
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

// Dump is told of the graph after each pass; "import" is the first.
type Dump func(pass string, g *ir.Graph)

// loaders read a model file and make its nodes those of the device level or of the host, by
// the extension of its name.
var loaders = map[string]func(path, weights string, dump Dump) (*ir.Graph, error){
	".npuir": text, ".onnx": onnxFile, ".prototxt": caffeFile, ".tflite": tfliteFile,
}

// onnxFile reads an ONNX model.
func onnxFile(path, _ string, dump Dump) (*ir.Graph, error) {
	g, err := onnx.Load(path, onnx.Options{})
	if err != nil {
		return nil, err
	}
	return lowered(path, g, dump)
}

// tfliteFile reads a TensorFlow Lite model.
func tfliteFile(path, _ string, dump Dump) (*ir.Graph, error) {
	g, err := tflite.Load(path, tflite.Options{})
	if err != nil {
		return nil, err
	}
	return lowered(path, g, dump)
}

// caffeFile reads a Caffe network. Its weights are in the file of its name with the extension .caffemodel, unless weights names another.
func caffeFile(path, weights string, dump Dump) (*ir.Graph, error) {
	if weights == "" {
		weights = strings.TrimSuffix(path, filepath.Ext(path)) + ".caffemodel"
	}
	g, err := caffe.Load(path, weights)
	if err != nil {
		return nil, err
	}
	return lowered(path, g, dump)
}

// lowered runs the passes on a graph of the model level.
func lowered(path string, g *ir.Graph, dump Dump) (*ir.Graph, error) {
	dump("import", g)
	if err := pass.Run(g, dump); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return g, nil
}

// Extensions are those of model files.
func Extensions() []string {
	var l []string
	for e := range loaders {
		l = append(l, e)
	}
	slices.Sort(l)
	return l
}

// IsModel reports whether a file's name is that of a model.
func IsModel(path string) bool { return loaders[strings.ToLower(filepath.Ext(path))] != nil }

// Load reads a model; dump may be nil. What is wrong with it is an *ir.Error.
func Load(path string, dump Dump) (*ir.Graph, error) { return LoadWith(path, "", dump) }

// LoadWith is Load of a model whose weights are in a file of their own, which a .prototxt's are.
func LoadWith(path, weights string, dump Dump) (*ir.Graph, error) {
	f := loaders[strings.ToLower(filepath.Ext(path))]
	if strings.EqualFold(filepath.Ext(path), ".npu") {
		return nil, fmt.Errorf("%s: a compiled model, perhaps, which run executes: give the file that it was made of; there are %s", path, strings.Join(Extensions(), ", "))
	}
	if f == nil {
		return nil, fmt.Errorf("%s: the extension says of no model what it is; there are %s", path, strings.Join(Extensions(), ", "))
	}
	if dump == nil {
		dump = func(string, *ir.Graph) {}
	}
	if weights != "" && !strings.EqualFold(filepath.Ext(path), ".prototxt") {
		return nil, fmt.Errorf("%s: a file of weights, %s, belongs to a .prototxt only", path, weights)
	}
	return f(path, weights, dump)
}

// text reads a graph as ir prints it.
func text(path, _ string, dump Dump) (*ir.Graph, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	g, err := ir.Parse(string(b))
	if err == nil {
		err = g.Verify()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	dump("import", g)
	return g, nil
}
