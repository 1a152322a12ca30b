// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"npuemu/core"
	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// newConfig is testConfig with all that ISA 1.1 and 1.2 add.
var newConfig = core.Config{Rows: 16, Cols: 24, SpadSize: 8192, AccSize: 4096, ISAMinor: isa.Minor, Features: isa.Features}

// A faultRow is a program of instructions before a HALT, and how it ends.
type faultRow struct {
	name     string
	features uint64
	strike   uint64 // address of poison; 0: none
	text     []isa.Instruction
	status   core.Status // 0: no fault
	instr    uint32
	info     uint64
}

// runFaultRows runs each row on a core of its own.
func runFaultRows(t *testing.T, rows []faultRow) {
	t.Helper()
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			c := newCore(t, newConfig)
			if tt.strike > 0 && !c.Strike(tt.strike) {
				t.Fatal("no room for poison")
			}
			p := newProgram(0, isa.Text(append(tt.text, isa.Halt{})...))
			p.Features = tt.features
			_, err := c.Run(t.Context(), p.Image(), nil, nil)
			var f *core.Fault
			if tt.status == 0 && err != nil || tt.status != 0 && (!errors.As(err, &f) || f.Status != tt.status || f.Instr != tt.instr || f.Info != tt.info) {
				t.Errorf("Run: %v, want %v of instruction %d with info %#x", err, tt.status, tt.instr, tt.info)
			}
		})
	}
}

// newProgram is program for newConfig, of the newest ISA.
func newProgram(bindings int, text []byte) *isa.Program {
	p := program(newConfig, bindings, text)
	p.Minor, p.Features = isa.Minor, isa.Features
	return p
}

