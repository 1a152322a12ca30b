// SPDX-License-Identifier: Apache-2.0

package systolic

import (
	"encoding/binary"
	"fmt"
)

// Type is how elements of an operand are stored (§6.1). Its values are those of
// the type fields of OPERANDS (§5.6.9).
type Type uint8

// The types of GEMM's and CONV's operands.
const (
	Int8  Type = 0
	Uint8 Type = 1
	Int16 Type = 2
	Int4  Type = 3 // two in a byte, the even one in bits 3:0
)

// Bytes returns the size of n elements that follow each other from a byte
// boundary.
func (t Type) Bytes(n uint64) uint64 {
	switch t {
	case Int16:
		return 2 * n
	case Int4:
		return (n + 1) / 2
	}
	return n
}

// at returns element i of the row that begins with row.
func (t Type) at(row []byte, i int) int32 {
	switch t {
	case Int8:
		return int32(int8(row[i]))
	case Uint8:
		return int32(row[i])
	case Int16:
		return int32(int16(binary.LittleEndian.Uint16(row[2*i:])))
	case Int4:
		return int32(int8(row[i/2]<<(4-i%2*4)) >> 4)
	}
	panic(fmt.Sprintf("systolic: BUG: element type %d", t))
}

// Operand says how an operand lies in memory: rows, Stride bytes apart, of
// elements that follow each other.
type Operand struct {
	Type       Type
	Zero       int32 // zero point
	Stride     int
	Transposed bool
}

// Product is a matrix product, or a convolution as one: GEMM and CONV
// (§5.6.11, §5.6.12). A product of m rows is a convolution of one line of m
// pixels with a window of one.
//
// The activations are InH lines, Line bytes apart, of InW pixels, A.Stride
// bytes apart, of Cin elements. A.Transposed, only for a line with a window of
// one, says that they are Cin rows of InW elements. The weights are
// KernelH·KernelW·Cin/Groups rows of Cout elements, or the other way round if
// B.Transposed. The result is OutH·OutW rows of Cout int32.
type Product struct {
	A, B                 Operand
	BZeros               []byte // zero points of the columns, one element of B.Type or int8 each; nil for B.Zero
	InH, InW, OutH, OutW int
	Cin, Cout, Groups    int // Groups divides Cin and Cout
	KernelH, KernelW     int
	StepY, StepX         int
	DilationY, DilationX int
	PadTop, PadLeft      int
	Line                 int
	AccStride            int // int32 elements
	Accumulate           bool
}

// MACs returns the number of multiply-accumulates, those with padding among
// them.
func (p *Product) MACs() uint64 {
	return uint64(p.OutH) * uint64(p.OutW) * uint64(p.Cout) * uint64(p.depth())
}

// depth is k: the products in one sum.
func (p *Product) depth() int { return p.KernelH * p.KernelW * (p.Cin / p.Groups) }

// Workspace is what Do needs to remember nothing of afterwards. The zero value
// is ready to use.
type Workspace struct {
	w []int32 // a block of weights, row after row, less their zero points
	a []int32 // the same rows of one row of activations
}

// panel is about how many weights a Workspace holds.
const panel = 1 << 14

// Do computes p (§6.2) in plain loops: every sum from the lowest k to the
// highest. It asks stop, which may be nil, before each row of each block and
// returns early, with an undefined result, once that is true. It panics if a
// slice is shorter than p says.
func (p *Product) Do(ws *Workspace, acc []int32, a, b []byte, stop func() bool) {
	depth, n := p.depth(), p.Cout/p.Groups
	block := min(depth, max(1, panel/n))
	grow(&ws.w, block*n)
	grow(&ws.a, block)
	for g := range p.Groups {
		for k := 0; k < depth; k += block {
			rows := min(block, depth-k)
			p.weights(ws.w, b, g, k, rows)
			for r := range p.OutH * p.OutW {
				if stop != nil && stop() {
					return
				}
				p.activations(ws.a[:rows], a, g, k, r)
				to := acc[r*p.AccStride+g*n:][:n]
				if k == 0 && !p.Accumulate {
					clear(to)
				}
				for i, v := range ws.a[:rows] {
					if v == 0 {
						continue
					}
					w := ws.w[i*n:][:n]
					for c := range to {
						to[c] += v * w[c]
					}
				}
			}
		}
	}
}

func grow(s *[]int32, n int) {
	if cap(*s) < n {
		*s = make([]int32, n)
	}
	*s = (*s)[:cap(*s)]
}

// weights puts rows of group g from row k on into to.
func (p *Product) weights(to []int32, b []byte, g, k, rows int) {
	n := p.Cout / p.Groups
	for c := range n {
		column := g*n + c
		zero := p.B.Zero
		if p.BZeros != nil {
			zero = int32(int8(p.BZeros[column]))
			if p.B.Type == Uint8 {
				zero = int32(p.BZeros[column])
			}
		}
		for i := range rows {
			row, at := k+i, column
			if p.B.Transposed {
				row, at = at, row
			}
			to[i*n+c] = p.B.Type.at(b[row*p.B.Stride:], at) - zero
		}
	}
}

// activations puts what row r of the result multiplies with rows k … of group
// g's weights into to.
func (p *Product) activations(to []int32, a []byte, g, k, r int) {
	channels := p.Cin / p.Groups
	position, c := k/channels, k%channels
	oy, ox := r/p.OutW, r%p.OutW
	for i := 0; i < len(to); position++ {
		y := oy*p.StepY + position/p.KernelW*p.DilationY - p.PadTop
		x := ox*p.StepX + position%p.KernelW*p.DilationX - p.PadLeft
		n := min(channels-c, len(to)-i)
		switch {
		case y < 0 || y >= p.InH || x < 0 || x >= p.InW: // padding is the zero point
			clear(to[i : i+n])
		case p.A.Transposed:
			for j := range n {
				to[i+j] = p.A.Type.at(a[(c+j)*p.A.Stride:], x) - p.A.Zero
			}
		default:
			pixel := a[y*p.Line+x*p.A.Stride:]
			for j := range n {
				to[i+j] = p.A.Type.at(pixel, g*channels+c+j) - p.A.Zero
			}
		}
		i, c = i+n, 0
	}
}
