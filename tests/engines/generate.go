// SPDX-License-Identifier: Apache-2.0

// Package engines runs random programs on the device's core and on the reference in
// tests/engines/ref, which was made from the specification alone.
package engines

import (
	"encoding/binary"
	"math"
	"math/rand/v2"

	"npuemu/core"
	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// shape is a core, and what its programs use of local memory. A program has three bindings: two to read, of which the second is
// also written, and one to write.
type shape struct {
	core      core.Config
	spad, acc int
	times     int // products are larger by up to so much
}

// shapes are the cores: a small one, where instructions meet the same bytes, and one whose products have several tiles of every
// kernel.
var shapes = []shape{
	{core: core.Config{Rows: 16, Cols: 24, SpadSize: 8192, AccSize: 4096, ISAMinor: 3, Features: features}, spad: 6144, acc: 4096, times: 1},
	{core: core.Config{Rows: 64, Cols: 96, SpadSize: 128 << 10, AccSize: 64 << 10, ISAMinor: 3, Features: features}, spad: 96 << 10, acc: 48 << 10, times: 6},
}

// shapeOf returns that of p.
func shapeOf(p *isa.Program) (index int) {
	for i, s := range shapes {
		if s.core.Rows == int(p.Rows) {
			return i
		}
	}
	return 0
}

// features are the groups that the reference knows.
const features = isa.Features

// memory returns what bindings hold at the start, by seed.
func (s shape) memory(seed uint64) [3][]byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	var b [3][]byte
	for n, size := range []int{s.signed() + part, s.acc + 512, s.spad + s.acc} {
		b[n] = make([]byte, size)
		for at := 0; at+4 <= size; at += 4 {
			v := rng.Uint32()
			switch rng.IntN(8) {
			case 0, 1, 2: // a number of middle size, as fp32
				v = v&0x807fffff | (120+v>>24&15)<<23
			case 3: // a scale and a shift of REQUANT stand next to each other
				v &= math.MaxInt32
			case 4:
				v = 1 + v%62
			case 5:
				v &= 0x7f7f7f7f
			}
			b[n][at], b[n][at+1], b[n][at+2], b[n][at+3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
		}
	}
	for n := range part {
		list := []byte{4, 8, 12, 9, 13, 14} // pairs of places, the first in bits 1:0
		b[0][s.places()+n] = list[rng.IntN(6)] | list[rng.IntN(6)]<<4
	}
	for n := 0; n < part; n += 4 {
		binary.LittleEndian.PutUint32(b[0][s.indices()+n:], uint32(rng.IntN(4)))
		binary.LittleEndian.PutUint32(b[0][s.signed()+n:], uint32(rng.IntN(7)-3))
	}
	return b
}

// generator makes one program.
type generator struct {
	*rand.Rand
	shape
	limits isa.Limits
	words  []isa.Word
	last   int   // index of the instruction whose token the next one waits for; −1: none
	token  uint8 // the last that was used
	depth  int
	wild   bool // tokens by chance
}

// generate returns a program. Most are valid, and tokens order all engines; some
// have tokens by chance, some a rule that is broken.
func generate(seed uint64) *isa.Program {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 2)), shape: shapes[0], last: -1}
	if seed/4%8 == 7 {
		g.shape = shapes[1]
	}
	d := isa.Descriptor{
		Minor: 3, Rows: uint16(g.core.Rows), Cols: uint16(g.core.Cols), SpadSize: uint32(g.spad), AccSize: uint32(g.acc), Bindings: 3, Features: features,
	}
	if g.IntN(15) == 0 { // fewer groups, sometimes more than the version has
		d.Minor = uint16(g.IntN(4))
		d.Features &= g.Uint64()
		if g.IntN(4) > 0 {
			d.Features &= isa.FeaturesOf(d.Minor)
		}
	}
	g.limits = d.Limits()
	g.wild = g.IntN(12) == 0
	loaded := isa.Load{NX: uint32(g.spad), NY: 1, NZ: 1}
	if g.IntN(8) == 0 { // the rest is zero
		loaded.Local = uint32(g.IntN(g.spad / 2))
		loaded.Offset, loaded.NX = uint64(loaded.Local), uint32(1+g.IntN(g.spad/2))
	}
	g.unit(loaded)
	if g.IntN(8) > 0 {
		g.unit(isa.Load{Acc: true, Binding: 1, NX: uint32(g.acc), NY: 1, NZ: 1})
	}
	broken := g.IntN(10) == 0
	if broken && g.IntN(2) == 0 {
		g.spoiled()
	} else {
		g.block(3 + g.IntN(25))
	}
	if g.IntN(6) == 0 { // a byte by chance
		g.words[g.IntN(len(g.words))][g.IntN(isa.Size)] = byte(g.Uint32()) >> g.IntN(8)
	}
	g.unit(isa.Store{Binding: 2, NX: uint32(g.spad), NY: 1, NZ: 1})
	g.unit(isa.Store{Acc: true, Binding: 2, Offset: uint64(g.spad), NX: uint32(g.acc), NY: 1, NZ: 1})
	p := &isa.Program{Descriptor: d}
	for range 200 {
		p.Text = p.Text[:0]
		for _, w := range g.words {
			p.Text = append(p.Text, w[:]...)
		}
		p.Text = append(p.Text, isa.Text(isa.Halt{})...)
		v, at := p.Check()
		switch {
		case v == nil:
			return p
		case v.Rule == isa.OverBudget: // seconds for each; core's tests have some
			g.shorten()
		case broken || at >= len(g.words):
			return p
		default:
			g.repair(at)
		}
	}
	return p
}

