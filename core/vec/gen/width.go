// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"reflect"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// width is a kind of registers. What follows hides the differences between the
// two kinds; operands are in the order of their mathematics, not of assembly.
type width struct {
	suffix string
	bytes  int  // of a register
	wide   bool // AVX-512
}

// w is the width of the kernel that is being made.
var w width

// lanes is the number of 32-bit elements in a register.
func lanes() int { return w.bytes / 4 }

type vec = reg.VecVirtual

func newVec() vec {
	if w.wide {
		return g.ZMM()
	}
	return g.YMM()
}

// mask is the result of a comparison: a mask register, or an element of all ones.
type mask struct {
	k reg.OpmaskVirtual
	y vec
}

// emit appends an instruction. With AVX-512 a constant in memory is one word
// that is broadcast: 64 bytes of them could be in two cache lines.
func emit(name string, ops ...operand.Op) {
	var in []reflect.Value
	for _, o := range ops {
		if c, ok := o.(constant); ok {
			o = c.Mem
			if w.wide {
				name += "_BCST"
			}
		}
		in = append(in, reflect.ValueOf(o))
	}
	f := reflect.ValueOf(g).MethodByName(name)
	if !f.IsValid() {
		panic("gen: BUG: no instruction " + name)
	}
	f.Call(in)
}

// constant is a word in memory, and as many more as AVX2 has.
type constant struct{ operand.Mem }

// op applies an instruction of two operands and a result.
func op(f string, a, b operand.Op) vec {
	d := newVec()
	emit(f, b, a, d)
	return d
}

// op1 applies an instruction of one operand.
func op1(f string, a operand.Op) vec {
	d := newVec()
	emit(f, a, d)
	return d
}

// shift applies an instruction with an immediate operand.
func shift(f string, a operand.Op, n uint64) vec {
	d := newVec()
	emit(f, imm(n), a, d)
	return d
}

var symbols = map[string]bool{}

// table is a constant of n words in memory.
func table(name string, n int, values func(i int) uint32) operand.Mem {
	if !symbols[name] {
		symbols[name] = true
		g.StaticGlobal(name)
		g.DataAttributes(attr.RODATA | attr.NOPTR)
		for i := range n {
			g.AppendDatum(operand.U32(values(i)))
		}
	}
	return operand.NewDataAddr(operand.NewStaticSymbol(name), 0)
}

// words is a constant of as many words as a wide register has.
func words(name string, values func(i int) uint32) operand.Mem { return table(name, 16, values) }

// bits is a constant in all words.
func bits(v uint32) constant {
	return constant{table(fmt.Sprintf("all%08x", v), 8, func(int) uint32 { return v })}
}

// num is a number in all words.
func num(v float32) constant { return bits(math.Float32bits(v)) }

func load(m operand.Mem) vec {
	d := newVec()
	if w.wide {
		g.VMOVDQU32(m, d)
	} else {
		g.VMOVDQU(m, d)
	}
	return d
}

// all has a constant everywhere.
func all(c constant) vec {
	if w.wide {
		return op1("VPBROADCASTD", c.Mem)
	}
	return load(c.Mem)
}

func store(v vec, m operand.Mem) {
	if w.wide {
		g.VMOVDQU32(v, m)
	} else {
		g.VMOVDQU(v, m)
	}
}

func and(a, b operand.Op) vec {
	if w.wide {
		return op("VPANDD", a, b)
	}
	return op("VPAND", a, b)
}

func or(a, b operand.Op) vec {
	if w.wide {
		return op("VPORD", a, b)
	}
	return op("VPOR", a, b)
}

func xor(a, b operand.Op) vec {
	if w.wide {
		return op("VPXORD", a, b)
	}
	return op("VPXOR", a, b)
}

// andNot is b and not a.
func andNot(a, b operand.Op) vec {
	if w.wide {
		return op("VPANDND", a, b)
	}
	return op("VPANDN", a, b)
}

// lowMask makes k the mask of the lowest n elements, of at most 64.
func lowMask(n reg.GPVirtual, k reg.OpmaskVirtual) {
	m := g.GP64()
	g.MOVQ(operand.U64(math.MaxUint64), m)
	g.BZHIQ(n, m, m)
	g.KMOVQ(m, k)
}

// broadcast is the instruction that puts an element of 8 << size bits in memory everywhere.
func broadcast(size int, m operand.Mem) vec {
	return op1([]string{"VPBROADCASTB", "VPBROADCASTW", "VPBROADCASTD"}[size], m)
}

// move copies v, for an instruction that overwrites it.
func move(v vec) vec { return op1("VMOVAPS", v) }

// fma is a·b + c, rounded once; c may be in memory.
func fma(a, b vec, c operand.Op) vec {
	d := move(a)
	emit("VFMADD213PS", c, b, d)
	return d
}

// fmaTo is c + a·b; b may be in memory.
func fmaTo(c, a vec, b operand.Op) vec {
	d := move(c)
	emit("VFMADD231PS", b, a, d)
	return d
}

// fms is a·b − c, rounded once.
func fms(a, b, c vec) vec {
	d := move(a)
	emit("VFMSUB213PS", c, b, d)
	return d
}

