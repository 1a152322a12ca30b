// SPDX-License-Identifier: Apache-2.0

package core

import (
	"npuemu/core/hazard"
	"npuemu/core/isa"
)

// Local memory is zero when a program begins (§5.1). It is cleared as far as instructions come to it, and not where the
// first that does replaces all that is there: most programs fill what they use, and megabytes take a while.

// blankBlock is how many bytes are cleared at a time.
const blankBlock = 4096

// blank is which blocks of a memory still hold what another program left.
type blank struct {
	stale []uint64 // a bit for each
	left  int
	size  uint64 // bytes of the memory
}

// all says that all of the first size bytes are stale.
func (b *blank) all(size int) {
	b.left, b.size = (size+blankBlock-1)/blankBlock, uint64(size)
	if words := (b.left + 63) / 64; cap(b.stale) < words {
		b.stale = make([]uint64, words)
	} else {
		b.stale = b.stale[:words]
	}
	for i := range b.stale {
		b.stale[i] = ^uint64(0)
	}
}

// touch calls clear for stale blocks of [from, to), which is in the memory; replaced says that all of that is written to before
// anybody reads there.
func (b *blank) touch(from, to uint64, replaced bool, clear func(from, to int)) {
	for n := from / blankBlock; n*blankBlock < to; n++ {
		if b.stale[n/64]>>(n%64)&1 == 0 {
			continue
		}
		b.stale[n/64] &^= 1 << (n % 64)
		b.left--
		first, last := n*blankBlock, min((n+1)*blankBlock, b.size)
		if !replaced || first < from || last > to {
			clear(int(first), int(last))
		}
	}
}

// touch makes local memory what it has to be for an instruction of opcode o with the accesses of list.
func (c *Core) touch(o isa.Opcode, list []isa.Access) {
	if c.blankSpad.left == 0 && c.blankAcc.left == 0 {
		return
	}
	replaces := false
	switch o {
	case isa.OpLoad, isa.OpFill, isa.OpBias, isa.OpRequant, isa.OpElement, isa.OpTable, isa.OpAddq: // what they read comes first in list
		replaces = true
	case isa.OpGemm:
		replaces = !isa.DecodeGemm(c.word).Accumulate
	case isa.OpConv:
		replaces = !isa.DecodeConv(c.word).Accumulate
	}
	for i := range list {
		a := &list[i]
		replaced := replaces && a.Write && a.Rows.Inner == 1 && a.Rows.Outer == 1
		switch a.Space {
		case isa.Scratchpad:
			c.blankSpad.touch(a.Rows.Base, hazard.End(&a.Rows), replaced, c.clearSpad)
		case isa.Accumulators:
			c.blankAcc.touch(a.Rows.Base, hazard.End(&a.Rows), replaced, c.clearAcc)
		}
	}
}

// clear clears bytes of local memory that are stale.
func (c *Core) clear(acc bool, from, to int) {
	if acc {
		clear(c.acc[from/4 : to/4])
	} else {
		clear(c.spad[from:to])
	}
	if c.noted != nil {
		c.noted.blanks = append(c.noted.blanks, blanked{acc, from, to})
	}
}
