// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/core/num"
	"npuemu/core/systolic"
)

// encodings puts every constructor beside its bytes, worked out from the tables
// of §5.6, and its canonical text (§5.8). Bytes are written in groups of four.
var encodings = []struct {
	in    Instruction
	bytes string
	text  string
}{
	{Halt{}, "01000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000", "halt"},
	{
		Sync{Engine: ClassLoad, Signal: Token{15, 1}},
		"1f00001f 00000000 00000000 00000000 00000000 00000000 00000000 00000000",
		"sync.load signal=15",
	},
	{
		Sync{Engine: ClassStore, Wait: Token{0, 15}},
		"2f00f000 00000000 00000000 00000000 00000000 00000000 00000000 00000000",
		"sync.store wait=0:15",
	},
	{
		Sync{Engine: ClassMatrix},
		"3f000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000",
		"sync.matrix",
	},
	{
		Sync{Engine: ClassVector, Wait: Token{3, 2}, Signal: Token{4, 1}},
		"4f002314 00000000 00000000 00000000 00000000 00000000 00000000 00000000",
		"sync.vector wait=3:2 signal=4",
	},
	{
		Loop{Reg: 3, Count: 0x10203, Start: -2, Step: 5},
		"02000000 03000000 03020100 feffffff 05000000 00000000 00000000 00000000",
		"loop    reg=s3 count=66051 start=-2 step=5",
	},
	{
		Loop{ByRegister: true, Reg: 15, CountReg: 4, Step: 1},
		"02010000 0f040000 00000000 00000000 01000000 00000000 00000000 00000000",
		"loop    reg=s15 count_reg=s4 by_register",
	},
	{End{}, "03000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000", "end"},
	{
		Scalar{Op: Min, RD: 1, RA: 2, RB: 3},
		"04000000 04010203 00000000 00000000 00000000 00000000 00000000 00000000",
		"scalar  op=min rd=s1 ra=s2 rb=s3",
	},
	{
		Scalar{Immediate: true, Op: LessEqual, RD: 7, Imm: -1},
		"04010000 0e070000 ffffffff 00000000 00000000 00000000 00000000 00000000",
		"scalar  op=le rd=s7 imm=-1 immediate",
	},
	{
		With{Terms: [4]Term{{8, 1, 64}, {12, 15, -2}, {6, 0, 1}}, Condition: IfZero, Reg: 9},
		"05000000 08014000 00000c0f feffffff 06000100 00000000 00000000 02090000",
		"with    field8=s1*64 field12=s15*-2 field6=s0 ifnot=s9",
	},
	{
		Stamp{Binding: 2, Offset: 0x12_0000_0010, ID: 7, Wait: Token{1, 1}},
		"21001100 02120000 07000000 10000000 00000000 00000000 00000000 00000000",
		"stamp   binding=2 id=7 offset=0x1200000010 wait=1",
	},
	{
		Load{Binding: 1, Local: 0x400, NX: 32, NY: 3, NZ: 1, StrideY: 40, LocalStride: 32, Signal: Token{0, 1}},
		"10000010 01000300 00040000 00000000 20000000 28000000 00000000 01002000",
		"load    binding=1 ny=3 local=0x400 nx=32 stride_y=40 local_stride=32 signal=0",
	},
	{
		Load{
			Acc: true, Binding: 2, Offset: 0xa1_a2a3_a4a5, Local: 0x10, NX: 4, NY: 0x102, NZ: 2,
			StrideY: 0x01020304, StrideZ: 0x05060708, LocalStride: 0x0c, Wait: Token{1, 2}, Signal: Token{3, 4},
		},
		"10012143 02a10201 10000000 a5a4a3a2 04000000 04030201 08070605 02000c00",
		"load    binding=2 ny=258 local=0x10 offset=0xa1a2a3a4a5 nx=4 stride_y=16909060 stride_z=84281096 nz=2 local_stride=12 acc_mem wait=1:2 signal=3:4",
	},
	{
		Store{Binding: 3, Local: 0x800, NX: 1024, NY: 1, NZ: 1, Wait: Token{2, 1}},
		"20001200 03000100 00080000 00000000 00040000 00000000 00000000 01000000",
		"store   binding=3 local=0x800 nx=1024 wait=2",
	},
	{
		Preload{K: 3, N: 16, Weights: 0x400, Stride: 32, Wait: Token{0, 1}},
		"30001000 03001000 00040000 20000000 00000000 00000000 00000000 00000000",
		"preload k=3 n=16 weights=0x400 stride=32 wait=0",
	},
	{
		Matmul{
			Accumulate: true, K: 3, N: 16, Ifmap: 0x20, Acc: 0x40, MX: 8, MY: 9,
			StrideX: 1, AccStride: 64, StrideY: 0x0a, Signal: Token{1, 1},
		},
		"31010011 03001000 20000000 40000000 08000900 01004000 0a000000 00000000",
		"matmul  k=3 n=16 ifmap=0x20 acc=0x40 mx=8 my=9 stride_x=1 acc_stride=64 stride_y=10 accumulate signal=1",
	},
	{
		Operands{
			PerChannel: true, TransposeB: true, A: systolic.Int16, B: systolic.Int4, AZero: -2, BZeros: 0x140,
			AStride: 0x01020304, BStride: 5, AccStride: 0x80, Wait: Token{5, 1},
		},
		"32051500 0102feff 00000000 40010000 04030201 05000000 80000000 00000000",
		"operands a_type=int16 b_type=int4 a_zero=-2 b_zeros=0x140 a_stride=16909060 b_stride=5 acc_stride=128 per_channel transpose_b wait=5",
	},
	{
		Operands{TransposeA: true, OutputStationary: true, A: systolic.Int8, B: systolic.Int4, AZero: 127, BZero: -128, AStride: 1},
		"320a0000 00027f00 80ff0000 00000000 01000000 00000000 00000000 00000000",
		"operands b_type=int4 a_zero=127 b_zero=-128 a_stride=1 transpose_a output_stationary",
	},
	{
		Operands{A: systolic.E4M3, B: systolic.FP32, BStride: 8},
		"32000000 0b080000 00000000 00000000 00000000 08000000 00000000 00000000",
		"operands a_type=e4m3 b_type=fp32 b_stride=8",
	},
	{
		Window{KernelH: 3, KernelW: 5, StepY: 2, StepX: 1, DilationY: 1, DilationX: 4, Groups: 0x102, PadTop: 0x304, PadLeft: 6},
		"33000000 03050201 01040201 04030600 00000000 00000000 00000000 00000000",
		"window  kernel_h=3 kernel_w=5 step_y=2 dilation_x=4 groups=258 pad_top=772 pad_left=6",
	},
	{
		Gemm{Accumulate: true, M: 0x10203, N: 64, K: 1000, A: 0x40, B: 0x8000, Acc: 0x20, Signal: Token{2, 1}},
		"34010012 03020100 40000000 e8030000 40000000 00800000 20000000 00000000",
		"gemm    m=66051 n=64 k=1000 a=0x40 b=0x8000 acc=0x20 accumulate signal=2",
	},
	{
		Conv{InH: 56, InW: 57, OutH: 28, OutW: 29, Cin: 64, Cout: 128, A: 0x10, B: 0x20000, Acc: 4, Line: 3648},
		"35000000 38003900 1c001d00 40008000 10000000 00000200 04000000 400e0000",
		"conv    in_h=56 in_w=57 out_h=28 out_w=29 cin=64 cout=128 a=0x10 b=0x20000 acc=0x4 line=3648",
	},
	{
		Blocks{A: num.MXE2M1, B: num.MXInt8, AScales: 3, BScales: 0x100, AScaleStride: 0x10203, BScaleStride: 9, Wait: Token{1, 1}},
		"36001100 05060000 03000000 00010000 03020100 09000000 00000000 00000000",
		"blocks  a_format=mxfp4_e2m1 b_format=mxint8 a_scales=0x3 b_scales=0x100 a_scale_stride=66051 b_scale_stride=9 wait=1",
	},
	{
		Sparse{On: true, Indices: 5, IndexStride: 0x10203, Signal: Token{1, 1}},
		"37010011 00000000 05000000 03020100 00000000 00000000 00000000 00000000",
		"sparse  indices=0x5 index_stride=66051 on signal=1",
	},
	{
		Fill{Acc: true, Value: 0xfe, Local: 8, NX: 16, NY: 5, Stride: 20},
		"40010000 fe000000 08000000 10000000 05000000 14000000 00000000 00000000",
		"fill    value=254 local=0x8 nx=16 ny=5 stride=20 acc_mem",
	},
	{
		Bias{N: 16, AccStride: 64, Bias: 0x80, Acc: 0x100, M: 70},
		"41000000 10004000 80000000 00010000 46000000 00000000 00000000 00000000",
		"bias    n=16 acc_stride=64 bias=0x80 acc=0x100 m=70",
	},
	{
		Requant{
			PerChannel: true, N: 16, AccStride: 64, Acc: 0x4, Out: 0x800, Params: 0x600, MX: 8, MY: 7,
			OutStrideX: 16, OutStrideY: 128, ZeroPoint: -3, Lo: -100, Hi: 127,
		},
		"42010000 10004000 04000000 00080000 00060000 08000700 10008000 fd9c7f00",
		"requant n=16 acc_stride=64 acc=0x4 out=0x800 params=0x600 mx=8 my=7 out_stride_x=16 out_stride_y=128 zero_point=-3 lo=-100 per_channel",
	},
	{
		Requant{N: 1, Acc: 4, Out: 5, Params: 8, MX: 1, MY: 1, Lo: -128, Hi: 127, Rounding: TwoRoundings},
		"42000000 01000000 04000000 05000000 08000000 01000100 00000000 00807f01",
		"requant n=1 acc=0x4 out=0x5 params=0x8 rounding=two",
	},
	{
		Element{
			XAcc: true, OutAcc: true, One: true, Op: ElemMul, Type: systolic.FP32, OutType: systolic.Int32,
			X: 0x10, Y: 0x20, Out: 0x30, M: 0x10203, N: 7, XStride: 28, OutStride: 32, Wait: Token{3, 1},
		},
		"43151300 06080300 10000000 20000000 30000000 03020100 07001c00 00002000",
		"element op=mul type=fp32 out_type=int32 x=0x10 y=0x20 out=0x30 m=66051 n=7 x_stride=28 out_stride=32 x_acc out_acc one wait=3",
	},
	{
		Element{YAcc: true, NoSaturate: true, Op: ElemShrRound, Type: systolic.Int32, OutType: systolic.Int8, X: 4, Y: 8, Out: 1, M: 2, N: 3, YStride: 12, OutStride: 3},
		"430a0000 16030000 04000000 08000000 01000000 02000000 03000000 0c000300",
		"element op=shr_round type=int32 out_type=int8 x=0x4 y=0x8 out=0x1 m=2 n=3 y_stride=12 out_stride=3 y_acc no_saturate",
	},
	{
		Table{X: 1, Table: 0x100, Out: 0x200, M: 3, N: 4, XStride: 5, OutStride: 6, Signal: Token{1, 1}},
		"44000011 00000000 01000000 00010000 00020000 03000000 04000500 06000000",
		"table   x=0x1 table=0x100 out=0x200 m=3 n=4 x_stride=5 out_stride=6 signal=1",
	},
	{
		Reduce{XAcc: true, NoSaturate: true, Op: ReduceMean, Type: systolic.FP32, OutType: systolic.Uint8, X: 8, Out: 3, M: 9, N: 64, XStride: 256, OutStride: 1},
		"45090000 03080400 08000000 00000000 03000000 09000000 40000001 00000100",
		"reduce  op=mean type=fp32 out_type=uint8 x=0x8 out=0x3 m=9 n=64 x_stride=256 out_stride=1 x_acc no_saturate",
	},
	{
		Norm{OutAcc: true, Op: LayerNorm, Type: systolic.BF16, OutType: systolic.FP32, X: 8, Params: 0x100, Out: 4, M: 2, N: 5, XStride: 10, OutStride: 20, Wait: Token{1, 1}},
		"46041100 01090800 08000000 00010000 04000000 02000000 05000a00 00001400",
		"norm    op=layer type=bf16 out_type=fp32 x=0x8 params=0x100 out=0x4 m=2 n=5 x_stride=10 out_stride=20 out_acc wait=1",
	},
	{
		Image{
			XAcc: true, NoSaturate: true, Type: systolic.Int32, OutType: systolic.Uint8, Zero: -2, InH: 3, InW: 4, OutH: 5, OutW: 6,
			XLine: 0x10203, OutLine: 0x708, XPixel: 9, OutPixel: 10, XTop: 11, OutTop: 12, Wait: Token{2, 1},
		},
		"47091200 0304feff 03000400 05000600 03020100 08070000 09000a00 0b000c00",
		"image   type=int32 out_type=uint8 zero=-2 in_h=3 in_w=4 out_h=5 out_w=6 x_line=66051 out_line=1800 x_pixel=9 out_pixel=10 x_top=11 out_top=12 x_acc no_saturate wait=2",
	},
	{
		Pool{
			CountPad: true, Op: PoolAverage, N: 64, X: 0x100, Out: 0x2000, KernelH: 3, KernelW: 0x204, StepY: 5, StepX: 1, DilationY: 2, DilationX: 1,
			PadTop: 1, PadLeft: 2, PadBottom: 3, PadRight: 4, Signal: Token{1, 1},
		},
		"48010011 03004000 00010000 00200000 03000402 05010201 01000200 03000400",
		"pool    op=average n=64 x=0x100 out=0x2000 kernel_h=3 kernel_w=516 step_y=5 dilation_y=2 pad_top=1 pad_left=2 pad_bottom=3 pad_right=4 count_pad signal=1",
	},
	{
		Resize{Half: true, Center: true, Mode: ResizeLinear, N: 7, X: 4, Out: 0x800, DivY: 0x40000000, MulX: 0x3f000000},
		"49030000 04000700 04000000 00080000 00000000 00000040 0000003f 00000000",
		"resize  mode=linear n=7 x=0x4 out=0x800 div_y=0x40000000 mul_x=0x3f000000 half center",
	},
	{
		Shape{N: [4]uint16{1, 2, 3, 0x405}, OutStride: [4]uint32{6, 7, 0x80910, 11}, Signal: Token{3, 1}},
		"4a000013 01000200 03000504 06000000 07000000 10090800 0b000000 00000000",
		"shape   n1=2 n2=3 n3=1029 out0=6 out1=7 out2=526608 out3=11 signal=3",
	},
	{
		Transpose{Size: 0x102, X: 3, Out: 0x400, XStride: [4]uint32{5, 0, 0x60708, 9}, Wait: Token{3, 1}},
		"4b001300 02010000 03000000 00040000 05000000 00000000 08070600 09000000",
		"transpose size=258 x=0x3 out=0x400 x0=5 x2=395016 x3=9 wait=3",
	},
	{
		Gather{FromEnd: true, N: 64, Stride: 72, X: 1, Indices: 0x100, Out: 0x200, M: 3, Rows: 0x10203, TableStride: 65},
		"4c010000 40004800 01000000 00010000 00020000 03000000 03020100 41000000",
		"gather  n=64 out_stride=72 x=0x1 indices=0x100 out=0x200 m=3 rows=66051 x_stride=65 from_end",
	},
	{
		Scatter{N: 64, Stride: 72, X: 1, Indices: 0x100, Out: 0x200, M: 3, Rows: 0x10203, TableStride: 65},
		"4d000000 40004800 01000000 00010000 00020000 03000000 03020100 41000000",
		"scatter n=64 x_stride=72 x=0x1 indices=0x100 out=0x200 m=3 rows=66051 out_stride=65",
	},
	{
		Scales{
			Rounding: TwoRoundings, Left: 20, XZero: 4, YZero: -3, Zero: 1, Lo: -128, Hi: 127, XScale: 0x01020304, YScale: 5, Scale: 6,
			XShift: 32, YShift: 31, SShift: 50, Wait: Token{1, 1},
		},
		"50001100 01140400 fdff0100 80ff7f00 04030201 05000000 06000000 201f3200",
		"scales  rounding=two left=20 x_zero=4 y_zero=-3 zero_point=1 lo=-128 hi=127 x_scale=0x1020304 y_scale=0x5 scale=0x6 x_shift=32 y_shift=31 shift=50 wait=1",
	},
	{
		Addq{One: true, Op: AddqSub, Type: systolic.Int16, X: 0x10, Y: 0x20, Out: 0x30, M: 4, N: 5, XStride: 10, OutStride: 12, Signal: Token{2, 1}},
		"51100012 01010000 10000000 20000000 30000000 04000000 05000a00 00000c00",
		"addq    op=sub type=int16 x=0x10 y=0x20 out=0x30 m=4 n=5 x_stride=10 out_stride=12 one signal=2",
	},
	{
		Quantize{XAcc: true, PerChannel: true, Op: RequantTwo, Type: systolic.Int32, OutType: systolic.Int4, X: 8, Params: 0x100, Out: 5, M: 2, N: 3, XStride: 12, OutStride: 2},
		"4e030000 05030200 08000000 00010000 05000000 02000000 03000c00 00000200",
		"quantize op=two type=int32 out_type=int4 x=0x8 params=0x100 out=0x5 m=2 n=3 x_stride=12 out_stride=2 x_acc per_channel",
	},
}

