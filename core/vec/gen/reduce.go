// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Reductions have 16 partial results (§6.11): one register, or two.
const partial = 16

// lanesOf are the registers of 16 words with the same value.
func lanesOf(c constant) []vec {
	var a []vec
	for range partial / lanes() {
		a = append(a, all(c))
	}
	return a
}

// sixteen is the loop of a reduction: some is called for each register of 16
// elements, with its offset in bytes.
func sixteen(n reg.GPVirtual, pointers []reg.GPVirtual, some func(i, off int, t *tail)) {
	advance := func() {
		for _, p := range pointers {
			g.ADDQ(imm(4*partial), p)
		}
	}
	blocks(n, partial, advance, func(last bool) {
		t := make([]*tail, partial/lanes())
		if last {
			t = newTails(n, len(t))
		}
		for i, t := range t {
			some(i, i*w.bytes, t)
		}
	})
}

// fold combines 16 words in the order of §6.11: j with j + 8, then + 4, + 2, + 1.
func fold(f string, a []vec) reg.GPVirtual {
	y := g.YMM()
	if w.wide {
		g.VEXTRACTF64X4(imm(1), a[0], y)
		emit(f, y, a[0].AsY(), y)
	} else {
		emit(f, a[1], a[0], y)
	}
	x := g.XMM()
	g.VEXTRACTF128(imm(1), y, x)
	emit(f, x, y.AsX(), x)
	for _, order := range []uint64{0x4e, 0xb1} {
		o := g.XMM()
		g.VPSHUFD(imm(order), x, o)
		emit(f, o, x, x)
	}
	r := g.GP32()
	g.VMOVD(x, r)
	return r
}

// broadcastParam is a parameter of 32 bits in all words.
func broadcastParam(name string) vec {
	v, x := newVec(), g.XMM()
	g.VMOVD(g.Load(g.Param(name), g.GP32()), x)
	g.VPBROADCASTD(x, v)
	return v
}

func zeroVec() vec { return all(bits(0)) }

