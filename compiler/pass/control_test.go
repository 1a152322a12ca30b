// SPDX-License-Identifier: Apache-2.0

package pass_test

import (
	"strings"
	"testing"

	"npuemu/compiler/ir"
	"npuemu/compiler/pass"
	"npuemu/compiler/ref"
)

// What a small file's control flow becomes is bounded, wherever it comes from.
func TestControlFlowIsBounded(t *testing.T) {
	constant := func(name string, shape []int, v ...int64) *ir.Tensor {
		return &ir.Tensor{Name: name, Type: ir.Int64, Shape: shape, Data: ref.PutInts(ir.Int64, v)}
	}
	x := &ir.Tensor{Name: "x", Type: ir.Float32, Shape: []int{2}}
	identity := func(name string, in *ir.Tensor) *ir.Node {
		return &ir.Node{Name: name, Op: "Identity", Inputs: []*ir.Tensor{in}, Outputs: []*ir.Tensor{{Name: name}}, Attrs: ir.Attrs{"opset": int64(17)}}
	}
	// A loop of so many turns of nodes, which makes outputs of the last of them, all the same.
	loop := func(name string, turns int64, outputs int, nodes ...*ir.Node) *ir.Node {
		on := &ir.Tensor{Name: name + "on", Type: ir.Bool, Shape: []int{}}
		g := &ir.Graph{Name: name, Inputs: []*ir.Tensor{{Name: name + "i", Type: ir.Int64, Shape: []int{}}, on}, Outputs: []*ir.Tensor{on}, Nodes: nodes}
		n := &ir.Node{Name: name, Op: "Loop", Inputs: []*ir.Tensor{constant(name+"n", []int{}, turns), nil}, Bodies: map[string]*ir.Graph{"body": g}, Attrs: ir.Attrs{"opset": int64(17)}}
		for range outputs {
			g.Outputs = append(g.Outputs, nodes[len(nodes)-1].Outputs[0])
			n.Outputs = append(n.Outputs, &ir.Tensor{Name: name + "z"})
		}
		return n
	}
	var many []*ir.Node
	for range 20_000 {
		many = append(many, identity("untaken", x))
	}
	branch := &ir.Node{
		Name: "if", Op: "If", Inputs: []*ir.Tensor{{Name: "no", Type: ir.Bool, Shape: []int{}, Data: []byte{0}}}, Outputs: []*ir.Tensor{{Name: "ifz"}},
		Bodies: map[string]*ir.Graph{
			"then_branch": {Name: "then", Nodes: many, Outputs: []*ir.Tensor{many[0].Outputs[0]}},
			"else_branch": {Name: "else", Nodes: []*ir.Node{identity("e", x)}, Outputs: []*ir.Tensor{x}},
		},
		Attrs: ir.Attrs{"opset": int64(17)},
	}
	large := &ir.Node{
		Name: "large", Op: "ConstantOfShape", Inputs: []*ir.Tensor{constant("shape", []int{1}, 1<<24)}, Outputs: []*ir.Tensor{{Name: "largez"}},
		Attrs: ir.Attrs{"opset": int64(17)},
	}
	for _, tt := range []struct {
		name string
		node *ir.Node
		want string
	}{
		{"outputs", loop("l", 1024, 20_000, identity("a", x)), "control flow "},
		{"a few outputs", loop("l", 1024, 200, identity("a", x)), "control flow becomes more than 131072 nodes"},
		{"branches within loops", loop("l", 1024, 1, loop("m", 120, 1, branch)), "control flow copies more than 2097152 nodes and outputs"},
		{"constants", loop("l", 1024, 1, large), "constants that control flow makes take more than 268435456 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := pass.Infer(&ir.Graph{Name: "g", Inputs: []*ir.Tensor{x}, Nodes: []*ir.Node{tt.node}, Outputs: tt.node.Outputs[:1]})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}
