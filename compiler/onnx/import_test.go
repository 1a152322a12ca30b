// SPDX-License-Identifier: Apache-2.0

package onnx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"

	"npuemu/compiler/ir"
	"npuemu/compiler/pass"
)

// msg is a message under construction.
type msg []byte

func (m msg) num(n protowire.Number, v uint64) msg {
	return protowire.AppendVarint(protowire.AppendTag(m, n, protowire.VarintType), v)
}

func (m msg) bytes(n protowire.Number, b []byte) msg {
	return protowire.AppendBytes(protowire.AppendTag(m, n, protowire.BytesType), b)
}

func (m msg) str(n protowire.Number, s string) msg { return m.bytes(n, []byte(s)) }

func valueInfo(name string, kind uint64, dims ...any) msg {
	var shape msg
	for _, d := range dims {
		switch d := d.(type) {
		case int:
			shape = shape.bytes(1, msg{}.num(1, uint64(d)))
		case string:
			shape = shape.bytes(1, msg{}.str(2, d))
		}
	}
	return msg{}.str(1, name).bytes(2, msg{}.bytes(1, msg{}.num(1, kind).bytes(2, shape)))
}

func floatTensor(name string, dims []uint64, v ...float32) msg {
	m := msg{}
	for _, d := range dims {
		m = m.num(1, d)
	}
	var raw []byte
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
	}
	return m.num(2, 1).str(8, name).bytes(9, raw)
}

func intAttr(name string, v ...uint64) msg {
	m := msg{}.str(1, name).num(20, 7)
	for _, x := range v {
		m = m.num(8, x)
	}
	return m
}

// testNode is a NodeProto.
func testNode(op string, in, out []string, attrs ...msg) msg {
	m := msg{}
	for _, s := range in {
		m = m.str(1, s)
	}
	for _, s := range out {
		m = m.str(2, s)
	}
	m = m.str(3, op+"-node").str(4, op)
	for _, a := range attrs {
		m = m.bytes(5, a)
	}
	return m
}

// testModel is a model of opset 17 with the parts of its graph.
func testModel(opset uint64, parts ...msg) []byte {
	g := msg{}.str(2, "test")
	for _, p := range parts {
		g = append(g, p...)
	}
	return msg{}.num(1, 8).bytes(7, g).bytes(8, msg{}.num(2, opset))
}

func part(n protowire.Number, m msg) msg { return msg{}.bytes(n, m) }

func small() []byte {
	return testModel(17,
		part(11, valueInfo("x", 1, "N", 2, 4)),
		part(5, floatTensor("w", []uint64{3, 2, 1}, 1, 2, 3, 4, 5, 6)),
		part(1, testNode("Conv", []string{"x", "w"}, []string{"y"}, intAttr("strides", 2))),
		part(1, testNode("Relu", []string{"y"}, []string{"z"})),
		part(12, valueInfo("z", 1)))
}

func TestImport(t *testing.T) {
	g, err := Import(small(), Options{Dims: map[string]int{"N": 5}})
	if err != nil {
		t.Fatal(err)
	}
	want := `graph "test"
input %x: float32[5, 2, 4]
const %w: float32[3, 2, 1] = "AACAPwAAAEAAAEBAAACAQAAAoEAAAMBA"
node "Conv-node" Conv(%x, %w) -> (%y: invalid[]) {opset=17, strides=[2]}
node "Relu-node" Relu(%y) -> (%z: invalid[]) {opset=17}
output %z
`
	var b strings.Builder
	if err := g.Print(&b, false); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("graph (-want +got):\n%s", diff)
	}
}

// TestData reads one tensor in each form that a file may hold it.
// TestOperators: the operators of a file are known though it is refused.
func TestOperators(t *testing.T) {
	b := testModel(6,
		part(11, valueInfo("x", 1, 2)),
		part(1, testNode("Relu", []string{"x"}, []string{"y"})),
		part(1, testNode("Loop", []string{"y"}, []string{"z"})),
		part(1, testNode("Relu", []string{"z"}, []string{"w"})),
		part(12, valueInfo("w", 1)))
	if _, err := Import(b, Options{}); err == nil {
		t.Error("opset 6 is taken")
	}
	ops, err := Operators(b)
	if diff := cmp.Diff([]string{"Loop", "Relu"}, ops); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := Operators(b[:len(b)-3]); err == nil {
		t.Error("a cut file has operators")
	}
}

