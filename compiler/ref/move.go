// SPDX-License-Identifier: Apache-2.0

package ref

import (
	"npuemu/compiler/ir"
	"npuemu/core/num"
)

// strides are those of a dense row-major tensor, in elements.
func strides(shape []int) []int {
	s := make([]int, len(shape))
	n := 1
	for i := len(shape) - 1; i >= 0; i-- {
		s[i] = n
		n *= shape[i]
	}
	return s
}

// broadcast are the strides with which a tensor is read as one of shape out.
func broadcast(shape, out []int) []int {
	dense := strides(shape)
	s := make([]int, len(out))
	for i, d := range shape {
		if d != 1 {
			s[len(out)-len(shape)+i] = dense[i]
		}
	}
	return s
}

// walk calls f for each element of shape, in order, with its position in a dense tensor and base
// plus the sum of index times stride.
func walk(shape, stride []int, base int, f func(i, at int)) {
	n := ir.Elements(shape)
	index := make([]int, len(shape))
	at := base
	for i := range n {
		f(i, at)
		for a := len(shape) - 1; a >= 0; a-- {
			index[a]++
			at += stride[a]
			if index[a] < shape[a] {
				break
			}
			at -= index[a] * stride[a]
			index[a] = 0
		}
	}
}

// unpacked is data with an element in at least a byte, and the size of an element; pack undoes it.
func unpacked(t ir.Type, data []byte, n int) ([]byte, int) {
	if t.Bits() < 8 {
		return PutInts(ir.Int8, Ints(t, data, n)), 1
	}
	return data, t.Bits() / 8
}

func pack(t ir.Type, data []byte) []byte {
	if t.Bits() < 8 {
		return PutInts(t, Ints(ir.Int8, data, len(data)))
	}
	return data
}

// take makes a tensor of that shape from elements of src.
func take(t ir.Type, src []byte, n int, shape, stride []int, base int) []byte {
	src, size := unpacked(t, src, n)
	out := make([]byte, ir.Elements(shape)*size)
	walk(shape, stride, base, func(i, at int) { copy(out[i*size:(i+1)*size], src[at*size:]) })
	return pack(t, out)
}

// put places the elements of src, of that shape, into dst, whose elements have size bytes.
func put(dst, src []byte, size int, shape, stride []int, base int) {
	walk(shape, stride, base, func(i, at int) { copy(dst[at*size:(at+1)*size], src[i*size:]) })
}

func transpose(n *ir.Node, in [][]byte) []byte {
	x := n.Inputs[0]
	dense := strides(x.Shape)
	var s []int
	for _, p := range n.Attrs.Ints("perm") {
		s = append(s, dense[p])
	}
	return take(x.Type, in[0], x.Elements(), n.Outputs[0].Shape, s, 0)
}

func expand(n *ir.Node, in [][]byte) []byte {
	x, y := n.Inputs[0], n.Outputs[0]
	return take(x.Type, in[0], x.Elements(), y.Shape, broadcast(x.Shape, y.Shape), 0)
}

func slice(n *ir.Node, in [][]byte) []byte {
	x := n.Inputs[0]
	s, base := strides(x.Shape), 0
	starts, steps := n.Attrs.Ints("starts"), n.Attrs.Ints("steps")
	for i := range s {
		base += starts[i] * s[i]
		s[i] *= steps[i]
	}
	return take(x.Type, in[0], x.Elements(), n.Outputs[0].Shape, s, base)
}

func pad(n *ir.Node, in [][]byte) []byte {
	x, y := n.Inputs[0], n.Outputs[0]
	src, size := unpacked(x.Type, in[0], x.Elements())
	var fill []byte
	if x.Type.Float() {
		fill = PutFloats(x.Type, []float32{n.Attrs.Float("value", 0)}, false)
	} else {
		fill, _ = unpacked(x.Type, PutInts(x.Type, []int64{int64(n.Attrs.Int("zero", 0))}), 1)
	}
	out := make([]byte, y.Elements()*size)
	for i := 0; i < len(out); i += size {
		copy(out[i:], fill)
	}
	s, base := strides(y.Shape), 0
	for i, p := range n.Attrs.Ints("pads")[:len(s)] {
		base += p * s[i]
	}
	put(out, src, size, x.Shape, s, base)
	return pack(x.Type, out)
}

func concat(n *ir.Node, in [][]byte) []byte {
	y, axis := n.Outputs[0], n.Attrs.Int("axis", 0)
	s, base := strides(y.Shape), 0
	size := max(1, y.Type.Bits()/8)
	out := make([]byte, y.Elements()*size)
	for i, x := range n.Inputs {
		src, _ := unpacked(y.Type, in[i], x.Elements())
		put(out, src, size, x.Shape, s, base)
		base += x.Shape[axis] * s[axis]
	}
	return pack(y.Type, out)
}

// checkIndexes refuses what GATHER reports as BAD_INDEX (§5.6.27).
func checkIndexes(n *ir.Node, in [][]byte) error {
	x, axis := n.Inputs[0], n.Attrs.Int("axis", 0)
	if n.Outputs[0].Elements() == 0 {
		return nil
	}
	if k, ok := ir.Outside(n.Inputs[1], in[1], x.Shape[axis]); ok {
		e := n.Errorf("BAD_INDEX: index %d of axis %d of %v, which has %d elements", k, axis, x.Shape, x.Shape[axis])
		e.Tensor = n.Inputs[1].Name
		return e
	}
	return nil
}

func gather(n *ir.Node, in [][]byte) []byte {
	x, at := n.Inputs[0], n.Inputs[1]
	src, size := unpacked(x.Type, in[0], x.Elements())
	index := Ints(at.Type, in[1], at.Elements())
	axis := n.Attrs.Int("axis", 0)
	outer, length, inner := ir.Elements(x.Shape[:axis]), x.Shape[axis], ir.Elements(x.Shape[axis+1:])*size
	out := make([]byte, 0, n.Outputs[0].Elements()*size)
	for o := range outer {
		for _, k := range index {
			if k < 0 {
				k += int64(length)
			}
			from := (o*length + int(k)) * inner
			out = append(out, src[from:from+inner]...)
		}
	}
	return pack(x.Type, out)
}

// selected is npu.select: a NaN becomes the canonical one, as ELEMENT's select stores it.
func selected(n *ir.Node, in [][]byte) []byte {
	out := n.Outputs[0]
	c, x, y := n.Inputs[0], n.Inputs[1], n.Inputs[2]
	size := out.Type.Bits() / 8
	cs, xs, ys := broadcast(c.Shape, out.Shape), broadcast(x.Shape, out.Shape), broadcast(y.Shape, out.Shape)
	from := make([]int, out.Elements())
	walk(out.Shape, cs, 0, func(i, at int) { from[i] = int(in[0][at]) })
	data := make([]byte, len(from)*size)
	walk(out.Shape, xs, 0, func(i, at int) {
		if from[i] != 0 {
			copy(data[i*size:(i+1)*size], in[1][at*size:])
		}
	})
	walk(out.Shape, ys, 0, func(i, at int) {
		if from[i] == 0 {
			copy(data[i*size:(i+1)*size], in[2][at*size:])
		}
	})
	if out.Type.Float() && out.Type != ir.Float64 {
		f := Floats(out.Type, data, len(from))
		for i := range f {
			f[i] = num.Canon(f[i])
		}
		return PutFloats(out.Type, f, false)
	}
	return data
}
