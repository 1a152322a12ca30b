// SPDX-License-Identifier: Apache-2.0

package onnx

import (
	"fmt"
	"slices"

	"npuemu/compiler/ir"
)

// mostNodes bounds those of a model with its functions, which a small file can make many.
const mostNodes = 1 << 17

// called is what a node says to call a function of the model.
func called(domain, name, overload string) string {
	if domain == "ai.onnx" {
		domain = ""
	}
	return domain + ":" + name + ":" + overload
}

// call is what a function's nodes take of the node that calls it.
type call struct{ attrs, defaults []attribute }

// attributes is f with those that refer to the function's replaced by what the caller gave, or the function has for them; if
// neither has one, it is left out.
func (c *call) attributes(f *node) *node {
	if c == nil || !slices.ContainsFunc(f.attrs, func(a attribute) bool { return a.ref != "" }) {
		return f
	}
	g := *f
	g.attrs = nil
	for _, a := range f.attrs {
		if a.ref == "" {
			g.attrs = append(g.attrs, a)
			continue
		}
		for _, list := range [][]attribute{c.attrs, c.defaults} {
			if i := slices.IndexFunc(list, func(v attribute) bool { return v.name == a.ref }); i >= 0 {
				v := list[i]
				v.name = a.name
				g.attrs = append(g.attrs, v)
				break
			}
		}
	}
	return &g
}

// inline puts the nodes of fn where n calls it.
func (im *importer) inline(n *ir.Node, f *node, fn *function) error {
	if im.depth == maxDepth {
		return n.Errorf("it is called by %d functions, each in another", maxDepth).WithRemedy("a function must not call itself")
	}
	if err := im.inputs(n, f); err != nil {
		return err
	}
	if len(f.inputs) > len(fn.inputs) || len(f.outputs) > len(fn.outputs) {
		return n.Errorf("%d inputs and %d outputs, the function has %d and %d", len(f.inputs), len(f.outputs), len(fn.inputs), len(fn.outputs)).WithRemedy("the file is damaged, or its exporter wrong")
	}
	opset, err := version(fn.opsets, im.opset)
	if err != nil {
		e := n.Errorf("%v", err)
		return e.WithRemedy("inline it with onnx.inliner, which converts it")
	}
	in := &importer{
		o: Options{Dir: im.o.Dir}, g: im.g, values: map[string]*ir.Tensor{}, names: im.names, opset: opset, depth: im.depth + 1,
		functions: im.functions, made: im.made, prefix: n.Name + "/", call: &call{f.attrs, fn.defaults}, omitted: map[string]bool{},
	}
	for i, name := range fn.inputs {
		if i < len(n.Inputs) && n.Inputs[i] != nil {
			in.values[name] = n.Inputs[i]
		} else {
			in.omitted[name] = true
		}
	}
	for i := range fn.nodes {
		if err := in.node(&fn.nodes[i], i); err != nil {
			return err
		}
	}
	for i, name := range f.outputs {
		if name == "" {
			continue
		}
		of := in.values[fn.outputs[i]]
		if of == nil {
			e := n.Errorf("is an output of the function, and nothing in it defines it").WithRemedy("the file is damaged, or its exporter wrong")
			e.Tensor = fn.outputs[i]
			return e
		}
		t := of
		own := !slices.Contains(n.Inputs, of) && !of.Const() && !slices.Contains(fn.outputs[:i], fn.outputs[i])
		if !own {
			t = &ir.Tensor{}
		}
		t.Name = name
		if err := im.define(t); err != nil {
			return err
		}
		if t.Name = im.prefix + name; own {
			continue
		}
		// The tensor has a name already.
		im.g.Nodes = append(im.g.Nodes, &ir.Node{
			Name: fmt.Sprintf("%s/out%d", n.Name, i), Op: "Identity", Inputs: []*ir.Tensor{of}, Outputs: []*ir.Tensor{t}, Attrs: ir.Attrs{"opset": int64(im.opset)},
		})
	}
	return nil
}
