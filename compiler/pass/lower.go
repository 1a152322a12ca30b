// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"fmt"
	"maps"
	"runtime"
	"slices"

	"npuemu/compiler/ir"
)

// rules are those of all operators of the model level.
func rules() map[string]rule {
	all := map[string]rule{}
	for _, r := range []map[string]rule{elementRules(), moveRules(), windowRules(), matrixRules(), normRules(), quantRules(), tfliteRules(), attentionRules(), scatterRules(), recurrentRules(), indexRules(), signalRules(), stateRules()} {
		maps.Copy(all, r)
	}
	return all
}

// apply runs a node's rule. A shape that the rule did not expect, which shows as an index out of range, is
// the model's error like those that it names.
func apply(rs map[string]rule, n *ir.Node, later map[*ir.Tensor]bool) (b *builder, out []*ir.Tensor, err error) {
	r := rs[n.Op]
	b = &builder{n: n, later: later}
	if r == nil {
		e := n.Errorf("the operator is not supported").WithRemedy("replace it by others (docs/operators.md), or cut the model before it")
		e.Tensor = b.inModel(nil)
		return nil, nil, e
	}
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
