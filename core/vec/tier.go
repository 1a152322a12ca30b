// SPDX-License-Identifier: Apache-2.0

package vec

// tier is one way to compute what all tiers compute. A kernel that is nil is
// left to plain Go.
type tier struct {
	name    string
	requant requantKernels
	*kernels
}

// requantKernels turn rows of accumulators into bytes, of any length, or with
// whole set multiples of block.
type requantKernels struct {
	block int // 0: there are none
	whole bool
}

// The kernels, one for each rounding but two for one rounding: requantFar needs
// shifts of 32 or more.
const (
	requantFar = 1 + iota
	requantNear
	requantTwo
	requantFloat
)

// kernels are the others. Operands and results may be the same memory; otherwise
// a kernel reads elements before it stores those at the same place or behind it.
// Floating-point kernels give canonical NaNs only, except those of reduce, expSum
// and sumSquares for their sums.
type kernels struct {
	register int  // bytes
	whole    bool // widen, narrow, wrap and native take multiples of a register of words, and of bytes

	unaryInt, unaryFloat   [numOps]func(z, x *uint32, n int)
	binaryInt, binaryFloat [numOps]func(z, x, y *uint32, step, n int)
	choose                 [2]func(z, x, y *uint32, step, n int) // SELECT by an int32 and by an fp32 in z
	between                [2]func(z, x *uint32, n int)          // fp32 → int32, int32 → fp32

	widen        [numTypes]func(z *uint32, x *byte, n int)
	narrow, wrap [numTypes]func(z *byte, x *uint32, n int) // saturating, and not
	native       [Uint8 + 1][Max + 1]func(z, x, y *byte, step, n int)
	lookup       func(z, x, table *byte, n int)
	pair         [pairHalf + 1]func(z, x, y *byte, params *int64, step, n int)

	reduce     [4]func(x *uint32, n int) uint32                 // sum, max, min of int32; sum of fp32
	extreme    [3]func(x *uint32, n int) (extreme, most uint32) // max, min of fp32
	sumSquares func(x *uint32, c uint32, n int) uint32
	sums       func(x *uint32, stride, n int, sums *uint32) // of four rows
	squares    func(x *uint32, stride, n int, sums *uint32) // of them less what is in sums
	expSum     func(z, x *uint32, m uint32, n int) uint32
	layer      func(z, x, gain, bias *uint32, mean, r uint32, n int)
	rms        func(z, x, gain *uint32, r uint32, n int)
}
