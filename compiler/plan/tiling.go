// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// tiling is how a product is cut: into blocks of groups, of them channels of the result,
// lines and pixels of the result, and channels of the input.
type tiling struct {
	gt, ct, th, tw, kt int
	aBytes, wBytes     int // of a buffer of input, and of weights with their tables
	oBytes, accBytes   int
	na, nw, no, nacc   int // buffers
	nt                 int // of the chain behind it
	weightsOuter       bool
	tiles              int
	ahead              bool // sums of a tile are begun before the results of the one before are made
	cost               float64
}

// rowBytes is the size of one channel's weights of kt input channels.
func (p *product) rowBytes(kt int) int { return int(p.b.Bytes(uint64(p.kh * p.kw * kt))) }

// tables is the size of what comes with the weights of ct channels.
func (p *product) tables(ct int) int {
	n := 0
	if p.bias != nil {
		n += up(4 * ct)
	}
	if p.finish.params != nil {
		if p.finish.perChannel {
			n += up(isa.ParamSize * ct)
		} else {
			n += up(isa.ParamSize)
		}
	}
	if p.zeros != nil {
		n += up(ct)
	}
	return n
}

// inLines is how many input lines th output lines need, no more than there are.
func span(t, step, dilation, kernel, have int) int {
	return min((t-1)*step+(kernel-1)*dilation+1, have)
}

