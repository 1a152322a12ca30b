// SPDX-License-Identifier: Apache-2.0

package vec

import (
	"fmt"
	"math"

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

// group is the number of channels whose parameters lie together, as groupWords
// quad words: the generator's requant.go says how. Fields are byte offsets.
const (
	group      = 16
	groupWords = 512 / 8

	evenQ, oddQ         = 0, 64
	evenRound, oddRound = 128, 192
	evenShift, oddShift = 256, 320
	unbias              = 384
	limit               = 448

	leftShift, rightShift, rest = 128, 192, 256
)

// Requant turns rows of accumulators into int8 (§6.9.1 to §6.9.3). Between two
// calls of Set it may be used by several goroutines. NewRequant makes one.
type Requant struct {
	tier     *tier
	kernel   func(out *byte, x *int32, params *int64, step, n int, place *uint32)
	rounding Rounding
	scales   []num.Scale
	zero     int8
	lo, hi   int8
	place    uint32

	room   []int64
	params []int64 // in room, at the beginning of a cache line
}

// NewRequant returns a Requant that needs Set.
func NewRequant() *Requant { return &Requant{tier: tiers()[0]} }

// Set makes r that of a rounding, scales, zero point and clamp range, lo ≤ hi.
// There is one scale for each channel, or one for all; they are Valid or, with
// FloatScale, have the encoding of a finite fp32 above 0 as their Multiplier. r
// keeps nothing of scales. It allocates only for more channels than ever before.
func (r *Requant) Set(rounding Rounding, scales []num.Scale, zero, lo, hi int8) {
	r.rounding, r.zero, r.lo, r.hi = rounding, zero, lo, hi
	r.scales = append(r.scales[:0], scales...)
	k := &r.tier.requant
	r.place = uint32(uint16(int16(zero))) | uint32(uint8(lo))<<16 | uint32(uint8(hi))<<24
	switch rounding {
	case TwoRoundings:
		r.kernel = k.two
	case FloatScale:
		r.kernel = k.float
	default:
		r.kernel = k.one
		for _, s := range scales {
			if s.Shift < 31 {
				r.kernel = k.near
			}
		}
	}
	if r.kernel == nil {
		return
	}
	// A block that begins with any group of channels may read the parameters of all its length.
	n := len(scales)
	if n == 1 {
		n = k.block
	}
	groups := (n+group-1)/group + k.block/group
	r.room, r.params = aligned(r.room, groups*groupWords)
	for c := range groups * group {
		s := num.Scale{Shift: 31}
		switch {
		case len(scales) == 1:
			s = scales[0]
		case c < len(scales):
			s = scales[c]
		}
		r.pack(c, s, k.bias)
	}
}

// pack stores the parameters of channel c.
func (r *Requant) pack(c int, s num.Scale, bias uint64) {
	p := r.params[c/group*groupWords:][:groupWords]
	word := func(field int, v uint32) { words(p)[field/4+c%group] = v }
	quad := func(field int, v int64) { p[field/8+c%group/2] = v }
	// The fields of odd channels follow those of even ones.
	odd := c % 2 * (oddQ - evenQ)
	switch r.rounding {
	case FloatScale:
		word(0, uint32(s.Multiplier))
	case TwoRoundings:
		quad(evenQ+odd, int64(s.Multiplier))
		right := max(int(s.Shift)-31, 0)
		word(leftShift, uint32(max(31-int(s.Shift), 0)))
		word(rightShift, uint32(right))
		word(rest, 1<<right-1)
	default:
		quad(evenQ+odd, int64(s.Multiplier))
		quad(evenRound+odd, int64(1<<(s.Shift-1)+bias))
		quad(evenShift+odd, int64(s.Shift))
		word(unbias, uint32(bias>>s.Shift))
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
func (r *Requant) Row(out []byte, x []int32, c int) {
	if len(r.scales) > 1 && (c%group != 0 || c+len(x) > len(r.scales)) {
		panic(fmt.Sprintf("vec: BUG: channels %d to %d of %d", c, c+len(x), len(r.scales)))
	}
	out = out[:len(x)]
	if r.kernel == nil {
		r.plain(out, x, c)
		return
	}
	k := &r.tier.requant
	params, step := r.params, 0
	if len(r.scales) > 1 {
		params, step = params[c/group*groupWords:], k.block/group*groupWords*8
	}
	n := len(x)
	if k.whole {
		n -= n % k.block
	}
	if n > 0 {
		r.kernel(&out[0], &x[0], &params[0], step, n, &r.place)
	}
	if n == len(x) {
		return
	}
	var last [64]int32
	var bytes [64]byte
	copy(last[:], x[n:])
	r.kernel(&bytes[0], &last[0], &params[n/k.block*step/8], step, k.block, &r.place)
	copy(out[n:], bytes[:])
}

// plain is Row by package num.
func (r *Requant) plain(out []byte, x []int32, c int) {
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
