// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"fmt"
	"maps"
	"runtime"
	"slices"

	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
)

// rules are those of all operators of the model level.
func rules() map[string]rule {
	all := map[string]rule{}
	for _, r := range []map[string]rule{elementRules(), moveRules(), windowRules(), matrixRules(), normRules(), quantRules(), tfliteRules(), attentionRules()} {
		maps.Copy(all, r)
	}
	return all
}

// apply runs a node's rule. A shape that the rule did not expect, which shows as an index out of range, is
// the model's error like those that it names.
func apply(rs map[string]rule, n *ir.Node, later map[*ir.Tensor]bool) (b *builder, out []*ir.Tensor, err error) {
	r := rs[n.Op]
	if r == nil {
		return nil, nil, n.Errorf("the operator is not supported").WithRemedy("replace it by others (docs/operators.md), or cut the model before it")
	}
	b = &builder{n: n, later: later}
	defer func() {
		switch p := recover().(type) {
		case nil:
		case failure:
			err = p.err
		case *runtime.TypeAssertionError:
			e := n.Errorf("an attribute is of another kind than the operator's").WithRemedy(string(fixValue))
			e.Tensor = b.inModel(nil)
			err = e
		case runtime.Error:
			e := n.Errorf("its inputs and attributes do not fit the operator: %d inputs, %s", len(n.Inputs), describe(n.Inputs)).WithRemedy("correct the node where the model is made: the operator's definition says what it takes")
			e.Tensor = b.inModel(nil)
			err = e
		default:
			panic(p)
		}
	}()
	out = r(b, n)
	if len(out) < len(n.Outputs) {
		return nil, nil, n.Errorf("%d outputs are not supported, %d are", len(n.Outputs), len(out)).WithRemedy("leave those behind out where the model is made")
	}
	for _, t := range out {
		if t.Bytes() < 0 {
			e := n.Errorf("shape %v of the output is too large", t.Shape).WithRemedy(string(makeSmaller))
			e.Tensor = b.inModel(nil)
			return nil, nil, e
		}
	}
	return b, out, nil
}

func describe(ts []*ir.Tensor) string {
	s := ""
	for i, t := range ts {
		if i > 0 {
			s += ", "
		}
		if t == nil {
			s += "none"
		} else {
			s += fmt.Sprintf("%s%v", t.Type, t.Shape)
		}
	}
	return s
}

// foldLimit bounds the bytes of a constant that folding makes: the graph of a small file must not become gigabytes.
const foldLimit = 64 << 20

// Infer gives every tensor of a model's graph its type and shape, and replaces what is known now
// by constants: shapes, and what is computed of constants only. (De)quantization of constants
// stays, since FuseQDQ looks for it.
func Infer(g *ir.Graph) error {
	rs := rules()
	known := map[*ir.Tensor]*ir.Tensor{}
	later := map[*ir.Tensor]bool{}
	nodes := g.Nodes[:0:0]
	for _, n := range g.Nodes {
		replace(n.Inputs, known)
		if n.Device() || n.Host() {
			nodes = append(nodes, n)
			continue
		}
		b, out, err := apply(rs, n, later)
		if err != nil {
			return err
		}
		data, err := evaluate(n, b, out)
		if err != nil {
			return err
		}
		whole, soon := true, constantLater(n.Inputs, later)
		for i, t := range n.Outputs {
			if t == nil {
				continue
			}
			t.Type, t.Shape = out[i].Type, slices.Clone(out[i].Shape)
			if d := data[out[i]]; d != nil {
				known[t] = &ir.Tensor{Name: t.Name, Type: t.Type, Shape: t.Shape, Data: d}
			} else {
				whole = false
				later[t] = soon
			}
		}
		if !whole {
			nodes = append(nodes, n)
		}
	}
	g.Nodes = nodes
	replace(g.Outputs, known)
	return nil
}

// constantLater reports whether all of a node's inputs are constants, or will be.
func constantLater(in []*ir.Tensor, later map[*ir.Tensor]bool) bool {
	return !slices.ContainsFunc(in, func(t *ir.Tensor) bool { return t != nil && !t.Const() && !later[t] })
}

