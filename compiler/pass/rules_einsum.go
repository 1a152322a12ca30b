// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"slices"
	"strings"

	"npuemu/compiler/ir"
)

// einsum is a tensor whose axes have letters; those of an ellipsis are numbers below 0.
type einsum struct {
	*builder
	t       *ir.Tensor
	letters []rune
}

// ruleEinsum multiplies the operands from left to right: what two of them share, and nothing behind them needs, is summed by a product
// of matrices.
func ruleEinsum(b *builder, n *ir.Node) []*ir.Tensor {
	equation := strings.ReplaceAll(n.Attrs.Str("equation", ""), " ", "")
	left, right, explicit := strings.Cut(equation, "->")
	terms := strings.Split(left, ",")
	if len(terms) != len(n.Inputs) {
		b.fail(fixValue, nil, "equation %q has %d terms for %d inputs", equation, len(terms), len(n.Inputs))
	}
	open, count, size := 0, map[rune]int{}, map[rune]int{}
	operands := make([]einsum, len(terms))
	for i, term := range terms {
		x := n.Inputs[i]
		e := einsum{b, x, b.letters(term, len(x.Shape), x)}
		for k, l := range e.letters {
			if d := x.Shape[k]; size[l] <= 1 && (d != 1 || size[l] == 0) {
				size[l] = d
			}
			count[l]++
			open = max(open, -int(l))
		}
		operands[i] = e
	}
	var out []rune
	if explicit {
		rank := 0
		if strings.Contains(right, "...") {
			rank = open + len(right) - 3
		} else {
			rank = len(right)
		}
		out = b.letters(right, rank, nil)
	} else {
		for l := -open; l < 0; l++ {
			out = append(out, rune(l))
		}
		var rest []rune
		for l, c := range count {
			if l > 0 && c == 1 {
				rest = append(rest, l)
			}
		}
		slices.Sort(rest)
		out = append(out, rest...)
	}
	for i, l := range out {
		if count[l] == 0 || slices.Contains(out[:i], l) {
			b.fail(fixValue, nil, "equation %q gives an axis that no term has, or one twice", equation)
		}
	}
	for i := range operands {
		operands[i].diagonal()
		operands[i].spread(size, equation)
	}
	acc := operands[0]
	for i, y := range operands[1:] {
		needed := slices.Clone(out)
		for _, o := range operands[i+2:] {
			needed = append(needed, o.letters...)
		}
		acc = acc.times(y, needed)
	}
	acc.sum(out)
	return one(b.reshapeCopy(acc.ordered(out)))
}

// letters are those of a term for so many axes.
func (b *builder) letters(term string, rank int, x *ir.Tensor) []rune {
	before, behind, dots := strings.Cut(term, "...")
	n := len(before) + len(behind)
	if rank < n || !dots && rank != n || strings.ContainsFunc(before+behind, func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') }) {
		b.fail(fixValue, x, "the term %q for %d axes", term, rank)
	}
	out := []rune(before)
	for i := n; i < rank; i++ {
		out = append(out, rune(i-rank))
	}
	return append(out, []rune(behind)...)
}

// diagonal makes axes of one letter one.
func (e *einsum) diagonal() {
	for i := 0; i < len(e.letters); i++ {
		j := slices.Index(e.letters[:i], e.letters[i])
		if j < 0 {
			continue
		}
		rank := len(e.letters)
		d := e.t.Shape[i]
		if e.t.Shape[j] != d {
			e.fail(fixShapes, e.t, "axes %d and %d of %v have one letter", j, i, e.t.Shape)
		}
		perm := []int{j, i}
		for a := range rank {
			if a != i && a != j {
				perm = append(perm, a)
			}
		}
		t := e.transpose(e.t, perm...)
		at := make([]int, e.made(d))
		for k := range at {
			at[k] = k * (d + 1)
		}
		t = e.gather(e.reshape(t, append([]int{d * d}, t.Shape[2:]...)...), e.ints(ir.Int32, []int{d}, at...), 0)
		letters := []rune{e.letters[j]}
		for _, a := range perm[2:] {
			letters = append(letters, e.letters[a])
		}
		e.t, e.letters = t, letters
		i = -1
	}
}

// spread gives each axis the size of its letter.
func (e *einsum) spread(size map[rune]int, equation string) {
	shape := slices.Clone(e.t.Shape)
	for i, l := range e.letters {
		if shape[i] != size[l] && shape[i] != 1 {
			e.fail(fixShapes, e.t, "equation %q: an axis of %v is %d, and %d elsewhere", equation, e.t.Shape, shape[i], size[l])
		}
		shape[i] = size[l]
	}
	e.elements(shape)
	e.t = e.expand(e.t, shape)
}

// sum adds up the axes that are not needed.
func (e *einsum) sum(needed []rune) {
	var axes, shape []int
	var letters []rune
	for i, l := range e.letters {
		if !slices.Contains(needed, l) {
			axes = append(axes, i)
		} else {
			letters, shape = append(letters, l), append(shape, e.t.Shape[i])
		}
	}
	if len(axes) > 0 {
		e.t, e.letters = e.reshape(e.fold("sum", e.t, axes), shape...), letters
	}
}

// ordered is the tensor with its axes in that order.
func (e *einsum) ordered(letters []rune) *ir.Tensor {
	perm := make([]int, len(letters))
	for i, l := range letters {
		perm[i] = slices.Index(e.letters, l)
	}
	return e.transpose(e.t, perm...)
}

func (e *einsum) times(y einsum, needed []rune) einsum {
	e.sum(slices.Concat(needed, y.letters))
	y.sum(slices.Concat(needed, e.letters))
	var batch, inner, rows, cols []rune
	for _, l := range e.letters {
		switch {
		case !slices.Contains(y.letters, l):
			rows = append(rows, l)
		case slices.Contains(needed, l):
			batch = append(batch, l)
		default:
			inner = append(inner, l)
		}
	}
	for _, l := range y.letters {
		if !slices.Contains(e.letters, l) {
			cols = append(cols, l)
		}
	}
	a, c := e.ordered(slices.Concat(batch, rows, inner)), y.ordered(slices.Concat(batch, inner, cols))
	sizes := func(t *ir.Tensor, from, to int) []int { return t.Shape[from:to] }
	nb, nr, ni := len(batch), len(rows), len(inner)
	group, m, k := sizes(a, 0, nb), sizes(a, nb, nb+nr), sizes(a, nb+nr, nb+nr+ni)
	n := sizes(c, nb+ni, len(c.Shape))
	out := einsum{e.builder, nil, slices.Concat(batch, rows, cols)}
	g, mm, kk, nn := e.elements(group), e.elements(m), e.elements(k), e.elements(n)
	if ni == 0 {
		out.t = e.op2("mul", e.reshape(a, g, mm, 1), e.reshape(c, g, 1, nn))
	} else {
		out.t = e.matmul(e.reshape(a, g, mm, kk), e.reshape(c, g, kk, nn), product{typ: a.Type, attrs: ir.Attrs{"rounding": "none"}})
	}
	out.t = e.reshape(out.t, slices.Concat(group, m, n)...)
	return out
}
