// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// shaped is a tensor or memref type of known size.
type shaped struct {
	shape   []int
	element string // "i8"
	strides []int  // of a memref, in elements
	space   int    // of a memref: 0 memory outside, 1 scratchpad, 2 accumulators
}

// bytes is the size of an element, 0 if it has none here.
func (s shaped) bytes() int { return map[string]int{"i8": 1, "i32": 4}[s.element] }

// elements is how many there are.
func (s shaped) elements() int {
	n := 1
	for _, d := range s.shape {
		n *= d
	}
	return n
}

// dense are the strides of a row-major array.
func dense(shape []int) []int {
	strides := make([]int, len(shape))
	step := 1
	for i := len(shape) - 1; i >= 0; i-- {
		strides[i] = step
		step *= shape[i]
	}
	return strides
}

// parseShaped reads memref<32x256xi8, strided<[256, 1], offset: ?>, 1>, or a tensor type.
func parseShaped(text string) (shaped, error) {
	bad := func(why string) (shaped, error) { return shaped{}, fmt.Errorf("type %s: %s", text, why) }
	kind, inner, ok := strings.Cut(strings.TrimSuffix(text, ">"), "<")
	if !ok || kind != "memref" && kind != "tensor" {
		return bad("a tensor or memref wanted")
	}
	inner, layout, _ := strings.Cut(inner, ",")
	var s shaped
	words := strings.Split(inner, "x")
	for _, w := range words[:len(words)-1] {
		n, err := strconv.Atoi(w)
		if err != nil || n < 1 || n > 1<<24 || s.elements() > 1<<30/n {
			return bad("sizes have to be known, above 0, and of at most 2^30 elements in all")
		}
		s.shape = append(s.shape, n)
	}
	s.element = words[len(words)-1]
	s.strides = dense(s.shape)
	layout = strings.TrimSpace(layout)
	if rest, ok := strings.CutPrefix(layout, "strided<["); ok {
		list, rest, _ := strings.Cut(rest, "]")
		words := strings.Split(list, ", ")
		if len(words) != len(s.shape) {
			return bad("not a stride for each dimension")
		}
		for i, w := range words {
			n, err := strconv.Atoi(w)
			if err != nil || n < 0 || n > 1<<31 {
				return bad("strides have to be known")
			}
			s.strides[i] = n
		}
		_, layout, _ = strings.Cut(rest, ">")
		layout = strings.TrimPrefix(layout, ", ")
	}
	if layout != "" {
		n, err := strconv.Atoi(strings.TrimSuffix(layout, " : i64"))
		if err != nil || n < 0 || n > 2 {
			return bad("memory spaces are 0, 1 (the scratchpad) and 2 (the accumulators)")
		}
		s.space = n
	}
	return s, nil
}

// rows cuts a strided array into runs of elements that lie behind each other: it drops dimensions of one element and joins those that
// are contiguous in both layouts. The last dimension that remains has stride 1 in both.
func rows(shape, a, b []int) (size, sa, sb []int) {
	for i := range shape {
		if shape[i] != 1 {
			size, sa, sb = append(size, shape[i]), append(sa, a[i]), append(sb, b[i])
		}
	}
	if n := len(size); n == 0 || sa[n-1] != 1 || sb[n-1] != 1 {
		size, sa, sb = append(size, 1), append(sa, 1), append(sb, 1)
	}
	for i := len(size) - 2; i >= 0; i-- {
		if sa[i] == sa[i+1]*size[i+1] && sb[i] == sb[i+1]*size[i+1] {
			size[i+1] *= size[i]
			size[i] = size[i+1]
			sa[i], sb[i] = sa[i+1], sb[i+1]
			size, sa, sb = slices.Delete(size, i, i+1), slices.Delete(sa, i, i+1), slices.Delete(sb, i, i+1)
		}
	}
	return size, sa, sb
}
