// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// A tile of AVX-512 is up to rows512 rows of cols512 columns: 28 accumulators
// leave two registers for a row of B and two for broadcasts of A.
const (
	rows512 = 14
	cols512 = 32
)

// heights are the micro-kernels that exist; a tile takes the least that holds it.
var heights = []int{14, 11, 8, 6, 4, 2, 1}

const tileSignature = "func(k int, a, b, c *byte, ldc int, comp *byte, compStep, rows, cols, load int)"

// tile is the frame that all AVX-512 micro-kernels share: a loop over tiles side by side.
type tile struct {
	k, a, b, c, ldc, rows, cols reg.GPVirtual
	k1, k2                      reg.OpmaskVirtual
	acc                         [][2]reg.VecVirtual
	b0, b1                      reg.VecVirtual
	bc                          [2]reg.VecVirtual
}

// newTile begins a micro-kernel.
func newTile(mr int) *tile {
	t := &tile{b: param("b"), c: param("c"), ldc: param("ldc"), rows: param("rows"), cols: param("cols")}
	for range mr {
		t.acc = append(t.acc, [2]reg.VecVirtual{g.ZMM(), g.ZMM()})
	}
	t.b0, t.b1 = g.ZMM(), g.ZMM()
	t.bc = [2]reg.VecVirtual{g.ZMM(), g.ZMM()}
	t.k1, t.k2 = g.K(), g.K()
	g.Label("tile")
	g.Comment("Columns that exist: the low bits of two masks.")
	mask, cols := g.GP64(), g.GP64()
	g.MOVQ(operand.U32(cols512), cols)
	g.CMPQ(t.cols, cols)
	g.CMOVQLT(t.cols, cols)
	g.MOVQ(operand.U64(0xffffffffffffffff), mask)
	g.BZHIQ(cols, mask, mask)
	g.KMOVW(mask.As32(), t.k1)
	g.SHRQ(imm(16), mask)
	g.KMOVW(mask.As32(), t.k2)
	t.a, t.k = param("a"), param("k")
	return t
}

// end goes on with the next tile; b is already there.
func (t *tile) end() {
	g.ADDQ(imm(cols512*4), t.c)
	g.SUBQ(imm(cols512), t.cols)
	g.JG(operand.LabelRef("tile"))
	g.VZEROUPPER()
	g.RET()
}

// zero clears the accumulators.
func (t *tile) zero() {
	for _, r := range t.acc {
		for _, z := range r {
			g.VPXORD(z, z, z)
		}
	}
}

// loop runs step for all k.
func (t *tile) loop(multiply func(a, b, acc reg.VecVirtual)) {
	step := func(s int) {
		g.VMOVDQU32(at(t.b, s*cols512*4), t.b0)
		g.VMOVDQU32(at(t.b, s*cols512*4+64), t.b1)
		for i, r := range t.acc {
			bc := t.bc[i%2]
			g.VPBROADCASTD(at(t.a, (s*rows512+i)*4), bc)
			multiply(bc, t.b0, r[0])
			multiply(bc, t.b1, r[1])
		}
	}
	const unroll = 4
	steps := func() {
		for s := range unroll {
			step(s)
		}
		g.ADDQ(imm(unroll*rows512*4), t.a)
		g.ADDQ(imm(unroll*cols512*4), t.b)
	}
	g.Comment("Four k-steps at a time, at first asking for a row of C with each four.")
	fours, asks := g.GP64(), g.GP64()
	g.MOVQ(t.k, fours)
	g.SHRQ(imm(2), fours)
	g.MOVQ(t.rows, asks)
	g.CMPQ(fours, asks)
	g.CMOVQLT(fours, asks)
	p := g.GP64()
	g.MOVQ(t.c, p)
	g.SUBQ(asks, fours)
	g.TESTQ(asks, asks)
	g.JZ(operand.LabelRef("rest"))
	g.Label("asking")
	steps()
	g.PREFETCHT0(at(p, 0))
	g.PREFETCHT0(at(p, 64))
	g.ADDQ(t.ldc, p)
	g.DECQ(asks)
	g.JNZ(operand.LabelRef("asking"))
	g.TESTQ(fours, fours)
	g.JZ(operand.LabelRef("rest"))
	g.Label("four")
	steps()
	g.DECQ(fours)
	g.JNZ(operand.LabelRef("four"))
	g.Label("rest")
	g.ANDQ(imm(unroll-1), t.k)
	g.JZ(operand.LabelRef("done"))
	g.Label("one")
	step(0)
	g.ADDQ(imm(rows512*4), t.a)
	g.ADDQ(imm(cols512*4), t.b)
	g.DECQ(t.k)
	g.JNZ(operand.LabelRef("one"))
	g.Label("done")
}

