// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"math"
	"math/rand/v2"
	"testing"
)

// patch returns the encoding of i with byte off set to v.
func patch(i Instruction, off int, v byte) Word {
	w := i.Encode()
	w[off] = v
	return w
}

func TestCheckFormat(t *testing.T) {
	load := Load{NX: 1, NY: 1, NZ: 1}
	tests := []struct {
		name string
		w    Word
		rule Rule
		info uint64
	}{
		{"GEMM", Gemm{}.Encode(), 0, 0},
		{"zeroes", Word{}, IllegalInstruction, 0},
		{"unknown operation", Word{0x11}, IllegalInstruction, 0x11},
		{"unknown class", Word{0x60}, IllegalInstruction, 0x60},
		{"opcode before reserved", Word{0xff, 0xff}, IllegalInstruction, 0xff},
		{"HALT waits", Word{0x01, 0, 0x10}, ReservedField, 2},
		{"HALT signals", Word{0x01, 0, 0, 0x11}, ReservedField, 3},
		{"HALT last byte", patch(Halt{}, 31, 1), ReservedField, 31},
		{"SYNC flags", patch(Sync{Engine: ClassLoad}, 1, 0x80), ReservedField, 1},
		{"SYNC operand", patch(Sync{Engine: ClassVector}, 4, 1), ReservedField, 4},
		{"LOAD flags", patch(load, 1, 0x02), ReservedField, 1},
		{"LOAD waits for token without count", patch(load, 2, 0x05), ReservedField, 2},
		{"LOAD signals token without count", patch(load, 3, 0x0f), ReservedField, 3},
		{"STORE flags", patch(Store(load), 1, 0x03), ReservedField, 1},
		{"PRELOAD flags", patch(Preload{}, 1, 0x01), ReservedField, 1},
		{"PRELOAD tail", patch(Preload{}, 16, 1), ReservedField, 16},
		{"MATMUL flags", patch(Matmul{}, 1, 0x02), ReservedField, 1},
		{"MATMUL tail", patch(Matmul{}, 28, 1), ReservedField, 28},
		{"OPERANDS flags", patch(Operands{}, 1, 0x10), ReservedField, 1},
		{"OPERANDS gap", patch(Operands{}, 10, 1), ReservedField, 10},
		{"OPERANDS tail", patch(Operands{}, 28, 1), ReservedField, 28},
		{"WINDOW flags", patch(Window{}, 1, 1), ReservedField, 1},
		{"WINDOW tail", patch(Window{}, 16, 1), ReservedField, 16},
		{"GEMM flags", patch(Gemm{}, 1, 2), ReservedField, 1},
		{"GEMM tail", patch(Gemm{}, 28, 1), ReservedField, 28},
		{"CONV flags", patch(Conv{}, 1, 2), ReservedField, 1},
		{"FILL gap", patch(Fill{}, 5, 1), ReservedField, 5},
		{"FILL tail", patch(Fill{}, 24, 1), ReservedField, 24},
		{"BIAS flags", patch(Bias{}, 1, 0x01), ReservedField, 1},
		{"BIAS tail", patch(Bias{}, 20, 1), ReservedField, 20},
		{"REQUANT flags", patch(Requant{}, 1, 0x04), ReservedField, 1},
		{"REQUANT rounding", patch(Requant{}, 31, 1), 0, 0},
		{"ELEMENT flags", patch(Element{}, 1, 0x20), ReservedField, 1},
		{"ELEMENT gap", patch(Element{}, 7, 1), ReservedField, 7},
		{"REDUCE flags", patch(Reduce{}, 1, 2), ReservedField, 1},
		{"REDUCE gap", patch(Reduce{}, 12, 1), ReservedField, 12},
		{"REDUCE tail", patch(Reduce{}, 28, 1), ReservedField, 28},
		{"NORM flags", patch(Norm{}, 1, 0x10), ReservedField, 1},
		{"NORM tail", patch(Norm{}, 29, 1), ReservedField, 29},
		{"SCALES flags", patch(Scales{}, 1, 1), ReservedField, 1},
		{"SCALES tail", patch(Scales{}, 31, 1), ReservedField, 31},
		{"ADDQ flags", patch(Addq{}, 1, 8), ReservedField, 1},
		{"ADDQ gap", patch(Addq{}, 6, 1), ReservedField, 6},
		{"TABLE flags", patch(Table{}, 1, 1), ReservedField, 1},
		{"TABLE gap", patch(Table{}, 4, 1), ReservedField, 4},
		{"TABLE tail", patch(Table{}, 30, 1), ReservedField, 30},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := CheckFormat(&tt.w, Features)
			switch {
			case tt.rule == 0 && v != nil:
				t.Errorf("CheckFormat = %v, want nil", v)
			case tt.rule != 0 && (v == nil || v.Rule != tt.rule || v.Info != tt.info):
				t.Errorf("CheckFormat = %+v, want %v with info %d", v, tt.rule, tt.info)
			}
		})
	}
}

