// SPDX-License-Identifier: Apache-2.0

package isa

import "strconv"

// operand is a field that assembler text names (§5.6, §5.8).
type operand struct {
	name     string
	off      uint8 // byte offset in the instruction
	size     uint8 // bytes
	form     form
	required bool  // no default: always written
	def      int64 // value when it is left out
	choices  []choice
	feature  uint64 // group without which it is reserved; at most one of an operation
}

// choice is a value that text writes as a name.
type choice struct {
	name  string
	value uint8
}

// nameOf returns the name of v, or its number if it has none.
func nameOf(list []choice, v uint8) string {
	for _, c := range list {
		if c.value == v {
			return c.name
		}
	}
	return strconv.Itoa(int(v))
}

// form says which values an operand takes and how they print.
type form uint8

const (
	count   form = iota // unsigned, decimal
	address             // unsigned, hexadecimal
	signed              // two's complement, decimal
	pattern             // unsigned; a byte that may also be written as a negative int8
	named               // one of choices, by name
	scalar              // a register, as s0
)

type flag struct {
	name string
	bit  byte
}

// operation is one row of the instruction set.
type operation struct {
	name     string
	opcode   Opcode
	feature  uint64    // the group that it is of; 0 for ISA 1.0
	operands []operand // by byte offset
	flags    []flag
}

// offsetHi is where LOAD and STORE keep bits 39:32 of the operand at
// offsetLo, the only one whose bytes are not contiguous.
const (
	offsetHi = 5
	offsetLo = 12
)

var transferOperands = []operand{
	{name: "binding", off: 4, size: 1, required: true},
	{name: "ny", off: 6, size: 2, def: 1},
	{name: "local", off: 8, size: 4, form: address, required: true},
	{name: "offset", off: offsetLo, size: 5, form: address},
	{name: "nx", off: 16, size: 4, required: true},
	{name: "stride_y", off: 20, size: 4},
	{name: "stride_z", off: 24, size: 4},
	{name: "nz", off: 28, size: 2, def: 1},
	{name: "local_stride", off: 30, size: 2},
}

var accFlag = []flag{{"acc_mem", flagACC}}

