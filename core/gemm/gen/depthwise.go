// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// quads512 interleaves four rows of bytes: what VPDPBUSD sums becomes one word of each channel.
func quads512() {
	lanes := g.StaticGlobal("lanes16")
	g.DataAttributes(attr.RODATA | attr.NOPTR)
	for i := range 16 {
		g.AppendDatum(operand.U32(i%4*4 + i/4))
	}
	begin("quads512", "func(dst *byte, rows **byte, steps *int, pixels, n int, flip uint32)",
		"quads512 writes for each pixel n words, and zeros xor flip up to a multiple of 32, each of a byte of four rows, xor flip.\n"+
			"The next pixel of a row is as many bytes further as its step says.")
	dst, rows, steps, pixels, n := param("dst"), param("rows"), param("steps"), param("pixels"), param("n")
	flip, order := g.ZMM(), g.ZMM()
	g.VPBROADCASTD(g.Load(g.Param("flip"), g.GP32()), flip)
	g.VMOVDQU32(lanes, order)
	var row [4]reg.GPVirtual
	for i := range row {
		row[i] = g.GP64()
		g.MOVQ(at(rows, 8*i), row[i])
	}
	off, left, mask, ones := g.GP64(), g.GP64(), g.GP64(), g.GP64()
	g.MOVQ(operand.U64(0xffffffffffffffff), ones)
	k := g.K()
	g.Label("pixel")
	g.XORQ(off, off)
	g.MOVQ(n, left)
	g.Label("some")
	g.MOVQ(ones, mask)
	g.CMPQ(left, imm(64))
	g.JGE(operand.LabelRef("all"))
	g.BZHIQ(left, mask, mask)
	g.Label("all")
	g.KMOVQ(mask, k)
	var z [4]reg.VecVirtual
	for i := range z {
		z[i] = g.ZMM()
		g.VMOVDQU8_Z(indexed(row[i], off, 1, 0), k, z[i])
		g.VPXORD(flip, z[i], z[i])
		g.VPERMD(z[i], order, z[i])
	}
	lo01, hi01, lo23, hi23 := g.ZMM(), g.ZMM(), g.ZMM(), g.ZMM()
	g.VPUNPCKLBW(z[1], z[0], lo01)
	g.VPUNPCKLBW(z[3], z[2], lo23)
	g.VPUNPCKHBW(z[1], z[0], hi01)
	g.VPUNPCKHBW(z[3], z[2], hi23)
	q := g.ZMM()
	for i, pair := range [2][2]reg.VecVirtual{{lo01, lo23}, {hi01, hi23}} {
		if i == 1 {
			g.ADDQ(imm(128), dst)
			g.CMPQ(left, imm(32))
			g.JLE(operand.LabelRef("next"))
		}
		g.VPUNPCKLWD(pair[1], pair[0], q)
		g.VMOVDQU32(q, at(dst, 0))
		g.VPUNPCKHWD(pair[1], pair[0], q)
		g.VMOVDQU32(q, at(dst, 64))
	}
	g.ADDQ(imm(128), dst)
	g.Label("next")
	g.ADDQ(imm(64), off)
	g.SUBQ(imm(64), left)
	g.JG(operand.LabelRef("some"))
	for i, r := range row {
		g.ADDQ(at(steps, 8*i), r)
	}
	g.DECQ(pixels)
	g.JNZ(operand.LabelRef("pixel"))
	g.VZEROUPPER()
	g.RET()
}

