// SPDX-License-Identifier: Apache-2.0

package vec

import "golang.org/x/sys/cpu"

// tiers are those that this machine has, the best first. The processor and the
// operating system (XGETBV) are asked by package cpu.
func tiers() []*tier {
	var t []*tier
	if cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL && cpu.X86.HasBMI2 {
		k := kernelsx512()
		k.register = 64
		t = append(t, &tier{
			name:    "avx512",
			requant: requantKernels{block: 64},
			kernels: k,
		})
	}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA && hasF16C() {
		k := kernelsx256()
		k.register, k.whole = 32, true
		t = append(t, &tier{
			name:    "avx2",
			requant: requantKernels{block: 32, whole: true},
			kernels: k,
		})
	}
	return append(t, plain())
}

// run calls a kernel: rows of n accumulators at x become bytes at out. The strides
// are bytes, params advances by step bytes with each block; place has, from the lowest bit on, the zero point
// as an int16, lo and hi. Calls of variables would make the operands escape.
func (k *requantKernels) run(kernel int, out *byte, x *int32, params *int64, step, n, rows, outStride, xStride int, place *uint32) {
	switch {
	case k.whole && kernel == requantFar:
		requantFarx256(out, x, params, step, n, rows, outStride, xStride, place)
	case k.whole && kernel == requantNear:
		requantNearx256(out, x, params, step, n, rows, outStride, xStride, place)
	case k.whole && kernel == requantTwo:
		requantTwox256(out, x, params, step, n, rows, outStride, xStride, place)
	case k.whole:
		requantFloatx256(out, x, params, step, n, rows, outStride, xStride, place)
	case kernel == requantFar:
		requantFarx512(out, x, params, step, n, rows, outStride, xStride, place)
	case kernel == requantNear:
		requantNearx512(out, x, params, step, n, rows, outStride, xStride, place)
	case kernel == requantTwo:
		requantTwox512(out, x, params, step, n, rows, outStride, xStride, place)
	default:
		requantFloatx512(out, x, params, step, n, rows, outStride, xStride, place)
	}
}
