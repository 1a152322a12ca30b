// SPDX-License-Identifier: Apache-2.0

package gemm

import (
	"fmt"
	"runtime"
	"unsafe"
)

// Block sizes, for a second level of the cache of 1 MiB and more. A block of A
// is panelsPerBlock panels of rows by stepsPerBlock k-steps, at most 504 KiB; a
// block of B so many k-steps by columnPanels panels of columns, at most 256 KiB
// with AVX-512. One panel of A meets all of a block of B before the next does:
// it stays in the first level meanwhile.
const (
	stepsPerBlock  = 256
	panelsPerBlock = 36
	columnPanels   = 8
	passingBytes   = 96 << 10 // of C that only Done sees: it stays in the second level
)

// A product is dealt out in so many parts for each thread, of so many panels of rows or more: threads are not equally fast.
const (
	partsPerThread = 3
	leastPanels    = 6
)

// A product with fewer multiplications than grain for each thread is not split further; some microseconds of work. A
// goroutine that sleeps is woken for so many of them, because that takes time too.
const (
	grain    = 1 << 18
	wakeable = 4
)

// doneColumns divides the columns that Int8.Done is told of.
const doneColumns = 16

// slack is what packA512 may write behind a panel.
const slack = 16*14*4 + 64

// Engine multiplies. It owns scratch memory, and goroutines from the first product on that is worth several threads;
// it is for one caller at a time. The zero Engine is not usable; call New, and Close at the end.
type Engine struct {
	tier    *tier
	threads int
	alone   bool
	sharers int       // threads that do parts of its products with Join, its caller's among them, or 0
	grain   float64   // grain; tests split smaller products
	scratch []scratch // one for each thread
	workers workers

	job         job
	parts       int // of the product in progress
	comp, zeroB []int32
	lineWeights []byte    // of PackInt8Lines
	image       []byte    // with padding
	window      Window    // of image
	column      []float32 // of weights that were rows
	lines       depthwise // in progress instead of job
	packing     packing   // the same
	taps, pad   []byte    // of lines
	pixels      []*byte   // of byChannels
	windows     []*int32
	wide, row   []int32
}

// scratch belongs to one thread.
type scratch struct {
	a     []byte // packed block of A
	sums  []int32
	c     []int32                       // of products that are not stored
	zeros [2*alignment + alignment]byte // a row of a tile
	rows  [maxRows]*byte
	steps [quadRows]int
	block []byte    // of weights on their way to int8
	lines []byte    // gathered rows of a block, if A is not rows in memory
	wide  []float32 // maxRows rows of a block
}

// job is the product in progress. Pointers are to the first element.
type job struct {
	k            *kernel
	w            *Weights
	m            int
	src          source
	c            *byte // nil: each block of rows is for done alone
	ldc          int   // bytes
	load         bool
	comp         *int32 // for all columns, or nil
	zeroB        *int32 // zero points of all columns, or nil
	byRows       bool   // how the work is split
	mPanels      int
	nPanels      int
	panelBytes   int
	blockOfSteps int
	runs         runs        // of a window that is packed in place
	flip         uint32      // of activations
	stop         func() bool // or nil
	done         func(row, rows, column, columns int, c []int32, stride int)
}

// source is the left operand: rows, stride bytes apart, or those of a convolution.
type source struct {
	base   *byte
	stride int
	typ    Type
	conv   *Window // or nil
	// rows of the convolution are packed from where they lie
	inPlace bool
	pixels  []byte // what base and stride are for a convolution
	pad     byte
}

// New returns an engine for the fastest instructions that this processor has.
// It uses so many threads, the caller's among them, or GOMAXPROCS if threads is 0.
func New(threads int) *Engine { return newEngine(tiers()[0], threads) }

func newEngine(t *tier, threads int) *Engine {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	e := &Engine{tier: t, threads: threads, grain: grain, scratch: make([]scratch, threads)}
	for i := range e.scratch {
		e.scratch[i].sums = make([]int32, panelsPerBlock*maxRows)
	}
	e.workers = workers{most: threads - 1, part: e.part}
	return e
}

// Close ends the engine's goroutines. No product may be in progress; one that follows begins new goroutines.
func (e *Engine) Close() { e.workers.stop() }

// Help gives the engine's goroutines something to do besides products: f does a piece of it for a thread, from 1 on, or
// reports that there is none. It is called often, and does not wait. Call wakes goroutines that sleep.
func (e *Engine) Help(f func(thread int) bool) { e.workers.help = f }

// Call tells the engine's goroutines that there may be something to Help with. It is for the caller of products.
func (e *Engine) Call() { e.workers.call() }

// Alone says that products that follow are to be computed by the caller alone.
func (e *Engine) Alone(yes bool) { e.alone = yes }

// Share says that so many threads, the caller's among them, do parts of products that follow: those that call Join. With 0 they
// are its own goroutines again.
func (e *Engine) Share(threads int) {
	if e.sharers = threads; threads > 0 && e.workers.each == nil { // else it was ready for as many
		e.workers.ready(threads)
	}
	e.workers.open = threads > 0
}

