// SPDX-License-Identifier: Apache-2.0

package gemm

import (
	"fmt"
	"testing"
	"time"
)

// best runs f for a while and reports the operations per second of its fastest run.
func best(b *testing.B, ops float64, f func()) {
	least := time.Duration(1 << 62)
	for b.Loop() {
		from := time.Now()
		f()
		least = min(least, time.Since(from))
	}
	b.ReportMetric(ops/least.Seconds()/1e9, "Gop/s-best")
}

func BenchmarkMulInt8(b *testing.B) {
	for _, tier := range tiers() {
		for _, threads := range []int{1, 2} {
			for _, n := range []int{256, 512, 1024, 2048} {
				if n > 256 && tier.name == "go" {
					continue
				}
				b.Run(fmt.Sprintf("%s/%d/%d", tier.name, threads, n), func(b *testing.B) {
					e := newEngine(tier, threads)
					defer e.Close()
					var w Weights
					e.PackInt8(&w, make([]byte, n*n), n, n, n)
					p := Int8{A: make([]byte, n*n), AStride: n, M: n, C: make([]int32, n*n), CStride: n}
					best(b, 2*float64(n)*float64(n)*float64(n), func() { e.MulInt8(&w, p) })
				})
			}
		}
	}
}

func BenchmarkPackInt8(b *testing.B) {
	for _, tier := range tiers() {
		for _, n := range []int{32, 1024} {
			b.Run(fmt.Sprintf("%s/%d", tier.name, n), func(b *testing.B) {
				e := newEngine(tier, 1)
				var w Weights
				x := make([]byte, n*n)
				best(b, float64(n*n), func() { e.PackInt8(&w, x, n, n, n) })
			})
		}
	}
}

func BenchmarkMulFloat(b *testing.B) {
	for _, tier := range tiers() {
		for _, typ := range floatTypes {
			for _, n := range []int{256, 1024} {
				if n > 256 && tier.name == "go" {
					continue
				}
				b.Run(fmt.Sprintf("%s/%d/%d", tier.name, typ, n), func(b *testing.B) {
					e := newEngine(tier, 1)
					defer e.Close()
					var w Weights
					e.PackFloat(&w, Float32, make([]byte, 4*n*n), 4*n, n, n)
					p := Float{Type: typ, A: make([]byte, typ.Size()*n*n), AStride: typ.Size() * n, M: n, C: make([]float32, n*n), CStride: n}
					best(b, 2*float64(n)*float64(n)*float64(n), func() { e.MulFloat(&w, p) })
				})
			}
		}
	}
}
