// SPDX-License-Identifier: Apache-2.0

package dma_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"npuemu/dma"
	"npuemu/dma/iova"
	"npuemu/mmio/npureg"
)

const (
	rwx = npureg.EntryRead | npureg.EntryWrite | npureg.EntryExecute

	// Bus memory of the MMU's tests: tables at its start, data behind them. Device memory is alike.
	mmuBus    = 0x7_0000_0000
	mmuSize   = 4 << 20
	mmuTables = 64 << 10
)

// machine is memory in which page tables can lie.
type machine struct {
	t      testing.TB
	mem    *dma.Memory
	bus    *iova.Bytes
	next   map[dma.Space]uint64 // first address that is no table yet
	failed int                  // reads of the bus that failed
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	m := &machine{t: t, bus: iova.NewBytes(make([]byte, mmuSize)), next: map[dma.Space]uint64{dma.Bus: mmuBus, dma.Device: 0}}
	m.mem = &dma.Memory{Bus: new(iova.Table), DRAM: make([]byte, mmuSize), ReadFailed: func(error) { m.failed++ }}
	if err := m.mem.Bus.Map(mmuBus, mmuSize, iova.Read|iova.Write, m.bus); err != nil {
		t.Fatal(err)
	}
	m.mem.SetBusMaster(true)
	return m
}

// table returns a new table.
func (m *machine) table(s dma.Space) uint64 {
	at := m.next[s]
	m.next[s] += npureg.PageSize
	return at
}

// store writes an entry of a table.
func (m *machine) store(s dma.Space, table uint64, index int, entry uint64) {
	m.t.Helper()
	if err := m.mem.Write(s, table+uint64(index)*8, binary.LittleEndian.AppendUint64(nil, entry)); err != nil {
		m.t.Fatal(err)
	}
}

// pointer is an entry that leads to a table, and page one that leads to a page.
func pointer(s dma.Space, table uint64) uint64 {
	return table | uint64(s)<<npureg.EntrySpaceShift | npureg.EntryValid
}

func page(s dma.Space, addr, bits uint64) uint64 {
	return pointer(s, addr) | npureg.EntryLeaf | bits
}

// chain makes tables for va down to a level, with the last entry given: the root on the bus, the next in device
// memory, and so on by turns.
func (m *machine) chain(va uint64, level int, last uint64) *dma.AddressSpace {
	m.t.Helper()
	s := dma.Bus
	root := m.table(s)
	table := root
	for l := 4; ; l-- {
		index := int(va >> (3 + 9*l) & 511)
		if l == level {
			m.store(s, table, index, last)
			return m.mem.MMU.Space(dma.Bus, root)
		}
		below := dma.Device - s
		next := m.table(below)
		m.store(s, table, index, pointer(below, next))
		s, table = below, next
	}
}

const someVA = 0x1234_5678_9000 // differs in every index

