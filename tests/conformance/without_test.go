// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"testing"

	"npuemu/core/isa"
	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
)

// TestWithout: a card whose configuration leaves a group of instructions out does not announce it, refuses what
// needs it with the instruction and the rule, and has everything else (§5.3).
func TestWithout(t *testing.T) {
	setup := isa.Window{KernelH: 1, KernelW: 1, StepY: 1, StepX: 1, DilationY: 1, DilationX: 1, Groups: 1}
	illegal := func(i isa.Instruction) uint64 { w := i.Encode(); return uint64(w[0]) }
	seen := uint64(0)
	for _, tt := range []struct {
		group string
		needs isa.Instruction
		rule  npureg.Status // of a program that does not name the group
		info  uint64
	}{
		{"gemm", setup, npureg.StatusIllegalInstruction, illegal(setup)},
		{"float", isa.Operands{A: 9, B: 9}, npureg.StatusBadOperand, 4},
		{"control", isa.Stamp{}, npureg.StatusIllegalInstruction, illegal(isa.Stamp{})},
		{"vector", isa.Requant{N: 1, MX: 1, MY: 1, Rounding: isa.TwoRoundings}, npureg.StatusReservedField, 31},
		{"reduce", isa.Norm{}, npureg.StatusIllegalInstruction, illegal(isa.Norm{})},
		{"pool", isa.Pool{}, npureg.StatusIllegalInstruction, illegal(isa.Pool{})},
		{"sparse", isa.Sparse{}, npureg.StatusIllegalInstruction, illegal(isa.Sparse{})},
		{"mx", isa.Blocks{}, npureg.StatusIllegalInstruction, illegal(isa.Blocks{})},
		{"gather", isa.Reduce{Op: isa.ReduceArgMax, Type: 3, OutType: 3, M: 1, N: 1}, npureg.StatusBadOperand, 4},
		{"quant", isa.Quantize{}, npureg.StatusIllegalInstruction, illegal(isa.Quantize{})},
		{"addq", isa.Addq{}, npureg.StatusIllegalInstruction, illegal(isa.Addq{})},
	} {
		t.Run(tt.group, func(t *testing.T) {
			bit := isa.Group(tt.group)
			seen |= bit
			cfg := config()
			cfg.Core.Without = []string{tt.group}
			h := devtest.New(t, cfg)
			prepare(h)
			rest := isa.Features &^ bit
			runMistakes(t, h, []mistake{
				{"named", h.Launch(ofVersion(isa.Minor, bit, isa.Sync{Engine: 1}, tt.needs)), npureg.StatusConfigMismatch, 0x28, 0},
				{"not named", h.Launch(ofVersion(isa.Minor, rest, isa.Sync{Engine: 1}, tt.needs)), tt.rule, tt.info, 1},
				{"all others", h.Launch(ofVersion(isa.Minor, rest)), npureg.StatusSuccess, 0, 1},
			})
		})
	}
	if seen != isa.Features {
		t.Errorf("groups %#x have no row", isa.Features&^seen)
	}
}

// TestWithoutAnnounced: FEATURES has what is left, and older architectures what they have of it.
func TestWithoutAnnounced(t *testing.T) {
	devtest.NeedsFunction(t, "registers")
	for arch, all := range map[string]uint32{"1.5": 0x1ffff, "1.3": 0x3ff, "1.2": 0x1f} {
		cfg := config()
		cfg.Arch, cfg.Core.Without = arch, []string{"float", "mx", "addq"}
		h := devtest.New(t, cfg)
		if f, want := h.Read32(npureg.FeaturesLo), all&^uint32(npureg.FeatureFloat|npureg.FeatureMX|npureg.FeatureAddq); f != want {
			t.Errorf("architecture %s: FEATURES_LO %#x, want %#x", arch, f, want)
		}
	}
}
