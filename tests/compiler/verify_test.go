// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"npuemu/compiler"
	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
	"npuemu/compiler/run"
	"npuemu/core/isa"
	"npuemu/vdev"
)

// faulty is a card that goes wrong: before and after are called around each launch.
type faulty struct {
	*Card
	before, after func(program []byte, bindings []run.Binding)
}

func (f faulty) Launch(ctx context.Context, program run.Memory, bindings []run.Binding) (run.Launch, error) {
	if f.before != nil {
		f.before(program.Bytes(), bindings)
	}
	l, err := f.Card.Launch(ctx, program, bindings)
	if f.after != nil {
		f.after(program.Bytes(), bindings)
	}
	return l, err
}

// verified is x + c, relu of it, and 2 times that.
const verified = `graph "verified"
input %x: int32[2, 4]
const %c: int32[4] = "AQAAAAIAAAADAAAABAAAAA=="
node "sum" npu.element(%x, %c) -> (%s: int32[2, 4]) {op="add"}
node "relu" npu.element(%s) -> (%r: int32[2, 4]) {op="relu"}
node "twice" npu.element(%r, %r) -> (%y: int32[2, 4]) {op="add"}
output %y
`

// newCard is a card that ends with the test.
func newCard(t *testing.T) *Card {
	t.Helper()
	c, err := NewCard(t.Context(), vdev.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// A wrong constant, and a bit that is wrong in the result of one node, are found, and so are the node, the first
// element and the STORE that wrote it. A card without fault has no difference.
func TestVerifyFinds(t *testing.T) {
	c := newCard(t)
	x := make([]byte, 32)
	for i := range 8 {
		x[4*i] = byte(i)
	}
	for _, tt := range []struct {
		name          string
		before, after func(program []byte, bindings []run.Binding)
		want          string // node, tensor, element, what is there and what should be; how many
	}{
		{name: "no fault"},
		{"a constant", func(_ []byte, b []run.Binding) { b[0].Bytes()[8] ^= 0x40 }, nil, `"sum" "s" [0 2] 45000000 05000000 2 of 8`},
		{"the last element of the last node", nil, func(_ []byte, b []run.Binding) { b[3].Bytes()[31] ^= 0x80 }, `"twice" "y" [1 3] 16000080 16000000 1 of 8`},
		{"a result in the arena", nil, func(_ []byte, b []run.Binding) {
			if arena := b[1].Bytes(); len(arena) > 4 { // in Build's model all stays in the scratchpad
				arena[4] ^= 1
			}
		}, `"sum" "s" [0 1] 02000000 03000000 1 of 8`},
	} {
		g, err := ir.Parse(verified)
		if err != nil {
			t.Fatal(err)
		}
		v, err := compiler.Verify(t.Context(), faulty{c, tt.before, tt.after}, g, nil, c.target, [][]byte{x}, nil)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if v.Report.Counters.Programs != 1 || v.Tensors != 3 || v.Within != 0 || len(v.Hosts) != 0 {
			t.Errorf("%s: %+v", tt.name, v)
		}
		d := v.Divergence
		if tt.want == "" {
			if d != nil {
				t.Errorf("%s: %v", tt.name, d)
			}
			continue
		}
		if d == nil {
			t.Errorf("%s: nothing is found", tt.name)
			continue
		}
		got := fmt.Sprintf("%q %q %v %x %x %d of %d", d.Node, d.Tensor, d.Index, d.Got, d.Want, d.Differ, d.Of)
		if got != tt.want || d.Program != 0 || d.Instruction < 0 || !strings.HasPrefix(d.Text, "store") || fmt.Sprint(d.Tile) != "[[0 1] [0 3]]" {
			t.Errorf("%s: %s\n%v, want %s", tt.name, got, d, tt.want)
		}
	}
}

// A program that computes something else than its node says is found, at that node: here one that subtracts. Build's model,
// the one with each node by itself, and the one with memory for each tensor are launched one after the other; the second only if there are chains.
func TestVerifyFindsAnInstruction(t *testing.T) {
	c := newCard(t)
	chained := strings.ReplaceAll(verified, "}", ", chain=1}")
	x := make([]byte, 32)
	for _, tt := range []struct {
		name, text string
		wrong      []int // launches, from 1 on
		within     int
		node, say  string
	}{
		{"all", verified, []int{1, 2}, 0, "relu", "of program 0 of the model with memory for each tensor stored its tile, 0:2,0:4: store"},
		{"Build's model", verified, []int{1}, 0, "twice", "of program 0 stored its tile, 0:2,0:4: store"},
		{"all of a chain", chained, []int{1, 2, 3}, 2, "relu", "of program 0 of the model in which each node is computed by itself stored its tile, 0:2,0:4: store"},
		{"the chain", chained, []int{3}, 2, "twice", "computed with it: sum, relu"},
		{"the chain in Build's model", chained, []int{1}, 2, "twice", "of program 0 stored its tile, 0:2,0:4: store"},
	} {
		launch, changed := 0, 0
		wrong := func(image []byte, _ []run.Binding) {
			if launch++; !slices.Contains(tt.wrong, launch) {
				return
			}
			p, err := isa.ParseImage(image)
			if err != nil {
				t.Error(err)
				return
			}
			for at := 0; at < len(p.Text); at += isa.Size {
				inst, _ := isa.Decode((*isa.Word)(p.Text[at:]))
				if e, ok := inst.(isa.Element); ok && e.Op == isa.ElemReLU {
					e.Op = isa.ElemNeg
					p.Text = append(append(append([]byte{}, p.Text[:at]...), isa.Text(e)...), p.Text[at+isa.Size:]...)
					copy(image, p.Image())
					changed++
					return
				}
			}
		}
		g, err := ir.Parse(tt.text)
		if err != nil {
			t.Fatal(err)
		}
		v, err := compiler.Verify(t.Context(), faulty{c, wrong, nil}, g, nil, c.target, [][]byte{x}, nil)
		if err != nil || changed != len(tt.wrong) || v.Within != tt.within || v.Tensors != 3 {
			t.Fatalf("%s: %v; the program was changed %d times; %d of %d tensors are within chains", tt.name, err, changed, v.Within, v.Tensors)
		}
		if d := v.Divergence; d == nil || d.Node != tt.node || d.Differ != 8 || d.Instruction < 0 || !strings.Contains(d.String(), tt.say) {
			t.Errorf("%s: the difference is %v, want all of %s", tt.name, d, tt.node)
		}
	}
}

// The reference takes longer than the card; who has enough of it need not wait for all nodes.
func TestVerifyEnds(t *testing.T) {
	c := newCard(t)
	g, err := ir.Parse(verified)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	nodes := 0
	v, err := compiler.Verify(ctx, c, g, nil, c.target, [][]byte{make([]byte, 32)}, func(done, _ int, what string) {
		if !slices.Contains([]string{"sum", "relu", "twice"}, what) { // planning, and the card
			return
		}
		if nodes = done; done == 1 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || v.Divergence != nil || nodes != 1 {
		t.Errorf("%v, %v after %d nodes", v.Divergence, err, nodes)
	}
}

// normalized is a convolution in floating point with a normalization and an activation behind it, which become part of it: their factors
// are rounded into the weights. What is behind it is compared by itself.
const normalized = `graph "normalized"
input %x: float32[1, 2, 6, 6]
const %w: float32[2, 2, 1, 1] = "zczMPZqZGT/NzEw+AACAvw=="
const %s: float32[2] = "MzMzPzMzsz8="
const %b: float32[2] = "zcxMPgAAAAA="
const %m: float32[2] = "AAAAP83MTL4="
const %v: float32[2] = "zczMPjMzMz8="
node "c" Conv(%x, %w) -> (%c: invalid[])
node "n" BatchNormalization(%c, %s, %b, %m, %v) -> (%n: invalid[])
node "r" Relu(%n) -> (%r: invalid[])
node "p" MaxPool(%r) -> (%p: invalid[]) {kernel_shape=[2, 2], strides=[2, 2]}
node "a" ArgMax(%r) -> (%a: invalid[]) {axis=3}
output %p
output %a
output %r
`

// byRules are models whose tensors are compared with their operators' rules, and how many: in all, and behind what is rounded anew.
var byRules = []struct {
	source            compiler.Source
	compared, rounded int
}{
	{compiler.Source{Path: "../models/testdata/digits.onnx"}, 7, 2},
	{compiler.Source{Path: "../models/testdata/keywords.onnx"}, 16, 10},
	{compiler.Source{Path: "../../examples/lenet/lenet.prototxt"}, 8, 4},
	{compiler.Source{Path: "../../compiler/tflite/testdata/net/model.tflite"}, 15, 0},
	{compiler.Source{Path: "../../compiler/testdata/shared.npuir"}, 2, 2},
	{compiler.Source{Format: "npuir", Data: []byte(normalized)}, 3, 1},
	{compiler.Source{Format: "npuir", Data: []byte(normalized), Float: "bf16"}, 3, 1},
}

// verifyRules is what Verify says of source, whose graph broken changes behind all passes.
func verifyRules(t *testing.T, c *Card, source compiler.Source, broken func(g *ir.Graph)) compiler.Verified {
	t.Helper()
	g, err := source.Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	rules, err := source.Rules()
	if err != nil {
		t.Fatal(err)
	}
	if broken != nil {
		broken(g)
	}
	r := rand.New(rand.NewPCG(3, 3))
	var inputs [][]byte
	for _, in := range g.Inputs {
		v := make([]float32, in.Elements())
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		if !in.Type.Float() {
			b := make([]byte, in.Bytes())
			for i := range b {
				b[i] = byte(r.IntN(256))
			}
			inputs = append(inputs, b)
			continue
		}
		inputs = append(inputs, ref.PutFloats(in.Type, v, true))
	}
	v, err := compiler.Verify(t.Context(), c, g, rules, c.target, inputs, nil)
	if err != nil {
		t.Fatal(err)
	}
	if v.Divergence != nil {
		t.Errorf("card and reference differ: %v", v.Divergence)
	}
	return v
}

// What the passes make of a model is what its operators' rules make, tensor by tensor.
func TestVerifyRules(t *testing.T) {
	c := newCard(t)
	for _, tt := range byRules {
		v := verifyRules(t, c, tt.source, nil).Rules
		if v.Difference != nil || v.Compared != tt.compared || v.Rounded != tt.rounded || v.Skipped != 0 || v.Differ > v.Rounded || v.Nodes == 0 {
			t.Errorf("%s %s: %+v, %v; want %d compared, %d rounded", tt.source.Path, tt.source.Float, v, v.Difference, tt.compared, tt.rounded)
		}
	}
	const device = "graph \"g\"\ninput %x: int8[4]\nnode \"n\" npu.element(%x) -> (%y: int8[4]) {op=\"neg\"}\noutput %y\n"
	if r, err := (compiler.Source{Format: "npuir", Data: []byte(device)}).Rules(); r != nil || err != nil {
		t.Errorf("the rules of a graph of the device level are %v, %v", r, err)
	}
}

// A graph of which a pass has made something else is found by the rules, at the tensor of the model that is wrong first: card and
// reference agree on it.
func TestVerifyFindsAPass(t *testing.T) {
	c := newCard(t)
	node := func(g *ir.Graph, op string, at int) *ir.Node {
		for _, n := range g.Nodes {
			if n.Op == op {
				if at--; at < 0 {
					return n
				}
			}
		}
		t.Fatalf("no %s %d in\n%s", op, at, g)
		return nil
	}
	for _, tt := range []struct {
		name   string
		source compiler.Source
		broken func(g *ir.Graph)
		want   string
	}{
		{"an activation is lost", byRules[5].source, func(g *ir.Graph) { delete(node(g, "npu.conv", 0).Attrs, "act") }, `node "r" (Relu) of the model: tensor "r"`},
		{"a bias is lost", byRules[5].source, func(g *ir.Graph) { n := node(g, "npu.conv", 0); n.Inputs = n.Inputs[:2] }, `node "r" (Relu) of the model: tensor "r"`},
		{"the clamp of a fused activation", byRules[1].source, func(g *ir.Graph) { node(g, "npu.conv", 1).Attrs["lo"] = int64(-20) }, "(QuantizeLinear) of the model"},
		{"a scale of a fused product", byRules[0].source, func(g *ir.Graph) {
			a := node(g, "npu.conv", 1).Attrs
			s := slices.Clone(a.Floats("scales"))
			s[0] *= 1.2
			a["scales"] = s
		}, "of the model"},
		{"two axes are taken for each other", byRules[5].source, func(g *ir.Graph) {
			for _, n := range slices.Concat(g.Nodes, g.Views) {
				if p := n.Attrs.Ints("perm"); n.Op == "npu.transpose" && slices.Equal(p, []int{0, 2, 3, 1}) {
					n.Attrs["perm"] = ir.IntList(0, 3, 2, 1)
				}
			}
		}, "of the model"},
		{"an output of another shape", byRules[5].source, func(g *ir.Graph) { g.Outputs[0], g.Outputs[2] = g.Outputs[2], g.Outputs[0] }, `the compiled graph has %r`},
	} {
		v := verifyRules(t, c, tt.source, tt.broken).Rules
		if v.Difference == nil || !strings.Contains(v.Difference.String(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, v.Difference, tt.want)
		}
	}
}
