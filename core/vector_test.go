// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"npuemu/core"
	"npuemu/core/isa"
	"npuemu/core/num"
	"npuemu/core/systolic"
)

var vectorTypes = []systolic.Type{
	systolic.Int8, systolic.Uint8, systolic.Int16, systolic.Int32, systolic.FP32, systolic.BF16, systolic.FP16, systolic.E4M3, systolic.E5M2,
}

// operand reads element k of row r for the model of ELEMENT: exact.
func (m *model) operand(acc bool, t systolic.Type, base, stride, r, k int) float64 {
	if acc {
		at := base + r*stride + 4*k
		if t == systolic.Int32 {
			return float64(m.i32(m.acc, at))
		}
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(m.acc[at:])))
	}
	switch {
	case t == systolic.Int32:
		return float64(m.i32(m.spad, base+r*stride+4*k))
	case t.Float():
		return m.floating(byte(t), base+r*stride, k)
	}
	return float64(m.element(byte(t), base+r*stride, k))
}

// element32 is x op y of §6.7 and §6.10, in wide arithmetic, before the
// conversion to the type of the result; not known for functions.
func element32(op isa.ElementOp, float bool, x, y float64) (v float64, known bool) {
	truth := map[bool]float64{true: 1}
	a, b := int64(x), int64(y)
	if float {
		a, b = 0, 0
	}
	n := uint32(b)
	wrap := func(v int64) float64 { return float64(int32(v)) }
	limit := func(v int64) float64 { return float64(min(max(v, -1<<31), 1<<31-1)) }
	nan := math.IsNaN(x) || math.IsNaN(y)
	switch op {
	case isa.ElemEq:
		return truth[x == y], true
	case isa.ElemNe:
		return truth[x != y], true
	case isa.ElemLt:
		return truth[x < y], true
	case isa.ElemLe:
		return truth[x <= y], true
	case isa.ElemMove:
		return x, true
	case isa.ElemMin:
		if nan {
			return math.NaN(), true
		}
		return math.Min(x, y), true // has −0 < +0
	case isa.ElemMax:
		if nan {
			return math.NaN(), true
		}
		return math.Max(x, y), true
	}
	if float {
		// Rounding a sum, product, quotient or root of fp32 in fp64 to fp32 is
		// rounding it once: fp64 has more than 2·24 + 2 bits.
		switch op {
		case isa.ElemNeg:
			return -x, true
		case isa.ElemAbs:
			return math.Abs(x), true
		case isa.ElemReLU:
			return math.Max(x, 0), true
		case isa.ElemReLU6:
			return math.Min(math.Max(x, 0), 6), true
		case isa.ElemAdd:
			return float64(float32(x + y)), true
		case isa.ElemSub:
			return float64(float32(x - y)), true
		case isa.ElemMul:
			return float64(float32(x * y)), true
		case isa.ElemDiv:
			return float64(float32(x / y)), true
		case isa.ElemSqrt:
			return float64(float32(math.Sqrt(x))), true
		}
		return 0, false
	}
	big2 := func(n uint32) *big.Int { return new(big.Int).Lsh(big.NewInt(1), uint(n)) }
	switch op {
	case isa.ElemNeg:
		return wrap(-a), true
	case isa.ElemAbs:
		return wrap(max(a, -a)), true
	case isa.ElemReLU:
		return float64(max(a, 0)), true
	case isa.ElemAdd:
		return wrap(a + b), true
	case isa.ElemSub:
		return wrap(a - b), true
	case isa.ElemMul:
		return wrap(a * b), true
	case isa.ElemAnd:
		return wrap(a & b), true
	case isa.ElemOr:
		return wrap(a | b), true
	case isa.ElemXor:
		return wrap(a ^ b), true
	case isa.ElemShl:
		return wrap(new(big.Int).And(new(big.Int).Mul(big.NewInt(a), big2(min(n, 64))), big.NewInt(1<<32-1)).Int64()), true
	case isa.ElemShr:
		return wrap(new(big.Int).Div(big.NewInt(a), big2(min(n, 64))).Int64()), true
	case isa.ElemShrLogical:
		return wrap(new(big.Int).Div(big.NewInt(a&(1<<32-1)), big2(min(n, 64))).Int64()), true
	case isa.ElemShrRound:
		d := big2(min(n, 64))
		return wrap(new(big.Int).Div(new(big.Int).Add(new(big.Int).Mul(big.NewInt(a), big.NewInt(2)), d), new(big.Int).Mul(d, big.NewInt(2))).Int64()), true
	case isa.ElemMulHigh:
		p := new(big.Int).Add(new(big.Int).Mul(big.NewInt(a), big.NewInt(b)), big.NewInt(1<<30))
		return limit(p.Div(p, big2(31)).Int64()), true
	case isa.ElemAddSat:
		return limit(a + b), true
	case isa.ElemSubSat:
		return limit(a - b), true
	}
	return 0, false
}