// runNew is run for newConfig.
func runNew(t testing.TB, bufs [][]byte, text ...isa.Instruction) (core.Stats, error) {
	t.Helper()
	m := &memory{t: t, bufs: bufs}
	return newCore(t, newConfig).Run(t.Context(), newProgram(len(bufs), isa.Text(text...)).Image(), m.bind(), m)
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// tameBytes is randomBytes, but most bits that may be the highest of an
// exponent are 0, so that few sums of floating-point products end as NaN.
func tameBytes(rng *rand.Rand, n int) []byte {
	b := randomBytes(rng, n)
	for i := range b {
		if rng.IntN(100) > 0 {
			b[i] &^= 0x40
		}
	}
	return b
}

// zeroPoint returns one of t, any that there is (§5.6.9).
func zeroPoint(rng *rand.Rand, t systolic.Type) int16 {
	switch t {
	case systolic.Int16:
		return int16(rng.Uint32())
	case systolic.Uint8:
		return int16(uint8(rng.Uint32()))
	}
	return int16(int8(rng.Uint32()))
}

// productKind is what a product is made for.
type productKind struct {
	op         isa.Opcode
	a, b       systolic.Type
	tA, tB, pc bool // transposed; zero points of columns
}

// productKinds are all: 9 pairs of integer types, transposed or not, with a table of zero points or not; 25 of floating-point
// types, transposed or not.
func productKinds() (list []productKind) {
	floats := []systolic.Type{systolic.FP32, systolic.BF16, systolic.FP16, systolic.E4M3, systolic.E5M2}
	both := []bool{false, true}
	add := func(a, b systolic.Type, pc bool) {
		for _, tB := range both {
			for _, tA := range both {
				list = append(list, productKind{isa.OpGemm, a, b, tA, tB, pc})
			}
			list = append(list, productKind{isa.OpConv, a, b, false, tB, pc})
		}
	}
	for _, a := range []systolic.Type{systolic.Int8, systolic.Int16, systolic.Uint8} {
		for _, b := range []systolic.Type{systolic.Int8, systolic.Int4, systolic.Uint8} {
			add(a, b, false)
			add(a, b, true)
		}
	}
	for _, a := range floats {
		for _, b := range floats {
			add(a, b, false)
		}
	}
	return list
}

// anyProduct is randomProduct of a kind by chance.
func anyProduct(rng *rand.Rand, spad, acc int) []isa.Instruction {
	kinds := productKinds()
	return randomProduct(rng, spad, acc, kinds[rng.IntN(len(kinds))])
}

// randomProduct returns OPERANDS, WINDOW and a GEMM or CONV of kind that break no rule with so much local memory.
func randomProduct(rng *rand.Rand, spad, acc int, kind productKind) []isa.Instruction {
	for {
		l := isa.Limits{SpadSize: uint32(spad), AccSize: uint32(acc), Features: isa.Features}
		o := isa.Operands{
			A: kind.a, B: kind.b, PerChannel: kind.pc, TransposeA: kind.tA, TransposeB: kind.tB, OutputStationary: rng.IntN(2) == 0,
			AStride: 2 * uint32(rng.IntN(60)), BStride: uint32(rng.IntN(120)), AccStride: 4 * uint32(1+rng.IntN(40)),
		}
		if o.A.Float() { // strides of whole elements
			o.AStride, o.BStride = o.AStride*2, o.BStride*4
		}
		if !o.A.Float() && rng.IntN(3) > 0 {
			o.AZero = zeroPoint(rng, o.A)
		}
		switch {
		case o.PerChannel:
			o.BZeros = uint32(rng.IntN(spad))
		case !o.B.Float() && rng.IntN(4) > 0:
			o.BZero = zeroPoint(rng, o.B)
		}
		small := func(n int) uint8 { return uint8(1 + rng.IntN(n)) }
		w := isa.Window{
			KernelH: small(4), KernelW: small(4), StepY: small(3), StepX: small(3), DilationY: small(3), DilationX: small(3),
			Groups: uint16(small(4)), PadTop: uint16(rng.IntN(4)), PadLeft: uint16(rng.IntN(4)),
		}
		a, b, to := 4*uint32(rng.IntN(spad/4)), uint32(rng.IntN(spad)), 4*uint32(rng.IntN(acc/4))
		var in isa.Instruction = isa.Gemm{
			Accumulate: rng.IntN(2) == 0, M: uint32(small(30)), N: uint32(small(40)), K: uint32(small(50)), A: a, B: b, Acc: to,
		}
		if kind.op == isa.OpConv {
			i := isa.Conv{
				Accumulate: rng.IntN(2) == 0, InH: uint16(small(7)), InW: uint16(small(7)), OutH: uint16(small(6)), OutW: uint16(small(6)),
				Cin: w.Groups * uint16(small(5)), Cout: w.Groups * uint16(small(5)), A: a, B: b, Acc: to,
			}
			if rng.IntN(2) == 0 { // depthwise
				w.Groups = uint16(small(20))
				i.Cin, i.Cout = w.Groups, w.Groups*uint16(small(2))
			}
			i.Line = uint32(i.InW)*o.AStride + 4*uint32(rng.IntN(10))
			in = i
		}
		l.Setup = isa.Setup{Operands: o, Window: w}
		if o.Check(l) == nil && w.Check(l) == nil && in.Check(l) == nil {
			return []isa.Instruction{o, w, in}
		}
	}
}

// Random products and convolutions of all types against the model.
func TestProductsAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(51, 52))
	c := newCore(t, newConfig)
	kinds := productKinds()
	seen := map[productKind]int{}
	below := map[[2]systolic.Type]int{} // depthwise convolutions with zero points below 0, by types
	nans, words := 0, 0
	for program := range 160 {
		operands := randomBytes
		if program%2 == 0 {
			operands = tameBytes
		}
		bufs := [][]byte{operands(rng, newConfig.SpadSize), randomBytes(rng, newConfig.AccSize), make([]byte, newConfig.AccSize)}
		text := []isa.Instruction{
			isa.Load{Binding: 0, NX: uint32(newConfig.SpadSize), NY: 1, NZ: 1},
			isa.Load{Binding: 1, NX: uint32(newConfig.AccSize), NY: 1, NZ: 1, Acc: true},
		}
		for range 10 {
			if len(kinds) == 0 {
				kinds = productKinds()
			}
			list := randomProduct(rng, newConfig.SpadSize, newConfig.AccSize, kinds[0])
			kinds = kinds[1:]
			o, w := list[0].(isa.Operands), list[2].Encode()
			seen[productKind{isa.Opcode(w[0]), o.A, o.B, o.TransposeA, o.TransposeB, o.PerChannel}]++
			below0 := (o.AZero < 0 || o.A == systolic.Uint8) && (o.BZero < 0 || o.PerChannel || o.B == systolic.Uint8)
			if i, ok := list[2].(isa.Conv); ok && below0 && i.Cin > 1 && list[1].(isa.Window).Groups == i.Cin {
				below[[2]systolic.Type{o.A, o.B}]++
			}
			text = append(text, list...)
		}
		text = append(text, isa.Store{Binding: 2, Acc: true, NX: uint32(newConfig.AccSize), NY: 1, NZ: 1})
		p := newProgram(3, isa.Text(text...))
		tokensBetween(p.Text)
		p.Text = append(p.Text, isa.Text(isa.Halt{})...)

		m := &model{spad: make([]byte, newConfig.SpadSize), acc: make([]byte, newConfig.AccSize)}
		for _, b := range bufs {
			m.mem = append(m.mem, bytes.Clone(b))
		}
		for i := range len(text) {
			m.exec(p.Text[i*isa.Size:])
		}
		mem := &memory{t: t, bufs: bufs}
		if _, err := c.Run(t.Context(), p.Image(), mem.bind(), mem); err != nil {
			t.Fatalf("%v\n%s", err, isa.Disassemble(p))
		}
		for i := 0; i < len(bufs[2]); i += 4 {
			if v := binary.LittleEndian.Uint32(bufs[2][i:]); v == 0x7fc00000 {
				nans++
			}
			words++
		}
		if !bytes.Equal(bufs[2], m.mem[2]) {
			t.Fatalf("accumulators differ after\n%s", isa.Disassemble(p))
		}
	}
	if nans == 0 || nans > words/5 {
		t.Errorf("%d of %d results are NaN: the operands hide mistakes", nans, words)
	}
	if want := productKinds(); len(want) != (9*2+25)*6 {
		t.Errorf("%d kinds", len(want))
	} else {
		for _, k := range want {
			if seen[k] < 4 {
				t.Errorf("%d products of the kind %+v", seen[k], k)
			}
		}
	}
	for _, a := range []systolic.Type{systolic.Int8, systolic.Int16, systolic.Uint8} {
		for _, b := range []systolic.Type{systolic.Int8, systolic.Int4, systolic.Uint8} {
			if below[[2]systolic.Type{a, b}] == 0 {
				t.Errorf("no depthwise convolution of types %d and %d with zero points below 0", a, b)
			}
		}
	}
}

