// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"testing"

	"npuemu/core/systolic"
)

// The rules of SCALES.
func TestCheckScales(t *testing.T) {
	scales := Scales{
		Rounding: TwoRoundings, Left: 31, XZero: -7, YZero: 7, Zero: -1, Lo: -128, Hi: -128,
		XScale: 1<<31 - 1, YScale: 0, Scale: 1 << 30, XShift: 1, YShift: 62, SShift: 31,
	}
	float := Scales{Rounding: FloatScale, Hi: 1, XScale: 0x7f7fffff, YScale: 0, Scale: 0xff7fffff}
	for _, tt := range []struct {
		name string
		in   Scales
		info uint64 // 0: no violation
	}{
		{"two", scales, 0},
		{"one", edit(scales, func(i *Scales) { i.Rounding = OneRounding }), 0},
		{"float", float, 0},
		{"rounding", edit(scales, func(i *Scales) { i.Rounding = 3 }), 4},
		{"left", edit(scales, func(i *Scales) { i.Left = 32 }), 5},
		{"left of float", edit(float, func(i *Scales) { i.Left = 1 }), 5},
		{"hi", edit(scales, func(i *Scales) { i.Lo = -127 }), 14},
		{"x_scale below 0", edit(scales, func(i *Scales) { i.XScale = 1 << 31 }), 16},
		{"y_scale below 0", edit(scales, func(i *Scales) { i.YScale = 1 << 31 }), 20},
		{"scale below 0", edit(scales, func(i *Scales) { i.Scale = 1 << 31 }), 24},
		{"infinite x_scale", edit(float, func(i *Scales) { i.XScale = 0x7f800000 }), 16},
		{"y_scale of -0", edit(float, func(i *Scales) { i.YScale = 1 << 31 }), 20},
		{"term that is NaN", edit(float, func(i *Scales) { i.Scale = 0xffc00000 }), 24},
		{"x_shift 0", edit(scales, func(i *Scales) { i.XShift = 0 }), 28},
		{"y_shift 63", edit(scales, func(i *Scales) { i.YShift = 63 }), 29},
		{"shift 0", edit(scales, func(i *Scales) { i.SShift = 0 }), 30},
		{"x_shift of float", edit(float, func(i *Scales) { i.XShift = 1 }), 28},
		{"shift of float", edit(float, func(i *Scales) { i.SShift = 1 }), 30},
	} {
		v := tt.in.Check(testLimits)
		if tt.info == 0 && v != nil || tt.info != 0 && (v == nil || v.Rule != BadOperand || v.Info != tt.info) {
			t.Errorf("%s: Check = %+v, want info %d", tt.name, v, tt.info)
		}
	}
}

