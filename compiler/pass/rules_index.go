// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"math"
	"slices"

	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
)

// index32 is t, indexes of int32 or int64, as int32. What is no int32 becomes the nearest one, which names no element either.
func (b *builder) index32(t *ir.Tensor) *ir.Tensor {
	if t.Type != ir.Int64 {
		return b.cast(t, ir.Int32)
	}
	low, high := b.half(t, 0), b.half(t, 1)
	fits := b.op2("eq", high, b.scalar2("shr", low, 31))
	return b.choose(fits, low, b.op2("xor", b.scalar2("shr", high, 31), b.ints(ir.Int32, nil, math.MaxInt32)))
}

// flat are the places of elements in a flat tensor: a constant, base, and for each of a few axes an index times a stride. An
// index of none of the axis makes it a place that no tensor has, so that the lookup reports it.
type flat struct {
	*builder
	at, inside *ir.Tensor // int32 and bool; inside is nil for all
}

// add is another axis of so many elements that are stride apart. at are int32 or int64, from the end if below 0.
func (f *flat) add(at *ir.Tensor, elements, stride int) {
	at = f.index32(at)
	number := func(v int) *ir.Tensor { return f.ints(ir.Int32, nil, v) }
	at = f.choose(f.op2("lt", at, number(0)), f.op2("add", at, number(elements)), at)
	in := f.op2("and", f.op2("le", number(0), at), f.op2("lt", at, number(elements)))
	if f.inside == nil {
		f.inside = in
	} else {
		f.inside = f.op2("and", f.inside, in)
	}
	if stride != 1 {
		at = f.op2("mul", at, number(stride))
	}
	if f.at == nil {
		f.at = at
	} else {
		f.at = f.op2("add", f.at, at)
	}
}

// places are those of all.
func (f *flat) places() *ir.Tensor {
	return f.choose(f.inside, f.at, f.ints(ir.Int32, nil, math.MaxInt32))
}

// take gathers single elements along an axis, as GatherElements does, by computed indexes.
func (b *builder) take(x, at *ir.Tensor, axis int) *ir.Tensor {
	if len(at.Shape) != len(x.Shape) {
		b.fail(fixShapes, at, "indices %v for %v", at.Shape, x.Shape)
	}
	dense := make([]int, len(x.Shape))
	for i, s := len(x.Shape)-1, 1; i >= 0; i-- {
		dense[i] = s
		s *= x.Shape[i]
		if i != axis && at.Shape[i] > x.Shape[i] {
			b.fail(fixShapes, at, "indices %v for %v", at.Shape, x.Shape)
		}
	}
	if x.Elements() >= math.MaxInt32 {
		b.fail(makeSmaller, x, "%v has more elements than int32 counts", x.Shape)
	}
	base := make([]int, b.made(at.Shape...))
	for i := range base {
		for rest, a := i, len(at.Shape)-1; a >= 0; a-- {
			if a != axis {
				base[i] += rest % at.Shape[a] * dense[a]
			}
			rest /= at.Shape[a]
		}
	}
	f := flat{builder: b}
	if len(base) > 1 {
		f.at = b.ints(ir.Int32, at.Shape, base...)
	}
	f.add(at, x.Shape[axis], dense[axis])
	return b.gather(b.reshape(x, x.Elements()), f.places(), 0)
}

// takeND is GatherND by computed indexes.
func (b *builder) takeND(x, at *ir.Tensor, batch, depth int) *ir.Tensor {
	lists := at.Shape[:len(at.Shape)-1]
	batches, inner := b.elements(x.Shape[:batch]), b.elements(x.Shape[batch:batch+depth])
	if batches*inner >= math.MaxInt32 || depth == 0 {
		b.fail(makeSmaller, x, "lists of %d indexes for %v", depth, x.Shape)
	}
	f := flat{builder: b}
	if batches > 1 {
		base := make([]int, b.made(lists...))
		for i := range base {
			base[i] = i / (len(base) / batches) * inner
		}
		f.at = b.ints(ir.Int32, lists, base...)
	}
	for j := range depth {
		stride := b.elements(x.Shape[batch+j+1 : batch+depth])
		f.add(b.reshape(b.part(at, len(lists), j, 1), lists...), x.Shape[batch+j], stride)
	}
	return b.gather(b.reshape(x, append([]int{batches * inner}, x.Shape[batch+depth:]...)...), f.places(), 0)
}

