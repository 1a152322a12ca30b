// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"slices"

	"npuemu/compiler/ir"
)

// mostRounds bounds how often scatter combines a row.
const mostRounds = 64

// scatter puts row i of updates into row at[i] of x, or combines both, in order; both are [rows, elements]. It gathers the result from
// both, one behind the other; rows that are combined more than once take a round for each.
func (b *builder) scatter(x, updates *ir.Tensor, at []int, reduction string) *ir.Tensor {
	ops := map[string]string{"add": "add", "mul": "mul", "max": "max", "min": "min", "none": ""}
	op, ok := ops[reduction]
	if !ok {
		b.fail(replaceNode, nil, "reduction %q is not supported", reduction)
	}
	if x.Type != updates.Type {
		b.fail(fixTypes, updates, "updates are %s, not %s", updates.Type, x.Type)
	}
	list := func(v []int) *ir.Tensor { return b.ints(ir.Int32, []int{len(v)}, v...) }
	rows := x.Shape[0]
	for round := 0; len(at) > 0; round++ {
		if round == mostRounds {
			b.fail(makeSmaller, updates, "a row is combined with more than %d updates, each of which is written out", mostRounds)
		}
		from := make([]int, b.made(rows))
		for i := range from {
			from[i] = i
		}
		if op == "" { // the last one stays
			for i, r := range at {
				from[r] = rows + i
			}
			return b.gather(b.concat(0, x, updates), list(from), 0)
		}
		var now, later, to, rest []int // numbers of updates, and their rows
		for i, r := range at {
			if from[r] == r {
				from[r] = rows + len(now)
				now, to = append(now, i), append(to, r)
			} else {
				later, rest = append(later, i), append(rest, r)
			}
		}
		part := updates
		if len(later) > 0 {
			part = b.gather(updates, list(now), 0)
		}
		x = b.gather(b.concat(0, x, b.op2(op, b.gather(x, list(to), 0), part)), list(from), 0)
		if len(later) > 0 {
			updates = b.gather(updates, list(later), 0)
		}
		at = rest
	}
	return x
}

// ruleScatterND: with constant indices, of rows of the axes that these do not name.
func ruleScatterND(b *builder, n *ir.Node) []*ir.Tensor {
	x, index, updates := n.Inputs[0], b.constInts(1), n.Inputs[2]
	lists := n.Inputs[1].Shape
	k := lists[len(lists)-1]
	rows, size := b.elements(x.Shape[:k]), b.elements(x.Shape[k:])
	at := make([]int, b.elements(lists[:len(lists)-1]))
	for i := range at {
		for d, v := range index[i*k : (i+1)*k] {
			if v < 0 {
				v += x.Shape[d]
			}
			if v < 0 || v >= x.Shape[d] {
				b.fail(fixValue, n.Inputs[1], "index %d of axis %d of %v, which has %d elements", index[i*k+d], d, x.Shape, x.Shape[d])
			}
			at[i] = at[i]*x.Shape[d] + v
		}
	}
	if updates.Elements() != len(at)*size {
		b.fail(fixShapes, updates, "updates %v for indices %v of %v", updates.Shape, lists, x.Shape)
	}
	y := b.scatter(b.reshape(x, rows, size), b.reshape(updates, len(at), size), at, n.Attrs.Str("reduction", "none"))
	return one(b.reshapeCopy(b.reshape(y, x.Shape...)))
}

// ruleScatterElements: with constant indices, of single elements.
func ruleScatterElements(b *builder, n *ir.Node) []*ir.Tensor {
	x, index, updates := n.Inputs[0], n.Inputs[1], n.Inputs[2]
	if !slices.Equal(index.Shape, updates.Shape) {
		b.fail(fixShapes, updates, "updates %v for indices %v", updates.Shape, index.Shape)
	}
	y := b.scatter(b.reshape(x, x.Elements(), 1), b.reshape(updates, updates.Elements(), 1), b.flatIndices(n), n.Attrs.Str("reduction", "none"))
	return one(b.reshapeCopy(b.reshape(y, x.Shape...)))
}

// flatIndices are the places, in the flat input, of the elements that constant indices along an axis name.
func (b *builder) flatIndices(n *ir.Node) []int {
	x, at := n.Inputs[0], n.Inputs[1]
	axis := b.axis(n.Attrs.Int("axis", 0), len(x.Shape))
	index := b.constInts(1)
	dense := make([]int, len(x.Shape))
	for i, s := len(x.Shape)-1, 1; i >= 0; i-- {
		dense[i] = s
		s *= x.Shape[i]
	}
	if len(at.Shape) != len(x.Shape) {
		b.fail(fixShapes, x, "indices %v for %v", at.Shape, x.Shape)
	}
	flat := make([]int, len(index))
	for i := range flat {
		rest := i
		for a := len(at.Shape) - 1; a >= 0; a-- {
			k := rest % at.Shape[a]
			rest /= at.Shape[a]
			if a == axis {
				if k = index[i]; k < 0 {
					k += x.Shape[a]
				}
			}
			if k < 0 || k >= x.Shape[a] {
				b.fail(fixValue, at, "index %d of axis %d of %v, which has %d elements", index[i], axis, x.Shape, x.Shape[axis])
			}
			flat[i] += k * dense[a]
		}
	}
	return flat
}

// ruleGatherElements is a gather of the flat tensor.
func ruleGatherElements(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	if !n.Inputs[1].Const() {
		return one(b.take(x, n.Inputs[1], b.axis(n.Attrs.Int("axis", 0), len(x.Shape))))
	}
	return one(b.gather(b.reshape(x, x.Elements()), b.ints(ir.Int32, n.Inputs[1].Shape, b.flatIndices(n)...), 0))
}

func scatterRules() map[string]rule {
	return map[string]rule{"GatherElements": ruleGatherElements, "ScatterElements": ruleScatterElements, "Scatter": ruleScatterElements, "ScatterND": ruleScatterND}
}