// shorten makes all loops short.
func (g *generator) shorten() {
	for n := range g.words {
		if g.words[n][0] == byte(isa.OpLoop) {
			g.words[n] = isa.Loop{Reg: g.words[n][4] % isa.Registers, Count: 1}.Encode()
		}
	}
}

// repair makes the instruction at index at one that breaks no rule.
func (g *generator) repair(at int) {
	w := &g.words[at]
	if at > 0 && g.words[at-1][0] == byte(isa.OpWith) && w[0]>>4 != 0 {
		if x := isa.DecodeWith(&g.words[at-1]); x.Terms != [4]isa.Term{} {
			x.Terms = [4]isa.Term{}
			g.words[at-1] = x.Encode()
			return
		}
	}
	class := isa.Opcode(w[0]).Class()
	if class < isa.ClassLoad || class > isa.ClassVector {
		*w = isa.Sync{Engine: isa.ClassLoad}.Encode()
		return
	}
	*w = isa.Word{byte(class)<<4 | 15, 0, w[2], w[3]}
}

// block adds n things.
func (g *generator) block(n int) {
	for range n {
		switch k := g.IntN(30); {
		case k < 2 && g.depth < 3:
			g.loop()
		case k == 2:
			g.scalar()
		case k < 6:
			g.product()
		case k < 13:
			g.operation()
		default:
			g.unit(g.instruction())
		}
	}
}

// loop adds a LOOP. The token of its depth comes before the body, behind each
// iteration, and before what follows.
func (g *generator) loop() {
	g.unit(isa.Sync{Engine: isa.Class(1 + g.IntN(4))})
	token := uint8(12 + g.depth)
	if !g.wild {
		g.words[g.last][3] = 1<<4 | token
	}
	l := isa.Loop{Reg: uint8(g.depth), Count: uint32(1 + g.IntN(4)), Start: int32(g.IntN(5) - 2), Step: int32(g.IntN(4) - 1)}
	if g.IntN(5) == 0 {
		l.ByRegister, l.Count, l.CountReg = true, 0, uint8(4+g.IntN(2))
	}
	g.words = append(g.words, l.Encode())
	g.depth++
	first := g.first()
	if !g.wild {
		g.words[first][2] = 1<<4 | token
	}
	g.block(1 + g.IntN(4))
	if !g.wild {
		g.words[g.last][3] = 1<<4 | token
	}
	g.depth--
	g.words = append(g.words, isa.End{}.Encode())
	first = g.first()
	if !g.wild {
		g.words[first][2] = 1<<4 | token
	}
}

// first adds a SYNC that the caller lets wait, and returns its index.
func (g *generator) first() int {
	g.last = -1
	g.unit(isa.Sync{Engine: isa.Class(1 + g.IntN(4))})
	return g.last
}

// scalar adds a SCALAR on registers 4 to 7, which loops do not have; 4 and 5, which
// may be counts, stay small.
func (g *generator) scalar() {
	if g.IntN(3) == 0 {
		g.words = append(g.words, isa.Scalar{Immediate: true, RD: uint8(4 + g.IntN(2)), Imm: int32(g.IntN(7) - 2)}.Encode())
		return
	}
	i := isa.Scalar{Immediate: g.IntN(2) == 0, Op: isa.ScalarOp(g.IntN(int(isa.LessEqual) + 1)), RD: uint8(6 + g.IntN(2)), RA: uint8(g.IntN(8)), RB: uint8(g.IntN(8))}
	if i.Op == isa.Move {
		i.RA = 0
	}
	if i.Immediate {
		i.RB, i.Imm = 0, int32(g.IntN(9)-3)
		if g.IntN(4) == 0 {
			i.Imm = int32(g.Uint32())
		}
	}
	g.words = append(g.words, i.Encode())
}

