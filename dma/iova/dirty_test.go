// SPDX-License-Identifier: Apache-2.0

package iova

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// report returns the numbers of the reported pages.
func report(t testing.TB, tab *Table, addr Addr, size, pageSize uint64) (pages []uint64) {
	t.Helper()
	bitmap := make([]byte, BitmapSize(size, pageSize))
	if err := tab.ReportDirty(addr, size, pageSize, bitmap); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(len(bitmap) * 8) {
		if binary.NativeEndian.Uint64(bitmap[i/64*8:])>>(i%64)&1 != 0 {
			pages = append(pages, i)
		}
	}
	return pages
}

func equal(a, b []uint64) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

const page = MinLogPage

// logged returns a table with size bytes at addr, and a log of everything.
func logged(t testing.TB, addr Addr, size int, pageSize uint64, ranges ...Range) *Table {
	t.Helper()
	tab := new(Table)
	if err := tab.Map(addr, uint64(size), Read|Write, NewBytes(make([]byte, size))); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.StartLog(pageSize, ranges); err != nil {
		t.Fatal(err)
	}
	return tab
}

// The cases that libvfio-user tests: edges of bytes and words, and reports in smaller
// and larger pages than those of the log.
func TestReportDirty(t *testing.T) {
	const base = 0x10 * page
	type write struct{ page, n uint64 }
	for _, tt := range []struct {
		name     string
		writes   []write
		size     uint64 // of the report, in pages of the log
		pageSize uint64
		want     []uint64
	}{
		{"nothing", nil, 32, page, nil},
		{"first page", []write{{0, 1}}, 32, page, []uint64{0}},
		{"last page of a byte", []write{{7, 1}}, 32, page, []uint64{7}},
		{"across a byte", []write{{7, 2}}, 32, page, []uint64{7, 8}},
		{"across a word", []write{{62, 4}}, 128, page, []uint64{62, 63, 64, 65}},
		{"beyond the report", []write{{31, 2}}, 32, page, []uint64{31}},
		{"half pages", []write{{0, 1}, {6, 1}}, 16, page / 2, []uint64{0, 1, 12, 13}},
		{"double pages", []write{{0, 1}, {6, 4}}, 16, 2 * page, []uint64{0, 3, 4}},
		{"one page for all", []write{{9, 1}}, 16, 16 * page, []uint64{0}},
		{"one page larger than all", []write{{9, 1}}, 16, 1 << 40, []uint64{0}},
		{"across a chunk", []write{{chunkPages - 0x11, 2}}, chunkPages, page, []uint64{chunkPages - 0x11, chunkPages - 0x10}},
	} {
		tab := logged(t, base, (chunkPages+16)*page, page)
		for _, w := range tt.writes {
			if err := tab.Write(base+Addr(w.page*page), make([]byte, w.n*page)); err != nil {
				t.Fatal(err)
			}
		}
		if got := report(t, tab, base, tt.size*page, tt.pageSize); !equal(got, tt.want) {
			t.Errorf("%s: pages %v, want %v", tt.name, got, tt.want)
		}
		if got := report(t, tab, base, tt.size*page, tt.pageSize); got != nil {
			t.Errorf("%s: pages %v are reported twice", tt.name, got)
		}
	}
}

// One byte dirties its page, across mappings too; reads, writes that were not
// permitted and writes to nothing do not.
func TestWhatIsDirty(t *testing.T) {
	tab := logged(t, 0, 4*page, page)
	if err := tab.Map(4*page, 4*page, Read, NewBytes(make([]byte, 4*page))); err != nil {
		t.Fatal(err)
	}
	if err := tab.Map(8*page, 4*page, Write, NewBytes(make([]byte, page))); err != nil { // its memory is shorter
		t.Fatal(err)
	}
	var fault *Fault
	for _, access := range []struct {
		what string
		err  error
		want Reason
	}{
		{"one byte", tab.Write(page+7, []byte{1}), 0},
		{"two bytes across pages", tab.Write(3*page-1, []byte{1, 2}), 0},
		{"a read", tab.Read(0, make([]byte, 4*page)), 0},
		{"a write that is not permitted", tab.Write(4*page, []byte{1}), NotPermitted},
		{"a write to nothing", tab.Write(20*page, []byte{1}), Unmapped},
		{"a write that fails, perhaps after a part", tab.Write(10*page, make([]byte, 2*page)), Failed},
	} {
		if (access.err == nil) != (access.want == 0) || access.want != 0 && (!errors.As(access.err, &fault) || fault.Reason != access.want) {
			t.Errorf("%s: %v, want %v", access.what, access.err, access.want)
		}
	}
	want := []uint64{1, 2, 3, 10, 11}
	if got := report(t, tab, 0, 64*page, page); !equal(got, want) {
		t.Errorf("pages %v, want %v", got, want)
	}
}

