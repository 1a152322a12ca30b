// SPDX-License-Identifier: Apache-2.0

package core

import (
	"encoding/binary"
	"slices"

	"npuemu/core/isa"
	"npuemu/core/systolic"
	"npuemu/core/vec"
	"npuemu/ecc"
)

// late is what instructions that have finished still have to do: a BIAS, or an integer product. They wait for the
// instruction that comes next in the order of execution. If that is the product that a BIAS was for, or the REQUANT of
// all of the product, they are computed in one pass, else first (Core.catchUp). So nobody can see that they were late: no
// instruction that reads or writes local memory comes between, and a program's end makes local memory invisible.
type late struct {
	bias bool
	rows isa.Bias

	product bool
	p       systolic.Product
	a, b    isa.Rows // operands in the scratchpad
	zeros   extent   // its table of zero points, or empty
	acc     int      // first accumulator
	seeded  bool     // the columns' sums begin with the row of rows
	weights uint64   // number of what lies in b (book)

	fused   bool // with requant
	requant isa.Requant
	passing bool // nobody else wants the sums
}

// later reports whether an instruction of opcode o leaves it to itself what late has to do.
func later(o isa.Opcode) bool {
	switch o {
	case isa.OpBias, isa.OpGemm, isa.OpConv, isa.OpRequant, isa.OpOperands, isa.OpWindow, isa.OpSyncLoad, isa.OpSyncStore, isa.OpSyncMatrix, isa.OpSyncVector:
		return true
	}
	return false
}

// catchUp does what is late.
func (c *Core) catchUp() {
	if c.late.bias || c.late.product {
		_ = c.compute() // no fault: it is not fused with a REQUANT
	}
}

// compute does what is late, now or as a task.
func (c *Core) compute() *Fault {
	l := &c.late
	if l.product {
		w := extentOf(l.b)
		l.weights = c.poison.book.number(w)
	}
	var f *Fault
	if c.apart {
		c.issueLate()
	} else {
		f = c.units[0].compute(l)
	}
	l.bias, l.product, l.seeded, l.fused = false, false, false, false
	return f
}

// lateBias takes note of a BIAS that passed its checks.
func (c *Core) lateBias(i isa.Bias) {
	c.catchUp()
	c.late.rows, c.late.bias = i, true
	if c.apart {
		c.accesses = c.access(c.accesses[:0], c.word)
	} else {
		c.ready(c.word)
	}
}

// lateProduct takes note of a product that passed its checks, with what is late before it.
func (c *Core) lateProduct(p *systolic.Product, a, b isa.Rows, acc uint32) {
	l := &c.late
	m := p.OutH * p.OutW
	seeded := l.bias && p.Accumulate && !p.A.Type.Float() && l.rows.Acc == acc && int(l.rows.M) == m && int(l.rows.N) == p.Cout &&
		(m == 1 || int(l.rows.AccStride/4) == p.AccStride)
	if seeded {
		l.bias, p.Accumulate = false, false
	} else {
		c.catchUp()
		c.accesses = c.accesses[:0]
	}
	l.p, l.a, l.b, l.zeros, l.acc, l.product, l.seeded = *p, a, b, extent{}, int(acc/4), true, seeded
	if p.BZeros != nil {
		base := uint64(c.limits.Setup.Operands.BZeros)
		l.zeros = extent{base, base + uint64(p.Cout)}
	}
	if c.apart {
		c.accesses = c.access(c.accesses, c.word)
	} else {
		c.ready(c.word)
	}
}

// fuses reports whether the late product and i, which passed its checks, can be computed in one pass.
func (c *Core) fuses(i *isa.Requant) bool { return !c.poison.Some() && c.late.fits(i) }

// fits reports whether i is the REQUANT of all of l's product, and can be computed with it.
func (l *late) fits(i *isa.Requant) bool {
	p := &l.p
	m, n := int(i.MX)*int(i.MY), int(i.N)
	if !l.product || p.A.Type.Float() || int(i.Acc/4) != l.acc || n != p.Cout || m != p.OutH*p.OutW || m > 1 && int(i.AccStride/4) != p.AccStride {
		return false
	}
	if columns := p.Cout / p.Groups; p.Groups > 1 && columns > 1 && columns%vec.Group != 0 {
		return false
	}
	// Results must not replace what the product still has to read.
	out := requantized(i)
	return !out.meets(extentOf(l.a)) && !out.meets(extentOf(l.b)) && !out.meets(l.zeros)
}

