// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"os"
)

// TraceFile is a file that becomes PATH.1 when it has limit bytes, so that the last of a long run is kept and the disk is not filled. What is
// no regular file, as a FIFO or /dev/null, is only written to.
type TraceFile struct {
	path        string
	f           *os.File
	regular     bool
	size, limit int64
}

// NewTraceFile makes the file, or empties it.
func NewTraceFile(path string, limit int64) (*TraceFile, error) {
	t := &TraceFile{path: path, limit: limit}
	if err := t.open(); err != nil {
		return nil, err
	}
	st, err := t.f.Stat()
	if err != nil {
		return nil, errors.Join(err, t.f.Close())
	}
	t.regular = st.Mode().IsRegular()
	return t, nil
}

func (t *TraceFile) open() (err error) {
	if t.f, err = os.Create(t.path); err != nil {
		return err
	}
	t.size = 0
	return nil
}

// Write writes whole lines.
func (t *TraceFile) Write(p []byte) (int, error) {
	if t.regular && t.size > 0 && t.size+int64(len(p)) > t.limit {
		if err := errors.Join(t.f.Close(), os.Rename(t.path, t.path+".1")); err != nil {
			return 0, err
		}
		if err := t.open(); err != nil {
			return 0, err
		}
	}
	n, err := t.f.Write(p)
	t.size += int64(n)
	return n, err
}

// Close closes the file. Closing twice is allowed.
func (t *TraceFile) Close() error {
	if err := t.f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
