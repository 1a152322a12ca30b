// SPDX-License-Identifier: Apache-2.0

package vec

import "npuemu/core/num"

// PairOp is an operation of ADDQ, with the numbers of §5.6.33.
type PairOp uint8

// The operations.
const (
	PairAdd PairOp = 0
	PairSub PairOp = 1
	PairMul PairOp = 2
)

// Pair turns rows of two quantized tensors into one (§6.18). NewPair makes one.
type Pair struct {
	tier *tier
	num.Pair
}

// NewPair returns a Pair that needs Set.
func NewPair() *Pair { return &Pair{tier: tiers()[0]} }

// Set makes p that of an arithmetic.
func (p *Pair) Set(a num.Pair) { p.Pair = a }

// Row sets z to x op y, elements of type t, an integer type narrower than Int32. y
// is as long as x, or one element for all. z may overlap x and y if it begins in
// front of them.
func (p *Pair) Row(op PairOp, t Type, z, x, y []byte) {
	p.slow(op, t, z, x, y)
}

// slow is Row by package num.
func (p *Pair) slow(op PairOp, t Type, z, x, y []byte) {
	step := 1
	if len(y) == t.Size() {
		step = 0
	}
	for i := range len(x) / t.Size() {
		a, b := int32(load(x, t, i)), int32(load(y, t, i*step))
		var v int32
		switch op {
		case PairAdd:
			v = p.Add(a, b)
		case PairSub:
			v = p.Sub(a, b)
		default:
			v = p.Mul(a, b)
		}
		store(z, t, i, uint32(v))
	}
}
