// SPDX-License-Identifier: Apache-2.0

package cpu_test

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"npuemu/firmware/cpu"
)

// archTestsEnv names a directory with built programs of riscv-tests and riscv-arch-test. make test-riscv builds them and sets it
// (tests/riscv); docs/testing.md says what they are.
const archTestsEnv = "NPUEMU_RISCV_TESTS"

const (
	archRAM     = 0x8000_0000
	archRAMSize = 4 << 20
	archSteps   = 20_000_000 // the longest program needs a tenth of it
)

// archSkips are parts of the names of programs for what this hart does not do (docs/limits.md).
var archSkips = map[string]string{
	"rv32mi-p-breakpoint": "there are no debug triggers",
	"rv32mi-p-pmpaddr":    "there is no PMP",
	"rv32mi-p-zicntr":     "there are no unprivileged counters",
	"rv32ui-p-ma_data":    "a misaligned access traps",
	// These have a variant each way, and QEMU, where the references come from, has the other.
	"misalign-lh-":  "a misaligned access traps",
	"misalign-lhu-": "a misaligned access traps",
	"misalign-lw-":  "a misaligned access traps",
	"misalign-sh-":  "a misaligned access traps",
	"misalign-sw-":  "a misaligned access traps",
}

// archProgram is an ELF file of either suite.
type archProgram struct {
	mem        []byte
	entry      uint32
	tohost     uint32
	begin, end uint32 // of the signature
	compared   bool   // riscv-arch-test: the program does not judge itself
}

func loadArch(name string) (*archProgram, error) {
	f, err := elf.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.Machine != elf.EM_RISCV || f.Class != elf.ELFCLASS32 {
		return nil, errors.New("not for 32-bit RISC-V")
	}
	p := &archProgram{mem: make([]byte, archRAMSize), entry: uint32(f.Entry)}
	for _, s := range f.Progs {
		if s.Type != elf.PT_LOAD {
			continue
		}
		off := s.Paddr - archRAM
		if s.Paddr < archRAM || off > archRAMSize || s.Memsz > archRAMSize-off {
			return nil, fmt.Errorf("segment of %d bytes at %#x: use %d MiB at %#x", s.Memsz, s.Paddr, archRAMSize>>20, uint32(archRAM))
		}
		if _, err := s.ReadAt(p.mem[off:off+s.Filesz], 0); err != nil {
			return nil, err
		}
	}
	symbols, err := f.Symbols()
	if err != nil {
		return nil, err
	}
	for _, s := range symbols {
		switch s.Name {
		case "tohost":
			p.tohost = uint32(s.Value)
		case "begin_signature":
			p.begin = uint32(s.Value)
		case "end_signature":
			p.end = uint32(s.Value)
		case "rvtest_entry_point":
			p.compared = true
		}
	}
	if off := p.tohost - archRAM; off > archRAMSize-4 {
		return nil, errors.New("no symbol tohost in memory")
	}
	if p.compared && (p.begin-archRAM > archRAMSize || p.end-p.begin > archRAMSize-(p.begin-archRAM) || p.end <= p.begin) {
		return nil, errors.New("the signature is not in memory")
	}
	return p, nil
}

// run returns what the program wrote to tohost.
func (p *archProgram) run() (uint32, error) {
	c, err := cpu.New(cpu.Config{Regions: []cpu.Region{{Base: archRAM, Mem: p.mem, Exec: true}}, ResetPC: p.entry})
	if err != nil {
		return 0, err
	}
	for c.Steps() < archSteps {
		_, state := c.Run(1000)
		if v := binary.LittleEndian.Uint32(p.mem[p.tohost-archRAM:]); v != 0 {
			return v, nil
		}
		if state != cpu.Running {
			return 0, fmt.Errorf("state %d at %#x", state, c.PC())
		}
	}
	return 0, fmt.Errorf("no end after %d steps, pc %#x", c.Steps(), c.PC())
}

// signature renders memory as the suites' reference files have it: a word a line.
func (p *archProgram) signature() string {
	var b strings.Builder
	for a := p.begin; a < p.end; a += 4 {
		fmt.Fprintf(&b, "%08x\n", binary.LittleEndian.Uint32(p.mem[a-archRAM:]))
	}
	return b.String()
}

// TestArchitecture runs the programs of archTestsEnv. All end by writing 1 to tohost. Those of riscv-tests judge themselves
// before; those of riscv-arch-test, known by their entry point's name, must leave the signature in FILE.reference.
func TestArchitecture(t *testing.T) {
	dir := os.Getenv(archTestsEnv)
	if dir == "" {
		t.Skipf("%s names no directory with built riscv-tests or riscv-arch-test: make test-riscv", archTestsEnv)
	}
	ran := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Ext(path) == ".reference" {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		ran++
		t.Run(name, func(t *testing.T) {
			for skip, why := range archSkips {
				if strings.Contains(filepath.Base(path), skip) {
					t.Skip(why)
				}
			}
			p, err := loadArch(path)
			if err != nil {
				t.Fatal(err)
			}
			v, err := p.run()
			if err != nil {
				t.Fatal(err)
			}
			if v != 1 {
				t.Fatalf("test case %d failed", v>>1)
			}
			if !p.compared {
				return
			}
			want, err := os.ReadFile(path + ".reference")
			if err != nil {
				t.Fatal(err)
			}
			if got := p.signature(); got != string(want) {
				t.Errorf("the signature differs at %s", firstDifference(string(want), got))
			}
		})
		return nil
	})
	if err != nil || ran == 0 {
		t.Fatalf("%s=%s has no programs: %v", archTestsEnv, dir, err)
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Fields(want), strings.Fields(got)
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("word %d: want %s, got %s", i, w[i], g[i])
		}
	}
	return fmt.Sprintf("its length: want %d words, got %d", len(w), len(g))
}