func TestEncodings(t *testing.T) {
	opcodes := map[byte]bool{}
	for _, tt := range encodings {
		t.Run(tt.text, func(t *testing.T) {
			b, err := hex.DecodeString(strings.ReplaceAll(tt.bytes, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			opcodes[b[0]] = true
			w := tt.in.Encode()
			if diff := cmp.Diff(b, w[:]); diff != "" {
				t.Errorf("Encode (-want +got):\n%s", diff)
			}
			got, v := Decode((*Word)(b))
			if v != nil {
				t.Fatalf("Decode: %v", v)
			}
			if diff := cmp.Diff(tt.in, got); diff != "" {
				t.Errorf("Decode (-want +got):\n%s", diff)
			}
			if got := w.String(); got != tt.text {
				t.Errorf("String:\n got %s\nwant %s", got, tt.text)
			}
		})
	}
	if len(opcodes) != len(operations) {
		t.Errorf("%d opcodes have a row, want all %d", len(opcodes), len(operations))
	}
}

func TestEncodePanics(t *testing.T) {
	for name, in := range map[string]Instruction{
		"token number": Sync{Engine: ClassLoad, Wait: Token{16, 1}},
		"token count":  Sync{Engine: ClassLoad, Signal: Token{0, 16}},
		"sync engine":  Sync{Engine: 5},
		"offset":       Store{Offset: MaxOffset},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("Encode did not panic")
				}
			}()
			in.Encode()
		})
	}
}
