// SPDX-License-Identifier: Apache-2.0

package onnx

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"npuemu/compiler/pass"
	"npuemu/compiler/ref"
)

func inDomain(n msg) msg { return n.str(7, "my.domain") }

func floatAttr(name string, v float32) msg {
	return append(msg{}.str(1, name).num(20, 1), float32Field(2, v)...)
}

// float32Field is a field of wire type 5.
func float32Field(n byte, v float32) msg {
	b := math.Float32bits(v)
	return msg{n<<3 | 5, byte(b), byte(b >> 8), byte(b >> 16), byte(b >> 24)}
}

// refAttr is an attribute that is one of the function's.
func refAttr(name, of string) msg { return msg{}.str(1, name).num(20, 1).str(21, of) }

// testFunction is my.domain.Twice(a, c?) -> b of the model, with more fields and nodes.
func testFunction(more msg, nodes ...msg) msg {
	f := append(msg{}.str(1, "Twice").str(4, "a").str(4, "c").str(5, "b").str(10, "my.domain"), more...)
	for _, n := range nodes {
		f = f.bytes(7, n)
	}
	return part(25, f)
}

// TestFunctions: what calls a function of the model computes what its nodes do, in each call with its own attributes, inputs and names.
func TestFunctions(t *testing.T) {
	x := part(11, valueInfo("x", 1, 2))
	call := func(in, out string, attrs ...msg) msg {
		return part(1, inDomain(testNode("Twice", strings.Fields(in), strings.Fields(out), attrs...)))
	}
	elu := testNode("LeakyRelu", []string{"a"}, []string{"b"}, refAttr("alpha", "slope"))
	clip := testNode("Clip", []string{"a", "", "c"}, []string{"b"})
	double := testNode("Add", []string{"a", "a"}, []string{"b"})
	branch := testNode("If", []string{"yes"}, []string{"b"}, graphAttr("then_branch", part(1, testNode("Clip", []string{"a", "", "c"}, []string{"u"})), part(12, valueInfo("u", 1))), graphAttr("else_branch", part(1, testNode("Neg", []string{"a"}, []string{"u"})), part(12, valueInfo("u", 1))))
	yes := testNode("Constant", nil, []string{"yes"}, msg{}.str(1, "value").num(20, 4).bytes(5, msg{}.num(2, kindBool).bytes(9, []byte{1})))
	for _, tt := range []struct {
		name     string
		parts    []msg
		function msg
		want     string
	}{
		{"twice", []msg{call("x", "y"), call("y", "z")}, testFunction(nil, double), "[-8 12]"},
		{"an attribute", []msg{call("x", "z", floatAttr("slope", 0.5))}, testFunction(nil, elu), "[-1 3]"},
		{"the function's default", []msg{call("x", "z")}, testFunction(msg{}.bytes(11, floatAttr("slope", 0.25)), elu), "[-0.5 3]"},
		{"the operator's default", []msg{call("x", "z")}, testFunction(nil, elu), "[-0.02 3]"},
		{"an input that is left out", []msg{call("x", "z")}, testFunction(nil, clip), "[-2 3]"},
		{"and not", []msg{part(5, floatTensor("two", nil, 2)), call("x two", "z")}, testFunction(nil, clip), "[-2 2]"},
		{"an input that is left out in a branch", []msg{call("x", "z")}, testFunction(nil, yes, branch), "[-2 3]"},
		{"its input is its output", []msg{call("x", "z")}, testFunction(msg{}.str(5, "a"), double), "[-4 6]"},
		{"beside one of another name", []msg{call("x", "y"), part(1, testNode("Neg", []string{"y"}, []string{"z"}))}, testFunction(nil, testNode("Neg", []string{"a"}, []string{"z"}), testNode("Add", []string{"z", "z"}, []string{"b"})), "[-4 6]"},
		{"an opset of its own", []msg{call("x", "z")}, testFunction(msg{}.bytes(9, msg{}.num(2, 11)), testNode("Unsqueeze", []string{"a"}, []string{"u"}, intAttr("axes", 0)), testNode("Squeeze", []string{"u"}, []string{"b"}, intAttr("axes", 0))), "[-2 3]"},
		{"in an operator's place", []msg{part(1, testNode("Relu", []string{"x"}, []string{"z"}))}, part(25, msg{}.str(1, "Relu").str(4, "a").str(5, "b").bytes(7, double)), "[-4 6]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, err := Import(append(testModel(17, append(append([]msg{x}, tt.parts...), part(12, valueInfo("z", 1)))...), tt.function...), Options{})
			if err == nil {
				err = pass.Run(g, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			out, err := ref.Run(g, [][]byte{ref.PutFloats(g.Inputs[0].Type, []float32{-2, 3}, false)}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(ref.Floats(g.Outputs[0].Type, out[0], 2)); got != tt.want || g.Outputs[0].Name != "z" {
				t.Errorf("%s is %s, not %s", g.Outputs[0].Name, got, tt.want)
			}
		})
	}
}

// TestFunctionsGrow: functions that call others many times are refused before they are a model that no memory has.
func TestFunctionsGrow(t *testing.T) {
	m := testModel(17, part(11, valueInfo("x", 1, 2)), part(1, inDomain(testNode("F0", []string{"x"}, []string{"z"}))), part(12, valueInfo("z", 1)))
	for i := range 8 {
		f := msg{}.str(1, fmt.Sprintf("F%d", i)).str(4, "v0").str(5, "v10").str(10, "my.domain")
		for k := range 10 {
			f = f.bytes(7, inDomain(testNode(fmt.Sprintf("F%d", i+1), []string{fmt.Sprintf("v%d", k)}, []string{fmt.Sprintf("v%d", k+1)})))
		}
		m = append(m, part(25, f)...)
	}
	m = append(m, part(25, msg{}.str(1, "F8").str(4, "a").str(5, "b").str(10, "my.domain").bytes(7, testNode("Relu", []string{"a"}, []string{"b"})))...)
	if _, err := Import(m, Options{}); err == nil || !strings.Contains(err.Error(), "more than 131072 nodes") {
		t.Errorf("the error is %v", err)
	}
}