// tiles is the product of the ISA 1.0 instructions: m × k by k × n, rows dense
// in the scratchpad from 0 and 2048, as a grid of PRELOAD and MATMUL.
func tiles(m, n, k int) []isa.Instruction {
	var text []isa.Instruction
	for k0 := 0; k0 < k; k0 += newConfig.Rows {
		for n0 := 0; n0 < n; n0 += newConfig.Cols {
			kt, nt := min(newConfig.Rows, k-k0), min(newConfig.Cols, n-n0)
			text = append(
				text,
				isa.Preload{K: uint16(kt), N: uint16(nt), Weights: uint32(2048 + k0*n + n0), Stride: uint32(n)},
				isa.Matmul{
					Accumulate: k0 > 0, K: uint16(kt), N: uint16(nt), Ifmap: uint32(k0), Acc: uint32(4 * n0),
					MX: uint16(m), MY: 1, StrideX: uint16(k), AccStride: uint16(4 * n),
				},
			)
		}
	}
	return text
}

// One GEMM is what tiles of PRELOAD and MATMUL are, for shapes below, on and
// above the array's.
func TestGemmIsItsTiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(61, 62))
	for range 200 {
		m, n, k := 1+rng.IntN(12), 1+rng.IntN(60), 1+rng.IntN(70)
		in := randomBytes(rng, newConfig.SpadSize)
		with := func(product []isa.Instruction) []byte {
			out := make([]byte, newConfig.AccSize)
			text := append([]isa.Instruction{isa.Load{NX: uint32(len(in)), NY: 1, NZ: 1, Signal: tok(0, 1)}, isa.Sync{Engine: isa.ClassMatrix, Wait: tok(0, 1)}}, product...)
			text = append(text, isa.Sync{Engine: isa.ClassMatrix, Signal: tok(1, 1)},
				isa.Store{Binding: 1, Acc: true, NX: uint32(len(out)), NY: 1, NZ: 1, Wait: tok(1, 1)}, isa.Halt{})
			if _, err := runNew(t, [][]byte{in, out}, text...); err != nil {
				t.Fatal(err)
			}
			return out
		}
		one := with([]isa.Instruction{
			isa.Operands{AStride: uint32(k), BStride: uint32(n), AccStride: uint32(4 * n)},
			isa.Gemm{M: uint32(m), N: uint32(n), K: uint32(k), B: 2048},
		})
		if !bytes.Equal(one, with(tiles(m, n, k))) {
			t.Fatalf("%d × %d × %d: GEMM and its tiles differ", m, n, k)
		}
	}
}