func add(a, b operand.Op) vec { return op("VADDPS", a, b) }
func sub(a, b operand.Op) vec { return op("VSUBPS", a, b) }
func mul(a, b operand.Op) vec { return op("VMULPS", a, b) }
func div(a, b operand.Op) vec { return op("VDIVPS", a, b) }

// lower and upper are min and max of numbers of which none is NaN and not both
// are 0: b where they are.
func lower(a, b operand.Op) vec { return op("VMINPS", a, b) }
func upper(a, b operand.Op) vec { return op("VMAXPS", a, b) }

func negate(a vec) vec   { return xor(a, bits(sign)) }
func absolute(a vec) vec { return and(a, bits(^uint32(sign))) }

const (
	sign = 1 << 31
	nan  = 0x7fc00000
)

// Predicates of VCMPPS.
const (
	equal        = 0
	less         = 1
	lessEqual    = 2
	unordered    = 3
	notEqual     = 4
	notMoreEqual = 9
)

// compare compares numbers.
func compare(predicate uint64, a vec, b operand.Op) (m mask) {
	if w.wide {
		m.k = g.K()
		emit("VCMPPS", imm(predicate), b, a, m.k)
	} else {
		m.y = g.YMM()
		emit("VCMPPS", imm(predicate), b, a, m.y)
	}
	return m
}

// compareInt is a = b, or a > b, by the instruction for it.
func compareInt(f string, a vec, b operand.Op) (m mask) {
	if w.wide {
		m.k = g.K()
		emit(f, b, a, m.k)
	} else {
		m.y = g.YMM()
		emit(f, b, a, m.y)
	}
	return m
}

func negative(a vec) (m mask) {
	if w.wide {
		m.k = g.K()
		g.VPMOVD2M(a, m.k)
	} else {
		m.y = a // instructions look at the sign
	}
	return m
}

// pick is yes where m is set, else no.
func pick(m mask, yes operand.Op, no vec) vec {
	d := newVec()
	if w.wide {
		emit("VBLENDMPS", yes, no, m.k, d)
	} else {
		emit("VBLENDVPS", m.y, yes, no, d)
	}
	return d
}

// where is v where m, of whole elements, is set, and 0 elsewhere; or, inverted, the other way round.
func where(m mask, inverted bool, v constant) vec {
	d := newVec()
	switch {
	case w.wide:
		if inverted {
			g.KNOTW(m.k, m.k)
		}
		g.VPBROADCASTD_Z(v.Mem, m.k, d)
	case inverted:
		g.VPANDN(v.Mem, m.y, d)
	default:
		g.VPAND(v.Mem, m.y, d)
	}
	return d
}

// canon makes all NaNs the canonical one.
func canon(v vec) vec { return nanOf(v, v) }

// nanOf is v, or the canonical NaN where x is NaN.
func nanOf(x, v vec) vec { return pick(compare(unordered, x, x), bits(nan), v) }

// tail is a mask of the first elements of a register.
type tail struct {
	k reg.OpmaskVirtual
	y vec
}

// newTails makes masks of the first n elements, 0 < n, for as many registers.
func newTails(n reg.GPVirtual, registers int) []*tail {
	var t []*tail
	if w.wide {
		k := g.K()
		lowMask(n, k)
		for i := range registers {
			m := g.K()
			g.KSHIFTRQ(imm(uint64(16*i)), k, m)
			t = append(t, &tail{k: m})
		}
		return t
	}
	p, less := g.GP64(), g.GP64()
	g.LEAQ(table("tail", 32, func(i int) uint32 { return uint32((i - 16) >> 31) }), p)
	g.MOVQ(n, less)
	g.NEGQ(less)
	for i := range registers {
		y := g.YMM()
		g.VMOVDQU(operand.Mem{Base: p, Index: less, Scale: 4, Disp: 64 + 32*i}, y)
		t = append(t, &tail{y: y})
	}
	return t
}

// loadTail loads the elements of t, or all with nil; others are 0.
func loadTail(m operand.Mem, t *tail) vec {
	if t == nil {
		return load(m)
	}
	d := newVec()
	if w.wide {
		g.VMOVDQU32_Z(m, t.k, d)
	} else {
		g.VPMASKMOVD(m, t.y, d)
	}
	return d
}

func storeTail(v vec, m operand.Mem, t *tail) {
	switch {
	case t == nil:
		store(v, m)
	case w.wide:
		g.VMOVDQU32(v, t.k, m)
	default:
		g.VPMASKMOVD(v, t.y, m)
	}
}

// keep is v with v's elements of t, others being those of rest.
func (t *tail) keep(v, rest vec) vec {
	if t == nil {
		return v
	}
	return pick(mask(*t), v, rest)
}

// blocks is a loop over n elements: some for whole blocks, after each of which
// the pointers advance by as many bytes, then once for the last elements.
func blocks(n reg.GPVirtual, block int, advance func(), some func(last bool)) {
	g.SUBQ(imm(uint64(block)), n)
	g.JL(operand.LabelRef("last"))
	g.Label("block")
	some(false)
	advance()
	g.SUBQ(imm(uint64(block)), n)
	g.JGE(operand.LabelRef("block"))
	g.Label("last")
	g.ADDQ(imm(uint64(block)), n)
	g.JZ(operand.LabelRef("end"))
	some(true)
	g.Label("end")
}
