// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"fmt"
	"math"
	"slices"

	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
)

// builder makes the nodes of the device level that stand for one node of the model.
type builder struct {
	n     *ir.Node
	nodes []*ir.Node
	names int
	later map[*ir.Tensor]bool // tensors that Fold makes constants
}

// emit adds a node with one output.
func (b *builder) emit(op string, typ ir.Type, shape []int, attrs ir.Attrs, in ...*ir.Tensor) *ir.Tensor {
	name := b.n.Name
	if b.names > 0 {
		name = fmt.Sprintf("%s/%d", b.n.Name, b.names)
	}
	b.names++
	out := &ir.Tensor{Name: name + ":" + op[4:], Type: typ, Shape: slices.Clone(shape)}
	b.nodes = append(b.nodes, &ir.Node{Name: name, Op: op, Inputs: in, Outputs: []*ir.Tensor{out}, Attrs: attrs, Origin: b.n.Root()})
	return out
}

// constant makes a constant. Its name becomes its own when the graph is put together.
func (b *builder) constant(typ ir.Type, shape []int, data []byte) *ir.Tensor {
	b.names++
	return &ir.Tensor{Name: fmt.Sprintf("%s/%d:const", b.n.Name, b.names), Type: typ, Shape: slices.Clone(shape), Data: append([]byte{}, data...)}
}

func (b *builder) ints(typ ir.Type, shape []int, v ...int) *ir.Tensor {
	return b.constant(typ, shape, ref.PutInts(typ, ir.IntList(v...)))
}

func (b *builder) floats(typ ir.Type, shape []int, v ...float32) *ir.Tensor {
	return b.constant(typ, shape, ref.PutFloats(typ, v, false))
}

// like is a scalar of x's type.
func (b *builder) like(x *ir.Tensor, v float32) *ir.Tensor {
	if x.Type.Float() {
		return b.floats(x.Type, nil, v)
	}
	return b.ints(x.Type, nil, int(v))
}

// op2 is ELEMENT of two operands, of their type, or bool for a comparison.
func (b *builder) op2(op string, x, y *ir.Tensor) *ir.Tensor {
	typ := x.Type
	switch op {
	case "eq", "ne", "lt", "le":
		typ = ir.Bool
	}
	if t := b.wide(op, x, y); t != nil {
		return t
	}
	shape, ok := ir.Broadcast(x.Shape, y.Shape)
	if !ok {
		b.fail(fixShapes, y, "shapes %v of %q and %v cannot be broadcast", x.Shape, b.inModel(x), y.Shape)
	}
	attrs := ir.Attrs{"op": op}
	if typ.Integer() && typ != ir.Int32 {
		attrs["wrap"] = int64(1) // as ONNX computes in the type itself
	}
	return b.emit("npu.element", typ, shape, attrs, x, y)
}

// op1 is ELEMENT of one operand.
func (b *builder) op1(op string, x *ir.Tensor) *ir.Tensor {
	if t := b.wide1(op, x); t != nil {
		return t
	}
	return b.emit("npu.element", x.Type, x.Shape, ir.Attrs{"op": op}, x)
}

// scalar2 is op2 with a number of x's type.
func (b *builder) scalar2(op string, x *ir.Tensor, v float32) *ir.Tensor {
	return b.op2(op, x, b.like(x, v))
}

func (b *builder) cast(x *ir.Tensor, typ ir.Type) *ir.Tensor {
	switch {
	case x.Type == typ:
		return x
	case x.Type == ir.Uint16 && !x.Const():
		return b.cast(b.from16(x), typ)
	case typ == ir.Uint16 && x.Type.Computes() && !x.Const():
		x = b.emit("npu.clip", ir.Int32, x.Shape, ir.Attrs{"lo": int64(0), "hi": int64(math.MaxUint16)}, b.cast(x, ir.Int32))
		return b.to16(x)
	}
	return b.emit("npu.cast", typ, x.Shape, nil, x)
}

func (b *builder) reshape(x *ir.Tensor, shape ...int) *ir.Tensor {
	if slices.Equal(x.Shape, shape) {
		return x
	}
	return b.emit("npu.reshape", x.Type, shape, nil, x)
}

func (b *builder) transpose(x *ir.Tensor, perm ...int) *ir.Tensor {
	shape, same := make([]int, len(perm)), true
	for i, p := range perm {
		shape[i] = x.Shape[p]
		same = same && p == i
	}
	if same {
		return x
	}
	return b.emit("npu.transpose", x.Type, shape, ir.Attrs{"perm": ir.IntList(perm...)}, x)
}

func (b *builder) expand(x *ir.Tensor, shape []int) *ir.Tensor {
	if slices.Equal(x.Shape, shape) {
		return x
	}
	return b.emit("npu.expand", x.Type, shape, nil, x)
}

