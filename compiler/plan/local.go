// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"math"

	"npuemu/compiler/emit"
	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// A Place is where a dense tensor begins in memory.
type Place struct {
	Binding uint8
	Offset  uint64
}

// Scratchpad is the binding of a tensor that stays in the scratchpad from one operation to another; its offset is an address there.
// No program has so many bindings.
const Scratchpad = 255

// stays reports whether the tensor is in the scratchpad.
func (p Place) stays() bool { return p.Binding == Scratchpad }

func (p Place) plus(n int) Place { return Place{p.Binding, p.Offset + uint64(n)} }

// align is the boundary on which everything in local memory begins: a granule of it
// has 64 bytes.
const align = 64

func up(n int) int { return (n + align - 1) &^ (align - 1) }

func ceil(n, d int) int { return (n + d - 1) / d }

// code is what one operator becomes: instructions, and local memory handed out from 0.
type code struct {
	b         *emit.List
	spad, acc int    // bytes handed out
	high      uint32 // where the byte 0x80 is, if flip is to be used
	timer     *timer
}

// local takes n bytes of the scratchpad; what was planned fits.
func (c *code) local(n int) uint32 {
	at := c.spad
	c.spad += up(n)
	return uint32(at)
}

// accumulators takes n bytes of the accumulators.
func (c *code) accumulators(n int) uint32 {
	at := c.acc
	c.acc += up(n)
	return uint32(at)
}

// load copies n bytes that follow each other.
func (c *code) load(at uint32, from Place, n int) {
	c.b.Emit(isa.Load{Binding: from.Binding, Offset: from.Offset, Local: at, NX: uint32(n), NY: 1, NZ: 1})
}

// slots are buffers of one size that hold tiles by key; the oldest goes first.
type slots struct {
	at   []uint32
	keys []int
	next int
}

func (c *code) slots(count, size int) *slots {
	s := &slots{}
	for range count {
		s.at = append(s.at, c.local(size))
		s.keys = append(s.keys, -1)
	}
	return s
}

func (c *code) accSlots(count, size int) *slots {
	s := &slots{}
	for range count {
		s.at = append(s.at, c.accumulators(size))
		s.keys = append(s.keys, -1)
	}
	return s
}

// room is slots for tiles of what is at p, nil if that stays in the scratchpad.
func (c *code) room(p Place, count, size int) *slots {
	if p.stays() {
		return nil
	}
	return c.slots(count, size)
}

// within is the address of box b in v, which stays in the scratchpad; the elements of b follow each other there.
func within(v view, b box) uint32 {
	at := v.at
	for i, first := range b.start {
		at.Offset += uint64(first * v.strides[i])
	}
	return uint32(at.Offset)
}

// get returns the buffer that holds key; if there is none, fill fills one.
func (s *slots) get(key int, fill func(at uint32)) uint32 {
	for i, k := range s.keys {
		if k == key {
			return s.at[i]
		}
	}
	at := s.take()
	s.keys[(s.next+len(s.at)-1)%len(s.at)] = key
	fill(at)
	return at
}

// take returns the next buffer, whatever it holds.
func (s *slots) take() uint32 {
	at := s.at[s.next]
	s.keys[s.next] = -1
	s.next = (s.next + 1) % len(s.at)
	return at
}

// dense cuts count elements that follow each other into rows that ELEMENT and the like
// can name: f gets the first element, rows and elements of a row. size is that of the
// largest element among operands and result.
func dense(count, size int, f func(first, m, n int)) {
	n := min(count, math.MaxUint16/size&^15)
	if count <= n {
		f(0, 1, count)
		return
	}
	m := count / n
	f(0, m, n)
	if rest := count - m*n; rest > 0 {
		f(m*n, 1, rest)
	}
}

// A step is an operation on all elements of a tile, with at most one other operand.
type step struct {
	op   isa.ElementOp
	y    *Place // of one element or, by column, of one for each column; nil for a unary operation
	cols bool   // y has one element for each column
}

// size is that of an element in bytes; no 4-bit type gets here.
func size(t systolic.Type) int { return int(t.Bytes(1)) }
