// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// libraries are where the tool root has shared libraries. In the guest they are all where Debian's loader
// looks, and the loader where programs say.
var libraries = []string{"usr/lib/x86_64-linux-gnu", "usr/lib64"}

// toolFiles returns what programs of the tool root need in a guest: paths there → paths on the host. Names are
// those of files in usr/bin; they go to /usr/bin, since /bin has busybox's of the same names.
func toolFiles(root string, names []string) (map[string]string, error) {
	files := map[string]string{}
	var add func(guestPath, hostPath string) error
	add = func(guestPath, hostPath string) error {
		if files[guestPath] != "" {
			return nil
		}
		files[guestPath] = hostPath
		text, err := os.ReadFile(hostPath)
		if err != nil {
			return err
		}
		f, err := elf.NewFile(bytes.NewReader(text))
		if err != nil {
			return fmt.Errorf("%s: %w", hostPath, err)
		}
		needed, err := f.ImportedLibraries()
		if err != nil {
			return fmt.Errorf("%s: %w", hostPath, err)
		}
		if s := f.Section(".interp"); s != nil {
			b, err := s.Data()
			if err != nil {
				return fmt.Errorf("%s: %w", hostPath, err)
			}
			loader := strings.TrimRight(string(b), "\x00")
			found, err := findLibrary(root, filepath.Base(loader))
			if err != nil {
				return fmt.Errorf("%s: %w", hostPath, err)
			}
			files[loader] = found
		}
		for _, lib := range needed {
			found, err := findLibrary(root, lib)
			if err != nil {
				return fmt.Errorf("%s: %w", hostPath, err)
			}
			if err := add("/usr/lib/x86_64-linux-gnu/"+lib, found); err != nil {
				return err
			}
		}
		return nil
	}
	for _, name := range names {
		if err := add("/usr/bin/"+name, filepath.Join(root, "usr/bin", name)); err != nil {
			return nil, fmt.Errorf("guest: tool %s: %w", name, err)
		}
	}
	return files, nil
}

func findLibrary(root, name string) (string, error) {
	for _, dir := range libraries {
		path := filepath.Join(root, dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("the tool root has no library %s", name)
}