// The log goes by address: what was written stays in it when its mapping is gone.
func TestLogOutlivesMapping(t *testing.T) {
	tab := logged(t, 0, 4*page, page)
	if err := tab.Write(2*page, []byte{1}); err != nil {
		t.Fatal(err)
	}
	tab.UnmapAll()
	if got := report(t, tab, 0, 4*page, page); !equal(got, []uint64{2}) {
		t.Errorf("pages %v, want 2", got)
	}
}

// A page of the log that a report only touches is reported, and again to those who
// ask for the rest.
func TestReportOfPartOfPage(t *testing.T) {
	const large = 1 << 20
	tab := logged(t, 0, 4*large, large)
	if err := tab.Write(large, make([]byte, 2*large)); err != nil { // pages 1 and 2
		t.Fatal(err)
	}
	half := uint64(large / page / 2)
	if got := report(t, tab, large+large/2, large, page); uint64(len(got)) != 2*half {
		t.Errorf("%d pages in the middle, want %d", len(got), 2*half)
	}
	if got := report(t, tab, 0, 4*large, large); !equal(got, []uint64{1, 2}) {
		t.Errorf("pages %v afterwards, want 1 and 2", got)
	}
	if got := report(t, tab, 0, 4*large, large); got != nil {
		t.Errorf("pages %v at last, want none", got)
	}
}

func TestLogRanges(t *testing.T) {
	tab := logged(t, 0, 16*page, page, Range{8 * page, 2 * page}, Range{2 * page, 3 * page}, Range{12*page + 100, 8})
	if err := tab.Write(0, make([]byte, 16*page)); err != nil {
		t.Fatal(err)
	}
	if got := report(t, tab, 0, 16*page, page); !equal(got, []uint64{2, 3, 4, 8, 9, 12}) {
		t.Errorf("pages %v", got)
	}
}

// The end of the address space is an address like any other.
func TestLogAtTheEnd(t *testing.T) {
	tab := logged(t, ^Addr(0)-2*page+1, 2*page, page)
	if err := tab.Write(^Addr(0), []byte{1}); err != nil {
		t.Fatal(err)
	}
	if got := report(t, tab, ^Addr(0)-2*page+1, 2*page, page); !equal(got, []uint64{1}) {
		t.Errorf("pages %v, want 1", got)
	}
	if got := report(t, tab, 1, ^uint64(0), 1<<63); got != nil {
		t.Errorf("pages %v, want none", got)
	}
}

func TestLogRefusals(t *testing.T) {
	start := func(pageSize uint64, ranges ...Range) error {
		_, err := new(Table).StartLog(pageSize, ranges)
		return err
	}
	again := logged(t, 0, page, page, Range{0, page})
	_, same := again.StartLog(page, []Range{{0, page}})
	_, size := again.StartLog(2*page, []Range{{0, page}})
	_, ranges := again.StartLog(page, nil)
	if same != nil {
		t.Errorf("the same log again: %v", same)
	}
	off := new(Table)
	off.StopLog()
	for _, tt := range []struct {
		name string
		err  error
	}{
		{"page size 0", start(0)},
		{"page size 4095", start(4095)},
		{"empty range", start(page, Range{0, 0})},
		{"range beyond the end", start(page, Range{^Addr(0), 2})},
		{"overlap", start(page, Range{0, page + 1}, Range{page, 1})},
		{"the same range twice", start(page, Range{0, page}, Range{0, page})},
		{"too many ranges", start(page, make([]Range, MaxLogRanges+1)...)},
		{"another page size while one runs", size},
		{"other ranges while one runs", ranges},
		{"report without a log", off.ReportDirty(0, page, page, make([]byte, 8))},
		{"report with page size 0", again.ReportDirty(0, page, 0, make([]byte, 8))},
		{"report into too small a bitmap", again.ReportDirty(0, 65*page, page, make([]byte, 8))},
	} {
		if !errors.Is(tt.err, ErrLog) {
			t.Errorf("%s: %v, want ErrLog", tt.name, tt.err)
		}
	}
	if err := again.ReportDirty(0, 0, page, nil); !errors.Is(err, ErrRange) {
		t.Errorf("report of nothing: %v, want ErrRange", err)
	}
	for in, want := range map[uint64]uint64{1: MinLogPage, 2048: MinLogPage, 8192: 8192, 1 << 40: MaxLogPage} {
		if got, err := new(Table).StartLog(in, nil); got != want || err != nil {
			t.Errorf("page size %d becomes %d, %v, want %d", in, got, err, want)
		}
	}
}

// endless is memory of any size.
type endless struct{}

func (endless) ReadAt([]byte, uint64) error  { return nil }
func (endless) WriteAt([]byte, uint64) error { return nil }
func (endless) Close()                       {}

