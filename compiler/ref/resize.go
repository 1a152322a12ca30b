// SPDX-License-Identifier: Apache-2.0

package ref

import (
	"npuemu/compiler/ir"
	"npuemu/core/num"
)

// between says which two elements of a line an element of a resized one lies between, and how far from the first: f of §6.15.3, or
// g in units of 2⁻¹⁰ of §6.15.4. Of the nearest one both are the same.
type between struct {
	lo, hi int
	f      float32
	g      int64
}

// betweens are those of the axis, 0 for lines and 1 for pixels.
func betweens(n *ir.Node, axis int) []between {
	x, y := n.Inputs[0], n.Outputs[0]
	half, center := n.Attrs.Int("half", 0) != 0, n.Attrs.Int("center", 0) != 0
	out := make([]between, y.Shape[1+axis])
	if n.Attrs.Str("mode", "") == "fixed" {
		a := num.FixedAxis{Half: half, Center: center, Step: int64(n.Attrs.Ints("steps")[axis]), Last: x.Shape[1+axis] - 1}
		for i := range out {
			b := &out[i]
			b.lo, b.hi, b.g = a.Between(i)
		}
		return out
	}
	a := num.Axis{Half: half, Center: center, Last: x.Shape[1+axis] - 1}
	if v := n.Attrs.Floats("mul"); v != nil {
		a.Mul = v[axis]
	}
	if v := n.Attrs.Floats("div"); v != nil {
		a.Div = v[axis]
	}
	nearest := map[string]func(int) int{"floor": a.Floor, "ceil": a.Ceil, "round_down": a.RoundDown, "round_up": a.RoundUp}[n.Attrs.Str("mode", "")]
	for i := range out {
		b := &out[i]
		if nearest == nil {
			b.lo, b.hi, b.f = a.Between(i)
			continue
		}
		b.lo = nearest(i)
		b.hi = b.lo
	}
	return out
}

func resize(n *ir.Node, in [][]byte) []byte {
	x, y := n.Inputs[0], n.Outputs[0]
	h, w, ch := x.Shape[1], x.Shape[2], x.Shape[3]
	lines, pixels := betweens(n, 0), betweens(n, 1)
	// each is called with the places of an output's four neighbours.
	each := func(f func(i, a, b, c, d int, ly, lx between)) {
		i := 0
		for img := range x.Shape[0] {
			for _, l := range lines {
				for _, p := range pixels {
					at := func(line, pixel int) int { return ((img*h+line)*w + pixel) * ch }
					a, b, c, d := at(l.lo, p.lo), at(l.lo, p.hi), at(l.hi, p.lo), at(l.hi, p.hi)
					for k := range ch {
						f(i, a+k, b+k, c+k, d+k, l, p)
						i++
					}
				}
			}
		}
	}
	mode := n.Attrs.Str("mode", "")
	if mode != "linear" && !x.Type.Float() {
		v, out := Ints(x.Type, in[0], x.Elements()), make([]int64, y.Elements())
		each(func(i, a, b, c, d int, l, p between) {
			if out[i] = v[a]; mode == "fixed" {
				out[i] = int64(num.Interpolate(int32(v[a]), int32(v[b]), int32(v[c]), int32(v[d]), p.g, l.g))
			}
		})
		return putResult(y.Type, out, nil, true)
	}
	var v []float32
	if x.Type.Float() {
		v = Floats(x.Type, in[0], x.Elements())
	} else {
		for _, e := range Ints(x.Type, in[0], x.Elements()) {
			v = append(v, num.FromInt32(int32(e)))
		}
	}
	out := make([]float32, y.Elements())
	each(func(i, a, b, c, d int, l, p between) {
		if out[i] = v[a]; mode != "linear" {
			return
		}
		lower := v[c]
		if p.lo != p.hi {
			out[i], lower = num.Lerp(v[a], v[b], p.f), num.Lerp(v[c], v[d], p.f)
		}
		if l.lo != l.hi {
			out[i] = num.Lerp(out[i], lower, l.f)
		}
	})
	return putResult(y.Type, nil, out, true)
}
