// SPDX-License-Identifier: Apache-2.0

package gemm

import (
	"encoding/binary"
	"unsafe"

	"npuemu/core/num"
)

// portable is the tier in plain Go. Its int8 kernel has two columns in a word
// of 64 bits: with w0 + w1·2³² in it, the sum of activation times word is
// s0 + s1·2³² modulo 2⁶⁴. In one block |s0| ≤ stepsPerBlock·2¹⁴ < 2³¹, so the
// low half is s0 exactly, and what remains is s1.
func portable() *tier {
	t := &tier{
		name: "go",
		int8: kernel{
			mr: 2, nr: 8, elems: 1,
			packA:     packSigned,
			packB:     packColumnPairs,
			sumA:      sumSigned,
			subScaled: subScaledGo,
			channels:  channelsGo,
		},
		float: kernel{
			mr: 2, nr: 8, elems: 1,
			packA: func(dst *byte, rows **byte, off, n int, _ uint32) { packWords(dst, pointers(rows, 2), off, n) },
			widen: widenGo,
		},
	}
	t.int8.upTo(2, tiles(8, mul2x8))
	t.float.upTo(2, tiles(8, chain2x8))
	return t
}

func packSigned(dst *byte, rows **byte, off, n int, flip uint32) {
	to := int32s(dst, 2*n)
	for r, p := range pointers(rows, 2) {
		for i, v := range unsafe.Slice(add(p, off), n) {
			to[2*i+r] = int32(int8(v ^ byte(flip)))
		}
	}
}

// packWords packs words as they are.
func packWords(dst *byte, rows []*byte, off, n int) {
	to := words(dst, n/word*len(rows))
	for r, p := range rows {
		at := r
		for from := unsafe.Slice(add(p, off), n); len(from) >= word; from = from[word:] {
			to[at] = binary.LittleEndian.Uint32(from)
			at += len(rows)
		}
	}
}

func packColumnPairs(dst, src *byte, stride, k, cols int, sums *int32) {
	sum := int32s((*byte)(unsafe.Pointer(sums)), 8)
	to := int64s(dst, 4*k)
	clear(to)
	for r := range k {
		for c, v := range unsafe.Slice(add(src, r*stride), cols) {
			to[4*r+c/2] += int64(int8(v)) << (c % 2 * 32)
			sum[c] += int32(int8(v))
		}
	}
}

func sumSigned(sums *int32, a *byte, steps int) {
	to := int32s((*byte)(unsafe.Pointer(sums)), 2)
	for i, v := range int32s(a, 2*steps) {
		to[i%2] += v
	}
}

func subScaledGo(c, row *int32, scale int32, n int) {
	to := unsafe.Slice(c, n)
	for i, v := range unsafe.Slice(row, n) {
		to[i] -= scale * v
	}
}

func channelsGo(acc *int32, pixels **byte, weights **int32, positions, n int, zero int32, flip uint32) {
	to := unsafe.Slice(acc, n)
	for p, w := range unsafe.Slice(weights, positions) {
		row := unsafe.Slice(w, n)
		for i, v := range unsafe.Slice(pointers(pixels, positions)[p], n) {
			to[i] += (int32(int8(v^byte(flip))) - zero) * row[i]
		}
	}
}

// mul2x8 computes one tile.
func mul2x8(k int, a, b, c *byte, ldc int, comp *byte, rows, cols, load int) {
	var s00, s01, s02, s03, s10, s11, s12, s13 int64
	av, bv := int32s(a, 2*k), int64s(b, 4*k)
	for len(av) >= 2 && len(bv) >= 4 {
		a0, a1 := int64(av[0]), int64(av[1])
		b0, b1, b2, b3 := bv[0], bv[1], bv[2], bv[3]
		s00 += a0 * b0
		s01 += a0 * b1
		s02 += a0 * b2
		s03 += a0 * b3
		s10 += a1 * b0
		s11 += a1 * b1
		s12 += a1 * b2
		s13 += a1 * b3
		av, bv = av[2:], bv[4:]
	}
	sums := [2][4]int64{{s00, s01, s02, s03}, {s10, s11, s12, s13}}
	for r := range rows {
		to := int32s(add(c, r*ldc), cols)
		if load == 0 {
			clear(to)
		}
		for i, v := range int32s(comp, cols) {
			to[i] += v
		}
		for i := range to {
			s := sums[r][i/2]
			if i%2 == 0 {
				to[i] += int32(s)
			} else {
				to[i] += int32((s - int64(int32(s))) >> 32)
			}
		}
	}
}

// chain2x8 computes one tile.
func chain2x8(k int, a, b, c *byte, ldc int, _ *byte, rows, cols, load int) {
	for r := range rows {
		to := floats(add(c, r*ldc), cols)
		if load == 0 {
			clear(to)
		}
		av := floats(a, 2*k)[r:]
		for i, v := range to {
			bv := floats(b, 8*k)[i:]
			for s := range k {
				v = num.FMA32(av[2*s], bv[8*s], v)
			}
			to[i] = v
		}
	}
}
