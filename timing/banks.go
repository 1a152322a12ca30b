// SPDX-License-Identifier: Apache-2.0

package timing

import "npuemu/core/isa"

// Banks of the scratchpad (§13.4.6): addresses are interleaved over them, bankWidth bytes at a time.

// bankWidth returns the bytes that a bank moves in a cycle.
func (c *Config) bankWidth() uint64 {
	if c.BankWidth == 0 {
		return uint64(c.Rows)
	}
	return uint64(c.BankWidth)
}

// ports returns the bytes that the scratchpad moves in a cycle.
func (c *Config) ports() uint64 { return uint64(c.Banks) * c.bankWidth() }

// reach returns how many banks an operand's rows reach.
func (c *Config) reach(r isa.Rows) uint64 {
	banks, all := uint64(c.Banks), c.ports()
	if r.Outer*r.Inner == 1 {
		return banks
	}
	apart := all
	if r.Inner > 1 {
		apart = gcd(apart, r.InnerStride)
	}
	if r.Outer > 1 {
		apart = gcd(apart, r.OuterStride)
	}
	return min(banks, all/apart*ceilDiv(r.Bytes, c.bankWidth()))
}

// spread fills in k.held of the instruction w in a core with setup s, which passed Check.
func (c *Config) spread(w *isa.Word, s *isa.Setup, k *cost) {
	if k.spad <= k.busy*c.bankWidth() {
		return // a bank alone is fast enough
	}
	switch isa.Opcode(w[0]) {
	case isa.OpTranspose, isa.OpGather, isa.OpScatter: // all over the place
		return
	}
	var space [8]isa.Access
	list := isa.Accesses(space[:0], w, s)
	first := 0
	for first < len(list) && list[first].Space != isa.Scratchpad {
		first++
	}
	rest, held, meet := k.spad, uint64(0), false
	for i := len(list) - 1; i >= first; i-- {
		if list[i].Space != isa.Scratchpad {
			continue
		}
		bytes := min(rest, rowBytes(list[i].Rows))
		if i == first {
			bytes = rest // what is read again
		}
		rest -= bytes
		reach := c.reach(list[i].Rows)
		meet = meet || reach < uint64(c.Banks)
		held += ceilDiv(bytes*uint64(c.Banks), reach)
	}
	if meet {
		k.held = held
	}
}

// alone returns the speed of k with everything to itself, fixed-point.
func (c *Config) alone(k *cost) uint64 {
	if most := k.busy * c.ports(); k.held > most {
		return max(ratio(most, k.held), 1)
	}
	return 1 << fixed
}

// ratio returns a / b, which is less than 1, fixed-point.
func ratio(a, b uint64) uint64 {
	for a >= 1<<(63-fixed) {
		a, b = a>>1, b>>1
	}
	return a << fixed / b
}

// gcd returns the greatest common divisor; that of a and 0 is a.
func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
