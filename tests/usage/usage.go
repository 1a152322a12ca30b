// SPDX-License-Identifier: Apache-2.0

// Package usage counts what the test's own process holds, so that a test can show that nothing is left behind.
package usage

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Held is what this process holds. Heap and RSS are in bytes.
type Held struct {
	Descriptors, Memfds, Mappings, Goroutines, Threads, Heap, RSS int
}

// Settled returns what is held when clients that have gone are gone for the server too: when nothing changes any
// more, and when want, if not nil, is reached. It waits 10 s at most.
func Settled(t testing.TB, want *Held) Held {
	t.Helper()
	last := count(t)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
		u := count(t)
		same := u.counts() == last.counts()
		last = u
		if same && (want == nil || u.counts() == want.counts()) {
			break
		}
	}
	return last
}

// counts are what must not change at all.
func (u Held) counts() [3]int { return [3]int{u.Descriptors, u.Memfds, u.Goroutines} }

// Left says what u holds more than before, or returns nil. Mappings and live heap vary a little: threads of the
// runtime, buffers of the log. No bound is put on RSS: kernel and collector decide on it.
func (u Held) Left(before Held) error {
	const mappings, heap = 30, 2 << 20
	if u.counts() != before.counts() || u.Mappings > before.Mappings+mappings || u.Heap > before.Heap+heap {
		return fmt.Errorf("left behind: before %+v, after %+v", before, u)
	}
	return nil
}

func count(t testing.TB) Held {
	t.Helper()
	read := func(name string) []byte {
		b, err := os.ReadFile("/proc/self/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	maps := read("maps")
	u := Held{
		Descriptors: len(fds), Goroutines: runtime.NumGoroutine(),
		Mappings: bytes.Count(maps, []byte("\n")), Memfds: bytes.Count(maps, []byte("/memfd:")),
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u.Heap = int(m.HeapAlloc)
	for line := range strings.Lines(string(read("status"))) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch n, _ := strconv.Atoi(f[1]); f[0] {
		case "VmRSS:":
			u.RSS = n << 10
		case "Threads:":
			u.Threads = n
		}
	}
	return u
}