// The rules of ADDQ. A row changes what fits the limits exactly.
func TestCheckAddq(t *testing.T) {
	// 3 rows of 5 int16.
	addq := Addq{Type: systolic.Int16, X: 4096 - 34, Y: 4096 - 50, Out: 4096 - 30, M: 3, N: 5, XStride: 12, YStride: 20, OutStride: 10}
	fits := Scales{Rounding: OneRounding, XZero: -128, YZero: 127, Zero: 3, Lo: -5, Hi: 6, XShift: 1, YShift: 1, SShift: 1}
	narrow := edit(addq, func(i *Addq) { i.Type = systolic.Int8 })
	for _, tt := range []struct {
		name   string
		in     Addq
		scales Scales
		rule   Rule // 0: no violation
		info   uint64
	}{
		{"add", addq, fits, 0, 0},
		{"sub", edit(addq, func(i *Addq) { i.Op = AddqSub }), fits, 0, 0},
		{"mul", edit(addq, func(i *Addq) { i.Op = AddqMul }), fits, 0, 0},
		{"int8", narrow, fits, 0, 0},
		{"as a program begins", edit(addq, func(i *Addq) { i.Type = systolic.Uint8 }), initialSetup.Scales, 0, 0},
		{"one y", edit(addq, func(i *Addq) { i.One, i.Y, i.YStride = true, 4094, 0 }), fits, 0, 0},
		{"op", edit(addq, func(i *Addq) { i.Op = 3 }), fits, BadOperand, 4},
		{"int32", edit(addq, func(i *Addq) { i.Type = systolic.Int32 }), fits, BadOperand, 5},
		{"fp32", edit(addq, func(i *Addq) { i.Type = systolic.FP32 }), fits, BadOperand, 5},
		{"int4", edit(addq, func(i *Addq) { i.Type = systolic.Int4 }), fits, BadOperand, 5},
		{"x alignment", edit(addq, func(i *Addq) { i.X-- }), fits, BadOperand, 8},
		{"y alignment", edit(addq, func(i *Addq) { i.Y-- }), fits, BadOperand, 12},
		{"out alignment", edit(addq, func(i *Addq) { i.Out-- }), fits, BadOperand, 16},
		{"m", edit(addq, func(i *Addq) { i.M = 0 }), fits, BadOperand, 20},
		{"n", edit(addq, func(i *Addq) { i.N = 0 }), fits, BadOperand, 24},
		{"x_stride", edit(addq, func(i *Addq) { i.XStride = 11 }), fits, BadOperand, 26},
		{"y_stride of one", edit(addq, func(i *Addq) { i.One = true }), fits, BadOperand, 28},
		{"out_stride", edit(addq, func(i *Addq) { i.OutStride = 8 }), fits, BadOperand, 30},
		{"operands before the setup", edit(narrow, func(i *Addq) { i.N = 0 }), edit(fits, func(s *Scales) { s.XZero = 128 }), BadOperand, 24},
		{"x_zero", narrow, edit(fits, func(s *Scales) { s.XZero = 128 }), BadSetup, 166},
		{"y_zero", narrow, edit(fits, func(s *Scales) { s.YZero = -129 }), BadSetup, 168},
		{"zero_point", edit(narrow, func(i *Addq) { i.Type = systolic.Uint8 }), Scales{Zero: 256}, BadSetup, 170},
		{"lo", edit(narrow, func(i *Addq) { i.Type = systolic.Uint8 }), Scales{Lo: -1}, BadSetup, 172},
		{"hi", narrow, edit(fits, func(s *Scales) { s.Hi = 128 }), BadSetup, 174},
		{"setup before bounds", edit(narrow, func(i *Addq) { i.X += 4096 }), edit(fits, func(s *Scales) { s.Hi = 128 }), BadSetup, 174},
		{"x bounds", edit(addq, func(i *Addq) { i.X += 2 }), fits, LocalBounds, 4096},
		{"y bounds", edit(addq, func(i *Addq) { i.Y += 2 }), fits, LocalBounds, 4096},
		{"out bounds", edit(addq, func(i *Addq) { i.Out += 2 }), fits, LocalBounds, 4096},
	} {
		l := testLimits
		l.Setup.Apply(tt.scales)
		v := tt.in.Check(l)
		if tt.rule == 0 && v != nil || tt.rule != 0 && (v == nil || v.Rule != tt.rule || v.Info != tt.info) {
			t.Errorf("%s: Check = %+v, want %v with info %d", tt.name, v, tt.rule, tt.info)
		}
	}
}

// What ADDQ reads and writes, after SCALES, which touches nothing.
func TestAddqAccesses(t *testing.T) {
	var s Setup
	w := Scales{Zero: 9}.Encode()
	s.Follow(&w)
	if list := Accesses(nil, &w, &s); len(list) > 0 || s.Scales.Zero != 9 {
		t.Errorf("SCALES: accesses %v, setup %+v", list, s.Scales)
	}
	w = Addq{One: true, Type: systolic.Int16, X: 64, Y: 32, Out: 128, M: 2, N: 3, XStride: 8, OutStride: 6}.Encode()
	want := []Access{
		{Rows: Rows{Base: 64, Outer: 1, Inner: 2, InnerStride: 8, Bytes: 6}},
		{Rows: Rows{Base: 32, Outer: 1, Inner: 1, Bytes: 2}},
		{Write: true, Rows: Rows{Base: 128, Outer: 1, Inner: 2, InnerStride: 6, Bytes: 6}},
	}
	got := Accesses(nil, &w, &s)
	if len(got) != len(want) {
		t.Fatalf("accesses %+v, want %+v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("access %d: %+v, want %+v", i, got[i], want[i])
		}
	}
}
