// SPDX-License-Identifier: Apache-2.0

package cpu

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npuemu/tests/guest"
)

var update = flag.Bool("update", false, "ask qemu-system-riscv32 of the guest environment again and rewrite testdata/random.golden")

// freshPrograms are new ones in each run.
const freshPrograms = 15

// askQEMU returns what a program leaves from randomData to randomEnd in QEMU's machine virt, whose UART sends it.
func askQEMU(t *testing.T, program []byte) []byte {
	t.Helper()
	e := guest.Require(t)
	image := bytes.Clone(program)
	put := func(addr uint32, code ...uint32) {
		for i, w := range code {
			binary.LittleEndian.PutUint32(image[addr-randomBase+4*uint32(i):], w)
		}
	}
	const handler, uart, test = randomSetup + 0x100, 0x1000_0000, 0x10_0000
	put(randomBase, jal(0, randomSetup-randomBase))
	put(randomSetup, lui(5, handler), addi(5, 5, handler&0xfff), csrrw(0, Mtvec, 5), jal(0, randomEntry-randomSetup-12))
	put(handler,
		lui(5, randomData), lui(6, randomEnd), addi(6, 6, randomEnd&0xfff), lui(7, uart),
		iType(0x03, 8, 4, 7, 5), iType(0x13, 8, 7, 8, 0x20), bType(0, 8, 0, -8), // until its transmitter is empty
		iType(0x03, 8, 4, 5, 0), sType(0, 7, 8, 0), addi(5, 5, 1), bType(1, 5, 6, -24),
		lui(7, test), lui(8, 0x5000), addi(8, 8, 0x555), sw(8, 7, 0), jal(0, 0))
	dir := t.TempDir()
	in, out := filepath.Join(dir, "program"), filepath.Join(dir, "out")
	if err := os.WriteFile(in, image, 0o666); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, e.Tool("qemu-system-riscv32"), "-machine", "virt", "-m", "16", "-bios", "none", "-display", "none", "-monitor", "none",
		"-serial", "file:"+out, "-device", fmt.Sprintf("loader,file=%s,addr=%#x,force-raw=on", in, uint32(randomBase)))
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, text)
	}
	left, err := os.ReadFile(out)
	if err != nil || len(left) != randomEnd-randomData {
		t.Fatalf("QEMU's machine sent %d bytes, want %d: %v", len(left), randomEnd-randomData, err)
	}
	return left
}

// TestUpdateRandom records what TestRandomAgainstQEMU compares with.
func TestUpdateRandom(t *testing.T) {
	if !*update {
		t.Skip("-update is not given")
	}
	var b strings.Builder
	for n := range randomPrograms {
		program := randomProgram(1, uint64(n))
		b.WriteString(describe(n, program, askQEMU(t, program)))
	}
	if err := os.WriteFile(filepath.Join("testdata", "random.golden"), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestFreshAgainstQEMU asks QEMU about programs that nobody has seen yet. A failure names the series.
func TestFreshAgainstQEMU(t *testing.T) {
	guest.Require(t)
	series := rand.Uint64()
	for n := range freshPrograms {
		program := randomProgram(series, uint64(n))
		if diff := cmp.Diff(describe(n, program, askQEMU(t, program)), describe(n, program, execute(t, program))); diff != "" {
			t.Errorf("series %#x, program %d (-QEMU +here):\n%s", series, n, diff)
		}
	}
}
