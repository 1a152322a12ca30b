// SPDX-License-Identifier: Apache-2.0

package core

// Courses returns how many programs' courses c has.
func (c *Core) Courses() (n int) {
	for _, p := range c.known {
		if p.course != nil {
			n++
		}
	}
	return n
}

// Joined returns how many products of c's courses have the REQUANT of a later place, and of how many the sums are nowhere.
func (c *Core) Joined() (joined, passing int) {
	for _, p := range c.known {
		if p.course == nil {
			continue
		}
		for _, t := range p.course.tasks {
			if t.last == t.number {
				continue
			}
			if joined++; t.late.passing {
				passing++
			}
		}
	}
	return joined, passing
}

// Tasks returns how many tasks the latest course of c has.
func (c *Core) Tasks() int { return len(c.known[0].course.tasks) }
