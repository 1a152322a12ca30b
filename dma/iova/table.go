// SPDX-License-Identifier: Apache-2.0

package iova

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/tidwall/btree"
)

const (
	// MaxMappings is how many ranges a Table holds. Behind an IOMMU with 4 KiB
	// pages that is 4 GiB mapped at once; at about 200 bytes each, files included,
	// 200 MiB of bookkeeping.
	MaxMappings = 1 << 20

	// Slice is the largest piece that one access moves while it keeps its
	// mapping alive: 1 MiB is about 0.1 ms of copying, which bounds how long
	// Unmap waits for copies, and one message where memory is reached by
	// messages of the default max_data_xfer_size.
	Slice = 1 << 20

	// degree of the ordered map: small nodes, because every Map and Unmap
	// copies the nodes on its path.
	degree = 8
)

// What Map and Unmap refuse.
var (
	// ErrOverlap: Map over an existing mapping, or Unmap of a part of one.
	ErrOverlap = errors.New("iova: range overlaps a mapping")
	// ErrLimit: MaxMappings ranges are mapped already.
	ErrLimit = errors.New("iova: too many mappings")
	// ErrRange: the range is empty or goes beyond the 64-bit address space.
	ErrRange = errors.New("iova: not an address range")
)

// Table maps ranges of bus addresses to Memory. The zero value is empty and
// ready to use. All methods are safe for concurrent use; the two functions are set
// before the first of them is called.
type Table struct {
	// Refused, if set, is told of every access that no mapping permitted, before the
	// access returns: on its goroutine, without a lock of the table. data is
	// what a write would have put at f.Addr, and nil for a read.
	Refused func(f *Fault, data []byte)
	// Tick, if set, counts something whose value is kept with each range that is
	// unmapped (Past.Tick). It is called with the table's lock held.
	Tick func() uint64

	recent atomic.Pointer[mapping] // the mapping found last; it may be dead

	mu     sync.Mutex                 // guards master and the order of publications
	master *btree.Map[Addr, *mapping] // by first address; nil when never used
	snap   atomic.Pointer[btree.Map[Addr, *mapping]]
	stale  atomic.Bool              // master has changed since snap; set with mu held
	log    atomic.Pointer[dirtyLog] // nil while written pages are not logged
	past   past                     // guarded by mu, but for its counter
}

// mapping is one mapped range. Its fields but dead never change.
type mapping struct {
	first, last Addr // inclusive, so that a range may end at 2⁶⁴
	prot        Prot
	mem         Memory

	mu   sync.RWMutex // held for reading by every access to mem
	dead bool         // guarded by mu: unmapped, mem must not be used
}

// lastOf returns the last address of a range.
func lastOf(addr Addr, size uint64) (Addr, error) {
	if size == 0 || size-1 > uint64(^addr) {
		return 0, fmt.Errorf("%w: %#x bytes at %v; a range has at least one byte and ends at or below 2^64", ErrRange, size, addr)
	}
	return addr + Addr(size-1), nil
}

// Map makes [addr, addr+size) reach mem, with offset 0 at addr. The table owns
// mem from then on, and closes it after the range was unmapped; when Map fails
// mem stays the caller's.
func (t *Table) Map(addr Addr, size uint64, prot Prot, mem Memory) error {
	last, err := lastOf(addr, size)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.master == nil {
		t.master = btree.NewMap[Addr, *mapping](degree)
	}
	if m := below(t.master, last); m != nil && m.last >= addr {
		return fmt.Errorf("%w: [%v, %v] over [%v, %v]; unmap that first", ErrOverlap, addr, last, m.first, m.last)
	}
	if t.master.Len() >= MaxMappings {
		return fmt.Errorf("%w: %d; unmap some, or map larger ranges", ErrLimit, MaxMappings)
	}
	t.master.Set(addr, &mapping{first: addr, last: last, prot: prot, mem: mem})
	t.stale.Store(true)
	return nil
}

// Unmap removes every mapping inside [addr, addr+size). Removing nothing is
// success. A mapping that lies only partly inside is ErrOverlap, and then
// nothing is removed. When Unmap returns, no access reaches the removed memory,
// and it was closed.
func (t *Table) Unmap(addr Addr, size uint64) error {
	last, err := lastOf(addr, size)
	if err != nil {
		return err
	}
	return t.remove(addr, last)
}

// UnmapAll removes every mapping, as Unmap of the whole address space would.
func (t *Table) UnmapAll() {
	if err := t.remove(0, ^Addr(0)); err != nil {
		panic("iova: BUG: a mapping outside the address space: " + err.Error())
	}
}

func (t *Table) remove(addr, last Addr) error {
	removed, err := t.takeOut(addr, last)
	for _, m := range removed {
		m.mu.Lock()
		m.dead = true
		m.mu.Unlock()
		m.mem.Close()
	}
	return err
}

