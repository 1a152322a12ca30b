// SPDX-License-Identifier: Apache-2.0

package timing

import (
	"npuemu/core/isa"
	"npuemu/core/num"
	"npuemu/core/systolic"
)

// unit is a part of the core that does one thing at a time. The matrix engine
// has two: one places weights, the other streams activations.
type unit uint8

const (
	unitLoad unit = iota
	unitStore
	unitWeights
	unitArray
	unitVector
	units
)

// cost is what an instruction asks of the card (§13.4).
type cost struct {
	unit  unit
	span         // with all of every shared part to itself
	dram  uint64 // bytes of device memory, whole bursts
	bus   uint64 // bytes of the bus
	spad  uint64 // bytes of the scratchpad
	held  uint64 // bytes as which they keep it, if they are not spread over all banks; 0 if they are
	macs  uint64
	moved uint64 // bytes that the program asked for
}

// vectorTail is the length of the vector engine's pipeline in cycles.
const vectorTail = 8

// passes returns how many cycles an element takes in a cell (§13.3.3): a cell
// multiplies 8 bits in a cycle.
func passes(a, b systolic.Type) uint64 { return max(a.Bytes(1), b.Bytes(1)) }

// engine returns the cost of an instruction of the setup s, which passed Check.
// onBus says which bindings are not device memory, a bit each.
func (c *Config) engine(i isa.Instruction, s *isa.Setup, onBus uint64) cost {
	switch i := i.(type) {
	case isa.Load:
		return c.transfer(unitLoad, i, onBus)
	case isa.Store:
		return c.transfer(unitStore, isa.Load(i), onBus)
	case isa.Stamp:
		t := isa.Load{Binding: i.Binding, Offset: i.Offset, NX: isa.StampSize, NY: 1, NZ: 1}
		k := c.transfer(unitStore, t, onBus)
		k.spad = 0
		return k
	case isa.Preload:
		return cost{unit: unitWeights, span: span{busy: uint64(c.Rows)}, spad: uint64(i.K) * uint64(i.N)}
	case isa.Matmul:
		m := uint64(i.MX) * uint64(i.MY)
		q := product{m: m, line: m, passes: 1}
		return cost{unit: unitArray, span: span{busy: q.streams(c, WeightStationary, m), tail: skew(c)}, spad: m * uint64(i.K), macs: m * uint64(i.K) * uint64(i.N)}
	case isa.Gemm:
		return c.product(i.Product(s), s, gemmBytes(&i, s), weightBytes(i.BRows(s), uint64(i.N), uint64(i.K), s)+scaleBytes(&i, s))
	case isa.Conv:
		p := i.Product(s)
		depth := uint64(p.KernelH) * uint64(p.KernelW) * uint64(p.Cin) / uint64(p.Groups)
		windows := uint64(p.OutH) * uint64(p.OutW) * uint64(p.Groups) * depth
		return c.product(p, s, p.A.Type.Bytes(windows), weightBytes(i.BRows(s), uint64(i.Cout), depth, s))
	case isa.Fill:
		return c.vector(uint64(i.NY), uint64(i.NX), 4, 1, ifSpad(!i.Acc, uint64(i.NX)*uint64(i.NY)))
	case isa.Bias:
		return c.vector(uint64(i.M), uint64(i.N), 1, 1, 4*uint64(i.N))
	case isa.Requant:
		m := uint64(i.MX) * uint64(i.MY)
		return c.vector(m, uint64(i.N), 1, 1, m*uint64(i.N)+uint64(i.ParamCount())*isa.ParamSize)
	case isa.Table:
		n := uint64(i.M) * uint64(i.N)
		return c.vector(uint64(i.M), uint64(i.N), 1, 1, 2*n+256)
	case isa.Element:
		n := uint64(i.M) * uint64(i.N)
		spad := ifSpad(!i.XAcc, i.Type.Bytes(n)) + ifSpad(!i.OutAcc, i.OutType.Bytes(n))
		if !i.Op.Unary() {
			spad += ifSpad(!i.YAcc && !i.One, i.Type.Bytes(n))
		}
		return c.vector(uint64(i.M), uint64(i.N), 1, elementPasses(i.Op), spad)
	case isa.Pool:
		return c.image(&s.Image, uint64(i.N), uint64(i.KernelH)*uint64(i.KernelW))
	case isa.Resize:
		if i.Mode == isa.ResizeLinear || i.Mode == isa.ResizeFixed {
			return c.image(&s.Image, uint64(i.N), 4)
		}
		return c.image(&s.Image, uint64(i.N), 1)
	case isa.Transpose:
		n := &s.Shape.N
		elements := uint64(n[isa.Dims-1]) * ceilDiv(uint64(i.Size), 4)
		rows := uint64(1)
		for _, d := range n[:isa.Dims-1] {
			rows *= uint64(d)
		}
		return c.vector(rows, elements, 1, 1, 2*rows*uint64(n[isa.Dims-1])*uint64(i.Size))
	case isa.Gather:
		return c.gather(i)
	case isa.Scatter:
		return c.gather(isa.Gather(i))
	case isa.Quantize:
		n, passes := uint64(i.M)*uint64(i.N), uint64(1)
		if i.Op == isa.QuantizeReal {
			passes = elementPasses(isa.ElemDiv)
		}
		return c.vector(uint64(i.M), uint64(i.N), 1, passes, ifSpad(!i.XAcc, i.Type.Bytes(n))+ifSpad(!i.OutAcc, i.OutType.Bytes(n)))
	case isa.Addq:
		n, passes := uint64(i.M)*uint64(i.N), uint64(3)
		if i.Op == isa.AddqMul {
			passes = 2
		}
		return c.vector(uint64(i.M), uint64(i.N), 1, passes, i.Type.Bytes(2*n)+ifSpad(!i.One, i.Type.Bytes(n)))
	case isa.Reduce:
		n := uint64(i.M) * uint64(i.N)
		return c.vector(uint64(i.M), uint64(i.N), 1, 1, ifSpad(!i.XAcc, i.Type.Bytes(n))+ifSpad(!i.OutAcc, i.OutType.Bytes(uint64(i.M))))
	case isa.Norm:
		n := uint64(i.M) * uint64(i.N)
		return c.vector(uint64(i.M), uint64(i.N), 1, normPasses(i.Op), ifSpad(!i.XAcc, 3*i.Type.Bytes(n))+ifSpad(!i.OutAcc, i.OutType.Bytes(n)))
	}
	return cost{} // SYNC, OPERANDS, WINDOW, BLOCKS, SPARSE, IMAGE, SHAPE, SCALES: no more than their dispatch
}

