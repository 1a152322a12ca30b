// SPDX-License-Identifier: Apache-2.0

package isa

import "npuemu/core/systolic"

// Image says how POOL and RESIZE read and write (§5.6.22). X is the image that
// they read, Out the one that they make: lines of pixels of elements.
type Image struct {
	XAcc, OutAcc, NoSaturate bool
	Type, OutType            systolic.Type
	Zero                     int16 // what an element of padding is
	InH, InW, OutH, OutW     uint16
	XLine, OutLine           uint32 // bytes between lines
	XPixel, OutPixel         uint16 // bytes between pixels
	XTop, OutTop             uint16 // indexes of the first lines that are there
	Wait, Signal             Token
}

// Encode implements Instruction.
func (i Image) Encode() Word {
	w := encoder(OpImage, flagIf(i.XAcc, flagXAcc)|flagIf(i.OutAcc, flagOutAcc)|flagIf(i.NoSaturate, flagNoSaturate), i.Wait, i.Signal)
	w[4], w[5] = byte(i.Type), byte(i.OutType)
	for n, v := range []uint16{uint16(i.Zero), i.InH, i.InW, i.OutH, i.OutW} {
		w.put16(6+2*n, v)
	}
	w.put32(16, i.XLine)
	w.put32(20, i.OutLine)
	for n, v := range []uint16{i.XPixel, i.OutPixel, i.XTop, i.OutTop} {
		w.put16(24+2*n, v)
	}
	return w
}

// DecodeImage reads an IMAGE that passed CheckFormat.
func DecodeImage(w *Word) Image {
	i := Image{
		XAcc: w.flag(flagXAcc), OutAcc: w.flag(flagOutAcc), NoSaturate: w.flag(flagNoSaturate),
		Type: systolic.Type(w[4]), OutType: systolic.Type(w[5]), Zero: int16(w.uint16(6)),
		InH: w.uint16(8), InW: w.uint16(10), OutH: w.uint16(12), OutW: w.uint16(14),
		XLine: w.uint32(16), OutLine: w.uint32(20), XPixel: w.uint16(24), OutPixel: w.uint16(26),
		XTop: w.uint16(28), OutTop: w.uint16(30),
	}
	i.Wait, i.Signal = w.tokens()
	return i
}

// Check implements Instruction.
func (i Image) Check(Limits) *Violation {
	var c checker
	c.rowTypeAt(4, "type", i.Type, i.XAcc)
	c.rowTypeAt(5, "out_type", i.OutType, i.OutAcc)
	if c.v == nil {
		lo, hi := zeroRange(i.Type)
		if i.Type == systolic.Int32 {
			lo, hi = -1<<15, 1<<15-1
		}
		if i.Zero < lo || i.Zero > hi {
			c.fail(BadOperand, 6, "zero", "is %d; an element of padding is from %d to %d, and 0 of a floating-point type", i.Zero, lo, hi)
		}
	}
	for n, v := range []uint16{i.InH, i.InW, i.OutH, i.OutW} {
		c.atLeastOne(uint64(8+2*n), convFields[n], uint64(v))
	}
	size, outSize := i.Type.Bytes(1), i.OutType.Bytes(1)
	c.multiple(16, "x_line", uint64(i.XLine), size)
	c.multiple(20, "out_line", uint64(i.OutLine), outSize)
	c.multiple(24, "x_pixel", uint64(i.XPixel), size)
	c.multiple(26, "out_pixel", uint64(i.OutPixel), outSize)
	return c.v
}

// rowTypeAt checks the type of an operand or a result of the vector engine.
func (c *checker) rowTypeAt(off uint64, field string, t systolic.Type, acc bool) {
	named := t != systolic.Int4 && nameOf(elementTypes, uint8(t))[0] > '9'
	if c.v == nil && (!named || acc && t != systolic.Int32 && t != systolic.FP32) {
		c.fail(BadOperand, off, field, "is %s; there are int8, uint8, int16, int32, fp32, bf16, fp16, e4m3, e5m2, in the accumulators int32 and fp32",
			nameOf(elementTypes, uint8(t)))
	}
}

// XRows is where the n channels of the pixels that are read lie: a row is a pixel.
func (i *Image) XRows(x uint32, n uint16) Rows {
	return Rows{
		Base:  uint64(x),
		Outer: uint64(i.InH), OuterStride: uint64(i.XLine),
		Inner: uint64(i.InW), InnerStride: uint64(i.XPixel), Bytes: i.Type.Bytes(uint64(n)),
	}
}

// OutRows is XRows of the pixels that are made.
func (i *Image) OutRows(out uint32, n uint16) Rows {
	return Rows{
		Base:  uint64(out),
		Outer: uint64(i.OutH), OuterStride: uint64(i.OutLine),
		Inner: uint64(i.OutW), InnerStride: uint64(i.OutPixel), Bytes: i.OutType.Bytes(uint64(n)),
	}
}

// Offset of IMAGE's fields in the info of BAD_SETUP.
const setupImage = 2 * Size

