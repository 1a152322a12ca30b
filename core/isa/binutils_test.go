// SPDX-License-Identifier: Apache-2.0

//go:build linux

package isa

import (
	"bytes"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"npuemu/tests/guest"
)

// binutils returns what one of its programs prints of file: that of the guest environment, else this machine's. Without either
// the test is skipped, or fails where guest tests are required (CI).
func binutils(t *testing.T, file []byte, argv ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "program.elf"), file, 0o600); err != nil {
		t.Fatal(err)
	}
	argv = append(argv, "program.elf")
	e, err := guest.Open(guest.AMD64)
	if err == nil {
		out, err := e.Run(t.Context(), dir, "", append([]string{"env", "LC_ALL=C"}, argv...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if _, absent := exec.LookPath(argv[0]); absent != nil {
		guest.Absent(t, err)
	}
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// binutils is a reader that we did not write.
func TestReadelf(t *testing.T) {
	out := binutils(t, testProgram().ELF(), "readelf", "-a", "-W")
	for _, bad := range []string{"Warning", "Error"} {
		if strings.Contains(out, bad) {
			t.Errorf("readelf reports a %s:\n%s", bad, out)
		}
	}
	text := strings.Join(strings.Fields(out), " ")
	for _, want := range []string{
		"Class: ELF64", "little endian", "Type: EXEC", "<unknown>: 0x4e50", "Entry point address: 0x40",
		".npu.desc PROGBITS 0000000000000000 0000c0 000040",
		".text PROGBITS 0000000000000040 000100 000020 00 AX",
		".note.npu NOTE",
		"LOAD 0x0000c0 0x0000000000000000 0x0000000000000000 0x000060 0x000060 R E 0x40",
		"00 .npu.desc .text", "01 .note.npu",
		"NPU 0x00000040",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("readelf does not print %q:\n%s", want, out)
		}
	}
}

// objdump -s prints the descriptor and the text, byte by byte, where a loader has them.
func TestObjdump(t *testing.T) {
	p := testProgram()
	out := binutils(t, p.ELF(), "objdump", "-s")
	if !strings.Contains(out, "file format elf64-little") {
		t.Errorf("objdump does not say elf64-little:\n%s", out)
	}
	var image []byte
	for _, section := range []string{".npu.desc", ".text"} {
		_, lines, ok := strings.Cut(out, "Contents of section "+section+":\n")
		if !ok {
			t.Fatalf("objdump does not print %s:\n%s", section, out)
		}
		for line := range strings.Lines(lines) { // " 0040 <16 bytes in four words>  <characters>"
			if !strings.HasPrefix(line, " ") {
				break
			}
			bytes, _, _ := strings.Cut(strings.TrimPrefix(line, " "), "  ")
			_, words, _ := strings.Cut(bytes, " ")
			b, err := hex.DecodeString(strings.ReplaceAll(words, " ", ""))
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			image = append(image, b...)
		}
	}
	if want := p.Image(); !bytes.Equal(image, want) {
		t.Errorf("objdump prints\n%x, the image is\n%x", image, want)
	}
}