// requantized is what i writes to, and what lies between.
func requantized(i *isa.Requant) extent {
	from := uint64(i.Out)
	return extent{from, from + uint64(i.MY-1)*uint64(i.OutStrideY) + uint64(i.MX-1)*uint64(i.OutStrideX) + uint64(i.N)}
}

// compute does what l says. A fault is that of its REQUANT; the sums are there all the same if somebody else wants them.
func (c *unit) compute(l *late) (f *Fault) {
	fused := l.fused
	if fused {
		if f = c.setRequant(&l.requant); f != nil {
			if l.passing {
				return f
			}
			fused = false
		}
	}
	if l.bias || l.seeded {
		c.biasRow = slices.Grow(c.biasRow[:0], int(l.rows.N))[:l.rows.N]
		if raw, there := vec.Raw(c.biasRow); there {
			copy(raw, c.spad[l.rows.Bias:])
		} else {
			for j := range c.biasRow {
				c.biasRow[j] = int32(binary.LittleEndian.Uint32(c.spad[int(l.rows.Bias)+4*j:]))
			}
		}
	}
	if l.bias {
		for r := range int(l.rows.M) {
			copy(c.acc[int(l.rows.Acc/4)+r*int(l.rows.AccStride/4):], c.biasRow)
		}
	}
	if !l.product {
		return f
	}
	o := systolic.Options{Stop: c.stopped, Weights: l.weights}
	if o.Weights != 0 {
		o.Weights += c.numbers
	}
	if l.seeded {
		o.Seed = c.biasRow
	}
	if fused {
		c.fused, o.Done, o.Passing = l.requant, c.fusedPart, l.passing
	}
	c.array.Do(&l.p, c.acc[l.acc:], c.spad[l.a.Base:], c.spad[l.b.Base:], o)
	if fused {
		out := requantized(&l.requant)
		c.poison.Overwritten(out.from, out.to-out.from)
	}
	return f
}

// requantizedPart is what a product tells of its parts, from several threads.
func (c *unit) requantizedPart(row, rows, column, columns int, sums []int32, stride int) {
	i := &c.fused
	channel := column
	if !i.PerChannel {
		channel = 0
	}
	mx := int(i.MX)
	if int(i.OutStrideY) == mx*int(i.OutStrideX) { // lines follow each other
		mx *= int(i.MY)
	}
	y, x := row/mx, row%mx
	for r := 0; r < rows; y, x = y+1, 0 {
		now := min(rows-r, mx-x)
		to := int(i.Out) + y*int(i.OutStrideY) + x*int(i.OutStrideX) + column
		c.requantRows(i, c.spad[to:], sums[r*stride:], stride, now, columns, channel)
		r += now
	}
}

// The vector engine takes requantBlock channels at a time. Rows that are no multiple of it are folded, some to one of at
// most mostFolded channels, if nothing is between them.
const (
	requantBlock = 64
	mostFolded   = 768
)

// folds returns how many rows of i become one: all parameters are there so often.
func folds(i *isa.Requant) int {
	f, n := 1, int(i.N)
	for n*f%requantBlock != 0 {
		f *= 2
	}
	if !i.PerChannel || int(i.OutStrideX) != n || n*f > mostFolded || int(i.MX)*int(i.MY) < 2*f {
		return 1
	}
	return f
}

// requantRows stores the results of rows of n accumulators, stride apart, the first of them of a channel, from out on.
func (c *unit) requantRows(i *isa.Requant, out []byte, sums []int32, stride, rows, n, channel int) {
	step := int(i.OutStrideX)
	if dense := step == n && stride == n; dense && !i.PerChannel {
		n, rows = n*rows, 1
	} else if f := c.folded; dense && f > 1 && n == int(i.N) && rows >= f {
		long := f * n
		c.requants.Rows(out, long, sums, long, rows/f, long, 0)
		done := rows / f * long
		if rows %= f; rows == 0 {
			return
		}
		out, sums = out[done:], sums[done:]
	}
	c.requants.Rows(out, step, sums, stride, rows, n, channel)
}

