// SPDX-License-Identifier: Apache-2.0

package ref

import (
	"npuemu/compiler/ir"
	"npuemu/core/num"
)

// window is the position of a window on an image.
type window struct {
	kh, kw         int
	sy, sx, dy, dx int
	top, left      int
}

func windowOf(n *ir.Node, kh, kw int) window {
	s, p, d := n.Attrs.Ints("strides"), n.Attrs.Ints("pads"), n.Attrs.Ints("dilations")
	if d == nil {
		d = []int{1, 1}
	}
	return window{kh, kw, s[0], s[1], d[0], d[1], p[0], p[1]}
}

// each calls f for every position of the window at an output pixel, rows before columns; in is
// false in the padding.
func (w window) each(oy, ox, h, width int, f func(ky, kx, y, x int, in bool)) {
	for ky := range w.kh {
		y := oy*w.sy + ky*w.dy - w.top
		for kx := range w.kw {
			x := ox*w.sx + kx*w.dx - w.left
			f(ky, kx, y, x, y >= 0 && y < h && x >= 0 && x < width)
		}
	}
}

// zeroOf is the zero point of a channel in a list that has one, or one for each.
func zeroOf(zeros []int, c int) int32 {
	switch len(zeros) {
	case 0:
		return 0
	case 1:
		return int32(zeros[0])
	}
	return int32(zeros[c])
}

func narrow(v []int64) []int32 {
	out := make([]int32, len(v))
	for i, x := range v {
		out[i] = int32(x)
	}
	return out
}

// finishFloat applies act and clip to accumulators and converts them.
func finishFloat(n *ir.Node, acc []float32) []byte {
	if act := n.Attrs.Str("act", ""); act != "" {
		f := unaryFloat[act]
		for i := range acc {
			acc[i] = f(acc[i])
		}
	}
	if c := n.Attrs.Floats("clip"); c != nil {
		for i := range acc {
			acc[i] = num.Min32(num.Max32(acc[i], c[0]), c[1])
		}
	}
	return PutFloats(n.Outputs[0].Type, acc, true)
}

func finishInt(n *ir.Node, acc []int32, channels int) []byte {
	f, out := scaler(n), make([]int64, len(acc))
	for i, a := range acc {
		out[i] = f(a, i%channels)
	}
	return PutInts(n.Outputs[0].Type, out)
}

func conv(n *ir.Node, in [][]byte) []byte {
	x, w, y := n.Inputs[0], n.Inputs[1], n.Outputs[0]
	h, width, cin := x.Shape[1], x.Shape[2], x.Shape[3]
	cout, cg := w.Shape[0], w.Shape[3]
	win := windowOf(n, w.Shape[1], w.Shape[2])
	ng := cout / n.Attrs.Int("groups", 1)
	bias := n.Input(2)
	count := y.Elements()
	// pixels calls f for each element of the output with the positions in the input and in the weights of
	// the runs of cg channels that it needs; in is false in the padding.
	at := func(i int) (img, oy, ox, c int) {
		c, i = i%cout, i/cout
		ox, i = i%y.Shape[2], i/y.Shape[2]
		return i / y.Shape[1], i % y.Shape[1], ox, c
	}
	if x.Type.Float() {
		xs, ws, acc := Floats(x.Type, in[0], x.Elements()), Floats(w.Type, in[1], w.Elements()), make([]float32, count)
		var bs []float32
		if bias != nil {
			bs = Floats(bias.Type, in[2], cout)
		}
		for i := range acc {
			img, oy, ox, c := at(i)
			var sum float32
			if bs != nil {
				sum = bs[c]
			}
			win.each(oy, ox, h, width, func(ky, kx, py, px int, inside bool) {
				from := ((img*h+py)*width+px)*cin + c/ng*cg
				wat := ((c*win.kh+ky)*win.kw + kx) * cg
				for k := range cg {
					var v float32
					if inside {
						v = xs[from+k]
					}
					sum = num.FMA32(v, ws[wat+k], sum)
				}
			})
			acc[i] = sum
		}
		return finishFloat(n, acc)
	}
	xs, ws, acc := narrow(Ints(x.Type, in[0], x.Elements())), narrow(Ints(w.Type, in[1], w.Elements())), make([]int32, count)
	zx, zw := int32(n.Attrs.Int("zero_x", 0)), n.Attrs.Ints("zeros_w")
	var bs []int64
	if bias != nil {
		bs = Ints(bias.Type, in[2], cout)
	}
	for i := range acc {
		img, oy, ox, c := at(i)
		var sum int32
		if bs != nil {
			sum = int32(bs[c])
		}
		z := zeroOf(zw, c)
		win.each(oy, ox, h, width, func(ky, kx, py, px int, inside bool) {
			if !inside {
				return // adds 0
			}
			from := ((img*h+py)*width+px)*cin + c/ng*cg
			a, b := xs[from:from+cg], ws[((c*win.kh+ky)*win.kw+kx)*cg:]
			for k, v := range a {
				sum += (v - zx) * (b[k] - z)
			}
		})
		acc[i] = sum
	}
	return finishInt(n, acc, cout)
}

func gemm(n *ir.Node, in [][]byte) []byte {
	a, b, y := n.Inputs[0], n.Inputs[1], n.Outputs[0]
	m, cols, k := y.Shape[1], y.Shape[2], a.Shape[2]
	ak, am := 1, a.Shape[2] // strides of k and m in a
	if n.Attrs.Int("trans_a", 0) != 0 {
		k, ak, am = a.Shape[1], a.Shape[2], 1
	}
	bk, bn := b.Shape[2], 1
	if n.Attrs.Int("trans_b", 0) != 0 {
		bk, bn = 1, b.Shape[2]
	}
	bias := n.Input(2)
	count := y.Elements()
	at := func(i int) (am0, bn0, c int) {
		c, i = i%cols, i/cols
		g := i / m
		am0, bn0 = i%m*am, c*bn
		if a.Shape[0] > 1 {
			am0 += g * a.Shape[1] * a.Shape[2]
		}
		if b.Shape[0] > 1 {
			bn0 += g * b.Shape[1] * b.Shape[2]
		}
		return am0, bn0, c
	}
	if a.Type.Float() {
		as, bs, acc := Floats(a.Type, in[0], a.Elements()), Floats(b.Type, in[1], b.Elements()), make([]float32, count)
		var seed []float32
		if bias != nil {
			seed = Floats(bias.Type, in[2], cols)
		}
		for i := range acc {
			pa, pb, c := at(i)
			var sum float32
			if seed != nil {
				sum = seed[c]
			}
			for range k {
				sum = num.FMA32(as[pa], bs[pb], sum)
				pa, pb = pa+ak, pb+bk
			}
			acc[i] = sum
		}
		return finishFloat(n, acc)
	}
	as, bs, acc := narrow(Ints(a.Type, in[0], a.Elements())), narrow(Ints(b.Type, in[1], b.Elements())), make([]int32, count)
	za, zb := int32(n.Attrs.Int("zero_a", 0)), n.Attrs.Ints("zeros_b")
	var seed []int64
	if bias != nil {
		seed = Ints(bias.Type, in[2], cols)
	}
	for i := range acc {
		pa, pb, c := at(i)
		var sum int32
		if seed != nil {
			sum = int32(seed[c])
		}
		z := zeroOf(zb, c)
		for range k {
			sum += (as[pa] - za) * (bs[pb] - z)
			pa, pb = pa+ak, pb+bk
		}
		acc[i] = sum
	}
	return finishInt(n, acc, cols)
}
