// SPDX-License-Identifier: Apache-2.0

package systolic

import (
	"encoding/binary"
	"fmt"
	"math"

	"npuemu/core/num"
)

// Type is how elements are stored (§6.5). Its values are those of the type
// fields of OPERANDS and ELEMENT (§5.6.9, §5.6.18).
type Type uint8

// The types.
const (
	Int8  Type = 0
	Int16 Type = 1
	Int4  Type = 2 // two in a byte, the even one in bits 3:0
	Int32 Type = 3 // of no operand of a product
	Uint8 Type = 4
	FP32  Type = 8
	BF16  Type = 9
	FP16  Type = 10
	E4M3  Type = 11
	E5M2  Type = 12
)

// Float reports whether products of t are fp32.
func (t Type) Float() bool { return t >= FP32 && t <= E5M2 }

// Bytes returns the size of n elements that follow each other from a byte
// boundary.
func (t Type) Bytes(n uint64) uint64 {
	switch t {
	case FP32, Int32:
		return 4 * n
	case Int16, BF16, FP16:
		return 2 * n
	case Int4:
		return (n + 1) / 2
	}
	return n
}

// Range returns the smallest and the largest value of an integer type (§6.5); of
// the others those of int32.
func (t Type) Range() (lo, hi int32) {
	switch t {
	case Int4:
		return -8, 7
	case Int8:
		return math.MinInt8, math.MaxInt8
	case Uint8:
		return 0, math.MaxUint8
	case Int16:
		return math.MinInt16, math.MaxInt16
	}
	return math.MinInt32, math.MaxInt32
}

// Integer returns element i of the row that begins with row.
func (t Type) Integer(row []byte, i int) int32 {
	switch t {
	case Int8:
		return int32(int8(row[i]))
	case Int16:
		return int32(int16(binary.LittleEndian.Uint16(row[2*i:])))
	case Int4:
		return int32(int8(row[i/2]<<(4-i%2*4)) >> 4)
	case Uint8:
		return int32(row[i])
	case Int32:
		return int32(binary.LittleEndian.Uint32(row[4*i:]))
	}
	panic(fmt.Sprintf("systolic: BUG: integer of type %d", t))
}

// Real is Integer for the other types.
func (t Type) Real(row []byte, i int) float32 {
	switch t {
	case FP32:
		return math.Float32frombits(binary.LittleEndian.Uint32(row[4*i:]))
	case BF16:
		return num.BF16(binary.LittleEndian.Uint16(row[2*i:])).Float32()
	case FP16:
		return num.FP16(binary.LittleEndian.Uint16(row[2*i:])).Float32()
	case E4M3:
		return num.E4M3(row[i]).Float32()
	case E5M2:
		return num.E5M2(row[i]).Float32()
	}
	panic(fmt.Sprintf("systolic: BUG: float of type %d", t))
}