// A device that writes everywhere does not make the log grow beyond its bound; the
// report then says that everything may have changed.
func TestLogIsBounded(t *testing.T) {
	var tab Table
	if err := tab.Map(0, 1<<62, Write, endless{}); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.StartLog(page, nil); err != nil {
		t.Fatal(err)
	}
	const step = chunkPages * page
	for i := range Addr(maxChunks) {
		if err := tab.Write(i*step, []byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	if got := report(t, &tab, 0, 64*page, page); !equal(got, []uint64{0}) {
		t.Errorf("before the bound: pages %v, want 0", got)
	}
	for i := range Addr(100) {
		if err := tab.Write((maxChunks+i)*step, []byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	if n := tab.log.Load().n.Load(); n > maxChunks {
		t.Errorf("%d chunks, want at most %d", n, maxChunks)
	}
	for range 2 {
		if got := report(t, &tab, 8*page, 64*page, page); len(got) != 64 {
			t.Errorf("beyond the bound: %d pages of 64", len(got))
		}
	}
}

// Writers race with reports, and an Unmap in the end: no write is lost.
func TestNoWriteIsLost(t *testing.T) {
	const pages = 3 * chunkPages
	tab := new(Table)
	if err := tab.Map(0, pages*page, Read|Write, endless{}); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.StartLog(page, nil); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var wrote [4][]uint64
	stop := time.Now().Add(200 * time.Millisecond)
	for g := range wrote {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rnd := rand.New(rand.NewPCG(uint64(g), 1))
			for time.Now().Before(stop) {
				p := rnd.Uint64N(pages)
				if tab.Write(Addr(p*page), []byte{1}) != nil {
					return // unmapped
				}
				wrote[g] = append(wrote[g], p)
			}
		}()
	}
	seen := make(map[uint64]bool)
	for time.Now().Before(stop.Add(-20 * time.Millisecond)) {
		for _, p := range report(t, tab, 0, pages*page, page) {
			seen[p] = true
		}
	}
	if err := tab.Unmap(0, pages*page); err != nil {
		t.Fatal(err)
	}
	for _, p := range report(t, tab, 0, pages*page, page) {
		seen[p] = true
	}
	wg.Wait()
	n := 0
	for _, ps := range wrote {
		n += len(ps)
		for _, p := range ps {
			if !seen[p] {
				t.Fatalf("page %d was written and never reported", p)
			}
		}
	}
	if n == 0 {
		t.Error("nothing was written")
	}
}

// FuzzDirty compares the log with a set of bytes: any writes and reports, in any page
// sizes.
func FuzzDirty(f *testing.F) {
	f.Add(uint8(0), []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Add(uint8(3), []byte{0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0xff, 0xff, 2})
	f.Fuzz(func(t *testing.T, shift uint8, ops []byte) {
		const size = 1 << 24
		logPage := uint64(page) << (shift % 6)
		tab := new(Table)
		if err := tab.Map(0, size, Write, endless{}); err != nil {
			t.Fatal(err)
		}
		if _, err := tab.StartLog(logPage, nil); err != nil {
			t.Fatal(err)
		}
		dirty := make(map[uint64]bool) // pages of the log
		for ; len(ops) >= 7; ops = ops[7:] {
			at := uint64(ops[1])<<16 | uint64(ops[2])<<8 | uint64(ops[3])
			n := min(uint64(ops[4])<<16|uint64(ops[5])<<8|uint64(ops[6])+1, size-at)
			if n == 0 {
				continue
			}
			if ops[0]%2 == 0 {
				if err := tab.Write(Addr(at), make([]byte, n)); err != nil {
					t.Fatal(err)
				}
				for p := at / logPage; p <= (at+n-1)/logPage; p++ {
					dirty[p] = true
				}
				continue
			}
			pageSize := uint64(512) << (ops[0] / 2 % 12)
			want := make(map[uint64]bool)
			for p := range dirty {
				first, last := max(p*logPage, at), min(p*logPage+logPage, at+n)
				if first >= last {
					continue
				}
				for q := (first - at) / pageSize; q <= (last-1-at)/pageSize; q++ {
					want[q] = true
				}
				if p*logPage >= at && p*logPage+logPage <= at+n {
					delete(dirty, p)
				}
			}
			got := report(t, tab, Addr(at), n, pageSize)
			for _, p := range got {
				if !want[p] {
					t.Fatalf("page %d of %d bytes from %#x on is reported, but was not written", p, pageSize, at)
				}
			}
			if len(got) != len(want) {
				t.Fatalf("%d pages of %d bytes from %#x on are reported, want %d", len(got), pageSize, at, len(want))
			}
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	for name, on := range map[string]bool{"log off": false, "log on": true} {
		b.Run(name, func(b *testing.B) {
			var tab Table
			if err := tab.Map(0, 1<<30, Write, endless{}); err != nil {
				b.Fatal(err)
			}
			if on {
				if _, err := tab.StartLog(page, nil); err != nil {
					b.Fatal(err)
				}
			}
			p := make([]byte, 64)
			b.ReportAllocs()
			for b.Loop() {
				if err := tab.Write(0x12345, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