// each runs body for the rows of C that exist; p is the row's address.
func (t *tile) each(name string, c reg.GPVirtual, body func(i int, p reg.GPVirtual)) {
	for i := range t.acc {
		if i > 0 {
			g.CMPQ(t.rows, imm(uint64(i)))
			g.JLE(operand.LabelRef(name))
			g.ADDQ(t.ldc, c)
		}
		body(i, c)
	}
	g.Label(name)
}

// vnni is int8 × int8 → int32: A is unsigned bytes (the activation plus 128),
// four to a word, B signed bytes, four to a word, comp what makes up for the 128.
func vnni() {
	for _, mr := range heights {
		begin(fmt.Sprintf("vnni%d", mr), tileSignature,
			fmt.Sprintf("vnni%d multiplies up to %d rows of unsigned by 32 columns of signed bytes.", mr, mr))
		comp, compStep := param("comp"), param("compStep")
		t := newTile(mr)
		for h := range t.acc[0] {
			g.VMOVDQU32(at(comp, 64*h), t.acc[0][h])
		}
		g.ADDQ(compStep, comp)
		for _, r := range t.acc[1:] {
			for h, z := range r {
				g.VMOVDQA64(t.acc[0][h], z)
			}
		}
		t.loop(func(a, b, acc reg.VecVirtual) { g.VPDPBUSD(b, a, acc) })
		load := param("load")
		g.TESTQ(load, load)
		g.JZ(operand.LabelRef("store"))
		p := g.GP64()
		g.MOVQ(t.c, p)
		t.each("store", p, func(i int, p reg.GPVirtual) {
			g.VPADDD(at(p, 0), t.acc[i][0], t.k1, t.acc[i][0])
			g.VPADDD(at(p, 64), t.acc[i][1], t.k2, t.acc[i][1])
		})
		g.MOVQ(t.c, p)
		t.each("end", p, func(i int, p reg.GPVirtual) {
			g.VMOVDQU32(t.acc[i][0], t.k1, at(p, 0))
			g.VMOVDQU32(t.acc[i][1], t.k2, at(p, 64))
		})
		t.end()
	}
}

// fma512 is the chain of fused multiply-adds over k, seeded from C.
func fma512() {
	for _, mr := range heights {
		begin(fmt.Sprintf("fma512x%d", mr), tileSignature,
			fmt.Sprintf("fma512x%d continues the chains of up to %d rows by 32 columns of C.", mr, mr))
		t := newTile(mr)
		t.zero()
		load := param("load")
		g.TESTQ(load, load)
		g.JZ(operand.LabelRef("seeded"))
		p := g.GP64()
		g.MOVQ(t.c, p)
		t.each("seeded", p, func(i int, p reg.GPVirtual) {
			g.VMOVDQU32_Z(at(p, 0), t.k1, t.acc[i][0])
			g.VMOVDQU32_Z(at(p, 64), t.k2, t.acc[i][1])
		})
		t.loop(func(a, b, acc reg.VecVirtual) { g.VFMADD231PS(b, a, acc) })

		g.Comment("One NaN for all.")
		nan := t.b0
		word := g.GP32()
		g.MOVL(operand.U32(0x7fc00000), word)
		g.VPBROADCASTD(word, nan)
		is := g.K()
		g.MOVQ(t.c, p)
		t.each("end", p, func(i int, p reg.GPVirtual) {
			for h, k := range []reg.OpmaskVirtual{t.k1, t.k2} {
				g.VCMPPS(imm(3), t.acc[i][h], t.acc[i][h], is)
				g.VMOVDQA32(nan, is, t.acc[i][h])
				g.VMOVDQU32(t.acc[i][h], k, at(p, 64*h))
			}
		})
		t.end()
	}
}