func reductions() {
	for _, r := range []struct {
		index    int
		name     string
		identity uint32
		f        string
	}{
		{0, "sumInt", 0, "VPADDD"},
		{1, "largestInt", 1 << 31, "VPMAXSD"},
		{2, "leastInt", math.MaxInt32, "VPMINSD"},
		{3, "sumFloat", 0, "VADDPS"},
	} {
		register("reduce", r.index, r.name)
		begin(r.name, "func(x *uint32, n int) uint32", "reduces n elements.")
		x, n := param("x"), param("n")
		rest := all(bits(r.identity))
		acc := lanesOf(bits(r.identity))
		sixteen(n, []reg.GPVirtual{x}, func(i, off int, t *tail) {
			emit(r.f, t.keep(loadTail(at(x, off), t), rest), acc[i], acc[i])
		})
		g.Store(fold(r.f, acc), g.ReturnIndex(0))
		g.VZEROUPPER()
		g.RET()
	}

	for _, r := range []struct {
		index    int
		name     string
		identity uint32
		f        string
	}{{1, "largestFloat", 1 << 31, "VPMAXSD"}, {2, "leastFloat", math.MaxInt32, "VPMINSD"}} {
		register("extreme", r.index, r.name)
		begin(r.name, "func(x *uint32, n int) (extreme, most uint32)",
			"returns the extreme of n numbers, as an int32 that is ordered like them, and\nthe largest of their encodings without the sign, doubled: it tells of NaN.")
		x, n := param("x"), param("n")
		rest := all(bits(r.identity))
		acc, most := lanesOf(bits(r.identity)), lanesOf(bits(0))
		sixteen(n, []reg.GPVirtual{x}, func(i, off int, t *tail) {
			v := loadTail(at(x, off), t)
			key := xor(v, shift("VPSRLD", shift("VPSRAD", v, 31), 1))
			emit(r.f, t.keep(key, rest), acc[i], acc[i])
			emit("VPMAXUD", op("VPADDD", v, v), most[i], most[i])
		})
		g.Store(fold(r.f, acc), g.ReturnIndex(0))
		g.Store(fold("VPMAXUD", most), g.ReturnIndex(1))
		g.VZEROUPPER()
		g.RET()
	}

	register("sumSquares", nil, "sumSquares")
	begin("sumSquares", "func(x *uint32, c uint32, n int) uint32", "is the sum of (x − c)² of n numbers.")
	x, n := param("x"), param("n")
	c := broadcastParam("c")
	zero := zeroVec()
	acc := lanesOf(bits(0))
	sixteen(n, []reg.GPVirtual{x}, func(i, off int, t *tail) {
		d := t.keep(sub(loadTail(at(x, off), t), c), zero)
		emit("VFMADD231PS", d, d, acc[i])
	})
	g.Store(fold("VADDPS", acc), g.ReturnIndex(0))
	g.VZEROUPPER()
	g.RET()

	fourRows("sums", "adds n numbers of each of four rows, stride bytes apart.", func(_ int, v vec, _ *tail, acc vec) {
		emit("VADDPS", v, acc, acc) // beyond the last ones +0, which leaves a sum alone
	})
	fourRows("squares", "adds (x − c)² of n numbers of each of four rows, stride bytes apart; the sums\ncome in place of c.", func(row int, v vec, t *tail, acc vec) {
		d := t.keep(sub(v, broadcast(2, at(rowSums, 4*row))), rowZero)
		emit("VFMADD231PS", d, d, acc)
	})

	register("expSum", nil, "expSum")
	begin("expSum", "func(z, x *uint32, m uint32, n int) uint32", "makes z[i] the exponential of x[i] − m, and returns the sum of n of them.\nm is finite and no x[i] is above it, or NaN.")
	z, x, n := param("z"), param("x"), param("n")
	m := broadcastParam("m")
	zero = zeroVec()
	acc = lanesOf(bits(0))
	sixteen(n, []reg.GPVirtual{x, z}, func(i, off int, t *tail) {
		d := sub(loadTail(at(x, off), t), m)
		e := scaled(parts(d, nil, true))
		storeTail(e, at(z, off), t)
		emit("VADDPS", t.keep(e, zero), acc[i], acc[i])
	})
	g.Store(fold("VADDPS", acc), g.ReturnIndex(0))
	g.VZEROUPPER()
	g.RET()

	register("layer", nil, "layer")
	begin("layer", "func(z, x, gain, bias *uint32, mean, r uint32, n int)", "makes z[i] (x[i] − mean)·r·gain[i] + bias[i].")
	z, x, n = param("z"), param("x"), param("n")
	gain, bias := param("gain"), param("bias")
	mean, r := broadcastParam("mean"), broadcastParam("r")
	sixteen(n, []reg.GPVirtual{x, z, gain, bias}, func(_, off int, t *tail) {
		v := mul(sub(loadTail(at(x, off), t), mean), r)
		v = fma(v, loadTail(at(gain, off), t), loadTail(at(bias, off), t))
		storeTail(canon(v), at(z, off), t)
	})
	g.VZEROUPPER()
	g.RET()

	register("rms", nil, "rms")
	begin("rms", "func(z, x, gain *uint32, r uint32, n int)", "makes z[i] x[i]·r·gain[i].")
	z, x, n = param("z"), param("x"), param("n")
	gain, r = param("gain"), broadcastParam("r")
	sixteen(n, []reg.GPVirtual{x, z, gain}, func(_, off int, t *tail) {
		v := mul(mul(loadTail(at(x, off), t), r), loadTail(at(gain, off), t))
		storeTail(canon(v), at(z, off), t)
	})
	g.VZEROUPPER()
	g.RET()
}

// rowSums has what fourRows stores; rowZero is 0.
var (
	rowSums reg.GPVirtual
	rowZero vec
)

// fourRows is a sum of each of four rows: their chains of additions do not wait
// for each other. some adds v, elements of a row, to acc.
func fourRows(name, doc string, some func(row int, v vec, t *tail, acc vec)) {
	register(name, nil, name)
	begin(name, "func(x *uint32, stride, n int, sums *uint32)", doc)
	x, stride, n := param("x"), param("stride"), param("n")
	rowSums, rowZero = param("sums"), zeroVec()
	rows := []reg.GPVirtual{x}
	var acc [][]vec
	for i := range 4 {
		if i > 0 {
			p := g.GP64()
			g.LEAQ(operand.Mem{Base: rows[i-1], Index: stride, Scale: 1}, p)
			rows = append(rows, p)
		}
		acc = append(acc, lanesOf(bits(0)))
	}
	sixteen(n, rows, func(i, off int, t *tail) {
		for row, p := range rows {
			some(row, loadTail(at(p, off), t), t, acc[row][i])
		}
	})
	for row := range rows {
		g.MOVL(fold("VADDPS", acc[row]), at(rowSums, 4*row))
	}
	g.VZEROUPPER()
	g.RET()
}
