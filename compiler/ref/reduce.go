// SPDX-License-Identifier: Apache-2.0

package ref

import (
	"slices"

	"npuemu/compiler/ir"
	"npuemu/core/num"
)

func pool(n *ir.Node, in [][]byte) []byte {
	x, y := n.Inputs[0], n.Outputs[0]
	h, width, ch := x.Shape[1], x.Shape[2], x.Shape[3]
	k := n.Attrs.Ints("kernel")
	win := windowOf(n, k[0], k[1])
	avg, countPad := n.Attrs.Str("kind", "") == "avg", n.Attrs.Int("count_pad", 0) != 0
	// each collects the elements of an output's window, and how many there are.
	each := func(i int, add func(at int), padding func()) (count int) {
		c, p := i%ch, i/ch
		ox, p := p%y.Shape[2], p/y.Shape[2]
		img, oy := p/y.Shape[1], p%y.Shape[1]
		win.each(oy, ox, h, width, func(_, _, py, px int, inside bool) {
			if inside {
				add(((img*h+py)*width+px)*ch + c)
				count++
			} else if countPad {
				padding()
				count++
			}
		})
		return count
	}
	if x.Type.Float() {
		v, out := Floats(x.Type, in[0], x.Elements()), make([]float32, y.Elements())
		var elems []float32
		for i := range out {
			elems = elems[:0]
			each(i, func(at int) { elems = append(elems, v[at]) }, func() {
				if avg {
					elems = append(elems, 0)
				}
			})
			if avg {
				out[i] = num.Div32(num.Sum(elems), num.FromInt32(int32(len(elems))))
			} else {
				out[i] = num.Max(elems)
			}
		}
		return PutFloats(y.Type, out, true)
	}
	v, out := Ints(x.Type, in[0], x.Elements()), make([]int64, y.Elements())
	low, _ := x.Type.Range()
	lo, hi := bounds(n)
	for i := range out {
		sum, top := int32(0), low
		count := each(i, func(at int) { sum += int32(v[at]); top = max(top, v[at]) }, func() {})
		if avg {
			top = int64(num.Average(sum, int32(max(count, 1))))
		}
		out[i] = min(max(top, lo), hi)
	}
	return PutInts(y.Type, out)
}

func reduce(n *ir.Node, in [][]byte) []byte {
	x, y, kind := n.Inputs[0], n.Outputs[0], n.Attrs.Str("kind", "")
	size := x.Shape[len(x.Shape)-1]
	saturate := n.Attrs.Int("wrap", 0) == 0
	if x.Type.Float() {
		v, out := Floats(x.Type, in[0], x.Elements()), make([]float32, y.Elements())
		f := map[string]func([]float32) float32{"sum": num.Sum, "mean": num.Mean, "max": num.Max, "min": num.Min}[kind]
		for i := range out {
			out[i] = f(v[i*size : (i+1)*size])
		}
		return putResult(y.Type, nil, out, saturate)
	}
	v, out := Ints(x.Type, in[0], x.Elements()), make([]int64, y.Elements())
	for i := range out {
		row := v[i*size : (i+1)*size]
		switch kind {
		case "max":
			out[i] = slices.Max(row)
		case "min":
			out[i] = slices.Min(row)
		default:
			var sum int32
			for _, e := range row {
				sum += int32(e)
			}
			out[i] = int64(sum)
		}
	}
	return putResult(y.Type, out, nil, saturate)
}

func norm(n *ir.Node, in [][]byte) []byte {
	x := n.Inputs[0]
	size := x.Shape[len(x.Shape)-1]
	v := Floats(x.Type, in[0], x.Elements())
	params := make([][]float32, 2)
	for i := range n.Inputs[1:] {
		params[i] = Floats(ir.Float32, in[1+i], size)
	}
	for i := 0; i < len(v); i += size {
		row := v[i : i+size]
		switch n.Op {
		case "npu.softmax":
			num.Softmax(row, row)
		case "npu.layernorm":
			num.LayerNorm(row, row, params[0], params[1], n.Attrs.Float("epsilon", 0))
		default:
			num.RMSNorm(row, row, params[0], n.Attrs.Float("epsilon", 0))
		}
	}
	return PutFloats(n.Outputs[0].Type, v, true)
}
