// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"math"

	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// interval has all that a sum of products can be. It is kept within ±2⁶², far
// outside of int32.
type interval struct{ lo, hi int64 }

const farOut = 1 << 62

func (a interval) plus(b interval) interval {
	return interval{max(a.lo+b.lo, -farOut), min(a.hi+b.hi, farOut)}
}

// product is that of a number of a and one of b.
func (a interval) product(b interval) interval {
	p := [...]int64{a.lo * b.lo, a.lo * b.hi, a.hi * b.lo, a.hi * b.hi}
	return interval{min(p[0], p[1], p[2], p[3]), max(p[0], p[1], p[2], p[3])}
}

// less is a number of type t less a zero point.
func less(t systolic.Type, zero interval) interval {
	lo, hi := t.Range()
	return interval{int64(lo) - zero.hi, int64(hi) - zero.lo}
}

// products is one product of integers with setup s (§6.8.1).
func products(s *isa.Setup) interval {
	o := &s.Operands
	zero := interval{int64(o.BZero), int64(o.BZero)}
	if o.PerChannel {
		t := o.B
		if t == systolic.Int4 {
			t = systolic.Int8
		}
		lo, hi := t.Range()
		zero = interval{int64(lo), int64(hi)}
	}
	return less(o.A, interval{int64(o.AZero), int64(o.AZero)}).product(less(o.B, zero))
}

// sum follows what is added up in the accumulators from i's first one on, and notes
// sums that can leave the range of an int32. BIAS counts as nothing.
func (l *linter) sum(i isa.Instruction, s *isa.Setup, index int) {
	var acc uint32
	var k int64
	accumulate, one := false, interval{}
	switch i := i.(type) {
	case isa.Matmul:
		eight := less(systolic.Int8, interval{})
		acc, k, accumulate, one = i.Acc, int64(i.K), i.Accumulate, eight.product(eight)
	case isa.Gemm:
		acc, k, accumulate, one = i.Acc, int64(i.K), i.Accumulate, products(s)
	case isa.Conv:
		p := i.Product(s)
		acc, k, accumulate, one = i.Acc, int64(p.KernelH)*int64(p.KernelW)*int64(p.Cin/p.Groups), i.Accumulate, products(s)
	default:
		return
	}
	if _, matmul := i.(isa.Matmul); !matmul && s.Operands.A.Float() {
		delete(l.sums, acc)
		return
	}
	all := interval{one.lo * k, one.hi * k}
	if accumulate {
		all = all.plus(l.sums[acc])
	}
	l.sums[acc] = all
	if all.lo >= math.MinInt32 && all.hi <= math.MaxInt32 || l.noted[index] || len(l.report.Notes) == maxFindings {
		return
	}
	l.noted[index] = true
	most := min(math.MaxInt32/max(one.hi, 1), math.MinInt32/min(one.lo, -1))
	message := fmt.Sprintf("the sum of %d products can leave the range of an int32, and then wraps; of up to %d it cannot", k, most)
	if accumulate && k <= most {
		message = fmt.Sprintf("with the %d products that it adds to earlier ones the sum can leave the range of an int32, and then wraps; of up to %d it cannot", k, most)
	}
	l.report.Notes = append(l.report.Notes, Finding{
		Rule: "SUM_RANGE", Section: "§6.8.1", At: l.place(index), Message: message,
		Remedy: "nothing, if values are known to be small enough; otherwise fewer products to a sum, or operands of fewer bits",
	})
}
