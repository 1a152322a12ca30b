// SPDX-License-Identifier: Apache-2.0

package num

// MaxLeft is the largest Left of a Pair.
const MaxLeft = 31

// Pair is how two quantized numbers become one (§6.18): by integers, with one or
// two roundings of each product with a scale, or in fp32.
type Pair struct {
	XZero, YZero, Zero int32 // values of the operands' type
	Lo, Hi             int32 // Lo ≤ Hi

	Left      uint8 // at most MaxLeft
	X, Y, Out Scale // Valid, unless Float
	Twice     bool  // two roundings

	Float   bool
	A, B, C float32 // finite, A and B +0 or above
}

// scale is x times s, modulo 2³².
func (p *Pair) scale(x int32, s Scale) int32 {
	if p.Twice {
		return s.MultiplyTwice(x)
	}
	return int32(s.Multiply(x))
}

// place makes the result of the sum or product t.
func (p *Pair) place(t int32) int32 {
	r := p.Out.Multiply(t)
	if p.Twice {
		r = int64(p.Out.MultiplyTwice(t))
	}
	return Place(r, p.Zero, p.Lo, p.Hi)
}

// Add is the quantized sum of x and y.
func (p *Pair) Add(x, y int32) int32 {
	x, y = x-p.XZero, y-p.YZero
	if p.Float {
		return Place(int64(ToInt32(FMA32(FromInt32(x), p.A, FMA32(FromInt32(y), p.B, p.C)))), p.Zero, p.Lo, p.Hi)
	}
	return p.place(p.scale(x<<p.Left, p.X) + p.scale(y<<p.Left, p.Y))
}

// Sub is the quantized difference of x and y.
func (p *Pair) Sub(x, y int32) int32 {
	if p.Float {
		q := *p
		q.B = -p.B
		return q.Add(x, y)
	}
	return p.place(p.scale((x-p.XZero)<<p.Left, p.X) - p.scale((y-p.YZero)<<p.Left, p.Y))
}

// Mul is the quantized product of x and y.
func (p *Pair) Mul(x, y int32) int32 {
	t := (x - p.XZero) * (y - p.YZero)
	if p.Float {
		return Place(int64(ToInt32(Add32(Mul32(FromInt32(t), p.A), p.C))), p.Zero, p.Lo, p.Hi)
	}
	return p.place(t)
}
