// SPDX-License-Identifier: Apache-2.0

package iova

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// probe is a Memory that counts and can be made to fail or to wait.
type probe struct {
	*Bytes
	err    error
	gate   chan struct{} // an access waits for it, if not nil
	inside atomic.Int32
	closed atomic.Int32
}

func newProbe(n int) *probe { return &probe{Bytes: NewBytes(make([]byte, n))} }

func (m *probe) ReadAt(p []byte, off uint64) error {
	m.inside.Add(1)
	defer m.inside.Add(-1)
	if m.gate != nil {
		<-m.gate
	}
	if m.err != nil {
		return m.err
	}
	return m.Bytes.ReadAt(p, off)
}

func (m *probe) Close() {
	if m.inside.Load() != 0 {
		panic("closed during an access")
	}
	m.closed.Add(1)
}

const top = ^Addr(0)

func TestMapRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		addr Addr
		size uint64
		want error
	}{
		{name: "empty", addr: 0x5000, size: 0, want: ErrRange},
		{name: "beyond the address space", addr: top, size: 2, want: ErrRange},
		{name: "to the very end, over it", addr: 1, size: ^uint64(0), want: ErrOverlap},
		{name: "last byte", addr: top, size: 1, want: nil},
		{name: "same", addr: 0x1000, size: 0x1000, want: ErrOverlap},
		{name: "over the head", addr: 0xfff, size: 2, want: ErrOverlap},
		{name: "over the tail", addr: 0x1fff, size: 2, want: ErrOverlap},
		{name: "inside", addr: 0x1800, size: 1, want: ErrOverlap},
		{name: "around", addr: 0, size: 0x10000, want: ErrOverlap},
		{name: "just below", addr: 0xfff, size: 1, want: nil},
		{name: "just above", addr: 0x2000, size: 1, want: nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var tab Table
			if err := tab.Map(0x1000, 0x1000, Read, newProbe(0x1000)); err != nil {
				t.Fatal(err)
			}
			if err := tab.Map(tt.addr, tt.size, Read, newProbe(1)); !errors.Is(err, tt.want) {
				t.Errorf("Map(%v, %#x) = %v, want %v", tt.addr, tt.size, err, tt.want)
			}
		})
	}
}

func TestLimit(t *testing.T) {
	var tab Table
	m := NewBytes(make([]byte, 4096))
	if err := tab.Map(0, 4096, Read, m); err != nil {
		t.Fatal(err)
	}
	for i := Addr(1); i < MaxMappings; i++ { // as Map does, in a tenth of the time
		tab.master.Load(i<<12, &mapping{first: i << 12, last: i<<12 | 4095, prot: Read, mem: m})
	}
	if err := tab.Map(MaxMappings<<12, 4096, Read, m); !errors.Is(err, ErrLimit) {
		t.Errorf("one too many: %v, want %v", err, ErrLimit)
	}
	if err := tab.Unmap(1<<12, 4096); err != nil {
		t.Fatal(err)
	}
	if err := tab.Map(MaxMappings<<12, 4096, Read, m); err != nil {
		t.Errorf("after one was unmapped: %v", err)
	}
	if n := tab.Len(); n != MaxMappings {
		t.Errorf("%d mappings, want %d", n, MaxMappings)
	}
	tab.UnmapAll()
	if n := tab.Len(); n != 0 {
		t.Errorf("%d mappings after UnmapAll", n)
	}
}

