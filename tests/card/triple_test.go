// SPDX-License-Identifier: Apache-2.0

package card

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"npuemu/core/isa"
	"npuemu/tests/guest"
)

// TestTriple builds examples/uapi as its README says, and runs it on the oldest kernel: the results are right, and what is
// wrong has a message.
func TestTriple(t *testing.T) {
	const example = "../../examples/uapi/"
	e := guest.Require(t)
	read := func(path string) []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	source, text := read(example+"triple.c"), read(example+"triple.npuasm")
	if n := bytes.Count(source, []byte("\n")); n > 200 {
		t.Errorf("triple.c has %d lines, which is more than an example should", n)
	}
	dir := t.TempDir()
	files := map[string]string{}
	put := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o755); err != nil {
			t.Fatal(err)
		}
		files["/triple/"+name] = filepath.Join(dir, name)
	}
	put("triple.c", source)
	put("npu_accel.h", read("../../driver/uapi/npu_accel.h"))
	if _, err := e.Build(t.Context(), dir, dir, "gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-static", "-I.", "-o", "triple", "triple.c"); err != nil {
		t.Fatal(err)
	}
	put("triple", read(filepath.Join(dir, "triple")))
	for name, text := range map[string][]byte{"triple.npu": text, "other.npu": bytes.Replace(text, []byte("32, 32"), []byte("16, 16"), 1)} {
		p, err := isa.Assemble(name, text)
		if err != nil {
			t.Fatal(err)
		}
		put(name, p.ELF())
	}
	kernels := e.Kernels()
	boot(t, e, kernels[len(kernels)-1], `load
cd /triple
says() { grep -q "$1" out || { cat out; die "triple does not say: $1"; } }
./triple /dev/accel/accel0 triple.npu >out 2>&1 || { cat out; die "triple: $?"; }
says "^6 instructions, 64 multiply-accumulates$"
says "^0 of 64 results are wrong; the device has run 1 programs, read 64 bytes, written 256$"
./triple >out 2>&1 && die "no arguments"
says "^usage: "
./triple /dev/accel/accel7 triple.npu >out 2>&1 && die "no device"
says "accel7: No such file"
./triple /dev/null triple.npu >out 2>&1 && die "/dev/null"
says "/dev/null: Inappropriate ioctl"
for f in triple /dev/null triple.c; do
	./triple /dev/accel/accel0 $f >out 2>&1 && die "$f is a program"
	says "$f: not a program for the NPU"
done
./triple /dev/accel/accel0 other.npu >out 2>&1 && die "a program for another array"
says "the job failed: Invalid argument; status 0x41, instruction 0, info 0x18"
rmmod npu || die rmmod
`, func(c *guest.Config) { maps.Copy(c.Files, files) })
}
