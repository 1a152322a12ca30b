// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What a build follows from is built once; anything else, and what failed, is built again.
func TestBuildOnce(t *testing.T) {
	e := Require(t)
	src := t.TempDir()
	file := filepath.Join(src, "seed")
	build := func(argv ...string) (made, said string) {
		t.Helper()
		out := t.TempDir()
		if err := os.WriteFile(filepath.Join(out, "made"), []byte("of a run before"), 0o400); err != nil {
			t.Fatal(err)
		}
		said, err := e.Build(t.Context(), src, out, argv...)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(out, "made"))
		if err != nil {
			t.Fatal(err)
		}
		if target, err := os.Readlink(filepath.Join(out, "link")); err != nil || target != "made" {
			t.Errorf("link to %q, %v", target, err)
		}
		return string(text), said
	}
	// Every command that really runs has its own answer.
	seed := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	seed(time.Now().String()) // of this run
	argv := []string{"sh", "-c", "cat /proc/sys/kernel/random/uuid >made; ln -s made link; echo said; echo $0", "a"}
	first, said := build(argv...)
	if !strings.HasPrefix(said, "said\n") {
		t.Errorf("it said %q", said)
	}
	if again, saidAgain := build(argv...); again != first || saidAgain != said {
		t.Errorf("built again: %q, %q; first %q, %q", again, saidAgain, first, said)
	}
	seen := map[string]bool{first: true}
	for _, row := range []struct {
		name   string
		change func()
	}{
		{"argument", func() { argv[3] = "b" }},
		{"mode", func() {
			if err := os.Chmod(file, 0o755); err != nil {
				t.Fatal(err)
			}
		}},
		{"content", func() { seed("another " + time.Now().String()) }},
		{"another file", func() {
			if err := os.WriteFile(filepath.Join(src, "more"), nil, 0o666); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		row.change()
		made, _ := build(argv...)
		if seen[made] {
			t.Errorf("%s: not built again", row.name)
		}
		seen[made] = true
	}
	fail := func() string {
		said, err := e.Build(t.Context(), src, t.TempDir(), "sh", "-c", "cat /proc/sys/kernel/random/uuid; exit 3")
		if err == nil || !strings.Contains(err.Error(), "exit status 3") {
			t.Errorf("a failure: %v", err)
		}
		return said
	}
	if fail() == fail() {
		t.Error("a failure was kept")
	}
}

// What nobody asks for goes, and nothing else.
func TestPruneBuilt(t *testing.T) {
	all := t.TempDir()
	then := time.Now().Add(-time.Hour)
	for _, name := range []string{"old", "new"} {
		if err := os.MkdirAll(filepath.Join(all, name, "out"), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(filepath.Join(all, "old"), then, then.Add(-time.Minute)); err != nil {
		t.Fatal(err)
	}
	pruneBuilt(all, then)
	left, err := os.ReadDir(all)
	if err != nil || len(left) != 1 || left[0].Name() != "new" {
		t.Errorf("left: %v, %v", left, err)
	}
}