// Operand says how an operand lies in memory: rows, Stride bytes apart, of
// elements that follow each other.
type Operand struct {
	Type       Type
	Zero       int32 // zero point; 0 of a floating-point type
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
// B.Transposed. The result is OutH·OutW rows of Cout int32 or, if the types are
// floating-point ones, which they are both or neither, of fp32.
type Product struct {
	A, B                 Operand
	BZeros               []byte // zero points of the columns, a uint8 each for Uint8, else an int8; nil for B.Zero
	InH, InW, OutH, OutW int
	Cin, Cout, Groups    int // Groups divides Cin and Cout
	KernelH, KernelW     int
	StepY, StepX         int
	DilationY, DilationX int
	PadTop, PadLeft      int
	Line                 int
	AccStride            int // elements
	Accumulate           bool
}

// MACs returns the number of multiply-accumulates, those with padding among
// them.
func (p *Product) MACs() uint64 {
	return uint64(p.OutH) * uint64(p.OutW) * uint64(p.Cout) * uint64(p.depth())
}

// depth is k: the products in one sum.
func (p *Product) depth() int { return p.KernelH * p.KernelW * (p.Cin / p.Groups) }

// Workspace is what Do needs and what it leaves for the next. The zero value is
// ready to use.
type Workspace struct {
	integers block[int32]
	floats   block[float32]
}

// block is some rows of weights, and the same rows of one row of activations,
// both less their zero points.
type block[T int32 | float32] struct{ w, a []T }

// panel is about how many weights a block holds.
const panel = 1 << 14

// Do computes p (§6.8) in plain loops: every sum from the lowest k to the
// highest. It asks stop, which may be nil, before each row of each block and
// returns early, with an undefined result, once that is true. It panics if a
// slice is shorter than p says.
func (p *Product) Do(ws *Workspace, acc []int32, a, b []byte, stop func() bool) {
	if p.A.Type.Float() {
		do(p, &ws.floats, acc, a, b, Type.Real, addFloat, stop)
	} else {
		do(p, &ws.integers, acc, a, b, Type.Integer, addInteger, stop)
	}
}

// addInteger adds v·w to a row of sums (§6.8.1).
func addInteger(to []int32, v int32, w []int32) {
	for c := range to {
		to[c] += v * w[c]
	}
}

// addFloat is the next step of a row of chains (§6.8.2).
func addFloat(to []int32, v float32, w []float32) {
	for c := range to {
		sum := num.FMA32(v, w[c], math.Float32frombits(uint32(to[c])))
		to[c] = int32(math.Float32bits(sum))
	}
}

func do[T int32 | float32](
	p *Product, ws *block[T], acc []int32, a, b []byte,
	at func(t Type, row []byte, i int) T, add func(to []int32, v T, w []T), stop func() bool,
) {
	depth, n := p.depth(), p.Cout/p.Groups
	rows := min(depth, max(1, panel/n))
	grow(&ws.w, rows*n)
	grow(&ws.a, rows)
	for g := range p.Groups {
		for k := 0; k < depth; k += rows {
			in := ws.a[:min(rows, depth-k)]
			weights(p, ws.w, b, at, g, k, len(in))
			for r := range p.OutH * p.OutW {
				if stop != nil && stop() {
					return
				}
				activations(p, in, a, at, g, k, r)
				to := acc[r*p.AccStride+g*n:][:n]
				if k == 0 && !p.Accumulate {
					clear(to)
				}
				for i, v := range in {
					add(to, v, ws.w[i*n:][:n])
				}
			}
		}
	}
}

func grow[T any](s *[]T, n int) {
	if cap(*s) < n {
		*s = make([]T, n)
	}
	*s = (*s)[:cap(*s)]
}

// weights puts rows of group g from row k on into to.
func weights[T int32 | float32](p *Product, to []T, b []byte, at func(Type, []byte, int) T, g, k, rows int) {
	n := p.Cout / p.Groups
	for c := range n {
		column := g*n + c
		zero := p.B.Zero
		if p.BZeros != nil {
			if zero = int32(int8(p.BZeros[column])); p.B.Type == Uint8 {
				zero = int32(p.BZeros[column])
			}
		}
		for i := range rows {
			row, j := k+i, column
			if p.B.Transposed {
				row, j = j, row
			}
			to[i*n+c] = at(p.B.Type, b[row*p.B.Stride:], j) - T(zero)
		}
	}
}

// activations puts what row r of the result multiplies with rows k … of group
// g's weights into to.
func activations[T int32 | float32](p *Product, to []T, a []byte, at func(Type, []byte, int) T, g, k, r int) {
	channels := p.Cin / p.Groups
	position, c := k/channels, k%channels
	oy, ox := r/p.OutW, r%p.OutW
	for i := 0; i < len(to); position++ {
		y := oy*p.StepY + position/p.KernelW*p.DilationY - p.PadTop
		x := ox*p.StepX + position%p.KernelW*p.DilationX - p.PadLeft
		n := min(channels-c, len(to)-i)
		switch {
		case y < 0 || y >= p.InH || x < 0 || x >= p.InW: // padding is the zero point, or +0
			clear(to[i : i+n])
		case p.A.Transposed:
			for j := range n {
				to[i+j] = at(p.A.Type, a[(c+j)*p.A.Stride:], x) - T(p.A.Zero)
			}
		default:
			pixel := a[y*p.Line+x*p.A.Stride:]
			for j := range n {
				to[i+j] = at(p.A.Type, pixel, g*channels+c+j) - T(p.A.Zero)
			}
		}
		i, c = i+n, 0
	}
}