// A program has the groups of instructions that it names, and no others.
func TestCheckFormatFeatures(t *testing.T) {
	for i := range operations {
		op := &operations[i]
		w := Word{byte(op.opcode)}
		for features := range uint64(Features + 1) {
			v := CheckFormat(&w, features)
			if legal := op.feature&^features == 0; legal != (v == nil) || v != nil && (v.Rule != IllegalInstruction || v.Info != uint64(w[0])) {
				t.Errorf("%s with features %#x: %v", op.name, features, v)
			}
		}
	}
}

// The rounding of REQUANT is reserved for programs that do not name VECTOR.
func TestCheckFormatRounding(t *testing.T) {
	w := patch(Requant{}, 31, 2)
	for _, features := range []uint64{0, Features &^ FeatureVector} {
		if v := CheckFormat(&w, features); v == nil || v.Rule != ReservedField || v.Info != 31 {
			t.Errorf("features %#x: %v, want RESERVED_FIELD with info 31", features, v)
		}
	}
	if v := CheckFormat(&w, FeatureVector); v != nil {
		t.Error(v)
	}
}

// testLimits are those of a small core.
var testLimits = Limits{Rows: 16, Cols: 24, SpadSize: 4096, AccSize: 2048, Bindings: 2, Features: Features, Setup: initialSetup}

// edit returns i changed by f, so that a row shows only what is wrong.
func edit[T any](i T, f func(*T)) T {
	f(&i)
	return i
}

