// SPDX-License-Identifier: Apache-2.0

package filemap

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func memfd(t *testing.T, size int64) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "test")
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestOpen(t *testing.T) {
	var s Set
	f := memfd(t, 1<<16)
	ro, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer ro.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for _, tt := range []struct {
		name      string
		fd        int
		off, size uint64
		write     bool
		want      unix.Errno
	}{
		{"all", int(f.Fd()), 0, 1 << 16, true, 0},
		{"a byte", int(f.Fd()), 1<<16 - 1, 1, true, 0},
		{"nothing", int(f.Fd()), 0, 0, true, unix.EINVAL},
		{"beyond", int(f.Fd()), 1, 1 << 16, true, unix.EINVAL},
		{"sum overflows", int(f.Fd()), 1, ^uint64(0), true, unix.EINVAL},
		{"offset beyond", int(f.Fd()), ^uint64(0), 1, true, unix.EINVAL},
		{"pipe", int(r.Fd()), 0, 1, false, unix.EINVAL},
		{"no descriptor", 1 << 20, 0, 1, false, unix.EBADF},
		{"read only", int(ro.Fd()), 0, 1 << 16, false, 0},
		{"write what is read only", int(ro.Fd()), 0, 1 << 16, true, unix.EACCES},
	} {
		m, err := s.Open(tt.fd, tt.off, tt.size, tt.write)
		if (err != nil) != (tt.want != 0) || err != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if err == nil {
			m.Close()
		}
	}
	if n := s.Len(); n != 0 {
		t.Errorf("%d mappings are left", n)
	}
}

func TestSharing(t *testing.T) {
	var s Set
	f := memfd(t, 1<<16)
	open := func(off, size uint64) *Range {
		t.Helper()
		m, err := s.Open(int(f.Fd()), off, size, true)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	a, b, c := open(0, 4096), open(0, 4096), open(4096, 4096)
	if s.Len() != 1 || !a.Same(b) || a.Same(c) {
		t.Errorf("%d mappings, want 1", s.Len())
	}
	if err := f.Truncate(1 << 17); err != nil {
		t.Fatal(err)
	}
	d := open(1<<16, 4096)
	if s.Len() != 2 {
		t.Errorf("%d mappings after the file grew, want 2", s.Len())
	}
	for _, m := range []*Range{a, b, c, d} {
		m.Close()
	}
	if s.Len() != 0 {
		t.Errorf("%d mappings are left", s.Len())
	}
}

func TestTruncated(t *testing.T) {
	var s Set
	f := memfd(t, 8192)
	m, err := s.Open(int(f.Fd()), 0, 8192, true)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := f.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	var p [4]byte
	_, loadErr := m.Load16(4096)
	_, wordErr := m.Load32(4096)
	_, longErr := m.Load64(4096)
	for name, err := range map[string]error{"read": m.ReadAt(p[:], 4096), "write": m.WriteAt(p[:], 8000), "load": loadErr, "store": m.Store16(4098, 1),
		"load of 4 bytes": wordErr, "load of 8 bytes": longErr, "store of 4 bytes": m.Store32(4100, 1)} {
		if !errors.Is(err, unix.EFAULT) {
			t.Errorf("%s: %v, want EFAULT", name, err)
		}
	}
	if err := m.ReadAt(p[:], 0); err != nil {
		t.Error(err)
	}
}

// TestWords: halves of a word are stored where they are, and alignment is that of memory.
func TestWords(t *testing.T) {
	var s Set
	f := memfd(t, 4096)
	for _, off := range []uint64{0, 8, 4, 1} {
		m, err := s.Open(int(f.Fd()), off, 64, true)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := m.Watchable(16), off%8 == 0; got != want {
			t.Errorf("range at %d: watchable %v, want %v", off, got, want)
		}
		m.Close()
	}
	m, err := s.Open(int(f.Fd()), 0, 64, true)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := errors.Join(m.Store32(16, 1), m.Store32(20, 2), m.Store32(24, 3)); err != nil {
		t.Fatal(err)
	}
	var p [16]byte
	v, err := m.Load64(16)
	if _, rerr := f.ReadAt(p[:], 16); v != 2<<32|1 || err != nil || rerr != nil || p != [16]byte{0: 1, 4: 2, 8: 3} {
		t.Errorf("Load64 %#x, %v; file % x, %v", v, err, p, rerr)
	}
}

// TestHalfWords stores both halves of a word from two goroutines: neither loses a store.
func TestHalfWords(t *testing.T) {
	var s Set
	f := memfd(t, 4096)
	m, err := s.Open(int(f.Fd()), 0, 4096, true)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := m.Load16(1); err == nil {
		t.Error("a half-word at an odd address")
	}
	if err := m.Store16(3, 1); err == nil {
		t.Error("a store at an odd address")
	}
	var wg sync.WaitGroup
	for half := range uint64(2) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range uint16(20_000) {
				if err := m.Store16(8+2*half, i); err != nil {
					t.Error(err)
					return
				}
				if v, err := m.Load16(8 + 2*half); v != i || err != nil {
					t.Errorf("half %d: %d, %v; want %d", half, v, err, i)
					return
				}
			}
		}()
	}
	wg.Wait()
}
