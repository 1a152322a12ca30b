// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"bytes"
	"context"
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

// blockConfig has room for operands beside those that they stand for.
var blockConfig = core.Config{Rows: 16, Cols: 24, SpadSize: 64 << 10, AccSize: 16 << 10, ISAMinor: isa.Minor, Features: isa.Features}

// productOf executes text on a scratchpad with the given contents and returns what is
// in the accumulators then.
func productOf(t *testing.T, spad []byte, text ...isa.Instruction) []byte {
	t.Helper()
	out := make([]byte, blockConfig.AccSize)
	raw := isa.Text(append(append([]isa.Instruction{isa.Load{NX: uint32(len(spad)), NY: 1, NZ: 1}}, text...),
		isa.Store{Binding: 1, NX: uint32(len(out)), NY: 1, NZ: 1, Acc: true})...)
	tokensBetween(raw)
	p := program(blockConfig, 2, append(raw, isa.Text(isa.Halt{})...))
	p.Minor, p.Features = isa.Minor, isa.Features
	m := &memory{t: t, bufs: [][]byte{spad, out}}
	if _, err := newCore(t, blockConfig).Run(t.Context(), p.Image(), m.bind(), m); err != nil {
		t.Fatal(err)
	}
	return out
}

// field is number i of n bits in a row's bit string.
func field(row []byte, i, n int) (v uint8) {
	for b := range n {
		v |= row[(i*n+b)/8] >> ((i*n + b) % 8) & 1 << b
	}
	return v
}

// Products of blocks against those of the fp32 that they stand for, which are made
// here bit by bit. Values of elements and scales are compared with ml_dtypes in
// core/num.
func TestBlocks(t *testing.T) {
	rng := rand.New(rand.NewPCG(211, 212))
	bits := map[num.MX]int{num.MXE4M3: 8, num.MXE5M2: 8, num.MXE3M2: 6, num.MXE2M3: 6, num.MXE2M1: 4, num.MXInt8: 8}
	seen := map[num.MX]int{}
	nans := 0
	for range 200 {
		m, n, k := 1+rng.IntN(9), 1+rng.IntN(12), 1+rng.IntN(100)
		a, b := num.MX(rng.IntN(7)), num.MX(rng.IntN(7))
		if a == num.NotMX && b == num.NotMX {
			continue
		}
		seen[a]++
		seen[b]++
		spad := randomBytes(rng, blockConfig.SpadSize)
		scales := func(base, stride, rows int) { // near 1, now and then NaN
			for i := range rows * stride {
				spad[base+i] = byte(120 + rng.IntN(16))
				if rng.IntN(300) == 0 {
					spad[base+i] = 0xff
				}
			}
		}
		const aAt, bAt, aScaleAt, bScaleAt, aWide, bWide = 0, 4096, 8192, 9216, 16384, 32768
		step := (k+31)/32 + rng.IntN(3)
		scales(aScaleAt, step, m)
		scales(bScaleAt, step, n)
		stride := 4*k + 4*rng.IntN(3)
		// wide writes the fp32 that rows at base stand for.
		wide := func(base, rows int, f num.MX, scaleAt, to int) {
			for r := range rows {
				for i := range k {
					row := spad[base+r*stride:]
					v := float32(rng.NormFloat64())
					if f == num.NotMX {
						binary.LittleEndian.PutUint32(row[4*i:], math.Float32bits(v))
					} else {
						v = num.MXValue(spad[scaleAt+r*step+i/32], f.Element(field(row, i, bits[f])))
					}
					if v != v {
						nans++
					}
					binary.LittleEndian.PutUint32(spad[to+4*(r*k+i):], math.Float32bits(v))
				}
			}
		}
		wide(aAt, m, a, aScaleAt, aWide)
		wide(bAt, n, b, bScaleAt, bWide)
		operands := isa.Operands{A: systolic.E4M3, B: systolic.E4M3, TransposeB: true, AStride: uint32(stride), BStride: uint32(stride), AccStride: uint32(4 * n)}
		blocks := isa.Blocks{A: a, B: b}
		if a == num.NotMX {
			operands.A = systolic.FP32
		} else {
			blocks.AScales, blocks.AScaleStride = aScaleAt, uint32(step)
		}
		if b == num.NotMX {
			operands.B = systolic.FP32
		} else {
			blocks.BScales, blocks.BScaleStride = bScaleAt, uint32(step)
		}
		gemm := isa.Gemm{M: uint32(m), N: uint32(n), K: uint32(k), A: aAt, B: bAt}
		got := productOf(t, spad, operands, blocks, gemm, edit(gemm, func(i *isa.Gemm) { i.Accumulate = true }))
		dense := isa.Operands{A: systolic.FP32, B: systolic.FP32, TransposeB: true, AStride: uint32(4 * k), BStride: uint32(4 * k), AccStride: uint32(4 * n)}
		gemm.A, gemm.B = aWide, bWide
		want := productOf(t, spad, dense, gemm, edit(gemm, func(i *isa.Gemm) { i.Accumulate = true }))
		if !bytes.Equal(got, want) {
			t.Fatalf("%d × %d × %d of formats %d and %d: results differ", m, n, k, a, b)
		}
	}
	for f := range num.MXInt8 + 1 {
		if seen[f] < 20 {
			t.Errorf("format %d: only %d times", f, seen[f])
		}
	}
	if nans < 100 {
		t.Errorf("only %d NaNs", nans)
	}
}