func TestUnmap(t *testing.T) {
	for _, tt := range []struct {
		name string
		addr Addr
		size uint64
		err  error
		left int // of [0x1000,0x2000) [0x2000,0x3000) [0x8000,0x9000)
	}{
		{name: "one exactly", addr: 0x2000, size: 0x1000, left: 2},
		{name: "two at once", addr: 0x1000, size: 0x2000, left: 1},
		{name: "all of them", addr: 0, size: 1 << 47, left: 0},
		{name: "whole space but a byte", addr: 0, size: ^uint64(0), left: 0},
		{name: "nothing there", addr: 0x4000, size: 0x4000, left: 3},
		{name: "nothing above", addr: 0x10000, size: 1 << 40, left: 3},
		{name: "cut at the head", addr: 0x1800, size: 0x1800, err: ErrOverlap, left: 3},
		{name: "cut at the tail", addr: 0, size: 0x1800, err: ErrOverlap, left: 3},
		{name: "inside one", addr: 0x8400, size: 1, err: ErrOverlap, left: 3},
		{name: "empty", addr: 0x1000, size: 0, err: ErrRange, left: 3},
		{name: "beyond", addr: top - 1, size: 3, err: ErrRange, left: 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var tab Table
			mem := []*probe{newProbe(0x1000), newProbe(0x1000), newProbe(0x1000)}
			for i, a := range []Addr{0x1000, 0x2000, 0x8000} {
				if err := tab.Map(a, 0x1000, Read, mem[i]); err != nil {
					t.Fatal(err)
				}
			}
			if err := tab.Unmap(tt.addr, tt.size); !errors.Is(err, tt.err) {
				t.Errorf("Unmap = %v, want %v", err, tt.err)
			}
			if got := tab.Len(); got != tt.left {
				t.Errorf("%d mappings left, want %d", got, tt.left)
			}
			closed := 0
			for _, m := range mem {
				closed += int(m.closed.Load())
			}
			if closed != 3-tt.left {
				t.Errorf("%d memories closed, want %d", closed, 3-tt.left)
			}
		})
	}
	var empty Table
	if err := empty.Unmap(0, 1<<20); err != nil {
		t.Errorf("Unmap of an empty table: %v", err)
	}
	empty.UnmapAll()
}

