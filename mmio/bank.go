// SPDX-License-Identifier: Apache-2.0

package mmio

import (
	"encoding/binary"
	"fmt"
)

// Bank is a window of registers. See the package comment for its rules and
// its locking.
type Bank struct {
	size   uint32
	cells  []cell
	index  []int32 // by off/4: 1 + position in cells, 0 for none; ends after the last register
	ranges []writeRange
	trace  Tracer
}

type cell struct {
	Register
	value   uint32
	onWrite func(v uint32)
	onRead  func() uint32
}

// writeRange claims base+i*stride for i in [0, count).
type writeRange struct {
	base, stride uint32
	count        int
	fn           func(index int, v uint32)
}

// New returns a bank of size bytes with every register at its reset value.
// The table is copied. New panics if the table is wrong: an offset that is
// misaligned, outside the bank or taken; a bit with two kinds of write; a field
// that is empty, outside the register or overlaps another.
func New(size uint32, table []Register) *Bank {
	if size%4 != 0 {
		bug("bank size %#x is not a multiple of 4", size)
	}
	var end uint32 // after the last register; no sum here can overflow, since Off is below size
	for _, r := range table {
		check(r, size)
		end = max(end, r.Off+4)
	}
	b := &Bank{size: size, cells: make([]cell, len(table)), index: make([]int32, end/4)}
	for i, r := range table {
		if j := b.index[r.Off/4]; j != 0 {
			bug("%s at %#x overlaps %s", r.Name, r.Off, table[j-1].Name)
		}
		b.index[r.Off/4] = int32(i + 1)
		b.cells[i] = cell{Register: r, value: r.Reset}
	}
	return b
}

func check(r Register, size uint32) {
	switch {
	case r.Off%4 != 0:
		bug("%s at %#x is not 4-byte aligned", r.Name, r.Off)
	case r.Off >= size:
		bug("%s at %#x is outside a bank of %#x bytes", r.Name, r.Off, size)
	case r.RW&r.W1C|r.RW&r.W1S|r.W1C&r.W1S != 0:
		bug("%s: a bit is in two of RW %#x, W1C %#x, W1S %#x", r.Name, r.RW, r.W1C, r.W1S)
	}
	var seen uint64
	for _, f := range r.Fields {
		if f.Width == 0 || f.Shift >= 32 || f.Width > 32-f.Shift {
			bug("%s.%s: %d bits at bit %d do not fit", r.Name, f.Name, f.Width, f.Shift)
		}
		mask := (uint64(1)<<f.Width - 1) << f.Shift
		if seen&mask != 0 {
			bug("%s.%s overlaps another field", r.Name, f.Name)
		}
		seen |= mask
	}
}

func bug(format string, args ...any) {
	panic("mmio: BUG: " + fmt.Sprintf(format, args...))
}

// Trace makes t receive every host access from now on; nil turns tracing off.
func (b *Bank) Trace(t Tracer) { b.trace = t }

// OnWrite calls fn after each host write to the register at off, when the masks
// have been applied. v is what the host wrote, before the masks; of a register that was
// written in part the RW bits of the other bytes are in v as they were, and all else is zero.
func (b *Bank) OnWrite(off uint32, fn func(v uint32)) {
	c := b.mustCell(off)
	if c.onWrite != nil {
		bug("%s has a write hook already", c.Name)
	}
	c.onWrite = fn
}

// OnRead makes host reads of the register at off return fn(). The stored value,
// which Value and the write masks use, does not change.
func (b *Bank) OnRead(off uint32, fn func() uint32) {
	c := b.mustCell(off)
	if c.WO || c.onRead != nil {
		bug("%s is write-only or has a read hook already", c.Name)
	}
	c.onRead = fn
}

// OnWriteRange claims the registers at base+i*stride+off, for i in [0, count),
// and calls fn with i and the value at each host write. They store nothing and
// read zero. With one range per kind of doorbell, a page of doorbells for each
// queue needs no table rows. OnWriteRange panics like New.
func (b *Bank) OnWriteRange(base, stride uint32, count int, off uint32, fn func(index int, v uint32)) {
	first := uint64(base) + uint64(off)
	if first%4 != 0 || stride%4 != 0 || stride == 0 || off >= stride || count <= 0 {
		bug("range %#x+%#x, stride %#x, count %d is misaligned or empty", base, off, stride, count)
	}
	if n := uint64(count); first >= uint64(b.size) || n-1 > (uint64(b.size)-4-first)/uint64(stride) {
		bug("range %#x+%#x, stride %#x, count %d is outside a bank of %#x bytes", base, off, stride, count, b.size)
	}
	r := writeRange{base: uint32(first), stride: stride, count: count, fn: fn}
	for i := range count {
		at := r.base + uint32(i)*stride
		if b.cell(uint64(at)) != nil {
			bug("range entry %d at %#x overlaps %s", i, at, b.cell(uint64(at)).Name)
		}
		if o, _ := b.rangeAt(uint64(at)); o != nil {
			bug("range entry %d at %#x overlaps the range at %#x", i, at, o.base)
		}
	}
	b.ranges = append(b.ranges, r)
}