// unit adds an instruction, sometimes with a WITH, behind all others by a token if
// its engine is another.
func (g *generator) unit(i isa.Instruction) {
	w := i.Encode()
	engine := isa.Opcode(w[0]).Class()
	entry := len(g.words)
	switch {
	case g.depth > 0 && g.IntN(3) == 0 || g.IntN(20) == 0: // fields that move
		with := isa.With{}
		for t := range 1 + g.IntN(2) {
			fields := [...]uint8{8, 12, 16, 4, 6, 20, 24}
			with.Terms[t] = isa.Term{Field: fields[g.IntN(3+g.IntN(5))], Reg: uint8(g.IntN(8)), Times: int32(4 * (g.IntN(17) - 4))}
		}
		g.words = append(g.words, with.Encode(), w)
		entry++
	case g.IntN(20) == 0: // and with a condition: what holds it back is a SYNC
		with := isa.With{Condition: isa.Condition(1 + g.IntN(2)), Reg: uint8(g.IntN(8))}
		sync := isa.Sync{Engine: engine}.Encode()
		g.words = append(g.words, sync, with.Encode(), w, sync)
	default:
		g.words = append(g.words, w)
	}
	exit := len(g.words) - 1
	if g.wild {
		for _, b := range []int{2, 3} {
			if g.IntN(3) == 0 {
				g.words[exit][b] = byte(1+g.IntN(5)/4)<<4 | byte(g.IntN(3))
			}
		}
	} else if g.last >= 0 {
		if isa.Opcode(g.words[g.last][0]).Class() != engine || g.IntN(10) == 0 {
			g.token = (g.token + 1) % 12
			n := byte(1)
			if g.IntN(4) == 0 {
				n += byte(g.IntN(15))
			}
			g.words[g.last][3], g.words[entry][2] = n<<4|g.token, n<<4|g.token
		}
	}
	g.last = exit
}

// address returns one in a memory of size bytes, a multiple of align.
func (g *generator) address(size, align int) uint32 { return uint32(g.IntN(size) / align * align) }

// Types of operands.
var (
	integers = []systolic.Type{systolic.Int8, systolic.Uint8, systolic.Int16}
	floats   = []systolic.Type{systolic.FP32, systolic.BF16, systolic.FP16, systolic.E4M3, systolic.E5M2}
)

func pick[T any](g *generator, list ...T) T { return list[g.IntN(len(list))] }

// product adds OPERANDS, sometimes WINDOW, and a GEMM or CONV that they fit.
func (g *generator) product() {
	o := isa.Operands{A: pick(g, integers...), B: pick(g, systolic.Int8, systolic.Int4, systolic.Uint8)}
	if g.IntN(2) == 0 {
		o.A, o.B = pick(g, floats...), pick(g, floats...)
	} else {
		if g.IntN(2) == 0 {
			o.AZero, o.BZero = g.zero(o.A), g.weightZero(o.B)
		}
		if g.IntN(4) == 0 {
			o.PerChannel, o.BZero, o.BZeros = true, 0, g.address(g.spad-64, 1)
		}
	}
	o.TransposeA, o.TransposeB, o.OutputStationary = g.IntN(3) == 0, g.IntN(3) == 0, g.IntN(2) == 0
	stride := func(t systolic.Type, n int) uint32 {
		return uint32(t.Bytes(uint64(n))) + uint32(g.IntN(5))*uint32(t.Bytes(1))
	}
	if g.IntN(2) == 0 {
		times := 1 + g.IntN(g.times)
		m, n, k := 1+g.IntN(12*times), 1+g.IntN(20*times), 1+g.IntN(30*times)
		ac, bc := k, n
		if o.TransposeA {
			ac = m
		}
		if o.TransposeB {
			bc = k
		}
		o.AStride, o.BStride, o.AccStride = stride(o.A, ac), stride(o.B, bc), uint32(4*(n+g.IntN(4)))
		g.unit(o)
		for range 1 + g.IntN(2) {
			g.unit(isa.Gemm{
				Accumulate: g.IntN(2) == 0, M: uint32(m), N: uint32(n), K: uint32(k),
				A: g.address(g.spad/2, 4), B: g.address(g.spad/2, 4), Acc: g.address(g.acc/2, 4),
			})
		}
		return
	}
	groups := pick(g, 1, 1, 2, 3)
	times := 1 + g.IntN(g.times)
	cin, cout := groups*(1+g.IntN(6*times)), groups*(1+g.IntN(8*times))
	if g.IntN(5) == 0 {
		groups = cin // depthwise
		cout = cin * (1 + g.IntN(2))
	}
	w := isa.Window{
		KernelH: uint8(1 + g.IntN(3)), KernelW: uint8(1 + g.IntN(3)), StepY: uint8(1 + g.IntN(2)), StepX: uint8(1 + g.IntN(2)),
		DilationY: uint8(1 + g.IntN(2)), DilationX: uint8(1 + g.IntN(2)), Groups: uint16(groups), PadTop: uint16(g.IntN(3)), PadLeft: uint16(g.IntN(3)),
	}
	o.TransposeA = false
	h, wd := 1+g.IntN(4+times), 1+g.IntN(4+times)
	bc := cout
	if o.TransposeB {
		bc = int(w.KernelH) * int(w.KernelW) * cin / groups
	}
	o.AStride, o.BStride, o.AccStride = stride(o.A, cin), stride(o.B, bc), uint32(4*(cout+g.IntN(3)))
	g.unit(o)
	g.unit(w)
	g.unit(isa.Conv{
		Accumulate: g.IntN(2) == 0, InH: uint16(h), InW: uint16(wd), OutH: uint16(1 + g.IntN(3+times)), OutW: uint16(1 + g.IntN(3+times)), Cin: uint16(cin), Cout: uint16(cout),
		A: g.address(g.spad/2, 4), B: g.address(g.spad/2, 4), Acc: g.address(g.acc/2, 4), Line: uint32(wd)*o.AStride + 4*uint32(g.IntN(3)),
	})
}

