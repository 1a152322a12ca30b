// SPDX-License-Identifier: Apache-2.0

// Package onnx runs ONNX's backend node test cases through the compiler and classifies them:
// docs/operators.md. The cases come from a pinned wheel of ONNX (nodes.py), never from this tree.
package onnx

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"

	"npuemu/compiler/ir"
	importer "npuemu/compiler/onnx"
	"npuemu/compiler/pass"
	"npuemu/compiler/ref"
)

// Status is what became of a case.
type Status string

const (
	Pass        Status = "pass"        // on the device alone, and equal to what the case says
	Folded      Status = "folded"      // equal, and known when compiling: nothing was left to run
	Host        Status = "host"        // equal, with operations on the host
	Wrong       Status = "wrong"       // another result
	Unsupported Status = "unsupported" // refused
)

// Result is that of one case.
type Result struct {
	Name      string
	Operators []string // of the model's file, sorted
	Types     []string // of its inputs, sorted
	Frozen    []string // inputs that had to be constants
	Hosted    []string // operations on the host
	Status    Status
	Detail    string
}

// Execute runs a graph of the device level and names what ran on the host, beside the graph's own nodes of the host.
type Execute func(g *ir.Graph, inputs [][]byte) (outputs [][]byte, hosts []string, err error)

// RunAll runs the cases below dir, in the order of their names.
func RunAll(dir string, exec Execute) ([]Result, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []Result
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, Run(filepath.Join(dir, e.Name()), exec))
		}
	}
	return out, nil
}

// Run runs the case in dir: model.onnx, tolerance, and test_data_set_N with input_M.pb and output_M.pb.
func Run(dir string, exec Execute) Result {
	r := Result{Name: filepath.Base(dir)}
	fail := func(s Status, err error) Result {
		r.Status, r.Detail = s, err.Error()
		return r
	}
	model, err := os.ReadFile(filepath.Join(dir, "model.onnx"))
	if err != nil {
		return fail(Unsupported, err)
	}
	if r.Operators, err = importer.Operators(model); err != nil {
		return fail(Unsupported, err)
	}
	var rtol, atol float64
	tol, err := os.ReadFile(filepath.Join(dir, "tolerance"))
	if err == nil {
		_, err = fmt.Sscan(string(tol), &rtol, &atol)
	}
	if err != nil {
		return fail(Unsupported, err)
	}
	sets, err := filepath.Glob(filepath.Join(dir, "test_data_set_*"))
	if err != nil || len(sets) == 0 {
		return fail(Unsupported, errors.New("no data"))
	}
	folded := true
	for _, set := range sets {
		inputs, err := tensors(set, "input")
		if err != nil {
			r.Types = []string{"not supported"}
			return fail(Unsupported, err)
		}
		r.types(inputs)
		want, err := tensors(set, "output")
		if err != nil {
			return fail(Unsupported, err)
		}
		g, used, err := r.compile(model, inputs)
		if err != nil {
			return fail(Unsupported, err)
		}
		got, hosts, err := exec(g, used)
		if err != nil {
			return fail(Unsupported, err)
		}
		r.Hosted = append(r.Hosted, hosts...)
		folded = folded && len(g.Nodes) == 0
		if err := compare(g.Outputs, got, want, rtol, atol); err != nil {
			return fail(Wrong, err)
		}
	}
	r.Status = Pass
	if folded {
		r.Status = Folded
	}
	if len(r.Hosted) > 0 {
		r.Status = Host
		r.Detail = fmt.Sprint(r.Hosted)
	}
	return r
}