// takeOut removes the mappings in [addr, last] from the map; accesses that found
// them in an older snapshot may still run.
func (t *Table) takeOut(addr, last Addr) (removed []*mapping, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.master == nil {
		return nil, nil
	}
	for _, edge := range []Addr{addr, last} {
		if m := below(t.master, edge); m != nil && m.last >= edge && (m.first < addr || m.last > last) {
			return nil, fmt.Errorf("%w: [%v, %v] cuts [%v, %v]; unmap whole mappings", ErrOverlap, addr, last, m.first, m.last)
		}
	}
	t.master.Ascend(addr, func(first Addr, m *mapping) bool {
		if first > last {
			return false
		}
		removed = append(removed, m)
		return true
	})
	if len(removed) == 0 {
		return nil, nil
	}
	if len(removed) == t.master.Len() {
		t.master.Clear()
		t.snap.Store(t.master.Copy()) // keeps nothing of what is gone
	} else {
		for _, m := range removed {
			t.master.Delete(m.first)
		}
		t.stale.Store(true)
	}
	t.rememberLocked(removed)
	return removed, nil
}

// below returns the mapping with the highest first address that is not above
// addr, or nil.
func below(tree *btree.Map[Addr, *mapping], addr Addr) (found *mapping) {
	tree.Descend(addr, func(_ Addr, m *mapping) bool {
		found = m
		return false
	})
	return found
}

// current returns the map as it is, which never changes, or nil. The first lookup after
// a change makes the copy, so that a run of changes costs one, however long.
func (t *Table) current() *btree.Map[Addr, *mapping] {
	if t.stale.Load() {
		t.mu.Lock()
		if t.stale.Load() {
			t.snap.Store(t.master.Copy())
			t.stale.Store(false)
		}
		t.mu.Unlock()
	}
	return t.snap.Load()
}

// Len returns the number of mappings.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.master == nil {
		return 0
	}
	return t.master.Len()
}

// Find returns the ends, both inclusive, of the mapping that holds addr, and what the
// device may do there.
func (t *Table) Find(addr Addr) (first, last Addr, prot Prot, ok bool) {
	m := t.floor(addr)
	if m == nil || m.last < addr {
		return 0, 0, 0, false
	}
	return m.first, m.last, m.prot, true
}

// Below returns the ends, both inclusive, of the last mapping that ends below addr, which
// is not mapped.
func (t *Table) Below(addr Addr) (first, last Addr, ok bool) {
	m := t.floor(addr)
	if m == nil || m.last >= addr {
		return 0, 0, false
	}
	return m.first, m.last, true
}

// floor returns the mapping with the highest first address that is not above addr, or nil.
func (t *Table) floor(addr Addr) *mapping {
	s := t.current()
	if s == nil {
		return nil
	}
	return below(s, addr)
}

// Read copies len(p) bytes at addr into p. The range may span adjacent mappings.
// An error is a *Fault; the bytes before its address were copied.
func (t *Table) Read(addr Addr, p []byte) error {
	return t.access(addr, p, Read)
}

// Write copies p to addr. The range may span adjacent mappings, which are
// written in order of address. An error is a *Fault; the bytes before its
// address were written.
func (t *Table) Write(addr Addr, p []byte) error {
	return t.access(addr, p, Write)
}

func (t *Table) access(addr Addr, p []byte, access Prot) error {
	for len(p) > 0 {
		m := t.acquire(addr)
		if m == nil {
			return t.refuse(&Fault{Addr: addr, Size: len(p), Access: access, Reason: Unmapped}, p)
		}
		n := len(p)
		if n > Slice {
			n = Slice
		}
		if room := uint64(m.last - addr); uint64(n-1) > room {
			n = int(room) + 1
		}
		f := m.access(addr, p[:n], access)
		if access == Write && m.prot&Write != 0 {
			// Marked after the write and before the mapping is let go: what a
			// report misses is in the next, and an Unmap that waited has it all.
			// A write that failed may have written a part.
			if l := t.log.Load(); l != nil {
				l.mark(addr, n)
			}
		}
		m.mu.RUnlock()
		if f != nil {
			return t.refuse(f, p)
		}
		p = p[n:]
		addr += Addr(n)
		if addr == 0 && len(p) > 0 { // beyond 2⁶⁴
			return &Fault{Addr: ^Addr(0), Size: len(p), Access: access, Reason: Unmapped}
		}
	}
	return nil
}

// A rowMemory is a Memory that moves rows at once: an access that moves a hundred bytes spends its time on coming and going.
type rowMemory interface {
	ReadRows(p []byte, step, size, rows int, off, stride uint64) error
	WriteRows(p []byte, step, size, rows int, off, stride uint64) error
}

