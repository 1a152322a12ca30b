// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"math"

	"npuemu/compiler/ir"
	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// rowwise computes with rows of n elements of type t, which follow each other, and makes rows
// of outN elements of outSize bytes; a row needs accRow bytes of accumulators. f is given
// addresses and a number of rows.
func (l *lower) rowwise(t systolic.Type, n, rows, outN, outSize, accRow int, f func(x, out, acc uint32, m int)) error {
	in, res := n*size(t), outN*outSize
	if rows == 0 || n == 0 {
		return nil
	}
	target := l.b.Target()
	limit := (int(target.SpadSize) - l.spad - 4*align) / (2 * (in + res))
	if accRow > 0 {
		limit = min(limit, (int(target.AccSize)-l.acc-align)/accRow)
	}
	count := 2
	if limit = min(limit, max(mostTile/(in+res), 1)); limit < 1 {
		return l.node.Errorf("a row of %d bytes does not fit %d bytes of scratchpad", in, target.SpadSize).WithRemedy("give the array more scratchpad")
	}
	if rows <= limit {
		limit, count = rows, 1
	}
	x, out := l.slots(count, limit*in), l.slots(count, limit*res)
	acc := l.accumulators(limit * accRow)
	from, to := l.place(l.x()), l.place(l.y())
	for r := 0; r < rows; r += limit {
		m := min(limit, rows-r)
		a, o := x.take(), out.take()
		l.load(a, from.plus(r*in), m*in)
		f(a, o, acc, m)
		l.b.Emit(isa.Store{Binding: to.Binding, Offset: to.Offset + uint64(r*res), Local: o, NX: uint32(m * res), NY: 1, NZ: 1})
	}
	return nil
}

// eachRow calls f for parts of m rows whose strides ELEMENT and the like can name: all at once,
// or row by row.
func eachRow(m, bytes int, f func(first, m int)) {
	if bytes <= math.MaxUint16 {
		f(0, m)
		return
	}
	for i := range m {
		f(i, 1)
	}
}

// lastAxis returns the elements of the last axis and how many rows there are; n is what
// an instruction can name.
func (l *lower) lastAxis() (n, rows int, err error) {
	s := l.x().Shape
	if len(s) == 0 {
		return 1, 1, nil
	}
	n = s[len(s)-1]
	if n > math.MaxUint16 {
		return 0, 0, l.node.Errorf("the last axis has %d elements; an instruction has rows of up to 65535 (§5.6.20)", n)
	}
	if n == 0 {
		return 0, 0, l.node.Errorf("the last axis has no elements")
	}
	return n, ir.Elements(s) / n, nil
}

// strideOf is the stride of rows of so many bytes; a single row has none.
func strideOf(m, bytes int) uint16 {
	if m == 1 {
		return 0
	}
	return uint16(bytes)
}

func (l *lower) reduce() error {
	x, y, err := l.kinds()
	if err != nil {
		return err
	}
	n, rows, err := l.lastAxis()
	if err != nil {
		return err
	}
	op := map[string]isa.ReduceOp{"sum": isa.ReduceSum, "max": isa.ReduceMax, "min": isa.ReduceMin, "mean": isa.ReduceMean}[l.node.Attrs.Str("kind", "")]
	wrap := l.node.Attrs.Int("wrap", 0) != 0
	row, so := n*size(x), size(y)
	return l.rowwise(x, n, rows, 1, so, 0, func(a, out, _ uint32, m int) {
		eachRow(m, row, func(first, m int) {
			l.b.Emit(isa.Reduce{
				NoSaturate: wrap, Op: op, Type: x, OutType: y, X: a + uint32(first*row), Out: out + uint32(first*so),
				M: uint32(m), N: uint16(n), XStride: strideOf(m, row), OutStride: strideOf(m, so),
			})
		})
	})
}

// norm is softmax and the normalizations; params are what §5.6.21 says, nil for none.
func (l *lower) norm(op isa.NormOp, params []float32) (*body, error) {
	x, y, err := l.kinds()
	if err != nil {
		return nil, err
	}
	n, _, err := l.lastAxis()
	if err != nil {
		return nil, err
	}
	at := uint32(0)
	if params != nil {
		at = l.local(4 * len(params))
		l.load(at, l.constant(floats(params...)), 4*len(params))
	}
	in := l.operand(l.x(), l.y().Shape)
	in.scalar = false
	return &body{in: []operand{in}, rowwise: true, f: func(t tile) {
		from, to := n*size(x), n*size(y)
		eachRow(t.n/n, max(from, to), func(first, m int) {
			l.b.Emit(isa.Norm{
				XAcc: t.in[0].acc, OutAcc: t.out.acc, Op: op, Type: x, OutType: y, X: t.in[0].at + uint32(first*from), Out: t.out.at + uint32(first*to), Params: at,
				M: uint32(m), N: uint16(n), XStride: strideOf(m, from), OutStride: strideOf(m, to),
			})
		})
	}}, nil
}

func (l *lower) softmax() (*body, error) { return l.norm(isa.Softmax, nil) }

func (l *lower) layerNorm() (*body, error) {
	p := append([]float32{l.node.Attrs.Float("epsilon", 0)}, floatsOf(l.node.Inputs[1].Data)...)
	return l.norm(isa.LayerNorm, append(p, floatsOf(l.node.Inputs[2].Data)...))
}

func (l *lower) rmsNorm() (*body, error) {
	return l.norm(isa.RMSNorm, append([]float32{l.node.Attrs.Float("epsilon", 0)}, floatsOf(l.node.Inputs[1].Data)...))
}