// store converts v to t by §6.6 and returns its encoding.
func storeElement(v float64, float bool, t systolic.Type, saturate bool) uint32 {
	if t.Float() {
		x := float32(v) // from an integer this rounds, from floating point it is exact
		switch t {
		case systolic.FP32:
			if x != x {
				return 0x7fc00000
			}
			return math.Float32bits(x)
		case systolic.BF16:
			return uint32(num.ToBF16(x))
		case systolic.FP16:
			return uint32(num.ToFP16(x))
		case systolic.E4M3:
			if saturate {
				return uint32(num.ToE4M3Sat(x))
			}
			return uint32(num.ToE4M3(x))
		}
		if saturate {
			return uint32(num.ToE5M2Sat(x))
		}
		return uint32(num.ToE5M2(x))
	}
	if float {
		if math.IsNaN(v) {
			v = 0
		}
		v = math.RoundToEven(min(max(v, -1<<31), 1<<31-1))
	}
	if saturate && t != systolic.Int32 {
		whole, most := v, math.Ldexp(1, int(8*t.Bytes(1))-1)
		if v = min(max(v, -most), most-1); t == systolic.Uint8 {
			v = min(max(whole, 0), 255)
		}
	}
	return uint32(int64(v))
}

// Random element-wise operations of all types against sums in wide arithmetic.
func TestElementAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(121, 122))
	// Rows that go through the engine in several steps need more room.
	large := newConfig
	large.SpadSize, large.AccSize = 1<<16, 1<<15
	cores := map[core.Config]*core.Core{newConfig: newCore(t, newConfig), large: newCore(t, large)}
	seen, long := map[string]int{}, 0
	for round := range 3000 {
		cfg, longest := newConfig, 20
		if round%16 == 0 {
			cfg, longest = large, 6000
		}
		places := cfg.AccSize/8 - 200
		i := isa.Element{
			XAcc: rng.IntN(3) == 0, OutAcc: rng.IntN(3) == 0, NoSaturate: rng.IntN(2) == 0,
			Op: isa.ElementOp(rng.IntN(47)), Type: vectorTypes[rng.IntN(9)], OutType: vectorTypes[rng.IntN(9)],
			X: 8 * rng.Uint32N(uint32(places)), Out: 8 * rng.Uint32N(uint32(places)), M: 1 + rng.Uint32N(4), N: uint16(1 + rng.IntN(longest)),
			XStride: 4 * uint16(rng.IntN(30)), OutStride: 4 * uint16(rng.IntN(30)),
		}
		if !i.Op.Unary() {
			i.YAcc, i.One, i.Y = rng.IntN(3) == 0, rng.IntN(3) == 0, 8*uint32(rng.IntN(300))
			if !i.One {
				i.YStride = 4 * uint16(rng.IntN(30))
			}
		}
		if longest > 20 || rng.IntN(3) == 0 { // rows without gaps, often in place
			i.XStride, i.OutStride = uint16(i.Type.Bytes(uint64(i.N))), uint16(i.OutType.Bytes(uint64(i.N)))
			if !i.Op.Unary() && !i.One {
				i.YStride = i.XStride
			}
			if rng.IntN(2) == 0 {
				i.Out, i.OutAcc = i.X, i.XAcc
			}
		}
		l := isa.Limits{SpadSize: uint32(cfg.SpadSize), AccSize: uint32(cfg.AccSize), Features: isa.Features}
		if i.Check(l) != nil {
			continue
		}
		bufs := [][]byte{tameBytes(rng, cfg.SpadSize), tameBytes(rng, cfg.AccSize), make([]byte, cfg.SpadSize), make([]byte, cfg.AccSize)}
		for k := 0; k < 2400; k += 64 { // counts for shifts, zeros and special values
			copy(bufs[0][k:], words(uint32(rng.IntN(40)), 0, 0x80000000, 0x7f800000, 0xff800000, 0x7fffffff))
		}
		m := &model{spad: bytes.Clone(bufs[0]), acc: bytes.Clone(bufs[1])}
		known := true
		for r := range int(i.M) {
			var row []uint32
			for k := range int(i.N) {
				x := m.operand(i.XAcc, i.Type, int(i.X), int(i.XStride), r, k)
				y := 0.0
				switch {
				case i.One:
					y = m.operand(i.YAcc, i.Type, int(i.Y), 0, 0, 0)
				case !i.Op.Unary():
					y = m.operand(i.YAcc, i.Type, int(i.Y), int(i.YStride), r, k)
				}
				v, ok := x, true
				if i.Op == isa.ElemSelect {
					if condition := m.operand(i.OutAcc, i.OutType, int(i.Out), int(i.OutStride), r, k); condition == 0 {
						v = y
					}
				} else {
					v, ok = element32(i.Op, i.Type.Float(), x, y)
				}
				known = known && ok
				row = append(row, storeElement(v, i.Type.Float(), i.OutType, !i.NoSaturate))
			}
			for k, v := range row {
				local, size := m.spad, int(i.OutType.Bytes(1))
				if i.OutAcc {
					local = m.acc
				}
				var b [4]byte
				binary.LittleEndian.PutUint32(b[:], v)
				copy(local[int(i.Out)+r*int(i.OutStride)+size*k:], b[:size])
			}
		}
		if !known {
			continue
		}
		seen[fmt.Sprint(i.Op, i.Type.Float())]++
		if i.N > 2048 {
			long++
		}
		text := isa.Text(
			isa.Load{Binding: 0, NX: uint32(cfg.SpadSize), NY: 1, NZ: 1},
			isa.Load{Binding: 1, NX: uint32(cfg.AccSize), NY: 1, NZ: 1, Acc: true},
			i,
			isa.Store{Binding: 2, NX: uint32(cfg.SpadSize), NY: 1, NZ: 1},
			isa.Store{Binding: 3, NX: uint32(cfg.AccSize), NY: 1, NZ: 1, Acc: true},
		)
		tokensBetween(text)
		p := newProgram(4, append(text, isa.Text(isa.Halt{})...))
		p.SpadSize, p.AccSize = uint32(cfg.SpadSize), uint32(cfg.AccSize)
		mem := &memory{t: t, bufs: bufs}
		if _, err := cores[cfg].Run(t.Context(), p.Image(), mem.bind(), mem); err != nil {
			t.Fatalf("%v\n%s", err, isa.Disassemble(p))
		}
		if !bytes.Equal(bufs[2], m.spad) || !bytes.Equal(bufs[3], m.acc) {
			for k := range m.spad {
				if bufs[2][k] != m.spad[k] {
					t.Logf("scratchpad %#x: %#x, want %#x", k, bufs[2][k], m.spad[k])
				}
			}
			t.Fatalf("local memory differs after\n%s", isa.Disassemble(p))
		}
	}
	if long < 10 {
		t.Errorf("only %d instructions with long rows", long)
	}
	// 14 operations of both kinds, 10 of integers, 3 of floating point.
	if len(seen) < 41 {
		t.Errorf("%d of 41 operations were seen: %v", len(seen), seen)
	}
}

