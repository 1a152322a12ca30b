// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// moduleTree is what modules.dep and modules.builtin of one kernel say.
type moduleTree struct {
	deps    map[string][]string // path of a module below /lib/modules/RELEASE → paths of the modules that it needs
	byName  map[string]string   // name → path
	builtin map[string]bool     // names
}

// moduleName turns a path into the name that modprobe and lsmod use.
func moduleName(path string) string {
	base, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}

func parseModuleTree(dep, builtin string) moduleTree {
	t := moduleTree{deps: map[string][]string{}, byName: map[string]string{}, builtin: map[string]bool{}}
	for line := range strings.Lines(dep) {
		path, needs, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		t.deps[path] = strings.Fields(needs)
		t.byName[moduleName(path)] = path
	}
	for path := range strings.Lines(builtin) {
		t.builtin[moduleName(path)] = true
	}
	return t
}

// closure returns the paths of the named modules and of all that they need, without those in the kernel image; what is
// needed comes before what needs it.
func (t moduleTree) closure(names []string) ([]string, error) {
	var paths []string
	for _, name := range names {
		name = moduleName(name)
		if t.builtin[name] {
			continue
		}
		path, ok := t.byName[name]
		if !ok {
			return nil, fmt.Errorf("guest: the kernel has no module %q", name)
		}
		// modules.dep holds the transitive closure, nearest first.
		for _, p := range slices.Backward(append([]string{path}, t.deps[path]...)) {
			if !slices.Contains(paths, p) {
				paths = append(paths, p)
			}
		}
	}
	return paths, nil
}

// moduleInfo returns the values of one key in a module's .modinfo section, for example "depends" or "vermagic".
func moduleInfo(ko, key string) (string, error) {
	f, err := elf.Open(ko)
	if err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	defer f.Close()
	s := f.Section(".modinfo")
	if s == nil {
		return "", fmt.Errorf("guest: %s is not a kernel module: no .modinfo section", ko)
	}
	info, err := s.Data()
	if err != nil {
		return "", fmt.Errorf("guest: %s: %w", ko, err)
	}
	for field := range bytes.SplitSeq(info, []byte{0}) {
		if k, v, ok := strings.Cut(string(field), "="); ok && k == key {
			return v, nil
		}
	}
	return "", nil
}

// addModules puts modules and all they need below /lib/modules/RELEASE, decompressed, with a modules.dep, so that
// modprobe works in the guest. An entry of modules is the name of one of the kernel's own or the path of a .ko file.
func (e *Env) addModules(ctx context.Context, w *cpioWriter, release string, modules []string) error {
	dir := e.modulesDir(release)
	dep, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	tree := parseModuleTree(string(dep), string(builtin))

	guestDir := "lib/modules/" + release + "/"
	var names []string
	var guestDep strings.Builder
	for _, m := range modules {
		if !strings.HasSuffix(m, ".ko") {
			names = append(names, m)
			continue
		}
		// Debian's kernels have no symbol versions: a module for another kernel would load and crash.
		magic, err := moduleInfo(m, "vermagic")
		if err != nil {
			return err
		}
		if built, _, _ := strings.Cut(magic, " "); built != release {
			return fmt.Errorf("guest: %s was built for kernel %q, the guest runs %q", m, built, release)
		}
		depends, err := moduleInfo(m, "depends")
		if err != nil {
			return err
		}
		needs := strings.FieldsFunc(depends, func(r rune) bool { return r == ',' })
		names = append(names, needs...)
		paths, err := tree.closure(needs)
		if err != nil {
			return fmt.Errorf("%w, which %s needs", err, m)
		}
		text, err := os.ReadFile(m)
		if err != nil {
			return fmt.Errorf("guest: %w", err)
		}
		w.File(guestDir+filepath.Base(m), 0o644, text)
		slices.Reverse(paths)
		fmt.Fprintf(&guestDep, "%s: %s\n", filepath.Base(m), plain(paths))
	}

	paths, err := tree.closure(names)
	if err != nil {
		return err
	}
	for _, p := range paths {
		text, err := e.readModule(ctx, filepath.Join(dir, p))
		if err != nil {
			return err
		}
		w.File(guestDir+plain([]string{p}), 0o644, text)
		fmt.Fprintf(&guestDep, "%s: %s\n", plain([]string{p}), plain(tree.deps[p]))
	}
	w.File(guestDir+"modules.dep", 0o644, []byte(guestDep.String()))
	return nil
}

// plain names modules as they are called in the guest: without the suffix of the compression.
func plain(paths []string) string {
	return strings.ReplaceAll(strings.Join(paths, " "), ".ko.xz", ".ko")
}

// readModule reads a module of the kernel and decompresses it. The host's xz may be absent; the tool root's is not.
func (e *Env) readModule(ctx context.Context, path string) ([]byte, error) {
	if !strings.HasSuffix(path, ".xz") {
		return os.ReadFile(path)
	}
	cmd := exec.CommandContext(ctx, e.root("lib64/ld-linux-x86-64.so.2"), "--library-path",
		e.root("usr/lib/x86_64-linux-gnu"), e.root("usr/bin/xz"), "-dc", path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("guest: xz -dc %s: %w: %s", path, err, stderr.Bytes())
	}
	return text, nil
}
