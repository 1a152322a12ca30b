// SPDX-License-Identifier: Apache-2.0

package timing

// Layer is a convolution, or a product as a convolution of 1×1: an input of M
// lines of one pixel.
type Layer struct {
	Name             string
	InH, InW         uint64 // lines and pixels, padding among them
	KernelH, KernelW uint64
	Channels         uint64 // of the input
	Filters          uint64 // of the output
	StepY, StepX     uint64
	Groups           uint64 // divides Channels and Filters
}

// outH and outW round up, as SCALE-Sim does.
func (l *Layer) outH() uint64    { return ceilDiv(l.InH-l.KernelH+l.StepY, l.StepY) }
func (l *Layer) outW() uint64    { return ceilDiv(l.InW-l.KernelW+l.StepX, l.StepX) }
func (l *Layer) filters() uint64 { return l.Filters / l.Groups } // of a group

// MACs returns the multiply-accumulates of l.
func (l *Layer) MACs() uint64 {
	return l.outH() * l.outW() * l.Filters * l.KernelH * l.KernelW * l.Channels / l.Groups
}

// Bound is what a layer, or a part of a program, waits for most of its time.
type Bound uint8

// What may bound.
const (
	ByArray Bound = iota
	ByMemory
	ByScratchpad
	ByVector
	ByWeights  // of programs: PRELOAD
	ByDispatch // of programs: the sequencer
	ByLatency  // of programs: instructions wait for each other
	bounds
)

var boundNames = [...]string{"array", "memory", "scratchpad", "vector", "weights", "dispatch", "latency"}

// Bounds are all of them, in their order.
func Bounds() (l []Bound) {
	for b := range bounds {
		l = append(l, b)
	}
	return l
}

// String returns the name as tables have it.
func (b Bound) String() string { return boundNames[b] }

// LayerEstimate is what the model says of a layer.
type LayerEstimate struct {
	Layer
	Cycles  uint64 // from the first load to the last store
	Compute uint64 // of them the array works
	Read    uint64 // bytes from device memory, whole bursts
	Written uint64 // bytes to it
	Tiles   uint64
	Bound   Bound
}

// Utilization is the share of the array's multiply-accumulates that were used.
func (e *LayerEstimate) Utilization(c Config) float64 {
	return utilization(e.MACs(), e.Cycles, c)
}

// Intensity is the layer's multiply-accumulates for each byte of device memory.
func (e *LayerEstimate) Intensity() float64 { return intensity(e.MACs(), e.Read+e.Written) }

// Layers estimates layers one after the other (§13.5): int8 operands in device memory,
// results requantized to int8, in programs that overlap loads, products, vector
// work and stores as well as tiles and double buffering allow. c and the layers
// are valid (Validate, ReadLayers).
func Layers(layers []Layer, c Config) []LayerEstimate {
	estimates := make([]LayerEstimate, len(layers))
	known := make(map[Layer]int) // networks repeat layers
	for i, l := range layers {
		name := l.Name
		l.Name = ""
		first, again := known[l]
		if again {
			estimates[i] = estimates[first]
		} else {
			known[l] = i
			estimates[i] = estimate(&l, &c)
		}
		estimates[i].Name = name
	}
	return estimates
}

// tiling is how a layer is cut: into lines of the output, output channels, and
// input channels, whose sums are added up in the accumulators. In a layer of groups a tile has
// whole groups, and channels is those of its input.
type tiling struct {
	lines, filters, channels uint64
	weightsOuter             bool // a tile of weights stays for all lines; otherwise lines stay for all weights
}

// work is what a tile asks of each part of the card.
type work struct {
	array, vector, spad, read, rows, written uint64
}

// cut is a layer and how it is cut.
type cut struct {
	l *Layer
	c *Config
	t tiling
}

// inLines returns the input lines that n output lines need.
func (x *cut) inLines(n uint64) uint64 { return min((n-1)*x.l.StepY+x.l.KernelH, x.l.InH) }

// row returns the bytes that device memory moves for n bytes in a row.
func (x *cut) row(n uint64) uint64 { return ceilDiv(n, uint64(x.c.Burst)) * uint64(x.c.Burst) }

// input returns the bytes of a tile's input, and the rows that they come in.
func (x *cut) input(lines, channels uint64) (bytes, rows uint64) {
	in := x.inLines(lines)
	if channels == x.l.Channels {
		return x.row(in * x.l.InW * channels), 1
	}
	return in * x.l.InW * x.row(channels), in * x.l.InW
}

// weights returns the bytes of a tile's weights. They lie in the order of
// tiles: a compiler packs them.
func (x *cut) weights(filters, channels uint64) uint64 {
	if x.l.Groups > 1 {
		return x.row(x.l.KernelH * x.l.KernelW * x.l.Channels / x.l.Groups * filters)
	}
	return x.row(x.l.KernelH * x.l.KernelW * channels * filters)
}

