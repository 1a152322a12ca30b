// SPDX-License-Identifier: Apache-2.0

package core

import (
	"encoding/binary"
	"slices"

	"npuemu/core/isa"
)

// transpose copies elements to other places (§5.6.26).
func (c *unit) transpose(i isa.Transpose) *Fault {
	if v := i.Check(*c.limits); v != nil {
		return violation(0, v)
	}
	s := &c.limits.Setup.Shape
	all := &c.axes
	for d := range all {
		all[d] = axis{n: int(s.N[d]), x: int(i.XStride[d]), out: int(s.OutStride[d])}
	}
	x, out, size := int(i.X), int(i.Out), int(i.Size)
	if c.poison.Some() {
		return c.transposePoisoned(all, x, out, size)
	}
	g := grid{axes: all[:], size: size}
	g.simplify()
	for o := range g.outer(0).n {
		for p := range g.outer(1).n {
			from, to := x+o*g.outer(0).x+p*g.outer(1).x, out+o*g.outer(0).out+p*g.outer(1).out
			if !g.plane(c.spad[from:], c.spad[to:], c.stopped) {
				return nil // the program ends anyway
			}
		}
	}
	// What lies between the elements is told to have changed too, which is no harm.
	c.poison.Overwritten(uint64(out), uint64(g.extent()))
	return nil
}

// transposePoisoned is transpose, one element after the other: it looks at all that are read before it stores the first.
func (c *unit) transposePoisoned(a *[isa.Dims]axis, x, out, size int) *Fault {
	for store := range 2 {
		for i0 := range a[0].n {
			for i1 := range a[1].n {
				for i2 := range a[2].n {
					if c.stopped() {
						return nil // the program ends anyway
					}
					from := x + i0*a[0].x + i1*a[1].x + i2*a[2].x
					to := out + i0*a[0].out + i1*a[1].out + i2*a[2].out
					if store == 0 {
						if f := c.poisonedRows(from, a[3].n, a[3].x, size); f != nil {
							return f
						}
						continue
					}
					for i3 := range a[3].n {
						c.move(to+i3*a[3].out, from+i3*a[3].x, size)
					}
				}
			}
		}
	}
	return nil
}

// axis is a dimension of a TRANSPOSE: how many elements, and the bytes between them where they are read and stored.
type axis struct{ n, x, out int }

// grid is the elements of a TRANSPOSE, of size bytes each. The last of axes is the fastest.
type grid struct {
	axes []axis
	size int
	free bool // no two results have a byte in common: any order will do
}

// extent is how many bytes there are from the first to the last that g stores.
func (g *grid) extent() int {
	n := g.size
	for _, a := range g.axes {
		n += (a.n - 1) * a.out
	}
	return n
}

// simplify makes g one of fewer and larger elements that stores the same bytes. Where results overlap the order stays, since
// the last one wins.
func (g *grid) simplify() {
	g.axes = slices.DeleteFunc(g.axes, func(a axis) bool { return a.n == 1 })
	if g.free = g.apart(); g.free {
		slices.SortStableFunc(g.axes, func(a, b axis) int { return b.out - a.out })
	}
	// An axis that goes on where the one behind it ends is one with it.
	for k := len(g.axes) - 1; k > 0; k-- {
		a, b := g.axes[k-1], g.axes[k]
		if a.x == b.n*b.x && a.out == b.n*b.out {
			g.axes[k-1].n, g.axes[k-1].x, g.axes[k-1].out = a.n*b.n, b.x, b.out
			g.axes = slices.Delete(g.axes, k, k+1)
		}
	}
	last := len(g.axes) - 1
	if last >= 0 && g.axes[last].x == g.size && g.axes[last].out == g.size {
		g.size *= g.axes[last].n
		g.axes = g.axes[:last]
		last--
	}
	// Of the two axes that plane takes, one has its results close together, the other its operands.
	for k := range last - 1 {
		if g.free && g.axes[k].x < g.axes[last-1].x {
			g.axes[k], g.axes[last-1] = g.axes[last-1], g.axes[k]
		}
	}
}

// apart reports whether no two results have a byte in common, as far as can be told from their distances.
func (g *grid) apart() bool {
	var sorted [isa.Dims]axis
	axes := sorted[:copy(sorted[:], g.axes)]
	slices.SortFunc(axes, func(a, b axis) int { return a.out - b.out })
	end := g.size
	for _, a := range axes {
		if a.out < end {
			return false
		}
		end += (a.n - 1) * a.out
	}
	return true
}

// outer returns axis k of the two that plane does not take.
func (g *grid) outer(k int) axis {
	if at := len(g.axes) - isa.Dims + k; at >= 0 {
		return g.axes[at]
	}
	return axis{n: 1}
}

// Blocks of a plane: what is read and stored meanwhile stays in the first level of the cache. Both are multiples of tile.
const (
	blockRows = 16
	blockLine = 512
)

