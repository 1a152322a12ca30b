// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"

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

// instruction is a method of build.Context: some take any number of operands, some as many as there are.
type instruction any

func emit(f instruction, ops ...operand.Op) {
	switch f := f.(type) {
	case func(...operand.Op):
		f(ops...)
	case func(a, b operand.Op):
		f(ops[0], ops[1])
	case func(a, b, c operand.Op):
		f(ops[0], ops[1], ops[2])
	default:
		panic(fmt.Sprintf("gen: BUG: instruction of type %T", f))
	}
}

// op applies an instruction of two operands and a result.
func op(f instruction, a, b operand.Op) vec {
	d := newVec()
	emit(f, b, a, d)
	return d
}

// op1 applies an instruction of one operand.
func op1(f instruction, a operand.Op) vec {
	d := newVec()
	emit(f, a, d)
	return d
}

// shift applies an instruction with an immediate operand.
func shift(f instruction, a operand.Op, n uint64) vec {
	d := newVec()
	emit(f, imm(n), a, d)
	return d
}

var symbols = map[string]bool{}

// words is a constant in memory, of as many words as a wide register.
func words(name string, values func(i int) uint32) operand.Mem {
	if !symbols[name] {
		symbols[name] = true
		g.StaticGlobal(name)
		g.DataAttributes(attr.RODATA | attr.NOPTR)
		for i := range 16 {
			g.AppendDatum(operand.U32(values(i)))
		}
	}
	return operand.NewDataAddr(operand.NewStaticSymbol(name), 0)
}

// bits is a constant in all words.
func bits(v uint32) operand.Mem {
	return words(fmt.Sprintf("all%08x", v), func(int) uint32 { return v })
}

// num is a number in all words.
func num(v float32) operand.Mem { return bits(math.Float32bits(v)) }

func load(m operand.Mem) vec {
	d := newVec()
	if w.wide {
		g.VMOVDQU32(m, d)
	} else {
		g.VMOVDQU(m, d)
	}
	return d
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
		return op(g.VPANDD, a, b)
	}
	return op(g.VPAND, a, b)
}

func or(a, b operand.Op) vec {
	if w.wide {
		return op(g.VPORD, a, b)
	}
	return op(g.VPOR, a, b)
}

func xor(a, b operand.Op) vec {
	if w.wide {
		return op(g.VPXORD, a, b)
	}
	return op(g.VPXOR, a, b)
}

// andNot is b and not a.
func andNot(a, b operand.Op) vec {
	if w.wide {
		return op(g.VPANDND, a, b)
	}
	return op(g.VPANDN, a, b)
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
	return op1([]instruction{g.VPBROADCASTB, g.VPBROADCASTW, g.VPBROADCASTD}[size], m)
}
