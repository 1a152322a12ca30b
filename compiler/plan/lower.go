// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"encoding/binary"
	"math"

	"npuemu/compiler/ir"
	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// lower generates one node.
type lower struct {
	code
	*memory
	node *ir.Node
	tail *chain // behind a product; nil for nothing
}

// deviceTypes are the types that engines compute with, by those of the graph.
var deviceTypes = map[ir.Type]systolic.Type{
	ir.Int4: systolic.Int4, ir.Int8: systolic.Int8, ir.Uint8: systolic.Uint8, ir.Bool: systolic.Uint8, ir.Int16: systolic.Int16, ir.Int32: systolic.Int32,
	ir.Float32: systolic.FP32, ir.BFloat16: systolic.BF16, ir.Float16: systolic.FP16, ir.Float8E4M3: systolic.E4M3, ir.Float8E5M2: systolic.E5M2,
}

var elementOps = map[string]isa.ElementOp{
	"move": isa.ElemMove, "neg": isa.ElemNeg, "abs": isa.ElemAbs, "relu": isa.ElemReLU, "sqrt": isa.ElemSqrt, "exp": isa.ElemExp,
	"log": isa.ElemLog, "tanh": isa.ElemTanh, "sigmoid": isa.ElemSigmoid, "silu": isa.ElemSiLU, "gelu": isa.ElemGELU, "gelu_tanh": isa.ElemGELUTanh,
	"erf": isa.ElemErf, "reciprocal": isa.ElemReciprocal, "rsqrt": isa.ElemRsqrt, "hardsigmoid": isa.ElemHardSigmoid,
	"hardswish": isa.ElemHardSwish, "relu6": isa.ElemReLU6,
	"add": isa.ElemAdd, "sub": isa.ElemSub, "mul": isa.ElemMul, "min": isa.ElemMin, "max": isa.ElemMax, "eq": isa.ElemEq, "ne": isa.ElemNe,
	"lt": isa.ElemLt, "le": isa.ElemLe, "and": isa.ElemAnd, "or": isa.ElemOr, "xor": isa.ElemXor, "shl": isa.ElemShl, "shr": isa.ElemShr,
	"shr_logical": isa.ElemShrLogical, "shr_round": isa.ElemShrRound, "mulhigh": isa.ElemMulHigh, "add_sat": isa.ElemAddSat,
	"sub_sat": isa.ElemSubSat, "div": isa.ElemDiv,
}

// bodies are the operations on single elements, or on rows of the last axis, whose result has as many.
var bodies = map[string]func(*lower) (*body, error){
	"npu.element": (*lower).element, "npu.cast": (*lower).cast, "npu.clip": (*lower).clip, "npu.select": (*lower).choose, "npu.table": (*lower).table,
	"npu.quantize": (*lower).quantize, "npu.dequantize": (*lower).dequantize, "npu.requantize": (*lower).requantize,
	"npu.qadd": (*lower).qadd, "npu.qmul": (*lower).qmul,
	"npu.softmax": (*lower).softmax, "npu.layernorm": (*lower).layerNorm, "npu.rmsnorm": (*lower).rmsNorm,
}

// lowerings are the other operations of the device level that this package generates.
var lowerings = map[string]func(*lower) error{
	"npu.conv": (*lower).conv, "npu.gemm": (*lower).gemm,
	"npu.pool": (*lower).pool, "npu.resize": (*lower).resize, "npu.reduce": (*lower).reduce,
	"npu.reshape": (*lower).reshape, "npu.bitcast": (*lower).reshape, "npu.transpose": (*lower).transpose, "npu.concat": (*lower).concat, "npu.slice": (*lower).slice,
	"npu.pad": (*lower).pad, "npu.gather": (*lower).gather, "npu.expand": (*lower).expand,
}

func (l *lower) x() *ir.Tensor { return l.node.Inputs[0] }
func (l *lower) y() *ir.Tensor { return l.node.Outputs[0] }

// kind is the type of t on the device.
func (l *lower) kind(t *ir.Tensor) (systolic.Type, error) {
	k, ok := deviceTypes[t.Type]
	if !ok || k == systolic.Int4 {
		e := l.node.Errorf("the vector engine does not compute with %v", t.Type)
		e.Tensor = t.Name
		return 0, e.WithRemedy("cast it")
	}
	return k, nil
}

// kinds is kind of the first input and of the output.
func (l *lower) kinds() (x, y systolic.Type, err error) {
	if x, err = l.kind(l.x()); err == nil {
		y, err = l.kind(l.y())
	}
	return x, y, err
}

// operand is t, broadcast to shape.
func (l *lower) operand(t *ir.Tensor, shape []int) operand {
	k := deviceTypes[t.Type]
	s := t.Type.Bits() / 8
	return operand{view: broadcast(l.place(t), t.Shape, shape, s), t: k, scalar: t.Elements() == 1 && ir.Elements(shape) > 1, tensor: t}
}

// result is the output, dense.
func (l *lower) result() view {
	y := l.y()
	return denseView(l.place(y), y.Shape, y.Type.Bits()/8)
}

// scalar is a constant of one element for all.
func (l *lower) scalar(t systolic.Type, v int64) operand {
	return operand{view: view{at: l.constant(encode(t, v)), size: size(t)}, t: t, scalar: true}
}

func (l *lower) scalarFloat(v float32) operand {
	return operand{view: view{at: l.constant(floats(v)), size: 4}, t: systolic.FP32, scalar: true}
}

// perChannel is a constant of one element for all, or one for each index of an axis of shape.
func (l *lower) perChannel(t systolic.Type, b []byte, shape []int, axis int) operand {
	n := len(b) / size(t)
	if n == 1 {
		return operand{view: view{at: l.constant(b), size: size(t)}, t: t, scalar: true}
	}
	own := make([]int, len(shape))
	for i := range own {
		own[i] = 1
	}
	own[axis] = n
	return operand{view: broadcast(l.constant(b), own, shape, size(t)), t: t}
}

// encode is an integer of a type.
func encode(t systolic.Type, v int64) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(v))
	return b[:size(t)]
}

func encodeAll[T int | int64](t systolic.Type, v []T) []byte {
	var b []byte
	for _, x := range v {
		b = append(b, encode(t, int64(x))...)
	}
	return b
}

func floats(v ...float32) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

// limits are those of lo and hi of a node, with the range of the output's type for what
// is left out.
func (l *lower) limits() (lo, hi int64) {
	lo, hi = l.y().Type.Range()
	return int64(l.node.Attrs.Int("lo", int(lo))), int64(l.node.Attrs.Int("hi", int(hi)))
}
