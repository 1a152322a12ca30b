// SPDX-License-Identifier: Apache-2.0

// Package systolic is the weight-stationary array of the compute core: int8
// activations stream through a resident tile of int8 weights into int32
// accumulators (docs/spec/isa.md §5.1, numerics.md §6.2, architecture 1.0).
//
// Reference states the product in plain loops, and so does Product.Do for a whole
// GEMM or CONV, of more types; Array computes the same bits faster, by package
// gemm. The model is functional: it has no skew, no pipeline and no cycles.
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
