// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Types, with their numbers in §5.6.18.
const (
	typeInt8  = 0
	typeInt16 = 1
	typeUint8 = 4
	typeBF16  = 9
	typeFP16  = 10
	typeE4M3  = 11
	typeE5M2  = 12
)

// conversions are the kernels between words and narrower types (§6.6): those of
// AVX2 take whole registers.
func conversions() {
	widen(typeInt8, 1, "Int8", func(m operand.Mem, t *tail) vec { return extend("VPMOVSXBD", "VPMOVSXBD_Z", m, t) })
	widen(typeUint8, 1, "Uint8", func(m operand.Mem, t *tail) vec { return extend("VPMOVZXBD", "VPMOVZXBD_Z", m, t) })
	widen(typeInt16, 2, "Int16", func(m operand.Mem, t *tail) vec { return extend("VPMOVSXWD", "VPMOVSXWD_Z", m, t) })
	widen(typeBF16, 2, "BF16", func(m operand.Mem, t *tail) vec {
		return canon(shift("VPSLLD", extend("VPMOVZXWD", "VPMOVZXWD_Z", m, t), 16))
	})
	widen(typeFP16, 2, "FP16", func(m operand.Mem, t *tail) vec { return canon(extend("VCVTPH2PS", "VCVTPH2PS_Z", m, t)) })
	widen(typeE5M2, 1, "E5M2", func(m operand.Mem, t *tail) vec {
		// The upper half of an fp16.
		v := extend("VPMOVZXBD", "VPMOVZXBD_Z", m, t)
		v = shift("VPSLLD", v, 8)
		if w.wide {
			half := g.YMM()
			g.VPMOVDW(v, half)
			return canon(op1("VCVTPH2PS", half))
		}
		return canon(op1("VCVTPH2PS", packWords(v)))
	})
	widen(typeE4M3, 1, "E4M3", func(m operand.Mem, t *tail) vec {
		v := extend("VPMOVZXBD", "VPMOVZXBD_Z", m, t)
		a := and(v, bits(0x7f))
		small := mul(op1("VCVTDQ2PS", a), num(0x1p-9))
		large := op("VPADDD", shift("VPSLLD", a, 20), bits(120<<23))
		r := pick(compareInt("VPCMPGTD", a, bits(7)), large, small)
		r = or(r, shift("VPSLLD", and(v, bits(0x80)), 24))
		return pick(compareInt("VPCMPEQD", a, bits(0x7f)), bits(nan), r)
	})

	narrow("narrow", typeInt8, 1, "Int8", func(v vec, m operand.Mem, t *tail) {
		if w.wide {
			storeNarrow("VPMOVSDB", v, m, t)
			return
		}
		x := packSigned(v)
		g.VPACKSSWB(x, x, x)
		g.VMOVQ(x, m)
	})
	narrow("narrow", typeUint8, 1, "Uint8", func(v vec, m operand.Mem, t *tail) {
		if w.wide {
			storeNarrow("VPMOVUSDB", op("VPMAXSD", v, bits(0)), m, t)
			return
		}
		x := packSigned(v)
		g.VPACKUSWB(x, x, x)
		g.VMOVQ(x, m)
	})
	narrow("narrow", typeInt16, 2, "Int16", func(v vec, m operand.Mem, t *tail) {
		if w.wide {
			storeNarrow("VPMOVSDW", v, m, t)
			return
		}
		g.VMOVDQU(packSigned(v), m)
	})
	narrow("wrap", typeInt8, 1, "Low8", lowBytes)
	register("wrap", typeUint8, "narrowLow8")
	narrow("wrap", typeInt16, 2, "Low16", lowWords)

	narrow("narrow", typeBF16, 2, "BF16", func(v vec, m operand.Mem, t *tail) {
		odd := and(shift("VPSRLD", v, 16), bits(1))
		r := op("VPADDD", op("VPADDD", v, bits(0x7fff)), odd)
		lowWords(shift("VPSRLD", nanOf(v, r), 16), m, t)
	})
	narrow("narrow", typeFP16, 2, "FP16", func(v vec, m operand.Mem, t *tail) {
		v = canon(v)
		if t != nil {
			g.VCVTPS2PH(imm(0), v, t.k, m)
		} else {
			g.VCVTPS2PH(imm(0), v, m)
		}
	})
	for _, f := range []struct {
		field string
		typ   int
		name  string
		fp8
	}{
		{"narrow", typeE4M3, "E4M3", fp8{fraction: 3, bias: 7, most: 0x7e, nan: 0x7f}},
		{"wrap", typeE4M3, "E4M3NaN", fp8{fraction: 3, bias: 7, most: 0x7f, nan: 0x7f}},
		{"narrow", typeE5M2, "E5M2", fp8{fraction: 2, bias: 15, most: 0x7b, nan: 0x7e}},
		{"wrap", typeE5M2, "E5M2Inf", fp8{fraction: 2, bias: 15, most: 0x7c, nan: 0x7e}},
	} {
		narrow(f.field, f.typ, 1, f.name, func(v vec, m operand.Mem, t *tail) { lowBytes(f.round(v), m, t) })
	}
}

