// SPDX-License-Identifier: Apache-2.0

package gemm

// word is the size of all that is packed for one row or column and one k-step,
// and of an element of C.
const word = 4

// maxRows is the number of rows of the highest tile of all tiers, 14, and two
// more because packing takes registers by sixteen.
const maxRows = 16

// tier is one way to compute what all tiers compute.
type tier struct {
	name        string
	int8, float kernel
}

// kernel is a tier's way for one kind of operands.
type kernel struct {
	mr, nr int   // rows and columns of a tile
	elems  int   // of K, in one k-step
	bias   int32 // what packed activations are greater by

	// tiles has for each number of rows the function that computes so many.
	tiles [maxRows + 1]tileFunc

	// packA packs n bytes, from byte off on, of mr rows, each xor one of flip, whose bytes are equal. It may write slack
	// bytes more than whole k-steps.
	packA func(dst *byte, rows **byte, off, n int, flip uint32)
	// packLines is packA of mr rows, stride bytes apart, of lines pieces of n bytes, apart bytes apart. It is nil in a tier
	// that is not made for it.
	packLines func(dst, src *byte, stride, n, lines, apart int, flip uint32)
	// packB packs one panel of int8: k rows of cols, stride bytes apart; the rest of the panel is 0.
	// It adds the columns to sums, of which there are nr.
	packB func(dst, src *byte, stride, k, cols int, sums *int32)
	// packColumns packs n > 0 bytes, from byte off on, of maxRows columns that are rows in memory, of which cols exist, into a
	// part of a panel. It adds them to sums. It is nil in a tier that is not made for it.
	packColumns func(dst *byte, columns **byte, off, n, cols int, sums *int32)
	// sumA adds the elements of each packed row to sums.
	sumA func(sums *int32, a *byte, steps int)
	// subScaled takes scale·row[i] off c[i], for n elements.
	subScaled func(c, row *int32, scale int32, n int)
	// channels adds ((pixels[p][i] xor flip) − zero)·weights[p][i] to acc[i], for all positions p and n channels i. Bytes
	// of flip are equal.
	channels func(acc *int32, pixels **byte, weights **int32, positions, n int, zero int32, flip uint32)
	// quads writes for each pixel of four rows n words, each of a byte of every row, xor flip, and some up to a multiple of
	// quadBlock. The next pixel of row i is steps[i] bytes further. It is nil in a tier that has no line.
	quads func(dst *byte, rows **byte, steps *int, pixels, n int, flip uint32)
	// line computes cols channels of pixels of C, ldc bytes apart: what was there (if load is not 0), plus comp, plus for
	// each of the taps the quads at q, of unsigned bytes, times those at w, of signed ones. The next tap is tap bytes
	// further in q and wtap in w, the next pixel step bytes further in q.
	line func(c *byte, ldc int, q *byte, step, tap int, w *byte, wtap int, comp *byte, taps, pixels, cols, load int)
	// widen makes len(dst) elements binary32.
	widen func(dst []float32, src *byte, t Type)
}

// tileFunc computes rows × cols of C at c, whose rows are ldc bytes apart, from
// k steps of a packed panel of A and of as many panels of B as the columns need:
// what was in C (if load is not 0), plus comp (int8 only: for each column of the
// first panel, compStep bytes further for the next), plus the product.
type tileFunc func(k int, a, b, c *byte, ldc int, comp *byte, compStep, rows, cols, load int)

// tiles makes a tileFunc of a function that computes one tile, nr columns wide.
func tiles(nr int, one func(k int, a, b, c *byte, ldc int, comp *byte, rows, cols, load int)) tileFunc {
	return func(k int, a, b, c *byte, ldc int, comp *byte, compStep, rows, cols, load int) {
		for i := 0; i*nr < cols; i++ {
			one(k, a, add(b, i*k*nr*word), add(c, i*nr*word), ldc, add(comp, i*compStep), rows, min(nr, cols-i*nr), load)
		}
	}
}

// upTo makes f the function for at most height rows, except where a lower one is known.
func (k *kernel) upTo(height int, f tileFunc) {
	for i := 1; i <= height; i++ {
		if k.tiles[i] == nil {
			k.tiles[i] = f
		}
	}
}
