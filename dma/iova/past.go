// SPDX-License-Identifier: Apache-2.0

package iova

import (
	"sync/atomic"
	"time"
)

// MaxPast is how many ranges a Table remembers after they were unmapped. Behind an IOMMU
// with 4 KiB pages, where every page is one, that is 32 MiB of buffers.
// They take 512 KiB, from the first unmap on.
const MaxPast = 8192

// Past is a range that was unmapped: adjacent mappings of one permission that went together.
type Past struct {
	First, Last Addr // inclusive
	Prot        Prot
	When        time.Time
	Tick        uint64 // Table.Tick then; 0 without one
	Number      uint64 // counts up from 1
}

// past is the memory of a Table.
type past struct {
	number atomic.Uint64 // of the newest; written with Table.mu held
	gone   uint64        // numbers up to this one were forgotten
	ring   []Past        // number gone+n is at (n-1) % MaxPast
}

// rememberLocked keeps what was unmapped together, in order of address.
func (t *Table) rememberLocked(removed []*mapping) {
	now := time.Now()
	var tick uint64
	if t.Tick != nil {
		tick = t.Tick()
	}
	for i := 0; i < len(removed); {
		m := removed[i]
		p := Past{First: m.first, Last: m.last, Prot: m.prot, When: now, Tick: tick, Number: t.past.number.Load() + 1}
		for i++; i < len(removed) && removed[i].prot == p.Prot && removed[i].first == p.Last+1; i++ {
			p.Last = removed[i].last
		}
		if len(t.past.ring) < MaxPast {
			t.past.ring = append(t.past.ring, p)
		} else {
			t.past.ring[(p.Number-t.past.gone-1)%MaxPast] = p
		}
		t.past.number.Store(p.Number)
	}
}

// Unmaps returns the Number of the newest Past: those that come later have higher ones.
// It takes no lock.
func (t *Table) Unmaps() uint64 { return t.past.number.Load() }

// LastUnmapped returns the last range with addr that was unmapped, if it is among the
// newest MaxPast.
func (t *Table) LastUnmapped(addr Addr) (Past, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	newest := t.past.number.Load() - t.past.gone
	for i := range uint64(len(t.past.ring)) {
		if p := &t.past.ring[(newest-i-1)%MaxPast]; p.First <= addr && addr <= p.Last {
			return *p, true
		}
	}
	return Past{}, false
}

// Forget drops what is remembered, for a new host. Numbers go on.
func (t *Table) Forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.past.gone, t.past.ring = t.past.number.Load(), nil
}
