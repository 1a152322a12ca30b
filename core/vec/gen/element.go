// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/operand"
)

// registered are the kernels of one width by the field of Go's table that they
// belong to.
var registered []string

// register makes the kernel called name a field of kernels, or its element at index.
func register(field string, index any, name string) {
	if index != nil {
		field = fmt.Sprintf("%s[%v]", field, index)
	}
	registered = append(registered, fmt.Sprintf("k.%s = %s%s", field, name, w.suffix))
}

// unary is a kernel of words.
func unary(field string, index any, name string, f func(x vec) vec) {
	register(field, index, name)
	begin(name, "func(z, x *uint32, n int)", "makes z of n elements of x.")
	z, x, n := param("z"), param("x"), param("n")
	advance := func() {
		g.ADDQ(imm(uint64(w.bytes)), z)
		g.ADDQ(imm(uint64(w.bytes)), x)
	}
	blocks(n, lanes(), advance, func(last bool) {
		var t *tail
		if last {
			t = newTails(n, 1)[0]
		}
		storeTail(f(loadTail(at(x, 0), t)), at(z, 0), t)
	})
	g.VZEROUPPER()
	g.RET()
}

// binary is a kernel of words; f has a look at what was in z, too.
func binary(field string, index any, name string, f func(x, y vec, z operand.Mem, t *tail) vec) {
	register(field, index, name)
	begin(name, "func(z, x, y *uint32, step, n int)", "makes z of n elements of x and y, which advances by step bytes with each register.")
	z, x, y, step, n := param("z"), param("x"), param("y"), param("step"), param("n")
	advance := func() {
		g.ADDQ(imm(uint64(w.bytes)), z)
		g.ADDQ(imm(uint64(w.bytes)), x)
		g.ADDQ(step, y)
	}
	blocks(n, lanes(), advance, func(last bool) {
		var t *tail
		if last {
			t = newTails(n, 1)[0]
		}
		r := f(loadTail(at(x, 0), t), loadTail(at(y, 0), t), at(z, 0), t)
		storeTail(r, at(z, 0), t)
	})
	g.VZEROUPPER()
	g.RET()
}

// two is binary's function of a function of x and y.
func two(f func(x, y vec) vec) func(x, y vec, z operand.Mem, t *tail) vec {
	return func(x, y vec, _ operand.Mem, _ *tail) vec { return f(x, y) }
}

// ints are the operations on int32 (§6.10), with their numbers in §5.6.18.
func ints() {
	u := func(index int, name string, f func(x vec) vec) { unary("unaryInt", index, name+"Int", f) }
	u(1, "neg", func(x vec) vec { return op("VPSUBD", all(bits(0)), x) })
	u(2, "abs", func(x vec) vec { return op1("VPABSD", x) })
	u(3, "relu", func(x vec) vec { return op("VPMAXSD", x, bits(0)) })

	b := func(index int, name string, f func(x, y vec) vec) { binary("binaryInt", index, name+"Int", two(f)) }
	simple := func(f string) func(x, y vec) vec { return func(x, y vec) vec { return op(f, x, y) } }
	b(4, "add", simple("VPADDD"))
	b(5, "sub", simple("VPSUBD"))
	b(6, "mul", simple("VPMULLD"))
	b(7, "min", simple("VPMINSD"))
	b(8, "max", simple("VPMAXSD"))
	b(9, "eq", func(x, y vec) vec { return where(compareInt("VPCMPEQD", x, y), false, bits(1)) })
	b(10, "ne", func(x, y vec) vec { return where(compareInt("VPCMPEQD", x, y), true, bits(1)) })
	b(11, "lt", func(x, y vec) vec { return where(compareInt("VPCMPGTD", y, x), false, bits(1)) })
	b(12, "le", func(x, y vec) vec { return where(compareInt("VPCMPGTD", x, y), true, bits(1)) })
	b(16, "and", func(x, y vec) vec { return and(x, y) })
	b(17, "or", func(x, y vec) vec { return or(x, y) })
	b(18, "xor", func(x, y vec) vec { return xor(x, y) })
	b(19, "shl", simple("VPSLLVD"))
	b(20, "shr", simple("VPSRAVD"))
	b(21, "shrLogical", simple("VPSRLVD"))
	b(22, "shrRound", func(x, y vec) vec {
		half := and(op("VPSRAVD", x, op("VPADDD", y, bits(0xffffffff))), bits(1)) // the highest bit that is lost, or the sign
		half = pick(compareInt("VPCMPEQD", y, bits(0)), bits(0), half)
		return op("VPADDD", op("VPSRAVD", x, y), half)
	})
	b(23, "mulHigh", func(x, y vec) vec {
		newOddWords()
		v := shiftProducts(op("VPMULDQ", x, y), op("VPMULDQ", op1("VMOVSHDUP", x), op1("VMOVSHDUP", y)))
		return pick(compareInt("VPCMPEQD", v, bits(sign)), bits(math.MaxInt32), v) // 2³¹
	})
	limit := func(x, s, over vec) vec {
		return pick(negative(over), xor(shift("VPSRAD", x, 31), bits(math.MaxInt32)), s)
	}
	b(24, "addSat", func(x, y vec) vec {
		s := op("VPADDD", x, y)
		return limit(x, s, and(xor(x, s), xor(y, s)))
	})
	b(25, "subSat", func(x, y vec) vec {
		s := op("VPSUBD", x, y)
		return limit(x, s, and(xor(x, y), xor(x, s)))
	})

	choose := func(x, y, condition vec) vec { return pick(compareInt("VPCMPEQD", condition, bits(0)), y, x) }
	binary("choose", 0, "selectInt", func(x, y vec, z operand.Mem, t *tail) vec { return choose(x, y, loadTail(z, t)) })
	binary("choose", 1, "selectFloat", func(x, y vec, z operand.Mem, t *tail) vec {
		return choose(x, y, shift("VPSLLD", loadTail(z, t), 1)) // −0 is 0
	})
}

