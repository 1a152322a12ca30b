// SPDX-License-Identifier: Apache-2.0

package vec

import (
	"fmt"
	"math"

	"npuemu/core/num"
)

// Unit computes rows, for one goroutine at a time. Slices of one call either are
// the same memory or do not overlap, except where a method says otherwise.
// Nothing allocates. New makes one.
type Unit struct {
	*tier

	// The last elements of rows, and single ones for all of a row: kernels are
	// called through variables, and on the stack these would escape.
	words, all [16]uint32
	a, b       [64]byte
	four       [Rows]uint32
}

// New returns the best Unit of this processor.
func New() *Unit { return &Unit{tier: tiers()[0]} }

// Tier names the instructions that u uses.
func (u *Unit) Tier() string { return u.name }

// Load makes words of elements of type t, one for each of to (§6.6, step 1). NaNs
// are canonical, except those of FP32.
func (u *Unit) Load(to []uint32, from []byte, t Type) {
	if w, ok := InPlace(from); ok && t.Size() == 4 {
		copy(to, w)
		return
	}
	k := u.widen[t]
	if k == nil {
		for i := range to {
			to[i] = load(from, t, i)
		}
		return
	}
	from = from[:len(to)*t.Size()]
	n := u.most(len(to), u.register/4)
	if n > 0 {
		k(&to[0], &from[0], n)
	}
	if n < len(to) {
		copy(u.a[:], from[n*t.Size():])
		k(&u.words[0], &u.a[0], u.register/4)
		copy(to[n:], u.words[:])
	}
}

// most is how many of n elements a kernel takes that may want whole registers of so many.
func (u *Unit) most(n, lanes int) int {
	if u.whole {
		n -= n % lanes
	}
	return n
}

// Convert makes x the words that t's elements are made of: of int32 or, with
// float, fp32, the one or the other, NaNs of both alike (§6.6, step 2).
func (u *Unit) Convert(x []uint32, float bool, t Type) {
	if float == t.Float() {
		return
	}
	to, i := FP32, 1
	if float {
		to, i = Int32, 0
	}
	if k := u.between[i]; k != nil && len(x) > 0 {
		k(&x[0], &x[0], len(x))
		return
	}
	for i, v := range x {
		x[i] = Convert(v, float, to, true)
	}
}

// Store makes elements of type t of words (§6.6, step 3): int32 or, if t is a
// floating-point type, fp32; all NaNs become the canonical one, except for FP32.
func (u *Unit) Store(to []byte, from []uint32, t Type, saturate bool) {
	to = to[:len(from)*t.Size()]
	if w, ok := InPlace(to); ok && t.Size() == 4 {
		copy(w, from)
		return
	}
	k := u.narrow[t]
	if wrap := u.wrap[t]; wrap != nil && !saturate {
		k = wrap
	}
	if k == nil {
		for i, v := range from {
			if t != FP32 {
				v = Convert(v, t.Float(), t, saturate)
			}
			store(to, t, i, v)
		}
		return
	}
	n := u.most(len(from), u.register/4)
	if n > 0 {
		k(&to[0], &from[0], n)
	}
	if n < len(from) {
		copy(u.words[:], from[n:])
		k(&u.a[0], &u.words[0], u.register/4)
		copy(to[n*t.Size():], u.a[:])
	}
}

// Compute sets z to x op y, of int32 or, with float, of fp32 (§6.7, §6.10, §6.12).
// z and x have the same length; y has it too, or length 1 for all, and is not
// looked at if op has one operand. SELECT's condition is what is in z: an fp32 if
// condition says so, else an int32. All NaNs become the canonical one, except
// those that SELECT selects.
func (u *Unit) Compute(op Op, float, condition bool, z, x, y []uint32) {
	n := len(x)
	if n == 0 {
		return
	}
	z = z[:n]
	unary, binary := u.unaryInt[op], u.binaryInt[op]
	if float {
		unary, binary = u.unaryFloat[op], u.binaryFloat[op]
	}
	if op == Select {
		binary = u.choose[0]
		if condition {
			binary = u.choose[1]
		}
	}
	switch {
	case op == Move && !float:
		copy(z, x)
	case unary != nil:
		unary(&z[0], &x[0], n)
	case binary != nil && len(y) == 1 && n > 1:
		one := y[0]
		for i := range u.all {
			u.all[i] = one
		}
		binary(&z[0], &x[0], &u.all[0], 0, n)
	case binary != nil:
		binary(&z[0], &x[0], &y[:n][0], u.register, n)
	default:
		for i, a := range x {
			var b uint32
			switch {
			case len(y) == 1:
				b = y[0]
			case len(y) > 0:
				b = y[i]
			}
			c := z[i]
			if condition {
				c &^= 1 << 31 // −0 is 0
			}
			z[i] = compute(op, float, a, b, c)
		}
	}
}