// Join does parts of the product that of, of the same tier, has in progress, with the memory of e, which has none. It reports
// false if there are none.
func (e *Engine) Join(of *Engine) bool {
	w, s := &of.workers, &e.scratch[0]
	i := w.take(0)
	if i < 0 {
		return false
	}
	// The product cannot end now.
	of.room(s)
	done := int32(0)
	for ; i >= 0; i = w.take(0) {
		of.do(s, i)
		done++
	}
	if w.left.Add(-done) == 0 {
		w.ended <- struct{}{}
	}
	return true
}

// Tier names the instructions in use: "avx512", "avx2" or "go".
func (e *Engine) Tier() string { return e.tier.name }

// run computes e.job.
func (e *Engine) run() {
	j := &e.job
	k := j.k
	j.mPanels, j.nPanels = ceil(j.m, k.mr), ceil(j.w.N, k.nr)
	j.blockOfSteps = j.w.blockSteps()
	if j.src.conv != nil && !j.src.typ.wide() {
		j.src.inPlace = j.src.conv.inPlace(j.src.typ.Size(), j.w.line, k.elems)
		j.runs = j.src.conv.runs(j.src.typ.Size(), k.elems)
	}
	j.panelBytes = j.blockOfSteps * k.mr * word
	t := int(min(float64(e.most()), float64(j.m)*float64(j.w.N)*float64(j.w.K)/e.grain))
	t = max(1, min(t, max(j.mPanels, j.nPanels)))
	j.byRows = ceil(j.mPanels, t)*j.nPanels <= ceil(j.nPanels, t)*j.mPanels
	if e.sharers > 0 && e.alone && !j.byRows { // each part would pack all rows
		t = 1
	}
	e.parts = t
	if j.byRows && t > 1 {
		e.parts = t * max(1, min(partsPerThread, j.mPanels/leastPanels/t))
	}
	e.rooms(t)
	e.workers.run(t, e.parts, float64(j.m)*float64(j.w.N)*float64(j.w.K) >= 2*wakeable*e.grain)
	e.job = job{}
}

// rooms makes room in the memory of so many threads, as far as they are e's.
func (e *Engine) rooms(threads int) {
	for i := range min(threads, len(e.scratch)) {
		e.room(&e.scratch[i])
	}
}

// room makes s large enough for the parts of what is in progress.
func (e *Engine) room(s *scratch) {
	switch {
	case e.lines.groups > 0:
		e.lines.room(s)
		return
	case e.packing.w != nil:
		e.packing.room(s)
		return
	}
	j := &e.job
	s.a = grow(s.a, min(panelsPerBlock, j.mPanels)*j.panelBytes+slack)
	if j.src.conv != nil {
		s.lines = grow(s.lines, maxRows*j.blockOfSteps*j.k.elems*j.src.typ.Size())
	}
	if n := maxRows * j.blockOfSteps; j.src.typ.wide() && len(s.wide) < n {
		s.wide = make([]float32, n)
	}
}

// most is how many threads a product takes at most.
func (e *Engine) most() int {
	if e.sharers > 0 {
		return e.sharers
	}
	if e.alone {
		return 1
	}
	return e.threads
}

// part computes part i with the memory of a thread.
func (e *Engine) part(thread, i int) { e.do(&e.scratch[thread], i) }

// do computes part i with the memory of s, in which there is room.
func (e *Engine) do(s *scratch, i int) {
	if e.lines.groups > 0 {
		e.lines.run(e, s, i)
		return
	}
	if e.packing.w != nil {
		e.packing.part(s, i)
		return
	}
	j := &e.job
	m0, m1, n0, n1 := 0, j.mPanels, 0, j.nPanels
	if j.byRows {
		m0, m1 = share(j.mPanels, i, e.parts)
	} else {
		// Parts of columns begin at multiples of doneColumns.
		unit := ceil(doneColumns, j.k.nr)
		n0, n1 = share(ceil(j.nPanels, unit), i, e.parts)
		n0, n1 = n0*unit, min(n1*unit, j.nPanels)
	}
	if n0 < n1 {
		block := panelsPerBlock
		if j.c == nil {
			cols := min(n1*j.k.nr, j.w.N) - n0*j.k.nr
			block = max(1, min(block, passingBytes/(cols*j.k.mr*word)))
			s.c = growTo(s.c, block*j.k.mr*cols)
		}
		for ; m0 < m1; m0 += block {
			j.rowBlock(s, m0, min(m0+block, m1), n0, n1)
		}
	}
	clear(s.rows[:])
}

// share is the i-th of parts nearly equal parts of n.
func share(n, i, parts int) (from, to int) { return n * i / parts, n * (i + 1) / parts }

