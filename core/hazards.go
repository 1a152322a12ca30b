// SPDX-License-Identifier: Apache-2.0

package core

import (
	"fmt"

	"npuemu/core/hazard"
	"npuemu/core/isa"
)

// Bounds of what is compared while a program runs (hazard.Tracker): most programs
// keep a few accesses. Beyond them a hazard may pass.
const (
	maxAccesses = 1024
	maxRows     = 4096
)

// maxHazards is how many pairs of instructions a program's hazards are told of.
const maxHazards = 8

// Hazard is a pair of instructions that tokens leave without an order (§5.5).
type Hazard struct{ hazard.Report }

// Race reports whether it is about who gets a token, not about bytes.
func (h Hazard) Race() bool { return h.Kind == hazard.Token }

// String tells of h for people.
func (h Hazard) String() string {
	if h.Race() {
		what := "signal"
		if h.Waiting {
			what = "wait for"
		}
		return fmt.Sprintf("instructions %d and %d %s token %d in no order", h.First.Index, h.Second.Index, what, h.Token)
	}
	verb := func(a hazard.At) string {
		if a.Write {
			return "writes"
		}
		return "reads"
	}
	where := [...]string{"scratchpad", "accumulators", "memory"}[h.Space]
	return fmt.Sprintf("instruction %d %s %s %#x, which instruction %d %s", h.Second.Index, verb(h.Second), where, h.Addr, h.First.Index, verb(h.First))
}

// Hazards returns the pairs of the last Run that were found first, until the next.
func (c *Core) Hazards() []Hazard { return c.hazards }

// Unused are tokens that nobody waited for when a program completed (§5.5).
type Unused struct {
	Token, Count uint8
	Instr        uint32 // that signalled the first of them
}

// String tells of u for people.
func (u Unused) String() string {
	return fmt.Sprintf("%d of token %d left at HALT, first signalled by instruction %d", u.Count, u.Token, u.Instr)
}

// Unused returns what was left of the last Run's tokens, if it ran to its end, until the next.
func (c *Core) Unused() []Unused { return c.unused }

// leftOver notes the tokens that are left at HALT.
func (c *Core) leftOver() {
	for id, n := range c.tokens {
		if n > 0 {
			_, from := c.tracker.Left(uint8(id))
			c.unused = append(c.unused, Unused{Token: uint8(id), Count: n, Instr: from.Index})
		}
	}
}

// track follows w, which was executed, and notes what no token orders.
func (c *Core) track(w *isa.Word, at *isa.Walker) {
	for _, r := range c.tracker.Step(w, &c.limits.Setup, uint32(at.Index()), at.Number(), c.base) {
		c.note(Hazard{r})
	}
}

// note keeps h unless its pair was noted before.
func (c *Core) note(h Hazard) {
	for _, n := range c.hazards {
		if n.Kind != h.Kind {
			continue
		}
		if n.First.Index == h.First.Index && n.Second.Index == h.Second.Index ||
			h.Race() && n.First.Index == h.Second.Index && n.Second.Index == h.First.Index {
			return
		}
	}
	if len(c.hazards) < maxHazards {
		c.hazards = append(c.hazards, h)
	}
}

// bus turns an offset in a binding into the address behind it.
func (c *Core) bus(a *isa.Access) {
	b := &c.bindings[a.Binding]
	a.Rows.Base += b.Addr
	a.Binding = b.Space
}