// instruction returns one that breaks no rule, if a few tries are enough.
func (g *generator) instruction() isa.Instruction {
	for range 30 {
		i := g.candidate()
		if i.Check(g.limits) == nil {
			return i
		}
	}
	return isa.Sync{Engine: isa.Class(1 + g.IntN(4))}
}

func (g *generator) candidate() isa.Instruction {
	switch g.IntN(16) {
	case 0, 1:
		i := isa.Load{
			Acc: g.IntN(3) == 0, Binding: uint8(g.IntN(2)), Offset: uint64(g.IntN(800)), Local: g.address(g.acc, 4), NX: uint32(4 * (1 + g.IntN(20))),
			NY: uint16(1 + g.IntN(4)), NZ: uint16(1 + g.IntN(3)), StrideY: uint32(g.IntN(120)), StrideZ: uint32(g.IntN(300)), LocalStride: uint16(4 * g.IntN(30)),
		}
		if g.IntN(2) == 0 {
			i.Binding = uint8(1 + g.IntN(2))
			return isa.Store(i)
		}
		return i
	case 2:
		return isa.Preload{K: uint16(1 + g.IntN(g.core.Rows)), N: uint16(1 + g.IntN(g.core.Cols)), Weights: g.address(g.spad, 1), Stride: uint32(g.IntN(60))}
	case 3, 4:
		return isa.Matmul{
			Accumulate: g.IntN(2) == 0, K: uint16(1 + g.IntN(g.core.Rows)), N: uint16(1 + g.IntN(g.core.Cols)), Ifmap: g.address(g.spad, 1), Acc: g.address(g.acc, 4),
			MX: uint16(1 + g.IntN(5)), MY: uint16(1 + g.IntN(4)), StrideX: uint16(g.IntN(40)), StrideY: uint32(g.IntN(100)), AccStride: uint16(4 * g.IntN(30)),
		}
	case 5:
		return isa.Fill{Acc: g.IntN(2) == 0, Value: uint8(g.Uint32()), Local: g.address(g.acc, 4), NX: uint32(4 * (1 + g.IntN(16))), NY: uint32(1 + g.IntN(4)), Stride: uint32(4 * g.IntN(30))}
	case 6:
		return isa.Bias{N: uint16(1 + g.IntN(20)), AccStride: uint16(4 * g.IntN(30)), Bias: g.address(g.spad, 4), Acc: g.address(g.acc, 4), M: uint32(1 + g.IntN(5))}
	case 7, 8:
		i := isa.Requant{
			PerChannel: g.IntN(6) == 0, N: uint16(1 + g.IntN(8)), AccStride: uint16(4 * g.IntN(20)), Acc: g.address(g.acc, 4), Out: g.address(g.spad, 1),
			Params: g.address(g.spad, 4), MX: uint16(1 + g.IntN(3)), MY: uint16(1 + g.IntN(3)), OutStrideX: uint16(g.IntN(12)), OutStrideY: uint16(g.IntN(50)),
			ZeroPoint: int8(g.Uint32()), Lo: -128, Hi: 127, Rounding: isa.Rounding(g.IntN(3)),
		}
		if g.IntN(2) == 0 {
			i.Lo, i.Hi = int8(g.Uint32()), int8(g.Uint32())
		}
		g.parameter(&i)
		return i
	case 9, 10, 11:
		e := g.element()
		e.Op = isa.ElementOp(g.IntN(47))
		if e.Op.Unary() {
			e.Y, e.YStride, e.YAcc, e.One = 0, 0, false, false
		}
		return e
	case 12:
		return isa.Table{X: g.address(g.spad, 1), Table: g.address(g.spad, 1), Out: g.address(g.spad, 1), M: uint32(1 + g.IntN(4)), N: uint16(1 + g.IntN(30)), XStride: uint16(g.IntN(40)), OutStride: uint16(g.IntN(60))}
	case 13:
		e := g.element()
		return isa.Reduce{
			XAcc: e.XAcc, OutAcc: e.OutAcc, NoSaturate: e.NoSaturate, Op: isa.ReduceOp(g.IntN(6)), Type: e.Type, OutType: e.OutType,
			X: e.X, Out: e.Out, M: e.M, N: e.N, XStride: e.XStride, OutStride: e.OutStride,
		}
	case 14:
		e := g.element()
		i := isa.Norm{
			XAcc: e.XAcc, OutAcc: e.OutAcc, NoSaturate: e.NoSaturate, Op: isa.NormOp(g.IntN(3)), Type: pick(g, floats...), OutType: pick(g, floats...),
			X: e.X, Out: e.Out, M: e.M, N: e.N, XStride: e.XStride, OutStride: e.OutStride, Params: g.address(g.spad, 4),
		}
		if i.XAcc {
			i.Type = systolic.FP32
		}
		if i.OutAcc {
			i.OutType = systolic.FP32
		}
		if i.Op == isa.Softmax {
			i.Params = 0
		}
		return i
	default:
		return isa.Stamp{Binding: uint8(1 + g.IntN(2)), Offset: uint64(g.IntN(4000)), ID: g.Uint32()}
	}
}