// measure completes t, and reports whether it fits.
func (p *product) measure(t *tiling, spad, acc int) bool {
	cg := p.cin / p.groups
	cin := t.gt * cg
	if t.kt < cg {
		cin = t.kt
	}
	ih, iw := span(t.th, p.sy, p.dy, p.kh, p.h), span(t.tw, p.sx, p.dx, p.kw, p.w)
	t.aBytes = up(int(p.a.Bytes(uint64(ih * iw * cin))))
	if p.flat {
		t.wBytes = up(t.kt * int(p.b.Bytes(uint64(t.ct))))
	} else {
		t.wBytes = up(t.ct * p.rowBytes(min(t.kt, cg)))
	}
	t.wBytes += p.tables(t.ct)
	m := t.th * t.tw
	t.accBytes = up(4 * m * t.ct)
	t.oBytes = 0
	if f := &p.finish; f.out != systolic.Int32 && f.out != systolic.FP32 {
		t.oBytes = up(m * t.ct * size(f.out))
	}
	whole := t.ct == p.cout && (t.tw == p.ow || t.th == 1) // the results of a tile follow each other
	if p.in.stays() {
		t.aBytes = 0
		if p.pointwise() && t.tw < p.ow && t.th > 1 {
			return false
		}
	}
	if p.tail == nil && p.out.stays() {
		t.oBytes = 0
		if !whole && (p.finish.params == nil || p.finish.out != systolic.Int8 || p.cout > math.MaxUint16) {
			return false
		}
	}
	perGroup := ceil(p.cout/p.groups, t.ct)
	if t.gt > 1 {
		perGroup = 1
	}
	ctiles := ceil(p.groups, t.gt) * perGroup
	stiles := p.n * ceil(p.oh, t.th) * ceil(p.ow, t.tw)
	ktiles := ceil(cg, t.kt)
	atiles := stiles * ktiles
	if p.groups > 1 {
		atiles *= ceil(p.groups, t.gt)
	}
	t.na, t.nw, t.no, t.nacc = min(2, atiles), min(2, ctiles*ktiles), min(2, stiles*ctiles), min(2, stiles*ctiles)
	t.nacc = min(t.nacc, acc/t.accBytes)
	if p.flat && (t.ct*int(p.b.Bytes(1)) > math.MaxUint16 || t.kt > math.MaxUint16) {
		return false
	}
	tail, tail1, tight := 0, 0, false // tight: with one buffer each, what is loaded waits for the array
	t.nt = t.no
	if p.tail != nil {
		var acc1 int
		tail, _ = p.tail.spans(m*t.ct, t.nt)
		tail1, acc1 = p.tail.spans(m*t.ct, 1)
		t.nacc = min(t.nacc, max(acc-acc1, 0)/t.accBytes)
		if p.tail.rowwise && t.ct < p.cout || p.tail.stays && !whole {
			return false
		}
	}
	if t.nacc == 0 || t.ct > math.MaxUint16/4 || m > math.MaxUint16 && p.kh*p.kw > 1 {
		return false
	}
	extra := 0
	for _, s := range p.finish.steps {
		if s.y != nil {
			extra += up(4 * t.ct)
		}
	}
	if t.na*t.aBytes+t.nw*t.wBytes+t.no*t.oBytes+tail+extra > spad {
		tight = stiles*ctiles*ktiles > 1
		t.na, t.nw, t.no, t.nt = 1, 1, min(1, t.no), 1
		if t.aBytes+t.wBytes+t.oBytes+tail1+extra > spad {
			return false
		}
	}
	// How often a buffer of input is loaded with the weights outside, or itself, and the same of weights: what
	// comes around again while it is still there is not loaded.
	all := stiles * ctiles * ktiles
	t.tiles = all
	aIn, wIn, aOnce, wOnce := all, all, all, all
	if ktiles <= t.na {
		aOnce = atiles
	}
	if ktiles <= t.nw {
		wOnce = ctiles * ktiles
	}
	if p.groups == 1 && atiles <= t.na || p.groups > 1 && ktiles == 1 {
		aIn = atiles
	}
	if ctiles*ktiles <= t.nw {
		wIn = wOnce
	}
	// Halos are loaded with each tile; the edges of the image are not.
	lines := min(ceil(p.oh, t.th)*ih, p.h+(ceil(p.oh, t.th)-1)*max((p.kh-1)*p.dy+1-p.sy, 0))
	pixels := min(ceil(p.ow, t.tw)*iw, p.w+(ceil(p.ow, t.tw)-1)*max((p.kw-1)*p.dx+1-p.sx, 0))
	a := 0.0
	if !p.in.stays() {
		a = float64(p.n*lines*pixels) * float64(p.a.Bytes(uint64(p.cin))) / float64(atiles)
	}
	w := float64(p.b.Bytes(uint64(p.kh*p.kw*cg*p.cout)))/float64(ctiles*ktiles) + float64(p.tables(t.ct))
	// Rows that memory is asked for one by one.
	inRows, inRow, outRows, outRow := 1, 0, 1, 0
	switch {
	case p.in.stays():
		inRows = 0
	case cin < p.cin:
		inRows, inRow = ih*iw, cin*size(p.a)
	case iw < p.w:
		inRows, inRow = ih, iw*cin*size(p.a)
	}
	switch {
	case p.tail == nil && p.out.stays():
		outRows = 0
	case t.ct < p.cout:
		outRows, outRow = m, t.ct*size(p.finish.out)
	case t.tw < p.ow:
		outRows, outRow = t.th, t.tw*t.ct*size(p.finish.out)
	}
	a += float64(inRows) * rowCost(inRow)
	if p.flat && t.ct < p.cout {
		w += float64(t.kt) * rowCost(t.ct*int(p.b.Bytes(1)))
	} else if t.kt < cg {
		w += float64(t.ct*p.kh*p.kw) * rowCost(int(p.b.Bytes(uint64(t.kt))))
	}
	outer, inner := w*float64(wOnce)+a*float64(aIn), a*float64(aOnce)+w*float64(wIn)
	t.weightsOuter = outer <= inner
	moved := min(outer, inner) + float64(outRows*stiles*ctiles)*rowCost(outRow) + p.results()
	array := p.arrayCycles(t) * float64(all) * perCycle
	vector := p.vectorCycles(t) * float64(stiles*ctiles) * perCycle
	// The tables of a tile are there until its results are made.
	t.ahead = t.nacc > 1 && (ktiles == 1 && t.nw > 1 || ctiles*ktiles == 1)
	if p.bias != nil && !t.ahead {
		array += vector
		vector = 0
	}
	// What takes longest is waited for, and of the others what comes before the first tile's and behind the last one's.
	longest := max(moved, array, vector)
	t.cost = longest + (moved+array+vector-longest)/float64(all)
	if tight {
		t.cost = moved + array + vector
	}
	if t.na+t.nw < 4 && stiles*ctiles > 1 && t.nacc < 2 {
		t.cost *= 1.2 // nothing overlaps
	}
	t.cost += perTile * float64(all)
	return true
}

// results is how many bytes are stored, and loaded for what is behind the product.
func (p *product) results() float64 {
	n := float64(p.n * p.oh * p.ow * p.cout)
	if p.tail != nil {
		return n * float64(p.tail.perElement())
	}
	if p.out.stays() {
		return 0
	}
	return n * float64(size(p.finish.out))
}

// rowCost is what a row of so many bytes costs beside them: memory moves whole bursts (§13.4.2).
func rowCost(bytes int) float64 {
	if bytes%burst == 0 {
		return perRow / 4
	}
	return perRow
}

// arrayCycles is how long the array takes for a tile: for each part of the weights that fits it the rows of the result,
// and no less than the part's own (§13.3).
func (p *product) arrayCycles(t *tiling) float64 {
	k, n := p.kh*p.kw*min(t.kt, p.cin/p.groups), t.ct/t.gt
	passes := max(int(p.a.Bytes(1)), int(p.b.Bytes(1)))
	return float64(t.gt * ceil(k, p.rows) * ceil(n, p.cols) * max(t.th*t.tw, p.rows) * passes)
}

