// SPDX-License-Identifier: Apache-2.0

// Package pass turns a model's graph into one of the device level. Each pass is a function of a graph, in a
// file of its name (that of "layout-again" is Layout, too), with a test beside it; Run runs all of them in order. A pass is deterministic: the same graph gives
// the same graph.
package pass

import (
	"errors"
	"fmt"
	"runtime"
	"slices"

	"npuemu/compiler/ir"
)

// Pass is one step.
type Pass struct {
	Name string
	Run  func(g *ir.Graph) error
	Doc  string
}

// Passes are all of them, in the order of Run.
func Passes() []Pass { return passes(ir.Float32) }

func passes(products ir.Type) []Pass {
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
		{"narrow", func(g *ir.Graph) error { return narrow(g, products) }, "operands of fp32 products become bf16 or fp16, if that is asked for"},
		{"partition", Partition, "names the operations that stay on the host"},
		{"chains", Chains, "numbers operations that are computed together, tile by tile, without memory between them"},
	}
}

// Run runs the passes behind g.After, all if that is empty, and verifies the graph behind each from "partition" on: before that
// it may have operations that are the host's, by their types, and weights that are yet to be folded. after, if
// not nil, is called behind each pass, with its name.
func Run(g *ir.Graph, after func(name string, g *ir.Graph)) error { return RunAs(g, ir.Float32, after) }

// RunAs is Run; products of fp32 are made of products, which is ir.Float32, ir.BFloat16 or ir.Float16.
func RunAs(g *ir.Graph, products ir.Type, after func(name string, g *ir.Graph)) error {
	return runPasses(g, products, func(string) bool { return true }, after)
}

// Rules runs only those passes that make an operator what its rule says: nothing is fused, nothing moves, and products of fp32 stay so.
// What the other passes do can be compared with it.
func Rules(g *ir.Graph) error {
	return runPasses(g, ir.Float32, func(name string) bool {
		return slices.Contains([]string{"infer", "lower", "fold", "partition"}, name)
	}, nil)
}

// runPasses is RunAs with those passes that are wanted.
func runPasses(g *ir.Graph, products ir.Type, wanted func(name string) bool, after func(name string, g *ir.Graph)) error {
	all := passes(products)
	index := func(name string) int { return slices.IndexFunc(all, func(p Pass) bool { return p.Name == name }) }
	first := 1 + index(g.After)
	if first == 0 && g.After != "" {
		return unknownPass(g)
	}
	if products != ir.Float32 && first > index("narrow") {
		return &ir.Error{Graph: g.Name, Rule: fmt.Sprintf("it is behind pass %q, and products become %s in \"narrow\"", g.After, products), Remedy: "dump it after a pass before that, with the products as the model has them"}
	}
	partitioned := false
	for _, p := range all[first:] {
		if !wanted(p.Name) {
			continue
		}
		err := p.Run(g)
		partitioned = partitioned || p.Name == "partition"
		if err == nil && partitioned {
			err = g.InModel(g.Verify())
		}
		if err != nil {
			var e *ir.Error
			if errors.As(err, &e) {
				e.Graph = g.Name
			}
			return err
		}
		g.After = p.Name
		if after != nil {
			after(p.Name, g)
		}
	}
	return nil
}

func unknownPass(g *ir.Graph) error {
	return &ir.Error{Graph: g.Name, Rule: fmt.Sprintf("it is said to be behind pass %q, which there is not", g.After), Remedy: "take the line away, and all passes run"}
}

// Check reports why the passes behind g.After cannot go on with a graph of the device level that someone may have written, or
// changed: they take it that those before them made it. g is used up: it is no longer what it was.
func Check(g *ir.Graph) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case runtime.Error: // Fold does not expect what Verify refuses
			err = &ir.Error{Graph: g.Name, Rule: "its constants, types and shapes do not fit together", Remedy: "dump it again"}
		default:
			panic(p)
		}
	}()
	if !slices.ContainsFunc(Passes(), func(p Pass) bool { return p.Name == g.After }) {
		return unknownPass(g)
	}
	if g.After == "lower" { // which leaves weights that are computed of constants
		if err := Fold(g); err != nil {
			return err
		}
	}
	if err := Partition(g); err != nil {
		return err
	}
	return g.Verify()
}
