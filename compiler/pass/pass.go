// SPDX-License-Identifier: Apache-2.0

// Package pass turns a model's graph into one of the device level. Each pass is a function of a graph, in a
// file of its name; Run runs all of them in order. A pass is deterministic: the same graph gives
// the same graph.
package pass

import (
	"errors"

	"npuemu/compiler/ir"
)

// Pass is one step.
type Pass struct {
	Name string
	Run  func(g *ir.Graph) error
	Doc  string
}

// Passes are all of them, in the order of Run.
func Passes() []Pass {
	return []Pass{
		{"infer", Infer, "types and shapes of all tensors; folds what depends on shapes and constants"},
		{"fuse-qdq", FuseQDQ, "products between dequantization and quantization become products of integers"},
		{"lower", Lower, "operators of the model become operations of the device"},
		{"fold", Fold, "computes what depends on constants only, removes what nothing uses"},
		{"layout", Layout, "removes transposes between the model's layout and the device's"},
		{"integers", Integers, "keeps quantized tensors integers where nothing computes; functions of 8 bits become tables"},
		{"layout-again", Layout, "the same, for what moved"},
		{"fold-again", Fold, "the same, for constants that moved"},
		{"fuse", Fuse, "factors, summands, activations and requantization become part of products"},
		{"partition", Partition, "names the operations that stay on the host"},
		{"chains", Chains, "numbers operations that are computed together, tile by tile, without memory between them"},
	}
}

// Run runs all passes and verifies the graph behind each from "infer" on. after, if not nil, is called
// behind each pass, with its name.
func Run(g *ir.Graph, after func(name string, g *ir.Graph)) error {
	partitioned := false
	for _, p := range Passes() {
		err := p.Run(g)
		partitioned = partitioned || p.Name == "partition"
		if err == nil && partitioned {
			err = g.Verify()
		}
		if err != nil {
			var e *ir.Error
			if errors.As(err, &e) {
				e.Graph = g.Name
			}
			return err
		}
		if after != nil {
			after(p.Name, g)
		}
	}
	return nil
}