func TestData(t *testing.T) {
	packed := func(v ...uint64) []byte {
		var b []byte
		for _, x := range v {
			b = protowire.AppendVarint(b, x)
		}
		return b
	}
	minus := uint64(math.MaxUint64) // −1
	for _, tt := range []struct {
		name string
		m    msg
		want *ir.Tensor
	}{
		{"raw", msg{}.num(1, 2).num(2, 3).bytes(9, []byte{1, 255}), &ir.Tensor{Type: ir.Int8, Shape: []int{2}, Data: []byte{1, 255}}},
		{"int32_data of int8", msg{}.num(1, 2).num(2, 3).bytes(5, packed(1, minus)), &ir.Tensor{Type: ir.Int8, Shape: []int{2}, Data: []byte{1, 255}}},
		{"not packed", msg{}.num(1, 2).num(2, 3).num(5, 1).num(5, minus), &ir.Tensor{Type: ir.Int8, Shape: []int{2}, Data: []byte{1, 255}}},
		{"int64_data", msg{}.num(2, 7).bytes(7, packed(258)), &ir.Tensor{Type: ir.Int64, Data: []byte{2, 1, 0, 0, 0, 0, 0, 0}}},
		{"int4, odd", msg{}.num(1, 3).num(2, 22).bytes(5, packed(0x21, 0x3)), &ir.Tensor{Type: ir.Int4, Shape: []int{3}, Data: []byte{0x21, 3}}},
		{"float16 in int32_data", msg{}.num(2, 10).bytes(5, packed(0x3c00)), &ir.Tensor{Type: ir.Float16, Data: []byte{0, 0x3c}}},
		{"no elements", msg{}.num(1, 0).num(2, 1), &ir.Tensor{Type: ir.Float32, Shape: []int{0}, Data: []byte{}}},
	} {
		got, err := Tensor(tt.m)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// TestBadModels has for each refused model what the error must name.
func TestBadModels(t *testing.T) {
	out := part(12, valueInfo("z", 1))
	in := part(11, valueInfo("x", 1, 1))
	relu := part(1, testNode("Relu", []string{"x"}, []string{"z"}))
	for _, tt := range []struct {
		name  string
		model []byte
		want  []string
	}{
		{"empty", nil, []string{"no graph"}},
		{"text", []byte("this is no model at all"), []string{"not a valid ONNX file", "the file is cut, damaged or no ONNX model"}},
		{"truncated", small()[:60], []string{"not a valid ONNX file", "the file is cut, damaged or no ONNX model"}},
		{"old", testModel(6, in, relu, out), []string{"opset 6 is not 7 to", "version_converter"}},
		{"new", testModel(99, in, relu, out), []string{"opset 99"}},
		{"a function that calls itself", append(testModel(17, in, part(1, inDomain(testNode("Twice", []string{"x"}, []string{"z"}))), out), testFunction(nil, inDomain(testNode("Twice", []string{"a"}, []string{"b"})))...), []string{"(Twice)", "called by 16 functions", "must not call itself"}},
		{"a function without its output", append(testModel(17, in, part(1, inDomain(testNode("Twice", []string{"x"}, []string{"z"}))), out), testFunction(nil)...), []string{`node "Twice-node" (Twice): tensor "b"`, "nothing in it defines it"}},
		{"a function of more inputs", append(testModel(17, in, part(1, inDomain(testNode("Twice", []string{"x", "x", "x"}, []string{"z"}))), out), testFunction(nil)...), []string{"3 inputs and 1 outputs, the function has 2 and 1"}},
		{"a function of another opset", append(testModel(17, in, part(1, inDomain(testNode("Twice", []string{"x"}, []string{"z"}))), out), testFunction(msg{}.bytes(9, msg{}.num(2, 99)))...), []string{"(Twice)", "opset 99", "inliner"}},
		{"a function's attribute outside", testModel(17, in, part(1, testNode("Elu", []string{"x"}, []string{"z"}, refAttr("alpha", "slope"))), out), []string{"(Elu)", "attribute alpha refers to one of a function"}},
		{"sparse", testModel(17, in, relu, out, part(15, msg{})), []string{"sparse"}},
		{"no output", testModel(17, in, relu), []string{"no output"}},
		{"undefined output", testModel(17, in, relu, part(12, valueInfo("q", 1))), []string{`tensor "q"`, "nothing defines it"}},
		{"undefined input", testModel(17, relu, out), []string{`node "Relu-node" (Relu)`, `tensor "x"`, "before anything defines it"}},
		{"defined twice", testModel(17, in, relu, relu, out), []string{`tensor "z"`, "defined twice"}},
		{"strings", testModel(17, part(11, valueInfo("x", 8, 1)), relu, out), []string{`tensor "x"`, "strings"}},
		{"complex", testModel(17, part(11, valueInfo("x", 14, 1)), relu, out), []string{"element type 14"}},
		{"unknown dimension", testModel(17, part(11, valueInfo("x", 1, 1, "width")), relu, out), []string{`tensor "x"`, `"width"`, "give it a size"}},
		{"huge input", testModel(17, part(11, valueInfo("x", 1, 1<<31, 1<<31)), relu, out), []string{"too large"}},
		{"negative dimension", testModel(17, part(5, msg{}.num(1, math.MaxUint64).num(2, 1).str(8, "x")), relu, out), []string{`tensor "x"`, "dimension -1"}},
		{"huge constant", testModel(17, part(5, msg{}.num(1, 1<<31).num(1, 1<<31).num(2, 1).str(8, "x")), relu, out), []string{"too large"}},
		{"short data", testModel(17, part(5, floatTensor("x", []uint64{1 << 20}, 1)), relu, out), []string{`tensor "x"`, "4 bytes of data, float32[1048576] needs 4194304"}},
		{"short numbers", testModel(17, part(5, msg{}.num(1, 1<<20).num(2, 6).str(8, "x")), relu, out), []string{"0 numbers of data"}},
		{"a graph where none belongs", testModel(17, in, part(1, testNode("Relu", []string{"x"}, []string{"z"}, graphAttr("body"))), out), []string{"(Relu)", "attribute body is a graph", "export the model"}},
		{"a graph without output", testModel(17, in, part(1, testNode("If", []string{"x"}, []string{"z"}, graphAttr("then_branch"))), out), []string{`node "If-node" (If)`, "attribute then_branch: the graph has no output"}},
		{"graphs too deep", testModel(17, in, part(1, deep(maxDepth+1)), out), []string{`(If)`, "a graph in 16 others"}},
		{"domain", testModel(17, in, part(1, append(testNode("Odd", []string{"x"}, []string{"z"}), msg{}.str(7, "my.domain")...)), out), []string{`domain "my.domain"`}},
		{"no outputs of a node", testModel(17, in, part(1, testNode("Relu", []string{"x"}, nil)), out), []string{"no output"}},
		{"external, no directory", testModel(17, part(5, msg{}.num(1, 1).num(2, 1).str(8, "x").num(14, 1)), relu, out), []string{"external data", "not read from a directory"}},
	} {
		_, err := Import(tt.model, Options{})
		if err == nil {
			t.Errorf("%s: no error", tt.name)
			continue
		}
		for _, w := range tt.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v does not say %q", tt.name, err, w)
			}
		}
	}
}

