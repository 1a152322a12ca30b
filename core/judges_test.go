// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"testing"

	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// judged is a row of testdata/images.json.
type judged struct {
	Judge, Type, Instruction string
	In, Out                  [3]int // lines, pixels, channels
	X, Y                     string // hexadecimal
	Tolerance                float64
	Op, Mode                 string
	Kernel, Steps, Dilations [2]int
	Pads                     [4]int // top, left, bottom, right
	CountPad                 bool   `json:"count_pad"`
	Half, Center             bool
	Scale                    [4]uint32
}

var judgedTypes = map[string]systolic.Type{
	"int8": systolic.Int8, "uint8": systolic.Uint8, "int16": systolic.Int16, "int32": systolic.Int32, "fp32": systolic.FP32,
}

// instructions returns what makes the row's image at byte 4096 of that at 0.
func (j *judged) instructions() []isa.Instruction {
	t := judgedTypes[j.Type]
	size := int(t.Bytes(1))
	pixel := size * j.In[2]
	im := isa.Image{
		Type: t, OutType: t, InH: uint16(j.In[0]), InW: uint16(j.In[1]), OutH: uint16(j.Out[0]), OutW: uint16(j.Out[1]),
		XLine: uint32(j.In[1] * pixel), OutLine: uint32(j.Out[1] * pixel), XPixel: uint16(pixel), OutPixel: uint16(pixel),
	}
	if j.Instruction == "resize" {
		modes := map[string]isa.ResizeMode{
			"floor": isa.ResizeFloor, "ceil": isa.ResizeCeil, "round_down": isa.ResizeRoundDown, "round_up": isa.ResizeRoundUp,
			"linear": isa.ResizeLinear, "fixed": isa.ResizeFixed,
		}
		return []isa.Instruction{im, isa.Resize{
			Half: j.Half, Center: j.Center, Mode: modes[j.Mode], N: uint16(j.In[2]), Out: 4096,
			MulY: j.Scale[0], DivY: j.Scale[1], MulX: j.Scale[2], DivX: j.Scale[3],
		}}
	}
	p := isa.Pool{
		CountPad: j.CountPad, Op: map[string]isa.PoolOp{"max": isa.PoolMax, "average": isa.PoolAverage}[j.Op], N: uint16(j.In[2]), Out: 4096,
		KernelH: uint16(j.Kernel[0]), KernelW: uint16(j.Kernel[1]), StepY: uint8(j.Steps[0]), StepX: uint8(j.Steps[1]),
		DilationY: uint8(j.Dilations[0]), DilationX: uint8(j.Dilations[1]), PadTop: uint16(j.Pads[0]), PadLeft: uint16(j.Pads[1]),
	}
	if p.CountPad {
		p.PadBottom, p.PadRight = uint16(j.Pads[2]), uint16(j.Pads[3])
	}
	return []isa.Instruction{im, p}
}

// TestJudges compares with what ONNX Runtime and LiteRT made of the same images
// (testdata/README.md): the same bits of integers and of what only selects,
// within a tolerance what adds up fp32.
func TestJudges(t *testing.T) {
	b, err := os.ReadFile("testdata/images.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []judged
	if err := json.Unmarshal(b, &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) < 200 {
		t.Fatalf("%d rows, want all", len(rows))
	}
	for _, j := range rows {
		x, err := hex.DecodeString(j.X)
		if err != nil {
			t.Fatal(err)
		}
		want, err := hex.DecodeString(j.Y)
		if err != nil {
			t.Fatal(err)
		}
		out := make([]byte, len(want))
		text := append([]isa.Instruction{isa.Load{NX: uint32(len(x)), NY: 1, NZ: 1}}, j.instructions()...)
		text = append(text, isa.Store{Binding: 1, Local: 4096, NX: uint32(len(out)), NY: 1, NZ: 1})
		raw := isa.Text(text...)
		tokensBetween(raw)
		m := &memory{t: t, bufs: [][]byte{x, out}}
		if _, err := newCore(t, newConfig).Run(t.Context(), newProgram(2, append(raw, isa.Text(isa.Halt{})...)).Image(), m.bind(), m); err != nil {
			t.Errorf("%s, %s: %v", j.Judge, j.Type, err)
			continue
		}
		worst, unit := 0.0, 1.0
		kind, size := judgedTypes[j.Type], int(judgedTypes[j.Type].Bytes(1))
		number := func(b []byte, k int) float64 {
			if kind == systolic.FP32 {
				return float64(kind.Real(b, k))
			}
			return float64(kind.Integer(b, k))
		}
		if kind == systolic.FP32 {
			unit = 0
			for k := range len(x) / size {
				unit = max(unit, math.Abs(number(x, k)))
			}
		}
		differ := 0
		for k := range len(out) / size {
			if got, want := number(out, k), number(want, k); got != want {
				differ++
				worst = max(worst, math.Abs(got-want)/unit)
			}
		}
		if !(worst <= j.Tolerance) {
			t.Errorf("%s, %s %v to %v: %d elements of %d differ, by up to %.3g", j.Judge, j.Type, j.In, j.Out, differ, len(out)/size, worst)
		}
	}
}
