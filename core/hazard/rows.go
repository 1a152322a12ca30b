// SPDX-License-Identifier: Apache-2.0

package hazard

import "npuemu/core/isa"

// normal makes r the same bytes in as few rows as its strides allow: rows that
// touch or overlap become one.
func normal(r *isa.Rows) {
	if r.Inner > 1 && r.InnerStride <= r.Bytes {
		r.Bytes, r.Inner = (r.Inner-1)*r.InnerStride+r.Bytes, 1
	}
	if r.Inner == 1 {
		r.InnerStride = 0
		if r.Outer > 1 { // one row to a plane: planes are the rows
			r.Inner, r.InnerStride, r.Outer = r.Outer, r.OuterStride, 1
			if r.InnerStride <= r.Bytes {
				r.Bytes, r.Inner, r.InnerStride = (r.Inner-1)*r.InnerStride+r.Bytes, 1, 0
			}
		}
	} else if r.Outer > 1 && r.OuterStride == r.Inner*r.InnerStride { // rows go on at the same distance
		r.Inner, r.Outer = r.Inner*r.Outer, 1
	} else if r.OuterStride == 0 { // planes at the same place
		r.Outer = 1
	}
	if r.Outer == 1 {
		r.OuterStride = 0
	}
}

// end returns the address behind the last byte of r.
func end(r *isa.Rows) uint64 {
	return r.Base + (r.Outer-1)*r.OuterStride + (r.Inner-1)*r.InnerStride + r.Bytes
}

// Normal makes r the same bytes in as few rows as its strides allow.
func Normal(r *isa.Rows) { normal(r) }

// End returns the address behind the last byte of r.
func End(r *isa.Rows) uint64 { return end(r) }

// Meet reports whether a and b, both normal, have a byte in common, or could have: it compares so many rows and planes.
func Meet(a, b *isa.Rows, limit int) bool {
	_, common, known := overlap(a, b, limit)
	return common || !known
}

// overlap returns the first byte that a and b, both normal, have in common, in
// the order of the rows of the one with fewer rows. It looks at no more rows and planes
// than limit; beyond them it does not know.
func overlap(a, b *isa.Rows, limit int) (at uint64, common, known bool) {
	if a.Base >= end(b) || b.Base >= end(a) {
		return 0, false, true
	}
	rows, other := a.Inner*a.Outer, b.Inner*b.Outer
	if rows == 1 && other == 1 {
		return max(a.Base, b.Base), true, true
	}
	if a.Outer == 1 && b.Outer == 1 && a.InnerStride == b.InnerStride && apart(a, b) {
		return 0, false, true
	}
	if rows > other {
		a, b = b, a
	}
	lo, hi := b.Base, end(b)
	for o := range a.Outer {
		base := a.Base + o*a.OuterStride
		first, last := uint64(0), a.Inner-1
		if s := a.InnerStride; s > 0 { // rows that b's ends leave
			if base >= hi {
				break
			}
			last = min(last, (hi-1-base)/s)
			if base+a.Bytes <= lo {
				first = (lo-base-a.Bytes)/s + 1
			}
		}
		for i := first; i <= last; i++ {
			if limit--; limit < 0 {
				return 0, false, false
			}
			x, common, known := touches(b, base+i*a.InnerStride, a.Bytes, &limit)
			if common || !known {
				return x, common, known
			}
		}
	}
	return 0, false, true
}

// apart reports whether rows at the same distance lie in different columns.
func apart(a, b *isa.Rows) bool {
	s := a.InnerStride
	if s == 0 {
		return false
	}
	d := (b.Base%s + s - a.Base%s) % s // of b's column from a's
	return d >= a.Bytes && d+b.Bytes <= s
}

// touches returns the first byte of [x, x+n) that is in a row of r. It takes the planes that it
// looks at, but for the first, off limit, and does not know what is beyond.
func touches(r *isa.Rows, x, n uint64, limit *int) (at uint64, common, known bool) {
	plane := (r.Inner-1)*r.InnerStride + r.Bytes
	first := uint64(0)
	if r.OuterStride > 0 && r.Base+plane <= x {
		first = (x-r.Base-plane)/r.OuterStride + 1
	}
	for o := first; o < r.Outer; o++ {
		base := r.Base + o*r.OuterStride
		if base >= x+n {
			break
		}
		if o > first {
			if *limit--; *limit < 0 {
				return 0, false, false
			}
		}
		i := uint64(0)
		if base+r.Bytes <= x {
			if r.InnerStride == 0 {
				continue
			}
			i = (x-base-r.Bytes)/r.InnerStride + 1
		}
		if at := base + i*r.InnerStride; i < r.Inner && at < x+n {
			return max(at, x), true, true
		}
	}
	return 0, false, true
}

// join makes a cover b too, if that is possible without other bytes: b is in it,
// continues it, or is the next at the same distance. Both are normal.
func join(a *isa.Rows, b *isa.Rows) bool {
	if *a == *b {
		return true
	}
	if b.Base < a.Base {
		return false
	}
	single := b.Inner == 1 && b.Outer == 1
	switch {
	case single && a.Inner == 1 && a.Outer == 1 && b.Base <= a.Base+a.Bytes:
		a.Bytes = max(a.Bytes, b.Base+b.Bytes-a.Base)
		return true
	case b.Bytes != a.Bytes || a.Outer > 1 && single:
	case single && a.Inner == 1 && a.Outer == 1:
		a.Inner, a.InnerStride = 2, b.Base-a.Base
		return true
	case single && a.Outer == 1 && (b.Base-a.Base)%a.InnerStride == 0 && (b.Base-a.Base)/a.InnerStride <= a.Inner:
		a.Inner = max(a.Inner, (b.Base-a.Base)/a.InnerStride+1)
		return true
	case b.Inner != a.Inner || b.InnerStride != a.InnerStride || b.Outer != 1 || a.Inner == 1:
	case a.Outer == 1:
		a.Outer, a.OuterStride = 2, b.Base-a.Base
		return true
	case (b.Base-a.Base)%a.OuterStride == 0 && (b.Base-a.Base)/a.OuterStride <= a.Outer:
		a.Outer = max(a.Outer, (b.Base-a.Base)/a.OuterStride+1)
		return true
	}
	return false
}