func TestExternalData(t *testing.T) {
	dir := t.TempDir()
	model := func(entries ...string) string {
		w := msg{}.num(1, 2).num(2, 1).str(8, "w").num(14, 1)
		for i := 0; i < len(entries); i += 2 {
			w = w.bytes(13, msg{}.str(1, entries[i]).str(2, entries[i+1]))
		}
		path := filepath.Join(dir, "m.onnx")
		m := testModel(17, part(11, valueInfo("x", 1, 2)), part(5, w), part(1, testNode("Add", []string{"x", "w"}, []string{"z"})), part(12, valueInfo("z", 1)))
		if err := os.WriteFile(path, m, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if err := os.WriteFile(filepath.Join(dir, "data"), []byte("....ABCDEFGH"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(dir), "outside"), make([]byte, 8), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/hostname", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	g, err := Load(model("location", "data", "offset", "4", "length", "8"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(g.Nodes[0].Inputs[1].Data); got != "ABCDEFGH" {
		t.Errorf("data is %q", got)
	}
	for _, tt := range []struct {
		name    string
		entries []string
		want    string
	}{
		{"outside the directory", []string{"location", "../outside"}, "escapes"},
		{"absolute", []string{"location", "/etc/hostname"}, "escapes"},
		{"a link that leaves it", []string{"location", "link"}, "escapes"},
		{"missing", []string{"location", "nothing"}, "no such file"},
		{"a directory", []string{"location", "."}, "no regular file"},
		{"cut", []string{"location", "data", "offset", "8"}, "8 bytes at 8 of a file of 12"},
		{"offset beyond", []string{"location", "data", "offset", "9223372036854775807"}, "of a file of 12"},
		{"negative", []string{"location", "data", "offset", "-1"}, `offset is "-1"`},
		{"another length", []string{"location", "data", "length", "4"}, "the tensor needs 8"},
	} {
		if _, err := Load(model(tt.entries...), Options{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// A size of what the model does not have is refused, and one that is missing says how it is given.
func TestSizes(t *testing.T) {
	open := testModel(17, part(11, valueInfo("x", 1, "N", "length", 4)), part(1, testNode("Relu", []string{"x"}, []string{"z"})), part(12, valueInfo("z", 1)))
	for _, tt := range []struct {
		name string
		o    Options
		want string
	}{
		{"no such dimension", Options{Dims: map[string]int{"NN": 2}}, `a size is given for a dimension "NN", which no input has; symbolic dimensions of the inputs are ["N" "length"]`},
		{"no such input", Options{Shapes: map[string][]int{"y": {1}}}, `a shape is given for an input "y", which the model does not have; inputs are ["x"]`},
		{"no size", Options{}, `dimension 1 ("length") of the input is not known; give it a size: --dim length=SIZE, or dims in Python and C`},
	} {
		if _, err := Import(open, tt.o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	g, err := Import(open, Options{Dims: map[string]int{"length": 7}})
	if err != nil || fmt.Sprint(g.Inputs[0].Shape) != "[1 7 4]" {
		t.Errorf("%v, %v", g, err)
	}
}

func TestFreeze(t *testing.T) {
	g, err := Import(small(), Options{Shapes: map[string][]int{"x": {1, 2, 4}}, Freeze: map[string][]byte{"x": make([]byte, 32)}})
	if err != nil {
		t.Fatal(err)
	}
	if len(g.Inputs) != 0 || !g.Nodes[0].Inputs[0].Const() {
		t.Errorf("inputs %v", g.Inputs)
	}
	var e *ir.Error
	if _, err := Import(small(), Options{Freeze: map[string][]byte{"x": make([]byte, 31)}}); !errors.As(err, &e) || e.Tensor != "x" {
		t.Errorf("31 bytes: %v", err)
	}
}

// TestChanged: whatever bytes of a model change, importer and passes end with a graph or an error of the model.
func TestChanged(t *testing.T) {
	whole := small()
	rng := rand.New(rand.NewPCG(1, 1))
	compiled := 0
	for range 5000 {
		b := append([]byte{}, whole...)
		for range 1 + rng.IntN(3) {
			b[rng.IntN(len(b))] = byte(rng.Uint32())
		}
		g, err := Import(b, Options{})
		if err != nil {
			continue
		}
		var e *ir.Error
		if err := pass.Run(g, nil); err == nil {
			compiled++
		} else if !errors.As(err, &e) {
			t.Errorf("%v is no error of the model", err)
		}
	}
	if compiled == 0 {
		t.Error("none of them could be compiled: the changes are too many")
	}
}

func FuzzImport(f *testing.F) {
	f.Add(small())
	f.Add(testModel(17, part(11, valueInfo("x", 1, 1)), part(1, testNode("Constant", nil, []string{"c"}, intAttr("value_ints", 1, 2))), part(12, valueInfo("c", 1))))
	follow := part(1, testNode("Identity", []string{"on"}, []string{"more"}))
	for _, m := range [][]byte{ifModel(scalar("cond", kindBool, 1)), loopModel(3, follow), scanModel()} {
		f.Add(m)
	}
	f.Add(append(testModel(17, part(11, valueInfo("x", 1, 2)), part(1, inDomain(testNode("Twice", []string{"x"}, []string{"z"}))), part(12, valueInfo("z", 1))), testFunction(nil, testNode("Elu", []string{"a"}, []string{"b"}, refAttr("alpha", "slope")))...))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := Import(b, Options{})
		if err != nil {
			return
		}
		var e *ir.Error
		if err := pass.Run(g, nil); err != nil && !errors.As(err, &e) {
			t.Errorf("%v is no error of the model", err)
		}
	})
}
