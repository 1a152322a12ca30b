// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"testing"

	"npuemu/core/isa"
	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
)

// program13 is program for ISA 1.3 with the group that it adds.
func program13(t *testing.T, text string) []byte {
	t.Helper()
	p, err := isa.Assemble("test", []byte(".isa 1.3\n.features addq\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	return p.Image()
}

// TestISA13: a card of architecture 1.5 adds quantized tensors, and refuses what
// §5.7 says.
func TestISA13(t *testing.T) {
	h, _ := ready(t)
	src, in := h.Alloc(14)
	dst, out := h.Alloc(21)
	copy(in, []byte{3, 0xfd, 5, 127, 0x80, 0, 100, 4, 0xfc, 2, 127, 0x80, 1, 0xa0})
	bindings := []devtest.Binding{{Addr: src, Size: 14, Read: true}, {Addr: dst, Size: 21, Write: true}}
	c := h.Do(1, h.Launch(program13(t, `.spad 64
.bindings 2
load    binding=0 local=0 nx=14 signal=0
scales  rounding=two left=20 lo=-100 hi=127 x_scale=1<<30 y_scale=1<<30 scale=1<<30 x_shift=31 y_shift=31 shift=50 wait=0
addq    op=add type=int8 x=0 y=7 out=32 n=7
addq    op=sub type=int8 x=0 y=7 out=39 n=7
scales  rounding=float lo=-128 hi=127 x_scale=0x3f000000 scale=0x3f800000
addq    op=mul type=int8 x=0 y=8 out=46 n=7 one signal=1
store   binding=1 local=32 nx=21 wait=1
halt
`), bindings...))
	if c.Status != npureg.StatusSuccess {
		t.Fatal(c)
	}
	want := []byte{
		4, 0xfc, 4, 127, 0x9c, 1, 2, // halves away from 0: 3.5, −3.5, 3.5, 127, −128, 0.5, 2
		0xff, 1, 2, 0, 0, 0xff, 98, // −0.5, 0.5, 1.5, 0, 0, −0.5, 98
		0xfb, 7, 0xf7, 0x80, 127, 1, 0x80, // −4 / 2 times each, + 1: −5, 7, −9, −253, 257, 1, −199
	}
	if !bytes.Equal(out, want) {
		t.Errorf("result\n% x, want\n% x", out, want)
	}
	unchecked := func(text ...isa.Instruction) []byte { return ofVersion(3, isa.FeaturesOf(3), text...) }
	addq := isa.Addq{Y: 8, Out: 16, M: 1, N: 8}
	runMistakes(t, h, []mistake{
		{"scales", h.Launch(unchecked(isa.Scales{})), npureg.StatusBadOperand, 28, 0},
		{"addq", h.Launch(unchecked(isa.Addq{Op: 3})), npureg.StatusBadOperand, 4, 0},
		{"setup", h.Launch(unchecked(isa.Scales{Zero: 128, XShift: 1, YShift: 1, SShift: 1}, addq)), npureg.StatusBadSetup, 170, 1},
		{"local", h.Launch(unchecked(isa.Addq{Y: 1024, M: 1, N: 1})), npureg.StatusLocalBounds, 1024, 0},
		{"feature", h.Launch(ofVersion(3, isa.FeaturesOf(2), addq)), npureg.StatusIllegalInstruction, 0x51, 0},
		{"ISA 1.2 with the feature", h.Launch(ofVersion(2, isa.Features)), npureg.StatusConfigMismatch, 0x28, 0},
		{"later ISA", h.Launch(ofVersion(isa.Minor+1, 0)), npureg.StatusBadProgram, 6, 0},
		{"no mistake", h.Launch(unchecked(addq)), npureg.StatusSuccess, 0, 2},
	})
}

// TestWithoutISA13: a card of architecture 1.4 is what it was: it refuses programs
// of ISA 1.3 by its name and runs those of 1.2 with all their groups.
func TestWithoutISA13(t *testing.T) {
	cfg := config()
	cfg.Arch = "1.4"
	h := devtest.New(t, cfg)
	prepare(h)
	runMistakes(t, h, []mistake{
		{"ISA 1.3", h.Launch(ofVersion(3, 0)), npureg.StatusBadProgram, 6, 0},
		{"ISA 1.3 with a feature", h.Launch(program13(t, "halt\n")), npureg.StatusBadProgram, 6, 0},
		{"ISA 1.2 with a feature of 1.3", h.Launch(ofVersion(2, isa.FeatureAddq)), npureg.StatusConfigMismatch, 0x28, 0},
		{"ADDQ", h.Launch(ofVersion(2, isa.FeaturesOf(2), isa.Addq{})), npureg.StatusIllegalInstruction, 0x51, 0},
		{"ISA 1.2", h.Launch(program12(t, "halt\n")), npureg.StatusSuccess, 0, 1},
		{"ISA 1.1", h.Launch(program11(t, "halt\n")), npureg.StatusSuccess, 0, 1},
	})
}

// TestArchitecture14: a card that presents 1.4 is one.
func TestArchitecture14(t *testing.T) {
	devtest.NeedsFunction(t, "registers")
	cfg := config()
	cfg.Arch = "1.4"
	h := devtest.New(t, cfg)
	if a, f := h.Read32(npureg.ArchVersion), h.Read32(npureg.FeaturesLo); a != 0x10004 || f != 0xffff {
		t.Errorf("ARCH_VERSION %#x, FEATURES_LO %#x; want 0x10004, 0xffff", a, f)
	}
}
