// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vfiouser

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
	"npuemu/internal/uds"
)

// fake is a device whose regions are plain memory. Its BAR0 has 64 KiB, its BAR2
// 1 MiB in a memfd of which the second half may be mapped, its BAR5 2 MiB; BAR1
// can only be read and BAR3 only be written; BAR4 refuses every access.
type fake struct {
	table iova.Table
	bar2  *os.File

	mu      sync.Mutex
	mem     map[int][]byte
	vectors map[[2]int]*eventfd.FD
	calls   []string // TriggerVector, MaskVector, Reset and Detach
}

const bar2Size = 1 << 20

func newFake(t testing.TB) *fake {
	t.Helper()
	return &fake{
		bar2: memfd(t, bar2Size),
		mem: map[int][]byte{
			0: make([]byte, 64<<10), 1: make([]byte, 4096), 2: make([]byte, bar2Size),
			3: make([]byte, 4096), 5: make([]byte, 2<<20), RegionConfig: make([]byte, 4096),
		},
		vectors: make(map[[2]int]*eventfd.FD),
	}
}

func (f *fake) Regions() []Region {
	rw := RegionRead | RegionWrite
	return []Region{
		{Size: 64 << 10, Flags: rw},
		{Size: 4096, Flags: RegionRead},
		{Size: bar2Size, Flags: rw | RegionMmap, File: f.bar2, Areas: []Area{{Off: bar2Size / 2, Size: bar2Size / 2}}},
		{Size: 4096, Flags: RegionWrite},
		{Size: 4096, Flags: rw},
		{Size: 2 << 20, Flags: rw | RegionMmap, File: f.bar2},
		{},
		{Size: 4096, Flags: rw},
		{},
	}
}

func (f *fake) IRQs() []IRQ {
	return []IRQ{
		{Count: 1, Flags: IRQEventfd | IRQMaskable | IRQAutomasked},
		{},
		{Count: 32, Flags: IRQEventfd | IRQMaskable},
		{Count: 1, Flags: IRQEventfd},
		{Count: 1},
	}
}

func (f *fake) ReadRegion(index int, off uint64, p []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if index == 4 {
		return errors.New("powered off")
	}
	copy(p, f.mem[index][off:off+uint64(len(p))])
	return nil
}

func (f *fake) WriteRegion(index int, off uint64, p []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if index == 4 {
		return errors.New("powered off")
	}
	copy(f.mem[index][off:off+uint64(len(p))], p)
	return nil
}

func (f *fake) SetVector(index, vector int, fd *eventfd.FD) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := [2]int{index, vector}
	if old := f.vectors[key]; old != nil {
		old.Close()
	}
	delete(f.vectors, key)
	if fd != nil {
		f.vectors[key] = fd
	}
}

// raise signals what is attached to a vector, and reports whether anything was.
func (f *fake) raise(index, vector int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	fd := f.vectors[[2]int{index, vector}]
	if fd != nil {
		fd.Signal()
	}
	return fd != nil
}

func (f *fake) log(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

func (f *fake) logged() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

func (f *fake) attached() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.vectors)
}

func (f *fake) TriggerVector(index, vector int) { f.log("trigger %d/%d", index, vector) }

func (f *fake) MaskVector(index, vector int, masked bool) {
	f.log("mask %d/%d %v", index, vector, masked)
}

func (f *fake) MapDMA(addr iova.Addr, size uint64, prot iova.Prot, mem iova.Memory) error {
	return f.table.Map(addr, size, prot, mem)
}

func (f *fake) UnmapDMA(addr iova.Addr, size uint64) error { return f.table.Unmap(addr, size) }

func (f *fake) UnmapAllDMA() { f.table.UnmapAll() }

func (f *fake) Reset() error {
	f.log("reset")
	return nil
}

func (f *fake) Detach() { f.log("detach") }

// memfd returns a file in memory that is closed at the end of the test.
func memfd(t testing.TB, size int64) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate(memfdName, unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), memfdName)
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

const memfdName = "vfiouser-test"

// serve starts a server for b on one end of a socket pair and returns the other
// end. The connection has ended when the test ends.
func serve(t testing.TB, cfg Config, b Backend) *net.UnixConn {
	t.Helper()
	return serveOn(t, NewServer(cfg, b))
}

func serveOn(t testing.TB, s *Server) *net.UnixConn {
	t.Helper()
	near, far, err := uds.Pair()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.ServeConn(ctx, near) // how it ends is the test's doing
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Error("the server does not end when its context does")
		}
	})
	return far
}

// attach is serve with a Client on the other end.
func attach(t testing.TB, cfg Config, b Backend) *Client {
	t.Helper()
	c, err := NewClient(serve(t, cfg, b))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// eventually waits up to a few seconds for cond.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 5 s", what)
		}
	}
}

// descriptors returns the number of open descriptors of this process that refer
// to what the tests pass to the server: memfds and eventfds.
func descriptors(t testing.TB) int {
	t.Helper()
	return openFiles(t, memfdName) + openFiles(t, "[eventfd]")
}

// openFiles returns the number of open descriptors whose name contains name.
func openFiles(t testing.TB, name string) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && strings.Contains(target, name) {
			n++
		}
	}
	return n
}

// mappings returns the number of this process's mappings of the tests' memfds.
func mappings(t testing.TB) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(maps), "memfd:"+memfdName)
}