// Native reports whether Bytes has op for type t.
func (u *Unit) Native(op Op, t Type) bool {
	if t > Uint8 || op > Max {
		return false
	}
	return u.native[t][op] != nil
}

// Bytes sets z to x op y, elements of an integer type for which op is Native,
// with results of the same type that saturate. y is as long as x, one element for
// all, or nil with ReLU. z may overlap x and y if it begins in front of them.
func (u *Unit) Bytes(op Op, t Type, z, x, y []byte) {
	k, step, size := u.native[t][op], u.register, t.Size()
	switch {
	case op == ReLU:
		y, step = u.b[:], 0
	case len(y) == size && len(x) > size:
		copy(u.b[:], y)
		for n := size; n < len(u.b); n *= 2 {
			copy(u.b[n:], u.b[:n])
		}
		y, step = u.b[:], 0
	}
	z = z[:len(x)]
	n := u.most(len(x), u.register)
	if step > 0 {
		y = y[:len(x)]
	}
	if n > 0 {
		k(&z[0], &x[0], &y[0], step, n)
	}
	if n < len(x) {
		copy(u.a[:], x[n:])
		copy(u.b[:], y[n*step/u.register:])
		k(&u.a[0], &u.a[0], &u.b[0], step, u.register)
		copy(z[n:], u.a[:])
	}
}

// Lookup sets z to the bytes of table that those of x name (§6.13). z may overlap
// x if it begins in front of it.
func (u *Unit) Lookup(z, x []byte, table *[256]byte) {
	z = z[:len(x)]
	if u.lookup != nil && len(x) > 0 {
		u.lookup(&z[0], &x[0], &table[0], len(x))
		return
	}
	for i, v := range x {
		z[i] = table[v]
	}
}

// Reduce reduces x, at least one int32 or, with float, fp32 (§6.11).
func (u *Unit) Reduce(op Reduction, float bool, x []uint32) uint32 {
	switch {
	case op == ReduceMean:
		return bits(num.Div32(number(u.Reduce(ReduceSum, true, x)), num.FromInt32(int32(len(x)))))
	case !float && u.reduce[op] != nil:
		return u.reduce[op](&x[0], len(x))
	case !float:
		return uint32(reduceInts(op, x))
	case op == ReduceSum && u.reduce[3] != nil:
		return bits(num.Canon(number(u.reduce[3](&x[0], len(x)))))
	case op != ReduceSum && u.extreme[op] != nil:
		key, most := u.extreme[op](&x[0], len(x))
		if most > 0xff<<24 {
			return num.NaN
		}
		return key ^ uint32(int32(key)>>31)>>1
	}
	return bits(reduceFloats(op, Floats(x)))
}

// Softmax sets z to the softmax of x, at least one fp32 (§6.14.1).
func (u *Unit) Softmax(z, x []uint32) {
	if u.expSum == nil {
		num.Softmax(Floats(z), Floats(x))
		return
	}
	z = z[:len(x)]
	m := u.Reduce(ReduceMax, true, x)
	if m&0x7f800000 == 0x7f800000 { // a difference of infinities, or NaN
		for i := range z {
			z[i] = num.NaN
		}
		return
	}
	sum := u.expSum(&z[0], &x[0], m, len(x))
	u.words[0] = bits(num.Div32(1, number(sum)))
	u.Compute(Mul, true, false, z, z, u.words[:1])
}

// Rows is how many rows Sums, LayerNorms and RMSNorms take.
const Rows = 4

// Sums sets sums to the sums of n fp32 each, in rows of x that begin step words
// apart (§6.11).
func (u *Unit) Sums(sums *[Rows]uint32, x []uint32, step, n int) {
	_ = x[3*step+n-1]
	if u.sums == nil {
		for i := range sums {
			sums[i] = u.Reduce(ReduceSum, true, x[i*step:][:n])
		}
		return
	}
	u.sums(&x[0], 4*step, n, &u.four[0])
	for i, s := range u.four {
		sums[i] = bits(num.Canon(number(s)))
	}
}

