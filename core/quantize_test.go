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

var quantizeTypes = append([]systolic.Type{systolic.Int4}, vectorTypes...)

func integerRange(t systolic.Type) (lo, hi int64) {
	return map[systolic.Type]int64{systolic.Int4: -8, systolic.Int8: -128, systolic.Uint8: 0, systolic.Int16: -32768, systolic.Int32: -1 << 31}[t],
		map[systolic.Type]int64{systolic.Int4: 7, systolic.Int8: 127, systolic.Uint8: 255, systolic.Int16: 32767, systolic.Int32: 1<<31 - 1}[t]
}

// nearest is the integer nearest to a / b with ties to +∞, or away from 0; b is above 0.
func nearest(a, b *big.Int, away bool) *big.Int {
	negative := away && a.Sign() < 0
	n := new(big.Int).Set(a)
	if negative {
		n.Neg(n)
	}
	n.Lsh(n, 1).Add(n, b).Div(n, new(big.Int).Lsh(b, 1)) // Div rounds down for b > 0
	if negative {
		n.Neg(n)
	}
	return n
}

// quantized is QUANTIZE of §5.6.29 for one element, in wide arithmetic: an
// integer, or an fp32, before the step to a narrower type.
func quantized(op isa.QuantizeOp, x float64, to systolic.Type, entry []byte) float64 {
	word := binary.LittleEndian.Uint32(entry)
	scale := float64(math.Float32frombits(word))
	zero := int64(int32(binary.LittleEndian.Uint32(entry[4:])))
	if op >= isa.RequantOne {
		zero = int64(int16(binary.LittleEndian.Uint16(entry[6:])))
	}
	lo, hi := integerRange(to)
	place := func(r int64) float64 { return float64(min(max(r+zero, lo), hi)) }
	toInt := func(v float64) int64 {
		if v != v {
			return 0
		}
		return int64(min(max(math.RoundToEven(v), -1<<31), 1<<31-1))
	}
	q, s := big.NewInt(int64(int32(word))), uint(entry[4])
	bigX, pow := big.NewInt(int64(x)), func(n uint) *big.Int { return new(big.Int).Lsh(big.NewInt(1), n) }
	switch op {
	case isa.QuantizeReal:
		return place(toInt(float64(float32(float64(float32(x)) / scale))))
	case isa.Dequantize:
		return float64(float32(float64(float32(int32(int64(x)-zero))) * scale))
	case isa.RequantScaled:
		return place(toInt(float64(float32(float64(float32(x)) * scale))))
	case isa.RequantOne:
		return place(nearest(bigX.Mul(bigX, q), pow(s), false).Int64())
	case isa.RequantTwo:
		if s <= 31 {
			v := int32(new(big.Int).And(bigX.Lsh(bigX, 31-s), big.NewInt(1<<32-1)).Uint64())
			return place(nearest(q.Mul(q, big.NewInt(int64(v))), pow(31), false).Int64())
		}
		return place(nearest(nearest(bigX.Mul(bigX, q), pow(31), false), pow(s-31), true).Int64())
	case isa.ConvertTrunc:
		if x != x {
			return 0
		}
		return min(max(math.Trunc(x), -1<<31), 1<<31-1)
	}
	return x
}

func TestQuantizeAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(201, 202))
	seen := map[isa.QuantizeOp]int{}
	types := map[systolic.Type]int{}
	for range 6000 {
		i := isa.Quantize{
			XAcc: rng.IntN(5) == 0, OutAcc: rng.IntN(5) == 0, PerChannel: rng.IntN(2) == 0, NoSaturate: rng.IntN(3) == 0, Op: isa.QuantizeOp(rng.IntN(7)),
			Type: quantizeTypes[rng.IntN(10)], OutType: quantizeTypes[rng.IntN(10)], X: 8 * rng.Uint32N(200), Params: 4096, Out: 2048 + 8*rng.Uint32N(100),
			M: 1 + rng.Uint32N(4), N: uint16(1 + rng.IntN(30)), XStride: 4 * uint16(rng.IntN(40)), OutStride: 4 * uint16(rng.IntN(32)),
		}
		if i.Op == isa.ConvertNear || i.Op == isa.ConvertTrunc {
			i.Params, i.PerChannel = 0, false
		}
		if i.Check(isa.Limits{SpadSize: uint32(newConfig.SpadSize), AccSize: uint32(newConfig.AccSize), Features: isa.Features}) != nil {
			continue
		}
		seen[i.Op]++
		types[i.Type]++
		types[i.OutType]++
		spad, acc := tameBytes(rng, newConfig.SpadSize), tameBytes(rng, newConfig.AccSize)
		zeroType := i.OutType
		if i.Op == isa.Dequantize {
			zeroType = i.Type
		}
		lo, hi := integerRange(zeroType)
		for k := range i.ParamCount() {
			e := spad[4096+8*k:][:8]
			zero := lo + rng.Int64N(min(hi-lo, 20000)+1)
			scale := math.Float32bits(float32(math.Exp(rng.NormFloat64() * 6)))
			switch i.Op {
			case isa.QuantizeReal, isa.Dequantize:
				binary.LittleEndian.PutUint32(e, scale)
				binary.LittleEndian.PutUint32(e[4:], uint32(zero))
			default:
				binary.LittleEndian.PutUint32(e, scale)
				binary.LittleEndian.PutUint32(e[4:], 0)
				if i.Op != isa.RequantScaled {
					binary.LittleEndian.PutUint32(e, uint32(rng.Int32()))
					e[4] = byte(1 + rng.IntN(62))
				}
				binary.LittleEndian.PutUint16(e[6:], uint16(max(zero, -32768)))
			}
		}
		m := &model{spad: bytes.Clone(spad), acc: bytes.Clone(acc)}
		local := m.spad
		if i.OutAcc {
			local = m.acc
		}
		for r := range int(i.M) {
			var row []byte
			for k := range int(i.N) {
				var x float64
				if base := int(i.X) + r*int(i.XStride); i.Type == systolic.Int4 {
					x = float64(int8(m.spad[base+k/2]<<(4-4*(k%2))) >> 4)
				} else {
					x = m.operand(i.XAcc, i.Type, base, 0, 0, k)
				}
				entry := make([]byte, 8)
				if n := i.ParamCount(); n > 0 {
					entry = spad[4096+8*(k%n):][:8]
				}
				v := quantized(i.Op, x, i.OutType, entry)
				float := i.OutType.Float()
				if i.Op == isa.ConvertNear {
					float = i.Type.Float()
				}
				if i.OutType == systolic.Int4 {
					w := int32(storeElement(v, float, systolic.Int32, true))
					if !i.NoSaturate {
						w = min(max(w, -8), 7)
					}
					if k%2 == 0 {
						row = append(row, byte(w)&15)
					} else {
						row[k/2] |= byte(w) << 4
					}
					continue
				}
				row = append(row, binary.LittleEndian.AppendUint32(nil, storeElement(v, float, i.OutType, !i.NoSaturate))[:i.OutType.Bytes(1)]...)
			}
			copy(local[int(i.Out)+r*int(i.OutStride):], row)
		}
		gotSpad, gotAcc := runRows(t, i, spad, acc)
		if !bytes.Equal(gotSpad, m.spad) || !bytes.Equal(gotAcc, m.acc) {
			w := i.Encode()
			t.Fatalf("local memory differs after %v", &w)
		}
	}
	for op := range isa.RequantScaled + 1 {
		if seen[op] < 60 {
			t.Errorf("operation %d: only %d instructions", op, seen[op])
		}
	}
	for _, k := range quantizeTypes {
		if types[k] < 60 {
			t.Errorf("type %d: only %d times", k, types[k])
		}
	}
}

