// SPDX-License-Identifier: Apache-2.0

package engines

import (
	"math"

	"npuemu/core/isa"
	"npuemu/core/num"
	"npuemu/core/systolic"
)

// What the generator makes of ISA 1.2 and 1.3: instructions that go together with
// others, and with what the memory holds.

// Parts of binding 0 that memory by chance would seldom be, and their size.
func (s shape) places() int  { return s.spad + 512 }       // of sparse weights, two to a byte
func (s shape) indices() int { return s.places() + part }  // int32 from 0 to 3
func (s shape) signed() int  { return s.indices() + part } // int32 from −3 to 3

const part = 256

// operation adds instructions of a group that a program of features may have.
func (g *generator) operation() {
	switch g.IntN(6) {
	case 0:
		g.pair()
	case 1:
		g.images()
	case 2:
		g.quantize()
	case 3:
		g.transpose()
	case 4:
		g.gather()
	case 5:
		g.packed()
	}
}

// spoiled adds instructions of a group, with bytes by chance in the last few: what
// goes wrong first is the order of §5.7.
func (g *generator) spoiled() {
	first := len(g.words)
	if g.IntN(4) == 0 {
		g.product()
	} else {
		g.operation()
	}
	first = max(first, len(g.words)-5)
	for range 1 + g.IntN(4) {
		w := &g.words[first+g.IntN(len(g.words)-first)]
		at := 4 + g.IntN(isa.Size-4)
		if g.IntN(5) == 0 {
			at = 1
		}
		switch g.IntN(3) {
		case 0:
			w[at] = 0
		case 1:
			w[at] ^= 1 << g.IntN(8)
		case 2:
			w[at] = byte(g.Uint32()) >> g.IntN(8)
		}
	}
}

// real returns the encoding of an fp32 that is mostly of middle size and above 0.
func (g *generator) real() uint32 {
	if g.IntN(10) == 0 {
		return 1 + uint32(g.IntN(0x7f800000-1))
	}
	return math.Float32bits(float32(math.Ldexp(1+g.Float64(), g.IntN(9)-6)))
}

// zero returns a zero point of t.
func (g *generator) zero(t systolic.Type) int16 {
	if t.Float() || g.IntN(3) == 0 {
		return 0
	}
	lo, hi := t.Range()
	lo, hi = max(lo, math.MinInt16), min(hi, math.MaxInt16)
	return int16(lo + int32(g.IntN(int(hi-lo)+1)))
}

// weightZero returns a zero point of weights of t.
func (g *generator) weightZero(t systolic.Type) int16 {
	if t == systolic.Int4 {
		t = systolic.Int8
	}
	return g.zero(t)
}

// loadPart copies a part of binding 0 to a place that it returns.
func (g *generator) loadPart(from uint64) uint32 {
	at := g.address(g.spad-part, 4)
	g.unit(isa.Load{Offset: from, Local: at, NX: part, NY: 1, NZ: 1})
	return at
}

// pair adds SCALES and ADDQ.
func (g *generator) pair() {
	t := pick(g, integers...)
	s := isa.Scales{
		Rounding: isa.Rounding(g.IntN(3)), XZero: g.zero(t), YZero: g.zero(t), Zero: g.zero(t), Lo: g.zero(t), Hi: g.zero(t),
		XScale: g.real(), YScale: g.real(), Scale: g.real(),
	}
	if g.IntN(2) == 0 {
		lo, hi := t.Range()
		s.Lo, s.Hi = int16(lo), int16(hi)
	}
	s.Lo, s.Hi = min(s.Lo, s.Hi), max(s.Lo, s.Hi)
	if s.Rounding == isa.FloatScale {
		if g.IntN(3) == 0 {
			s.Scale |= 1 << 31
		}
	} else {
		s.Left = uint8(g.IntN(32))
		s.XScale, s.YScale, s.Scale = g.Uint32()>>1, g.Uint32()>>1, g.Uint32()>>1
		shift := func() uint8 { // near those that keep values in range, or any
			if g.IntN(2) == 0 {
				return uint8(28 + g.IntN(12))
			}
			return uint8(1 + g.IntN(62))
		}
		s.XShift, s.YShift, s.SShift = shift(), shift(), shift()
	}
	g.unit(s)
	for range 1 + g.IntN(3) {
		e := g.element()
		if g.IntN(20) == 0 {
			t = pick(g, integers...)
		}
		g.unit(isa.Addq{
			One: e.One, Op: isa.AddqOp(g.IntN(3)), Type: t, X: e.X, Y: e.Y, Out: e.Out, M: e.M, N: e.N,
			XStride: e.XStride, YStride: e.YStride, OutStride: e.OutStride,
		})
	}
}