// operations is the instruction set in the order of §5.6. Encodings are
// written once more, by hand, in the instruction types; tests compare the two.
var operations = []operation{
	{name: "halt", opcode: OpHalt},
	{name: "loop", opcode: OpLoop, feature: FeatureControl, operands: []operand{
		{name: "reg", off: 4, size: 1, form: scalar, required: true},
		{name: "count_reg", off: 5, size: 1, form: scalar},
		{name: "count", off: 8, size: 4},
		{name: "start", off: 12, size: 4, form: signed},
		{name: "step", off: 16, size: 4, form: signed, def: 1},
	}, flags: []flag{{"by_register", flagByRegister}}},
	{name: "end", opcode: OpEnd, feature: FeatureControl},
	{name: "scalar", opcode: OpScalar, feature: FeatureControl, operands: []operand{
		{name: "op", off: 4, size: 1, form: named, choices: scalarOps, required: true},
		{name: "rd", off: 5, size: 1, form: scalar, required: true},
		{name: "ra", off: 6, size: 1, form: scalar},
		{name: "rb", off: 7, size: 1, form: scalar},
		{name: "imm", off: 8, size: 4, form: signed},
	}, flags: []flag{{"immediate", flagImmediate}}},
	// Text writes WITH in a form of its own (with.go).
	{name: "with", opcode: OpWith, feature: FeatureControl, operands: []operand{
		{name: "terms", off: 4, size: 8}, {name: "terms", off: 12, size: 8}, {name: "terms", off: 20, size: 8},
		{name: "condition", off: 28, size: 2},
	}},
	{name: "sync.load", opcode: OpSyncLoad},
	{name: "sync.store", opcode: OpSyncStore},
	{name: "sync.matrix", opcode: OpSyncMatrix},
	{name: "sync.vector", opcode: OpSyncVector},
	{name: "load", opcode: OpLoad, operands: transferOperands, flags: accFlag},
	{name: "store", opcode: OpStore, operands: transferOperands, flags: accFlag},
	{name: "stamp", opcode: OpStamp, feature: FeatureControl, operands: []operand{
		{name: "binding", off: 4, size: 1, required: true},
		{name: "id", off: 8, size: 4},
		{name: "offset", off: offsetLo, size: 5, form: address},
	}},
	{name: "preload", opcode: OpPreload, operands: []operand{
		{name: "k", off: 4, size: 2, required: true},
		{name: "n", off: 6, size: 2, required: true},
		{name: "weights", off: 8, size: 4, form: address, required: true},
		{name: "stride", off: 12, size: 4},
	}},
	{name: "matmul", opcode: OpMatmul, operands: []operand{
		{name: "k", off: 4, size: 2, required: true},
		{name: "n", off: 6, size: 2, required: true},
		{name: "ifmap", off: 8, size: 4, form: address, required: true},
		{name: "acc", off: 12, size: 4, form: address, required: true},
		{name: "mx", off: 16, size: 2, def: 1},
		{name: "my", off: 18, size: 2, def: 1},
		{name: "stride_x", off: 20, size: 2},
		{name: "acc_stride", off: 22, size: 2},
		{name: "stride_y", off: 24, size: 4},
	}, flags: []flag{{"accumulate", flagAccumulate}}},
	{name: "operands", opcode: OpOperands, feature: FeatureGEMM, operands: []operand{
		{name: "a_type", off: 4, size: 1, form: named, choices: types},
		{name: "b_type", off: 5, size: 1, form: named, choices: types},
		{name: "a_zero", off: 6, size: 2, form: signed},
		{name: "b_zero", off: 8, size: 2, form: signed},
		{name: "b_zeros", off: 12, size: 4, form: address},
		{name: "a_stride", off: 16, size: 4},
		{name: "b_stride", off: 20, size: 4},
		{name: "acc_stride", off: 24, size: 4},
	}, flags: []flag{
		{"per_channel", flagPerChannel},
		{"transpose_a", flagTransposeA},
		{"transpose_b", flagTransposeB},
		{"output_stationary", flagOutputStationary},
	}},
	{name: "window", opcode: OpWindow, feature: FeatureGEMM, operands: []operand{
		{name: "kernel_h", off: 4, size: 1, def: 1},
		{name: "kernel_w", off: 5, size: 1, def: 1},
		{name: "step_y", off: 6, size: 1, def: 1},
		{name: "step_x", off: 7, size: 1, def: 1},
		{name: "dilation_y", off: 8, size: 1, def: 1},
		{name: "dilation_x", off: 9, size: 1, def: 1},
		{name: "groups", off: 10, size: 2, def: 1},
		{name: "pad_top", off: 12, size: 2},
		{name: "pad_left", off: 14, size: 2},
	}},
	{name: "gemm", opcode: OpGemm, feature: FeatureGEMM, operands: []operand{
		{name: "m", off: 4, size: 4, required: true},
		{name: "n", off: 8, size: 4, required: true},
		{name: "k", off: 12, size: 4, required: true},
		{name: "a", off: 16, size: 4, form: address, required: true},
		{name: "b", off: 20, size: 4, form: address, required: true},
		{name: "acc", off: 24, size: 4, form: address, required: true},
	}, flags: []flag{{"accumulate", flagAccumulate}}},
	{name: "conv", opcode: OpConv, feature: FeatureGEMM, operands: []operand{
		{name: "in_h", off: 4, size: 2, required: true},
		{name: "in_w", off: 6, size: 2, required: true},
		{name: "out_h", off: 8, size: 2, required: true},
		{name: "out_w", off: 10, size: 2, required: true},
		{name: "cin", off: 12, size: 2, required: true},
		{name: "cout", off: 14, size: 2, required: true},
		{name: "a", off: 16, size: 4, form: address, required: true},
		{name: "b", off: 20, size: 4, form: address, required: true},
		{name: "acc", off: 24, size: 4, form: address, required: true},
		{name: "line", off: 28, size: 4},
	}, flags: []flag{{"accumulate", flagAccumulate}}},
	{name: "blocks", opcode: OpBlocks, feature: FeatureMX, operands: []operand{
		{name: "a_format", off: 4, size: 1, form: named, choices: mxFormats},
		{name: "b_format", off: 5, size: 1, form: named, choices: mxFormats},
		{name: "a_scales", off: 8, size: 4, form: address},
		{name: "b_scales", off: 12, size: 4, form: address},
		{name: "a_scale_stride", off: 16, size: 4},
		{name: "b_scale_stride", off: 20, size: 4},
	}},
	{name: "sparse", opcode: OpSparse, feature: FeatureSparse, operands: []operand{
		{name: "indices", off: 8, size: 4, form: address},
		{name: "index_stride", off: 12, size: 4},
	}, flags: []flag{{"on", flagOn}}},
	{name: "fill", opcode: OpFill, operands: []operand{
		{name: "value", off: 4, size: 1, form: pattern},
		{name: "local", off: 8, size: 4, form: address, required: true},
		{name: "nx", off: 12, size: 4, required: true},
		{name: "ny", off: 16, size: 4, def: 1},
		{name: "stride", off: 20, size: 4},
	}, flags: accFlag},
	{name: "bias", opcode: OpBias, operands: []operand{
		{name: "n", off: 4, size: 2, required: true},
		{name: "acc_stride", off: 6, size: 2},
		{name: "bias", off: 8, size: 4, form: address, required: true},
		{name: "acc", off: 12, size: 4, form: address, required: true},
		{name: "m", off: 16, size: 4, def: 1},
	}},
	{name: "requant", opcode: OpRequant, operands: []operand{
		{name: "n", off: 4, size: 2, required: true},
		{name: "acc_stride", off: 6, size: 2},
		{name: "acc", off: 8, size: 4, form: address, required: true},
		{name: "out", off: 12, size: 4, form: address, required: true},
		{name: "params", off: 16, size: 4, form: address, required: true},
		{name: "mx", off: 20, size: 2, def: 1},
		{name: "my", off: 22, size: 2, def: 1},
		{name: "out_stride_x", off: 24, size: 2},
		{name: "out_stride_y", off: 26, size: 2},
		{name: "zero_point", off: 28, size: 1, form: signed},
		{name: "lo", off: 29, size: 1, form: signed, def: -128},
		{name: "hi", off: 30, size: 1, form: signed, def: 127},
		{name: "rounding", off: 31, size: 1, form: named, choices: roundings, feature: FeatureVector},
	}, flags: []flag{{"per_channel", flagPerChannel}}},
	{name: "element", opcode: OpElement, feature: FeatureVector, operands: []operand{
		{name: "op", off: 4, size: 1, form: named, choices: elementOps, required: true},
		{name: "type", off: 5, size: 1, form: named, choices: elementTypes, required: true},
		{name: "out_type", off: 6, size: 1, form: named, choices: elementTypes, required: true},
		{name: "x", off: 8, size: 4, form: address, required: true},
		{name: "y", off: 12, size: 4, form: address},
		{name: "out", off: 16, size: 4, form: address, required: true},
		{name: "m", off: 20, size: 4, def: 1},
		{name: "n", off: 24, size: 2, required: true},
		{name: "x_stride", off: 26, size: 2},
		{name: "y_stride", off: 28, size: 2},
		{name: "out_stride", off: 30, size: 2},
	}, flags: []flag{
		{"x_acc", flagXAcc}, {"y_acc", flagYAcc}, {"out_acc", flagOutAcc}, {"no_saturate", flagNoSaturate}, {"one", flagOne},
	}},
	{name: "table", opcode: OpTable, feature: FeatureVector, operands: []operand{
		{name: "x", off: 8, size: 4, form: address, required: true},
		{name: "table", off: 12, size: 4, form: address, required: true},
		{name: "out", off: 16, size: 4, form: address, required: true},
		{name: "m", off: 20, size: 4, def: 1},
		{name: "n", off: 24, size: 2, required: true},
		{name: "x_stride", off: 26, size: 2},
		{name: "out_stride", off: 28, size: 2},
	}},
	{name: "reduce", opcode: OpReduce, feature: FeatureReduce, operands: []operand{
		{name: "op", off: 4, size: 1, form: named, choices: reduceOps, required: true},
		{name: "type", off: 5, size: 1, form: named, choices: elementTypes, required: true},
		{name: "out_type", off: 6, size: 1, form: named, choices: elementTypes, required: true},
		{name: "x", off: 8, size: 4, form: address, required: true},
		{name: "out", off: 16, size: 4, form: address, required: true},
		{name: "m", off: 20, size: 4, def: 1},
		{name: "n", off: 24, size: 2, required: true},
		{name: "x_stride", off: 26, size: 2},
		{name: "out_stride", off: 30, size: 2},
	}, flags: rowFlags},
	{name: "norm", opcode: OpNorm, feature: FeatureReduce, operands: []operand{
		{name: "op", off: 4, size: 1, form: named, choices: normOps, required: true},
		{name: "type", off: 5, size: 1, form: named, choices: elementTypes, required: true},
		{name: "out_type", off: 6, size: 1, form: named, choices: elementTypes, required: true},
		{name: "x", off: 8, size: 4, form: address, required: true},
		{name: "params", off: 12, size: 4, form: address},
		{name: "out", off: 16, size: 4, form: address, required: true},
		{name: "m", off: 20, size: 4, def: 1},
		{name: "n", off: 24, size: 2, required: true},
		{name: "x_stride", off: 26, size: 2},
		{name: "out_stride", off: 30, size: 2},
	}, flags: rowFlags},
	{name: "image", opcode: OpImage, feature: FeaturePool, operands: []operand{
		{name: "type", off: 4, size: 1, form: named, choices: elementTypes, required: true},
		{name: "out_type", off: 5, size: 1, form: named, choices: elementTypes, required: true},
		{name: "zero", off: 6, size: 2, form: signed},
		{name: "in_h", off: 8, size: 2, def: 1},
		{name: "in_w", off: 10, size: 2, def: 1},
		{name: "out_h", off: 12, size: 2, def: 1},
		{name: "out_w", off: 14, size: 2, def: 1},
		{name: "x_line", off: 16, size: 4},
		{name: "out_line", off: 20, size: 4},
		{name: "x_pixel", off: 24, size: 2},
		{name: "out_pixel", off: 26, size: 2},
		{name: "x_top", off: 28, size: 2},
		{name: "out_top", off: 30, size: 2},
	}, flags: rowFlags},
	{name: "pool", opcode: OpPool, feature: FeaturePool, operands: []operand{
		{name: "op", off: 4, size: 1, form: named, choices: poolOps, required: true},
		{name: "n", off: 6, size: 2, required: true},
		{name: "x", off: 8, size: 4, form: address, required: true},
		{name: "out", off: 12, size: 4, form: address, required: true},
		{name: "kernel_h", off: 16, size: 2, def: 1},
		{name: "kernel_w", off: 18, size: 2, def: 1},
		{name: "step_y", off: 20, size: 1, def: 1},
		{name: "step_x", off: 21, size: 1, def: 1},
		{name: "dilation_y", off: 22, size: 1, def: 1},
		{name: "dilation_x", off: 23, size: 1, def: 1},
		{name: "pad_top", off: 24, size: 2},
		{name: "pad_left", off: 26, size: 2},
		{name: "pad_bottom", off: 28, size: 2},
		{name: "pad_right", off: 30, size: 2},
	}, flags: []flag{{"count_pad", flagCountPad}}},
	{name: "resize", opcode: OpResize, feature: FeaturePool, operands: []operand{
		{name: "mode", off: 4, size: 1, form: named, choices: resizeModes, required: true},
		{name: "n", off: 6, size: 2, required: true},
		{name: "x", off: 8, size: 4, form: address, required: true},
		{name: "out", off: 12, size: 4, form: address, required: true},
		{name: "mul_y", off: 16, size: 4, form: address},
		{name: "div_y", off: 20, size: 4, form: address},
		{name: "mul_x", off: 24, size: 4, form: address},
		{name: "div_x", off: 28, size: 4, form: address},
	}, flags: []flag{{"half", flagHalf}, {"center", flagCenter}}},
	{name: "shape", opcode: OpShape, feature: FeatureGather, operands: []operand{
		{name: "n0", off: 4, size: 2, def: 1},
		{name: "n1", off: 6, size: 2, def: 1},
		{name: "n2", off: 8, size: 2, def: 1},
		{name: "n3", off: 10, size: 2, def: 1},
		{name: "out0", off: 12, size: 4},
		{name: "out1", off: 16, size: 4},
		{name: "out2", off: 20, size: 4},
		{name: "out3", off: 24, size: 4},
	}},
	{name: "transpose", opcode: OpTranspose, feature: FeatureGather, operands: []operand{
		{name: "size", off: 4, size: 2, required: true},
		{name: "x", off: 8, size: 4, form: address, required: true},
		{name: "out", off: 12, size: 4, form: address, required: true},
		{name: "x0", off: 16, size: 4},
		{name: "x1", off: 20, size: 4},
		{name: "x2", off: 24, size: 4},
		{name: "x3", off: 28, size: 4},
	}},
	{name: "gather", opcode: OpGather, feature: FeatureGather, operands: []operand{
		{name: "n", off: 4, size: 2, required: true},
		{name: "out_stride", off: 6, size: 2},
		{name: "x", off: 8, size: 4, form: address, required: true},
		{name: "indices", off: 12, size: 4, form: address, required: true},
		{name: "out", off: 16, size: 4, form: address, required: true},
		{name: "m", off: 20, size: 4, def: 1},
		{name: "rows", off: 24, size: 4, required: true},
		{name: "x_stride", off: 28, size: 4},
	}, flags: []flag{{"from_end", flagFromEnd}}},
	{name: "scatter", opcode: OpScatter, feature: FeatureGather, operands: []operand{
		{name: "n", off: 4, size: 2, required: true},
		{name: "x_stride", off: 6, size: 2},
		{name: "x", off: 8, size: 4, form: address, required: true},
		{name: "indices", off: 12, size: 4, form: address, required: true},
		{name: "out", off: 16, size: 4, form: address, required: true},
		{name: "m", off: 20, size: 4, def: 1},
		{name: "rows", off: 24, size: 4, required: true},
		{name: "out_stride", off: 28, size: 4},
	}, flags: []flag{{"from_end", flagFromEnd}}},
	{name: "quantize", opcode: OpQuantize, feature: FeatureQuant, operands: []operand{
		{name: "op", off: 4, size: 1, form: named, choices: quantizeOps, required: true},
		{name: "type", off: 5, size: 1, form: named, choices: quantizeTypes, required: true},
		{name: "out_type", off: 6, size: 1, form: named, choices: quantizeTypes, required: true},
		{name: "x", off: 8, size: 4, form: address, required: true},
		{name: "params", off: 12, size: 4, form: address},
		{name: "out", off: 16, size: 4, form: address, required: true},
		{name: "m", off: 20, size: 4, def: 1},
		{name: "n", off: 24, size: 2, required: true},
		{name: "x_stride", off: 26, size: 2},
		{name: "out_stride", off: 30, size: 2},
	}, flags: []flag{{"x_acc", flagXAcc}, {"per_channel", flagByChannel}, {"out_acc", flagOutAcc}, {"no_saturate", flagNoSaturate}}},
	{name: "scales", opcode: OpScales, feature: FeatureAddq, operands: []operand{
		{name: "rounding", off: 4, size: 1, form: named, choices: roundings, required: true},
		{name: "left", off: 5, size: 1},
		{name: "x_zero", off: 6, size: 2, form: signed},
		{name: "y_zero", off: 8, size: 2, form: signed},
		{name: "zero_point", off: 10, size: 2, form: signed},
		{name: "lo", off: 12, size: 2, form: signed, required: true},
		{name: "hi", off: 14, size: 2, form: signed, required: true},
		{name: "x_scale", off: 16, size: 4, form: address},
		{name: "y_scale", off: 20, size: 4, form: address},
		{name: "scale", off: 24, size: 4, form: address, required: true},
		{name: "x_shift", off: 28, size: 1},
		{name: "y_shift", off: 29, size: 1},
		{name: "shift", off: 30, size: 1},
	}},
	{name: "addq", opcode: OpAddq, feature: FeatureAddq, operands: []operand{
		{name: "op", off: 4, size: 1, form: named, choices: addqOps, required: true},
		{name: "type", off: 5, size: 1, form: named, choices: addqTypes, required: true},
		{name: "x", off: 8, size: 4, form: address, required: true},
		{name: "y", off: 12, size: 4, form: address, required: true},
		{name: "out", off: 16, size: 4, form: address, required: true},
		{name: "m", off: 20, size: 4, def: 1},
		{name: "n", off: 24, size: 2, required: true},
		{name: "x_stride", off: 26, size: 2},
		{name: "y_stride", off: 28, size: 2},
		{name: "out_stride", off: 30, size: 2},
	}, flags: []flag{{"one", flagOne}}},
}