// Products of sparse weights against those of the dense ones that they stand for.
func TestSparse(t *testing.T) {
	rng := rand.New(rand.NewPCG(221, 222))
	kinds := map[systolic.Type]int{}
	for range 400 {
		const aAt, bAt, indexAt, zeroAt, denseAt = 0, 8192, 16384, 20480, 24576
		types := []systolic.Type{systolic.Int8, systolic.Uint8, systolic.Int4, systolic.FP32, systolic.BF16, systolic.FP16, systolic.E4M3, systolic.E5M2}
		b := types[rng.IntN(8)]
		a := systolic.Int8
		if b.Float() {
			a = []systolic.Type{systolic.FP32, systolic.BF16, systolic.E4M3}[rng.IntN(3)]
		} else if rng.IntN(3) == 0 {
			a = systolic.Int16
		}
		kinds[b]++
		spad := tameBytes(rng, blockConfig.SpadSize)
		o := isa.Operands{A: a, B: b, TransposeB: rng.IntN(2) == 0}
		if !b.Float() {
			o.AZero = int16(rng.IntN(100))
			if o.PerChannel = rng.IntN(2) == 0; o.PerChannel {
				o.BZeros = zeroAt
			} else {
				o.BZero = int16(rng.IntN(100))
			}
		}
		w := isa.Window{KernelH: 1, KernelW: 1, StepY: 1, StepX: 1, DilationY: 1, DilationX: 1, Groups: 1}
		m, n, depth := 1+rng.IntN(8), 1+rng.IntN(20), 4*(1+rng.IntN(12))
		var product isa.Instruction = isa.Gemm{M: uint32(m), N: uint32(n), K: uint32(depth), A: aAt, B: bAt}
		o.AStride = uint32(a.Bytes(uint64(depth)))
		if rng.IntN(2) == 0 { // a convolution
			w.KernelH, w.KernelW, w.PadTop, w.PadLeft, w.Groups = uint8(1+rng.IntN(3)), uint8(1+rng.IntN(3)), 1, 1, uint16(1+rng.IntN(2))
			cg := 4
			if rng.IntN(2) == 0 {
				w.KernelH, cg = 2, 2*(1+rng.IntN(3))
			}
			depth = int(w.KernelH) * int(w.KernelW) * cg
			if depth%4 != 0 {
				continue
			}
			cin := cg * int(w.Groups)
			n = int(w.Groups) * (1 + rng.IntN(10))
			o.AStride = uint32(a.Bytes(uint64(cin)))
			product = isa.Conv{InH: 4, InW: 4, OutH: 4, OutW: 4, Cin: uint16(cin), Cout: uint16(n), A: aAt, B: bAt, Line: 4 * o.AStride}
		}
		o.AccStride = uint32(4 * n)
		bRow, indexRow := n, n // elements of a row
		if o.TransposeB {
			bRow, indexRow = depth/2, depth/4
		}
		o.BStride = uint32(b.Bytes(uint64(bRow)))
		sparse := isa.Sparse{On: true, Indices: indexAt, IndexStride: uint32((indexRow+1)/2 + rng.IntN(2))}
		// The dense weights, int4 as int8, which has room for its zero points.
		dense, denseType := o, b
		if b == systolic.Int4 {
			denseType = systolic.Int8
		}
		dense.B, dense.TransposeB, dense.BStride = denseType, false, uint32(denseType.Bytes(uint64(n)))
		size := int(denseType.Bytes(1))
		at := func(k, c int) (row, i int) { // of the kept weights
			if o.TransposeB {
				return bAt + c*int(o.BStride), k
			}
			return bAt + k*int(o.BStride), c
		}
		for c := range n {
			zero := []byte{0, 0, 0, 0}
			if o.PerChannel {
				zero[0] = spad[zeroAt+c]
			} else {
				zero[0] = byte(o.BZero)
			}
			for g := range depth / 4 {
				first := rng.IntN(3)
				second := first + 1 + rng.IntN(3-first)
				at4, i := indexAt+g*int(sparse.IndexStride), c
				if o.TransposeB {
					at4, i = indexAt+c*int(sparse.IndexStride), g
				}
				pair := byte(first | second<<2)
				if i%2 == 0 {
					spad[at4+i/2] = spad[at4+i/2]&0xf0 | pair
				} else {
					spad[at4+i/2] = spad[at4+i/2]&0x0f | pair<<4
				}
				for k := range 4 {
					to := spad[denseAt+(4*g+k)*int(dense.BStride)+c*size:][:size]
					copy(to, zero)
					for which, index := range []int{first, second} {
						if k != index {
							continue
						}
						row, e := at(2*g+which, c)
						if b == systolic.Int4 {
							to[0] = byte(int8(spad[row+e/2]<<(4-4*(e%2))) >> 4)
						} else {
							copy(to, spad[row+e*size:][:size])
						}
					}
				}
			}
		}
		got := productOf(t, spad, o, w, sparse, product)
		switch i := product.(type) {
		case isa.Gemm:
			i.B = denseAt
			product = i
		case isa.Conv:
			i.B = denseAt
			product = i
		}
		want := productOf(t, spad, dense, w, product)
		if !bytes.Equal(got, want) {
			x, y, z := o.Encode(), w.Encode(), product.Encode()
			t.Fatalf("results differ after\n%v\n%v\n%v", &x, &y, &z)
		}
	}
	if len(kinds) != 8 {
		t.Errorf("%d types of weights, want 8", len(kinds))
	}
}

