// SPDX-License-Identifier: Apache-2.0

package vec

import (
	"math"

	"npuemu/core/num"
)

// PairOp is an operation of ADDQ, with the numbers of §5.6.33.
type PairOp uint8

// The operations.
const (
	PairAdd PairOp = 0
	PairSub PairOp = 1
	PairMul PairOp = 2
)

// A kernel's number is 6 for products, twice the number of its Rounding, and 1 for
// int16; pairHalf is one more. Others are byte offsets of parameters, of which the generator's pair.go says more.
const (
	pairHalf = 12
	pairSlow = -1 // plain Go

	pairX, pairY, pairOut = 0, 256, 512

	pairMask   = 768
	pairXZero  = 832
	pairYZero  = 896
	pairLeft   = 960
	pairNegate = 1024
	pairLo     = 1088
	pairHi     = 1152
	pairZero   = 1216
	pairSize   = 1280

	halfHigh, halfLow, halfRight, halfUp    = pairX + 0, pairX + 64, pairX + 128, pairX + 192
	sumMultiplier, sumUp, sumRight, sumSign = pairOut + 0, pairOut + 64, pairOut + 128, pairOut + 192
)

// Pair turns rows of two quantized tensors into one (§6.18). NewPair makes one.
type Pair struct {
	tier *tier
	a    num.Pair
	op   PairOp
	typ  Type

	ready  bool // Set was called
	kernel int
	room   []int64
	params []int64 // in room, at the beginning of a cache line

	one  [64]byte // y, if it is one element for all
	x, y [64]byte // the last ones of a row: kernels are called through variables, and on the stack these would escape
}

// NewPair returns a Pair that needs Set.
func NewPair() *Pair {
	p := &Pair{tier: tiers()[0]}
	p.room, p.params = aligned(nil, pairSize/8)
	return p
}

// Set makes p that of an operation on elements of type t, an integer type
// narrower than Int32.
func (p *Pair) Set(a num.Pair, op PairOp, t Type) {
	if p.ready && p.a == a && p.op == op && p.typ == t {
		return // as the last time
	}
	p.a, p.op, p.typ, p.ready = a, op, t, true
	if p.kernel = p.choose(); p.kernel == pairSlow {
		return
	}
	mask := uint32(math.MaxUint32)
	if t == Uint8 {
		mask = 0xff
	}
	if p.kernel == pairHalf {
		p.setHalf(mask)
		return
	}
	p.fill(pairMask, mask)
	p.fill(pairXZero, uint32(a.XZero))
	p.fill(pairYZero, uint32(a.YZero))
	p.fill(pairLeft, uint32(a.Left))
	p.fill(pairNegate, uint32(-truth(op == PairSub)))
	p.fill(pairLo, uint32(a.Lo-a.Zero))
	p.fill(pairHi, uint32(a.Hi-a.Zero))
	p.fill(pairZero, uint32(a.Zero))
	if a.Float {
		b := a.B
		if op == PairSub {
			b = -b
		}
		p.fill(pairX, bits(a.A))
		p.fill(pairY, bits(b))
		p.fill(pairOut, bits(a.C))
		return
	}
	kernel := requantFar
	if a.Twice {
		kernel = requantTwo
	}
	p.scale(pairX, kernel, a.X)
	p.scale(pairY, kernel, a.Y)
	p.scale(pairOut, kernel, a.Out)
	if a.Twice { // both shifts to the left in one
		p.fill(pairX+leftShift, uint32(a.Left+max(31, a.X.Shift)-a.X.Shift))
		p.fill(pairY+leftShift, uint32(a.Left+max(31, a.Y.Shift)-a.Y.Shift))
	}
}

// scale stores the parameters of one scale.
func (p *Pair) scale(field, kernel int, s num.Scale) {
	for c := range group {
		pack(p.params[field/8:][:256/8], kernel, c, s)
	}
}

// fill makes all words of a field v.
func (p *Pair) fill(field int, v uint32) {
	w := words(p.params[field/8:][:8])
	for i := range w {
		w[i] = v
	}
}

// both is v as an int16 in both halves of a word.
func both(v int32) uint32 { return uint32(uint16(v)) * 0x10001 }

// choose returns the kernel of p, or pairSlow.
func (p *Pair) choose() int {
	a := &p.a
	k := 0
	switch {
	case p.tier.pair[pairHalf] == nil:
		return pairSlow
	case a.Float:
		k = 2 * int(FloatScale)
		const most = math.MaxFloat32 / 4 // so no step leaves the range of fp32: differences have 17 bits, products 32
		if a.A > most/(1<<32) || a.B > most/(1<<17) || a.C > most || a.C < -most {
			return pairSlow
		}
	case a.Twice:
		k = 2 * int(TwoRoundings)
		if p.op == PairAdd && p.typ.Size() == 1 && p.half() {
			return pairHalf
		}
	default:
		k = 2 * int(OneRounding)
		if min(a.X.Shift, a.Y.Shift, a.Out.Shift) < 32 {
			return pairSlow
		}
	}
	if p.op == PairMul {
		k += 6
	}
	return k + p.typ.Size() - 1
}