// ruleTopK picks the largest elements, or the smallest, one after the other: a maximum, its first place, and that element leaves.
func ruleTopK(b *builder, n *ir.Node) []*ir.Tensor {
	x, ks := n.Inputs[0], b.constInts(1)
	if len(ks) != 1 || len(x.Shape) == 0 {
		b.fail(fixValue, x, "%d numbers k, of %v", len(ks), x.Shape)
	}
	k, axis := ks[0], b.axis(n.Attrs.Int("axis", -1), len(x.Shape))
	size := x.Shape[axis]
	if k < 1 || k > size {
		b.fail(fixValue, x, "the %d first of %d", k, size)
	}
	if k > mostSteps {
		b.fail(makeSmaller, x, "%d elements are picked one after the other, and %d is the most", k, mostSteps)
	}
	kind, out := "max", b.beyond(x.Type, true)
	if n.Attrs.Int("largest", 1) == 0 {
		kind, out = "min", b.beyond(x.Type, false)
	}
	at := make([]int, b.made(size))
	for i := range at {
		at[i] = i
	}
	places := b.ints(ir.Int32, []int{size}, at...)
	var indexes *ir.Tensor
	values := b.lastAxis(x, axis, func(x *ir.Tensor) *ir.Tensor {
		rank := len(x.Shape)
		one := append(slices.Clone(x.Shape[:rank-1]), 1)
		left, none := places, b.ints(ir.Int32, nil, size)
		var values, where []*ir.Tensor
		for i := range k {
			best := b.emit("npu.reduce", x.Type, one, ir.Attrs{"kind": kind}, x)
			first := b.emit("npu.reduce", ir.Int32, one, ir.Attrs{"kind": "min"}, b.choose(b.op2("eq", x, best), left, none))
			values, where = append(values, best), append(where, first)
			if i < k-1 {
				gone := b.op2("eq", places, first)
				x, left = b.choose(gone, out, x), b.choose(gone, none, left)
			}
		}
		indexes = b.concat(rank-1, where...)
		return b.concat(rank-1, values...)
	})
	indexes = b.lastAxisBack(indexes, axis)
	return []*ir.Tensor{b.reshapeCopy(values), b.toInt64(indexes)}[:max(len(n.Outputs), 1)]
}

// beyond is the smallest number of a type, or the largest, infinite if there is one.
func (b *builder) beyond(typ ir.Type, small bool) *ir.Tensor {
	if typ.Float() {
		if small {
			return b.floats(typ, nil, -inf)
		}
		return b.floats(typ, nil, inf)
	}
	lo, hi := typ.Range()
	if typ == ir.Uint64 {
		hi = -1 // all bits
	}
	if small {
		hi = lo
	}
	return b.constant(typ, nil, ref.PutInts(typ, []int64{hi}))
}

// ruleCompress takes the elements of an axis, or of all, where a constant says so.
func ruleCompress(b *builder, n *ir.Node) []*ir.Tensor {
	x, c := n.Inputs[0], n.Inputs[1]
	b.needConst(c)
	axis := 0
	if n.Attrs.Has("axis") {
		axis = b.axis(n.Attrs.Int("axis", 0), len(x.Shape))
	} else {
		x = b.reshape(x, x.Elements())
	}
	var at []int
	for i, v := range c.Data {
		if v != 0 {
			at = append(at, i)
		}
	}
	if len(c.Data) > x.Shape[axis] {
		b.fail(fixShapes, c, "%d conditions for axis %d of %v", len(c.Data), axis, x.Shape)
	}
	return one(b.gather(x, b.ints(ir.Int32, []int{len(at)}, at...), axis))
}

// ruleNonZero: how many there are is the shape of the result, so the input must be a constant.
func ruleNonZero(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	b.needConst(x)
	rank := len(x.Shape)
	lists := make([][]int, rank)
	count := 0
	for i, v := range ref.Doubles(x.Type, x.Data, x.Elements()) {
		if v == 0 {
			continue
		}
		count++
		for a, rest := rank-1, i; a >= 0; a-- {
			lists[a] = append(lists[a], rest%x.Shape[a])
			rest /= x.Shape[a]
		}
	}
	return one(b.ints(ir.Int64, []int{rank, count}, slices.Concat(lists...)...))
}