// line512 is a line of a depthwise convolution, from quads of the image and of the weights.
func line512() {
	begin("line512", "func(c *byte, ldc int, q *byte, step, tap int, w *byte, wtap int, comp *byte, taps, pixels, cols, load int)",
		"line512 computes cols channels of pixels of C: what was there (if load is not 0), plus comp, plus for each of the taps\n"+
			"the quads at q times those at w, tap and wtap bytes further for the next. A pixel's quads are step bytes behind the last's.")
	const block, most = 32, 4 // channels, pixels at a time
	c, q, step, w, comp, cols := param("c"), param("q"), param("step"), param("w"), param("comp"), param("cols")
	step3 := g.GP64()
	g.LEAQ(indexed(step, step, 2, 0), step3)
	k1, k2 := g.K(), g.K()
	w0, w1, v := g.ZMM(), g.ZMM(), g.ZMM()
	var acc [most][2]reg.VecVirtual
	for i := range acc {
		acc[i] = [2]reg.VecVirtual{g.ZMM(), g.ZMM()}
	}
	left, qp, cp, qt, wt, t := g.GP64(), g.GP64(), g.GP64(), g.GP64(), g.GP64(), g.GP64()

	g.Label("block")
	g.MOVQ(operand.U32(block), t)
	g.CMPQ(cols, t)
	g.CMOVQLT(cols, t)
	g.MOVQ(operand.U64(0xffffffffffffffff), qt)
	g.BZHIQ(t, qt, qt)
	g.KMOVW(qt.As32(), k1)
	g.SHRQ(imm(16), qt)
	g.KMOVW(qt.As32(), k2)
	g.MOVQ(onStack("pixels"), left)
	g.MOVQ(q, qp)
	g.MOVQ(c, cp)
	some := func(n int, name string) {
		for i := range n {
			g.VMOVDQU32(at(comp, 0), acc[i][0])
			g.VMOVDQU32(at(comp, 64), acc[i][1])
		}
		g.MOVQ(qp, qt)
		g.MOVQ(w, wt)
		g.MOVQ(onStack("taps"), t)
		g.Label(name + "tap")
		g.VMOVDQU32(at(wt, 0), w0)
		g.VMOVDQU32(at(wt, 64), w1)
		for i := range n {
			for h, weight := range []reg.VecVirtual{w0, w1} {
				from := at(qt, 64*h)
				switch i {
				case 1, 2:
					from = indexed(qt, step, uint8(i), 64*h)
				case 3:
					from = indexed(qt, step3, 1, 64*h)
				}
				g.VMOVDQU32(from, v)
				g.VPDPBUSD(weight, v, acc[i][h])
			}
		}
		g.ADDQ(onStack("tap"), qt)
		g.ADDQ(onStack("wtap"), wt)
		g.DECQ(t)
		g.JNZ(operand.LabelRef(name + "tap"))
		g.MOVQ(onStack("load"), t)
		g.TESTQ(t, t)
		g.JZ(operand.LabelRef(name + "store"))
		g.MOVQ(cp, t)
		for i := range n {
			g.VPADDD(at(t, 0), acc[i][0], k1, acc[i][0])
			g.VPADDD(at(t, 64), acc[i][1], k2, acc[i][1])
			if i < n-1 {
				g.ADDQ(onStack("ldc"), t)
			}
		}
		g.Label(name + "store")
		for i := range n {
			g.VMOVDQU32(acc[i][0], k1, at(cp, 0))
			g.VMOVDQU32(acc[i][1], k2, at(cp, 64))
			g.ADDQ(onStack("ldc"), cp)
		}
	}
	g.SUBQ(imm(most), left)
	g.JL(operand.LabelRef("few"))
	g.Label("four")
	some(most, "four")
	g.LEAQ(indexed(qp, step, 4, 0), qp)
	g.SUBQ(imm(most), left)
	g.JGE(operand.LabelRef("four"))
	g.Label("few")
	g.ADDQ(imm(most), left)
	g.JZ(operand.LabelRef("done"))
	g.Label("one")
	some(1, "one")
	g.ADDQ(step, qp)
	g.DECQ(left)
	g.JNZ(operand.LabelRef("one"))
	g.Label("done")
	for _, p := range []reg.GPVirtual{c, q, w, comp} {
		g.ADDQ(imm(block*4), p)
	}
	g.SUBQ(imm(block), cols)
	g.JG(operand.LabelRef("block"))
	g.VZEROUPPER()
	g.RET()
}
