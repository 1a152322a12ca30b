// SPDX-License-Identifier: Apache-2.0

package gemm

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// tiers are those that this machine has, the best first. The processor and the
// operating system (XGETBV) are asked by package cpu.
func tiers() []*tier {
	var t []*tier
	if cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512VNNI && cpu.X86.HasBMI2 {
		t = append(t, avx512())
	}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		t = append(t, avx2())
	}
	return append(t, portable())
}

func avx512() *tier {
	t := &tier{
		name: "avx512",
		int8: kernel{
			mr: 14, nr: 32, elems: 4, bias: 128,
			packA: func(dst *byte, rows **byte, off, n int, flip uint32) { packA512(dst, rows, off, n, flip^0x80808080) },
			packLines: func(dst, src *byte, stride, n, lines, apart int, flip uint32) {
				packLines512(dst, src, stride, n, lines, apart, flip^0x80808080)
			},
			packB:       packBytes512,
			packColumns: packColumns512,
			sumA:        sumA512,
			subScaled:   subScaled512,
			channels:    channels512,
			quads:       quads512,
			line:        line512,
		},
		float: kernel{
			mr: 14, nr: 32, elems: 1,
			packA: packA512, packLines: packLines512,
			widen: widenVector,
		},
	}
	t.int8.upTo(1, vnni1)
	t.int8.upTo(2, vnni2)
	t.int8.upTo(4, vnni4)
	t.int8.upTo(6, vnni6)
	t.int8.upTo(8, vnni8)
	t.int8.upTo(11, vnni11)
	t.int8.upTo(14, vnni14)
	t.float.upTo(1, fma512x1)
	t.float.upTo(2, fma512x2)
	t.float.upTo(4, fma512x4)
	t.float.upTo(6, fma512x6)
	t.float.upTo(8, fma512x8)
	t.float.upTo(11, fma512x11)
	t.float.upTo(14, fma512x14)
	return t
}

// packBytes512 is kernel.packB: packB512 for whole k-steps, and for a last one
// that is not whole.
func packBytes512(dst, src *byte, stride, k, cols int, sums *int32) {
	const nr, elems = 32, 4
	steps := k / elems
	if steps > 0 {
		packB512(dst, src, stride, steps, cols, sums)
	}
	if from := steps * elems; from < k {
		var last [elems * nr]byte
		for r := from; r < k; r++ {
			copy(last[(r-from)*nr:][:cols], unsafe.Slice(add(src, r*stride), cols))
		}
		packB512(add(dst, steps*nr*word), &last[0], nr, 1, cols, sums)
	}
}

// widenVector is kernel.widen.
func widenVector(dst []float32, src *byte, t Type) {
	switch t {
	case BFloat16:
		widenBF16x512(&dst[0], src, len(dst))
	case Float16:
		widenFP16x512(&dst[0], src, len(dst))
	case E4M3:
		widenE4M3x512(&dst[0], src, len(dst))
	case E5M2:
		widenE5M2x512(&dst[0], src, len(dst))
	default:
		widenGo(dst, src, t)
	}
}

func avx2() *tier {
	t := &tier{
		name: "avx2",
		int8: kernel{
			mr: 6, nr: 16, elems: 2,
			packA: packPairs,
			packB: func(dst, src *byte, stride, k, cols int, sums *int32) {
				packPairsB(dst, src, stride, k, cols, 16, sums)
			},
			sumA:      sumPairs,
			subScaled: subScaledGo,
			channels:  channelsGo,
		},
		float: kernel{
			mr: 6, nr: 16, elems: 1,
			packA: func(dst *byte, rows **byte, off, n int, _ uint32) { packWords(dst, pointers(rows, 6), off, n) },
			widen: widenGo,
		},
	}
	t.int8.upTo(6, tiles(16, madd256))
	t.float.upTo(6, tiles(16, fma256))
	return t
}

// packPairs packs int8 as int16, two to a word.
func packPairs(dst *byte, rows **byte, off, n int, flip uint32) {
	const mr = 6
	steps, x := ceil(n, 2), byte(flip)
	to := words(dst, steps*mr)
	for r, p := range pointers(rows, mr) {
		from := unsafe.Slice(add(p, off), n)
		at := r
		for ; len(from) >= 2; from = from[2:] {
			to[at] = uint32(uint16(int8(from[0]^x))) | uint32(int32(int8(from[1]^x)))<<16
			at += mr
		}
		if len(from) > 0 {
			to[at] = uint32(uint16(int8(from[0]^x))) | uint32(int32(int8(x)))<<16
		}
	}
}

// packPairsB packs a panel of nr columns in the same way.
func packPairsB(dst, src *byte, stride, k, cols, nr int, sums *int32) {
	sum := int32s((*byte)(unsafe.Pointer(sums)), nr)
	to := words(dst, ceil(k, 2)*nr)
	clear(to)
	for r := range k {
		row := to[r/2*nr:][:cols]
		for c, v := range unsafe.Slice(add(src, r*stride), cols) {
			row[c] |= uint32(uint16(int8(v))) << (r % 2 * 16)
			sum[c] += int32(int8(v))
		}
	}
}

// sumPairs is kernel.sumA for six rows of pairs.
func sumPairs(sums *int32, a *byte, steps int) {
	const mr = 6
	to := int32s((*byte)(unsafe.Pointer(sums)), mr)
	for i, w := range words(a, steps*mr) {
		to[i%mr] += int32(int16(w)) + int32(w)>>16
	}
}