// plane copies the elements of the last two axes from x to out, which begin with the first of them. It asks stopped now and
// then, and reports false if that was true.
func (g *grid) plane(x, out []byte, stopped func() bool) bool {
	a, b := axis{n: 1}, axis{n: 1}
	if k := len(g.axes); k > 0 {
		b = g.axes[k-1]
	}
	if k := len(g.axes); k > 1 {
		a = g.axes[k-2]
	}
	rows, most := 1, b.n
	if g.free {
		if a.n > b.n {
			a, b = b, a
		}
		rows, most = blockRows, blockLine
	}
	for i := 0; i < a.n; i += rows {
		for k := 0; k < b.n; k += most {
			if stopped() {
				return false
			}
			part, along := a, b
			part.n, along.n = min(rows, a.n-i), min(most, b.n-k)
			g.block(x[i*a.x+k*b.x:], out[i*a.out+k*b.out:], part, along)
		}
	}
	return true
}

// block is plane for a block of it.
func (g *grid) block(x, out []byte, a, b axis) {
	if g.free && g.size == 1 && a.n >= tile {
		switch {
		case a.out == 1 && b.x == 1:
			turn(x, a.x, out, b.out, a.n, b.n)
			return
		case a.x == 1 && b.out == 1:
			turn(x, b.x, out, a.out, b.n, a.n)
			return
		}
	}
	for i := range a.n {
		line(x[i*a.x:], b.x, out[i*a.out:], b.out, b.n, g.size)
	}
}

// line copies n elements of size bytes, so many bytes apart.
func line(x []byte, xStep int, out []byte, outStep, n, size int) {
	switch size {
	case 1:
		switch {
		case xStep == 1:
			for k, v := range x[:n] {
				out[k*outStep] = v
			}
		case outStep == 1:
			for k := range out[:n] {
				out[k] = x[k*xStep]
			}
		default:
			for k := range n {
				out[k*outStep] = x[k*xStep]
			}
		}
	case 2:
		for k := range n {
			binary.NativeEndian.PutUint16(out[k*outStep:], binary.NativeEndian.Uint16(x[k*xStep:]))
		}
	case 4:
		for k := range n {
			binary.NativeEndian.PutUint32(out[k*outStep:], binary.NativeEndian.Uint32(x[k*xStep:]))
		}
	case 8:
		for k := range n {
			binary.NativeEndian.PutUint64(out[k*outStep:], binary.NativeEndian.Uint64(x[k*xStep:]))
		}
	default:
		for k := range n {
			copy(out[k*outStep:][:size], x[k*xStep:][:size])
		}
	}
}

// tile is how many bytes a register has: so many rows of so many are turned at once.
const tile = 8

// turn stores byte i of row j of x, of which there are rows of n, step bytes apart, as byte j of row i of out.
func turn(x []byte, step int, out []byte, outStep, rows, n int) {
	whole, wide := rows&^(tile-1), n&^(tile-1)
	for j := 0; j < whole; j += tile {
		for i := 0; i < wide; i += tile {
			turnTile(x[j*step+i:], step, out[i*outStep+j:], outStep)
		}
	}
	for i := wide; i < n; i++ {
		line(x[i:], step, out[i*outStep:], 1, whole, 1)
	}
	for j := whole; j < rows; j++ {
		line(x[j*step:], 1, out[j:], outStep, n, 1)
	}
}

// turnTile is turn for one tile: halves of it change places, then halves of those.
func turnTile(x []byte, step int, out []byte, outStep int) {
	row := func(j int) uint64 { return binary.LittleEndian.Uint64(x[j*step:]) }
	r0, r4 := swapped(row(0), row(4), 32, 0x00000000ffffffff)
	r1, r5 := swapped(row(1), row(5), 32, 0x00000000ffffffff)
	r2, r6 := swapped(row(2), row(6), 32, 0x00000000ffffffff)
	r3, r7 := swapped(row(3), row(7), 32, 0x00000000ffffffff)
	r0, r2 = swapped(r0, r2, 16, 0x0000ffff0000ffff)
	r1, r3 = swapped(r1, r3, 16, 0x0000ffff0000ffff)
	r4, r6 = swapped(r4, r6, 16, 0x0000ffff0000ffff)
	r5, r7 = swapped(r5, r7, 16, 0x0000ffff0000ffff)
	r0, r1 = swapped(r0, r1, 8, 0x00ff00ff00ff00ff)
	r2, r3 = swapped(r2, r3, 8, 0x00ff00ff00ff00ff)
	r4, r5 = swapped(r4, r5, 8, 0x00ff00ff00ff00ff)
	r6, r7 = swapped(r6, r7, 8, 0x00ff00ff00ff00ff)
	for i, v := range [tile]uint64{r0, r1, r2, r3, r4, r5, r6, r7} {
		binary.LittleEndian.PutUint64(out[i*outStep:], v)
	}
}

// swapped returns a and b after the bits of b in mask and those of a above them, shift further up, have changed places.
func swapped(a, b uint64, shift uint, mask uint64) (uint64, uint64) {
	t := (a>>shift ^ b) & mask
	return a ^ t<<shift, b ^ t
}