var rowFlags = []flag{{"x_acc", flagXAcc}, {"out_acc", flagOutAcc}, {"no_saturate", flagNoSaturate}}

// groups are the names of Features, by bit (§5.3, §5.8).
var groups = []struct {
	name string
	bit  uint64
}{{"gemm", FeatureGEMM}, {"float", FeatureFloat}, {"control", FeatureControl}, {"vector", FeatureVector}, {"reduce", FeatureReduce}, {"pool", FeaturePool}, {"sparse", FeatureSparse}, {"mx", FeatureMX}, {"gather", FeatureGather}, {"quant", FeatureQuant}, {"addq", FeatureAddq}, {"arguments", FeatureArguments}}

// Group is a group of instructions (§5.3).
type Group struct {
	Name  string // as .features has it
	Bit   uint64 // of Features
	Since uint16 // minor of the oldest ISA that has it
}

// Groups returns all groups, by bit.
func Groups() []Group {
	var list []Group
	for _, g := range groups {
		list = append(list, Group{g.name, g.bit, since(g.bit)})
	}
	return list
}

// featureName returns the name of the group with the given bit.
func featureName(bit uint64) string {
	for _, g := range groups {
		if g.bit == bit {
			return g.name
		}
	}
	panic("isa: BUG: a group without a name")
}