// One CONV over an image without a border is a MATMUL for each kernel position
// over the image with the zero point around it.
func TestConvIsItsPositions(t *testing.T) {
	rng := rand.New(rand.NewPCG(71, 72))
	const weights = 4096
	for range 200 {
		h, w, cin, cout := 1+rng.IntN(6), 1+rng.IntN(6), 1+rng.IntN(8), 1+rng.IntN(8)
		win := isa.Window{
			KernelH: uint8(1 + rng.IntN(3)), KernelW: uint8(1 + rng.IntN(3)), StepY: uint8(1 + rng.IntN(2)), StepX: uint8(1 + rng.IntN(2)),
			DilationY: uint8(1 + rng.IntN(2)), DilationX: uint8(1 + rng.IntN(2)), Groups: 1, PadTop: uint16(rng.IntN(3)), PadLeft: uint16(rng.IntN(3)),
		}
		oh, ow := 1+rng.IntN(4), 1+rng.IntN(4)
		image, filter := randomBytes(rng, h*w*cin), randomBytes(rng, int(win.KernelH)*int(win.KernelW)*cin*cout)
		// What the last output pixel may touch, in pixels.
		bh := int(win.PadTop) + max(h, (oh-1)*int(win.StepY)+(int(win.KernelH)-1)*int(win.DilationY)+1)
		bw := int(win.PadLeft) + max(w, (ow-1)*int(win.StepX)+(int(win.KernelW)-1)*int(win.DilationX)+1)

		with := func(dense bool, product ...isa.Instruction) []byte {
			out := make([]byte, newConfig.AccSize)
			load := isa.Load{NX: uint32(w * cin), NY: uint16(h), NZ: 1, StrideY: uint32(w * cin), LocalStride: uint16(w * cin)}
			if !dense { // the scratchpad is 0, and so is the zero point
				load.Local, load.LocalStride = uint32((int(win.PadTop)*bw+int(win.PadLeft))*cin), uint16(bw*cin)
			}
			text := append([]isa.Instruction{
				load, isa.Load{Binding: 1, Local: weights, NX: uint32(len(filter)), NY: 1, NZ: 1, Signal: tok(0, 1)},
				isa.Sync{Engine: isa.ClassMatrix, Wait: tok(0, 1)},
			}, product...)
			text = append(text, isa.Sync{Engine: isa.ClassMatrix, Signal: tok(1, 1)},
				isa.Store{Binding: 2, Acc: true, NX: uint32(len(out)), NY: 1, NZ: 1, Wait: tok(1, 1)}, isa.Halt{})
			if _, err := runNew(t, [][]byte{image, filter, out}, text...); err != nil {
				t.Fatal(err)
			}
			return out
		}
		one := with(true, isa.Operands{AStride: uint32(cin), BStride: uint32(cout), AccStride: uint32(4 * cout)}, win,
			isa.Conv{
				InH: uint16(h), InW: uint16(w), OutH: uint16(oh), OutW: uint16(ow), Cin: uint16(cin), Cout: uint16(cout),
				B: weights, Line: uint32(w * cin),
			})
		var positions []isa.Instruction
		for ky := range int(win.KernelH) {
			for kx := range int(win.KernelW) {
				positions = append(
					positions,
					isa.Preload{K: uint16(cin), N: uint16(cout), Weights: uint32(weights + (ky*int(win.KernelW)+kx)*cin*cout), Stride: uint32(cout)},
					isa.Matmul{
						Accumulate: ky+kx > 0, K: uint16(cin), N: uint16(cout), MX: uint16(ow), MY: uint16(oh), AccStride: uint16(4 * cout),
						Ifmap:   uint32((ky*int(win.DilationY)*bw + kx*int(win.DilationX)) * cin),
						StrideX: uint16(int(win.StepX) * cin), StrideY: uint32(int(win.StepY) * bw * cin),
					},
				)
			}
		}
		if bh*bw*cin > weights {
			continue
		}
		if !bytes.Equal(one, with(false, positions...)) {
			t.Fatalf("%d × %d × %d, %+v: CONV and its positions differ", h, w, cin, win)
		}
	}
}