// images adds IMAGE and POOL or RESIZE.
func (g *generator) images() {
	e := g.element()
	n := uint16(1 + g.IntN(6))
	i := isa.Image{
		XAcc: e.XAcc, OutAcc: e.OutAcc, NoSaturate: e.NoSaturate, Type: e.Type, OutType: e.OutType, Zero: g.zero(e.Type),
		InH: uint16(1 + g.IntN(6)), InW: uint16(1 + g.IntN(6)), OutH: uint16(1 + g.IntN(5)), OutW: uint16(1 + g.IntN(5)),
		XTop: uint16(g.IntN(4)), OutTop: uint16(g.IntN(6)),
	}
	resize := g.IntN(2) == 0
	mode := isa.ResizeMode(g.IntN(6))
	if resize && mode == isa.ResizeFixed && i.Type.Float() && g.IntN(8) > 0 {
		i.Type, i.Zero = systolic.Int32, 0
	}
	pixel := func(t systolic.Type) uint16 { return uint16(t.Bytes(uint64(n))) + uint16(t.Bytes(uint64(g.IntN(3)))) }
	line := func(t systolic.Type, pixel, width uint16) uint32 {
		return uint32(pixel)*uint32(width) + uint32(t.Bytes(uint64(g.IntN(3))))
	}
	i.XPixel, i.OutPixel = pixel(i.Type), pixel(i.OutType)
	i.XLine, i.OutLine = line(i.Type, i.XPixel, i.InW), line(i.OutType, i.OutPixel, i.OutW)
	g.unit(i)
	half := uint32(g.acc / 2)
	x, out := g.address(int(half), 4), half+g.address(int(half), 4)
	switch g.IntN(8) {
	case 0, 1:
		x, out = out, x
	case 2:
		x = out + g.address(60, 4)
	}
	if resize {
		r := isa.Resize{Half: g.IntN(2) == 0, Center: g.IntN(2) == 0, Mode: mode, N: n, X: x, Out: out}
		if mode == isa.ResizeFixed {
			r.MulY, r.MulX = uint32(1+g.IntN(4096)), uint32(1+g.IntN(4096))
		} else {
			for _, f := range []*uint32{&r.MulY, &r.DivY, &r.MulX, &r.DivX} {
				if g.IntN(3) > 0 {
					*f = g.real()
				}
			}
		}
		g.unit(r)
		return
	}
	p := isa.Pool{
		Op: isa.PoolOp(g.IntN(4)), N: n, X: x, Out: out, KernelH: uint16(1 + g.IntN(6)), KernelW: uint16(1 + g.IntN(6)),
		StepY: uint8(1 + g.IntN(3)), StepX: uint8(1 + g.IntN(3)), DilationY: uint8(1 + g.IntN(3)), DilationX: uint8(1 + g.IntN(3)),
		PadTop: uint16(g.IntN(4)), PadLeft: uint16(g.IntN(4)),
	}
	if p.CountPad = p.Op >= isa.PoolSum && g.IntN(2) == 0; p.CountPad {
		p.PadBottom, p.PadRight = uint16(g.IntN(4)), uint16(g.IntN(4))
	}
	g.unit(p)
}

// quantize adds QUANTIZE and its table.
func (g *generator) quantize() {
	e := g.element()
	all := append(append([]systolic.Type{systolic.Int32, systolic.Int4}, integers...), floats...)
	op := isa.QuantizeOp(g.IntN(7))
	i := isa.Quantize{
		XAcc: e.XAcc, OutAcc: e.OutAcc, Op: op, Type: pick(g, all...), OutType: pick(g, all...),
		X: e.X, Out: e.Out, Params: g.address(g.spad/2, 4), M: e.M, N: e.N, XStride: e.XStride, OutStride: e.OutStride,
	}
	if op >= isa.RequantOne || op == isa.Dequantize {
		i.Type = pick(g, all[:5]...)
	}
	if op == isa.ConvertTrunc {
		i.Type = pick(g, floats...)
	}
	if op != isa.ConvertNear {
		i.OutType = pick(g, all[:5]...)
	}
	if op == isa.Dequantize {
		i.OutType = pick(g, floats...)
	}
	fit := func(acc bool, t systolic.Type) systolic.Type {
		switch {
		case acc && t.Float():
			return systolic.FP32
		case acc:
			return systolic.Int32
		}
		return t
	}
	i.Type, i.OutType = fit(i.XAcc, i.Type), fit(i.OutAcc, i.OutType)
	if op == isa.ConvertNear || op == isa.ConvertTrunc {
		i.Params, i.NoSaturate = 0, e.NoSaturate
	} else {
		i.PerChannel, i.NoSaturate = g.IntN(3) == 0, e.NoSaturate && i.OutType.Float()
		g.entries(&i)
	}
	g.unit(i)
}

