// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"math"
	"testing"

	"npuemu/core/isa"
	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
)

// program11 is program for ISA 1.1 with all groups of instructions.
func program11(t *testing.T, text string) []byte {
	t.Helper()
	p, err := isa.Assemble("test", []byte(".isa 1.1\n.features gemm, float, control, vector, reduce\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	return p.Image()
}

// The bits of the groups are the same words in registers and programs.
func TestFeatureBits(t *testing.T) {
	if isa.FeatureGEMM != npureg.FeatureGEMM || isa.FeatureFloat != npureg.FeatureFloat || isa.FeatureControl != npureg.FeatureControl ||
		isa.FeatureVector != npureg.FeatureVector || isa.FeatureReduce != npureg.FeatureReduce || isa.FeaturePool != npureg.FeaturePool || isa.FeatureGather != npureg.FeatureGather || isa.FeatureQuant != npureg.FeatureQuant ||
		isa.FeatureSparse != npureg.FeatureSparse || isa.FeatureMX != npureg.FeatureMX || isa.FeatureAddq != npureg.FeatureAddq || isa.FeatureArguments != npureg.FeatureArguments {
		t.Error("isa and npureg differ")
	}
}

// convText is a depthwise 3 × 3 convolution of a 4 × 4 image with 2 channels, a
// border of one pixel, zero points on both sides and int4 weights; then a whole
// product of 3 × 2 by 2 × 2, and one of two numbers.
const convText = `.spad 256
.acc 256
.bindings 2
load     binding=0 local=0 nx=32
load     binding=0 offset=32 local=64 nx=9 signal=0
operands b_type=int4 a_zero=100 b_zero=1 a_stride=2 b_stride=1 acc_stride=8 wait=0
window   kernel_h=3 kernel_w=3 groups=2 pad_top=1 pad_left=1
conv     in_h=4 in_w=4 out_h=4 out_w=4 cin=2 cout=2 a=0 b=64 acc=0 line=8
operands a_stride=2 b_stride=2 acc_stride=8 transpose_b
gemm     m=3 n=2 k=2 a=0 b=4 acc=128
operands a_type=e4m3 b_type=bf16
gemm     m=1 n=1 k=1 a=0 b=4 acc=152 signal=1
store    binding=1 local=0 nx=156 acc_mem wait=1
halt
`

// convResult is what convText makes of in, by the sums of §6.2.
func convResult(in []byte) []byte {
	out := make([]byte, 156)
	nibble := func(b byte, c int) int32 { return int32(int8(b<<(4-4*c)) >> 4) }
	for y := range 4 {
		for x := range 4 {
			for c := range 2 {
				var sum int32
				for ky := range 3 {
					for kx := range 3 {
						if iy, ix := y+ky-1, x+kx-1; iy >= 0 && iy < 4 && ix >= 0 && ix < 4 {
							sum += (int32(int8(in[iy*8+ix*2+c])) - 100) * (nibble(in[32+ky*3+kx], c) - 1)
						}
					}
				}
				le.PutUint32(out[(y*4+x)*8+4*c:], uint32(sum))
			}
		}
	}
	for m := range 3 {
		for n := range 2 {
			var sum int32
			for k := range 2 {
				sum += int32(int8(in[2*m+k])) * int32(int8(in[4+2*n+k]))
			}
			le.PutUint32(out[128+8*m+4*n:], uint32(sum))
		}
	}
	// 1.25 of E4M3 times the bf16 at 4.
	le.PutUint32(out[152:], math.Float32bits(1.25*math.Float32frombits(uint32(le.Uint16(in[4:]))<<16)))
	return out
}

// TestISA11: a card of architecture 1.3 or later executes whole convolutions and
// products, and programs of ISA 1.0.
func TestISA11(t *testing.T) {
	h, _ := ready(t)
	src, in := h.Alloc(64)
	dst, out := h.Alloc(156)
	for i := range in {
		in[i] = byte(37*i + 0x3a) // 1.25 in E4M3 is 0x3a
	}
	bindings := []devtest.Binding{{Addr: src, Size: 64, Read: true}, {Addr: dst, Size: 156, Write: true}}
	c := h.Do(1, h.Launch(program11(t, convText), bindings...))
	if want := uint64(4*4*2*9 + 3*2*2 + 1); c.Status != npureg.StatusSuccess || c.Info != want {
		t.Fatalf("%v, want success with %d MACs", c, want)
	}
	if want := convResult(in); !bytes.Equal(out, want) {
		t.Errorf("result\n% x, want\n% x", out, want)
	}
	runMistakes(t, h, []mistake{
		{"stride", h.Launch(unchecked(isa.Gemm{M: 2, N: 1, K: 1})), npureg.StatusBadSetup, 16, 0},
		{"groups", h.Launch(unchecked(
			isa.Window{KernelH: 1, KernelW: 1, StepY: 1, StepX: 1, DilationY: 1, DilationX: 1, Groups: 2},
			isa.Conv{InH: 1, InW: 1, OutH: 1, OutW: 1, Cin: 1, Cout: 1})), npureg.StatusBadSetup, 42, 1},
		{"type", h.Launch(unchecked(isa.Operands{A: 3})), npureg.StatusBadOperand, 4, 0},
		{"window", h.Launch(unchecked(isa.Window{})), npureg.StatusBadOperand, 4, 0},
		{"bounds", h.Launch(unchecked(isa.Gemm{M: 1, N: 1, K: 1025})), npureg.StatusBadSetup, 20, 0},
		{"local", h.Launch(unchecked(isa.Operands{BStride: 1}, isa.Gemm{M: 1, N: 1, K: 1025})), npureg.StatusLocalBounds, 1024, 1},
		{"kinds of types", h.Launch(unchecked(isa.Operands{A: 9})), npureg.StatusBadOperand, 5, 0},
		{"floating point without its feature", h.Launch(ofVersion(1, isa.FeatureGEMM, isa.Operands{A: 9, B: 9})), npureg.StatusBadOperand, 4, 0},
		{"feature", h.Launch(ofVersion(1, 0, isa.Window{})), npureg.StatusIllegalInstruction, 0x33, 0},
		{"loop", h.Launch(unchecked(isa.Loop{}, isa.End{})), npureg.StatusBadOperand, 8, 0},
		{"end", h.Launch(unchecked(isa.Sync{Engine: 1}, isa.End{})), npureg.StatusBadControl, 1, 1},
		{"budget", h.Launch(unchecked(isa.Loop{Count: 1 << 31}, isa.End{})), npureg.StatusBudget, isa.Budget, 1},
		{"operation", h.Launch(unchecked(isa.Element{Op: 14})), npureg.StatusBadOperand, 4, 0},
		{"rounding", h.Launch(ofVersion(1, isa.FeatureGEMM, isa.Requant{Rounding: 1})), npureg.StatusReservedField, 31, 0},
		{"reduction", h.Launch(unchecked(isa.Reduce{Op: 9})), npureg.StatusBadOperand, 4, 0},
		{"normalization", h.Launch(unchecked(isa.Norm{Type: 8})), npureg.StatusBadOperand, 6, 0},
		{"table", h.Launch(unchecked(isa.Table{N: 1})), npureg.StatusBadOperand, 20, 0},
		{"feature of another kind", h.Launch(ofVersion(1, npureg.FeatureMMU)), npureg.StatusConfigMismatch, 0x28, 0},
		{"ISA 1.0 with a feature", h.Launch(ofVersion(0, isa.FeatureGEMM)), npureg.StatusConfigMismatch, 0x28, 0},
		{"ISA 1.1 with a feature of 1.2", h.Launch(ofVersion(1, isa.FeaturePool)), npureg.StatusConfigMismatch, 0x28, 0},
		{"a later ISA", h.Launch(ofVersion(9, 0)), npureg.StatusBadProgram, 6, 0},
	})
}

// TestLoops: a program of a few instructions that moves and marks 16 rows.
func TestLoops(t *testing.T) {
	h, _ := ready(t)
	src, in := h.Alloc(16 * 8)
	dst, out := h.Alloc(16*8 + 16*16)
	for i := range in {
		in[i] = byte(11 * i)
	}
	c := h.Do(1, h.Launch(program11(t, `.spad 16
.bindings 2
sync.store signal=1
loop    reg=s0 count=16
with    offset=s0*8
load    binding=0 local=0 nx=8 wait=1 signal=0
with    offset=s0*-8
store   binding=1 offset=15*8 local=0 nx=8 wait=0
with    offset=s0*16 id=s0
stamp   binding=1 offset=16*8 id=100 signal=1
end
halt
`), devtest.Binding{Addr: src, Size: 16 * 8, Read: true}, devtest.Binding{Addr: dst, Size: 16*8 + 16*16, Write: true}))
	if c.Status != npureg.StatusSuccess || c.Result != 1+3*16+1 {
		t.Fatalf("%v, want success after 50 instructions", c)
	}
	for i := range 16 {
		stamp := out[16*8+16*i:]
		if !bytes.Equal(out[8*(15-i):][:8], in[8*i:][:8]) || le.Uint64(stamp) != uint64(3+3*i) || le.Uint64(stamp[8:]) != uint64(100+i) {
			t.Errorf("row %d: % x, stamp % x", i, out[8*(15-i):][:8], stamp[:16])
		}
	}
}

// TestVector: what a graph does between its products, on the device.
func TestVector(t *testing.T) {
	h, _ := ready(t)
	src, in := h.Alloc(8 + 256)
	dst, out := h.Alloc(18)
	copy(in, []byte{1, 0xff, 100, 0x9c, 2, 3, 100, 0x9c}) // 1 −1 100 −100, 2 3 100 −100
	for i := range 256 {
		in[8+i] = byte(i ^ 0x55)
	}
	c := h.Do(1, h.Launch(program11(t, `.spad 512
.bindings 2
load    binding=0 local=0 nx=8+256 signal=0
element op=add type=int8 out_type=int8 x=0 y=4 out=300 n=4 wait=0
element op=mul type=int8 out_type=int8 x=0 y=4 out=304 n=4 no_saturate
table   x=0 table=8 out=308 n=4
element op=lt type=int8 out_type=int8 x=0 y=4 out=312 n=4
reduce  op=sum type=int8 out_type=int8 x=0 out=316 m=2 n=4 x_stride=4 out_stride=1 signal=1
store   binding=1 local=300 nx=18 wait=1
halt
`), devtest.Binding{Addr: src, Size: 8 + 256, Read: true}, devtest.Binding{Addr: dst, Size: 18, Write: true}))
	if c.Status != npureg.StatusSuccess {
		t.Fatal(c)
	}
	want := []byte{3, 2, 127, 0x80, 2, 0xfd, 0x10, 0x10, 0x54, 0xaa, 0x31, 0xc9, 1, 1, 0, 0, 0, 5}
	if !bytes.Equal(out, want) {
		t.Errorf("% x, want % x", out, want)
	}
}

// unchecked is a program of ISA 1.1 with 1 KiB of each memory, whatever the
// assembler would say of it.
func unchecked(text ...isa.Instruction) []byte { return ofVersion(1, isa.FeaturesOf(1), text...) }

func ofVersion(minor uint16, features uint64, text ...isa.Instruction) []byte {
	p := isa.Program{Descriptor: isa.Descriptor{
		Minor: minor, Features: features, Rows: 32, Cols: 32, SpadSize: 1024, AccSize: 1024,
	}, Text: isa.Text(append(text, isa.Halt{})...)}
	return p.Image()
}

// TestWithoutISA11: older cards refuse programs of ISA 1.1 by its name and run
// those of 1.0.
func TestWithoutISA11(t *testing.T) {
	for _, arch := range []string{"1.2", "1.1", "1.0"} {
		t.Run(arch, func(t *testing.T) {
			cfg := config()
			cfg.Arch = arch
			h := devtest.New(t, cfg)
			prepare(h)
			runMistakes(t, h, []mistake{
				{"ISA 1.1", h.Launch(ofVersion(1, 0)), npureg.StatusBadProgram, 6, 0},
				{"ISA 1.1 with features", h.Launch(program11(t, "halt\n")), npureg.StatusBadProgram, 6, 0},
				{"GEMM", h.Launch(ofVersion(0, 0, isa.Gemm{M: 1, N: 1, K: 1})), npureg.StatusIllegalInstruction, 0x34, 0},
				{"ISA 1.0 with a feature", h.Launch(ofVersion(0, isa.FeatureGEMM)), npureg.StatusConfigMismatch, 0x28, 0},
				{"ISA 1.0", h.Launch(program(t, "halt\n")), npureg.StatusSuccess, 0, 1},
			})
		})
	}
}