func ifSpad(there bool, bytes uint64) uint64 {
	if there {
		return bytes
	}
	return 0
}

// vector is m rows of n elements, of which a lane takes width in a cycle and pass.
func (c *Config) vector(m, n, width, passes, spad uint64) cost {
	return cost{unit: unitVector, span: span{busy: m * ceilDiv(n, c.lanes()*width) * passes, tail: vectorTail}, spad: spad}
}

// gather is rows that indices name; a lane copies 4 bytes in a cycle.
func (c *Config) gather(i isa.Gather) cost {
	m, n := uint64(i.M), uint64(i.N)
	return c.vector(m, n, 4, 1, m*(2*n+4))
}

// image is n channels of each pixel that is made, of so many pixels that are read.
func (c *Config) image(i *isa.Image, n, pixels uint64) cost {
	made := uint64(i.OutH) * uint64(i.OutW)
	return c.vector(made, n, 1, pixels, ifSpad(!i.XAcc, made*pixels*i.Type.Bytes(n))+ifSpad(!i.OutAcc, made*i.OutType.Bytes(n)))
}

// elementPasses says how often an element of ELEMENT goes through a lane
// (§13.4.4).
func elementPasses(op isa.ElementOp) uint64 {
	switch {
	case op < isa.ElemDiv:
		return 1
	case op == isa.ElemHardSigmoid || op == isa.ElemHardSwish || op == isa.ElemReLU6:
		return 2
	case op == isa.ElemDiv || op == isa.ElemSqrt || op == isa.ElemReciprocal || op == isa.ElemRsqrt:
		return 4
	}
	return 8
}

// normPasses is the same for NORM.
func normPasses(op isa.NormOp) uint64 {
	if op == isa.Softmax {
		return 1 + 8 + 1 // largest, exponential and sum, scale
	}
	if op == isa.RMSNorm {
		return 2 // squares, scale
	}
	return 3 // mean, squares, scale
}

