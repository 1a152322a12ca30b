// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Parameters are in groups of 16 channels. For channel c of a group words of 32
// bits are at field + 4·c, quad words of the even channels at field + 4·c and
// those of the odd ones at field + 4·(c − 1). core/vec/requant.go has the same.
const (
	multiplier = 0

	// One rounding.
	evenShift, oddShift = 64, 128 // the shift less 1
	unbias              = 192     // AVX2: what its bias has become, less the 1 that rounds
	limit               = 256     // of |x|, beyond which results saturate anyway
	farSize, nearSize   = 256, 320

	// Two roundings; rest has the bits that the right shift drops.
	leftShift, rightShift, rest = 64, 128, 192
	twoSize                     = 256

	// fp32 scale, in place of the multiplier.
	floatSize = 64
)

// scaler turns words at x into scaled ones, with the parameters at p; k is a mask
// of AVX-512, or nil.
type scaler func(x, p operand.Mem, k *reg.OpmaskVirtual) vec

// requant is REQUANT, four registers of accumulators at a time.
func requant() {
	requantKernel("requantFar", farSize, "scales with one rounding; all shifts are 32 or more.", func() scaler {
		one := all(bits(1))
		return func(x, p operand.Mem, k *reg.OpmaskVirtual) vec {
			v, odd := loadPair(x, k)
			v = shifted(v, odd, p)
			if w.wide {
				v = op("VPADDD", v, one)
			} else {
				v = op("VPSUBD", v, p.Offset(unbias))
			}
			return shift("VPSRAD", v, 1)
		}
	})
	requantKernel("requantNear", nearSize, "scales with one rounding.", func() scaler {
		return func(x, p operand.Mem, k *reg.OpmaskVirtual) vec {
			most := load(p.Offset(limit))
			v := op("VPMINSD", loadSome(x, k), most)
			v = op("VPMAXSD", v, xor(most, bits(0xffffffff)))
			even, odd := products(v, op1("VMOVSHDUP", v), p)
			halve := func(v vec) vec {
				return shift("VPSRLQ", op("VPADDQ", v, words("one64", func(i int) uint32 { return uint32(1 - i%2) })), 1)
			}
			v = mergeOdd(halve(even), op1("VMOVSLDUP", halve(odd)))
			if w.wide {
				return v
			}
			return op("VPSUBD", v, p.Offset(unbias))
		}
	})
	requantKernel("requantTwo", twoSize, "scales with two roundings.", func() scaler {
		return func(x, p operand.Mem, k *reg.OpmaskVirtual) vec {
			v := op("VPSLLVD", loadSome(x, k), p.Offset(leftShift))
			v = shiftProducts(op("VPMULDQ", v, p.Offset(multiplier)), op("VPMULDQ", op1("VMOVSHDUP", v), op1("VMOVSHDUP", p.Offset(multiplier))))
			return divPow2(v, p)
		}
	})
	requantKernel("requantFloat", floatSize, "scales with fp32.", func() scaler {
		most := all(num(1 << 20))
		return func(x, p operand.Mem, k *reg.OpmaskVirtual) vec {
			v := op("VMULPS", op1("VCVTDQ2PS", loadSome(x, k)), p)
			// −2³¹ stands for all that is too small, but for what is too large as well.
			return op1("VCVTPS2DQ", op("VMINPS", v, most))
		}
	})
}