// TestTranslate is every rule of §11.2 and §11.3, one access each.
func TestTranslate(t *testing.T) {
	const data = mmuBus + 0x200000 // aligned to a large page
	const va = someVA
	big := uint64(va) &^ (2<<20 - 1)
	huge := uint64(va) &^ (1<<30 - 1)
	tests := []struct {
		name   string
		va     uint64 // va if 0
		level  int    // 1 if 0
		entry  uint64
		access dma.Access // ToRead if 0
		size   int        // 1 if 0
		off    bool       // bus mastering off

		want dma.Space // and addr, if there is no reason
		addr uint64
		no   dma.Reason
		at   uint64 // virtual address of the fault; va if 0
		lvl  uint8
		why  uint64 // Refusal.Addr for NoTarget
	}{
		{name: "4 KiB on the bus", entry: page(dma.Bus, data, rwx), want: dma.Bus, addr: data},
		{name: "4 KiB in device memory", va: va + 0xfff, entry: page(dma.Device, 0x200000, rwx), want: dma.Device, addr: 0x200fff},
		{name: "2 MiB", va: big + 0x12345, level: 2, entry: page(dma.Device, 0x200000, rwx), want: dma.Device, addr: 0x212345},
		{name: "1 GiB", va: huge + 0x300000, level: 3, entry: page(dma.Device, 0, rwx), want: dma.Device, addr: 0x300000},
		{name: "software's bit", entry: page(dma.Device, 0x200000, rwx) | 1<<11, want: dma.Device, addr: 0x200000},
		{name: "address 0", va: 0x10, entry: page(dma.Device, 0x200000, rwx), want: dma.Device, addr: 0x200010},
		{name: "last address", va: npureg.VirtualLimit - 1, entry: page(dma.Device, 0x200000, rwx), want: dma.Device, addr: 0x200fff},

		{name: "first address that is none", va: npureg.VirtualLimit, no: dma.NoAddress},
		{name: "sign-extended address", va: 0xffff_8000_0000_0000, no: dma.NoAddress},
		{name: "passes the last address", va: npureg.VirtualLimit - 1, size: 2, entry: page(dma.Device, 0x200000, rwx), no: dma.NoAddress, at: npureg.VirtualLimit},

		{name: "not valid, level 4", level: 4, no: dma.NotPresent, lvl: 4},
		{name: "not valid, level 3", level: 3, no: dma.NotPresent, lvl: 3},
		{name: "not valid, level 2", level: 2, no: dma.NotPresent, lvl: 2},
		{name: "not valid, level 1", level: 1, no: dma.NotPresent, lvl: 1},
		{name: "not valid, the other bits are software's", entry: ^uint64(npureg.EntryValid), no: dma.NotPresent, lvl: 1},
		{name: "next page not valid", va: va + 0xfff, size: 2, entry: page(dma.Device, 0x200000, rwx), no: dma.NotPresent, at: va + 0x1000, lvl: 1},

		{name: "read without R", entry: page(dma.Device, 0x200000, rwx&^npureg.EntryRead), no: dma.NotPermitted, lvl: 1},
		{name: "write without W", access: dma.ToWrite, entry: page(dma.Device, 0x200000, rwx&^npureg.EntryWrite), no: dma.NotPermitted, lvl: 1},
		{name: "execute without X", access: dma.ToExecute, entry: page(dma.Device, 0x200000, rwx&^npureg.EntryExecute), no: dma.NotPermitted, lvl: 1},
		{name: "page with no permission", entry: page(dma.Device, 0x200000, 0), no: dma.NotPermitted, lvl: 1},
		{name: "R alone", entry: page(dma.Device, 0x200000, npureg.EntryRead), want: dma.Device, addr: 0x200000},
		{name: "W without R", access: dma.ToWrite, entry: page(dma.Device, 0x200000, npureg.EntryWrite), want: dma.Device, addr: 0x200000},
		{name: "X without R", access: dma.ToExecute, entry: page(dma.Device, 0x200000, npureg.EntryExecute), want: dma.Device, addr: 0x200000},
		{name: "write to a large page without W", level: 2, access: dma.ToWrite, entry: page(dma.Device, 0x200000, npureg.EntryRead), no: dma.NotPermitted, lvl: 2},

		{name: "reserved bit 9", entry: page(dma.Device, 0x200000, rwx) | 1<<9, no: dma.BadEntry, lvl: 1},
		{name: "reserved bit 10", entry: page(dma.Device, 0x200000, rwx) | 1<<10, no: dma.BadEntry, lvl: 1},
		{name: "reserved bit of a table's entry", level: 3, entry: pointer(dma.Device, 0) | 1<<9, no: dma.BadEntry, lvl: 3},
		{name: "page in virtual memory", entry: page(dma.Virtual, 0x200000, rwx), no: dma.BadEntry, lvl: 1},
		{name: "page in space 15", entry: page(15, 0x200000, rwx), no: dma.BadEntry, lvl: 1},
		{name: "table in virtual memory", level: 4, entry: pointer(dma.Virtual, 0x200000), no: dma.BadEntry, lvl: 4},
		{name: "table with R", level: 2, entry: pointer(dma.Device, 0x200000) | npureg.EntryRead, no: dma.BadEntry, lvl: 2},
		{name: "table with W", level: 3, entry: pointer(dma.Device, 0x200000) | npureg.EntryWrite, no: dma.BadEntry, lvl: 3},
		{name: "table with X", level: 4, entry: pointer(dma.Device, 0x200000) | npureg.EntryExecute, no: dma.BadEntry, lvl: 4},
		{name: "table below level 1", level: 1, entry: pointer(dma.Device, 0x200000), no: dma.BadEntry, lvl: 1},
		{name: "page of 512 GiB", level: 4, entry: page(dma.Device, 0, rwx), no: dma.BadEntry, lvl: 4},
		{name: "2 MiB page not aligned", level: 2, entry: page(dma.Device, 0x201000, rwx), no: dma.BadEntry, lvl: 2},
		{name: "1 GiB page not aligned", level: 3, entry: page(dma.Device, 0x200000, rwx), no: dma.BadEntry, lvl: 3},
		{name: "reserved before permission", entry: page(dma.Device, 0x200000, 0) | 1<<9, no: dma.BadEntry, lvl: 1},

		{name: "table not mapped on the bus", level: 3, entry: pointer(dma.Bus, 0xdead_0000), no: dma.NoTable, lvl: 2},
		{name: "table outside device memory", level: 4, entry: pointer(dma.Device, mmuSize), no: dma.NoTable, lvl: 3},
		{name: "table at the end of all addresses", level: 4, entry: pointer(dma.Bus, npureg.EntryAddress), no: dma.NoTable, lvl: 3},
		{name: "bus mastering off", entry: page(dma.Device, 0x200000, rwx), off: true, no: dma.NoTable, lvl: 4},

		{name: "page not mapped on the bus", entry: page(dma.Bus, 0xdead_0000, rwx), va: va + 5, no: dma.NoTarget, why: 0xdead_0005},
		{name: "large page that leaves device memory", level: 2, va: big + 0x1ffffe, size: 4, entry: page(dma.Device, mmuSize-0x200000, rwx), no: dma.NotPresent, at: big + 0x200000, lvl: 2},
		{name: "huge page that leaves device memory", level: 3, va: huge + mmuSize - 2, size: 4, entry: page(dma.Device, 0, rwx), no: dma.NoTarget, at: huge + mmuSize, why: mmuSize},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			if tt.va == 0 {
				tt.va = va
			}
			level, access, size := max(tt.level, 1), max(tt.access, dma.ToRead), max(tt.size, 1)
			space := m.chain(tt.va%npureg.VirtualLimit, level, tt.entry)
			if tt.no == 0 {
				if err := m.mem.Write(tt.want, tt.addr, []byte{0x5a}); err != nil {
					t.Fatal(err)
				}
			}
			m.mem.SetBusMaster(!tt.off)
			v := dma.NewView(m.mem)
			who := dma.Requester{Context: 3, Queue: 7, Index: 11, ID: 0x77}
			v.Begin(space, who)
			p := make([]byte, size)
			err := access2(v, access, tt.va, p)
			if tt.no == 0 {
				if err != nil {
					t.Fatal(err)
				}
				var b [1]byte
				if err := m.mem.Read(tt.want, tt.addr, b[:]); err != nil {
					t.Fatal(err)
				}
				if access == dma.ToWrite && b[0] != 0 || access != dma.ToWrite && p[0] != 0x5a {
					t.Errorf("went elsewhere: read %#x, memory has %#x", p[0], b[0])
				}
				return
			}
			var f *dma.Fault
			if !errors.As(err, &f) || f.Refusal == nil {
				t.Fatalf("got %v, want a refusal", err)
			}
			if tt.at == 0 {
				tt.at = tt.va
			}
			r := *f.Refusal
			engine := map[dma.Access]dma.Engine{dma.ToRead: dma.Load, dma.ToWrite: dma.Store, dma.ToExecute: dma.Command}[access]
			if f.Space != dma.Virtual || f.Addr != tt.at || r.Reason != tt.no || r.Level != tt.lvl || r.Requester != who || r.Engine != engine || r.Access != access {
				t.Errorf("fault at %#x, %+v; want %v at %#x, level %d, engine %v", f.Addr, r, tt.no, tt.at, tt.lvl, engine)
			}
			if tt.no == dma.NoTarget && r.Addr != tt.why {
				t.Errorf("target %#x, want %#x", r.Addr, tt.why)
			}
		})
	}
}

