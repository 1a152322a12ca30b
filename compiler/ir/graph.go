// SPDX-License-Identifier: Apache-2.0

package ir

import (
	"fmt"
	"slices"
	"strings"
)

// Quant says which real numbers the integers of a tensor stand for: (q − zero)·scale.
type Quant struct {
	Scales []float32 // one, or one for each index of Axis
	Zeros  []int64   // as many as Scales, or none: all 0
	Axis   int
}

// Tensor is a value: an input of the graph, a constant, or what a node produces.
type Tensor struct {
	Name  string // unique in its graph
	Type  Type
	Shape []int  // a scalar has none
	Quant *Quant // nil unless the model says so
	Data  []byte // little endian, row-major; nil unless the tensor is a constant
}

// Const reports whether the tensor is a constant. One without elements is, if its Data is not nil.
func (t *Tensor) Const() bool { return t != nil && t.Data != nil }

// Elements is how many elements the tensor has, −1 if there are too many.
func (t *Tensor) Elements() int { return Elements(t.Shape) }

// Bytes is the size of the tensor's data, −1 if it is too large.
func (t *Tensor) Bytes() int { return t.Type.Bytes(t.Elements()) }

// String is the tensor as a node's output is printed, without data.
func (t *Tensor) String() string {
	if t == nil {
		return "_"
	}
	var b strings.Builder
	printTensor(&b, t)
	return b.String()
}

// Node is one operation. An optional input that is left out is nil; trailing ones are not there.
type Node struct {
	Name    string // unique in its graph; findings and tables cite it
	Op      string
	Inputs  []*Tensor
	Outputs []*Tensor
	Attrs   Attrs
	Origin  *Node // of the model, of which this one is made, or a part; nil for none. Text does not have it
	// Bodies are the graphs of a node of the model level that controls others (If, Loop, Scan), by the names of its attributes; they
	// also read tensors of the graphs around them. pass.Infer puts their nodes in its place. Text does not have them.
	Bodies map[string]*Graph
}

// Root is the node of the model that n is, or is made of.
func (n *Node) Root() *Node {
	for n.Origin != nil {
		n = n.Origin
	}
	return n
}

// InModel is err, an *Error at n, in the model's names: its node, operator and a tensor of that. What the error says of the step that n
// is stays. An error that names nothing to do gets what is left for a node that the compiler took apart.
func (n *Node) InModel(err error) error {
	e, ok := err.(*Error) //nolint:errorlint // it is ours, unwrapped
	if !ok || n.Origin == nil {
		return err
	}
	root := n.Root()
	c := *e
	c.Node, c.Op = root.Name, root.Op
	c.Rule = fmt.Sprintf("%s, of which it is made: %s", n.Op, e.Rule)
	own := slices.Concat(root.Inputs, root.Outputs)
	if !slices.ContainsFunc(own, func(t *Tensor) bool { return t != nil && t.Name == e.Tensor }) {
		c.Tensor = ""
		for _, t := range own {
			if t != nil {
				c.Tensor = t.Name
				break
			}
		}
	}
	if c.Remedy == "" {
		c.Remedy = "cast the node's inputs to a type that the card computes this with (float32 mostly), or replace the node"
	}
	return &c
}

// InModel is err in the model's names, if it is an *Error at a node of g that was made of another.
func (g *Graph) InModel(err error) error {
	e, ok := err.(*Error) //nolint:errorlint // it is ours, unwrapped
	if !ok || e.Node == "" {
		return err
	}
	for _, n := range g.Nodes {
		if n.Name == e.Node && n.Op == e.Op {
			return n.InModel(err)
		}
	}
	return err
}

// Input is input i, nil if the node has none there.
func (n *Node) Input(i int) *Tensor {
	if i >= len(n.Inputs) {
		return nil
	}
	return n.Inputs[i]
}

// Device reports whether the node is an operation of the device level.
func (n *Node) Device() bool { return strings.HasPrefix(n.Op, "npu.") }

// Host reports whether the node was put on the host, by name.
func (n *Node) Host() bool { return strings.HasPrefix(n.Op, "host.") }

