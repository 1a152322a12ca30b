// SPDX-License-Identifier: Apache-2.0

package pci

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with testdata/name, or rewrites it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got), rewrite with -update:\n%s", path, diff)
	}
}

// bootedFunction is as an operating system leaves it, with an error logged, so that
// every part of the dump has something to show.
func bootedFunction(t *testing.T) *Function {
	f := newFunction(t, Hooks{})
	f.Write(0x10, u64(0xfe00_0000))
	f.Write(0x18, u64(0xf800_0000))
	f.Write(0x20, u64(0xfe10_0000))
	f.Write(0x04, u16(commandMemory|commandBusMaster|commandINTxOff))
	f.Write(0x92, u16(0x8000))
	f.LogUncorrectable(UnsupportedRequest, [4]uint32{0x4000_0001, 0x0000_000f, 0xfe00_0010, 0}, false)
	return f
}

func TestDump(t *testing.T) {
	var b bytes.Buffer
	if err := bootedFunction(t).WriteDump(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "config.hex", b.Bytes())
	if err := bootedFunction(t).WriteDump(failingWriter{}); !errors.Is(err, errFull) {
		t.Errorf("WriteDump to a full disk: %v, want %v", err, errFull)
	}
}

var errFull = errors.New("disk full")

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errFull }

// TestLspci lets pciutils decode the dump. Its wording changes between
// versions, so the golden file starts with the one that it came from; identities
// stay numbers (-n), so that the installed pci.ids does not matter.
func TestLspci(t *testing.T) {
	lspci, err := exec.LookPath("lspci")
	if err != nil {
		t.Skip("lspci is not installed: install pciutils")
	}
	version, err := exec.Command(lspci, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join("testdata", "lspci.txt"))
	if err != nil && !*update {
		t.Fatal(err)
	}
	if first, _, _ := strings.Cut(string(want), "\n"); !*update && first+"\n" != string(version) {
		t.Skipf("golden text is of %s, this is %s: compare by eye with -update", first, version)
	}
	dump := filepath.Join(t.TempDir(), "config.hex")
	w, err := os.Create(dump)
	if err != nil {
		t.Fatal(err)
	}
	if err := bootedFunction(t).WriteDump(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(lspci, "-n", "-vvv", "-F", dump)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("lspci: %v\n%s", err, &stderr)
	}
	text := version
	for line := range bytes.Lines(out) {
		// Which drivers this machine has for such a device is not our matter.
		if !bytes.HasPrefix(line, []byte("\tKernel ")) {
			text = append(text, line...)
		}
	}
	golden(t, "lspci.txt", text)
}
