// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"npuemu/core"
	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// large is a program of products that are worth several threads: int8, fp32 and a convolution.
func large() (image []byte, cfg core.Config) {
	cfg = newConfig
	cfg.SpadSize, cfg.AccSize = 1<<20, 1<<20
	store := func(first uint64) isa.Store {
		return isa.Store{Binding: 1, Offset: first, Acc: true, NX: 4 * 400, NY: 300, NZ: 1, StrideY: 4 * 400, LocalStride: 4 * 400, Wait: tok(1, 1), Signal: tok(2, 1)}
	}
	p := program(cfg, 2, isa.Text(
		isa.Load{NX: 1 << 20, NY: 1, NZ: 1, Signal: tok(0, 1)},
		isa.Operands{AStride: 310, BStride: 400, AccStride: 1600, AZero: 3, BZero: -2, Wait: tok(0, 1)},
		isa.Gemm{M: 300, N: 400, K: 310, B: 200000, Signal: tok(1, 1)},
		store(0),
		isa.Operands{A: systolic.FP32, B: systolic.FP32, AStride: 1240, BStride: 1600, AccStride: 1600, Wait: tok(2, 1)},
		isa.Gemm{M: 300, N: 400, K: 90, B: 500000, Signal: tok(1, 1)},
		store(300*1600),
		isa.Operands{AStride: 64, BStride: 400, AccStride: 1600, Wait: tok(2, 1)},
		isa.Window{KernelH: 3, KernelW: 3, StepY: 1, StepX: 1, DilationY: 1, DilationX: 1, Groups: 1, PadTop: 1, PadLeft: 1},
		isa.Conv{InH: 15, InW: 20, OutH: 15, OutW: 20, Cin: 64, Cout: 400, B: 300000, Line: 20 * 64, Signal: tok(1, 1)},
		store(2*300*1600),
		isa.Halt{},
	))
	p.Minor, p.Features = newConfig.ISAMinor, newConfig.Features
	return p.Image(), cfg
}

// Results do not depend on the number of threads, and Close ends them all.
func TestThreads(t *testing.T) {
	before := runtime.NumGoroutine()
	image, cfg := large()
	in := randomBytes(rand.New(rand.NewPCG(1, 7)), cfg.SpadSize)
	var want []byte
	for _, cfg.Threads = range []int{1, 2, 3, 7} {
		t.Run(fmt.Sprint(cfg.Threads), func(t *testing.T) {
			c, err := core.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			m := &memory{t: t, bufs: [][]byte{in, make([]byte, 3*300*1600)}}
			if _, err := c.Run(t.Context(), image, m.bind(), m); err != nil {
				t.Fatal(err)
			}
			if n := runtime.NumGoroutine(); cfg.Threads > 1 && n < before+cfg.Threads-1 {
				t.Errorf("%d goroutines, %d before: no threads were made", n, before)
			}
			c.Close()
			if want == nil {
				want = m.bufs[1]
			}
			if !bytes.Equal(m.bufs[1], want) {
				t.Error("results differ from those of one thread")
			}
		})
	}
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, %d before", n, before)
	}
}
