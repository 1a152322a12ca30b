// SPDX-License-Identifier: Apache-2.0

package iova

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

// shared is a Memory of words.
type shared struct {
	*probe
	words [8]atomic.Uint64
	skew  bool // not aligned in memory
}

func (m *shared) Watchable(uint64) bool { return !m.skew }
func (m *shared) Load64(off uint64) (uint64, error) {
	m.inside.Add(1)
	defer m.inside.Add(-1)
	if m.gate != nil {
		<-m.gate
	}
	return m.words[off/8].Load(), m.err
}

func (m *shared) Store32(off uint64, v uint32) error {
	m.words[off/8].Store(uint64(v) << (off % 8 * 8))
	return m.err
}

func newShared() *shared { return &shared{probe: newProbe(64)} }

func TestWatchRefuses(t *testing.T) {
	skewed := newShared()
	skewed.skew = true
	var tab Table
	for i, row := range []struct {
		prot Prot
		mem  Memory
	}{{Read | Write, newShared()}, {Read, newShared()}, {Write, newShared()}, {Read | Write, newProbe(64)}, {Read | Write, skewed}} {
		if err := tab.Map(Addr(i)*64, 64, row.prot, row.mem); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name string
		addr Addr
		size uint64
		ok   bool
	}{
		{"all of it", 0, 64, true},
		{"its end", 48, 16, true},
		{"nothing", 0, 0, false},
		{"past its end", 56, 16, false},
		{"2^64 bytes", 0, ^uint64(0), false},
		{"read-only", 64, 16, false},
		{"write-only", 128, 16, false},
		{"no words", 192, 16, false},
		{"not aligned in memory", 256, 16, false},
		{"not mapped", 320, 16, false},
	} {
		if w := tab.Watch(tt.addr, tt.size); (w != nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, w)
		}
	}
}

func TestWatch(t *testing.T) {
	var tab Table
	m := newShared()
	if err := tab.Map(0x1000, 64, Read|Write, m); err != nil {
		t.Fatal(err)
	}
	w := tab.Watch(0x1010, 16)
	m.words[2].Store(7)
	if v, err := w.Load64(0); v != 7 || err != nil {
		t.Errorf("Load64: %d, %v", v, err)
	}
	if err := w.Store32(12, 5); err != nil || m.words[3].Load() != 5<<32 {
		t.Errorf("Store32: %v, word %#x", err, m.words[3].Load())
	}
	m.err = errors.New("truncated")
	fault := func(what string, err error, want Fault) {
		t.Helper()
		var f *Fault
		if !errors.As(err, &f) || f.Addr != want.Addr || f.Access != want.Access || f.Reason != want.Reason {
			t.Errorf("%s: %v, want %v", what, err, &want)
		}
	}
	_, err := w.Load64(8)
	fault("load that fails", err, Fault{Addr: 0x1018, Access: Read, Reason: Failed})
	fault("store that fails", w.Store32(8, 0), Fault{Addr: 0x1018, Access: Write, Reason: Failed})
	m.err = nil

	// Unmap waits for the access under way, and ends the Watch.
	m.gate = make(chan struct{})
	loaded, unmapped := make(chan error), make(chan error)
	go func() { _, err := w.Load64(0); loaded <- err }()
	for m.inside.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	go func() { unmapped <- tab.Unmap(0x1000, 64) }()
	select {
	case <-unmapped:
		t.Error("Unmap did not wait")
	case <-time.After(20 * time.Millisecond):
	}
	close(m.gate)
	if err := <-loaded; err != nil {
		t.Error(err)
	}
	if err := <-unmapped; err != nil {
		t.Error(err)
	}
	if m.closed.Load() != 1 {
		t.Error("not closed")
	}
	_, err = w.Load64(0)
	fault("load after Unmap", err, Fault{Addr: 0x1010, Access: Read, Reason: Unmapped})
	fault("store after Unmap", w.Store32(0, 0), Fault{Addr: 0x1010, Access: Write, Reason: Unmapped})
	if tab.Watch(0x1010, 16) != nil {
		t.Error("a Watch of nothing")
	}
}

// TestWatchIsLogged: what is stored word by word is written to, like everything else.
func TestWatchIsLogged(t *testing.T) {
	var tab Table
	m := newShared()
	if err := tab.Map(0x1000, 64, Read|Write, m); err != nil {
		t.Fatal(err)
	}
	w := tab.Watch(0x1010, 16)
	if _, err := tab.StartLog(4096, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Load64(0); err != nil {
		t.Fatal(err)
	}
	if got := report(t, &tab, 0, 1<<16, 4096); len(got) != 0 {
		t.Errorf("a load wrote to pages %v", got)
	}
	if err := w.Store32(12, 5); err != nil {
		t.Fatal(err)
	}
	if got := report(t, &tab, 0, 1<<16, 4096); !equal(got, []uint64{1}) {
		t.Errorf("a store to page 1 wrote to pages %v", got)
	}
}
