// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// keepBuilt is how long what nobody asks for stays in the cache.
const keepBuilt = 30 * 24 * time.Hour

// Build is Run for commands whose result follows from the tool root, src and argv alone, as a compiler's does. What it
// made is kept in built/ of the cache, with what it printed, and is not made a second time. A failure is not kept.
func (e *Env) Build(ctx context.Context, src, out string, argv ...string) (string, error) {
	key, err := e.buildKey(src, argv)
	if err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	all := filepath.Join(e.Cache, "built")
	entry := filepath.Join(all, key)
	if output, err := fetchBuilt(entry, out); !errors.Is(err, fs.ErrNotExist) {
		return output, err
	}
	if err := os.MkdirAll(all, 0o777); err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	pruneBuilt(all, time.Now().Add(-keepBuilt))
	fresh, err := os.MkdirTemp(all, "new-")
	if err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	defer os.RemoveAll(fresh)
	output, err := e.Run(ctx, src, filepath.Join(fresh, "out"), argv...)
	if err != nil {
		return output, err
	}
	if err := os.WriteFile(filepath.Join(fresh, "output"), []byte(output), 0o666); err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	if err := os.Rename(fresh, entry); err != nil && !errors.Is(err, fs.ErrExist) { // else somebody built the same
		return "", fmt.Errorf("guest: %w", err)
	}
	return fetchBuilt(entry, out)
}

// fetchBuilt copies an entry to out, and returns what its command printed. Without one the error is fs.ErrNotExist.
func fetchBuilt(entry, out string) (string, error) {
	output, err := os.ReadFile(filepath.Join(entry, "output"))
	if err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	now := time.Now()
	_ = os.Chtimes(entry, now, now) // it is needed; who may not write leaves it to age
	// As cp does it: out may hold files of a run before.
	err = filepath.WalkDir(filepath.Join(entry, "out"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(filepath.Join(entry, "out"), path)
		if err != nil {
			return err
		}
		return replace(filepath.Join(out, rel), path, d)
	})
	if err != nil {
		return "", fmt.Errorf("guest: %s: %w; remedy: remove that directory", entry, err)
	}
	return string(output), nil
}

// replace makes to what from is: a directory, a symbolic link or a file.
func replace(to, from string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	switch {
	case d.IsDir():
		return os.MkdirAll(to, info.Mode().Perm()|0o700)
	case d.Type()&fs.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return os.Symlink(target, to)
	}
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(to, text, info.Mode().Perm())
}

// buildKey names everything that a build follows from.
func (e *Env) buildKey(src string, argv []string) (string, error) {
	manifest, err := os.ReadFile(filepath.Join(e.Cache, "manifest"))
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%q\n%q\n%q\n", manifest, toolrootRun, argv)
	err = filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == src {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		info, err := os.Stat(path) // cp and make see what a link points to
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%q %v %d\n", rel, info.Mode(), info.Size())
		if !info.Mode().IsRegular() {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(h, f)
		return err
	})
	return hex.EncodeToString(h.Sum(nil)[:16]), err
}

// pruneBuilt removes what was last asked for before then. What cannot be removed stays.
func pruneBuilt(all string, then time.Time) {
	entries, err := os.ReadDir(all)
	if err != nil {
		return
	}
	for _, d := range entries {
		if info, err := d.Info(); err == nil && info.ModTime().Before(then) {
			_ = os.RemoveAll(filepath.Join(all, d.Name()))
		}
	}
}
