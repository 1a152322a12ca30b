// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"npuemu/core"
	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// wrap32 is v modulo 2³², in two's complement.
func wrap32(v *big.Int) *big.Int {
	return big.NewInt(int64(int32(new(big.Int).And(v, big.NewInt(1<<32-1)).Uint64())))
}

// scaled32 is r of §6.9.1 or §6.9.2 for v, an int32.
func scaled32(two bool, v *big.Int, q uint32, s uint8) *big.Int {
	pow := func(n uint) *big.Int { return new(big.Int).Lsh(big.NewInt(1), n) }
	m := big.NewInt(int64(q))
	switch {
	case !two:
		return nearest(m.Mul(m, v), pow(uint(s)), false)
	case s <= 31:
		v = wrap32(new(big.Int).Lsh(v, uint(31-s)))
		return nearest(m.Mul(m, v), pow(31), false)
	}
	return nearest(nearest(m.Mul(m, v), pow(31), false), pow(uint(s)-31), true)
}

// paired is ADDQ of §6.18 for two elements, in unbounded numbers.
func paired(s isa.Scales, op isa.AddqOp, x, y int64) int64 {
	x, y = x-int64(s.XZero), y-int64(s.YZero)
	place := func(r *big.Int) int64 {
		r.Add(r, big.NewInt(int64(s.Zero)))
		lo, hi := big.NewInt(int64(s.Lo)), big.NewInt(int64(s.Hi))
		switch {
		case r.Cmp(lo) < 0:
			return lo.Int64()
		case r.Cmp(hi) > 0:
			return hi.Int64()
		}
		return r.Int64()
	}
	if s.Rounding != isa.FloatScale {
		two := s.Rounding == isa.TwoRoundings
		a := scaled32(two, wrap32(new(big.Int).Lsh(big.NewInt(x), uint(s.Left))), s.XScale, s.XShift)
		b := scaled32(two, wrap32(new(big.Int).Lsh(big.NewInt(y), uint(s.Left))), s.YScale, s.YShift)
		t := a.Add(a, b)
		if op == isa.AddqSub {
			t = t.Sub(t, new(big.Int).Lsh(b, 1))
		}
		if op == isa.AddqMul {
			t = big.NewInt(x * y)
		}
		return place(scaled32(two, wrap32(t), s.Scale, s.SShift))
	}
	// Rounding once what fp64 or big numbers have exactly, ±∞ being beyond all ranges.
	single := func(v *big.Float) float32 {
		f, _ := v.Float32()
		return f
	}
	exact := func(f float64) *big.Float { return new(big.Float).SetPrec(400).SetFloat64(f) }
	fma := func(a int64, b float32, c float32) float32 {
		if math.IsInf(float64(c), 0) {
			return c
		}
		p := exact(float64(float32(a)))
		return single(p.Add(p.Mul(p, exact(float64(b))), exact(float64(c))))
	}
	scale := func(w uint32) float32 { return math.Float32frombits(w) }
	var v float32
	switch op {
	case isa.AddqAdd:
		v = fma(x, scale(s.XScale), fma(y, scale(s.YScale), scale(s.Scale)))
	case isa.AddqSub:
		v = fma(x, scale(s.XScale), fma(y, -scale(s.YScale), scale(s.Scale)))
	default:
		v = float32(float64(float32(float64(float32(int32(x*y)))*float64(scale(s.XScale)))) + float64(scale(s.Scale)))
	}
	switch {
	case math.IsNaN(float64(v)):
		v = 0
	case math.IsInf(float64(v), 0):
		v = float32(math.Copysign(1<<31, float64(v)))
	}
	r, _ := big.NewFloat(math.RoundToEven(float64(v))).Int(nil)
	return place(r)
}