// The functions are those of their names; their bits are core/num's.
func TestElementFunctions(t *testing.T) {
	x := []float32{-3, -1.5, -0.25, 0.125, 0.5, 1, 2.75, 5}
	for op, f := range map[isa.ElementOp]func(x float64) float64{
		isa.ElemExp:         math.Exp,
		isa.ElemLog:         math.Log,
		isa.ElemTanh:        math.Tanh,
		isa.ElemSigmoid:     func(x float64) float64 { return 1 / (1 + math.Exp(-x)) },
		isa.ElemSiLU:        func(x float64) float64 { return x / (1 + math.Exp(-x)) },
		isa.ElemGELU:        func(x float64) float64 { return x / 2 * (1 + math.Erf(x/math.Sqrt2)) },
		isa.ElemGELUTanh:    func(x float64) float64 { return x / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x))) },
		isa.ElemErf:         math.Erf,
		isa.ElemReciprocal:  func(x float64) float64 { return 1 / x },
		isa.ElemRsqrt:       func(x float64) float64 { return 1 / math.Sqrt(x) },
		isa.ElemHardSigmoid: func(x float64) float64 { return min(max(x+3, 0), 6) / 6 },
		isa.ElemHardSwish:   func(x float64) float64 { return x * min(max(x+3, 0), 6) / 6 },
	} {
		in, out := floats(x...), make([]byte, 4*len(x))
		_, err := runNew(
			t, [][]byte{in, out},
			isa.Load{NX: uint32(len(in)), NY: 1, NZ: 1, Signal: tok(0, 1)},
			isa.Element{Op: op, Type: systolic.FP32, OutType: systolic.FP32, Out: 64, M: 1, N: uint16(len(x)), Wait: tok(0, 1), Signal: tok(1, 1)},
			isa.Store{Binding: 1, Local: 64, NX: uint32(len(out)), NY: 1, NZ: 1, Wait: tok(1, 1)},
			isa.Halt{},
		)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range x {
			got, want := float64(math.Float32frombits(binary.LittleEndian.Uint32(out[4*k:]))), f(float64(v))
			if math.IsNaN(got) != math.IsNaN(want) || math.Abs(got-want) > 1e-6*max(1, math.Abs(want)) {
				t.Errorf("operation %d of %v: %v, want about %v", op, v, got, want)
			}
		}
	}
}