// Sums wrap, and a sum of k = 2¹⁷ products of −128 is the first that does.
func TestGemmWraps(t *testing.T) {
	cfg := core.Config{Rows: 8, Cols: 8, SpadSize: 1 << 19, AccSize: 64, ISAMinor: isa.Minor, Features: isa.Features}
	for _, tt := range []struct {
		k    uint32
		want int32
	}{{1<<17 - 1, 1<<31 - 1<<14}, {1 << 17, -1 << 31}, {1 << 18, 0}} {
		p := program(cfg, 1, isa.Text(
			isa.Fill{Value: 0x80, NX: 1 << 19, NY: 1, Signal: tok(0, 1)},
			isa.Operands{AStride: 1, BStride: 1, Wait: tok(0, 1)},
			isa.Gemm{M: 1, N: 1, K: tt.k, B: 1 << 18, Signal: tok(1, 1)},
			isa.Store{Acc: true, NX: 4, NY: 1, NZ: 1, Wait: tok(1, 1)},
			isa.Halt{},
		))
		p.Minor, p.Features = 1, isa.FeatureGEMM
		m := &memory{t: t, bufs: [][]byte{make([]byte, 4)}}
		stats, err := newCore(t, cfg).Run(t.Context(), p.Image(), m.bind(), m)
		if err != nil {
			t.Fatal(err)
		}
		if got := int32(binary.LittleEndian.Uint32(m.bufs[0])); got != tt.want || stats.MACs != uint64(tt.k) {
			t.Errorf("k = %d: %d after %d MACs, want %d", tt.k, got, stats.MACs, tt.want)
		}
	}
}

