// SPDX-License-Identifier: Apache-2.0

package core

import (
	"slices"
	"sync"

	"npuemu/ecc"
)

// strikes are uncorrectable errors that have not hit yet. Safe for concurrent use.
type strikes struct {
	mu    sync.Mutex
	addrs []uint64
}

// Strike makes the granule of the scratchpad that holds addr poisoned in the next program, when the scratchpad has been
// cleared for it (§12.2). It is safe for concurrent use, and reports false if there are ecc.MaxPoisoned others.
func (c *Core) Strike(addr uint64) bool {
	s := &c.strikes
	s.mu.Lock()
	defer s.mu.Unlock()
	at := addr &^ (ecc.Granule - 1)
	if slices.Contains(s.addrs, at) {
		return true
	}
	if len(s.addrs)+c.poison.Count() >= ecc.MaxPoisoned {
		return false
	}
	s.addrs = append(s.addrs, at)
	return true
}

// land makes the granules of s poisoned in p.
func (s *strikes) land(p *ecc.Poison) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.addrs {
		p.Mark(a)
	}
	s.addrs = s.addrs[:0]
}

// poisoned returns the fault of reading n bytes of the scratchpad at local, or nil.
func (c *unit) poisoned(local, n int) *Fault {
	if at, bad := c.poison.Find(uint64(local), uint64(n)); bad {
		return &Fault{Status: StatusPoison, Info: at}
	}
	return nil
}

// poisonedRows is poisoned for rows of n bytes, stride bytes apart.
func (c *unit) poisonedRows(local, rows, stride, n int) *Fault {
	if !c.poison.Some() {
		return nil
	}
	for r := range rows {
		if f := c.poisoned(local+r*stride, n); f != nil {
			return f
		}
	}
	return nil
}