// packA512 turns up to 14 rows into columns of words.
func packA512() {
	begin("packA512", "func(dst *byte, rows **byte, off, n int, flip uint32)",
		"packA512 writes n bytes of 14 rows as words, 14 to a k-step, each xor flip.\n"+
			"It writes whole groups of 16 k-steps and 8 bytes more.")
	dst, rows, off, n := param("dst"), param("rows"), param("off"), param("n")
	flip := g.ZMM()
	g.VPBROADCASTD(g.Load(g.Param("flip"), g.GP32()), flip)
	mask := g.GP64()
	k := g.K()
	ones := g.GP64()
	g.MOVQ(operand.U64(0xffffffffffffffff), ones)
	g.Label("chunk")
	g.MOVQ(ones, mask)
	g.CMPQ(n, imm(64))
	g.JGE(operand.LabelRef("full"))
	g.BZHIQ(n, mask, mask)
	g.Label("full")
	g.KMOVQ(mask, k)
	var r [16]reg.VecVirtual
	p := g.GP64()
	for i := range r {
		r[i] = g.ZMM()
		if i >= rows512 {
			g.VPXORD(r[i], r[i], r[i])
			continue
		}
		g.MOVQ(at(rows, 8*i), p)
		g.VMOVDQU8_Z(indexed(p, off, 1, 0), k, r[i])
		g.VPXORD(flip, r[i], r[i])
	}
	storeRows512(r, dst)
	g.ADDQ(imm(16*rows512*4), dst)
	g.ADDQ(imm(64), off)
	g.SUBQ(imm(64), n)
	g.JG(operand.LabelRef("chunk"))
	g.VZEROUPPER()
	g.RET()
}

// storeRows512 writes 16 k-steps of 14 rows of words to dst.
func storeRows512(r [16]reg.VecVirtual, dst reg.GPVirtual) {
	out := transpose512(r)
	g.Comment("Ascending, so that each store overwrites the 8 bytes too many of the one before.")
	for i, o := range out {
		g.VMOVDQU32(o, at(dst, i*rows512*4))
	}
}

// transpose512 returns 16 columns of 16 rows of words.
func transpose512(r [16]reg.VecVirtual) (out [16]reg.VecVirtual) {
	g.Comment("A 16×16 transposition of words: pairs, quadruples, then 128-bit lanes.")
	var s [16]reg.VecVirtual
	for i := 0; i < 16; i += 2 {
		s[i], s[i+1] = g.ZMM(), g.ZMM()
		g.VPUNPCKLDQ(r[i+1], r[i], s[i])
		g.VPUNPCKHDQ(r[i+1], r[i], s[i+1])
	}
	var u [4][4]reg.VecVirtual // u[q][j]: rows 4q…, columns j, 4+j, 8+j, 12+j in the lanes
	for q := range u {
		lo, hi := s[4*q:4*q+2], s[4*q+2:4*q+4]
		for j := range u[q] {
			u[q][j] = g.ZMM()
			if j%2 == 0 {
				g.VPUNPCKLQDQ(hi[j/2], lo[j/2], u[q][j])
			} else {
				g.VPUNPCKHQDQ(hi[j/2], lo[j/2], u[q][j])
			}
		}
	}
	for j := range 4 {
		v := [4]reg.VecVirtual{g.ZMM(), g.ZMM(), g.ZMM(), g.ZMM()}
		g.VSHUFI32X4(imm(0x88), u[1][j], u[0][j], v[0])
		g.VSHUFI32X4(imm(0xdd), u[1][j], u[0][j], v[1])
		g.VSHUFI32X4(imm(0x88), u[3][j], u[2][j], v[2])
		g.VSHUFI32X4(imm(0xdd), u[3][j], u[2][j], v[3])
		for lane := range 4 {
			o := g.ZMM()
			sel := uint64(0x88)
			if lane >= 2 {
				sel = 0xdd
			}
			g.VSHUFI32X4(imm(sel), v[2+lane%2], v[lane%2], o)
			out[4*lane+j] = o
		}
	}
	return out
}