// parameter stores a table entry that is valid, as memory by chance seldom is.
func (g *generator) parameter(i *isa.Requant) {
	if g.IntN(20) == 0 {
		return
	}
	entries := 1
	if i.PerChannel {
		entries = int(i.N)
	}
	fill := func(at int, v byte) {
		g.unit(isa.Fill{Value: v, Local: i.Params + uint32(at), NX: 1, NY: uint32(entries), Stride: 8})
	}
	if int(i.Params)+8*entries > g.spad {
		return
	}
	if i.Rounding == isa.FloatScale {
		fill(0, byte(g.Uint32()))
		fill(1, byte(g.Uint32()))
		fill(2, byte(g.Uint32()))
		fill(3, byte(0x30+g.IntN(0x14)))
		fill(4, 0)
	} else {
		fill(3, byte(g.IntN(128)))
		fill(4, byte(1+g.IntN(62)))
	}
	for at := 5; at < 8; at++ {
		fill(at, 0)
	}
}

// element returns operands of ELEMENT that fit each other.
func (g *generator) element() isa.Element {
	e := isa.Element{
		XAcc: g.IntN(3) == 0, YAcc: g.IntN(3) == 0, OutAcc: g.IntN(3) == 0, NoSaturate: g.IntN(2) == 0, One: g.IntN(4) == 0,
		Type: pick(g, append(append(floats, integers...), systolic.Int32)...), OutType: pick(g, append(append(floats, integers...), systolic.Int32)...),
		M: uint32(1 + g.IntN(4)), N: uint16(1 + g.IntN(24)),
	}
	if e.XAcc || e.YAcc {
		e.Type = pick(g, systolic.Int32, systolic.FP32)
	}
	if e.OutAcc {
		e.OutType = pick(g, systolic.Int32, systolic.FP32)
	}
	e.X, e.Y, e.Out = g.address(g.acc, 4), g.address(g.acc, 4), g.address(g.acc, 4)
	e.XStride, e.YStride, e.OutStride = uint16(4*g.IntN(30)), uint16(4*g.IntN(30)), uint16(4*g.IntN(40))
	if e.One {
		e.YStride = 0
	}
	return e
}
