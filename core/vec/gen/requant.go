// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Parameters are in groups of 16 channels, groupSize bytes each: for channel c of
// a group words of 32 bits are at field + 4·c, quad words of the even channels at
// field + 4·c and those of the odd ones at field + 4·(c − 1).
const (
	groupSize = 512

	// One rounding.
	evenQ, oddQ         = 0, 64    // multiplier
	evenRound, oddRound = 128, 192 // half of 2^shift, plus the bias that makes AVX2's sums positive
	evenShift, oddShift = 256, 320
	unbias              = 384 // AVX2: what the bias has become
	limit               = 448 // of |x|, beyond which results saturate anyway

	// Two roundings: evenQ, oddQ, and
	leftShift, rightShift, rest = 128, 192, 256 // rest: the bits that the right shift drops

	// fp32 scale.
	scale = 0
)

const requantSignature = "func(out *byte, x *int32, params *int64, step, n int, place *uint32)"

// requant is REQUANT, four registers of accumulators at a time.
func requant() {
	begin("requantOne", requantSignature,
		"scales n int32 with one rounding; all shifts are 31 or more, so that results are int32.\nstep is what params advances by with each block.")
	requantBody(func(x, p operand.Mem, k *reg.OpmaskVirtual) vec { return scaleOne(x, p, k, false) })
	begin("requantNear", requantSignature, "is requantOne for all shifts.")
	requantBody(func(x, p operand.Mem, k *reg.OpmaskVirtual) vec { return scaleOne(x, p, k, true) })
	begin("requantTwo", requantSignature, "scales with two roundings.")
	requantBody(scaleTwo)
	begin("requantFloat", requantSignature, "scales with fp32.")
	requantBody(func(x, p operand.Mem, k *reg.OpmaskVirtual) vec {
		v := op(g.VMULPS, op1(g.VCVTDQ2PS, loadSome(x, k)), p)
		// −2³¹ stands for all that is too small, but for what is too large as well.
		return op1(g.VCVTPS2DQ, op(g.VMINPS, v, num(1<<20)))
	})
}

// requantBody is the loop around scale, which turns words at x into scaled
// ones; AVX-512 has a mask for the last of them, AVX2 takes whole blocks.
func requantBody(scale func(x, p operand.Mem, k *reg.OpmaskVirtual) vec) {
	out, x, params, step, n := param("out"), param("x"), param("params"), param("step"), param("n")
	place := param("place")
	zero, lo, hi := broadcast(1, at(place, 0)), broadcast(0, at(place, 2)), broadcast(0, at(place, 3))
	order := load(words("order"+w.suffix, func(i int) uint32 {
		if w.wide {
			return uint32(i%4*4 + i/4) // element i of four registers' lanes
		}
		return uint32(i%8%2*4 + i%8/2)
	}))
	odd := g.K()
	if w.wide {
		word := g.GP32()
		g.MOVL(operand.U32(0xaaaa), word)
		g.KMOVW(word, odd)
	}
	oddWords = odd
	block := 4 * lanes()
	some := func(masked bool) {
		var k [4]*reg.OpmaskVirtual
		all := g.K()
		if masked {
			lowMask(n, all)
			for i := range k {
				m := g.K()
				g.KSHIFTRQ(imm(uint64(16*i)), all, m)
				k[i] = &m
			}
		}
		var r [4]vec
		for i := range r {
			at0 := i * lanes()
			r[i] = scale(at(x, 4*at0), at(params, at0/16*groupSize+at0%16*4), k[i])
		}
		ab, cd := op(g.VPACKSSDW, r[0], r[1]), op(g.VPACKSSDW, r[2], r[3])
		ab, cd = op(g.VPADDSW, ab, zero), op(g.VPADDSW, cd, zero)
		b := op(g.VPERMD, order, op(g.VPACKSSWB, ab, cd))
		b = op(g.VPMINSB, op(g.VPMAXSB, b, lo), hi)
		if masked {
			g.VMOVDQU8(b, all, at(out, 0))
		} else {
			store(b, at(out, 0))
		}
	}
	g.SUBQ(imm(uint64(block)), n)
	g.JL(operand.LabelRef("rest"))
	g.Label("block")
	some(false)
	g.ADDQ(imm(uint64(block)), out)
	g.ADDQ(imm(uint64(4*block)), x)
	g.ADDQ(step, params)
	g.SUBQ(imm(uint64(block)), n)
	g.JGE(operand.LabelRef("block"))
	g.Label("rest")
	if w.wide {
		g.ADDQ(imm(uint64(block)), n)
		g.JZ(operand.LabelRef("end"))
		some(true)
		g.Label("end")
	}
	g.VZEROUPPER()
	g.RET()
}

