// SPDX-License-Identifier: Apache-2.0

package iova

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sync/atomic"
)

const (
	// MinLogPage and MaxLogPage bound the page size of a log.
	MinLogPage = 4 << 10
	MaxLogPage = 1 << 30

	// MaxLogRanges bounds the ranges of a log; Linux takes as many.
	MaxLogRanges = 256

	// A log is made of chunks of chunkPages bits, 4 KiB each: 128 MiB of address
	// space with pages of 4 KiB. maxChunks of them, 64 MiB, are the most that a
	// log takes; they cover 2 TiB that was written to.
	chunkPages = chunkWords * 64
	chunkWords = 512
	maxChunks  = 1 << (slotBits - 1)
	slotBits   = 15
)

// ErrLog is wrapped by what StartLog and ReportDirty refuse.
var ErrLog = errors.New("iova: log of written pages")

// Range is a range of bus addresses: Size bytes from Addr on.
type Range struct {
	Addr Addr
	Size uint64
}

// dirtyLog remembers which pages were written. Marking takes no lock: chunks are
// found in a hash table that only grows, and their bits are set atomically.
type dirtyLog struct {
	shift  uint    // log2 of the page size
	ranges []span  // what is logged, in order and apart; none: everything
	wish   []Range // as they were asked for

	slots [1 << slotBits]atomic.Pointer[dirtyChunk] // by number, open addressing
	n     atomic.Int32                              // chunks in slots, or about to be
	full  atomic.Bool                               // out of chunks: every page counts as written
}

// span is a range with inclusive ends.
type span struct{ first, last Addr }

type dirtyChunk struct {
	number uint64 // of its first page, divided by chunkPages
	words  [chunkWords]atomic.Uint64
}