// shiftProducts is the products of the even and of the odd words, divided by 2³¹ and rounded.
func shiftProducts(even, odd vec) vec {
	half := words("half", func(i int) uint32 { return uint32(1-i%2) << 30 })
	even = shift("VPSRLQ", op("VPADDQ", even, half), 31)
	odd = op("VPADDQ", odd, half)
	return mergeOdd(even, op("VPADDQ", odd, odd)) // of the odd ones the high words are the results
}

// mergeOdd has the even words of a and the odd ones of b.
func mergeOdd(a, b vec) vec {
	d := newVec()
	if w.wide {
		g.VPBLENDMD(b, a, oddWords, d)
	} else {
		g.VPBLENDD(imm(0xaa), b, a, d)
	}
	return d
}

// floats are the operations on fp32 (§6.7, §6.12).
func floats() {
	u := func(index int, name string, f func(x vec) vec) {
		unary("unaryFloat", index, name+"Float", func(x vec) vec { return nanOf(x, f(x)) })
	}
	unary("unaryFloat", 0, "canonFloat", canon)
	u(1, "neg", negate)
	u(2, "abs", absolute)
	u(3, "relu", func(x vec) vec { return upper(x, bits(0)) })
	unary("unaryFloat", 33, "sqrtFloat", func(x vec) vec { return canon(op1("VSQRTPS", x)) })
	u(34, "exp", exp)
	u(35, "log", logarithm)
	u(36, "tanh", tanh)
	u(37, "sigmoid", sigmoid)
	u(38, "silu", silu)
	u(39, "gelu", gelu)
	u(40, "geluTanh", geluTanh)
	u(41, "erf", erf)
	u(42, "reciprocal", reciprocal)
	u(43, "rsqrt", rsqrt)
	u(44, "hardSigmoid", hardSigmoid)
	u(45, "hardSwish", hardSwish)
	u(46, "relu6", func(x vec) vec { return lower(upper(x, bits(0)), num(6)) })

	b := func(index int, name string, f func(x, y vec) vec) { binary("binaryFloat", index, name+"Float", two(f)) }
	rounded := func(f string) func(x, y vec) vec { return func(x, y vec) vec { return canon(op(f, x, y)) } }
	b(4, "add", rounded("VADDPS"))
	b(5, "sub", rounded("VSUBPS"))
	b(6, "mul", rounded("VMULPS"))
	b(32, "div", rounded("VDIVPS"))
	b(7, "min", minMax("VMINPS", or))
	b(8, "max", minMax("VMAXPS", and))
	truth := func(predicate uint64) func(x, y vec) vec {
		return func(x, y vec) vec { return where(compare(predicate, x, y), false, num(1)) }
	}
	b(9, "eq", truth(equal))
	b(10, "ne", truth(notEqual))
	b(11, "lt", truth(less))
	b(12, "le", truth(lessEqual))

	unary("between", 0, "toInt", toInt)
	unary("between", 1, "fromInt", func(x vec) vec { return op1("VCVTDQ2PS", x) })
}
