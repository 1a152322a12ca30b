// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"math"
	"slices"

	"npuemu/core/isa"
)

// A view is a tensor seen through other dimensions than its own: an element of it for
// each index of a shape, of which strides says how far apart, in bytes, neighbours
// are; 0 is the same element again, as broadcasting wants it, and strides below 0 go back.
type view struct {
	at      Place
	strides []int
	size    int // bytes of an element
}

// strides returns those of a dense tensor.
func strides(shape []int, size int) []int {
	s := make([]int, len(shape))
	for i := len(shape) - 1; i >= 0; i-- {
		s[i] = size
		size *= shape[i]
	}
	return s
}

// denseView is a tensor as it lies in memory.
func denseView(at Place, shape []int, size int) view {
	return view{at, strides(shape, size), size}
}

// is reports whether v is a dense tensor of that shape.
func (v view) is(shape []int) bool {
	for i, s := range strides(shape, v.size) {
		if shape[i] > 1 && v.strides[i] != s {
			return false
		}
	}
	return true
}

// broadcast is the view of a dense tensor of shape from as one of shape to.
func broadcast(at Place, from, to []int, size int) view {
	v := view{at, make([]int, len(to)), size}
	own := strides(from, size)
	for i := range from {
		if from[i] > 1 {
			v.strides[len(to)-len(from)+i] = own[i]
		}
	}
	return v
}

// collapse merges dimensions that are one in all views, and drops those of 1.
func collapse(shape []int, views ...*view) []int {
	if len(shape) == 0 {
		shape = []int{1}
		for _, v := range views {
			v.strides = []int{v.size}
		}
		return shape
	}
	out := []int{shape[0]}
	to := make([][]int, len(views))
	for k, v := range views {
		to[k] = []int{v.strides[0]}
	}
	for i := 1; i < len(shape); i++ {
		last := len(out) - 1
		one := true
		for k, v := range views {
			one = one && (out[last] == 1 || shape[i] == 1 || to[k][last] == v.strides[i]*shape[i])
		}
		for k, v := range views {
			switch {
			case !one:
				to[k] = append(to[k], v.strides[i])
			case shape[i] != 1:
				to[k][last] = v.strides[i]
			}
		}
		if one {
			out[last] *= shape[i]
		} else {
			out = append(out, shape[i])
		}
	}
	for k, v := range views {
		v.strides = to[k]
	}
	return out
}

// A box is part of a shape: from start, count in each dimension.
type box struct{ start, count []int }

func (b box) elements() int {
	n := 1
	for _, c := range b.count {
		n *= c
	}
	return n
}

// boxes cuts a shape into boxes of at most limit elements that are dense where the shape
// is dense, in order.
func boxes(shape []int, limit int, f func(box)) {
	inner, cut := 1, len(shape)
	for cut > 0 && inner*shape[cut-1] <= limit {
		cut--
		inner *= shape[cut]
	}
	b := box{make([]int, len(shape)), slices.Clone(shape)}
	if cut == 0 {
		f(b)
		return
	}
	chunk := max(1, limit/inner)
	var walk func(d int)
	walk = func(d int) {
		if d == cut-1 {
			for i := 0; i < shape[d]; i += chunk {
				b.start[d], b.count[d] = i, min(chunk, shape[d]-i)
				f(b)
			}
			return
		}
		for i := range shape[d] {
			b.start[d], b.count[d] = i, 1
			walk(d + 1)
		}
	}
	walk(0)
}

// move copies the elements of box b between v and local memory, where they are dense.
func (c *code) move(store bool, at uint32, v view, b box) {
	from := v.at
	var count, step []int // without dimensions of 1, and merged
	for i, n := range b.count {
		from.Offset += uint64(b.start[i] * v.strides[i])
		if n == 1 {
			continue
		}
		if k := len(count) - 1; k >= 0 && step[k] == v.strides[i]*n {
			count[k] *= n
			step[k] = v.strides[i]
			continue
		}
		count, step = append(count, n), append(step, v.strides[i])
	}
	row := v.size
	if k := len(count) - 1; k >= 0 && step[k] == v.size {
		row *= count[k]
		count, step = count[:k], step[:k]
	}
	c.moveRows(store, at, from, row, count, step)
}

// moveRows moves rows of so many bytes, one for each index of count.
func (c *code) moveRows(store bool, at uint32, from Place, row int, count, step []int) {
	k := len(count)
	fits := func(i int) bool { return count[i] <= math.MaxUint16 && step[i] >= 0 && step[i] <= math.MaxInt32 }
	single := row > math.MaxUint16 || k > 0 && !fits(k-1)
	switch {
	case k > 0 && count[k-1] > math.MaxUint16 && step[k-1] >= 0:
		// A dimension that 16 bits do not count: in parts.
		const part = 1 << 15
		n := count[k-1]
		for first := 0; first < n; first += part {
			m := min(part, n-first)
			c.walk(count[:k-1], step[:k-1], func(i int, p Place) {
				c.moveRows(store, at+uint32((i*n+first)*row), p.plus(first*step[k-1]), row, []int{m}, step[k-1:])
			}, from)
		}
		return
	case k > 2 || k > 0 && single || k == 2 && !fits(0):
		// The outermost dimension one by one.
		inner := row
		for _, n := range count[1:] {
			inner *= n
		}
		for i := range count[0] {
			c.moveRows(store, at+uint32(i*inner), Place{from.Binding, from.Offset + uint64(i*step[0])}, row, count[1:], step[1:])
		}
		return
	}
	l := isa.Load{Binding: from.Binding, Offset: from.Offset, Local: at, NX: uint32(row), NY: 1, NZ: 1}
	if k > 0 {
		l.NY, l.StrideY, l.LocalStride = uint16(count[k-1]), uint32(step[k-1]), uint16(row)
	}
	if k > 1 {
		l.NZ, l.StrideZ = uint16(count[0]), uint32(step[0])
	}
	if store {
		c.b.Emit(isa.Store(l))
	} else {
		c.b.Emit(l)
	}
}