// product is GEMM and CONV, each of their groups a product, of operands of so many
// bytes in the scratchpad. Sparse weights are those that are there (§13.4.5); a
// multiply-accumulate that they leave out counts as one, as the core counts it.
func (c *Config) product(p systolic.Product, s *isa.Setup, a, b uint64) cost {
	g := uint64(p.Groups)
	q := product{
		m: uint64(p.OutH) * uint64(p.OutW), n: uint64(p.Cout) / g, k: uint64(p.KernelH) * uint64(p.KernelW) * uint64(p.Cin) / g,
		groups: g, passes: passes(p.A.Type, p.B.Type),
	}
	if s.Sparse.On {
		q.k /= 2
	}
	q.line = q.m
	if p.KernelH*p.KernelW > 1 {
		q.line = uint64(p.OutW)
	}
	d := WeightStationary
	if s.Operands.OutputStationary {
		d = OutputStationary
	}
	return cost{unit: unitArray, span: q.time(c, d), spad: q.spadBytes(c, d, a, b), macs: p.MACs()}
}

// gemmBytes returns the bytes of the activations, with their scales (§13.4.5).
func gemmBytes(i *isa.Gemm, s *isa.Setup) uint64 {
	n := rowBytes(i.ARows(s))
	if s.Blocks.A != num.NotMX {
		n += rowBytes(i.AScaleRows(s))
	}
	return n
}

// scaleBytes returns those of the weights' scales.
func scaleBytes(i *isa.Gemm, s *isa.Setup) uint64 {
	if s.Blocks.B == num.NotMX {
		return 0
	}
	return rowBytes(i.BScaleRows(s))
}

// weightBytes returns the bytes of weights in these rows, with their indices if they are sparse.
func weightBytes(b isa.Rows, n, depth uint64, s *isa.Setup) uint64 {
	bytes := rowBytes(b)
	if s.Sparse.On {
		bytes += rowBytes(s.IndexRows(depth, n))
	}
	return bytes
}

// rowBytes returns how many bytes are in rows.
func rowBytes(r isa.Rows) uint64 { return r.Outer * r.Inner * r.Bytes }

// transfer is LOAD and STORE (§13.4.2). Bindings are taken to begin at a burst.
func (c *Config) transfer(u unit, i isa.Load, onBus uint64) cost {
	row, ny, nz := uint64(i.NX), uint64(i.NY), uint64(i.NZ)
	strideY, strideZ := uint64(i.StrideY), uint64(i.StrideZ)
	moved := row * ny * nz
	// Rows without gaps are one, then planes of one row.
	if ny > 1 && strideY == row {
		row, ny = row*ny, 1
	}
	if nz > 1 && ny == 1 && strideZ == row {
		row, nz = row*nz, 1
	}
	k := cost{unit: u, spad: ifSpad(!i.Acc, moved), moved: moved}
	width, burst := uint64(c.DRAMWidth), uint64(c.Burst)
	if onBus>>i.Binding&1 != 0 {
		k.bus, k.tail, width = moved, uint64(c.BusLatency), uint64(c.BusWidth)
	} else {
		k.dram, k.tail = bursts(i.Offset, row, strideY, strideZ, ny, nz, burst)*burst, uint64(c.DRAMLatency)
	}
	k.busy = max(ceilDiv(k.dram+k.bus, width), ny*nz)
	return k
}

// bursts returns how many aligned bursts the rows touch, each row for itself.
func bursts(offset, row, strideY, strideZ, ny, nz, burst uint64) uint64 {
	// Rows begin at the same place of a burst again after at most burst of them.
	line := func(at uint64) (n uint64) {
		for y := range min(ny, burst) {
			start := (at + y%burst*(strideY%burst)) % burst
			n += ceilDiv(start+row, burst) * ((ny-1-y)/burst + 1)
		}
		return n
	}
	if ny == 1 || strideY%burst == 0 {
		line = func(at uint64) uint64 { return ny * ceilDiv(at%burst+row, burst) }
	}
	if nz == 1 || strideZ%burst == 0 {
		return nz * line(offset%burst)
	}
	var n uint64
	for z := range min(nz, burst) {
		n += line((offset%burst+z*(strideZ%burst))%burst) * ((nz-1-z)/burst + 1)
	}
	return n
}