// Graph is a model. Nodes are in topological order: what a node reads is an input of the
// graph, a constant, or an output of an earlier node.
type Graph struct {
	Name    string
	After   string // the last pass that made it what it is (package pass); empty: none, or it is nobody's but its author's
	Inputs  []*Tensor
	Outputs []*Tensor
	Nodes   []*Node

	// Views are transposes and reshapes that nothing needs any more, in no order: what they make are tensors of the model, which are found
	// by them among those of Nodes. They are no part of the graph; text does not have them.
	Views []*Node
}

// Attrs are the attributes of a node. A value is an int64, float32, string, []int64, []float32 or
// []string; the accessors panic if it is of another type than they say, which Verify and
// the importers' tables rule out.
type Attrs map[string]any

// Has reports whether the attribute is there.
func (a Attrs) Has(name string) bool { _, ok := a[name]; return ok }

// Int is an integer attribute, or def.
func (a Attrs) Int(name string, def int) int {
	if v, ok := a[name]; ok {
		return int(v.(int64))
	}
	return def
}

// Float is an fp32 attribute, or def.
func (a Attrs) Float(name string, def float32) float32 {
	if v, ok := a[name]; ok {
		return v.(float32)
	}
	return def
}

// Str is a string attribute, or def.
func (a Attrs) Str(name, def string) string {
	if v, ok := a[name]; ok {
		return v.(string)
	}
	return def
}

// Ints is a list of integers, nil if there is none.
func (a Attrs) Ints(name string) []int {
	v, ok := a[name]
	if !ok {
		return nil
	}
	out := make([]int, 0, 8)
	for _, x := range v.([]int64) {
		out = append(out, int(x))
	}
	return out
}

// Floats is a list of fp32 numbers, nil if there is none. The caller must not change it.
func (a Attrs) Floats(name string) []float32 {
	if v, ok := a[name]; ok {
		return v.([]float32)
	}
	return nil
}

// Names are the names of the attributes, sorted.
func (a Attrs) Names() []string {
	names := make([]string, 0, len(a))
	for n := range a {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// IntList makes the value of an attribute of integers.
func IntList[T ~int | ~int32 | ~int64 | ~uint8](v ...T) []int64 {
	out := make([]int64, len(v))
	for i, x := range v {
		out[i] = int64(x)
	}
	return out
}

// Uses maps every tensor to the nodes that read it, in order; a node that reads it twice is there once.
func (g *Graph) Uses() map[*Tensor][]*Node {
	uses := map[*Tensor][]*Node{}
	for _, n := range g.Nodes {
		for i, t := range n.Inputs {
			if t != nil && !slices.Contains(n.Inputs[:i], t) {
				uses[t] = append(uses[t], n)
			}
		}
	}
	return uses
}

// Producers maps every tensor that a node produces to that node.
func (g *Graph) Producers() map[*Tensor]*Node {
	p := map[*Tensor]*Node{}
	for _, n := range g.Nodes {
		for _, t := range n.Outputs {
			if t != nil {
				p[t] = n
			}
		}
	}
	return p
}

// Error says what is wrong with a model, where, and what to do. Fields that do not apply are empty.
type Error struct {
	Graph, Node, Op, Tensor string
	Rule                    string // what is broken, with the numbers
	Remedy                  string // what the user can do
}

// Error is one line.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Graph != "" {
		fmt.Fprintf(&b, "%s: ", e.Graph)
	}
	if e.Node != "" {
		fmt.Fprintf(&b, "node %q", e.Node)
		if e.Op != "" {
			fmt.Fprintf(&b, " (%s)", e.Op)
		}
		b.WriteString(": ")
	} else if e.Op != "" {
		fmt.Fprintf(&b, "operator %s: ", e.Op)
	}
	if e.Tensor != "" {
		fmt.Fprintf(&b, "tensor %q: ", e.Tensor)
	}
	b.WriteString(e.Rule)
	if e.Remedy != "" {
		fmt.Fprintf(&b, "; %s", e.Remedy)
	}
	return b.String()
}

// Errorf is an Error at the node.
func (n *Node) Errorf(format string, args ...any) *Error {
	return &Error{Node: n.Name, Op: n.Op, Rule: fmt.Sprintf(format, args...)}
}

// OrRemedy adds what the user can do, unless e has it.
func (e *Error) OrRemedy(remedy string) *Error {
	if e.Remedy == "" {
		e.Remedy = remedy
	}
	return e
}

// WithRemedy adds what the user can do.
func (e *Error) WithRemedy(remedy string) *Error { e.Remedy = remedy; return e }
