// SPDX-License-Identifier: Apache-2.0

package onnx

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"npuemu/compiler/ir"
	"npuemu/compiler/pass"
	"npuemu/compiler/ref"
)

// graphAttr is an attribute that is a graph.
func graphAttr(name string, parts ...msg) msg {
	g := msg{}.str(2, name)
	for _, p := range parts {
		g = append(g, p...)
	}
	return msg{}.str(1, name).num(20, 5).bytes(6, g)
}

func oneInt(name string, v uint64) msg { return msg{}.str(1, name).num(20, 2).num(3, v) }

// deep is an If in so many others.
func deep(n int) msg {
	if n == 0 {
		return testNode("Relu", []string{"x"}, []string{"z"})
	}
	return testNode("If", []string{"x"}, []string{"z"}, graphAttr("then_branch", part(1, deep(n-1)), part(12, valueInfo("z", 1))))
}

func scalar(name string, kind uint64, raw ...byte) msg {
	return part(5, msg{}.num(2, kind).str(8, name).bytes(9, raw))
}

const (
	kindInt64 = 7
	kindBool  = 9
)

func int64Scalar(name string, v byte) msg { return scalar(name, kindInt64, v, 0, 0, 0, 0, 0, 0, 0) }

// ifModel adds x to itself, or 1, as cond says.
func ifModel(parts ...msg) []byte {
	branch := func(name, y string) msg {
		return graphAttr(name, part(1, testNode("Add", []string{"x", y}, []string{"sum"})), part(12, valueInfo("sum", 1)))
	}
	return testModel(17, append([]msg{
		part(11, valueInfo("x", 1, 2)), part(5, floatTensor("one", nil, 1)),
		part(1, testNode("If", []string{"cond"}, []string{"z"}, branch("then_branch", "x"), branch("else_branch", "one"))),
		part(12, valueInfo("z", 1)),
	}, parts...)...)
}

// loopModel gives the sum of x and, in each turn, the number of the turn as fp32, and all sums. cond is what its body makes of its condition.
func loopModel(turns byte, cond ...msg) []byte {
	body := graphAttr("body", append([]msg{
		part(11, valueInfo("i", kindInt64)), part(11, valueInfo("on", kindBool)), part(11, valueInfo("sum", 1)),
		part(1, testNode("Cast", []string{"i"}, []string{"f"}, oneInt("to", 1))),
		part(1, testNode("Add", []string{"sum", "f"}, []string{"next"})),
		part(12, valueInfo("more", kindBool)), part(12, valueInfo("next", 1)), part(12, valueInfo("next", 1)),
	}, cond...)...)
	return testModel(17, part(11, valueInfo("x", 1, 2)), int64Scalar("turns", turns), int64Scalar("two", 2), scalar("yes", kindBool, 1),
		part(1, testNode("Loop", []string{"turns", "yes", "x"}, []string{"last", "all"}, body)), part(12, valueInfo("last", 1)), part(12, valueInfo("all", 1)))
}

// scanModel is the running sum of x [4, 2], from the last row or the first, with what it had before each.
func scanModel(attrs ...msg) []byte {
	body := graphAttr("body",
		part(11, valueInfo("sum", 1)), part(11, valueInfo("row", 1)),
		part(1, testNode("Add", []string{"sum", "row"}, []string{"next"})),
		part(1, testNode("Identity", []string{"sum"}, []string{"before"})),
		part(12, valueInfo("next", 1)), part(12, valueInfo("before", 1)))
	return testModel(17, part(11, valueInfo("x", 1, 4, 2)), part(5, floatTensor("zero", []uint64{2}, 0, 0)),
		part(1, testNode("Scan", []string{"zero", "x"}, []string{"last", "all"}, append([]msg{body, oneInt("num_scan_inputs", 1)}, attrs...)...)),
		part(12, valueInfo("last", 1)), part(12, valueInfo("all", 1)))
}

