// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"encoding/binary"
	"math"

	"npuemu/compiler/ir"
	"npuemu/core/num"
)

// What moves elements without computing: every type whose elements are whole bytes, with all
// bits as they are.

// bytesOf is the size of an element that is copied.
func (l *lower) bytesOf() (int, error) {
	if bits := l.y().Type.Bits(); bits >= 8 {
		return bits / 8, nil
	}
	return 0, l.node.Errorf("elements of %v have no address of their own", l.y().Type).WithRemedy("cast them to 8 bits")
}

// from copies x, seen through the given view, to the output.
func (l *lower) from(v view) { l.copyView(l.y().Shape, v, l.result()) }

func (l *lower) reshape() error {
	from, to := l.place(l.x()), l.place(l.y())
	if from == to {
		return nil // the same memory: nothing to do
	}
	n := []int{l.y().Bytes()}
	l.copyView(n, denseView(from, n, 1), denseView(to, n, 1))
	return nil
}

func (l *lower) transpose() error {
	s, err := l.bytesOf()
	if err != nil {
		return err
	}
	own := strides(l.x().Shape, s)
	v := view{at: l.place(l.x()), size: s}
	for _, p := range l.node.Attrs.Ints("perm") {
		v.strides = append(v.strides, own[p])
	}
	l.from(v)
	return nil
}

func (l *lower) expand() error {
	s, err := l.bytesOf()
	if err == nil {
		l.from(broadcast(l.place(l.x()), l.x().Shape, l.y().Shape, s))
	}
	return err
}

func (l *lower) slice() error {
	s, err := l.bytesOf()
	if err != nil {
		return err
	}
	starts, steps := l.node.Attrs.Ints("starts"), l.node.Attrs.Ints("steps")
	v := denseView(l.place(l.x()), l.x().Shape, s)
	for i := range v.strides {
		v.at.Offset += uint64(starts[i] * v.strides[i])
		v.strides[i] *= steps[i]
	}
	l.from(v)
	return nil
}

func (l *lower) concat() error {
	s, err := l.bytesOf()
	if err != nil {
		return err
	}
	axis := l.node.Attrs.Int("axis", 0)
	out := l.result()
	for _, x := range l.node.Inputs {
		part := out
		l.code.spad = 0
		l.copyView(x.Shape, denseView(l.place(x), x.Shape, s), view{part.at, append([]int{}, out.strides...), s})
		out.at = out.at.plus(x.Shape[axis] * out.strides[axis])
	}
	return nil
}

func (l *lower) pad() error {
	s, err := l.bytesOf()
	if err != nil {
		return err
	}
	x, y := l.x(), l.y()
	value := binary.LittleEndian.AppendUint64(nil, uint64(l.node.Attrs.Int("zero", 0)))[:s]
	if y.Type.Float() {
		if value, err = l.encodeFloat(y.Type, l.node.Attrs.Float("value", 0)); err != nil {
			return err
		}
	}
	// All of the output is filled, then what is inside is stored over it: the store engine
	// keeps the order.
	row := make([]byte, 0, 256)
	for len(row) < 256 {
		row = append(row, value...)
	}
	out := l.result()
	n := ir.Elements(y.Shape)
	wide := []int{n / (256 / s), 256}
	if wide[0] > 0 {
		l.copyView(wide, view{l.constant(row), []int{0, 1}, 1}, denseView(out.at, wide, 1))
	}
	if rest := n % (256 / s); rest > 0 {
		l.code.spad = 0
		l.copyView([]int{rest * s}, denseView(l.constant(row), []int{rest * s}, 1), denseView(out.at.plus((n-rest)*s), []int{rest * s}, 1))
	}
	pads := l.node.Attrs.Ints("pads")
	inside := view{out.at, append([]int{}, out.strides...), s}
	for i, st := range out.strides {
		inside.at.Offset += uint64(pads[i] * st)
	}
	l.code.spad = 0
	l.copyView(x.Shape, denseView(l.place(x), x.Shape, s), inside)
	return nil
}

// encodeFloat is v in a floating-point type.
func (l *lower) encodeFloat(t ir.Type, v float32) ([]byte, error) {
	le := binary.LittleEndian
	switch t {
	case ir.Float32:
		return floats(v), nil
	case ir.Float64:
		return le.AppendUint64(nil, math.Float64bits(float64(v))), nil
	case ir.Float16:
		return le.AppendUint16(nil, uint16(num.ToFP16(v))), nil
	case ir.BFloat16:
		return le.AppendUint16(nil, uint16(num.ToBF16(v))), nil
	case ir.Float8E4M3:
		return []byte{byte(num.ToE4M3Sat(v))}, nil
	case ir.Float8E5M2:
		return []byte{byte(num.ToE5M2Sat(v))}, nil
	}
	return nil, l.node.Errorf("%v is no floating-point type of the device", t)
}

// mostIndexes bounds the copies that a gather is written out as.
const mostIndexes = 4096

// gather is a copy for each index, or for several that follow each other, if they are known and that makes not too many; of others the
// device looks them up.
func (l *lower) gather() error {
	s, err := l.bytesOf()
	if err != nil {
		return err
	}
	x, index := l.x(), l.node.Inputs[1]
	if !index.Const() {
		return l.lookUp(s)
	}
	axis := l.node.Attrs.Int("axis", 0)
	dim, inner := x.Shape[axis], ir.Elements(x.Shape[axis+1:])*s
	outer, n := ir.Elements(x.Shape[:axis]), index.Elements()
	if dim == 0 || inner == 0 {
		return nil
	}
	type part struct{ from, to, count int }
	var parts []part
	for i, k := range integersOf(index) {
		if k < 0 {
			k += dim
		}
		if p := len(parts) - 1; p >= 0 && parts[p].from+parts[p].count == k {
			parts[p].count++
			continue
		}
		parts = append(parts, part{k, i, 1})
	}
	if len(parts) > mostIndexes {
		return l.lookUp(s)
	}
	in, out := l.place(x), l.place(l.y())
	for _, p := range parts {
		l.code.spad = 0
		l.copyView([]int{outer, p.count * inner}, view{in.plus(p.from * inner), []int{dim * inner, 1}, 1}, view{out.plus(p.to * inner), []int{n * inner, 1}, 1})
	}
	return nil
}

// integersOf are the elements of a constant of an integer type of 32 or 64 bits.
func integersOf(t *ir.Tensor) []int {
	n := t.Elements()
	v := make([]int, n)
	for i := range v {
		if t.Type == ir.Int64 {
			v[i] = int(binary.LittleEndian.Uint64(t.Data[8*i:]))
		} else {
			v[i] = int(int32(binary.LittleEndian.Uint32(t.Data[4*i:])))
		}
	}
	return v
}

func floatsOf(b []byte) []float32 {
	v := make([]float32, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return v
}