// access2 makes an access of a kind.
func access2(v *dma.View, a dma.Access, va uint64, p []byte) error {
	switch a {
	case dma.ToWrite:
		return v.Write(dma.Store, dma.Virtual, va, p)
	case dma.ToExecute:
		return v.Fetch(dma.Virtual, va, p)
	}
	return v.Read(dma.Load, dma.Virtual, va, p)
}

// TestFailedWalkIsLogged: a table that the bus does not have is a failed read like any other (§1.6).
func TestFailedWalkIsLogged(t *testing.T) {
	m := newMachine(t)
	v := dma.NewView(m.mem)
	v.Begin(m.mem.MMU.Space(dma.Bus, 0xdead_0000), dma.Requester{})
	if err := v.Read(dma.Load, dma.Virtual, 0, make([]byte, 1)); err == nil || m.failed != 1 {
		t.Errorf("%v, %d failed reads", err, m.failed)
	}
}

// TestInvalidate is what the TLB keeps, and what makes it forget (§11.4).
func TestInvalidate(t *testing.T) {
	const va = uint64(someVA) &^ (1<<30 - 1) // inside device memory for every size of a page
	const large = va
	tests := []struct {
		name  string
		level int
		do    func(m *dma.MMU, s *dma.AddressSpace)
		fresh bool
	}{
		{"nothing", 1, func(*dma.MMU, *dma.AddressSpace) {}, false},
		{"its page", 1, func(m *dma.MMU, s *dma.AddressSpace) { m.Invalidate(s, va, 4096) }, true},
		{"the page before", 1, func(m *dma.MMU, s *dma.AddressSpace) { m.Invalidate(s, va-4096, 4096) }, false},
		{"the page behind", 1, func(m *dma.MMU, s *dma.AddressSpace) { m.Invalidate(s, va+4096, 4096) }, false},
		{"all addresses", 1, func(m *dma.MMU, s *dma.AddressSpace) { m.Invalidate(s, 0, npureg.VirtualLimit) }, true},
		{"all of the context", 1, func(m *dma.MMU, s *dma.AddressSpace) { m.Invalidate(s, 0, 0) }, true},
		{"another context", 1, func(m *dma.MMU, s *dma.AddressSpace) { m.Invalidate(m.Space(dma.Bus, mmuBus), 0, 0) }, false},
		{"everything", 1, func(m *dma.MMU, s *dma.AddressSpace) { m.InvalidateAll() }, true},
		{"one page of a large one", 2, func(m *dma.MMU, s *dma.AddressSpace) { m.Invalidate(s, large+0x5000, 4096) }, true},
		{"the last page of a large one", 2, func(m *dma.MMU, s *dma.AddressSpace) { m.Invalidate(s, large+0x1ff000, 4096) }, true},
		{"the page behind a large one", 2, func(m *dma.MMU, s *dma.AddressSpace) { m.Invalidate(s, large+0x200000, 4096) }, false},
		{"one page of a huge one", 3, func(m *dma.MMU, s *dma.AddressSpace) { m.Invalidate(s, va, 4096) }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			entry := page(dma.Device, 0, npureg.EntryRead)
			s := m.chain(va, tt.level, entry)
			table, space := m.next[dma.Device]-npureg.PageSize, dma.Device // the last one of the chain
			if tt.level%2 == 0 {
				table, space = m.next[dma.Bus]-npureg.PageSize, dma.Bus
			}
			if tt.level%2 == 0 != (space == dma.Bus) {
				t.Fatal("chain")
			}
			v := dma.NewView(m.mem)
			read := func() error { return v.Read(dma.Load, dma.Virtual, va, make([]byte, 1)) }
			v.Begin(s, dma.Requester{})
			if err := read(); err != nil || v.Misses != 1 || v.Hits != 0 {
				t.Fatalf("first: %v, %d hits, %d misses", err, v.Hits, v.Misses)
			}
			if err := read(); err != nil || v.Misses != 1 || v.Hits != 1 {
				t.Fatalf("second: %v, %d hits, %d misses", err, v.Hits, v.Misses)
			}
			m.store(space, table, int(va>>(3+9*tt.level)&511), 0)
			tt.do(&m.mem.MMU, s)
			if err := read(); (err != nil) != tt.fresh {
				t.Errorf("after it: %v", err)
			}
		})
	}
}