// A table replaces every byte, its own among them when it is in place.
func TestTable(t *testing.T) {
	rng := rand.New(rand.NewPCG(131, 132))
	for range 50 {
		in := randomBytes(rng, 1024)
		i := isa.Table{
			X: rng.Uint32N(600), Table: rng.Uint32N(700), Out: rng.Uint32N(600), M: 1 + rng.Uint32N(4), N: uint16(1 + rng.IntN(60)),
			XStride: uint16(rng.IntN(80)), OutStride: uint16(60 + rng.IntN(20)),
		}
		want := bytes.Clone(in)
		table := bytes.Clone(in[i.Table:][:256])
		for r := range int(i.M) {
			row := bytes.Clone(want[int(i.X)+r*int(i.XStride):][:i.N])
			for k, v := range row {
				want[int(i.Out)+r*int(i.OutStride)+k] = table[v]
			}
		}
		i.Wait, i.Signal = tok(0, 1), tok(1, 1)
		out := make([]byte, 1024)
		if _, err := runNew(
			t, [][]byte{in, out}, isa.Load{NX: 1024, NY: 1, NZ: 1, Signal: tok(0, 1)}, i,
			isa.Store{Binding: 1, NX: 1024, NY: 1, NZ: 1, Wait: tok(1, 1)}, isa.Halt{},
		); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out, want) {
			t.Fatalf("%+v differs", i)
		}
	}
}