// slice takes size elements of each axis from start on.
func (b *builder) slice(x *ir.Tensor, starts, sizes, steps []int) *ir.Tensor {
	starts = slices.Clone(starts)
	for i, s := range sizes {
		if s == 0 {
			starts[i] = 0
		}
	}
	return b.emit("npu.slice", x.Type, sizes, ir.Attrs{"starts": ir.IntList(starts...), "steps": ir.IntList(steps...)}, x)
}

// part is slice along one axis.
func (b *builder) part(x *ir.Tensor, axis, start, size int) *ir.Tensor {
	if start == 0 && size == x.Shape[axis] {
		return x
	}
	starts, sizes, steps := make([]int, len(x.Shape)), slices.Clone(x.Shape), slices.Repeat([]int{1}, len(x.Shape))
	starts[axis], sizes[axis] = start, size
	return b.slice(x, starts, sizes, steps)
}

func (b *builder) concat(axis int, x ...*ir.Tensor) *ir.Tensor {
	if len(x) == 1 {
		return x[0]
	}
	shape := slices.Clone(x[0].Shape)
	for _, t := range x[1:] {
		if len(t.Shape) != len(shape) {
			b.fail(fixShapes, t, "shapes %v and %v cannot be put together", x[0].Shape, t.Shape)
		}
		shape[axis] += t.Shape[axis]
	}
	return b.emit("npu.concat", x[0].Type, shape, ir.Attrs{"axis": int64(axis)}, x...)
}

// gather takes the elements of an axis with these indices.
func (b *builder) gather(x, index *ir.Tensor, axis int) *ir.Tensor {
	return b.emit("npu.gather", x.Type, slices.Concat(x.Shape[:axis], index.Shape, x.Shape[axis+1:]), ir.Attrs{"axis": int64(axis)}, x, index)
}

// pad adds elements of that value, an integer or fp32 as the type is.
func (b *builder) pad(x *ir.Tensor, pads []int, zero int, value float32) *ir.Tensor {
	if slices.Max(append([]int{0}, pads...)) == 0 {
		return x
	}
	k := len(x.Shape)
	shape := make([]int, k)
	for i := range shape {
		shape[i] = pads[i] + x.Shape[i] + pads[k+i]
	}
	attrs := ir.Attrs{"pads": ir.IntList(pads...)}
	if x.Type.Float() {
		attrs["value"] = value
	} else {
		attrs["zero"] = int64(zero)
	}
	return b.emit("npu.pad", x.Type, shape, attrs, x)
}

func (b *builder) choose(c, x, y *ir.Tensor) *ir.Tensor {
	shape, ok := ir.Broadcast(c.Shape, x.Shape, y.Shape)
	if !ok {
		b.fail(fixShapes, y, "shapes %v of %q, %v of %q and %v cannot be broadcast", c.Shape, b.inModel(c), x.Shape, b.inModel(x), y.Shape)
	}
	return b.emit("npu.select", x.Type, shape, nil, c, x, y)
}

func (b *builder) clip(x *ir.Tensor, lo, hi float32) *ir.Tensor {
	return b.emit("npu.clip", x.Type, x.Shape, ir.Attrs{"clip": []float32{lo, hi}}, x)
}

// reduce reduces axes, which become 1. An integer sum is int32.
func (b *builder) reduce(kind string, x *ir.Tensor, axes []int) *ir.Tensor {
	var perm []int
	rows, size := 1, 1
	shape := slices.Clone(x.Shape)
	for i, d := range x.Shape {
		if !slices.Contains(axes, i) {
			perm = append(perm, i)
			rows *= d
		}
	}
	for _, a := range axes {
		perm = append(perm, a)
		size *= x.Shape[a]
		shape[a] = 1
	}
	flat := b.reshape(b.transpose(x, perm...), rows, size)
	typ := x.Type
	if kind == "sum" && !typ.Float() {
		typ = ir.Int32
	}
	return b.reshape(b.emit("npu.reduce", typ, []int{rows, 1}, ir.Attrs{"kind": kind}, flat), shape...)
}

// toInt64 widens int32.
func (b *builder) toInt64(x *ir.Tensor) *ir.Tensor {
	return b.joined(ir.Int64, x, b.scalar2("shr", x, 31))
}

// failure is what fail panics with; the caller of a rule recovers it.
type failure struct{ err *ir.Error }

// remedy is what the user can do about a rule that a model breaks, which follows from the kind of rule.
type remedy string

