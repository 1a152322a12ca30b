// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"npuemu/core"
	"npuemu/core/isa"
	"npuemu/core/num"
	"npuemu/core/systolic"
)

// sum32 is the sum of §6.11, term by term: step adds term i to a partial sum.
func sum32(n int, step func(s float32, i int) float32) float32 {
	var s [16]float32
	for i := range n {
		s[i%16] = step(s[i%16], i)
	}
	for width := 8; width > 0; width /= 2 {
		for j := range width {
			s[j] = float32(float64(s[j]) + float64(s[j+width]))
		}
	}
	return s[0]
}

// fma32 is fma of §6.7.
func fma32(a, b, c float32) float32 {
	return math.Float32frombits(chainStep(float64(a), float64(b), math.Float32bits(c)))
}

// The results of §6.11 and §6.14 for one row, in operations that round once.
func reduced(op isa.ReduceOp, float bool, x []float64) float64 {
	v := x[0]
	switch op {
	case isa.ReduceSum, isa.ReduceMean:
		if !float {
			sum := int64(0)
			for _, w := range x {
				sum += int64(w)
			}
			return float64(int32(sum))
		}
		v = float64(sum32(len(x), func(s float32, i int) float32 { return float32(float64(s) + x[i]) }))
		if op == isa.ReduceMean {
			v = float64(float32(v / float64(len(x))))
		}
	default:
		for _, w := range x[1:] {
			v, _ = element32(map[isa.ReduceOp]isa.ElementOp{isa.ReduceMax: isa.ElemMax, isa.ReduceMin: isa.ElemMin}[op], float, v, w)
		}
	}
	return v
}

func normalized(op isa.NormOp, x []float32, params []float32) []float32 {
	n := len(x)
	y := make([]float32, n)
	div := func(a, b float32) float32 { return float32(float64(a) / float64(b)) }
	switch op {
	case isa.Softmax:
		m := x[0]
		for _, v := range x {
			m = max(m, v)
		}
		for i, v := range x {
			y[i] = num.Exp(float32(float64(v) - float64(m)))
		}
		r := div(1, sum32(n, func(s float32, i int) float32 { return float32(float64(s) + float64(y[i])) }))
		for i := range y {
			y[i] = float32(float64(y[i]) * float64(r))
		}
	default:
		mean := float32(0)
		if op == isa.LayerNorm {
			mean = div(sum32(n, func(s float32, i int) float32 { return float32(float64(s) + float64(x[i])) }), float32(n))
		}
		d := func(i int) float32 { return float32(float64(x[i]) - float64(mean)) }
		v := div(sum32(n, func(s float32, i int) float32 { return fma32(d(i), d(i), s) }), float32(n))
		r := div(1, float32(math.Sqrt(float64(float32(float64(v)+float64(params[0]))))))
		for i := range y {
			t := float32(float64(d(i)) * float64(r))
			if op == isa.RMSNorm {
				y[i] = float32(float64(t) * float64(params[1+i]))
			} else {
				y[i] = fma32(t, params[1+i], params[1+n+i])
			}
		}
	}
	return y
}

// runRows executes in on a scratchpad and accumulators with the given contents
// and returns what is in them then.
func runRows(t *testing.T, in isa.Instruction, spad, acc []byte) ([]byte, []byte) {
	t.Helper()
	return runAll(t, spad, acc, in)
}

// arg is argmax or argmin of §5.6.20, as numpy has them.
func arg(op isa.ReduceOp, x []float64) float64 {
	best := math.Inf(1)
	for k, v := range x {
		if math.IsNaN(v) {
			return float64(k)
		}
		if op == isa.ReduceArgMax {
			x[k] = -v
		}
		best = min(best, x[k])
	}
	for k, v := range x {
		if v == best {
			return float64(k)
		}
	}
	panic("no element is the smallest")
}

func TestReduceAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(141, 142))
	seen := map[isa.ReduceOp]int{}
	for range 2200 {
		i := isa.Reduce{
			XAcc: rng.IntN(3) == 0, OutAcc: rng.IntN(3) == 0, NoSaturate: rng.IntN(2) == 0, Op: isa.ReduceOp(rng.IntN(6)),
			Type: vectorTypes[rng.IntN(9)], OutType: vectorTypes[rng.IntN(9)], X: 8 * rng.Uint32N(300), Out: 8 * rng.Uint32N(300),
			M: 1 + rng.Uint32N(9), N: uint16(1 + rng.IntN(50)), XStride: 4 * uint16(rng.IntN(40)), OutStride: 4 * uint16(rng.IntN(9)),
		}
		if rng.IntN(4) == 0 { // several rows at once
			i.Op, i.Type = isa.ReduceSum, systolic.FP32
		}
		if i.Check(isa.Limits{SpadSize: uint32(newConfig.SpadSize), AccSize: uint32(newConfig.AccSize), Features: isa.Features}) != nil {
			continue
		}
		seen[i.Op]++
		spad, acc := tameBytes(rng, newConfig.SpadSize), tameBytes(rng, newConfig.AccSize)
		m := &model{spad: bytes.Clone(spad), acc: bytes.Clone(acc)}
		for r := range int(i.M) {
			var x []float64
			for k := range int(i.N) {
				x = append(x, m.operand(i.XAcc, i.Type, int(i.X), int(i.XStride), r, k))
			}
			var b [4]byte
			v, float := 0.0, i.Type.Float()
			switch i.Op {
			case isa.ReduceArgMax, isa.ReduceArgMin:
				v, float = arg(i.Op, x), false
			default:
				v = reduced(i.Op, float, x)
			}
			binary.LittleEndian.PutUint32(b[:], storeElement(v, float, i.OutType, !i.NoSaturate))
			local := m.spad
			if i.OutAcc {
				local = m.acc
			}
			copy(local[int(i.Out)+r*int(i.OutStride):], b[:i.OutType.Bytes(1)])
		}
		gotSpad, gotAcc := runRows(t, i, spad, acc)
		if !bytes.Equal(gotSpad, m.spad) || !bytes.Equal(gotAcc, m.acc) {
			w := i.Encode()
			t.Fatalf("local memory differs after %v", &w)
		}
	}
	for op := range isa.ReduceArgMin + 1 {
		if seen[op] < 50 {
			t.Errorf("operation %d: only %d instructions", op, seen[op])
		}
	}
}

func TestNormAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(151, 152))
	types := []systolic.Type{systolic.FP32, systolic.BF16, systolic.FP16, systolic.E4M3, systolic.E5M2}
	for round := range 600 {
		i := isa.Norm{
			Op: isa.NormOp(round % 3), Type: systolic.FP32, OutType: types[rng.IntN(5)], XAcc: rng.IntN(2) == 0,
			X: 4 * rng.Uint32N(100), Out: 4096, Params: 2048, M: 1 + rng.Uint32N(7), N: uint16(1 + rng.IntN(60)), XStride: 240, OutStride: 256,
		}
		if i.OutAcc = i.OutType == systolic.FP32 && rng.IntN(2) == 0; i.OutAcc {
			i.Out = 2048
		}
		switch rng.IntN(5) {
		case 0: // in place
			i.OutType, i.OutAcc, i.Out, i.OutStride = systolic.FP32, i.XAcc, i.X, i.XStride
		case 1: // results where the operands of the next row are
			i.OutType, i.OutAcc, i.Out, i.OutStride = systolic.FP32, i.XAcc, i.X+4*rng.Uint32N(70), 240
		case 2: // a row again and again
			i.XStride = 0
		}
		if i.Op == isa.Softmax {
			i.Params = 0
		}
		numbers := func(n int) []byte {
			b := make([]byte, n)
			for k := 0; k < n; k += 4 {
				binary.LittleEndian.PutUint32(b[k:], math.Float32bits(float32(rng.NormFloat64()*3)))
			}
			return b
		}
		spad, acc := numbers(newConfig.SpadSize), numbers(newConfig.AccSize)
		binary.LittleEndian.PutUint32(spad[2048:], math.Float32bits(1e-5))
		m := &model{spad: bytes.Clone(spad), acc: bytes.Clone(acc)}
		var params []float32
		for k := range i.ParamCount() {
			params = append(params, math.Float32frombits(binary.LittleEndian.Uint32(spad[2048+4*k:])))
		}
		for r := range int(i.M) {
			var x []float32
			for k := range int(i.N) {
				x = append(x, float32(m.operand(i.XAcc, i.Type, int(i.X), int(i.XStride), r, k)))
			}
			for k, v := range normalized(i.Op, x, params) {
				var b [4]byte
				binary.LittleEndian.PutUint32(b[:], storeElement(float64(v), true, i.OutType, true))
				local, size := m.spad, int(i.OutType.Bytes(1))
				if i.OutAcc {
					local = m.acc
				}
				copy(local[int(i.Out)+r*int(i.OutStride)+size*k:], b[:size])
			}
		}
		gotSpad, gotAcc := runRows(t, i, spad, acc)
		if !bytes.Equal(gotSpad, m.spad) || !bytes.Equal(gotAcc, m.acc) {
			w := i.Encode()
			t.Fatalf("local memory differs after %v", &w)
		}
	}
}

func TestReduceErrors(t *testing.T) {
	reduce := isa.Reduce{Type: systolic.Int8, OutType: systolic.Int8, Out: 4096, M: 2, N: 64, XStride: 128, OutStride: 64}
	norm := isa.Norm{Op: isa.RMSNorm, Type: systolic.E4M3, OutType: systolic.E4M3, Params: 1024, Out: 4096, M: 1, N: 64}
	for _, tt := range []struct {
		name     string
		features uint64
		strike   uint64 // 0: none
		in       isa.Instruction
		status   core.Status // 0: no fault
		info     uint64
	}{
		{"no error", isa.Features, 0, reduce, 0, 0},
		{"feature not named", isa.FeatureVector, 0, reduce, core.StatusIllegalInstruction, 0x45},
		{"feature not named, norm", isa.FeatureVector, 0, norm, core.StatusIllegalInstruction, 0x46},
		{"operand", isa.Features, 0, isa.Reduce{Op: 7}, core.StatusBadOperand, 4},
		{"argmax", isa.Features, 0, edit(reduce, func(i *isa.Reduce) { i.Op = isa.ReduceArgMax }), 0, 0},
		{"argmax without its feature", isa.Features &^ isa.FeatureGather, 0, edit(reduce, func(i *isa.Reduce) { i.Op = isa.ReduceArgMax }), core.StatusBadOperand, 4},
		{"bounds", isa.Features, 0, isa.Norm{Type: systolic.E4M3, OutType: systolic.E4M3, X: 8192, M: 1, N: 1}, core.StatusLocalBounds, 8192},
		{"poisoned x", isa.Features, 128, reduce, core.StatusPoison, 128},
		{"poison between rows", isa.Features, 64, reduce, 0, 0},
		{"poisoned result", isa.Features, 4160, reduce, 0, 0},
		{"poisoned parameters", isa.Features, 1216, norm, core.StatusPoison, 1216},
		{"poison behind the parameters", isa.Features, 1344, norm, 0, 0},
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
	image := newProgram(0, isa.Text(reduce, norm, isa.Halt{})).Image()
	c := newCore(t, newConfig)
	if n := allocsPerRun(10, func() {
		if _, err := c.Run(t.Context(), image, nil, nil); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations in a run, want 0", n)
	}
}