func TestCheck(t *testing.T) {
	// Good instructions that use their last byte of local memory.
	load := Load{Binding: 1, Local: 4096 - (3*10 + 8), NX: 8, NY: 2, NZ: 2, LocalStride: 10}
	accLoad := Load{Acc: true, Local: 2048 - (3*12 + 8), NX: 8, NY: 2, NZ: 2, LocalStride: 12}
	preload := Preload{K: 16, N: 24, Weights: 4096 - (15*32 + 24), Stride: 32}
	matmul := Matmul{
		K: 16, N: 24, MX: 3, MY: 2, Ifmap: 4096 - (2*7 + 100 + 16), StrideX: 7, StrideY: 100,
		Acc: 2048 - 6*96, AccStride: 96,
	}
	fill := Fill{Local: 4096 - (2*9 + 5), NX: 5, NY: 3, Stride: 9}
	accFill := Fill{Acc: true, Local: 2048 - (2*12 + 8), NX: 8, NY: 3, Stride: 12}
	bias := Bias{N: 4, AccStride: 20, Bias: 4096 - 16, Acc: 2048 - (2*20 + 16), M: 3}
	requant := Requant{
		PerChannel: true, N: 4, AccStride: 16, Acc: 2048 - 6*16, Out: 0, Params: 4096 - 32, MX: 3, MY: 2,
		OutStrideX: 5, OutStrideY: 14, Lo: -128, Hi: 127,
	}
	const max16, max32 = math.MaxUint16, math.MaxUint32

	tests := []struct {
		name string
		in   Instruction
		rule Rule // 0: no violation
		info uint64
	}{
		{"HALT", Halt{}, 0, 0},
		{"SYNC", Sync{Engine: ClassLoad}, 0, 0},

		{"LOAD", load, 0, 0},
		{"LOAD ny 0", edit(load, func(i *Load) { i.NY = 0 }), BadOperand, 6},
		{"LOAD nx 0", edit(load, func(i *Load) { i.NX = 0 }), BadOperand, 16},
		{"LOAD nz 0", edit(load, func(i *Load) { i.NZ = 0 }), BadOperand, 28},
		{"LOAD local_stride < nx", edit(load, func(i *Load) { i.LocalStride = 7 }), BadOperand, 30},
		{"LOAD local_stride counts planes", edit(load, func(i *Load) { i.NY, i.LocalStride = 1, 7 }), BadOperand, 30},
		{"LOAD local_stride of one row", edit(load, func(i *Load) { i.NY, i.NZ, i.LocalStride = 1, 1, 0 }), 0, 0},
		{"LOAD odd scratchpad address", edit(load, func(i *Load) { i.Local = 1 }), 0, 0},
		{"LOAD two rules, lower offset", edit(load, func(i *Load) { i.NX, i.NY = 0, 0 }), BadOperand, 6},
		{"LOAD straddles the end", edit(load, func(i *Load) { i.Local++ }), LocalBounds, 4096},
		{"LOAD last row is beyond the end", edit(load, func(i *Load) { i.LocalStride += 4 }), LocalBounds, 4096 - 38 + 3*14},
		{"LOAD far outside", edit(load, func(i *Load) { i.Local = max32 }), LocalBounds, max32},
		{"LOAD binding", edit(load, func(i *Load) { i.Binding = 2 }), BindingIndex, 2},
		{"LOAD bounds before binding", edit(load, func(i *Load) { i.Local++; i.Binding = 2 }), LocalBounds, 4096},

		{"LOAD ACC", accLoad, 0, 0},
		{"LOAD ACC local", edit(accLoad, func(i *Load) { i.Local += 2 }), BadOperand, 8},
		{"LOAD ACC nx", edit(accLoad, func(i *Load) { i.NX = 6 }), BadOperand, 16},
		{"LOAD ACC local_stride", edit(accLoad, func(i *Load) { i.LocalStride = 13 }), BadOperand, 30},
		{"LOAD ACC local_stride of one row", edit(accLoad, func(i *Load) { i.NY, i.NZ, i.LocalStride = 1, 1, 2 }), BadOperand, 30},
		{"LOAD ACC bounds", edit(accLoad, func(i *Load) { i.Local += 4 }), LocalBounds, 2048},

		{"STORE", Store(load), 0, 0},
		{"STORE nx 0", Store(edit(load, func(i *Load) { i.NX = 0 })), BadOperand, 16},
		{"STORE bounds", Store(edit(load, func(i *Load) { i.Local++ })), LocalBounds, 4096},
		{"STORE binding", Store(edit(load, func(i *Load) { i.Binding = 255 })), BindingIndex, 255},

		{"PRELOAD", preload, 0, 0},
		{"PRELOAD k 0", edit(preload, func(i *Preload) { i.K = 0 }), BadOperand, 4},
		{"PRELOAD n 0", edit(preload, func(i *Preload) { i.N = 0 }), BadOperand, 6},
		{"PRELOAD stride < n", edit(preload, func(i *Preload) { i.Stride = 23 }), BadOperand, 12},
		{"PRELOAD stride of one row", edit(preload, func(i *Preload) { i.K, i.Stride = 1, 0 }), 0, 0},
		{"PRELOAD k > ROWS", edit(preload, func(i *Preload) { i.K = 17 }), ArrayShape, 4},
		{"PRELOAD n > COLS", edit(preload, func(i *Preload) { i.N = 25 }), ArrayShape, 6},
		{"PRELOAD operand before shape", edit(preload, func(i *Preload) { i.K, i.N = 17, 0 }), BadOperand, 6},
		{"PRELOAD bounds", edit(preload, func(i *Preload) { i.Weights++ }), LocalBounds, 4096},
		{"PRELOAD shape before bounds", edit(preload, func(i *Preload) { i.K, i.Weights = 17, max32 }), ArrayShape, 4},

		{"MATMUL", matmul, 0, 0},
		{"MATMUL k 0", edit(matmul, func(i *Matmul) { i.K = 0 }), BadOperand, 4},
		{"MATMUL n 0", edit(matmul, func(i *Matmul) { i.N = 0 }), BadOperand, 6},
		{"MATMUL acc", edit(matmul, func(i *Matmul) { i.Acc++ }), BadOperand, 12},
		{"MATMUL mx 0", edit(matmul, func(i *Matmul) { i.MX = 0 }), BadOperand, 16},
		{"MATMUL my 0", edit(matmul, func(i *Matmul) { i.MY = 0 }), BadOperand, 18},
		{"MATMUL acc_stride multiple", edit(matmul, func(i *Matmul) { i.AccStride = 98 }), BadOperand, 22},
		{"MATMUL acc_stride < 4n", edit(matmul, func(i *Matmul) { i.AccStride = 92 }), BadOperand, 22},
		{"MATMUL acc_stride of one row", edit(matmul, func(i *Matmul) { i.MX, i.MY, i.AccStride = 1, 1, 0 }), 0, 0},
		{"MATMUL overlapping activations", edit(matmul, func(i *Matmul) { i.StrideX, i.StrideY = 0, 0 }), 0, 0},
		{"MATMUL k > ROWS", edit(matmul, func(i *Matmul) { i.K = 17 }), ArrayShape, 4},
		{"MATMUL n > COLS", edit(matmul, func(i *Matmul) { i.N, i.AccStride = 25, 100 }), ArrayShape, 6},
		{"MATMUL ifmap bounds", edit(matmul, func(i *Matmul) { i.Ifmap++ }), LocalBounds, 4096},
		{"MATMUL acc bounds", edit(matmul, func(i *Matmul) { i.Acc += 4 }), LocalBounds, 2048},
		{"MATMUL ifmap before acc", edit(matmul, func(i *Matmul) { i.Ifmap += 2; i.Acc += 4 }), LocalBounds, 4096},
		{"MATMUL largest strides", edit(matmul, func(i *Matmul) { i.MX, i.MY, i.StrideX, i.StrideY = max16, max16, max16, max32 }), LocalBounds, 3966 + max16},

		{"FILL", fill, 0, 0},
		{"FILL nx 0", edit(fill, func(i *Fill) { i.NX = 0 }), BadOperand, 12},
		{"FILL ny 0", edit(fill, func(i *Fill) { i.NY = 0 }), BadOperand, 16},
		{"FILL stride < nx", edit(fill, func(i *Fill) { i.Stride = 4 }), BadOperand, 20},
		{"FILL stride of one row", edit(fill, func(i *Fill) { i.NY, i.Stride = 1, 0 }), 0, 0},
		{"FILL bounds", edit(fill, func(i *Fill) { i.Local++ }), LocalBounds, 4096},
		{"FILL everything", Fill{Local: max32, NX: max32, NY: max32, Stride: max32}, LocalBounds, max32},
		{"FILL everything from 0", Fill{NX: max32, NY: max32, Stride: max32}, LocalBounds, 4096},
		{"FILL ACC", accFill, 0, 0},
		{"FILL ACC local", edit(accFill, func(i *Fill) { i.Local++ }), BadOperand, 8},
		{"FILL ACC nx", edit(accFill, func(i *Fill) { i.NX = 7 }), BadOperand, 12},
		{"FILL ACC stride", edit(accFill, func(i *Fill) { i.Stride = 13 }), BadOperand, 20},
		{"FILL ACC bounds", edit(accFill, func(i *Fill) { i.Local += 4 }), LocalBounds, 2048},

		{"BIAS", bias, 0, 0},
		{"BIAS n 0", edit(bias, func(i *Bias) { i.N = 0 }), BadOperand, 4},
		{"BIAS acc_stride multiple", edit(bias, func(i *Bias) { i.AccStride = 21 }), BadOperand, 6},
		{"BIAS acc_stride < 4n", edit(bias, func(i *Bias) { i.AccStride = 12 }), BadOperand, 6},
		{"BIAS acc_stride of one row", edit(bias, func(i *Bias) { i.M, i.AccStride = 1, 0 }), 0, 0},
		{"BIAS bias", edit(bias, func(i *Bias) { i.Bias -= 2 }), BadOperand, 8},
		{"BIAS acc", edit(bias, func(i *Bias) { i.Acc -= 2 }), BadOperand, 12},
		{"BIAS m 0", edit(bias, func(i *Bias) { i.M = 0 }), BadOperand, 16},
		{"BIAS n is not bound to the array", Bias{N: 100, M: 1}, 0, 0},
		{"BIAS bias bounds", edit(bias, func(i *Bias) { i.Bias += 4 }), LocalBounds, 4096},
		{"BIAS acc bounds", edit(bias, func(i *Bias) { i.Acc += 4 }), LocalBounds, 2048},

		{"REQUANT", requant, 0, 0},
		{"REQUANT n 0", edit(requant, func(i *Requant) { i.N = 0 }), BadOperand, 4},
		{"REQUANT acc_stride multiple", edit(requant, func(i *Requant) { i.AccStride = 18 }), BadOperand, 6},
		{"REQUANT acc_stride < 4n", edit(requant, func(i *Requant) { i.AccStride = 12 }), BadOperand, 6},
		{"REQUANT acc", edit(requant, func(i *Requant) { i.Acc-- }), BadOperand, 8},
		{"REQUANT params", edit(requant, func(i *Requant) { i.Params-- }), BadOperand, 16},
		{"REQUANT mx 0", edit(requant, func(i *Requant) { i.MX = 0 }), BadOperand, 20},
		{"REQUANT my 0", edit(requant, func(i *Requant) { i.MY = 0 }), BadOperand, 22},
		{"REQUANT out_stride_x < n", edit(requant, func(i *Requant) { i.OutStrideX = 3 }), BadOperand, 24},
		{"REQUANT out_stride_x of one column", edit(requant, func(i *Requant) { i.MX, i.OutStrideX = 1, 0 }), 0, 0},
		{"REQUANT out_stride_y short", edit(requant, func(i *Requant) { i.OutStrideY = 13 }), BadOperand, 26},
		{"REQUANT out_stride_y of one row", edit(requant, func(i *Requant) { i.MY, i.OutStrideY = 1, 0 }), 0, 0},
		{"REQUANT lo > hi", edit(requant, func(i *Requant) { i.Lo, i.Hi = 1, 0 }), BadOperand, 30},
		{"REQUANT lo = hi", edit(requant, func(i *Requant) { i.Lo, i.Hi = 1, 1 }), 0, 0},
		{"REQUANT acc bounds", edit(requant, func(i *Requant) { i.Acc += 4 }), LocalBounds, 2048},
		{"REQUANT out bounds", edit(requant, func(i *Requant) { i.Out = 4096 - 27 }), LocalBounds, 4096},
		{"REQUANT params bounds", edit(requant, func(i *Requant) { i.Params += 4 }), LocalBounds, 4096},
		{"REQUANT rounding", edit(requant, func(i *Requant) { i.Rounding = FloatScale }), 0, 0},
		{"REQUANT unknown rounding", edit(requant, func(i *Requant) { i.Rounding = 3 }), BadOperand, 31},
		{"REQUANT one parameter", edit(requant, func(i *Requant) { i.PerChannel, i.Params = false, 4096-8 }), 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := tt.in.Check(testLimits)
			switch {
			case tt.rule == 0 && v != nil:
				t.Errorf("Check = %v, want nil", v)
			case tt.rule != 0 && (v == nil || v.Rule != tt.rule || v.Info != tt.info):
				t.Errorf("Check = %+v, want %v with info %d", v, tt.rule, tt.info)
			}
		})
	}
}