// Errors of programs that use what ISA 1.1 adds (§5.3, §5.7).
func TestProductErrors(t *testing.T) {
	gemm := isa.Gemm{M: 2, N: 2, K: 2, B: 64}
	operands := isa.Operands{AStride: 2, BStride: 2, AccStride: 8}
	old := core.Config{Rows: 16, Cols: 24, SpadSize: 8192, AccSize: 4096}
	tests := []struct {
		name   string
		cfg    core.Config
		edit   func(p *isa.Program)
		text   []isa.Instruction
		status core.Status // 0: no fault
		instr  uint32
		info   uint64
	}{
		{"no error", newConfig, nil, []isa.Instruction{operands, gemm}, 0, 0, 0},
		{"ISA 1.1 on a core of 1.0", old, nil, []isa.Instruction{operands, gemm}, core.StatusBadProgram, 0, 6},
		{"ISA 1.2 on a core of 1.1", core.Config{Rows: 16, Cols: 24, SpadSize: 8192, AccSize: 4096, ISAMinor: 1, Features: isa.FeaturesOf(1)}, nil, []isa.Instruction{operands}, core.StatusBadProgram, 0, 6},
		{"ISA 1.1 has no groups of 1.2", newConfig, func(p *isa.Program) { p.Minor = 1 }, []isa.Instruction{operands}, core.StatusConfigMismatch, 0, 0x28},
		{"ISA 1.1 on a core of 1.2", newConfig, func(p *isa.Program) { p.Minor, p.Features = 1, isa.FeaturesOf(1) }, []isa.Instruction{operands, gemm}, 0, 0, 0},
		{"ISA 1.0 on a core of 1.1", newConfig, func(p *isa.Program) { p.Minor, p.Features = 0, 0 }, []isa.Instruction{isa.Fill{NX: 1, NY: 1}}, 0, 0, 0},
		{"ISA 1.0 has no features", newConfig, func(p *isa.Program) { p.Minor = 0 }, []isa.Instruction{operands}, core.StatusConfigMismatch, 0, 0x28},
		{"ISA 1.0 has no GEMM", newConfig, func(p *isa.Program) { p.Minor, p.Features = 0, 0 }, []isa.Instruction{isa.Sync{Engine: 1}, gemm}, core.StatusIllegalInstruction, 1, 0x34},
		{"feature not named", newConfig, func(p *isa.Program) { p.Features = 0 }, []isa.Instruction{operands}, core.StatusIllegalInstruction, 0, 0x32},
		{
			"feature that the core lacks", core.Config{Rows: 16, Cols: 24, SpadSize: 8192, AccSize: 4096, ISAMinor: isa.Minor}, nil,
			[]isa.Instruction{operands}, core.StatusConfigMismatch, 0, 0x28,
		},
		{"feature that there is not", newConfig, func(p *isa.Program) { p.Features |= 1 << 40 }, []isa.Instruction{operands}, core.StatusConfigMismatch, 0, 0x28},
		{"operand", newConfig, nil, []isa.Instruction{operands, isa.Gemm{M: 2, N: 2}}, core.StatusBadOperand, 1, 12},
		{"type", newConfig, nil, []isa.Instruction{isa.Operands{A: systolic.Int4}}, core.StatusBadOperand, 0, 4},
		{
			"floating point without its feature", newConfig, func(p *isa.Program) { p.Features = isa.FeatureGEMM },
			[]isa.Instruction{isa.Operands{A: systolic.BF16, B: systolic.BF16}}, core.StatusBadOperand, 0, 4,
		},
		{"mixed kinds", newConfig, nil, []isa.Instruction{isa.Operands{A: systolic.BF16}}, core.StatusBadOperand, 0, 5},
		{"window", newConfig, nil, []isa.Instruction{isa.Window{}}, core.StatusBadOperand, 0, 4},
		{"no setup", newConfig, nil, []isa.Instruction{gemm}, core.StatusBadSetup, 0, 16},
		{"setup of the wrong stride", newConfig, nil, []isa.Instruction{operands, isa.Gemm{M: 1, N: 3, K: 2}}, core.StatusBadSetup, 1, 20},
		{
			"groups", newConfig, nil,
			[]isa.Instruction{
				isa.Window{KernelH: 1, KernelW: 1, StepY: 1, StepX: 1, DilationY: 1, DilationX: 1, Groups: 2},
				isa.Conv{InH: 1, InW: 1, OutH: 1, OutW: 1, Cin: 3, Cout: 2},
			},
			core.StatusBadSetup, 1, 42,
		},
		{"the window at the start is one pixel", newConfig, nil, []isa.Instruction{isa.Conv{InH: 1, InW: 1, OutH: 1, OutW: 1, Cin: 3, Cout: 1}}, core.StatusBadSetup, 0, 20},
		{"a refused OPERANDS changes nothing", newConfig, nil, []isa.Instruction{operands, isa.Operands{A: 99}, gemm}, core.StatusBadOperand, 1, 4},
		{"bounds", newConfig, nil, []isa.Instruction{operands, isa.Gemm{M: 2, N: 2, K: 2, A: 8190}}, core.StatusLocalBounds, 1, 8192},
		{"accumulator bounds", newConfig, nil, []isa.Instruction{operands, isa.Gemm{M: 2, N: 2, K: 2, Acc: 4092}}, core.StatusLocalBounds, 1, 4096},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newProgram(0, isa.Text(append(tt.text, isa.Halt{})...))
			if tt.edit != nil {
				tt.edit(p)
			}
			c := newCore(t, tt.cfg)
			_, err := c.Run(t.Context(), p.Image(), nil, nil)
			if tt.status == 0 {
				if err != nil {
					t.Errorf("Run: %v", err)
				}
				return
			}
			var f *core.Fault
			if !errors.As(err, &f) || f.Status != tt.status || f.Instr != tt.instr || f.Info != tt.info {
				t.Errorf("Run: %v, want %v of instruction %d with info %d", err, tt.status, tt.instr, tt.info)
			}
			// The next program runs.
			good := program(tt.cfg, 0, isa.Text(isa.Halt{}))
			if _, err := c.Run(t.Context(), good.Image(), nil, nil); err != nil {
				t.Errorf("the next program: %v", err)
			}
		})
	}
	for _, cfg := range []core.Config{
		{Rows: 8, Cols: 8, SpadSize: 64, AccSize: 64, ISAMinor: isa.Minor + 1},
		{Rows: 8, Cols: 8, SpadSize: 64, AccSize: 64, ISAMinor: 1, Features: 1},
		{Rows: 8, Cols: 8, SpadSize: 64, AccSize: 64, ISAMinor: 1, Features: isa.FeaturePool},
		{Rows: 8, Cols: 8, SpadSize: 64, AccSize: 64, Features: isa.FeatureGEMM},
	} {
		if cfg.Validate() == nil {
			t.Errorf("Validate accepts %+v", cfg)
		}
	}
	if core.StatusBadSetup != 0x60 || core.StatusBadSetup.String() != "BAD_SETUP" {
		t.Errorf("BAD_SETUP is %#x, %v", uint8(core.StatusBadSetup), core.StatusBadSetup)
	}
}