func TestBlockErrors(t *testing.T) {
	operands := isa.Operands{A: systolic.E4M3, B: systolic.E4M3, TransposeB: true, AStride: 64, BStride: 64, AccStride: 16}
	blocks := isa.Blocks{A: num.MXE4M3, B: num.MXE2M1, AScales: 4096, BScales: 5120, AScaleStride: 64, BScaleStride: 64}
	gemm := isa.Gemm{M: 4, N: 4, K: 64, B: 2048}
	integers := isa.Operands{AStride: 64, BStride: 4, AccStride: 16, PerChannel: true, BZeros: 7168}
	sparse := isa.Sparse{On: true, Indices: 6144, IndexStride: 64}
	indices := isa.Fill{Local: 6144, NX: 1024, NY: 1, Value: 0x4e} // 2 and 3, 0 and 1
	bad := isa.Fill{Local: 6144 + 64, NX: 2, NY: 1, Value: 0x41}
	runFaultRows(t, []faultRow{
		{"no error, blocks", isa.Features, 0, []isa.Instruction{operands, blocks, gemm}, 0, 0, 0},
		{"no error, sparse", isa.Features, 0, []isa.Instruction{integers, sparse, indices, isa.Sync{Engine: isa.ClassVector, Signal: tok(0, 1)}, edit(gemm, func(i *isa.Gemm) { i.Wait = tok(0, 1) })}, 0, 0, 0},
		{"feature not named", isa.FeatureGEMM, 0, []isa.Instruction{blocks}, core.StatusIllegalInstruction, 0, 0x36},
		{"feature not named, sparse", isa.FeatureGEMM, 0, []isa.Instruction{sparse}, core.StatusIllegalInstruction, 0, 0x37},
		{"format", isa.Features, 0, []isa.Instruction{isa.Blocks{A: 7}}, core.StatusBadOperand, 0, 4},
		{"indices without sparsity", isa.Features, 0, []isa.Instruction{isa.Sparse{Indices: 4}}, core.StatusBadOperand, 0, 8},
		{"types of another setup", isa.Features, 0, []isa.Instruction{integers, blocks, gemm}, core.StatusBadSetup, 2, 4},
		{"bounds of scales", isa.Features, 0, []isa.Instruction{operands, edit(blocks, func(i *isa.Blocks) { i.BScales = 8000 }), gemm}, core.StatusLocalBounds, 2, 8192},
		{"poisoned scales", isa.Features, 4096 + 128, []isa.Instruction{operands, blocks, gemm}, core.StatusPoison, 2, 4096 + 128},
		{"poisoned scales of weights", isa.Features, 5120, []isa.Instruction{operands, blocks, gemm}, core.StatusPoison, 2, 5120},
		{"poisoned activations", isa.Features, 64, []isa.Instruction{operands, blocks, gemm}, core.StatusPoison, 2, 64},
		{"poisoned weights", isa.Features, 2048 + 192, []isa.Instruction{operands, blocks, gemm}, core.StatusPoison, 2, 2048 + 192},
		{"poison behind short weights", isa.Features, 2048 + 256, []isa.Instruction{operands, blocks, gemm}, 0, 0, 0},
		{"indices of one weight twice", isa.Features, 0, []isa.Instruction{integers, sparse, gemm}, core.StatusBadSparsity, 2, 6144},
		{"indices in descending order", isa.Features, 0, []isa.Instruction{indices, bad, isa.Sync{Engine: isa.ClassVector, Signal: tok(0, 1)}, integers, sparse, edit(gemm, func(i *isa.Gemm) { i.Wait = tok(0, 1) })}, core.StatusBadSparsity, 5, 6144 + 64},
		{"poisoned indices", isa.Features, 6144 + 64, []isa.Instruction{integers, sparse, gemm}, core.StatusPoison, 2, 6144 + 64},
		{"poisoned zero points", isa.Features, 7168, []isa.Instruction{integers, sparse, gemm}, core.StatusPoison, 2, 7168},
		{"blocks that are sparse", isa.Features, 0, []isa.Instruction{operands, blocks, sparse, gemm}, core.StatusBadSetup, 3, 129},
		{"convolution of blocks", isa.Features, 0, []isa.Instruction{operands, blocks, isa.Conv{InH: 1, InW: 1, OutH: 1, OutW: 1, Cin: 4, Cout: 4}}, core.StatusBadSetup, 2, 100},
	})
	image := newProgram(0, isa.Text(operands, blocks, gemm, isa.Halt{})).Image()
	c := newCore(t, newConfig)
	if n := allocsPerRun(10, func() {
		if _, err := c.Run(t.Context(), image, nil, nil); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations in a run, want 0", n)
	}
}

// A second product of the same shape reads its weights again, and a BIAS before it
// counts.
func TestBlocksAgain(t *testing.T) {
	for _, tt := range []struct {
		name     string
		operands isa.Operands
		setup    isa.Instruction
		values   [2]byte // of all weights
		want     [2]uint32
	}{
		{"int8", isa.Operands{AStride: 8, BStride: 16, AccStride: 64}, isa.Sparse{On: true, Indices: 1024, IndexStride: 8}, [2]byte{2, 5}, [2]uint32{3 + 8*4*2/2, 3 + 8*4*5/2}},
		{"int16", isa.Operands{A: systolic.Int16, AStride: 16, BStride: 16, AccStride: 64}, isa.Sparse{On: true, Indices: 1024, IndexStride: 8}, [2]byte{2, 5}, [2]uint32{3 + 8*0x404*2/2, 3 + 8*0x404*5/2}},
		{
			"mxint8", isa.Operands{A: systolic.E4M3, B: systolic.E4M3, TransposeB: true, AStride: 8, BStride: 8, AccStride: 64},
			isa.Blocks{A: num.MXInt8, B: num.MXInt8, AScales: 2048, BScales: 2048, AScaleStride: 1, BScaleStride: 1},
			[2]byte{64, 32}, [2]uint32{math.Float32bits(8 * 4.0 / 64), math.Float32bits(8 * 2.0 / 64)},
		},
	} {
		gemm := isa.Gemm{M: 2, N: 16, K: 8, B: 512, Accumulate: tt.name != "mxint8"}
		next := edit(gemm, func(i *isa.Gemm) { i.Acc = 1024 })
		spad := make([]byte, 4096)
		for i := range spad {
			switch {
			case i < 512:
				spad[i] = 4 // activations
			case i < 1024:
				spad[i] = tt.values[0]
			case i < 2048:
				spad[i] = 0x44 // places 0 and 1
			case i < 3072:
				spad[i] = 127 // a scale of 1
			case i < 4096 && i%4 == 0:
				spad[i] = 3 // a bias
			}
		}
		out := productOf(t, spad, tt.operands, tt.setup,
			isa.Bias{N: 16, AccStride: 64, Bias: 3072, M: 2}, gemm,
			isa.Fill{Local: 512, NX: 512, NY: 1, Value: tt.values[1]},
			isa.Bias{N: 16, AccStride: 64, Bias: 3072, Acc: 1024, M: 2}, next)
		for which, want := range tt.want {
			for i := range 32 {
				if got := binary.LittleEndian.Uint32(out[1024*which+4*i:]); got != want {
					t.Fatalf("%s, product %d: element %d is %d, want %d", tt.name, which, i, got, want)
				}
			}
		}
	}
}

// One long column of sparse weights ends soon after its command, too: before the last index, which is not valid.
func TestSparseIsInterrupted(t *testing.T) {
	const k = 1 << 20
	cfg := core.Config{Rows: 8, Cols: 8, SpadSize: 4 << 20, AccSize: 4096, ISAMinor: isa.Minor, Features: isa.Features}
	text := isa.Text(
		isa.Fill{Value: 0x44, Local: 3 << 20, NX: k/4 - 1, NY: 1},
		isa.Operands{AStride: k, BStride: 1, AccStride: 4},
		isa.Sparse{On: true, Indices: 3 << 20, IndexStride: 1},
		isa.Gemm{M: 1, N: 1, K: k, B: 2 << 20},
	)
	tokensBetween(text)
	p := program(cfg, 0, append(text, isa.Text(isa.Halt{})...))
	p.Minor, p.Features = isa.Minor, isa.Features
	ctx, cancel := context.WithCancel(t.Context())
	m := &countdown{Context: ctx, cancel: cancel}
	m.n.Store(40)
	if _, err := newCore(t, cfg).Run(m, p.Image(), nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v, want context.Canceled", err)
	}
}