// TestLargerRights: an entry that allows more needs no invalidation, nor does one that was not valid (§11.4).
func TestLargerRights(t *testing.T) {
	m := newMachine(t)
	s := m.chain(someVA, 1, 0)
	table := m.next[dma.Device] - npureg.PageSize
	index := someVA >> 12 & 511
	v := dma.NewView(m.mem)
	v.Begin(s, dma.Requester{})
	if err := v.Read(dma.Load, dma.Virtual, someVA, make([]byte, 1)); err == nil {
		t.Fatal("read of a page that is not there")
	}
	m.store(dma.Device, table, index, page(dma.Device, 0x100000, npureg.EntryRead))
	if err := v.Read(dma.Load, dma.Virtual, someVA, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := v.Write(dma.Store, dma.Virtual, someVA, make([]byte, 1)); err == nil {
		t.Fatal("write to a read-only page")
	}
	m.store(dma.Device, table, index, page(dma.Device, 0x100000, npureg.EntryRead|npureg.EntryWrite))
	if err := v.Write(dma.Store, dma.Virtual, someVA, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// TestBounded fills the TLB with more pages than it holds: it forgets some and translates all.
func TestBounded(t *testing.T) {
	m := newMachine(t)
	s := m.chain(0, 1, 0)
	table := m.next[dma.Device] - npureg.PageSize
	const n = 512
	for i := range n {
		m.store(dma.Device, table, i, page(dma.Device, uint64(mmuTables+i*4096), npureg.EntryRead))
		m.mem.DRAM[mmuTables+i*4096] = byte(i)
	}
	v := dma.NewView(m.mem)
	v.Begin(s, dma.Requester{})
	for range 2 {
		for i := range uint64(n) {
			var p [1]byte
			if err := v.Read(dma.Load, dma.Virtual, i*4096, p[:]); err != nil || p[0] != byte(i) {
				t.Fatalf("page %d: %#x, %v", i, p[0], err)
			}
		}
	}
	if v.Misses != 2*n {
		t.Errorf("%d misses of %d pages in turn, twice; want %d", v.Misses, n, 2*n)
	}
	v.Begin(s, dma.Requester{})
	for range 2 {
		for i := range uint64(200) {
			if err := v.Read(dma.Load, dma.Virtual, i*4096, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if v.Misses != 200 || v.Hits != 200 {
		t.Errorf("200 pages twice: %d misses, %d hits", v.Misses, v.Hits)
	}
}

// TestTranslatedCopy compares copies between pages that are scattered with the same copy in one piece.
func TestTranslatedCopy(t *testing.T) {
	m := newMachine(t)
	rng := rand.New(rand.NewPCG(5, 6))
	s := m.chain(0, 1, 0)
	table := m.next[dma.Device] - npureg.PageSize
	const n = 128
	var where [n]struct {
		space dma.Space
		addr  uint64
	}
	for i, j := range rng.Perm(n) {
		where[i].space, where[i].addr = dma.Space(j%2), uint64(mmuTables+j*4096)
		if j%2 == 0 {
			where[i].addr += mmuBus
		}
		m.store(dma.Device, table, i, page(where[i].space, where[i].addr, rwx))
	}
	flat := make([]byte, n*4096)
	for i := range flat {
		flat[i] = byte(rng.Uint32())
	}
	v := dma.NewView(m.mem)
	v.Begin(s, dma.Requester{})
	if err := v.Write(dma.Store, dma.Virtual, 0, flat); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, dma.Chunk)
	for range 50 {
		shape := dma.Shape{NX: 1 + rng.Uint64N(20000), NY: 1 + rng.Uint64N(4), NZ: 1 + rng.Uint64N(3)}
		const half = n * 4096 / 2
		src := dma.Side{Space: dma.Virtual, Addr: rng.Uint64N(1000), StrideY: rng.Uint64N(20000), StrideZ: rng.Uint64N(50000)}
		dst := dma.Side{Space: dma.Virtual, Addr: half + rng.Uint64N(1000), StrideY: rng.Uint64N(20000), StrideZ: rng.Uint64N(50000)}
		for z := range shape.NZ {
			for y := range shape.NY {
				copy(flat[dst.Addr+z*dst.StrideZ+y*dst.StrideY:][:shape.NX], flat[src.Addr+z*src.StrideZ+y*src.StrideY:][:shape.NX])
			}
		}
		if n, _, err := v.Copy(context.Background(), dst, src, shape, buf); err != nil || n != shape.NX*shape.NY*shape.NZ {
			t.Fatalf("%+v: %d, %v", shape, n, err)
		}
		for i := range uint64(n) {
			got := make([]byte, 4096)
			if err := m.mem.Read(where[i].space, where[i].addr, got); err != nil {
				t.Fatal(err)
			}
			if string(got) != string(flat[i*4096:][:4096]) {
				t.Fatalf("%+v from %+v to %+v: page %d differs", shape, src, dst, i)
			}
		}
	}

	// A page that is taken away stops the copy at its row and address; what cannot be read is told first.
	m.store(dma.Device, table, 5, 0)
	m.store(dma.Device, table, 105, 0)
	m.mem.MMU.InvalidateAll()
	for _, tt := range []struct {
		from, to, want uint64
		row            uint64
		access         dma.Access
	}{
		{from: 0x4800, to: 0x50000, want: 0x5000, row: 1, access: dma.ToRead},
		{from: 0x20000, to: 0x68800, want: 0x69000, row: 1, access: dma.ToWrite},
		{from: 0x5000, to: 0x69000, want: 0x5000, row: 0, access: dma.ToRead},
	} {
		_, row, err := v.Copy(context.Background(), dma.Side{Space: dma.Virtual, Addr: tt.to, StrideY: 0x800},
			dma.Side{Space: dma.Virtual, Addr: tt.from, StrideY: 0x800}, dma.Shape{NX: 0x800, NY: 4, NZ: 1}, buf)
		var f *dma.Fault
		if !errors.As(err, &f) || f.Addr != tt.want || row != tt.row || f.Refusal.Access != tt.access || f.Refusal.Engine != dma.DMA {
			t.Errorf("%#x to %#x: row %d, %v", tt.from, tt.to, row, err)
		}
	}
}

func TestReaches(t *testing.T) {
	m := newMachine(t)
	v := dma.NewView(m.mem)
	for _, space := range []*dma.AddressSpace{nil, m.mem.MMU.Space(dma.Bus, mmuBus)} {
		v.Begin(space, dma.Requester{})
		for s := range dma.Space(16) {
			if want := s == dma.Virtual; space == nil {
				want = s <= dma.Device
				if v.Reaches(s) != want {
					t.Errorf("not translated: space %d: %v", s, !want)
				}
			} else if v.Reaches(s) != want {
				t.Errorf("translated: space %d: %v", s, !want)
			}
		}
	}
}

// TestNoOldTranslation changes a page's place while it is written to all the time: once an invalidation has
// returned, nothing arrives at the old place any more.
func TestNoOldTranslation(t *testing.T) {
	m := newMachine(t)
	s := m.mem.MMU.Space(dma.Bus, mmuBus)
	tables := [4]uint64{m.table(dma.Bus), m.table(dma.Bus), m.table(dma.Bus), m.table(dma.Bus)}
	for i := range 3 {
		m.store(dma.Bus, tables[i], 0, pointer(dma.Bus, tables[i+1]))
	}
	place := [2]uint64{mmuBus + mmuTables, mmuBus + 2*mmuTables}
	m.store(dma.Bus, tables[3], 0, page(dma.Bus, place[0], npureg.EntryWrite))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			v := dma.NewView(m.mem)
			v.Begin(s, dma.Requester{})
			ones := []byte{1, 1, 1, 1, 1, 1, 1, 1}
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := v.Write(dma.Store, dma.Virtual, 0x10, ones); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	zero, p := make([]byte, 8), make([]byte, 8)
	for i := 1; i <= 2000; i++ {
		old, now := place[(i-1)%2], place[i%2]
		m.store(dma.Bus, tables[3], 0, page(dma.Bus, now, npureg.EntryWrite))
		if i%3 == 0 {
			m.mem.MMU.InvalidateAll()
		} else {
			m.mem.MMU.Invalidate(s, 0, 4096)
		}
		if err := m.bus.WriteAt(zero, old-mmuBus+0x10); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if err := m.bus.ReadAt(p, old-mmuBus+0x10); err != nil {
				t.Fatal(err)
			}
			if p[0] != 0 {
				t.Fatalf("round %d: written at the old place after the invalidation", i)
			}
		}
		for end := time.Now().Add(10 * time.Second); i%50 == 0; runtime.Gosched() {
			if err := m.bus.ReadAt(p, now-mmuBus+0x10); err != nil {
				t.Fatal(err)
			}
			if p[0] != 0 {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("round %d: nothing arrives at the new place", i)
			}
		}
	}
	close(stop)
	wg.Wait()
}

// TestAccessesAllocateNothing counts allocations of accesses that succeed, hits and misses.
func TestAccessesAllocateNothing(t *testing.T) {
	m := newMachine(t)
	s := m.chain(someVA, 1, page(dma.Device, 0x100000, rwx))
	v := dma.NewView(m.mem)
	p, buf := make([]byte, 64), make([]byte, dma.Chunk)
	one := dma.Side{Space: dma.Virtual, Addr: someVA}
	two := dma.Side{Space: dma.Virtual, Addr: someVA + 0x800}
	ctx := context.Background()
	for name, access := range map[string]func() error{
		"hit":  func() error { return v.Read(dma.Load, dma.Virtual, someVA, p) },
		"miss": func() error { m.mem.MMU.InvalidateAll(); return v.Write(dma.Store, dma.Virtual, someVA, p) },
		"copy": func() error {
			_, _, err := v.Copy(ctx, two, one, dma.Shape{NX: 64, NY: 2, NZ: 2}, buf)
			return err
		},
	} {
		v.Begin(s, dma.Requester{})
		if n := testing.AllocsPerRun(1000, func() {
			if err := access(); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// linear makes tables in one memory for pages of 4 KiB from address 0 on, which lie at 2 MiB in device memory.
func (m *machine) linear(in dma.Space, pages int) *dma.AddressSpace {
	m.t.Helper()
	root := m.table(in)
	s := m.mem.MMU.Space(in, root)
	table := root
	for range 3 {
		below := m.table(in)
		m.store(in, table, 0, pointer(in, below))
		table = below
	}
	for i := range pages {
		m.store(in, table, i, page(dma.Device, uint64(0x200000+i*npureg.PageSize), rwx))
	}
	return s
}

// BenchmarkView is what a translation costs: reads of device memory that are not translated, that hit in the TLB, and that miss,
// because they go through more pages in turn than it holds.
func BenchmarkView(b *testing.B) {
	const pages = 512
	for _, size := range []int{64, 4096, 64 << 10} {
		for _, how := range []string{"untranslated", "hit 2 MiB", "hit 4 KiB", "miss, tables in device memory", "miss, tables on the bus"} {
			b.Run(fmt.Sprintf("%d bytes/%s", size, how), func(b *testing.B) {
				m := newMachine(b)
				var s *dma.AddressSpace
				space, addr, step, wrap := dma.Device, uint64(0x200000), uint64(0), uint64(1)
				switch how {
				case "hit 2 MiB":
					s = m.chain(0, 2, page(dma.Device, 0x200000, rwx))
				case "hit 4 KiB", "miss, tables in device memory":
					s = m.linear(dma.Device, pages)
				case "miss, tables on the bus":
					s = m.linear(dma.Bus, pages)
				}
				if s != nil {
					space, addr = dma.Virtual, 0
				}
				if strings.HasPrefix(how, "miss") {
					step, wrap = max(4096, uint64(size)), pages*4096
				}
				v := dma.NewView(m.mem)
				v.Begin(s, dma.Requester{})
				p := make([]byte, size)
				b.SetBytes(int64(size))
				at := uint64(0)
				for b.Loop() {
					if err := v.Read(dma.Load, space, addr+at, p); err != nil {
						b.Fatal(err)
					}
					at = (at + step) % wrap
				}
				if s != nil {
					b.ReportMetric(float64(v.Hits)/float64(v.Hits+v.Misses), "hits")
				}
			})
		}
	}
}
