// SPDX-License-Identifier: Apache-2.0

package vec

import (
	"fmt"
	"math"
	"slices"

	"npuemu/core/num"
)

// Rounding is how REQUANT rounds, with the numbers of §5.6.8.
type Rounding uint8

// The roundings.
const (
	OneRounding  Rounding = 0 // §6.9.1
	TwoRoundings Rounding = 1 // §6.9.2
	FloatScale   Rounding = 2 // §6.9.3
)

// Group divides the first channel of what Requant.Row is given.
const Group = group

// group is the number of channels whose parameters lie together. Fields are byte
// offsets in a group; the generator's requant.go says what they are.
const (
	group = 16

	multiplier          = 0
	evenShift, oddShift = 64, 128
	unbias              = 192
	limit               = 256

	leftShift, rightShift, rest = 64, 128, 192
)

// Requant turns rows of accumulators into int8 (§6.9.1 to §6.9.3). Between two
// calls of Set it may be used by several goroutines. NewRequant makes one.
type Requant struct {
	tier     *tier
	kernel   int // of the tier's; 0 for plain Go
	rounding Rounding
	scales   []num.Scale
	zero     int8
	lo, hi   int8
	place    uint32

	room   []int64
	params []int64 // in room, at the beginning of a cache line
	size   int     // quad words of a group
}

// NewRequant returns a Requant that needs Set.
func NewRequant() *Requant { return &Requant{tier: tiers()[0]} }

// Set makes r that of a rounding, scales, zero point and clamp range, lo ≤ hi.
// There is one scale for each channel, or one for all; they are Valid or, with
// FloatScale, have the encoding of a finite fp32 above 0 as their Multiplier. r
// keeps nothing of scales. It allocates only for more channels than ever before.
func (r *Requant) Set(rounding Rounding, scales []num.Scale, zero, lo, hi int8) {
	r.place = uint32(uint16(int16(zero))) | uint32(uint8(lo))<<16 | uint32(uint8(hi))<<24
	r.zero, r.lo, r.hi = zero, lo, hi
	if rounding == r.rounding && len(r.scales) > 0 && slices.Equal(scales, r.scales) {
		return // as the last time
	}
	r.rounding = rounding
	r.scales = append(r.scales[:0], scales...)
	k := &r.tier.requant
	if r.kernel = 0; k.block == 0 {
		return
	}
	switch rounding {
	case TwoRoundings:
		r.kernel, r.size = requantTwo, 256/8
	case FloatScale:
		r.kernel, r.size = requantFloat, 64/8
	default:
		r.kernel, r.size = requantFar, 256/8
		for _, s := range scales {
			if s.Shift < 32 {
				r.kernel, r.size = requantNear, 320/8
			}
		}
	}
	// A block that begins with any group of channels may read the parameters of all its length.
	n := len(scales)
	if n == 1 {
		n = k.block
	}
	groups := (n+group-1)/group + k.block/group
	r.room, r.params = aligned(r.room, groups*r.size)
	if r.kernel == requantFloat { // a group is its multipliers
		all := words(r.params)[:groups*group]
		for c := range all {
			all[c] = uint32(scales[0].Multiplier)
		}
		if len(scales) > 1 {
			for c, s := range scales {
				all[c] = uint32(s.Multiplier)
			}
			clear(all[len(scales):])
		}
		return
	}
	for c := range groups * group {
		s := num.Scale{Shift: 32}
		switch {
		case len(scales) == 1:
			s = scales[0]
		case c < len(scales):
			s = scales[c]
		}
		pack(r.params[c/group*r.size:][:r.size], r.kernel, c, s)
	}
}

// pack stores the parameters of channel c in those of its group.
func pack(p []int64, kernel, c int, s num.Scale) {
	word := func(field int, v uint32) { words(p)[field/4+c%group] = v }
	word(multiplier, uint32(s.Multiplier))
	switch kernel {
	case requantTwo:
		right := max(int(s.Shift)-31, 0)
		word(leftShift, uint32(max(31-int(s.Shift), 0)))
		word(rightShift, uint32(right))
		word(rest, 1<<right-1)
	case requantFar, requantNear:
		shifts := evenShift
		if c%2 == 1 {
			shifts = oddShift
		}
		p[shifts/8+c%group/2] = int64(s.Shift - 1)
		if kernel == requantFar {
			word(unbias, uint32(uint64(1)<<(63-s.Shift)-1))
			return
		}
		word(unbias, uint32(uint64(1)<<(62-s.Shift)))
		// Where x·q / 2^s is beyond ±257 the result is lo or hi, whatever the zero point.
		most := int64(math.MaxInt32)
		if s.Shift < 31 && s.Multiplier > 0 {
			most = min(most, 257<<s.Shift/int64(s.Multiplier)+1)
		}
		word(limit, uint32(most))
	}
}

// Row sets out to the results of x, which is as long. x[0] is of channel c: 0 if
// there is one scale for all, else a multiple of 16, and x ends with the last
// channel at most.
func (r *Requant) Row(out []byte, x []int32, c int) { r.Rows(out, 0, x, 0, 1, len(x), c) }

// Rows is Row for rows of n elements, at least one of each, outStride bytes and
// xStride elements apart.
func (r *Requant) Rows(out []byte, outStride int, x []int32, xStride, rows, n, c int) {
	if len(r.scales) > 1 && (c%group != 0 || c+n > len(r.scales)) || rows < 1 || n < 1 {
		panic(fmt.Sprintf("vec: BUG: %d rows of channels %d to %d of %d", rows, c, c+n, len(r.scales)))
	}
	out, x = out[:(rows-1)*outStride+n], x[:(rows-1)*xStride+n]
	if r.kernel == 0 {
		for i := range rows {
			r.slow(out[i*outStride:][:n], x[i*xStride:][:n], c)
		}
		return
	}
	k := &r.tier.requant
	params, step := r.params, 0
	if len(r.scales) > 1 {
		params, step = params[c/group*r.size:], k.block/group*r.size*8
	}
	whole := n
	if k.whole {
		whole -= n % k.block
	}
	if whole > 0 {
		k.run(r.kernel, &out[0], &x[0], &params[0], step, whole, rows, outStride, 4*xStride, &r.place)
	}
	if whole == n {
		return
	}
	params = params[whole/k.block*step/8:]
	for i := range rows {
		var last [64]int32
		var bytes [64]byte
		copy(last[:], x[i*xStride+whole:][:n-whole])
		k.run(r.kernel, &bytes[0], &last[0], &params[0], step, k.block, 1, 0, 0, &r.place)
		copy(out[i*outStride+whole:][:n-whole], bytes[:])
	}
}

// slow is Row by package num.
func (r *Requant) slow(out []byte, x []int32, c int) {
	for i, v := range x {
		s := r.scales[0]
		if len(r.scales) > 1 {
			s = r.scales[c+i]
		}
		var y int64
		switch r.rounding {
		case TwoRoundings:
			y = int64(s.MultiplyTwice(v))
		case FloatScale:
			y = int64(num.MultiplyFloat(v, math.Float32frombits(uint32(s.Multiplier))))
		default:
			y = s.Multiply(v)
		}
		out[i] = byte(num.Clamp(y+int64(r.zero), r.lo, r.hi))
	}
}
