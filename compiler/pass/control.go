// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"fmt"
	"slices"

	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
)

// Control flow is written out where it is known when compiling: of If the branch that its condition takes, of Loop and Scan the body
// once for each turn. Programs of the compiler have none that depends on data.

// control is what writes the operator out; nil for one without graphs.
func control(op string) func(in *inference, n *ir.Node) error {
	switch op {
	case "If":
		return (*inference).branch
	case "Loop":
		return (*inference).loop
	case "Scan":
		return (*inference).scan
	}
	return nil
}

// mostTurns bounds those of a Loop or Scan, mostNodes the nodes that a model's control flow becomes, mostCopies what is copied
// on the way, inner graphs and outputs included, and mostFolded the bytes of constants that come of it: a small file must not take
// the machine.
const (
	mostTurns  = 1024
	mostNodes  = 1 << 17
	mostCopies = 1 << 21
	mostFolded = 1 << 28
)

// more counts k nodes that n becomes.
func (in *inference) more(n *ir.Node, k int) error {
	if in.made += k; in.made > mostNodes {
		return n.Errorf("control flow becomes more than %d nodes", mostNodes).WithRemedy(string(makeSmaller))
	}
	return nil
}

// copies are the nodes and outputs of g and of the graphs in it.
func copies(g *ir.Graph) int {
	k := len(g.Nodes) + len(g.Outputs)
	for _, n := range g.Nodes {
		for _, b := range n.Bodies {
			k += copies(b)
		}
	}
	return k
}

// body is the graph of n of that name, with so many inputs and at least so many outputs.
func body(n *ir.Node, name string, inputs, outputs int) (*ir.Graph, error) {
	g := n.Bodies[name]
	if g == nil {
		return nil, n.Errorf("it has no graph %s", name).WithRemedy(string(fixValue))
	}
	if len(g.Inputs) != inputs || len(g.Outputs) < outputs {
		return nil, n.Errorf("graph %s has %d inputs and %d outputs, not %d and %d", name, len(g.Inputs), len(g.Outputs), inputs, outputs).WithRemedy(string(fixValue))
	}
	return g, nil
}

// constant is t as one, which control flow needs; of is what t is.
func (in *inference) constant(n *ir.Node, t *ir.Tensor, of string) (*ir.Tensor, error) {
	if c := in.known[t]; c != nil {
		t = c
	}
	if t.Const() && t.Elements() == 1 && (t.Type == ir.Bool || t.Type == ir.Int64) {
		return t, nil
	}
	if t.Const() {
		e := n.Errorf("the %s is %s%v, not one bool or int64", of, t.Type, t.Shape).WithRemedy(string(fixTypes))
		e.Tensor = t.Name
		return nil, e
	}
	e := n.Errorf(MustBeConstant).WithRemedy(fmt.Sprintf("the %s depends on data, and control flow is written out when compiling: give it a value, or export the model without it", of))
	e.Tensor = t.Name
	return nil, e
}

// truth is constant of a bool.
func (in *inference) truth(n *ir.Node, t *ir.Tensor) (bool, error) {
	t, err := in.constant(n, t, "condition")
	return err == nil && t.Data[0] != 0, err
}

// turn is a copy of a body: its inputs are those tensors, and its nodes and tensors have prefix before their names. Nodes of it are
// put where the node is; what comes back is its outputs.
func (in *inference) turn(n *ir.Node, g *ir.Graph, prefix string, inputs []*ir.Tensor) ([]*ir.Tensor, error) {
	if err := in.more(n, len(g.Nodes)); err != nil {
		return nil, err
	}
	if in.copied += copies(g); in.copied > mostCopies {
		return nil, n.Errorf("control flow copies more than %d nodes and outputs, of graphs within graphs", mostCopies).WithRemedy(string(makeSmaller))
	}
	c := copier{prefix: prefix, to: map[*ir.Tensor]*ir.Tensor{}}
	for i, t := range g.Inputs {
		c.to[t] = inputs[i]
	}
	made := c.nodes(g.Nodes)
	if err := in.run(made); err != nil {
		return nil, err
	}
	return c.tensors(g.Outputs), nil
}

// copier copies nodes with what they make. Tensors that none of them makes stay.
type copier struct {
	prefix string
	to     map[*ir.Tensor]*ir.Tensor
}

func (c *copier) tensors(ts []*ir.Tensor) []*ir.Tensor {
	out := slices.Clone(ts)
	replace(out, c.to)
	return out
}

