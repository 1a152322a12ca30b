// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Kernels of our own come from kernels/kernel.sh and lie in the cache beside the tool root, each in a directory named by
// its release: the image, vmlinux or vmlinuz, modules as in /lib/modules, build for modules of ours, and selftests, the source of
// the kernel's VFIO selftests with what they are built with. They are never among Env.Kernels, and are asked for by release.

//go:embed kernels/build kernels/*.config
var kernelSources embed.FS

// Names of our kernels, and what they are built from.
const (
	Lean  = "lean"
	Debug = "debug"
)

var ownSources = map[string][]string{
	Lean:  {"kernels/build", "kernels/lean.config"},
	Debug: {"kernels/build", "kernels/lean.config", "kernels/debug.config"},
}

// ErrNoKernel is what Own returns, wrapped, when the kernel was not built from the present configuration.
var ErrNoKernel = errors.New("no such guest kernel in the cache")

// Own returns the release of a kernel of our own.
func (e *Env) Own(name string) (release string, err error) {
	h := sha256.New()
	for _, path := range ownSources[name] {
		text, err := kernelSources.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("guest: %w", err)
		}
		h.Write(text)
	}
	sum := hex.EncodeToString(h.Sum(nil))
	stamps, err := filepath.Glob(filepath.Join(e.Cache, "kernels/*-"+name+"-*/stamp"))
	if err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	for _, path := range stamps {
		if stamp, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(stamp)) == sum {
			return filepath.Base(filepath.Dir(path)), nil
		}
	}
	return "", fmt.Errorf("guest: %w: run make kernel-%s", ErrNoKernel, name)
}

// RequireOwn is Require, and returns the release of a kernel of our own. Where that was not built the test is skipped with
// the reason, and fails if NPUEMU_REQUIRE_KERNELS, a list of names with commas, names it.
func RequireOwn(tb testing.TB, name string) (e *Env, release string) {
	tb.Helper()
	e = Require(tb)
	release, err := e.Own(name)
	if err != nil {
		if slices.Contains(strings.Split(os.Getenv("NPUEMU_REQUIRE_KERNELS"), ","), name) {
			tb.Fatal(err)
		}
		tb.Skip(err)
	}
	return e, release
}

// own returns a file of one of our kernels.
func (e *Env) own(release, path string) string {
	return filepath.Join(e.Cache, "kernels", release, path)
}

func (e *Env) isOwn(release string) bool {
	_, err := os.Stat(e.own(release, "stamp"))
	return err == nil
}

// modulesDir is where a kernel's modules.dep is.
func (e *Env) modulesDir(release string) string {
	if e.isOwn(release) {
		return e.own(release, "")
	}
	return e.guestRoot(filepath.Join("usr/lib/modules", release))
}

// buildDir returns what modules for a kernel are built with, a path in the tool root. Files of a kernel of ours are linked
// into it when they are wanted.
func (e *Env) buildDir(release string) (string, error) {
	if !e.isOwn(release) {
		return "/lib/modules/" + release + "/build", nil
	}
	dir := filepath.Join("kernels", release)
	if _, err := os.Stat(e.root(dir)); err == nil {
		return "/" + dir, nil
	}
	if err := os.MkdirAll(e.root("kernels"), 0o777); err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	tmp, err := os.MkdirTemp(e.root("kernels"), ".new")
	if err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	defer os.RemoveAll(tmp)
	if out, err := exec.Command("cp", "-al", e.own(release, "build"), filepath.Join(tmp, "build")).CombinedOutput(); err != nil {
		return "", fmt.Errorf("guest: cp: %w: %s", err, out)
	}
	if err := os.Rename(filepath.Join(tmp, "build"), e.root(dir)); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("guest: %w", err)
	}
	return "/" + dir, nil
}

// BuildSelftests builds the kernel's VFIO selftests, from the source that came with one of our kernels, into dir, and
// returns the programs by name. They are static. change, if not nil, may change the source below dir first, such as add a driver;
// otherwise it is as the distribution has it.
func (e *Env) BuildSelftests(tb testing.TB, release, dir string, change func(src string)) map[string]string {
	tb.Helper()
	src := filepath.Join(dir, "src")
	if err := os.CopyFS(src, os.DirFS(e.own(release, "selftests"))); err != nil {
		tb.Fatal(err)
	}
	vfio := filepath.Join(src, "tools/testing/selftests/vfio")
	if change != nil {
		change(vfio)
	}
	if _, err := e.Build(tb.Context(), src, filepath.Join(dir, "built"), "sh", "-c",
		`top=$PWD && mkdir programs && make -s -C tools/testing/selftests/vfio OUTPUT="$top/programs" ARCH=x86_64 KHDR_INCLUDES="-isystem $top/usr/include" `+
			`LDFLAGS="-static -L$top/lib" && rm -rf usr tools scripts lib`); err != nil {
		tb.Fatal(err)
	}
	programs := map[string]string{}
	paths, err := filepath.Glob(filepath.Join(dir, "built/programs/vfio_*_test"))
	if err != nil || len(paths) == 0 {
		tb.Fatalf("the selftests built to nothing: %v", err)
	}
	for _, p := range paths {
		programs[filepath.Base(p)] = p
	}
	return programs
}