// lookahead is how many instructions passing looks at.
const lookahead = 64

// passing reports whether nobody reads the accumulators of the late product any more, but for the REQUANT that runs: in
// the order in which instructions will be executed, which no data decides, the program ends or all of them are replaced
// before anything else touches one. A fault is an end too.
func (c *Core) passing() bool {
	l := &c.late
	walkers, more, tokens, setup := c.walkers, c.more, c.tokens, c.limits.Setup
	engine := int(isa.ClassVector) - 1
	for range lookahead {
		w := &walkers[engine]
		tokens[w.Word()[3]&15] += w.Word()[3] >> 4
		more[engine] = w.Next(isa.Class(engine + 1))
		next, _ := c.choose(&walkers, &more, &tokens)
		if next < 0 {
			return true
		}
		engine = next
		word := walkers[engine].Word()
		tokens[word[2]&15] -= word[2] >> 4
		switch isa.Opcode(word[0]) {
		case isa.OpOperands:
			setup.Operands = isa.DecodeOperands(word)
		case isa.OpWindow:
			setup.Window = isa.DecodeWindow(word)
		case isa.OpSyncLoad, isa.OpSyncStore, isa.OpSyncMatrix, isa.OpSyncVector, isa.OpStamp, isa.OpPreload:
		case isa.OpLoad:
			if isa.DecodeLoad(word).Acc {
				return false
			}
		case isa.OpStore:
			if isa.DecodeStore(word).Acc {
				return false
			}
		case isa.OpFill:
			if isa.DecodeFill(word).Acc {
				return false
			}
		case isa.OpBias:
			i := isa.DecodeBias(word)
			return l.replaced(int(i.Acc/4), int(i.M), int(i.N), int(i.AccStride/4))
		case isa.OpGemm:
			i := isa.DecodeGemm(word)
			return !i.Accumulate && l.replaced(int(i.Acc/4), int(i.M), int(i.N), int(setup.Operands.AccStride/4))
		case isa.OpConv:
			i := isa.DecodeConv(word)
			return !i.Accumulate && l.replaced(int(i.Acc/4), int(i.OutH)*int(i.OutW), int(i.Cout), int(setup.Operands.AccStride/4))
		default:
			return false
		}
	}
	return false
}

// replaced reports whether m rows of n accumulators from acc on, stride apart, are all of the late product's or more.
func (l *late) replaced(acc, m, n, stride int) bool {
	rows := l.p.OutH * l.p.OutW
	return acc == l.acc && m >= rows && n >= l.p.Cout && (rows == 1 || stride == l.p.AccStride)
}

// extent is the scratchpad from from on, before to.
type extent struct{ from, to uint64 }

func extentOf(r isa.Rows) extent {
	return extent{r.Base, r.Base + (r.Outer-1)*r.OuterStride + (r.Inner-1)*r.InnerStride + r.Bytes}
}

func (s extent) meets(t extent) bool { return s.from < t.to && t.from < s.to }

// guard knows what a scratchpad needs to be told when it is written to: poison, and weights that were packed.
type guard struct {
	ecc.Poison
	book  book
	apart bool // instructions finish in another order than that of the program: the sequencer tells book
}

// Overwritten is told that n bytes at addr have new values.
func (g *guard) Overwritten(addr, n uint64) {
	g.Poison.Overwritten(addr, n)
	if !g.apart {
		g.book.changed(extent{addr, addr + n})
	}
}

// book numbers what lay in parts of the scratchpad, so that a unit knows what it has packed already. A number is never
// used again.
type book struct {
	entries [bookEntries]struct {
		extent
		number uint64 // 0: it has changed since
	}
	oldest int
	last   uint64
}

const bookEntries = 8

// number returns that of what lies in e now.
func (b *book) number(e extent) uint64 {
	for i := range b.entries {
		if k := &b.entries[i]; k.number != 0 && k.extent == e {
			return k.number
		}
	}
	b.last++
	b.oldest = (b.oldest + 1) % bookEntries
	k := &b.entries[b.oldest]
	k.extent, k.number = e, b.last
	return b.last
}

// changed is told that e has new values.
func (b *book) changed(e extent) {
	for i := range b.entries {
		if k := &b.entries[i]; k.number != 0 && k.meets(e) {
			k.number = 0
		}
	}
}
