// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/mmcloughlin/avo/operand"
)

// Parameters of a pair are three scales, of x, of y and of the result, each like
// a group of 16 channels of REQUANT, and then fields of a cache line each, with
// the same words all over. core/vec/pair.go has the same.
const (
	pairX, pairY, pairOut = 0, 256, 512

	pairMask   = 768 // of a sign-extended byte: 0xff of uint8
	pairXZero  = 832
	pairYZero  = 896
	pairLeft   = 960  // bits to the left, with one rounding
	pairNegate = 1024 // all ones of a difference
	pairLo     = 1088 // less the zero point; of kernels in int16 as it is
	pairHi     = 1152
	pairZero   = 1216

	// fp32, in place of the multipliers.
	pairA, pairB, pairC = pairX, pairY, pairOut

	// pairAddHalf, of the scale of x, then of that of the result.
	halfHigh, halfLow, halfRight, halfUp    = pairX + 0, pairX + 64, pairX + 128, pairX + 192
	sumMultiplier, sumUp, sumRight, sumSign = pairOut + 0, pairOut + 64, pairOut + 128, pairOut + 192
)

// pairs is ADDQ.
func pairs() {
	for _, size := range []int{1, 2} {
		suffix := []string{"8", "16"}[size-1]
		// A kernel's number is that of its operation, add or mul, its rounding and its size.
		number := -1
		pairKernel := func(name string, size int, doc string, f func(x, y vec, p operand.Mem) vec) {
			number++
			order := []int{0, 1, 3, 4, 2, 5}[number]
			register("pair", 2*order+size-1, name)
			pairKernel(name, size, doc, f)
		}
		pairKernel("pairAddOne"+suffix, size, "adds, with one rounding; all shifts are 32 or more.", func(x, y vec, p operand.Mem) vec {
			left := p.Offset(pairLeft)
			a := once(op("VPSLLVD", x, left), p.Offset(pairX))
			b := once(op("VPSLLVD", y, left), p.Offset(pairY))
			return once(signedSum(a, b, p), p.Offset(pairOut))
		})
		pairKernel("pairAddTwo"+suffix, size, "adds, with two roundings.", func(x, y vec, p operand.Mem) vec {
			return twice(signedSum(twice(x, p.Offset(pairX)), twice(y, p.Offset(pairY)), p), p.Offset(pairOut))
		})
		pairKernel("pairMulOne"+suffix, size, "multiplies, with one rounding; the shift is 32 or more.", func(x, y vec, p operand.Mem) vec {
			return once(op("VPMULLD", x, y), p.Offset(pairOut))
		})
		pairKernel("pairMulTwo"+suffix, size, "multiplies, with two roundings.", func(x, y vec, p operand.Mem) vec {
			return twice(op("VPMULLD", x, y), p.Offset(pairOut))
		})
		pairKernel("pairAddFloat"+suffix, size, "adds in fp32.", func(x, y vec, p operand.Mem) vec {
			v := op1("VCVTDQ2PS", y)
			emit("VFMADD213PS", p.Offset(pairC), load(p.Offset(pairB)), v)
			u := op1("VCVTDQ2PS", x)
			emit("VFMADD132PS", p.Offset(pairA), v, u)
			return nearestInt(u)
		})
		pairKernel("pairMulFloat"+suffix, size, "multiplies in fp32.", func(x, y vec, p operand.Mem) vec {
			return nearestInt(add(mul(op1("VCVTDQ2PS", op("VPMULLD", x, y)), p.Offset(pairA)), p.Offset(pairC)))
		})
	}
	addHalf()
}

// nearestInt is finite v as int32, with ties to even, or what is beyond any int16.
func nearestInt(v vec) vec {
	return op1("VCVTPS2DQ", upper(lower(v, num(1<<20)), num(-1<<20)))
}

// signedSum is a + b, or a − b.
func signedSum(a, b vec, p operand.Mem) vec {
	n := p.Offset(pairNegate)
	return op("VPADDD", a, op("VPSUBD", xor(b, n), n))
}

// once scales v with one rounding; the shift is 32 or more.
func once(v vec, p operand.Mem) vec {
	v = shifted(v, op1("VMOVSHDUP", v), p)
	if w.wide {
		v = op("VPADDD", v, bits(1))
	} else {
		v = op("VPSUBD", v, p.Offset(unbias))
	}
	return shift("VPSRAD", v, 1)
}

// twice scales v with two roundings.
func twice(v vec, p operand.Mem) vec {
	v = op("VPSLLVD", v, p.Offset(leftShift))
	return divPow2(shiftProducts(op("VPMULDQ", v, p.Offset(multiplier)), op("VPMULDQ", op1("VMOVSHDUP", v), p.Offset(multiplier))), p)
}

// divPow2 is v shifted right, to nearest with ties away from 0.
func divPow2(v vec, p operand.Mem) vec {
	dropped := load(p.Offset(rest))
	bound := op("VPSUBD", shift("VPSRLD", dropped, 1), shift("VPSRAD", v, 31)) // one more for a negative number
	dropped = and(v, dropped)
	r := op("VPSRAVD", v, p.Offset(rightShift))
	if w.wide {
		up := g.K()
		g.VPCMPGTD(bound, dropped, up)
		emit("VPSUBD", bits(0xffffffff), r, up, r)
		return r
	}
	return op("VPSUBD", r, op("VPCMPGTD", dropped, bound))
}

const pairDoc = "\nn elements of z are made of those of x and y, which advances by step with each register of words. AVX2 takes whole ones."

