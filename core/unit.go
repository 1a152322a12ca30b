// SPDX-License-Identifier: Apache-2.0

package core

import (
	"fmt"

	"npuemu/core/isa"
	"npuemu/core/num"
	"npuemu/core/systolic"
	"npuemu/core/vec"
)

// unit executes instructions, one at a time, in the local memory of its core. It owns what they need besides. A core has
// one for each thread, of which the first is that of the sequencer.
type unit struct {
	// The core's.
	spad    []byte
	acc     []int32
	poison  *guard
	stopped func() bool

	// Of the running program.
	bindings []Binding
	mem      Memory
	rowMem   RowMemory // mem, if it is one

	// Of the instruction in execution.
	limits *isa.Limits
	stats  *Stats // counts products and bytes of LOAD and STORE

	moved   Stats  // of the tasks of a course
	numbers uint64 // above which those of their weights are

	array *systolic.Array

	staging  []byte      // a row on its way between memory and the accumulators
	biasRow  []int32     // that the rows of a BIAS become
	scales   []num.Scale // REQUANT's parameter table
	folded   int         // rows that requantRows takes as one; scales are there so often
	requants *vec.Requant
	// What requants and folded are of: rounding, zero point and bounds, and the table.
	lastRequant isa.Requant
	lastTable   []byte
	fused       isa.Requant // in progress with a product
	fusedPart   func(row, rows, column, columns int, c []int32, stride int)

	vec      *vec.Unit
	pair     *vec.Pair
	x, y, z  []uint32  // rows of the vector engine's operands and results
	one      [1]uint32 // y of ELEMENT that is one for all
	oneBytes [2]byte   // the same as it is in the scratchpad
	sums     [vec.Rows]uint32
	bytes256 [isa.TableSize]byte // TABLE's
	params   []uint32            // of NORM
	quants   []isa.QuantizeParam // QUANTIZE's table

	axes         [isa.Dims]axis // of TRANSPOSE
	wideA, wideB []byte         // operands that those of a product stand for (BLOCKS, SPARSE)
}

// newUnit returns a unit of c whose products take so many threads.
func (c *Core) newUnit(threads int) (*unit, error) {
	array, err := systolic.New(c.cfg.Rows, c.cfg.Cols, threads)
	if err != nil {
		return nil, err
	}
	u := &unit{
		spad: c.spad, acc: c.acc, poison: &c.poison, stopped: c.stopped, limits: &c.limits, stats: &c.stats, array: array,
		requants: vec.NewRequant(), vec: vec.New(), pair: vec.NewPair(),
	}
	u.fusedPart = u.requantizedPart
	return u, nil
}

// execute runs one instruction that passed CheckFormat and is not the sequencer's. The fault has no index.
func (c *unit) execute(w *isa.Word) *Fault {
	switch isa.Opcode(w[0]) {
	case isa.OpLoad:
		return c.transfer(isa.DecodeLoad(w), false)
	case isa.OpStore:
		return c.transfer(isa.Load(isa.DecodeStore(w)), true)
	case isa.OpPreload:
		return c.preload(isa.DecodePreload(w))
	case isa.OpMatmul:
		return c.matmul(isa.DecodeMatmul(w))
	case isa.OpFill:
		return c.fill(isa.DecodeFill(w))
	case isa.OpRequant:
		return c.requant(isa.DecodeRequant(w))
	case isa.OpElement:
		return c.element(isa.DecodeElement(w))
	case isa.OpTable:
		return c.table(isa.DecodeTable(w))
	case isa.OpReduce:
		return c.reduce(isa.DecodeReduce(w))
	case isa.OpNorm:
		return c.norm(isa.DecodeNorm(w))
	case isa.OpPool:
		return c.pool(isa.DecodePool(w))
	case isa.OpResize:
		return c.resize(isa.DecodeResize(w))
	case isa.OpTranspose:
		return c.transpose(isa.DecodeTranspose(w))
	case isa.OpGather:
		return c.gather(isa.DecodeGather(w))
	case isa.OpScatter:
		return c.scatter(isa.DecodeScatter(w))
	case isa.OpQuantize:
		return c.quantize(isa.DecodeQuantize(w))
	case isa.OpAddq:
		return c.addq(isa.DecodeAddq(w))
	}
	panic(fmt.Sprintf("core: BUG: opcode %#02x passed CheckFormat", w[0]))
}