func (c *copier) fresh(ts []*ir.Tensor) []*ir.Tensor {
	out := make([]*ir.Tensor, len(ts))
	for i, t := range ts {
		if t == nil {
			continue
		}
		made := *t
		made.Name = c.prefix + t.Name
		out[i], c.to[t] = &made, &made
	}
	return out
}

func (c *copier) nodes(nodes []*ir.Node) []*ir.Node {
	var out []*ir.Node
	for _, n := range nodes {
		m := *n
		m.Name = c.prefix + n.Name
		m.Inputs = c.tensors(n.Inputs)
		m.Bodies = nil
		for name, g := range n.Bodies {
			if m.Bodies == nil {
				m.Bodies = map[string]*ir.Graph{}
			}
			b := &ir.Graph{Name: g.Name, Inputs: c.fresh(g.Inputs)}
			b.Nodes = c.nodes(g.Nodes)
			b.Outputs = c.tensors(g.Outputs)
			m.Bodies[name] = b
		}
		m.Outputs = c.fresh(n.Outputs)
		out = append(out, &m)
	}
	return out
}

// step makes a node of the model level beside n.
func (in *inference) step(n *ir.Node, op, name string, attrs ir.Attrs, out *ir.Tensor, inputs ...*ir.Tensor) error {
	if err := in.more(n, 1); err != nil {
		return err
	}
	attrs = copyAttrs(attrs, ir.Attrs{"opset": int64(max(n.Attrs.Int("opset", 13), 13))}) // the form of 13
	return in.node(&ir.Node{Name: n.Name + "/" + name, Op: op, Inputs: inputs, Outputs: []*ir.Tensor{out}, Attrs: attrs})
}

// give makes t the tensor of, for output t of n.
func (in *inference) give(n *ir.Node, t, of *ir.Tensor) error {
	if t == nil {
		return nil
	}
	return in.step(n, "Identity", t.Name, nil, t, of)
}

func int64s(name string, shape []int, v ...int) *ir.Tensor {
	return &ir.Tensor{Name: name, Type: ir.Int64, Shape: shape, Data: ref.PutInts(ir.Int64, ir.IntList(v...))}
}

func (in *inference) branch(n *ir.Node) error {
	if len(n.Inputs) != 1 || n.Inputs[0] == nil {
		return n.Errorf("%d inputs, not 1", len(n.Inputs)).WithRemedy(string(fixValue))
	}
	yes, err := in.truth(n, n.Inputs[0])
	if err != nil {
		return err
	}
	name := "else_branch"
	if yes {
		name = "then_branch"
	}
	g, err := body(n, name, 0, len(n.Outputs))
	if err != nil {
		return err
	}
	out, err := in.turn(n, g, n.Name+"/", nil)
	for i, t := range n.Outputs {
		if err == nil {
			err = in.give(n, t, out[i])
		}
	}
	return err
}

// loop is Loop: its turns are known when compiling, and so is the condition behind each.
func (in *inference) loop(n *ir.Node) error {
	if len(n.Inputs) < 2 && len(n.Outputs) == 0 {
		return n.Errorf("%d inputs and %d outputs", len(n.Inputs), len(n.Outputs)).WithRemedy(string(fixValue))
	}
	states := n.Inputs[min(2, len(n.Inputs)):]
	g, err := body(n, "body", 2+len(states), max(1+len(states), 1+len(n.Outputs)))
	if err != nil {
		return err
	}
	turns, going := -1, true
	if t := n.Input(0); t != nil {
		if t, err = in.constant(n, t, "number of turns"); err != nil {
			return err
		}
		if t.Type != ir.Int64 {
			return n.Errorf("the number of turns is %s", t.Type).WithRemedy(string(fixTypes))
		}
		turns = int(max(ref.Ints(t.Type, t.Data, 1)[0], 0))
	}
	if t := n.Input(1); t != nil {
		if going, err = in.truth(n, t); err != nil {
			return err
		}
	}
	scans := make([][]*ir.Tensor, len(g.Outputs)-1-len(states))
	for i := 0; going && i != turns; i++ {
		if i == mostTurns {
			return n.Errorf("more than %d turns, each of which is written out", mostTurns).WithRemedy(string(makeSmaller))
		}
		prefix := fmt.Sprintf("%s/%d/", n.Name, i)
		inputs := append([]*ir.Tensor{int64s(prefix+"turn", nil, i), {Name: prefix + "on", Type: ir.Bool, Data: []byte{1}}}, states...)
		out, err := in.turn(n, g, prefix, inputs)
		if err != nil {
			return err
		}
		if going, err = in.truth(n, out[0]); err != nil {
			return err
		}
		states = out[1 : 1+len(states)]
		for k := range scans {
			scans[k] = append(scans[k], out[1+len(states)+k])
		}
	}
	return in.results(n, states, scans, nil, nil)
}