// Rows copies rows rows of size bytes, stride bytes apart from addr on, to rows step bytes apart in p, or with Write from there,
// one after the other. It reports false, and may have copied some, if that is not a matter of one mapping that allows it and
// whose memory moves rows, or if it failed: Read or Write of each row says what is wrong.
func (t *Table) Rows(access Prot, addr Addr, stride uint64, p []byte, step, size, rows int) bool {
	if size > Slice || stride >= 1<<32 || rows >= 1<<31 { // their product is no sum that overflows
		return false
	}
	for rows > 0 {
		now := min(rows, Slice/size)
		if !t.someRows(access, addr, stride, p, step, size, now) {
			return false
		}
		if rows -= now; rows > 0 {
			addr, p = addr+Addr(uint64(now)*stride), p[now*step:]
		}
	}
	return true
}

// Direct returns the first address of the mapping that has all of size bytes at addr, if it permits all of access and moves rows:
// bytes at different addresses in it are different ones, and accesses have no effect but on bytes. size is not 0.
func (t *Table) Direct(access Prot, addr Addr, size uint64) (first Addr, ok bool) {
	m := t.acquire(addr)
	if m == nil {
		return 0, false
	}
	defer m.mu.RUnlock()
	_, ok = m.mem.(rowMemory)
	return m.first, ok && m.prot&access == access && size-1 <= uint64(m.last-addr)
}

// someRows is Rows for at most Slice bytes.
func (t *Table) someRows(access Prot, addr Addr, stride uint64, p []byte, step, size, rows int) bool {
	m := t.acquire(addr)
	if m == nil {
		return false
	}
	defer m.mu.RUnlock()
	mem, ok := m.mem.(rowMemory)
	if last := uint64(rows-1)*stride + uint64(size-1); !ok || m.prot&access == 0 || last > uint64(m.last-addr) {
		return false
	}
	if access == Read {
		return mem.ReadRows(p, step, size, rows, uint64(addr-m.first), stride) == nil
	}
	err := mem.WriteRows(p, step, size, rows, uint64(addr-m.first), stride)
	if l := t.log.Load(); l != nil { // as in access
		for k := range rows {
			l.mark(addr+Addr(uint64(k)*stride), size)
		}
	}
	return err == nil
}

// refuse returns f, after it was told if no mapping permitted the access. p begins
// with what is for f.Addr.
func (t *Table) refuse(f *Fault, p []byte) error {
	if t.Refused != nil && f.Reason != Failed {
		if f.Access == Read {
			p = nil
		}
		t.Refused(f, p)
	}
	return f
}

// acquire returns the mapping that holds addr with its mu locked for reading,
// or nil.
func (t *Table) acquire(addr Addr) *mapping {
	if m := t.recent.Load(); m != nil && m.first <= addr && addr <= m.last {
		m.mu.RLock()
		if !m.dead { // nothing else can be mapped there
			return m
		}
		m.mu.RUnlock()
	}
	for {
		m := t.floor(addr)
		if m == nil || m.last < addr {
			return nil
		}
		m.mu.RLock()
		if !m.dead {
			t.recent.Store(m)
			return m
		}
		m.mu.RUnlock() // unmapped since; a newer snapshot says what is there now
	}
}

func (m *mapping) access(addr Addr, p []byte, access Prot) *Fault {
	if m.prot&access == 0 {
		return &Fault{Addr: addr, Size: len(p), Access: access, Reason: NotPermitted}
	}
	var err error
	if access == Read {
		err = m.mem.ReadAt(p, uint64(addr-m.first))
	} else {
		err = m.mem.WriteAt(p, uint64(addr-m.first))
	}
	if err != nil {
		return &Fault{Addr: addr, Size: len(p), Access: access, Reason: Failed, Err: err}
	}
	return nil
}

// Reason says why an access faulted.
type Reason uint8

// The reasons of a Fault.
const (
	Unmapped     Reason = iota + 1 // no mapping at the address
	NotPermitted                   // the mapping's Prot lacks the access
	Failed                         // the memory behind the mapping failed
)

func (r Reason) String() string {
	switch r {
	case Unmapped:
		return "not mapped"
	case NotPermitted:
		return "not permitted"
	case Failed:
		return "memory failed"
	}
	return fmt.Sprintf("Reason(%d)", uint8(r))
}

// Fault is the error of an access that the bus refused.
type Fault struct {
	Addr   Addr // first address that was refused
	Size   int  // bytes that were refused there
	Access Prot // Read or Write
	Reason Reason
	Err    error // what the memory said, when Reason is Failed
}

func (f *Fault) Error() string {
	s := fmt.Sprintf("iova: %v of %d bytes at %v: %v", f.Access, f.Size, f.Addr, f.Reason)
	if f.Err != nil {
		s += ": " + f.Err.Error()
	}
	return s
}

// Unwrap returns what the memory said, or nil.
func (f *Fault) Unwrap() error { return f.Err }
