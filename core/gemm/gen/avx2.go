// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// A tile of AVX2 is up to rows256 rows of cols256 columns: 12 accumulators,
// two registers of B, a broadcast of A, and one to spare for a product.
const (
	rows256 = 6
	cols256 = 16
)

func tile256(name, doc string, multiply func(a, b, acc, spare reg.VecVirtual), float bool) {
	begin(name, "func(k int, a, b, c *byte, ldc int, comp *byte, rows, cols, load int)", doc)
	k, a, b, c, ldc := param("k"), param("a"), param("b"), param("c"), param("ldc")
	rows := param("rows")
	var acc [rows256][2]reg.VecVirtual
	for i := range acc {
		acc[i] = [2]reg.VecVirtual{g.YMM(), g.YMM()}
		for _, y := range acc[i] {
			g.VPXOR(y, y, y)
		}
	}
	b0, b1, bc, spare := g.YMM(), g.YMM(), g.YMM(), g.YMM()

	g.Comment("Columns that exist, as masks: 0…7 and 8…15 less than cols.")
	masks := func() {
		n := g.XMM()
		g.MOVQ(param("cols"), n)
		g.VPBROADCASTD(n, bc)
		iota := operand.NewDataAddr(operand.NewStaticSymbol("iota16"), 0)
		g.VPCMPGTD(iota, bc, b0)
		g.VPCMPGTD(iota.Offset(32), bc, b1)
	}
	each := func(label string, p reg.GPVirtual, body func(i int)) {
		for i := range acc {
			if i > 0 {
				g.CMPQ(rows, imm(uint64(i)))
				g.JLE(operand.LabelRef(label))
				g.ADDQ(ldc, p)
			}
			body(i)
		}
		g.Label(label)
	}
	p := g.GP64()
	if float {
		load := param("load")
		g.TESTQ(load, load)
		g.JZ(operand.LabelRef("seeded"))
		masks()
		g.MOVQ(c, p)
		each("seeded", p, func(i int) {
			g.VPMASKMOVD(at(p, 0), b0, acc[i][0])
			g.VPMASKMOVD(at(p, 32), b1, acc[i][1])
		})
	}
	step := func(s int) {
		g.VMOVDQU(at(b, s*cols256*4), b0)
		g.VMOVDQU(at(b, s*cols256*4+32), b1)
		for i := range acc {
			g.VPBROADCASTD(at(a, (s*rows256+i)*4), bc)
			multiply(bc, b0, acc[i][0], spare)
			multiply(bc, b1, acc[i][1], spare)
		}
	}
	const unroll = 2
	g.SUBQ(imm(unroll), k)
	g.JL(operand.LabelRef("rest"))
	g.Label("two")
	for s := range unroll {
		step(s)
	}
	g.ADDQ(imm(unroll*rows256*4), a)
	g.ADDQ(imm(unroll*cols256*4), b)
	g.SUBQ(imm(unroll), k)
	g.JGE(operand.LabelRef("two"))
	g.Label("rest")
	g.ADDQ(imm(unroll), k)
	g.JZ(operand.LabelRef("done"))
	step(0)
	g.Label("done")

	if float {
		word := g.GP32()
		g.Comment("One NaN for all.")
		g.MOVL(operand.U32(0x7fc00000), word)
		n := g.XMM()
		g.MOVD(word, n)
		g.VPBROADCASTD(n, bc)
		for i := range acc {
			for _, y := range acc[i] {
				g.VCMPPS(imm(3), y, y, spare)
				g.VBLENDVPS(spare, bc, y, y)
			}
		}
		masks()
	} else {
		comp := param("comp")
		for i := range acc {
			for h, y := range acc[i] {
				g.VPADDD(at(comp, 32*h), y, y)
			}
		}
		masks()
		load := param("load")
		g.TESTQ(load, load)
		g.JZ(operand.LabelRef("store"))
		g.MOVQ(c, p)
		each("store", p, func(i int) {
			g.VPMASKMOVD(at(p, 0), b0, spare)
			g.VPADDD(spare, acc[i][0], acc[i][0])
			g.VPMASKMOVD(at(p, 32), b1, spare)
			g.VPADDD(spare, acc[i][1], acc[i][1])
		})
	}
	each("end", c, func(i int) {
		g.VPMASKMOVD(acc[i][0], b0, at(c, 0))
		g.VPMASKMOVD(acc[i][1], b1, at(c, 32))
	})
	g.VZEROUPPER()
	g.RET()
}

func madd256() {
	g.StaticGlobal("iota16")
	g.DataAttributes(attr.RODATA | attr.NOPTR)
	for i := range 16 {
		g.AppendDatum(operand.U32(i))
	}
	tile256("madd256", "madd256 multiplies up to 6 rows by 16 columns of int16, two to a word, exactly.",
		func(a, b, acc, spare reg.VecVirtual) {
			g.VPMADDWD(b, a, spare)
			g.VPADDD(spare, acc, acc)
		}, false)
}

func fma256() {
	tile256("fma256", "fma256 continues the chains of up to 6 rows by 16 columns of C.",
		func(a, b, acc, _ reg.VecVirtual) { g.VFMADD231PS(b, a, acc) }, true)
}