// packLines512 is packA512 of rows that are equally far apart, for several pieces of them.
func packLines512() {
	begin("packLines512", "func(dst, src *byte, stride, n, lines, apart int, flip uint32)",
		"packLines512 is packA512 of 14 rows stride bytes apart: n bytes from src on, then as many apart bytes further, for so many\n"+
			"lines. Each line begins with a k-step.")
	dst, src, stride, lines := param("dst"), param("src"), param("stride"), param("lines")
	flip := g.ZMM()
	g.VPBROADCASTD(g.Load(g.Param("flip"), g.GP32()), flip)
	mask, ones, p, left, to, from, size := g.GP64(), g.GP64(), g.GP64(), g.GP64(), g.GP64(), g.GP64(), g.GP64()
	g.MOVQ(operand.U64(0xffffffffffffffff), ones)
	g.Comment("Bytes of a packed line: ⌈n/4⌉ k-steps.")
	g.MOVQ(onStack("n"), size)
	g.ADDQ(imm(3), size)
	g.SHRQ(imm(2), size)
	g.IMUL3Q(imm(rows512*4), size, size)
	k := g.K()
	g.Label("line")
	g.MOVQ(onStack("n"), left)
	g.MOVQ(dst, to)
	g.MOVQ(src, from)
	g.Label("chunk")
	g.MOVQ(ones, mask)
	g.CMPQ(left, imm(64))
	g.JGE(operand.LabelRef("full"))
	g.BZHIQ(left, mask, mask)
	g.Label("full")
	g.KMOVQ(mask, k)
	g.MOVQ(from, p)
	var r [16]reg.VecVirtual
	for i := range r {
		r[i] = g.ZMM()
		if i >= rows512 {
			g.VPXORD(r[i], r[i], r[i])
			continue
		}
		g.VMOVDQU8_Z(at(p, 0), k, r[i])
		g.VPXORD(flip, r[i], r[i])
		if i < rows512-1 {
			g.ADDQ(stride, p)
		}
	}
	storeRows512(r, to)
	g.ADDQ(imm(16*rows512*4), to)
	g.ADDQ(imm(64), from)
	g.SUBQ(imm(64), left)
	g.JG(operand.LabelRef("chunk"))
	g.ADDQ(size, dst)
	g.ADDQ(onStack("apart"), src)
	g.DECQ(lines)
	g.JNZ(operand.LabelRef("line"))
	g.VZEROUPPER()
	g.RET()
}

// packB512 interleaves four rows of 32 bytes and sums the columns.
func packB512() {
	begin("packB512", "func(dst, src *byte, stride, steps, cols int, sums *int32)",
		"packB512 writes steps k-steps of 32 columns, of which cols exist, and adds\ntheir columns to the 32 sums.")
	dst, src, stride, steps, cols, sums := param("dst"), param("src"), param("stride"), param("steps"), param("cols"), param("sums")
	mask := g.GP64()
	k := g.K()
	g.MOVQ(operand.U64(0xffffffffffffffff), mask)
	g.BZHIQ(cols, mask, mask)
	g.KMOVD(mask.As32(), k)
	one := g.YMM()
	word := g.GP32()
	g.MOVL(operand.U32(0x01010101), word)
	g.VPBROADCASTD(word, one)
	var sum [4]reg.VecVirtual
	for i := range sum {
		sum[i] = g.YMM()
		g.VMOVDQU(at(sums, 32*i), sum[i])
	}
	stride3 := g.GP64()
	g.LEAQ(indexed(stride, stride, 2, 0), stride3)
	g.Label("step")
	var y [4]reg.VecVirtual
	for i, m := range []operand.Mem{at(src, 0), indexed(src, stride, 1, 0), indexed(src, stride, 2, 0), indexed(src, stride3, 1, 0)} {
		y[i] = g.YMM()
		g.VMOVDQU8_Z(m, k, y[i])
	}
	lo01, hi01, lo23, hi23 := g.YMM(), g.YMM(), g.YMM(), g.YMM()
	g.VPUNPCKLBW(y[1], y[0], lo01)
	g.VPUNPCKHBW(y[1], y[0], hi01)
	g.VPUNPCKLBW(y[3], y[2], lo23)
	g.VPUNPCKHBW(y[3], y[2], hi23)
	var q [4]reg.VecVirtual
	for i := range q {
		q[i] = g.YMM()
	}
	g.VPUNPCKLWD(lo23, lo01, q[0])
	g.VPUNPCKHWD(lo23, lo01, q[1])
	g.VPUNPCKLWD(hi23, hi01, q[2])
	g.VPUNPCKHWD(hi23, hi01, q[3])
	for i := range 4 {
		o := g.YMM()
		sel := uint64(0x20)
		if i >= 2 {
			sel = 0x31
		}
		g.VPERM2I128(imm(sel), q[i%2*2+1], q[i%2*2], o)
		g.VMOVDQU(o, at(dst, 32*i))
		g.VPDPBUSD(o, one, sum[i])
	}
	g.LEAQ(indexed(src, stride, 4, 0), src)
	g.ADDQ(imm(cols512*4), dst)
	g.DECQ(steps)
	g.JNZ(operand.LabelRef("step"))
	for i := range sum {
		g.VMOVDQU(sum[i], at(sums, 32*i))
	}
	g.VZEROUPPER()
	g.RET()
}

