// SPDX-License-Identifier: Apache-2.0

package dma

import (
	"context"
	"fmt"
	"math/bits"
)

// Chunk is the largest piece that a copy moves at a time: large enough that the
// cost per piece does not show, small enough that an abort is noticed within
// microseconds.
const Chunk = 64 << 10

// A Shape is what a strided copy walks: NZ planes of NY rows of NX bytes.
type Shape struct {
	NX, NY, NZ uint64
}

// Side is one end of a strided copy: row (z, y) starts at
// Addr + z·StrideZ + y·StrideY in Space.
type Side struct {
	Space            Space
	Addr             uint64
	StrideY, StrideZ uint64 // bytes
}

// Last returns the last byte address that a walk of s touches, and false if the
// walk would pass the end of a 64-bit address space. All of s must be at least 1.
func (d Side) Last(s Shape) (uint64, bool) {
	last, ok := d.Addr, true
	add := func(count, stride uint64) {
		hi, lo := bits.Mul64(count, stride)
		sum, carry := bits.Add64(last, lo, 0)
		if hi != 0 || carry != 0 {
			ok = false
		}
		last = sum
	}
	add(s.NZ-1, d.StrideZ)
	add(s.NY-1, d.StrideY)
	add(s.NX-1, 1)
	return last, ok
}

func (d Side) row(z, y uint64) uint64 { return d.Addr + z*d.StrideZ + y*d.StrideY }

// Copy executes the strided copy of §7.4 row by row, in (z, y) order. It
// returns the number of bytes copied; on an error that is a *Fault or ctx's, row
// is the number z·NY + y of the row that stopped it. From bus to bus a buffer of up to
// Chunk bytes is used; buf is taken for it if it is large enough.
func (m *Memory) Copy(ctx context.Context, dst, src Side, s Shape, buf []byte) (n, row uint64, err error) {
	if s.NX == 0 || s.NY == 0 || s.NZ == 0 {
		panic(fmt.Sprintf("dma: BUG: empty shape %+v", s))
	}
	if need := min(s.NX, Chunk); src.Space == Bus && dst.Space == Bus && uint64(len(buf)) < need {
		buf = make([]byte, need)
	}
	return walkRows(ctx, dst, src, s, func(to, from, size uint64) error {
		return m.move(dst.Space, to, src.Space, from, size, buf)
	})
}

// walkRows calls move for every row, in (z, y) order, in pieces of at most Chunk bytes.
func walkRows(ctx context.Context, dst, src Side, s Shape, move func(to, from, size uint64) error) (n, row uint64, err error) {
	for z := range s.NZ {
		for y := range s.NY {
			for x := uint64(0); x < s.NX; {
				if err := ctx.Err(); err != nil {
					return n, z*s.NY + y, err
				}
				size := min(s.NX-x, Chunk)
				if err := move(dst.row(z, y)+x, src.row(z, y)+x, size); err != nil {
					return n, z*s.NY + y, err
				}
				x += size
				n += size
			}
		}
	}
	return n, 0, nil
}

// move copies size bytes, at most Chunk. What cannot be read is reported before what
// cannot be written. Device memory is its own buffer.
func (m *Memory) move(dst Space, to uint64, src Space, from, size uint64, buf []byte) error {
	if src == Device {
		p, err := m.device(from, size, false)
		if err != nil {
			return err
		}
		return m.Write(dst, to, p)
	}
	if dst == Device {
		p, err := m.device(to, size, true)
		if err != nil {
			if fault := m.Read(src, from, make([]byte, size)); fault != nil {
				return fault
			}
			return err
		}
		if err := m.Read(src, from, p); err != nil {
			return err
		}
		m.Poison.Overwritten(to, size)
		return nil
	}
	p := buf[:size]
	if err := m.Read(src, from, p); err != nil {
		return err
	}
	return m.Write(dst, to, p)
}
