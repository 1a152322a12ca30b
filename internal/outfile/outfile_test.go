// SPDX-License-Identifier: Apache-2.0

package outfile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A file keeps what it is: its permissions, a link to it, and that it is a device or FIFO.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	secret, link, fifo := filepath.Join(dir, "secret"), filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.WriteFile(secret, []byte("a longer old one"), 0o600), os.Symlink("secret", link), unix.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := Write(link, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(secret); err != nil || st.Mode() != 0o600 {
		t.Errorf("the file has mode %v, %v", st.Mode(), err)
	}
	if to, err := os.Readlink(link); err != nil || to != "secret" {
		t.Errorf("the link: %q, %v", to, err)
	}
	if b, err := os.ReadFile(secret); err != nil || string(b) != "new" {
		t.Errorf("through the link: %q, %v", b, err)
	}
	end, err := os.OpenFile(fifo, os.O_RDWR, 0) // so that nobody waits for the other end
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	if err := Write(fifo, []byte("piped")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(end, b); err != nil || string(b) != "piped" {
		t.Errorf("the FIFO: %q, %v", b, err)
	}
	if st, err := os.Lstat(fifo); err != nil || st.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("the FIFO is replaced: %v, %v", st.Mode(), err)
	}
}

// Until Commit the old file is there, after Discard it still is, and nothing else.
func TestDiscard(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	if err := Write(name, []byte("old")); err != nil {
		t.Fatal(err)
	}
	for _, commit := range []bool{false, true} {
		o, err := Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.Write([]byte("new")); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(name); err != nil || string(b) != "old" {
			t.Errorf("while it is written: %q, %v", b, err)
		}
		want := "old"
		if commit {
			want = "new"
			if err := o.Commit(); err != nil {
				t.Error(err)
			}
		}
		for range 2 {
			if err := o.Discard(); err != nil {
				t.Error(err)
			}
		}
		if b, err := os.ReadFile(name); err != nil || string(b) != want {
			t.Errorf("committed %v: %q, %v", commit, b, err)
		}
		if l, err := os.ReadDir(filepath.Dir(name)); err != nil || len(l) != 1 {
			t.Errorf("committed %v: the folder has %v, %v", commit, l, err)
		}
	}
}

// Errors name the file that was asked for.
func TestErrors(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		name string
		want error
	}{
		{filepath.Join(dir, "no", "such"), fs.ErrNotExist},
		{dir, syscall.EISDIR},
		{"/dev/full", syscall.ENOSPC},
	} {
		if err := Write(tt.name, []byte("x")); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.name+":") {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	// The folder becomes a file's name while it is written: nothing stays.
	name := filepath.Join(dir, "f")
	o, err := Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(name, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := o.Commit(); err == nil {
		t.Error("a file took the place of a folder")
	}
	if l, err := os.ReadDir(dir); err != nil || len(l) != 1 || !l[0].IsDir() {
		t.Errorf("the folder has %v, %v", l, err)
	}
}