// packColumns512 turns up to 16 columns of weights that are rows in memory into half a panel.
func packColumns512() {
	begin("packColumns512", "func(dst *byte, columns **byte, off, n, cols int, sums *int32)",
		"packColumns512 writes n > 0 bytes, from byte off on, of 16 columns as words: half of each of ⌈n/4⌉ k-steps. It adds them to\n"+
			"the 16 sums. Columns from cols on are zeros, but have an address too.")
	dst, columns, off, n, sums := param("dst"), param("columns"), param("off"), param("n"), param("sums")
	mask, ones, steps, p := g.GP64(), g.GP64(), g.GP64(), g.GP64()
	k, exist := g.K(), g.K()
	g.MOVQ(operand.U64(0xffffffffffffffff), ones)
	g.MOVQ(onStack("cols"), p)
	g.BZHIQ(p, ones, mask)
	g.KMOVW(mask.As32(), exist)
	one, sum, word := g.ZMM(), g.ZMM(), g.GP32()
	g.MOVL(operand.U32(0x01010101), word)
	g.VPBROADCASTD(word, one)
	g.VMOVDQU32(at(sums, 0), sum)
	g.MOVQ(n, steps)
	g.ADDQ(imm(3), steps)
	g.SHRQ(imm(2), steps)
	g.Label("chunk")
	g.MOVQ(ones, mask)
	g.CMPQ(n, imm(64))
	g.JGE(operand.LabelRef("full"))
	g.BZHIQ(n, mask, mask)
	g.Label("full")
	g.KMOVQ(mask, k)
	var r [16]reg.VecVirtual
	for i := range r {
		r[i] = g.ZMM()
		g.MOVQ(at(columns, 8*i), p)
		g.VMOVDQU8_Z(indexed(p, off, 1, 0), k, r[i])
	}
	for i, o := range transpose512(r) {
		g.VMOVDQA32_Z(o, exist, o)
		g.VPDPBUSD(o, one, sum)
		g.VMOVDQU32(o, at(dst, i*cols512*4))
		g.DECQ(steps)
		g.JZ(operand.LabelRef("end"))
	}
	g.ADDQ(imm(16*cols512*4), dst)
	g.ADDQ(imm(64), off)
	g.SUBQ(imm(64), n)
	g.JMP(operand.LabelRef("chunk"))
	g.Label("end")
	g.VMOVDQU32(sum, at(sums, 0))
	g.VZEROUPPER()
	g.RET()
}

