// SPDX-License-Identifier: Apache-2.0

package npy

import (
	"bytes"
	"fmt"
	"image"
	_ "image/jpeg" // Image reads it
	_ "image/png"  // Image reads it
	"math"

	"golang.org/x/image/draw"

	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
)

// maxPixels bounds an image: 64 Mi pixels are more than any model reads.
const maxPixels = 64 << 20

// ImageOptions say which numbers the pixels of an image are.
type ImageOptions struct {
	Mean, Std []float32 // of pixels from 0 to 1: each is (pixel − mean) / std; one, or one for each channel; none: 0 and 1
	Resize    bool      // the image is made the tensor's size
}

// Given reports whether o says anything.
func (o ImageOptions) Given() bool { return len(o.Mean)+len(o.Std) > 0 || o.Resize }

// Check reports what is wrong with o whatever the tensor is.
func (o ImageOptions) Check() error {
	for name, l := range map[string][]float32{"mean": o.Mean, "std": o.Std} {
		if n := len(l); n != 0 && n != 1 && n != 3 {
			return fmt.Errorf("%d numbers of --%s: give one, or one each for red, green and blue", n, name)
		}
		for _, v := range l {
			if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) || name == "std" && v <= 0 {
				return fmt.Errorf("--%s %v: give finite numbers, of std above 0; pixels are from 0 to 1", name, v)
			}
		}
	}
	return nil
}

// layout is where the elements of an image are in a tensor.
type layout struct {
	c, h, w int
	first   bool // channels come before lines
}

// layoutOf reads a shape, [1, C, H, W] or [1, H, W, C], with or without the 1, with 1 or 3 channels.
func layoutOf(shape []int) (l layout, channelAxis int, err error) {
	channels := func(c int) bool { return c == 1 || c == 3 }
	s := shape
	if len(s) == 3 {
		s = append([]int{1}, s...)
	}
	if len(s) != 4 || s[0] != 1 || !channels(s[1]) && !channels(s[3]) {
		return l, 0, fmt.Errorf("npy: an image is no tensor of shape %v; [1, C, H, W] and [1, H, W, C] with 1 or 3 channels are: give the input as a .npy file", shape)
	}
	if channels(s[1]) && (!channels(s[3]) || s[2] == s[3]) {
		return layout{s[1], s[2], s[3], true}, len(shape) - 3, nil
	}
	return layout{s[3], s[1], s[2], false}, len(shape) - 1, nil
}

// Image returns a PNG or JPEG as the elements of a tensor, whose channels, lines and columns follow from its shape (layoutOf).
//
// A pixel is a number from 0 to 1, p / 255, of which (p / 255 − mean) / std is what a floating-point tensor gets, rounded to
// its type, and a quantized one by its scale and zero point: round(v / scale) + zero, ties to even, clamped to the type. An
// integer tensor without a scale has no such numbers: uint8 and larger types get p, int8 gets p − 128.
//
// One channel is (299·R + 587·G + 114·B) / 1000 of three, three are that of one. What is transparent is on black. With Resize
// the image is scaled to the tensor's size by a linear filter, which where it shrinks covers all pixels; its sides' ratio is
// not kept.
func Image(b []byte, t ir.Type, shape []int, q *ir.Quant, o ImageOptions) ([]byte, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	l, axis, err := layoutOf(shape)
	if err != nil {
		return nil, err
	}
	for name, v := range map[string][]float32{"mean": o.Mean, "std": o.Std} {
		if len(v) > l.c {
			return nil, fmt.Errorf("npy: %d numbers of --%s for a tensor of %d channel: give one", len(v), name, l.c)
		}
	}
	scaled := q != nil && len(q.Scales) > 0 && t.Integer()
	switch {
	case scaled && len(q.Scales) > 1 && (q.Axis != axis || len(q.Scales) != l.c):
		return nil, fmt.Errorf("npy: the tensor has %d scales of axis %d; an image takes one, or one for each of %d channels", len(q.Scales), q.Axis, l.c)
	case t.Integer() && !scaled && len(o.Mean)+len(o.Std) > 0:
		return nil, fmt.Errorf("npy: --mean and --std make real numbers, which the tensor of %s has no scale for: leave them out, and it gets pixels", t)
	case !t.Integer() && !t.Float() || t.Bits() < 8 && !scaled:
		return nil, fmt.Errorf("npy: an image is no tensor of %v; floating-point and integer types from 8 bits on are, and quantized ones", t)
	}
	img, err := decode(b, l, o.Resize)
	if err != nil {
		return nil, err
	}
	if r := img.Bounds(); r.Dx() != l.w || r.Dy() != l.h {
		if l.w > maxPixels/max(l.h, 1) {
			return nil, fmt.Errorf("npy: a tensor of %d × %d pixels; the most for --resize is %d", l.w, l.h, maxPixels)
		}
		to := image.NewRGBA(image.Rect(0, 0, l.w, l.h))
		draw.BiLinear.Scale(to, to.Bounds(), img, r, draw.Src, nil)
		img = to
	}
	px := l.pixels(img)
	switch {
	case t.Float():
		return ref.PutFloats(t, o.real(px, l), true), nil
	case scaled:
		return ref.PutInts(t, quantized(o.real(px, l), l, t, q)), nil
	}
	v := make([]int64, len(px))
	for i, p := range px {
		if v[i] = int64(p); t == ir.Int8 {
			v[i] -= 128
		}
	}
	return ref.PutInts(t, v), nil
}

