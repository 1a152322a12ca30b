// SPDX-License-Identifier: Apache-2.0

package core

import (
	"encoding/binary"
	"errors"
	"slices"

	"npuemu/core/isa"
	"npuemu/core/vec"
)

// transfer is LOAD and STORE (§5.6.3).
func (c *unit) transfer(i isa.Load, store bool) *Fault {
	if v := i.Check(*c.limits); v != nil {
		return violation(0, v)
	}
	b := c.bindings[i.Binding]
	if store && !b.Write || !store && !b.Read {
		return &Fault{Status: StatusBindingAccess, Info: uint64(i.Binding)}
	}
	m := i.Memory()
	if first, outside := m.Outside(b.Size); outside {
		return &Fault{Status: StatusBindingBounds, Info: first}
	}
	step := uint64(i.LocalStride)
	plane := step * m.Inner
	// Rows without gaps become one, then planes of one row.
	if m.Inner > 1 && m.InnerStride == m.Bytes && step == m.Bytes {
		m.Bytes, m.Inner = m.Bytes*m.Inner, 1
	}
	if m.Inner == 1 && m.OuterStride == m.Bytes && plane == m.Bytes {
		m.Bytes, m.Outer = m.Bytes*m.Outer, 1
	}
	if !store && c.loadRuns(&i, m, b) {
		return nil
	}
	if m.Inner == 1 && m.Outer > 1 { // one row to a plane: planes are the rows
		m.Inner, m.InnerStride, m.Outer, step = m.Outer, m.OuterStride, 1, plane
	}
	for z := range m.Outer {
		if m.Inner > 1 && c.planeOfRows(&i, m, b, z, step, store) {
			continue
		}
		for y := range m.Inner {
			off := m.Base + z*m.OuterStride + y*m.InnerStride
			local := int(uint64(i.Local) + z*plane + y*step)
			if store && !i.Acc && c.poison.Some() {
				if f := c.poisoned(local, int(m.Bytes)); f != nil {
					return f
				}
			}
			var err error
			if store {
				err = c.store(b, off, i.Acc, local, int(m.Bytes))
			} else {
				err = c.load(b, off, i.Acc, local, int(m.Bytes))
			}
			if err != nil {
				return memoryFault(b, off, err)
			}
		}
	}
	return nil
}

// planeOfRows is transfer for plane z, whose rows are step bytes apart in local memory, at once. It reports false if row by
// row is to be done what it did not do, or not all of.
func (c *unit) planeOfRows(i *isa.Load, m isa.Rows, b Binding, z, step uint64, store bool) bool {
	if c.rowMem == nil || c.poison.Some() {
		return false
	}
	local, size := int(uint64(i.Local)+z*step*m.Inner), int((m.Inner-1)*step+m.Bytes)
	p, there := c.spad, true
	if i.Acc {
		p, there = vec.Raw(c.acc)
	}
	if !there {
		return false
	}
	p = p[local : local+size : local+size]
	off, moved := m.Base+z*m.OuterStride, m.Inner*m.Bytes
	if store {
		if !c.rowMem.StoreRows(b, off, m.InnerStride, p, int(step), int(m.Bytes), int(m.Inner)) {
			return false
		}
		c.stats.BytesStored += moved
		return true
	}
	if !c.rowMem.LoadRows(b, off, m.InnerStride, p, int(step), int(m.Bytes), int(m.Inner)) {
		return false
	}
	c.stats.BytesLoaded += moved
	if !i.Acc { // what lies between the rows is told to have changed too, which is no harm
		c.poison.Overwritten(uint64(local), uint64(size))
	}
	return true
}

// Rows of LOAD that are not longer than shortRow bytes and follow each other in memory are read runBytes at a time: an access
// takes as long as some hundred bytes.
const (
	shortRow = 64
	runBytes = 32 << 10
)

// loadRuns is transfer for a LOAD of short rows that follow each other in memory in one direction, and lie apart in the
// scratchpad. It reports false if it is for something else, or if an access failed: row by row tells which byte could not be read.
func (c *unit) loadRuns(i *isa.Load, m isa.Rows, b Binding) bool {
	step := uint64(i.LocalStride)
	lines, line, between := m.Outer, m.OuterStride, step*m.Inner // the other direction, in memory and locally
	rows := m.Inner
	switch {
	case i.Acc || m.Bytes > shortRow || step < m.Bytes || c.poison.Some():
		return false
	case m.Outer > 1 && m.OuterStride == m.Bytes:
		lines, line, rows, between, step = m.Inner, m.InnerStride, m.Outer, step, between
	case m.Inner == 1 || m.InnerStride != m.Bytes:
		return false
	}
	most := uint64(runBytes) / m.Bytes
	for l := range lines {
		for from := uint64(0); from < rows; from += most {
			now := min(most, rows-from)
			run := slices.Grow(c.staging[:0], runBytes)[:now*m.Bytes]
			c.staging = run
			if c.mem.Load(b, m.Base+l*line+from*m.Bytes, run) != nil {
				return false
			}
			to := uint64(i.Local) + l*between + from*step
			spread(c.spad[to:], int(step), run, int(m.Bytes))
		}
	}
	c.stats.BytesLoaded += lines * rows * m.Bytes
	// What lies between the rows is told to have changed too, which is no harm.
	c.poison.Overwritten(uint64(i.Local), (lines-1)*between+(rows-1)*step+m.Bytes)
	return true
}

// spread copies rows of size bytes, which follow each other in from, to rows stride bytes apart.
func spread(to []byte, stride int, from []byte, size int) {
	if size == 1 {
		for k, v := range from {
			to[k*stride] = v
		}
		return
	}
	for at := 0; len(from) > 0; at += stride {
		copy(to[at:at+size], from)
		from = from[size:]
	}
}

func memoryFault(b Binding, off uint64, err error) *Fault {
	f := &Fault{Status: StatusMemoryFault, Info: b.Addr + off, Err: err}
	var at *MemoryError
	if errors.As(err, &at) {
		f.Info = at.Addr
	}
	return f
}

// load moves a row of n bytes at off of b to local memory.
func (c *unit) load(b Binding, off uint64, acc bool, local, n int) error {
	to, there := c.row(acc, local, n)
	if err := c.mem.Load(b, off, to); err != nil {
		return err
	}
	c.stats.BytesLoaded += uint64(n)
	switch {
	case !acc:
		c.poison.Overwritten(uint64(local), uint64(n))
	case !there:
		for i := range n / 4 {
			c.acc[local/4+i] = int32(binary.LittleEndian.Uint32(to[4*i:]))
		}
	}
	return nil
}

// store moves a row of n bytes of local memory to off of b.
func (c *unit) store(b Binding, off uint64, acc bool, local, n int) error {
	from, there := c.row(acc, local, n)
	if !there {
		for i := range n / 4 {
			binary.LittleEndian.PutUint32(from[4*i:], uint32(c.acc[local/4+i]))
		}
	}
	if err := c.mem.Store(b, off, from); err != nil {
		return err
	}
	c.stats.BytesStored += uint64(n)
	return nil
}

// row returns n bytes of local memory; there is false if they are the staging
// buffer that stands for accumulators, which have another order of bytes.
func (c *unit) row(acc bool, local, n int) (row []byte, there bool) {
	if !acc {
		return c.spad[local : local+n : local+n], true
	}
	if row, there = vec.Raw(c.acc[local/4 : (local+n)/4 : (local+n)/4]); there {
		return row, true
	}
	c.staging = slices.Grow(c.staging[:0], n)[:n]
	return c.staging, false
}