func TestQuantizeErrors(t *testing.T) {
	quantize := isa.Quantize{Op: isa.QuantizeReal, Type: systolic.FP32, OutType: systolic.Int8, Params: 2048, Out: 4096, M: 2, N: 16, XStride: 128, OutStride: 64}
	scale := func(at uint32, v byte) isa.Instruction { return isa.Fill{Local: at, NX: 4, NY: 1, Value: v} } // 0x3f3f3f3f is 0.75
	good := scale(2048, 0x3f)
	channels := edit(quantize, func(i *isa.Quantize) { i.PerChannel, i.N = true, 2 })
	requant := edit(quantize, func(i *isa.Quantize) { i.Op, i.Type = isa.RequantOne, systolic.Int32 })
	shift := isa.Fill{Local: 2052, NX: 1, NY: 1, Value: 62}
	runFaultRows(t, []faultRow{
		{"no error", isa.Features, 0, []isa.Instruction{good, quantize}, 0, 0, 0},
		{"feature not named", isa.Features &^ isa.FeatureQuant, 0, []isa.Instruction{good, quantize}, core.StatusIllegalInstruction, 1, 0x4e},
		{"operand", isa.Features, 0, []isa.Instruction{isa.Quantize{Op: 7}}, core.StatusBadOperand, 0, 4},
		{"bounds", isa.Features, 0, []isa.Instruction{good, edit(quantize, func(i *isa.Quantize) { i.Out = 8192 })}, core.StatusLocalBounds, 1, 8192},
		{"scale 0", isa.Features, 0, []isa.Instruction{quantize}, core.StatusBadParam, 0, 2048},
		{"scale below 0", isa.Features, 0, []isa.Instruction{scale(2048, 0xbf), quantize}, core.StatusBadParam, 1, 2048},
		{"scale of a channel", isa.Features, 0, []isa.Instruction{good, channels}, core.StatusBadParam, 1, 2056},
		{"zero point of its type", isa.Features, 0, []isa.Instruction{good, isa.Fill{Local: 2052, NX: 1, NY: 1, Value: 127}, quantize}, 0, 0, 0},
		{"zero point of another type", isa.Features, 0, []isa.Instruction{good, isa.Fill{Local: 2052, NX: 1, NY: 1, Value: 128}, quantize}, core.StatusBadParam, 2, 2048},
		{"shift", isa.Features, 0, []isa.Instruction{good, shift, requant}, 0, 0, 0},
		{"shift 0", isa.Features, 0, []isa.Instruction{good, requant}, core.StatusBadParam, 1, 2048},
		{"reserved", isa.Features, 0, []isa.Instruction{good, shift, isa.Fill{Local: 2053, NX: 1, NY: 1, Value: 1}, requant}, core.StatusBadParam, 3, 2048},
		{"poisoned x", isa.Features, 128, []isa.Instruction{good, quantize}, core.StatusPoison, 1, 128},
		{"poisoned parameters", isa.Features, 2048, []isa.Instruction{good, quantize}, core.StatusPoison, 1, 2048},
		{"poisoned result", isa.Features, 4096, []isa.Instruction{good, quantize}, 0, 0, 0},
	})
	image := newProgram(0, isa.Text(good, quantize, edit(quantize, func(i *isa.Quantize) { i.OutType = systolic.Int4 }), isa.Halt{})).Image()
	c := newCore(t, newConfig)
	if n := allocsPerRun(10, func() {
		if _, err := c.Run(t.Context(), image, nil, nil); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations in a run, want 0", n)
	}
}