// LayerNorms is LayerNorm of Rows rows of n, which begin zStep and xStep words
// apart. Rows of x are those of z, or have no word in common with any.
func (u *Unit) LayerNorms(z, x []uint32, zStep, xStep, n int, gain, bias []uint32, epsilon float32) {
	if u.layer == nil {
		for i := range Rows {
			u.LayerNorm(z[i*zStep:][:n], x[i*xStep:][:n], gain, bias, epsilon)
		}
		return
	}
	_, _ = z[3*zStep+n-1], x[3*xStep+n-1]
	_, _ = gain[n-1], bias[n-1]
	count := num.FromInt32(int32(n))
	var mean [Rows]uint32
	u.Sums(&mean, x, xStep, n)
	for i, s := range mean {
		mean[i] = bits(num.Div32(number(s), count))
	}
	u.four = mean
	u.squares(&x[0], 4*xStep, n, &u.four[0])
	for i, s := range u.four {
		r := num.Rsqrt(num.Add32(num.Div32(number(s), count), epsilon))
		u.layer(&z[i*zStep], &x[i*xStep], &gain[0], &bias[0], mean[i], bits(r), n)
	}
}

// RMSNorms is RMSNorm, as LayerNorms is LayerNorm.
func (u *Unit) RMSNorms(z, x []uint32, zStep, xStep, n int, gain []uint32, epsilon float32) {
	if u.rms == nil {
		for i := range Rows {
			u.RMSNorm(z[i*zStep:][:n], x[i*xStep:][:n], gain, epsilon)
		}
		return
	}
	_, _, _ = z[3*zStep+n-1], x[3*xStep+n-1], gain[n-1]
	count := num.FromInt32(int32(n))
	u.four = [Rows]uint32{}
	u.squares(&x[0], 4*xStep, n, &u.four[0])
	for i, s := range u.four {
		r := num.Rsqrt(num.Add32(num.Div32(number(s), count), epsilon))
		u.rms(&z[i*zStep], &x[i*xStep], &gain[0], bits(r), n)
	}
}

// LayerNorm sets z to x with mean 0 and variance 1, times gain plus bias; all are fp32 (§6.14.2).
func (u *Unit) LayerNorm(z, x, gain, bias []uint32, epsilon float32) {
	if u.layer == nil {
		num.LayerNorm(Floats(z), Floats(x), Floats(gain), Floats(bias), epsilon)
		return
	}
	n := len(x)
	mean := u.Reduce(ReduceMean, true, x)
	variance := num.Div32(number(u.sumSquares(&x[0], mean, n)), num.FromInt32(int32(n)))
	r := num.Rsqrt(num.Add32(variance, epsilon))
	u.layer(&z[:n][0], &x[0], &gain[:n][0], &bias[:n][0], mean, bits(r), n)
}

// RMSNorm sets z to x with mean square 1, times gain; all are fp32 (§6.14.3).
func (u *Unit) RMSNorm(z, x, gain []uint32, epsilon float32) {
	if u.rms == nil {
		num.RMSNorm(Floats(z), Floats(x), Floats(gain), epsilon)
		return
	}
	n := len(x)
	square := num.Div32(number(u.sumSquares(&x[0], 0, n)), num.FromInt32(int32(n)))
	r := num.Rsqrt(num.Add32(square, epsilon))
	u.rms(&z[:n][0], &x[0], &gain[:n][0], bits(r), n)
}

func bits(x float32) uint32   { return math.Float32bits(x) }
func number(b uint32) float32 { return math.Float32frombits(b) }

func reduceInts(op Reduction, x []uint32) int32 {
	v := int32(x[0])
	for _, w := range x[1:] {
		switch op {
		case ReduceSum:
			v += int32(w)
		case ReduceMax:
			v = max(v, int32(w))
		case ReduceMin:
			v = min(v, int32(w))
		default:
			panic(fmt.Sprintf("vec: BUG: reduction %d of integers", op))
		}
	}
	return v
}

func reduceFloats(op Reduction, x []float32) float32 {
	switch op {
	case ReduceMax:
		return num.Max(x)
	case ReduceMin:
		return num.Min(x)
	}
	return num.Sum(x)
}