// rowBlock computes panels m0 … m1 of rows in panels n0 … n1 of columns, one
// block of K after the other.
func (j *job) rowBlock(s *scratch, m0, m1, n0, n1 int) {
	k, w := j.k, j.w
	if j.zeroB != nil {
		clear(s.sums)
	}
	// The part of C: where row m0·mr begins in column n0·nr.
	row, column := m0*k.mr, n0*k.nr
	rows, columns := min(m1*k.mr, j.m)-row, min(n1*k.nr, w.N)-column
	c, ldc := (*byte)(unsafe.Pointer(unsafe.SliceData(s.c))), columns*word
	if j.c != nil {
		c, ldc = add(j.c, row*j.ldc+column*word), j.ldc
	}
	a, zeros := aligned(s.a), aligned(s.zeros[:])
	bBlock := w.data()
	steps := ceil(w.depth, k.elems)
	for step := 0; step < steps; step += j.blockOfSteps {
		if j.stop != nil && j.stop() {
			return
		}
		now := min(j.blockOfSteps, steps-step)
		for p := m0; p < m1; p++ {
			dst := add(a, (p-m0)*j.panelBytes)
			j.packPanel(s, dst, p, step*k.elems, min(now*k.elems, w.depth-step*k.elems))
			if j.zeroB != nil {
				k.sumA(&s.sums[(p-m0)*maxRows], dst, now)
			}
		}
		load := 1
		if step == 0 && !j.load {
			load = 0
		}
		comp, compStep := zeros, 0
		if step == 0 && j.comp != nil {
			comp, compStep = (*byte)(unsafe.Pointer(j.comp)), k.nr*word
		}
		for n := n0; n < n1; n += columnPanels {
			cols := min(columnPanels*k.nr, min(n1*k.nr, w.N)-n*k.nr)
			b := add(bBlock, n*now*k.nr*word)
			for p := m0; p < m1; p++ {
				rows := min(k.mr, j.m-p*k.mr)
				to := add(c, (p-m0)*k.mr*ldc+(n-n0)*k.nr*word)
				k.tiles[rows](now, add(a, (p-m0)*j.panelBytes), b, to, ldc, add(comp, n*compStep), compStep, rows, cols, load)
			}
		}
		bBlock = add(bBlock, j.nPanels*now*k.nr*word)
	}
	if j.zeroB != nil {
		for r := range rows {
			zero := (*int32)(unsafe.Add(unsafe.Pointer(j.zeroB), column*word))
			k.subScaled((*int32)(unsafe.Pointer(add(c, r*ldc))), zero, s.sums[r/k.mr*maxRows+r%k.mr], columns)
		}
	}
	if j.done != nil {
		j.done(row, rows, column, columns, int32s(c, (rows-1)*ldc/word+columns), ldc/word)
	}
}

// packPanel packs n elements from element k0 on of the rows of panel p.
func (j *job) packPanel(s *scratch, dst *byte, p, k0, n int) {
	k := j.k
	rows := min(k.mr, j.m-p*k.mr)
	size := j.src.typ.Size()
	if j.src.inPlace {
		j.packRuns(s, dst, p, k0*size, n*size)
		return
	}
	if j.src.conv == nil && k.packLines != nil && rows == k.mr && !j.src.typ.wide() {
		k.packLines(dst, add(j.src.base, p*k.mr*j.src.stride+k0*size), j.src.stride, n*size, 1, 0, j.flip)
		return
	}
	if j.src.conv != nil {
		for r := range rows {
			line := s.lines[r*n*size:][:n*size]
			j.src.conv.gather(line, j.src.pixels, p*k.mr+r, k0*size, size, j.src.pad)
			s.rows[r] = &line[0]
		}
		k0 = 0
	} else {
		for r := range rows {
			s.rows[r] = add(j.src.base, (p*k.mr+r)*j.src.stride)
		}
	}
	for r := rows; r < k.mr; r++ { // a row that does not exist is packed like the last, and not used
		s.rows[r] = s.rows[rows-1]
	}
	if !j.src.typ.wide() {
		k.packA(dst, &s.rows[0], k0*size, n*size, j.flip)
		return
	}
	for r := range k.mr {
		to := s.wide[r*j.blockOfSteps:][:n]
		if r < rows {
			k.widen(to, add(s.rows[r], k0*size), j.src.typ)
		}
		s.rows[r] = (*byte)(unsafe.Pointer(&to[0]))
	}
	k.packA(dst, &s.rows[0], 0, n*word, 0)
}

// ceil is ⌈a/b⌉.
func ceil(a, b int) int { return (a + b - 1) / b }

// grow returns a buffer with room for n bytes behind an aligned address.
func grow(b []byte, n int) []byte {
	if len(b) >= n+alignment {
		return b
	}
	return make([]byte, n+alignment)
}

// growTo returns b with room for n bytes.
func growTo[T any](b []T, n int) []T {
	if cap(b) < n {
		return make([]T, n)
	}
	return b[:n]
}

// check panics unless rows > 0 rows of n > 0 elements lie in size elements, stride ≥ 0 apart if there are several.
func check(what string, rows, n, stride, size int) {
	if rows <= 0 || n <= 0 || n > size || rows > 1 && (stride < 0 || stride > 0 && (size-n)/stride < rows-1) {
		panic(fmt.Sprintf("gemm: BUG: %s: %d rows of %d, stride %d, in %d", what, rows, n, stride, size))
	}
}