// sum512 sums the rows of packed A, and takes multiples of a row from rows of C.
func sum512() {
	begin("sumA512", "func(sums *int32, a *byte, steps int)",
		"sumA512 adds the bytes of each row of a packed panel to the 14 sums.")
	sums, a, steps := param("sums"), param("a"), param("steps")
	k := g.K()
	word := g.GP32()
	g.MOVL(operand.U32(1<<rows512-1), word)
	g.KMOVW(word, k)
	one, sum, v := g.ZMM(), g.ZMM(), g.ZMM()
	g.MOVL(operand.U32(0x01010101), word)
	g.VPBROADCASTD(word, one)
	g.VMOVDQU32_Z(at(sums, 0), k, sum)
	g.Label("step")
	g.VMOVDQU32_Z(at(a, 0), k, v)
	g.VPDPBUSD(one, v, sum)
	g.ADDQ(imm(rows512*4), a)
	g.DECQ(steps)
	g.JNZ(operand.LabelRef("step"))
	g.VMOVDQU32(sum, k, at(sums, 0))
	g.VZEROUPPER()
	g.RET()

	begin("subScaled512", "func(c, row *int32, scale int32, n int)",
		"subScaled512 subtracts scale·row[i] from c[i] for n values.")
	c, row, n := param("c"), param("row"), param("n")
	scale := g.ZMM()
	g.VPBROADCASTD(g.Load(g.Param("scale"), g.GP32()), scale)
	mask, ones := g.GP64(), g.GP64()
	g.MOVQ(operand.U64(0xffffffffffffffff), ones)
	k = g.K()
	g.Label("some")
	g.MOVQ(ones, mask)
	g.CMPQ(n, imm(16))
	g.JGE(operand.LabelRef("sixteen"))
	g.BZHIQ(n, mask, mask)
	g.Label("sixteen")
	g.KMOVW(mask.As32(), k)
	x, y := g.ZMM(), g.ZMM()
	g.VMOVDQU32_Z(at(row, 0), k, x)
	g.VMOVDQU32_Z(at(c, 0), k, y)
	g.VPMULLD(scale, x, x)
	g.VPSUBD(x, y, y)
	g.VMOVDQU32(y, k, at(c, 0))
	g.ADDQ(imm(64), row)
	g.ADDQ(imm(64), c)
	g.SUBQ(imm(16), n)
	g.JG(operand.LabelRef("some"))
	g.VZEROUPPER()
	g.RET()
}

// widen512 makes binary32 of what is shorter.
func widen512() {
	type variant struct {
		name, doc string
		size      uint8 // bytes
		convert   func(from operand.Mem, k reg.OpmaskVirtual, to reg.VecVirtual)
	}
	var low7, nan, scale reg.VecVirtual
	constant := func(v uint32) reg.VecVirtual {
		z, word := g.ZMM(), g.GP32()
		g.MOVL(operand.U32(v), word)
		g.VPBROADCASTD(word, z)
		return z
	}
	for _, v := range []variant{
		{"widenBF16x512", "bfloat16", 2, func(from operand.Mem, k reg.OpmaskVirtual, to reg.VecVirtual) {
			g.VPMOVZXWD_Z(from, k, to)
			g.VPSLLD(imm(16), to, to)
		}},
		{"widenFP16x512", "binary16", 2, func(from operand.Mem, k reg.OpmaskVirtual, to reg.VecVirtual) {
			half := g.YMM()
			g.VMOVDQU16_Z(from, k, half)
			g.VCVTPH2PS(half, to)
		}},
		{"widenE5M2x512", "E5M2, the upper half of a binary16", 1, func(from operand.Mem, k reg.OpmaskVirtual, to reg.VecVirtual) {
			half := g.YMM()
			g.VPMOVZXBW_Z(from, k, half)
			g.VPSLLW(imm(8), half, half)
			g.VCVTPH2PS(half, to)
		}},
		{"widenE4M3x512", "E4M3: as if a binary16, whose exponent is 8 less", 1, func(from operand.Mem, k reg.OpmaskVirtual, to reg.VecVirtual) {
			bits, sign, half, words := g.ZMM(), g.ZMM(), g.YMM(), g.ZMM()
			g.VPMOVZXBD_Z(from, k, bits)
			g.VPSRLD(imm(7), bits, sign)
			g.VPSLLD(imm(31), sign, sign)
			g.VPANDD(low7, bits, bits)
			g.VPSLLD(imm(7), bits, words)
			g.VPMOVDW(words, half)
			g.VCVTPH2PS(half, to)
			g.VMULPS(scale, to, to)
			is := g.K()
			g.VPCMPEQD(low7, bits, is)
			g.VMOVDQA32(nan, is, to)
			g.VPORD(sign, to, to)
		}},
	} {
		begin(v.name, "func(dst *float32, src *byte, n int)", v.name+" makes binary32 of n > 0 "+v.doc+".")
		dst, src, n := param("dst"), param("src"), param("n")
		if v.name == "widenE4M3x512" {
			low7, nan, scale = constant(0x7f), constant(0x7fc00000), constant(0x43800000) // 2⁸
		}
		mask, ones := g.GP64(), g.GP64()
		g.MOVQ(operand.U64(0xffffffffffffffff), ones)
		k := g.K()
		g.Label("some")
		g.MOVQ(ones, mask)
		g.CMPQ(n, imm(16))
		g.JGE(operand.LabelRef("sixteen"))
		g.BZHIQ(n, mask, mask)
		g.Label("sixteen")
		g.KMOVW(mask.As32(), k)
		to := g.ZMM()
		v.convert(at(src, 0), k, to)
		g.VMOVDQU32(to, k, at(dst, 0))
		g.ADDQ(imm(16*uint64(v.size)), src)
		g.ADDQ(imm(64), dst)
		g.SUBQ(imm(16), n)
		g.JG(operand.LabelRef("some"))
		g.VZEROUPPER()
		g.RET()
	}
}