// walk calls f for each index of count, with its number and its place.
func (c *code) walk(count, step []int, f func(i int, p Place), from Place) {
	if len(count) == 0 {
		f(0, from)
		return
	}
	inner := 1
	for _, n := range count[1:] {
		inner *= n
	}
	for i := range count[0] {
		c.walk(count[1:], step[1:], func(k int, p Place) { f(i*inner+k, p) }, Place{from.Binding, from.Offset + uint64(i*step[0])})
	}
}

// copyView copies in to out, both seen as shape.
func (c *code) copyView(shape []int, in, out view) {
	for _, n := range shape {
		if n == 0 {
			return
		}
	}
	shape = collapse(shape, &in, &out)
	if c.turn(shape, in, out) {
		return
	}
	total := box{count: shape}.elements() * in.size
	room := int(c.b.Target().SpadSize) - c.spad
	limit, n := min(room/2&^(align-1), mostTile), 2
	if total <= limit {
		limit, n = total, 1
	}
	buf := c.slots(n, limit)
	boxes(shape, limit/in.size, func(b box) {
		at := buf.take()
		c.move(false, at, in, b)
		c.move(true, at, out, b)
	})
}

// turn is copyView by TRANSPOSE (§5.6.26), if the core has it and elements that lie apart in one of the views are what makes the
// copy slow: each tile is loaded in the order of in's addresses, and turned around in the scratchpad.
func (c *code) turn(shape []int, in, out view) bool {
	last := len(shape) - 1
	if c.b.Target().Features&isa.FeatureGather == 0 || last < 1 || in.strides[last] == in.size || out.strides[last] != out.size {
		return false
	}
	order := make([]int, len(shape)) // of in's addresses, the farthest apart first
	for i := range order {
		order[i] = i
		if in.strides[i] <= 0 {
			return false
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return in.strides[b] - in.strides[a] })
	if in.strides[order[last]] != in.size {
		return false
	}
	room := (int(c.b.Target().SpadSize) - c.spad - 8*align) / 4
	limit := min(room&^(align-1), mostTile) / in.size
	total, n := box{count: shape}.elements(), 2
	if total <= limit {
		limit, n = total, 1
	}
	var parts []box
	fits := limit > 0
	boxes(shape, limit, func(b box) {
		wide := 0
		for _, k := range b.count {
			if fits = fits && k <= math.MaxUint16; k > 1 {
				wide++
			}
		}
		fits = fits && wide <= isa.Dims
		parts = append(parts, box{slices.Clone(b.start), slices.Clone(b.count)})
	})
	if !fits {
		return false
	}
	from, to := c.slots(n, limit*in.size), c.slots(n, limit*in.size)
	near := view{at: in.at, size: in.size, strides: permute(in.strides, order)}
	for _, b := range parts {
		x, y := from.take(), to.take()
		c.move(false, x, near, box{permute(b.start, order), permute(b.count, order)})
		s, t := isa.Shape{N: [isa.Dims]uint16{1, 1, 1, 1}}, isa.Transpose{Size: uint16(in.size), X: x, Out: y}
		local := make([]int, len(shape)) // strides of the tile as it was loaded
		step := in.size
		for _, d := range slices.Backward(order) {
			local[d] = step
			step *= b.count[d]
		}
		// The longest dimension is the last: the vector engine takes a cycle for each row of it at least (§13.4.3).
		step, wide := in.size, []turned{}
		for d, n := range slices.Backward(b.count) {
			if n > 1 {
				wide = append(wide, turned{n, local[d], step})
			}
			step *= n
		}
		slices.SortStableFunc(wide, func(a, b turned) int { return b.count - a.count })
		for k, w := range wide {
			d := isa.Dims - 1 - k
			s.N[d], s.OutStride[d], t.XStride[d] = uint16(w.count), uint32(w.to), uint32(w.from)
		}
		c.b.Prepare(s)
		c.b.Emit(t)
		c.move(true, y, out, b)
	}
	return true
}

// turned is a dimension of a TRANSPOSE: how many elements, and the bytes between them where they are read and stored.
type turned struct{ count, from, to int }

// permute is list in that order.
func permute(list, order []int) []int {
	out := make([]int, len(order))
	for i, d := range order {
		out[i] = list[d]
	}
	return out
}

// mostTile is the size of the largest tile: larger ones overlap less with what is behind them.
const mostTile = 1 << 20
