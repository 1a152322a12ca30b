// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"testing"

	"npuemu/core/isa"
	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
	"npuemu/vdev"
)

// program14 is program for ISA 1.4 with arguments.
func program14(t *testing.T, text string) []byte {
	t.Helper()
	p, err := isa.Assemble("test", []byte(".isa 1.4\n.features control, arguments\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	return p.Image()
}

// rowsText moves s0 rows of eight bytes, the first to row s1 of the result, and fills what it moves with s3 unless s2 is 0.
const rowsText = `.spad 64
.bindings 2
sync.store signal=1
loop    reg=s4 by_register count_reg=s0
with    offset=s4*8 local=s4*8
load    binding=0 local=0 nx=8 wait=1 signal=0
scalar  op=mul rd=s5 ra=s4 rb=s4
with    if=s2
stamp   binding=1 offset=96 signal=2
with    if=s2
sync.load wait=2
with    offset=s4*8 offset=s1*8 local=s4*8
store   binding=1 local=0 nx=8 wait=0 signal=1
end
halt
`

// arguments gives a LAUNCH arguments, from s0 on.
func arguments(e devtest.Entry, args ...int32) devtest.Entry {
	e[1] |= npureg.LaunchArguments
	for i, v := range args {
		le.PutUint32(e[0x30+4*i:], uint32(v))
	}
	return e
}

// TestArguments: one program does what the arguments of its LAUNCH say, whatever came before, and breaks rules as they do.
func TestArguments(t *testing.T) {
	h, _ := ready(t)
	src, in := h.Alloc(64)
	dst, out := h.Alloc(112)
	for i := range in {
		in[i] = byte(i + 1)
	}
	launch := h.Launch(program14(t, rowsText), devtest.Binding{Addr: src, Size: 64, Read: true}, devtest.Binding{Addr: dst, Size: 112, Write: true})
	for round := range 3 { // the second time the program is known, the third time what it does
		for _, tt := range []struct {
			name           string
			args           []int32
			rows, at       int
			predicated     bool
			status         npureg.Status
			instr          uint32
			info           uint64
			withoutTheFlag bool
		}{
			{name: "three rows", args: []int32{3}, rows: 3},
			{name: "others", args: []int32{2, 5}, rows: 2, at: 5},
			{name: "with a condition", args: []int32{2, 1, 7}, rows: 2, at: 1, predicated: true},
			{name: "none", args: []int32{0, 1, 1}},
			{name: "below 0", args: []int32{-1 << 31}},
			{name: "without arguments", withoutTheFlag: true},
			{name: "as many as local memory has", args: []int32{8}, rows: 8},
			{name: "one more", args: []int32{9}, rows: 8, status: npureg.StatusLocalBounds, instr: 3, info: 64},
			{name: "behind the result", args: []int32{1, 14}, status: npureg.StatusBindingBounds, instr: 10, info: 112},
			{name: "before it", args: []int32{1, -1}, status: npureg.StatusBindingBounds, instr: 10, info: 1<<40 - 8},
			{name: "more than the budget", args: []int32{1<<31 - 1}, status: npureg.StatusBudget, instr: 6, info: isa.Budget},
		} {
			clear(out)
			e := launch
			if !tt.withoutTheFlag {
				e = arguments(launch, tt.args...)
			}
			c := h.Do(1, e)
			if c.Status != tt.status || c.Status != npureg.StatusSuccess && (c.Result != tt.instr || c.Info != tt.info) {
				t.Errorf("round %d, %s: %v, want %v result %d info %#x", round, tt.name, c, tt.status, tt.instr, tt.info)
			}
			want := make([]byte, 96)
			copy(want[8*tt.at:], in[:8*tt.rows])
			stamped := !bytes.Equal(out[96:112], make([]byte, 16))
			if !bytes.Equal(out[:96], want) || stamped != tt.predicated {
				t.Errorf("round %d, %s: % x, want % x; stamp %v, want %v", round, tt.name, out[:96], want, stamped, tt.predicated)
			}
		}
	}
	runMistakes(t, h, []mistake{
		{"arguments without the flag", func() devtest.Entry { e := arguments(launch, 1); e[1] = 0; return e }(), npureg.StatusInvalidField, 0x30, 0},
		{"the last byte", func() devtest.Entry { e := launch; e[63] = 1; return e }(), npureg.StatusInvalidField, 63, 0},
		{"another flag", func() devtest.Entry { e := launch; e[1] = 4; return e }(), npureg.StatusInvalidField, 1, 0},
		{"profile record's place without it", func() devtest.Entry { e := arguments(launch, 1); e[0x28] = 8; return e }(), npureg.StatusInvalidField, 0x28, 0},
		{"a program without the group", arguments(h.Launch(program(t, "halt\n"))), npureg.StatusBadProgram, 0x28, 0},
		{"later ISA", h.Launch(ofVersion(5, 0)), npureg.StatusBadProgram, 6, 0},
		{"ISA 1.3 with the group", h.Launch(ofVersion(3, isa.Features)), npureg.StatusConfigMismatch, 0x28, 0},
		{"no mistake", arguments(h.Launch(program14(t, "halt\n")), 1, 2, 3, 4), npureg.StatusSuccess, 0, 1},
	})
}

// TestArgumentsTimed: model time is that of the arguments, and a profile record goes with them.
func TestArgumentsTimed(t *testing.T) {
	cfg := config()
	cfg.Time = vdev.TimeConfig{Mode: vdev.TimeTimed, Factor: 1}
	h := devtest.New(t, cfg)
	prepare(h)
	src, _ := h.Alloc(64)
	dst, _ := h.Alloc(112)
	at, profile := h.Alloc(npureg.ProfileSize)
	launch := h.Launch(program14(t, rowsText), devtest.Binding{Addr: src, Size: 64, Read: true}, devtest.Binding{Addr: dst, Size: 112, Write: true})
	launch[1] = npureg.LaunchProfile
	le.PutUint64(launch[0x28:], at)
	took := map[int32]uint64{}
	for _, rows := range []int32{2, 7, 2, 7, 7, 2, 0} {
		c := h.Do(1, arguments(launch, rows))
		if c.Status != npureg.StatusSuccess || le.Uint64(profile[0x18:]) != uint64(2+2*rows) || c.Result != uint32(2+2*rows) {
			t.Fatalf("%d rows: %v, record of %d instructions", rows, c, le.Uint64(profile[0x18:]))
		}
		if before, ok := took[rows]; ok && c.Reserved[0] != before {
			t.Errorf("%d rows: %d cycles, before %d", rows, c.Reserved[0], before)
		}
		took[rows] = c.Reserved[0]
	}
	if took[0] >= took[2] || took[2] >= took[7] {
		t.Errorf("cycles by rows: %v", took)
	}
}

// TestWithoutISA14: a card of architecture 1.5 is what it was: no arguments, no programs of ISA 1.4, and no place in
// CONFIG_MISMATCH.
func TestWithoutISA14(t *testing.T) {
	cfg := config()
	cfg.Arch, cfg.Core.Without = "1.5", []string{"float"}
	h := devtest.New(t, cfg)
	prepare(h)
	halt := h.Launch(program(t, "halt\n"))
	float := isa.Operands{A: 9, B: 9}
	runMistakes(t, h, []mistake{
		{"ARGUMENTS", arguments(halt), npureg.StatusInvalidField, 1, 0},
		{"bytes of arguments", func() devtest.Entry { e := halt; e[0x33] = 1; return e }(), npureg.StatusInvalidField, 0x33, 0},
		{"ISA 1.4", h.Launch(program14(t, "halt\n")), npureg.StatusBadProgram, 6, 0},
		{"ISA 1.3 with a feature of 1.4", h.Launch(ofVersion(3, isa.FeatureArguments)), npureg.StatusConfigMismatch, 0x28, 0},
		{"a group that it lacks", h.Launch(ofVersion(3, isa.FeatureFloat|isa.FeatureGEMM, isa.Sync{Engine: 1}, float)), npureg.StatusConfigMismatch, 0x28, 0},
		{"ISA 1.3", h.Launch(program13(t, "halt\n")), npureg.StatusSuccess, 0, 1},
	})
}

// TestWithoutArguments: a configuration can leave them out.
func TestWithoutArguments(t *testing.T) {
	cfg := config()
	cfg.Core.Without = []string{"arguments"}
	h := devtest.New(t, cfg)
	prepare(h)
	runMistakes(t, h, []mistake{
		{"ARGUMENTS", arguments(h.Launch(program(t, "halt\n"))), npureg.StatusInvalidField, 1, 0},
		{"a program that has some", h.Launch(program14(t, "halt\n")), npureg.StatusConfigMismatch, 0x28, 0},
		{"ISA 1.4", h.Launch(ofVersion(4, isa.FeaturesOf(3))), npureg.StatusSuccess, 0, 1},
	})
}

// TestArchitecture15: a card that presents 1.5 is one.
func TestArchitecture15(t *testing.T) {
	devtest.NeedsFunction(t, "registers")
	cfg := config()
	cfg.Arch = "1.5"
	h := devtest.New(t, cfg)
	if a, f := h.Read32(npureg.ArchVersion), h.Read32(npureg.FeaturesLo); a != 0x10005 || f != 0x1ffff {
		t.Errorf("ARCH_VERSION %#x, FEATURES_LO %#x; want 0x10005, 0x1ffff", a, f)
	}
}