// output returns the bytes and rows of a tile's results.
func (x *cut) output(lines, filters uint64) (bytes, rows uint64) {
	pixels := lines * x.l.outW()
	if filters == x.l.Filters {
		return x.row(pixels * filters), 1
	}
	return pixels * x.row(filters), pixels
}

// fits reports whether two tiles of everything are in local memory at once.
func (x *cut) fits() bool {
	t := &x.t
	pixels := t.lines * x.l.outW()
	depth := t.channels
	if x.l.Groups > 1 {
		depth = x.l.Channels / x.l.Groups
	}
	in := x.inLines(t.lines) * x.l.InW * t.channels
	spad := 2 * (in + x.l.KernelH*x.l.KernelW*depth*t.filters + pixels*t.filters)
	return spad <= uint64(x.c.Scratchpad) && 2*4*pixels*t.filters <= uint64(x.c.Accumulators)
}

// product returns what the array does for a tile.
func (x *cut) product(lines, filters, channels uint64) product {
	p := product{m: lines * x.l.outW(), n: filters, k: x.l.KernelH * x.l.KernelW * channels, groups: 1, passes: 1}
	p.line = p.m
	if x.l.KernelH*x.l.KernelW > 1 {
		p.line = x.l.outW()
	}
	if g := x.l.Groups; g > 1 {
		p.groups = filters / (x.l.Filters / g)
		p.n, p.k = x.l.Filters/g, x.l.KernelH*x.l.KernelW*x.l.Channels/g
	}
	return p
}

// part is some of the pieces that a dimension is cut into: all alike.
type part struct {
	size, count uint64
	first, last bool
}

// parts cuts n into pieces of size: the first, those in the middle, the last.
// It returns how many of p are used.
func parts(n, size uint64, p *[3]part) int {
	pieces := ceilDiv(n, size)
	edge := n - (pieces-1)*size
	switch pieces {
	case 1:
		p[0] = part{edge, 1, true, true}
		return 1
	case 2:
		p[0], p[1] = part{size, 1, true, false}, part{edge, 1, false, true}
		return 2
	}
	p[0], p[1], p[2] = part{size, 1, true, false}, part{size, pieces - 2, false, false}, part{edge, 1, false, true}
	return 3
}

// tile returns the work of a tile of the given parts. resident says that the
// input, or the weights, are still there from the tile before.
func (x *cut) tile(lines, filters, channels part, inputThere, weightsThere bool) work {
	var w work
	p := x.product(lines.size, filters.size, channels.size)
	d := x.c.Dataflow
	w.array = p.steady(x.c, d)
	w.spad = p.spadBytes(x.c, d, p.groups*p.m*p.k, p.groups*p.k*p.n)
	if !inputThere {
		bytes, rows := x.input(lines.size, channels.size)
		w.read += bytes
		w.rows += rows
	}
	if !weightsThere {
		w.read += x.weights(filters.size, channels.size)
		w.rows++
	}
	if channels.last {
		bytes, rows := x.output(lines.size, filters.size)
		w.written = bytes
		w.rows += rows
		w.vector = p.m * ceilDiv(filters.size, x.c.lanes())
		w.spad += p.m * filters.size
	}
	w.spad += w.read + w.written
	return w
}

// memory returns the cycles of w's transfers: whole bursts, a cycle for each row
// at least, and the latency of the first of them.
func (w *work) memory(c *Config) uint64 {
	if w.read+w.written == 0 {
		return 0
	}
	return uint64(c.DRAMLatency) + max(w.rows, ceilDiv(w.read+w.written, uint64(c.DRAMWidth)))
}

// estimate cuts l in the way that a bound makes look best, then adds up the
// classes of its tiles.
func estimate(l *Layer, c *Config) LayerEstimate {
	best, found := search(l, c, uint64(c.Rows), uint64(c.Cols))
	if !found { // not even as little as fills the array once
		best, _ = search(l, c, 1, 1)
	}
	return best.total()
}

// search tries all sizes from the given channels and filters on. It reports
// whether any fits; if none does, the cut is the smallest.
func search(l *Layer, c *Config, channels, filters uint64) (best cut, found bool) {
	best = cut{l: l, c: c, t: smallest(l)}
	least := ^uint64(0)
	out := l.outH()
	for lines := uint64(1); ; lines = min(2*lines, out) {
		for f := firstFilters(l, filters); ; f = min(2*f, l.Filters) {
			for ch := firstChannels(l, channels, f); ; ch = min(2*ch, l.Channels) {
				x := cut{l: l, c: c, t: tiling{lines: lines, filters: f, channels: ch}}
				if !x.fits() {
					break // more channels do not fit either
				}
				for _, x.t.weightsOuter = range [...]bool{false, true} {
					if n := x.bound(); n < least {
						best, least, found = x, n, true
					}
				}
				if ch == l.Channels || l.Groups > 1 {
					break
				}
			}
			if f == l.Filters {
				break
			}
		}
		if lines == out {
			break
		}
	}
	return best, found
}

