// SPDX-License-Identifier: Apache-2.0

package ref

import "encoding/binary"

// Group GATHER (§5.6.25 to §5.6.28).

// grid is the elements of a TRANSPOSE on one side.
type grid struct {
	at, size uint64
	n        [4]uint64
	stride   [4]uint64
}

func (m *Machine) grids(w *word) (x, out grid) {
	x, out = grid{at: w.u32(8), size: w.u16(4)}, grid{at: w.u32(12), size: w.u16(4)}
	for d := range 4 {
		x.n[d] = m.moved.u16(4 + 2*d)
		x.stride[d], out.stride[d] = w.u32(16+4*d), m.moved.u32(12+4*d)
	}
	out.n = x.n
	return x, out
}

// extent is the bytes from dimension d on, from an element's first to the last.
func (g *grid) extent(d int) uint64 {
	size := g.size
	for ; d < 4; d++ {
		size += (g.n[d] - 1) * g.stride[d]
	}
	return size
}

// inside is LOCAL_BOUNDS. Which element is the first that is not inside is found
// dimension by dimension: the lowest index whose last element is not.
func (g *grid) inside(mem []byte) {
	limit, at := uint64(len(mem)), g.at
	if at+g.extent(0) <= limit {
		return
	}
	for d := range 4 {
		for range g.n[d] {
			if at+g.extent(d+1) > limit {
				break
			}
			at += g.stride[d]
		}
	}
	fault(true, LocalBounds, max(at, limit))
}

func (m *Machine) checkTranspose(w *word) {
	bad(w.u16(4) == 0, 4)
	x, out := m.grids(w)
	x.inside(m.spad)
	out.inside(m.spad)
	overlap([]extent{{x.at, x.extent(0)}}, extent{out.at, out.extent(0)})
}

func (m *Machine) transpose(w *word) {
	x, out := m.grids(w)
	var first [4]uint64 // of elements that are stored at the same place, the last one stays
	for d := range 4 {
		if out.stride[d] == 0 {
			first[d] = x.n[d] - 1
		}
	}
	for a := first[0]; a < x.n[0]; a++ {
		for b := first[1]; b < x.n[1]; b++ {
			for c := first[2]; c < x.n[2]; c++ {
				for d := first[3]; d < x.n[3]; d++ {
					from, to := x.at, out.at
					for k, i := range [4]uint64{a, b, c, d} {
						from, to = from+i*x.stride[k], to+i*out.stride[k]
					}
					for i := range x.size {
						m.spad[to+i] = m.spad[from+i]
					}
				}
			}
		}
	}
}

// lists are the rows of a GATHER or SCATTER: those that follow the list of indices,
// and those of the table.
type lists struct {
	n, count, rows      uint64
	list, table         uint64
	listStride, tStride uint64
}

func (w *word) lists() lists {
	l := lists{n: w.u16(4), count: w.u32(20), rows: w.u32(24), list: w.u32(16), table: w.u32(8), listStride: w.u16(6), tStride: w.u32(28)}
	if w[0] == 0x4d {
		l.list, l.table = l.table, l.list
	}
	return l
}

func (m *Machine) checkGather(w *word) {
	l := w.lists()
	scatter := w[0] == 0x4d
	bad(l.n == 0, 4)
	bad(!scatter && l.count > 1 && l.listStride < l.n, 6)
	bad(w.u32(12)%4 != 0, 12)
	bad(l.count == 0, 20)
	bad(l.rows == 0 || l.rows > 1<<31, 24)
	bad(scatter && l.rows > 1 && l.tStride < l.n, 28)
	table := func() { local(m.spad, l.table, 1, 0, l.rows, l.tStride, l.n) }
	list := func() { local(m.spad, l.list, 1, 0, l.count, l.listStride, l.n) }
	x, out := table, list
	read, stored := extent{l.table, (l.rows-1)*l.tStride + l.n}, extent{l.list, (l.count-1)*l.listStride + l.n}
	if scatter {
		x, out = list, table
		read, stored = stored, read
	}
	x()
	local(m.spad, w.u32(12), 1, 0, 1, 0, 4*l.count)
	out()
	overlap([]extent{read, {w.u32(12), 4 * l.count}}, stored)
}

func (m *Machine) gather(w *word) {
	l := w.lists()
	index := make([]uint64, l.count)
	for k := range index {
		bits := binary.LittleEndian.Uint32(m.spad[w.u32(12)+4*uint64(k):])
		i := int64(int32(bits))
		if w.has(1) && i < 0 {
			i += int64(l.rows)
		}
		fault(i < 0 || i >= int64(l.rows), BadIndex, uint64(k)<<32|uint64(bits))
		index[k] = uint64(i)
	}
	for k, i := range index {
		list, table := m.spad[l.list+uint64(k)*l.listStride:][:l.n], m.spad[l.table+i*l.tStride:][:l.n]
		if w[0] == 0x4d {
			copy(table, list)
		} else {
			copy(list, table)
		}
	}
}
