// SPDX-License-Identifier: Apache-2.0

// Package systolic is the weight-stationary array of the compute core: int8
// activations stream through a resident tile of int8 weights into int32
// accumulators (docs/spec/isa.md §5.1, numerics.md §6.2, architecture 1.0).
//
// Reference states the product in plain loops; Array computes the same bits
// faster. A Product is a whole GEMM or CONV, of more types. The model is functional: it has no skew, no pipeline and no cycles.
package systolic

import "fmt"

// Dimensions that an array may have (§5.1): multiples of DimStep in this range.
const (
	MinDim  = 8
	MaxDim  = 256
	DimStep = 8
)

// CheckDim reports why n cannot be a number of rows or columns, or nil.
func CheckDim(n int) error {
	if n < MinDim || n > MaxDim || n%DimStep != 0 {
		return fmt.Errorf("systolic: dimension %d is not a multiple of %d from %d to %d", n, DimStep, MinDim, MaxDim)
	}
	return nil
}

// Shape says how one product walks its operands (§5.6.5). Row r = y·MX + x of
// the activations is the K bytes at y·StrideY + x·StrideX of the ifmap; row r
// of the result is the N elements at r·AccStride of the accumulators.
type Shape struct {
	K, N             int // rows and columns of the weights that take part
	MX, MY           int // activation rows
	StrideX, StrideY int // bytes
	AccStride        int // int32 elements
	Accumulate       bool
}

// Reference is §6.2 as it is written. w holds K rows of N weights, wStride
// bytes apart; activations and weights are int8 in two's complement. It panics
// if a slice is shorter than its shape.
func Reference(acc []int32, ifmap, w []byte, wStride int, s Shape) {
	for y := range s.MY {
		for x := range s.MX {
			for n := range s.N {
				to := &acc[(y*s.MX+x)*s.AccStride+n]
				if !s.Accumulate {
					*to = 0
				}
				for k := range s.K {
					a := int8(ifmap[y*s.StrideY+x*s.StrideX+k])
					*to += int32(a) * int32(int8(w[k*wStride+n]))
				}
			}
		}
	}
}

// lanes is the number of columns in one packed group.
const lanes = 8

// group holds the weights of one row in eight neighbouring columns, two to a
// word: word i is w[2i] + w[2i+1]·2³². An activation times a word is then two
// products, and a sum of such products is s0 + s1·2³² modulo 2⁶⁴. Because
// |s0| ≤ MaxDim·2¹⁴ = 2²², the low half is s0 exactly, and what remains is s1.
type group [lanes / 2]int64

// Array is an array with its weights. It is not safe for concurrent use.
type Array struct {
	rows, cols int
	w          []group // column group g, row k at g·rows + k
	k, groups  int     // extent of the tile in w; everything else is zero
}

// New returns an array whose weights are zero, or an error if a dimension is
// not one that CheckDim accepts.
func New(rows, cols int) (*Array, error) {
	for _, n := range []int{rows, cols} {
		if err := CheckDim(n); err != nil {
			return nil, err
		}
	}
	return &Array{rows: rows, cols: cols, w: make([]group, cols/lanes*rows)}, nil
}

// Reset makes all weights zero.
func (a *Array) Reset() {
	for g := range a.groups {
		clear(a.w[g*a.rows : g*a.rows+a.k])
	}
	a.k, a.groups = 0, 0
}

// Preload places k rows of n weights, stride bytes apart in w, at the origin
// and makes every other cell zero (§5.6.4). It panics if the tile does not fit
// the array or w is too short.
func (a *Array) Preload(w []byte, stride, k, n int) {
	if k > a.rows || n > a.cols {
		panic(fmt.Sprintf("systolic: BUG: tile %d×%d in an array %d×%d", k, n, a.rows, a.cols))
	}
	a.Reset()
	a.k, a.groups = k, (n+lanes-1)/lanes
	for i := range k {
		row := w[i*stride : i*stride+n]
		for c, v := range row {
			a.w[c/lanes*a.rows+i][c%lanes/2] += int64(int8(v)) << (c % 2 * 32)
		}
	}
}

// MatMul adds the product of the activations and the weights to acc, or stores
// it there when s does not accumulate (§6.2). It panics if s does not fit the
// array or a slice is shorter than its shape.
func (a *Array) MatMul(acc []int32, ifmap []byte, s Shape) {
	if s.K > a.rows || s.N > a.cols {
		panic(fmt.Sprintf("systolic: BUG: product with %d×%d weights in an array %d×%d", s.K, s.N, a.rows, a.cols))
	}
	for y := range s.MY {
		for x := range s.MX {
			from := y*s.StrideY + x*s.StrideX
			to := (y*s.MX + x) * s.AccStride
			a.row(acc[to:to+s.N], ifmap[from:from+s.K], s.Accumulate)
		}
	}
}

// row computes one row of the result.
func (a *Array) row(acc []int32, in []byte, accumulate bool) {
	if !accumulate {
		clear(acc)
	}
	for g := 0; len(acc) > 0; g++ {
		w := a.w[g*a.rows:]
		w = w[:len(in)] // lets the compiler drop the bounds checks below
		var s0, s1, s2, s3 int64
		for k := range w {
			v, wk := int64(int8(in[k])), &w[k]
			s0 += v * wk[0]
			s1 += v * wk[1]
			s2 += v * wk[2]
			s3 += v * wk[3]
		}
		if len(acc) < lanes {
			for c, s := range [...]int64{s0, s1, s2, s3} {
				if 2*c < len(acc) {
					acc[2*c] += int32(s)
				}
				if 2*c+1 < len(acc) {
					acc[2*c+1] += high(s)
				}
			}
			return
		}
		to := (*[lanes]int32)(acc)
		to[0] += int32(s0)
		to[1] += high(s0)
		to[2] += int32(s1)
		to[3] += high(s1)
		to[4] += int32(s2)
		to[5] += high(s2)
		to[6] += int32(s3)
		to[7] += high(s3)
		acc = acc[lanes:]
	}
}

// high returns the sum in the upper half of s.
func high(s int64) int32 { return int32((s - int64(int32(s))) >> 32) }
