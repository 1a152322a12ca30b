// SPDX-License-Identifier: Apache-2.0

// Package kselftest builds the kernel selftests of the driver, npu/, as they would be built in the
// kernel's own tree: with its Makefile, lib.mk and harness, which setup.sh brings into the cache. It
// also knows which of their rows are expected to fail.
package kselftest

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"npuemu/tests/guest"
	"npuemu/tests/guest/ktap"
)

// Programs are the selftests, in the order in which they run: those that could leave nothing to run on
// come last.
var Programs = []string{"ioctl", "memory", "job", "isolation", "queue", "vm", "user", "profile", "dmabuf", "timeout", "reset", "power", "hotplug", "module"}

// Dir is where they are in the guest. Some have the names of busybox's applets.
const Dir = "/kselftest"

// place is the directory that npu/ would have in the kernel's tree.
const place = "drivers/accel/npu"

// ErrNotSetUp is what Build returns, wrapped, without the harness.
var ErrNotSetUp = errors.New("the kernel's selftest harness is not set up: run tests/kselftest/setup.sh")

// Build builds the programs into dir, warnings being errors, and returns where they go: guest path →
// host path. tree is the top of the source tree.
func Build(ctx context.Context, e *guest.Env, tree, dir string) (map[string]string, error) {
	harness := filepath.Join(e.Cache, "kselftest")
	if _, err := os.Stat(filepath.Join(harness, "stamp")); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("kselftest: %w (%w)", ErrNotSetUp, err)
	}
	src, err := os.MkdirTemp("", "npu-kselftest-")
	if err != nil {
		return nil, fmt.Errorf("kselftest: %w", err)
	}
	defer os.RemoveAll(src)
	selftests := filepath.Join(src, "tools/testing/selftests")
	headers := filepath.Join(src, "usr/include/drm")
	for _, c := range []struct{ from, to string }{
		{harness, src},
		{filepath.Join(tree, "tests/kselftest/npu"), filepath.Join(selftests, place)},
		{filepath.Join(tree, "driver/uapi"), headers},
	} {
		if err := os.CopyFS(c.to, os.DirFS(c.from)); err != nil {
			return nil, fmt.Errorf("kselftest: %w", err)
		}
	}
	out := filepath.Join(dir, "kselftest")
	if _, err := e.Build(ctx, src, out, "make", "-s", "-C", "tools/testing/selftests", "TARGETS="+place, "FORCE_TARGETS=1",
		"USERCFLAGS=-Werror", "USERLDFLAGS=-static"); err != nil {
		return nil, err
	}
	files := map[string]string{}
	for _, p := range Programs {
		path := filepath.Join(out, "tools/testing/selftests", place, p)
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("kselftest: %w: the Makefile does not build what Programs names", err)
		}
		files[Dir+"/"+p] = path
	}
	return files, nil
}

// arguments leave out rows that take the guest with them where they fail, and so everybody's results (docs/limits.md).
// They are run by hand.
var arguments = map[string]string{
	"power": " -T suspend_to_idle", // which needs somebody who presses the power button
}

// around is what stands before and after a program. A virtio port that slept takes no more writes, from the NPU's guests or
// any other, and results go through one: it is out of the driver's hands meanwhile.
var around = map[string][2]string{
	"power": {`
ports=/sys/bus/virtio/drivers/virtio_console
port=$(basename $ports/virtio*)
echo $port >$ports/unbind
`, `
echo $port >$ports/bind
`},
}

// Script runs programs, all without any; their results go to $RESULT.
func Script(programs ...string) string {
	if len(programs) == 0 {
		programs = Programs
	}
	var b strings.Builder
	for _, p := range programs {
		fmt.Fprintf(&b, "stage %s%s\n%s/%s%s >$RESULT/%s.ktap 2>&1; echo kselftest %s: status $?%s\n", p, around[p][0], Dir, p, arguments[p], p, p, around[p][1])
	}
	return b.String()
}

// Results makes one document of what the programs printed, a test for each; a program that printed
// nothing has failed. What is wrong with a program's output is a subtest of it that failed.
func Results(files map[string][]byte) []*ktap.Test {
	var all []*ktap.Test
	for _, p := range Programs {
		tests, problems := ktap.Parse(string(files[p+".ktap"]))
		t := &ktap.Test{Name: p, Children: tests}
		if len(problems) > 0 {
			t.Children = append(t.Children, &ktap.Test{Name: "(output)", Directive: ktap.Error, Diagnostics: problems})
		}
		t.OK = !slices.ContainsFunc(t.Children, func(t *ktap.Test) bool { return t.Verdict() == ktap.Failed })
		all = append(all, t)
	}
	return all
}

//go:embed expectations
var expectations string

// Expect marks the rows of results that expectations says fail on this kernel and bus, and returns
// what is wrong with it: rows that pass by now, and rows that do not exist.
func Expect(results []*ktap.Test, kernel, bus string) ([]string, error) {
	return expect(expectations, results, kernel, bus)
}

func expect(text string, results []*ktap.Test, kernel, bus string) (wrong []string, err error) {
	rows := map[string]*ktap.Test{}
	ktap.Leaves(results, func(path string, t *ktap.Test) { rows[path] = t })
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		line := strings.TrimSpace(s.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.SplitN(line, " ", 5)
		if len(f) != 5 || f[0] != "fails" && f[0] != "flaky" {
			return nil, fmt.Errorf(`kselftest: expectations: %q: want "fails|flaky KERNEL BUS TEST REASON"`, line)
		}
		how, kernels, buses, name, reason := f[0], f[1], f[2], f[3], f[4]
		if kernels != "*" && !strings.HasPrefix(kernel, kernels+".") || buses != "*" && buses != bus {
			continue
		}
		row := rows[name]
		switch {
		case row == nil:
			wrong = append(wrong, name+": no such row")
		case row.Verdict() == ktap.Failed:
			row.Directive, row.Reason = ktap.Todo, reason
		case row.Verdict() == ktap.Passed && how == "fails":
			wrong = append(wrong, name+": passes by now; take it out")
		}
	}
	for _, t := range results {
		t.OK = !slices.ContainsFunc(t.Children, func(t *ktap.Test) bool { return t.Verdict() == ktap.Failed })
	}
	return wrong, nil
}
