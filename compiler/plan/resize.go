// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"math"

	"npuemu/compiler/ir"
	"npuemu/core/isa"
	"npuemu/core/num"
)

var resizeModes = map[string]isa.ResizeMode{
	"floor": isa.ResizeFloor, "ceil": isa.ResizeCeil, "round_down": isa.ResizeRoundDown, "round_up": isa.ResizeRoundUp,
	"linear": isa.ResizeLinear, "fixed": isa.ResizeFixed,
}

// resize is npu.resize by RESIZE (§5.6.24): tiles are lines of the result, and the lines that they are made of.
func (l *lower) resize() error {
	x, y, err := l.kinds()
	if err != nil {
		return err
	}
	if l.b.Target().Features&isa.FeaturePool == 0 {
		return l.node.Errorf("the core has no RESIZE (§5.3)").WithRemedy("compile for architecture 1.4 or later")
	}
	in, out := l.x().Shape, l.y().Shape
	p := &imaging{lower: l, h: in[1], w: in[2], c: in[3], oh: out[1], ow: out[2]}
	if ir.Elements(out) == 0 {
		return nil
	}
	if p.oh > math.MaxUint16 || p.ow > math.MaxUint16 {
		return l.node.Errorf("an image of %d × %d; lines and pixels have 16 bits", p.oh, p.ow)
	}
	if err := p.check(); err != nil {
		return err
	}
	a := l.node.Attrs
	i := isa.Resize{Half: a.Int("half", 0) != 0, Center: a.Int("center", 0) != 0, Mode: resizeModes[a.Str("mode", "")]}
	if i.Mode == isa.ResizeFixed {
		s := a.Ints("steps")
		i.MulY, i.MulX = uint32(s[0]), uint32(s[1])
	} else {
		// The number 0 is the encoding of 0.
		if v := a.Floats("mul"); v != nil {
			i.MulY, i.MulX = math.Float32bits(v[0]), math.Float32bits(v[1])
		}
		if v := a.Floats("div"); v != nil {
			i.DivY, i.DivX = math.Float32bits(v[0]), math.Float32bits(v[1])
		}
	}
	p.window = func(o, t int) (first, count, before int) {
		first, _ = neighbours(&i, o, p.h)
		_, last := neighbours(&i, o+t-1, p.h)
		return first, last - first + 1, 0
	}
	p.span = func(th int) (most int) {
		for o := 0; o < p.oh; o += th {
			_, count, _ := p.window(o, min(th, p.oh-o))
			most = max(most, count)
		}
		return most
	}
	return p.parts(0, in[0], false, func(o, t, first, count, _, n int, from, to uint32) {
		im := p.image(t, count, n, x, y)
		im.XTop, im.OutTop = uint16(first), uint16(o)
		i.N, i.X, i.Out = uint16(n), from, to
		p.b.Prepare(im)
		p.b.Emit(i)
	})
}

// neighbours are the first and the last of h lines that line o of a result is made of; neither is before that of the line above.
func neighbours(i *isa.Resize, o, h int) (lo, hi int) {
	if i.Mode == isa.ResizeFixed {
		lo, hi, _ = num.FixedAxis{Half: i.Half, Center: i.Center, Step: int64(i.MulY), Last: h - 1}.Between(o)
		return lo, hi
	}
	a := num.Axis{Half: i.Half, Center: i.Center, Mul: math.Float32frombits(i.MulY), Div: math.Float32frombits(i.DivY), Last: h - 1}
	switch i.Mode {
	case isa.ResizeFloor:
		lo = a.Floor(o)
	case isa.ResizeCeil:
		lo = a.Ceil(o)
	case isa.ResizeRoundDown:
		lo = a.RoundDown(o)
	case isa.ResizeRoundUp:
		lo = a.RoundUp(o)
	default:
		lo, hi, _ = a.Between(o)
		return lo, hi
	}
	return lo, lo
}
