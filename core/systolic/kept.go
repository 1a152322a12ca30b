// SPDX-License-Identifier: Apache-2.0

package systolic

import "npuemu/core/gemm"

// Packed weights are kept for products that follow with the same ones: so many, of at most mostKept bytes each but for
// one.
const (
	kept     = 4
	mostKept = 16 << 20
)

// keptWeights are packed ones, and what of.
type keptWeights struct {
	gemm.Weights
	of source
}

// source is all that packed weights depend on.
type source struct {
	b        Operand // without zero point
	line     int     // gemm.Window.Run, or 0
	depth, n int
	number   uint64 // Options.Weights; 0: of nothing that comes again
}

// weightsOf returns the packed n columns of group g, for pixels stride bytes apart. number is Options.Weights.
func (a *Array) weightsOf(p *Product, w []byte, stride, g, n int, number uint64) *gemm.Weights {
	if p.Groups > 1 {
		number = 0
	}
	of := source{b: p.B, depth: p.depth(), n: n, number: number, line: p.line(stride)}
	of.b.Zero = 0
	if number != 0 {
		for i := range a.kept {
			if k := &a.kept[i]; k.of == of {
				return &k.Weights
			}
		}
	}
	k := &a.kept[0]
	if a.engine.PackedBytes(p.A.Type.Float(), of.depth, n) <= mostKept {
		a.oldest = (a.oldest + 1) % kept
		k = &a.kept[a.oldest]
	}
	a.pack(&k.Weights, p, w, stride, g, n)
	k.of = of
	return &k.Weights
}
