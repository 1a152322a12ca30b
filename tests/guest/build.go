// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Run executes argv in the tool root, on a private copy of directory src; when it succeeds everything in that copy goes
// to directory out. Empty src or out means none. Run returns what argv printed, also when it fails.
func (e *Env) Run(ctx context.Context, src, out string, argv ...string) (string, error) {
	script, err := installScript(e.Cache, "toolroot-run", toolrootRun)
	if err != nil {
		return "", err
	}
	var args []string
	if src != "" {
		args = append(args, "--src", src)
	}
	if out != "" {
		args = append(args, "--out", out)
	}
	output, err := command(ctx, e.Cache, script, append(append(args, "--"), argv...)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("guest: %s: %w:\n%s", strings.Join(argv, " "), errors.Join(err, ctx.Err()), output)
	}
	return string(output), err
}

var warning = regexp.MustCompile(`(?i)\bwarning\b`)

// BuildModule builds the one kernel module whose Kbuild file is in srcDir, for the given kernel ("" for the newest),
// with the compiler that built the kernel and with make W=1, and with coverage if the kernel has KCOV. srcDir is not changed; objects go to outDir. It returns
// the path of the .ko and the lines that are warnings.
func (e *Env) BuildModule(ctx context.Context, kernel, srcDir, outDir string) (ko string, warnings []string, err error) {
	release, err := e.release(kernel)
	if err != nil {
		return "", nil, err
	}
	build, err := e.buildDir(release)
	if err != nil {
		return "", nil, err
	}
	output, err := e.Build(ctx, srcDir, outDir, "sh", "-c", `make -C "$0" M="$PWD" W=1 KCOV_INSTRUMENT=y modules`, build)
	if err != nil {
		return "", nil, err
	}
	for line := range strings.Lines(output) {
		if warning.MatchString(line) {
			warnings = append(warnings, strings.TrimSpace(line))
		}
	}
	kos, err := filepath.Glob(filepath.Join(outDir, "*.ko"))
	if err != nil || len(kos) != 1 {
		return "", nil, fmt.Errorf("guest: %s holds %d modules after the build, want 1", outDir, len(kos))
	}
	return kos[0], warnings, nil
}

// BuildProgram compiles C files into the static guest program out. #include finds files of includeDirs. A warning is
// an error.
func (e *Env) BuildProgram(ctx context.Context, out string, srcs []string, includeDirs ...string) error {
	dir, err := os.MkdirTemp("", "npuemu-build-")
	if err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	defer os.RemoveAll(dir)
	argv := []string{e.Arch.compiler, "-O2", "-static", "-Wall", "-Wextra", "-Werror", "-o", "program"}
	for i, inc := range includeDirs {
		name := "include" + strconv.Itoa(i)
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(inc)); err != nil {
			return fmt.Errorf("guest: %w", err)
		}
		argv = append(argv, "-I"+name)
	}
	for i, src := range srcs {
		name := fmt.Sprintf("%d-%s", i, filepath.Base(src))
		text, err := os.ReadFile(src)
		if err != nil {
			return fmt.Errorf("guest: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o666); err != nil {
			return fmt.Errorf("guest: %w", err)
		}
		argv = append(argv, name)
	}
	if _, err := e.Build(ctx, dir, dir, argv...); err != nil {
		return err
	}
	program, err := os.ReadFile(filepath.Join(dir, "program"))
	if err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	if err := os.WriteFile(out, program, 0o777); err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	return nil
}

// BuildGo compiles a Go package of the module in tree into the static guest program out.
func (e *Env) BuildGo(ctx context.Context, out, tree, pkg string) error {
	out, err := filepath.Abs(out)
	if err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg)
	build.Dir = tree
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+e.Arch.name)
	if output, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("guest: build %s: %w:\n%s", pkg, err, output)
	}
	return nil
}

// Tool returns the path of a program of the tool root that runs on this machine: gdb-multiarch or qemu-system-riscv32.
func (e *Env) Tool(name string) string { return filepath.Join(e.Cache, "bin", name) }