// fp8 is a format of 8 bits; most is the encoding of all that is too large.
type fp8 struct {
	fraction, bias int
	most, nan      uint32
}

// round gives the encodings of v.
func (f fp8) round(v vec) vec {
	a := absolute(v)
	// Normal numbers: drop bits of the fraction, then change the bias.
	drop := uint64(23 - f.fraction)
	odd := and(shift("VPSRLD", a, drop), bits(1))
	large := shift("VPSRLD", op("VPADDD", op("VPADDD", a, bits(1<<(drop-1)-1)), odd), drop)
	large = op("VPSUBD", large, bits(uint32(127-f.bias)<<f.fraction))
	// Others: the sum with a number whose last place is the smallest subnormal.
	unit := uint32(127+1-f.bias-f.fraction+23) << 23
	small := op("VPSUBD", add(a, bits(unit)), bits(unit))
	least := uint32(127+1-f.bias)<<23 - 1
	r := pick(compareInt("VPCMPGTD", a, bits(least)), large, small)
	r = op("VPMINSD", r, bits(f.most))
	signed := or(r, shift("VPSRLD", and(v, bits(sign)), 24))
	if f.most == f.nan {
		r = pick(compareInt("VPCMPEQD", r, bits(f.nan)), r, signed)
	} else {
		r = signed
	}
	return pick(compare(unordered, v, v), bits(f.nan), r)
}

func widen(typ, size int, name string, f func(m operand.Mem, t *tail) vec) {
	register("widen", typ, "widen"+name)
	begin("widen"+name, "func(z *uint32, x *byte, n int)", "makes words of n elements of x.")
	z, x, n := param("z"), param("x"), param("n")
	some := func(last bool) {
		var t *tail
		if last {
			t = newTails(n, 1)[0]
		}
		storeTail(f(at(x, 0), t), at(z, 0), t)
	}
	advance := func() {
		g.ADDQ(imm(uint64(w.bytes)), z)
		g.ADDQ(imm(uint64(lanes()*size)), x)
	}
	blocksOrWhole(n, lanes(), advance, some)
	g.VZEROUPPER()
	g.RET()
}

func narrow(field string, typ, size int, name string, f func(v vec, m operand.Mem, t *tail)) {
	register(field, typ, "narrow"+name)
	begin("narrow"+name, "func(z *byte, x *uint32, n int)", "makes elements of n words of x.")
	z, x, n := param("z"), param("x"), param("n")
	some := func(last bool) {
		var t *tail
		if last {
			t = newTails(n, 1)[0]
		}
		f(loadTail(at(x, 0), t), at(z, 0), t)
	}
	advance := func() {
		g.ADDQ(imm(uint64(lanes()*size)), z)
		g.ADDQ(imm(uint64(w.bytes)), x)
	}
	blocksOrWhole(n, lanes(), advance, some)
	g.VZEROUPPER()
	g.RET()
}

// blocksOrWhole is blocks for AVX-512; AVX2, which has no masks for narrow
// elements, leaves the last ones to its caller.
func blocksOrWhole(n reg.GPVirtual, block int, advance func(), some func(last bool)) {
	if w.wide {
		blocks(n, block, advance, some)
		return
	}
	g.SUBQ(imm(uint64(block)), n)
	g.JL(operand.LabelRef("end"))
	g.Label("block")
	some(false)
	advance()
	g.SUBQ(imm(uint64(block)), n)
	g.JGE(operand.LabelRef("block"))
	g.Label("end")
}

// extend loads elements that become wider.
func extend(f, masked string, m operand.Mem, t *tail) vec {
	if t == nil {
		return op1(f, m)
	}
	d := newVec()
	emit(masked, m, t.k, d)
	return d
}

// storeNarrow stores elements that become narrower.
func storeNarrow(f string, v vec, m operand.Mem, t *tail) {
	if t == nil {
		emit(f, v, m)
	} else {
		emit(f, v, t.k, m)
	}
}

func lowBytes(v vec, m operand.Mem, t *tail) {
	if w.wide {
		storeNarrow("VPMOVDB", v, m, t)
		return
	}
	x := packWords(and(v, bits(0xff)))
	g.VPACKUSWB(x, x, x)
	g.VMOVQ(x, m)
}

func lowWords(v vec, m operand.Mem, t *tail) {
	if w.wide {
		storeNarrow("VPMOVDW", v, m, t)
		return
	}
	g.VMOVDQU(packWords(and(v, bits(0xffff))), m)
}

// packSigned makes int16 of the words of AVX2, saturating.
func packSigned(v vec) vec {
	x := g.XMM()
	g.VEXTRACTI128(imm(1), v, x)
	g.VPACKSSDW(x, v.AsX(), x)
	return x
}

// packWords makes 16 bits of each word, none of which is above 0xffff.
func packWords(v vec) vec {
	x := g.XMM()
	g.VEXTRACTI128(imm(1), v, x)
	g.VPACKUSDW(x, v.AsX(), x)
	return x
}