// decode reads a PNG or JPEG, which without resize has the size of l.
func decode(b []byte, l layout, resize bool) (image.Image, error) {
	cfg, _, err := image.DecodeConfig(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("npy: image: %w: PNG and JPEG are read", err)
	}
	if cfg.Width <= 0 || cfg.Height <= 0 || cfg.Width > maxPixels/cfg.Height {
		return nil, fmt.Errorf("npy: image of %d × %d pixels; the most is %d: scale the image", cfg.Width, cfg.Height, maxPixels)
	}
	// A short file can claim a large image: nothing is decoded that does not fit.
	if !resize && (cfg.Width != l.w || cfg.Height != l.h) {
		return nil, fmt.Errorf("npy: the image has %d × %d pixels, the tensor %d × %d: scale the image, or give --resize", cfg.Width, cfg.Height, l.w, l.h)
	}
	img, _, err := image.Decode(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("npy: image: %w: the file is cut or damaged", err)
	}
	if r := img.Bounds(); r.Dx() != cfg.Width || r.Dy() != cfg.Height {
		return nil, fmt.Errorf("npy: the image has %d × %d pixels, its header says %d × %d: the file is damaged", r.Dx(), r.Dy(), cfg.Width, cfg.Height)
	}
	return img, nil
}

// at is the place of channel k of a pixel.
func (l layout) at(x, y, k int) int {
	if l.first {
		return (k*l.h+y)*l.w + x
	}
	return (y*l.w+x)*l.c + k
}

// pixels are those of img in the tensor's order.
func (l layout) pixels(img image.Image) []uint8 {
	out := make([]uint8, l.c*l.h*l.w)
	r := img.Bounds()
	for y := range l.h {
		for x := range l.w {
			cr, cg, cb, _ := img.At(r.Min.X+x, r.Min.Y+y).RGBA()
			px := [3]uint32{cr >> 8, cg >> 8, cb >> 8}
			if l.c == 1 {
				px[0] = (299*px[0] + 587*px[1] + 114*px[2] + 500) / 1000
			}
			for k := range l.c {
				out[l.at(x, y, k)] = uint8(px[k])
			}
		}
	}
	return out
}

// channel is the channel of element i.
func (l layout) channel(i int) int {
	if l.first {
		return i / (l.h * l.w)
	}
	return i % l.c
}

// real are the numbers that pixels stand for, each operation rounded to fp32, as torchvision's ToTensor and Normalize do.
func (o ImageOptions) real(px []uint8, l layout) []float32 {
	of := func(v []float32, k int, none float32) float32 {
		switch len(v) {
		case 0:
			return none
		case 1:
			return v[0]
		}
		return v[k]
	}
	out := make([]float32, len(px))
	for i, p := range px {
		k := l.channel(i)
		x := float32(p) / 255
		x -= of(o.Mean, k, 0)
		out[i] = x / of(o.Std, k, 1)
	}
	return out
}

// quantized are the integers of type t that stand for v.
func quantized(v []float32, l layout, t ir.Type, q *ir.Quant) []int64 {
	lo, hi := t.Range()
	out := make([]int64, len(v))
	for i, x := range v {
		k := 0
		if len(q.Scales) > 1 {
			k = l.channel(i)
		}
		zero := int64(0)
		if len(q.Zeros) > 0 {
			zero = q.Zeros[k]
		}
		r := math.RoundToEven(float64(x/q.Scales[k])) + float64(zero)
		out[i] = int64(max(float64(lo), min(float64(hi), r)))
		if r >= float64(hi) { // of 64 bits, which fp64 does not have
			out[i] = hi
		}
	}
	return out
}
