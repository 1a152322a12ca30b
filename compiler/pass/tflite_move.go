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

// tflResize is RESIZE_NEAREST_NEIGHBOR or RESIZE_BILINEAR, with the coordinates of §5.6.24.
func tflResize(linear bool) rule {
	return func(b *builder, n *ir.Node) []*ir.Tensor {
		x, size := n.Inputs[0], b.constInts(1)
		if len(x.Shape) != 4 || len(size) != 2 || min(size[0], size[1], x.Shape[1], x.Shape[2]) < 1 || max(size[0], size[1], x.Shape[1], x.Shape[2]) > math.MaxUint16 {
			b.fail(fixValue, x, "%v to %v pixels", x.Shape, size)
		}
		corners, half := n.Attrs.Int("align_corners", 0) != 0, n.Attrs.Int("half_pixel_centers", 0) != 0
		mode := "floor"
		switch {
		case linear && (x.Type == ir.Int8 || x.Type == ir.Int16):
			mode = "fixed"
		case linear && x.Type != ir.Float32:
			b.fail(fixTypes, x, "bilinear of %s, which is not float32, int8 or int16", x.Type)
		case linear:
			mode = "linear"
		case corners:
			mode = "round_up"
		case !x.Type.Computes():
			b.fail(fixTypes, x, "%s is no type of RESIZE (§5.6.24)", x.Type)
		}
		attrs, mul, steps := ir.Attrs{"mode": mode}, make([]float32, 2), make([]int64, 2)
		if half {
			attrs["half"] = int64(1)
			if linear {
				attrs["center"] = int64(1)
			}
		}
		for i, m := range size {
			k := x.Shape[1+i]
			if corners && m > 1 {
				k, m = k-1, m-1
			}
			mul[i], steps[i] = float32(k)/float32(m), int64((1<<10*k+m/2)/m)
			if steps[i] == 0 && mode == "fixed" {
				b.fail(fixValue, x, "%v to %v pixels: a step is less than 2⁻¹¹", x.Shape, size)
			}
		}
		if mode == "fixed" {
			attrs["steps"] = steps
		} else {
			attrs["mul"] = mul
		}
		return one(b.resizeImage(x, size[0], size[1], attrs))
	}
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