// pairKernel is the loop around f, which makes unclamped results of operands less their zero points.
func pairKernel(name string, size int, doc string, f func(x, y vec, p operand.Mem) vec) {
	begin(name, "func(z, x, y *byte, params *int64, step, n int)", doc+pairDoc)
	z, x, y, params, step, n := param("z"), param("x"), param("y"), param("params"), param("step"), param("n")
	newOddWords()
	p := at(params, 0)
	block := lanes() * size
	widen := func(m operand.Mem, t *tail, zero int) vec {
		if size == 2 {
			return op("VPSUBD", extend("VPMOVSXWD", "VPMOVSXWD_Z", m, t), p.Offset(zero))
		}
		return op("VPSUBD", and(extend("VPMOVSXBD", "VPMOVSXBD_Z", m, t), p.Offset(pairMask)), p.Offset(zero))
	}
	advance := func() {
		g.ADDQ(imm(uint64(block)), z)
		g.ADDQ(imm(uint64(block)), x)
		g.ADDQ(step, y)
	}
	blocksOrWhole(n, lanes(), advance, func(last bool) {
		var t *tail
		if last {
			t = newTails(n, 1)[0]
		}
		v := f(widen(at(x, 0), t, pairXZero), widen(at(y, 0), t, pairYZero), p)
		v = op("VPMINSD", op("VPMAXSD", v, p.Offset(pairLo)), p.Offset(pairHi))
		v = op("VPADDD", v, p.Offset(pairZero))
		if size == 2 {
			lowWords(v, at(z, 0), t)
		} else {
			lowBytes(v, at(z, 0), t)
		}
	})
	g.VZEROUPPER()
	g.RET()
}

// addHalf adds bytes as TFLite does most of the time: operands are shifted by 20
// bits, and of the one with the larger scale the product with it is exact, a half:
// that of y. Where q = q₁·2¹⁷ + q₀·2¹¹ + r, mulhigh of the other one is
// (64·x)·q₁ + x·q₀ and (x·r + 2¹⁰) >> 11, sums of two products of int16 each. A
// division by a power of two adds its half, less 1 for a negative number, and
// shifts; both are added further ahead, the one before the shift by 11 or 31, the
// other with x·r or from the sign of what is multiplied: with a q of 2³⁰ or more
// only 0 has another sign than that, and it is 0 then as well.
func addHalf() {
	register("pair", 12, "pairAddHalf")
	begin("pairAddHalf", "func(z, x, y *byte, params *int64, step, n int)", "adds bytes, with two roundings, shifts of 20 and a scale of y of a half."+pairDoc)
	z, x, y, params, step, n := param("z"), param("x"), param("y"), param("params"), param("step"), param("n")
	newOddWords()
	p := at(params, 0)
	block := 2 * lanes()
	zeros := all(bits(0))
	widen := func(m operand.Mem, t *tail, zero int) vec {
		return op("VPSUBW", and(extend("VPMOVSXBW", "VPMOVSXBW_Z", m, t), p.Offset(pairMask)), p.Offset(zero))
	}
	half := func(pair, signed, y vec) vec {
		a := shift("VPSRAD", op("VPADDD", op("VPMADDWD", signed, p.Offset(halfLow)), p.Offset(halfUp)), 11)
		a = op("VPADDD", a, op("VPMADDWD", pair, p.Offset(halfHigh)))
		t := op("VPADDD", op("VPSRAVD", a, p.Offset(halfRight)), y)
		even := op("VPADDQ", op("VPMULDQ", t, p.Offset(sumMultiplier)), p.Offset(sumUp))
		odd := op("VPADDQ", op("VPMULDQ", op1("VMOVSHDUP", t), p.Offset(sumMultiplier)), p.Offset(sumUp))
		v := mergeOdd(shift("VPSRLQ", even, 31), op("VPADDQ", odd, odd))
		return op("VPSRAVD", op("VPSUBD", v, op("VPSRLVD", t, p.Offset(sumSign))), p.Offset(sumRight))
	}
	advance := func() {
		g.ADDQ(imm(uint64(block)), z)
		g.ADDQ(imm(uint64(block)), x)
		g.ADDQ(step, y)
	}
	blocksOrWhole(n, block, advance, func(last bool) {
		var t *tail
		if last {
			t = newTails(n, 1)[0]
		}
		a := widen(at(x, 0), t, pairXZero)
		a6, sign := shift("VPSLLW", a, 6), shift("VPSRAW", a, 15)
		b := shift("VPSLLW", widen(at(y, 0), t, pairYZero), 3)
		lo := half(op("VPUNPCKLWD", a, a6), op("VPUNPCKLWD", a, sign), op("VPUNPCKLWD", zeros, b))
		hi := half(op("VPUNPCKHWD", a, a6), op("VPUNPCKHWD", a, sign), op("VPUNPCKHWD", zeros, b))
		v := op("VPADDSW", op("VPACKSSDW", lo, hi), p.Offset(pairZero))
		v = op("VPMINSW", op("VPMAXSW", v, p.Offset(pairLo)), p.Offset(pairHi))
		if w.wide {
			storeNarrow("VPMOVWB", v, at(z, 0), t)
			return
		}
		u := g.XMM()
		v = and(v, bits(0x00ff00ff))
		g.VEXTRACTI128(imm(1), v, u)
		g.VPACKUSWB(u, v.AsX(), u)
		g.VMOVDQU(u, at(z, 0))
	})
	g.VZEROUPPER()
	g.RET()
}