// requantKernel is the loop over rows around a scaler. AVX-512 has a mask for the
// last elements of a row, AVX2 takes whole blocks.
func requantKernel(name string, group int, doc string, prepare func() scaler) {
	begin(name, "func(out *byte, x *int32, params *int64, step, n, rows, outStride, xStride int, place *uint32)",
		doc+"\nrows of n int32 become bytes; the strides are bytes, and step is what params advances by with each block.")
	out, x, params, step := param("out"), param("x"), param("params"), param("step")
	rows, outStride, xStride := param("rows"), param("outStride"), param("xStride")
	place := param("place")
	zero, lo, hi := broadcast(1, at(place, 0)), broadcast(0, at(place, 2)), broadcast(0, at(place, 3))
	order := load(words("order"+w.suffix, func(i int) uint32 {
		if w.wide {
			return uint32(i%4*4 + i/4) // element i of four registers' lanes
		}
		return uint32(i%8%2*4 + i%8/2)
	}))
	newOddWords()
	scale := prepare()
	block := 4 * lanes()
	o, a, p, n := g.GP64(), g.GP64(), g.GP64(), g.GP64()
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
			first := i * lanes()
			r[i] = scale(at(a, 4*first), at(p, first/16*group+first%16*4), k[i])
		}
		ab, cd := op("VPACKSSDW", r[0], r[1]), op("VPACKSSDW", r[2], r[3])
		ab, cd = op("VPADDSW", ab, zero), op("VPADDSW", cd, zero)
		b := op("VPERMD", order, op("VPACKSSWB", ab, cd))
		b = op("VPMINSB", op("VPMAXSB", b, lo), hi)
		if masked {
			g.VMOVDQU8(b, all, at(o, 0))
		} else {
			store(b, at(o, 0))
		}
	}
	g.Label("row")
	g.MOVQ(out, o)
	g.MOVQ(x, a)
	g.MOVQ(params, p)
	g.Load(g.Param("n"), n)
	advance := func() {
		g.ADDQ(imm(uint64(block)), o)
		g.ADDQ(imm(uint64(4*block)), a)
		g.ADDQ(step, p)
	}
	blocksOrWhole(n, block, advance, some)
	g.ADDQ(outStride, out)
	g.ADDQ(xStride, x)
	g.DECQ(rows)
	g.JNZ(operand.LabelRef("row"))
	g.VZEROUPPER()
	g.RET()
}

// oddWords is the mask of the odd words, of AVX-512.
var oddWords reg.OpmaskVirtual

// newOddWords makes oddWords that of the function that has begun.
func newOddWords() {
	if !w.wide {
		return
	}
	oddWords = g.K()
	word := g.GP32()
	g.MOVL(operand.U32(0xaaaa), word)
	g.KMOVW(word, oddWords)
}

func loadSome(m operand.Mem, k *reg.OpmaskVirtual) vec {
	if k == nil {
		return load(m)
	}
	d := newVec()
	g.VMOVDQU32_Z(m, *k, d)
	return d
}

// loadPair loads words, and the odd ones in the place of the even ones.
func loadPair(m operand.Mem, k *reg.OpmaskVirtual) (v, odd vec) {
	v = loadSome(m, k)
	if k == nil {
		return v, op1("VMOVSHDUP", m)
	}
	return v, op1("VMOVSHDUP", v)
}

// products are the products of even and of odd words with the multiplier,
// shifted right but for one bit. Those of AVX2 are unsigned, as it has no other
// shift, after 2⁶² was added.
func products(even, odd vec, p operand.Mem) (e, o vec) {
	e = op("VPMULDQ", even, p.Offset(multiplier))
	o = op("VPMULDQ", odd, op1("VMOVSHDUP", p.Offset(multiplier)))
	if w.wide {
		return op("VPSRAVQ", e, p.Offset(evenShift)), op("VPSRAVQ", o, p.Offset(oddShift))
	}
	bias := words("bias", func(i int) uint32 { return uint32(i%2) << 30 })
	return op("VPSRLVQ", op("VPADDQ", e, bias), p.Offset(evenShift)), op("VPSRLVQ", op("VPADDQ", o, bias), p.Offset(oddShift))
}

// shifted is products as words.
func shifted(even, odd vec, p operand.Mem) vec {
	e, o := products(even, odd, p)
	if w.wide {
		g.VMOVSLDUP(o, oddWords, e)
		return e
	}
	return mergeOdd(e, op1("VMOVSLDUP", o))
}