// The roundings of REQUANT by the examples of §6.9.6, and their parameters.
func TestRequantRoundings(t *testing.T) {
	scale := func(q uint32, s byte) []byte { return append(words(q), s, 0, 0, 0) }
	half := math.Float32bits(0.5)
	for _, tt := range []struct {
		name     string
		rounding isa.Rounding
		x        int32
		param    []byte
		zero     int8
		want     int8
		bad      bool
	}{
		{"one, 2.5", isa.OneRounding, 5, scale(1<<30, 31), 0, 3, false},
		{"two, 2.5", isa.TwoRoundings, 5, scale(1<<30, 31), 0, 3, false},
		{"two, -2.5 in mulhigh", isa.TwoRoundings, -5, scale(1<<30, 31), 0, -2, false},
		{"one, -2.5", isa.OneRounding, -10, scale(1<<30, 32), 0, -2, false},
		{"two, -2.5 in divpow2", isa.TwoRoundings, -10, scale(1<<30, 32), 0, -3, false},
		{"one, 0.25", isa.OneRounding, 1, scale(1<<30, 32), 0, 0, false},
		{"two, 0.25", isa.TwoRoundings, 1, scale(1<<30, 32), 0, 1, false},
		{"two, clamped", isa.TwoRoundings, 1 << 20, scale(1<<30, 31), 0, 127, false},
		{"two, zero point", isa.TwoRoundings, -10, scale(1<<30, 32), 10, 7, false},
		{"float, 2.5", isa.FloatScale, 5, scale(half, 0), 0, 2, false},
		{"float, 3.5", isa.FloatScale, 7, scale(half, 0), 0, 4, false},
		{"float, 24 bits", isa.FloatScale, 16777217, scale(math.Float32bits(0x1p-20), 0), 1, 17, false},
		{"two, shift 0", isa.TwoRoundings, 5, scale(1, 0), 0, 0, true},
		{"float, 0", isa.FloatScale, 5, scale(0, 0), 0, 0, true},
		{"float, negative", isa.FloatScale, 5, scale(half|1<<31, 0), 0, 0, true},
		{"float, infinity", isa.FloatScale, 5, scale(0x7f800000, 0), 0, 0, true},
		{"float, NaN", isa.FloatScale, 5, scale(0x7fc00000, 0), 0, 0, true},
		{"float, with a shift", isa.FloatScale, 5, scale(half, 1), 0, 0, true},
	} {
		in := append(words(uint32(tt.x)), tt.param...)
		out := make([]byte, 1)
		_, err := runNew(
			t, [][]byte{in, out},
			isa.Load{NX: 4, NY: 1, NZ: 1, Acc: true},
			isa.Load{Offset: 4, Local: 8, NX: 8, NY: 1, NZ: 1, Signal: tok(0, 1)},
			isa.Requant{N: 1, Params: 8, Out: 32, MX: 1, MY: 1, ZeroPoint: tt.zero, Lo: -128, Hi: 127, Rounding: tt.rounding, Wait: tok(0, 1), Signal: tok(1, 1)},
			isa.Store{Binding: 1, Local: 32, NX: 1, NY: 1, NZ: 1, Wait: tok(1, 1)},
			isa.Halt{},
		)
		var f *core.Fault
		switch {
		case tt.bad && (!errors.As(err, &f) || f.Status != core.StatusBadParam || f.Info != 8):
			t.Errorf("%s: %v, want BAD_PARAM at 8", tt.name, err)
		case !tt.bad && (err != nil || int8(out[0]) != tt.want):
			t.Errorf("%s: %d, %v; want %d", tt.name, int8(out[0]), err, tt.want)
		}
	}
}

func TestVectorErrors(t *testing.T) {
	move := isa.Element{Op: isa.ElemMove, Type: systolic.Int8, OutType: systolic.Int8, Out: 4096, M: 2, N: 64, XStride: 128, OutStride: 64}
	table := isa.Table{Table: 1024, Out: 2048, M: 1, N: 64}
	selects := isa.Element{Op: isa.ElemSelect, Type: systolic.Int8, OutType: systolic.Int8, Y: 512, Out: 4096, M: 1, N: 64}
	for _, tt := range []struct {
		name     string
		features uint64
		strike   uint64 // 0: none
		in       isa.Instruction
		status   core.Status // 0: no fault
		info     uint64
	}{
		{"no error", isa.Features, 0, move, 0, 0},
		{"feature not named", isa.FeatureGEMM, 0, move, core.StatusIllegalInstruction, 0x43},
		{"feature not named, table", isa.FeatureGEMM, 0, table, core.StatusIllegalInstruction, 0x44},
		{"feature not named, rounding", isa.FeatureGEMM, 0, isa.Requant{Rounding: isa.TwoRoundings}, core.StatusReservedField, 31},
		{"operand", isa.Features, 0, isa.Element{Op: 15}, core.StatusBadOperand, 4},
		{"rounding", isa.Features, 0, isa.Requant{N: 1, MX: 1, MY: 1, Rounding: 9}, core.StatusBadOperand, 31},
		{"bounds", isa.Features, 0, isa.Table{Table: 8000, M: 1, N: 1}, core.StatusLocalBounds, 8192},
		{"poisoned x", isa.Features, 128, move, core.StatusPoison, 128},
		{"poison between rows", isa.Features, 64, move, 0, 0},
		{"poisoned result", isa.Features, 4096, move, 0, 0},
		{"poisoned y", isa.Features, 512, selects, core.StatusPoison, 512},
		{"poisoned condition", isa.Features, 4096, selects, core.StatusPoison, 4096},
		{"poisoned table", isa.Features, 1216, table, core.StatusPoison, 1216},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCore(t, newConfig)
			if tt.strike > 0 && !c.Strike(tt.strike) {
				t.Fatal("no room for poison")
			}
			p := newProgram(0, isa.Text(tt.in, isa.Halt{}))
			p.Features = tt.features
			_, err := c.Run(t.Context(), p.Image(), nil, nil)
			var f *core.Fault
			if tt.status == 0 && err != nil || tt.status != 0 && (!errors.As(err, &f) || f.Status != tt.status || f.Info != tt.info) {
				t.Errorf("Run: %v, want %v with info %#x", err, tt.status, tt.info)
			}
		})
	}
}

