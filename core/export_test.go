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