// Read serves a host read of len(p) bytes at byte offset off.
func (b *Bank) Read(off uint64, p []byte) {
	switch {
	case len(p) == 4 && off%4 == 0:
		b.read4(off, p)
	case len(p) == 8 && off%8 == 0:
		b.read4(off, p[:4])
		b.read4(off+4, p[4:])
	case b.narrow(off, len(p)):
		c := b.cell(off &^ 3)
		var v [4]byte
		binary.LittleEndian.PutUint32(v[:], c.read())
		copy(p, v[off%4:])
		b.trace.Report(OpRead, off, p, RuleNone)
	default:
		fillOnes(p)
		b.trace.Report(OpRead, off, p, RuleWidth)
	}
}

// Write serves a host write of p at byte offset off.
func (b *Bank) Write(off uint64, p []byte) {
	switch {
	case len(p) == 4 && off%4 == 0:
		b.write4(off, p)
	case len(p) == 8 && off%8 == 0:
		b.write4(off, p[:4])
		b.write4(off+4, p[4:])
	case b.narrow(off, len(p)):
		c := b.cell(off &^ 3)
		var v, enable [4]byte
		for i := range copy(v[off%4:], p) {
			enable[off%4+uint64(i)] = 0xff
		}
		b.trace.Report(OpWrite, off, p, RuleNone)
		c.write(binary.LittleEndian.Uint32(v[:]) | c.value&c.RW&^binary.LittleEndian.Uint32(enable[:]))
	default:
		b.trace.Report(OpWrite, off, p, RuleWidth)
	}
}

func (b *Bank) read4(off uint64, p []byte) {
	rule := RuleNone
	if c := b.cell(off); c != nil {
		binary.LittleEndian.PutUint32(p, c.read())
	} else if r, _ := b.rangeAt(off); r != nil {
		clear(p)
	} else {
		fillOnes(p)
		rule = RuleUnclaimed
	}
	b.trace.Report(OpRead, off, p, rule)
}

func (b *Bank) write4(off uint64, p []byte) {
	v := binary.LittleEndian.Uint32(p)
	if c := b.cell(off); c != nil {
		rule := RuleNone
		if c.RW|c.W1C|c.W1S == 0 && c.onWrite == nil {
			rule = RuleReadOnly
		}
		b.trace.Report(OpWrite, off, p, rule)
		c.write(v)
		return
	}
	if r, i := b.rangeAt(off); r != nil {
		b.trace.Report(OpWrite, off, p, RuleNone)
		r.fn(i, v)
		return
	}
	b.trace.Report(OpWrite, off, p, RuleUnclaimed)
}

// narrow reports whether n bytes at off are a part of a register that can be accessed by parts.
func (b *Bank) narrow(off uint64, n int) bool {
	if n != 1 && (n != 2 || off%2 != 0) {
		return false
	}
	c := b.cell(off &^ 3)
	return c != nil && c.Narrow
}

func (c *cell) write(v uint32) {
	c.value = c.value&^c.RW | v&c.RW
	c.value &^= v & c.W1C
	c.value |= v & c.W1S
	if c.onWrite != nil {
		c.onWrite(v)
	}
}

func (c *cell) read() uint32 {
	switch {
	case c.WO:
		return 0
	case c.onRead != nil:
		return c.onRead()
	}
	return c.value
}

// Value returns the stored value of the register at off, also if it is
// write-only or has a read hook.
func (b *Bank) Value(off uint32) uint32 { return b.mustCell(off).value }

// Peek is Value for an offset that may be no register's; then ok is false.
func (b *Bank) Peek(off uint32) (v uint32, ok bool) {
	if c := b.cell(uint64(off)); c != nil {
		return c.value, true
	}
	return 0, false
}

// Set stores v in the register at off: no masks, no hook.
func (b *Bank) Set(off, v uint32) { b.mustCell(off).value = v }

// SetBits sets the given bits of the register at off: no masks, no hook.
func (b *Bank) SetBits(off, bits uint32) { b.mustCell(off).value |= bits }

// ClearBits clears the given bits of the register at off: no masks, no hook.
func (b *Bank) ClearBits(off, bits uint32) { b.mustCell(off).value &^= bits }

// Reset gives every register its reset value. Hooks, ranges and the tracer
// stay, and no hook runs.
func (b *Bank) Reset() {
	for i := range b.cells {
		b.cells[i].value = b.cells[i].Register.Reset
	}
}

// cell returns the register at off, which is a multiple of 4, or nil.
func (b *Bank) cell(off uint64) *cell {
	if off/4 >= uint64(len(b.index)) || b.index[off/4] == 0 {
		return nil
	}
	return &b.cells[b.index[off/4]-1]
}

// mustCell is cell for offsets that the device itself chose.
func (b *Bank) mustCell(off uint32) *cell {
	c := b.cell(uint64(off))
	if c == nil || off%4 != 0 {
		bug("no register at %#x", off)
	}
	return c
}

// rangeAt returns the range that claims off, and the index in it, or nil.
// A bank has a handful of ranges, so a scan is enough.
func (b *Bank) rangeAt(off uint64) (*writeRange, int) {
	for i := range b.ranges {
		r := &b.ranges[i]
		if off < uint64(r.base) {
			continue
		}
		d := off - uint64(r.base)
		if n := d / uint64(r.stride); d%uint64(r.stride) == 0 && n < uint64(r.count) {
			return r, int(n)
		}
	}
	return nil, 0
}

func fillOnes(p []byte) {
	for i := range p {
		p[i] = 0xff
	}
}