// The setup of a program does not outlive it (§5.1).
func TestSetupStartsAnew(t *testing.T) {
	c := newCore(t, newConfig)
	operands := isa.Operands{AStride: 2, BStride: 2, AccStride: 8}
	gemm := isa.Gemm{M: 2, N: 2, K: 2}
	if _, err := c.Run(t.Context(), newProgram(0, isa.Text(operands, gemm, isa.Halt{})).Image(), nil, nil); err != nil {
		t.Fatal(err)
	}
	var f *core.Fault
	if _, err := c.Run(t.Context(), newProgram(0, isa.Text(gemm, isa.Halt{})).Image(), nil, nil); !errors.As(err, &f) || f.Status != core.StatusBadSetup {
		t.Errorf("GEMM with the setup of the program before: %v, want BAD_SETUP", err)
	}
}

// What a GEMM or CONV reads is looked at for poison before it stores anything.
func TestProductPoison(t *testing.T) {
	operands := isa.Operands{AStride: 8, BStride: 4, AccStride: 16, PerChannel: true, BZeros: 4096}
	gemm := isa.Gemm{M: 4, N: 4, K: 8, A: 0, B: 1024}
	window := isa.Window{KernelH: 2, KernelW: 2, StepY: 1, StepX: 1, DilationY: 1, DilationX: 1, Groups: 1}
	conv := isa.Conv{InH: 3, InW: 2, OutH: 2, OutW: 1, Cin: 8, Cout: 4, Line: 512, B: 2048}
	for _, tt := range []struct {
		name  string
		at    uint64
		in    isa.Instruction
		fails bool
	}{
		{"activations", 0, gemm, true},
		{"weights", 1024, gemm, true},
		{"zero points", 4096, gemm, true},
		{"elsewhere", 512, gemm, false},
		{"last line", 1024, conv, true},
		{"weights of a convolution", 2048 + 64, conv, true},
		{"between the lines", 128, conv, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCore(t, newConfig)
			if !c.Strike(tt.at) {
				t.Fatal("no room for poison")
			}
			_, err := c.Run(t.Context(), newProgram(0, isa.Text(operands, window, tt.in, isa.Halt{})).Image(), nil, nil)
			var f *core.Fault
			if !tt.fails && err != nil || tt.fails && (!errors.As(err, &f) || f.Status != core.StatusPoison || f.Info != tt.at) {
				t.Errorf("Run: %v, want POISON at %#x: %t", err, tt.at, tt.fails)
			}
		})
	}
}

