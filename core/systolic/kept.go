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
	of       source
	from, to uint64 // where they lie in memory, before to
	good     bool   // nothing there has changed
}

// source is all that packed weights depend on, their bytes aside.
type source struct {
	b        Operand // without zero point
	line     int     // gemm.Window.Run, or 0
	depth, n int
	base     uint64
}

// weightsOf returns the packed n columns of group g, for pixels stride bytes apart. w is at base in memory, or fresh.
func (a *Array) weightsOf(p *Product, w []byte, stride, g, n int, base uint64, fresh bool) *gemm.Weights {
	of := source{b: p.B, depth: p.depth(), n: n, base: base, line: p.line(stride)}
	of.b.Zero = 0
	if p.Groups == 1 && !fresh {
		for i := range a.kept {
			if k := &a.kept[i]; k.good && k.of == of {
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
	rows, row := of.depth, n
	if p.B.Transposed {
		rows, row = row, rows
	}
	k.of, k.good = of, p.Groups == 1 && !fresh
	k.from, k.to = base, base+uint64(rows-1)*uint64(p.B.Stride)+p.B.Type.Bytes(uint64(row))
	return &k.Weights
}

// Changed is told that n bytes at addr of the memory of Options.Weights have changed.
func (a *Array) Changed(addr, n uint64) {
	for i := range a.kept {
		if k := &a.kept[i]; k.good && addr < k.to && k.from < addr+n {
			k.good = false
		}
	}
}