// rows indexes operations and their defined bits by opcode.
var rows = buildRows()

type row struct {
	op      *operation // nil for an illegal opcode
	defined Word       // bits that are not reserved
	later   uint64     // group without which byte laterAt is reserved, or 0
	laterAt uint8
}

func buildRows() *[256]row {
	var t [256]row
	for i := range operations {
		op := &operations[i]
		r := row{op: op}
		r.defined[0] = 0xff
		for _, f := range op.flags {
			r.defined[1] |= f.bit
		}
		if op.opcode.Class() != ClassControl { // the sequencer has no tokens (§5.6.1)
			r.defined[2], r.defined[3] = 0xff, 0xff
		}
		for _, o := range op.operands {
			for b := range o.size {
				r.defined[o.byteAt(b)] = 0xff
			}
			if o.feature != 0 {
				r.later, r.laterAt = o.feature, o.off
			}
		}
		t[op.opcode] = r
	}
	return &t
}

// FieldAt returns the name of the operand of instruction o that byte off belongs to, as text has it, of byte 1 flags, or "".
func FieldAt(o Opcode, off uint64) string {
	switch off {
	case 0:
		return "opcode"
	case 1:
		return "flags"
	case 2:
		return "wait"
	case 3:
		return "signal"
	}
	if op := rows[o].op; op != nil {
		for i := range op.operands {
			f := &op.operands[i]
			for b := range f.size {
				if uint64(f.byteAt(b)) == off {
					return f.name
				}
			}
		}
	}
	return ""
}

// byteAt returns where byte b of the operand's value is.
func (o *operand) byteAt(b uint8) uint8 {
	if b == 4 && o.size == 5 {
		return offsetHi
	}
	return o.off + b
}

func (o *operand) put(w *Word, v int64) {
	for b := range o.size {
		w[o.byteAt(b)] = byte(v >> (8 * b))
	}
}

func (o *operand) value(w *Word) int64 {
	var v int64
	for b := range o.size {
		v |= int64(w[o.byteAt(b)]) << (8 * b)
	}
	if o.form == signed {
		shift := 64 - 8*o.size
		v = v << shift >> shift
	}
	return v
}

// limits returns the smallest and the largest value that text may give.
func (o *operand) limits() (lo, hi int64) {
	switch o.form {
	case signed:
		return -1 << (8*o.size - 1), 1<<(8*o.size-1) - 1
	case pattern:
		return -128, 255
	}
	return 0, 1<<(8*o.size) - 1
}