// Outside against a walk over all bytes.
func TestRowsOutside(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 7))
	inside := 0
	for range 20000 {
		r := Rows{
			Base: rng.Uint64N(30), Outer: 1 + rng.Uint64N(4), Inner: 1 + rng.Uint64N(4),
			OuterStride: rng.Uint64N(20), InnerStride: rng.Uint64N(20), Bytes: 1 + rng.Uint64N(8),
		}
		size := rng.Uint64N(120)
		var want uint64
		outside := false
	walk:
		for o := range r.Outer {
			for i := range r.Inner {
				for b := range r.Bytes {
					if a := r.Base + o*r.OuterStride + i*r.InnerStride + b; a >= size {
						want, outside = a, true
						break walk
					}
				}
			}
		}
		got, gotOutside := r.Outside(size)
		if got != want || gotOutside != outside {
			t.Fatalf("%+v.Outside(%d) = %d, %t, want %d, %t", r, size, got, gotOutside, want, outside)
		}
		if !outside {
			inside++
		}
	}
	if inside < 1000 {
		t.Errorf("only %d sets of rows were inside", inside)
	}
}

func TestParam(t *testing.T) {
	for _, tt := range []struct {
		name string
		b    [ParamSize]byte
		ok   bool
	}{
		{"largest", [ParamSize]byte{0xff, 0xff, 0xff, 0x7f, 62}, true},
		{"smallest", [ParamSize]byte{0, 0, 0, 0, 1}, true},
		{"negative multiplier", [ParamSize]byte{0, 0, 0, 0x80, 1}, false},
		{"shift 0", [ParamSize]byte{1, 0, 0, 0, 0}, false},
		{"shift 63", [ParamSize]byte{1, 0, 0, 0, 63}, false},
		{"reserved 5", [ParamSize]byte{1, 0, 0, 0, 1, 1}, false},
		{"reserved 6", [ParamSize]byte{1, 0, 0, 0, 1, 0, 1}, false},
		{"reserved 7", [ParamSize]byte{1, 0, 0, 0, 1, 0, 0, 1}, false},
	} {
		if s, ok := Param(&tt.b); ok != tt.ok {
			t.Errorf("%s: Param = %+v, %t, want %t", tt.name, s, ok, tt.ok)
		}
	}
}
