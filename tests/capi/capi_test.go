// SPDX-License-Identifier: Apache-2.0

package capi

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	header = "../../capi/npuemu.h"
	net    = "../../compiler/tflite/testdata/net/"
)

// run runs a command and returns what it writes to standard output.
func run(t *testing.T, env []string, name string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Env = append(os.Environ(), env...)
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", filepath.Base(name), err, out, errs.Bytes())
	}
	return out
}

// library builds the library and returns its directory. Tests have one directory.
func library(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath(cc()); err != nil {
		t.Skip("no C compiler: apt-get install gcc libc6-dev")
	}
	dir := t.TempDir()
	run(t, nil, "../../capi/build.sh", dir, "test")
	return dir
}

func cc() string {
	if c := os.Getenv("CC"); c != "" {
		return c
	}
	return "cc"
}

// compile compiles a program against the library in dir.
func compile(t *testing.T, dir, source string) string {
	t.Helper()
	out := filepath.Join(dir, strings.TrimSuffix(filepath.Base(source), ".c"))
	run(t, nil, cc(), "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-g", "-o", out, source, "-I", dir, "-L", dir, "-lnpuemu", "-lpthread", "-Wl,-rpath,"+dir)
	return out
}

// The library, a program in C, wrong calls, and Python: one test, since the library is built once.
func TestLibrary(t *testing.T) {
	dir := library(t)

	t.Run("symbols", func(t *testing.T) {
		text, err := os.ReadFile(header)
		if err != nil {
			t.Fatal(err)
		}
		var want, got []string
		for _, m := range regexp.MustCompile(`(?m)^[a-z].*[ *](npuemu_\w+)\(`).FindAllSubmatch(text, -1) {
			want = append(want, string(m[1]))
		}
		want = slices.DeleteFunc(want, func(s string) bool { return s == "npuemu_progress" })
		f, err := elf.Open(filepath.Join(dir, "libnpuemu.so"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		symbols, err := f.DynamicSymbols()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range symbols {
			if s.Section != elf.SHN_UNDEF {
				got = append(got, s.Name)
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" || len(want) < 10 {
			t.Errorf("functions of the header and of the library (-header +library):\n%s", diff)
		}
		if name, err := f.DynString(elf.DT_SONAME); err != nil || !slices.Equal(name, []string{"libnpuemu.so.1"}) {
			t.Errorf("SONAME is %v, %v", name, err)
		}
	})

	t.Run("example", func(t *testing.T) {
		output := filepath.Join(dir, "output.bin")
		out := run(t, nil, compile(t, dir, "../../examples/capi/classify.c"), net+"model.tflite", net+"input_0.bin", output)
		want, err := os.ReadFile(net + "output_0.bin")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(output); err != nil || !bytes.Equal(got, want) {
			t.Errorf("the output is % x, not % x; %v", got, want, err)
		}
		if !bytes.Contains(out, []byte("the card counted 1 programs")) {
			t.Errorf("it printed:\n%s", out)
		}
		var report struct {
			Operators []struct {
				Engine string
				Device bool
				MACs   uint64
				Cycles uint64
			}
		}
		lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
		if err := json.Unmarshal(lines[len(lines)-1], &report); err != nil {
			t.Fatal(err)
		}
		macs := uint64(0)
		for i, o := range report.Operators {
			if macs += o.MACs; !o.Device || o.Engine == "host" || o.MACs > 0 && o.Cycles == 0 {
				t.Errorf("operator %d: %+v", i, o)
			}
		}
		if macs != 359584 { // which is also what the card counts
			t.Errorf("%d multiply-accumulates in %d operators", macs, len(report.Operators))
		}
	})

	t.Run("bad", func(t *testing.T) {
		compiled := filepath.Join(dir, "net.npu")
		run(t, nil, "go", "run", "../../cmd/npuemu", "compile", net+"model.tflite", "-o", compiled)
		run(t, nil, compile(t, dir, "testdata/bad.c"), net+"model.tflite", compiled)
	})

	t.Run("c++", func(t *testing.T) {
		if _, err := exec.LookPath("c++"); err != nil {
			t.Skip("no C++ compiler")
		}
		run(t, nil, "c++", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", "c++", header)
	})

	t.Run("python", func(t *testing.T) {
		python, err := exec.LookPath("python3")
		if err != nil {
			t.Skip("no python3")
		}
		if exec.CommandContext(t.Context(), python, "-c", "import sys; sys.exit(sys.version_info < (3, 10))").Run() != nil {
			t.Skip("python3 is older than 3.10")
		}
		env := []string{"NPUEMU_LIB=" + filepath.Join(dir, "libnpuemu.so"), "PYTHONPATH=../../python", "PYTHONDONTWRITEBYTECODE=1"}
		t.Run("structures", func(t *testing.T) {
			const names = "Open Load TensorInfo Buffer Run Timeline Counters"
			sizes := run(t, env, python, "-c", `import sys, ctypes, npuemu._lib as l
for n in sys.argv[1].split():
    s = getattr(l, n)
    print(ctypes.sizeof(s), *(getattr(s, f[0]).offset for f in s._fields_))`, names)
			program := &bytes.Buffer{}
			program.WriteString("#include <stddef.h>\n#include <stdio.h>\n#include \"npuemu.h\"\nint main(void)\n{\n")
			fields := run(t, env, python, "-c", `import sys, npuemu._lib as l
for n in sys.argv[1].split():
    print({"TensorInfo": "tensor"}.get(n, n.lower()), *(f[0] for f in getattr(l, n)._fields_))`, names)
			for _, line := range strings.Split(strings.TrimSpace(string(fields)), "\n") {
				words := strings.Fields(line)
				program.WriteString("printf(\"%zu\", sizeof(struct npuemu_" + words[0] + "));\n")
				for _, f := range words[1:] {
					program.WriteString("printf(\" %zu\", offsetof(struct npuemu_" + words[0] + ", " + f + "));\n")
				}
				program.WriteString("puts(\"\");\n")
			}
			program.WriteString("}\n")
			source := filepath.Join(dir, "sizes.c")
			if err := os.WriteFile(source, program.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(run(t, nil, compile(t, dir, source))), string(sizes)); diff != "" {
				t.Errorf("sizes and offsets (-C +Python):\n%s", diff)
			}
		})
		run(t, env, python, "../../python/tests/stdlib.py")
	})
}
