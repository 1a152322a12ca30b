// SPDX-License-Identifier: Apache-2.0

package vec

import "golang.org/x/sys/cpu"

// tiers are those that this machine has, the best first. The processor and the
// operating system (XGETBV) are asked by package cpu.
func tiers() []*tier {
	var t []*tier
	if cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL && cpu.X86.HasBMI2 {
		t = append(t, &tier{
			name:    "avx512",
			requant: requantKernels{block: 64, one: requantOne512, near: requantNear512, two: requantTwo512, float: requantFloat512},
		})
	}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		t = append(t, &tier{
			name: "avx2",
			requant: requantKernels{
				block: 32, whole: true, bias: 1 << 62,
				one: requantOne256, near: requantNear256, two: requantTwo256, float: requantFloat256,
			},
		})
	}
	return append(t, &tier{name: "go"})
}
