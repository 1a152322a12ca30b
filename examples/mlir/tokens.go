// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
)

var engines = []string{"load", "store", "matrix", "vector"}

// overlap reports whether two instructions touch the same byte and one of them writes it.
func overlap(a, b access) bool {
	return a.space == b.space && (a.space > 0 || a.binding == b.binding) && a.lo < b.hi && b.lo < a.hi && (a.write || b.write)
}

// withoutDeadLoads leaves out loads of what is overwritten before anything reads it: bufferization copies what a result's place held before, and does not know that
// nothing of it remains.
func withoutDeadLoads(list []instruction) []instruction {
	dead := func(i int) bool {
		to := list[i].accesses[1]
		for _, later := range list[i+1:] {
			touched, gone := false, false
			for _, a := range later.accesses {
				a.write = true // for overlap: reading counts
				touched = touched || overlap(a, to)
			}
			for _, a := range later.accesses {
				gone = gone || a.whole && overlap(a, to) && a.lo <= to.lo && a.hi >= to.hi
			}
			reads := slices.ContainsFunc(later.accesses, func(a access) bool { return !a.write && overlap(to, a) })
			if touched {
				return gone && !reads
			}
		}
		return true
	}
	var kept []instruction
	for i, in := range list {
		if in.engine != "load" || !dead(i) {
			kept = append(kept, in)
		}
	}
	return kept
}

// withTokens gives the instructions the tokens that §5.5 asks for: one for each pair of engines, signalled behind an instruction and waited for before the first of the
// other engine that has to come after it. What an engine knows to be finished, also through others, it does not wait for.
func withTokens(list []instruction) []string {
	type clock [4]int // for each engine how many of its instructions are finished
	type state struct {
		count int
		known clock
	}
	var (
		now     [4]state
		done    = make([]clock, len(list)) // what is finished when an instruction is
		waits   = make([][]int, len(list)) // tokens
		signals = make([][]int, len(list))
		recent  [4][]int // instructions of an engine, in order
	)
	for i, in := range list {
		e := slices.Index(engines, in.engine)
		for f := range engines {
			if f == e {
				continue
			}
			// Backwards, the first one found is the last that matters.
			for n := len(recent[f]) - 1; n >= now[e].known[f]; n-- {
				j := recent[f][n]
				if !conflict(list[j], in) {
					continue
				}
				token := pair(f, e)
				signals[j] = append(signals[j], token)
				waits[i] = append(waits[i], token)
				for g := range engines {
					now[e].known[g] = max(now[e].known[g], done[j][g])
				}
				break
			}
		}
		now[e].count++
		now[e].known[e] = now[e].count
		done[i] = now[e].known
		recent[e] = append(recent[e], i)
	}
	var lines []string
	for i, in := range list {
		for len(waits[i]) > 1 {
			lines = append(lines, fmt.Sprintf("sync.%s wait=%d", in.engine, waits[i][0]))
			waits[i] = waits[i][1:]
		}
		line := in.text
		if len(waits[i]) == 1 {
			line += fmt.Sprintf(" wait=%d", waits[i][0])
		}
		if len(signals[i]) > 0 {
			line += fmt.Sprintf(" signal=%d", signals[i][0])
		}
		lines = append(lines, line)
		for _, s := range signals[i][min(1, len(signals[i])):] {
			lines = append(lines, fmt.Sprintf("sync.%s signal=%d", in.engine, s))
		}
	}
	return lines
}

func conflict(a, b instruction) bool {
	return slices.ContainsFunc(a.accesses, func(x access) bool {
		return slices.ContainsFunc(b.accesses, func(y access) bool { return overlap(x, y) })
	})
}

// pair is the token that engine from signals to engine to: 12 of the 16.
func pair(from, to int) int {
	if to > from {
		to--
	}
	return from*3 + to
}
