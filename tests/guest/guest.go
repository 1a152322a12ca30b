// SPDX-License-Identifier: Apache-2.0

// Package guest boots Linux in QEMU for tests and for the demo: it builds kernel modules and static programs for the
// guest, packs an initramfs, runs one shell script in it and brings back its exit status and the files it leaves.
//
// QEMU, kernels, compilers and busybox come from the tool root, a cache directory that setup.sh fills with Debian
// packages. Open finds it, Setup fills it first, Require is what tests call. Nothing here knows the NPU: the device is
// whoever listens on the vfio-user sockets named in Config.
//
// The guest is x86-64, or arm64 where a test asks for it, with one CPU. It has no disk and no network.
package guest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

//go:embed setup.sh
var setupScript []byte

//go:embed apt.sh
var aptScript []byte // setup.sh sources it

//go:embed toolroot-run
var toolrootRun []byte

// ErrNotSetUp is what Open returns, wrapped, when the tool root is absent or was made by another setup.sh.
var ErrNotSetUp = errors.New("the guest environment is not set up: run tests/guest/setup.sh")

// Env is a complete tool root. It is immutable and may be used by several goroutines.
type Env struct {
	Cache       string // directory that holds the tool root
	Arch        *Arch  // of the guests
	QEMU        string // path of Arch's qemu-system-…, or of a script that starts it
	QEMUVersion string // for example "11.1.3"
	kernels     []string
}

func cacheDir() (string, error) {
	if dir := os.Getenv("NPUEMU_CACHE"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("guest: no cache directory: %w: set NPUEMU_CACHE", err)
	}
	return filepath.Join(dir, "npuemu"), nil
}

// Setup runs setup.sh, which takes a minute or so the first time and no time later, and then opens the tool root.
// Progress goes to w, a line at a time.
func Setup(ctx context.Context, w io.Writer) (*Env, error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	if _, err := installScript(cache, "apt.sh", aptScript); err != nil {
		return nil, err
	}
	script, err := installScript(cache, "setup.sh", setupScript)
	if err != nil {
		return nil, err
	}
	cmd := command(ctx, cache, script)
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("guest: setup.sh: %w", errors.Join(err, ctx.Err()))
	}
	return Open(AMD64)
}

// Open finds the tool root with what guests of arch need and starts nothing but qemu --version.
func Open(arch *Arch) (*Env, error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	manifest, err := os.ReadFile(filepath.Join(cache, "manifest"))
	if err != nil {
		return nil, fmt.Errorf("guest: %w (%w)", ErrNotSetUp, err)
	}
	sum := sha256.Sum256(setupScript)
	if !bytes.Contains(manifest, []byte("setup "+hex.EncodeToString(sum[:])+"\n")) {
		return nil, fmt.Errorf("guest: %w (%s was made by another version of it)", ErrNotSetUp, cache)
	}
	if arch.setup != "" && !bytes.Contains(manifest, []byte("\narch "+arch.name+"\n")) {
		return nil, fmt.Errorf("guest: %w%s", ErrNotSetUp, arch.setup)
	}
	e := &Env{Cache: cache, Arch: arch}
	if arch == AMD64 {
		e.QEMU = os.Getenv("NPUEMU_QEMU")
	}
	if e.QEMU == "" {
		e.QEMU = filepath.Join(cache, "bin", arch.qemu)
	}
	out, err := exec.Command(e.QEMU, "--version").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("guest: %s --version: %w: %s", e.QEMU, err, out)
	}
	if m := regexp.MustCompile(`version (\d+\.\d+\.\d+)`).FindSubmatch(out); m != nil {
		e.QEMUVersion = string(m[1])
	}
	dirs, err := filepath.Glob(e.guestRoot("usr/lib/modules/*/modules.dep"))
	if err != nil || len(dirs) == 0 {
		return nil, fmt.Errorf("guest: %s holds no kernel: remove it and run tests/guest/setup.sh", cache)
	}
	for _, dir := range dirs {
		e.kernels = append(e.kernels, filepath.Base(filepath.Dir(dir)))
	}
	slices.SortFunc(e.kernels, func(a, b string) int { return compareVersions(b, a) })
	return e, nil
}

// Require opens the tool root for a test. Without one the test is skipped with the reason, unless CI=true or
// NPUEMU_REQUIRE_GUEST=1: then it fails. With -short no guest is wanted, and the test is skipped.
func Require(tb testing.TB) *Env { tb.Helper(); return RequireArch(tb, AMD64) }

// RequireArch is Require for guests of another architecture.
func RequireArch(tb testing.TB, arch *Arch) *Env {
	tb.Helper()
	if testing.Short() {
		tb.Skip("boots a guest; not with -short")
	}
	e, err := Open(arch)
	if err != nil {
		Absent(tb, err)
	}
	return e
}

// Absent skips a test, or fails it as Require does: err says what is not set up.
func Absent(tb testing.TB, err error) {
	tb.Helper()
	end := tb.Skip
	if os.Getenv("CI") == "true" || os.Getenv("NPUEMU_REQUIRE_GUEST") == "1" {
		end = tb.Fatal
	}
	end(err)
}

// Kernels returns the releases of the guest kernels, as uname -r prints them, newest first.
func (e *Env) Kernels() []string { return slices.Clone(e.kernels) }

// release resolves what a caller names a kernel: "" is the newest, "6.12" the newest 6.12, or a whole release, also of
// a kernel of our own.
func (e *Env) release(name string) (string, error) {
	for _, k := range e.kernels {
		if name == "" || k == name || strings.HasPrefix(k, name+".") {
			return k, nil
		}
	}
	if e.Arch == AMD64 && e.isOwn(name) {
		return name, nil
	}
	return "", fmt.Errorf("guest: no kernel %q: the tool root has %s", name, strings.Join(e.kernels, ", "))
}

// root is for programs of the tool root; guestRoot for what runs in the guest.
func (e *Env) root(path string) string      { return filepath.Join(e.Cache, "toolroot", path) }
func (e *Env) guestRoot(path string) string { return filepath.Join(e.root(e.Arch.root), path) }

// installScript writes an embedded script where it can be executed. Concurrent calls are harmless: the content is the
// same and the rename is atomic.
func installScript(cache, name string, script []byte) (string, error) {
	path := filepath.Join(cache, "bin", name)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, script) {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return "", fmt.Errorf("guest: %w: set NPUEMU_CACHE to a writable directory", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), name)
	if err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	_, err = f.Write(script)
	if err := errors.Join(err, f.Chmod(0o755), f.Close(), os.Rename(f.Name(), path)); err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	return path, nil
}

// command prepares a script of ours. It runs in a process group of its own, all of which ends when ctx does, with time
// to clean up.
func command(ctx context.Context, cache, script string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, script, args...)
	cmd.Env = append(os.Environ(), "NPUEMU_CACHE="+cache)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// compareVersions orders kernel releases by their numbers: 7.3 after 6.12.
func compareVersions(a, b string) int {
	numbers := func(s string) (n []int) {
		s, _, _ = strings.Cut(s, "+")
		s, _, _ = strings.Cut(s, "-")
		for f := range strings.SplitSeq(s, ".") {
			v, _ := strconv.Atoi(f) // not a number sorts first
			n = append(n, v)
		}
		return n
	}
	return cmp.Or(slices.Compare(numbers(a), numbers(b)), strings.Compare(a, b))
}