// entries stores a table that is mostly valid.
func (g *generator) entries(i *isa.Quantize) {
	rows := uint32(1)
	if i.PerChannel {
		rows = uint32(i.N)
	}
	fill := func(at uint32, v byte) {
		g.unit(isa.Fill{Value: v, Local: i.Params + at, NX: 1, NY: rows, Stride: 8})
	}
	t := i.OutType
	if i.Op == isa.Dequantize {
		t = i.Type
	}
	if g.IntN(20) == 0 {
		t = systolic.Int16
	}
	zero := uint32(g.zero(t))
	if i.Op == isa.RequantOne || i.Op == isa.RequantTwo {
		fill(3, byte(g.IntN(128)))
		fill(4, byte(1+g.IntN(62)))
	} else {
		scale := g.real()
		if g.IntN(2) == 0 {
			fill(0, byte(scale))
		}
		fill(2, byte(scale>>16))
		fill(3, byte(scale>>24))
		fill(4, 0)
	}
	fill(5, 0)
	at := uint32(6)
	if i.Op <= isa.Dequantize {
		at = 4
	}
	for ; at < 8; at++ {
		fill(at, byte(zero))
		zero = uint32(int32(zero) >> 8)
	}
}

// transpose adds SHAPE and TRANSPOSE.
func (g *generator) transpose() {
	s, t := isa.Shape{}, isa.Transpose{Size: uint16(1 + g.IntN(9))}
	for d := range isa.Dims {
		s.N[d] = uint16(1 + g.IntN(5))
		s.OutStride[d], t.XStride[d] = uint32(g.IntN(60)), uint32(g.IntN(60))
	}
	g.unit(s)
	t.X, t.Out = g.address(g.spad/2, 1), uint32(g.spad/2)+g.address(g.spad/2, 1)
	switch g.IntN(8) {
	case 0, 1:
		t.X, t.Out = t.Out, t.X
	case 2:
		t.X = t.Out + g.address(60, 1)
	}
	g.unit(t)
}

// gather adds GATHER or SCATTER and its indices.
func (g *generator) gather() {
	i := isa.Gather{
		FromEnd: g.IntN(2) == 0, N: uint16(1 + g.IntN(30)), X: g.address(g.spad/2, 1), Out: uint32(g.spad/2) + g.address(g.spad/2, 1),
		M: uint32(1 + g.IntN(12)), Rows: uint32(4 + g.IntN(5)),
	}
	if g.IntN(20) == 0 {
		i.X = i.Out + g.address(60, 1)
	}
	i.Stride, i.TableStride = i.N+uint16(g.IntN(4)), uint32(i.N)+uint32(g.IntN(9))
	if g.IntN(5) == 0 {
		i.TableStride = uint32(g.IntN(9))
	}
	from := uint64(g.indices())
	if i.FromEnd || g.IntN(20) == 0 {
		from = uint64(g.signed())
	}
	i.Indices = g.loadPart(from) + uint32(4*g.IntN(40))
	if g.IntN(2) == 0 {
		g.unit(i)
	} else {
		g.unit(isa.Scatter(i))
	}
}

