// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"math"
	"slices"

	"npuemu/compiler/ir"
)

// This file has TFLite's operators that move elements and leave them as they are.

// tflSplit is SPLIT, of which the axis is the first input, or UNPACK, whose outputs lack it.
func tflSplit(unpack bool) rule {
	return func(b *builder, n *ir.Node) []*ir.Tensor {
		x, axis := n.Input(1), n.Attrs.Int("axis", 0)
		if unpack {
			x = n.Inputs[0]
		} else if list := b.constInts(0); len(list) == 1 {
			axis = list[0]
		} else {
			b.fail(fixValue, nil, "the axis is %v, not one number", list)
		}
		axis = b.axis(axis, len(x.Shape))
		k, d := len(n.Outputs), x.Shape[axis]
		if d%k != 0 || unpack && d != k {
			b.fail(fixValue, x, "axis %d of %v does not make %d parts", axis, x.Shape, k)
		}
		var out []*ir.Tensor
		for i := range k {
			part := b.part(x, axis, i*(d/k), d/k)
			if unpack {
				part = b.reshape(part, slices.Delete(slices.Clone(part.Shape), axis, axis+1)...)
			}
			out = append(out, b.reshapeCopy(part))
		}
		return out
	}
}

func tflPack(b *builder, n *ir.Node) []*ir.Tensor {
	axis := b.axis(n.Attrs.Int("axis", 0), len(n.Inputs[0].Shape)+1)
	var parts []*ir.Tensor
	for _, x := range n.Inputs {
		if !slices.Equal(x.Shape, n.Inputs[0].Shape) || x.Type != n.Inputs[0].Type {
			b.fail(fixShapes, n.Inputs[0], "%s%v and %s%v cannot be packed", n.Inputs[0].Type, n.Inputs[0].Shape, x.Type, x.Shape)
		}
		parts = append(parts, b.reshape(x, slices.Insert(slices.Clone(x.Shape), axis, 1)...))
	}
	return one(b.reshapeCopy(b.concat(axis, parts...)))
}

// tflBlocks is DEPTH_TO_SPACE, or SPACE_TO_DEPTH: blocks of pixels are channels, in the order of their lines.
func tflBlocks(toSpace bool) rule {
	return func(b *builder, n *ir.Node) []*ir.Tensor {
		x, k := n.Inputs[0], n.Attrs.Int("block_size", 0)
		if len(x.Shape) != 4 || k < 1 || k > 1<<12 {
			b.fail(fixValue, x, "blocks of %d of %v", k, x.Shape)
		}
		s := x.Shape
		if toSpace {
			if s[3]%(k*k) != 0 {
				b.fail(fixValue, nil, "%d channels are no multiple of %d·%d", s[3], k, k)
			}
			y := b.transpose(b.reshape(x, s[0], s[1], s[2], k, k, s[3]/(k*k)), 0, 1, 3, 2, 4, 5)
			return one(b.reshapeCopy(b.reshape(y, s[0], s[1]*k, s[2]*k, s[3]/(k*k))))
		}
		if s[1]%k != 0 || s[2]%k != 0 {
			b.fail(fixValue, nil, "%v is no multiple of blocks of %d", s, k)
		}
		y := b.transpose(b.reshape(x, s[0], s[1]/k, k, s[2]/k, k, s[3]), 0, 1, 3, 2, 4, 5)
		return one(b.reshapeCopy(b.reshape(y, s[0], s[1]/k, s[2]/k, k*k*s[3])))
	}
}

// tflNearest takes for each pixel the nearest one; places are computed in fp32.
func tflNearest(b *builder, n *ir.Node) []*ir.Tensor {
	x, size := n.Inputs[0], b.constInts(1)
	if len(x.Shape) != 4 || len(size) != 2 || min(size[0], size[1], x.Shape[1], x.Shape[2]) < 1 || max(size[0], size[1]) > 1<<16 {
		b.fail(fixValue, x, "%v to %v pixels", x.Shape, size)
	}
	corners, offset := n.Attrs.Int("align_corners", 0) != 0, float32(0)
	if n.Attrs.Int("half_pixel_centers", 0) != 0 {
		offset = 0.5
	}
	y := x
	for a, out := range size {
		in := x.Shape[1+a]
		scale := float32(in) / float32(out)
		if corners && out > 1 {
			scale = float32(in-1) / float32(out-1)
		}
		at := make([]int, out)
		for i := range at {
			v := float64((float32(i) + offset) * scale)
			if corners {
				v = math.Round(v)
			}
			at[i] = min(int(math.Floor(v)), in-1)
		}
		y = b.gather(y, b.ints(ir.Int32, []int{out}, at...), 1+a)
	}
	return one(y)
}

// tflExtreme is MAXIMUM or MINIMUM, of the integers as they are.
func tflExtreme(op string) rule {
	return func(b *builder, n *ir.Node) []*ir.Tensor {
		x, y := n.Inputs[0], n.Inputs[1]
		if x.Type != y.Type {
			b.fail(fixTypes, y, "the operands are %s and %s", x.Type, y.Type)
		}
		return one(b.op2(op, x, y))
	}
}
