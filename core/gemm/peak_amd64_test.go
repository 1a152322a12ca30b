// SPDX-License-Identifier: Apache-2.0

package gemm

import (
	"testing"

	"golang.org/x/sys/cpu"
)

func BenchmarkPeak(b *testing.B) {
	if !cpu.X86.HasAVX512VNNI {
		b.Skip("no AVX-512 VNNI")
	}
	best(b, 24*64*2*1e4, func() { peak512(1e4) })
}