// A product ends soon after its command.
func TestProductIsInterrupted(t *testing.T) {
	cfg := core.Config{Rows: 8, Cols: 8, SpadSize: 4 << 20, AccSize: 4 << 20, ISAMinor: isa.Minor, Features: isa.Features}
	p := program(cfg, 0, isa.Text(
		isa.Operands{AStride: 2048, BStride: 1024, AccStride: 4096},
		isa.Gemm{M: 1024, N: 1024, K: 2048},
		isa.Halt{},
	))
	p.Minor, p.Features = isa.Minor, isa.Features
	ctx, cancel := context.WithCancel(t.Context())
	c := newCore(t, cfg)
	m := &countdown{Context: ctx, cancel: cancel}
	m.n.Store(5) // two instructions, their end, and then the product asks
	if _, err := c.Run(m, p.Image(), nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v, want context.Canceled", err)
	}
	if n := m.n.Load(); n < -10 {
		t.Errorf("the product went on for %d blocks", -n)
	}
}

// countdown is a context that is cancelled when it is asked for the nth time.
type countdown struct {
	context.Context
	n      atomic.Int64 // threads of the core ask
	cancel func()
}

func (c *countdown) Err() error {
	if c.n.Add(-1) == 0 {
		c.cancel()
	}
	return c.Context.Err()
}

func TestProductNoAllocation(t *testing.T) {
	image := newProgram(0, isa.Text(
		isa.Operands{AStride: 9, BStride: 8, AccStride: 32},
		isa.Window{KernelH: 3, KernelW: 3, StepY: 1, StepX: 1, DilationY: 1, DilationX: 1, Groups: 1},
		isa.Gemm{M: 64, N: 8, K: 9, B: 1024},
		isa.Conv{InH: 8, InW: 8, OutH: 8, OutW: 8, Cin: 9, Cout: 8, B: 1024, Line: 72},
		isa.Halt{},
	)).Image()
	c := newCore(t, newConfig)
	if n := allocsPerRun(10, func() {
		if _, err := c.Run(t.Context(), image, nil, nil); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations in a run, want 0", n)
	}
}
