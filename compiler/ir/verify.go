// SPDX-License-Identifier: Apache-2.0

package ir

import (
	"fmt"
	"slices"
	"strings"
)

// Verify checks the graph: names are unique and there, nodes are in topological order, types and
// shapes are valid, constants have their size, and every operation of the device level follows
// its rules in the package comment. The error is an *Error that names node, tensor and rule.
func (g *Graph) Verify() error {
	if err := g.verify(); err != nil {
		err.Graph = g.Name
		return err
	}
	return nil
}

func (g *Graph) verify() *Error {
	defined := map[*Tensor]bool{}
	names := map[string]*Tensor{}
	define := func(t *Tensor) *Error {
		if e := t.check(); e != nil {
			return e
		}
		if defined[t] {
			return &Error{Tensor: t.Name, Rule: "is defined twice"}
		}
		if names[t.Name] != nil {
			return &Error{Tensor: t.Name, Rule: "two tensors have this name"}
		}
		defined[t], names[t.Name] = true, t
		return nil
	}
	for _, t := range g.Inputs {
		if t == nil {
			return &Error{Rule: "an input is missing"}
		}
		if t.Const() {
			return &Error{Tensor: t.Name, Rule: "an input cannot be a constant"}
		}
		if e := define(t); e != nil {
			return e
		}
	}
	nodes := map[string]bool{}
	for _, n := range g.Nodes {
		if n.Name == "" || n.Op == "" {
			return n.Errorf("a node needs a name and an operation")
		}
		if nodes[n.Name] {
			return n.Errorf("two nodes have this name")
		}
		nodes[n.Name] = true
		for _, t := range n.Inputs {
			if t == nil || defined[t] {
				continue
			}
			if !t.Const() {
				return n.at(t, "is read before anything defines it")
			}
			if e := define(t); e != nil {
				e.Node, e.Op = n.Name, n.Op
				return e
			}
		}
		for _, t := range n.Outputs {
			if t == nil {
				continue
			}
			if t.Const() {
				return n.at(t, "an output cannot be a constant")
			}
			if e := define(t); e != nil {
				e.Node, e.Op = n.Name, n.Op
				return e
			}
		}
		for name, v := range n.Attrs {
			if _, ok := kindOf(v); !ok {
				return n.Errorf("attribute %s is a %T, which no attribute may be", name, v)
			}
		}
		if n.Device() {
			if e := n.checkDevice(); e != nil {
				return e
			}
		}
	}
	if len(g.Outputs) == 0 {
		return &Error{Rule: "the graph has no output"}
	}
	for _, t := range g.Outputs {
		if t == nil {
			return &Error{Rule: "an output is missing"}
		}
		if !defined[t] {
			if !t.Const() {
				return &Error{Tensor: t.Name, Rule: "is an output, and nothing defines it"}
			}
			if e := define(t); e != nil {
				return e
			}
		}
	}
	return nil
}

func (t *Tensor) check() *Error {
	bad := func(format string, args ...any) *Error {
		return &Error{Tensor: t.Name, Rule: fmt.Sprintf(format, args...)}
	}
	if t.Name == "" {
		return bad("a tensor needs a name")
	}
	if !t.Type.Valid() {
		return bad("%s is no type", t.Type)
	}
	size := t.Bytes()
	if size < 0 {
		return bad("shape %v has a dimension below 0 or more than %d bytes", t.Shape, MaxBytes)
	}
	if t.Const() && len(t.Data) != size {
		return bad("the constant has %d bytes, %s%v needs %d", len(t.Data), t.Type, t.Shape, size)
	}
	if q := t.Quant; q != nil {
		if q.Axis < 0 || q.Axis >= max(1, len(t.Shape)) {
			return bad("quantization axis %d of a shape %v", q.Axis, t.Shape)
		}
		if n := len(q.Scales); n != 1 && (len(t.Shape) == 0 || n != t.Shape[q.Axis]) {
			return bad("%d scales for axis %d of %v", n, q.Axis, t.Shape)
		}
		if len(q.Zeros) != 0 && len(q.Zeros) != len(q.Scales) {
			return bad("%d zero points for %d scales", len(q.Zeros), len(q.Scales))
		}
	}
	return nil
}

// at is an Error at the node and one of its tensors.
func (n *Node) at(t *Tensor, format string, args ...any) *Error {
	e := n.Errorf(format, args...)
	e.Tensor = t.Name
	return e
}

func (n *Node) checkDevice() *Error {
	if e := n.checkForm(n.Op); e != nil {
		return e
	}
	return ops[n.Op].check(n)
}

// checkForm checks the number of inputs and outputs and the attributes, which are those of operation op.
func (n *Node) checkForm(op string) *Error {
	rule, ok := ops[op]
	if !ok {
		return n.Errorf("no such operation at the device level")
	}
	if len(n.Inputs) < rule.min || len(n.Inputs) > rule.max {
		return n.Errorf("%d inputs, not %d to %d", len(n.Inputs), rule.min, rule.max)
	}
	if len(n.Outputs) != 1 || n.Outputs[0] == nil {
		return n.Errorf("an operation of the device level has one output")
	}
	for i, t := range n.Inputs {
		if t == nil && i < rule.min {
			return n.Errorf("input %d is missing", i)
		}
	}
	for _, name := range n.Attrs.Names() {
		if _, ok := n.Attrs[name].(int64); ok && name == "chain" {
			continue
		}
		i := slices.IndexFunc(rule.attrs, func(a attrRule) bool { return a.name == name })
		if i < 0 {
			return n.Errorf("it has no attribute %s", name)
		}
		a := rule.attrs[i]
		if k, _ := kindOf(n.Attrs[name]); k != a.kind {
			return n.Errorf("attribute %s is %s, not %s", name, kindNames[k], kindNames[a.kind])
		}
		if v, ok := n.Attrs[name].([]int64); ok && a.length != 0 && len(v) != a.length {
			return n.Errorf("attribute %s has %d entries, not %d", name, len(v), a.length)
		}
		if v, ok := n.Attrs[name].([]float32); ok && a.length != 0 && len(v) != a.length {
			return n.Errorf("attribute %s has %d entries, not %d", name, len(v), a.length)
		}
	}
	for _, a := range rule.attrs {
		if a.required && !n.Attrs.Has(a.name) {
			return n.Errorf("attribute %s is missing", a.name)
		}
	}
	return nil
}

// Check checks a node of the device level by its rule.
func (n *Node) Check() error {
	if e := n.checkDevice(); e != nil {
		return e
	}
	return nil
}

// CheckForm checks of a node of the device level, or of the host with the name of such an operation, what does not depend
// on types and shapes: the number of inputs, the one output, and the attributes and their kinds.
func (n *Node) CheckForm() error {
	if e := n.checkForm("npu." + strings.TrimPrefix(strings.TrimPrefix(n.Op, "npu."), "host.")); e != nil {
		return e
	}
	return nil
}
