// SPDX-License-Identifier: Apache-2.0

package timing

// product is a matrix product as the array sees it (§13.3): Groups of them, each
// m×k by k×n.
type product struct {
	m, n, k, groups uint64
	line            uint64 // rows of m that follow each other without a step aside: a convolution's output line
	passes          uint64 // cycles that an element takes on its way through a cell
}

// span is how long something keeps its unit, and how much longer its results take.
type span struct {
	busy uint64 // cycles until the unit can begin something else
	tail uint64 // cycles from then until the results are there
}

// folds returns how many tiles of the stationary operand p has, and the number
// of vectors that stream past each.
func (p product) folds(c *Config, d Dataflow) (folds, stream uint64) {
	r, cols := uint64(c.Rows), uint64(c.Cols)
	switch d {
	case OutputStationary:
		return p.groups * ceilDiv(p.m, r) * ceilDiv(p.n, cols), p.k
	case InputStationary:
		return p.groups * ceilDiv(p.k, r) * ceilDiv(p.m, cols), p.n
	}
	return p.groups * ceilDiv(p.k, r) * ceilDiv(p.n, cols), p.m
}

// streams returns the cycles that a tile of the stationary operand is streamed
// past. Without Stream, and in dataflows that do not stream m, that is a cycle
// for each vector; otherwise each piece of at most Stream vectors takes as long
// as a tile's way into the array at least.
func (p product) streams(c *Config, d Dataflow, stream uint64) uint64 {
	if c.Stream == 0 || d != WeightStationary {
		return stream * p.passes
	}
	piece, fill := uint64(c.Stream), p.fill(c, d)
	line := p.line / piece * max(piece*p.passes, fill)
	if rest := p.line % piece; rest > 0 {
		line += max(rest*p.passes, fill)
	}
	return p.m / p.line * line
}

// fill returns the cycles that a tile of the stationary operand takes on its way
// into the array, or the results' on their way out.
func (p product) fill(c *Config, d Dataflow) uint64 {
	if d == OutputStationary {
		return uint64(c.Rows)
	}
	return uint64(c.Rows) * p.passes
}

// skew is how much later than the first cell the last one is done.
func skew(c *Config) uint64 { return uint64(c.Rows) + uint64(c.Cols) - 2 }

// time returns how long the array works for p alone (§13.3.2).
func (p product) time(c *Config, d Dataflow) span {
	folds, stream := p.folds(c, d)
	stream = p.streams(c, d, stream)
	fill := p.fill(c, d)
	first := fill
	if d == OutputStationary {
		first = 0 // nothing is placed before; fill is the way out
	}
	if c.WeightBuffers == 1 {
		return span{busy: folds*(first+stream+skew(c)) - skew(c), tail: skew(c)}
	}
	return span{busy: first + (folds-1)*max(stream, fill) + stream, tail: skew(c)}
}

// steady returns p's cycles in the middle of others like it: neither the first
// tile's way in nor the last results' way out is visible.
func (p product) steady(c *Config, d Dataflow) uint64 {
	folds, stream := p.folds(c, d)
	stream = p.streams(c, d, stream)
	if c.WeightBuffers == 1 {
		s := p.time(c, d)
		return s.busy + s.tail
	}
	return folds * max(stream, p.fill(c, d))
}

// spadBytes returns what the array reads of the scratchpad, of activations and
// weights of so many bytes in all: the stationary operand once, the other once for
// each tile that it streams past.
func (p product) spadBytes(c *Config, d Dataflow, a, b uint64) uint64 {
	r, cols := uint64(c.Rows), uint64(c.Cols)
	switch d {
	case OutputStationary:
		return a*ceilDiv(p.n, cols) + b*ceilDiv(p.m, r)
	case InputStationary:
		return a + b*ceilDiv(p.m, cols)
	}
	return a*ceilDiv(p.n, cols) + b
}

// ScaleSim returns the compute cycles that SCALE-Sim v3 reports for l on the
// array of c ("Total Cycles" without stalls): tiles follow each other without
// overlap, and the count is that of the last cycle, from 0. A depthwise layer is
// as many layers of one channel, as the tool has it; their counts are added.
func ScaleSim(l Layer, c Config) uint64 {
	one := product{m: l.outH() * l.outW(), n: l.filters(), k: l.KernelH * l.KernelW * l.Channels / l.Groups, groups: 1, passes: 1}
	c.WeightBuffers, c.Stream = 1, 0
	s := one.time(&c, c.Dataflow)
	return l.Groups * (s.busy + s.tail - 1)
}
