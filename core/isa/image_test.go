// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"testing"

	"npuemu/core/systolic"
)

// The rules of IMAGE, POOL and RESIZE. A row changes what fits the limits exactly.
func TestCheckImage(t *testing.T) {
	// 3 × 5 pixels of 7 elements of 2 bytes become 2 × 4 of 4 bytes.
	im := Image{
		Type: systolic.Int16, OutType: systolic.Int32, Zero: -300, InH: 3, InW: 5, OutH: 2, OutW: 4,
		XPixel: 14, XLine: 70, OutPixel: 28, OutLine: 112,
	}
	pool := Pool{
		CountPad: true, Op: PoolAverage, N: 7, X: 0, Out: 4096 - 224, KernelH: 2, KernelW: 2, StepY: 1, StepX: 1, DilationY: 1, DilationX: 1,
		PadBottom: 1, PadRight: 1,
	}
	resize := Resize{Mode: ResizeLinear, N: 7, X: 4096 - 210, Out: 0, MulY: 0x3f800000, DivY: 0x3f800000, MulX: 0x3f800000, DivX: 0x3f800000}
	fixed := edit(resize, func(i *Resize) { i.Mode, i.MulY, i.DivY, i.MulX, i.DivX = ResizeFixed, 1, 0, 65535<<10, 0 })
	acc := edit(im, func(i *Image) { i.XAcc, i.OutAcc, i.Type, i.XPixel, i.XLine = true, true, systolic.Int32, 28, 140 })
	float := edit(im, func(i *Image) { i.Type, i.Zero = systolic.BF16, 0 })
	for _, tt := range []struct {
		name  string
		image Image // the setup; ignored by IMAGE
		in    Instruction
		rule  Rule // 0: no violation
		info  uint64
	}{
		{"IMAGE", im, im, 0, 0},
		{"IMAGE in the accumulators", im, acc, 0, 0},
		{"IMAGE type", im, edit(im, func(i *Image) { i.Type = systolic.Int4 }), BadOperand, 4},
		{"IMAGE type unknown", im, edit(im, func(i *Image) { i.Type = 7 }), BadOperand, 4},
		{"IMAGE narrow in the accumulators", im, edit(im, func(i *Image) { i.XAcc = true }), BadOperand, 4},
		{"IMAGE out_type", im, edit(im, func(i *Image) { i.OutType = 13 }), BadOperand, 5},
		{"IMAGE narrow into the accumulators", im, edit(im, func(i *Image) { i.OutAcc, i.OutType = true, systolic.BF16 }), BadOperand, 5},
		{"IMAGE zero", im, edit(im, func(i *Image) { i.Type, i.Zero = systolic.Uint8, -1 }), BadOperand, 6},
		{"IMAGE zero of floats", im, edit(float, func(i *Image) { i.Zero = 1 }), BadOperand, 6},
		{"IMAGE zero of int32", im, edit(acc, func(i *Image) { i.Zero = -32768 }), 0, 0},
		{"IMAGE in_h", im, edit(im, func(i *Image) { i.InH = 0 }), BadOperand, 8},
		{"IMAGE in_w", im, edit(im, func(i *Image) { i.InW = 0 }), BadOperand, 10},
		{"IMAGE out_h", im, edit(im, func(i *Image) { i.OutH = 0 }), BadOperand, 12},
		{"IMAGE out_w", im, edit(im, func(i *Image) { i.OutW = 0 }), BadOperand, 14},
		{"IMAGE x_line", im, edit(im, func(i *Image) { i.XLine++ }), BadOperand, 16},
		{"IMAGE out_line", im, edit(im, func(i *Image) { i.OutLine += 2 }), BadOperand, 20},
		{"IMAGE x_pixel", im, edit(im, func(i *Image) { i.XPixel++ }), BadOperand, 24},
		{"IMAGE out_pixel", im, edit(im, func(i *Image) { i.OutPixel += 2 }), BadOperand, 26},

		{"POOL", im, pool, 0, 0},
		{"POOL in the accumulators", acc, edit(pool, func(i *Pool) { i.X, i.Out = 0, 2048-224 }), 0, 0},
		{"POOL padding in a maximum", im, edit(pool, func(i *Pool) { i.Op = PoolMax }), BadOperand, 1},
		{"POOL op", im, edit(pool, func(i *Pool) { i.CountPad, i.Op = false, 4 }), BadOperand, 4},
		{"POOL n", im, edit(pool, func(i *Pool) { i.N = 0 }), BadOperand, 6},
		{"POOL x alignment", im, edit(pool, func(i *Pool) { i.X = 1 }), BadOperand, 8},
		{"POOL out alignment", im, edit(pool, func(i *Pool) { i.Out -= 2 }), BadOperand, 12},
		{"POOL kernel_h", im, edit(pool, func(i *Pool) { i.KernelH = 0 }), BadOperand, 16},
		{"POOL kernel_w", im, edit(pool, func(i *Pool) { i.KernelW = 0 }), BadOperand, 18},
		{"POOL window", im, edit(pool, func(i *Pool) { i.KernelH, i.KernelW = 4096, 4096 }), 0, 0},
		{"POOL window too large", im, edit(pool, func(i *Pool) { i.KernelH, i.KernelW = 4096, 4097 }), BadOperand, 18},
		{"POOL step_y", im, edit(pool, func(i *Pool) { i.StepY = 0 }), BadOperand, 20},
		{"POOL step_x", im, edit(pool, func(i *Pool) { i.StepX = 0 }), BadOperand, 21},
		{"POOL dilation_y", im, edit(pool, func(i *Pool) { i.DilationY = 0 }), BadOperand, 22},
		{"POOL dilation_x", im, edit(pool, func(i *Pool) { i.DilationX = 0 }), BadOperand, 23},
		{"POOL pad_bottom", im, edit(pool, func(i *Pool) { i.CountPad = false }), BadOperand, 28},
		{"POOL pad_right", im, edit(pool, func(i *Pool) { i.CountPad, i.PadBottom = false, 0 }), BadOperand, 30},
		{"POOL x_line", edit(im, func(i *Image) { i.XLine -= 2 }), pool, BadSetup, 64 + 16},
		{"POOL x_pixel", edit(im, func(i *Image) { i.XPixel -= 2 }), pool, BadSetup, 64 + 24},
		{"POOL out_line", edit(im, func(i *Image) { i.OutLine -= 4 }), pool, BadSetup, 64 + 20},
		{"POOL out_pixel", edit(im, func(i *Image) { i.OutPixel -= 4 }), pool, BadSetup, 64 + 26},
		{"POOL one pixel needs no stride", Image{InH: 1, InW: 1, OutH: 1, OutW: 1}, edit(pool, func(i *Pool) { i.Out = 7 }), 0, 0},
		{"POOL x bounds", im, edit(pool, func(i *Pool) { i.X = 4096 - 208 }), LocalBounds, 4096},
		{"POOL out bounds", im, edit(pool, func(i *Pool) { i.Out += 4 }), LocalBounds, 4096},
		{"POOL accumulator bounds", acc, edit(pool, func(i *Pool) { i.X, i.Out = 4, 2048-220 }), LocalBounds, 2048},
		{"POOL overlap", im, edit(pool, func(i *Pool) { i.Out = 208 }), Overlap, 208},
		{"POOL overlap from below", im, edit(pool, func(i *Pool) { i.Out, i.X = 0, 222 }), Overlap, 222},
		{"POOL beside", im, edit(pool, func(i *Pool) { i.Out, i.X = 0, 224 }), 0, 0},
		{"POOL other memory", edit(im, func(i *Image) { i.OutAcc = true }), edit(pool, func(i *Pool) { i.Out = 0 }), 0, 0},

		{"RESIZE", im, resize, 0, 0},
		{"RESIZE fixed", im, fixed, 0, 0},
		{"RESIZE without scaling", im, edit(resize, func(i *Resize) { i.MulY, i.DivY, i.MulX, i.DivX = 0, 0, 0, 0 }), 0, 0},
		{"RESIZE mode", im, edit(resize, func(i *Resize) { i.Mode = 6 }), BadOperand, 4},
		{"RESIZE fixed of floats", float, fixed, BadOperand, 4},
		{"RESIZE n", im, edit(resize, func(i *Resize) { i.N = 0 }), BadOperand, 6},
		{"RESIZE x alignment", im, edit(resize, func(i *Resize) { i.X++ }), BadOperand, 8},
		{"RESIZE out alignment", im, edit(resize, func(i *Resize) { i.Out = 2 }), BadOperand, 12},
		{"RESIZE mul_y infinite", im, edit(resize, func(i *Resize) { i.MulY = 0x7f800000 }), BadOperand, 16},
		{"RESIZE div_y NaN", im, edit(resize, func(i *Resize) { i.DivY = 0x7fc00000 }), BadOperand, 20},
		{"RESIZE mul_x negative", im, edit(resize, func(i *Resize) { i.MulX = 0xbf800000 }), BadOperand, 24},
		{"RESIZE div_x -0", im, edit(resize, func(i *Resize) { i.DivX = 0x80000000 }), BadOperand, 28},
		{"RESIZE fixed mul_y", im, edit(fixed, func(i *Resize) { i.MulY = 0 }), BadOperand, 16},
		{"RESIZE fixed div_y", im, edit(fixed, func(i *Resize) { i.DivY = 1 }), BadOperand, 20},
		{"RESIZE fixed mul_x", im, edit(fixed, func(i *Resize) { i.MulX++ }), BadOperand, 24},
		{"RESIZE fixed div_x", im, edit(fixed, func(i *Resize) { i.DivX = 1 }), BadOperand, 28},
		{"RESIZE x_line", edit(im, func(i *Image) { i.XLine -= 2 }), resize, BadSetup, 64 + 16},
		{"RESIZE x bounds", im, edit(resize, func(i *Resize) { i.X += 2 }), LocalBounds, 4096},
		{"RESIZE overlap", im, edit(resize, func(i *Resize) { i.X = 222 }), Overlap, 222},
	} {
		l := testLimits
		l.Setup.Image = tt.image
		v := tt.in.Check(l)
		if tt.rule == 0 && v != nil || tt.rule != 0 && (v == nil || v.Rule != tt.rule || v.Info != tt.info) {
			t.Errorf("%s: Check = %+v, want %v with info %d", tt.name, v, tt.rule, tt.info)
		}
	}
}