// image checks the addresses of n channels in images that IMAGE describes, and
// its strides: x at byte 8 and out at byte 12.
func (c *checker) image(x, out uint32, n uint16, l Limits) {
	i := &l.Setup.Image
	c.atLeastOne(6, "n", uint64(n))
	c.multiple(8, "x", uint64(x), i.Type.Bytes(1))
	c.multiple(12, "out", uint64(out), i.OutType.Bytes(1))
}

// imageBounds is what image leaves: the rules that come after BAD_OPERAND.
func (c *checker) imageBounds(x, out uint32, n uint16, l Limits) {
	if c.v != nil {
		return
	}
	i := &l.Setup.Image
	from, to := i.XRows(x, n), i.OutRows(out, n)
	strides := func(r Rows, line, pixel uint64, lineField, pixelField string) {
		width := (r.Inner-1)*r.InnerStride + r.Bytes
		c.setup(setupImage+line, lineField, r.OuterStride, r.Outer > 1, width)
		c.setup(setupImage+pixel, pixelField, r.InnerStride, r.Inner > 1, r.Bytes)
	}
	strides(from, 16, 24, "x_line", "x_pixel")
	strides(to, 20, 26, "out_line", "out_pixel")
	c.local("x", i.XAcc, from, &l)
	c.local("out", i.OutAcc, to, &l)
	c.apart("out", i.XAcc, from, i.OutAcc, to)
}

// end is the address behind the last byte of r.
func (r Rows) end() uint64 {
	return r.Base + (r.Outer-1)*r.OuterStride + (r.Inner-1)*r.InnerStride + r.Bytes
}

// apart checks that what is read and what is stored have no byte between their
// first and their last in common.
func (c *checker) apart(field string, xAcc bool, x Rows, outAcc bool, out Rows) {
	if c.v == nil && xAcc == outAcc && x.Base < out.end() && out.Base < x.end() {
		first := max(x.Base, out.Base)
		c.fail(Overlap, first, field, "and what the instruction reads share address %#x; use another place", first)
	}
}

// PoolOp is an operation of Pool (§5.6.23).
type PoolOp uint8

// The operations of §5.6.23.
const (
	PoolMax     PoolOp = 0
	PoolMin     PoolOp = 1
	PoolSum     PoolOp = 2
	PoolAverage PoolOp = 3
)

var poolOps = []choice{{"max", uint8(PoolMax)}, {"min", uint8(PoolMin)}, {"sum", uint8(PoolSum)}, {"average", uint8(PoolAverage)}}

// MaxWindow is how many pixels a window of POOL may have: their number is exact in fp32.
const MaxWindow = 1 << 24

// Pool makes a pixel of every window of pixels (§5.6.23).
type Pool struct {
	CountPad             bool // padding counts in sums and averages
	Op                   PoolOp
	N                    uint16 // channels
	X, Out               uint32 // local byte addresses
	KernelH, KernelW     uint16
	StepY, StepX         uint8
	DilationY, DilationX uint8
	PadTop, PadLeft      uint16
	PadBottom, PadRight  uint16 // of CountPad
	Wait, Signal         Token
}

// Encode implements Instruction.
func (i Pool) Encode() Word {
	w := encoder(OpPool, flagIf(i.CountPad, flagCountPad), i.Wait, i.Signal)
	w[4] = byte(i.Op)
	w.put16(6, i.N)
	w.put32(8, i.X)
	w.put32(12, i.Out)
	w.put16(16, i.KernelH)
	w.put16(18, i.KernelW)
	copy(w[20:], []byte{i.StepY, i.StepX, i.DilationY, i.DilationX})
	for n, v := range []uint16{i.PadTop, i.PadLeft, i.PadBottom, i.PadRight} {
		w.put16(24+2*n, v)
	}
	return w
}

// DecodePool reads a POOL that passed CheckFormat.
func DecodePool(w *Word) Pool {
	i := Pool{
		CountPad: w.flag(flagCountPad), Op: PoolOp(w[4]), N: w.uint16(6), X: w.uint32(8), Out: w.uint32(12),
		KernelH: w.uint16(16), KernelW: w.uint16(18), StepY: w[20], StepX: w[21], DilationY: w[22], DilationX: w[23],
		PadTop: w.uint16(24), PadLeft: w.uint16(26), PadBottom: w.uint16(28), PadRight: w.uint16(30),
	}
	i.Wait, i.Signal = w.tokens()
	return i
}

