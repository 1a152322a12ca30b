// SPDX-License-Identifier: Apache-2.0

// Package outfile writes files that are there whole or not at all: a reader never sees half of one.
package outfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// File is a file that is being written.
type File struct {
	f    *os.File
	name string      // that it gets; empty for what is no regular file, and when it is over
	mode fs.FileMode // that it gets
}

// Create begins the file of that name, beside it. One that is there stays until Commit, which keeps its permissions; what
// is no regular file, as a FIFO or /dev/null, is written to and never replaced.
func Create(name string) (*File, error) {
	mode := fs.FileMode(0o644)
	st, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		return &File{f: f}, nil
	default:
		mode = st.Mode().Perm()
		if name, err = filepath.EvalSymlinks(name); err != nil {
			return nil, err
		}
	}
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil { // which names the file that it tried
		var path *fs.PathError
		if errors.As(err, &path) {
			err = &fs.PathError{Op: "create", Path: name, Err: path.Err}
		}
		return nil, err
	}
	return &File{f, name, mode}, nil
}

// Write appends p.
func (o *File) Write(p []byte) (int, error) { return o.f.Write(p) }

// Commit gives the file its name. If it fails, there is none.
func (o *File) Commit() error {
	if o.name == "" {
		return o.f.Close()
	}
	err := errors.Join(o.f.Chmod(o.mode), o.f.Close())
	if err == nil {
		err = os.Rename(o.f.Name(), o.name)
	}
	if err != nil {
		return errors.Join(err, o.remove())
	}
	o.name = ""
	return nil
}

// Discard ends a file that was not committed; after Commit it does nothing.
func (o *File) Discard() error {
	err := o.f.Close()
	if errors.Is(err, fs.ErrClosed) {
		err = nil
	}
	return errors.Join(err, o.remove())
}

func (o *File) remove() error {
	if o.name == "" {
		return nil
	}
	o.name = ""
	if err := os.Remove(o.f.Name()); err != nil {
		return fmt.Errorf("a temporary file stays: %w", err)
	}
	return nil
}

// Write writes a file of that name with content b.
func Write(name string, b []byte) error {
	o, err := Create(name)
	if err != nil {
		return err
	}
	if _, err := o.Write(b); err != nil {
		return errors.Join(err, o.Discard())
	}
	return o.Commit()
}
