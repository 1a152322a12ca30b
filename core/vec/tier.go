// SPDX-License-Identifier: Apache-2.0

package vec

// tier is one way to compute what all tiers compute. A kernel that is nil is
// left to plain Go.
type tier struct {
	name    string
	requant requantKernels
}

// requantKernels turn n accumulators at x into bytes at out, one function for
// each rounding. params advances by step bytes with each block; place has, from
// the lowest bit on, the zero point as an int16, lo and hi. They take any n, or
// with whole set multiples of block.
type requantKernels struct {
	block                 int
	whole                 bool
	bias                  uint64 // what the one-rounding kernels want added to their sums
	one, near, two, float func(out *byte, x *int32, params *int64, step, n int, place *uint32)
}