// compile imports and compiles the model. An input that must be a constant is made one, with the case's value.
func (r *Result) compile(model []byte, inputs []*ir.Tensor) (*ir.Graph, [][]byte, error) {
	o := importer.Options{Freeze: map[string][]byte{}, Shapes: map[string][]int{}}
	names, err := importer.InputNames(model)
	if err != nil {
		return nil, nil, err
	}
	if len(names) < len(inputs) {
		return nil, nil, fmt.Errorf("%d inputs for %d", len(inputs), len(names))
	}
	given := map[string]*ir.Tensor{}
	for i, t := range inputs {
		given[names[i]] = t
		o.Shapes[names[i]] = t.Shape
	}
	for {
		g, err := importer.Import(model, o)
		if err == nil {
			err = pass.Run(g, nil)
		}
		var e *ir.Error
		if errors.As(err, &e) && e.Rule == pass.MustBeConstant {
			t := given[e.Tensor]
			if t == nil && len(r.Frozen) < len(inputs) { // computed from inputs: freeze the next one
				for _, name := range slices.Backward(names[:len(inputs)]) {
					if !slices.Contains(r.Frozen, name) && len(given[name].Shape) <= 1 {
						t = given[name]
						e.Tensor = name
						break
					}
				}
			}
			if t != nil && !slices.Contains(r.Frozen, e.Tensor) {
				r.Frozen = append(r.Frozen, e.Tensor)
				o.Freeze[e.Tensor] = t.Data
				continue
			}
		}
		if err != nil {
			return nil, nil, err
		}
		r.Hosted = nil
		for _, n := range pass.HostNodes(g) {
			r.Hosted = append(r.Hosted, fmt.Sprintf("%s %s", n.Op, n.Inputs[0].Type))
		}
		var used [][]byte
		for _, t := range g.Inputs {
			v := given[t.Name]
			if v == nil {
				return nil, nil, fmt.Errorf("input %s has no value", t.Name)
			}
			if v.Type != t.Type || !slices.Equal(v.Shape, t.Shape) {
				return nil, nil, fmt.Errorf("input %s is %s%v, not %s%v", t.Name, v.Type, v.Shape, t.Type, t.Shape)
			}
			used = append(used, v.Data)
		}
		return g, used, nil
	}
}

// types notes the types of the case's inputs.
func (r *Result) types(inputs []*ir.Tensor) {
	r.Types = nil
	for _, t := range inputs {
		r.Types = append(r.Types, t.Type.String())
	}
	slices.Sort(r.Types)
	r.Types = slices.Compact(r.Types)
}

func tensors(dir, kind string) ([]*ir.Tensor, error) {
	var out []*ir.Tensor
	for i := 0; ; i++ {
		b, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%s_%d.pb", kind, i)))
		if errors.Is(err, os.ErrNotExist) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		t, err := importer.Tensor(b)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
}

// compare checks types, shapes and values; integers are equal, floating point is within the tolerance. That of bfloat16 is
// at least the two units of the last place that the wheel's own runner gives it: 10⁻³ is less than one.
func compare(outputs []*ir.Tensor, got [][]byte, want []*ir.Tensor, rtol, atol float64) error {
	if len(outputs) != len(want) {
		return fmt.Errorf("%d outputs, not %d", len(outputs), len(want))
	}
	for k, t := range outputs {
		w := want[k]
		if t.Type != w.Type || !slices.Equal(t.Shape, w.Shape) {
			return fmt.Errorf("output %s is %s%v, not %s%v", t.Name, t.Type, t.Shape, w.Type, w.Shape)
		}
		n := t.Elements()
		if !t.Type.Float() {
			a, b := ref.Ints(t.Type, got[k], n), ref.Ints(t.Type, w.Data, n)
			for i := range a {
				if a[i] != b[i] {
					return fmt.Errorf("output %s[%d] is %d, not %d", t.Name, i, a[i], b[i])
				}
			}
			continue
		}
		rtol := rtol
		if t.Type == ir.BFloat16 {
			rtol = max(rtol, 1.0/64)
		}
		a, b := ref.Doubles(t.Type, got[k], n), ref.Doubles(t.Type, w.Data, n)
		for i := range a {
			x, y := a[i], b[i]
			if x == y || x != x && y != y {
				continue
			}
			if d := math.Abs(x - y); !(d <= atol+rtol*math.Abs(y)) || math.IsInf(d, 0) {
				return fmt.Errorf("output %s[%d] is %g, not %g", t.Name, i, x, y)
			}
		}
	}
	return nil
}
