// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"fmt"
	"testing"
	"time"

	"npuemu/core"
	"npuemu/core/isa"
)

// BenchmarkCurve shows that the time of a multiply-accumulate does not grow with the size of the array, the length of the
// program or the number of tiles: on one thread, the best run of each (docs/performance.md).
func BenchmarkCurve(b *testing.B) {
	measure := func(name string, dim int, text []isa.Instruction) {
		b.Run(name, func(b *testing.B) {
			cfg := core.Config{Rows: dim, Cols: dim, SpadSize: 1 << 20, AccSize: 1 << 20, ISAMinor: isa.Minor, Features: isa.Features, Threads: 1}
			p := program(cfg, 0, isa.Text(append(text, isa.Halt{})...))
			p.Minor, p.Features = cfg.ISAMinor, cfg.Features
			c, image := newCore(b, cfg), p.Image()
			least, macs := time.Hour, uint64(0)
			for b.Loop() {
				from := time.Now()
				stats, err := c.Run(b.Context(), image, nil, nil)
				if err != nil {
					b.Fatal(err)
				}
				least, macs = min(least, time.Since(from)), stats.MACs
			}
			b.ReportMetric(least.Seconds()*1e12/float64(macs), "ps/MAC")
			b.ReportMetric(float64(macs)/1e6, "MMAC")
		})
	}
	// One tile as large as the array, again and again: the work is the same for all sizes.
	for _, dim := range []int{8, 16, 32, 64, 128, 256} {
		measure(fmt.Sprintf("array/%d", dim), dim, []isa.Instruction{
			isa.Preload{K: uint16(dim), N: uint16(dim), Stride: uint32(dim)},
			isa.Loop{Count: uint32(1 << 16 / dim)},
			isa.Matmul{MX: 256, MY: 1, K: uint16(dim), N: uint16(dim), StrideX: uint16(dim), AccStride: uint16(4 * dim), Accumulate: true},
			isa.End{},
		})
	}
	// What Gemmini's functional model is timed with: weights of 16 × 16, and 16 rows.
	measure("tile of 16", 16, []isa.Instruction{
		isa.Loop{Count: 10_000},
		isa.Preload{K: 16, N: 16, Stride: 16},
		isa.Matmul{MX: 16, MY: 1, K: 16, N: 16, StrideX: 16, AccStride: 64},
		isa.End{},
	})
	tile := []isa.Instruction{
		isa.Preload{K: 32, N: 32, Stride: 32},
		isa.Matmul{MX: 256, MY: 1, K: 32, N: 32, StrideX: 32, AccStride: 128, Accumulate: true},
	}
	for _, n := range []int{100, 1000, 10_000, 100_000} {
		measure(fmt.Sprintf("tiles/%d", n), 32, append(append([]isa.Instruction{isa.Loop{Count: uint32(n)}}, tile...), isa.End{}))
	}
	for _, n := range []int{100, 1000, 10_000} {
		var text []isa.Instruction
		for range n {
			text = append(text, tile...)
		}
		measure(fmt.Sprintf("length/%d", n), 32, text)
	}
	for _, n := range []int{64, 128, 256, 512} {
		measure(fmt.Sprintf("gemm/%d", n), 32, []isa.Instruction{
			isa.Operands{AStride: uint32(n), BStride: uint32(n), AccStride: uint32(4 * n)},
			isa.Loop{Count: uint32(1 << 27 / n / n / n)},
			isa.Gemm{M: uint32(n), N: uint32(n), K: uint32(n), B: 1 << 19},
			isa.End{},
		})
	}
}