const (
	fixShapes   remedy = "make these shapes agree where the model is made, or give its inputs other sizes"
	fixTypes    remedy = "cast it, where the model is made, to a type that the operator takes"
	fixValue    remedy = "correct that attribute or constant where the model is made: the operator's definition does not allow it"
	fixScales   remedy = "quantize the model again: scales, zero points and sums of the operator must be in these bounds"
	replaceNode remedy = "replace the node by others that are supported (docs/operators.md, docs/tflite.md), or cut the model before it"
	makeSmaller remedy = "give the model's inputs smaller sizes, or cut the model before the node"
	exportAgain remedy = "export the model for inference"
)

// fail gives up the rule: the model is wrong, or beyond what the compiler does at all. t is the tensor that it is about, or that was
// computed of it; with nil it is the node's first.
func (b *builder) fail(r remedy, t *ir.Tensor, format string, args ...any) {
	e := b.n.Root().Errorf(format, args...).WithRemedy(string(r))
	e.Tensor = b.inModel(t)
	panic(failure{e})
}

// inModel is the name of the model's tensor that t is, or that t was computed of by the nodes of the rule so far.
func (b *builder) inModel(t *ir.Tensor) string {
	own := slices.Concat(b.n.Inputs, b.n.Outputs)
	for t != nil && !slices.Contains(own, t) {
		i := slices.IndexFunc(b.nodes, func(n *ir.Node) bool { return n.Outputs[0] == t })
		if i < 0 {
			break
		}
		t = b.nodes[i].Inputs[0]
	}
	if t == nil || !slices.Contains(own, t) {
		for _, t := range own {
			if t != nil {
				return t.Name
			}
		}
		return ""
	}
	return t.Name
}

// constInts are the values of an input that must be a constant.
func (b *builder) constInts(i int) []int {
	t := b.n.Input(i)
	if t == nil {
		return nil
	}
	b.needConst(t)
	if t.Type.Float() {
		b.fail(fixTypes, t, "input %d is %s, not an integer", i, t.Type)
	}
	var out []int
	for _, v := range ref.Ints(t.Type, t.Data, t.Elements()) {
		out = append(out, int(v))
	}
	return out
}

// needLater is needConst for a tensor whose values the rule does not look at.
func (b *builder) needLater(t *ir.Tensor) {
	if !b.later[t] {
		b.needConst(t)
	}
}

// needConst gives up unless t is a constant.
func (b *builder) needConst(t *ir.Tensor) {
	if !t.Const() {
		e := b.n.Errorf(MustBeConstant)
		e.Tensor, e.Remedy = t.Name, "fold it, or give it a value when importing"
		panic(failure{e})
	}
}

// constFloats are the values of an input that must be a constant, nil if it is left out.
func (b *builder) constFloats(i int) []float32 {
	t := b.n.Input(i)
	if t == nil {
		return nil
	}
	b.needConst(t)
	return numbers(t)
}

// numbers are a constant's values as fp32.
func numbers(t *ir.Tensor) []float32 {
	if t.Type.Float() {
		return ref.Floats(t.Type, t.Data, t.Elements())
	}
	var out []float32
	for _, v := range ref.Ints(t.Type, t.Data, t.Elements()) {
		if t.Type == ir.Uint64 {
			out = append(out, float32(uint64(v)))
			continue
		}
		out = append(out, float32(v))
	}
	return out
}

// axis is an axis that may count from the end.
func (b *builder) axis(a, rank int) int {
	if a < -rank || a >= rank {
		b.fail(fixValue, nil, "axis %d of %d", a, rank)
	}
	if a < 0 {
		a += rank
	}
	return a
}

// axes are the axes of a list, all different; all of them if the list is nil.
func (b *builder) axes(list []int, rank int) []int {
	var out []int
	if list == nil {
		for i := range rank {
			out = append(out, i)
		}
		return out
	}
	for _, a := range list {
		a = b.axis(a, rank)
		if slices.Contains(out, a) {
			b.fail(fixValue, nil, "axis %d is named twice", a)
		}
		out = append(out, a)
	}
	slices.Sort(out)
	return out
}

// elements is the product of a shape, which has a limit.
func (b *builder) elements(shape []int) int {
	n := ir.Elements(shape)
	if n < 0 {
		b.fail(makeSmaller, nil, "shape %v is too large", shape)
	}
	return n
}

// mostMade bounds the elements of a constant that a rule writes out, of which the model's file has none.
const mostMade = 1 << 24

// made is the number of elements of such a constant.
func (b *builder) made(shape ...int) int {
	n := ir.Elements(shape)
	if n < 0 || n > mostMade {
		b.fail(makeSmaller, nil, "it takes a constant of shape %v, and up to 2²⁴ elements are made", shape)
	}
	return n
}

var inf = float32(math.Inf(1))

// MustBeConstant is the Rule of the error about a tensor that the compiler needs to know.
const MustBeConstant = "must be a constant"
