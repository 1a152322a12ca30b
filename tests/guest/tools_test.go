// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestToolFiles: a program comes with its loader, its libraries and theirs.
func TestToolFiles(t *testing.T) {
	e := Require(t)
	files, err := toolFiles(e.root(""), []string{"lspci", "setpci"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"/usr/bin/lspci", "/usr/bin/setpci", "/lib64/ld-linux-x86-64.so.2", "/usr/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/libpci.so.3"} {
		if files[want] == "" {
			t.Errorf("no %s in %v", want, files)
		}
	}
	if _, err := toolFiles(e.root(""), []string{"no-such-tool"}); err == nil || !strings.Contains(err.Error(), "no-such-tool") {
		t.Errorf("a tool that is not there: %v", err)
	}
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(e.root("usr/bin/lspci"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "usr/bin/lspci"), text, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := toolFiles(root, []string{"lspci"}); err == nil || !strings.Contains(err.Error(), "has no library") {
		t.Errorf("a library that is not there: %v", err)
	}
	if err := os.WriteFile(filepath.Join(root, "usr/bin/script"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := toolFiles(root, []string{"script"}); err == nil {
		t.Error("a script is taken for a program")
	}
}