// half reports whether pairAddHalf has p's sum, whichever operand is the one whose
// scale is a half.
func (p *Pair) half() bool {
	fits := func(a, b num.Scale) bool {
		return a == exactHalf && b.Multiplier >= 1<<30 && b.Shift >= 31 && b.Shift <= 48
	}
	return p.a.Left == 20 && p.a.Out.Shift >= 31 && (fits(p.a.X, p.a.Y) || fits(p.a.Y, p.a.X))
}

var exactHalf = num.Scale{Multiplier: 1 << 30, Shift: 31}

// swapped reports whether pairAddHalf takes y for x.
func (p *Pair) swapped() bool {
	return p.kernel == pairHalf && p.a.Y != exactHalf
}

// setHalf is Set for pairAddHalf.
func (p *Pair) setHalf(mask uint32) {
	s, xZero, yZero := p.a.X, p.a.XZero, p.a.YZero
	if p.swapped() {
		s, xZero, yZero = p.a.Y, yZero, xZero
	}
	// A division by 1 rounds nothing.
	right, up, down := s.Shift-31, uint32(1)<<(s.Shift-31)>>1, uint32(1)<<11
	if right == 0 {
		down = 0
	}
	q := uint32(s.Multiplier)
	p.fill(halfHigh, q>>11&63|q>>17<<16)
	p.fill(halfLow, q&(1<<11-1)|down<<16)
	p.fill(halfRight, uint32(right))
	p.fill(halfUp, 1<<10+up<<11)
	s = p.a.Out
	right = s.Shift - 31
	sign := uint32(31)
	if right == 0 {
		sign = 32
	}
	p.fill(sumMultiplier, uint32(s.Multiplier))
	for i := range 8 {
		p.params[sumUp/8+i] = 1<<30 + 1<<right>>1<<31
	}
	p.fill(sumRight, uint32(right))
	p.fill(sumSign, sign)
	p.fill(pairMask, mask|mask<<16)
	p.fill(pairXZero, both(xZero))
	p.fill(pairYZero, both(yZero))
	p.fill(pairLo, both(p.a.Lo))
	p.fill(pairHi, both(p.a.Hi))
	p.fill(pairZero, both(p.a.Zero))
}

// Row sets z to x op y. y is as long as x, or one element for all. z may overlap x
// and y if it begins in front of them.
func (p *Pair) Row(z, x, y []byte) {
	size := p.typ.Size()
	z = z[:len(x)]
	one := len(y) == size && len(x) > size
	if one {
		for i := 0; i < len(p.one); i += size {
			copy(p.one[i:], y)
		}
	}
	switch {
	case p.kernel == pairSlow:
		p.slow(z, x, y)
	case one && p.swapped():
		for len(x) > 0 {
			n := min(len(x), len(p.one))
			p.run(z[:n], p.one[:n], x[:n], p.tier.register/2)
			z, x = z[n:], x[n:]
		}
	case one:
		p.run(z, x, p.one[:], 0)
	case p.swapped():
		p.run(z, y[:len(x)], x, p.tier.register/2)
	case p.kernel == pairHalf:
		p.run(z, x, y[:len(x)], p.tier.register/2)
	default:
		p.run(z, x, y[:len(x)], p.tier.register/4*size)
	}
}

// run calls the kernel; step is what y advances by with each block of it.
func (p *Pair) run(z, x, y []byte, step int) {
	k, size := p.tier.pair[p.kernel], p.typ.Size()
	block := p.tier.register / 4 * size
	if p.kernel == pairHalf {
		block = p.tier.register / 2
	}
	whole := len(x)
	if p.tier.whole {
		whole -= whole % block
	}
	if whole > 0 {
		k(&z[0], &x[0], &y[0], &p.params[0], step, whole/size)
	}
	if whole == len(x) {
		return
	}
	copy(p.x[:], x[whole:])
	copy(p.y[:], y[whole/block*step:])
	k(&p.x[0], &p.x[0], &p.y[0], &p.params[0], 0, block/size)
	copy(z[whole:], p.x[:])
}

// slow is Row by package num.
func (p *Pair) slow(z, x, y []byte) {
	step := 1
	if len(y) == p.typ.Size() {
		step = 0
	}
	for i := range len(x) / p.typ.Size() {
		a, b := int32(load(x, p.typ, i)), int32(load(y, p.typ, i*step))
		var v int32
		switch p.op {
		case PairAdd:
			v = p.a.Add(a, b)
		case PairSub:
			v = p.a.Sub(a, b)
		default:
			v = p.a.Mul(a, b)
		}
		store(z, p.typ, i, uint32(v))
	}
}