func TestAccess(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name   string
		addr   Addr
		n      int
		access Prot
		want   *Fault // nil: it works
	}{
		{name: "read inside", addr: 0x1010, n: 16, access: Read},
		{name: "read to the last byte", addr: 0x1ff0, n: 16, access: Read},
		{name: "read across adjacent mappings", addr: 0x1ff0, n: 32, access: Read},
		{name: "write", addr: 0x1000, n: 4096, access: Write},
		{name: "nothing", addr: 0, n: 0, access: Read},
		{name: "last byte of the space", addr: top, n: 1, access: Read},
		{name: "over the end of the space", addr: top, n: 2, access: Read, want: &Fault{Addr: top, Size: 1, Access: Read, Reason: Unmapped}},
		{name: "below all", addr: 0xfff, n: 2, access: Read, want: &Fault{Addr: 0xfff, Size: 2, Access: Read, Reason: Unmapped}},
		{name: "into a hole", addr: 0x2ff0, n: 32, access: Read, want: &Fault{Addr: 0x3000, Size: 16, Access: Read, Reason: Unmapped}},
		{name: "write where only reads are", addr: 0x1ff0, n: 32, access: Write, want: &Fault{Addr: 0x2000, Size: 16, Access: Write, Reason: NotPermitted}},
		{name: "read where only writes are", addr: 0x5000, n: 8, access: Read, want: &Fault{Addr: 0x5000, Size: 8, Access: Read, Reason: NotPermitted}},
		{name: "memory fails", addr: 0x6000, n: 8, access: Read, want: &Fault{Addr: 0x6000, Size: 8, Access: Read, Reason: Failed, Err: broken}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var tab Table
			for _, m := range []struct {
				addr Addr
				size int
				prot Prot
				err  error
			}{
				{0x1000, 0x1000, Read | Write, nil},
				{0x2000, 0x1000, Read, nil},
				{0x5000, 0x1000, Write, nil},
				{0x6000, 0x1000, Read, broken},
				{0, 8, Read, nil},
				{top, 1, Read, nil},
			} {
				mem := newProbe(m.size)
				mem.err = m.err
				if err := tab.Map(m.addr, uint64(m.size), m.prot, mem); err != nil {
					t.Fatal(err)
				}
			}
			p := make([]byte, tt.n)
			var err error
			if tt.access == Read {
				err = tab.Read(tt.addr, p)
			} else {
				err = tab.Write(tt.addr, p)
			}
			var got *Fault
			if err != nil && !errors.As(err, &got) {
				t.Fatalf("error %v is not a *Fault", err)
			}
			if (tt.want == nil) != (got == nil) || got != nil && *got != *tt.want {
				t.Errorf("fault = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestDataAcrossMappings(t *testing.T) {
	var tab Table
	back := make([][]byte, 3)
	for i := range back {
		back[i] = make([]byte, 0x1000)
		if err := tab.Map(Addr(i)*0x1000, 0x1000, Read|Write, NewBytes(back[i])); err != nil {
			t.Fatal(err)
		}
	}
	want := make([]byte, 0x2000)
	for i := range want {
		want[i] = byte(i * 7)
	}
	if err := tab.Write(0x800, want); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(bytes.Join(back, nil)[0x800:0x2800], want) {
		t.Error("the bytes are not where they were written")
	}
	got := make([]byte, len(want))
	if err := tab.Read(0x800, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("read gives other bytes than were written")
	}
}

func TestBytesRefusesOutside(t *testing.T) {
	m := NewBytes(make([]byte, 8))
	for _, off := range []uint64{1, 8, 9, ^uint64(0)} {
		if m.ReadAt(make([]byte, 8), off) == nil || m.WriteAt(make([]byte, 8), off) == nil {
			t.Errorf("8 bytes at %#x of 8 were moved", off)
		}
	}
}

// Unmap must not return while an access is inside the memory, and must not hold
// up others meanwhile.
func TestUnmapWaitsForAccess(t *testing.T) {
	var tab Table
	slow := newProbe(0x1000)
	slow.gate = make(chan struct{})
	if err := tab.Map(0, 0x1000, Read, slow); err != nil {
		t.Fatal(err)
	}
	read := make(chan error)
	go func() { read <- tab.Read(0, make([]byte, 16)) }()
	for slow.inside.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	unmapped := make(chan error)
	go func() { unmapped <- tab.Unmap(0, 0x1000) }()
	for tab.Len() != 0 {
		time.Sleep(time.Millisecond)
	}
	// Neither the reader inside nor the one who waits keeps the table.
	if err := tab.Map(0x5000, 0x1000, Read, newProbe(0x1000)); err != nil {
		t.Fatal(err)
	}
	if err := tab.Read(0x5000, make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	var fault *Fault
	if err := tab.Read(0, make([]byte, 1)); !errors.As(err, &fault) || fault.Reason != Unmapped {
		t.Errorf("read of the removed range: %v", err)
	}
	select {
	case <-unmapped:
		t.Fatal("Unmap returned during an access")
	case <-time.After(20 * time.Millisecond):
	}
	close(slow.gate)
	if err := <-read; err != nil {
		t.Errorf("the access that was under way: %v", err)
	}
	if err := <-unmapped; err != nil {
		t.Error(err)
	}
	if slow.closed.Load() != 1 {
		t.Error("the memory was not closed")
	}
}

// Readers, and writers that map and unmap, at once: an access either moves its
// bytes or faults as unmapped, and never touches closed memory (probe panics).
func TestHammer(t *testing.T) {
	var tab Table
	start := make(chan struct{})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rnd := rand.New(rand.NewPCG(1, uint64(g)))
			<-start
			for range 3000 {
				page := Addr(rnd.IntN(16)) << 12
				var err error
				switch rnd.IntN(4) {
				case 0:
					err = tab.Map(page, 0x1000, Read|Write, newProbe(0x1000))
					if errors.Is(err, ErrOverlap) {
						err = nil
					}
				case 1:
					err = tab.Unmap(page, 0x1000*uint64(1+rnd.IntN(3)))
				default:
					err = tab.Read(page+0x800, make([]byte, 0x1000))
					var fault *Fault
					if errors.As(err, &fault) && fault.Reason == Unmapped {
						err = nil
					}
				}
				if err != nil {
					t.Error(err)
				}
			}
		}()
	}
	close(start)
	wg.Wait()
	tab.UnmapAll()
}

func TestReadDoesNotAllocate(t *testing.T) {
	var tab Table
	for i := range 1000 {
		if err := tab.Map(Addr(i)<<12, 0x1000, Read, NewBytes(make([]byte, 0x1000))); err != nil {
			t.Fatal(err)
		}
	}
	p := make([]byte, 64)
	if n := testing.AllocsPerRun(100, func() {
		if err := tab.Read(0x123400, p); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per read, want 0", n)
	}
}

func BenchmarkMapUnmap(b *testing.B) {
	var tab Table
	m := NewBytes(make([]byte, 0x1000))
	for i := range 60000 {
		if err := tab.Map(Addr(i)<<12, 0x1000, Read, m); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := tab.Unmap(0x1234000, 0x1000); err != nil {
			b.Fatal(err)
		}
		if err := tab.Map(0x1234000, 0x1000, Read, m); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead64(b *testing.B) {
	var tab Table
	for i := range 60000 {
		if err := tab.Map(Addr(i)<<12, 0x1000, Read, NewBytes(make([]byte, 0x1000))); err != nil {
			b.Fatal(err)
		}
	}
	p := make([]byte, 64)
	b.SetBytes(64)
	for b.Loop() {
		if err := tab.Read(0x1234000, p); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzTable compares the table with a plain array of pages.
func FuzzTable(f *testing.F) {
	f.Add([]byte{0x00, 0x12, 0x41, 0x12, 0x80, 0x12})
	f.Fuzz(func(t *testing.T, ops []byte) {
		var tab Table
		var owner [32]int // by page: number of the mapping, 0 for none
		serial := 0
		for ; len(ops) >= 2; ops = ops[2:] {
			page, n := int(ops[1]&31), int(ops[0]&7)+1
			end := min(page+n, len(owner))
			addr, size := Addr(page)<<12, uint64(end-page)<<12
			switch ops[0] >> 6 {
			case 0, 1:
				free := true
				for _, o := range owner[page:end] {
					free = free && o == 0
				}
				err := tab.Map(addr, size, Read, NewBytes(make([]byte, size)))
				if (err == nil) != free {
					t.Fatalf("Map(%v, %#x) = %v with owners %v", addr, size, err, owner)
				}
				if err == nil {
					serial++
					for i := page; i < end; i++ {
						owner[i] = serial
					}
				}
			case 2:
				cut := page > 0 && owner[page] != 0 && owner[page-1] == owner[page] ||
					end < len(owner) && owner[end-1] != 0 && owner[end] == owner[end-1]
				err := tab.Unmap(addr, size)
				if (err != nil) != cut {
					t.Fatalf("Unmap(%v, %#x) = %v with owners %v", addr, size, err, owner)
				}
				if err == nil {
					clear(owner[page:end])
				}
			case 3:
				whole := true
				for _, o := range owner[page:end] {
					whole = whole && o != 0
				}
				if err := tab.Read(addr, make([]byte, size)); (err == nil) != whole {
					t.Fatalf("Read(%v, %#x) = %v with owners %v", addr, size, err, owner)
				}
			}
		}
	})
}

// BenchmarkPages is a guest behind an IOMMU that maps a buffer page by page, uses it and
// unmaps it, beside 256 MiB that stay mapped.
func BenchmarkPages(b *testing.B) {
	const buffer = 256 // pages
	var tab Table
	mem := NewBytes(make([]byte, page))
	for i := range Addr(65536) {
		if err := tab.Map(i*page, page, Read|Write, mem); err != nil {
			b.Fatal(err)
		}
	}
	p := make([]byte, buffer*page)
	for b.Loop() {
		at := Addr(1 << 32)
		for i := range Addr(buffer) {
			if err := tab.Map(at+i*page, page, Read|Write, mem); err != nil {
				b.Fatal(err)
			}
		}
		if err := tab.Read(at, p); err != nil {
			b.Fatal(err)
		}
		for i := range Addr(buffer) {
			if err := tab.Unmap(at+i*page, page); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*buffer), "ns/page")
}