// results gives n its outputs: states, and what the turns of each scan have made, one behind the other.
func (in *inference) results(n *ir.Node, states []*ir.Tensor, scans [][]*ir.Tensor, axes, backward []int) error {
	for i, t := range n.Outputs {
		if t == nil {
			continue
		}
		if i < len(states) {
			if err := in.give(n, t, states[i]); err != nil {
				return err
			}
			continue
		}
		k := i - len(states)
		if k >= len(scans) {
			return n.Errorf("%d outputs, its graph has %d", len(n.Outputs), len(states)+len(scans)).WithRemedy(string(fixValue))
		}
		if len(scans[k]) == 0 {
			e := n.Errorf("it has no turn, so nothing says what the output is").WithRemedy("leave the node out where the model is made")
			e.Tensor = t.Name
			return e
		}
		axis := 0
		if k < len(axes) {
			axis = axes[k]
		}
		if k < len(backward) && backward[k] != 0 {
			slices.Reverse(scans[k])
		}
		parts := make([]*ir.Tensor, len(scans[k]))
		for j, s := range scans[k] {
			name := fmt.Sprintf("%s/%d", t.Name, j)
			parts[j] = &ir.Tensor{Name: name}
			if err := in.step(n, "Unsqueeze", name, nil, parts[j], s, int64s(name+":axes", []int{1}, axis)); err != nil {
				return err
			}
		}
		if err := in.step(n, "Concat", t.Name, ir.Attrs{"axis": int64(axis)}, t, parts...); err != nil {
			return err
		}
	}
	return nil
}

// scan is Scan since opset 9.
func (in *inference) scan(n *ir.Node) error {
	if n.Attrs.Int("opset", 9) < 9 {
		return n.Errorf("Scan of opset 8 has another form").WithRemedy("convert the model with onnx.version_converter")
	}
	count := n.Attrs.Int("num_scan_inputs", 0)
	if count < 1 || count > len(n.Inputs) || slices.Contains(n.Inputs, nil) {
		return n.Errorf("%d of %d inputs are scanned", count, len(n.Inputs)).WithRemedy(string(fixValue))
	}
	states, xs := n.Inputs[:len(n.Inputs)-count], n.Inputs[len(n.Inputs)-count:]
	g, err := body(n, "body", len(n.Inputs), max(len(states), len(n.Outputs)))
	if err != nil {
		return err
	}
	axes, backward, turns := n.Attrs.Ints("scan_input_axes"), n.Attrs.Ints("scan_input_directions"), -1
	if axes == nil {
		axes = make([]int, count)
	}
	if backward == nil {
		backward = make([]int, count)
	}
	if len(axes) != count || len(backward) != count {
		return n.Errorf("%d axes and %d directions of %d inputs", len(axes), len(backward), count).WithRemedy(string(fixValue))
	}
	for i, x := range xs {
		rank := len(x.Shape)
		if axes[i] < 0 {
			axes[i] += rank
		}
		if axes[i] < 0 || axes[i] >= rank || turns >= 0 && x.Shape[axes[i]] != turns {
			e := n.Errorf("axis %d of %v is not one of %d turns", axes[i], x.Shape, turns).WithRemedy(string(fixShapes))
			e.Tensor = x.Name
			return e
		}
		turns = x.Shape[axes[i]]
	}
	if turns > mostTurns {
		return n.Errorf("%d turns, each of which is written out, and %d is the most", turns, mostTurns).WithRemedy(string(makeSmaller))
	}
	scans := make([][]*ir.Tensor, len(g.Outputs)-len(states))
	for i := range turns {
		prefix := fmt.Sprintf("%s/%d/", n.Name, i)
		inputs := slices.Clone(states)
		for k, x := range xs {
			at, name := i, fmt.Sprintf("%sinput%d", prefix, k)
			if backward[k] != 0 {
				at = turns - 1 - i
			}
			part := &ir.Tensor{Name: name}
			if err := in.step(n, "Gather", fmt.Sprintf("%d/input%d", i, k), ir.Attrs{"axis": int64(axes[k])}, part, x, int64s(name+":at", nil, at)); err != nil {
				return err
			}
			inputs = append(inputs, part)
		}
		out, err := in.turn(n, g, prefix, inputs)
		if err != nil {
			return err
		}
		states = out[:len(states)]
		for k := range scans {
			scans[k] = append(scans[k], out[len(states)+k])
		}
	}
	return in.results(n, states, scans, n.Attrs.Ints("scan_output_axes"), n.Attrs.Ints("scan_output_directions"))
}