// smallest is the tiling of a layer that does not fit otherwise: the model
// then goes on as if it did.
func smallest(l *Layer) tiling {
	if l.Groups > 1 {
		return tiling{lines: 1, filters: l.Filters / l.Groups, channels: l.Channels / l.Groups}
	}
	return tiling{lines: 1, filters: 1, channels: 1}
}

func firstFilters(l *Layer, filters uint64) uint64 {
	if l.Groups > 1 {
		return l.Filters / l.Groups
	}
	return min(filters, l.Filters)
}

func firstChannels(l *Layer, channels, filters uint64) uint64 {
	if l.Groups > 1 {
		return filters / (l.Filters / l.Groups) * (l.Channels / l.Groups)
	}
	return min(channels, l.Channels)
}

// kinds returns the parts of all three dimensions. Those of a layer of groups
// have no channels of their own: filters bring them.
func (x *cut) kinds(lines, filters, channels *[3]part) (nl, nf, nc int) {
	nl = parts(x.l.outH(), x.t.lines, lines)
	nf = parts(x.l.Filters, x.t.filters, filters)
	if x.l.Groups > 1 {
		return nl, nf, parts(1, 1, channels)
	}
	return nl, nf, parts(x.l.Channels, x.t.channels, channels)
}

// each calls f for each class of equal tiles with their number.
func (x *cut) each(f func(w work, count uint64)) {
	var lines, filters, channels [3]part
	nl, nf, nc := x.kinds(&lines, &filters, &channels)
	whole := nc == 1 // sums are not split: what the outer loop holds stays
	for _, li := range lines[:nl] {
		for _, fi := range filters[:nf] {
			for _, ch := range channels[:nc] {
				if g := x.l.Groups; g > 1 {
					ch.size = fi.size / (x.l.Filters / g) * (x.l.Channels / g)
				}
				weightsThere := whole && !li.first && (x.t.weightsOuter || nf == 1)
				inputThere := whole && !fi.first && x.l.Groups == 1 && (!x.t.weightsOuter || nl == 1)
				f(x.tile(li, fi, ch, inputThere, weightsThere), li.count*fi.count*ch.count)
			}
		}
	}
}

// bound is a quick estimate of total, to choose by: the most that one part of
// the card has to do, and the first tile's loads.
func (x *cut) bound() uint64 {
	t, l := &x.t, x.l
	nl, nf := ceilDiv(l.outH(), t.lines), ceilDiv(l.Filters, t.filters)
	nc := uint64(1)
	if l.Groups == 1 {
		nc = ceilDiv(l.Channels, t.channels)
	}
	in, rows := x.input(t.lines, t.channels)
	out, outRows := x.output(t.lines, t.filters)
	w := x.weights(t.filters, t.channels)
	inTimes, weightTimes := nl*nf*nc, nl*nf*nc
	if nc == 1 {
		if t.weightsOuter || nf == 1 {
			weightTimes = nf
		}
		if l.Groups == 1 && (!t.weightsOuter || nl == 1) {
			inTimes = nl
		}
	}
	p := x.product(t.lines, t.filters, t.channels)
	array := nl * nf * nc * p.steady(x.c, x.c.Dataflow)
	memory := nl*nf*nc*uint64(x.c.DRAMLatency) +
		max((in*inTimes+w*weightTimes+out*nl*nf)/uint64(x.c.DRAMWidth), rows*inTimes+outRows*nl*nf)
	// Traffic costs power even where it costs no time.
	return max(array, memory) + memory/32 + (in+w+out)/uint64(x.c.DRAMWidth)
}

// total adds up the tiles (§13.5.3): each takes as long as the slowest part of
// the card; the first loads, and the last results' way out, nothing hides.
func (x *cut) total() LayerEstimate {
	e := LayerEstimate{Layer: *x.l}
	var by [bounds]uint64
	var lead, trail uint64
	x.each(func(w work, count uint64) {
		times := [bounds]uint64{ByArray: w.array, ByMemory: w.memory(x.c), ByScratchpad: ceilDiv(w.spad, x.c.ports()), ByVector: w.vector}
		slowest := ByArray
		for b, t := range times {
			if t > times[slowest] {
				slowest = Bound(b)
			}
		}
		by[slowest] += count * times[slowest]
		e.Cycles += count * times[slowest]
		e.Compute += count * w.array
		e.Read += count * w.read
		e.Written += count * w.written
		e.Tiles += count
		if lead == 0 { // the first class has the first tile
			first := work{read: w.read, rows: w.rows}
			lead = first.memory(x.c)
		}
		last := work{written: w.written}
		trail = w.vector + last.memory(x.c)
	})
	p := product{passes: 1}
	e.Cycles += lead + p.fill(x.c, x.c.Dataflow) + skew(x.c) + trail
	for b, n := range by {
		if n > by[e.Bound] {
			e.Bound = Bound(b)
		}
	}
	return e
}