// randomScales returns SCALES for a type, mostly of results that are not all clamped.
func randomScales(rng *rand.Rand, t systolic.Type) isa.Scales {
	lo, hi := integerRange(t)
	value := func() int16 { return int16(lo + rng.Int64N(hi-lo+1)) }
	if t == systolic.Uint8 {
		value = func() int16 { return int16(rng.IntN(256)) }
	}
	s := isa.Scales{Rounding: isa.Rounding(rng.IntN(3)), XZero: value(), YZero: value(), Zero: value(), Lo: int16(lo), Hi: int16(hi)}
	if rng.IntN(3) == 0 {
		s.Lo, s.Hi = value(), value()
		s.Lo, s.Hi = min(s.Lo, s.Hi), max(s.Lo, s.Hi)
	}
	if s.Rounding == isa.FloatScale {
		real := func(limit float64) uint32 { return math.Float32bits(float32(math.Exp(rng.NormFloat64() * limit))) }
		s.XScale, s.YScale, s.Scale = real(2), real(2), real(4)|rng.Uint32()&(1<<31)
		switch rng.IntN(20) {
		case 0:
			s.XScale = 0
		case 1: // beyond the range of fp32
			s.XScale, s.YScale, s.Scale = 0x7f7fffff, 0x7f7fffff, 0xff7fffff
		case 2:
			s.XScale, s.YScale, s.Scale = 0x7f000000, 1, 0
		}
		return s
	}
	s.Left = uint8(rng.IntN(4))
	if rng.IntN(2) == 0 {
		s.Left = uint8(rng.IntN(32))
	}
	multiplier := func() uint32 { return 1<<30 | rng.Uint32N(1<<30) }
	s.XScale, s.YScale, s.Scale = multiplier(), multiplier(), multiplier()
	shift := func(most int) uint8 { return uint8(min(31+rng.IntN(most), 62)) }
	s.XShift, s.YShift, s.SShift = shift(8), shift(8), shift(8+int(s.Left))
	switch rng.IntN(6) {
	case 0:
		s.XShift, s.YShift, s.SShift = uint8(1+rng.IntN(62)), uint8(1+rng.IntN(62)), uint8(1+rng.IntN(62))
	case 1:
		s.XScale, s.Scale = rng.Uint32N(2), 1<<31-1
	case 2: // as TFLite has it
		s.Left, s.XShift, s.YShift, s.SShift = 20, uint8(31+rng.IntN(3)), 31, uint8(48+rng.IntN(6))
	}
	return s
}

// runAll executes instructions with those contents of local memory and returns
// what it is then.
func runAll(t *testing.T, spad, acc []byte, in ...isa.Instruction) ([]byte, []byte) {
	t.Helper()
	bufs := [][]byte{spad, acc, make([]byte, newConfig.SpadSize), make([]byte, newConfig.AccSize)}
	text := isa.Text(
		isa.Load{Binding: 0, NX: uint32(newConfig.SpadSize), NY: 1, NZ: 1},
		isa.Load{Binding: 1, NX: uint32(newConfig.AccSize), NY: 1, NZ: 1, Acc: true},
	)
	text = append(text, isa.Text(in...)...)
	text = append(text, isa.Text(
		isa.Store{Binding: 2, NX: uint32(newConfig.SpadSize), NY: 1, NZ: 1},
		isa.Store{Binding: 3, NX: uint32(newConfig.AccSize), NY: 1, NZ: 1, Acc: true},
	)...)
	tokensBetween(text)
	m := &memory{t: t, bufs: bufs}
	if _, err := newCore(t, newConfig).Run(t.Context(), newProgram(4, append(text, isa.Text(isa.Halt{})...)).Image(), m.bind(), m); err != nil {
		t.Fatal(err)
	}
	return bufs[2], bufs[3]
}

func TestAddqAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(301, 302))
	type kind struct {
		op       isa.AddqOp
		rounding isa.Rounding
		typ      systolic.Type
	}
	seen := map[kind]int{}
	middle := 0 // results that are not clamped
	for range 2500 {
		typ := []systolic.Type{systolic.Int8, systolic.Uint8, systolic.Int16}[rng.IntN(3)]
		i := isa.Addq{
			One: rng.IntN(4) == 0, Op: isa.AddqOp(rng.IntN(3)), Type: typ, X: 2 * rng.Uint32N(1000), Y: 2 * rng.Uint32N(1000), Out: 2 * rng.Uint32N(1500),
			M: 1 + rng.Uint32N(3), N: uint16(1 + rng.IntN(150)), XStride: 2 * uint16(rng.IntN(200)), YStride: 2 * uint16(rng.IntN(200)), OutStride: 2 * uint16(rng.IntN(200)),
		}
		if rng.IntN(2) == 0 { // rows without gaps
			i.XStride = uint16(typ.Bytes(uint64(i.N)))
			i.YStride, i.OutStride = i.XStride, i.XStride
		}
		if i.One {
			i.YStride = 0
		}
		scales := randomScales(rng, typ)
		l := isa.Limits{SpadSize: uint32(newConfig.SpadSize), AccSize: uint32(newConfig.AccSize), Features: isa.Features}
		if v := scales.Check(l); v != nil {
			t.Fatalf("%+v: %v", scales, v)
		}
		l.Setup.Apply(scales)
		if i.Check(l) != nil {
			continue
		}
		seen[kind{i.Op, scales.Rounding, typ}]++
		spad, acc := randomBytes(rng, newConfig.SpadSize), randomBytes(rng, newConfig.AccSize)
		m := &model{spad: bytes.Clone(spad)}
		for r := range int(i.M) {
			var row []byte
			for k := range int(i.N) {
				yk, yr := k, r
				if i.One {
					yk, yr = 0, 0
				}
				x := m.element(byte(typ), int(i.X)+r*int(i.XStride), k)
				v := paired(scales, i.Op, x, m.element(byte(typ), int(i.Y)+yr*int(i.YStride), yk))
				if v > int64(scales.Lo) && v < int64(scales.Hi) {
					middle++
				}
				row = append(row, binary.LittleEndian.AppendUint16(nil, uint16(v))[:typ.Bytes(1)]...)
			}
			copy(m.spad[int(i.Out)+r*int(i.OutStride):], row)
		}
		if got, _ := runAll(t, spad, acc, scales, i); !bytes.Equal(got, m.spad) {
			at := 0
			for got[at] == m.spad[at] {
				at++
			}
			t.Fatalf("the scratchpad differs from byte %#x on after %+v and %+v", at, scales, i)
		}
	}
	if len(seen) != 27 || middle < 50000 {
		t.Errorf("%d kinds of instructions, want 27; %d results between the bounds", len(seen), middle)
	}
}

