// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
)

// golden is a case of testdata/golden: a model, its inputs, and what others computed.
type golden struct {
	family, name string
	lines        []string // as model takes them
	in           [][]byte
	want         []wanted
}

// wanted is an output: near bounds how far its numbers may be, relative to the larger of them and 1; 0 is equal.
type wanted struct {
	typ    ir.Type
	shape  string
	near   float64
	values []float64
}

// readGolden reads the cases, in the order of their files and lines.
func readGolden(t *testing.T) []golden {
	t.Helper()
	files, err := filepath.Glob("testdata/golden/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	var all []golden
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		family := strings.TrimSuffix(filepath.Base(file), ".txt")
		for i, line := range strings.Split(string(b), "\n") {
			if line == "" || line[0] == '#' {
				continue
			}
			if name, ok := strings.CutPrefix(line, "case "); ok {
				all = append(all, golden{family: family, name: name})
				continue
			}
			if err := all[len(all)-1].statement(line); err != nil {
				t.Fatalf("%s:%d: %v", file, i+1, err)
			}
		}
	}
	return all
}

// statement adds a line of the case.
func (c *golden) statement(line string) error {
	head, tail, _ := strings.Cut(line, " = ")
	word, rest, _ := strings.Cut(head, " ")
	if word != "input" && word != "want" {
		c.lines = append(c.lines, line)
		return nil
	}
	name, rest, _ := strings.Cut(rest, ": ")
	kind, rest, _ := strings.Cut(rest, "[")
	shape, rest, _ := strings.Cut(rest, "]")
	typ, ok := ir.ParseType(kind)
	if !ok {
		return fmt.Errorf("%q is no type", kind)
	}
	var v []float64
	for _, w := range strings.Fields(tail) {
		f, err := strconv.ParseFloat(w, 64) // integers of the cases are exact
		if err != nil {
			return err
		}
		v = append(v, f)
	}
	if word == "input" {
		c.lines = append(c.lines, head)
		c.in = append(c.in, putNumbers(typ, v))
		return nil
	}
	near, err := strconv.ParseFloat(strings.TrimPrefix(rest, " near "), 64)
	c.lines = append(c.lines, "output "+name)
	c.want = append(c.want, wanted{typ, "[" + strings.ReplaceAll(shape, ",", "") + "]", near, v})
	return err
}

func putNumbers(typ ir.Type, v []float64) []byte {
	if typ.Float() {
		f := make([]float32, len(v))
		for i := range v {
			f[i] = float32(v[i])
		}
		return ref.PutFloats(typ, f, false)
	}
	n := make([]int64, len(v))
	for i := range v {
		n[i] = int64(v[i])
	}
	return ref.PutInts(typ, n)
}

func (w *wanted) compare(t *testing.T, o *ir.Tensor, data []byte) {
	t.Helper()
	if o.Type != w.typ || fmt.Sprint(o.Shape) != w.shape {
		t.Errorf("%s is %s%v, want %s%s", o.Name, o.Type, o.Shape, w.typ, w.shape)
		return
	}
	for i, got := range ref.Doubles(o.Type, data, o.Elements()) {
		want := w.values[i]
		if got == want || got != got && want != want {
			continue
		}
		if d := math.Abs(got - want); !(d <= w.near*max(1, math.Abs(want))) {
			t.Errorf("%s[%d] is %g, want %g", o.Name, i, got, want)
		}
	}
}

// TestGolden: what the operators give is what ONNX's reference evaluator, or ONNX Runtime, says (testdata/golden.py wrote
// the cases), behind all passes, and every rule has a case. Those of TensorFlow Lite have theirs in compiler/tflite.
func TestGolden(t *testing.T) {
	open := map[string]bool{}
	for op := range rules() {
		open[op] = !strings.HasPrefix(op, "tfl.")
	}
	for _, c := range readGolden(t) {
		t.Run(c.family+"/"+c.name, func(t *testing.T) {
			g := model(t, c.lines...)
			for _, n := range g.Nodes {
				delete(open, n.Op)
			}
			if err := Run(g, nil); err != nil {
				t.Fatal(err)
			}
			for i, data := range run(t, g, c.in) {
				c.want[i].compare(t, g.Outputs[i], data)
			}
			if c.family == "qdq" {
				fused(t, model(t, c.lines...))
			}
		})
	}
	for _, op := range slices.Sorted(maps.Keys(open)) {
		if open[op] {
			t.Errorf("the rule of %s has no case", op)
		}
	}
}

// fused checks that FuseQDQ makes the one product of g one of integers, with nothing of floating point around it.
func fused(t *testing.T, g *ir.Graph) {
	t.Helper()
	for _, p := range []func(*ir.Graph) error{Infer, FuseQDQ} {
		if err := p(g); err != nil {
			t.Fatal(err)
		}
	}
	products := 0
	for _, n := range g.Nodes {
		switch n.Op {
		case "QLinearConv", "QLinearMatMul":
			products++
		case "Transpose":
		default:
			t.Errorf("%s (%s) is left", n.Name, n.Op)
		}
	}
	if products != 1 {
		t.Errorf("%d products of integers, want 1", products)
	}
}
