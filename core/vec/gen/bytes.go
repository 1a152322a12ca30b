// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// native are operations that the processor has on narrow integers, with results
// of the same type that saturate. Those of AVX2 take whole registers.
func native() {
	for _, f := range []struct {
		op, typ, size int
		name          string
		f             string
	}{
		{3, typeInt8, 1, "reluInt8", "VPMAXSB"},
		{3, typeInt16, 2, "reluInt16", "VPMAXSW"},
		{4, typeInt8, 1, "addInt8", "VPADDSB"},
		{5, typeInt8, 1, "subInt8", "VPSUBSB"},
		{7, typeInt8, 1, "minInt8", "VPMINSB"},
		{8, typeInt8, 1, "maxInt8", "VPMAXSB"},
		{4, typeUint8, 1, "addUint8", "VPADDUSB"},
		{5, typeUint8, 1, "subUint8", "VPSUBUSB"},
		{7, typeUint8, 1, "minUint8", "VPMINUB"},
		{8, typeUint8, 1, "maxUint8", "VPMAXUB"},
		{4, typeInt16, 2, "addInt16", "VPADDSW"},
		{5, typeInt16, 2, "subInt16", "VPSUBSW"},
		{7, typeInt16, 2, "minInt16", "VPMINSW"},
		{8, typeInt16, 2, "maxInt16", "VPMAXSW"},
	} {
		register("native", fmt.Sprintf("%d][%d", f.typ, f.op), f.name)
		begin(f.name, "func(z, x, y *byte, step, n int)", "makes z of n bytes of x and y, which advances by step with each register.")
		z, x, y, step, n := param("z"), param("x"), param("y"), param("step"), param("n")
		advance := func() {
			g.ADDQ(imm(uint64(w.bytes)), z)
			g.ADDQ(imm(uint64(w.bytes)), x)
			g.ADDQ(step, y)
		}
		second := func() operand.Op { return at(y, 0) }
		if f.op == 3 { // with one operand, the other is 0
			zero := all(bits(0))
			second = func() operand.Op { return zero }
		}
		whole := func(i int) { store(op(f.f, load(at(x, i*w.bytes)), second()), at(z, i*w.bytes)) }
		const unroll = 4
		g.SUBQ(imm(uint64(unroll*w.bytes)), n)
		g.JL(operand.LabelRef("few"))
		g.Label("many")
		for i := range unroll {
			whole(i)
			g.ADDQ(step, y)
		}
		g.ADDQ(imm(uint64(unroll*w.bytes)), z)
		g.ADDQ(imm(uint64(unroll*w.bytes)), x)
		g.SUBQ(imm(uint64(unroll*w.bytes)), n)
		g.JGE(operand.LabelRef("many"))
		g.Label("few")
		g.ADDQ(imm(uint64(unroll*w.bytes)), n)
		blocksOrWhole(n, w.bytes, advance, func(last bool) {
			if !last {
				whole(0)
				return
			}
			k := g.K()
			lowMask(n, k)
			b := second()
			if m, ok := b.(operand.Mem); ok {
				b = loadBytes(m, k)
			}
			g.VMOVDQU8(op(f.f, loadBytes(at(x, 0), k), b), k, at(z, 0))
		})
		g.VZEROUPPER()
		g.RET()
	}
}

func loadBytes(m operand.Mem, k reg.OpmaskVirtual) vec {
	d := newVec()
	g.VMOVDQU8_Z(m, k, d)
	return d
}

// lookup is TABLE, for AVX-512: the table is in four registers, as 128 words of
// two bytes. For each pair of bytes there are two lookups in each half of the
// table, for the even and for the odd byte.
func lookup() {
	register("lookup", nil, "lookup")
	begin("lookup", "func(z, x, table *byte, n int)", "makes z of the bytes of the table of 256 that n bytes of x name.")
	z, x, n := param("z"), param("x"), param("n")
	p := param("table")
	var t [4]vec
	for i := range t {
		t[i] = load(at(p, 64*i))
	}
	one := all(bits(0x01010101))
	odd, word := g.K(), g.GP64()
	g.MOVQ(operand.U64(0xaaaaaaaaaaaaaaaa), word)
	g.KMOVQ(word, odd)
	find := func(v vec) vec {
		bit := g.K()
		g.VPTESTMB(one, v, bit) // the upper byte of the word
		// at looks index·2 up, whose word has its upper bit in the highest of v.
		at := func(index, upper vec) vec {
			lo, hi, k := move(index), move(index), g.K()
			g.VPERMI2W(t[1], t[0], lo)
			g.VPERMI2W(t[3], t[2], hi)
			g.VPMOVW2M(upper, k)
			d := newVec()
			g.VPBLENDMW(hi, lo, k, d)
			return d
		}
		a := at(shift("VPSRLW", v, 1), shift("VPSLLW", v, 8))
		b := at(shift("VPSRLW", v, 9), v)
		lower, upper := newVec(), newVec()
		g.VPBLENDMB(shift("VPSLLW", b, 8), a, odd, lower)
		g.VPBLENDMB(b, shift("VPSRLW", a, 8), odd, upper)
		d := newVec()
		g.VPBLENDMB(upper, lower, bit, d)
		return d
	}
	advance := func() {
		g.ADDQ(imm(uint64(w.bytes)), z)
		g.ADDQ(imm(uint64(w.bytes)), x)
	}
	blocks(n, w.bytes, advance, func(last bool) {
		if !last {
			store(find(load(at(x, 0))), at(z, 0))
			return
		}
		k := g.K()
		lowMask(n, k)
		g.VMOVDQU8(find(loadBytes(at(x, 0), k)), k, at(z, 0))
	})
	g.VZEROUPPER()
	g.RET()
}

// hasF16C asks the processor for what package cpu does not know.
func hasF16C() {
	w = width{}
	begin("hasF16C", "func() bool", "reports whether the processor converts fp16.")
	g.MOVL(operand.U32(1), reg.EAX)
	g.XORL(reg.ECX, reg.ECX)
	g.CPUID()
	g.SHRL(imm(29), reg.ECX)
	g.ANDL(imm(1), reg.ECX)
	r := g.GP8()
	g.MOVB(reg.CL, r)
	g.Store(r, g.ReturnIndex(0))
	g.RET()
}