func TestAddqErrors(t *testing.T) {
	scales := isa.Scales{Rounding: isa.TwoRoundings, Left: 20, Lo: -128, Hi: 127, XScale: 1 << 30, YScale: 1 << 30, Scale: 1 << 30, XShift: 31, YShift: 31, SShift: 50}
	addq := isa.Addq{X: 128, Y: 1024, Out: 2048, M: 2, N: 64, XStride: 64, YStride: 64, OutStride: 64}
	one := edit(addq, func(i *isa.Addq) { i.One, i.YStride = true, 0 })
	runFaultRows(t, []faultRow{
		{"no error", isa.Features, 0, []isa.Instruction{scales, addq}, 0, 0, 0},
		{"without SCALES", isa.Features, 0, []isa.Instruction{addq}, 0, 0, 0},
		{"one y", isa.Features, 0, []isa.Instruction{scales, one}, 0, 0, 0},
		{"feature not named", isa.Features &^ isa.FeatureAddq, 0, []isa.Instruction{scales, addq}, core.StatusIllegalInstruction, 0, 0x50},
		{"feature of ADDQ not named", isa.Features &^ isa.FeatureAddq, 0, []isa.Instruction{addq}, core.StatusIllegalInstruction, 0, 0x51},
		{"scale", isa.Features, 0, []isa.Instruction{edit(scales, func(i *isa.Scales) { i.YScale = 1 << 31 })}, core.StatusBadOperand, 0, 20},
		{"operand", isa.Features, 0, []isa.Instruction{scales, edit(addq, func(i *isa.Addq) { i.Op = 3 })}, core.StatusBadOperand, 1, 4},
		{"setup", isa.Features, 0, []isa.Instruction{scales, edit(addq, func(i *isa.Addq) { i.Type = systolic.Uint8 })}, core.StatusBadSetup, 1, 172},
		{"the last SCALES counts", isa.Features, 0, []isa.Instruction{scales, isa.Scales{Zero: 200, XShift: 1, YShift: 1, SShift: 1}, addq}, core.StatusBadSetup, 2, 170},
		{"bounds", isa.Features, 0, []isa.Instruction{scales, edit(addq, func(i *isa.Addq) { i.Y = 8192 })}, core.StatusLocalBounds, 1, 8192},
		{"poisoned x", isa.Features, 192, []isa.Instruction{scales, addq}, core.StatusPoison, 1, 192},
		{"poisoned y", isa.Features, 1024, []isa.Instruction{scales, one}, core.StatusPoison, 1, 1024},
		{"poison behind one y", isa.Features, 1088, []isa.Instruction{scales, one}, 0, 0, 0},
		{"poisoned result", isa.Features, 2048, []isa.Instruction{scales, addq}, 0, 0, 0},
	})
	back := edit(addq, func(i *isa.Addq) { i.Out = 129 }) // results where later operands are
	image := newProgram(0, isa.Text(scales, addq, one, back, edit(back, func(i *isa.Addq) { i.One, i.YStride = true, 0 }), isa.Halt{})).Image()
	c := newCore(t, newConfig)
	if n := allocsPerRun(10, func() {
		if _, err := c.Run(t.Context(), image, nil, nil); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations in a run, want 0", n)
	}
}