func replace(ts []*ir.Tensor, by map[*ir.Tensor]*ir.Tensor) {
	for i, t := range ts {
		if r := by[t]; r != nil {
			ts[i] = r
		}
	}
}

// evaluate computes the outputs of a rule that depend on constants only, if they are small.
func evaluate(n *ir.Node, b *builder, out []*ir.Tensor) (map[*ir.Tensor][]byte, error) {
	data := map[*ir.Tensor][]byte{}
	for _, t := range out {
		if t.Const() {
			data[t] = t.Data
		}
	}
	if n.Op == "QuantizeLinear" || n.Op == "DequantizeLinear" || len(data) == len(out) {
		return data, nil
	}
	value := func(t *ir.Tensor) []byte {
		if t.Const() {
			return t.Data
		}
		return data[t]
	}
	for _, m := range b.nodes {
		size := m.Outputs[0].Bytes()
		in, ok := make([][]byte, len(m.Inputs)), size >= 0 && size <= foldLimit
		for i, t := range m.Inputs {
			in[i] = value(t)
			ok = ok && in[i] != nil
		}
		if !ok {
			continue
		}
		if err := m.Check(); err != nil && !ref.Wide(m) {
			return nil, m.InModel(err)
		}
		v, err := ref.Eval(m, in)
		if err != nil {
			return nil, m.InModel(err)
		}
		data[m.Outputs[0]] = v[0]
	}
	return data, nil
}

// Lower replaces the nodes of the model level by those of the device level that their rules make. Names of
// inputs and outputs of the graph stay; others are derived from the nodes'.
func Lower(g *ir.Graph) error {
	rs := rules()
	known := map[*ir.Tensor]*ir.Tensor{}
	later := map[*ir.Tensor]bool{}
	var nodes []*ir.Node
	for _, n := range g.Nodes {
		replace(n.Inputs, known)
		if n.Device() || n.Host() {
			nodes = append(nodes, n)
			continue
		}
		b, out, err := apply(rs, n, later)
		if err != nil {
			return err
		}
		nodes = append(nodes, b.nodes...)
		soon := constantLater(n.Inputs, later)
		for _, t := range out {
			later[t] = soon
		}
		for i, t := range n.Outputs {
			if t == nil {
				continue
			}
			if slices.Contains(n.Inputs, out[i]) || slices.Contains(g.Inputs, out[i]) || slices.Contains(out[:i], out[i]) || out[i].Const() {
				// The tensor has a name already.
				c := *t
				c.Type, c.Shape = out[i].Type, out[i].Shape
				nodes = append(nodes, &ir.Node{Name: fmt.Sprintf("%s/out%d", n.Name, i), Op: "npu.reshape", Inputs: []*ir.Tensor{out[i]}, Outputs: []*ir.Tensor{&c}, Origin: n.Root()})
				known[t], later[&c] = &c, soon
				continue
			}
			out[i].Name, out[i].Quant = t.Name, t.Quant
			known[t] = out[i]
		}
	}
	g.Nodes = nodes
	replace(g.Outputs, known)
	uniqueNames(g)
	return nil
}

// uniqueNames gives tensors and nodes that share a name with an earlier one another.
func uniqueNames(g *ir.Graph) {
	names, nodeNames := map[string]*ir.Tensor{}, map[string]bool{}
	name := func(t *ir.Tensor) {
		if t == nil || names[t.Name] == t {
			return
		}
		base := t.Name
		for k := 2; names[t.Name] != nil; k++ {
			t.Name = fmt.Sprintf("%s~%d", base, k)
		}
		names[t.Name] = t
	}
	for _, t := range slices.Concat(g.Inputs, g.Outputs) {
		name(t)
	}
	for _, n := range g.Nodes {
		base := n.Name
		for k := 2; nodeNames[n.Name]; k++ {
			n.Name = fmt.Sprintf("%s~%d", base, k)
		}
		nodeNames[n.Name] = true
		for _, t := range slices.Concat(n.Inputs, n.Outputs) {
			name(t)
		}
	}
}
