// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
)

// floating is element i of the row at address row, of floating-point type t, by
// the formulas of §6.5: exact in a float64.
func (m *model) floating(t byte, row, i int) float64 {
	decode := func(v, fraction uint32, exponent int, bias int, special bool) float64 {
		e := int(v >> fraction & (1<<exponent - 1))
		f := float64(v & (1<<fraction - 1))
		x := math.Ldexp(1+f/math.Ldexp(1, int(fraction)), e-bias)
		switch {
		case special && e == 1<<exponent-1 && f != 0:
			return math.NaN()
		case special && e == 1<<exponent-1:
			x = math.Inf(1)
		case e == 0:
			x = math.Ldexp(f, 1-bias-int(fraction))
		}
		if v>>(int(fraction)+exponent) != 0 {
			x = -x
		}
		return x
	}
	half := func() uint32 { return uint32(binary.LittleEndian.Uint16(m.spad[row+2*i:])) }
	switch t {
	case 8:
		return decode(binary.LittleEndian.Uint32(m.spad[row+4*i:]), 23, 8, 127, true)
	case 9:
		return decode(half(), 7, 8, 127, true)
	case 10:
		return decode(half(), 10, 5, 15, true)
	case 11:
		if v := m.spad[row+i]; v&0x7f == 0x7f {
			return math.NaN()
		}
		return decode(uint32(m.spad[row+i]), 3, 4, 7, false)
	case 12:
		return decode(uint32(m.spad[row+i]), 2, 5, 15, true)
	}
	panic(fmt.Sprintf("model: type %d", t))
}

// chainStep is fma(a, b, c) of §6.7 in unbounded precision, as encodings of fp32.
func chainStep(a, b float64, c uint32) uint32 {
	x := float64(math.Float32frombits(c))
	for _, v := range []float64{a, b, x, a * b} { // the product of two fp32 is finite in fp64 if they are
		if math.IsNaN(v) || math.IsInf(v, 0) {
			sum := float32(a*b + x)
			if sum != sum {
				return 0x7fc00000
			}
			return math.Float32bits(sum)
		}
	}
	exact := func(v float64) *big.Float { return new(big.Float).SetPrec(600).SetFloat64(v) }
	sum := new(big.Float).SetPrec(600).Mul(exact(a), exact(b))
	r, _ := sum.Add(sum, exact(x)).Float32()
	return math.Float32bits(r)
}

// chain makes the sum of column c of row r, of k products of operands at(k) and
// weight(k).
func (m *model) chain(acc, r, c, depth int, accumulate bool, at, weight func(k int) float64) {
	to := acc + r*int(binary.LittleEndian.Uint32(m.operands[24:])) + 4*c
	sum := uint32(0)
	if accumulate {
		sum = binary.LittleEndian.Uint32(m.acc[to:])
	}
	for k := range depth {
		sum = chainStep(at(k), weight(k), sum)
	}
	binary.LittleEndian.PutUint32(m.acc[to:], sum)
}

// floatWeight is w[k][n] of the operand at b.
func (m *model) floatWeight(b, k, n int) float64 {
	stride := int(binary.LittleEndian.Uint32(m.operands[20:]))
	if m.operands[1]&4 != 0 {
		k, n = n, k
	}
	return m.floating(m.operands[5], b+k*stride, n)
}
