// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"testing"

	"npuemu/core/isa"
	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
)

// program12 is program for ISA 1.2 with the groups that it adds.
func program12(t *testing.T, text string) []byte {
	t.Helper()
	p, err := isa.Assemble("test", []byte(".isa 1.2\n.features pool, sparse, mx, gather, quant\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	return p.Image()
}

// TestISA12: a card of architecture 1.4 pools and resizes images, and refuses
// what §5.7 says.
func TestISA12(t *testing.T) {
	h, _ := ready(t)
	src, in := h.Alloc(16)
	dst, out := h.Alloc(20)
	for i := range in {
		in[i] = byte(7*i - 50)
	}
	bindings := []devtest.Binding{{Addr: src, Size: 16, Read: true}, {Addr: dst, Size: 20, Write: true}}
	c := h.Do(1, h.Launch(program12(t, `.spad 64
.bindings 2
load    binding=0 local=0 nx=16 signal=0
image   type=int8 out_type=int8 in_h=4 in_w=4 out_h=2 out_w=2 x_pixel=1 x_line=4 out_pixel=1 out_line=2 wait=0
pool    op=average n=1 x=0 out=32 kernel_h=2 kernel_w=2 step_y=2 step_x=2
image   type=int8 out_type=int8 in_h=2 in_w=2 out_h=4 out_w=4 x_pixel=1 x_line=2 out_pixel=1 out_line=4
resize  mode=floor n=1 x=32 out=36 mul_y=0x3f000000 mul_x=0x3f000000 signal=1
store   binding=1 local=32 nx=20 wait=1
halt
`), bindings...))
	if c.Status != npureg.StatusSuccess {
		t.Fatal(c)
	}
	want := make([]byte, 20)
	for y := range 4 {
		for x := range 4 {
			at := 8*(y/2) + 2*(x/2) // the mean of four numbers with 7 and 28 between them ends in ½
			sum := 0
			for _, k := range []int{0, 1, 4, 5} {
				sum += int(int8(in[at+k]))
			}
			v := (2*sum + 4) / 8
			if sum < 0 {
				v = -((-2*sum + 4) / 8)
			}
			want[2*(y/2)+x/2], want[4+4*y+x] = byte(v), byte(v)
		}
	}
	if !bytes.Equal(out, want) {
		t.Errorf("result\n% x, want\n% x", out, want)
	}
	unchecked := func(text ...isa.Instruction) []byte { return ofVersion(2, isa.FeaturesOf(2), text...) }
	image := isa.Image{InH: 2, InW: 1, OutH: 1, OutW: 1, XLine: 4}
	pool := isa.Pool{N: 4, Out: 64, KernelH: 1, KernelW: 1, StepY: 1, StepX: 1, DilationY: 1, DilationX: 1}
	large, near := pool, pool
	large.N, near.Out = 5, 7
	runMistakes(t, h, []mistake{
		{"image", h.Launch(unchecked(isa.Image{Type: 2})), npureg.StatusBadOperand, 4, 0},
		{"pool", h.Launch(unchecked(isa.Pool{CountPad: true})), npureg.StatusBadOperand, 1, 0},
		{"resize", h.Launch(unchecked(isa.Resize{N: 1, DivX: 1 << 31})), npureg.StatusBadOperand, 28, 0},
		{"setup", h.Launch(unchecked(image, large)), npureg.StatusBadSetup, 80, 1},
		{"overlap", h.Launch(unchecked(image, near)), npureg.StatusOverlap, 7, 1},
		{"local", h.Launch(unchecked(isa.Resize{N: 1, X: 1024})), npureg.StatusLocalBounds, 1024, 0},
		{"transpose", h.Launch(unchecked(isa.Transpose{Size: 2, Out: 1})), npureg.StatusOverlap, 1, 0},
		{"index", h.Launch(unchecked(isa.Fill{Local: 68, NX: 1, NY: 1, Value: 2}, isa.Gather{N: 4, Stride: 4, Indices: 64, Out: 128, M: 2, Rows: 2, TableStride: 4})), npureg.StatusBadIndex, 1<<32 | 2, 1},
		{"quantize", h.Launch(unchecked(isa.Quantize{Type: 8, OutType: 8, M: 1, N: 1})), npureg.StatusBadOperand, 6, 0},
		{"scale", h.Launch(unchecked(isa.Quantize{Type: 8, Params: 64, M: 1, N: 1})), npureg.StatusBadParam, 64, 0},
		{"format", h.Launch(unchecked(isa.Blocks{B: 9})), npureg.StatusBadOperand, 5, 0},
		{"blocks", h.Launch(unchecked(isa.Blocks{A: 5}, isa.Gemm{M: 1, N: 1, K: 1})), npureg.StatusBadSetup, 4, 1},
		{"sparse", h.Launch(unchecked(isa.Sparse{On: true}, isa.Gemm{M: 1, N: 1, K: 2})), npureg.StatusBadSetup, 129, 1},
		{"places", h.Launch(unchecked(isa.Sparse{On: true, Indices: 77, IndexStride: 1}, isa.Operands{BStride: 1}, isa.Gemm{M: 1, N: 1, K: 4})), npureg.StatusBadSparsity, 77, 2},
		{"feature", h.Launch(ofVersion(2, 0, image)), npureg.StatusIllegalInstruction, 0x47, 0},
		{"no mistake", h.Launch(unchecked(image, pool)), npureg.StatusSuccess, 0, 3},
	})
}

// TestWithoutISA12: a card of architecture 1.3 is what it was: it refuses programs
// of ISA 1.2 by its name and runs those of 1.1 with all their groups.
func TestWithoutISA12(t *testing.T) {
	cfg := config()
	cfg.Arch = "1.3"
	h := devtest.New(t, cfg)
	prepare(h)
	runMistakes(t, h, []mistake{
		{"ISA 1.2", h.Launch(ofVersion(2, 0)), npureg.StatusBadProgram, 6, 0},
		{"ISA 1.2 with features", h.Launch(program12(t, "halt\n")), npureg.StatusBadProgram, 6, 0},
		{"ISA 1.1 with a feature of 1.2", h.Launch(ofVersion(1, isa.FeaturePool)), npureg.StatusConfigMismatch, 0x28, 0},
		{"POOL", h.Launch(ofVersion(1, isa.FeaturesOf(1), isa.Pool{})), npureg.StatusIllegalInstruction, 0x48, 0},
		{"ISA 1.1", h.Launch(program11(t, "halt\n")), npureg.StatusSuccess, 0, 1},
		{"ISA 1.0", h.Launch(program(t, "halt\n")), npureg.StatusSuccess, 0, 1},
	})
}

// TestArchitecture13: a card that presents 1.3 is one.
func TestArchitecture13(t *testing.T) {
	devtest.NeedsFunction(t, "registers")
	cfg := config()
	cfg.Arch = "1.3"
	h := devtest.New(t, cfg)
	if a, f := h.Read32(npureg.ArchVersion), h.Read32(npureg.FeaturesLo); a != 0x10003 || f != 0x3ff {
		t.Errorf("ARCH_VERSION %#x, FEATURES_LO %#x; want 0x10003, 0x3ff", a, f)
	}
}