// vectorCycles is how long the vector engine takes for the results of a tile: a pass over their rows for each of bias and scaling, and
// about three over all elements for each operation behind them (§13.4.3).
func (p *product) vectorCycles(t *tiling) float64 {
	m := t.th * t.tw
	rows, elements := 0, len(p.finish.steps)
	if p.bias != nil {
		rows++
	}
	if p.finish.params != nil {
		rows++
	} else if p.finish.out != systolic.Int32 && p.finish.out != systolic.FP32 {
		elements++
	}
	if p.tail != nil {
		elements += 3 * len(p.tail.links)
	}
	return float64(rows*m*ceil(t.ct, p.cols) + elements*ceil(m*t.ct, p.cols))
}

// perCycle is how many bytes are loaded in a cycle of the array, burst how many memory moves at once (§13.2, defaults).
const (
	perCycle = 32
	burst    = 64
)

// perTile is what a tile costs beside its bytes, in bytes that could be loaded meanwhile.
const perTile = 4096

// perRow is the same for a row of a transfer that is not whole bursts.
const perRow = 64

// mostTilings is how many tilings are generated and timed, mostTimes how much more than the best one such a tiling may seem to cost.
const (
	mostTilings = 6
	mostTimes   = 1.5
)

// choose returns the tilings that seem to cost the least, the best first: of those with the same channels one.
func (p *product) choose(spad, acc int) ([]tiling, error) {
	var best []tiling
	cg, ng := p.cin/p.groups, p.cout/p.groups
	try := func(t tiling) {
		if !p.measure(&t, spad, acc) {
			return
		}
		same := slices.IndexFunc(best, func(o tiling) bool { return o.gt == t.gt && o.ct == t.ct && o.kt == t.kt })
		switch {
		case same < 0:
			best = append(best, t)
		case t.cost < best[same].cost:
			best[same] = t
		}
	}
	spatial := func(gt, ct, kt int) {
		for tw := p.ow; ; tw = ceil(tw, 2) {
			lo, hi := 0, p.oh // lo fits; more lines are never worse
			for lo < hi {
				mid := (lo + hi + 1) / 2
				if t := (tiling{gt: gt, ct: ct, kt: kt, th: mid, tw: tw}); p.measure(&t, spad, acc) {
					lo = mid
				} else {
					hi = mid - 1
				}
			}
			if lo > 0 {
				for _, th := range []int{lo, ceil(p.oh, ceil(p.oh, lo)), ceil(lo, 2)} {
					try(tiling{gt: gt, ct: ct, kt: kt, th: th, tw: tw})
				}
			}
			if lo > 1 || tw == 1 {
				return
			}
		}
	}
	channels := func(gt, most, kt int) {
		for parts := 1; ; parts++ {
			ct := ceil(most, parts)
			if parts > 1 {
				ct = (ct + 15) &^ 15
				if gt > 1 || ct >= most && most > 16 || parts > 64 {
					break
				}
			}
			spatial(gt, ct, kt)
			if ct <= 16 {
				break
			}
		}
		if len(best) == 0 && gt == 1 {
			for ct := min(8, most); ct > 0; ct /= 2 {
				spatial(gt, ct, kt)
			}
		}
	}
	for gt := p.groups; gt > 0; gt = shrink(gt) {
		most := gt * ng
		if gt > 1 && gt*cg > math.MaxUint16 {
			continue
		}
		channels(gt, most, cg)
	}
	// A part of the sum at a time: integers may be added in any order (§6.8.1), and a 1 × 1
	// keeps its order of k.
	if p.groups == 1 && (!p.a.Float() || p.kh*p.kw == 1) {
		for kt := up(ceil(cg, 2)); kt >= align; kt = up(kt / 2) {
			channels(1, ng, kt)
			if kt == align {
				break
			}
		}
	}
	if len(best) == 0 {
		return nil, fmt.Errorf("no tile of %d × %d × %d weights and one line fits %d bytes of scratchpad and %d of accumulators", p.kh, p.kw, cg, spad, acc)
	}
	slices.SortStableFunc(best, func(a, b tiling) int { return cmp.Compare(a.cost, b.cost) })
	n := 1
	for n < min(len(best), mostTilings) && best[n].cost < mostTimes*best[0].cost {
		n++
	}
	return best[:n], nil
}

func shrink(n int) int {
	if n == 1 {
		return 0
	}
	return ceil(n, 2)
}