// TestControl: what control flow that is known when compiling becomes computes what it says, with no node of it left.
func TestControl(t *testing.T) {
	follow := part(1, testNode("Identity", []string{"on"}, []string{"more"}))
	below := part(1, testNode("Less", []string{"i", "two"}, []string{"more"})) // turns 0, 1 and 2
	x := []float32{1, 2, 3, 4, 5, 6, 7, 8}
	for _, tt := range []struct {
		name  string
		model []byte
		want  []string // outputs
	}{
		{"If, true", ifModel(scalar("cond", kindBool, 1)), []string{"[2] [2 4]"}},
		{"If, false", ifModel(scalar("cond", kindBool, 0)), []string{"[2] [2 3]"}},
		{"Loop", loopModel(3, follow), []string{"[2] [4 5]", "[3 2] [1 2 2 3 4 5]"}},
		{"Loop, its condition ends it", loopModel(9, below), []string{"[2] [4 5]", "[3 2] [1 2 2 3 4 5]"}},
		{"Scan", scanModel(), []string{"[2] [16 20]", "[4 2] [0 0 1 2 4 6 9 12]"}},
		{"Scan, backward", scanModel(intAttr("scan_input_directions", 1)), []string{"[2] [16 20]", "[4 2] [0 0 7 8 12 14 15 18]"}},
		{"Scan, written backward", scanModel(intAttr("scan_output_directions", 1)), []string{"[2] [16 20]", "[4 2] [9 12 4 6 1 2 0 0]"}},
		{"Scan, other axes", scanModel(intAttr("scan_output_axes", 1)), []string{"[2] [16 20]", "[2 4] [0 1 4 9 0 2 6 12]"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, err := Import(tt.model, Options{})
			if err == nil {
				err = pass.Run(g, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			in := g.Inputs[0]
			out, err := ref.Run(g, [][]byte{ref.PutFloats(in.Type, x[:in.Elements()], false)}, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i, o := range g.Outputs {
				if got := fmt.Sprint(o.Shape, ref.Floats(o.Type, out[i], o.Elements())); got != tt.want[i] {
					t.Errorf("%s is %s, not %s", o.Name, got, tt.want[i])
				}
			}
		})
	}
}

// TestControlErrors: what is not known when compiling, or too much, is refused by name.
func TestControlErrors(t *testing.T) {
	follow := part(1, testNode("Identity", []string{"on"}, []string{"more"}))
	for _, tt := range []struct {
		name       string
		model      []byte
		tensor, in string
	}{
		{"If of an input", ifModel(part(11, valueInfo("cond", kindBool))), "cond", pass.MustBeConstant},
		{"If of a number", ifModel(scalar("cond", 1, 0, 0, 0, 0)), "cond", "float32[], not one bool"},
		{"Loop as data has it", loopModel(3, part(1, testNode("ReduceMax", []string{"next"}, []string{"m"}, oneInt("keepdims", 0))), part(1, testNode("Cast", []string{"m"}, []string{"more"}, oneInt("to", 9)))), "Loop-node/0/more", pass.MustBeConstant},
		{"Loop that ends at once", loopModel(0, follow), "all", "has no turn"},
		{"Loop of a body of others", testModel(17, part(11, valueInfo("x", 1, 2)), int64Scalar("n", 2), part(1, testNode("Loop", []string{"n", "", "x"}, []string{"z"}, graphAttr("body", part(12, valueInfo("x", 1))))), part(12, valueInfo("z", 1))), "", "0 inputs and 1 outputs, not 3 and 2"},
		{"too many turns", testModel(17, part(11, valueInfo("x", 1, 2)), scalar("n", kindInt64, 0, 0, 1, 0, 0, 0, 0, 0),
			part(1, testNode("Loop", []string{"n", "", "x"}, []string{"z"}, graphAttr("body", part(11, valueInfo("i", kindInt64)), part(11, valueInfo("on", kindBool)), part(11, valueInfo("s", 1)), part(12, valueInfo("on", kindBool)), part(12, valueInfo("s", 1))))), part(12, valueInfo("z", 1))), "", "more than 1024 turns"},
		{"Scan without body", testModel(17, part(11, valueInfo("x", 1, 2)), part(1, testNode("Scan", []string{"x"}, []string{"z"}, oneInt("num_scan_inputs", 1))), part(12, valueInfo("z", 1))), "", "no graph body"},
		{"Scan of more than there is", testModel(17, part(11, valueInfo("x", 1, 2)), part(1, testNode("Scan", []string{"x"}, []string{"z"}, oneInt("num_scan_inputs", math.MaxInt32))), part(12, valueInfo("z", 1))), "", "of 1 inputs are scanned"},
	} {
		g, err := Import(tt.model, Options{})
		if err == nil {
			err = pass.Run(g, nil)
		}
		var e *ir.Error
		if !errors.As(err, &e) || e.Node == "" || e.Op == "" || e.Remedy == "" || e.Tensor != tt.tensor || !strings.Contains(e.Rule, tt.in) {
			t.Errorf("%s: %v does not say %q of tensor %q", tt.name, err, tt.in, tt.tensor)
		}
	}
}
