// SPDX-License-Identifier: Apache-2.0

package dma

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"

	"npuemu/mmio/npureg"
)

// Engine is the part of the device that makes an access (§11.5).
type Engine uint8

// The engines.
const (
	Command Engine = npureg.FaultByCommand // command processor: program, binding table
	DMA     Engine = npureg.FaultByDMA     // COPY
	Load    Engine = npureg.FaultByLoad    // the core's LOAD
	Store   Engine = npureg.FaultByStore   // the core's STORE
)

func (e Engine) String() string {
	return name(uint8(e), "command processor", "DMA", "core load", "core store")
}

// Access is what an access needs a permission for (§11.3).
type Access uint8

// The accesses; 1 << Access is the permission's bit of an entry.
const (
	ToRead    Access = npureg.AccessRead
	ToWrite   Access = npureg.AccessWrite
	ToExecute Access = npureg.AccessExecute
)

func (a Access) String() string { return name(uint8(a), "", "read", "write", "execute") }

// Reason says why an access to virtual memory was refused (§11.5).
type Reason uint8

// The reasons.
const (
	NotPresent   Reason = npureg.ReasonNotPresent // an entry is not VALID
	NotPermitted Reason = npureg.ReasonPermission // the page does not allow this access
	BadEntry     Reason = npureg.ReasonReserved   // an entry breaks a rule of §11.2
	NoTable      Reason = npureg.ReasonTable      // an entry cannot be read
	NoTarget     Reason = npureg.ReasonTarget     // what the page is mapped to refuses
	NoAddress    Reason = npureg.ReasonRange      // no virtual address
)

func (r Reason) String() string {
	return name(uint8(r), "", "not present", "permission", "reserved bit", "table unreadable", "target refused", "out of range")
}

func name(v uint8, names ...string) string {
	if int(v) < len(names) && names[v] != "" {
		return names[v]
	}
	return fmt.Sprintf("%d", v)
}

// A Requester is whose command makes an access.
type Requester struct {
	Context, Queue uint16
	Index          uint16 // ring entry
	ID             uint16 // command_id
}

// Refusal is how far the MMU came with an access that was refused (§11.5).
type Refusal struct {
	Requester
	Engine Engine
	Access Access
	Reason Reason
	Level  uint8  // of the entry that refused, 4 to 1; 0 if none did
	Entry  uint64 // that entry, 0 if it could not be read
	Space  Space  // of Addr
	Addr   uint64 // of the entry, or for NoTarget of the target's first byte that was refused; otherwise 0
}

func (r *Refusal) Error() string {
	s := fmt.Sprintf("%v (§11.5)", r.Reason)
	switch {
	case r.Level != 0:
		s += fmt.Sprintf(": level %d, entry %#x at %v address %#x", r.Level, r.Entry, r.Space, r.Addr)
	case r.Reason == NoTarget:
		s += fmt.Sprintf(": %v address %#x", r.Space, r.Addr)
	}
	return s
}

// An AddressSpace is what the virtual addresses of a context mean: its page tables. It never
// changes; a context that gets other tables gets another AddressSpace.
type AddressSpace struct {
	tag   uint64 // of its entries in the TLB
	root  uint64
	space Space // of the root table
}

// MMU translates virtual addresses (docs/spec/mmu.md). The zero value of a Memory's is ready.
//
// An access holds mu from its translation until its bytes have moved, and moves at most Chunk bytes. So
// whoever has had mu knows that no access runs with what was in the TLB before. An access may
// need an answer of the connection and, when it fails, the board's lock: nobody waits for mu
// on a connection's goroutine or with a board's lock held.
type MMU struct {
	tags atomic.Uint64 // AddressSpaces made so far

	mu     sync.Mutex
	tlb    tlb      // guarded by mu
	recent [4]*leaf // places in tlb that were hit last, by Access; guarded by mu
	word   [8]byte  // an entry on its way; guarded by mu
}

// Space returns the address space of a root table. Nothing in the TLB belongs to it.
func (m *MMU) Space(space Space, root uint64) *AddressSpace {
	return &AddressSpace{tag: m.tags.Add(1), root: root, space: space}
}

// Invalidate forgets the translations of s in [va, va+size); no size means all of s. When it returns no access
// runs that uses one.
func (m *MMU) Invalidate(s *AddressSpace, va, size uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tlb.drop(func(e *leaf) bool {
		return e.tag == s.tag && (size == 0 || e.page < va+size && va <= e.page+e.mask)
	})
}

// InvalidateAll is Invalidate of every address space.
func (m *MMU) InvalidateAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tlb.drop(func(*leaf) bool { return true })
}

// Levels of page tables: 4 is the root's, 1 that of the smallest pages.
const levels = 4

// levelShift returns log2 of what an entry of a level spans.
func levelShift(level int) uint { return uint(3 + 9*level) }

// walk reads the page tables (§11.3). It returns a leaf that allows the access and its
// level; or the level, entry, place and reason of a refusal.
func (m *MMU) walk(mem *Memory, s *AddressSpace, va uint64, a Access) (e leaf, level int, refused Refusal) {
	table, space := s.root, s.space
	for level = levels; ; level-- {
		shift := levelShift(level)
		at := table + va>>shift%(npureg.PageSize/8)*8
		refused = Refusal{Level: uint8(level), Space: space, Addr: at}
		if mem.Read(space, at, m.word[:]) != nil {
			refused.Reason = NoTable
			return leaf{}, level, refused
		}
		entry := binary.LittleEndian.Uint64(m.word[:])
		refused.Entry = entry
		e = leaf{
			tag: s.tag, page: va >> shift << shift, addr: entry & npureg.EntryAddress, mask: 1<<shift - 1,
			bits: entry & (npureg.EntryRead | npureg.EntryWrite | npureg.EntryExecute), space: Space(entry >> npureg.EntrySpaceShift & 15),
		}
		switch isLeaf := entry&npureg.EntryLeaf != 0; {
		case entry&npureg.EntryValid == 0:
			refused.Reason = NotPresent
		case entry&npureg.EntryReserved != 0 || !e.space.memory(),
			isLeaf && (level == levels || e.addr&e.mask != 0),
			!isLeaf && (level == 1 || e.bits != 0):
			refused.Reason = BadEntry
		case !isLeaf:
			table, space = e.addr, e.space
			continue
		case e.bits&(1<<a) == 0:
			refused.Reason = NotPermitted
		default:
			return e, level, Refusal{}
		}
		return leaf{}, level, refused
	}
}