// Check implements Instruction.
func (i Pool) Check(l Limits) *Violation {
	var c checker
	if i.CountPad && i.Op != PoolSum && i.Op != PoolAverage {
		c.fail(BadOperand, 1, "count_pad", "is set; padding counts in sums and averages only")
	}
	if c.v == nil && i.Op > PoolAverage {
		c.fail(BadOperand, 4, "op", "is %d; operations are 0 to %d", i.Op, PoolAverage)
	}
	c.image(i.X, i.Out, i.N, l)
	c.atLeastOne(16, "kernel_h", uint64(i.KernelH))
	c.atLeastOne(18, "kernel_w", uint64(i.KernelW))
	if window := uint64(i.KernelH) * uint64(i.KernelW); c.v == nil && window > MaxWindow {
		c.fail(BadOperand, 18, "kernel_w", "makes windows of %d pixels; the most are %d", window, MaxWindow)
	}
	for n, v := range []uint8{i.StepY, i.StepX, i.DilationY, i.DilationX} {
		c.atLeastOne(uint64(20+n), windowFields[2+n], uint64(v))
	}
	for n, v := range []uint16{i.PadBottom, i.PadRight} {
		if c.v == nil && v != 0 && !i.CountPad {
			c.fail(BadOperand, uint64(28+2*n), [...]string{"pad_bottom", "pad_right"}[n], "is %d; without count_pad it must be 0", v)
		}
	}
	c.imageBounds(i.X, i.Out, i.N, l)
	return c.v
}

// ResizeMode is how Resize makes a pixel (§5.6.24).
type ResizeMode uint8

// The modes of §5.6.24.
const (
	ResizeFloor     ResizeMode = 0
	ResizeCeil      ResizeMode = 1
	ResizeRoundDown ResizeMode = 2 // to nearest, ties down
	ResizeRoundUp   ResizeMode = 3 // to nearest, ties up
	ResizeLinear    ResizeMode = 4
	ResizeFixed     ResizeMode = 5 // linear, of integers, as TFLite
)

var resizeModes = []choice{
	{"floor", uint8(ResizeFloor)}, {"ceil", uint8(ResizeCeil)}, {"round_down", uint8(ResizeRoundDown)}, {"round_up", uint8(ResizeRoundUp)},
	{"linear", uint8(ResizeLinear)}, {"fixed", uint8(ResizeFixed)},
}

// Resize makes an image of another size (§5.6.24).
type Resize struct {
	Half, Center           bool // add ½ before scaling, subtract ½ behind it
	Mode                   ResizeMode
	N                      uint16 // channels
	X, Out                 uint32 // local byte addresses
	MulY, DivY, MulX, DivX uint32 // encodings of fp32 above 0, or 0 for none; of ResizeFixed MulY and MulX are in 2⁻¹⁰
	Wait, Signal           Token
}

// Encode implements Instruction.
func (i Resize) Encode() Word {
	w := encoder(OpResize, flagIf(i.Half, flagHalf)|flagIf(i.Center, flagCenter), i.Wait, i.Signal)
	w[4] = byte(i.Mode)
	w.put16(6, i.N)
	for n, v := range []uint32{i.X, i.Out, i.MulY, i.DivY, i.MulX, i.DivX} {
		w.put32(8+4*n, v)
	}
	return w
}

// DecodeResize reads a RESIZE that passed CheckFormat.
func DecodeResize(w *Word) Resize {
	i := Resize{
		Half: w.flag(flagHalf), Center: w.flag(flagCenter), Mode: ResizeMode(w[4]), N: w.uint16(6), X: w.uint32(8), Out: w.uint32(12),
		MulY: w.uint32(16), DivY: w.uint32(20), MulX: w.uint32(24), DivX: w.uint32(28),
	}
	i.Wait, i.Signal = w.tokens()
	return i
}

var resizeFields = [...]string{"mul_y", "div_y", "mul_x", "div_x"}

// Check implements Instruction.
func (i Resize) Check(l Limits) *Violation {
	var c checker
	if t := l.Setup.Image.Type; i.Mode > ResizeFixed || i.Mode == ResizeFixed && t.Float() {
		c.fail(BadOperand, 4, "mode", "is %s with elements of %s; modes are 0 to %d, and fixed is of integers", nameOf(resizeModes, uint8(i.Mode)), nameOf(elementTypes, uint8(t)), ResizeFixed)
	}
	c.image(i.X, i.Out, i.N, l)
	for n, v := range []uint32{i.MulY, i.DivY, i.MulX, i.DivX} {
		off, field := uint64(16+4*n), resizeFields[n]
		switch {
		case c.v != nil:
		case i.Mode != ResizeFixed && v >= 0x7f800000:
			c.fail(BadOperand, off, field, "is %#x, which is no finite fp32 above 0; 0 leaves the step out", v)
		case i.Mode == ResizeFixed && n%2 == 0 && (v == 0 || v > MaxResizeStep):
			c.fail(BadOperand, off, field, "is %d; a step of mode fixed is from 1 to %d in units of 2⁻¹⁰", v, MaxResizeStep)
		case i.Mode == ResizeFixed && n%2 == 1 && v != 0:
			c.fail(BadOperand, off, field, "is %#x; mode fixed does not divide and it must be 0", v)
		}
	}
	c.imageBounds(i.X, i.Out, i.N, l)
	return c.v
}

// MaxResizeStep is the largest step of ResizeFixed: every line of 65535 in one.
const MaxResizeStep = 65535 << 10
