// SPDX-License-Identifier: Apache-2.0

// Package ecc knows which granules of an error-correcting memory are poisoned
// (docs/spec/ras.md §12.2). The memory's owner asks before it reads and tells what it wrote.
package ecc

import (
	"sync"
	"sync/atomic"
)

const (
	// Granule is what an uncorrectable error makes unreadable, in bytes.
	Granule = 64

	// MaxPoisoned bounds the granules that a memory remembers, and so the time of a look: an operator makes
	// them one by one.
	MaxPoisoned = 1024
)

// Poison is the set of poisoned granules of one memory. The zero value is empty. It is safe for
// concurrent use; an access and an error that meet are not ordered.
type Poison struct {
	some     atomic.Bool
	mu       sync.Mutex
	granules map[uint64]uint64 // address → bit i: byte i was overwritten since; guarded by mu
}

// Some reports whether any granule is poisoned: the one branch that accesses pay for.
func (p *Poison) Some() bool { return p.some.Load() }

// Count returns how many granules are poisoned.
func (p *Poison) Count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.granules)
}

// Mark makes the granule that holds addr poisoned, and all of its bytes. It reports false if there are
// MaxPoisoned others.
func (p *Poison) Mark(addr uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := addr &^ (Granule - 1)
	if _, there := p.granules[at]; !there && len(p.granules) == MaxPoisoned {
		return false
	}
	if p.granules == nil {
		p.granules = map[uint64]uint64{}
	}
	p.granules[at] = 0
	p.some.Store(true)
	return true
}

// Find returns the first poisoned granule that n bytes at addr touch. The range does not pass 2⁶⁴.
func (p *Poison) Find(addr, n uint64) (granule uint64, found bool) {
	if n == 0 || !p.Some() {
		return 0, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	first, last := addr&^(Granule-1), addr+(n-1)
	for at := range p.granules {
		if at >= first && at <= last && (!found || at < granule) {
			granule, found = at, true
		}
	}
	return granule, found
}

// Overwritten is told that n bytes at addr have new values. A granule of which every byte was overwritten,
// by however many writes, is clean again. The range does not pass 2⁶⁴.
func (p *Poison) Overwritten(addr, n uint64) {
	if n == 0 || !p.Some() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	last := addr + (n - 1)
	for at, done := range p.granules {
		end := at + (Granule - 1)
		if end < addr || at > last {
			continue
		}
		from, to := max(addr, at)-at, min(last, end)-at
		done |= ^uint64(0) << from & (^uint64(0) >> (Granule - 1 - to))
		if done == ^uint64(0) {
			delete(p.granules, at)
		} else {
			p.granules[at] = done
		}
	}
	p.some.Store(len(p.granules) != 0)
}