// Nothing of the engines allocates once it has seen a size.
func TestVectorNoAllocation(t *testing.T) {
	requant := isa.Requant{N: 30, AccStride: 120, Params: 512, Out: 4096, MX: 3, MY: 2, OutStrideX: 30, OutStrideY: 90, PerChannel: true, Lo: -128, Hi: 127}
	text := []isa.Instruction{
		isa.Load{Binding: 0, NX: 2048, NY: 1, NZ: 1},
		isa.Load{Binding: 0, NX: 512, NY: 2, NZ: 2, StrideY: 512, StrideZ: 1024, LocalStride: 1024, Acc: true},
		isa.Store{Binding: 1, NX: 512, NY: 2, NZ: 2, StrideY: 512, StrideZ: 1024, LocalStride: 1024, Acc: true},
		isa.Fill{NX: 400, NY: 3, Stride: 404, Acc: true},
		isa.Bias{N: 30, M: 4, AccStride: 120},
		isa.Element{Op: isa.ElemGELU, Type: systolic.FP32, OutType: systolic.Int8, Out: 4096, M: 4, N: 61, XStride: 256, OutStride: 64},
		isa.Element{Op: isa.ElemMul, Type: systolic.BF16, OutType: systolic.E4M3, Y: 1024, Out: 4096, M: 4, N: 61, One: true, XStride: 256, OutStride: 64},
		isa.Element{Op: isa.ElemAdd, Type: systolic.Int8, OutType: systolic.Int8, Y: 1024, Out: 4096, M: 4, N: 61, XStride: 61, YStride: 61, OutStride: 61},
		isa.Element{Op: isa.ElemReLU, Type: systolic.Int8, OutType: systolic.Int8, M: 1, N: 1000},
		isa.Table{Table: 1024, Out: 2048, M: 1, N: 65},
		isa.Reduce{Op: isa.ReduceMax, Type: systolic.FP16, OutType: systolic.FP32, Out: 4096, M: 4, N: 61, XStride: 256, OutStride: 64},
		isa.Norm{Op: isa.Softmax, Type: systolic.FP32, OutType: systolic.BF16, Out: 4096, M: 4, N: 61, XStride: 256, OutStride: 256},
		isa.Norm{Op: isa.LayerNorm, Type: systolic.FP32, OutType: systolic.FP32, Params: 1024, Out: 4096, M: 4, N: 61, XStride: 256, OutStride: 256},
	}
	for r := range isa.Rounding(3) {
		requant.Rounding, requant.Params = r, 512+256*uint32(r/isa.FloatScale)
		text = append(text, requant)
	}
	code := isa.Text(text...)
	tokensBetween(code)
	image := newProgram(2, append(code, isa.Text(isa.Halt{})...)).Image()
	m := &memory{t: t, bufs: [][]byte{make([]byte, 2048), make([]byte, 2048)}}
	for at := range 32 { // a multiplier and a shift, or an fp32
		copy(m.bufs[0][512+8*at:], []byte{0, 0, 0x80, 0x3f, 31})
		copy(m.bufs[0][768+8*at:], []byte{0, 0, 0x80, 0x3f})
	}
	bindings := m.bind()
	c := newCore(t, newConfig)
	if n := allocsPerRun(10, func() {
		if _, err := c.Run(t.Context(), image, bindings, m); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations in a run, want 0", n)
	}
}