// oddWords is the mask of the odd words, of AVX-512.
var oddWords reg.OpmaskVirtual

func loadSome(m operand.Mem, k *reg.OpmaskVirtual) vec {
	if k == nil {
		return load(m)
	}
	d := newVec()
	g.VMOVDQU32_Z(m, *k, d)
	return d
}

// offset is m, so many bytes further.
func offset(m operand.Mem, n int) operand.Mem { return m.Offset(n) }

func scaleOne(x, p operand.Mem, k *reg.OpmaskVirtual, near bool) vec {
	even := loadSome(x, k)
	if near {
		most := load(offset(p, limit))
		even = op(g.VPMINSD, even, most)
		even = op(g.VPMAXSD, even, xor(most, bits(0xffffffff)))
	}
	odd := op1(g.VMOVSHDUP, even)
	even = op(g.VPADDQ, op(g.VPMULDQ, even, offset(p, evenQ)), offset(p, evenRound))
	odd = op(g.VPADDQ, op(g.VPMULDQ, odd, offset(p, oddQ)), offset(p, oddRound))
	if w.wide {
		even, odd = op(g.VPSRAVQ, even, offset(p, evenShift)), op(g.VPSRAVQ, odd, offset(p, oddShift))
		g.VMOVSLDUP(odd, oddWords, even)
		return even
	}
	even, odd = op(g.VPSRLVQ, even, offset(p, evenShift)), op(g.VPSRLVQ, odd, offset(p, oddShift))
	d := newVec()
	g.VPBLENDD(imm(0xaa), op1(g.VMOVSLDUP, odd), even, d)
	return op(g.VPSUBD, d, offset(p, unbias))
}

func scaleTwo(x, p operand.Mem, k *reg.OpmaskVirtual) vec {
	v := op(g.VPSLLVD, loadSome(x, k), offset(p, leftShift))
	half := words("half", func(i int) uint32 { return uint32(1-i%2) << 30 })
	even := op(g.VPADDQ, op(g.VPMULDQ, v, offset(p, evenQ)), half)
	odd := op(g.VPADDQ, op(g.VPMULDQ, op1(g.VMOVSHDUP, v), offset(p, oddQ)), half)
	even = shift(g.VPSRLQ, even, 31)
	odd = op(g.VPADDQ, odd, odd) // the high words are the product / 2³¹
	if w.wide {
		g.VMOVDQA32(odd, oddWords, even)
	} else {
		d := newVec()
		g.VPBLENDD(imm(0xaa), odd, even, d)
		even = d
	}
	dropped := load(offset(p, rest))
	bound := op(g.VPSUBD, shift(g.VPSRLD, dropped, 1), shift(g.VPSRAD, even, 31)) // one more for a negative number
	dropped = and(even, dropped)
	r := op(g.VPSRAVD, even, offset(p, rightShift))
	if w.wide {
		up := g.K()
		g.VPCMPGTD(bound, dropped, up)
		g.VPSUBD(bits(0xffffffff), r, up, r)
		return r
	}
	return op(g.VPSUBD, r, op(g.VPCMPGTD, dropped, bound))
}