// StartLog begins to log the pages that are written, in ranges or, without any,
// everywhere. It returns the size of a page, which is pageSize, a power of two,
// within MinLogPage and MaxLogPage. A write that ends after StartLog has returned is
// logged. The log is kept by address: Map and Unmap do not change it. To start a log
// again as it is does nothing; to start another one is refused.
func (t *Table) StartLog(pageSize uint64, ranges []Range) (uint64, error) {
	if bits.OnesCount64(pageSize) != 1 {
		return 0, fmt.Errorf("%w: a page size of %d; give a power of two", ErrLog, pageSize)
	}
	if len(ranges) > MaxLogRanges {
		return 0, fmt.Errorf("%w: %d ranges; give at most %d, or none for everything", ErrLog, len(ranges), MaxLogRanges)
	}
	pageSize = min(max(pageSize, MinLogPage), MaxLogPage)
	l := &dirtyLog{shift: uint(bits.TrailingZeros64(pageSize)), wish: slices.Clone(ranges)}
	for _, r := range ranges {
		last, err := lastOf(r.Addr, r.Size)
		if err != nil {
			return 0, fmt.Errorf("%w: %w", ErrLog, err)
		}
		l.ranges = append(l.ranges, span{r.Addr, last})
	}
	slices.SortFunc(l.ranges, func(a, b span) int {
		if a.first < b.first {
			return -1
		}
		return 1
	})
	for i := 1; i < len(l.ranges); i++ {
		if a, b := l.ranges[i-1], l.ranges[i]; b.first <= a.last {
			return 0, fmt.Errorf("%w: [%v, %v] overlaps [%v, %v]; give ranges that are apart", ErrLog, a.first, a.last, b.first, b.last)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.log.Load(); old != nil {
		if old.shift == l.shift && slices.Equal(old.wish, l.wish) {
			return pageSize, nil
		}
		return 0, fmt.Errorf("%w: one with pages of %d bytes runs already; stop it first", ErrLog, uint64(1)<<old.shift)
	}
	t.log.Store(l)
	return pageSize, nil
}

// StopLog ends the log and forgets it. Without a log it does nothing.
func (t *Table) StopLog() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log.Store(nil)
}

// Logging reports whether written pages are logged.
func (t *Table) Logging() bool { return t.log.Load() != nil }

// BitmapSize returns the bytes of a bitmap for size bytes in pages of pageSize, a
// power of two: whole words of 64 bits. Nothing needs more than 2⁶¹.
func BitmapSize(size, pageSize uint64) uint64 {
	if size == 0 {
		return 0
	}
	return ((size-1)/pageSize/64 + 1) * 8
}

// ReportDirty sets in bitmap the bit of each page of pageSize bytes, counted from
// addr on, of [addr, addr+size) that holds a byte of a page in the log, and
// takes what lies in the range out of the log. bitmap has BitmapSize bytes or more,
// words of 64 bits in host order. A page in the log that is only partly in the range is
// reported and stays. Writes that end meanwhile are in this report or in the next.
func (t *Table) ReportDirty(addr Addr, size, pageSize uint64, bitmap []byte) error {
	last, err := lastOf(addr, size)
	if err != nil {
		return err
	}
	if bits.OnesCount64(pageSize) != 1 || BitmapSize(size, pageSize) > uint64(len(bitmap)) {
		return fmt.Errorf("%w: a bitmap of %d bytes with pages of %d for %#x bytes; the page size is a power of two, and %d pages need 8 bytes", ErrLog, len(bitmap), pageSize, size, 64)
	}
	l := t.log.Load()
	if l == nil {
		return fmt.Errorf("%w: none runs; start it first", ErrLog)
	}
	pageShift := uint(bits.TrailingZeros64(pageSize))
	report := func(first, end Addr) { // inclusive, inside the range
		setBits(bitmap, uint64(first-addr)>>pageShift, uint64(end-addr)>>pageShift)
	}
	if l.full.Load() {
		report(addr, last)
		return nil
	}
	// The first and last page may be partly outside, and then stay.
	pages := span{addr >> l.shift, last >> l.shift}
	whole := Addr(1)<<l.shift - 1
	keepFirst, keepLast := addr&whole != 0, last&whole != whole
	for i := range l.slots {
		c := l.slots[i].Load()
		if c == nil {
			continue
		}
		base := Addr(c.number * chunkPages)
		if base > pages.last || base+(chunkPages-1) < pages.first {
			continue
		}
		for w := range c.words {
			if c.words[w].Load() == 0 {
				continue
			}
			at := base + Addr(64*w)
			if at > pages.last || at+63 < pages.first {
				continue
			}
			in := ^uint64(0)
			if pages.first > at {
				in &= ^uint64(0) << (pages.first - at)
			}
			if pages.last < at+63 {
				in &= ^uint64(0) >> (at + 63 - pages.last)
			}
			take := in
			if keepFirst && pages.first >= at {
				take &^= 1 << (pages.first - at)
			}
			if keepLast && pages.last <= at+63 {
				take &^= 1 << (pages.last - at)
			}
			for dirty := c.words[w].And(^take) & in; dirty != 0; dirty &= dirty - 1 {
				first := (at + Addr(bits.TrailingZeros64(dirty))) << l.shift
				report(max(first, addr), min(first|whole, last))
			}
		}
	}
	return nil
}

// setBits sets bits first to last of a bitmap of 64-bit words in host order.
func setBits(bitmap []byte, first, last uint64) {
	for w := first / 64; w <= last/64; w++ {
		mask := ^uint64(0)
		if w == first/64 {
			mask &= ^uint64(0) << (first % 64)
		}
		if w == last/64 {
			mask &= ^uint64(0) >> (63 - last%64)
		}
		b := bitmap[8*w : 8*w+8]
		binary.NativeEndian.PutUint64(b, binary.NativeEndian.Uint64(b)|mask)
	}
}

// mark logs a write of n bytes at addr.
func (l *dirtyLog) mark(addr Addr, n int) {
	last := addr + Addr(n-1)
	if l.ranges == nil {
		l.markSpan(addr, last)
		return
	}
	i, _ := slices.BinarySearchFunc(l.ranges, addr, func(s span, a Addr) int {
		if s.last < a {
			return -1
		}
		return 1
	})
	for ; i < len(l.ranges) && l.ranges[i].first <= last; i++ {
		l.markSpan(max(addr, l.ranges[i].first), min(last, l.ranges[i].last))
	}
}

func (l *dirtyLog) markSpan(first, last Addr) {
	page, end := uint64(first)>>l.shift, uint64(last)>>l.shift
	for {
		c := l.chunk(page / chunkPages)
		if c == nil {
			return
		}
		stop := min(end, page|(chunkPages-1)) // last page in this chunk
		for page <= stop {
			wordEnd := min(stop, page|63)
			mask := ^uint64(0) << (page % 64) & (^uint64(0) >> (63 - wordEnd%64))
			if w := &c.words[page%chunkPages/64]; w.Load()&mask != mask {
				w.Or(mask)
			}
			page = wordEnd + 1
		}
		if stop == end {
			return
		}
	}
}

// chunk returns the chunk with a number, or nil if there are no more: then the log
// is full.
func (l *dirtyLog) chunk(number uint64) *dirtyChunk {
	var fresh *dirtyChunk
	// Multiplication spreads neighbours; the table is never more than half full.
	for i := number * 0x9e3779b97f4a7c15 >> (64 - slotBits); ; i = (i + 1) % (1 << slotBits) {
		c := l.slots[i].Load()
		if c == nil {
			if fresh == nil {
				if l.n.Add(1) > maxChunks {
					l.n.Add(-1)
					l.full.Store(true)
					return nil
				}
				fresh = &dirtyChunk{number: number}
			}
			if l.slots[i].CompareAndSwap(nil, fresh) {
				return fresh
			}
			c = l.slots[i].Load() // somebody was faster
		}
		if c.number == number {
			if fresh != nil {
				l.n.Add(-1)
			}
			return c
		}
	}
}