// channels512 is a position-wise product: no sum over channels.
func channels512() {
	begin("channels512", "func(acc *int32, pixels **byte, weights **int32, positions, n int, zero int32, flip uint32)",
		"channels512 adds ((pixels[p][i] xor flip) − zero)·weights[p][i] to acc[i], for all positions p and n > 0 channels i.")
	acc, pixels, weights, positions, n := param("acc"), param("pixels"), param("weights"), param("positions"), param("n")
	zero := g.ZMM()
	g.VPBROADCASTD(g.Load(g.Param("zero"), g.GP32()), zero)
	flip := g.XMM()
	g.VPBROADCASTD(g.Load(g.Param("flip"), g.GP32()), flip)
	mask, ones, at0, p, pixel, weight := g.GP64(), g.GP64(), g.GP64(), g.GP64(), g.GP64(), g.GP64()
	g.MOVQ(operand.U64(0xffffffffffffffff), ones)
	g.XORQ(at0, at0)
	sums := []reg.VecVirtual{g.ZMM(), g.ZMM(), g.ZMM(), g.ZMM()}
	k := []reg.OpmaskVirtual{g.K(), g.K(), g.K(), g.K()}
	g.Label("some")
	g.MOVQ(ones, mask)
	g.CMPQ(n, imm(64))
	g.JGE(operand.LabelRef("all"))
	g.BZHIQ(n, mask, mask)
	g.Label("all")
	for i := range sums {
		g.KMOVW(mask.As32(), k[i])
		g.SHRQ(imm(16), mask)
		g.VMOVDQU32_Z(indexed(acc, at0, 4, 64*i), k[i], sums[i])
	}
	g.XORQ(p, p)
	g.Label("position")
	g.MOVQ(indexed(pixels, p, 8, 0), pixel)
	g.MOVQ(indexed(weights, p, 8, 0), weight)
	v, bytes := g.ZMM(), g.XMM()
	for i := range sums {
		g.VMOVDQU8_Z(indexed(pixel, at0, 1, 16*i), k[i], bytes)
		g.VPXORD(flip, bytes, bytes)
		g.VPMOVSXBD(bytes, v)
		g.VPSUBD(zero, v, v)
		g.VPMULLD_Z(indexed(weight, at0, 4, 64*i), v, k[i], v)
		g.VPADDD(v, sums[i], sums[i])
	}
	g.INCQ(p)
	g.CMPQ(p, positions)
	g.JLT(operand.LabelRef("position"))
	for i := range sums {
		g.VMOVDQU32(sums[i], k[i], indexed(acc, at0, 4, 64*i))
	}
	g.ADDQ(imm(64), at0)
	g.SUBQ(imm(64), n)
	g.JG(operand.LabelRef("some"))
	g.VZEROUPPER()
	g.RET()
}