// likelihood is the loss of NegativeLogLikelihoodLoss: of logarithms x [N, C, …], the element of each that target [N, …] names.
func (b *builder) likelihood(n *ir.Node, x, target, weight *ir.Tensor) *ir.Tensor {
	if len(x.Shape) < 2 || !slices.Equal(target.Shape, slices.Delete(slices.Clone(x.Shape), 1, 2)) {
		b.fail(fixShapes, target, "targets %v for %v", target.Shape, x.Shape)
	}
	at := b.index32(target)
	var ignored *ir.Tensor
	if n.Attrs.Has("ignore_index") {
		ignored = b.op2("eq", at, b.ints(ir.Int32, nil, n.Attrs.Int("ignore_index", 0)))
		at = b.choose(ignored, b.ints(ir.Int32, nil, 0), at)
	}
	loss := b.op1("neg", b.reshape(b.take(x, b.reshape(at, slices.Insert(slices.Clone(target.Shape), 1, 1)...), 1), target.Shape...))
	w := weight
	if weight != nil {
		w = b.gather(weight, at, 0)
		loss = b.op2("mul", loss, w)
	}
	if ignored != nil {
		if w == nil {
			w = b.expand(b.like(x, 1), target.Shape)
		}
		w, loss = b.choose(ignored, b.like(x, 0), w), b.choose(ignored, b.like(x, 0), loss)
	}
	all := b.axes(nil, len(target.Shape))
	switch r := n.Attrs.Str("reduction", "mean"); {
	case r == "none":
		return loss
	case r == "sum":
		return b.reshape(b.fold("sum", loss, all))
	case r != "mean":
		b.fail(fixValue, x, "reduction %q", r)
	case w == nil:
		return b.reshape(b.reduce("mean", loss, all))
	}
	return b.reshape(b.op2("div", b.fold("sum", loss, all), b.fold("sum", w, all)))
}

func ruleLikelihood(b *builder, n *ir.Node) []*ir.Tensor {
	return one(b.reshapeCopy(b.likelihood(n, n.Inputs[0], n.Inputs[1], n.Input(2))))
}

func ruleCrossEntropy(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	if len(x.Shape) < 2 {
		b.fail(fixShapes, x, "scores %v", x.Shape)
	}
	p := b.logSoftmax(x, 1)
	return []*ir.Tensor{b.reshapeCopy(b.likelihood(n, p, n.Inputs[1], n.Input(2))), b.reshapeCopy(p)}
}

// ruleTensorScatter writes update into a cache, along an axis, from an index of each batch on, which is computed: of each row of the
// result it looks up where it comes from.
func ruleTensorScatter(b *builder, n *ir.Node) []*ir.Tensor {
	past, update := n.Inputs[0], n.Inputs[1]
	rank := len(past.Shape)
	axis := b.axis(n.Attrs.Int("axis", -2), rank)
	if axis == 0 || len(update.Shape) != rank {
		b.fail(fixValue, update, "axis %d of %v, and an update of %v", axis, past.Shape, update.Shape)
	}
	rows, fresh, batch := past.Shape[axis], update.Shape[axis], past.Shape[0]
	if !slices.Equal(slices.Delete(slices.Clone(past.Shape), axis, axis+1), slices.Delete(slices.Clone(update.Shape), axis, axis+1)) || fresh > rows {
		b.fail(fixShapes, update, "an update of %v for %v", update.Shape, past.Shape)
	}
	count := make([]int, b.made(rows))
	for i := range count {
		count[i] = i
	}
	number := func(v int) *ir.Tensor { return b.ints(ir.Int32, nil, v) }
	own := b.ints(ir.Int32, []int{1, rows}, count...)
	first := b.expand(number(0), []int{batch, 1})
	if t := n.Input(2); t != nil {
		first = b.reshape(b.index32(t), batch, 1)
	}
	d := b.op2("sub", own, first) // places of the update
	switch mode := n.Attrs.Str("mode", "linear"); mode {
	case "linear":
	case "circular":
		d = b.choose(b.op2("lt", d, number(0)), b.op2("add", d, number(rows)), d)
	default:
		b.fail(fixValue, update, "mode %q", mode)
	}
	new := b.op2("and", b.op2("le", number(0), d), b.op2("lt", d, number(fresh)))
	from := b.choose(new, b.op2("add", d, number(rows)), own) // [batch, rows] of what is there and then the update
	batches := make([]int, batch)
	for i := range batches {
		batches[i] = i * (rows + fresh)
	}
	from = b.op2("add", from, b.ints(ir.Int32, []int{batch, 1}, batches...))
	// The axis goes behind the batch's, so that both are one.
	perm := []int{0, axis}
	for i := 1; i < rank; i++ {
		if i != axis {
			perm = append(perm, i)
		}
	}
	all := b.transpose(b.concat(axis, past, update), perm...)
	y := b.gather(b.reshape(all, append([]int{batch * (rows + fresh)}, all.Shape[2:]...)...), from, 0)
	return one(b.reshapeCopy(b.transpose(y, inverse(perm)...)))
}

func indexRules() map[string]rule {
	return map[string]rule{
		"TopK": ruleTopK, "Compress": ruleCompress, "NonZero": ruleNonZero, "NegativeLogLikelihoodLoss": ruleLikelihood,
		"SoftmaxCrossEntropyLoss": ruleCrossEntropy, "TensorScatter": ruleTensorScatter,
	}
}