// packed adds BLOCKS and SPARSE, and GEMM or CONV with them.
func (g *generator) packed() {
	o := isa.Operands{A: pick(g, integers...), B: pick(g, systolic.Int8, systolic.Int4, systolic.Uint8), OutputStationary: g.IntN(2) == 0}
	if g.IntN(2) == 0 {
		o.A, o.B = pick(g, floats...), pick(g, floats...)
	}
	o.AZero, o.BZero = g.zero(o.A), g.weightZero(o.B)
	if !o.B.Float() && g.IntN(4) == 0 {
		o.PerChannel, o.BZero, o.BZeros = true, 0, g.address(g.spad-64, 1)
	}
	o.TransposeA, o.TransposeB = g.IntN(3) == 0, g.IntN(2) == 0
	sparse, conv := g.IntN(2) == 0, g.IntN(3) == 0
	m, n, k := 1+g.IntN(8), 1+g.IntN(12), 1+g.IntN(80)
	w := isa.Window{
		KernelH: uint8(1 + g.IntN(3)), KernelW: uint8(1 + g.IntN(3)), StepY: 1, StepX: uint8(1 + g.IntN(2)),
		DilationY: uint8(1 + g.IntN(2)), DilationX: 1, Groups: uint16(1 + g.IntN(2)), PadTop: uint16(g.IntN(3)), PadLeft: uint16(g.IntN(3)),
	}
	depth := 1 + g.IntN(6) // channels of a group
	if sparse && g.IntN(12) > 0 {
		k, depth = (k+3)&^3, 4*(1+g.IntN(2))
	}
	if conv {
		o.TransposeA = false
		n += n % int(w.Groups)
		k = int(w.KernelH) * int(w.KernelW) * depth
	}
	var b isa.Blocks
	if (!sparse || g.IntN(2) == 0) && (!conv || g.IntN(12) == 0) {
		b = g.blocks(k)
		if sparse && g.IntN(8) > 0 {
			b.B, b.BScales, b.BScaleStride = num.NotMX, 0, 0
		}
		if b.A != num.NotMX {
			o.A, o.AZero, o.TransposeA = systolic.E4M3, 0, o.TransposeA && g.IntN(12) == 0
		}
		if b.B != num.NotMX {
			o.B, o.TransposeB = systolic.E4M3, g.IntN(12) > 0
		}
		switch {
		case o.A.Float() && !o.B.Float():
			o.B = pick(g, floats...)
		case o.B.Float() && !o.A.Float():
			o.A, o.AZero = pick(g, floats...), 0
		}
		if o.B.Float() {
			o.PerChannel, o.BZero, o.BZeros = false, 0, 0
		}
		g.unit(b)
	}
	kept := k
	if sparse {
		g.sparsity(k, n, o.TransposeB)
		kept = k / 2
	}
	stride := func(f num.MX, t systolic.Type, n int) uint32 {
		row := t.Bytes(uint64(n))
		if f != num.NotMX {
			row = f.Bytes(uint64(n))
		}
		return uint32(row) + uint32(t.Bytes(1))*uint32(g.IntN(3))
	}
	ac, bc := k, n
	if o.TransposeA {
		ac = m
	}
	if conv {
		ac = depth * int(w.Groups)
	}
	if o.TransposeB {
		bc = kept
	}
	o.AStride, o.BStride, o.AccStride = stride(b.A, o.A, ac), stride(b.B, o.B, bc), uint32(4*(n+g.IntN(3)))
	g.unit(o)
	accumulate, x, y, acc := g.IntN(2) == 0, g.address(g.spad/2, 4), g.address(g.spad/2, 4), g.address(g.acc/4, 4)
	if conv {
		g.unit(w)
		h, wd := 1+g.IntN(4), 1+g.IntN(4)
		g.unit(isa.Conv{
			Accumulate: accumulate, InH: uint16(h), InW: uint16(wd), OutH: uint16(1 + g.IntN(4)), OutW: uint16(1 + g.IntN(3)), Cin: uint16(ac), Cout: uint16(n),
			A: x, B: y, Acc: acc, Line: uint32(wd) * o.AStride,
		})
	} else {
		g.unit(isa.Gemm{Accumulate: accumulate, M: uint32(m), N: uint32(n), K: uint32(k), A: x, B: y, Acc: acc})
	}
	if g.IntN(10) > 0 {
		g.unit(isa.Sparse{})
		g.unit(isa.Blocks{})
	}
}

// blocks returns a BLOCKS for sums of k products, whose scales are there.
func (g *generator) blocks(k int) isa.Blocks {
	b := isa.Blocks{A: num.MX(g.IntN(7)), B: num.MX(g.IntN(7))}
	scales := func() (at, stride uint32) {
		at = g.address(g.spad-64, 1)
		if g.IntN(3) > 0 { // of middle size
			g.unit(isa.Fill{Value: byte(120 + g.IntN(14)), Local: at, NX: 1, NY: uint32(1 + g.IntN(40)), Stride: 1})
		}
		return at, uint32(k+31)/32 + uint32(g.IntN(3))
	}
	if b.A != num.NotMX {
		b.AScales, b.AScaleStride = scales()
	}
	if b.B != num.NotMX {
		b.BScales, b.BScaleStride = scales()
	}
	return b
}

// sparsity adds a SPARSE for sums of k products and n columns.
func (g *generator) sparsity(k, n int, transposed bool) {
	row := (n + 1) / 2
	if transposed {
		row = (k/4 + 1) / 2
	}
	at := g.loadPart(uint64(g.places()))
	if g.IntN(30) == 0 {
		at = g.address(g.spad, 1)
	}
	g.unit(isa.Sparse{On: true, Indices: at, IndexStride: uint32(row + g.IntN(3))})
}
